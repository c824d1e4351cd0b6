"""Runs copies on a device: by the device itself where it can, else through one bounded buffer.

The way is chosen before the first byte moves, by what the device can do; after a device error no other way is tried,
because that would hide the error (review of the Linux copy-offload series). Nothing here knows a file or a lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from zonefs_py.copy.limits import CopyLimits
from zonefs_py.copy.plan import CopyCommand, CopyRange, cut, plan
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import DeviceError, OutOfMemory
from zonefs_py.units import MIB, round_down
from zonefs_py.zone import CopyMethod

log = logging.getLogger(__name__)

BUFFER_SIZE = 1 * MIB


class Engine(Enum):
    """A way to copy; also what ``-o copy=`` takes, with ``auto`` beside it."""

    DEVICE = "device"
    REFLINK = "reflink"
    HOST = "host"
    EMULATE = "emulate"


_METHODS = {Engine(method.value): method for method in CopyMethod}


@dataclass(frozen=True)
class CopyCounters:
    """What one engine has done since the device was opened. ``nanoseconds`` is the time it took."""

    copies: int = 0
    commands: int = 0
    bytes: int = 0
    errors: int = 0
    nanoseconds: int = 0


@dataclass(frozen=True)
class CopyResult:
    """How far a copy came: ``completed`` bytes from its start are known to be copied.

    ``error`` is what stopped it, None if nothing did. ``issued`` says whether the device was asked to do anything, and
    ``source_failed`` that the error is known to have come from reading.
    """

    completed: int
    error: DeviceError | OutOfMemory | None = None
    issued: bool = True
    source_failed: bool = False


class CopyEngine:
    """The copy path of one device. Copies of different zones may run at the same time, in different threads."""

    def __init__(
        self, device: ZonedDevice, wanted: Engine | None = None, allocate: Callable[[int], bytearray] = bytearray
    ) -> None:
        """*wanted* None chooses by capability; an engine that the device lacks means emulation then and there.

        *allocate* makes the buffer; it may raise MemoryError.
        """
        self._device = device
        self._wanted = wanted
        self._allocate = allocate
        self._lock = threading.Lock()
        """Guards everything below. Never held during I/O."""
        info = device.info
        self._limits = CopyLimits.of_hardware(
            info.copy_max_hw_bytes, info.copy_max_range_hw_bytes, info.copy_max_nr_ranges_hw, info.block_size
        )
        self._counters = {engine: CopyCounters() for engine in Engine}
        self._buffer: bytearray | None = None
        """The emulation's buffer while nobody uses it; a second copy at the same time makes one of its own."""

    @property
    def limits(self) -> CopyLimits:
        """The limits in force."""
        return self._limits

    @property
    def counters(self) -> dict[Engine, CopyCounters]:
        """What each engine has done so far."""
        with self._lock:
            return dict(self._counters)

    def set_limit(self, name: str, value: int) -> None:
        """Set one of the limits, for the next copy. Raises InvalidRequest."""
        self.set_limits({name: value})

    def set_limits(self, values: Mapping[str, int]) -> None:
        """Set several limits, for the next copy: all, or none and InvalidRequest."""
        with self._lock:
            self._limits = self._limits.with_limits(values, self._device.info.block_size)

    def choose(self, ranges: Sequence[CopyRange]) -> Engine:
        """Return the engine that would copy *ranges* now."""
        return self._plan(ranges)[0]

    def _plan(self, ranges: Sequence[CopyRange]) -> tuple[Engine, list[CopyCommand]]:
        """Return the engine for *ranges* and its commands; emulation has none."""
        limits = self._limits
        if limits.offload:
            # The device is asked about the very pieces that it will get: cut in other places they may not be aligned to
            # what a reflink needs.
            commands = plan(ranges, limits)
            pieces = [piece for command in commands for piece in command.ranges]
            for method in self._device.info.copy_methods:
                engine = Engine(method.value)
                fits = self._wanted in (None, engine)
                if fits and all(self._device.can_copy(*piece, method) for piece in pieces):
                    return engine, commands
        return Engine.EMULATE, []

    def copy(self, ranges: Sequence[CopyRange]) -> CopyResult:
        """Copy *ranges* in order, whose destinations follow each other. Block-aligned; never raises DeviceError."""
        result = self._copy(ranges, wait=True)
        assert result is not None
        return result

    def copy_now(self, ranges: Sequence[CopyRange]) -> CopyResult | None:
        """Do `copy` if the device does it without a wait for a disk; else return None, and nothing is done."""
        return self._copy(ranges, wait=False)

    def _copy(self, ranges: Sequence[CopyRange], *, wait: bool) -> CopyResult | None:
        # Before the choice: what is chosen for one table of a stack must not be done under another.
        generation = self._device.generation
        started = time.perf_counter_ns()
        engine, commands = self._plan(ranges)
        if not wait and (engine is Engine.EMULATE or self._waits(commands, _METHODS[engine])):
            return None
        if engine is Engine.EMULATE:
            result, issued = self._emulate(ranges)
        else:
            result, issued = self._offload(commands, _METHODS[engine], generation)
        self._count(engine, result, issued, started)
        return result

    def _waits(self, commands: Sequence[CopyCommand], method: CopyMethod) -> bool:
        return any(self._device.copy_waits(*piece, method) for command in commands for piece in command.ranges)

    def _offload(self, commands: Sequence[CopyCommand], method: CopyMethod, generation: int) -> tuple[CopyResult, int]:
        completed = 0
        for number, command in enumerate(commands, start=1):
            for part in command.ranges:
                try:
                    self._device.copy(*part, method, generation)
                except DeviceError as exc:
                    return CopyResult(completed + exc.completed, exc, source_failed=exc.source_failed), number
                completed += part.length
        return CopyResult(completed), len(commands)

    def _emulate(self, ranges: Sequence[CopyRange]) -> tuple[CopyResult, int]:
        try:
            buffer = self._take_buffer(sum(part.length for part in ranges))
        except OutOfMemory as exc:
            return CopyResult(0, exc, issued=False), 0
        completed = commands = 0
        try:
            for part in cut(ranges, len(buffer)):
                view = memoryview(buffer)[: part.length]
                commands += 1
                try:
                    self._device.read_into(part.source, view)
                except DeviceError as exc:
                    return CopyResult(completed, exc, source_failed=True), commands
                try:
                    self._device.write(part.destination, view)
                except DeviceError as exc:
                    return CopyResult(completed, exc), commands
                completed += part.length
        finally:
            with self._lock:
                self._buffer = buffer
        return CopyResult(completed), commands

    def copy_pieces(
        self, length: int, read: Callable[[int, int], bytes], write: Callable[[int, bytes], None]
    ) -> CopyResult:
        """Copy *length* bytes by *read* (bytes done, size) and *write* (bytes done, data); never raises DeviceError.

        For what no device can do by itself: ends that are not block-aligned. It counts as emulation.
        """
        started = time.perf_counter_ns()
        block = self._device.info.block_size
        completed = commands = 0
        most = BUFFER_SIZE
        error: DeviceError | OutOfMemory | None = None
        reading = False
        while completed < length and error is None:
            size = min(most, length - completed)
            commands += 1
            reading = True
            try:
                data = read(completed, size)
                reading = False
                write(completed, data)
                completed += size
            except DeviceError as exc:
                error = exc
            except MemoryError:
                if reading and size > block:
                    most = max(block, round_down(size // 2, block))
                else:
                    error = OutOfMemory(f"no memory for a copy of {size} bytes")
        result = CopyResult(completed, error, source_failed=reading and error is not None)
        self._count(Engine.EMULATE, result, commands, started)
        return result

    def _count(self, engine: Engine, result: CopyResult, commands: int, started: int) -> None:
        spent = time.perf_counter_ns() - started
        with self._lock:
            before = self._counters[engine]
            self._counters[engine] = CopyCounters(
                before.copies + 1,
                before.commands + commands,
                before.bytes + result.completed,
                before.errors + (result.error is not None),
                before.nanoseconds + spent,
            )

    def _take_buffer(self, length: int) -> bytearray:
        with self._lock:
            buffer, self._buffer = self._buffer, None
        block = self._device.info.block_size
        size = max(block, min(BUFFER_SIZE, round_down(length + block - 1, block)))
        if buffer is not None and len(buffer) >= size:
            return buffer
        while True:
            try:
                return self._allocate(size)
            except MemoryError:
                if size <= block:
                    raise OutOfMemory("no memory for a copy, not even for one block") from None
                size = max(block, round_down(size // 2, block))

"""Runs copies on a device: by the device itself where it can, else through one bounded buffer.

The way of each command is chosen before it is issued, by what the device can do; after a device error no other way is
tried, because that would hide the error (review of the Linux copy-offload series). Nothing here knows a file or a lock.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import NamedTuple

from zonefs_py.copy.limits import CopyLimits
from zonefs_py.copy.plan import cut_at, join, plan, split_aligned
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import cut, part_of, total_length
from zonefs_py.errors import DeviceError, OutOfMemory, TableChanged
from zonefs_py.units import MIB, round_down
from zonefs_py.zone import CopyMethod, CopyRange

log = logging.getLogger(__name__)

BUFFER_SIZE = 1 * MIB


class Engine(Enum):
    """A way to copy; also what ``-o copy=`` takes, with ``auto`` beside it."""

    DEVICE = "device"
    REFLINK = "reflink"
    HOST = "host"
    EMULATE = "emulate"

    __hash__ = object.__hash__  # there is one of each, and Enum's own is slow


_METHODS = {Engine(method.value): method for method in CopyMethod}


MAX_PLANS = 8
"""How often a copy is planned at most, where what lies below a stack changes while it runs."""

MAX_RANGES_NOW = 4
"""Ranges of a copy that is over at once, in all its commands. Each takes its time, and limits can make millions."""


@dataclass(frozen=True)
class CopyCounters:
    """What one engine has done since the device was opened. ``nanoseconds`` is the time it took.

    A copy that needs two engines, for different parts of it, is one of the ``copies`` of each.
    """

    copies: int = 0
    commands: int = 0
    bytes: int = 0
    errors: int = 0
    nanoseconds: int = 0


class CopyResult(NamedTuple):
    """How far a copy came: ``completed`` bytes from its start are known to be copied.

    ``error`` is what stopped it, None if nothing did. ``issued`` says whether the device has tried what failed, and
    ``source_failed`` that the error is known to have come from reading.
    """

    completed: int
    error: DeviceError | OutOfMemory | None = None
    issued: bool = True
    source_failed: bool = False


class Step(NamedTuple):
    """A part of a copy: a command of the device, or what is emulated in one go."""

    engine: Engine
    ranges: tuple[CopyRange, ...]


class Plan(NamedTuple):
    """How to copy *ranges*: the steps, and the device's `generation` for which they are right.

    There can be hundreds of thousands of steps: unless they are a sequence, each is made when it is asked for, once.
    """

    generation: int
    ranges: Sequence[CopyRange]
    steps: Iterable[Step]


class _Tally:
    """The counters of one engine while they grow, or what one copy adds to them."""

    __slots__ = ("bytes", "commands", "copies", "errors", "nanoseconds")

    def __init__(self) -> None:
        self.copies = self.commands = self.bytes = self.errors = self.nanoseconds = 0


CopyBuffer = bytearray | mmap.mmap


def _map_memory(size: int) -> CopyBuffer:
    """Memory that begins at a page, as direct I/O on a block device takes it without copying. Raises MemoryError."""
    try:
        return mmap.mmap(-1, size)
    except OSError as exc:
        raise MemoryError(f"{size} bytes: {exc.strerror}") from exc


class CopyEngine:
    """The copy path of one device. Copies of different zones may run at the same time, in different threads."""

    def __init__(
        self, device: ZonedDevice, wanted: Engine | None = None, allocate: Callable[[int], CopyBuffer] = _map_memory
    ) -> None:
        """*wanted* None chooses by capability; an engine that the device lacks means emulation then and there.

        *allocate* makes the buffer; it may raise MemoryError.
        """
        self._device = device
        self._allocate = allocate
        # What a device tells about itself stays as it is.
        self._block_size, self._zone_size = device.info.block_size, device.info.zone_size
        self._ways = tuple((method, Engine(method.value)) for method in device.info.copy_methods)
        """How the device can copy, best first, as far as that is wanted."""
        if wanted is not None:
            self._ways = tuple(way for way in self._ways if way[1] is wanted)
        is_reflink = bool(self._ways) and self._ways[0][0] is CopyMethod.REFLINK
        self._alignment = (device.info.reflink_alignment or 1) if is_reflink else 1
        self._lock = threading.Lock()
        """Guards everything below. Never held during I/O."""
        info = device.info
        self._limits = CopyLimits.of_hardware(
            info.copy_max_hw_bytes, info.copy_max_range_hw_bytes, info.copy_max_nr_ranges_hw, info.block_size
        )
        self._counts = {engine: _Tally() for engine in Engine}
        self._buffer: CopyBuffer | None = None
        """The emulation's buffer while nobody uses it; a second copy at the same time makes one of its own."""

    @property
    def limits(self) -> CopyLimits:
        """The limits in force."""
        return self._limits

    @property
    def counters(self) -> dict[Engine, CopyCounters]:
        """What each engine has done so far."""
        with self._lock:
            return {
                engine: CopyCounters(done.copies, done.commands, done.bytes, done.errors, done.nanoseconds)
                for engine, done in self._counts.items()
            }

    def set_limit(self, name: str, value: int) -> None:
        """Set one of the limits, for the next copy. Raises InvalidRequest."""
        self.set_limits({name: value})

    def set_limits(self, values: Mapping[str, int]) -> None:
        """Set several limits, for the next copy: all, or none and InvalidRequest."""
        with self._lock:
            self._limits = self._limits.with_limits(values, self._block_size)

    def plan(self, ranges: Sequence[CopyRange]) -> Plan:
        """Return in which steps `copy` would copy *ranges* now."""
        # Before the choice: what is chosen for one table of a stack must not be done under another.
        generation = self._device.generation
        return Plan(generation, ranges, self._with_joined_emulation(self._steps(ranges)))

    def plan_now(self, ranges: Sequence[CopyRange]) -> Plan | None:
        """Return how to copy *ranges* by `copy_planned` at once: without a wait for a disk, and in few commands.

        None if that cannot be, for all that is known; it is found out soon, however many commands there would be.
        """
        generation = self._device.generation
        steps: list[Step] = []
        nr_ranges = 0
        for step in self._steps(ranges):
            nr_ranges += len(step.ranges)
            if nr_ranges > MAX_RANGES_NOW or step.engine is Engine.EMULATE:
                return None
            if self._device.copy_waits(step.ranges, _METHODS[step.engine]):
                return None
            steps.append(step)
        return Plan(generation, ranges, steps)

    def _steps(self, ranges: Sequence[CopyRange]) -> Iterator[Step]:
        """Yield the steps, each when it is asked for, but for what is emulated: that is in as many as commands."""
        limits = self._limits
        zone_size = self._zone_size
        offload = bool(self._ways) and limits.offload
        if offload and len(ranges) == 1 and self._is_one_command(ranges[0], limits):
            # What nearly all copies are; the same would come out below.
            yield from self._choose((ranges[0],))
            return
        for aligned, those in groupby(split_aligned(ranges, self._block_size), self._is_aligned):
            if aligned and offload:
                for command in plan(those, limits, zone_size, self._alignment):
                    yield from self._choose(command.ranges)
            else:
                # Unaligned bytes are between conventional zones, or in one of the destination: both are read as one.
                for piece in cut_at(those, zone_size) if aligned else those:
                    yield Step(Engine.EMULATE, (piece,))

    def _is_one_command(self, piece: CopyRange, limits: CopyLimits) -> bool:
        source, destination, length = piece
        numbers, zone_size = source | destination | length, self._zone_size
        return (
            not numbers % self._block_size
            and not numbers % self._alignment
            and 0 < length <= limits.copy_max_bytes
            and length <= limits.copy_max_range_bytes
            and source % zone_size + length <= zone_size
            and destination % zone_size + length <= zone_size
        )

    def _is_aligned(self, piece: CopyRange) -> bool:
        return not (piece.source | piece.destination | piece.length) % self._block_size

    def _choose(self, ranges: tuple[CopyRange, ...]) -> Iterator[Step]:
        """Yield the steps for *ranges*, which are one command: itself, if the best method can copy all of it."""
        # The device is asked about the very pieces that it will get: cut in other places they may not be aligned to
        # what a reflink needs.
        method, engine = self._ways[0]
        if self._device.can_copy(ranges, method):
            yield Step(engine, ranges)
            return

        def best(piece: CopyRange) -> Engine:
            able = (engine for method, engine in self._ways if self._device.can_copy([piece], method))
            return next(able, Engine.EMULATE)

        for engine, those in groupby(ranges, best):
            yield Step(engine, tuple(those))

    def _with_joined_emulation(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Undo what the limits of commands did to what is emulated: these limits are the device's."""
        for engine, those in groupby(steps, lambda step: step.engine):
            if engine is not Engine.EMULATE:
                yield from those
                continue
            pieces = (piece for step in those for piece in step.ranges)
            for aligned, group in groupby(pieces, self._is_aligned):
                for piece in join(group, self._zone_size, BUFFER_SIZE) if aligned else group:
                    yield Step(engine, (piece,))

    def copy(self, ranges: Sequence[CopyRange]) -> CopyResult:
        """Copy *ranges* in order, whose destinations follow each other; never raises DeviceError.

        All numbers are multiples of the block size, except that a range to conventional zones can be any bytes, and one
        to a sequential zone can begin anywhere in the source. The first command is issued as soon as it is known: how
        many will follow does not matter.
        """
        tally: dict[Engine, _Tally] = {}
        completed = 0
        for _ in range(MAX_PLANS):
            rest = list(part_of(ranges, completed, completed + total_length(ranges)))
            result = self._run(self.plan(rest), tally)
            completed += result.completed
            # What was planned for one table of a stack must not be done under another; all before it is done.
            if not isinstance(result.error, TableChanged):
                break
        self._count(tally)
        return result._replace(completed=completed)

    def copy_planned(self, planned: Plan) -> CopyResult:
        """Do *planned*, as `copy` would, but not under another table of a stack: TableChanged is the error then."""
        tally: dict[Engine, _Tally] = {}
        result = self._run(planned, tally)
        if result.completed or not isinstance(result.error, TableChanged):
            self._count(tally)
        return result

    def _count(self, tally: Mapping[Engine, _Tally]) -> None:
        with self._lock:
            for engine, more in tally.items():
                done = self._counts[engine]
                done.copies += 1
                done.commands += more.commands
                done.bytes += more.bytes
                done.errors += more.errors
                done.nanoseconds += more.nanoseconds

    def _run(self, planned: Plan, tally: dict[Engine, _Tally]) -> CopyResult:
        """Do *planned*, and add to *tally* what that was."""
        generation, ranges, steps = planned
        buffer = None
        completed = 0
        result = CopyResult(0)
        try:
            if not all(map(self._is_aligned, ranges)):
                # Something will be emulated for certain: if that cannot be, nothing is copied.
                buffer = self._take_buffer(ranges)
            for engine, pieces in steps:
                started = time.perf_counter_ns()
                if engine is Engine.EMULATE:
                    if buffer is None:
                        buffer = self._take_buffer(ranges)
                    result, commands = self._emulate(pieces, buffer)
                else:
                    result, commands = self._offload(pieces, _METHODS[engine], generation), 1
                counted = tally.get(engine) or tally.setdefault(engine, _Tally())
                counted.nanoseconds += time.perf_counter_ns() - started
                counted.commands += commands
                counted.bytes += result.completed
                completed += result.completed
                if result.error is not None:
                    counted.errors += not isinstance(result.error, TableChanged)
                    break
        except OutOfMemory as exc:
            tally.setdefault(Engine.EMULATE, _Tally()).errors += 1
            result = CopyResult(0, exc, issued=False)
        finally:
            if buffer is not None:
                with self._lock:
                    self._buffer = buffer
        return result._replace(completed=completed)

    def _offload(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int) -> CopyResult:
        try:
            self._device.copy(ranges, method, generation)
        except TableChanged as exc:
            return CopyResult(exc.completed, exc, issued=False)
        except DeviceError as exc:
            return CopyResult(exc.completed, exc, source_failed=exc.source_failed)
        return CopyResult(total_length(ranges))

    # Emulation

    def _emulate(self, ranges: Sequence[CopyRange], buffer: CopyBuffer) -> tuple[CopyResult, int]:
        """Return the result and in how many reads and writes it was done."""
        completed = commands = 0
        for piece in ranges:
            aligned = self._is_aligned(piece)
            for part in cut([piece], len(buffer)) if aligned else self._cut_unaligned(piece, len(buffer)):
                commands += 1
                try:
                    data = self._read(part, memoryview(buffer))
                except DeviceError as exc:
                    return CopyResult(completed, exc, source_failed=True), commands
                try:
                    if aligned:
                        self._device.write(part.destination, data)
                    else:
                        self._write_unaligned(part.destination, data, memoryview(buffer)[len(buffer) // 2 :])
                except DeviceError as exc:
                    return CopyResult(completed, exc), commands
                completed += part.length
        return CopyResult(completed), commands

    def _cut_unaligned(self, piece: CopyRange, buffer_size: int) -> Iterator[CopyRange]:
        """Cut *piece* so that the blocks that a part touches, at either end, fit in half a buffer.

        Parts end where a block of the destination does: only the ends of the whole are blocks that are written in part.
        """
        source, destination, length = piece
        block = self._block_size
        most = round_down(buffer_size // 2, block) - block
        while length:
            part = min(length, most - destination % block)
            yield CopyRange(source, destination, part)
            source, destination, length = source + part, destination + part, length - part

    def _read(self, part: CopyRange, buffer: memoryview) -> memoryview:
        """Read the whole blocks that have the source of *part* to the start of *buffer*; return what is of it."""
        block = self._block_size
        before = part.source % block
        end = before + part.length
        self._device.read_into(part.source - before, buffer[: end + -end % block])
        return buffer[before:end]

    def _write_unaligned(self, destination: int, data: memoryview, buffer: memoryview) -> None:
        """Write *data*, with the rest of the blocks at its ends as it is now; *buffer* is to put them together."""
        block = self._block_size
        before = destination % block
        end = before + len(data)
        size = end + -end % block
        start = destination - before
        if before:
            self._device.read_into(start, buffer[:block])
        if size > end and not (before and size == block):
            self._device.read_into(start + size - block, buffer[size - block : size])
        buffer[before:end] = data
        self._device.write(start, buffer[:size])

    def _take_buffer(self, ranges: Sequence[CopyRange]) -> CopyBuffer:
        """Return the buffer to emulate any of *ranges*: as large as they need, or smaller. Raises OutOfMemory."""
        block = self._block_size
        pieces = list(split_aligned(ranges, block))
        # An unaligned part needs the blocks of both ends, and may touch one more of each than it has.
        whole = sum(piece.length for piece in pieces if self._is_aligned(piece))
        odd = max((piece.length for piece in pieces if not self._is_aligned(piece)), default=None)
        least = block if odd is None else 4 * block
        wanted = max(whole, 0 if odd is None else 2 * (odd + 2 * block))
        with self._lock:
            buffer, self._buffer = self._buffer, None
        size = max(least, min(BUFFER_SIZE, round_down(wanted + block - 1, block)))
        if buffer is not None and len(buffer) >= size:
            return buffer
        while True:
            try:
                return self._allocate(size)
            except MemoryError:
                if size <= least:
                    raise OutOfMemory("no memory for a copy, not even for single blocks") from None
                size = max(least, round_down(size // 2, block))

"""What the tests of the copy path share: a device that copies by any method, fails when told to and remembers."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import check_command, part_of, total_length
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.errors import DeviceError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.zone import CopyMethod, CopyRange, DeviceInfo, Zone, ZoneCondition, ZoneOp

ALL_METHODS = (CopyMethod.DEVICE, CopyMethod.REFLINK, CopyMethod.HOST)


class Effect(Enum):
    """What goes wrong in a call of a device."""

    ERROR = "error"
    """Some blocks are done, then it fails; nobody is told how many."""
    SHORT = "short"
    """Some blocks are done, then it fails; a copy's error says how many."""
    READ_ONLY = "read-only"
    """Some blocks are done, then the zone becomes read-only."""
    OFFLINE = "offline"
    """Some blocks are done, then the zone goes offline."""


@dataclass(frozen=True)
class Fault:
    """The *number*-th (from 0) call that moves data has *effect*, after *blocks* blocks; *lasting*: all later ones."""

    number: int
    effect: Effect
    blocks: int = 0
    lasting: bool = False


@dataclass(frozen=True)
class Call:
    """A call that the device got: ``read``, ``write`` or ``copy``, and for how many bytes."""

    kind: str
    length: int
    method: CopyMethod | None = None
    ranges: tuple[CopyRange, ...] = field(default=(), compare=False)


class CopyDevice(ZonedDevice):
    """Another device, which copies by *methods*; reflinks need *alignment*. Its ``fault`` is what will go wrong."""

    def __init__(
        self, inner: EmulatedDevice, methods: tuple[CopyMethod, ...] = ALL_METHODS, alignment: int = 1
    ) -> None:
        self.inner = inner
        self.alignment = alignment
        self.calls: list[Call] = []
        self.fault: Fault | None = None
        self.before: Callable[[Call], None] | None = None
        """Called before every call that moves data, in the caller's thread."""
        self._lock = threading.Lock()
        """Guards ``calls``."""
        self._info = replace(
            inner.info,
            copy_methods=methods,
            copy_max_hw_bytes=1 << 30 if methods else 0,
            copy_max_range_hw_bytes=1 << 30 if methods else 0,
            copy_max_nr_ranges_hw=128 if methods else 0,
            reflink_alignment=alignment if CopyMethod.REFLINK in methods else 0,
        )

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        return self.inner.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        if fault := self._called(Call("read", length)):
            raise self._fail(fault, offset, "read")
        return self.inner.read(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if fault := self._called(Call("read", len(buffer))):
            buffer[:] = b"\xee" * len(buffer)
            raise self._fail(fault, offset, "read")
        self.inner.read_into(offset, buffer)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if fault := self._called(Call("write", len(data))):
            if done := self._part(fault, len(data)):
                self.inner.write(offset, memoryview(data)[:done])
            raise self._fail(fault, offset, "write")
        self.inner.write(offset, data)

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        check_command(ranges, self.info)
        if method not in self.info.copy_methods:
            return False
        numbers = (number for piece in ranges for number in piece)
        return method is not CopyMethod.REFLINK or not any(number % self.alignment for number in numbers)

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        assert self.can_copy(ranges, method)
        length = total_length(ranges)
        if fault := self._called(Call("copy", length, method, tuple(ranges))):
            done = self._part(fault, length)
            if done:
                self.inner.copy(list(part_of(ranges, 0, done)), CopyMethod.HOST)
            error = self._fail(fault, ranges[0].destination, "copy")
            if fault.effect is Effect.SHORT:
                error.completed = done
            raise error
        self.inner.copy(ranges, CopyMethod.HOST)

    def _called(self, call: Call) -> Fault | None:
        if self.before is not None:
            self.before(call)
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
        fault = self.fault
        strikes = fault is not None and (number == fault.number or (fault.lasting and number > fault.number))
        return fault if strikes else None

    def _part(self, fault: Fault, length: int) -> int:
        return min(fault.blocks * self.info.block_size, length)

    def _fail(self, fault: Fault, offset: int, what: str) -> DeviceError:
        zone = offset // self.info.zone_size
        forced = {Effect.READ_ONLY: ZoneCondition.READONLY, Effect.OFFLINE: ZoneCondition.OFFLINE}.get(fault.effect)
        if forced is not None:
            self.inner.force_condition(zone, forced)
        return DeviceError(f"zone {zone}: {what} fails as asked for")

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self.inner.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        self.inner.flush(number)

    def close(self) -> None:
        self.inner.close()


@functools.lru_cache(maxsize=64)
def random_bytes(length: int, seed: int) -> bytes:
    """*length* bytes that no other *seed* gives, no two blocks of which are alike."""
    return random.Random(seed).randbytes(length)


def at_most(size: int) -> Callable[[int], bytearray]:
    """An allocator that has no more than *size* bytes at once."""

    def allocate(wanted: int) -> bytearray:
        if wanted > size:
            raise MemoryError
        return bytearray(wanted)

    return allocate


def copy_with_small_buffer(fs: Filesystem, size: int) -> None:
    """Let the emulation of *fs* have a buffer of at most *size* bytes; its limits and counters start anew."""
    choice = fs.options.copy
    fs.copy_engine = CopyEngine(fs.device, None if choice == "auto" else Engine(choice), at_most(size))


def zone_bytes(device: EmulatedDevice, number: int) -> bytes:
    """What is on the media of a zone up to its write pointer, whatever its condition."""
    device.force_condition(number, None)
    zone = device.report_zones(number, 1)[0]
    size = zone.size if zone.data_size is None else zone.data_size
    return device.read(zone.start, size) if size else b""

"""An emulated zoned block device over any store of zones: a directory (`directory`) or memory (`memory`).

How much a store holds of a sequential zone *is* its write pointer, so there is no other write pointer that could
disagree after a crash.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, NoReturn, Protocol

from zonefs_py.device import host_copy
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.device.copy_command import check_command
from zonefs_py.device.description import DeviceDescription
from zonefs_py.errors import DeviceError, from_os_error
from zonefs_py.units import round_down
from zonefs_py.zone import (
    CONDITION_NAMES,
    CopyMethod,
    CopyRange,
    DeviceInfo,
    Geometry,
    Zone,
    ZoneCondition,
    ZoneOp,
    ZoneType,
)

log = logging.getLogger(__name__)

COPY_MAX_BYTES = 1 << 30
COPY_MAX_NR_RANGES = 256
"""What one copy command of an emulated device may be: bounds on how long it occupies a worker thread."""


class Place(NamedTuple):
    """A zone by number, and bytes from its start."""

    number: int
    offset: int


class ZoneStore(Protocol):
    """Where an emulated device keeps its zones' bytes. Offsets are bytes from the zone's start. Raises OSError."""

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Return up to *length* bytes; fewer at the end of what is stored."""

    def read_into(self, number: int, offset: int, buffer: memoryview) -> int:
        """Read into *buffer*; return how many bytes there were, fewer at the end of what is stored."""

    def read_into_now(self, number: int, offset: int, buffer: memoryview) -> int | None:
        """Do `read_into`, or return None if that would wait for a disk."""

    def write(self, number: int, offset: int, data: memoryview) -> None:
        """Store all of *data*; on OSError some of it may be stored."""

    def copy(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        """Copy *length* bytes, zeros where the source is shorter; on OSError some of it may be copied."""

    def copy_out(self, number: int, length: int, descriptor: int, progress: Callable[[int], None]) -> bool:
        """Copy up to *length* bytes of a zone into the file *descriptor*, as `ZonedDevice.copy_out`; False: cannot."""

    def can_copy(self, source_offset: int, destination_offset: int, length: int, method: CopyMethod) -> bool:
        """Whether *method* can copy such a piece, for its alignment."""

    def copy_waits(self, source: int, destination: int, method: CopyMethod) -> bool:
        """Whether *method* may wait for a disk in a copy between these zones."""

    def size(self, number: int) -> int:
        """Return the stored size of a zone."""

    def set_size(self, number: int, size: int) -> None:
        """Cut a zone down to *size*, or extend it with zeros."""

    def flush(self, number: int | None) -> None:
        """Make a zone durable, or all of them."""

    def save(self, description: DeviceDescription) -> None:
        """Make *description* durable."""

    def descriptor(self, number: int) -> int | None:
        """Return a new descriptor of the file that holds a zone, for reading; None if zones are not in files."""

    def close(self) -> None:
        """Let go of everything."""


class EmulatedDevice(ZonedDevice):
    """A zoned block device on any `ZoneStore`: the zones' conditions and limits are null_blk's."""

    def __init__(
        self, store: ZoneStore, description: DeviceDescription, conditions: ZoneConditions, info: DeviceInfo
    ) -> None:
        self._store = store
        self._description = description
        self._geometry = description.geometry
        self._conditions = conditions
        self._info = info
        self._lock = threading.Lock()
        """Guards ``_conditions`` and ``_writing`` (null_blk's zone_res_lock), and no I/O but a look at a size."""
        self._description_lock = threading.Lock()
        """Guards ``_description``, and the order in which it is saved. Taken before ``_lock``."""
        self._withdrawn: Callable[[Iterable[int]], None] | None = None
        self._writing: set[int] = set()
        """Sequential zones with a write under way, whose stored size says nothing."""
        for number, condition in description.forced.items():
            conditions.force(number, condition)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def geometry(self) -> Geometry:
        """How the device is divided into zones."""
        return self._geometry

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        geometry = self._geometry
        end = geometry.nr_zones if count is None else min(start + count, geometry.nr_zones)
        with self._lock:
            if count == 1 and start not in self._writing and not geometry.is_conventional(start):
                # Asked about one zone, after an error: the truth is what the store holds.
                self._adopt_stored_size(start)
            return [self._zone(number) for number in range(start, end)]

    def _zone(self, number: int) -> Zone:
        geometry = self._geometry
        condition = self._conditions.condition(number)
        start = number * geometry.zone_size
        size = geometry.size_of(number)
        if number < geometry.nr_conventional:
            return Zone(number, start, size, size, start + size, ZoneType.CONVENTIONAL, condition)
        capacity = min(size, geometry.zone_capacity)
        wp = start + (size if condition is ZoneCondition.FULL else self._conditions.wpoffset(number))
        return Zone(number, start, size, capacity, wp, ZoneType.SEQ_WRITE_REQUIRED, condition)

    def read(self, offset: int, length: int) -> bytes:
        pieces = [self._read_zone(*span) for span in self._spans(offset, length)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_zone(self, number: int, within: int, length: int) -> bytes:
        self._check_readable(number)
        try:
            data = self._store.read(number, within, length)
        except OSError as exc:
            raise from_os_error(exc, f"zone {number}: read of {length} bytes at {within}") from exc
        return data if len(data) == length else data + bytes(length - len(data))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._read_into(offset, buffer, self._store.read_into)

    def read_into_now(self, offset: int, buffer: memoryview) -> bool:
        return self._read_into(offset, buffer, self._store.read_into_now)

    def _read_into(self, offset: int, buffer: memoryview, read: Callable[[int, int, memoryview], int | None]) -> bool:
        """Fill *buffer* by *read*, which returns how much the store has, or None: then this returns False."""
        done = 0
        for number, within, length in self._spans(offset, len(buffer)):
            piece = buffer[done : done + length] if length < len(buffer) else buffer
            self._check_readable(number)
            try:
                got = read(number, within, piece)
            except OSError as exc:
                raise from_os_error(exc, f"zone {number}: read of {length} bytes at {within}") from exc
            if got is None:
                return False
            if got < length:
                piece[got:] = bytes(length - got)
            done += length
        return True

    def _check_readable(self, number: int) -> None:
        if self._conditions.condition(number) is ZoneCondition.OFFLINE:
            raise DeviceError(f"zone {number}: read of an offline zone")

    def copy_out(self, number: int, length: int, descriptor: int, progress: Callable[[int], None]) -> bool:
        self._check_readable(number)
        return self._store.copy_out(number, length, descriptor, progress)

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        check_command(ranges, self._info)
        if method not in self._info.copy_methods:
            return False
        zone_size, can_copy = self._geometry.zone_size, self._store.can_copy
        for source, destination, length in ranges:
            if not can_copy(source % zone_size, destination % zone_size, length, method):
                return False
        return True

    def copy_waits(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        zone_size, copy_waits = self._geometry.zone_size, self._store.copy_waits
        for source, destination, _ in ranges:
            if copy_waits(source // zone_size, destination // zone_size, method):
                return True
        return False

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        # What lies where never changes here, so there is only one generation.
        self._check_writable()
        if not self.can_copy(ranges, method):
            raise ValueError(f"{self._info.name} cannot copy {list(ranges)[:4]} by {method.value}")
        completed = 0
        try:
            for source, destination, length in ranges:
                self._copy_range(self._place(source), self._place(destination), length, method)
                completed += length
        except DeviceError as exc:
            exc.completed += completed
            raise

    def _copy_range(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        try:
            self._check_readable(source.number)
        except DeviceError as exc:
            exc.source_failed = True
            raise
        if self._geometry.is_conventional(destination.number):
            self._check_conventional(destination.number)
            try:
                self._store.copy(source, destination, length, method)
            except OSError as exc:
                error = from_os_error(exc, _copy_text(source, destination, length))
                error.completed = self._known_copied(exc)
                error.source_failed = self._is_unreadable(source, error.completed)
                raise error from exc
        else:
            self._begin_put(destination.number, destination.offset, length)
            try:
                self._store.copy(source, destination, length, method)
            except BaseException as exc:
                self._fail_put(exc, destination, _copy_text(source, destination, length), source)
            self._end_put(destination.number)

    def _is_unreadable(self, source: Place, done: int) -> bool:
        """Whether it is the source to blame that a copy failed after *done* bytes: the host does not say."""
        try:
            self._store.read(source.number, source.offset + done, self._geometry.block_size)
        except OSError:
            return True
        return False

    def _place(self, offset: int) -> Place:
        return Place(*divmod(offset, self._geometry.zone_size))

    def _known_copied(self, exc: OSError) -> int:
        """Whole blocks, in bytes, that the host had copied before *exc*."""
        done = exc.completed if isinstance(exc, host_copy.PartialCopy) else 0
        return round_down(done, self._geometry.block_size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_writable()
        view = memoryview(data)
        done = 0
        for number, within, length in self._spans(offset, len(view)):
            piece = view[done : done + length] if length < len(view) else view
            if number < self._geometry.nr_conventional:
                self._write_conventional(number, within, piece)
            else:
                self._write_sequential(number, within, piece)
            done += length

    def write_bytes(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_writable()
        geometry = self._geometry
        view = memoryview(data)
        if offset < 0 or offset + len(view) > geometry.size:
            raise ValueError(f"{len(view)} bytes at {offset}: not within {geometry.size}")
        done = 0
        while done < len(view):
            number, within = divmod(offset + done, geometry.zone_size)
            if not geometry.is_conventional(number):
                raise ValueError(f"{len(view)} bytes at {offset}: not in conventional zones")
            piece = view[done : done + geometry.size_of(number) - within]
            self._write_conventional(number, within, piece)
            done += len(piece)

    def _write_conventional(self, number: int, within: int, piece: memoryview) -> None:
        self._check_conventional(number)
        try:
            self._store.write(number, within, piece)
        except OSError as exc:
            raise from_os_error(exc, f"zone {number}: write of {len(piece)} bytes at {within}") from exc

    def _check_conventional(self, number: int) -> None:
        condition = self._conditions.condition(number)
        if condition is not ZoneCondition.NOT_WP:
            raise DeviceError(f"zone {number}: write to a zone that is {CONDITION_NAMES[condition]}")

    def _write_sequential(self, number: int, within: int, piece: memoryview) -> None:
        # The path of every small write: nothing is made here that only an error needs.
        self._begin_put(number, within, len(piece))
        try:
            self._store.write(number, within, piece)
        except BaseException as exc:
            what = f"zone {number}: write of {len(piece)} bytes at {within}"
            self._fail_put(exc, Place(number, within), what)
        self._end_put(number)

    def _begin_put(self, number: int, within: int, length: int) -> None:
        """Begin to store *length* bytes at *within* of a sequential zone; `_end_put` or `_fail_put` must follow.

        They keep the zone's condition and write pointer right. Raises DeviceError: then none of them follows.
        """
        with self._lock:
            self._adopt_stored_size(number)
            self._conditions.begin_write(number, within, length)
            self._writing.add(number)

    def _end_put(self, number: int) -> None:
        """Take note that what `_begin_put` announced is stored."""
        with self._lock:
            self._writing.discard(number)
            self._conditions.complete_write(number)

    def _fail_put(self, exc: BaseException, place: Place, what: str, source: Place | None = None) -> NoReturn:
        """Take note that *exc* stopped what `_begin_put` announced at *place*, and raise what is to be raised for it.

        That is a DeviceError in the place of an OSError. *source* is where the data was to come from, if from a zone.
        """
        number, within = place
        with self._lock:
            self._writing.discard(number)
            whole = self._abort_write(number, within)
        if not isinstance(exc, OSError):
            raise exc
        error = from_os_error(exc, what)
        error.completed = max(0, min(self._known_copied(exc), whole - within))
        if source is not None and whole == within + error.completed:
            error.source_failed = self._is_unreadable(source, error.completed)
        raise error from exc

    def _adopt_stored_size(self, number: int) -> None:
        """Take the stored size of a sequential zone for its write pointer. Raises DeviceError; needs the lock."""
        try:
            stored = self._store.size(number)
        except OSError as exc:
            raise from_os_error(exc, f"zone {number}: its write pointer cannot be read") from exc
        if stored != self._conditions.wpoffset(number):
            whole = min(round_down(stored, self._geometry.block_size), self._geometry.capacity_of(number))
            self._conditions.resync(number, whole)

    def _abort_write(self, number: int, within: int) -> int:
        """After a failed write at *within*: take what is stored, in whole blocks, for written. Needs the lock.

        Returns the write pointer.
        """
        whole = within
        try:
            stored = self._store.size(number)
            whole = round_down(stored, self._geometry.block_size)
            if whole != stored:
                self._store.set_size(number, whole)
        except OSError as exc:
            log.error("zone %d: what a failed write left cannot be determined: %s", number, exc)
        self._conditions.abort_write(number, whole)
        return whole

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self._check_writable()
        if not 0 <= number < self._geometry.nr_zones:
            raise ValueError(f"zone {number} of {self._geometry.nr_zones}")
        with self._lock:
            if op is not ZoneOp.RESET and not self._geometry.is_conventional(number):
                self._adopt_stored_size(number)
            after = self._conditions.check_manage(op, number)
            size = {ZoneCondition.FULL: self._geometry.capacity_of(number), ZoneCondition.EMPTY: 0}.get(after)
            if size is None:
                self._conditions.complete_manage(number, after)
                return
            self._writing.add(number)
        # Cutting a large file takes the host's file system a while: other zones must not wait for it.
        try:
            self._store.set_size(number, size)
        except OSError as exc:
            with self._lock:
                self._writing.discard(number)
            raise from_os_error(exc, f"zone {number}: {op.name.lower()}") from exc
        with self._lock:
            self._writing.discard(number)
            self._conditions.complete_manage(number, after)

    def flush(self, number: int | None = None) -> None:
        try:
            self._store.flush(number)
        except OSError as exc:
            raise from_os_error(exc, "flush") from exc

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        self._check_writable()
        if condition not in (None, ZoneCondition.READONLY, ZoneCondition.OFFLINE):
            raise ValueError(f"a zone cannot be forced to be {condition!r}")
        numbers = list(numbers)
        if not all(0 <= number < self._geometry.nr_zones for number in numbers):
            raise ValueError(f"zones {numbers} of {self._geometry.nr_zones}")
        with self._description_lock:
            forced = dict(self._description.forced)
            for number in numbers:
                if condition is None:
                    forced.pop(number, None)
                else:
                    forced[number] = condition
            description = replace(self._description, forced=forced)
            try:
                self._store.save(description)
            except OSError as exc:
                raise from_os_error(exc, "change of zone conditions") from exc
            self._description = description
            with self._lock:
                for number in numbers:
                    self._conditions.force(number, condition)
        if condition is ZoneCondition.OFFLINE and self._withdrawn is not None:
            self._withdrawn(numbers)

    def backing_descriptor(self, number: int) -> int | None:
        if self._conditions.condition(number) is ZoneCondition.OFFLINE:
            return None
        try:
            return self._store.descriptor(number)
        except OSError as exc:
            raise from_os_error(exc, f"zone {number}: its file cannot be opened") from exc

    def watch_backing(self, withdrawn: Callable[[Iterable[int]], None] | None) -> None:
        self._withdrawn = withdrawn

    def power_cycle(self) -> None:
        """Forget which zones are open, as a loss of power does."""
        with self._lock:
            self._conditions.power_cycle()

    @property
    def nr_open_zones(self) -> int:
        """How many zones are open."""
        return self._conditions.nr_open

    @property
    def nr_active_zones(self) -> int:
        """How many zones are open or closed."""
        return self._conditions.nr_active

    def close(self) -> None:
        self._store.close()

    def _check_writable(self) -> None:
        if self._info.read_only:
            raise DeviceError("the device is open read-only")

    def _spans(self, offset: int, length: int) -> Sequence[tuple[int, int, int]]:
        """Cut a range of the device at zone boundaries: zone number, offset in the zone, length."""
        geometry = self._geometry
        block = geometry.block_size
        if offset % block or length % block or offset < 0 or length <= 0 or offset + length > self._info.size:
            raise ValueError(f"{length} bytes at {offset}: not whole blocks of {block} within {geometry.size}")
        number, within = divmod(offset, geometry.zone_size)
        # The last zone may be smaller, but then the device ends there.
        if within + length <= geometry.zone_size:
            return ((number, within, length),)
        last = (offset + length - 1) // geometry.zone_size
        if not geometry.is_conventional(last):
            raise ValueError(f"{length} bytes at {offset} cross a zone boundary")
        spans = []
        while length:
            piece = min(length, geometry.size_of(number) - within)
            spans.append((number, within, piece))
            number, within, length = number + 1, 0, length - piece
        return spans


def _copy_text(source: Place, destination: Place, length: int) -> str:
    return f"zone {destination.number}: copy of {length} bytes from zone {source.number}"


def make_info(
    description: DeviceDescription,
    kind: str,
    name: str,
    *,
    read_only: bool,
    copy_methods: tuple[CopyMethod, ...] = (),
    reflink_alignment: int = 0,
) -> DeviceInfo:
    """Return what a device of *description* tells about itself."""
    geometry = description.geometry
    return DeviceInfo(
        kind=kind,
        name=name,
        size=geometry.size,
        nr_zones=geometry.nr_zones,
        zone_size=geometry.zone_size,
        block_size=geometry.block_size,
        max_open_zones=description.max_open_zones,
        max_active_zones=description.max_active_zones,
        read_only=read_only,
        waits=False,
        serial=description.serial,
        profile=description.profile,
        copy_methods=copy_methods,
        copy_max_hw_bytes=COPY_MAX_BYTES if copy_methods else 0,
        copy_max_range_hw_bytes=COPY_MAX_BYTES if copy_methods else 0,
        copy_max_nr_ranges_hw=COPY_MAX_NR_RANGES if copy_methods else 0,
        reflink_alignment=reflink_alignment,
    )

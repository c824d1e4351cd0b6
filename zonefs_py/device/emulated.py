"""An emulated zoned block device in a directory, in the layout of Linux's zloop driver; and what it shares with memory.

One regular file a zone; the size of a sequential zone's file *is* its write pointer, so there is no other write
pointer that could disagree after a crash. docs/device-format.md is the specification.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from zonefs_py.device import host_copy
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.device.description import (
    DeviceDescription,
    check_description,
    format_description,
    parse_description,
)
from zonefs_py.device.descriptors import DescriptorCache
from zonefs_py.errors import (
    DeviceError,
    DeviceFormatError,
    DeviceInUse,
    DeviceReadOnly,
    UserError,
    ZonefsError,
    from_os_error,
)
from zonefs_py.units import round_down
from zonefs_py.zone import CONDITION_NAMES, CopyMethod, DeviceInfo, Geometry, Zone, ZoneCondition, ZoneOp, ZoneType

log = logging.getLogger(__name__)

DESCRIPTION_NAME = "device.json"
COPY_MAX_BYTES = 1 << 30
COPY_MAX_NR_RANGES = 256
"""What one copy command of an emulated device may be: bounds on how long it occupies a worker thread."""
MAX_DESCRIPTION_SIZE = 64 * 1024 * 1024


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

    def write(self, number: int, offset: int, data: memoryview) -> None:
        """Store all of *data*; on OSError some of it may be stored."""

    def copy(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        """Copy *length* bytes, zeros where the source is shorter; on OSError some of it may be copied."""

    def can_copy(self, source_offset: int, destination_offset: int, length: int, method: CopyMethod) -> bool:
        """Whether *method* can copy such a piece, for its alignment."""

    def size(self, number: int) -> int:
        """Return the stored size of a zone."""

    def set_size(self, number: int, size: int) -> None:
        """Cut a zone down to *size*, or extend it with zeros."""

    def flush(self, number: int | None) -> None:
        """Make a zone durable, or all of them."""

    def save(self, description: DeviceDescription) -> None:
        """Make *description* durable."""

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
        conventional = geometry.is_conventional(number)
        if conventional or condition is ZoneCondition.FULL:
            wp = start + size
        else:
            wp = start + self._conditions.wpoffset(number)
        return Zone(
            number,
            start,
            size,
            geometry.capacity_of(number),
            wp,
            ZoneType.CONVENTIONAL if conventional else ZoneType.SEQ_WRITE_REQUIRED,
            condition,
        )

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
        done = 0
        for number, within, length in self._spans(offset, len(buffer)):
            piece = buffer[done : done + length]
            self._check_readable(number)
            try:
                got = self._store.read_into(number, within, piece)
            except OSError as exc:
                raise from_os_error(exc, f"zone {number}: read of {length} bytes at {within}") from exc
            piece[got:] = bytes(length - got)
            done += length

    def _check_readable(self, number: int) -> None:
        if self._conditions.condition(number) is ZoneCondition.OFFLINE:
            raise DeviceError(f"zone {number}: read of an offline zone")

    def can_copy(self, source: int, destination: int, length: int, method: CopyMethod) -> bool:
        if method not in self._info.copy_methods:
            return False
        # A copy across zones is cut at their boundaries, and need not be aligned there.
        return all(
            self._store.can_copy(place.offset, target.offset, piece, method)
            for place, target, piece in self._copy_spans(source, destination, length)
        )

    def copy(
        self, source: int, destination: int, length: int, method: CopyMethod, generation: int | None = None
    ) -> None:
        # What lies where never changes here, so there is only one generation.
        self._check_writable()
        if not self.can_copy(source, destination, length, method):
            raise ValueError(f"{length} bytes from {source} to {destination} cannot be copied by {method.value}")
        completed = 0
        try:
            for place, target, piece in self._copy_spans(source, destination, length):
                self._copy_piece(place, target, piece, method)
                completed += piece
        except DeviceError as exc:
            exc.completed += completed
            raise

    def _copy_spans(self, source: int, destination: int, length: int) -> Iterator[tuple[Place, Place, int]]:
        """Cut a copy at the zone boundaries of both ends."""
        targets = self._spans(destination, length)
        target_number, target_within, target_left = next(targets)
        for number, offset, size in self._spans(source, length):
            within, left = offset, size
            while left:
                if not target_left:
                    target_number, target_within, target_left = next(targets)
                piece = min(left, target_left)
                yield Place(number, within), Place(target_number, target_within), piece
                within, left = within + piece, left - piece
                target_within, target_left = target_within + piece, target_left - piece

    def _copy_piece(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        try:
            self._check_readable(source.number)
        except DeviceError as exc:
            exc.source_failed = True
            raise
        what = f"zone {destination.number}: copy of {length} bytes from zone {source.number}"
        if self._geometry.is_conventional(destination.number):
            self._check_conventional(destination.number)
            try:
                self._store.copy(source, destination, length, method)
            except OSError as exc:
                error = from_os_error(exc, what)
                error.completed = self._known_copied(exc)
                raise error from exc
        else:
            self._put_sequential(
                destination, length, what, lambda: self._store.copy(source, destination, length, method)
            )

    def _known_copied(self, exc: OSError) -> int:
        """Whole blocks, in bytes, that the host had copied before *exc*."""
        done = exc.completed if isinstance(exc, host_copy.PartialCopy) else 0
        return round_down(done, self._geometry.block_size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_writable()
        view = memoryview(data)
        done = 0
        for number, within, length in self._spans(offset, len(view)):
            piece = view[done : done + length]
            if self._geometry.is_conventional(number):
                self._write_conventional(number, within, piece)
            else:
                self._write_sequential(number, within, piece)
            done += length

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
        what = f"zone {number}: write of {len(piece)} bytes at {within}"
        self._put_sequential(Place(number, within), len(piece), what, lambda: self._store.write(number, within, piece))

    def _put_sequential(self, place: Place, length: int, what: str, put: Callable[[], None]) -> None:
        """Have *put* store *length* bytes at *place*, with the zone's condition and write pointer kept right."""
        number, within = place
        with self._lock:
            self._adopt_stored_size(number)
            self._conditions.begin_write(number, within, length)
            self._writing.add(number)
        try:
            put()
        except BaseException as exc:
            with self._lock:
                self._writing.discard(number)
                whole = self._abort_write(number, within)
            if not isinstance(exc, OSError):
                raise
            error = from_os_error(exc, what)
            error.completed = max(0, min(self._known_copied(exc), whole - within))
            raise error from exc
        with self._lock:
            self._writing.discard(number)
            self._conditions.complete_write(number)

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

    def _spans(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range of the device at zone boundaries: zone number, offset in the zone, length."""
        geometry = self._geometry
        block = geometry.block_size
        if offset % block or length % block or offset < 0 or length <= 0 or offset + length > geometry.size:
            raise ValueError(f"{length} bytes at {offset}: not whole blocks of {block} within {geometry.size}")
        number, within = divmod(offset, geometry.zone_size)
        if within + length > geometry.size_of(number):
            last = (offset + length - 1) // geometry.zone_size
            if not geometry.is_conventional(last):
                raise ValueError(f"{length} bytes at {offset} cross a zone boundary")
        while length:
            piece = min(length, geometry.size_of(number) - within)
            yield number, within, piece
            number, within, length = number + 1, 0, length - piece


def make_info(
    description: DeviceDescription,
    kind: str,
    name: str,
    *,
    read_only: bool,
    copy_methods: tuple[CopyMethod, ...] = (),
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
    )


def zone_file_name(geometry: Geometry, number: int) -> str:
    """The name of zone *number*'s file in the device's directory, as zloop has it."""
    return f"{'cnv' if geometry.is_conventional(number) else 'seq'}-{number:06d}"


class DirectoryStore:
    """Zones as files in a directory. Descriptors are opened when first needed, and a bounded number kept."""

    def __init__(self, path: str, directory: int, geometry: Geometry, *, read_only: bool, alignment: int = 0) -> None:
        """*directory* is an open, locked descriptor of *path*; the store closes it.

        *alignment* is what reflinks between zones must be aligned to, 0 where the host cannot make them.
        """
        self._alignment = alignment
        self._path = path
        self._directory = directory
        self._geometry = geometry
        self._flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptors = DescriptorCache(self._open)
        self._dirty: set[int] = set()
        """Zones written since they were last flushed; adding and removing single elements is atomic."""
        self._closed = False

    def _open(self, number: int) -> int:
        return os.open(zone_file_name(self._geometry, number), self._flags, dir_fd=self._directory)

    def read(self, number: int, offset: int, length: int) -> bytes:
        descriptor = self._descriptors.acquire(number)
        try:
            data = os.pread(descriptor, length, offset)
            # Linux reads at most 0x7ffff000 bytes at once (read(2)).
            while (
                data and len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data)))
            ):
                data += more
            return data
        finally:
            self._descriptors.release(number)

    def read_into(self, number: int, offset: int, buffer: memoryview) -> int:
        descriptor = self._descriptors.acquire(number)
        try:
            return os.preadv(descriptor, [buffer], offset)
        finally:
            self._descriptors.release(number)

    def can_copy(self, source_offset: int, destination_offset: int, length: int, method: CopyMethod) -> bool:
        if method is not CopyMethod.REFLINK:
            return True
        return bool(self._alignment) and not (source_offset | destination_offset | length) % self._alignment

    def copy(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        reader = self._descriptors.acquire(source.number)
        try:
            writer = self._descriptors.acquire(destination.number)
            try:
                self._dirty.add(destination.number)
                host_copy.copy(reader, source.offset, writer, destination.offset, length, method)
            finally:
                self._descriptors.release(destination.number)
        finally:
            self._descriptors.release(source.number)

    def write(self, number: int, offset: int, data: memoryview) -> None:
        descriptor = self._descriptors.acquire(number)
        try:
            self._dirty.add(number)
            done = os.pwrite(descriptor, data, offset)
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], offset + done)
        finally:
            self._descriptors.release(number)

    def size(self, number: int) -> int:
        descriptor = self._descriptors.acquire(number)
        try:
            return os.fstat(descriptor).st_size
        finally:
            self._descriptors.release(number)

    def set_size(self, number: int, size: int) -> None:
        descriptor = self._descriptors.acquire(number)
        try:
            self._dirty.add(number)
            os.ftruncate(descriptor, size)
        finally:
            self._descriptors.release(number)

    def flush(self, number: int | None) -> None:
        for one in sorted(self._dirty) if number is None else [number]:
            descriptor = self._descriptors.acquire(one)
            was_dirty = one in self._dirty
            self._dirty.discard(one)
            try:
                os.fdatasync(descriptor)
            except OSError:
                if was_dirty:
                    self._dirty.add(one)
                raise
            finally:
                self._descriptors.release(one)

    def save(self, description: DeviceDescription) -> None:
        write_description(self._directory, description)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._descriptors.close()
            os.close(self._directory)


def write_description(directory: int, description: DeviceDescription) -> None:
    """Replace device.json in *directory* (an open descriptor) as a whole, durably. Raises OSError."""
    temporary = f".{DESCRIPTION_NAME}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666, dir_fd=directory)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(format_description(description))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, DESCRIPTION_NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def create_device(
    path: str | os.PathLike[str],
    geometry: Geometry,
    max_open_zones: int | None = None,
    max_active_zones: int | None = None,
    serial: str | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make an emulated device in the directory *path*, which is made too if it is missing.

    A directory that is not empty is refused; with *force* an emulated device in it is replaced, but anything else
    is still refused. device.json is written last: a creation that was cut short leaves no device. *progress* is
    called with the number of zones made so far. Raises UserError, OSError.
    """
    path = Path(path)
    description = DeviceDescription(
        geometry,
        max_open_zones=max_open_zones,
        max_active_zones=max_active_zones,
        serial=serial if serial is not None else uuid.uuid4().hex[:16],
    )
    check_description(description)
    made = _make_directory(path)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(directory, path, exclusive=True)
        _clear(directory, path, geometry, force=force)
        try:
            for number in range(geometry.nr_zones):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(zone_file_name(geometry, number), flags, 0o666, dir_fd=directory)
                try:
                    if geometry.is_conventional(number):
                        os.ftruncate(descriptor, geometry.size_of(number))
                finally:
                    os.close(descriptor)
                if progress is not None and number % 256 == 255:
                    progress(number + 1)
            write_description(directory, description)
        except BaseException:
            # Interrupted or out of space: what is there is no device, so leave nothing behind.
            _remove_zone_files(directory)
            if made:
                path.rmdir()
            raise
    finally:
        os.close(directory)


def _make_directory(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise UserError(f"{path} is not a directory") from None
        return False
    return True


def _is_ours(name: str) -> bool:
    if name == DESCRIPTION_NAME or name.startswith(f".{DESCRIPTION_NAME}."):
        return True
    kind, dash, digits = name.partition("-")
    return kind in ("cnv", "seq") and dash == "-" and len(digits) >= 6 and digits.isascii() and digits.isdecimal()


def _is_regular(directory: int, name: str) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _clear(directory: int, path: Path, geometry: Geometry, *, force: bool) -> None:
    """Remove a device that is there, but for files that one of *geometry* has too: ext4 is slow to make them anew."""
    names = os.listdir(directory)
    if not names:
        return
    if not force:
        raise UserError(f"{path} is not empty; -f replaces an emulated device that is there")
    foreign = sorted(name for name in names if not _is_ours(name) or not _is_regular(directory, name))
    if foreign:
        raise UserError(f"{path} holds {foreign[0]!r}, which is not part of an emulated device; it will not be removed")
    _remove_zone_files(directory, {zone_file_name(geometry, number) for number in range(geometry.nr_zones)})


def _remove_zone_files(directory: int, but: Container[str] = ()) -> None:
    # The description first: without it the rest is no device.
    for name in sorted(os.listdir(directory), key=lambda name: name != DESCRIPTION_NAME):
        if _is_ours(name) and name not in but:
            os.unlink(name, dir_fd=directory)


def _lock(directory: int, path: Path, *, exclusive: bool) -> None:
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(directory, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _lock_holder(directory)
        raise DeviceInUse(f"{path} is in use by {f'pid {holder}' if holder else 'another process'}") from None


def _lock_holder(directory: int) -> int | None:
    status = os.fstat(directory)
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    # "1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF"; a blocked one has "->" as its second word.
    locks = [words for line in lines if len(words := line.split()) > 5 and words[1] == "FLOCK"]
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    # On btrfs and overlayfs stat gives another device number than the kernel uses here: then the inode must do.
    for end in (f"{device}:{status.st_ino}", f":{status.st_ino}"):
        for words in locks:
            if words[5].endswith(end):
                return int(words[4])
    return None


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether *path* looks like an emulated device: a directory with a device.json."""
    return (Path(path) / DESCRIPTION_NAME).exists()


def open_device(path: str | os.PathLike[str], read_only: bool = False) -> EmulatedDevice:
    """Open the emulated device in the directory *path* and lock it: exclusively, or shared if *read_only*.

    A sequential file whose size is not a multiple of the block size is what a killed writer leaves: it is cut down
    (unless *read_only*) and logged. Raises DeviceFormatError naming the file, DeviceInUse, DeviceReadOnly, OSError.
    """
    path = Path(path)
    directory = _open_directory(path)
    try:
        _lock(directory, path, exclusive=not read_only)
        description = _read_description(directory, path)
        if not read_only:
            _check_access(directory, path, description.geometry)
        sizes = _read_sizes(directory, path, description.geometry, read_only=read_only)
        conditions = ZoneConditions(
            description.geometry, description.max_open_zones, description.max_active_zones, sizes
        )
        alignment = 0 if read_only else host_copy.reflink_alignment(directory)
        store = DirectoryStore(str(path), directory, description.geometry, read_only=read_only, alignment=alignment)
        methods = () if read_only else host_copy.methods(alignment)
        info = make_info(description, "emulated", str(path), read_only=read_only, copy_methods=methods)
        return EmulatedDevice(store, description, conditions, info)
    except BaseException:
        os.close(directory)
        raise


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise DeviceFormatError(f"{path} is not a directory, so not an emulated device") from None
    except FileNotFoundError:
        raise DeviceFormatError(f"{path} does not exist; zonefs-py create makes a device") from None


def _read_description(directory: int, path: Path) -> DeviceDescription:
    name = path / DESCRIPTION_NAME
    try:
        # Not blocking: a named pipe of that name must not stop us before it is recognised.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(DESCRIPTION_NAME, flags, dir_fd=directory)
    except FileNotFoundError:
        raise DeviceFormatError(f"{path} is not an emulated device: it has no {DESCRIPTION_NAME}") from None
    except OSError as exc:
        raise DeviceFormatError(f"{name}: {exc.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_DESCRIPTION_SIZE:
        os.close(descriptor)
        raise DeviceFormatError(f"{name}: not a regular file of a size that a description can have")
    with open(descriptor, "rb") as file:
        content = file.read()
    try:
        return parse_description(content)
    except ZonefsError as exc:
        raise DeviceFormatError(f"{name}: {exc}") from None


def _check_access(directory: int, path: Path, geometry: Geometry) -> None:
    try:
        descriptor = os.open(zone_file_name(geometry, 0), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    except PermissionError:
        raise DeviceReadOnly(f"{path}: no permission to write its zones; a read-only mount (-o ro) may do") from None
    except OSError as exc:
        # A read-only host file system: EROFS. What else is wrong with the file, the scan says better.
        if stat.S_ISREG(_status(directory, path, geometry, 0).st_mode):
            raise DeviceReadOnly(f"{path}: {exc.strerror}; a read-only mount (-o ro) may do") from None
    else:
        os.close(descriptor)


def _status(directory: int, path: Path, geometry: Geometry, number: int) -> os.stat_result:
    name = zone_file_name(geometry, number)
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise DeviceFormatError(f"{path / name} is missing: the device is damaged") from None


def _read_sizes(directory: int, path: Path, geometry: Geometry, *, read_only: bool) -> list[int]:
    sizes = []
    for number in range(geometry.nr_zones):
        status = _status(directory, path, geometry, number)
        size = status.st_size
        capacity = geometry.capacity_of(number)
        file = path / zone_file_name(geometry, number) if not stat.S_ISREG(status.st_mode) or size > capacity else None
        if not stat.S_ISREG(status.st_mode):
            raise DeviceFormatError(f"{file} is not a regular file: the device is damaged")
        if size > capacity:
            raise DeviceFormatError(f"{file} is {size} bytes, but the zone holds {capacity}: the device is damaged")
        if geometry.is_conventional(number):
            if size != capacity:
                file = path / zone_file_name(geometry, number)
                raise DeviceFormatError(f"{file} is {size} bytes; a conventional zone's file is always {capacity}")
        elif size % geometry.block_size:
            size = _cut_to_block(directory, path, geometry, number, size, read_only=read_only)
        sizes.append(size)
    return sizes


def _cut_to_block(directory: int, path: Path, geometry: Geometry, number: int, size: int, *, read_only: bool) -> int:
    name = zone_file_name(geometry, number)
    whole = round_down(size, geometry.block_size)
    if not read_only:
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        try:
            os.ftruncate(descriptor, whole)
        finally:
            os.close(descriptor)
        log.warning("%s: cut from %d to %d bytes: a writer was killed within a block", path / name, size, whole)
    return whole

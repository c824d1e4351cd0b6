"""A zoned block device of the kernel's, through libzbd: SMR disks, ZNS drives, null_blk, scsi_debug, zloop.

Reads and writes are direct I/O in whole blocks. The device alone knows its zones' conditions and write pointers; only
what never changes (types and capacities) is kept here. docs/block-devices.md is for users.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from array import array
from pathlib import Path

from zonefs_py.device import exclusive
from zonefs_py.device.aligned import BufferPool, is_aligned_memory
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.libzbd import LIBRARY, ZbdHandle, ZbdInfo, check_library, parse_zones
from zonefs_py.device.sysfs import SYSFS, BlockFacts, read_facts
from zonefs_py.errors import (
    DeviceError,
    DeviceFormatError,
    DeviceReadOnly,
    UserError,
    from_os_error,
    is_write_protected,
)
from zonefs_py.units import MIB, SECTOR_SIZE, is_aligned
from zonefs_py.zone import DeviceInfo, Zone, ZoneOp

REPORT_CHUNK = 8192
"""Zones of one call of libzbd's: what it asks the kernel for at once."""

MAX_BLOCK_SIZE = 4096
"""What the superblock of zonefs takes: it must be whole blocks."""

BUFFER_SIZE = MIB
NR_BUFFERS = 32
"""How many are kept between calls."""


class BlockDevice(ZonedDevice):
    """A zoned block device that is open. See `open_block_device`."""

    def __init__(self, handle: ZbdHandle, lock: int, info: DeviceInfo, logical_block_size: int) -> None:
        """*lock* is a descriptor that is closed with the device. Raises DeviceError."""
        self._handle = handle
        self._lock_descriptor = lock
        self._info = info
        # The page is as good as any larger block: larger alignments are about offsets on the device.
        self._memory_alignment = min(logical_block_size, mmap.PAGESIZE)
        self._buffers = BufferPool(BUFFER_SIZE, NR_BUFFERS)
        self._closed = False
        self._lock = threading.Lock()
        """Guards the two numbers below."""
        self._changes = 1
        """How many changes were made, and one: who wrote before us may not have flushed."""
        self._flushed = 0
        """How many of them are durable."""
        zones = self._report(0, info.nr_zones)
        self._capacities = array("Q", [zone.capacity for zone in zones])
        self._conventional = bytes(zone.is_conventional for zone in zones)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def descriptor(self) -> int:
        """The open block device, for requests that are not in the device interface."""
        return self._handle.descriptor

    def note_change(self) -> None:
        """Take note that it was changed by a request that is not in the device interface: `flush` makes it durable."""
        self._count_change()

    # Reports

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        end = self._info.nr_zones if count is None else min(start + count, self._info.nr_zones)
        return self._report(start, end)

    def _report(self, start: int, end: int) -> list[Zone]:
        zone_size = self._info.zone_size
        zones: list[Zone] = []
        for first in range(start, end, REPORT_CHUNK):
            count = min(REPORT_CHUNK, end - first)
            try:
                found = parse_zones(self._handle.report(first * zone_size, count), first, zone_size)
            except OSError as exc:
                raise from_os_error(exc, f"report of zones {first} to {first + count - 1}") from exc
            if len(found) != count:
                raise DeviceError(f"report of zones {first} to {first + count - 1}: {len(found)} were reported")
            zones += found
        return zones

    # Data

    def read(self, offset: int, length: int) -> bytes:
        self._check_range(offset, length)
        if length > BUFFER_SIZE:
            with mmap.mmap(-1, length) as large:
                with memoryview(large) as view:
                    self._read_aligned(offset, view)
                return large[:]
        with self._buffers.take() as buffer:
            self._read_aligned(offset, buffer[:length])
            return bytes(buffer[:length])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        view = buffer.cast("B")
        self._check_range(offset, len(view))
        if is_aligned_memory(view, self._memory_alignment):
            self._read_aligned(offset, view)
            return
        with self._buffers.take() as bounce:
            for done in range(0, len(view), BUFFER_SIZE):
                length = min(BUFFER_SIZE, len(view) - done)
                self._read_aligned(offset + done, bounce[:length])
                view[done : done + length] = bounce[:length]

    def _read_aligned(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            what = f"zone {offset // self._info.zone_size}: read of {len(view)} bytes at {offset}"
            try:
                got = os.preadv(self._handle.descriptor, [view[done:]], offset + done)
            except OSError as exc:
                raise from_os_error(exc, what) from exc
            if not got:
                raise DeviceError(f"{what}: the device ends there")
            done += got

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_writable()
        view = memoryview(data).cast("B")
        number = self._check_range(offset, len(view))
        within = offset - number * self._info.zone_size
        if not self._conventional[number] and within + len(view) > self._capacities[number]:
            # A large write goes to the device in pieces: the first would be written.
            raise DeviceError(f"zone {number}: write of {len(view)} bytes at {within} crosses the zone capacity")
        done = 0
        while done < len(view):
            try:
                done += self._write_piece(offset + done, view[done:])
            except OSError as exc:
                raise self._failed_write(number, within + done, len(view) - done, exc) from exc
            finally:
                self._count_change()

    def _write_piece(self, offset: int, view: memoryview) -> int:
        """Write the first bytes of *view*, return how many. Raises OSError."""
        if is_aligned_memory(view, self._memory_alignment):
            return os.pwritev(self._handle.descriptor, [view], offset)
        with self._buffers.take() as bounce:
            length = min(len(view), BUFFER_SIZE)
            bounce[:length] = view[:length]
            return os.pwritev(self._handle.descriptor, [bounce[:length]], offset)

    def _failed_write(self, number: int, within: int, length: int, exc: OSError) -> DeviceError:
        """Return what to raise for *exc*; it tells where the write pointer is, if that can be told.

        The report is for the kernel too: since Linux 6.10 it keeps write pointers of its own, and after a failed write
        takes them from the next report.
        """
        what = f"zone {number}: write of {length} bytes at {within}"
        try:
            (zone,) = self._report(number, number + 1)
        except DeviceError:
            return from_os_error(exc, what)
        if zone.has_write_pointer:
            what += f", where the write pointer is at {zone.wp - zone.start}"
        return from_os_error(exc, what)

    def _check_writable(self) -> None:
        if self._info.read_only:
            raise DeviceError("the device is open read-only")

    def _check_range(self, offset: int, length: int) -> int:
        """Return the number of the first zone of a range. Raises ValueError if it is none that a caller may ask for."""
        info = self._info
        if (
            not is_aligned(offset, info.block_size)
            or not is_aligned(length, info.block_size)
            or offset < 0
            or length <= 0
            or offset + length > info.size
        ):
            raise ValueError(f"{length} bytes at {offset}: not whole blocks of {info.block_size} within {info.size}")
        first, last = offset // info.zone_size, (offset + length - 1) // info.zone_size
        if first != last and not all(self._conventional[first : last + 1]):
            raise ValueError(f"{length} bytes at {offset} cross a zone boundary")
        return first

    # Management

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self._check_writable()
        info = self._info
        if not 0 <= number < info.nr_zones:
            raise ValueError(f"zone {number} of {info.nr_zones}")
        if self._conventional[number]:
            raise DeviceError(f"zone {number}: {op.name.lower()} of a conventional zone")
        start = number * info.zone_size
        try:
            self._handle.manage(op, start, min(info.zone_size, info.size - start))
        except OSError as exc:
            raise from_os_error(exc, f"zone {number}: {op.name.lower()}") from exc
        finally:
            self._count_change()

    def _count_change(self) -> None:
        with self._lock:
            self._changes += 1

    def flush(self, number: int | None = None) -> None:
        # A block device is flushed as a whole; who flushes zone after zone must not wait for each of them.
        with self._lock:
            changes = self._changes
            if self._flushed == changes:
                return
        try:
            os.fdatasync(self._handle.descriptor)
        except OSError as exc:
            raise from_os_error(exc, "flush") from exc
        with self._lock:
            self._flushed = max(self._flushed, changes)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._handle.close()
            os.close(self._lock_descriptor)


def is_block_device(path: str | os.PathLike[str]) -> bool:
    """Whether *path* names a block device, zoned or not."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def open_block_device(
    path: str | os.PathLike[str],
    read_only: bool = False,
    *,
    library: str = LIBRARY,
    sysfs: Path = SYSFS,
) -> BlockDevice:
    """Open the zoned block device *path*; nobody else may use it then, or only read it if *read_only*.

    *library* is libzbd's name for the dynamic linker, *sysfs* where the kernel tells about devices. Raises
    DeviceFormatError if it is no zoned block device that libzbd takes, UserError without libzbd, DeviceInUse,
    DeviceReadOnly, DeviceError, OSError.
    """
    name = os.fspath(path)
    facts = read_facts(os.stat(path).st_rdev, sysfs)
    _check_zoned(name, facts)
    if facts.read_only and not read_only:
        raise DeviceReadOnly(f"{name} is write-protected; a read-only mount (-o ro) may do")
    check_library(library)
    node = _kernel_node(name, facts)
    try:
        lock = exclusive.lock(node, exclusive=not read_only)
        try:
            handle = _open_locked(library, node, facts, read_only=read_only)
            try:
                info = _make_info(name, facts, handle.info, read_only=read_only)
                return BlockDevice(handle, lock, info, facts.logical_block_size)
            except BaseException:
                handle.close()
                raise
        except BaseException:
            os.close(lock)
            raise
    except OSError as exc:
        raise _explain(name, exc, read_only=read_only) from exc


def _check_zoned(name: str, facts: BlockFacts) -> None:
    if facts.zone_model == "none":
        raise DeviceFormatError(
            f"{name} is a block device without zones; zonefs-py create makes an emulated device in a directory"
        )
    if facts.whole is not None:
        raise DeviceFormatError(
            f"{name} is a partition of {facts.whole}, and libzbd takes whole devices only; to use some of its zones"
            f" name them: linear:/dev/{facts.whole}[FIRST-LAST]"
        )
    if MAX_BLOCK_SIZE % facts.write_granularity:
        raise DeviceFormatError(
            f"{name} is written in blocks of {facts.write_granularity} bytes; zonefs takes {MAX_BLOCK_SIZE} at most"
        )


def _kernel_node(name: str, facts: BlockFacts) -> str:
    """The node of the device under the kernel's own name, by which libzbd finds it in /sys."""
    real = os.path.realpath(name)
    if os.path.basename(real) == facts.name:
        return real
    node = f"/dev/{facts.name}"
    if is_block_device(node) and os.stat(node).st_rdev == facts.number:
        return node
    raise DeviceFormatError(f"{name} is the kernel's {facts.name}, but there is no {node}, which libzbd needs")


def _open_locked(library: str, node: str, facts: BlockFacts, *, read_only: bool) -> ZbdHandle:
    flags = os.O_DIRECT | os.O_CLOEXEC
    if read_only:
        exclusive.check_unused(node, facts)
        return ZbdHandle(node, os.O_RDONLY | flags, library)
    return exclusive.open_exclusively(node, facts, lambda: ZbdHandle(node, os.O_RDWR | os.O_EXCL | flags, library))


def _explain(name: str, exc: OSError, *, read_only: bool) -> UserError:
    """What a user is told when *name* could not be opened."""
    if not is_write_protected(exc):
        return UserError(f"{name} cannot be opened: {exc.strerror}")
    if not read_only and os.access(name, os.R_OK, effective_ids=True):
        return DeviceReadOnly(f"{name}: no permission to write it; a read-only mount (-o ro) may do")
    return UserError(f"{name}: no permission to open it; root may, and most often the members of its group")


def _make_info(name: str, facts: BlockFacts, info: ZbdInfo, *, read_only: bool) -> DeviceInfo:
    return DeviceInfo(
        kind=facts.kind,
        name=name,
        size=info.nr_sectors * SECTOR_SIZE,
        nr_zones=info.nr_zones,
        zone_size=info.zone_size,
        block_size=facts.write_granularity,
        max_open_zones=facts.max_open_zones,
        max_active_zones=facts.max_active_zones,
        read_only=read_only,
        waits=True,
        serial=facts.serial,
        profile=facts.model,
    )

"""libzbd's calls as Python has them: an open device, and reports as `Zone` values. `_libzbd` declares the C side."""

from __future__ import annotations

import ctypes
import os
import struct

from zonefs_py.device._libzbd import (
    HOST_AWARE,
    HOST_MANAGED,
    LIBRARY,
    MAX_DESCRIPTOR,
    PACKAGE,
    REPORT_ALL,
    ZONE_FORMAT,
    GuardedInfo,
    ZbdInfo,
    ZbdZone,
    call,
    load,
)
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.units import SECTOR_SIZE
from zonefs_py.zone import Zone, ZoneCondition, ZoneOp, ZoneType

__all__ = ["LIBRARY", "ZbdHandle", "ZbdInfo", "check_library", "parse_zones"]

_TYPES = {int(type): type for type in ZoneType}
_CONDITIONS = {int(condition): condition for condition in ZoneCondition}


def check_library(library: str = LIBRARY) -> None:
    """Raise UserError if libzbd cannot be loaded: before a device is touched."""
    load(library)


class ZbdHandle:
    """An open device of libzbd's. Calls raise OSError."""

    def __init__(self, path: str, flags: int, library: str = LIBRARY) -> None:
        """Open *path*, a device under the kernel's own name, with open(2)'s *flags*.

        Raises UserError if *library* is missing, or not the libzbd that we know.
        """
        self._library = load(library)
        _check_descriptors_left()
        guarded = GuardedInfo()
        self.descriptor: int = call(self._library.zbd_open, os.fsencode(path), flags, ctypes.addressof(guarded))
        self.info = guarded.info
        size = os.lseek(self.descriptor, 0, os.SEEK_END)
        if not guarded.is_intact or not _is_plausible(self.info, size):
            self.close()
            raise UserError(
                f"{path}: {library} describes it in a form that is not libzbd 2's; on Debian: apt-get install"
                f" --reinstall {PACKAGE}"
            )

    def report(self, offset: int, count: int) -> bytes:
        """Return up to *count* zones from *offset* (bytes) on, one `ZbdZone` after the other."""
        zones = (ZbdZone * count)()
        found = ctypes.c_uint(count)
        call(
            self._library.zbd_report_zones,
            self.descriptor,
            offset,
            0,
            REPORT_ALL,
            zones,
            ctypes.byref(found),
        )
        return memoryview(zones).cast("B")[: found.value * ctypes.sizeof(ZbdZone)].tobytes()

    def manage(self, op: ZoneOp, offset: int, length: int) -> None:
        """Do *op* to the zones of a range of bytes."""
        call(self._library.zbd_zones_operation, self.descriptor, int(op), offset, length)

    def close(self) -> None:
        """Close the device."""
        self._library.zbd_close(self.descriptor)
        # Whoever goes on all the same must not meet what has that number next.
        self.descriptor = -1


def _check_descriptors_left() -> None:
    """Raise UserError if the next descriptor is one that libzbd would write past its table for."""
    lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(lowest)
    # Other threads may open something before libzbd does.
    if lowest > MAX_DESCRIPTOR - 128:
        raise UserError(f"libzbd needs a file descriptor below {MAX_DESCRIPTOR}, and {lowest} files are open")


def _is_plausible(info: ZbdInfo, size: int) -> bool:
    """Whether *info* tells things that fit each other and the device's *size* in bytes."""
    return (
        info.model in (HOST_MANAGED, HOST_AWARE)
        and info.nr_sectors * SECTOR_SIZE == size
        and 0 < info.zone_size == info.zone_sectors * SECTOR_SIZE
        and info.nr_zones == -(-size // info.zone_size)
    )


def parse_zones(report: bytes, first: int, zone_size: int) -> list[Zone]:
    """Return the zones of *report*, `ZbdZone` after `ZbdZone`, of which the first is zone number *first*.

    Raises DeviceError if they are not neighbours on a grid of *zone_size*, or of a type or in a condition that is not
    known.
    """
    zones = []
    for number, (start, size, capacity, wp, _flags, type_number, condition_number) in enumerate(
        struct.iter_unpack(ZONE_FORMAT, report), start=first
    ):
        type_, condition = _TYPES.get(type_number), _CONDITIONS.get(condition_number)
        if start != number * zone_size or not 0 < capacity <= size <= zone_size or type_ is None or condition is None:
            raise DeviceError(
                f"zone {number}: the device reports start {start}, size {size}, capacity {capacity},"
                f" type {type_number}, condition {condition_number}"
            )
        zones.append(Zone(number, start, size, capacity, wp, type_, condition))
    return zones

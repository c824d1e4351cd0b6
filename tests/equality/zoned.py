"""Zoned block devices as the kernel shows them, whatever they are made of. Nothing here knows zonefs."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from abc import ABC, abstractmethod

from tests.equality.geometry import Geometry

SECTOR = 512

# linux/blkzoned.h
_BLKREPORTZONE = 0xC0101282
_RESET = 0x40101283
_OPEN = 0x40101286
_CLOSE = 0x40101287
_FINISH = 0x40101288
_OPERATIONS = {"reset": _RESET, "open": _OPEN, "close": _CLOSE, "finish": _FINISH}
_CONDITIONS = {0: "nw", 1: "em", 2: "oi", 3: "oe", 4: "cl", 13: "ro", 14: "fu", 15: "of"}
_ZONE = struct.Struct("<QQQBBBB4xQ24x")


class ZonedBlockDevice(ABC):
    """One device, there until `remove`."""

    def __init__(self, path: str, geometry: Geometry) -> None:
        self.path = path
        self.geometry = geometry

    @property
    def name(self) -> str:
        """The kernel's name for it."""
        return os.path.basename(self.path)

    @abstractmethod
    def remove(self) -> None:
        """Take the device away; its data is lost."""

    def let_fail(self, how: str) -> None:
        """Let the device fail in a way that is its own, until further notice; empty: not any more."""
        raise AssertionError(f"{self.path} does not fail, or was not said to when it was made")

    def write(self, offset: int, data: bytes) -> None:
        """Write past all caches. *offset* and the length are whole blocks."""
        memory = mmap.mmap(-1, len(data))
        memory[:] = data
        descriptor = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        try:
            written = os.pwrite(descriptor, memory, offset)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(f"{self.path}: only {written} bytes written at {offset}")

    def manage(self, operation: str, zone: int) -> None:
        """Reset, open, close or finish *zone*."""
        geometry = self.geometry
        size = geometry.last_zone_size if zone == geometry.nr_zones - 1 else geometry.zone_size
        words = struct.pack("<QQ", zone * geometry.zone_size // SECTOR, size // SECTOR)
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            fcntl.ioctl(descriptor, _OPERATIONS[operation], words)
        finally:
            os.close(descriptor)

    def report(self) -> list[tuple[str, int]]:
        """Condition and write pointer (bytes from the start of the zone) of every zone."""
        count = self.geometry.nr_zones
        buffer = bytearray(struct.pack("<QII", 0, count, 0) + bytes(_ZONE.size * count))
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _BLKREPORTZONE, buffer)
        finally:
            os.close(descriptor)
        (reported,) = struct.unpack_from("<8xI", buffer)
        zones = []
        for number in range(reported):
            start, _, wp, _, condition, _, _, _ = _ZONE.unpack_from(buffer, 16 + number * _ZONE.size)
            zones.append((_CONDITIONS[condition], (wp - start) * SECTOR))
        return zones

    def empty(self) -> None:
        """Reset all zones that have a write pointer and are not empty."""
        for zone, (condition, _) in enumerate(self.report()):
            if condition not in ("nw", "em"):
                self.manage("reset", zone)

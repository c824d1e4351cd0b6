"""Zoned block devices made of the kernel's null_blk, and what is done to their zones behind a file system's back."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
from pathlib import Path

from tests.equality.geometry import MIB, Geometry

SECTOR = 512
_CONFIG = Path("/sys/kernel/config/nullb")

# linux/blkzoned.h
_BLKREPORTZONE = 0xC0101282
_RESET = 0x40101283
_OPEN = 0x40101286
_CLOSE = 0x40101287
_FINISH = 0x40101288
_OPERATIONS = {"reset": _RESET, "open": _OPEN, "close": _CLOSE, "finish": _FINISH}
_CONDITIONS = {0: "nw", 1: "em", 2: "oi", 3: "oe", 4: "cl", 13: "ro", 14: "fu", 15: "of"}
_ZONE = struct.Struct("<QQQBBBB4xQ24x")


def load() -> None:
    """Load the module without devices of its own."""
    if not _CONFIG.exists():
        subprocess.run(["modprobe", "null_blk", "nr_devices=0"], check=True)


class NullBlk:
    """One device, there until `remove`."""

    def __init__(self, name: str, geometry: Geometry, cache_mib: int = 0) -> None:
        """*cache_mib* is the size of its volatile write cache; without one, the block layer passes on no flush."""
        load()
        self.geometry = geometry
        self._directory = _CONFIG / name
        self._directory.mkdir()
        settings = {
            "size": geometry.size // MIB,
            "zone_size": geometry.zone_size // MIB,
            "zone_capacity": geometry.capacity // MIB,
            "zone_nr_conv": geometry.nr_conventional,
            "zone_max_open": geometry.max_open,
            "zone_max_active": geometry.max_active,
            "blocksize": geometry.block,
            "memory_backed": 1,
            "cache_size": cache_mib,
            "zoned": 1,
        }
        for attribute, value in settings.items():
            self.set(attribute, str(value))
        self.set("power", "1")
        # There is no udev where this runs: devtmpfs makes the node. null_blk names devices of configfs after it.
        self.name = name if Path("/dev", name).exists() else f"nullb{self.get('index')}"
        self.path = f"/dev/{self.name}"

    def get(self, attribute: str) -> str:
        """An attribute in configfs."""
        return (self._directory / attribute).read_text().strip()

    def set(self, attribute: str, value: str) -> None:
        """Set an attribute in configfs."""
        (self._directory / attribute).write_text(value)

    def remove(self) -> None:
        """Take the device away; its data is lost."""
        self.set("power", "0")
        self._directory.rmdir()

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

    def break_zone(self, zone: int, how: str) -> None:
        """Make *zone* ``readonly`` or ``offline``."""
        self.set(f"zone_{how}", str(zone * self.geometry.zone_size // SECTOR))

    def set_bad(self, zone: int, offset: int, length: int, *, bad: bool = True) -> None:
        """Make reads and writes of a part of *zone* fail, or not fail any more."""
        first = (zone * self.geometry.zone_size + offset) // SECTOR
        last = first + length // SECTOR - 1
        self.set("badblocks", f"{'+' if bad else '-'}{first}-{last}")

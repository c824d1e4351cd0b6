"""Zoned block devices made of the kernel's null_blk, and what is done to their zones behind a file system's back."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.equality.geometry import MIB, Geometry
from tests.equality.zoned import SECTOR, ZonedBlockDevice

_CONFIG = Path("/sys/kernel/config/nullb")


def load() -> None:
    """Load the module without devices of its own."""
    if not _CONFIG.exists():
        subprocess.run(["modprobe", "null_blk", "nr_devices=0"], check=True)


class NullBlk(ZonedBlockDevice):
    """One null_blk."""

    def __init__(self, name: str, geometry: Geometry, cache_mib: int = 0) -> None:
        """*cache_mib* is the size of its volatile write cache; without one, the block layer passes on no flush."""
        load()
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
        super().__init__(f"/dev/{name}" if Path("/dev", name).exists() else f"/dev/nullb{self.get('index')}", geometry)

    def get(self, attribute: str) -> str:
        """An attribute in configfs."""
        return (self._directory / attribute).read_text().strip()

    def set(self, attribute: str, value: str) -> None:
        """Set an attribute in configfs."""
        (self._directory / attribute).write_text(value)

    def remove(self) -> None:
        self.set("power", "0")
        self._directory.rmdir()

    def break_zone(self, zone: int, how: str) -> None:
        """Make *zone* ``readonly`` or ``offline``."""
        self.set(f"zone_{how}", str(zone * self.geometry.zone_size // SECTOR))

    def set_bad(self, zone: int, offset: int, length: int, *, bad: bool = True) -> None:
        """Make reads and writes of a part of *zone* fail, or not fail any more."""
        first = (zone * self.geometry.zone_size + offset) // SECTOR
        last = first + length // SECTOR - 1
        self.set("badblocks", f"{'+' if bad else '-'}{first}-{last}")

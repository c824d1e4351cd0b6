"""Makes null_blk devices of any geometry, whose zones can be made to fail."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools.machine.guest import devices
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.blockdev import open_block_device
from zonefs_py.units import MIB, SECTOR_SIZE
from zonefs_py.zone import DeviceInfo, Geometry, Zone, ZoneCondition, ZoneOp

_numbers = itertools.count(1000)


def add_null_blk(
    geometry: Geometry, max_open: int | None = None, max_active: int | None = None, **more: int | str
) -> str:
    """Make a null_blk device and return its path. Sizes must be whole MiB."""
    sizes = {"zone_size": geometry.zone_size, "zone_capacity": geometry.zone_capacity, "size": geometry.size}
    assert not any(size % MIB for size in sizes.values())
    settings = {name: size // MIB for name, size in sizes.items()} | {
        "zoned": 1,
        "memory_backed": 1,
        "blocksize": geometry.block_size,
        "zone_nr_conv": geometry.nr_conventional,
        "zone_max_open": max_open or 0,
        "zone_max_active": max_active or 0,
    }
    # Not devices.add: the machine itself may have made devices, and it counts their names in its own process.
    directory = Path(devices.NULL_BLK) / f"nullb{next(_numbers)}"
    if not directory.parent.exists():
        subprocess.run(["modprobe", "null_blk", "nr_devices=0"], check=True)
    directory.mkdir()
    # The list of bad blocks is accepted only by a device that knows its size.
    for name, value in (settings | more | {"power": 1}).items():
        (directory / name).write_text(str(value))
    path = Path("/dev") / directory.name
    assert path.is_block_device()
    return str(path)


def remove_null_blk(path: str) -> None:
    """Take away what `add_null_blk` made."""
    directory = Path(devices.NULL_BLK) / Path(path).name
    (directory / "power").write_text("0")
    directory.rmdir()


class NullBlkDevice(ZonedDevice):
    """A null_blk device that is made for this object, and goes with it."""

    def __init__(self, geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> None:
        self.path = add_null_blk(geometry, max_open, max_active)
        self._below = open_block_device(self.path)
        self._configuration = Path(devices.NULL_BLK) / Path(self.path).name
        self._open = True

    @property
    def info(self) -> DeviceInfo:
        return self._below.info

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        return self._below.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        return self._below.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._below.write(offset, data)

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self._below.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        self._below.flush(number)

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        """Make sequential zones READONLY or OFFLINE as null_blk offers it; back to normal they lose their data."""
        for number in numbers:
            wanted = condition or self._below.report_zones(number, 1)[0].condition
            attribute = {ZoneCondition.READONLY: "zone_readonly", ZoneCondition.OFFLINE: "zone_offline"}[wanted]
            sector = number * self.info.zone_size // SECTOR_SIZE
            (self._configuration / attribute).write_text(str(sector))

    def close(self) -> None:
        self._below.close()

    def remove(self) -> None:
        """Close the device, and take it away from the kernel."""
        if self._open:
            self._open = False
            self.close()
            remove_null_blk(self.path)

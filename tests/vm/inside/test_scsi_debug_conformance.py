"""The conformance suite on scsi_debug, a host-managed SCSI disk: sd and the rules of ZBC."""

from __future__ import annotations

import ctypes
import fcntl
import struct
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.device.conformance import ALLOWED, Make, Transitions, ZonedDeviceConformance, geometry, write_blocks
from tools.machine.guest import devices
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.blockdev import BlockDevice, open_block_device
from zonefs_py.errors import OpenZonesExhausted
from zonefs_py.units import MIB
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

BLKPG = 0x1269
BLKPG_ADD_PARTITION = 1
EMPTY, FULL = ZoneCondition.EMPTY, ZoneCondition.FULL
GEOMETRIES = {
    "no-conventional": geometry(zone_size=MIB),
    "several-conventional": geometry(zone_size=MIB, conventional=2),
    "blocks-of-512": geometry(zone_size=MIB, conventional=2, block=512),
}


@pytest.fixture(params=list(GEOMETRIES.values()), ids=list(GEOMETRIES), scope="class")
def shape(request: pytest.FixtureRequest) -> Geometry:
    """Each of the geometries; the tests of one together, because each is another scsi_debug."""
    assert isinstance(request.param, Geometry)
    return request.param


class ScsiDebug:
    """The one scsi_debug that there can be; it is made anew when it has to be another one."""

    def __init__(self) -> None:
        self._settings: dict[str, str] = {}
        self._path = ""
        self._device: BlockDevice | None = None

    def make(self, shape: Geometry, max_open: int | None) -> BlockDevice:
        """Return it with this geometry and limit, all zones empty."""
        settings = {
            "zbc": "managed",
            "dev_size_mb": str(shape.size // MIB),
            "sector_size": str(shape.block_size),
            "zone_size_mb": str(shape.zone_size // MIB),
            "zone_nr_conv": str(shape.nr_conventional),
            "zone_max_open": str(max_open or 0),
            "delay": "0",
        }
        if settings != self._settings:
            self.remove()
            self._path = devices.add("scsi_debug", settings)
            self._settings = settings
        self.close()
        self._device = open_block_device(self._path)
        for zone in self._device.report_zones():
            if zone.is_conventional:
                self._device.write(zone.start, bytes(zone.size))
            elif zone.condition is not EMPTY:
                self._device.zone_mgmt(ZoneOp.RESET, zone.number)
        return self._device

    def close(self) -> None:
        """Close it, but keep it."""
        if self._device is not None:
            self._device.close()
            self._device = None

    def remove(self) -> None:
        """Take it away from the kernel."""
        self.close()
        if self._settings:
            devices.remove(self._path)
            self._settings = {}


@pytest.fixture(scope="module")
def disk() -> Iterator[ScsiDebug]:
    """The disk that all tests share."""
    disk = ScsiDebug()
    yield disk
    disk.remove()


def test_the_kernel_makes_no_partitions(disk: ScsiDebug) -> None:
    """So there is none that we could be asked to mount; slices (``linear:``) are the way to use some of the zones."""
    device = disk.make(GEOMETRIES["several-conventional"], None)
    partition = ctypes.create_string_buffer(struct.pack("=qqi64s64s4x", MIB, 2 * MIB, 1, b"", b""))
    request = struct.pack("@iiiP", BLKPG_ADD_PARTITION, 0, ctypes.sizeof(partition), ctypes.addressof(partition))
    with pytest.raises(OSError, match="No such device or address"):
        fcntl.ioctl(device.descriptor, BLKPG, request)
    assert device.report_zones()
    disk.close()


class TestScsiDebug(ZonedDeviceConformance):
    sequential: ClassVar[Geometry] = GEOMETRIES["several-conventional"]
    conventional: ClassVar[Geometry] = geometry(zone_size=MIB, conventional=3)
    # Closing what is not open and opening what is full succeeds, and changes nothing: so ZBC has it.
    allowed: ClassVar[Transitions] = {
        state: operations | {op: state[0] for op in ZoneOp if op not in operations}
        for state, operations in ALLOWED.items()
    }

    @pytest.fixture
    def make(self, disk: ScsiDebug) -> Iterator[Make]:
        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            if max_active is not None:
                pytest.skip("SCSI disks have no limit on active zones")
            return disk.make(geometry, max_open)

        yield make
        disk.close()

    # Its capacity is the size of a zone: where it is not, there are gaps that cannot be read.
    test_writes_across_the_capacity_are_refused = None  # type: ignore[assignment]  # no test

    def test_an_open_limit_is_told_apart(self, make: Make) -> None:
        device = make(self.sequential, max_open=2)
        assert device.info.max_open_zones == 2
        for number in (self.first, self.first + 1):
            device.zone_mgmt(ZoneOp.OPEN, number)
        before = device.report_zones()
        with pytest.raises(OpenZonesExhausted):
            device.zone_mgmt(ZoneOp.OPEN, self.first + 2)
        with pytest.raises(OpenZonesExhausted):
            write_blocks(device, self.first + 2)
        assert device.report_zones() == before

    # Which zone is closed to make room, and whether finishing an empty one needs room, is the drive's choice.
    test_an_open_limit_is_met_by_closing_implicitly_open_zones_in_turn = None  # type: ignore[assignment]  # no test
    test_explicitly_open_zones_are_not_closed_for_others = None  # type: ignore[assignment]  # no test
    # Its conventional zones cannot be made to fail.
    test_conventional_zones_can_fail_too = None  # type: ignore[assignment]  # no test

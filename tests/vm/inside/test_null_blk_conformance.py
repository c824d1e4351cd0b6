"""The conformance suite on the kernel's null_blk, whose rules the emulated device follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.device.conformance import Make, ZonedDeviceConformance, geometry
from zonefs_py.device.base import ZonedDevice
from zonefs_py.units import MIB
from zonefs_py.zone import Geometry

from .null_blk import NullBlkDevice

# The sizes are null_blk's units. It always leaves one sequential zone, and takes a smaller last zone only where the
# capacity is the size.
GEOMETRIES = {
    "no-conventional": geometry(zone_size=MIB),
    "one-conventional": geometry(zone_size=MIB, conventional=1),
    "several-conventional": geometry(zone_size=MIB, conventional=3),
    "capacity-below-size": geometry(zone_size=2 * MIB, conventional=2, capacity=MIB),
    "smaller-last-zone": geometry(zone_size=2 * MIB, zones=4, conventional=1, last=MIB),
    "blocks-of-512": geometry(zone_size=MIB, zones=4, conventional=2, block=512),
}


@pytest.fixture(params=list(GEOMETRIES.values()), ids=list(GEOMETRIES))
def shape(request: pytest.FixtureRequest) -> Geometry:
    """Each of the geometries."""
    assert isinstance(request.param, Geometry)
    return request.param


class TestNullBlk(ZonedDeviceConformance):
    sequential: ClassVar[Geometry] = geometry(zone_size=2 * MIB, conventional=2, capacity=MIB)
    conventional: ClassVar[Geometry] = GEOMETRIES["several-conventional"]

    @pytest.fixture
    def make(self) -> Iterator[Make]:
        made: list[NullBlkDevice] = []

        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            made.append(NullBlkDevice(geometry, max_open, max_active))
            return made[-1]

        yield make
        for device in made:
            device.remove()

    # Reads behind the write pointer (null_zone_valid_read_len).
    unwritten: ClassVar[bytes] = b"\xff"

    # Its conventional zones cannot be made to fail.
    test_conventional_zones_can_fail_too = None  # type: ignore[assignment]  # no test

"""The conformance suite on QEMU's ZNS namespaces, of `ZNS_DEVICES`: one for each pair of limits that it asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.device.conformance import ALLOWED, Make, Transitions, ZonedDeviceConformance
from tests.vm.zns_devices import LIMITS, SHAPE
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.blockdev import BlockDevice, open_block_device
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp


@pytest.fixture
def shape() -> Geometry:
    """All of them are alike."""
    return SHAPE


class TestZns(ZonedDeviceConformance):
    sequential: ClassVar[Geometry] = SHAPE
    # A zone that is closed unwritten is closed, and stays active.
    allowed: ClassVar[Transitions] = ALLOWED | {
        (ZoneCondition.EXP_OPEN, False): ALLOWED[ZoneCondition.EXP_OPEN, False] | {ZoneOp.CLOSE: ZoneCondition.CLOSED}
    }

    @pytest.fixture
    def make(self) -> Iterator[Make]:
        nodes = dict(zip(LIMITS, os.environ["ZONEFS_VM_DEVICES"].split(), strict=True))
        made: dict[str, BlockDevice] = {}

        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            assert geometry == SHAPE
            node = nodes[max_open, max_active]
            if node in made:
                made[node].close()
            made[node] = device = open_block_device(node)
            for zone in device.report_zones():
                if zone.condition is not ZoneCondition.EMPTY:
                    device.zone_mgmt(ZoneOp.RESET, zone.number)
            return device

        yield make
        for device in made.values():
            device.close()

    @pytest.mark.parametrize("free", ["reset", "finish", "fill"])
    def test_resources_come_back(self, make: Make, free: str) -> None:
        # Closing an unwritten zone frees nothing, see above.
        super().test_resources_come_back(make, free)

    # There are no conventional zones.
    test_single_bytes_of_conventional_zones_can_be_written = None  # type: ignore[assignment]  # no test
    test_neighbouring_conventional_zones_are_one_for_data = None  # type: ignore[assignment]  # no test
    test_conventional_zones_can_fail_too = None  # type: ignore[assignment]  # no test
    test_conventional_zones_have_no_operations = None  # type: ignore[assignment]  # no test
    # Which zone is closed to make room, and whether finishing an empty one needs room, is the drive's choice.
    test_an_open_limit_is_met_by_closing_implicitly_open_zones_in_turn = None  # type: ignore[assignment]  # no test
    test_explicitly_open_zones_are_not_closed_for_others = None  # type: ignore[assignment]  # no test
    test_an_active_limit_is_never_exceeded = None  # type: ignore[assignment]  # no test
    test_a_closed_zone_finds_no_room_when_all_active_zones_are_used = None  # type: ignore[assignment]  # no test
    # Needs zones that fail.
    test_a_zone_that_breaks_is_no_longer_open = None  # type: ignore[assignment]  # no test

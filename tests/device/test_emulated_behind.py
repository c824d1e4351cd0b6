"""The emulated device in a directory: somebody changes its files behind it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.conformance import write_blocks, zone_of
from tests.device.directories import BLOCK, CAPACITY, FIRST, GEOMETRY, SIZE, zone_file
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.errors import DeviceError, OpenZonesExhausted
from zonefs_py.zone import ZoneCondition, ZoneOp


@pytest.fixture
def device(path: Path) -> Iterator[EmulatedDevice]:
    """The device, open, with two blocks in the first sequential zone."""
    with open_device(path) as device:
        write_blocks(device, FIRST, 2)
        yield device


def assert_write_refused(device: EmulatedDevice, blocks: int) -> None:
    """A write at block *blocks* of the first sequential zone is a device error."""
    with pytest.raises(DeviceError):
        device.write(FIRST * SIZE + blocks * BLOCK, bytes(BLOCK))


@pytest.mark.parametrize(("size", "blocks"), [(3 * BLOCK, 3), (3 * BLOCK + 100, 3), (BLOCK, 1), (BLOCK - 1, 0), (0, 0)])
def test_a_write_pointer_that_was_moved(device: EmulatedDevice, path: Path, size: int, blocks: int) -> None:
    os.truncate(zone_file(path, FIRST), size)
    # A report of everything is quick and does not look; a write does, and so does a report of one zone.
    assert device.report_zones()[FIRST].wp == FIRST * SIZE + 2 * BLOCK
    assert_write_refused(device, 2)
    assert zone_of(device, FIRST).wp == FIRST * SIZE + blocks * BLOCK
    device.write(FIRST * SIZE + blocks * BLOCK, b"\x22" * BLOCK)
    assert zone_of(device, FIRST).wp == FIRST * SIZE + (blocks + 1) * BLOCK
    assert zone_file(path, FIRST).stat().st_size == (blocks + 1) * BLOCK
    assert device.read(FIRST * SIZE + blocks * BLOCK, BLOCK) == b"\x22" * BLOCK


@pytest.mark.parametrize("size", [CAPACITY, CAPACITY + 1, CAPACITY + BLOCK, 10 * SIZE])
def test_a_zone_that_was_filled(device: EmulatedDevice, path: Path, size: int) -> None:
    os.truncate(zone_file(path, FIRST), size)
    assert_write_refused(device, 2)
    zone = zone_of(device, FIRST)
    assert (zone.condition, zone.data_size) == (ZoneCondition.FULL, CAPACITY)
    assert len(device.read(FIRST * SIZE, SIZE)) == SIZE
    device.zone_mgmt(ZoneOp.RESET, FIRST)
    assert zone_file(path, FIRST).stat().st_size == 0
    write_blocks(device, FIRST)


def test_an_operation_sees_what_was_moved(device: EmulatedDevice, path: Path) -> None:
    os.truncate(zone_file(path, FIRST), 0)
    device.zone_mgmt(ZoneOp.OPEN, FIRST)
    device.zone_mgmt(ZoneOp.CLOSE, FIRST)
    assert zone_of(device, FIRST).condition is ZoneCondition.EMPTY
    os.truncate(zone_file(path, FIRST), BLOCK)
    device.zone_mgmt(ZoneOp.FINISH, FIRST)
    assert zone_file(path, FIRST).stat().st_size == CAPACITY
    os.truncate(zone_file(path, FIRST), CAPACITY)
    with pytest.raises(DeviceError, match="full"):
        device.zone_mgmt(ZoneOp.OPEN, FIRST)


def test_a_zone_moved_by_others_keeps_its_explicit_opening(path: Path) -> None:
    create_device(path, GEOMETRY, max_open_zones=1, force=True)
    with open_device(path) as device:
        device.zone_mgmt(ZoneOp.OPEN, FIRST)
        write_blocks(device, FIRST)
        os.truncate(zone_file(path, FIRST), 3 * BLOCK)
        assert zone_of(device, FIRST).condition is ZoneCondition.EXP_OPEN
        with pytest.raises(OpenZonesExhausted):
            write_blocks(device, FIRST + 1)


def test_data_that_was_changed_is_read_as_it_is(device: EmulatedDevice, path: Path) -> None:
    with zone_file(path, FIRST).open("r+b") as file:
        file.write(b"changed!")
    assert device.read(FIRST * SIZE, BLOCK)[:8] == b"changed!"


def test_a_zone_file_that_vanished_is_a_device_error(device: EmulatedDevice, path: Path) -> None:
    zone_file(path, 4).unlink()
    zone_file(path, 1).unlink()
    for call in (
        lambda: device.read(4 * SIZE, BLOCK),
        lambda: device.write(4 * SIZE, bytes(BLOCK)),
        lambda: device.zone_mgmt(ZoneOp.RESET, 4),
        lambda: device.zone_mgmt(ZoneOp.OPEN, 4),
        lambda: device.report_zones(4, 1),
        lambda: device.flush(4),
        lambda: device.write(SIZE, bytes(BLOCK)),
    ):
        with pytest.raises(DeviceError):
            call()
    # The others go on.
    write_blocks(device, FIRST)
    device.flush()
    assert device.report_zones()[4].condition is ZoneCondition.EMPTY


def test_a_link_in_place_of_a_zone_file_is_not_followed(device: EmulatedDevice, path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine" * 1024)
    zone_file(path, 5).unlink()
    zone_file(path, 5).symlink_to(precious)
    with pytest.raises(DeviceError):
        device.write(5 * SIZE, bytes(BLOCK))
    with pytest.raises(DeviceError):
        device.zone_mgmt(ZoneOp.RESET, 5)
    assert precious.read_bytes() == b"mine" * 1024


def test_a_directory_that_vanished_is_a_device_error(device: EmulatedDevice, path: Path) -> None:
    shutil.rmtree(path)
    with pytest.raises(DeviceError):
        device.write(6 * SIZE, bytes(BLOCK))
    with pytest.raises(DeviceError):
        device.force_condition(3, ZoneCondition.OFFLINE)

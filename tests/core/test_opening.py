"""`open_filesystem`: a device by its name, mounted; nothing stays open where that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zonefs_py import (
    FormatOptions,
    Geometry,
    MountOptions,
    ZoneCondition,
    create_device,
    format_device,
    open_device,
    open_filesystem,
)
from zonefs_py.errors import DeviceFormatError, DeviceInUse, ReadOnlyFilesystem, SuperblockError

GEOMETRY = Geometry(65536, 65536, 4, 1, 4096, 65536)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    create_device(tmp_path / "d", GEOMETRY)
    return tmp_path / "d"


def make_filesystem(device: Path) -> None:
    with open_device(device) as opened:
        format_device(opened, FormatOptions())


def test_it_is_mounted_and_the_device_is_its_own(device: Path) -> None:
    make_filesystem(device)
    for name in (device, str(device), f"linear:{device}"):
        with open_filesystem(name) as fs:
            assert fs.resolve("seq/0") == 1
            with pytest.raises(DeviceInUse):
                open_device(device)
    open_device(device).close()


def test_a_device_without_a_superblock_is_let_go(device: Path) -> None:
    for _ in range(2):
        with pytest.raises(SuperblockError, match=rf"{device}: .*; 'zonefs-py mkfs' formats a device"):
            open_filesystem(device)
    open_device(device).close()


def test_a_device_that_fails_is_let_go(device: Path) -> None:
    make_filesystem(device)
    with open_device(device) as opened:
        opened.write(GEOMETRY.zone_size, bytes(4096))
        opened.force_condition(0, ZoneCondition.OFFLINE)
    with pytest.raises(Exception, match=f"{device}: .*offline"):
        open_filesystem(device)
    open_device(device).close()


def test_read_only_is_read_only_down_to_the_device(device: Path) -> None:
    make_filesystem(device)
    options = MountOptions(read_only=True)
    with open_filesystem(device, options) as fs, open_filesystem(device, options) as other:
        assert fs.info.read_only
        with pytest.raises(ReadOnlyFilesystem):
            other.open("seq/0", os.O_WRONLY | os.O_DIRECT)


def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceFormatError, match="does not exist"):
        open_filesystem(tmp_path / "none")

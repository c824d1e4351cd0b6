"""The emulated device in a directory: who may have it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.device.conformance import write_blocks
from tests.device.directories import BLOCK, FIRST, GEOMETRY, HOLDER, SIZE, Tmpfs, listing, run_python
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import DeviceError, DeviceInUse, DeviceReadOnly
from zonefs_py.zone import ZoneCondition, ZoneOp


def test_a_second_opener_is_told_who_has_it(path: Path, hold: Callable[[Path, str], int]) -> None:
    pid = hold(path, "rw")
    for read_only in (False, True):
        with pytest.raises(DeviceInUse, match=rf"in use by pid {pid}$"):
            open_device(path, read_only=read_only)
    with pytest.raises(DeviceInUse, match=rf"in use by pid {pid}$"):
        create_device(path, GEOMETRY, force=True)


def test_readers_share(path: Path, hold: Callable[[Path, str], int]) -> None:
    pids = {hold(path, "ro"), hold(path, "ro")}
    with open_device(path, read_only=True) as device:
        assert device.read(0, BLOCK) == bytes(BLOCK)
        with pytest.raises(DeviceInUse) as raised:
            open_device(path)
        assert int(str(raised.value).rpartition(" ")[2]) in {*pids, os.getpid()}


def test_the_lock_goes_with_its_holder(path: Path) -> None:
    program = HOLDER.replace("sys.stdin.read()", "import os; os.kill(os.getpid(), 9)")
    assert run_python(program, path, "rw").returncode == -signal.SIGKILL
    open_device(path).close()


def test_a_device_is_free_after_closing_it(path: Path) -> None:
    for _ in range(3):
        device = open_device(path)
        with pytest.raises(DeviceInUse, match=rf"pid {os.getpid()}$"):
            open_device(path)
        device.close()


def test_the_holder_is_told_from_one_on_another_file_system(tmpfs: Tmpfs, hold: Callable[[Path, str], int]) -> None:
    """Two directories with the same inode number, as fresh file systems have them."""
    disks = [tmpfs("size=2m") / "disk", tmpfs("size=2m") / "disk"]
    for disk in disks:
        create_device(disk, GEOMETRY)
    assert disks[0].stat().st_ino == disks[1].stat().st_ino
    pids = [hold(disk, "rw") for disk in disks]
    for disk, pid in zip(disks, pids, strict=True):
        with pytest.raises(DeviceInUse, match=rf"in use by pid {pid}$"):
            open_device(disk)


def test_a_device_that_cannot_be_written_says_so(path: Path, tmpfs: Tmpfs) -> None:
    root = tmpfs("size=2m")
    disk = root / "disk"
    create_device(disk, GEOMETRY)
    subprocess.run(["mount", "-o", "remount,ro", root], check=True, timeout=30)
    with pytest.raises(DeviceReadOnly, match="-o ro"):
        open_device(disk)
    with open_device(disk, read_only=True) as device:
        assert device.info.read_only
        assert device.read(0, SIZE) == bytes(SIZE)


def test_a_read_only_device_refuses_every_change(path: Path) -> None:
    with open_device(path) as device:
        write_blocks(device, FIRST)
    before = listing(path)
    with open_device(path, read_only=True) as device:
        zones = device.report_zones()
        with pytest.raises(DeviceError):
            device.write(FIRST * SIZE + BLOCK, bytes(BLOCK))
        with pytest.raises(DeviceError):
            device.write(0, bytes(BLOCK))
        for op in ZoneOp:
            with pytest.raises(DeviceError):
                device.zone_mgmt(op, FIRST)
        with pytest.raises(DeviceError):
            device.force_condition(FIRST, ZoneCondition.OFFLINE)
        device.flush()
        assert device.report_zones() == zones
    assert listing(path) == before

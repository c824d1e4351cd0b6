"""What is special about block devices, on null_blk: reports, memory, exclusive use, errors, and all commands."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.device.conformance import geometry, pattern, write_blocks, zone_of
from tools.machine.guest import devices
from zonefs_py.cli.main import main
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.blockdev import BUFFER_SIZE, REPORT_CHUNK, BlockDevice, open_block_device
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError, DeviceInUse, DeviceReadOnly, UserError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.units import KIB, MIB
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

from .null_blk import add_null_blk, remove_null_blk

SHAPE = geometry(zone_size=4 * MIB, zones=8, conventional=2, capacity=3 * MIB)
FIRST = 2
BLOCK = 4096


@contextlib.contextmanager
def null_blk(shape: Geometry = SHAPE, **settings: Any) -> Iterator[str]:
    """A null_blk device for as long as the context lasts; gives its path."""
    path = add_null_blk(shape, **settings)
    try:
        yield path
    finally:
        remove_null_blk(path)


@pytest.fixture
def path() -> Iterator[str]:
    """A fresh device."""
    with null_blk() as path:
        yield path


@pytest.fixture
def device(path: str) -> Iterator[BlockDevice]:
    """A fresh device, open."""
    with open_block_device(path) as device:
        yield device


def run(*words: object) -> str:
    """Run a command, which must succeed; return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([str(word) for word in words]) == 0
    return out.getvalue()


def refused(*words: object) -> str:
    """Run a command that must fail with one line; return that."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert main([str(word) for word in words]) == 1
    assert err.getvalue().startswith("zonefs-py: ")
    assert err.getvalue().count("\n") == 1
    return err.getvalue()


# Reports


def test_a_report_of_very_many_zones() -> None:
    nr_zones = 100_000
    assert nr_zones > 2 * REPORT_CHUNK
    with null_blk(geometry(zone_size=MIB, zones=nr_zones, conventional=1000)) as path, open_stack(path) as device:
        write_blocks(device, nr_zones - 1)
        zones = device.report_zones()
        assert [zone.start for zone in zones] == list(range(0, nr_zones * MIB, MIB))
        assert sum(zone.is_conventional for zone in zones) == 1000
        assert zones[-1].wp == zones[-1].start + BLOCK
        assert device.report_zones(REPORT_CHUNK - 1, 3) == zones[REPORT_CHUNK - 1 : REPORT_CHUNK + 2]


def test_what_a_device_tells(device: BlockDevice, path: str) -> None:
    info = device.info
    assert (info.kind, info.name, info.size, info.nr_zones) == ("null_blk", path, 32 * MIB, 8)
    assert info.waits
    assert not info.copy_methods
    assert zone_of(device, FIRST).capacity == 3 * MIB


# Data


@pytest.mark.parametrize("shift", [0, 512, 8, 1])
def test_memory_of_any_alignment(device: BlockDevice, shift: int) -> None:
    start = zone_of(device, FIRST).start
    # More than a buffer, and not a multiple of it.
    length = 2 * BUFFER_SIZE + 3 * BLOCK
    expected = pattern(start, length)
    memory = memoryview(mmap.mmap(-1, length + mmap.PAGESIZE))[shift : shift + length]
    memory[:] = expected
    device.write(start, memory)
    assert device.read(start, length) == expected
    memory[:] = bytes(length)
    device.read_into(start, memory)
    assert memory == expected
    device.write(start + length, expected[:BLOCK])
    assert device.read(start + length, BLOCK) == expected[:BLOCK]


def test_a_large_write_that_does_not_fit_writes_nothing(device: BlockDevice) -> None:
    write_blocks(device, FIRST)
    before = device.report_zones()
    # Several requests of the kernel's: without a check of ours the first ones would be done.
    with pytest.raises(DeviceError, match="crosses the zone capacity"):
        device.write(before[FIRST].wp, bytes(3 * MIB))
    assert device.report_zones() == before


def test_a_failed_write_says_where_the_write_pointer_is() -> None:
    # The second block of zone 2 cannot be written.
    sector = (FIRST * SHAPE.zone_size + BLOCK) // 512
    with null_blk(badblocks=f"+{sector}-{sector}") as path, open_block_device(path) as device:
        start = FIRST * SHAPE.zone_size
        device.write(start, pattern(start, BLOCK))
        with pytest.raises(DeviceError, match=f"at {BLOCK}, where the write pointer is at {BLOCK}: Input/output error"):
            device.write(start + BLOCK, bytes(BLOCK))
        assert zone_of(device, FIRST).wp == start + BLOCK
        assert device.read(start, BLOCK) == pattern(start, BLOCK)


def test_flushing_zone_after_zone(device: BlockDevice) -> None:
    for number in range(8):
        device.flush(number)
    write_blocks(device, FIRST)
    device.flush(FIRST)
    device.flush()


# Exclusive use


@pytest.mark.parametrize("read_only", [True, False])
def test_a_second_opener_is_told_who_has_it(device: BlockDevice, path: str, read_only: bool) -> None:
    with pytest.raises(DeviceInUse, match=f"{path} is in use by pid {os.getpid()}"):
        open_block_device(path, read_only)


def test_readers_share_it(path: str) -> None:
    with open_block_device(path, read_only=True) as first, open_block_device(path, read_only=True) as second:
        assert first.report_zones() == second.report_zones()
        with pytest.raises(DeviceInUse, match="in use by pid"):
            open_block_device(path)
        assert first.info.read_only
        with pytest.raises(DeviceError, match="read-only"):
            first.write(0, bytes(BLOCK))
        with pytest.raises(DeviceError, match="read-only"):
            first.zone_mgmt(ZoneOp.RESET, FIRST)
    open_block_device(path).close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_device_that_the_kernel_has_mounted_is_in_use(path: str, tmp_path: Path, read_only: bool) -> None:
    run("mkfs", path)
    subprocess.run(["mount", "-t", "zonefs", path, tmp_path], check=True)
    try:
        with pytest.raises(DeviceInUse, match=f"{path} is in use as the file system at {tmp_path}"):
            open_block_device(path, read_only)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    open_block_device(path, read_only).close()


def test_the_kernel_does_not_mount_what_we_use(path: str, tmp_path: Path) -> None:
    run("mkfs", path)
    with open_block_device(path):
        mount = subprocess.run(["mount", "-t", "zonefs", path, tmp_path], capture_output=True, text=True, check=False)
    assert mount.returncode != 0
    assert "busy" in mount.stderr


# Devices that are refused


def test_without_permission(path: str) -> None:
    os.chmod(path, 0o600)
    os.seteuid(65534)
    try:
        for read_only in (True, False):
            with pytest.raises(UserError, match=f"{path}: no permission to open it; root may"):
                open_block_device(path, read_only)
    finally:
        os.seteuid(0)
    os.chmod(path, 0o644)
    os.seteuid(65534)
    try:
        with pytest.raises(DeviceReadOnly, match=r"no permission to write it; a read-only mount \(-o ro\) may do"):
            open_block_device(path)
        open_block_device(path, read_only=True).close()
    finally:
        os.seteuid(0)


def test_a_write_protected_device(path: str) -> None:
    subprocess.run(["blockdev", "--setro", path], check=True)
    with pytest.raises(DeviceReadOnly, match="write-protected"):
        open_block_device(path)
    with open_block_device(path, read_only=True) as device:
        assert device.read(0, BLOCK) == bytes(BLOCK)
    assert json.loads(run("info", path, "--format", "json"))["device"]["read_only"] is True


def test_another_node_of_the_device_will_do(path: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    os.mknod(tmp_path / "node", 0o600 | 0o060000, os.stat(path).st_rdev)
    for other in ("link", "node"):
        with open_block_device(tmp_path / other) as device:
            assert device.info.name == str(tmp_path / other)
            assert device.info.nr_zones == 8
    with pytest.raises(UserError, match="are the same device, used twice"):
        open_stack(f"linear:{path}[0]+{tmp_path}/node[1]")


# Commands and stacks


def zones(target: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("report", target, "--format", "json"))["zones"]
    return found


def test_commands(path: str) -> None:
    assert f"Device:     {path}\n" in run("mkfs", "-v", path, "-L", "real")
    assert "holds a zonefs file system (label 'real'" in refused("mkfs", path)
    document = json.loads(run("info", path, "--format", "json"))
    assert document["format"]["label"] == "real"
    assert (document["device"]["kind"], document["device"]["read_only"]) == ("null_blk", False)
    assert [zone["file"] for zone in zones(path)] == [None, "cnv/0"] + [f"seq/{n}" for n in range(6)]
    for op, condition in (("open", "explicit-open"), ("close", "empty"), ("finish", "full"), ("reset", "empty")):
        run("zone", op, path, 3)
        assert zones(path)[3]["condition"] == condition
    assert "conventional: it has no write pointer" in refused("zone", "reset", path, 1)
    assert "only the zones of an emulated device can be forced" in refused("zone", "readonly", path, 3)
    blkzone = subprocess.run(["blkzone", "report", path], capture_output=True, text=True, check=True).stdout
    assert run("report", path, "--format", "blkzone").split() == blkzone.split()


def test_ranges_are_copied(path: str) -> None:
    start = FIRST * SHAPE.zone_size
    with open_block_device(path) as device:
        device.write(start, pattern(0, 64 * KIB))
    copied = run("blkcopy", path, "--range", f"{start + 8192}:32K", "--range", f"{start}:4K", "--to", 5 * 4 * MIB)
    assert [line.split()[-1] for line in copied.splitlines()[1:]] == ["32768", "4096"]
    with open_block_device(path, read_only=True) as device:
        assert device.read(5 * 4 * MIB, 36 * KIB) == pattern(8192, 32 * KIB) + pattern(0, 4 * KIB)


def test_it_is_cloned(path: str, tmp_path: Path) -> None:
    run("mkfs", path, "-L", "real")
    with Filesystem(open_stack(path)) as fs:
        handle = fs.open("seq/1", os.O_WRONLY | os.O_DIRECT)
        fs.write(handle, 0, pattern(0, 5 * BLOCK))
    # An emulated device knows no open zones when it is opened.
    run("zone", "close", path, 3)
    run("clone", path, tmp_path / "clone", "--data")
    assert zones(tmp_path / "clone") == zones(path)
    with Filesystem(open_stack(str(tmp_path / "clone"))) as fs:
        assert fs.superblock.label_text == "real"
        assert fs.read(fs.open("seq/1", os.O_RDONLY), 0, 6 * BLOCK) == pattern(0, 5 * BLOCK)


def test_a_slice_of_it_with_faults_is_a_file_system(path: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"version": 1, "rules": [{"operation": "write", "zones": 3, "effect": "fail", "first": 2}]}')
    stack = f"fault:{rules},linear:{path}[1-6]"
    run("mkfs", stack)
    assert [zone["file"] for zone in zones(stack)] == [None] + [f"seq/{n}" for n in range(5)]
    with Filesystem(open_stack(stack)) as fs:
        assert fs.info.waits
        handle = fs.open("seq/2", os.O_WRONLY | os.O_DIRECT)
        fs.write(handle, 0, bytes(BLOCK))
        with pytest.raises(DeviceError):
            fs.write(handle, BLOCK, bytes(BLOCK))
        assert fs.read_only
    with open_block_device(path, read_only=True) as device:
        below: ZonedDevice = device
        assert zone_of(below, 4).data_size == BLOCK


def test_a_file_system_survives_the_kernels(path: str, tmp_path: Path) -> None:
    run("mkfs", path)
    with Filesystem(open_stack(path)) as fs:
        for name, size in (("seq/0", 3 * BLOCK), ("seq/1", SHAPE.zone_capacity)):
            handle = fs.open(name, os.O_WRONLY | os.O_DIRECT)
            fs.write(handle, 0, pattern(0, size))
            fs.release(handle)
        handle = fs.open("cnv/0", os.O_WRONLY)
        fs.write(handle, 100, b"conventional")
    subprocess.run(["mount", "-t", "zonefs", path, tmp_path], check=True)
    try:
        assert (tmp_path / "seq/0").read_bytes() == pattern(0, 3 * BLOCK)
        assert (tmp_path / "seq/1").read_bytes() == pattern(0, SHAPE.zone_capacity)
        assert (tmp_path / "cnv/0").read_bytes()[100:112] == b"conventional"
        os.truncate(tmp_path / "seq/1", 0)
        os.truncate(tmp_path / "seq/2", SHAPE.zone_capacity)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    with Filesystem(open_stack(path)) as fs:
        sizes = [fs.getattr(fs.resolve(f"seq/{number}")).size for number in range(4)]
    assert sizes == [3 * BLOCK, 0, SHAPE.zone_capacity, 0]


def test_zones_that_fail_are_seen(path: str) -> None:
    run("mkfs", path)
    configuration = Path(devices.NULL_BLK) / Path(path).name
    with Filesystem(open_stack(path)) as fs:
        handle = fs.open("seq/0", os.O_RDWR | os.O_DIRECT)
        fs.write(handle, 0, pattern(0, BLOCK))
        (configuration / "zone_offline").write_text(str(FIRST * SHAPE.zone_size // 512))
        with pytest.raises(DeviceError):
            fs.read(handle, 0, BLOCK)
        assert fs.device.report_zones(FIRST, 1)[0].condition is ZoneCondition.OFFLINE
        assert fs.getattr(fs.resolve("seq/0")).size == 0

"""Snapshots where the host has reflinks, and of a device that is mounted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.conftest import ZONEFS_PY, Mounts, run
from tests.fuse.test_copy_mount import HostFilesystem, host_filesystem
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.file_comparison import same_extents
from zonefs_py.device.snapshots import create_snapshot, diff_snapshots, rollback_snapshot
from zonefs_py.zone import Geometry

MIB = 1 << 20
GEOMETRY = Geometry(16 * MIB, 16 * MIB, 8, 2, 4096, 16 * MIB)


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFilesystem]:
    """A file system with reflinks."""
    with host_filesystem(request.param, tmp_path_factory.mktemp(request.param), 512 * MIB) as host:
        yield host


def used(path: Path) -> int:
    """Bytes in use on the file system of *path*."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        status = os.fstatvfs(descriptor)
        return (status.f_blocks - status.f_bfree) * status.f_frsize
    finally:
        os.close(descriptor)


def test_data_is_shared_and_changes_are_found_by_it(host: HostFilesystem) -> None:
    path = Path(host.path) / "d"
    create_device(path, GEOMETRY)
    with open_device(path) as device:
        for number in range(8):
            device.write(number * 16 * MIB, os.urandom(8 * MIB))
        device.flush()
    before = used(path)
    create_snapshot(path, "s")
    assert used(path) - before < 16 * MIB  # of 64
    assert diff_snapshots(path, "s") == []

    def same(name: str) -> bool:
        with (path / name).open("rb") as one, (path / ".snapshots/s" / name).open("rb") as other:
            return same_extents(one.fileno(), other.fileno())

    assert same("cnv-000000")
    assert same("seq-000004")
    original = (path / "cnv-000000").read_bytes()
    with (path / "cnv-000000").open("r+b") as file:
        file.seek(5 * MIB + 1)
        # Not what chance may have put there before.
        file.write(bytes([original[5 * MIB + 1] ^ 0xFF]))
        file.flush()
        # Still only in memory: it must be seen all the same.
        assert not same("cnv-000000")
    with open_device(path) as device:
        device.write(4 * 16 * MIB + 8 * MIB, b"y" * 4096)
    assert [(zone.number, zone.content) for zone in diff_snapshots(path, "s")] == [(0, True), (4, None)]
    assert rollback_snapshot(path, "s") == [0, 4]
    assert (path / "cnv-000000").read_bytes() == original
    assert same("cnv-000000")
    assert rollback_snapshot(path, "s") == []


def test_a_mounted_device_is_refused(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    device = device_dir()
    run(ZONEFS_PY, "snapshot", device, "s")
    path = mounted(device)
    for words in (
        ("snapshot", device, "t"),
        ("rollback", device, "s"),
        ("snapshot", path, "t"),
        ("rollback", path, "s"),
    ):
        done = run(ZONEFS_PY, *words, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "unmount it first" in done.stderr or f"give the device, which is {device}" in done.stderr
    assert "s" in run(ZONEFS_PY, "snapshot", "list", device).stdout
    mounted.unmount(path)
    run(ZONEFS_PY, "rollback", device, "s")
    path = mounted(device / ".snapshots/s", "ro")
    assert (path / "seq/0").stat().st_size == 0

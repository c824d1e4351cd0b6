"""The emulated device in a directory: how one is made, and replaces another, as a whole or not at all."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.device.conformance import KIB, geometry, pattern, write_blocks, zone_of
from tests.device.directories import BLOCK, CAPACITY, GEOMETRY, SIZE, Tmpfs, run_python, zone_file
from zonefs_py.device.building import REPLACEMENT, UNFINISHED
from zonefs_py.device.directory import create_device, is_device, open_device
from zonefs_py.errors import DeviceFormatError, DeviceInUse, UserError
from zonefs_py.zone import ZoneCondition, ZoneOp


def test_a_new_device_has_the_layout_of_zloop(path: Path) -> None:
    assert sorted(entry.name for entry in path.iterdir()) == sorted(
        ["device.json", "cnv-000000", "cnv-000001", *(f"seq-{number:06d}" for number in range(2, 8))]
    )
    assert {zone_file(path, number).stat().st_size for number in range(2)} == {SIZE}
    assert {zone_file(path, number).stat().st_size for number in range(2, 8)} == {0}
    assert zone_file(path, 0).stat().st_blocks == 0


def test_the_files_say_what_the_zones_are(path: Path) -> None:
    with open_device(path) as device:
        write_blocks(device, 2, 3)
        device.zone_mgmt(ZoneOp.FINISH, 3)
        write_blocks(device, 4)
        device.zone_mgmt(ZoneOp.RESET, 4)
    assert [zone_file(path, number).stat().st_size for number in range(2, 6)] == [3 * BLOCK, CAPACITY, 0, 0]
    assert zone_file(path, 2).read_bytes() == pattern(2 * SIZE, 3 * BLOCK)


def test_open_zones_are_closed_after_opening_again(path: Path) -> None:
    with open_device(path) as device:
        write_blocks(device, 2)
        device.zone_mgmt(ZoneOp.OPEN, 3)
        write_blocks(device, 4)
        device.zone_mgmt(ZoneOp.OPEN, 4)
        write_blocks(device, 5, 12)
    with open_device(path) as device:
        assert [zone.condition.name for zone in device.report_zones(2, 5)] == [
            "CLOSED",
            "EMPTY",
            "CLOSED",
            "FULL",
            "EMPTY",
        ]
        assert (device.nr_open_zones, device.nr_active_zones) == (0, 2)


def test_an_occupied_directory_is_refused(path: Path, tmp_path: Path) -> None:
    before = sorted(path.iterdir())
    with pytest.raises(UserError, match="not empty"):
        create_device(path, GEOMETRY)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        create_device(path, GEOMETRY, force=True)
    assert sorted(path.iterdir()) == sorted([*before, path / "notes.txt"])
    open_device(path).close()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="not a directory"):
        create_device(file, GEOMETRY)


def test_links_are_never_followed_when_a_device_is_replaced(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    zone_file(path, 3).unlink()
    zone_file(path, 3).symlink_to(precious)
    with pytest.raises(UserError, match="seq-000003"):
        create_device(path, GEOMETRY, force=True)
    assert precious.read_text() == "mine"


def test_a_device_is_replaced_as_a_whole(path: Path) -> None:
    with open_device(path) as device:
        write_blocks(device, 2)
        device.force_condition(3, ZoneCondition.OFFLINE)
    create_device(path, geometry(zones=4, conventional=1), force=True)
    assert len(list(path.iterdir())) == 5
    with open_device(path) as device:
        assert [zone.condition.name for zone in device.report_zones()] == ["NOT_WP", "EMPTY", "EMPTY", "EMPTY"]


def test_a_device_in_use_is_not_replaced(path: Path) -> None:
    with open_device(path) as device:
        write_blocks(device, 2)
        with pytest.raises(DeviceInUse):
            create_device(path, GEOMETRY, force=True)
        assert device.read(2 * SIZE, BLOCK) == pattern(2 * SIZE, BLOCK)
    open_device(path).close()


KILLED_CREATION = """
import os, signal, sys
from zonefs_py.device.directory import create_device
from zonefs_py.zone import Geometry

def progress(done):
    if done >= 512:
        os.kill(os.getpid(), signal.SIGKILL)

create_device(sys.argv[1], Geometry(1 << 20, 1 << 20, 2000, 4, 4096, 1 << 20), force=True, progress=progress)
"""


def test_a_creation_that_is_killed_leaves_no_device(tmp_path: Path) -> None:
    target = tmp_path / "new"
    assert run_python(KILLED_CREATION, target).returncode == -signal.SIGKILL
    assert not is_device(target)
    with pytest.raises(DeviceFormatError, match=r"no device\.json"):
        open_device(target)
    with pytest.raises(UserError, match="not empty"):
        create_device(target, GEOMETRY)
    create_device(target, GEOMETRY, force=True)
    assert len(list(target.iterdir())) == 9
    open_device(target).close()


def content(path: Path) -> dict[str, bytes | None]:
    """All that is in a directory; None stands for a directory."""
    return {str(p.relative_to(path)): None if p.is_dir() else p.read_bytes() for p in sorted(path.rglob("*"))}


def filled(path: Path) -> dict[str, bytes | None]:
    """Write to the device *path*; return its content."""
    with open_device(path) as device:
        write_blocks(device, 2, 5)
        device.write(0, pattern(0, BLOCK))
        device.force_condition(3, ZoneCondition.OFFLINE)
    return content(path)


def test_a_replacement_that_is_killed_leaves_the_old_device(path: Path) -> None:
    before = filled(path)
    assert run_python(KILLED_CREATION, path).returncode == -signal.SIGKILL
    assert {name: data for name, data in content(path).items() if not name.startswith(UNFINISHED)} == before
    with open_device(path) as device:
        assert device.read(2 * SIZE, BLOCK) == pattern(2 * SIZE, BLOCK)
    with open_device(path, read_only=True) as device:
        assert zone_of(device, 3).condition is ZoneCondition.OFFLINE
    # What the killed one left goes with the next.
    create_device(path, GEOMETRY, force=True)
    assert len(content(path)) == 9


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["ctrl-c", "full"])
def test_a_replacement_that_fails_leaves_the_old_device(path: Path, cause: BaseException) -> None:
    before = filled(path)

    def fail(done: int) -> None:
        raise cause

    with pytest.raises(type(cause)):
        create_device(path, geometry(zones=600), force=True, progress=fail)
    assert content(path) == before


@pytest.mark.parametrize("options", ["size=1m,nr_inodes=20", "size=80k,nr_inodes=100"])
def test_a_replacement_that_does_not_fit_leaves_the_old_device(tmpfs: Tmpfs, options: str) -> None:
    """Out of inodes, and out of space for the new device.json; the message names the directory."""
    root = tmpfs(options)
    create_device(root / "disk", GEOMETRY)
    before = filled(root / "disk")
    if "80k" in options:
        with pytest.raises(OSError, match="No space"):
            (root / "filler").write_bytes(bytes(80 * KIB))
    with pytest.raises(OSError, match=str(root / "disk")):
        create_device(root / "disk", geometry(zones=10), force=True)
    assert content(root / "disk") == before


OTHER_MOUNT = "size=1m"


def test_a_mount_point_is_replaced_too(tmpfs: Tmpfs) -> None:
    """The directory of a device may be one that cannot be renamed, or whose parent cannot be written."""
    root = tmpfs(OTHER_MOUNT)
    identity = root.stat().st_ino
    create_device(root, GEOMETRY)
    create_device(root, geometry(zones=4), force=True)
    assert root.stat().st_ino == identity
    with open_device(root) as device:
        assert device.info.nr_zones == 4


@pytest.mark.parametrize("moved", range(8))
@pytest.mark.parametrize("by", ["open", "create"])
def test_a_replacement_that_was_decided_is_finished(path: Path, tmp_path: Path, moved: int, by: str) -> None:
    """From the renaming of its directory on the new device is the one, however far the rest has come."""
    filled(path)
    new = tmp_path / "new"
    create_device(new, geometry(zones=5, conventional=1), serial="new")
    with open_device(new) as device:
        write_blocks(device, 2, 3)
    expected = content(new)
    new.rename(path / REPLACEMENT)
    names = [f"seq-{number:06d}" for number in range(1, 5)] + ["cnv-000000", "device.json"]
    for name in names[:moved]:
        (path / REPLACEMENT / name).rename(path / name)
    if moved == 7:
        (path / REPLACEMENT).rmdir()
        for old in ("cnv-000001", *(f"seq-{number:06d}" for number in range(5, 8))):
            (path / old).unlink()
    else:
        with pytest.raises(DeviceFormatError, match=f"{path} was being replaced"):
            open_device(path, read_only=True)
    if by == "create":
        create_device(path, GEOMETRY, force=True)
        assert len(content(path)) == 9
        return
    with open_device(path) as device:
        assert device.info.serial == "new"
        assert device.read(2 * SIZE, 3 * BLOCK) == pattern(2 * SIZE, 3 * BLOCK)
    if moved < 6:
        assert content(path) == expected


@pytest.mark.parametrize("existed", [False, True])
def test_a_creation_that_is_interrupted_leaves_nothing(tmp_path: Path, existed: bool) -> None:
    target = tmp_path / "new"
    if existed:
        target.mkdir()

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_device(target, geometry(zones=600), progress=interrupt)
    assert target.exists() == existed
    assert not existed or not list(target.iterdir())

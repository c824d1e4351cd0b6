"""Snapshots: what a rollback restores, what it leaves alone, and what is there when it is cut short anywhere."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.device.test_clone import MIXED, everything, fill, told
from zonefs_py.device import building, snapshots
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.file_comparison import same_content, same_extents
from zonefs_py.device.snapshots import (
    create_snapshot,
    delete_snapshot,
    diff_snapshots,
    list_snapshots,
    rollback_snapshot,
)
from zonefs_py.errors import DeviceError, DeviceFormatError, DeviceInUse, DeviceReadOnly, UserError
from zonefs_py.zone import Geometry, Zone, ZoneCondition, ZoneOp

BLOCK = 4096


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device whose zones are in all conditions."""
    path = tmp_path / "d"
    create_device(path, MIXED, max_open_zones=5)
    with open_device(path) as opened:
        fill(opened)
    return path


State = tuple[list[Zone], list[bytes]]


def state(path: Path) -> State:
    """All that a closed device tells, and holds where it can be read."""
    with open_device(path, read_only=True) as opened:
        return [told(zone) for zone in opened.report_zones()], everything(opened)


def change(path: Path) -> set[int]:
    """Do to the device of `fill` whatever changes a zone; return which have changed."""
    with open_device(path) as opened:
        zones = opened.report_zones()
        opened.write(zones[0].start, b"\1" * BLOCK)
        for zone in zones:
            if zone.condition is ZoneCondition.CLOSED:
                opened.write(zone.wp, b"\2" * BLOCK)
                grown = zone.number
                break
        full = [zone.number for zone in zones if zone.condition is ZoneCondition.FULL]
        opened.zone_mgmt(ZoneOp.RESET, full[0])
        opened.force_condition(zones[-1].number, ZoneCondition.OFFLINE)
    return {0, grown, full[0], zones[-1].number}


def test_a_rollback_restores_everything(device: Path) -> None:
    before = state(device)
    create_snapshot(device, "before")
    changed = change(device)
    assert state(device) != before
    put_back = rollback_snapshot(device, "before")
    assert state(device) == before
    # The last zone was only forced: its file is what it was.
    assert set(put_back) == changed - {MIXED.nr_zones - 1}
    # And the snapshot is still what it was.
    change(device)
    rollback_snapshot(device, "before")
    assert state(device) == before


def test_a_snapshot_is_a_device_for_reading(device: Path) -> None:
    made = create_snapshot(device, "s")
    assert state(made.path) == state(device)
    with pytest.raises(DeviceReadOnly, match="is a snapshot: mount it with -o ro"):
        open_device(made.path)
    with pytest.raises(DeviceReadOnly, match="is a snapshot"):
        create_snapshot(made.path, "of-it")
    with pytest.raises(DeviceReadOnly, match="is a snapshot"):
        create_device(made.path, MIXED, force=True)


def test_nothing_is_written_where_nothing_has_changed(device: Path) -> None:
    create_snapshot(device, "s")
    inodes = {path.name: path.stat().st_ino for path in device.iterdir()}
    assert rollback_snapshot(device, "s") == []
    assert {path.name: path.stat().st_ino for path in device.iterdir()} == inodes


def test_times_are_not_trusted(device: Path) -> None:
    create_snapshot(device, "s")
    before = state(device)
    file = device / "cnv-000000"
    times = file.stat()
    with file.open("r+b") as opened:
        opened.seek(BLOCK)
        opened.write(b"changed behind our back")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [(zone.number, zone.content) for zone in diff_snapshots(device, "s")] == [(0, True)]
    assert rollback_snapshot(device, "s") == [0]
    assert state(device) == before


def test_holes_stay_holes(tmp_path: Path) -> None:
    path, mib = tmp_path / "d", 1 << 20
    create_device(path, Geometry(64 * mib, 64 * mib, 4, 1, BLOCK, 64 * mib))
    with open_device(path) as opened:
        opened.write(40 * mib, b"x" * BLOCK)
        opened.zone_mgmt(ZoneOp.FINISH, 1)
    made = create_snapshot(path, "s")
    files = list(made.path.iterdir())
    assert len(files) == 5
    assert sum(file.stat().st_blocks for file in files) * 512 < mib
    (path / "cnv-000000").write_bytes(b"")
    rollback_snapshot(path, "s")
    assert (path / "cnv-000000").stat().st_size == 64 * mib
    assert (path / "cnv-000000").stat().st_blocks * 512 < mib


def test_a_damaged_device_is_restored(device: Path) -> None:
    before = state(device)
    create_snapshot(device, "s")
    (device / "device.json").write_text("{")
    (device / "cnv-000001").unlink()
    (device / "seq-000003").unlink()
    (device / "seq-000003").symlink_to("/etc/passwd")
    with pytest.raises(DeviceFormatError):
        open_device(device)
    assert rollback_snapshot(device, "s") == [1, 3]
    assert state(device) == before


def test_a_device_that_was_replaced_comes_back(device: Path) -> None:
    before = state(device)
    create_snapshot(device, "s")
    create_device(device, Geometry(1 << 20, 1 << 20, 20, 0, 512, 1 << 20), force=True)
    assert [one.name for one in list_snapshots(device)] == ["s"]
    with pytest.raises(UserError, match="other zones"):
        diff_snapshots(device, "s")
    rollback_snapshot(device, "s")
    assert state(device) == before
    assert len(list(device.glob("*-*"))) == MIXED.nr_zones


def test_differences(device: Path) -> None:
    create_snapshot(device, "one")
    assert diff_snapshots(device, "one") == []
    changed = change(device)
    create_snapshot(device, "two")
    found = {zone.number: zone for zone in diff_snapshots(device, "one")}
    assert set(found) == changed
    assert diff_snapshots(device, "one", "two") == list(found.values())
    assert found[0].content is True
    assert found[0].old == found[0].new
    last = found[MIXED.nr_zones - 1]
    assert (last.old.condition, last.new.condition) == (ZoneCondition.EMPTY, ZoneCondition.OFFLINE)
    assert last.content is False
    sequential = [zone for number, zone in found.items() if number not in (0, last.number)]
    assert {zone.content for zone in sequential} == {None}
    assert any(zone.new.wpoffset == 0 and zone.old.condition is ZoneCondition.FULL for zone in sequential)
    rollback_snapshot(device, "one")
    assert diff_snapshots(device, "one") == []
    assert {zone.number for zone in diff_snapshots(device, "two")} == changed


def test_snapshots_are_listed_by_age_and_deleted(device: Path) -> None:
    assert list_snapshots(device) == []
    for name in ("b", "a", "c-1_2.3"):
        create_snapshot(device, name)
        os.utime(device / ".snapshots" / name / "device.json", (len(list_snapshots(device)), 5 + len(name)))
    with open_device(device):
        # What only has to do with snapshots does not wait for a mount to end.
        assert {one.name for one in list_snapshots(device)} == {"a", "b", "c-1_2.3"}
        delete_snapshot(device, "a")
    assert [one.name for one in list_snapshots(device)] == ["b", "c-1_2.3"]
    assert sorted(os.listdir(device / ".snapshots")) == ["b", "c-1_2.3"]


def test_a_device_in_use_is_refused(device: Path) -> None:
    create_snapshot(device, "s")
    with open_device(device):
        for refused in (
            lambda: create_snapshot(device, "t"),
            lambda: rollback_snapshot(device, "s"),
            lambda: diff_snapshots(device, "s"),
        ):
            with pytest.raises(DeviceInUse, match=rf"in use by pid {os.getpid()}; .*unmount it first"):
                refused()
    with (
        open_device(device / ".snapshots/s", read_only=True),
        pytest.raises(DeviceInUse, match="snapshots/s is in use"),
    ):
        delete_snapshot(device, "s")
    assert [one.name for one in list_snapshots(device)] == ["s"]


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "-x", "a" * 65, "ä", "a\n", "../d"])
def test_bad_names(name: str, device: Path) -> None:
    for act in (create_snapshot, rollback_snapshot, delete_snapshot, diff_snapshots):
        with pytest.raises(UserError, match="cannot be the name of a snapshot"):
            act(device, name)
    assert not (device / ".snapshots").exists()


def test_what_is_not_there(device: Path, tmp_path: Path) -> None:
    for act in (rollback_snapshot, delete_snapshot, diff_snapshots):
        with pytest.raises(UserError, match="has no snapshots"):
            act(device, "s")
    create_snapshot(device, "s")
    with pytest.raises(UserError, match="has a snapshot 's' already"):
        create_snapshot(device, "s")
    for act in (rollback_snapshot, delete_snapshot, diff_snapshots):
        with pytest.raises(UserError, match="has no snapshot 't'; 'zonefs-py snapshot list"):
            act(device, "t")
    with pytest.raises(DeviceFormatError, match="does not exist"):
        list_snapshots(tmp_path / "none")
    with pytest.raises(DeviceFormatError, match="not an emulated device"):
        list_snapshots(tmp_path)


def test_a_damaged_snapshot_changes_nothing(device: Path) -> None:
    made = create_snapshot(device, "s")
    change(device)
    before = state(device)
    (made.path / "seq-000002").unlink()
    with pytest.raises(DeviceFormatError, match=re.escape(f"{made.path}/seq-000002 is missing")):
        rollback_snapshot(device, "s")
    assert state(device) == before


def test_owner_and_mode_are_kept(device: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away; run as root")
    for file in (device, *device.iterdir()):
        os.chown(file, 1234, 2345)
        file.chmod(0o750 if file.is_dir() else 0o640)
    create_snapshot(device, "s")
    change(device)
    rollback_snapshot(device, "s")
    for file in (device, *device.rglob("*")):
        if file.name != "device.json":
            assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345), file
            assert stat.S_IMODE(file.stat().st_mode) == (0o750 if file.is_dir() else 0o640), file
    # Whoever changes a zone's condition replaces device.json: that of root can be read, and replaced, by the owner.
    assert (device / "device.json").stat().st_mode & 0o444 == 0o444


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Makes the *last* th system call that changes a directory or a file the one at which the process ends."""

    CALLS = ("mkdir", "rename", "rmdir", "unlink", "open", "ftruncate", "fsync", "copy_file_range")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        self.left = last
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))
        # What cleans up after an exception does not run in a process that is killed.
        monkeypatch.setattr(shutil, "rmtree", self._dead(shutil.rmtree))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return call(*args, **more)

        return counted

    def _dead(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def dead(*args: Any, **more: Any) -> Any:
            if self.left == 0:
                raise Killed
            return call(*args, **more)

        return dead


def killed_at_every_call(
    device: Path, work: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Copies of *device*, in each of which *work* was killed one call later."""
    for last in range(10_000):
        copy = tmp_path / f"killed{last}"
        shutil.copytree(device, copy)
        with monkeypatch.context() as patched:
            Killer(patched, last)
            try:
                work(copy)
                finished = True
            except Killed:
                finished = False
        yield copy
        shutil.rmtree(copy)
        if finished:
            assert last > 20
            return


def test_a_rollback_that_is_killed_leaves_old_or_new(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = state(device)
    create_snapshot(device, "s")
    change(device)
    new = state(device)
    seen = set()
    for copy in killed_at_every_call(device, lambda path: rollback_snapshot(path, "s"), tmp_path, monkeypatch):
        open_device(copy).close()
        found = state(copy)
        assert found in (old, new)
        seen.add(found == old)
        assert state(copy / ".snapshots/s") == old
        rollback_snapshot(copy, "s")
        assert state(copy) == old
        assert not (copy / building.UNFINISHED).exists()
    assert seen == {True, False}


def test_a_snapshot_whose_making_is_killed_is_not_there(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(device)
    for copy in killed_at_every_call(device, lambda path: create_snapshot(path, "s"), tmp_path, monkeypatch):
        assert state(copy) == before
        if list_snapshots(copy):
            assert state(copy / ".snapshots/s") == before
            delete_snapshot(copy, "s")
        create_snapshot(copy, "s")
        assert state(copy / ".snapshots/s") == before
        assert os.listdir(copy / ".snapshots") == ["s"]


def test_deleting_that_is_killed_leaves_all_or_nothing(device: Path, tmp_path: Path) -> None:
    before = state(device)
    create_snapshot(device, "s")
    # What a killed deletion leaves, as well as a killed creation: a part of a snapshot that is not called so.
    os.rename(device / ".snapshots/s", device / ".snapshots" / snapshots._UNFINISHED)
    (device / ".snapshots" / snapshots._UNFINISHED / "seq-000002").unlink()
    assert list_snapshots(device) == []
    create_snapshot(device, "s")
    assert state(device / ".snapshots/s") == before


def test_a_full_host_changes_nothing(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> bool:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zonefs_py.device.host_copy.copy_out", full)
        with pytest.raises(OSError, match="No space left"):
            create_snapshot(device, "s")
    assert not (device / ".snapshots").exists()
    create_snapshot(device, "s")
    change(device)
    before = state(device)
    monkeypatch.setattr("zonefs_py.device.host_copy.copy_out", full)
    with pytest.raises(OSError, match="No space left"):
        rollback_snapshot(device, "s")
    with pytest.raises(OSError, match="No space left"):
        create_snapshot(device, "t")
    assert state(device) == before
    assert os.listdir(device / ".snapshots") == ["s"]
    assert not (device / building.UNFINISHED).exists()


def test_without_any_help_of_the_host(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zonefs_py.device.host_copy.copy_out", lambda *args: False)
    before = state(device)
    create_snapshot(device, "s", sync=False)
    change(device)
    rollback_snapshot(device, "s", sync=False)
    assert state(device) == before


steps = st.lists(
    st.tuples(st.sampled_from(["write", "reset", "finish", "offline", "online"]), st.integers(0, 7)), max_size=6
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=steps, second=steps)
def test_any_changes_are_rolled_back(
    first: list[tuple[str, int]], second: list[tuple[str, int]], tmp_path: Path
) -> None:
    path = tmp_path / "any"
    shutil.rmtree(path, ignore_errors=True)
    create_device(path, Geometry(16 * 1024, 12 * 1024, 8, 2, BLOCK, 16 * 1024))
    do(path, first)
    before = state(path)
    create_snapshot(path, "s", sync=False)
    do(path, second)
    after = state(path)
    # No report tells how far an offline zone was written, and nobody can read it.
    differing = {one.number for one, other in zip(before[0], after[0], strict=True) if one != other}
    told_of = {zone.number for zone in diff_snapshots(path, "s")}
    assert differing <= told_of
    assert told_of or before == after
    rollback_snapshot(path, "s", sync=False)
    assert state(path) == before


def do(path: Path, steps: list[tuple[str, int]]) -> None:
    with open_device(path) as opened:
        for count, (what, number) in enumerate(steps):
            zone = opened.report_zones(number, 1)[0]
            if what in ("offline", "online"):
                opened.force_condition(number, ZoneCondition.OFFLINE if what == "offline" else None)
            elif zone.condition is ZoneCondition.OFFLINE:
                continue
            elif what == "write":
                place = zone.start if zone.is_conventional else zone.wp
                if zone.condition is not ZoneCondition.FULL:
                    opened.write(place, bytes([count + 1]) * BLOCK)
            elif not zone.is_conventional:
                opened.zone_mgmt(ZoneOp[what.upper()], number)


def test_files_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    contents = [b"", b"a" * 5000, b"a" * 4999 + b"b", bytes(5000), b"a" * 5001]
    for one in contents:
        for other in contents:
            (tmp_path / "one").write_bytes(one)
            (tmp_path / "other").write_bytes(other)
            with (tmp_path / "one").open("rb") as first, (tmp_path / "other").open("rb") as second:
                assert same_content(first.fileno(), second.fileno()) is (one == other)
                if one != other and len(one) == len(other):
                    assert not same_extents(first.fileno(), second.fileno())


def test_a_hole_is_zeros(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 20)
    with (tmp_path / "hole").open("rb") as hole, (tmp_path / "zeros").open("rb") as zeros:
        assert same_content(hole.fileno(), zeros.fileno())
        assert same_content(zeros.fileno(), hole.fileno())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which alone can be led astray; run the tests as root")
@pytest.mark.parametrize("instead", ["link", "theirs", "open to all", "not empty"])
def test_root_writes_to_no_directory_but_its_own(instead: str, tmp_path: Path) -> None:
    """Whoever owns a device can swap what root makes in it at any moment: so it is looked at once it is open."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    parent = tmp_path / "snapshots"
    parent.mkdir()
    os.chown(parent, 65534, 65534)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(building.make_directory(descriptor, "made"))
        if instead == "link":
            (parent / "swapped").symlink_to(elsewhere)
        else:
            (parent / "swapped").mkdir(mode=0o777 if instead == "open to all" else 0o700)
        if instead == "theirs":
            os.chown(parent / "swapped", 65534, 65534)
        elif instead == "open to all":
            (parent / "swapped").chmod(0o777)
        elif instead == "not empty":
            (parent / "swapped" / "seq-000001").symlink_to(elsewhere / "target")
        with pytest.raises(UserError, match="swapped was changed by somebody else"):
            building.open_made(descriptor, "swapped")
    finally:
        os.close(descriptor)


def test_a_description_is_not_written_through_a_link(device: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (device / f".device.json.{os.getpid()}").symlink_to(target)
    with open_device(device) as opened, pytest.raises(DeviceError, match="symbolic links"):
        opened.force_condition(MIXED.nr_zones - 1, ZoneCondition.OFFLINE)
    assert target.read_text() == "precious"

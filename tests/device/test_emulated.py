"""The emulated device in a directory: what it refuses to open, who may have it, how it fares when the host fails."""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.descriptors import files_at_most, opened
from zonefs_py.device.building import REPLACEMENT, UNFINISHED
from zonefs_py.device.descriptors import DescriptorCache
from zonefs_py.device.directory import create_device, is_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.errors import (
    DeviceError,
    DeviceFormatError,
    DeviceInUse,
    DeviceReadOnly,
    HostFull,
    OpenZonesExhausted,
    UserError,
)
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition, ZoneOp

from .conformance import KIB, geometry, pattern, write_blocks, zone_of

GEOMETRY = geometry(conventional=2, capacity=48 * KIB)
SIZE = GEOMETRY.zone_size
CAPACITY = GEOMETRY.zone_capacity
BLOCK = GEOMETRY.block_size
FIRST = 2
"""The first sequential zone."""

MIB = 1024 * KIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A device with two conventional and six sequential zones."""
    path = tmp_path / "disk"
    create_device(path, GEOMETRY, serial="s1")
    return path


def zone_file(path: Path, number: int) -> Path:
    """The file of a zone."""
    return path / f"{'cnv' if number < 2 else 'seq'}-{number:06d}"


def run_python(program: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run *program* in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


# Making


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


# Opening what is damaged


def damage(how: Callable[[Path], object], named: str, says: str) -> object:
    """A damage, the file that the refusal names, and a word of it."""
    return pytest.param(how, named, says, id=f"{named}-{says.replace(' ', '-')}")


def replaced_by_link(path: Path) -> None:
    zone_file(path, 3).unlink()
    zone_file(path, 3).symlink_to(zone_file(path, 4))


def dangling_link(path: Path) -> None:
    zone_file(path, 0).unlink()
    zone_file(path, 0).symlink_to("/nowhere")


def replaced_by_directory(path: Path) -> None:
    zone_file(path, 3).unlink()
    zone_file(path, 3).mkdir()


def replaced_by_pipe(path: Path) -> None:
    zone_file(path, 0).unlink()
    os.mkfifo(zone_file(path, 0))


def replaced_by_socket(path: Path) -> None:
    zone_file(path, 7).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(path)
        try:
            listener.bind("seq-000007")
        finally:
            os.chdir(before)


def of_the_other_type(path: Path) -> None:
    zone_file(path, 2).rename(path / "cnv-000002")


def unnumbered(path: Path) -> None:
    zone_file(path, 2).rename(path / "seq-2")


DAMAGES = [
    damage(lambda path: zone_file(path, 3).unlink(), "seq-000003", "missing"),
    damage(lambda path: zone_file(path, 0).unlink(), "cnv-000000", "missing"),
    damage(of_the_other_type, "seq-000002", "missing"),
    damage(unnumbered, "seq-000002", "missing"),
    damage(replaced_by_link, "seq-000003", "not a regular file"),
    damage(dangling_link, "cnv-000000", "not a regular file"),
    damage(replaced_by_directory, "seq-000003", "not a regular file"),
    damage(replaced_by_pipe, "cnv-000000", "not a regular file"),
    damage(replaced_by_socket, "seq-000007", "not a regular file"),
    damage(lambda path: os.truncate(zone_file(path, 3), CAPACITY + 1), "seq-000003", str(CAPACITY)),
    damage(lambda path: os.truncate(zone_file(path, 3), SIZE), "seq-000003", str(CAPACITY)),
    damage(lambda path: os.truncate(zone_file(path, 1), SIZE + BLOCK), "cnv-000001", str(SIZE)),
    damage(lambda path: os.truncate(zone_file(path, 1), SIZE - BLOCK), "cnv-000001", str(SIZE)),
    damage(lambda path: os.truncate(zone_file(path, 0), 0), "cnv-000000", str(SIZE)),
]


def listing(path: Path) -> list[tuple[str, int, int]]:
    """Names, types and sizes in a directory."""
    return sorted((entry.name, entry.lstat().st_mode, entry.lstat().st_size) for entry in path.iterdir())


@pytest.mark.parametrize("read_only", [False, True], ids=["rw", "ro"])
@pytest.mark.parametrize(("how", "named", "says"), DAMAGES)
def test_a_damaged_zone_file_is_named(
    path: Path, how: Callable[[Path], object], named: str, says: str, read_only: bool
) -> None:
    how(path)
    before = listing(path)
    with pytest.raises(DeviceFormatError) as raised:
        open_device(path, read_only=read_only)
    message = str(raised.value)
    assert named in message
    assert says in message
    assert "\n" not in message
    assert listing(path) == before
    # The lock is gone with the refusal.
    with pytest.raises(DeviceFormatError):
        open_device(path)


def write_text(text: str) -> Callable[[Path], object]:
    """A damage: other content for device.json."""
    return lambda file: file.write_text(text)


def link_to_itself(file: Path) -> None:
    file.rename(file.with_name("real"))
    file.symlink_to("real")


def make_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def make_huge(file: Path) -> None:
    os.truncate(file, 1 << 40)


@pytest.mark.parametrize(
    "how",
    [
        Path.unlink,
        write_text(""),
        write_text("{}"),
        write_text('{"format": "zloop"}'),
        lambda file: os.truncate(file, file.stat().st_size // 2),
        lambda file: file.write_bytes(b"\0" * 500),
        link_to_itself,
        make_directory,
        make_pipe,
        make_huge,
    ],
    ids=["missing", "empty", "object", "foreign", "truncated", "zeros", "link", "directory", "pipe", "huge"],
)
def test_a_damaged_description_is_named(path: Path, how: Callable[[Path], object]) -> None:
    how(path / "device.json")
    for read_only in (False, True):
        with pytest.raises(DeviceFormatError, match=r"device\.json") as raised:
            open_device(path, read_only=read_only)
        assert "\n" not in str(raised.value)


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(DeviceFormatError, match="does not exist"):
        open_device(tmp_path / "nothing")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DeviceFormatError, match="not a directory"):
            open_device(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeviceFormatError, match=r"no device\.json"):
        open_device(tmp_path / "empty")


def test_a_description_of_more_zones_than_there_are(path: Path) -> None:
    content = json.loads((path / "device.json").read_text())
    (path / "device.json").write_text(json.dumps(content | {"nr_zones": 9}))
    with pytest.raises(DeviceFormatError, match="seq-000008"):
        open_device(path)


def test_other_files_in_the_directory_do_no_harm(path: Path) -> None:
    (path / "notes.txt").write_text("mine")
    (path / "seq-000099").touch()
    with open_device(path) as device:
        write_blocks(device, FIRST)
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("more", "blocks"), [(1, 0), (511, 2), (BLOCK - 1, 5), (BLOCK // 2, 11)])
def test_half_a_block_at_the_end_is_cut_off(
    path: Path, more: int, blocks: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = zone_file(path, 3)
    file.write_bytes(pattern(0, blocks * BLOCK) + b"x" * more)
    with open_device(path, read_only=True) as device:
        assert zone_of(device, 3).wp == 3 * SIZE + blocks * BLOCK
        assert device.read(3 * SIZE, SIZE)[: blocks * BLOCK] == pattern(0, blocks * BLOCK)
    assert file.stat().st_size == blocks * BLOCK + more
    assert not caplog.records
    with caplog.at_level(logging.WARNING), open_device(path) as device:
        assert zone_of(device, 3).wp == 3 * SIZE + blocks * BLOCK
        assert device.read(3 * SIZE, SIZE) == pattern(0, blocks * BLOCK) + bytes(SIZE - blocks * BLOCK)
        write_blocks(device, 3)
    (record,) = caplog.records
    assert "seq-000003" in record.getMessage()
    assert f"from {blocks * BLOCK + more} to {blocks * BLOCK}" in record.getMessage()
    assert file.stat().st_size == (blocks + 1) * BLOCK


# Who may have it

HOLDER = """
import sys
from zonefs_py.device.directory import open_device
with open_device(sys.argv[1], read_only=sys.argv[2] == "ro") as device:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path, str], int]]:
    """A function that opens a device in another process (``"rw"`` or ``"ro"``) and returns its pid."""
    processes: list[subprocess.Popen[str]] = []

    def hold(path: Path, how: str) -> int:
        command = [sys.executable, "-c", HOLDER, str(path), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process.pid

    yield hold
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0


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


def needs_root(why: str) -> None:
    """Skip the test where this user cannot do what it needs."""
    if os.geteuid() != 0:
        pytest.skip(f"{why}: run as root")


class Tmpfs:
    """Mounts small file systems; all are unmounted at the end of the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mounted: list[Path] = []

    def __call__(self, options: str) -> Path:
        path = self._directory / f"tmpfs{len(self._mounted)}"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "zonefs-py-test", path], check=True, timeout=30)
        self._mounted.append(path)
        return path

    def unmount(self) -> None:
        for path in self._mounted:
            subprocess.run(["umount", path], check=True, timeout=30)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Tmpfs]:
    """A function that mounts a tmpfs with the options given and returns where."""
    needs_root("mounting a tmpfs")
    mounts = Tmpfs(tmp_path)
    yield mounts
    mounts.unmount()


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


# Many zones, few descriptors


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_the_cache_keeps_few_descriptors_open(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_text(str(number))
    before = open_descriptors()
    cache = DescriptorCache(lambda number: os.open(tmp_path / str(number), os.O_RDONLY), limit=3)
    for _ in range(3):
        for number in range(10):
            assert os.pread(cache.acquire(number), 10, 0) == str(number).encode()
            cache.release(number)
            assert open_descriptors() <= before + 3
    # The one that was used last stays the same.
    descriptor = cache.acquire(9)
    cache.release(9)
    assert cache.acquire(9) == descriptor
    # What is held is never closed, even if that makes too many.
    held = {9: descriptor} | {number: cache.acquire(number) for number in range(5)}
    assert open_descriptors() == before + 6
    for number, one in held.items():
        assert os.pread(one, 10, 0) == str(number).encode()
        cache.release(number)
    for number in range(10):
        cache.acquire(number)
        cache.release(number)
    cache.close()
    assert open_descriptors() == before


def test_the_cache_passes_errors_on(tmp_path: Path) -> None:
    cache = DescriptorCache(lambda number: os.open(tmp_path / str(number), os.O_RDONLY), limit=1)
    (tmp_path / "1").touch()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            cache.acquire(0)
        cache.acquire(1)
        cache.release(1)
    cache.close()


def test_the_cache_is_safe_for_threads(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_text(str(number))
    cache = DescriptorCache(lambda number: os.open(tmp_path / str(number), os.O_RDONLY), limit=4)
    wrong: list[object] = []

    def read(first: int) -> None:
        try:
            for more in range(500):
                number = (first + more * 7) % 20
                data = os.pread(cache.acquire(number), 10, 0)
                cache.release(number)
                if data != str(number).encode():
                    wrong.append((number, data))
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert not wrong


FEW_FILES = """
import os, resource, sys, threading
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.zone import Geometry, ZoneOp
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
ZONES = 300
create_device(sys.argv[1], Geometry(65536, 65536, ZONES, 2, 4096, 65536))
device = open_device(sys.argv[1])
def work(first):
    for number in range(first, ZONES, 4):
        device.write(number * 65536, number.to_bytes(4096, "big"))
threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
device.flush()
for number in range(0, ZONES):
    assert device.read(number * 65536, 4096) == number.to_bytes(4096, "big")
assert len(os.listdir("/proc/self/fd")) < 50
for number in range(2, ZONES):
    device.zone_mgmt(ZoneOp.FINISH, number)
device.close()
with open_device(sys.argv[1]) as device:
    assert all(zone.condition.name == "FULL" for zone in device.report_zones(2))
print("fine")
"""


def test_more_zones_than_a_process_may_have_files(tmp_path: Path) -> None:
    done = run_python(FEW_FILES, tmp_path / "disk")
    assert (done.stdout, done.stderr) == ("fine\n", "")


# Zones that are made to fail


@pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
def test_forced_conditions_stay(path: Path, condition: ZoneCondition) -> None:
    numbers = [1, 2, 3, 4]
    with open_device(path) as device:
        write_blocks(device, 3)
        write_blocks(device, 4, 12)
        device.force_conditions(numbers, condition)
    with open_device(path) as device:
        assert {device.report_zones()[number].condition for number in numbers} == {condition}
        device.force_condition(1, None)
        device.force_condition(3, None)
    with open_device(path) as device:
        conditions = [zone.condition for zone in device.report_zones(1, 4)]
        assert conditions == [ZoneCondition.NOT_WP, condition, ZoneCondition.CLOSED, condition]
        device.force_conditions(numbers, None)
        assert zone_of(device, 4).condition is ZoneCondition.FULL
        assert device.read(3 * SIZE, BLOCK) == pattern(3 * SIZE, BLOCK)
    assert json.loads((path / "device.json").read_text())["conditions"] == {}


def test_healthy_zones_are_not_touched_by_going_back_to_normal(path: Path) -> None:
    """``zone online --all`` on a mount must not close the zones that the file system holds open."""
    with open_device(path) as device:
        device.zone_mgmt(ZoneOp.OPEN, 2)
        device.zone_mgmt(ZoneOp.OPEN, 3)
        write_blocks(device, 3)
        write_blocks(device, 4)
        device.force_condition(5, ZoneCondition.OFFLINE)
        before = device.report_zones()
        device.force_conditions(range(8), None)
        after = device.report_zones()
        assert after[5].condition is ZoneCondition.EMPTY
        assert after[:5] == before[:5]


def test_wrong_orders_change_nothing(path: Path) -> None:
    with open_device(path) as device:
        zones = device.report_zones()
        for numbers, condition in (
            ([2, 8], ZoneCondition.OFFLINE),
            ([-1], ZoneCondition.OFFLINE),
            ([2], ZoneCondition.FULL),
            ([2], ZoneCondition.EMPTY),
        ):
            with pytest.raises(ValueError, match="zone"):
                device.force_conditions(numbers, condition)
        assert device.report_zones() == zones
    assert json.loads((path / "device.json").read_text())["conditions"] == {}


# The host fails

ROOMY = Geometry(MIB, MIB, 8, 1, BLOCK, MIB)


def test_a_full_host_loses_nothing(tmpfs: Tmpfs) -> None:
    root = tmpfs("size=1536k")
    create_device(root / "disk", ROOMY)
    device = open_device(root / "disk")
    for more in range(0, MIB, 64 * KIB):
        device.write(MIB + more, pattern(more, 64 * KIB))

    def write_the_next_zone() -> None:
        for more in range(0, MIB, 80 * KIB):
            device.write(2 * MIB + more, pattern(more, 80 * KIB))

    with pytest.raises(HostFull) as raised:
        write_the_next_zone()
    assert raised.value.errno == errno.ENOSPC
    zone = zone_of(device, 2)
    kept = zone.wp - zone.start
    assert kept % BLOCK == 0
    assert (root / "disk" / "seq-000002").stat().st_size == kept
    assert 0 < kept < MIB
    # What is there is what was written, and nothing more can be.
    assert device.read(2 * MIB, kept) == b"".join(
        pattern(more, min(80 * KIB, kept - more)) for more in range(0, kept, 80 * KIB)
    )
    for _ in range(3):
        with pytest.raises(HostFull):
            device.write(zone.wp, pattern(0, 64 * KIB))
        assert zone_of(device, 2).wp == zone.wp
    with pytest.raises(HostFull):
        device.write(0, pattern(0, MIB))
    device.close()
    device = open_device(root / "disk")
    assert zone_of(device, 2).wp == zone.wp
    assert device.read(MIB, MIB) == b"".join(pattern(more, 64 * KIB) for more in range(0, MIB, 64 * KIB))
    # A reset frees space, and writing goes on where it stopped.
    device.zone_mgmt(ZoneOp.RESET, 1)
    device.write(zone.wp, pattern(kept, MIB - kept))
    assert zone_of(device, 2).condition is ZoneCondition.FULL
    assert device.read(2 * MIB + kept, MIB - kept) == pattern(kept, MIB - kept)
    device.close()


def test_a_full_host_takes_no_new_conditions(tmpfs: Tmpfs) -> None:
    root = tmpfs("size=256k")
    create_device(root / "disk", ROOMY)
    with open_device(root / "disk") as device, (root / "filler").open("wb", buffering=0) as filler:
        space = shutil.disk_usage(root).free
        assert filler.write(bytes(space)) == space
        zones = device.report_zones()
        with pytest.raises(HostFull):
            device.force_condition(3, ZoneCondition.OFFLINE)
        assert device.report_zones() == zones
        os.unlink(root / "filler")
        filler.truncate(0)
        assert not [entry for entry in os.listdir(root / "disk") if entry.startswith(".")]
        device.force_condition(3, ZoneCondition.OFFLINE)
    with open_device(root / "disk") as device:
        assert zone_of(device, 3).condition is ZoneCondition.OFFLINE


@pytest.mark.parametrize("options", ["size=1m,nr_inodes=10", "size=16k,nr_inodes=100"])
def test_a_creation_that_does_not_fit_leaves_nothing(tmpfs: Tmpfs, options: str) -> None:
    root = tmpfs(options)
    if "16k" in options:
        (root / "filler").write_bytes(bytes(16 * KIB))
    with pytest.raises(OSError, match="No space"):
        create_device(root / "disk", geometry(zones=20))
    assert not (root / "disk").exists()


@pytest.mark.parametrize("conventional", [0, 2])
def test_zones_that_no_file_can_hold_are_refused(tmp_path: Path, conventional: int) -> None:
    refused = pytest.raises(
        UserError, match=r"^a zone of 512K is larger than a file can be there: choose smaller zones$"
    )
    with files_at_most(256 * KIB), refused:
        create_device(tmp_path / "disk", Geometry(512 * KIB, 512 * KIB, 4, conventional, 4096, 512 * KIB))
    assert not (tmp_path / "disk").exists()


LIMITED = """
import resource, sys
from zonefs_py.device.directory import open_device
from zonefs_py.errors import DeviceError
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
with open_device(sys.argv[1]) as device:
    device.write(2 * 65536, b"a" * 4096)
    for _ in range(2):
        try:
            device.write(2 * 65536 + device.report_zones(2, 1)[0].data_size, b"b" * 16384)
        except DeviceError as exc:
            print(type(exc).__name__, device.report_zones(2, 1)[0].data_size)
"""


def test_half_a_block_that_the_host_took_is_cut_off(path: Path) -> None:
    done = run_python(LIMITED, path)
    assert (done.stdout, done.stderr) == ("DeviceError 8192\nDeviceError 8192\n", "")
    assert zone_file(path, 2).read_bytes() == b"a" * 4096 + b"b" * 4096


# Somebody changes a zone file behind the device


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


def test_device_json_has_no_other_rights_than_the_zones(path: Path) -> None:
    with open_device(path) as device:
        device.force_condition(3, ZoneCondition.OFFLINE)
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in path.iterdir()}
    assert len(modes) == 1


def test_more_than_one_system_call_can_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """read(2) gives at most 2 GiB - 4 KiB at a time."""
    if not request.config.getoption("--long"):
        pytest.skip("reads 2 GiB: run with --long")
    size = 3 << 30
    create_device(tmp_path / "disk", Geometry(size, size, 2, 2, BLOCK, size))
    with open_device(tmp_path / "disk") as device:
        device.write(2 << 30, pattern(0, BLOCK))
        assert device.read(0, (2 << 30) + BLOCK)[-BLOCK:] == pattern(0, BLOCK)


def test_the_limit_of_descriptors_is_that_of_the_process(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    zones = min(soft // 2, 1000)
    create_device(tmp_path / "disk", geometry(zones=zones))
    before = open_descriptors()
    with open_device(tmp_path / "disk") as device:
        for number in range(zones):
            device.read(number * SIZE, BLOCK)
        assert open_descriptors() <= before + 1 + soft // 2
    assert open_descriptors() == before


def test_other_zones_do_not_wait_for_a_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting a large file takes the host's file system a while."""
    create_device(tmp_path / "disk", GEOMETRY)
    with open_device(tmp_path / "disk") as device:
        first, second = [n for n in range(1, GEOMETRY.nr_zones) if not GEOMETRY.is_conventional(n)][:2]
        zone_size = GEOMETRY.zone_size
        device.write(first * zone_size, bytes(4096))
        cutting, written = threading.Event(), threading.Event()
        truncate = os.ftruncate

        def slow(descriptor: int, size: int) -> None:
            cutting.set()
            assert written.wait(30)
            truncate(descriptor, size)

        monkeypatch.setattr("zonefs_py.device.directory.os.ftruncate", slow)
        resetter = threading.Thread(target=device.zone_mgmt, args=(ZoneOp.RESET, first))
        resetter.start()
        assert cutting.wait(30)
        device.write(second * zone_size, bytes(4096))
        assert device.report_zones(first, 1)[0].condition is not ZoneCondition.EMPTY
        written.set()
        resetter.join(30)
        assert device.report_zones(first, 1)[0].condition is ZoneCondition.EMPTY


def test_a_reflink_waits_for_what_is_not_on_the_disk(path: Path) -> None:
    source, target = FIRST * SIZE, (FIRST + 1) * SIZE

    with open_device(path) as device:

        def waits(source: int, target: int, method: CopyMethod = CopyMethod.REFLINK) -> bool:
            return device.copy_waits([CopyRange(source, target, BLOCK)], method)

        device.write(source, bytes(BLOCK))
        device.write(0, bytes(BLOCK))
        assert waits(source, target)
        assert waits(0, target)
        device.flush(FIRST)
        assert not waits(source, target)
        assert not waits(target, source), "a sequential zone is extended: what was written before does not matter"
        assert waits(source, 0), "in a conventional zone it does"
        assert waits(source, target, CopyMethod.HOST), "the host copies data, and that takes its time"
        device.flush()
        assert not waits(source, 0)


def test_a_backing_file_is_the_zone(path: Path) -> None:
    with open_device(path) as device:
        withdrawn: list[int] = []
        device.watch_backing(withdrawn.extend)
        for number, zone in ((0, 0), (FIRST, FIRST * SIZE)):
            descriptor = device.backing_descriptor(number)
            assert descriptor is not None
            try:
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                    os.pwrite(descriptor, b"x", 0)
                conventional = number == 0
                assert os.fstat(descriptor).st_size == (SIZE if conventional else 0)
                device.write(zone, pattern(zone, 2 * BLOCK))
                assert os.pread(descriptor, 2 * SIZE, 0) == device.read(zone, SIZE if conventional else 2 * BLOCK)
                if not conventional:
                    device.zone_mgmt(ZoneOp.FINISH, number)
                    assert os.pread(descriptor, 2 * SIZE, 0) == device.read(zone, CAPACITY)
                    device.zone_mgmt(ZoneOp.RESET, number)
                    assert os.fstat(descriptor).st_size == 0
                device.force_condition(number, ZoneCondition.READONLY)
                device.force_condition(number, None)
                assert withdrawn == []
                device.force_conditions([number, 5], ZoneCondition.OFFLINE)
                assert withdrawn == [number, 5]
                assert device.backing_descriptor(number) is None
                device.force_conditions([number, 5], None)
                withdrawn.clear()
            finally:
                os.close(descriptor)
        device.watch_backing(None)
        device.force_condition(FIRST, ZoneCondition.OFFLINE)
        assert withdrawn == []


def test_a_backing_file_that_cannot_be_opened_is_an_error_of_the_device(path: Path) -> None:
    with open_device(path) as device:
        zone_file(path, FIRST).rename(path / "elsewhere")
        with pytest.raises(DeviceError):
            device.backing_descriptor(FIRST)


# What has to be made durable

NR_CACHESTAT = 451
"""cachestat(2), since Linux 6.5; the same number on every architecture."""


def dirty_pages(file: Path) -> int:
    """How many pages of a file the host has in memory only. Skips the test where the kernel does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    everything, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    with opened(file, os.O_RDONLY) as descriptor:
        if libc.syscall(NR_CACHESTAT, descriptor, everything, counts, 0):
            pytest.skip(f"cachestat: {os.strerror(ctypes.get_errno())}")
    return counts[1] + counts[2]


def test_a_flush_beside_a_write_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    size = 128 * MIB
    create_device(tmp_path / "disk", Geometry(size, size, 2, 1, BLOCK, size))
    file = tmp_path / "disk" / "seq-000001"
    with open_device(tmp_path / "disk") as device:
        writer = threading.Thread(target=device.write, args=(size, bytes(size)))
        writer.start()
        while not file.stat().st_size:
            assert writer.is_alive() or file.stat().st_size
        device.flush(1)
        writer.join()
        # As an unmount does.
        device.flush()
        assert dirty_pages(file) == 0


def test_a_flush_goes_on_behind_a_zone_that_fails(tmp_path: Path) -> None:
    create_device(tmp_path / "disk", geometry(zones=40, conventional=2))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # So that the device keeps few files open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, limits[1]))
    try:
        device = open_device(tmp_path / "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def waits(number: int) -> bool:
        return device.copy_waits([CopyRange(number * SIZE, 39 * SIZE, BLOCK)], CopyMethod.REFLINK)

    with device:
        device.write(FIRST * SIZE, bytes(BLOCK))
        zone_file(tmp_path / "disk", FIRST).rename(tmp_path / "elsewhere")
        for number in range(FIRST + 1, 39):
            device.write(number * SIZE, bytes(BLOCK))
        for _ in range(2):
            with pytest.raises(DeviceError, match="No such file"):
                device.flush()
            assert [number for number in range(FIRST, 39) if waits(number)] == [FIRST], "what is not on the disk yet"
        (tmp_path / "elsewhere").rename(zone_file(tmp_path / "disk", FIRST))
        device.flush()
        assert not waits(FIRST)


class Disk:
    """Stands in for fdatasync(2), which it calls: counts the calls, and makes one wait if it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushes = 0
        self.waits = threading.Event()
        """Set when a call waits, before it flushes."""
        self.go_on = threading.Event()
        self._flush = os.fdatasync
        self._holds = False
        monkeypatch.setattr(os, "fdatasync", self)

    def hold_next(self) -> None:
        self._holds = True

    def __call__(self, descriptor: int) -> None:
        self.flushes += 1
        if self._holds:
            self._holds = False
            self.waits.set()
            assert self.go_on.wait(60)
        self._flush(descriptor)


def test_a_zone_is_flushed_if_it_may_not_be_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    with open_device(path) as device:
        flushed = []
        for change in (
            lambda: None,  # of who was here before nothing is known
            lambda: None,
            lambda: device.write(FIRST * SIZE, bytes(BLOCK)),
            lambda: device.read(FIRST * SIZE, BLOCK),
            lambda: device.write((FIRST + 1) * SIZE, bytes(BLOCK)),  # another zone
            lambda: device.zone_mgmt(ZoneOp.FINISH, FIRST),
            lambda: device.zone_mgmt(ZoneOp.RESET, FIRST),
            lambda: device.copy([CopyRange((FIRST + 1) * SIZE, FIRST * SIZE, BLOCK)], CopyMethod.HOST),
        ):
            change()
            before = disk.flushes
            device.flush(FIRST)
            flushed.append(disk.flushes - before)
    assert flushed == [1, 0, 1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("number", [FIRST, None], ids=["of the zone", "of all"])
def test_a_flush_does_not_return_before_one_that_took_its_data(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    disk = Disk(monkeypatch)
    with open_device(path) as device:
        device.flush(FIRST)
        device.write(FIRST * SIZE, bytes(BLOCK))
        disk.hold_next()
        slow = threading.Thread(target=device.flush, args=(FIRST,))
        slow.start()
        assert disk.waits.wait(60)
        before = disk.flushes
        device.flush(number)
        assert disk.flushes == before + 1, "nothing was durable yet"
        # What is written beside a flush is not known to be in it.
        device.write(FIRST * SIZE + BLOCK, bytes(BLOCK))
        disk.go_on.set()
        slow.join()
        device.flush(number)
        assert disk.flushes == before + 2


def test_an_older_flush_says_nothing_about_what_a_newer_one_took(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone is written beside the first flush; the second takes that, and the first ends before it."""
    disk = Disk(monkeypatch)
    with open_device(path) as device:
        disk.hold_next()
        slow = threading.Thread(target=device.flush, args=(FIRST,))
        slow.start()
        assert disk.waits.wait(60)
        device.write(FIRST * SIZE, bytes(BLOCK))
        flush = disk._flush

        def flush_beside(descriptor: int) -> None:
            # The first one ends within the second.
            disk.go_on.set()
            slow.join()
            before = disk.flushes
            device.flush(FIRST)
            assert disk.flushes == before + 1, "the second has not flushed it yet"
            flush(descriptor)

        calls = iter([flush_beside])
        monkeypatch.setattr(disk, "_flush", lambda descriptor: next(calls, flush)(descriptor))
        device.flush(FIRST)
        before = disk.flushes
        device.flush(FIRST)
        assert disk.flushes == before, "all is durable"

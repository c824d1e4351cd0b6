"""Copies on real mounts: the engine that the host file system allows, what programs do, hosts that fail in mid-copy."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.copying import random_bytes
from tests.descriptors import opened
from tests.fuse.conftest import ZONEFS_PY, Mounts, command_environment, run, wait_until
from zonefs_py import MountControl, copy_ranges
from zonefs_py.config import FormatOptions
from zonefs_py.copy.blocks import copy_blocks
from zonefs_py.copy.engine import Engine
from zonefs_py.device.clone import clone_device
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.fs.format import format_device
from zonefs_py.fs.opening import open_filesystem
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneOp

KIB = 1024
MIB = 1024 * KIB
BLOCK = 4096
ZONE = 4 * MIB
CAPACITY = 3 * MIB

XFS_IOC_GOINGDOWN = 0x8004587D
XFS_FSOP_GOING_FLAGS_NOLOGFLUSH = 2
JOIN_SECONDS = 60.0


def program(name: str, package: str) -> str:
    """The path of a program; skip the test if it is missing."""
    found = shutil.which(name, path=command_environment()["PATH"])
    if found is None:
        pytest.skip(f"{name} is missing; install {package}")
    return found


class HostFilesystem:
    """A file system of the host on a file, mounted with a loop device; or a small tmpfs."""

    def __init__(self, kind: str, directory: Path, size: int) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting a file system of the host takes root")
        self.kind = kind
        self.path = directory / f"{kind}-mnt"
        self._image = directory / f"{kind}.img"
        self._size = size
        self.path.mkdir()
        if kind != "tmpfs":
            make = program(f"mkfs.{kind}", {"xfs": "xfsprogs", "btrfs": "btrfs-progs", "ext4": "e2fsprogs"}[kind])
            with open(self._image, "wb") as image:
                image.truncate(size)
            run(make, "-q", self._image)
        self.mount()

    def mount(self) -> None:
        """Mount it; skip the test where that is not possible at all (no loop devices, a kernel without it)."""
        if self.kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "none", self.path)
            return
        done = run("mount", "-t", self.kind, "-o", "loop", self._image, self.path, check=False)
        if done.returncode:
            pytest.skip(f"{self.kind} cannot be mounted here: {done.stderr.strip()}")

    def unmount(self) -> None:
        """Unmount it; mount(8) has told the loop device to go then."""
        run("umount", self.path)

    def remove(self) -> None:
        """Leave nothing behind, whatever happened."""
        # os.path.ismount() asks the file system, which may be dead.
        mounted = any(line.split()[1] == str(self.path) for line in Path("/proc/self/mounts").read_text().splitlines())
        if mounted and run("umount", self.path, check=False).returncode:
            run("umount", "--lazy", self.path)
        if self.kind != "tmpfs":
            wait_until("the loop device is gone", lambda: str(self._image) not in run("losetup", "--list").stdout)
            self._image.unlink()

    def shut_down(self) -> None:
        """Let every access from now on fail, as if the disk were gone; what is in memory only is lost (XFS)."""
        with opened(self.path, os.O_RDONLY) as descriptor:
            fcntl.ioctl(descriptor, XFS_IOC_GOINGDOWN, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH.to_bytes(4, "little"))


@contextlib.contextmanager
def host_filesystem(kind: str, directory: Path, size: int) -> Iterator[HostFilesystem]:
    """A `HostFilesystem` that is gone afterwards."""
    host = HostFilesystem(kind, directory, size)
    try:
        yield host
    finally:
        host.remove()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[str, int], HostFilesystem]]:
    """A factory of host file systems that a test may break: ``host = hosts(kind, size)``. Ask for it before `mounted`,
    so that it ends after it."""
    with contextlib.ExitStack() as stack:
        yield lambda kind, size: stack.enter_context(host_filesystem(kind, tmp_path, size))


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFilesystem]:
    """XFS for all tests that do not break it."""
    with host_filesystem("xfs", tmp_path_factory.mktemp("xfs"), 512 * MIB) as host:
        yield host


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFilesystem]:
    """Btrfs for all tests."""
    with host_filesystem("btrfs", tmp_path_factory.mktemp("btrfs"), 512 * MIB) as host:
        yield host


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFilesystem]:
    """ext4, which makes no reflinks, for all tests."""
    with host_filesystem("ext4", tmp_path_factory.mktemp("ext4"), 512 * MIB) as host:
        yield host


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on the kind of host file system that the test's parameter names; ``disk`` is where tests put one."""
    kind = request.param
    if kind == "tmp":
        if run("stat", "-f", "-c", "%T", tmp_path).stdout.strip() in ("xfs", "btrfs"):
            pytest.skip("the temporary directory is on a file system that makes reflinks")
        yield tmp_path
        return
    parent = Path("/dev/shm") if kind == "shm" else request.getfixturevalue(kind).path
    if kind == "shm" and not parent.is_dir():
        pytest.skip("no tmpfs at /dev/shm")
    directory = parent / f"zonefs-{os.getpid()}-{tmp_path.name}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def make_device(directory: Path, *options: str, zone_size: str = "4M", zone_capacity: str = "3M") -> Path:
    """A formatted device in *directory*: cnv/0, cnv/1, seq/0 to seq/5."""
    device = directory / "disk"
    words = ["--zones", "9", "--conventional", "3", "--zone-size", zone_size, "--zone-capacity", zone_capacity]
    run(ZONEFS_PY, "create", device, *words, *options)
    run(ZONEFS_PY, "mkfs", device)
    return device


@pytest.fixture
def mnt(device_dir: Callable[..., Path], mounted: Mounts) -> Path:
    """An ordinary mount: cnv/0, cnv/1, seq/0 to seq/5."""
    return mounted(device_dir(zones=9, conventional=3, zone_size="4M", zone_capacity="3M"), "errors=repair")


def put(path: Path, data: bytes) -> None:
    """Write *data* to a conventional file's start, or a sequential file's end."""
    append = os.O_APPEND if path.parent.name == "seq" else 0
    with opened(path, os.O_WRONLY | os.O_DIRECT | append) as descriptor:
        # Memory that does not begin on a page: the kernel would cut a whole MiB of it in the middle of a block.
        for start in range(0, len(data), 256 * KIB):
            piece = data[start : start + 256 * KIB]
            assert os.write(descriptor, piece) == len(piece)


def copy_range(
    source: Path, source_offset: int, target: Path, offset: int, length: int, flags: int = os.O_WRONLY
) -> int:
    """One call of copy_file_range(2), by default to a file that was opened without O_DIRECT."""
    with opened(source, os.O_RDONLY) as reader, opened(target, flags) as writer:
        return os.copy_file_range(reader, writer, length, source_offset, offset)


def digest(path: Path) -> str:
    """The hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def by_engine(mounted: Mounts, path: Path) -> dict[str, int]:
    """How many bytes each engine of the mount has copied, of those that have any."""
    engines = mounted.info(path)["copy"]["engines"]
    return {name: done["bytes"] for name, done in engines.items() if done["bytes"]}


def errors(mounted: Mounts, path: Path) -> dict[str, int]:
    """How many copies of each engine ended in an error, of those that had any."""
    engines = mounted.info(path)["copy"]["engines"]
    return {name: done["errors"] for name, done in engines.items() if done["errors"]}


def is_shared(path: Path) -> bool:
    """Whether all extents of a file are shared with another file."""
    blocks = path.stat().st_size // BLOCK
    lines = run("filefrag", "-s", "-v", "-b4096", path).stdout.splitlines()
    found = [(int(match[1]), line) for line in lines if (match := re.match(r"\s*\d+:\s*(\d+)\.\.", line))]
    # XFS may have allocated some more past the end.
    extents = [line for start, line in found if start < blocks]
    assert extents
    return all("shared" in line for line in extents)


# --- Engines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["xfs", "btrfs"], indirect=True)
def test_a_zone_copy_is_a_reflink(place: Path, mounted: Mounts) -> None:
    program("filefrag", "e2fsprogs")
    device = make_device(place)
    mnt = mounted(device)
    data = random_bytes(CAPACITY, 1)
    put(mnt / "seq/0", data)
    assert copy_range(mnt / "seq/0", 0, mnt / "seq/1", 0, ZONE) == CAPACITY
    assert copy_range(mnt / "seq/0", 0, mnt / "cnv/0", 0, ZONE) == CAPACITY
    assert by_engine(mounted, mnt) == {"reflink": 2 * CAPACITY}
    assert (mnt / "seq/1").read_bytes() == data
    assert (mnt / "cnv/0").read_bytes() == data + bytes(ZONE - CAPACITY)
    assert is_shared(device / "seq-000003")
    assert is_shared(device / "seq-000004")
    # The copy is a copy: changing one leaves the other.
    run("truncate", "--size=0", mnt / "seq/0")
    put(mnt / "cnv/0", bytes(BLOCK))
    assert (mnt / "seq/1").read_bytes() == data
    mounted.unmount(mnt)
    mnt = mounted(device)
    assert (mnt / "seq/1").read_bytes() == data
    assert (mnt / "cnv/0").read_bytes() == bytes(BLOCK) + data[BLOCK:] + bytes(ZONE - CAPACITY)


@pytest.mark.parametrize("place", ["xfs", "btrfs"], indirect=True)
def test_gathered_ranges_are_reflinks(place: Path, mounted: Mounts) -> None:
    program("filefrag", "e2fsprogs")
    device = make_device(place)
    mnt = mounted(device)
    one, two = random_bytes(CAPACITY, 1), random_bytes(CAPACITY, 2)
    put(mnt / "seq/0", one)
    put(mnt / "seq/1", two)
    with (mnt / "seq/0").open("rb") as a, (mnt / "seq/1").open("rb") as b, (mnt / "seq/2").open("r+b") as target:
        ranges = [(a, MIB, MIB // 2), (b, 0, 64 * KIB), (a, 0, 64 * KIB), (b, 2 * MIB, MIB)]
        assert copy_ranges(target, ranges) == [MIB // 2, 64 * KIB, 64 * KIB, MIB]
    wanted = one[MIB : MIB + MIB // 2] + two[: 64 * KIB] + one[: 64 * KIB] + two[2 * MIB :]
    assert (mnt / "seq/2").read_bytes() == wanted
    assert by_engine(mounted, mnt) == {"reflink": len(wanted)}
    assert is_shared(device / "seq-000005")


@pytest.mark.parametrize("place", ["xfs", "btrfs"], indirect=True)
def test_only_the_ends_of_a_crooked_copy_are_no_reflink(place: Path, mounted: Mounts) -> None:
    """Blocks of 512 bytes on a host whose reflinks need 4096: best for each part, if both ends are equally crooked."""
    device = make_device(place, "--block-size", "512")
    mnt = mounted(device)
    data = random_bytes(CAPACITY, 1)
    put(mnt / "cnv/0", data)
    start, length = 3 * BLOCK + 1024 + 100, MIB
    assert copy_range(mnt / "cnv/0", start, mnt / "cnv/1", start + 5 * BLOCK, length) == length
    assert (mnt / "cnv/1").read_bytes()[start + 5 * BLOCK :][:length] == data[start : start + length]
    blocks = (start + length) // 512 - -(-start // 512)
    pages = (start + length) // BLOCK - -(-start // BLOCK)
    assert by_engine(mounted, mnt) == {
        "reflink": pages * BLOCK,
        "host": blocks * 512 - pages * BLOCK,
        "emulate": length - blocks * 512,
    }
    # Not as far from a block as each other: nothing can be shared.
    assert copy_range(mnt / "cnv/0", start, mnt / "cnv/1", start + 512, length) == length
    assert (mnt / "cnv/1").read_bytes()[start + 512 :][:length] == data[start : start + length]
    assert by_engine(mounted, mnt)["reflink"] == pages * BLOCK


@pytest.mark.parametrize("place", ["ext4", "shm", "tmp"], indirect=True)
def test_elsewhere_the_host_copies(place: Path, mounted: Mounts, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["place"]
    if kind != "tmp":
        # Of stat(1), ext2 and what came after it are one type.
        assert run("stat", "-f", "-c", "%T", place).stdout.strip() == {"ext4": "ext2/ext3", "shm": "tmpfs"}[kind]
    mnt = mounted(make_device(place))
    data = random_bytes(CAPACITY, 1)
    put(mnt / "seq/0", data)
    assert copy_range(mnt / "seq/0", 0, mnt / "seq/1", 0, ZONE) == CAPACITY
    assert (mnt / "seq/1").read_bytes() == data
    assert by_engine(mounted, mnt) == {"host": CAPACITY}
    assert mounted.info(mnt)["capabilities"]["copy_methods"] == ["host"]


@pytest.mark.parametrize("option", ["auto", "reflink", "host", "emulate"])
@pytest.mark.parametrize("place", ["xfs", "btrfs", "ext4"], indirect=True)
def test_the_option_chooses(place: Path, option: str, mounted: Mounts, request: pytest.FixtureRequest) -> None:
    device = make_device(place)
    mnt = mounted(device, f"copy={option}")
    put(mnt / "seq/0", random_bytes(CAPACITY, 1))
    assert copy_range(mnt / "seq/0", 0, mnt / "seq/1", 0, CAPACITY) == CAPACITY
    reflinks = request.node.callspec.params["place"] != "ext4"
    expected = {"auto": "reflink" if reflinks else "host", "reflink": "reflink" if reflinks else "emulate"}
    assert by_engine(mounted, mnt) == {expected.get(option, option): CAPACITY}
    assert digest(mnt / "seq/1") == digest(mnt / "seq/0")
    if option == "emulate" and reflinks:
        assert not is_shared(device / "seq-000004")


@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("place", ["xfs", "btrfs", "tmp", "shm"], indirect=True)
def test_a_clone_is_a_reflink_where_there_are_any(place: Path, block_size: int, tmp_path: Path) -> None:
    size = 100 * 4096
    create_device(place / "disk", Geometry(size, size - 512 * 8, 6, 2, block_size, size))
    with open_device(place / "disk") as device:
        device.write(0, random_bytes(size, 1))
        device.write(2 * size, random_bytes(99 * 4096, 2))
        device.write(3 * size, random_bytes(3 * 4096 + block_size, 3))
        device.zone_mgmt(ZoneOp.FINISH, 4)
        clone_device(device, place / "clone", data=True)
        # From here to another file system the host may not copy by itself.
        clone_device(device, tmp_path / "elsewhere", data=True)
    names = [f"{'cnv' if number < 2 else 'seq'}-{number:06d}" for number in range(6)]
    for copy in (place / "clone", tmp_path / "elsewhere"):
        assert [digest(copy / name) for name in names] == [digest(place / "disk" / name) for name in names]
        assert (copy / "cnv-000001").stat().st_blocks == (copy / "seq-000004").stat().st_blocks == 0
    if not place.is_relative_to(tmp_path) and not place.is_relative_to("/dev/shm"):
        for name in ("cnv-000000", "seq-000002", "seq-000003"):
            assert is_shared(place / "clone" / name)


@pytest.mark.parametrize("place", ["xfs", "btrfs"], indirect=True)
def test_small_blocks_and_odd_zones(place: Path) -> None:
    """With blocks of 512 bytes much of a device is not aligned to what the host's reflinks need."""
    geometry = Geometry(100 * 512, 99 * 512, 8, 4, 512, 100 * 512)
    create_device(place / "disk", geometry)
    with open_device(place / "disk") as device:
        assert device.info.copy_methods == (CopyMethod.REFLINK, CopyMethod.HOST)
        format_device(device, FormatOptions(aggregate_conventional=True))
    with open_filesystem(place / "disk") as fs:
        handle = fs.open("cnv/0", os.O_RDWR)
        data = bytearray(random_bytes(3 * geometry.zone_size, 1))
        assert fs.write(handle, 0, data) == len(data)
        engines: dict[Engine, int] = {}
        for source, target, length in (
            (0, 2 * 4096, 4096),
            (0, 512, 512),
            (0, 20 * 4096, 8 * 4096),
            (512, 20 * 4096 + 512, 8 * 4096),
            (geometry.zone_size, 0, 4096),
            (0, geometry.zone_size, geometry.zone_size),
            (1, geometry.zone_size, geometry.zone_size - 1),
        ):
            assert fs.copy_range(handle, source, handle, target, length) == length
            data[target : target + length] = data[source : source + length]
            assert fs.read(handle, 0, len(data)) == data
            engines = {engine: done.bytes for engine, done in fs.copy_engine.counters.items() if done.bytes}
        assert set(engines) == {Engine.REFLINK, Engine.HOST, Engine.EMULATE}
        fs.release(handle)


@pytest.mark.parametrize("place", ["xfs", "btrfs"], indirect=True)
def test_the_end_of_what_a_zone_holds_is_no_whole_block_of_the_host(place: Path) -> None:
    """Past the write pointer there is nothing to share. In the middle of a zone the host shares whole blocks only."""
    geometry = Geometry(64 * KIB, 64 * KIB, 6, 3, 512, 64 * KIB)
    create_device(place / "disk", geometry)
    data, old = random_bytes(4096 + 512, 1), random_bytes(64 * KIB, 2)
    with open_device(place / "disk") as device:
        device.write(3 * geometry.zone_size, data)
        device.write(geometry.zone_size, old)
        copied = copy_blocks(device, [(3 * geometry.zone_size, 8 * KIB)], geometry.zone_size)
        assert copied == ((8 * KIB,), None)
        assert device.read(geometry.zone_size, 64 * KIB) == data + bytes(8 * KIB - len(data)) + old[8 * KIB :]
        # To the end of a zone too.
        assert copy_blocks(device, [(3 * geometry.zone_size, 8 * KIB)], 4 * geometry.zone_size).error is None
        assert device.read(4 * geometry.zone_size, 8 * KIB) == data + bytes(8 * KIB - len(data))
        assert (place / "disk" / "seq-000004").stat().st_size == 8 * KIB
        # It is in memory only, what was not shared.
        assert device.copy_waits([CopyRange(4 * geometry.zone_size, 0, 4096)], CopyMethod.REFLINK)


# --- Programs -------------------------------------------------------------------------------------------------------


class TestPrograms:
    def test_cp_between_zone_files(self, mnt: Path, mounted: Mounts) -> None:
        put(mnt / "seq/0", random_bytes(CAPACITY, 1))
        put(mnt / "seq/1", random_bytes(2 * BLOCK, 2))
        run("cp", mnt / "seq/0", mnt / "seq/1")  # which it resets first
        assert digest(mnt / "seq/1") == digest(mnt / "seq/0")
        assert by_engine(mounted, mnt) == {"host": CAPACITY}

    def test_cp_of_a_part_of_a_zone(self, mnt: Path, mounted: Mounts) -> None:
        put(mnt / "seq/0", random_bytes(5 * BLOCK, 1))
        run("cp", mnt / "seq/0", mnt / "seq/1")
        assert digest(mnt / "seq/1") == digest(mnt / "seq/0")
        assert mounted.zones(mnt)["seq/1"]["condition"] == "implicit-open"
        assert by_engine(mounted, mnt) == {"host": 5 * BLOCK}

    def test_cp_of_a_conventional_file_does_not_fit(self, mnt: Path, mounted: Mounts) -> None:
        put(mnt / "cnv/0", random_bytes(ZONE, 1))
        done = run("cp", mnt / "cnv/0", mnt / "seq/0", check=False)
        assert done.returncode == 1
        assert os.strerror(errno.EFBIG) in done.stderr
        assert (mnt / "seq/0").read_bytes() == random_bytes(ZONE, 1)[:CAPACITY]
        assert by_engine(mounted, mnt) == {"host": CAPACITY}

    def test_cp_out_of_the_mount(self, mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
        put(mnt / "seq/0", random_bytes(CAPACITY, 1))
        put(mnt / "cnv/0", random_bytes(ZONE, 2))
        for name in ("seq/0", "cnv/0"):
            run("cp", mnt / name, tmp_path / "out")
            assert digest(tmp_path / "out") == digest(mnt / name)
        assert by_engine(mounted, mnt) == {}

    @pytest.mark.parametrize(("source", "target"), [("seq", "seq"), ("seq", "cnv"), ("cnv", "seq"), ("cnv", "cnv")])
    def test_copy_file_range_in_pieces(self, mnt: Path, mounted: Mounts, source: str, target: str) -> None:
        """Until it returns 0, as programs do, with the file positions."""
        put(mnt / source / "0", random_bytes(CAPACITY, 1))
        with opened(mnt / source / "0", os.O_RDONLY) as reader, opened(mnt / target / "1", os.O_RDWR) as writer:
            size = CAPACITY if "seq" in (source, target) else ZONE
            total = 0
            while copied := os.copy_file_range(reader, writer, min(300 * KIB, size - total)):
                total += copied
                assert os.lseek(reader, 0, os.SEEK_CUR) == os.lseek(writer, 0, os.SEEK_CUR) == total
                assert os.fstat(writer).st_size == (total if target == "seq" else ZONE)
                if total == size:
                    break
            assert total == size
            assert os.pread(writer, size, 0) == os.pread(reader, size, 0)
        assert by_engine(mounted, mnt) == {"host": size}

    def test_shutil_out_of_the_mount(self, mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
        put(mnt / "seq/0", random_bytes(CAPACITY, 1))
        shutil.copyfile(mnt / "seq/0", tmp_path / "out")
        assert digest(tmp_path / "out") == digest(mnt / "seq/0")
        with (mnt / "seq/0").open("rb") as source, (tmp_path / "out").open("wb") as target:
            shutil.copyfileobj(source, target)
        assert digest(tmp_path / "out") == digest(mnt / "seq/0")
        assert by_engine(mounted, mnt) == {}

    def test_shutil_into_zone_files(self, mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
        (tmp_path / "in").write_bytes(random_bytes(CAPACITY, 1))
        descriptor = os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT)
        with (tmp_path / "in").open("rb") as source, open(descriptor, "wb", buffering=0) as sequential:
            shutil.copyfileobj(source, sequential, 256 * KIB)
        assert digest(mnt / "seq/0") == digest(tmp_path / "in")
        with (mnt / "seq/0").open("rb") as source, (mnt / "cnv/0").open("r+b") as conventional:
            shutil.copyfileobj(source, conventional)
        assert (mnt / "cnv/0").read_bytes()[:CAPACITY] == (tmp_path / "in").read_bytes()
        # copyfileobj reads and writes: nothing of that is a copy.
        assert by_engine(mounted, mnt) == {}
        # What needs O_DIRECT on kernel zonefs needs it here.
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            shutil.copyfile(tmp_path / "in", mnt / "seq/1")
        assert by_engine(mounted, mnt) == {}

    def test_rsync(self, mnt: Path, mounted: Mounts, tmp_path: Path) -> None:
        rsync = program("rsync", "rsync")
        (tmp_path / "in").write_bytes(random_bytes(ZONE, 1))
        # It ends by cutting the file to the size it has, which no conventional file takes, on kernel zonefs neither.
        done = run(rsync, "--inplace", "--ignore-times", tmp_path / "in", mnt / "cnv/0", check=False)
        assert "ftruncate failed" in done.stderr or done.returncode == 0
        assert digest(mnt / "cnv/0") == digest(tmp_path / "in")
        put(mnt / "seq/0", random_bytes(CAPACITY, 2))
        for name in ("cnv/0", "seq/0"):
            run(rsync, "--inplace", "--ignore-times", mnt / name, tmp_path / "out")
            assert digest(tmp_path / "out") == digest(mnt / name)
        # It writes without O_DIRECT, so a sequential file refuses it, on kernel zonefs too, and is as it was.
        for name, more in (("seq/1", []), ("seq/0", []), ("seq/0", ["--append"])):
            before = (mnt / name).read_bytes()
            options = ["--inplace", "--ignore-times", *more]
            (tmp_path / "larger").write_bytes(before + bytes(BLOCK))
            done = run(rsync, *options, tmp_path / "larger", mnt / name, check=False)
            assert done.returncode != 0, name
            assert os.strerror(errno.EIO) in done.stderr or os.strerror(errno.EFBIG) in done.stderr, done.stderr
            assert (mnt / name).read_bytes() == before
        # Nor without --inplace, which makes a file of its own first.
        done = run(rsync, "--ignore-times", tmp_path / "in", mnt / "seq/1", check=False)
        assert done.returncode != 0
        assert (mnt / "seq/1").read_bytes() == b""
        # rsync reads and writes: no engine has copied anything.
        assert by_engine(mounted, mnt) == {}

    def test_the_page_cache_of_a_conventional_file(self, mnt: Path) -> None:
        """What is dirty there is copied, what a copy overwrites is seen: by readers and by shared mappings."""
        with (mnt / "cnv/0").open("r+b") as source, (mnt / "cnv/1").open("r+b") as target:
            for file in (source, target):
                file.write(bytes(8 * BLOCK))
                file.flush()
            with mmap.mmap(source.fileno(), ZONE) as dirty, mmap.mmap(target.fileno(), ZONE) as view:
                data = random_bytes(2 * BLOCK, 1)
                dirty[100 : 100 + len(data)] = data
                view[0:5] = b"before"[:5]
                assert os.copy_file_range(source.fileno(), target.fileno(), len(data), 100, 513) == len(data)
                expected = b"befor" + bytes(508) + data + bytes(BLOCK)
                assert view[: len(expected)] == expected
                assert os.pread(target.fileno(), len(expected), 0) == expected
        assert (mnt / "cnv/1").read_bytes()[: len(expected)] == expected

    def test_sizes_are_seen_at_once(self, mnt: Path) -> None:
        """The kernel clamps a copy to the size that it believes the source has."""
        put(mnt / "seq/0", random_bytes(BLOCK, 1))
        for _ in range(4):
            for source, target in (("seq/0", "seq/1"), ("seq/1", "seq/0")):
                size = (mnt / target).stat().st_size
                assert copy_range(mnt / source, 0, mnt / target, size, BLOCK) == BLOCK
                assert (mnt / target).stat().st_size == size + BLOCK
        assert (mnt / "seq/0").read_bytes() == random_bytes(BLOCK, 1) * 5

    def test_other_files_are_served_during_a_long_copy(self, mounted: Mounts, tmp_path: Path) -> None:
        mnt = mounted(make_device(tmp_path, zone_size="128M", zone_capacity="128M"), "copy=emulate")
        put(mnt / "seq/2", random_bytes(BLOCK, 1))
        copied: list[int] = []
        copier = threading.Thread(
            target=lambda: copied.append(copy_range(mnt / "cnv/0", 0, mnt / "seq/1", 0, 128 * MIB))
        )
        copier.start()
        served = 0
        while copier.is_alive():
            (mnt / "seq/1").stat()
            assert (mnt / "seq/2").read_bytes() == random_bytes(BLOCK, 1)
            served += not copied
        copier.join()
        assert copied == [128 * MIB]
        assert served >= 3


# --- Refusals -------------------------------------------------------------------------------------------------------


class TestRefusals:
    @pytest.fixture(autouse=True)
    def source(self, mnt: Path) -> None:
        """Something to copy."""
        put(mnt / "seq/0", random_bytes(4 * BLOCK, 1))

    def refused(self, number: int, *arguments: Any, **more: Any) -> None:
        with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
            copy_range(*arguments, **more)
        assert caught.value.errno == number

    def test_zonefs_rules(self, mnt: Path, mounted: Mounts) -> None:
        """The error reaches the caller, and the kernel does not copy by itself then."""
        put(mnt / "seq/1", random_bytes(2 * BLOCK, 2))
        self.refused(errno.EINVAL, mnt / "seq/0", 0, mnt / "seq/1", 0, BLOCK)
        self.refused(errno.EINVAL, mnt / "seq/0", 0, mnt / "seq/1", 3 * BLOCK, BLOCK)
        self.refused(errno.EINVAL, mnt / "seq/0", 0, mnt / "seq/1", 2 * BLOCK, 100)
        self.refused(errno.EFBIG, mnt / "seq/0", 0, mnt / "cnv/0", ZONE, BLOCK)
        run("truncate", f"--size={CAPACITY}", mnt / "seq/2")
        self.refused(errno.EFBIG, mnt / "seq/0", 0, mnt / "seq/2", CAPACITY, BLOCK)
        assert (mnt / "seq/1").read_bytes() == random_bytes(2 * BLOCK, 2)
        assert by_engine(mounted, mnt) == {}
        assert errors(mounted, mnt) == {}

    def test_system_call_rules(self, mnt: Path, tmp_path: Path, mounted: Mounts) -> None:
        self.refused(errno.EBADF, mnt / "seq/0", 0, mnt / "seq/1", 0, BLOCK, flags=os.O_WRONLY | os.O_APPEND)
        self.refused(errno.EBADF, mnt / "seq/0", 0, mnt / "seq/1", 0, BLOCK, flags=os.O_RDONLY)
        self.refused(errno.EINVAL, mnt / "cnv/0", 0, mnt / "cnv/0", BLOCK, 2 * BLOCK)
        (tmp_path / "file").write_bytes(bytes(BLOCK))
        self.refused(errno.EXDEV, mnt / "seq/0", 0, tmp_path / "file", 0, BLOCK)
        self.refused(errno.EXDEV, tmp_path / "file", 0, mnt / "seq/1", 0, BLOCK)
        assert (mnt / "seq/1").stat().st_size == 0
        assert by_engine(mounted, mnt) == {}

    def test_flags(self, mnt: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/1", os.O_WRONLY) as writer:
            for flags in (1, 2, 1 << 31):
                copied = libc.copy_file_range(reader, None, writer, None, ctypes.c_size_t(BLOCK), ctypes.c_uint(flags))
                assert (copied, ctypes.get_errno()) == (-1, errno.EINVAL)
        assert (mnt / "seq/1").stat().st_size == 0

    def test_two_mounts(self, mnt: Path, device_dir: Callable[..., Path], mounted: Mounts) -> None:
        other = mounted(device_dir(zones=9, conventional=3, zone_size="4M", zone_capacity="3M"))
        # The kernel either refuses, or reads and writes by itself, which a sequential file takes with O_DIRECT only.
        with contextlib.suppress(OSError):
            assert copy_range(mnt / "seq/0", 0, other / "seq/1", 0, BLOCK) == 0
        assert (other / "seq/1").stat().st_size == 0
        assert by_engine(mounted, other) == by_engine(mounted, mnt) == {}

    def test_a_full_source_end(self, mnt: Path) -> None:
        assert copy_range(mnt / "seq/0", 4 * BLOCK, mnt / "seq/1", 0, BLOCK) == 0
        assert copy_range(mnt / "seq/0", 9 * BLOCK, mnt / "seq/1", 0, BLOCK) == 0
        assert copy_range(mnt / "seq/0", 2 * BLOCK, mnt / "seq/1", 0, ZONE) == 2 * BLOCK

    @pytest.mark.parametrize("condition", ["readonly", "offline"])
    @pytest.mark.parametrize("side", ["seq/0", "seq/1"])
    def test_a_broken_zone(self, mnt: Path, mounted: Mounts, condition: str, side: str) -> None:
        """The device's error reaches the caller; nothing is tried by another way, and attributes follow."""
        put(mnt / "seq/1", random_bytes(BLOCK, 2))
        mounted.expect_log(mnt, r"WARNING")
        number = {"seq/0": 3, "seq/1": 4}[side]
        # O_DIRECT: with passthrough, who reads past us loses an offline zone altogether (test_passthrough.py).
        reading = os.O_RDONLY | os.O_DIRECT
        with opened(mnt / "seq/0", reading) as reader, opened(mnt / "seq/1", os.O_WRONLY) as writer:
            run(ZONEFS_PY, "zone", condition, mnt, str(number))
            if (side, condition) == ("seq/0", "readonly"):
                assert os.copy_file_range(reader, writer, BLOCK, 0, BLOCK) == BLOCK
            else:
                with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                    os.copy_file_range(reader, writer, BLOCK, 0, BLOCK)
                assert errors(mounted, mnt) == {"host": 1}
                assert by_engine(mounted, mnt) == {}
                wait_until(
                    "the kernel knows the new size",
                    lambda: (mnt / side).stat().st_size == (0 if condition == "offline" else BLOCK),
                )
                if side == "seq/1":
                    with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
                        os.copy_file_range(reader, writer, BLOCK, 0, BLOCK)

    def test_append_can_be_taken_off(self, mnt: Path, mounted: Mounts) -> None:
        """What counts is how the file is open now: the kernel lets a copy pass then, and so do we."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_DIRECT
        with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/1", flags) as writer:
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                os.copy_file_range(reader, writer, BLOCK, 0, 0)
            fcntl.fcntl(writer, fcntl.F_SETFL, os.O_DIRECT)
            assert os.copy_file_range(reader, writer, BLOCK, 0, 0) == BLOCK
            fcntl.fcntl(writer, fcntl.F_SETFL, os.O_DIRECT | os.O_APPEND)
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                os.copy_file_range(reader, writer, BLOCK, 0, BLOCK)
        assert by_engine(mounted, mnt) == {"host": BLOCK}

    def test_a_buffered_destination_is_accepted(self, mnt: Path) -> None:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_DIRECT, os.O_WRONLY | os.O_SYNC):
            size = (mnt / "seq/1").stat().st_size
            assert copy_range(mnt / "seq/0", 0, mnt / "seq/1", size, BLOCK, flags=flags) == BLOCK
        assert (mnt / "seq/1").read_bytes() == random_bytes(4 * BLOCK, 1)[:BLOCK] * 4


# --- The end of a mount ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_daemon_ends_in_mid_copy(number: signal.Signals, mounted: Mounts, tmp_path: Path) -> None:
    """The caller gets an answer or an error and does not hang; what was copied is there, up to the write pointer."""
    device = make_device(tmp_path, zone_size="256M", zone_capacity="256M")
    mnt = mounted(device, "copy=emulate")
    data = random_bytes(MIB, 1)
    put(mnt / "cnv/0", data)
    copied: list[int] = []
    failed: list[OSError] = []

    def copy() -> None:
        try:
            copied.append(copy_range(mnt / "cnv/0", 0, mnt / "seq/0", 0, 256 * MIB))
        except OSError as exc:
            failed.append(exc)

    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    wait_until("the copy has begun", lambda: (device / "seq-000003").stat().st_size >= 2 * MIB)
    daemon = mounted.get(mnt)
    os.kill(daemon.pid, number)
    copier.join(JOIN_SECONDS)
    assert not copier.is_alive()
    wait_until("the daemon ends", lambda: not daemon.daemon_runs)
    if daemon.is_mounted:
        run("fusermount3", "-u", mnt)
    assert daemon.bad_log_lines() == []
    mounted.forget(mnt)
    if failed:
        assert failed[0].errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    mnt = mounted(device)
    mounted.expect_log(mnt, "cut down")
    size = (mnt / "seq/0").stat().st_size
    assert size == (device / "seq-000003").stat().st_size
    assert size % BLOCK == 0
    assert size >= max(2 * MIB, *copied, 0)
    with (mnt / "seq/0").open("rb") as target, (mnt / "cnv/0").open("rb") as source:
        while piece := target.read(MIB):
            assert source.read(len(piece)) == piece


# --- Hosts that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["reflink", "host", "emulate"])
def test_the_host_is_shut_down_in_mid_copy(
    engine: str, hosts: Callable[[str, int], HostFilesystem], mounted: Mounts
) -> None:
    """Clean errors, no hang; mounted again, every write pointer and all data up to it are those that were synced."""
    host = hosts("xfs", 512 * MIB)
    device = make_device(host.path)
    mnt = mounted(device, f"copy={engine},errors=repair")
    mounted.expect_log(mnt, r"WARNING|ERROR")
    data = random_bytes(CAPACITY, 1)
    put(mnt / "seq/0", data)
    synced = {"seq/0": len(data)}
    with (mnt / "seq/0").open("rb") as file:
        os.fsync(file.fileno())
    failed: list[OSError] = []
    enough = threading.Event()

    def copy() -> None:
        piece = 64 * KIB
        for turn in range(100_000):
            name = f"seq/{1 + turn % 4}"
            try:
                with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / name, os.O_WRONLY) as writer:
                    offset = os.fstat(writer).st_size
                    if offset >= CAPACITY:
                        synced.pop(name, None)
                        os.ftruncate(writer, 0)
                        continue
                    copied = os.copy_file_range(reader, writer, piece, offset, offset)
                    assert copied
                    if turn % 3:
                        os.fsync(writer)
                        synced[name] = offset + copied
            except OSError as exc:
                failed.append(exc)
                return
            if turn == 60:
                enough.set()

    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    assert enough.wait(JOIN_SECONDS)
    host.shut_down()
    copier.join(JOIN_SECONDS)
    assert not copier.is_alive()
    assert failed[0].errno in (errno.EIO, errno.EROFS)
    # It still answers, and refuses.
    assert len(os.listdir(mnt / "seq")) == 6
    (mnt / "seq/1").stat()
    with pytest.raises(OSError, match=f"{os.strerror(errno.EIO)}|{os.strerror(errno.EROFS)}"):
        copy_range(mnt / "seq/0", 0, mnt / "seq/5", 0, BLOCK)
    mounted.unmount(mnt)
    host.unmount()
    host.mount()
    mnt = mounted(device, f"copy={engine}")
    mounted.expect_log(mnt, r"cut")
    zones = mounted.zones(mnt)
    for index in range(6):
        name = f"seq/{index}"
        size = (mnt / name).stat().st_size
        zone = zones[name]
        known = zone["capacity"] if zone["condition"] == "full" else zone["write_pointer"] - zone["start"]
        assert (device / f"seq-{index + 3:06d}").stat().st_size == size == known
        assert size % BLOCK == 0
        assert size >= synced.get(name, 0)
        assert (mnt / name).read_bytes()[: synced.get(name, 0)] == data[: synced.get(name, 0)]
    assert copy_range(mnt / "seq/0", 0, mnt / "seq/5", 0, CAPACITY) == CAPACITY
    assert (mnt / "seq/5").read_bytes() == data
    mounted.unmount(mnt)


@pytest.mark.parametrize("engine", ["reflink", "host", "emulate"])
def test_the_host_is_shut_down_within_one_copy(
    engine: str, hosts: Callable[[str, int], HostFilesystem], mounted: Mounts
) -> None:
    """A single call that is under way comes back, with what it has copied or an error; the counters say the same."""
    host = hosts("xfs", 1024 * MIB)
    device = make_device(host.path, zone_size="256M", zone_capacity="256M")
    mnt = mounted(device, f"copy={engine},errors=repair")
    mounted.expect_log(mnt, r"WARNING|ERROR")
    if engine != "emulate":
        # Else the host makes it a single reflink, whichever way it is asked, and is done at once.
        run(ZONEFS_PY, "limits", mnt, f"copy_max_bytes={BLOCK}")
    else:
        # Else it may be done before anybody looks.
        rule = {"operation": "write", "zones": 3, "effect": "delay", "milliseconds": 5, "count": None}
        MountControl(mnt).add_faults([rule])
    piece = random_bytes(MIB, 1)
    with opened(mnt / "cnv/0", os.O_WRONLY) as writer:
        for offset in range(0, 128 * MIB, MIB):
            assert os.pwrite(writer, piece, offset) == MIB
        os.fsync(writer)
    copied: list[int] = []
    failed: list[OSError] = []

    def copy() -> None:
        try:
            copied.append(copy_range(mnt / "cnv/0", 0, mnt / "seq/0", 0, 128 * MIB))
        except OSError as exc:
            failed.append(exc)

    zone = device / "seq-000003"
    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    wait_until("the copy has begun", lambda: zone.stat().st_size >= MIB)
    host.shut_down()
    copier.join(JOIN_SECONDS)
    assert not copier.is_alive()
    # Some of it was copied before, so that is what the call says.
    assert not failed
    assert MIB <= copied[0] < 128 * MIB
    assert by_engine(mounted, mnt) == {engine: copied[0]}
    assert errors(mounted, mnt) == {engine: 1}
    with pytest.raises(OSError, match=f"{os.strerror(errno.EIO)}|{os.strerror(errno.EROFS)}"):
        copy_range(mnt / "cnv/0", 0, mnt / "seq/1", 0, MIB)
    mounted.unmount(mnt)
    host.unmount()
    host.mount()
    mnt = mounted(device, f"copy={engine}")
    mounted.expect_log(mnt, r"cut")
    size = (mnt / "seq/0").stat().st_size
    assert size == zone.stat().st_size
    assert size % BLOCK == 0
    # Nothing of it was synced. What is there, the disk may hold as data or not at all.
    found = (mnt / "seq/0").read_bytes()
    for start in range(0, size, BLOCK):
        assert found[start : start + BLOCK] in (piece[start % MIB : start % MIB + BLOCK], bytes(BLOCK))
    # And it is good for another try.
    run("truncate", "--size=0", mnt / "seq/0")
    assert copy_range(mnt / "cnv/0", 0, mnt / "seq/0", 0, 8 * MIB) == 8 * MIB
    assert (mnt / "seq/0").read_bytes() == piece * 8
    mounted.unmount(mnt)


@pytest.mark.parametrize("engine", ["host", "emulate"])
def test_the_host_is_full_in_mid_copy(
    engine: str, hosts: Callable[[str, int], HostFilesystem], mounted: Mounts
) -> None:
    """A short count or ENOSPC, the size is the write pointer, and when there is space again the copy goes on."""
    host = hosts("tmpfs", 24 * MIB)
    device = make_device(host.path, zone_size="16M", zone_capacity="16M")
    mnt = mounted(device, f"copy={engine},errors=repair")
    mounted.expect_log(mnt, re.escape(os.strerror(errno.ENOSPC)) + r"|size changed")
    data = random_bytes(11 * MIB, 1)
    put(mnt / "seq/0", data)
    put(mnt / "seq/2", random_bytes(4 * MIB, 2))
    with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/1", os.O_RDWR) as writer:
        refused = None
        while refused is None:
            offset = os.fstat(writer).st_size
            assert offset < len(data)
            try:
                assert os.copy_file_range(reader, writer, len(data), offset, offset)
            except OSError as exc:
                refused = exc
            wait_until(
                "the kernel knows the new size",
                lambda: os.fstat(writer).st_size == (device / "seq-000004").stat().st_size,
            )
        assert refused.errno == errno.ENOSPC
        size = os.fstat(writer).st_size
        assert 4 * MIB < size < 11 * MIB
        zone = mounted.zones(mnt)["seq/1"]
        assert zone["write_pointer"] - zone["start"] == size
        assert os.pread(writer, size, 0) == data[:size]
        assert set(errors(mounted, mnt)) == {engine}
        assert set(by_engine(mounted, mnt)) <= {engine}
        run("truncate", "--size=0", mnt / "seq/2")
        assert os.copy_file_range(reader, writer, len(data), size, size) == len(data) - size
    assert digest(mnt / "seq/1") == digest(mnt / "seq/0")
    mounted.unmount(mnt)
    mnt = mounted(device, f"copy={engine}")
    assert [(mnt / f"seq/{index}").stat().st_size for index in range(3)] == [len(data), len(data), 0]
    assert (mnt / "seq/0").read_bytes() == (mnt / "seq/1").read_bytes() == data
    mounted.unmount(mnt)


def test_a_full_host_by_default_makes_the_mount_read_only(
    hosts: Callable[[str, int], HostFilesystem], mounted: Mounts
) -> None:
    """errors=remount-ro: as after a write error; what was acknowledged is there, and no more is shown."""
    host = hosts("tmpfs", 8 * MIB)
    device = make_device(host.path)
    mnt = mounted(device)
    mounted.expect_log(mnt, r"WARNING")
    data = random_bytes(CAPACITY, 1)
    for name in ("seq/0", "seq/1"):
        put(mnt / name, data)
    with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/2", os.O_WRONLY) as writer:
        copied = os.copy_file_range(reader, writer, CAPACITY, 0, 0)
        assert 0 < copied < CAPACITY
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            os.copy_file_range(reader, writer, CAPACITY, copied, copied)
    assert (mnt / "seq/2").read_bytes() == data[:copied]
    mounted.unmount(mnt)
    # Mounted again, what was not acknowledged may be shown too: up to the write pointer, and as it should be.
    mnt = mounted(device)
    size = (mnt / "seq/2").stat().st_size
    assert copied <= size == (device / "seq-000005").stat().st_size < CAPACITY
    assert size % BLOCK == 0
    assert (mnt / "seq/2").read_bytes() == data[:size]
    assert [(mnt / f"seq/{index}").read_bytes() for index in range(2)] == [data, data]
    # And it is written again as soon as there is room.
    run("truncate", "--size=0", mnt / "seq/1")
    assert copy_range(mnt / "seq/0", size, mnt / "seq/2", size, CAPACITY) == CAPACITY - size
    assert digest(mnt / "seq/2") == digest(mnt / "seq/0")
    mounted.unmount(mnt)


def test_programs_need_nothing_else(mnt: Path, mounted: Mounts) -> None:
    """A pipeline of a user: pack zones together, which is what garbage collection does."""
    for index in range(4):
        put(mnt / f"seq/{index}", random_bytes((index + 1) * BLOCK, index))
    script = "for n in 0 1 2 3; do dd if=$1/seq/$n of=$1/seq/4 bs=4K oflag=append,direct conv=notrunc; done"
    subprocess.run(["sh", "-ec", script, "sh", mnt], check=True, capture_output=True, env=command_environment())
    offset = 0
    for index in range(4):
        offset += copy_range(mnt / f"seq/{index}", 0, mnt / "seq/5", offset, CAPACITY)
    assert digest(mnt / "seq/5") == digest(mnt / "seq/4")
    assert by_engine(mounted, mnt) == {"host": 10 * BLOCK}


@pytest.mark.parametrize("flags", [os.O_DSYNC, os.O_SYNC])
@pytest.mark.parametrize("name", ["seq/1", "cnv/1"])
def test_a_copy_to_a_synchronous_file_survives_a_power_cut(
    name: str, flags: int, device_dir: Callable[..., Path], mounted: Mounts
) -> None:
    """Of write(2) the kernel tells us that it must be durable, of copy_file_range(2) and of ioctls it does not."""
    device = device_dir(zones=9, conventional=3, zone_size="4M", zone_capacity="3M")
    mnt = mounted(Path(f"write-cache:{device}"))
    data = random_bytes(8 * BLOCK, 1)
    put(mnt / "seq/0", data)
    run("sync", mnt / "seq/0")
    with (mnt / "seq/0").open("rb") as reader, opened(mnt / name, os.O_RDWR | flags) as writer:
        assert os.copy_file_range(reader.fileno(), writer, 2 * BLOCK, 0, 0) == 2 * BLOCK
        assert copy_ranges(writer, [(reader, 2 * BLOCK, 2 * BLOCK)], 2 * BLOCK) == [2 * BLOCK]
    with opened(mnt / "seq/0", os.O_RDONLY) as file, opened(mnt / name, os.O_RDWR) as writer:
        assert os.copy_file_range(file, writer, 4 * BLOCK, 4 * BLOCK, 4 * BLOCK) == 4 * BLOCK
    run(ZONEFS_PY, "ctl", mnt, "power-cut")
    assert (mnt / name).read_bytes()[: 8 * BLOCK].rstrip(b"\0") == data[: 4 * BLOCK].rstrip(b"\0")


def test_info_shows_what_the_engines_have_done(mnt: Path) -> None:
    assert "\ncopies: none yet\n" in run(ZONEFS_PY, "info", mnt).stdout
    put(mnt / "seq/0", random_bytes(5 * BLOCK, 1))
    assert copy_range(mnt / "seq/0", 0, mnt / "cnv/0", 0, 3 * BLOCK) == 3 * BLOCK
    assert copy_range(mnt / "seq/0", 0, mnt / "cnv/0", 1, 2 * BLOCK) == 2 * BLOCK
    assert copy_range(mnt / "seq/0", 0, mnt / "seq/1", 0, BLOCK) == BLOCK
    words = [line.split() for line in run(ZONEFS_PY, "info", mnt).stdout.splitlines()]
    start = words.index(["copies:", "copies", "commands", "bytes", "errors", "milliseconds"])
    assert [line[:5] for line in words[start + 1 :]] == [
        ["host", "2", "2", str(4 * BLOCK), "0"],
        ["emulate", "1", "1", str(2 * BLOCK), "0"],
    ]
    assert all(float(line[5]) > 0 for line in words[start + 1 :])


def test_a_copy_of_many_commands_does_not_hold_up_the_mount(xfs: HostFilesystem, mounted: Mounts) -> None:
    """Reflinks that wait for nothing are made by who serves all others; but not thousands of them."""
    directory = xfs.path / "many-commands"
    directory.mkdir()
    device = make_device(directory, zone_size="64M", zone_capacity="64M")
    mnt = mounted(device)
    piece = random_bytes(MIB, 1)
    with opened(mnt / "cnv/0", os.O_WRONLY) as writer:
        for offset in range(0, 64 * MIB, MIB):
            assert os.pwrite(writer, piece, offset) == MIB
        os.fsync(writer)
    run(ZONEFS_PY, "limits", mnt, f"copy_max_bytes={BLOCK}")
    copier = threading.Thread(target=copy_range, args=(mnt / "cnv/0", 0, mnt / "seq/0", 0, 64 * MIB))
    copier.start()
    wait_until("the copy has begun", lambda: (device / "seq-000003").stat().st_size > 0)
    served = 0
    while copier.is_alive():
        # The kernel knows nothing of space, and asks.
        os.statvfs(mnt)
        served += copier.is_alive()
    copier.join()
    assert by_engine(mounted, mnt) == {"reflink": 64 * MIB}
    assert served >= 3
    mounted.unmount(mnt)
    shutil.rmtree(directory)

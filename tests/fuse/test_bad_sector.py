"""A disk of the host with a bad sector, under a zone that is copied.

The disk is a file of another mount of ours, which can be told to fail: an ext4 on it has the device.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.core.copying import random_bytes
from tests.descriptors import opened
from tests.fuse.conftest import ZONEFS_PY, Mounts, run, wait_until
from zonefs_py import MountControl
from zonefs_py.device.file_comparison import same_content
from zonefs_py.fs.opening import open_filesystem

MIB = 1 << 20
BLOCK = 4096
DISK_SIZE = 256 * MIB
CAPACITY = 3 * MIB
BAD = 2 * MIB + 37 * BLOCK
"""Where in seq/0 the bad sector is."""
DATA = random_bytes(CAPACITY, 1)


def forget_pages(path: Path) -> None:
    """Have nothing of a file, or a disk, in the host's page cache."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class Site:
    """A device on an ext4 on a disk that can get a bad sector; its seq/0 is full."""

    def __init__(self, disk: Path, directory: Path) -> None:
        self._disk = disk
        self.device = directory / "disk"
        words = ["--zones", "9", "--conventional", "3", "--zone-size", "4M", "--zone-capacity", "3M"]
        run(ZONEFS_PY, "create", self.device, *words)
        run(ZONEFS_PY, "mkfs", self.device)
        with open_filesystem(self.device) as fs:
            handle = fs.open("seq/0", os.O_WRONLY | os.O_DIRECT)
            assert fs.write(handle, 0, DATA) == CAPACITY

    def break_sector(self) -> None:
        """Make the disk fail where it has the block at `BAD` of seq/0, from now on."""
        zone = self.device / "seq-000003"
        forget_pages(zone)
        lines = run("filefrag", "-v", "-b4096", zone).stdout.splitlines()
        extents = [match for line in lines if (match := re.match(r"\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.", line))]
        places = [
            int(extent[3]) + BAD // BLOCK - int(extent[1])
            for extent in extents
            if int(extent[1]) <= BAD // BLOCK <= int(extent[2])
        ]
        # The disk is zone 1 of the device of the mount that it is on.
        block = DISK_SIZE // BLOCK + places[0]
        rule = {"operation": "read", "blocks": f"{block}", "effect": "fail", "count": None}
        MountControl(self._disk.parent.parent).add_faults([rule])
        forget_pages(self._disk)
        forget_pages(zone)


@pytest.fixture
def site(device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path) -> Iterator[Site]:
    """A `Site`; its ext4 is unmounted before what it is on. Skips where it cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system of the host takes root")
    outer = mounted(device_dir(zones=2, conventional=2, zone_size=DISK_SIZE))
    mounted.expect_log(outer, "fails by rule")
    disk = outer / "cnv/0"
    run("mkfs.ext4", "-q", disk)
    directory = tmp_path / "ext4"
    directory.mkdir()
    done = run("mount", "-o", "loop", disk, directory, check=False)
    if done.returncode:
        pytest.skip(f"ext4 cannot be mounted here: {done.stderr.strip()}")
    try:
        yield Site(disk, directory)
    finally:
        if run("umount", directory, check=False).returncode:
            # A test has failed, and left the device in use.
            run("umount", "--lazy", directory)
        else:
            wait_until("the loop device is gone", lambda: str(disk) not in run("losetup", "--list").stdout)


@pytest.mark.parametrize("engine", ["host", "emulate"])
def test_a_copy_stops_at_a_bad_sector_and_blames_the_source(engine: str, site: Site, mounted: Mounts) -> None:
    """What is in front of it is copied at most, and no zeros in its place. The destination is none the worse for it."""
    mnt = mounted(site.device, f"copy={engine}")
    mounted.expect_log(mnt, rf"seq/0: zone \d: |{os.strerror(errno.EIO)}")
    site.break_sector()
    with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/1", os.O_WRONLY) as writer:
        copied, failed = 0, None
        while failed is None:
            try:
                copied += os.copy_file_range(reader, writer, BAD + BLOCK - copied, copied, copied)
            except OSError as exc:
                failed = exc
            assert copied <= BAD
        assert failed.errno == errno.EIO
        # errors=remount-ro, the default, acts on what cannot be written any more. This can.
        assert not mounted.info(mnt)["mount"]["read_only"]
        assert (mnt / "seq/1").stat().st_size == copied
        assert os.copy_file_range(reader, writer, BLOCK, 0, copied) == BLOCK
    assert (mnt / "seq/1").read_bytes() == DATA[:copied] + DATA[:BLOCK]
    engines = mounted.info(mnt)["copy"]["engines"]
    assert {name: done["errors"] > 0 for name, done in engines.items()} == {
        name: name == engine for name in ("device", "reflink", "host", "emulate")
    }
    mounted.unmount(mnt)


@pytest.mark.parametrize("through_memory", [False, True])
def test_a_clone_of_a_zone_with_a_bad_sector_fails(through_memory: bool, site: Site, tmp_path: Path) -> None:
    parent = Path("/dev/shm") if through_memory else tmp_path
    if not parent.is_dir():
        pytest.skip("no tmpfs at /dev/shm, to which the host does not copy by itself")
    clone = parent / f"zonefs-{os.getpid()}-clone"
    site.break_sector()
    try:
        done = run(ZONEFS_PY, "clone", "--data", site.device, clone, check=False)
        assert done.returncode == 1
        assert os.strerror(errno.EIO) in done.stderr
        assert not clone.exists()
    finally:
        shutil.rmtree(clone, ignore_errors=True)


def test_files_with_bad_sectors_in_the_same_place_are_not_the_same(site: Site) -> None:
    """What cannot be read may differ: it is an error."""
    zone = site.device / "seq-000003"
    with opened(zone, os.O_RDONLY) as one, opened(zone, os.O_RDONLY) as other:
        assert same_content(one, other)
        site.break_sector()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            same_content(one, other)

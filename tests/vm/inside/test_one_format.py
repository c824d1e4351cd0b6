"""One format: what zonefs-py formats or writes, the kernel's zonefs shows alike, and the reverse. In the machine."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.equality import geometry as shapes
from tests.equality import system
from tests.equality.geometry import GEOMETRIES, Geometry, pack_superblock
from tests.equality.nullblk import NullBlk
from tests.equality.subjects import KernelOnNullBlk, OursOnNullBlk, Subject
from zonefs_py.control.client import ask

BLOCK = 4096
SMALL = GEOMETRIES["small"]
FIRST = SMALL.nr_conventional
"""The zone of seq/0."""


def zonefs_py(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command; it must succeed if *check*."""
    command = [sys.executable, "-m", "zonefs_py.cli.main", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done


class OursByCommand(OursOnNullBlk):
    """zonefs-py on a block device, mounted by its command."""

    def mount(self, options: str = "", *, read_only: bool = False) -> None:
        zonefs_py("mount", self.device.path, self.root, *(["-o", options] if options else []))
        self._daemon = os.pidfd_open(ask(self.root, {"request": "ping"})["pid"])

    def umount(self) -> None:
        system.umount(self.root)
        # The device is free when the daemon has ended.
        assert select.select([self._daemon], [], [], 60)[0]
        os.close(self._daemon)


class Disk:
    """A device, and the two file systems that can mount it, one at a time."""

    def __init__(self, directory: Path, geometry: Geometry) -> None:
        self.device = NullBlk(f"format{os.getpid()}", geometry)
        self.kernel, self.ours = KernelOnNullBlk(directory / "kernel"), OursByCommand(directory / "ours")
        self.kernel.device = self.ours.device = self.device

    def mkfs(self, *words: str) -> None:
        """``zonefs-py mkfs`` with *words*."""
        zonefs_py("mkfs", *words, self.device.path)

    def shown_by(self, subject: Subject) -> dict[str, Any]:
        """Mount, and give everything that there is to see."""
        with mounted(subject) as root:
            return shown(subject, root)


@contextmanager
def mounted(subject: Subject, options: str = "") -> Iterator[Path]:
    subject.mount(options)
    try:
        yield Path(subject.root)
    finally:
        subject.umount()


def shown(subject: Subject, root: Path) -> dict[str, Any]:
    """Attributes and content of all files, the space accounting, and the zones."""
    seen: dict[str, Any] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content = zlib.crc32(path.read_bytes()) if path.is_file() else os.listdir(path)
        owner = (f"{status.st_mode:o}", status.st_nlink, status.st_uid, status.st_gid)
        sizes = (status.st_size, status.st_blocks, status.st_blksize)
        seen[str(path.relative_to(root))] = (status.st_ino, *owner, *sizes, content)
    space = os.statvfs(root)
    seen["space"] = (space.f_bsize, space.f_blocks, space.f_bfree, space.f_bavail, space.f_files, space.f_namemax)
    seen["zones"] = [(cond, wp if cond in ("oi", "oe", "cl") else None) for cond, wp in subject.report()]
    return seen


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[Geometry], Disk]]:
    made: list[Disk] = []

    def make(geometry: Geometry = SMALL) -> Disk:
        made.append(Disk(tmp_path, geometry))
        return made[-1]

    yield make
    for one in made:
        one.device.remove()


def append(file: Path, blocks: int, letter: bytes) -> None:
    """Write at the end of a sequential file."""
    address = system.memory(blocks * BLOCK)
    system.poke(address, letter * (blocks * BLOCK))
    descriptor = os.open(file, os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
    try:
        assert system.write_on(descriptor, address, blocks * BLOCK) == blocks * BLOCK
    finally:
        os.close(descriptor)
        system.unmap(address, blocks * BLOCK)


def write_anything(root: Path, letter: bytes) -> None:
    """Change zones in every way that there is."""
    append(root / "seq/0", 3, letter)
    append(root / "seq/1", 1, letter)
    os.truncate(root / "seq/2", SMALL.capacity)
    os.truncate(root / "seq/3", 0)
    append(root / "seq/3", 2, letter)
    os.truncate(root / "seq/1", 0)
    with (root / "cnv/1").open("r+b") as conventional:
        conventional.seek(12345)
        conventional.write(letter * 5000)
        os.fsync(conventional.fileno())


@pytest.mark.parametrize(
    ("geometry", "words", "superblock"),
    [
        ("small", (), {}),
        (
            "small-sectors",
            ("-L", "equality", "-o", "aggr_cnv,uid=7,gid=8,perm=0604"),
            {
                "features": shapes.AGGR_CNV | shapes.UID | shapes.GID | shapes.PERM,
                "uid": 7,
                "gid": 8,
                "perm": 0o604,
            },
        ),
        ("sequential", ("-o", "perm=600"), {"features": shapes.PERM, "perm": 0o600}),
    ],
)
def test_either_format_shows_the_same_in_both(
    disk: Callable[[Geometry], Disk], geometry: str, words: tuple[str, ...], superblock: dict[str, Any]
) -> None:
    """Formatted by zonefs-py, and by hand as the format's description says."""
    made = disk(GEOMETRIES[geometry])
    made.mkfs(*words)
    by_mkfs = made.shown_by(made.kernel)
    assert made.shown_by(made.ours) == by_mkfs
    made.kernel.format(pack_superblock(**superblock))
    assert made.shown_by(made.kernel) == by_mkfs
    assert made.shown_by(made.ours) == by_mkfs
    known = subprocess.run(
        ["blkid", "-p", "-o", "export", made.device.path], capture_output=True, text=True, check=True
    )
    assert "TYPE=zonefs" in known.stdout


def test_write_pointers_moved_by_one_are_seen_by_the_other(disk: Callable[[], Disk]) -> None:
    made = disk()
    made.mkfs()
    for subject, other, letter in ((made.kernel, made.ours, b"k"), (made.ours, made.kernel, b"o")):
        with mounted(subject) as root:
            write_anything(root, letter)
        before = made.shown_by(subject)
        assert made.shown_by(other) == before
        with mounted(other) as root:
            assert (root / "seq/0").read_bytes().endswith(letter * 3 * BLOCK)
            assert (root / "cnv/1").read_bytes()[12345 : 12345 + 5000] == letter * 5000
    zones = made.device.report()
    assert zones[FIRST] == ("cl", 6 * BLOCK)
    assert [zones[FIRST + number][0] for number in (1, 2, 3)] == ["em", "fu", "cl"]


def test_formatting_anew_empties_what_the_other_wrote(disk: Callable[[], Disk]) -> None:
    made = disk()
    made.mkfs()
    with mounted(made.kernel) as root:
        write_anything(root, b"k")
    refused = zonefs_py("mkfs", made.device.path, check=False)
    assert refused.returncode == 1
    assert "zonefs" in refused.stderr
    made.mkfs("-f")
    assert {condition for condition, _ in made.device.report()} == {"nw", "em"}
    assert made.shown_by(made.kernel) == made.shown_by(made.ours)


def test_open_zones_are_left_as_the_kernel_leaves_them(disk: Callable[[Geometry], Disk]) -> None:
    """Both close open zones when they mount, and neither touches them when it unmounts."""
    made = disk(GEOMETRIES["small-limits"])
    made.mkfs()
    first = GEOMETRIES["small-limits"].nr_conventional
    conditions = []
    for subject in (made.kernel, made.ours):
        with mounted(subject, "explicit-open") as root:
            append(root / "seq/0", 1, b"x")
            descriptor = os.open(root / "seq/1", os.O_WRONLY)
            conditions.append([condition for condition, _ in subject.report()[first : first + 3]])
            os.close(descriptor)
        made.device.manage("open", first)
        made.device.manage("open", first + 1)
        with mounted(subject):
            conditions.append([condition for condition, _ in subject.report()[first : first + 3]])
        conditions.append([condition for condition, _ in made.device.report()[first : first + 3]])
    assert conditions[:3] == conditions[3:]

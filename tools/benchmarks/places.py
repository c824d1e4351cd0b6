"""Where copies are measured: a directory of this machine, and file systems that are made and mounted for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.benchmarks.common import MIB, BenchError, check_room, environment, host_filesystem, run

PACKAGES = {"tmpfs": None, "ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
"""File systems that can be mounted for a measurement, and the Debian packages that make them."""
PLACES = ("directory", *PACKAGES)
NAMES = {"xfs": "XFS", "btrfs": "Btrfs"}
"""How they are written in text, where that differs."""
OVERHEAD = 1024 * MIB
"""What an image has more than is asked for: journals, checksums, trees."""


def have_mkfs(name: str) -> bool:
    """See that a file system of this name can be made, installing its tools if possible."""
    package, path = PACKAGES[name], environment()["PATH"]
    if package is None or shutil.which(f"mkfs.{name}", path=path):
        return True
    if shutil.which("apt-get"):
        with contextlib.suppress(BenchError):
            run("apt-get", "update", "-q")
            run("apt-get", "install", "-q", "-y", "--no-install-recommends", package)
    return shutil.which(f"mkfs.{name}", path=path) is not None


@contextlib.contextmanager
def place(name: str, work: Path, room: int) -> Iterator[Path]:
    """Make an empty directory with *room* bytes in the place *name*. Raises BenchError where that cannot be."""
    path = work / name
    if name == "directory":
        check_room(work, room)
        path.mkdir()
        yield path
        return
    if os.geteuid() != 0:
        raise BenchError("only root can mount it")
    image = work / f"{name}.img"
    path.mkdir()
    if name == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", path)
    else:
        if not have_mkfs(name):
            raise BenchError(f"{PACKAGES[name]} is missing and could not be installed")
        check_room(work, room)
        with image.open("wb") as stream:
            stream.truncate(room + OVERHEAD)
        run(f"mkfs.{name}", "-q", image)
        run("mount", "-o", "loop", image, path)
    try:
        yield path
    finally:
        run("umount", path)
        image.unlink(missing_ok=True)


def label(name: str, kind: str) -> str:
    """How a place is called in tables."""
    if name == "directory":
        return kind
    return name if name == "tmpfs" else f"{NAMES.get(name, name)} (loop)"


def kind_of(path: Path) -> str:
    """The type of the file system of *path*; stat(1) does not tell ext4 from its ancestors."""
    return {"ext2/ext3": "ext4"}.get(kind := host_filesystem(path), kind)

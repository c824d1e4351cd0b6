"""What the I/O suite measures: plain files beside the device, mounts of ours, and any other mount (a peer)."""

from __future__ import annotations

import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks.common import MIB, BenchError, info, run
from tools.benchmarks.fio import ENGINES, FILES, Cell

KERNEL_ZONEFS = "zonefs"
OUR_TYPE = "fuse.zonefs-py"
NEVER: frozenset[str] = frozenset()
ALWAYS = frozenset(ENGINES)


@dataclass(frozen=True)
class Target:
    """Where the same cells are measured: files to read, files to write, and whether with O_DIRECT."""

    name: str
    label: str
    kind: str
    """raw; ours, passthrough, device (zonefs-py on a block device); a peer's: files, zonefs-py or kernel."""
    read_files: tuple[Path, ...]
    write_files: tuple[Path, ...]
    direct: bool
    """Whether writes are direct, as sequential files demand."""
    direct_reads: frozenset[str]
    """The engines that read with O_DIRECT."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return self.read_files + self.write_files

    def has(self, cell: Cell) -> bool:
        """Whether *cell* is measured here: passthrough concerns reads only."""
        return self.kind != "passthrough" or cell.operation != "write"

    def described(self) -> dict[str, Any]:
        """For the result."""
        return {
            "name": self.name,
            "label": self.label,
            "kind": self.kind,
            "direct": self.direct,
            "direct_reads": sorted(self.direct_reads),
        }


def plain_files(directory: Path, name: str) -> tuple[Path, ...]:
    """Make the files that a target needs in *directory*."""
    files = tuple(directory / f"{name}-{number}" for number in range(2 * FILES))
    for path in files:
        path.touch()
    return files


def raw_target(directory: Path) -> Target:
    """Plain files in *directory*, through the page cache, as the daemon uses the files of its zones."""
    files = plain_files(directory, "raw")
    return Target("raw", "raw file", "raw", files[:FILES], files[FILES:], direct=False, direct_reads=NEVER)


def zone_files(mount_point: Path) -> tuple[Path, ...]:
    """The sequential files that a target uses on a zonefs. Raises BenchError unless they are there and empty."""
    files = tuple(mount_point / "seq" / str(number) for number in range(2 * FILES))
    for path in files:
        if not path.exists():
            raise BenchError(f"{mount_point} has not the {2 * FILES} sequential files that are needed")
        if path.stat().st_size:
            raise BenchError(f"{path} holds data, which would be lost; empty it first (truncate --size=0 {path})")
    return files


def our_target(mount_point: Path, kind: str) -> Target:
    """A mount of zonefs-py that was made for this."""
    label = {"passthrough": "zonefs-py, passthrough", "device": "zonefs-py on the device"}.get(kind, "zonefs-py")
    files = zone_files(mount_point)
    # As most programs read; only that can pass by the daemon. What cannot has nothing in flight then, under libaio.
    direct_reads = NEVER if kind == "passthrough" else frozenset({"libaio"})
    return Target(kind, label, kind, files[:FILES], files[FILES:], direct=True, direct_reads=direct_reads)


def mount_of(mountinfo: str, path: str) -> tuple[str, str]:
    """Return type and source of the mount that holds *path*, an absolute one, by the text of /proc/self/mountinfo."""
    best, found = "", ("unknown", "unknown")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        inside = mount_point == "/" or path == mount_point or path.startswith(f"{mount_point}/")
        # Of two mounts at one place the later hides the earlier.
        if inside and len(mount_point) >= len(best):
            kind, source = after.split()[:2]
            best, found = mount_point, (kind, source)
    return found


@dataclass(frozen=True)
class Peer:
    """A mount to compare with, as ``--peer [NAME=]DIRECTORY`` names it."""

    directory: Path
    label: str | None = None


def parse_peer(text: str) -> Peer:
    """Parse the argument of ``--peer``. Raises ValueError."""
    name, equals, directory = text.partition("=")
    if equals and "/" not in name:
        if not name or not directory:
            raise ValueError(text)
        return Peer(Path(directory), name)
    return Peer(Path(text))


def peer_target(peer: Peer, number: int) -> Target:
    """The files to use in *peer*, the *number*-th: the sequential files of a zonefs, else plain files made there.

    O_DIRECT in either case: a FUSE file system would be hidden by the page cache otherwise. Raises BenchError.
    """
    directory = peer.directory.resolve()
    if not directory.is_dir():
        raise BenchError(f"--peer {peer.directory}: not a directory")
    kind_of_mount, _ = mount_of(Path("/proc/self/mountinfo").read_text(), str(directory))
    name = f"peer{number}"
    if kind_of_mount in (KERNEL_ZONEFS, OUR_TYPE):
        if not (directory / "seq").is_dir():
            raise BenchError(f"--peer {peer.directory}: a zonefs, but it has no directory seq; give its mount point")
        ours = kind_of_mount == OUR_TYPE
        label = peer.label or ("zonefs-py (peer)" if ours else "kernel zonefs")
        files = zone_files(directory)
        return Target(
            name,
            label,
            "zonefs-py" if ours else "kernel",
            files[:FILES],
            files[FILES:],
            direct=True,
            direct_reads=ALWAYS,
        )
    files = plain_files(directory, "zonefs-py-bench")
    return Target(
        name, peer.label or kind_of_mount, "files", files[:FILES], files[FILES:], direct=True, direct_reads=ALWAYS
    )


def capacity(target: Target) -> int | None:
    """The bytes that each of the files of *target* can hold; None for plain files, which have no such limit."""
    if target.kind in ("raw", "files"):
        return None
    # zonefs shows the capacity of a zone as the blocks of its file.
    return min(path.stat().st_blocks * 512 for path in target.files)


def passthrough_offered(tool: str) -> bool:
    """Whether mounts have the option ``passthrough=``."""
    return "passthrough=" in run(tool, "mount", "--help")


def passthrough_works(tool: str, mount_point: Path) -> bool:
    """Whether the daemon of this mount says that it passes reads through."""
    used = info(tool, mount_point)["capabilities"].get("passthrough")
    return used not in (None, False, "off", "no")


def empty(path: Path) -> None:
    """Truncate to 0: on zonefs that is a zone reset."""
    os.truncate(path, 0)


def fill(path: Path, size: int, *, direct: bool) -> None:
    """Write *size* bytes, a multiple of 1 MiB, from the start, in a way that a sequential file allows."""
    empty(path)
    file = os.open(path, os.O_WRONLY | (os.O_DIRECT if direct else 0))
    try:
        # Memory of a mapping is aligned as O_DIRECT wants it.
        with mmap.mmap(-1, MIB) as block:
            block.write(os.urandom(MIB))
            for offset in range(0, size, MIB):
                if os.pwrite(file, block, offset) != MIB:
                    raise BenchError(f"{path}: a write at {offset} was cut short")
    finally:
        os.close(file)


def remove(target: Target) -> None:
    """Empty the zones of *target*, or remove the plain files that were made for it."""
    for path in target.files:
        if stat.S_ISREG(path.stat().st_mode):
            empty(path)
            if target.kind in ("raw", "files"):
                path.unlink()

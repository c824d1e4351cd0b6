"""The tree: names, numbers, attributes and space as they are after mounting."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import ALL_SHAPES, BOTH, LIVE, all_files, case, mode_of, statvfs


def entries(t: Calls, directory: str) -> list[list[Any]]:
    """What a directory lists, with the parts of entries but their offsets."""
    fd = os.open(t.path(directory), os.O_RDONLY | os.O_DIRECTORY)
    try:
        listed = []
        while batch := system.getdents(fd):
            # The number of ".." of a mount's root is that of the root itself; FUSE and the rest agree.
            listed += [[name, ino, offset, kind] for name, ino, offset, kind in batch]
        return listed
    finally:
        os.close(fd)


@case(*ALL_SHAPES, *LIVE, "scsi-aggregated")
def tree(t: Calls) -> None:
    t.stat("")
    for directory in ("cnv", "seq"):
        t.stat(directory)
        t.record("scandir", [directory], entries, t, directory)
    t.record("scandir", [""], entries, t, "")
    for name in all_files(t):
        t.stat(name)
    t.record("statvfs", [], statvfs, t)
    t.snapshot()
    t.counters()


@case(*BOTH, *LIVE)
def space_accounting(t: Calls) -> None:
    a = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(a, 0, 3 * t.block)
    t.record("statvfs", [], statvfs, t)
    t.truncate("seq/1", t.geometry.capacity)
    t.record("statvfs", [], statvfs, t)
    t.ftruncate(a, 0)
    t.record("statvfs", [], statvfs, t)
    t.snapshot("seq/0", "seq/1")


@case("plain")
def names(t: Calls) -> None:
    for name in (
        "seq/00", "seq/01", "seq/12", "seq/-1", "seq/+1", "seq/ 1", "seq/x", "seq/0x1", "seq/0/", "seq/0/x", "nothing",
        "seq/..", "seq/.", "cnv/3", "cnv/999999999999999", "seq/18446744073709551616", "seq/" + "1" * 16,
        "seq/" + "1" * 17, "seq/" + "n" * 255, "seq/" + "n" * 256, "n" * 17, "seq/4294967296", "./seq//0",
    ):  # fmt: skip
        t.record("lstat", [name], mode_of, t, name)


@case("plain", "odd")
def directories(t: Calls) -> None:
    for name in ("", "seq"):
        for flags in ("RDONLY", "RDONLY|DIRECTORY", "RDWR", "WRONLY", "RDONLY|DIRECT", "RDONLY|TRUNC", "RDWR|CREAT"):
            t.close(t.open(name, flags))
        fd = os.open(t.path(name), os.O_RDONLY)
        t.record("read", [name], os.readv, fd, [bytearray(100)])
        t.record("fsync", [name], os.fsync, fd)
        t.record("fdatasync", [name], os.fdatasync, fd)
        t.record("syncfs", [name], system.syncfs, fd)
        for offset, whence in ((0, 2), (3, 0), (1000, 0), (-1, 0), (2, 1), (0, 3), (0, 4), (0, 2)):
            t.record("lseek", [name, offset, whence], os.lseek, fd, offset, whence)
        for offset in (0, 2, 5, 1000):
            os.lseek(fd, offset, os.SEEK_SET)
            t.record("getdents", [name, offset], system.getdents, fd)
        t.record("ftruncate", [name], os.ftruncate, fd, 0)
        os.close(fd)
        t.record("truncate", [name], os.truncate, t.path(name), 0)


@case("plain")
def statx(t: Calls) -> None:
    for name in ("", "seq", "cnv/0", "seq/0"):
        t.record("statx", [name], list, system.statx(t.path(name)))


@case("plain")
def identity(t: Calls) -> None:
    def file_system_type() -> str:
        # struct statfs begins with the type, a word.
        import ctypes

        buffer = ctypes.create_string_buffer(256)
        if ctypes.CDLL(None).statfs(t.path("").encode(), buffer):
            raise OSError(ctypes.get_errno(), "statfs")
        return hex(struct.unpack_from("q", buffer)[0])

    t.record("statfs-type", [], file_system_type)
    t.record("statvfs-id", [], lambda: os.statvfs(t.path("")).f_fsid != 0)
    t.record("device-number", [], lambda: os.major(os.stat(t.path("seq/0")).st_dev) != 0)
    t.record("sysfs", [], lambda: any(Path("/sys/fs/zonefs").glob("*")) if Path("/sys/fs/zonefs").exists() else False)

    def mount_table() -> list[Any]:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, options, *_ = line.split(" ")
            if where == t.subject.root:
                return [kind, [option for option in options.split(",") if option.startswith("errors=")]]
        return []

    t.record("mount-table", [], mount_table)

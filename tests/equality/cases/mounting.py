"""Superblocks, mount options, remounts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tests.equality import geometry as shapes
from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import case, mode_of, statvfs, use_broken
from tests.equality.subjects import POLICIES


@contextlib.contextmanager
def formatted(t: Calls, **fields: Any) -> Iterator[None]:
    """A device with a superblock that is made of *fields*; it may be mounted at the end."""
    t.subject.format(shapes.pack_superblock(**fields))
    t.line(call="superblock", args=sorted(f"{name}={value}" for name, value in fields.items()), ret=None)
    try:
        yield
    finally:
        t.close_all()
        if os.path.ismount(t.subject.root):
            t.umount()


@case("mounts")
def superblocks(t: Calls) -> None:
    invalid = 0xFFFFFFFF
    tries: tuple[dict[str, Any], ...] = (
        {},
        {"magic": 0x5A4F4654},
        {"crc_error": 1},
        {"label": b"x" * 64},
        {"features": 16},
        {"features": 1 << 40},
        {"features": shapes.UID, "uid": invalid},
        {"features": shapes.GID, "gid": invalid},
        {"uid": 7, "gid": 8, "perm": 0o777},
        {"features": shapes.UID, "uid": 7, "gid": 8},
        {"features": shapes.GID | shapes.PERM, "gid": 8, "perm": 0},
        {"features": shapes.PERM, "perm": 0o4711},
        {"features": shapes.AGGR_CNV},
        {"changes": {108: 1}},
        {"changes": {4095: 1}},
        {"uid": invalid, "gid": invalid},
    )
    for fields in tries:
        with formatted(t, **fields):
            t.mount()
            if os.path.ismount(t.subject.root):
                for name in ("", "cnv/0", "seq/0"):
                    t.stat(name)


@case("mounts")
def superblock_permissions_above_twelve_bits(t: Calls) -> None:
    with formatted(t, features=shapes.PERM, perm=0o1777):
        t.mount()
        t.stat("seq/0")
    with formatted(t, features=shapes.PERM, perm=0o21777):
        t.mount()
        t.record("mode", ["seq/0"], mode_of, t, "seq/0")


@case("mounts")
def mount_options(t: Calls) -> None:
    for options in (
        "errors=remount-ro", "errors=zone-ro", "errors=zone-offline", "errors=repair", "explicit-open",
        "errors=repair,explicit-open", "errors=repair,errors=zone-ro", ",errors=repair,,", "errors=foo", "errors",
        "errors=", "explicit-open=1", "noexplicit-open", "uid=1", "nonsense", " errors=repair",
        "errors=repair,nonsense", "ERRORS=repair",
    ):  # fmt: skip
        with formatted(t):
            t.mount(options)


@case("mounts")
def mount_read_only(t: Calls) -> None:
    with formatted(t):
        t.mount()
        file = t.open("seq/0", "RDWR|DIRECT")
        t.pwrite(file, 0, t.block)
        t.close(file)
        t.umount()
        t.mount(read_only=True)
        read_only_calls(t)


def read_only_calls(t: Calls) -> None:
    """What a read-only file system refuses, and what not."""
    for name in ("seq/0", "cnv/0"):
        for flags in ("RDONLY", "WRONLY", "RDWR|DIRECT", "RDONLY|TRUNC", "WRONLY|TRUNC", "RDONLY|CREAT", "RDWR|CREAT"):
            t.close(t.open(name, flags))
        t.truncate(name, 0)
        t.on(name, "chmod", 0o600)
        t.on(name, "chown", 1, 1)
        t.on(name, "utime", (1, 1))
        t.on(name, "unlink")
        t.stat(name)
        t.content(name)
        reader = t.open(name, "RDONLY")
        t.fsync(reader)
        t.ftruncate(reader, 0)
        t.close(reader)
    t.on("seq", "chmod", 0o555)
    t.on("seq", "rmdir")
    t.record("rename", ["seq/0", "seq/1"], os.rename, t.path("seq/0"), t.path("seq/1"))
    t.record("setxattr", ["seq/0"], os.setxattr, t.path("seq/0"), "user.a", b"x")
    t.snapshot()
    t.counters()


@case("mounts")
def mount_read_only_new_names(t: Calls) -> None:
    with formatted(t):
        t.mount(read_only=True)
        t.on("new", "mkdir", 0o755)
        t.close(t.open("seq/new", "WRONLY|CREAT"))
        t.record("symlink", ["new"], os.symlink, "target", t.path("new"))
        t.record("link", ["seq/0", "new"], os.link, t.path("seq/0"), t.path("new"))
        t.record("rename", ["seq/0", "new"], os.rename, t.path("seq/0"), t.path("new"))


@case("mounts")
def remounts(t: Calls) -> None:
    with formatted(t):
        t.mount("errors=repair")
        file = t.open("seq/0", "RDWR|DIRECT")
        t.pwrite(file, 0, t.block)
        t.remount("", read_only=True)
        t.pwrite(file, t.block, t.block)
        t.close(file)
        t.remount("errors=foo")
        t.remount("nonsense", read_only=True)
        t.writable("seq/0")
        t.remount("", read_only=True)
        read_only_calls(t)
        t.remount("errors=zone-ro", read_only=False)
        file = t.open("seq/0", "RDWR|DIRECT")
        t.pwrite(file, t.block, t.block)
        t.external(t.geometry.seq_zone(0), "write")
        t.pwrite(file, 2 * t.block, t.block)
        t.snapshot("seq/0")


@case("mounts")
def remount_to_explicit_open(t: Calls) -> None:
    t.subject.drop()
    limited = shapes.GEOMETRIES["limits"]
    t.subject.make(limited, (), ())
    with formatted(t):
        t.mount()
        early = t.open("seq/0", "WRONLY|DIRECT")
        t.remount("explicit-open")
        late = t.open("seq/1", "WRONLY|DIRECT")
        t.snapshot()
        t.pwrite(early, 0, t.block)
        t.pwrite(late, 0, t.block)
        t.snapshot()
        t.close(early)
        t.close(late)
        t.snapshot()
    t.subject.drop()
    t.subject.make(t.geometry, (), ())


@case("mounts")
def remount_to_explicit_open_without_limits(t: Calls) -> None:
    with formatted(t):
        t.mount()
        early = t.open("seq/0", "WRONLY|DIRECT")
        t.remount("explicit-open")
        late = t.open("seq/1", "WRONLY|DIRECT")
        t.counters()
        t.snapshot()
        for file in (early, late):
            t.pwrite(file, 0, t.block)
        t.snapshot()
        for file in (early, late):
            t.ftruncate(file, 0)
        t.snapshot()
        for file in (early, late):
            t.close(file)
        t.counters()
        t.snapshot()


@case("mounts")
def finished_while_explicitly_open(t: Calls) -> None:
    """The close of a zone that is full fails."""
    t.subject.drop()
    limited = shapes.GEOMETRIES["limits"]
    for policy in POLICIES:
        t.subject.make(limited, (), ())
        with formatted(t):
            t.mount(f"explicit-open,errors={policy}")
            file = t.open("seq/0", "RDWR|DIRECT")
            t.pwrite(file, 0, t.block)
            t.external(limited.nr_conventional, "finish")
            fd, file.fd = file.fd, -1
            t.files.remove(file)
            t.record("close", ["seq/0"], os.close, fd)
            t.subject.wait_for_closes()
            t.snapshot("seq/0")
            t.counters()
            for number in range(1, 1 + limited.max_open):
                t.open(f"seq/{number}", "RDWR|DIRECT")
        t.subject.drop()
    t.subject.make(t.geometry, (), ())


@case("mounts")
def first_allocation_by_a_user(t: Calls) -> None:
    """On a mount of its own: the first one matters."""
    with formatted(t):
        t.mount()
        t.on("seq/0", "chown", 1000, 1000)
        t.on("seq/0", "chmod", 0o6755)
        with t.user(1000, 1000):
            file = t.open("seq/0", "RDWR|DIRECT")
            t.record("fallocate", ["seq/0", 0], system.fallocate, file.fd, 0, 0, t.block, about=file)
        t.on("seq/0", "chmod", 0o6755)
        with t.user(1000, 1000):
            t.record("fallocate", ["seq/0", 0], system.fallocate, file.fd, 0, 0, t.block, about=file)
        t.close(file)


@case("mounts")
def copies_when_an_error_has_made_it_read_only(t: Calls) -> None:
    with formatted(t):
        t.mount()
        source = t.open("cnv/0", "RDONLY")
        target = t.open("seq/0", "RDWR|DIRECT")
        t.external(t.geometry.seq_zone(1), "write")
        file = t.open("seq/1", "RDWR|DIRECT")
        t.pwrite(file, 0, t.block)
        end = t.geometry.capacity
        for one in (target, file):
            for to in (0, t.block, end - t.block, end, end + t.block):
                args = ["cnv/0", 0, one.name, to, t.block]
                copied = (source.fd, one.fd, t.block, 0, to)
                t.record("copy_file_range", args, os.copy_file_range, *copied, about=one)
        t.close(source)
        t.close(target)
        t.close(file)
    t.external(t.geometry.seq_zone(1), "reset")


def _splice(source: int, pipe: int, length: int) -> int:
    return os.splice(source, pipe, length, offset_src=0)


@case("mounts")
def failing_copy_by_a_user(t: Calls) -> None:
    with formatted(t):
        t.mount()
        for name in ("cnv/0", "seq/0"):
            t.on(name, "chown", 1000, 1000)
            t.on(name, "chmod", 0o6755)
        with t.user(1000, 1000):
            source = t.open("cnv/0", "RDONLY")
            target = t.open("seq/0", "WRONLY|DIRECT")
            args = ["cnv/0", 0, "seq/0", t.block, t.block]
            copied = (source.fd, target.fd, t.block, 0, t.block)
            t.record("copy_file_range", args, os.copy_file_range, *copied, about=target)
        t.close(source)
        t.close(target)
        for name in ("cnv/0", "seq/0"):
            t.on(name, "chown", 0, 0)


@case("mounts")
def splice_of_an_offline_file(t: Calls) -> None:
    with formatted(t):
        t.mount("errors=zone-offline")
        file = t.open("seq/0", "RDWR|DIRECT")
        t.pwrite(file, 0, 2 * t.block)
        buffered = t.open("seq/0", "RDONLY")
        t.external(t.geometry.seq_zone(0), "write")
        t.pwrite(file, 2 * t.block, t.block)
        reader, writer = os.pipe()
        for how, one in (("direct", file), ("buffered", buffered)):
            t.record("splice-out", ["seq/0", how], _splice, one.fd, writer, t.block, about=one)
        os.close(reader)
        os.close(writer)
        t.close(buffered)
        t.close(file)
    t.external(t.geometry.seq_zone(0), "reset")


@case("mounts")
def remount_without_options(t: Calls) -> None:
    with formatted(t):
        t.mount("errors=repair")
        t.record("remount-bare", [], t.subject.remount_bare)
        file = t.open("seq/0", "RDWR|DIRECT")
        t.external(t.geometry.seq_zone(0), "write")
        t.pwrite(file, 0, t.block)
        t.writable("seq/1")


@case("mounts")
def remount_of_read_only(t: Calls) -> None:
    with formatted(t):
        t.mount(read_only=True)
        t.remount("", read_only=False)
        t.writable("seq/0")


@case("mounts")
def access_time_options(t: Calls) -> None:
    with formatted(t):
        t.mount("noatime")
        file = t.open("seq/0", "RDWR|DIRECT")
        t.pwrite(file, 0, t.block)
        os.utime(t.path("seq/0"), ns=(10**9, 2 * 10**9))
        t.moved_times("read", "seq/0", system.read_to, file.fd, t.fill(t.block), t.block, 0)


@case("mounts")
def mount_twice(t: Calls) -> None:
    with formatted(t):
        t.mount()
        t.record("mount-again", [], t.subject.mount_again)


@case("mounts")
def mount_with_broken_zones(t: Calls) -> None:
    t.subject.drop()
    t.subject.make(t.geometry, (), ())
    first = t.geometry.seq_zone(0)
    with formatted(t):
        t.mount()
        for number in range(3):
            file = t.open(f"seq/{number}", "RDWR|DIRECT")
            t.pwrite(file, 0, t.block)
            t.close(file)
        t.umount()
        t.external(first, "readonly")
        t.external(first + 1, "offline")
        t.mount("errors=repair")
        for name in ("seq/0", "seq/1", "seq/2"):
            t.stat(name)
            use_broken(t, name)
        t.record("statvfs", [], statvfs, t)
        t.snapshot()
        t.counters()
    t.subject.drop()
    t.subject.make(t.geometry, (), ())


@case("mounts")
def detached_with_a_file_open(t: Calls) -> None:
    """What umount2(MNT_DETACH) leaves: the open file works, and its end is that of the file system."""
    with formatted(t):
        t.mount()
        file = t.open("seq/0", "RDWR|DIRECT")
        t.pwrite(file, 0, t.block)
        t.record("detach", [], t.subject.detach)
        t.record("mounted", [], os.path.ismount, t.subject.root)
        t.pwrite(file, t.block, t.block)
        t.pread(file, 0, 2 * t.block)
        t.record("fstat", ["seq/0"], lambda: os.fstat(file.fd).st_size)
        t.fsync(file)
        t.close(file)
        t.subject.wait_for_end()
        t.mount()
        t.snapshot("seq/0")
        t.content("seq/0")

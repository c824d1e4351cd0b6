"""Modes, owners, permissions and times."""

from __future__ import annotations

import os
from pathlib import Path

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import case, open_and_close


@case("plain")
def modes(t: Calls) -> None:
    for name in ("seq/0", "cnv/0", "seq", "cnv", ""):
        for mode in (0o600, 0o4755, 0o2755, 0o1777, 0, 0o7777, 0o555, 0o200, 0o444, 0o640 if "/" in name else 0o555):
            t.on(name, "chmod", mode)
    for name in ("seq/0", "cnv/0", "seq", ""):
        for uid, gid in ((1000, 1000), (-1, 5), (7, -1), (-1, -1), (0, 0)):
            t.on(name, "chown", uid, gid)
    t.on("seq/0", "chmod", 0o6755)
    t.on("seq/0", "chown", 1000, 1000)
    t.on("seq/0", "chmod", 0o2644)
    t.on("seq/0", "chown", 0, 0)
    t.on("seq/0", "chmod", 0o640)
    t.on("cnv/0", "chmod", 0o640)


@case("plain")
def modes_last_until_umount(t: Calls) -> None:
    for name in ("seq/3", "seq"):
        t.on(name, "chown", 1000, 1001)
        t.on(name, "chmod", 0o444)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    for name in ("seq/3", "seq"):
        t.line(call="state", args=[name], ret=t.state(name))
    t.umount()
    t.mount()
    for name in ("seq/3", "seq"):
        t.line(call="state", args=[name], ret=t.state(name))


@case("plain")
def set_id_bits(t: Calls) -> None:
    b = t.block
    for mode in (0o6755, 0o6745, 0o2644):
        for action in ("write", "truncate", "finish", "open"):
            t.truncate("seq/0", 0)
            t.on("seq/0", "chown", 1000, 1000)
            t.on("seq/0", "chmod", mode)
            with t.user(1000, 1000):
                file = t.open("seq/0", "WRONLY|DIRECT")
                t.pwrite(file, 0, b)
                if action == "truncate":
                    t.ftruncate(file, 0)
                elif action == "finish":
                    t.ftruncate(file, t.geometry.capacity)
                elif action == "open":
                    t.close(t.open("seq/0", "WRONLY|TRUNC"))
                t.close(file)


def conventional_set_id_bits(t: Calls, flags: str) -> None:
    t.on("cnv/0", "chown", 1000, 1000)
    t.on("cnv/0", "chmod", 0o6755)
    with t.user(1000, 1000):
        file = t.open("cnv/0", flags)
        t.pwrite(file, 0, t.block)
        t.close(file)
        t.line(call="state", args=["cnv/0"], ret=t.state("cnv/0"))
    t.on("cnv/0", "chown", 0, 0)
    t.on("cnv/0", "chmod", 0o640)


@case("plain")
def set_id_bits_of_conventional(t: Calls) -> None:
    conventional_set_id_bits(t, "WRONLY|DIRECT")


@case("plain")
def set_id_bits_of_conventional_buffered(t: Calls) -> None:
    conventional_set_id_bits(t, "WRONLY")


@case("plain")
def set_id_bits_as_root(t: Calls) -> None:
    t.on("seq/0", "chmod", 0o6755)
    file = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(file, 0, t.block)
    t.ftruncate(file, 0)
    t.truncate("seq/0", t.geometry.capacity)


def nr_names(path: str) -> int:
    """How many names a directory lists."""
    return len(os.listdir(path))


def may(t: Calls, name: str, wanted: int) -> bool:
    """What access(2) says to the effective user."""
    return os.access(t.path(name), wanted, effective_ids=True)


@case("plain")
def permissions(t: Calls) -> None:
    file = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(file, 0, t.block)
    t.close(file)

    def attempts() -> None:
        for name in ("seq/0", "cnv/0"):
            for flags in ("RDONLY", "WRONLY|DIRECT", "RDWR", "RDONLY|TRUNC"):
                t.close(t.open(name, flags))
            t.on(name, "truncate", 0)
            t.on(name, "chmod", 0o600)
            t.on(name, "chown", 1000, 1000)
            t.on(name, "chown", 5, 5)
            t.on(name, "utime", (1, 1))
            t.record("utime-now", [name], os.utime, t.path(name))
            for wanted in (os.R_OK, os.W_OK, os.X_OK, os.F_OK):
                t.record(
                    "access",
                    [name, wanted],
                    may,
                    t,
                    name,
                    wanted,
                )
            t.stat(name)
        t.record("listdir", ["seq"], nr_names, t.path("seq"))
        t.on("seq", "chmod", 0o555)
        t.on("seq", "chown", 1000, 1000)

    with t.user(1000, 1000):
        attempts()
    with t.user(1000, 0):
        attempts()
    with t.user(1000, 1000, (0,)):
        t.close(t.open("seq/0", "RDONLY"))
    for name in ("seq/0", "cnv/0"):
        t.on(name, "chown", 1000, 1000)
        for mode in (0o600, 0o400, 0o200, 0, 0o066):
            t.on(name, "chmod", mode)
            with t.user(1000, 1000):
                attempts()
            t.on(name, "chown", 1000, 1000)
        t.on(name, "chown", 0, 0)
        t.on(name, "chmod", 0o640)
    t.record("access", ["", "W"], os.access, t.path(""), os.W_OK)
    t.record("access", ["seq", "W"], os.access, t.path("seq"), os.W_OK)


@case("plain")
def directory_without_permission(t: Calls) -> None:
    t.on("seq", "chmod", 0)
    with t.user(1000, 1000):
        t.record("listdir", ["seq"], nr_names, t.path("seq"))
        t.close(t.open("seq/0", "RDONLY"))
        t.record("lstat", ["seq/0"], lambda: os.lstat(t.path("seq/0")).st_ino)
    t.on("seq", "chmod", 0o555)


@case("plain")
def times_of_calls(t: Calls) -> None:
    b = t.block
    for name in ("seq/0", "cnv/0"):
        file = t.open(name, "RDWR|DIRECT")
        fd, path = file.fd, t.path(name)
        os.utime(path, ns=(10**9, 2 * 10**9))
        t.moved_times("write", name, system.write_from, fd, t.fill(b), b, 0)
        t.moved_times("bad write", name, system.write_from, fd, t.fill(b), b, 100)
        t.moved_times("read", name, system.read_to, fd, t.fill(b), b, 0)
        t.moved_times("read again", name, system.read_to, fd, t.fill(b), b, 0)
        t.moved_times("finish", name, os.ftruncate, fd, t.geometry.capacity)
        t.moved_times("reset", name, os.ftruncate, fd, 0)
        t.moved_times("finish by name", name, os.truncate, path, t.geometry.capacity)
        t.moved_times("reset by name", name, os.truncate, path, 0)
        t.moved_times("read at the end", name, system.read_to, fd, t.fill(b), b, t.size(name))
        t.moved_times("fsync", name, os.fsync, fd)
        t.moved_times("chmod", name, os.chmod, path, 0o644)
        t.moved_times("chown", name, os.chown, path, 0, 0)
        t.moved_times("open", name, open_and_close, path, os.O_RDONLY)
        t.moved_times("truncating open", name, open_and_close, path, os.O_RDONLY | os.O_TRUNC)
        if name == "cnv/0":
            buffered = os.open(path, os.O_RDWR)
            t.moved_times("buffered write", name, system.write_from, buffered, t.fill(10), 10, 0)
            os.close(buffered)
        t.close(file)
    os.chmod(t.path("seq"), 0o555)
    t.moved_times("listing", "seq", os.listdir, t.path("seq"))
    t.moved_times("listing again", "seq", os.listdir, t.path("seq"))
    t.moved_times("chmod", "seq", os.chmod, t.path("seq"), 0o555)
    t.on("cnv/0", "chmod", 0o640)


def set_times(t: Calls, name: str, when: tuple[int, int]) -> None:
    """Set access and modification time, in nanoseconds since 1970."""
    os.utime(t.path(name), ns=when)


@case("plain")
def times_set(t: Calls) -> None:
    for name in ("seq/0", "seq"):
        for when in ((-1_000_000_000, -2_000_000_001), (10**9, 2 * 10**9), (16_725_225_600 * 10**9, 1), (123456789, 5)):
            t.record("utime", [name, *when], set_times, t, name, when)
            t.line(call="times-now", args=[name], ret=list(t.times(name)[:2]))


@case("plain")
def times_after_eviction(t: Calls) -> None:
    os.utime(t.path("seq/0"), ns=(10**9, 2 * 10**9))
    root = os.open(t.path(""), os.O_RDONLY)
    # What is dirty stays; and the first time only takes away the mark that it was used lately.
    system.syncfs(root)
    os.close(root)
    for _ in range(3):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    t.record("times-kept", ["seq/0"], lambda: t.times("seq/0")[:2] == (10**9, 2 * 10**9))

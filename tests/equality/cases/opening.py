"""open(2) and its flags."""

from __future__ import annotations

import fcntl
import os

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import BOTH, case

SEQ_OPEN = (
    "RDONLY", "WRONLY", "RDWR", "ACCMODE", "RDONLY|DIRECT", "WRONLY|DIRECT", "RDWR|DIRECT", "WRONLY|APPEND",
    "RDWR|APPEND|DIRECT", "RDONLY|APPEND", "RDWR|SYNC", "RDWR|DSYNC|DIRECT", "RDWR|NONBLOCK", "RDONLY|NOATIME",
    "RDONLY|NOFOLLOW", "RDONLY|EXCL", "WRONLY|EXCL", "RDONLY|PATH", "RDONLY|CREAT", "RDWR|CREAT|DIRECT",
    "RDWR|CREAT|EXCL", "RDONLY|CREAT|EXCL", "RDONLY|DIRECTORY", "RDWR|TMPFILE|DIRECTORY",
    "WRONLY|TRUNC", "RDWR|TRUNC|DIRECT", "RDONLY|TRUNC", "RDWR|CREAT|TRUNC",
)  # fmt: skip


@case(*BOTH)
def open_flags(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        for flags in SEQ_OPEN:
            writer = t.open("seq/0", "WRONLY|DIRECT|APPEND")
            t.pwrite(writer, 0, t.block)
            t.close(writer)
            t.close(t.open(name, flags))
    t.snapshot("seq/0")


@case("plain")
def open_absent(t: Calls) -> None:
    for directory in ("", "cnv/", "seq/"):
        for flags in ("RDONLY", "RDWR", "WRONLY|CREAT", "RDONLY|CREAT", "RDWR|CREAT|EXCL", "WRONLY|CREAT|TRUNC"):
            t.close(t.open(f"{directory}absent", flags))
        t.close(t.open(directory, "RDWR|TMPFILE|DIRECTORY"))


@case("plain")
def open_through_proc(t: Calls) -> None:
    reader = t.open("seq/0", "RDONLY")

    def call() -> int:
        fd = os.open(f"/proc/self/fd/{reader.fd}", os.O_WRONLY | os.O_DIRECT)
        try:
            return system.write_from(fd, t.fill(t.block), t.block, 0)
        finally:
            os.close(fd)

    t.record("reopen", ["seq/0"], call, about="seq/0")


@case("plain")
def flags_set_later(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        file = t.open(name, "RDWR")
        t.pwrite(file, 0, t.block)
        for flags in (os.O_DIRECT, os.O_DIRECT | os.O_APPEND, os.O_APPEND, os.O_NONBLOCK, os.O_NOATIME, 0):
            t.record("setfl", [name, flags], fcntl.fcntl, file.fd, fcntl.F_SETFL, flags)
            size = t.size(name)
            t.pwrite(file, size if name == "seq/0" else 0, t.block)
            t.pwrite(file, 0, t.block)
            t.pread(file, 0, 100)

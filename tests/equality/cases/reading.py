"""Reads and seeks."""

from __future__ import annotations

import os

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import BOTH, LIVE, case


@case(*BOTH, *LIVE)
def reads(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, 5 * b)
    for flags in ("RDONLY", "RDONLY|DIRECT"):
        file = t.open("seq/0", flags)
        for offset, length in (
            (0, b), (0, 5 * b), (0, 10 * b), (b, 2 * b), (4 * b, 2 * b), (100, 50), (b - 1, 3), (3, b), (0, 100),
            (5 * b - 1, 100), (5 * b, b), (5 * b, 3), (5 * b + 1, 1), (cap, b), (cap + 1, 1), (cap * 4, b), (0, 0),
            (b, 0), (5 * b + 1, 0), (-1, 1), (1 << 62, 1), (0, b + 1), (4 * b, b + 1),
        ):  # fmt: skip
            t.pread(file, offset, length)
        for rwf in ("HIPRI", "NOWAIT", "UNKNOWN", "DSYNC"):
            t.pread(file, 0, b, rwf)
    t.truncate("seq/0", cap)
    t.content("seq/0")
    t.truncate("seq/0", 0)
    t.content("seq/0")


@case("plain")
def read_nothing(t: Calls) -> None:
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, t.block)
    for name in ("seq/0", "cnv/0"):
        for flags in ("RDONLY", "RDONLY|DIRECT"):
            file = t.open(name, flags)
            for offset in (1, 100):
                t.pread(file, offset, 0)


@case("plain")
def read_memory_by_one(t: Calls) -> None:
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, t.block)
    for name in ("seq/0", "cnv/0"):
        file = t.open(name, "RDONLY|DIRECT")
        t.pread(file, 0, t.block, shift=1)


@case("plain")
def read_bad_pointer(t: Calls) -> None:
    writer = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(writer, 0, t.block)
    address = system.memory(4096)
    system.unmap(address, 4096)
    for flags in ("RDONLY", "RDONLY|DIRECT"):
        file = t.open("seq/0", flags)
        t.record("pread-bad", ["seq/0", flags], system.read_to, file.fd, address, t.block, 0)


@case(*BOTH, *LIVE)
def coherence(t: Calls) -> None:
    b = t.block
    early = t.open("seq/0", "RDONLY")
    mapped = t.open("seq/0", "RDWR|DIRECT")
    t.pread(early, 0, b)
    t.pwrite(mapped, 0, 2 * b)
    t.pread(early, 0, 10 * b)
    t.ftruncate(mapped, 0)
    t.pread(early, 0, b)
    t.pwrite(mapped, 0, b)
    t.pread(early, 0, 10 * b)
    t.pread(mapped, 0, b)
    cnv, direct = t.open("cnv/0", "RDWR"), t.open("cnv/0", "RDWR|DIRECT")
    t.pwrite(cnv, 0, 2 * b)
    t.pread(cnv, 0, 100)
    t.pwrite(direct, 0, b)
    t.pread(cnv, 0, 100)
    t.pwrite(cnv, 10, 10)
    t.pread(direct, 0, b)


@case(*BOTH, *LIVE)
def seeks(t: Calls) -> None:
    b = t.block
    file = t.open("seq/0", "RDWR|DIRECT")
    cnv = t.open("cnv/0", "RDWR")
    t.lseek(file, 0, os.SEEK_DATA)
    t.lseek(file, 0, os.SEEK_HOLE)
    t.pwrite(file, 0, 2 * b)
    for one in (file, cnv):
        size = t.size(one.name)
        for offset, whence in (
            (0, 0), (b, 0), (5, 1), (-5, 1), (size, 0), (-1, 0), (-1, 2), (0, 2), (-size, 2), (-size - 1, 2),
            (0, 3), (7, 3), (size - 1, 3), (size, 3), (size + 1, 3), (-1, 3), (0, 4), (7, 4), (size - 1, 4), (size, 4),
            (-1, 4), (0, 5), (0, 99),
        ):  # fmt: skip
            t.lseek(one, offset, whence)


@case("plain")
def seeks_past_the_size(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block)
    for offset, whence in ((t.block + 1, 0), (1, 2), (t.block, 0), (1, 1), (1 << 40, 0)):
        t.lseek(file, offset, whence)

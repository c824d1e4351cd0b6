"""Writes to conventional files."""

from __future__ import annotations

from tests.equality.calls import Calls
from tests.equality.cases.groups import BOTH, case
from tests.equality.geometry import MIB


@case(*BOTH, "aggregated")
def conventional_writes(t: Calls) -> None:
    b = t.block
    size = t.size("cnv/0")
    for flags in ("RDWR", "RDWR|DIRECT", "RDWR|SYNC"):
        file = t.open("cnv/0", flags)
        for offset, length in (
            (0, b), (5, 100), (3 * b, 2 * b), (7 * b + 1, 3 * b), (0, 100), (b, b - 1), (size - b, b),
            (size - 100, 200), (size - 100, 100), (size - b, 2 * b), (size, b), (size, 1), (size + b, b), (size + 3, 1),
            (1 << 62, 1), (-1, 1), (0, 2 * MIB),
        ):  # fmt: skip
            t.pwrite(file, offset, length)
        t.pread(file, 0, 2 * b)
        t.content("cnv/0")
        t.close(file)


@case("plain")
def conventional_append(t: Calls) -> None:
    size = t.size("cnv/0")
    for flags in ("WRONLY|APPEND", "WRONLY|APPEND|DIRECT"):
        file = t.open("cnv/0", flags)
        for offset in (0, t.block, size - t.block):
            t.pwrite(file, offset, t.block)
        t.write(file, t.block)


@case("plain")
def conventional_append_past_end(t: Calls) -> None:
    size = t.size("cnv/0")
    for flags in ("WRONLY|APPEND", "WRONLY|APPEND|DIRECT"):
        file = t.open("cnv/0", flags)
        for offset in (size, size + t.block):
            t.pwrite(file, offset, t.block)


@case("plain")
def conventional_append_by_flag(t: Calls) -> None:
    for flags in ("WRONLY", "WRONLY|DIRECT"):
        file = t.open("cnv/0", flags)
        for offset in (0, t.block):
            t.pwrite(file, offset, t.block, "APPEND")


@case("plain")
def conventional_flags(t: Calls) -> None:
    for flags in ("RDWR", "RDWR|DIRECT"):
        file = t.open("cnv/0", flags)
        for rwf in ("DSYNC", "SYNC", "HIPRI", "NOWAIT", "UNKNOWN"):
            t.pwrite(file, 0, t.block, rwf)
            t.pread(file, 0, t.block, rwf)


@case("plain")
def conventional_memory_by_one(t: Calls) -> None:
    file = t.open("cnv/2", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block, shift=1)
    t.writable("seq/1")


@case(*BOTH)
def conventional_keeps_data(t: Calls) -> None:
    file = t.open("cnv/1", "RDWR")
    t.pwrite(file, 1000, 5000)
    t.fsync(file)
    t.close(file)
    t.umount()
    t.mount()
    t.content("cnv/1")

"""Writes to sequential files: where, how much, through the page cache or not."""

from __future__ import annotations

import os

from tests.equality.calls import Calls
from tests.equality.cases.groups import BOTH, LIVE, all_files, case


@case(*BOTH, *LIVE)
def write_positions(t: Calls) -> None:
    b = t.block
    file = t.open("seq/0", "RDWR|DIRECT")
    for offset, length in (
        (0, b), (b, 3 * b), (0, b), (5 * b, b), (3 * b, b), (3 * b, 2 * b), (2, b), (4 * b + 2, b), (4 * b, b + 100),
        (4 * b, 100), (4 * b, b - 1), (4 * b, 1), (4 * b, 0), (0, 0), (100, 0), (8 * b, 0), (4 * b, b),
        (1 << 62, b), (-1, b), (-b, b),
    ):  # fmt: skip
        t.pwrite(file, offset, length)
    t.content("seq/0")
    t.snapshot()


@case(*BOTH, "odd", "scsi-sectors", "zns")
def write_at_capacity(t: Calls) -> None:
    b = t.block
    last = [name for name in all_files(t) if name.startswith("seq")][-1]
    for name in ("seq/0", last):
        cap = os.stat(t.path(name)).st_blocks * 512
        file = t.open(name, "RDWR|DIRECT")
        t.pwrite(file, 0, cap - 2 * b)
        for offset, length in (
            (cap, b), (cap, 0), (cap, 100), (cap + 5, b), (cap + b, b), (cap - b, b), (2 * cap, b),
            (cap - 2 * b, 3 * b + 100), (cap, b), (cap - b, b), (cap, 0), (0, b), (100, 100), (0, 0),
        ):  # fmt: skip
            t.pwrite(file, offset, length)
        t.content(name)
        t.snapshot()
        t.ftruncate(file, 0)
        t.pwrite(file, 0, cap)
        t.snapshot()
        t.ftruncate(file, 0)
        t.pwrite(file, 0, cap + 3 * b)
        t.pwrite(file, 0, 0)
        t.content(name)
        t.ftruncate(file, 0)
        t.pwrite(file, 0, cap - b)
        t.pwrite(file, cap - b, b + 100)
        t.content(name)
        t.close(file)


@case(*BOTH)
def write_buffered(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    for flags in ("WRONLY", "RDWR", "WRONLY|APPEND", "RDWR|SYNC"):
        file = t.open("seq/0", flags)
        for offset, length in (
            (0, b),
            (0, 1),
            (5, 100),
            (0, cap),
            (b, b),
            (cap - 1, 1),
            (cap, 1),
            (cap, b),
            (2 * cap, 1),
        ):
            if offset < cap or "APPEND" not in flags:
                t.pwrite(file, offset, length)
        t.write(file, b)
        t.close(file)
    t.truncate("seq/0", cap)
    file = t.open("seq/0", "WRONLY")
    for offset in (0, b, cap):
        t.pwrite(file, offset, b)
    t.close(file)
    t.snapshot("seq/0")


@case(*BOTH)
def write_nothing_buffered(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        for flags in ("WRONLY", "WRONLY|APPEND"):
            file = t.open(name, flags)
            for offset in (0, 1, t.block, t.size("cnv/0") - 1):
                t.pwrite(file, offset, 0)


@case(*BOTH)
def write_nothing_at_capacity(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        cap = os.stat(t.path(name)).st_blocks * 512
        for flags in ("WRONLY", "WRONLY|DIRECT", "WRONLY|APPEND", "WRONLY|APPEND|DIRECT"):
            file = t.open(name, flags)
            for offset in (cap, cap + 1):
                t.pwrite(file, offset, 0)

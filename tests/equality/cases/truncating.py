"""truncate(2), ftruncate(2)."""

from __future__ import annotations

import os

from tests.equality.calls import Calls
from tests.equality.cases.groups import BOTH, LIVE, all_files, case


@case(*BOTH, "aggregated", "odd", "scsi", "zns")
def truncations(t: Calls) -> None:
    b, cap, zone = t.block, t.geometry.capacity, t.geometry.zone_size
    largest = max(os.stat(t.path(name)).st_blocks * 512 for name in all_files(t))
    sizes = (
        cap,
        0,
        1,
        b,
        2 * b,
        3 * b,
        cap - b,
        cap + 1,
        cap + b,
        zone,
        zone + 1,
        largest,
        largest + 1,
        1 << 60,
        -1,
        cap,
    )
    for begin in (0, 2 * b, cap):
        for size in sizes:
            writer = t.open("seq/0", "WRONLY|DIRECT")
            t.ftruncate(writer, 0)
            if begin:
                t.pwrite(writer, 0, begin)
            t.ftruncate(writer, size)
            t.truncate("seq/0", size)
            t.snapshot()
            t.close(writer)
    if t.geometry.nr_conventional > 1:
        for size in (0, 1, t.size("cnv/0"), t.size("cnv/0") + 1, largest, largest + 1, -1):
            t.truncate("cnv/0", size)
    last = [name for name in all_files(t) if name.startswith("seq")][-1]
    own = os.stat(t.path(last)).st_blocks * 512
    for size in (own, 0, own - b, own + b, cap):
        t.truncate(last, size)
    t.snapshot(last)


@case("plain", *LIVE)
def truncate_while_open(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    t.truncate("seq/0", 0)
    t.pwrite(file, 2 * b, b)
    t.pwrite(file, 0, b)
    t.truncate("seq/0", cap)
    t.pread(file, cap - b, b)
    t.pwrite(file, b, b)
    t.close(t.open("seq/0", "RDONLY|TRUNC"))
    t.pwrite(file, 0, b)
    t.content("seq/0")
    t.snapshot()


@case("plain", *LIVE)
def truncate_after_external_changes(t: Calls) -> None:
    zone = t.geometry.seq_zone(0)
    file = t.open("seq/0", "RDWR|DIRECT")
    for what in ("write", "reset", "finish"):
        t.pwrite(file, 0, t.block)
        t.external(zone, what)
        t.stat("seq/0")
        t.ftruncate(file, 0)
        t.snapshot("seq/0")

"""Open and active zones: counters, limits, explicit-open."""

from __future__ import annotations

import os

from tests.equality.calls import Calls, File
from tests.equality.cases.groups import LIVE_EXPLICIT_OPEN, LIVE_LIMITS, ZNS_LIMITS, case, statvfs
from tests.equality.subjects import POLICIES


@case("limits", "explicit-open", "active", "unlimited-explicit-open", *LIVE_LIMITS)
def opening_many(t: Calls) -> None:
    b = t.block
    files = []
    for number in range(8):
        files.append(t.open(f"seq/{number}", "WRONLY|DIRECT"))
        t.snapshot()
    t.counters()
    second = t.open("seq/0", "RDWR")
    reader = t.open("seq/7", "RDONLY")
    cnv = t.open("cnv/0", "RDWR")
    t.counters()
    for file in files[:4]:
        if file.fd >= 0:
            t.pwrite(file, 0, b)
    t.snapshot()
    t.counters()
    t.close(files[0])
    t.counters()
    t.close(second)
    t.counters()
    t.snapshot()
    for file in files[1:]:
        t.close(file)
    t.snapshot()
    t.close(reader)
    t.close(cnv)
    t.counters()


@case("limits", "explicit-open", "active", "unlimited-explicit-open", *LIVE_LIMITS)
def open_and_truncate(t: Calls) -> None:
    b, cap = t.block, t.geometry.zone_capacity(8)
    file = t.open("seq/4", "RDWR|DIRECT")
    t.snapshot()
    t.pwrite(file, 0, b)
    t.snapshot()
    t.counters()
    t.ftruncate(file, 0)
    t.snapshot()
    t.counters()
    t.close(file)
    t.snapshot()
    t.counters()
    file = t.open("seq/4", "RDWR|DIRECT")
    t.ftruncate(file, cap)
    t.snapshot()
    t.counters()
    t.ftruncate(file, 0)
    t.snapshot()
    t.counters()
    t.close(file)
    t.snapshot()
    t.counters()
    file = t.open("seq/4", "RDWR|DIRECT")
    t.pwrite(file, 0, cap)
    t.snapshot()
    t.counters()
    t.close(file)
    t.snapshot()
    file = t.open("seq/4", "RDWR|DIRECT")
    t.snapshot()
    t.counters()
    t.close(file)
    t.close(t.open("seq/4", "WRONLY|TRUNC"))
    t.snapshot()
    t.counters()


@case("explicit-open", "active", *LIVE_EXPLICIT_OPEN)
def closing_parts(t: Calls) -> None:
    b = t.block
    file = t.open("seq/0", "WRONLY|DIRECT")
    reader = t.open("seq/0", "RDONLY")
    other = t.open("seq/0", "WRONLY|DIRECT")
    copy = File("seq/0", os.dup(file.fd))
    t.pwrite(file, 0, b)
    t.close(file)
    t.snapshot()
    t.close(other)
    t.snapshot()
    t.counters()
    os.close(copy.fd)
    t.snapshot()
    t.counters()
    t.close(reader)
    t.snapshot()
    t.pwrite(t.open("seq/0", "WRONLY|DIRECT"), b, b)
    t.snapshot()
    t.counters()


@case("explicit-open", *LIVE_EXPLICIT_OPEN)
def limit_of_open_files(t: Calls) -> None:
    t.truncate("seq/6", t.geometry.capacity)
    writer = t.open("seq/5", "WRONLY|DIRECT")
    t.pwrite(writer, 0, t.block)
    t.close(writer)
    files = [t.open(f"seq/{number}", "WRONLY|DIRECT") for number in range(4)]
    for name in ("seq/4", "seq/5", "seq/6", "seq/0"):
        for flags in ("WRONLY", "RDWR|TRUNC", "RDONLY", "WRONLY|DIRECT|APPEND"):
            t.close(t.open(name, flags))
    for name, size in (("seq/4", t.geometry.capacity), ("seq/5", t.geometry.capacity), ("seq/6", 0), ("seq/5", 0)):
        t.truncate(name, size)
    t.close(t.open("seq/6", "RDONLY|TRUNC"))
    t.snapshot()
    t.counters()
    t.close(files[0])
    t.close(t.open("seq/4", "WRONLY|DIRECT"))
    t.snapshot()
    t.counters()


def fill_active(t: Calls, count: int) -> None:
    for number in range(count):
        file = t.open(f"seq/{number}", "WRONLY|DIRECT")
        t.pwrite(file, 0, t.block)
        t.close(file)


@case("limits", *(f"limits-{policy}" for policy in POLICIES), "scsi", *ZNS_LIMITS)
def too_many_active_zones(t: Calls) -> None:
    fill_active(t, 6)
    t.snapshot()
    t.counters()
    file = t.open("seq/7", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block)
    t.writable("seq/0")
    t.pwrite(file, 0, t.block)
    t.pread(file, 0, t.block)
    t.fsync(file)
    t.snapshot("seq/7")
    t.counters()
    t.close(file)
    t.remount("", read_only=False)
    t.writable("seq/7")
    t.truncate("seq/8", t.geometry.capacity)
    t.truncate("seq/1", t.geometry.capacity)
    t.truncate("seq/2", 0)
    t.snapshot()
    again = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(again, t.block, t.block)
    t.snapshot()
    t.counters()


@case("active", "explicit-open", *LIVE_EXPLICIT_OPEN)
def active_zones_and_opens(t: Calls) -> None:
    fill_active(t, 6)
    t.snapshot()
    for name in ("seq/7", "seq/0"):
        t.close(t.open(name, "WRONLY|DIRECT"))
        t.snapshot()
    for name, size in (("seq/8", t.geometry.capacity), ("seq/1", t.geometry.capacity), ("seq/2", 0)):
        t.truncate(name, size)
    t.close(t.open("seq/7", "WRONLY|DIRECT"))
    t.writable("seq/3")
    t.snapshot()
    t.counters()


@case("limits", *LIVE_LIMITS)
def truncate_at_limits(t: Calls) -> None:
    fill_active(t, 4)
    t.snapshot()
    t.truncate("seq/8", t.geometry.capacity)
    t.snapshot()
    fill_active(t, 5)
    t.truncate("seq/0", t.geometry.capacity)
    t.snapshot()
    t.counters()


@case("plain", "limits", "explicit-open", *LIVE_LIMITS)
def conditions_over_a_life(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    file = t.open("seq/0", "WRONLY|DIRECT")
    t.snapshot()
    t.pwrite(file, 0, b)
    t.snapshot()
    t.close(file)
    t.snapshot()
    t.truncate("seq/0", cap)
    t.snapshot()
    t.truncate("seq/0", 0)
    t.snapshot()
    file = t.open("seq/0", "WRONLY|DIRECT")
    t.pwrite(file, 0, cap)
    t.snapshot()
    t.close(file)
    t.snapshot()
    t.truncate("seq/0", 0)


@case("limits", "explicit-open", "plain", *LIVE_LIMITS)
def conditions_over_mounts(t: Calls) -> None:
    options = t.subject.options
    first = t.geometry.seq_zone(0)
    files = [t.open(f"seq/{number}", "WRONLY|DIRECT") for number in range(3)]
    for file in files[:2]:
        t.pwrite(file, 0, 2 * t.block)
    t.truncate("seq/5", t.geometry.capacity)
    t.snapshot()
    for file in files:
        t.close(file)
    t.snapshot()
    t.umount()
    t.external(first, "write")
    t.external(first + 1, "finish")
    t.external(first + 5, "reset")
    t.mount(options)
    t.snapshot("seq/0", "seq/1", "seq/2", "seq/5")
    t.counters()
    t.record("statvfs", [], statvfs, t)

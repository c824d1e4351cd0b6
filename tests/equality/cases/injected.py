"""Commands that a SCSI disk fails, each way with an errno of its own, under each errors= policy."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.equality.calls import Calls
from tests.equality.cases.groups import SCSI_ERRORS, case, recover, spare, use_broken
from tests.equality.cases.mounting import formatted

WAYS = ("hardware", "medium", "aborted", "protection", "full")


def _for_each_way(first: int, test: Callable[[Calls, str, str], None]) -> None:
    """Put a case for each of `WAYS` into the groups; each has a file of its own, from ``seq/first`` on."""
    for number, way in enumerate(WAYS, start=first):

        def one(t: Calls, name: str = f"seq/{number}", way: str = way) -> None:
            test(t, name, way)

        one.__name__ = f"{test.__name__.lstrip('_')}_{way}"
        case(*SCSI_ERRORS)(one)


def _write_fails(t: Calls, name: str, way: str) -> None:
    b = t.block
    file = t.open(name, "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    t.let_fail(f"write {way}")
    t.pwrite(file, 2 * b, b)
    t.let_fail("")
    t.snapshot(name)
    t.counters()
    t.writable(spare(t))
    t.pwrite(file, 2 * b, b)
    t.fsync(file)
    t.snapshot(name)
    recover(t)


def _read_fails(t: Calls, name: str, way: str) -> None:
    b = t.block
    writer = t.open(name, "RDWR|DIRECT")
    for flags in ("RDWR|DIRECT", "RDWR", "RDONLY|DIRECT", "RDONLY"):
        # Nothing of it is cached then.
        t.ftruncate(writer, 0)
        t.pwrite(writer, 0, 4 * b)
        file = t.open(name, flags)
        t.let_fail(f"read {way}")
        t.pread(file, 0, b)
        t.let_fail("")
        t.line(call="state", args=[name], ret=t.state(name))
        t.pread(file, 0, b)
        t.close(file)
    t.pwrite(writer, 4 * b, b)


def _flush_fails(t: Calls, name: str, way: str) -> None:
    b = t.block
    file = t.open(name, "RDWR|DIRECT")
    t.pwrite(file, 0, b)
    t.let_fail(f"flush {way}")
    t.fsync(file)
    t.let_fail("")
    t.snapshot(name)
    t.writable(spare(t))
    t.fsync(file)
    t.pwrite(file, b, b)
    recover(t)


_for_each_way(7, _write_fails)
_for_each_way(14, _read_fails)
_for_each_way(21, _flush_fails)


@case(*SCSI_ERRORS)
def synchronous_write_fails(t: Calls) -> None:
    """Once by the write itself, once by the flush after it."""
    b = t.block
    for name, how in (("seq/31", "write hardware"), ("seq/32", "flush hardware")):
        file = t.open(name, "RDWR|DIRECT|SYNC")
        t.pwrite(file, 0, 2 * b)
        t.let_fail(how)
        t.pwrite(file, 2 * b, b)
        t.let_fail("")
        t.snapshot(name)
        t.counters()
        use_broken(t, name, file)
        recover(t)


@case(*SCSI_ERRORS)
def appending_write_fails(t: Calls) -> None:
    b = t.block
    name = "seq/33"
    file = t.open(name, "RDWR|DIRECT|APPEND")
    t.pwrite(file, 0, 2 * b)
    t.let_fail("write medium")
    t.write(file, b)
    t.let_fail("")
    t.snapshot(name)
    t.write(file, b)
    use_broken(t, name, file)
    recover(t)


@case(*SCSI_ERRORS)
def large_write_fails(t: Calls) -> None:
    """The disk gets it in several commands, and the first are done: a bad one follows."""
    b = t.block
    name = "seq/34"
    file = t.open(name, "RDWR|DIRECT")
    t.pwrite(file, 0, 768 << 10)
    t.let_fail("write hardware")
    t.pwrite(file, 768 << 10, 256 << 10)
    t.let_fail("")
    t.snapshot(name)
    t.pwrite(file, 768 << 10, b)
    t.content(name)
    recover(t)


@case(*SCSI_ERRORS)
def write_and_report_fail(t: Calls) -> None:
    """What became of the zone cannot be told: the file system becomes read-only under every policy."""
    b = t.block
    name = "seq/35"
    file = t.open(name, "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    t.let_fail("write hardware; report hardware")
    t.pwrite(file, 2 * b, b)
    t.writable(name)
    t.let_fail("")
    t.writable(spare(t))
    t.pread(file, 0, b)
    t.snapshot(name)
    t.counters()
    recover(t)


@case(*SCSI_ERRORS)
def read_and_report_fail(t: Calls) -> None:
    b = t.block
    name = "seq/36"
    file = t.open(name, "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    t.let_fail("read medium; report hardware")
    t.pread(file, 0, b)
    t.writable(name)
    t.let_fail("")
    t.writable(spare(t))
    t.pread(file, 0, b)
    recover(t)


@case(*SCSI_ERRORS, "scsi-explicit-open")
def truncation_fails(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    # The last but one: no other case breaks it.
    name = f"seq/{t.geometry.nr_seq_files - 2}"
    for way in ("hardware", "aborted"):
        file = t.open(name, "RDWR|DIRECT")
        t.pwrite(file, 0, b)
        t.let_fail(f"manage {way}")
        for size in (0, cap):
            t.ftruncate(file, size)
            t.truncate(name, size)
        t.close(t.open(name, "RDONLY|TRUNC"))
        t.let_fail("")
        t.snapshot(name)
        t.counters()
        t.writable(spare(t))
        t.pwrite(file, b, b)
        t.ftruncate(file, 0)
        t.snapshot(name)
        recover(t)


@case("scsi-explicit-open")
def opening_fails(t: Calls) -> None:
    name = "seq/0"
    for way in ("hardware", "full"):
        t.let_fail(f"manage {way}")
        t.close(t.open(name, "WRONLY|DIRECT"))
        t.close(t.open(name, "RDONLY"))
        t.let_fail("")
        t.counters()
        t.snapshot(name)
        t.writable(name)
        t.snapshot(name)


@case("scsi-closing")
def closing_fails(t: Calls) -> None:
    """Zones must not stay open unnoticed: the file system becomes read-only."""
    for name, length in (("seq/1", 0), ("seq/2", t.block)):
        file = t.open(name, "WRONLY|DIRECT")
        if length:
            t.pwrite(file, 0, length)
        t.let_fail("manage hardware")
        t.close(file)
        t.let_fail("")
        t.snapshot(name)
        t.counters()
        t.writable(spare(t))
        recover(t)
        t.counters()


@case("scsi-closing")
def closing_and_report_fail(t: Calls) -> None:
    name = "seq/4"
    file = t.open(name, "WRONLY|DIRECT")
    t.pwrite(file, 0, t.block)
    t.let_fail("manage hardware; report hardware")
    t.close(file)
    t.let_fail("")
    t.snapshot(name)
    t.counters()
    t.writable(spare(t))
    recover(t)


@case(*SCSI_ERRORS)
def conventional_file_fails(t: Calls) -> None:
    b = t.block
    file = t.open("cnv/0", "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    for how in ("write hardware", "read medium", "flush hardware"):
        t.let_fail(how)
        t.pwrite(file, b, b)
        t.pread(file, 0, b)
        t.fsync(file)
        t.let_fail("")
        t.line(call="state", args=["cnv/0"], ret=t.state("cnv/0"))
        t.writable(spare(t))
        t.remount("", read_only=False)
        t.pread(file, 0, b)
    recover(t)


@case(*SCSI_ERRORS)
def conventional_read_fails_through_the_cache(t: Calls) -> None:
    for way in WAYS:
        reader = t.open("cnv/1", "RDONLY")
        t.let_fail(f"read {way}")
        t.pread(reader, WAYS.index(way) << 17, t.block)
        t.let_fail("")
        t.writable(spare(t))
        t.close(reader)


@case(*SCSI_ERRORS)
def disk_is_offline(t: Calls) -> None:
    """It gets no more commands, and comes back."""
    b = t.block
    name = "seq/37"
    file = t.open(name, "RDWR|DIRECT")
    other = t.open("seq/38", "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    t.let_fail("offline")
    t.pread(file, 0, b)
    t.pwrite(file, 2 * b, b)
    t.fsync(file)
    t.pwrite(other, 0, b)
    t.ftruncate(file, 0)
    t.writable(name)
    t.let_fail("")
    t.pread(file, 0, b)
    t.writable(spare(t))
    t.snapshot(name)
    t.counters()
    recover(t)


@case("scsi-mounts")
def mounting_fails(t: Calls) -> None:
    with formatted(t):
        for how in ("read medium", "report hardware", "offline"):
            t.let_fail(how)
            t.mount()
            t.let_fail("")
        t.mount()
        file = t.open("seq/0", "WRONLY|DIRECT")
        t.pwrite(file, 0, t.block)
        t.close(file)
        t.umount()
        # A zone that is open is closed by a mount.
        t.external(t.geometry.seq_zone(0), "open")
        t.let_fail("manage hardware")
        t.mount()
        t.let_fail("")
        if not os.path.ismount(t.subject.root):
            t.mount()
        t.snapshot("seq/0")


@case("scsi-mounts")
def copies_fail(t: Calls) -> None:
    """Both ends of a copy can."""
    b = t.block
    with formatted(t):
        t.mount("errors=repair")
        source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR|DIRECT")
        t.pwrite(source, 0, 4 * b)
        for how in ("read hardware", "write hardware", "write full"):
            t.let_fail(how)
            args = ["seq/0", 0, "seq/1", 0, 4 * b]
            t.record("copy_file_range", args, os.copy_file_range, source.fd, target.fd, 4 * b, 0, 0, about=target)
            t.let_fail("")
            t.snapshot("seq/1")

"""What follows when the device fails all writes and flushes for a while, or drops them, under each errors= policy."""

from __future__ import annotations

import os

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import FLAKY, case, recover, use_broken


@case(*FLAKY)
def write_fails_on_a_flaky_device(t: Calls) -> None:
    b = t.block
    for name, flags in (
        ("seq/0", "RDWR|DIRECT"),
        ("seq/1", "RDWR|DIRECT|APPEND"),
        ("seq/2", "RDWR|DIRECT|SYNC"),
        ("cnv/0", "RDWR|DIRECT"),
    ):
        file = t.open(name, flags)
        t.pwrite(file, 0, 2 * b)
        t.let_fail("error")
        t.pwrite(file, 2 * b, b)
        t.pread(file, 0, b)
        t.snapshot(name)
        t.counters()
        t.writable("seq/30")
        t.let_fail("")
        t.pwrite(file, 2 * b, b)
        t.fsync(file)
        t.snapshot(name)
        if name.startswith("seq"):
            use_broken(t, name, file)
        recover(t)


@case(*FLAKY)
def copy_fails_on_a_flaky_device(t: Calls) -> None:
    b = t.block
    source = t.open("seq/40", "RDWR|DIRECT")
    t.pwrite(source, 0, 4 * b)
    for name in ("seq/41", "cnv/2"):
        file = t.open(name, "RDWR|DIRECT")
        args = ["seq/40", 0, name, 0, 2 * b]
        t.let_fail("error")
        t.record("copy_file_range", args, os.copy_file_range, source.fd, file.fd, 2 * b, 0, 0, about=file)
        t.let_fail("")
        t.snapshot(name)
        t.record("copy_file_range", args, os.copy_file_range, source.fd, file.fd, 2 * b, 0, 0, about=file)
        t.snapshot(name)
    recover(t)


@case(*FLAKY)
def asynchronous_write_to_conventional_fails(t: Calls) -> None:
    file = t.open("cnv/2", "RDWR|DIRECT")
    writer = system.AsyncWriter()
    t.let_fail("error")
    t.record("io_submit", ["cnv/2"], writer.write, file.fd, [(t.fill(t.block), t.block, 0)], about=file)
    t.let_fail("")
    t.pwrite(file, 0, t.block)
    writer.close()
    recover(t)


@case(*FLAKY)
def flush_fails(t: Calls) -> None:
    b = t.block
    for name, flags in (("seq/3", "RDWR|DIRECT"), ("seq/4", "RDWR"), ("seq/5", "RDONLY"), ("cnv/1", "RDWR|DIRECT")):
        writer = t.open(name, "RDWR|DIRECT")
        t.pwrite(writer, 0, 2 * b)
        file = t.open(name, flags)
        t.let_fail("error")
        t.fsync(file)
        t.snapshot(name)
        t.counters()
        t.writable("seq/30")
        t.fsync(file)
        t.let_fail("")
        t.fsync(file)
        t.pread(file, 0, b)
        t.pwrite(writer, 2 * b, b)
        t.snapshot(name)
        if name.startswith("seq"):
            use_broken(t, name, writer)
        recover(t)


@case(*FLAKY)
def conventional_is_read_after_its_flush_failed(t: Calls) -> None:
    for flags in ("RDONLY", "RDONLY|DIRECT"):
        file = t.open("cnv/1", flags)
        t.pread(file, 0, t.block)
        t.pread(file, 0, 0)
        t.lseek(file, 0, os.SEEK_END)
        t.close(file)
    t.content("cnv/1")


@case(*FLAKY)
def flush_for_another_file_fails(t: Calls) -> None:
    """One flush is for the whole device, but the file that asked for it has the error."""
    b = t.block
    one, two = t.open("seq/6", "RDWR|DIRECT"), t.open("seq/7", "RDWR|DIRECT")
    t.pwrite(one, 0, b)
    t.pwrite(two, 0, b)
    t.let_fail("error")
    t.fsync(one)
    for file in (one, two):
        t.line(call="state", args=[file.name], ret=t.state(file.name))
    t.fsync(two)
    t.let_fail("")
    for file in (one, two):
        t.pwrite(file, b, b)
        t.fsync(file)
    recover(t)


@case(*FLAKY)
def truncation_while_writes_fail(t: Calls) -> None:
    """Zone management is no write."""
    file = t.open("seq/9", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block)
    t.let_fail("error")
    t.ftruncate(file, t.geometry.capacity)
    t.ftruncate(file, 0)
    t.snapshot("seq/9")
    t.let_fail("")
    t.pwrite(file, 0, t.block)
    t.snapshot("seq/9")


@case(*FLAKY)
def writes_are_dropped(t: Calls) -> None:
    """The device says that they are done; a later write meets a write pointer that has not moved."""
    b = t.block
    file = t.open("seq/10", "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * b)
    t.let_fail("drop")
    t.pwrite(file, 2 * b, b)
    t.fsync(file)
    t.let_fail("")
    t.pwrite(file, 3 * b, b)
    t.snapshot("seq/10")
    t.counters()
    t.pread(file, 0, b)
    use_broken(t, "seq/10", file)
    recover(t)


@case(*FLAKY)
def flush_of_nothing_fails(t: Calls) -> None:
    # The last one: where nothing is flushed, nothing breaks, and what follows would show that.
    file = t.open("seq/8", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block)
    t.fsync(file)
    t.let_fail("error")
    t.fsync(file)
    t.line(call="state", args=["seq/8"], ret=t.state("seq/8"))
    t.let_fail("")
    t.pwrite(file, t.block, t.block)
    recover(t)

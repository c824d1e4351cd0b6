"""Writes to sequential files: appending, flags, memory, limits, asynchronous ones."""

from __future__ import annotations

import errno
import resource
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.equality import system
from tests.equality.calls import Calls, File
from tests.equality.cases.groups import BOTH, LIVE, case
from tests.equality.geometry import MIB


@case(*BOTH, *LIVE)
def write_append(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    file = t.open("seq/0", "RDWR|APPEND|DIRECT")
    for offset, length in ((0, b), (0, b), (7 * b, b), (100, 2 * b), (cap - 1, b), (0, 100), (0, b + 1)):
        t.pwrite(file, offset, length)
    t.write(file, b)
    t.write(file, 3 * b)
    t.content("seq/0")
    t.ftruncate(file, 0)
    t.write(file, cap - b)
    t.pwrite(file, 0, 3 * b)
    for offset in (0, cap):
        t.pwrite(file, offset, b)
    t.write(file, b)
    t.snapshot()


@case(*BOTH, *LIVE)
def write_append_past_capacity(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    for flags in ("WRONLY|APPEND|DIRECT", "WRONLY|APPEND"):
        file = t.open("seq/0", flags)
        for offset in (cap, cap + b, 2 * cap):
            t.truncate("seq/0", 0)
            t.pwrite(file, offset, b)
    file = t.open("seq/1", "WRONLY|DIRECT")
    t.pwrite(file, cap, b, "APPEND")
    t.truncate("seq/3", cap)
    t.pwrite(t.open("seq/3", "WRONLY"), 0, b, "APPEND")
    full = t.open("seq/2", "WRONLY|DIRECT|APPEND")
    t.write(full, cap)
    t.truncate("seq/2", 0)
    t.write(full, b)


@case(*BOTH, *LIVE)
def write_flags(t: Calls) -> None:
    b, cap = t.block, t.geometry.capacity
    for flags in ("RDWR|DIRECT", "RDWR"):
        file = t.open("seq/0", flags)
        for rwf in ("DSYNC", "SYNC", "HIPRI", "DSYNC|HIPRI", "NOWAIT", "APPEND", "APPEND|DSYNC", "UNKNOWN"):
            for offset in (t.size("seq/0"), 0):
                t.pwrite(file, offset, b, rwf)
        t.pwrite(file, -1, b, "APPEND")
        t.content("seq/0")
        t.close(file)
    t.truncate("seq/0", cap)
    file = t.open("seq/0", "WRONLY|DIRECT")
    for offset in (0, cap, -1):
        t.pwrite(file, offset, b, "APPEND")


@case(*BOTH, *LIVE)
def write_synchronous(t: Calls) -> None:
    b = t.block
    for flags in ("WRONLY|DIRECT|SYNC", "WRONLY|DIRECT|DSYNC", "WRONLY|DIRECT|APPEND|SYNC"):
        file = t.open("seq/0", flags)
        t.pwrite(file, t.size("seq/0"), 2 * b)
        t.pwrite(file, 0, b)
        t.close(file)
    t.content("seq/0")


@case("sectors")
def write_memory_of_blocks(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, 4096, shift=512)
    t.pwrite(file, 4096, 512, shift=1024)
    t.pread(file, 0, 4096, shift=512)
    t.content("seq/0")


@case("plain")
def write_memory_by_one(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, t.block, shift=1)
    t.writable("seq/1")
    t.remount("", read_only=False)


@case("plain")
def write_memory_in_pieces(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    address = t.fill(2 * t.block)
    pieces = [(address, 100), (address + 100, t.block - 100)]
    t.record("pwritev", ["seq/0", 0, [100, t.block - 100]], system.writev, file.fd, pieces, 0, about=file)
    t.writable("seq/1")
    t.remount("", read_only=False)


@case(*BOTH, *LIVE)
def write_in_whole_pieces(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    address = t.fill(8192)
    pieces = [(address + 4096, 4096), (address, 4096)]
    t.record("pwritev", ["seq/0", 0, [4096, 4096]], system.writev, file.fd, pieces, 0, about=file)
    t.content("seq/0")


@case("plain")
def write_bad_pointer(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    address = system.memory(4096)
    system.unmap(address, 4096)
    t.record("pwrite-bad", ["seq/0"], system.write_from, file.fd, address, t.block, 0, about=file)
    t.writable("seq/1")
    t.remount("", read_only=False)


@case(*BOTH, *LIVE)
def write_two_descriptors(t: Calls) -> None:
    b = t.block
    one, two = t.open("seq/0", "WRONLY|DIRECT"), t.open("seq/0", "RDWR|DIRECT")
    t.write(one, b)
    t.write(two, b)
    t.pwrite(two, b, b)
    t.write(one, b)
    t.pwrite(one, 2 * b, b)
    t.content("seq/0")


@case("plain")
def write_limit_of_size(t: Calls) -> None:
    b = t.block
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = t.open("seq/0", "WRONLY|DIRECT")
    cnv = t.open("cnv/0", "WRONLY")
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The record is written to a file as well.
    t.out.flush()
    results = []
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * b, before[1]))
        for one, offset, length in ((file, 0, 3 * b), (file, 2 * b, b), (cnv, 2 * b, b), (cnv, b, 2 * b)):
            try:
                results.append(system.write_from(one.fd, t.fill(length), length, offset))
            except OSError as exc:
                results.append(-(exc.errno or 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kept)
    t.line(call="limited", args=[], ret=results, state=t.state("seq/0"))


@case("plain")
def write_to_wrong_descriptors(t: Calls) -> None:
    for name in ("seq/0", "cnv/0"):
        for flags in ("RDONLY|DIRECT", "RDONLY", "RDONLY|PATH", "ACCMODE|DIRECT"):
            file = t.open(name, flags)
            t.pwrite(file, 0, t.block)
            t.ftruncate(file, 0)
            t.pread(file, 0, 10)
            t.fsync(file)
            t.close(file)
        file = t.open(name, "WRONLY|DIRECT")
        t.pread(file, 0, 100)


@case(*BOTH, *LIVE)
def write_large(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, MIB + 2 * t.block)
    t.pwrite(file, MIB + 2 * t.block, MIB + t.block)
    t.content("seq/0")


@case("plain")
def write_large_unaligned(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, MIB + 100)


# Not on 4096-byte blocks: null_blk (Linux 6.12) then writes past its own pages, and the machine dies.
@case("sectors", "scsi-sectors")
def write_large_from_memory_of_blocks(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, 2 * MIB, shift=512)
    t.content("seq/0")


@case("scsi", "zns")
def large_with_memory_within_a_page(t: Calls) -> None:
    file = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(file, 0, MIB - 4096, shift=512)
    t.pread(file, 0, MIB - 4096, shift=512)
    t.pwrite(file, MIB - 4096, 2 * MIB, shift=512)
    t.truncate("seq/0", t.geometry.capacity)
    t.pread(file, 0, 2 * MIB, shift=512)


@case("plain")
def asynchronous_past_the_end(t: Calls) -> None:
    b = t.block
    writer = system.AsyncWriter()
    for name in ("cnv/0", "seq/1"):
        file = t.open(name, "RDWR|DIRECT")
        end = t.geometry.capacity
        if name == "seq/1":
            t.pwrite(file, 0, end - b)
        pieces = [(t.fill(2 * b), 2 * b, end - b)]
        t.record("io_submit", [name, end - b], writer.write, file.fd, pieces, about=file)
        t.content(name)
    writer.close()


@case(*BOTH, *LIVE)
def asynchronous(t: Calls) -> None:
    b = t.block
    writer = system.AsyncWriter()

    def submit(file: File, pieces: list[tuple[int, int]], rwf: str = "") -> None:
        args = [file.name, pieces, rwf]
        asked = [(t.fill(length, 65536 * index), length, offset) for index, (offset, length) in enumerate(pieces)]

        def call() -> list[Any]:
            from tests.equality.calls import rwf_flags

            results = writer.write(file.fd, asked, rwf_flags(rwf))
            return [errno.errorcode[-one] if one < 0 else one for one in results]

        t.record("io_submit", args, call, about=file)

    for flags in ("WRONLY|DIRECT", "WRONLY|DIRECT|APPEND", "WRONLY"):
        file = t.open("seq/0", flags)
        submit(file, [(0, b)])
        submit(file, [(b, b)])
        submit(file, [(b, b)])
        submit(file, [(5 * b, b)])
        submit(file, [(2 * b, b)], "APPEND")
        submit(file, [(3 * b, b)], "NOWAIT")
        submit(file, [(t.size("seq/0"), b)], "DSYNC")
        t.close(file)
    cnv = t.open("cnv/0", "WRONLY|DIRECT")
    if cnv.fd >= 0:
        submit(cnv, [(0, b), (5 * b, 4 * b), (2 * b, b)])
        submit(cnv, [(0, 100)])
    t.content("seq/0")
    t.content("cnv/0")
    writer.close()


@case(*BOTH, *LIVE)
def appends_of_threads(t: Calls) -> None:
    """On one descriptor: each is whole, at an offset of its own, whoever comes first."""
    b, nr_threads, nr_writes = t.block, 4, 32
    file = t.open("seq/0", "WRONLY|DIRECT|APPEND")
    address = t.fill(nr_threads * nr_writes * b)
    for number in range(nr_threads * nr_writes):
        system.poke(address + number * b, struct.pack("<I", number))

    def append(thread: int) -> list[int]:
        first = thread * nr_writes
        return [system.write_on(file.fd, address + (first + one) * b, b) for one in range(nr_writes)]

    def call() -> list[int]:
        with ThreadPoolExecutor(nr_threads) as pool:
            return sorted({written for one in pool.map(append, range(nr_threads)) for written in one})

    t.record("appends", [nr_threads, nr_writes], call, about=file)
    with open(t.path("seq/0"), "rb") as reader:
        blocks = sorted(iter(lambda: reader.read(b), b""))
    t.line(call="content-in-any-order", args=["seq/0"], ret=[len(blocks), t.digest(b"".join(blocks))])

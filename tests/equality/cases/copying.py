"""copy_file_range(2), sendfile(2), splice(2), clones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from tests.equality.calls import Calls, File
from tests.equality.cases.groups import BOTH, all_files, case

FICLONE = 0x40049409
FICLONERANGE = 0x4020940D


@case(*BOTH)
def copies(t: Calls) -> None:
    b = t.block
    cnv = t.open("cnv/0", "RDWR")
    t.pwrite(cnv, 0, 16 * 4096)
    t.fsync(cnv)
    source = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(source, 0, 8 * 4096)
    target = t.open("seq/1", "RDWR|DIRECT")
    append = t.open("seq/1", "RDWR|DIRECT|APPEND")
    reader = t.open("seq/1", "RDONLY")
    writer = t.open("seq/0", "WRONLY|DIRECT")

    def copy(one: File, at: int, two: File, to: int, length: int) -> None:
        args = [one.name, at, two.name, to, length]
        t.record("copy_file_range", args, os.copy_file_range, one.fd, two.fd, length, at, to, about=two)

    copy(source, 0, target, 0, 4096)
    copy(source, 4096, target, 4096, 8192)
    copy(cnv, 0, target, t.size("seq/1"), 16 * 4096)
    copy(source, 0, target, 0, 4096)
    copy(source, 0, target, t.size("seq/1") + 4096, 4096)
    copy(source, 0, target, t.geometry.capacity, 4096)
    copy(source, 0, target, t.size("seq/1"), 0)
    copy(source, 8 * 4096, target, t.size("seq/1"), 4096)
    copy(source, 6 * 4096, target, t.size("seq/1"), 100 * 4096)
    copy(source, 0, append, t.size("seq/1"), 4096)
    copy(source, 0, reader, t.size("seq/1"), 4096)
    copy(writer, 0, target, t.size("seq/1"), 4096)
    copy(target, 0, target, t.size("seq/1"), 4096)
    copy(target, 0, target, 4096, 8192)
    copy(target, 0, target, t.size("seq/1") - 4096, 8192)
    copy(source, 0, cnv, 4096, 8192)
    copy(cnv, 100, cnv, 20000, 1000)
    copy(cnv, 0, cnv, 65536, 4096)
    copy(cnv, 0, cnv, 100, 4096)
    copy(source, 0, cnv, t.size("cnv/0"), 4096)
    copy(cnv, 0, cnv, t.size("cnv/0") - 1000, 4096)
    t.content("seq/1")
    t.content("cnv/0")
    t.pwrite(target, t.size("seq/1"), t.geometry.capacity - t.size("seq/1") - b)
    copy(source, 0, target, t.size("seq/1"), 4096 * 2)
    copy(source, 0, target, t.size("seq/1"), 4096)
    copy(source, 0, target, 0, 4096)
    t.content("seq/1")
    t.snapshot()


@case("plain")
def copy_whole_zone(t: Calls) -> None:
    cap = t.geometry.capacity
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR|DIRECT")
    t.pwrite(source, 0, cap)

    def call() -> int:
        done = 0
        while got := os.copy_file_range(source.fd, target.fd, cap - done, done, done):
            done += got
            if done == cap:
                break
        return done

    t.record("copy_file_range", ["seq/0", "seq/1", cap], call, about=target)
    t.content("seq/1")
    t.snapshot()


@case("plain")
def copy_elsewhere(t: Calls) -> None:
    source = t.open("seq/0", "RDWR|DIRECT")
    t.pwrite(source, 0, t.block)
    fd = os.open(os.path.dirname(t.subject.root) + "/other", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(fd, bytes(8192))
    for length in (4096, 0):
        t.record("copy-out", [length], os.copy_file_range, source.fd, fd, length, 0, 0)
        t.record("copy-in", [length], os.copy_file_range, fd, source.fd, length, 0, t.block, about=source)
    os.close(fd)


@case("plain")
def copy_to_buffered(t: Calls) -> None:
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR")
    t.pwrite(source, 0, t.block)
    t.record(
        "copy_file_range", ["seq/0", "seq/1"], os.copy_file_range, source.fd, target.fd, t.block, 0, 0, about=target
    )


@case("plain")
def copy_part_of_a_block(t: Calls) -> None:
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR|DIRECT")
    t.pwrite(source, 0, 4 * t.block)
    for length in (100, t.block + 100):
        args = ["seq/0", "seq/1", length]
        t.record("copy_file_range", args, os.copy_file_range, source.fd, target.fd, length, 0, 0, about=target)


@case("plain")
def copy_from_within_a_block(t: Calls) -> None:
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR|DIRECT")
    t.pwrite(source, 0, 4 * t.block)
    args = ["seq/0", 100, "seq/1"]
    t.record("copy_file_range", args, os.copy_file_range, source.fd, target.fd, t.block, 100, 0, about=target)
    t.writable("seq/3")
    t.remount("", read_only=False)


@case("plain")
def copy_unaligned_direct_source(t: Calls) -> None:
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("cnv/2", "RDWR")
    t.pwrite(source, 0, 4 * t.block)
    for at, to, length in ((100, 300, 1000), (0, t.size("cnv/2") - 1000, 4096)):
        args = ["seq/0", at, "cnv/2", to, length]
        t.record(
            "copy_file_range",
            args,
            os.copy_file_range,
            source.fd,
            target.fd,
            length,
            at,
            to,
            about=target,
        )


@case("plain")
def copy_nothing(t: Calls) -> None:
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR|DIRECT")
    largest = max(os.stat(t.path(name)).st_blocks * 512 for name in all_files(t))
    for to in (largest, 2 * largest):
        args = ["seq/0", 0, "seq/1", to]
        t.record("copy_file_range", args, os.copy_file_range, source.fd, target.fd, 4096, 0, to, about=target)


@case("plain")
def copy_within_a_file_past_the_largest(t: Calls) -> None:
    file = t.open("cnv/0", "RDWR")
    end = t.size("cnv/0")
    t.pwrite(file, end - 3 * 4096, 3 * 4096)
    for at, to, length in ((end - 3 * 4096, end - 4096, 4 * 4096), (end - 2 * 4096, end - 4096, 2 * 4096)):
        args = ["cnv/0", at, "cnv/0", to, length]
        t.record("copy_file_range", args, os.copy_file_range, file.fd, file.fd, length, at, to, about=file)
    t.content("cnv/0")


@case("plain")
def send_nothing(t: Calls) -> None:
    source, target = t.open("cnv/0", "RDWR"), t.open("seq/0", "WRONLY|DIRECT")
    for offset in (t.size("cnv/0"), 1 << 40):
        t.record("sendfile", ["cnv/0", offset], os.sendfile, target.fd, source.fd, offset, 4096, about=target)


@case("plain")
def send_file(t: Calls) -> None:
    b = t.block
    source = t.open("cnv/0", "RDWR")
    t.pwrite(source, 0, 8 * b)
    for flags in ("WRONLY|DIRECT", "WRONLY"):
        target = t.open("seq/0", flags)

        def send(offset: int, length: int, target: File = target) -> None:
            args = ["cnv/0", offset, "seq/0", length]
            t.record("sendfile", args, os.sendfile, target.fd, source.fd, offset, length, about=target)

        os.lseek(target.fd, t.size("seq/0"), os.SEEK_SET)
        send(0, b)
        send(b, 2 * b)
        send(0, 0)
        send(t.size("cnv/0") - b, b)
        os.lseek(target.fd, 0, os.SEEK_SET)
        send(0, b)
    t.content("seq/0")
    cnv = t.open("cnv/1", "RDWR")
    t.record("sendfile", ["cnv/0", 100, "cnv/1", 5000], os.sendfile, cnv.fd, source.fd, 100, 5000, about=cnv)
    t.content("cnv/1")


@case("plain")
def send_file_part_of_a_block(t: Calls) -> None:
    source, target = t.open("cnv/0", "RDWR"), t.open("seq/0", "WRONLY|DIRECT")
    t.record("sendfile", ["cnv/0", 0, "seq/0", 100], os.sendfile, target.fd, source.fd, 0, 100, about=target)


@case("plain")
def splices(t: Calls) -> None:
    b = t.block
    source = t.open("cnv/0", "RDWR")
    t.pwrite(source, 0, 8 * b)
    reader, writer = os.pipe()

    def through(target: File, offset: int, length: int) -> None:
        def call() -> list[int]:
            into = os.splice(source.fd, writer, length, offset_src=0)
            try:
                return [into, os.splice(reader, target.fd, into, offset_dst=offset)]
            finally:
                os.set_blocking(reader, False)
                with contextlib.suppress(BlockingIOError):
                    os.read(reader, 1 << 16)
                os.set_blocking(reader, True)

        t.record("splice", [target.name, offset, length], call, about=target)

    direct, buffered = t.open("seq/0", "WRONLY|DIRECT"), t.open("seq/0", "WRONLY")
    append, cnv = t.open("seq/0", "WRONLY|DIRECT|APPEND"), t.open("cnv/1", "RDWR")
    through(direct, 0, b)
    through(direct, b, 2 * b)
    through(direct, 0, b)
    through(buffered, 3 * b, b)
    through(append, 3 * b, b)
    through(cnv, 100, 5000)
    through(cnv, t.size("cnv/1"), b)
    t.content("seq/0")
    t.content("cnv/1")
    os.close(reader)
    os.close(writer)


@case("plain")
def splice_part_of_a_block(t: Calls) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 100)
    target = t.open("seq/0", "WRONLY|DIRECT")
    t.record("splice", ["seq/0", 0, 100], lambda: os.splice(reader, target.fd, 100, offset_dst=0), about=target)
    os.close(reader)
    os.close(writer)


@case("plain")
def clones(t: Calls) -> None:
    source, target = t.open("seq/0", "RDWR|DIRECT"), t.open("seq/1", "RDWR|DIRECT")
    t.pwrite(source, 0, t.block)
    other = os.open(os.path.dirname(t.subject.root) + "/other", os.O_RDWR | os.O_CREAT)
    t.record("FICLONE", ["seq/0", "seq/1"], fcntl.ioctl, target.fd, FICLONE, source.fd, about=target)
    for length in (t.block, 0):
        words = struct.pack("qQQQ", source.fd, 0, length, 0)
        t.record("FICLONERANGE", ["seq/0", "seq/1", length], fcntl.ioctl, target.fd, FICLONERANGE, words)
    t.record("FICLONE", ["elsewhere"], fcntl.ioctl, target.fd, FICLONE, other, about=target)
    os.close(other)

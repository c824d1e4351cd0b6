"""The copy ioctl on real mounts: data, sizes, caches, permissions, the C example, and every other ioctl."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import shutil
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.conftest import ZONEFS_PY, Mounts, run, wait_until
from zonefs_py import CopyRangesError, copy_ranges
from zonefs_py.copy import abi

ROOT = Path(__file__).parent.parent.parent
BLOCK = 4096
KIB = 1024
MIB = 1024 * KIB

FIGETBSZ = 2
FIONREAD = 0x541B
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_FSGETXATTR = 0x801C581F
TCGETS = 0x5401
BLKCOPY = 0xC0101281

DeviceFactory = Callable[..., Path]


def pattern(file: int, size: int) -> bytes:
    """Data that differs by file and place."""
    return b"".join(struct.pack("<II", file, number) for number in range(size // 8))


def fill(path: Path, data: bytes) -> None:
    """Write *data* to a zone file from its start."""
    buffer = mmap.mmap(-1, len(data))
    buffer.write(data)
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        done = 0
        with memoryview(buffer) as view:
            while done < len(data):
                done += os.pwrite(descriptor, view[done:], done)
    finally:
        os.close(descriptor)


class Opened:
    """A zone file that is open until the test ends."""

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self.descriptor = os.open(path, flags)

    def fileno(self) -> int:
        return self.descriptor


@pytest.fixture
def opened() -> Iterator[Callable[..., Opened]]:
    files: list[Opened] = []

    def open_file(path: Path, flags: int = os.O_RDONLY) -> Opened:
        files.append(Opened(path, flags))
        return files[-1]

    yield open_file
    for file in files:
        os.close(file.descriptor)


def ioctl_errno(descriptor: int, command: int, data: bytearray) -> int:
    """The errno with which an ioctl fails; 0 if it does not."""
    try:
        fcntl.ioctl(descriptor, command, data, True)
    except OSError as exc:
        return exc.errno or -1
    return 0


def counters(mounted: Mounts, path: Path) -> dict[str, int]:
    """What all engines of the mount have done together."""
    engines = mounted.info(path)["copy"]["engines"].values()
    return {name: sum(engine[name] for engine in engines) for name in ("copies", "commands", "bytes")}


def test_ranges_are_gathered_in_one_command(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir())
    one, two = pattern(1, 256 * KIB), pattern(2, 256 * KIB)
    fill(mnt / "seq/0", one)
    fill(mnt / "seq/1", two)
    fill(mnt / "cnv/0", pattern(3, 64 * KIB))
    target = opened(mnt / "seq/2", os.O_WRONLY)
    sources = [opened(mnt / name) for name in ("seq/0", "seq/1", "cnv/0")]
    ranges = [
        (sources[0], 8 * KIB, 64 * KIB),
        (sources[1], 0, BLOCK),
        (sources[0], 0, BLOCK),
        (sources[2], 32 * KIB, 32 * KIB),
    ]
    before = counters(mounted, mnt)
    assert copy_ranges(target, ranges) == [64 * KIB, BLOCK, BLOCK, 32 * KIB]
    after = counters(mounted, mnt)
    expected = one[8 * KIB : 72 * KIB] + two[:BLOCK] + one[:BLOCK] + pattern(3, 64 * KIB)[32 * KIB :]
    # The size is new at once, whoever asks: the reply cannot tell the kernel.
    assert os.fstat(target.fileno()).st_size == len(expected) == (mnt / "seq/2").stat().st_size
    assert (mnt / "seq/2").read_bytes() == expected
    assert {name: after[name] - before[name] for name in after} == {
        "copies": 1,
        "commands": 1,
        "bytes": len(expected),
    }
    # And once more, at the write pointer where it is now, by its number.
    assert copy_ranges(target.fileno(), [(sources[1].fileno(), 0, BLOCK)], len(expected)) == [BLOCK]
    assert (mnt / "seq/2").read_bytes() == expected + two[:BLOCK]
    assert os.fstat(target.fileno()).st_size == len(expected) + BLOCK


def test_the_most_ranges_there_can_be(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir(zone_size="4M"))
    data = pattern(1, 3 * MIB)
    fill(mnt / "seq/0", data)
    source, target = opened(mnt / "seq/0"), opened(mnt / "seq/1", os.O_WRONLY)
    order = [(number * 7919) % (len(data) // BLOCK) for number in range(abi.MAX_RANGES)]
    assert copy_ranges(target, [(source, block * BLOCK, BLOCK) for block in order]) == [BLOCK] * abi.MAX_RANGES
    wanted = b"".join(data[block * BLOCK : (block + 1) * BLOCK] for block in order)
    assert (mnt / "seq/1").read_bytes() == wanted
    for ranges in ([], [(source, 0, BLOCK)] * (abi.MAX_RANGES + 1), [(source, -1, BLOCK)], [(source, 0, 1 << 64)]):
        with pytest.raises(ValueError, match="range"):
            copy_ranges(target, ranges)


def test_conventional_files_take_it_anywhere_and_no_cache_is_stale(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir(conventional=3))
    before, source = pattern(1, 128 * KIB), pattern(2, 128 * KIB)
    fill(mnt / "cnv/0", before)
    fill(mnt / "cnv/1", source)
    target, other = opened(mnt / "cnv/0", os.O_RDWR), opened(mnt / "cnv/1", os.O_RDWR)
    with (
        mmap.mmap(target.fileno(), 128 * KIB) as view,
        mmap.mmap(other.fileno(), 128 * KIB) as origin,
    ):
        # Pages of the destination are cached, one of them changed by the mapping; so is one of the source.
        assert view[:] == before
        assert os.pread(target.fileno(), 128 * KIB, 0) == before
        view[0:4] = b"mine"
        origin[64 * KIB : 64 * KIB + 4] = b"live"
        wanted = bytearray(before)
        wanted[0:4] = b"mine"
        wanted[32 * KIB : 48 * KIB] = b"live" + source[64 * KIB + 4 : 80 * KIB]
        assert copy_ranges(target, [(other, 64 * KIB, 16 * KIB)], 32 * KIB) == [16 * KIB]
        assert view[:] == wanted
        assert os.pread(target.fileno(), 128 * KIB, 0) == wanted
    assert (mnt / "cnv/0").stat().st_size == MIB
    # Within one file: apart, and overlapping.
    assert copy_ranges(target, [(target, 0, 4 * KIB)], 8 * KIB) == [4 * KIB]
    assert os.pread(target.fileno(), 4, 8 * KIB) == b"mine"
    with pytest.raises(CopyRangesError) as caught:
        copy_ranges(target, [(other, 0, BLOCK), (target, 4 * KIB, 8 * KIB)], 8 * KIB)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(CopyRangesError) as caught:
        copy_ranges(target, [(other, 0, BLOCK)])
    assert caught.value.errno == errno.EINVAL, "a conventional file has no write pointer"


def test_refusals_have_their_errno_and_change_nothing(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened], tmp_path: Path
) -> None:
    mnt = mounted(device_dir(zone_capacity="512K"))
    fill(mnt / "seq/0", pattern(1, 512 * KIB))
    fill(mnt / "seq/1", pattern(2, 64 * KIB))
    source, target = opened(mnt / "seq/0"), opened(mnt / "seq/1", os.O_RDWR)
    good = (source, 0, BLOCK)

    def refused(number: int, file: Any, ranges: list[tuple[Any, int, int]], offset: int | None = None) -> None:
        with pytest.raises(CopyRangesError) as caught:
            copy_ranges(file, ranges, offset)
        assert (caught.value.errno, caught.value.completed) == (number, [0] * len(ranges))
        assert caught.value.strerror == os.strerror(number)
        assert isinstance(caught.value, OSError)

    refused(errno.EINVAL, target, [good], 0)
    refused(errno.EINVAL, target, [good], 64 * KIB + BLOCK)
    refused(errno.EINVAL, target, [good, (source, 0, 0)])
    refused(errno.EINVAL, target, [good, (source, 512, BLOCK)])
    refused(errno.EINVAL, target, [good, (source, 0, 512)])
    refused(errno.EINVAL, target, [good, (source, 508 * KIB, 2 * BLOCK)])
    refused(errno.EFBIG, target, [good, (source, 0, 448 * KIB)])
    refused(errno.EFBIG, opened(mnt / "seq/0", os.O_WRONLY), [(target, 0, BLOCK)])
    refused(errno.EISDIR, target, [good, (opened(mnt / "seq", os.O_DIRECTORY), 0, BLOCK)])
    refused(errno.EBADF, opened(mnt / "seq/1"), [good])
    refused(errno.ENOTTY, opened(mnt / "seq", os.O_DIRECTORY), [good])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(BLOCK))
    refused(errno.EXDEV, target, [good, (opened(elsewhere), 0, BLOCK)])
    refused(errno.ENOTTY, opened(elsewhere, os.O_RDWR), [(opened(elsewhere), 0, BLOCK)])
    assert (mnt / "seq/1").read_bytes() == pattern(2, 64 * KIB)
    assert counters(mounted, mnt)["copies"] == 0


def test_an_error_of_the_device_tells_how_far_it_came(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir(), "errors=repair")
    for number in (0, 1):
        fill(mnt / f"seq/{number}", pattern(number, 64 * KIB))
    # O_DIRECT: with passthrough, who reads past us loses an offline zone altogether (test_passthrough.py).
    sources = [opened(mnt / f"seq/{number}", os.O_RDONLY | os.O_DIRECT) for number in (0, 1)]
    target = opened(mnt / "seq/2", os.O_RDWR)
    run(ZONEFS_PY, "zone", "offline", mnt, "3")  # seq/1, behind the file system's back
    mounted.expect_log(mnt, "zone 3|seq/1|seq/2")
    with pytest.raises(CopyRangesError) as caught:
        copy_ranges(target, [(sources[0], 0, 8 * KIB), (sources[1], 0, 8 * KIB), (sources[0], 0, 8 * KIB)])
    assert (caught.value.errno, caught.value.completed) == (errno.EIO, [8 * KIB, 0, 0])
    assert os.fstat(target.fileno()).st_size == 8 * KIB
    assert (mnt / "seq/2").read_bytes() == pattern(0, 64 * KIB)[: 8 * KIB]
    assert os.fstat(sources[1].fileno()).st_size == 0
    # The next one goes on at the write pointer.
    assert copy_ranges(target, [(sources[0], 8 * KIB, 8 * KIB)]) == [8 * KIB]
    assert (mnt / "seq/2").read_bytes() == pattern(0, 64 * KIB)[: 16 * KIB]


def test_limits_hold_for_the_next_copy(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir())
    fill(mnt / "seq/0", pattern(0, 256 * KIB))
    source, target = opened(mnt / "seq/0"), opened(mnt / "seq/1", os.O_WRONLY)
    ranges = [(source, number * 64 * KIB, 64 * KIB) for number in range(4)]

    def commands() -> int:
        before = counters(mounted, mnt)["commands"]
        os.truncate(mnt / "seq/1", 0)
        assert copy_ranges(target, ranges) == [64 * KIB] * 4
        assert (mnt / "seq/1").read_bytes() == pattern(0, 256 * KIB)
        return counters(mounted, mnt)["commands"] - before

    assert commands() == 1
    table = run(ZONEFS_PY, "limits", mnt, "copy_max_bytes=96K").stdout.splitlines()
    assert [line.split() for line in table][1] == ["copy_max_bytes", str(96 * KIB), "(96K)"]
    assert commands() == 3
    run(ZONEFS_PY, "limits", mnt, "copy_max_nr_ranges=1")
    assert commands() == 4
    run(ZONEFS_PY, "limits", mnt, "copy_offload=0")
    before = mounted.info(mnt)["copy"]["engines"]["emulate"]["copies"]
    commands()
    assert mounted.info(mnt)["copy"]["engines"]["emulate"]["copies"] == before + 1
    limits = json.loads(run(ZONEFS_PY, "limits", mnt, "--format", "json").stdout)["limits"]
    assert limits == mounted.info(mnt)["copy"]["limits"]
    assert (limits["copy_offload"], limits["copy_max_bytes"], limits["copy_max_nr_ranges"]) == (0, 96 * KIB, 1)
    failed = run(ZONEFS_PY, "limits", mnt, "copy_offload=1", "copy_max_bytes=1", check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"zonefs-py: {mnt}: copy_max_bytes: 1 is not a multiple")
    assert json.loads(run(ZONEFS_PY, "limits", mnt, "--format", "json").stdout)["limits"] == limits


COPY_AS = """
import os, sys
uid, gid, *groups = map(int, sys.argv[3].split(","))
# The destination is open before the user changes: only the sources are in question.
target = os.open(sys.argv[1], os.O_WRONLY)
source = os.open(sys.argv[2], os.O_PATH)
import fcntl, struct
from zonefs_py.copy import abi
ino = os.fstat(source).st_ino
data = abi.pack_request(abi.CopyRequest(None, (abi.SourceRange(ino, 0, 4096),)))
os.setgroups(groups)
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
fcntl.ioctl(target, abi.command(1), data, True)
reply = abi.parse_reply(data, 1)
print(reply.result, *reply.completed)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users; run the tests as root")
def test_the_caller_must_be_allowed_to_read_the_sources(device_dir: DeviceFactory, mounted: Mounts) -> None:
    mnt = mounted(device_dir(mkfs=("-o", "uid=1000,gid=1000,perm=640")))
    fill(mnt / "seq/0", pattern(0, BLOCK))

    def copy_as(*ids: int) -> tuple[int, int]:
        words = (sys.executable, "-c", COPY_AS, mnt / "seq/1", mnt / "seq/0", ",".join(map(str, ids)))
        result, completed = run(*words).stdout.split()
        return int(result), int(completed)

    allowed, denied = (0, BLOCK), (errno.EACCES, 0)
    assert copy_as(0, 0) == allowed
    assert copy_as(1000, 5) == allowed, "the owner"
    assert copy_as(1001, 1000) == allowed, "the group"
    assert copy_as(1001, 5, 7, 1000) == allowed, "a supplementary group"
    assert copy_as(1001, 5, 7) == denied, "somebody else"
    (mnt / "seq/0").chmod(0o604)
    assert copy_as(1001, 5) == allowed
    assert copy_as(1001, 5, 1000) == denied, "the first class that fits decides"
    (mnt / "seq/0").chmod(0o044)
    assert copy_as(1000, 1000) == denied
    assert copy_as(0, 0) == allowed
    (mnt / "seq/0").chmod(0o644)
    (mnt / "seq").chmod(0o500)
    assert copy_as(1001, 5) == denied, "the directory on the way"
    (mnt / "seq").chmod(0o555)
    assert copy_as(1001, 5) == allowed
    assert (mnt / "seq/1").stat().st_size == 7 * BLOCK


def test_every_other_ioctl_is_as_it_was(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir())
    fill(mnt / "seq/0", pattern(0, BLOCK))
    for file in (opened(mnt / "seq/0"), opened(mnt / "cnv/0", os.O_RDWR)):
        for command in (TCGETS, BLKCOPY, FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, 0, 0x5A81, 0x80205A81, 0x40205A81):
            assert ioctl_errno(file.fileno(), command, bytearray(512)) == errno.ENOTTY, hex(command)
        # What the kernel answers by itself.
        assert struct.unpack("i", fcntl.ioctl(file.fileno(), FIONREAD, bytes(4)))[0] == file.path.stat().st_size
        assert struct.unpack("i", fcntl.ioctl(file.fileno(), FIGETBSZ, bytes(4)))[0] > 0
    directory = opened(mnt / "seq", os.O_DIRECTORY)
    for command in (TCGETS, abi.command(1)):
        assert ioctl_errno(directory.fileno(), command, bytearray(512)) == errno.ENOTTY


def test_a_malformed_request_leaves_the_buffer_alone(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    mnt = mounted(device_dir())
    target = opened(mnt / "seq/0", os.O_WRONLY)
    source = abi.SourceRange(2, 0, BLOCK)
    good = abi.pack_request(abi.CopyRequest(None, (source, source)))
    for command, at, value in (
        (abi.command(1), 0, 2),  # fewer ranges carried than told
        (abi.command(2), 0, 1),
        (abi.command(2), 0, 0),
        (abi.command(2), 0, (1 << 64) - 1),
        (abi.command(2), 24, 1),  # reserved
        (abi.command(2) - (8 << 16), 0, 2),  # not whole ranges
        (abi.command(1) & ~(0x3FFF << 16), 0, 0),  # nothing at all
        (abi.command(1) & ~(0x3FFF << 16) | 32 << 16, 0, 0),  # a header alone
        (abi.command(1) | 0x3FFF << 16, 0, 511),
    ):
        data = bytearray(16 * KIB)
        data[: len(good)] = good
        struct.pack_into("=Q", data, at, value)
        before = bytes(data)
        assert ioctl_errno(target.fileno(), command, data) == errno.EINVAL, (hex(command), at, value)
        assert data == before


def test_the_c_example(device_dir: DeviceFactory, mounted: Mounts, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler; install gcc")
    gather = tmp_path / "gather"
    flags = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "docs")
    run(compiler, *flags, "-o", gather, ROOT / "docs/examples/gather.c")
    mnt = mounted(device_dir())
    data = pattern(1, 64 * KIB)
    fill(mnt / "seq/0", data)
    fill(mnt / "seq/1", data)
    out = run(gather, mnt / "seq/1", f"{mnt}/seq/0:0:8192", f"{mnt}/seq/0:32768:4096").stdout
    assert out == "8192 of 8192\n4096 of 4096\nat 65536\n"
    assert (mnt / "seq/1").read_bytes() == data + data[:8192] + data[32768 : 32768 + 4096]
    failed = run(gather, mnt / "seq/1", f"{mnt}/seq/0:0:8192", f"{mnt}/seq/0:65536:4096", check=False)
    assert (failed.returncode, failed.stdout) == (1, "0 of 8192\n0 of 4096\n")
    assert failed.stderr == "gather: Invalid argument\n"
    failed = run(gather, tmp_path / "gather.c", f"{mnt}/seq/0:0:8192", check=False)
    assert (failed.returncode, failed.stdout) == (1, "")


def test_the_header_and_the_package_agree(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler; install gcc")
    program = tmp_path / "numbers.c"
    fields = [("zonefs_py_copy", name) for name in ("nr_ranges", "dst_offset", "result", "reserved", "ranges")]
    fields += [("zonefs_py_copy_range", name) for name in ("src_ino", "src_offset", "length", "comp_len")]
    prints = "".join(f'printf("%zu ", offsetof(struct {struct_}, {name}));' for struct_, name in fields)
    program.write_text(
        f"""#include <stddef.h>
#include <stdio.h>
#include "zonefs-py.h"
int main(void)
{{
	for (unsigned long n = 1; n <= ZONEFS_PY_MAX_RANGES; n++)
		printf("%u ", (unsigned int)ZONEFS_PY_IOC_COPY(n));
	{prints}
	printf("%llu", (unsigned long long)ZONEFS_PY_AT_WRITE_POINTER);
}}
"""
    )
    run(compiler, "-I", ROOT / "docs", "-o", tmp_path / "numbers", program)
    numbers = [int(word) for word in run(tmp_path / "numbers").stdout.split()]
    commands = [abi.command(count) for count in range(1, abi.MAX_RANGES + 1)]
    assert numbers == [*commands, 0, 8, 16, 24, 32, 0, 8, 16, 24, abi.AT_WRITE_POINTER]


def test_copies_writes_reads_and_truncations_at_once(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    """Opposite gathers, a writer of their source and readers through the page cache: none waits for ever."""
    mnt = mounted(device_dir(conventional=4))
    rounds = 60
    data = {name: pattern(number, 256 * KIB) for number, name in enumerate(("cnv/0", "cnv/1", "seq/0", "seq/1"))}
    for name, content in data.items():
        fill(mnt / name, content)
    failures: list[BaseException] = []

    def gather(target: str, *sources: str) -> None:
        files = [os.open(mnt / name, os.O_RDONLY) for name in sources]
        descriptor = os.open(mnt / target, os.O_RDWR)
        for _ in range(rounds):
            offset = None
            if target.startswith("seq"):
                os.ftruncate(descriptor, 0)
            else:
                offset = 512 * KIB
            assert copy_ranges(descriptor, [(file, 0, 64 * KIB) for file in files], offset) == [64 * KIB] * len(files)
            wanted = b"".join(data[name][: 64 * KIB] for name in sources)
            found = os.pread(descriptor, len(wanted), offset or 0)
            # The writer below changes the first four bytes of its file.
            assert found[4 : 64 * KIB] == wanted[4 : 64 * KIB]
        for file in (*files, descriptor):
            os.close(file)

    def store() -> None:
        descriptor = os.open(mnt / "cnv/0", os.O_RDWR)
        with mmap.mmap(descriptor, 256 * KIB) as view:
            for number in range(rounds * 5):
                view[0:4] = struct.pack("<I", number)
                os.pwrite(descriptor, struct.pack("<I", number), 300 * KIB)
        os.close(descriptor)

    def read() -> None:
        for _ in range(rounds * 2):
            assert (mnt / "cnv/1").read_bytes()[: 256 * KIB] == data["cnv/1"]

    def guarded(function: Callable[..., None], *args: str) -> None:
        try:
            function(*args)
        except BaseException as exc:
            failures.append(exc)

    threads = [
        threading.Thread(target=guarded, args=words)
        for words in (
            (gather, "seq/2", "cnv/0", "cnv/1"),
            (gather, "seq/3", "cnv/1", "cnv/0"),
            (gather, "cnv/0", "cnv/1", "seq/0"),
            (gather, "cnv/1", "seq/1", "seq/0"),
            (store,),
            (read,),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def test_without_the_daemon_no_one_waits(
    device_dir: DeviceFactory, mounted: Mounts, opened: Callable[..., Opened]
) -> None:
    """A handle of a mount whose daemon is gone gives an error, as for every other call."""
    mnt = mounted(device_dir())
    fill(mnt / "seq/0", pattern(0, BLOCK))
    live = mounted.get(mnt)
    source = os.open(mnt / "seq/0", os.O_RDONLY)
    target = os.open(mnt / "seq/1", os.O_WRONLY)
    data = abi.pack_request(abi.CopyRequest(None, (abi.SourceRange(os.fstat(source).st_ino, 0, BLOCK),)))
    run("fusermount3", "-u", "-z", mnt)
    os.kill(live.pid, 9)
    wait_until("the mount is dead", lambda: ioctl_errno(target, abi.command(1), data) != 0)
    assert ioctl_errno(target, abi.command(1), data) in (errno.ENOTCONN, errno.ECONNABORTED)
    os.close(source)
    os.close(target)
    mounted.forget(mnt)

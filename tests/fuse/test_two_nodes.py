"""What the kernel does by the size of a file that it keeps: right also where the file changed without it knowing.

It takes a file for two when it was opened for reading first, then O_RDWR (docs/passthrough.md): what changes one
changes the size that it has of the other. It is not told by a call on it how large a file is that an ioctl copied to.
No test here may stat a file before the call in question: then the kernel would ask.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import opened
from tests.equality import system
from tests.fuse.conftest import Mounts, wait_until
from tests.fuse.passing import BLOCK, append, pattern, refusal, threads_in, waits_for_the_daemon
from zonefs_py import FaultRule, MountControl, copy_ranges
from zonefs_py.device.fault_rules import Effect, Operation

MIB = 1 << 20
FIRST = 2
"""The zone of seq/0 on a device of `device_dir`."""
SOURCE, TARGET = 0, 1
"""Files that calls copy from, and to."""
FILES = 2
"""How many these are."""

Device = Callable[..., Path]


@dataclass(frozen=True)
class Side:
    """Descriptors of one node: to read, to write without the page cache, and for a pipe to be filled from."""

    reader: int
    writer: int
    plain: int


def whole(descriptor: int) -> bytes:
    """All of a file, which is no larger than that, read at once."""
    # Direct I/O of a MiB takes memory that begins on a page.
    with mmap.mmap(-1, MIB) as memory:
        return memory[: os.preadv(descriptor, [memory], 0)]


@contextlib.contextmanager
def two_nodes(path: Path) -> Iterator[dict[str, Side]]:
    """Open *path* in the order that makes the kernel take it for two files: ``old`` and ``new``."""
    with (
        opened(path, os.O_RDONLY) as reader,
        opened(path, os.O_WRONLY | os.O_DIRECT) as writer,
        opened(path, os.O_RDWR | os.O_DIRECT) as both,
        opened(path, os.O_RDWR) as plain,
    ):
        yield {"old": Side(reader, writer, reader), "new": Side(both, both, plain)}


@contextlib.contextmanager
def one_node(path: Path) -> Iterator[dict[str, Side]]:
    """Open *path* so that there is one."""
    with opened(path, os.O_RDWR | os.O_DIRECT) as both, opened(path, os.O_RDWR) as plain:
        side = Side(both, both, plain)
        yield {"old": side, "new": side}


# What changes a file: each gets the mount, the number of a file that has two blocks, the descriptor to change it by,
# and returns what is in it then.


def write(mnt: Path, number: int, side: Side) -> bytes:
    assert os.pwrite(side.writer, pattern(3 * BLOCK, 7), 2 * BLOCK) == 3 * BLOCK
    return pattern(2 * BLOCK, number) + pattern(3 * BLOCK, 7)


def finish(mnt: Path, number: int, side: Side) -> bytes:
    os.ftruncate(side.writer, MIB)
    return pattern(2 * BLOCK, number).ljust(MIB, b"\0")


def reset(mnt: Path, number: int, side: Side) -> bytes:
    os.ftruncate(side.writer, 0)
    return b""


def shrink(mnt: Path, number: int, side: Side) -> bytes:
    os.ftruncate(side.writer, 0)
    os.pwrite(side.writer, pattern(BLOCK, 7), 0)
    return pattern(BLOCK, 7)


def open_truncating(mnt: Path, number: int, side: Side) -> bytes:
    # By the descriptor: the name leads to the new node.
    os.close(os.open(f"/proc/self/fd/{side.writer}", os.O_WRONLY | os.O_TRUNC))
    return b""


def copy(mnt: Path, number: int, side: Side) -> bytes:
    with opened(mnt / f"seq/{SOURCE}", os.O_RDONLY | os.O_DIRECT) as source:
        assert os.copy_file_range(source, side.writer, 4 * BLOCK, 0, 2 * BLOCK) == 4 * BLOCK
    return pattern(2 * BLOCK, number) + pattern(4 * BLOCK, SOURCE)


def copy_by_ioctl(mnt: Path, number: int, side: Side) -> bytes:
    with opened(mnt / f"seq/{SOURCE}", os.O_RDONLY | os.O_DIRECT) as source:
        assert copy_ranges(side.writer, [(source, 0, 4 * BLOCK)]) == [4 * BLOCK]
    return pattern(2 * BLOCK, number) + pattern(4 * BLOCK, SOURCE)


def fail(mnt: Path, number: int, side: Side) -> bytes:
    """Somebody else writes to the zone; a write finds that, and the file gets the zone's size (errors=repair)."""
    with (mnt.parent / f"disk0/seq-{FIRST + number:06d}").open("ab") as zone:
        zone.write(pattern(2 * BLOCK, 9))
    assert refusal(lambda: os.pwrite(side.writer, pattern(BLOCK), 2 * BLOCK)) == "EIO"
    return pattern(2 * BLOCK, number) + pattern(2 * BLOCK, 9)


CHANGES = (write, finish, reset, shrink, open_truncating, copy, copy_by_ioctl, fail)


# What the kernel does by the size that it has.


def copied(mnt: Path, side: Side, expected: bytes) -> bytes:
    """As the source of copy_file_range(2): the kernel cuts the copy there where it thinks the file ends."""
    with opened(mnt / f"seq/{TARGET}", os.O_RDWR | os.O_DIRECT | os.O_TRUNC) as target:
        total = 0
        while done := os.copy_file_range(side.reader, target, MIB, total, total):
            total += done
            if total == MIB:
                break
        return whole(target)


def appended(mnt: Path, side: Side, expected: bytes) -> bytes:
    """RWF_APPEND: the kernel says where the end is, and does not say that it is to be the end."""
    if len(expected) == MIB:
        assert refusal(lambda: os.pwritev(side.writer, [pattern(BLOCK, 8)], 0, os.RWF_APPEND)) == "EFBIG"
        return expected
    assert os.pwritev(side.writer, [pattern(BLOCK, 8)], 0, os.RWF_APPEND) == BLOCK
    data = whole(side.reader)
    assert data[-BLOCK:] == pattern(BLOCK, 8)
    return data[:-BLOCK]


def sent(mnt: Path, side: Side, expected: bytes) -> bytes:
    """sendfile(2), which of the new node goes through a page cache."""
    with tempfile.TemporaryFile() as target:
        while done := os.sendfile(target.fileno(), side.plain, target.tell(), MIB):
            target.seek(done, os.SEEK_CUR)
        target.seek(0)
        return target.read()


def mapped(mnt: Path, side: Side, expected: bytes) -> bytes:
    """A private mapping: a page that the kernel thinks is behind the end is no memory (SIGBUS, here EFAULT)."""
    length = len(expected)
    if not length:
        return b""
    address = system.map_file(side.reader, length, mmap.PROT_READ, mmap.MAP_PRIVATE)
    try:
        with tempfile.TemporaryFile() as target:
            assert system.write_from(target.fileno(), address, length, 0) == length
            return target.read()
    finally:
        system.unmap(address, length)


def sought(mnt: Path, side: Side, expected: bytes) -> bytes:
    """lseek(2): SEEK_END leads to the end, SEEK_HOLE too, where the file system has no holes."""
    assert os.lseek(side.reader, 0, os.SEEK_END) == len(expected)
    if expected:
        assert os.lseek(side.reader, 0, os.SEEK_HOLE) == len(expected)
    return whole(side.reader)


def stated(mnt: Path, side: Side, expected: bytes) -> bytes:
    """fstat(2) tells the size."""
    assert os.fstat(side.reader).st_size == len(expected)
    return expected


USES = (copied, appended, sent, mapped, sought, stated)


@pytest.mark.parametrize("change", CHANGES)
def test_the_kernel_knows_the_size(
    passing: Callable[..., Path], device_dir: Device, mounted: Mounts, change: Any
) -> None:
    ways = [*itertools.product((("old", "new"), ("new", "old"), ("new", "new")), USES)]
    mnt = passing(device_dir(zones=FIRST + FILES + len(ways)), "errors=repair")
    mounted.expect_log(mnt, "seq/")
    append(mnt / f"seq/{SOURCE}", pattern(4 * BLOCK, SOURCE))
    wrong = []
    for number, ((changed, used), use) in enumerate(ways, FILES):
        append(mnt / f"seq/{number}", pattern(2 * BLOCK, number))
        with (two_nodes if changed != used else one_node)(mnt / f"seq/{number}") as sides:
            if use is sent:
                # So that there are pages that can be stale.
                use(mnt, sides[used], b"")
            expected = change(mnt, number, sides[changed])
            try:
                if use(mnt, sides[used], expected) != expected:
                    wrong.append(f"{changed}, {used}, {use.__name__}: other data")
            except (OSError, AssertionError) as exc:
                wrong.append(f"{changed}, {used}, {use.__name__}: {exc}")
    assert "\n".join(wrong) == ""


def test_a_size_that_changes_while_the_kernel_cuts_the_file_is_known_afterwards(
    passing: Callable[..., Path], device_dir: Device, mounted: Mounts
) -> None:
    """While a truncation is under way the kernel takes no other size of that node; one that fails brings none."""
    mnt = passing(device_dir(), "errors=repair")
    append(mnt / "seq/0", pattern(2 * BLOCK))
    control = MountControl(mnt)
    zones = (FIRST, FIRST)
    with two_nodes(mnt / "seq/0") as sides, ThreadPoolExecutor() as threads:
        old, new = sides["old"], sides["new"]
        rule, _ = control.add_faults(
            [FaultRule(operation, Effect.STUCK, zones) for operation in (Operation.WRITE, Operation.RESET)]
        )
        try:
            write = threads.submit(os.pwrite, old.writer, pattern(3 * BLOCK, 7), 2 * BLOCK)
            wait_until("the write is stuck", lambda: len(control.faults()["stuck"]) == 1)
            cut = threads.submit(refusal, lambda: os.ftruncate(new.writer, 0))
            wait_until("the truncation is under way", lambda: threads_in("ftruncate") == 1)
            control.release_stuck(rule)
            assert write.result(60) == 3 * BLOCK
            wait_until("the truncation is stuck", lambda: len(control.faults()["stuck"]) == 1)
            control.release_stuck(fail=True)
        finally:
            control.clear_faults()
        assert cut.result(60) == "EIO"
        expected = pattern(2 * BLOCK) + pattern(3 * BLOCK, 7)
        wait_until("the new node has its size", lambda: copied(mnt, new, expected) == expected)


def test_large_writes_by_two_nodes_mix(passing: Callable[..., Path], device_dir: Device) -> None:
    """The kernel cuts them at 1 MiB, and lets the next of a node wait until one is done as a whole."""
    mnt = passing(device_dir(zone_size="8M"))
    path = mnt / "seq/0"
    control = MountControl(mnt)
    appending = os.O_DIRECT | os.O_APPEND
    with (
        opened(path, os.O_RDONLY),
        opened(path, os.O_WRONLY | appending) as old,
        opened(path, os.O_RDWR | appending) as new,
        contextlib.ExitStack() as stack,
    ):
        control.add_faults([FaultRule(Operation.WRITE, Effect.STUCK, (FIRST, FIRST))])
        threads = []
        for number, descriptor in enumerate((old, new), 1):
            # Direct I/O of whole MiB takes memory that begins on a page.
            memory = stack.enter_context(mmap.mmap(-1, 2 * MIB))
            memory.write(bytes([number]) * len(memory))
            threads.append(threading.Thread(target=os.writev, args=(descriptor, [memory])))
        threads[0].start()
        wait_until("the first part of the first is stuck", lambda: len(control.faults()["stuck"]) == 1)
        threads[1].start()
        wait_until("that of the second is on its way", lambda: waits_for_the_daemon(threads[1]))
        control.clear_faults()
        for thread in threads:
            thread.join()
    data = path.read_bytes()
    assert [data[begin] for begin in range(0, len(data), MIB)] in ([1, 2, 1, 2], [1, 2, 2, 1])

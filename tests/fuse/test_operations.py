"""The adapter between FUSE and the file system, called as the C extension calls it, without a mount."""

from __future__ import annotations

import os
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
import trio
import trio.testing

from zonefs_py.config import FormatOptions
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import NotAligned
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.fuse import door
from zonefs_py.fuse.operations import Operations
from zonefs_py.fuse.passthrough import Passthrough
from zonefs_py.zone import Geometry

BLOCK = 4096
SIZE = 64 * BLOCK
GEOMETRY = Geometry(SIZE, SIZE, 6, 2, BLOCK, SIZE)
"""cnv/0 and seq/0 to seq/3."""


@pytest.fixture
def filesystem() -> Filesystem:
    device = MemoryDevice(GEOMETRY)
    format_device(device, FormatOptions())
    return Filesystem(device)


@pytest.mark.parametrize("reverse", [False, True], ids=["tasks-in-order", "tasks-in-reverse"])
def test_calls_for_a_file_run_in_the_order_of_their_arrival(filesystem: Filesystem, reverse: bool) -> None:
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    ran: list[int] = []
    gate = threading.Event()

    def first() -> None:
        # Until all others queue.
        assert gate.wait(60)
        ran.append(0)

    async def main() -> None:
        calls = [operations._call_on_worker(2, first)]
        calls += [operations._call_on_worker(2, ran.append, number) for number in range(1, 20)]
        # trio starts tasks in any order.
        if reverse:
            calls.reverse()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:

                async def run(call: Coroutine[Any, Any, None]) -> None:
                    await call

                for call in calls:
                    nursery.start_soon(run, call)
                gate.set()

    trio.run(main)
    assert ran == list(range(20))
    assert not operations._gates.busy, "a gate that nobody waits at must go away"


def test_calls_for_two_files_wait_for_both(filesystem: Filesystem) -> None:
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    ran: list[str] = []

    async def main() -> None:
        copies = [operations._gates.alone(files) for files in ((2, 3), (3, 2), (2,), (3,))]

        async def run(number: int) -> None:
            async with copies[number]:
                ran.append(f"+{number}")
                await trio.testing.wait_all_tasks_blocked()
                ran.append(f"-{number}")

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in reversed(range(4)):
                    nursery.start_soon(run, number)

    trio.run(main)
    assert ran[:4] == ["+0", "-0", "+1", "-1"], "both need both files"
    assert sorted(ran[4:]) == ["+2", "+3", "-2", "-3"]
    assert not operations._gates.busy


def test_reads_are_answered_in_place(filesystem: Filesystem) -> None:
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    handle = filesystem.open("seq/0", os.O_RDWR | os.O_DIRECT)
    operations._files[handle] = filesystem.resolve("seq/0")
    operations._numbers[handle] = 0
    data = os.urandom(3 * BLOCK)
    assert operations.on_write(0, handle, 0, memoryview(data), True, False, False) == len(data)
    memory = bytearray(SIZE)

    def read(offset: int, size: int, *, direct: bool = True) -> int | None:
        return operations.on_read(0, handle, offset, size, direct, memoryview(memory)[:size])

    assert read(0, SIZE) == len(data)
    assert memory[: len(data)] == data
    assert read(BLOCK, BLOCK) == BLOCK
    assert memory[:BLOCK] == data[BLOCK : 2 * BLOCK]
    assert read(5, 100, direct=False) == 100
    assert memory[:100] == data[5:105]
    assert read(3 * BLOCK - 1, 100, direct=False) == 1
    assert memory[:1] == data[-1:]
    assert read(3 * BLOCK, BLOCK) == 0
    assert read(5, 100) == -NotAligned.errno
    assert not operations.failed


def test_a_write_does_not_keep_the_memory_that_it_came_in(filesystem: Filesystem) -> None:
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    handle = filesystem.open("seq/0", os.O_RDWR | os.O_DIRECT)
    operations._files[handle] = filesystem.resolve("seq/0")
    operations._numbers[handle] = 0
    memory = bytearray(b"a" * BLOCK)
    with memoryview(memory) as view:
        assert operations.on_write(0, handle, 0, view, True, True, False) == BLOCK
    # Nothing refers to it any more: a bytearray that is looked at cannot grow.
    memory.extend(b"b")
    memory[:] = b"c"
    assert filesystem.read(handle, 0, BLOCK) == b"a" * BLOCK


def test_who_waits_for_the_kernel_does_not_when_nothing_is_served_any_more(filesystem: Filesystem) -> None:
    """The kernel may be waiting for an answer of ours, which nobody gives."""
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    waiting, answered = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        assert answered.wait(60)

    async def run() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operations._announcer.in_kernel, wait)
                assert await trio.to_thread.run_sync(waiting.wait, 60)
                operations.end()
            # Nor who comes later.
            await operations._announcer.in_kernel(answered.wait)

    trio.run(run)
    assert not answered.is_set()
    answered.set()


def test_a_copy_that_waits_for_its_target_holds_up_nobody_at_its_source(filesystem: Filesystem) -> None:
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    source, target = filesystem.resolve("seq/0"), filesystem.resolve("seq/1")
    stuck, free = threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        stuck.set()
        assert free.wait(60)
        ran.append("held")

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operations._call_on_worker, target, hold)
                assert await trio.to_thread.run_sync(stuck.wait, 60)
                copy = operations._copy_between(target, [source, target], ran.append, "copied")

                async def run_copy() -> None:
                    await copy

                nursery.start_soon(run_copy)
                await trio.testing.wait_all_tasks_blocked()
                await operations._call_on_worker(source, ran.append, "written")
                assert not operations._is_free(source), "a call in place might meet the copy"
                free.set()

    trio.run(main)
    assert ran == ["written", "held", "copied"]
    assert operations._is_free(source)
    assert operations._is_free(target)


def test_a_copy_that_is_cancelled_leaves_the_gates(filesystem: Filesystem) -> None:
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    source, target = filesystem.resolve("seq/0"), filesystem.resolve("seq/1")

    async def main(busy: int) -> None:
        async with operations._gates.alone([busy]):
            with trio.move_on_after(0):
                await operations._copy_between(target, [source, target], pytest.fail, "copied")

    for busy in (source, target):
        trio.run(main, busy)
        assert operations._is_free(source)
        assert operations._is_free(target)


def test_nobody_asks_who_sent_a_request_that_was_answered(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libfuse has freed it then, also if the answer found nobody: the mount was aborted, or the call interrupted."""
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    answered = []

    def answer(request: int, *_: object) -> bool:
        assert request not in answered
        answered.append(request)
        return False

    def ask(request: int) -> int:
        assert request not in answered
        return 0

    def fail(handle: int) -> None:
        raise NotAligned("made up")

    monkeypatch.setattr(door, "reply_open", answer)
    monkeypatch.setattr(door, "reply_error", answer)
    monkeypatch.setattr(door, "caller", ask)
    monkeypatch.setattr(operations._passthrough, "release", fail)
    node = door.file_node(filesystem.resolve("seq/0"))
    assert operations.on_open(7, node, os.O_RDONLY, 0) is None
    assert answered == [7]
    assert operations.failed

    async def later() -> None:
        async with trio.open_nursery() as operations.nursery:
            assert operations.on_open(8, node, os.O_RDWR | os.O_TRUNC, 0) is None

    trio.run(later)
    assert answered == [7, 8]


def test_what_is_done_in_place_waits_for_no_lock(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a file may be no request: then nobody knows of him, and he may take long."""
    operations = Operations(filesystem, Passthrough(filesystem, "off"))
    answers: dict[int, object] = {}
    monkeypatch.setattr(door, "reply_open", lambda request, *_: answers.setdefault(request, "opened"))
    for name in ("data", "written", "error"):
        monkeypatch.setattr(door, f"reply_{name}", answers.setdefault)
    names = ("seq/0", "seq/1", "seq/2", "cnv/0", "seq/0")
    handles = []
    for name in names:
        handle = filesystem.open(name, os.O_RDWR | os.O_DIRECT)
        ino = filesystem.resolve(name)
        operations._passthrough.open(ino, 0, handle, os.O_RDWR | os.O_DIRECT, sequential=name[0] == "s")
        operations._files[handle], operations._numbers[handle] = ino, 0
        handles.append(handle)
    busy, other, free, cnv, closed = handles
    old, new = b"a" * BLOCK, memoryview(b"b" * BLOCK)
    for handle in (busy, cnv):
        filesystem.write(handle, 0, old)
    node = door.file_node(filesystem.resolve("seq/0"))
    locked, end = threading.Event(), threading.Event()

    def hold() -> None:
        files = [filesystem._inode(name) for name in ("seq/0", "cnv/0")]
        with files[0].lock, files[1].lock:  # type: ignore[attr-defined]  # they are files
            locked.set()
            # For the case that the test fails.
            end.wait(60)

    async def main() -> None:
        memory = bytearray(BLOCK)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                operations.nursery = nursery
                assert await trio.to_thread.run_sync(locked.wait, 60)
                assert operations.on_open(1, node, os.O_RDONLY, 0) is None
                assert operations.on_open(2, node, os.O_WRONLY, 0) is None
                assert operations.on_read(3, busy, 0, BLOCK, True, memoryview(memory)) is None
                assert operations.on_write(4, busy, 0, new, True, True, False) is None
                assert operations.on_write(5, cnv, 0, new, True, False, False) is None
                assert operations.on_copy(6, busy, 0, other, 0, BLOCK, 0) is None
                assert operations.on_copy(7, busy, 0, cnv, BLOCK, BLOCK, 0) is None
                nursery.start_soon(operations.release, closed)
                await trio.testing.wait_all_tasks_blocked()
                # Others neither wait nor are told to.
                assert operations.on_write(8, free, 0, new, True, False, False) == BLOCK
                assert operations.on_read(9, free, 0, BLOCK, True, memoryview(memory)) == BLOCK
                assert answers == {}
                end.set()

    holder = threading.Thread(target=hold)
    holder.start()
    trio.run(main)
    holder.join()
    assert answers == {1: "opened", 2: "opened", 3: old, 4: BLOCK, 5: BLOCK, 6: BLOCK, 7: BLOCK}
    assert filesystem.nr_handles == len(handles) + 1
    assert filesystem.read(other, 0, BLOCK) == old
    assert filesystem.read(cnv, 0, 2 * BLOCK) == bytes(new) + old
    assert not operations._gates.busy
    assert not operations.failed

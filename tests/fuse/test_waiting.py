"""A device that waits, zone by zone: what goes on beside what is stuck. The handlers' machinery, without a mount."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.core.copying import random_bytes
from tests.fuse.conftest import wait_until
from zonefs_py.config import FormatOptions, MountOptions
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import NotAtWritePointer
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.fuse.door import pyfuse3
from zonefs_py.fuse.operations import READS_TOGETHER, SPARE_THREADS, Operations
from zonefs_py.fuse.passthrough import Passthrough
from zonefs_py.zone import Geometry, ZoneOp

BLOCK = 4096
ZONE = 64 * BLOCK
NR_ZONES = 200
SECONDS = 60.0
FLAGS = os.O_RDWR | os.O_DIRECT
STUCK_FILES = 2 * SPARE_THREADS
"""More than the machine ever has threads to spare."""


class Slow:
    """A file system on a device that waits wherever a rule says so. seq/N is zone N + 2, cnv/0 is zone 1."""

    def __init__(
        self,
        options: MountOptions = MountOptions(),  # noqa: B008  (frozen)
        kind: type[MemoryDevice] = MemoryDevice,
        **limits: int,
    ) -> None:
        self.inner = kind(Geometry(ZONE, ZONE, NR_ZONES, 2, BLOCK, ZONE), **limits)
        format_device(self.inner, FormatOptions())
        self.device = FaultDevice(self.inner, waits=True)
        self.fs = Filesystem(self.device, options)
        self.operations = Operations(self.fs, Passthrough(self.fs, "off"))

    def open(self, name: str) -> int:
        return self._opened(self.fs.resolve(name), self.fs.open(name, FLAGS))

    async def open_later(self, name: str) -> int:
        ino = self.fs.resolve(name)
        return self._opened(ino, await self.operations._open_on_worker(ino, 0, FLAGS, 0))

    def _opened(self, ino: int, handle: int) -> int:
        # What the answer to the kernel comes with.
        self.operations._passthrough.open(ino, 0, handle, FLAGS, sequential=self.fs.is_sequential(ino))
        self.operations._files[handle], self.operations._numbers[handle] = ino, 0
        return handle

    async def read(self, handle: int, offset: int) -> bytes:
        ino = self.operations._files[handle]
        return await self.operations._read_on_worker(ino, self.fs.read, handle, offset, BLOCK)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        ino = self.operations._files[handle]
        write = self.operations._call_on_worker(ino, self.fs.write, handle, offset, data)
        return await self.operations._after_write(write, handle, sync=False)

    @contextmanager
    def stuck(self, operation: Operation, first: int, last: int) -> Iterator[None]:
        """Have calls in zones *first* to *last* wait; when the block is over they go on."""
        number = self.device.add_rule(FaultRule(operation, Effect.STUCK, (first, last), count=None))
        try:
            yield
        finally:
            self.device.remove_rule(number)

    async def until_stuck(self, count: int) -> None:
        """Return when exactly *count* calls wait in the device."""
        await trio.to_thread.run_sync(wait_until, f"{count} calls are stuck", lambda: len(self.device.stuck) == count)


def run(slow: Slow, main: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    """Run *main*, and have nothing left over."""

    async def in_nursery() -> None:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                slow.operations.nursery = nursery
                await main(nursery)

    trio.run(in_nursery)
    assert not slow.operations._gates.busy
    assert not slow.operations._flushes.busy
    assert not slow.operations.failed
    slow.fs.close()


@pytest.mark.parametrize(("name", "zone"), [("seq/0", 2), ("cnv/0", 1)])
def test_reads_of_one_zone_run_beside_each_other(name: str, zone: int) -> None:
    slow = Slow()
    handle = slow.open(name)
    data = random_bytes(READS_TOGETHER * BLOCK, 1)
    slow.fs.write(handle, 0, data)
    got: dict[int, bytes] = {}

    async def read(number: int) -> None:
        got[number] = await slow.read(handle, number * BLOCK)

    async def main(nursery: trio.Nursery) -> None:
        with slow.stuck(Operation.READ, zone, zone):
            for number in range(READS_TOGETHER):
                nursery.start_soon(read, number)
            await slow.until_stuck(READS_TOGETHER)
            assert not got

    run(slow, main)
    assert b"".join(got[number] for number in range(READS_TOGETHER)) == data


def test_zones_are_written_beside_each_other() -> None:
    slow = Slow()
    handles = [slow.open(f"seq/{number}") for number in range(STUCK_FILES)]

    async def main(nursery: trio.Nursery) -> None:
        with slow.stuck(Operation.WRITE, 0, NR_ZONES - 1):
            for handle in handles:
                nursery.start_soon(slow.write, handle, 0, bytes(BLOCK))
            await slow.until_stuck(STUCK_FILES)

    run(slow, main)
    assert {zone.wp - zone.start for zone in slow.device.report_zones(2, STUCK_FILES)} == {BLOCK}


def test_writes_of_one_zone_keep_their_order() -> None:
    """Each is at the write pointer only if all before it are done; one of them is slow."""
    slow = Slow()
    handle = slow.open("seq/0")
    data = random_bytes(32 * BLOCK, 2)

    async def main(nursery: trio.Nursery) -> None:
        with slow.stuck(Operation.WRITE, 2, 2):
            # Turns are taken when the requests come, whatever trio does with their tasks.
            ino = slow.operations._files[handle]
            writes = [
                slow.operations._call_on_worker(ino, slow.fs.write, handle, at, data[at : at + BLOCK])
                for at in range(0, len(data), BLOCK)
            ]

            async def end(write: Awaitable[int]) -> None:
                assert await write == BLOCK

            for write in reversed(writes):
                nursery.start_soon(end, write)
            await slow.until_stuck(1)
            assert slow.fs.getattr(ino).size == 0

    run(slow, main)
    assert [zone.wp - zone.start for zone in slow.device.report_zones(2, 1)] == [len(data)]


def test_a_read_behind_a_write_sees_it_and_reads_before_it_do_not_stop_it_for_good() -> None:
    slow = Slow()
    handle = slow.open("seq/0")
    slow.fs.write(handle, 0, random_bytes(BLOCK, 3))
    events: list[str] = []

    async def read(name: str, offset: int) -> None:
        events.append(f"{name} {len(await slow.read(handle, offset))}")

    async def write() -> None:
        await slow.write(handle, BLOCK, random_bytes(BLOCK, 4))
        events.append("written")

    async def main(nursery: trio.Nursery) -> None:
        with slow.stuck(Operation.READ, 2, 2):
            nursery.start_soon(read, "before", 0)
            await slow.until_stuck(1)
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read, "behind", BLOCK)
            await trio.testing.wait_all_tasks_blocked()
            assert events == []
            assert len(slow.device.stuck) == 1

    run(slow, main)
    assert events == [f"before {BLOCK}", "written", f"behind {BLOCK}"]


async def use(slow: Slow, name: str) -> None:
    """Do all there is to do with a file; nothing of it may wait."""
    operations, fs = slow.operations, slow.fs
    ino = fs.resolve(name)
    handle = await slow.open_later(name)
    at = fs.getattr(ino).size
    data = random_bytes(BLOCK, 5)
    assert await slow.write(handle, at, data) == BLOCK
    assert await slow.read(handle, at) == data
    await operations._flush(handle)
    changes = AttributeChanges(size=0)
    await operations._with_room(lambda: operations._call_on_worker(ino, fs.setattr, ino, changes))
    assert fs.getattr(ino).size == 0
    await operations.release(handle)


CALLS = [Operation.READ, Operation.WRITE, Operation.FLUSH]


@pytest.mark.parametrize("operation", CALLS, ids=[operation.value for operation in CALLS])
def test_a_stuck_zone_stops_no_other_however_many_ask_for_it(operation: Operation) -> None:
    slow = Slow()
    handle = slow.open("seq/0")
    slow.fs.write(handle, 0, bytes(BLOCK))

    async def main(nursery: trio.Nursery) -> None:
        async def ask() -> None:
            if operation is Operation.READ:
                await slow.read(handle, 0)
            elif operation is Operation.FLUSH:
                await slow.operations._flush(handle)
            else:
                with pytest.raises(NotAtWritePointer):
                    await slow.write(handle, 0, bytes(BLOCK))

        async def append() -> None:
            await slow.write(handle, BLOCK, bytes(BLOCK))

        with slow.stuck(operation, 2, 2):
            if operation is Operation.WRITE:
                nursery.start_soon(append)
                await slow.until_stuck(1)
            for _ in range(20 * READS_TOGETHER):
                nursery.start_soon(ask)
            together = 1 if operation is Operation.WRITE else READS_TOGETHER
            await slow.until_stuck(together)
            for name in ("seq/1", "seq/2", "seq/197"):
                await use(slow, name)
            assert slow.fs.getattr(2).size == BLOCK, "looking at the stuck one waits for nothing"
            assert len(slow.device.stuck) == together

    run(slow, main)


@pytest.mark.parametrize("operation", [Operation.READ, Operation.WRITE], ids=["read", "write"])
def test_many_stuck_zones_stop_no_other(operation: Operation) -> None:
    slow = Slow()
    handles = [slow.open(f"seq/{number}") for number in range(STUCK_FILES)]
    for handle in handles:
        slow.fs.write(handle, 0, bytes(BLOCK))

    async def main(nursery: trio.Nursery) -> None:
        with slow.stuck(operation, 2, 1 + STUCK_FILES):
            for handle in handles:
                for number in range(3):
                    if operation is Operation.READ:
                        nursery.start_soon(slow.read, handle, 0)
                    elif not number:
                        nursery.start_soon(slow.write, handle, BLOCK, bytes(BLOCK))
            # Every file has one call, and all together have what there is to spare.
            await slow.until_stuck(STUCK_FILES + (SPARE_THREADS if operation is Operation.READ else 0))
            await use(slow, f"seq/{STUCK_FILES}")

    run(slow, main)


def test_a_close_that_is_stuck_stops_nobody_who_does_not_need_its_zone() -> None:
    slow = Slow(MountOptions(explicit_open=True), max_open_zones=3)

    async def main(nursery: trio.Nursery) -> None:
        operations = slow.operations

        first, _second = await slow.open_later("seq/0"), await slow.open_later("seq/1")
        opened = trio.Event()

        async def needs_room() -> None:
            await slow.open_later("seq/3")
            opened.set()

        with slow.stuck(Operation.CLOSE, 2, 2), slow.stuck(Operation.RESET, 2, 2):
            nursery.start_soon(operations.release, first)
            await slow.until_stuck(1)
            third = await slow.open_later("seq/2")
            nursery.start_soon(needs_room)
            await trio.testing.wait_all_tasks_blocked()
            assert not opened.is_set(), "all three are open"
            # Another one that is closed will do.
            await operations.release(third)
            await opened.wait()
            assert len(slow.device.stuck) == 1

    run(slow, main)


class Leisurely(MemoryDevice):
    """A device that closes a zone when it is let, and never says that a call is stuck: it only takes its time."""

    def __init__(self, geometry: Geometry, **limits: int) -> None:
        super().__init__(geometry, **limits)
        self.closing = threading.Event()
        self.may_close = threading.Event()

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        if op is ZoneOp.CLOSE:
            self.closing.set()
            assert self.may_close.wait(SECONDS)
        super().zone_mgmt(op, number)


def test_a_slow_close_holds_up_only_those_who_must_know_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(MountOptions(explicit_open=True), Leisurely, max_open_zones=3)
    device = slow.inner
    assert isinstance(device, Leisurely)
    questions: list[int] = []

    def ask() -> None:
        """As the control socket does, in a thread of its own."""
        slow.fs.until_closed()
        questions.append(slow.fs.counters.nr_wro_seq_files)

    async def main(nursery: trio.Nursery) -> None:
        handle = await slow.open_later("seq/0")
        await slow.write(handle, 0, bytes(BLOCK))
        # As pyfuse3 does when it begins to serve.
        monkeypatch.setattr(pyfuse3, "trio_token", trio.lowlevel.current_trio_token())
        nursery.start_soon(slow.operations.release, handle)
        await trio.to_thread.run_sync(device.closing.wait, SECONDS)
        statistics = await slow.operations.statfs(cast(Any, None))
        assert statistics.f_blocks - statistics.f_bfree == ZONE // BLOCK + 1
        assert slow.fs.counters.nr_wro_seq_files == 1, "the close is under way"
        nursery.start_soon(trio.to_thread.run_sync, ask)
        await trio.to_thread.run_sync(wait_until, "somebody waits", lambda: bool(slow.operations._patience))
        assert questions == []
        device.may_close.set()
        await trio.to_thread.run_sync(wait_until, "the question is answered", lambda: bool(questions))

    run(slow, main)
    assert questions == [0]

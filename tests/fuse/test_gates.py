"""Which requests wait for others and which go on: the gates, and the handlers at them, without a mount."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given

from tests.core.copying import Call, CopyDevice, random_bytes
from zonefs_py.config import FormatOptions, MountOptions
from zonefs_py.copy.abi import CopyRequest, SourceRange, pack_request, parse_reply
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.fuse.gates import Gates, Passage
from zonefs_py.fuse.operations import Operations
from zonefs_py.fuse.passthrough import Passthrough
from zonefs_py.zone import Geometry

BLOCK = 4096
ZONE = 16 * BLOCK
SECONDS = 60.0


class Served:
    """A file system behind its handlers. Its first copy stands still until ``go_on`` is set."""

    def __init__(self) -> None:
        inner = MemoryDevice(Geometry(ZONE, ZONE, 8, 1, BLOCK, ZONE))
        format_device(inner, FormatOptions())
        device = CopyDevice(inner)
        self.fs = Filesystem(device, MountOptions())
        self.operations = Operations(self.fs, Passthrough(self.fs, "off"))
        self.started, self.go_on = threading.Event(), threading.Event()
        for name in ("seq/0", "seq/3"):
            self.fs.write(self.open(name), 0, random_bytes(8 * BLOCK, 1))
        device.before = self._stall

    def _stall(self, call: Call) -> None:
        if call.kind == "copy":
            self.started.set()
            assert self.go_on.wait(SECONDS)

    def open(self, name: str) -> int:
        handle = self.fs.open(name, os.O_RDWR | os.O_DIRECT)
        self.operations._files[handle] = self.fs.resolve(name)
        return handle

    async def copy_range(self) -> int:
        source, target = self.open("seq/0"), self.open("seq/1")
        assert self.fs.copy_range_now(source, 0, target, 0, 8 * BLOCK) is None, "the device cannot tell"
        files = [self.operations._files[handle] for handle in (source, target)]
        copy = self.operations._copy_between(files[1], files, self.fs.copy_range, source, 0, target, 0, 8 * BLOCK)
        copied: int = await copy
        return copied

    async def gather(self) -> int:
        sources = tuple(SourceRange(self.fs.resolve(name), 0, 4 * BLOCK) for name in ("seq/3", "seq/0"))
        data = bytes(pack_request(CopyRequest(None, sources)))
        copy = self.operations._copy_between(
            self.fs.resolve("seq/1"),
            [source.inode for source in sources],
            self.operations._copy_ranges_for,
            self.open("seq/1"),
            data,
            CopyRequest(None, sources),
            0,
            0,
            os.getpid(),
        )
        return sum(parse_reply(await copy, 2).completed)


@pytest.mark.parametrize("kind", [Served.copy_range, Served.gather])
def test_a_copy_that_takes_long(kind: Callable[[Served], Awaitable[int]]) -> None:
    served = Served()
    operations, fs = served.operations, served.fs
    done: list[str] = []

    async def copy() -> None:
        assert await kind(served) == 8 * BLOCK
        done.append("copy")

    async def reset() -> None:
        await operations._call_on_worker(fs.resolve("seq/0"), fs.truncate, "seq/0", 0)
        assert served.go_on.is_set(), "a reset of the source waits for the copy"
        done.append("reset")

    async def call(name: str, function: Callable[..., Any], *args: Any) -> Any:
        ino = fs.resolve(name)
        return function(*args) if operations._is_free(ino) else await operations._call_on_worker(ino, function, *args)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy)
            await trio.to_thread.run_sync(served.started.wait, SECONDS)
            # The sources, and a third file: all in the loop's own thread if they would wait for nobody.
            for name, offset in (("seq/0", 8 * BLOCK), ("seq/3", 8 * BLOCK), ("seq/4", 0)):
                handle = served.open(name)
                with trio.fail_after(SECONDS):
                    await call(name, fs.write, handle, offset, random_bytes(BLOCK, 2))
                    data = await call(name, fs.read, handle, offset, BLOCK)
                assert data == random_bytes(BLOCK, 2)
                fs.release(handle)
            assert done == []
            nursery.start_soon(reset)
            await trio.testing.wait_all_tasks_blocked()
            served.go_on.set()

    trio.run(main)
    assert sorted(done) == ["copy", "reset"]
    assert fs.getattr(fs.resolve("seq/0")).size == 0
    assert not operations._gates.busy
    assert not operations._readings
    fs.close()


# The gates by themselves

MOST, SPARES = 3, 2
INOS = range(4)


@given(st.lists(st.tuples(st.booleans(), st.frozensets(st.sampled_from(INOS), min_size=1)) | st.integers(0, 50)))
def test_gates(steps: list[tuple[bool, frozenset[int]] | int]) -> None:
    """Passages begin (alone or together, at which gates) and end (any that has not)."""
    gates = Gates(MOST, SPARES)
    begun: list[tuple[bool, Passage]] = []
    for step in steps:
        if isinstance(step, tuple):
            shared, inos = step
            begun.append((shared, gates.together(inos) if shared else gates.alone(inos)))
        elif begun:
            _, passage = begun.pop(step % len(begun))
            gates.end(passage._turns)
        spares = SPARES
        heads = {}
        for ino in INOS:
            turns = [(shared, turn) for shared, passage in begun for turn in passage._turns if turn.ino == ino]
            inside = [shared for shared, turn in turns if turn.admitted]
            waiting = [shared for shared, turn in turns if not turn.admitted]
            assert [turn.admitted for _, turn in turns] == [True] * len(inside) + [False] * len(waiting), "in order"
            assert all(inside) or len(inside) == 1
            assert len(inside) <= MOST
            assert bool(inside) == bool(turns) == (ino in gates.busy), "a file that others leave alone never waits"
            spares -= max(0, len(inside) - 1)
            if waiting and waiting[0] and all(inside) and len(inside) < MOST:
                heads[ino] = waiting[0]
        assert spares >= 0
        assert not (spares and heads), "who waits for nothing but a spare has one"
    for _, passage in begun:
        gates.end(passage._turns)
    assert not gates.busy


def test_waits_end_with_the_turn_of_others() -> None:
    gates = Gates(MOST, SPARES)
    order: list[str] = []

    async def go(name: str, passage: Passage, leave: trio.Event) -> None:
        async with passage:
            order.append(name)
            await leave.wait()

    async def main() -> None:
        first, rest = trio.Event(), trio.Event()
        rest.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go, "read", gates.together([1]), first)
            nursery.start_soon(go, "write", gates.alone([1]), rest)
            late = gates.together([1])
            with trio.move_on_after(60) as given_up:
                nursery.start_soon(go, "late read", late, rest)
                await trio.testing.wait_all_tasks_blocked()
                assert order == ["read"], "a read does not overtake a write"
                given_up.cancel()
            first.set()
        assert order == ["read", "write", "late read"]

    trio.run(main)
    assert not gates.busy


def test_who_is_cancelled_leaves_the_queue() -> None:
    gates = Gates(MOST, SPARES)

    async def main() -> None:
        async with gates.alone([1]):
            waiting = gates.alone([1, 2])
            behind = gates.alone([2])
            with trio.CancelScope() as scope:
                scope.cancel()
                async with waiting:
                    pytest.fail("its turn has not come")
            async with behind:
                assert 1 in gates.busy

    trio.run(main)
    assert not gates.busy

"""Which requests wait for a long copy and which go on: the handlers themselves, without a mount."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.core.copying import Call, CopyDevice, random_bytes
from zonefs_py.config import FormatOptions, MountOptions
from zonefs_py.copy.abi import CopyRequest, SourceRange, pack_request, parse_reply
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
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
        await operations._call(fs.resolve("seq/0"), fs.truncate, "seq/0", 0)
        assert served.go_on.is_set(), "a reset of the source waits for the copy"
        done.append("reset")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy)
            await trio.to_thread.run_sync(served.started.wait, SECONDS)
            # The sources, and a third file: all in the loop's own thread if they would wait for nobody.
            for name, offset in (("seq/0", 8 * BLOCK), ("seq/3", 8 * BLOCK), ("seq/4", 0)):
                handle = served.open(name)
                with trio.fail_after(SECONDS):
                    await operations._call(fs.resolve(name), fs.write, handle, offset, random_bytes(BLOCK, 2))
                    data = await operations._call(fs.resolve(name), fs.read, handle, offset, BLOCK)
                assert data == random_bytes(BLOCK, 2)
                fs.release(handle)
            assert done == []
            nursery.start_soon(reset)
            await trio.testing.wait_all_tasks_blocked()
            served.go_on.set()

    trio.run(main)
    assert sorted(done) == ["copy", "reset"]
    assert fs.getattr(fs.resolve("seq/0")).size == 0
    assert not operations._gates
    assert not operations._readings
    fs.close()

"""Which nodes a file has (`fuse.passthrough`), and when who reads by one loses it (`fuse.announcer`), without a mount.

The kernel is played by who opens and looks up.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.fuse.conftest import wait_until
from zonefs_py.config import FormatOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import BadHandle, DeviceError, StaleNode
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.fuse import announcer as announcer_module
from zonefs_py.fuse import door
from zonefs_py.fuse import passthrough as passthrough_module
from zonefs_py.fuse.announcer import ROUNDS_TO_ASK, Announcer
from zonefs_py.fuse.door import pyfuse3
from zonefs_py.fuse.kernel_cache import KernelCache
from zonefs_py.fuse.passthrough import OpenMode, Passthrough
from zonefs_py.zone import Geometry, ZoneCondition

MIB = 1 << 20
Opener = Callable[[int], tuple[int, int]]


class Kernel:
    """Opens files as the kernel does: by the node that a look-up finds."""

    def __init__(self, filesystem: Filesystem, passthrough: Passthrough) -> None:
        self.filesystem = filesystem
        self.passthrough = passthrough
        self.ino = filesystem.resolve("seq/0")
        self.modes: dict[int, OpenMode] = {}
        """How what is open was opened, by handle."""

    def open(self, flags: int, number: int | None = None) -> int:
        number = self.passthrough.node(self.ino)[0] if number is None else number
        handle = self.filesystem.open(self.ino, flags)
        self.modes[handle] = self.passthrough.open(self.ino, number, handle, flags, sequential=True)
        return handle

    def passed(self) -> list[int]:
        """What is open and passed through, in whatever."""
        return [handle for node in self.passthrough.doubt(self.ino) for handle in node.handles]

    def withdraw(self) -> Iterator[None]:
        return self.passthrough.withdraw(self.ino, self.passthrough.doubt(self.ino))

    def take_back(self) -> Iterator[None]:
        return self.passthrough.take_back(self.ino)

    def close(self, *handles: int) -> None:
        for handle in handles:
            del self.modes[handle]
            self.passthrough.release(handle)
            self.filesystem.release(handle)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    geometry = Geometry(MIB, MIB, 4, 1, 4096, MIB)
    create_device(tmp_path / "disk", geometry)
    device = open_device(tmp_path / "disk")
    format_device(device, FormatOptions())
    filesystem = Filesystem(device)
    passthrough = Passthrough(filesystem, "auto")
    passthrough.active = True
    ids = itertools.count(1)
    monkeypatch.setattr(door, "open_backing", lambda descriptor: next(ids))
    monkeypatch.setattr(door, "close_backing", lambda number: None)
    # Nobody who got ESTALE is waited for.
    monkeypatch.setattr(passthrough_module, "SECONDS_TO_COME_BACK", 0.0)
    return Kernel(filesystem, passthrough)


def make_two_nodes(kernel: Kernel) -> tuple[int, int]:
    """Handles that read past us by either node."""
    old = kernel.open(os.O_RDONLY)
    with pytest.raises(StaleNode):
        kernel.passthrough.check_open(kernel.ino, 0, os.O_RDWR, sequential=True)
    new = kernel.open(os.O_RDONLY)
    assert kernel.passthrough.nodes(kernel.ino) == [0, 1]
    assert sorted(kernel.passed()) == [old, new]
    return old, new


@pytest.mark.parametrize("name", ["withdraw", "take_back"])
def test_a_node_that_nobody_opened_does_not_stay(kernel: Kernel, name: str) -> None:
    old, new = make_two_nodes(kernel)
    taken = [kernel.passthrough.node(kernel.ino) for _ in getattr(kernel, name)()]
    assert taken == [(0, 1), (1, 1)], "a look-up must find each of them with another generation"
    kernel.close(old, new)
    assert kernel.passthrough.nodes(kernel.ino) == [1]
    assert not kernel.passthrough.is_split(kernel.ino)
    # Another reader, another writer: as ever.
    for flags in (os.O_RDONLY, os.O_RDWR):
        kernel.close(kernel.open(flags))
    assert not kernel.passthrough.is_split(kernel.ino)


def test_a_node_that_was_to_be_opened_but_was_not_does_not_stay(kernel: Kernel) -> None:
    old = kernel.open(os.O_RDONLY)
    with pytest.raises(StaleNode):
        kernel.passthrough.check_open(kernel.ino, 0, os.O_RDWR, sequential=True)
    # He who got ESTALE was killed; the zone breaks.
    assert len(list(kernel.withdraw())) == 1
    kernel.close(old)
    assert not kernel.passthrough.is_split(kernel.ino)


def test_a_node_that_comes_back_has_the_generation_that_it_had(kernel: Kernel) -> None:
    old, new = make_two_nodes(kernel)
    list(kernel.withdraw())
    # Looked up in between by somebody who opens it only now.
    late = kernel.open(os.O_RDONLY, 0)
    assert sorted(kernel.passthrough.generations(kernel.ino)) == [(0, 1), (1, 1)]
    kernel.close(old, new, late)
    assert kernel.passthrough.generations(kernel.ino) == [(1, 1)]


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDONLY | os.O_DIRECT])
def test_who_does_not_read_past_us_keeps_a_node_that_nobody_comes_to(kernel: Kernel, flags: int) -> None:
    one = kernel.open(flags)
    assert kernel.modes[one].backing
    assert list(kernel.withdraw()) == []
    assert kernel.passthrough.generations(kernel.ino) == [(0, 0)]
    for wanted in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT, os.O_RDWR):
        with pytest.raises(StaleNode):
            kernel.open(wanted, 0)
    # He reads nothing, and the kernel would not take him for anything else.
    writer = kernel.open(os.O_WRONLY, 0)
    assert kernel.modes[writer] == kernel.modes[one]
    assert kernel.passthrough.node(kernel.ino) == (1, 0)
    reader = kernel.open(os.O_RDONLY)
    assert kernel.modes[reader].passes_by, "if the device has a file again"
    kernel.close(one, writer)
    assert kernel.passthrough.nodes(kernel.ino) == [1]


def test_a_withdrawn_node_is_as_ever_when_it_has_been_closed(kernel: Kernel) -> None:
    writer = kernel.open(os.O_WRONLY)
    list(kernel.withdraw())
    kernel.close(writer)
    assert kernel.modes[kernel.open(os.O_RDONLY)].passes_by
    assert kernel.passthrough.nodes(kernel.ino) == [0]


def test_what_becomes_doubtful_during_an_open_is_not_passed_through(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_backing(descriptor: int) -> int:
        opened.append(7)
        assert kernel.passed() == []
        return 7

    monkeypatch.setattr(door, "open_backing", open_backing)
    monkeypatch.setattr(door, "close_backing", opened.remove)
    late = kernel.open(os.O_RDONLY)
    assert kernel.modes[late] == OpenMode(True, 0)
    assert opened == []
    kernel.close(late)


class NoKernel(KernelCache):
    """What is told to a kernel that has no mount of ours."""

    def forget(self, ino: int, *, attr_only: bool, but: int | None = None) -> None:
        """There is nothing to forget."""

    def look_up_again(self, ino: int) -> None:
        """Nobody has the node any more when it has another generation."""


def make_announcer(kernel: Kernel) -> Announcer:
    """To be called in the thread that trio runs in."""
    return Announcer(kernel.filesystem, kernel.passthrough, NoKernel(kernel.filesystem, kernel.passthrough))


def test_who_is_doubted_while_others_are_asked_for_is_asked_for_too(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is short of descriptors, twice: the second time just after the first doubt was settled by a yes."""
    filesystem, ino = kernel.filesystem, kernel.ino
    kernel.open(os.O_RDONLY)
    give = filesystem.backing_descriptor
    answers: list[str] = []
    monkeypatch.setattr(announcer_module, "LONGEST_PAUSE", 0.0)

    async def main() -> None:
        announcer = make_announcer(kernel)
        filesystem.on_withdrawn = announcer.withdrawn
        # As pyfuse3 does when it begins to serve.
        monkeypatch.setattr(pyfuse3, "trio_token", trio.lowlevel.current_trio_token())

        def backing_descriptor(handle: int, *, wait: bool = True) -> int | None:
            number = len(answers)
            answers.append("unknown" if number in (0, 2) else "known")
            if number in (0, 2):
                raise DeviceError("Too many open files")
            descriptor = give(handle, wait=wait)
            if number == 1:
                # The zone breaks when it has just been found to be well; whether it is still, nobody can tell.
                filesystem.device.force_condition(ino, ZoneCondition.OFFLINE)
                wait_until("it is doubted again", lambda: announcer._unsure[ino] == 2)
            return descriptor

        filesystem.backing_descriptor = backing_descriptor  # type: ignore[method-assign]  # of a poor host
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                announcer.nursery = nursery
                await trio.to_thread.run_sync(announcer.withdrawn, ino)
        assert not announcer.failed
        assert not announcer._unsure

    trio.run(main)
    assert answers[:4] == ["unknown", "known", "unknown", "known"]
    assert kernel.passed() == [], "the zone is offline, and nobody reads it past us"


def test_a_reader_who_is_gone_for_good_is_not_asked_for_without_end(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a bug the file is closed, but not known to be: the node is taken for one that may not be read."""
    handle = kernel.open(os.O_RDONLY)
    rounds = 0

    def backing_descriptor(handle: int, *, wait: bool = True) -> int | None:
        nonlocal rounds
        rounds += 1
        assert rounds <= ROUNDS_TO_ASK
        raise BadHandle(f"handle {handle} is not open")

    monkeypatch.setattr(kernel.filesystem, "backing_descriptor", backing_descriptor)
    make_announcer(kernel)._withdraw(kernel.ino)
    assert rounds == ROUNDS_TO_ASK
    assert kernel.passed() == []
    assert kernel.passthrough.generations(kernel.ino) == [(0, 1)]
    kernel.close(handle)

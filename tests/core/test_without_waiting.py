"""Calls that wait for nobody: while somebody else has a file, they say so at once, and have changed nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from zonefs_py.config import FormatOptions, MountOptions
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import BadHandle, DeviceError
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.file import ZoneFile
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition

BLOCK = 4096
SIZE = 16 * BLOCK
GEOMETRY = Geometry(SIZE, SIZE, 6, 2, BLOCK, SIZE)
"""cnv/0 is zone 1, seq/0 zone 2, seq/1 zone 3."""
DIRECT = os.O_RDWR | os.O_DIRECT
SECONDS = 60


class WatchedDevice(MemoryDevice):
    """A device that tells of copies before they begin."""

    before: Callable[[], None] | None = None

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        if self.before is not None:
            self.before()
        super().copy(ranges, method, generation)


class Opened:
    """A file system with cnv/0 and seq/0 open, of two blocks; and seq/1, of none."""

    def __init__(self) -> None:
        self.device = WatchedDevice(GEOMETRY, 3, 4)
        format_device(self.device, FormatOptions())
        self.fs = Filesystem(self.device, MountOptions(explicit_open=True))
        self.cnv, self.seq, self.empty = (self.fs.open(name, DIRECT) for name in ("cnv/0", "seq/0", "seq/1"))
        for handle in (self.cnv, self.seq):
            self.fs.write(handle, 0, b"x" * BLOCK * 2)
        self.memory = bytearray(BLOCK)

    def file(self, name: str) -> ZoneFile:
        """The file, with its lock."""
        file = self.fs._inode(name)
        assert isinstance(file, ZoneFile)
        return file

    def state(self) -> tuple[Any, ...]:
        """What a call could change."""
        fs = self.fs
        files = [fs.getattr(ino) for ino in range(1, 6)]
        return self.device.report_zones(), files, fs.counters, fs.activity, fs.used, fs.nr_handles, bytes(self.memory)

    def locked(self, name: str) -> AbstractContextManager[Any]:
        """Somebody has the file."""
        return self.file(name).lock

    @contextmanager
    def being_read(self, name: str) -> Iterator[None]:
        """Somebody reads the file, without its lock."""
        readings, file = self.fs._copier.readings, self.file(name)
        readings.begin([file])
        yield
        readings.end([file])

    def awaited(self, name: str) -> AbstractContextManager[Any]:
        """Somebody waits until nobody reads the file."""
        return self.fs._copier.readings.awaited(self.file(name))

    # Calls

    def read(self) -> object:
        return self.fs.read_now(self.seq, 0, memoryview(self.memory))

    def append(self) -> object:
        return self.fs.write_now(self.seq, 2 * BLOCK, b"y" * BLOCK)

    def overwrite(self) -> object:
        return self.fs.write_now(self.cnv, 0, b"y" * BLOCK)

    def open(self) -> object:
        return self.fs.open_now("seq/0", os.O_RDONLY)

    def open_to_write(self) -> object:
        return self.fs.open_now("seq/0", os.O_WRONLY)

    def open_to_cut(self) -> object:
        return self.fs.open_now("seq/0", os.O_RDWR | os.O_TRUNC)

    def close(self) -> object:
        return self.fs.release_now(self.seq)

    def change(self) -> object:
        return self.fs.setattr_now("seq/0", AttributeChanges(mode=0o600))

    def cut(self) -> object:
        return self.fs.setattr_now("seq/0", AttributeChanges(size=0))

    def copy(self) -> object:
        return self.fs.copy_range_now(self.seq, 0, self.empty, 0, BLOCK)

    def copy_over(self) -> object:
        return self.fs.copy_range_now(self.seq, 0, self.cnv, 0, BLOCK)


def beside(call: Callable[[], object]) -> object:
    """Make *call*, which must not wait, in a thread; return what it does."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "it waits"
    return results[0]


LOCKED, READ, AWAITED = Opened.locked, Opened.being_read, Opened.awaited

CASES: list[tuple[Callable[[Opened], object], Callable[[Opened, str], AbstractContextManager[Any]], str]] = [
    (Opened.read, LOCKED, "seq/0"),
    (Opened.append, LOCKED, "seq/0"),
    (Opened.overwrite, LOCKED, "cnv/0"),
    (Opened.overwrite, READ, "cnv/0"),
    (Opened.open, LOCKED, "seq/0"),
    (Opened.open_to_write, LOCKED, "seq/0"),
    (Opened.open_to_cut, LOCKED, "seq/0"),
    (Opened.open_to_cut, READ, "seq/0"),
    (Opened.close, LOCKED, "seq/0"),
    (Opened.change, LOCKED, "seq/0"),
    (Opened.cut, LOCKED, "seq/0"),
    (Opened.cut, READ, "seq/0"),
    (Opened.copy, LOCKED, "seq/0"),
    (Opened.copy, LOCKED, "seq/1"),
    (Opened.copy, AWAITED, "seq/0"),
    (Opened.copy_over, READ, "cnv/0"),
]


@pytest.mark.parametrize(
    ("call", "busy", "name"), CASES, ids=[f"{call.__name__}-{busy.__name__}-{name}" for call, busy, name in CASES]
)
def test_nothing_is_done_while_somebody_has_the_file(
    call: Callable[[Opened], object], busy: Callable[[Opened, str], AbstractContextManager[Any]], name: str
) -> None:
    it = Opened()
    before = it.state()
    with busy(it, name):
        assert beside(lambda: call(it)) in (None, False)
        assert it.state() == before
    # And nothing is left of it.
    done = beside(lambda: call(it))
    assert done is not None
    assert done is not False
    assert it.state() != before
    it.fs.close()


def test_a_file_that_was_not_written_is_closed_whoever_has_it() -> None:
    it = Opened()
    reader = it.fs.open("seq/0", os.O_RDONLY)
    with it.locked("seq/0"):
        assert beside(lambda: it.fs.release_now(reader)) is True
    with pytest.raises(BadHandle):
        it.fs.release_now(reader)


@pytest.mark.parametrize(
    ("zone", "condition"), [(2, ZoneCondition.OFFLINE), (3, ZoneCondition.READONLY)], ids=["source", "target"]
)
def test_the_source_of_a_copy_stays_locked_until_its_error_is_dealt_with(zone: int, condition: ZoneCondition) -> None:
    """Who lets go of it would have to wait for it again."""
    it = Opened()
    source, target = it.file("seq/0"), it.file("seq/1")
    held: list[tuple[bool, bool]] = []
    it.device.before = lambda: held.append((source.lock.locked(), target.lock.locked()))
    it.device.force_condition(zone, condition)
    with pytest.raises(DeviceError):
        it.copy()
    assert held == [(True, True)]
    assert not source.lock.locked()
    assert not target.lock.locked()
    assert (source.offline, target.readonly) == (zone == 2, zone == 3)

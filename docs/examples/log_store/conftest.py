"""The store on a file system in this process: no mount, no /dev/fuse, and power cuts that take a millisecond."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from log_store import FixedLogStore, LogStore

from zonefs_py import Filesystem


class ZonesInProcess:
    """Sequential files of a file system that is not mounted."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem

    def numbers(self) -> list[int]:
        names = [name for _, name in self._filesystem.report() if name is not None]
        return sorted(int(name.removeprefix("seq/")) for name in names if name.startswith("seq/"))

    def capacity(self, number: int) -> int:
        return next(zone.capacity for zone, name in self._filesystem.report() if name == f"seq/{number}")

    def read(self, number: int) -> bytes:
        size = self._filesystem.getattr(self._filesystem.resolve(f"seq/{number}")).size
        with self._opened(number, os.O_RDONLY) as handle:
            return self._filesystem.read(handle, 0, size)

    def append(self, number: int, data: bytes) -> None:
        with self._opened(number, os.O_WRONLY | os.O_DIRECT | os.O_APPEND) as handle:
            self._filesystem.write(handle, 0, data)

    def sync(self, number: int) -> None:
        with self._opened(number, os.O_RDONLY) as handle:
            self._filesystem.fsync(handle)

    def reset(self, number: int) -> None:
        self._filesystem.truncate(f"seq/{number}", 0)

    @contextmanager
    def _opened(self, number: int, flags: int) -> Iterator[int]:
        handle = self._filesystem.open(f"seq/{number}", flags)
        try:
            yield handle
        finally:
            self._filesystem.release(handle)


@pytest.fixture(params=[LogStore, FixedLogStore])
def store_type(request: pytest.FixtureRequest) -> type[LogStore]:
    """The store with the bug, and the one without."""
    chosen: type[LogStore] = request.param
    return chosen

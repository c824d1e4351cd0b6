"""What has been done through a file system since it was mounted, in numbers.

Reads and writes are counted in their file, under its lock, which is held anyway: counting must not be felt.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

from zonefs_py.fs.file import ZoneFile


class ActivityCounters(NamedTuple):
    """How often each thing was done with success, and how many bytes it moved. Copies are counted by their engine."""

    reads: int
    bytes_read: int
    writes: int
    bytes_written: int
    syncs: int
    resets: int
    finishes: int


class Activity:
    """Counts, exactly, in any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards all below. The last lock taken."""
        self._syncs = self._resets = self._finishes = 0
        self._before = [0, 0, 0, 0]
        """Reads, bytes read, writes, bytes written in files that were carried over."""

    def counters(self, files: Iterable[ZoneFile]) -> ActivityCounters:
        """The numbers at this moment, with those of *files*."""
        with self._lock:
            reads, bytes_read, writes, bytes_written = self._before
        for file in files:
            reads += file.reads
            bytes_read += file.bytes_read
            writes += file.writes
            bytes_written += file.bytes_written
        with self._lock:
            return ActivityCounters(reads, bytes_read, writes, bytes_written, self._syncs, self._resets, self._finishes)

    def carry(self, files: Iterable[ZoneFile]) -> None:
        """Count what was done with *files*, which `counters` will not be given any more."""
        with self._lock:
            for file in files:
                for place, number in enumerate((file.reads, file.bytes_read, file.writes, file.bytes_written)):
                    self._before[place] += number

    def count_sync(self) -> None:
        """Count an fsync of a file."""
        with self._lock:
            self._syncs += 1

    def count_reset(self) -> None:
        """Count a zone that was reset."""
        with self._lock:
            self._resets += 1

    def count_finish(self) -> None:
        """Count a zone that was finished."""
        with self._lock:
            self._finishes += 1

"""What has been done through a file system since it was mounted, in numbers."""

from __future__ import annotations

import threading
from typing import NamedTuple


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
        self._reads = self._bytes_read = self._writes = self._bytes_written = 0
        self._syncs = self._resets = self._finishes = 0

    @property
    def counters(self) -> ActivityCounters:
        """The numbers at this moment."""
        with self._lock:
            return ActivityCounters(
                self._reads,
                self._bytes_read,
                self._writes,
                self._bytes_written,
                self._syncs,
                self._resets,
                self._finishes,
            )

    def count_read(self, length: int) -> None:
        """Count a read of *length* bytes."""
        with self._lock:
            self._reads += 1
            self._bytes_read += length

    def count_write(self, length: int) -> None:
        """Count a write of *length* bytes."""
        with self._lock:
            self._writes += 1
            self._bytes_written += length

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

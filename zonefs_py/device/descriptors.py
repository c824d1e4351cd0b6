"""A bounded cache of open file descriptors, one a zone: a device may have more zones than a process may have files."""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable

from zonefs_py.errors import is_out_of_descriptors


class DescriptorCache:
    """Descriptors by zone number; the least recently used that nobody holds is closed when there are too many."""

    def __init__(self, open_zone: Callable[[int], int], limit: int | None = None) -> None:
        """*open_zone* opens one; *limit* is how many are kept: half of what the process may have open, if None."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = limit or max(16, min(soft // 2, 16384))
        self._open_zone = open_zone
        self._lock = threading.Lock()
        """Guards everything below. Held while a file is opened: that is rare and short."""
        self._descriptors: OrderedDict[int, list[int]] = OrderedDict()
        """Zone number -> [descriptor, number of holders], least recently used first."""

    def acquire(self, number: int) -> int:
        """Return zone *number*'s descriptor; it stays open until `release`. Raises OSError."""
        with self._lock:
            entry = self._descriptors.get(number)
            if entry is None:
                if len(self._descriptors) >= self._limit:
                    self._close_idle()
                entry = self._descriptors[number] = [self._open(number), 0]
            else:
                self._descriptors.move_to_end(number)
            entry[1] += 1
            return entry[0]

    def release(self, number: int) -> None:
        """Say that the caller of `acquire` is done."""
        with self._lock:
            self._descriptors[number][1] -= 1

    def _open(self, number: int) -> int:
        while True:
            try:
                return self._open_zone(number)
            except OSError as exc:
                # Somebody else in this process took the descriptors that the limit reckoned with.
                if not is_out_of_descriptors(exc) or not self._close_idle():
                    raise

    def _close_idle(self) -> bool:
        """Close the descriptor that nobody has used for longest; whether there was one."""
        for number, (descriptor, holders) in self._descriptors.items():
            if not holders:
                del self._descriptors[number]
                os.close(descriptor)
                return True
        return False

    def close(self) -> None:
        """Close all. Nobody may hold one."""
        with self._lock:
            for descriptor, _ in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

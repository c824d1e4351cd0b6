"""Memory that direct I/O takes: what is aligned is used as it is, all else goes through a few buffers."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def is_aligned_memory(view: memoryview, alignment: int) -> bool:
    """Whether *view* begins at an address that is a multiple of *alignment*, as far as that can be told.

    The address of read-only memory is not known to Python; ``bytes`` are never aligned anyway.
    """
    if view.readonly or not view.contiguous or not view.nbytes:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) % alignment == 0


class BufferPool:
    """Page-aligned buffers of one size. They are made when first needed; who finds none free waits for one."""

    def __init__(self, size: int, limit: int) -> None:
        """*size* in bytes, a multiple of the page; at most *limit* buffers."""
        self.size = size
        self._room = threading.BoundedSemaphore(limit)
        self._free: list[mmap.mmap] = []
        """Those not in use. The last is taken first: its pages are there already. Single operations are atomic."""

    @contextmanager
    def take(self) -> Iterator[memoryview]:
        """Give a buffer for as long as the context lasts. What is in it is left over from others."""
        with self._room:
            try:
                buffer = self._free.pop()
            except IndexError:
                buffer = mmap.mmap(-1, self.size)
            try:
                with memoryview(buffer) as view:
                    yield view
            finally:
                self._free.append(buffer)

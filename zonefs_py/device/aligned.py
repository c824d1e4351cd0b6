"""Memory that direct I/O takes: what is aligned is used as it is, all else goes through a few buffers."""

from __future__ import annotations

import ctypes
import mmap
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
    """Page-aligned buffers of one size. They are made when needed; some of those that are given back are kept."""

    def __init__(self, size: int, keep: int) -> None:
        """*size* in bytes, a multiple of the page; at most *keep* buffers are kept for later.

        Nobody waits for a buffer: a device that is stuck in one zone must not hold up the others.
        """
        self.size = size
        self._keep = keep
        self._free: list[mmap.mmap] = []
        """Those not in use. The last is taken first: its pages are there already. Single operations are atomic."""

    @contextmanager
    def take(self) -> Iterator[memoryview]:
        """Give a buffer for as long as the context lasts. What is in it is left over from others."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = mmap.mmap(-1, self.size)
        try:
            with memoryview(buffer) as view:
                yield view
        finally:
            # Else it goes when the last view of it does.
            if len(self._free) < self._keep:
                self._free.append(buffer)

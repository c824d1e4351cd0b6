"""Memory for direct I/O: what counts as aligned, and the buffers for what is not."""

from __future__ import annotations

import contextlib
import mmap

import pytest

from zonefs_py.device.aligned import BufferPool, is_aligned_memory

PAGE = mmap.PAGESIZE


def test_memory_of_a_page_is_aligned() -> None:
    with mmap.mmap(-1, 4 * PAGE) as memory, memoryview(memory) as view:
        for start in range(0, PAGE, 128):
            with view[start : start + 512] as piece:
                assert is_aligned_memory(piece, 512) == (start % 512 == 0)
                assert is_aligned_memory(piece, PAGE) == (start == 0)
                assert is_aligned_memory(piece, 128)


def test_a_look_keeps_nothing() -> None:
    memory = bytearray(PAGE)
    with memoryview(memory) as view:
        is_aligned_memory(view, 512)
    memory.clear()  # BufferError if somebody still held it


def test_read_only_and_scattered_memory_is_not() -> None:
    view = memoryview(mmap.mmap(-1, PAGE))
    assert is_aligned_memory(view, 1)
    for other in (view.toreadonly(), view[::2], view[:0]):
        assert not is_aligned_memory(other, 1)
    assert not is_aligned_memory(memoryview(bytes(PAGE)), 512)


def test_buffers_are_aligned_and_used_again() -> None:
    pool = BufferPool(2 * PAGE, 3)
    with pool.take() as first, pool.take() as second:
        first[:4] = b"1st."
        second[:4] = b"2nd."
        assert len(first) == 2 * PAGE
        assert is_aligned_memory(first, PAGE)
        assert is_aligned_memory(second, PAGE)
    # The one that was given back last.
    with pool.take() as again:
        assert bytes(again[:4]) == b"1st."


def test_a_buffer_comes_back_after_an_error() -> None:
    pool = BufferPool(PAGE, 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), pool.take():
            raise ZeroDivisionError


def test_nobody_waits_for_a_buffer_and_few_are_kept() -> None:
    pool = BufferPool(PAGE, 2)
    with contextlib.ExitStack() as stack:
        views = [stack.enter_context(pool.take()) for _ in range(5)]
        for number, view in enumerate(views):
            view[0] = number + 1
        assert [view[0] for view in views] == [1, 2, 3, 4, 5]
    with pool.take() as first, pool.take() as second, pool.take() as third:
        # They were given back last first; the other two are kept, and the third is new.
        assert (first[0], second[0], third[0]) == (4, 5, 0)

"""What `zonefs-py copy` decides before it copies, and how it compares afterwards: without a mount."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.cli.copy_files import BUFFER_SIZE, CopyFile, Kind, Part, compare, examine, plan_parts, read_padded
from zonefs_py.errors import UserError

BLOCK = 4096
CAPACITY = 1 << 20
SEQUENTIAL = CopyFile("seq/1", Kind.SEQUENTIAL, (1, 1), 0, CAPACITY, BLOCK)
CONVENTIONAL = CopyFile("cnv/1", Kind.CONVENTIONAL, (1, 2), CAPACITY, CAPACITY, 1)
ORDINARY = CopyFile("out", Kind.ORDINARY, (2, 1))


def source(size: int, number: int = 3) -> CopyFile:
    return CopyFile(f"source{number}", Kind.ORDINARY, (3, number), size)


@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=5),
    written=st.integers(0, 20).map(lambda blocks: blocks * BLOCK),
)
def test_padded_parts_lie_end_to_end_in_whole_blocks(sizes: list[int], written: int) -> None:
    target = replace(SEQUENTIAL, size=written)
    parts = plan_parts([source(size) for size in sizes], target, append=True, pad=True)
    end = written
    for size, part in zip(sizes, parts, strict=True):
        assert part.offset == end
        assert part.length % BLOCK == 0
        assert 0 <= part.length - size < BLOCK
        end += part.length


@pytest.mark.parametrize(
    ("sizes", "target", "options", "says"),
    [
        ([BLOCK, 100, BLOCK], SEQUENTIAL, {}, "source3: 100 bytes are no multiple of the block size, 4096"),
        ([CAPACITY, BLOCK], SEQUENTIAL, {}, "room for 1048576 bytes, but 1052672 are to come"),
        ([CAPACITY], replace(SEQUENTIAL, size=BLOCK), {"append": True}, "room for 1044480 bytes"),
        ([CAPACITY - 1, BLOCK], SEQUENTIAL, {"pad": True}, "room for"),
        ([BLOCK], replace(SEQUENTIAL, size=BLOCK), {}, "seq/1 is not empty; --append adds to it"),
        ([BLOCK], replace(ORDINARY, size=1), {}, "out is not empty"),
        ([BLOCK], CONVENTIONAL, {"append": True}, "no write pointer to append at"),
        ([CAPACITY + 1], CONVENTIONAL, {}, "room for 1048576 bytes"),
    ],
)
def test_what_is_refused(sizes: list[int], target: CopyFile, options: dict[str, bool], says: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_parts([source(size) for size in sizes], target, **({"append": False, "pad": False} | options))
    assert says in str(caught.value)


def test_a_conventional_file_is_not_copied_to_itself() -> None:
    with pytest.raises(UserError, match="both source and destination"):
        plan_parts([source(5), CONVENTIONAL], CONVENTIONAL, append=False, pad=False)


def test_only_sequential_destinations_need_whole_blocks() -> None:
    for target in (CONVENTIONAL, ORDINARY):
        parts = plan_parts([source(5), source(7)], target, append=False, pad=True)
        assert [(part.offset, part.length) for part in parts] == [(0, 5), (5, 7)]


@given(size=st.integers(0, 10_000), offset=st.integers(0, 12_000), length=st.integers(0, 12_000))
def test_reading_pads_only_the_last_block(size: int, offset: int, length: int) -> None:
    data = os.urandom(size)
    descriptor = os.memfd_create("source")
    try:
        os.write(descriptor, data)
        view = memoryview(bytearray(b"x" * length))
        done = read_padded(descriptor, offset, view, 512)
    finally:
        os.close(descriptor)
    there = data[offset : offset + length]
    assert view[: len(there)] == there
    assert done == min(length, (len(there) + 511) // 512 * 512)
    assert not any(view[len(there) : done])


@pytest.mark.parametrize("place", [0, 1000, BUFFER_SIZE - 1, BUFFER_SIZE, BUFFER_SIZE + 5000])
def test_comparing_finds_one_wrong_byte(tmp_path: Path, place: int) -> None:
    data = bytearray(os.urandom(BUFFER_SIZE + 5001))
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(b"before" + data)
    here, there = examine(str(tmp_path / "a")), examine(str(tmp_path / "b"))
    parts = [Part(here, 6, here.size)]
    reached: list[int] = []
    compare(parts, there, reached.append)
    assert reached == [6 + BUFFER_SIZE, 6 + len(data)]
    data[place] ^= 1
    (tmp_path / "b").write_bytes(b"before" + data)
    with pytest.raises(UserError, match=f"b differs from .*a at byte {6 + place}$"):
        compare(parts, there, reached.append)


def test_a_file_that_hides_its_size_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^/proc/version has data, but says that it is empty; "):
        examine("/proc/version")
    (tmp_path / "a").touch()
    assert examine(str(tmp_path / "a")).size == 0


def test_comparing_finds_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").write_bytes(b"123")
    here, there = examine(str(tmp_path / "a")), examine(str(tmp_path / "b"))
    with pytest.raises(UserError, match=r"at byte 3$"):
        compare([Part(here, 0, 4)], there, lambda done: None)

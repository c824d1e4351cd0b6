"""The bytes of the copy ioctl; tests/fuse/test_copy_ioctl.py compares them with the C header."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.copy import abi
from zonefs_py.errors import InvalidRequest

u64 = st.integers(0, (1 << 64) - 1)
requests = st.builds(
    abi.CopyRequest,
    st.none() | st.integers(0, (1 << 64) - 2),
    st.lists(st.builds(abi.SourceRange, u64, u64, u64), min_size=1, max_size=20).map(tuple),
)


@given(requests)
def test_a_request_is_read_as_it_was_written(request: abi.CopyRequest) -> None:
    data = abi.pack_request(request)
    assert len(data) == 32 * (1 + len(request.sources)) == abi.command(len(request.sources)) >> 16 & 0x3FFF
    assert abi.parse_request(bytes(data)) == request


@given(requests, st.none() | st.integers(0, (1 << 64) - 2), st.integers(0, 133), st.data())
def test_a_reply_fills_in_its_fields_and_no_others(
    request: abi.CopyRequest, offset: int | None, result: int, data: st.DataObject
) -> None:
    nr_ranges = len(request.sources)
    completed = tuple(data.draw(st.lists(u64, min_size=nr_ranges, max_size=nr_ranges)))
    before = bytes(abi.pack_request(request))
    after = abi.pack_reply(before, abi.CopyReply(offset, result, completed))
    began = request.offset if offset is None else offset
    assert abi.parse_reply(after, nr_ranges) == abi.CopyReply(began, result, completed)
    numbers, changed = (list(struct.unpack(f"={len(before) // 8}Q", one)) for one in (before, after))
    for index in (1, 2, *range(7, len(numbers), 4)):
        numbers[index] = changed[index]
    assert numbers == changed


def test_the_command_says_the_size() -> None:
    assert abi.command(1) == 0xC0405A81
    assert abi.command(abi.MAX_RANGES) == 0xFFE05A81
    for count in (-1, 0, abi.MAX_RANGES + 1):
        with pytest.raises(ValueError, match="one ioctl copies 1 to 510"):
            abi.command(count)


@pytest.mark.parametrize("flip", range(32))
def test_another_command_is_not_ours(flip: int) -> None:
    ours = 16 <= flip < 30
    assert abi.is_copy(abi.command(3) ^ 1 << flip) == ours


@pytest.mark.parametrize("field", [(1 << 64, 0, 0), (0, -1, 0), (0, 0, 1 << 64)])
def test_what_does_not_fit_is_refused(field: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="CopyRequest"):
        abi.pack_request(abi.CopyRequest(0, (abi.SourceRange(*field),)))
    with pytest.raises(ValueError, match="CopyRequest"):
        abi.pack_request(abi.CopyRequest(-1, (abi.SourceRange(0, 0, 0),)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = abi.parse_request(data)
    except InvalidRequest:
        return
    assert 32 * (1 + len(request.sources)) == len(data)


@given(st.lists(st.integers(1, 50), max_size=8), st.integers(0, 400))
def test_what_is_done_belongs_to_the_first_ranges(lengths: list[int], completed: int) -> None:
    shares = abi.share_out(completed, lengths)
    assert sum(shares) == min(completed, sum(lengths))
    assert all(share <= length for share, length in zip(shares, lengths, strict=True))
    short = [index for index, (share, length) in enumerate(zip(shares, lengths, strict=True)) if share < length]
    assert not short or not any(shares[short[0] + 1 :])

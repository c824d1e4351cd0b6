"""Sizes as text and back; alignment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.units import format_size, is_aligned, parse_count, parse_size, round_down


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4K", 4096),
        ("4k", 4096),
        ("4 KiB", 4096),
        ("64MiB", 64 << 20),
        ("1G", 1 << 30),
        ("2T", 2 << 40),
    ],
)
def test_sizes_that_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "M",
        "-1",
        "+1",
        "1.5M",
        "0x10",
        "4KB",
        "4 096",
        "1P",
        "ten",
        "1e3",
        " 64M",
        "64M ",
        "64\tM",
        "4  K",
        "4K\n4K",
        "1_000",
        "512iB",
        "٣K",
    ],
)
def test_what_is_not_a_size_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "+1", "1.5", "0x10", "1e3", "1_000", "8 ", " 8", "8\n", "٣", "²", "4K"]
)
def test_what_is_not_a_count_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number") as caught:
        parse_count(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, 10**39 - 1))
def test_counts_are_decimal(number: int) -> None:
    assert parse_count(str(number)) == number
    assert parse_count(f"0{number}") == number


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1, "1"), (1023, "1023"), (1024, "1K"), (1536, "1536"), (3 << 20, "3M"), (1 << 40, "1T")],
)
def test_sizes_are_shown_with_the_largest_suffix_that_is_exact(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**70))
def test_a_shown_size_parses_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert size >= 0


@given(st.integers(0, 2**64), st.integers(1, 2**40))
def test_rounding_down_aligns_and_loses_less_than_one_step(value: int, alignment: int) -> None:
    rounded = round_down(value, alignment)
    assert is_aligned(rounded, alignment)
    assert 0 <= value - rounded < alignment
    assert is_aligned(value, alignment) == (rounded == value)

"""The limits of the copy path: who may set what to which value, and that no command exceeds them."""

from __future__ import annotations

import itertools
from dataclasses import astuple, fields

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zonefs_py.copy.limits import BYTE_LIMITS, MAX_NR_RANGES, MAX_RANGE_BYTES, SETTABLE, CopyLimits
from zonefs_py.copy.plan import gather, plan
from zonefs_py.errors import InvalidRequest
from zonefs_py.units import GIB, KIB, MIB
from zonefs_py.zone import CopyRange

BLOCK = 4096
HARDWARE = CopyLimits.of_hardware(64 * MIB, 16 * MIB, 8, BLOCK)
NONE = CopyLimits()


def test_the_names_are_those_of_the_series() -> None:
    assert [field.name for field in fields(CopyLimits)] == [
        "copy_offload",
        "copy_max_bytes",
        "copy_max_hw_bytes",
        "copy_max_range_bytes",
        "copy_max_range_hw_bytes",
        "copy_max_nr_ranges",
        "copy_max_nr_ranges_hw",
    ]
    assert {name for name in (field.name for field in fields(CopyLimits)) if name.endswith("_bytes")} == BYTE_LIMITS


def test_without_a_device_that_can_copy_everything_is_off() -> None:
    assert astuple(NONE) == (0, 0, 0, 0, 0, 0, 0)
    assert CopyLimits.of_hardware(0, 0, 0, BLOCK) == NONE
    assert not NONE.offload


def test_of_a_device_that_can_the_user_limits_are_its_own() -> None:
    assert astuple(HARDWARE) == (1, 64 * MIB, 64 * MIB, 16 * MIB, 16 * MIB, 8, 8)
    assert HARDWARE.offload


def test_a_device_limit_that_is_no_multiple_of_a_block_gives_whole_blocks() -> None:
    limits = CopyLimits.of_hardware(10 * BLOCK + 512, 3 * BLOCK + 1, 1, BLOCK)
    assert (limits.copy_max_hw_bytes, limits.copy_max_bytes) == (10 * BLOCK + 512, 10 * BLOCK)
    assert (limits.copy_max_range_hw_bytes, limits.copy_max_range_bytes) == (3 * BLOCK + 1, 3 * BLOCK)
    again = limits.with_limits({"copy_max_bytes": 20 * BLOCK, "copy_max_range_bytes": 20 * BLOCK}, BLOCK)
    assert again == limits
    assert not CopyLimits.of_hardware(BLOCK - 1, BLOCK - 1, 1, BLOCK).offload


def test_a_device_that_can_more_than_the_limits_can_say() -> None:
    limits = CopyLimits.of_hardware(1 << 50, MAX_RANGE_BYTES + 512, MAX_NR_RANGES + 1, 512)
    assert limits.copy_max_bytes == limits.copy_max_hw_bytes == 1 << 50
    assert limits.copy_max_range_bytes == limits.copy_max_range_hw_bytes == MAX_RANGE_BYTES
    assert limits.copy_max_nr_ranges == limits.copy_max_nr_ranges_hw == MAX_NR_RANGES


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("copy_offload", 0, 0),
        ("copy_offload", 1, 1),
        # At the device's limit, below, above: what is above becomes the limit, silently.
        ("copy_max_bytes", 64 * MIB, 64 * MIB),
        ("copy_max_bytes", 64 * MIB - BLOCK, 64 * MIB - BLOCK),
        ("copy_max_bytes", 64 * MIB + BLOCK, 64 * MIB),
        ("copy_max_bytes", 1 << 70, 64 * MIB),
        ("copy_max_bytes", BLOCK, BLOCK),
        ("copy_max_bytes", 0, 0),
        ("copy_max_range_bytes", 16 * MIB, 16 * MIB),
        ("copy_max_range_bytes", 16 * MIB - BLOCK, 16 * MIB - BLOCK),
        ("copy_max_range_bytes", 16 * MIB + BLOCK, 16 * MIB),
        ("copy_max_range_bytes", MAX_RANGE_BYTES - MAX_RANGE_BYTES % BLOCK, 16 * MIB),
        ("copy_max_range_bytes", 0, 0),
        ("copy_max_nr_ranges", 8, 8),
        ("copy_max_nr_ranges", 7, 7),
        ("copy_max_nr_ranges", 9, 8),
        ("copy_max_nr_ranges", MAX_NR_RANGES, 8),
        ("copy_max_nr_ranges", 0, 0),
    ],
)
def test_what_can_be_set(name: str, value: int, result: int) -> None:
    limits = HARDWARE.with_limit(name, value, BLOCK)
    assert getattr(limits, name) == result
    assert {field.name for field in fields(limits) if getattr(limits, field.name) != getattr(HARDWARE, field.name)} <= {
        name
    }
    assert limits.offload == (result != 0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("copy_offload", 2, "0 or 1"),
        ("copy_offload", -1, "negative"),
        ("copy_max_bytes", BLOCK - 1, "multiple"),
        ("copy_max_bytes", BLOCK + 512, "multiple"),
        ("copy_max_bytes", 64 * MIB + 1, "multiple"),
        ("copy_max_bytes", -BLOCK, "negative"),
        ("copy_max_range_bytes", 1, "multiple"),
        ("copy_max_range_bytes", MAX_RANGE_BYTES - MAX_RANGE_BYTES % BLOCK + BLOCK, "at most"),
        ("copy_max_range_bytes", -BLOCK, "negative"),
        ("copy_max_nr_ranges", MAX_NR_RANGES + 1, "at most"),
        ("copy_max_nr_ranges", -1, "negative"),
        ("copy_max_hw_bytes", BLOCK, "the device sets it"),
        ("copy_max_range_hw_bytes", BLOCK, "the device sets it"),
        ("copy_max_nr_ranges_hw", 1, "the device sets it"),
        ("copy_max", 1, "no such limit"),
        ("", 0, "no such limit"),
        ("offload", 1, "no such limit"),
    ],
)
def test_what_cannot_be_set(name: str, value: int, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        HARDWARE.with_limit(name, value, BLOCK)


def test_the_switch_stays_off_where_the_device_cannot_copy() -> None:
    with pytest.raises(InvalidRequest, match="cannot copy"):
        NONE.with_limit("copy_offload", 1, BLOCK)
    assert NONE.with_limit("copy_offload", 0, BLOCK) == NONE
    for name in SETTABLE[1:]:
        assert NONE.with_limit(name, BLOCK, BLOCK) == NONE, "anything is above a device limit of 0"


def test_several_limits_are_set_together_or_not_at_all() -> None:
    limits = HARDWARE.with_limits({"copy_max_bytes": BLOCK, "copy_max_nr_ranges": 1}, BLOCK)
    assert (limits.copy_max_bytes, limits.copy_max_nr_ranges) == (BLOCK, 1)
    with pytest.raises(InvalidRequest):
        HARDWARE.with_limits({"copy_max_bytes": BLOCK, "copy_max_nr_ranges": -1}, BLOCK)


values = st.one_of(
    st.integers(-1, 20), st.integers(-1, 1 << 20).map(lambda blocks: blocks * BLOCK), st.integers(-1, 1 << 72)
)


@settings(max_examples=500)
@given(
    st.builds(
        CopyLimits.of_hardware,
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 42),
        st.integers(0, 1 << 17),
        st.sampled_from((512, BLOCK)),
    ),
    st.sampled_from([field.name for field in fields(CopyLimits)]),
    values,
    st.sampled_from((512, BLOCK)),
)
def test_no_user_limit_is_ever_above_the_devices_or_in_parts_of_blocks(
    limits: CopyLimits, name: str, value: int, block: int
) -> None:
    try:
        after = limits.with_limit(name, value, block)
    except InvalidRequest:
        return
    assert name in SETTABLE
    assert 0 <= getattr(after, name) <= value
    assert after.copy_max_bytes <= after.copy_max_hw_bytes
    assert after.copy_max_range_bytes <= after.copy_max_range_hw_bytes <= MAX_RANGE_BYTES
    assert after.copy_max_nr_ranges <= after.copy_max_nr_ranges_hw <= MAX_NR_RANGES
    if name in BYTE_LIMITS:
        assert getattr(after, name) % block == 0


# The plan obeys them

blocks = st.integers(1, 200).map(lambda count: count * BLOCK)
sources = st.lists(st.tuples(st.integers(0, 1 << 20).map(lambda number: number * BLOCK), blocks), max_size=12)


@settings(max_examples=500)
@given(sources, st.integers(0, 1000).map(lambda number: number * BLOCK), blocks, blocks, st.integers(1, 12))
@example([(0, BLOCK)] * 12, 0, 200 * BLOCK, 200 * BLOCK, 12)
@example([(0, 3 * BLOCK), (0, 3 * BLOCK)], 0, 4 * BLOCK, 2 * BLOCK, 12)
def test_no_command_exceeds_a_limit_and_all_is_copied_in_order(
    sources: list[tuple[int, int]], destination: int, most: int, most_range: int, most_ranges: int
) -> None:
    hardware = CopyLimits.of_hardware(GIB, GIB, MAX_NR_RANGES, BLOCK)
    limits = hardware.with_limits(
        {"copy_max_bytes": most, "copy_max_range_bytes": most_range, "copy_max_nr_ranges": most_ranges}, BLOCK
    )
    ranges = gather(sources, destination)
    commands = list(plan(ranges, limits, 1 << 50))
    for command in commands:
        assert 0 < command.length <= most
        assert len(command.ranges) <= most_ranges
        assert all(0 < part.length <= most_range for part in command.ranges)
        assert not any(number % BLOCK for part in command.ranges for number in part)
    # Each block of the input, with where it goes, once and in order.
    wanted = [(part.source + at, part.destination + at) for part in ranges for at in range(0, part.length, BLOCK)]
    parts = [part for command in commands for part in command.ranges]
    assert wanted == [
        (part.source + at, part.destination + at) for part in parts for at in range(0, part.length, BLOCK)
    ]
    # No command could have taken the first range of the next one whole.
    for command, after in itertools.pairwise(commands):
        first = after.ranges[0]
        assert len(command.ranges) == most_ranges or command.length + min(BLOCK, first.length) > most


def test_a_plan_within_limits_that_forbid_offload_is_a_bug() -> None:
    for name in SETTABLE:
        with pytest.raises(ValueError, match="must not be asked"):
            plan([CopyRange(0, MIB, KIB)], HARDWARE.with_limit(name, 0, BLOCK), GIB)

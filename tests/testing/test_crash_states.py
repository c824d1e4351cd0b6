"""The crash states of a list of calls, against the write cache itself: what it can leave is what is enumerated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import KeepAll, KeepChosen, KeepNone, KeepSeed
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.testing.calls import Call, FlushCall, ManageCall, WriteCall
from zonefs_py.testing.crash_states import CrashStates, StateId, parse_state_id
from zonefs_py.testing.image import DeviceImage, empty_image, open_image, take_image
from zonefs_py.testing.recorder import RecordingDevice
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

BLOCK = 512
ZONE = 8 * BLOCK
GEOMETRY = Geometry(ZONE, ZONE, 4, 2, BLOCK, ZONE)
RESET, FINISH = ZoneOp.RESET, ZoneOp.FINISH

Content = tuple[tuple[bytes, int | None], ...]


def content(device: ZonedDevice) -> Content:
    """All that is on a device."""
    return tuple((device.read(zone.start, zone.size), zone.data_size) for zone in device.report_zones())


def blocks(count: int, first: int) -> bytes:
    return b"".join((first + more).to_bytes(4, "big") * (BLOCK // 4) for more in range(1, count + 1))


def do(device: ZonedDevice, call: Call) -> None:
    if isinstance(call, WriteCall):
        device.write(call.zone * ZONE + call.offset, call.data)
    elif isinstance(call, ManageCall):
        device.zone_mgmt(call.op, call.zone)
    else:
        device.flush(call.zone)


Step = tuple[str, int, int, int]
kinds = st.sampled_from(["write", "write", "write", "write", "reset", "finish", "flush", "flush-all"])
step_lists = st.lists(st.tuples(kinds, st.integers(0, 3), st.integers(0, 7), st.integers(1, 4)), max_size=9)
limits = st.sampled_from([(None, None), (1, 1), (2, 2)])


def record(base: DeviceImage, steps: Sequence[Step]) -> list[Call]:
    """The calls that *steps* come to."""
    device = RecordingDevice(open_image(base))
    for index, (kind, zone, at, count) in enumerate(steps):
        reported = device.report_zones(zone, 1)[0]
        start = zone * ZONE + (at * BLOCK if reported.is_conventional else reported.data_size or 0)
        try:
            if kind == "write":
                device.write(start, blocks(count, 10 * index + 10))
            elif kind == "flush-all":
                device.flush()
            elif kind == "flush":
                device.flush(zone)
            else:
                device.zone_mgmt(RESET if kind == "reset" else FINISH, zone)
        except (DeviceError, ValueError):
            pass  # refused, and so not recorded
    return device.calls


def states_of(base: DeviceImage, calls: Sequence[Call], limit: int = 100_000) -> Iterator[tuple[int, Content, object]]:
    """Crash point, content and key of every state."""
    for point in CrashStates(base, calls):
        for outcome in point.outcomes(limit, 0):
            state = point.state(outcome)
            yield point.number, content(open_image(state.image)), state.key


@given(step_lists, step_lists, limits, st.integers(0, 1 << 32))
@settings(max_examples=150)
def test_what_the_write_cache_leaves_is_among_the_states(
    before: list[Step], steps: list[Step], zone_limits: tuple[int | None, int | None], seed: int
) -> None:
    first = open_image(empty_image(GEOMETRY, *zone_limits))
    for call in record(take_image(first), before):
        do(first, call)
    base = take_image(first)
    calls = record(base, steps)
    for number in range(len(calls) + 1):
        states = None
        for keep in (KeepNone(), KeepAll(), KeepSeed(seed), KeepSeed(seed + 1)):
            device = WriteCacheDevice(open_image(base))
            for call in calls[:number]:
                do(device, call)
            device.power_cut(keep)
            device.power_on()
            left = content(device)
            if states is None:
                # With nothing kept it is the first state, with everything the last one but for the call under way.
                point = next(point for point in CrashStates(base, calls[:number]) if point.number == number)
                if point.count > 2000:
                    return
                states = [content(open_image(point.state(outcome).image)) for outcome in range(point.count)]
                assert left == states[0]
            if isinstance(keep, KeepAll):
                assert left == states[-1]
            assert left in states


@given(step_lists)
@settings(max_examples=60)
def test_every_state_is_left_by_the_write_cache_for_some_choice(steps: list[Step]) -> None:
    base = empty_image(GEOMETRY)
    calls = record(base, steps)
    for point in CrashStates(base, calls):
        done: list[Call] = calls[: point.number]
        under_way = calls[point.number] if point.number < len(calls) else None
        for outcome in point.outcomes(12, 1):
            seen = content(open_image(point.state(outcome).image))
            assert any(seen == left for left in choices(base, done, under_way, seen)), (done, under_way, seen)


def choices(base: DeviceImage, done: list[Call], under_way: Call | None, wanted: Content) -> Iterator[Content]:
    """What the cache leaves when it keeps what is in *wanted*, with the call under way done or not."""
    for calls in (done, [*done, under_way] if under_way else done):
        below = open_image(base)
        device = WriteCacheDevice(below)
        for call in calls:
            do(device, call)
            if isinstance(call, WriteCall) and call.zone < GEOMETRY.nr_conventional:
                # A cache may let go of any version of a block before the next one is written.
                for at in range(0, len(call.data), BLOCK):
                    block = call.data[at : at + BLOCK]
                    if block == wanted[call.zone][0][call.offset + at :][:BLOCK]:
                        below.write(call.zone * ZONE + call.offset + at, block)
        kept = {}
        for number in range(GEOMETRY.nr_conventional, GEOMETRY.nr_zones):
            flushed, acknowledged = (one.report_zones(number, 1)[0].data_size or 0 for one in (below, device))
            kept[number] = max(0, min(acknowledged, wanted[number][1] or 0) - flushed)
        device.power_cut(KeepChosen(kept))
        device.power_on()
        yield content(device)


def test_the_states_of_an_append_are_its_prefixes() -> None:
    base = empty_image(GEOMETRY)
    calls: list[Call] = [WriteCall(2, 0, blocks(3, 1)), FlushCall(2), WriteCall(2, 3 * BLOCK, blocks(2, 4))]
    sizes: list[list[int | None]] = [[], [], [], []]
    for number, seen, _ in states_of(base, calls):
        size = seen[2][1]
        assert seen[2][0] == blocks(5, 1)[:size] + bytes(ZONE - (size or 0))
        sizes[number].append(size)
    prefixes = [count * BLOCK for count in range(6)]
    assert sizes == [prefixes[:4], prefixes[:4], prefixes[3:], prefixes[3:]]


def test_all_versions_of_a_block_since_the_flush() -> None:
    base = empty_image(GEOMETRY)
    calls: list[Call] = [
        WriteCall(0, 0, blocks(1, 1)),
        FlushCall(None),
        WriteCall(0, 0, blocks(2, 2)),
        WriteCall(0, 0, blocks(1, 9)),
    ]
    last = {seen[0][0][: 2 * BLOCK] for number, seen, _ in states_of(base, calls) if number == 4}
    old, new, newest = blocks(1, 1), blocks(1, 2), blocks(1, 9)
    assert last == {first + second for first in (old, new, newest) for second in (bytes(BLOCK), blocks(1, 3))}


def test_resets_and_finishes_happen_or_not() -> None:
    base = empty_image(GEOMETRY)
    calls: list[Call] = [
        WriteCall(2, 0, blocks(2, 1)),
        ManageCall(FINISH, 2),
        ManageCall(RESET, 2),
        WriteCall(2, 0, blocks(1, 5)),
    ]
    seen: dict[int, set[tuple[bytes, int | None]]] = {}
    for number, state, _ in states_of(base, calls):
        seen.setdefault(number, set()).add((state[2][0].rstrip(b"\0"), state[2][1]))
    written, rewritten = blocks(2, 1), blocks(1, 5)
    full = (written, ZONE)
    assert seen == {
        0: {(b"", 0), (written[:BLOCK], BLOCK), (written, 2 * BLOCK)},
        1: {(b"", 0), (written[:BLOCK], BLOCK), (written, 2 * BLOCK), full},
        2: {full, (b"", 0)},
        3: {(b"", 0), (rewritten, BLOCK)},
        4: {(b"", 0), (rewritten, BLOCK)},
    }


@given(step_lists, limits)
def test_equal_keys_mean_equal_content(steps: list[Step], zone_limits: tuple[int | None, int | None]) -> None:
    base = empty_image(GEOMETRY, *zone_limits)
    contents: dict[object, Content] = {}
    for _, seen, key in states_of(base, record(base, steps), limit=30):
        assert contents.setdefault(key, seen) == seen


@given(step_lists)
def test_looking_at_a_state_changes_no_other(steps: list[Step]) -> None:
    base = empty_image(GEOMETRY)
    calls = record(base, steps)
    kept = []
    for point in CrashStates(base, calls):
        for outcome in point.outcomes(8, 0):
            image = point.state(outcome).image
            kept.append((image, content(open_image(image))))
            used = open_image(image)
            for zone in used.report_zones():
                if zone.is_conventional:
                    used.write(zone.start, b"\xff" * ZONE)
                else:
                    used.zone_mgmt(RESET, zone.number)
                    used.write(zone.start, b"\xff" * BLOCK)
    for image, seen in kept:
        assert content(open_image(image)) == seen


def many_states() -> tuple[DeviceImage, list[Call]]:
    calls: list[Call] = [WriteCall(0, 0, blocks(8, 1)), WriteCall(1, 0, blocks(8, 20)), WriteCall(2, 0, blocks(8, 40))]
    return empty_image(GEOMETRY), calls


def test_of_many_states_a_sample_is_drawn() -> None:
    for point in CrashStates(*many_states()):
        drawn = list(point.outcomes(50, 3))
        assert len(set(drawn)) == len(drawn) == min(50, point.count)
        assert {0, point.count - 1} <= set(drawn)
        assert max(drawn) < point.count
        assert drawn == list(point.outcomes(50, 3))
        if point.count > 1000:
            assert drawn != list(point.outcomes(50, 4))
    assert point.count == 2**16 * 9


def test_a_state_is_found_again_by_its_id() -> None:
    for point in CrashStates(*many_states()):
        for outcome in point.outcomes(5, 0):
            state = point.state(outcome)
            again = CrashStates(*many_states()).find(parse_state_id(str(state.id)))
            assert (again.id, again.key, again.kept) == (state.id, state.key, state.kept)
            assert content(open_image(again.image)) == content(open_image(state.image))


@pytest.mark.parametrize("id", [StateId(4, 0), StateId(3, 2**16 * 9), StateId(99, 0)])
def test_a_state_that_is_not_there(id: StateId) -> None:
    with pytest.raises(UserError, match="the workload has made other calls this time"):
        CrashStates(*many_states()).find(id)


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.g", "-1.0", "1.-1", "1.0x1", "1.1_0", "1²:1", "1.1 "])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(UserError, match="is no state"):
        parse_state_id(text)


def test_a_state_says_what_it_kept() -> None:
    *_, point = CrashStates(*many_states())
    assert point.state(0).kept == (
        "zone 0: no unflushed block; zone 1: no unflushed block; zone 2: 0 of 8 unflushed blocks"
    )
    blocks = "unflushed blocks 0, 1, 2, 3, 4, 5, 6, 7"
    assert point.state(point.count - 1).kept == f"zone 0: {blocks}; zone 1: {blocks}; zone 2: 8 of 8 unflushed blocks"
    geometry = Geometry(2 * ZONE, ZONE, 4, 2, BLOCK, 2 * ZONE)
    calls: list[Call] = [WriteCall(0, 0, b"x" * 2 * ZONE), WriteCall(2, 0, b"x" * BLOCK), ManageCall(RESET, 2)]
    base = empty_image(geometry)
    # In zone 0 there are 16 blocks, each of which may be new.
    assert [CrashStates(base, calls).find(StateId(2, outcome << 16)).kept.split("; ")[-1] for outcome in range(3)] == [
        "zone 2: 0 of 1 unflushed blocks",
        "zone 2: 1 of 1 unflushed blocks",
        "zone 2: reset",
    ]
    assert CrashStates(base, calls).find(StateId(3, (1 << 16) - 1)).kept == (
        "zone 0: unflushed blocks 0, 1, 2, 3, 4, 5, 6, 7 and 8 more"
    )


# Recorder and images


def test_the_recorder_writes_down_what_was_done_and_nothing_else() -> None:
    announced: list[int] = []
    device = RecordingDevice(MemoryDevice(GEOMETRY), announced.append)
    device.write(ZONE - BLOCK, blocks(2, 1))
    device.zone_mgmt(ZoneOp.OPEN, 2)
    device.write(2 * ZONE, blocks(1, 5))
    with pytest.raises(DeviceError):
        device.write(2 * ZONE, blocks(1, 6))
    device.zone_mgmt(ZoneOp.CLOSE, 2)
    device.flush(2)
    with pytest.raises(DeviceError):
        device.zone_mgmt(FINISH, 0)
    device.zone_mgmt(FINISH, 2)
    device.flush()
    assert device.calls == [
        WriteCall(0, ZONE - BLOCK, blocks(1, 1)),
        WriteCall(1, 0, blocks(1, 2)),
        WriteCall(2, 0, blocks(1, 5)),
        FlushCall(2),
        ManageCall(FINISH, 2),
        FlushCall(None),
    ]
    assert announced == [0, 2, 3, 3, 4, 4, 5]
    assert [str(call) for call in device.calls[1:]] == [
        "write of 512 bytes at 0 of zone 1",
        "write of 512 bytes at 0 of zone 2",
        "flush of zone 2",
        "finish of zone 2",
        "flush of all zones",
    ]


@given(step_lists, limits)
def test_an_image_is_what_was_on_the_device(steps: list[Step], zone_limits: tuple[int | None, int | None]) -> None:
    device = MemoryDevice(GEOMETRY, *zone_limits)
    for call in record(empty_image(GEOMETRY, *zone_limits), steps):
        do(device, call)
    image = take_image(device)
    again = open_image(image)
    assert content(again) == content(device)
    device.power_cycle()
    assert again.report_zones() == device.report_zones()
    assert (again.info.max_open_zones, again.info.max_active_zones) == zone_limits


def test_broken_zones_are_broken_in_the_image() -> None:
    device = MemoryDevice(GEOMETRY)
    device.force_conditions([1, 2], ZoneCondition.OFFLINE)
    device.force_conditions([3], ZoneCondition.READONLY)
    again = open_image(take_image(device))
    assert again.report_zones() == device.report_zones()

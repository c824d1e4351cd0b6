"""Transitions and the accounting of open and active zones, against a table and a recount of our own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.errors import ActiveZonesExhausted, DeviceError, OpenZonesExhausted
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

NOT_WP, EMPTY, IMP_OPEN = ZoneCondition.NOT_WP, ZoneCondition.EMPTY, ZoneCondition.IMP_OPEN
EXP_OPEN, CLOSED, FULL = ZoneCondition.EXP_OPEN, ZoneCondition.CLOSED, ZoneCondition.FULL
READONLY, OFFLINE = ZoneCondition.READONLY, ZoneCondition.OFFLINE
RESET, OPEN, CLOSE, FINISH = ZoneOp.RESET, ZoneOp.OPEN, ZoneOp.CLOSE, ZoneOp.FINISH

BLOCK = 4096
GEOMETRY = Geometry(8 * BLOCK, 6 * BLOCK, 7, 2, BLOCK, 3 * BLOCK)
"""Two conventional zones, four of six blocks, one of three."""

SEQUENTIAL = range(2, 7)
ZONE = 2

Snapshot = tuple[list[tuple[ZoneCondition, int]], int, int]


def make(max_open: int | None = None, max_active: int | None = None, **written: int) -> ZoneConditions:
    """Fresh conditions; ``z3=2`` says that two blocks of zone 3 are written."""
    wpoffsets = [written.get(f"z{number}", 0) * BLOCK for number in range(GEOMETRY.nr_zones)]
    return ZoneConditions(GEOMETRY, max_open, max_active, wpoffsets)


def write(zones: ZoneConditions, number: int, blocks: int = 1) -> None:
    """Write at the write pointer."""
    zones.begin_write(number, zones.wpoffset(number), blocks * BLOCK)
    zones.complete_write(number)


def manage(zones: ZoneConditions, op: ZoneOp, number: int) -> None:
    """Do a management operation, the store having followed."""
    zones.complete_manage(number, zones.check_manage(op, number))


def snapshot(zones: ZoneConditions) -> Snapshot:
    """Everything that can be seen."""
    states = [(zones.condition(number), zones.wpoffset(number)) for number in range(GEOMETRY.nr_zones)]
    return states, zones.nr_open, zones.nr_active


def bring(zones: ZoneConditions, condition: ZoneCondition, blocks: int) -> None:
    """Bring `ZONE` from empty into *condition* with *blocks* blocks written."""
    if blocks:
        write(zones, ZONE, blocks)
    if condition is EXP_OPEN:
        manage(zones, OPEN, ZONE)
    elif condition is CLOSED:
        manage(zones, CLOSE, ZONE)
    elif condition is FULL and blocks < 6:
        manage(zones, FINISH, ZONE)
    elif condition in (READONLY, OFFLINE):
        zones.force(ZONE, condition)
    assert zones.condition(ZONE) is condition


# (condition, blocks written): operation -> (condition, write pointer in blocks); what is missing is refused.
TABLE: dict[tuple[ZoneCondition, int], dict[ZoneOp, tuple[ZoneCondition, int]]] = {
    (EMPTY, 0): {RESET: (EMPTY, 0), OPEN: (EXP_OPEN, 0), FINISH: (FULL, 6)},
    (IMP_OPEN, 2): {RESET: (EMPTY, 0), OPEN: (EXP_OPEN, 2), CLOSE: (CLOSED, 2), FINISH: (FULL, 6)},
    (EXP_OPEN, 0): {RESET: (EMPTY, 0), OPEN: (EXP_OPEN, 0), CLOSE: (EMPTY, 0), FINISH: (FULL, 6)},
    (EXP_OPEN, 2): {RESET: (EMPTY, 0), OPEN: (EXP_OPEN, 2), CLOSE: (CLOSED, 2), FINISH: (FULL, 6)},
    (CLOSED, 2): {RESET: (EMPTY, 0), OPEN: (EXP_OPEN, 2), CLOSE: (CLOSED, 2), FINISH: (FULL, 6)},
    (FULL, 6): {RESET: (EMPTY, 0), FINISH: (FULL, 6)},
    (FULL, 2): {RESET: (EMPTY, 0), FINISH: (FULL, 6)},
    (READONLY, 0): {},
    (READONLY, 2): {},
    (OFFLINE, 0): {},
    (OFFLINE, 2): {},
}


@pytest.mark.parametrize("op", ZoneOp, ids=lambda op: op.name.lower())
@pytest.mark.parametrize("before", TABLE, ids=lambda state: f"{state[0].name.lower()}-{state[1]}")
def test_every_operation_in_every_condition(before: tuple[ZoneCondition, int], op: ZoneOp) -> None:
    zones = make()
    bring(zones, *before)
    unchanged = snapshot(zones)
    after = TABLE[before].get(op)
    if after is None:
        with pytest.raises(DeviceError, match=f"zone {ZONE}"):
            zones.check_manage(op, ZONE)
        assert snapshot(zones) == unchanged
        return
    promised = zones.check_manage(op, ZONE)
    assert promised is after[0]
    assert snapshot(zones) == unchanged, "nothing changes before the store has followed"
    zones.complete_manage(ZONE, promised)
    assert (zones.condition(ZONE), zones.wpoffset(ZONE)) == (after[0], after[1] * BLOCK)
    assert zones.nr_open == (after[0] is EXP_OPEN)
    assert zones.nr_active == (after[0] in (EXP_OPEN, CLOSED))


@pytest.mark.parametrize("op", ZoneOp, ids=lambda op: op.name.lower())
@pytest.mark.parametrize("forced", [None, READONLY, OFFLINE])
def test_conventional_zones_have_no_operations(op: ZoneOp, forced: ZoneCondition | None) -> None:
    zones = make()
    if forced:
        zones.force(0, forced)
    unchanged = snapshot(zones)
    with pytest.raises(DeviceError):
        zones.check_manage(op, 0)
    assert snapshot(zones) == unchanged


@pytest.mark.parametrize("before", TABLE, ids=lambda state: f"{state[0].name.lower()}-{state[1]}")
def test_writes_in_every_condition(before: tuple[ZoneCondition, int]) -> None:
    zones = make()
    bring(zones, *before)
    condition, blocks = before
    unchanged = snapshot(zones)
    wrong = [(blocks + more, 1) for more in (-1, 1, 3)] + [(blocks, 7 - blocks)]
    for offset, length in wrong:
        with pytest.raises(DeviceError, match=f"zone {ZONE}"):
            zones.begin_write(ZONE, offset * BLOCK, length * BLOCK)
        assert snapshot(zones) == unchanged
    if condition in (FULL, READONLY, OFFLINE):
        with pytest.raises(DeviceError, match=f"zone {ZONE}"):
            zones.begin_write(ZONE, zones.wpoffset(ZONE), BLOCK)
        assert snapshot(zones) == unchanged
        return
    write(zones, ZONE)
    assert zones.condition(ZONE) is (EXP_OPEN if condition is EXP_OPEN else IMP_OPEN)
    assert zones.wpoffset(ZONE) == (blocks + 1) * BLOCK
    write(zones, ZONE, 5 - blocks)
    assert zones.condition(ZONE) is FULL
    assert (zones.nr_open, zones.nr_active) == (0, 0)


def test_what_is_stored_decides_at_the_start() -> None:
    zones = make(z2=1, z3=6, z6=3, z0=8, z1=8)
    assert [zones.condition(number) for number in range(7)] == [NOT_WP, NOT_WP, CLOSED, FULL, EMPTY, EMPTY, FULL]
    assert (zones.nr_open, zones.nr_active) == (0, 1)


def test_the_smaller_last_zone_is_full_at_its_own_end() -> None:
    zones = make()
    write(zones, 6, 3)
    assert zones.condition(6) is FULL
    manage(zones, RESET, 6)
    manage(zones, FINISH, 6)
    assert zones.wpoffset(6) == 3 * BLOCK
    with pytest.raises(DeviceError, match="capacity"):
        make().begin_write(6, 0, 4 * BLOCK)


def test_more_zones_may_be_active_at_the_start_than_the_limit_says() -> None:
    # The limit may have been lowered by hand, or zone files copied in: what is there stays usable.
    zones = make(2, 2, z2=1, z3=1, z4=1)
    assert zones.nr_active == 3
    with pytest.raises(ActiveZonesExhausted):
        zones.check_manage(OPEN, 5)
    write(zones, 2)
    manage(zones, FINISH, 3)
    manage(zones, RESET, 4)
    write(zones, 5)
    assert zones.nr_active == 2


@pytest.mark.parametrize("condition", [READONLY, OFFLINE])
@pytest.mark.parametrize(
    ("blocks", "back"), [(0, EMPTY), (2, CLOSED), (6, FULL)], ids=["empty", "partly written", "full"]
)
def test_a_forced_zone_comes_back_as_its_write_pointer_says(
    condition: ZoneCondition, blocks: int, back: ZoneCondition
) -> None:
    zones = make()
    bring(zones, condition, blocks)
    assert (zones.nr_open, zones.nr_active) == (0, 0)
    zones.force(ZONE, None)
    assert (zones.condition(ZONE), zones.wpoffset(ZONE)) == (back, blocks * BLOCK)
    zones.force(0, condition)
    assert zones.condition(0) is condition
    zones.force(0, None)
    assert zones.condition(0) is NOT_WP


@pytest.mark.parametrize(
    ("before", "blocks", "after"),
    [
        ((EMPTY, 0), 2, CLOSED),
        ((EMPTY, 0), 6, FULL),
        ((IMP_OPEN, 2), 3, IMP_OPEN),
        ((IMP_OPEN, 2), 0, EMPTY),
        ((IMP_OPEN, 2), 6, FULL),
        ((EXP_OPEN, 2), 1, EXP_OPEN),
        ((CLOSED, 2), 3, CLOSED),
        ((CLOSED, 2), 0, EMPTY),
        ((CLOSED, 2), 6, FULL),
        ((FULL, 6), 0, EMPTY),
        ((FULL, 6), 2, CLOSED),
    ],
)
def test_a_zone_that_was_moved_behind_the_device_is_taken_as_it_is(
    before: tuple[ZoneCondition, int], blocks: int, after: ZoneCondition
) -> None:
    zones = make()
    bring(zones, *before)
    zones.resync(ZONE, blocks * BLOCK)
    assert (zones.condition(ZONE), zones.wpoffset(ZONE)) == (after, blocks * BLOCK)
    assert zones.nr_open == (after in (IMP_OPEN, EXP_OPEN))
    assert zones.nr_active == (after in (IMP_OPEN, EXP_OPEN, CLOSED))


@pytest.mark.parametrize("number", [0, ZONE])
@pytest.mark.parametrize("condition", [NOT_WP, READONLY, OFFLINE])
def test_moving_says_nothing_about_zones_without_a_write_pointer(number: int, condition: ZoneCondition) -> None:
    zones = make()
    if condition is NOT_WP:
        number = 0
    else:
        zones.force(number, condition)
    unchanged = snapshot(zones)
    zones.resync(number, 3 * BLOCK)
    assert snapshot(zones) == unchanged


def test_a_power_cycle_closes_what_is_open() -> None:
    zones = make()
    write(zones, 2)
    manage(zones, OPEN, 3)
    write(zones, 4)
    manage(zones, OPEN, 4)
    write(zones, 5, 6)
    zones.force(6, OFFLINE)
    zones.power_cycle()
    assert [zones.condition(number) for number in SEQUENTIAL] == [CLOSED, EMPTY, CLOSED, FULL, OFFLINE]
    assert (zones.nr_open, zones.nr_active) == (0, 2)


@pytest.mark.parametrize(
    ("max_open", "max_active", "error"),
    [(1, None, OpenZonesExhausted), (None, 1, ActiveZonesExhausted), (1, 1, ActiveZonesExhausted)],
)
def test_a_limit_that_is_used_up_has_its_own_error(
    max_open: int | None, max_active: int | None, error: type[DeviceError]
) -> None:
    zones = make(max_open, max_active)
    manage(zones, OPEN, 2)
    unchanged = snapshot(zones)
    for call in (
        lambda: zones.begin_write(3, 0, BLOCK),
        lambda: zones.check_manage(OPEN, 3),
        lambda: zones.check_manage(FINISH, 3),
    ):
        with pytest.raises(error) as raised:
            call()
        assert type(raised.value) is error
        assert snapshot(zones) == unchanged


@dataclass(frozen=True)
class Step:
    """One thing that happens to a zone."""

    what: str
    number: int
    blocks: int = 1


STEPS = st.one_of(
    st.builds(Step, st.just("write"), st.sampled_from(SEQUENTIAL), st.integers(1, 6)),
    st.builds(Step, st.just("write off"), st.sampled_from(SEQUENTIAL), st.sampled_from([-2, -1, 1, 2])),
    st.builds(Step, st.sampled_from([op.name for op in ZoneOp]), st.integers(0, 6)),
    st.builds(Step, st.sampled_from(["READONLY", "OFFLINE", "back"]), st.sampled_from(SEQUENTIAL)),
    st.builds(Step, st.just("cycle"), st.just(0)),
)

LIMITS = st.one_of(
    st.just((None, None)),
    st.tuples(st.integers(1, 4), st.none()),
    st.tuples(st.none(), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(0, 3)).map(lambda limits: (limits[0], limits[0] + limits[1])),
)


def do(zones: ZoneConditions, step: Step) -> None:
    """Do *step*, which may be refused."""
    if step.what == "write":
        write(zones, step.number, step.blocks)
    elif step.what == "write off":
        zones.begin_write(step.number, zones.wpoffset(step.number) + step.blocks * BLOCK, BLOCK)
    elif step.what in ZoneOp.__members__:
        manage(zones, ZoneOp[step.what], step.number)
    elif step.what == "cycle":
        zones.power_cycle()
    elif step.what == "back":
        if zones.condition(step.number) in (READONLY, OFFLINE):
            zones.force(step.number, None)
    else:
        zones.force(step.number, ZoneCondition[step.what])


def check_consistent(zones: ZoneConditions) -> None:
    """Compare the counts with a recount, and each condition with its write pointer."""
    states, nr_open, nr_active = snapshot(zones)
    recounted = [condition for condition, _ in states]
    assert nr_open == recounted.count(IMP_OPEN) + recounted.count(EXP_OPEN)
    assert nr_active == nr_open + recounted.count(CLOSED)
    for number, (condition, wpoffset) in enumerate(states[2:], start=2):
        capacity = GEOMETRY.capacity_of(number)
        assert 0 <= wpoffset <= capacity
        if condition is EMPTY:
            assert wpoffset == 0
        elif condition is FULL:
            assert wpoffset == capacity
        elif condition in (IMP_OPEN, CLOSED):
            assert 0 < wpoffset < capacity
        elif condition is EXP_OPEN:
            assert wpoffset < capacity


@settings(max_examples=300)
@given(LIMITS, st.lists(STEPS, max_size=40))
def test_counts_are_right_and_limits_kept_whatever_happens(
    limits: tuple[int | None, int | None], steps: list[Step]
) -> None:
    max_open, max_active = limits
    zones = make(*limits)
    for step in steps:
        before = snapshot(zones)
        explicitly_open = {number for number in SEQUENTIAL if zones.condition(number) is EXP_OPEN}
        comes_back = step.what == "back" and zones.condition(step.number) in (READONLY, OFFLINE)
        try:
            do(zones, step)
        except DeviceError:
            assert snapshot(zones) == before
        else:
            if step.what != "cycle":
                # Only implicitly open zones are ever closed to make room for another.
                assert all(zones.condition(number) is EXP_OPEN for number in explicitly_open - {step.number})
        check_consistent(zones)
        assert max_open is None or zones.nr_open <= max_open
        # A zone that comes back closed is active, whatever the limit: it holds data.
        assert max_active is None or zones.nr_active <= max(max_active, before[2] + comes_back)


def test_a_zone_that_makes_room_while_it_is_written_is_closed_with_its_data() -> None:
    """Writes to different zones run at the same time: the second one begins before the first is complete."""
    zones = make(max_open=1)
    zones.begin_write(2, 0, 2 * BLOCK)
    zones.begin_write(3, 0, BLOCK)
    assert zones.nr_open == 1
    zones.complete_write(2)
    zones.complete_write(3)
    assert [zones.condition(number) for number in (2, 3)] == [CLOSED, IMP_OPEN]
    assert (zones.wpoffset(2), zones.wpoffset(3)) == (2 * BLOCK, BLOCK)
    assert (zones.nr_open, zones.nr_active) == (1, 2)


@pytest.mark.parametrize("succeeds", [False, True])
def test_a_zone_that_makes_room_while_it_is_filled_stays_active_until_it_is_full(succeeds: bool) -> None:
    zones = make(max_open=1, max_active=2)
    zones.begin_write(2, 0, 6 * BLOCK)
    zones.begin_write(3, 0, BLOCK)
    assert (zones.condition(2), zones.nr_active) == (CLOSED, 2)
    with pytest.raises(ActiveZonesExhausted):
        zones.begin_write(4, 0, BLOCK)
    if succeeds:
        zones.complete_write(2)
        assert (zones.condition(2), zones.nr_active) == (FULL, 1)
    else:
        zones.abort_write(2, BLOCK)
        assert (zones.condition(2), zones.nr_active) == (CLOSED, 2)


@pytest.mark.parametrize("condition", [READONLY, OFFLINE])
@pytest.mark.parametrize("blocks", [1, 6])
def test_a_zone_that_breaks_while_it_is_written_stays_broken(condition: ZoneCondition, blocks: int) -> None:
    zones = make()
    zones.begin_write(ZONE, 0, blocks * BLOCK)
    zones.force(ZONE, condition)
    zones.complete_write(ZONE)
    assert zones.condition(ZONE) is condition
    zones.force(ZONE, None)
    assert (zones.condition(ZONE), zones.wpoffset(ZONE)) == (CLOSED if blocks == 1 else FULL, blocks * BLOCK)


@settings(max_examples=300)
@example((1, 2), [(6, 3, False), (2, 1, False), (3, 1, False), (6, 1, False)])
@given(LIMITS, st.lists(st.tuples(st.sampled_from(SEQUENTIAL), st.integers(1, 3), st.booleans()), max_size=40))
def test_writes_that_overlap_in_time_are_accounted(
    limits: tuple[int | None, int | None], steps: list[tuple[int, int, bool]]
) -> None:
    """Each step begins a write to a zone; or ends the one that is under way there, in success or failure."""
    zones = make(*limits)
    under_way: dict[int, int] = {}
    stored = dict.fromkeys(SEQUENTIAL, 0)
    for number, blocks, succeeds in steps:
        if number in under_way:
            written = under_way.pop(number)
            if succeeds:
                stored[number] += written
                zones.complete_write(number)
            else:
                stored[number] += written // 2
                zones.abort_write(number, stored[number] * BLOCK)
        else:
            before = snapshot(zones)
            try:
                zones.begin_write(number, stored[number] * BLOCK, blocks * BLOCK)
            except DeviceError:
                assert snapshot(zones) == before
            else:
                under_way[number] = blocks
        assert limits[0] is None or zones.nr_open <= limits[0]
        assert limits[1] is None or zones.nr_active <= limits[1]
        for settled in set(SEQUENTIAL) - set(under_way):
            assert zones.wpoffset(settled) == stored[settled] * BLOCK
            assert (zones.condition(settled) is EMPTY) == (stored[settled] == 0)
    for number in list(under_way):
        zones.complete_write(number)
    check_consistent(zones)

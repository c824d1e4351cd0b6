"""What an I/O error leads to: the table that was measured on the kernel, row by row."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.config import ErrorsPolicy
from zonefs_py.fs.recovery import Verdict, decide
from zonefs_py.zone import Zone, ZoneCondition, ZoneType

START = 32 * 1024 * 1024
ZONE_SIZE = 4 * 1024 * 1024
CAPACITY = 3 * 1024 * 1024
SIZE = 4096

REMOUNT_RO, ZONE_RO = ErrorsPolicy.REMOUNT_RO, ErrorsPolicy.ZONE_RO
ZONE_OFFLINE, REPAIR = ErrorsPolicy.ZONE_OFFLINE, ErrorsPolicy.REPAIR
EMPTY, CLOSED, FULL = ZoneCondition.EMPTY, ZoneCondition.CLOSED, ZoneCondition.FULL
IMP_OPEN, EXP_OPEN = ZoneCondition.IMP_OPEN, ZoneCondition.EXP_OPEN
READONLY, OFFLINE, NOT_WP = ZoneCondition.READONLY, ZoneCondition.OFFLINE, ZoneCondition.NOT_WP


def zone(condition: ZoneCondition, wpoffset: int = 0) -> Zone:
    """The report of the file's zone."""
    kind = ZoneType.CONVENTIONAL if condition is NOT_WP else ZoneType.SEQ_WRITE_REQUIRED
    wp = START + (ZONE_SIZE if condition in (FULL, NOT_WP) else wpoffset)
    return Zone(8, START, ZONE_SIZE, CAPACITY, wp, kind, condition)


def decided(
    policy: ErrorsPolicy,
    reported: Zone,
    *,
    was_write: bool = True,
    size: int = SIZE,
    readonly: bool = False,
    offline: bool = False,
) -> Verdict | None:
    """The verdict on a sequential file."""
    return decide(
        policy,
        size=size,
        readonly=readonly,
        offline=offline,
        zone=reported,
        was_write=was_write,
        sequential=True,
        capacity=CAPACITY,
    )


class Seen(NamedTuple):
    """What is left of a file of mode 0640, as the kernel's table has it."""

    mode: int
    size: int
    remounted_read_only: bool


def seen(verdict: Verdict | None) -> Seen | None:
    """What a user sees of *verdict*."""
    if verdict is None:
        return None
    mode = 0 if verdict.offline else 0o440 if verdict.readonly else 0o640
    return Seen(mode, verdict.size, verdict.remount_read_only)


def kept(size: int = SIZE, *, remount: bool = False) -> Seen:
    """Mode unchanged."""
    return Seen(0o640, size, remount)


def read_only(size: int = SIZE, *, remount: bool = False) -> Seen:
    """No longer writable."""
    return Seen(0o440, size, remount)


def gone(*, remount: bool = False) -> Seen:
    """Neither readable nor writable, and empty."""
    return Seen(0, 0, remount)


MOVED = zone(IMP_OPEN, 2 * SIZE)
WAS_RESET = zone(EMPTY)
WAS_FINISHED = zone(FULL)
UNCHANGED = zone(IMP_OPEN, SIZE)
WRITE_PROTECTED = zone(READONLY)
DEAD = zone(OFFLINE)

WRITES = {
    "moved": (MOVED, [kept(remount=True), read_only(), gone(), kept(2 * SIZE)]),
    "reset": (WAS_RESET, [kept(0, remount=True), read_only(), gone(), kept(0)]),
    "finished": (WAS_FINISHED, [kept(remount=True), read_only(), gone(), kept(CAPACITY)]),
    "write error": (UNCHANGED, [kept(remount=True), read_only(), gone(), kept()]),
    "read-only zone": (WRITE_PROTECTED, [read_only(remount=True), read_only(), gone(), read_only()]),
    "offline zone": (DEAD, [gone(remount=True), gone(), gone(), gone()]),
}
"""The state of the zone after a failed write: what each policy makes of it."""


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
@pytest.mark.parametrize("row", WRITES)
def test_failed_writes(row: str, policy: ErrorsPolicy) -> None:
    reported, verdicts = WRITES[row]
    assert seen(decided(policy, reported)) == verdicts[list(ErrorsPolicy).index(policy)]


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
@pytest.mark.parametrize(
    "reported",
    [UNCHANGED, zone(CLOSED, SIZE), zone(EXP_OPEN, SIZE)],
    ids=["implicitly open", "closed", "explicitly open"],
)
def test_a_failed_read_of_a_healthy_zone_changes_nothing(policy: ErrorsPolicy, reported: Zone) -> None:
    assert decided(policy, reported, was_write=False) is None


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
def test_a_failed_read_of_a_full_file_changes_nothing(policy: ErrorsPolicy) -> None:
    assert decided(policy, WAS_FINISHED, was_write=False, size=CAPACITY) is None


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
def test_a_failed_read_of_an_offline_zone_is_found_out(policy: ErrorsPolicy) -> None:
    assert seen(decided(policy, DEAD, was_write=False)) == gone(remount=policy is REMOUNT_RO)


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
@pytest.mark.parametrize("row", ["moved", "reset", "finished"])
def test_a_failed_read_of_a_zone_that_moved_is_like_a_failed_write(row: str, policy: ErrorsPolicy) -> None:
    reported, verdicts = WRITES[row]
    assert seen(decided(policy, reported, was_write=False)) == verdicts[list(ErrorsPolicy).index(policy)]


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
@pytest.mark.parametrize("was_write", [True, False])
def test_conventional_files_keep_their_size(policy: ErrorsPolicy, was_write: bool) -> None:
    verdict = decide(
        policy,
        size=ZONE_SIZE,
        readonly=False,
        offline=False,
        zone=zone(NOT_WP),
        was_write=was_write,
        sequential=False,
        capacity=ZONE_SIZE,
    )
    if not was_write:
        assert verdict is None
        return
    # A flush that fails is a write: the mount goes read-only with errors=remount-ro, as measured.
    assert verdict is not None
    assert verdict.remount_read_only == (policy is REMOUNT_RO)
    assert verdict.size == (0 if policy is ZONE_OFFLINE else ZONE_SIZE)


@pytest.mark.parametrize("policy", ErrorsPolicy, ids=lambda policy: policy.value)
def test_what_a_file_was_taken_for_it_stays(policy: ErrorsPolicy) -> None:
    after = decided(policy, UNCHANGED, readonly=True)
    assert after is not None
    assert after.readonly or after.offline
    after = decided(policy, UNCHANGED, offline=True, size=0)
    assert after is not None
    assert after.offline
    assert after.size == 0


@given(
    st.sampled_from(list(ErrorsPolicy)),
    st.integers(0, CAPACITY // 4096),
    st.sampled_from([EMPTY, IMP_OPEN, EXP_OPEN, CLOSED, FULL, READONLY, OFFLINE]),
    st.integers(0, CAPACITY // 4096),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_only_repair_shows_data_that_was_not_known(
    policy: ErrorsPolicy,
    blocks: int,
    condition: ZoneCondition,
    wp_blocks: int,
    was_write: bool,
    readonly: bool,
    offline: bool,
) -> None:
    size = blocks * 4096
    reported = zone(condition, 0 if condition is EMPTY else wp_blocks * 4096)
    verdict = decided(policy, reported, was_write=was_write, size=size, readonly=readonly, offline=offline)
    if verdict is None:
        assert not was_write
        return
    assert policy is REPAIR or verdict.size <= size
    assert 0 <= verdict.size <= CAPACITY
    assert verdict.remount_read_only == (policy is REMOUNT_RO)
    if verdict.offline:
        assert verdict.size == 0
    if condition is OFFLINE or offline:
        assert verdict.offline
    if condition is READONLY or readonly:
        assert verdict.readonly or verdict.offline

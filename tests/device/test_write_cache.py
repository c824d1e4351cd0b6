"""The write cache: nobody sees it until power is cut, and then what is left is what a drive may leave.

That it behaves as any device is in test_stack_conformance.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zonefs_py.config import FormatOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import (
    Keep,
    KeepAll,
    KeepChosen,
    KeepNone,
    KeepSeed,
    PowerCut,
    ZoneLoss,
    parse_keep,
)
from zonefs_py.device.stack import open_stack
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import DeviceError, HostFull, UserError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

BLOCK = 512
ZONE = 8 * BLOCK
CAPACITY = 6 * BLOCK
GEOMETRY = Geometry(ZONE, CAPACITY, 6, 2, BLOCK, ZONE)
SEQUENTIAL = range(2, 6)

RESET, OPEN, CLOSE, FINISH = ZoneOp.RESET, ZoneOp.OPEN, ZoneOp.CLOSE, ZoneOp.FINISH
READONLY, OFFLINE = ZoneCondition.READONLY, ZoneCondition.OFFLINE


def blocks(count: int, first: int) -> bytes:
    """*count* blocks that are like no others if *first* is a new number each time; never zeros."""
    return b"".join((first + more).to_bytes(4, "big") * (BLOCK // 4) for more in range(1, count + 1))


# What can be done to a device.


@dataclass(frozen=True)
class Write:
    """So many blocks, so many behind the write pointer (0 is right) or the start of a conventional zone."""

    zone: int
    at: int
    count: int

    def run(self, device: ZonedDevice, stamp: int) -> None:
        zone = device.report_zones(self.zone, 1)[0]
        written = (zone.data_size or 0) + (self.at > 6) * BLOCK
        start = zone.start + (self.at * BLOCK if zone.is_conventional else written)
        device.write(start, blocks(self.count, stamp))


@dataclass(frozen=True)
class Manage:
    op: ZoneOp
    zone: int

    def run(self, device: ZonedDevice, stamp: int) -> None:
        device.zone_mgmt(self.op, self.zone)


@dataclass(frozen=True)
class Flush:
    zone: int | None

    def run(self, device: ZonedDevice, stamp: int) -> None:
        device.flush(self.zone)


@dataclass(frozen=True)
class Force:
    zone: int
    condition: ZoneCondition | None

    def run(self, device: ZonedDevice, stamp: int) -> None:
        device.force_conditions([self.zone], self.condition)


Step = Write | Manage | Flush | Force

zones = st.integers(0, 5)
writes = st.builds(Write, zones, st.integers(0, 7), st.integers(1, 5))
managements = st.builds(Manage, st.sampled_from([*ZoneOp, RESET]), zones)
flushes = st.builds(Flush, st.none() | zones)
forces = st.builds(Force, zones, st.sampled_from([None, None, READONLY, OFFLINE]))
steps = st.lists(writes | writes | writes | managements | flushes | forces, max_size=40)
limits = st.sampled_from([(None, None), (2, None), (None, 2), (1, 2), (2, 2), (1, 1)])
sizes = st.sampled_from([BLOCK, 3 * BLOCK, 1 << 20])
keeps = st.one_of(st.just(KeepNone()), st.just(KeepAll()), st.builds(KeepSeed, st.integers(0, 99)))


def outcome(step: Step, device: ZonedDevice, stamp: int) -> str:
    """What the caller is told."""
    try:
        step.run(device, stamp)
    except (DeviceError, ValueError) as exc:
        return type(exc).__name__
    return "done"


def content(device: ZonedDevice, number: int) -> bytes | None:
    """All of a zone; None if it cannot be read."""
    try:
        return device.read(number * ZONE, ZONE)
    except DeviceError:
        return None


# (a) Transparent


@given(steps, limits, sizes)
@settings(max_examples=150)
def test_nobody_sees_the_cache(steps: list[Step], limits: tuple[int | None, int | None], size: int) -> None:
    plain = MemoryDevice(GEOMETRY, *limits)
    below = MemoryDevice(GEOMETRY, *limits)
    cached = WriteCacheDevice(below, size=size)
    for stamp, step in enumerate(steps):
        assert outcome(step, cached, stamp * 8) == outcome(step, plain, stamp * 8)
        assert cached.report_zones() == plain.report_zones()
        for number in range(6):
            assert content(cached, number) == content(plain, number)
        assert cached.held_bytes <= max(size, 5 * BLOCK)
    cached.flush()
    assert cached.held_bytes == 0
    for number in range(6):
        assert content(below, number) == content(plain, number)
    cached.close()


@given(st.integers(0, 7), st.integers(1, 8))
def test_any_part_of_a_zone_reads_what_was_written(at: int, count: int) -> None:
    count = min(count, 8 - at)
    device = WriteCacheDevice(MemoryDevice(GEOMETRY))
    for start in (0, 2 * ZONE):
        device.write(start, blocks(3, 10))
        device.flush()
        device.write(start + (ZONE - 3 * BLOCK if start == 0 else 3 * BLOCK), blocks(2, 20))
        whole = device.read(start, ZONE)
        part = bytearray(count * BLOCK)
        device.read_into(start + at * BLOCK, memoryview(part))
        assert device.read(start + at * BLOCK, count * BLOCK) == part == whole[at * BLOCK : (at + count) * BLOCK]


# (b) and (c) Power cuts


@dataclass
class Life:
    """What is known of one zone: written down here from what the device acknowledged, and nothing else."""

    conventional: bool
    flushed: bytes = b""
    acknowledged: bytes = b""
    versions: dict[int, list[bytes]] = field(default_factory=dict)
    """Of each block of a conventional zone what it held when it was flushed, and everything since."""

    def write(self, at: int, data: bytes) -> None:
        if not self.conventional:
            self.acknowledged += data
        for index in range(0, len(data), BLOCK):
            self.versions.setdefault(at + index, [bytes(BLOCK)]).append(data[index : index + BLOCK])

    def settle(self) -> None:
        self.flushed = self.acknowledged
        self.versions = {at: versions[-1:] for at, versions in self.versions.items()}

    def check(self, device: ZonedDevice, number: int, *, all_kept: bool, evicts: bool) -> None:
        zone = device.report_zones(number, 1)[0]
        seen = device.read(zone.start, ZONE)
        if self.conventional:
            for at in range(0, ZONE, BLOCK):
                versions = self.versions.get(at, [bytes(BLOCK)])
                # A cache that had to let go of a block before it was written again has made that one durable.
                legal = versions[-1:] if all_kept else versions if evicts else [versions[0], versions[-1]]
                assert seen[at : at + BLOCK] in legal
                self.versions[at] = [seen[at : at + BLOCK]]
            return
        size = zone.data_size
        assert size is not None
        assert len(self.flushed) <= size <= len(self.acknowledged)
        assert size % BLOCK == 0
        if all_kept:
            assert size == len(self.acknowledged)
        # A prefix, and nothing behind it: neither what was lost nor what there was before a reset.
        assert seen == self.acknowledged[:size] + bytes(ZONE - size)
        settled = {0: ZoneCondition.EMPTY, CAPACITY: ZoneCondition.FULL}.get(size, ZoneCondition.CLOSED)
        assert zone.condition is settled
        self.acknowledged = self.flushed = seen[:size]


healthy_steps = st.lists(writes | writes | managements | flushes, max_size=15)
lives_strategy = st.lists(st.tuples(healthy_steps, keeps), min_size=1, max_size=4)


@given(lives_strategy, limits, sizes)
@settings(max_examples=150)
def test_what_is_left_after_a_power_cut_is_legal(
    rounds: list[tuple[list[Step], Keep]], limits: tuple[int | None, int | None], size: int
) -> None:
    device = WriteCacheDevice(MemoryDevice(GEOMETRY, *limits), size=size)
    lives = [Life(conventional=number < 2) for number in range(6)]
    stamp = 0
    for steps, keep in rounds:
        for step in steps:
            stamp += 8
            follow(device, lives, step, stamp)
        held = device.held_bytes
        cut = device.power_cut(keep)
        assert cut.unflushed == held
        assert cut.kept == {KeepNone: 0, KeepAll: held}.get(type(keep), cut.kept)
        device.power_on()
        for number, life in enumerate(lives):
            life.check(device, number, all_kept=isinstance(keep, KeepAll), evicts=size < 1 << 20)
        assert device.held_bytes == 0
        active = sum(zone.condition is ZoneCondition.CLOSED for zone in device.report_zones())
        assert limits[1] is None or active <= limits[1]


def follow(device: ZonedDevice, lives: list[Life], step: Step, stamp: int) -> None:
    """Do *step*, and write down what it means if it is acknowledged."""
    if isinstance(step, Flush):
        device.flush(step.zone)
        for life in lives if step.zone is None else [lives[step.zone]]:
            life.settle()
        return
    zone = device.report_zones(step.zone, 1)[0]
    if outcome(step, device, stamp) != "done":
        return
    life = lives[step.zone]
    if isinstance(step, Write):
        data = blocks(step.count, stamp)
        if zone.is_conventional:
            # A write may go on in the next zone.
            at = step.at * BLOCK
            life.write(at, data[: ZONE - at])
            lives[step.zone + 1].write(0, data[ZONE - at :])
        else:
            life.write(0, data)
    elif isinstance(step, Manage) and step.op is RESET:
        lives[step.zone] = Life(conventional=False)
    elif isinstance(step, Manage) and step.op is FINISH:
        life.acknowledged += bytes(CAPACITY - len(life.acknowledged))
        life.settle()


def prepared() -> WriteCacheDevice:
    """Zone 2 with two flushed blocks and three that are not, zone 0 with blocks 0 to 2 of which 1 is flushed."""
    device = WriteCacheDevice(MemoryDevice(GEOMETRY))
    device.write(BLOCK, blocks(1, 1))
    device.write(2 * ZONE, blocks(2, 10))
    device.flush()
    device.write(0, blocks(3, 20))
    device.write(2 * ZONE + 2 * BLOCK, blocks(3, 30))
    return device


@pytest.mark.parametrize("kept", range(4))
@pytest.mark.parametrize("which", [(), (0,), (1,), (0, 2), (0, 1, 2)])
def test_a_chosen_part_is_kept_exactly(kept: int, which: tuple[int, ...]) -> None:
    device = prepared()
    cut = device.power_cut(KeepChosen({2: kept * BLOCK, 0: frozenset(at * BLOCK for at in which)}))
    assert cut == PowerCut((ZoneLoss(0, 3 * BLOCK, len(which) * BLOCK), ZoneLoss(2, 3 * BLOCK, kept * BLOCK)))
    device.power_on()
    assert device.report_zones(2, 1)[0].data_size == (2 + kept) * BLOCK
    assert device.read(2 * ZONE, (2 + kept) * BLOCK) == blocks(2, 10) + blocks(3, 30)[: kept * BLOCK]
    for at, old in enumerate((bytes(BLOCK), blocks(1, 1), bytes(BLOCK))):
        expected = blocks(3, 20)[at * BLOCK : (at + 1) * BLOCK] if at in which else old
        assert device.read(at * BLOCK, BLOCK) == expected


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({3: BLOCK}, "zone 3 has nothing unflushed"),
        ({2: 4 * BLOCK}, "2048 bytes cannot be kept of 1536"),
        ({2: 100}, "100 bytes cannot be kept"),
        ({2: -BLOCK}, "cannot be kept"),
        ({2: frozenset({0})}, "is told as so many bytes"),
        ({0: BLOCK}, "is told as blocks"),
        ({0: frozenset({3 * BLOCK})}, "the block at 1536 is not among"),
    ],
)
def test_what_is_not_there_cannot_be_kept(chosen: dict[int, int | frozenset[int]], words: str) -> None:
    device = prepared()
    with pytest.raises(UserError, match=words):
        device.power_cut(KeepChosen(chosen))
    assert device.held_bytes == 6 * BLOCK
    device.flush()


def test_a_zone_of_which_nothing_is_held_may_be_named_with_nothing_kept() -> None:
    device = prepared()
    assert device.power_cut(KeepChosen({3: 0, 1: frozenset()})).kept == 0


def test_seeds_reach_every_legal_outcome() -> None:
    seen = set()
    for seed in range(400):
        device = prepared()
        device.power_cut(KeepSeed(seed))
        device.power_on()
        size = device.report_zones(2, 1)[0].data_size
        new = tuple(device.read(at * BLOCK, BLOCK) == blocks(3, 20)[at * BLOCK :][:BLOCK] for at in range(3))
        seen.add((size, new))
    assert len(seen) == 4 * 8


def test_the_same_seed_gives_the_same_outcome() -> None:
    outcomes: set[object] = set()
    for _ in range(3):
        device = prepared()
        outcomes.add(device.power_cut(KeepSeed(5)))
        device.power_on()
        outcomes.add(tuple(device.read(number * ZONE, ZONE) for number in range(6)))
    assert len(outcomes) == 2


def without_power() -> list[Callable[[ZonedDevice], object]]:
    return [
        lambda device: device.report_zones(),
        lambda device: device.report_zones(2, 1),
        lambda device: device.read(0, BLOCK),
        lambda device: device.read_into(0, memoryview(bytearray(BLOCK))),
        lambda device: device.write(0, bytes(BLOCK)),
        lambda device: device.zone_mgmt(RESET, 2),
        lambda device: device.flush(),
        lambda device: device.flush(2),
        lambda device: device.force_conditions([2], READONLY),
    ]


@pytest.mark.parametrize("call", without_power())
def test_without_power_every_call_fails(call: Callable[[ZonedDevice], object]) -> None:
    device = prepared()
    device.power_cut(KeepNone())
    with pytest.raises(DeviceError, match="write-cache:memory has no power"):
        call(device)
    assert device.power_cut(KeepAll()) == PowerCut(())
    device.power_on()
    call(device)


def test_power_on_with_power_does_nothing() -> None:
    device = prepared()
    device.zone_mgmt(OPEN, 3)
    before = device.report_zones()
    device.power_on()
    assert device.report_zones() == before
    assert device.held_bytes == 6 * BLOCK


def test_close_writes_everything_down_and_a_dead_device_nothing() -> None:
    for dead in (False, True):
        below = MemoryDevice(GEOMETRY)
        device = WriteCacheDevice(below)
        device.write(2 * ZONE, blocks(1, 1))
        if dead:
            device.power_cut(KeepNone())
        device.close()
        device.close()
        assert below.report_zones(2, 1)[0].data_size == (0 if dead else BLOCK)


def test_devices_without_a_cache_say_what_to_do() -> None:
    for device in (MemoryDevice(GEOMETRY), FaultDevice(MemoryDevice(GEOMETRY))):
        with pytest.raises(UserError, match=r"memory has no write cache, .*: use write-cache:memory"):
            device.power_cut(KeepNone())
        with pytest.raises(UserError, match="has no write cache"):
            device.power_on()


def test_faults_stand_above_or_below() -> None:
    rule = FaultRule(Operation.WRITE, Effect.FAIL, zones=(2, 2), after=BLOCK)
    above = FaultDevice(WriteCacheDevice(MemoryDevice(GEOMETRY)), [rule])
    with pytest.raises(DeviceError):
        above.write(2 * ZONE, blocks(3, 1))
    assert above.report_zones(2, 1)[0].data_size == BLOCK
    assert above.power_cut(KeepNone()) == PowerCut((ZoneLoss(2, BLOCK, 0),))
    above.power_on()
    assert above.report_zones(2, 1)[0].data_size == 0

    below = WriteCacheDevice(FaultDevice(MemoryDevice(GEOMETRY), [rule]))
    below.write(2 * ZONE, blocks(3, 1))
    with pytest.raises(DeviceError):
        below.flush(2)
    # One block is durable, the others are still held, and can be flushed again.
    assert below.held_bytes == 2 * BLOCK
    assert below.read(2 * ZONE, 3 * BLOCK) == blocks(3, 1)
    assert below.report_zones(2, 1)[0].data_size == 3 * BLOCK
    below.flush(2)
    assert below.read(2 * ZONE, 3 * BLOCK) == blocks(3, 1)
    assert below.power_cut(KeepNone()) == PowerCut(())


@pytest.mark.parametrize(
    ("effect", "condition", "size"),
    [
        (Effect.READONLY, READONLY, None),
        (Effect.OFFLINE, OFFLINE, None),
        (Effect.EXTERNAL_RESET, ZoneCondition.EMPTY, 0),
        (Effect.EXTERNAL_FINISH, ZoneCondition.FULL, CAPACITY),
        (Effect.EXTERNAL_WRITE, ZoneCondition.CLOSED, 4 * BLOCK),
    ],
)
def test_what_happens_below_is_seen_in_the_next_report(
    effect: Effect, condition: ZoneCondition, size: int | None
) -> None:
    length = 2 * BLOCK if effect is Effect.EXTERNAL_WRITE else 0
    rule = FaultRule(Operation.FLUSH, effect, zones=(3, 3), target=2, length=length)
    device = WriteCacheDevice(FaultDevice(MemoryDevice(GEOMETRY), [rule]))
    device.write(2 * ZONE, blocks(2, 1))
    device.flush(2)
    device.zone_mgmt(CLOSE, 2)
    device.write(2 * ZONE + 2 * BLOCK, blocks(1, 5))
    device.zone_mgmt(CLOSE, 2)
    device.flush(3)  # strikes zone 2, of which a block is held
    zone = device.report_zones(2, 1)[0]
    assert (zone.condition, zone.data_size) == (condition, size)
    assert device.held_bytes == 0
    device.flush()


def test_a_zone_that_comes_back_below_comes_back() -> None:
    below = MemoryDevice(GEOMETRY)
    device = WriteCacheDevice(below)
    device.write(2 * ZONE, blocks(2, 1))
    device.force_conditions([2], READONLY)
    assert device.read(2 * ZONE, 2 * BLOCK) == blocks(2, 1)
    below.force_conditions([2], None)
    zone = device.report_zones(2, 1)[0]
    assert (zone.condition, zone.data_size) == (ZoneCondition.CLOSED, 2 * BLOCK)


def test_a_zone_that_was_broken_when_the_cache_was_opened_gets_well() -> None:
    below = MemoryDevice(GEOMETRY)
    below.write(2 * ZONE, blocks(2, 1))
    below.force_conditions([2], READONLY)
    device = WriteCacheDevice(below)
    device.force_conditions([2], None)
    device.write(2 * ZONE + 2 * BLOCK, blocks(1, 5))
    assert device.read(2 * ZONE, 3 * BLOCK) == blocks(2, 1) + blocks(1, 5)


def test_a_cache_opens_over_zones_that_are_open() -> None:
    below = MemoryDevice(GEOMETRY, 2, 3)
    below.write(2 * ZONE, blocks(1, 1))
    below.zone_mgmt(OPEN, 3)
    below.force_conditions([4], READONLY)
    shown = below.report_zones()
    device = WriteCacheDevice(below)
    assert device.report_zones() == shown
    device.write(3 * ZONE, blocks(1, 2))
    device.power_cut(KeepAll())
    device.power_on()
    assert [zone.condition for zone in device.report_zones()[2:5]] == [
        ZoneCondition.CLOSED,
        ZoneCondition.CLOSED,
        READONLY,
    ]


def test_a_filled_zone_is_durable_where_active_zones_are_limited() -> None:
    # Else two zones could be active after the cut, of one that there can be.
    device = WriteCacheDevice(MemoryDevice(GEOMETRY, None, 1))
    device.write(2 * ZONE, blocks(1, 1))
    device.flush()
    device.write(2 * ZONE + BLOCK, blocks(5, 2))
    device.write(3 * ZONE, blocks(1, 10))
    assert device.power_cut(KeepAll()) == PowerCut((ZoneLoss(3, BLOCK, BLOCK),))


def failing(*zones: int, size: int, count: int | None = None) -> tuple[MemoryDevice, WriteCacheDevice]:
    """A device, and a cache of *size* bytes over it that cannot write down what is in *zones*."""
    below = MemoryDevice(GEOMETRY)
    rules = [FaultRule(Operation.WRITE, Effect.FAIL, (zone, zone), error="ENOSPC", count=count) for zone in zones]
    return below, WriteCacheDevice(FaultDevice(below, rules), size=size)


def test_a_write_that_makes_the_cache_overflow_fails_as_its_zone_does_below() -> None:
    _, device = failing(2, size=4 * BLOCK, count=1)
    device.write(2 * ZONE, blocks(3, 1))
    before = device.report_zones()
    with pytest.raises(HostFull):
        device.write(2 * ZONE + 3 * BLOCK, blocks(2, 9))
    assert device.report_zones() == before
    device.write(2 * ZONE + 3 * BLOCK, blocks(2, 9))
    assert device.held_bytes == 2 * BLOCK
    assert device.read(2 * ZONE, 5 * BLOCK) == blocks(3, 1) + blocks(2, 9)


def test_a_zone_that_is_written_down_in_spite_of_an_error_fails_nobody_else() -> None:
    below = MemoryDevice(GEOMETRY)
    rule = FaultRule(Operation.WRITE, Effect.SHORT, (2, 2), after=2 * BLOCK, count=None)
    device = WriteCacheDevice(FaultDevice(below, [rule]), size=2 * BLOCK)
    device.write(2 * ZONE, blocks(2, 1))
    device.write(3 * ZONE, blocks(1, 5))
    assert device.read(2 * ZONE, 2 * BLOCK) == blocks(2, 1)
    assert device.held_bytes == BLOCK
    device.close()
    assert below.read(2 * ZONE, 2 * BLOCK) == blocks(2, 1)
    assert below.read(3 * ZONE, BLOCK) == blocks(1, 5)


def test_a_zone_that_cannot_be_written_down_fails_nobody_else() -> None:
    below, device = failing(2, 3, size=4 * BLOCK)
    device.write(2 * ZONE, blocks(2, 1))
    device.write(3 * ZONE, blocks(1, 5))
    device.write(0, blocks(1, 10))
    # What else is held goes down, and when there is nothing else, what is written does.
    for number in range(4):
        device.write(4 * ZONE + number * BLOCK, blocks(1, 20 + number))
        device.write(number * BLOCK, blocks(1, 30 + number))
        assert device.held_bytes == 4 * BLOCK
    device.write(5 * ZONE, blocks(3, 40))
    assert below.read(5 * ZONE, 3 * BLOCK) == blocks(3, 40)
    assert device.held_bytes == 3 * BLOCK
    assert device.read(4 * ZONE, 4 * BLOCK) == b"".join(blocks(1, 20 + number) for number in range(4))
    assert device.read(0, 4 * BLOCK) == b"".join(blocks(1, 30 + number) for number in range(4))
    # Whose data it is learns of it, and the cache does not grow by that.
    for _ in range(3):
        with pytest.raises(HostFull):
            device.write(2 * ZONE + 2 * BLOCK, blocks(4, 50))
    with pytest.raises(HostFull):
        device.flush(2)
    device.flush(4)
    assert device.held_bytes == 3 * BLOCK
    assert device.read(2 * ZONE, 2 * BLOCK) + device.read(3 * ZONE, BLOCK) == blocks(2, 1) + blocks(1, 5)


@pytest.mark.parametrize("at_the_end", [WriteCacheDevice.flush, WriteCacheDevice.close], ids=["flush", "close"])
def test_zones_that_cannot_be_written_down_keep_no_other_from_it(
    at_the_end: Callable[[WriteCacheDevice], None],
) -> None:
    below, device = failing(1, 3, size=1 << 20)
    for zone in (1, 2, 3, 4):
        device.write(zone * ZONE, blocks(1, zone))
    with pytest.raises(HostFull, match="zone 1"):
        at_the_end(device)
    assert [below.read(zone * ZONE, BLOCK) for zone in (1, 3)] == [bytes(BLOCK)] * 2
    assert [below.read(zone * ZONE, BLOCK) for zone in (2, 4)] == [blocks(1, 2), blocks(1, 4)]
    assert device.held_bytes == 2 * BLOCK


def test_what_is_flushed_beside_a_zone_that_fails_is_durable() -> None:
    disk = WriteCacheDevice(MemoryDevice(GEOMETRY))
    rule = FaultRule(Operation.WRITE, Effect.FAIL, (2, 2), count=None)
    device = WriteCacheDevice(FaultDevice(disk, [rule]))
    for zone in (2, 3):
        device.write(zone * ZONE, blocks(1, zone))
    with pytest.raises(DeviceError):
        device.flush()
    assert disk.power_cut(KeepNone()) == PowerCut(())
    disk.power_on()
    assert disk.read(3 * ZONE, BLOCK) == blocks(1, 3)


def test_it_stands_on_devices_of_any_shape() -> None:
    # Conventional zones behind sequential ones, and different capacities.
    geometry = Geometry(ZONE, 4 * BLOCK, 3, 1, BLOCK, ZONE)
    device = WriteCacheDevice(LinearDevice([Slice(MemoryDevice(GEOMETRY)), Slice(MemoryDevice(geometry))]))
    device.write(6 * ZONE, blocks(8, 1))
    device.write(7 * ZONE, blocks(4, 10))
    assert device.report_zones(7, 1)[0].condition is ZoneCondition.FULL
    assert device.power_cut(KeepAll()).kept == 12 * BLOCK
    device.power_on()
    assert device.read(6 * ZONE, ZONE) == blocks(8, 1)
    assert device.report_zones(7, 1)[0].condition is ZoneCondition.FULL


def test_a_power_cut_waits_for_calls_under_way_and_loses_none_that_was_flushed() -> None:
    device = WriteCacheDevice(MemoryDevice(GEOMETRY))
    flushed = [0] * 6
    together = threading.Barrier(5)

    def work(number: int) -> None:
        together.wait(30)
        try:
            for _ in range(6):
                device.write(number * ZONE + flushed[number] * BLOCK, blocks(1, number * 100 + flushed[number]))
                device.flush(number)
                flushed[number] += 1
        except DeviceError:
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in SEQUENTIAL]
    for thread in threads:
        thread.start()
    together.wait(30)
    device.power_cut(KeepNone())
    for thread in threads:
        thread.join()
    device.power_on()
    for number in SEQUENTIAL:
        size = device.report_zones(number, 1)[0].data_size
        assert size is not None
        assert size >= flushed[number] * BLOCK
        expected = b"".join(blocks(1, number * 100 + index) for index in range(size // BLOCK))
        assert device.read(number * ZONE, size or BLOCK)[:size] == expected


def test_a_stack_from_text(tmp_path: Path) -> None:
    create_device(f"{tmp_path}/a", GEOMETRY)
    with open_stack(f"write-cache:{tmp_path}/a") as device:
        assert (device.info.kind, device.info.name) == ("write-cache", f"write-cache:{tmp_path}/a")
        assert device.info.copy_methods == ()
        device.write(2 * ZONE, blocks(2, 1))
        device.flush()
        device.write(3 * ZONE, blocks(2, 5))
        device.power_cut(KeepNone())
    with open_device(f"{tmp_path}/a") as below:
        assert [zone.data_size for zone in below.report_zones(2, 2)] == [2 * BLOCK, 0]


def test_a_file_system_comes_back_on_the_same_device() -> None:
    geometry = Geometry(64 * BLOCK, 64 * BLOCK, 6, 2, BLOCK, 64 * BLOCK)
    device = WriteCacheDevice(MemoryDevice(geometry))
    format_device(device, FormatOptions())
    fs = Filesystem(device)
    handle = fs.open("seq/0", 1)
    fs.write(handle, 0, blocks(2, 1), direct=True)
    fs.fsync(handle)
    fs.write(handle, 2 * BLOCK, blocks(3, 5), direct=True)
    device.power_cut(KeepChosen({2: BLOCK}))
    with pytest.raises(DeviceError):
        fs.write(handle, 5 * BLOCK, blocks(1, 9), direct=True)
    device.power_on()
    with Filesystem(device) as again:
        assert again.getattr(again.resolve("seq/0")).size == 3 * BLOCK
        handle = again.open("seq/0", 2)
        again.write(handle, 3 * BLOCK, blocks(1, 9), direct=True)
        assert again.read(handle, 0, 9 * BLOCK) == blocks(2, 1) + blocks(1, 5) + blocks(1, 9)


@pytest.mark.parametrize(
    ("text", "keep"),
    [("none", KeepNone()), ("all", KeepAll()), ("seed:0", KeepSeed(0)), ("seed:" + "9" * 18, KeepSeed(10**18 - 1))],
)
def test_keep_has_a_text(text: str, keep: Keep) -> None:
    assert parse_keep(text) == keep


@pytest.mark.parametrize("text", ["", "None", "seed", "seed:", "seed:-1", "seed:1x", "seed:²", "seed:" + "9" * 19, "7"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="none, all, or seed:N"):
        parse_keep(text)

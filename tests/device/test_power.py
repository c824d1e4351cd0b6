"""Power cuts of stacks: whatever waits below a write cache, and of devices that consist of several."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device.test_write_cache import (
    BLOCK,
    GEOMETRY,
    OPEN,
    RESET,
    ZONE,
    Life,
    Step,
    blocks,
    follow,
    healthy_steps,
    keeps,
    limits,
    without_power,
)
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import Keep, KeepAll, KeepChosen, KeepNone, KeepSeed, PowerCut, ZoneLoss
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.zone import OPEN_CONDITIONS, ZoneCondition

SECONDS = 60


class Call:
    """A call in a thread of its own, until it ends or is stuck by *fault*."""

    def __init__(self, call: Callable[[], object], fault: FaultDevice) -> None:
        self.error: DeviceError | None = None
        self._thread = threading.Thread(target=self._run, args=[call], daemon=True)
        before = sum(status.fired for status in fault.rules)
        self._thread.start()
        never = threading.Event()
        while sum(status.fired for status in fault.rules) == before or (
            not fault.stuck and any(status.rule.effect is Effect.STUCK for status in fault.rules)
        ):
            assert not never.wait(0.001)

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except DeviceError as exc:
            self.error = exc

    def end(self) -> DeviceError | None:
        """What it failed by, now."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.error


def cached(*rules: FaultRule) -> tuple[WriteCacheDevice, FaultDevice]:
    """A cache over faults."""
    fault = FaultDevice(MemoryDevice(GEOMETRY), rules)
    return WriteCacheDevice(fault, size=4 * BLOCK), fault


# Calls that wait below a cache


STUCK_CALLS: dict[str, tuple[Operation, Callable[[ZonedDevice], object]]] = {
    "flush": (Operation.WRITE, lambda device: device.flush()),
    "flush below": (Operation.FLUSH, lambda device: device.flush()),
    "eviction": (Operation.WRITE, lambda device: device.write(3 * ZONE, blocks(4, 50))),
    "reset": (Operation.RESET, lambda device: device.zone_mgmt(RESET, 3)),
    "read": (Operation.READ, lambda device: device.read(0, BLOCK)),
    "report": (Operation.REPORT, lambda device: device.report_zones(2, 1)),
}


@pytest.mark.parametrize("effect", [Effect.STUCK, Effect.DELAY])
@pytest.mark.parametrize("name", STUCK_CALLS)
def test_a_call_that_waits_below_does_not_hold_up_a_power_cut(name: str, effect: Effect) -> None:
    operation, call = STUCK_CALLS[name]
    device, fault = cached()
    device.write(2 * ZONE, blocks(1, 1))
    device.flush()
    device.write(2 * ZONE + BLOCK, blocks(2, 10))
    milliseconds = 3_600_000 if effect is Effect.DELAY else 0
    waiting = FaultRule(operation, effect, count=None, milliseconds=milliseconds)
    fault.let_wait(True)
    fault.add_rule(waiting)
    stuck = Call(lambda: call(device), fault)
    cut = device.power_cut(KeepNone())
    error = stuck.end()
    assert (error is not None) == (effect is Effect.STUCK)
    with pytest.raises(DeviceError, match="no power"):
        device.read(0, BLOCK)
    fault.remove_rules()
    device.power_on()
    size = device.report_zones(2, 1)[0].data_size
    assert size is not None
    # A delay is over then, and what was under way is done before the cut.
    assert size == 3 * BLOCK - sum(loss.unflushed for loss in cut.zones if loss.number == 2)
    assert device.read(2 * ZONE, 3 * BLOCK) == (blocks(1, 1) + blocks(2, 10))[:size].ljust(3 * BLOCK, b"\0")


def test_what_is_kept_does_not_wait_either() -> None:
    device, fault = cached()
    fault.let_wait(True)
    device.write(2 * ZONE, blocks(2, 1))
    device.write(3 * ZONE, blocks(2, 5))
    fault.add_rule(FaultRule(Operation.WRITE, Effect.STUCK, (2, 2), count=None))
    # What could not be written down has not survived.
    assert device.power_cut(KeepAll()).zones == (ZoneLoss(2, 2 * BLOCK, 0), ZoneLoss(3, 2 * BLOCK, 2 * BLOCK))


def test_a_device_in_use_is_on_whatever_is_stuck() -> None:
    device, fault = cached(FaultRule(Operation.WRITE, Effect.STUCK))
    device.write(2 * ZONE, blocks(1, 1))
    stuck = Call(device.flush, fault)
    device.power_on()
    assert fault.release() == 1
    assert stuck.end() is None
    assert device.held_bytes == 0


def test_calls_wait_again_when_the_power_is_back_or_was_not_cut() -> None:
    device, fault = cached(FaultRule(Operation.WRITE, Effect.STUCK, count=None))
    for cut in (True, False):
        if cut:
            device.power_cut(KeepNone())
            device.power_on()
        else:
            with pytest.raises(UserError, match="nothing unflushed"):
                device.power_cut(KeepChosen({3: BLOCK}))
        device.write(2 * ZONE, blocks(1, 1))
        stuck = Call(device.flush, fault)
        fault.release(fail=True)
        assert stuck.end() is not None
        device.zone_mgmt(RESET, 2)


def test_a_device_that_gets_stuck_when_the_power_is_back_stays_dead() -> None:
    """Who is told so can take the rule away; who waited could not."""
    device, fault = cached()
    device.write(2 * ZONE, blocks(1, 1))
    device.power_cut(KeepAll())
    fault.let_wait(True)
    number = fault.add_rule(FaultRule(Operation.REPORT, Effect.STUCK, count=None))
    with pytest.raises(DeviceError, match="was stuck by rule 1, and given up"):
        device.power_on()
    with pytest.raises(DeviceError, match="no power"):
        device.report_zones()
    fault.remove_rule(number)
    device.power_on()
    assert device.read(2 * ZONE, BLOCK) == blocks(1, 1)


# Several devices


def halves(*, second_cached: bool = True) -> tuple[LinearDevice, ZonedDevice, ZonedDevice]:
    """Zones 0, 1 and 4, 5 of one device with a cache, 2 and 3 of another; and the two."""
    one = WriteCacheDevice(MemoryDevice(GEOMETRY), "one")
    two: ZonedDevice = MemoryDevice(GEOMETRY)
    if second_cached:
        two = WriteCacheDevice(two, "two")
    return LinearDevice([Slice(one, 0, 2), Slice(two, 4, 2), Slice(one, 2, 2)], "both"), one, two


def test_all_caches_lose_power_together_and_what_has_none_loses_nothing() -> None:
    for second_cached, left in ((True, 0), (False, 2 * BLOCK)):
        device, one, two = halves(second_cached=second_cached)
        device.write(2 * ZONE, blocks(2, 1))
        device.write(4 * ZONE, blocks(3, 5))
        device.write(0, blocks(1, 9))
        losses = [ZoneLoss(0, BLOCK, 0), ZoneLoss(2, 2 * BLOCK, 0), ZoneLoss(4, 3 * BLOCK, 0)]
        cut = device.power_cut(KeepNone())
        assert cut == PowerCut(tuple(loss for loss in losses if second_cached or loss.number != 2))
        with pytest.raises(DeviceError, match="one has no power"):
            one.report_zones()
        with pytest.raises(DeviceError) if second_cached else contextlib.nullcontext():
            two.report_zones()
        device.power_on()
        assert [zone.data_size for zone in device.report_zones()[2:]] == [left, 0, 0, 0]
        assert device.read(0, BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize("call", without_power())
def test_without_power_every_call_fails_wherever_it_goes(call: Callable[[ZonedDevice], object]) -> None:
    """Zones 0 to 3 of a part without a cache, behind which one with a cache stands."""
    device = LinearDevice([Slice(MemoryDevice(GEOMETRY)), Slice(WriteCacheDevice(MemoryDevice(GEOMETRY)))], "both")
    device.power_cut(KeepNone())
    with pytest.raises(DeviceError, match=r"^both has no power"):
        call(device)
    assert device.power_cut(KeepAll()) == PowerCut(())
    device.power_on()
    call(device)
    device.close()


def test_no_zone_is_open_when_the_power_is_back() -> None:
    device, _, _ = halves(second_cached=False)
    for number in (2, 3, 4):
        device.zone_mgmt(OPEN, number)
    device.write(3 * ZONE, blocks(1, 1))
    device.power_cut(KeepAll())
    device.power_on()
    zones = device.report_zones()
    assert not [zone for zone in zones if zone.condition in OPEN_CONDITIONS]
    assert zones[3].condition is ZoneCondition.CLOSED


def test_chosen_parts_are_named_by_the_zones_of_the_whole() -> None:
    device, _, _ = halves()
    device.write(2 * ZONE, blocks(2, 1))
    device.write(4 * ZONE, blocks(3, 5))
    device.write(0, blocks(2, 9))
    for wrong in ({3: BLOCK}, {2: 3 * BLOCK}, {4: frozenset({0})}):
        with pytest.raises(UserError, match=f"zone {min(wrong)}"):
            device.power_cut(KeepChosen(wrong))
    assert sum(zone.length for zone in device.unflushed()) == 7 * BLOCK
    cut = device.power_cut(KeepChosen({2: BLOCK, 4: 2 * BLOCK, 0: frozenset({BLOCK})}))
    assert [loss.kept // BLOCK for loss in cut.zones] == [1, 1, 2]
    device.power_on()
    assert device.read(2 * ZONE, BLOCK) == blocks(2, 1)[:BLOCK]
    assert device.read(4 * ZONE, 2 * BLOCK) == blocks(3, 5)[: 2 * BLOCK]
    assert device.read(0, 2 * BLOCK) == bytes(BLOCK) + blocks(2, 9)[BLOCK:]


def test_seeds_reach_combinations_of_parts() -> None:
    seen = set()
    for seed in range(200):
        device, _, _ = halves()
        device.write(2 * ZONE, blocks(2, 1))
        device.write(4 * ZONE, blocks(2, 5))
        seen.add(tuple(loss.kept // BLOCK for loss in device.power_cut(KeepSeed(seed)).zones))
    assert len(seen) == 9


@pytest.mark.parametrize("where", ["in the part without a cache", "below a cache"])
def test_a_call_that_waits_in_one_part_does_not_hold_up_the_power_cut(where: str) -> None:
    rule = FaultRule(Operation.FLUSH, Effect.STUCK, count=None)
    fault = FaultDevice(MemoryDevice(GEOMETRY), [rule])
    part = WriteCacheDevice(fault) if where == "below a cache" else fault
    device = LinearDevice([Slice(part), Slice(WriteCacheDevice(MemoryDevice(GEOMETRY)))])
    device.write(8 * ZONE, blocks(2, 1))
    stuck = Call(lambda: device.flush(2), fault)
    device.power_on()
    assert device.power_cut(KeepNone()) == PowerCut((ZoneLoss(8, 2 * BLOCK, 0),))
    assert "given up" in str(stuck.end())
    device.power_on()
    stuck = Call(lambda: device.flush(2), fault)
    fault.remove_rules()
    assert stuck.end() is None


def test_devices_above_pass_it_on_and_without_a_cache_say_what_to_do() -> None:
    device, _, _ = halves()
    top = FaultDevice(device)
    top.write(2 * ZONE, blocks(1, 1))
    assert top.has_write_cache
    assert [(zone.number, zone.length) for zone in top.unflushed()] == [(2, BLOCK)]
    assert top.power_cut(KeepAll()).kept == BLOCK
    top.power_on()
    plain = LinearDevice([Slice(MemoryDevice(GEOMETRY)), Slice(MemoryDevice(GEOMETRY))])
    assert not plain.has_write_cache
    for call in (lambda: plain.power_cut(KeepNone()), plain.power_on):
        with pytest.raises(UserError, match=r"use write-cache:linear:memory\+memory"):
            call()


@given(st.lists(st.tuples(healthy_steps, keeps), min_size=1, max_size=4), limits)
@settings(max_examples=100)
def test_what_is_left_of_several_is_legal(
    rounds: list[tuple[list[Step], Keep]], most: tuple[int | None, int | None]
) -> None:
    """A model of each zone, as for one cache: which part it lies in makes no difference."""
    parts = [WriteCacheDevice(MemoryDevice(GEOMETRY, *most)) for _ in range(2)]
    device = LinearDevice([Slice(parts[0], 0, 2), Slice(parts[1], 4, 2), Slice(parts[0], 2, 2)])
    lives = [Life(conventional=number < 2) for number in range(6)]
    stamp = 0
    for steps, keep in rounds:
        for step in steps:
            stamp += 8
            follow(device, lives, step, stamp)
        held = sum(part.held_bytes for part in parts)
        assert sum(zone.length for zone in device.unflushed()) == held
        cut = device.power_cut(keep)
        assert cut.unflushed == held
        device.power_on()
        for number, life in enumerate(lives):
            life.check(device, number, all_kept=isinstance(keep, KeepAll), evicts=False)

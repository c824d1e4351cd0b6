"""What rules can say beside operations and zones, rules that make calls wait, and faults under a device in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

import pytest

from tests.device.copying import CopyingDevice
from tests.device.test_fault import BLOCK, COPY, GEOMETRY, HOST, READ, SEQ, WRITE, ZONE, at, blocks, faulty, written
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.testing.recorder import RecordingDevice
from zonefs_py.zone import CopyRange, ZoneOp

FAIL, STUCK, DELAY = Effect.FAIL, Effect.STUCK, Effect.DELAY
SECONDS = 30
"""How long to wait for another thread before the test has failed."""


# Which calls


def test_bytes_are_counted_and_the_call_fails_at_that_byte() -> None:
    below, device = faulty(FaultRule(WRITE, FAIL, (SEQ, SEQ), at_byte=3 * BLOCK))
    device.write(at(SEQ + 1), blocks("xyz"))
    device.write(at(SEQ), blocks("ab"))
    device.write(at(SEQ, 2), blocks("c"))
    with pytest.raises(DeviceError, match="by rule 1"):
        device.write(at(SEQ, 3), blocks("de"))
    assert written(below, SEQ) == "abc"
    assert device.rules[0][2:] == (1, 1)
    device.write(at(SEQ, 3), blocks("de"))


def test_a_write_that_crosses_the_byte_has_moved_the_write_pointer_to_it() -> None:
    below, device = faulty(FaultRule(WRITE, FAIL, at_byte=3 * BLOCK + 5, count=None))
    device.write(at(SEQ), blocks("ab"))
    with pytest.raises(DeviceError):
        device.write(at(SEQ, 2), blocks("cde"))
    # Cut to whole blocks; and from then on nothing is written at all.
    assert written(below, SEQ) == "abc"
    with pytest.raises(DeviceError):
        device.write(at(SEQ, 3), blocks("d"))
    assert written(below, SEQ) == "abc"


def test_a_bad_block_fails_reads_and_stops_writes_there() -> None:
    bad = at(SEQ, 2) // BLOCK
    below, device = faulty(
        FaultRule(READ, FAIL, blocks=(bad, bad), count=None),
        FaultRule(WRITE, FAIL, blocks=(bad, bad), count=None),
        FaultRule(COPY, FAIL, source_blocks=(bad, bad), count=None),
    )
    with pytest.raises(DeviceError, match="rule 2"):
        device.write(at(SEQ), blocks("abcd"))
    assert written(below, SEQ) == "ab"
    below.write(at(SEQ, 2), blocks("cd"))
    assert device.read(at(SEQ), 2 * BLOCK) == blocks("ab")
    assert device.read(at(SEQ, 3), BLOCK) == blocks("d")
    with pytest.raises(DeviceError, match="rule 1"):
        device.read(at(SEQ), ZONE)
    with pytest.raises(DeviceError, match="rule 3"):
        device.copy([CopyRange(at(SEQ, 1), 0, 2 * BLOCK)], HOST)
    device.copy([CopyRange(at(SEQ), 0, 2 * BLOCK)], HOST)


def test_a_rule_can_begin_after_a_time() -> None:
    now = 100.0
    _, device = faulty(FaultRule(READ, FAIL, from_milliseconds=1500, count=None), clock=lambda: now)
    device.read(0, BLOCK)
    now = 101.4
    device.read(0, BLOCK)
    assert device.rules[0].matched == 0
    now = 101.5
    with pytest.raises(DeviceError):
        device.read(0, BLOCK)
    # Of a rule that is added later, the time begins then.
    number = device.add_rule(FaultRule(WRITE, FAIL, from_milliseconds=1000))
    device.write(0, blocks("a"))
    now = 103
    with pytest.raises(DeviceError, match=f"rule {number}"):
        device.write(0, blocks("a"))


def test_chance_replays() -> None:
    def outcomes(seed: int) -> list[bool]:
        _, device = faulty(FaultRule(READ, FAIL, probability=0.3, seed=seed, count=None))
        results = []
        for _ in range(60):
            try:
                device.read(0, BLOCK)
                results.append(True)
            except DeviceError:
                results.append(False)
        return results

    assert outcomes(7) == outcomes(7)
    assert outcomes(7) != outcomes(8)
    assert 5 < outcomes(7).count(False) < 35


def test_a_name_is_in_the_error() -> None:
    _, device = faulty(FaultRule(READ, FAIL, name="worn out"))
    with pytest.raises(DeviceError, match=r"fails by rule 1 \(worn out\)"):
        device.read(0, BLOCK)


def test_blocks_that_there_are_not() -> None:
    _, device = faulty()
    with pytest.raises(UserError, match=f"the device has blocks 0 to {GEOMETRY.size // BLOCK - 1}"):
        device.add_rule(FaultRule(READ, FAIL, blocks=(0, GEOMETRY.size // BLOCK)))


def test_latency_is_drawn_for_each_call() -> None:
    waits: list[float] = []
    rule = FaultRule(READ, DELAY, count=None, milliseconds=10, max_milliseconds=50, distribution="uniform", seed=3)
    _, device = faulty(rule, sleep=waits.append)
    for _ in range(20):
        device.read(0, BLOCK)
    assert waits == [rule.delay(number) for number in range(1, 21)]
    assert len(set(waits)) == 20


# Calls that get stuck


class Caller:
    """A thread that makes one call."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = "not done"
        self._call = call
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call() or "done"
        except DeviceError as exc:
            self.result = exc

    def end(self) -> object:
        """Wait for the end of the call; return what came of it."""
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        return self.result


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    reached = threading.Event()
    for _ in range(SECONDS * 100):
        if condition():
            return
        reached.wait(0.01)
    pytest.fail("it did not happen")


def test_a_stuck_write_goes_on_where_it_was() -> None:
    below, device = faulty(FaultRule(WRITE, STUCK, (SEQ, SEQ), after=BLOCK))
    caller = Caller(lambda: device.write(at(SEQ), blocks("ab")))
    wait_for(lambda: len(device.stuck) == 1)
    assert device.stuck[0][:2] == (1, SEQ)
    assert written(below, SEQ) == "a"
    # Other zones go on, and somebody else's rule releases nothing.
    device.write(at(SEQ + 1), blocks("z"))
    assert device.release([7]) == 0
    assert device.release() == 1
    assert caller.end() == "done"
    assert written(below, SEQ) == "ab"
    assert device.stuck == []


@pytest.mark.parametrize("operation", list(Operation))
def test_any_call_can_be_stuck_and_made_to_fail(operation: Operation) -> None:
    from tests.device.test_fault import CALLS, prepare

    below, device = faulty(FaultRule(operation, STUCK))
    call = CALLS[READ if operation is Operation.ANY else operation]
    prepare(below, operation)
    caller = Caller(lambda: call(device))
    wait_for(lambda: len(device.stuck) == 1)
    assert device.release(fail=True) == 1
    assert isinstance(caller.end(), DeviceError)
    assert "stuck by rule 1, and given up" in str(caller.end())


def test_a_rule_that_is_removed_lets_its_calls_go_on() -> None:
    _, device = faulty(FaultRule(READ, STUCK, (0, 0)), FaultRule(READ, STUCK, (1, 1)))
    first = Caller(lambda: device.read(0, BLOCK))
    second = Caller(lambda: device.read(at(1), BLOCK))
    wait_for(lambda: len(device.stuck) == 2)
    device.remove_rule(2)
    assert second.end() == bytes(BLOCK)
    assert len(device.stuck) == 1
    device.remove_rules()
    assert first.end() == bytes(BLOCK)
    assert device.rules == []


def test_a_rule_that_is_removed_ends_its_delays() -> None:
    _, device = faulty(
        FaultRule(READ, DELAY, (0, 0), milliseconds=3_600_000), FaultRule(READ, DELAY, (1, 1), milliseconds=3_600_000)
    )
    first = Caller(lambda: device.read(0, BLOCK))
    second = Caller(lambda: device.read(at(1), BLOCK))
    wait_for(lambda: [status.fired for status in device.rules] == [1, 1])
    device.remove_rule(2)
    assert second.end() == bytes(BLOCK)
    assert first.thread.is_alive()
    device.remove_rules()
    assert first.end() == bytes(BLOCK)


@pytest.mark.parametrize("effect", [STUCK, DELAY])
def test_a_rule_that_was_removed_makes_no_call_wait_that_it_has_struck(effect: Effect) -> None:
    """The call is still busy with another rule then."""
    milliseconds = 3_600_000 if effect is DELAY else 0
    below, device = faulty(
        FaultRule(WRITE, STUCK, (SEQ, SEQ)), FaultRule(WRITE, effect, (SEQ, SEQ), milliseconds=milliseconds)
    )
    caller = Caller(lambda: device.write(at(SEQ), blocks("a")))
    wait_for(lambda: len(device.stuck) == 1)
    device.remove_rule(2)
    assert device.release() == 1
    assert caller.end() == "done"
    assert written(below, SEQ) == "a"


def test_ten_thousand_rules_are_removed_together() -> None:
    _, device = faulty()
    numbers = device.add_rules([FaultRule(READ, FAIL)] * 10_000)
    assert len(device.remove_rules(numbers[1:-1])) == 9_998
    assert [status.number for status in device.rules] == [1, 10_000]


def test_when_all_is_abandoned_nobody_waits() -> None:
    _, device = faulty(FaultRule(READ, STUCK, count=None), FaultRule(WRITE, DELAY, milliseconds=3_600_000, count=None))
    callers = [Caller(lambda: device.read(0, BLOCK)), Caller(lambda: device.write(0, blocks("a")))]
    wait_for(lambda: len(device.stuck) == 1)
    device.abandon()
    assert isinstance(callers[0].end(), DeviceError)
    assert callers[1].end() == "done"
    with pytest.raises(DeviceError, match="given up"):
        device.read(0, BLOCK)
    device.write(0, blocks("a"))


STACKS: dict[str, Callable[[ZonedDevice], ZonedDevice]] = {
    "linear": lambda below: LinearDevice([Slice(below)]),
    "fault": FaultDevice,
    "write-cache": WriteCacheDevice,
    "recorder": RecordingDevice,
}


@pytest.mark.parametrize("stack", STACKS)
def test_what_is_abandoned_above_is_abandoned_below(stack: str) -> None:
    _, below = faulty(FaultRule(READ, STUCK))
    device = STACKS[stack](below)
    caller = Caller(lambda: device.read(0, BLOCK))
    wait_for(lambda: len(below.stuck) == 1)
    device.abandon()
    assert isinstance(caller.end(), DeviceError)


@pytest.mark.parametrize("stack", STACKS)
def test_who_watches_above_hears_of_calls_that_are_stuck_below(stack: str) -> None:
    _, below = faulty(FaultRule(READ, STUCK, count=None))
    device = STACKS[stack](below)
    heard: list[bool] = []
    device.watch_stuck(heard.append)
    caller = Caller(lambda: device.read(0, BLOCK))
    wait_for(lambda: len(below.stuck) == 1)
    assert heard == [True]
    below.release()
    assert caller.end() == bytes(BLOCK)
    assert heard == [True, False]
    device.watch_stuck(None)
    device.abandon()
    with pytest.raises(DeviceError, match="given up"):
        device.read(0, BLOCK)
    assert heard == [True, False]


def test_rules_that_make_calls_wait_need_leave() -> None:
    _, device = faulty()
    with pytest.raises(UserError, match="must be there when the device is opened"):
        device.add_rules([FaultRule(READ, FAIL), FaultRule(READ, STUCK)])
    assert device.rules == []
    device.let_wait(True)
    assert device.info.waits
    number = device.add_rule(FaultRule(READ, STUCK))
    with pytest.raises(UserError, match="there are rules that make calls wait"):
        device.let_wait(False)
    device.remove_rule(number)
    device.let_wait(False)
    assert not device.info.waits


# Under a device in use


def test_without_rules_the_calls_are_those_of_the_device_below() -> None:
    below = CopyingDevice(GEOMETRY)
    device = FaultDevice.over(below)
    assert device.info == below.info
    assert FaultDevice.over(device) is device
    names = ("read", "read_into", "read_into_now", "write", "copy", "zone_mgmt", "flush", "report_zones")
    assert all(getattr(device, name) == getattr(below, name) for name in names)
    number = device.add_rule(FaultRule(READ, FAIL, count=None))
    with pytest.raises(DeviceError):
        device.read_into(0, memoryview(bytearray(BLOCK)))
    with pytest.raises(DeviceError):
        device.read_into_now(0, memoryview(bytearray(BLOCK)))
    device.remove_rule(number)
    device.read_into(0, memoryview(bytearray(BLOCK)))
    assert all(getattr(device, name) == getattr(below, name) for name in names)


def test_rules_can_come_to_a_device_below_one_without_rules() -> None:
    below = CopyingDevice(GEOMETRY)
    inner = FaultDevice.over(below)
    outer = FaultDevice(FaultDevice(inner))
    number = inner.add_rule(FaultRule(READ, FAIL, count=None))
    for read in (lambda: outer.read(0, BLOCK), lambda: outer.read_into(0, memoryview(bytearray(BLOCK)))):
        with pytest.raises(DeviceError, match="by rule 1"):
            read()
    inner.remove_rule(number)
    assert outer.read(0, BLOCK) == bytes(BLOCK)


def test_rules_are_added_and_removed_together_or_not_at_all() -> None:
    _, device = faulty(FaultRule(READ, FAIL, first=100))
    with pytest.raises(UserError, match=r"rule 2: .* zone 8"):
        device.add_rules([FaultRule(WRITE, FAIL), FaultRule(WRITE, FAIL, (0, 8))])
    assert len(device.rules) == 1
    assert device.add_rules([FaultRule(WRITE, FAIL), FaultRule(READ, FAIL)]) == [2, 3]
    with pytest.raises(UserError, match="there is no rule 9"):
        device.remove_rules([1, 9])
    assert [status.number for status in device.rules] == [1, 2, 3]
    assert [status.number for status in device.remove_rules([3, 1, 3])] == [3, 1]
    assert [status.number for status in device.rules] == [2]


class BackedDevice(MemoryDevice):
    """A device whose zones are, so it says, files."""

    watcher: Callable[[Iterable[int]], None] | None = None

    def backing_descriptor(self, number: int) -> int | None:
        return os.open(os.devnull, os.O_RDONLY)

    def watch_backing(self, withdrawn: Callable[[Iterable[int]], None] | None) -> None:
        self.watcher = withdrawn


def test_zones_whose_reads_may_fail_are_not_read_past_the_device() -> None:
    below = BackedDevice(GEOMETRY)
    device = FaultDevice.over(below)
    withdrawn: list[list[int]] = []
    device.watch_backing(lambda zones: withdrawn.append(list(zones)))
    assert below.watcher is not None

    def passed() -> list[int]:
        found = []
        for number in range(GEOMETRY.nr_zones):
            descriptor = device.backing_descriptor(number)
            if descriptor is not None:
                os.close(descriptor)
                found.append(number)
        return found

    everything = list(range(GEOMETRY.nr_zones))
    assert passed() == everything
    device.add_rule(FaultRule(WRITE, FAIL))
    assert (passed(), withdrawn) == (everything, [])
    device.add_rule(FaultRule(READ, FAIL, (2, 3)))
    assert (passed(), withdrawn) == ([0, 1, 4, 5, 6, 7], [[2, 3]])
    device.add_rule(FaultRule(READ, FAIL, blocks=(at(5) // BLOCK, at(5, 1) // BLOCK)))
    assert (passed(), withdrawn[1:]) == ([0, 1, 4, 6, 7], [[5]])
    device.add_rule(FaultRule(Operation.ANY, FAIL))
    assert (passed(), withdrawn[2:]) == ([], [everything])
    device.remove_rules()
    assert passed() == everything


def test_rules_that_come_and_go_disturb_no_call() -> None:
    """Calls in other threads meet a rule or do not, and do what they do whole."""
    below = CopyingDevice(GEOMETRY)
    device = FaultDevice.over(below)
    stop = threading.Event()
    written_to = [0, 0]

    def write(index: int) -> None:
        position = 0
        while not stop.is_set():
            try:
                device.write(at(SEQ + index, position), blocks("a"))
                position += 1
                written_to[index] += 1
                if position == ZONE // BLOCK:
                    device.zone_mgmt(ZoneOp.RESET, SEQ + index)
                    position = 0
            except DeviceError:
                pass

    threads = [threading.Thread(target=write, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        number = device.add_rule(FaultRule(WRITE, FAIL, count=None))
        device.remove_rule(number)
    wait_for(lambda: min(written_to) > 0)
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
    for index in (0, 1):
        assert below.report_zones(SEQ + index, 1)[0].data_size == written_to[index] * BLOCK % ZONE

"""Fault devices: each effect on each kind of call, counting, and changes at run time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py import errors
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import (
    ActiveZonesExhausted,
    DeviceError,
    HostFull,
    NotPermitted,
    OpenZonesExhausted,
    ReadOnlyFilesystem,
    TableChanged,
    UserError,
    ZonefsError,
)
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition, ZoneOp

from .copying import CopyingDevice

KIB = 1024
ZONE = 64 * KIB
BLOCK = 4096
GEOMETRY = Geometry(ZONE, ZONE, 8, 2, BLOCK, ZONE)
"""Zones 0 and 1 are conventional."""
SEQ = 2
HOST = CopyMethod.HOST

READ, WRITE, COPY, FLUSH = Operation.READ, Operation.WRITE, Operation.COPY, Operation.FLUSH
REPORT, ANY = Operation.REPORT, Operation.ANY
EMPTY, FULL, IMP_OPEN = ZoneCondition.EMPTY, ZoneCondition.FULL, ZoneCondition.IMP_OPEN
READONLY, OFFLINE = ZoneCondition.READONLY, ZoneCondition.OFFLINE


def faulty(*rules: FaultRule, **more: Any) -> tuple[CopyingDevice, FaultDevice]:
    below = CopyingDevice(GEOMETRY)
    return below, FaultDevice(below, rules, **more)


def blocks(letters: str) -> bytes:
    """A block for each letter."""
    return b"".join(letter.encode() * BLOCK for letter in letters)


def at(zone: int, block: int = 0) -> int:
    return zone * ZONE + block * BLOCK


def condition(device: ZonedDevice, zone: int) -> ZoneCondition:
    return device.report_zones(zone, 1)[0].condition


def written(device: ZonedDevice, zone: int) -> str:
    """The letters of the blocks that a sequential zone holds; "-" for a block of zeros."""
    size = device.report_zones(zone, 1)[0].data_size
    assert size is not None
    data = device.read(zone * ZONE, ZONE)
    assert not any(data[size:])
    return "".join(data[start : start + 1].decode().replace("\0", "-") for start in range(0, size, BLOCK))


# fail, before and in the middle

CALLS: dict[Operation, Callable[[ZonedDevice], object]] = {
    READ: lambda device: device.read(at(SEQ), BLOCK),
    WRITE: lambda device: device.write(at(SEQ), blocks("x")),
    COPY: lambda device: device.copy([CopyRange(0, at(SEQ), BLOCK)], HOST),
    Operation.RESET: lambda device: device.zone_mgmt(ZoneOp.RESET, SEQ),
    Operation.OPEN: lambda device: device.zone_mgmt(ZoneOp.OPEN, SEQ),
    Operation.CLOSE: lambda device: device.zone_mgmt(ZoneOp.CLOSE, SEQ),
    Operation.FINISH: lambda device: device.zone_mgmt(ZoneOp.FINISH, SEQ),
    FLUSH: lambda device: device.flush(SEQ),
    REPORT: lambda device: device.report_zones(SEQ, 1),
}
ERROR_CLASSES = {
    "EIO": DeviceError,
    "ENOSPC": HostFull,
    "ETOOMANYREFS": OpenZonesExhausted,
    "EOVERFLOW": ActiveZonesExhausted,
    "ETIMEDOUT": errors.RequestTimedOut,
    "ENOLINK": errors.TransportFailed,
    "EREMOTEIO": errors.TargetFailed,
    "EBADE": errors.ReservedForOthers,
    "ENODATA": errors.MediumFailed,
    "EILSEQ": errors.ProtectionFailed,
    "ENODEV": errors.DeviceOffline,
}


def prepare(below: ZonedDevice, operation: Operation) -> None:
    if operation in (Operation.RESET, Operation.CLOSE):
        below.zone_mgmt(ZoneOp.OPEN, SEQ)


@pytest.mark.parametrize("error", ERROR_CLASSES)
@pytest.mark.parametrize("operation", CALLS, ids=lambda operation: operation.value)
def test_a_call_that_fails_before_has_done_nothing(operation: Operation, error: str) -> None:
    below, device = faulty(FaultRule(operation, Effect.FAIL, (SEQ, SEQ), error=error))
    prepare(below, operation)
    before = below.report_zones()
    with pytest.raises(DeviceError) as raised:
        CALLS[operation](device)
    assert type(raised.value) is ERROR_CLASSES[error]
    assert str(raised.value).startswith(f"zone {SEQ}: ")
    assert str(raised.value).endswith("fails by rule 1")
    assert below.report_zones() == before
    assert not below.copies
    CALLS[operation](device)
    assert device.rules[0][2:] == (2, 1)


@pytest.mark.parametrize("operation", CALLS, ids=lambda operation: operation.value)
def test_rules_for_other_calls_and_zones_change_nothing(operation: Operation) -> None:
    others = [FaultRule(other, Effect.FAIL, count=None) for other in CALLS if other is not operation]
    below, device = faulty(*others, FaultRule(ANY, Effect.FAIL, (SEQ + 1, 7), count=None))
    prepare(below, operation)
    CALLS[operation](device)
    assert [status.matched for status in device.rules] == [0] * len(device.rules)


@pytest.mark.parametrize(
    ("after", "expected"), [(0, ""), (BLOCK - 1, ""), (BLOCK, "a"), (2 * BLOCK + 5, "ab"), (1 << 40, "abc")]
)
def test_a_write_that_fails_in_the_middle_has_moved_the_write_pointer(after: int, expected: str) -> None:
    below, device = faulty(FaultRule(WRITE, Effect.FAIL, after=after, error="ENOSPC"))
    with pytest.raises(HostFull):
        device.write(at(SEQ), blocks("abc"))
    assert written(below, SEQ) == expected
    assert device.report_zones() == below.report_zones()
    device.write(at(SEQ, len(expected)), blocks("z"))
    assert written(below, SEQ) == expected + "z"


@pytest.mark.parametrize(("after", "expected"), [(0, ""), (2 * BLOCK, "ab"), (1 << 40, "abc")])
@pytest.mark.parametrize("effect", [Effect.FAIL, Effect.SHORT])
def test_a_copy_that_fails_tells_how_far_it_came_only_if_it_is_short(effect: Effect, after: int, expected: str) -> None:
    below, device = faulty(FaultRule(COPY, effect, after=after))
    below.write(0, blocks("abc"))
    with pytest.raises(DeviceError) as raised:
        device.copy([CopyRange(0, at(SEQ), 3 * BLOCK)], HOST)
    assert raised.value.completed == (len(expected) * BLOCK if effect is Effect.SHORT else 0)
    assert written(below, SEQ) == expected


def test_a_short_write_is_an_error_too() -> None:
    below, device = faulty(FaultRule(WRITE, Effect.SHORT, after=BLOCK))
    with pytest.raises(DeviceError, match="stops short after 4096 by rule 1"):
        device.write(at(SEQ), blocks("abc"))
    assert written(below, SEQ) == "a"


# Lies: drop and flip


def test_a_dropped_write_to_a_sequential_zone_leaves_zeros() -> None:
    below, device = faulty(FaultRule(WRITE, Effect.DROP, first=2))
    for number, letter in enumerate("abc"):
        device.write(at(SEQ, number), blocks(letter))
    assert written(below, SEQ) == "a-c"
    assert device.read(at(SEQ), 3 * BLOCK) == blocks("a\0c")


def test_a_dropped_write_fills_a_zone_and_needs_the_write_pointer() -> None:
    below, device = faulty(FaultRule(WRITE, Effect.DROP, count=None))
    with pytest.raises(DeviceError):
        device.write(at(SEQ, 1), blocks("a"))
    device.write(at(SEQ), bytes(ZONE))
    assert condition(below, SEQ) is FULL


def test_a_dropped_write_to_conventional_zones_leaves_the_old_data() -> None:
    below, device = faulty(FaultRule(WRITE, Effect.DROP, (1, 1)))
    below.write(at(1, -1), blocks("ab"))
    device.write(at(1, -1), blocks("xy"))
    assert below.read(at(1, -1), 2 * BLOCK) == blocks("ab")
    device.write(at(1, -1), blocks("xy"))
    assert below.read(at(1, -1), 2 * BLOCK) == blocks("xy")


@pytest.mark.parametrize("destination", [at(SEQ), at(1)])
def test_a_dropped_copy(destination: int) -> None:
    below, device = faulty(FaultRule(COPY, Effect.DROP))
    below.write(0, blocks("ab"))
    device.copy([CopyRange(0, destination, 2 * BLOCK)], HOST)
    assert not below.copies
    assert not any(below.read(destination, 2 * BLOCK))
    assert below.report_zones(SEQ, 1)[0].data_size == (2 * BLOCK if destination == at(SEQ) else 0)


def test_dropped_management_and_flush_are_not_done() -> None:
    flushed: list[int | None] = []

    class Noting(MemoryDevice):
        def flush(self, number: int | None = None) -> None:
            flushed.append(number)

    below = Noting(GEOMETRY)
    names = ("open", "close", "finish", "reset", "flush")
    device = FaultDevice(below, [FaultRule(Operation(name), Effect.DROP) for name in names])
    below.write(at(SEQ), blocks("a"))
    for op in (ZoneOp.OPEN, ZoneOp.CLOSE, ZoneOp.FINISH, ZoneOp.RESET):
        device.zone_mgmt(op, SEQ)
        assert condition(device, SEQ) is IMP_OPEN
    device.flush()
    assert flushed == []
    device.flush()
    device.zone_mgmt(ZoneOp.RESET, SEQ)
    assert (flushed, condition(device, SEQ)) == ([None], EMPTY)


def differences(one: bytes, other: bytes) -> list[tuple[int, int]]:
    """Where two texts differ, and in which bits."""
    return [(index, a ^ b) for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]


@pytest.mark.parametrize(("byte", "where"), [(0, 0), (5000, 5000), (2 * BLOCK - 1, 2 * BLOCK - 1), (2 * BLOCK + 7, 7)])
def test_one_bit_is_flipped(byte: int, where: int) -> None:
    data = blocks("ab")
    below, device = faulty(FaultRule(WRITE, Effect.FLIP, byte=byte, bit=3), FaultRule(READ, Effect.FLIP, byte=byte))
    changing = bytearray(data)
    device.write(0, changing)
    assert changing == data
    assert differences(below.read(0, 2 * BLOCK), data) == [(where, 8)]
    assert differences(device.read(0, 2 * BLOCK), data) == [(where, 9)]
    assert differences(device.read(0, 2 * BLOCK), data) == [(where, 8)]
    below, device = faulty(FaultRule(COPY, Effect.FLIP, byte=byte, bit=7))
    below.write(0, data)
    device.copy([CopyRange(0, at(SEQ), 2 * BLOCK)], HOST)
    assert differences(below.read(at(SEQ), 2 * BLOCK), data) == [(where, 128)]


def test_a_flipped_copy_of_more_than_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zonefs_py.device.fault.BUFFER_SIZE", 2 * BLOCK)
    below, device = faulty(FaultRule(COPY, Effect.FLIP, byte=3 * BLOCK + 5))
    below.write(0, blocks("abcde"))
    device.copy([CopyRange(0, at(SEQ), 5 * BLOCK)], HOST)
    assert differences(below.read(at(SEQ), 5 * BLOCK), blocks("abcde")) == [(3 * BLOCK + 5, 1)]


def test_a_piece_that_the_device_cannot_copy_is_copied_all_the_same() -> None:
    class Coarse(CopyingDevice):
        """Copies two blocks at a time, as a host file system with larger blocks does."""

        def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
            return super().can_copy(ranges, method) and not any(piece.length % (2 * BLOCK) for piece in ranges)

    below = Coarse(GEOMETRY)
    device = FaultDevice(below, [FaultRule(COPY, Effect.SHORT, after=3 * BLOCK)])
    below.write(0, blocks("abcd"))
    with pytest.raises(DeviceError) as raised:
        device.copy([CopyRange(0, at(SEQ), 4 * BLOCK)], HOST)
    assert (raised.value.completed, written(below, SEQ), below.copies) == (3 * BLOCK, "abc", [])


# Changes below


@pytest.mark.parametrize("operation", CALLS, ids=lambda operation: operation.value)
def test_a_zone_goes_offline_when_a_call_comes(operation: Operation) -> None:
    below, device = faulty(FaultRule(operation, Effect.OFFLINE))
    prepare(below, operation)
    if operation in (FLUSH, REPORT):
        CALLS[operation](device)
    else:
        with pytest.raises(DeviceError, match="offline"):
            CALLS[operation](device)
    assert condition(below, SEQ) is OFFLINE


@pytest.mark.parametrize("operation", [WRITE, COPY], ids=lambda operation: operation.value)
@pytest.mark.parametrize("effect", [Effect.READONLY, Effect.OFFLINE])
@pytest.mark.parametrize("whole", [0, 2, 4])
def test_a_zone_breaks_in_the_middle(operation: Operation, effect: Effect, whole: int) -> None:
    below, device = faulty(FaultRule(operation, effect, after=whole * BLOCK))
    data = blocks("abcd")
    below.write(0, data)

    def call() -> None:
        if operation is WRITE:
            device.write(at(SEQ), data)
        else:
            device.copy([CopyRange(0, at(SEQ), len(data))], HOST)

    if whole == 4:
        call()
    else:
        with pytest.raises(DeviceError) as raised:
            call()
        assert operation is WRITE or raised.value.completed == whole * BLOCK
    assert condition(below, SEQ) is (READONLY if effect is Effect.READONLY else OFFLINE)
    below.force_condition(SEQ, None)
    assert written(below, SEQ) == "abcd"[:whole]


def test_another_zone_can_be_the_target() -> None:
    below, device = faulty(FaultRule(COPY, Effect.OFFLINE, (SEQ, SEQ), after=BLOCK, target=0))
    below.write(0, blocks("abc"))
    with pytest.raises(DeviceError, match="zone 0: read of an offline zone") as raised:
        device.copy([CopyRange(0, at(SEQ), 3 * BLOCK)], HOST)
    assert raised.value.completed == BLOCK
    assert condition(below, 0) is OFFLINE
    assert written(below, SEQ) == "a"


@pytest.mark.parametrize(
    ("effect", "more", "before", "after"),
    [
        (Effect.EXTERNAL_WRITE, {"length": 2 * BLOCK + 1}, "a", "a--"),
        (Effect.EXTERNAL_WRITE, {"length": 1 << 40}, "a", "a" + "-" * 15),
        (Effect.EXTERNAL_WRITE, {"length": 1}, "a", "a"),
        (Effect.EXTERNAL_RESET, {}, "a", ""),
        (Effect.EXTERNAL_FINISH, {}, "a", "a" + "-" * 15),
    ],
)
def test_somebody_else_moves_the_write_pointer(effect: Effect, more: dict[str, Any], before: str, after: str) -> None:
    below, device = faulty(FaultRule(WRITE, effect, **more))
    below.write(at(SEQ), blocks(before))
    if before == after:
        device.write(at(SEQ, 1), blocks("z"))
        after += "z"
    else:
        with pytest.raises(DeviceError):
            device.write(at(SEQ, 1), blocks("z"))
    assert written(below, SEQ) == after


def test_a_write_pointer_moves_in_the_middle() -> None:
    below, device = faulty(FaultRule(WRITE, Effect.EXTERNAL_WRITE, after=BLOCK, length=BLOCK))
    with pytest.raises(DeviceError, match="write pointer"):
        device.write(at(SEQ), blocks("ab"))
    assert written(below, SEQ) == "a-"


def test_a_change_that_cannot_be_made_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    below, device = faulty(FaultRule(WRITE, Effect.EXTERNAL_RESET, (0, 0)))
    device.write(0, blocks("a"))
    assert below.read(0, BLOCK) == blocks("a")
    assert "zone 0: rule 1 (external-reset) came to nothing: zone 0: reset of a zone" in caplog.text


def test_a_delay_waits_and_says_that_it_may() -> None:
    waits: list[float] = []
    _, device = faulty(FaultRule(READ, Effect.DELAY, every=2, count=None, milliseconds=250), sleep=waits.append)
    assert device.info.waits
    for _ in range(5):
        assert not any(device.read(0, BLOCK))
    assert waits == [0.25] * 3
    assert not faulty()[1].info.waits
    assert faulty(waits=True)[1].info.waits
    assert FaultDevice(device).info.waits


def test_a_delay_in_the_middle_of_a_write() -> None:
    seen: list[str] = []
    below = CopyingDevice(GEOMETRY)
    rule = FaultRule(WRITE, Effect.DELAY, after=BLOCK, milliseconds=1)
    device = FaultDevice(below, [rule], sleep=lambda _: seen.append(written(below, SEQ)))
    device.write(at(SEQ), blocks("ab"))
    assert seen == ["a"]
    assert written(below, SEQ) == "ab"


# Several rules


def test_only_the_first_rule_decides_and_the_other_misses_its_turn() -> None:
    below, device = faulty(
        FaultRule(WRITE, Effect.FAIL, first=2, error="ENOSPC"),
        FaultRule(WRITE, Effect.FAIL, first=2, every=2),
        FaultRule(WRITE, Effect.READONLY, first=2, target=7),
    )
    results = []
    for number in range(5):
        try:
            device.write(0, blocks("a"))
            results.append("done")
        except DeviceError as exc:
            results.append(exc.errno_name)
        # It is there for the call that fails.
        assert (condition(below, 7) is READONLY) == (number >= 1)
    assert results == ["done", "ENOSPC", "done", "EIO", "done"]
    assert [status[2:] for status in device.rules] == [(5, 1), (5, 1), (5, 1)]


def test_a_rule_behind_a_failure_misses_its_turn() -> None:
    below, device = faulty(
        FaultRule(WRITE, Effect.OFFLINE, after=2 * BLOCK), FaultRule(WRITE, Effect.FAIL, after=BLOCK)
    )
    with pytest.raises(DeviceError, match="by rule 2"):
        device.write(at(SEQ), blocks("abc"))
    assert [status[2:] for status in device.rules] == [(1, 0), (1, 1)]
    assert condition(below, SEQ) is IMP_OPEN


def test_rules_strike_within_a_call_in_the_order_of_where() -> None:
    waits: list[float] = []
    below, device = faulty(
        FaultRule(WRITE, Effect.FAIL, after=2 * BLOCK),
        FaultRule(WRITE, Effect.DELAY, after=3 * BLOCK, milliseconds=3000),
        FaultRule(WRITE, Effect.DELAY, after=BLOCK, milliseconds=1000),
        FaultRule(WRITE, Effect.DELAY, milliseconds=2000),
        sleep=waits.append,
    )
    with pytest.raises(DeviceError):
        device.write(at(SEQ), blocks("abcd"))
    assert waits == [2.0, 1.0]
    assert written(below, SEQ) == "ab"


def test_rules_come_and_go_at_run_time() -> None:
    _, device = faulty(FaultRule(READ, Effect.FAIL, first=10))
    rule = FaultRule(WRITE, Effect.FAIL, (SEQ, SEQ))
    number = device.add_rule(rule)
    assert number == 2
    assert device.rules == [(1, FaultRule(READ, Effect.FAIL, first=10), 0, 0), (2, rule, 0, 0)]
    with pytest.raises(DeviceError, match="rule 2"):
        device.write(at(SEQ), blocks("a"))
    assert device.remove_rule(2) == (2, rule, 1, 1)
    with pytest.raises(UserError, match="there is no rule 2"):
        device.remove_rule(2)
    assert device.add_rule(rule) == 3
    for _ in range(3):
        device.read(0, BLOCK)
    assert [status[2:] for status in device.rules] == [(3, 0), (0, 0)]
    with pytest.raises(UserError, match="zone 8: the device has zones 0 to 7"):
        device.add_rule(FaultRule(WRITE, Effect.FAIL, (0, 8)))
    with pytest.raises(UserError, match="must be there when the device is opened"):
        device.add_rule(FaultRule(WRITE, Effect.DELAY, milliseconds=1))
    with pytest.raises(UserError, match='rule 2: "target" has a zone 9'):
        faulty(rule, FaultRule(WRITE, Effect.OFFLINE, target=9))


def test_counting_is_exact_with_many_threads() -> None:
    _, device = faulty(FaultRule(READ, Effect.FAIL, first=5, every=3, count=40))
    failed = []

    def read() -> None:
        for _ in range(100):
            try:
                device.read(0, BLOCK)
            except DeviceError:
                failed.append(1)
            number = device.add_rule(FaultRule(WRITE, Effect.FAIL))
            device.remove_rule(number)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 40
    assert [status[2:] for status in device.rules] == [(400, 40)]


# What stays as it is


def test_bugs_of_the_caller_are_not_faults() -> None:
    _, device = faulty(*(FaultRule(operation, Effect.FAIL, count=None) for operation in (READ, WRITE, COPY)))
    for offset, length in ((1, BLOCK), (0, 5), (0, 0), (-BLOCK, BLOCK), (GEOMETRY.size, BLOCK)):
        with pytest.raises(ValueError, match="block"):
            device.read(offset, length)
        with pytest.raises(ValueError, match="block"):
            device.write(offset, bytes(length))
    with pytest.raises(ValueError, match="by reflink"):
        FaultDevice(MemoryDevice(GEOMETRY)).copy([CopyRange(0, ZONE, BLOCK)], CopyMethod.REFLINK)
    assert [status.matched for status in device.rules] == [0, 0, 0]


def test_what_the_device_below_refuses_is_refused_whole() -> None:
    delay = FaultRule(ANY, Effect.DELAY, count=None, milliseconds=1)
    cuts = [FaultRule(one, Effect.DELAY, count=None, milliseconds=1, after=BLOCK) for one in (WRITE, COPY)]
    below = CopyingDevice(Geometry(ZONE, ZONE - BLOCK, 8, 2, BLOCK, ZONE))
    device = FaultDevice(below, [delay, *cuts], sleep=lambda _: None)
    below.write(at(SEQ), bytes(ZONE - 3 * BLOCK))
    before = below.report_zones()
    with pytest.raises(DeviceError, match="crosses the zone capacity"):
        device.write(at(SEQ, 13), blocks("abc"))
    with pytest.raises(ValueError, match="cross a zone boundary"):
        device.write(at(1, 15), blocks("ab"))
    assert below.report_zones() == before
    assert not any(below.read(at(1), ZONE))
    with pytest.raises(DeviceError):
        device.copy([CopyRange(0, at(SEQ, 13), 3 * BLOCK)], HOST)
    assert below.copies == [(0, at(SEQ, 13), 3 * BLOCK, HOST)]


def test_copies_pass_through_with_their_generation() -> None:
    linear = LinearDevice([Slice(CopyingDevice(GEOMETRY)), Slice(CopyingDevice(GEOMETRY))])
    device = FaultDevice(linear, [FaultRule(COPY, Effect.DROP, count=None)])
    assert device.info.copy_methods == (HOST,)
    assert device.can_copy([CopyRange(0, at(SEQ), BLOCK)], HOST)
    assert not device.can_copy([CopyRange(0, at(8 + SEQ), BLOCK)], HOST)
    with pytest.raises(ValueError, match="not in one part"):
        device.copy([CopyRange(0, at(8 + SEQ), BLOCK)], HOST)
    planned = device.generation
    linear.replace_table(linear.slices)
    assert device.generation == planned + 1
    with pytest.raises(TableChanged):
        device.copy([CopyRange(0, at(SEQ), BLOCK)], HOST, planned)
    device.copy([CopyRange(0, at(SEQ), BLOCK)], HOST, device.generation)
    device.remove_rule(1)
    with pytest.raises(TableChanged):
        device.copy([CopyRange(0, at(SEQ), BLOCK)], HOST, planned)


call_strategy = st.tuples(st.sampled_from(["write", "read", "reset", "finish"]), st.integers(SEQ, 4), st.integers(1, 4))


@given(
    st.lists(
        st.builds(
            FaultRule,
            st.just(WRITE),
            st.sampled_from([Effect.FAIL, Effect.SHORT]),
            st.none() | st.just((SEQ, SEQ + 1)),
            first=st.integers(1, 4),
            every=st.integers(1, 3),
            count=st.none() | st.integers(1, 3),
            after=st.integers(0, 4 * BLOCK),
        ),
        max_size=3,
    ),
    st.lists(call_strategy, max_size=15),
)
def test_the_same_calls_meet_the_same_faults_and_never_lose_the_prefix(
    rules: list[FaultRule], calls: list[tuple[str, int, int]]
) -> None:
    def run() -> list[object]:
        device = FaultDevice(MemoryDevice(GEOMETRY), rules)
        history: list[object] = []
        for number, (name, zone, count) in enumerate(calls):
            entry = device.report_zones(zone, 1)[0]
            data = bytes([number + 1]) * (count * BLOCK)
            try:
                if name == "write":
                    device.write(entry.wp, data)
                elif name == "read":
                    device.read(entry.start, count * BLOCK)
                else:
                    device.zone_mgmt(ZoneOp.RESET if name == "reset" else ZoneOp.FINISH, zone)
                history.append("done")
            except (DeviceError, ValueError) as exc:
                history.append(str(exc))
            if name == "write" and entry.condition is not FULL:
                now = device.report_zones(zone, 1)[0]
                moved = (now.data_size or 0) - (entry.data_size or 0)
                assert 0 <= moved <= len(data)
                assert device.read(entry.start, ZONE)[entry.wp - entry.start :][:moved] == data[:moved]
                if history[-1] == "done":
                    assert moved == len(data)
        return [*history, device.report_zones(), device.rules]

    assert run() == run()


# A file system on it: the errors= policies by real faults


def mounted(policy: ErrorsPolicy, *rules: FaultRule) -> tuple[FaultDevice, Filesystem]:
    below = MemoryDevice(GEOMETRY)
    format_device(below, FormatOptions())
    device = FaultDevice(below)
    filesystem = Filesystem(device, MountOptions(errors=policy))
    for rule in rules:
        device.add_rule(rule)
    return device, filesystem


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except ZonefsError as exc:
        return exc.errno_name
    return "done"


WRITE_FAILS = FaultRule(WRITE, Effect.FAIL, (SEQ, SEQ), first=2, after=BLOCK)
GOES_READONLY = FaultRule(WRITE, Effect.READONLY, (SEQ, SEQ), first=2, after=BLOCK)
GOES_OFFLINE = FaultRule(WRITE, Effect.OFFLINE, (SEQ, SEQ), first=2, after=BLOCK)
RO, ZRO, ZOFF, REPAIR = (
    ErrorsPolicy.REMOUNT_RO,
    ErrorsPolicy.ZONE_RO,
    ErrorsPolicy.ZONE_OFFLINE,
    ErrorsPolicy.REPAIR,
)


@pytest.mark.parametrize(
    ("policy", "rule", "size", "permissions", "read_only"),
    [
        # The table of Documentation/filesystems/zonefs.rst: size (in blocks) and permissions after a write of two
        # blocks behind one, of which one more reached the zone.
        (RO, WRITE_FAILS, 1, 0o640, True),
        (ZRO, WRITE_FAILS, 1, 0o440, False),
        (ZOFF, WRITE_FAILS, 0, 0, False),
        (REPAIR, WRITE_FAILS, 2, 0o640, False),
        (RO, GOES_READONLY, 1, 0o440, True),
        (ZRO, GOES_READONLY, 1, 0o440, False),
        (ZOFF, GOES_READONLY, 0, 0, False),
        (REPAIR, GOES_READONLY, 1, 0o440, False),
        (RO, GOES_OFFLINE, 0, 0, True),
        (ZRO, GOES_OFFLINE, 0, 0, False),
        (ZOFF, GOES_OFFLINE, 0, 0, False),
        (REPAIR, GOES_OFFLINE, 0, 0, False),
    ],
)
def test_errors_policies(policy: ErrorsPolicy, rule: FaultRule, size: int, permissions: int, read_only: bool) -> None:
    device, fs = mounted(policy, rule)
    handle = fs.open("seq/0", 1)
    fs.write(handle, 0, blocks("a"), direct=True)
    with pytest.raises(DeviceError):
        fs.write(handle, BLOCK, blocks("bc"), direct=True)
    attributes = fs.getattr(fs.resolve("seq/0"))
    assert (attributes.size, attributes.mode & 0o777) == (size * BLOCK, permissions)
    assert fs.read_only == read_only
    # Other files go on, unless all are read-only.
    other = outcome(lambda: fs.open("seq/1", 1))
    assert other == ("EROFS" if read_only else "done")
    again = outcome(lambda: fs.write(handle, size * BLOCK, blocks("z"), direct=True))
    assert again == ("done" if permissions & 0o200 and not read_only else again)
    assert again in ("done", ReadOnlyFilesystem("").errno_name, NotPermitted("").errno_name, "EIO")
    assert [status.fired for status in device.rules] == [1]
    fs.close()


def test_a_lost_report_makes_the_mount_read_only() -> None:
    _, fs = mounted(REPAIR, FaultRule(WRITE, Effect.FAIL), FaultRule(REPORT, Effect.FAIL))
    handle = fs.open("seq/0", 1)
    with pytest.raises(DeviceError):
        fs.write(handle, 0, blocks("a"), direct=True)
    assert fs.read_only
    fs.close()


def test_repair_finds_what_somebody_else_wrote() -> None:
    _, fs = mounted(REPAIR, FaultRule(WRITE, Effect.EXTERNAL_WRITE, length=3 * BLOCK))
    handle = fs.open("seq/0", 2)
    with pytest.raises(DeviceError):
        fs.write(handle, 0, blocks("a"), direct=True)
    assert fs.getattr(fs.resolve("seq/0")).size == 3 * BLOCK
    fs.write(handle, 3 * BLOCK, blocks("b"), direct=True)
    assert fs.read(handle, 0, ZONE) == blocks("\0\0\0b")
    fs.close()


def test_a_failed_truncation_leaves_the_file_as_it_is() -> None:
    _, fs = mounted(RO, FaultRule(Operation.RESET, Effect.FAIL))
    handle = fs.open("seq/0", 1)
    fs.write(handle, 0, blocks("a"), direct=True)
    with pytest.raises(DeviceError):
        fs.truncate("seq/0", 0)
    assert not fs.read_only
    assert fs.getattr(fs.resolve("seq/0")).size == BLOCK
    fs.truncate("seq/0", 0)
    assert fs.getattr(fs.resolve("seq/0")).size == 0
    fs.close()


def test_a_failed_flush_is_an_error_of_fsync() -> None:
    _, fs = mounted(ZRO, FaultRule(FLUSH, Effect.FAIL, (SEQ, SEQ)))
    handle = fs.open("seq/0", 1)
    fs.write(handle, 0, blocks("a"), direct=True)
    with pytest.raises(DeviceError):
        fs.fsync(handle)
    assert fs.getattr(fs.resolve("seq/0")).mode & 0o222 == 0
    fs.close()

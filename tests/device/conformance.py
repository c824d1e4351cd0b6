"""What every `ZonedDevice` must do, as a test class: inherit from it and give it a ``make`` fixture.

The expected conditions and limits are written down here once more, from null_blk and the zonefs documents; nothing is
taken from `zonefs_py.device.conditions`.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import pytest

from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import ActiveZonesExhausted, DeviceError, OpenZonesExhausted, UserError
from zonefs_py.units import round_down
from zonefs_py.zone import Geometry, Zone, ZoneCondition, ZoneOp

KIB = 1024

NOT_WP, EMPTY, IMP_OPEN = ZoneCondition.NOT_WP, ZoneCondition.EMPTY, ZoneCondition.IMP_OPEN
EXP_OPEN, CLOSED, FULL = ZoneCondition.EXP_OPEN, ZoneCondition.CLOSED, ZoneCondition.FULL
READONLY, OFFLINE = ZoneCondition.READONLY, ZoneCondition.OFFLINE
RESET, OPEN, CLOSE, FINISH = ZoneOp.RESET, ZoneOp.OPEN, ZoneOp.CLOSE, ZoneOp.FINISH


def geometry(
    *,
    zones: int = 8,
    conventional: int = 0,
    zone_size: int = 64 * KIB,
    capacity: int | None = None,
    block: int = 4096,
    last: int | None = None,
) -> Geometry:
    """A geometry, of eight zones of 64 KiB unless told otherwise."""
    return Geometry(zone_size, capacity or zone_size, zones, conventional, block, last or zone_size)


GEOMETRIES = {
    "no-conventional": geometry(),
    "one-conventional": geometry(conventional=1),
    "several-conventional": geometry(conventional=3),
    "all-conventional": geometry(zones=3, conventional=3),
    "capacity-below-size": geometry(conventional=2, capacity=40 * KIB),
    "smaller-last-zone": geometry(conventional=1, capacity=40 * KIB, last=12 * KIB),
    "blocks-of-512": geometry(conventional=2, capacity=33 * 512, zone_size=20 * KIB, block=512, last=512),
}

SEQUENTIAL = geometry(conventional=2, capacity=48 * KIB)
"""For tests that are about conditions: zones 2 to 7 are sequential, twelve blocks each."""

BLOCK = SEQUENTIAL.block_size

Transitions = dict[tuple[ZoneCondition, bool], dict[ZoneOp, ZoneCondition]]


class BreakableDevice(Protocol):
    """What the tests of failed zones need, beside the device's own interface."""

    def force_condition(self, number: int, condition: ZoneCondition | None) -> None:
        """Make a zone fail; None: back to normal."""


Make = Callable[..., ZonedDevice]
"""``make(geometry, max_open=None, max_active=None)`` returns a new device, all zones of which are empty."""


def pattern(offset: int, length: int) -> bytes:
    """*length* bytes that differ by where they are: each eight of them hold their offset."""
    assert offset % 8 == length % 8 == 0
    numbers = array("Q", range(offset + 1, offset + length + 1, 8))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def zone_of(device: ZonedDevice, number: int) -> Zone:
    """The report of one zone."""
    (zone,) = device.report_zones(number, 1)
    return zone


def write_blocks(device: ZonedDevice, number: int, blocks: int = 1) -> None:
    """Write *blocks* blocks at the write pointer of a zone."""
    wp = zone_of(device, number).wp
    device.write(wp, pattern(wp, blocks * device.info.block_size))


def conditions(device: ZonedDevice) -> list[ZoneCondition]:
    """The conditions of the sequential zones of a device."""
    return [zone.condition for zone in device.report_zones() if not zone.is_conventional]


def bring(device: ZonedDevice, number: int, condition: ZoneCondition, *, written: bool) -> None:
    """Bring an empty zone into *condition*, with a block written or none."""
    if written:
        write_blocks(device, number)
    if condition is EXP_OPEN:
        device.zone_mgmt(OPEN, number)
    elif condition is CLOSED:
        device.zone_mgmt(CLOSE, number)
    elif condition is FULL:
        device.zone_mgmt(FINISH, number)
    elif condition in (READONLY, OFFLINE):
        try:
            device.force_condition(number, condition)
        except UserError as exc:
            pytest.skip(str(exc))
    assert zone_of(device, number).condition is condition


STATES = [
    (EMPTY, False),
    (IMP_OPEN, True),
    (EXP_OPEN, False),
    (EXP_OPEN, True),
    (CLOSED, True),
    (FULL, False),
    (FULL, True),
    (READONLY, False),
    (READONLY, True),
    (OFFLINE, False),
    (OFFLINE, True),
]
"""Conditions of a zone, and whether a block of it is written."""

ALLOWED: Transitions = {
    (EMPTY, False): {RESET: EMPTY, OPEN: EXP_OPEN, FINISH: FULL},
    (IMP_OPEN, True): {RESET: EMPTY, OPEN: EXP_OPEN, CLOSE: CLOSED, FINISH: FULL},
    (EXP_OPEN, False): {RESET: EMPTY, OPEN: EXP_OPEN, CLOSE: EMPTY, FINISH: FULL},
    (EXP_OPEN, True): {RESET: EMPTY, OPEN: EXP_OPEN, CLOSE: CLOSED, FINISH: FULL},
    (CLOSED, True): {RESET: EMPTY, OPEN: EXP_OPEN, CLOSE: CLOSED, FINISH: FULL},
    (FULL, False): {RESET: EMPTY, FINISH: FULL},
    (FULL, True): {RESET: EMPTY, FINISH: FULL},
}
"""What each operation makes of each state; what is not here is refused."""


def state_name(state: tuple[ZoneCondition, bool]) -> str:
    """The id of a test about *state*."""
    return f"{state[0].name.lower()}-{'written' if state[1] else 'unwritten'}"


@pytest.fixture(params=list(GEOMETRIES.values()), ids=list(GEOMETRIES))
def shape(request: pytest.FixtureRequest) -> Geometry:
    """Each of the geometries. Import it beside the class."""
    assert isinstance(request.param, Geometry)
    return request.param


class ZonedDeviceConformance:
    """The contract of `ZonedDevice`. A subclass has a fixture ``make`` (see `Make`) that closes what it made.

    A device that cannot have any geometry has a `sequential` of its own, and a fixture ``shape``.
    """

    sequential: ClassVar[Geometry] = SEQUENTIAL
    conventional: ClassVar[Geometry] = geometry(conventional=3)
    """For tests that are about conditions: eight zones, at least six of them sequential."""

    allowed: ClassVar[Transitions] = ALLOWED

    unwritten: ClassVar[bytes] = b"\0"
    """What each byte behind the write pointer of a sequential zone reads as."""

    @property
    def first(self) -> int:
        """The first sequential zone of `sequential`."""
        return self.sequential.nr_conventional

    @property
    def block(self) -> int:
        """The block size of `sequential`."""
        return self.sequential.block_size

    @property
    def capacity(self) -> int:
        """The capacity of its sequential zones."""
        return self.sequential.zone_capacity

    @property
    def blocks(self) -> int:
        """How many blocks that is."""
        return self.capacity // self.block

    # Reports

    def test_a_report_describes_the_geometry(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        zones = device.report_zones()
        assert [zone.number for zone in zones] == list(range(shape.nr_zones))
        end = 0
        for zone in zones:
            assert zone.start == end
            end = zone.start + zone.size
            assert zone.is_conventional == (zone.number < shape.nr_conventional)
            if zone.is_conventional:
                assert zone.condition is NOT_WP
                assert zone.capacity == zone.size
            else:
                assert zone.condition is EMPTY
                assert zone.wp == zone.start
                assert zone.capacity == min(zone.size, shape.zone_capacity)
        assert end == shape.size == device.info.size
        assert zones[-1].size == shape.last_zone_size
        assert device.info.nr_zones == shape.nr_zones
        assert device.info.block_size == shape.block_size
        assert device.info.zone_size == shape.zone_size
        assert not device.info.read_only

    def test_a_report_can_be_of_some_zones(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        zones = device.report_zones()
        for start in range(shape.nr_zones):
            assert device.report_zones(start) == zones[start:]
            assert device.report_zones(start, 1) == zones[start : start + 1]
            assert device.report_zones(start, 2) == zones[start : start + 2]
            assert device.report_zones(start, 0) == []
        assert device.report_zones(1, 10_000) == zones[1:]

    def test_a_zone_goes_out_to_a_file_or_not_at_all(self, make: Make, shape: Geometry, tmp_path: Path) -> None:
        device = make(shape)
        for zone in device.report_zones():
            device.write(zone.start, pattern(zone.start, device.info.block_size))
            length = zone.capacity if zone.is_conventional else device.info.block_size
            done: list[int] = []
            with (tmp_path / f"zone{zone.number}").open("w+b") as file:
                if device.copy_out(zone.number, length, file.fileno(), done.append):
                    assert file.read().ljust(length, b"\0") == device.read(zone.start, length)
                    assert done == sorted(done)
                    assert done[-1] <= length
                else:
                    assert not any(file.read())

    def test_reports_are_fresh_values(self, make: Make) -> None:
        device = make(self.sequential)
        before = device.report_zones()
        kept = list(before)
        write_blocks(device, self.first)
        assert before == kept
        before.clear()
        assert device.report_zones()[self.first].wp == kept[self.first].wp + self.block
        assert len(device.report_zones()) == self.sequential.nr_zones

    def test_the_info_does_not_change(self, make: Make) -> None:
        device = make(self.sequential, max_open=3, max_active=4)
        before = device.info
        assert (before.max_open_zones, before.max_active_zones) == (3, 4)
        write_blocks(device, self.first)
        device.zone_mgmt(FINISH, self.first)
        assert device.info == before
        assert (make(self.sequential).info.max_open_zones, make(self.sequential).info.max_active_zones) == (None, None)

    # Data

    def test_what_was_never_written_reads_as_zeros(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        for zone in device.report_zones():
            assert device.read(zone.start, zone.size) == (b"\0" if zone.is_conventional else self.unwritten) * zone.size

    def test_sequential_zones_return_what_was_written(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        block = shape.block_size
        for zone in device.report_zones()[shape.nr_conventional :]:
            offset = zone.start
            sizes = [block, 2 * block, 5 * block, max(5 * block, round_down(zone.capacity // 3, block))]
            while offset < zone.start + zone.capacity:
                length = min(sizes[0], zone.start + zone.capacity - offset)
                sizes = sizes[1:] or sizes
                device.write(offset, pattern(offset, length))
                offset += length
                now = zone_of(device, zone.number)
                full = offset == zone.start + zone.capacity
                assert now.condition is (FULL if full else IMP_OPEN)
                assert now.data_size == offset - zone.start
                if not full:
                    assert now.wp == offset
            expected = pattern(zone.start, zone.capacity) + self.unwritten * (zone.size - zone.capacity)
            assert device.read(zone.start, zone.size) == expected
            assert device.read(zone.start + zone.capacity - block, block) == expected[zone.capacity - block :][:block]

    def test_conventional_zones_take_writes_anywhere(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        block = shape.block_size
        for zone in device.report_zones()[: shape.nr_conventional]:
            last = zone.start + zone.size - block
            device.write(last, pattern(last, block))
            device.write(zone.start, bytes(block))
            device.write(zone.start, pattern(zone.start, block))
            assert device.read(zone.start, zone.size) == (
                pattern(zone.start, block) + bytes(zone.size - 2 * block) + pattern(last, block)
            )
            assert zone_of(device, zone.number) == zone

    def test_single_bytes_of_conventional_zones_can_be_written(self, make: Make) -> None:
        shape = self.conventional
        device = make(shape)
        end = 3 * shape.zone_size
        model = bytearray(end)
        block = shape.block_size
        for offset, length in (
            (0, 1),
            (5, block),
            (block - 1, 2),
            (shape.zone_size - 3, 7),
            (2 * block, block),
            (shape.zone_size + 1, shape.zone_size),
            (end - 1, 1),
        ):
            data = bytes((offset + more) % 251 + 1 for more in range(length))
            device.write_bytes(offset, memoryview(data))
            model[offset : offset + length] = data
        assert device.read(0, end) == model

    def test_neighbouring_conventional_zones_are_one_for_data(self, make: Make) -> None:
        device = make(replace(self.sequential, nr_conventional=3))
        size = 3 * self.sequential.zone_size
        device.write(0, pattern(0, size))
        assert device.read(0, size) == pattern(0, size)
        start = self.sequential.zone_size - self.block
        device.write(start, bytes(2 * self.block))
        assert device.read(start - self.block, 4 * self.block) == (
            pattern(start - self.block, self.block)
            + bytes(2 * self.block)
            + pattern(start + 2 * self.block, self.block)
        )

    def test_sequential_zones_are_never_crossed(self, make: Make) -> None:
        device = make(replace(self.sequential, nr_conventional=min(1, self.first)))
        size, block = self.sequential.zone_size, self.block
        for offset, length in (
            (size - block, 2 * block),
            (size, size + block),
            (2 * size - block, 2 * block),
            (0, 2 * size),
        ):
            with pytest.raises(ValueError, match="cross"):
                device.write(offset, bytes(length))
            with pytest.raises(ValueError, match="cross"):
                device.read(offset, length)
        assert set(conditions(device)) == {EMPTY}
        assert device.read(0, size) == bytes(size)

    def test_violations_of_alignment_and_range_are_bugs(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        block = shape.block_size
        before = device.report_zones()
        for offset, length in (
            (1, block),
            (block // 2, block),
            (0, block // 2),
            (0, block + 1),
            (0, 0),
            (-block, block),
            (0, -block),
            (shape.size, block),
            (shape.size - block, 2 * block),
        ):
            with pytest.raises(ValueError, match="block"):
                device.read(offset, length)
            if length >= 0:
                with pytest.raises(ValueError, match="block"):
                    device.write(offset, bytes(length))
        for number in (-1, shape.nr_zones):
            for op in ZoneOp:
                with pytest.raises(ValueError, match="zone"):
                    device.zone_mgmt(op, number)
        assert device.report_zones() == before

    def test_reads_without_waiting_give_what_reads_give_or_nothing(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        number = shape.nr_conventional % shape.nr_zones
        start = zone_of(device, number).start
        device.write(start, pattern(start, 3 * shape.block_size))
        # Never written: the end of what is stored lies in the middle.
        length = 4 * shape.block_size
        buffer = bytearray(b"x" * length)
        if device.read_into_now(start, memoryview(buffer)):
            assert buffer == device.read(start, length)
        else:
            device.read(start, length)
            assert device.read_into_now(start, memoryview(buffer)), "what was just read must be at hand"
            assert buffer == device.read(start, length)

    def test_an_offline_zone_is_not_read_without_waiting(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        number = shape.nr_conventional % shape.nr_zones
        start = zone_of(device, number).start
        device.write(start, pattern(start, shape.block_size))
        try:
            device.force_condition(number, ZoneCondition.OFFLINE)
        except UserError as exc:
            pytest.skip(str(exc))
        with pytest.raises(DeviceError):
            device.read_into_now(start, memoryview(bytearray(shape.block_size)))

    def test_any_bytes_like_object_is_written_and_not_kept(self, make: Make) -> None:
        device = make(self.sequential)
        start = zone_of(device, self.first).start
        expected = pattern(0, 3 * self.block)
        changing = bytearray(expected[self.block : 2 * self.block])
        device.write(start, expected[: self.block])
        device.write(start + self.block, changing)
        device.write(start + 2 * self.block, memoryview(expected)[2 * self.block :])
        changing[:] = bytes(self.block)
        assert device.read(start, 3 * self.block) == expected
        assert isinstance(device.read(start, self.block), bytes)

    # Writes that are refused

    def assert_write_refused(self, device: ZonedDevice, offset: int, length: int) -> None:
        """The write is a device error, and changes nothing."""
        before = device.report_zones()
        zone = before[offset // device.info.zone_size]
        readable = zone.condition is not OFFLINE
        data = device.read(zone.start, zone.size) if readable else b""
        with pytest.raises(DeviceError):
            device.write(offset, b"\xff" * length)
        assert device.report_zones() == before
        if readable:
            assert device.read(zone.start, zone.size) == data

    @pytest.mark.parametrize("blocks", [-2, -1, 1, 5])
    def test_writes_off_the_write_pointer_are_refused(self, make: Make, blocks: int) -> None:
        device = make(self.sequential)
        write_blocks(device, self.first, 2)
        wp = zone_of(device, self.first).wp
        self.assert_write_refused(device, wp + blocks * self.block, self.block)
        self.assert_write_refused(device, wp + blocks * self.block, 3 * self.block)
        write_blocks(device, self.first)
        self.assert_write_refused(device, zone_of(device, self.first + 1).start + self.block, self.block)

    def test_writes_across_the_capacity_are_refused(self, make: Make) -> None:
        device = make(self.sequential)
        write_blocks(device, self.first, self.blocks - 2)
        wp = zone_of(device, self.first).wp
        self.assert_write_refused(device, wp, 3 * self.block)
        self.assert_write_refused(device, zone_of(device, self.first).start + self.capacity, self.block)
        device.write(wp, bytes(2 * self.block))
        assert zone_of(device, self.first).condition is FULL
        self.assert_write_refused(device, zone_of(device, self.first).start + self.capacity, self.block)

    @pytest.mark.parametrize("condition", [FULL, READONLY, OFFLINE])
    @pytest.mark.parametrize("written", [True, False])
    def test_writes_to_zones_that_take_none_are_refused(
        self, make: Make, condition: ZoneCondition, written: bool
    ) -> None:
        device = make(self.sequential)
        bring(device, self.first, condition, written=written)
        start = zone_of(device, self.first).start
        for offset in range(start, start + 3 * self.block, self.block):
            self.assert_write_refused(device, offset, self.block)

    @pytest.mark.parametrize("condition", [READONLY, OFFLINE])
    def test_conventional_zones_can_fail_too(self, make: Make, condition: ZoneCondition) -> None:
        device = make(self.sequential)
        data = pattern(0, self.block)
        device.write(self.sequential.zone_size, data)
        bring(device, 1, condition, written=False)
        self.assert_write_refused(device, self.sequential.zone_size, self.block)
        if condition is READONLY:
            assert device.read(self.sequential.zone_size, self.block) == data
        else:
            with pytest.raises(DeviceError):
                device.read(self.sequential.zone_size, self.block)
        device.write(0, data)
        assert device.read(0, self.block) == data

    def test_read_only_zones_are_read_and_offline_ones_not(self, make: Make) -> None:
        device = make(self.sequential)
        for number, condition in ((self.first, READONLY), (self.first + 1, OFFLINE)):
            bring(device, number, condition, written=True)
        start = zone_of(device, self.first).start
        assert device.read(start, self.block) == pattern(start, self.block)
        with pytest.raises(DeviceError):
            device.read(start + self.sequential.zone_size, self.block)

    # Management

    @pytest.mark.parametrize("op", ZoneOp, ids=lambda op: op.name.lower())
    @pytest.mark.parametrize("state", STATES, ids=state_name)
    def test_transitions(self, make: Make, state: tuple[ZoneCondition, bool], op: ZoneOp) -> None:
        device = make(self.sequential)
        condition, written = state
        bring(device, self.first, condition, written=written)
        before = device.report_zones()
        start = before[self.first].start
        data = pattern(start, self.block) if written else b""
        after = self.allowed.get(state, {}).get(op)
        if after is None:
            with pytest.raises(DeviceError):
                device.zone_mgmt(op, self.first)
            assert device.report_zones() == before
            return
        device.zone_mgmt(op, self.first)
        zone = zone_of(device, self.first)
        assert zone.condition is after
        assert device.report_zones()[: self.first] == before[: self.first]
        assert device.report_zones()[self.first + 1 :] == before[self.first + 1 :]
        if after is EMPTY:
            assert zone.wp == start
            data = b""
        else:
            assert zone.data_size == (self.capacity if after is FULL else len(data))
        # What a finish passes over is as if zeros had been written there.
        filler = b"\0" if after is FULL else self.unwritten
        size = self.sequential.zone_size
        assert device.read(start, size) == data + filler * (size - len(data))

    @pytest.mark.parametrize("op", ZoneOp, ids=lambda op: op.name.lower())
    def test_conventional_zones_have_no_operations(self, make: Make, op: ZoneOp) -> None:
        device = make(self.sequential)
        device.write(0, pattern(0, self.block))
        before = device.report_zones()
        with pytest.raises(DeviceError):
            device.zone_mgmt(op, 0)
        assert device.report_zones() == before
        assert device.read(0, self.block) == pattern(0, self.block)

    def test_a_reset_zone_is_as_new(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        block = shape.block_size
        for zone in device.report_zones()[shape.nr_conventional :]:
            for _ in range(2):
                device.write(zone.start, pattern(zone.start, zone.capacity))
                assert zone_of(device, zone.number).condition is FULL
                device.zone_mgmt(RESET, zone.number)
                assert zone_of(device, zone.number) == zone
            device.write(zone.start, b"\x11" * block)
            assert device.read(zone.start, zone.size) == b"\x11" * block + self.unwritten * (zone.size - block)

    def test_a_finished_zone_ends_in_zeros(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        block = shape.block_size
        for zone in device.report_zones()[shape.nr_conventional :]:
            device.write(zone.start, pattern(zone.start, block))
            device.zone_mgmt(FINISH, zone.number)
            finished = zone_of(device, zone.number)
            assert finished.condition is FULL
            assert finished.data_size == zone.capacity
            assert device.read(zone.start, zone.size) == pattern(zone.start, block) + bytes(zone.size - block)

    # Open and active zones

    def test_an_open_limit_is_met_by_closing_implicitly_open_zones_in_turn(self, make: Make) -> None:
        device = make(self.sequential, max_open=2)
        a, b, c, d = range(self.first, self.first + 4)

        def open_zones() -> list[int]:
            return [zone.number for zone in device.report_zones() if zone.condition is IMP_OPEN]

        write_blocks(device, c)
        write_blocks(device, b)
        assert open_zones() == [b, c]
        # From the first sequential zone on: b, although c has been open for longer.
        write_blocks(device, d)
        assert open_zones() == [c, d]
        # On behind b: c.
        write_blocks(device, a)
        assert open_zones() == [a, d]
        write_blocks(device, b)
        assert open_zones() == [a, b]
        # Behind d nothing is open: from the start again.
        write_blocks(device, c)
        assert open_zones() == [b, c]
        assert [zone_of(device, number).condition for number in (a, d)] == [CLOSED, CLOSED]

    def test_explicitly_open_zones_are_not_closed_for_others(self, make: Make) -> None:
        device = make(self.sequential, max_open=2)
        a, b, c, d = range(self.first, self.first + 4)
        write_blocks(device, c)
        device.zone_mgmt(CLOSE, c)
        device.zone_mgmt(OPEN, a)
        write_blocks(device, b)
        device.zone_mgmt(OPEN, b)
        before = device.report_zones()
        for number in (c, d):
            for call in (
                partial(write_blocks, device, number),
                partial(device.zone_mgmt, OPEN, number),
                partial(device.zone_mgmt, FINISH, number),
            ):
                with pytest.raises(OpenZonesExhausted):
                    call()
                assert device.report_zones() == before
        # An explicitly open zone can be written, opened again and filled.
        device.zone_mgmt(OPEN, a)
        write_blocks(device, a)
        assert zone_of(device, a).condition is EXP_OPEN
        device.zone_mgmt(FINISH, a)
        write_blocks(device, d)
        assert conditions(device)[:4] == [FULL, EXP_OPEN, CLOSED, IMP_OPEN]

    def test_an_explicit_open_can_close_an_implicitly_open_zone(self, make: Make) -> None:
        device = make(self.sequential, max_open=1)
        write_blocks(device, self.first)
        device.zone_mgmt(OPEN, self.first + 1)
        assert conditions(device)[:2] == [CLOSED, EXP_OPEN]

    def test_an_active_limit_is_never_exceeded(self, make: Make) -> None:
        device = make(self.sequential, max_active=2)
        a, b, c = range(self.first, self.first + 3)
        write_blocks(device, a)
        write_blocks(device, b)
        device.zone_mgmt(CLOSE, b)
        before = device.report_zones()
        for call in (
            partial(write_blocks, device, c),
            partial(device.zone_mgmt, OPEN, c),
            partial(device.zone_mgmt, FINISH, c),
        ):
            with pytest.raises(ActiveZonesExhausted):
                call()
            assert device.report_zones() == before
        # Zones that are active already go on.
        write_blocks(device, b)
        device.zone_mgmt(OPEN, a)
        write_blocks(device, a)

    def test_active_zones_are_checked_before_open_ones(self, make: Make) -> None:
        device = make(self.sequential, max_open=2, max_active=2)
        a, b, c = range(self.first, self.first + 3)
        device.zone_mgmt(OPEN, a)
        device.zone_mgmt(OPEN, b)
        with pytest.raises(ActiveZonesExhausted):
            device.zone_mgmt(OPEN, c)
        with pytest.raises(ActiveZonesExhausted):
            write_blocks(device, c)

    def test_a_closed_zone_finds_no_room_when_all_active_zones_are_used(self, make: Make) -> None:
        # null_blk closes an implicitly open zone for another one only while the active limit has room.
        device = make(self.sequential, max_open=1, max_active=2)
        a, b = self.first, self.first + 1
        write_blocks(device, a)
        write_blocks(device, b)
        assert conditions(device)[:2] == [CLOSED, IMP_OPEN]
        before = device.report_zones()
        with pytest.raises(OpenZonesExhausted):
            write_blocks(device, a)
        assert device.report_zones() == before
        device.zone_mgmt(CLOSE, b)
        write_blocks(device, a)
        assert conditions(device)[:2] == [IMP_OPEN, CLOSED]

    @pytest.mark.parametrize("free", ["reset", "finish", "fill", "close-unwritten"])
    def test_resources_come_back(self, make: Make, free: str) -> None:
        device = make(self.sequential, max_open=2, max_active=2)
        held, other = self.first + 5, self.first + 4
        device.zone_mgmt(OPEN, held)
        for number in range(self.first, self.first + 4):
            device.zone_mgmt(OPEN, number)
            with pytest.raises(ActiveZonesExhausted):
                device.zone_mgmt(OPEN, other)
            if free == "close-unwritten":
                device.zone_mgmt(CLOSE, number)
                assert zone_of(device, number).condition is EMPTY
                continue
            write_blocks(device, number, self.blocks if free == "fill" else 1)
            if free != "fill":
                device.zone_mgmt(RESET if free == "reset" else FINISH, number)
            assert zone_of(device, number).condition is (EMPTY if free == "reset" else FULL)
        assert zone_of(device, held).condition is EXP_OPEN

    def test_refusals_hold_nothing(self, make: Make) -> None:
        device = make(self.sequential, max_open=1, max_active=1)
        start = zone_of(device, self.first).start
        for _ in range(5):
            with pytest.raises(DeviceError):
                device.write(start + self.block, bytes(self.block))
            with pytest.raises(DeviceError):
                device.zone_mgmt(CLOSE, self.first)
            with pytest.raises(DeviceError):
                device.write(start, bytes(self.capacity + self.block))
        assert set(conditions(device)) == {EMPTY}
        write_blocks(device, self.first + 1)

    def test_a_zone_that_breaks_is_no_longer_open(self, make: Make) -> None:
        device = make(self.sequential, max_open=1, max_active=1)
        for number, condition in ((self.first, READONLY), (self.first + 1, OFFLINE)):
            device.zone_mgmt(OPEN, number)
            bring(device, number, condition, written=False)
        device.zone_mgmt(OPEN, self.first + 2)
        assert conditions(device)[:3] == [READONLY, OFFLINE, EXP_OPEN]

    def test_a_zone_filled_at_once_is_full(self, make: Make) -> None:
        device = make(self.sequential, max_open=1, max_active=1)
        for number in range(self.first, self.first + 6):
            write_blocks(device, number, self.blocks)
        assert conditions(device)[:6] == [FULL] * 6

    # The rest

    def test_flush_takes_any_zone(self, make: Make, shape: Geometry) -> None:
        device = make(shape)
        device.flush()
        for number in range(shape.nr_zones):
            device.flush(number)
            if number >= shape.nr_conventional:
                write_blocks(device, number)
            device.flush(number)
        before = device.report_zones()
        device.flush()
        device.flush()
        assert device.report_zones() == before

    def test_closing_twice_does_nothing(self, make: Make) -> None:
        device = make(self.sequential)
        write_blocks(device, self.first)
        device.close()
        device.close()
        with make(self.sequential) as other:
            write_blocks(other, self.first)
        other.close()

    def test_zones_are_written_in_parallel(self, make: Make) -> None:
        device = make(self.sequential)
        failures: list[BaseException] = []
        together = threading.Barrier(6)

        def fill(number: int) -> None:
            try:
                together.wait(30)
                for _ in range(3):
                    device.zone_mgmt(OPEN, number)
                    for _ in range(4):
                        write_blocks(device, number, self.blocks // 4)
                        assert device.read(number * self.sequential.zone_size, self.block)
                    device.flush(number)
                    assert zone_of(device, number).condition is FULL
                    device.zone_mgmt(RESET, number)
                write_blocks(device, number, self.blocks)
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=fill, args=(number,)) for number in range(self.first, self.first + 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        for zone in device.report_zones()[self.first : self.first + 6]:
            assert zone.condition is FULL
            assert device.read(zone.start, self.capacity) == pattern(zone.start, self.capacity)

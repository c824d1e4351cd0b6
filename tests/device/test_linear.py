"""Linear devices: what lies where, the seam between parts, copies, and replacing the table."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError, TableChanged, UserError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition, ZoneOp

from .copying import CopyingDevice

KIB = 1024
ZONE = 64 * KIB
BLOCK = 4096
HOST, REFLINK, DEVICE = CopyMethod.HOST, CopyMethod.REFLINK, CopyMethod.DEVICE


def geometry(
    zones: int = 4, conventional: int = 0, capacity: int = ZONE, last: int = ZONE, block: int = BLOCK
) -> Geometry:
    return Geometry(ZONE, capacity, zones, conventional, block, last)


def fill(letter: str, length: int = BLOCK) -> bytes:
    return letter.encode() * length


def two() -> tuple[CopyingDevice, CopyingDevice, LinearDevice]:
    """Two devices of four zones (the first has two conventional ones) and both end to end."""
    a = CopyingDevice(geometry(conventional=2), name="a")
    b = CopyingDevice(geometry(), name="b")
    return a, b, LinearDevice([Slice(a), Slice(b)])


def test_info_and_report_of_two_parts() -> None:
    a = MemoryDevice(geometry(3, 1, capacity=48 * KIB), 4, 8)
    b = MemoryDevice(geometry(3, 1, capacity=32 * KIB, last=16 * KIB), 6, 7)
    linear = LinearDevice([Slice(a), Slice(b)])
    info = linear.info
    assert (info.kind, info.name, info.size) == ("linear", "linear:memory+memory", 5 * ZONE + 16 * KIB)
    assert (info.nr_zones, info.zone_size, info.block_size) == (6, ZONE, BLOCK)
    assert (info.max_open_zones, info.max_active_zones) == (4, 7)
    assert not info.read_only
    zones = linear.report_zones()
    assert [zone.number for zone in zones] == list(range(6))
    assert [zone.start for zone in zones] == [number * ZONE for number in range(6)]
    assert [zone.size for zone in zones] == [ZONE] * 5 + [16 * KIB]
    assert [zone.capacity for zone in zones] == [ZONE, 48 * KIB, 48 * KIB, ZONE, 32 * KIB, 16 * KIB]
    assert [zone.is_conventional for zone in zones] == [True, False, False, True, False, False]
    assert [zone.wp for zone in zones if not zone.is_conventional] == [ZONE, 2 * ZONE, 4 * ZONE, 5 * ZONE]
    for start in range(7):
        for count in (0, 1, 2, 3, 6, 100, None):
            assert linear.report_zones(start, count) == zones[start : None if count is None else start + count]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(None, None, None), (3, None, 3), (None, 3, 3), (5, 3, 3), (3, 5, 3)]
)
def test_limits_are_the_smaller_that_there_are(first: int | None, second: int | None, expected: int | None) -> None:
    a, b = MemoryDevice(geometry(), first, first), MemoryDevice(geometry(), second, second)
    info = LinearDevice([Slice(a), Slice(b)]).info
    assert (info.max_open_zones, info.max_active_zones) == (expected, expected)


def test_slices_take_and_order_zones() -> None:
    a, b = MemoryDevice(geometry(8, 2)), MemoryDevice(geometry(4))
    linear = LinearDevice([Slice(a, 6, 2), Slice(b, 1, 1), Slice(a, 1, 2), Slice(b, 2)])
    assert linear.info.nr_zones == 7
    for number, (device, there) in enumerate([(a, 6), (a, 7), (b, 1), (a, 1), (a, 2), (b, 2), (b, 3)]):
        before = device.report_zones(there, 1)[0]
        data = fill(chr(ord("A") + number))
        linear.write(number * ZONE, data)
        assert device.read(before.start, BLOCK) == linear.read(number * ZONE, BLOCK) == data
        zone = linear.report_zones(number, 1)[0]
        assert zone.number == number
        assert zone.is_conventional == before.is_conventional
        if not zone.is_conventional:
            assert zone.wp == number * ZONE + BLOCK
            linear.zone_mgmt(ZoneOp.FINISH, number)
            assert device.report_zones(there, 1)[0].condition is ZoneCondition.FULL
            linear.zone_mgmt(ZoneOp.RESET, number)
            assert linear.report_zones(number, 1)[0].condition is ZoneCondition.EMPTY
        linear.flush(number)
    # Zones outside the slices were not touched.
    assert [zone.condition for zone in a.report_zones()[3:6]] == [ZoneCondition.EMPTY] * 3
    assert not any(a.read(0, ZONE))
    assert [(piece.first, piece.nr_zones) for piece in linear.slices] == [(6, 2), (1, 1), (1, 2), (2, 2)]


def test_conventional_zones_are_one_across_the_seam() -> None:
    a, b = MemoryDevice(geometry(2, 2)), MemoryDevice(geometry(3, 1))
    linear = LinearDevice([Slice(a), Slice(b)])
    data = fill("x", 2 * BLOCK) + fill("y", 3 * BLOCK)
    linear.write(2 * ZONE - 2 * BLOCK, data)
    assert linear.read(2 * ZONE - 2 * BLOCK, len(data)) == data
    assert a.read(2 * ZONE - 2 * BLOCK, 2 * BLOCK) == fill("x", 2 * BLOCK)
    assert b.read(0, 3 * BLOCK) == fill("y", 3 * BLOCK)
    for offset, length in ((3 * ZONE - BLOCK, 2 * BLOCK), (3 * ZONE, ZONE + BLOCK), (4 * ZONE - BLOCK, 2 * BLOCK)):
        with pytest.raises(ValueError, match="cross"):
            linear.read(offset, length)
        with pytest.raises(ValueError, match="cross"):
            linear.write(offset, bytes(length))


def test_a_write_that_fails_behind_the_seam_has_done_the_first_part() -> None:
    a, b = MemoryDevice(geometry(2, 2)), MemoryDevice(geometry(2, 2))
    linear = LinearDevice([Slice(a), Slice(b)])
    b.force_condition(0, ZoneCondition.READONLY)
    with pytest.raises(DeviceError, match=r"memory: zone 0: write to a zone that is read-only"):
        linear.write(2 * ZONE - BLOCK, fill("x", 2 * BLOCK))
    assert a.read(2 * ZONE - BLOCK, BLOCK) == fill("x")
    assert not any(b.read(0, BLOCK))


def test_errors_keep_their_class_and_name_the_part() -> None:
    _, _, linear = two()
    with pytest.raises(DeviceError, match=r"b: zone 1: write at 4096, but the write pointer is at 0"):
        linear.write(5 * ZONE + BLOCK, fill("x"))
    limited = LinearDevice([Slice(CopyingDevice(geometry(), 1, 1))])
    limited.zone_mgmt(ZoneOp.OPEN, 0)
    with pytest.raises(DeviceError) as raised:
        limited.zone_mgmt(ZoneOp.OPEN, 1)
    assert raised.value.errno_name == "EOVERFLOW"


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([], "at least one part"),
        ([(geometry(),), (Geometry(2 * ZONE, ZONE, 4, 0, BLOCK, 2 * ZONE),)], "zones of 131072 bytes"),
        ([(geometry(),), (geometry(block=512),)], "blocks of 512 bytes"),
        ([(geometry(last=BLOCK),), (geometry(),)], "smaller zone"),
        ([(geometry(last=BLOCK), 3, 1), (geometry(),)], "smaller zone"),
        ([(geometry(), 4, 1)], "zones 0 to 3, not 4 to 4"),
        ([(geometry(), 4)], "zones 0 to 3, not 4 to 3"),
        ([(geometry(), 2, 3)], "zones 0 to 3, not 2 to 4"),
        ([(geometry(), 0, 0)], "zones 0 to 3, not 0 to -1"),
        ([(geometry(), -1, 2)], "zones 0 to 3, not -1 to 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(pieces: list[tuple[Geometry, int, int]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        LinearDevice([Slice(MemoryDevice(shape), *rest) for shape, *rest in pieces])


def test_a_smaller_last_zone_may_be_left_out_or_be_last() -> None:
    a, b = MemoryDevice(geometry(last=BLOCK)), MemoryDevice(geometry())
    assert LinearDevice([Slice(a, 0, 3), Slice(b)]).info.nr_zones == 7
    assert LinearDevice([Slice(b), Slice(a)]).info.size == 7 * ZONE + BLOCK


def test_a_zone_is_used_once() -> None:
    device = MemoryDevice(geometry())
    for pieces in ([(0, 2), (1, 1)], [(2, 2), (0, 3)], [(1, 1), (1, 1)]):
        with pytest.raises(UserError, match=r"zone \d is used twice"):
            LinearDevice([Slice(device, *piece) for piece in pieces])


class Noting(MemoryDevice):
    """Notes flushes and closing, and fails at them when told to."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(geometry())
        self.fails = fails
        self.flushed: list[int | None] = []
        self.closed = 0

    def flush(self, number: int | None = None) -> None:
        self.flushed.append(number)
        if self.fails:
            raise DeviceError("no flush")

    def close(self) -> None:
        self.closed += 1
        if self.fails:
            raise DeviceError("no close")


def test_a_flush_reaches_each_part_once_and_the_rest_after_an_error() -> None:
    parts = [Noting(), Noting(fails=True), Noting()]
    linear = LinearDevice([Slice(parts[0], 0, 2), Slice(parts[1]), Slice(parts[0], 2, 2), Slice(parts[2])])
    with pytest.raises(DeviceError, match="no flush"):
        linear.flush()
    assert [part.flushed for part in parts] == [[None]] * 3
    linear.flush(7)
    assert parts[0].flushed == [None, 3]
    with pytest.raises(ValueError, match="zone 12 of 12"):
        linear.flush(12)


def test_closing_closes_every_part_once() -> None:
    parts = [Noting(), Noting(fails=True), Noting()]
    linear = LinearDevice([Slice(part) for part in parts])
    with pytest.raises(DeviceError, match="no close"):
        linear.close()
    linear.close()
    assert [part.closed for part in parts] == [1, 1, 1]


def test_conditions_are_forced_below() -> None:
    a, b, linear = two()
    linear.force_conditions([3, 4, 5], ZoneCondition.OFFLINE)
    assert a.report_zones(3, 1)[0].condition is ZoneCondition.OFFLINE
    assert [zone.condition for zone in b.report_zones(0, 2)] == [ZoneCondition.OFFLINE] * 2
    linear.force_condition(4, None)
    assert linear.report_zones(4, 1)[0].condition is ZoneCondition.EMPTY
    with pytest.raises(ValueError, match="zone 8 of 8"):
        linear.force_conditions([0, 8], ZoneCondition.OFFLINE)
    assert linear.report_zones(0, 1)[0].condition is ZoneCondition.NOT_WP


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Slices of two devices of six zones that do not overlap: device, first zone, number of zones."""
    cuts = []
    for device in range(2):
        edges = sorted(draw(st.sets(st.integers(0, 6), min_size=2, max_size=5)))
        cuts += [(device, first, last - first) for first, last in itertools.pairwise(edges)]
    return draw(st.permutations(cuts).flatmap(lambda all: st.integers(1, len(all)).map(lambda some: all[:some])))


OPERATIONS = st.tuples(
    st.sampled_from(["write", "read", "reset", "open", "close", "finish", "flush", "offline", "online"]),
    st.integers(0, 11),
    st.integers(0, 15),
    st.integers(1, 4),
)


@given(tables(), st.lists(OPERATIONS, max_size=20))
def test_any_table_is_the_same_zones_elsewhere(
    table: list[tuple[int, int, int]], calls: list[tuple[str, int, int, int]]
) -> None:
    shape = geometry(6, 2, capacity=ZONE - 2 * BLOCK)
    below = [MemoryDevice(shape, 3, 4), MemoryDevice(shape, 3, 4)]
    plain = [MemoryDevice(shape, 3, 4), MemoryDevice(shape, 3, 4)]
    linear = LinearDevice([Slice(below[device], first, count) for device, first, count in table])
    # Where each zone is, written down without the device's help.
    places = [(device, zone) for device, first, count in table for zone in range(first, first + count)]

    def do(device: ZonedDevice, zone: int, call: tuple[str, int, int, int]) -> object:
        name, _, block, count = call
        offset = zone * ZONE + block * BLOCK
        length = min(count, 16 - block) * BLOCK
        try:
            if name == "write":
                device.write(offset, fill("x", length))
            elif name == "read":
                return device.read(offset, length)
            elif name == "flush":
                device.flush(zone)
            elif name in ("offline", "online"):
                device.force_condition(zone, ZoneCondition.OFFLINE if name == "offline" else None)
            else:
                device.zone_mgmt(ZoneOp[name.upper()], zone)
        except DeviceError as exc:
            return type(exc)
        return None

    for call in calls:
        number = call[1] % len(places)
        device, zone = places[number]
        assert do(linear, number, call) == do(plain[device], zone, call)
    for number, (entry, (device, zone)) in enumerate(zip(linear.report_zones(), places, strict=True)):
        expected = plain[device].report_zones(zone, 1)[0]
        shift = (number - zone) * ZONE
        assert entry == expected._replace(number=number, start=number * ZONE, wp=expected.wp + shift)
    assert [device.report_zones() for device in below] == [device.report_zones() for device in plain]


# Copies


def test_copy_methods_are_what_all_parts_can() -> None:
    def methods(*each: tuple[CopyMethod, ...]) -> tuple[CopyMethod, ...]:
        return LinearDevice([Slice(CopyingDevice(geometry(), methods=some)) for some in each]).info.copy_methods

    assert methods((DEVICE, HOST), (REFLINK, HOST)) == (HOST,)
    assert methods((REFLINK, HOST), (REFLINK, HOST)) == (REFLINK, HOST)
    assert methods((HOST,), ()) == ()


def test_copies_within_a_part_pass_down_remapped() -> None:
    a, b, linear = two()
    b.write(0, fill("x", 4 * BLOCK))
    # Whole zones and the blocks next to the seam, on both sides of it.
    assert linear.can_copy([CopyRange(4 * ZONE, 7 * ZONE, 4 * BLOCK)], HOST)
    linear.copy([CopyRange(4 * ZONE, 7 * ZONE, 4 * BLOCK)], HOST, linear.generation)
    assert b.copies == [(0, 3 * ZONE, 4 * BLOCK, HOST)]
    assert linear.read(7 * ZONE, 5 * BLOCK) == fill("x", 4 * BLOCK) + bytes(BLOCK)
    a.write(3 * ZONE, fill("y", ZONE))
    assert linear.can_copy([CopyRange(4 * ZONE - BLOCK, 2 * ZONE, BLOCK)], HOST)
    linear.copy([CopyRange(4 * ZONE - BLOCK, 2 * ZONE, BLOCK)], HOST)
    assert a.copies == [(4 * ZONE - BLOCK, 2 * ZONE, BLOCK, HOST)]
    assert linear.report_zones(2, 1)[0].wp == 2 * ZONE + BLOCK


def test_copies_between_slices_of_one_device_pass_down() -> None:
    a, b = CopyingDevice(geometry()), CopyingDevice(geometry())
    linear = LinearDevice([Slice(a, 2, 2), Slice(b), Slice(a, 0, 2)])
    linear.write(0, fill("x"))
    assert linear.can_copy([CopyRange(0, 6 * ZONE, BLOCK)], HOST)
    linear.copy([CopyRange(0, 6 * ZONE, BLOCK)], HOST)
    assert a.copies == [(2 * ZONE, 0, BLOCK, HOST)]
    assert not linear.can_copy([CopyRange(0, 6 * ZONE, BLOCK)], REFLINK)


@pytest.mark.parametrize(
    ("source", "destination", "length"),
    [
        (2 * ZONE, 4 * ZONE, BLOCK),
        (4 * ZONE, 2 * ZONE, BLOCK),
        (4 * ZONE - BLOCK, 4 * ZONE, BLOCK),
        (0, 7 * ZONE, 4 * BLOCK),
    ],
)
def test_copies_between_parts_are_refused_before_anything_is_done(source: int, destination: int, length: int) -> None:
    a, b, linear = two()
    before = linear.report_zones()
    assert not linear.can_copy([CopyRange(source, destination, length)], HOST)
    with pytest.raises(ValueError, match="not in one part"):
        linear.copy([CopyRange(source, destination, length)], HOST)
    assert (a.copies, b.copies) == ([], [])
    assert linear.report_zones() == before


def test_what_crosses_the_seam_is_no_command_and_is_refused_whole() -> None:
    a, b = CopyingDevice(geometry(3, 3)), CopyingDevice(geometry(3, 3))
    linear = LinearDevice([Slice(a), Slice(b)])
    seam = 3 * ZONE
    for source, destination in ((seam - BLOCK, 0), (0, seam - BLOCK), (seam - BLOCK, 4 * ZONE)):
        for call in (linear.can_copy, linear.copy):
            with pytest.raises(ValueError, match="crosses a zone boundary"):
                call([CopyRange(source, destination, 2 * BLOCK)], HOST)
    assert (a.copies, b.copies) == ([], [])
    assert linear.can_copy([CopyRange(seam - 2 * BLOCK, 0, 2 * BLOCK)], HOST)


def test_a_command_of_ranges_from_both_parts_is_refused_whole() -> None:
    a, b, linear = two()
    ranges = [CopyRange(0, 2 * ZONE, BLOCK), CopyRange(5 * ZONE, 2 * ZONE + BLOCK, BLOCK)]
    assert not linear.can_copy(ranges, HOST)
    with pytest.raises(ValueError, match="not in one part"):
        linear.copy(ranges, HOST)
    assert (a.copies, b.copies) == ([], [])
    linear.copy([CopyRange(BLOCK, 2 * ZONE, BLOCK), CopyRange(3 * ZONE, 2 * ZONE + BLOCK, BLOCK)], HOST)
    assert a.commands == [([CopyRange(BLOCK, 2 * ZONE, BLOCK), CopyRange(3 * ZONE, 2 * ZONE + BLOCK, BLOCK)], HOST)]


def test_a_failed_copy_says_how_far_it_came() -> None:
    a, b = CopyingDevice(geometry()), CopyingDevice(geometry(capacity=ZONE - 2 * BLOCK))
    linear = LinearDevice([Slice(a), Slice(b)])
    b.write(0, fill("x", 4 * BLOCK))
    b.write(ZONE, bytes(ZONE - 4 * BLOCK))
    with pytest.raises(DeviceError) as raised:
        linear.copy([CopyRange(4 * ZONE, 6 * ZONE - 4 * BLOCK, 4 * BLOCK)], HOST)
    assert raised.value.completed == 2 * BLOCK
    assert linear.report_zones(5, 1)[0].condition is ZoneCondition.FULL


# Replacing the table


def test_a_copy_planned_before_the_table_changed_is_refused() -> None:
    a, b, linear = two()
    c = CopyingDevice(geometry(), name="c")
    a.write(2 * ZONE, fill("x"))
    planned = linear.generation
    assert linear.can_copy([CopyRange(2 * ZONE, 3 * ZONE, BLOCK)], HOST)
    assert linear.replace_table([Slice(a), Slice(c)]) == [b]
    assert linear.generation == planned + 1
    # The copy's own part has not even moved; it is refused all the same, and nothing has happened.
    with pytest.raises(TableChanged, match="planned under table 0, now it is table 1") as raised:
        linear.copy([CopyRange(2 * ZONE, 3 * ZONE, BLOCK)], HOST, planned)
    assert raised.value.completed == 0
    assert (a.copies, b.copies, c.copies) == ([], [], [])
    assert linear.report_zones(3, 1)[0].condition is ZoneCondition.EMPTY
    linear.copy([CopyRange(2 * ZONE, 3 * ZONE, BLOCK)], HOST, linear.generation)
    assert a.copies


def test_requests_follow_the_new_table() -> None:
    a, b, linear = two()
    c = CopyingDevice(geometry(5), methods=())
    linear.write(5 * ZONE, fill("x"))
    info = linear.info
    with pytest.raises(UserError, match="cannot copy by host"):
        linear.replace_table([Slice(a), Slice(c, 1)])
    d = CopyingDevice(geometry(5))
    assert linear.replace_table([Slice(a), Slice(d, 1)]) == [b]
    assert linear.info == info
    assert not any(linear.read(5 * ZONE, BLOCK))
    linear.write(5 * ZONE, fill("y"))
    assert d.read(2 * ZONE, BLOCK) == fill("y")
    assert b.read(ZONE, BLOCK) == fill("x")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (lambda: MemoryDevice(geometry(3)), "other sizes, capacities or types"),
        (lambda: MemoryDevice(geometry(capacity=ZONE - BLOCK)), "other sizes, capacities or types"),
        (lambda: MemoryDevice(geometry(conventional=1)), "other sizes, capacities or types"),
        (lambda: MemoryDevice(geometry(block=512)), "blocks of 512"),
        (lambda: MemoryDevice(geometry(), 2), "max open zones from None to 2"),
        (lambda: MemoryDevice(geometry(), None, 3), "max active zones from None to 3"),
    ],
)
def test_a_table_that_looks_different_is_refused(part: Callable[[], ZonedDevice], words: str) -> None:
    a, b, linear = two()
    with pytest.raises(UserError, match=words):
        linear.replace_table([Slice(a), Slice(part())])
    assert linear.generation == 0
    assert [piece.device for piece in linear.slices] == [a, b]


def test_a_change_below_counts_and_generations_only_grow() -> None:
    a, b, inner = two()
    c = CopyingDevice(geometry(), name="c")
    outer = LinearDevice([Slice(inner)])
    seen = [outer.generation]
    for part in (c, b, c):
        planned = outer.generation
        inner.replace_table([Slice(a), Slice(part)])
        with pytest.raises(TableChanged):
            outer.copy([CopyRange(4 * ZONE, 5 * ZONE, BLOCK)], HOST, planned)
        seen.append(outer.generation)
    fresh = LinearDevice([Slice(CopyingDevice(geometry(8, 2)))])
    outer.replace_table([Slice(fresh)])
    seen.append(outer.generation)
    assert seen == sorted(set(seen))


class Waiting(CopyingDevice):
    """Its reads wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(geometry())
        self.reached = threading.Event()
        self.go = threading.Event()

    def read(self, offset: int, length: int) -> bytes:
        self.reached.set()
        assert self.go.wait(30)
        return super().read(offset, length)


def test_a_new_table_waits_for_requests_under_way_and_holds_new_ones() -> None:
    old, new = Waiting(), CopyingDevice(geometry())
    new.write(0, fill("n"))
    MemoryDevice.write(old, 0, fill("o"))
    linear = LinearDevice([Slice(old)])
    got: dict[str, object] = {}
    reader = threading.Thread(target=lambda: got.update(first=linear.read(0, BLOCK)))
    reader.start()
    assert old.reached.wait(30)
    changer = threading.Thread(target=lambda: got.update(gone=linear.replace_table([Slice(new)])))
    changer.start()
    second = threading.Thread(target=lambda: got.update(second=linear.read(0, BLOCK)))
    # Once the gate is shut, a new request must wait for the new table.
    while not linear._gate._closed:
        assert changer.is_alive()
    second.start()
    assert linear.generation == 0
    assert not got
    old.go.set()
    for thread in (reader, changer, second):
        thread.join(30)
    assert got == {"first": fill("o"), "gone": [old], "second": fill("n")}


def test_changing_tables_while_zones_are_written() -> None:
    devices = [CopyingDevice(geometry(2)) for _ in range(2)]
    linear = LinearDevice([Slice(device) for device in devices])
    failures: list[BaseException] = []
    stop = threading.Event()

    def change() -> None:
        # The same place for each part, cut differently: data stays where it is.
        while not stop.is_set():
            linear.replace_table([Slice(devices[0], 0, 1), Slice(devices[0], 1, 1), Slice(devices[1])])
            linear.replace_table([Slice(devices[0]), Slice(devices[1])])

    def write(number: int) -> None:
        try:
            for _ in range(5):
                for done in range(0, ZONE, BLOCK):
                    linear.write(number * ZONE + done, fill(str(number)))
                assert linear.read(number * ZONE, ZONE) == fill(str(number), ZONE)
                linear.zone_mgmt(ZoneOp.RESET, number)
        except BaseException as exc:
            failures.append(exc)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    changer = threading.Thread(target=change)
    changer.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    changer.join()
    assert not failures
    assert linear.generation > 0


# A file system on it


def test_a_file_system_over_the_seam() -> None:
    a, b = MemoryDevice(geometry(4, 3)), MemoryDevice(geometry(4, 2))
    linear = LinearDevice([Slice(a), Slice(b)])
    format_device(linear, FormatOptions(aggregate_conventional=True))
    with Filesystem(linear, MountOptions(errors=ErrorsPolicy.ZONE_RO)) as fs:
        assert [fs.getattr(fs.resolve(f"cnv/{n}")).size for n in (0, 1)] == [2 * ZONE, 2 * ZONE]
        handle = fs.open("seq/1", 1)
        fs.write(handle, 0, fill("x"), direct=True)
        assert b.read(2 * ZONE, BLOCK) == fill("x")
        # The part's device knows better: the write fails, and the file follows its zone.
        b.force_condition(2, ZoneCondition.READONLY)
        with pytest.raises(DeviceError):
            fs.write(handle, BLOCK, fill("y"), direct=True)
        assert fs.getattr(fs.resolve("seq/1")).mode & 0o222 == 0
        assert fs.getattr(fs.resolve("seq/2")).mode & 0o222


def test_backing_files_are_those_of_the_parts(tmp_path: Path) -> None:
    parts = []
    for name in "ab":
        create_device(tmp_path / name, geometry(zones=6))
        parts.append(open_device(tmp_path / name))
    a, b = parts
    with LinearDevice([Slice(a, 1, 2), Slice(b, 2, 3), Slice(a, 4, 2)]) as linear:
        withdrawn: list[int] = []
        linear.watch_backing(withdrawn.extend)
        for number in range(7):
            linear.write(number * ZONE, fill(str(number)))
            descriptor = linear.backing_descriptor(number)
            assert descriptor is not None
            assert os.pread(descriptor, ZONE, 0) == fill(str(number))
            os.close(descriptor)
        linear.force_conditions([1, 3, 6], ZoneCondition.OFFLINE)
        assert sorted(withdrawn) == [1, 3, 6]
        assert linear.backing_descriptor(3) is None
        withdrawn.clear()
        # Zones that are in no slice are nobody's business.
        a.force_conditions([0, 3], ZoneCondition.OFFLINE)
        assert withdrawn == []
        # Another table: nothing lies where it was.
        assert linear.replace_table([Slice(a, 1, 3), Slice(a, 4, 2), Slice(a, 0, 1), Slice(b, 0, 1)]) == []
        assert withdrawn == list(range(7))


def test_a_part_that_is_not_used_any_more_tells_nothing(tmp_path: Path) -> None:
    parts = []
    for name in "ab":
        create_device(tmp_path / name, geometry())
        parts.append(open_device(tmp_path / name))
    a, b = parts
    with LinearDevice([Slice(a)]) as linear, a:
        withdrawn: list[int] = []
        linear.watch_backing(withdrawn.extend)
        assert linear.replace_table([Slice(b)]) == [a]
        withdrawn.clear()
        a.force_condition(0, ZoneCondition.OFFLINE)
        assert withdrawn == []
        b.force_condition(0, ZoneCondition.OFFLINE)
        assert withdrawn == [0]


def test_parts_without_backing_files_have_none() -> None:
    _, _, linear = two()
    assert linear.backing_descriptor(0) is None
    fault = FaultDevice(linear)
    assert fault.backing_descriptor(0) is None

"""Which files a device has: zones in, names and extents out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.fs.layout import build_layout, file_names, parse_file_name
from zonefs_py.zone import Zone, ZoneCondition, ZoneType

SIZE = 64 * 1024
CAPACITY = 48 * 1024


def zones(text: str, bad: dict[int, ZoneCondition] | None = None, written: dict[int, int] | None = None) -> list[Zone]:
    """A report of a device with a conventional zone for each ``c`` of *text* and a sequential one for each ``s``.

    ``r`` is a sequential zone of a quarter of the size, as there can be one at the end.
    """
    made = []
    start = 0
    for number, letter in enumerate(text):
        size = SIZE // 4 if letter == "r" else SIZE
        data = (written or {}).get(number, 0)
        capacity = size if letter == "c" else min(size, CAPACITY)
        normal = ZoneCondition.NOT_WP if letter == "c" else ZoneCondition.CLOSED if data else ZoneCondition.EMPTY
        if data == capacity:
            normal = ZoneCondition.FULL
        made.append(
            Zone(
                number,
                start,
                size,
                capacity,
                start + (size if letter == "c" else data),
                ZoneType.CONVENTIONAL if letter == "c" else ZoneType.SEQ_WRITE_REQUIRED,
                (bad or {}).get(number, normal),
            )
        )
        start += size
    return made


@pytest.mark.parametrize(
    ("text", "aggregate", "expected"),
    [
        ("ccccssss", False, {1: "cnv/0", 2: "cnv/1", 3: "cnv/2", 4: "seq/0", 5: "seq/1", 6: "seq/2", 7: "seq/3"}),
        ("ccccssss", True, {1: "cnv/0", 2: "cnv/0", 3: "cnv/0", 4: "seq/0", 5: "seq/1", 6: "seq/2", 7: "seq/3"}),
        ("sss", False, {1: "seq/0", 2: "seq/1"}),
        ("sss", True, {1: "seq/0", 2: "seq/1"}),
        # The only conventional zone is the superblock's: there is no cnv.
        ("css", False, {1: "seq/0", 2: "seq/1"}),
        ("css", True, {1: "seq/0", 2: "seq/1"}),
        ("cc", False, {1: "cnv/0"}),
        ("cc", True, {1: "cnv/0"}),
        ("cccr", False, {1: "cnv/0", 2: "cnv/1", 3: "seq/0"}),
        # Conventional zones need not be neighbours on a real drive: only neighbours become one file.
        ("ccsccs", True, {1: "cnv/0", 2: "seq/0", 3: "cnv/1", 4: "cnv/1", 5: "seq/1"}),
        ("ccsccs", False, {1: "cnv/0", 2: "seq/0", 3: "cnv/1", 4: "cnv/2", 5: "seq/1"}),
        ("scc", True, {1: "cnv/0", 2: "cnv/0"}),
        ("s", False, {}),
    ],
)
def test_names(text: str, aggregate: bool, expected: dict[int, str]) -> None:
    assert file_names(zones(text), aggregate) == expected


def test_extents_of_sequential_files() -> None:
    layout = build_layout(zones("csssr", written={1: 4096, 2: CAPACITY}), aggregate_conventional=False)
    assert not layout.cnv
    assert [tuple(extent) for extent in layout.seq] == [
        (1, 1, SIZE, SIZE, CAPACITY, 4096, ZoneCondition.CLOSED),
        (2, 1, 2 * SIZE, SIZE, CAPACITY, CAPACITY, ZoneCondition.FULL),
        (3, 1, 3 * SIZE, SIZE, CAPACITY, 0, ZoneCondition.EMPTY),
        (4, 1, 4 * SIZE, SIZE // 4, SIZE // 4, 0, ZoneCondition.EMPTY),
    ]


def test_extents_of_conventional_files() -> None:
    layout = build_layout(zones("cccs"), aggregate_conventional=False)
    assert [tuple(extent) for extent in layout.cnv] == [
        (1, 1, SIZE, SIZE, SIZE, SIZE, ZoneCondition.NOT_WP),
        (2, 1, 2 * SIZE, SIZE, SIZE, SIZE, ZoneCondition.NOT_WP),
    ]
    (extent,) = build_layout(zones("cccs"), aggregate_conventional=True).cnv
    assert tuple(extent) == (1, 2, SIZE, 2 * SIZE, 2 * SIZE, 2 * SIZE, ZoneCondition.NOT_WP)


@pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
def test_a_zone_that_does_not_tell_counts_as_unwritten(condition: ZoneCondition) -> None:
    layout = build_layout(zones("css", bad={1: condition}, written={1: 8192}), aggregate_conventional=False)
    assert (layout.seq[0].written, layout.seq[0].condition) == (0, condition)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({2: ZoneCondition.READONLY}, ZoneCondition.READONLY),
        ({3: ZoneCondition.OFFLINE}, ZoneCondition.OFFLINE),
        ({1: ZoneCondition.READONLY, 3: ZoneCondition.OFFLINE}, ZoneCondition.OFFLINE),
        ({1: ZoneCondition.OFFLINE, 2: ZoneCondition.READONLY}, ZoneCondition.OFFLINE),
        ({0: ZoneCondition.OFFLINE}, ZoneCondition.NOT_WP),
    ],
)
def test_the_worst_zone_speaks_for_an_aggregated_file(bad: dict[int, ZoneCondition], expected: ZoneCondition) -> None:
    (extent,) = build_layout(zones("cccc", bad=bad), aggregate_conventional=True).cnv
    assert (extent.nr_zones, extent.condition) == (3, expected)


@given(st.text("cs", min_size=1, max_size=40), st.booleans())
def test_every_zone_but_the_first_is_in_one_file(text: str, aggregate: bool) -> None:
    report = zones(text)
    layout = build_layout(report, aggregate_conventional=aggregate)
    extents = [*layout.cnv, *layout.seq]
    covered = sorted(number for extent in extents for number in range(extent.number, extent.number + extent.nr_zones))
    assert covered == list(range(1, len(text)))
    for extent in extents:
        members = report[extent.number : extent.number + extent.nr_zones]
        assert extent.start == members[0].start
        assert extent.size == sum(zone.size for zone in members)
        assert extent.capacity == sum(zone.capacity for zone in members)
        assert len({zone.is_conventional for zone in members}) == 1
    for group in layout:
        assert [extent.number for extent in group] == sorted(extent.number for extent in group)
    if not aggregate:
        assert all(extent.nr_zones == 1 for extent in extents)
    names = file_names(report, aggregate)
    assert sorted(names) == list(range(1, len(text)))
    for index, extent in enumerate(layout.seq):
        assert names[extent.number] == f"seq/{index}"


@pytest.mark.parametrize(
    ("name", "index"),
    [(b"0", 0), (b"7", 7), (b"10", 10), (b"99999", 99999), (b"1234567890123456", 1234567890123456)],
)
def test_file_names_are_decimal_numbers(name: bytes, index: int) -> None:
    assert parse_file_name(name) == index


NO_NAMES = [b"00", b"01", b"-1", b"+1", b" 1", b"1 ", b"1\n", b"0x1", b"1a", b"a", b"1_0", b"1.0"]


@pytest.mark.parametrize("name", [*NO_NAMES, b"", b"\xb2", b"\xd9\xa1", b"12345678901234567"])
def test_other_names_are_none(name: bytes) -> None:
    assert parse_file_name(name) is None


@given(st.binary(max_size=20))
def test_names_and_numbers_are_one_to_one(name: bytes) -> None:
    index = parse_file_name(name)
    assert index is None or b"%d" % index == name

"""device.json: what is written is read back equal, and what is damaged is refused in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.device.description import (
    DeviceDescription,
    check_description,
    format_description,
    parse_description,
)
from zonefs_py.errors import DeviceFormatError, UserError
from zonefs_py.zone import Geometry, ZoneCondition

MIB = 1024 * 1024

CONTENT: dict[str, Any] = {
    "format": "zonefs-py emulated zoned device",
    "version": 1,
    "block_size": 4096,
    "zone_size": 64 * MIB,
    "zone_capacity": 62 * MIB,
    "nr_zones": 32,
    "nr_conventional_zones": 4,
    "last_zone_size": 8 * MIB,
    "max_open_zones": 6,
    "max_active_zones": None,
    "serial": "0123456789abcdef",
    "profile": "",
    "conditions": {"7": "read-only", "12": "offline"},
}
"""What the specification says a device.json holds."""

DESCRIPTION = DeviceDescription(
    Geometry(64 * MIB, 62 * MIB, 32, 4, 4096, 8 * MIB),
    max_open_zones=6,
    max_active_zones=None,
    serial="0123456789abcdef",
    profile="",
    forced={7: ZoneCondition.READONLY, 12: ZoneCondition.OFFLINE},
)


def changed(**changes: Any) -> str:
    """The text of `CONTENT` with *changes*."""
    return json.dumps(CONTENT | changes)


def refusal(text: str | bytes) -> str:
    """The sentence with which *text* is refused: one line that fits a terminal's few."""
    with pytest.raises(DeviceFormatError) as raised:
        parse_description(text)
    message = str(raised.value)
    assert message
    assert "\n" not in message
    assert len(message) < 300
    return message


def test_the_file_is_as_specified() -> None:
    assert json.loads(format_description(DESCRIPTION)) == CONTENT
    assert parse_description(json.dumps(CONTENT)) == DESCRIPTION
    assert parse_description(json.dumps(CONTENT).encode()) == DESCRIPTION


@st.composite
def descriptions(draw: st.DrawFn) -> DeviceDescription:
    """Any description that a device can have."""
    block = draw(st.sampled_from([512, 4096]))
    blocks = draw(st.integers(8, 1 << 20))
    nr_zones = draw(st.integers(2, 100_000))
    nr_conventional = draw(st.integers(0, nr_zones))
    capacity = draw(st.integers(8, blocks))
    last = draw(st.integers(1, blocks))
    most_open = draw(st.none() | st.integers(1, 1000))
    most_active = draw(st.none() | st.integers(most_open or 1, 2000))
    forced = draw(
        st.dictionaries(
            st.integers(0, nr_zones - 1), st.sampled_from([ZoneCondition.READONLY, ZoneCondition.OFFLINE]), max_size=9
        )
    )
    printable = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40)
    return DeviceDescription(
        Geometry(blocks * block, capacity * block, nr_zones, nr_conventional, block, last * block),
        most_open,
        most_active,
        draw(printable),
        draw(printable),
        forced,
    )


@given(descriptions())
def test_round_trip(description: DeviceDescription) -> None:
    check_description(description)
    assert parse_description(format_description(description)) == description
    assert parse_description(format_description(description).encode()) == description


@pytest.mark.parametrize("name", CONTENT)
def test_a_missing_field(name: str) -> None:
    content = {key: value for key, value in CONTENT.items() if key != name}
    assert f'"{name}"' in refusal(json.dumps(content))


NO_NUMBERS: list[Any] = ["4096", 4096.0, True, False, None, [], {}, -1, -4096, 1 << 61, 10**400, 1e300, "x" * 10_000]


@pytest.mark.parametrize(
    "name", ["block_size", "zone_size", "zone_capacity", "nr_zones", "nr_conventional_zones", "last_zone_size"]
)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:12])
def test_a_number_that_is_none(name: str, value: Any) -> None:
    assert f'"{name}"' in refusal(changed(**{name: value}))


@pytest.mark.parametrize("name", ["max_open_zones", "max_active_zones"])
@pytest.mark.parametrize(
    "value", [value for value in NO_NUMBERS if value is not None], ids=lambda value: repr(value)[:12]
)
def test_a_limit_that_is_none(name: str, value: Any) -> None:
    assert f'"{name}"' in refusal(changed(**{name: value}))


@pytest.mark.parametrize("name", ["serial", "profile"])
@pytest.mark.parametrize("value", [1, None, [], {}, True, "a\nb", "\0", "\x1b[31m", "x" * 257, "\ud800"])
def test_a_text_that_is_none(name: str, value: Any) -> None:
    assert f'"{name}"' in refusal(changed(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"block_size": 0}, "block size"),
        ({"block_size": 1024}, "block size"),
        ({"zone_size": 0}, "zone size"),
        ({"zone_size": 64 * MIB + 512}, "zone size"),
        ({"zone_size": 32 * MIB}, "zone capacity"),
        ({"zone_size": 1 << 56}, "EiB"),
        ({"zone_capacity": 0}, "zone capacity"),
        ({"zone_capacity": 62 * MIB + 1}, "zone capacity"),
        ({"zone_capacity": 65 * MIB}, "zone capacity"),
        ({"nr_zones": 0, "conditions": {}}, "zones"),
        ({"nr_zones": 1, "conditions": {}}, "zones"),
        ({"nr_zones": 10_000_001}, "zones"),
        ({"nr_conventional_zones": 33}, "conventional"),
        ({"last_zone_size": 0}, "last zone size"),
        ({"last_zone_size": 65 * MIB}, "last zone size"),
        ({"last_zone_size": 100}, "last zone size"),
        ({"max_open_zones": 0}, "max open"),
        ({"max_active_zones": 0}, "max active"),
        ({"max_active_zones": 5}, "max open"),
        ({"nr_conventional_zones": 0, "block_size": 512, "zone_capacity": 2048}, "superblock"),
    ],
)
def test_numbers_that_do_not_fit(changes: dict[str, Any], named: str) -> None:
    assert named in refusal(changed(**changes))


@pytest.mark.parametrize(
    "conditions",
    [
        None,
        [],
        "offline",
        {"32": "offline"},
        {"-1": "offline"},
        {"x": "offline"},
        {"": "offline"},
        {"1.0": "offline"},
        {"²": "offline"},
        {"9" * 5000: "offline"},
        {"7": "full"},
        {"7": "empty"},
        {"7": ""},
        {"7": 13},
        {"7": None},
        {"7": ["offline"]},
        {"7": {}},
        {"7": "x" * 10_000},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_conditions_that_are_none(conditions: Any) -> None:
    assert '"conditions"' in refusal(changed(conditions=conditions))


@pytest.mark.parametrize(
    "value", [0, 2, "1", None, True, [1], 1.5, -1, "x" * 10_000, ["x"] * 10_000, "a\nb"], ids=lambda v: repr(v)[:12]
)
def test_another_version(value: Any) -> None:
    assert '"version"' in refusal(changed(version=value))


@pytest.mark.parametrize("value", ["", "zloop", 1, None, [], "zonefs-py emulated zoned device "])
def test_another_format(value: Any) -> None:
    assert '"format"' in refusal(changed(format=value))


def test_an_unknown_field() -> None:
    assert "colour" in refusal(changed(colour="blue"))
    refusal(changed(**{"x" * 10_000: 1}))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"zonefs"',
        b"\xff\xfe\xfd",
        b"\0" * 100,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"nr_zones": ' + b"9" * 5000 + b"}",
        json.dumps(CONTENT).encode()[:-1],
        json.dumps(CONTENT).encode() + b"x",
        b"\x7fELF" + bytes(1000),
    ],
    ids=lambda text: repr(text[:10]),
)
def test_what_is_no_json_object(text: bytes) -> None:
    refusal(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CONTENT)), JSON_VALUES, min_size=1, max_size=3))
def test_any_values_in_any_fields(changes: dict[str, Any]) -> None:
    """Either they are refused, or they make a device that can be."""
    text = changed(**changes)
    try:
        description = parse_description(text)
    except DeviceFormatError:
        refusal(text)
    else:
        check_description(description)
        assert parse_description(format_description(description)) == description


@given(st.binary(max_size=200))
def test_any_bytes(text: bytes) -> None:
    refusal(text)


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Bytes replaced, cut out or put in anywhere."""
    text = json.dumps(CONTENT, indent=2).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    text = text[:start] + data.draw(st.binary(max_size=6)) + text[end:]
    try:
        parse_description(text)
    except DeviceFormatError:
        refusal(text)


def test_a_device_of_a_million_zones_is_fine() -> None:
    geometry = Geometry(MIB, MIB, 1_000_000, 0, 4096, MIB)
    check_description(DeviceDescription(geometry))
    with pytest.raises(UserError, match="10000001 zones"):
        check_description(DeviceDescription(Geometry(MIB, MIB, 10_000_001, 0, 4096, MIB)))

"""device.json: what an emulated device's zone files cannot say. Pure: text in, checked dataclass out, and back.

docs/device-format.md is the specification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zonefs_py.errors import DeviceFormatError, UserError
from zonefs_py.units import format_size, is_aligned
from zonefs_py.zone import CONDITION_NAMES, Geometry, ZoneCondition

FORMAT_NAME = "zonefs-py emulated zoned device"
FORMAT_VERSION = 1
BLOCK_SIZES = (512, 4096)
SUPERBLOCK_SIZE = 4096
MAX_ZONES = 10_000_000
MAX_SIZE = 1 << 60
MAX_FILE_SIZE = 64 * 1024 * 1024
"""Bytes of device.json."""

_FORCED = {CONDITION_NAMES[c]: c for c in (ZoneCondition.READONLY, ZoneCondition.OFFLINE)}


@dataclass(frozen=True)
class DeviceDescription:
    """The content of device.json. Sizes in bytes; no limit is None.

    ``forced`` maps zone numbers to READONLY or OFFLINE.
    """

    geometry: Geometry
    max_open_zones: int | None = None
    max_active_zones: int | None = None
    serial: str = ""
    profile: str = ""
    forced: Mapping[int, ZoneCondition] = field(default_factory=dict)


def check_description(description: DeviceDescription) -> None:
    """Raise UserError with one sentence if no device can have this geometry and these limits."""
    geometry = description.geometry
    block = geometry.block_size
    if block not in BLOCK_SIZES:
        raise UserError(f"block size {block}: choose 512 or 4096")
    if not 2 <= geometry.nr_zones <= MAX_ZONES:
        raise UserError(f"{geometry.nr_zones} zones: a device has 2 to {MAX_ZONES}; the first one holds the superblock")
    if not 0 <= geometry.nr_conventional <= geometry.nr_zones:
        raise UserError(
            f"{geometry.nr_conventional} conventional zones do not fit a device of {geometry.nr_zones} zones"
        )
    for name, size in (
        ("zone size", geometry.zone_size),
        ("zone capacity", geometry.zone_capacity),
        ("last zone size", geometry.last_zone_size),
    ):
        if size <= 0 or not is_aligned(size, block):
            raise UserError(f"{name} {format_size(size)}: it must be a positive multiple of the block size, {block}")
    for name, size in (("zone capacity", geometry.zone_capacity), ("last zone size", geometry.last_zone_size)):
        if size > geometry.zone_size:
            raise UserError(
                f"{name} {format_size(size)}: it must not be above the zone size, {format_size(geometry.zone_size)}"
            )
    if geometry.capacity_of(0) < SUPERBLOCK_SIZE:
        raise UserError(
            f"zone capacity {geometry.capacity_of(0)}: the superblock in the first zone needs {SUPERBLOCK_SIZE} bytes"
        )
    if geometry.size > MAX_SIZE:
        raise UserError(f"{geometry.nr_zones} zones of {format_size(geometry.zone_size)} are more than 1 EiB")
    _check_limits(description)


def _check_limits(description: DeviceDescription) -> None:
    for name, limit in (("max open", description.max_open_zones), ("max active", description.max_active_zones)):
        if limit is not None and not 1 <= limit <= MAX_ZONES:
            raise UserError(f"{name} zones {limit}: it must be at least 1; leave it out for no limit")
    most_open, most_active = description.max_open_zones, description.max_active_zones
    if most_open is not None and most_active is not None and most_open > most_active:
        raise UserError(f"max open zones {most_open}: it must not be above max active zones, {most_active}")


def format_description(description: DeviceDescription) -> str:
    """Return the text of device.json; `parse_description` reads it back to an equal description."""
    geometry = description.geometry
    content = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "block_size": geometry.block_size,
        "zone_size": geometry.zone_size,
        "zone_capacity": geometry.zone_capacity,
        "nr_zones": geometry.nr_zones,
        "nr_conventional_zones": geometry.nr_conventional,
        "last_zone_size": geometry.last_zone_size,
        "max_open_zones": description.max_open_zones,
        "max_active_zones": description.max_active_zones,
        "serial": description.serial,
        "profile": description.profile,
        "conditions": {
            str(number): CONDITION_NAMES[condition] for number, condition in sorted(description.forced.items())
        },
    }
    return json.dumps(content, indent=2) + "\n"


def parse_description(text: str | bytes) -> DeviceDescription:
    """Return what *text* describes. Raises DeviceFormatError with a sentence that names the wrong field."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DeviceFormatError(f"not JSON ({exc})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
        raise DeviceFormatError(f'"format" is not "{FORMAT_NAME}"')
    version = content.get("version")
    if version != FORMAT_VERSION or type(version) is not int:
        raise DeviceFormatError(f'"version" is {shorten(version)}; this zonefs-py knows version {FORMAT_VERSION}')
    fields = _Fields(content)
    geometry = Geometry(
        zone_size=fields.number("zone_size"),
        zone_capacity=fields.number("zone_capacity"),
        nr_zones=fields.number("nr_zones"),
        nr_conventional=fields.number("nr_conventional_zones"),
        block_size=fields.number("block_size"),
        last_zone_size=fields.number("last_zone_size"),
    )
    description = DeviceDescription(
        geometry,
        max_open_zones=fields.limit("max_open_zones"),
        max_active_zones=fields.limit("max_active_zones"),
        serial=fields.text("serial"),
        profile=fields.text("profile"),
        forced=fields.conditions("conditions", geometry.nr_zones),
    )
    fields.check_all_used()
    try:
        check_description(description)
    except UserError as exc:
        raise DeviceFormatError(str(exc)) from None
    return description


class _Fields:
    """Typed access to the fields of a JSON object, remembering which were asked for."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self._used = {"format", "version"}

    def _get(self, name: str) -> Any:
        self._used.add(name)
        if name not in self._content:
            raise DeviceFormatError(f'"{name}" is missing')
        return self._content[name]

    def number(self, name: str) -> int:
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SIZE:
            raise DeviceFormatError(f'"{name}" is {shorten(value)}, not a whole number of bytes or zones in range')
        return value

    def limit(self, name: str) -> int | None:
        return None if self._get(name) is None else self.number(name)

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str) or len(value) > 256 or not value.isprintable():
            raise DeviceFormatError(f'"{name}" is {shorten(value)}, not a short text')
        return value

    def conditions(self, name: str, nr_zones: int) -> dict[int, ZoneCondition]:
        value = self._get(name)
        if not isinstance(value, dict):
            raise DeviceFormatError(f'"{name}" is {shorten(value)}, not an object')
        forced = {}
        for key, condition in value.items():
            if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key) < nr_zones):
                raise DeviceFormatError(f'"{name}" has a zone {shorten(key)}, which the device does not have')
            if not isinstance(condition, str) or condition not in _FORCED:
                raise DeviceFormatError(
                    f'"{name}" gives zone {key} {shorten(condition)}; known are {", ".join(_FORCED)}'
                )
            forced[int(key)] = _FORCED[condition]
        return forced

    def check_all_used(self) -> None:
        unknown = sorted(set(self._content) - self._used)
        if unknown:
            raise DeviceFormatError(f"unknown field {shorten(unknown[0])}")


def shorten(value: object) -> str:
    """Return *value*, a decoded JSON value, as it can be shown in a message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python turns into text
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."

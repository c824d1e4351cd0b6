"""Which files a zoned device has as a zonefs: pure, from a zone report to names, as fs/zonefs/super.c does it.

Zone 0 holds the superblock and is no file. Conventional zones are files of ``cnv``, the others of ``seq``, numbered
from 0 in the order of the zones. With aggr_cnv a run of neighbouring conventional zones is one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from zonefs_py.zone import Zone, ZoneCondition

CONVENTIONAL_GROUP = "cnv"
SEQUENTIAL_GROUP = "seq"
GROUPS = (CONVENTIONAL_GROUP, SEQUENTIAL_GROUP)

MAX_NAME_LENGTH = 16
"""Bytes of the longest name (ZONEFS_NAME_MAX)."""


class FileExtent(NamedTuple):
    """The zones of one file. ``start``, ``size``, ``capacity`` and ``written`` in bytes; ``written`` is 0 where the
    device does not tell (a sequential zone that is read-only or offline)."""

    number: int
    nr_zones: int
    start: int
    size: int
    capacity: int
    written: int
    condition: ZoneCondition


class Layout(NamedTuple):
    """The files of both groups, in the order of their names."""

    cnv: list[FileExtent]
    seq: list[FileExtent]


def build_layout(zones: Iterable[Zone], *, aggregate_conventional: bool) -> Layout:
    """Return the files that *zones*, a report of a whole device in order, make."""
    layout = Layout([], [])
    previous = 0
    for zone in zones:
        if zone.number == 0:
            continue
        if not zone.is_conventional:
            layout.seq.append(
                FileExtent(zone.number, 1, zone.start, zone.size, zone.capacity, zone.data_size or 0, zone.condition)
            )
        elif aggregate_conventional and layout.cnv and previous == zone.number - 1:
            layout.cnv[-1] = _join(layout.cnv[-1], zone)
            previous = zone.number
        else:
            layout.cnv.append(
                FileExtent(zone.number, 1, zone.start, zone.size, zone.capacity, zone.capacity, zone.condition)
            )
            previous = zone.number
    return layout


def _join(extent: FileExtent, zone: Zone) -> FileExtent:
    # One offline or read-only zone makes the whole file so; offline is the worse.
    bad = {extent.condition, zone.condition} & {ZoneCondition.OFFLINE, ZoneCondition.READONLY}
    condition = max(bad) if bad else extent.condition
    return extent._replace(
        nr_zones=extent.nr_zones + 1,
        size=extent.size + zone.size,
        capacity=extent.capacity + zone.capacity,
        written=extent.written + zone.capacity,
        condition=condition,
    )


def file_names(zones: Iterable[Zone], aggregate_conventional: bool) -> dict[int, str]:
    """Return the file name, such as ``seq/0``, of every zone that has one; zones of one file have the same name."""
    layout = build_layout(zones, aggregate_conventional=aggregate_conventional)
    return {
        extent.number + more: f"{group}/{index}"
        for group, extents in zip(GROUPS, layout, strict=True)
        for index, extent in enumerate(extents)
        for more in range(extent.nr_zones)
    }


def parse_file_name(name: bytes) -> int | None:
    """Return the index that *name* writes as a decimal number without leading zeros; None for any other name."""
    if not name.isdigit() or len(name) > MAX_NAME_LENGTH or (name[:1] == b"0" and len(name) > 1):
        return None
    return int(name)

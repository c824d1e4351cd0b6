"""Which zones of which device lie where in a linear device. Immutable; who changes it makes another one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import UserError
from zonefs_py.zone import Zone


@dataclass(frozen=True, eq=False)
class Slice:
    """Zones of a device that follow each other: *nr_zones* from zone *first* on; to the device's end, if None."""

    device: ZonedDevice
    first: int = 0
    nr_zones: int | None = None


class Row(NamedTuple):
    """One slice in its place. ``number`` and ``start`` count in the whole, ``first`` and ``offset`` in the part."""

    device: ZonedDevice
    number: int
    nr_zones: int
    start: int
    first: int
    offset: int


ZoneShape = tuple[int, int, bool]
"""Of a zone: size, capacity and whether it is conventional."""


class Table:
    """Which slice lies where. Immutable."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        """Raises UserError if *slices* do not make one device, DeviceError if one cannot be reported."""
        if not slices:
            raise UserError("a linear device needs at least one part")
        self.devices = list(dict.fromkeys(piece.device for piece in slices))
        first = slices[0].device.info
        self.zone_size, self.block_size = first.zone_size, first.block_size
        self.rows: list[Row] = []
        shape: list[ZoneShape] = []
        seen: dict[ZoneShape, ZoneShape] = {}
        start = 0
        for piece in slices:
            zones = self._zones_of(piece)
            if shape and shape[-1][0] != self.zone_size:
                raise UserError(
                    f"{self.rows[-1].device.info.name} ends in a smaller zone, so nothing can follow it:"
                    " leave that zone out, or put the part last"
                )
            self.rows.append(Row(piece.device, len(shape), len(zones), start, piece.first, zones[0].start))
            for zone in zones:
                entry = (zone.size, zone.capacity, zone.is_conventional)
                # One object for all zones that are alike: a device may have a hundred thousand.
                shape.append(seen.setdefault(entry, entry))
            start += sum(zone.size for zone in zones)
        self._check_overlaps()
        self.size = start
        self.nr_zones = len(shape)
        self.shape = shape
        """What must stay the same when a table is replaced, one entry a zone."""
        self._starts = [row.start for row in self.rows]
        self._numbers = [row.number for row in self.rows]

    def _zones_of(self, piece: Slice) -> list[Zone]:
        info = piece.device.info
        for name, here, there in (
            ("zones", self.zone_size, info.zone_size),
            ("blocks", self.block_size, info.block_size),
        ):
            if here != there:
                raise UserError(f"{info.name} has {name} of {there} bytes, the part before it of {here}")
        last = info.nr_zones - 1 if piece.nr_zones is None else piece.first + piece.nr_zones - 1
        if not 0 <= piece.first <= last < info.nr_zones:
            raise UserError(f"{info.name} has zones 0 to {info.nr_zones - 1}, not {piece.first} to {last}")
        return piece.device.report_zones(piece.first, last - piece.first + 1)

    def _check_overlaps(self) -> None:
        for device in self.devices:
            spans = sorted((row.first, row.nr_zones) for row in self.rows if row.device is device)
            end = 0
            for first, nr_zones in spans:
                if first < end:
                    raise UserError(f"{device.info.name}: zone {first} is used twice")
                end = first + nr_zones

    def row_at(self, offset: int) -> Row:
        """The slice that *offset* is in."""
        return self.rows[bisect_right(self._starts, offset) - 1]

    def row_of(self, number: int) -> Row:
        """The slice that has zone *number*."""
        return self.rows[bisect_right(self._numbers, number) - 1]

    def check(self, offset: int, length: int) -> None:
        """Raise ValueError unless the span is whole blocks in one zone, or in neighbouring conventional zones."""
        block = self.block_size
        if offset % block or length % block or offset < 0 or length <= 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset}: not whole blocks of {block} within {self.size}")
        first, last = offset // self.zone_size, (offset + length - 1) // self.zone_size
        if first != last and not all(conventional for _, _, conventional in self.shape[first : last + 1]):
            raise ValueError(f"{length} bytes at {offset} cross a zone boundary")

    def pieces(self, offset: int, length: int) -> Iterator[tuple[ZonedDevice, int, int]]:
        """Cut a span where another slice begins: device, offset there, length."""
        self.check(offset, length)
        while length:
            row = self.row_at(offset)
            piece = min(length, row.start + row.nr_zones * self.zone_size - offset)
            yield row.device, offset - row.start + row.offset, piece
            offset, length = offset + piece, length - piece

    def zone(self, number: int) -> tuple[ZonedDevice, int]:
        """The device that has zone *number*, and its number there. Raises ValueError."""
        if not 0 <= number < self.nr_zones:
            raise ValueError(f"zone {number} of {self.nr_zones}")
        row = self.row_of(number)
        return row.device, number - row.number + row.first

"""Turns source extents and a destination into commands within a device's limits. Pure; all numbers are bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zonefs_py.copy.limits import CopyLimits
from zonefs_py.device.copy_command import total_length
from zonefs_py.units import round_down
from zonefs_py.zone import CopyRange


class CopyCommand(NamedTuple):
    """What is asked of a device at once: ranges whose destinations follow each other."""

    ranges: tuple[CopyRange, ...]

    @property
    def length(self) -> int:
        """Bytes of all ranges."""
        return total_length(self.ranges)


def gather(sources: Iterable[tuple[int, int]], destination: int) -> list[CopyRange]:
    """Return the ranges that lay *sources* (offset, length) end to end from *destination* on."""
    ranges = []
    for offset, length in sources:
        ranges.append(CopyRange(offset, destination, length))
        destination += length
    return ranges


def cut_at(ranges: Iterable[CopyRange], boundary: int) -> Iterator[CopyRange]:
    """Yield *ranges* in order, cut where either end comes to a multiple of *boundary*."""
    for source, destination, length in ranges:
        while length:
            piece = min(length, boundary - source % boundary, boundary - destination % boundary)
            yield CopyRange(source, destination, piece)
            source, destination, length = source + piece, destination + piece, length - piece


def split_aligned(ranges: Iterable[CopyRange], alignment: int) -> Iterator[CopyRange]:
    """Yield *ranges* in order, each cut so that as much as possible of it is a multiple of *alignment* in all numbers.

    That is its middle, if source and destination are as far from a multiple as each other; nothing, if they are not.
    """
    for source, destination, length in ranges:
        head = min(length, -source % alignment)
        middle = round_down(length - head, alignment)
        if (source - destination) % alignment or not middle:
            yield CopyRange(source, destination, length)
            continue
        done = 0
        for size in (head, middle, length - head - middle):
            if size:
                yield CopyRange(source + done, destination + done, size)
            done += size


def join(ranges: Iterable[CopyRange], boundary: int, most: int) -> Iterator[CopyRange]:
    """Yield *ranges* with those made one that follow each other at both ends, but not across a *boundary*.

    Nor are more looked at than it takes to yield the next: what has come to *most* bytes is yielded, as far as it is a
    multiple of that, which is where it would be cut anyway.
    """
    current: CopyRange | None = None
    for piece in ranges:
        if current is not None:
            source, destination, length = current
            follows = (source + length, destination + length) == (piece.source, piece.destination)
            if follows and piece.source % boundary and piece.destination % boundary:
                piece = CopyRange(source, destination, length + piece.length)
            else:
                yield current
        whole = round_down(piece.length, most)
        if whole:
            yield piece._replace(length=whole)
        source, destination, length = piece
        current = CopyRange(source + whole, destination + whole, length - whole) if length > whole else None
    if current is not None:
        yield current


def plan(ranges: Iterable[CopyRange], limits: CopyLimits, zone_size: int, alignment: int = 1) -> Iterator[CopyCommand]:
    """Return the commands, in order, that copy *ranges* within *limits*. ValueError if those do not allow offload.

    There can be millions of them: each is made when it is asked for.

    No command is longer than ``copy_max_bytes``, has a range above ``copy_max_range_bytes`` or more than
    ``copy_max_nr_ranges`` ranges; no range crosses the end of a zone at either side, and no command at its
    destination. Within that, each is as large as can be without a cut in the middle of *alignment*, which is what the
    best way of copying needs; ranges that are not aligned to it are cut where they come to be (see `split_aligned`).
    """
    if not limits.offload:
        raise ValueError("with these limits the device must not be asked to copy")
    return _commands(ranges, limits, zone_size, alignment)


def _commands(ranges: Iterable[CopyRange], limits: CopyLimits, zone_size: int, alignment: int) -> Iterator[CopyCommand]:
    current: list[CopyRange] = []
    room = limits.copy_max_bytes
    most = min(limits.copy_max_range_bytes, limits.copy_max_bytes)
    for source, destination, length in split_aligned(cut_at(ranges, zone_size), alignment):
        if current and not destination % zone_size:
            yield CopyCommand(tuple(current))
            current, room = [], limits.copy_max_bytes
        # A piece that is aligned stays so when it is cut, unless a limit is below the alignment.
        unit = alignment if not (source | destination) % alignment and alignment <= min(length, most) else 1
        while length:
            part = min(length, most, room)
            part = round_down(part, unit) if part < length else part
            if current and (not part or len(current) == limits.copy_max_nr_ranges):
                yield CopyCommand(tuple(current))
                current, room = [], limits.copy_max_bytes
                continue
            current.append(CopyRange(source, destination, part))
            source, destination, length, room = source + part, destination + part, length - part, room - part
    if current:
        yield CopyCommand(tuple(current))

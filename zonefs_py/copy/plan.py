"""Turns source extents and a destination into commands within a device's limits. Pure; all numbers are bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zonefs_py.copy.limits import CopyLimits
from zonefs_py.zone import CopyRange


class CopyCommand(NamedTuple):
    """What is asked of a device at once: ranges whose destinations follow each other."""

    ranges: tuple[CopyRange, ...]

    @property
    def length(self) -> int:
        """Bytes of all ranges."""
        return sum(part.length for part in self.ranges)


def gather(sources: Iterable[tuple[int, int]], destination: int) -> list[CopyRange]:
    """Return the ranges that lay *sources* (offset, length) end to end from *destination* on."""
    ranges = []
    for offset, length in sources:
        ranges.append(CopyRange(offset, destination, length))
        destination += length
    return ranges


def cut(ranges: Iterable[CopyRange], most: int) -> Iterator[CopyRange]:
    """Yield *ranges* in order, in parts of at most *most* bytes each."""
    for part in ranges:
        for done in range(0, part.length, most):
            yield CopyRange(part.source + done, part.destination + done, min(most, part.length - done))


def plan(ranges: Iterable[CopyRange], limits: CopyLimits) -> list[CopyCommand]:
    """Return the commands, in order, that copy *ranges* within *limits*. ValueError if those do not allow offload.

    No command is longer than ``copy_max_bytes``, has a range above ``copy_max_range_bytes`` or more than
    ``copy_max_nr_ranges`` ranges; each is as large as that allows.
    """
    if not limits.offload:
        raise ValueError("with these limits the device must not be asked to copy")
    commands: list[CopyCommand] = []
    current: list[CopyRange] = []
    room = limits.copy_max_bytes
    most = min(limits.copy_max_range_bytes, limits.copy_max_bytes)
    for whole in ranges:
        source, destination, length = whole
        while length:
            if current and (not room or len(current) == limits.copy_max_nr_ranges):
                commands.append(CopyCommand(tuple(current)))
                current, room = [], limits.copy_max_bytes
            part = min(length, most, room)
            current.append(CopyRange(source, destination, part))
            source, destination, length, room = source + part, destination + part, length - part, room - part
    if current:
        commands.append(CopyCommand(tuple(current)))
    return commands

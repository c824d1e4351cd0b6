"""What a copy command may be: the caller's side of `ZonedDevice.copy`. Pure; all numbers are bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from zonefs_py.zone import CopyRange, DeviceInfo


def total_length(ranges: Iterable[CopyRange]) -> int:
    """Return the bytes of all *ranges*."""
    return sum(piece.length for piece in ranges)


def part_of(ranges: Iterable[CopyRange], start: int, end: int) -> Iterator[CopyRange]:
    """Yield what lies from *start* to *end* (bytes from the start of the first) of *ranges* laid end to end."""
    for source, destination, length in ranges:
        low, high = max(start, 0), min(end, length)
        if low < high:
            yield CopyRange(source + low, destination + low, high - low)
        start, end = start - length, end - length


def cut(ranges: Iterable[CopyRange], most: int) -> Iterator[CopyRange]:
    """Yield *ranges* in order, in parts of at most *most* bytes each."""
    for source, destination, length in ranges:
        for done in range(0, length, most):
            yield CopyRange(source + done, destination + done, min(most, length - done))


def check_command(ranges: Sequence[CopyRange], info: DeviceInfo) -> None:
    """Raise ValueError, which says why, unless *ranges* are a command that a device such as *info* says may be given.

    That is what `ZonedDevice.copy` asks of its caller. Whether the device can do it is another matter.
    """
    if not ranges:
        raise ValueError("a copy of no range")
    if len(ranges) > info.copy_max_nr_ranges_hw:
        raise ValueError(f"a copy of {len(ranges)} ranges: {info.name} takes {info.copy_max_nr_ranges_hw}")
    start = end = ranges[0].destination
    for source, destination, length in ranges:
        if (source | destination | length) % info.block_size or source < 0 or destination < 0 or length <= 0:
            raise ValueError(
                f"a copy of {length} bytes from {source} to {destination}: not whole blocks of {info.block_size}"
            )
        if length > info.copy_max_range_hw_bytes:
            raise ValueError(f"a copy of a range of {length} bytes: {info.name} takes {info.copy_max_range_hw_bytes}")
        if destination != end:
            raise ValueError(f"a copy to {destination} after one that ends at {end}: destinations follow each other")
        _check_zone(source, length, info)
        end += length
    if end - start > info.copy_max_hw_bytes:
        raise ValueError(f"a copy of {end - start} bytes: {info.name} takes {info.copy_max_hw_bytes}")
    _check_zone(start, end - start, info)
    for source, _, length in ranges:
        if source < end and start < source + length:
            raise ValueError(f"a copy of {length} bytes from {source} overlaps its destination, {start} to {end}")


def _check_zone(offset: int, length: int, info: DeviceInfo) -> None:
    if offset + length > info.size:
        raise ValueError(f"a copy of {length} bytes at {offset}: the device has {info.size}")
    if offset // info.zone_size != (offset + length - 1) // info.zone_size:
        raise ValueError(f"a copy of {length} bytes at {offset} crosses a zone boundary")

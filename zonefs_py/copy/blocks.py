"""Copies of ranges of a whole device, as the block layer's blkdev_issue_copy of the Linux copy-offload series does.

Here is no file system: whoever copies over its superblock or its files has done so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zonefs_py.copy.abi import share_out
from zonefs_py.copy.engine import CopyEngine
from zonefs_py.copy.plan import gather
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import DeviceError, InvalidRequest, NotAligned, NotPermitted, OutOfMemory
from zonefs_py.units import MIB

MAX_COPY_NR_RANGES = 4095
MAX_COPY_TOTAL_BYTES = 128 * MIB
"""One byte more than the ranges of one `copy_blocks` may be together."""


class BlocksCopied(NamedTuple):
    """How many bytes of each range are known to be copied, from its start; and what stopped it, None if nothing."""

    completed: tuple[int, ...]
    error: DeviceError | OutOfMemory | None


def check_pieces(ranges: Iterable[Sequence[int]], destination: int, block_size: int) -> None:
    """Check offsets and lengths of *ranges* and where they go: all but what a device or a file says to them.

    Raises InvalidRequest for a length of 0 first, then NotAligned, and InvalidRequest for negative numbers.
    """
    ranges = list(ranges)
    if any(length == 0 for _, length in ranges):
        raise InvalidRequest("copy of a range of 0 bytes")
    for source, length in ranges:
        if (source | length | destination) % block_size:
            raise NotAligned(
                f"copy of {length} bytes from {source} to {destination}: not multiples of the block size, {block_size}"
            )
        if source < 0 or length < 0 or destination < 0:
            raise InvalidRequest(f"copy of {length} bytes from {source} to {destination}")
        destination += length


def copy_blocks(
    device: ZonedDevice, ranges: Sequence[tuple[int, int]], destination: int, engine: CopyEngine | None = None
) -> BlocksCopied:
    """Copy *ranges* (offset, length) of *device*, one after the other, to *destination*: bytes from its start.

    *engine* is the copy path of the device, if there is one already. The device's zones have the last word: sequential
    ones are written at their write pointer and up to their capacity, and what does not fit is an error of the device,
    with all before it copied.

    Refused, with nothing changed, and in this order: no range, or more than `MAX_COPY_NR_RANGES` (InvalidRequest); a
    read-only device (NotPermitted); a range of 0 bytes (InvalidRequest); a number that is not a multiple of the block
    size (NotAligned); `MAX_COPY_TOTAL_BYTES` in all or more; what is not on the device; overlapping (InvalidRequest).
    """
    if not 1 <= len(ranges) <= MAX_COPY_NR_RANGES:
        raise InvalidRequest(f"copy of {len(ranges)} ranges: there can be 1 to {MAX_COPY_NR_RANGES}")
    if device.info.read_only:
        raise NotPermitted(f"{device.info.name} is read-only")
    check_pieces(ranges, destination, device.info.block_size)
    lengths = [length for _, length in ranges]
    if sum(lengths) >= MAX_COPY_TOTAL_BYTES:
        raise InvalidRequest(f"copy of {sum(lengths)} bytes: at once it must be less than {MAX_COPY_TOTAL_BYTES}")
    _check_places(ranges, destination, sum(lengths), device.info.size)
    if engine is None:
        engine = CopyEngine(device)
    result = engine.copy(gather(ranges, destination))
    return BlocksCopied(share_out(result.completed, lengths), result.error)


def _check_places(ranges: Sequence[tuple[int, int]], destination: int, total: int, size: int) -> None:
    for start, length in (*ranges, (destination, total)):
        if start + length > size:
            raise InvalidRequest(f"{length} bytes at {start}: the device has {size}")
    for source, length in ranges:
        if source < destination + total and destination < source + length:
            raise InvalidRequest(
                f"copy of {length} bytes from {source} overlaps the destination, {total} bytes at {destination}"
            )

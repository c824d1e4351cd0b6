"""Whether two files of the host hold the same: proved by where their data lies, or by reading them.

After a reflink two files share extents, and a shared extent is never written in place. So two files that lie in the
same places of the same file system hold the same bytes, whatever their times say, and a look at the maps costs the same
for a byte and for a gigabyte.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator

from zonefs_py.device.host_copy import data_ranges
from zonefs_py.device.host_files import read_fully
from zonefs_py.errors import is_not_possible
from zonefs_py.units import MIB

FS_IOC_FIEMAP = 0xC020660B
"""_IOWR('f', 11, struct fiemap), linux/fs.h."""

# linux/fiemap.h; Documentation/filesystems/fiemap.rst has their meaning.
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_FLAG_SYNC = 0x1
_LAST = 0x1
_UNWRITTEN = 0x800
_UNCERTAIN = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
"""Unknown, not yet placed, encoded (compressed), encrypted, not aligned, inline, tail: the place says nothing then."""

_EXTENTS_A_CALL = 64
_PIECE_SIZE = 1 * MIB

_Extent = tuple[int, int, int, bool]
"""Offset in the file, place, length; and whether it is set aside but not written, and so reads as zeros."""


def same_extents(one: int, other: int) -> bool:
    """Whether the files *one* and *other*, open descriptors, are known to hold the same for where their data lies.

    They are of one file system and of the same size, and nobody writes to them. What is dirty of them is written to the
    disk first. False says nothing: they may hold the same elsewhere, or the file system does not tell. Raises OSError.
    """
    maps = [_extents(descriptor) for descriptor in (one, other)]
    return maps[0] is not None and maps[0] == maps[1]


def same_content(one: int, other: int) -> bool:
    """Whether two files, open descriptors, hold the same bytes; holes are zeros. Raises OSError."""
    size = os.fstat(one).st_size
    if os.fstat(other).st_size != size:
        return False
    buffers = memoryview(bytearray(_PIECE_SIZE)), memoryview(bytearray(_PIECE_SIZE))
    # Where both have holes nothing need be read.
    for descriptor in (one, other):
        for start, end in data_ranges(descriptor, size):
            for offset in range(start, end, _PIECE_SIZE):
                pieces = [buffer[: min(_PIECE_SIZE, end - offset)] for buffer in buffers]
                if read_fully(one, pieces[0], offset) != read_fully(other, pieces[1], offset) or pieces[0] != pieces[1]:
                    return False
    return True


def _extents(descriptor: int) -> list[_Extent] | None:
    """Return where the data of a file lies, without holes; None if that is not known for all of it."""
    found: list[_Extent] = []
    try:
        for logical, physical, length, flags in _fiemap(descriptor):
            if flags & _UNCERTAIN:
                return None
            unwritten = bool(flags & _UNWRITTEN)
            before = found[-1] if found else None
            # Two maps of the same places may be cut differently.
            if before and (before[0] + before[2], before[1] + before[2], before[3]) == (logical, physical, unwritten):
                found[-1] = (before[0], before[1], before[2] + length, unwritten)
            else:
                found.append((logical, physical, length, unwritten))
    except OSError as exc:
        if is_not_possible(exc):
            return None
        raise
    return found


def _fiemap(descriptor: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield offset, place, length and flags of all extents of a file, in order."""
    start = 0
    while True:
        request = bytearray(_HEADER.size + _EXTENTS_A_CALL * _EXTENT.size)
        _HEADER.pack_into(request, 0, start, (1 << 64) - 1 - start, _FLAG_SYNC, 0, _EXTENTS_A_CALL, 0)
        fcntl.ioctl(descriptor, FS_IOC_FIEMAP, request)
        mapped = _HEADER.unpack_from(request)[3]
        for index in range(mapped):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(
                request, _HEADER.size + index * _EXTENT.size
            )
            yield logical, physical, length, flags
            if flags & _LAST:
                return
            start = logical + length
        if not mapped:
            return

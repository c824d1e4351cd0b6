"""The copy ioctl as bytes: docs/zonefs-py.h in Python. Pure.

FUSE's ioctl is restricted: the kernel carries as many bytes as the command's number says, there and back, and gives
the caller none of them back when the ioctl itself fails. So the size, and with it the number of ranges, is part of the
command, and what a copy came to is a field of the structure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from zonefs_py.errors import InvalidRequest
from zonefs_py.units import GIB

MAX_RANGES = 510
"""A command's size has 14 bits."""

MAX_TOTAL_BYTES = GIB
"""Bytes of all ranges of one copy: as for copy_file_range, since a signal waits for the end of it."""

AT_WRITE_POINTER = (1 << 64) - 1

_HEADER = struct.Struct("=4Q")
_RANGE = struct.Struct("=4Q")
_DIRECTION = 3  # _IOC_READ | _IOC_WRITE, asm-generic/ioctl.h
_TYPE = ord("Z")
_NUMBER = 0x81
_SIZE_SHIFT, _SIZE_MASK = 16, 0x3FFF
_FIXED = _DIRECTION << 30 | _TYPE << 8 | _NUMBER


class SourceRange(NamedTuple):
    """*length* bytes at *offset* of the file with inode number *inode*."""

    inode: int
    offset: int
    length: int


class CopyRequest(NamedTuple):
    """What is asked for: *sources* one after the other to *offset*; None is at the write pointer."""

    offset: int | None
    sources: tuple[SourceRange, ...]


class CopyReply(NamedTuple):
    """What came of it: where the copy began (None: it did not), the errno (0: all is copied), bytes by range."""

    offset: int | None
    result: int
    completed: tuple[int, ...]


def command(nr_ranges: int) -> int:
    """Return the ioctl command for *nr_ranges* ranges. Raises ValueError for a number that no command has."""
    if not 1 <= nr_ranges <= MAX_RANGES:
        raise ValueError(f"{nr_ranges} ranges: one ioctl copies 1 to {MAX_RANGES}")
    return _FIXED | (_HEADER.size + nr_ranges * _RANGE.size) << _SIZE_SHIFT


def is_copy(command: int) -> bool:
    """Whether *command* is the copy ioctl, of any size, right or wrong."""
    return command & ~(_SIZE_MASK << _SIZE_SHIFT) == _FIXED


def pack_request(request: CopyRequest) -> bytearray:
    """Return the bytes of *request*. Raises ValueError for numbers that do not fit."""
    offset = AT_WRITE_POINTER if request.offset is None else request.offset
    try:
        packed = bytearray(_HEADER.pack(len(request.sources), offset, 0, 0))
        for source in request.sources:
            packed += _RANGE.pack(*source, 0)
    except struct.error as exc:
        raise ValueError(f"{request}: {exc}") from None
    return packed


def parse_request(data: bytes) -> CopyRequest:
    """Return what *data*, as long as its command says, asks for. Raises InvalidRequest where it is malformed."""
    nr_ranges, rest = divmod(len(data) - _HEADER.size, _RANGE.size)
    if rest or not 1 <= nr_ranges <= MAX_RANGES:
        raise InvalidRequest(f"copy ioctl of {len(data)} bytes")
    told, offset, _, reserved = _HEADER.unpack_from(data)
    if told != nr_ranges:
        raise InvalidRequest(f"copy ioctl of {told} ranges with a command for {nr_ranges}")
    if reserved:
        raise InvalidRequest(f"copy ioctl: the reserved field is {reserved:#x}, not 0")
    sources = tuple(SourceRange(*fields[:3]) for fields in _RANGE.iter_unpack(data[_HEADER.size :]))
    return CopyRequest(None if offset == AT_WRITE_POINTER else offset, sources)


def pack_reply(data: bytes, reply: CopyReply) -> bytes:
    """Return the request *data* with *reply* filled in; there is one completed length a range."""
    packed = bytearray(data)
    nr_ranges, offset, _, reserved = _HEADER.unpack_from(data)
    _HEADER.pack_into(packed, 0, nr_ranges, offset if reply.offset is None else reply.offset, reply.result, reserved)
    for number, completed in enumerate(reply.completed):
        at = _HEADER.size + number * _RANGE.size
        _RANGE.pack_into(packed, at, *_RANGE.unpack_from(data, at)[:3], completed)
    return bytes(packed)


def parse_reply(data: bytes | bytearray, nr_ranges: int) -> CopyReply:
    """Return what the kernel gave back for a request of *nr_ranges* ranges."""
    _, offset, result, _ = _HEADER.unpack_from(data)
    completed = tuple(_RANGE.unpack_from(data, _HEADER.size + number * _RANGE.size)[3] for number in range(nr_ranges))
    return CopyReply(None if offset == AT_WRITE_POINTER else offset, result, completed)


def share_out(completed: int, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return how much of each of *lengths*, copied in order, is done when *completed* bytes of all are."""
    shares = []
    for length in lengths:
        share = min(length, completed)
        shares.append(share)
        completed -= share
    return tuple(shares)

"""The copy ioctl for Python programs that use a mount; docs/zonefs-py.h has it for C."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import Protocol

from zonefs_py.copy import abi
from zonefs_py.errors import DifferentFilesystems, ZonefsError


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


File = int | _HasFileno


class CopyRangesError(OSError):
    """A copy of ranges was refused or stopped: ``errno`` says why, ``completed`` how far it came.

    ``completed`` has the bytes that are known to be copied of each range, from its beginning.
    """

    def __init__(self, number: int, completed: Sequence[int]) -> None:
        super().__init__(number, os.strerror(number))
        self.completed = list(completed)


def copy_ranges(file: File, ranges: Sequence[tuple[File, int, int]], offset: int | None = None) -> list[int]:
    """Copy *ranges* (file, offset, length), one after the other, into *file*; return the length copied of each.

    All are open zone files of one zonefs-py mount, or their descriptors; *file* is open for writing, and the caller
    has permission to read the others. *offset* is where the first range goes; None is at the write pointer of a
    sequential file. Offsets and lengths are bytes, and multiples of the block size. Nothing is copied unless all can
    be. Raises CopyRangesError; ValueError for no ranges, more than 510, or numbers that are not of 64 bits. Other
    threads of the interpreter may have to wait for a copy of more than 31 ranges.
    """
    target = os.fstat(_descriptor(file))
    sources = [(os.fstat(_descriptor(source)), start, length) for source, start, length in ranges]
    nothing = [0] * len(sources)
    if any(status.st_dev != target.st_dev for status, _, _ in sources):
        raise CopyRangesError(DifferentFilesystems.errno, nothing)
    wanted = tuple(abi.SourceRange(status.st_ino, start, length) for status, start, length in sources)
    command = abi.command(len(wanted))
    data = abi.pack_request(abi.CopyRequest(offset, wanted))
    try:
        fcntl.ioctl(_descriptor(file), command, data, True)
    except OSError as exc:
        raise CopyRangesError(exc.errno or ZonefsError.errno, nothing) from exc
    reply = abi.parse_reply(data, len(wanted))
    if reply.result:
        raise CopyRangesError(reply.result, reply.completed)
    return list(reply.completed)


def _descriptor(file: File) -> int:
    return file if isinstance(file, int) else file.fileno()

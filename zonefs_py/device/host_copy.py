"""Copies between files of one host file system without the data passing through us: reflinks and copy_file_range(2)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator

from zonefs_py.errors import is_not_possible, is_past_the_end
from zonefs_py.units import round_down
from zonefs_py.zone import CopyMethod

FICLONERANGE = 0x4020940D
"""_IOW(0x94, 13, struct file_clone_range), linux/fs.h; ioctl_ficlonerange(2)."""

_CLONE_RANGE = struct.Struct("qQQQ")
_PROBE_SIZE = 64 * 1024
_PIECE_SIZE = 64 * 1024 * 1024
"""Bytes that one call copies: between two, Ctrl-C counts."""


def _clone(reader: int, source: int, writer: int, destination: int, length: int) -> None:
    fcntl.ioctl(writer, FICLONERANGE, _CLONE_RANGE.pack(reader, source, length, destination))


class PartialCopy(OSError):
    """A copy failed after ``completed`` bytes, which are there."""

    def __init__(self, cause: OSError, completed: int) -> None:
        super().__init__(cause.errno, cause.strerror)
        self.completed = completed


def reflink_alignment(directory: int) -> int:
    """Return what reflinks in *directory*, an open descriptor, must be aligned to in bytes; 0 where there are none.

    Tried out on two nameless files: no file system type tells for sure.
    """
    block = os.fstatvfs(directory).f_bsize
    files: list[int] = []
    try:
        while len(files) < 2:
            files += [os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)]
        os.pwrite(files[0], bytes(_PROBE_SIZE), 0)
        _clone(files[0], 0, files[1], 0, _PROBE_SIZE)
        return block
    except OSError:
        return 0
    finally:
        for file in files:
            os.close(file)


def methods(alignment: int) -> tuple[CopyMethod, ...]:
    """Return how files can be copied, best first, where reflinks need *alignment* (0: there are none)."""
    return (CopyMethod.REFLINK, CopyMethod.HOST) if alignment else (CopyMethod.HOST,)


def copy(
    reader: int, source: int, writer: int, destination: int, length: int, method: CopyMethod, alignment: int
) -> bool:
    """Copy *length* bytes between two files by *method*; zeros where the source ends before.

    *alignment* is what a reflink needs. Returns whether all of it is one, so that nothing new is in memory only. Raises
    PartialCopy, and then the destination may hold more than is known to be copied.
    """
    done = 0
    try:
        available = max(0, min(length, os.fstat(reader).st_size - source))
        if method is CopyMethod.REFLINK:
            # A part of a block can be shared only where both files end.
            whole = round_down(available, alignment)
            if whole:
                _clone(reader, source, writer, destination, whole)
                done = whole
            if done == length:
                return True
        while done < available:
            copied = os.copy_file_range(reader, writer, available - done, source + done, destination + done)
            if not copied:
                break
            done += copied
        if done < length:
            _zero(writer, destination + done, length - done)
    except OSError as exc:
        raise PartialCopy(exc, done) from exc
    return False


def copy_out(reader: int, writer: int, length: int, progress: Callable[[int], None]) -> bool:
    """Copy the first *length* bytes of a file into an empty one: as a reflink, else what of them is no hole.

    *progress* is called with the bytes done. Returns False if these two files cannot be copied so: then nothing, or
    only zeros, need be there. Raises OSError.
    """
    available = min(length, os.fstat(reader).st_size)
    if not available:
        return True
    try:
        _clone(reader, 0, writer, 0, available)
    except OSError as exc:
        if not is_not_possible(exc):
            raise
    else:
        progress(available)
        return True
    for start, end in data_ranges(reader, available):
        done = start
        while done < end:
            try:
                copied = os.copy_file_range(reader, writer, min(end - done, _PIECE_SIZE), done, done)
            except OSError as exc:
                if done == start and is_not_possible(exc):
                    return False
                raise
            if not copied:
                return True  # the file has become shorter
            done += copied
            progress(done)
    return True


def data_ranges(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where data begins and ends in the first *size* bytes of *file*: there are holes between."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as exc:
            if is_past_the_end(exc):
                return
            raise
        if start >= size:
            return
        end = min(os.lseek(file, start, os.SEEK_HOLE), size)
        yield start, end


def _zero(writer: int, start: int, length: int) -> None:
    size = os.fstat(writer).st_size
    inside = max(0, min(length, size - start))
    done = 0
    zeros = bytes(min(inside, _PROBE_SIZE))
    while done < inside:
        done += os.pwrite(writer, zeros[: inside - done], start + done)
    if start + length > size:
        os.ftruncate(writer, start + length)

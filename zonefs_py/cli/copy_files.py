"""The files of ``zonefs-py copy``: what each is, what can be copied where, and how bytes get from one to another."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

from zonefs_py.config import FILESYSTEM_TYPE
from zonefs_py.control.mounts import list_mounts
from zonefs_py.errors import UserError, describe_os_error, naming_errors
from zonefs_py.units import MIB, SECTOR_SIZE

BUFFER_SIZE = 1 * MIB


class Kind(Enum):
    """What a file is to a copy; the values are the directories of zone files."""

    ORDINARY = ""
    CONVENTIONAL = "cnv"
    SEQUENTIAL = "seq"


@dataclass(frozen=True)
class CopyFile:
    """A file as it was when it was looked at. ``capacity`` is None where nothing bounds it but the disk."""

    path: str
    kind: Kind
    identity: tuple[int, int] | None
    """Device and inode; None: the file does not exist yet."""
    size: int = 0
    capacity: int | None = None
    block_size: int = 1
    """Lengths written to it must be multiples of this."""


@dataclass(frozen=True)
class Part:
    """What one source adds to the destination, at ``offset`` there; ``length`` counts the padding."""

    source: CopyFile
    offset: int
    length: int


def examine(path: str, *, missing_ok: bool = False) -> CopyFile:
    """Look at *path*. Raises UserError for what cannot be copied, OSError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if missing_ok and not _on_zonefs(os.stat(os.path.dirname(path) or ".")):
            return CopyFile(path, Kind.ORDINARY, None)
        raise
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a directory; name a file, such as seq/0 of a mount")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file")
    identity = status.st_dev, status.st_ino
    if not _on_zonefs(status):
        if not status.st_size and not missing_ok and _has_data(path):
            raise UserError(f"{path} has data, but says that it is empty; copy it into an ordinary file first")
        return CopyFile(path, Kind.ORDINARY, identity, status.st_size)
    # A mounted zonefs tells by the directory what a file is, and by its allocated blocks what it can hold.
    try:
        kind = Kind(os.path.basename(os.path.dirname(os.path.realpath(path))))
    except ValueError:
        raise UserError(f"{path} is a zone file, but not below its directory; name it by MOUNTPOINT/seq/N") from None
    return CopyFile(
        path,
        kind,
        identity,
        status.st_size,
        status.st_blocks * SECTOR_SIZE,
        status.st_blksize if kind is Kind.SEQUENTIAL else 1,
    )


def _has_data(path: str) -> bool:
    """Whether something can be read from *path*: files of procfs have content, but no size. Raises OSError."""
    with open(path, "rb", buffering=0) as stream:
        return bool(stream.read(1))


def _on_zonefs(status: os.stat_result) -> bool:
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return any(mount.device == device and mount.type == FILESYSTEM_TYPE for mount in list_mounts())


def plan_parts(sources: Sequence[CopyFile], destination: CopyFile, *, append: bool, pad: bool) -> list[Part]:
    """Return what is copied where, sources in order. Raises UserError where that cannot be done as a whole."""
    path, block = destination.path, destination.block_size
    if destination.kind is Kind.CONVENTIONAL:
        if append:
            raise UserError(f"{path} is a conventional zone file: it has no write pointer to append at")
        for source in sources:
            if source.identity == destination.identity:
                raise UserError(f"{path} is both source and destination")
    elif destination.size and not append:
        raise UserError(f"{path} is not empty; --append adds to it")
    start = offset = destination.size if append else 0
    parts = []
    for source in sources:
        surplus = source.size % block
        if surplus and not pad:
            raise UserError(
                f"{source.path}: {source.size} bytes are no multiple of the block size, {block}, as {path} needs;"
                " --pad fills the last block with zeros"
            )
        length = source.size + (block - surplus if surplus else 0)
        parts.append(Part(source, offset, length))
        offset += length
    if destination.capacity is not None and offset > destination.capacity:
        raise UserError(f"{path} has room for {destination.capacity - start} bytes, but {offset - start} are to come")
    return parts


def open_source(source: CopyFile) -> int:
    """Open *source* for reading, and see that it can be read. Raises OSError."""
    descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The file of a zone that is offline looks empty; only a read tells.
        with naming_errors(source.path):
            os.pread(descriptor, 1, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_destination(destination: CopyFile) -> int:
    """Open *destination* for writing, as it is; only an ordinary file that did not exist is made. Raises OSError."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    if destination.kind is Kind.SEQUENTIAL:
        flags |= os.O_DIRECT
    elif destination.identity is None:
        flags |= os.O_CREAT | os.O_EXCL
    return os.open(destination.path, flags, 0o666)


class DescriptorTarget:
    """An open file to copy to; sources are descriptors too. What runs on one mount never comes through this process."""

    def __init__(self, file: CopyFile, descriptor: int) -> None:
        """*descriptor* is *file* opened for writing, a sequential one with O_DIRECT."""
        self._file = file
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._device = status.st_dev
        self._key = status.st_dev, status.st_ino
        # Direct I/O wants aligned memory on some file systems.
        self._buffer = memoryview(mmap.mmap(-1, BUFFER_SIZE))

    @property
    def name(self) -> str:
        """The path."""
        return self._file.path

    @property
    def key(self) -> Hashable:
        """Device and inode."""
        return self._key

    @property
    def block_size(self) -> int:
        """The block size of a sequential file, else 1."""
        return self._file.block_size

    def end(self) -> int:
        """Return the size of the file."""
        return os.fstat(self._descriptor).st_size

    def copy(self, source: int, source_offset: int, offset: int, length: int) -> int:
        """Copy up to *length* bytes. A last block that the source does not fill is filled with zeros."""
        if os.fstat(source).st_dev == self._device:
            return os.copy_file_range(source, self._descriptor, length, source_offset, offset)
        view = self._buffer[: min(length, BUFFER_SIZE)]
        try:
            done = read_padded(source, source_offset, view, self.block_size)
        except OSError as exc:
            raise UserError(f"the source cannot be read: {describe_os_error(exc)}") from exc
        return os.pwrite(self._descriptor, view[:done], offset) if done else 0


def read_padded(descriptor: int, offset: int, view: memoryview, block_size: int) -> int:
    """Fill *view* with what is at *offset*; at the end of the file only whole blocks of it, with zeros behind the data.

    Returns the bytes filled in, 0 at or past the end. Raises OSError.
    """
    done = 0
    while done < len(view) and (got := os.preadv(descriptor, [view[done:]], offset + done)):
        done += got
    padding = min(-done % block_size, len(view) - done)
    view[done : done + padding] = bytes(padding)
    return done + padding


def compare(parts: Sequence[Part], destination: CopyFile, progress: Callable[[int], None]) -> None:
    """Read back what was copied, not from a cache of this machine's, and compare. Raises UserError, OSError.

    *progress* is called with the offset in the destination up to which it is right.
    """
    reader = os.open(destination.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with naming_errors(destination.path):
            os.fsync(reader)
        os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
        for part in parts:
            _compare_part(part, destination, reader, progress)
    finally:
        os.close(reader)


def _compare_part(part: Part, destination: CopyFile, reader: int, progress: Callable[[int], None]) -> None:
    wanted, got = memoryview(bytearray(BUFFER_SIZE)), memoryview(bytearray(BUFFER_SIZE))
    source = open_source(part.source)
    try:
        for done in range(0, part.length, BUFFER_SIZE):
            length = min(BUFFER_SIZE, part.length - done)
            with naming_errors(part.source.path):
                read_padded(source, done, wanted[:length], destination.block_size)
            with naming_errors(destination.path):
                found = read_padded(reader, part.offset + done, got[:length], 1)
            if found < length or wanted[:length] != got[:length]:
                same = next((i for i in range(found) if wanted[i] != got[i]), found)
                raise UserError(
                    f"{destination.path} differs from {part.source.path} at byte {part.offset + done + same}"
                )
            progress(part.offset + done + length)
    finally:
        os.close(source)

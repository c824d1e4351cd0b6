"""A zone file: the cached view of one file's zones, and every check on reads, writes and truncation.

The ladders follow the order of kernel zonefs (fs/zonefs/file.c), because the order decides which errno an application
sees. Nothing here does I/O. A refused call changes nothing.
"""

from __future__ import annotations

import threading

from zonefs_py.errors import (
    AppendToConventional,
    BeyondCapacity,
    BufferedSequentialWrite,
    InvalidRequest,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    PowerLost,
    ReadOnlyFilesystem,
    ZonefsError,
)
from zonefs_py.fs.layout import CONVENTIONAL_GROUP, SEQUENTIAL_GROUP, FileExtent
from zonefs_py.zone import ZoneCondition, ZoneOp

S_IFREG = 0o100000
PERMISSION_BITS = 0o777
WRITE_BITS = 0o222
SET_UID = 0o4000
SET_GID = 0o2000
GROUP_EXECUTE = 0o010

_DAY_NS = 86_400 * 1_000_000_000


class Inode:
    """What files and directories have in common: number, owner, mode and times (nanoseconds since 1970)."""

    __slots__ = ("atime_ns", "ctime_ns", "gid", "ino", "mode", "mtime_ns", "uid")

    def __init__(self, ino: int, mode: int, uid: int, gid: int, time_ns: int) -> None:
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.atime_ns = self.mtime_ns = self.ctime_ns = time_ns

    def touch_atime(self, now_ns: int) -> bool:
        """Move the access time as ``relatime`` does: when it is not after the others, or a day old. Return whether."""
        if self.atime_ns <= self.mtime_ns or self.atime_ns <= self.ctime_ns or now_ns - self.atime_ns >= _DAY_NS:
            self.atime_ns = now_ns
            return True
        return False


class ZoneFile(Inode):
    """One file. Sizes and offsets are bytes of the file; ``start`` is its first byte on the device.

    A sequential file's ``size`` is its write pointer.
    """

    __slots__ = (
        "active",
        "block_size",
        "bytes_read",
        "bytes_written",
        "capacity",
        "explicitly_open",
        "index",
        "lock",
        "lost",
        "nr_zones",
        "offline",
        "readonly",
        "reads",
        "sequential",
        "size",
        "start",
        "write_opens",
        "writes",
        "zone_size",
    )

    def __init__(
        self,
        extent: FileExtent,
        index: int,
        block_size: int,
        *,
        sequential: bool,
        mode: int,
        uid: int,
        gid: int,
        time_ns: int,
    ) -> None:
        super().__init__(extent.number, S_IFREG | mode, uid, gid, time_ns)
        self.index = index
        self.nr_zones = extent.nr_zones
        self.start = extent.start
        self.zone_size = extent.size
        self.capacity = extent.capacity
        self.block_size = block_size
        self.sequential = sequential
        self.lock = threading.Lock()
        """Guards everything below. Taken before the mount's lock; several files in ascending order of their zones."""
        self.size = extent.written
        self.readonly = extent.condition is ZoneCondition.READONLY
        self.offline = extent.condition is ZoneCondition.OFFLINE
        self.explicitly_open = False
        self.active = False
        self.lost = False
        """Whether this view of the file ended with a power cut: nothing is to be done by it any more."""
        self.write_opens = 0
        self.reads = self.bytes_read = self.writes = self.bytes_written = 0
        if self.offline:
            self.size = 0
        if self.offline or self.readonly:
            # The device does not tell how much of the zone is data, so nothing of it is shown.
            self.mode &= ~PERMISSION_BITS

    @property
    def number(self) -> int:
        """The number of the file's (first) zone."""
        return self.ino

    @property
    def name(self) -> str:
        """The path below the mount point, such as ``seq/0``."""
        return f"{SEQUENTIAL_GROUP if self.sequential else CONVENTIONAL_GROUP}/{self.index}"

    @property
    def immutable(self) -> bool:
        """Whether nobody may write or change the file, because its zone is (taken for) read-only or offline."""
        return self.readonly or self.offline

    def refusal(self, what: str) -> ZonefsError:
        """What to raise for a file that is `immutable`, when it cannot be *what* (``written``, say)."""
        if self.lost:
            return PowerLost(f"{self.name}: the power was cut since it was opened")
        return NotPermitted(f"{self.name}: the zone cannot be {what}")

    def lose(self) -> None:
        """Let nothing be done by this view of the file any more, because power was lost."""
        self.lost = self.offline = True
        self.explicitly_open = False
        self.mode &= ~PERMISSION_BITS

    def check_read(self, offset: int, length: int, *, direct: bool) -> int:
        """Return how many bytes a read of *length* at *offset* gives: 0 at or past the end.

        Raises NotPermitted for a file that may not be read at all (here and below: or PowerLost), NotAligned,
        InvalidRequest (negative).
        """
        if offset < 0 or length < 0:
            raise InvalidRequest(f"{self.name}: read of {length} bytes at {offset}")
        if self.immutable and not self.mode & PERMISSION_BITS:
            raise self.refusal("read")
        length = max(0, min(length, self.size - offset))
        if direct and length and (offset | length) % self.block_size:
            raise NotAligned(
                f"{self.name}: direct read of {length} bytes at {offset}: not multiples of {self.block_size}"
            )
        return length

    def check_write(self, offset: int, length: int, *, direct: bool, append: bool, read_only: bool) -> tuple[int, int]:
        """Return the offset and length that a write of *length* bytes at *offset* has; a length of 0 writes nothing.

        A write that crosses the capacity is shortened. *read_only* is the mount's state. Raises (in this order)
        NotPermitted, ReadOnlyFilesystem, BeyondCapacity, BufferedSequentialWrite, AppendToConventional, NotAligned,
        NotAtWritePointer.
        """
        if offset < 0:
            raise InvalidRequest(f"{self.name}: write at {offset}")
        if self.readonly or self.offline:
            raise self.refusal("written")
        if read_only:
            raise ReadOnlyFilesystem(f"{self.name}: the file system is read-only")
        # Appending to a sequential file ignores the offset that was given; to a conventional one it is an error anyway.
        if offset >= self.capacity and (length if not self.sequential else not append):
            raise BeyondCapacity(f"{self.name}: write at {offset}, capacity {self.capacity}")
        if self.sequential and not direct:
            raise BufferedSequentialWrite(f"{self.name}: a sequential file takes direct writes (O_DIRECT) only")
        if not length:
            return offset, 0
        if append:
            if not self.sequential:
                raise AppendToConventional(f"{self.name}: O_APPEND to a conventional file")
            offset = self.size
            if offset >= self.capacity:
                raise BeyondCapacity(f"{self.name}: the zone is full")
        if length > self.capacity - offset:
            length = self.capacity - offset
        if direct and (offset | length) % self.block_size:
            raise NotAligned(
                f"{self.name}: direct write of {length} bytes at {offset}: not multiples of {self.block_size}"
            )
        if self.sequential and offset != self.size:
            raise NotAtWritePointer(f"{self.name}: write at {offset}, but the write pointer is at {self.size}")
        return offset, length

    def check_copy_destination(self, offset: int, length: int, *, read_only: bool, max_file_size: int) -> int:
        """Return how many of *length* bytes can be copied to *offset*: what the capacity allows, in whole blocks if
        the file is sequential.

        A copy is an operation of the device, not a buffered write: no O_DIRECT is needed. *max_file_size* is that of
        the largest file of the file system, which the kernel looks at first. Raises NotPermitted, ReadOnlyFilesystem,
        BeyondCapacity (so at the write pointer of a full zone), NotAtWritePointer, NotAligned.
        """
        if self.immutable:
            raise self.refusal("written")
        if read_only and offset < max_file_size:
            raise ReadOnlyFilesystem(f"{self.name}: the file system is read-only")
        if offset >= self.capacity:
            raise BeyondCapacity(f"{self.name}: copy to {offset}, capacity {self.capacity}")
        length = min(length, self.capacity - offset)
        if not self.sequential:
            return length
        if offset != self.size:
            raise NotAtWritePointer(f"{self.name}: copy to {offset}, but the write pointer is at {self.size}")
        if length < self.block_size:
            raise NotAligned(f"{self.name}: copy of {length} bytes: less than a block of {self.block_size}")
        return length - length % self.block_size

    def check_copy_source(self, offset: int, length: int) -> None:
        """Check that *length* bytes at *offset* can be copied whole. Raises NotPermitted, InvalidRequest."""
        if self.check_read(offset, length, direct=False) != length:
            raise InvalidRequest(f"{self.name}: copy of {length} bytes at {offset}, but the file has {self.size}")

    def check_truncate(self, size: int, *, max_file_size: int) -> ZoneOp | None:
        """Return the zone operation that truncating to *size* is; None when there is nothing to do.

        *max_file_size* is that of the largest file of the file system. Raises InvalidRequest, BeyondCapacity,
        NotPermitted.
        """
        if size < 0:
            raise InvalidRequest(f"{self.name}: truncation to {size}")
        if self.immutable:
            raise self.refusal("written")
        if size > max_file_size:
            raise BeyondCapacity(f"{self.name}: truncation to {size}, the largest file has {max_file_size}")
        if not self.sequential:
            raise NotPermitted(f"{self.name}: a conventional file cannot be truncated")
        if size not in (0, self.capacity):
            raise NotPermitted(
                f"{self.name}: truncation to {size}; only 0 and the capacity {self.capacity} are possible"
            )
        if size == self.size:
            return None
        return ZoneOp.FINISH if size else ZoneOp.RESET

    def should_be_active(self) -> bool:
        """Whether the file counts as active: explicitly open, or written in part, and healthy."""
        if not self.sequential or self.immutable:
            return False
        return self.explicitly_open or 0 < self.size < self.capacity

    def drop_set_id(self, *, always_user: bool = True) -> None:
        """Clear set-user-ID, and set-group-ID where it means that, as a change of owner or a truncation does."""
        if always_user:
            self.mode &= ~SET_UID
        if self.mode & GROUP_EXECUTE:
            self.mode &= ~SET_GID

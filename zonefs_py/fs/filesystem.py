"""The file system itself, without a mount: synchronous, thread-safe, over any zoned device. What FUSE serves is this.

Here is what concerns more than one file: copies, and the end. Below are `OpenFiles`, `Inodes` and `MountedDevice`.
Permissions of users are not checked here: the kernel does that for a FUSE mount (default_permissions), by the modes and
owners that `getattr` gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from zonefs_py.config import MountOptions
from zonefs_py.copy.abi import share_out
from zonefs_py.copy.blocks import MAX_COPY_NR_RANGES, check_pieces
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import (
    AccessDenied,
    BadHandle,
    InvalidRequest,
    PowerLost,
    TableChanged,
    ZonefsError,
)
from zonefs_py.fs.access import READ, ROOT, SEARCH, Caller, permits
from zonefs_py.fs.copying import Locks, RangesCopied, Source
from zonefs_py.fs.explain import FileState
from zonefs_py.fs.file import ZoneFile
from zonefs_py.fs.open_files import Handle, OpenFiles
from zonefs_py.fs.refusals import Refusal, RefusalLog


def _refuse_lost(files: Iterable[ZoneFile]) -> None:
    """Raise PowerLost if one of *files* is of before a power cut.

    Their locks must not be taken together with those of files of after it: the same zone's have no order.
    """
    for file in files:
        if file.lost:
            raise file.refusal("copied")


class Filesystem(OpenFiles):
    """A mounted zonefs. Use it as a context manager, or `close` it.

    Inode numbers are kernel zonefs's: a file has its (first) zone's number, the root the number of zones, ``cnv`` that
    plus one, ``seq`` that plus two. Methods that take a file take an inode number or a path such as ``"seq/0"``.
    Every refusal raises a `zonefs_py.errors.ZonefsError` with its ``errno``, and changes nothing; after `close`, every
    call that asks for or changes anything raises BadHandle.
    """

    def __init__(
        self,
        device: ZonedDevice,
        options: MountOptions = MountOptions(),  # noqa: B008  (a frozen dataclass)
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Mount *device*, which the file system then owns. *clock* gives nanoseconds since 1970.

        Raises SuperblockError, DeviceError; the device is then still the caller's, to be closed by it. To open and
        mount a device by its name, without that to think of, there is `open_filesystem`.
        """
        super().__init__(device, options, clock)
        self.copy_engine = CopyEngine(device, None if options.copy == "auto" else Engine(options.copy))
        """The copy path of the device: its limits and counters."""
        self.refusals = RefusalLog(clock)
        """What was refused to who uses the mount: `note_refusal` fills it."""
        self.on_waits: Callable[[bool], None] | None = None
        """Called before calls of the device may begin to wait (True), or after they no longer can (False)."""
        self.until_closed: Callable[[], None] = lambda: None
        """Returns when files that users have closed are closed here, too, unless that may take for ever. For who is
        asked, in a thread of his own, what such a user would know: close(2) does not wait for who serves him."""

    # Copies

    def copy_range(
        self,
        source: int,
        source_offset: int,
        destination: int,
        destination_offset: int,
        length: int,
        append: bool | None = None,
        sync: bool | None = None,
    ) -> int:
        """Copy up to *length* bytes between two open files (or within one); return how many were copied.

        *append* (with which nothing can be copied to a file) and *sync* are those of `write`.

        0 only at or past the end of the source. Fewer than asked for: where the source ends, at the destination's
        capacity, to whole blocks of a sequential destination, or before an error of the device or a lack of memory; the
        next call then meets the error. Raises BadHandle, InvalidRequest (negative, or overlapping in one file), what
        `ZoneFile.check_copy_destination` raises, DeviceError: then the ``errors=`` action has been taken.
        """
        reader, writer = self._opened(source), self._opened(destination)
        append = writer.append if append is None else append
        copied = self._copy_range(reader, source_offset, writer, destination_offset, length, append, wait=True)
        assert copied is not None
        if copied and (writer.sync if sync is None else sync):
            self.fsync(destination)
        return copied

    def copy_range_now(
        self,
        source: int,
        source_offset: int,
        destination: int,
        destination_offset: int,
        length: int,
        append: bool | None = None,
    ) -> int | None:
        """Do `copy_range` if that is over at once, with no wait for a disk or a lock; else do nothing, return None."""
        reader, writer = self._opened(source), self._opened(destination)
        if writer.sync:
            return None
        append = writer.append if append is None else append
        return self._copy_range(reader, source_offset, writer, destination_offset, length, append, wait=False)

    def _copy_range(
        self,
        reader: Handle,
        source_offset: int,
        writer: Handle,
        destination_offset: int,
        length: int,
        append: bool,
        *,
        wait: bool,
    ) -> int | None:
        if not reader.readable or not writer.writable or append:
            raise BadHandle(f"{reader.file.name} and {writer.file.name} are not open for a copy from one to the other")
        if source_offset < 0 or destination_offset < 0 or length < 0:
            raise InvalidRequest(f"copy of {length} bytes from {source_offset} to {destination_offset}")
        _refuse_lost((reader.file, writer.file))
        if wait:
            self._copier.readings.wait_for_turn((reader.file,))
        elif not self._copier.readings.is_turn((reader.file,)):
            return None
        with Locks((reader.file, writer.file), writer.file, self._copier.readings, wait=wait) as locks:
            if not locks.are_held:
                return None
            length = self._copier.check(
                reader.file,
                source_offset,
                writer.file,
                destination_offset,
                length,
                max_file_size=self.max_file_size,
            )
            if not length:
                return 0
            piece = Source(reader.file, source_offset, length, reader.keep_atime)
            planned = None
            if not wait:
                planned = self._copier.plan_now(self.copy_engine, piece, writer.file, destination_offset)
                if planned is None:
                    return None
            result, verdicts = self._copier.copy(
                self.copy_engine, [piece], writer.file, destination_offset, locks, planned
            )
        for file, verdict in verdicts:
            self._announce(file, verdict)
        if result.error is not None and not result.completed:
            if planned is not None and isinstance(result.error, TableChanged):
                return None
            raise result.error
        return result.completed

    def copy_ranges(
        self,
        destination: int,
        destination_offset: int | None,
        sources: Sequence[tuple[int, int, int]],
        caller: Caller = ROOT,
    ) -> RangesCopied:
        """Copy *sources* (inode number, offset, length), one after the other, to an open file; all, or say how much.

        *destination_offset* None is the write pointer of a sequential file. *caller* must be allowed to read the
        sources. All is checked before the first byte is copied. Raises, with nothing changed: BadHandle;
        InvalidRequest (number of ranges, a length of 0, what is no multiple of the block size, past the end of a
        source, overlapping, not at the write pointer, more than ``copy.abi.MAX_TOTAL_BYTES``), NoSuchFile,
        IsADirectory, AccessDenied, NotPermitted, ReadOnlyFilesystem, BeyondCapacity (too much for the destination). An
        error of the device is returned, the ``errors=`` action taken; so is what `fsync` raises, where the destination
        was opened with O_DSYNC or O_SYNC: what was copied may then be lost with the power.
        """
        writer = self._opened(destination)
        if not writer.writable:
            raise BadHandle(f"handle {destination} is not open for writing")
        target = writer.file
        if not 1 <= len(sources) <= MAX_COPY_NR_RANGES:
            raise InvalidRequest(f"copy of {len(sources)} ranges: there can be 1 to {MAX_COPY_NR_RANGES}")
        check_pieces([source[1:] for source in sources], destination_offset or 0, target.block_size)
        pieces = [Source(self._readable(inode, caller), offset, length) for inode, offset, length in sources]
        _refuse_lost((target, *(piece.file for piece in pieces)))
        self._copier.readings.wait_for_turn([piece.file for piece in pieces])
        with Locks((target, *(piece.file for piece in pieces)), target, self._copier.readings) as locks:
            offset = self._copier.check_ranges(pieces, target, destination_offset, max_file_size=self.max_file_size)
            result, verdicts = self._copier.copy(self.copy_engine, pieces, target, offset, locks)
        for file, verdict in verdicts:
            self._announce(file, verdict)
        error: ZonefsError | None = result.error
        if result.completed and writer.sync:
            try:
                self.fsync(destination)
            except ZonefsError as exc:
                error = error or exc
        return RangesCopied(offset, share_out(result.completed, [piece.length for piece in pieces]), error)

    def _readable(self, inode: int, caller: Caller) -> ZoneFile:
        """Return the file that *caller* may read, as if he opened it by its path below the mount point."""
        file = self._as_file(self._tree.inode(inode))
        if not permits(file, caller, READ) or not all(
            permits(directory, caller, SEARCH) for directory in self._tree.way_to(file)
        ):
            raise AccessDenied(f"{file.name}: user {caller.uid} may not read it")
        self._tree.instantiate(file)
        return file

    # Refusals

    def note_refusal(
        self,
        call: str,
        error: ZonefsError,
        inode: int | None = None,
        offset: int | None = None,
        length: int | None = None,
        pid: int | None = None,
        process: str | None = None,
    ) -> Refusal:
        """Keep in `refusals` that *call*, about *inode*, was answered with *error*. Never raises a ZonefsError."""
        return self.refusals.add(call, error, self._file_state(inode), offset, length, pid, process)

    def _file_state(self, number: int | None) -> FileState | None:
        try:
            inode = None if number is None else self._tree.inode(number)
        except ZonefsError:
            return None
        if not isinstance(inode, ZoneFile):
            return None
        # No lock: a stuck call may hold it, and a glance is enough.
        return FileState(
            inode.name,
            inode.number,
            inode.sequential,
            inode.size,
            inode.capacity,
            inode.block_size,
            inode.readonly,
            inode.offline,
        )

    # All of it

    def sync(self) -> None:
        """Make everything durable. Raises BadHandle (the file system is closed), DeviceError, PowerLost."""
        self._check_power()
        mount = self._mount
        self.device.flush()
        if mount.power_lost:
            raise PowerLost("the power was cut meanwhile")

    def close(self) -> None:
        """Unmount: close what is open, make everything durable, close the device. A second call does nothing.

        Raises DeviceError if what was written could not be made durable; the device is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        for handle in list(self._handles):
            self.release(handle)
        try:
            if not self.info.read_only and self.powered:
                self.device.flush()
        finally:
            self.device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

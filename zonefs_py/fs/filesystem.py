"""The file system itself, without a mount: synchronous, thread-safe, over any zoned device. What FUSE serves is this.

Check, act, account, in that order, inside the file's lock. Permissions of users are not checked here: the kernel
does that for a FUSE mount (default_permissions), by the modes and owners that `getattr` gives.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from zonefs_py.config import MountOptions
from zonefs_py.copy.abi import share_out
from zonefs_py.copy.blocks import MAX_COPY_NR_RANGES, check_pieces
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import (
    AccessDenied,
    AlreadyExists,
    BadHandle,
    DeviceError,
    InvalidRequest,
    IsADirectory,
    NoSuchFile,
    NotADirectory,
    NotPermitted,
    PowerLost,
    ReadOnlyFilesystem,
    TableChanged,
    UserError,
    ZonefsError,
)
from zonefs_py.fs.access import READ, ROOT, SEARCH, Caller, permits
from zonefs_py.fs.attributes import AttributeChanges, Attributes, DirectoryEntry
from zonefs_py.fs.copying import Locks, RangesCopied, Source
from zonefs_py.fs.explain import FileState
from zonefs_py.fs.file import PERMISSION_BITS, WRITE_BITS, Inode, ZoneFile
from zonefs_py.fs.mounted import MountedDevice
from zonefs_py.fs.partial_blocks import read_bytes, read_bytes_now
from zonefs_py.fs.recovery import Verdict
from zonefs_py.fs.refusals import Refusal, RefusalLog
from zonefs_py.fs.tree import Directory
from zonefs_py.units import SECTOR_SIZE
from zonefs_py.zone import ZoneOp

log = logging.getLogger(__name__)

R = TypeVar("R")


class _Handle:
    """An open file."""

    __slots__ = ("append", "direct", "file", "keep_atime", "readable", "sync", "writable")

    def __init__(self, file: ZoneFile, flags: int) -> None:
        access = flags & os.O_ACCMODE
        self.file = file
        self.readable = access in (os.O_RDONLY, os.O_RDWR)
        self.writable = access in (os.O_WRONLY, os.O_RDWR)
        self.direct = bool(flags & os.O_DIRECT)
        self.append = bool(flags & os.O_APPEND)
        self.sync = bool(flags & os.O_DSYNC)  # O_SYNC includes it
        self.keep_atime = bool(flags & os.O_NOATIME)


def _refuse_lost(files: Iterable[ZoneFile]) -> None:
    """Raise PowerLost if one of *files* is of before a power cut.

    Their locks must not be taken together with those of files of after it: the same zone's have no order.
    """
    for file in files:
        if file.lost:
            raise file.refusal("copied")


class Filesystem(MountedDevice):
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
        self._handles: dict[int, _Handle] = {}
        """Open files. Single operations on a dict are atomic, and a handle belongs to one caller."""
        self._next_handle = itertools.count(1)
        self.refusals = RefusalLog(clock)
        """What was refused to who uses the mount: `note_refusal` fills it."""
        self.on_waits: Callable[[bool], None] | None = None
        """Called before calls of the device may begin to wait (True), or after they no longer can (False)."""
        self.on_change: Callable[[int], None] | None = None
        """Called, with no lock held, with the number of an inode that an error or `manage_zone` has changed."""
        self.on_withdrawn: Callable[[int], None] | None = None
        """Called, with no lock held and in any thread, with the number of an inode whose file from
        `backing_descriptor` may be that no more. So may be those of inodes that `on_change` is called for."""
        self._held_back = threading.local()
        """Numbers of ``zones`` that a thread has yet to call `on_withdrawn` for."""
        device.watch_backing(self._backing_withdrawn)

    # What is mounted

    @property
    def nr_handles(self) -> int:
        """How many files are open now."""
        return len(self._handles)

    # Names

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Return the attributes of *name* in the directory *parent*.

        Raises NoSuchFile, NameTooLong, NotADirectory, PowerLost.
        """
        self._check_power()
        return self._attributes(self._tree.lookup(self._directory(parent), name))

    def resolve(self, path: str) -> int:
        """Return the inode number of *path*, relative to the root. Raises NoSuchFile, NameTooLong, NotADirectory."""
        inode: Inode = self._tree.root
        for part in path.split("/"):
            if part not in ("", "."):
                if not isinstance(inode, Directory):
                    raise NotADirectory(f"{path}: not a directory on the way")
                inode = self._tree.lookup(inode, os.fsencode(part))
        return inode.ino

    def place(self, inode: int) -> tuple[int, bytes]:
        """Return the directory that the file *inode* is in, and its name there. Raises NoSuchFile, IsADirectory."""
        file = self._as_file(self._tree.inode(inode))
        return self._tree.way_to(file)[1].ino, b"%d" % file.index

    def path(self, inode: int) -> str:
        """Return the path of the file *inode*, relative to the root. Raises NoSuchFile, IsADirectory."""
        return self._as_file(self._tree.inode(inode)).name

    def readdir(self, directory: int, offset: int = 0, limit: int | None = None) -> list[DirectoryEntry]:
        """Return entries of *directory* from index *offset* on (0 is ``.``, 1 is ``..``), at most *limit* of them."""
        self._check_power()
        listed = self._directory(directory)
        children = self._tree.entries(listed, offset, limit)
        if not self._mount.read_only:
            listed.touch_atime(self._clock())
        return [
            DirectoryEntry(name, inode.ino, inode.mode, index)
            for index, (name, inode) in enumerate(children, start=offset + 1)
        ]

    def refuse_create(self, parent: int, name: bytes) -> NoReturn:
        """Answer any attempt to make a name (file, directory, link, ...): always raises, NoSuchFile for a new name."""
        self._tree.lookup(self._directory(parent), name)
        raise AlreadyExists(f"{os.fsdecode(name)} exists")

    def refuse_remove(self, parent: int, name: bytes) -> NoReturn:
        """Answer any attempt to remove a name: always raises."""
        self._tree.lookup(self._directory(parent), name)
        self._refuse_if_read_only(os.fsdecode(name))
        raise NotPermitted(f"{os.fsdecode(name)}: zone files cannot be removed")

    def refuse_rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """Answer an attempt to rename: raises, unless both names are the same file."""
        inode = self._tree.lookup(self._directory(parent), name)
        if self._tree.lookup(self._directory(new_parent), new_name) is inode:
            return
        self._refuse_if_read_only(os.fsdecode(name))
        raise NotPermitted(f"{os.fsdecode(name)}: zone files cannot be renamed")

    # Attributes

    def getattr(self, inode: int) -> Attributes:
        """Return the attributes of *inode*. Raises NoSuchFile, PowerLost."""
        self._check_power()
        return self._attributes(self._tree.inode(inode))

    def _attributes(self, inode: Inode) -> Attributes:
        self._tree.instantiate(inode)
        if isinstance(inode, Directory):
            return Attributes(
                inode.ino,
                inode.mode,
                inode.nlink,
                inode.uid,
                inode.gid,
                inode.size,
                0,
                self.info.block_size,
                inode.atime_ns,
                inode.mtime_ns,
                inode.ctime_ns,
            )
        assert isinstance(inode, ZoneFile)
        return Attributes(
            inode.ino,
            inode.mode,
            1,
            inode.uid,
            inode.gid,
            inode.size,
            inode.capacity // SECTOR_SIZE,
            inode.block_size,
            inode.atime_ns,
            inode.mtime_ns,
            inode.ctime_ns,
        )

    def setattr(
        self, inode: int | str, changes: AttributeChanges, caller_uid: int = 0, *, handle: int | None = None
    ) -> Attributes:
        """Change attributes of a file or directory, size first; return the new ones.

        *caller_uid* decides whether a truncation drops set-ID bits. *handle*: this is ftruncate(2), through that one,
        which is open for writing. Raises BadHandle, ReadOnlyFilesystem, NotPermitted, BeyondCapacity, PowerLost,
        DeviceError.
        """
        changed = self._setattr(inode, changes, caller_uid, handle, wait=True)
        assert changed is not None
        return self._attributes(changed)

    def setattr_now(
        self, inode: int | str, changes: AttributeChanges, caller_uid: int = 0, *, handle: int | None = None
    ) -> bool:
        """Do `setattr` unless the file is locked; return whether it was done."""
        return self._setattr(inode, changes, caller_uid, handle, wait=False) is not None

    def _setattr(
        self, inode: int | str, changes: AttributeChanges, caller_uid: int, handle: int | None, *, wait: bool
    ) -> Inode | None:
        self._check_power()
        target = self._inode(inode)
        by_handle = handle is not None
        if handle is not None:
            opened = self._handles.get(handle)
            if opened is None or opened.file.ino != target.ino:
                raise BadHandle(f"handle {handle} is not open for inode {target.ino}")
            if opened.file is not target:
                # The file has come back from a power cut since, which must not be met by who knows nothing of that.
                raise opened.file.refusal("truncated")
        self._tree.instantiate(target)
        # Linux asks whether a file system is read-only when a file is opened for writing. Only an error can have made
        # it so since then, and ftruncate(2) (unlike write) does not ask again: do_ftruncate in fs/open.c.
        if not by_handle:
            self._refuse_if_read_only(f"inode {target.ino}")
        if isinstance(target, ZoneFile):
            if not self._take_lock(target, unread=changes.size is not None, wait=wait):
                return None
            try:
                if target.immutable:
                    raise target.refusal("written")
                if changes.size is not None:
                    self._truncate(target, changes.size, caller_uid)
                    if by_handle:
                        self._modified(target)
                self._change(target, changes)
                if changes.uid is not None or changes.gid is not None:
                    target.drop_set_id()
            finally:
                target.lock.release()
        else:
            if changes.size is not None:
                raise IsADirectory("directories have no size to change")
            if changes.mode is not None and changes.mode & WRITE_BITS:
                raise NotPermitted("zonefs directories are never writable")
            self._change(target, changes)
        return target

    def _take_lock(self, file: ZoneFile, *, unread: bool, wait: bool) -> bool:
        """Take the lock of *file*, at a time when nobody reads it if *unread*; return whether it was taken.

        It always is, but without *wait* only if that can be done at once.
        """
        return self._copier.readings.lock_unread(file, wait=wait) if unread else file.lock.acquire(wait)

    def _change(self, inode: Inode, changes: AttributeChanges) -> None:
        if changes.mode is not None:
            inode.mode = (inode.mode & ~0o7777) | (changes.mode & 0o7777)
        if changes.uid is not None:
            inode.uid = changes.uid
        if changes.gid is not None:
            inode.gid = changes.gid
        if changes.atime_ns is not None:
            inode.atime_ns = changes.atime_ns
        if changes.mtime_ns is not None:
            inode.mtime_ns = changes.mtime_ns
        # truncate(2) moves no time; see _modified.
        if any(change is not None for change in changes[1:]):
            inode.ctime_ns = self._clock()

    def _modified(self, inode: Inode) -> None:
        """Move the times that ftruncate(2) and O_TRUNC move. Neither truncate(2) nor a write does in zonefs."""
        inode.mtime_ns = inode.ctime_ns = self._clock()

    def truncate(self, file: int | str, size: int) -> None:
        """Reset (*size* 0) or finish (*size* the capacity) the file's zone. Raises as `setattr`."""
        self.setattr(file, AttributeChanges(size=size))

    def _truncate(self, file: ZoneFile, size: int, caller_uid: int) -> None:
        op = file.check_truncate(size, max_file_size=self.max_file_size)
        if op is not None:
            # A failure here leads to no errors= action: the zone is as it was.
            self.device.zone_mgmt(op, file.number)
            if file.explicitly_open:
                if op is ZoneOp.RESET:
                    self._reopen(file)
                else:
                    file.explicitly_open = False
            self._mount.set_size(file, size)
            self._count(op)
        if caller_uid:
            file.drop_set_id()

    def _count(self, op: ZoneOp) -> None:
        if op is ZoneOp.RESET:
            self._activity.count_reset()
        elif op is ZoneOp.FINISH:
            self._activity.count_finish()

    def manage_zone(self, op: ZoneOp, number: int) -> None:
        """Do *op* to zone *number*, as the tools of a device do, and bring its file in line.

        A zone that is opened so stays open, and its file counts as active, until it is closed, reset or finished, or
        the last writer of the file closes it. Raises UserError (no such zone, the superblock's, a conventional one),
        ReadOnlyFilesystem, NotPermitted (the zone is broken), BadHandle (the file system is closed), PowerLost,
        DeviceError; everything is as it was then.
        """
        self._check_power()
        if not 0 <= number < self.info.nr_zones:
            raise UserError(f"there is no zone {number}: the device has zones 0 to {self.info.nr_zones - 1}")
        if not number:
            raise UserError("zone 0 holds the superblock of the file system that is mounted")
        if self.device.report_zones(number, 1)[0].is_conventional:
            raise UserError(f"zone {number} is conventional: it has no write pointer to {op.name.lower()}")
        file = self._as_file(self._tree.inode(number))
        self._tree.instantiate(file)
        self._refuse_if_read_only(file.name)
        # Who is told of a zone that this takes away looks at the file, whose lock is held here.
        with self._withdrawals_held_back(), self._copier.readings.none_of(file):
            if file.immutable:
                raise file.refusal("written")
            if op is ZoneOp.CLOSE:
                self._close_zone(number, file.size)
            else:
                self.device.zone_mgmt(op, number)
            self._after_managing(file, op)
        if self.on_change is not None:
            self.on_change(file.ino)

    def _after_managing(self, file: ZoneFile, op: ZoneOp) -> None:
        """Account for what *op* did to the zone of *file*, whose lock is held."""
        reopen = op is ZoneOp.RESET and file.explicitly_open and file.write_opens
        file.explicitly_open = op is ZoneOp.OPEN
        if reopen:
            file.explicitly_open = True
            self._reopen(file)
        if op is ZoneOp.RESET:
            self._mount.set_size(file, 0)
        elif op is ZoneOp.FINISH:
            self._mount.set_size(file, file.capacity)
        else:
            self._mount.account_active(file)
        self._count(op)

    def _reopen(self, file: ZoneFile) -> None:
        try:
            self.device.zone_mgmt(ZoneOp.OPEN, file.number)
        except DeviceError as exc:
            log.warning("%s: the reset zone could not be opened again: %s", file.name, exc)
            file.explicitly_open = False

    def is_sequential(self, file: int | str) -> bool:
        """Whether the file is a sequential zone's. Raises NoSuchFile, IsADirectory."""
        return self._as_file(self._inode(file)).sequential

    def is_offline(self, file: int | str) -> bool:
        """Whether the file's zone is, or is taken for, offline. Raises NoSuchFile, IsADirectory."""
        return self._as_file(self._inode(file)).offline

    # Open files

    def open(self, file: int | str, flags: int, caller_uid: int = 0) -> int:
        """Open a file and return a handle.

        *flags* are those of open(2); the access mode, O_DIRECT, O_APPEND, O_DSYNC, O_SYNC, O_TRUNC and O_NOATIME count.
        Raises IsADirectory, ReadOnlyFilesystem, NotPermitted, TooManyWriteOpenFiles (with
        explicit-open), DeviceError; nothing is open then.
        """
        number = self._open(file, flags, caller_uid, wait=True)
        assert number is not None
        return number

    def open_now(self, file: int | str, flags: int, caller_uid: int = 0) -> int | None:
        """Do `open` unless the file is locked; return None if it is, and nothing is open then."""
        return self._open(file, flags, caller_uid, wait=False)

    def _open(self, file: int | str, flags: int, caller_uid: int, *, wait: bool) -> int | None:
        self._check_power()
        target = self._inode(file)
        self._tree.instantiate(target)
        handle = _Handle(self._as_file(target), flags)
        zone_file = handle.file
        truncate = bool(flags & os.O_TRUNC)
        if handle.writable or truncate:
            self._refuse_if_read_only(zone_file.name)
            if zone_file.immutable:
                raise zone_file.refusal("written")
        if not self._take_lock(zone_file, unread=truncate, wait=wait):
            return None
        try:
            if zone_file.lost:
                raise zone_file.refusal("opened")
            if handle.writable:
                self._open_for_writing(zone_file)
            try:
                if truncate:
                    self._truncate(zone_file, 0, caller_uid)
                    self._modified(zone_file)
            except BaseException:
                if handle.writable:
                    self._close_for_writing(zone_file)
                raise
        finally:
            zone_file.lock.release()
        number = next(self._next_handle)
        self._handles[number] = handle
        return number

    def _open_for_writing(self, file: ZoneFile) -> None:
        self._mount.add_writer()
        try:
            if file.sequential and not file.write_opens:
                self._first_write_open(file)
        except BaseException:
            self._mount.remove_writer()
            raise
        file.write_opens += 1

    def _first_write_open(self, file: ZoneFile) -> None:
        explicit_open = self.options.explicit_open
        self._mount.add_write_open_file(file.name, limited=explicit_open)
        if explicit_open and file.size < file.capacity:
            try:
                self.device.zone_mgmt(ZoneOp.OPEN, file.number)
            except DeviceError:
                self._mount.remove_write_open_file()
                raise
            file.explicitly_open = True
            self._mount.account_active(file)

    def _close_for_writing(self, file: ZoneFile) -> Verdict | None:
        self._mount.remove_writer()
        file.write_opens -= 1
        if not file.sequential or file.write_opens:
            return None
        try:
            return self._close_explicitly_open(file) if file.explicitly_open else None
        finally:
            # Not before: who is let in by the count must find an open zone free.
            self._mount.remove_write_open_file()

    def _close_explicitly_open(self, file: ZoneFile) -> Verdict | None:
        try:
            self._close_zone(file.number, file.size)
        except DeviceError as exc:
            verdict = self._repair.recover(file, exc, was_write=False)
            if file.explicitly_open:
                # Zones that stay open would sooner or later leave none to write (zonefs_seq_file_write_close).
                self._mount.become_read_only(f"{file.name}: closing its zone failed")
            return verdict
        file.explicitly_open = False
        self._mount.account_active(file)
        return None

    def release(self, handle: int) -> None:
        """Close *handle*. Raises BadHandle; an error of the device is dealt with, not raised (close(2) succeeds)."""
        self._release(handle, wait=True)

    def release_now(self, handle: int) -> bool:
        """Do `release` unless the file is locked; return whether it was done."""
        return self._release(handle, wait=False)

    def _release(self, handle: int, *, wait: bool) -> bool:
        opened = self._opened(handle)
        if not opened.writable:
            self._forget(handle)
            return True
        file = opened.file
        if not file.lock.acquire(wait):
            return False
        try:
            self._forget(handle)
            verdict = None if file.lost else self._close_for_writing(file)
        finally:
            file.lock.release()
        self._announce(file, verdict)
        return True

    def _forget(self, handle: int) -> None:
        if self._handles.pop(handle, None) is None:
            raise BadHandle(f"handle {handle} is not open")

    def read(self, handle: int, offset: int, length: int, direct: bool | None = None) -> bytes:
        """Return up to *length* bytes at *offset*: fewer at the end of the file, none at or past it.

        *direct* None: as the file was opened. Raises BadHandle, NotPermitted, NotAligned, DeviceError.
        """
        opened = self._opened_for_reading(handle)
        file = opened.file
        readings = self._copier.readings
        readings.wait_for_turn_to_read(file)
        with file.lock:
            length = file.check_read(offset, length, direct=opened.direct if direct is None else direct)
            if not length:
                return b""
            # The device may take its time: others may read meanwhile, and write behind what is there.
            readings.begin([file])
        error: DeviceError | None = None
        data = b""
        try:
            data = read_bytes(self.device, file, offset, length)
        except DeviceError as exc:
            error = exc
        finally:
            readings.end([file])
        with file.lock:
            if file.lost:
                raise file.refusal("read")
            if error is None:
                self._account_for_read(opened, length)
                return data
            verdict = self._repair.recover(file, error, was_write=False)
        self._announce(file, verdict)
        raise error

    def read_now(self, handle: int, offset: int, buffer: memoryview, direct: bool | None = None) -> int | None:
        """Do `read`, into *buffer*, if neither a disk nor a lock must be waited for: return the number of bytes.

        None if one must: nothing has changed then, but for what is in *buffer*.
        """
        opened = self._opened_for_reading(handle)
        file = opened.file
        if not file.lock.acquire(False):
            return None
        try:
            length = file.check_read(offset, len(buffer), direct=opened.direct if direct is None else direct)
            if not length:
                return 0
            try:
                if not read_bytes_now(self.device, file, offset, buffer if length == len(buffer) else buffer[:length]):
                    return None
                self._account_for_read(opened, length)
                return length
            except DeviceError as exc:
                error = exc
                verdict = self._repair.recover(file, exc, was_write=False)
        finally:
            file.lock.release()
        self._announce(file, verdict)
        raise error

    def _opened_for_reading(self, handle: int) -> _Handle:
        opened = self._opened(handle)
        if not opened.readable:
            raise BadHandle(f"handle {handle} is not open for reading")
        return opened

    def _account_for_read(self, opened: _Handle, length: int) -> None:
        """Take note that *length* bytes were read. Needs the file's lock."""
        file = opened.file
        file.reads += 1
        file.bytes_read += length
        if not opened.keep_atime and not self._mount.read_only:
            file.touch_atime(self._clock())

    def write(
        self,
        handle: int,
        offset: int,
        data: bytes | bytearray | memoryview,
        direct: bool | None = None,
        append: bool | None = None,
        sync: bool | None = None,
    ) -> int:
        """Write *data* at *offset*, or at the write pointer if *append*; return how many bytes were written.

        That is fewer than given when the file's capacity is reached. With *sync* it is durable then, as after `fsync`.
        *direct*, *append* and *sync* None: as the file was opened. Raises what `ZoneFile.check_write` raises, and
        DeviceError: then the ``errors=`` action has been taken.
        """
        written = self._write(handle, offset, data, direct, append, wait=True)
        assert written is not None
        if written and (self._opened(handle).sync if sync is None else sync):
            self.fsync(handle)
        return written

    def write_now(
        self,
        handle: int,
        offset: int,
        data: bytes | bytearray | memoryview,
        direct: bool | None = None,
        append: bool | None = None,
    ) -> int | None:
        """Do `write`, without *sync*, if no lock must be waited for; else return None, and nothing has changed."""
        return self._write(handle, offset, data, direct, append, wait=False)

    def _write(
        self,
        handle: int,
        offset: int,
        data: bytes | bytearray | memoryview,
        direct: bool | None,
        append: bool | None,
        *,
        wait: bool,
    ) -> int | None:
        opened = self._opened(handle)
        if not opened.writable:
            raise BadHandle(f"handle {handle} is not open for writing")
        file = opened.file
        # What is read of a conventional file must not change meanwhile; in a sequential one it cannot.
        if not (file.lock.acquire(wait) if file.sequential else self._copier.readings.lock_unread(file, wait=wait)):
            return None
        try:
            offset, length = file.check_write(
                offset,
                len(data),
                direct=opened.direct if direct is None else direct,
                append=opened.append if append is None else append,
                read_only=self._mount.read_only,
            )
            if not length:
                return 0
            if length < len(data):
                data = memoryview(data)[:length]
            error: DeviceError | None
            try:
                if file.sequential:
                    self.device.write(file.start + offset, data)
                    self._mount.advance(file, length)
                else:
                    self.device.write_bytes(file.start + offset, data)
                file.writes += 1
                file.bytes_written += length
                error = None
            except DeviceError as exc:
                error = exc
                verdict = self._repair.recover(file, exc, was_write=True) if file.sequential else None
        finally:
            file.lock.release()
        if error is not None:
            self._announce(file, verdict)
            raise error
        return length

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
        capacity, to whole blocks of a sequential destination, or before an error of the device; the next call then
        meets the error. Raises BadHandle, InvalidRequest (negative, or overlapping in one file), what
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
        reader: _Handle,
        source_offset: int,
        writer: _Handle,
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
            length = self._copier.check(reader.file, source_offset, writer.file, destination_offset, length)
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
            offset = self._copier.check_ranges(pieces, target, destination_offset)
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

    # Reads that pass us by

    def backing_descriptor(self, handle: int, *, wait: bool = True) -> int | None:
        """Return a new descriptor, the caller's to close, of a host file to read in place of the open file.

        It is as good as `read`, and its size as that of the file, until `on_withdrawn` or `on_change` is called for
        the file: ask again then. None: there is no such file, or the file may not be read now, or (unless *wait*) the
        file is busy. Raises BadHandle, DeviceError.
        """
        file = self._opened(handle).file
        if not file.lock.acquire(blocking=wait):
            return None
        try:
            if file.nr_zones != 1 or (file.immutable and not file.mode & PERMISSION_BITS):
                return None
            descriptor = self.device.backing_descriptor(file.number)
            # After some errors a file is shown with another size than its zone has.
            if descriptor is not None and os.fstat(descriptor).st_size != file.size:
                os.close(descriptor)
                return None
            return descriptor
        finally:
            file.lock.release()

    def count_as_read(self, handle: int) -> bool:
        """Move the access time for reads that will pass us by; return whether it has moved. Raises BadHandle."""
        opened = self._opened(handle)
        if opened.keep_atime or self._mount.read_only:
            return False
        # A time is no more than a time, and who opens a file does not wait for who writes it.
        return opened.file.touch_atime(self._clock())

    @contextlib.contextmanager
    def _withdrawals_held_back(self) -> Iterator[None]:
        """Let `on_withdrawn` be called at the end only for what this thread does in the block."""
        zones: list[int] = []
        self._held_back.zones = zones
        try:
            yield
        finally:
            del self._held_back.zones
            self._backing_withdrawn(zones)

    def _backing_withdrawn(self, zones: Iterable[int]) -> None:
        held_back: list[int] | None = getattr(self._held_back, "zones", None)
        if held_back is not None:
            held_back.extend(zones)
        elif self.on_withdrawn is not None:
            for number in zones:
                # A zone's file has its number. Not all have one.
                with contextlib.suppress(NoSuchFile):
                    self.on_withdrawn(self._tree.inode(number).ino)

    def fsync(self, handle: int) -> None:
        """Make durable what was written to the file.

        Raises BadHandle; NotPermitted for a file whose zone cannot be written any more; DeviceError, the ``errors=``
        action taken.
        """
        file = self._opened(handle).file
        if file.immutable:
            raise file.refusal("written")
        try:
            for number in range(file.number, file.number + file.nr_zones):
                self.device.flush(number)
        except DeviceError as exc:
            with file.lock:
                verdict = self._repair.recover(file, exc, was_write=True)
            self._announce(file, verdict)
            raise
        if file.lost:
            # What was flushed may be what the device was left with after the power cut.
            raise file.refusal("made durable")
        self._activity.count_sync()

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

    def sync(self) -> None:
        """Make everything durable. Raises BadHandle (the file system is closed), DeviceError, PowerLost."""
        self._check_power()
        mount = self._mount
        self.device.flush()
        if mount.power_lost:
            raise PowerLost("the power was cut meanwhile")

    def _announce(self, file: ZoneFile, verdict: Verdict | None) -> None:
        if verdict is not None and self.on_change is not None:
            self.on_change(file.ino)

    # Small things

    def _inode(self, file: int | str) -> Inode:
        return self._tree.inode(self.resolve(file) if isinstance(file, str) else file)

    def _directory(self, number: int) -> Directory:
        inode = self._tree.inode(number)
        if not isinstance(inode, Directory):
            raise NotADirectory(f"inode {number} is a file")
        return inode

    def _as_file(self, inode: Inode) -> ZoneFile:
        if not isinstance(inode, ZoneFile):
            raise IsADirectory(f"inode {inode.ino} is a directory")
        return inode

    def is_synchronous(self, handle: int) -> bool:
        """Whether what goes to the open file must be durable before the call ends: O_DSYNC, O_SYNC. Raises BadHandle.

        Both stay as they were when the file was opened, unlike O_APPEND and O_DIRECT (fcntl(2), F_SETFL).
        """
        return self._opened(handle).sync

    def _opened(self, handle: int) -> _Handle:
        try:
            return self._handles[handle]
        except KeyError:
            raise BadHandle(f"handle {handle} is not open") from None

    def _refuse_if_read_only(self, what: str) -> None:
        if self._mount.read_only:
            raise ReadOnlyFilesystem(f"{what}: the file system is read-only")

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

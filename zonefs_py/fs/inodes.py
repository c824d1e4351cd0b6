"""The inodes of a mounted device: what can be asked and changed by a name or a number, with no file open.

Check, act, account, in that order, inside the file's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from zonefs_py.config import MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import (
    AlreadyExists,
    DeviceError,
    IsADirectory,
    NoSuchFile,
    NotADirectory,
    NotPermitted,
    ReadOnlyFilesystem,
    UserError,
)
from zonefs_py.fs.attributes import AttributeChanges, Attributes, DirectoryEntry
from zonefs_py.fs.file import WRITE_BITS, Inode, ZoneFile
from zonefs_py.fs.mounted import MountedDevice
from zonefs_py.fs.recovery import Verdict
from zonefs_py.fs.tree import Directory
from zonefs_py.units import SECTOR_SIZE
from zonefs_py.zone import ZoneOp

log = logging.getLogger(__name__)


class Inodes(MountedDevice):
    """The names, attributes and zones of a `Filesystem`.

    Inode numbers are kernel zonefs's: a file has its (first) zone's number, the root the number of zones, ``cnv`` that
    plus one, ``seq`` that plus two.
    """

    def __init__(self, device: ZonedDevice, options: MountOptions, clock: Callable[[], int]) -> None:
        """Raises SuperblockError, DeviceError."""
        super().__init__(device, options, clock)
        self.on_change: Callable[[int], None] | None = None
        """Called, with no lock held, with the number of an inode that an error or `manage_zone` has changed."""
        self.on_withdrawn: Callable[[int], None] | None = None
        """Called, with no lock held and in any thread, with the number of an inode whose file from
        `backing_descriptor` may be that no more. So may be those of inodes that `on_change` is called for."""
        self._held_back = threading.local()
        """Numbers of ``zones`` that a thread has yet to call `on_withdrawn` for."""
        device.watch_backing(self._backing_withdrawn)

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

    def _change_inode(
        self, target: Inode, changes: AttributeChanges, caller_uid: int, *, by_handle: bool, wait: bool
    ) -> bool:
        """Do what `OpenFiles.setattr` is asked for; return whether it was done: not if it had to wait, and may not."""
        self._tree.instantiate(target)
        # Linux asks whether a file system is read-only when a file is opened for writing. Only an error can have made
        # it so since then, and ftruncate(2) (unlike write) does not ask again: do_ftruncate in fs/open.c.
        if not by_handle:
            self._refuse_if_read_only(f"inode {target.ino}")
        if isinstance(target, ZoneFile):
            if not self._take_lock(target, unread=changes.size is not None, wait=wait):
                return False
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
        return True

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

    # Zones

    def is_sequential(self, file: int | str) -> bool:
        """Whether the file is a sequential zone's. Raises NoSuchFile, IsADirectory."""
        return self._as_file(self._inode(file)).sequential

    def is_offline(self, file: int | str) -> bool:
        """Whether the file's zone is, or is taken for, offline. Raises NoSuchFile, IsADirectory."""
        return self._as_file(self._inode(file)).offline

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

    def _refuse_if_read_only(self, what: str) -> None:
        if self._mount.read_only:
            raise ReadOnlyFilesystem(f"{what}: the file system is read-only")

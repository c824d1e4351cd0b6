"""Open files: what is done through a handle. Each call that may wait for a lock has a twin, ``..._now``, that does not.

Check, act, account, in that order, inside the file's lock.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

from zonefs_py.config import MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import (
    BadHandle,
    DeviceError,
)
from zonefs_py.fs.attributes import AttributeChanges, Attributes
from zonefs_py.fs.file import PERMISSION_BITS, Inode, ZoneFile
from zonefs_py.fs.inodes import Inodes
from zonefs_py.fs.partial_blocks import read_bytes, read_bytes_now
from zonefs_py.fs.recovery import Verdict
from zonefs_py.zone import ZoneOp


class Handle:
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


def _through_the_cache(error: DeviceError) -> DeviceError:
    """What a read that is not direct is answered for *error*: the page cache knows of no errno but EIO."""
    return DeviceError(str(error))


class OpenFiles(Inodes):
    """The open files of a `Filesystem`. Every method that takes a handle raises BadHandle if it is not open."""

    def __init__(self, device: ZonedDevice, options: MountOptions, clock: Callable[[], int]) -> None:
        """Raises SuperblockError, DeviceError."""
        super().__init__(device, options, clock)
        self._handles: dict[int, Handle] = {}
        """Open files. Single operations on a dict are atomic, and a handle belongs to one caller."""
        self._next_handle = itertools.count(1)

    @property
    def nr_handles(self) -> int:
        """How many files are open now."""
        return len(self._handles)

    def is_synchronous(self, handle: int) -> bool:
        """Whether what goes to the open file must be durable before the call ends: O_DSYNC, O_SYNC. Raises BadHandle.

        Both stay as they were when the file was opened, unlike O_APPEND and O_DIRECT (fcntl(2), F_SETFL).
        """
        return self._opened(handle).sync

    def _opened(self, handle: int) -> Handle:
        try:
            return self._handles[handle]
        except KeyError:
            raise BadHandle(f"handle {handle} is not open") from None

    # Opening and closing

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
        handle = Handle(self._as_file(target), flags)
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

    # Reading and writing

    def read(self, handle: int, offset: int, length: int, direct: bool | None = None) -> bytes:
        """Return up to *length* bytes at *offset*: fewer at the end of the file, none at or past it.

        *direct* None: as the file was opened. Raises BadHandle, NotPermitted, NotAligned, DeviceError.
        """
        opened = self._opened_for_reading(handle)
        direct = opened.direct if direct is None else direct
        file = opened.file
        readings = self._copier.readings
        readings.wait_for_turn_to_read(file)
        with file.lock:
            length = file.check_read(offset, length, direct=direct)
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
        raise error if direct else _through_the_cache(error)

    def read_now(self, handle: int, offset: int, buffer: memoryview, direct: bool | None = None) -> int | None:
        """Do `read`, into *buffer*, if neither a disk nor a lock must be waited for: return the number of bytes.

        None if one must: nothing has changed then, but for what is in *buffer*.
        """
        opened = self._opened_for_reading(handle)
        direct = opened.direct if direct is None else direct
        file = opened.file
        if not file.lock.acquire(False):
            return None
        try:
            length = file.check_read(offset, len(buffer), direct=direct)
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
        raise error if direct else _through_the_cache(error)

    def _opened_for_reading(self, handle: int) -> Handle:
        opened = self._opened(handle)
        if not opened.readable:
            raise BadHandle(f"handle {handle} is not open for reading")
        return opened

    def _account_for_read(self, opened: Handle, length: int) -> None:
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

    # Attributes, by a handle or without

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
        if handle is not None:
            opened = self._handles.get(handle)
            if opened is None or opened.file.ino != target.ino:
                raise BadHandle(f"handle {handle} is not open for inode {target.ino}")
            if opened.file is not target:
                # The file has come back from a power cut since, which must not be met by who knows nothing of that.
                raise opened.file.refusal("truncated")
        done = self._change_inode(target, changes, caller_uid, by_handle=handle is not None, wait=wait)
        return target if done else None

    def truncate(self, file: int | str, size: int) -> None:
        """Reset (*size* 0) or finish (*size* the capacity) the file's zone. Raises as `setattr`."""
        self.setattr(file, AttributeChanges(size=size))

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

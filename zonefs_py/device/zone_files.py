"""The zone files of an emulated device in a directory, in the layout of Linux's zloop driver.

One regular file a zone; the size of a sequential zone's file is its write pointer. docs/device-format.md is the
specification.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable

from zonefs_py.device import host_copy
from zonefs_py.device.description import DeviceDescription, format_description
from zonefs_py.device.descriptors import DescriptorCache
from zonefs_py.device.emulated import Place
from zonefs_py.device.host_files import read_fully
from zonefs_py.errors import is_unsupported, would_wait
from zonefs_py.zone import CopyMethod, Geometry

DESCRIPTION_NAME = "device.json"

SNAPSHOTS_NAME = ".snapshots"
"""The subdirectory in which a device keeps its snapshots (`snapshots`); it is no part of the device itself."""


def zone_file_name(geometry: Geometry, number: int) -> str:
    """The name of zone *number*'s file in the device's directory, as zloop has it."""
    return f"{'cnv' if geometry.is_conventional(number) else 'seq'}-{number:06d}"


class DirectoryStore:
    """Zones as files in a directory. Descriptors are opened when first needed, and a bounded number kept."""

    def __init__(self, path: str, directory: int, geometry: Geometry, *, read_only: bool, alignment: int = 0) -> None:
        """*directory* is an open, locked descriptor of *path*; the store closes it.

        *alignment* is what reflinks between zones must be aligned to, 0 where the host cannot make them.
        """
        self._alignment = alignment
        self._path = path
        self._directory = directory
        self._geometry = geometry
        self._flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptors = DescriptorCache(self._open)
        self._dirty: set[int] = set()
        """Zones written since they were last flushed. A zone is added when a write ends, not before: a flush beside a
        long one must not take it out for good. Adding and removing single elements is atomic."""
        self._unwritten: set[int] = set()
        """Zones that the host may have data of in memory only, added likewise: a reflink waits until that is on the
        disk. What a process that was killed left behind is not known."""
        self._clean: set[int] = set()
        """Zones that were flushed; one is clean if it is here and not in ``_dirty``. A zone that is in neither may have
        been written by a process that was killed, or is being flushed: it is not known to be durable."""
        self._newest_flush: dict[int, int] = {}
        """Of the flushes of a zone that are under way, the number of the one that began last."""
        self._flush_numbers = itertools.count()
        self._flush_lock = threading.Lock()
        """Guards ``_clean``, ``_newest_flush``, and taking zones from ``_dirty``. No disk is waited for with it."""
        self._can_tell = True
        """Whether the host's file system knows RWF_NOWAIT. One that does not (tmpfs) is in memory, or we must wait."""
        self._closed = False

    def _open(self, number: int) -> int:
        return os.open(zone_file_name(self._geometry, number), self._flags, dir_fd=self._directory)

    def read(self, number: int, offset: int, length: int) -> bytes:
        descriptor = self._descriptors.acquire(number)
        try:
            data = os.pread(descriptor, length, offset)
            # Linux reads at most 0x7ffff000 bytes at once (read(2)).
            while (
                data and len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data)))
            ):
                data += more
            return data
        finally:
            self._descriptors.release(number)

    def read_into(self, number: int, offset: int, buffer: memoryview) -> int:
        descriptor = self._descriptors.acquire(number)
        try:
            return read_fully(descriptor, buffer, offset)
        finally:
            self._descriptors.release(number)

    def read_into_now(self, number: int, offset: int, buffer: memoryview) -> int | None:
        if not self._can_tell:
            return self.read_into(number, offset, buffer)
        descriptor = self._descriptors.acquire(number)
        try:
            done = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
            # Short: this is where the file ends, or where the page cache does, or a bad sector.
            if done < len(buffer) and offset + done < os.fstat(descriptor).st_size:
                return None
            return done
        except OSError as exc:
            if is_unsupported(exc):
                self._can_tell = False
                return read_fully(descriptor, buffer, offset)
            if would_wait(exc):
                return None
            raise
        finally:
            self._descriptors.release(number)

    def can_copy(self, source_offset: int, destination_offset: int, length: int, method: CopyMethod) -> bool:
        if method is not CopyMethod.REFLINK:
            return True
        return bool(self._alignment) and not (source_offset | destination_offset | length) % self._alignment

    def copy_out(self, number: int, length: int, descriptor: int, progress: Callable[[int], None]) -> bool:
        reader = self._descriptors.acquire(number)
        try:
            return host_copy.copy_out(reader, descriptor, length, progress)
        finally:
            self._descriptors.release(number)

    def copy(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        reader = self._descriptors.acquire(source.number)
        try:
            writer = self._descriptors.acquire(destination.number)
            shared = False
            try:
                shared = host_copy.copy(
                    reader, source.offset, writer, destination.offset, length, method, self._alignment
                )
                # Before it shares anything, the host writes it.
                is_start = shared and source.number in self._unwritten and not source.offset
                if is_start and length >= os.fstat(reader).st_size:
                    self._unwritten.discard(source.number)
            finally:
                self._dirty.add(destination.number)
                if not shared:
                    self._unwritten.add(destination.number)
                self._descriptors.release(destination.number)
        finally:
            self._descriptors.release(source.number)

    def copy_waits(self, source: int, destination: int, method: CopyMethod) -> bool:
        if method is not CopyMethod.REFLINK or source in self._unwritten:
            return True
        # A copy to a sequential zone goes to where nothing is yet.
        return destination in self._unwritten and self._geometry.is_conventional(destination)

    def write(self, number: int, offset: int, data: memoryview) -> None:
        descriptor = self._descriptors.acquire(number)
        try:
            done = os.pwrite(descriptor, data, offset)
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], offset + done)
        finally:
            self._dirty.add(number)
            self._unwritten.add(number)
            self._descriptors.release(number)

    def size(self, number: int) -> int:
        descriptor = self._descriptors.acquire(number)
        try:
            # As fstat(2) says, without all the rest that it tells. Nobody goes by the place where a descriptor is.
            return os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            self._descriptors.release(number)

    def set_size(self, number: int, size: int) -> None:
        descriptor = self._descriptors.acquire(number)
        try:
            os.ftruncate(descriptor, size)
        finally:
            self._dirty.add(number)
            self._descriptors.release(number)

    def flush(self, number: int | None) -> None:
        if number is not None:
            self._flush(number)
            return
        errors = []
        with self._flush_lock:
            # What another flush is about is no longer dirty, and not yet durable.
            numbers = sorted(self._dirty | self._newest_flush.keys())
        for one in numbers:
            try:
                self._flush(one)
            except OSError as exc:
                # The other zones' data is not to be lost for it.
                errors.append(exc)
        if errors:
            raise errors[0]

    def _flush(self, number: int) -> None:
        # fdatasync(2) of a file that has nothing to write makes some hosts flush their disk all the same.
        with self._flush_lock:
            if number not in self._dirty and number in self._clean:
                return
        descriptor = self._descriptors.acquire(number)
        try:
            with self._flush_lock:
                flush = self._newest_flush[number] = next(self._flush_numbers)
                self._clean.discard(number)
                # Before: what is written from here on may come too late for this flush, and says so when it is done.
                self._dirty.discard(number)
                self._unwritten.discard(number)
            os.fdatasync(descriptor)
        except OSError:
            self._dirty.add(number)
            self._unwritten.add(number)
            raise
        else:
            with self._flush_lock:
                # One that began later may have taken from the notes what this one has not flushed.
                if self._newest_flush.get(number) == flush:
                    del self._newest_flush[number]
                    self._clean.add(number)
        finally:
            self._descriptors.release(number)

    def save(self, description: DeviceDescription) -> None:
        write_description(self._directory, description)

    def descriptor(self, number: int) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(zone_file_name(self._geometry, number), flags, dir_fd=self._directory)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._descriptors.close()
            os.close(self._directory)
            # Whoever goes on all the same must not meet what has that number next.
            self._directory = -1


def write_description(directory: int, description: DeviceDescription, *, sync: bool = True) -> None:
    """Replace device.json in *directory* (an open descriptor) as a whole, durably if *sync*. Raises OSError."""
    temporary = f".{DESCRIPTION_NAME}.{os.getpid()}"
    # Root may write to what is somebody else's: a link of that name leads nowhere.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666, dir_fd=directory)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(format_description(description))
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.rename(temporary, DESCRIPTION_NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    if sync:
        os.fsync(directory)

"""Copies between files: the checks, the copy itself, and the account of it. All under the locks of the files."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from zonefs_py.copy.abi import MAX_TOTAL_BYTES, share_out
from zonefs_py.copy.engine import CopyEngine, CopyResult
from zonefs_py.copy.plan import gather
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import BeyondCapacity, DeviceError, InvalidRequest, OutOfMemory
from zonefs_py.fs.file import ZoneFile
from zonefs_py.fs.mount import Mount
from zonefs_py.fs.recovery import Verdict
from zonefs_py.fs.repair import Repair


class RangesCopied(NamedTuple):
    """What became of a copy of several ranges: it began at *offset*, and *completed* bytes of each are copied.

    *error* is what stopped it, None if nothing did.
    """

    offset: int
    completed: tuple[int, ...]
    error: DeviceError | OutOfMemory | None


class Source(NamedTuple):
    """A range to copy: *length* bytes at *offset* of *file*."""

    file: ZoneFile
    offset: int
    length: int
    keep_atime: bool = False


class Locks:
    """The locks of several files, taken in the order of their zones. Held until released, or to the end of `with`."""

    def __init__(self, files: Iterable[ZoneFile]) -> None:
        self._files = sorted(set(files), key=lambda file: file.number)
        self._held: list[ZoneFile] = []

    def __enter__(self) -> Self:
        for file in self._files:
            file.lock.acquire()
            self._held.append(file)
        return self

    def release(self, files: Iterable[ZoneFile]) -> None:
        """Release some; they cannot be taken again while others are held."""
        for file in files:
            self._held.remove(file)
            file.lock.release()

    def release_all(self) -> None:
        """Release what is held."""
        self.release(list(self._held))

    def __exit__(self, *_: object) -> None:
        self.release_all()


class Readings:
    """Which sequential files copies are reading from, without holding their locks.

    What is below the write pointer of such a file cannot be overwritten, so it can be written, read and copied from
    meanwhile. It must not be reset.
    """

    def __init__(self) -> None:
        self._ended = threading.Condition()
        """Guards the counts. Taken after the locks of files; nothing is taken while it is held."""
        self._count: Counter[int] = Counter()
        self._awaited: Counter[int] = Counter()
        """How many wait for the readings of a file to end, by its number."""

    def wait_for_turn(self, files: Collection[ZoneFile]) -> None:
        """Let those go first who wait until nobody reads from *files*. No lock of a file may be held.

        Otherwise copies of which each begins before the last one ends would keep a reset waiting for ever.
        """
        numbers = {file.number for file in files}
        with self._ended:
            self._ended.wait_for(lambda: not any(self._awaited[number] for number in numbers))

    @contextlib.contextmanager
    def of(self, files: Collection[ZoneFile]) -> Iterator[None]:
        """Have *files*, whose locks are held to begin with, be read."""
        with self._ended:
            self._count.update(file.number for file in files)
        try:
            yield
        finally:
            with self._ended:
                self._count.subtract(file.number for file in files)
                self._count += Counter()  # drops what is 0
                self._ended.notify_all()

    @contextlib.contextmanager
    def none_of(self, file: ZoneFile) -> Iterator[None]:
        """Hold the lock of *file* at a time when nobody reads from it."""
        with self._ended:
            self._awaited[file.number] += 1
        try:
            self._lock_unread(file)
        finally:
            with self._ended:
                self._awaited[file.number] -= 1
                self._awaited += Counter()
                self._ended.notify_all()
        try:
            yield
        finally:
            file.lock.release()

    def _lock_unread(self, file: ZoneFile) -> None:
        while True:
            file.lock.acquire()
            # Readings begin with the lock held.
            if not self._count[file.number]:
                return
            file.lock.release()
            with self._ended:
                self._ended.wait_for(lambda: not self._count[file.number])


class FileCopier:
    """Copies between the files of one mount. The locks of the files are taken by the caller."""

    def __init__(self, device: ZonedDevice, mount: Mount, repair: Repair, clock: Callable[[], int]) -> None:
        self._device = device
        self._mount = mount
        self._repair = repair
        self._clock = clock
        self.readings = Readings()

    def check(self, source: ZoneFile, source_offset: int, target: ZoneFile, offset: int, length: int) -> int:
        """The checks of a copy, under the locks. Return the length it will have."""
        length = source.check_read(source_offset, length, direct=False)
        if not length:
            return 0
        if source is target and source_offset < offset + length and offset < source_offset + length:
            raise InvalidRequest(f"{source.name}: copy of {length} bytes from {source_offset} to {offset} overlaps")
        return target.check_copy_destination(offset, length, read_only=self._mount.read_only)

    def check_ranges(self, sources: Sequence[Source], target: ZoneFile, offset: int | None) -> int:
        """The checks of a copy of ranges, under the locks. Return where it begins."""
        if offset is None:
            if not target.sequential:
                raise InvalidRequest(f"{target.name}: a conventional file has no write pointer to copy to")
            offset = target.size
        total = sum(source.length for source in sources)
        if target.check_copy_destination(offset, total, read_only=self._mount.read_only) < total:
            raise BeyondCapacity(f"{target.name}: copy of {total} bytes to {offset}, capacity {target.capacity}")
        if total > MAX_TOTAL_BYTES:
            raise InvalidRequest(f"{target.name}: copy of {total} bytes: at once it can be {MAX_TOTAL_BYTES}")
        for source in sources:
            source.file.check_copy_source(source.offset, source.length)
            if source.file is target and source.offset < offset + total and offset < source.offset + source.length:
                raise InvalidRequest(
                    f"{target.name}: copy of {source.length} bytes from {source.offset} to within {offset} and"
                    f" {offset + total} overlaps"
                )
        return offset

    def waits(self, engine: CopyEngine, source: Source, target: ZoneFile, offset: int) -> bool:
        """Whether a `copy` of *source* may wait for a disk, or takes its time."""
        return engine.waits(gather([(source.file.start + source.offset, source.length)], target.start + offset))

    def copy(
        self, engine: CopyEngine, sources: Sequence[Source], target: ZoneFile, offset: int, locks: Locks
    ) -> tuple[CopyResult, list[tuple[ZoneFile, Verdict | None]]]:
        """Copy by *engine* what has been checked under *locks*, and account for it. Return also what an error changed.

        Sequential sources are given free while the data is copied; in the end, no lock is held any more.
        """
        places = [(source.file.start + source.offset, source.length) for source in sources]
        read = {source.file for source in sources if source.file.sequential and source.file is not target}
        with self.readings.of(read):
            locks.release(read)
            result = engine.copy(gather(places, target.start + offset))
        stopped = self._account_for_reading(sources, result)
        error = result.error if isinstance(result.error, DeviceError) and result.issued else None
        changed: list[tuple[ZoneFile, Verdict | None]] = []
        if target.sequential and result.completed:
            self._mount.set_size(target, target.size + result.completed)
        # Which of the two it was that failed is known only if the source was read by itself.
        if error is not None and target.sequential and not result.source_failed:
            changed.append((target, self._repair.recover(target, error, was_write=True)))
        # Never the lock of a source while that of the target is held: it may be the earlier zone.
        locks.release_all()
        if error is not None and (stopped is not target or result.source_failed):
            with stopped.lock:
                changed.append((stopped, self._repair.recover(stopped, error, was_write=False)))
        return result, changed

    def _account_for_reading(self, sources: Sequence[Source], result: CopyResult) -> ZoneFile:
        """Move the access times of what was read; return the file whose range is the first not to be complete."""
        shares = share_out(result.completed, [source.length for source in sources])
        for source, completed in zip(sources, shares, strict=True):
            # A time is no more than a time: who else sets it meanwhile does no harm.
            if completed and not source.keep_atime and not self._mount.read_only:
                source.file.touch_atime(self._clock())
        left = (source for source, completed in zip(sources, shares, strict=True) if completed < source.length)
        return next(left, sources[-1]).file

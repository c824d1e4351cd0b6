"""Copies between files: the checks, the copy itself, and the account of it. All under the locks of the files."""

from __future__ import annotations

import contextlib
import operator
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from zonefs_py.copy.abi import MAX_TOTAL_BYTES, share_out
from zonefs_py.copy.engine import CopyEngine, CopyResult, Plan
from zonefs_py.copy.plan import gather
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import BeyondCapacity, DeviceError, InvalidRequest, ZonefsError
from zonefs_py.fs.file import ZoneFile
from zonefs_py.fs.mount import Mount
from zonefs_py.fs.recovery import Verdict
from zonefs_py.fs.repair import Repair
from zonefs_py.zone import CopyRange

_BY_NUMBER = operator.attrgetter("ino")
"""The order of locks: a file has the number of its (first) zone."""


class RangesCopied(NamedTuple):
    """What became of a copy of several ranges: it began at *offset*, and *completed* bytes of each are copied.

    *error* is what stopped it, None if nothing did.
    """

    offset: int
    completed: tuple[int, ...]
    error: ZonefsError | None


class Source(NamedTuple):
    """A range to copy: *length* bytes at *offset* of *file*."""

    file: ZoneFile
    offset: int
    length: int
    keep_atime: bool = False


class Readings:
    """Which files are being read, by copies and by others, without their locks being held.

    What is below the write pointer of a sequential file cannot be overwritten, so it can be written, read and copied
    from meanwhile; it must not be reset. A conventional file must not be written.
    """

    def __init__(self) -> None:
        self._ended = threading.Condition()
        """Guards the counts. Taken after the locks of files; nothing is taken while it is held."""
        self._count: Counter[int] = Counter()
        self._awaited: Counter[int] = Counter()
        """How many wait for the readings of a file to end, by its number. None that is 0."""
        self._copies: Counter[int] = Counter()
        """How many of the readings are copies, which can take long."""

    def wait_for_turn_to_read(self, file: ZoneFile) -> None:
        """Let those go first who wait until nobody reads from *file*. No lock of a file may be held.

        But not while a copy keeps them waiting anyway. For the same reason as `wait_for_turn`.
        """
        if self._awaited:
            number = file.number
            with self._ended:
                self._ended.wait_for(lambda: number not in self._awaited or number in self._copies)

    def wait_for_turn(self, files: Iterable[ZoneFile]) -> None:
        """Let those go first who wait until nobody reads from *files*. No lock of a file may be held.

        Otherwise copies of which each begins before the last one ends would keep a reset waiting for ever.
        """
        if not self._awaited:
            return
        numbers = {file.number for file in files}
        with self._ended:
            self._ended.wait_for(lambda: numbers.isdisjoint(self._awaited))

    def is_turn(self, files: Iterable[ZoneFile]) -> bool:
        """Whether `wait_for_turn` would not wait, at this moment."""
        return not self._awaited or all(file.number not in self._awaited for file in files)

    def begin(self, files: Iterable[ZoneFile]) -> None:
        """Have *files*, whose locks are held now, be read. `end` must follow."""
        with self._ended:
            self._count.update(file.number for file in files)

    def end(self, files: Iterable[ZoneFile]) -> None:
        """*files* are no longer read, as far as the caller of `begin` is concerned."""
        with self._ended:
            for file in files:
                self._drop(self._count, file)

    def _drop(self, counts: Counter[int], file: ZoneFile) -> None:
        counts[file.number] -= 1
        if not counts[file.number]:
            del counts[file.number]
            self._ended.notify_all()

    @contextlib.contextmanager
    def of(self, files: Collection[ZoneFile]) -> Iterator[None]:
        """Have *files*, whose locks are held to begin with, be read by a copy."""
        self.begin(files)
        with self._ended:
            self._copies.update(file.number for file in files)
        try:
            yield
        finally:
            with self._ended:
                for file in files:
                    self._drop(self._copies, file)
            self.end(files)

    def is_read(self, file: ZoneFile) -> bool:
        """Whether somebody reads *file*. While its lock is held nobody begins to."""
        return bool(self._count[file.number])

    @contextlib.contextmanager
    def awaited(self, file: ZoneFile) -> Iterator[Callable[[], None]]:
        """Have readings of *file* that have not begun wait; gives what waits, holding no lock, for the rest to end."""

        def wait() -> None:
            with self._ended:
                self._ended.wait_for(lambda: not self._count[file.number])

        with self._ended:
            self._awaited[file.number] += 1
        try:
            yield wait
        finally:
            with self._ended:
                self._drop(self._awaited, file)

    @contextlib.contextmanager
    def none_of(self, file: ZoneFile) -> Iterator[None]:
        """Hold the lock of *file* at a time when nobody reads from it."""
        self.lock_unread(file)
        try:
            yield
        finally:
            file.lock.release()

    def lock_unread(self, file: ZoneFile, *, wait: bool = True) -> bool:
        """Take the lock of *file* at a time when nobody reads from it; return whether it was taken.

        It always is, but without *wait* only if it is free and nobody reads now.
        """
        if not file.lock.acquire(wait):
            return False
        if not self.is_read(file):
            return True
        file.lock.release()
        if wait:
            self._wait_for_unread(file)
        return wait

    def _wait_for_unread(self, file: ZoneFile) -> None:
        """Take the lock of *file*, which somebody reads."""
        with self.awaited(file) as wait:
            while True:
                wait()
                file.lock.acquire()
                if not self.is_read(file):
                    return
                file.lock.release()


class Locks:
    """The locks of the files of a copy, taken in the order of their zones, at a time when nobody reads what it changes.

    Held until released, or to the end of `with`.
    """

    def __init__(self, files: Iterable[ZoneFile], target: ZoneFile, readings: Readings, *, wait: bool = True) -> None:
        """*target*, one of *files*, is what the copy goes to. Without *wait*: see `are_held`."""
        self._files = sorted(set(files), key=_BY_NUMBER)
        self._target = target
        self._readings = readings
        self.wait = wait
        """Whether to wait for a lock. If not, one that is released could not be taken again for certain."""
        self._held: list[ZoneFile] = []

    @property
    def are_held(self) -> bool:
        """Whether any lock is held: all are to begin with, but without `wait` only if each of them was free."""
        return bool(self._held)

    def __enter__(self) -> Self:
        if not self.wait:
            self._try()
            return self
        self._acquire()
        # A sequential file gets new data only behind what can be read.
        if not self._target.sequential and self._readings.is_read(self._target):
            self.release_all()
            with self._readings.awaited(self._target) as wait:
                while not self._held:
                    wait()
                    self._acquire()
                    if self._readings.is_read(self._target):
                        self.release_all()
        return self

    def _acquire(self) -> None:
        for file in self._files:
            file.lock.acquire()
            self._held.append(file)

    def _try(self) -> None:
        for file in self._files:
            if not file.lock.acquire(blocking=False):
                self.release_all()
                return
            self._held.append(file)
        if not self._target.sequential and self._readings.is_read(self._target):
            self.release_all()

    def release(self, files: Iterable[ZoneFile]) -> None:
        """Release some; they cannot be taken again while others are held."""
        for file in files:
            self._held.remove(file)
            file.lock.release()

    def release_all(self) -> None:
        """Release what is held."""
        while self._held:
            self._held.pop().lock.release()

    @contextlib.contextmanager
    def only(self, file: ZoneFile) -> Iterator[None]:
        """Hold the lock of *file*, one of those that these are about, and no other; afterwards none."""
        if file in self._held:
            self.release([one for one in self._held if one is not file])
        else:
            # Never while that of another is held: this may be the earlier zone.
            self.release_all()
            file.lock.acquire()
            self._held.append(file)
        yield
        self.release_all()

    def __exit__(self, *_: object) -> None:
        self.release_all()


class FileCopier:
    """Copies between the files of one mount. The locks of the files are taken by the caller."""

    def __init__(self, device: ZonedDevice, mount: Mount, repair: Repair, clock: Callable[[], int]) -> None:
        self._device = device
        self._mount = mount
        self._repair = repair
        self._clock = clock
        self.readings = Readings()

    def check(
        self,
        source: ZoneFile,
        source_offset: int,
        target: ZoneFile,
        offset: int,
        length: int,
        *,
        max_file_size: int,
    ) -> int:
        """The checks of a copy, under the locks. Return the length it will have."""
        length = source.check_read(source_offset, length, direct=False)
        if not length:
            return 0
        if source is target and source_offset < offset + length and offset < source_offset + length:
            raise InvalidRequest(f"{source.name}: copy of {length} bytes from {source_offset} to {offset} overlaps")
        return target.check_copy_destination(
            offset, length, read_only=self._mount.read_only, max_file_size=max_file_size
        )

    def check_ranges(
        self, sources: Sequence[Source], target: ZoneFile, offset: int | None, *, max_file_size: int
    ) -> int:
        """The checks of a copy of ranges, under the locks. Return where it begins."""
        if offset is None:
            if not target.sequential:
                raise InvalidRequest(f"{target.name}: a conventional file has no write pointer to copy to")
            offset = target.size
        total = sum(source.length for source in sources)
        read_only = self._mount.read_only
        fitting = target.check_copy_destination(offset, total, read_only=read_only, max_file_size=max_file_size)
        if fitting < total:
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

    def plan_now(self, engine: CopyEngine, source: Source, target: ZoneFile, offset: int) -> Plan | None:
        """Return the plan of a `copy` of *source* that waits for no disk and is over at once; None if it may not be."""
        return engine.plan_now([CopyRange(source.file.start + source.offset, target.start + offset, source.length)])

    def copy(
        self,
        engine: CopyEngine,
        sources: Sequence[Source],
        target: ZoneFile,
        offset: int,
        locks: Locks,
        planned: Plan | None = None,
    ) -> tuple[CopyResult, list[tuple[ZoneFile, Verdict | None]]]:
        """Copy by *engine* what has been checked under *locks*, and account for it. Return also what an error changed.

        Sequential sources are given free while the data is copied, unless it is *planned*, by `plan_now`, and *locks*
        do not wait; in the end, no lock is held any more.
        """
        if planned is not None:
            result = engine.copy_planned(planned)
        else:
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
        if error is not None and (stopped is not target or result.source_failed):
            because = "" if result.source_failed else f"a copy from it to {target.name} failed: "
            with locks.only(stopped):
                verdict = self._repair.recover(stopped, error, was_write=False, because=because)
                changed.append((stopped, verdict))
        locks.release_all()
        return result, changed

    def _account_for_reading(self, sources: Sequence[Source], result: CopyResult) -> ZoneFile:
        """Move the access times of what was read; return the file whose range is the first not to be complete."""
        if len(sources) == 1:
            shares: tuple[int, ...] = (result.completed,)
        else:
            shares = share_out(result.completed, [source.length for source in sources])
        for source, completed in zip(sources, shares, strict=True):
            # A time is no more than a time: who else sets it meanwhile does no harm.
            if completed and not source.keep_atime and not self._mount.read_only:
                source.file.touch_atime(self._clock())
        if result.error is None:
            return sources[-1].file
        left = (source for source, completed in zip(sources, shares, strict=True) if completed < source.length)
        return next(left, sources[-1]).file

"""Copies between files: the checks, the copy itself, and the account of it. All under the locks of the files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from zonefs_py.copy.abi import share_out
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


@contextlib.contextmanager
def locked(files: Iterable[ZoneFile]) -> Iterator[None]:
    """Hold the locks of all *files*, taken in the order of their zones."""
    with contextlib.ExitStack() as locks:
        for file in sorted(set(files), key=lambda file: file.number):
            locks.enter_context(file.lock)
        yield


class FileCopier:
    """Copies between the files of one mount. The locks of the files are held by the caller (`locked`)."""

    def __init__(self, device: ZonedDevice, mount: Mount, repair: Repair, clock: Callable[[], int]) -> None:
        self._device = device
        self._mount = mount
        self._repair = repair
        self._clock = clock

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
        for source in sources:
            source.file.check_copy_source(source.offset, source.length)
            if source.file is target and source.offset < offset + total and offset < source.offset + source.length:
                raise InvalidRequest(
                    f"{target.name}: copy of {source.length} bytes from {source.offset} to within {offset} and"
                    f" {offset + total} overlaps"
                )
        return offset

    def copy(
        self, engine: CopyEngine, sources: Sequence[Source], target: ZoneFile, offset: int
    ) -> tuple[CopyResult, list[tuple[ZoneFile, Verdict | None]]]:
        """Copy by *engine* what has been checked, and account for it. Return also what an error changed."""
        places = [(source.file.start + source.offset, source.length) for source in sources]
        result = engine.copy(gather(places, target.start + offset))
        return result, self._after_copy(sources, target, result)

    def copy_now(
        self, engine: CopyEngine, source: Source, target: ZoneFile, offset: int
    ) -> tuple[CopyResult, list[tuple[ZoneFile, Verdict | None]]] | None:
        """Do `copy` of *source* if that is over at once, without a wait for a disk; else None, and nothing is done."""
        if (offset | source.offset | source.length) % target.block_size:
            return None
        place = (source.file.start + source.offset, source.length)
        result = engine.copy_now(gather([place], target.start + offset))
        return None if result is None else (result, self._after_copy([source], target, result))

    def _after_copy(
        self, sources: Sequence[Source], target: ZoneFile, result: CopyResult
    ) -> list[tuple[ZoneFile, Verdict | None]]:
        """Account for what was copied, and recover from an error; the locks are held."""
        if target.sequential and result.completed:
            self._mount.set_size(target, target.size + result.completed)
        shares = share_out(result.completed, [source.length for source in sources])
        for source, completed in zip(sources, shares, strict=True):
            if completed and not source.keep_atime and not self._mount.read_only:
                source.file.touch_atime(self._clock())
        if not isinstance(result.error, DeviceError) or not result.issued:
            return []
        stopped = next(
            (source for source, completed in zip(sources, shares, strict=True) if completed < source.length),
            sources[-1],
        )
        # Which of the two it was that failed is known only if the source was read by itself.
        was_write = {stopped.file: False}
        if not result.source_failed:
            was_write[target] = True
        return [
            (file, self._repair.recover(file, result.error, was_write=written))
            for file, written in was_write.items()
            if file.sequential or not written
        ]

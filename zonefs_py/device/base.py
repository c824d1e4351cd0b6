"""The device interface: what zonefs needs from anything that behaves like a zoned block device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from zonefs_py.device.copy_command import check_command
from zonefs_py.device.power_cut import Keep, PowerCut, Unflushed
from zonefs_py.errors import UserError
from zonefs_py.zone import CopyMethod, CopyRange, DeviceInfo, Zone, ZoneCondition, ZoneOp


class ZonedDevice(ABC):
    """A zoned block device. Synchronous; offsets and lengths are bytes from the start of the device.

    *Threads.* Calls for different zones may run at the same time. Calls for one zone that write or manage
    it are the caller's to put in order.

    *Alignment* to ``info.block_size`` and staying within one zone are the caller's duty (several
    neighbouring conventional zones count as one for `read` and `write`): a violation is a ValueError,
    that is a bug, not an I/O error.
    """

    @property
    @abstractmethod
    def info(self) -> DeviceInfo:
        """Geometry and limits; they do not change while the device is open."""

    @abstractmethod
    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        """Return fresh entries for *count* zones (all that follow, if None) from zone number *start*.

        Raises DeviceError.
        """

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset*; what was never written reads as zeros.

        But behind the write pointer of a sequential zone a block device may give anything, or an error.

        Raises DeviceError; nothing is known about the data then.
        """

    @abstractmethod
    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of *data* at *offset*, in a sequential zone at its write pointer.

        Raises DeviceError. The write pointer may then be anywhere from where it was to where it would
        have been: report the zone again.
        """

    @abstractmethod
    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        """Do *op* on zone *number*. Raises DeviceError, and then the zone is as it was."""

    @abstractmethod
    def flush(self, number: int | None = None) -> None:
        """Make durable what was written before: of zone *number* at least, of all zones if None.

        Raises DeviceError; what was written since the last flush may then be lost.
        """

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill *buffer* with what is at *offset*. Raises DeviceError, and then the buffer may hold anything."""
        buffer[:] = self.read(offset, len(buffer))

    def read_into_now(self, offset: int, buffer: memoryview) -> bool:
        """Do `read_into` if the data can be had without waiting for a disk; return whether it was done.

        False says nothing but that: the buffer may then hold anything. A device that cannot tell reads. Raises
        DeviceError as `read_into` does.
        """
        self.read_into(offset, buffer)
        return True

    @property
    def generation(self) -> int:
        """How often it has changed what lies where below this device; it only grows.

        A copy is planned under one generation and must not run under another (see `copy`).
        """
        return 0

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        """Whether the device copies *ranges*, a command as `copy` wants it, by *method*, as far as that is known now.

        A device that takes each range by itself takes them together. Zone conditions and write pointers are not
        looked at. To be asked before the command is issued. Raises ValueError as `copy` does.
        """
        check_command(ranges, self.info)
        return method in self.info.copy_methods

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        """Copy *ranges* in order: one command, to a sequential zone at its write pointer.

        Their destinations follow each other and lie in one zone, conventional or not: a command never goes on in the
        next one. Each source lies in one zone, and overlaps nothing of the destination. All together they have at most
        ``info.copy_max_hw_bytes``, one at most ``info.copy_max_range_hw_bytes``, and there are at most
        ``info.copy_max_nr_ranges_hw``. What was never written copies as zeros.

        *generation* is the device's `generation` from before `can_copy` was asked. If it has changed since,
        TableChanged is raised and nothing has happened: plan again. None: not checked.

        Raises ValueError where the above is not so, and where `can_copy` says no, and nothing has happened then;
        DeviceError, whose ``completed`` counts the bytes that are known to be copied, contiguous from the start of the
        first range over all ranges (those before the one that failed are done); the destination's write pointer may
        then be anywhere from there to where it would have been: report the zone again. ``source_failed``: the device
        knows the source to blame, and the write pointer is where ``completed`` says. No other way of copying is tried
        (a device error must not be hidden by one).
        """
        raise ValueError(f"{self.info.name} cannot copy by {method.value}")

    def copy_waits(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        """Whether `copy` with these arguments may wait for a disk, as far as that is known beforehand.

        A device that cannot tell says yes.
        """
        return True

    def write_bytes(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write *data*, of any length, at any *offset* in conventional zones.

        Where a block is written in part, the rest of it is written as it was read; a device that can write single
        bytes does that instead. Raises DeviceError; some of *data* may be written then.
        """
        block = self.info.block_size
        before = offset % block
        end = offset + len(data)
        after = -end % block
        if before or after:
            # As the page cache would do it for the kernel.
            head = self.read(offset - before, block)[:before] if before else b""
            tail = self.read(end + after - block, block)[block - after :] if after else b""
            data = head + data + tail
        self.write(offset - before, data)

    def backing_descriptor(self, number: int) -> int | None:
        """Return a new descriptor, the caller's to close, of a file that is zone *number*; None if there is none.

        The file holds what `read` gives, byte by byte, and its size is the write pointer of a sequential zone, the
        capacity of a conventional one: now and from now on, through all that is done to the zone, until `watch_backing`
        tells otherwise. Reading the file is as good as reading the zone then. It is never to be written.

        None too for an offline zone. Raises DeviceError if the file cannot be opened.
        """
        return None

    def watch_backing(  # noqa: B027  (not abstract: a device without backing files has nothing to tell)
        self, withdrawn: Callable[[Iterable[int]], None] | None
    ) -> None:
        """Have *withdrawn* called with numbers of zones whose files from `backing_descriptor` must be used no more.

        It is called in any thread, with no lock held, after the fact and before the call that led to it returns. There
        is one watcher; None: no more. A device without backing files never calls.
        """

    def copy_out(self, number: int, length: int, descriptor: int, progress: Callable[[int], None]) -> bool:
        """Copy the first *length* bytes of zone *number* into a file of the host, without their passing through us.

        *descriptor* is the file, open for writing; it holds nothing but zeros. Zeros may stay holes, so that the file
        may end before *length*. *progress* is called with the bytes done. Returns whether that was done; if not, the
        device or the host cannot: `read_into` can. Raises DeviceError, and OSError if the file cannot take it.
        """
        return False

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        """Make zones READONLY or OFFLINE for good, as a failing drive does; None: back to normal.

        Conventional zones can be forced too. All zones change, or on an error none. Raises ValueError for any other
        condition or number, DeviceError when the change cannot be stored, UserError if the device is not emulated.
        """
        raise UserError(f"{self.info.name}: only the zones of an emulated device can be forced")

    def force_condition(self, number: int, condition: ZoneCondition | None) -> None:
        """Do `force_conditions` to one zone."""
        self.force_conditions([number], condition)

    def abandon(self) -> None:  # noqa: B027  (not abstract: few devices make anybody wait)
        """Fail calls that wait until somebody lets them go on, now and later: the device's user is about to end."""

    def interrupt(self) -> None:  # noqa: B027  (as `abandon`)
        """Fail such calls, and end delays, until `resume`: the power of a device above is going."""

    def resume(self) -> None:  # noqa: B027  (as `abandon`)
        """Let calls wait again, after `interrupt`."""

    def watch_stuck(  # noqa: B027  (not abstract: as `abandon`)
        self, watcher: Callable[[bool], None] | None
    ) -> None:
        """Have *watcher* called with True before a call waits until somebody lets it go on, with False afterwards.

        It is called in the thread of that call, and must not wait itself. There is one watcher; None: no more.
        """

    @property
    def has_write_cache(self) -> bool:
        """Whether it has something to lose by `power_cut`."""
        return False

    def unflushed(self) -> list[Unflushed]:
        """Return what `power_cut` could lose of which zones, in the order of their numbers, as of now."""
        return []

    def power_cut(self, keep: Keep) -> PowerCut:
        """Lose power, and with it what was not flushed, but for what *keep* says; every call then fails.

        Comes back when the calls under way have ended; those that wait below a cache fail, as by `interrupt`. Zones are
        as a drive may leave them: a sequential zone keeps what was flushed and any whole blocks behind that, in order;
        a conventional zone any of its blocks; no zone is open. `power_on` ends it. Without power nothing more
        is lost. Raises UserError if the device has no write cache, or *keep* asks for what there is not; nothing is
        lost then.
        """
        raise self._no_cache()

    def power_on(self) -> None:
        """Come back after `power_cut`; nothing happens if there is power. Raises UserError as that, DeviceError."""
        raise self._no_cache()

    def _no_cache(self) -> UserError:
        name = self.info.name
        return UserError(f"{name} has no write cache, and so nothing to lose with the power: use write-cache:{name}")

    @abstractmethod
    def close(self) -> None:
        """Let go of the device. Zones keep their conditions. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

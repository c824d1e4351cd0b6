"""A namespace of an NVMe controller that copies by itself: the Copy command beside whatever device reads and writes.

Commands go around the block layer, so what that would do is done here: cutting by limits is refused beforehand
(`NvmeDevice.can_copy`), one copy at a time goes to a zone, and write pointers are read again after each.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import check_command, total_length
from zonefs_py.device.nvme_copy import (
    CNS_CONTROLLER,
    CNS_NAMESPACE,
    CNS_NAMESPACE_OF_COMMAND_SET,
    IDENTIFY_OPCODE,
    CopySupport,
    NoCopy,
    NvmeCommand,
    SourceRange,
    copy_support,
    encode_copy,
    encode_sources,
    format_index,
    guard_bits,
    identify,
    pack_passthrough,
    parse_controller,
    parse_namespace,
    passthrough_result,
)
from zonefs_py.device.nvme_status import Blame, Completion, copy_error, is_success, status_rule
from zonefs_py.device.power_cut import Keep, PowerCut, Unflushed
from zonefs_py.errors import DeviceError, TableChanged, from_os_error
from zonefs_py.zone import CopyMethod, CopyRange, DeviceInfo, Zone, ZoneCondition, ZoneOp

log = logging.getLogger(__name__)

NVME_IOCTL_ID = 0x4E40
NVME_IOCTL_ADMIN_CMD = 0xC0484E41
NVME_IOCTL_IO_CMD = 0xC0484E43
"""linux/nvme_ioctl.h. The commands' struct nvme_passthru_cmd returns dword 0 also when the command fails."""


class Namespace(Protocol):
    """What takes commands for one namespace."""

    @property
    def nsid(self) -> int:
        """The namespace's number."""

    def submit(self, command: NvmeCommand) -> tuple[Completion, bytes]:
        """Run *command* to its end; return also what it received. Raises OSError where it never got that far."""


class IoctlNamespace:
    """A namespace through the kernel's passthrough ioctls."""

    def __init__(self, descriptor: int) -> None:
        """*descriptor* is its block device, open for writing; it stays the caller's. Raises OSError."""
        self.nsid = fcntl.ioctl(descriptor, NVME_IOCTL_ID)
        self._descriptor = descriptor

    def submit(self, command: NvmeCommand) -> tuple[Completion, bytes]:
        # An array, because it tells its address.
        data = array("B", command.data or bytes(command.receive))
        address, length = data.buffer_info()
        packed = pack_passthrough(command, address, length)
        request = NVME_IOCTL_ADMIN_CMD if command.opcode == IDENTIFY_OPCODE else NVME_IOCTL_IO_CMD
        status = fcntl.ioctl(self._descriptor, request, packed)
        return Completion(status, passthrough_result(packed)), b"" if command.data else data.tobytes()


def read_support(namespace: Namespace, block_size: int) -> CopySupport:
    """Ask *namespace* what it can copy for a device with blocks of *block_size* bytes. Raises NoCopy, OSError."""
    controller = parse_controller(_identify(namespace, CNS_CONTROLLER, "controller"))
    if not controller.copy:
        # Not asked more than needed: a controller without Copy may not know the rest.
        raise NoCopy("the controller does not support the Copy command")
    page = _identify(namespace, CNS_NAMESPACE, "namespace")
    guard = 16
    if controller.extended_formats:
        own = _identify(namespace, CNS_NAMESPACE_OF_COMMAND_SET, "namespace's command set")
        guard = guard_bits(own, format_index(page))
    return copy_support(controller, parse_namespace(page), guard, block_size)


def _identify(namespace: Namespace, cns: int, what: str) -> bytes:
    completion, page = namespace.submit(identify(cns, 0 if cns == CNS_CONTROLLER else namespace.nsid))
    if not is_success(completion.status):
        raise NoCopy(f"the {what} cannot be identified: {status_rule(completion.status).name}")
    return page


def check_permission(namespace: Namespace, support: CopySupport) -> None:
    """Find out whether we may send Copy commands, by one that no controller can do. Raises NoCopy, OSError.

    Its destination lies behind the end of the namespace. The kernel looks at the permission before it sends anything.
    """
    completion, _ = namespace.submit(encode_sources(namespace.nsid, support.nr_blocks, [SourceRange(0, 1)]))
    if is_success(completion.status):
        raise NoCopy("the controller says that it has copied to a place behind its end")


class NvmeDevice(ZonedDevice):
    """Another device, of a namespace that copies by itself: `copy` is one Copy command, everything else is the other's.

    After a copy the write pointer of its zone is reported and must be where the copy has to leave it. Since Linux 6.10
    the kernel keeps write pointers of its own (zone write plugs), which know nothing of commands that go around it, so
    that the next write to the zone fails, once. It is repeated if the zone's write pointer is where the copy left it.
    """

    def __init__(
        self,
        below: ZonedDevice,
        namespace: Namespace,
        support: CopySupport,
        *,
        kind: str | None = None,
        name: str | None = None,
        changed: Callable[[], None] | None = None,
    ) -> None:
        """*below* and *namespace* are the same device; this object owns *below*. Read-only, it copies nothing.

        *changed* is called after every command, for a *below* that must know what to flush.
        """
        self._below = below
        self._changed_below = changed
        self._namespace = namespace
        self._support = support
        self._changed = threading.Condition(threading.Lock())
        """Guards ``_copying``, and tells when it shrinks. Not held during I/O."""
        self._copying: set[int] = set()
        """Zones to which a copy is under way."""
        self._left_at: dict[int, int] = {}
        """Zones not written since their last copy, and where that left the write pointer. Single steps are atomic."""
        copies = not below.info.read_only
        self._info = replace(
            below.info,
            kind=kind or below.info.kind,
            name=name or below.info.name,
            copy_methods=(CopyMethod.DEVICE,) if copies else (),
            copy_max_hw_bytes=support.max_bytes if copies else 0,
            copy_max_range_hw_bytes=support.max_range_bytes if copies else 0,
            copy_max_nr_ranges_hw=support.max_ranges if copies else 0,
            reflink_alignment=0,
        )

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def generation(self) -> int:
        return self._below.generation

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        return self._below.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        return self._below.read(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._below.read_into(offset, buffer)

    def read_into_now(self, offset: int, buffer: memoryview) -> bool:
        return self._below.read_into_now(offset, buffer)

    def flush(self, number: int | None = None) -> None:
        self._below.flush(number)

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self._below.zone_mgmt(op, number)
        if op in (ZoneOp.RESET, ZoneOp.FINISH):
            # These the kernel sees, and takes the write pointer from them.
            self._left_at.pop(number, None)

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        self._below.force_conditions(numbers, condition)

    def abandon(self) -> None:
        self._below.abandon()

    def interrupt(self) -> None:
        self._below.interrupt()

    def resume(self) -> None:
        self._below.resume()

    def watch_stuck(self, watcher: Callable[[bool], None] | None) -> None:
        self._below.watch_stuck(watcher)

    @property
    def has_write_cache(self) -> bool:
        return self._below.has_write_cache

    def unflushed(self) -> list[Unflushed]:
        return self._below.unflushed()

    def power_cut(self, keep: Keep) -> PowerCut:
        return self._below.power_cut(keep)

    def power_on(self) -> None:
        self._below.power_on()

    def close(self) -> None:
        self._below.close()

    # Writing after a copy

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        number = offset // self._info.zone_size
        if number not in self._left_at:
            self._below.write(offset, data)
            return
        try:
            self._below.write(offset, data)
        except DeviceError as exc:
            if self._left_at.pop(number) != offset or not self._is_untouched(number, offset):
                raise
            log.info("zone %d: the first write after a copy is repeated: %s", number, exc)
            self._below.write(offset, data)
        else:
            self._left_at.pop(number, None)

    def _is_untouched(self, number: int, wp: int) -> bool:
        """Whether zone *number* takes writes at *wp*. The report also makes the kernel take over the write pointer."""
        try:
            zone = self._below.report_zones(number, 1)[0]
        except DeviceError:
            return False
        return not zone.is_conventional and zone.has_write_pointer and zone.wp == wp

    # Copying

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        check_command(ranges, self._info)
        return method in self._info.copy_methods

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        if not self.can_copy(ranges, method):
            raise ValueError(f"{self._info.name} cannot copy by {method.value}")
        if generation not in (None, self.generation):
            raise TableChanged(f"{self._info.name}: the copy was planned under another table")
        number = ranges[0].destination // self._info.zone_size
        what = f"zone {number}: copy of {total_length(ranges)} bytes to {ranges[0].destination}"
        with self._alone_in(number):
            error = self._issue(ranges, what)
            error = self._settle(ranges, number, error, what)
        if error is not None:
            raise error

    @contextlib.contextmanager
    def _alone_in(self, number: int) -> Iterator[None]:
        """One copy to a zone at a time: the controller may run commands in any order."""
        with self._changed:
            self._changed.wait_for(lambda: number not in self._copying)
            self._copying.add(number)
        try:
            yield
        finally:
            with self._changed:
                self._copying.remove(number)
                self._changed.notify_all()

    def _issue(self, ranges: Sequence[CopyRange], what: str) -> DeviceError | None:
        """Send the command; return its error, as far as the completion tells."""
        command = encode_copy(self._namespace.nsid, ranges, self._support)
        try:
            completion, _ = self._namespace.submit(command)
        except OSError as exc:
            error = from_os_error(exc, what)
            error.__cause__ = exc
            return error
        finally:
            if self._changed_below is not None:
                self._changed_below()
        if is_success(completion.status):
            return None
        error = copy_error(completion, ranges, what)
        if status_rule(completion.status).blame is Blame.EITHER:
            failed = next(part for part in ranges if part.destination - ranges[0].destination >= error.completed)
            error.source_failed = self._is_offline(failed.source) and not self._is_offline(failed.destination)
        return error

    def _is_offline(self, offset: int) -> bool:
        try:
            zone = self._below.report_zones(offset // self._info.zone_size, 1)[0]
        except DeviceError:
            return False
        return zone.condition is ZoneCondition.OFFLINE

    def _settle(
        self, ranges: Sequence[CopyRange], number: int, error: DeviceError | None, what: str
    ) -> DeviceError | None:
        """Look where the copy left the write pointer. Return the error that there is, or that this shows."""
        start, length = ranges[0].destination, total_length(ranges)
        try:
            zone = self._below.report_zones(number, 1)[0]
        except DeviceError as exc:
            # What the controller has said of the data still stands.
            if error is None:
                exc.completed = length
                return exc
            error.source_failed = False
            return error
        if zone.is_conventional:
            return error
        if zone.has_write_pointer:
            self._left_at[number] = zone.wp
        if zone.data_size is None:
            # Read-only or offline: no write pointer, but what was copied before was copied.
            return error
        moved = max(0, zone.start + zone.data_size - start)
        if error is None and moved < length:
            error = DeviceError(f"{what}: it is said to be done, but the write pointer moved by {moved} bytes")
            error.completed = sum(part.length for part in ranges if part.destination + part.length <= start + moved)
        elif error is not None:
            error.completed = min(error.completed, moved)
            error.source_failed = error.source_failed and moved == error.completed
        return error


def with_copies(
    below: ZonedDevice, descriptor: int, changed: Callable[[], None] | None = None, sysfs: Path = Path("/sys")
) -> ZonedDevice:
    """Return *below*, an open block device, as a device that copies by itself if it can.

    *descriptor* is the block device's, open for writing, and stays *below*'s. Everything that keeps it from copying is
    found out now, and logged: no NVMe namespace, no Copy command, no permission. Then *below* is returned as it is.
    *changed* is called after every copy; *sysfs* is where the kernel tells about devices.
    """
    try:
        if below.info.read_only:
            raise NoCopy("it is open read-only")
        _check_is_namespace(os.fstat(descriptor).st_rdev, sysfs)
        return with_namespace(below, IoctlNamespace(descriptor), changed)
    except (NoCopy, OSError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        log.info("%s: no copies by the device: %s", below.info.name, reason)
        return below


def with_namespace(below: ZonedDevice, namespace: Namespace, changed: Callable[[], None] | None = None) -> NvmeDevice:
    """Return *below*, which is the device of *namespace*, as one that copies by it. Raises NoCopy, OSError.

    *changed* is called after every copy.
    """
    support = read_support(namespace, below.info.block_size)
    if support.nr_blocks * support.block_size != below.info.size:
        raise NoCopy("the namespace is not of the block device's size")
    check_permission(namespace, support)
    return NvmeDevice(below, namespace, support, changed=changed)


def _check_is_namespace(number: int, sysfs: Path) -> None:
    """Raise NoCopy unless device *number* is a namespace itself, with one path. Device mapper passes ioctls on to one.

    A zone of a multipath device could not be written any more after a copy: the kernel (6.12) keeps its write pointer
    with the path, and corrects that after a failed write by reports that are asked of the path, which nobody can do.
    """
    directory = sysfs / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    if not (directory / "nsid").exists():
        raise NoCopy("it is not an NVMe namespace")
    if "nvme-subsystem" in directory.resolve().parts:
        raise NoCopy("it has multipath (nvme_core.multipath=N turns that off)")

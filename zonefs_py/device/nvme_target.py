"""A model of the other end of NVMe's Copy: a controller that runs the commands on any zoned device.

It checks what QEMU's controller checks, in its order, and has the two back ends that the Linux copy-offload series
gave the kernel's NVMe target: one hands all ranges to the block layer's copy, one copies range by range as a file's.
With it the whole path of a copy, from command to status to recovery, runs without hardware.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import cut
from zonefs_py.device.nvme import NvmeDevice, read_support
from zonefs_py.device.nvme_copy import (
    CNS_CONTROLLER,
    CNS_NAMESPACE,
    COPY_OPCODE,
    IDENTIFY_OPCODE,
    Controller,
    CopyRequest,
    Namespace,
    NvmeCommand,
    SourceRange,
    decode_copy,
    pack_controller,
    pack_namespace,
)
from zonefs_py.device.nvme_status import DO_NOT_RETRY, Completion, Status
from zonefs_py.errors import (
    ActiveZonesExhausted,
    DeviceError,
    HostFull,
    OpenZonesExhausted,
    TableChanged,
    UserError,
)
from zonefs_py.units import KIB, MIB
from zonefs_py.zone import CopyMethod, CopyRange, Zone, ZoneCondition, ZoneOp

log = logging.getLogger(__name__)

NSID = 1


@dataclass(frozen=True)
class TargetLimits:
    """What a Copy command may be: *mssrl* blocks a range, *mcl* in all, *msrc* + 1 ranges. UserError: out of range."""

    mssrl: int
    mcl: int
    msrc: int

    def __post_init__(self) -> None:
        for name, value, first, last in (
            ("mssrl", self.mssrl, 1, 0xFFFF),
            ("mcl", self.mcl, 1, 0xFFFFFFFF),
            ("msrc", self.msrc, 0, 0xFF),
        ):
            if not first <= value <= last:
                raise UserError(f"{name} is {first} to {last}, not {value}")


class Copied(NamedTuple):
    """What a back end did: *nr_ranges* ranges from the first are copied; *error* is what stopped it."""

    nr_ranges: int
    error: DeviceError | None = None


BackEnd = Callable[[ZonedDevice, Sequence[CopyRange]], Copied]
"""Copies ranges in order; those before the first that fails are copied, and those after it are not touched."""


def copy_blocks(device: ZonedDevice, ranges: Sequence[CopyRange]) -> Copied:
    """Copy as the block layer does: by the device, by any of its methods, else through a buffer of 1 MiB."""
    return _one_by_one(device, ranges, device.info.copy_methods, 1 * MIB)


def copy_files(device: ZonedDevice, ranges: Sequence[CopyRange]) -> Copied:
    """Copy as copy_file_range does on a file: by the host, else through pipes of 64 KiB."""
    return _one_by_one(device, ranges, (CopyMethod.HOST,), 64 * KIB)


BACK_ENDS: dict[str, BackEnd] = {"block": copy_blocks, "file": copy_files}

DEFAULT_LIMITS = {"block": (1 * MIB, 128 * MIB), "file": (2048 * 512, 524288 * 512)}
"""Bytes of a range and of all, in the back ends of the series (which gave the first 256 MiB, but took 128)."""


def default_limits(back_end: str, block_size: int) -> TargetLimits:
    """Return the limits of *back_end* where nobody has set any, for blocks of *block_size* bytes."""
    range_bytes, all_bytes = DEFAULT_LIMITS[back_end]
    return TargetLimits(range_bytes // block_size, all_bytes // block_size, 255)


def _one_by_one(
    device: ZonedDevice, ranges: Sequence[CopyRange], methods: Sequence[CopyMethod], buffer_size: int
) -> Copied:
    for done, part in enumerate(ranges):
        try:
            _copy_range(device, part, methods, buffer_size)
        except DeviceError as exc:
            return Copied(done, exc)
    return Copied(len(ranges))


def _copy_range(device: ZonedDevice, part: CopyRange, methods: Sequence[CopyMethod], buffer_size: int) -> None:
    """Copy one range, in pieces that *device* takes if it can copy. Raises DeviceError."""
    info = device.info
    # A controller takes a source that overlaps its destination; a device that we have does not.
    overlaps = part.source < part.destination + part.length and part.destination < part.source + part.length
    most = min(info.copy_max_hw_bytes, info.copy_max_range_hw_bytes)
    if most and not overlaps and any(method in info.copy_methods for method in methods):
        for piece in cut([part], most):
            _copy_piece(device, piece, methods, buffer_size)
    else:
        _copy_by_hand(device, part, buffer_size)


def _copy_piece(device: ZonedDevice, piece: CopyRange, methods: Sequence[CopyMethod], buffer_size: int) -> None:
    while True:
        generation = device.generation
        method = next((one for one in methods if device.can_copy([piece], one)), None)
        if method is None:
            _copy_by_hand(device, piece, buffer_size)
            return
        # Where the table changed in between nothing was done; a controller knows places, not what lies below them.
        with contextlib.suppress(TableChanged):
            device.copy([piece], method, generation)
            return


def _copy_by_hand(device: ZonedDevice, part: CopyRange, buffer_size: int) -> None:
    for piece in cut([part], buffer_size):
        try:
            data = device.read(piece.source, piece.length)
        except DeviceError as exc:
            exc.source_failed = True
            raise
        device.write(piece.destination, data)


class CopyTarget:
    """The namespace `NSID` of a controller, on *device*, which is the caller's. Commands may come from any thread.

    One difference from QEMU: a command that is refused after its zone was opened leaves the zone as it was.
    """

    nsid = NSID

    def __init__(self, device: ZonedDevice, limits: TargetLimits, back_end: BackEnd = copy_blocks) -> None:
        self._device = device
        self._limits = limits
        self._back_end = back_end
        self._block = device.info.block_size
        self._nr_blocks = device.info.size // self._block

    def submit(self, command: NvmeCommand) -> tuple[Completion, bytes]:
        if command.opcode == IDENTIFY_OPCODE:
            return self._identify(command)
        if command.opcode != COPY_OPCODE:
            return _failed(Status.INVALID_OPCODE), b""
        if command.nsid != self.nsid:
            return _failed(Status.INVALID_NAMESPACE), b""
        return self._copy(decode_copy(command)), b""

    def _identify(self, command: NvmeCommand) -> tuple[Completion, bytes]:
        limits = self._limits
        cns = command.cdw[0] & 0xFF
        if cns == CNS_CONTROLLER:
            page = pack_controller(Controller(copy=True, formats=1, extended_formats=False))
        elif cns == CNS_NAMESPACE and command.nsid == self.nsid:
            page = pack_namespace(
                Namespace(self._nr_blocks, self._block, 0, limits.mssrl, limits.mcl, limits.msrc),
            )
        else:
            return _failed(Status.INVALID_FIELD), bytes(command.receive)
        return Completion(0, 0), page[: command.receive]

    # Copy

    def _copy(self, request: CopyRequest) -> Completion:
        """The checks of QEMU's nvme_copy, in its order; then range by range."""
        if request.format != 0:
            return _failed(Status.INVALID_FIELD)
        if request.nr_ranges > self._limits.msrc + 1:
            return _failed(Status.SIZE_LIMIT_EXCEEDED)
        if len(request.ranges) < request.nr_ranges:
            return _failed(Status.DATA_TRANSFER_ERROR)
        if request.destination >= self._nr_blocks:
            return _failed(Status.LBA_OUT_OF_RANGE)
        try:
            zone = self._zone(request.destination)
            status = self._open(zone)
        except DeviceError:
            status = Status.INTERNAL_ERROR
        if status is not Status.SUCCESS:
            return _failed(status)
        if sum(source.nr_blocks for source in request.ranges) > self._limits.mcl:
            return _failed(Status.SIZE_LIMIT_EXCEEDED)
        return self._copy_ranges(request, zone)

    def _copy_ranges(self, request: CopyRequest, zone: Zone) -> Completion:
        """Copy the ranges before the first that cannot be: what they do to the zone is known beforehand."""
        ranges: list[CopyRange] = []
        destination = request.destination * self._block
        refused = Status.SUCCESS
        for source in request.ranges:
            part = CopyRange(source.start * self._block, destination, source.nr_blocks * self._block)
            refused = self._check_range(source, part, zone, first=not ranges)
            if refused is not Status.SUCCESS:
                break
            ranges.append(part)
            destination += part.length
        copied = self._back_end(self._device, ranges) if ranges else Copied(0)
        if copied.error is not None:
            # A status cannot say as much.
            log.info("the target's device: %s", copied.error)
            return _failed(self._status_of(copied.error, ranges[copied.nr_ranges]), copied.nr_ranges)
        return Completion(0, 0) if refused is Status.SUCCESS else _failed(refused, len(ranges))

    def _zone(self, block: int) -> Zone:
        return self._zone_at(block * self._block)

    def _zone_at(self, offset: int) -> Zone:
        return self._device.report_zones(offset // self._device.info.zone_size, 1)[0]

    def _open(self, zone: Zone) -> Status:
        """Find out whether *zone* can be opened. Raises DeviceError where the device does not say why not."""
        if zone.condition is ZoneCondition.NOT_WP:
            return Status.SUCCESS
        if not zone.has_write_pointer:
            return Status.ZONE_TRANSITION
        info = self._device.info
        is_open = zone.condition not in (ZoneCondition.EMPTY, ZoneCondition.CLOSED)
        if is_open or (info.max_open_zones is None and info.max_active_zones is None):
            return Status.SUCCESS
        # The device's own rules decide; the first write will open the zone implicitly.
        try:
            self._device.zone_mgmt(ZoneOp.OPEN, zone.number)
            self._device.zone_mgmt(ZoneOp.CLOSE, zone.number)
        except ActiveZonesExhausted:
            return Status.TOO_MANY_ACTIVE
        except OpenZonesExhausted:
            return Status.TOO_MANY_OPEN
        return Status.SUCCESS

    def _check_range(self, source: SourceRange, part: CopyRange, zone: Zone, *, first: bool) -> Status:
        """What is wrong with a range when all before it are copied: its source first, then where it goes in *zone*."""
        if source.nr_blocks > self._limits.mssrl:
            return Status.SIZE_LIMIT_EXCEEDED
        if source.start + source.nr_blocks > self._nr_blocks:
            return Status.LBA_OUT_OF_RANGE
        try:
            source_zone = self._zone(source.start)
        except DeviceError:
            return Status.INTERNAL_ERROR
        if source_zone.condition is ZoneCondition.OFFLINE:
            return Status.ZONE_OFFLINE
        if part.source + part.length > source_zone.start + source_zone.size:
            return Status.ZONE_BOUNDARY
        if part.destination + part.length > self._nr_blocks * self._block:
            return Status.LBA_OUT_OF_RANGE
        end = zone.start + zone.capacity
        if not zone.is_conventional:
            if not first and part.destination == end:
                return Status.ZONE_FULL
            if first and part.destination != zone.wp:
                return Status.ZONE_INVALID_WRITE
        return Status.ZONE_BOUNDARY if part.destination + part.length > end else Status.SUCCESS

    def _status_of(self, error: DeviceError, part: CopyRange) -> Status:
        """What a controller answers when *part* fails with *error* of the device below."""
        if isinstance(error, ActiveZonesExhausted):
            return Status.TOO_MANY_ACTIVE
        if isinstance(error, OpenZonesExhausted):
            return Status.TOO_MANY_OPEN
        if isinstance(error, HostFull):
            return Status.CAPACITY_EXCEEDED
        try:
            if error.source_failed:
                offline = self._zone_at(part.source).condition is ZoneCondition.OFFLINE
                return Status.ZONE_OFFLINE if offline else Status.READ_ERROR
            zone = self._zone_at(part.destination)
        except DeviceError:
            return Status.INTERNAL_ERROR
        broken = {
            ZoneCondition.FULL: Status.ZONE_FULL,
            ZoneCondition.READONLY: Status.ZONE_READ_ONLY,
            ZoneCondition.OFFLINE: Status.ZONE_OFFLINE,
        }
        if zone.condition in broken:
            return broken[zone.condition]
        moved = not zone.is_conventional and not part.destination <= zone.wp <= part.destination + part.length
        return Status.ZONE_INVALID_WRITE if moved else Status.WRITE_FAULT


def _failed(status: Status, result: int = 0) -> Completion:
    return Completion(status | DO_NOT_RETRY, result)


def model_device(
    below: ZonedDevice, limits: TargetLimits | None = None, back_end: str = "block", name: str | None = None
) -> NvmeDevice:
    """Return *below* as a device that copies by NVMe's Copy command: encoded, run by a `CopyTarget`, and decoded.

    It owns *below*. *limits* None: those of *back_end*, a key of `BACK_ENDS`. Raises UserError for limits that leave
    no room for a block.
    """
    target = CopyTarget(below, limits or default_limits(back_end, below.info.block_size), BACK_ENDS[back_end])
    support = read_support(target, below.info.block_size)
    return NvmeDevice(below, target, support, kind="nvme-copy", name=name or f"nvme-copy:{below.info.name}")

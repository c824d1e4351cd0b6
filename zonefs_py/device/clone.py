"""Makes an emulated device that is like another device, whatever that is: geometry, limits, conditions, data if wished.

Only the device interface is used: what a zone report does not tell, a clone does not have.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.building import build_device, make_zone_file
from zonefs_py.device.description import DeviceDescription, check_description
from zonefs_py.device.directory import new_serial
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import UserError
from zonefs_py.units import MIB, round_down
from zonefs_py.zone import TYPE_NAMES, DeviceInfo, Geometry, Zone, ZoneCondition, ZoneType

PIECE_SIZE = 1 * MIB
"""Bytes read at once where the data passes through us."""

HOLE_SIZE = 64 * 1024
"""Zeros that fill an aligned piece of this many bytes are not written: the file has a hole there."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ClonePlan:
    """What is to be made of which zones of a device."""

    description: DeviceDescription
    zones: tuple[Zone, ...]
    """The zones of the other device, in the order in which they are those of the clone."""
    lengths: tuple[int, ...]
    """How many bytes from its start are copied of each."""

    @property
    def work(self) -> int:
        """What the progress of `write_clone` counts up to: bytes and zones."""
        return sum(self.lengths) + len(self.zones)


def clone_device(
    source: ZonedDevice | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    zones: Iterable[int] | None = None,
    data: bool = False,
    force: bool = False,
) -> None:
    """Make the directory *path* an emulated device like *source*, or like those of its *zones*, in the order given.

    It gets the geometry, limits, profile and conditions, and a serial of its own. Zones that are read-only or offline
    are so in the clone. Open zones are closed there. With *data* what is in the zones is copied too, else they read as
    zeros up to their write pointers. *source* is an open device, or what `open_stack` opens.

    *path* and *force* are those of `create_device`, and as there a failure leaves everything as it was. Raises
    UserError for what no emulated device can be, DeviceError if *source* fails, what `open_stack` raises, OSError.
    """
    if not isinstance(source, ZonedDevice):
        with open_stack(os.fspath(source), read_only=True) as opened:
            clone_device(opened, path, zones=zones, data=data, force=force)
        return
    write_clone(source, plan_clone(source, zones, data=data), path, force=force)


def plan_clone(source: ZonedDevice, zones: Iterable[int] | None = None, *, data: bool) -> ClonePlan:
    """Return what a clone of *source* (or of those *zones* of it) is. Raises UserError, DeviceError, ValueError."""
    report = source.report_zones()
    chosen = tuple(report if zones is None else [report[number] for number in zones])
    description = describe_clone(source.info, chosen)
    return ClonePlan(description, chosen, tuple(_length(zone) if data else 0 for zone in chosen))


def write_clone(
    source: ZonedDevice,
    plan: ClonePlan,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress = lambda done: None,
) -> None:
    """Do what `plan_clone` returned for *source*; else as `clone_device`. *progress* counts up to ``plan.work``."""
    geometry = plan.description.geometry
    before = 0

    def within_zone(done: int) -> None:
        progress(before + done)

    with build_device(path, plan.description, force=force) as directory:
        for number, (zone, length) in enumerate(zip(plan.zones, plan.lengths, strict=True)):
            descriptor = make_zone_file(directory, geometry, number)
            try:
                if length:
                    _copy_zone(source, zone, length, descriptor, within_zone)
                size = _file_size(zone, geometry.block_size, os.fstat(descriptor).st_size)
                os.ftruncate(descriptor, size)
                if length:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            before += length + 1
            progress(before)


def describe_clone(info: DeviceInfo, zones: Sequence[Zone]) -> DeviceDescription:
    """Return the description of a device with *zones* of one of *info*. Raises UserError if there is none."""
    if not zones:
        raise UserError(f"{info.name}: no zones to clone")
    description = DeviceDescription(
        _geometry(info, zones),
        max_open_zones=info.max_open_zones,
        max_active_zones=info.max_active_zones,
        serial=new_serial(),
        profile=info.profile,
        forced={
            place: zone.condition
            for place, zone in enumerate(zones)
            if zone.condition in (ZoneCondition.READONLY, ZoneCondition.OFFLINE)
        },
    )
    try:
        check_description(description)
    except UserError as exc:
        raise UserError(f"{info.name}: {exc}") from None
    return description


def _geometry(info: DeviceInfo, zones: Sequence[Zone]) -> Geometry:
    sequential = [zone for zone in zones if not zone.is_conventional]
    geometry = Geometry(
        zone_size=info.zone_size,
        zone_capacity=sequential[0].capacity if sequential else info.zone_size,
        nr_zones=len(zones),
        nr_conventional=len(zones) - len(sequential),
        block_size=info.block_size,
        last_zone_size=zones[-1].size,
    )
    if sequential == [zones[-1]] and zones[-1].capacity == zones[-1].size:
        # The only sequential zone may be the smaller one, and then says nothing about the capacity of others.
        geometry = replace(geometry, zone_capacity=info.zone_size)
    for place, zone in enumerate(zones):
        what = f"{info.name}: zone {zone.number}"
        if zone.type is ZoneType.SEQ_WRITE_PREFERRED:
            raise UserError(f"{what} is {TYPE_NAMES[zone.type]}: no emulated device has such zones")
        if zone.is_conventional != geometry.is_conventional(place):
            raise UserError(f"{what} is {TYPE_NAMES[zone.type]}: an emulated device has conventional zones first")
        if zone.size != geometry.size_of(place):
            raise UserError(f"{what} has {zone.size} bytes: only the last zone of an emulated device can be smaller")
        if zone.capacity != geometry.capacity_of(place):
            raise UserError(
                f"{what} has a capacity of {zone.capacity} bytes, others of {geometry.capacity_of(place)}:"
                " those of an emulated device have one capacity"
            )
    return geometry


def _length(zone: Zone) -> int:
    """How much of *zone* may hold something that can be read."""
    if zone.condition is ZoneCondition.OFFLINE:
        return 0
    # No report tells how far a read-only zone was written: what was not reads as zeros.
    return zone.capacity if zone.data_size is None else zone.data_size


def _file_size(zone: Zone, block_size: int, copied: int) -> int:
    """The size of the file of a clone of *zone*; *copied* is the end of what was copied and is not zero."""
    if zone.is_conventional:
        return zone.size
    if zone.data_size is None:
        return -round_down(-copied, block_size)
    return zone.data_size


def _copy_zone(source: ZonedDevice, zone: Zone, length: int, descriptor: int, progress: Progress) -> None:
    if source.copy_out(zone.number, length, descriptor, progress):
        return
    block = source.info.block_size
    piece = round_down(PIECE_SIZE, block)
    # Page-aligned, for direct I/O.
    buffer = memoryview(mmap.mmap(-1, piece))
    for done in range(0, length, piece):
        part = buffer[: min(piece, length - done)]
        source.read_into(zone.start + done, part)
        _write_sparsely(descriptor, part, done)
        progress(done + len(part))


def _write_sparsely(descriptor: int, data: memoryview, offset: int) -> None:
    zeros = bytes(HOLE_SIZE)
    for start in range(0, len(data), HOLE_SIZE):
        part = data[start : start + HOLE_SIZE]
        if part != zeros[: len(part)]:
            done = 0
            while done < len(part):
                done += os.pwrite(descriptor, part[done:], offset + start + done)

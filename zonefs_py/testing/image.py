"""What is on a device at one moment, shared between the many moments that differ in little, and a device made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.device.description import DeviceDescription, check_description
from zonefs_py.device.emulated import EmulatedDevice, make_info
from zonefs_py.device.memory import MemoryStore
from zonefs_py.errors import UserError
from zonefs_py.units import MIB
from zonefs_py.zone import CopyMethod, DeviceInfo, Geometry, ZoneCondition


class SequentialImage(NamedTuple):
    """A sequential zone: *size* bytes up to its write pointer, of which the first *written* are those of *data* and the
    others zeros. *data* may be longer, and grow: what it has is never changed."""

    data: bytes | bytearray
    written: int
    size: int


class ConventionalImage(NamedTuple):
    """A conventional zone: blocks by their offset in the zone; all others are zeros."""

    blocks: Mapping[int, bytes]


ZoneImage = SequentialImage | ConventionalImage

EMPTY_ZONE = SequentialImage(b"", 0, 0)


@dataclass(frozen=True)
class DeviceImage:
    """A device at one moment, no zone open. Zones that are not in *zones* were never written."""

    description: DeviceDescription
    info: DeviceInfo
    zones: Mapping[int, ZoneImage]


class _ImageStore(MemoryStore):
    """The zones of an image; a zone is copied when it is first changed."""

    def __init__(self, geometry: Geometry, zones: Mapping[int, ZoneImage]) -> None:
        super().__init__(geometry)
        self._images = zones

    def _own(self, number: int) -> None:
        if number not in self._zones:
            self._zones[number] = bytearray(self.read(number, 0, self.size(number)))

    def read(self, number: int, offset: int, length: int) -> bytes:
        image = self._images.get(number)
        if image is None or number in self._zones:
            return super().read(number, offset, length)
        if isinstance(image, SequentialImage):
            end = min(offset + length, image.size)
            data = bytes(image.data[offset : min(end, image.written)])
            return data + bytes(max(0, end - offset) - len(data))
        block = self._geometry.block_size
        zeros = bytes(block)
        first = offset - offset % block
        blocks = [image.blocks.get(at, zeros) for at in range(first, offset + length, block)]
        return b"".join(blocks)[offset - first :][:length]

    def write(self, number: int, offset: int, data: memoryview) -> None:
        self._own(number)
        super().write(number, offset, data)

    def size(self, number: int) -> int:
        image = self._images.get(number)
        if image is None or number in self._zones:
            return super().size(number)
        return image.size if isinstance(image, SequentialImage) else self._geometry.size_of(number)

    def set_size(self, number: int, size: int) -> None:
        self._own(number)
        super().set_size(number, size)


def open_image(image: DeviceImage) -> EmulatedDevice:
    """Return a device in memory that holds *image*; what is done to it does not change the image."""
    description = image.description
    geometry = description.geometry
    sizes = [
        zone.size if isinstance(zone := image.zones.get(number), SequentialImage) else 0
        for number in range(geometry.nr_zones)
    ]
    conditions = ZoneConditions(geometry, description.max_open_zones, description.max_active_zones, sizes)
    return EmulatedDevice(_ImageStore(geometry, image.zones), description, conditions, image.info)


def empty_image(
    geometry: Geometry, max_open_zones: int | None = None, max_active_zones: int | None = None
) -> DeviceImage:
    """Return a device whose zones are all empty. Raises UserError if no device can be like that."""
    description = DeviceDescription(geometry, max_open_zones, max_active_zones, serial="memory")
    check_description(description)
    info = make_info(description, "memory", "memory", read_only=False, copy_methods=(CopyMethod.HOST,))
    return DeviceImage(description, info, {})


def take_image(device: ZonedDevice) -> DeviceImage:
    """Return what is on *device* now; sequential zones that are read-only or offline are so, without their data.

    Only devices that an emulated device can be like: conventional zones first, all sequential zones of one size and
    capacity but for the last. Raises UserError for others, DeviceError.
    """
    info = device.info
    reported = device.report_zones()
    sequential = [zone for zone in reported if not zone.is_conventional]
    first = sequential[0] if sequential else reported[0]
    geometry = Geometry(
        info.zone_size,
        max(zone.capacity for zone in sequential) if sequential else info.zone_size,
        info.nr_zones,
        info.nr_zones - len(sequential),
        info.block_size,
        reported[-1].size,
    )
    for zone in reported:
        shape = (zone.is_conventional, zone.size, zone.capacity)
        number = zone.number
        if shape != (geometry.is_conventional(number), geometry.size_of(number), geometry.capacity_of(number)):
            raise UserError(f"{info.name}: zone {number} is not like zone {first.number}: no image can be taken")
    broken = (ZoneCondition.READONLY, ZoneCondition.OFFLINE)
    forced = {zone.number: zone.condition for zone in reported if zone.condition in broken}
    empty = empty_image(geometry, info.max_open_zones, info.max_active_zones)
    description = DeviceDescription(
        geometry, info.max_open_zones, info.max_active_zones, serial=info.serial, profile=info.profile, forced=forced
    )
    zones: dict[int, ZoneImage] = {}
    for zone in reported:
        if zone.is_conventional and zone.condition is not ZoneCondition.OFFLINE:
            zones[zone.number] = ConventionalImage(_blocks(device, zone.start, zone.size, info.block_size))
        elif size := zone.data_size:
            zones[zone.number] = SequentialImage(_data(device, zone.start, size), size, size)
    return DeviceImage(description, empty.info, zones)


def _data(device: ZonedDevice, start: int, size: int) -> bytes:
    return b"".join(device.read(start + at, min(MIB, size - at)) for at in range(0, size, MIB))


def _blocks(device: ZonedDevice, start: int, size: int, block_size: int) -> dict[int, bytes]:
    """The blocks of a conventional zone that are not all zeros."""
    zeros = bytes(block_size)
    blocks = {}
    for at in range(0, size, MIB):
        data = device.read(start + at, min(MIB, size - at))
        if not any(data):
            continue
        for within in range(0, len(data), block_size):
            block = data[within : within + block_size]
            if block != zeros:
                blocks[at + within] = block
    return blocks

"""The emulated device without files: for tests that run a million steps, and for trying things out."""

from __future__ import annotations

from collections.abc import Callable

from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.device.description import DeviceDescription, check_description
from zonefs_py.device.emulated import EmulatedDevice, Place, make_info
from zonefs_py.zone import CopyMethod, Geometry


class MemoryStore:
    """Zones as byte arrays that grow as they are written."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._zones: dict[int, bytearray] = {}

    def read(self, number: int, offset: int, length: int) -> bytes:
        zone = self._zones.get(number)
        return bytes(zone[offset : offset + length]) if zone else b""

    def write(self, number: int, offset: int, data: memoryview) -> None:
        zone = self._zones.setdefault(number, bytearray())
        if len(zone) < offset:
            zone.extend(bytes(offset - len(zone)))
        zone[offset : offset + len(data)] = data

    def read_into(self, number: int, offset: int, buffer: memoryview) -> int:
        data = self.read(number, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_into_now(self, number: int, offset: int, buffer: memoryview) -> int:
        return self.read_into(number, offset, buffer)

    def copy(self, source: Place, destination: Place, length: int, method: CopyMethod) -> None:
        data = self.read(*source, length)
        self.write(*destination, memoryview(data + bytes(length - len(data))))

    def copy_out(self, number: int, length: int, descriptor: int, progress: Callable[[int], None]) -> bool:
        return False

    def can_copy(self, source_offset: int, destination_offset: int, length: int, method: CopyMethod) -> bool:
        return True

    def copy_waits(self, source: int, destination: int, method: CopyMethod) -> bool:
        return False

    def size(self, number: int) -> int:
        return len(self._zones.get(number, b""))

    def set_size(self, number: int, size: int) -> None:
        zone = self._zones.setdefault(number, bytearray())
        if size < len(zone):
            del zone[size:]
        else:
            zone.extend(bytes(size - len(zone)))

    def flush(self, number: int | None) -> None:
        """Memory is as durable as it will get."""

    def save(self, description: DeviceDescription) -> None:
        """The device object itself remembers the description."""

    def descriptor(self, number: int) -> None:
        return None

    def close(self) -> None:
        """The zones stay: the device can be used again."""


class MemoryDevice(EmulatedDevice):
    """An emulated zoned block device in memory. `close` keeps the data, so that it can be mounted again."""

    def __init__(
        self, geometry: Geometry, max_open_zones: int | None = None, max_active_zones: int | None = None
    ) -> None:
        """All zones are empty. Raises UserError if no device can have this geometry and these limits."""
        description = DeviceDescription(geometry, max_open_zones, max_active_zones, serial="memory")
        check_description(description)
        conditions = ZoneConditions(geometry, max_open_zones, max_active_zones, bytes(geometry.nr_zones))
        info = make_info(description, "memory", "memory", read_only=False, copy_methods=(CopyMethod.HOST,))
        super().__init__(MemoryStore(geometry), description, conditions, info)

"""A device in memory that copies by itself, and remembers what it was asked to copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError
from zonefs_py.zone import CopyMethod, DeviceInfo, Geometry


class CopyingDevice(MemoryDevice):
    """Copies block by block, so that what goes wrong in the middle leaves a part of the copy behind."""

    def __init__(
        self,
        geometry: Geometry,
        max_open_zones: int | None = None,
        max_active_zones: int | None = None,
        *,
        methods: tuple[CopyMethod, ...] = (CopyMethod.HOST,),
        name: str = "memory",
    ) -> None:
        super().__init__(geometry, max_open_zones, max_active_zones)
        self._more: dict[str, Any] = {"copy_methods": methods, "name": name}
        self.copies: list[tuple[int, int, int, CopyMethod]] = []
        """Source, destination, length and method of each `copy`, in order."""

    @property
    def info(self) -> DeviceInfo:
        return replace(super().info, **self._more)

    def copy(
        self, source: int, destination: int, length: int, method: CopyMethod, generation: int | None = None
    ) -> None:
        assert method in self.info.copy_methods
        self.copies.append((source, destination, length, method))
        block = self.info.block_size
        for done in range(0, length, block):
            try:
                self.write(destination + done, self.read(source + done, block))
            except DeviceError as exc:
                exc.completed = done
                raise

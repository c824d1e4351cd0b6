"""A device in memory that copies by itself, and remembers what it was asked to copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zonefs_py.device.copy_command import check_command, cut
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError
from zonefs_py.zone import CopyMethod, CopyRange, DeviceInfo, Geometry


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
        self.commands: list[tuple[list[CopyRange], CopyMethod]] = []
        """Ranges and method of each `copy`, in order."""

    @property
    def copies(self) -> list[tuple[int, int, int, CopyMethod]]:
        """Source, destination, length and method of each range that it was asked to copy."""
        return [(*piece, method) for ranges, method in self.commands for piece in ranges]

    @property
    def info(self) -> DeviceInfo:
        return replace(super().info, **self._more)

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        check_command(ranges, self.info)
        return method in self.info.copy_methods

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        assert self.can_copy(ranges, method)
        self.commands.append((list(ranges), method))
        for done, (source, destination, length) in enumerate(cut(ranges, self.info.block_size)):
            try:
                self.write(destination, self.read(source, length))
            except DeviceError as exc:
                exc.completed = done * self.info.block_size
                raise

"""The conformance suite over every device that there is, and over the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.zone import Geometry

from .conformance import Make, ZonedDeviceConformance, shape
from .failing import FailingDevice

__all__ = ["shape"]


class TestMemoryDevice(ZonedDeviceConformance):
    @pytest.fixture
    def make(self) -> Make:
        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            return MemoryDevice(geometry, max_open, max_active)

        return make


class TestEmulatedDevice(ZonedDeviceConformance):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Make]:
        made: list[ZonedDevice] = []

        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            path = tmp_path / f"device{len(made)}"
            create_device(path, geometry, max_open, max_active)
            made.append(open_device(path))
            return made[-1]

        yield make
        for device in made:
            device.close()


class TestFailingDevice(ZonedDeviceConformance):
    """The fake of the tests, with nothing that fails."""

    @pytest.fixture
    def make(self) -> Make:
        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            return FailingDevice(MemoryDevice(geometry, max_open, max_active))

        return make

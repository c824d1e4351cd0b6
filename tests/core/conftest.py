"""Fixtures of the tests of copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.copy_files import GEOMETRY, MakeDevice
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device


@pytest.fixture(params=["memory", "directory"])
def make_device(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDevice:
    """A factory of formatted devices: ``make_device(max_open, max_active, aggregate_conventional)``."""

    def make(
        max_open: int | None = None, max_active: int | None = None, aggregate_conventional: bool = False
    ) -> EmulatedDevice:
        device: EmulatedDevice
        if request.param == "memory":
            device = MemoryDevice(GEOMETRY, max_open, max_active)
        else:
            create_device(tmp_path / "disk", GEOMETRY, max_open, max_active)
            device = open_device(tmp_path / "disk")
        format_device(device, FormatOptions(aggregate_conventional))
        return device

    return make


@pytest.fixture
def fs(make_device: MakeDevice) -> Iterator[Filesystem]:
    """A file system without limits that repairs what errors leave."""
    with Filesystem(make_device(), MountOptions(ErrorsPolicy.REPAIR)) as filesystem:
        yield filesystem

"""What tests of copies between files share: the device, its files, and what must hold after any copy."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.core.calls import size_of
from zonefs_py.config import FormatOptions
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry

BLOCK = 4096
ZONE_SIZE = 16 * BLOCK
CAPACITY = 12 * BLOCK
LAST_SIZE = 8 * BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 12, 4, BLOCK, LAST_SIZE)
"""cnv/0 to cnv/2; seq/0 to seq/7, the last of which is smaller."""

FIRST = 4
"""The zone of seq/0."""

LAST = "seq/7"
DIRECT = os.O_RDWR | os.O_DIRECT
MakeDevice = Callable[..., EmulatedDevice]


def put(fs: Filesystem, name: str, data: bytes, offset: int | None = None) -> None:
    """Write *data* to a file, a sequential one at its write pointer."""
    handle = fs.open(name, DIRECT)
    where = (size_of(fs, name) if fs.is_sequential(name) else 0) if offset is None else offset
    assert fs.write(handle, where, data) == len(data)
    fs.release(handle)


def copy(fs: Filesystem, source: str, source_offset: int, target: str, offset: int, length: int) -> int:
    """Copy between files that are opened for it, the destination without O_DIRECT."""
    reader = fs.open(source, os.O_RDONLY)
    writer = fs.open(target, os.O_WRONLY)
    try:
        return fs.copy_range(reader, source_offset, writer, offset, length)
    finally:
        fs.release(writer)
        fs.release(reader)


def copied_bytes(fs: Filesystem) -> dict[str, int]:
    """How many bytes each engine has copied, of those that have copied any."""
    return {engine.value: done.bytes for engine, done in fs.copy_engine.counters.items() if done.bytes}


def check_books(fs: Filesystem) -> None:
    """Compare sizes with the device, and counters and space with a recount. No file may be open, none broken."""
    files = {name: zone for zone, name in fs.report() if name and name.startswith("seq/")}
    written = active = 0
    for name, zone in files.items():
        assert zone.data_size == size_of(fs, name), name
        written += size_of(fs, name)
        active += 0 < size_of(fs, name) < zone.capacity
    assert fs.counters.nr_active_seq_files == active
    assert fs.counters.nr_wro_seq_files == 0
    statistics = fs.statfs()
    room = sum(zone.capacity for zone in files.values())
    assert statistics.blocks_free == (room - written) // BLOCK


def memory_device() -> EmulatedDevice:
    """A formatted device in memory."""
    device = MemoryDevice(GEOMETRY)
    format_device(device, FormatOptions())
    return device

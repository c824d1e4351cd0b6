"""What tests of `Filesystem` share: a small device in memory, its files, and what must always hold."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from tests.core.calls import may_be_refused, size_of
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition

KIB = 1024
BLOCK = 4096
ZONE_SIZE = 128 * KIB
CAPACITY = 96 * KIB
BLOCKS = CAPACITY // BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 10, 2, BLOCK, ZONE_SIZE)
"""cnv/0 and seq/0 to seq/7."""

FIRST = 2
"""The zone of seq/0."""

DIRECT = os.O_RDWR | os.O_DIRECT
APPEND = DIRECT | os.O_APPEND


def pattern(offset: int, length: int, seed: int = 1) -> bytes:
    """*length* bytes that differ by where they are, and by *seed*."""
    return b"".join((seed << 48 | offset + more).to_bytes(8, "big") for more in range(0, length, 8))


def new_device(max_open: int | None = None, max_active: int | None = None, **features: Any) -> MemoryDevice:
    """A formatted device in memory."""
    device = MemoryDevice(GEOMETRY, max_open, max_active)
    format_device(device, FormatOptions(**features), uuid=bytes(16))
    return device


def options(errors: str = "remount-ro", **more: Any) -> MountOptions:
    """Mount options."""
    return replace(MountOptions(errors=ErrorsPolicy(errors)), **more)


def fill(fs: Filesystem, name: str, blocks: int) -> None:
    """Write *blocks* blocks at the write pointer of *name*."""
    handle = fs.open(name, DIRECT)
    size = fs.getattr(fs.resolve(name)).size
    assert fs.write(handle, size, pattern(size, blocks * BLOCK)) == blocks * BLOCK
    fs.release(handle)


def mode_of(fs: Filesystem, name: str) -> int:
    """The permission bits of a file."""
    return fs.getattr(fs.resolve(name)).mode & 0o7777


def seq_names(fs: Filesystem) -> list[str]:
    """All sequential files."""
    return [f"seq/{index}" for index in range(GEOMETRY.nr_zones - FIRST)]


def check_invariants(fs: Filesystem) -> None:
    """Compare sizes with the device, and counters and space with a recount. No file may be open, none broken."""
    zones = {name: zone for zone, name in fs.report() if name}
    active = written = 0
    for name in seq_names(fs):
        size = size_of(fs, name)
        assert zones[name].data_size == size, name
        written += size
        active += 0 < size < CAPACITY
        assert zones[name].condition not in (ZoneCondition.EXP_OPEN,)
    counters = fs.counters
    assert (counters.nr_wro_seq_files, counters.nr_active_seq_files) == (0, active)
    statistics = fs.statfs()
    conventional = (GEOMETRY.nr_conventional - 1) * ZONE_SIZE
    assert statistics.blocks == (conventional + 8 * CAPACITY) // BLOCK
    assert statistics.blocks_free == (8 * CAPACITY - written) // BLOCK


def announced(fs: Filesystem) -> list[int]:
    """A list that grows by each inode that *fs* announces; the callback uses the file, so no lock may be held."""
    seen: list[int] = []

    def note(ino: int) -> None:
        fs.getattr(ino)
        assert fs.statfs()
        assert fs.counters
        handle = fs.open(ino, os.O_RDONLY)
        fs.release(handle)
        with may_be_refused("EPERM", "EROFS"):
            fs.truncate(ino, 12345)
        seen.append(ino)

    fs.on_change = note
    return seen


POLICIES = ["remount-ro", "zone-ro", "zone-offline", "repair"]

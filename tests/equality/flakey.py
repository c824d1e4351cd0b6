"""A zoned device whose writes and flushes fail on demand: device mapper's flakey over a null_blk, by its ioctls."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess

from tests.equality.geometry import Geometry
from tests.equality.nullblk import NullBlk
from tests.equality.zoned import SECTOR

_CONTROL = "/dev/mapper/control"
_VERSION = (4, 0, 0)

# linux/dm-ioctl.h
_HEAD = struct.Struct("<3I3IiII4xQ128s129s7x")
_TARGET = struct.Struct("<QQiI16s")
_CREATE, _REMOVE, _RESUME, _LOAD = 0xC138FD03, 0xC138FD04, 0xC138FD06, 0xC138FD09
_SKIP_LOCKFS = 1 << 10

FEATURES = {"": "", "error": " 1 error_writes", "drop": " 1 drop_writes"}
"""What the target does while it is down, as its table says. Neither touches reads, reports or zone management."""


class FlakyNullBlk(NullBlk):
    """A null_blk with a write cache, below a device-mapper device, whose ``path`` this has."""

    def __init__(self, name: str, geometry: Geometry) -> None:
        super().__init__(name, geometry, cache_mib=1)
        subprocess.run(["modprobe", "dm-flakey"], check=True)
        self._below = self.path
        self._mapped = name.encode()
        number = self._mapper(_CREATE)
        self.path = f"/dev/dm-{os.minor(number)}"
        self.let_fail("")

    def let_fail(self, how: str) -> None:
        """Let all writes and flushes fail (``error``), or be dropped and said to be done (``drop``); empty: neither."""
        # Times are seconds up and down; a device that is up does nothing.
        times = "0 1" if how else "1 0"
        table = f"{self._below} 0 {times}{FEATURES[how]}".encode() + b"\0"
        table += bytes(-len(table) % 8)
        target = _TARGET.pack(0, self.geometry.size // SECTOR, 0, _TARGET.size + len(table), b"flakey")
        self._mapper(_LOAD, target + table)
        # Puts the table in the place of the one before. The file system above is not frozen for it: it could notice.
        self._mapper(_RESUME, flags=_SKIP_LOCKFS)

    def remove(self) -> None:
        self._mapper(_REMOVE)
        super().remove()

    def _mapper(self, request: int, data: bytes = b"", flags: int = 0) -> int:
        """Make a request about the device; return its number."""
        size = _HEAD.size + len(data)
        count = 1 if data else 0
        head = _HEAD.pack(*_VERSION, size, _HEAD.size, count, 0, flags, 0, 0, self._mapped, b"")
        buffer = bytearray(head + data)
        descriptor = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, request, buffer)
        finally:
            os.close(descriptor)
        number: int = _HEAD.unpack_from(buffer)[9]
        return number

"""A small log-structured key-value store on the zone files of a zonefs directory.

Each record is one block. New records go to the end of the *hot* zone. When zones run out, the records of the zone with
the fewest live ones are copied to the *cold* zone, and that zone is reset. What `put` has returned from is to survive a
power cut. In `LogStore` it does not always; `FixedLogStore` has the difference.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple, Protocol

BLOCK = 4096
_HEADER = struct.Struct("<4sIQHH")  # magic, crc, sequence number, lengths of key and value
_MAGIC = b"LOGS"
MAX_SIZE = BLOCK - _HEADER.size


class Zones(Protocol):
    """Sequential zones by number."""

    def numbers(self) -> list[int]:
        """All there are."""

    def capacity(self, number: int) -> int:
        """Bytes that a zone can take."""

    def read(self, number: int) -> bytes:
        """All that is in a zone."""

    def append(self, number: int, data: bytes) -> None:
        """Write whole blocks at the end of a zone."""

    def sync(self, number: int) -> None:
        """Make what is in a zone durable."""

    def reset(self, number: int) -> None:
        """Empty a zone, at once and for good."""


class MountedZones:
    """The files below ``seq`` of a mounted zonefs, this one or the kernel's."""

    def __init__(self, mountpoint: Path) -> None:
        self._directory = mountpoint / "seq"

    def numbers(self) -> list[int]:
        return sorted(int(name) for name in os.listdir(self._directory))

    def capacity(self, number: int) -> int:
        return self._path(number).stat().st_blocks * 512

    def read(self, number: int) -> bytes:
        return self._path(number).read_bytes()

    def append(self, number: int, data: bytes) -> None:
        descriptor = os.open(self._path(number), os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
        try:
            with mmap.mmap(-1, len(data)) as aligned:
                aligned[:] = data
                os.write(descriptor, aligned)
        finally:
            os.close(descriptor)

    def sync(self, number: int) -> None:
        descriptor = os.open(self._path(number), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def reset(self, number: int) -> None:
        os.truncate(self._path(number), 0)

    def _path(self, number: int) -> Path:
        return self._directory / str(number)


class _Record(NamedTuple):
    sequence: int
    key: str
    value: bytes
    zone: int

    def pack(self) -> bytes:
        key = self.key.encode()
        body = struct.pack("<QHH", self.sequence, len(key), len(self.value)) + key + self.value
        return (_MAGIC + struct.pack("<I", zlib.crc32(body)) + body).ljust(BLOCK, b"\0")


def _unpack(block: bytes, zone: int) -> _Record | None:
    magic, crc, sequence, key_size, value_size = _HEADER.unpack_from(block)
    end = _HEADER.size + key_size + value_size
    if magic != _MAGIC or end > BLOCK or zlib.crc32(block[8:end]) != crc:
        return None
    middle = _HEADER.size + key_size
    return _Record(sequence, block[_HEADER.size : middle].decode(), block[middle:end], zone)


class LogStore:
    """The store. Opening it reads all zones; the youngest record of a key counts."""

    def __init__(self, zones: Zones) -> None:
        self._zones = zones
        self._live: dict[str, _Record] = {}
        self._used: dict[int, int] = {}
        self._hot: int | None = None
        self._cold: int | None = None
        for number in zones.numbers():
            data = zones.read(number)
            self._used[number] = len(data)
            for start in range(0, len(data), BLOCK):
                record = _unpack(data[start : start + BLOCK], number)
                if record and (record.key not in self._live or self._live[record.key].sequence <= record.sequence):
                    self._live[record.key] = record
        self._sequence = max((record.sequence for record in self._live.values()), default=0)

    def contents(self) -> dict[str, bytes]:
        """Return all keys and their values."""
        return {key: record.value for key, record in self._live.items()}

    def get(self, key: str) -> bytes:
        """Return the value of *key*. Raises KeyError."""
        return self._live[key].value

    def put(self, key: str, value: bytes) -> None:
        """Store *value* under *key*. When this returns, it is there for good."""
        if len(key.encode()) + len(value) > MAX_SIZE:
            raise ValueError(f"key and value have more than {MAX_SIZE} bytes")
        if self._is_full(self._hot):
            while len(self._empty()) < 2:
                self._collect()
            self._hot = self._empty()[0]
        assert self._hot is not None
        self._sequence += 1
        self._append(_Record(self._sequence, key, value, self._hot))
        self._zones.sync(self._hot)

    def _collect(self) -> None:
        """Move the live records out of a zone, and reset it."""
        victim = min(
            (number for number in self._used if self._used[number] and number not in (self._hot, self._cold)),
            key=lambda number: sum(record.zone == number for record in self._live.values()),
        )
        targets = set()
        for record in [record for record in self._live.values() if record.zone == victim]:
            if self._is_full(self._cold):
                self._cold = self._empty()[0]
            assert self._cold is not None
            self._append(record._replace(zone=self._cold))
            targets.add(self._cold)
        self._before_reset(targets)
        self._zones.reset(victim)
        self._used[victim] = 0

    def _before_reset(self, targets: set[int]) -> None:
        """What has to happen before records are dropped whose copies are in the zones *targets*."""
        # The next put will sync.

    def _append(self, record: _Record) -> None:
        self._zones.append(record.zone, record.pack())
        self._used[record.zone] += BLOCK
        self._live[record.key] = record

    def _is_full(self, number: int | None) -> bool:
        return number is None or self._used[number] + BLOCK > self._zones.capacity(number)

    def _empty(self) -> list[int]:
        return [number for number, used in self._used.items() if not used and number not in (self._hot, self._cold)]


class FixedLogStore(LogStore):
    """A reset is durable at once. A copy is not: `put` syncs the hot zone, and copies are in the cold one."""

    def _before_reset(self, targets: set[int]) -> None:
        for number in targets:
            self._zones.sync(number)

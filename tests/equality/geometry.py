"""The devices that both file systems are tried on, and their superblocks, written from the format's description."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20

AGGR_CNV, UID, GID, PERM = 1, 2, 4, 8
UUID = bytes(range(0x10, 0x20))


@dataclass(frozen=True)
class Geometry:
    """A zoned device: sizes in bytes; limits of 0 are none. ``size`` need not be a whole number of zones."""

    size: int
    zone_size: int
    capacity: int
    nr_conventional: int
    block: int
    max_open: int = 0
    max_active: int = 0

    @property
    def nr_zones(self) -> int:
        """How many zones there are, a smaller last one included."""
        return -(-self.size // self.zone_size)

    @property
    def last_zone_size(self) -> int:
        """Bytes of the last zone."""
        return self.size - (self.nr_zones - 1) * self.zone_size

    def zone_capacity(self, zone: int) -> int:
        """Bytes of *zone* that can be written."""
        size = self.last_zone_size if zone == self.nr_zones - 1 else self.zone_size
        return size if zone < self.nr_conventional else min(size, self.capacity)

    def seq_zone(self, number: int) -> int:
        """The zone of ``seq/number``: zone 0 has no file."""
        return max(self.nr_conventional, 1) + number

    @property
    def nr_seq_files(self) -> int:
        """How many sequential files there are."""
        return self.nr_zones - self.seq_zone(0)


GEOMETRIES = {
    "plain": Geometry(64 * MIB, 4 * MIB, 4 * MIB, 4, 4096),
    "sectors": Geometry(64 * MIB, 4 * MIB, 3 * MIB, 4, 512),
    "limits": Geometry(64 * MIB, 4 * MIB, 4 * MIB, 4, 4096, max_open=4, max_active=6),
    "active": Geometry(64 * MIB, 4 * MIB, 4 * MIB, 4, 4096, max_active=6),
    "odd": Geometry(62 * MIB, 4 * MIB, 4 * MIB, 1, 4096),
    "sequential": Geometry(16 * MIB, 1 * MIB, 1 * MIB, 0, 4096),
    "many": Geometry(64 * MIB, 1 * MIB, 1 * MIB, 4, 4096),
    "small": Geometry(16 * MIB, 1 * MIB, 1 * MIB, 4, 4096),
    "small-sectors": Geometry(32 * MIB, 2 * MIB, 1 * MIB, 3, 512),
    "small-limits": Geometry(16 * MIB, 1 * MIB, 1 * MIB, 2, 4096, max_open=3, max_active=5),
    "scsi": Geometry(64 * MIB, 4 * MIB, 4 * MIB, 4, 4096, max_open=4),
    "scsi-sectors": Geometry(64 * MIB, 4 * MIB, 4 * MIB, 4, 512, max_open=4),
    "scsi-many": Geometry(64 * MIB, 1 * MIB, 1 * MIB, 4, 4096, max_open=4),
    "zns": Geometry(64 * MIB, 4 * MIB, 3 * MIB, 0, 4096, max_open=4, max_active=6),
}


def pack_superblock(
    features: int = 0,
    uid: int = 0,
    gid: int = 0,
    perm: int = 0,
    *,
    magic: int = 0x5A4F4653,
    label: bytes = b"equality",
    changes: dict[int, int] | None = None,
    crc_error: int = 0,
) -> bytes:
    """The 4096 bytes at the start of zone 0. *changes* replaces bytes (offset to value) before the checksum."""
    block = bytearray(4096)
    struct.pack_into("<II64s16sQIII", block, 0, magic, 0, label, UUID, features, uid, gid, perm)
    for offset, value in (changes or {}).items():
        block[offset] = value
    struct.pack_into("<I", block, 4, zlib.crc32(block) ^ 0xFFFFFFFF ^ crc_error)
    return bytes(block)

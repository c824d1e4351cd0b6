"""The zonefs superblock: the first 4096 bytes of zone 0, to bytes and back. Pure; no I/O, no clock, no randomness.

The format is the Linux kernel's (``struct zonefs_super``, fs/zonefs), so that a device formatted here mounts there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntFlag

from zonefs_py.errors import SuperblockError

SUPERBLOCK_SIZE = 4096
MAGIC = 0x5A4F4653
LABEL_SIZE = 64
UUID_SIZE = 16

DEFAULT_UID = 0
DEFAULT_GID = 0
DEFAULT_PERMISSIONS = 0o640

_FIELDS = struct.Struct("<II64s16sQIII")
_CRC_OFFSET = 4
_CRC_SIZE = 4
_RESERVED = bytes(SUPERBLOCK_SIZE - _FIELDS.size)
_INVALID_ID = 0xFFFFFFFF  # (uid_t)-1


class Features(IntFlag):
    """Optional features; a superblock with any other bit is one that we must not mount."""

    AGGREGATE_CONVENTIONAL = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    PERMISSIONS = 1 << 3


FEATURE_NAMES = {
    Features.AGGREGATE_CONVENTIONAL: "aggr_cnv",
    Features.UID: "uid",
    Features.GID: "gid",
    Features.PERMISSIONS: "perm",
}
_KNOWN_FEATURES = sum(FEATURE_NAMES)
_NO_FEATURES = Features(0)


@dataclass(frozen=True)
class Superblock:
    """A zonefs superblock.

    ``uid``, ``gid`` and ``perm`` are the fields as they stand on the device, which count only if ``features`` says
    so: use `file_uid`, `file_gid` and `file_permissions`. ``label`` is at most 64 bytes and does not end in NUL;
    ``uuid`` is 16 bytes, all zeros included. Raises ValueError where a field does not fit its place.
    """

    label: bytes = b""
    uuid: bytes = bytes(UUID_SIZE)
    features: Features = _NO_FEATURES
    uid: int = 0
    gid: int = 0
    perm: int = 0

    def __post_init__(self) -> None:
        if len(self.label) > LABEL_SIZE or self.label.endswith(b"\0"):
            raise ValueError(f"label {self.label!r} is longer than {LABEL_SIZE} bytes or ends in NUL")
        if len(self.uuid) != UUID_SIZE:
            raise ValueError(f"a uuid has {UUID_SIZE} bytes, not {len(self.uuid)}")
        for name, value in (("uid", self.uid), ("gid", self.gid), ("perm", self.perm)):
            if not 0 <= value <= 0xFFFFFFFF:
                raise ValueError(f"{name} {value} does not fit 32 bits")

    @property
    def aggregate_conventional(self) -> bool:
        """Whether neighbouring conventional zones make one file."""
        return Features.AGGREGATE_CONVENTIONAL in self.features

    @property
    def file_uid(self) -> int:
        """Owner of the files."""
        return self.uid if Features.UID in self.features else DEFAULT_UID

    @property
    def file_gid(self) -> int:
        """Group of the files."""
        return self.gid if Features.GID in self.features else DEFAULT_GID

    @property
    def file_permissions(self) -> int:
        """Mode bits of the files; like the kernel's, not masked to 0777."""
        return self.perm if Features.PERMISSIONS in self.features else DEFAULT_PERMISSIONS

    @property
    def fsid(self) -> int:
        """What statfs shows as the file system's id: an unsigned 64-bit number."""
        return int.from_bytes(self.uuid[:8], "little") ^ int.from_bytes(self.uuid[8:], "little")

    @property
    def label_text(self) -> str:
        """The label up to its first NUL, for people to read."""
        return self.label.partition(b"\0")[0].decode(errors="replace")

    @property
    def feature_names(self) -> list[str]:
        """Names of the features that are on, in the order of their bits."""
        return [name for feature, name in FEATURE_NAMES.items() if feature in self.features]

    def pack(self) -> bytes:
        """Return the 4096 bytes that belong on the device, with the right CRC."""
        fields = _FIELDS.pack(MAGIC, 0, self.label, self.uuid, self.features, self.uid, self.gid, self.perm)
        block = fields + _RESERVED
        crc = checksum(block).to_bytes(_CRC_SIZE, "little")
        return block[:_CRC_OFFSET] + crc + block[_CRC_OFFSET + _CRC_SIZE :]

    @classmethod
    def unpack(cls, data: bytes) -> Superblock:
        """Return the superblock that *data*, the first 4096 bytes of zone 0 or more, holds.

        Checks what the kernel checks at mount, in its order. Raises SuperblockError whose message names the
        first field that is wrong.
        """
        if len(data) < SUPERBLOCK_SIZE:
            raise SuperblockError(f"superblock of {len(data)} bytes, {SUPERBLOCK_SIZE} needed")
        block = bytes(data[:SUPERBLOCK_SIZE])
        magic, crc, label, uuid, features, uid, gid, perm = _FIELDS.unpack_from(block)
        if magic != MAGIC:
            raise SuperblockError(f"superblock: bad magic 0x{magic:08x}, zonefs has 0x{MAGIC:08x}")
        if crc != (expected := checksum(block)):
            raise SuperblockError(f"superblock: bad crc 0x{crc:08x}, its content gives 0x{expected:08x}")
        if unknown := features & ~_KNOWN_FEATURES:
            raise SuperblockError(f"superblock: unknown features 0x{unknown:x}")
        if features & Features.UID and uid == _INVALID_ID:
            raise SuperblockError(f"superblock: invalid uid {uid}")
        if features & Features.GID and gid == _INVALID_ID:
            raise SuperblockError(f"superblock: invalid gid {gid}")
        if block[_FIELDS.size :] != _RESERVED:
            raise SuperblockError("superblock: the reserved area is in use")
        return cls(label.rstrip(b"\0"), uuid, Features(features), uid, gid, perm)


def checksum(block: bytes) -> int:
    """Return the CRC of *block*, a superblock: of all its 4096 bytes with the CRC field taken as zero.

    The kernel's crc32_le with a seed of all ones and no inversion at the end; zlib's has one.
    """
    crc = zlib.crc32(block[:_CRC_OFFSET])
    crc = zlib.crc32(bytes(_CRC_SIZE), crc)
    crc = zlib.crc32(block[_CRC_OFFSET + _CRC_SIZE :], crc)
    return crc ^ 0xFFFFFFFF

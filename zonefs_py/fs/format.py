"""Formatting a device, which is what mkzonefs does, and telling what a device holds already."""

from __future__ import annotations

import uuid as uuid_module
from collections.abc import Callable
from dataclasses import dataclass

from zonefs_py.config import FormatOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import SuperblockError, UserError
from zonefs_py.fs.superblock import LABEL_SIZE, MAGIC, SUPERBLOCK_SIZE, Features, Superblock
from zonefs_py.zone import DeviceInfo, Zone, ZoneCondition, ZoneOp

IDENTIFY_SIZE = 72 * 1024
"""Bytes at the start of a device that `identify_content` looks at; further out nothing has its first signature."""

_DEAD_CONDITIONS = frozenset({ZoneCondition.READONLY, ZoneCondition.OFFLINE})


def format_device(
    device: ZonedDevice,
    options: FormatOptions,
    uuid: bytes | None = None,
    progress: Callable[[int], None] | None = None,
) -> Superblock:
    """Make *device* a zonefs: reset all sequential zones and write the superblock. Return the superblock.

    *uuid* is 16 bytes, random if None. *progress* is called with the number of zones done. As with a reset of
    all zones by hardware, read-only and offline zones are left alone; if zone 0 is one of them nothing is
    changed. Afterwards zone 0 is full if it is sequential, and everything is durable.

    Raises UserError if *options* do not fit the superblock or the device cannot hold one (nothing is changed
    then), and DeviceError if the device fails (zones may have been reset, and there may be no superblock).
    """
    superblock = make_superblock(options, uuid_module.uuid4().bytes if uuid is None else uuid)
    zones = device.report_zones()
    _check_superblock_zone(zones[0], device.info)
    for done, zone in enumerate(zones, start=1):
        if _needs_reset(zone):
            device.zone_mgmt(ZoneOp.RESET, zone.number)
        if progress is not None:
            progress(done)
    device.write(0, superblock.pack())
    if not zones[0].is_conventional:
        # Nothing may be appended to the superblock, and a full zone does not count as active.
        device.zone_mgmt(ZoneOp.FINISH, 0)
    device.flush()
    return superblock


def make_superblock(options: FormatOptions, uuid: bytes) -> Superblock:
    """Return the superblock for *options*. Raises UserError if the label is too long."""
    label = options.label.encode(errors="surrogateescape")
    # One byte less than the field, so that who reads the label as a C string finds its end.
    if len(label) >= LABEL_SIZE:
        raise UserError(f"the label has {len(label)} bytes, at most {LABEL_SIZE - 1} fit")
    if b"\0" in label:
        raise UserError("the label contains a NUL character")
    features = Features(0)
    if options.aggregate_conventional:
        features |= Features.AGGREGATE_CONVENTIONAL
    if options.uid is not None:
        features |= Features.UID
    if options.gid is not None:
        features |= Features.GID
    if options.permissions is not None:
        features |= Features.PERMISSIONS
    return Superblock(label, uuid, features, options.uid or 0, options.gid or 0, options.permissions or 0)


def _check_superblock_zone(zone: Zone, info: DeviceInfo) -> None:
    if zone.condition in _DEAD_CONDITIONS:
        words = "read-only" if zone.condition is ZoneCondition.READONLY else "offline"
        raise UserError(f"{info.name}: zone 0 is {words} and cannot take the superblock")
    if zone.capacity < SUPERBLOCK_SIZE or SUPERBLOCK_SIZE % info.block_size:
        raise UserError(
            f"{info.name}: zone 0 (capacity {zone.capacity} bytes, blocks of {info.block_size}) has no room for the"
            f" superblock of {SUPERBLOCK_SIZE} bytes"
        )


def _needs_reset(zone: Zone) -> bool:
    if zone.is_conventional or zone.condition in _DEAD_CONDITIONS:
        return False
    return zone.condition is not ZoneCondition.EMPTY


@dataclass(frozen=True)
class _Signature:
    """*magic* at one of *offsets* (bytes from the start of the device) means *name*."""

    name: str
    magic: bytes
    offsets: tuple[int, ...]


_PAGE_SIZES = (4096, 8192, 16384, 65536)
_SECTORS = (0, 512, 1024, 1536)

# What wraps something else (encryption, RAID, LVM, ...) comes first, a
# partition table last: its signature at byte 510 is shared by the boot sectors of FAT and NTFS.
_SIGNATURES = (
    _Signature("a LUKS encrypted volume", b"LUKS\xba\xbe", (0,)),
    _Signature("a BitLocker encrypted volume", b"-FVE-FS-", (3,)),
    _Signature("an LVM physical volume", b"LABELONE", _SECTORS),
    _Signature("a Linux RAID member", b"\xfc\x4e\x2b\xa9", (0, 4096)),
    _Signature("a dm-zoned device", b"DBZD", (0,)),
    _Signature("a dm-integrity device", b"integrt\0", (0,)),
    _Signature("a dm-verity hash device", b"verity\0\0", (0,)),
    _Signature("a VDO volume", b"dmvdo001", (0,)),
    _Signature("an xfs file system", b"XFSB", (0,)),
    _Signature("a btrfs file system", b"_BHRfS_M", (65536 + 64,)),
    _Signature("an f2fs file system", b"\x10\x20\xf5\xf2", (1024,)),
    _Signature("an erofs file system", b"\xe2\xe1\xf5\xe0", (1024,)),
    _Signature("a bcachefs file system", bytes.fromhex("c68573f6 66ce 90a9 d96a 60cf803df7ef"), (4096 + 24,)),
    _Signature("a bcache device", bytes.fromhex("c68573f6 4e1a 45ca 8265 f57f48ba6d81"), (4096 + 24,)),
    _Signature("a gfs2 file system", b"\x01\x16\x19\x70", (65536,)),
    _Signature("a reiserfs file system", b"ReIsEr", (65536 + 52,)),
    _Signature("a jfs file system", b"JFS1", (32768,)),
    _Signature("an ISO 9660 file system", b"CD001", (32768 + 1,)),
    _Signature("a UDF file system", b"BEA01", (32768 + 1,)),
    _Signature("a squashfs file system", b"hsqs", (0,)),
    _Signature("a nilfs2 file system", b"\x34\x34", (1024 + 6,)),
    _Signature("a swap area", b"SWAPSPACE2", tuple(size - 10 for size in _PAGE_SIZES)),
    _Signature("a swap area", b"SWAP-SPACE", tuple(size - 10 for size in _PAGE_SIZES)),
    _Signature("a hibernation image", b"S1SUSPEND\0", tuple(size - 10 for size in _PAGE_SIZES)),
    _Signature("an exFAT file system", b"EXFAT   ", (3,)),
    _Signature("an NTFS file system", b"NTFS    ", (3,)),
    _Signature("a FAT file system", b"FAT32   ", (82,)),
    _Signature("a FAT file system", b"FAT16   ", (54,)),
    _Signature("a FAT file system", b"FAT12   ", (54,)),
    _Signature("a GPT partition table", b"EFI PART", (512, 4096)),
    _Signature("a tar archive", b"ustar", (257,)),
)

_EXT_MAGIC = b"\x53\xef"
_EXT_SUPERBLOCK = 1024
_EXT_JOURNAL = 0x4  # s_feature_compat: has_journal
_EXT_JOURNAL_DEVICE = 0x8  # s_feature_incompat: journal_dev
_EXT3_INCOMPATIBLE = 0x2 | 0x4 | 0x10  # filetype, recover, meta_bg: what ext3 and ext2 know
_EXT3_READ_ONLY_COMPATIBLE = 0x1 | 0x2 | 0x4  # sparse_super, large_file, btree_dir


def identify_content(first_bytes: bytes) -> str | None:
    """Return in a few words what *first_bytes*, the start of a device, show that it holds.

    None if they are all zero; ``unknown data`` if they are not, but nothing is recognised. Give it
    `IDENTIFY_SIZE` bytes, or as many as there are.
    """
    if not any(first_bytes):
        return None
    if first_bytes[:4] == MAGIC.to_bytes(4, "little"):
        return _describe_zonefs(first_bytes)
    for signature in _SIGNATURES:
        if any(first_bytes.startswith(signature.magic, offset) for offset in signature.offsets):
            return signature.name
    if first_bytes.startswith(_EXT_MAGIC, _EXT_SUPERBLOCK + 0x38):
        return _describe_ext(first_bytes)
    if _is_partition_table(first_bytes):
        return "an MBR partition table"
    return "unknown data"


def _describe_zonefs(first_bytes: bytes) -> str:
    try:
        superblock = Superblock.unpack(first_bytes)
    except SuperblockError as exc:
        return f"a damaged zonefs file system ({exc})"
    label = f"label {superblock.label_text!r}, " if superblock.label_text else ""
    return f"a zonefs file system ({label}uuid {uuid_module.UUID(bytes=superblock.uuid)})"


def _describe_ext(first_bytes: bytes) -> str:
    compatible, incompatible, read_only_compatible = (
        int.from_bytes(first_bytes[_EXT_SUPERBLOCK + at : _EXT_SUPERBLOCK + at + 4], "little")
        for at in (0x5C, 0x60, 0x64)
    )
    if incompatible & _EXT_JOURNAL_DEVICE:
        return "an ext4 journal"
    if incompatible & ~_EXT3_INCOMPATIBLE or read_only_compatible & ~_EXT3_READ_ONLY_COMPATIBLE:
        return "an ext4 file system"
    return "an ext3 file system" if compatible & _EXT_JOURNAL else "an ext2 file system"


def _is_partition_table(first_bytes: bytes) -> bool:
    if first_bytes[510:512] != b"\x55\xaa":
        return False
    entries = [first_bytes[at : at + 16] for at in range(446, 510, 16)]
    return all(entry[0] in (0x00, 0x80) for entry in entries) and any(entry[4] for entry in entries)

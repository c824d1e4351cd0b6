"""Formatting devices, and recognising what they hold."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.cli.mkfs import find_content
from zonefs_py.config import FormatOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import IDENTIFY_SIZE, format_device, identify_content
from zonefs_py.fs.superblock import Features, Superblock
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

MIB = 1 << 20
ZERO_UUID = bytes(16)
SOME_UUID = bytes(range(16))


def geometry(nr_conventional: int = 2, nr_zones: int = 8, block_size: int = 4096) -> Geometry:
    return Geometry(
        zone_size=MIB,
        zone_capacity=MIB - 256 * 1024,
        nr_zones=nr_zones,
        nr_conventional=nr_conventional,
        block_size=block_size,
        last_zone_size=MIB // 2,
    )


def read_superblock(device: MemoryDevice) -> Superblock:
    return Superblock.unpack(device.read(0, 4096))


@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("nr_conventional", [0, 1, 2, 8])
def test_the_superblock_is_at_the_start_and_all_else_is_empty(nr_conventional: int, block_size: int) -> None:
    device = MemoryDevice(geometry(nr_conventional, block_size=block_size))
    superblock = format_device(device, FormatOptions(), SOME_UUID)
    assert superblock == Superblock(uuid=SOME_UUID)
    assert device.read(0, 8192) == superblock.pack() + bytes(4096)
    conditions = {zone.condition for zone in device.report_zones()[max(nr_conventional, 1) :]}
    assert conditions <= {ZoneCondition.EMPTY}


def test_a_sequential_zone_0_is_finished() -> None:
    device = MemoryDevice(geometry(nr_conventional=0))
    format_device(device, FormatOptions())
    first = device.report_zones(0, 1)[0]
    assert first.condition is ZoneCondition.FULL
    assert first.wp == first.start + first.size
    with pytest.raises(DeviceError):
        device.write(4096, bytes(4096))


def test_options_become_features() -> None:
    device = MemoryDevice(geometry())
    format_device(device, FormatOptions(True, uid=0, gid=5, permissions=0, label="Zürich"), SOME_UUID)
    assert read_superblock(device) == Superblock(
        "Zürich".encode(),
        SOME_UUID,
        Features.AGGREGATE_CONVENTIONAL | Features.UID | Features.GID | Features.PERMISSIONS,
        uid=0,
        gid=5,
        perm=0,
    )


@pytest.mark.parametrize(
    ("options", "features"),
    [
        (FormatOptions(), 0),
        (FormatOptions(aggregate_conventional=True), 1),
        (FormatOptions(uid=0), 2),
        (FormatOptions(gid=0), 4),
        (FormatOptions(permissions=0o640), 8),
    ],
)
def test_only_what_was_given_is_a_feature(options: FormatOptions, features: int) -> None:
    device = MemoryDevice(geometry())
    assert format_device(device, options).features == features
    assert struct.unpack_from("<Q", device.read(0, 4096), 88) == (features,)


def test_each_format_has_a_uuid_of_its_own() -> None:
    device = MemoryDevice(geometry())
    uuids = {format_device(device, FormatOptions()).uuid for _ in range(3)}
    assert len(uuids) == 3
    assert all(UUID(bytes=uuid).version == 4 for uuid in uuids)


def test_a_uuid_of_zeros_is_one_too() -> None:
    device = MemoryDevice(geometry())
    assert format_device(device, FormatOptions(), ZERO_UUID).uuid == ZERO_UUID


def test_all_data_of_sequential_zones_is_gone() -> None:
    device = MemoryDevice(geometry(nr_conventional=0))
    format_device(device, FormatOptions())
    for number in (1, 5, 7):
        device.write(number * MIB, b"x" * 8192)
    format_device(device, FormatOptions())
    assert all(zone.condition is ZoneCondition.EMPTY for zone in device.report_zones(1))
    assert read_superblock(device)


def test_formatting_works_at_the_limit_of_active_zones() -> None:
    device = MemoryDevice(geometry(nr_conventional=0), max_open_zones=1, max_active_zones=1)
    format_device(device, FormatOptions())
    device.write(MIB, bytes(4096))
    format_device(device, FormatOptions())
    device.write(2 * MIB, bytes(4096))


@pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
def test_broken_zones_are_left_alone(condition: ZoneCondition) -> None:
    device = MemoryDevice(geometry())
    device.force_condition(4, condition)
    format_device(device, FormatOptions())
    assert device.report_zones(4, 1)[0].condition is condition


@pytest.mark.parametrize("nr_conventional", [0, 2])
@pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
def test_a_broken_zone_0_is_refused_and_nothing_changes(condition: ZoneCondition, nr_conventional: int) -> None:
    device = MemoryDevice(geometry(nr_conventional))
    device.write(3 * MIB, b"x" * 4096)
    device.force_condition(0, condition)
    before = device.report_zones()
    with pytest.raises(UserError, match="zone 0 is"):
        format_device(device, FormatOptions())
    assert device.report_zones() == before
    assert device.read(3 * MIB, 4096) == b"x" * 4096


@pytest.mark.parametrize("label", ["x" * 64, "ü" * 32, "a\0b"])
def test_a_label_that_does_not_fit_is_refused_and_nothing_changes(label: str) -> None:
    device = MemoryDevice(geometry())
    device.write(3 * MIB, b"x" * 4096)
    before = device.report_zones()
    with pytest.raises(UserError, match="label"):
        format_device(device, FormatOptions(label=label))
    assert device.report_zones() == before


def test_a_label_of_63_bytes_fits() -> None:
    device = MemoryDevice(geometry())
    format_device(device, FormatOptions(label="x" * 63))
    assert read_superblock(device).label_text == "x" * 63


def test_progress_counts_zones() -> None:
    device = MemoryDevice(geometry())
    seen: list[int] = []
    format_device(device, FormatOptions(), progress=seen.append)
    assert seen == list(range(1, 9))


def test_a_directory_is_formatted_like_memory(tmp_path: Path) -> None:
    create_device(tmp_path / "d", geometry(nr_conventional=0))
    with open_device(tmp_path / "d") as device:
        superblock = format_device(device, FormatOptions(label="kept"))
    content = (tmp_path / "d" / "seq-000000").read_bytes()
    assert content == superblock.pack().ljust(geometry().zone_capacity, b"\0")


# What is on a device already. The signatures here are written out again on purpose.


def image(*pieces: tuple[int, bytes]) -> bytes:
    content = bytearray(IDENTIFY_SIZE)
    for offset, data in pieces:
        content[offset : offset + len(data)] = data
    return bytes(content)


def ext_image(compatible: int, incompatible: int, read_only: int) -> bytes:
    features = struct.pack("<III", compatible, incompatible, read_only)
    return image((1024 + 56, b"\x53\xef"), (1024 + 92, features))


MBR_ENTRY = b"\x80" + bytes(3) + b"\x83" + bytes(11)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ext_image(0, 0x2, 0x3), "ext2"),
        (ext_image(0x4, 0x2, 0x3), "ext3"),
        (ext_image(0x3C, 0x2C2, 0x46B), "ext4"),
        (ext_image(0, 0x8, 0), "ext4 journal"),
        (image((0, b"XFSB")), "xfs"),
        (image((0x10040, b"_BHRfS_M")), "btrfs"),
        (image((1024, b"\x10\x20\xf5\xf2")), "f2fs"),
        (image((4086, b"SWAPSPACE2")), "swap"),
        (image((65536 - 10, b"SWAPSPACE2")), "swap"),
        (image((510, b"\x55\xaa"), (512, b"EFI PART")), "GPT"),
        (image((446, MBR_ENTRY), (510, b"\x55\xaa")), "MBR"),
        (image((0, b"LUKS\xba\xbe\0\2")), "LUKS"),
        (image((512, b"LABELONE")), "LVM"),
        (image((4096, struct.pack("<I", 0xA92B4EFC))), "RAID"),
        (image((4096 + 24, UUID("c68573f6-66ce-90a9-d96a-60cf803df7ef").bytes)), "bcachefs"),
        (image((0x10034, b"ReIsEr2Fs")), "reiserfs"),
        (image((32769, b"CD001")), "ISO 9660"),
        (image((0, b"DBZD")), "dm-zoned"),
        (image((82, b"FAT32   "), (510, b"\x55\xaa")), "FAT"),
        (image((3, b"NTFS    "), (510, b"\x55\xaa")), "NTFS"),
        (image((3, b"EXFAT   "), (510, b"\x55\xaa")), "exFAT"),
        (image((1024 + 6, b"\x34\x34")), "nilfs2"),
        (image((0, b"hsqs")), "squashfs"),
        (image((510, b"\x55\xaa")), "unknown data"),
        (image((12345, b"\1")), "unknown data"),
        (image((IDENTIFY_SIZE - 1, b"\1")), "unknown data"),
        (b"\1", "unknown data"),
    ],
)
def test_foreign_content_is_recognised(content: bytes, words: str) -> None:
    found = identify_content(content)
    assert found is not None
    assert words in found


def test_zonefs_is_recognised_with_label_and_uuid() -> None:
    found = identify_content(Superblock(b"my disk", SOME_UUID).pack())
    assert found == "a zonefs file system (label 'my disk', uuid 00010203-0405-0607-0809-0a0b0c0d0e0f)"
    assert identify_content(Superblock(uuid=SOME_UUID).pack()) == (
        "a zonefs file system (uuid 00010203-0405-0607-0809-0a0b0c0d0e0f)"
    )


def test_a_damaged_zonefs_is_still_something() -> None:
    block = bytearray(Superblock(b"my disk", SOME_UUID).pack())
    block[100] ^= 1
    found = identify_content(bytes(block))
    assert found is not None
    assert found.startswith("a damaged zonefs file system (")
    assert "crc" in found


@pytest.mark.parametrize("content", [b"", bytes(1), bytes(4096), bytes(IDENTIFY_SIZE)])
def test_zeros_are_nothing(content: bytes) -> None:
    assert identify_content(content) is None


@given(st.binary(max_size=6000))
def test_any_bytes_get_an_answer(content: bytes) -> None:
    found = identify_content(content)
    assert (found is None) == (not any(content))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["mkfs.ext4", "-q", "-F"], "ext4"),
        (["mkfs.ext4", "-q", "-F", "-t", "ext3"], "ext3"),
        (["mkfs.ext4", "-q", "-F", "-t", "ext2"], "ext2"),
        (["mkswap", "-q"], "swap"),
    ],
    ids=["ext4", "ext3", "ext2", "swap"],
)
def test_what_real_tools_make_is_recognised(command: list[str], words: str, tmp_path: Path) -> None:
    tool = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is None:
        pytest.skip(f"{command[0]} is not installed (packages e2fsprogs, util-linux)")
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    disk.chmod(0o600)
    with disk.open("r+b") as file:
        file.truncate(16 * MIB)
    subprocess.run([tool, *command[1:], str(disk)], check=True, capture_output=True)
    found = identify_content(disk.read_bytes()[:IDENTIFY_SIZE])
    assert found is not None
    assert words in found


class OnesPastTheWritePointer(MemoryDevice):
    """Shows ones where nothing was written, as null_blk does."""

    def read(self, offset: int, length: int) -> bytes:
        first = self.report_zones(0, 1)[0]
        data = super().read(offset, length)
        return data if first.is_conventional else data[: first.wp - offset].ljust(length, b"\xff")


def test_what_is_past_a_write_pointer_is_no_content() -> None:
    device = OnesPastTheWritePointer(geometry(nr_conventional=0))
    assert device.read(0, 4096) == b"\xff" * 4096
    assert find_content(device) is None
    device.write(0, b"something".ljust(4096))
    assert find_content(device) == "unknown data"
    device.zone_mgmt(ZoneOp.RESET, 0)
    format_device(device, FormatOptions(label="there"))
    assert "there" in str(find_content(device))


def test_odd_permissions_are_cut() -> None:
    """The superblock's permissions are 32 bits, and the kernel checks none of them; a mode has twelve to set."""
    device = MemoryDevice(geometry())
    format_device(device, FormatOptions())
    device.write(0, Superblock(features=Features.PERMISSIONS, perm=0xFFFF).pack())
    with Filesystem(device) as fs:
        assert fs.getattr(fs.resolve("cnv/0")).mode == 0o107777

"""What is read from /sys about a block device, from a directory that looks like it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zonefs_py.device.sysfs import BlockFacts, read_facts
from zonefs_py.errors import UserError

NUMBER = os.makedev(8, 16)

DISK = {
    "size": "524288",
    "ro": "0",
    "queue/zoned": "host-managed",
    "queue/logical_block_size": "512",
    "queue/physical_block_size": "4096",
    "queue/zone_write_granularity": "4096",
    "queue/max_open_zones": "128",
    "queue/max_active_zones": "0",
    "device/vendor": "ATA     ",
    "device/model": "SMR DISK 1      ",
}


def make_sysfs(root: Path, attributes: dict[str, str], name: str = "sdb") -> Path:
    """A /sys with one disk *name*, number 8:16, whose files are *attributes*."""
    disk = root / "devices" / "pci0" / name
    for attribute, text in attributes.items():
        path = disk / attribute
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    links = root / "dev" / "block"
    links.mkdir(parents=True)
    (links / "8:16").symlink_to(disk)
    return disk


def facts(root: Path, **changed: str | None) -> BlockFacts:
    """What is read from `DISK` with some attributes changed, or (None) missing; ``__`` in a name is ``/``."""
    changes = {name.replace("__", "/"): text for name, text in changed.items()}
    make_sysfs(root, {name: text for name, text in (DISK | changes).items() if text is not None})
    return read_facts(NUMBER, root)


def test_a_disk(tmp_path: Path) -> None:
    assert facts(tmp_path) == BlockFacts(
        number=NUMBER,
        name="sdb",
        whole=None,
        zone_model="host-managed",
        size=256 << 20,
        logical_block_size=512,
        write_granularity=4096,
        max_open_zones=128,
        max_active_zones=None,
        read_only=False,
        model="ATA SMR DISK 1",
        serial="",
        holders=(),
    )


def test_a_partition_has_the_queue_of_its_disk(tmp_path: Path) -> None:
    disk = make_sysfs(tmp_path, DISK)
    partition = disk / "sdb1"
    partition.mkdir()
    for name, text in {"partition": "1", "size": "8192", "ro": "1"}.items():
        (partition / name).write_text(text + "\n")
    (tmp_path / "dev" / "block" / "8:17").symlink_to(partition)
    found = read_facts(os.makedev(8, 17), tmp_path)
    assert (found.name, found.whole, found.size, found.read_only) == ("sdb1", "sdb", 4 << 20, True)
    assert (found.zone_model, found.write_granularity, found.model) == ("host-managed", 4096, "ATA SMR DISK 1")


@pytest.mark.parametrize("text", ["0", "4294967295", None, "", "many"])
def test_no_limit_is_none(tmp_path: Path, text: str | None) -> None:
    found = facts(tmp_path, queue__max_open_zones=text, queue__max_active_zones="7")
    assert (found.max_open_zones, found.max_active_zones) == (None, 7)


def test_old_kernels_tell_less(tmp_path: Path) -> None:
    assert facts(tmp_path, queue__zone_write_granularity=None).write_granularity == 4096


def test_without_zones_the_granularity_is_zero(tmp_path: Path) -> None:
    found = facts(tmp_path, queue__zone_write_granularity="0", queue__physical_block_size="512", queue__zoned="none")
    assert (found.zone_model, found.write_granularity) == ("none", 512)


def test_a_kernel_without_zones_says_nothing(tmp_path: Path) -> None:
    assert facts(tmp_path, queue__zoned=None).zone_model == "none"


def test_serial_numbers(tmp_path: Path) -> None:
    assert facts(tmp_path / "nvme", device__serial="S123  ").serial == "S123"
    disk = make_sysfs(tmp_path / "scsi", DISK)
    (disk / "device" / "vpd_pg80").write_bytes(b"\x00\x80\x00\x08  WD-4711")
    assert read_facts(NUMBER, tmp_path / "scsi").serial == "WD-4711"


def test_holders(tmp_path: Path) -> None:
    disk = make_sysfs(tmp_path, DISK)
    for name in ("dm-1", "dm-0"):
        (disk / "holders" / name).mkdir(parents=True)
    assert read_facts(NUMBER, tmp_path).holders == ("dm-0", "dm-1")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nullb0", "null_blk"),
        ("nvme0n1", "nvme"),
        ("sda", "scsi"),
        ("zloop3", "zloop"),
        ("ublkb0", "ublk"),
        ("dm-7", "device-mapper"),
        ("zoned0", "block"),
    ],
)
def test_the_kind_is_in_the_name(tmp_path: Path, name: str, kind: str) -> None:
    make_sysfs(tmp_path, DISK, name)
    assert read_facts(NUMBER, tmp_path).kind == kind


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no block device 8:16"):
        read_facts(NUMBER, tmp_path)
    with pytest.raises(UserError, match="logical_block_size is missing"):
        facts(tmp_path, queue__logical_block_size=None)

"""What the kernel tells about a block device in /sys: files of one line (Documentation/ABI/stable/sysfs-block)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zonefs_py.errors import UserError
from zonefs_py.units import SECTOR_SIZE

SYSFS = Path("/sys")

KINDS = {
    "nullb": "null_blk",
    "nvme": "nvme",
    "sd": "scsi",
    "zloop": "zloop",
    "ublkb": "ublk",
    "dm-": "device-mapper",
}
"""Drivers by how the kernel names their devices."""

_NO_LIMIT = (0, 0xFFFFFFFF)


@dataclass(frozen=True)
class BlockFacts:
    """A block device as the kernel describes it. Sizes in bytes; no limit is None.

    ``number`` is what stat(2) gives as ``st_rdev``. ``whole`` is the name of the device that it is a partition of,
    None if it is none. ``zone_model`` is ``none``, ``host-managed`` or ``host-aware``. ``write_granularity`` is what
    writes to sequential zones must be multiples of. ``holders`` are the names of devices that are made of this one.
    """

    number: int
    name: str
    whole: str | None
    zone_model: str
    size: int
    logical_block_size: int
    write_granularity: int
    max_open_zones: int | None
    max_active_zones: int | None
    read_only: bool
    model: str
    serial: str
    holders: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The driver, as far as the name shows it; else ``block``."""
        return next((kind for prefix, kind in KINDS.items() if self.name.startswith(prefix)), "block")


def read_facts(device: int, sysfs: Path = SYSFS) -> BlockFacts:
    """Return what is known of the block device with the number *device* (``st_rdev``). Raises UserError.

    *sysfs* is where the kernel shows it.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    link = sysfs / "dev" / "block" / number
    directory = link.resolve()
    if not directory.is_dir():
        raise UserError(f"the kernel has no block device {number} ({link} is missing)")
    partition = (directory / "partition").exists()
    disk = directory.parent if partition else directory
    queue = disk / "queue"
    logical = _number(queue / "logical_block_size")
    if not logical:
        raise UserError(f"{queue / 'logical_block_size'} is missing, or holds no number")
    return BlockFacts(
        number=device,
        name=directory.name,
        whole=disk.name if partition else None,
        zone_model=_text(queue / "zoned") or "none",
        size=_number(directory / "size") * SECTOR_SIZE,
        logical_block_size=logical,
        # Linux 5.11 has the first; before, zonefs took the physical block.
        write_granularity=_number(queue / "zone_write_granularity")
        or _number(queue / "physical_block_size")
        or logical,
        max_open_zones=_limit(queue / "max_open_zones"),
        max_active_zones=_limit(queue / "max_active_zones"),
        read_only=bool(_number(directory / "ro")),
        model=" ".join(filter(None, (_text(disk / "device" / name) for name in ("vendor", "model")))),
        serial=_text(disk / "device" / "serial") or _scsi_serial(disk / "device" / "vpd_pg80"),
        holders=tuple(sorted(entry.name for entry in _entries(directory / "holders"))),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        # No such attribute in this kernel, of this kind of device, or for this user.
        return b""


def _text(path: Path) -> str:
    return " ".join(_bytes(path).decode(errors="replace").split())


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isascii() and text.isdecimal() else 0


def _limit(path: Path) -> int | None:
    number = _number(path)
    return None if number in _NO_LIMIT else number


def _scsi_serial(path: Path) -> str:
    """The unit serial number: a page of vital product data with four bytes of header (SPC-5)."""
    return _bytes(path)[4:].decode(errors="replace").strip(" \0")


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []

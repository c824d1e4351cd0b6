"""Device specifications: ``KIND:KEY=VALUE,...`` checked against what each driver knows, before anything starts.

Pure. A value with one of the suffixes K, M, G, T (powers of 1024) is a number of bytes; a bare number is in the
driver's own unit, as its documentation has it (MiB for the sizes of null_blk and scsi_debug).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tools.machine.errors import VmError

MIB = 1 << 20
_SUFFIXES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

# The kinds of value a key takes: a number of bytes, a number of MiB, a count, 0 or 1, or any text.
BYTES, IN_MIB, COUNT, FLAG, TEXT = "bytes", "MiB", "count", "flag", "text"

# Attributes in configfs, Linux 6.12 (the `features` attribute of null_blk lists them), and `zones`, which is ours:
# it gives the size in zones.
NULL_BLK_KEYS: Mapping[str, str] = {
    "zones": COUNT,
    "badblocks": TEXT,
    "blocking": FLAG,
    "blocksize": BYTES,
    "cache_size": IN_MIB,
    "completion_nsec": COUNT,
    "discard": FLAG,
    "fua": FLAG,
    "home_node": COUNT,
    "hw_queue_depth": COUNT,
    "irqmode": COUNT,
    "max_sectors": COUNT,
    "mbps": COUNT,
    "memory_backed": FLAG,
    "no_sched": FLAG,
    "poll_queues": COUNT,
    "queue_mode": COUNT,
    "shared_tag_bitmap": FLAG,
    "shared_tags": FLAG,
    "size": IN_MIB,
    "submit_queues": COUNT,
    "use_per_node_hctx": FLAG,
    "virt_boundary": FLAG,
    "zone_append_max_sectors": COUNT,
    "zone_capacity": IN_MIB,
    "zone_full": FLAG,
    "zone_max_active": COUNT,
    "zone_max_open": COUNT,
    "zone_nr_conv": COUNT,
    "zone_size": IN_MIB,
    "zoned": FLAG,
}

# Parameters of the module, Linux 6.12.
SCSI_DEBUG_KEYS: Mapping[str, str] = (
    {
        "dev_size_mb": IN_MIB,
        "sector_size": BYTES,
        "zone_size_mb": IN_MIB,
        "zone_cap_mb": IN_MIB,
        "zone_nr_conv": COUNT,
        "zone_max_open": COUNT,
        "zbc": TEXT,
        "inq_product": TEXT,
        "inq_rev": TEXT,
        "inq_vendor": TEXT,
    }
    | dict.fromkeys(
        """
    add_host ato cdb_len delay dif dix every_nth guard host_max_queue lbprz lowest_aligned lun_format max_luns
    max_queue medium_error_count medium_error_start ndelay num_parts num_tgts opt_blks opt_xferlen_exp opts
    physblk_exp poll_queues ptype scsi_level submit_queues tur_ms_to_ready unmap_alignment unmap_granularity
    unmap_max_blocks unmap_max_desc atomic_wr_max_length atomic_wr_align atomic_wr_gran atomic_wr_max_length_bndry
    atomic_wr_max_bndry uuid_ctl virtual_gb write_same_length
    """.split(),
        COUNT,
    )
    | dict.fromkeys(
        """
    allow_restart atomic_wr clustering dsense fake_rw host_lock lbpu lbpws lbpws10 no_lun_0 no_rwlock no_uld
    per_host_store random removable statistics strict vpd_use_hostno wp
    """.split(),
        FLAG,
    )
)

# Properties of QEMU's nvme-ns (zone_size.. are its zoned.zone_size..) and nvme (mdts, zasl, vsl); `size` and `zones`
# are ours. QEMU's sizes are bytes.
ZNS_KEYS: Mapping[str, str] = {
    "zones": COUNT,
    "size": BYTES,
    "zone_size": BYTES,
    "zone_capacity": BYTES,
    "max_open": COUNT,
    "max_active": COUNT,
    "cross_read": FLAG,
    "descr_ext_size": COUNT,
    "logical_block_size": BYTES,
    "physical_block_size": BYTES,
    "mssrl": COUNT,
    "mcl": COUNT,
    "msrc": COUNT,
    "mdts": COUNT,
    "zasl": COUNT,
    "vsl": COUNT,
}

# A null_blk exported through NVMe over Fabrics: the target takes no conventional zones.
NVMET_KEYS: Mapping[str, str] = {name: kind for name, kind in NULL_BLK_KEYS.items() if name != "zone_nr_conv"}

KINDS: Mapping[str, Mapping[str, str]] = {
    "null_blk": NULL_BLK_KEYS,
    "scsi_debug": SCSI_DEBUG_KEYS,
    "zns": ZNS_KEYS,
    "nvmet": NVMET_KEYS,
}


@dataclass(frozen=True)
class DeviceSpec:
    """One device to make: the *kind*, and the driver's own *settings*, complete and in the driver's units."""

    kind: str
    settings: Mapping[str, str]
    text: str

    def number(self, key: str) -> int:
        """The setting *key* as a number; 0 if it is not set."""
        return int(self.settings.get(key, "0"))


def parse_device(text: str) -> DeviceSpec:
    """Read ``KIND[:KEY=VALUE,...]``; raise :class:`VmError` that names what is wrong with it."""
    kind, _, rest = text.partition(":")
    keys = KINDS.get(kind)
    if keys is None:
        raise VmError(f"device {text!r}: there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    settings: dict[str, str] = {}
    for item in rest.split(",") if rest else []:
        key, equals, value = item.partition("=")
        if key not in keys:
            raise VmError(f"device {text!r}: {kind} has no key {key!r}; its keys are {', '.join(sorted(keys))}")
        if not equals or not value:
            raise VmError(f"device {text!r}: {key} needs a value ({key}=...)")
        if key in settings:
            raise VmError(f"device {text!r}: {key} is given twice")
        settings[key] = _value(text, key, keys[key], value)
    complete = {"null_blk": _null_blk, "nvmet": _null_blk, "scsi_debug": _scsi_debug, "zns": _zns}[kind]
    return DeviceSpec(kind, complete(text, settings), text)


def parse_devices(texts: list[str]) -> list[DeviceSpec]:
    """Read several; there can be only one scsi_debug, whose settings are the module's."""
    specs = [parse_device(text) for text in texts]
    if sum(spec.kind == "scsi_debug" for spec in specs) > 1:
        raise VmError("a machine has one scsi_debug at a time: its parameters belong to the module")
    return specs


def _value(text: str, key: str, kind: str, value: str) -> str:
    if kind == TEXT:
        if not re.fullmatch(r"[\w.+-]+", value):
            raise VmError(f"device {text!r}: {key}={value} has a character that the driver cannot take")
        return value
    match = re.fullmatch(r"(\d+)([KMGT]?)", value)
    if not match:
        raise VmError(f"device {text!r}: {key}={value} is not a number (K, M, G, T may follow it)")
    number = int(match[1]) << _SUFFIXES[match[2]]
    if kind == FLAG and value not in ("0", "1"):
        raise VmError(f"device {text!r}: {key} is 0 or 1, not {value}")
    if kind == IN_MIB and match[2]:
        if number % MIB:
            raise VmError(f"device {text!r}: {key}={value} is not a multiple of 1M")
        number //= MIB
    return str(number)


def _size_from_zones(text: str, settings: dict[str, str], default_zone_size: int, default_zones: int) -> None:
    """Fill in ``zone_size`` and ``size`` (same unit), the latter from ``zones``."""
    zone_size = int(settings.setdefault("zone_size", str(default_zone_size)))
    if zone_size == 0 or zone_size & (zone_size - 1):
        raise VmError(f"device {text!r}: the zone size must be a power of two")
    if "zones" in settings and "size" in settings:
        raise VmError(f"device {text!r}: give size or zones, not both")
    zones = int(settings.pop("zones", default_zones))
    size = int(settings.setdefault("size", str(zones * zone_size)))
    if size == 0:
        raise VmError(f"device {text!r}: the size is 0")


def _check_capacity(text: str, settings: dict[str, str]) -> None:
    if int(settings.get("zone_capacity", "0")) > int(settings["zone_size"]):
        raise VmError(f"device {text!r}: the zone capacity is larger than the zone size")


def _null_blk(text: str, settings: dict[str, str]) -> dict[str, str]:
    if settings.get("zoned") == "0":
        if "zones" in settings:
            raise VmError(f"device {text!r}: zones needs zoned=1")
        settings.setdefault("size", "64")
    else:
        _size_from_zones(text, settings, 4, 16)
        _check_capacity(text, settings)
    return {"zoned": "1", "memory_backed": "1"} | settings


def _scsi_debug(text: str, settings: dict[str, str]) -> dict[str, str]:
    if settings.setdefault("zbc", "managed") not in ("none", "aware", "managed"):
        raise VmError(f"device {text!r}: zbc is none, aware or managed")
    settings.setdefault("dev_size_mb", "64")
    if settings["zbc"] != "none":
        settings.setdefault("zone_size_mb", "4")
        if int(settings.get("zone_cap_mb", "0")) > int(settings["zone_size_mb"]):
            raise VmError(f"device {text!r}: the zone capacity is larger than the zone size")
    return settings


def _zns(text: str, settings: dict[str, str]) -> dict[str, str]:
    _size_from_zones(text, settings, 4 * MIB, 16)
    _check_capacity(text, settings)
    settings.setdefault("logical_block_size", "4096")
    settings.setdefault("physical_block_size", settings["logical_block_size"])
    if int(settings["size"]) % int(settings["zone_size"]):
        raise VmError(f"device {text!r}: QEMU makes whole zones only; the size must be a multiple of the zone size")
    return settings

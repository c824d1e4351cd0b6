"""What ``report`` and ``info`` say about a device and its format, as plain dicts ready for JSON.

One place, so that an unmounted device and a running daemon describe the same thing in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from zonefs_py.fs.superblock import Superblock
from zonefs_py.zone import CONDITION_NAMES, TYPE_NAMES, DeviceInfo, Zone

REPORT_SCHEMA = "zonefs-py/report"
INFO_SCHEMA = "zonefs-py/info"
LIMITS_SCHEMA = "zonefs-py/limits"
SCHEMA_VERSION = 1


def describe_zone(zone: Zone, file: str | None) -> dict[str, Any]:
    """Return the report entry of *zone*: sizes and addresses in bytes, None where the device has no answer.

    *file* is the zone's file relative to the mount point (``seq/3``), None if it has none.
    """
    return {
        "number": zone.number,
        "type": TYPE_NAMES[zone.type],
        "condition": CONDITION_NAMES[zone.condition],
        "start": zone.start,
        "size": zone.size,
        "capacity": zone.capacity,
        "write_pointer": zone.wp if zone.has_write_pointer else None,
        "file": file,
    }


def describe_zones(zones: Iterable[Zone], files: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    """Yield the report entries of *zones*; *files* gives the file name by zone number."""
    return (describe_zone(zone, files.get(zone.number)) for zone in zones)


def describe_device(info: DeviceInfo, zones: Iterable[Zone]) -> dict[str, Any]:
    """Return geometry, limits and identity of a device from its *info* and a report of all its *zones*."""
    nr_conventional = zone_capacity = 0
    for zone in zones:
        if zone.is_conventional:
            nr_conventional += 1
        else:
            zone_capacity = max(zone_capacity, zone.capacity)
    return {
        "kind": info.kind,
        "name": info.name,
        "size": info.size,
        "nr_zones": info.nr_zones,
        "nr_conventional_zones": nr_conventional,
        "zone_size": info.zone_size,
        "zone_capacity": zone_capacity or info.zone_size,
        "block_size": info.block_size,
        "max_open_zones": info.max_open_zones,
        "max_active_zones": info.max_active_zones,
        "read_only": info.read_only,
        "serial": info.serial,
        "profile": info.profile,
    }


def describe_format(superblock: Superblock) -> dict[str, Any]:
    """Return what *superblock* says; uid, gid and perm are those that files really get."""
    return {
        "label": superblock.label_text,
        "uuid": str(UUID(bytes=superblock.uuid)),
        "features": superblock.feature_names,
        "uid": superblock.file_uid,
        "gid": superblock.file_gid,
        "perm": f"{superblock.file_permissions:04o}",
        "aggr_cnv": superblock.aggregate_conventional,
    }


def report_document(device: str, zones: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole report of *device* (its name) as one document."""
    return {"schema": REPORT_SCHEMA, "version": SCHEMA_VERSION, "device": device, "zones": list(zones)}


def limits_document(device: str, limits: dict[str, int]) -> dict[str, Any]:
    """Return the copy limits of *device* (its name), by name, as one document."""
    return {"schema": LIMITS_SCHEMA, "version": SCHEMA_VERSION, "device": device, "limits": limits}


def info_document(
    device: dict[str, Any],
    format: dict[str, Any] | None,
    mount: dict[str, Any] | None,
    versions: dict[str, str],
    capabilities: dict[str, Any],
    copy: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the whole info: *format* is None on an unformatted device, *mount* and *copy* on an unmounted one."""
    return {
        "schema": INFO_SCHEMA,
        "version": SCHEMA_VERSION,
        "device": device,
        "format": format,
        "mount": mount,
        "versions": versions,
        "capabilities": capabilities,
        "copy": copy,
    }

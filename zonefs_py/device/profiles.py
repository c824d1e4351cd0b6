"""Geometry and limits of drives that are or were sold, by name. Pure; docs/devices.md has the table and the sources."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zonefs_py.units import GIB, MIB, round_down
from zonefs_py.zone import Geometry


@dataclass(frozen=True)
class Profile:
    """A drive: what a report and the limits of its queue show. ``source`` is where that was read."""

    name: str
    title: str
    geometry: Geometry
    max_open_zones: int | None
    max_active_zones: int | None
    source: str


def _geometry(zone_size: int, zone_capacity: int, nr_zones: int, nr_conventional: int = 0) -> Geometry:
    return Geometry(zone_size, zone_capacity, nr_zones, nr_conventional, 4096, zone_size)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "hgst-hc620",
            "Western Digital (HGST) Ultrastar DC HC620, 15 TB: host-managed SMR disk, SATA",
            _geometry(256 * MIB, 256 * MIB, 55880, nr_conventional=524),
            max_open_zones=128,
            max_active_zones=None,
            source="https://github.com/westerndigitalcorporation/zonedstorage.io/blob/main/docs/getting-started/smr-disk.md",
        ),
        Profile(
            "wd-zn540",
            "Western Digital Ultrastar DC ZN540, 1 TB: ZNS SSD with large zones",
            _geometry(2 * GIB, 1077 * MIB, 904),
            max_open_zones=14,
            max_active_zones=14,
            source="https://github.com/johnramsden/gczns",
        ),
        Profile(
            "samsung-pm1731a",
            "Samsung PM1731a, 4 TB: ZNS SSD with small zones",
            _geometry(96 * MIB, 96 * MIB, 40704),
            max_open_zones=None,
            max_active_zones=384,
            source="https://www.usenix.org/conference/atc25/presentation/hwang",
        ),
    )
}


def scale_geometry(geometry: Geometry, *, nr_zones: int | None = None, zone_size: int | None = None) -> Geometry:
    """Return *geometry* with another number of zones, or zones of another size.

    The share of conventional zones stays, and at least one if there was any; so does the share of a zone that is
    its capacity, in whole blocks. Whether a device can be so is not checked.
    """
    if nr_zones is not None and nr_zones != geometry.nr_zones:
        conventional = geometry.nr_conventional * nr_zones // geometry.nr_zones
        if geometry.nr_conventional:
            conventional = max(1, conventional)
        geometry = replace(geometry, nr_zones=nr_zones, nr_conventional=conventional)
    if zone_size is not None and zone_size != geometry.zone_size:
        capacity = round_down(geometry.zone_capacity * zone_size // geometry.zone_size, geometry.block_size)
        geometry = replace(geometry, zone_size=zone_size, zone_capacity=capacity, last_zone_size=zone_size)
    return geometry

"""From what a user says of a new device to its geometry and limits: numbers, or a drive and what differs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zonefs_py.device.profiles import PROFILES, scale_geometry
from zonefs_py.errors import OptionError
from zonefs_py.units import MIB
from zonefs_py.zone import Geometry

DEFAULT_BLOCK_SIZE = 4096


@dataclass(frozen=True)
class DeviceChoice:
    """What is said of a device; None: nothing. Sizes in bytes.

    ``profile`` is a name in `PROFILES`. With one, ``zones`` and ``zone_size`` scale the drive and leave it its shares
    (`scale_geometry`); all else replaces what the drive has.
    """

    zones: int | None = None
    conventional: int | None = None
    zone_size: int | None = None
    zone_capacity: int | None = None
    block_size: int | None = None
    max_open: int | None = None
    max_active: int | None = None
    last_zone_size: int | None = None
    profile: str | None = None

    def completed(self) -> DeviceChoice:
        """Return this choice with what it leaves open, unless it is of a drive: 16 zones of 4 MiB, 2 conventional."""
        if self.profile is not None:
            return self
        return replace(
            self,
            zones=16 if self.zones is None else self.zones,
            conventional=2 if self.conventional is None else self.conventional,
            zone_size=4 * MIB if self.zone_size is None else self.zone_size,
        )

    def geometry(self) -> Geometry:
        """Return the geometry; whether a device can be so is not checked. Raises OptionError if too little is said."""
        if self.profile is None:
            if self.zones is None or self.zone_size is None:
                missing = "zones" if self.zones is None else "zone-size"
                raise OptionError(f"Missing option '--{missing}', or --profile to take it from a drive")
            geometry = Geometry(self.zone_size, self.zone_size, self.zones, 0, DEFAULT_BLOCK_SIZE, self.zone_size)
        elif self.profile not in PROFILES:
            raise OptionError(f"profile {self.profile!r}: choose one of {', '.join(PROFILES)}")
        else:
            profile = PROFILES[self.profile]
            geometry = scale_geometry(profile.geometry, nr_zones=self.zones, zone_size=self.zone_size)
        said = {
            "nr_conventional": self.conventional,
            "zone_capacity": self.zone_capacity,
            "block_size": self.block_size,
            "last_zone_size": self.last_zone_size,
        }
        return replace(geometry, **{name: value for name, value in said.items() if value is not None})

    def limits(self) -> tuple[int | None, int | None]:
        """Return how many zones can be open, and active; None: no limit."""
        profile = PROFILES.get(self.profile) if self.profile is not None else None
        return (
            profile.max_open_zones if profile and self.max_open is None else self.max_open,
            profile.max_active_zones if profile and self.max_active is None else self.max_active,
        )

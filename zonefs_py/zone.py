"""The words of zoned storage: zone types, conditions and operations, a zone report entry, a geometry.

Numbers are those of ``include/uapi/linux/blkzoned.h``. Nothing here does I/O or imports ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple


class ZoneType(IntEnum):
    """What may be written where in a zone."""

    CONVENTIONAL = 1
    SEQ_WRITE_REQUIRED = 2
    SEQ_WRITE_PREFERRED = 3


class ZoneCondition(IntEnum):
    """The condition of a zone, as a zone report gives it."""

    NOT_WP = 0
    EMPTY = 1
    IMP_OPEN = 2
    EXP_OPEN = 3
    CLOSED = 4
    READONLY = 13
    FULL = 14
    OFFLINE = 15


class ZoneOp(IntEnum):
    """A zone management operation (libzbd's numbers)."""

    RESET = 1
    OPEN = 2
    CLOSE = 3
    FINISH = 4


class CopyMethod(Enum):
    """How bytes get from one place of a device to another without passing through us, best first."""

    DEVICE = "device"
    REFLINK = "reflink"
    HOST = "host"


class CopyRange(NamedTuple):
    """*length* bytes from *source* to *destination*, bytes from the start of the device."""

    source: int
    destination: int
    length: int


CONDITION_NAMES = {
    ZoneCondition.NOT_WP: "not-write-pointer",
    ZoneCondition.EMPTY: "empty",
    ZoneCondition.IMP_OPEN: "implicit-open",
    ZoneCondition.EXP_OPEN: "explicit-open",
    ZoneCondition.CLOSED: "closed",
    ZoneCondition.READONLY: "read-only",
    ZoneCondition.FULL: "full",
    ZoneCondition.OFFLINE: "offline",
}

TYPE_NAMES = {
    ZoneType.CONVENTIONAL: "conventional",
    ZoneType.SEQ_WRITE_REQUIRED: "sequential-write-required",
    ZoneType.SEQ_WRITE_PREFERRED: "sequential-write-preferred",
}

WRITE_POINTER_CONDITIONS = frozenset(
    {ZoneCondition.EMPTY, ZoneCondition.IMP_OPEN, ZoneCondition.EXP_OPEN, ZoneCondition.CLOSED}
)
"""Conditions in which a zone's write pointer means something (ZBC-2 and ZNS: in no other)."""

OPEN_CONDITIONS = frozenset({ZoneCondition.IMP_OPEN, ZoneCondition.EXP_OPEN})
ACTIVE_CONDITIONS = OPEN_CONDITIONS | {ZoneCondition.CLOSED}


class Zone(NamedTuple):
    """One entry of a zone report: an immutable copy, taken at the time of the report.

    ``start``, ``size``, ``capacity`` and ``wp`` are bytes; ``start`` and ``wp`` count from the start
    of the device. ``wp`` is meaningless unless `has_write_pointer`.
    """

    number: int
    start: int
    size: int
    capacity: int
    wp: int
    type: ZoneType
    condition: ZoneCondition

    @property
    def is_conventional(self) -> bool:
        """Whether the zone takes writes anywhere and has no write pointer."""
        return self.type is ZoneType.CONVENTIONAL

    @property
    def has_write_pointer(self) -> bool:
        """Whether ``wp`` means anything in the zone's condition."""
        return self.condition in WRITE_POINTER_CONDITIONS

    @property
    def data_size(self) -> int | None:
        """Bytes written in a sequential zone; None where the device does not tell (read-only, offline)."""
        if self.condition is ZoneCondition.FULL:
            return self.capacity
        return self.wp - self.start if self.has_write_pointer else None


@dataclass(frozen=True)
class Geometry:
    """How a device is divided into zones. All sizes in bytes.

    Conventional zones come first. ``zone_capacity`` is that of sequential zones; conventional zones
    are usable to their end. ``last_zone_size`` is below ``zone_size`` when the device does not end on a zone
    boundary, else equal to it.
    """

    zone_size: int
    zone_capacity: int
    nr_zones: int
    nr_conventional: int
    block_size: int
    last_zone_size: int

    @property
    def size(self) -> int:
        """Bytes of the whole device."""
        return (self.nr_zones - 1) * self.zone_size + self.last_zone_size

    def is_conventional(self, number: int) -> bool:
        """Whether zone *number* is conventional."""
        return number < self.nr_conventional

    def size_of(self, number: int) -> int:
        """Size of zone *number*."""
        return self.last_zone_size if number == self.nr_zones - 1 else self.zone_size

    def capacity_of(self, number: int) -> int:
        """Bytes of zone *number* that can be written."""
        size = self.last_zone_size if number == self.nr_zones - 1 else self.zone_size
        return size if number < self.nr_conventional or size < self.zone_capacity else self.zone_capacity


@dataclass(frozen=True)
class DeviceInfo:
    """What a device tells about itself, fixed while it is open. Sizes in bytes; no limit is None."""

    kind: str
    name: str
    size: int
    nr_zones: int
    zone_size: int
    block_size: int
    """Writes begin at multiples of this and have lengths that are."""
    max_open_zones: int | None
    max_active_zones: int | None
    read_only: bool
    waits: bool
    """Whether a call may wait: for hardware, or on purpose. False promises that reads and writes wait for nothing but
    memory and the host's page cache, so that one thread may serve all callers and be held up by none (FUSE does)."""
    serial: str = ""
    """What tells the device from others of its kind; empty: nothing does."""
    profile: str = ""
    """The drive that a device is like (`create --profile`), or of which it is a clone. A name for people: what is
    like it are the geometry and the limits, and they stand in their own fields. Empty: none."""
    copy_methods: tuple[CopyMethod, ...] = ()
    """How the device can copy by itself, best first; empty: it cannot."""
    copy_max_hw_bytes: int = 0
    """Bytes that one copy command may have; 0: the device cannot copy."""
    copy_max_range_hw_bytes: int = 0
    """Bytes that one range of a copy command may have."""
    copy_max_nr_ranges_hw: int = 0
    """How many ranges a copy command may have."""
    reflink_alignment: int = 0
    """What the numbers of a range must be multiples of to be a reflink; 0: of the block size."""

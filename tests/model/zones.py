"""A model of the zoned device below the model file system: contents, write pointers, conditions, resources.

Zone resources are those of null_blk: the active limit is looked at before the open limit, and an open limit
that is reached may be met by closing an implicitly open zone, if the active limit allows one more zone.
Which zone is closed then is the device's choice: the model picks one and is put right by the next report
(`ModelDevice.adopt`). Answers are errno names; None means the device accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zonefs_py.zone import Geometry, ZoneCondition

EMPTY = ZoneCondition.EMPTY
IMP_OPEN = ZoneCondition.IMP_OPEN
EXP_OPEN = ZoneCondition.EXP_OPEN
CLOSED = ZoneCondition.CLOSED
FULL = ZoneCondition.FULL
READONLY = ZoneCondition.READONLY
OFFLINE = ZoneCondition.OFFLINE
NOT_WP = ZoneCondition.NOT_WP

BAD = (READONLY, OFFLINE)


@dataclass(frozen=True)
class ReportedZone:
    """One zone as the system under test reports it; sizes in bytes, ``wpoffset`` from the start of the zone.

    ``wpoffset`` is None where a write pointer means nothing.
    """

    number: int
    conventional: bool
    condition: ZoneCondition
    start: int
    size: int
    capacity: int
    wpoffset: int | None
    file: str | None


@dataclass
class ModelZone:
    """One zone. ``wpoffset`` is kept while the zone is read-only or offline, as the data is."""

    number: int
    size: int
    capacity: int
    conventional: bool
    condition: ZoneCondition
    wpoffset: int = 0
    content: bytearray = field(default_factory=bytearray)
    lazily_moved: bool = False
    """The write pointer was moved behind the device, which will notice when it next looks."""

    def data_size(self) -> int:
        """How much can be read as written data: the write pointer, or the capacity of a full zone."""
        return self.capacity if self.condition is FULL else self.wpoffset

    def erase(self) -> None:
        """Put the write pointer back and forget the data."""
        self.wpoffset = 0
        self.content[:] = bytes(self.capacity)


class ModelDevice:
    """The zones of one device and what may be open and active at a time (None: no limit)."""

    def __init__(self, geometry: Geometry, max_open: int | None, max_active: int | None) -> None:
        self.max_open = max_open
        self.max_active = max_active
        self.block_size = geometry.block_size
        self.zones = []
        for number in range(geometry.nr_zones):
            conventional = number < geometry.nr_conventional
            size = geometry.last_zone_size if number == geometry.nr_zones - 1 else geometry.zone_size
            capacity = size if conventional else min(size, geometry.zone_capacity)
            condition = NOT_WP if conventional else EMPTY
            zone = ModelZone(number, size, capacity, conventional, condition, content=bytearray(capacity))
            self.zones.append(zone)
        self._could_have_closed: set[int] = set()
        if not self.zones[0].conventional:
            self.finish(0)  # mkzonefs leaves the superblock's zone finished

    # How many zones are open and active: always a recount.

    def count(self, *conditions: ZoneCondition) -> int:
        """Return how many zones are in one of *conditions*."""
        return sum(zone.condition in conditions for zone in self.zones)

    def nr_open(self) -> int:
        """Zones that count against the open limit."""
        return self.count(IMP_OPEN, EXP_OPEN)

    def nr_active(self) -> int:
        """Zones that count against the active limit."""
        return self.count(IMP_OPEN, EXP_OPEN, CLOSED)

    def _no_active_left(self) -> bool:
        return self.max_active is not None and self.nr_active() >= self.max_active

    def _no_open_left(self) -> bool:
        return self.max_open is not None and self.nr_open() >= self.max_open

    def _lacks_resources(self, zone: ModelZone) -> str | None:
        if zone.condition is EMPTY and self._no_active_left():
            return "EOVERFLOW"
        if zone.condition in (EMPTY, CLOSED) and self._no_open_left() and not self._may_close_another():
            return "ETOOMANYREFS"
        return None

    def _may_close_another(self) -> bool:
        return self.count(IMP_OPEN) > 0 and not self._no_active_left()

    def _make_room(self, zone: ModelZone) -> None:
        if zone.condition in (EMPTY, CLOSED) and self._no_open_left():
            candidates = [other for other in self.zones if other.condition is IMP_OPEN]
            self._could_have_closed.update(other.number for other in candidates)
            self._set_closed(candidates[0])

    @staticmethod
    def _set_closed(zone: ModelZone) -> None:
        zone.condition = CLOSED if zone.wpoffset else EMPTY

    # What the device refuses, and what it does. Each ``refuses_x`` tells the errno of ``x`` and changes nothing.

    def refuses_write(self, number: int, wpoffset: int) -> str | None:
        """Errno name of a write of whole blocks inside the capacity at *wpoffset* of zone *number*."""
        zone = self.zones[number]
        if zone.conventional:
            return None
        if zone.condition in (*BAD, FULL) or zone.wpoffset != wpoffset:
            return "EIO"
        return self._lacks_resources(zone)

    def write(self, number: int, wpoffset: int, data: bytes) -> None:
        """Do a write that is not refused."""
        zone = self.zones[number]
        zone.content[wpoffset : wpoffset + len(data)] = data
        if zone.conventional:
            return
        if zone.condition in (EMPTY, CLOSED):
            self._make_room(zone)
            zone.condition = IMP_OPEN
        zone.wpoffset = wpoffset + len(data)
        if zone.wpoffset == zone.capacity:
            zone.condition = FULL

    def refuses_read(self, number: int) -> str | None:
        """Errno name of a read from zone *number*."""
        return "EIO" if self.zones[number].condition is OFFLINE else None

    def refuses_open(self, number: int) -> str | None:
        """Errno name of an explicit open."""
        zone = self.zones[number]
        if zone.lazily_moved and zone.wpoffset == zone.capacity:
            return "EIO"  # it looks first
        return "EIO" if zone.condition in (*BAD, FULL, NOT_WP) else self._lacks_resources(zone)

    def open(self, number: int) -> None:
        """Do an explicit open that is not refused."""
        zone = self.zones[number]
        self._make_room(zone)
        zone.condition = EXP_OPEN

    def refuses_close(self, number: int) -> str | None:
        """Errno name of a close."""
        return "EIO" if self.zones[number].condition in (*BAD, FULL, NOT_WP, EMPTY) else None

    def close(self, number: int) -> None:
        """Do a close that is not refused: a zone never written is empty afterwards."""
        self._set_closed(self.zones[number])

    def refuses_reset(self, number: int) -> str | None:
        """Errno name of a reset."""
        return "EIO" if self.zones[number].condition in (*BAD, NOT_WP) else None

    def reset(self, number: int) -> None:
        """Do a reset that is not refused."""
        zone = self.zones[number]
        zone.condition = EMPTY
        zone.erase()

    def refuses_finish(self, number: int) -> str | None:
        """Errno name of a finish."""
        zone = self.zones[number]
        return "EIO" if zone.condition in (*BAD, NOT_WP) else self._lacks_resources(zone)

    def finish(self, number: int) -> None:
        """Do a finish that is not refused; what was not written reads as zeros."""
        zone = self.zones[number]
        self._make_room(zone)
        zone.condition = FULL
        zone.wpoffset = zone.capacity

    # What happens to a device by itself.

    def power_cycle(self) -> None:
        """Forget which zones were open."""
        for zone in self.zones:
            if zone.condition in (IMP_OPEN, EXP_OPEN):
                self._set_closed(zone)
            if zone.lazily_moved:
                zone.condition = FULL if zone.wpoffset == zone.capacity else CLOSED if zone.wpoffset else EMPTY
                zone.lazily_moved = False

    def move_lazily(self, number: int, wpoffset: int, data: bytes) -> None:
        """Move the write pointer behind the device; *data* ends at the new one, if it moved up.

        The condition that follows is what the device says when it has noticed.
        """
        zone = self.zones[number]
        if wpoffset > zone.wpoffset:
            zone.content[wpoffset - len(data) : wpoffset] = data
        else:
            zone.content[wpoffset:] = bytes(zone.capacity - wpoffset)
        zone.wpoffset = wpoffset
        zone.lazily_moved = True

    def adopt(self, report: Sequence[ReportedZone]) -> None:
        """Take over what the device was free to choose."""
        self._adopt_moved(report)
        self._adopt_closed(report)

    def _adopt_moved(self, report: Sequence[ReportedZone]) -> None:
        for zone, reported in zip(self.zones, report, strict=True):
            if not zone.lazily_moved:
                continue
            known = zone.capacity if reported.condition is FULL else reported.wpoffset
            if known == zone.wpoffset:
                zone.lazily_moved = False
                if reported.condition in self._possible(zone):
                    zone.condition = reported.condition

    @staticmethod
    def _possible(zone: ModelZone) -> tuple[ZoneCondition, ...]:
        if zone.wpoffset == zone.capacity:
            return (FULL,)
        return (EMPTY, EXP_OPEN) if zone.wpoffset == 0 else (IMP_OPEN, EXP_OPEN, CLOSED)

    def _adopt_closed(self, report: Sequence[ReportedZone]) -> None:
        candidates = [self.zones[number] for number in sorted(self._could_have_closed)]
        self._could_have_closed.clear()
        picked = [z for z in candidates if z.condition is CLOSED and report[z.number].condition is IMP_OPEN]
        closed = [z for z in candidates if z.condition is IMP_OPEN and report[z.number].condition is CLOSED]
        for ours, theirs in zip(picked, closed, strict=False):
            ours.condition = IMP_OPEN
            theirs.condition = CLOSED

"""Zone conditions, write pointers and the accounting of open and active zones, for an emulated device.

Rules of this room: everything about transitions lives here, as null_blk has it (drivers/block/null_blk/zoned.c,
which follows ZBC-2 and ZNS): active zones are checked before open ones, and an open limit may be met by closing
an implicitly open zone. Nothing here does I/O, knows a file, or takes a lock: the device does.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol

from zonefs_py.errors import ActiveZonesExhausted, DeviceError, OpenZonesExhausted
from zonefs_py.zone import CONDITION_NAMES, ZoneCondition, ZoneOp

EMPTY, IMP_OPEN, EXP_OPEN = ZoneCondition.EMPTY, ZoneCondition.IMP_OPEN, ZoneCondition.EXP_OPEN
CLOSED, FULL, NOT_WP = ZoneCondition.CLOSED, ZoneCondition.FULL, ZoneCondition.NOT_WP
READONLY, OFFLINE = ZoneCondition.READONLY, ZoneCondition.OFFLINE

AFTER: dict[tuple[ZoneCondition, ZoneOp], ZoneCondition] = {
    (EMPTY, ZoneOp.OPEN): EXP_OPEN,
    (IMP_OPEN, ZoneOp.OPEN): EXP_OPEN,
    (EXP_OPEN, ZoneOp.OPEN): EXP_OPEN,
    (CLOSED, ZoneOp.OPEN): EXP_OPEN,
    # CLOSED here is EMPTY when nothing has been written: see `ZoneConditions.manage`.
    (IMP_OPEN, ZoneOp.CLOSE): CLOSED,
    (EXP_OPEN, ZoneOp.CLOSE): CLOSED,
    (CLOSED, ZoneOp.CLOSE): CLOSED,
    (EMPTY, ZoneOp.FINISH): FULL,
    (IMP_OPEN, ZoneOp.FINISH): FULL,
    (EXP_OPEN, ZoneOp.FINISH): FULL,
    (CLOSED, ZoneOp.FINISH): FULL,
    (FULL, ZoneOp.FINISH): FULL,
    (EMPTY, ZoneOp.RESET): EMPTY,
    (IMP_OPEN, ZoneOp.RESET): EMPTY,
    (EXP_OPEN, ZoneOp.RESET): EMPTY,
    (CLOSED, ZoneOp.RESET): EMPTY,
    (FULL, ZoneOp.RESET): EMPTY,
}
"""What a management operation makes of a condition. What is not listed is refused."""

NEEDS_RESOURCES = frozenset({ZoneOp.OPEN, ZoneOp.FINISH})
"""Operations that, like a write, need an open zone (and from EMPTY an active one) to be free."""

WRITABLE = frozenset({EMPTY, IMP_OPEN, EXP_OPEN, CLOSED})

_CONDITIONS = {int(condition): condition for condition in ZoneCondition}


class ZoneShapes(Protocol):
    """What there is to know of a device's zones beforehand; a `Geometry` does."""

    @property
    def nr_zones(self) -> int:
        """How many zones there are."""

    def is_conventional(self, number: int) -> bool:
        """Whether zone *number* is conventional."""

    def capacity_of(self, number: int) -> int:
        """Bytes of zone *number* that can be written."""


class ZoneConditions:
    """The conditions and write pointers of all zones of one device. Write pointers are bytes from the zone's start."""

    def __init__(
        self,
        geometry: ZoneShapes,
        max_open_zones: int | None,
        max_active_zones: int | None,
        wpoffsets: Iterable[int],
    ) -> None:
        """*wpoffsets* has one entry a zone; conventional zones' are ignored. No zone is open at first."""
        self._geometry = geometry
        self._max_open = max_open_zones
        self._max_active = max_active_zones
        self._wpoffsets = array("Q", list(wpoffsets))
        self._conditions = array("B", bytes(geometry.nr_zones))
        self._nr_closed = 0
        self._nr_exp_open = 0
        self._imp_open: set[int] = set()
        self._close_cursor = 0
        for number in self._sequential():
            condition = self._settled(number)
            self._conditions[number] = condition
            self._nr_closed += condition is CLOSED

    def condition(self, number: int) -> ZoneCondition:
        """The condition of zone *number*."""
        return _CONDITIONS[self._conditions[number]]

    def wpoffset(self, number: int) -> int:
        """The write pointer of zone *number*, bytes from its start; its capacity when it is full."""
        return self._wpoffsets[number]

    @property
    def nr_open(self) -> int:
        """How many zones are open, implicitly or explicitly."""
        return len(self._imp_open) + self._nr_exp_open

    @property
    def nr_active(self) -> int:
        """How many zones are open or closed."""
        return self.nr_open + self._nr_closed

    def begin_write(self, number: int, offset: int, length: int) -> None:
        """Open zone *number* for a write of *length* bytes at *offset* (bytes from the zone's start).

        The write pointer moves at once: another zone may need room and close this one while the data is under way.
        `complete_write` or `abort_write` must follow. Raises DeviceError when the write cannot be: and then nothing has
        changed.
        """
        condition = _CONDITIONS[self._conditions[number]]
        if condition not in WRITABLE:
            raise DeviceError(f"zone {number}: write to a zone that is {CONDITION_NAMES[condition]}")
        wpoffset = self._wpoffsets[number]
        if offset != wpoffset:
            raise DeviceError(f"zone {number}: write at {offset}, but the write pointer is at {wpoffset}")
        if offset + length > self._geometry.capacity_of(number):
            raise DeviceError(f"zone {number}: write of {length} bytes at {offset} crosses the zone capacity")
        if condition is EMPTY or condition is CLOSED:
            self._take_resources(number, condition)
            self._set(number, IMP_OPEN)
        self._wpoffsets[number] = wpoffset + length

    def complete_write(self, number: int) -> None:
        """Take note that the data of the write to zone *number* is there."""
        full = self._wpoffsets[number] == self._geometry.capacity_of(number)
        if full and self.condition(number) in WRITABLE:
            self._set(number, FULL)

    def abort_write(self, number: int, wpoffset: int) -> None:
        """Take note that the write to zone *number* failed, and left its write pointer at *wpoffset*."""
        # Also in a zone that has become read-only or offline meanwhile: it may be brought back.
        self._wpoffsets[number] = wpoffset
        if self.condition(number) is not EXP_OPEN or wpoffset >= self._geometry.capacity_of(number):
            self.resync(number, wpoffset)

    def resync(self, number: int, wpoffset: int) -> None:
        """Take *wpoffset* for true: somebody wrote, reset or finished the zone behind the device."""
        condition = self.condition(number)
        if condition in (NOT_WP, READONLY, OFFLINE):
            return
        self._wpoffsets[number] = wpoffset
        if condition in (IMP_OPEN, EXP_OPEN) and 0 < wpoffset < self._geometry.capacity_of(number):
            return
        self._set(number, self._settled(number))

    def check_manage(self, op: ZoneOp, number: int) -> ZoneCondition:
        """Return the condition that *op* would give zone *number*, having made room for it if it needs an open zone.

        Raises DeviceError when the zone cannot do *op*, and then the zone has not changed.
        """
        condition = self.condition(number)
        after = AFTER.get((condition, op))
        if after is None:
            raise DeviceError(f"zone {number}: {op.name.lower()} of a zone that is {CONDITION_NAMES[condition]}")
        if op in NEEDS_RESOURCES and condition in (EMPTY, CLOSED):
            self._take_resources(number, condition)
        return EMPTY if after is CLOSED and self._wpoffsets[number] == 0 else after

    def complete_manage(self, number: int, after: ZoneCondition) -> None:
        """Give zone *number* the condition *after* that `check_manage` promised, once the store has followed.

        A zone that was made READONLY or OFFLINE meanwhile stays so.
        """
        if after is FULL:
            self._wpoffsets[number] = self._geometry.capacity_of(number)
        elif after is EMPTY:
            self._wpoffsets[number] = 0
        if self.condition(number) not in (READONLY, OFFLINE):
            self._set(number, after)

    def force(self, number: int, condition: ZoneCondition | None) -> None:
        """Make zone *number* READONLY or OFFLINE, or (None), if it is one of these, what its write pointer says."""
        if condition is None and self.condition(number) not in (READONLY, OFFLINE):
            return
        if condition is None:
            condition = NOT_WP if self._geometry.is_conventional(number) else self._settled(number)
        self._set(number, condition)

    def power_cycle(self) -> None:
        """Forget what is open: a power loss closes every zone."""
        for number in self._sequential():
            if self.condition(number) in (IMP_OPEN, EXP_OPEN):
                self._set(number, self._settled(number))

    def _sequential(self) -> Iterable[int]:
        is_conventional = self._geometry.is_conventional
        return (number for number in range(self._geometry.nr_zones) if not is_conventional(number))

    def _settled(self, number: int) -> ZoneCondition:
        """The condition of a zone that is neither open nor broken."""
        wpoffset = self._wpoffsets[number]
        if wpoffset == 0:
            return EMPTY
        return FULL if wpoffset == self._geometry.capacity_of(number) else CLOSED

    def _set(self, number: int, condition: ZoneCondition) -> None:
        before = self._conditions[number]
        self._nr_closed += (condition is CLOSED) - (before == CLOSED)
        self._nr_exp_open += (condition is EXP_OPEN) - (before == EXP_OPEN)
        if before == IMP_OPEN:
            self._imp_open.discard(number)
        if condition is IMP_OPEN:
            self._imp_open.add(number)
        self._conditions[number] = condition

    def _active_is_free(self) -> bool:
        return self._max_active is None or self.nr_active < self._max_active

    def _take_resources(self, number: int, condition: ZoneCondition) -> None:
        if condition is EMPTY and not self._active_is_free():
            raise ActiveZonesExhausted(f"zone {number}: {self.nr_active} zones are active, and no more can be")
        if self._max_open is None or self.nr_open < self._max_open:
            return
        # null_blk closes an implicitly open zone only while the active limit has room (null_check_open).
        if not self._imp_open or not self._active_is_free():
            raise OpenZonesExhausted(f"zone {number}: {self.nr_open} zones are open, and no more can be")
        later = [candidate for candidate in self._imp_open if candidate >= self._close_cursor]
        victim = min(later or self._imp_open)
        self._close_cursor = victim + 1
        # Not full, even if a write under way is to fill it: that write may fail, and until then the zone is active.
        self._set(victim, CLOSED if self._wpoffsets[victim] else EMPTY)

"""A device that misbehaves as a list of rules says, over one that does not: what dm-flakey is for the kernel.

What a rule is stands in `fault_rules`. Nothing here is random and nothing depends on time: the same calls meet the same
faults, so that a failure replays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import cut, part_of, total_length
from zonefs_py.device.fault_rules import ERRORS, FATES, Effect, FaultRule, Operation, has_delay
from zonefs_py.errors import DeviceError, TableChanged, UserError
from zonefs_py.units import MIB, is_aligned, round_down
from zonefs_py.zone import CopyMethod, CopyRange, DeviceInfo, Zone, ZoneCondition, ZoneOp

log = logging.getLogger(__name__)

BUFFER_SIZE = MIB

_MANAGEMENT = {
    ZoneOp.RESET: Operation.RESET,
    ZoneOp.OPEN: Operation.OPEN,
    ZoneOp.CLOSE: Operation.CLOSE,
    ZoneOp.FINISH: Operation.FINISH,
}
_CONDITIONS = {Effect.READONLY: ZoneCondition.READONLY, Effect.OFFLINE: ZoneCondition.OFFLINE}
_EXTERNAL_OPS = {Effect.EXTERNAL_RESET: ZoneOp.RESET, Effect.EXTERNAL_FINISH: ZoneOp.FINISH}

_Span = tuple[int, int]
"""First and last zone of a call."""


class RuleStatus(NamedTuple):
    """A rule of a device: the number by which it can be removed, and how often it matched and fired."""

    number: int
    rule: FaultRule
    matched: int
    fired: int


@dataclass
class _Entry:
    number: int
    rule: FaultRule
    matched: int = 0
    fired: int = 0


class _Firing(NamedTuple):
    """A rule that strikes a call, and the first zone that it has to do with."""

    number: int
    rule: FaultRule
    zone: int


class FaultDevice(ZonedDevice):
    """Another device, which it owns, with rules about what goes wrong.

    Every call is held against all rules, in their order. All that match count it; those that are due fire, but of
    those that decide about the call (fail, short, drop, flip) only the first does, and the others miss their turn, as
    do rules for a part of the call that it does not come to. They strike in the order of their ``after``, and of those
    with the same one, a rule that decides comes last.

    What the faults lead to is real: bytes that a failed write "did" are written below, zone conditions and write
    pointers are changed below. Only data can be a lie (drop, flip).
    """

    def __init__(
        self,
        device: ZonedDevice,
        rules: Iterable[FaultRule] = (),
        name: str | None = None,
        *,
        waits: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """*waits* lets rules with a delay be added later on. *sleep* takes seconds.

        Raises UserError if a rule is about zones that there are not; the device is then still the caller's.
        """
        rules = list(rules)
        for number, rule in enumerate(rules, start=1):
            try:
                rule.check_zones(device.info.nr_zones)
            except UserError as exc:
                raise UserError(f"rule {number}: {exc}") from None
        self._device = device
        self._sleep = sleep
        self._lock = threading.Lock()
        """Guards the list, the counters in it, and the next number. Never held while the device below works."""
        self._entries = [_Entry(number, rule) for number, rule in enumerate(rules, start=1)]
        self._next_number = len(rules) + 1
        self._info = replace(
            device.info,
            kind="fault",
            name=name or f"fault:{device.info.name}",
            waits=device.info.waits or waits or has_delay(rules),
        )

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def generation(self) -> int:
        return self._device.generation

    # Rules

    @property
    def rules(self) -> list[RuleStatus]:
        """All rules in their order, with their counters."""
        with self._lock:
            return [RuleStatus(entry.number, entry.rule, entry.matched, entry.fired) for entry in self._entries]

    def add_rule(self, rule: FaultRule) -> int:
        """Put *rule* behind the others; return its number. It counts calls from now on.

        Raises UserError if it is about zones that there are not, and for a delay if the device's user was told that
        it never waits (``info.waits``).
        """
        rule.check_zones(self._info.nr_zones)
        if rule.effect is Effect.DELAY and not self._info.waits:
            raise UserError("a rule with a delay must be there when the device is opened")
        with self._lock:
            number = self._next_number
            self._next_number += 1
            self._entries.append(_Entry(number, rule))
            return number

    def remove_rule(self, number: int) -> RuleStatus:
        """Take away rule *number* and return it with its counters. Raises UserError if there is none."""
        with self._lock:
            for index, entry in enumerate(self._entries):
                if entry.number == number:
                    del self._entries[index]
                    return RuleStatus(number, entry.rule, entry.matched, entry.fired)
        raise UserError(f"there is no rule {number}")

    def _firing(self, operation: Operation, zones: _Span, source_zones: Sequence[_Span] = ()) -> list[_Firing]:
        """Count the call, and return what strikes it."""
        if not self._entries:
            return []
        with self._lock:
            due = []
            for entry in self._entries:
                if entry.rule.matches(operation, zones, source_zones):
                    entry.matched += 1
                    if entry.rule.is_due(entry.matched, entry.fired):
                        due.append(entry)
            firing = [
                _Firing(entry.number, entry.rule, max(zones[0], entry.rule.zones[0] if entry.rule.zones else 0))
                for entry in _struck_by(due)
            ]
        for number, rule, zone in firing:
            log.info("zone %d: rule %d (%s) strikes a %s", zone, number, rule.effect.value, operation.value)
        return firing

    # What rules do

    def _strike(self, firing: _Firing, what: str) -> None:
        """Do what the rule says, unless that is about data. Raises DeviceError if the call is to fail."""
        number, rule, zone = firing
        if rule.effect is Effect.FAIL:
            raise ERRORS[rule.error](f"zone {zone}: {what} fails by rule {number}")
        if rule.effect is Effect.DELAY:
            self._sleep(rule.milliseconds / 1000)
            return
        target = zone if rule.target is None else rule.target
        try:
            if rule.effect in _CONDITIONS:
                self._device.force_conditions([target], _CONDITIONS[rule.effect])
            elif rule.effect in _EXTERNAL_OPS:
                self._device.zone_mgmt(_EXTERNAL_OPS[rule.effect], target)
            elif rule.effect is Effect.EXTERNAL_WRITE:
                self._write_from_outside(target, rule.length)
        except (DeviceError, UserError, ValueError) as exc:
            # Somebody else's mishap is not the caller's.
            log.warning("zone %d: rule %d (%s) came to nothing: %s", target, number, rule.effect.value, exc)

    def _write_from_outside(self, number: int, length: int) -> None:
        zone = self._zone(number)
        end = zone.start + zone.capacity
        start = zone.start if zone.is_conventional else zone.wp
        length = round_down(min(length, end - start), self._info.block_size)
        if length:
            self._write_zeros(start, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        for done in range(0, length, BUFFER_SIZE):
            self._device.write(offset + done, bytes(min(BUFFER_SIZE, length - done)))

    def _zone(self, number: int) -> Zone:
        zones = self._device.report_zones(number, 1)
        if not zones:
            raise ValueError(f"zone {number} of {self._info.nr_zones}")
        return zones[0]

    def _span(self, offset: int, length: int) -> _Span:
        size = self._info.zone_size
        return offset // size, max(offset, offset + length - 1) // size

    def _is_request(self, offset: int, length: int) -> bool:
        """Whether the span is one that a device takes. Where it is not, that is the caller's bug, and no fault."""
        block, size = self._info.block_size, self._info.size
        return is_aligned(offset, block) and is_aligned(length, block) and 0 <= offset < offset + length <= size

    def _is_refused_whole(self, offset: int, length: int) -> bool:
        """Whether the device below refuses to write the span for where it ends: it must not be given a part of it."""
        first, last = self._span(offset, length)
        zones = self._device.report_zones(first, last - first + 1)
        if len(zones) > 1:
            return not all(zone.is_conventional for zone in zones)
        return offset + length > zones[0].start + zones[0].capacity

    def _strike_all(self, firing: Sequence[_Firing], what: str) -> bool:
        """Let all rules strike a call that is not cut in the middle; return whether it is dropped."""
        for one in firing:
            self._strike(one, what)
        return any(one.rule.effect is Effect.DROP for one in firing)

    # Calls that are whole or not at all

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        last = self._info.nr_zones - 1 if count is None else max(start, start + count - 1)
        self._strike_all(self._firing(Operation.REPORT, (start, last)), "report")
        return self._device.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        if not self._is_request(offset, length):
            return self._device.read(offset, length)
        firing = self._firing(Operation.READ, self._span(offset, length))
        self._strike_all(firing, f"read of {length} bytes")
        return _flipped(firing, self._device.read(offset, length))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if self._entries:
            buffer[:] = self.read(offset, len(buffer))
        else:
            self._device.read_into(offset, buffer)

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        operation = _MANAGEMENT[op]
        if not self._strike_all(self._firing(operation, (number, number)), operation.value):
            self._device.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        span = (0, self._info.nr_zones - 1) if number is None else (number, number)
        if not self._strike_all(self._firing(Operation.FLUSH, span), "flush"):
            self._device.flush(number)

    # Calls that can stop in the middle

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        firing = []
        if self._is_request(offset, len(view)):
            firing = self._firing(Operation.WRITE, self._span(offset, len(view)))
        if not firing or self._is_refused_whole(offset, len(view)):
            self._device.write(offset, data)
            return
        view = memoryview(_flipped(firing, data))
        dropped = any(one.rule.effect is Effect.DROP for one in firing)

        def transfer(start: int, end: int) -> None:
            if dropped:
                self._pretend(offset + start, end - start)
            else:
                self._device.write(offset + start, view[start:end])

        self._in_pieces(firing, len(view), f"write of {len(view)} bytes at {offset}", transfer)

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        return self._device.can_copy(ranges, method)

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        if not self.can_copy(ranges, method):
            self._device.copy(ranges, method, generation)  # which says why not
            return
        if generation not in (None, self.generation):
            raise TableChanged(f"{self._info.name}: the copy was planned under another table")
        destination, length = ranges[0].destination, total_length(ranges)
        sources = [self._span(source, size) for source, _, size in ranges]
        firing = self._firing(Operation.COPY, self._span(destination, length), sources)
        if not firing or self._is_refused_whole(destination, length):
            self._device.copy(ranges, method, generation)
            return
        effects = {one.rule.effect for one in firing}

        def transfer(start: int, end: int) -> None:
            part = list(part_of(ranges, start, end))
            if Effect.DROP in effects:
                self._pretend(destination + start, end - start)
            elif Effect.FLIP not in effects and self.can_copy(part, method):
                self._device.copy(part, method, generation)
            else:
                self._copy_by_hand(firing, ranges, range(start, end))

        what = f"copy of {length} bytes at {ranges[0].source} to {destination}"
        self._in_pieces(firing, length, what, transfer)

    def _in_pieces(
        self, firing: Sequence[_Firing], length: int, what: str, transfer: Callable[[int, int], None]
    ) -> None:
        """Transfer *length* bytes, stopping where rules strike. ``completed`` of a DeviceError is that of a copy."""
        done = 0
        for one in firing:
            position = min(round_down(one.rule.after, self._info.block_size), length)
            done = _transfer_to(position, done, transfer)
            if one.rule.effect is Effect.SHORT:
                short = ERRORS[one.rule.error](f"zone {one.zone}: {what} stops short after {done} by rule {one.number}")
                short.completed = done
                raise short
            self._strike(one, what)
        _transfer_to(length, done, transfer)

    def _pretend(self, offset: int, length: int) -> None:
        """Write nothing where that can be pretended: a sequential zone's write pointer moves, over zeros."""
        size = self._info.zone_size
        while length:
            number = offset // size
            piece = min(length, (number + 1) * size - offset)
            if not self._zone(number).is_conventional:
                self._write_zeros(offset, piece)
            offset, length = offset + piece, length - piece

    def _copy_by_hand(self, firing: Sequence[_Firing], ranges: Sequence[CopyRange], span: range) -> None:
        """Copy *span* of a copy as the device below would not: with a changed bit, or a piece too odd for it."""
        length = total_length(ranges)
        done = span.start
        for source, destination, size in cut(part_of(ranges, span.start, span.stop), BUFFER_SIZE):
            try:
                data = self._device.read(source, size)
                self._device.write(destination, _flipped(firing, data, done, length))
            except DeviceError as exc:
                exc.completed = done - span.start
                raise
            done += size

    # The rest

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        self._device.force_conditions(numbers, condition)

    def close(self) -> None:
        self._device.close()


def _struck_by(due: Sequence[_Entry]) -> list[_Entry]:
    """Which of the *due* rules strike a call, in the order in which they do; counts them."""
    fate = next((entry for entry in due if entry.rule.effect in FATES), None)
    struck = [entry for entry in due if entry is fate or entry.rule.effect not in FATES]
    if fate is not None and fate.rule.effect in (Effect.FAIL, Effect.SHORT):
        struck = [entry for entry in struck if entry.rule.after <= fate.rule.after]
    for entry in struck:
        entry.fired += 1
    return sorted(struck, key=lambda entry: (entry.rule.after, entry is fate))


def _transfer_to(position: int, done: int, transfer: Callable[[int, int], None]) -> int:
    if position > done:
        try:
            transfer(done, position)
        except DeviceError as exc:
            exc.completed += done
            raise
    return max(position, done)


def _flipped(
    firing: Sequence[_Firing], data: bytes | bytearray | memoryview, start: int = 0, length: int | None = None
) -> bytes:
    """Return *data* with flipped bits. It begins *start* bytes into a call of *length* bytes; it is all, if None."""
    changed = None
    for one in firing:
        if one.rule.effect is Effect.FLIP:
            where = one.rule.byte % (len(data) if length is None else length) - start
            if 0 <= where < len(data):
                changed = changed or bytearray(data)
                changed[where] ^= 1 << one.rule.bit
    return bytes(data) if changed is None else bytes(changed)

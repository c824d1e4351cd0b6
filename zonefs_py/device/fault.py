"""A device that misbehaves as a list of rules says, over one that does not: what dm-flakey is for the kernel.

What a rule is stands in `fault_rules`. Unless a rule asks for it, nothing depends on time; what looks random comes from
a seed. So the same calls meet the same faults, and a failure replays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import cut, part_of, total_length
from zonefs_py.device.fault_rules import ERRORS, FATES, WAITING, Call, Effect, FaultRule, Operation, Span, any_waits
from zonefs_py.device.fault_waiting import StuckCall, StuckCalls
from zonefs_py.device.power_cut import Keep, PowerCut, Unflushed
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

_PASSED_DOWN = (
    "report_zones",
    "read",
    "read_into",
    "read_into_now",
    "write",
    "write_bytes",
    "zone_mgmt",
    "flush",
    "can_copy",
    "copy",
    "copy_waits",
    "copy_out",
)
"""The calls that are the device's below while there is no rule."""


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
    added: float
    matched: int = 0
    fired: int = 0
    moved: int = 0
    """Bytes that matching calls have moved."""
    is_there: bool = True
    """Whether the rule has not been removed."""


class _Firing(NamedTuple):
    """A rule that strikes a call as its *matched* th one, where, and the first zone that it has to do with."""

    entry: _Entry
    zone: int
    position: int
    matched: int

    @property
    def number(self) -> int:
        return self.entry.number

    @property
    def rule(self) -> FaultRule:
        return self.entry.rule

    def is_there(self) -> bool:
        """Whether the rule has not been removed since it struck."""
        return self.entry.is_there


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
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*waits* lets rules that make calls wait be added later on. *sleep* and *clock* are about seconds; *sleep*
        takes the place of delays, which else end early when their rule is removed, or waiting interrupted.

        Raises UserError if a rule is about zones or blocks that there are not; the device is then still the caller's.
        """
        rules = list(rules)
        self._device = device
        self._info = replace(
            device.info,
            kind="fault",
            name=name or f"fault:{device.info.name}",
            waits=device.info.waits or waits or any_waits(rules),
        )
        _check_rules(rules, self._info, numbered=True)
        self._stuck = StuckCalls(clock)
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        """Guards the list, the counters in it, and the next number. Never held while the device below works."""
        now = clock()
        self._entries = [_Entry(number, rule, now) for number, rule in enumerate(rules, start=1)]
        self._next_number = len(rules) + 1
        self._withdrawn: Callable[[Iterable[int]], None] | None = None
        self._powered = True
        self._pass_down()

    @classmethod
    def over(cls, device: ZonedDevice) -> FaultDevice:
        """Return a device to which faults can be added: *device*, if it is one, or one over it that looks the same."""
        if isinstance(device, FaultDevice):
            return device
        faulty = cls(device, name=device.info.name)
        faulty._info = device.info
        return faulty

    def _pass_down(self) -> None:
        """Without rules, make the calls those of the device below, so that nothing is between; with rules, undo that.

        Calls that have begun end as they began.
        """
        for name in _PASSED_DOWN:
            if self._entries:
                self.__dict__.pop(name, None)
            else:
                self.__dict__[name] = _call_of(self._device, name)

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
        """Put *rule* behind the others; return its number. It counts calls from now on. Raises as `add_rules`."""
        return self.add_rules([rule])[0]

    def add_rules(self, rules: Sequence[FaultRule]) -> list[int]:
        """Put *rules* behind the others, all at once; return their numbers. They count calls from now on.

        Raises UserError, with nothing changed, if one is about zones or blocks that there are not, and for one that
        makes calls wait if the device's user was told that it never waits (``info.waits``, `let_wait`).
        """
        _check_rules(rules, self._info, numbered=len(rules) > 1)
        if any_waits(rules) and not self._info.waits:
            raise UserError("a rule that makes calls wait must be there when the device is opened")
        with self._lock:
            first = self._next_number
            self._next_number += len(rules)
            now = self._clock()
            self._entries += [_Entry(number, rule, now) for number, rule in enumerate(rules, start=first)]
            self._pass_down()
        # Reads of these zones must come to us from now on.
        struck = {number for rule in rules if rule.strikes_reads for number in self._zones_of(rule)}
        if struck and self._withdrawn is not None:
            self._withdrawn(sorted(struck))
        return list(range(first, first + len(rules)))

    def remove_rule(self, number: int) -> RuleStatus:
        """Take away rule *number* and return it with its counters. Raises UserError if there is none.

        Calls that wait by it go on.
        """
        return self.remove_rules([number])[0]

    def remove_rules(self, numbers: Sequence[int] | None = None) -> list[RuleStatus]:
        """Take away the rules *numbers*, or all; return them with their counters. Raises UserError, nothing changed.

        Calls that wait by them, for a time or until they are released, go on. Else, what strikes a call was decided
        when it began.
        """
        with self._lock:
            by_number = {entry.number: entry for entry in self._entries}
            wanted = dict.fromkeys(by_number if numbers is None else numbers)
            for number in wanted:
                if number not in by_number:
                    raise UserError(f"there is no rule {number}")
            self._entries = [entry for entry in self._entries if entry.number not in wanted]
            self._pass_down()
            removed = [by_number[number] for number in wanted]
            for entry in removed:
                entry.is_there = False
        if wanted:
            # After the above: a call that comes to wait now finds that its rule is gone.
            self.release(wanted)
        return [RuleStatus(entry.number, entry.rule, entry.matched, entry.fired) for entry in removed]

    def let_wait(self, waits: bool) -> None:
        """Say whether rules that make calls wait are allowed from now on; ``info.waits`` tells.

        Only for who can tell the device's user. Raises UserError for False while there are such rules.
        """
        with self._lock:
            if not waits and any(entry.rule.waits for entry in self._entries):
                raise UserError("there are rules that make calls wait")
            self._info = replace(self._info, waits=waits or self._device.info.waits)

    def _zones_of(self, rule: FaultRule) -> range:
        first, last = rule.zones or (0, self._info.nr_zones - 1)
        if rule.blocks is not None:
            per_zone = self._info.zone_size // self._info.block_size
            first, last = max(first, rule.blocks[0] // per_zone), min(last, rule.blocks[1] // per_zone)
        return range(first, last + 1)

    # Passthrough: see ZonedDevice

    def backing_descriptor(self, number: int) -> int | None:
        with self._lock:
            rules = [entry.rule for entry in self._entries]
        if any(rule.strikes_reads and number in self._zones_of(rule) for rule in rules):
            return None
        return self._device.backing_descriptor(number)

    def watch_backing(self, withdrawn: Callable[[Iterable[int]], None] | None) -> None:
        self._withdrawn = withdrawn
        self._device.watch_backing(withdrawn)

    # Calls that wait

    @property
    def stuck(self) -> list[StuckCall]:
        """The calls that are stuck now, the longest first."""
        return self._stuck.calls

    def release(self, numbers: Iterable[int] | None = None, *, fail: bool = False) -> int:
        """Let calls that are stuck by the rules *numbers* (None: any) go on, or *fail*; return how many there were.

        The rules stay, and hold the next call.
        """
        return self._stuck.release(numbers, fail=fail)

    def abandon(self) -> None:
        """Make nobody wait any more: stuck calls fail, and so do those that would get stuck; delays are over."""
        self._stuck.abandon()
        self._device.abandon()

    def interrupt(self) -> None:
        self._stuck.interrupt()
        self._device.interrupt()

    def resume(self) -> None:
        self._device.resume()
        self._stuck.resume()

    def watch_stuck(self, watcher: Callable[[bool], None] | None) -> None:
        self._stuck.watcher = watcher
        self._device.watch_stuck(watcher)

    def _firing(self, call: Call) -> list[_Firing]:
        """Count the call, and return what strikes it."""
        if not self._entries or not self._powered:
            return []
        with self._lock:
            due = [firing for entry in self._entries if (firing := self._due(entry, call)) is not None]
            struck = _struck_by(due)
            for firing in struck:
                firing.entry.fired += 1
        for one in struck:
            log.info("zone %d: rule %d (%s) strikes a %s", one.zone, one.number, _label(one.rule), call.operation.value)
        return struck

    def _due(self, entry: _Entry, call: Call) -> _Firing | None:
        """Count *call* for one rule, and return how it is due to strike it; None if it is not."""
        rule = entry.rule
        if not rule.matches(call) or self._clock() - entry.added < rule.from_milliseconds / 1000:
            return None
        before = entry.moved
        entry.moved += call.length
        if rule.at_byte is not None and entry.moved <= rule.at_byte:
            return None
        entry.matched += 1
        if not rule.is_due(entry.matched, entry.fired):
            return None
        zone = max(call.zones[0], rule.zones[0] if rule.zones else 0)
        position = rule.position(call, before, self._info.block_size)
        return _Firing(entry, zone, position, entry.matched)

    # What rules do

    def _strike(self, firing: _Firing, what: str) -> None:
        """Do what the rule says, unless that is about data. Raises DeviceError if the call is to fail."""
        number, rule, zone = firing.number, firing.rule, firing.zone
        if rule.effect is Effect.FAIL:
            raise ERRORS[rule.error](f"zone {zone}: {what} fails by rule {_numbered(firing)}")
        if rule.effect in WAITING:
            if rule.effect is Effect.STUCK:
                self._stuck.hold(number, zone, what, firing.is_there)
            elif self._sleep is not None:
                self._sleep(rule.delay(firing.matched))
            else:
                self._stuck.sleep(rule.delay(firing.matched), firing.is_there)
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

    def _span(self, offset: int, length: int) -> Span:
        size = self._info.zone_size
        return offset // size, max(offset, offset + length - 1) // size

    def _blocks(self, offset: int, length: int) -> Span:
        return offset // self._info.block_size, (offset + length - 1) // self._info.block_size

    def _transfer(self, operation: Operation, offset: int, length: int) -> Call:
        return Call(operation, self._span(offset, length), self._blocks(offset, length), length)

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
        self._strike_all(self._firing(Call(Operation.REPORT, (start, last))), "report")
        return self._device.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        if not self._is_request(offset, length):
            return self._device.read(offset, length)
        firing = self._firing(self._transfer(Operation.READ, offset, length))
        self._strike_all(firing, f"read of {length} bytes")
        return _flipped(firing, self._device.read(offset, length))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        operation = _MANAGEMENT[op]
        if not self._strike_all(self._firing(Call(operation, (number, number))), operation.value):
            self._device.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        span = (0, self._info.nr_zones - 1) if number is None else (number, number)
        if not self._strike_all(self._firing(Call(Operation.FLUSH, span)), "flush"):
            self._device.flush(number)

    # Calls that can stop in the middle

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        firing = []
        if self._is_request(offset, len(view)):
            firing = self._firing(self._transfer(Operation.WRITE, offset, len(view)))
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
        call = self._transfer(Operation.COPY, destination, length)
        firing = self._firing(
            call._replace(
                source_zones=[self._span(source, size) for source, _, size in ranges],
                source_blocks=[self._blocks(source, size) for source, _, size in ranges],
            )
        )
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
            position = min(round_down(one.position, self._info.block_size), length)
            done = _transfer_to(position, done, transfer)
            if one.rule.effect is Effect.SHORT:
                short = ERRORS[one.rule.error](
                    f"zone {one.zone}: {what} stops short after {done} by rule {_numbered(one)}"
                )
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

    @property
    def has_write_cache(self) -> bool:
        return self._device.has_write_cache

    def unflushed(self) -> list[Unflushed]:
        return self._device.unflushed()

    def power_cut(self, keep: Keep) -> PowerCut:
        """Do what `ZonedDevice.power_cut` says. Without power, calls fail at once: none waits, and no rule strikes."""
        cut = self._device.power_cut(keep)
        self._powered = False
        self._stuck.interrupt()
        return cut

    def power_on(self) -> None:
        self._device.power_on()
        self._stuck.resume()
        self._powered = True

    def close(self) -> None:
        self._device.close()


def _call_of(device: ZonedDevice, name: str) -> Callable[..., Any]:
    """The call *name* of *device*, now and later on."""
    if not isinstance(device, FaultDevice):
        call: Callable[..., Any] = getattr(device, name)
        return call
    # Its calls change when it gets its first rule, or loses its last.
    return lambda *args, **more: getattr(device, name)(*args, **more)


def _check_rules(rules: Sequence[FaultRule], info: DeviceInfo, *, numbered: bool) -> None:
    """Raise UserError about the first of *rules* that does not fit the device, with its place among them if told to."""
    for number, rule in enumerate(rules, start=1):
        try:
            rule.check_zones(info.nr_zones)
            rule.check_blocks(info.size // info.block_size)
        except UserError as exc:
            raise UserError(f"rule {number}: {exc}" if numbered else str(exc)) from None


def _label(rule: FaultRule) -> str:
    return f"{rule.effect.value}: {rule.name}" if rule.name else rule.effect.value


def _numbered(firing: _Firing) -> str:
    return f"{firing.number} ({firing.rule.name})" if firing.rule.name else str(firing.number)


def _struck_by(due: Sequence[_Firing]) -> list[_Firing]:
    """Which of those that are *due* strike a call, in the order in which they do."""
    fate = next((one for one in due if one.rule.effect in FATES), None)
    struck = [one for one in due if one is fate or one.rule.effect not in FATES]
    if fate is not None and fate.rule.effect in (Effect.FAIL, Effect.SHORT):
        struck = [one for one in struck if one.position <= fate.position]
    return sorted(struck, key=lambda one: (one.position, one is fate))


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

"""What a fault device does when: rules as frozen dataclasses, and as JSON. Pure; nothing here is left to chance.

docs/stacks.md describes the fields for users.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from zonefs_py.device.description import shorten
from zonefs_py.errors import ActiveZonesExhausted, DeviceError, HostFull, OpenZonesExhausted, UserError

FORMAT_VERSION = 1
MAX_NUMBER = 1 << 60
MAX_MILLISECONDS = 3_600_000


class Operation(Enum):
    """A call of the device interface."""

    READ = "read"
    WRITE = "write"
    COPY = "copy"
    RESET = "reset"
    OPEN = "open"
    CLOSE = "close"
    FINISH = "finish"
    FLUSH = "flush"
    REPORT = "report"
    ANY = "any"


class Effect(Enum):
    """What a rule does when it fires."""

    FAIL = "fail"
    SHORT = "short"
    DROP = "drop"
    FLIP = "flip"
    DELAY = "delay"
    READONLY = "readonly"
    OFFLINE = "offline"
    EXTERNAL_WRITE = "external-write"
    EXTERNAL_RESET = "external-reset"
    EXTERNAL_FINISH = "external-finish"


ERRORS: dict[str, type[DeviceError]] = {
    kind("").errno_name: kind for kind in (DeviceError, HostFull, OpenZonesExhausted, ActiveZonesExhausted)
}
"""What a call can fail with, by the name of the errno: EIO, ENOSPC, ETOOMANYREFS (open), EOVERFLOW (active zones)."""

TRANSFERS = frozenset({Operation.WRITE, Operation.COPY})
"""Operations that can be cut in the middle."""

_DATA = TRANSFERS | {Operation.READ}
_MANAGEMENT = frozenset({Operation.RESET, Operation.OPEN, Operation.CLOSE, Operation.FINISH})
_ALL = frozenset(Operation)

FATES = frozenset({Effect.FAIL, Effect.SHORT, Effect.DROP, Effect.FLIP})
"""Effects of which a call has at most one."""

OPERATIONS: dict[Effect, frozenset[Operation]] = {
    Effect.FAIL: _ALL,
    Effect.SHORT: TRANSFERS,
    Effect.DROP: TRANSFERS | _MANAGEMENT | {Operation.FLUSH},
    Effect.FLIP: _DATA,
    Effect.DELAY: _ALL,
    Effect.READONLY: _ALL,
    Effect.OFFLINE: _ALL,
    Effect.EXTERNAL_WRITE: _ALL,
    Effect.EXTERNAL_RESET: _ALL,
    Effect.EXTERNAL_FINISH: _ALL,
}
"""The operations that an effect makes sense for."""

_SELECTING = frozenset({"operation", "zones", "source_zones", "first", "every", "count", "effect"})
_ON_A_ZONE = frozenset({"target", "after"})

FIELDS: dict[Effect, frozenset[str]] = {
    Effect.FAIL: frozenset({"error", "after"}),
    Effect.SHORT: frozenset({"error", "after"}),
    Effect.DROP: frozenset(),
    Effect.FLIP: frozenset({"byte", "bit"}),
    Effect.DELAY: frozenset({"milliseconds", "after"}),
    Effect.READONLY: _ON_A_ZONE,
    Effect.OFFLINE: _ON_A_ZONE,
    Effect.EXTERNAL_WRITE: _ON_A_ZONE | {"length"},
    Effect.EXTERNAL_RESET: _ON_A_ZONE,
    Effect.EXTERNAL_FINISH: _ON_A_ZONE,
}
"""The fields that an effect has beside those that select calls."""


@dataclass(frozen=True)
class FaultRule:
    """One rule. Raises UserError, naming the field in JSON's words, if it makes no sense.

    *Which calls.* Those of ``operation`` (ANY: all) that touch a zone in ``zones`` (first and last; None: any zone), a
    copy by its destination; ``source_zones`` is the same for the sources of a copy. Of these the ``first`` th
    (from 1), then every ``every`` th, ``count`` times at most (None: without end).

    *What.* ``after`` is how many bytes of a write or copy are done before the rule strikes, cut to whole blocks.
    ``error`` is one of `ERRORS`. ``byte`` and ``bit`` say what is flipped: a byte of the call's data (modulo its
    length) and a bit of that. ``target`` is the zone that is changed; None: the first that the call touches.
    ``length`` is what somebody else writes, in bytes, cut to whole blocks.
    """

    operation: Operation
    effect: Effect
    zones: tuple[int, int] | None = None
    source_zones: tuple[int, int] | None = None
    first: int = 1
    every: int = 1
    count: int | None = 1
    error: str = "EIO"
    after: int = 0
    byte: int = 0
    bit: int = 0
    milliseconds: int = 0
    target: int | None = None
    length: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f'"{name}" is {shorten(value)}: it must be {low} to {high}')
        for name in ("zones", "source_zones"):
            span = getattr(self, name)
            if span is not None and not 0 <= span[0] <= span[1] <= MAX_NUMBER:
                raise UserError(f'"{name}" is {shorten(span)}: a range runs from a lower to a higher zone')
        if self.error not in ERRORS:
            raise UserError(f'"error" is {shorten(self.error)}; known are {", ".join(ERRORS)}')
        self._check_effect()

    def _check_effect(self) -> None:
        effect, operation = self.effect, self.operation
        if operation not in OPERATIONS[effect]:
            known = ", ".join(one.value for one in Operation if one in OPERATIONS[effect])
            raise UserError(f'"effect" {effect.value} is not for {operation.value}, only for {known}')
        for field in fields(self):
            name = field.name
            if name not in _SELECTING | FIELDS[effect] and getattr(self, name) != field.default:
                raise UserError(f'"{name}" means nothing to the effect {effect.value}')
        if self.source_zones is not None and operation is not Operation.COPY:
            raise UserError(f'"source_zones" is for copy, not for {operation.value}')
        if self.after and operation not in TRANSFERS:
            raise UserError(f'"after" is for write and copy, not for {operation.value}')
        if effect is Effect.DELAY and not self.milliseconds:
            raise UserError('"milliseconds" is missing: how long is the delay?')
        if effect is Effect.EXTERNAL_WRITE and not self.length:
            raise UserError('"length" is missing: how many bytes are written?')

    def check_zones(self, nr_zones: int) -> None:
        """Raise UserError if the rule speaks of a zone that a device with *nr_zones* zones does not have."""
        for name, span in (("zones", self.zones), ("source_zones", self.source_zones), ("target", self.target)):
            last = span[1] if isinstance(span, tuple) else span
            if last is not None and last >= nr_zones:
                raise UserError(f'"{name}" has a zone {last}: the device has zones 0 to {nr_zones - 1}')

    def matches(self, operation: Operation, zones: tuple[int, int], source_zones: Sequence[tuple[int, int]]) -> bool:
        """Whether the rule is about a call that touches *zones*, and *source_zones* (by range) if it is a copy."""
        return (
            self.operation in (operation, Operation.ANY)
            and _overlap(self.zones, [zones])
            and _overlap(self.source_zones, source_zones)
        )

    def is_due(self, matched: int, fired: int) -> bool:
        """Whether the *matched* th matching call (from 1) is one to fire at, when the rule has fired *fired* times."""
        if self.count is not None and fired >= self.count:
            return False
        return matched >= self.first and (matched - self.first) % self.every == 0


_RANGES = (
    ("first", 1, MAX_NUMBER),
    ("every", 1, MAX_NUMBER),
    ("count", 1, MAX_NUMBER),
    ("after", 0, MAX_NUMBER),
    ("byte", 0, MAX_NUMBER),
    ("bit", 0, 7),
    ("milliseconds", 0, MAX_MILLISECONDS),
    ("target", 0, MAX_NUMBER),
    ("length", 0, MAX_NUMBER),
)


def _overlap(wanted: tuple[int, int] | None, touched: Sequence[tuple[int, int]]) -> bool:
    return wanted is None or any(wanted[0] <= last and first <= wanted[1] for first, last in touched)


# JSON


def parse_rules(text: str | bytes) -> list[FaultRule]:
    """Return the rules of a rule file. Raises UserError with a sentence that names rule (from 1) and field."""
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise UserError(f"not JSON ({exc})") from None
    if not isinstance(content, dict):
        raise UserError('not an object with "version" and "rules"')
    version, rules = content.get("version"), content.get("rules")
    if version != FORMAT_VERSION or type(version) is not int:
        raise UserError(f'"version" is {shorten(version)}; this zonefs-py knows version {FORMAT_VERSION}')
    if not isinstance(rules, list):
        raise UserError(f'"rules" is {shorten(rules)}, not a list')
    unknown = sorted(set(content) - {"version", "rules"})
    if unknown:
        raise UserError(f"unknown field {shorten(unknown[0])}")
    return [_numbered(number, rule) for number, rule in enumerate(rules, start=1)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"the field {shorten(name)} is there twice")
        found[name] = value
    return found


def _numbered(number: int, content: object) -> FaultRule:
    try:
        return parse_rule(content)
    except UserError as exc:
        raise UserError(f"rule {number}: {exc}") from None


def parse_rule(content: object) -> FaultRule:
    """Return the rule that *content*, a decoded JSON value, describes. Raises UserError that names the field."""
    if not isinstance(content, dict):
        raise UserError(f"{shorten(content)} is not an object")
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in _READERS:
            raise UserError(f"unknown field {shorten(name)}")
        values[name] = _READERS[name](name, value)
    for name in ("operation", "effect"):
        if name not in values:
            raise UserError(f'"{name}" is missing')
    rule = FaultRule(**values)
    misplaced = sorted(set(values) - _SELECTING - FIELDS[rule.effect])
    if misplaced:
        raise UserError(f'"{misplaced[0]}" means nothing to the effect {rule.effect.value}')
    return rule


def _read_number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f'"{name}" is {shorten(value)}, not a whole number')
    return value


def _read_count(name: str, value: object) -> int | None:
    return None if value is None else _read_number(name, value)


def _read_zones(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, str):
        first, dash, last = value.partition("-")
        texts = (first, last) if dash else (first, first)
        if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in texts):
            raise UserError(f'"{name}" is {shorten(value)}: write a zone number, or a range such as "8-15"')
        return int(texts[0]), int(texts[1])
    number = _read_number(name, value)
    return number, number


def _read_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UserError(f'"{name}" is {shorten(value)}, not a text')
    return value


def _read_operation(name: str, value: object) -> Operation:
    try:
        return Operation(value)
    except ValueError:
        known = ", ".join(one.value for one in Operation)
        raise UserError(f'"{name}" is {shorten(value)}; known are {known}') from None


def _read_effect(name: str, value: object) -> Effect:
    try:
        return Effect(value)
    except ValueError:
        known = ", ".join(one.value for one in Effect)
        raise UserError(f'"{name}" is {shorten(value)}; known are {known}') from None


_READERS: dict[str, Any] = {
    "operation": _read_operation,
    "effect": _read_effect,
    "zones": _read_zones,
    "source_zones": _read_zones,
    "count": _read_count,
    "error": _read_text,
} | dict.fromkeys(("first", "every", "after", "byte", "bit", "milliseconds", "target", "length"), _read_number)


def describe_rule(rule: FaultRule) -> dict[str, Any]:
    """Return *rule* as a value for JSON, which `parse_rule` reads back; what is as by default is left out."""
    content: dict[str, Any] = {"operation": rule.operation.value, "effect": rule.effect.value}
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.name in content or value == field.default:
            continue
        if field.name in ("zones", "source_zones"):
            value = value[0] if value[0] == value[1] else f"{value[0]}-{value[1]}"
        content[field.name] = value
    return content


def format_rules(rules: Sequence[FaultRule]) -> str:
    """Return the text of a rule file; `parse_rules` reads it back to equal rules."""
    content = {"version": FORMAT_VERSION, "rules": [describe_rule(rule) for rule in rules]}
    return json.dumps(content, indent=2) + "\n"


def has_delay(rules: Iterable[FaultRule]) -> bool:
    """Whether one of *rules* makes calls wait."""
    return any(rule.effect is Effect.DELAY for rule in rules)

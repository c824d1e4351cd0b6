"""What a fault device does when: rules as frozen dataclasses, and as JSON. Pure: even chance is a function of a seed.

docs/stacks.md describes the fields for users.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NamedTuple

from zonefs_py.device.description import shorten
from zonefs_py.errors import DEVICE_ERRORS, DeviceError, UserError

FORMAT_VERSION = 1
MAX_NUMBER = 1 << 60
MAX_MILLISECONDS = 3_600_000
MAX_TEXT = 1000
"""Characters of a name or a description."""


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
    STUCK = "stuck"
    READONLY = "readonly"
    OFFLINE = "offline"
    EXTERNAL_WRITE = "external-write"
    EXTERNAL_RESET = "external-reset"
    EXTERNAL_FINISH = "external-finish"


ERRORS: dict[str, type[DeviceError]] = {kind("").errno_name: kind for kind in DEVICE_ERRORS}
"""What a call can fail with, by the name of the errno."""

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
    Effect.STUCK: _ALL,
    Effect.READONLY: _ALL,
    Effect.OFFLINE: _ALL,
    Effect.EXTERNAL_WRITE: _ALL,
    Effect.EXTERNAL_RESET: _ALL,
    Effect.EXTERNAL_FINISH: _ALL,
}
"""The operations that an effect makes sense for."""

WAITING = frozenset({Effect.DELAY, Effect.STUCK})
"""Effects that make a call wait."""

DISTRIBUTIONS = ("fixed", "uniform", "exponential")

_SELECTING = frozenset(
    {"operation", "zones", "source_zones", "blocks", "source_blocks", "first", "every", "count", "effect"}
    | {"name", "at_byte", "from_milliseconds", "probability", "seed"}
)
_ON_A_ZONE = frozenset({"target", "after"})

FIELDS: dict[Effect, frozenset[str]] = {
    Effect.FAIL: frozenset({"error", "after"}),
    Effect.SHORT: frozenset({"error", "after"}),
    Effect.DROP: frozenset(),
    Effect.FLIP: frozenset({"byte", "bit"}),
    Effect.DELAY: frozenset({"milliseconds", "max_milliseconds", "distribution", "after"}),
    Effect.STUCK: frozenset({"after"}),
    Effect.READONLY: _ON_A_ZONE,
    Effect.OFFLINE: _ON_A_ZONE,
    Effect.EXTERNAL_WRITE: _ON_A_ZONE | {"length"},
    Effect.EXTERNAL_RESET: _ON_A_ZONE,
    Effect.EXTERNAL_FINISH: _ON_A_ZONE,
}
"""The fields that an effect has beside those that select calls."""


Span = tuple[int, int]
"""A first and a last number, of zones or of blocks."""


class Call(NamedTuple):
    """A call of a device, as far as rules look at it.

    ``zones`` are those that it touches; ``blocks`` (of the device) and ``length`` (in bytes) are None and 0 if it moves
    no data. ``source_zones`` and ``source_blocks`` are there for each range of a copy.
    """

    operation: Operation
    zones: Span
    blocks: Span | None = None
    length: int = 0
    source_zones: Sequence[Span] = ()
    source_blocks: Sequence[Span] = ()


@dataclass(frozen=True)
class FaultRule:
    """One rule. Raises UserError, naming the field in JSON's words, if it makes no sense.

    *Which calls.* Those of ``operation`` (ANY: all) that touch a zone in ``zones`` (first and last; None: any zone), a
    copy by its destination; ``source_zones`` is the same for the sources of a copy. Of these the ``first`` th
    (from 1), then every ``every`` th, ``count`` times at most (None: without end). ``blocks`` and ``source_blocks``
    narrow it down to calls that move data of these blocks of the device (first and last). ``at_byte``: only calls from
    the one on that moves this byte (from 0) of all the data that matching calls move. ``from_milliseconds``: only calls
    that come at least so long after the rule was made part of a device. ``probability``: of the calls that are due,
    each is struck if chance has it so; what chance says depends on ``seed`` and the number of the matching call only.

    *What.* ``after`` is how many bytes of a write or copy are done before the rule strikes, cut to whole blocks,
    counted from where the call touches ``blocks`` or moves ``at_byte`` if it does (see `position`).
    A delay is ``milliseconds`` (distribution fixed), from that to ``max_milliseconds`` (uniform), or with that mean and
    at most ``max_milliseconds`` (exponential); ``seed`` decides. A stuck call waits until somebody releases it.
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
    name: str = ""
    blocks: tuple[int, int] | None = None
    source_blocks: tuple[int, int] | None = None
    at_byte: int | None = None
    from_milliseconds: int = 0
    probability: float = 1.0
    seed: int = 0
    distribution: str = "fixed"
    max_milliseconds: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f'"{name}" is {shorten(value)}: it must be {low} to {high}')
        for name in _SPANS:
            span = getattr(self, name)
            if span is not None and not 0 <= span[0] <= span[1] <= MAX_NUMBER:
                kind = name.rpartition("_")[2].removesuffix("s")
                shown = span[0] if span[0] == span[1] else f"{span[0]}-{span[1]}"
                raise UserError(f'"{name}" is {shown}: a range runs from a lower to a higher {kind}')
        if not 0 < self.probability <= 1:
            raise UserError(f'"probability" is {shorten(self.probability)}: it must be above 0, and 1 at most')
        if len(self.name) > MAX_TEXT or not self.name.isprintable():
            raise UserError(f'"name" is {shorten(self.name)}: one line of at most {MAX_TEXT} characters')
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
        for name in ("source_zones", "source_blocks"):
            if getattr(self, name) is not None and operation is not Operation.COPY:
                raise UserError(f'"{name}" is for copy, not for {operation.value}')
        for name in ("blocks", "at_byte"):
            if getattr(self, name) is not None and operation not in _DATA | {Operation.ANY}:
                raise UserError(f'"{name}" is for read, write and copy, not for {operation.value}')
        if self.after and operation not in TRANSFERS:
            raise UserError(f'"after" is for write and copy, not for {operation.value}')
        if effect is Effect.DELAY:
            self._check_delay()
        if self.seed and self.probability == 1 and self.distribution == "fixed":
            raise UserError('"seed" means nothing without "probability" or "distribution"')
        if effect is Effect.EXTERNAL_WRITE and not self.length:
            raise UserError('"length" is missing: how many bytes are written?')

    def _check_delay(self) -> None:
        if not self.milliseconds:
            raise UserError(f'"milliseconds" says how long the delay is: 1 to {MAX_MILLISECONDS}')
        if self.distribution not in DISTRIBUTIONS:
            raise UserError(f'"distribution" is {shorten(self.distribution)}; known are {", ".join(DISTRIBUTIONS)}')
        if self.distribution == "fixed" and self.max_milliseconds:
            raise UserError('"max_milliseconds" means nothing to a delay whose "distribution" is fixed')
        if self.distribution != "fixed" and self.max_milliseconds < self.milliseconds:
            raise UserError(f'"max_milliseconds" is {self.max_milliseconds}: it must be at least "milliseconds"')

    @property
    def waits(self) -> bool:
        """Whether it makes calls wait."""
        return self.effect in WAITING

    @property
    def strikes_reads(self) -> bool:
        """Whether it may be about a read."""
        return self.operation in (Operation.READ, Operation.ANY)

    def check_blocks(self, nr_blocks: int) -> None:
        """Raise UserError if the rule speaks of a block that a device with *nr_blocks* blocks does not have."""
        for name, span in (("blocks", self.blocks), ("source_blocks", self.source_blocks)):
            if span is not None and span[1] >= nr_blocks:
                raise UserError(f'"{name}" has a block {span[1]}: the device has blocks 0 to {nr_blocks - 1}')

    def check_zones(self, nr_zones: int) -> None:
        """Raise UserError if the rule speaks of a zone that a device with *nr_zones* zones does not have."""
        for name, span in (("zones", self.zones), ("source_zones", self.source_zones), ("target", self.target)):
            last = span[1] if isinstance(span, tuple) else span
            if last is not None and last >= nr_zones:
                raise UserError(f'"{name}" has a zone {last}: the device has zones 0 to {nr_zones - 1}')

    def matches(self, call: Call) -> bool:
        """Whether the rule is about *call*, as far as that depends on nothing that was before."""
        return (
            self.operation in (call.operation, Operation.ANY)
            and _overlap(self.zones, [call.zones])
            and _overlap(self.source_zones, call.source_zones)
            and (self.blocks is None or (call.blocks is not None and _overlap(self.blocks, [call.blocks])))
            and _overlap(self.source_blocks, call.source_blocks)
            and (self.at_byte is None or call.length > 0)
        )

    def is_due(self, matched: int, fired: int) -> bool:
        """Whether the *matched* th matching call (from 1) is one to fire at, when the rule has fired *fired* times."""
        if self.count is not None and fired >= self.count:
            return False
        if matched < self.first or (matched - self.first) % self.every:
            return False
        return self.probability >= 1 or _chance(self.seed, "fires", matched) < self.probability

    def position(self, call: Call, moved: int, block_size: int) -> int:
        """Return how many bytes of *call* are done before the rule strikes.

        *moved* is how many bytes the matching calls before it have moved.
        """
        position = 0
        if call.operation in TRANSFERS:
            if self.blocks is not None and call.blocks is not None:
                position = max(position, (self.blocks[0] - call.blocks[0]) * block_size)
            if self.at_byte is not None:
                position = max(position, self.at_byte - moved)
        return position + self.after

    def delay(self, matched: int) -> float:
        """Return how many seconds the *matched* th matching call is to wait."""
        low, high = self.milliseconds, self.max_milliseconds
        if self.distribution == "fixed":
            wait = float(low)
        elif self.distribution == "uniform":
            wait = low + _chance(self.seed, "waits", matched) * (high - low)
        else:
            wait = min(float(high), -low * math.log(1 - _chance(self.seed, "waits", matched)))
        return wait / 1000


def _chance(seed: int, what: str, number: int) -> float:
    """Return a number from 0 to below 1 that looks random, and is always the same for the same arguments."""
    digest = hashlib.blake2b(f"{seed} {what} {number}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


_RANGES = (
    ("first", 1, MAX_NUMBER),
    ("every", 1, MAX_NUMBER),
    ("count", 1, MAX_NUMBER),
    ("after", 0, MAX_NUMBER),
    ("byte", 0, MAX_NUMBER),
    ("bit", 0, 7),
    ("milliseconds", 0, MAX_MILLISECONDS),
    ("max_milliseconds", 0, MAX_MILLISECONDS),
    ("from_milliseconds", 0, MAX_NUMBER),
    ("at_byte", 0, MAX_NUMBER),
    ("seed", 0, MAX_NUMBER),
    ("target", 0, MAX_NUMBER),
    ("length", 0, MAX_NUMBER),
)
_SPANS = ("zones", "source_zones", "blocks", "source_blocks")


def _overlap(wanted: tuple[int, int] | None, touched: Sequence[tuple[int, int]]) -> bool:
    return wanted is None or any(wanted[0] <= last and first <= wanted[1] for first, last in touched)


# JSON


@dataclass(frozen=True)
class Scenario:
    """What a rule file says: rules, and for people what they are."""

    rules: tuple[FaultRule, ...]
    name: str = ""
    description: str = ""


def parse_rules(text: str | bytes) -> list[FaultRule]:
    """Return the rules of a rule file. Raises UserError as `parse_scenario` does."""
    return list(parse_scenario(text).rules)


def parse_scenario(text: str | bytes) -> Scenario:
    """Return what a rule file says. Raises UserError with a sentence that names rule (from 1) and field."""
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
    unknown = sorted(set(content) - {"version", "rules", "name", "description"})
    if unknown:
        raise UserError(f"unknown field {shorten(unknown[0])}")
    texts = {name: _read_text(name, content.get(name, "")) for name in ("name", "description")}
    for name, value in texts.items():
        if len(value) > MAX_TEXT:
            raise UserError(f'"{name}" has more than {MAX_TEXT} characters')
    return Scenario(tuple(_numbered(number, rule) for number, rule in enumerate(rules, start=1)), **texts)


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
            raise UserError(f"unknown field {shorten(name)}; known are {', '.join(_READERS)}")
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


def _read_optional_number(name: str, value: object) -> int | None:
    return None if value is None else _read_number(name, value)


def _read_probability(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise UserError(f'"{name}" is {shorten(value)}: it must be above 0, and 1 at most')
    return float(value)


def _read_span(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, str):
        first, dash, last = value.partition("-")
        texts = (first, last) if dash else (first, first)
        if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in texts):
            kind = name.rpartition("_")[2].removesuffix("s")
            raise UserError(f'"{name}" is {shorten(value)}: write a {kind} number, or a range such as "8-15"')
        return int(texts[0]), int(texts[1])
    number = _read_number(name, value)
    return number, number


def _read_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UserError(f'"{name}" is {shorten(value)}, not a text')
    return value


def _read_one_of(kind: type[Enum]) -> Callable[[str, object], Enum]:
    def read(name: str, value: object) -> Enum:
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(one.value for one in kind)
            raise UserError(f'"{name}" is {shorten(value)}; known are {known}') from None

    return read


_READERS: dict[str, Any] = {
    "operation": _read_one_of(Operation),
    "effect": _read_one_of(Effect),
    "count": _read_optional_number,
    "error": _read_text,
    "name": _read_text,
    "distribution": _read_text,
    "probability": _read_probability,
    **dict.fromkeys(_SPANS, _read_span),
    **dict.fromkeys(("first", "every", "after", "byte", "bit", "milliseconds", "target", "length"), _read_number),
    **dict.fromkeys(("at_byte", "from_milliseconds", "seed", "max_milliseconds"), _read_number),
}


def describe_rule(rule: FaultRule) -> dict[str, Any]:
    """Return *rule* as a value for JSON, which `parse_rule` reads back; what is as by default is left out."""
    content: dict[str, Any] = {"operation": rule.operation.value, "effect": rule.effect.value}
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.name in content or value == field.default:
            continue
        if field.name in _SPANS:
            value = value[0] if value[0] == value[1] else f"{value[0]}-{value[1]}"
        content[field.name] = value
    return content


def format_rules(rules: Sequence[FaultRule], name: str = "", description: str = "") -> str:
    """Return the text of a rule file; `parse_scenario` reads it back."""
    texts = {key: value for key, value in (("name", name), ("description", description)) if value}
    content = {"version": FORMAT_VERSION, **texts, "rules": [describe_rule(rule) for rule in rules]}
    return json.dumps(content, indent=2) + "\n"


def any_waits(rules: Iterable[FaultRule]) -> bool:
    """Whether one of *rules* makes calls wait."""
    return any(rule.waits for rule in rules)

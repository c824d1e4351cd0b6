"""The one-line text form of a stack of devices, and the tree that it stands for. Pure; `stack` opens it.

::

    DEVICE := PATH | fault:RULES,LOWER | nvme-copy:LIMITS LOWER | write-cache:LOWER | linear:PART+PART...
    LOWER  := DEVICE | (LOWER)
    LIMITS := any of mssrl=NUMBER, mcl=NUMBER, msrc=NUMBER, back-end=block, back-end=file, each with a comma behind it
    PART   := PATH or (LOWER), either with [ZONES] behind it or without
    ZONES  := NUMBER, NUMBER-NUMBER or NUMBER- (to the end), or several of these with commas between

A device that is no stack is its path as it is. In a stack, a backslash before one of ``\\ , + [ ] ( )`` makes it a part
of a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from zonefs_py.errors import UserError

FAULT = "fault:"
LINEAR = "linear:"
NVME_COPY = "nvme-copy:"
WRITE_CACHE = "write-cache:"
PREFIXES = (FAULT, LINEAR, NVME_COPY, WRITE_CACHE)
SPECIAL = "\\,+[]()"
MAX_DEPTH = 32

NVME_LIMITS = {"mssrl": (1, 0xFFFF), "mcl": (1, 0xFFFFFFFF), "msrc": (0, 0xFF)}
"""The smallest and the largest value of each; numbers of blocks, and for the last of ranges less one."""

NVME_BACK_ENDS = ("block", "file")

_ZONES = re.compile(r"([0-9]{1,18})(-([0-9]{1,18})?)?")

# The comma is what tells an option from a path: there it has a backslash.
_NVME_OPTION = re.compile(r"([^]\\,+[()/:=]*)=([^]\\,+[()/]*),")


@dataclass(frozen=True)
class PathSpec:
    """An emulated device in a directory, or a block device.

    A path that looks like a stack is a ValueError: put ``./`` before it.
    """

    path: str

    def __post_init__(self) -> None:
        _check_path(self.path)


@dataclass(frozen=True)
class FaultSpec:
    """A device with the faults of a rule file."""

    rules: str
    device: DeviceSpec

    def __post_init__(self) -> None:
        _check_path(self.rules)


@dataclass(frozen=True)
class NvmeCopySpec:
    """A device that copies by a model of NVMe's Copy command. A limit of None: what the back end has by default."""

    device: DeviceSpec
    mssrl: int | None = None
    mcl: int | None = None
    msrc: int | None = None
    back_end: str = "block"

    def __post_init__(self) -> None:
        if self.back_end not in NVME_BACK_ENDS:
            raise ValueError(f"back end {self.back_end!r}")
        for name, (first, last) in NVME_LIMITS.items():
            value = getattr(self, name)
            if value is not None and not first <= value <= last:
                raise ValueError(f"{name} {value}")


@dataclass(frozen=True)
class WriteCacheSpec:
    """A device with a volatile write cache."""

    device: DeviceSpec


@dataclass(frozen=True)
class ZoneRange:
    """Zones *first* to *last*, both included; to the end of the device, if None."""

    first: int
    last: int | None

    def __post_init__(self) -> None:
        if self.first < 0 or (self.last is not None and self.last < self.first):
            raise ValueError(f"zones {self.first} to {self.last}")


@dataclass(frozen=True)
class PartSpec:
    """A device, or some of its zones."""

    device: DeviceSpec
    zones: tuple[ZoneRange, ...] = ()
    """In this order; none: all zones."""


@dataclass(frozen=True)
class LinearSpec:
    """Parts end to end; at least one."""

    parts: tuple[PartSpec, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("no parts")


DeviceSpec = PathSpec | FaultSpec | NvmeCopySpec | WriteCacheSpec | LinearSpec


def _check_path(path: str) -> None:
    if not path or path.startswith(PREFIXES):
        raise ValueError(f"{path!r} is no path of a device")


def is_stack(text: str) -> bool:
    """Whether *text* is a stack's, rather than the path of a device."""
    return text.startswith(PREFIXES)


def parse_spec(text: str) -> DeviceSpec:
    """Return what *text* stands for. Raises UserError with the place of the mistake."""
    if is_stack(text):
        return _Parser(text).parse()
    if not text:
        raise UserError("an empty text is no device")
    return PathSpec(text)


class _Parser:
    """Recursive descent; ``_at`` is the place of the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def parse(self) -> DeviceSpec:
        spec = self._device()
        if self._at < len(self._text):
            raise self._error(f"{self._next!r} is not expected here; in a path it needs a backslash before it")
        return spec

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, what: str) -> UserError:
        return UserError(f"{self._text}: character {self._at + 1}: {what}")

    def _skip(self, expected: str) -> bool:
        found = self._text.startswith(expected, self._at)
        if found:
            self._at += len(expected)
        return found

    def _expect(self, expected: str, what: str) -> None:
        if not self._skip(expected):
            raise self._error(f"{expected!r} and {what} expected")

    def _device(self) -> DeviceSpec:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} devices one on the other")
        spec: DeviceSpec
        if self._skip(FAULT):
            rules = self._path("a rule file")
            self._expect(",", "a device")
            spec = FaultSpec(rules, self._device())
        elif self._skip(NVME_COPY):
            spec = self._nvme_copy()
        elif self._skip(WRITE_CACHE):
            spec = WriteCacheSpec(self._device())
        elif self._skip(LINEAR):
            parts = [self._part()]
            while self._skip("+"):
                parts.append(self._part())
            spec = LinearSpec(tuple(parts))
        elif self._next == "(":
            spec = self._grouped()
        else:
            spec = PathSpec(self._path("a device"))
        self._depth -= 1
        return spec

    def _nvme_copy(self) -> NvmeCopySpec:
        limits: dict[str, int] = {}
        back_end = None
        while match := _NVME_OPTION.match(self._text, self._at):
            name, value = match.groups()
            if name not in (*NVME_LIMITS, "back-end"):
                raise self._error(f"{name!r} is no option; known are {', '.join(NVME_LIMITS)} and back-end")
            if name in limits or (name == "back-end" and back_end is not None):
                raise self._error(f"{name} is there twice")
            if name == "back-end":
                if value not in NVME_BACK_ENDS:
                    raise self._error(f"back-end is {' or '.join(NVME_BACK_ENDS)}")
                back_end = value
            else:
                first, last = NVME_LIMITS[name]
                if not (value.isascii() and value.isdecimal() and len(value) < 19) or not first <= int(value) <= last:
                    raise self._error(f"{name} is a number, {first} to {last}")
                limits[name] = int(value)
            self._at = match.end()
        return NvmeCopySpec(self._device(), **limits, back_end=back_end or NVME_BACK_ENDS[0])

    def _grouped(self) -> DeviceSpec:
        self._expect("(", "a device")
        spec = self._device()
        self._expect(")", "nothing else")
        return spec

    def _part(self) -> PartSpec:
        if self._text.startswith(PREFIXES, self._at):
            raise self._error("a stack within linear goes into parentheses")
        device = self._grouped() if self._next == "(" else PathSpec(self._path("a device"))
        return PartSpec(device, self._zones() if self._skip("[") else ())

    def _zones(self) -> tuple[ZoneRange, ...]:
        ranges = [self._range()]
        while self._skip(","):
            ranges.append(self._range())
        if not self._skip("]"):
            raise self._error("']' expected behind the zones")
        return tuple(ranges)

    def _range(self) -> ZoneRange:
        match = _ZONES.match(self._text, self._at)
        if match is None:
            raise self._error("zones expected: a number, or a range such as 8-15")
        first = int(match[1])
        last = first if match[2] is None else None if match[3] is None else int(match[3])
        if last is not None and last < first:
            raise self._error(f"the range {match[0]} runs backwards")
        self._at = match.end()
        return ZoneRange(first, last)

    def _path(self, what: str) -> str:
        start = self._at
        found = []
        while (letter := self._next) and (letter == "\\" or letter not in SPECIAL):
            if letter == "\\":
                self._at += 1
                letter = self._next
                if not letter or letter not in SPECIAL:
                    raise self._error(f"a backslash goes before one of {' '.join(SPECIAL)}")
            found.append(letter)
            self._at += 1
        path = "".join(found)
        if not path:
            raise self._error(f"the path of {what} expected")
        if path.startswith(PREFIXES):
            self._at = start
            raise self._error(f"the path of {what} expected; put ./ before one that looks like a stack")
        return path


def format_spec(spec: DeviceSpec) -> str:
    """Return the text of *spec*; `parse_spec` reads it back to an equal tree."""
    return spec.path if isinstance(spec, PathSpec) else _format(spec)


def _format(spec: DeviceSpec) -> str:
    if isinstance(spec, PathSpec):
        return _escape(spec.path)
    if isinstance(spec, FaultSpec):
        return f"{FAULT}{_escape(spec.rules)},{_format(spec.device)}"
    if isinstance(spec, NvmeCopySpec):
        limits = [(name, getattr(spec, name)) for name in NVME_LIMITS]
        options = "".join(f"{name}={value}," for name, value in limits if value is not None)
        if spec.back_end != NVME_BACK_ENDS[0]:
            options += f"back-end={spec.back_end},"
        return f"{NVME_COPY}{options}{_format(spec.device)}"
    if isinstance(spec, WriteCacheSpec):
        return f"{WRITE_CACHE}{_format(spec.device)}"
    return LINEAR + "+".join(map(_format_part, spec.parts))


def _format_part(part: PartSpec) -> str:
    device = _format(part.device)
    if not isinstance(part.device, PathSpec):
        device = f"({device})"
    zones = ",".join(map(_format_range, part.zones))
    return f"{device}[{zones}]" if zones else device


def _format_range(zones: ZoneRange) -> str:
    if zones.last == zones.first:
        return str(zones.first)
    return f"{zones.first}-{'' if zones.last is None else zones.last}"


def _escape(path: str) -> str:
    return "".join(f"\\{letter}" if letter in SPECIAL else letter for letter in path)


def device_paths(spec: DeviceSpec) -> Iterator[str]:
    """Yield the paths of the devices at the bottom of *spec*, from left to right."""
    if isinstance(spec, PathSpec):
        yield spec.path
    elif isinstance(spec, FaultSpec | NvmeCopySpec | WriteCacheSpec):
        yield from device_paths(spec.device)
    else:
        for part in spec.parts:
            yield from device_paths(part.device)


def map_paths(spec: DeviceSpec, change: Callable[[str], str]) -> DeviceSpec:
    """Return *spec* with all paths, of devices and of rule files, changed by *change*."""
    if isinstance(spec, PathSpec):
        return PathSpec(change(spec.path))
    if isinstance(spec, FaultSpec):
        return FaultSpec(change(spec.rules), map_paths(spec.device, change))
    if isinstance(spec, NvmeCopySpec):
        return replace(spec, device=map_paths(spec.device, change))
    if isinstance(spec, WriteCacheSpec):
        return WriteCacheSpec(map_paths(spec.device, change))
    return LinearSpec(tuple(replace(part, device=map_paths(part.device, change)) for part in spec.parts))

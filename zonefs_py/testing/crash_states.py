"""Every state that a power cut can leave of a list of device calls. Pure: calls and a first image in, images out.

A drive with a volatile write cache loses what was not flushed, or keeps a part of it: of a sequential zone any whole
blocks in order, of each block of a conventional zone any version since the last flush. The call that is under way when
the power goes may have happened, not happened, or (a write) happened in part, torn between blocks. Resets and finishes
are durable when they are acknowledged; so is, where active zones are limited, the write that fills a zone. These are
the rules of `zonefs_py.device.write_cache`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from zonefs_py.errors import OptionError, UserError
from zonefs_py.testing.calls import Call, FlushCall, ManageCall, WriteCall
from zonefs_py.testing.image import EMPTY_ZONE, ConventionalImage, DeviceImage, SequentialImage, ZoneImage
from zonefs_py.zone import Geometry, ZoneOp

_STATE_ID = re.compile(r"([0-9]{1,9})\.([0-9a-f]{1,20000})", re.ASCII)


class StateId(NamedTuple):
    """Which state: that of power lost during call *call* (from 0; the number of calls: after all), and of all that it
    can leave, by number, this one. 0 keeps as little as can be, the last one as much."""

    call: int
    outcome: int

    def __str__(self) -> str:
        return f"{self.call}.{self.outcome:x}"


def parse_state_id(text: str) -> StateId:
    """Return the id that *text* is the text of. Raises OptionError."""
    match = _STATE_ID.fullmatch(text)
    if match is not None:
        return StateId(int(match[1]), int(match[2], 16))
    raise OptionError(f"{text!r} is no state: a state is written like 12.1f, as a failure is reported")


@dataclass(frozen=True)
class CrashState:
    """One state that a power cut can leave. Equal *key*: equal content, if the calls are the same."""

    id: StateId
    image: DeviceImage
    key: tuple[object, ...]
    kept: str
    """In words, what was kept of what was not flushed."""


class _SequentialOutcomes:
    """What can become of a sequential zone: each number of blocks kept; and that the management call happened."""

    def __init__(self, zone: _SequentialZone, unflushed: int, managed: tuple[SequentialImage, str] | None) -> None:
        """*unflushed* bytes are not durable. *managed*: what the call under way makes of the zone, and its name."""
        self.zone = zone
        self._nr_prefixes = unflushed // zone.block_size + 1
        self._managed = managed
        self.count = self._nr_prefixes + (managed is not None)

    def image(self, outcome: int) -> SequentialImage:
        if self._managed is not None and outcome == self._nr_prefixes:
            return self._managed[0]
        zone = self.zone
        written = zone.durable + outcome * zone.block_size
        return zone.finished or SequentialImage(zone.data, written, written)

    def key(self, outcome: int) -> tuple[int, int, int]:
        image = self.image(outcome)
        return (self.zone.nr_resets + (image is EMPTY_ZONE), image.written, image.size)

    def words(self, outcome: int) -> str:
        if self._managed is not None and outcome == self._nr_prefixes:
            return f"zone {self.zone.number}: {self._managed[1]}"
        if self._nr_prefixes == 1:
            return f"zone {self.zone.number}: not {self._managed[1]}" if self._managed else ""
        return f"zone {self.zone.number}: {outcome} of {self._nr_prefixes - 1} unflushed blocks"


class _BlockOutcomes:
    """What can become of a block of a conventional zone: its durable version, or any later one."""

    def __init__(self, zone: _ConventionalZone, at: int, versions: Sequence[_Version]) -> None:
        self.zone = zone
        self.at = at
        self._versions = versions
        self.count = len(versions) + 1

    def version(self, outcome: int) -> _Version | None:
        return self._versions[outcome - 1] if outcome else None


_Outcomes = _SequentialOutcomes | _BlockOutcomes
"""Numbered from what keeps least to what keeps most; ``count`` says how many there are."""


class _Version(NamedTuple):
    """What a block was made to hold; *call* is which call did it, to tell versions apart."""

    call: int
    data: bytes


@dataclass
class _SequentialZone:
    number: int
    block_size: int
    capacity: int
    data: bytearray
    durable: int
    """Bytes that no power cut takes away."""
    size: int
    """The write pointer that was acknowledged."""
    finished: SequentialImage | None = None
    nr_resets: int = 0

    def settle(self) -> None:
        self.durable = self.size

    @property
    def key(self) -> tuple[int, int, int]:
        """Tells contents of the zone apart: which reset it is after, what was written, where the write pointer is."""
        return (self.nr_resets, self.finished.written if self.finished else self.durable, self.durable)

    def reset(self) -> None:
        # A new array: images of states from before go on using the old one.
        self.data, self.durable, self.size, self.finished = bytearray(), 0, 0, None
        self.nr_resets += 1

    def finish(self) -> None:
        self.finished = self.finished or self.as_finished()
        self.durable = self.size = self.capacity

    def as_finished(self) -> SequentialImage:
        return SequentialImage(self.data, min(len(self.data), self.size), self.capacity)

    def image(self) -> SequentialImage:
        return self.finished or SequentialImage(self.data, self.durable, self.durable)


@dataclass
class _ConventionalZone:
    number: int
    durable: dict[int, bytes]
    durable_calls: dict[int, int] = field(default_factory=dict)
    """Which call wrote what a block durably holds; not in here: it is as it was in the beginning."""
    unflushed: dict[int, list[_Version]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[tuple[int, int], ...]:
        """Tells contents of the zone apart: which call wrote which block."""
        return tuple(sorted(self.durable_calls.items()))

    def settle(self) -> None:
        if self.unflushed:
            last = {at: versions[-1] for at, versions in self.unflushed.items()}
            # New ones: images of states from before go on using the old ones.
            self.durable = {**self.durable, **{at: version.data for at, version in last.items()}}
            self.durable_calls = {**self.durable_calls, **{at: version.call for at, version in last.items()}}
            self.unflushed = {}


_ZoneState = _SequentialZone | _ConventionalZone

_AS_IN_THE_BEGINNING: tuple[object, ...] = ((), (0, 0, 0))
"""Keys of zones that need no mention: nothing was written."""


class CrashPoint:
    """A moment at which the power can go: during call *number*, or after all. Good until the next one is asked for."""

    def __init__(
        self, number: int, outcomes: list[_Outcomes], settled: dict[int, ZoneImage], states: CrashStates
    ) -> None:
        self.number = number
        self._outcomes = outcomes
        self._settled = settled
        self._states = states
        self.count = 1
        """How many states the power cut can leave."""
        for one in outcomes:
            self.count *= one.count

    def state(self, outcome: int) -> CrashState:
        """Return the state with this number, below ``count``."""
        zones = dict(self._settled)
        keys = self._states.settled_keys()
        words: dict[int, str] = {}
        blocks: dict[int, dict[int, _Version]] = {}
        rest = outcome
        for one in self._outcomes:
            rest, mine = divmod(rest, one.count)
            number = one.zone.number
            if isinstance(one, _SequentialOutcomes):
                zones[number] = one.image(mine)
                keys[number] = one.key(mine)
                words[number] = one.words(mine)
            else:
                versions = blocks.setdefault(number, {})
                if (version := one.version(mine)) is not None:
                    versions[one.at] = version
        for number, versions in blocks.items():
            zones[number], keys[number] = self._states.with_blocks(number, versions)
            words[number] = f"zone {number}: {self._states.block_words(versions)}"
        base = self._states.base
        return CrashState(
            StateId(self.number, outcome),
            DeviceImage(base.description, base.info, zones),
            tuple(sorted((number, key) for number, key in keys.items() if key not in _AS_IN_THE_BEGINNING)),
            "; ".join(words[number] for number in sorted(words) if words[number]),
        )

    def outcomes(self, limit: int, seed: int) -> Iterator[int]:
        """Yield the numbers of all states, or of *limit* of them: what keeps least, what keeps most, others by chance.

        None twice; the same *seed* gives the same ones.
        """
        if self.count <= limit:
            yield from range(self.count)
            return
        chance = random.Random(f"{seed}.{self.number}")
        seen: set[int] = set()
        for outcome in (0, self.count - 1):
            if len(seen) < limit:
                seen.add(outcome)
                yield outcome
        # Not for ever: what is drawn may be there already.
        for _ in range(20 * limit):
            if len(seen) >= limit:
                return
            outcome = self._draw(chance)
            if outcome not in seen:
                seen.add(outcome)
                yield outcome

    def _draw(self, chance: random.Random) -> int:
        """A number by chance: each zone keeps nothing, everything or anything, so that extremes meet often."""
        modes: dict[int, int] = {}
        number, weight = 0, 1
        for one in self._outcomes:
            mode = modes.setdefault(one.zone.number, chance.randrange(4))
            mine = (0, one.count - 1)[mode] if mode < 2 else chance.randrange(one.count)
            number += mine * weight
            weight *= one.count
        return number


class CrashStates:
    """All crash points of *calls*, done to a device that holds *base*. Iterate once."""

    def __init__(self, base: DeviceImage, calls: Sequence[Call]) -> None:
        self.base = base
        self._calls = calls
        self._geometry = base.description.geometry
        self._limited = base.description.max_active_zones is not None
        self._touched: dict[int, _ZoneState] = {}
        """Zones that calls were about so far."""

    def __iter__(self) -> Iterator[CrashPoint]:
        for number, call in enumerate(self._calls):
            yield self._point(number, call)
            self._do(number, call)
        yield self._point(len(self._calls), None)

    def find(self, id: StateId) -> CrashState:
        """Return the state *id*. Raises UserError if there is none: other calls were made when it was found."""
        for point in self:
            if point.number == id.call:
                if id.outcome < point.count:
                    return point.state(id.outcome)
                break
        raise UserError(f"there is no state {id} here: the workload has made other calls this time")

    def _zone(self, number: int) -> _ZoneState:
        if number not in self._touched:
            self._touched[number] = self._load(number, self._geometry)
        return self._touched[number]

    def _load(self, number: int, geometry: Geometry) -> _ZoneState:
        image = self.base.zones.get(number)
        if geometry.is_conventional(number):
            return _ConventionalZone(number, dict(image.blocks) if isinstance(image, ConventionalImage) else {})
        image = image if isinstance(image, SequentialImage) else EMPTY_ZONE
        zone = _SequentialZone(
            number,
            geometry.block_size,
            geometry.capacity_of(number),
            bytearray(image.data[: image.written]),
            image.size,
            image.size,
        )
        if image.size > image.written:
            zone.finished = image
        return zone

    def _do(self, number: int, call: Call) -> None:
        """Take note that *call* was acknowledged."""
        if isinstance(call, FlushCall):
            for zone in self._touched.values() if call.zone is None else [self._zone(call.zone)]:
                zone.settle()
            return
        zone = self._zone(call.zone)
        if isinstance(call, ManageCall):
            assert isinstance(zone, _SequentialZone)
            if call.op is ZoneOp.RESET:
                zone.reset()
            else:
                zone.finish()
        elif isinstance(zone, _SequentialZone):
            self._start_write(zone, call)
            zone.size = len(zone.data)
            if self._limited and zone.size == zone.capacity:
                zone.settle()
        else:
            for at, version in self._versions(number, call):
                zone.unflushed.setdefault(at, []).append(version)

    def _start_write(self, zone: _SequentialZone, call: WriteCall) -> None:
        # The bytes stand behind the write pointer until it moves. Also when a state with a part of them was given away.
        if len(zone.data) == call.offset:
            zone.data += call.data

    def _versions(self, number: int, call: WriteCall) -> Iterator[tuple[int, _Version]]:
        size = self._geometry.block_size
        for at in range(0, len(call.data), size):
            yield call.offset + at, _Version(number, call.data[at : at + size])

    def _point(self, number: int, call: Call | None) -> CrashPoint:
        if isinstance(call, WriteCall | ManageCall):
            self._zone(call.zone)
        outcomes: list[_Outcomes] = []
        for zone_number in sorted(self._touched):
            zone = self._touched[zone_number]
            mine = call if isinstance(call, WriteCall | ManageCall) and call.zone == zone_number else None
            if isinstance(zone, _SequentialZone):
                outcomes += self._sequential_outcomes(zone, mine)
            else:
                outcomes += self._block_outcomes(zone, number, mine)
        return CrashPoint(number, outcomes, self._settled_images(), self)

    def _sequential_outcomes(self, zone: _SequentialZone, call: WriteCall | ManageCall | None) -> list[_Outcomes]:
        unflushed = zone.size - zone.durable
        managed: tuple[SequentialImage, str] | None = None
        if isinstance(call, WriteCall):
            self._start_write(zone, call)
            unflushed += len(call.data)
        elif isinstance(call, ManageCall):
            resets = call.op is ZoneOp.RESET
            managed = (EMPTY_ZONE, "reset") if resets else (zone.finished or zone.as_finished(), "finished")
        return [_SequentialOutcomes(zone, unflushed, managed)] if unflushed or managed else []

    def _block_outcomes(
        self, zone: _ConventionalZone, number: int, call: WriteCall | ManageCall | None
    ) -> list[_Outcomes]:
        versions = {at: list(some) for at, some in zone.unflushed.items()}
        if isinstance(call, WriteCall):
            for at, version in self._versions(number, call):
                versions.setdefault(at, []).append(version)
        return [_BlockOutcomes(zone, at, versions[at]) for at in sorted(versions)]

    def _settled_images(self) -> dict[int, ZoneImage]:
        zones = dict(self.base.zones)
        for number, zone in self._touched.items():
            zones[number] = zone.image() if isinstance(zone, _SequentialZone) else ConventionalImage(zone.durable)
        return zones

    def settled_keys(self) -> dict[int, object]:
        """What tells contents of each zone apart that calls were about, with nothing kept."""
        return {number: zone.key for number, zone in self._touched.items()}

    def with_blocks(self, number: int, versions: dict[int, _Version]) -> tuple[ConventionalImage, object]:
        """Return conventional zone *number* with *versions* of some blocks on top of what is durable; and its key."""
        zone = self._touched[number]
        assert isinstance(zone, _ConventionalZone)
        image = ConventionalImage({**zone.durable, **{at: version.data for at, version in versions.items()}})
        calls = {**zone.durable_calls, **{at: version.call for at, version in versions.items()}}
        return image, tuple(sorted(calls.items()))

    def block_words(self, versions: dict[int, _Version]) -> str:
        """Say which blocks are new."""
        size = self._geometry.block_size
        if not versions:
            return "no unflushed block"
        names = [str(at // size) for at in sorted(versions)]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"unflushed block{'s' if len(names) > 1 else ''} {', '.join(names[:8])}{more}"

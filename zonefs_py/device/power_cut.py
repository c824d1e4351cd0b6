"""What a power cut leaves of the data that was not flushed: the choice, and its text form. Chance has a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zonefs_py.errors import OptionError, UserError
from zonefs_py.units import is_aligned

SEED = "seed:"

Kept = int | frozenset[int]
"""What is kept of one zone: of a sequential zone so many of the unflushed bytes, from the first; of a conventional zone
the unflushed blocks at these offsets, in bytes from the zone's start."""


@dataclass(frozen=True)
class KeepNone:
    """Only what was flushed."""


@dataclass(frozen=True)
class KeepAll:
    """Everything that was acknowledged."""


@dataclass(frozen=True)
class KeepSeed:
    """Some of it, chosen by this seed; each legal outcome can come."""

    seed: int


@dataclass(frozen=True)
class KeepChosen:
    """Exactly this of these zones, nothing of the others."""

    zones: Mapping[int, Kept] = field(default_factory=dict)


Keep = KeepNone | KeepAll | KeepSeed | KeepChosen


class Unflushed:
    """What a cache holds of one zone: ``length`` bytes; ``blocks`` of a conventional zone, as in `Kept`."""

    __slots__ = ("blocks", "length", "number")

    def __init__(self, number: int, length: int, blocks: frozenset[int] | None = None) -> None:
        self.number = number
        self.length = length
        self.blocks = blocks


@dataclass(frozen=True)
class ZoneLoss:
    """Of one zone: how many bytes were not flushed, and how many of them are there all the same."""

    number: int
    unflushed: int
    kept: int


@dataclass(frozen=True)
class PowerCut:
    """What a power cut did to the zones that had unflushed data, in the order of their numbers."""

    zones: tuple[ZoneLoss, ...]

    @property
    def unflushed(self) -> int:
        """Bytes that were acknowledged and not flushed."""
        return sum(zone.unflushed for zone in self.zones)

    @property
    def kept(self) -> int:
        """How many of these are there all the same."""
        return sum(zone.kept for zone in self.zones)


def parse_keep(text: str) -> Keep:
    """Return what ``none``, ``all`` or ``seed:N`` stands for. Raises OptionError."""
    if text == "none":
        return KeepNone()
    if text == "all":
        return KeepAll()
    number = text.removeprefix(SEED)
    if number != text and number.isascii() and number.isdigit() and len(number) <= 18:
        return KeepSeed(int(number))
    raise OptionError(f"{text!r}: what a power cut keeps is none, all, or seed:N with a number N")


def choose(keep: Keep, unflushed: Sequence[Unflushed], block_size: int) -> dict[int, Kept]:
    """Return what is kept of each zone in *unflushed*. Raises UserError if *keep* names what is not there."""
    if isinstance(keep, KeepChosen):
        return _check_chosen(keep, unflushed, block_size)
    if isinstance(keep, KeepNone):
        return {zone.number: _none(zone) for zone in unflushed}
    if isinstance(keep, KeepAll):
        return {zone.number: zone.length if zone.blocks is None else zone.blocks for zone in unflushed}
    chance = random.Random(keep.seed)
    chosen: dict[int, Kept] = {}
    for zone in sorted(unflushed, key=lambda zone: zone.number):
        if zone.blocks is None:
            chosen[zone.number] = chance.randint(0, zone.length // block_size) * block_size
        else:
            chosen[zone.number] = frozenset(block for block in sorted(zone.blocks) if chance.random() < 0.5)
    return chosen


def _none(zone: Unflushed) -> Kept:
    return 0 if zone.blocks is None else frozenset()


def _check_chosen(keep: KeepChosen, unflushed: Sequence[Unflushed], block_size: int) -> dict[int, Kept]:
    there = {zone.number: zone for zone in unflushed}
    for number, kept in keep.zones.items():
        zone = there.get(number)
        if zone is None:
            if kept:
                raise UserError(f"zone {number} has nothing unflushed that could be kept")
        elif isinstance(kept, int) != (zone.blocks is None):
            words = "so many bytes" if zone.blocks is None else "blocks"
            raise UserError(f"zone {number}: what is kept of it is told as {words}")
        elif isinstance(kept, int):
            if not 0 <= kept <= zone.length or not is_aligned(kept, block_size):
                raise UserError(
                    f"zone {number}: {kept} bytes cannot be kept of {zone.length} in blocks of {block_size}"
                )
        elif zone.blocks is not None and not kept <= zone.blocks:
            raise UserError(f"zone {number}: the block at {min(kept - zone.blocks)} is not among the unflushed ones")
    return {zone.number: keep.zones.get(zone.number, _none(zone)) for zone in unflushed}

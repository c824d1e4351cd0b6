"""The goals, and how far each is met. Pure: reads a result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.benchmarks.common import KIB, MIB
from tools.benchmarks.summary import Spread, ratio, spread


@dataclass(frozen=True)
class Outcome:
    """One goal: what was measured, what it must be, and whether it is."""

    what: str
    value: Spread
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the median reaches the goal."""
        if self.at_least is not None:
            return self.value.median >= self.at_least
        assert self.at_most is not None
        return self.value.median <= self.at_most


@dataclass(frozen=True)
class IoGoal:
    """At one synchronous job, *ours* must do *at_least* times as much as *other*; both are kinds of targets."""

    operation: str
    block: int
    ours: str
    other: str
    at_least: float


IO_GOALS = (
    IoGoal("randread", 4 * KIB, "passthrough", "raw", 0.9),
    IoGoal("randread", 4 * KIB, "ours", "files", 0.75),
    IoGoal("read", MIB, "passthrough", "raw", 0.9),
    IoGoal("read", MIB, "ours", "files", 1.0),
    IoGoal("write", MIB, "ours", "files", 1.0),
    IoGoal("write", 4 * KIB, "ours", "files", 0.9),
)
SCALE_GOALS = {"mount": 2.0, "ls -l": 3.0}
"""Seconds that steps may take with SCALE_ZONES zones."""
SCALE_ZONES = 100_000
SMALLEST_COPY = 256 * MIB
"""The goals of copies are for zones of this size and larger."""
RESIDENT_GOAL = 150 * MIB


def rates(cell: dict[str, Any], name: str) -> list[float]:
    """Operations a second of all runs of a target in a cell."""
    return [run["operations_per_second"] for run in cell["runs"][name]]


def outcomes(result: dict[str, Any]) -> list[Outcome]:
    """All goals that this result can tell about."""
    found: list[Outcome] = []
    if "io" in result:
        found += _io_outcomes(result["io"])
    if "copy" in result:
        found += _copy_outcomes(result["copy"])
    if "scale" in result:
        found += _scale_outcomes(result["scale"])
    return found


def _io_outcomes(io: dict[str, Any]) -> Iterator[Outcome]:
    from tools.benchmarks.fio import OPERATIONS

    for goal in IO_GOALS:
        ours = [target for target in io["targets"] if target["kind"] == goal.ours]
        others = [target for target in io["targets"] if target["kind"] == goal.other]
        wanted = (goal.operation, goal.block, 1, "sync")
        for cell in io["cells"]:
            if (cell["operation"], cell["block"], cell["jobs"], cell["engine"]) != wanted:
                continue
            block = f"{goal.block // KIB} KiB" if goal.block < MIB else f"{goal.block // MIB} MiB"
            for mine in ours:
                for other in others:
                    what = f"{OPERATIONS[goal.operation]}, {block}: {mine['label']} / {other['label']}"
                    value = ratio(rates(cell, mine["name"]), rates(cell, other["name"]))
                    yield Outcome(what, value, "times", at_least=goal.at_least)


def _copy_outcomes(copy: dict[str, Any]) -> Iterator[Outcome]:
    smallest: dict[str, Sequence[float]] = {}
    for row in copy["rows"]:
        if row["size"] < SMALLEST_COPY:
            continue
        seconds, where = row["seconds"], f"copy of {row['size'] // MIB} MiB, {row['place']}"
        if row["reflinks"]:
            yield Outcome(f"{where}: read+write / reflink", _times(seconds, "read+write", "reflink"), "times", 1000)
            before = smallest.setdefault(row["place"], seconds["reflink"])
            if before is not seconds["reflink"]:
                value = _of_medians(seconds["reflink"], before)
                yield Outcome(f"{where}: reflink / reflink of the smaller zone", value, "times", at_most=1.5)
        elif "host" in seconds:
            yield Outcome(f"{where}: host's own copy / host", _times(seconds, "host copy", "host"), "times", 0.9)
            yield Outcome(f"{where}: read+write / host", _times(seconds, "read+write", "host"), "times", 2)


def _times(seconds: dict[str, list[float]], slow: str, fast: str) -> Spread:
    if len(seconds[slow]) == len(seconds[fast]):
        return ratio(seconds[slow], seconds[fast])
    return _of_medians(seconds[slow], seconds[fast])


def _of_medians(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """The ratio of ways that were measured a different number of times; the spread is the widest that can be."""
    a, b = spread(slow), spread(fast)
    return Spread(a.median / b.median, a.low / b.high, a.high / b.low)


def _scale_outcomes(scale: dict[str, Any]) -> Iterator[Outcome]:
    for row in scale["rows"]:
        if row["zones"] != SCALE_ZONES:
            continue
        for step, seconds in SCALE_GOALS.items():
            value = spread([run["seconds"][step] for run in row["runs"]])
            yield Outcome(f"{step} of {SCALE_ZONES:,} zones", value, "s", at_most=seconds)
        value = spread([run["memory_bytes"]["after ls -l"] / MIB for run in row["runs"]])
        yield Outcome(f"memory with {SCALE_ZONES:,} zones", value, "MiB", at_most=RESIDENT_GOAL / MIB)

"""The goals, and how far each is met. Pure: reads a result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.benchmarks.common import KIB, MIB
from tools.benchmarks.copies import ENGINES
from tools.benchmarks.fio import OPERATIONS
from tools.benchmarks.summary import Spread, ratio, spread


@dataclass(frozen=True)
class Measure:
    """A median: whose, how much, and of what: requests of *block* bytes a second (``/s``), seconds (``s``), ``MiB``."""

    label: str
    value: float
    unit: str
    block: int = 0


@dataclass(frozen=True)
class Outcome:
    """One goal: what was measured, what it must be, and whether it is. *value* None: it was not measured.

    *ours* and *other* are what *value* is a ratio of, unless it is ours itself.
    """

    what: str
    value: Spread | None
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    ours: Measure | None = None
    other: Measure | None = None

    @property
    def met(self) -> bool:
        """Whether the median was measured and reaches the goal."""
        if self.value is None:
            return False
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
KINDS = {"passthrough": "zonefs-py, passthrough", "ours": "zonefs-py", "raw": "raw file", "files": "passthrough_hp"}
"""What targets are called that were not measured."""


@dataclass(frozen=True)
class CopyGoal:
    """The way *slow* must take *at_least*, or *at_most*, so many times as long as *fast*; keys of ``copies.WAYS``."""

    name: str
    slow: str
    fast: str
    with_reflinks: bool
    at_least: float | None = None
    at_most: float | None = None


SMALLER = "reflink of the smaller zone"
COPY_GOALS = (
    CopyGoal("read+write / reflink", "read+write", "reflink", with_reflinks=True, at_least=1000),
    CopyGoal("reflink / reflink of the smaller zone", "reflink", SMALLER, with_reflinks=True, at_most=1.5),
    CopyGoal("host's own copy / host", "host copy", "host", with_reflinks=False, at_least=0.9),
    CopyGoal("read+write / host", "read+write", "host", with_reflinks=False, at_least=2),
)
COPY_NAMES = {
    "reflink": "copy=reflink",
    "host": "copy=host",
    "read+write": "dd through the mount",
    "host copy": "the host's copy_file_range",
    SMALLER: SMALLER,
}
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
    """All goals, in one order; those that this result tells nothing about too."""
    return [
        *_io_outcomes(result.get("io")),
        *_copy_outcomes(result.get("copy")),
        *_scale_outcomes(result.get("scale")),
    ]


def _io_outcomes(io: dict[str, Any] | None) -> Iterator[Outcome]:
    for goal in IO_GOALS:
        block = f"{goal.block // KIB} KiB" if goal.block < MIB else f"{goal.block // MIB} MiB"
        work = f"{OPERATIONS[goal.operation]}, {block}"
        found = list(_io_measured(goal, work, io)) if io else []
        yield from found or [Outcome(f"{work}: {KINDS[goal.ours]} / {KINDS[goal.other]}", None, "times", goal.at_least)]


def _io_measured(goal: IoGoal, work: str, io: dict[str, Any]) -> Iterator[Outcome]:
    ours = [target for target in io["targets"] if target["kind"] == goal.ours]
    others = [target for target in io["targets"] if target["kind"] == goal.other]
    wanted = (goal.operation, goal.block, 1, "sync")
    for cell in io["cells"]:
        if (cell["operation"], cell["block"], cell["jobs"], cell["engine"]) != wanted:
            continue
        for mine in ours:
            for other in others:
                both = [rates(cell, target["name"]) for target in (mine, other)]
                medians = [
                    Measure(target["label"], spread(values).median, "/s", goal.block)
                    for target, values in zip((mine, other), both, strict=True)
                ]
                what = f"{work}: {mine['label']} / {other['label']}"
                yield Outcome(what, ratio(*both), "times", at_least=goal.at_least, ours=medians[0], other=medians[1])


def _copy_outcomes(copy: dict[str, Any] | None) -> Iterator[Outcome]:
    smallest: dict[str, list[float]] = {}
    found: dict[CopyGoal, list[Outcome]] = {goal: [] for goal in COPY_GOALS}
    for row in copy["rows"] if copy else ():
        if row["size"] < SMALLEST_COPY:
            continue
        seconds: dict[str, list[float]] = row["seconds"]
        before = smallest.setdefault(row["place"], seconds.get("reflink", []))
        all_ways = {**seconds, SMALLER: before if before is not seconds.get("reflink") else []}
        for goal in COPY_GOALS:
            if goal.with_reflinks is row["reflinks"] and all_ways.get(goal.slow) and all_ways.get(goal.fast):
                found[goal].append(_copy_outcome(goal, row, all_ways))
    for goal, outcomes_of_goal in found.items():
        yield from outcomes_of_goal or [Outcome(f"copy: {goal.name}", None, "times", goal.at_least, goal.at_most)]


def _copy_outcome(goal: CopyGoal, row: dict[str, Any], seconds: dict[str, list[float]]) -> Outcome:
    ours, other = (
        Measure(COPY_NAMES[way], spread(seconds[way]).median, "s")
        for way in ((goal.fast, goal.slow) if goal.fast in ENGINES else (goal.slow, goal.fast))
    )
    what = f"copy of {row['size'] // MIB} MiB, {row['place']}: {goal.name}"
    value = ratio(*_run_by_run(seconds[goal.slow], seconds[goal.fast]))
    return Outcome(what, value, "times", goal.at_least, goal.at_most, ours=ours, other=other)


def _run_by_run(slow: Sequence[float], fast: Sequence[float]) -> tuple[list[float], list[float]]:
    """The medians of each run: what takes no time is measured several times in a run."""
    runs = min(len(slow), len(fast))

    def medians(times: Sequence[float]) -> list[float]:
        each = len(times) // runs
        return [spread(times[first : first + each]).median for first in range(0, runs * each, each)]

    return medians(slow), medians(fast)


def _scale_outcomes(scale: dict[str, Any] | None) -> Iterator[Outcome]:
    runs = next((row["runs"] for row in scale["rows"] if row["zones"] == SCALE_ZONES), None) if scale else None
    for step, seconds in SCALE_GOALS.items():
        value = spread([run["seconds"][step] for run in runs]) if runs else None
        yield Outcome(f"{step} of {SCALE_ZONES:,} zones", value, "s", at_most=seconds)
    for name in ("after ls -l", "highest"):
        value = spread([run["memory_bytes"][name] / MIB for run in runs]) if runs else None
        what = f"memory with {SCALE_ZONES:,} zones, {name}"
        yield Outcome(what, value, "MiB", at_most=RESIDENT_GOAL / MIB)

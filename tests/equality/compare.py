"""Holds our answers against the kernel's, line by line. What differs must be explained by `differences`."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.equality.differences import DIFFERENCES, Difference, Row

Line = dict[str, Any]


@dataclass
class Recording:
    """What a run of the probe wrote: whose answers, and the lines of each case."""

    subject: str
    version: str
    cases: dict[str, list[Line]]

    @property
    def calls(self) -> int:
        """How many lines there are."""
        return sum(map(len, self.cases.values()))

    def lines(self) -> Iterator[str]:
        """What the probe writes, and `read_lines` reads."""
        yield _encoded({"subject": self.subject, "version": self.version})
        for name, lines in self.cases.items():
            yield _encoded({"case": name})
            yield from map(_encoded, lines)

    def only(self, names: Iterable[str]) -> Recording:
        """The part with these cases, as far as they were recorded."""
        wanted = set(names)
        cases = {name: lines for name, lines in self.cases.items() if name in wanted}
        return Recording(self.subject, self.version, cases)


def _encoded(line: Line) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"


def read_lines(lines: Iterable[str]) -> Recording:
    """Read what the probe wrote."""
    decoded = map(json.loads, lines)
    head = next(decoded)
    recording = Recording(head["subject"], head["version"], {})
    for line in decoded:
        if "case" in line:
            current: list[Line] = []
            recording.cases[line["case"]] = current
        else:
            current.append(line)
    return recording


def read_recording(path: Path) -> Recording:
    """Read a file of the probe's; compressed if its name ends in .xz."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return read_lines(stream)


@dataclass
class CaseResult:
    """One case: how many answers were equal, how many differ for which known reason, and what nobody has explained.

    ``first`` is the index of the first line that is not explained, with its row, if both were asked the same.
    """

    name: str
    equal: int = 0
    known: dict[str, int] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    first: tuple[int, Row | None] | None = None


@dataclass
class Comparison:
    """All cases."""

    kernel: str
    ours: str
    cases: list[CaseResult]

    @property
    def unexplained(self) -> list[str]:
        """One line for each difference that no entry of the table explains."""
        return [f"{case.name}: {line}" for case in self.cases for line in case.unexplained]

    @property
    def known(self) -> dict[str, int]:
        """How often each known difference was met."""
        counts = {difference.name: 0 for difference in DIFFERENCES}
        for case in self.cases:
            for name, count in case.known.items():
                counts[name] += count
        return counts

    @property
    def unused(self) -> list[str]:
        """Known differences that an emulated device did not meet: they are gone, or nothing shows them."""
        known = self.known
        return [one.name for one in DIFFERENCES if not known[one.name] and not one.only_on_block_devices]

    @property
    def unused_on_block_device(self) -> list[str]:
        """Known differences of block devices only that one did not meet, though their cases are among these."""
        known = self.known
        return [
            one.name
            for one in DIFFERENCES
            if one.only_on_block_devices and not known[one.name] and any(one.concerns(case.name) for case in self.cases)
        ]

    @property
    def equal(self) -> int:
        """How many answers were equal."""
        return sum(case.equal for case in self.cases)


def compare(kernel: Recording, ours: Recording) -> Comparison:
    """Compare all cases of *kernel* with those of *ours*."""
    results = [compare_case(name, lines, ours.cases.get(name, [])) for name, lines in kernel.cases.items()]
    results += [CaseResult(name, unexplained=["not recorded"]) for name in ours.cases if name not in kernel.cases]
    return Comparison(kernel.version, ours.version, results)


def compare_case(name: str, kernel: list[Line], ours: list[Line]) -> CaseResult:
    """Compare the lines of one case."""
    result = CaseResult(name)
    met: set[Difference] = set()
    sizes: dict[str, int] = {}
    for number, (theirs, mine) in enumerate(zip(kernel, ours, strict=False), start=1):
        if _question(theirs) != _question(mine):
            # From here on other calls were made: comparing on would only show the consequences.
            result.first = result.first or (number - 1, None)
            result.unexplained.append(f"line {number}: the kernel was asked {theirs}, we were asked {mine}")
            return result
        first_size = sizes.get(mine["args"][0]) if mine["args"] and isinstance(mine["args"][0], str) else None
        sizes |= _size_seen(mine)
        if theirs == mine:
            result.equal += 1
            continue
        states = theirs.get("state"), mine.get("state")
        row = Row(name, theirs["call"], theirs["args"], _answer(theirs), _answer(mine), *states, first_size)
        difference = _explanation(row, met)
        if difference is None:
            result.first = result.first or (number - 1, row)
            result.unexplained.append(f"line {number}: {row}")
        else:
            met.add(difference)
            result.known[difference.name] = result.known.get(difference.name, 0) + 1
    if len(kernel) != len(ours):
        result.first = result.first or (min(len(kernel), len(ours)), None)
        result.unexplained.append(f"{len(kernel)} lines of the kernel's, {len(ours)} of ours")
    return result


def _explanation(row: Row, met: set[Difference]) -> Difference | None:
    for difference in _concerned(row):
        if difference.explains(row):
            return difference
    # A call that went another way leaves another state: only where a case is about nothing else.
    return next((difference for difference in met if difference.leads_to(row)), None)


def _concerned(row: Row) -> Iterator[Difference]:
    return (difference for difference in DIFFERENCES if difference.concerns(row.case))


def _question(line: Line) -> tuple[Any, Any]:
    return line["call"], line["args"]


def _size_seen(line: Line) -> dict[str, int]:
    """The size that *line* tells of a file, if it does."""
    args = line["args"]
    state = line.get("ret") if line["call"] == "state" else line.get("state")
    if not isinstance(state, list) or len(state) < 2:
        return {}
    names = [word for word in args if isinstance(word, str)]
    if line["call"] in ("copy_file_range", "sendfile", "copy-on", "splice"):
        # The state is the target's, which is named after the source, if at all.
        del names[:1]
    return {names[0]: state[0]} if names else {}


def _answer(line: Line) -> Any:
    """The name of an errno, or what was returned."""
    return line["err"] if "err" in line else line["ret"]

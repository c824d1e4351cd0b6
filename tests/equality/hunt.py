"""Looks for answers that differ from the kernel's where no recorded case looks: random calls from seeds that are new.

`tools/equality --hunt` does it. Each round makes the same steps on the kernel's zonefs, in the machine, and on ours: on
an emulated device here, or on null_blk in the machine. Nothing is stored: what is found is printed, made as short as is
easy, to become a named case.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.afterwards import unmounted_afterwards
from tests.equality.compare import Line, compare_case
from tests.equality.play import POLL_SECONDS, SECONDS, Players, put, take
from tests.equality.random_calls import Random
from tests.equality.shrink import shrink
from tests.equality.wide_calls import SCENES, Step, draw

ROOT = Path(__file__).resolve().parents[2]
STEPS = 300
MINUTES = 10
_TRIES = 80
_TRIES_SECONDS = 90
"""How often, and about how long, shorter lists of steps are tried for each kind of difference."""

Both = Callable[[str, list[Step]], tuple[list[Line], list[Line]]]
"""Makes steps on a scene with the kernel's zonefs and with ours; the lines of each."""


class HuntError(Exception):
    """The machine, or what makes the calls, has ended or hangs."""


@dataclass(frozen=True)
class Finding:
    """The first difference of a run that is not explained.

    Two are of one ``kind`` if the call is the same, and the answers are, as far as they are errors.
    """

    kind: tuple[str, str, str]
    text: str
    step: int
    """Index of the step that made the call."""


def first_difference(scene: str, kernel: list[Line], ours: list[Line]) -> tuple[int, dict[str, int], Finding | None]:
    """How many answers are equal, how many differ for which known reason, and the first that is not explained.

    Lines of `play`: with ``step``.
    """
    result = compare_case(f"hunt/{scene}", kernel, ours)
    if result.first is None:
        return result.equal, result.known, None
    index, row = result.first
    text = result.unexplained[0].partition(": ")[2] or result.unexplained[0]
    lines = kernel if index < len(kernel) else ours
    if row is None:
        # One of them made other calls than the other: what matters is which.
        theirs, mine = (str(some[index]["call"]) if index < len(some) else "nothing" for some in (kernel, ours))
        kind = ("asked", theirs, mine)
    else:
        theirs, mine = (answer if isinstance(answer, str) else "" for answer in (row.kernel, row.ours))
        kind = (row.call, theirs, mine)
    return result.equal, result.known, Finding(kind, text, lines[index]["step"])


@dataclass
class Tally:
    """What all rounds together gave."""

    rounds: int = 0
    equal: int = 0
    known: dict[str, int] = field(default_factory=dict)
    found: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def take(self, equal: int, known: dict[str, int], finding: Finding | None) -> bool:
        """Add a round; whether it found something of a new kind."""
        self.rounds += 1
        self.equal += equal
        for name, count in known.items():
            self.known[name] = self.known.get(name, 0) + count
        if finding is None:
            return False
        self.found[finding.kind] = self.found.get(finding.kind, 0) + 1
        return self.found[finding.kind] == 1

    def __str__(self) -> str:
        known = sum(self.known.values())
        words = f"{self.rounds} rounds, {self.equal} answers equal, {known} known differences"
        kinds = [
            f"{count} x {call}: the kernel {theirs or 'other'}, we {mine or 'other'}"
            for (call, theirs, mine), count in self.found.items()
        ]
        return "\n".join([words, *(f"not explained: {kind}" for kind in kinds)])


@contextmanager
def both_sides(directory: Path, minutes: float) -> Iterator[Both]:
    """A machine, and processes here, that make steps; with files and mounts in *directory*, none of which is left.

    What is yielded raises HuntError.
    """
    share = directory / "share"
    share.mkdir()
    # The last round may begin at the end, and be made shorter.
    seconds = int(60 * minutes) + 2 * SECONDS
    command = [
        str(ROOT / "tools/vm"),
        "run",
        "--memory",
        "3072",
        "--share",
        str(share),
        "--timeout",
        str(seconds),
        "--",
    ]
    inside = [sys.executable, "-m", "tests.equality.play", str(share)]
    machine = subprocess.Popen([*command, *inside], cwd=ROOT, stdin=subprocess.DEVNULL)

    def ask(kinds: list[str], scene: str, steps: list[Step]) -> None:
        put(share / "ask", [kinds, scene, steps])

    def answer() -> list[list[Line]]:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and machine.poll() is None:
            try:
                lines: list[list[Line]] = take(share / "answer")
            except FileNotFoundError:
                time.sleep(POLL_SECONDS)
            else:
                return lines
        raise HuntError("the machine has ended, or does not answer")

    def both(scene: str, steps: list[Step]) -> tuple[list[Line], list[Line]]:
        if SCENES[scene].block_device:
            ask(["kernel", "ours-on-null_blk"], scene, steps)
            kernel, ours = answer()
            return kernel, ours
        ask(["kernel"], scene, steps)
        try:
            (ours,) = here.play(["ours"], scene, steps)
        except TimeoutError as exc:
            raise HuntError("a list of steps hangs on our mount") from exc
        (kernel,) = answer()
        return kernel, ours

    here = Players(str(directory), ["ours"])
    try:
        with unmounted_afterwards(directory):
            yield both
    finally:
        here.close()
        (share / "stop").touch()
        machine.wait()


def shortest(both: Both, name: str, finding: Finding, steps: list[Step]) -> list[Step]:
    """The steps that lead to *finding*, or another of its kind."""

    def shows(some: list[Step]) -> bool:
        _, _, found = first_difference(name, *both(name, some))
        return found is not None and found.kind == finding.kind

    # Steps that called nothing need no trial.
    begin = time.monotonic()
    kernel, _ = both(name, steps[: finding.step + 1])
    tries = min(_TRIES, 4 + int(_TRIES_SECONDS / max(0.1, time.monotonic() - begin)))
    called = {line["step"] for line in kernel if line["call"] != "user"}
    return shrink([step for number, step in enumerate(steps) if number in called], shows, tries)


def story(kernel: list[Line], ours: list[Line]) -> list[str]:
    """What was called and answered, side by side where the answers differ."""

    def answer(line: Line) -> str:
        words = [line["err"] if "err" in line else json.dumps(line.get("ret"))]
        words += [json.dumps(line["state"])] if "state" in line else []
        return " ".join(words)

    told = []
    for theirs, mine in zip(kernel, ours, strict=False):
        same = answer(theirs) == answer(mine)
        told.append(
            f"{theirs['call']} {json.dumps(theirs['args'])}: {answer(theirs)}" + ("" if same else f" | {answer(mine)}")
        )
    return told


def hunt(both: Both, seed: int, steps: int, minutes: float, scenes: list[str]) -> Tally:
    """Make rounds from *seed* on for *minutes*, at least one, or until they are interrupted; print what is found."""
    tally = Tally()
    until = time.monotonic() + 60 * minutes
    with suppress(KeyboardInterrupt):
        while tally.rounds == 0 or time.monotonic() < until:
            _round(both, seed, steps, Random(seed).choose(tuple(scenes)), tally)
            seed += 1
    return tally


def _round(both: Both, seed: int, steps: int, scene: str, tally: Tally) -> None:
    drawn = draw(seed, SCENES[scene], steps)
    result = first_difference(scene, *both(scene, drawn))
    finding = result[2]
    new = tally.take(*result)
    if finding is None:
        return
    where = f"seed {seed} ({scene}), step {finding.step + 1}"
    print(f"{where}: {finding.text}" if new else f"{where}: again {finding.kind}", flush=True)
    if new:
        short = shortest(both, scene, finding, drawn)
        print(f"  {len(short)} steps are enough; {SCENES[scene]}:")
        for line in story(*both(scene, short)):
            print(f"    {line}", flush=True)

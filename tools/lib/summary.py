"""Count what tools/test ran: a table of the environments, why tests were skipped, and one last line.

Reads a directory of results: ``environments`` (name, exit status, seconds; tab-separated), and for each
environment what it left there: ``NAME.xml`` (pytest), or ``NAME.count`` (one line: passed failed skipped, then
lines ``skip: REASON`` and ``fail: NAME``), or what tests/zonefs-tests.sh prints in ``NAME.log``. An environment that
left none of these counts as one test.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TOTALS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
SCRIPT = re.compile(r"(\w+ +\d{4}): .* (skipped|FAILED) +[\d.]+ s(?: \((.*)\))?")


@dataclass
class Count:
    """The outcome of one environment."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    skips: Counter[str] = field(default_factory=Counter)


def count_junit(path: Path) -> Count:
    """Count a junit file of pytest. An error outside a test (set-up, collection) is a failure."""
    count = Count()
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        if case.find("failure") is not None or case.find("error") is not None:
            count.failed += 1
            count.failures.append(name)
        elif (skipped := case.find("skipped")) is not None:
            count.skipped += 1
            count.skips[skipped.get("message") or "no reason given"] += 1
        else:
            count.passed += 1
    return count


def count_lines(path: Path) -> Count:
    """Count a ``.count`` file."""
    first, *rest = path.read_text().splitlines()
    passed, failed, skipped = map(int, first.split())
    count = Count(passed, failed, skipped)
    for line in rest:
        kind, _, text = line.partition(": ")
        if kind == "skip":
            count.skips[text] += 1
        elif kind == "fail":
            count.failures.append(text)
    return count


def count_scripts(path: Path) -> Count | None:
    """Count what the shell suite printed; None if *path* is the log of something else."""
    lines = path.read_text(errors="replace").splitlines()
    totals = [match for match in map(TOTALS.fullmatch, lines) if match]
    if not totals:
        return None
    count = Count(int(totals[-1][1]), int(totals[-1][2]), int(totals[-1][3]))
    for match in filter(None, map(SCRIPT.fullmatch, lines)):
        if match[2] == "FAILED":
            count.failures.append(f"{match[1]}: {match[3] or 'see its log'}")
        else:
            count.skips[match[3] or "no reason given"] += 1
    return count


def count_environment(results: Path, name: str, status: int) -> Count:
    """Count one environment; one that failed has at least one failure, whatever it left."""
    if (path := results / f"{name}.xml").exists():
        count = count_junit(path)
    elif (path := results / f"{name}.count").exists():
        count = count_lines(path)
    else:
        count = count_scripts(results / f"{name}.log") or Count(passed=int(status == 0))
    if status and not count.failed:
        count.failed = 1
        count.failures.append(f"{name} (exit status {status}; see {results / name}.log)")
    return count


def main(results: Path) -> int:
    """Print the summary of *results*; return the exit status."""
    total = Count()
    seconds_total = 0.0
    print(f"\n{'environment':<14}{'seconds':>9}{'passed':>9}{'failed':>9}{'skipped':>9}")
    for line in (results / "environments").read_text().splitlines():
        name, status, seconds = line.split("\t")
        seconds_total += float(seconds)
        if name == "setup":
            print(f"{name:<14}{float(seconds):>9.1f}")
            continue
        count = count_environment(results, name, int(status))
        print(f"{name:<14}{float(seconds):>9.1f}{count.passed:>9}{count.failed:>9}{count.skipped:>9}")
        total.passed += count.passed
        total.failed += count.failed
        total.skipped += count.skipped
        total.failures += [f"{name}: {failure}" for failure in count.failures]
        for reason, times in count.skips.items():
            total.skips[f"{name}: {reason}"] += times
    print(f"{'together':<14}{seconds_total:>9.1f}\n")
    for reason, times in sorted(total.skips.items()):
        print(f"skipped {times}: {reason}")
    for failure in total.failures:
        print(f"failed: {failure}")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

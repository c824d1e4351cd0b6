"""Runs the probe, here or in the machine with the kernel's zonefs, and writes docs/equality.md."""

from __future__ import annotations

import fnmatch
import lzma
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.afterwards import unmounted_afterwards
from tests.equality.cases import GROUPS, LIVE_GROUPS
from tests.equality.compare import CaseResult, Comparison, Line, Recording, compare, read_recording
from tests.equality.differences import DIFFERENCES, NOT_COMPARED
from tests.equality.random_calls import LIVE_SEQUENCES, SEQUENCES

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests/equality/recorded/kernel.jsonl.xz"
"""What the kernel answered."""
DOCUMENT = ROOT / "docs/equality.md"
RECORD_COMMAND = "tools/equality --record"
HUNT_COMMAND = "tools/equality --hunt"
DOCUMENT_COMMAND = "tools/equality --document"

ON_NULL_BLK = {
    "sectors": ["sectors/*"],
    "errors": ["errors-*"],
    "flaky": ["flaky-*"],
    "limits": ["explicit-open/*", "limits-*"],
    "mounts": ["mounts/*"],
    "random": ["random/limits", "random/repair"],
}
"""Patterns of the cases that always run on our mount of a null_blk too: what depends on the device."""

ALL_ON_NULL_BLK = {
    **{name: [f"{name}/*"] for name in GROUPS},
    **{f"random {name}": [f"random/{name}"] for name in SEQUENCES},
}
"""Patterns of all of them; that takes two to three times as long."""

LIVE = {
    "scsi_debug": [
        "scsi-repair/*_fails_medium",
        "scsi-repair/*_fail",
        "scsi-*/write_fails_hardware",
        "scsi-explicit-open/*_fails",
        "scsi-closing/*",
        "random/scsi-sectors",
    ],
    "zns": ["zns-explicit-open/*", "zns-limits-repair/*", "zns-repair/external_write_rdwr_direct", "random/zns"],
}
"""By the kind of device, patterns of the cases that always run on the kernel's zonefs and on ours there."""

ALL_LIVE = {"scsi_debug": ["*"], "zns": ["*"]}
"""Patterns of all of them."""

_SECONDS = 900
_SECONDS_IN_MACHINE = 3600


class OtherKernelError(Exception):
    """Answers of two kernels cannot be one recording."""


def matching(recording: Recording, patterns: Iterable[str]) -> Recording:
    """The part of *recording* whose cases have names that match."""
    names = [name for name in recording.cases if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    return recording.only(names)


def probe_command(subject: str, out: Path, *options: str) -> list[str]:
    """The command that runs the probe on *subject*; to be run in the root of the project, by root."""
    return [sys.executable, "-m", "tests.equality.probe", subject, "--out", str(out), *options]


def record_ours(directory: Path, subject: str = "ours") -> Recording:
    """Run the probe on *subject*, zonefs-py on an emulated device, in *directory*; no mount is left there.

    Raises CalledProcessError.
    """
    out = directory / "ours.jsonl"
    command = probe_command(subject, out, "--directory", str(directory))
    with unmounted_afterwards(directory):
        subprocess.run(command, cwd=ROOT, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    return read_recording(out)


def record_kernel(directory: Path, only: Iterable[str] = ()) -> None:
    """Run the probe on the kernel's zonefs in the machine, with results in *directory*; keep them as `RECORDED`.

    With *only*, names of groups, those of the other groups stay as they are recorded. (Single cases will not do: they
    may leave broken zones to the next ones of their group.) Raises CalledProcessError, and OtherKernelError if what is
    recorded is of another kernel.
    """
    out = directory / "kernel.jsonl"
    options = [word for group in only for word in ("--only", f"{group}/*")]
    machine = [str(ROOT / "tools/vm"), "run", "--share", str(directory), "--timeout", str(_SECONDS_IN_MACHINE), "--"]
    command = [*machine, *probe_command("kernel", out, *options)]
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    recording = read_recording(out)
    if options:
        recording = _in_order(recording.cases | _without(read_recording(RECORDED), recording), recording)
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_bytes(lzma.compress("".join(recording.lines()).encode(), preset=9 | lzma.PRESET_EXTREME))


def _without(old: Recording, new: Recording) -> dict[str, list[Line]]:
    """The cases of *old* that are not in *new*. Raises OtherKernelError."""
    if old.version != new.version:
        raise OtherKernelError(f"what is recorded are answers of {old.version}, these are of {new.version}: record all")
    return {name: lines for name, lines in old.cases.items() if name not in new.cases}


def _in_order(cases: dict[str, list[Line]], of: Recording) -> Recording:
    """Those of *cases* that there still are, in the order in which the probe runs them."""
    names = [f"{name}/{case.__name__}" for name, group in GROUPS.items() for case in group.cases]
    names += [f"random/{name}" for name in SEQUENCES]
    return Recording(of.subject, of.version, {name: cases[name] for name in names if name in cases})


def compare_with_recorded(ours: Recording) -> Comparison:
    """Hold *ours* against what the kernel answered."""
    return compare(read_recording(RECORDED), ours)


_HEAD = """\
# Equality with the kernel

Written by `{document_command}`; what it was made of is checked by every run of the tests.

One probe program runs named cases and random calls (from fixed seeds) on a mounted file system, and writes down what
every call gives: result or errno, size, mode, blocks and owner of the file, digests of what was read, conditions and
write pointers of the zones. The kernel's answers were recorded on {kernel}, with devices of null_blk, in a
virtual machine; `{record_command}` records them afresh. In the cases called flaky, device mapper's flakey lies between
the file system and null_blk; it makes all writes and flushes fail, or drops them.

Every run of the tests makes the same calls on a mount of an emulated device, and holds the answers against the recorded
ones. On a mount of null_blk, in the virtual machine, `tools/test --vm` does so with the cases that depend on the
device, which give {on_null_blk} of these answers, and `tools/test --long vm` with all.

Of other devices nothing is recorded: there `tools/test --vm` asks both, the kernel's zonefs first, then ours, on the
same device in the same machine ([below](#scsi-and-zns)).

What no recorded call shows, `{hunt_command}` looks for: it makes random calls of more kinds, from seeds that are new,
on the kernel's file system in the virtual machine and on ours (on an emulated device, or on null_blk in the machine).
It prints the first answer of each round that differs and is not explained, with a list of calls that leads to it, made
as short as is easy. Nothing is stored: what it finds becomes a named case. `--seed`, `--steps` and `--scene` repeat a
round.

What differs must be an entry of [differences.md](differences.md); each of these is a pattern in
`tests/equality/differences.py`, and one that is not met any more is an error, as is an answer that none explains.

| answers | |
|---|---|
| compared | {total} |
| equal | {equal} |
| different for a known reason | {known} |
| different and not explained | {unexplained} |
"""

_LIVE = """\
On a scsi_debug, a SCSI disk whose commands can be made to fail, each way with an errno of its own, and on a ZNS
namespace of QEMU's, with a zone capacity below the zone size and limits of open and active zones. The answers of both
are compared while the tests run, and not kept: `tests/vm/test_equality.py` fails if one is different and not explained.
`tools/test --vm` makes a part of these calls, `tools/test --long vm` all. A group that is named after an `errors=`
policy is mounted with it, those of explicit-open and closing with `explicit-open`.
"""


def document(comparison: Comparison) -> str:
    """The text of docs/equality.md."""
    known = sum(comparison.known.values())
    unexplained = len(comparison.unexplained)
    total = comparison.equal + known + unexplained
    head = _HEAD.format(
        document_command=DOCUMENT_COMMAND,
        record_command=RECORD_COMMAND,
        hunt_command=HUNT_COMMAND,
        kernel=comparison.kernel,
        total=total,
        equal=comparison.equal,
        known=known,
        unexplained=unexplained,
        on_null_blk=_answers_on_null_blk(comparison),
    )
    sections = [
        head,
        "## Cases\n",
        "On which devices and with which options is said in `tests/equality/cases`.\n",
        *_table(("case", "devices and options", "equal", "different", "why"), _case_rows(comparison)),
        "\n## Random calls\n",
        *_table(("sequence", "seed", "options", "equal", "different", "why"), _sequence_rows(comparison)),
        "\n## SCSI and ZNS\n",
        _LIVE,
        *_table(("device", "group", "cases"), _live_rows()),
        "\n## Differences\n",
        *_table(("what", "answers"), _difference_rows(comparison)),
        "\nNot compared:\n",
        *_table(("what", "why"), NOT_COMPARED.items()),
    ]
    return "\n".join(sections) + "\n"


def _answers_on_null_blk(comparison: Comparison) -> int:
    """How many of the answers are those of `ON_NULL_BLK`."""
    patterns = [pattern for some in ON_NULL_BLK.values() for pattern in some]
    chosen = [case for case in comparison.cases if any(fnmatch.fnmatchcase(case.name, one) for one in patterns)]
    return sum(case.equal + sum(case.known.values()) + len(case.unexplained) for case in chosen)


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    heading = tuple(heading)
    yield "| " + " | ".join(heading) + " |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _difference_rows(comparison: Comparison) -> Iterable[tuple[str, str]]:
    for difference in DIFFERENCES:
        met = "only on block devices" if difference.only_on_block_devices else comparison.known[difference.name]
        yield difference.name, str(met)


def _live_rows() -> Iterable[tuple[str, str, str]]:
    alike: dict[tuple[str, str], list[str]] = {}
    for name, group in LIVE_GROUPS.items():
        cases = ", ".join(case.__name__.replace("_", " ") for case in group.cases)
        alike.setdefault((group.device, cases), []).append(name)
    for (device, cases), names in alike.items():
        yield device, ", ".join(names), cases
    for device, sequences in LIVE_SEQUENCES.items():
        for name, sequence in sequences.items():
            options = f" ({sequence.options})" if sequence.options else ""
            yield device, f"random {name}{options}", f"{sequence.calls} calls from seed {sequence.seed}"


def _case_rows(comparison: Comparison) -> Iterable[tuple[str, ...]]:
    by_case: dict[str, list[CaseResult]] = {}
    for result in comparison.cases:
        group, name = result.name.split("/")
        if group in GROUPS:
            by_case.setdefault(name, []).append(result)
    for name, results in by_case.items():
        groups = ", ".join(result.name.split("/")[0] for result in results)
        yield name.replace("_", " "), groups, *_counts(results)


def _sequence_rows(comparison: Comparison) -> Iterable[tuple[str, ...]]:
    for result in comparison.cases:
        group, name = result.name.split("/")
        if group == "random":
            sequence = SEQUENCES[name]
            yield name, str(sequence.seed), sequence.options, *_counts([result])


def _counts(results: list[CaseResult]) -> tuple[str, str, str]:
    reasons: dict[str, int] = {}
    for result in results:
        for name, count in result.known.items():
            reasons[name] = reasons.get(name, 0) + count
        if result.unexplained:
            reasons["**not explained**"] = reasons.get("**not explained**", 0) + len(result.unexplained)
    different = sum(reasons.values())
    return str(sum(result.equal for result in results)), str(different) if different else "", "; ".join(reasons)

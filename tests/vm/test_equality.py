"""In the machine: the recording is what the kernel answers, ours on null_blk answers alike, and the format is one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.equality import runner
from tests.equality.compare import Recording, compare, read_recording
from tests.vm.conftest import Guest

INSIDE = Path(__file__).parent / "inside"

ON_NULL_BLK = {
    "writes": (["sectors/write*"], 250),
    "errors": (["errors-remount-ro/*", "errors-repair/*"], 850),
    "limits": (["explicit-open/*", "limits-*"], 350),
    "mounts": (["mounts/*"], 320),
    "random": (["random/limits"], 1080),
}
"""What depends on the device, and how many answers are equal at least. All of it takes too long in the machine."""


def probe(guest: Guest, subject: str, *patterns: str) -> Recording:
    """Run the probe inside; give what it wrote."""
    out = guest.share / f"{subject}.jsonl"
    words = [word for pattern in patterns for word in ("--only", pattern)]
    guest.run(sys.executable, runner.ROOT / "tests/equality/probe.py", subject, "--out", out, *words)
    return read_recording(out)


def test_the_kernel_answers_as_it_did_when_it_was_recorded(guest: Guest) -> None:
    recorded, fresh = read_recording(runner.RECORDED), probe(guest, "kernel")
    assert list(fresh.cases) == list(recorded.cases)
    for name, lines in recorded.cases.items():
        assert fresh.cases[name] == lines, f"{name}; {runner.RECORD_COMMAND} records it afresh"


@pytest.mark.parametrize(("patterns", "at_least"), ON_NULL_BLK.values(), ids=ON_NULL_BLK)
def test_ours_on_null_blk_answers_as_the_kernel(guest: Guest, patterns: list[str], at_least: int) -> None:
    ours = probe(guest, "ours-on-null_blk", *patterns)
    comparison = compare(read_recording(runner.RECORDED).only(ours.cases), ours)
    assert comparison.unexplained == []
    assert comparison.equal >= at_least


def test_the_format_is_one(guest: Guest) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(INSIDE / "test_one_format.py")]
    done = guest.run(sys.executable, *words, check=False, PYTHONPATH=str(runner.ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^6 passed", done.stdout, re.MULTILINE), done.stdout

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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = metafunc.config.getoption("--long")
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize(("kind", "live"), (runner.ALL_LIVE if everything else runner.LIVE).items())
    if "patterns" in metafunc.fixturenames:
        chosen = runner.ALL_ON_NULL_BLK if everything else runner.ON_NULL_BLK
        metafunc.parametrize("patterns", chosen.values(), ids=chosen)


def probe(guest: Guest, subject: str, *patterns: str, device: str = "") -> Recording:
    """Run the probe inside, on *device* if *subject* makes none; give what it wrote."""
    out = guest.share / f"{subject}.jsonl"
    words = [word for pattern in patterns for word in ("--only", pattern)]
    guest.run(
        sys.executable, runner.ROOT / "tests/equality/probe.py", subject, "--out", out, "--device", device, *words
    )
    return read_recording(out)


def test_the_kernel_answers_as_it_did_when_it_was_recorded(guest: Guest) -> None:
    recorded, fresh = read_recording(runner.RECORDED), probe(guest, "kernel")
    assert list(fresh.cases) == list(recorded.cases)
    for name, lines in recorded.cases.items():
        assert fresh.cases[name] == lines, f"{name}; {runner.RECORD_COMMAND} records it afresh"


def test_ours_on_null_blk_answers_as_the_kernel(guest: Guest, patterns: list[str]) -> None:
    ours = probe(guest, "ours-on-null_blk", *patterns)
    comparison = compare(runner.matching(read_recording(runner.RECORDED), patterns), ours)
    assert comparison.unexplained == []
    assert comparison.unused_on_block_device == []
    assert comparison.equal > 0


def test_kernel_and_ours_answer_alike_on(guest: Guest, kind: str, live: list[str]) -> None:
    """One after the other, on the same device."""
    kernel, ours = (probe(guest, f"{whose}-on-{kind}", *live, device=guest.limited_zns) for whose in ("kernel", "ours"))
    comparison = compare(kernel, ours)
    assert comparison.unexplained == []
    assert comparison.unused_on_block_device == []
    assert comparison.equal > 0


def test_the_format_is_one(guest: Guest) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(INSIDE / "test_one_format.py")]
    done = guest.run(sys.executable, *words, check=False, PYTHONPATH=str(runner.ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^6 passed", done.stdout, re.MULTILINE), done.stdout

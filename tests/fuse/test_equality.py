"""What the kernel's zonefs answered, replayed on a mount of ours. See docs/equality.md."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.equality import runner
from tests.equality.compare import Comparison, read_recording
from tests.equality.differences import DIFFERENCES, NOT_COMPARED

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or platform.machine() != "x86_64",
    reason="the calls become other users, and are made by the numbers of x86-64: run it there, as root",
)


@pytest.fixture(scope="module")
def comparison() -> Iterator[Comparison]:
    """All calls, made on an emulated device now."""
    # Not in pytest's own directory, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="equality-") as directory:
        os.chmod(directory, 0o755)
        yield runner.compare_with_recorded(runner.record_ours(Path(directory)))


@needs_root
def test_every_answer_is_the_kernels_or_a_known_difference(comparison: Comparison) -> None:
    assert comparison.unexplained == []
    assert comparison.equal > 10_000


@needs_root
def test_every_known_difference_is_met(comparison: Comparison) -> None:
    assert comparison.unused == []


@needs_root
def test_with_reads_past_the_daemon(passing: Callable[[], Path]) -> None:
    """The same answers again; docs/differences.md has what differs, and none of it is met in these calls."""
    passing()
    with tempfile.TemporaryDirectory(prefix="equality-") as directory:
        os.chmod(directory, 0o755)
        comparison = runner.compare_with_recorded(runner.record_ours(Path(directory), "ours-with-passthrough"))
    assert comparison.unexplained == []
    assert comparison.unused == []
    assert comparison.equal > 10_000


@needs_root
def test_the_document_is_up_to_date(comparison: Comparison) -> None:
    written = runner.DOCUMENT.read_text()
    assert written == runner.document(comparison), f"run {runner.DOCUMENT_COMMAND}"


def test_enough_random_calls_are_recorded() -> None:
    recording = read_recording(runner.RECORDED)
    assert sum(len(lines) for name, lines in recording.cases.items() if name.startswith("random/")) >= 10_000


def test_documented_differences_are_patterns() -> None:
    text = (runner.ROOT / "docs/differences.md").read_text()
    rows = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    documented = [name for name in rows if name != "what"]
    assert sorted(documented) == sorted([*(difference.name for difference in DIFFERENCES), *NOT_COMPARED])

"""What the kernel's zonefs answered, replayed on a mount of ours. See docs/equality.md."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
def test_a_probe_that_is_killed_leaves_no_mount() -> None:
    with tempfile.TemporaryDirectory(prefix="equality-") as directory, ThreadPoolExecutor(1) as pool:
        os.chmod(directory, 0o755)
        run = pool.submit(runner.record_ours, Path(directory))
        while not (mounted := mounts_below(directory)):
            assert not run.done()
        (probe,) = (pid for pid in children() if b"tests.equality.probe" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(probe, signal.SIGKILL)
        with pytest.raises(subprocess.CalledProcessError):
            run.result()
        assert mounts_below(directory) == [], mounted


def children() -> list[int]:
    """The processes that this one started."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


def mounts_below(directory: str) -> list[str]:
    """Where something is mounted in *directory*."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if point.startswith(f"{directory}/")]


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


WAIT_AS_A_USER = """
import os, sys
from pathlib import Path
from tests.equality.geometry import GEOMETRIES, pack_superblock
from tests.equality.subjects import SUBJECTS

subject = SUBJECTS["ours"](Path(sys.argv[1]))
subject.make(GEOMETRIES["small"], (), ())
subject.format(pack_superblock())
subject.mount()
try:
    os.seteuid(1000)
    subject.wait_for_closes()
    print(os.geteuid())
finally:
    os.seteuid(0)
    subject.umount()
"""


@needs_root
def test_closes_are_waited_for_whoever_makes_the_calls() -> None:
    """A hunt closes files as other users, whom the daemon does not answer."""
    with tempfile.TemporaryDirectory(prefix="equality-") as directory:
        os.chmod(directory, 0o755)
        words = [sys.executable, "-c", WAIT_AS_A_USER, directory]
        done = subprocess.run(words, cwd=runner.ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "1000\n"

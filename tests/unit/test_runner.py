"""The runner of the shell suite, fed with scripts that pass, fail, skip, hang, die, and leave things behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
RUNNER = TESTS / "zonefs-tests.sh"
TEST_LIB = TESTS / "scripts" / "test_lib"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the runner mounts: run as root")


@dataclass
class Outcome:
    """What one run of the runner left."""

    status: int
    output: str
    errors: str
    logs: Path

    def line(self, number: str, geometry: str = "basic") -> str:
        """The line of one test."""
        (found,) = [line for line in self.output.splitlines() if line.startswith(f"{geometry:7} {number}:")]
        return found

    def log(self, number: str, geometry: str = "basic") -> str:
        """The log of one test."""
        return (self.logs / geometry / f"{number}.log").read_text()

    @property
    def summary(self) -> str:
        """The last line."""
        return self.output.splitlines()[-1]


class Suite:
    """A directory with scripts of our own, and the runner on them."""

    def __init__(self, directory: Path) -> None:
        self.scripts = directory / "scripts"
        self.logs = directory / "logs"
        self.temporary = directory / "tmp"
        self.scripts.mkdir()
        self.temporary.mkdir()
        (self.scripts / "test_lib").symlink_to(TEST_LIB)
        (self.scripts / "expected-skips").write_text("")

    def add(self, number: str, body: str, title: str = "a title", header: str = "") -> None:
        """Add a script with this *body*."""
        script = self.scripts / f"{number}.sh"
        script.write_text(f'#!/bin/bash\n{header}\n. "${{0%/*}}/test_lib"\n\ntitle "{title}" "$@"\n\n{body}\n')
        script.chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the runner."""
        return subprocess.Popen(
            [RUNNER, "--scripts", self.scripts, "--logs", self.logs, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.temporary), "ZONEFS_PY_BIN": str(Path(sys.executable).parent)},
        )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        """Wait for the runner."""
        output, errors = process.communicate(timeout=120)
        return Outcome(process.returncode, output, errors, self.logs)

    def run(self, *arguments: str) -> Outcome:
        """Run the runner on the first geometry only, unless told otherwise."""
        geometry = [] if "-g" in arguments else ["-g", "basic"]
        return self.finish(self.start(*geometry, *arguments))

    def left_over(self) -> list[str]:
        """Files and mounts that the runner should have removed."""
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.temporary) in line]
        return mounts + [path.name for path in self.temporary.iterdir()]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """An empty suite."""
    return Suite(tmp_path)


def wait_for(condition: Callable[[], object]) -> None:
    """Poll until *condition* holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@needs_root
def test_outcomes(suite: Suite) -> None:
    suite.add("0001", "true || exit_failed one\npass", title="passes")
    suite.add("0002", 'false || exit_failed "the reason"\npass')
    suite.add("0003", 'exit_skip "no such machine"\npass')
    suite.add("0004", "sleep 1000\npass")
    suite.add("0005", "kill -SEGV $$\npass")
    suite.add("0006", "true")
    suite.add("0007", 'echo "$no_such_variable"\npass')
    suite.add("0008", "exit 0")
    suite.add("0009", "trap - EXIT\nexit 3")
    suite.add("0010", "kill -KILL $$\npass")
    outcome = suite.run("--timeout", "1")
    assert outcome.status == 1
    assert outcome.summary == "1 passed, 8 failed, 1 skipped"
    assert "passes" in outcome.line("0001")
    assert " passed " in outcome.line("0001")
    assert "FAILED" in outcome.line("0002")
    assert "the reason" in outcome.line("0002")
    assert "skipped" in outcome.line("0003")
    assert "no such machine" in outcome.line("0003")
    assert "timeout after 1 s" in outcome.line("0004")
    assert "exit status 139, signal SEGV" in outcome.line("0005")
    for number in ("0006", "0007", "0008"):
        assert "before 'pass'" in outcome.line(number)
    assert "exit status 3" in outcome.line("0009")
    assert "FAILED" in outcome.line("0010")
    assert "+ 0002.sh:" in outcome.log("0002")
    assert not outcome.errors
    assert not suite.left_over()


@needs_root
def test_all_passed(suite: Suite) -> None:
    suite.add("0001", "pass")
    suite.add("0002", "exit_skip why")
    outcome = suite.run()
    assert outcome.status == 0
    assert outcome.summary == "1 passed, 0 failed, 1 skipped"


@needs_root
def test_no_skip(suite: Suite) -> None:
    for number in ("0001", "0002", "0003"):
        suite.add(number, "exit_skip why")
    (suite.scripts / "expected-skips").write_text("basic 0001  # reason\nlimits 0002\nbasic 0003-0004\n")
    outcome = suite.run("--no-skip")
    assert outcome.status == 1
    assert outcome.summary == "0 passed, 1 failed, 2 skipped"
    assert "not in expected-skips: why" in outcome.line("0002")


@needs_root
def test_choice(suite: Suite) -> None:
    for number in ("0100", "0101", "0105", "0200", "0300"):
        suite.add(number, "pass")
    suite.add("0102", "pass", header="# geometry: any")
    suite.add("0103", "pass", header="# long: so many")
    chosen = suite.run("-t", "0101-0104,0300", "-s", "-r", "2", "-g", "basic,nocnv", "-j", "1")
    assert chosen.summary == "10 passed, 0 failed, 0 skipped"
    assert sorted(path.name for path in (suite.logs / "basic").iterdir()) == [
        "0101.2.log",
        "0101.log",
        "0102.2.log",
        "0102.log",
        "0300.2.log",
        "0300.log",
    ]
    assert not (suite.logs / "nocnv" / "0102.log").exists()
    assert not (suite.logs / "nocnv" / "0103.log").exists()


def test_list_runs_nothing(suite: Suite) -> None:
    suite.add("0001", f"touch {suite.temporary}/ran\npass", title="first")
    suite.add("0002", f"touch {suite.temporary}/ran\npass", title="second")
    outcome = suite.run("--list")
    assert outcome.output == "0001: first\n0002: second\n"
    assert outcome.status == 0
    assert not suite.left_over()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonesuch"], "nonesuch"),
        (["-t", "1"], "not a test number"),
        (["-t", "0400"], "no test chosen"),
        (["-g", "round"], "unknown geometry round"),
        (["-r", "0"], "not a number above 0"),
        (["-j", "x"], "not a number above 0"),
        (["more"], "unexpected argument"),
    ],
)
def test_wrong_usage(suite: Suite, arguments: list[str], message: str) -> None:
    suite.add("0001", "pass")
    outcome = suite.run(*arguments)
    assert outcome.status == 2
    assert message in outcome.errors
    assert not outcome.output


@needs_root
def test_help_and_environment(suite: Suite) -> None:
    suite.add(
        "0001",
        '[[ -d $1 && $GEOMETRY == limits && $MAX_OPEN == 4 && $TEST_DIR == "${1%/*}" ]] || exit_failed env\npass',
    )
    assert "Usage:" in suite.run("--help").output
    assert suite.run("-g", "limits").status == 0


@needs_root
def test_what_is_left_behind(suite: Suite) -> None:
    suite.add("0001", 'mount -t tmpfs none "$MNT" || exit_failed mount\npass')
    suite.add(
        "0002", 'mount -t tmpfs none "$MNT"; mkdir "$MNT/in"; mount -t tmpfs none "$MNT/in"; exit_failed "on purpose"'
    )
    suite.add("0003", "mount_zonefs || exit_failed mount\npass")
    outcome = suite.run()
    assert outcome.summary == "2 passed, 1 failed, 0 skipped"
    assert "on purpose" in outcome.line("0002")
    assert not suite.left_over()


@needs_root
def test_daemon_and_its_log(suite: Suite) -> None:
    log = 'echo "2026-11-23 WARNING it rains" >>"$LOG_FILE"'
    suite.add("0001", f"{log}\npass")
    suite.add("0002", f"{log}\nexpect_log rains\npass")
    suite.add("0003", "expect_log snows\npass")
    suite.add("0004", 'echo "Traceback (most recent call last)" >>"$LOG_FILE"\npass')
    suite.add(
        "0005",
        'mkdir "$TEST_DIR/daemon.x"; echo 1 >"$TEST_DIR/daemon.x/pid"; echo 7 >"$TEST_DIR/daemon.x/status"\npass',
    )
    outcome = suite.run()
    assert outcome.summary == "1 passed, 4 failed, 0 skipped"
    assert "unexpected in the log: 2026-11-23 WARNING it rains" in outcome.line("0001")
    assert "announced, but not in the log: snows" in outcome.line("0003")
    assert "Traceback" in outcome.line("0004")
    assert "the daemon ended with status 7" in outcome.line("0005")


@needs_root
def test_sizes_are_compared_with_the_zones(suite: Suite) -> None:
    body = "mount_zonefs || exit_failed mount\nwrite_seq seq/1 0 4096 || exit_failed write\nmove_wp seq/1 forward\n"
    suite.add("0001", f"{body}\npass")
    suite.add("0002", f"{body}\nexpect_size_mismatch seq/1\npass")
    outcome = suite.run()
    assert outcome.summary == "1 passed, 1 failed, 0 skipped"
    assert "seq/1: size 4096, but 8192 bytes are written in its zone" in outcome.line("0001")


@needs_root
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted(suite: Suite, number: signal.Signals, status: int) -> None:
    hang = (
        "mount_zonefs || exit_failed mount\n"
        'zio_start\nzio_do "open $SEQ0 wronly" || exit_failed open\n'
        'touch "{0}"\nsleep 1000\npass'
    )
    markers = [suite.logs.parent / name for name in ("one", "two")]
    for index, marker in enumerate(markers):
        suite.add(f"000{index + 1}", hang.format(marker))
    process = suite.start("-g", "basic", "-j", "2")
    wait_for(lambda: all(marker.exists() for marker in markers))
    process.send_signal(number)
    outcome = suite.finish(process)
    assert outcome.status == status
    assert not suite.left_over()

"""``zonefs-py crash`` with real programs on real mounts: what it finds, what it says, and that it leaves nothing."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from zonefs_py.control.mounts import list_mounts
from zonefs_py.device.directory import open_device

from .conftest import ZONEFS_PY, command_environment, run, wait_until

WORKLOAD = """
import os
descriptor = os.open(os.environ["ZONEFS_MNT"] + "/seq/0", os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
for number in range(4):
    os.write(descriptor, b"%d" % number * 8192)
    if number not in BUG:
        os.fsync(descriptor)
    print("stored", number)
"""

CHECK = """
import os
stored = open(os.environ["ZONEFS_OUTPUT"]).read().split("\\n")[:-1]
data = open(os.environ["ZONEFS_MNT"] + "/seq/0", "rb").read()
assert data == b"".join(b"%d" % number * 8192 for number in range(4))[: len(data)]
assert len(data) >= 8192 * len(stored), f"{stored} were promised, but there are {len(data)} bytes"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the programs, which is also the one for temporary files."""
    (tmp_path / "good.py").write_text("BUG = ()\n" + WORKLOAD)
    (tmp_path / "bad.py").write_text("BUG = (1,)\n" + WORKLOAD)
    (tmp_path / "check.py").write_text(CHECK)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path


def crash(directory: Path, *words: str, status: int = 0, **more: object) -> subprocess.CompletedProcess[str]:
    """Run the command there; see that it leaves nothing."""
    # The types: *more* is what subprocess takes.
    done = run(ZONEFS_PY, "crash", *words, check=False, cwd=directory, **more)  # type: ignore[arg-type]
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert_clean(directory)
    return done


def assert_clean(directory: Path) -> None:
    """No file, no mount."""
    assert list((directory / "tmp").iterdir()) == []
    assert [mount for mount in list_mounts() if mount.mountpoint.startswith(str(directory))] == []


SMALL = ("--zones", "4", "--zone-size", "256K")


def test_a_correct_program_passes(programs: Path) -> None:
    done = crash(programs, "--workload", "python3 good.py", "--check", "python3 check.py", *SMALL)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    # 4 writes, 4 flushes, and one when it is unmounted.
    assert re.fullmatch(r"9 calls of the device, 26 crash states, \d+ to visit", lines[0])
    assert re.fullmatch(r"\d+ crash states passed", lines[1])
    assert lines[0].split()[-3] == lines[1].split()[0]


def test_a_missing_fsync_is_found_and_found_again(programs: Path) -> None:
    words = ("--workload", "python3 bad.py", "--check", "python3 check.py", *SMALL, "--timeout", "30")
    done = crash(programs, *words, status=1)
    lines = done.stdout.splitlines()
    assert lines[1] == (
        "state 3.0 failed: power lost during call 3 of 8, write of 8192 bytes at 16384 of zone 2;"
        " kept: zone 2: 0 of 4 unflushed blocks"
    )
    assert lines[2] == "the check: exit status 1"
    assert lines[-2] == "  AssertionError: ['stored 0', 'stored 1'] were promised, but there are 8192 bytes"
    again = lines[-1].removeprefix("again: ")
    assert again == (
        "zonefs-py crash --workload 'python3 bad.py' --check 'python3 check.py' --zones 4 --zone-size 256K"
        " --timeout 30.0 --state 3.0"
    )
    repeated = crash(programs, *shlex.split(again)[2:], status=1)
    assert repeated.stdout.splitlines()[0] == lines[1].replace(" failed", "")
    assert repeated.stdout.splitlines()[-1] == "state 3.0: exit status 1"
    assert "8192 bytes" in repeated.stderr
    # One block more is kept, but the file is still too short; with all of them there is nothing wrong.
    crash(programs, "--workload", "python3 bad.py", "--check", "python3 check.py", *SMALL, "--state", "3.1", status=1)
    crash(programs, "--workload", "python3 bad.py", "--check", "python3 check.py", *SMALL, "--state", "3.2")


def test_the_first_failure_is_shown_however_many_work_at_it(programs: Path) -> None:
    first = {
        crash(
            programs, "--workload", "python3 bad.py", "--check", "python3 check.py", *SMALL, "--jobs", jobs, status=1
        ).stdout.splitlines()[1]
        for jobs in ("1", "3")
    }
    assert len(first) == 1


def test_conventional_files_and_all_that_mount_and_mkfs_can(programs: Path) -> None:
    # A conventional file is written in place: of two blocks any may be new.
    (programs / "work.sh").write_text(
        "dd if=/dev/zero bs=4096 count=2 status=none | tr '\\0' x > t\n"
        "dd if=t of=$ZONEFS_MNT/cnv/0 bs=8192 oflag=direct conv=notrunc status=none\n"
    )
    (programs / "see.sh").write_text(
        "head -c 8192 $ZONEFS_MNT/cnv/0 | tr '\\0' - | fold -w 4096 | cut -c 1 | tr -d '\\n' >> seen; echo >> seen\n"
        "stat -c %a $ZONEFS_MNT/cnv/0 >> seen\n"
    )
    crash(
        programs, "--workload", "sh work.sh", "--check", "sh see.sh", "--jobs", "1",
        *SMALL, "--mkfs", "perm=600", "-o", "errors=repair,explicit-open", "--max-open", "2", "--max-active", "3",
    )  # fmt: skip
    lines = (programs / "seen").read_text().split()
    assert set(lines[0::2]) == {"--", "x-", "-x", "xx"}
    assert set(lines[1::2]) == {"600"}


def test_it_starts_with_what_is_on_a_device_and_leaves_that_alone(programs: Path) -> None:
    device = programs / "disk"
    run(ZONEFS_PY, "create", device, "--zones", "6", "--conventional", "2", "--zone-size", "256K")
    run(ZONEFS_PY, "mkfs", device)
    with open_device(device) as opened:
        opened.write(2 * 256 * 1024, b"old" + bytes(4093))
    before = {path.name: path.read_bytes() for path in device.iterdir()}
    done = crash(
        programs, "--device", str(device), "--jobs", "1",
        "--workload", "dd if=/dev/zero of=$ZONEFS_MNT/seq/0 bs=8192 count=1 oflag=direct,append conv=notrunc 2>dd",
        "--check", "head -c 3 $ZONEFS_MNT/seq/0 >> seen; stat -c ' %s' $ZONEFS_MNT/seq/0 >> seen",
    )  # fmt: skip
    assert "crash states passed" in done.stdout
    assert (programs / "seen").read_text().splitlines() == ["old 4096", "old 8192", "old 12288"]
    assert {path.name: path.read_bytes() for path in device.iterdir()} == before


def test_of_many_states_some_are_visited(programs: Path) -> None:
    (programs / "work.sh").write_text(
        "dd if=/dev/zero of=$ZONEFS_MNT/cnv/0 bs=256K count=1 oflag=direct conv=notrunc status=none\n"
    )
    done = crash(programs, "--workload", "sh work.sh", "--check", "true", *SMALL, "--states", "5", "--seed", "3")
    assert done.stdout.splitlines() == [
        "2 calls of the device, about 10^19 crash states, 4 to visit",
        "4 crash states passed",
    ]


@pytest.mark.parametrize(
    ("status", "words", "says"),
    [
        (1, ("--workload", "echo hello; exit 3"), "the workload failed (exit status 3); it printed: hello"),
        (1, ("--workload", "kill -9 $$"), "the workload failed (killed by SIGKILL); it printed: nothing"),
        (1, ("--workload", "true", "--state", "9.0"), "there is no state 9.0 here"),
        (2, ("--workload", "true", "--state", "x"), "'x' is no state"),
        (1, ("--workload", "true", "--device", "nowhere"), "nowhere"),
        (2, ("--workload", "true", "--device", "x", "--zones", "4"), "--zones is for a new device"),
        (2, ("--workload", "true", "--device", "x", "--mkfs", "perm=600"), "--mkfs is for a new device"),
        (1, ("--workload", "true", "--zones", "1"), "1 zones"),
        (2, ("--workload", "true", "-o", "errors=perhaps"), "errors=perhaps"),
        (2, ("--workload", "true", "--mkfs", "colour=red"), "colour"),
        (2, ("--workload", " "), "--workload: the command is empty"),
        (2, ("--workload", "true", "--check", ""), "--check: the command is empty"),
        (2, ("--workload", "true", "--timeout", "nan"), "--timeout: nan is no number of seconds"),
    ],
)
def test_mistakes_are_one_line(programs: Path, status: int, words: tuple[str, ...], says: str) -> None:
    done = crash(programs, "--check", "true", *words, status=status)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("zonefs-py: ")
    assert says in done.stderr


def test_a_check_that_does_not_end_is_a_failure(programs: Path) -> None:
    done = crash(
        programs, "--workload", "true", "--check", "sleep 1000 & echo $! > pid; wait", "--timeout", "1", status=1
    )
    assert "the check: it took more than 1 seconds" in done.stdout
    pid = int((programs / "pid").read_text())
    wait_until("what the check left running is gone", lambda: not Path(f"/proc/{pid}").exists())


def test_what_programs_leave_running_is_ended(programs: Path) -> None:
    crash(programs, "--workload", "sleep 1000 < $ZONEFS_MNT/seq/0 & echo $! > pid", "--check", "true", "--jobs", "1")
    pid = int((programs / "pid").read_text())
    wait_until("what the workload left running is gone", lambda: not Path(f"/proc/{pid}").exists())


def test_a_workload_that_prints_more_than_a_pipe_holds(programs: Path) -> None:
    done = crash(
        programs, "--workload", "head -c 300000 /dev/zero | tr '\\0' x",
        "--check", "test $(stat -c %s $ZONEFS_OUTPUT) = 300000", "--state", "1.0",
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "state 1.0: passed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("where", ["workload", "check"])
def test_nothing_is_left_when_it_is_interrupted(programs: Path, where: str, number: signal.Signals) -> None:
    commands = {"workload": "true", "check": "true"}
    commands[where] = "echo $$ > pid.new; mv pid.new pid; exec sleep 1000"
    process = subprocess.Popen(
        [ZONEFS_PY, "crash", "--workload", commands["workload"], "--check", commands["check"], "--jobs", "2"],
        cwd=programs,
        env=command_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until("it has started", lambda: (programs / "pid").exists())
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    wait_until("everything is removed", lambda: list((programs / "tmp").iterdir()) == [])
    assert_clean(programs)
    assert not Path(f"/proc/{(programs / 'pid').read_text().strip()}").exists()
    assert process.returncode != 0
    if number is not signal.SIGKILL:
        assert complaint.strip() == "zonefs-py: interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_job_is_left_when_it_is_interrupted(programs: Path, number: signal.Signals) -> None:
    """However many states are mounted: each is told, and none waits for its check."""
    check = "echo $$ > pid.$$.new; mv pid.$$.new pid.$$; exec sleep 1000"
    process = subprocess.Popen(
        [ZONEFS_PY, "crash", "--workload", "python3 good.py", "--check", check, "--jobs", "3", "--timeout", "900"],
        cwd=programs,
        env=command_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def started() -> list[str]:
        return [path.name.removeprefix("pid.") for path in programs.glob("pid.*") if path.suffix != ".new"]

    wait_until("all jobs have started", lambda: len(started()) == 3)
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_until("everything is removed", lambda: list((programs / "tmp").iterdir()) == [])
    assert_clean(programs)
    assert [pid for pid in started() if Path(f"/proc/{pid}").exists()] == []

"""``zonefs-py run``: what a command finds, what becomes of its end and of signals, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.conftest import ZONEFS_PY, command_environment, wait_until
from tests.fuse.daemon_helpers import runs

SMALL = ("--zones", "4", "--conventional", "1", "--zone-size", "1M")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files of the test's own, in which at the end nothing is, and nothing mounted."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    yield path
    mounts = [line for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines() if str(path) in line]
    assert mounts == []
    assert list(path.iterdir()) == []


def start(*words: str | Path) -> subprocess.Popen[str]:
    """Start ``zonefs-py run``, in a process group of its own."""
    return subprocess.Popen(
        [str(word) for word in (ZONEFS_PY, "run", *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=command_environment(),
        start_new_session=True,
    )


def run(*words: str | Path) -> tuple[int, str, str]:
    """Let it end."""
    process = start(*words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_command_finds_a_fresh_file_system() -> None:
    program = (
        'test -w "$ZONEFS_MNT/seq/0" && ls "$ZONEFS_MNT/seq" && ls -d "$ZONEFS_DEVICE/device.json"'
        ' && dd if=/dev/zero of="$ZONEFS_MNT/seq/0" bs=4096 count=1 oflag=direct,append conv=notrunc status=none'
        ' && stat -c %s "$ZONEFS_DEVICE/seq-000001"'
    )
    status, out, err = run(*SMALL, "--", "sh", "-c", program)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["0", "1", "2"]
    assert lines[-1] == "4096"


@pytest.mark.parametrize("command", ["run", "crash"])
def test_a_directory_for_temporary_files_that_cannot_be_used(command: str, temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["run", *SMALL, "--", "true"]
    if command == "crash":
        words = ["crash", "--workload", "true", "--check", "true", *SMALL]
    for path in (tmp_path / "missing", tmp_path / "file"):
        done = subprocess.run(
            [ZONEFS_PY, *words],
            env=command_environment() | {"TMPDIR": str(path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = f"zonefs-py: TMPDIR is {path}, which is no directory that can be written to\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_options_reach_device_and_mount(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = 'zonefs-py info "$ZONEFS_MNT"; ls "$ZONEFS_MNT/cnv" | wc -l; stat -c %a "$ZONEFS_MNT/seq/0"'
    status, out, err = run(
        *("--profile", "wd-zn540", "--zones", "6", "--zone-size", "2M", "--max-open", "3", "--conventional", "3"),
        *("-o", "errors=repair", "-o", "explicit-open", "--features", "aggr_cnv,perm=600", "--log-file", log),
        *("--write-cache", "--", "sh", "-c", program),
    )
    assert (status, err) == (0, "")
    assert "errors=repair,explicit-open" in out
    assert "wd-zn540" in out
    assert "write-cache:" in out
    assert out.splitlines()[-2:] == ["1", "600"]
    assert "mounted at" in log.read_text()


def test_faults(tmp_path: Path) -> None:
    rules = tmp_path / "rules, with a comma.json"
    rules.write_text('{"version": 1, "rules": [{"operation": "write", "zones": 1, "effect": "fail"}]}')
    write = 'dd if=/dev/zero of="$ZONEFS_MNT/seq/0" bs=4096 count=1 oflag=direct,append conv=notrunc status=none'
    status, _, err = run(*SMALL, "--fault", rules, "-o", "errors=repair", "--", "sh", "-c", f"{write} || {write}")
    assert status == 0
    assert "Input/output error" in err


@pytest.mark.parametrize(
    ("program", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_end_of_a_command_is_ours(program: str, status: int) -> None:
    assert run(*SMALL, "--", "sh", "-c", program) == (status, "", "")


def test_what_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    status, _, err = run(*SMALL, "--", "no-such-command")
    assert (status, err) == (127, "zonefs-py: no-such-command: command not found\n")
    status, _, err = run(*SMALL, "--", tmp_path / "text")
    assert (status, err) == (126, f"zonefs-py: {tmp_path}/text: Permission denied\n")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--"], 2, "Missing argument"),
        (["--zones", "1", "--", "true"], 1, "a device has 2 to"),
        (["-o", "errors=no", "--", "true"], 2, "errors=no"),
        (["-o", "remount", "--", "true"], 2, "nothing to remount"),
        (["--features", "no", "--", "true"], 2, "unknown format option 'no'"),
        (["--fault", "none.json", "--", "true"], 1, "none.json: No such file"),
        (["--nothing", "--", "true"], 2, "--nothing"),
        (["--", ""], 2, "the command is empty"),
    ],
)
def test_refusals(words: list[str], status: int, says: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (status, "")
    assert says in err
    assert err.startswith("zonefs-py: ")
    assert len(err.splitlines()) == 1


# Signals. The command says when it is there; what ends what is then seen at the ends of pipes.

WAITING = 'trap "echo term; exit 5" TERM; trap "echo int; exit 6" INT; echo $$; while :; do sleep 0.02; done'


def waiting(*words: str | Path) -> tuple[subprocess.Popen[str], int]:
    """A run whose command waits for a signal; and the command's pid."""
    process = start(*SMALL, *words, "--", "sh", "-c", WAITING)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_signal_is_passed_on() -> None:
    process, _ = waiting()
    process.terminate()
    assert ended(process) == (5, "term\n", "")


def test_a_signal_to_all_reaches_the_command() -> None:
    process, _ = waiting()
    os.killpg(process.pid, signal.SIGINT)
    status, out, err = ended(process)
    assert (status, err) == (6, "")
    assert set(out.split()) == {"int"}


def test_ctrl_c_at_a_terminal_comes_once(tmp_path: Path) -> None:
    # A terminal of its own: there the kernel sends the signal, to everybody in the foreground.
    program = tmp_path / "program.sh"
    program.write_text(
        'n=0; trap "n=\\$((n+1)); echo int\\$n" INT; echo ready; i=0\n'
        'while [ $n = 0 ]; do sleep 0.02; done; sleep 0.3; echo "end $n"; exit 6\n'
    )
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execvpe(str(ZONEFS_PY), ["zonefs-py", "run", *SMALL, "--", "sh", str(program)], command_environment())
    said = b""
    try:
        while b"ready" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        while b"end" not in said:
            said += os.read(terminal, 1000)
        assert b"end 1" in said
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    finally:
        os.close(terminal)


def test_a_run_that_is_killed_leaves_nothing(temporary: Path) -> None:
    process, command = waiting()
    process.kill()
    process.communicate(timeout=60)
    wait_until("the command ends", lambda: not runs(command))
    wait_until("everything is removed", lambda: not list(temporary.iterdir()))


def test_a_daemon_that_is_killed_is_reported(temporary: Path) -> None:
    program = 'kill -KILL $(zonefs-py info "$ZONEFS_MNT" --format json | sed -n \'s/^ *"pid": \\([0-9]*\\).*/\\1/p\')'
    status, out, err = run(*SMALL, "--", "sh", "-c", program)
    assert status == 1
    assert out == ""
    assert err.startswith("zonefs-py: the daemon of the mount failed (SIGKILL); the end of its log:\n")


def test_a_file_that_stays_open_does_not_stop_cleaning_up(temporary: Path) -> None:
    program = 'sleep 1000 < "$ZONEFS_MNT/seq/0" > /dev/null 2>&1 & echo $!'
    status, out, err = run(*SMALL, "--", "sh", "-c", program)
    assert (status, err) == (0, "")
    os.kill(int(out), signal.SIGKILL)


def test_a_command_may_unmount_and_mount_again() -> None:
    program = (
        'zonefs-py umount "$ZONEFS_MNT" && zonefs-py snapshot "$ZONEFS_DEVICE" s'
        ' && zonefs-py mount "$ZONEFS_DEVICE" "$ZONEFS_MNT" --log-file /dev/null && ls "$ZONEFS_MNT/seq" | wc -l'
    )
    assert run(*SMALL, "--", "sh", "-c", program) == (0, "3\n", "")


def keeper_of(process: subprocess.Popen[str]) -> int:
    """The process that cleans up after a run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = entry.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                words = entry.joinpath("cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == process.pid and b"zonefs_py.testing.keeper" in words:
                return int(entry.name)
    raise AssertionError("there is no keeper")


def test_the_next_run_removes_what_could_not_be_removed(temporary: Path) -> None:
    process, command = waiting()
    keeper = keeper_of(process)
    os.kill(keeper, signal.SIGKILL)
    process.kill()
    os.kill(command, signal.SIGKILL)  # it has our pipe
    process.communicate(timeout=60)
    assert len(list(temporary.iterdir())) == 1
    # One that is in use is left alone.
    other, _ = waiting()
    assert len(list(temporary.iterdir())) == 1
    assert run(*SMALL, "--", "sh", "-c", 'ls -d "$ZONEFS_DEVICE" > /dev/null')[0] == 0
    assert len(list(temporary.iterdir())) == 1
    other.terminate()
    assert ended(other)[0] == 5

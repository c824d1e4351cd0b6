"""The server that the shell suite's commands run in in the machine of tests/vm, here on this computer."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.inside import command_client, command_server

ROOT = Path(__file__).parents[2]
SECONDS = 60.0

MODULE = """
import json, os, signal, sys

def main():
    kind, *rest = sys.argv[1:]
    if kind == "tell":
        umask = os.umask(0)
        told = {"argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ), "umask": umask, "in": sys.stdin.read(),
                "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1]}
        print(json.dumps(told))
        print("complaint", file=sys.stderr)
        return int(rest[0])
    if kind == "exit":
        sys.exit(rest[0])
    if kind == "raise":
        raise KeyError(rest[0])
    if kind == "die":
        os.kill(os.getpid(), int(rest[0]))
    if kind == "wait":
        if rest:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(rest[0])))
        print(os.getpid(), flush=True)
        while True:
            signal.pause()
    if kind == "daemon":
        # Stays until the fifo is opened, with all that it was given open.
        if os.fork():
            return 0
        with open(rest[0], "w") as fifo:
            fifo.write(str(os.getpid()))
    return 0
"""


@dataclass(frozen=True)
class Served:
    """A server's directory of programs."""

    programs: Path

    def run(self, *words: str, text: str = "", cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the program `tool`."""
        return subprocess.run(
            [self.programs / "tool", *words],
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], **env},
            check=False,
        )

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start it, with its standard output to be read."""
        environment = {"PATH": os.environ["PATH"], **env}
        return subprocess.Popen([self.programs / "tool", *words], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module", autouse=True)
def signals_not_ignored() -> Iterator[None]:
    """What these tests start takes signals as it would from a shell, though nohup(1) may have started the tests."""
    before = {number: signal.getsignal(number) for number in command_client.SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("server")
    (directory / "a_tool.py").write_text(MODULE)
    programs = directory / "programs"
    environment = {**os.environ, "PYTHONPATH": f"{directory}:{ROOT}"}
    words = ["-m", "tests.vm.inside.command_server", str(programs), "tool=a_tool", "other=a_tool"]
    subprocess.run([sys.executable, *words], env=environment, cwd=ROOT, check=True, timeout=SECONDS)
    # It tells nobody its process id; but it is the parent of each command.
    found = Served(programs)
    with found.start("wait") as waiting:
        assert waiting.stdout is not None
        pid = int(waiting.stdout.readline())
        server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        waiting.kill()
    yield found
    ended(server, signal.SIGKILL)


def ended(pid: int, number: int = 0) -> None:
    """Wait until a process is gone, after sending a signal to it if *number* is one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if number:
            signal.pidfd_send_signal(descriptor, number)
        assert select.select([descriptor], [], [], SECONDS)[0], f"process {pid} did not end"
    finally:
        os.close(descriptor)


def test_a_command_is_as_one_that_was_started(served: Served, tmp_path: Path) -> None:
    """Arguments, directory, environment, umask, the standard streams, the exit status."""
    before = os.umask(0o027)
    try:
        done = served.run("tell", "7", "two words", "", "ä\n", text="a line\n", cwd=tmp_path, A="1=2", B="")
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (7, "complaint\n")
    told = json.loads(done.stdout)
    assert told["argv"][1:] == ["tell", "7", "two words", "", "ä\n"]
    assert Path(told["argv"][0]).name == "tool"
    assert (told["cwd"], told["umask"], told["in"]) == (str(tmp_path), 0o027, "a line\n")
    environment = {name: value for name, value in told["env"].items() if name != "LC_CTYPE"}
    assert environment == {"PATH": os.environ["PATH"], "A": "1=2", "B": ""}
    assert told["descriptors"] == [0, 1, 2], "nothing of the server's or of other commands'"


def test_one_server_has_several_programs(served: Served) -> None:
    done = subprocess.run(
        [served.programs / "other", "tell", "0"], capture_output=True, text=True, check=True, input=""
    )
    assert Path(json.loads(done.stdout)["argv"][0]).name == "other"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("exit", "0"), 1, "0\n"),
        (("exit", "refused"), 1, "refused\n"),
        (("raise", "why"), 1, "KeyError: 'why'\n"),
        (("die", str(int(signal.SIGTERM))), -signal.SIGTERM, ""),
        (("die", str(int(signal.SIGKILL))), -signal.SIGKILL, ""),
        (("die", str(int(signal.SIGUSR1))), -signal.SIGUSR1, ""),
    ],
)
def test_how_a_command_ends(served: Served, words: tuple[str, ...], status: int, says: str) -> None:
    done = served.run(*words)
    assert done.returncode == status
    assert done.stderr.endswith(says)
    assert bool(done.stderr) == bool(says)


@pytest.mark.parametrize("number", command_client.SIGNALS)
def test_signals_are_passed_on(served: Served, number: signal.Signals) -> None:
    with served.start("wait") as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        assert pid != client.pid
        client.send_signal(number)
        assert client.wait(SECONDS) == -number
    ended(pid)


def test_a_command_may_take_a_signal_in_its_own_way(served: Served) -> None:
    with served.start("wait", "5") as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.terminate()
        assert client.wait(SECONDS) == 5


def test_a_command_ends_with_its_client(served: Served) -> None:
    """And the others go on."""
    with served.start("wait") as other, served.start("wait", "3") as client:
        assert client.stdout is not None
        assert other.stdout is not None
        other_pid, pid = int(other.stdout.readline()), int(client.stdout.readline())
        client.kill()
        ended(pid)
        assert other.poll() is None
        os.kill(other_pid, signal.SIGTERM)
        assert other.wait(SECONDS) == -signal.SIGTERM


def test_a_process_that_a_command_leaves_holds_up_nobody(served: Served, tmp_path: Path) -> None:
    """As the daemon of a mount, which goes on with the standard streams of its command."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with served.start("daemon", str(fifo)) as client:
        assert client.wait(SECONDS) == 0
        assert client.stdout is not None
        assert not select.select([client.stdout], [], [], 0)[0], "it is still open: the daemon has it"
        pid = int(fifo.read_text())
        assert client.stdout.read() == ""
        ended(pid)


def test_the_process_id_of_a_command_is_written_where_it_was_asked_for(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with served.start("wait", **{command_server.PID_FILE: str(file)}) as client:
        assert client.stdout is not None
        assert int(client.stdout.readline()) == int(file.read_text()) != client.pid
        client.kill()


def test_a_program_that_there_is_not(served: Served, tmp_path: Path) -> None:
    (served.programs / "unknown").write_bytes((served.programs / "tool").read_bytes())
    (served.programs / "unknown").chmod(0o755)
    done = subprocess.run([served.programs / "unknown"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (127, "", "unknown: no such program\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount namespace")
def test_in_another_mount_namespace_the_program_itself_runs(served: Served) -> None:
    """It would see other files than the server does: there is one called tool only beside the interpreter."""
    words = ["unshare", "--mount", str(served.programs / "tool"), "tell", "0"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
    assert done.stdout == ""


def test_a_command_says_so_when_there_is_no_server(served: Served, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes((served.programs / "tool").read_bytes())
    tool.chmod(0o755)
    done = subprocess.run([tool, "tell", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr

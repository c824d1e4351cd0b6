"""Ctrl-C: one line, status 130, and everything cleaned up; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE_SECONDS = 60

TWICE = """
import os, signal, sys
from zonefs_py.cli import common
import click
@click.command()
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    finally:
        if sys.argv[1] == "again":
            os.kill(os.getpid(), signal.SIGINT)
        print("cleaned up", flush=True)
def complain(program, message):
    os.kill(os.getpid(), signal.SIGINT)
if sys.argv[1] == "late":
    common.complain = complain
sys.exit(common.run(work, "zonefs-py", []))
"""


INTERRUPTED_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from zonefs_py.cli.start import {command}
sys.exit({command}())
"""


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.001)


def test_create_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "d"
    words = ["create", str(path), "--zones", "300000", "--zone-size", "64K"]
    with subprocess.Popen(
        [sys.executable, "-m", "zonefs_py.cli.main", *words], stderr=subprocess.PIPE, text=True
    ) as command:
        wait_until("zones are made", (path / "seq-000500").exists)
        command.send_signal(signal.SIGINT)
        _, message = command.communicate(timeout=PATIENCE_SECONDS)
    assert (command.returncode, message) == (130, "zonefs-py: interrupted\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("how", "status", "out", "err"),
    [
        ("once", 130, "cleaned up\n", "zonefs-py: interrupted\n"),
        ("again", -signal.SIGINT, "", ""),
        ("late", -signal.SIGINT, "cleaned up\n", ""),
    ],
)
def test_the_second_interrupt_ends_the_process(how: str, status: int, out: str, err: str) -> None:
    done = subprocess.run([sys.executable, "-c", TWICE, how], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


@pytest.mark.parametrize("command", ["zonefs_py", "mkzonefs", "mount_helper"])
def test_an_interrupt_while_we_are_imported(command: str) -> None:
    program = INTERRUPTED_IMPORT.format(command=command)
    done = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_what_ignores_interrupts_goes_on_to_do_so(tmp_path: Path) -> None:
    path = tmp_path / "d"
    words = ["create", str(path), "--zones", "5000", "--zone-size", "64K"]
    with subprocess.Popen(
        [sys.executable, "-m", "zonefs_py.cli.main", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as command:
        wait_until("zones are made", lambda: path.exists() and len(os.listdir(path)) > 10)
        command.send_signal(signal.SIGINT)
        _, message = command.communicate(timeout=PATIENCE_SECONDS)
    assert (command.returncode, message) == (0, "")


def test_completion_still_works() -> None:
    """Commands are run by us rather than by click's main, which does this too."""
    environment = {
        **os.environ,
        "_ZONEFS_PY_COMPLETE": "bash_complete",
        "COMP_WORDS": "zonefs-py um",
        "COMP_CWORD": "1",
    }
    program = "import sys; from zonefs_py.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,umount\n", "")

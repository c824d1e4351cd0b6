"""The process that works for another one, at the moment at which it begins."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, sys
from zonefs_py.testing.supervised import run_supervised

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

os.register_at_fork(**{sys.argv[1]: interrupt})
try:
    print(run_supervised(lambda: 3))
except KeyboardInterrupt:
    print("interrupted")
"""


def run(side: str) -> tuple[int, str, str]:
    """Ctrl-C comes to one side right after the fork."""
    command = [sys.executable, "-c", PROGRAM, side]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_child_leaves_an_early_interrupt_to_the_other_process() -> None:
    assert run("after_in_child") == (0, "3\n", "")


def test_an_early_interrupt_ends_both() -> None:
    assert run("after_in_parent") == (0, "interrupted\n", "")

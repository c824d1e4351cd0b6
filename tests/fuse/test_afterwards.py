"""Tests that are killed: their mounts, and the daemons of these, end with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.afterwards import ROOT
from tests.fuse.conftest import ZONEFS_PY, wait_until
from tests.fuse.daemon_helpers import runs
from zonefs_py.control.client import ask
from zonefs_py.control.mounts import find_mount

MODEL = """
import sys
from tests.model.drivers import MountDriver
from tests.model.oracle import Setup
from zonefs_py.zone import Geometry
driver = MountDriver("off")
driver.start(Setup(Geometry(65536, 65536, 4, 1, 4096, 65536)))
print(driver._root, flush=True)
sys.stdin.read()
"""

OTHERS = """
import subprocess, sys
from pathlib import Path
from tests.afterwards import unmounted_afterwards
directory, program = Path(sys.argv[1]), sys.argv[2]
with unmounted_afterwards(directory):
    for words in (["create", "disk", "--zones=4", "--zone-size=64K"], ["mkfs", "disk"], ["mount", "disk", "mnt"]):
        subprocess.run([program, *words], cwd=directory, check=True)
    opened = open(directory / "mnt/seq/0", "rb")
    print(directory / "mnt", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the model driver is root's")
@pytest.mark.parametrize("source", [MODEL, OTHERS], ids=["model", "others"])
def test_mounts_end_with_tests_that_are_killed(tmp_path: Path, source: str) -> None:
    (tmp_path / "mnt").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path), str(ZONEFS_PY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        mountpoint = process.stdout.readline().strip()
        daemon = ask(mountpoint, {"request": "ping"})["pid"]
        process.send_signal(signal.SIGKILL)
    wait_until("it is unmounted", lambda: find_mount(mountpoint) is None)
    wait_until("the daemon ends", lambda: not runs(daemon))

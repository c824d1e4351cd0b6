"""The way in: a mount whose requests would pass the C extension by is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .conftest import command_environment

BEFORE_THE_DOOR = """
import sys
import pyfuse3  # bound to libfuse's own functions from here on
from zonefs_py.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_pyfuse3_that_does_not_come_through_the_door_is_not_served(
    device_dir: Callable[..., Path], tmp_path: Path
) -> None:
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    command: list[str | Path] = [sys.executable, "-c", BEFORE_THE_DOOR, "mount", "--foreground", device_dir(), mnt]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=command_environment())
    assert done.returncode == 1
    assert "pyfuse3 did not come through zonefs-py's C extension" in done.stderr
    assert "Traceback" not in done.stderr
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert str(mnt) not in mounted
    assert not list(mnt.iterdir())

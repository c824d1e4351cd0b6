"""zonefs_py/fuse/_door.c compiles against the versions of libfuse that it says it knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/check_door.py"
COMPILES, DOES_NOT, NOT_TO_BE_HAD = 0, 1, 3


def check(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOL, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )


def test_the_installed_libfuse() -> None:
    done = check()
    assert done.returncode == COMPILES, done.stderr


@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_newer_versions_of_libfuse(suite: str) -> None:
    """3.17 or newer: what the session is made by has another name there, and passthrough is libfuse's own."""
    done = check("--debian", suite)
    if done.returncode == NOT_TO_BE_HAD:
        pytest.skip(f"the headers of libfuse in Debian {suite} cannot be fetched here")
    assert done.returncode == COMPILES, done.stderr
    version = tuple(map(int, done.stdout.split()[1].split(".")))
    assert version >= (3, 17)


def test_headers_that_do_not_fit(tmp_path: Path) -> None:
    """The check can fail, and says why."""
    (tmp_path / "fuse_lowlevel.h").write_text("#define FUSE_MAJOR_VERSION 3\n#define FUSE_MINOR_VERSION 16\n")
    done = check(tmp_path)
    assert done.returncode == DOES_NOT
    assert "fuse_session" in done.stderr


def test_a_suite_that_does_not_exist() -> None:
    done = check("--debian", "no-such-suite")
    assert done.returncode == NOT_TO_BE_HAD
    assert done.stderr.startswith("check_door: Debian no-such-suite: ")

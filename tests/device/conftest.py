"""Fixtures of the tests of emulated devices in directories."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.device.directories import GEOMETRY, HOLDER, Tmpfs, needs_root
from zonefs_py.device.directory import create_device


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A device with two conventional and six sequential zones."""
    path = tmp_path / "disk"
    create_device(path, GEOMETRY, serial="s1")
    return path


@pytest.fixture
def hold() -> Iterator[Callable[[Path, str], int]]:
    """A function that opens a device in another process (``"rw"`` or ``"ro"``) and returns its pid."""
    processes: list[subprocess.Popen[str]] = []

    def hold(path: Path, how: str) -> int:
        command = [sys.executable, "-c", HOLDER, str(path), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process.pid

    yield hold
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Tmpfs]:
    """A function that mounts a tmpfs with the options given and returns where."""
    needs_root("mounting a tmpfs")
    mounts = Tmpfs(tmp_path)
    yield mounts
    mounts.unmount()

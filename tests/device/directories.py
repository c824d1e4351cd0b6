"""What tests of emulated devices in directories share: one device, its files, and small file systems to fill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.conformance import KIB, geometry

GEOMETRY = geometry(conventional=2, capacity=48 * KIB)
SIZE = GEOMETRY.zone_size
CAPACITY = GEOMETRY.zone_capacity
BLOCK = GEOMETRY.block_size
FIRST = 2
"""The first sequential zone."""

MIB = 1024 * KIB


def zone_file(path: Path, number: int) -> Path:
    """The file of a zone."""
    return path / f"{'cnv' if number < 2 else 'seq'}-{number:06d}"


def run_python(program: str, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run *program* in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def needs_root(why: str) -> None:
    """Skip the test where this user cannot do what it needs."""
    if os.geteuid() != 0:
        pytest.skip(f"{why}: run as root")


class Tmpfs:
    """Mounts small file systems; all are unmounted at the end of the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mounted: list[Path] = []

    def __call__(self, options: str) -> Path:
        path = self._directory / f"tmpfs{len(self._mounted)}"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "zonefs-py-test", path], check=True, timeout=30)
        self._mounted.append(path)
        return path

    def unmount(self) -> None:
        for path in self._mounted:
            subprocess.run(["umount", path], check=True, timeout=30)


HOLDER = """
import sys
from zonefs_py.device.directory import open_device
with open_device(sys.argv[1], read_only=sys.argv[2] == "ro") as device:
    print("open", flush=True)
    sys.stdin.read()
"""


def listing(path: Path) -> list[tuple[str, int, int]]:
    """Names, types and sizes in a directory."""
    return sorted((entry.name, entry.lstat().st_mode, entry.lstat().st_size) for entry in path.iterdir())

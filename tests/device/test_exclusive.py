"""Who may use a block device: the locks among ourselves, and how the kernel's users of it are named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zonefs_py.device import exclusive
from zonefs_py.device.sysfs import BlockFacts
from zonefs_py.errors import DeviceInUse

FACTS = BlockFacts(
    number=os.makedev(8, 16),
    name="sdb",
    whole=None,
    zone_model="host-managed",
    size=1 << 30,
    logical_block_size=4096,
    write_granularity=4096,
    max_open_zones=None,
    max_active_zones=None,
    read_only=False,
    model="",
    serial="",
    holders=(),
)


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A file in the place of a device: flock(2) is the same."""
    path = tmp_path / "node"
    path.touch()
    return str(path)


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_a_lock_keeps_others_out(node: str, first: bool, second: bool) -> None:
    held = exclusive.lock(node, exclusive=first)
    with pytest.raises(DeviceInUse, match=rf"{re.escape(node)} is in use by pid {os.getpid()}"):
        exclusive.lock(node, exclusive=second)
    os.close(held)
    os.close(exclusive.lock(node, exclusive=second))


def test_readers_share(node: str) -> None:
    readers = [exclusive.lock(node, exclusive=False) for _ in range(3)]
    for reader in readers:
        os.close(reader)


def test_a_lock_goes_with_its_process(node: str) -> None:
    program = f"""
import os
from zonefs_py.device import exclusive
exclusive.lock({node!r}, exclusive=True)
print(os.getpid(), flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        with pytest.raises(DeviceInUse, match=f"by pid {pid}"):
            exclusive.lock(node, exclusive=False)
        other.kill()
    os.close(exclusive.lock(node, exclusive=True))


def test_busy_for_a_moment_is_waited_for(node: str) -> None:
    attempts = 0

    def open_device() -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise BlockingIOError(16, "Device or resource busy")
        return "open"

    assert exclusive.open_exclusively(node, FACTS, open_device) == "open"
    assert attempts == 3


def busy() -> None:
    """What open(2) does with O_EXCL to a device that somebody uses."""
    raise OSError(16, "Device or resource busy")


def test_who_uses_it_is_named(node: str) -> None:
    with pytest.raises(DeviceInUse, match=f"{re.escape(node)} is in use by dm-0, dm-1$"):
        exclusive.open_exclusively(node, replace(FACTS, holders=("dm-0", "dm-1")), busy)
    line = Path("/proc/self/mountinfo").read_text().splitlines()[0].split()
    major, minor = map(int, line[2].split(":"))
    with pytest.raises(DeviceInUse, match="is in use as the file system at /"):
        exclusive.open_exclusively(node, replace(FACTS, number=os.makedev(major, minor)), busy)


def test_patience_ends(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(DeviceInUse, match="is in use by another process, or by the kernel"):
        exclusive.open_exclusively(node, FACTS, busy)


def test_other_failures_are_passed_on(node: str) -> None:
    def missing() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(FileNotFoundError):
        exclusive.open_exclusively(node, FACTS, missing)

"""``--scale``: what many zones cost, in time and in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks.common import BenchError, info, progress, run
from tools.benchmarks.machine import settle
from tools.benchmarks.places import kind_of

STEPS = ("create", "mkfs", "mount", "ls -l", "report", "umount", "stat")
CONVENTIONAL = 4
SMALLEST = 8
"""Zones of a device whose figures are fixed costs: starting programs, libraries in memory."""


def resident_bytes(status: str, name: str = "VmRSS") -> int:
    """The bytes of memory of the line *name* in the text of /proc/PID/status. Raises BenchError without it."""
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise BenchError("the daemon has gone")


def measure_scale(tool: str, work: Path, sizes: list[int], runs: int) -> dict[str, Any]:
    """Measure devices of *sizes* zones, each *runs* times, and one with hardly any; return the section ``scale``."""
    rows: dict[int, list[dict[str, Any]]] = {zones: [] for zones in (SMALLEST, *sizes)}
    for turn in range(runs):
        for zones, found in rows.items():
            prefix = f"{zones:,} zones, run {turn + 1} of {runs}"
            # None is removed before the end: ext4 passes over inodes that were freed a moment ago, one after the other.
            # Making many files right after many were removed takes many times as long.
            found.append(_measure_device(tool, work, work / f"disk-{zones}-{turn}", zones, prefix))
    progress("")
    return {
        "runs": runs,
        "filesystem": kind_of(work),
        "smallest": SMALLEST,
        "rows": [{"zones": zones, "runs": found} for zones, found in rows.items()],
    }


def _measure_device(tool: str, work: Path, device: Path, zones: int, prefix: str) -> dict[str, Any]:
    mount_point = work / "mnt"
    mount_point.mkdir(exist_ok=True)
    seconds: dict[str, float] = {}
    memory: dict[str, int] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        progress(f"{prefix}: {name}")
        started = time.perf_counter()
        result = action()
        seconds[name] = time.perf_counter() - started
        return result

    def mount() -> None:
        run(tool, "mount", device, mount_point)

    def status() -> str:
        pid = info(tool, mount_point)["mount"]["pid"]
        return Path(f"/proc/{pid}/status").read_text()

    geometry = ("--zones", str(zones), "--conventional", str(CONVENTIONAL), "--zone-size", "4M")
    try:
        timed("create", lambda: run(tool, "create", device, *geometry))
        timed("mkfs", lambda: run(tool, "mkfs", device))
        timed("mount", mount)
        memory["after mount"] = resident_bytes(status())
        listed = timed("ls -l", lambda: run("ls", "-l", mount_point / "seq"))
        # It prints one line of totals more than there are files.
        _expect(zones, len(listed.splitlines()) - 1)
        memory["after ls -l"] = resident_bytes(status())
        timed("report", lambda: run(tool, "report", mount_point, "--format", "json"))
        memory["highest"] = resident_bytes(status(), "VmHWM")
        timed("umount", lambda: run(tool, "umount", mount_point))
        # A new mount, of which the kernel knows nothing yet.
        mount()
        _expect(zones, timed("stat", lambda: _stat_all(mount_point / "seq", zones)))
        run(tool, "umount", mount_point)
    finally:
        if os.path.ismount(mount_point):
            run(tool, "umount", mount_point)
        # Or the file system would still be busy with it when the next device is made.
        settle(work)
    return {"seconds": seconds, "memory_bytes": memory}


def _stat_all(directory: Path, zones: int) -> int:
    """Ask for the attributes of every file by its name; return how many there are."""
    for number in range(zones - CONVENTIONAL):
        (directory / str(number)).stat()
    return zones - CONVENTIONAL


def _expect(zones: int, files: int) -> None:
    if files != zones - CONVENTIONAL:
        raise BenchError(f"{files} sequential files were found, where {zones - CONVENTIONAL} must be")

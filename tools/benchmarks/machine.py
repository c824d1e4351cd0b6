"""What was measured on: without it a figure says nothing."""

from __future__ import annotations

import contextlib
import datetime
import mmap
import os
import platform
import re
from pathlib import Path
from typing import Any

from tools.benchmarks.common import GIB, BenchError, Notes, run

BUSY = 0.5
"""Load average for each processor above which figures are doubtful."""


def is_busy(load: float, processors: int) -> bool:
    """Whether a machine with this load average of one minute is too busy to be measured."""
    return load > BUSY * processors


def processor_name(cpuinfo: str) -> str:
    """The name of the first processor in the text of /proc/cpuinfo."""
    found = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(found[1].split()) if found else "unknown processor"


def memory_bytes(meminfo: str, name: str = "MemTotal") -> int:
    """The bytes of the line *name* of /proc/meminfo. Raises BenchError if it is missing."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if not found:
        raise BenchError(f"/proc/meminfo has no {name}")
    return int(found[1]) * 1024


def busy_text() -> str | None:
    """What to say of this machine if it is too busy now, else None."""
    load, processors = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if not is_busy(load, processors):
        return None
    return f"the machine is busy: load average {load:.2f} with {processors} processors; figures are doubtful"


def describe(tool: str, notes: Notes) -> dict[str, Any]:
    """Describe this machine, and warn if it is busy."""
    if text := busy_text():
        notes.warn(text)
    libfuse = "unknown"
    with contextlib.suppress(BenchError):
        libfuse = run("pkg-config", "--modversion", "fuse3").strip()
    return {
        "processor": processor_name(Path("/proc/cpuinfo").read_text()),
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_bytes(Path("/proc/meminfo").read_text()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libfuse": libfuse,
        "zonefs_py": run(tool, "--version").strip().split()[-1],
        "fio": run("fio", "--version").strip().removeprefix("fio-"),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average": os.getloadavg()[0],
    }


def sentence(machine: dict[str, Any]) -> str:
    """The machine in one sentence, for people."""
    memory = machine["memory_bytes"] / GIB
    return (
        f"{machine['processor']}, {machine['processors']} processors, {memory:.0f} GiB of memory, {machine['kernel']}, "
        f"Python {machine['python']}, libfuse {machine['libfuse']}, fio {machine['fio']}, zonefs-py "
        f"{machine['zonefs_py']}; {machine['date']}, load average {machine['load_average']:.2f} at the start."
    )


def settle(path: Path, size: int = 0) -> None:
    """Wait until all that was written to the file system of *path* is on its disk; have *size* bytes of memory ready.

    Or it would be on its way there while the next thing is measured. Only that file system: others may never be done.
    Memory that nobody uses is taken back by the host of a virtual machine (free page reporting). To get it again
    costs ten times what is measured, and would be charged to whoever happens to write first.
    """
    run("sync", "--file-system", path)
    size = min(size, memory_bytes(Path("/proc/meminfo").read_text("ascii"), "MemAvailable") // 2)
    if size:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()

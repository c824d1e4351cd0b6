"""``--vm``: the I/O suite in the machine of tools/vm, beside kernel zonefs on a null_blk device.

The machine's processor may be emulated, so its figures are low; the ratios are what counts.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.benchmarks.common import ROOT, BenchError
from tools.benchmarks.machine import busy_text

DEVICE = "null_blk:zone_size=64,zones=9,zone_nr_conv=0"
"""Zones of 64 MiB in memory: one for the superblock, four to read, four to write."""
MEMORY_MIB = 4096
SECONDS = 3600
"""After which the machine is ended."""
INSIDE = 'exec "$@" --directory /dev/shm --our-device "$ZONEFS_VM_DEVICE_0" --kernel-device "$ZONEFS_VM_DEVICE_1"'


def command(tool: str, out: Path, *, runs: int, seconds: int, busy: str | None) -> list[str]:
    """The command that starts the machine and measures in it; results are left in *out*, an absolute path.

    *busy* is what makes the host doubtful, which cannot be seen from inside.
    """
    machine = [str(ROOT / "tools/vm"), "run", "--memory", str(MEMORY_MIB), "--timeout", str(seconds)]
    machine += ["--device", DEVICE, "--device", DEVICE, "--share", str(out), "--", "bash", "-c", INSIDE, "bash"]
    bench = [sys.executable, str(ROOT / "tools/bench"), "--io", "--single", "--small", "--runs", str(runs)]
    bench += ["--warning", f"outside, {busy}"] if busy else []
    return [*machine, *bench, "--command", tool, "--out", str(out)]


def measure_in_machine(tool: str, out: Path, *, runs: int) -> None:
    """Measure, and leave the result in *out*, an absolute path. Raises BenchError."""
    if not (ROOT / "tools/vm").exists():
        raise BenchError("tools/vm is missing: this is not the whole source tree")
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command(tool, out, runs=runs, seconds=SECONDS, busy=busy_text()), check=False)
    if done.returncode:
        raise BenchError(f"measuring in the machine failed with exit status {done.returncode}; see above")

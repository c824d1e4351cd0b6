"""NVMe namespaces in a machine: `inside.test_nvme` on one of QEMU's, which copies, and on one of the kernel's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools.machine.session import Machine, Settings

ROOT = Path(__file__).parents[2]

DEVICES = (
    "zns:zone_size=4M,zone_capacity=3M,max_open=6,max_active=8,mssrl=128,mcl=256,msrc=15",
    "nvmet:zone_size=4M,zones=16",
)


def test_nvme() -> None:
    """Small limits, so that nearly every copy is cut; the first namespace is QEMU's, the second nvmet's (loop)."""
    with Machine.start(Settings(devices=DEVICES)) as machine:
        arguments = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/vm/inside/test_nvme.py"]
        result = machine.run(
            [sys.executable, *arguments],
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
            cwd=ROOT,
            timeout=900,
        )
    output = (result.stdout + result.stderr).decode(errors="replace")
    assert result.status == 0, output
    assert " skipped" not in output, output

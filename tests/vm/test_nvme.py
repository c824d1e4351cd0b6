"""NVMe namespaces: `inside.test_nvme` on one of QEMU's, which copies, and on one of the kernel's, which does not."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.vm.conftest import Guest

ROOT = Path(__file__).parents[2]


def test_nvme(guest: Guest) -> None:
    """The limits of QEMU's are small, so that nearly every copy is cut; the other is nvmet's, over loop."""
    with guest.device("nvmet:zone_size=4M,zones=16") as nvmet:
        arguments = ("-v", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=600")
        done = guest.run(
            sys.executable,
            "-m",
            "pytest",
            *arguments,
            str(ROOT / "tests/vm/inside/test_nvme.py"),
            ZONEFS_TEST_ZNS=guest.zns,
            ZONEFS_TEST_NVMET=nvmet,
            PYTHONPATH=str(ROOT),
            PYTHONDONTWRITEBYTECODE="1",
        )
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout, done.stdout

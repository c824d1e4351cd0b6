"""tools/zone-fsx on real mounts: it finds nothing wrong, it repeats itself, and it does find what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ZONEFS_PY, Mounts, run

ZONE_FSX = Path(__file__).parents[2] / "tools" / "zone-fsx"


def zone_fsx(*words: object, status: int = 0) -> str:
    """Run the tool, which must end with *status*; return what it printed."""
    done = run(sys.executable, ZONE_FSX, *map(str, words), check=False, timeout=1500)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("geometry", "mkfs", "options", "words"),
    [
        ({"zones": 8, "conventional": 3, "zone_size": "256K", "zone_capacity": "192K"}, (), "errors=repair", ()),
        (
            {
                "zones": 10,
                "conventional": 4,
                "zone_size": "128K",
                "zone_capacity": "100K",
                "last_zone_size": "64K",
                "block_size": 512,
                "max_active": 3,
            },
            ("-o", "aggr_cnv"),
            "errors=repair,copy=emulate",
            ("--max-active", "3"),
        ),
    ],
    ids=["4096", "512-aggregated-limited"],
)
def test_every_byte_is_right(
    device_dir: Callable[..., Path],
    mounted: Mounts,
    geometry: dict[str, object],
    mkfs: tuple[str, ...],
    options: str,
    words: tuple[str, ...],
) -> None:
    device = device_dir(mkfs=mkfs, **geometry)
    path = mounted(device, options)
    mounted.expect_log(path, "3 zones are active, and no more can be")
    again = f"{options},log={mounted.get(path).log_file}"
    report = zone_fsx(
        path,
        *("--seed", 20220426, "--ops", 3000, *words),
        *("--device", device, "--options", again, "--command", ZONEFS_PY, "--remount-every", 1100),
    )
    assert "3000 operations" in report
    assert "2 remount" in report
    for name in ("append", "copy", "sendfile", "truncate", "write", "write_direct", "write_mapped", "read_mapped"):
        assert f" {name}" in report


def test_zones_of_more_than_one_request(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    # FUSE takes direct I/O of 1 MiB in one piece only if its memory begins with a page.
    path = mounted(device_dir(zones=5, conventional=2, zone_size="2M"))
    report = zone_fsx(path, "--seed", 77, "--ops", 300, "--longest", 3 << 19)
    assert "300 operations" in report


def test_a_seed_repeats_the_operations(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    reports = []
    for _ in range(2):
        path = mounted(device_dir(zones=6, zone_size="128K"))
        reports.append(zone_fsx(path, "--seed", 7, "--ops", 300, "--trace").splitlines())
    assert len(reports[0]) > 250
    assert reports[0][:-1] == reports[1][:-1]
    other = zone_fsx(path, "--seed", 8, "--ops", 300, "--trace").splitlines()
    assert other[1:10] != reports[0][1:10]


def test_a_changed_byte_is_found(device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path) -> None:
    device = device_dir(zones=6, zone_size="128K")
    path = mounted(device)
    # The device lies still between unmount and mount: there one byte is changed behind the file system's back.
    command = tmp_path / "zonefs-py"
    command.write_text(f"""#!{sys.executable}
import os, sys
from pathlib import Path
if sys.argv[1] == "mount":
    victim = max(Path({str(device)!r}).glob("seq-*"), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as stream:
        place = victim.stat().st_size // 2
        stream.seek(place)
        (byte,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ 0x10]))
    print(victim.name, place, file=open({str(tmp_path / "planted")!r}, "w"))
os.execv({str(ZONEFS_PY)!r}, ["zonefs-py", *sys.argv[1:]])
""")
    command.chmod(0o755)
    log = f"log={mounted.get(path).log_file}"
    words = ("--device", device, "--options", log, "--command", command, "--remount-every", 200)
    report = zone_fsx(path, "--seed", 1, "--ops", 1000, *words, status=1)
    zone, place = (tmp_path / "planted").read_text().split()
    name = f"seq/{int(zone.removeprefix('seq-')) - 2}"
    assert f"zone-fsx: after 200 operations: {name}: 1 of " in report
    assert f"the first at {place}: " in report
    # What was done before it, and how to see it again.
    assert "  200: remount\n" in report
    assert "zone-fsx: seed 1 does it again" in report


def test_what_it_cannot_test(tmp_path: Path) -> None:
    assert "has no zone files" in zone_fsx(tmp_path, status=2)


def test_a_hundred_thousand_operations(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    device = device_dir(zones=8, conventional=3, zone_size="256K")
    path = mounted(device)
    again = f"log={mounted.get(path).log_file}"
    report = zone_fsx(
        path,
        *("--seed", 20220427, "--ops", 100_000),
        *("--device", device, "--options", again, "--command", ZONEFS_PY, "--remount-every", 10_000),
    )
    assert "100000 operations" in report

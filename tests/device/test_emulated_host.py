"""The emulated device in a directory: how it fares when the host fails."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.descriptors import files_at_most
from tests.device.conformance import KIB, geometry, pattern, zone_of
from tests.device.directories import BLOCK, MIB, Tmpfs, run_python, zone_file
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import HostFull, UserError
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

ROOMY = Geometry(MIB, MIB, 8, 1, BLOCK, MIB)


def test_a_full_host_loses_nothing(tmpfs: Tmpfs) -> None:
    root = tmpfs("size=1536k")
    create_device(root / "disk", ROOMY)
    device = open_device(root / "disk")
    for more in range(0, MIB, 64 * KIB):
        device.write(MIB + more, pattern(more, 64 * KIB))

    def write_the_next_zone() -> None:
        for more in range(0, MIB, 80 * KIB):
            device.write(2 * MIB + more, pattern(more, 80 * KIB))

    with pytest.raises(HostFull) as raised:
        write_the_next_zone()
    assert raised.value.errno == errno.ENOSPC
    zone = zone_of(device, 2)
    kept = zone.wp - zone.start
    assert kept % BLOCK == 0
    assert (root / "disk" / "seq-000002").stat().st_size == kept
    assert 0 < kept < MIB
    # What is there is what was written, and nothing more can be.
    assert device.read(2 * MIB, kept) == b"".join(
        pattern(more, min(80 * KIB, kept - more)) for more in range(0, kept, 80 * KIB)
    )
    for _ in range(3):
        with pytest.raises(HostFull):
            device.write(zone.wp, pattern(0, 64 * KIB))
        assert zone_of(device, 2).wp == zone.wp
    with pytest.raises(HostFull):
        device.write(0, pattern(0, MIB))
    device.close()
    device = open_device(root / "disk")
    assert zone_of(device, 2).wp == zone.wp
    assert device.read(MIB, MIB) == b"".join(pattern(more, 64 * KIB) for more in range(0, MIB, 64 * KIB))
    # A reset frees space, and writing goes on where it stopped.
    device.zone_mgmt(ZoneOp.RESET, 1)
    device.write(zone.wp, pattern(kept, MIB - kept))
    assert zone_of(device, 2).condition is ZoneCondition.FULL
    assert device.read(2 * MIB + kept, MIB - kept) == pattern(kept, MIB - kept)
    device.close()


def test_a_full_host_takes_no_new_conditions(tmpfs: Tmpfs) -> None:
    root = tmpfs("size=256k")
    create_device(root / "disk", ROOMY)
    with open_device(root / "disk") as device, (root / "filler").open("wb", buffering=0) as filler:
        space = shutil.disk_usage(root).free
        assert filler.write(bytes(space)) == space
        zones = device.report_zones()
        with pytest.raises(HostFull):
            device.force_condition(3, ZoneCondition.OFFLINE)
        assert device.report_zones() == zones
        os.unlink(root / "filler")
        filler.truncate(0)
        assert not [entry for entry in os.listdir(root / "disk") if entry.startswith(".")]
        device.force_condition(3, ZoneCondition.OFFLINE)
    with open_device(root / "disk") as device:
        assert zone_of(device, 3).condition is ZoneCondition.OFFLINE


@pytest.mark.parametrize("options", ["size=1m,nr_inodes=10", "size=16k,nr_inodes=100"])
def test_a_creation_that_does_not_fit_leaves_nothing(tmpfs: Tmpfs, options: str) -> None:
    root = tmpfs(options)
    if "16k" in options:
        (root / "filler").write_bytes(bytes(16 * KIB))
    with pytest.raises(OSError, match="No space"):
        create_device(root / "disk", geometry(zones=20))
    assert not (root / "disk").exists()


@pytest.mark.parametrize("conventional", [0, 2])
def test_zones_that_no_file_can_hold_are_refused(tmp_path: Path, conventional: int) -> None:
    refused = pytest.raises(
        UserError, match=r"^a zone of 512K is larger than a file can be there: choose smaller zones$"
    )
    with files_at_most(256 * KIB), refused:
        create_device(tmp_path / "disk", Geometry(512 * KIB, 512 * KIB, 4, conventional, 4096, 512 * KIB))
    assert not (tmp_path / "disk").exists()


LIMITED = """
import resource, sys
from zonefs_py.device.directory import open_device
from zonefs_py.errors import DeviceError
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
with open_device(sys.argv[1]) as device:
    device.write(2 * 65536, b"a" * 4096)
    for _ in range(2):
        try:
            device.write(2 * 65536 + device.report_zones(2, 1)[0].data_size, b"b" * 16384)
        except DeviceError as exc:
            print(type(exc).__name__, device.report_zones(2, 1)[0].data_size)
"""


def test_half_a_block_that_the_host_took_is_cut_off(path: Path) -> None:
    done = run_python(LIMITED, path)
    assert (done.stdout, done.stderr) == ("DeviceError 8192\nDeviceError 8192\n", "")
    assert zone_file(path, 2).read_bytes() == b"a" * 4096 + b"b" * 4096

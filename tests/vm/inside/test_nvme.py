"""NVMe namespaces as the kernel has them: QEMU's ZNS, which copies, and one of the kernel's own target, which does not.

tests/vm/test_nvme.py gives their paths. The limits of the first are 128 blocks a range, 256 in all, and 16 ranges.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zonefs_py import copy_ranges
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.copy.plan import gather
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.nvme import IoctlNamespace, NvmeDevice
from zonefs_py.device.nvme_copy import NvmeCommand, SourceRange, encode_sources
from zonefs_py.device.nvme_status import CODE_MASK, Status
from zonefs_py.device.nvme_target import CopyTarget, TargetLimits
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, Zone, ZoneCondition, ZoneOp

BLOCK = 4096
ZONE_BLOCKS = 1024
CAPACITY_BLOCKS = 768
ZONE = ZONE_BLOCKS * BLOCK
CAPACITY = CAPACITY_BLOCKS * BLOCK
LIMITS = TargetLimits(mssrl=128, mcl=256, msrc=15)
SOURCE = random.Random(4).randbytes(CAPACITY)
"""What zone 1 holds."""

ZNS = os.environ.get("ZONEFS_TEST_ZNS", "")
NVMET = os.environ.get("ZONEFS_TEST_NVMET", "")


def zone_of(device: ZonedDevice, number: int) -> Zone:
    return device.report_zones(number, 1)[0]


def emptied(path: str) -> ZonedDevice:
    """The device, with `SOURCE` in zone 1 and nothing else."""
    device = open_stack(path)
    for zone in device.report_zones():
        if zone.condition is not ZoneCondition.EMPTY:
            device.zone_mgmt(ZoneOp.RESET, zone.number)
    for done in range(0, CAPACITY, 1 << 20):
        device.write(ZONE + done, SOURCE[done : done + (1 << 20)])
    return device


@pytest.fixture
def device() -> Iterator[NvmeDevice]:
    """QEMU's namespace."""
    with emptied(ZNS) as device:
        assert isinstance(device, NvmeDevice)
        yield device


def test_it_copies_within_the_limits_that_it_tells(device: NvmeDevice) -> None:
    info = device.info
    assert info.copy_methods == (CopyMethod.DEVICE,)
    assert (info.copy_max_hw_bytes, info.copy_max_range_hw_bytes) == (256 * BLOCK, 128 * BLOCK)
    assert info.copy_max_nr_ranges_hw == 16
    assert (info.zone_size, info.block_size) == (ZONE, BLOCK)


def test_a_zone_is_copied_by_many_commands(device: NvmeDevice) -> None:
    engine = CopyEngine(device)
    result = engine.copy(gather([(ZONE, CAPACITY)], 3 * ZONE))
    assert (result.completed, result.error) == (CAPACITY, None)
    counters = engine.counters
    assert counters[Engine.DEVICE].commands == 3
    assert not counters[Engine.EMULATE].copies
    assert zone_of(device, 3).condition is ZoneCondition.FULL
    assert device.read(3 * ZONE, CAPACITY) == SOURCE


def test_ranges_from_all_over_are_gathered(device: NvmeDevice) -> None:
    engine = CopyEngine(device)
    places = [(ZONE + (number * 37 % 700) * BLOCK, (number % 5 + 1) * BLOCK) for number in range(40)]
    total = sum(length for _, length in places)
    assert engine.copy(gather(places, 3 * ZONE)).completed == total
    assert engine.counters[Engine.DEVICE].commands == 3
    assert zone_of(device, 3).wp == 3 * ZONE + total
    expected = b"".join(SOURCE[start - ZONE : start - ZONE + length] for start, length in places)
    assert device.read(3 * ZONE, total) == expected


def test_writing_goes_on_after_a_copy(device: NvmeDevice, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel's write plug of an open zone is behind then: it refuses a write, and nobody may notice."""
    caplog.set_level(logging.INFO)
    expected = b""
    for turn in range(4):
        written = SOURCE[turn * 64 * BLOCK :][: 3 * BLOCK]
        device.write(3 * ZONE + len(expected), written)
        expected += written
        device.copy([CopyRange(ZONE + turn * BLOCK, 3 * ZONE + len(expected), 5 * BLOCK)], CopyMethod.DEVICE)
        expected += SOURCE[turn * BLOCK :][: 5 * BLOCK]
        assert zone_of(device, 3).wp == 3 * ZONE + len(expected)
    device.flush(3)
    assert device.read(3 * ZONE, len(expected)) == expected
    # Kernels without write plugs, and later ones that may know better, refuse nothing.
    repeated = [record for record in caplog.records if "is repeated" in record.message]
    assert len(repeated) in (0, 3)


def test_an_error_is_one_and_the_zone_goes_on(device: NvmeDevice) -> None:
    device.write(3 * ZONE, SOURCE[:BLOCK])
    for destination in (3 * ZONE, 3 * ZONE + 9 * BLOCK, ZONE):
        with pytest.raises(DeviceError, match="NVMe status") as raised:
            device.copy([CopyRange(2 * ZONE, destination, BLOCK)], CopyMethod.DEVICE)
        assert (raised.value.completed, raised.value.errno_name) == (0, "EIO")
    assert zone_of(device, 3).wp == 3 * ZONE + BLOCK
    # Past the capacity: the first range fits, and is told to.
    end = 3 * ZONE + CAPACITY
    engine = CopyEngine(device)
    assert engine.copy(gather([(ZONE, CAPACITY - 5 * BLOCK)], 3 * ZONE + BLOCK)).error is None
    with pytest.raises(DeviceError) as raised:
        device.copy(
            [CopyRange(ZONE, end - 4 * BLOCK, 2 * BLOCK), CopyRange(ZONE, end - 2 * BLOCK, 3 * BLOCK)],
            CopyMethod.DEVICE,
        )
    assert raised.value.completed == 2 * BLOCK
    assert zone_of(device, 3).wp == end - 2 * BLOCK
    device.write(end - 2 * BLOCK, SOURCE[: 2 * BLOCK])
    assert zone_of(device, 3).condition is ZoneCondition.FULL


def command(destination: int, *sources: tuple[int, int]) -> NvmeCommand:
    return encode_sources(1, destination, [SourceRange(*source) for source in sources])


COMMANDS = [
    command(3072, (1024, 1), (1030, 3)),
    command(3076, (1024, 128), (1100, 128)),
    command(3332, (1024, 129)),
    command(3332, (1024, 100), (1024, 129)),
    command(3432, (1024, 1), (5000, 8), (3072, 20)),
    command(3431, (1024, 1)),
    command(3500, (1024, 1)),
    command(3461, (1024, 1), (1024 * 1024, 1)),
    command(3462, (1024, 1), (2040, 20)),
    command(3463, *[(1024, 1)] * 17),
    command(3463, *[(1024, 1)] * 16),
    command(1024, (3072, 1)),
    command(4096, *[(1024 + 16 * number, 16) for number in range(16)]),
    command(4352, *[(1024 + 16 * number, 16) for number in range(16)]),
    command(4608, *[(1024, 100), (1024, 100), (1024, 56)]),
    command(4864, (1024, 1)),
    command(1024 * 1024, (1024, 1)),
    command(5120, (1024, 1))._replace(cdw=(5120, 0, 0x300, 0, 0, 0)),
]


def test_our_model_of_a_target_does_the_same(device: NvmeDevice) -> None:
    """Command by command: the same data, write pointers and dword 0; statuses, as far as this QEMU gives any."""
    namespace = IoctlNamespace(os.open(ZNS, os.O_RDWR))
    nr_zones = device.info.nr_zones
    memory = MemoryDevice(Geometry(ZONE, CAPACITY, nr_zones, 0, BLOCK, ZONE), 6, 8)
    memory.write(ZONE, SOURCE)
    target = CopyTarget(memory, LIMITS)
    for number, one in enumerate(COMMANDS):
        theirs, ours = namespace.submit(one)[0], target.submit(one)[0]
        what = f"command {number}: {theirs} {ours}"
        there, here = theirs.status & CODE_MASK, ours.status & CODE_MASK
        # QEMU 7.2 says Internal Error for most of what a range can be refused for.
        assert there == here or (there == Status.INTERNAL_ERROR and here), what
        assert theirs.result == ours.result, what
        for zone in range(1, 6):
            assert zone_of(device, zone).data_size == zone_of(memory, zone).data_size, what
            assert device.read(zone * ZONE, ZONE) == memory.read(zone * ZONE, ZONE), what


def test_whoever_may_open_it_may_copy_or_is_not_offered_to(device: NvmeDevice) -> None:
    """Permission is found out when the device is opened: a copy never fails for it later."""
    device.close()
    os.chmod(ZNS, 0o666)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with open_stack(ZNS) as own:
                result = CopyEngine(own).copy(gather([(ZONE, 200 * BLOCK)], 3 * ZONE))
                status = 0 if (result.completed, result.error) == (200 * BLOCK, None) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# A mount


class Mount:
    """A mounted file system of ours."""

    def __init__(self, device: str, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        run("mkfs", "-f", device)
        run("mount", "-o", "errors=remount-ro", device, str(directory))

    def info(self) -> Any:
        """What `zonefs-py info` tells."""
        return json.loads(run("info", "--format", "json", str(self.directory)))

    def append(self, name: str, data: bytes) -> None:
        """Write *data* at the end of a file, from aligned memory: the kernel cuts a large write at pages."""
        handle = os.open(self.directory / name, os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
        try:
            with mmap.mmap(-1, len(data)) as memory:
                memory[:] = data
                assert os.write(handle, memory) == len(data)
        finally:
            os.close(handle)

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def copy(self, source: str, target: str, length: int) -> int:
        """Append *length* bytes of *source* to *target* by copy_file_range."""
        with open(self.directory / source, "rb") as reader, open(self.directory / target, "r+b") as writer:
            end = os.fstat(writer.fileno()).st_size
            done = 0
            while done < length:
                copied = os.copy_file_range(reader.fileno(), writer.fileno(), length - done, done, end + done)
                assert copied
                done += copied
            return done


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "zonefs_py.cli.main", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


@pytest.fixture(params=["zns", "nvmet"])
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Mount, bool]]:
    """A mount of either device, and whether that copies by itself."""
    mounted = Mount(ZNS if request.param == "zns" else NVMET, tmp_path / "mnt")
    try:
        yield mounted, request.param == "zns"
    finally:
        run("umount", str(mounted.directory))


def test_files_are_copied(mount: tuple[Mount, bool]) -> None:
    mounted, by_device = mount
    engine, other = ("device", "emulate") if by_device else ("emulate", "device")
    mounted.append("seq/0", SOURCE[: 600 * BLOCK])
    mounted.append("seq/1", SOURCE[: 3 * BLOCK])
    expected = SOURCE[: 3 * BLOCK]
    # By copy_file_range, a write behind it, and another copy behind that.
    for turn in range(2):
        length = (300 - 100 * turn) * BLOCK
        assert mounted.copy("seq/0", "seq/1", length) == length
        mounted.append("seq/1", SOURCE[turn * BLOCK :][:BLOCK])
        expected += SOURCE[:length] + SOURCE[turn * BLOCK :][:BLOCK]
    # By the ioctl, from many places.
    with open(mounted.directory / "seq/0", "rb") as one, open(mounted.directory / "seq/1", "r+b") as target:
        ranges = [(one, number * 11 * BLOCK, BLOCK) for number in range(30)]
        assert copy_ranges(target, ranges) == [BLOCK] * 30
    expected += b"".join(SOURCE[number * 11 * BLOCK :][:BLOCK] for number in range(30))
    mounted.append("seq/1", SOURCE[: 2 * BLOCK])
    expected += SOURCE[: 2 * BLOCK]
    assert mounted.read("seq/1") == expected
    assert os.stat(mounted.directory / "seq/1").st_size == len(expected)
    copy = mounted.info()["copy"]["engines"]
    assert (copy[engine]["copies"], copy[engine]["errors"]) == (3, 0)
    assert copy[engine]["bytes"] == (300 + 200 + 30) * BLOCK
    assert not copy.get(other, {}).get("copies")
    if by_device:
        # 128 blocks a range and 256 in all: two commands for 300, one for 200, two for 30 ranges.
        assert copy["device"]["commands"] == 5
    # Nothing of it looked like an error to the file system.
    mounted.append("seq/2", SOURCE[:BLOCK])
    assert os.stat(mounted.directory / "seq/1").st_mode & 0o777 == 0o640

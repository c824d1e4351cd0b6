"""The emulated device in a directory: many zones, zones that are made to fail, and files for others to read."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from tests.device.conformance import geometry, pattern, write_blocks, zone_of
from tests.device.directories import BLOCK, CAPACITY, FIRST, GEOMETRY, SIZE, run_python, zone_file
from zonefs_py.device.descriptors import DescriptorCache
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import DeviceError
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition, ZoneOp

# Many zones, few descriptors


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_the_cache_keeps_few_descriptors_open(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).write_text(str(number))
    before = open_descriptors()
    cache = DescriptorCache(lambda number: os.open(tmp_path / str(number), os.O_RDONLY), limit=3)
    for _ in range(3):
        for number in range(10):
            assert os.pread(cache.acquire(number), 10, 0) == str(number).encode()
            cache.release(number)
            assert open_descriptors() <= before + 3
    # The one that was used last stays the same.
    descriptor = cache.acquire(9)
    cache.release(9)
    assert cache.acquire(9) == descriptor
    # What is held is never closed, even if that makes too many.
    held = {9: descriptor} | {number: cache.acquire(number) for number in range(5)}
    assert open_descriptors() == before + 6
    for number, one in held.items():
        assert os.pread(one, 10, 0) == str(number).encode()
        cache.release(number)
    for number in range(10):
        cache.acquire(number)
        cache.release(number)
    cache.close()
    assert open_descriptors() == before


def test_the_cache_passes_errors_on(tmp_path: Path) -> None:
    cache = DescriptorCache(lambda number: os.open(tmp_path / str(number), os.O_RDONLY), limit=1)
    (tmp_path / "1").touch()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            cache.acquire(0)
        cache.acquire(1)
        cache.release(1)
    cache.close()


def test_the_cache_is_safe_for_threads(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_text(str(number))
    cache = DescriptorCache(lambda number: os.open(tmp_path / str(number), os.O_RDONLY), limit=4)
    wrong: list[object] = []

    def read(first: int) -> None:
        try:
            for more in range(500):
                number = (first + more * 7) % 20
                data = os.pread(cache.acquire(number), 10, 0)
                cache.release(number)
                if data != str(number).encode():
                    wrong.append((number, data))
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert not wrong


FEW_FILES = """
import os, resource, sys, threading
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.zone import Geometry, ZoneOp
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
ZONES = 300
create_device(sys.argv[1], Geometry(65536, 65536, ZONES, 2, 4096, 65536))
device = open_device(sys.argv[1])
def work(first):
    for number in range(first, ZONES, 4):
        device.write(number * 65536, number.to_bytes(4096, "big"))
threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
device.flush()
for number in range(0, ZONES):
    assert device.read(number * 65536, 4096) == number.to_bytes(4096, "big")
assert len(os.listdir("/proc/self/fd")) < 50
for number in range(2, ZONES):
    device.zone_mgmt(ZoneOp.FINISH, number)
device.close()
with open_device(sys.argv[1]) as device:
    assert all(zone.condition.name == "FULL" for zone in device.report_zones(2))
print("fine")
"""


def test_more_zones_than_a_process_may_have_files(tmp_path: Path) -> None:
    done = run_python(FEW_FILES, tmp_path / "disk")
    assert (done.stdout, done.stderr) == ("fine\n", "")


# Zones that are made to fail


@pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
def test_forced_conditions_stay(path: Path, condition: ZoneCondition) -> None:
    numbers = [1, 2, 3, 4]
    with open_device(path) as device:
        write_blocks(device, 3)
        write_blocks(device, 4, 12)
        device.force_conditions(numbers, condition)
    with open_device(path) as device:
        assert {device.report_zones()[number].condition for number in numbers} == {condition}
        device.force_condition(1, None)
        device.force_condition(3, None)
    with open_device(path) as device:
        conditions = [zone.condition for zone in device.report_zones(1, 4)]
        assert conditions == [ZoneCondition.NOT_WP, condition, ZoneCondition.CLOSED, condition]
        device.force_conditions(numbers, None)
        assert zone_of(device, 4).condition is ZoneCondition.FULL
        assert device.read(3 * SIZE, BLOCK) == pattern(3 * SIZE, BLOCK)
    assert json.loads((path / "device.json").read_text())["conditions"] == {}


def test_healthy_zones_are_not_touched_by_going_back_to_normal(path: Path) -> None:
    """``zone online --all`` on a mount must not close the zones that the file system holds open."""
    with open_device(path) as device:
        device.zone_mgmt(ZoneOp.OPEN, 2)
        device.zone_mgmt(ZoneOp.OPEN, 3)
        write_blocks(device, 3)
        write_blocks(device, 4)
        device.force_condition(5, ZoneCondition.OFFLINE)
        before = device.report_zones()
        device.force_conditions(range(8), None)
        after = device.report_zones()
        assert after[5].condition is ZoneCondition.EMPTY
        assert after[:5] == before[:5]


def test_wrong_orders_change_nothing(path: Path) -> None:
    with open_device(path) as device:
        zones = device.report_zones()
        for numbers, condition in (
            ([2, 8], ZoneCondition.OFFLINE),
            ([-1], ZoneCondition.OFFLINE),
            ([2], ZoneCondition.FULL),
            ([2], ZoneCondition.EMPTY),
        ):
            with pytest.raises(ValueError, match="zone"):
                device.force_conditions(numbers, condition)
        assert device.report_zones() == zones
    assert json.loads((path / "device.json").read_text())["conditions"] == {}


def test_device_json_has_no_other_rights_than_the_zones(path: Path) -> None:
    with open_device(path) as device:
        device.force_condition(3, ZoneCondition.OFFLINE)
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in path.iterdir()}
    assert len(modes) == 1


def test_more_than_one_system_call_can_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """read(2) gives at most 2 GiB - 4 KiB at a time."""
    if not request.config.getoption("--long"):
        pytest.skip("reads 2 GiB: run with --long")
    size = 3 << 30
    create_device(tmp_path / "disk", Geometry(size, size, 2, 2, BLOCK, size))
    with open_device(tmp_path / "disk") as device:
        device.write(2 << 30, pattern(0, BLOCK))
        assert device.read(0, (2 << 30) + BLOCK)[-BLOCK:] == pattern(0, BLOCK)


def test_the_limit_of_descriptors_is_that_of_the_process(tmp_path: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    zones = min(soft // 2, 1000)
    create_device(tmp_path / "disk", geometry(zones=zones))
    before = open_descriptors()
    with open_device(tmp_path / "disk") as device:
        for number in range(zones):
            device.read(number * SIZE, BLOCK)
        assert open_descriptors() <= before + 1 + soft // 2
    assert open_descriptors() == before


def test_other_zones_do_not_wait_for_a_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting a large file takes the host's file system a while."""
    create_device(tmp_path / "disk", GEOMETRY)
    with open_device(tmp_path / "disk") as device:
        first, second = [n for n in range(1, GEOMETRY.nr_zones) if not GEOMETRY.is_conventional(n)][:2]
        zone_size = GEOMETRY.zone_size
        device.write(first * zone_size, bytes(4096))
        cutting, written = threading.Event(), threading.Event()
        truncate = os.ftruncate

        def slow(descriptor: int, size: int) -> None:
            cutting.set()
            assert written.wait(30)
            truncate(descriptor, size)

        monkeypatch.setattr("zonefs_py.device.directory.os.ftruncate", slow)
        resetter = threading.Thread(target=device.zone_mgmt, args=(ZoneOp.RESET, first))
        resetter.start()
        assert cutting.wait(30)
        device.write(second * zone_size, bytes(4096))
        assert device.report_zones(first, 1)[0].condition is not ZoneCondition.EMPTY
        written.set()
        resetter.join(30)
        assert device.report_zones(first, 1)[0].condition is ZoneCondition.EMPTY


def test_a_reflink_waits_for_what_is_not_on_the_disk(path: Path) -> None:
    source, target = FIRST * SIZE, (FIRST + 1) * SIZE

    with open_device(path) as device:

        def waits(source: int, target: int, method: CopyMethod = CopyMethod.REFLINK) -> bool:
            return device.copy_waits([CopyRange(source, target, BLOCK)], method)

        device.write(source, bytes(BLOCK))
        device.write(0, bytes(BLOCK))
        assert waits(source, target)
        assert waits(0, target)
        device.flush(FIRST)
        assert not waits(source, target)
        assert not waits(target, source), "a sequential zone is extended: what was written before does not matter"
        assert waits(source, 0), "in a conventional zone it does"
        assert waits(source, target, CopyMethod.HOST), "the host copies data, and that takes its time"
        device.flush()
        assert not waits(source, 0)


def test_a_backing_file_is_the_zone(path: Path) -> None:
    with open_device(path) as device:
        withdrawn: list[int] = []
        device.watch_backing(withdrawn.extend)
        for number, zone in ((0, 0), (FIRST, FIRST * SIZE)):
            descriptor = device.backing_descriptor(number)
            assert descriptor is not None
            try:
                with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                    os.pwrite(descriptor, b"x", 0)
                conventional = number == 0
                assert os.fstat(descriptor).st_size == (SIZE if conventional else 0)
                device.write(zone, pattern(zone, 2 * BLOCK))
                assert os.pread(descriptor, 2 * SIZE, 0) == device.read(zone, SIZE if conventional else 2 * BLOCK)
                if not conventional:
                    device.zone_mgmt(ZoneOp.FINISH, number)
                    assert os.pread(descriptor, 2 * SIZE, 0) == device.read(zone, CAPACITY)
                    device.zone_mgmt(ZoneOp.RESET, number)
                    assert os.fstat(descriptor).st_size == 0
                device.force_condition(number, ZoneCondition.READONLY)
                device.force_condition(number, None)
                assert withdrawn == []
                device.force_conditions([number, 5], ZoneCondition.OFFLINE)
                assert withdrawn == [number, 5]
                assert device.backing_descriptor(number) is None
                device.force_conditions([number, 5], None)
                withdrawn.clear()
            finally:
                os.close(descriptor)
        device.watch_backing(None)
        device.force_condition(FIRST, ZoneCondition.OFFLINE)
        assert withdrawn == []


def test_a_backing_file_that_cannot_be_opened_is_an_error_of_the_device(path: Path) -> None:
    with open_device(path) as device:
        zone_file(path, FIRST).rename(path / "elsewhere")
        with pytest.raises(DeviceError):
            device.backing_descriptor(FIRST)

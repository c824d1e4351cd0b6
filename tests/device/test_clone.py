"""Clones: equal in every report and, with data, in every byte; and nothing at all where one cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.device.conformance import BLOCK, GEOMETRIES, pattern, write_blocks
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.clone import clone_device, describe_clone, plan_clone, write_clone
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError, DeviceInUse, UserError
from zonefs_py.zone import (
    OPEN_CONDITIONS,
    DeviceInfo,
    Geometry,
    Zone,
    ZoneCondition,
    ZoneOp,
    ZoneType,
)

KIB = 1024
MIXED = Geometry(64 * KIB, 48 * KIB, 12, 2, 4096, 20 * KIB)


def fill(device: ZonedDevice) -> None:
    """Bring the zones of *device* into all conditions, as far as there are zones."""
    block = device.info.block_size
    zones = device.report_zones()
    for zone in zones:
        if zone.is_conventional:
            device.write(zone.start + zone.size - block, pattern(zone.start, block))
    numbers = [zone.number for zone in zones if not zone.is_conventional]
    steps: list[tuple[int, ZoneOp | ZoneCondition | None]] = [
        (1, None),
        (0, ZoneOp.FINISH),
        (0, ZoneOp.OPEN),
        (1, ZoneCondition.READONLY),
        (1, ZoneCondition.OFFLINE),
        (1, ZoneOp.CLOSE),
        (1 << 30, None),
    ]
    for number, (blocks, then) in zip(numbers, steps, strict=False):
        if blocks := min(blocks, zones[number].capacity // block):
            write_blocks(device, number, blocks)
        if isinstance(then, ZoneOp) and device.report_zones(number, 1)[0].condition is not ZoneCondition.FULL:
            device.zone_mgmt(then, number)
        elif isinstance(then, ZoneCondition):
            device.force_condition(number, then)


def after_closing(zone: Zone) -> Zone:
    """*zone* as it is when its device has been closed and opened again."""
    if zone.condition in OPEN_CONDITIONS:
        empty = zone.wp == zone.start
        return zone._replace(condition=ZoneCondition.EMPTY if empty else ZoneCondition.CLOSED)
    return zone


def told(zone: Zone) -> Zone:
    """*zone* without a write pointer that means nothing."""
    return after_closing(zone if zone.has_write_pointer else zone._replace(wp=0))


def everything(device: ZonedDevice) -> list[bytes]:
    """What is in all zones that can be read."""
    return [
        device.read(zone.start, zone.capacity)
        for zone in device.report_zones()
        if zone.condition is not ZoneCondition.OFFLINE
    ]


def compare(source: ZonedDevice, path: Path, *, data: bool) -> None:
    with open_device(path) as copy:
        assert list(map(told, copy.report_zones())) == list(map(told, source.report_zones()))
        same = ("size", "nr_zones", "zone_size", "block_size", "max_open_zones", "max_active_zones", "profile")
        assert [getattr(copy.info, name) for name in same] == [getattr(source.info, name) for name in same]
        assert copy.info.serial != source.info.serial
        assert everything(copy) == (everything(source) if data else [bytes(len(z)) for z in everything(source)])
    # Equality counts for more than one opening.
    open_device(path).close()


def directory_device(geometry: Geometry, tmp_path: Path) -> ZonedDevice:
    create_device(tmp_path / "source", geometry, 4, 5, profile="a drive")
    return open_device(tmp_path / "source")


def memory_device(geometry: Geometry, tmp_path: Path) -> ZonedDevice:
    return MemoryDevice(geometry, 4, 5)


def linear_device(geometry: Geometry, tmp_path: Path) -> ZonedDevice:
    return LinearDevice([Slice(directory_device(geometry, tmp_path))], "linear")


def faulty_device(geometry: Geometry, tmp_path: Path) -> ZonedDevice:
    return FaultDevice(directory_device(geometry, tmp_path), [], "faulty")


KINDS = [directory_device, memory_device, linear_device, faulty_device]


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", [*GEOMETRIES.values(), MIXED], ids=[*GEOMETRIES, "mixed"])
def test_a_clone_is_equal(
    geometry: Geometry, kind: Callable[[Geometry, Path], ZonedDevice], data: bool, tmp_path: Path
) -> None:
    with kind(geometry, tmp_path) as source:
        fill(source)
        clone_device(source, tmp_path / "clone", data=data)
        compare(source, tmp_path / "clone", data=data)


@pytest.mark.parametrize("name", [str, Path, "linear:{}".format])
def test_a_clone_of_a_device_by_its_name(name: Callable[[Path], str | Path], tmp_path: Path) -> None:
    with directory_device(MIXED, tmp_path) as source:
        fill(source)
        path = Path(source.info.name)
    clone_device(name(path), tmp_path / "clone", data=True)
    with open_stack(str(name(path)), read_only=True) as source:
        compare(source, tmp_path / "clone", data=True)
    clone_device(name(path), str(tmp_path / "part"), zones=[1, 0])
    with open_device(tmp_path / "part") as part:
        assert part.info.nr_zones == 2


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_clone_of_anything_is_equal(data: st.DataObject, tmp_path: Path) -> None:
    zones, block = data.draw(st.integers(2, 6)), data.draw(st.sampled_from([512, 4096]))
    blocks = data.draw(st.integers(8, 40))
    geometry = Geometry(
        zone_size=blocks * block,
        zone_capacity=data.draw(st.integers(8, blocks)) * block,
        nr_zones=zones,
        nr_conventional=data.draw(st.integers(0, zones)),
        block_size=block,
        last_zone_size=data.draw(st.integers(1, blocks)) * block,
    )
    with MemoryDevice(geometry) as source:
        for zone in source.report_zones():
            for start, length in data.draw(
                st.lists(st.tuples(st.integers(0, blocks - 1), st.integers(1, blocks)), max_size=3)
            ):
                wp = source.report_zones(zone.number, 1)[0].wp
                at = zone.start + start * block if zone.is_conventional else wp
                length = min(length * block, zone.start + zone.capacity - at)
                if length > 0:
                    source.write(at, pattern(at, length))
        for number in data.draw(st.sets(st.integers(0, zones - 1))):
            source.force_condition(number, data.draw(st.sampled_from([ZoneCondition.READONLY, ZoneCondition.OFFLINE])))
        clone_device(source, tmp_path / "clone", data=True, force=True)
        compare(source, tmp_path / "clone", data=True)


@pytest.mark.parametrize("kind", KINDS)
def test_some_zones_in_an_order_of_their_own(kind: Callable[[Geometry, Path], ZonedDevice], tmp_path: Path) -> None:
    chosen = [1, 7, 3, 11]
    with kind(MIXED, tmp_path) as source:
        fill(source)
        clone_device(source, tmp_path / "clone", zones=chosen, data=True)
        report = source.report_zones()
        with open_device(tmp_path / "clone") as copy:
            for zone, number in zip(copy.report_zones(), chosen, strict=True):
                assert (zone.size, zone.capacity, zone.type) == (*report[number][2:4], report[number].type)
                assert zone.data_size == after_closing(report[number]).data_size
                assert copy.read(zone.start, zone.capacity) == source.read(report[number].start, zone.capacity)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_of_conventional_zones_take_no_space(
    kind: Callable[[Geometry, Path], ZonedDevice], tmp_path: Path
) -> None:
    size = 16 << 20
    with kind(Geometry(size, size, 2, 2, 4096, size), tmp_path) as source:
        source.write(size - 4096, b"x" * 4096)
        clone_device(source, tmp_path / "clone", data=True)
        for name in ("cnv-000000", "cnv-000001"):
            status = (tmp_path / "clone" / name).stat()
            assert status.st_size == size
            assert status.st_blocks * 512 <= 256 * KIB
        compare(source, tmp_path / "clone", data=True)


def test_a_copy_of_many_pieces(tmp_path: Path) -> None:
    """More than is read at once, with a hole in the middle of a piece."""
    size = 5 << 20
    with MemoryDevice(Geometry(size, size - 4096, 2, 1, 4096, size)) as source:
        source.write(0, pattern(0, 2 << 20))
        source.write(3 << 20, pattern(3 << 20, 4096))
        source.write(size, pattern(size, size - 4096))
        plan = plan_clone(source, data=True)
        steps: list[int] = []
        write_clone(source, plan, tmp_path / "clone", progress=steps.append)
        assert steps == sorted(steps)
        assert steps[-1] == plan.work == 2 * size - 4096 + 2
        compare(source, tmp_path / "clone", data=True)


# What does not work


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A device that is to be replaced."""
    create_device(tmp_path / "old", GEOMETRIES["no-conventional"])
    with open_device(tmp_path / "old") as device:
        write_blocks(device, 3, 2)
    return tmp_path / "old"


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_source_that_fails_leaves_what_was_there(tmp_path: Path, old: Path) -> None:
    source = directory_device(MIXED, tmp_path)
    fill(source)
    rule = FaultRule(Operation.READ, Effect.FAIL, (3, 3), count=None)
    with FaultDevice(source, [rule], "faulty") as faulty:
        before = content(old)
        with pytest.raises(DeviceError, match="zone 3"):
            clone_device(faulty, old, data=True, force=True)
        assert content(old) == before
        with pytest.raises(DeviceError, match="zone 3"):
            clone_device(faulty, tmp_path / "new", data=True)
        assert not (tmp_path / "new").exists()


def test_an_interrupt_leaves_what_was_there(tmp_path: Path, old: Path) -> None:
    def interrupt(done: int) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with memory_device(MIXED, tmp_path) as source:
        fill(source)
        plan = plan_clone(source, data=True)
        before = content(old)
        with pytest.raises(KeyboardInterrupt):
            write_clone(source, plan, old, force=True, progress=interrupt)
        assert content(old) == before
        with pytest.raises(KeyboardInterrupt):
            write_clone(source, plan, tmp_path / "new", progress=interrupt)
        assert not (tmp_path / "new").exists()


def test_a_target_that_is_there_needs_force(tmp_path: Path, old: Path) -> None:
    with memory_device(MIXED, tmp_path) as source:
        before = content(old)
        with pytest.raises(UserError, match="not empty"):
            clone_device(source, old, data=True)
        assert content(old) == before
        with open_device(old), pytest.raises(DeviceInUse):
            clone_device(source, old, data=True, force=True)
        clone_device(source, old, data=True, force=True)
        compare(source, old, data=True)


INFO = DeviceInfo("test", "a drive", 0, 4, 64 * KIB, BLOCK, 7, 9, True, False, profile="P1")


def report(*rows: tuple[ZoneType, int, int]) -> list[Zone]:
    """Zones of these types, sizes and capacities in KiB, empty."""
    zones = []
    for number, (type, size, capacity) in enumerate(rows):
        condition = ZoneCondition.NOT_WP if type is ZoneType.CONVENTIONAL else ZoneCondition.EMPTY
        start = number * INFO.zone_size
        zones.append(Zone(number, start, size * KIB, capacity * KIB, start, type, condition))
    return zones


CNV, SEQ, PREFERRED = ZoneType.CONVENTIONAL, ZoneType.SEQ_WRITE_REQUIRED, ZoneType.SEQ_WRITE_PREFERRED


@pytest.mark.parametrize(
    ("zones", "words"),
    [
        (report((PREFERRED, 64, 64), (SEQ, 64, 64)), "zone 0 is sequential-write-preferred"),
        (report((SEQ, 64, 64), (CNV, 64, 64)), "conventional zones first"),
        (report((CNV, 64, 64), (SEQ, 64, 64), (CNV, 64, 64), (SEQ, 64, 64)), "conventional zones first"),
        (report((SEQ, 64, 64), (SEQ, 32, 32), (SEQ, 64, 64)), "zone 1 has 32768 bytes: only the last"),
        (report((SEQ, 64, 64), (SEQ, 64, 48)), "zone 1 has a capacity of 49152 bytes, others of 65536"),
        (report((SEQ, 64, 48), (SEQ, 64, 48), (SEQ, 60, 52)), "zone 2 has a capacity of 53248 bytes"),
        (report((CNV, 64, 48), (SEQ, 64, 48)), "zone 0 has a capacity of 49152 bytes"),
        (report((SEQ, 64, 64)), "a drive: 1 zones"),
        ([], "no zones"),
    ],
)
def test_what_no_emulated_device_can_be(zones: list[Zone], words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        describe_clone(INFO, zones)
    assert "a drive" in str(raised.value)


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        (report((CNV, 64, 64), (SEQ, 64, 48), (SEQ, 64, 48)), (64, 48, 3, 1, 64)),
        (report((CNV, 64, 64), (SEQ, 32, 32)), (64, 64, 2, 1, 32)),
        (report((CNV, 64, 64), (SEQ, 32, 16)), (64, 16, 2, 1, 32)),
        (report((SEQ, 64, 48), (SEQ, 32, 32)), (64, 48, 2, 0, 32)),
        (report((SEQ, 64, 48), (SEQ, 56, 48)), (64, 48, 2, 0, 56)),
        (report((CNV, 64, 64), (CNV, 32, 32)), (64, 64, 2, 2, 32)),
    ],
)
def test_geometries(zones: list[Zone], expected: tuple[int, int, int, int, int]) -> None:
    size, capacity, nr_zones, nr_conventional, last = expected
    description = describe_clone(INFO, zones)
    wanted = Geometry(size * KIB, capacity * KIB, nr_zones, nr_conventional, BLOCK, last * KIB)
    assert description.geometry == wanted
    assert (description.max_open_zones, description.max_active_zones, description.profile) == (7, 9, "P1")


def test_a_block_size_that_no_emulated_device_has() -> None:
    with pytest.raises(UserError, match="a drive: block size 8192"):
        describe_clone(replace(INFO, block_size=8192), report((SEQ, 64, 64), (SEQ, 64, 64)))

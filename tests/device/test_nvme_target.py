"""The target side of NVMe Copy: the same commands, statuses, dword 0, data and write pointers on both back ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.nvme import read_support
from zonefs_py.device.nvme_copy import (
    CNS_NAMESPACE_OF_COMMAND_SET,
    NvmeCommand,
    SourceRange,
    encode_sources,
    identify,
)
from zonefs_py.device.nvme_status import DO_NOT_RETRY, Completion, Status
from zonefs_py.device.nvme_target import BACK_ENDS, NSID, CopyTarget, TargetLimits, default_limits, model_device
from zonefs_py.errors import UserError
from zonefs_py.zone import CopyMethod, Geometry, ZoneCondition, ZoneOp

from .conformance import pattern, zone_of
from .copying import CopyingDevice

BLOCK = 4096
ZONE = 16
"""Blocks of a zone; the capacity of a sequential one is 12."""
CAPACITY = 12
GEOMETRY = Geometry(ZONE * BLOCK, CAPACITY * BLOCK, 8, 1, BLOCK, ZONE * BLOCK)
"""Zone 0 is conventional."""
LIMITS = TargetLimits(mssrl=6, mcl=10, msrc=3)


@pytest.fixture(params=["memory", "emulated"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ZonedDevice]:
    """A device with zone 0 and zone 1 full of data, and four blocks in zone 2."""
    if request.param == "memory":
        made: ZonedDevice = MemoryDevice(GEOMETRY)
    else:
        create_device(tmp_path / "device", GEOMETRY)
        made = open_device(tmp_path / "device")
    made.write(0, pattern(0, ZONE * BLOCK))
    made.write(ZONE * BLOCK, pattern(ZONE * BLOCK, CAPACITY * BLOCK))
    made.write(2 * ZONE * BLOCK, pattern(2 * ZONE * BLOCK, 4 * BLOCK))
    with made:
        yield made


@pytest.fixture(params=list(BACK_ENDS))
def back_end(request: pytest.FixtureRequest) -> str:
    """Each of the back ends."""
    assert isinstance(request.param, str)
    return request.param


def at(zone: int, block: int = 0) -> int:
    """The number of a block of a zone."""
    return zone * ZONE + block


def command(destination: int, *sources: tuple[int, int]) -> NvmeCommand:
    return encode_sources(NSID, destination, [SourceRange(*source) for source in sources])


def content(device: ZonedDevice) -> list[bytes]:
    """What each zone holds, where it can be read."""
    return [
        b"" if zone.condition is ZoneCondition.OFFLINE else device.read(zone.start, zone.size)
        for zone in device.report_zones()
    ]


def no_change(device: ZonedDevice) -> None:
    """The device is as it is."""


def manage(op: ZoneOp, zone: int) -> Callable[[ZonedDevice], None]:
    return lambda device: device.zone_mgmt(op, zone)


def force(condition: ZoneCondition, zone: int) -> Callable[[ZonedDevice], None]:
    return lambda device: device.force_condition(zone, condition)


def with_format(number: int, command: NvmeCommand) -> NvmeCommand:
    return command._replace(cdw=(*command.cdw[:2], command.cdw[2] | number << 8, 0, 0, 0))


ONE = (at(1), 1)


@dataclass(frozen=True)
class Vector:
    """A command, and how it ends: *copied* blocks were appended to the zone of its destination."""

    command: NvmeCommand
    status: Status
    result: int = 0
    copied: int = 0
    before: Callable[[ZonedDevice], None] = no_change


VECTORS = {
    # All of it
    "one range": Vector(command(at(3), (at(1, 2), 4)), Status.SUCCESS, copied=4),
    "at the write pointer": Vector(command(at(2, 4), (at(1, 2), 4)), Status.SUCCESS, copied=4),
    "many ranges": Vector(command(at(3), (at(1), 6), (at(0, 3), 1), (at(2), 2), (at(1), 1)), Status.SUCCESS, copied=10),
    "the same source": Vector(command(at(3), ONE, ONE, ONE, ONE), Status.SUCCESS, copied=4),
    "unwritten source": Vector(command(at(3), (at(2, 3), 3), (at(5), 1)), Status.SUCCESS, copied=4),
    "within a zone": Vector(command(at(2, 4), (at(2, 2), 2), (at(2), 2)), Status.SUCCESS, copied=4),
    "up to the capacity": Vector(command(at(2, 4), (at(1), 6), (at(1), 2)), Status.SUCCESS, copied=8),
    "to a conventional zone": Vector(command(at(0, 2), (at(1), 6), (at(1), 4)), Status.SUCCESS, copied=10),
    "from a read-only zone": Vector(
        command(at(3), ONE), Status.SUCCESS, copied=1, before=force(ZoneCondition.READONLY, 1)
    ),
    "to an explicitly open zone": Vector(command(at(3), ONE), Status.SUCCESS, copied=1, before=manage(ZoneOp.OPEN, 3)),
    # Refused before anything, in the order of the checks
    "opcode": Vector(command(at(3), ONE)._replace(opcode=0x01), Status.INVALID_OPCODE),
    "namespace": Vector(command(at(3), ONE)._replace(nsid=NSID + 1), Status.INVALID_NAMESPACE),
    "format": Vector(with_format(1, command(10**9, ONE, ONE, ONE, ONE, ONE)), Status.INVALID_FIELD),
    "ranges": Vector(command(10**9, ONE, ONE, ONE, ONE, ONE), Status.SIZE_LIMIT_EXCEEDED),
    "data": Vector(command(10**9, ONE, ONE)._replace(data=bytes(63)), Status.DATA_TRANSFER_ERROR),
    "destination": Vector(command(at(8), (at(1), 7), (at(1), 7)), Status.LBA_OUT_OF_RANGE),
    "full": Vector(command(at(1, 12), (at(1), 7), (at(1), 7)), Status.ZONE_TRANSITION),
    "read-only": Vector(command(at(3), ONE), Status.ZONE_TRANSITION, before=force(ZoneCondition.READONLY, 3)),
    "offline": Vector(command(at(3), ONE), Status.ZONE_TRANSITION, before=force(ZoneCondition.OFFLINE, 3)),
    "broken conventional": Vector(command(at(0), ONE), Status.ZONE_TRANSITION, before=force(ZoneCondition.READONLY, 0)),
    "total": Vector(command(at(3, 5), (at(9), 7), (at(1), 4)), Status.SIZE_LIMIT_EXCEEDED),
    # Range by range
    "range size": Vector(command(at(3), ONE, (at(9), 7)), Status.SIZE_LIMIT_EXCEEDED, 1, 1),
    "source": Vector(command(at(3), ONE, ONE, (at(8), 1)), Status.LBA_OUT_OF_RANGE, 2, 2),
    "source end": Vector(command(at(3), (at(7, 15), 2)), Status.LBA_OUT_OF_RANGE),
    "huge source": Vector(command(at(3), ((1 << 64) - 1, 1)), Status.LBA_OUT_OF_RANGE),
    "source offline": Vector(
        command(at(3), ONE, (at(2), 1)), Status.ZONE_OFFLINE, 1, 1, force(ZoneCondition.OFFLINE, 2)
    ),
    "source across zones": Vector(command(at(3), ONE, (at(1, 15), 2)), Status.ZONE_BOUNDARY, 1, 1),
    "across conventional zones": Vector(command(at(3), (at(0, 15), 2)), Status.ZONE_BOUNDARY),
    "before the write pointer": Vector(command(at(2, 3), ONE), Status.ZONE_INVALID_WRITE),
    "behind the write pointer": Vector(command(at(2, 5), ONE), Status.ZONE_INVALID_WRITE),
    "behind it and too long": Vector(command(at(2, 8), (at(1), 6)), Status.ZONE_INVALID_WRITE),
    "across the capacity": Vector(command(at(2, 4), (at(1), 6), (at(1), 3)), Status.ZONE_BOUNDARY, 1, 6),
    "full on the way": Vector(command(at(2, 4), (at(1), 6), (at(1), 2), ONE), Status.ZONE_FULL, 2, 8),
    "across a conventional end": Vector(command(at(0, 12), (at(1), 4), (at(1), 1)), Status.ZONE_BOUNDARY, 1, 4),
    "the source is looked at first": Vector(command(at(2, 5), (at(8), 1)), Status.LBA_OUT_OF_RANGE),
    "its size before that": Vector(command(at(2, 5), (at(8), 7)), Status.SIZE_LIMIT_EXCEEDED),
}


def expected_content(before: Sequence[bytes], vector: Vector) -> list[bytes]:
    """What the zones hold when *vector.copied* blocks were appended: worked out without the target."""
    after = [bytearray(zone) for zone in before]
    low, high = vector.command.cdw[:2]
    destination = low | high << 32
    left = vector.copied
    for start in range(0, len(vector.command.data), 32):
        source = int.from_bytes(vector.command.data[start + 8 : start + 16], "little")
        for number in range(min(left, vector.command.data[start + 16] + 1)):
            zone, block = divmod(source + number, ZONE)
            there, place = divmod(destination, ZONE)
            data = after[zone][block * BLOCK : (block + 1) * BLOCK]
            after[there][place * BLOCK : (place + 1) * BLOCK] = data
            destination, left = destination + 1, left - 1
    return [bytes(zone) for zone in after]


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str, device: ZonedDevice, back_end: str) -> None:
    vector = VECTORS[name]
    vector.before(device)
    before, zones = content(device), device.report_zones()
    target = CopyTarget(device, LIMITS, BACK_ENDS[back_end])
    completion, data = target.submit(vector.command)
    retry = 0 if vector.status is Status.SUCCESS else DO_NOT_RETRY
    assert (completion, data) == (Completion(vector.status | retry, vector.result), b"")
    assert content(device) == expected_content(before, vector)
    destination = vector.command.cdw[0] // ZONE
    for old, new in zip(zones, device.report_zones(), strict=True):
        if old.number == destination and vector.copied and not old.is_conventional:
            size = (old.data_size or 0) + vector.copied * BLOCK
            assert new.data_size == size
            is_full = size == CAPACITY * BLOCK
            expected = ZoneCondition.FULL if is_full else max(old.condition, ZoneCondition.IMP_OPEN)
            assert new.condition is expected
        else:
            assert new == old


def test_resources_are_looked_at_before_sizes(back_end: str) -> None:
    for max_open, max_active, status in ((None, 1, Status.TOO_MANY_ACTIVE), (1, None, Status.TOO_MANY_OPEN)):
        device = MemoryDevice(GEOMETRY, max_open, max_active)
        device.zone_mgmt(ZoneOp.OPEN, 4)
        target = CopyTarget(device, LIMITS, BACK_ENDS[back_end])
        for nr_blocks in (1, 6):
            too_long = command(at(3), *[(at(1), nr_blocks)] * 2)
            assert target.submit(too_long)[0] == Completion(status | DO_NOT_RETRY, 0)
        assert zone_of(device, 3).condition is ZoneCondition.EMPTY
        device.zone_mgmt(ZoneOp.CLOSE, 4)
        assert target.submit(command(at(3), ONE))[0] == Completion(0, 0)


FAILURES = {
    "read": (FaultRule(Operation.READ, Effect.FAIL, first=2), Status.READ_ERROR, 1),
    "write": (FaultRule(Operation.WRITE, Effect.FAIL, first=2), Status.WRITE_FAULT, 1),
    "host full": (FaultRule(Operation.WRITE, Effect.FAIL, first=2, error="ENOSPC"), Status.CAPACITY_EXCEEDED, 1),
    "part of a write": (FaultRule(Operation.WRITE, Effect.FAIL, first=2, after=BLOCK), Status.WRITE_FAULT, 2),
    "too many open": (FaultRule(Operation.WRITE, Effect.FAIL, first=2, error="ETOOMANYREFS"), Status.TOO_MANY_OPEN, 1),
    "too many active": (
        FaultRule(Operation.WRITE, Effect.FAIL, first=2, error="EOVERFLOW"),
        Status.TOO_MANY_ACTIVE,
        1,
    ),
    "zone read-only": (FaultRule(Operation.WRITE, Effect.READONLY, first=2), Status.ZONE_READ_ONLY, None),
    "zone offline": (FaultRule(Operation.WRITE, Effect.OFFLINE, first=2), Status.ZONE_OFFLINE, None),
    "source offline": (FaultRule(Operation.READ, Effect.OFFLINE, first=2), Status.ZONE_OFFLINE, 1),
    "zone finished": (FaultRule(Operation.WRITE, Effect.EXTERNAL_FINISH, first=2), Status.ZONE_FULL, CAPACITY),
    "zone reset": (FaultRule(Operation.WRITE, Effect.EXTERNAL_RESET, first=2), Status.ZONE_INVALID_WRITE, 0),
    "zone written": (
        FaultRule(Operation.WRITE, Effect.EXTERNAL_WRITE, first=2, length=5 * BLOCK),
        Status.ZONE_INVALID_WRITE,
        6,
    ),
    # The first three reports are of the zone and of the two sources.
    "report": (FaultRule(Operation.REPORT, Effect.FAIL), Status.INTERNAL_ERROR, 0),
    "report of a source": (FaultRule(Operation.REPORT, Effect.FAIL, first=3), Status.INTERNAL_ERROR, 1),
}
"""A rule, what the target says then, and the blocks in the zone after it (None: the zone does not tell)."""


@pytest.mark.parametrize("name", FAILURES)
def test_failures_below(name: str, back_end: str) -> None:
    rule, status, blocks = FAILURES[name]
    memory = CopyingDevice(GEOMETRY, methods=())
    memory.write(at(1) * BLOCK, pattern(0, CAPACITY * BLOCK))
    target = CopyTarget(FaultDevice(memory, [rule]), LIMITS, BACK_ENDS[back_end])
    completion, _ = target.submit(command(at(3), ONE, (at(1, 1), 3), ONE))
    done = 0 if rule.operation is Operation.REPORT and rule.first == 1 else 1
    assert completion == Completion(status | DO_NOT_RETRY, done)
    assert zone_of(memory, 3).data_size == (None if blocks is None else blocks * BLOCK)
    memory.force_condition(3, None)
    is_there = done and rule.effect is not Effect.EXTERNAL_RESET
    assert memory.read(at(3) * BLOCK, BLOCK) == (pattern(0, BLOCK) if is_there else bytes(BLOCK))


@pytest.mark.parametrize(
    ("effect", "status"), [(Effect.FAIL, Status.WRITE_FAULT), (Effect.SHORT, Status.WRITE_FAULT)], ids=str
)
def test_failures_of_the_devices_own_copies(effect: Effect, status: Status, back_end: str) -> None:
    memory = MemoryDevice(GEOMETRY)
    memory.write(at(1) * BLOCK, pattern(0, CAPACITY * BLOCK))
    rule = FaultRule(Operation.COPY, effect, first=2, after=BLOCK)
    target = CopyTarget(FaultDevice(memory, [rule]), LIMITS, BACK_ENDS[back_end])
    completion, _ = target.submit(command(at(3), ONE, (at(1, 1), 3), ONE))
    assert completion == Completion(status | DO_NOT_RETRY, 1)
    assert zone_of(memory, 3).data_size == 2 * BLOCK


def test_the_back_ends_use_what_the_device_has() -> None:
    """The block layer's copy takes any way that the device has of its own; a file's is the host's or goes by pipes."""
    for methods, used in (
        ((CopyMethod.REFLINK, CopyMethod.HOST), {"block": CopyMethod.REFLINK, "file": CopyMethod.HOST}),
        ((CopyMethod.REFLINK,), {"block": CopyMethod.REFLINK, "file": None}),
        ((), {"block": None, "file": None}),
    ):
        for back_end, method in used.items():
            device = CopyingDevice(GEOMETRY, methods=methods)
            device.write(at(1) * BLOCK, pattern(0, CAPACITY * BLOCK))
            target = CopyTarget(device, LIMITS, BACK_ENDS[back_end])
            assert target.submit(command(at(3), (at(1), 2), ONE))[0] == Completion(0, 0)
            assert [copied[-1] for copied in device.copies] == ([] if method is None else [method] * 2)
            assert device.read(at(3) * BLOCK, 3 * BLOCK) == pattern(0, 2 * BLOCK) + pattern(0, BLOCK)


def test_places_beyond_2_gib(back_end: str) -> None:
    """A signed 32-bit number of bytes, as in the series' first version, would go wrong here."""
    size = 1 << 32
    device = MemoryDevice(Geometry(size, size, 4, 0, BLOCK, size))
    device.write(2 * size, pattern(2 * size, 8 * BLOCK))
    target = CopyTarget(device, LIMITS, BACK_ENDS[back_end])
    source = 2 * size // BLOCK
    assert target.submit(command(3 * size // BLOCK, (source + 1, 5), (source + 6, 2)))[0] == Completion(0, 0)
    assert device.read(3 * size, 7 * BLOCK) == pattern(2 * size + BLOCK, 7 * BLOCK)


def test_what_it_says_of_itself() -> None:
    target = CopyTarget(MemoryDevice(GEOMETRY), LIMITS)
    support = read_support(target, BLOCK)
    assert support.nr_blocks == 8 * ZONE
    assert (support.max_range_blocks, support.max_blocks, support.max_ranges) == (6, 10, 4)
    for unknown in (identify(CNS_NAMESPACE_OF_COMMAND_SET, NSID), identify(0, NSID + 1)):
        assert target.submit(unknown) == (Completion(Status.INVALID_FIELD | DO_NOT_RETRY, 0), bytes(4096))


def test_default_limits() -> None:
    assert default_limits("block", 4096) == TargetLimits(256, 32768, 255)
    assert default_limits("file", 512) == TargetLimits(2048, 524288, 255)
    device = model_device(MemoryDevice(GEOMETRY))
    assert device.info.copy_methods == (CopyMethod.DEVICE,)
    assert device.info.copy_max_hw_bytes == 128 << 20
    assert device.info.copy_max_range_hw_bytes == 1 << 20
    assert device.info.copy_max_nr_ranges_hw == 256
    assert (device.info.kind, device.info.name) == ("nvme-copy", "nvme-copy:memory")


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ((0, 1, 0), "mssrl"),
        ((65536, 1, 0), "mssrl"),
        ((1, 0, 0), "mcl"),
        ((1, 1 << 32, 0), "mcl"),
        ((1, 1, 256), "msrc"),
    ],
)
def test_limits_that_no_controller_tells(limits: tuple[int, int, int], name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is "):
        TargetLimits(*limits)

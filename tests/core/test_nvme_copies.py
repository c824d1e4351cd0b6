"""Copies by NVMe's Copy command all the way: from files over the engine and the command to a target, and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.calls import content
from tests.core.copying import random_bytes, zone_bytes
from tests.device.nvme_helpers import PluggedDevice, ScriptedNamespace
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.copy.plan import gather
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.nvme import NvmeDevice, read_support
from zonefs_py.device.nvme_copy import decode_copy
from zonefs_py.device.nvme_target import TargetLimits, model_device
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, Geometry, ZoneCondition

BLOCK = 512
ZONE = 32 * BLOCK
CAPACITY = 24 * BLOCK
GEOMETRY = Geometry(ZONE, CAPACITY, 8, 2, BLOCK, ZONE)
"""cnv/0, seq/0 to seq/5."""


def filled(device: ZonedDevice, policy: ErrorsPolicy = ErrorsPolicy.REPAIR) -> Filesystem:
    """A new file system with cnv/0, seq/0 and seq/1 full, and two blocks in seq/2."""
    format_device(device, FormatOptions())
    fs = Filesystem(device, MountOptions(policy))
    for number, (name, size) in enumerate(
        (("cnv/0", ZONE), ("seq/0", CAPACITY), ("seq/1", CAPACITY), ("seq/2", 2 * BLOCK))
    ):
        handle = fs.open(name, os.O_RDWR | os.O_DIRECT)
        fs.write(handle, 0, random_bytes(size, number))
        fs.release(handle)
    return fs


def size(fs: Filesystem, name: str) -> int:
    return fs.getattr(fs.resolve(name)).size


def used(fs: Filesystem) -> dict[Engine, tuple[int, int, int]]:
    """Copies, commands and errors of the engines that made any."""
    return {
        engine: (counters.copies, counters.commands, counters.errors)
        for engine, counters in fs.copy_engine.counters.items()
        if counters.copies
    }


def copy(fs: Filesystem, source: str, source_offset: int, target: str, offset: int, length: int) -> int:
    reader, writer = fs.open(source, os.O_RDONLY), fs.open(target, os.O_WRONLY)
    try:
        return fs.copy_range(reader, source_offset, writer, offset, length)
    finally:
        fs.release(reader)
        fs.release(writer)


def append(fs: Filesystem, name: str, seed: int) -> bytes:
    """Write a block at the end of a sequential file; return it."""
    data = random_bytes(BLOCK, seed)
    handle = fs.open(name, os.O_WRONLY | os.O_DIRECT)
    try:
        assert fs.write(handle, size(fs, name), data) == BLOCK
    finally:
        fs.release(handle)
    return data


@pytest.mark.parametrize("back_end", ["block", "file"])
def test_a_stack_copies_by_commands_within_its_limits(tmp_path: Path, back_end: str) -> None:
    create_device(tmp_path / "disk", GEOMETRY)
    text = f"nvme-copy:mssrl=4,mcl=10,msrc=7,back-end={back_end},{tmp_path / 'disk'}"
    with open_stack(text) as device, filled(device) as fs:
        limits = fs.copy_engine.limits
        assert (limits.copy_max_hw_bytes, limits.copy_max_range_hw_bytes) == (10 * BLOCK, 4 * BLOCK)
        assert limits.copy_max_nr_ranges_hw == 8
        assert copy(fs, "seq/0", 0, "seq/3", 0, CAPACITY) == CAPACITY
        assert content(fs, "seq/3") == content(fs, "seq/0") == random_bytes(CAPACITY, 1)
        # 24 blocks, 10 of them a command.
        assert used(fs) == {Engine.DEVICE: (1, 3, 0)}
        assert copy(fs, "seq/1", BLOCK, "cnv/0", 3 * BLOCK, 5 * BLOCK) == 5 * BLOCK
        assert content(fs, "cnv/0")[3 * BLOCK : 8 * BLOCK] == random_bytes(CAPACITY, 2)[BLOCK : 6 * BLOCK]
        assert used(fs) == {Engine.DEVICE: (2, 4, 0)}
    with open_device(tmp_path / "disk") as below:
        assert below.read(5 * ZONE, CAPACITY) == random_bytes(CAPACITY, 1)


def test_many_ranges_are_gathered_into_few_commands() -> None:
    memory = MemoryDevice(GEOMETRY)
    namespace = ScriptedNamespace(memory, TargetLimits(mssrl=128, mcl=256, msrc=3))
    with filled(NvmeDevice(memory, namespace, read_support(namespace, BLOCK))) as fs:
        target = fs.open("seq/2", os.O_WRONLY)
        inodes = [fs.resolve(name) for name in ("seq/0", "seq/1", "cnv/0")]
        sources = [(inodes[number % 3], number * 2 * BLOCK, BLOCK) for number in range(10)]
        copied = fs.copy_ranges(target, None, sources)
        assert (copied.offset, copied.completed, copied.error) == (2 * BLOCK, (BLOCK,) * 10, None)
        assert [decode_copy(command).nr_ranges for command in namespace.commands] == [4, 4, 2]
        assert used(fs) == {Engine.DEVICE: (1, 3, 0)}
        expected = [random_bytes(CAPACITY, 1), random_bytes(CAPACITY, 2), random_bytes(ZONE, 0)]
        assert content(fs, "seq/2")[2 * BLOCK :] == b"".join(
            expected[number % 3][offset : offset + BLOCK] for number, (_, offset, _) in enumerate(sources)
        )


@pytest.mark.parametrize("policy", list(ErrorsPolicy))
def test_appending_after_a_copy_is_no_error(policy: ErrorsPolicy) -> None:
    """The kernel's own idea of the write pointer is behind then: neither user nor errors= may see that."""
    memory = MemoryDevice(GEOMETRY)
    below = PluggedDevice(memory)
    namespace = ScriptedNamespace(memory, TargetLimits(8, 8, 0))
    with filled(NvmeDevice(below, namespace, read_support(namespace, BLOCK)), policy) as fs:
        expected = content(fs, "seq/2")
        for turn in range(3):
            assert copy(fs, "seq/0", turn * BLOCK, "seq/2", len(expected), 3 * BLOCK) == 3 * BLOCK
            expected += random_bytes(CAPACITY, 1)[turn * BLOCK :][: 3 * BLOCK]
            expected += append(fs, "seq/2", 50 + turn) + append(fs, "seq/2", 60 + turn)
        assert content(fs, "seq/2") == expected
        assert below.refused == 3
        assert fs.getattr(fs.resolve("seq/2")).mode & 0o777 == 0o640
        assert not fs.read_only


# Against a model


@dataclass(frozen=True)
class Copy:
    """Blocks from zones to the write pointer of another."""

    sources: tuple[tuple[int, int, int], ...]
    """Zone, first block, number of blocks."""
    destination: int


copies = st.builds(
    Copy,
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 31), st.integers(1, 32)).map(
            lambda one: (one[0], one[1], min(one[2], 32 - one[1]))
        ),
        min_size=1,
        max_size=6,
    ).map(tuple),
    st.integers(4, 7),
)


@settings(deadline=None, max_examples=150)
@given(
    st.builds(TargetLimits, st.integers(1, 40), st.integers(1, 60), st.integers(0, 5)),
    st.sampled_from(["block", "file"]),
    st.lists(copies, min_size=1, max_size=6),
)
@example(TargetLimits(1, 1, 0), "block", [Copy(((2, 0, 24),), 4)])
@example(TargetLimits(32, 24, 5), "file", [Copy(((0, 0, 10), (2, 30, 2), (3, 0, 12)), 4)])
def test_random_copies_within_random_limits(limits: TargetLimits, back_end: str, steps: list[Copy]) -> None:
    memory = MemoryDevice(GEOMETRY)
    zones = {}
    for number in range(4):
        size = GEOMETRY.capacity_of(number)
        memory.write(number * ZONE, random_bytes(size, number))
        zones[number] = random_bytes(size, number) + bytes(ZONE - size)
    written = dict.fromkeys(range(4, 8), b"")
    engine = CopyEngine(model_device(memory, limits, back_end))
    commands = 0
    for step in steps:
        data = b"".join(zones[zone][first * BLOCK : (first + count) * BLOCK] for zone, first, count in step.sources)
        room = CAPACITY - len(written[step.destination])
        start = step.destination * ZONE + len(written[step.destination])
        places = [(zone * ZONE + first * BLOCK, count * BLOCK) for zone, first, count in step.sources]
        if len(data) > room:
            continue
        result = engine.copy(gather(places, start))
        assert (result.completed, result.error) == (len(data), None)
        written[step.destination] += data
        counters = engine.counters[Engine.DEVICE]
        assert counters.commands - commands >= -(-len(data) // (limits.mcl * BLOCK))
        commands = counters.commands
    for number in range(4):
        assert memory.read(number * ZONE, ZONE) == zones[number]
    for number, data in written.items():
        zone = memory.report_zones(number, 1)[0]
        assert zone.data_size == len(data)
        assert memory.read(number * ZONE, ZONE) == data + bytes(ZONE - len(data))
    assert engine.counters[Engine.EMULATE].copies == 0


# Failures

LENGTH = 18 * BLOCK
LIMITS = TargetLimits(mssrl=3, mcl=6, msrc=1)
"""Three commands of two ranges of three blocks for `LENGTH`."""

RULES: dict[str, Callable[[int], FaultRule]] = {
    "read": lambda first: FaultRule(Operation.READ, Effect.FAIL, first=first),
    "write": lambda first: FaultRule(Operation.WRITE, Effect.FAIL, first=first),
    "write-after": lambda first: FaultRule(Operation.WRITE, Effect.FAIL, first=first, after=BLOCK),
    "write-full": lambda first: FaultRule(Operation.WRITE, Effect.FAIL, first=first, error="ENOSPC", after=2 * BLOCK),
    "copy": lambda first: FaultRule(Operation.COPY, Effect.FAIL, first=first),
    "copy-after": lambda first: FaultRule(Operation.COPY, Effect.FAIL, first=first, after=2 * BLOCK),
    "copy-short": lambda first: FaultRule(Operation.COPY, Effect.SHORT, first=first, after=BLOCK),
    "copy-read-only": lambda first: FaultRule(Operation.COPY, Effect.READONLY, first=first, after=BLOCK),
    "copy-offline": lambda first: FaultRule(Operation.COPY, Effect.OFFLINE, first=first),
    "source-offline": lambda first: FaultRule(Operation.COPY, Effect.OFFLINE, first=first, target=2),
    "read-offline": lambda first: FaultRule(Operation.READ, Effect.OFFLINE, first=first),
    "reset": lambda first: FaultRule(Operation.COPY, Effect.EXTERNAL_RESET, first=first),
    "finish": lambda first: FaultRule(Operation.COPY, Effect.EXTERNAL_FINISH, first=first),
}


class WithoutCopies(MemoryDevice):
    """A device on which a target has to read and write."""

    def can_copy(self, *_: object) -> bool:
        return False


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("back_end", ["block", "file"])
def test_every_call_of_the_target_fails_once(name: str, back_end: str) -> None:
    """Whatever fails below the controller: what is returned is on media, and the file follows its zone."""
    struck = 0
    for first in range(1, 100):
        memory = (
            MemoryDevice(GEOMETRY)
            if "copy" in name or name in ("source-offline", "reset", "finish")
            else (WithoutCopies(GEOMETRY))
        )
        below = FaultDevice(memory)
        fs = filled(model_device(below, LIMITS, back_end))
        source, before = content(fs, "seq/0"), content(fs, "seq/2")
        number = below.add_rule(RULES[name](first))
        copied, error = 0, None
        try:
            copied = copy(fs, "seq/0", BLOCK, "seq/2", len(before), LENGTH)
        except ZonefsError as exc:
            error = exc
        fired = below.remove_rule(number).fired
        check_after_failure(fs, memory, before, source, copied, failed=bool(fired))
        if not fired:
            assert copied == LENGTH
            break
        struck += 1
        assert isinstance(error, DeviceError) or (copied and error is None)
        assert copied in (0, 3 * BLOCK, 6 * BLOCK, 9 * BLOCK, 12 * BLOCK, 15 * BLOCK)
        assert set(used(fs)) == {Engine.DEVICE}, "another engine was tried"
        fs.close()
    assert struck == 6


def check_after_failure(
    fs: Filesystem, memory: MemoryDevice, before: bytes, source: bytes, copied: int, *, failed: bool
) -> None:
    zone = memory.report_zones(4, 1)[0]
    media = zone_bytes(memory, 4)
    memory.force_condition(
        4, zone.condition if zone.condition in (ZoneCondition.READONLY, ZoneCondition.OFFLINE) else None
    )
    if len(media) >= len(before) + copied:
        assert media[: len(before) + copied] == before + source[BLOCK : BLOCK + copied]
    else:
        assert zone.condition is ZoneCondition.EMPTY, "only a reset from outside takes data away"
    if zone.data_size is not None:
        assert size(fs, "seq/2") == zone.data_size
    if zone.has_write_pointer and zone.data_size is not None:
        # It goes on, by a write and by a copy.
        append(fs, "seq/2", 70)
        if fs.getattr(fs.resolve("seq/1")).size == CAPACITY:
            assert copy(fs, "seq/1", 0, "seq/2", size(fs, "seq/2"), BLOCK) == BLOCK
    assert failed or len(media) == len(before) + copied


def test_statuses_reach_the_user_as_errors_of_the_device() -> None:
    for code, errno_name in (
        (0x006, "EIO"),
        (0x183, "EIO"),
        (0x1BC, "EIO"),
        (0x1BD, "EOVERFLOW"),
        (0x1BE, "ETOOMANYREFS"),
    ):
        for nr_ranges in (0, 1):
            memory = MemoryDevice(GEOMETRY)
            namespace = ScriptedNamespace(memory, LIMITS)
            fs = filled(NvmeDevice(memory, namespace, read_support(namespace, BLOCK)))
            namespace.fail(nr_ranges, code | 0x4000)
            if nr_ranges:
                assert copy(fs, "seq/0", 0, "seq/2", 2 * BLOCK, LENGTH) == 3 * BLOCK
            else:
                with pytest.raises(DeviceError) as raised:
                    copy(fs, "seq/0", 0, "seq/2", 2 * BLOCK, LENGTH)
                assert raised.value.errno_name == errno_name
            assert len(namespace.commands) == 1
            assert size(fs, "seq/2") == (2 + 3 * nr_ranges) * BLOCK
            assert set(used(fs)) == {Engine.DEVICE}
            namespace.answer = None
            assert copy(fs, "seq/0", 0, "seq/2", size(fs, "seq/2"), BLOCK) == BLOCK


def test_only_what_the_device_offers_is_used() -> None:
    assert model_device(MemoryDevice(GEOMETRY)).info.copy_methods == (CopyMethod.DEVICE,)
    for wanted in (Engine.REFLINK, Engine.HOST):
        engine = CopyEngine(model_device(MemoryDevice(GEOMETRY)), wanted)
        assert engine.copy(gather([(0, BLOCK)], 4 * ZONE)).error is None
        assert {used for used, counters in engine.counters.items() if counters.copies} == {Engine.EMULATE}

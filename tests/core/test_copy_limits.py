"""Limits of a mounted file system's copy path, set while it runs: what the counters then show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.core.copying import at_most
from zonefs_py import FormatOptions, Geometry, MemoryDevice, format_device
from zonefs_py.copy.engine import BUFFER_SIZE, CopyEngine, Engine
from zonefs_py.copy.limits import SETTABLE, CopyLimits
from zonefs_py.copy.plan import gather
from zonefs_py.errors import InvalidRequest, OutOfMemory
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.units import KIB, MIB
from zonefs_py.zone import CopyMethod, CopyRange

BLOCK = 4096
ZONE = 256 * KIB
BLOCKS = ZONE // BLOCK
DATA = b"".join(number.to_bytes(8, "little") for number in range(ZONE // 8))


class Mounted:
    """A mounted file system whose seq/0 is full of data."""

    def __init__(self) -> None:
        device = MemoryDevice(Geometry(ZONE, ZONE, 6, 2, BLOCK, ZONE))
        format_device(device, FormatOptions())
        self.fs = Filesystem(device)
        writer = self.fs.open("seq/0", os.O_WRONLY | os.O_DIRECT)
        self.fs.write(writer, 0, DATA)
        self.source = self.fs.open("seq/0", os.O_RDONLY)
        self.target = self.fs.open("seq/1", os.O_RDWR | os.O_DIRECT)

    def commands(self, engine: Engine) -> int:
        """How many commands it takes to copy seq/0 to seq/1 whole."""
        before = self.fs.copy_engine.counters[engine]
        self.fs.truncate("seq/1", 0)
        assert self.fs.copy_range(self.source, 0, self.target, 0, ZONE) == ZONE
        assert self.fs.read(self.target, 0, ZONE) == DATA
        after = self.fs.copy_engine.counters[engine]
        assert after.copies == before.copies + 1
        assert after.bytes == before.bytes + ZONE
        return after.commands - before.commands


@pytest.fixture
def mounted() -> Iterator[Mounted]:
    mounted = Mounted()
    with mounted.fs:
        yield mounted


def test_a_lower_limit_makes_more_commands(mounted: Mounted) -> None:
    engine = mounted.fs.copy_engine
    assert mounted.commands(Engine.HOST) == 1
    for most in (ZONE, ZONE - BLOCK, ZONE // 2, ZONE // 2 - BLOCK, 3 * BLOCK, BLOCK):
        engine.set_limit("copy_max_bytes", most)
        assert mounted.commands(Engine.HOST) == -(-ZONE // most)
    engine.set_limit("copy_max_bytes", 1 << 60)
    assert engine.limits.copy_max_bytes == engine.limits.copy_max_hw_bytes
    # Shorter ranges: still one command, until it may have fewer of them.
    engine.set_limit("copy_max_range_bytes", BLOCK)
    assert mounted.commands(Engine.HOST) == 1
    for most in (BLOCKS, BLOCKS - 1, 7, 1):
        engine.set_limit("copy_max_nr_ranges", most)
        assert mounted.commands(Engine.HOST) == -(-BLOCKS // most)


@pytest.mark.parametrize("name", SETTABLE)
def test_a_limit_of_zero_emulates_from_the_next_copy_on(mounted: Mounted, name: str) -> None:
    engine = mounted.fs.copy_engine
    before = getattr(engine.limits, name)
    engine.set_limit(name, 0)
    assert mounted.commands(Engine.EMULATE) == 1
    engine.set_limit(name, before)
    assert mounted.commands(Engine.HOST) == 1


def test_limits_set_together_or_not_at_all(mounted: Mounted) -> None:
    engine = mounted.fs.copy_engine
    before = asdict(engine.limits)
    with pytest.raises(InvalidRequest):
        engine.set_limits({"copy_max_bytes": BLOCK, "copy_max_range_bytes": BLOCK + 1})
    assert asdict(engine.limits) == before
    engine.set_limits({"copy_max_bytes": BLOCK, "copy_offload": 0})
    assert asdict(engine.limits) == before | {"copy_max_bytes": BLOCK, "copy_offload": 0}


def test_ranges_share_a_command_as_far_as_the_limits_allow() -> None:
    device = MemoryDevice(Geometry(ZONE, ZONE, 6, 4, BLOCK, ZONE))
    engine = CopyEngine(device)
    ranges = gather([(number * 2 * BLOCK, BLOCK) for number in range(20)], 2 * ZONE)
    for most, commands in ((256, 1), (20, 1), (19, 2), (3, 7), (1, 20)):
        engine.set_limit("copy_max_nr_ranges", most)
        before = engine.counters[Engine.HOST].commands
        assert engine.copy(ranges).completed == 20 * BLOCK
        assert engine.counters[Engine.HOST].commands - before == commands


class Choosy(MemoryDevice):
    """A device whose reflinks need two blocks, as those of a host with larger blocks do."""

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        aligned = not any(number % (2 * BLOCK) for piece in ranges for number in piece)
        return super().can_copy(ranges, method) and aligned


def engines(engine: CopyEngine, ranges: Sequence[CopyRange]) -> set[Engine]:
    return {step.engine for step in engine.plan(ranges).steps}


def test_the_way_is_chosen_for_the_pieces_that_the_device_will_get() -> None:
    # A limit can cut an aligned range into pieces that are not.
    engine = CopyEngine(Choosy(Geometry(ZONE, ZONE, 6, 4, BLOCK, ZONE)))
    ranges = [CopyRange(0, ZONE, 16 * BLOCK)]
    assert engines(engine, ranges) == {Engine.HOST}
    engine.set_limit("copy_max_range_bytes", 3 * BLOCK)
    assert engines(engine, ranges) == {Engine.EMULATE}
    assert engine.copy(ranges).completed == 16 * BLOCK
    engine.set_limit("copy_max_range_bytes", 4 * BLOCK)
    assert engines(engine, ranges) == {Engine.HOST}


class Thorough(CopyEngine):
    """Plans all copies as those that are more than one command."""

    def _is_one_command(self, piece: CopyRange, limits: CopyLimits) -> bool:
        return False


@given(
    source=st.integers(0, 3 * BLOCKS - 1),
    destination=st.integers(3 * BLOCKS, 6 * BLOCKS - 1),
    length=st.integers(1, 2 * BLOCKS),
    shift=st.sampled_from([0, 0, 0, 1]),
    most=st.integers(0, 3),
    most_range=st.integers(0, 3),
    kind=st.sampled_from([MemoryDevice, Choosy]),
)
@example(source=1 * BLOCKS, destination=3 * BLOCKS, length=2 * BLOCKS, shift=0, most=3, most_range=3, kind=MemoryDevice)
def test_a_copy_that_is_one_command_is_planned_as_any_other(
    source: int, destination: int, length: int, shift: int, most: int, most_range: int, kind: type[MemoryDevice]
) -> None:
    # Nobody asks a device for a copy to where it reads.
    assume(source + length <= destination)
    device = kind(Geometry(ZONE, ZONE, 8, 8, BLOCK, ZONE))
    piece = CopyRange(source * BLOCK, destination * BLOCK, length * BLOCK - shift)
    plans = []
    for engine in (CopyEngine(device), Thorough(device)):
        engine.set_limits({"copy_max_bytes": most * ZONE // 2, "copy_max_range_bytes": most_range * ZONE // 2})
        plans.append((list(engine.plan([piece]).steps), engine.plan_now([piece])))
    assert plans[0] == plans[1]


class Asked(MemoryDevice):
    """A device that counts how often it was asked whether it can copy, before it was first told to do anything."""

    def __init__(self, able: bool) -> None:
        super().__init__(Geometry(16 * MIB, 16 * MIB, 4, 4, BLOCK, 16 * MIB))
        self.able = able
        self.asked = 0
        self.asked_before: list[int] = []
        """How often by each copy, or read of the emulation."""

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        self.asked += 1
        return self.able and super().can_copy(ranges, method)

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        self.asked_before.append(self.asked)
        super().copy(ranges, method, generation)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.asked_before.append(self.asked)
        super().read_into(offset, buffer)


@pytest.mark.parametrize("able", [True, False], ids=["offloaded", "emulated"])
def test_a_copy_of_many_commands_begins_with_the_first(able: bool) -> None:
    """Limits can make hundreds of thousands of it, which take a second to work out."""
    device = Asked(able)
    engine = CopyEngine(device)
    engine.set_limit("copy_max_bytes", BLOCK)
    length = 16 * MIB
    commands = length // BLOCK
    # Not from the start of a zone: one more boundary to come across.
    assert engine.copy([CopyRange(BLOCK, 32 * MIB, length)]).completed == length
    if able:
        # The device itself asks once more when it copies.
        assert device.asked_before[0] <= 1
        assert engine.counters[Engine.HOST].commands == commands
    else:
        # What is emulated goes through the buffer as if no command had a limit.
        each = BUFFER_SIZE // BLOCK
        assert device.asked_before[0] <= 2 * each + 2
        assert engine.counters[Engine.EMULATE].commands == length // BUFFER_SIZE + 1


def test_no_memory_is_met_where_it_is_needed() -> None:
    """What the device copies by itself before that is copied, and said to be."""
    engine = CopyEngine(Choosy(Geometry(ZONE, ZONE, 6, 4, BLOCK, ZONE)), allocate=at_most(0))
    result = engine.copy(gather([(0, 4 * BLOCK), (ZONE, BLOCK)], 2 * ZONE))
    assert result.completed == 4 * BLOCK
    assert isinstance(result.error, OutOfMemory)
    assert not result.issued


def test_no_memory_for_what_is_certain_to_need_it_copies_nothing() -> None:
    engine = CopyEngine(MemoryDevice(Geometry(ZONE, ZONE, 6, 4, BLOCK, ZONE)), allocate=at_most(BLOCK))
    result = engine.copy(gather([(0, 4 * BLOCK), (ZONE + 1, 10)], 2 * ZONE))
    assert result.completed == 0
    assert isinstance(result.error, OutOfMemory)

"""Random ranges gathered within random limits on random stacks: the bytes, who copied them, and in which commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.core.copying import random_bytes
from tests.device.copying import CopyingDevice
from zonefs_py.config import FormatOptions
from zonefs_py.copy.engine import Engine
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry

BLOCK = 512
ZONE_BLOCKS = 16
ZONE = ZONE_BLOCKS * BLOCK
CAPACITY = 12 * BLOCK
NR_ZONES = 12
NR_CONVENTIONAL = 5
"""Of the whole: zone 0 has the superblock, cnv/0 is zones 1 to 4 together, seq/0 to seq/6 are zones 5 to 11."""
LIMITS = ("copy_max_bytes", "copy_max_range_bytes", "copy_max_nr_ranges")


@dataclass(frozen=True)
class Range:
    """Blocks of a file by number (0 is cnv/0, 1 to 4 are seq/0 to seq/3); cut to what there is of it."""

    file: int
    start: int
    blocks: int


@st.composite
def seams(draw: st.DrawFn) -> tuple[int, ...]:
    """Where one part of a linear device ends and the next begins, by zone; parts take turns between two devices."""
    return tuple(sorted(draw(st.sets(st.integers(1, NR_ZONES - 1), max_size=3))))


class Stack:
    """A device of `NR_ZONES` zones: one, or slices of two that take turns from seam to seam."""

    def __init__(self, cuts: tuple[int, ...]) -> None:
        self.edges = (0, *cuts, NR_ZONES)
        geometry = Geometry(ZONE, CAPACITY, NR_ZONES, NR_CONVENTIONAL, BLOCK, ZONE)
        self.parts = [CopyingDevice(geometry) for _ in range(2 if cuts else 1)]
        self.device: ZonedDevice = self.parts[0]
        if cuts:
            # Zone n of the whole is zone n of the one or the other.
            slices = [
                Slice(self.parts[number % 2], first, self.edges[number + 1] - first)
                for number, first in enumerate(self.edges[:-1])
            ]
            self.device = LinearDevice(slices)

    def part_of(self, zone: int) -> int:
        """The number of the device that has *zone*."""
        slices = sum(zone >= edge for edge in self.edges) - 1
        return slices % len(self.parts)


NAMES = ("cnv/0", "seq/0", "seq/1", "seq/2", "seq/3")
ZONES = (1, 5, 6, 7, 8)
"""The first zone of each."""


def fill(fs: Filesystem, name: str, data: bytes) -> None:
    handle = fs.open(name, os.O_WRONLY | os.O_DIRECT)
    for done in range(0, len(data), ZONE):
        fs.write(handle, done, data[done : done + ZONE])
    fs.release(handle)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    cuts=seams(),
    ranges=st.lists(
        st.builds(Range, st.integers(0, 4), st.integers(0, 4 * ZONE_BLOCKS - 1), st.integers(1, 10)),
        min_size=1,
        max_size=8,
    ),
    earlier=st.integers(0, 3),
    values=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6)),
    engine=st.sampled_from((1, 1, 1, 0)),
)
@example(cuts=(3, 7, 9), ranges=[Range(0, 0, 4), Range(3, 0, 4)], earlier=1, values=(12, 12, 6), engine=1)
def test_gathered_bytes(
    cuts: tuple[int, ...], ranges: list[Range], earlier: int, values: tuple[int, int, int], engine: int
) -> None:
    stack = Stack(cuts)
    format_device(stack.device, FormatOptions(aggregate_conventional=True))
    data = [random_bytes(4 * ZONE if name == "cnv/0" else CAPACITY, number) for number, name in enumerate(NAMES)]
    with Filesystem(stack.device) as fs:
        for name, content in zip(NAMES, data, strict=True):
            fill(fs, name, content)
        fill(fs, "seq/4", random_bytes(earlier * BLOCK, 9) if earlier else b"")
        limits = dict(zip(LIMITS, (values[0] * BLOCK, values[1] * BLOCK, values[2]), strict=True))
        fs.copy_engine.set_limits({**limits, "copy_offload": engine})
        room = CAPACITY - earlier * BLOCK
        sources: list[tuple[int, int, int]] = []
        wanted = b""
        by_engine = {Engine.HOST: 0, Engine.EMULATE: 0}
        for one in ranges:
            offset = one.start * BLOCK % len(data[one.file])
            length = min(one.blocks * BLOCK, len(data[one.file]) - offset, room - len(wanted))
            if length:
                sources.append((fs.resolve(NAMES[one.file]), offset, length))
                wanted += data[one.file][offset : offset + length]
                for place in range(offset, offset + length, BLOCK):
                    same = stack.part_of(ZONES[one.file] + place // ZONE) == stack.part_of(9)
                    by_engine[Engine.HOST if same and engine else Engine.EMULATE] += BLOCK
        writer = fs.open("seq/4", os.O_RDWR | os.O_DIRECT)
        copied = fs.copy_ranges(writer, None, sources)
        assert copied == (earlier * BLOCK, tuple(length for *_, length in sources), None)
        assert fs.read(writer, earlier * BLOCK, len(wanted)) == wanted
        for name, content in zip(NAMES, data, strict=True):
            reader = fs.open(name, os.O_RDONLY)
            assert fs.read(reader, 0, len(content)) == content
        counters = fs.copy_engine.counters
        assert {kind: counters[kind].bytes for kind in by_engine} == by_engine
        assert {kind: counters[kind].copies for kind in by_engine} == {
            kind: int(n > 0) for kind, n in by_engine.items()
        }
        commands = [command for part in stack.parts for command, _ in part.commands]
        assert counters[Engine.HOST].commands == len(commands)
        for command in commands:
            assert len(command) <= limits["copy_max_nr_ranges"]
            assert sum(piece.length for piece in command) <= limits["copy_max_bytes"]
            assert all(piece.length <= limits["copy_max_range_bytes"] for piece in command)


OFFSETS = st.tuples(st.integers(0, 4 * ZONE_BLOCKS), st.sampled_from((0, 0, 1, 7, BLOCK // 2, BLOCK - 1)))


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(cuts=seams(), source=OFFSETS, target=OFFSETS, blocks=st.integers(0, 30), more=st.integers(1, BLOCK))
@example(cuts=(3,), source=(0, 7), target=(33, 7), blocks=20, more=100)
def test_any_bytes_between_conventional_zones(
    cuts: tuple[int, ...], source: tuple[int, int], target: tuple[int, int], blocks: int, more: int
) -> None:
    """Only the ends, and what crosses from part to part, go through memory."""
    start, to, length = source[0] * BLOCK + source[1], target[0] * BLOCK + target[1], blocks * BLOCK + more
    size = 4 * ZONE
    length = min(length, size - start, size - to)
    if length <= 0 or abs(start - to) < length:
        return
    stack = Stack(cuts)
    format_device(stack.device, FormatOptions(aggregate_conventional=True))
    data = bytearray(random_bytes(size, 1))
    with Filesystem(stack.device) as fs:
        fill(fs, "cnv/0", bytes(data))
        handle = fs.open("cnv/0", os.O_RDWR)
        assert fs.copy_range(handle, start, handle, to, length) == length
        data[to : to + length] = data[start : start + length]
        assert fs.read(handle, 0, size) == data
        offloaded = 0
        if (start - to) % BLOCK == 0:
            for place in range(start + -start % BLOCK, start + length - BLOCK + 1, BLOCK):
                zones = (1 + place // ZONE, 1 + (place - start + to) // ZONE)
                offloaded += BLOCK * (stack.part_of(zones[0]) == stack.part_of(zones[1]))
        counters = fs.copy_engine.counters
        assert counters[Engine.HOST].bytes == offloaded
        assert counters[Engine.EMULATE].bytes == length - offloaded


def test_an_error_in_the_middle_of_two_engines() -> None:
    """The count is that of both together; what follows is not tried, by no engine."""
    device = FaultDevice(Stack((6,)).device)
    format_device(device, FormatOptions(aggregate_conventional=True))
    with Filesystem(device) as fs:
        # seq/0 is in the first part, seq/2 and the destination in the second.
        fill(fs, "seq/0", random_bytes(CAPACITY, 1))
        fill(fs, "seq/2", random_bytes(CAPACITY, 2))
        places = [(fs.resolve("seq/2"), 0, 2 * BLOCK), (fs.resolve("seq/0"), 0, 2 * BLOCK)] * 2
        device.add_rule(FaultRule(Operation.READ, Effect.FAIL, (5, 5), first=2))
        copied = fs.copy_ranges(fs.open("seq/4", os.O_RDWR), None, places)
        assert copied.completed == (2 * BLOCK, 2 * BLOCK, 2 * BLOCK, 0)
        assert copied.error is not None
        assert fs.getattr(fs.resolve("seq/4")).size == 6 * BLOCK
        host, emulate = (fs.copy_engine.counters[engine] for engine in (Engine.HOST, Engine.EMULATE))
        assert (host.copies, host.commands, host.bytes, host.errors) == (1, 2, 4 * BLOCK, 0)
        assert (emulate.copies, emulate.commands, emulate.bytes, emulate.errors) == (1, 2, 2 * BLOCK, 1)


class Moved(LinearDevice):
    """After its first command zones 5 to 8 are moved to another device, and the table is replaced."""

    elsewhere: CopyingDevice | None = None

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        super().copy(ranges, method, generation)
        if self.elsewhere is not None:
            other, self.elsewhere = self.elsewhere, None
            before, moving, after = self.slices
            for number in range(5, 9):
                data = self.read(number * ZONE, CAPACITY)
                other.write(number * ZONE, data)
            self.replace_table([before, Slice(other, moving.first, moving.nr_zones), after])


def test_a_table_that_changes_in_mid_copy() -> None:
    """What was copied stays; the rest is planned for what lies where now, and copied as that allows."""
    geometry = Geometry(ZONE, CAPACITY, NR_ZONES, NR_CONVENTIONAL, BLOCK, ZONE)
    here, elsewhere = CopyingDevice(geometry), CopyingDevice(geometry)
    device = Moved([Slice(here, 0, 5), Slice(here, 5, 4), Slice(here, 9, 3)])
    format_device(device, FormatOptions(aggregate_conventional=True))
    with Filesystem(device) as fs:
        for number in range(4):
            fill(fs, f"seq/{number}", random_bytes(CAPACITY, number))
        fs.copy_engine.set_limit("copy_max_bytes", 2 * BLOCK)
        device.elsewhere = elsewhere
        places = [(fs.resolve(name), 0, 2 * BLOCK) for name in ("seq/0", "seq/1", "seq/2")]
        writer = fs.open("seq/4", os.O_RDWR | os.O_DIRECT)
        copied = fs.copy_ranges(writer, None, places)
        assert copied == (0, (2 * BLOCK,) * 3, None)
        wanted = b"".join(random_bytes(CAPACITY, number)[: 2 * BLOCK] for number in range(3))
        assert fs.read(writer, 0, len(wanted)) == wanted
        # The sources are on another device now: that is no copy of a device any more.
        host, emulate = (fs.copy_engine.counters[engine] for engine in (Engine.HOST, Engine.EMULATE))
        assert (host.copies, host.bytes, host.errors) == (1, 2 * BLOCK, 0)
        assert (emulate.copies, emulate.bytes, emulate.errors) == (1, 4 * BLOCK, 0)
        assert not fs.read_only
        assert len(here.commands) == 1
        here.close()

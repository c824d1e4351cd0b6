"""Copies between files of one file system: what is refused, what is copied, and what a copy leaves behind.

The rules are those that the review of kernel zonefs's proposed copy_file_range asked for.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.core.calls import content, size_of
from tests.core.copying import (
    ALL_METHODS,
    Call,
    CopyDevice,
    at_most,
    copy_with_small_buffer,
    random_bytes,
    zone_bytes,
)
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.engine import BUFFER_SIZE, CopyCounters, CopyEngine, Engine, Step
from zonefs_py.device.aligned import is_aligned_memory
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import KeepNone
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import (
    ActiveZonesExhausted,
    BadHandle,
    BeyondCapacity,
    DeviceError,
    InvalidRequest,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    OpenZonesExhausted,
    OutOfMemory,
    ReadOnlyFilesystem,
    TableChanged,
    ZonefsError,
)
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition, ZoneOp

BLOCK = 4096
ZONE_SIZE = 16 * BLOCK
CAPACITY = 12 * BLOCK
LAST_SIZE = 8 * BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 12, 4, BLOCK, LAST_SIZE)
"""cnv/0 to cnv/2; seq/0 to seq/7, the last of which is smaller."""

FIRST = 4
"""The zone of seq/0."""
LAST = "seq/7"

DIRECT = os.O_RDWR | os.O_DIRECT

MakeDevice = Callable[..., EmulatedDevice]


@pytest.fixture(params=["memory", "directory"])
def make_device(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDevice:
    """A factory of formatted devices: ``make_device(max_open, max_active, aggregate_conventional)``."""

    def make(
        max_open: int | None = None, max_active: int | None = None, aggregate_conventional: bool = False
    ) -> EmulatedDevice:
        device: EmulatedDevice
        if request.param == "memory":
            device = MemoryDevice(GEOMETRY, max_open, max_active)
        else:
            create_device(tmp_path / "disk", GEOMETRY, max_open, max_active)
            device = open_device(tmp_path / "disk")
        format_device(device, FormatOptions(aggregate_conventional))
        return device

    return make


@pytest.fixture
def fs(make_device: MakeDevice) -> Iterator[Filesystem]:
    """A file system without limits that repairs what errors leave."""
    with Filesystem(make_device(), MountOptions(ErrorsPolicy.REPAIR)) as filesystem:
        yield filesystem


def put(fs: Filesystem, name: str, data: bytes, offset: int | None = None) -> None:
    """Write *data* to a file, a sequential one at its write pointer."""
    handle = fs.open(name, DIRECT)
    where = (size_of(fs, name) if fs.is_sequential(name) else 0) if offset is None else offset
    assert fs.write(handle, where, data) == len(data)
    fs.release(handle)


def copy(fs: Filesystem, source: str, source_offset: int, target: str, offset: int, length: int) -> int:
    """Copy between files that are opened for it, the destination without O_DIRECT."""
    reader = fs.open(source, os.O_RDONLY)
    writer = fs.open(target, os.O_WRONLY)
    try:
        return fs.copy_range(reader, source_offset, writer, offset, length)
    finally:
        fs.release(writer)
        fs.release(reader)


def copied_bytes(fs: Filesystem) -> dict[str, int]:
    """How many bytes each engine has copied, of those that have copied any."""
    return {engine.value: done.bytes for engine, done in fs.copy_engine.counters.items() if done.bytes}


def check_books(fs: Filesystem) -> None:
    """Compare sizes with the device, and counters and space with a recount. No file may be open, none broken."""
    files = {name: zone for zone, name in fs.report() if name and name.startswith("seq/")}
    written = active = 0
    for name, zone in files.items():
        assert zone.data_size == size_of(fs, name), name
        written += size_of(fs, name)
        active += 0 < size_of(fs, name) < zone.capacity
    assert fs.counters.nr_active_seq_files == active
    assert fs.counters.nr_wro_seq_files == 0
    statistics = fs.statfs()
    room = sum(zone.capacity for zone in files.values())
    assert statistics.blocks_free == (room - written) // BLOCK


class TestAllPairs:
    """Z4: conventional files take copies anywhere, sequential ones at the write pointer."""

    @pytest.mark.parametrize("engine", ["auto", "host", "emulate"])
    @pytest.mark.parametrize(
        ("source", "source_offset", "target", "offset"),
        [
            ("cnv/0", 2 * BLOCK, "cnv/1", 5 * BLOCK),
            ("cnv/0", 2 * BLOCK, "seq/1", 3 * BLOCK),
            ("seq/0", BLOCK, "seq/1", 3 * BLOCK),
            ("seq/0", BLOCK, "cnv/1", 5 * BLOCK),
            ("cnv/0", 2 * BLOCK, "cnv/0", 9 * BLOCK),
            ("seq/1", 0, "seq/1", 3 * BLOCK),
            ("seq/2", 0, "seq/1", 3 * BLOCK),  # the destination's zone comes first
        ],
    )
    def test_bytes_and_books(
        self, make_device: MakeDevice, engine: str, source: str, source_offset: int, target: str, offset: int
    ) -> None:
        with Filesystem(make_device(), MountOptions(copy=engine)) as fs:
            before = {name: random_bytes(ZONE_SIZE, seed) for seed, name in enumerate(("cnv/0", "cnv/1"))}
            before |= {"seq/0": random_bytes(8 * BLOCK, 2), "seq/1": random_bytes(3 * BLOCK, 3)}
            before |= {"seq/2": random_bytes(8 * BLOCK, 4)}
            for name, data in before.items():
                put(fs, name, data)
            length = 3 * BLOCK
            assert copy(fs, source, source_offset, target, offset, length) == length
            piece = before[source][source_offset : source_offset + length]
            expected = before[target][:offset] + piece + before[target][offset + length :]
            after = {name: content(fs, name) for name in before}
            assert after == before | {target: expected}
            assert copied_bytes(fs) == {"emulate" if engine == "emulate" else "host": length}
            check_books(fs)

    @pytest.mark.parametrize("engine", ["auto", "emulate"])
    def test_it_is_there_after_mounting_again(self, make_device: MakeDevice, engine: str, tmp_path: Path) -> None:
        device = make_device()
        data = random_bytes(8 * BLOCK, 1)
        with Filesystem(device, MountOptions(copy=engine)) as fs:
            put(fs, "seq/0", data)
            assert copy(fs, "seq/0", 0, "seq/1", 0, len(data)) == len(data)
            assert copy(fs, "seq/1", 0, "cnv/0", BLOCK, len(data)) == len(data)
        again = device if isinstance(device, MemoryDevice) else open_device(tmp_path / "disk")
        with Filesystem(again) as fs:
            assert content(fs, "seq/1") == data
            assert content(fs, "cnv/0")[BLOCK : 9 * BLOCK] == data
            check_books(fs)

    def test_what_was_never_written_copies_as_zeros(self, fs: Filesystem) -> None:
        put(fs, "cnv/1", random_bytes(ZONE_SIZE, 1))
        assert copy(fs, "cnv/0", 0, "cnv/1", 0, ZONE_SIZE) == ZONE_SIZE
        assert content(fs, "cnv/1") == bytes(ZONE_SIZE)
        put(fs, "seq/0", random_bytes(BLOCK, 2))
        fs.truncate("seq/0", CAPACITY)  # finished: the rest reads as zeros
        assert copy(fs, "seq/0", 0, "seq/1", 0, CAPACITY) == CAPACITY
        assert content(fs, "seq/1") == random_bytes(BLOCK, 2) + bytes(CAPACITY - BLOCK)
        assert copy(fs, "cnv/0", 0, "seq/2", 0, CAPACITY) == CAPACITY
        assert content(fs, "seq/2") == bytes(CAPACITY)
        check_books(fs)

    def test_the_access_time_moves_and_no_other(self, fs: Filesystem) -> None:
        put(fs, "seq/0", random_bytes(BLOCK, 1))
        before = [fs.getattr(fs.resolve(name)) for name in ("seq/0", "seq/1")]
        copy(fs, "seq/0", 0, "seq/1", 0, BLOCK)
        after = [fs.getattr(fs.resolve(name)) for name in ("seq/0", "seq/1")]
        assert after[0].atime_ns > before[0].atime_ns
        assert [(a.mtime_ns, a.ctime_ns) for a in after] == [(b.mtime_ns, b.ctime_ns) for b in before]


class TestLength:
    """Z1, Z2, Z5: the source's end, the destination's capacity, whole blocks."""

    def test_at_and_past_the_end_of_the_source_nothing(self, fs: Filesystem) -> None:
        put(fs, "seq/0", random_bytes(2 * BLOCK, 1))
        for offset in (2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK, CAPACITY, ZONE_SIZE, 1 << 50):
            assert copy(fs, "seq/0", offset, "seq/1", 0, BLOCK) == 0
            assert copy(fs, "seq/0", offset, "cnv/0", 0, BLOCK) == 0
        assert copy(fs, "cnv/0", ZONE_SIZE, "seq/1", 0, BLOCK) == 0
        assert copy(fs, "seq/5", 0, "seq/1", 0, BLOCK) == 0
        assert size_of(fs, "seq/1") == 0
        assert copied_bytes(fs) == {}

    def test_the_end_of_the_source_comes_before_the_destination(self, fs: Filesystem) -> None:
        """0 is the end of the source, wherever the destination is: cp asks until it gets it."""
        put(fs, "seq/0", random_bytes(CAPACITY, 1))
        assert copy(fs, "seq/0", CAPACITY, "seq/0", CAPACITY, BLOCK) == 0
        assert copy(fs, "seq/1", 0, "seq/0", CAPACITY, BLOCK) == 0
        assert copy(fs, "seq/1", 0, "seq/2", 5, BLOCK) == 0

    def test_nothing_is_asked_for(self, fs: Filesystem) -> None:
        put(fs, "seq/0", random_bytes(BLOCK, 1))
        assert copy(fs, "seq/0", 0, "seq/1", 0, 0) == 0

    def test_the_source_ends_before(self, fs: Filesystem) -> None:
        data = random_bytes(5 * BLOCK, 1)
        put(fs, "seq/0", data)
        assert copy(fs, "seq/0", 2 * BLOCK, "seq/1", 0, 1 << 40) == 3 * BLOCK
        assert copy(fs, "seq/0", 2 * BLOCK + 1, "cnv/0", 7, CAPACITY) == 3 * BLOCK - 1
        assert content(fs, "seq/1") == data[2 * BLOCK :]
        assert content(fs, "cnv/0")[: 3 * BLOCK + 7] == bytes(7) + data[2 * BLOCK + 1 :] + bytes(1)

    def test_the_capacity_makes_it_shorter(self, fs: Filesystem) -> None:
        put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
        assert copy(fs, "cnv/0", 0, "seq/0", 0, ZONE_SIZE) == CAPACITY
        assert copy(fs, "cnv/0", 0, "cnv/1", ZONE_SIZE - 100, ZONE_SIZE) == 100
        put(fs, "seq/1", random_bytes(10 * BLOCK, 2))
        assert copy(fs, "cnv/0", 0, "seq/1", 10 * BLOCK, 3 * BLOCK) == 2 * BLOCK
        assert content(fs, "seq/0") == random_bytes(ZONE_SIZE, 1)[:CAPACITY]
        assert content(fs, "cnv/1")[ZONE_SIZE - 100 :] == random_bytes(ZONE_SIZE, 1)[:100]
        check_books(fs)

    def test_a_full_destination(self, fs: Filesystem) -> None:
        put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
        put(fs, "seq/0", random_bytes(CAPACITY, 2))
        for offset in (CAPACITY, CAPACITY + BLOCK, 1 << 50):
            with pytest.raises(BeyondCapacity):
                copy(fs, "cnv/0", 0, "seq/0", offset, BLOCK)
        for offset in (0, BLOCK):  # as a write there
            with pytest.raises(NotAtWritePointer):
                copy(fs, "cnv/0", 0, "seq/0", offset, BLOCK)
        for offset in (ZONE_SIZE, ZONE_SIZE + 1, 1 << 62):
            with pytest.raises(BeyondCapacity):
                copy(fs, "cnv/0", 0, "cnv/1", offset, BLOCK)
        with pytest.raises(BeyondCapacity):
            copy(fs, "cnv/0", 0, "seq/1", CAPACITY, BLOCK)
        assert BeyondCapacity.errno == 27

    def test_a_smaller_last_zone(self, fs: Filesystem) -> None:
        data = random_bytes(ZONE_SIZE, 1)
        put(fs, "cnv/0", data)
        assert copy(fs, "cnv/0", 0, LAST, 0, ZONE_SIZE) == LAST_SIZE
        assert content(fs, LAST) == data[:LAST_SIZE]
        assert copy(fs, LAST, BLOCK, "seq/0", 0, ZONE_SIZE) == LAST_SIZE - BLOCK
        assert content(fs, "seq/0") == data[BLOCK:LAST_SIZE]
        with pytest.raises(BeyondCapacity):
            copy(fs, "cnv/0", 0, LAST, LAST_SIZE, BLOCK)
        check_books(fs)

    @pytest.mark.parametrize("source_offset", [0, 1, 513, BLOCK])
    def test_whole_blocks_to_a_sequential_file(self, fs: Filesystem, source_offset: int) -> None:
        data = random_bytes(ZONE_SIZE, 1)
        put(fs, "cnv/0", data)
        assert copy(fs, "cnv/0", source_offset, "seq/0", 0, 3 * BLOCK + 5) == 3 * BLOCK
        assert copy(fs, "cnv/0", source_offset, "seq/0", 3 * BLOCK, 2 * BLOCK - 1) == BLOCK
        assert content(fs, "seq/0") == data[source_offset:][: 3 * BLOCK] + data[source_offset:][:BLOCK]

    def test_less_than_a_block_to_a_sequential_file(self, fs: Filesystem) -> None:
        put(fs, "seq/0", random_bytes(BLOCK, 1))
        for offset, length in ((0, 1), (0, BLOCK - 1), (1, BLOCK), (BLOCK - 1, CAPACITY)):
            with pytest.raises(NotAligned):
                copy(fs, "seq/0", offset, "seq/1", 0, length)
        assert size_of(fs, "seq/1") == 0

    def test_any_bytes_to_a_conventional_file(self, fs: Filesystem) -> None:
        data = random_bytes(CAPACITY, 1)
        put(fs, "seq/0", data)
        before = bytearray(random_bytes(ZONE_SIZE, 2))
        put(fs, "cnv/0", bytes(before))
        for source_offset, offset, length in (
            (1, 2, 3),
            (4095, 1, 4098),
            (0, 4097, 4096),
            (4096, 9000, 1),
            (3, 0, 9999),
        ):
            assert copy(fs, "seq/0", source_offset, "cnv/0", offset, length) == length
            before[offset : offset + length] = data[source_offset : source_offset + length]
            assert content(fs, "cnv/0") == before


class TestRefused:
    """Z3, Z6: what is refused changes nothing, and the device is not asked."""

    def test_not_at_the_write_pointer(self, fs: Filesystem) -> None:
        put(fs, "seq/0", random_bytes(4 * BLOCK, 1))
        put(fs, "seq/1", random_bytes(2 * BLOCK, 2))
        for offset in (0, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK + 1, 3 * BLOCK, CAPACITY - 1):
            with pytest.raises(NotAtWritePointer):
                copy(fs, "seq/0", 0, "seq/1", offset, BLOCK)
        assert NotAtWritePointer.errno == 22
        assert content(fs, "seq/1") == random_bytes(2 * BLOCK, 2)
        check_books(fs)

    @pytest.mark.parametrize(
        ("source_offset", "offset", "length"),
        [(0, 0, 1), (0, 0, BLOCK), (0, BLOCK, BLOCK + 1), (BLOCK, 0, BLOCK + 1), (5, 6, 2), (100, 0, 101)],
    )
    def test_overlap_in_one_file(self, fs: Filesystem, source_offset: int, offset: int, length: int) -> None:
        put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
        with pytest.raises(InvalidRequest):
            copy(fs, "cnv/0", source_offset, "cnv/0", offset, length)
        assert content(fs, "cnv/0") == random_bytes(ZONE_SIZE, 1)

    def test_overlap_counts_what_is_there(self, fs: Filesystem) -> None:
        """As in the kernel the source's end comes first: the last block may be copied to before it with any length."""
        data = random_bytes(ZONE_SIZE, 1)
        put(fs, "cnv/0", data)
        assert copy(fs, "cnv/0", ZONE_SIZE - BLOCK, "cnv/0", ZONE_SIZE - 2 * BLOCK, 10 * BLOCK) == BLOCK
        assert content(fs, "cnv/0") == data[: -2 * BLOCK] + data[-BLOCK:] * 2

    def test_neighbours_do_not_overlap(self, fs: Filesystem) -> None:
        data = random_bytes(ZONE_SIZE, 1)
        put(fs, "cnv/0", data)
        assert copy(fs, "cnv/0", 0, "cnv/0", 100, 100) == 100
        assert content(fs, "cnv/0") == data[:100] + data[:100] + data[200:]

    @pytest.mark.parametrize(("a", "b", "n"), [(-1, 0, 1), (0, -1, 1), (0, 0, -1), (0, 0, -BLOCK)])
    def test_negative(self, fs: Filesystem, a: int, b: int, n: int) -> None:
        with pytest.raises(InvalidRequest):
            copy(fs, "cnv/0", a, "cnv/1", b, n)

    def test_handles(self, fs: Filesystem) -> None:
        read, write, both = (fs.open("cnv/0", flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR))
        append = fs.open("seq/0", os.O_WRONLY | os.O_APPEND)
        target = fs.open("cnv/1", os.O_RDWR)
        for source, destination in ((write, target), (both, read), (both, append), (both, 999), (999, both)):
            with pytest.raises(BadHandle):
                fs.copy_range(source, 0, destination, 0, BLOCK)
        assert fs.copy_range(both, 0, target, 0, BLOCK) == BLOCK
        fs.release(read)
        with pytest.raises(BadHandle):
            fs.copy_range(read, 0, target, 0, BLOCK)
        for handle in (write, both, append, target):
            fs.release(handle)

    def test_a_file_system_that_became_read_only(self, make_device: MakeDevice) -> None:
        device = CopyDevice(make_device())
        with Filesystem(device, MountOptions(ErrorsPolicy.REMOUNT_RO)) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            reader, writer = fs.open("cnv/0", os.O_RDONLY), fs.open("seq/0", os.O_WRONLY)
            device.inner.force_condition(FIRST + 1, ZoneCondition.READONLY)
            with pytest.raises(DeviceError):
                copy(fs, "cnv/0", 0, "seq/1", 0, BLOCK)
            assert fs.read_only
            calls = len(device.calls)
            with pytest.raises(ReadOnlyFilesystem):
                fs.copy_range(reader, 0, writer, 0, BLOCK)
            assert fs.copy_range(reader, ZONE_SIZE, writer, 0, BLOCK) == 0
            assert len(device.calls) == calls


class TestOneFile:
    def test_a_file_is_doubled(self, fs: Filesystem) -> None:
        data = random_bytes(3 * BLOCK, 1)
        put(fs, "seq/0", data)
        handle = fs.open("seq/0", os.O_RDWR)
        assert fs.copy_range(handle, 0, handle, 3 * BLOCK, CAPACITY) == 3 * BLOCK
        assert fs.copy_range(handle, BLOCK, handle, 6 * BLOCK, CAPACITY) == 5 * BLOCK
        fs.release(handle)
        expected = data + data
        assert content(fs, "seq/0") == expected + expected[BLOCK:]
        check_books(fs)

    def test_to_its_capacity(self, fs: Filesystem) -> None:
        put(fs, "seq/0", random_bytes(8 * BLOCK, 1))
        assert copy(fs, "seq/0", 0, "seq/0", 8 * BLOCK, 8 * BLOCK) == 4 * BLOCK
        with pytest.raises(BeyondCapacity):
            copy(fs, "seq/0", 0, "seq/0", CAPACITY, BLOCK)
        check_books(fs)

    def test_an_error_of_the_device_counts_as_a_write_error(self, make_device: MakeDevice) -> None:
        """Source and destination are one file: the destination's errors= action must not get lost."""
        device = CopyDevice(make_device(), (CopyMethod.HOST,))

        def fail(call: Call) -> None:
            raise DeviceError("copy fails as asked for")

        with Filesystem(device, MountOptions(ErrorsPolicy.ZONE_RO)) as fs:
            put(fs, "seq/0", random_bytes(BLOCK, 1))
            device.before = fail
            with pytest.raises(DeviceError):
                copy(fs, "seq/0", 0, "seq/0", BLOCK, BLOCK)
            device.before = None
            with pytest.raises(NotPermitted):
                fs.open("seq/0", os.O_WRONLY)
            assert content(fs, "seq/0") == random_bytes(BLOCK, 1)


class TestAggregated:
    """Z5: an aggregated conventional file is larger than a zone, and copies go across its zones."""

    @pytest.mark.parametrize("engine", ["auto", "emulate"])
    @pytest.mark.parametrize("more", [0, 1, 513])
    def test_across_zone_boundaries(self, make_device: MakeDevice, engine: str, more: int) -> None:
        with Filesystem(make_device(aggregate_conventional=True), MountOptions(copy=engine)) as fs:
            size = 3 * ZONE_SIZE
            data = bytearray(random_bytes(size, 1))
            put(fs, "cnv/0", bytes(data))
            start, length = 10 * BLOCK + more, ZONE_SIZE + 4 * BLOCK
            target = start + length + more
            assert copy(fs, "cnv/0", start, "cnv/0", target, length) == min(length, size - target)
            data[target:] = data[start : start + size - target]
            assert content(fs, "cnv/0") == data
            # To a zone from where two meet, and back.
            assert copy(fs, "cnv/0", ZONE_SIZE - BLOCK + more, "seq/0", 0, CAPACITY) == CAPACITY
            piece = bytes(data[ZONE_SIZE - BLOCK + more :][:CAPACITY])
            assert content(fs, "seq/0") == piece
            assert copy(fs, "seq/0", 0, "cnv/0", 2 * ZONE_SIZE - BLOCK - more, CAPACITY) == CAPACITY
            data[2 * ZONE_SIZE - BLOCK - more : 2 * ZONE_SIZE - BLOCK - more + CAPACITY] = piece
            assert content(fs, "cnv/0") == data
            with pytest.raises(BeyondCapacity):
                copy(fs, "cnv/0", 0, "cnv/0", size, BLOCK)
            check_books(fs)


class TestActiveAndOpenZones:
    """Z14: who is active and open after a copy; the limits hold for copies as for writes."""

    def test_a_zone_that_a_copy_fills_is_no_longer_active(self, make_device: MakeDevice) -> None:
        device = make_device(max_active=1)
        with Filesystem(device) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            assert copy(fs, "cnv/0", 0, "seq/0", 0, CAPACITY - BLOCK) == CAPACITY - BLOCK
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 1
            assert copy(fs, "cnv/0", 0, "seq/0", CAPACITY - BLOCK, ZONE_SIZE) == BLOCK
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 0
            assert copy(fs, "cnv/0", 0, "seq/1", 0, CAPACITY) == CAPACITY
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 0
            assert copy(fs, "cnv/0", 0, "seq/2", 0, BLOCK) == BLOCK
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 1
            check_books(fs)

    @pytest.mark.parametrize("engine", ["auto", "emulate"])
    @pytest.mark.parametrize("policy", list(ErrorsPolicy))
    def test_no_zone_can_become_active(self, make_device: MakeDevice, engine: str, policy: ErrorsPolicy) -> None:
        """As a write there: EOVERFLOW, and the errors= action for the destination; the source is not touched."""
        device = make_device(max_active=2)
        with Filesystem(device, MountOptions(policy, copy=engine)) as fs:
            put(fs, "seq/0", random_bytes(2 * BLOCK, 1))
            put(fs, "seq/1", random_bytes(BLOCK, 2))
            with pytest.raises(ActiveZonesExhausted) as refused:
                copy(fs, "seq/0", 0, "seq/2", 0, BLOCK)
            assert refused.value.errno_name == "EOVERFLOW"
            assert size_of(fs, "seq/2") == 0
            assert fs.counters.nr_active_seq_files == 2
            assert fs.read_only == (policy is ErrorsPolicy.REMOUNT_RO)
            if policy in (ErrorsPolicy.ZONE_RO, ErrorsPolicy.ZONE_OFFLINE):
                with pytest.raises(NotPermitted):
                    fs.open("seq/2", os.O_WRONLY)
            if policy is not ErrorsPolicy.REMOUNT_RO:
                # Copies to active zones and out of any go on; so does the refused one when there is room.
                assert copy(fs, "seq/0", 0, "seq/1", BLOCK, BLOCK) == BLOCK
                fs.truncate("seq/1", 0)
            if policy is ErrorsPolicy.REPAIR:
                assert copy(fs, "seq/0", 0, "seq/2", 0, BLOCK) == BLOCK
            assert content(fs, "seq/0") == random_bytes(2 * BLOCK, 1)

    def test_no_zone_can_become_open(self, make_device: MakeDevice) -> None:
        device = make_device(max_open=1, max_active=3)
        with Filesystem(device, MountOptions(ErrorsPolicy.REPAIR, explicit_open=True)) as fs:
            handle = fs.open("seq/0", os.O_RDWR | os.O_DIRECT)
            fs.write(handle, 0, random_bytes(BLOCK, 1))
            with pytest.raises(ZonefsError) as refused:
                fs.open("seq/1", os.O_WRONLY)
            assert refused.value.errno_name == "EBUSY"
            assert fs.copy_range(handle, 0, handle, BLOCK, BLOCK) == BLOCK
            device.zone_mgmt(ZoneOp.CLOSE, FIRST)
            device.zone_mgmt(ZoneOp.OPEN, FIRST + 1)
            with pytest.raises(OpenZonesExhausted):
                fs.copy_range(handle, 0, handle, 2 * BLOCK, BLOCK)
            assert size_of(fs, "seq/0") == 2 * BLOCK
            device.zone_mgmt(ZoneOp.RESET, FIRST + 1)
            assert fs.copy_range(handle, 0, handle, 2 * BLOCK, BLOCK) == BLOCK
            fs.release(handle)

    def test_an_implicitly_open_zone_makes_room(self, make_device: MakeDevice) -> None:
        device = make_device(max_open=1)
        with Filesystem(device) as fs:
            put(fs, "seq/0", random_bytes(BLOCK, 1))
            for target in ("seq/1", "seq/2", "seq/3"):
                assert copy(fs, "seq/0", 0, target, 0, BLOCK) == BLOCK
                assert device.nr_open_zones == 1
            conditions = [zone.condition for zone, _ in fs.report()][FIRST : FIRST + 4]
            assert conditions == [ZoneCondition.CLOSED] * 3 + [ZoneCondition.IMP_OPEN]
            check_books(fs)

    def test_explicitly_open_zones(self, make_device: MakeDevice) -> None:
        device = make_device(max_open=2, max_active=3)
        with Filesystem(device, MountOptions(explicit_open=True)) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            reader, writer = fs.open("cnv/0", os.O_RDONLY), fs.open("seq/0", os.O_WRONLY)

            def condition() -> ZoneCondition:
                return device.report_zones(FIRST, 1)[0].condition

            assert condition() is ZoneCondition.EXP_OPEN
            assert fs.counters[1::2] == (1, 1)
            assert fs.copy_range(reader, 0, writer, 0, BLOCK) == BLOCK
            assert condition() is ZoneCondition.EXP_OPEN
            assert fs.copy_range(reader, 0, writer, BLOCK, ZONE_SIZE) == CAPACITY - BLOCK
            assert condition() is ZoneCondition.FULL
            assert fs.counters[1::2] == (1, 0)
            fs.release(writer)
            assert condition() is ZoneCondition.FULL
            assert fs.counters[1::2] == (0, 0)
            writer = fs.open("seq/1", os.O_WRONLY)
            assert fs.copy_range(reader, 0, writer, 0, BLOCK) == BLOCK
            fs.release(writer)
            assert device.report_zones(FIRST + 1, 1)[0].condition is ZoneCondition.CLOSED
            assert fs.counters[1::2] == (0, 1)
            fs.release(reader)
            check_books(fs)


@pytest.mark.parametrize("engine", ["device", "reflink", "host", "emulate"])
class TestBrokenZones:
    """A zone that is read-only or offline, before a copy and during it, on either side."""

    def start(self, device: CopyDevice, engine: str, policy: ErrorsPolicy = ErrorsPolicy.REPAIR) -> Filesystem:
        fs = Filesystem(device, MountOptions(policy, copy=engine))
        copy_with_small_buffer(fs, CAPACITY // 4)
        if engine != "emulate":
            fs.copy_engine.set_limit("copy_max_bytes", CAPACITY // 4)
        return fs

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_the_destination_before(self, make_device: MakeDevice, engine: str, condition: ZoneCondition) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            put(fs, "seq/0", random_bytes(BLOCK, 2))
            device.inner.force_condition(FIRST, condition)
            with pytest.raises(DeviceError):
                copy(fs, "cnv/0", 0, "seq/0", BLOCK, 4 * BLOCK)
            with pytest.raises(NotPermitted):
                fs.open("seq/0", os.O_WRONLY)
            assert size_of(fs, "seq/0") == (BLOCK if condition is ZoneCondition.READONLY else 0)
            assert fs.counters.nr_active_seq_files == 0
            assert zone_bytes(device.inner, FIRST) == random_bytes(BLOCK, 2)

    def test_a_read_only_source(self, make_device: MakeDevice, engine: str) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            put(fs, "seq/0", random_bytes(4 * BLOCK, 2))
            device.inner.force_condition(FIRST, ZoneCondition.READONLY)
            assert copy(fs, "seq/0", 0, "seq/1", 0, 4 * BLOCK) == 4 * BLOCK
            assert content(fs, "seq/1") == random_bytes(4 * BLOCK, 2)

    @pytest.mark.parametrize("policy", list(ErrorsPolicy))
    @pytest.mark.parametrize("source", ["seq/0", "cnv/0"])
    def test_an_offline_source(self, make_device: MakeDevice, engine: str, policy: ErrorsPolicy, source: str) -> None:
        """The destination is not to blame: its zone stays as it is, whatever errors= says."""
        device = CopyDevice(make_device())
        with self.start(device, engine, policy) as fs:
            put(fs, source, random_bytes(4 * BLOCK, 1))
            put(fs, "seq/1", random_bytes(BLOCK, 2))
            reader, writer = fs.open(source, os.O_RDONLY), fs.open("seq/1", os.O_WRONLY)
            device.inner.force_condition(fs.resolve(source), ZoneCondition.OFFLINE)
            with pytest.raises(DeviceError):
                fs.copy_range(reader, 0, writer, BLOCK, 4 * BLOCK)
            assert fs.read_only == (policy is ErrorsPolicy.REMOUNT_RO)
            assert size_of(fs, source) == 0
            with pytest.raises(NotPermitted):
                fs.copy_range(reader, 0, writer, BLOCK, 4 * BLOCK)
            fs.release(reader)
            fs.release(writer)
            assert content(fs, "seq/1") == random_bytes(BLOCK, 2)
            if policy is not ErrorsPolicy.REMOUNT_RO:
                assert copy(fs, "seq/1", 0, "seq/1", BLOCK, BLOCK) == BLOCK

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_the_destination_in_the_middle(
        self, make_device: MakeDevice, engine: str, condition: ZoneCondition
    ) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            data = random_bytes(ZONE_SIZE, 1)
            put(fs, "cnv/0", data)
            pieces = 0

            def break_zone(call: Call) -> None:
                nonlocal pieces
                pieces += call.kind != "read"
                if pieces == 3:
                    device.inner.force_condition(FIRST, condition)

            device.before = break_zone
            reader, writer = fs.open("cnv/0", os.O_RDONLY), fs.open("seq/0", os.O_WRONLY)
            half = CAPACITY // 2
            assert fs.copy_range(reader, 0, writer, 0, CAPACITY) == half
            with pytest.raises(NotPermitted):
                fs.copy_range(reader, half, writer, half, BLOCK)
            fs.release(reader)
            fs.release(writer)
            device.before = None
            assert size_of(fs, "seq/0") == (half if condition is ZoneCondition.READONLY else 0)
            if condition is ZoneCondition.READONLY:
                assert content(fs, "seq/0") == data[:half]
            assert zone_bytes(device.inner, FIRST) == data[:half]

    def test_the_source_in_the_middle(self, make_device: MakeDevice, engine: str) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            data = random_bytes(CAPACITY, 1)
            put(fs, "seq/0", data)
            calls = 0

            def break_zone(call: Call) -> None:
                nonlocal calls
                calls += call.kind != "write"
                if calls == 3:
                    device.inner.force_condition(FIRST, ZoneCondition.OFFLINE)

            device.before = break_zone
            assert copy(fs, "seq/0", 0, "seq/1", 0, CAPACITY) == CAPACITY // 2
            device.before = None
            assert size_of(fs, "seq/0") == 0
            assert content(fs, "seq/1") == data[: CAPACITY // 2]
            assert copy(fs, "seq/1", 0, "seq/1", CAPACITY // 2, BLOCK) == BLOCK


class TestEngines:
    def test_the_best_method_is_taken(self) -> None:
        for methods, expected in ((ALL_METHODS, "device"), (ALL_METHODS[1:], "reflink"), (ALL_METHODS[2:], "host")):
            assert self.copy_once(CopyDevice(memory_device(), methods)) == {expected: BLOCK}
        assert self.copy_once(CopyDevice(memory_device(), ())) == {"emulate": BLOCK}

    @pytest.mark.parametrize("engine", ["device", "reflink", "host", "emulate"])
    def test_the_wanted_one_is_taken(self, make_device: MakeDevice, engine: str) -> None:
        device = CopyDevice(make_device())
        assert self.copy_once(device, engine) == {engine: BLOCK}
        kinds = {(call.kind, call.method and call.method.value) for call in device.calls if call.kind == "copy"}
        assert kinds == ({("copy", engine)} if engine != "emulate" else set())

    def test_what_the_device_lacks_is_emulated(self, make_device: MakeDevice) -> None:
        device = CopyDevice(make_device(), (CopyMethod.HOST,))
        assert self.copy_once(device, "reflink") == {"emulate": BLOCK}
        assert {call.kind for call in device.calls} == {"read", "write"}

    @staticmethod
    def copy_once(device: CopyDevice, engine: str = "auto") -> dict[str, int]:
        with Filesystem(device, MountOptions(copy=engine)) as fs:
            data = random_bytes(BLOCK, 1)
            put(fs, "seq/0", data)
            assert copy(fs, "seq/0", 0, "seq/1", 0, BLOCK) == BLOCK
            assert content(fs, "seq/1") == data
            return copied_bytes(fs)

    def test_switched_off_at_run_time(self, make_device: MakeDevice) -> None:
        device = CopyDevice(make_device())
        with Filesystem(device) as fs:
            put(fs, "seq/0", random_bytes(BLOCK, 1))
            for number, (name, value) in enumerate(
                (("copy_offload", 0), ("copy_max_bytes", 0), ("copy_max_range_bytes", 0), ("copy_max_nr_ranges", 0))
            ):
                before = getattr(fs.copy_engine.limits, name)
                fs.copy_engine.set_limit(name, value)
                assert copy(fs, "seq/0", 0, "seq/1", number * BLOCK, BLOCK) == BLOCK
                assert copied_bytes(fs) == {"emulate": (number + 1) * BLOCK}
                fs.copy_engine.set_limit(name, before)
            assert copy(fs, "seq/0", 0, "seq/1", 4 * BLOCK, BLOCK) == BLOCK
            assert copied_bytes(fs) == {"emulate": 4 * BLOCK, "device": BLOCK}

    def test_a_limit_counts_for_the_next_copy(self, make_device: MakeDevice) -> None:
        device = CopyDevice(make_device())
        with Filesystem(device) as fs:
            put(fs, "seq/0", random_bytes(CAPACITY, 1))
            fs.copy_engine.set_limit("copy_max_bytes", 5 * BLOCK)
            assert copy(fs, "seq/0", 0, "seq/1", 0, CAPACITY) == CAPACITY
            lengths = [call.length // BLOCK for call in device.calls if call.kind == "copy"]
            assert lengths == [5, 5, 2]
            assert fs.copy_engine.counters[Engine.DEVICE].commands == 3
            assert content(fs, "seq/1") == random_bytes(CAPACITY, 1)

    def test_reflinks_that_a_limit_would_misalign(self) -> None:
        """The limits cut the copy where the host cannot make reflinks: another way is chosen, beforehand."""
        inner = MemoryDevice(Geometry(64 * 1024, 64 * 1024, 4, 1, 512, 64 * 1024))
        format_device(inner, FormatOptions())
        device = CopyDevice(inner, (CopyMethod.REFLINK, CopyMethod.HOST), alignment=4096)
        with Filesystem(device) as fs:
            data = random_bytes(8192, 1)
            put(fs, "seq/0", data)
            fs.copy_engine.set_limit("copy_max_bytes", 3 * 512)
            assert copy(fs, "seq/0", 0, "seq/1", 0, 8192) == 8192
            assert copied_bytes(fs) == {"host": 8192}
            fs.copy_engine.set_limit("copy_max_bytes", 4096)
            assert copy(fs, "seq/0", 0, "seq/1", 8192, 8192) == 8192
            assert copied_bytes(fs) == {"host": 8192, "reflink": 8192}
            assert content(fs, "seq/1") == data + data

    def test_unaligned_bytes_are_emulated(self, make_device: MakeDevice) -> None:
        with Filesystem(CopyDevice(make_device())) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            assert copy(fs, "cnv/0", 1, "cnv/1", 0, 100) == 100
            assert copied_bytes(fs) == {"emulate": 100}


def memory_device() -> EmulatedDevice:
    """A formatted device in memory."""
    device = MemoryDevice(GEOMETRY)
    format_device(device, FormatOptions())
    return device


class TestBuffer:
    """The emulation's buffer: bounded, kept, halved when memory is short."""

    SIZE = 4 * BUFFER_SIZE
    GEOMETRY = Geometry(SIZE, SIZE, 4, 1, BLOCK, SIZE)

    def device(self) -> CopyDevice:
        inner = MemoryDevice(self.GEOMETRY)
        inner.write(self.SIZE, random_bytes(self.SIZE, 1))
        return CopyDevice(inner, ())

    def copy(self, engine: CopyEngine, device: CopyDevice, length: int = SIZE) -> list[int]:
        """Copy zone 1 to zone 2; return the sizes of the writes."""
        device.inner.zone_mgmt(ZoneOp.RESET, 2)
        del device.calls[:]
        result = engine.copy([CopyRange(self.SIZE, 2 * self.SIZE, length)])
        assert (result.completed, result.error) == (length, None)
        assert device.inner.read(2 * self.SIZE, length) == random_bytes(self.SIZE, 1)[:length]
        return [call.length for call in device.calls if call.kind == "write"]

    def test_never_above_the_limit_and_kept(self) -> None:
        sizes: list[int] = []

        def allocate(size: int) -> bytearray:
            sizes.append(size)
            return bytearray(size)

        device = self.device()
        engine = CopyEngine(device, allocate=allocate)
        assert self.copy(engine, device) == [BUFFER_SIZE] * 4
        assert self.copy(engine, device) == [BUFFER_SIZE] * 4
        self.copy(engine, device, BLOCK)
        assert sizes == [BUFFER_SIZE]

    def test_direct_io_takes_it_as_it_is(self) -> None:
        """Otherwise a block device would copy everything once more on its way in and out."""
        aligned: list[bool] = []

        class Watching(CopyDevice):
            def read_into(self, offset: int, buffer: memoryview) -> None:
                aligned.append(is_aligned_memory(buffer, mmap.PAGESIZE))
                super().read_into(offset, buffer)

            def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
                aligned.append(is_aligned_memory(memoryview(data), mmap.PAGESIZE))
                super().write(offset, data)

        device = self.device()
        device.__class__ = Watching
        self.copy(CopyEngine(device), device)
        assert aligned == [True] * 8

    def test_a_small_copy_takes_a_small_buffer(self) -> None:
        sizes: list[int] = []

        def allocate(size: int) -> bytearray:
            sizes.append(size)
            return bytearray(size)

        device = self.device()
        engine = CopyEngine(device, allocate=allocate)
        self.copy(engine, device, BLOCK)
        self.copy(engine, device, 5 * BLOCK)
        assert sizes == [BLOCK, 5 * BLOCK]

    @pytest.mark.parametrize("most", [BUFFER_SIZE - 1, BUFFER_SIZE // 2, 100_000, 2 * BLOCK, BLOCK])
    def test_halved(self, most: int) -> None:
        device = self.device()
        sizes = self.copy(CopyEngine(device, allocate=at_most(most)), device, BUFFER_SIZE)
        expected = BUFFER_SIZE
        while expected > most:
            expected //= 2
        assert sizes == [expected] * (BUFFER_SIZE // expected)

    def test_halves_are_whole_blocks(self) -> None:
        device = self.device()
        assert self.copy(CopyEngine(device, allocate=at_most(4 * BLOCK)), device, 7 * BLOCK) == [3 * BLOCK] * 2 + [
            BLOCK
        ]

    def test_no_memory_at_all(self, make_device: MakeDevice) -> None:
        """ENOMEM, and since nothing was issued, no errors= action (Z12)."""
        device = CopyDevice(make_device())
        with Filesystem(device, MountOptions(ErrorsPolicy.ZONE_OFFLINE, copy="emulate")) as fs:
            put(fs, "seq/0", random_bytes(2 * BLOCK, 1))
            fs.copy_engine = CopyEngine(device, Engine.EMULATE, at_most(BLOCK - 1))
            calls = len(device.calls)
            with pytest.raises(OutOfMemory) as refused:
                copy(fs, "seq/0", 0, "seq/1", 0, 2 * BLOCK)
            assert refused.value.errno_name == "ENOMEM"
            assert len(device.calls) == calls
            assert fs.copy_engine.counters[Engine.EMULATE].errors == 1
            copy_with_small_buffer(fs, BLOCK)
            assert copy(fs, "seq/0", 0, "seq/1", 0, 2 * BLOCK) == 2 * BLOCK
            check_books(fs)

    @pytest.mark.parametrize("source", [1, BLOCK - 1])
    def test_no_memory_for_unaligned_bytes(self, make_device: MakeDevice, source: int) -> None:
        """They need four blocks: what is read and what is written may each lie in two."""
        device = CopyDevice(make_device(), ())
        with Filesystem(device, MountOptions(ErrorsPolicy.ZONE_OFFLINE)) as fs:
            put(fs, "seq/0", random_bytes(2 * BLOCK, 1))
            fs.copy_engine = CopyEngine(device, allocate=at_most(4 * BLOCK - 1))
            calls = len(device.calls)
            with pytest.raises(OutOfMemory):
                copy(fs, "seq/0", source, "seq/1", 0, BLOCK)
            assert len(device.calls) == calls
            fs.copy_engine = CopyEngine(device, allocate=at_most(4 * BLOCK))
            assert copy(fs, "seq/0", source, "seq/1", 0, BLOCK) == BLOCK
            assert content(fs, "seq/1") == random_bytes(2 * BLOCK, 1)[source : source + BLOCK]
            check_books(fs)

    @pytest.mark.parametrize("most", range(4, 12))
    def test_little_memory_for_unaligned_bytes(self, make_device: MakeDevice, most: int) -> None:
        device = CopyDevice(make_device())
        with Filesystem(device) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            fs.copy_engine = CopyEngine(device, allocate=at_most(most * BLOCK))
            del device.calls[:]
            assert copy(fs, "cnv/0", 1, "seq/1", 0, CAPACITY) == CAPACITY
            assert copy(fs, "cnv/0", 3, "cnv/1", 7, 9 * BLOCK) == 9 * BLOCK
            # One half for what is read, one for what is written.
            assert max(call.length for call in device.calls) <= most * BLOCK // 2
            assert content(fs, "seq/1") == random_bytes(ZONE_SIZE, 1)[1 : CAPACITY + 1]
            assert content(fs, "cnv/1")[7 : 9 * BLOCK + 7] == random_bytes(ZONE_SIZE, 1)[3 : 9 * BLOCK + 3]
            check_books(fs)


class PatientDevice(MemoryDevice):
    """A device that says of its copies that they take their time."""

    def copy_waits(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "option", "length", "at_once"),
    [
        (MemoryDevice, "auto", 2 * BLOCK, True),
        (PatientDevice, "auto", 2 * BLOCK, False),
        (MemoryDevice, "emulate", 2 * BLOCK, False),
        (MemoryDevice, "auto", 2 * BLOCK + 1, True),
        (MemoryDevice, "auto", -1, None),
    ],
)
def test_a_copy_that_may_wait_is_not_begun(
    kind: type[MemoryDevice], option: str, length: int, at_once: bool | None
) -> None:
    device = kind(GEOMETRY)
    format_device(device, FormatOptions())
    with Filesystem(device, MountOptions(copy=option)) as fs:
        source, target = fs.open("seq/0", DIRECT), fs.open("seq/1", DIRECT)
        data = random_bytes(3 * BLOCK, 1)
        fs.write(source, 0, data)
        if at_once is None:
            with pytest.raises(InvalidRequest):
                fs.copy_range_now(source, 0, target, 0, length)
            return
        copied = fs.copy_range_now(source, 0, target, 0, length)
        if at_once:
            assert copied == 2 * BLOCK
            assert fs.read(target, 0, CAPACITY) == data[: 2 * BLOCK]
        else:
            assert copied is None
            assert fs.read(target, 0, CAPACITY) == b""
            assert fs.copy_range(source, 0, target, 0, length) == 2 * BLOCK
        # From an offset within a block it is read and written.
        assert fs.copy_range_now(source, 1, target, 2 * BLOCK, BLOCK) is None
        assert fs.getattr(fs.resolve("seq/1")).size == 2 * BLOCK


@pytest.mark.parametrize("most", [BLOCK, 2 * BLOCK, 64 * BLOCK])
@pytest.mark.parametrize("name", ["copy_max_bytes", "copy_max_range_bytes"])
def test_whether_a_copy_is_over_at_once_is_found_out_at_once(name: str, most: int) -> None:
    """Limits can make a million commands of it. Who asks may be the thread that serves everybody."""
    zone = 256 * 4096 * BLOCK
    device = MemoryDevice(Geometry(zone, zone, 2, 2, BLOCK, zone))
    asked: list[int] = []

    class Counting(CopyEngine):
        def _choose(self, ranges: tuple[CopyRange, ...]) -> Iterator[Step]:
            asked.append(len(ranges))
            return super()._choose(ranges)

    engine = Counting(device)
    engine.set_limit(name, most)
    assert engine.plan_now([CopyRange(0, zone, zone)]) is None
    assert len(asked) <= 5
    assert engine.plan_now([CopyRange(0, zone, most)]) is not None


class MovingDevice(MemoryDevice):
    """A device below which a table changes, as that of a stack, after the *ahead*-th time that somebody has looked."""

    ahead = 1 << 30
    looked = 0

    @property
    def generation(self) -> int:
        self.looked += 1
        return int(self.looked > self.ahead)

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        if generation != self.generation:
            raise TableChanged("it has changed")
        super().copy(ranges, method, generation)


def test_a_copy_at_once_is_not_planned_again() -> None:
    device = MovingDevice(GEOMETRY)
    format_device(device, FormatOptions())
    with Filesystem(device) as fs:
        put(fs, "seq/0", random_bytes(3 * BLOCK, 1))
        source, target = fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", os.O_RDWR)
        device.ahead = device.looked + 1
        assert fs.copy_range_now(source, 0, target, 0, 3 * BLOCK) is None
        assert fs.copy_engine.counters[Engine.HOST] == CopyCounters()
        assert size_of(fs, "seq/1") == 0
        assert fs.copy_range(source, 0, target, 0, 3 * BLOCK) == 3 * BLOCK
        assert content(fs, "seq/1") == random_bytes(3 * BLOCK, 1)


class TestDurable:
    """What goes to a file that was opened with O_DSYNC or O_SYNC is durable when the call returns."""

    @pytest.fixture
    def cached(self) -> Iterator[Filesystem]:
        device = MemoryDevice(GEOMETRY)
        format_device(device, FormatOptions())
        with Filesystem(WriteCacheDevice(device)) as fs:
            put(fs, "cnv/0", random_bytes(4 * BLOCK, 1))
            fs.sync()
            yield fs

    @pytest.mark.parametrize("flags", [os.O_DSYNC, os.O_SYNC, 0])
    @pytest.mark.parametrize("name", ["seq/0", "cnv/1"])
    def test_every_call_that_copies(self, cached: Filesystem, name: str, flags: int) -> None:
        source, target = cached.open("cnv/0", os.O_RDONLY), cached.open(name, os.O_RDWR | flags)
        assert cached.is_synchronous(target) == bool(flags)
        assert cached.copy_range(source, 0, target, 0, BLOCK) == BLOCK
        assert (cached.device.unflushed() == []) == bool(flags)
        cached.copy_ranges(target, BLOCK, [(cached.resolve("cnv/0"), BLOCK, 2 * BLOCK)])
        assert (cached.device.unflushed() == []) == bool(flags)
        # Who has other plans says so, as for a write.
        cached.sync()
        assert cached.copy_range(source, 0, target, 3 * BLOCK, BLOCK, sync=not flags) == BLOCK
        assert (cached.device.unflushed() == []) != bool(flags)
        cached.power_cut(KeepNone())
        assert content(cached, name)[: 3 * BLOCK] == random_bytes(4 * BLOCK, 1)[: 3 * BLOCK]

    def test_to_make_it_durable_is_not_over_at_once(self) -> None:
        device = MemoryDevice(GEOMETRY)
        format_device(device, FormatOptions())
        with Filesystem(device) as fs:
            put(fs, "seq/0", random_bytes(BLOCK, 1))
            source, target = fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", os.O_WRONLY | os.O_DSYNC)
            assert fs.copy_range_now(source, 0, target, 0, BLOCK) is None
            assert size_of(fs, "seq/1") == 0

    @pytest.mark.parametrize("policy", [ErrorsPolicy.REPAIR, ErrorsPolicy.REMOUNT_RO])
    def test_a_flush_that_fails(self, policy: ErrorsPolicy) -> None:
        """As for a write: an error, not a count. Several ranges say how far they came beside it."""
        device = MemoryDevice(GEOMETRY)
        format_device(device, FormatOptions())
        faults = FaultDevice.over(device)
        with Filesystem(faults, MountOptions(policy)) as fs:
            put(fs, "seq/0", random_bytes(2 * BLOCK, 1))
            source, target = fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", os.O_WRONLY | os.O_DSYNC)
            other = fs.open("seq/2", os.O_WRONLY | os.O_DSYNC)
            faults.add_rule(FaultRule(Operation.FLUSH, Effect.FAIL, count=2))
            if policy is ErrorsPolicy.REPAIR:
                copied = fs.copy_ranges(other, None, [(fs.resolve("seq/0"), 0, BLOCK)])
                assert copied.completed == (BLOCK,)
                assert isinstance(copied.error, DeviceError)
            with pytest.raises(DeviceError):
                fs.copy_range(source, 0, target, 0, 2 * BLOCK)
            assert fs.read_only == (policy is ErrorsPolicy.REMOUNT_RO)
            assert size_of(fs, "seq/1") == 2 * BLOCK
            faults.remove_rules()


def test_only_who_appends_now_is_refused() -> None:
    """fcntl(2) takes O_APPEND off an open file, and puts it on: who knows says so."""
    device = MemoryDevice(GEOMETRY)
    format_device(device, FormatOptions())
    with Filesystem(device) as fs:
        put(fs, "seq/0", random_bytes(BLOCK, 1))
        source = fs.open("seq/0", os.O_RDONLY)
        appending, plain = fs.open("seq/1", os.O_WRONLY | os.O_APPEND), fs.open("seq/1", os.O_WRONLY)
        for copy_it in (fs.copy_range, fs.copy_range_now):
            for target, append in ((appending, None), (appending, True), (plain, True)):
                with pytest.raises(BadHandle):
                    copy_it(source, 0, target, 0, BLOCK, append)
        assert size_of(fs, "seq/1") == 0
        assert fs.copy_range(source, 0, appending, 0, BLOCK, append=False) == BLOCK
        assert fs.copy_range_now(source, 0, appending, BLOCK, BLOCK, append=False) == BLOCK

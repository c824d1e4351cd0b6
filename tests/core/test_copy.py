"""Copies between files of one file system: what is refused, what is copied, and what a copy leaves behind.

The rules are those that the review of kernel zonefs's proposed copy_file_range asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.calls import content, size_of
from tests.core.copy_files import (
    BLOCK,
    CAPACITY,
    FIRST,
    GEOMETRY,
    LAST,
    LAST_SIZE,
    ZONE_SIZE,
    MakeDevice,
    check_books,
    copied_bytes,
    copy,
    put,
)
from tests.core.copying import Call, CopyDevice, random_bytes
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.directory import open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import KeepNone
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import (
    BadHandle,
    BeyondCapacity,
    DeviceError,
    InvalidRequest,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    ReadOnlyFilesystem,
)
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, ZoneCondition


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
            # The size of the largest file is looked at before, as by the kernel; not that of this one.
            assert fs.max_file_size == ZONE_SIZE > CAPACITY
            with pytest.raises(ReadOnlyFilesystem):
                fs.copy_range(reader, 0, writer, CAPACITY, BLOCK)
            with pytest.raises(BeyondCapacity):
                fs.copy_range(reader, 0, writer, ZONE_SIZE, BLOCK)
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

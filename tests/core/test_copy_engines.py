"""Which engine copies, the buffer of the emulation, and copies that are over at once."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence

import pytest

from tests.core.calls import content, size_of
from tests.core.copy_files import (
    BLOCK,
    CAPACITY,
    DIRECT,
    GEOMETRY,
    ZONE_SIZE,
    MakeDevice,
    check_books,
    copied_bytes,
    copy,
    memory_device,
    put,
)
from tests.core.copying import ALL_METHODS, CopyDevice, at_most, copy_with_small_buffer, random_bytes
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.engine import BUFFER_SIZE, CopyCounters, CopyEngine, Engine, Step
from zonefs_py.device.aligned import is_aligned_memory
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import InvalidRequest, OutOfMemory, TableChanged
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneOp


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

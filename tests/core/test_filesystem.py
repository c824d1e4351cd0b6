"""The file system on a device in memory: threads, mounting and unmounting, and what device errors lead to."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.calls import may_be_refused, size_of
from tests.device.failing import Call, FailingDevice, Rule
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import (
    ActiveZonesExhausted,
    BadHandle,
    DeviceError,
    DeviceReadOnly,
    FilesystemBusy,
    HostFull,
    NotPermitted,
    OpenZonesExhausted,
    ReadOnlyFilesystem,
    SuperblockError,
    TooManyWriteOpenFiles,
    ZonefsError,
)
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

KIB = 1024
BLOCK = 4096
ZONE_SIZE = 128 * KIB
CAPACITY = 96 * KIB
BLOCKS = CAPACITY // BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 10, 2, BLOCK, ZONE_SIZE)
"""cnv/0 and seq/0 to seq/7."""

FIRST = 2
"""The zone of seq/0."""

DIRECT = os.O_RDWR | os.O_DIRECT
APPEND = DIRECT | os.O_APPEND
THREADS = 6


def pattern(offset: int, length: int, seed: int = 1) -> bytes:
    """*length* bytes that differ by where they are, and by *seed*."""
    return b"".join((seed << 48 | offset + more).to_bytes(8, "big") for more in range(0, length, 8))


def new_device(max_open: int | None = None, max_active: int | None = None, **features: Any) -> MemoryDevice:
    """A formatted device in memory."""
    device = MemoryDevice(GEOMETRY, max_open, max_active)
    format_device(device, FormatOptions(**features), uuid=bytes(16))
    return device


def options(errors: str = "remount-ro", **more: Any) -> MountOptions:
    """Mount options."""
    return replace(MountOptions(errors=ErrorsPolicy(errors)), **more)


def fill(fs: Filesystem, name: str, blocks: int) -> None:
    """Write *blocks* blocks at the write pointer of *name*."""
    handle = fs.open(name, DIRECT)
    size = fs.getattr(fs.resolve(name)).size
    assert fs.write(handle, size, pattern(size, blocks * BLOCK)) == blocks * BLOCK
    fs.release(handle)


def mode_of(fs: Filesystem, name: str) -> int:
    """The permission bits of a file."""
    return fs.getattr(fs.resolve(name)).mode & 0o7777


def seq_names(fs: Filesystem) -> list[str]:
    """All sequential files."""
    return [f"seq/{index}" for index in range(GEOMETRY.nr_zones - FIRST)]


def check_invariants(fs: Filesystem) -> None:
    """Compare sizes with the device, and counters and space with a recount. No file may be open, none broken."""
    zones = {name: zone for zone, name in fs.report() if name}
    active = written = 0
    for name in seq_names(fs):
        size = size_of(fs, name)
        assert zones[name].data_size == size, name
        written += size
        active += 0 < size < CAPACITY
        assert zones[name].condition not in (ZoneCondition.EXP_OPEN,)
    counters = fs.counters
    assert (counters.nr_wro_seq_files, counters.nr_active_seq_files) == (0, active)
    statistics = fs.statfs()
    conventional = (GEOMETRY.nr_conventional - 1) * ZONE_SIZE
    assert statistics.blocks == (conventional + 8 * CAPACITY) // BLOCK
    assert statistics.blocks_free == (8 * CAPACITY - written) // BLOCK


@pytest.fixture
def switch_often() -> Iterator[None]:
    """Let threads take turns every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_threads(*work: Callable[[], object]) -> None:
    """Run all of *work* at the same time; what one of them raises is raised here."""
    failures: list[BaseException] = []
    together = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        try:
            together.wait(30)
            one()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


@pytest.mark.usefixtures("switch_often")
class TestThreads:
    def test_different_files(self) -> None:
        with Filesystem(new_device()) as fs:

            def append(index: int) -> None:
                name = f"seq/{index}"
                handle = fs.open(name, DIRECT)
                for number in range(BLOCKS):
                    assert fs.write(handle, number * BLOCK, pattern(number * BLOCK, BLOCK, index)) == BLOCK
                    assert size_of(fs, name) == (number + 1) * BLOCK
                fs.fsync(handle)
                fs.release(handle)

            run_threads(*(lambda index=index: append(index) for index in range(8)))
            for index, name in enumerate(seq_names(fs)):
                handle = fs.open(name, os.O_RDONLY)
                assert fs.read(handle, 0, ZONE_SIZE) == pattern(0, CAPACITY, index)
                fs.release(handle)
            check_invariants(fs)
            assert fs.statfs().blocks_free == 0

    @pytest.mark.parametrize("shared_handle", [True, False])
    def test_appending_to_one_file(self, shared_handle: bool) -> None:
        with Filesystem(new_device()) as fs:
            common = fs.open("seq/3", APPEND)
            each = BLOCKS // THREADS

            def append(index: int) -> None:
                handle = common if shared_handle else fs.open("seq/3", APPEND)
                for number in range(each):
                    # The offset says nothing.
                    assert fs.write(handle, index, pattern(number * BLOCK, BLOCK, index)) == BLOCK
                if not shared_handle:
                    fs.release(handle)

            run_threads(*(lambda index=index: append(index) for index in range(THREADS)))
            assert size_of(fs, "seq/3") == THREADS * each * BLOCK
            data = fs.read(common, 0, ZONE_SIZE)
            blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
            expected = [pattern(number * BLOCK, BLOCK, index) for index in range(THREADS) for number in range(each)]
            assert sorted(blocks) == sorted(expected)
            for index in range(THREADS):
                own = [block for block in blocks if int.from_bytes(block[:2], "big") == index]
                assert own == [pattern(number * BLOCK, BLOCK, index) for number in range(each)]
            fs.release(common)
            check_invariants(fs)

    def test_racing_for_one_write_pointer(self) -> None:
        """Everybody writes at the size that stat gave: exactly one of them gets it."""
        with Filesystem(new_device()) as fs:
            written = [0] * THREADS

            def race(index: int) -> None:
                handle = fs.open("seq/0", DIRECT)
                while (size := size_of(fs, "seq/0")) < CAPACITY:
                    with may_be_refused("EINVAL", "EFBIG"):
                        written[index] += fs.write(handle, size, pattern(size, BLOCK))
                fs.release(handle)

            run_threads(*(lambda index=index: race(index) for index in range(THREADS)))
            assert sum(written) == CAPACITY
            handle = fs.open("seq/0", os.O_RDONLY)
            assert fs.read(handle, 0, CAPACITY) == pattern(0, CAPACITY)
            fs.release(handle)
            check_invariants(fs)

    @pytest.mark.parametrize("limits", [(None, None), (2, 3)], ids=["unlimited", "limited"])
    @pytest.mark.parametrize("explicit_open", [False, True], ids=["implicit", "explicit-open"])
    @pytest.mark.parametrize("kind", ["memory", "emulated"])
    def test_everything_at_once(
        self, limits: tuple[int | None, int | None], explicit_open: bool, kind: str, tmp_path: Path
    ) -> None:
        """Writes, reads, truncations, opens and closes of a few files: refusals are fine, wrong answers are not."""
        if kind == "memory":
            device: EmulatedDevice = new_device(*limits)
        else:
            create_device(tmp_path / "disk", GEOMETRY, *limits)
            device = open_device(tmp_path / "disk")
            format_device(device, FormatOptions())
        repair = options("repair", explicit_open=explicit_open)
        with Filesystem(device, repair) as fs:
            names = ["seq/0", "seq/1", "seq/2", "seq/3"]
            accepted = ["EINVAL", "EFBIG", "EBUSY", "EOVERFLOW", "ETOOMANYREFS"]

            def step(dice: random.Random, handles: dict[str, int]) -> None:
                name = dice.choice(names)
                what = dice.choice(["write", "write", "append", "read", "stat", "truncate", "release", "statfs"])
                if what == "stat":
                    assert size_of(fs, name) % BLOCK == 0
                elif what == "statfs":
                    assert 0 <= fs.statfs().blocks_free <= fs.statfs().blocks
                    counters = fs.counters
                    assert 0 <= counters.nr_active_seq_files <= 8
                    assert 0 <= counters.nr_wro_seq_files <= (limits[0] or 8 if explicit_open else 8)
                elif what == "truncate":
                    fs.truncate(name, dice.choice([0, 0, CAPACITY]))
                elif what == "release":
                    if name in handles:
                        fs.release(handles.pop(name))
                else:
                    if name not in handles:
                        handles[name] = fs.open(name, DIRECT)
                    handle = handles[name]
                    if what == "read":
                        offset = dice.randrange(BLOCKS) * BLOCK
                        data = fs.read(handle, offset, 3 * BLOCK, direct=True)
                        for start in range(0, len(data), BLOCK):
                            # Written, or the end of a finished zone.
                            block = data[start : start + BLOCK]
                            assert block in (pattern(offset + start, BLOCK), bytes(BLOCK))
                    else:
                        size = size_of(fs, name)
                        fs.write(handle, size, pattern(size, dice.randrange(1, 6) * BLOCK))

            def work(seed: int) -> None:
                dice = random.Random(seed)
                handles: dict[str, int] = {}
                for _ in range(150):
                    with may_be_refused(*accepted):
                        step(dice, handles)
                for handle in handles.values():
                    fs.release(handle)

            run_threads(*(lambda seed=seed: work(seed) for seed in range(THREADS)))
            assert not fs.read_only
            check_invariants(fs)
            conditions = [zone.condition for zone in device.report_zones(FIRST)]
            assert device.nr_active_zones == fs.counters.nr_active_seq_files
            for zone in device.report_zones(FIRST):
                assert (zone.condition is ZoneCondition.EMPTY) == (zone.data_size == 0), conditions

    def test_write_open_files_are_counted_and_limited(self) -> None:
        device = new_device(3, 6)
        with Filesystem(device, options(explicit_open=True)) as fs:
            refused = [0] * THREADS

            def work(index: int) -> None:
                for turn in range(40):
                    try:
                        handle = fs.open(f"seq/{(index + turn) % 8}", DIRECT)
                    except TooManyWriteOpenFiles:
                        refused[index] += 1
                        continue
                    assert 1 <= fs.counters.nr_wro_seq_files <= 3
                    assert device.nr_open_zones <= 3
                    fs.release(handle)

            run_threads(*(lambda index=index: work(index) for index in range(THREADS)))
            assert not fs.read_only
            check_invariants(fs)
            assert device.nr_active_zones == 0

    def test_remounting_while_files_are_written(self) -> None:
        with Filesystem(new_device()) as fs:
            busy = fs.open("seq/7", DIRECT)
            refused = threading.Event()

            def write(index: int) -> None:
                handle = fs.open(f"seq/{index}", DIRECT)
                for number in range(BLOCKS):
                    fs.write(handle, number * BLOCK, pattern(number * BLOCK, BLOCK))
                fs.release(handle)

            def remount() -> None:
                for _ in range(50):
                    with pytest.raises(FilesystemBusy):
                        fs.remount(options(read_only=True))
                    fs.remount(options("repair"))
                refused.set()

            run_threads(remount, *(lambda index=index: write(index) for index in range(4)))
            assert refused.is_set()
            fs.release(busy)
            fs.remount(options(read_only=True))
            with pytest.raises(ReadOnlyFilesystem):
                fs.open("seq/7", DIRECT)
            check_invariants(fs)

    def test_conventional_files_take_partial_blocks_from_all(self) -> None:
        """Neighbouring pieces of one block, each read, changed and written back by another thread."""
        with Filesystem(new_device()) as fs:
            handle = fs.open("cnv/0", os.O_RDWR)
            piece = 100

            def write(index: int) -> None:
                for turn in range(40):
                    offset = (turn * THREADS + index) * piece
                    assert fs.write(handle, offset, bytes([index + 1]) * piece) == piece

            run_threads(*(lambda index=index: write(index) for index in range(THREADS)))
            data = fs.read(handle, 0, 40 * THREADS * piece)
            assert data == b"".join(bytes([index + 1]) * piece for _ in range(40) for index in range(THREADS))


class TestMounting:
    def test_what_is_no_zonefs_leaves_the_device_with_its_owner(self) -> None:
        device = FailingDevice(MemoryDevice(GEOMETRY))
        with pytest.raises(SuperblockError):
            Filesystem(device)
        assert not device.closed

    @pytest.mark.parametrize("call", ["read", "report"])
    def test_a_device_that_fails_at_once_too(self, call: Call) -> None:
        device = FailingDevice(new_device(), Rule(call))
        with pytest.raises(DeviceError):
            Filesystem(device)
        assert not device.closed
        Filesystem(device).close()
        assert device.closed

    def test_open_zones_are_closed(self) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 1)
            fill(fs, "seq/1", 1)
            fill(fs, "seq/3", BLOCKS)
        device.zone_mgmt(ZoneOp.OPEN, FIRST + 1)
        device.zone_mgmt(ZoneOp.OPEN, FIRST + 2)
        assert device.nr_open_zones == 3
        with Filesystem(device) as fs:
            assert device.nr_open_zones == 0
            names = [zone.condition.name for zone, _ in fs.report()][FIRST : FIRST + 4]
            assert names == ["CLOSED", "CLOSED", "EMPTY", "FULL"]
            assert fs.counters.nr_active_seq_files == 2
            check_invariants(fs)

    def test_moved_zones_are_taken_as_they_are(self) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            for index in range(3):
                fill(fs, f"seq/{index}", 2)
        device.write(FIRST * ZONE_SIZE + 2 * BLOCK, bytes(BLOCK))
        device.zone_mgmt(ZoneOp.RESET, FIRST + 1)
        device.zone_mgmt(ZoneOp.FINISH, FIRST + 2)
        with Filesystem(device) as fs:
            assert [size_of(fs, f"seq/{index}") for index in range(3)] == [3 * BLOCK, 0, CAPACITY]
            check_invariants(fs)

    @pytest.mark.parametrize("explicit_open", [False, True])
    def test_unmounting_lets_go_of_everything(self, explicit_open: bool) -> None:
        inner = new_device(4, 6)
        device = FailingDevice(inner)
        fs = Filesystem(device, options(explicit_open=explicit_open))
        written = fs.open("seq/0", DIRECT)
        fs.write(written, 0, pattern(0, BLOCK))
        fs.open("seq/1", DIRECT)
        reader = fs.open("seq/0", os.O_RDONLY)
        fs.close()
        assert device.closed
        assert device.flushed[-1] is None
        conditions = [zone.condition.name for zone in inner.report_zones(FIRST, 2)]
        assert conditions == (["CLOSED", "EMPTY"] if explicit_open else ["IMP_OPEN", "EMPTY"])
        flushes = len(device.flushed)
        fs.close()
        assert len(device.flushed) == flushes
        for call in (
            lambda: fs.write(written, BLOCK, bytes(BLOCK)),
            lambda: fs.read(reader, 0, BLOCK),
            lambda: fs.fsync(written),
            lambda: fs.release(reader),
        ):
            with pytest.raises(BadHandle):
                call()

    def test_a_closed_file_system_does_nothing_to_who_has_its_descriptors_next(self, tmp_path: Path) -> None:
        for name in ("first", "second"):
            create_device(tmp_path / name, Geometry(16 * BLOCK, 16 * BLOCK, 8, 2, BLOCK, 16 * BLOCK))
            with open_device(tmp_path / name) as device:
                format_device(device, FormatOptions())
        first = Filesystem(open_device(tmp_path / "first"))
        first_device = first.device
        first.close()
        with Filesystem(open_device(tmp_path / "second")) as second:
            handle = second.open("seq/1", DIRECT)
            second.write(handle, 0, pattern(0, BLOCK))
            for call in (
                lambda: first.truncate("seq/1", 0),
                lambda: first.open("cnv/0", os.O_RDWR),
                lambda: first.getattr(first.resolve("seq/1")),
                lambda: first.manage_zone(ZoneOp.RESET, 3),
                first.sync,
            ):
                with pytest.raises(BadHandle):
                    call()
            with pytest.raises(DeviceError):
                first_device.zone_mgmt(ZoneOp.FINISH, 3)
            with pytest.raises(DeviceError):
                first_device.write(16 * BLOCK, bytes(BLOCK))
            assert second.read(handle, 0, BLOCK) == pattern(0, BLOCK)

    def test_unmounting_a_device_that_cannot_flush_says_so(self) -> None:
        device = FailingDevice(new_device(), Rule("flush"))
        fs = Filesystem(device)
        with pytest.raises(DeviceError):
            fs.close()
        assert device.closed
        fs.close()

    def test_as_a_context_manager(self) -> None:
        device = FailingDevice(new_device())
        with Filesystem(device) as fs:
            fs.open("seq/0", DIRECT)
        assert device.closed
        device.closed = False
        with pytest.raises(ZeroDivisionError), Filesystem(device):
            _ = 1 // 0
        assert device.closed

    @pytest.mark.parametrize("handle", [0, -1, 99, 1 << 62])
    def test_handles_that_nobody_has(self, handle: int) -> None:
        with Filesystem(new_device()) as fs:
            for call in (
                lambda: fs.read(handle, 0, 1),
                lambda: fs.write(handle, 0, b""),
                lambda: fs.fsync(handle),
                lambda: fs.release(handle),
            ):
                with pytest.raises(BadHandle):
                    call()

    def test_handles_are_not_reused(self) -> None:
        with Filesystem(new_device()) as fs:
            first = fs.open("seq/0", DIRECT)
            fs.release(first)
            with pytest.raises(BadHandle):
                fs.release(first)
            assert fs.open("seq/0", DIRECT) != first
            assert fs.counters.nr_wro_seq_files == 1


class TestRemount:
    def test_to_read_only_and_back(self) -> None:
        with Filesystem(new_device()) as fs:
            fill(fs, "seq/0", 1)
            reader = fs.open("seq/0", os.O_RDONLY)
            writer = fs.open("seq/0", DIRECT)
            conventional = fs.open("cnv/0", os.O_WRONLY)
            for still_open in (writer, conventional):
                with pytest.raises(FilesystemBusy):
                    fs.remount(options("repair", read_only=True))
                assert fs.options == options()
                assert not fs.read_only
                fs.release(still_open)
            fs.remount(options("repair", read_only=True))
            assert fs.read_only
            assert fs.options == options("repair", read_only=True)
            for refused in (
                lambda: fs.open("seq/0", DIRECT),
                lambda: fs.open("cnv/0", os.O_WRONLY),
                lambda: fs.open("seq/0", os.O_RDONLY | os.O_TRUNC),
                lambda: fs.truncate("seq/0", 0),
                lambda: fs.setattr("seq/0", AttributeChanges(mode=0o600)),
                lambda: fs.setattr("seq/0", AttributeChanges(uid=1)),
                lambda: fs.setattr("seq/0", AttributeChanges(mtime_ns=1)),
                lambda: fs.refuse_remove(fs.resolve("seq"), b"0"),
            ):
                with pytest.raises(ReadOnlyFilesystem):
                    refused()
            assert fs.read(reader, 0, BLOCK) == pattern(0, BLOCK)
            fs.remount(options("zone-ro"))
            fill(fs, "seq/0", 1)
            check_invariants(fs)

    def test_options_of_the_next_error_and_the_next_open(self) -> None:
        device = FailingDevice(new_device(2, 4))
        with Filesystem(device) as fs:
            before = fs.open("seq/0", DIRECT)
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EMPTY
            fs.remount(options("repair", explicit_open=True))
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EMPTY
            other = fs.open("seq/1", DIRECT)
            assert device.report_zones(FIRST + 1, 1)[0].condition is ZoneCondition.EXP_OPEN
            with pytest.raises(TooManyWriteOpenFiles):
                fs.open("seq/2", DIRECT)
            fs.remount(options("repair"))
            third = fs.open("seq/2", DIRECT)
            device.rules.append(Rule("write"))
            with pytest.raises(DeviceError):
                fs.write(third, 0, pattern(0, BLOCK))
            assert not fs.read_only
            for handle in (before, other, third):
                fs.release(handle)
            check_invariants(fs)

    def test_a_mount_of_a_device_without_limits_ignores_explicit_open_but_a_remount_does_not(self) -> None:
        device = new_device()
        with Filesystem(device, options(explicit_open=True)) as fs:
            assert not fs.options.explicit_open
            fs.remount(options("repair", explicit_open=True))
            assert fs.options == options("repair", explicit_open=True)
            handles = [fs.open(f"seq/{index}", DIRECT) for index in range(3)]
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EXP_OPEN
            assert fs.counters.nr_active_seq_files == 3
            for handle in handles:
                fs.release(handle)
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EMPTY
            check_invariants(fs)

    def test_after_an_error(self) -> None:
        device = FailingDevice(new_device(), Rule("write"))
        with Filesystem(device) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.read_only
            with pytest.raises(ReadOnlyFilesystem):
                fs.write(handle, 0, pattern(0, BLOCK))
            fs.remount(options())
            assert fs.write(handle, 0, pattern(0, BLOCK)) == BLOCK
            fs.release(handle)
            check_invariants(fs)

    def test_a_read_only_device_stays_read_only(self) -> None:
        class ReadOnly(FailingDevice):
            """Says that it is read-only."""

            @property
            def info(self) -> Any:
                from dataclasses import replace

                return replace(super().info, read_only=True)

        with Filesystem(ReadOnly(new_device()), options(read_only=True)) as fs:
            with pytest.raises(DeviceReadOnly):
                fs.remount(options())
            fs.remount(options("repair", read_only=True))
            assert fs.read_only


def announced(fs: Filesystem) -> list[int]:
    """A list that grows by each inode that *fs* announces; the callback uses the file, so no lock may be held."""
    seen: list[int] = []

    def note(ino: int) -> None:
        fs.getattr(ino)
        assert fs.statfs()
        assert fs.counters
        handle = fs.open(ino, os.O_RDONLY)
        fs.release(handle)
        with may_be_refused("EPERM", "EROFS"):
            fs.truncate(ino, 12345)
        seen.append(ino)

    fs.on_change = note
    return seen


class TestTimes:
    """Nanoseconds of a clock that goes on by one a look."""

    @pytest.fixture
    def fs(self) -> Iterator[Filesystem]:
        clock = iter(range(1_000, 2_000))
        with Filesystem(new_device(), clock=lambda: next(clock)) as fs:
            fs.setattr("seq/0", AttributeChanges(atime_ns=1, mtime_ns=2))
            yield fs

    @staticmethod
    def times(fs: Filesystem, name: str) -> tuple[int, int, int]:
        status = fs.getattr(fs.resolve(name))
        return status.atime_ns, status.mtime_ns, status.ctime_ns

    @pytest.mark.parametrize("size", [0, CAPACITY])
    def test_truncating_by_name_moves_none(self, fs: Filesystem, size: int) -> None:
        before = self.times(fs, "seq/0")
        fs.truncate("seq/0", size)
        assert self.times(fs, "seq/0") == before

    @pytest.mark.parametrize("size", [0, CAPACITY])
    def test_truncating_by_handle_moves_two(self, fs: Filesystem, size: int) -> None:
        handle = fs.open("seq/0", DIRECT)
        before = self.times(fs, "seq/0")
        fs.setattr("seq/0", AttributeChanges(size=size), handle=handle)
        after = self.times(fs, "seq/0")
        assert after[0] == before[0]
        assert after[1] == after[2] > before[2]

    def test_a_refused_truncation_moves_none(self, fs: Filesystem) -> None:
        handle = fs.open("seq/0", DIRECT)
        before = self.times(fs, "seq/0")
        with pytest.raises(NotPermitted):
            fs.setattr("seq/0", AttributeChanges(size=1), handle=handle)
        assert self.times(fs, "seq/0") == before

    def test_a_truncating_open_moves_two(self, fs: Filesystem) -> None:
        before = self.times(fs, "seq/0")
        fs.release(fs.open("seq/0", os.O_RDONLY))
        assert self.times(fs, "seq/0") == before
        fs.release(fs.open("seq/0", os.O_RDONLY | os.O_TRUNC))
        after = self.times(fs, "seq/0")
        assert after[0] == before[0]
        assert after[1] == after[2] > before[2]

    def test_listing_moves_the_access_time_of_a_directory(self, fs: Filesystem) -> None:
        seq = fs.resolve("seq")
        before = self.times(fs, "seq")
        fs.readdir(seq)
        after = self.times(fs, "seq")
        assert after[0] > before[0]
        assert after[1:] == before[1:]
        fs.readdir(seq)
        assert self.times(fs, "seq") == after, "relatime: it is later than the others"

    def test_listing_a_read_only_file_system_moves_none(self, fs: Filesystem) -> None:
        before = self.times(fs, "seq")
        fs.remount(options(read_only=True))
        fs.readdir(fs.resolve("seq"))
        assert self.times(fs, "seq") == before


class TestAnnouncements:
    def test_a_failed_write_is_announced(self) -> None:
        device = FailingDevice(new_device(), Rule("write", blocks=1))
        with Filesystem(device, options("repair")) as fs:
            seen = announced(fs)
            handle = fs.open("seq/2", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, 2 * BLOCK))
            assert seen == [FIRST + 2]
            assert size_of(fs, "seq/2") == BLOCK

    def test_what_changes_nothing_is_not(self) -> None:
        device = FailingDevice(new_device(), Rule("read", FIRST), Rule(ZoneOp.RESET), Rule("read", 1), Rule("write", 1))
        with Filesystem(device, options("repair")) as fs:
            fill(fs, "seq/0", 2)
            seen = announced(fs)
            handle = fs.open("seq/0", DIRECT)
            conventional = fs.open("cnv/0", os.O_RDWR)
            for call in (
                lambda: fs.read(handle, 0, BLOCK),
                lambda: fs.truncate("seq/0", 0),
                lambda: fs.read(conventional, 0, BLOCK),
                lambda: fs.write(conventional, 0, bytes(BLOCK)),
                lambda: fs.write(handle, 0, bytes(BLOCK)),
            ):
                with pytest.raises(ZonefsError):
                    call()
            fs.write(handle, 2 * BLOCK, bytes(BLOCK))
            assert seen == []

    def test_an_offline_zone_is_announced_by_the_read_that_finds_it(self) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 2)
            seen = announced(fs)
            device.force_condition(FIRST, ZoneCondition.OFFLINE)
            handle = fs.open("seq/0", os.O_RDONLY)
            with pytest.raises(DeviceError):
                fs.read(handle, 0, BLOCK)
            assert seen == [FIRST]

    def test_a_failed_flush_and_a_failed_close_are_announced(self) -> None:
        inner = new_device(4, 4)
        device = FailingDevice(inner, Rule("flush", FIRST))
        with Filesystem(device, options("zone-ro", explicit_open=True)) as fs:
            seen = announced(fs)
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            with pytest.raises(DeviceError):
                fs.fsync(handle)
            assert seen == [FIRST]
            other = fs.open("seq/1", DIRECT)
            fs.write(other, 0, pattern(0, BLOCK))
            inner.force_condition(FIRST + 1, ZoneCondition.READONLY)
            fs.release(other)
            assert seen == [FIRST, FIRST + 1]


POLICIES = ["remount-ro", "zone-ro", "zone-offline", "repair"]


def check_degraded(fs: Filesystem, handle: int, policy: str, size: int) -> None:
    """Check what is left of seq/0 (mode 0640, *handle* is open for both) of *size* bytes when *policy* was applied."""
    expected_mode = {"zone-ro": 0o440, "zone-offline": 0}.get(policy, 0o640)
    assert mode_of(fs, "seq/0") == expected_mode
    assert fs.read_only == (policy == "remount-ro")
    assert size_of(fs, "seq/0") == (0 if policy == "zone-offline" else size)
    if policy == "repair":
        assert fs.write(handle, size, pattern(size, BLOCK)) == BLOCK
    else:
        refusal = ReadOnlyFilesystem if policy == "remount-ro" else NotPermitted
        for refused in (
            lambda: fs.write(handle, size, pattern(size, BLOCK)),
            lambda: fs.open("seq/0", DIRECT),
            lambda: fs.open("seq/0", os.O_RDONLY | os.O_TRUNC),
            lambda: fs.truncate("seq/0", 0),
            lambda: fs.setattr("seq/0", AttributeChanges(mode=0o600)),
        ):
            with pytest.raises(refusal):
                refused()
    reader = fs.open("seq/0", os.O_RDONLY)
    for one in (handle, reader):
        if policy == "zone-offline":
            with pytest.raises(NotPermitted):
                fs.read(one, 0, BLOCK)
        else:
            assert len(fs.read(one, 0, CAPACITY)) == size_of(fs, "seq/0")
    fs.release(reader)
    if policy != "remount-ro":
        before = size_of(fs, "seq/1")
        fill(fs, "seq/1", 1)
        assert size_of(fs, "seq/1") == before + BLOCK


class TestErrors:
    @pytest.mark.parametrize("size", [0, CAPACITY])
    def test_an_open_handle_truncates_after_an_error_made_everything_read_only(self, size: int) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST))
        with Filesystem(device, options("remount-ro")) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.read_only
            with pytest.raises(ReadOnlyFilesystem):
                fs.truncate("seq/0", size)
            fs.setattr("seq/0", AttributeChanges(size=size), handle=handle)
            assert size_of(fs, "seq/0") == size
            fs.release(handle)
            check_invariants(fs)

    @pytest.mark.parametrize("policy", ["zone-ro", "zone-offline"])
    def test_a_file_that_an_error_closed_is_not_synchronised(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST))
        with Filesystem(device, options(policy)) as fs:
            handle, reader, other = fs.open("seq/0", DIRECT), fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", DIRECT)
            fs.fsync(handle)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            for one in (handle, reader):
                with pytest.raises(NotPermitted):
                    fs.fsync(one)
            fs.fsync(other)

    @pytest.mark.parametrize("blocks", [0, 1, 3])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_write_that_fails(self, policy: str, blocks: int) -> None:
        inner = new_device()
        device = FailingDevice(inner, Rule("write", FIRST, skip=1, blocks=blocks))
        fs = Filesystem(device, options(policy))
        fill(fs, "seq/0", 1)
        handle = fs.open("seq/0", DIRECT)
        with pytest.raises(DeviceError) as raised:
            fs.write(handle, BLOCK, pattern(BLOCK, 4 * BLOCK))
        assert raised.value.errno_name == "EIO"
        check_degraded(fs, handle, policy, (1 + blocks) * BLOCK if policy == "repair" else BLOCK)
        fs.release(handle)
        fs.close()
        # Mounted again, the device is what counts.
        with Filesystem(inner, options(policy)) as fs:
            on_device = inner.report_zones()[FIRST].data_size
            assert on_device == (1 + blocks + (policy == "repair")) * BLOCK
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (on_device, 0o640, False)
            handle = fs.open("seq/0", DIRECT)
            assert fs.read(handle, 0, on_device) == pattern(0, on_device)
            fs.release(handle)
            fill(fs, "seq/0", 1)
            check_invariants(fs)

    @pytest.mark.parametrize(
        ("move", "kept", "repaired"),
        [
            (lambda device: device.write(FIRST * ZONE_SIZE + BLOCK, pattern(BLOCK, BLOCK)), BLOCK, 2 * BLOCK),
            (lambda device: device.zone_mgmt(ZoneOp.RESET, FIRST), 0, 0),
        ],
        ids=["written", "reset"],
    )
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_somebody_moved(
        self, policy: str, move: Callable[[MemoryDevice], None], kept: int, repaired: int
    ) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", DIRECT)
            move(device)
            # Nobody notices before a write.
            assert size_of(fs, "seq/0") == BLOCK
            fs.release(fs.open("seq/0", DIRECT))
            with pytest.raises(DeviceError):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            sizes = {"remount-ro": kept, "zone-ro": BLOCK, "repair": repaired}
            check_degraded(fs, handle, policy, sizes.get(policy, 0))

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_somebody_finished(self, policy: str) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", DIRECT)
            device.zone_mgmt(ZoneOp.FINISH, FIRST)
            with pytest.raises(DeviceError):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            expected = {"repair": CAPACITY, "zone-offline": 0}.get(policy, BLOCK)
            assert size_of(fs, "seq/0") == expected
            assert fs.read_only == (policy == "remount-ro")
            assert fs.counters.nr_active_seq_files == (1 if policy == "remount-ro" else 0)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_moved_by_others_is_simply_reset_by_a_truncation(self, policy: str) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            device.write(FIRST * ZONE_SIZE + BLOCK, pattern(BLOCK, BLOCK))
            fs.truncate("seq/0", 0)
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (0, 0o640, False)
            fill(fs, "seq/0", 1)
            check_invariants(fs)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_read_that_fails_changes_nothing(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("read", FIRST), Rule("read", 1), Rule("write", 1))
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 2)
            handle = fs.open("seq/0", DIRECT)
            conventional = fs.open("cnv/0", DIRECT)
            for call in (
                lambda: fs.read(handle, 0, BLOCK),
                lambda: fs.read(conventional, 0, BLOCK),
                lambda: fs.write(conventional, 0, bytes(BLOCK)),
            ):
                with pytest.raises(DeviceError):
                    call()
                assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (2 * BLOCK, 0o640, False)
                assert (size_of(fs, "cnv/0"), mode_of(fs, "cnv/0")) == (ZONE_SIZE, 0o640)
            assert fs.read(handle, 0, 2 * BLOCK) == pattern(0, 2 * BLOCK)
            for one in (handle, conventional):
                fs.release(one)
            check_invariants(fs)

    @pytest.mark.parametrize("name", ["seq/0", "cnv/0"])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_flush_that_fails(self, policy: str, name: str) -> None:
        number = 1 if name == "cnv/0" else FIRST
        device = FailingDevice(new_device(), Rule("flush", number))
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            size = size_of(fs, name)
            handle = fs.open(name, DIRECT)
            with pytest.raises(DeviceError):
                fs.fsync(handle)
            with pytest.raises(NotPermitted) if policy.startswith("zone-") else contextlib.nullcontext():
                fs.fsync(handle)
            assert fs.read_only == (policy == "remount-ro")
            if name == "seq/0":
                check_degraded(fs, handle, policy, size)
            elif policy in ("remount-ro", "repair"):
                assert (size_of(fs, name), mode_of(fs, name)) == (size, 0o640)

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_a_zone_that_breaks(self, policy: str, condition: ZoneCondition) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", DIRECT)
            device.force_condition(FIRST, condition)
            # A truncation fails, and nothing more.
            for size in (0, CAPACITY):
                with pytest.raises(DeviceError):
                    fs.truncate("seq/0", size)
                assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (BLOCK, 0o640, False)
            if condition is ZoneCondition.READONLY:
                assert fs.read(handle, 0, BLOCK) == pattern(0, BLOCK)
                assert mode_of(fs, "seq/0") == 0o640
            with pytest.raises(DeviceError):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            gone = condition is ZoneCondition.OFFLINE or policy == "zone-offline"
            assert mode_of(fs, "seq/0") == (0 if gone else 0o440)
            assert size_of(fs, "seq/0") == (0 if gone else BLOCK)
            assert fs.read_only == (policy == "remount-ro")
            assert fs.counters.nr_active_seq_files == 0
            with pytest.raises(NotPermitted):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            fs.release(handle)
            assert fs.counters.nr_wro_seq_files == 0
            assert fs.statfs().blocks_free == (8 * CAPACITY - (0 if gone else BLOCK)) // BLOCK
        device.force_condition(FIRST, None)
        with Filesystem(device, options(policy)) as fs:
            assert size_of(fs, "seq/0") == BLOCK
            check_invariants(fs)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_read_finds_an_offline_zone(self, policy: str) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", os.O_RDONLY)
            device.force_condition(FIRST, ZoneCondition.OFFLINE)
            with pytest.raises(DeviceError):
                fs.read(handle, 0, 100)
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0")) == (0, 0)
            assert fs.read_only == (policy == "remount-ro")
            with pytest.raises(NotPermitted):
                fs.read(handle, 0, 100)

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_was_broken_before_the_mount(self, policy: str, condition: ZoneCondition) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 1)
        device.force_condition(FIRST, condition)
        with Filesystem(device, options(policy)) as fs:
            attributes = fs.getattr(fs.resolve("seq/0"))
            assert (attributes.size, attributes.mode & 0o7777) == (0, 0)
            assert attributes.blocks == CAPACITY // 512
            assert not fs.read_only
            statistics = fs.statfs()
            assert statistics.blocks == (ZONE_SIZE + 8 * CAPACITY) // BLOCK
            assert statistics.blocks_free == 8 * CAPACITY // BLOCK
            fill(fs, "seq/1", 1)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_cannot_be_reported_makes_everything_read_only(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST), Rule("report", FIRST))
        with Filesystem(device, options(policy)) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.read_only
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0")) == (0, 0o640)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_full_host_is_a_write_error_with_its_own_errno(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST, blocks=2, error=HostFull))
        with Filesystem(device, options(policy)) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(HostFull) as raised:
                fs.write(handle, 0, pattern(0, 4 * BLOCK))
            assert raised.value.errno_name == "ENOSPC"
            check_degraded(fs, handle, policy, 2 * BLOCK if policy == "repair" else 0)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_write_beyond_the_active_zones_is_an_error(self, policy: str) -> None:
        with Filesystem(new_device(max_active=2), options(policy)) as fs:
            fill(fs, "seq/2", 1)
            fill(fs, "seq/1", 1)
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(ActiveZonesExhausted) as raised:
                fs.write(handle, 0, pattern(0, BLOCK))
            assert raised.value.errno_name == "EOVERFLOW"
            assert fs.read_only == (policy == "remount-ro")
            assert mode_of(fs, "seq/0") == {"zone-ro": 0o440, "zone-offline": 0}.get(policy, 0o640)
            assert fs.counters.nr_active_seq_files == 2
            if policy == "repair":
                fs.truncate("seq/1", 0)
                assert fs.write(handle, 0, pattern(0, BLOCK)) == BLOCK

    @pytest.mark.parametrize("op", [ZoneOp.RESET, ZoneOp.FINISH])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_truncation_that_fails_changes_nothing(self, policy: str, op: ZoneOp) -> None:
        device = FailingDevice(new_device(), Rule(op, FIRST))
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 2)
            new_size = 0 if op is ZoneOp.RESET else CAPACITY
            changes = AttributeChanges(size=new_size, mode=0o600, uid=5, mtime_ns=1)
            before = fs.getattr(FIRST)
            with pytest.raises(DeviceError):
                fs.setattr("seq/0", changes)
            assert fs.getattr(FIRST) == before
            assert not fs.read_only
            fs.setattr("seq/0", changes)
            assert size_of(fs, "seq/0") == new_size
            check_invariants(fs)

    def test_an_open_that_cannot_truncate_opens_nothing(self) -> None:
        device = FailingDevice(new_device(2, 2), Rule(ZoneOp.RESET, FIRST, times=2))
        with Filesystem(device, options(explicit_open=True)) as fs:
            fill(fs, "seq/0", 2)
            for access in (os.O_RDONLY, os.O_WRONLY):
                with pytest.raises(DeviceError):
                    fs.open("seq/0", access | os.O_TRUNC)
            check_invariants(fs)
            fs.remount(options(read_only=True))


class TestExplicitOpen:
    """Errors of the device while zones are opened and closed explicitly."""

    def test_an_open_that_fails_opens_nothing(self) -> None:
        device = FailingDevice(new_device(2, 4), Rule(ZoneOp.OPEN, FIRST))
        with Filesystem(device, options(explicit_open=True)) as fs:
            with pytest.raises(DeviceError):
                fs.open("seq/0", DIRECT)
            assert not fs.read_only
            check_invariants(fs)
            fs.release(fs.open("seq/0", DIRECT))
            fs.remount(options(read_only=True))

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("blocks", [0, 1])
    def test_a_close_that_fails_makes_everything_read_only(self, policy: str, blocks: int) -> None:
        """A zone that stays open would sooner or later leave none to write."""
        inner = new_device(2, 4)
        device = FailingDevice(inner, Rule(ZoneOp.CLOSE if blocks else ZoneOp.RESET, FIRST))
        with Filesystem(device, options(policy, explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            if blocks:
                fs.write(handle, 0, pattern(0, BLOCK))
            fs.release(handle)
            assert fs.read_only
            assert fs.counters.nr_wro_seq_files == 0
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0")) == (blocks * BLOCK, 0o640)
            assert inner.report_zones(FIRST, 1)[0].condition is ZoneCondition.EXP_OPEN
            # The way back: remounted, the next writer closes it.
            fs.remount(options(policy, explicit_open=True))
            fs.release(fs.open("seq/0", DIRECT))
            assert not fs.read_only
            check_invariants(fs)

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_broke_is_found_when_it_is_closed(self, policy: str, condition: ZoneCondition) -> None:
        device = new_device(2, 4)
        with Filesystem(device, options(policy, explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            device.force_condition(FIRST, condition)
            fs.release(handle)
            gone = condition is ZoneCondition.OFFLINE or policy == "zone-offline"
            assert mode_of(fs, "seq/0") == (0 if gone else 0o440)
            assert fs.read_only == (policy == "remount-ro")
            assert fs.counters.nr_wro_seq_files == fs.counters.nr_active_seq_files == 0

    def test_a_reset_zone_that_cannot_be_opened_again_is_open_implicitly(self) -> None:
        device = FailingDevice(new_device(2, 4), Rule(ZoneOp.OPEN, FIRST, skip=1))
        with Filesystem(device, options(explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            fs.truncate("seq/0", 0)
            assert size_of(fs, "seq/0") == 0
            assert fs.counters.nr_active_seq_files == 0
            fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.counters.nr_active_seq_files == 1
            fs.release(handle)
            assert not fs.read_only
            check_invariants(fs)

    def test_a_failed_write_keeps_the_zone_open_until_it_is_closed(self) -> None:
        inner = new_device(1, 2)
        device = FailingDevice(inner, Rule("write", FIRST, blocks=1))
        with Filesystem(device, options("repair", explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, 2 * BLOCK))
            assert inner.report_zones(FIRST, 1)[0].condition is ZoneCondition.EXP_OPEN
            assert fs.counters.nr_active_seq_files == 1
            fs.release(handle)
            assert inner.report_zones(FIRST, 1)[0].condition is ZoneCondition.CLOSED
            fs.release(fs.open("seq/1", DIRECT))
            check_invariants(fs)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_finished_by_others_is_closed_without_complaint(self, policy: str) -> None:
        """Closing a full zone is refused by the device; that the zone is not open is what counts."""
        device = new_device(2, 4)
        with Filesystem(device, options(policy, explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            fs.write(handle, BLOCK, pattern(BLOCK, CAPACITY - BLOCK))
            fs.release(handle)
            assert not fs.read_only
            assert size_of(fs, "seq/0") == CAPACITY
            check_invariants(fs)

    def test_limits_are_those_of_the_device(self) -> None:
        device = new_device(1, 2)
        with Filesystem(device, options(explicit_open=True)) as fs:
            first = fs.open("seq/0", DIRECT)
            with pytest.raises(TooManyWriteOpenFiles):
                fs.open("seq/1", os.O_WRONLY | os.O_TRUNC)
            second = fs.open("seq/0", DIRECT)
            fs.release(first)
            with pytest.raises(TooManyWriteOpenFiles):
                fs.open("seq/1", DIRECT)
            with pytest.raises(OpenZonesExhausted):
                fs.truncate("seq/2", CAPACITY)
            fs.release(second)
            fs.truncate("seq/2", CAPACITY)
            fs.release(fs.open("seq/1", DIRECT))
            check_invariants(fs)


class TestBackingFiles:
    """What may be read in place of an open file, and until when."""

    @staticmethod
    def content(fs: Filesystem, handle: int) -> bytes | None:
        descriptor = fs.backing_descriptor(handle)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, 2 * ZONE_SIZE, 0)
        finally:
            os.close(descriptor)

    def test_they_are_what_read_gives(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", GEOMETRY)
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions())
        with Filesystem(open_device(tmp_path / "disk")) as fs:
            handle, conventional = fs.open("seq/0", DIRECT), fs.open("cnv/0", os.O_RDWR)
            assert self.content(fs, handle) == b""
            fs.write(handle, 0, pattern(0, 3 * BLOCK))
            fs.write(conventional, 5, b"some bytes")
            assert self.content(fs, handle) == fs.read(handle, 0, ZONE_SIZE) == pattern(0, 3 * BLOCK)
            assert self.content(fs, conventional) == fs.read(conventional, 0, ZONE_SIZE)
            fs.truncate("seq/0", CAPACITY)
            assert self.content(fs, handle) == fs.read(handle, 0, ZONE_SIZE)
            fs.truncate("seq/0", 0)
            assert self.content(fs, handle) == b""

    def test_not_of_a_zone_that_somebody_else_has_written(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", GEOMETRY)
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions())
        with Filesystem(open_device(tmp_path / "disk")) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            with (tmp_path / "disk" / f"seq-{FIRST:06d}").open("ab") as file:
                file.write(bytes(BLOCK))
            assert self.content(fs, handle) is None, "the file is shown with another size"

    def test_not_of_an_offline_zone_and_that_is_told(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", GEOMETRY)
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions())
        withdrawn: list[int] = []
        with Filesystem(open_device(tmp_path / "disk"), MountOptions(errors=ErrorsPolicy.REPAIR)) as fs:
            fs.on_withdrawn = withdrawn.append
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            fs.device.force_condition(FIRST, ZoneCondition.READONLY)
            assert withdrawn == []
            assert self.content(fs, handle) == pattern(0, BLOCK)
            # Zone 0 has no file.
            fs.device.force_conditions([0, FIRST], ZoneCondition.OFFLINE)
            assert withdrawn == [FIRST]
            assert self.content(fs, handle) is None
            with pytest.raises(DeviceError):
                fs.read(handle, 0, BLOCK)
            fs.device.force_conditions([0, FIRST], None)
            assert self.content(fs, handle) is None, "the file itself was taken offline"

    def test_not_of_a_device_without_files_or_a_file_of_several_zones(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", replace(GEOMETRY, nr_conventional=4))
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions(aggregate_conventional=True))
        with Filesystem(open_device(tmp_path / "disk")) as fs:
            assert fs.backing_descriptor(fs.open("cnv/0", os.O_RDONLY)) is None
            assert self.content(fs, fs.open("seq/0", os.O_RDONLY)) == b""
        with Filesystem(new_device()) as fs:
            assert fs.backing_descriptor(fs.open("seq/0", os.O_RDONLY)) is None

    def test_counting_a_read_moves_the_access_time(self) -> None:
        with Filesystem(new_device()) as fs:
            fs.setattr("seq/0", AttributeChanges(atime_ns=5, mtime_ns=10))
            fs.count_as_read(fs.open("seq/0", os.O_RDONLY | os.O_NOATIME))
            assert fs.getattr(fs.resolve("seq/0")).atime_ns == 5
            fs.count_as_read(fs.open("seq/0", os.O_RDONLY))
            assert fs.getattr(fs.resolve("seq/0")).atime_ns > 10

"""Threads in one file system, on a device in memory: on different files, and on the same."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.core.calls import may_be_refused, size_of
from tests.core.filesystems import (
    APPEND,
    BLOCK,
    BLOCKS,
    CAPACITY,
    DIRECT,
    FIRST,
    GEOMETRY,
    ZONE_SIZE,
    check_invariants,
    new_device,
    options,
    pattern,
    seq_names,
)
from zonefs_py.config import FormatOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.errors import FilesystemBusy, ReadOnlyFilesystem, TooManyWriteOpenFiles
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import ZoneCondition

THREADS = 6


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

"""Copies, writes and truncations of the same files at the same time; and what a long copy keeps waiting."""

from __future__ import annotations

import functools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.core.calls import content, may_be_refused, size_of
from tests.core.copying import Call, CopyDevice, copy_with_small_buffer, random_bytes
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import BeyondCapacity
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition

BLOCK = 512
ZONE_SIZE = 64 * BLOCK
CAPACITY = 48 * BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 9, 3, BLOCK, ZONE_SIZE)
"""cnv/0 and cnv/1, seq/0 to seq/5."""

CONVENTIONAL = ("cnv/0", "cnv/1")
SEQUENTIAL = tuple(f"seq/{index}" for index in range(6))
FILES = CONVENTIONAL + SEQUENTIAL
DIRECT = os.O_RDWR | os.O_DIRECT
JOIN_SECONDS = 60.0

ENGINES = ["device", "host", "emulate"]


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let threads take turns every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def new_filesystem(engine: str, policy: ErrorsPolicy = ErrorsPolicy.REMOUNT_RO) -> tuple[CopyDevice, Filesystem]:
    """A file system in which every copy takes several calls of the device. An error makes it read-only."""
    inner = MemoryDevice(GEOMETRY)
    format_device(inner, FormatOptions())
    device = CopyDevice(inner)
    fs = Filesystem(device, MountOptions(policy, copy=engine))
    copy_with_small_buffer(fs, 4 * BLOCK)
    if engine != "emulate":
        fs.copy_engine.set_limit("copy_max_bytes", 4 * BLOCK)
    return device, fs


def run_threads(*work: Callable[[], object]) -> None:
    """Run all of *work* at the same time. What one raises is raised here; all must end in time."""
    failures: list[BaseException] = []
    together = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        try:
            together.wait(JOIN_SECONDS)
            one()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    if failures:
        raise failures[0]


def check_books(fs: Filesystem, device: CopyDevice) -> None:
    """Compare sizes, counters and space with a recount from the device. No file is open, no zone broken."""
    assert not fs.read_only
    active = written = 0
    for zone, name in fs.report():
        if name in SEQUENTIAL:
            assert zone.data_size == size_of(fs, name), name
            assert zone.condition is not ZoneCondition.EXP_OPEN
            written += zone.data_size
            active += 0 < zone.data_size < CAPACITY
    assert (fs.counters.nr_wro_seq_files, fs.counters.nr_active_seq_files) == (0, active)
    assert device.inner.nr_active_zones == active
    assert fs.statfs().blocks_free == (len(SEQUENTIAL) * CAPACITY - written) // BLOCK


def check_whole_blocks(data: bytes) -> None:
    """Every block was written by one call: all of its bytes are alike."""
    for offset in range(0, len(data), BLOCK):
        assert len(set(data[offset : offset + BLOCK])) == 1, offset


class Worker:
    """Random operations on all files; counts what its copies returned.

    Somebody else may have been faster: then the offset is not at the write pointer any more, or the file is full.
    """

    def __init__(self, fs: Filesystem, seed: int, turns: int) -> None:
        self.fs = fs
        self.copied = 0
        self._random = random.Random(seed)
        self._turns = turns
        self._fill = seed + 1

    def copy(self) -> None:
        """Copy between any two files, also within one."""
        for _ in range(self._turns):
            source, target = self._random.choice(FILES), self._random.choice(FILES)
            reader, writer = self.fs.open(source, os.O_RDONLY), self.fs.open(target, os.O_WRONLY)
            offset = size_of(self.fs, target) if target in SEQUENTIAL else self._block(64)
            with may_be_refused("EINVAL", "EFBIG"):
                self.copied += self.fs.copy_range(reader, self._block(8), writer, offset, self._block(12) + BLOCK)
            self.fs.release(reader)
            self.fs.release(writer)

    def write(self) -> None:
        """Append to sequential files, overwrite in conventional ones."""
        for _ in range(self._turns):
            name = self._random.choice(FILES)
            handle = self.fs.open(name, DIRECT)
            offset = size_of(self.fs, name) if name in SEQUENTIAL else self._block(60)
            data = bytes([self._random.randrange(256)]) * (self._block(3) + BLOCK)
            with may_be_refused("EINVAL", "EFBIG"):
                self.fs.write(handle, offset, data)
            self.fs.release(handle)

    def truncate(self) -> None:
        """Reset and finish."""
        for _ in range(self._turns):
            self.fs.truncate(self._random.choice(SEQUENTIAL), self._random.choice((0, 0, 0, CAPACITY)))

    def _block(self, blocks: int) -> int:
        return self._random.randrange(blocks) * BLOCK


@pytest.mark.parametrize("engine", ENGINES)
def test_everybody_on_all_files(engine: str, request: pytest.FixtureRequest) -> None:
    turns = 10_000 if request.config.getoption("--long") else 800
    device, fs = new_filesystem(engine)
    workers = [Worker(fs, seed, turns) for seed in range(6)]
    run_threads(*(worker.copy for worker in workers[:3]), workers[3].write, workers[4].write, workers[5].truncate)
    check_books(fs, device)
    for name in FILES:
        check_whole_blocks(content(fs, name))
    done = fs.copy_engine.counters
    assert sum(worker.copied for worker in workers) == sum(one.bytes for one in done.values()) > 0
    assert sum(one.errors for one in done.values()) == 0
    fs.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("one", "other"), [("cnv/0", "cnv/1"), ("seq/0", "cnv/0"), ("seq/0", "seq/1")])
def test_opposite_copies(engine: str, one: str, other: str) -> None:
    """Each locks both files: in one order, or they would wait for each other."""
    device, fs = new_filesystem(engine)
    for name in {one, other} & set(SEQUENTIAL):
        handle = fs.open(name, DIRECT)
        fs.write(handle, 0, b"x" * 8 * BLOCK)
        fs.release(handle)

    copied: dict[str, int] = dict.fromkeys((one, other), 0)

    def copy(source: str, target: str) -> None:
        reader, writer = fs.open(source, os.O_RDONLY), fs.open(target, DIRECT)
        for _ in range(200):
            offset = size_of(fs, target) if target in SEQUENTIAL else 32 * BLOCK
            try:
                copied[target] += fs.copy_range(reader, 0, writer, offset, 8 * BLOCK)
            except BeyondCapacity:
                # Nobody else writes to it, and who copies from it must find something.
                fs.truncate(target, 0)
                assert fs.write(writer, 0, b"x" * 8 * BLOCK) == 8 * BLOCK
        fs.release(reader)
        fs.release(writer)

    run_threads(lambda: copy(one, other), lambda: copy(other, one))
    assert any(copied.values())
    check_books(fs, device)
    fs.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reader_sees_all_of_a_copy_or_nothing(engine: str) -> None:
    _, fs = new_filesystem(engine)
    handles = [fs.open(name, DIRECT) for name in ("cnv/0", "cnv/1")]
    patterns = [random_bytes(16 * BLOCK, seed) for seed in (1, 2)]
    fs.write(handles[0], 0, patterns[0] + patterns[1])
    fs.write(handles[1], 0, patterns[0])
    seen = set()

    def copy() -> None:
        for turn in range(200):
            assert fs.copy_range(handles[0], (turn + 1) % 2 * 16 * BLOCK, handles[1], 0, 16 * BLOCK) == 16 * BLOCK

    def read() -> None:
        for _ in range(400):
            seen.add(fs.read(handles[1], 0, 16 * BLOCK))

    run_threads(copy, read, read)
    assert seen <= set(patterns)
    fs.close()


class LongCopy:
    """A copy to seq/1 in a thread of its own, which stands still in the middle until it is told to go on."""

    def __init__(self, engine: str, *sources: str) -> None:
        """Eight blocks each of *sources*; one by `copy_range`, several by `copy_ranges`."""
        self.device, self.fs = new_filesystem(engine)
        self.sources = sources
        for name in ("cnv/0", "seq/0", "seq/2"):
            handle = self.fs.open(name, DIRECT)
            self.fs.write(handle, 0, random_bytes(8 * BLOCK, 1))
            self.fs.release(handle)
        self._started, self._go_on = threading.Event(), threading.Event()
        self.device.before = self._stall
        self.copied: list[int] = []
        self._others: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._copy, name="copier", daemon=True)
        self._thread.start()
        assert self._started.wait(JOIN_SECONDS)

    def _stall(self, call: Call) -> None:
        if threading.current_thread() is self._thread:
            self._started.set()
            assert self._go_on.wait(JOIN_SECONDS)

    def _copy(self) -> None:
        writer = self.fs.open("seq/1", os.O_RDWR)
        if len(self.sources) > 1:
            places = [(self.fs.resolve(name), 0, 8 * BLOCK) for name in self.sources]
            self.copied.append(sum(self.fs.copy_ranges(writer, None, places).completed))
        else:
            reader = self.fs.open(self.sources[0], os.O_RDONLY)
            self.copied.append(self.fs.copy_range(reader, 0, writer, 0, 8 * BLOCK))
            self.fs.release(reader)
        self.fs.release(writer)

    def goes_on(self, work: Callable[[], object]) -> None:
        """Check that *work* is done although the copy stands still."""
        run_threads(work)
        assert not self.copied

    def waits(self, work: Callable[[], object]) -> None:
        """Start *work*; it must not be done before the copy may go on."""

        def note() -> None:
            work()
            assert self._go_on.is_set(), "this must wait for the copy"

        self._others.append(threading.Thread(target=note, daemon=True))
        self._others[-1].start()

    def end(self) -> None:
        """Let the copy go on, and check that all that waited for it is done."""
        failures: list[object] = []
        before, threading.excepthook = threading.excepthook, failures.append
        assert not self.copied
        self._go_on.set()
        for thread in (self._thread, *self._others):
            thread.join(JOIN_SECONDS)
            assert not thread.is_alive()
        threading.excepthook = before
        assert not failures
        assert self.copied == [8 * BLOCK * len(self.sources)]
        check_books(self.fs, self.device)


def work_in_sequential(fs: Filesystem, name: str) -> None:
    """Read, append and copy on in a file that holds eight blocks."""
    assert content(fs, name) == random_bytes(8 * BLOCK, 1)
    reader, writer = fs.open(name, os.O_RDONLY), fs.open(name, DIRECT)
    assert fs.write(writer, 8 * BLOCK, random_bytes(BLOCK, 2)) == BLOCK
    assert fs.copy_range(reader, 0, writer, 9 * BLOCK, 3 * BLOCK) == 3 * BLOCK
    fs.fsync(writer)
    fs.release(reader)
    fs.release(writer)


@pytest.mark.parametrize("sources", [("seq/0",), ("seq/0", "seq/2"), ("seq/2", "cnv/0", "seq/0")])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_long_copy_keeps_no_other_file_waiting(engine: str, sources: tuple[str, ...]) -> None:
    """While the device takes its time over a copy all else goes on, at its sequential sources too."""
    long = LongCopy(engine, *sources)
    fs = long.fs

    def work_elsewhere() -> None:
        writer = fs.open("seq/3", DIRECT)
        for name in ("seq/0", "seq/2"):
            reader = fs.open(name, os.O_RDONLY)
            assert fs.copy_range(reader, 0, writer, size_of(fs, "seq/3"), 8 * BLOCK) == 8 * BLOCK
            fs.release(reader)
        fs.release(writer)
        fs.truncate("seq/3", 0)
        fs.truncate("seq/3", CAPACITY)
        # The files of the copy can be looked at, and their neighbours listed, too.
        assert size_of(fs, "seq/1") == 0
        assert len(fs.readdir(fs.resolve("seq"))) == len(SEQUENTIAL) + 2
        fs.statfs()
        fs.report()

    long.goes_on(work_elsewhere)
    for name in ("seq/0", "seq/2"):
        long.goes_on(functools.partial(work_in_sequential, fs, name))
    long.end()
    assert content(fs, "seq/1") == random_bytes(8 * BLOCK, 1) * len(sources)
    long.fs.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_would_change_the_data_of_a_copy_waits_for_it(engine: str) -> None:
    """A reset of a source, a write to a conventional one, and whatever needs the destination."""
    long = LongCopy(engine, "seq/0", "cnv/0")
    fs = long.fs
    long.goes_on(lambda: fs.truncate("seq/2", 0))

    def open_truncated() -> None:
        fs.release(fs.open("seq/0", os.O_WRONLY | os.O_TRUNC))

    def overwrite() -> None:
        handle = fs.open("cnv/0", DIRECT)
        fs.write(handle, 0, bytes(BLOCK))
        fs.release(handle)

    long.waits(lambda: fs.truncate("seq/0", 0))
    long.waits(open_truncated)
    long.waits(overwrite)
    long.waits(lambda: content(fs, "seq/1"))
    # Who waits for its turn to reset a file keeps nobody else from it.
    long.goes_on(lambda: content(fs, "seq/0"))
    long.end()
    assert content(fs, "seq/1") == random_bytes(8 * BLOCK, 1) * 2
    assert size_of(fs, "seq/0") == 0
    assert content(fs, "cnv/0")[:BLOCK] == bytes(BLOCK)
    long.fs.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_copies_without_a_gap_keep_no_reset_waiting(engine: str) -> None:
    """One copy after the other begins before the last one ends: a reset of their source has its turn all the same."""
    device, fs = new_filesystem(engine)
    handle = fs.open("seq/0", DIRECT)
    fs.write(handle, 0, random_bytes(2 * BLOCK, 1))
    fs.release(handle)
    on_device: dict[str, threading.Event] = {}
    may_go_on: dict[str, threading.Event] = {}

    def stall(call: Call) -> None:
        name = threading.current_thread().name
        if name in on_device and not on_device[name].is_set():
            on_device[name].set()
            assert may_go_on[name].wait(JOIN_SECONDS)

    device.before = stall

    def copy(target: str) -> None:
        reader, writer = fs.open("seq/0", os.O_RDONLY), fs.open(target, os.O_RDWR)
        fs.copy_range(reader, 0, writer, 0, 2 * BLOCK)
        fs.release(reader)
        fs.release(writer)
        on_device[threading.current_thread().name].set()  # after the reset there is nothing to copy

    reset = threading.Thread(target=fs.truncate, args=("seq/0", 0), daemon=True)
    copies: list[threading.Thread] = []
    for turn in range(2000):
        name = f"copy {turn}"
        on_device[name], may_go_on[name] = threading.Event(), threading.Event()
        copies.append(threading.Thread(target=copy, args=(f"cnv/{turn % 2}",), name=name, daemon=True))
        copies[-1].start()
        if turn == 0:
            assert on_device[name].wait(JOIN_SECONDS)
            reset.start()
            continue
        # Until the reset waits, this copy begins before the last one ends; then only when the reset is done.
        on_device[name].wait(0.05)
        may_go_on[f"copy {turn - 1}"].set()
        assert on_device[name].wait(JOIN_SECONDS)
        if not reset.is_alive():
            break
    was_done = not reset.is_alive()
    for event in may_go_on.values():
        event.set()
    for thread in copies:
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive()
    assert was_done, "copies keep the reset from its turn"
    check_books(fs, device)
    fs.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_copies_in_a_ring_and_resets(engine: str) -> None:
    """Every file is source and destination, and reset, at the same time: nobody waits for ever, and all adds up."""
    device, fs = new_filesystem(engine)
    names = SEQUENTIAL[:4]

    def turn(number: int) -> None:
        source, target = names[number], names[(number + 1) % len(names)]
        values = random.Random(number)
        for _ in range(150):
            with may_be_refused("EINVAL", "EFBIG"):
                writer = fs.open(target, DIRECT)
                try:
                    if values.random() < 0.3:
                        fs.write(writer, size_of(fs, target), random_bytes(2 * BLOCK, 1))
                    places = [(fs.resolve(source), 0, 2 * BLOCK), (fs.resolve(names[number - 1]), 0, BLOCK)]
                    copied = fs.copy_ranges(writer, None, places)
                    assert copied.completed == (2 * BLOCK, BLOCK)
                finally:
                    fs.release(writer)
            if values.random() < 0.3:
                fs.truncate(source, 0)

    run_threads(*(functools.partial(turn, number) for number in range(len(names))))
    check_books(fs, device)
    fs.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_limits_that_change_under_copies(engine: str) -> None:
    """A limit counts for the next copy; a copy never sees half of a change."""
    device, fs = new_filesystem(engine)
    stop = threading.Event()

    def copy() -> None:
        handles = [fs.open(name, DIRECT) for name in CONVENTIONAL]
        try:
            for turn in range(300):
                reader, writer = handles[:: 1 if turn % 2 else -1]
                assert fs.copy_range(reader, 0, writer, 32 * BLOCK, 16 * BLOCK) == 16 * BLOCK
        finally:
            stop.set()

    def change() -> None:
        values = random.Random(1)
        while not stop.is_set():
            fs.copy_engine.set_limit("copy_offload", values.choice((0, 1)))
            fs.copy_engine.set_limit("copy_max_bytes", values.randrange(8) * BLOCK)
            fs.copy_engine.set_limit("copy_max_range_bytes", values.randrange(8) * BLOCK)
            fs.copy_engine.set_limit("copy_max_nr_ranges", values.randrange(3))

    run_threads(copy, change)
    done = fs.copy_engine.counters
    assert sum(one.bytes for one in done.values()) == 300 * 16 * BLOCK
    assert {name.value for name, one in done.items() if one.bytes} <= {engine, "emulate"}
    check_books(fs, device)
    fs.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_many_copies_at_once_each_have_their_buffer(engine: str) -> None:
    device, fs = new_filesystem(engine)
    data = [random_bytes(CAPACITY, seed) for seed in range(len(SEQUENTIAL))]
    for name, seed in (("seq/0", 0), ("seq/1", 1), ("seq/2", 2)):
        handle = fs.open(name, DIRECT)
        fs.write(handle, 0, data[seed])
        fs.release(handle)

    def copy(index: int) -> None:
        for _ in range(20):
            reader, writer = fs.open(f"seq/{index}", os.O_RDONLY), fs.open(f"seq/{index + 3}", os.O_WRONLY)
            assert fs.copy_range(reader, 0, writer, 0, CAPACITY) == CAPACITY
            fs.release(reader)
            fs.release(writer)
            assert content(fs, f"seq/{index + 3}") == data[index]
            fs.truncate(f"seq/{index + 3}", 0)

    run_threads(*(lambda index=index: copy(index) for index in range(3)))
    check_books(fs, device)
    fs.close()


@pytest.mark.parametrize("name", ["seq/0", "cnv/0"])
def test_reads_without_a_gap_keep_no_change_waiting(name: str) -> None:
    """Reads run beside each other, but who comes when a reset or a write waits for them comes behind it."""
    device, fs = new_filesystem(ENGINES[0])
    handle = fs.open(name, DIRECT)
    fs.write(handle, 0, random_bytes(2 * BLOCK, 1))
    begun = [threading.Event() for _ in range(3)]
    go_on = threading.Event()
    got: list[bytes] = []

    def stall(call: Call) -> None:
        thread = threading.current_thread().name
        if call.kind == "read" and thread.startswith("read"):
            begun[int(thread[4:])].set()
            assert go_on.wait(JOIN_SECONDS)

    def change() -> None:
        if name == "seq/0":
            fs.truncate(name, 0)
        else:
            fs.write(handle, 0, bytes(BLOCK))

    device.before = stall
    reads = [
        threading.Thread(target=lambda: got.append(fs.read(handle, 0, BLOCK)), name=f"read{number}", daemon=True)
        for number in range(3)
    ]
    # Who waits is to be seen nowhere else.
    # How many wait cannot be asked for; typeshed leaves it out.
    waiters = fs._copier.readings._ended._waiters  # type: ignore[attr-defined]
    for number in (0, 1):
        reads[number].start()
        assert begun[number].wait(JOIN_SECONDS), "beside each other"
    changer = threading.Thread(target=change, daemon=True)
    changer.start()
    wait_until(lambda: len(waiters) == 1)
    reads[2].start()
    wait_until(lambda: len(waiters) == 2 or begun[2].is_set())
    assert not begun[2].is_set()
    go_on.set()
    for thread in (changer, *reads):
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive()
    assert got[:2] == [random_bytes(2 * BLOCK, 1)[:BLOCK]] * 2
    assert got[2] == (b"" if name == "seq/0" else bytes(BLOCK))
    fs.release(handle)
    fs.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*."""
    end = time.monotonic() + JOIN_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)

"""Background copies: what a job does next (pure), the queue on the file system's own copies and on scripted targets.

No test sleeps: the throttle's clock stands still but for the waits of the queue.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py import Filesystem, Geometry, MemoryDevice, MountOptions, format_device
from zonefs_py.config import FormatOptions
from zonefs_py.copy.jobs import CopyDestination, CopyJobs, CopySource, JobResult
from zonefs_py.copy.schedule import PIECES_PER_SECOND, JobState, Throttle, in_turn
from zonefs_py.errors import BeyondCapacity, DeviceError, InvalidRequest, NotAtWritePointer
from zonefs_py.fs.copy_target import FileTarget

KIB = 1024
BLOCK = 4 * KIB
ZONE = 256 * KIB
PATIENCE = 30


# The throttle


@given(
    rate=st.integers(1, 1 << 40),
    pieces=st.lists(st.tuples(st.integers(0, 1 << 30), st.floats(0, 10)), max_size=20),
)
def test_no_time_has_more_bytes_than_the_rate_allows(rate: int, pieces: list[tuple[int, float]]) -> None:
    throttle = Throttle(rate)
    now = started = 1000.0
    sent = 0
    for length, idle in pieces:
        now = throttle.due(now) + idle
        # All that was begun before is paid off, to the last byte.
        assert sent <= rate * (now - started) * (1 + 1e-6) + 1
        throttle.spend(length, now)
        sent += length


def test_idle_time_gives_no_credit() -> None:
    throttle = Throttle(100)
    assert throttle.due(1000) == 1000
    throttle.spend(50, 1000)
    assert throttle.due(1000) == pytest.approx(1000.5)


def test_a_new_rate_counts_for_the_debt() -> None:
    throttle = Throttle(100)
    throttle.spend(100, 0)
    throttle.set_rate(50, 0.5)
    assert throttle.due(0.5) == pytest.approx(1.5)
    throttle.set_rate(None, 0.5)
    assert throttle.due(0.5) == 0.5
    throttle.set_rate(1, 0.5)
    assert throttle.due(0.5) == 0.5


def test_what_was_not_copied_is_not_counted() -> None:
    throttle = Throttle(100)
    throttle.spend(100, 0)
    throttle.spend(-60, 0)
    assert throttle.due(0) == pytest.approx(0.4)


@pytest.mark.parametrize("rate", [0, -1])
def test_no_rate_below_one(rate: int) -> None:
    with pytest.raises(InvalidRequest):
        Throttle(rate)
    throttle = Throttle(7)
    with pytest.raises(InvalidRequest):
        throttle.set_rate(rate, 0)
    assert throttle.rate == 7


# Pieces and turns


@given(
    length=st.integers(0, 20_000),
    blocks=st.lists(st.sampled_from([1, 512, 4096]), min_size=1, max_size=8),
    largest=st.integers(100, 30_000),
    rate=st.none() | st.integers(1000, 1 << 20),
)
def test_pieces_cover_everything_once_and_stay_within_bounds(
    length: int, blocks: list[int], largest: int, rate: int | None
) -> None:
    state = JobState(length, [""] * len(blocks), blocks, [0] * len(blocks), largest, Throttle(rate))
    done = [0] * len(blocks)
    now = 0.0
    while (piece := state.take(now)) is not None:
        block = blocks[piece.destination]
        assert piece.done == done[piece.destination] == min(done)
        most = largest if rate is None else min(largest, rate // PIECES_PER_SECOND)
        assert 0 < piece.length <= max(block, most)
        assert piece.length % block == 0 or piece.done + piece.length == length
        done[piece.destination] += piece.length
        state.copied(piece, piece.length, now)
        assert max(done) - min(done) <= max(*blocks, largest)
    assert done == [length] * len(blocks) == list(state.progress)
    assert not state.cut_short


@given(st.lists(st.frozensets(st.integers(0, 5), max_size=3), max_size=10))
def test_of_jobs_to_one_file_only_the_oldest_has_its_turn(jobs: list[frozenset[int]]) -> None:
    turns = list(in_turn(jobs))
    for number, files in enumerate(jobs):
        blocked = any(files & earlier for earlier in jobs[:number])
        assert (number in turns) is not blocked


# The queue, on a file system


def pattern(length: int, seed: int) -> bytes:
    """Bytes in which no two blocks are alike."""
    return b"".join((seed << 32 | position).to_bytes(8, "little") for position in range(0, length, 8))


@dataclass
class Opened:
    """A file system with its files open; what a target needs."""

    fs: Filesystem
    handles: dict[str, int] = field(default_factory=dict)

    def target(self, path: str) -> FileTarget:
        if path not in self.handles:
            self.handles[path] = self.fs.open(path, os.O_RDWR | os.O_DIRECT)
        return FileTarget(self.fs, path, self.handles[path])

    def append(self, path: str, data: bytes) -> int:
        """Write *data* at the end of *path*; return the handle."""
        target = self.target(path)
        assert self.fs.write(self.handles[path], target.end() if path.startswith("seq") else 0, data) == len(data)
        return self.handles[path]

    def content(self, path: str) -> bytes:
        return self.fs.read(self.handles[path], 0, ZONE, direct=False)


@pytest.fixture
def opened() -> Iterator[Opened]:
    device = MemoryDevice(Geometry(ZONE, ZONE, 16, 3, BLOCK, ZONE))
    format_device(device, FormatOptions())
    with Filesystem(device, MountOptions()) as fs:
        yield Opened(fs)


def finished(queue: CopyJobs, *arguments: Any, **more: Any) -> JobResult:
    """Submit a job and wait for it."""
    result = queue.submit(*arguments, **more).wait(PATIENCE)
    assert result is not None
    return result


def test_one_source_to_eight_destinations(opened: Opened) -> None:
    data = pattern(20 * BLOCK, 1)
    source = opened.append("seq/0", data)
    opened.append("seq/3", pattern(BLOCK, 2))
    places = {"cnv/0": 0, "cnv/1": 2 * BLOCK} | dict.fromkeys(f"seq/{number}" for number in range(1, 7))
    calls: list[JobResult] = []
    with CopyJobs() as queue:
        job = queue.submit(
            CopySource(source, BLOCK, 16 * BLOCK),
            [CopyDestination(opened.target(path), offset) for path, offset in places.items()],
            piece_size=3 * BLOCK,
            on_done=calls.append,
        )
        result = job.wait(PATIENCE)
    assert calls == [result]
    assert job.progress == (16 * BLOCK,) * 8
    assert result is not None
    assert not result.cancelled
    for (path, asked), destination in zip(places.items(), result.destinations, strict=True):
        assert (destination.name, destination.copied, destination.error) == (path, 16 * BLOCK, None)
        start = BLOCK if path == "seq/3" else asked or 0
        assert destination.offset == start
        assert opened.content(path)[start : start + 16 * BLOCK] == data[BLOCK : 17 * BLOCK]


def test_appends_to_one_zone_come_in_the_order_of_the_queue(opened: Opened) -> None:
    parts = [pattern((number % 5 + 1) * BLOCK, number) for number in range(12)]
    source = opened.append("seq/0", b"".join(parts))
    with CopyJobs(workers=4) as queue:
        offset = 0
        for part in parts:
            to = [CopyDestination(opened.target("seq/1")), CopyDestination(opened.target("seq/2"))]
            queue.submit(CopySource(source, offset, len(part)), to, piece_size=BLOCK)
            offset += len(part)
    assert opened.content("seq/1") == opened.content("seq/2") == b"".join(parts)


def test_an_error_of_one_destination_does_not_stop_the_others(opened: Opened) -> None:
    data = pattern(8 * BLOCK, 1)
    source = opened.append("seq/0", data)
    opened.append("seq/2", pattern(ZONE - 3 * BLOCK, 2))
    to = [
        CopyDestination(opened.target("seq/1"), BLOCK),  # not at the write pointer
        CopyDestination(opened.target("seq/2")),  # room for three blocks
        CopyDestination(opened.target("seq/3")),
    ]
    with CopyJobs() as queue:
        result = finished(queue, CopySource(source, 0, 8 * BLOCK), to, piece_size=2 * BLOCK)
    first, second, third = result.destinations
    assert isinstance(first.error, NotAtWritePointer)
    assert first.copied == 0
    assert isinstance(second.error, BeyondCapacity)
    assert second.copied == 3 * BLOCK
    assert (third.error, third.copied) == (None, 8 * BLOCK)
    assert opened.fs.getattr(opened.fs.resolve("seq/1")).size == 0
    assert opened.content("seq/2")[-3 * BLOCK :] == data[: 3 * BLOCK]
    assert opened.content("seq/3") == data


def test_a_source_that_ends_early_ends_the_job(opened: Opened) -> None:
    source = opened.append("seq/0", pattern(3 * BLOCK, 1))
    with CopyJobs() as queue:
        result = finished(queue, CopySource(source, 0, 8 * BLOCK), [CopyDestination(opened.target("seq/1"))])
    assert not result.cancelled
    assert (result.destinations[0].copied, result.destinations[0].error) == (3 * BLOCK, None)


def test_nothing_to_copy(opened: Opened) -> None:
    source = opened.append("seq/0", pattern(BLOCK, 1))
    with CopyJobs() as queue:
        result = finished(queue, CopySource(source, 0, 0), [CopyDestination(opened.target("seq/1"))], throttle=1)
    assert result.destinations[0].copied == 0
    assert result.destinations[0].error is None


def test_what_is_refused(opened: Opened) -> None:
    source = CopySource(opened.append("seq/0", pattern(BLOCK, 1)), 0, BLOCK)
    calls: list[JobResult] = []
    one = [CopyDestination(opened.target("seq/1"))]
    nine = [CopyDestination(opened.target(f"seq/{number}")) for number in range(1, 10)]
    queue = CopyJobs()
    refused: list[Callable[[], object]] = [
        lambda: queue.submit(None, one, on_done=calls.append),
        lambda: queue.submit(source, [], on_done=calls.append),
        lambda: queue.submit(source, nine, on_done=calls.append),
        lambda: queue.submit(source, one * 2, on_done=calls.append),
        lambda: queue.submit(source._replace(offset=-1), one, on_done=calls.append),
        lambda: queue.submit(source._replace(length=-1), one, on_done=calls.append),
        lambda: queue.submit(source, [one[0]._replace(offset=-1)], on_done=calls.append),
        lambda: queue.submit(source, one, throttle=0, on_done=calls.append),
        lambda: queue.submit(source, one, piece_size=0, on_done=calls.append),
    ]
    for submit in refused:
        with pytest.raises(InvalidRequest):
            submit()
    queue.close()
    with pytest.raises(InvalidRequest):
        queue.submit(source, one, on_done=calls.append)
    assert not calls
    assert opened.fs.getattr(opened.fs.resolve("seq/1")).size == 0


# The queue, on targets with a script


@dataclass
class ScriptedTarget:
    """A target that keeps what it is given. *script* is called before each piece, with the bytes it has so far."""

    name: str
    data: bytes = b""
    script: Callable[[int], object] = lambda done: None
    block_size: int = 1
    most: int = 1 << 30
    """Bytes that one call copies."""
    received: bytearray = field(default_factory=bytearray)

    @property
    def key(self) -> Hashable:
        return self.name

    def end(self) -> int:
        return len(self.received)

    def copy(self, source: int, source_offset: int, offset: int, length: int) -> int:
        self.script(len(self.received))
        part = self.data[source_offset : source_offset + min(length, self.most)]
        assert offset == len(self.received)
        self.received += part
        return len(part)


class Clock:
    """Time that passes only in the waits of a queue. It notes them, and what they were for is called first."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.on_wait: Callable[[float], None] = lambda seconds: None

    def __call__(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        if seconds is None:
            condition.wait(PATIENCE)
            return
        self.waits.append(seconds)
        self.on_wait(seconds)
        self.now += seconds


DATA = pattern(64_000, 9)
WHOLE = CopySource(0, 0, len(DATA))


def test_a_throttled_copy_takes_the_time_it_should() -> None:
    clock = Clock()
    target = ScriptedTarget("a", DATA)
    with CopyJobs(1, clock=clock, wait=clock.wait) as queue:
        result = finished(queue, WHOLE, [CopyDestination(target)], throttle=16_000)
    assert result.destinations[0].copied == len(target.received) == len(DATA)
    # After the last piece nothing is waited for.
    assert clock.now == pytest.approx(4 - 1 / PIECES_PER_SECOND)
    assert max(clock.waits) == pytest.approx(1 / PIECES_PER_SECOND)


def test_jobs_that_share_a_throttle_are_no_faster_than_one() -> None:
    clock = Clock()
    shared = Throttle(16_000)
    target = ScriptedTarget("a", DATA)
    with CopyJobs(1, clock=clock, wait=clock.wait) as queue:
        for done in range(0, len(DATA), 800):
            piece = CopySource(0, done, 800)
            assert finished(queue, piece, [CopyDestination(target)], throttle=shared).destinations[0].copied == 800
    assert target.received == DATA
    assert clock.now == pytest.approx(4 - 800 / 16_000)


def test_all_destinations_share_the_throttle() -> None:
    clock = Clock()
    targets = [ScriptedTarget(name, DATA) for name in "abcd"]
    with CopyJobs(1, clock=clock, wait=clock.wait) as queue:
        finished(queue, WHOLE, list(map(CopyDestination, targets)), throttle=64_000)
    assert clock.now == pytest.approx(4 - 1 / PIECES_PER_SECOND)


def test_the_throttle_changes_while_the_copy_runs() -> None:
    clock = Clock()
    target = ScriptedTarget("a", DATA)
    with CopyJobs(1, clock=clock, wait=clock.wait) as queue:
        begun = threading.Event()

        def script(done: int) -> None:
            begun.wait(PATIENCE)
            if done == 32_000:
                job.set_throttle(None)

        target.script = script
        job = queue.submit(WHOLE, [CopyDestination(target)], throttle=16_000)
        assert job.throttle == 16_000
        begun.set()
        assert job.wait(PATIENCE)
    assert job.throttle is None
    assert target.received == DATA
    # Half of it at 16000 bytes a second, the rest at once.
    assert clock.now == pytest.approx(2)


def test_a_changed_throttle_ends_a_wait() -> None:
    asleep = threading.Event()

    def wait(condition: threading.Condition, seconds: float | None) -> None:
        if seconds is not None:
            asleep.set()
        condition.wait(PATIENCE)

    target = ScriptedTarget("a", DATA)
    with CopyJobs(1, clock=lambda: 0.0, wait=wait) as queue:
        job = queue.submit(WHOLE, [CopyDestination(target)], throttle=1)
        assert asleep.wait(PATIENCE)
        assert len(target.received) == 1
        job.set_throttle(None)
        assert job.wait(PATIENCE)
    assert target.received == DATA


def test_a_throttled_job_does_not_hold_up_another() -> None:
    clock = Clock()
    slow, fast = ScriptedTarget("slow", DATA), ScriptedTarget("fast", DATA)
    order: list[str] = []
    begun = threading.Event()
    slow.script = lambda done: begun.wait(PATIENCE)
    with CopyJobs(1, clock=clock, wait=clock.wait) as queue:
        queue.submit(WHOLE, [CopyDestination(slow)], throttle=1000, on_done=lambda result: order.append("slow"))
        queue.submit(WHOLE, [CopyDestination(fast)], on_done=lambda result: order.append("fast"))
        begun.set()
    assert order == ["fast", "slow"]
    assert slow.received == fast.received == DATA


def test_cancel_stops_at_the_next_piece() -> None:
    calls: list[JobResult] = []
    target, other = ScriptedTarget("a", DATA), ScriptedTarget("b", DATA)
    begun = threading.Event()
    with CopyJobs(1) as queue:

        def script(done: int) -> None:
            begun.wait(PATIENCE)
            if done == 3000:
                job.cancel()

        target.script = script
        job = queue.submit(
            WHOLE, [CopyDestination(target), CopyDestination(other)], piece_size=1000, on_done=calls.append
        )
        begun.set()
        result = job.wait(PATIENCE)
        job.cancel()
    assert calls == [result]
    assert result is not None
    assert result.cancelled
    # The piece that was being copied is copied; what is there stays and is counted.
    assert [destination.copied for destination in result.destinations] == [4000, 3000]
    assert all(destination.error is None for destination in result.destinations)
    assert target.received == DATA[:4000]
    assert other.received == DATA[:3000]


def test_a_job_that_waits_can_be_cancelled() -> None:
    calls: list[JobResult] = []
    gate = threading.Event()
    target = ScriptedTarget("a", DATA, script=lambda done: gate.wait(PATIENCE))
    with CopyJobs(2) as queue:
        first = queue.submit(WHOLE, [CopyDestination(target)])
        second = queue.submit(WHOLE, [CopyDestination(target)], on_done=calls.append)
        second.cancel()
        gate.set()
        result = second.wait(PATIENCE)
    assert result is not None
    assert result.cancelled
    assert calls == [result]
    assert result.destinations[0].copied == 0
    assert first.result is not None
    assert not first.result.cancelled
    assert target.received == DATA


def test_an_exception_that_leaves_the_block_cancels_everything() -> None:
    calls: list[JobResult] = []

    def leave() -> None:
        # Time stands still: a job that is not cancelled never gets to its second byte.
        with CopyJobs(1, clock=lambda: 0.0, wait=lambda condition, seconds: condition.wait(PATIENCE)) as queue:
            for name in "aab":
                queue.submit(WHOLE, [CopyDestination(ScriptedTarget(name, DATA))], throttle=1, on_done=calls.append)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert [result.cancelled for result in calls] == [True] * 3


def test_the_callback_can_cancel_what_comes_after_it() -> None:
    # Parts that are gathered in one zone: after one that failed, the later ones must not be appended.
    errors = [DeviceError("scripted")]
    gate = threading.Event()

    def fail_once(done: int) -> None:
        gate.wait(PATIENCE)
        if errors:
            raise errors.pop()

    target = ScriptedTarget("a", DATA, script=fail_once)
    with CopyJobs(4) as queue:
        queue.submit(WHOLE, [CopyDestination(target)], on_done=lambda result: later.cancel())
        later = queue.submit(WHOLE, [CopyDestination(target)])
        gate.set()
    assert later.result is not None
    assert later.result.cancelled
    assert not target.received


def test_short_pieces_are_gone_on_with() -> None:
    target = ScriptedTarget("a", DATA, most=777)
    with CopyJobs() as queue:
        result = finished(queue, WHOLE, [CopyDestination(target)])
    assert result.destinations[0].copied == len(DATA)
    assert target.received == DATA


@pytest.mark.parametrize("error", [DeviceError("scripted"), OSError(28, "No space left on device")])
def test_what_was_copied_before_an_error_is_reported(error: Exception) -> None:
    def fail(done: int) -> None:
        if done == 5000:
            raise error

    target = ScriptedTarget("a", DATA, script=fail)
    with CopyJobs() as queue:
        result = finished(queue, WHOLE, [CopyDestination(target)], piece_size=1000)
    assert result.destinations[0].copied == 5000
    assert result.destinations[0].error is error
    assert not result.cancelled


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_bug_of_a_target_or_callback_does_not_hang_anybody(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(done: int) -> None:
        raise kind("a bug")

    def fail_too(result: JobResult) -> None:
        raise kind("another")

    target, other = ScriptedTarget("a", DATA, script=fail), ScriptedTarget("b", DATA)
    with CopyJobs(1) as queue:
        result = finished(queue, WHOLE, [CopyDestination(target), CopyDestination(other)], on_done=fail_too)
        assert isinstance(result.destinations[0].error, kind)
        assert other.received == DATA
        assert finished(queue, WHOLE, [CopyDestination(ScriptedTarget("c", DATA))]).destinations[0].error is None
    assert [record.message.partition(":")[0] for record in caplog.records] == ["bug", "bug"]


def test_a_target_that_cannot_tell_its_end() -> None:
    class Broken(ScriptedTarget):
        def end(self) -> int:
            raise DeviceError("scripted")

    with CopyJobs() as queue:
        result = finished(queue, WHOLE, [CopyDestination(Broken("a", DATA))])
    assert isinstance(result.destinations[0].error, DeviceError)
    assert result.destinations[0].offset is None
    assert result.destinations[0].copied == 0


def test_progress_grows() -> None:
    target = ScriptedTarget("a", DATA)
    seen: list[tuple[int, ...]] = []
    begun = threading.Event()
    with CopyJobs(1) as queue:

        def script(done: int) -> None:
            begun.wait(PATIENCE)
            seen.append(job.progress)

        target.script = script
        job = queue.submit(WHOLE, [CopyDestination(target)], piece_size=16_000)
        begun.set()
    assert seen == [(0,), (16_000,), (32_000,), (48_000,)]
    assert job.progress == (64_000,)

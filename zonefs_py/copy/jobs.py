"""Copies in the background: a queue of jobs and the threads that work it off. What dm-kcopyd is to the kernel.

A job copies one source to up to eight destinations, piece by piece. Jobs to the same file run in the order in which
they were queued, others at the same time. How bytes get from one file to another is the business of a `CopyTarget`:
the file system's own copy, copy_file_range(2) on a mount, or anything else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from zonefs_py.copy.schedule import MAX_DESTINATIONS, DestinationResult, JobState, Piece, Throttle, in_turn
from zonefs_py.errors import InvalidRequest, ZonefsError
from zonefs_py.units import MIB

log = logging.getLogger(__name__)

PIECE_SIZE = 16 * MIB
"""Bytes of the largest piece: after each, a cancelled job stops."""

WORKERS = 2


class CopySource(NamedTuple):
    """*length* bytes at *offset* of an open file; *handle* is what the targets know it by."""

    handle: int
    offset: int
    length: int


class CopyTarget(Protocol):
    """A file that can be copied to."""

    @property
    def name(self) -> str:
        """What a user calls it."""

    @property
    def key(self) -> Hashable:
        """Equal for targets that are the same file."""

    @property
    def block_size(self) -> int:
        """Pieces are multiples of this, but for the last."""

    def end(self) -> int:
        """Return where an append goes: a sequential file's write pointer. Raises ZonefsError, OSError."""

    def copy(self, source: int, source_offset: int, offset: int, length: int) -> int:
        """Copy up to *length* bytes of the open file *source* to *offset*; return how many, 0 at the source's end.

        Raises ZonefsError, OSError, and then nothing that it would have to count was copied.
        """


class CopyDestination(NamedTuple):
    """Where to copy to: an offset in a target, or its end (None)."""

    target: CopyTarget
    offset: int | None = None


@dataclass(frozen=True)
class JobResult:
    """What became of a job, by destination in the order in which they were given.

    ``cancelled`` is true only if something was left to copy.
    """

    cancelled: bool
    destinations: tuple[DestinationResult, ...]


class CopyJob:
    """A queued job, made by `CopyJobs.submit`. Every method may be called in any thread."""

    def __init__(
        self,
        source: CopySource,
        destinations: tuple[CopyDestination, ...],
        state: JobState,
        changed: threading.Condition,
        clock: Callable[[], float],
        on_done: Callable[[JobResult], None] | None,
    ) -> None:
        self.source = source
        self.destinations = destinations
        self.files = frozenset(destination.target.key for destination in destinations)
        """The keys of the targets."""
        self.on_done = on_done
        self.state = state
        """Guarded by the queue's lock, as are the following."""
        self.busy = False
        """Whether a worker has the job."""
        self.result: JobResult | None = None
        """None until the job is over and its callback has returned."""
        self._changed = changed
        self._clock = clock

    @property
    def progress(self) -> tuple[int, ...]:
        """Bytes copied so far, by destination."""
        with self._changed:
            return self.state.progress

    @property
    def throttle(self) -> int | None:
        """Bytes per second, of all destinations together; None: as fast as it goes."""
        with self._changed:
            return self.state.throttle.rate

    def set_throttle(self, rate: int | None) -> None:
        """Change the throttle, at once. Raises InvalidRequest for a rate that is not above 0."""
        with self._changed:
            self.state.throttle.set_rate(rate, self._clock())
            self._changed.notify_all()

    def cancel(self) -> None:
        """Let the job end after the piece that is being copied. What was copied stays, and is in the result."""
        with self._changed:
            self.state.cancelled = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> JobResult | None:
        """Wait until the job is over and its callback has returned; return the result, None after *timeout* seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.result is not None, timeout)
            return self.result


class CopyJobs:
    """The queue. Use it as a context manager, or `close` it."""

    def __init__(
        self,
        workers: int = WORKERS,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        """*workers* pieces are copied at the same time.

        *clock* gives seconds; *wait* waits, with the condition's lock held, until the condition is notified or so many
        seconds of that clock have passed.
        """
        self._clock = clock
        self._wait = wait
        self._changed = threading.Condition()
        """Its lock guards everything below, and the state of every job. Never held during I/O or a callback."""
        self._jobs: list[CopyJob] = []
        """Those that are not over, oldest first."""
        self._closed = False
        self._workers = [
            threading.Thread(target=self._work, name=f"copy{number}", daemon=True) for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def submit(
        self,
        source: CopySource | None,
        destinations: Sequence[CopyDestination],
        *,
        throttle: int | Throttle | None = None,
        piece_size: int = PIECE_SIZE,
        on_done: Callable[[JobResult], None] | None = None,
    ) -> CopyJob:
        """Queue a copy of *source* to all *destinations*, *throttle* bytes per second at most in all; return its job.

        A `Throttle` in place of a number is shared with the other jobs of this queue that were given it.

        *on_done* is called once, in a worker's thread, when the job is over, however it ended; the next job to the
        same file starts when it has returned. An error of one destination does not stop the others. Raises
        InvalidRequest: no source or destination, more than eight or the same one twice, a number out of range,
        closed.
        """
        checked = tuple(destinations)
        source = self._check(source, checked)
        if piece_size <= 0:
            raise InvalidRequest(f"pieces of {piece_size} bytes")
        state = JobState(
            source.length,
            [destination.target.name for destination in checked],
            [destination.target.block_size for destination in checked],
            [destination.offset for destination in checked],
            piece_size,
            throttle if isinstance(throttle, Throttle) else Throttle(throttle),
        )
        job = CopyJob(source, checked, state, self._changed, self._clock, on_done)
        with self._changed:
            if self._closed:
                raise InvalidRequest("the queue of copies is closed")
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    @staticmethod
    def _check(source: CopySource | None, destinations: tuple[CopyDestination, ...]) -> CopySource:
        if source is None:
            raise InvalidRequest("a copy without a source")
        if not destinations:
            raise InvalidRequest("a copy without a destination")
        if len(destinations) > MAX_DESTINATIONS:
            raise InvalidRequest(f"a copy to {len(destinations)} destinations: at most {MAX_DESTINATIONS}")
        if source.offset < 0 or source.length < 0:
            raise InvalidRequest(f"copy of {source.length} bytes from {source.offset}")
        files = set()
        for target, offset in destinations:
            if offset is not None and offset < 0:
                raise InvalidRequest(f"{target.name}: copy to {offset}")
            if target.key in files:
                raise InvalidRequest(f"{target.name}: twice a destination of the same copy")
            files.add(target.key)
        return source

    def close(self, *, cancel: bool = False) -> None:
        """Wait for all jobs, or *cancel* them, and end the workers. Not to be called by a callback."""
        with self._changed:
            self._closed = True
            jobs = list(self._jobs) if cancel else []
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    # What the workers do

    def _work(self) -> None:
        while (turn := self._next_turn()) is not None:
            job, piece = turn
            if piece is None:
                self._finish(job)
            else:
                self._copy(job, piece)

    def _next_turn(self) -> tuple[CopyJob, Piece | None] | None:
        """Wait for a job that can go on; return it, busy, and its next piece. None when all is over."""
        with self._changed:
            while self._jobs or not self._closed:
                now = self._clock()
                soonest: float | None = None
                for number in in_turn(job.files for job in self._jobs):
                    job = self._jobs[number]
                    if job.busy:
                        continue
                    due = job.state.due(now)
                    if due <= now:
                        job.busy = True
                        return job, job.state.take(now)
                    soonest = due if soonest is None else min(soonest, due)
                self._wait(self._changed, None if soonest is None else soonest - now)
        return None

    def _copy(self, job: CopyJob, piece: Piece) -> None:
        target = job.destinations[piece.destination].target
        start = job.state.offset(piece.destination)
        copied = 0
        error: BaseException | None = None
        try:
            if start is None:
                start = target.end()
            copied = target.copy(job.source.handle, job.source.offset + piece.done, start + piece.done, piece.length)
            assert 0 <= copied <= piece.length, f"{target.name}: {copied} of {piece.length} bytes copied"
        except (ZonefsError, OSError) as exc:
            error = exc
        except BaseException as exc:
            # A bug of the target's, or SystemExit, which would end this thread without a word. Whoever waits for this
            # job must hear of it, and the other jobs go on.
            log.exception("bug: %s: copy failed", target.name)
            error = exc
        with self._changed:
            if start is not None:
                job.state.started(piece.destination, start)
            if error is None:
                job.state.copied(piece, copied, self._clock())
            else:
                job.state.failed(piece, error, self._clock())
            job.busy = False
            self._changed.notify_all()

    def _finish(self, job: CopyJob) -> None:
        with self._changed:
            result = JobResult(job.state.cut_short, job.state.results)
        try:
            if job.on_done is not None:
                job.on_done(result)
        except BaseException:
            # Whose callback it is cannot be told: the queue is not ours alone. Not even SystemExit ends this thread.
            log.exception("bug: the callback of a copy failed")
        with self._changed:
            self._jobs.remove(job)
            job.result = result
            self._changed.notify_all()

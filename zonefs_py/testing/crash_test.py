"""Crash tests of users' programs: a workload on a mount, and a check of what each power cut could leave of it.

The workload runs once, on a device in memory that records. Then every state that a power cut can leave is mounted, or a
sample of them, and the check looks at it. Nothing is left behind: neither mounts nor processes nor files.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from zonefs_py.config import MountOptions
from zonefs_py.errors import UserError, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.testing.calls import Call
from zonefs_py.testing.crash_states import CrashState, CrashStates, StateId
from zonefs_py.testing.ending import end_on_sigterm, take_no_notice, undisturbed
from zonefs_py.testing.image import DeviceImage, open_image
from zonefs_py.testing.recorder import RecordingDevice
from zonefs_py.testing.served import die_with, served

OUTPUT_LIMIT = 4000
"""Bytes of what a failed command has printed that are shown: the last ones."""

_NONE_FAILED = 1 << 62


@dataclass(frozen=True)
class CrashTest:
    """What to run. Both commands are the shell's; they find the mount point in ZONEFS_MNT."""

    workload: str
    check: str
    base: DeviceImage
    options: MountOptions
    timeout: float
    """Seconds that one check may take."""


class Recording(NamedTuple):
    """What a workload did. ``printed[n]`` is how many bytes of *output* there were when call *n* was issued."""

    calls: list[Call]
    output: bytes
    printed: dict[int, int]

    def output_before(self, call: int) -> bytes:
        """What the workload had certainly printed when it issued call number *call*; all, if that is none."""
        if call >= len(self.calls):
            return self.output
        known = (length for number, length in self.printed.items() if number <= call)
        return self.output[: max(known, default=0)]


class Selected(NamedTuple):
    """A state to visit, and what the workload had printed by then."""

    state: CrashState
    output: bytes


class Failure(NamedTuple):
    """A state that did not pass; *place* is where it is among those that were to be visited."""

    place: int
    reason: str
    output: str


class _Output:
    """Takes what the workload prints, and remembers how much that was at each call of the device."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()
        """Guards the reading end, and what was read."""
        self.data = bytearray()
        self.printed: dict[int, int] = {}
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def start(self) -> None:
        """Keep on reading, so that a workload that prints much does not wait."""
        self._thread.start()

    def before_call(self, number: int) -> None:
        """Take note of what was printed before call *number*."""
        with self._lock:
            self._drain()
            self.printed[number] = len(self.data)

    def finish(self) -> None:
        """Read what is left."""
        with self._lock:
            self._drain()

    def _drain(self) -> bool:
        """Read all there is; return whether more may come."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 1 << 16):
                self.data += data
            return False
        return True

    def _read_on(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            more = True
            while more:
                selector.select()
                with self._lock:
                    more = self._drain()


def record(test: CrashTest, directory: Path) -> Recording:
    """Run the workload on a new device that holds ``test.base``. *directory* is for our files.

    Raises UserError if the workload fails, MountError.
    """
    mountpoint = directory / "mnt"
    mountpoint.mkdir()
    result = directory / "recording"
    reader, writer = os.pipe()
    kept: list[tuple[RecordingDevice, _Output]] = []

    def make() -> Filesystem:
        os.close(writer)
        output = _Output(reader)
        output.start()
        device = RecordingDevice(open_image(test.base), output.before_call)
        kept.append((device, output))
        return Filesystem(device, test.options)

    def finish() -> None:
        device, output = kept[0]
        output.finish()
        result.write_bytes(pickle.dumps((device.calls, bytes(output.data), output.printed)))

    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reader)
        ours = stack.enter_context(open(writer, "wb"))
        stack.enter_context(served(make, str(mountpoint), finish))
        with _started(test.workload, _environment(mountpoint), ours) as process:
            ours.close()
            status = process.wait()
    recording = Recording(*pickle.loads(result.read_bytes()))
    if status:
        said = recording.output[-OUTPUT_LIMIT:].decode(errors="replace").strip()
        raise UserError(f"the workload failed ({_how(status)}); it printed: {said or 'nothing'}")
    return recording


def _environment(mountpoint: Path) -> dict[str, str]:
    # What a Python program has printed must be out when its next write comes.
    return {**os.environ, "ZONEFS_MNT": str(mountpoint), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def _started(
    command: str, environment: dict[str, str], stdout: IO[bytes], stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command of the shell; at the end of the block it is ended, and all that it has started."""
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        yield process
    finally:
        with undisturbed():
            if process is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def select(test: CrashTest, recording: Recording, limit: int, seed: int) -> tuple[list[Selected], int]:
    """Return the states to visit, *limit* at most, in their order; and how many there are.

    States that neither the file system nor the workload's output tells apart are visited once. Where there are too many
    the crash points with few states are visited whole, and of the others a sample is drawn by *seed*.
    """
    counts = [point.count for point in CrashStates(test.base, recording.calls)]
    low, high = 1, min(max(counts), limit)
    best = _distinct(test, recording, high, seed, limit)
    if len(best) > limit:
        # The largest share of each crash point with which they are not too many.
        best = _distinct(test, recording, low, seed, len(counts))
        while low < high:
            middle = (low + high + 1) // 2
            found = _distinct(test, recording, middle, seed, limit)
            if len(found) <= limit:
                low, best = middle, found
            else:
                high = middle - 1
    if len(best) > limit:
        # Not even one for each call: some calls in between are left out.
        best = [best[place * len(best) // limit] for place in range(limit)]
    return best, sum(counts)


def _distinct(test: CrashTest, recording: Recording, per_point: int, seed: int, enough: int) -> list[Selected]:
    """Return the different states among *per_point* of each crash point; no more when there are more than *enough*."""
    selected: list[Selected] = []
    seen = set()
    for point in CrashStates(test.base, recording.calls):
        output = recording.output_before(point.number)
        for outcome in point.outcomes(per_point, seed):
            state = point.state(outcome)
            if (key := (state.key, len(output))) not in seen:
                seen.add(key)
                selected.append(Selected(state, output))
                if len(selected) > enough:
                    return selected
    return selected


def find(test: CrashTest, recording: Recording, id: StateId) -> Selected:
    """Return the state *id*. Raises UserError if the workload has no such state."""
    return Selected(CrashStates(test.base, recording.calls).find(id), recording.output_before(id.call))


def check_one(test: CrashTest, selected: Selected, directory: Path, *, shown: bool = False) -> tuple[str, str] | None:
    """Mount *selected* and let the check look at it. Return why it failed and what it printed, None if it passed.

    *shown*: the check has our terminal, and all the time it wants.
    """
    mountpoint, output = directory / "mnt", directory / "output"
    mountpoint.mkdir(exist_ok=True)
    output.write_bytes(selected.output)
    environment = _environment(mountpoint)
    environment |= {"ZONEFS_OUTPUT": str(output), "ZONEFS_STATE": str(selected.state.id)}
    with tempfile.TemporaryFile(dir=directory) as said:
        try:
            with served(lambda: Filesystem(open_image(selected.state.image), test.options), str(mountpoint)):
                if shown:
                    status = subprocess.run(["/bin/sh", "-c", test.check], env=environment, check=False).returncode
                    return (_how(status), "") if status else None
                problem = _run_check(test, environment, said)
        except ZonefsError as exc:
            problem = f"zonefs: {exc}"
        if problem is None:
            return None
        size = said.seek(0, os.SEEK_END)
        said.seek(max(0, size - OUTPUT_LIMIT))
        return problem, said.read().decode(errors="replace").rstrip()


def _run_check(test: CrashTest, environment: dict[str, str], said: IO[bytes]) -> str | None:
    try:
        with _started(test.check, environment, said, subprocess.STDOUT) as process:
            status = process.wait(test.timeout)
    except subprocess.TimeoutExpired:
        return f"it took more than {test.timeout:g} seconds"
    return _how(status) if status else None


def check_all(
    test: CrashTest, selected: Sequence[Selected], directory: Path, jobs: int, progress: Callable[[int], None]
) -> Failure | None:
    """Let the check look at all states, in *jobs* processes; return the first that fails, None if none does.

    *progress* is called with the number of states that were visited.
    """
    jobs = max(1, min(jobs, len(selected)))
    lowest = mmap.mmap(-1, 8)  # shared with the workers
    lowest[:] = _NONE_FAILED.to_bytes(8, "little")
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    workers = []
    holds: list[int] = []
    try:
        for first in range(jobs):
            # Each has its own: one process only is told of the end of a pipe (`die_with`).
            lifeline, hold = os.pipe()
            holds.append(hold)
            child = os.fork()
            if child == 0:
                for descriptor in (*holds, reader):
                    os.close(descriptor)
                _work(test, selected, directory, range(first, len(selected), jobs), lowest, writer, lifeline)
            os.close(lifeline)
            workers.append(child)
        os.close(writer)
        writer = -1
        return _collect(reader, directory, progress)
    finally:
        for descriptor in (reader, writer, *holds):
            if descriptor >= 0:
                os.close(descriptor)
        # With their lifelines gone they end, and what they have mounted with them.
        for child in workers:
            os.waitpid(child, 0)
        lowest.close()


def _collect(reader: int, directory: Path, progress: Callable[[int], None]) -> Failure | None:
    """Read what workers report until all have ended."""
    failures = []
    bugs = []
    visited = 0
    with open(reader, closefd=False) as lines:
        for line in lines:
            report = json.loads(line)
            if report["bug"]:
                bugs.append(report["problem"])
            elif report["problem"] is not None:
                said = (directory / f"said{report['index']}").read_text()
                failures.append(Failure(report["index"], report["problem"], said))
            visited += 1
            progress(visited)
    if bugs:
        raise RuntimeError(bugs[0])
    return min(failures, default=None)


def _work(
    test: CrashTest,
    selected: Sequence[Selected],
    directory: Path,
    indexes: range,
    lowest: mmap.mmap,
    writer: int,
    lifeline: int,
) -> None:
    """A worker's life. Ends the process."""

    def report(index: int, problem: str | None, *, bug: bool = False) -> None:
        # Short, so that it is written in one piece (pipe(7)): other workers write too.
        text = None if problem is None else problem[:500]
        os.write(writer, json.dumps({"index": index, "problem": text, "bug": bug}).encode() + b"\n")

    index = -1
    try:
        end_on_sigterm()
        signal.signal(signal.SIGINT, take_no_notice)
        die_with(lifeline)
        own = directory / f"worker{indexes.start}"
        own.mkdir()
        for index in indexes:
            if index > int.from_bytes(lowest[:], "little"):
                break
            found = check_one(test, selected[index], own)
            if found is None:
                report(index, None)
                continue
            (directory / f"said{index}").write_text(found[1])
            if index < int.from_bytes(lowest[:], "little"):
                lowest[:] = index.to_bytes(8, "little")
            report(index, found[0])
    except SystemExit:
        pass
    except BaseException as exc:
        report(index, repr(exc), bug=True)
    finally:
        os._exit(0)

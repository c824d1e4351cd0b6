"""Rounds of a mount that is killed, or loses power, under load: what was acknowledged must be there again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.abuse.fsx import Load, promises_of
from tests.abuse.promises import BrokenPromise, Promise, is_mixed
from zonefs_py.config import FormatOptions
from zonefs_py.control.client import ask
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry

KIB = 1024
BLOCK = 4096
GEOMETRY = Geometry(256 * KIB, 192 * KIB, 11, 4, BLOCK, 256 * KIB)
"""cnv/0 to cnv/2, seq/0 to seq/6."""

FIO_SEQUENTIAL, FIO_CONVENTIONAL = "seq/6", "cnv/2"
FIO_SYNC_EVERY = 4
"""Writes between two fsync of fio."""

COMMAND_SECONDS = 60
BAD_WORDS = ("Traceback", " ERROR ", " CRITICAL ")


class Failed(Exception):
    """A round that shows a bug."""


def run_command(*words: str | Path) -> str:
    """Run zonefs-py, which must succeed; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "zonefs_py.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise Failed(f"zonefs-py {' '.join(map(str, words))}: {done.returncode} {done.stderr.strip()}")
    return done.stdout


def daemon_runs(pid: int) -> bool:
    """Whether the process *pid* has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Wait for *condition*; Failed if it does not come true."""
    end = time.monotonic() + COMMAND_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {COMMAND_SECONDS} s for: {what}")
        time.sleep(0.002)


@dataclass
class Totals:
    """What came of some rounds."""

    rounds: int = 0
    operations: int = 0
    verified: int = 0
    """Bytes."""
    lost: int = 0
    """Bytes that were acknowledged but not synced, and are not there: only with a write cache."""
    fio_writes: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    """What was under way when the end came."""

    def __str__(self) -> str:
        struck = ", ".join(f"{count} {name}" for name, count in self.struck.most_common())
        return (
            f"{self.rounds} rounds, {self.operations} operations of zone-fsx and {self.fio_writes} writes of fio"
            f" acknowledged, {self.verified >> 20} MiB verified, {self.lost >> 10} KiB not synced and lost;"
            f" under way at the end: {struck}"
        )


@dataclass
class FioFile:
    """A file that fio writes, each block with its offset and *stamp*, and what was in it before."""

    path: Path
    sequential: bool
    stamp: int
    before: bytes

    def options(self, seed: int) -> list[str]:
        """The job of fio."""
        return [
            f"--name={self.path.parent.name}",
            f"--filename={self.path}",
            f"--size={GEOMETRY.zone_capacity if self.sequential else GEOMETRY.zone_size}",
            "--rw=write" if self.sequential else "--rw=randwrite",
            f"--randseed={seed}",
            "--verify=pattern",
            f"--verify_pattern=0x{self.stamp:016x}%o",
            "--do_verify=0",
            "--verify_state_save=0",
            *("--direct=1", "--thread", "--allow_file_create=0", "--create_on_open=1", "--fallocate=none"),
            *("--ioengine=psync", f"--bs={BLOCK}", f"--fsync={FIO_SYNC_EVERY}"),
            # Slow enough to be interrupted.
            "--thinktime=500",
        ]

    def is_begun(self) -> bool:
        """Whether the first block is written."""
        if self.sequential:
            return bool(self.path.stat().st_size)
        content, stamp = self.path.read_bytes(), self.stamp.to_bytes(8, "big")
        return any(content[at : at + 8] == stamp for at in range(0, len(content), BLOCK))

    def pattern(self, offset: int) -> bytes:
        """What the block at *offset* holds when it is written."""
        return (self.stamp.to_bytes(8, "big") + struct.pack("<Q", offset)) * (BLOCK // 16)

    def check(self, seen: bytes, writes: int, *, volatile: bool) -> None:
        """Raise BrokenPromise unless *seen* is what *writes* acknowledged ones made of it, or one more."""
        name = f"fio's file {self.path.name}"
        # Of those since the last fsync none need be there; the fsync itself may not have come to its end.
        least = max(0, writes - FIO_SYNC_EVERY) if volatile else writes
        done = 0
        for at in range(0, len(seen), BLOCK):
            block, new, old = seen[at : at + BLOCK], self.pattern(at), self.before[at : at + BLOCK]
            if block == new:
                done += 1
            elif self.sequential:
                raise BrokenPromise(f"{name}: the block at {at} is not fio's")
            elif block != old and (volatile or not is_mixed(block, old, new)):
                raise BrokenPromise(f"{name}: the block at {at} never was like that")
        if not least <= done <= writes + 1:
            raise BrokenPromise(f"{name}: {done} blocks are there, of {writes} that were acknowledged")


class Fio:
    """fio writing *files*, each once, until it is through or the mount is gone."""

    def __init__(self, files: list[FioFile], seed: int) -> None:
        self.files = files
        self._process = subprocess.Popen(
            ["fio", "--output-format=json", *(word for file in files for word in file.options(seed))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )

    def is_begun(self) -> bool:
        """Whether it writes all files, or is over."""
        return self._process.poll() is not None or all(file.is_begun() for file in self.files)

    def finish(self) -> list[int]:
        """Wait for its end; return how many writes were acknowledged, by file."""
        output, _ = self._process.communicate(timeout=COMMAND_SECONDS)
        report: dict[str, Any] = json.loads(output[output.index(b"{") :])
        return [job["write"]["io_bytes"] // BLOCK for job in report["jobs"]]

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Rounds:
    """A device in *directory*, and rounds of load on it, each with its end. *say* is given a line now and then."""

    def __init__(self, directory: Path, seed: int, *, volatile: bool, say: Callable[[str], None] = print) -> None:
        self.device = directory / "disk"
        self.mount_point = directory / "mnt"
        self.log = directory / "daemon.log"
        self.volatile = volatile
        self.stack = f"write-cache:{self.device}" if volatile else str(self.device)
        self.totals = Totals()
        self.seed = seed
        self.say = say
        self._chance = random.Random(seed)
        create_device(self.device, GEOMETRY)
        with open_device(self.device) as device:
            format_device(device, FormatOptions())
        self.mount_point.mkdir()

    def mount(self) -> int:
        """Mount, also over a dead mount; return the pid of the daemon."""
        run_command("mount", self.stack, self.mount_point, "-o", f"errors=repair,log={self.log}")
        pid: int = ask(str(self.mount_point), {"request": "ping"})["pid"]
        return pid

    def run(self, rounds: int, longest: int = 150) -> Totals:
        """Do *rounds* rounds of at most *longest* operations. Raises Failed, BrokenPromise, AssertionError."""
        pid = self.mount()
        try:
            promises = promises_of(self.mount_point, lambda name: name not in (FIO_SEQUENTIAL, FIO_CONVENTIONAL))
            for number in range(1, rounds + 1):
                seed = self._chance.getrandbits(32)
                try:
                    pid = self._round(seed, promises, pid, longest)
                except (Exception, KeyboardInterrupt):
                    self.say(f"round {number} of seed {self.seed} (its own seed is {seed}) has failed")
                    raise
                if number % 50 == 0:
                    self.say(f"{time.strftime('%H:%M:%S')} {self.totals}")
            run_command("umount", self.mount_point)
            wait_until("the daemon ends", lambda: not daemon_runs(pid))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["umount", "-l", self.mount_point], check=False, stderr=subprocess.DEVNULL)
            raise
        for line in self.log.read_text().splitlines():
            if any(words in line for words in BAD_WORDS):
                raise Failed(f"{self.log}: {line}")
        return self.totals

    def _round(self, seed: int, promises: dict[str, Promise], pid: int, longest: int) -> int:
        chance = random.Random(seed)
        load = Load(self.mount_point, promises, seed)
        load.signal_at = chance.randint(1, longest)
        fio = self._start_fio(seed, chance)
        try:
            wait_until("fio begins", fio.is_begun)
            killer = threading.Thread(target=self._kill, args=(pid, load.reached, chance.random() * 0.003))
            killer.start()
            try:
                gone = load.go(1_000_000)
            finally:
                load.reached.set()
                killer.join()
            if not gone:
                raise Failed("the mount has survived its daemon")
            writes = fio.finish()
        finally:
            fio.stop()
        wait_until("the daemon ends", lambda: not daemon_runs(pid))
        pid = self.mount()
        self._verify(load, promises)
        for file, acknowledged in zip(fio.files, writes, strict=True):
            file.check(file.path.read_bytes(), acknowledged, volatile=self.volatile)
            self.totals.fio_writes += acknowledged
        self._verify_zones()
        self.totals.rounds += 1
        self.totals.operations += load.run.done - 1
        self.totals.struck[(load.operation.split() or ["", "nothing"])[1]] += 1
        return pid

    def _start_fio(self, seed: int, chance: random.Random) -> Fio:
        sequential, conventional = self.mount_point / FIO_SEQUENTIAL, self.mount_point / FIO_CONVENTIONAL
        os.truncate(sequential, 0)
        stamps = chance.getrandbits(63), chance.getrandbits(63)
        files = [
            FioFile(sequential, True, stamps[0], b""),
            FioFile(conventional, False, stamps[1], conventional.read_bytes()),
        ]
        return Fio(files, seed)

    def _kill(self, pid: int, reached: threading.Event, more: float) -> None:
        reached.wait()
        # Anywhere in an operation, not only at its beginning.
        time.sleep(more)
        os.kill(pid, signal.SIGKILL)

    def _verify(self, load: Load, promises: dict[str, Promise]) -> None:
        for name, promise in promises.items():
            seen = (self.mount_point / name).read_bytes()
            promise.check(seen, load.pending(name), volatile=self.volatile)
            self.totals.verified += len(seen)
            if self.volatile and promise.sequential:
                self.totals.lost += max(0, len(promise.written) - len(seen))
            promise.adopt(seen)

    def _verify_zones(self) -> None:
        """Sizes of files, write pointers of zones, and what lies in the device's directory are one; nothing is open."""
        report = ask(str(self.mount_point), {"request": "report"})["zones"]
        for zone in report:
            if not (zone["file"] or "").startswith("seq"):
                continue
            size = (self.mount_point / zone["file"]).stat().st_size
            below = (self.device / f"seq-{zone['number']:06d}").stat().st_size
            full = size == GEOMETRY.zone_capacity
            condition = "full" if full else "closed" if size else "empty"
            if (
                below != size
                or zone["condition"] != condition
                or (not full and zone["write_pointer"] - zone["start"] != size)
            ):
                raise Failed(f"{zone['file']} has {size} bytes, its zone file {below}; the report says {zone}")

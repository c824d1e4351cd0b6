"""Rounds of a mount that is killed, or loses power, under load: what was acknowledged must be there again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
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
from zonefs_py.control.client import MountControl, ask
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.power_cut import PowerCut, ZoneLoss
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry

KIB = 1024
BLOCK = 4096
GEOMETRY = Geometry(256 * KIB, 192 * KIB, 11, 4, BLOCK, 256 * KIB)
"""cnv/0 to cnv/2, seq/0 to seq/6."""

FIO_SEQUENTIAL, FIO_CONVENTIONAL = "seq/6", "cnv/2"
FIO_SYNC_EVERY = 4
"""Writes between two fsync of fio."""

KILLED, LEFT_DEAD, BY_COMMAND = 0.25, 0.2, 0.1
"""Of rounds with a write cache how many end with the daemon killed; of the others, how many have the power come back
later only, and how many have it cut by ``zonefs-py ctl``, which takes its time, instead of by the client in it."""

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
    endings: Counter[str] = field(default_factory=Counter)
    """How rounds ended."""

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.operations} operations of zone-fsx and {self.fio_writes} writes of fio"
            f" acknowledged, {self.verified >> 20} MiB verified, {self.lost >> 10} KiB not synced and lost;"
            f" ended by {_counted(self.endings)}; under way at the end: {_counted(self.struck)}"
        )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


@dataclass(frozen=True)
class Ending:
    """How a round ends: the power of the mount is cut, with that of it *keep* kept; None: its daemon is killed.

    *dead*: the power comes back when nothing is under way any more. *command*: by the command line.
    """

    keep: str | None = None
    dead: bool = False
    command: bool = False

    @classmethod
    def by_chance(cls, chance: random.Random, *, volatile: bool) -> Ending:
        """Choose one; only a *volatile* device can have its power cut."""
        if not volatile or chance.random() < KILLED:
            return cls()
        seed = f"seed:{chance.getrandbits(32)}"
        keep = chance.choice(("none", "all", seed, seed))
        return cls(keep, chance.random() < LEFT_DEAD, chance.random() < BY_COMMAND)

    def __str__(self) -> str:
        if self.keep is None:
            return "kill -9"
        return f"power-cut --keep {self.keep}{' --dead' if self.dead else ''}"

    @property
    def kind(self) -> str:
        """The same, whatever the seed."""
        return re.sub(r":\d+", "", str(self))


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
    """A device in *directory*, and rounds of load on it, each with its end. *say* is given a line now and then.

    *volatile*: the device has a write cache, so that its power can be cut.
    """

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
        return self._daemon()

    def _daemon(self) -> int:
        pid: int = ask(str(self.mount_point), {"request": "ping"})["pid"]
        return pid

    def run(self, rounds: int, longest: int = 150) -> Totals:
        """Do *rounds* rounds of at most *longest* operations. Raises Failed, BrokenPromise, AssertionError."""
        pid = self.mount()
        try:
            promises = promises_of(self.mount_point, lambda name: name not in (FIO_SEQUENTIAL, FIO_CONVENTIONAL))
            for number in range(1, rounds + 1):
                seed = self._chance.getrandbits(32)
                ending = Ending.by_chance(random.Random(f"ending {seed}"), volatile=self.volatile)
                try:
                    pid = self._round(seed, ending, promises, pid, longest)
                except (Exception, KeyboardInterrupt):
                    self.say(f"round {number} of seed {self.seed} (its own seed is {seed}), {ending}, has failed")
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

    def _round(self, seed: int, ending: Ending, promises: dict[str, Promise], pid: int, longest: int) -> int:
        chance = random.Random(seed)
        load = Load(self.mount_point, promises, seed)
        load.signal_at = chance.randint(1, longest)
        fio = self._start_fio(seed, chance)
        try:
            wait_until("fio begins", fio.is_begun)
            strike = _Strike(ending, self.mount_point, pid, load, chance.random() * 0.003)
            strike.start()
            try:
                gone = load.go(1_000_000)
            finally:
                load.reached.set()
                strike.join()
            if not gone:
                raise Failed("the load has come to its end")
            cut = strike.result()
            writes = fio.finish()
        finally:
            fio.stop()
        if cut is None:
            wait_until("the daemon ends", lambda: not daemon_runs(pid))
            pid = self.mount()
        else:
            self._expect_back(ending, pid)
        # Whoever keeps everything is held to it.
        volatile = self.volatile and ending.keep != "all"
        self._verify(load, promises, cut, volatile=volatile)
        for file, acknowledged in zip(fio.files, writes, strict=True):
            file.check(file.path.read_bytes(), acknowledged, volatile=volatile)
            self.totals.fio_writes += acknowledged
        self._verify_zones()
        self.totals.rounds += 1
        self.totals.endings[ending.kind] += 1
        self.totals.operations += load.run.done - 1
        self.totals.struck[(load.operation.split() or ["", "nothing"])[1]] += 1
        return pid

    def _expect_back(self, ending: Ending, pid: int) -> None:
        """The mount is served by the same daemon as before the power cut, at once, or when told."""
        if ending.dead:
            try:
                os.listdir(self.mount_point)
            except OSError as exc:
                if exc.errno != errno.EIO:
                    raise
            else:
                raise Failed("a mount without power shows files")
            MountControl(self.mount_point).power_on()
        if self._daemon() != pid:
            raise Failed("another daemon serves the mount")

    def _start_fio(self, seed: int, chance: random.Random) -> Fio:
        sequential, conventional = self.mount_point / FIO_SEQUENTIAL, self.mount_point / FIO_CONVENTIONAL
        os.truncate(sequential, 0)
        stamps = chance.getrandbits(63), chance.getrandbits(63)
        files = [
            FioFile(sequential, True, stamps[0], b""),
            FioFile(conventional, False, stamps[1], conventional.read_bytes()),
        ]
        return Fio(files, seed)

    def _verify(self, load: Load, promises: dict[str, Promise], cut: PowerCut | None, *, volatile: bool) -> None:
        """Hold files to their promises, and what the daemon has told about the *cut* to both."""
        zones = self._zones()
        losses = {loss.number: loss.unflushed - loss.kept for loss in cut.zones} if cut is not None else {}
        for name, promise in promises.items():
            seen = (self.mount_point / name).read_bytes()
            pending = load.pending(name)
            promise.check(seen, pending, volatile=volatile)
            if cut is not None and promise.sequential:
                promise.check_lost(seen, pending, losses.get(zones[name]["number"], 0))
            self.totals.verified += len(seen)
            if self.volatile and promise.sequential:
                self.totals.lost += max(0, len(promise.written) - len(seen))
            promise.adopt(seen)

    def _zones(self) -> dict[str, dict[str, Any]]:
        """The zones that are files of their own, by their names."""
        report = ask(str(self.mount_point), {"request": "report"})["zones"]
        return {zone["file"]: zone for zone in report if zone["file"]}

    def _verify_zones(self) -> None:
        """Sizes of files, write pointers of zones, and what lies in the device's directory are one; nothing is open."""
        for name, zone in self._zones().items():
            if not name.startswith("seq"):
                continue
            size = (self.mount_point / name).stat().st_size
            below = (self.device / f"seq-{zone['number']:06d}").stat().st_size
            full = size == GEOMETRY.zone_capacity
            condition = "full" if full else "closed" if size else "empty"
            if (
                below != size
                or zone["condition"] != condition
                or (not full and zone["write_pointer"] - zone["start"] != size)
            ):
                raise Failed(f"{name} has {size} bytes, its zone file {below}; the report says {zone}")


class _Strike(threading.Thread):
    """Ends a round, in the middle of an operation of its *load*."""

    def __init__(self, ending: Ending, mount_point: Path, pid: int, load: Load, more: float) -> None:
        """*more* seconds after the load has come to where it is to end."""
        super().__init__()
        self._ending = ending
        self._mount_point = mount_point
        self._pid = pid
        self._load = load
        self._more = more
        self._cut: PowerCut | None = None
        self._failure: BaseException | None = None

    def run(self) -> None:
        self._load.reached.wait()
        # Anywhere in an operation, not only at its beginning.
        time.sleep(self._more)
        try:
            self._strike()
        except BaseException as exc:
            self._failure = exc
            # What does not end by itself is to be told.
            os.kill(self._pid, signal.SIGKILL)

    def _strike(self) -> None:
        ending = self._ending
        if ending.keep is None:
            os.kill(self._pid, signal.SIGKILL)
            return
        self._load.power_goes.set()
        if ending.command:
            dead = ["--dead"] if ending.dead else []
            words = ("power-cut", "--keep", ending.keep, *dead, "--format", "json")
            zones = json.loads(run_command("ctl", self._mount_point, *words))["zones"]
            self._cut = PowerCut(tuple(ZoneLoss(**zone) for zone in zones))
        else:
            self._cut = MountControl(self._mount_point).power_cut(ending.keep, dead=ending.dead)

    def result(self) -> PowerCut | None:
        """Return what the power cut did, None if there was none; or raise what kept it from being done."""
        if self._failure is not None:
            raise self._failure
        return self._cut

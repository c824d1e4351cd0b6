"""Everything at once on a mount, for long: and the daemon has no more memory or descriptors than in the beginning."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.abuse.rounds import BAD_WORDS, BLOCK, GEOMETRY, Failed, daemon_runs, run_command, wait_until
from zonefs_py.config import FormatOptions
from zonefs_py.control.client import MountControl
from zonefs_py.control.mounts import find_mount
from zonefs_py.control.socket_path import socket_path
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import MountError
from zonefs_py.fs.format import format_device

MIB = 1 << 20
MOST_GROWTH = 5 * MIB
"""Bytes by which the daemon's resident memory may grow after it has warmed up."""
WARM_UP = 2
"""Phases in a daemon's life before its memory and descriptors are held against anything."""
PHASES = 10
"""In the life of a daemon, at least: more where they would last longer than `PHASE_SECONDS`."""
PHASE_SECONDS = 60

EXPECTED = {errno.EIO, errno.EROFS, errno.ENOSPC, errno.EFBIG, errno.EINVAL, errno.EBUSY, errno.ETOOMANYREFS}
"""What programs may be told: faults and remounts are under way. EINVAL: the write pointer has moved by a fault."""

RULES: list[dict[str, Any]] = [
    {"operation": "write", "effect": "fail", "probability": 0.05, "count": None},
    {"operation": "write", "effect": "short", "after": BLOCK, "every": 7, "count": None},
    {"operation": "write", "effect": "fail", "error": "ENOSPC", "every": 5, "count": None},
    {"operation": "flush", "effect": "fail", "every": 3, "count": None},
    {"operation": "copy", "effect": "short", "after": BLOCK, "every": 2, "count": None},
    {"operation": "read", "effect": "fail", "probability": 0.05, "count": None},
    {"operation": "any", "effect": "delay", "milliseconds": 2, "every": 3, "count": None},
    {"operation": "write", "effect": "stuck", "count": 2},
]


class Soak:
    """A device in *directory*, and phases of load on mounts of it. *say* is given a line after each."""

    def __init__(self, directory: Path, seed: int, say: Callable[[str], None] = print) -> None:
        self.device = directory / "disk"
        self.mount_point = directory / "mnt"
        self.log = directory / "daemon.log"
        self.seed = seed
        self.say = say
        self.done: Counter[str] = Counter()
        """How often what was done. Roughly: who counts does not wait for others."""
        self.growth = 0
        """The most bytes by which a daemon grew, at the end of any phase, after it had warmed up."""
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._idle_descriptors: int | None = None
        create_device(self.device, GEOMETRY)
        with open_device(self.device) as device:
            format_device(device, FormatOptions())
        self.mount_point.mkdir()

    # Phases

    def run(self, lives: int, seconds: float) -> None:
        """Do *lives* mounts that live for *seconds* each. Raises Failed."""
        try:
            for life in range(lives):
                self._live(life, seconds)
        except BaseException:
            self._end_by_force()
            raise
        for line in self.log.read_text().splitlines():
            if any(words in line for words in BAD_WORDS):
                raise Failed(f"{self.log}: {line}")

    def _live(self, life: int, seconds: float) -> None:
        phases = max(PHASES, round(seconds / PHASE_SECONDS))
        run_command("mount", self.device, self.mount_point, "-o", f"errors=repair,log={self.log}")
        self.control = MountControl(self.mount_point)
        pid: int = self.control.statistics()["daemon"]["pid"]
        self._expect_descriptors("a fresh mount", self._idle_descriptors)
        self._idle_descriptors = self._daemon()["descriptors"]
        warm: dict[str, int] | None = None
        for phase in range(1, phases + 1):
            self._phase(random.Random(f"{self.seed} {life} {phase}"), seconds / phases)
            if warm is not None:
                self._expect_descriptors(f"phase {phase}", warm["descriptors"])
            now = self._daemon()
            if phase == WARM_UP:
                warm = now
            if warm is not None:
                growth = now["resident"] - warm["resident"]
                self.growth = max(self.growth, growth)
                if growth > MOST_GROWTH:
                    raise Failed(
                        f"the daemon has grown by {growth >> 10} KiB from phase {WARM_UP} to {phase},"
                        f" to {now['resident'] >> 10} KiB"
                    )
            self.say(
                f"{time.strftime('%H:%M:%S')} mount {life + 1}, phase {phase} of {phases}:"
                f" {now['resident'] >> 10} KiB resident, {now['descriptors']} descriptors, {now['threads']} threads;"
                f" {', '.join(f'{count} {name}' for name, count in sorted(self.done.items()))}"
            )
        run_command("umount", self.mount_point)
        wait_until("the daemon ends", lambda: not daemon_runs(pid))

    def _end_by_force(self) -> None:
        self._stop.set()
        with contextlib.suppress(MountError, ProcessLookupError):
            os.kill(MountControl(self.mount_point).statistics()["daemon"]["pid"], signal.SIGKILL)
        subprocess.run(["umount", "-l", self.mount_point], check=False, stderr=subprocess.DEVNULL)

    def _daemon(self) -> dict[str, int]:
        found: dict[str, int] = self.control.statistics()["daemon"]
        return found

    def _expect_descriptors(self, when: str, count: int | None) -> None:
        """Wait until the daemon has as many as it had: the kernel tells of the end of a file a moment later."""
        if count is not None:
            try:
                wait_until(f"{count} descriptors", lambda: self._daemon()["descriptors"] == count)
            except Failed:
                raise Failed(f"{when}: {self._daemon()['descriptors']} descriptors instead of {count}") from None

    def _phase(self, chance: random.Random, seconds: float) -> None:
        self._stop.clear()
        jobs: list[tuple[str, Callable[[random.Random], None]]] = [
            *((f"appends {index}", self._appender(index)) for index in range(4)),
            ("conventional writes", self._write_conventional),
            ("copies", self._copy),
            ("reads", self._read),
            ("faults", self._change_faults),
            ("questions", self._ask),
            ("garbage", self._send_garbage),
            ("remounts", self._remount),
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(name, job, random.Random(chance.getrandbits(64))))
            for name, job in jobs
        ]
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        # Calls that are stuck end with the rules.
        while any(thread.is_alive() for thread in threads):
            self.control.clear_faults()
            for thread in threads:
                thread.join(0.1)
        self.control.clear_faults()
        self.control.ask("remount", errors="repair", read_only=False)
        if self._failures:
            raise Failed(f"{type(self._failures[0]).__name__}: {self._failures[0]}") from self._failures[0]

    def _repeat(self, name: str, job: Callable[[random.Random], None], chance: random.Random) -> None:
        counter = name.rstrip(" 0123456789")
        while not self._stop.is_set():
            try:
                job(chance)
            except OSError as exc:
                if exc.errno not in EXPECTED:
                    self._failures.append(exc)
                    self._stop.set()
            except BaseException as exc:
                self._failures.append(exc)
                self._stop.set()
            else:
                self.done[counter] += 1

    # Jobs

    def _path(self, name: str) -> Path:
        return self.mount_point / name

    def _appender(self, index: int) -> Callable[[random.Random], None]:
        path = self._path(f"seq/{index}")

        def append(chance: random.Random) -> None:
            flags = os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC
            descriptor = os.open(path, flags | (os.O_APPEND if chance.random() < 0.5 else 0))
            try:
                size = os.fstat(descriptor).st_size
                if size == GEOMETRY.zone_capacity:
                    os.ftruncate(descriptor, 0)
                    size = 0
                data = b"".join(block_of(index, size + at) for at in range(0, chance.randint(1, 8) * BLOCK, BLOCK))
                written = os.pwrite(descriptor, data, size)
                end = os.fstat(descriptor).st_size
                if end < size + written:
                    raise Failed(f"{path}: {written} bytes at {size} were acknowledged and are gone")
                if end > size + written:
                    raise Failed(f"{path}: {written} bytes at {size} end at {end}: the kernel had an old size")
                if chance.random() < 0.3:
                    os.fsync(descriptor)
                at = chance.randrange(0, size + written, BLOCK)
                if os.pread(descriptor, BLOCK, at) != block_of(index, at):
                    raise Failed(f"{path}: wrong data at {at}")
            finally:
                os.close(descriptor)

        return append

    def _write_conventional(self, chance: random.Random) -> None:
        with self._path("cnv/0").open("r+b", buffering=0) as stream:
            os.pwrite(stream.fileno(), chance.randbytes(chance.randint(1, 9000)), chance.randrange(200_000))
            if chance.random() < 0.1:
                os.fsync(stream.fileno())

    def _copy(self, chance: random.Random) -> None:
        source = self._path(chance.choice(("cnv/1", "seq/0", "seq/1")))
        target = self._path(chance.choice(("seq/5", "cnv/2")))
        with source.open("rb", buffering=0) as reader, target.open("r+b", buffering=0) as writer:
            offset = os.fstat(writer.fileno()).st_size if target.parent.name == "seq" else 0
            if offset >= GEOMETRY.zone_capacity:
                os.ftruncate(writer.fileno(), 0)
                offset = 0
            length = min(os.fstat(reader.fileno()).st_size, 16 * BLOCK)
            if length:
                os.copy_file_range(reader.fileno(), writer.fileno(), length, 0, offset)

    def _read(self, chance: random.Random) -> None:
        path = self._path(chance.choice(("cnv/0", "seq/0", "seq/1", "seq/5")))
        path.read_bytes()
        os.statvfs(self.mount_point)
        os.listdir(self.mount_point / "seq")

    def _change_faults(self, chance: random.Random) -> None:
        numbers = self.control.add_faults(chance.sample(RULES, chance.randint(1, 3)))
        self._stop.wait(chance.random() * 0.2)
        if chance.random() < 0.5:
            self.control.release_stuck(fail=chance.random() < 0.5)
        try:
            self.control.remove_faults(*numbers)
        except MountError:
            if not self._stop.is_set():
                raise  # else the end of the phase has taken them away

    def _ask(self, chance: random.Random) -> None:
        self.control.ask(chance.choice(("info", "report", "statistics", "why", "list-faults", "copy-limits")))
        self._stop.wait(0.005)

    def _send_garbage(self, chance: random.Random) -> None:
        mount = find_mount(str(self.mount_point))
        assert mount is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(60)
            connection.connect(str(socket_path(mount)))
            connection.sendall(chance.randbytes(chance.randrange(200)) + b"\n")
            if chance.random() < 0.5:
                connection.recv(1000)
        self._stop.wait(0.01)

    def _remount(self, chance: random.Random) -> None:
        try:
            policy = chance.choice(("repair", "repair", "remount-ro"))
            self.control.ask("remount", errors=policy, read_only=chance.random() < 0.1)
            self._stop.wait(0.02)
            self.control.ask("remount", errors="repair", read_only=False)
        except MountError:
            pass  # files are open for writing
        self._stop.wait(0.05)


def block_of(index: int, offset: int) -> bytes:
    """What the block at *offset* of an appender's file holds, whenever it was written."""
    return (index.to_bytes(8, "big") + offset.to_bytes(8, "big")) * (BLOCK // 16)

"""Random calls from a seed: the same ones on every file system that gives the same answers.

What is called depends on the seed and on the sizes that stat gave, which are compared. Calls whose answers are known to
differ and would lead the two file systems to different states are left out: `cases` has them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from typing import IO, TypeVar

from tests.equality import system
from tests.equality.calls import Calls, File
from tests.equality.cases.groups import statvfs
from tests.equality.geometry import AGGR_CNV, GEOMETRIES, MIB, pack_superblock
from tests.equality.subjects import Subject

T = TypeVar("T")

CALLS = 1000
"""In each sequence."""

SLOTS = 6
SEQ_FILES = 6


@dataclass(frozen=True)
class Sequence:
    """A sequence of random calls."""

    seed: int
    geometry: str
    options: str = ""
    features: int = 0
    external: bool = False
    calls: int = CALLS


SEQUENCES = {
    "blocks": Sequence(1, "small"),
    "blocks-again": Sequence(2, "small"),
    "sectors": Sequence(3, "small-sectors"),
    "sectors-again": Sequence(4, "small-sectors"),
    "aggregated": Sequence(5, "small-sectors", features=AGGR_CNV),
    "limits": Sequence(6, "small-limits", "errors=repair"),
    "explicit-open": Sequence(7, "small-limits", "errors=repair,explicit-open"),
    "repair": Sequence(8, "small", "errors=repair", external=True),
    "zone-ro": Sequence(9, "small-sectors", "errors=zone-ro", external=True),
    "zone-offline": Sequence(10, "small", "errors=zone-offline", external=True),
    "remount-ro": Sequence(11, "small", "errors=remount-ro", external=True),
}

LIVE_SEQUENCES = {
    "scsi_debug": {
        "scsi": Sequence(21, "scsi"),
        "scsi-sectors": Sequence(22, "scsi-sectors", "errors=repair,explicit-open"),
    },
    "zns": {
        "zns": Sequence(23, "zns"),
        "zns-explicit-open": Sequence(24, "zns", "errors=repair,explicit-open"),
    },
}
"""What is not recorded, by the kind of device."""


class Random:
    """A generator of its own, so that no version of Python changes what was recorded (splitmix64)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, limit: int) -> int:
        """A number from 0 to *limit* - 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) % (1 << 64)
        word = self._state
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % (1 << 64)
        return (word ^ (word >> 31)) % limit

    def choose(self, choices: tuple[T, ...]) -> T:
        """One of *choices*."""
        return choices[self.below(len(choices))]


class _Sequence:
    """One sequence under way."""

    def __init__(self, t: Calls, sequence: Sequence) -> None:
        self.t = t
        self.sequence = sequence
        self.random = Random(sequence.seed)
        self.slots: list[tuple[File, str] | None] = [None] * SLOTS
        conventional = 1 if sequence.features & AGGR_CNV else 2
        if t.geometry.nr_conventional == 2:
            conventional = 1
        self.seq = tuple(f"seq/{number}" for number in range(SEQ_FILES))
        self.cnv = tuple(f"cnv/{number}" for number in range(conventional))
        self.kinds = tuple(
            kind
            for kind, weight in (
                (self.open, 8),
                (self.close, 5),
                (self.append, 24),
                (self.write, 10),
                (self.flagged_write, 4),
                (self.write_on, 4),
                (self.read, 10),
                (self.seek, 4),
                (self.truncate, 8),
                (self.fsync, 2),
                (self.copy, 6),
                (self.send, 2),
                (self.attributes, 2),
                (self.map, 2),
                (self.stat, 1),
                (self.external, 5 if sequence.external else 0),
                (self.remount, 1),
            )
            for _ in range(weight)
        )

    # Choices

    def file(self) -> str:
        """Mostly sequential files."""
        return self.random.choose(self.seq if self.random.below(5) else self.cnv)

    def slot(self, *, writable: bool = False, seq: bool = False) -> tuple[File, str] | None:
        """An open file, of the kind that is asked for if there is one; None if nothing fits."""
        fitting = [
            slot
            for slot in self.slots
            if slot is not None
            and (not writable or "RDONLY" not in slot[1])
            and (not seq or slot[0].name.startswith("seq"))
        ]
        return fitting[self.random.below(len(fitting))] if fitting else None

    def length(self) -> int:
        """Whole blocks mostly: a few, or many."""
        block = self.t.block
        kind = self.random.below(12)
        if kind == 0:
            return 1 + self.random.below(3 * block)
        if kind == 1:
            return block * (1 + self.random.below(MIB // block))
        if kind == 2:
            return block * (32 + self.random.below(64))
        return block * (1 + self.random.below(16))

    def offset(self, name: str) -> int:
        """Offsets that matter: around the size and the capacity, and others."""
        t, random = self.t, self.random
        size = t.size(name)
        end = size if name.startswith("cnv") else t.geometry.capacity
        return random.choose(
            (
                size,
                size,
                0,
                max(0, size - t.block),
                size + t.block,
                end,
                end + t.block,
                end - t.block,
                t.block * random.below(end // t.block),
                random.below(end),
            )
        )

    # Calls

    def open(self) -> None:
        number = self.random.below(SLOTS)
        self.shut(number)
        flags = self.random.choose(
            (
                "RDWR|DIRECT", "RDWR|DIRECT", "RDWR|DIRECT", "WRONLY|DIRECT", "RDWR|DIRECT|APPEND", "RDONLY", "RDWR",
                "RDONLY|DIRECT", "WRONLY|DIRECT|DSYNC", "RDWR|DIRECT|TRUNC",
            )
        )  # fmt: skip
        file = self.t.open(self.file(), flags)
        if file.fd >= 0:
            self.slots[number] = (file, flags)

    def shut(self, number: int) -> None:
        slot = self.slots[number]
        if slot is not None:
            self.slots[number] = None
            self.t.close(slot[0])

    def close(self) -> None:
        self.shut(self.random.below(SLOTS))

    def append(self) -> None:
        """What usually works: a write at the end of a sequential file."""
        slot = self.slot(writable=True, seq=True)
        if slot is not None:
            file, flags = slot
            size = self.t.size(file.name)
            self.t.pwrite(file, self.before_the_end(file, size) if "APPEND" in flags else size, self.length())

    def write(self) -> None:
        slot = self.slot()
        if slot is not None:
            file, flags = slot
            offset, length = self.offset(file.name), self.length()
            if "APPEND" in flags:
                offset = self.before_the_end(file, offset)
            self.t.pwrite(file, offset, length)

    def flagged_write(self) -> None:
        slot = self.slot(writable=True)
        if slot is not None:
            file, open_flags = slot
            flags = ("DSYNC", "HIPRI", "NOWAIT", "SYNC") + (
                ("APPEND",) if file.name.startswith("seq") and "DIRECT" in open_flags else ()
            )
            rwf, length = self.random.choose(flags), self.length()
            offset = self.offset(file.name) if self.random.below(2) else self.t.size(file.name)
            if "APPEND" in open_flags or rwf == "APPEND":
                offset = self.before_the_end(file, offset)
            self.t.pwrite(file, offset, length, rwf)

    def before_the_end(self, file: File, offset: int) -> int:
        """An offset for a write that appends: what the kernel does at or past the capacity, FUSE cannot know."""
        end = self.t.size(file.name) if file.name.startswith("cnv") else self.t.geometry.capacity
        return min(offset, end - 1)

    def write_on(self) -> None:
        slot = self.slot(writable=True)
        if slot is not None:
            if "APPEND" in slot[1]:
                self.t.lseek(slot[0], 0, os.SEEK_SET)
            self.t.write(slot[0], self.length())

    def read(self) -> None:
        slot = self.slot()
        if slot is not None:
            self.t.pread(
                slot[0], self.offset(slot[0].name), self.length(), self.random.choose(("", "", "", "", "HIPRI"))
            )

    def seek(self) -> None:
        slot = self.slot()
        if slot is not None:
            file, _ = slot
            size = self.t.size(file.name)
            whence = self.random.choose((os.SEEK_SET, os.SEEK_SET, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE))
            offset = min(self.offset(file.name), size)
            self.t.lseek(file, offset - size if whence == os.SEEK_END else offset, whence)

    def truncate(self) -> None:
        slot = self.slot(writable=True)
        by_path = slot is None or self.random.below(3) == 0
        name = self.file() if slot is None or by_path else slot[0].name
        cap = self.t.geometry.capacity
        size = self.random.choose((0, 0, 0, 0, cap, cap, self.t.size(name), self.random.below(cap)))
        if slot is None or by_path:
            self.t.truncate(name, size)
        else:
            self.t.ftruncate(slot[0], size)

    def fsync(self) -> None:
        slot = self.slot()
        if slot is not None:
            self.t.fsync(slot[0])

    def copy(self) -> None:
        """Whole blocks, between files that are open; to a sequential one only without the page cache."""
        source, target = self.slot(), self.slot(writable=True)
        if source is None or target is None:
            return
        if target[0].name.startswith("seq") and "DIRECT" not in target[1]:
            return
        t, block = self.t, self.t.block
        at = self.offset(source[0].name) // 4096 * 4096
        to = self.offset(target[0].name) // block * block if self.random.below(2) else t.size(target[0].name)
        length = 4096 * (1 + self.random.below(40))
        args = [source[0].name, at, target[0].name, to, length]
        fds = (source[0].fd, target[0].fd)
        t.record("copy_file_range", args, os.copy_file_range, *fds, length, at, to, about=target[0])

    def send(self) -> None:
        source, target = self.slot(), self.slot(writable=True)
        if source is None or target is None or target[0].name.startswith("cnv"):
            return
        at = self.offset(source[0].name) // 4096 * 4096
        length = 4096 * (1 + self.random.below(16))
        args = [source[0].name, at, target[0].name, length]
        self.t.record("sendfile", args, os.sendfile, target[0].fd, source[0].fd, at, length, about=target[0])

    def attributes(self) -> None:
        name = self.file()
        if self.random.below(2):
            self.t.on(name, "chmod", self.random.choose((0o600, 0o644, 0o640, 0o6755)))
        else:
            self.t.on(name, "chown", self.random.below(3), self.random.below(3))

    def map(self) -> None:
        slot = self.slot()
        if slot is not None:
            file, _ = slot
            length = min(16384, self.t.size(file.name)) // 4096 * 4096
            if length:

                def call() -> str:
                    address = system.map_file(file.fd, length, mmap.PROT_READ, mmap.MAP_PRIVATE)
                    try:
                        return self.t.digest(system.peek(address, length))
                    finally:
                        system.unmap(address, length)

                self.t.record("mmap", [file.name, length], call)

    def stat(self) -> None:
        self.t.stat(self.file())

    def external(self) -> None:
        """Somebody else changes a zone that holds data, or it breaks; and the next write finds that."""
        number = self.random.below(SEQ_FILES)
        # What a device shows past a write pointer is its own affair: no reset where the old size stays.
        harmless = self.sequence.options == "errors=zone-ro"
        what = self.random.choose(
            ("write", "write", "finish", "finish" if harmless else "reset", "readonly", "offline")
        )
        if what in ("readonly", "offline") and self.random.below(3):
            what = "write"
        name = f"seq/{number}"
        size = self.t.size(name)
        file = self.t.open(name, "RDWR|DIRECT")
        if file.fd >= 0 and 0 < size < self.t.geometry.capacity:
            self.t.external(self.t.geometry.nr_conventional + number, what)
            self.t.pwrite(file, size, self.t.block)
            self.t.snapshot()
        self.t.close(file)

    def remount(self) -> None:
        kind = self.random.below(3)
        if kind == 0:
            self.t.remount("", read_only=True)
            self.t.remount("", read_only=False)
        elif kind == 1:
            self.t.remount("", read_only=False)
        elif self.random.below(3) == 0:
            for number in range(SLOTS):
                self.shut(number)
            options = self.t.subject.options
            self.t.umount()
            self.t.mount(options)

    # The whole

    def check(self) -> None:
        """Compare everything that there is to see."""
        self.t.snapshot()
        for name in (*self.seq, *self.cnv):
            self.t.content(name)
        self.t.counters()
        self.t.record("statvfs", [], lambda: statvfs(self.t))

    def run(self) -> None:
        for step in range(1, self.sequence.calls + 1):
            self.random.choose(self.kinds)()
            if step % 20 == 0:
                self.t.snapshot()
            if step % 250 == 0:
                self.check()


def run(subject: Subject, name: str, sequence: Sequence, out: IO[str]) -> None:
    """Make the calls of one sequence on a new device."""
    geometry = GEOMETRIES[sequence.geometry]
    subject.make(geometry, (), ())
    t = Calls(subject, geometry, out)
    try:
        subject.format(pack_superblock(sequence.features))
        subject.mount(sequence.options)
        t.begin(f"random/{name}")
        _Sequence(t, sequence).run()
    finally:
        t.close_all()
        with contextlib.suppress(OSError):
            subject.umount()
        subject.drop()

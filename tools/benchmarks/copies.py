"""``--copy``: copies of whole zones by every engine, and by what else can copy them.

In each place lie a device and plain files with the same content, on the same file system. All ways take turns.
Everything is on the disk before a copy is measured, and destinations are emptied after it: what is measured is the
copy, not the disk. Every way's first copy is compared with its source and does not count: it meets memory and disk
that nothing has used yet.
"""

from __future__ import annotations

import fcntl
import filecmp
import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.benchmarks.common import MIB, BenchError, Notes, info, mounted, progress, rotated, run
from tools.benchmarks.machine import settle
from tools.benchmarks.places import kind_of, label, place

FICLONE = 0x40049409
"""ioctl(2) of linux/fs.h: share all data of a file."""
WAYS = {
    "reflink": "zonefs-py, copy=reflink",
    "device": "zonefs-py, copy=device",
    "host": "zonefs-py, copy=host",
    "emulate": "zonefs-py, copy=emulate",
    "read+write": "read and write through the mount, O_DIRECT",
    "buffered": "read and write through the mount, page cache",
    "host reflink": "raw file, reflink",
    "host copy": "raw file, copy_file_range",
    "host read+write": "raw file, cp without either",
}
"""Ways to copy. The engines use copy_file_range(2) between two sequential files."""
ENGINES = ("reflink", "device", "host", "emulate")
REPEATS = {"reflink": 5, "host reflink": 5}
"""What takes a fraction of a millisecond is measured more often in each run."""
ROOM = 7
"""Times the size of a copy that a place must hold: sources and destinations of all ways."""


def copy_range(source: Path, destination: Path, *, direct: bool) -> float:
    """Copy all of *source* with copy_file_range; return the seconds it took."""
    reader = os.open(source, os.O_RDONLY)
    writer = os.open(destination, os.O_WRONLY | (os.O_DIRECT if direct else 0))
    try:
        size = os.fstat(reader).st_size
        done = 0
        started = time.perf_counter()
        while done < size:
            copied = os.copy_file_range(reader, writer, size - done, done, done)
            if not copied:
                raise BenchError(f"{source}: the copy stopped after {done} bytes")
            done += copied
        return time.perf_counter() - started
    finally:
        os.close(reader)
        os.close(writer)


def clone(source: Path, destination: Path) -> float:
    """Make *destination* share all data of *source*; return the seconds it took."""
    with source.open("rb") as reader, destination.open("r+b") as writer:
        started = time.perf_counter()
        fcntl.ioctl(writer, FICLONE, reader.fileno())
        return time.perf_counter() - started


def timed(*command: str | Path) -> float:
    """Return how many seconds *command* took."""
    started = time.perf_counter()
    run(*command)
    return time.perf_counter() - started


class Copies:
    """All ways to copy *size* bytes in one directory."""

    def __init__(self, tool: str, directory: Path, size: int) -> None:
        self._tool = tool
        self._size = size
        self._mount_point = directory / "mnt"
        self._device = directory / "disk"
        self._plain = directory / "plain"
        self._other = directory / "other"
        self._methods: list[str] = []
        self.seconds: dict[str, list[float]] = {}
        """All times by way."""

    @property
    def reflinks(self) -> bool:
        """Whether the file system has reflinks."""
        return "reflink" in self._methods

    def prepare(self) -> None:
        """Make the device and fill the sources."""
        zones = ("--zones", "5", "--conventional", "3", "--zone-size", f"{self._size // MIB}M")
        run(self._tool, "create", self._device, *zones)
        run(self._tool, "mkfs", self._device)
        with self._plain.open("wb") as stream:
            for _ in range(self._size // MIB):
                stream.write(os.urandom(MIB))
            stream.flush()
            os.fsync(stream.fileno())
        self._other.touch()
        with mounted(self._tool, self._device, self._mount_point, "copy=auto") as mount:
            for zone in ("cnv/0", "seq/0"):
                run("dd", f"if={self._plain}", f"of={mount / zone}", "bs=1M", "oflag=direct", "conv=notrunc,fsync")
            self._methods = info(self._tool, mount)["capabilities"]["copy_methods"]

    def round(self, turn: int, prefix: str) -> None:
        """Go through all ways once; *prefix* is what progress begins with."""
        steps: list[tuple[str, Callable[[], None]]] = [
            (f"copy={engine}", functools.partial(self._by_engine, engine))
            for engine in ENGINES
            if engine == "emulate" or engine in self._methods
        ]
        steps += [("through the mount", self._through_the_mount), ("the host's own", self._by_host)]
        for name, step in rotated(steps, turn):
            progress(f"{prefix}: {name}")
            step()

    def _by_engine(self, engine: str) -> None:
        with mounted(self._tool, self._device, self._mount_point, f"copy={engine}") as mount:
            destination = mount / "seq/1"
            self._measure(engine, destination, lambda: copy_range(mount / "seq/0", destination, direct=True))
            done = info(self._tool, mount)["copy"]["engines"]
            others = [name for name, counters in done.items() if counters["bytes"] and name != engine]
            if others or not done[engine]["bytes"]:
                raise BenchError(f"copy={engine}: the copy was made by {', '.join(others) or 'nobody'}")

    def _through_the_mount(self) -> None:
        # dd and not cp, which truncates what it writes, and writes it through the page cache.
        with mounted(self._tool, self._device, self._mount_point, "copy=auto") as mount:
            direct = ("bs=1M", "iflag=direct", "oflag=direct", "conv=notrunc", "status=none")
            zones = f"if={mount / 'seq/0'}", f"of={mount / 'seq/1'}"
            self._measure("read+write", mount / "seq/1", lambda: timed("dd", *zones, *direct))
            buffered = ("bs=1M", "conv=notrunc", "status=none")
            files = f"if={mount / 'cnv/0'}", f"of={mount / 'cnv/1'}"
            self._measure("buffered", mount / "cnv/1", lambda: timed("dd", *files, *buffered))
            if any(counters["bytes"] for counters in info(self._tool, mount)["copy"]["engines"].values()):
                raise BenchError("reading and writing through the mount was offloaded after all")

    def _by_host(self) -> None:
        self._measure("host copy", self._other, lambda: copy_range(self._plain, self._other, direct=False))
        if self.reflinks:
            self._measure("host reflink", self._other, lambda: clone(self._plain, self._other))
        self._measure("host read+write", self._other, lambda: timed("cp", "--reflink=never", self._plain, self._other))

    def _measure(self, way: str, destination: Path, copy: Callable[[], float]) -> None:
        """Copy to *destination*, which is empty, note the time, and empty it again."""
        for _ in range(REPEATS.get(way, 1) + (way not in self.seconds)):
            # A reflink needs no memory, and after this the processors have nothing in their caches.
            settle(self._plain, 0 if "reflink" in way else self._size)
            taken = copy()
            if way in self.seconds:
                self.seconds[way].append(taken)
            elif not filecmp.cmp(self._plain, destination, shallow=False):
                raise BenchError(f"{WAYS[way]}: {destination} is no copy of the source")
            else:
                self.seconds[way] = []
            if destination.parent.name != "cnv":
                os.truncate(destination, 0)


def measure_copies(
    tool: str, work: Path, places: list[str], sizes: list[int], runs: int, notes: Notes
) -> dict[str, Any]:
    """Measure in all *places* that can be had; return the result's section ``copy``."""
    rows: list[dict[str, Any]] = []
    for name in places:
        if any(row["place"] == name for row in rows):
            notes.skip(f"copies on {label(name, name)}", f"the directory that was measured is on {name}, too")
            continue
        try:
            rows += _measure_place(tool, work, name, sizes, runs)
        except BenchError as exc:
            notes.skip(f"copies on {name}", exc)
    if not rows:
        raise BenchError("copies could be measured nowhere; see above")
    return {"runs": runs, "rows": rows}


def _measure_place(tool: str, work: Path, name: str, sizes: list[int], runs: int) -> list[dict[str, Any]]:
    rows = []
    with place(name, work, max(sizes) * ROOM + 512 * MIB) as directory:
        for size in sizes:
            inside = directory / str(size)
            inside.mkdir()
            copies = Copies(tool, inside, size)
            copies.prepare()
            for turn in range(runs):
                copies.round(turn, f"copies on {name}, {size // MIB} MiB, run {turn + 1} of {runs}")
            row = {"place": label(name, kind_of(directory)), "size": size, "reflinks": copies.reflinks}
            rows.append(row | {"seconds": copies.seconds})
            shutil.rmtree(inside)
    progress("")
    return rows

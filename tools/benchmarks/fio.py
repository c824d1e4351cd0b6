"""One run of fio: its job file and what it says. Pure but for ``measure``."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks.common import KIB, MIB, BenchError, run

OPERATIONS = {
    "randread": "random read",
    "read": "sequential read",
    "write": "sequential write",
    "mixed": "mixed",
}
DIRECTIONS = {"randread": ("read",), "read": ("read",), "write": ("write",), "mixed": ("read", "write")}
BLOCKS = (4 * KIB, 64 * KIB, MIB)
ENGINES = {"sync": 1, "libaio": 16}
"""Ways to ask, and how many requests of a job are in flight."""
PERCENTILES = {"p50": "50.000000", "p99": "99.000000", "p99.9": "99.900000"}
FILES = 4
"""Files that are read, and as many that are written: one for each job."""


@dataclass(frozen=True)
class Cell:
    """One combination that is measured. In a mixed cell half of the jobs read at random, the others write."""

    operation: str
    block: int
    jobs: int
    engine: str

    @property
    def writes(self) -> bool:
        """Whether zones are written, and so have to be empty."""
        return self.operation in ("write", "mixed")

    def __str__(self) -> str:
        block = f"{self.block // KIB} KiB" if self.block < MIB else f"{self.block // MIB} MiB"
        return f"{OPERATIONS[self.operation]}, {block}, {self.jobs} job{'s' * (self.jobs > 1)}, {self.engine}"


def cells(*, single: bool) -> list[Cell]:
    """All that is measured; with *single* only one request at a time of as few jobs as can be.

    A mixed cell needs more than one job, because a zone is either read or written.
    """
    found = []
    for operation in OPERATIONS:
        fewest = 2 if operation == "mixed" else 1
        for engine in ["sync"] if single else ENGINES:
            for jobs in [fewest] if single else [fewest, FILES]:
                found += [Cell(operation, block, jobs, engine) for block in BLOCKS]
    return found


def job_file(
    cell: Cell,
    read_files: Sequence[Path],
    write_files: Sequence[Path],
    *,
    direct: bool,
    direct_reads: bool,
    size: int,
    seconds: float,
) -> str:
    """Return fio's job file for *cell*.

    Readers stay in one file each, of which they use *size* bytes, for *seconds*. Writers share *write_files* and fill
    one after the other, from its start to *size* bytes, until there is none left or *seconds* are over. A mixed run is
    over as soon as a job is.
    """
    lines = [
        "[global]",
        f"bs={cell.block}",
        f"filesize={size}",
        f"ioengine={'psync' if cell.engine == 'sync' else cell.engine}",
        f"iodepth={ENGINES[cell.engine]}",
        f"runtime={round(seconds * 1000)}ms",
        # A zone file can neither be created nor preallocated nor extended by truncation.
        "allow_file_create=0",
        "create_on_open=1",
        "fallocate=none",
        "zonemode=none",
        "invalidate=0",
        "thread=1",
        "group_reporting=1",
        "disk_util=0",
        # The default is measured first, at every start, for longer than some of our runs last.
        "clocksource=clock_gettime",
        "norandommap=1",
        "randseed=1",
        # From the call to its end: the time in which a buffered request is served counts as submission.
        "clat_percentiles=0",
        "lat_percentiles=1",
        "percentile_list=" + ":".join(name.removeprefix("p") for name in PERCENTILES),
    ]
    if cell.operation == "mixed":
        lines.append("exitall=1")
    readers = {"write": 0, "mixed": cell.jobs // 2}.get(cell.operation, cell.jobs)
    writers = cell.jobs - readers
    for number in range(readers):
        pattern = "read" if cell.operation == "read" else "randread"
        lines += [f"[reader{number}]", f"rw={pattern}", f"size={size}", "time_based=1", f"direct={int(direct_reads)}"]
        lines.append(f"filename={read_files[number]}")
    for number in range(writers):
        mine = write_files[number::writers]
        lines += [f"[writer{number}]", "rw=write", f"size={size * len(mine)}", "file_service_type=sequential"]
        lines.append(f"direct={int(direct)}")
        # A colon separates files.
        lines.append("filename=" + ":".join(str(path).replace(":", r"\:") for path in mine))
    return "\n".join(lines) + "\n"


def parse(printed: str, cell: Cell) -> dict[str, Any]:
    """Return the figures of one run: operations and bytes a second, and latencies in microseconds by direction.

    A direction of a mixed run in which nothing came to its end has no latency. Raises BenchError for an error that fio
    met, or if nothing at all was done.
    """
    job = json.loads(printed[printed.index("{") :])["jobs"][0]
    if job["error"]:
        raise BenchError(f"fio: {os.strerror(job['error'])}")
    done: dict[str, Any] = {"operations_per_second": 0.0, "bytes_per_second": 0.0, "latency_us": {}}
    for direction in DIRECTIONS[cell.operation]:
        part = job[direction]
        if not part["total_ios"]:
            continue
        done["operations_per_second"] += part["iops"]
        done["bytes_per_second"] += part["iops"] * cell.block
        percentiles = part["lat_ns"]["percentile"]
        done["latency_us"][direction] = {name: percentiles[key] / 1000 for name, key in PERCENTILES.items()}
    if not done["latency_us"]:
        raise BenchError("fio: no request came to its end")
    return done


def measure(job: str, cell: Cell) -> dict[str, Any]:
    """Run fio with the job file *job*. Raises BenchError."""
    with tempfile.NamedTemporaryFile("w", suffix=".fio") as file:
        file.write(job)
        file.flush()
        return parse(run("fio", "--output-format=json", file.name), cell)

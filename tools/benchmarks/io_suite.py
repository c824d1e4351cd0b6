"""``--io``: fio on the mount, on raw files beside its device, and on peers, taking turns."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.benchmarks.common import (
    MIB,
    BenchError,
    Notes,
    check_room,
    host_filesystem,
    mounted,
    progress,
    rotated,
)
from tools.benchmarks.common import run as run_program
from tools.benchmarks.fio import FILES, Cell, cells, job_file, measure
from tools.benchmarks.machine import settle
from tools.benchmarks.targets import (
    Peer,
    Target,
    capacity,
    empty,
    fill,
    our_target,
    passthrough_offered,
    passthrough_works,
    peer_target,
    raw_target,
    remove,
)


@dataclass(frozen=True)
class IoOptions:
    """How much is measured."""

    runs: int
    zone_size: int
    seconds: float
    single: bool
    peers: tuple[Peer, ...] = ()
    kernel_device: Path | None = None
    our_device: Path | None = None


def memory_directory(room: int) -> Path | None:
    """A file system in memory that holds *room* bytes: what is measured is the software, not a disk."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK) or host_filesystem(place) != "tmpfs":
        return None
    # Half of it stays free: the pages of peers and daemons are memory too.
    return place if shutil.disk_usage(place).free >= 2 * room else None


def room_needed(options: IoOptions, targets: int) -> int:
    """Bytes for the files that are read at all targets, and those that are written at one after the other."""
    return (targets + 1) * FILES * options.zone_size + 64 * MIB


def measure_io(tool: str, work: Path, options: IoOptions, notes: Notes) -> dict[str, Any]:
    """Measure all cells in all targets; return the result's section ``io``. Raises BenchError."""
    check_room(work, room_needed(options, 2 + passthrough_offered(tool)))
    with contextlib.ExitStack() as stack:
        targets = [raw_target(work), *_our_targets(tool, work, options, stack, notes)]
        try:
            targets += _device_targets(tool, work, options, stack, notes)
            others = len(targets)
            targets += [peer_target(peer, others + number) for number, peer in enumerate(options.peers)]
            capacities = [size for target in targets if (size := capacity(target)) is not None]
            size = min(options.zone_size, *capacities) // MIB * MIB
            if not size:
                raise BenchError("the zones of a peer hold less than 1 MiB")
            found = _measure_cells(targets, work, options, size)
        finally:
            for target in targets:
                remove(target)
    return {
        "runs": options.runs,
        "seconds": options.seconds,
        "file_bytes": size,
        "filesystem": host_filesystem(work),
        "targets": [target.described() for target in targets],
        "cells": found,
    }


def _our_targets(tool: str, work: Path, options: IoOptions, stack: contextlib.ExitStack, notes: Notes) -> list[Target]:
    """Mount a device without passthrough and, if the program and the machine have it, another one with it."""
    offered = passthrough_offered(tool)
    device, mount_point = _make_device(tool, work, "ours", options), work / "mnt-ours"
    stack.enter_context(mounted(tool, device, mount_point, *(["passthrough=off"] if offered else [])))
    targets = [our_target(mount_point, "ours")]
    if not offered:
        notes.skip("passthrough", "this version of zonefs-py has no mount option passthrough=")
        return targets
    device, mount_point = _make_device(tool, work, "passthrough", options), work / "mnt-passthrough"
    try:
        with contextlib.ExitStack() as attempt:
            attempt.enter_context(mounted(tool, device, mount_point, "passthrough=on"))
            if not passthrough_works(tool, mount_point):
                raise BenchError("it is not in use on this mount; it needs Linux 6.9 and CAP_SYS_ADMIN")
            targets.append(our_target(mount_point, "passthrough"))
            stack.push(attempt.pop_all())
    except BenchError as exc:
        notes.skip("passthrough", exc)
    return targets


def _device_targets(
    tool: str, work: Path, options: IoOptions, stack: contextlib.ExitStack, notes: Notes
) -> list[Target]:
    """Format the zoned block devices that were named, and mount them. Raises BenchError."""
    found: list[Target] = []
    if options.our_device is not None:
        try:
            run_program(tool, "mkfs", "-f", options.our_device)
            mount_point = stack.enter_context(mounted(tool, options.our_device, work / "mnt-our-device"))
            found.append(our_target(mount_point, "device"))
        except BenchError as exc:
            notes.skip(f"zonefs-py on {options.our_device}", exc)
    if options.kernel_device is not None:
        # The formats are the same, so the superblock of our device is right for any other.
        superblock = f"if={work / 'disk-ours' / 'cnv-000000'}"
        run_program("blkzone", "reset", options.kernel_device)
        run_program("dd", superblock, f"of={options.kernel_device}", "bs=4096", "count=1", "oflag=direct")
        mount_point = work / "mnt-kernel"
        mount_point.mkdir()
        run_program("mount", "-t", "zonefs", options.kernel_device, mount_point)
        stack.callback(run_program, "umount", mount_point)
        found.append(peer_target(Peer(mount_point), 0))
    return found


def _make_device(tool: str, work: Path, name: str, options: IoOptions) -> Path:
    device = work / f"disk-{name}"
    zones = ("--zones", str(2 * FILES + 1), "--conventional", "1", "--zone-size", f"{options.zone_size // MIB}M")
    run_program(tool, "create", device, *zones)
    run_program(tool, "mkfs", device)
    return device


def _measure_cells(targets: list[Target], work: Path, options: IoOptions, size: int) -> list[dict[str, Any]]:
    for target in targets:
        progress(f"{target.label}: filling files")
        # Written once too is what will be written: memory and disk that nothing ever used are slower the first time.
        for path in target.files:
            fill(path, size, direct=target.direct)
        for path in target.write_files:
            empty(path)
    wanted = cells(single=options.single)
    found: list[dict[str, Any]] = []
    for number, cell in enumerate(wanted):
        runs: dict[str, list[dict[str, Any]]] = {target.name: [] for target in targets if target.has(cell)}
        for turn in range(options.runs):
            percent = (number * options.runs + turn) * 100 // (len(wanted) * options.runs)
            progress(f"{cell}, run {turn + 1} of {options.runs} ({percent} %)")
            for target in rotated([target for target in targets if target.has(cell)], turn):
                runs[target.name].append(_measure_target(cell, target, work, options, size))
        described = {"operation": cell.operation, "block": cell.block, "jobs": cell.jobs, "engine": cell.engine}
        found.append({**described, "runs": runs})
    progress("")
    return found


def _measure_target(cell: Cell, target: Target, work: Path, options: IoOptions, size: int) -> dict[str, Any]:
    if cell.writes:
        for path in target.write_files:
            empty(path)
        settle(work, size * len(target.write_files))
    job = job_file(
        cell,
        target.read_files,
        target.write_files,
        direct=target.direct,
        direct_reads=cell.engine in target.direct_reads,
        size=size,
        seconds=options.seconds,
    )
    try:
        figures = measure(job, cell)
    except BenchError as exc:
        raise BenchError(f"{target.label}: {cell}: {exc}") from None
    if cell.writes:
        for path in target.write_files:
            empty(path)
    return figures

"""The command line of tools/bench."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.benchmarks import machine, publish, tables, vm
from tools.benchmarks.common import GIB, MIB, ROOT, BenchError, Notes, environment, say
from tools.benchmarks.copies import measure_copies
from tools.benchmarks.io_suite import IoOptions, measure_io, memory_directory, room_needed
from tools.benchmarks.places import PLACES
from tools.benchmarks.scale import SMALLEST, measure_scale
from tools.benchmarks.targets import parse_peer

SUITES = ("io", "copy", "scale")
SUFFIXES = {"M": MIB, "G": GIB}
DESCRIPTION = """\
Measure zonefs-py, write figures, tables and plots, and put them into the documents.

  --io     fio on a mount beside raw files and, with --peer, beside other mounts
  --copy   copies of whole zones by each engine, beside reading and writing, and the host's own copies
  --scale  devices with many zones: time and memory

Every figure is measured several times, everything in turn; shown are medians, and ratios with their spread.
docs/performance.md says how, and how to read the result.
"""


def sizes(text: str) -> list[int]:
    """Parse ``256M,1G``. Raises ValueError."""
    found = [int(word[:-1]) * SUFFIXES[word[-1:]] if word[-1:] in SUFFIXES else 0 for word in text.upper().split(",")]
    if min(found) <= 0:
        raise ValueError(text)
    return sorted(set(found))


def counts(text: str) -> list[int]:
    """Parse ``1000,100000``. Raises ValueError."""
    found = [int(word) for word in text.split(",")]
    if min(found) <= SMALLEST:
        raise ValueError(text)
    return sorted(set(found))


def places(text: str) -> list[str]:
    """Parse ``directory,xfs``. Raises ValueError."""
    found = text.split(",")
    if not set(found) <= set(PLACES):
        raise ValueError(text)
    return found


def positive(text: str) -> int:
    """Parse a number of at least 1. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="tools/bench", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for suite in SUITES:
        found.add_argument(f"--{suite}", action="store_true", help="measure this")
    found.add_argument("--all", action="store_true", help="measure all three (so without any of them)")
    found.add_argument("--vm", action="store_true", help="measure beside kernel zonefs, in the machine of tools/vm")
    found.add_argument("--quick", action="store_true", help="short and rough: one run of everything")
    found.add_argument("--runs", type=positive, metavar="N", help="how often each figure is measured (3)")
    found.add_argument(
        "--peer",
        type=parse_peer,
        action="append",
        default=[],
        metavar="[NAME=]MOUNTPOINT",
        help="with --io: measure this mount too; a zonefs (its first 8 sequential files must be empty), or any other",
    )
    found.add_argument(
        "--kernel-device",
        type=Path,
        metavar="DEVICE",
        help="with --io: format this zoned block device and measure kernel zonefs on it; its data is lost",
    )
    found.add_argument(
        "--our-device",
        type=Path,
        metavar="DEVICE",
        help="with --io: format this zoned block device and measure zonefs-py on it; its data is lost",
    )
    found.add_argument(
        "--single", action="store_true", help="with --io: only one request at a time, of as few jobs as can be"
    )
    found.add_argument("--small", action="store_true", help="with --io: zones of 64 MiB instead of 256 MiB")
    found.add_argument("--sizes", type=sizes, metavar="SIZE[,...]", help="with --copy: of zones (256M,1G)")
    found.add_argument("--places", type=places, metavar="NAME[,...]", help=f"with --copy: where ({','.join(PLACES)})")
    found.add_argument("--zones", type=counts, metavar="N[,...]", help="with --scale (1000 to 100000)")
    found.add_argument(
        "--directory",
        type=Path,
        help="where devices and files are made (--io: in memory, if /dev/shm has room; else a temporary directory)",
    )
    found.add_argument(
        "--out", type=Path, metavar="DIR", default=ROOT / "logs/bench", help="where results go (logs/bench)"
    )
    found.add_argument("--warning", metavar="TEXT", help="record this with the result, as what makes it doubtful")
    found.add_argument("--command", help="the zonefs-py to measure (that of .venv, which is made if it is missing)")
    found.add_argument(
        "--publish",
        action="store_true",
        help="put the result into README.md and docs/performance.md; measures nothing unless told what",
    )
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``suites`` is what to measure. Leaves with status 2 if it makes no sense."""
    options = parser()
    found = options.parse_args(arguments)
    found.out = found.out.resolve()
    found.suites = [suite for suite in SUITES if getattr(found, suite) or found.all]
    if found.vm and found.suites:
        options.error("--vm measures in the machine only; run it by itself")
    if not found.suites and not found.publish and not found.vm:
        found.suites = list(SUITES)
    belongs = {
        "io": ("peer", "kernel_device", "our_device", "single", "small"),
        "copy": ("sizes", "places"),
        "scale": ("zones",),
    }
    for suite, names in belongs.items():
        for name in names:
            if getattr(found, name) and suite not in found.suites:
                options.error(f"--{name.replace('_', '-')} belongs to --{suite}, which is not measured")
    for option in ("runs", "quick", "directory", "warning", "command"):
        if getattr(found, option) and not found.suites and not (found.vm and option in ("runs", "command")):
            options.error(f"--{option}: nothing is measured{' here' * found.vm}; add --io, --copy, --scale or --all")
    if found.directory and not found.directory.is_dir():
        options.error(f"--directory {found.directory}: not a directory")
    for device in (found.our_device, found.kernel_device):
        if device and not device.is_block_device():
            options.error(f"{device} is not a block device")
    for peer in found.peer:
        if not peer.directory.is_dir():
            options.error(f"--peer {peer.directory}: not a directory")
    return found


def set_up(suites: Sequence[str]) -> str:
    """Install what is missing, as tools/quickstart does; return the zonefs-py command. Raises BenchError."""
    script = '. "$root/tools/lib/setup.sh" && install_missing "${packages_to_run[@]}" "$@" && check_fuse || exit 1\n'
    script += "install_into_venv bench && exit\ninstall_into_venv zonefs-py && exit 3"
    wanted = ["fio"] if "io" in suites else []
    done = subprocess.run(
        ["bash", "-c", script, "tools/bench", *wanted], env={**environment(), "root": str(ROOT)}, stdout=sys.stderr
    )
    if done.returncode not in (0, 3):
        raise BenchError("the machine is not ready; see above")
    return str(ROOT / ".venv/bin/zonefs-py")


def find_command(wanted: str) -> str:
    """Return the absolute path of a program. Raises BenchError."""
    found = shutil.which(wanted)
    if found is None:
        raise BenchError(f"--command {wanted}: there is no such program")
    return os.path.abspath(found)


def draw(out: Path, notes: Notes) -> None:
    """Draw the plots of the result in *out*, by a Python that has matplotlib; without one they are left out."""
    for names in publish.PLOTS.values():
        for name in names:
            (out / name).unlink(missing_ok=True)
    for python in (sys.executable, str(ROOT / ".venv/bin/python")):
        if not Path(python).exists():
            continue
        if subprocess.run([python, "-c", "import matplotlib"], capture_output=True, check=False).returncode:
            continue
        command = [python, "-m", "tools.benchmarks.plots", str(out / "bench.json"), str(out)]
        done = subprocess.run(command, cwd=ROOT, env={**environment(), "PYTHONPATH": str(ROOT)}, check=False)
        if done.returncode:
            raise BenchError("the plots could not be drawn; see above")
        return
    notes.skip("plots", "matplotlib is not installed (pip install 'zonefs-py[bench]')")


def measure(options: argparse.Namespace) -> bool:
    """Measure and write what *options* ask for; return whether all of it succeeded."""
    notes = Notes()
    if options.warning:
        notes.warn(options.warning)
    tool = find_command(options.command) if options.command else set_up(options.suites)
    result: dict[str, Any] = {
        "schema": publish.SCHEMA,
        "version": publish.VERSION,
        "quick": options.quick,
        "machine": machine.describe(tool, notes),
    }
    failed = False
    for suite in options.suites:
        measure_suite = {"io": _io, "copy": _copy, "scale": _scale}[suite]
        try:
            result[suite] = measure_suite(tool, options, notes)
        except (BenchError, OSError) as exc:
            # The figures of the other suites are worth having all the same.
            notes.skip(f"--{suite}", exc)
            failed = True
    result |= {"warnings": notes.warnings, "skipped": notes.skipped}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(options.out, notes)
    text = tables.document(result)
    (options.out / "bench.md").write_text(text)
    print(text)
    say(f"results are in {options.out}; {len(notes.skipped)} left out, {len(notes.warnings)} warnings")
    return not failed


def _io(tool: str, options: argparse.Namespace, notes: Notes) -> dict[str, Any]:
    runs, zone_size, seconds = (1, 64 * MIB, 0.1) if options.quick else (3, 256 * MIB, 0.3)
    how = IoOptions(
        runs=options.runs or runs,
        zone_size=64 * MIB if options.small else zone_size,
        seconds=seconds,
        single=options.single,
        peers=tuple(options.peer),
        kernel_device=options.kernel_device,
        our_device=options.our_device,
    )
    return _in_directory(
        options.directory or memory_directory(room_needed(how, 3)),
        lambda work: measure_io(tool, work, how, notes),
    )


def _copy(tool: str, options: argparse.Namespace, notes: Notes) -> dict[str, Any]:
    zone_sizes = options.sizes or ([16 * MIB, 64 * MIB] if options.quick else [256 * MIB, GIB])
    runs = options.runs or (1 if options.quick else 3)
    where = options.places or list(PLACES)
    return _in_directory(options.directory, lambda work: measure_copies(tool, work, where, zone_sizes, runs, notes))


def _scale(tool: str, options: argparse.Namespace, notes: Notes) -> dict[str, Any]:
    zones = options.zones or ([1000, 4000] if options.quick else [1000, 3000, 10_000, 30_000, 100_000])
    runs = options.runs or (1 if options.quick else 3)
    return _in_directory(options.directory, lambda work: measure_scale(tool, work, zones, runs))


def _in_directory(parent: Path | None, action: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="zonefs-py-bench-", dir=parent) as work:
        return action(Path(work))


def _stop(number: int, _frame: object) -> None:
    """A signal ends the program like Ctrl-C: what was mounted is unmounted."""
    raise KeyboardInterrupt(number)


def main() -> int:
    """Run tools/bench; return its exit status."""
    options = parse()
    signal.signal(signal.SIGTERM, _stop)
    try:
        complete = measure(options) if options.suites else True
        if options.vm:
            tool = find_command(options.command) if options.command else set_up(["io"])
            vm.measure_in_machine(tool, options.out / publish.KERNEL_DIRECTORY, runs=options.runs or 3)
        if options.publish:
            for path in publish.publish(options.out):
                print(path)
    except BenchError as exc:
        say(str(exc))
        return 1
    except OSError as exc:
        say(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if complete else 1

"""``zonefs-py crash``: cut the power at every moment of a program, and let another program look at what is left."""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from zonefs_py.cli.common import SlowProgress, open_for_reading, printable
from zonefs_py.cli.mount import check_fuse
from zonefs_py.cli.parameters import COUNT, PATH, SIZE, SOME, mount_options_option
from zonefs_py.config import FormatOptions, parse_format_options, parse_mount_options
from zonefs_py.errors import OptionError, SuperblockError, UserError
from zonefs_py.fs.format import format_device
from zonefs_py.fs.superblock import SUPERBLOCK_SIZE, Superblock
from zonefs_py.testing.calls import Call
from zonefs_py.testing.crash_states import parse_state_id
from zonefs_py.testing.crash_test import CrashTest, Recording, Selected, check_all, check_one, find, record, select
from zonefs_py.testing.ending import undisturbed
from zonefs_py.testing.image import DeviceImage, empty_image, open_image, take_image
from zonefs_py.testing.supervised import run_supervised
from zonefs_py.testing.temporary import make_temporary_directory
from zonefs_py.units import MIB, format_size
from zonefs_py.zone import Geometry

EXIT_FAILED = 1

_SELECTING = ("states", "seed", "jobs", "state_id")
"""Options that say which states are visited, and how many at a time."""

MAX_SIZE = 1024 * MIB
"""Bytes that a device may hold to be one that a workload finds."""

DEFAULT_ZONES = 16
DEFAULT_CONVENTIONAL = 2
DEFAULT_ZONE_SIZE = 4 * MIB
_SHAPE = ("zones", "conventional", "zone_size", "zone_capacity", "block_size", "max_open", "max_active")


@click.command(short_help="Test what a program leaves behind when the power is cut.")
@click.option("--workload", required=True, metavar="CMD", help="The program to test, a command of the shell.")
@click.option("--check", required=True, metavar="CMD", help="Looks at what is left; fails if that is not good enough.")
@click.option("--device", type=PATH, help="Start with what is on this device, which is not changed.")
@click.option("--zones", type=COUNT, metavar="N", help=f"Number of zones of a new device; default: {DEFAULT_ZONES}.")
@click.option(
    "--conventional",
    type=COUNT,
    metavar="N",
    help=f"How many are conventional; default: {DEFAULT_CONVENTIONAL}.",
)
@click.option("--zone-size", type=SIZE, metavar="SIZE", help="Size of a zone; default: 4M.")
@click.option("--zone-capacity", type=SIZE, metavar="SIZE", help="How much of a sequential zone can be written.")
@click.option("--block-size", type=SIZE, metavar="SIZE", help="Write granularity, 512 or 4096; default: 4096.")
@click.option("--max-open", type=COUNT, metavar="N", help="Zones that can be open at a time.")
@click.option("--max-active", type=COUNT, metavar="N", help="Zones that can be open or closed at a time.")
@click.option("--mkfs", "features", metavar="FEATURES", help="For a new device, as mkfs -o: aggr_cnv, perm=OCTAL, ...")
@mount_options_option
@click.option("--states", type=SOME, default=1000, metavar="N", show_default=True, help="Visit at most N.")
@click.option("--seed", type=COUNT, default=0, metavar="S", show_default=True, help="Which, if there are more.")
@click.option("--state", "state_id", metavar="ID", help="Visit this state only, and let the check use the terminal.")
@click.option("--jobs", type=SOME, metavar="N", help="States at a time; default: one for each processor.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60,
    metavar="SECONDS",
    show_default=True,
    help="For one check.",
)
def crash(
    workload: str,
    check: str,
    device: str | None,
    features: str | None,
    options: tuple[str, ...],
    states: int,
    seed: int,
    state_id: str | None,
    jobs: int | None,
    timeout: float,
    **shape: Any,
) -> int:
    """Test what a program leaves behind when the power is cut.

    The workload runs once on a mount whose path is in ZONEFS_MNT, and everything that it asks of the device is
    recorded. Then the power is cut during each of these calls: what was not flushed is lost, or kept in part, in all
    ways that a drive with a volatile write cache may choose, or in as many as --states allows. Each state is mounted
    again, and the check looks at it: in ZONEFS_MNT. The file whose name is in ZONEFS_OUTPUT holds what the workload
    had printed when the power went: what it has promised to the world. An exit status that is not 0 is a failure.

    The first state that fails is shown with a command that visits it again, and the exit status is 1. Neither mounts
    nor files nor processes are left behind.
    """
    id = parse_state_id(state_id) if state_id is not None else None
    for option, command in (("--workload", workload), ("--check", check)):
        if not command.strip():
            # The shell would be content with it, and every state would pass.
            raise OptionError(f"{option}: the command is empty")
    if not math.isfinite(timeout):
        raise OptionError(f"--timeout: {timeout} is no number of seconds")
    test = CrashTest(
        workload, check, _base(device, features, shape), parse_mount_options(",".join(options)).filesystem, timeout
    )
    check_fuse()
    again = _again()

    def work() -> int:
        with _directory() as directory:
            recording = record(test, directory)
            if id is not None:
                return _visit_one(test, find(test, recording, id), recording, directory)
            return _visit(test, recording, directory, (states, seed), jobs or os.cpu_count() or 1, again)

    return run_supervised(work)


def _visit_one(test: CrashTest, selected: Selected, recording: Recording, directory: Path) -> int:
    id = selected.state.id
    click.echo(f"state {id}: {_describe(recording, selected)}")
    failed = check_one(test, selected, directory, shown=True)
    click.echo(f"state {id}: {'passed' if failed is None else failed[0]}")
    return 0 if failed is None else EXIT_FAILED


def _visit(
    test: CrashTest, recording: Recording, directory: Path, which: tuple[int, int], jobs: int, again: str
) -> int:
    """Visit as many states as *which* says first, chosen by the seed that it says then."""
    selected, possible = select(test, recording, *which)
    many = f"{possible}" if possible < 10**9 else f"about 10^{len(str(possible)) - 1}"
    click.echo(f"{len(recording.calls)} calls of the device, {many} crash states, {len(selected)} to visit")
    with SlowProgress(len(selected), "crash states") as progress:
        failure = check_all(test, selected, directory / "states", jobs, progress)
    if failure is None:
        click.echo(f"{len(selected)} crash states passed")
        return 0
    state = selected[failure.place].state
    click.echo(f"state {state.id} failed: {_describe(recording, selected[failure.place])}")
    click.echo(f"the check: {failure.reason}")
    for line in failure.output.splitlines():
        click.echo(f"  {printable(line)}")
    click.echo(f"again: {again} --state {state.id}")
    return EXIT_FAILED


def _describe(recording: Recording, selected: Selected) -> str:
    state, calls = selected.state, recording.calls
    call: Call | None = calls[state.id.call] if state.id.call < len(calls) else None
    when = "after the last call" if call is None else f"during call {state.id.call} of {len(calls)}, {call}"
    return f"power lost {when}; kept: {state.kept or 'everything was flushed'}"


def _again() -> str:
    """The command that makes the same states: this one, without the options that select some of them."""
    context = click.get_current_context()
    words = ["zonefs-py", "crash"]
    for parameter in context.command.params:
        name = parameter.name or ""
        value: Any = context.params[name]
        source = context.get_parameter_source(name)
        if name in _SELECTING or source is not ParameterSource.COMMANDLINE:
            continue
        for one in value if isinstance(value, tuple) else [value]:
            words += [parameter.opts[0], format_size(int(one)) if parameter.type is SIZE else str(one)]
    return shlex.join(words)


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory for our files, while the block runs."""
    directory = None
    try:
        with undisturbed():
            directory = make_temporary_directory("zonefs-py-crash-")
            (directory / "states").mkdir()
        yield directory
    finally:
        with undisturbed():
            if directory is not None:
                shutil.rmtree(directory)


def _base(device: str | None, features: str | None, shape: dict[str, Any]) -> DeviceImage:
    """What the workload finds. Raises UserError and its like."""
    if device is None:
        return _new(features, shape)
    given = [f"--{name.replace('_', '-')}" for name in _SHAPE if shape[name] is not None]
    if features is not None:
        given.append("--mkfs")
    if given:
        raise OptionError(f"{given[0]} is for a new device: leave it out, or --device")
    with open_for_reading(device) as opened:
        try:
            Superblock.unpack(opened.read(0, SUPERBLOCK_SIZE))
        except SuperblockError as exc:
            raise SuperblockError(f"{opened.info.name}: {exc}; 'zonefs-py mkfs' formats a device") from None
        size = sum(zone.size if zone.is_conventional else zone.data_size or 0 for zone in opened.report_zones())
        if size > MAX_SIZE:
            raise UserError(
                f"{opened.info.name} holds {format_size(size)} in conventional zones and written ones; a crash test"
                f" keeps that in memory, and takes {format_size(MAX_SIZE)} at most"
            )
        return take_image(opened)


def _new(features: str | None, shape: dict[str, Any]) -> DeviceImage:
    def given(name: str, default: int) -> int:
        return default if shape[name] is None else shape[name]

    zone_size = given("zone_size", DEFAULT_ZONE_SIZE)
    geometry = Geometry(
        zone_size,
        given("zone_capacity", zone_size),
        given("zones", DEFAULT_ZONES),
        given("conventional", DEFAULT_CONVENTIONAL),
        given("block_size", 4096),
        zone_size,
    )
    options = FormatOptions()
    if os.geteuid() != 0:
        options = FormatOptions(uid=os.geteuid(), gid=os.getegid())
    if features is not None:
        options = parse_format_options(features, options)
    device = open_image(empty_image(geometry, shape["max_open"], shape["max_active"]))
    # Always the same, so that the same state has the same content.
    format_device(device, options, uuid=bytes(16))
    return take_image(device)

"""``zonefs-py snapshot`` and ``zonefs-py rollback``: keep what an emulated device holds, and get it back."""

from __future__ import annotations

import json
from datetime import datetime

import click

from zonefs_py.cli.common import SlowProgress, check_no_mount_point, check_unmounted
from zonefs_py.cli.parameters import PATH, format_option
from zonefs_py.device.snapshots import (
    ZoneDifference,
    ZoneState,
    create_snapshot,
    delete_snapshot,
    diff_snapshots,
    list_snapshots,
    rollback_snapshot,
)
from zonefs_py.device.stack_spec import is_stack
from zonefs_py.errors import UserError
from zonefs_py.units import format_size
from zonefs_py.zone import CONDITION_NAMES


class _SnapshotGroup(click.Group):
    """A group in which a word that is no command is a DEVICE, for 'create'."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names, or 'create' with all words."""
        if args and args[0] not in self.commands:
            args = ["create", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_SnapshotGroup,
    short_help="Keep what an emulated device holds; list, compare and delete that.",
    subcommand_metavar="DEVICE NAME | COMMAND [ARGS]...",
)
def snapshot() -> None:
    """Keep what an emulated device holds; list, compare and delete that.

    'zonefs-py snapshot DEVICE NAME' is short for 'zonefs-py snapshot create DEVICE NAME'. A DEVICE that is called like
    a command is written ./list.

    Snapshots are in the device's directory, and share their data with it where the host's file system has reflinks
    (XFS, Btrfs). DEVICE/.snapshots/NAME is a device too, for reading: report, clone, mount -o ro.
    """


def _no_sync_option(function: click.decorators.FC) -> click.decorators.FC:
    option = click.option(
        "--no-sync", is_flag=True, help="Do not wait for the disk: safe if a process is killed, not if power is lost."
    )
    return option(function)


@snapshot.command(short_help="Keep what a device holds.")
@click.argument("device", type=PATH)
@click.argument("name")
@_no_sync_option
def create(device: str, name: str, no_sync: bool) -> None:
    """Keep what DEVICE, which is not mounted, holds now: data, write pointers, and zones that failed.

    A snapshot is made as a whole or not at all.
    """
    _check_device(device)
    with SlowProgress(100, "copying zones") as progress:
        create_snapshot(device, name, sync=not no_sync, progress=lambda done, total: progress(done * 100 // total))


@snapshot.command(name="list", short_help="List the snapshots of a device.")
@click.argument("device", type=PATH)
@format_option("table", "json")
def list_command(device: str, format_name: str) -> None:
    """List the snapshots of DEVICE, the oldest first. It may be mounted."""
    _check_path(device)
    found = list_snapshots(device)
    if format_name == "json":
        rows = [{"name": one.name, "created": one.created, "path": str(one.path)} for one in found]
        click.echo(json.dumps({"snapshots": rows}, indent=2))
        return
    for one in found:
        click.echo(f"{datetime.fromtimestamp(one.created).astimezone():%Y-%m-%d %H:%M:%S %z}  {one.name}")


@snapshot.command(short_help="Delete a snapshot.")
@click.argument("device", type=PATH)
@click.argument("name")
def delete(device: str, name: str) -> None:
    """Delete the snapshot NAME of DEVICE, which may be mounted."""
    _check_path(device)
    delete_snapshot(device, name)


@snapshot.command(short_help="Show which zones have changed.")
@click.argument("device", type=PATH)
@click.argument("name")
@click.argument("other", required=False)
@format_option("table", "json")
def diff(device: str, name: str, other: str | None, format_name: str) -> None:
    """Show in which zones DEVICE, or its snapshot OTHER, differs from its snapshot NAME.

    Conditions and write pointers are compared, and what is in the zones where the write pointers are the same.
    """
    _check_device(device)
    found = diff_snapshots(device, name, other)
    if format_name == "json":
        click.echo(json.dumps({"zones": [_as_json(zone) for zone in found]}, indent=2))
        return
    for zone in found:
        click.echo(f"zone {zone.number}: {', '.join(_differences(zone))}")


@snapshot.command(name="rollback", short_help="Make a device what it was.")
@click.argument("device", type=PATH)
@click.argument("name")
@_no_sync_option
def rollback_command(device: str, name: str, no_sync: bool) -> None:
    """Make DEVICE, which is not mounted, what it was when the snapshot NAME was made.

    What was done to it since is lost. Only zones that have changed are put back. It happens as a whole or not at all:
    if it is killed in the middle, the next that opens the device finds the old or the new one. The snapshot stays.
    """
    _roll_back(device, name, no_sync=no_sync)


@click.command(short_help="Make a device what it was in a snapshot.")
@click.argument("device", type=PATH)
@click.argument("name")
@_no_sync_option
def rollback(device: str, name: str, no_sync: bool) -> None:
    """Make DEVICE, which is not mounted, what it was in the snapshot NAME: as 'zonefs-py snapshot rollback'."""
    _roll_back(device, name, no_sync=no_sync)


def _roll_back(device: str, name: str, *, no_sync: bool) -> None:
    # The device may be damaged, so that it is hard to tell from another directory; a mount point never has snapshots.
    _check_path(device)
    rollback_snapshot(device, name, sync=not no_sync)


def _check_device(device: str) -> None:
    _check_path(device)
    check_unmounted(device)


def _check_path(device: str) -> None:
    if is_stack(device):
        raise UserError(f"{device} is a stack: snapshots are of emulated devices, so name each that is in it")
    check_no_mount_point(device)


def _differences(zone: ZoneDifference) -> list[str]:
    words = []
    if zone.old.condition is not zone.new.condition:
        words.append(f"condition {CONDITION_NAMES[zone.old.condition]} -> {CONDITION_NAMES[zone.new.condition]}")
    if zone.old.wpoffset != zone.new.wpoffset:
        words.append(f"write pointer +{format_size(zone.old.wpoffset)} -> +{format_size(zone.new.wpoffset)}")
    if zone.content:
        words.append("content")
    return words


def _as_json(zone: ZoneDifference) -> dict[str, object]:
    return {"zone": zone.number, "old": _state(zone.old), "new": _state(zone.new), "content_differs": zone.content}


def _state(state: ZoneState) -> dict[str, object]:
    return {"condition": CONDITION_NAMES[state.condition], "wpoffset": state.wpoffset}

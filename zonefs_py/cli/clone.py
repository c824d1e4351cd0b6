"""``zonefs-py clone``: make an emulated device like another device."""

from __future__ import annotations

import os

import click

from zonefs_py.cli.common import SlowProgress, check_unmounted, naming
from zonefs_py.cli.parameters import PATH
from zonefs_py.cli.zone import parse_zones
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.clone import plan_clone, write_clone
from zonefs_py.device.stack import open_stack
from zonefs_py.device.stack_spec import device_paths, parse_spec
from zonefs_py.errors import DeviceInUse, UserError


@click.command(short_help="Make an emulated device like another device.")
@click.argument("device", type=PATH)
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--data", is_flag=True, help="Copy what is in the zones, too.")
@click.option("--zones", metavar="RANGES", help="Only these zones, such as 0-15 or 0,8-15, in this order.")
@click.option("-f", "--force", is_flag=True, help="Replace the emulated device that is there. Its data is lost.")
def clone(device: str, directory: str, data: bool, zones: str | None, force: bool) -> None:
    """Make an emulated device like another device.

    DEVICE is the path of a device, or the text of a stack; it is only read. DIR becomes an emulated device with
    DEVICE's geometry, limits and profile, whose zones have the same write pointers and conditions; zones that are open
    are closed in it. Without --data they read as zeros; with it they hold what DEVICE's do, and a file system on it is
    there too. What can be a reflink takes no space.

    A mounted DEVICE is refused, unless it is mounted read-only. If it fails, DIR is as it was before; with -f the old
    device stays as it was until the new one is there as a whole.
    """
    check_unmounted(device)
    for path in device_paths(parse_spec(device)):
        if os.path.exists(directory) and os.path.samefile(path, directory):
            raise UserError(f"{directory} is what is to be cloned")
    with naming(device), _open(device) as source:
        numbers = None if zones is None else parse_zones(zones.split(","), source.info.nr_zones, device)
        plan = plan_clone(source, numbers, data=data)
        with SlowProgress(plan.work, "cloning") as progress:
            write_clone(source, plan, directory, force=force, progress=progress)


def _open(device: str) -> ZonedDevice:
    try:
        return open_stack(device, read_only=True)
    except DeviceInUse as exc:
        raise DeviceInUse(f"{exc}; unmount it to clone it, or mount it read-only") from exc

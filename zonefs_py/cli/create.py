"""``zonefs-py create``: make an emulated device."""

from __future__ import annotations

from typing import Unpack

import click

from zonefs_py.cli.common import SlowProgress
from zonefs_py.cli.geometry_options import GeometryOptions, geometry_options
from zonefs_py.cli.parameters import PATH
from zonefs_py.device.choice import DeviceChoice
from zonefs_py.device.directory import create_device
from zonefs_py.errors import OptionError


@click.command(short_help="Make an emulated zoned device.")
@click.argument("directory", metavar="DIR", type=PATH)
@geometry_options
@click.option("-f", "--force", is_flag=True, help="Replace the emulated device that is there. Its data is lost.")
def create(directory: str, force: bool, **said: Unpack[GeometryOptions]) -> None:
    """Make an emulated zoned device.

    DIR is the directory that becomes the device: one file for each zone, in the layout of Linux's zloop driver, and
    a device.json. Sizes take K, M, G or T. A new device takes hardly any space; it grows with what is written.

    Either --zones and --zone-size are needed, or --profile. With a profile, --zones makes the device smaller and
    leaves it the drive's share of conventional zones, and --zone-size makes zones smaller and leaves them the share of
    their capacity. All other options replace what the profile says.

    With -f the old device stays as it was until the new one is there as a whole; snapshots of it stay.
    """
    choice = DeviceChoice(**said)
    try:
        geometry = choice.geometry()
    except OptionError as exc:
        raise click.UsageError(str(exc)) from None
    max_open, max_active = choice.limits()
    with SlowProgress(geometry.nr_zones, "creating zones") as progress:
        create_device(
            directory,
            geometry,
            max_open_zones=max_open,
            max_active_zones=max_active,
            profile=choice.profile or "",
            force=force,
            progress=progress,
        )

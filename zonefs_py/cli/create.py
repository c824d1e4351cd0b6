"""``zonefs-py create``: make an emulated device."""

from __future__ import annotations

import click

from zonefs_py.cli.common import SIZE, SlowProgress
from zonefs_py.device.directory import create_device
from zonefs_py.zone import Geometry


@click.command(short_help="Make an emulated zoned device.")
@click.argument("directory", metavar="DIR", type=click.Path())
@click.option("--zones", type=int, required=True, metavar="N", help="Number of zones.")
@click.option("--conventional", type=int, default=0, metavar="N", help="How many of them, the first, are conventional.")
@click.option("--zone-size", type=SIZE, required=True, metavar="SIZE", help="Size of a zone, such as 64M.")
@click.option(
    "--zone-capacity",
    type=SIZE,
    metavar="SIZE",
    help="How much of a sequential zone can be written; default: all of it.",
)
@click.option(
    "--block-size",
    type=SIZE,
    default="4096",
    metavar="SIZE",
    show_default=True,
    help="Write granularity, 512 or 4096.",
)
@click.option("--max-open", type=int, metavar="N", help="Zones that can be open at a time; default: no limit.")
@click.option(
    "--max-active", type=int, metavar="N", help="Zones that can be open or closed at a time; default: no limit."
)
@click.option("--last-zone-size", type=SIZE, metavar="SIZE", help="Size of the last zone, if it is smaller.")
@click.option("-f", "--force", is_flag=True, help="Replace the emulated device that is there. Its data is lost.")
def create(
    directory: str,
    zones: int,
    conventional: int,
    zone_size: int,
    zone_capacity: int | None,
    block_size: int,
    max_open: int | None,
    max_active: int | None,
    last_zone_size: int | None,
    force: bool,
) -> None:
    """Make an emulated zoned device.

    DIR is the directory that becomes the device: one file for each zone, in the layout of Linux's zloop driver, and
    a device.json. Sizes take K, M, G or T. A new device takes hardly any space; it grows with what is written.
    """
    geometry = Geometry(
        zone_size=zone_size,
        zone_capacity=zone_size if zone_capacity is None else zone_capacity,
        nr_zones=zones,
        nr_conventional=conventional,
        block_size=block_size,
        last_zone_size=zone_size if last_zone_size is None else last_zone_size,
    )
    with SlowProgress(zones, "creating zones") as progress:
        create_device(
            directory,
            geometry,
            max_open_zones=max_open,
            max_active_zones=max_active,
            force=force,
            progress=progress,
        )

"""``zonefs-py create``: make an emulated device."""

from __future__ import annotations

from dataclasses import replace

import click

from zonefs_py.cli.common import SlowProgress
from zonefs_py.cli.parameters import COUNT, PATH, SIZE
from zonefs_py.device.directory import create_device
from zonefs_py.device.profiles import PROFILES, scale_geometry
from zonefs_py.units import format_size
from zonefs_py.zone import Geometry

_DEFAULT_BLOCK_SIZE = 4096

_TABLE = "{:<17}{:>7}  {:>13}  {:>9}  {:>9}  {:>9}  {:>11}  {}"


def _list_profiles(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    heading = ("name", "zones", "conventional", "zone size", "capacity", "max open", "max active", "drive")
    click.echo(_TABLE.format(*heading))
    for profile in PROFILES.values():
        geometry = profile.geometry
        numbers = (
            geometry.nr_zones,
            geometry.nr_conventional,
            format_size(geometry.zone_size),
            format_size(geometry.zone_capacity),
            profile.max_open_zones or "-",
            profile.max_active_zones or "-",
        )
        click.echo(_TABLE.format(profile.name, *numbers, profile.title))
    ctx.exit()


@click.command(short_help="Make an emulated zoned device.")
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--zones", type=COUNT, metavar="N", help="Number of zones.")
@click.option("--conventional", type=COUNT, metavar="N", help="How many, the first ones, are conventional; default: 0.")
@click.option("--zone-size", type=SIZE, metavar="SIZE", help="Size of a zone, such as 64M.")
@click.option(
    "--zone-capacity",
    type=SIZE,
    metavar="SIZE",
    help="How much of a sequential zone can be written; default: all of it.",
)
@click.option("--block-size", type=SIZE, metavar="SIZE", help="Write granularity, 512 or 4096; default: 4096.")
@click.option("--max-open", type=COUNT, metavar="N", help="Zones that can be open at a time; default: no limit.")
@click.option(
    "--max-active", type=COUNT, metavar="N", help="Zones that can be open or closed at a time; default: no limit."
)
@click.option("--last-zone-size", type=SIZE, metavar="SIZE", help="Size of the last zone, if it is smaller.")
@click.option(
    "--profile",
    "profile_name",
    type=click.Choice(list(PROFILES)),
    metavar="NAME",
    help="Take what no other option says from a drive.",
)
@click.option(
    "--list-profiles",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_profiles,
    help="Show the drives that --profile knows.",
)
@click.option("-f", "--force", is_flag=True, help="Replace the emulated device that is there. Its data is lost.")
def create(
    directory: str,
    zones: int | None,
    conventional: int | None,
    zone_size: int | None,
    zone_capacity: int | None,
    block_size: int | None,
    max_open: int | None,
    max_active: int | None,
    last_zone_size: int | None,
    profile_name: str | None,
    force: bool,
) -> None:
    """Make an emulated zoned device.

    DIR is the directory that becomes the device: one file for each zone, in the layout of Linux's zloop driver, and
    a device.json. Sizes take K, M, G or T. A new device takes hardly any space; it grows with what is written.

    Either --zones and --zone-size are needed, or --profile. With a profile, --zones makes the device smaller and
    leaves it the drive's share of conventional zones, and --zone-size makes zones smaller and leaves them the share of
    their capacity. All other options replace what the profile says.

    With -f the old device stays as it was until the new one is there as a whole.
    """
    if profile_name is None:
        missing = [name for name, value in (("--zones", zones), ("--zone-size", zone_size)) if value is None]
        if zones is None or zone_size is None:
            raise click.UsageError(f"Missing option '{missing[0]}', or --profile to take it from a drive")
        geometry = Geometry(zone_size, zone_size, zones, 0, _DEFAULT_BLOCK_SIZE, zone_size)
    else:
        profile = PROFILES[profile_name]
        geometry = scale_geometry(profile.geometry, nr_zones=zones, zone_size=zone_size)
        max_open = profile.max_open_zones if max_open is None else max_open
        max_active = profile.max_active_zones if max_active is None else max_active
    said = {
        "nr_conventional": conventional,
        "zone_capacity": zone_capacity,
        "block_size": block_size,
        "last_zone_size": last_zone_size,
    }
    geometry = replace(geometry, **{name: value for name, value in said.items() if value is not None})
    with SlowProgress(geometry.nr_zones, "creating zones") as progress:
        create_device(
            directory,
            geometry,
            max_open_zones=max_open,
            max_active_zones=max_active,
            profile=profile_name or "",
            force=force,
            progress=progress,
        )

"""The options that say what a new emulated device is like: of ``create``, and of ``run``."""

from __future__ import annotations

from typing import TypedDict

import click

from zonefs_py.cli.parameters import COUNT, SIZE, Decorated
from zonefs_py.device.profiles import PROFILES
from zonefs_py.units import format_size

_TABLE = "{:<17}{:>7}  {:>13}  {:>9}  {:>9}  {:>9}  {:>11}  {}"


class GeometryOptions(TypedDict):
    """What `geometry_options` passes on, for `DeviceChoice`."""

    zones: int | None
    conventional: int | None
    zone_size: int | None
    zone_capacity: int | None
    block_size: int | None
    max_open: int | None
    max_active: int | None
    last_zone_size: int | None
    profile: str | None


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


_OPTIONS = (
    click.option("--zones", type=COUNT, metavar="N", help="Number of zones."),
    click.option(
        "--conventional", type=COUNT, metavar="N", help="How many, the first ones, are conventional; default: 0."
    ),
    click.option("--zone-size", type=SIZE, metavar="SIZE", help="Size of a zone, such as 64M."),
    click.option(
        "--zone-capacity",
        type=SIZE,
        metavar="SIZE",
        help="How much of a sequential zone can be written; default: all of it.",
    ),
    click.option("--block-size", type=SIZE, metavar="SIZE", help="Write granularity, 512 or 4096; default: 4096."),
    click.option("--max-open", type=COUNT, metavar="N", help="Zones that can be open at a time; default: no limit."),
    click.option(
        "--max-active", type=COUNT, metavar="N", help="Zones that can be open or closed at a time; default: no limit."
    ),
    click.option("--last-zone-size", type=SIZE, metavar="SIZE", help="Size of the last zone, if it is smaller."),
    click.option(
        "--profile",
        type=click.Choice(list(PROFILES)),
        metavar="NAME",
        help="Take what no other option says from a drive.",
    ),
    click.option(
        "--list-profiles",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_list_profiles,
        help="Show the drives that --profile knows.",
    ),
)


def geometry_options(decorated: Decorated) -> Decorated:
    """All of them, passed on as `GeometryOptions`."""
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated

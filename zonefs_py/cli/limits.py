"""``zonefs-py limits``: what one copy command of a mounted device may be at most."""

from __future__ import annotations

import json
from typing import Any

import click

from zonefs_py.cli.common import is_device
from zonefs_py.cli.parameters import PATH, format_option
from zonefs_py.copy.limits import BYTE_LIMITS
from zonefs_py.errors import OptionError, UserError
from zonefs_py.units import format_size, parse_count, parse_size


@click.command(short_help="Show or set the limits of a mount's copy path.")
@click.argument("mountpoint", metavar="MOUNTPOINT", type=PATH)
@click.argument("settings", metavar="[NAME=VALUE]...", nargs=-1)
@format_option("table", "json")
def limits(mountpoint: str, settings: tuple[str, ...], format_name: str) -> None:
    """Show or set the limits of a mount's copy path.

    Bytes can be written with a suffix, such as 64M. Several settings are made together, or none of them; they count
    for the next copy. A value above the device's own limit (hw) becomes that limit. Output is what then holds, in
    bytes.

    \b
    copy_offload          1: the device copies by itself; 0: through memory
    copy_max_bytes        one command, all its ranges; 0: as copy_offload=0
    copy_max_range_bytes  one range of a command
    copy_max_nr_ranges    ranges of a command
    """
    from zonefs_py.control.client import ask

    values = parse_settings(settings)
    if is_device(mountpoint):
        raise UserError(f"{mountpoint} is a device: limits are those of a mount, give the mount point")
    request = {"request": "set-copy-limits", "limits": values} if values else {"request": "copy-limits"}
    document: dict[str, Any] = ask(mountpoint, request)
    if format_name == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        for name, value in document["limits"].items():
            short = format_size(value)
            click.echo(f"{name:<24}{value:>14}{f'  ({short})' if name in BYTE_LIMITS and short != str(value) else ''}")


def parse_settings(words: tuple[str, ...]) -> dict[str, int]:
    """Return the numbers by name that *words* (``NAME=VALUE``) give. Raises OptionError."""
    values: dict[str, int] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise OptionError(f"{word!r} is not NAME=VALUE")
        if name in values:
            raise OptionError(f"{name} is given twice")
        try:
            values[name] = parse_size(text) if name in BYTE_LIMITS else parse_count(text)
        except ValueError:
            kind = "a size, such as 64M" if name in BYTE_LIMITS else "a number"
            raise OptionError(f"{name}: {text[:40]!r} is not {kind}") from None
    return values

"""``zonefs-py info``: what a device, its format and its mount are like."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from typing import Any

import click

from zonefs_py import __version__
from zonefs_py.cli.common import is_device, naming, open_for_reading, printable, read_superblock
from zonefs_py.cli.parameters import PATH, format_option
from zonefs_py.device.stack import can_be_written
from zonefs_py.device.stack_spec import device_paths, parse_spec
from zonefs_py.fs.describe import describe_device, describe_format, info_document
from zonefs_py.units import format_size

_SIZES = frozenset({"size", "zone_size", "zone_capacity"})


@click.command(short_help="Show geometry, limits, format and mount of a device.")
@click.argument("target", metavar="DEVICE|MOUNTPOINT", type=PATH)
@format_option("text", "json")
def info(target: str, format_name: str) -> None:
    """Show geometry, limits, format and mount of a device.

    Of a device that is not mounted, or of one that is mounted where you say: then with the mount options, the
    counters of open and active files, the capabilities in use, and what each engine of copies has done.
    """
    document = _from_device(target) if is_device(target) else _from_daemon(target)
    if format_name == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        _show(document)


def _from_device(path: str) -> dict[str, Any]:
    with naming(path), open_for_reading(path) as device:
        # We open it read-only, to look; what counts is whether others could write.
        writable = all(map(can_be_written, device_paths(parse_spec(path))))
        info = replace(device.info, read_only=not writable)
        superblock = read_superblock(device)
        return info_document(
            describe_device(info, device.report_zones()),
            None if superblock is None else describe_format(superblock),
            None,
            {"zonefs_py": __version__, "python": platform.python_version()},
            {},
        )


def _from_daemon(mountpoint: str) -> dict[str, Any]:
    from zonefs_py.control.client import ask

    document: dict[str, Any] = ask(mountpoint, {"request": "info"})
    return document


def _show(document: dict[str, Any]) -> None:
    for section in ("device", "format", "mount", "capabilities", "versions"):
        content = document[section]
        if content is None:
            click.echo(f"{section}: {'not mounted' if section == 'mount' else 'no zonefs'}")
        elif content:
            click.echo(f"{section}:")
            width = max(map(len, content)) + 2
            for name, value in content.items():
                click.echo(f"  {name.replace('_', ' ') + ':':<{width}}{_text(section, name, value)}")
    if document["copy"] is not None:
        _show_copies(document["copy"]["engines"])


def _show_copies(engines: dict[str, dict[str, int]]) -> None:
    """Print what each engine has done that was used since the device was mounted."""
    used = {name: done for name, done in engines.items() if done["copies"]}
    if not used:
        click.echo("copies: none yet")
        return
    click.echo(f"copies:   {'copies':>12}{'commands':>12}{'bytes':>18}{'errors':>12}{'milliseconds':>16}")
    for name, done in used.items():
        counts = f"{done['copies']:>12}{done['commands']:>12}{done['bytes']:>18}{done['errors']:>12}"
        click.echo(f"  {name:<8}{counts}{done['nanoseconds'] / 1e6:>16.3f}")


def _text(section: str, name: str, value: Any) -> str:
    if value is None:
        return "no limit" if name.startswith("max_") else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if section == "device" and name in _SIZES:
        short = format_size(value)
        return f"{short} ({value} bytes)" if short != str(value) else f"{value} bytes"
    if section == "mount" and name.startswith("max_") and value == 0:
        return "no limit"
    return printable(str(value)) or "-"

"""``zonefs-py ctl``: a mount in use, over its control socket."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import click

from zonefs_py.cli.common import printable
from zonefs_py.cli.limits import parse_settings
from zonefs_py.cli.parameters import PATH, format_option
from zonefs_py.cli.zone import parse_zones
from zonefs_py.control.client import MountControl
from zonefs_py.control.live import LOG_LEVELS
from zonefs_py.device.power_cut import parse_keep
from zonefs_py.units import format_size
from zonefs_py.zone import ZoneCondition

_OPERATIONS = ("reset", "open", "close", "finish")
_CONDITIONS = {"readonly": ZoneCondition.READONLY, "offline": ZoneCondition.OFFLINE, "online": None}


@click.group(short_help="Look at and steer a mount in use.")
@click.argument("target", metavar="MOUNTPOINT|DEVICE", type=PATH)
@click.pass_context
def ctl(context: click.Context, target: str) -> None:
    """Look at and steer a mount in use.

    It is named by its mount point, or by its device. A command returns when it has taken effect. Only the user who
    has mounted, and root, can do this.
    """
    context.obj = target


def _control(context: click.Context) -> MountControl:
    # Not in the group: the help of a command must not need a mount.
    return MountControl(context.obj)


@ctl.command(short_help="Show numbers since the mount.")
@format_option("text", "json")
@click.pass_context
def stats(context: click.Context, format_name: str) -> None:
    """Show what was done through the mount since it was made, and what the daemon uses."""
    document = _control(context).statistics()
    if format_name == "json":
        click.echo(json.dumps(document, indent=2))
        return
    for section, content in document.items():
        click.echo(f"{section}:")
        for name, value in content.items() or {"none": ""}.items():
            text = ", ".join(f"{part} {number}" for part, number in value.items()) if isinstance(value, dict) else value
            click.echo(f"  {(name if section == 'refusals' else name.replace('_', ' ')) + ':':<24}{text}".rstrip())


@ctl.command(short_help="Show the last refusals, with their rules.")
@click.option("--last", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@format_option("text", "json")
@click.pass_context
def why(context: click.Context, last: int, format_name: str) -> None:
    """Show what was refused last, which rule says so, and what to do instead. The newest comes last."""
    refusals = _control(context).refusals(last)
    if format_name == "json":
        click.echo(json.dumps(refusals, indent=2))
        return
    if not refusals:
        click.echo("nothing was refused")
    for refusal in refusals:
        for line in _why_lines(refusal):
            click.echo(printable(line))


def _why_lines(refusal: dict[str, Any]) -> list[str]:
    about = f" of {refusal['file']} (zone {refusal['zone']})" if refusal["file"] else ""
    caller = f" by {refusal['process'] or 'process'} ({refusal['pid']})" if refusal["pid"] else ""
    when = time.strftime("%H:%M:%S", time.localtime(refusal["time_ns"] / 1e9))
    facts = [
        f"{words} {refusal[field]}"
        for field, words in (("offset", "offset"), ("length", "length"), ("size", "size"), ("capacity", "capacity"))
        if refusal[field] is not None
    ]
    if (refusal["file"] or "").startswith("seq/"):
        facts = [fact.replace("size ", "write pointer ") for fact in facts]
    return [
        f"{refusal['number']}  {when}  {refusal['call']}{about}{caller}: {refusal['errno']}",
        f"    what:    {refusal['message']}",
        *([f"    where:   {', '.join(facts)}"] if facts else []),
        f"    rule:    {refusal['rule']}",
        f"    source:  {refusal['source']}",
        f"    instead: {refusal['advice']}",
    ]


@ctl.command("log-level", short_help="Set how much is logged.")
@click.argument("level", type=click.Choice(LOG_LEVELS))
@click.pass_context
def log_level(context: click.Context, level: str) -> None:
    """Log what is at least this important, from now on."""
    _control(context).set_log_level(level)


@ctl.command(short_help="Reset, open, close or finish zones; make them fail.")
@click.argument("action", type=click.Choice([*_OPERATIONS, *_CONDITIONS]))
@click.argument("zones", metavar="ZONE...", nargs=-1, required=True)
@click.pass_context
def zone(context: click.Context, action: str, zones: tuple[str, ...]) -> None:
    """Manage zones by number (as in 'zonefs-py report', or a range such as 8-15) while they are in use.

    Sizes of files follow at once, also in the kernel. readonly, offline and online make zones fail, and mend them.
    """
    control = _control(context)
    numbers = parse_zones(zones, control.info()["device"]["nr_zones"], control.device)
    if action in _CONDITIONS:
        control.force_zones(*numbers, condition=_CONDITIONS[action])
    else:
        getattr(control, f"{action}_zones")(*numbers)


@ctl.command("power-cut", short_help="Cut the power: what was not flushed is lost.")
@click.option("--keep", default="none", show_default=True, metavar="none|all|seed:N", help="What survives of it.")
@click.option("--dead", is_flag=True, help="Stay without power: every call is EIO, until 'power-on'.")
@format_option("text", "json")
@click.pass_context
def power_cut(context: click.Context, keep: str, dead: bool, format_name: str) -> None:
    """Cut the power of a device with a write cache, and mount it again; print what was not flushed, and is kept.

    The mount stays, as if it were new; files that are open now fail with EIO until they are opened again. The device
    must have been mounted with a write cache: as write-cache:DEVICE.
    """
    parse_keep(keep)
    cut = _control(context).power_cut(keep, dead=dead)
    if format_name == "json":
        click.echo(json.dumps(asdict(cut), indent=2))
        return
    for loss in cut.zones:
        click.echo(f"zone {loss.number}: {loss.unflushed} bytes not flushed, {loss.kept} kept")
    click.echo(f"{cut.unflushed} bytes were not flushed, {cut.kept} of them are kept")


@ctl.command("power-on", short_help="Bring back a mount that has no power.")
@click.pass_context
def power_on(context: click.Context) -> None:
    """Bring back a mount that 'power-cut --dead' has left without power."""
    _control(context).power_on()


@ctl.command(short_help="Show or set the limits of copies.")
@click.argument("settings", metavar="[NAME=VALUE]...", nargs=-1)
@click.pass_context
def limits(context: click.Context, settings: tuple[str, ...]) -> None:
    """Show or set the limits of the copy path; 'zonefs-py limits --help' says what they are."""
    control = _control(context)
    values = parse_settings(settings)
    for name, value in (control.set_copy_limits(**values) if values else control.copy_limits()).items():
        short = format_size(value)
        note = f"  ({short})" if "bytes" in name and short != str(value) else ""
        click.echo(f"{name:<24}{value:>14}{note}")

"""``zonefs-py fault``: faults of a mount in use."""

from __future__ import annotations

import json
from typing import Any

import click

from zonefs_py.cli.common import printable
from zonefs_py.cli.parameters import PATH, format_option
from zonefs_py.control.client import MountControl
from zonefs_py.device.fault_rules import FaultRule, parse_rule
from zonefs_py.device.stack import read_scenario
from zonefs_py.errors import OptionError, UserError

_TEXTS = frozenset({"operation", "effect", "error", "name", "distribution"})
_SPANS = frozenset({"zones", "source_zones", "blocks", "source_blocks"})


@click.group(short_help="Add, list and remove faults of a mount in use.")
@click.argument("target", metavar="MOUNTPOINT|DEVICE", type=PATH)
@click.pass_context
def fault(context: click.Context, target: str) -> None:
    """Add, list and remove faults of a mount in use.

    \b
    zonefs-py fault MOUNTPOINT add operation=write zones=8-15 first=3 effect=fail error=ENOSPC
    zonefs-py fault MOUNTPOINT add --file scenario.json
    zonefs-py fault MOUNTPOINT list
    """
    context.obj = target


def _control(context: click.Context) -> MountControl:
    # Not in the group: the help of a command must not need a mount.
    return MountControl(context.obj)


@fault.command(short_help="Add a rule, or those of a file.")
@click.argument("words", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option("--file", "path", type=PATH, help="A rule file; all its rules are added, or none.")
@click.option("--sticky", is_flag=True, help="Strike without end, as count=null: once is the default.")
@click.pass_context
def add(context: click.Context, words: tuple[str, ...], path: str | None, sticky: bool) -> None:
    """Add a rule, or those of a file, and print their numbers.

    The fields are those of rule files: 'operation' and 'effect' must be there. Rules count calls from now on.

    \b
    which calls   operation, zones, blocks, source_zones, source_blocks, at_byte
    how often     first, every, count, probability, seed, from_milliseconds
    what happens  effect, and for some effects: error, after, byte, bit, target,
                  length, milliseconds, max_milliseconds, distribution
    in the list   name
    """
    if bool(words) == (path is not None):
        raise click.UsageError("give a rule (FIELD=VALUE...), or --file, but not both")
    if path is not None and sticky:
        raise click.UsageError("--sticky is for a rule; the rules of a file say it themselves")
    rules = list(read_scenario(path).rules) if path is not None else [parse_words(words, sticky=sticky)]
    for number in _control(context).add_faults(rules):
        click.echo(number)


def parse_words(words: tuple[str, ...], *, sticky: bool) -> FaultRule:
    """Return the rule that *words* (``FIELD=VALUE``) describe. Raises OptionError."""
    content: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise OptionError(f"{word!r} is not FIELD=VALUE")
        if name in content:
            raise OptionError(f"{name} is given twice")
        content[name] = text if name in _TEXTS | _SPANS else _value(text)
    if sticky:
        if "count" in content:
            raise OptionError("--sticky and count= contradict each other: give one")
        content["count"] = None
    try:
        return parse_rule(content)
    except UserError as exc:
        raise OptionError(str(exc)) from None


def _value(text: str) -> Any:
    """A number or null as JSON has it; any other text is itself, and what reads it says what is wrong with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@fault.command("list", short_help="List rules and calls that are stuck.")
@format_option("text", "json")
@click.pass_context
def list_(context: click.Context, format_name: str) -> None:
    """List the rules, with how many calls each has matched and struck, and the calls that are stuck now."""
    document = _control(context).faults()
    if format_name == "json":
        click.echo(json.dumps(document, indent=2))
        return
    if not document["rules"]:
        click.echo("no rules")
    else:
        click.echo(" rule  matched    fired")
    for status in document["rules"]:
        words = " ".join(f"{name}={_shown(value)}" for name, value in status["rule"].items())
        click.echo(printable(f"{status['number']:>5}{status['matched']:>9}{status['fired']:>9}  {words}"))
    for stuck in document["stuck"]:
        click.echo(
            f"stuck by rule {stuck['rule']} in zone {stuck['zone']} for {stuck['seconds']:.0f} s: {stuck['what']}"
        )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value and " " not in value else json.dumps(value)


@fault.command(short_help="Remove rules.")
@click.argument("numbers", metavar="RULE...", type=int, nargs=-1, required=True)
@click.pass_context
def remove(context: click.Context, numbers: tuple[int, ...]) -> None:
    """Remove rules by number: all of them, or none. Calls that are stuck by them go on."""
    _control(context).remove_faults(*numbers)


@fault.command(short_help="Remove all rules.")
@click.pass_context
def clear(context: click.Context) -> None:
    """Remove all rules. Calls that are stuck go on."""
    _control(context).clear_faults()


@fault.command(short_help="Let calls that are stuck go on.")
@click.argument("numbers", metavar="[RULE]...", type=int, nargs=-1)
@click.option("--fail", is_flag=True, help="Make them fail with EIO.")
@click.pass_context
def release(context: click.Context, numbers: tuple[int, ...], fail: bool) -> None:
    """Let calls that are stuck go on, by these rules or by any, and print how many there were. The rules stay."""
    click.echo(_control(context).release_stuck(*numbers, fail=fail))

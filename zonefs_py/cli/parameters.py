"""What arguments and options of the commands can be, and the options that several commands have.

What cannot be read is a wrong call (exit status 2), whatever a device would say to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from zonefs_py.units import parse_count, parse_size

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Size(click.ParamType[int]):
    """A number of bytes, with or without a suffix."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes that *value* names."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Count(click.ParamType[int]):
    """How many of something: a whole number, not negative, however large. What can be is the command's to say."""

    name = "number"

    def __init__(self, at_least: int = 0) -> None:
        """*at_least* is the smallest number that makes sense for any command."""
        self._at_least = at_least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number that *value* is in decimal."""
        if isinstance(value, int):
            return value
        try:
            count = parse_count(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if count < self._at_least:
            self.fail(f"{value}: it must be at least {self._at_least}", param, ctx)
        return count


class PathText(click.ParamType[str]):
    """The name of a file or directory, or the text of a stack. Nothing is looked at."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value* as it is; an empty one would quietly mean the current directory."""
        text = str(value)
        if not text:
            self.fail("an empty path names nothing; write . for the current directory", param, ctx)
        if "\0" in text:
            self.fail("a path cannot hold a NUL character", param, ctx)
        return text


SIZE = Size()
COUNT = Count()
SOME = Count(at_least=1)
PATH = PathText()


def format_option(*names: str) -> Callable[[Decorated], Decorated]:
    """``--format``, passed on as ``format_name``: one of *names*, the first unless told otherwise."""
    return click.option(
        "--format", "format_name", type=click.Choice(names), default=names[0], show_default=True, help="Output."
    )


def features_option(decorated: Decorated) -> Decorated:
    """``-o`` of what formats a device, passed on as ``features``."""
    option = click.option(
        "-o", "features", multiple=True, metavar="FEATURES", help="Comma-separated: aggr_cnv, uid=N, gid=N, perm=OCTAL."
    )
    return option(decorated)


def label_option(*names: str) -> Callable[[Decorated], Decorated]:
    """``-L`` of what formats a device, under *names*, passed on as ``label``."""
    return click.option(*names, "label", default="", metavar="LABEL", help="Name of the file system, at most 63 bytes.")


def mount_options_option(decorated: Decorated) -> Decorated:
    """``-o`` of what mounts, passed on as ``options``."""
    option = click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, separated by commas.")
    return option(decorated)

"""``zonefs-py blkcopy``: copy ranges of a device that is not mounted, as the block layer would."""

from __future__ import annotations

import json
from typing import Any

import click

from zonefs_py.cli.common import EXIT_FAILURE, check_unmounted, complain, naming, read_superblock
from zonefs_py.cli.parameters import PATH, SIZE, format_option
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.units import parse_size


class _Range(click.ParamType[tuple[int, int]]):
    """``SRC:LEN``, two sizes."""

    name = "SRC:LEN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        source, colon, length = str(value).partition(":")
        if not colon:
            self.fail(f"{value!r} is not SRC:LEN, such as 64M:128K", param, ctx)
        try:
            return parse_size(source), parse_size(length)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


@click.command(short_help="Copy ranges of an unmounted device to one place of it.")
@click.argument("device_path", metavar="DEVICE", type=PATH)
@click.option(
    "--range",
    "ranges",
    type=_Range(),
    multiple=True,
    required=True,
    help="Where a range begins on the device, and its length. Repeat it for more ranges.",
)
@click.option("--to", "destination", type=SIZE, required=True, metavar="OFFSET", help="Where the first range goes.")
@click.option("-f", "--force", is_flag=True, help="Copy over the zone of a superblock, too.")
@format_option("table", "json")
def blkcopy(
    device_path: str, ranges: tuple[tuple[int, int], ...], destination: int, force: bool, format_name: str
) -> int:
    """Copy ranges of an unmounted device to one place of it.

    The ranges go one after the other to OFFSET: bytes on the device, with or without a suffix (64M), multiples of the
    block size. At most 4095 ranges, in all less than 128M. A sequential zone is written at its write pointer and up to
    its capacity; 'zonefs-py report' shows both.

    Output is how much of each range is known to be copied (comp_len). The exit status is 0 only if that is all.
    """
    from zonefs_py.copy.blocks import copy_blocks
    from zonefs_py.device.stack import open_stack

    check_unmounted(device_path)
    with naming(device_path), open_stack(device_path) as device:
        if destination < device.info.zone_size and not force and read_superblock(device) is not None:
            raise UserError(f"{device_path}: zone 0 holds the superblock of a zonefs; -f copies there all the same")
        copied = copy_blocks(device, ranges, destination)
        problem = copied.error
        if any(copied.completed):
            try:
                device.flush()
            except DeviceError as exc:
                # How far the copy came is to be told all the same.
                problem = problem or exc
    rows = [
        {"source": source, "length": length, "comp_len": completed}
        for (source, length), completed in zip(ranges, copied.completed, strict=True)
    ]
    if format_name == "json":
        click.echo(json.dumps({"schema": "zonefs-py/blkcopy", "version": 1, "to": destination, "ranges": rows}))
    else:
        click.echo(f"{'source':>15}{'length':>15}{'comp_len':>15}")
        for row in rows:
            click.echo("".join(f"{number:>15}" for number in row.values()))
    if problem is not None:
        complain("zonefs-py", f"{device_path}: {problem}")
        return EXIT_FAILURE
    return 0

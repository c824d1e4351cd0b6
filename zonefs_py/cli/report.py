"""``zonefs-py report``: the zones of a device as text for people or for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from zonefs_py.cli.common import is_device, naming, open_for_reading, read_superblock
from zonefs_py.cli.parameters import PATH
from zonefs_py.fs.describe import describe_zones, report_document
from zonefs_py.units import SECTOR_SIZE, format_size
from zonefs_py.zone import CONDITION_NAMES, TYPE_NAMES

Row = dict[str, Any]

FIELDS = ("number", "type", "condition", "start", "size", "capacity", "write_pointer", "file")

_CONDITIONS = {name: condition for condition, name in CONDITION_NAMES.items()}
_TYPES = {name: type for type, name in TYPE_NAMES.items()}

# As util-linux's blkzone prints them. (Its manual has "ol" for offline, the program "of".)
_BLKZONE_CONDITIONS = {0: "nw", 1: "em", 2: "oi", 3: "oe", 4: "cl", 13: "ro", 14: "fu", 15: "of"}

_TABLE = "{:>7}  {:<26}  {:<17}  {:>12}  {:>10}  {:>10}  {:>13}  {}"


@click.command(short_help="List the zones of a device.")
@click.argument("target", metavar="DEVICE|MOUNTPOINT", type=PATH)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "json", "csv", "blkzone"]),
    default="table",
    show_default=True,
    help="table is for people, blkzone looks like 'blkzone report' (512-byte sectors).",
)
def report(target: str, format_name: str) -> None:
    """List the zones of a device.

    Of a device that is not mounted, or of one that is mounted where you say. Numbers in json and csv are bytes from
    the start of the device; a write pointer is null or empty where a zone has none.
    """
    device, rows = _from_device(target) if is_device(target) else _from_daemon(target)
    for line in FORMATS[format_name](device, rows):
        sys.stdout.write(line)


def _from_device(path: str) -> tuple[str, Iterable[Row]]:
    from zonefs_py.fs.layout import file_names

    with naming(path), open_for_reading(path) as device:
        zones = device.report_zones()
        superblock = read_superblock(device)
        name = device.info.name
    files = {} if superblock is None else file_names(zones, superblock.aggregate_conventional)
    return name, describe_zones(zones, files)


def _from_daemon(mountpoint: str) -> tuple[str, Iterable[Row]]:
    from zonefs_py.control.client import ask

    answer = ask(mountpoint, {"request": "report"})
    return answer["device"], answer["zones"]


def table_lines(device: str, rows: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and a line a zone."""
    heading = ("zone", "type", "condition", "start", "size", "capacity", "write pointer", "file")
    yield _TABLE.format(*heading) + "\n"
    for row in rows:
        sizes = [
            "-" if row[field] is None else format_size(row[field])
            for field in ("start", "size", "capacity", "write_pointer")
        ]
        yield _TABLE.format(row["number"], row["type"], row["condition"], *sizes, row["file"] or "-") + "\n"


def json_lines(device: str, rows: Iterable[Row]) -> Iterator[str]:
    """Yield one JSON document, a zone on each line."""
    head, tail = json.dumps(report_document(device, [])).rsplit("]", 1)
    yield head
    separator = "\n"
    for row in rows:
        yield separator + json.dumps(row)
        separator = ",\n"
    yield "\n]" + tail + "\n"


def csv_lines(device: str, rows: Iterable[Row]) -> Iterator[str]:
    """Yield a heading and a line a zone, comma-separated (RFC 4180 but for the line ends)."""
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        yield lines.pop()
        writer.writerow(row)
    yield lines.pop()


class _Lines:
    """What csv takes for a file: keeps what is written in a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def blkzone_lines(device: str, rows: Iterable[Row]) -> Iterator[str]:
    """Yield what util-linux's ``blkzone report`` prints of such a device, in 512-byte sectors.

    A write pointer counts from its zone's start. Where there is none, it is what the kernel puts there: the whole
    length for a full zone, else 0.
    """
    for row in rows:
        condition, type = _CONDITIONS[row["condition"]], _TYPES[row["type"]]
        start, size, capacity = (row[field] // SECTOR_SIZE for field in ("start", "size", "capacity"))
        if row["write_pointer"] is not None:
            wptr = row["write_pointer"] // SECTOR_SIZE - start
        else:
            wptr = size if row["condition"] == "full" else 0
        yield (
            f"  start: 0x{start:09x}, len 0x{size:06x}, cap 0x{capacity:06x}, wptr 0x{wptr:06x} reset:0 non-seq:0,"
            f" zcond:{condition:2d}({_BLKZONE_CONDITIONS[condition]}) [type: {type:d}({type.name})]\n"
        )


FORMATS: dict[str, Callable[[str, Iterable[Row]], Iterator[str]]] = {
    "table": table_lines,
    "json": json_lines,
    "csv": csv_lines,
    "blkzone": blkzone_lines,
}

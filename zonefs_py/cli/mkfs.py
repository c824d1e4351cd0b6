"""``zonefs-py mkfs``: format a device; and the work behind ``mkzonefs``."""

from __future__ import annotations

from uuid import UUID

import click

from zonefs_py.cli.common import SlowProgress, check_no_mount_point, naming, printable
from zonefs_py.cli.parameters import PATH, features_option, label_option
from zonefs_py.config import FormatOptions, parse_format_options
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import UserError
from zonefs_py.fs.format import IDENTIFY_SIZE, format_device, identify_content
from zonefs_py.fs.superblock import Superblock
from zonefs_py.units import format_size
from zonefs_py.zone import ZoneCondition


@click.command(short_help="Format a device with zonefs.")
@click.argument("device", type=PATH)
@click.option("-f", "--force", is_flag=True, help="Format even if the device holds something.")
@click.option("-v", "--verbose", is_flag=True, help="Show the device and the new format.")
@features_option
@label_option("-L")
def mkfs(device: str, force: bool, verbose: bool, features: tuple[str, ...], label: str) -> None:
    """Format a device with zonefs.

    DEVICE is the path of a device, or the text of a stack of devices such as linear:a.zbd+b.zbd.

    Resets all sequential zones, so that all data is lost, and writes the superblock of Linux's zonefs. A device that
    holds something already is refused without -f: a format that is known, anything else where such formats begin, or
    data in any sequential zone. Conventional zones are not read further than that.

    \b
    Features:
      aggr_cnv    one file for each run of conventional zones, not one for each zone
      uid=N       owner of the files (default 0)
      gid=N       group of the files (default 0)
      perm=OCTAL  permissions of the files (default 640)
    """
    make_filesystem(device, features, label, force=force, verbose=verbose)


def make_filesystem(
    path: str, features: tuple[str, ...], label: str, *, force: bool, verbose: bool, only_formats: bool = False
) -> None:
    """Format the device *path* as the options say.

    Without *force* it must hold nothing; with *only_formats* data in zones is nothing, as long as no format begins the
    device. Raises UserError, DeviceError, OSError.
    """
    options = FormatOptions(label=label)
    for text in features:
        options = parse_format_options(text, options)
    check_no_mount_point(path)
    with naming(path), open_stack(path) as device:
        if not force:
            content = find_content(device)
            if content is None and not only_formats:
                content = find_data(device)
            if content is not None:
                raise UserError(f"{path} holds {content}; -f formats it all the same")
        with SlowProgress(device.info.nr_zones, "resetting zones") as progress:
            superblock = format_device(device, options, progress=progress)
        if verbose:
            _show(device, superblock)


def find_content(device: ZonedDevice) -> str | None:
    """Return in a few words what the start of *device* shows that it holds, None if nothing. Raises DeviceError."""
    first = device.report_zones(0, 1)[0]
    if first.condition is ZoneCondition.OFFLINE:
        return None  # it cannot be read, and formatting will be refused
    size = min(IDENTIFY_SIZE, first.size)
    if not first.is_conventional and first.data_size is not None:
        # Past a write pointer a device shows what it likes: null_blk, ones.
        size = min(size, first.data_size)
    return identify_content(device.read(0, size)) if size else None


def find_data(device: ZonedDevice) -> str | None:
    """Return in a few words in which sequential zones *device* holds data, None if in none. Raises DeviceError."""
    # Zones that do not tell are read-only or offline, and formatting leaves them alone.
    written = [zone.number for zone in device.report_zones() if not zone.is_conventional and zone.data_size]
    if not written:
        return None
    if len(written) == 1:
        return f"data in zone {written[0]}"
    return f"data in {len(written)} sequential zones, of which {written[0]} is the first"


def _show(device: ZonedDevice, superblock: Superblock) -> None:
    info = device.info
    conventional = sum(zone.is_conventional for zone in device.report_zones())
    lines = {
        "Device": printable(info.name),
        "Size": format_size(info.size),
        "Zones": f"{info.nr_zones} of {format_size(info.zone_size)}, {conventional} of them conventional",
        "Block size": str(info.block_size),
        "Label": printable(superblock.label_text) or "none",
        "UUID": str(UUID(bytes=superblock.uuid)),
        "Features": ", ".join(superblock.feature_names) or "none",
        "File owner": f"{superblock.file_uid}:{superblock.file_gid}",
        "File mode": f"{superblock.file_permissions:04o}",
    }
    for name, value in lines.items():
        click.echo(f"{name + ':':<12}{value}")

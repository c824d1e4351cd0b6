"""``mount.fuse.zonefs-py``: what mount(8) runs for ``mount -t fuse.zonefs-py`` and for an fstab line.

mount(8) looks for it in /sbin; ``zonefs-py install-mount-helper`` puts a link there.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from zonefs_py.cli.common import EXIT_FAILURE, EXIT_USAGE, run
from zonefs_py.cli.mount import MountCommand, run_mount
from zonefs_py.cli.parameters import PATH, mount_options_option
from zonefs_py.config import FILESYSTEM_TYPE, parse_mount_options
from zonefs_py.errors import OptionError, UserError

_MOUNT_STATUSES = {EXIT_USAGE: 1, EXIT_FAILURE: 32}
"""What mount(8) calls a wrong call, and a mount that failed."""

PROGRAM = f"mount.{FILESYSTEM_TYPE}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("device", type=PATH)
@click.argument("mountpoint", metavar="DIR", type=PATH)
@click.option("-f", "fake", is_flag=True, help="Check the arguments, but do not mount.")
@click.option("-n", "no_mtab", is_flag=True, help="Nothing: /etc/mtab is the kernel's own today.")
@click.option("-v", "verbose", is_flag=True, help="Say what is done.")
@mount_options_option
@click.option(
    "-t", "type_name", metavar="TYPE", help=f"The type that mount(8) was given; only {FILESYSTEM_TYPE} is right."
)
def helper(
    device: str,
    mountpoint: str,
    fake: bool,
    no_mtab: bool,
    verbose: bool,
    options: tuple[str, ...],
    type_name: str | None,
) -> int:
    """Mount DEVICE at DIR, as mount(8) asks."""
    if type_name not in (None, FILESYSTEM_TYPE):
        raise OptionError(f"type {type_name}: this helper mounts {FILESYSTEM_TYPE} only")
    parse_mount_options(",".join(options))
    if verbose:
        click.echo(f"{PROGRAM}: {device} at {mountpoint}")
    if fake:
        return 0
    return run_mount(MountCommand(device, mountpoint, ",".join(options)))


def main() -> None:
    """Entry point of the console script. The exit status is one that mount(8) gives to its own caller."""
    status = run(helper, PROGRAM)
    sys.exit(_MOUNT_STATUSES.get(status, status))


@click.command(short_help="Make 'mount -t fuse.zonefs-py' work.")
@click.option("--directory", type=PATH, default="/sbin", show_default=True, help="Where mount(8) looks.")
@click.option("--remove", is_flag=True, help="Take the link away again.")
def install_mount_helper(directory: str, remove: bool) -> None:
    """Link mount.fuse.zonefs-py into /sbin, where mount(8) looks, so that fstab lines work. Needs root."""
    link = Path(directory) / PROGRAM
    if remove:
        if not _is_ours(link):
            raise UserError(f"{link} is not a link that install-mount-helper made")
        link.unlink()
        return
    beside = Path(sys.argv[0]).absolute().with_name(PROGRAM)
    program = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if program is None:
        raise UserError(f"{PROGRAM} is not installed beside {sys.argv[0]}")
    if _is_ours(link):
        link.unlink()
    elif os.path.lexists(link):
        raise UserError(f"{link} exists, and is not a link that install-mount-helper made")
    link.symlink_to(program)
    click.echo(f"{link} -> {program}")


def _is_ours(link: Path) -> bool:
    return link.is_symlink() and link.readlink().name == PROGRAM

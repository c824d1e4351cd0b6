"""``mkzonefs``: mkfs under the name and with the options of zonefs-tools' command, for scripts that call it."""

from __future__ import annotations

import sys

import click

from zonefs_py import __version__
from zonefs_py.cli.common import run
from zonefs_py.cli.mkfs import make_filesystem
from zonefs_py.cli.parameters import PATH, features_option, label_option


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="mkzonefs", message="%(prog)s (zonefs-py) %(version)s")
@click.option("-v", "verbose", is_flag=True, help="Verbose output.")
@click.option("-f", "force", is_flag=True, help="Overwrite an existing format on the device.")
@label_option("-L")
@features_option
@click.argument("device", type=PATH)
def mkzonefs(device: str, force: bool, verbose: bool, features: tuple[str, ...], label: str) -> None:
    """Format a device with zonefs.

    All data in sequential zones is lost, whether asked with -f or not: only the start of the device is looked at.

    \b
    Features:
      aggr_cnv    one file for each run of conventional zones (default: one for each zone)
      uid=UID     owner of the files (default 0)
      gid=GID     group of the files (default 0)
      perm=OCTAL  permissions of the files (default 640)
    """
    # As the command of zonefs-tools: its -f is about formats, and scripts give it drives with data in their zones.
    make_filesystem(device, features, label, force=force, verbose=verbose, only_formats=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run(mkzonefs, "mkzonefs", argv)


if __name__ == "__main__":
    sys.exit(main())

"""The ``zonefs-py`` command. A subcommand's module is imported when it is run, to keep start-up short."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from zonefs_py import __version__
from zonefs_py.cli.common import run

# name: (module, what --help says of it). The text stands here so that --help need not import the module.
COMMANDS = {
    "create": ("zonefs_py.cli.create", "Make an emulated zoned device."),
    "clone": ("zonefs_py.cli.clone", "Make an emulated device like another device."),
    "mkfs": ("zonefs_py.cli.mkfs", "Format a device with zonefs."),
    "mount": ("zonefs_py.cli.mount", "Mount a device."),
    "umount": ("zonefs_py.cli.umount", "Unmount a device."),
    "report": ("zonefs_py.cli.report", "List the zones of a device."),
    "info": ("zonefs_py.cli.info", "Show geometry, limits, format and mount of a device."),
    "ctl": ("zonefs_py.cli.ctl", "Look at and steer a mount in use."),
    "fault": ("zonefs_py.cli.fault", "Add, list and remove faults of a mount in use."),
    "limits": ("zonefs_py.cli.limits", "Show or set the limits of a mount's copy path."),
    "blkcopy": ("zonefs_py.cli.blkcopy", "Copy ranges of an unmounted device to one place of it."),
    "copy": ("zonefs_py.cli.copy", "Copy files into zone files, out of them, or between them."),
    "zone": ("zonefs_py.cli.zone", "Reset, open, close or finish zones; make them fail."),
    "snapshot": ("zonefs_py.cli.snapshot", "Keep what an emulated device holds; list, compare and delete that."),
    "rollback": ("zonefs_py.cli.snapshot", "Make a device what it was in a snapshot."),
    "run": ("zonefs_py.cli.run", "Run a command with a fresh mounted file system."),
    "crash": ("zonefs_py.cli.crash", "Test what a program leaves behind when the power is cut."),
    "install-mount-helper": ("zonefs_py.cli.mount_helper", "Make 'mount -t fuse.zonefs-py' work."),
}


class LazyGroup(click.Group):
    """A group whose commands are those of `COMMANDS`, imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command *cmd_name*, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As `click.Group`; says what to do where mount(8) is the caller.

        Without a helper for our type it runs mount.fuse, which makes a command of the type and gives it the device.
        """
        if args[0] not in COMMANDS and "/" in args[0]:
            ctx.fail(
                f"{args[0]!r} is no command; for mount(8), also its remount, root runs"
                " 'zonefs-py install-mount-helper' once, while 'zonefs-py mount' works without"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their one line each."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="zonefs-py", message="%(prog)s %(version)s")
def zonefs_py() -> None:
    """Linux zonefs in userspace: every zone of a zoned device is a file.

    \b
    zonefs-py create disk.zbd --zones 64 --conventional 4 --zone-size 64M
    zonefs-py mkfs disk.zbd
    zonefs-py mount disk.zbd /mnt
    """


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return run(zonefs_py, "zonefs-py", argv)


if __name__ == "__main__":
    sys.exit(main())

"""What the commands share: the error boundary, progress, and telling a device from a mount point."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from zonefs_py.config import FILESYSTEM_TYPE
from zonefs_py.errors import (
    DeviceError,
    DeviceInUse,
    OptionError,
    SuperblockError,
    UserError,
    ZonefsError,
    describe_os_error,
    is_answered,
    is_denied,
    is_disconnected,
    is_missing,
)

if TYPE_CHECKING:
    from zonefs_py.device.base import ZonedDevice
    from zonefs_py.fs.superblock import Superblock

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + 2


def run(command: click.Command, program: str, argv: list[str] | None = None) -> int:
    """Run *command* with *argv* (those of the process, if None) and return its exit status.

    What a user can cause becomes one line on stderr that begins with *program*. Any other exception is a bug of
    ours and passes through, so that its traceback is seen. Warnings of ours go to stderr in the same form, unless a
    command sets up logging of its own.
    """
    _fill_standard_descriptors()
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    try:
        with _first_interrupt_unwinds():
            status = _invoke(command, program, argv)
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as exc:
        path = exc.ctx.command_path if exc.ctx else program
        # Click lists what can be chosen from in lines of their own.
        message = " ".join(exc.format_message().split())
        complain(program, f"{message.rstrip('.')} (see '{path} --help')")
        return EXIT_USAGE
    except click.ClickException as exc:
        complain(program, exc.format_message())
        return EXIT_FAILURE
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except ZonefsError as exc:
        complain(program, str(exc))
        return EXIT_USAGE if isinstance(exc, OptionError) else EXIT_FAILURE
    except OSError as exc:
        complain(program, describe_os_error(exc))
        return EXIT_FAILURE
    except (KeyboardInterrupt, click.Abort):
        complain(program, "interrupted")
        return EXIT_INTERRUPTED
    return status if isinstance(status, int) else 0


def _invoke(command: click.Command, program: str, argv: list[str] | None) -> Any:
    """Do what `click.Command.main` does, but for interrupts: it would print an empty line of its own."""
    if f"_{program}_COMPLETE".replace("-", "_").upper() in os.environ:
        return command.main(args=argv, prog_name=program)  # writes what a shell completes with, and exits
    try:
        with command.make_context(program, list(sys.argv[1:] if argv is None else argv)) as context:
            return command.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code


@contextlib.contextmanager
def _first_interrupt_unwinds() -> Iterator[None]:
    """Make the first Ctrl-C a KeyboardInterrupt, and the second, while that is cleaned up after, end the process.

    A second KeyboardInterrupt would leave the cleaning up half done too, and end in a traceback. What ignores
    Ctrl-C already (nohup) goes on to do so.
    """

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        # After an interrupt there still is a line to be written.
        if signal.getsignal(signal.SIGINT) is first:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _fill_standard_descriptors() -> None:
    """Open what of stdin, stdout and stderr is closed: else a zone's file would become one of them."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken, and all below are open by now.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", closefd=False))  # noqa: SIM115  (it stays open)


def complain(program: str, message: str) -> None:
    """Show *message* as one line of *program*'s on stderr."""
    click.echo(f"{program}: {printable(message)}", err=True)


def printable(text: str) -> str:
    """Return *text* as it can go to any terminal on one line: what is not printable is escaped."""
    encoding = sys.stderr.encoding or "ascii"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def is_device(path: str) -> bool:
    """Whether *path* is a device (that may be damaged) rather than a place where one is mounted.

    That is the path of an emulated or a block device, or the text of a stack. Raises UserError where it is neither,
    OSError where it cannot be looked at.
    """
    from zonefs_py.control.mounts import find_mount
    from zonefs_py.device.blockdev import is_block_device
    from zonefs_py.device.stack_spec import is_stack, parse_spec
    from zonefs_py.device.zone_files import DESCRIPTION_NAME

    if is_stack(path):
        parse_spec(path)
        return True
    if is_block_device(path):
        return True
    mount = find_mount(path)
    is_ours = mount is not None and mount.type == FILESYSTEM_TYPE
    try:
        # Not stat: the kernel may answer that for a mount whose daemon is gone.
        os.statvfs(path)
    except OSError as exc:
        if is_disconnected(exc):
            raise UserError(f"{path}: the daemon of this mount is gone; 'zonefs-py umount {path}' cleans up") from None
        # A plain user's mount is closed to others, root too; its socket is not closed to root. A mount without power
        # refuses everything; its daemon answers.
        if not (is_ours and (is_denied(exc) or is_answered(exc))):
            raise
    if is_ours:
        return False
    try:
        os.lstat(os.path.join(path, DESCRIPTION_NAME))
    except OSError as exc:
        if not is_missing(exc):
            raise
    else:
        return True
    if os.path.ismount(os.path.realpath(path)):
        return False
    raise UserError(
        f"{path} is neither an emulated device (it has no {DESCRIPTION_NAME}), nor a block device, nor a mount point"
    )


def check_unmounted(device: str) -> None:
    """Raise UserError if *device* is a mount point rather than a device, and whatever `is_device` raises."""
    if not is_device(device):
        raise UserError(f"{device} is a mount point: unmount it, and give the device")


def check_no_mount_point(path: str) -> None:
    """Raise UserError, with the device, if *path* is where one is mounted. Nothing else is looked at."""
    from zonefs_py.control.mounts import find_mount

    entry = find_mount(path)
    if entry is not None and entry.type == FILESYSTEM_TYPE:
        raise UserError(f"{path} is a mount point: give the device, which is {entry.source}")


@contextlib.contextmanager
def naming(device: str) -> Iterator[None]:
    """Put *device* before what a device says that failed: its own words are about zones only."""
    try:
        yield
    except DeviceError as exc:
        raise UserError(f"{device}: {exc}") from exc


def open_for_reading(device: str) -> ZonedDevice:
    """Open *device*, a path or the text of a stack, to look at it. Raises like `open_stack`."""
    from zonefs_py.device.stack import open_stack

    try:
        return open_stack(device, read_only=True)
    except DeviceInUse as exc:
        raise DeviceInUse(f"{exc}; if it is mounted, give the mount point instead") from exc


def read_superblock(device: ZonedDevice) -> Superblock | None:
    """Return the superblock of *device*; None if it has none that we can read."""
    from zonefs_py.fs.superblock import SUPERBLOCK_SIZE, Superblock

    try:
        return Superblock.unpack(device.read(0, SUPERBLOCK_SIZE))
    except (SuperblockError, DeviceError):
        return None


class SlowProgress:
    """A progress callback: shows a bar on a terminal, and only if the work takes longer than a second."""

    def __init__(self, length: int, label: str, spent: float = 0) -> None:
        """*length* is the number of steps; *spent* the seconds that the work has taken already."""
        self._length = length
        self._label = label
        self._started = time.monotonic() - spent
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int) -> None:
        """Take note that *done* of all steps are done."""
        if self._bar is None:
            if not sys.stderr.isatty() or time.monotonic() - self._started < 1:
                return
            bar = click.progressbar(length=self._length, label=self._label, file=sys.stderr)
            self._bar = bar.__enter__()
        self._bar.update(done - self._bar.pos)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, trace)

"""``zonefs-py run``: a command with a fresh mounted file system that goes away with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Unpack

import click

from zonefs_py.cli.common import complain
from zonefs_py.cli.geometry_options import GeometryOptions, geometry_options
from zonefs_py.cli.parameters import PATH, mount_options_option
from zonefs_py.config import parse_mount_options
from zonefs_py.device.choice import DeviceChoice
from zonefs_py.errors import OptionError, UserError
from zonefs_py.testing.fresh import fresh_device, stack_text
from zonefs_py.testing.scratch import Scratch, ScratchMount

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""As in a shell (POSIX, 2.8.2)."""

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_SENT_BY_KERNEL = 0x80
"""SI_KERNEL: a signal that a terminal sent, and so to the command as well."""

_LOG_LINES = 5


@click.command(
    short_help="Run a command with a fresh mounted file system.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@geometry_options
@mount_options_option
@click.option("--fault", "rules", type=PATH, metavar="FILE", help="Fault rules for the device (docs/stacks.md).")
@click.option("--write-cache", is_flag=True, help="Give the device a volatile write cache.")
@click.option("--features", default="", metavar="FEATURES", help="What mkfs has after -o: aggr_cnv, perm=OCTAL, ...")
@click.option("--log-file", type=PATH, help="Keep the daemon's log in this file.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]...")
def run(
    options: tuple[str, ...],
    rules: str | None,
    write_cache: bool,
    features: str,
    log_file: str | None,
    command: tuple[str, ...],
    **said: Unpack[GeometryOptions],
) -> int:
    """Run COMMAND with a fresh mounted file system.

    A device is made, formatted so that files belong to the caller, and mounted; all of it is removed when COMMAND ends.
    Without other options it has 16 zones of 4 MiB, 2 of them conventional.

    \b
    COMMAND finds in its environment
      ZONEFS_MNT     where the file system is mounted
      ZONEFS_DEVICE  the directory of the emulated device

    The exit status is COMMAND's, 128 and the number of the signal if one ended it, 127 if there is no such command;
    1 also if the daemon of the mount failed. Signals are passed on to COMMAND.
    """
    mount_options = ",".join(options)
    if parse_mount_options(mount_options).remount:
        raise OptionError("mount option remount: there is nothing to remount yet")
    if not command[0]:
        raise OptionError("the command is empty")
    choice = DeviceChoice(**said).completed()
    log = os.path.abspath(log_file) if log_file is not None else None
    with Scratch() as scratch:
        device = fresh_device(scratch.path / "device", choice, features)
        text = stack_text(str(device), rules=rules, write_cache=write_cache)
        mount = scratch.mount(text, mount_options, log_file=log)
        environment = {**os.environ, "ZONEFS_MNT": str(mount.path), "ZONEFS_DEVICE": str(device)}
        # Not before: the daemon is not to inherit it.
        with _signals_blocked() as mask:
            status = _run_command(command, environment, mask, scratch)
        return _finish(mount, status)


@contextmanager
def _signals_blocked() -> Iterator[set[signal.Signals]]:
    """Keep signals until they are waited for; gives the mask that a command is to have."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS | {signal.SIGCHLD})
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        # What came after the command has ended was for it.
        while signal.sigtimedwait(_SIGNALS, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_command(
    command: tuple[str, ...], environment: Mapping[str, str], mask: set[signal.Signals], scratch: Scratch
) -> int:
    try:
        pid = _start(command, environment, mask, scratch)
    except FileNotFoundError:
        complain("zonefs-py", f"{command[0]}: command not found")
        return EXIT_NOT_FOUND
    except OSError as exc:
        complain("zonefs-py", f"{command[0]}: {exc.strerror}")
        return EXIT_NOT_EXECUTABLE
    # The command is reaped last: until then its number is nobody else's.
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        came = signal.sigwaitinfo(_SIGNALS | {signal.SIGCHLD})
        if came.si_signo != signal.SIGCHLD and came.si_code != _SENT_BY_KERNEL:
            os.kill(pid, came.si_signo)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _start(
    command: tuple[str, ...], environment: Mapping[str, str], mask: set[signal.Signals], scratch: Scratch
) -> int:
    """Start *command* and return its pid. It does not begin before *scratch* watches it. Raises OSError."""
    gate, opener = os.pipe()
    failure, reporter = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        _become(command, environment, mask, gate, reporter)
    os.close(gate)
    os.close(reporter)
    scratch.watch(pid)
    os.write(opener, b"go")
    os.close(opener)
    with open(failure, "rb") as stream:
        number = stream.read()
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return pid


def _become(
    command: tuple[str, ...], environment: Mapping[str, str], mask: set[signal.Signals], gate: int, reporter: int
) -> NoReturn:
    """The child's side: become *command* when something comes through *gate*; tell *reporter* why that fails."""
    try:
        if os.read(gate, 2):  # else our parent was killed
            for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored_by_python, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvpe(command[0], command, environment)
    except OSError as exc:
        os.write(reporter, str(exc.errno).encode())
    finally:
        os._exit(EXIT_NOT_FOUND)


def _finish(mount: ScratchMount, status: int) -> int:
    """Unmount, and say so if the daemon has met an error that the command may not have noticed."""
    try:
        ended = mount.unmount(lazy=True)
    except UserError as exc:
        complain("zonefs-py", str(exc))
        return status or 1
    if ended == 0:
        return status
    how = f"exit status {ended}" if ended > 0 else signal.Signals(-ended).name
    complain("zonefs-py", f"the daemon of the mount failed ({how}); the end of its log:")
    for line in _tail(mount.log_file):
        complain("zonefs-py", f"  {line}")
    return status or 1


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return []

"""Cleans up after a process with scratch mounts, whatever becomes of it. A process of its own, started by `scratch`.

It reads from its standard input what there is to clean up, and does it when that ends: the owner closes its end, or has
been killed. ``command PID`` is a process that must not outlive the owner, ``daemon PID`` one that serves a mount.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time

from zonefs_py.cli.mount import clean_up, is_stale, unmount
from zonefs_py.control.mounts import MountEntry, list_mounts
from zonefs_py.errors import MountError

PATIENCE_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed."""


def main() -> int:
    """Wait for the owner of the directory that is the only argument, and clean up after it."""
    path = sys.argv[1]
    outlive_signals()
    commands: list[int] = []
    daemons: list[int] = []
    for line in sys.stdin:
        kind, _, pid = line.partition(" ")
        # It may have ended by now; nobody else has its number as long as its parent has not waited for it.
        with contextlib.suppress(ProcessLookupError):
            (commands if kind == "command" else daemons).append(os.pidfd_open(int(pid)))
    for command in commands:
        end(command)
    clean_up_directory(path, daemons)
    return 0


def outlive_signals() -> None:
    """Let this process end when its standard input does, not by a signal that means its parent too."""
    # Ctrl-C is for the command, and what comes of it for its parent. We end when that has.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def clean_up_directory(path: str, daemons: list[int]) -> None:
    """Unmount what is mounted below *path*, see that *daemons* (pidfds) end, and remove *path*.

    What cannot be unmounted is left, and so is *path* then.
    """
    unmount_below(path)
    for daemon in daemons:
        end(daemon)
    if not _mounts_below(path):
        shutil.rmtree(path, ignore_errors=True)


def unmount_below(path: str) -> None:
    """Unmount what is mounted below *path*, as far as that can be done."""
    for entry in reversed(_mounts_below(path)):
        with contextlib.suppress(MountError):
            if is_stale(entry.mountpoint):
                clean_up(entry)
                continue
            try:
                unmount(entry, lazy=False)
            except MountError:
                # Somebody has a file open. The daemon ends with that, if it is not asked to before.
                unmount(entry, lazy=True)


def _mounts_below(path: str) -> list[MountEntry]:
    return [entry for entry in list_mounts() if entry.mountpoint.startswith(f"{os.path.realpath(path)}/")]


def end(process: int) -> None:
    """See that the process that the pidfd *process* stands for ends: ask it, wait, and kill it if need be."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if has_ended(process):
            return
        try:
            signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            return
        wait(process, PATIENCE_SECONDS)


def has_ended(process: int) -> bool:
    """Whether the process of a pidfd has ended."""
    return bool(select.select([process], [], [], 0)[0])


def wait(process: int, seconds: float) -> bool:
    """Wait until the process of a pidfd has ended, *seconds* at most; return whether it has."""
    until = time.monotonic() + seconds
    return bool(select.select([process], [], [], max(0.0, until - time.monotonic()))[0])


if __name__ == "__main__":
    sys.exit(main())

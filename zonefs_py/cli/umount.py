"""``zonefs-py umount``: unmount, and come back when the daemon has let go of the device."""

from __future__ import annotations

import contextlib
import os
import select

import click

from zonefs_py.cli.mount import clean_up, is_stale, unmount
from zonefs_py.cli.parameters import PATH
from zonefs_py.config import FILESYSTEM_TYPE
from zonefs_py.control.client import ask_daemon
from zonefs_py.control.mounts import MountEntry, find_mount, find_mount_of
from zonefs_py.errors import MountError

PATIENCE_SECONDS = 120


@click.command(short_help="Unmount a device.")
@click.argument("mountpoint", metavar="DIR|DEVICE", type=PATH)
@click.option("-l", "--lazy", is_flag=True, help="Detach now, even if files are open; the daemon ends when they close.")
def umount(mountpoint: str, lazy: bool) -> None:
    """Unmount what is mounted at the directory DIR, or a mounted DEVICE.

    Returns when everything is on the device and the device is free again. A mount whose daemon has died is cleaned up.
    Calls that are stuck by a fault fail first: who waits for them must be able to let go of the mount.
    """
    entry = find_mount(mountpoint)
    if entry is None or entry.type != FILESYSTEM_TYPE:
        # A device may itself be where something else is mounted.
        entry = find_mount_of(mountpoint) or entry
    if entry is None:
        raise MountError(f"{mountpoint} is not mounted")
    mountpoint = entry.mountpoint
    if entry.type != FILESYSTEM_TYPE:
        raise MountError(f"{mountpoint} is a mount of type {entry.type}, not of zonefs-py")
    if os.geteuid() not in (0, entry.user_id):
        raise MountError(f"{mountpoint} is a mount of user {entry.user_id}: only they and root may unmount it")
    if is_stale(entry.mountpoint):
        clean_up(entry)
        return
    daemon = _open_daemon(entry)
    with contextlib.suppress(MountError):
        ask_daemon(entry, {"request": "release-stuck", "fail": True})
    try:
        unmount(entry, lazy=lazy)
        if daemon is not None and not lazy:
            _wait_for_end(daemon, mountpoint)
    finally:
        if daemon is not None:
            os.close(daemon)


def _open_daemon(entry: MountEntry) -> int | None:
    """Return a pidfd of the daemon; None if it cannot be asked who it is, or has just ended."""
    try:
        return os.pidfd_open(ask_daemon(entry, {"request": "ping"})["pid"])
    except (MountError, ProcessLookupError):
        return None


def _wait_for_end(daemon: int, mountpoint: str) -> None:
    ended, _, _ = select.select([daemon], [], [], PATIENCE_SECONDS)
    if not ended:
        raise MountError(f"{mountpoint} is unmounted, but its daemon still works after {PATIENCE_SECONDS} s")

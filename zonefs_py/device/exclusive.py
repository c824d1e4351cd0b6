"""Exclusive use of a block device: by flock(2) among ourselves, by O_EXCL against the kernel's users of it.

Writers of ours keep an exclusive lock and O_EXCL, readers keep a shared lock and try O_EXCL for a moment only, because
it knows no sharing. systemd's udev takes a shared lock while it looks at a device
(https://systemd.io/BLOCK_DEVICE_LOCKING/), and whoever closes a device after writing makes it look: so a device that is
busy for no reason that lasts is tried again for a while.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from zonefs_py.device.locks import lock_holder
from zonefs_py.device.sysfs import BlockFacts
from zonefs_py.errors import DeviceInUse, is_busy

PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.02

R = TypeVar("R")


def lock(path: str, *, exclusive: bool) -> int:
    """Return a descriptor that holds a lock on the block device *path* while open. Raises DeviceInUse, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB
    try:
        _patiently(path, lambda: fcntl.flock(descriptor, operation), lambda: _locked_by(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_exclusively(path: str, facts: BlockFacts, open_device: Callable[[], R]) -> R:
    """Return what *open_device* does, which opens *path* with O_EXCL. Raises DeviceInUse, or what it raises."""
    return _patiently(path, open_device, lambda: _used_by(facts))


def check_unused(path: str, facts: BlockFacts) -> None:
    """Raise DeviceInUse if the kernel, or a writer that asks for O_EXCL, uses *path*."""
    descriptor = open_exclusively(path, facts, lambda: os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    os.close(descriptor)


def _patiently(path: str, attempt: Callable[[], R], find_reason: Callable[[], str | None]) -> R:
    """Return what *attempt* returns; while the device is busy try again, unless there is a reason that lasts."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return attempt()
        except OSError as exc:
            if not is_busy(exc):
                raise
            reason = find_reason()
            if reason is None and time.monotonic() > deadline:
                reason = "by another process, or by the kernel"
        if reason is not None:
            raise DeviceInUse(f"{path} is in use {reason}")
        time.sleep(_LOOK_SECONDS)


def _locked_by(path: str) -> str | None:
    pid = lock_holder(os.stat(path))
    if pid is None:
        return None
    try:
        program = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return None
    return None if "udev" in program else f"by pid {pid}"


def _used_by(facts: BlockFacts) -> str | None:
    if facts.holders:
        return f"by {', '.join(facts.holders)}"
    number = f"{os.major(facts.number)}:{os.minor(facts.number)}".encode()
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        words = line.split(b" ")
        if words[2] == number:
            return f"as the file system at {os.fsdecode(words[4])}"
    return None

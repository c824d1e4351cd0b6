"""The lock on an emulated device's directory: one writer, or readers."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from zonefs_py.device.locks import lock_holder
from zonefs_py.errors import DeviceInUse


def lock_directory(directory: int, path: Path, *, exclusive: bool) -> None:
    """Lock *path*, open as *directory*, as long as that is open. Raises DeviceInUse, with the holder if it is known."""
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(directory, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock_holder(os.fstat(directory))
        raise DeviceInUse(f"{path} is in use by {f'pid {holder}' if holder else 'another process'}") from None

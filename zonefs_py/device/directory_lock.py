"""The lock on an emulated device's directory: one writer, or readers."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from zonefs_py.errors import DeviceInUse


def lock_directory(directory: int, path: Path, *, exclusive: bool) -> None:
    """Lock *path*, open as *directory*, as long as that is open. Raises DeviceInUse, with the holder if it is known."""
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(directory, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _lock_holder(directory)
        raise DeviceInUse(f"{path} is in use by {f'pid {holder}' if holder else 'another process'}") from None


def _lock_holder(directory: int) -> int | None:
    status = os.fstat(directory)
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    # "1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF"; a blocked one has "->" as its second word.
    locks = [words for line in lines if len(words := line.split()) > 5 and words[1] == "FLOCK"]
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    # On btrfs and overlayfs stat gives another device number than the kernel uses here: then the inode must do.
    for end in (f"{device}:{status.st_ino}", f":{status.st_ino}"):
        for words in locks:
            if words[5].endswith(end):
                return int(words[4])
    return None

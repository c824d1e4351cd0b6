"""Who holds a lock, for messages that say so."""

from __future__ import annotations

import os
from pathlib import Path


def lock_holder(status: os.stat_result) -> int | None:
    """Return the pid of a process that holds a flock(2) on the file that *status* is of; None if it cannot be told."""
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

"""Small files of the host that users write or move about, read with nothing taken for granted."""

from __future__ import annotations

import os
import stat


def read_small_file(path: str, max_size: int, flags: int = 0, directory: int | None = None) -> bytes | None:
    """Return the content of *path*; None if it is no regular file, or has more than *max_size* bytes.

    *flags* go to open(2) too; a relative *path* is looked up in *directory*, an open descriptor. Raises OSError.
    """
    # Not blocking: a named pipe of that name must not stop us before it is recognised.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags, dir_fd=directory)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_size:
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        return file.read()

"""Files of the host, read with nothing taken for granted."""

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


def read_fully(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill *buffer* with what is at *offset* of an open file; return how much there was: less only where the file ends.

    Raises OSError, and then the buffer may hold anything.
    """
    done = os.preadv(descriptor, [buffer], offset)
    # Short is not the end: read(2) gives what is before a bad sector, and the error only to who asks again. Nor does it
    # give more than 0x7ffff000 bytes at once.
    while done < len(buffer) and (more := os.preadv(descriptor, [buffer[done:]], offset + done)):
        done += more
    return done

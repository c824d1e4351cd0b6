"""What tests ask of a file system in a process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from zonefs_py.errors import ZonefsError
from zonefs_py.fs.filesystem import Filesystem


def size_of(fs: Filesystem, name: str) -> int:
    """The size of a file."""
    return fs.getattr(fs.resolve(name)).size


def content(fs: Filesystem, name: str) -> bytes:
    """The whole of a file."""
    handle = fs.open(name, os.O_RDONLY)
    data = fs.read(handle, 0, size_of(fs, name))
    fs.release(handle)
    return data


@contextlib.contextmanager
def may_be_refused(*errnos: str) -> Iterator[None]:
    """Let an error of ours with one of *errnos* pass."""
    try:
        yield
    except ZonefsError as exc:
        if exc.errno_name not in errnos:
            raise

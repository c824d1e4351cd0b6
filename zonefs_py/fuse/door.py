"""Loads the C extension that stands between pyfuse3 and libfuse, before pyfuse3; see _door.c for what it does.

Whoever needs pyfuse3 imports it from here, so that the order is always right.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from zonefs_py.errors import MountError


def _load_globally(name: str) -> ModuleType:
    # The dynamic linker looks for pyfuse3's undefined symbols in what was loaded with RTLD_GLOBAL first.
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MountError(f"the C extension {name} cannot be loaded ({exc}); install zonefs-py again") from exc
    finally:
        sys.setdlopenflags(flags)


_door = _load_globally("zonefs_py.fuse._door")

import pyfuse3 as pyfuse3  # noqa: E402  (must come after the door)

NODE_OFFSET: int = _door.NODE_OFFSET
"""What a FUSE node id is above the inode number, but for the root, whose node id is 1."""

ROOT_NODE = 1

_DIRECT: int = _door.HANDLE_DIRECT
_APPEND: int = _door.HANDLE_APPEND
_FLAGS = _DIRECT | _APPEND


def split_handle(value: int) -> tuple[int, bool, bool]:
    """Return the handle, and whether the open file has O_DIRECT and O_APPEND now, from a read's or write's handle."""
    return value & ~_FLAGS, bool(value & _DIRECT), bool(value & _APPEND)


def libfuse_version() -> str:
    """The version of the libfuse in use."""
    version: str = _door.libfuse_version()
    return version


def check_in_use() -> None:
    """Raise MountError unless pyfuse3's session was made through the door; call it after ``pyfuse3.init``."""
    if not _door.sessions():
        raise MountError(
            "pyfuse3 did not come through zonefs-py's C extension (is it linked statically, or was it imported"
            " before zonefs_py.fuse?); the file system would give wrong answers, so it is not mounted"
        )

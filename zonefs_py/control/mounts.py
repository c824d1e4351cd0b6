"""Which zonefs-py mounts there are, from /proc/self/mountinfo (proc(5)): no request reaches a mount for it."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from zonefs_py.config import FILESYSTEM_TYPE
from zonefs_py.device.stack_spec import device_paths, parse_spec
from zonefs_py.errors import MountError, UserError

_ESCAPE = re.compile(rb"\\([0-7]{3})")


class MountEntry(NamedTuple):
    """A mounted file system: device number as text (``0:45``), mount point, type, source, and all options."""

    device: str
    mountpoint: str
    type: str
    source: str
    options: frozenset[str]

    @property
    def user_id(self) -> int:
        """The user whose daemon serves a FUSE mount."""
        for option in self.options:
            name, _, value = option.partition("=")
            if name == "user_id" and value.isdecimal():
                return int(value)
        return 0


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def list_mounts() -> list[MountEntry]:
    """Return everything that is mounted, in the order in which it was."""
    entries = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        _, _, device, _, mountpoint, flags, *_ = before.split(b" ")
        type_, source, super_options = after.split(b" ", 2)
        options = frozenset(_unescape(flags).split(",") + _unescape(super_options).split(","))
        entries.append(MountEntry(device.decode(), _unescape(mountpoint), _unescape(type_), _unescape(source), options))
    return entries


def find_mount(mountpoint: str) -> MountEntry | None:
    """Return the topmost mount at *mountpoint*, whatever its type; None if nothing is mounted there.

    Links and ``..`` are followed as the kernel does. The mount may be dead.
    """
    # Not strict: what cannot be looked at, such as a dead mount, counts as no link.
    real = os.path.realpath(mountpoint)
    found = [entry for entry in list_mounts() if entry.mountpoint == real]
    return found[-1] if found else None


def find_mount_of(device: str) -> MountEntry | None:
    """Return the mount of *device*, the text of a stack, or the path of a device, also as a part of one; None if none.

    Raises MountError if there are several.
    """
    wanted = _identities(device)
    ours = (entry for entry in list_mounts() if entry.type == FILESYSTEM_TYPE)
    found = [entry for entry in ours if entry.source == device or wanted & _identities(entry.source)]
    if len(found) > 1:
        raise MountError(f"{device} is mounted at {' and '.join(one.mountpoint for one in found)}: say which")
    return found[0] if found else None


def _identities(device: str) -> set[tuple[int, int]]:
    """The device and inode numbers of the directories that *device* is made of, as far as they can be looked at."""
    found = set()
    with contextlib.suppress(UserError):
        for path in device_paths(parse_spec(device)):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found.add((status.st_dev, status.st_ino))
    return found

"""Where the control socket of a mount is: one directory a user, one socket a mount, found from the mount alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from zonefs_py.control.mounts import MountEntry
from zonefs_py.errors import MountError


def runtime_directory(uid: int) -> Path:
    """Return the directory of *uid*'s control sockets. It does not depend on the environment: others must find it."""
    if uid == 0:
        return Path("/run/zonefs-py")
    session = Path(f"/run/user/{uid}")
    try:
        if session.stat().st_uid == uid:
            return session / "zonefs-py"
    except OSError:
        pass
    return Path(f"/tmp/zonefs-py-{uid}")


def check_runtime_directory(directory: Path, uid: int) -> None:
    """Raise MountError unless *directory* is *uid*'s alone: in /tmp somebody else may have made it first."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise MountError(f"{directory} is not a directory of user {uid} alone; remove it and mount again")


def make_runtime_directory() -> Path:
    """Make the directory of this user's sockets, mode 0700, and return it. Raises MountError, OSError."""
    uid = os.geteuid()
    directory = runtime_directory(uid)
    directory.mkdir(mode=0o700, exist_ok=True)
    check_runtime_directory(directory, uid)
    return directory


@contextlib.contextmanager
def sockets_locked(directory: Path) -> Iterator[None]:
    """Hold off others that make or remove sockets in *directory*. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_dead_socket(mount: MountEntry) -> None:
    """Remove what the daemon of *mount*, which has died, left of its control socket.

    To be called while *mount* is still there: afterwards a new mount may get its device number, and so its socket's
    name. Does nothing where the socket is not there or not ours to remove; it is in the way of nobody.
    """
    path = socket_path(mount)
    with contextlib.suppress(OSError, MountError):
        check_runtime_directory(path.parent, mount.user_id)
        with sockets_locked(path.parent):
            path.unlink()


def socket_path(mount: MountEntry) -> Path:
    """Return the path of *mount*'s control socket."""
    return runtime_directory(mount.user_id) / f"{mount.device.replace(':', '-')}.sock"

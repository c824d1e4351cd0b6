"""Where the control socket of a mount is: one directory a user, one socket a mount, found from the mount alone.

The directory is nobody else's, and does not go before the mount does: neither with a session, nor with an environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zonefs_py.control.mounts import MountEntry
from zonefs_py.errors import MountError


def runtime_directory(uid: int) -> Path:
    """Return the directory of *uid*'s control sockets, unless somebody else has made one of that name."""
    return Path("/run/zonefs-py") if uid == 0 else Path(f"/tmp/zonefs-py-{uid}")


def private_directories(uid: int) -> list[Path]:
    """Return the directories that *uid*'s control sockets may be in. They are *uid*'s alone.

    In /tmp anybody can take the first one's name, but not all names that begin with it.
    """
    first = runtime_directory(uid)
    others = [] if uid == 0 else sorted(first.parent.glob(f"{first.name}-*"))
    found = []
    for directory in (first, *others):
        with contextlib.suppress(OSError, MountError):
            check_runtime_directory(directory, uid)
            found.append(directory)
    return found


def check_runtime_directory(directory: Path, uid: int) -> None:
    """Raise MountError unless *directory* is *uid*'s alone: in /tmp somebody else may have made it. Raises OSError."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o077:
        raise MountError(f"{directory} is not a directory of user {uid} alone; remove it and mount again")


def make_runtime_directory() -> Path:
    """Return a directory for this user's sockets, mode 0700; make it if there is none. Raises MountError, OSError."""
    uid = os.geteuid()
    directory = runtime_directory(uid)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        found = private_directories(uid)
        if found:
            return found[0]
        if uid != 0:
            return Path(tempfile.mkdtemp(prefix=f"{directory.name}-", dir=directory.parent))
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
    remove_socket(socket_path(mount), mount.user_id)


def remove_socket(path: Path, uid: int, inode: int | None = None) -> None:
    """Remove *uid*'s socket *path*, if it is there, and has the number *inode*. It may be gone with its directory."""
    with contextlib.suppress(OSError, MountError):
        check_runtime_directory(path.parent, uid)
        with sockets_locked(path.parent):
            if inode is None or path.lstat().st_ino == inode:
                path.unlink()


def socket_name(mount: MountEntry) -> str:
    """Return the name of *mount*'s control socket in its directory."""
    return f"{mount.device.replace(':', '-')}.sock"


def socket_path(mount: MountEntry) -> Path:
    """Return the path of *mount*'s control socket; where there is none, of where it would be."""
    name = socket_name(mount)
    places = [directory / name for directory in private_directories(mount.user_id)]
    # Not Path.exists: that minds a directory that we may not enter.
    return next((path for path in places if os.path.lexists(path)), runtime_directory(mount.user_id) / name)

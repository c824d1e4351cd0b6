"""Asks the daemon of a mount over its control socket: one JSON line there, one back."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from zonefs_py.config import FILESYSTEM_TYPE
from zonefs_py.control.mounts import MountEntry, find_mount
from zonefs_py.control.socket_path import check_runtime_directory, runtime_directory, socket_path
from zonefs_py.errors import MountError

TIMEOUT_SECONDS = 60.0


def ask(mountpoint: str, request: dict[str, Any]) -> Any:
    """Send *request* to the daemon that serves *mountpoint* and return its result.

    What was done through the mount before is taken into account in the answer. Raises MountError: not a mount of
    ours, no such daemon, or what the daemon says.
    """
    mount = find_mount(mountpoint)
    if mount is None or mount.type != FILESYSTEM_TYPE:
        raise MountError(f"{mountpoint} is not a mount point of zonefs-py")
    try:
        # close(2) does not wait for the file system; a request that does, sent after it, comes to the daemon after it.
        os.statvfs(mountpoint)
    except OSError as exc:
        raise MountError(f"{mountpoint}: its daemon does not answer ({exc.strerror}); 'zonefs-py umount' it") from None
    return ask_daemon(mount, request)


def ask_daemon(mount: MountEntry, request: dict[str, Any]) -> Any:
    """Send *request* to the daemon of *mount*, without a look at the mount itself. Raises MountError."""
    path = socket_path(mount)
    try:
        check_runtime_directory(runtime_directory(mount.user_id), mount.user_id)
        answer = _exchange(path, request)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise MountError(f"{mount.mountpoint}: its control socket {path} does not answer ({reason})") from None
    if not answer.get("ok"):
        raise MountError(f"{mount.mountpoint}: {answer.get('error', 'the daemon refused without a reason')}")
    return answer["result"]


def _exchange(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            answer = json.loads(stream.readline())
    if not isinstance(answer, dict):
        raise ValueError("no JSON object")
    return answer

"""The daemon's side of the control socket: one JSON request a line, answered when it has taken effect.

The socket is in a directory of the user's own and has mode 0600. A request that is malformed or huge changes nothing;
it is answered with an error, or the connection is closed.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import platform
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from zonefs_py import __version__
from zonefs_py.config import FILESYSTEM_TYPE, ErrorsPolicy
from zonefs_py.control import live
from zonefs_py.control.mounts import MountEntry, find_mount
from zonefs_py.control.socket_path import make_runtime_directory, remove_socket, socket_name, sockets_locked
from zonefs_py.device.description import shorten
from zonefs_py.errors import MountError, UserError, ZonefsError
from zonefs_py.fs.describe import (
    describe_device,
    describe_format,
    describe_zone,
    info_document,
    limits_document,
    report_document,
)
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.zone import CONDITION_NAMES, ZoneCondition

log = logging.getLogger(__name__)

ZONES_PER_PART = 512
MAX_REQUEST_SIZE = 16 * 1024 * 1024
IDLE_SECONDS = 60.0

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid; see unix(7)."""

_POLICIES = {policy.value: policy for policy in ErrorsPolicy}
_FORCED = {CONDITION_NAMES[condition]: condition for condition in (ZoneCondition.READONLY, ZoneCondition.OFFLINE)}


class Control:
    """What can be asked of a mounted file system. Each method with a name in `REQUESTS` answers one request."""

    def __init__(
        self, filesystem: Filesystem, mount: MountEntry, options: Callable[[], str], fuse: dict[str, Any]
    ) -> None:
        """*options* gives the mount options in force; *fuse* what is known of the FUSE side, for ``info``."""
        self._fs = filesystem
        self._mount = mount
        self._options = options
        self._fuse = fuse

    def answer(self, request: Any) -> dict[str, Any]:
        """Return the answer to *request*, a decoded JSON value. Never raises for anything a client can send."""
        try:
            name = request.get("request") if isinstance(request, dict) else None
            if name != "ping":  # by which the daemon shows that it lives
                self._fs.until_closed()
            if isinstance(name, str) and name in live.REQUESTS:
                return {"ok": True, "result": live.REQUESTS[name](self._fs, request)}
            handler = self.REQUESTS.get(name) if isinstance(name, str) else None
            if handler is None:
                known = ", ".join(sorted([*self.REQUESTS, *live.REQUESTS]))
                raise UserError(f"unknown request {str(name)[:40]!r}; known are {known}")
            return {"ok": True, "result": handler(self, request)}
        except ZonefsError as exc:
            words = str(exc)
            if not self._fs.powered and not isinstance(exc, UserError):
                words += f"; 'zonefs-py ctl {self._mount.mountpoint} power-on' brings it back"
            return {"ok": False, "error": words, "errno": exc.errno_name}
        except Exception:
            # A bug of ours. It must not leave a client without an answer, nor the daemon with less threads.
            log.exception("bug: a control request failed")
            error = ZonefsError("a bug of zonefs-py; its log has the rest")
            return {"ok": False, "error": str(error), "errno": error.errno_name}

    def _ping(self, request: dict[str, Any]) -> dict[str, Any]:
        options = self._fs.options
        return {
            "pid": os.getpid(),
            "errors": options.errors.value,
            "explicit_open": options.explicit_open,
            "read_only": self._fs.read_only,
        }

    def _info(self, request: dict[str, Any]) -> dict[str, Any]:
        fs = self._fs
        return info_document(
            describe_device(fs.info, fs.device.report_zones()),
            describe_format(fs.superblock),
            {
                "mountpoint": self._mount.mountpoint,
                "options": self._options(),
                "pid": os.getpid(),
                "read_only": fs.read_only,
                **fs.counters._asdict(),
            },
            {"zonefs_py": __version__, "python": platform.python_version(), **self._fuse["versions"]},
            {**self._fuse["capabilities"], "copy_methods": [method.value for method in fs.info.copy_methods]},
            copy={
                "limits": asdict(fs.copy_engine.limits),
                "engines": {engine.value: asdict(counters) for engine, counters in fs.copy_engine.counters.items()},
            },
        )

    def _report(self, request: dict[str, Any]) -> dict[str, Any]:
        zones = (describe_zone(zone, file) for zone, file in self._fs.report())
        return {**report_document(self._fs.info.name, []), "zones": zones}

    def _force_condition(self, request: dict[str, Any]) -> None:
        device = self._fs.device
        zones = request.get("zones")
        name = request.get("condition")
        valid = isinstance(zones, list) and all(
            isinstance(number, int) and not isinstance(number, bool) and 0 <= number < device.info.nr_zones
            for number in zones
        )
        if not valid:
            raise UserError(f"zones must be a list of numbers below {device.info.nr_zones}")
        if name is not None and (not isinstance(name, str) or name not in _FORCED):
            raise UserError(f"condition must be null or one of {', '.join(_FORCED)}")
        assert isinstance(zones, list)
        device.force_conditions(zones, None if name is None else _FORCED[name])

    def _remount(self, request: dict[str, Any]) -> None:
        options = self._fs.options
        for name, value in request.items():
            if name == "errors":
                if not isinstance(value, str) or value not in _POLICIES:
                    raise UserError(f"errors must be one of {', '.join(_POLICIES)}")
                options = replace(options, errors=_POLICIES[value])
            elif name in ("explicit_open", "read_only"):
                if not isinstance(value, bool):
                    raise UserError(f"{name} must be true or false")
                changes: dict[str, Any] = {name: value}
                options = replace(options, **changes)
            elif name != "request":
                raise UserError(f"remount cannot change {str(name)[:40]!r}")
        self._fs.remount(options)

    def _copy_limits(self, request: dict[str, Any]) -> dict[str, Any]:
        return limits_document(self._fs.info.name, asdict(self._fs.copy_engine.limits))

    def _set_copy_limit(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._set_copy_limits({"limits": {str(request.get("name")): request.get("value")}})

    def _set_copy_limits(self, request: dict[str, Any]) -> dict[str, Any]:
        values = request.get("limits")
        if not isinstance(values, dict):
            raise UserError("limits must be an object of names and numbers")
        for name, value in values.items():
            if not name.isprintable():
                raise UserError(f"there is no limit {shorten(name)}")  # in one line
            if not isinstance(value, int) or isinstance(value, bool):
                raise UserError(f"{name[:40]}: the value must be a whole number")
        self._fs.copy_engine.set_limits(values)
        log.info("copy limits set: %s", values)
        return self._copy_limits(request)

    REQUESTS: ClassVar[dict[str, Callable[[Control, dict[str, Any]], Any]]] = {
        "ping": _ping,
        "info": _info,
        "report": _report,
        "force-condition": _force_condition,
        "remount": _remount,
        "copy-limits": _copy_limits,
        "set-copy-limit": _set_copy_limit,
        "set-copy-limits": _set_copy_limits,
    }


def encode(answer: dict[str, Any]) -> Iterator[bytes]:
    """Yield a line of JSON, in parts: ``zones`` of a result, its last entry, may be an iterator over very many."""
    result = answer.get("result")
    if not isinstance(result, dict) or not isinstance(zones := result.get("zones"), Iterator):
        yield json.dumps(answer).encode() + b"\n"
        return
    head, tail = json.dumps({**answer, "result": {**result, "zones": []}}).rsplit("]", 1)
    yield head.encode()
    separator = ""
    while rows := list(itertools.islice(zones, ZONES_PER_PART)):
        yield (separator + ", ".join(map(json.dumps, rows))).encode()
        separator = ", "
    yield f"]{tail}\n".encode()


class _Connection(socketserver.StreamRequestHandler):
    timeout = IDLE_SECONDS

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, ControlServer)
        # The modes of the socket and its directory keep others out; who was let in by mistake is not served either.
        credentials = self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(credentials)
        if user not in (0, os.geteuid()):
            log.warning("control connection of user %d refused", user)
            return
        try:
            while line := self.rfile.readline(MAX_REQUEST_SIZE):
                for part in encode(server.answer_line(line)):
                    self.wfile.write(part)
                if not line.endswith(b"\n"):
                    return
        except OSError as exc:
            log.debug("control connection: %s", exc)


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Listens on the control socket of a mount, in threads of its own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    """Connections that wait to be taken: the next is refused (EAGAIN), however long its client would wait."""

    def __init__(self, path: Path, control: Control) -> None:
        self._path = path
        self._control = control
        with sockets_locked(path.parent):
            path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                super().__init__(str(path), _Connection)
            finally:
                os.umask(before)
            self._inode = path.lstat().st_ino
        threading.Thread(target=self.serve_forever, name="control", daemon=True).start()

    def answer_line(self, line: bytes) -> dict[str, Any]:
        """Return the answer to one request line."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "the request is not JSON", "errno": UserError("").errno_name}
        return self._control.answer(request)

    def stop(self) -> None:
        """Stop listening and remove the socket."""
        # The listening thread looks at its flag only now and then; a dead socket wakes it at once.
        waiter = threading.Thread(target=self.shutdown)
        waiter.start()
        self.socket.shutdown(socket.SHUT_RDWR)
        waiter.join()
        self.server_close()
        # The kernel may have given our mount's device number, and so this name, to a new mount already.
        remove_socket(self._path, os.geteuid(), self._inode)


def start(filesystem: Filesystem, mountpoint: str, options: Callable[[], str], fuse: dict[str, Any]) -> ControlServer:
    """Open the control socket for *filesystem*, which is mounted at *mountpoint*. Raises MountError, OSError."""
    mount = find_mount(mountpoint)
    if mount is None or mount.type != FILESYSTEM_TYPE:
        raise MountError(f"{mountpoint} has vanished")
    return ControlServer(make_runtime_directory() / socket_name(mount), Control(filesystem, mount, options, fuse))

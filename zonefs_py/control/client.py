"""Asks the daemon of a mount over its control socket: one JSON line there, one back. `MountControl` is for users."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zonefs_py.config import FILESYSTEM_TYPE
from zonefs_py.control.mounts import MountEntry, find_mount, find_mount_of
from zonefs_py.control.socket_path import check_runtime_directory, socket_path
from zonefs_py.device.fault_rules import FaultRule, describe_rule
from zonefs_py.device.power_cut import PowerCut, ZoneLoss, parse_keep
from zonefs_py.device.stack import read_scenario
from zonefs_py.errors import MountError, is_answered, is_denied
from zonefs_py.zone import CONDITION_NAMES, ZoneCondition

PATIENCE_SECONDS = 60.0
"""How long the daemon may take to show that it lives. What a request asks for may take longer: what its zones take."""
SILENCE_SECONDS = 10.0
"""How often it has to, while an answer is awaited."""


def find_target(target: str) -> MountEntry:
    """Return the mount that *target* names: a mount point, or a device that is mounted. Raises MountError."""
    mount = find_mount(target)
    if mount is not None and mount.type == FILESYSTEM_TYPE:
        return mount
    found = find_mount_of(target)
    if found is None:
        raise MountError(f"{target} is neither a mount point of zonefs-py nor a device that is mounted")
    return found


def ask(mountpoint: str, request: dict[str, Any]) -> Any:
    """Send *request* to the daemon that serves *mountpoint* and return its result, however long that takes.

    What was done through the mount before is taken into account in the answer. Raises MountError: not a mount of
    ours, no such daemon, or what the daemon says.
    """
    mount = find_mount(mountpoint)
    if mount is None or mount.type != FILESYSTEM_TYPE:
        raise MountError(f"{mountpoint} is not a mount point of zonefs-py")
    return _ask_mount(mount, request)


def _ask_mount(mount: MountEntry, request: dict[str, Any]) -> Any:
    try:
        # close(2) does not wait for the file system; a request that does, sent after it, comes to the daemon after it.
        # The daemon then knows of the close, and what it is asked by the socket it answers when that is done.
        os.statvfs(mount.mountpoint)
    except OSError as exc:
        # A plain user's mount is closed to others, root too; whoever may ask its daemon will see.
        if is_answered(exc) or is_denied(exc):
            return ask_daemon(mount, request)
        where = mount.mountpoint
        raise MountError(f"{where}: its daemon does not answer ({exc.strerror}); 'zonefs-py umount' it") from None
    return ask_daemon(mount, request)


def ask_daemon(mount: MountEntry, request: dict[str, Any]) -> Any:
    """Send *request* to the daemon of *mount*, without a look at the mount itself, and wait for its result.

    Raises MountError, and nothing has happened then, unless that says otherwise.
    """
    path = socket_path(mount)
    if os.geteuid() not in (0, mount.user_id):
        where = mount.mountpoint
        raise MountError(f"{where} is a mount of user {mount.user_id}: only they and root may ask its daemon")
    try:
        check_runtime_directory(path.parent, mount.user_id)
        answer = exchange(path, request)
    except (NoAnswer, OSError, ValueError) as exc:
        perhaps = "; what it was asked for may be done all the same" if isinstance(exc, NoAnswer) else ""
        silent = f"{mount.mountpoint}: its control socket {path} does not answer ({_reason(exc)})"
        raise MountError(silent + perhaps) from None
    if not answer.get("ok"):
        raise MountError(f"{mount.mountpoint}: {answer.get('error', 'the daemon refused without a reason')}")
    return answer["result"]


class NoAnswer(Exception):
    """A request was sent, and there will be no answer: nobody knows what becomes of it."""


def exchange(path: Path, request: dict[str, Any], silence: float = SILENCE_SECONDS) -> dict[str, Any]:
    """Send *request* to the socket *path*; return the answer, which may take as long as it likes.

    But after every *silence* seconds without one the daemon must show that it lives. Raises OSError; NoAnswer once the
    request was sent.
    """
    with _connected(path) as connection:
        _send(connection, request)
        try:
            _await_answer(connection, path, silence)
            with connection.makefile("rb") as stream:
                line = stream.readline()
            if not line:
                raise ValueError("it was closed")
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("no JSON object")
        except (OSError, ValueError) as exc:
            raise NoAnswer(_reason(exc)) from exc
    return answer


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(path))
        yield connection


def _send(connection: socket.socket, request: dict[str, Any]) -> None:
    connection.sendall(json.dumps(request).encode() + b"\n")


def _await_answer(connection: socket.socket, path: Path, silence: float) -> None:
    """Return when there is something to receive, or the end. Raises OSError, ValueError if the daemon does not live."""
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    while not ready.poll(silence * 1000):
        try:
            with _connected(path) as other:
                _send(other, {"request": "ping"})
                if not other.recv(1):
                    raise ValueError("it was closed")
        except BlockingIOError:
            pass  # so many others ask: it lives
        except (OSError, ValueError):
            # It may have answered, and ended, just now.
            if not ready.poll(0):
                raise


def _reason(exc: Exception) -> str:
    return exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)


class MountControl:
    """What can be done to a mounted file system while it is in use: by its user, or root.

    Every method returns when the daemon has done what it says, however long a zone keeps it waiting, or raises
    MountError with what the daemon, or the way to it, has against it; nothing has changed then, unless the method, or
    the error, says otherwise: if the daemon dies meanwhile, nobody knows. Zones are numbers of the mounted
    device's, offsets and sizes bytes. One object can be used by several threads.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        """*target* is the mount point, or the device (a path, or the text of a stack). Raises MountError."""
        self._mount = find_target(os.fspath(target))

    @property
    def mountpoint(self) -> str:
        """Where the file system is mounted."""
        return self._mount.mountpoint

    @property
    def device(self) -> str:
        """The device that is mounted, as the mount table shows it."""
        return self._mount.source

    def ask(self, request: str, **fields: Any) -> Any:
        """Send any request; return its result, as decoded JSON."""
        return _ask_mount(self._mount, {"request": request, **fields})

    # Looking

    def info(self) -> dict[str, Any]:
        """What ``zonefs-py info --format json`` prints."""
        return self.ask("info")  # type: ignore[no-any-return]  # our own daemon's answer

    def report(self) -> list[dict[str, Any]]:
        """The zones, as ``zonefs-py report --format json`` prints them."""
        return self.ask("report")["zones"]  # type: ignore[no-any-return]

    def statistics(self) -> dict[str, Any]:
        """Numbers since the file system was mounted; docs/control.md says what they are."""
        return self.ask("statistics")  # type: ignore[no-any-return]

    def refusals(self, last: int | None = None) -> list[dict[str, Any]]:
        """The *last* refusals (None: all that are kept), the oldest first; the fields are those of `Refusal`."""
        return self.ask("why", **({} if last is None else {"last": last}))  # type: ignore[no-any-return]

    # Zones

    def reset_zones(self, *zones: int) -> None:
        """Empty *zones*: their data is lost. One that fails ends it; those before it are done."""
        self._manage("reset", zones)

    def open_zones(self, *zones: int) -> None:
        """Open *zones* explicitly. One that fails ends it; those before it are done."""
        self._manage("open", zones)

    def close_zones(self, *zones: int) -> None:
        """Close *zones*. One that fails ends it; those before it are done."""
        self._manage("close", zones)

    def finish_zones(self, *zones: int) -> None:
        """Make *zones* full. One that fails ends it; those before it are done."""
        self._manage("finish", zones)

    def _manage(self, operation: str, zones: Iterable[int]) -> None:
        result = self.ask("manage-zones", operation=operation, zones=list(zones))
        for file in result["files"]:
            # The kernel was told to forget what it knew of the file; so it asks, and knows the size before we return.
            with contextlib.suppress(OSError):
                os.stat(os.path.join(self.mountpoint, file))

    def force_zones(self, *zones: int, condition: ZoneCondition | None) -> None:
        """Make *zones* READONLY or OFFLINE, as a failing drive does; None: back to normal. All of them, or none.

        Files follow when something goes wrong with them, as with a drive.
        """
        name = None if condition is None else CONDITION_NAMES[condition]
        self.ask("force-condition", zones=list(zones), condition=name)

    # Faults

    def add_faults(self, rules: Iterable[FaultRule | Mapping[str, Any]]) -> list[int]:
        """Add *rules* (objects, or as in a rule file): all, or none. Return their numbers. They count from now on."""
        contents = [describe_rule(rule) if isinstance(rule, FaultRule) else dict(rule) for rule in rules]
        return self.ask("add-faults", rules=contents)  # type: ignore[no-any-return]

    def add_scenario(self, path: str | os.PathLike[str]) -> list[int]:
        """Add the rules in the file *path*; return their numbers. Raises UserError for a file that is none."""
        return self.add_faults(read_scenario(os.fspath(path)).rules)

    def faults(self) -> dict[str, Any]:
        """``rules``: number, rule, and how often it matched and fired; ``stuck``: the calls that are stuck now."""
        return self.ask("list-faults")  # type: ignore[no-any-return]

    def remove_faults(self, *numbers: int) -> None:
        """Remove the rules *numbers*: all of them, or none. Calls that wait by them go on."""
        self.ask("remove-faults", numbers=list(numbers))

    def clear_faults(self) -> int:
        """Remove all rules, and return how many there were. Calls that wait go on."""
        return self.ask("remove-faults")  # type: ignore[no-any-return]

    def release_stuck(self, *numbers: int, fail: bool = False) -> int:
        """Let calls that are stuck (by the rules *numbers*; by any, if there are none) go on, or *fail* with EIO.

        Return how many there were. The rules stay, and hold the next call.
        """
        return self.ask("release-stuck", numbers=list(numbers) or None, fail=fail)  # type: ignore[no-any-return]

    # Power

    def power_cut(self, keep: str = "none", *, dead: bool = False) -> PowerCut:
        """Cut the power of the write cache in the device; return what was not flushed, and how much of it is kept.

        *keep* is ``none``, ``all`` or ``seed:N``. When this returns the mount is back, as if mounted anew, or *dead*:
        every call on it is EIO then. Files that were open are lost: calls on them are EIO. Raises OptionError for any
        other *keep*, MountError if there is no write cache (nothing has changed then), or if the device could not be
        mounted again (the mount is dead).
        """
        parse_keep(keep)
        zones = self.ask("power-cut", keep=keep, dead=dead)["zones"]
        return PowerCut(tuple(ZoneLoss(**zone) for zone in zones))

    def power_on(self) -> None:
        """Bring back a mount that a power cut left dead. Nothing happens to another one, if it has a write cache."""
        self.ask("power-on")

    # The rest

    def copy_limits(self) -> dict[str, int]:
        """The limits of the copy path, by name."""
        return self.ask("copy-limits")["limits"]  # type: ignore[no-any-return]

    def set_copy_limits(self, **limits: int) -> dict[str, int]:
        """Set limits of the copy path, all or none, for the next copy; return those that then hold."""
        return self.ask("set-copy-limits", limits=limits)["limits"]  # type: ignore[no-any-return]

    def set_log_level(self, level: str) -> None:
        """Log what is at least ``debug``, ``info``, ``warning`` or ``error``."""
        self.ask("set-log-level", level=level)

"""Keep a machine for other processes: a server with a name, and what its clients do.

The server's directory holds ``socket``, ``pid`` and ``share``, a directory that is writable in the machine. The lock
on the directory is held as long as the server lives, so that a stale one is known. What a machine left in its share can
be fetched for `KEPT_SECONDS`; the next server to start after that removes it, or one of the same name. A connection
carries one request (protocol.py): commands and devices as to the agent, and ``I`` (what is the machine like) and ``P``
(stop).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.machine.errors import MachineError, VmError
from tools.machine.protocol import Decoder, frame
from tools.machine.session import Machine, Settings

KEPT_SECONDS = 24 * 3600.0
"""How long the share of a machine that ended is kept."""


def runtime_directory() -> Path:
    """The directory of all servers of this user; made if it is missing."""
    parent = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(parent, "zonefs-py-vm") if parent else Path(tempfile.gettempdir(), f"zonefs-py-vms-{os.geteuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise VmError(f"{path} is not a directory of your own that only you can use; remove it")
    return path


def directory_of(name: str) -> Path:
    """The directory of the machine called *name*."""
    if not re.fullmatch(r"[\w][\w.-]{0,40}", name):
        raise VmError(f"{name!r} cannot be the name of a machine: use letters, digits, '.', '_' and '-'")
    return runtime_directory() / name


class Server:
    """A machine and its clients. Ends on SIGTERM, on request, with its owner, or after its time."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Take the name; raise :class:`VmError` if it is in use. Call from the main thread."""
        self._directory = directory_of(name)
        claim = _claim(self._directory)
        if claim is None:
            raise VmError(f"a machine called {name} is running already; tools/vm stop --name {name} ends it")
        self._claim = claim
        _remove_old(self._directory.parent)
        share = self._directory / "share"
        shutil.rmtree(share, ignore_errors=True)
        share.mkdir(exist_ok=True)
        self._settings = replace(settings, shares=[*settings.shares, share])
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self, *, owner: int | None, lifetime: float, ready: Callable[[Machine], None]) -> None:
        """Start the machine, call *ready*, serve until the end."""
        deadline = time.monotonic() + lifetime
        signal.set_wakeup_fd(self._wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            owner_fd = os.pidfd_open(owner) if owner is not None else None
        except ProcessLookupError:
            raise VmError(f"the owner, process {owner}, does not exist") from None
        path = self._directory / "socket"
        path.unlink(missing_ok=True)
        try:
            with socket.socket(socket.AF_UNIX) as listener, Machine.start(self._settings) as machine:
                listener.bind(str(path))
                listener.listen(64)
                (self._directory / "pid").write_text(f"{os.getpid()}\n")
                ready(machine)
                waiting = select.poll()
                for descriptor in (listener.fileno(), self._wake_read, owner_fd):
                    if descriptor is not None:
                        waiting.register(descriptor, select.POLLIN)
                while (left := deadline - time.monotonic()) > 0:
                    ready_now = {descriptor for descriptor, _ in waiting.poll(left * 1000)}
                    if ready_now - {listener.fileno()}:
                        break
                    if ready_now:
                        connection, _ = listener.accept()
                        threading.Thread(target=self._serve, args=(machine, connection), daemon=True).start()
        finally:
            self._remove()

    def _on_signal(self, *_: object) -> None:
        """The wake-up pipe carries it to the poll; while the machine starts there is none yet."""

    def _remove(self) -> None:
        for name in ("socket", "pid"):
            (self._directory / name).unlink(missing_ok=True)
        os.close(self._claim)

    def _serve(self, machine: Machine, connection: socket.socket) -> None:
        """A thread for each client: its request, the answer, and an eye on whether it is still there."""
        with connection:
            try:
                kind, payload = next(_frames(connection))
                if kind == "P":
                    os.write(self._wake_write, b"P")
                    return
                result = self._act(machine, connection, kind, payload)
            except StopIteration:
                return
            except (MachineError, VmError) as exc:
                result = {"error": str(exc), "usage": isinstance(exc, VmError)}
            except OSError:
                return  # the client went away
            _send(connection, "X", json.dumps(result).encode())

    def _act(self, machine: Machine, connection: socket.socket, kind: str, payload: bytes) -> dict[str, object]:
        if kind == "I":
            return {
                "kernel": machine.kernel_release,
                "devices": machine.devices,
                "share": str(self._directory / "share"),
                "qemu": machine.pid,
                "server": os.getpid(),
            }
        if kind == "A":
            return {"path": machine.add_device(payload.decode())}
        if kind == "D":
            machine.remove_device(payload.decode())
            return {}
        request = json.loads(payload)
        job = machine.begin(request["argv"], env=request["env"], cwd=request["cwd"])

        def watch() -> None:
            with contextlib.suppress(OSError):
                if not connection.recv(1):
                    machine.kill(job)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            status = machine.finish(
                job,
                lambda kind, data: _send(connection, kind, data),
                timeout=request["timeout"],
                name=request["argv"][0],
            )
        finally:
            # Ends the watcher's wait; the answer can still be sent.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
            watcher.join()
        return {"status": status}


def _send(connection: socket.socket, kind: str, payload: bytes) -> None:
    connection.sendall(frame(kind, 0, payload))


def _frames(connection: socket.socket) -> Iterator[tuple[str, bytes]]:
    decoder = Decoder()
    while data := connection.recv(1 << 16):
        for kind, _, payload in decoder.feed(data):
            yield kind, payload


def _claim(directory: Path) -> int | None:
    """Make the directory of a server and return the descriptor that holds its lock; None if another server has it."""
    while True:
        directory.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Between the two, somebody may have removed it as an old one.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), directory.stat()):
                return descriptor
        os.close(descriptor)


def _remove_old(parent: Path) -> None:
    """Remove the directories of servers that ended long ago: then the last entry was removed from them."""
    for directory in parent.iterdir():
        try:
            if time.time() - directory.lstat().st_mtime < KEPT_SECONDS:
                continue
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


class Client:
    """What another process does with a machine that has a name."""

    def __init__(self, name: str) -> None:
        """Raise :class:`VmError` if there is no such machine."""
        self._name = name
        self._directory = directory_of(name)
        self._connect().close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._directory / "socket"))
        except OSError:
            connection.close()
            raise VmError(
                f"no machine called {self._name} is running; tools/vm start --name {self._name} starts one"
            ) from None
        return connection

    def _request(self, kind: str, payload: bytes, take: Callable[[str, bytes], None] | None = None) -> dict[str, Any]:
        with self._connect() as connection:
            _send(connection, kind, payload)
            for answer, data in _frames(connection):
                if answer == "X":
                    result: dict[str, Any] = json.loads(data)
                    if "error" in result:
                        raise (VmError if result["usage"] else MachineError)(result["error"])
                    return result
                if take is not None:
                    take(answer, data)
        raise MachineError(f"the machine {self._name} was stopped")

    def info(self) -> dict[str, Any]:
        """The kernel, the devices made at the start, the shared directory, and process ids."""
        return self._request("I", b"")

    def stream(
        self,
        argv: Sequence[str],
        take: Callable[[str, bytes], None],
        *,
        env: Mapping[str, str],
        cwd: str | Path | None = None,
        timeout: float | None = None,
    ) -> int:
        """As :meth:`Machine.stream`."""
        request = {"argv": list(argv), "env": dict(env), "cwd": str(cwd or Path.cwd()), "timeout": timeout}
        return int(self._request("R", json.dumps(request).encode(), take)["status"])

    def add_device(self, text: str) -> str:
        """As :meth:`Machine.add_device`."""
        return str(self._request("A", text.encode())["path"])

    def remove_device(self, path: str) -> None:
        """As :meth:`Machine.remove_device`."""
        self._request("D", path.encode())

    def stop(self) -> None:
        """End the machine, and return when it and its server are gone."""
        server = int(self.info()["server"])
        try:
            process = os.pidfd_open(server)
        except ProcessLookupError:
            return
        try:
            with self._connect() as connection:
                _send(connection, "P", b"")
                waiting = select.poll()
                waiting.register(process, select.POLLIN)
                if not waiting.poll(10_000):
                    signal.pidfd_send_signal(process, signal.SIGKILL)  # QEMU dies with it
                    waiting.poll()
        finally:
            os.close(process)

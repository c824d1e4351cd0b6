"""A machine that runs: start it, run commands in it, make devices, end it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.machine import qemu
from tools.machine.errors import MachineError, QemuError, StartError, VmError
from tools.machine.packages import Cache
from tools.machine.protocol import Decoder, frame
from tools.machine.specs import DeviceSpec, parse_device, parse_devices

KEPT_LOGS = 20
STARTS = 3
"""How often a machine is started whose kernel panics, or hangs, before it takes a command."""
logger = logging.getLogger(__name__)
_DIRECTORY_PREFIX = "zonefs-py-vm-"
_PANIC = re.compile(r"Kernel panic - not syncing: *(.*)")


def default_cache() -> Path:
    """Where unpacked packages and kernel logs are: below the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zonefs-py" / "vm"


@dataclass(frozen=True)
class Settings:
    """How to start a machine."""

    devices: Sequence[str] = ()
    shares: Sequence[Path] = ()
    memory_mib: int = 2048
    cache: Path = field(default_factory=default_cache)
    accelerator: str = "tcg"
    boot_seconds: float = 300.0
    kernel_log: Path | None = None
    """Where to leave the kernel log; without it, only that of a failure is kept, in the cache."""


@dataclass(frozen=True)
class Result:
    """A command that ended. *status* is negative if a signal ended it."""

    status: int
    stdout: bytes
    stderr: bytes


class Machine:
    """One machine. Made by :meth:`start`; methods may be called from several threads at once.

    QEMU is killed when the thread that started it ends, however it ends.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: socket.socket,
        directory: Path,
        claim: int,
        settings: Settings,
        tools: Path,
    ) -> None:
        self._tools = tools
        self._process = process
        self._port = port
        self._directory = directory
        self._claim = claim
        self._settings = settings
        self._lock = threading.Lock()
        self._jobs: dict[int, queue.SimpleQueue[tuple[str, bytes]]] = {0: queue.SimpleQueue()}
        self._next_job = 1
        self._gone = False
        self._closing = False
        self._fate: str | None = None
        self.devices: list[str] = []
        self.kernel_release = ""
        self._reader = threading.Thread(target=self._read, name="machine-reader", daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, settings: Settings) -> Machine:
        """Start a machine with its devices; one whose kernel does not come up is logged, and started again (`STARTS`).

        Raises :class:`VmError` if nothing was started, :class:`MachineError` if the machine or a device failed.
        """
        for number in range(2, STARTS + 1):
            try:
                return cls._start_once(settings)
            except StartError as exc:
                logger.warning("%s; starting it again (%d of %d)", exc, number, STARTS)
        return cls._start_once(settings)

    @classmethod
    def _start_once(cls, settings: Settings) -> Machine:
        specs = parse_devices(list(settings.devices))
        shares = [_checked_share(share) for share in settings.shares]
        if settings.kernel_log is not None and not os.access(settings.kernel_log.absolute().parent, os.W_OK):
            raise VmError(f"the kernel log cannot be written to {settings.kernel_log}: no such directory, or not yours")
        kernel, programs = Cache(settings.cache).prepare()
        directory, claim = _own_directory()
        try:
            initrd = directory / "initrd"
            guest = qemu.Guest(python=os.path.realpath(sys.executable), shares=shares)
            base = qemu.base_initramfs(settings.cache, kernel, programs)
            initrd.write_bytes(base + qemu.configuration(kernel, programs, guest))
            ours, theirs = socket.socketpair()
            with theirs:
                arguments = qemu.command_line(
                    kernel,
                    programs,
                    initrd=initrd,
                    log=directory / "kernel.log",
                    port=theirs.fileno(),
                    memory_mib=settings.memory_mib,
                    accelerator=settings.accelerator,
                    shares=shares,
                    devices=qemu.zns_arguments(specs, directory),
                )
                with open(directory / "qemu.log", "wb") as log:
                    process = subprocess.Popen(
                        [str(programs.setpriv), "--pdeathsig", "KILL", *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                        env={**os.environ, **qemu.ENVIRONMENT},
                    )
        except BaseException:
            shutil.rmtree(directory)
            os.close(claim)
            raise
        machine = cls(process, ours, directory, claim, settings, programs.modprobe.parent)
        try:
            machine._boot(specs)
        except BaseException:
            machine.close()
            raise
        return machine

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: tuple[type[BaseException] | None, BaseException | None, TracebackType | None]) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def _boot(self, specs: Sequence[DeviceSpec]) -> None:
        try:
            hello = self._wait(0, self._settings.boot_seconds, "the machine did not come up")
        except MachineError as exc:
            log = _text(self._directory / "kernel.log")
            if self._process.poll() is None or _PANIC.search(log):
                raise StartError(str(exc)) from exc
            if not log:
                raise QemuError(str(exc)) from exc
            raise
        self.kernel_release = str(hello["kernel"])
        for number, spec in enumerate(specs):
            self.devices.append(self._add(spec, number))

    def environment(self) -> dict[str, str]:
        """The variables that every command gets."""
        names = {f"ZONEFS_VM_DEVICE_{number}": path for number, path in enumerate(self.devices)}
        shares = [str(_checked_share(share)) for share in self._settings.shares]
        return {
            "PATH": guest_path(os.environ.get("PATH", ""), self._tools),
            "HOME": "/root",
            "USER": "root",
            "LC_ALL": os.environ.get("LC_ALL") or "C.UTF-8",
            "ZONEFS_VM": self.kernel_release,
            "ZONEFS_VM_DEVICES": " ".join(self.devices),
            **({"ZONEFS_VM_SHARE": shares[0]} if shares else {}),
            **names,
        }

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        silence: float | None = None,
    ) -> Result:
        """Run a command as root and give its output; see :meth:`stream`."""
        output: dict[str, bytearray] = {"o": bytearray(), "e": bytearray()}

        def take(kind: str, data: bytes) -> None:
            output[kind].extend(data)

        status = self.stream(argv, take, env=env, cwd=cwd, timeout=timeout, silence=silence)
        return Result(status, bytes(output["o"]), bytes(output["e"]))

    def stream(
        self,
        argv: Sequence[str],
        take: Callable[[str, bytes], None],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float | None = None,
        silence: float | None = None,
    ) -> int:
        """Run a command as root, in *cwd* (this process's own by default), with stdin closed.

        *take* gets its output as it comes: ``"o"`` or ``"e"``, and the bytes. Returns its exit status, negative if a
        signal ended it. After *timeout* seconds, or *silence* seconds without output, its process group is killed and
        :class:`MachineError` raised, as it is when the machine dies. So is whoever interrupts this.
        """
        job = self.begin(argv, env=env, cwd=cwd)
        return self.finish(job, take, timeout=timeout, silence=silence, name=argv[0])

    def begin(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | Path | None = None) -> int:
        """Start a command and give its number, with which :meth:`finish` must be called."""
        request = {"argv": list(argv), "env": self.environment() | dict(env or {}), "cwd": str(cwd or Path.cwd())}
        return self._begin("R", json.dumps(request).encode())

    def finish(
        self,
        job: int,
        take: Callable[[str, bytes], None],
        *,
        timeout: float | None = None,
        silence: float | None = None,
        name: str = "the command",
    ) -> int:
        """Wait for the end of a command, as :meth:`stream` does."""
        try:
            result = self._wait(job, timeout, f"{name} did not end", take, silence=silence)
        except BaseException:
            self.kill(job)
            raise
        if "error" in result:
            raise MachineError(str(result["error"]))
        return int(result["status"])

    def kill(self, job: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process group of a command; nothing happens if it has ended."""
        self._send(frame("K", job, str(int(number)).encode()))

    def add_device(self, text: str) -> str:
        """Make one more device and give its path inside; ZNS devices can be made at the start only."""
        spec = parse_device(text)
        if spec.kind == "zns":
            raise VmError(f"device {text!r}: a zns device can be made only when the machine is started")
        return self._add(spec, -1)

    def remove_device(self, path: str) -> None:
        """Remove a device that was made at the start or by :meth:`add_device`."""
        self._result("D", path.encode(), f"{path} was not removed")

    def _add(self, spec: DeviceSpec, number: int) -> str:
        settings = {"serial": qemu.zns_serial(number)} if spec.kind == "zns" else dict(spec.settings)
        request = json.dumps({"kind": spec.kind, "settings": settings}).encode()
        result = self._result("A", request, f"device {spec.text} was not made")
        return str(result["path"])

    def _result(self, kind: str, payload: bytes, what: str) -> dict[str, Any]:
        result = self._wait(self._begin(kind, payload), self._settings.boot_seconds, what)
        if "error" in result:
            raise MachineError(f"{what}: {result['error']}")
        return result

    def close(self) -> None:
        """End the machine at once. What it wrote to shares stays. A second call does nothing."""
        if self._closing:
            return
        self._closing = True
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._port.close()
        if self._settings.kernel_log is not None:
            _copy_log(self._directory / "kernel.log", self._settings.kernel_log)
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._claim)

    def _begin(self, kind: str, payload: bytes) -> int:
        with self._lock:
            job = self._next_job
            self._next_job += 1
            self._jobs[job] = queue.SimpleQueue()
            if self._gone:
                self._jobs[job].put(("", b""))
        self._send(frame(kind, job, payload))
        return job

    def _send(self, data: bytes) -> None:
        try:
            with self._lock:
                self._port.sendall(data)
        except OSError:
            pass  # the reader sees the end, and says why

    def _wait(
        self,
        job: int,
        timeout: float | None,
        what: str,
        take: Callable[[str, bytes], None] | None = None,
        *,
        silence: float | None = None,
    ) -> dict[str, Any]:
        """Take the frames of *job* until its end, which is returned."""
        deadline = None if timeout is None else time.monotonic() + timeout
        frames = self._jobs[job]
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                silent = silence is not None and (left is None or silence < left)
                try:
                    kind, payload = frames.get(timeout=silence if silent else left)
                except queue.Empty:
                    limit = f"and said nothing for {silence:g} s" if silent else f"within {timeout:g} s"
                    raise MachineError(f"{what} {limit}; {self._keep_log()}") from None
                if kind in ("X", "H"):
                    result: dict[str, Any] = json.loads(payload)
                    return result
                if not kind:
                    raise MachineError(self._epitaph())
                if take is not None:
                    take(kind, payload)
        finally:
            with self._lock:
                del self._jobs[job]

    def _read(self) -> None:
        """The reader's thread: hand every frame to its job; at the end tell all of them."""
        decoder = Decoder()
        while True:
            try:
                data = self._port.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            for kind, job, payload in decoder.feed(data):
                with self._lock:
                    frames = self._jobs.get(job)
                if frames is not None:
                    frames.put((kind, payload))
        with self._lock:
            self._gone = True
            for frames in self._jobs.values():
                frames.put(("", b""))

    def _epitaph(self) -> str:
        """Why the machine is gone: one line, the same for all who ask."""
        if self._closing:
            return "the machine was stopped"
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._lock:
            if self._fate is None:
                self._fate = self._find_fate()
            return self._fate

    def _find_fate(self) -> str:
        log = _text(self._directory / "kernel.log")
        complaint = _text(self._directory / "qemu.log").strip().splitlines()
        if panic := _PANIC.search(log):
            return f"the kernel panicked: {panic[1].strip()}; {self._keep_log()}"
        if own := re.search(r"machine: (cannot .*|no .*)", log):
            return f"the machine did not come up: {own[1].strip()}; {self._keep_log()}"
        if complaint:
            return f"QEMU failed: {complaint[-1]}"
        return f"the machine ended; {self._keep_log()}"

    def _keep_log(self) -> str:
        """Copy the kernel log to where it stays, and name it."""
        if self._settings.kernel_log is not None:
            return f"kernel log: {self._settings.kernel_log}"
        logs = self._settings.cache / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for old in sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
        path = logs / f"{self._directory.name.removeprefix(_DIRECTORY_PREFIX)}.log"
        _copy_log(self._directory / "kernel.log", path)
        return f"kernel log: {path}"


def guest_path(path: str, tools: Path) -> str:
    """PATH for commands: *path*, the standard directories, and *tools*, where modprobe is.

    In place of the shims of a version manager, which do not work inside, stands the directory of the interpreter that
    runs this.
    """
    own = os.path.dirname(os.path.realpath(sys.executable))
    directories = [own if os.path.basename(part) == "shims" else part for part in path.split(":") if part]
    standard = "/usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin".split()
    return ":".join(dict.fromkeys([*directories, *standard, str(tools)]))


def _checked_share(share: Path) -> Path:
    path = share.resolve()
    if not path.is_dir():
        raise VmError(f"{share} cannot be shared: it is not a directory")
    if not os.access(path, os.W_OK | os.X_OK):
        raise VmError(f"{share} cannot be shared: you may not write there")
    return path


def _copy_log(log: Path, target: Path) -> None:
    """Copy the kernel log, which is empty if QEMU did not get as far as to make it."""
    try:
        target.write_bytes(log.read_bytes() if log.exists() else b"")
    except OSError as exc:
        raise MachineError(f"the kernel log cannot be written to {target}: {exc.strerror}") from exc


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _own_directory() -> tuple[Path, int]:
    """A temporary directory, and a descriptor that holds its lock; remove those whose owners were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY_PREFIX}*"):
        try:
            if path.lstat().st_uid != os.geteuid() or time.time() - path.lstat().st_mtime < 60:
                continue  # a young one may not have its lock yet
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    directory = Path(tempfile.mkdtemp(prefix=_DIRECTORY_PREFIX))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return directory, descriptor

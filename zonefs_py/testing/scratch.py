"""A temporary directory for devices and mounts that is cleaned up whatever happens, and the mounts in it.

A process of its own (`keeper`) does that, when the owner closes the directory, ends, or is killed. If that process is
killed too, the next `Scratch` of this user removes what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from zonefs_py.cli.mount import clean_up, is_stale, unmount
from zonefs_py.control.client import ask_daemon
from zonefs_py.control.mounts import MountEntry, find_mount
from zonefs_py.errors import MountError
from zonefs_py.testing.keeper import clean_up_directory
from zonefs_py.testing.temporary import make_temporary_directory

PREFIX = "zonefs-py-run-"
MOUNT_SECONDS = 60.0
UNMOUNT_SECONDS = 120.0
_POLL_SECONDS = 0.005

_PYTHON = [sys.executable, "-P", "-m"]
"""Not with the current directory in front: what lies there may be called like a module."""


class Scratch:
    """A new directory below the one for temporary files. `close` removes it and all that is mounted in it."""

    def __init__(self) -> None:
        """Also removes directories of this kind, and their mounts, whose owners were killed. Raises OSError."""
        remove_leftovers()
        self.path, self._directory = _make_directory()
        self._keeper = subprocess.Popen(
            [*_PYTHON, "zonefs_py.testing.keeper", self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[self._directory],  # the lock lasts as long as any of us
            start_new_session=True,  # the terminal's signals are not for it
            cwd="/",
            env=_environment(),
        )
        self._made = 0

    def watch(self, pid: int) -> None:
        """See that the process *pid*, which is a child of ours, ends with this directory."""
        self._tell(f"command {pid}")

    def mount(self, device: str | os.PathLike[str], options: str = "", *, log_file: str | None = None) -> ScratchMount:
        """Mount *device*, a path or the text of a stack, with the ``-o`` *options* at a new directory in this one.

        The daemon logs to *log_file*, else to a file in this directory. Raises MountError with what the daemon says.
        """
        self._made += 1
        mountpoint = self.path / f"mnt{self._made}"
        mountpoint.mkdir()
        return self.mount_at(mountpoint, device, options, log_file=log_file)

    def mount_at(
        self, mountpoint: Path, device: str | os.PathLike[str], options: str = "", *, log_file: str | None = None
    ) -> ScratchMount:
        """Mount *device* at *mountpoint*, a directory in this one; else as `mount`."""
        log = Path(log_file) if log_file is not None else self.path / f"{mountpoint.name}.log"
        words = ["mount", "-f", "--log-file", str(log), *(["-o", options] if options else [])]
        with tempfile.TemporaryFile() as complaints:
            daemon = subprocess.Popen(
                [*_PYTHON, "zonefs_py.cli.main", *words, "--", os.fspath(device), str(mountpoint)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,  # Ctrl-C is for who uses the mount
                env=_environment(),
            )
            self._tell(f"daemon {daemon.pid}")
            try:
                _wait_for_mount(mountpoint, daemon)
            except BaseException as exc:
                daemon.kill()
                daemon.wait()
                complaints.seek(0)
                lines = complaints.read().decode(errors="replace").strip().splitlines()
                if isinstance(exc, MountError) and lines:
                    raise MountError(lines[-1].removeprefix("zonefs-py: ")) from None
                raise
        return ScratchMount(self, mountpoint, os.fspath(device), options, log, daemon)

    def close(self) -> None:
        """Unmount and remove everything; wait until that is done. A second call does nothing."""
        stdin = self._keeper.stdin
        assert stdin is not None
        if stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        self._keeper.wait()
        if self.path.exists():
            # The keeper was killed, or could not do it all.
            clean_up_directory(str(self.path), [])
        os.close(self._directory)

    def _tell(self, line: str) -> None:
        stdin = self._keeper.stdin
        assert stdin is not None
        # Without a keeper we clean up ourselves, if we are not killed.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{line}\n".encode())
            stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ScratchMount:
    """A mount in a `Scratch`: ``path`` is where, ``device`` what, ``log_file`` where its daemon logs."""

    def __init__(
        self,
        scratch: Scratch,
        path: Path,
        device: str,
        options: str,
        log_file: Path,
        daemon: subprocess.Popen[bytes],
    ) -> None:
        self.path = path
        self.device = device
        self.options = options
        self.log_file = log_file
        self._scratch = scratch
        self._daemon = daemon

    @property
    def pid(self) -> int:
        """The daemon."""
        return self._daemon.pid

    @property
    def mounted(self) -> bool:
        """Whether something is mounted there, dead or alive."""
        return find_mount(str(self.path)) is not None

    @property
    def exit_status(self) -> int | None:
        """The daemon's exit status, negative if a signal ended it; None while it runs. 0: all went well."""
        return self._daemon.poll()

    def unmount(self, *, lazy: bool = False) -> int:
        """Unmount; return the daemon's exit status. Everything is on the device then.

        *lazy*: also if files are open; they get errors then, because the daemon is told to end. Does nothing if it is
        not mounted any more. Raises MountError, with everything as it was, if files are open.
        """
        entry = find_mount(str(self.path))
        if entry is not None:
            if is_stale(entry.mountpoint):
                clean_up(entry)
            else:
                try:
                    unmount(entry, lazy=False)
                except MountError:
                    if not lazy:
                        raise
                    unmount(entry, lazy=True)
                    self._daemon.terminate()
        try:
            return self._daemon.wait(UNMOUNT_SECONDS)
        except subprocess.TimeoutExpired:
            raise MountError(f"{self.path}: its daemon does not end") from None

    def kill(self) -> None:
        """Kill the daemon (SIGKILL), and clean up the mount. What only the daemon had is lost."""
        self._daemon.kill()
        self._daemon.wait()
        entry = find_mount(str(self.path))
        if entry is not None:
            clean_up(entry)

    def remount(self, device: str | os.PathLike[str] | None = None, options: str | None = None) -> None:
        """Mount again, after `unmount` or `kill`, at the same place: the same device and options unless told otherwise.

        Raises MountError.
        """
        if self.mounted:
            raise MountError(f"{self.path} is mounted: unmount it first")
        self.device = self.device if device is None else os.fspath(device)
        self.options = self.options if options is None else options
        again = self._scratch.mount_at(self.path, self.device, self.options, log_file=str(self.log_file))
        self._daemon = again._daemon


def remove_leftovers() -> None:
    """Remove what killed owners of this user have left in the directory for temporary files, mounts too."""
    temporary = tempfile.gettempdir()
    for name in os.listdir(temporary):
        if not name.startswith(PREFIX):
            continue
        path = os.path.join(temporary, name)
        with contextlib.suppress(OSError):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(directory).st_uid == os.geteuid():
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    clean_up_directory(path, [])
            finally:
                os.close(directory)


def _make_directory() -> tuple[Path, int]:
    while True:
        path = make_temporary_directory(PREFIX)
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # somebody took it for a leftover
        fcntl.flock(directory, fcntl.LOCK_EX)
        if path.exists():
            return path, directory
        os.close(directory)


def _environment() -> dict[str, str]:
    # Python finds in the processes that it starts what it found here, from wherever that was imported.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}


def _wait_for_mount(mountpoint: Path, daemon: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + MOUNT_SECONDS
    while daemon.poll() is None:
        entry = find_mount(str(mountpoint))
        if entry is not None and _answers(entry, daemon.pid):
            return
        if time.monotonic() > until:
            raise MountError(f"{mountpoint}: the daemon does not answer after {MOUNT_SECONDS:.0f} seconds")
        time.sleep(_POLL_SECONDS)
    status = daemon.returncode
    how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
    raise MountError(f"{mountpoint}: the daemon ended before it was ready ({how})")


def _answers(entry: MountEntry, pid: int) -> bool:
    try:
        answer = ask_daemon(entry, {"request": "ping"})
    except MountError:
        return False  # not yet
    return bool(answer["pid"] == pid)

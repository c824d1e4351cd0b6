"""Mounts whose daemons may be killed: what the tests of a mount's life need beside `conftest`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuse.conftest import BAD_LOG_LINE, ZONEFS_PY, run, wait_until
from tests.passthrough import with_passthrough
from zonefs_py.config import FormatOptions
from zonefs_py.control.mounts import find_mount
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry

KIB = 1024
BLOCK = 4096
ZONE_SIZE = 256 * KIB
CAPACITY = 192 * KIB
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 8, 2, BLOCK, ZONE_SIZE)
"""cnv/0 and seq/0 to seq/5."""

COMMAND_SECONDS = 60


def pattern(offset: int, length: int) -> bytes:
    """*length* bytes, each eight of which hold their offset, counted from one."""
    return b"".join((offset + more + 1).to_bytes(8, "big") for more in range(0, length, 8))


def write_direct(path: Path, data: bytes) -> None:
    """Append *data* to a sequential file, without the page cache."""
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
    try:
        # The memory need not be aligned: FUSE takes it from anywhere.
        assert os.write(descriptor, data) == len(data)
    finally:
        os.close(descriptor)


def zonefs_py(*words: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return run(ZONEFS_PY, *words, check=check, timeout=COMMAND_SECONDS, **more)


def refused(done: subprocess.CompletedProcess[str], *says: str, program: str = "zonefs-py", status: int = 1) -> str:
    """Check that a command failed as commands of ours do, with one line that holds *says*; return the line."""
    assert done.returncode == status, (done.returncode, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{program}: ")
    for words in says:
        assert words in lines[0]
    assert "Traceback" not in lines[0]
    assert "bug" not in lines[0]
    return lines[0]


def is_mounted(path: Path) -> bool:
    """Whether anything is mounted at *path*, dead or alive."""
    return find_mount(str(path)) is not None


def runs(pid: int) -> bool:
    """Whether the process *pid* has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@dataclass
class Site:
    """A directory with devices and mounts, and all daemons that were started for them."""

    directory: Path
    expected: list[str] = field(default_factory=list)
    """What may be in log lines of warnings and errors."""
    _mountpoints: list[Path] = field(default_factory=list)
    _pids: list[int] = field(default_factory=list)
    _logs: list[Path] = field(default_factory=list)

    def device(
        self, name: str = "disk", *, max_open: int | None = None, max_active: int | None = None, formatted: bool = True
    ) -> Path:
        """Make a device of `GEOMETRY`."""
        path = self.directory / name
        create_device(path, GEOMETRY, max_open, max_active)
        if formatted:
            with open_device(path) as device:
                format_device(device, FormatOptions())
        return path

    def mountpoint(self, name: str = "mnt") -> Path:
        """Make a directory to mount at; it is unmounted at the end."""
        path = self.directory / name
        path.mkdir(exist_ok=True)
        self._mountpoints.append(path)
        return path

    def mount(self, device: Path, mountpoint: Path, options: str = "") -> int:
        """Mount, logging to ``mnt.log`` beside the mount point; return the pid of the daemon."""
        log = self.log(mountpoint)
        if log not in self._logs:
            self._logs.append(log)
        options = with_passthrough(options)
        words = ["-o", options] if options else []
        zonefs_py("mount", device, mountpoint, "--log-file", log, *words)
        return self.adopt(mountpoint)

    def adopt(self, mountpoint: Path) -> int:
        """Take note of the daemon of *mountpoint*; return its pid."""
        pid = int(self.info(mountpoint)["mount"]["pid"])
        self._pids.append(pid)
        return pid

    def log(self, mountpoint: Path) -> Path:
        """The log of the daemon of *mountpoint*."""
        return mountpoint.with_name(mountpoint.name + ".log")

    def info(self, target: Path) -> dict[str, Any]:
        """What ``info`` says."""
        found: dict[str, Any] = json.loads(zonefs_py("info", target, "--format", "json").stdout)
        return found

    def zones(self, target: Path) -> dict[str, dict[str, Any]]:
        """What ``report`` says of the zones that have files, by file name."""
        zones = json.loads(zonefs_py("report", target, "--format", "json").stdout)["zones"]
        return {zone["file"]: zone for zone in zones if zone["file"]}

    def wait_for_end(self, pid: int) -> None:
        """Wait until the daemon *pid* has ended."""
        wait_until(f"daemon {pid} ends", lambda: not runs(pid))

    def kill(self, pid: int) -> None:
        """End the daemon *pid* without a chance to clean up."""
        assert pid in self._pids
        os.kill(pid, signal.SIGKILL)
        self.wait_for_end(pid)

    def clean_up(self) -> None:
        """Unmount everything, end all daemons; afterwards no log may hold a complaint that was not expected."""
        left = [path for path in self._mountpoints if is_mounted(path)]
        for path in left:
            lazily = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            run(*lazily, "--", path, check=False, timeout=COMMAND_SECONDS)
        try:
            for pid in self._pids:
                self.wait_for_end(pid)
        finally:
            for pid in filter(runs, self._pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for log in self._logs:
            lines = log.read_text().splitlines() if log.exists() else []
            bad = [line for line in lines if BAD_LOG_LINE.search(line)]
            bad = [line for line in bad if not any(words in line for words in self.expected)]
            assert not bad, bad


@contextlib.contextmanager
def descriptor(path: Path, flags: int) -> Iterator[int]:
    """Open *path*; closed at the end, even if the daemon has died by then."""
    number = os.open(path, flags)
    try:
        yield number
    finally:
        close(number)


def close(number: int) -> None:
    """Close a descriptor of a file whose daemon may be dead."""
    try:
        os.close(number)
    except OSError as exc:
        if exc.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise

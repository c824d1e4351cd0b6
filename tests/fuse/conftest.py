"""Fixtures for tests on real mounts: every step goes through the installed commands, as a user would go."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.afterwards import unmounted_afterwards
from tests.passthrough import with_passthrough
from zonefs_py.control.client import ask

if TYPE_CHECKING:
    from tests.fuse.daemon_helpers import Site

PROGRAMS = Path(sys.executable).parent
ZONEFS_PY = PROGRAMS / "zonefs-py"

UNMOUNT_SECONDS = 30
BAD_LOG_LINE = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b|\bWARNING\b")


def command_environment() -> dict[str, str]:
    """The environment of commands in tests: our programs first, English messages."""
    path = f"{PROGRAMS}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}


def run(
    *command: str | Path, check: bool = True, timeout: float = 120, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run *command*; it must succeed if *check*. Returns what it printed, as text."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        env=command_environment(),
        **more,
    )
    if check:
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def wait_until(description: str, condition: Callable[[], bool], seconds: float = UNMOUNT_SECONDS) -> None:
    """Wait for *condition*; the test fails if it does not come true in *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} seconds for: {description}"
        time.sleep(0.01)


@pytest.fixture(scope="session", autouse=True)
def fuse_usable() -> None:
    """Skip where this user cannot mount FUSE file systems at all."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is missing or cannot be opened; run: chmod 666 /dev/fuse")


@pytest.fixture(scope="session", autouse=True)
def nothing_mounted_afterwards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave no mounts behind, even if the tests are killed."""
    with unmounted_afterwards(tmp_path_factory.getbasetemp()):
        yield


class Devices:
    """Makes emulated devices, each kind once; what a test gets is a copy, which is as fresh and cheaper."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[tuple[str, ...], Path] = {}

    def copy(self, device: Path, create: list[str], mkfs: tuple[str, ...] | None) -> None:
        """Make *device* as ``create`` and ``mkfs`` with these arguments would."""
        key = (*create, "mkfs", *(mkfs if mkfs is not None else ("none",)))
        if key not in self._made:
            template = self._directory / f"device{len(self._made)}"
            run(ZONEFS_PY, "create", template, *create)
            if mkfs is not None:
                run(ZONEFS_PY, "mkfs", template, *mkfs)
            self._made[key] = template
        run("cp", "--archive", "--sparse=always", self._made[key], device)


@pytest.fixture(scope="session")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Devices:
    """The devices that tests copy."""
    return Devices(tmp_path_factory.mktemp("devices"))


@pytest.fixture
def device_dir(tmp_path: Path, devices: Devices) -> Callable[..., Path]:
    """A factory of formatted emulated devices: ``device_dir(zones=8, conventional=2, zone_size="1M", ...)``.

    Keywords are the options of ``zonefs-py create`` (``max_open=4`` is ``--max-open 4``); ``mkfs`` holds arguments
    for ``zonefs-py mkfs`` (by default files belong to who runs the tests), None leaves the device unformatted.
    Returns the device's directory. Devices that are made alike have the same serial number and uuid.
    """
    made = 0

    def make(mkfs: tuple[str, ...] | None = (), **geometry: object) -> Path:
        nonlocal made
        device = tmp_path / f"disk{made}"
        made += 1
        options = {"zones": 8, "conventional": 2, "zone_size": "1M"} | geometry
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        if mkfs == () and os.geteuid() != 0:
            # Files are root's by default; the tests of a plain user are about files of that user.
            mkfs = ("-o", f"uid={os.geteuid()},gid={os.getegid()}")
        devices.copy(device, words, mkfs)
        return device

    return make


@dataclass
class LiveMount:
    """A mount that a test made: where it is, which process serves it, and where that logs."""

    path: Path
    log_file: Path
    pid: int
    expected: list[re.Pattern[str]] = field(default_factory=list)

    @property
    def is_mounted(self) -> bool:
        """Whether something is mounted there; also when its daemon is gone."""
        # Others may have mounts whose names are no text.
        lines = Path("/proc/self/mounts").read_bytes().splitlines()
        return any(line.split(b" ")[1] == os.fsencode(self.path) for line in lines)

    @property
    def daemon_runs(self) -> bool:
        """Whether the daemon has not ended. (It is no child of ours: init reaps it.)"""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "Z"

    def bad_log_lines(self) -> list[str]:
        """What the daemon complained about without being expected to."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        return [
            line
            for line in lines
            if BAD_LOG_LINE.search(line) and not any(pattern.search(line) for pattern in self.expected)
        ]


class Mounts:
    """Mounts and unmounts; call it to mount."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mounts: dict[Path, LiveMount] = {}
        self._made = 0

    def __call__(self, device: Path, options: str = "", at: Path | None = None) -> Path:
        """Mount *device* with the ``-o`` *options*; return the mount point (a new directory, or *at*)."""
        path = at or self._directory / f"mnt{self._made}"
        path.mkdir(exist_ok=True)
        log_file = self._directory / f"daemon{self._made}.log"
        self._made += 1
        options = with_passthrough(options)
        words = ["-o", options] if options else []
        run(ZONEFS_PY, "mount", device, path, "--log-file", log_file, *words)
        self._mounts[path] = LiveMount(path, log_file, ask(str(path), {"request": "ping"})["pid"])
        return path

    def info(self, path: Path) -> dict[str, Any]:
        """What ``zonefs-py info`` says of the mount."""
        found: dict[str, Any] = json.loads(run(ZONEFS_PY, "info", path, "--format", "json").stdout)
        return found

    def zones(self, path: Path) -> dict[str, dict[str, Any]]:
        """What ``zonefs-py report`` says of a mount or device: its zones that have files, by file name."""
        zones = json.loads(run(ZONEFS_PY, "report", path, "--format", "json").stdout)["zones"]
        return {zone["file"]: zone for zone in zones if zone["file"]}

    def get(self, path: Path) -> LiveMount:
        """The mount at *path*."""
        return self._mounts[path]

    def expect_log(self, path: Path, pattern: str) -> None:
        """Say that warnings and errors in the daemon's log that match *pattern* are part of the test."""
        self._mounts[path].expected.append(re.compile(pattern))

    def unmount(self, path: Path) -> None:
        """Unmount; the daemon must end, and its log be clean."""
        mount = self._mounts.pop(path)
        try:
            run(ZONEFS_PY, "umount", path)
            wait_until(f"daemon {mount.pid} ends", lambda: not mount.daemon_runs)
        finally:
            if mount.is_mounted:
                run("fusermount3", "-u", "-z", path, check=False)
        assert not mount.is_mounted
        assert not mount.bad_log_lines(), mount.log_file.read_text()

    def forget(self, path: Path) -> None:
        """Say that the test has dealt with the mount at *path* itself."""
        del self._mounts[path]

    def unmount_all(self) -> None:
        """Unmount what is mounted; complain about the first that does not go well after trying all."""
        failures = []
        for path in list(self._mounts):
            try:
                self.unmount(path)
            except AssertionError as exc:
                failures.append(exc)
        if failures:
            raise failures[0]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounts]:
    """A factory of mounts: ``path = mounted(device, "errors=repair")``. At the end of the test all are unmounted;
    the test fails if a daemon does not end, or logged a traceback, an error or a warning that was not expected."""
    mounts = Mounts(tmp_path)
    yield mounts
    mounts.unmount_all()


@pytest.fixture
def passing(mounted: Mounts, device_dir: Callable[..., Path]) -> Callable[..., Path]:
    """A factory of mounts that pass reads through; skips where that is impossible."""

    def mount(device: Path | str | None = None, options: str = "") -> Path:
        device = device if device is not None else device_dir()
        # Not ``on``: that would be a failure, and here it is a machine that cannot do it.
        # The types: a stack is a text.
        mnt = mounted(device, f"{options},passthrough=auto" if options else "passthrough=auto")  # type: ignore[arg-type]
        capabilities = mounted.info(mnt)["capabilities"]
        if not capabilities["passthrough"]:
            pytest.skip(f"no passthrough: {capabilities['no_passthrough_because']}")
        return mnt

    return mount


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A place for devices and mounts, clean again at the end."""
    from tests.fuse.daemon_helpers import Site  # which needs this module

    site = Site(tmp_path)
    yield site
    site.clean_up()

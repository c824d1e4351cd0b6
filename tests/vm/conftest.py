"""One virtual machine for all tests here: kernel zonefs and zoned block devices (docs/vm.md)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vm.suites import SCRIPT_ZNS
from tools.machine.errors import QemuError, VmError
from tools.machine.session import Machine, Settings
from zonefs_py.fs.superblock import Features, Superblock

ZNS = "zns:zones=16,zone_size=4M,zone_capacity=3M,max_open=6,max_active=8,mssrl=128,mcl=256,msrc=15"
COMMAND_SECONDS = 1800.0
"""Other work may have most of this computer: only what hangs should run into it."""
NO_FEATURES = Features(0)


@contextmanager
def running_machine(settings: Settings) -> Iterator[Machine]:
    """A machine for as long as the context lasts; where none can be had at all, the test is skipped, and says why."""
    try:
        machine = Machine.start(settings)
    except (VmError, QemuError) as exc:
        pytest.skip(f"no virtual machine can be started here: {exc}")
    with machine:
        yield machine


class Guest:
    """What tests do with the machine. ``share`` is one directory inside and outside, writable on both sides."""

    def __init__(self, machine: Machine, share: Path) -> None:
        self.machine = machine
        self.share = share
        self.zns, self.limited_zns = machine.devices
        self._mounts = 0

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = COMMAND_SECONDS, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root, with *env* added to its environment; it must succeed if *check*."""
        words = [str(word) for word in command]
        result = self.machine.run(words, env=env, timeout=timeout)
        done = subprocess.CompletedProcess(words, result.status, result.stdout.decode(), result.stderr.decode())
        if check:
            assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def shell(self, script: str, *arguments: str | Path, check: bool = True) -> str:
        """Run a shell script inside, with ``$1``...; give what it printed."""
        return self.run("sh", "-euc", script, "sh", *arguments, check=check).stdout

    def python(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run this interpreter inside, with our packages: ``python("-m", "zonefs_py.cli.main", ...)``."""
        return self.run(sys.executable, *arguments, check=check)

    @contextmanager
    def device(self, text: str) -> Iterator[str]:
        """A device (``null_blk:zones=16,...``) for as long as the context lasts; gives its path inside."""
        path = self.machine.add_device(text)
        try:
            yield path
        finally:
            self.machine.remove_device(path)

    def queue(self, device: str, attribute: str) -> str:
        """An attribute of a block device's queue in sysfs."""
        return self.shell('cat "/sys/block/${1#/dev/}/queue/$2"', device, attribute).strip()

    def format(self, device: str, features: Features = NO_FEATURES) -> None:
        """Reset all zones and write a superblock, without the code that tests may be about."""
        image = self.share / f"superblock{self._mounts}"
        image.write_bytes(Superblock(features=features).pack())
        self.shell('blkzone reset "$1"; dd if="$2" of="$1" bs=4096 oflag=direct status=none', device, image)

    @contextmanager
    def mounted(self, device: str, options: str = "errors=remount-ro") -> Iterator[str]:
        """Kernel zonefs on *device*, mounted as long as the context lasts; gives the directory inside."""
        self._mounts += 1
        directory = f"/run/zonefs{self._mounts}"
        self.shell('mkdir "$1"; mount -t zonefs -o "$3" "$2" "$1"', directory, device, options)
        try:
            yield directory
        finally:
            self.run("umount", directory)


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The machine, started once, with two ZNS namespaces: one has small limits for Copy, the other for zones."""
    share = tmp_path_factory.mktemp("share")
    with running_machine(Settings(devices=[ZNS, SCRIPT_ZNS], shares=[share], memory_mib=3072)) as machine:
        yield Guest(machine, share)

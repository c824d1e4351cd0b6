"""Debian's kernel and the programs that start it, unpacked into a cache; the system itself is not changed.

The cache holds ``kernel/RELEASE`` (an unpacked linux-image package with its modules indexed), ``tools`` (programs that
the system lacks, or has too old) and ``apt`` (a private state of apt: lists and downloads). All of it works for a plain
user.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.machine.errors import VmError

# Program -> the Debian package that brings it.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "kmod": "kmod",
    "setpriv": "util-linux",
}

GOOD_QEMU = 10
"""An older QEMU of the system's is passed over for that of the backports: 7.2, which Debian 12 has, takes three times
the processor's time to start a process in the machine, and nearly twice for Python."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: *root* holds ``boot`` and ``lib/modules``."""

    release: str
    root: Path

    @property
    def image(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules"


@dataclass(frozen=True)
class Programs:
    """What starts a machine. *firmware* are QEMU's data directories if they are not where QEMU looks by itself."""

    qemu: Path
    busybox: Path
    modprobe: Path
    depmod: Path
    setpriv: Path
    firmware: tuple[Path, ...]


class Cache:
    """The directory of unpacked packages. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self, *, refresh: bool = False) -> tuple[Kernel, Programs]:
        """Give kernel and programs, fetching what is missing; with *refresh* look for a newer kernel.

        Without *refresh*, and once everything is there, no network is used. Raises :class:`VmError`.
        """
        kernel, programs = self.kernel(), self.programs()
        if kernel is not None and programs is not None and not refresh:
            return kernel, programs
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise VmError(f"cannot make the cache {self.path}: {exc.strerror}; choose another with --cache") from exc
        with self._locked():
            programs = self.programs()
            if programs is None:
                self._fetch_programs()
                programs = self.programs()
                if programs is None:
                    raise VmError(f"{', '.join(PROGRAMS)} were fetched but not all are there; see {self.path}/tools")
            kernel = self.kernel()
            if kernel is None or refresh:
                kernel = self._fetch_kernel(programs)
        return kernel, programs

    def kernel(self) -> Kernel | None:
        """The newest kernel that is unpacked completely."""
        found = [path.parent for path in (self.path / "kernel").glob("*/complete")]
        if not found:
            return None
        newest = max(found, key=lambda path: _version_key(path.name))
        return Kernel(newest.name, newest)

    def programs(self) -> Programs | None:
        """The programs of the system, or those unpacked; None if one is missing."""
        qemu, busybox, kmod, setpriv = (self._program(name) for name in PROGRAMS)
        if qemu is None or busybox is None or kmod is None or setpriv is None:
            return None
        own = self.path / "tools"
        firmware = tuple(own / "usr/share" / name for name in ("qemu", "seabios")) if qemu.is_relative_to(own) else ()
        modprobe, depmod = (_applet(kmod, name) for name in ("modprobe", "depmod"))
        return Programs(qemu, busybox, modprobe, depmod, setpriv, firmware)

    def _program(self, name: str) -> Path | None:
        """The system's, or the unpacked one; None if neither will do."""
        found: list[Path] = []
        if name == "busybox":
            # The initramfs has no libraries.
            system = [Path(directory, name) for directory in ("/usr/bin", "/bin")]
            found += [path for path in system if path.exists() and _is_static(path)]
        elif path := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"):
            found.append(Path(path))
        if (unpacked := self.path / "tools" / "run" / name).exists():
            found.append(unpacked)
        if name == "qemu-system-x86_64":
            found = [path for path in found if _qemu_version(path) >= GOOD_QEMU]
        return found[0] if found else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.path / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fetch_kernel(self, programs: Programs) -> Kernel:
        apt = _Apt(self.path / "apt")
        apt.update()
        package = apt.newest_kernel()
        release = package.removeprefix("linux-image-")
        target = self.path / "kernel" / release
        if (target / "complete").exists():
            return Kernel(release, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as temporary:
            unpacked = Path(temporary, "root")
            for archive in apt.download([package]):
                _checked(["dpkg", "-x", str(archive), str(unpacked)])
                archive.unlink()
            kernel = Kernel(release, unpacked)
            if not kernel.modules.is_dir():
                # Newer packages have them below /usr.
                (unpacked / "lib").mkdir(exist_ok=True)
                (unpacked / "usr/lib/modules").rename(kernel.modules)
            _checked([str(programs.depmod), "-b", str(unpacked), release])
            (unpacked / "complete").touch()
            shutil.rmtree(target, ignore_errors=True)
            unpacked.rename(target)
        return Kernel(release, target)

    def _fetch_programs(self) -> None:
        """Unpack the missing programs, with those libraries that the system lacks, and put starters beside them."""
        apt = _Apt(self.path / "apt")
        apt.update()
        missing = [package for name, package in PROGRAMS.items() if self._program(name) is None]
        target = self.path / "tools"
        for archive in apt.download_with_libraries(missing):
            _checked(["dpkg", "-x", str(archive), str(target)])
            archive.unlink()
        write_starters(target)


def write_starters(target: Path) -> None:
    """Write ``run/NAME`` for each program that is unpacked in *target*: it starts it with the libraries there."""
    starters = target / "run"
    starters.mkdir(exist_ok=True)
    # Whoever copies the cache need not write them anew.
    here = '"${0%/*}/.."'
    libraries = ":".join(f"{here}/{part}" for part in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    for name in (*PROGRAMS, "modprobe", "depmod", "lsmod", "insmod", "rmmod", "modinfo"):
        for directory in ("usr/bin", "bin", "usr/sbin", "sbin"):
            program = target / directory / name
            if os.path.lexists(program):
                _keep_inside(program, target)
                starter = starters / name
                if name == "busybox":
                    shutil.copy2(program, starter)
                else:
                    command = f"LD_LIBRARY_PATH={libraries} exec {here}/{directory}/{name}"
                    starter.write_text(f'#!/bin/sh\n{command} "$@"\n')
                starter.chmod(0o755)
                break


def _keep_inside(program: Path, target: Path) -> None:
    """Make *program*, if it is a link to an absolute path, one to that path in *target*: the system may not have it."""
    if program.is_symlink() and os.path.isabs(leads_to := os.readlink(program)):
        program.unlink()
        program.symlink_to(os.path.relpath(target / leads_to.lstrip("/"), program.parent))


class _Apt:
    """apt with lists and downloads of its own, and with the backports suite of the mirror that the system uses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise VmError("the machine's kernel comes from Debian, and this system has no apt-get and dpkg")
        for part in ("lists/partial", "cache/archives/partial"):
            (path / part).mkdir(parents=True, exist_ok=True)
        sources = path / "sources.list"
        sources.write_text(_sources())
        options = {
            "Dir::State": path,
            "Dir::State::lists": path / "lists",
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": path / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
        }
        if os.geteuid() == 0:
            # The sandbox's user cannot reach a cache below root's home.
            options["APT::Sandbox::User"] = "root"
        self._options = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def _run(self, *argv: str, cwd: Path | None = None) -> str:
        return _checked([argv[0], *self._options, *argv[1:]], cwd=cwd)

    def update(self) -> None:
        """Fetch the lists."""
        self._run("apt-get", "-q", "update")

    def newest_kernel(self) -> str:
        """The package that the newest linux-image-amd64 depends on."""
        found: list[tuple[tuple[tuple[int, str], ...], str]] = []
        for stanza in self._run("apt-cache", "show", "linux-image-amd64").split("\n\n"):
            version = re.search(r"^Version: (\S+)", stanza, re.MULTILINE)
            depends = re.search(r"^Depends:.*?\b(linux-image-\d\S*-amd64)", stanza, re.MULTILINE)
            if version and depends:
                found.append((_version_key(version[1]), depends[1]))
        if not found:
            raise VmError("apt knows no linux-image-amd64")
        return max(found)[1]

    def download(self, packages: list[str]) -> list[Path]:
        """Fetch *packages* alone; the caller removes the archives, as those of the next one."""
        directory = self._path / "cache/archives"
        self._run("apt-get", "-q", "download", *packages, cwd=directory)
        return sorted(directory.glob("*.deb"))

    def download_with_libraries(self, packages: list[str]) -> list[Path]:
        """Fetch *packages* from the backports, and what they depend on, without what is installed and will do."""
        suite = f"{_os_release('VERSION_CODENAME')}-backports"
        only = ("--no-install-recommends", "--download-only", "--target-release", suite)
        self._run("apt-get", "-q", "-y", *only, "install", *packages)
        return sorted((self._path / "cache/archives").glob("*.deb"))


def _sources() -> str:
    """The lines for apt: the system's own suite and its backports, at the mirror that the system uses."""
    codename = _os_release("VERSION_CODENAME")
    for stanza in _checked(["apt-get", "indextargets", "Created-By: Packages"]).split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if (
            fields.get("Release") == codename
            and fields.get("Component") == "main"
            and fields.get("Origin", "Debian") == "Debian"
        ):
            break
    else:
        raise VmError(f"apt has no source for Debian's {codename or 'suite'} main, from where kernel and programs come")
    keyring = fields.get("Signed-By") or "/usr/share/keyrings/debian-archive-keyring.gpg"
    signed = f"[signed-by={keyring}] " if keyring.startswith("/") and os.path.exists(keyring) else ""
    suites = (codename, f"{codename}-updates", f"{codename}-backports")
    return "".join(f"deb {signed}{fields['Repo-URI']} {suite} main\n" for suite in suites)


def _os_release(name: str) -> str:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    match = re.search(rf'^{name}="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else ""


def _checked(argv: list[str], *, cwd: Path | None = None) -> str:
    env = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        worst = next((line for line in lines if line.startswith(("E:", "dpkg"))), lines[-1])
        raise VmError(f"{argv[0]} failed: {worst}")
    return done.stdout


def _version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Order versions by their numbers: enough for the versions of one package."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[^\d]+", version))


def _applet(kmod: Path, name: str) -> Path:
    """kmod is one program that acts by the name it is called by."""
    for directory in (kmod.parent, Path("/usr/sbin"), Path("/sbin")):
        if (path := directory / name).exists():
            return path
    raise VmError(f"{kmod} is there but {name} is not; install the Debian package kmod")


def _qemu_version(program: Path) -> int:
    """The first number of the version that a QEMU tells; 0 if it tells none."""
    try:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError:
        return 0
    found = re.match(r"QEMU emulator version (\d+)", done.stdout)
    return int(found[1]) if found else 0


def _is_static(program: Path) -> bool:
    """Whether an ELF program needs no interpreter (no PT_INTERP among its program headers)."""
    with open(program, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset = int.from_bytes(header[32:40], "little")
        size, count = int.from_bytes(header[54:56], "little"), int.from_bytes(header[56:58], "little")
        file.seek(offset)
        return all(int.from_bytes(file.read(size)[:4], "little") != 3 for _ in range(count))

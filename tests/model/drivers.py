"""Drivers: the same verbs over the core and over a live mount, and what FUSE makes of some of them.

A driver refuses with `Refused`, which carries the name of an errno. Handles have the numbers that the machine
gives them. What a driver answers otherwise than kernel zonefs, because the kernel's FUSE client answers first, is
declared in its ``differences`` and applied by its ``admit``; the oracle knows nothing of it.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Flag, auto
from pathlib import Path
from typing import Any

from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.control.client import ask
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import ZonefsError
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.testing.scratch import Scratch
from zonefs_py.zone import CONDITION_NAMES, TYPE_NAMES, ZoneCondition, ZoneOp, ZoneType

from .faults import FaultyDevice
from .oracle import Branch, Counters, Format, Observation, Options, Setup, Stat, Statfs, refuse
from .zones import ReportedZone


class Refused(Exception):
    """The system under test refused; ``errno_name`` says how."""

    def __init__(self, errno_name: str) -> None:
        super().__init__(errno_name)
        self.errno_name = errno_name


class Difference(Flag):
    """Where a driver's answers or abilities are not those of kernel zonefs."""

    EMPTY_IO_IS_ANSWERED_EARLY = auto()
    """Reads and writes of no bytes succeed in the kernel; the file system never sees them."""
    APPEND_HIDES_THE_OFFSET = auto()
    """The kernel puts the size in place of an appending write's offset: EFBIG and EINVAL of a cnv file merge."""
    KERNEL_CHECKS_NAMES_FIRST = auto()
    """Types and EROFS are checked before the file system is asked to create, remove or rename."""
    CLOSE_RETURNS_EARLY = auto()
    """close(2) does not wait for the file system's release: counters and conditions follow a little later."""
    MOVES_ARE_LAZY = auto()
    """Write pointers are moved behind the device (its backing file), which notices when it next looks."""
    REMOUNT_KEEPS_EXPLICIT_OPEN = auto()
    """A remount keeps what it does not name, and no word takes explicit-open away."""
    READ_ONLY_MOUNT_FREEZES_THE_DEVICE = auto()
    """A mount that began read-only has the device open read-only: no condition is forced, no remount makes it rw."""
    CALLER_IS_ROOT = auto()
    """Calls come from the user who runs the tests."""
    NO_FAULTS = auto()
    """No device fault can be ordered."""
    READS_PASS_BY = auto()
    """Who opened a file for reading only may be served from the zone's own file: docs/passthrough.md."""


class Driver(ABC):
    """The verbs. Paths as in the oracle: ``""``, ``"cnv"``, ``"seq/0"``."""

    differences = Difference(0)
    steps_between_mounts = 0
    """How many other steps the machine should take before it mounts again: mounting may be slow."""

    @abstractmethod
    def start(self, setup: Setup) -> None:
        """Make the device, format and mount it."""

    @abstractmethod
    def stop(self) -> None:
        """Unmount and remove everything, whatever state it is in. AssertionError if the system misbehaved."""

    @abstractmethod
    def observe(self, paths: Iterable[str]) -> Observation:
        """Everything that can be seen, with the stat of *paths*."""

    @abstractmethod
    def counters(self) -> Counters:
        """The counters alone."""

    @abstractmethod
    def open(self, number: int, path: str, flags: int) -> None:
        """Open *path* with ``os.O_*`` *flags* as handle *number*."""

    @abstractmethod
    def close(self, number: int) -> None:
        """Close a handle."""

    @abstractmethod
    def read(self, number: int, offset: int, length: int) -> bytes:
        """Read through a handle."""

    @abstractmethod
    def write(self, number: int, offset: int, data: bytes, append: bool | None = None) -> int:
        """Write through a handle; *append* true: this write only (RWF_APPEND)."""

    @abstractmethod
    def read_whole(self, path: str) -> bytes:
        """Read all of a file through a handle of its own, in one or two reads."""

    @abstractmethod
    def fsync(self, number: int) -> None:
        """Flush a handle."""

    @abstractmethod
    def truncate(self, path: str, size: int, uid: int = 0) -> None:
        """truncate(2), as user *uid*."""

    @abstractmethod
    def truncate_handle(self, number: int, path: str, size: int) -> None:
        """ftruncate(2), on a handle of *path* that is open for writing."""

    @abstractmethod
    def chmod(self, path: str, permissions: int) -> None:
        """chmod(2)."""

    @abstractmethod
    def chown(self, path: str, uid: int, gid: int) -> None:
        """chown(2)."""

    @abstractmethod
    def utimes(self, path: str, atime: int, mtime: int) -> None:
        """utimensat(2), in nanoseconds."""

    @abstractmethod
    def lookup(self, parent: str, name: bytes) -> int:
        """Look a name up; return its inode number."""

    @abstractmethod
    def readdir(self, path: str) -> list[tuple[bytes, int, bool]]:
        """Name, inode number and whether it is a directory."""

    @abstractmethod
    def create(self, parent: str, name: bytes) -> None:
        """Try to make a name."""

    @abstractmethod
    def remove(self, parent: str, name: bytes) -> None:
        """Try to remove a name."""

    @abstractmethod
    def rename(self, parent: str, name: bytes, new_parent: str, new_name: bytes) -> None:
        """Try to rename."""

    @abstractmethod
    def force(self, number: int, condition: ZoneCondition | None) -> None:
        """Make a zone read-only or offline, or well again."""

    @abstractmethod
    def move_by_write(self, number: int, wpoffset: int, data: bytes) -> None:
        """Write at a zone's write pointer behind the file system."""

    @abstractmethod
    def move_by_operation(self, number: int, op: ZoneOp) -> None:
        """Reset or finish a zone behind the file system."""

    @abstractmethod
    def remount(self, options: Options) -> None:
        """Remount with exactly these options."""

    @abstractmethod
    def mount_again(self, options: Options) -> None:
        """Close all handles, unmount, mount with these options."""

    def fail_next_write(self, after_blocks: int) -> None:
        """Order a write fault."""
        raise NotImplementedError

    def fail_next_read(self) -> None:
        """Order a read fault."""
        raise NotImplementedError

    def disarm(self) -> bool:
        """Withdraw faults that did not strike; return whether there were any."""
        return False

    def is_taken(self, number: int) -> bool:
        """Whether an open file was taken from who has it open: all that can be done is to close it."""
        return False

    def admit(self, verb: str, branches: list[Branch], **facts: Any) -> list[Branch]:
        """Return what this driver may answer where kernel zonefs answers *branches* to *verb*."""
        return branches


def _core_options(options: Options) -> MountOptions:
    return MountOptions(ErrorsPolicy(options.errors), options.explicit_open, options.read_only)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ZonefsError as exc:
        raise Refused(exc.errno_name) from exc
    except OSError as exc:
        raise Refused(errno.errorcode[exc.errno or 0]) from exc


class CoreDriver(Driver):
    """`Filesystem` over a memory device, or over an emulated one in a temporary directory."""

    def __init__(self, *, emulated: bool = False) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="zonefs-model-")) if emulated else None
        self._handles: dict[int, int] = {}

    def start(self, setup: Setup) -> None:
        self._setup = setup
        limits = (setup.max_open, setup.max_active)
        self._memory = None
        if self._directory is None:
            self._memory = MemoryDevice(setup.geometry, *limits)
        else:
            create_device(self._directory / "device", setup.geometry, *limits)
        chosen = setup.format
        with self._open_inner() as device:
            format_device(device, FormatOptions(chosen.aggregate, chosen.uid, chosen.gid, chosen.permissions))
        self._mount(setup.options)

    def _open_inner(self) -> ZonedDevice:
        if self._memory is not None:
            return self._memory
        assert self._directory is not None
        return open_device(self._directory / "device")

    def _mount(self, options: Options) -> None:
        self._inner = self._open_inner()
        self._device = FaultyDevice(self._inner)
        self._fs = Filesystem(self._device, _core_options(options))
        self._handles = {}

    def stop(self) -> None:
        try:
            if hasattr(self, "_fs"):
                self._fs.close()
        finally:
            if self._directory is not None:
                shutil.rmtree(self._directory)

    def observe(self, paths: Iterable[str]) -> Observation:
        fs = self._fs
        return Observation(
            stats={path: self._stat(path) for path in paths},
            report=[self._reported(*entry) for entry in fs.report()],
            counters=self.counters(),
            statfs=self._statfs(),
            read_only=fs.read_only,
        )

    def _stat(self, path: str) -> Stat:
        seen = self._fs.getattr(self._fs.resolve(path))
        return Stat(
            seen.ino,
            seen.mode,
            seen.nlink,
            seen.uid,
            seen.gid,
            seen.size,
            seen.blocks,
            seen.block_size,
            seen.atime_ns,
            seen.mtime_ns,
            seen.ctime_ns,
        )

    @staticmethod
    def _reported(zone: Any, file: str | None) -> ReportedZone:
        wpoffset = zone.wp - zone.start if zone.has_write_pointer else None
        return ReportedZone(
            zone.number,
            zone.type is ZoneType.CONVENTIONAL,
            zone.condition,
            zone.start,
            zone.size,
            zone.capacity,
            wpoffset,
            file,
        )

    def _statfs(self) -> Statfs:
        seen = self._fs.statfs()
        return Statfs(seen.block_size, seen.blocks, seen.blocks_free, seen.files, seen.name_max)

    def counters(self) -> Counters:
        return Counters(**self._fs.counters._asdict())

    def open(self, number: int, path: str, flags: int) -> None:
        with _translated():
            self._handles[number] = self._fs.open(path, flags)

    def close(self, number: int) -> None:
        with _translated():
            self._fs.release(self._handles.pop(number))

    def read(self, number: int, offset: int, length: int) -> bytes:
        with _translated():
            return bytes(self._fs.read(self._handles[number], offset, length))

    def write(self, number: int, offset: int, data: bytes, append: bool | None = None) -> int:
        with _translated():
            return self._fs.write(self._handles[number], offset, data, append=append)

    def read_whole(self, path: str) -> bytes:
        with _translated():
            handle = self._fs.open(path, os.O_RDONLY)
            try:
                return bytes(self._fs.read(handle, 0, self._setup.geometry.size))
            finally:
                self._fs.release(handle)

    def fsync(self, number: int) -> None:
        with _translated():
            self._fs.fsync(self._handles[number])

    def truncate(self, path: str, size: int, uid: int = 0) -> None:
        with _translated():
            if uid:
                self._fs.setattr(path, AttributeChanges(size=size), caller_uid=uid)
            else:
                self._fs.truncate(path, size)

    def truncate_handle(self, number: int, path: str, size: int) -> None:
        with _translated():
            self._fs.setattr(path, AttributeChanges(size=size), handle=self._handles[number])

    def _change(self, path: str, changes: AttributeChanges) -> None:
        with _translated():
            self._fs.setattr(self._fs.resolve(path), changes)

    def chmod(self, path: str, permissions: int) -> None:
        self._change(path, AttributeChanges(mode=permissions))

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._change(path, AttributeChanges(uid=uid, gid=gid))

    def utimes(self, path: str, atime: int, mtime: int) -> None:
        self._change(path, AttributeChanges(atime_ns=atime, mtime_ns=mtime))

    def lookup(self, parent: str, name: bytes) -> int:
        with _translated():
            return self._fs.lookup(self._fs.resolve(parent), name).ino

    def readdir(self, path: str) -> list[tuple[bytes, int, bool]]:
        with _translated():
            ino = self._fs.resolve(path)
            entries = self._fs.readdir(ino)
            # A listing can go on after any entry.
            for index, entry in enumerate(entries):
                assert entry.next_offset == index + 1
            assert self._fs.readdir(ino, 2) == entries[2:]
        return [(entry.name, entry.ino, entry.mode & 0o170000 == 0o040000) for entry in entries]

    def create(self, parent: str, name: bytes) -> None:
        with _translated():
            self._fs.refuse_create(self._fs.resolve(parent), name)

    def remove(self, parent: str, name: bytes) -> None:
        with _translated():
            self._fs.refuse_remove(self._fs.resolve(parent), name)

    def rename(self, parent: str, name: bytes, new_parent: str, new_name: bytes) -> None:
        with _translated():
            self._fs.refuse_rename(self._fs.resolve(parent), name, self._fs.resolve(new_parent), new_name)

    def force(self, number: int, condition: ZoneCondition | None) -> None:
        self._inner.force_condition(number, condition)

    def move_by_write(self, number: int, wpoffset: int, data: bytes) -> None:
        with _translated():
            self._inner.write(number * self._setup.geometry.zone_size + wpoffset, data)

    def move_by_operation(self, number: int, op: ZoneOp) -> None:
        with _translated():
            self._inner.zone_mgmt(op, number)

    def remount(self, options: Options) -> None:
        with _translated():
            self._fs.remount(_core_options(options))

    def mount_again(self, options: Options) -> None:
        self._fs.close()
        if self._memory is not None:
            self._memory.power_cycle()
        self._mount(options)

    def fail_next_write(self, after_blocks: int) -> None:
        self._device.fail_next_write(after_blocks)

    def fail_next_read(self) -> None:
        self._device.fail_next_read()

    def disarm(self) -> bool:
        return self._device.disarm()


_CONDITIONS = {name: condition for condition, name in CONDITION_NAMES.items()}
_MAX_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class _OpenFile:
    fd: int
    direct: bool


class MountDriver(Driver):
    """The command line and a live mount in a temporary directory, used by system calls."""

    differences = (
        Difference.EMPTY_IO_IS_ANSWERED_EARLY
        | Difference.APPEND_HIDES_THE_OFFSET
        | Difference.KERNEL_CHECKS_NAMES_FIRST
        | Difference.CLOSE_RETURNS_EARLY
        | Difference.MOVES_ARE_LAZY
        | Difference.REMOUNT_KEEPS_EXPLICIT_OPEN
        | Difference.READ_ONLY_MOUNT_FREEZES_THE_DEVICE
        | Difference.CALLER_IS_ROOT
        | Difference.NO_FAULTS
    )

    steps_between_mounts = 20

    def __init__(self, passthrough: str) -> None:
        """*passthrough* is the mount option: ``on``, ``off`` or ``auto``."""
        self._passthrough = passthrough
        if passthrough != "off":
            self.differences |= Difference.READS_PASS_BY
        # Tests that are killed leave no mounts behind.
        self._scratch = Scratch()
        self._directory = self._scratch.path
        self._device = self._directory / "device"
        self._root = self._directory / "mnt"
        self._log = self._directory / "log"
        self._root.mkdir()
        self._handles: dict[int, _OpenFile] = {}
        self._mounted = False

    # The command line.

    @staticmethod
    def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "zonefs-py"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def _run_well(self, *words: str | Path) -> None:
        done = self._run(*words)
        assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}"

    def start(self, setup: Setup) -> None:
        geometry = setup.geometry
        words: list[str | Path] = ["create", self._device, "--zones", str(geometry.nr_zones)]
        words += ["--conventional", str(geometry.nr_conventional), "--zone-size", str(geometry.zone_size)]
        words += ["--zone-capacity", str(geometry.zone_capacity), "--block-size", str(geometry.block_size)]
        words += ["--last-zone-size", str(geometry.last_zone_size)]
        if setup.max_open is not None:
            words += ["--max-open", str(setup.max_open)]
        if setup.max_active is not None:
            words += ["--max-active", str(setup.max_active)]
        self._run_well(*words)
        self._run_well("mkfs", self._device, *self._format_words(setup.format))
        self._mount(setup.options)

    @staticmethod
    def _format_words(chosen: Format) -> list[str]:
        words = ["aggr_cnv"] if chosen.aggregate else []
        words += [f"uid={chosen.uid}"] if chosen.uid is not None else []
        words += [f"gid={chosen.gid}"] if chosen.gid is not None else []
        words += [f"perm={chosen.permissions:o}"] if chosen.permissions is not None else []
        return ["-o", ",".join(words)] if words else []

    @staticmethod
    def _option_text(options: Options) -> str:
        words = ["ro" if options.read_only else "rw", f"errors={options.errors}"]
        return ",".join(words + (["explicit-open"] if options.explicit_open else []))

    def _mount(self, options: Options) -> None:
        chosen = f"{self._option_text(options)},passthrough={self._passthrough}"
        words = ("mount", self._device, self._root, "-o", chosen, "--log-file", self._log)
        self._run_well(*words)
        self._mounted = True

    def _unmount(self) -> None:
        self._close_all()
        self._run_well("umount", self._root)
        self._mounted = False

    def _close_all(self) -> None:
        for handle in self._handles.values():
            os.close(handle.fd)
        self._handles.clear()

    def stop(self) -> None:
        try:
            if self._mounted:
                self._unmount()
            self._check_log()
        finally:
            self._close_all()
            self._scratch.close()

    def _check_log(self) -> None:
        text = self._log.read_text() if self._log.exists() else ""
        assert "Traceback" not in text, text

    # Observing.

    def observe(self, paths: Iterable[str]) -> Observation:
        info = self._ask("info")["mount"]
        return Observation(
            stats={path: self._stat(path) for path in paths},
            report=[self._reported(entry) for entry in self._ask("report")["zones"]],
            counters=Counters(**{name: info[name] for name in asdict(Counters(0, 0, 0, 0))}),
            statfs=self._statfs(),
            read_only=info["read_only"],
        )

    def _ask(self, request: str, **parameters: Any) -> Any:
        return ask(str(self._root), {"request": request, **parameters})

    def _stat(self, path: str) -> Stat:
        seen = os.stat(self._root / path)
        return Stat(
            seen.st_ino,
            seen.st_mode,
            seen.st_nlink,
            seen.st_uid,
            seen.st_gid,
            seen.st_size,
            seen.st_blocks,
            seen.st_blksize,
            seen.st_atime_ns,
            seen.st_mtime_ns,
            seen.st_ctime_ns,
        )

    @staticmethod
    def _reported(entry: dict[str, Any]) -> ReportedZone:
        pointer = entry["write_pointer"]
        return ReportedZone(
            entry["number"],
            entry["type"] == TYPE_NAMES[ZoneType.CONVENTIONAL],
            _CONDITIONS[entry["condition"]],
            entry["start"],
            entry["size"],
            entry["capacity"],
            None if pointer is None else pointer - entry["start"],
            entry["file"],
        )

    def _statfs(self) -> Statfs:
        seen = os.statvfs(self._root)
        assert (seen.f_frsize, seen.f_bavail, seen.f_ffree) == (seen.f_bsize, seen.f_bfree, 0)
        return Statfs(seen.f_bsize, seen.f_blocks, seen.f_bfree, seen.f_files, seen.f_namemax)

    def counters(self) -> Counters:
        info = self._ask("info")["mount"]
        return Counters(**{name: info[name] for name in asdict(Counters(0, 0, 0, 0))})

    # Files.

    def open(self, number: int, path: str, flags: int) -> None:
        with _translated():
            self._handles[number] = _OpenFile(os.open(self._root / path, flags), bool(flags & os.O_DIRECT))

    def close(self, number: int) -> None:
        with _translated():
            os.close(self._handles.pop(number).fd)

    def is_taken(self, number: int) -> bool:
        try:
            os.fstat(self._handles[number].fd)
        except OSError as exc:
            if exc.errno == errno.EIO:
                return True
            raise
        return False

    def read(self, number: int, offset: int, length: int) -> bytes:
        with _translated():
            return self._read(self._handles[number].fd, offset, length)

    @staticmethod
    def _read(fd: int, offset: int, length: int) -> bytes:
        if not length:
            return os.pread(fd, 0, offset)
        # Direct I/O wants aligned memory: a page always is.
        with mmap.mmap(-1, length) as buffer:
            done = os.preadv(fd, [buffer], offset)
            return buffer[:done]

    def write(self, number: int, offset: int, data: bytes, append: bool | None = None) -> int:
        flags = os.RWF_APPEND if append else 0
        fd = self._handles[number].fd
        with _translated():
            if not data:
                return os.pwritev(fd, [b""], offset, flags)
            with mmap.mmap(-1, len(data)) as buffer:
                buffer[:] = data
                return os.pwritev(fd, [buffer], offset, flags)

    def read_whole(self, path: str) -> bytes:
        with _translated():
            fd = os.open(self._root / path, os.O_RDONLY)
            try:
                size = os.fstat(fd).st_size
                return self._read(fd, 0, size + 4096)
            finally:
                os.close(fd)

    def fsync(self, number: int) -> None:
        with _translated():
            os.fsync(self._handles[number].fd)

    def truncate(self, path: str, size: int, uid: int = 0) -> None:
        assert not uid
        with _translated():
            os.truncate(self._root / path, size)

    def truncate_handle(self, number: int, path: str, size: int) -> None:
        with _translated():
            os.ftruncate(self._handles[number].fd, size)

    def chmod(self, path: str, permissions: int) -> None:
        with _translated():
            os.chmod(self._root / path, permissions)

    def chown(self, path: str, uid: int, gid: int) -> None:
        with _translated():
            os.chown(self._root / path, uid, gid)

    def utimes(self, path: str, atime: int, mtime: int) -> None:
        with _translated():
            os.utime(self._root / path, ns=(atime, mtime))

    def _named(self, parent: str, name: bytes) -> bytes:
        return os.fsencode(self._root / parent) + b"/" + name

    def lookup(self, parent: str, name: bytes) -> int:
        with _translated():
            return os.stat(self._named(parent, name)).st_ino

    def readdir(self, path: str) -> list[tuple[bytes, int, bool]]:
        with _translated(), os.scandir(self._root / path) as entries:
            listed = [(os.fsencode(entry.name), entry.inode(), entry.is_dir()) for entry in entries]
        above = self._root / path / ".."
        dots = [(b".", os.stat(self._root / path).st_ino, True), (b"..", os.stat(above).st_ino, True)]
        return (dots if path else [dots[0], (b"..", dots[0][1], True)]) + listed

    def create(self, parent: str, name: bytes) -> None:
        with _translated():
            os.close(os.open(self._named(parent, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL))

    def remove(self, parent: str, name: bytes) -> None:
        with _translated():
            os.unlink(self._named(parent, name))

    def rename(self, parent: str, name: bytes, new_parent: str, new_name: bytes) -> None:
        with _translated():
            os.rename(self._named(parent, name), self._named(new_parent, new_name))

    # The device.

    def force(self, number: int, condition: ZoneCondition | None) -> None:
        name = None if condition is None else CONDITION_NAMES[condition]
        self._ask("force-condition", zones=[number], condition=name)

    def _backing_file(self, number: int) -> Path:
        return self._device / f"seq-{number:06d}"

    def move_by_write(self, number: int, wpoffset: int, data: bytes) -> None:
        with self._backing_file(number).open("r+b") as backing:
            backing.seek(wpoffset)
            backing.write(data)

    def move_by_operation(self, number: int, op: ZoneOp) -> None:
        assert op in (ZoneOp.RESET, ZoneOp.FINISH)
        capacity = self._ask("report")["zones"][number]["capacity"]
        os.truncate(self._backing_file(number), capacity if op is ZoneOp.FINISH else 0)

    # The mount.

    def remount(self, options: Options) -> None:
        done = self._run("mount", "-o", "remount," + self._option_text(options), self._device, self._root)
        if done.returncode == 0:
            return
        if "open read-only" in done.stderr:
            raise Refused("EROFS")
        assert "busy" in done.stderr, done.stderr
        raise Refused("EBUSY")

    def mount_again(self, options: Options) -> None:
        self._unmount()
        self._mount(options)

    def admit(self, verb: str, branches: list[Branch], **facts: Any) -> list[Branch]:
        if verb in ("read", "write"):
            return self._admit_io(branches, **facts)
        if verb in ("create", "remove", "rename"):
            return self._admit_name(branches, **facts)
        if verb == "remount" and facts["frozen"]:
            return [*branches, *refuse("EROFS")]
        return branches

    @staticmethod
    def _admit_io(branches: list[Branch], *, empty: bool = False, appends_to_cnv: bool = False) -> list[Branch]:
        if empty and branches[0].errno != "EBADF":
            return [Branch(None)]
        if appends_to_cnv and branches[0].errno in ("EINVAL", "EFBIG"):
            return refuse("EINVAL", "EFBIG")
        return branches

    @staticmethod
    def _admit_name(branches: list[Branch], *, read_only: bool, directory: bool = False) -> list[Branch]:
        """The kernel knows whether a name is a directory's, and that the mount is read-only, before we do."""
        more = refuse("EROFS") if read_only else []
        more += refuse("EISDIR") if directory else []
        return branches + more


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Poll until *condition* holds; AssertionError after ten seconds."""
    deadline = time.monotonic() + _MAX_PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}, but not in {_MAX_PATIENCE_SECONDS:.0f} s"

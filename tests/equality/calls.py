"""Makes calls on a mounted file system and writes down, as JSON lines, what was asked and what came of it.

A line is ``{"call": name, "args": [...], "ret": result}``, or ``"err": "EINVAL"`` instead of ``ret``, and ``"state"``
of the file that the call was about: size, mode (octal), 512-byte blocks, uid, gid. Only what must be the same on any
good run goes into a line: no time, no address, no process number.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from tests.equality import system
from tests.equality.geometry import Geometry
from tests.equality.subjects import Refused, Subject

_ACCESS = {"RDONLY": os.O_RDONLY, "WRONLY": os.O_WRONLY, "RDWR": os.O_RDWR, "ACCMODE": os.O_ACCMODE}
_FLAGS = {
    name: getattr(os, f"O_{name}")
    for name in "APPEND CREAT DIRECT DIRECTORY DSYNC EXCL NOATIME NOFOLLOW NONBLOCK PATH SYNC TMPFILE TRUNC".split()
}
RWF = {"HIPRI": 1, "DSYNC": 2, "SYNC": 4, "NOWAIT": 8, "APPEND": 16, "UNKNOWN": 1 << 20}

BUFFER = 8 << 20
CLOCK_REALTIME_COARSE = 5
"""linux/time.h; Python has no name for it."""


def open_flags(text: str) -> int:
    """The number for ``RDWR|DIRECT`` and the like."""
    flags = 0
    for word in text.split("|"):
        flags |= _ACCESS[word] if word in _ACCESS else _FLAGS[word]
    return flags


def rwf_flags(text: str) -> int:
    """The number for ``DSYNC|APPEND`` and the like; empty: 0."""
    return sum(RWF[word] for word in text.split("|")) if text else 0


class File:
    """An open file, or one that could not be opened: then ``fd`` is -1."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd


class Calls:
    """The calls. Paths are relative to the mount point; names of methods are names in the record."""

    def __init__(self, subject: Subject, geometry: Geometry, out: IO[str]) -> None:
        self.subject = subject
        self.geometry = geometry
        self.block = geometry.block
        self.out = out
        self.files: list[File] = []
        self._turn = 0
        self._memory = system.memory(BUFFER)
        """Page-aligned; data of writes and reads."""

    # Writing down

    def begin(self, case: str) -> None:
        """A case begins; what is written in it does not depend on which others ran before."""
        self._turn = 0
        self.line(case=case)

    def line(self, **words: Any) -> None:
        """Write one line."""
        json.dump(words, self.out, separators=(",", ":"))
        self.out.write("\n")

    def record(
        self,
        call: str,
        args: list[Any],
        function: Callable[..., Any],
        *parameters: Any,
        about: str | File | None = None,
    ) -> Any | None:
        """Call *function* with *parameters* and write it down; return what it returned, None if it failed.

        *about* is a file whose state is written down too.
        """
        result = None
        line: dict[str, Any] = {"call": call, "args": args}
        try:
            result = function(*parameters)
        except OSError as exc:
            line["err"] = errno.errorcode.get(exc.errno or 0, str(exc.errno))
        except Refused:
            line["err"] = "refused"
        else:
            line["ret"] = result
        if about is not None:
            line["state"] = self.state(about.name if isinstance(about, File) else about)
        self.line(**line)
        return result

    def path(self, name: str) -> str:
        """The absolute path of *name*."""
        return os.path.join(self.subject.root, name)

    def state(self, name: str) -> list[Any]:
        """What stat says: size, mode, blocks, owner, group."""
        try:
            status = os.lstat(self.path(name))
        except OSError as exc:
            return [errno.errorcode[exc.errno or 0]]
        return [status.st_size, f"{status.st_mode:o}", status.st_blocks, status.st_uid, status.st_gid]

    def size(self, name: str) -> int:
        """The size of a file, as far as stat can say."""
        try:
            return os.lstat(self.path(name)).st_size
        except OSError:
            return 0

    def fill(self, length: int, shift: int = 0) -> int:
        """Put *length* bytes that no other call writes at an address *shift* bytes past a page; return it."""
        self._turn += 1
        pattern = b"".join(struct.pack("<II", self._turn, word) for word in range(512))
        data = (pattern * (length // len(pattern) + 1))[:length]
        system.poke(self._memory + shift, data)
        return self._memory + shift

    @staticmethod
    def digest(data: bytes) -> str:
        """A short name for *data*."""
        return f"{zlib.crc32(data):08x}"

    # Open files

    def open(self, name: str, flags: str, mode: int = 0o600) -> File:
        """open(2)."""
        file = File(name, -1)

        def call() -> int:
            file.fd = os.open(self.path(name), open_flags(flags), mode)
            return 0

        self.record("open", [name, flags], call, about=name)
        if file.fd >= 0:
            self.files.append(file)
        return file

    def close(self, file: File) -> None:
        """close(2)."""
        if file.fd >= 0:
            self.files.remove(file)
            fd, file.fd = file.fd, -1
            self.record("close", [file.name], os.close, fd, about=file)

    def close_all(self) -> None:
        """Close what is open, without a record."""
        while self.files:
            file = self.files.pop()
            os.close(file.fd)
            file.fd = -1

    def pwrite(self, file: File, offset: int, length: int, rwf: str = "", shift: int = 0) -> int | None:
        """pwrite(2), or pwritev2(2) with flags; memory *shift* bytes past a page."""
        address = self.fill(length, shift)
        args: list[Any] = [file.name, offset, length]
        args += [rwf] if rwf or shift else []
        args += [shift] if shift else []

        def call() -> int:
            if rwf:
                return system.pwritev2(file.fd, address, length, offset, rwf_flags(rwf))
            return system.write_from(file.fd, address, length, offset)

        result: int | None = self.record("pwrite", args, call, about=file)
        return result

    def write(self, file: File, length: int) -> None:
        """write(2), and where the file's position is afterwards."""
        address = self.fill(length)

        def call() -> list[int]:
            written = system.write_on(file.fd, address, length)
            return [written, os.lseek(file.fd, 0, os.SEEK_CUR)]

        self.record("write", [file.name, length], call, about=file)

    def pread(self, file: File, offset: int, length: int, rwf: str = "", shift: int = 0) -> None:
        """pread(2) or preadv2(2): how much, and a digest of it."""
        args: list[Any] = [file.name, offset, length]
        args += [rwf] if rwf or shift else []
        args += [shift] if shift else []
        address = self._memory + shift

        def call() -> list[Any]:
            if rwf:
                got = system.preadv2(file.fd, address, length, offset, rwf_flags(rwf))
            else:
                got = system.read_to(file.fd, address, length, offset)
            return [got, self.digest(system.peek(address, got))]

        self.record("pread", args, call)

    def content(self, name: str) -> None:
        """A digest of all of a file."""

        def call() -> list[Any]:
            fd = os.open(self.path(name), os.O_RDONLY)
            try:
                total, value = 0, 0
                while got := system.read_to(fd, self._memory, 1 << 20, total):
                    value = zlib.crc32(system.peek(self._memory, got), value)
                    total += got
                return [total, f"{value:08x}"]
            finally:
                os.close(fd)

        self.record("content", [name], call)

    def lseek(self, file: File, offset: int, whence: int) -> None:
        """lseek(2)."""
        names = {0: "SET", 1: "CUR", 2: "END", 3: "DATA", 4: "HOLE"}
        args = [file.name, offset, names.get(whence, whence)]
        self.record("lseek", args, os.lseek, file.fd, offset, whence)

    def ftruncate(self, file: File, length: int) -> None:
        """ftruncate(2)."""
        self.record("ftruncate", [file.name, length], os.ftruncate, file.fd, length, about=file)

    def truncate(self, name: str, length: int) -> None:
        """truncate(2)."""
        self.record("truncate", [name, length], os.truncate, self.path(name), length, about=name)

    def fsync(self, file: File) -> None:
        """fsync(2)."""
        self.record("fsync", [file.name], os.fsync, file.fd, about=file)

    def stat(self, name: str) -> None:
        """All that stat says, but times and the device."""

        def call() -> list[Any]:
            status = os.lstat(self.path(name))
            owner = [status.st_nlink, status.st_uid, status.st_gid]
            sizes = [status.st_size, status.st_blocks, status.st_blksize]
            return [status.st_ino, f"{status.st_mode:o}", *owner, *sizes]

        self.record("stat", [name], call)

    def on(self, name: str, call: str, *args: Any) -> None:
        """``os.call(path, *args)`` for calls that give nothing."""
        self.record(call, [name, *args], getattr(os, call), self.path(name), *args, about=name)

    def times(self, name: str) -> tuple[int, int, int]:
        """Access, modification and change time, not written down."""
        status = os.lstat(self.path(name))
        return status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns

    def moved_times(self, call: str, name: str, function: Callable[..., Any], *parameters: Any) -> None:
        """Which times of *name* a call moves."""
        before = self.times(name)
        self.tick(before[2])
        with contextlib.suppress(OSError):
            function(*parameters)
        after = self.times(name)
        moved = [which for which, old, new in zip("amc", before, after, strict=True) if old != new]
        self.line(call="times", args=[name, call], ret=moved)

    @staticmethod
    def tick(since: int) -> None:
        """Wait until the clock that file systems take times from is past *since*, even if it ticks slowly."""
        while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= since + 10_000_000:
            pass

    # The whole

    def snapshot(self, *names: str) -> None:
        """Conditions and write pointers of the sequential zones that are not empty; states of *names*."""
        zones = {}
        for number, (condition, wp) in enumerate(self.subject.report()):
            if condition in ("oi", "oe", "cl"):
                zones[number] = f"{condition} {wp}"
            elif condition not in ("nw", "em"):
                zones[number] = condition
        self.line(call="zones", args=[], ret=zones)
        for name in names:
            self.line(call="state", args=[name], ret=self.state(name))

    def counters(self) -> None:
        """The counters of open and active files."""
        self.line(call="counters", args=[], ret=self.subject.counters())

    def external(self, zone: int, what: str) -> None:
        """Something behind the file system."""
        self.record("external", [zone, what], self.subject.external, zone, what)

    def let_fail(self, how: str) -> None:
        """Let all writes and flushes of the device fail (``error``) or be dropped (``drop``); empty: neither."""
        self.subject.let_fail(how)
        self.line(call="device", args=[how or "well"], ret=None)

    def writable(self, name: str) -> None:
        """Whether a file can be opened for writing."""

        def call() -> None:
            os.close(os.open(self.path(name), os.O_WRONLY | os.O_DIRECT))

        self.record("writable", [name], call)

    def mount(self, options: str = "", *, read_only: bool = False) -> None:
        """Mount again."""
        args = [options, "ro" if read_only else "rw"]
        self.record("mount", args, lambda: self.subject.mount(options, read_only=read_only))

    def umount(self) -> None:
        """Unmount."""
        self.record("umount", [], self.subject.umount)

    def remount(self, options: str = "", *, read_only: bool | None = None) -> None:
        """Remount as mount(8) does."""
        mode = {None: "", True: "ro", False: "rw"}[read_only]
        self.record("remount", [options, mode], lambda: self.subject.remount(options, read_only=read_only))

    @contextlib.contextmanager
    def user(self, uid: int, gid: int, groups: tuple[int, ...] = ()) -> Iterator[None]:
        """Make calls as another user."""
        self.line(call="user", args=[uid, gid, list(groups)], ret=None)
        before = os.getgroups()
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)
            self.line(call="user", args=[0, 0, []], ret=None)

    # Tidying up

    def tidy(self, seq_files: list[str]) -> None:
        """Close all, empty the sequential files and give them back to root; what cannot be, stays."""
        self.close_all()
        for name in seq_files:
            status = os.lstat(self.path(name))
            with contextlib.suppress(OSError):
                if status.st_size:
                    os.truncate(self.path(name), 0)
                if status.st_uid or status.st_gid:
                    os.chown(self.path(name), 0, 0)
                if stat.S_IMODE(status.st_mode) != 0o640:
                    os.chmod(self.path(name), 0o640)

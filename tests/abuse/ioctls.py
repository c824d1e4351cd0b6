"""Any ioctl, with anything in its buffer, on whatever of a mount can be open: by the kernel, not only by our parser.

What is no copy is refused, and changes nothing; a copy does what its answer says. The same seed gives the same calls.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.abuse.fuzz import damage
from tests.abuse.rounds import BAD_WORDS, BLOCK, GEOMETRY, Failed, daemon_runs, run_command, wait_until
from zonefs_py.config import FormatOptions
from zonefs_py.control.client import MountControl
from zonefs_py.copy import abi
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.fs.format import format_device

BUFFER_SIZE = 32 * 1024
"""More than any command's number can say, 16383: the kernel writes as much as that."""
BUFFERS_PER_OPENING = 200
MUCH = GEOMETRY.zone_capacity // 2
"""Bytes of a sequential file: one that has more is emptied."""
CHECK_EVERY = 5000
"""Calls between two comparisons of everything."""

SOURCES = ("cnv/0", "seq/0")
TARGETS = ("cnv/1", "seq/1", "seq/2")
DIRECTORIES = (".", "cnv", "seq")
FLAGS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_DIRECT, os.O_WRONLY | os.O_APPEND, os.O_PATH)

REFUSALS = {
    errno.ENOTTY: "there is no such ioctl",
    errno.EINVAL: "a malformed copy; the kernel's own ioctls say so too",
    errno.EBADF: "opened by O_PATH; or for the wrong thing",
    errno.EFAULT: "the address is no one's",
    errno.EOPNOTSUPP: "the kernel's own, for what FUSE has not",
    errno.ENOSYS: "FUSE, of attributes",
    errno.EPERM: "the kernel's own, about sealed or special files",
    errno.EISDIR: "the kernel's own, clones",
    errno.EXDEV: "the kernel's own, clones",
    errno.ENODEV: "the kernel's own, fallocate",
    errno.ESPIPE: "the kernel's own, fallocate",
    errno.EFBIG: "the kernel's own, fallocate",
    errno.EOVERFLOW: "the kernel's own, blocks of FIBMAP",
    errno.EROFS: "the kernel's own, what is not for a read-only mount",
    errno.ENOMEM: "the kernel's own, a salt for fs-verity that is too long",
    errno.ENXIO: "the kernel's own, about devices",
}
"""What a program may be told, and what that is about."""

REFUSED_COPIES = {errno.EINVAL, errno.EFBIG, errno.EISDIR, errno.ENOENT, errno.EBADF, errno.EXDEV}
"""What the answer to a well-formed copy may say."""

KERNELS = (
    *(0x1, 0x2, 0x5401, 0x5402, 0x540B, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452, 0x5460),
    *(0x1260, 0x1268, 0x1277, 0x127B, 0x80041272, 0xC0101281, 0xC0101282, 0x40101283, 0xC0101284, 0x80081272),
    *(0x80086601, 0x40086602, 0x801C581F, 0x401C5820, 0xC0205865, 0xC020660B, 0x40049409, 0x4020940D, 0xC0189436),
    *(0xC0045877, 0xC0045878, 0x40305828, 0x4030582A, 0x4030582B, 0x40305839, 0x8004E500, 0x81009431, 0x5012),
    *(0x80111500, 0x40046608, 0x800C6613, 0xC0406616, 0x40806685, 0x4004662C, 0x6685, 0xC0046686),
)
"""Commands that the kernel, block devices, or other file systems know."""

ADDRESSES = (0, 1, 4095, -1, -4096)
"""Where no buffer of anybody's is."""


class _Files:
    """What the files must hold: each changes by the copies to it, as answered, and by nothing else."""

    def __init__(self, mount_point: Path) -> None:
        self._mount_point = mount_point
        names = [f"{group}/{name}" for group in ("cnv", "seq") for name in sorted(os.listdir(mount_point / group))]
        self.content = {name: bytearray((mount_point / name).read_bytes()) for name in names}
        self.names = {(mount_point / name).stat().st_ino: name for name in self.content}

    def copy(self, target: str, request: abi.CopyRequest, reply: abi.CopyReply) -> str:
        """Do what *reply* says to be done of *request*; return what it says."""
        assert len(reply.completed) == len(request.sources)
        if reply.result:
            assert not any(reply.completed), "the device is healthy: it is copied whole or not at all"
            assert reply.result in REFUSED_COPIES
            return f"copy: {errno.errorcode[reply.result]}"
        content = self.content[target]
        assert reply.offset == (len(content) if target.startswith("seq") else request.offset)
        data = b""
        for (inode, offset, length), done in zip(request.sources, reply.completed, strict=True):
            assert done == length
            piece = self.content[self.names[inode]][offset : offset + length]
            assert len(piece) == length, "more was copied than there is"
            data += piece
        assert reply.offset is not None
        content[reply.offset : reply.offset + len(data)] = data
        return "copied"

    def check_sizes(self) -> None:
        for name, content in self.content.items():
            assert (self._mount_point / name).stat().st_size == len(content), name

    def check(self, control: MountControl) -> None:
        """Compare everything, and not with what this machine has cached."""
        for zone in control.report():
            name = zone["file"]
            if name and name.startswith("seq"):
                size = len(self.content[name])
                condition = "full" if size == GEOMETRY.zone_capacity else "closed" if size else "empty"
                assert zone["condition"] in (condition, condition.replace("closed", "implicit-open")), zone
                assert condition == "full" or zone["write_pointer"] - zone["start"] == size, zone
        for name, content in self.content.items():
            descriptor = os.open(self._mount_point / name, os.O_RDONLY | os.O_DIRECT)
            try:
                assert os.pread(descriptor, GEOMETRY.zone_size, 0) == content, f"{name} holds something else"
            finally:
                os.close(descriptor)
        self.check_sizes()


def _request(chance: random.Random, inodes: list[int]) -> bytes:
    """A copy: three of four are right, as far as one can tell without the files."""
    offsets = (0, 1, 511, BLOCK, 3 * BLOCK, GEOMETRY.zone_capacity, 1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1)
    if chance.random() < 0.75:
        sources = [abi.SourceRange(chance.choice(inodes[:2]), chance.choice((0, BLOCK)), BLOCK)]
        sources *= chance.choice((1, 1, 1, 2, 3))
    else:
        sources = [
            abi.SourceRange(chance.choice((*inodes, 0, 99, 1 << 63)), chance.choice(offsets), chance.choice(offsets))
            for _ in range(chance.choice((1, 2, 7, 60)))
        ]
    where = None if chance.random() < 0.6 else chance.choice(offsets[:-1])
    return bytes(abi.pack_request(abi.CopyRequest(where, tuple(sources))))


def _call(chance: random.Random, inodes: list[int]) -> tuple[int, bytes]:
    """A command, and what is in its buffer."""
    data = _request(chance, inodes)
    nr_ranges = len(data) // 32 - 1
    kind = chance.random()
    if kind < 0.3:
        return abi.command(nr_ranges), data
    if kind < 0.5:
        return abi.command(nr_ranges), damage(chance, data)
    if kind < 0.6:
        return abi.command(chance.choice((nr_ranges, 1, 2, abi.MAX_RANGES))), chance.randbytes(chance.randrange(200))
    if kind < 0.8:
        # Nearly ours: a bit, or the size, is another.
        size = chance.randrange(1 << 14) << 16
        return chance.choice(
            (abi.command(nr_ranges) ^ 1 << chance.randrange(32), abi.command(1) & 0xC000FFFF | size)
        ), data
    return chance.choice((*KERNELS, chance.getrandbits(32), chance.getrandbits(8))), chance.randbytes(64) + data


class Ioctls:
    """A mount in *directory*, and calls on it."""

    def __init__(self, directory: Path) -> None:
        self.device = directory / "disk"
        self.stack = str(self.device)
        self.mount_point = directory / "mnt"
        self.log = directory / "daemon.log"
        create_device(self.device, GEOMETRY)
        with open_device(self.device) as device:
            format_device(device, FormatOptions())
        self.mount_point.mkdir()

    def run(self, inputs: int, seed: int) -> Counter[str]:
        """Make *inputs* calls; return how many did what, by the name of the errno. Raises AssertionError, Failed."""
        run_command("mount", self.stack, self.mount_point, "-o", f"log={self.log}")
        control = MountControl(self.mount_point)
        pid: int = control.statistics()["daemon"]["pid"]
        try:
            found = self._calls(control, inputs, seed)
            if control.statistics()["daemon"]["pid"] != pid:
                raise Failed("another daemon serves the mount")
            run_command("umount", self.mount_point)
            wait_until("the daemon ends", lambda: not daemon_runs(pid))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["umount", "-l", self.mount_point], check=False, stderr=subprocess.DEVNULL)
            raise
        for line in self.log.read_text().splitlines():
            if any(words in line for words in BAD_WORDS):
                raise Failed(f"{self.log}: {line}")
        return found

    def _calls(self, control: MountControl, inputs: int, seed: int) -> Counter[str]:
        chance = random.Random(seed)
        self._fill(chance)
        files = _Files(self.mount_point)
        inodes = [ino for name in (*SOURCES, *TARGETS) for ino in files.names if files.names[ino] == name]
        found: Counter[str] = Counter()
        number = 0
        try:
            while number < inputs:
                with self._opened(chance) as (name, descriptor):
                    for _ in range(min(BUFFERS_PER_OPENING, inputs - number)):
                        found[self._one(chance, name, descriptor, files, inodes)] += 1
                        number += 1
                        if number % CHECK_EVERY == 0:
                            files.check(control)
                self._make_room(files, control)
            files.check(control)
        except Exception as exc:
            exc.add_note(f"input {number} of seed {seed}")
            raise
        return found

    def _make_room(self, files: _Files, control: MountControl) -> None:
        full = [name for name in TARGETS if name.startswith("seq") and len(files.content[name]) > MUCH]
        if full:
            files.check(control)
        for name in full:
            os.truncate(self.mount_point / name, 0)
            files.content[name].clear()

    def _fill(self, chance: random.Random) -> None:
        for name in SOURCES:
            with mmap.mmap(-1, GEOMETRY.zone_capacity) as memory:
                memory[:] = chance.randbytes(GEOMETRY.zone_capacity)
                descriptor = os.open(self.mount_point / name, os.O_WRONLY | os.O_DIRECT)
                try:
                    assert os.pwrite(descriptor, memory, 0) == GEOMETRY.zone_capacity
                finally:
                    os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self, chance: random.Random) -> Iterator[tuple[str, int]]:
        name = chance.choice((*SOURCES[:1], *TARGETS, *TARGETS, chance.choice(DIRECTORIES)))
        flags = os.O_RDONLY | os.O_DIRECTORY if name in DIRECTORIES else chance.choice(FLAGS)
        if name.startswith("cnv"):
            flags &= ~os.O_APPEND  # which no conventional file can be opened with
        descriptor = os.open(self.mount_point / name, flags)
        try:
            yield name, descriptor
        finally:
            os.close(descriptor)

    def _one(self, chance: random.Random, name: str, descriptor: int, files: _Files, inodes: list[int]) -> str:
        """Make one call; return what came of it."""
        command, data = _call(chance, inodes)
        # The kernel copies as many bytes as the command says: there are always more.
        buffer = bytearray(data.ljust(BUFFER_SIZE, b"\0"))
        try:
            if chance.random() < 0.02:
                fcntl.ioctl(descriptor, command, chance.choice(ADDRESSES))
            else:
                fcntl.ioctl(descriptor, command, buffer, True)
        except OSError as exc:
            if exc.errno not in REFUSALS:
                raise Failed(f"{command:#x} on {name}: {exc}") from exc
            files.check_sizes()
            return errno.errorcode[exc.errno]
        done = "answered"
        if abi.is_copy(command) and name in files.content:
            request = abi.parse_request(data.ljust(BUFFER_SIZE, b"\0")[: command >> 16 & 0x3FFF])
            done = files.copy(name, request, abi.parse_reply(buffer, len(request.sources)))
        files.check_sizes()
        return done

"""Random calls of more kinds than `random_calls` draws, for `hunt`: as a list of steps that is drawn beforehand.

A step says what it needs in words that have a meaning at any time: a slot for an open file, a place relative to the
size. So what is left still means something when others are left out. A step that finds nothing open in its slot does
nothing. Calls whose answers are known to differ and would lead the two file systems to different states are left out:
`cases` has them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.equality import system
from tests.equality.calls import Calls, File, open_flags, rwf_flags
from tests.equality.cases.groups import statvfs
from tests.equality.geometry import AGGR_CNV, GEOMETRIES, GID, MIB, PERM, UID, Geometry
from tests.equality.random_calls import Random

Step = tuple[str, dict[str, Any]]
"""The name of a method of `Player`, and its arguments: words, numbers and lists of them."""

Place = list[Any]
"""What an offset or size is counted from (``zero``, ``size``, ``end``, ``zone``, or thousandths of the end), and bytes
to be added; what is counted in blocks is a third word."""

SLOTS = 4

ODD = Geometry(15 * MIB, 2 * MIB, 2 * MIB, 1, 4096)
"""With a smaller last zone, and no conventional file."""
SEQUENTIAL = Geometry(8 * MIB, 1 * MIB, 1 * MIB, 0, 512)


@dataclass(frozen=True)
class Scene:
    """What steps are made on. ``broken`` zones (number, readonly or offline) are so before the mount."""

    geometry: Geometry
    options: str = ""
    features: int = 0
    broken: tuple[tuple[int, str], ...] = ()
    external: bool = False
    flaky: bool = False
    block_device: bool = False
    """Whether ours is on null_blk too, and not on an emulated device."""

    @property
    def first_sequential(self) -> int:
        """The zone of seq/0."""
        return max(1, self.geometry.nr_conventional)

    @property
    def sequential_files(self) -> list[str]:
        """The first ones, and the last."""
        count = self.geometry.nr_zones - self.first_sequential
        return [f"seq/{number}" for number in (0, 1, 2, 3, count - 1)]

    @property
    def conventional_files(self) -> list[str]:
        """All."""
        count = self.geometry.nr_conventional - 1
        return [f"cnv/{number}" for number in range(min(1, count) if self.features & AGGR_CNV else max(0, count))]


_SMALL, _SECTORS, _LIMITS = GEOMETRIES["small"], GEOMETRIES["small-sectors"], GEOMETRIES["small-limits"]
_BROKEN = ((4, "offline"), (5, "readonly"))
_POLICIES = ("remount-ro", "zone-ro", "zone-offline", "repair")

SCENES = {
    "plain": Scene(_SMALL),
    "sectors": Scene(_SECTORS, "errors=zone-ro"),
    "aggregated": Scene(_SECTORS, "errors=zone-offline", AGGR_CNV),
    "owned": Scene(_SMALL, "errors=repair", UID | GID | PERM),
    "odd": Scene(ODD, "errors=repair"),
    "sequential": Scene(SEQUENTIAL, "errors=repair"),
    "limits": Scene(_LIMITS, "errors=repair"),
    "explicit-open": Scene(_LIMITS, "errors=repair,explicit-open"),
    "limits-zone-ro": Scene(_LIMITS, "errors=zone-ro,explicit-open"),
    "plain-block": Scene(_SMALL, block_device=True),
    "sectors-block": Scene(_SECTORS, "errors=repair", block_device=True),
    "limits-block": Scene(_LIMITS, "errors=repair", block_device=True),
    "explicit-open-block": Scene(_LIMITS, "errors=repair,explicit-open", block_device=True),
    **{f"broken-{policy}": Scene(_SMALL, f"errors={policy}", broken=_BROKEN) for policy in _POLICIES},
    **{f"external-{policy}": Scene(_SECTORS, f"errors={policy}", external=True) for policy in _POLICIES},
    **{
        f"external-block-{policy}": Scene(_SMALL, f"errors={policy}", external=True, block_device=True)
        for policy in _POLICIES
    },
    **{f"flaky-{policy}": Scene(_SMALL, f"errors={policy}", flaky=True) for policy in _POLICIES},
    "external-limits-block": Scene(_LIMITS, "errors=repair", external=True, block_device=True),
}


# Drawing

_RWF = ("", "", "", "DSYNC", "SYNC", "HIPRI", "NOWAIT", "APPEND", "DSYNC|HIPRI", "APPEND|DSYNC", "UNKNOWN")
_USERS: tuple[list[Any], ...] = ([1000, 1000, []], [1000, 1001, []], [1, 1, [0]], [2, 0, []])
_MODES = (0o600, 0o644, 0o640, 0o6755, 0o2600, 0o1777, 0, 0o400, 0o200, 0o666, 0o4711)


class _Drawing:
    """Draws steps from a seed; the state of any file system plays no part."""

    def __init__(self, random: Random, scene: Scene) -> None:
        self.random = random
        self.block = scene.geometry.block
        self.limited = bool(scene.geometry.max_open)
        self.closes_fail = scene.external or scene.flaky
        """Then nothing is opened explicitly: what a failing close leaves behind is a known difference, and lasts."""
        self.seq, self.cnv = tuple(scene.sequential_files), tuple(scene.conventional_files)
        self.kinds: tuple[Callable[[], Step], ...] = tuple(
            kind
            for kind, weight in (
                (self.open, 16),
                (self.close, 4),
                (self.append, 18),
                (self.pwrite, 9),
                (self.pwritev, 4),
                (self.write, 4),
                (self.pread, 7),
                (self.preadv, 3),
                (self.read, 2),
                (self.lseek, 4),
                (self.truncate, 6),
                (self.ftruncate, 5),
                (self.sync, 3),
                (self.copy, 5),
                (self.copy_on, 1),
                (self.send, 2),
                (self.splice, 2),
                (self.attributes, 5),
                (self.directory, 2),
                (self.names, 1),
                (self.set_flags, 2),
                (self.reopen, 2),
                (self.map_private, 2),
                (self.map_shared, 2),
                (self.allocate, 1),
                (self.lock, 1),
                (self.advise, 1),
                (self.submit, 2),
                (self.look, 2),
                (self.remount, 3),
                (self.mount_again, 1),
                (self.external, 6 if scene.external else 0),
                (self.let_fail, 5 if scene.flaky else 0),
                (self.check, 1),
            )
            for _ in range(weight)
        )

    def step(self) -> Step:
        """Any step, mostly by root."""
        name, args = self.random.choose(self.kinds)()
        # fallocate, io_submit and copies of a user: FUSE clears set-user-ID bits in its own way.
        by_root = ("remount", "mount_again", "external", "let_fail", "check", "allocate", "submit", "copy", "copy_on")
        if name not in by_root and not self.random.below(8):
            args["user"] = self.random.choose(_USERS)
        return name, args

    def one_in(self, number: int) -> bool:
        return self.random.below(number) == 0

    def slot(self) -> int:
        return self.random.below(SLOTS)

    def file(self) -> str:
        return self.random.choose(self.seq if not self.cnv or self.random.below(4) else self.cnv)

    def length(self) -> int:
        """Whole blocks mostly: a few, or many; never more than 1 MiB."""
        block, below = self.block, self.random.below
        kind = below(14)
        if kind == 0:
            return 1 + below(3 * block)
        if kind == 1:
            return block * (1 + below(MIB // block))
        if kind == 2:
            return self.random.choose((1, 511, 512, block - 1, block + 512, 0))
        if kind == 3:
            return self.random.choose((MIB, MIB // 2, MIB - block))
        return block * (1 + below(16))

    def place(self) -> Place:
        return self.random.choose(
            (
                ["size", 0],
                ["size", 0],
                ["zero", 0],
                ["size", -1, "blocks"],
                ["size", 1, "blocks"],
                ["size", -self.random.below(self.block)],
                ["size", self.random.below(self.block)],
                ["end", 0],
                ["end", 1, "blocks"],
                ["end", -1, "blocks"],
                ["end", -self.random.below(3 * self.block)],
                ["zone", 0],
                [self.random.below(1000), 0],
                [self.random.below(1000), self.random.below(self.block)],
            )
        )

    def whole_place(self) -> Place:
        """At a whole block, if the size is."""
        return self.random.choose(
            (
                ["size", 0],
                ["zero", 0],
                ["size", -1 - self.random.below(4), "blocks"],
                ["size", 1, "blocks"],
                ["end", -1, "blocks"],
                [self.random.below(1000), 0],
            )
        )

    def open(self) -> Step:
        choose = self.random.choose
        words = [choose(("RDWR", "RDWR", "RDWR", "RDWR", "WRONLY", "RDONLY"))]
        words += ["DIRECT"] if self.random.below(4) else []
        words += ["APPEND"] if self.one_in(6) else []
        words += ["TRUNC"] if self.one_in(12) else []
        words += (
            [choose(("DSYNC", "SYNC", "NONBLOCK", "NOATIME", "EXCL", "CREAT", "NOFOLLOW"))] if self.one_in(5) else []
        )
        return "open", {"slot": self.slot(), "name": self.file(), "flags": "|".join(words)}

    def close(self) -> Step:
        return "close", {"slot": self.slot()}

    def append(self) -> Step:
        block = self.block
        length = block * (1 + self.random.below(16)) if self.random.below(4) else block * (1 + self.random.below(256))
        return "pwrite", {"slot": self.slot(), "place": ["size", 0], "length": min(length, MIB), "rwf": ""}

    def pwrite(self) -> Step:
        args = {"slot": self.slot(), "place": self.place(), "length": self.length(), "rwf": self.random.choose(_RWF)}
        return "pwrite", args

    def pieces(self) -> list[int]:
        return [self.block * (1 + self.random.below(6)) for _ in range(1 + self.random.below(5))]

    def pwritev(self) -> Step:
        place = ["size", 0] if self.random.below(2) else self.place()
        return "pwritev", {
            "slot": self.slot(),
            "place": place,
            "pieces": self.pieces(),
            "rwf": self.random.choose(_RWF),
        }

    def write(self) -> Step:
        return "write", {"slot": self.slot(), "length": max(1, self.length())}

    def pread(self) -> Step:
        rwf = self.random.choose(("", "", "", "", "HIPRI", "NOWAIT", "DSYNC", "UNKNOWN", "APPEND"))
        return "pread", {"slot": self.slot(), "place": self.place(), "length": self.length(), "rwf": rwf}

    def preadv(self) -> Step:
        return "preadv", {"slot": self.slot(), "place": self.place(), "pieces": self.pieces()}

    def read(self) -> Step:
        return "read", {"slot": self.slot(), "length": self.length()}

    def lseek(self) -> Step:
        return "lseek", {"slot": self.slot(), "place": self.place(), "whence": self.random.choose((0, 0, 1, 2, 3, 4))}

    def size(self) -> Place:
        if self.random.below(2):
            return self.random.choose((["zero", 0], ["zero", 0], ["end", 0]))
        return self.random.choose(
            (
                ["size", 0],
                ["size", 1],
                ["size", -1],
                ["size", 1, "blocks"],
                ["size", -1, "blocks"],
                ["zero", 1],
                ["zero", self.block],
                ["zero", -1],
                ["end", -1],
                ["end", 1],
                ["end", -1, "blocks"],
                ["end", 1, "blocks"],
                ["zone", 0],
                ["zone", 1],
                ["zone", MIB],
                ["zero", 1 << 40],
                [self.random.below(1000), 0],
            )
        )

    def truncate(self) -> Step:
        return "truncate", {"name": self.file(), "size": self.size()}

    def ftruncate(self) -> Step:
        return "ftruncate", {"slot": self.slot(), "size": self.size()}

    def sync(self) -> Step:
        return "sync", {"slot": self.slot(), "how": self.random.choose(("fsync", "fdatasync", "syncfs", "range"))}

    def copy(self) -> Step:
        place = ["size", 0] if self.random.below(2) else self.whole_place()
        length = 4096 * (1 + self.random.below(40))
        return "copy", {"slots": [self.slot(), self.slot()], "at": self.whole_place(), "to": place, "length": length}

    def copy_on(self) -> Step:
        return "copy_on", {"slots": [self.slot(), self.slot()], "length": 4096 * (1 + self.random.below(20))}

    def send(self) -> Step:
        length = 4096 * (1 + self.random.below(16))
        return "send", {"slots": [self.slot(), self.slot()], "at": self.whole_place(), "length": length}

    def splice(self) -> Step:
        length = 4096 * (1 + self.random.below(16))
        args = {"slots": [self.slot(), self.slot()], "at": self.whole_place(), "to": ["size", 0], "length": length}
        return "splice", args

    def attributes(self) -> Step:
        choose, name = self.random.choose, self.file()
        what = choose(("chmod", "chown", "utime", "access"))
        some: dict[str, list[Any]] = {
            "chmod": [choose(_MODES)],
            "chown": [choose((-1, 0, 1, 1000)), choose((-1, 0, 1, 1000))],
            "utime": [[self.random.below(1 << 31), self.random.below(1 << 31)]],
            "access": [self.random.below(8)],
        }
        values = some[what]
        if what == "chmod" and name.startswith("cnv"):
            # Of such files FUSE clears these bits when they are written.
            values = [values[0] & 0o1777]
        return "attributes", {"name": name, "what": what, "values": values}

    def directory(self) -> Step:
        choose = self.random.choose
        what = choose(("chmod", "chown", "utime", "access", "list", "stat"))
        some: dict[str, list[Any]] = {
            "chmod": [choose((0o555, 0o555, 0o755, 0o511, 0o500, 0o1555, 0o444))],
            "chown": [choose((-1, 0, 1000)), choose((-1, 0, 1000))],
            "utime": [[self.random.below(1 << 31), self.random.below(1 << 31)]],
            "access": [choose((0, 1, 4, 5))],
        }
        return "directory", {"name": choose(("seq", "cnv", "")), "what": what, "values": some.get(what, [])}

    def names(self) -> Step:
        what = self.random.choose(("unlink", "rmdir", "rename", "mkdir", "link", "symlink", "rmdir-directory"))
        return "names", {"what": what, "name": self.file(), "other": self.file()}

    def set_flags(self) -> Step:
        words = [word for word in ("APPEND", "DIRECT", "DIRECT", "NONBLOCK") if self.one_in(2)]
        return "set_flags", {"slot": self.slot(), "flags": "|".join(["RDONLY", *sorted(set(words))])}

    def reopen(self) -> Step:
        flags = self.random.choose(("RDWR|DIRECT", "RDONLY", "WRONLY|DIRECT", "RDWR|DIRECT|TRUNC", "RDWR"))
        return "reopen", {"slots": [self.slot(), self.slot()], "flags": flags}

    def map_private(self) -> Step:
        return "map_private", {"slot": self.slot(), "place": self.whole_place(), "length": 4096 * self.random.below(6)}

    def map_shared(self) -> Step:
        return "map_shared", {"slot": self.slot(), "page": self.random.below(200), "writes": bool(self.random.below(2))}

    def allocate(self) -> Step:
        return "allocate", {
            "slot": self.slot(),
            "mode": self.random.choose((0, 1, 3, 8, 16, 32, 64)),
            "at": self.place(),
        }

    def lock(self) -> Step:
        how = self.random.choose((fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN))
        return "lock", {"slot": self.slot(), "how": how, "whole": bool(self.random.below(2))}

    def advise(self) -> Step:
        return "advise", {"slot": self.slot(), "how": self.random.below(6)}

    def submit(self) -> Step:
        pieces = self.pieces()
        return "submit", {
            "slot": self.slot(),
            "place": ["size", 0] if self.random.below(4) else self.place(),
            "pieces": pieces,
        }

    def look(self) -> Step:
        return "look", {
            "name": self.file(),
            "how": self.random.choose(("stat", "statvfs", "zones", "listxattr", "counters")),
        }

    def remount(self) -> Step:
        options = ("", "", "", *(f"errors={policy}" for policy in _POLICIES), "errors=nothing")
        if not self.closes_fail:
            options += ("explicit-open",)
        how = self.random.choose(("rw", "rw", "rw", "rw", "ro-rw", "ro-rw", "ro"))
        return "remount", {"options": self.random.choose(options), "how": how}

    def mount_again(self) -> Step:
        options = ("", *(f"errors={policy}" for policy in _POLICIES))
        if self.limited and not self.closes_fail:
            options += ("errors=repair,explicit-open",)
        return "mount_again", {"options": self.random.choose(options)}

    def external(self) -> Step:
        what = self.random.choose(("write", "write", "write", "finish", "reset", "reset", "open", "close"))
        if self.one_in(8):
            what = self.random.choose(("readonly", "offline"))
        return "external", {"name": self.random.choose(self.seq), "what": what, "then": bool(self.random.below(3))}

    def let_fail(self) -> Step:
        return "let_fail", {"how": self.random.choose(("", "", "error"))}

    def check(self) -> Step:
        return "check", {}


def draw(seed: int, scene: Scene, count: int) -> list[Step]:
    """*count* steps for *scene*, always the same for the same *seed*; the last one looks at everything."""
    random = Random(seed)
    drawing = _Drawing(random, scene)
    return [*(drawing.step() for _ in range(count - 1)), drawing.check()]


# Making the calls

_AS_FILES: dict[str, tuple[str, ...]] = {
    "write": ("oi",),
    "reset": ("oi", "cl"),
    "finish": ("oi", "cl"),
    "open": (),
    "close": (),
    "readonly": ("oi", "cl"),
    "offline": ("oi", "cl"),
}
"""In which conditions of a zone the file of an emulated device can stand for what is done to the zone."""


@dataclass
class _Slot:
    file: File
    flags: set[str] = field(default_factory=set)
    cached: bool = True
    """Whether it was opened without O_DIRECT; FUSE maps only such."""

    @property
    def seq(self) -> bool:
        return self.file.name.startswith("seq")


class Player:
    """Makes the calls of steps on one mounted file system."""

    def __init__(self, t: Calls, scene: Scene) -> None:
        self.t = t
        self.scene = scene
        self.slots: dict[int, _Slot] = {}

    def play(self, step: Step) -> None:
        """Make the calls of one step."""
        name, args = step
        args = dict(args)
        user = args.pop("user", None)
        who = contextlib.nullcontext() if user is None else self.t.user(user[0], user[1], tuple(user[2]))
        with who:
            getattr(self, name)(**args)

    def end(self, name: str) -> int:
        """What can be written of a file."""
        if name.startswith("cnv"):
            return self.t.size(name)
        return self.t.geometry.zone_capacity(self.zone(name))

    def zone(self, name: str) -> int:
        """The zone of a sequential file."""
        return self.scene.first_sequential + int(name.removeprefix("seq/"))

    def offset(self, name: str, place: Place) -> int:
        """The number that a place stands for now."""
        base, more = place[:2]
        if isinstance(base, int):
            start = self.end(name) * base // 1000 // self.t.block * self.t.block
        elif base == "zero":
            start = 0
        else:
            sizes = {"size": self.t.size(name), "end": self.end(name), "zone": self.t.geometry.zone_size}
            start = sizes[base]
        return int(start + more * (self.t.block if len(place) > 2 else 1))

    def before_the_end(self, slot: _Slot, offset: int, rwf: str = "") -> int:
        """Of a write that appends, what the kernel does at or past the capacity, FUSE cannot know."""
        if "APPEND" not in slot.flags and "APPEND" not in rwf:
            return max(0, offset)
        return max(0, min(offset, self.end(slot.file.name) - 1))

    def flags_of_write(self, slot: _Slot, rwf: str) -> str:
        """Appending by a flag is the kernel's way only on sequential files, without the page cache."""
        return rwf if slot.seq and "DIRECT" in slot.flags else "|".join(w for w in rwf.split("|") if w != "APPEND")

    # Steps

    def open(self, slot: int, name: str, flags: str) -> None:
        self.close(slot)
        if self.scene.flaky and name.startswith("cnv") and "DIRECT" not in flags:
            flags += "|DIRECT"
        file = self.t.open(name, flags)
        if file.fd >= 0:
            self.slots[slot] = _Slot(file, set(flags.split("|")), "DIRECT" not in flags)

    def reopen(self, slots: list[int], flags: str) -> None:
        if (old := self.slots.get(slots[0])) is None or slots[0] == slots[1]:
            return
        self.close(slots[1])
        file = File(old.file.name, -1)
        if self.scene.flaky and not old.seq and "DIRECT" not in flags:
            flags += "|DIRECT"

        def call() -> int:
            file.fd = os.open(f"/proc/self/fd/{old.file.fd}", open_flags(flags))
            return 0

        self.t.record("reopen", [file.name, flags], call, about=file)
        if file.fd >= 0:
            self.t.files.append(file)
            self.slots[slots[1]] = _Slot(file, set(flags.split("|")), "DIRECT" not in flags)

    def close(self, slot: int) -> None:
        if (one := self.slots.pop(slot, None)) is not None:
            self.end_of(one.file)

    def end_of(self, file: File) -> None:
        """Close; what it did to the file is looked at when FUSE has passed it on."""
        t = self.t
        if file.fd >= 0:
            t.files.remove(file)
            fd, file.fd = file.fd, -1
            t.record("close", [file.name], os.close, fd)
            t.subject.wait_for_closes()
            t.line(call="state", args=[file.name], ret=t.state(file.name))

    def set_flags(self, slot: int, flags: str) -> None:
        if (one := self.slots.get(slot)) is None or (self.scene.flaky and not one.seq):
            return
        fd, number = one.file.fd, open_flags(flags)
        if self.t.record("set-flags", [one.file.name, flags], fcntl.fcntl, fd, fcntl.F_SETFL, number) is not None:
            one.flags -= {"APPEND", "DIRECT", "NONBLOCK"}
            one.flags |= set(flags.split("|")) - {"RDONLY"}

    def pwrite(self, slot: int, place: Place, length: int, rwf: str) -> None:
        if (one := self.slots.get(slot)) is not None:
            rwf = self.flags_of_write(one, rwf)
            offset = self.before_the_end(one, self.offset(one.file.name, place), rwf)
            self.t.pwrite(one.file, offset, length, rwf)

    def pwritev(self, slot: int, place: Place, pieces: list[int], rwf: str) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        rwf = self.flags_of_write(one, rwf)
        offset = self.before_the_end(one, self.offset(one.file.name, place), rwf)
        vector = self.vector(self.t.fill(sum(pieces)), pieces)
        args = [one.file.name, offset, pieces, rwf]
        self.t.record("pwritev", args, system.writev, one.file.fd, vector, offset, rwf_flags(rwf), about=one.file)

    @staticmethod
    def vector(address: int, pieces: list[int]) -> list[tuple[int, int]]:
        return [(address + sum(pieces[:number]), length) for number, length in enumerate(pieces)]

    def write(self, slot: int, length: int) -> None:
        if (one := self.slots.get(slot)) is not None:
            if "APPEND" in one.flags:
                self.t.lseek(one.file, 0, os.SEEK_SET)
            self.t.write(one.file, length)

    def pread(self, slot: int, place: Place, length: int, rwf: str) -> None:
        if (one := self.slots.get(slot)) is not None:
            self.t.pread(one.file, max(0, self.offset(one.file.name, place)), length, rwf)

    def preadv(self, slot: int, place: Place, pieces: list[int]) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        offset = max(0, self.offset(one.file.name, place))
        buffers = [mmap.mmap(-1, length) for length in pieces]

        def call() -> list[Any]:
            got = os.preadv(one.file.fd, buffers, offset)
            return [got, self.t.digest(b"".join(bytes(buffer) for buffer in buffers)[:got])]

        self.t.record("preadv", [one.file.name, offset, pieces], call)

    def read(self, slot: int, length: int) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        buffer = mmap.mmap(-1, max(1, length))

        def call() -> list[Any]:
            got = os.readv(one.file.fd, [memoryview(buffer)[:length]])
            return [got, self.t.digest(buffer[:got]), os.lseek(one.file.fd, 0, os.SEEK_CUR)]

        self.t.record("read", [one.file.name, length], call)

    def lseek(self, slot: int, place: Place, whence: int) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        size = self.t.size(one.file.name)
        offset = self.offset(one.file.name, place)
        if whence <= os.SEEK_END:
            # Past the size FUSE goes where the kernel does not.
            offset = min(offset, size)
        if whence == os.SEEK_CUR:
            offset -= os.lseek(one.file.fd, 0, os.SEEK_CUR)
        elif whence == os.SEEK_END:
            offset -= size
        self.t.lseek(one.file, offset, whence)

    def truncate(self, name: str, size: Place) -> None:
        self.t.truncate(name, self.offset(name, size))

    def ftruncate(self, slot: int, size: Place) -> None:
        if (one := self.slots.get(slot)) is not None:
            self.t.ftruncate(one.file, self.offset(one.file.name, size))

    def sync(self, slot: int, how: str) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        calls: dict[str, Callable[[int], Any]] = {
            "fsync": os.fsync,
            "fdatasync": os.fdatasync,
            "syncfs": system.syncfs,
            "range": lambda fd: system.sync_file_range(fd, 0, 0, 7),
        }
        self.t.record(how, [one.file.name], calls[how], one.file.fd, about=one.file)

    def pair(self, slots: list[int]) -> tuple[_Slot, _Slot] | None:
        """Two open files for a copy; to a sequential one only without the page cache."""
        source, target = self.slots.get(slots[0]), self.slots.get(slots[1])
        if source is None or target is None or (target.seq and "DIRECT" not in target.flags):
            return None
        return source, target

    def copy(self, slots: list[int], at: Place, to: Place, length: int) -> None:
        if (pair := self.pair(slots)) is None:
            return
        source, target = (one.file for one in pair)
        start = max(0, self.offset(source.name, at)) // 4096 * 4096
        goal = max(0, self.offset(target.name, to)) // self.t.block * self.t.block
        if source.name == target.name and not pair[1].seq:
            # Past its end it is FUSE that says whether they overlap.
            length = min(length, max(4096, self.t.size(target.name) - goal))
        args = [source.name, start, target.name, goal, length]
        fds = (source.fd, target.fd)
        self.t.record("copy_file_range", args, os.copy_file_range, *fds, length, start, goal, about=target)

    def copy_on(self, slots: list[int], length: int) -> None:
        """From a file's position to the other's; both moved to where that works."""
        if (pair := self.pair(slots)) is None or slots[0] == slots[1]:
            return
        source, target = (one.file for one in pair)
        os.lseek(source.fd, 0, os.SEEK_SET)
        os.lseek(target.fd, self.t.size(target.name) if target.name.startswith("seq") else 0, os.SEEK_SET)

        def call() -> list[int]:
            copied = os.copy_file_range(source.fd, target.fd, length)
            return [copied, *(os.lseek(file.fd, 0, os.SEEK_CUR) for file in (source, target))]

        self.t.record("copy-on", [source.name, target.name, length], call, about=target)

    def send(self, slots: list[int], at: Place, length: int) -> None:
        if (pair := self.pair(slots)) is None or not pair[1].seq:
            return
        source, target = (one.file for one in pair)
        start = max(0, self.offset(source.name, at)) // 4096 * 4096
        args = [source.name, start, target.name, length]
        self.t.record("sendfile", args, os.sendfile, target.fd, source.fd, start, length, about=target)

    def splice(self, slots: list[int], at: Place, to: Place, length: int) -> None:
        if (pair := self.pair(slots)) is None:
            return
        source, target = (one.file for one in pair)
        start = max(0, self.offset(source.name, at)) // 4096 * 4096
        goal = max(0, self.offset(target.name, to)) if target.name.startswith("seq") else 0
        reading, writing = os.pipe()

        def call() -> list[int]:
            # The pipe may hold less than its 16 pages' worth: only what came goes on.
            got = os.splice(source.fd, writing, length, offset_src=start, flags=2)
            return [got, os.splice(reading, target.fd, got, offset_dst=goal) if got else 0]

        try:
            self.t.record("splice", [source.name, start, target.name, goal, length], call, about=target)
        finally:
            os.close(reading)
            os.close(writing)

    def attributes(self, name: str, what: str, values: list[Any]) -> None:
        if what == "utime":
            values = [tuple(values[0])]
        if what == "access":
            # Whether root may write to a file system that an error made read-only, FUSE says in its own way.
            self.t.record(what, [name, values[0] & ~2], os.access, self.t.path(name), values[0] & ~2)
        else:
            self.t.on(name, what, *values)

    def directory(self, name: str, what: str, values: list[Any]) -> None:
        t = self.t
        if what == "list":
            t.record("list", [name], lambda: sorted(os.listdir(t.path(name))))
        elif what == "stat":
            t.stat(name)
        else:
            self.attributes(name, what, values)

    def names(self, what: str, name: str, other: str) -> None:
        """Only of names that are there: of others FUSE refuses some calls in its own way."""
        path, second = self.t.path(name), self.t.path(other)
        calls: dict[str, Callable[[], None]] = {
            "unlink": lambda: os.unlink(path),
            "rmdir": lambda: os.rmdir(path),
            "rename": lambda: os.rename(path, second),
            "mkdir": lambda: os.mkdir(path),
            "link": lambda: os.link(path, second),
            "symlink": lambda: os.symlink("target", path),
            "rmdir-directory": lambda: os.rmdir(os.path.dirname(path)),
        }
        self.t.record(what, [name, other], calls[what], about=name)

    def map_private(self, slot: int, place: Place, length: int) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        offset = max(0, self.offset(one.file.name, place)) // 4096 * 4096
        length = min(length, self.t.size(one.file.name) - offset) // 4096 * 4096
        if length > 0:
            self.t.record("mmap", [one.file.name, "private", offset, length], self.mapped, one.file, offset, length)

    def map_shared(self, slot: int, page: int, writes: bool) -> None:
        """Only of conventional files that go through the page cache."""
        if (one := self.slots.get(slot)) is None or one.seq or not one.cached:
            return
        args = [one.file.name, "shared", page * 4096, writes]
        data = f"page {page}".encode() if writes else b""
        self.t.record("mmap", args, lambda: self.mapped(one.file, page * 4096, 4096, data, shared=True))

    def mapped(self, file: File, offset: int, length: int, data: bytes = b"", *, shared: bool = False) -> list[Any]:
        """What is seen in a mapping; it goes through a pipe, so that a page that is not there is EFAULT, no signal."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if data else 0)
        kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        address = system.map_file(file.fd, length, protection, kind, offset)
        reading, writing = os.pipe()
        try:
            if data:
                os.write(writing, data)
                system.read_on(reading, address, len(data))
                system.msync(address, length)
            system.write_on(writing, address, length)
            return [self.t.digest(os.read(reading, length))]
        finally:
            os.close(reading)
            os.close(writing)
            system.unmap(address, length)

    def allocate(self, slot: int, mode: int, at: Place) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        offset = max(0, self.offset(one.file.name, at))
        args = [one.file.name, mode, offset, self.t.block]
        self.t.record("fallocate", args, system.fallocate, one.file.fd, mode, offset, self.t.block, about=one.file)

    def lock(self, slot: int, how: int, whole: bool) -> None:
        if (one := self.slots.get(slot)) is None:
            return
        function = fcntl.flock if whole else fcntl.lockf
        self.t.record(
            "lock",
            [one.file.name, how, whole],
            function,
            one.file.fd,
            how if how == fcntl.LOCK_UN else how | fcntl.LOCK_NB,
        )

    def advise(self, slot: int, how: int) -> None:
        if (one := self.slots.get(slot)) is not None:
            self.t.record("advise", [one.file.name, how], os.posix_fadvise, one.file.fd, 0, 0, how)

    def submit(self, slot: int, place: Place, pieces: list[int]) -> None:
        """Asynchronous writes, in order."""
        one = self.slots.get(slot)
        if one is None or (self.scene.flaky and not one.seq):
            return
        offset = self.before_the_end(one, self.offset(one.file.name, place))
        # Of what would be a short write, FUSE makes EIO.
        offset = max(0, min(offset, self.end(one.file.name) - sum(pieces)))
        address = self.t.fill(sum(pieces))
        parts = [(piece, length, offset + piece - address) for piece, length in self.vector(address, pieces)]
        writer = system.AsyncWriter()
        try:
            self.t.record(
                "io_submit", [one.file.name, offset, pieces], writer.write, one.file.fd, parts, about=one.file
            )
        finally:
            writer.close()

    def look(self, name: str, how: str) -> None:
        t = self.t
        if how == "stat":
            t.stat(name)
        elif how == "statvfs":
            t.record("statvfs", [], lambda: statvfs(t))
        elif how == "zones":
            self.as_root(t.snapshot)
        elif how == "counters":
            self.as_root(t.counters)
        else:
            t.record("listxattr", [name], os.listxattr, t.path(name))

    @staticmethod
    def as_root(function: Callable[[], None]) -> None:
        """What looks below the file system is nothing for users."""
        uid = os.geteuid()
        os.seteuid(0)
        try:
            function()
        finally:
            os.seteuid(uid)

    def remount(self, options: str, how: str) -> None:
        for mode in how.split("-"):
            self.t.remount(options, read_only=mode == "ro")

    def mount_again(self, options: str) -> None:
        for slot in list(self.slots):
            self.close(slot)
        if self.scene.flaky:
            # An end that cannot be written is told by the daemon's status, which is none of a system call's.
            self.t.let_fail("")
        self.t.umount()
        self.t.mount(options)

    def external(self, name: str, what: str, then: bool) -> None:
        """Somebody else changes a zone, or it breaks; and *then* the next write finds that."""
        t, scene = self.t, self.scene
        file = t.open(name, "RDWR|DIRECT")
        if file.fd >= 0 and not t.size(name):
            t.pwrite(file, 0, 2 * t.block)
        size = t.size(name)
        # An emulated device learns of what was done to a zone's file by the next write.
        if self.can_be_done(name, size, what) and (scene.block_device or file.fd >= 0):
            t.external(self.zone(name), what)
            if then or not scene.block_device:
                if file.fd >= 0:
                    t.pwrite(file, size, t.block)
                t.snapshot()
        self.end_of(file)

    def can_be_done(self, name: str, size: int, what: str) -> bool:
        """Whether what is done to a zone behind the file system works, and shows the same everywhere."""
        condition, wp = self.t.subject.report()[self.zone(name)]
        if condition not in ("em", "oi", "oe", "cl", "fu"):
            return False
        if condition == "fu" and what in ("write", "open", "close"):
            return False
        if what == "write" and wp >= self.end(name):
            return False
        if what == "reset" and "errors=zone-ro" in self.t.subject.options:
            # The size stays, and what a device shows past a write pointer is its own affair.
            return False
        return self.scene.block_device or (0 < size < self.end(name) and condition in _AS_FILES[what])

    def let_fail(self, how: str) -> None:
        self.t.let_fail(how)

    def check(self) -> None:
        """Compare everything that there is to see."""
        t = self.t
        t.snapshot()
        for name in (*self.scene.sequential_files, *self.scene.conventional_files):
            t.content(name)
            t.stat(name)
        t.counters()
        t.record("statvfs", [], lambda: statvfs(t))

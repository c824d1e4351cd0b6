"""Twenty-odd scenarios on a device of which every call fails in turn, and what must hold after each step of each.

A world knows from the answers of the file system what must be on the device's media, and looks there, below the
faults. What a failed step was about may be there in part; from then on what is there counts as there.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import (
    ActiveZonesExhausted,
    NotPermitted,
    OpenZonesExhausted,
    ReadOnlyFilesystem,
    ZonefsError,
)
from zonefs_py.fs.attributes import Attributes
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import ACTIVE_CONDITIONS, OPEN_CONDITIONS, Geometry, ZoneCondition, ZoneOp

BLOCK = 512
ZONE_SIZE = 16 * BLOCK
CAPACITY = 12 * BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 9, 4, BLOCK, ZONE_SIZE)
"""cnv/0 to cnv/2, seq/0 to seq/4."""
MAX_OPEN, MAX_ACTIVE = 2, 3
PIECE = 3 * BLOCK
"""What one call of the device copies."""
LIMIT_SECONDS = 60.0
"""What one run of a scenario may take: a thousand times what it does."""

R = TypeVar("R")

DIRECT_WRITE = os.O_WRONLY | os.O_DIRECT
APPEND = DIRECT_WRITE | os.O_APPEND


@dataclass(frozen=True)
class Fault:
    """The *number*-th (from 1) call of *operation* fails; *sticky*: all that follow too."""

    name: str
    operation: Operation
    effect: Effect
    number: int
    sticky: bool
    error: str = "EIO"
    after: int = 0

    def rule(self) -> FaultRule:
        """The rule of the fault device."""
        count = None if self.sticky else 1
        return FaultRule(
            self.operation, self.effect, first=self.number, count=count, error=self.error, after=self.after
        )

    def __str__(self) -> str:
        return f"{self.operation.value} {self.number} {self.name}{' and all after it' if self.sticky else ''}"


KINDS: list[tuple[str, Operation, Effect, str, int]] = [
    ("fails", Operation.ANY, Effect.FAIL, "EIO", 0),
    ("has no space", Operation.WRITE, Effect.FAIL, "ENOSPC", 0),
    ("has no space for more than a block", Operation.WRITE, Effect.FAIL, "ENOSPC", BLOCK),
    ("has no space", Operation.COPY, Effect.FAIL, "ENOSPC", 0),
    ("is short", Operation.WRITE, Effect.SHORT, "EIO", BLOCK),
    ("is short", Operation.COPY, Effect.SHORT, "EIO", 2 * BLOCK),
    ("cannot open any more", Operation.OPEN, Effect.FAIL, "ETOOMANYREFS", 0),
    ("fails", Operation.FLUSH, Effect.FAIL, "EIO", 0),
]
"""What goes wrong: name, operation, effect, errno, bytes that are done before it."""


@dataclass
class Media:
    """What must be on the media of one file, and what the step under way may have made of it."""

    sequential: bool
    content: bytes
    certain: int = 0
    """Of a sequential file: bytes that were acknowledged or shown. What a failed write left behind them may go again:
    an explicitly open zone that is shown empty is reset when it is closed (kernel: zonefs_zone_mgmt)."""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and data that may be there, wholly or in part; None: the file may be empty."""

    def accepts(self, seen: bytes) -> bool:
        """Whether *seen* may be on the media."""
        if seen == self.content:
            return True
        if not self.sequential:
            possible = [self.content]
            for offset, data in self.pending:
                assert data is not None
                possible.append(self.content[:offset] + data + self.content[offset + len(data) :])
            return len(seen) == len(self.content) and all(
                byte in choices for byte, *choices in zip(seen, *possible, strict=True)
            )
        if self.certain <= len(seen) < len(self.content) and self.content.startswith(seen):
            return True
        for offset, data in self.pending:
            if data is None:
                if not seen:
                    return True
            elif offset == len(self.content) < len(seen) and (self.content + data).startswith(seen):
                return True
        return False


class World:
    """A file system over a device that fails when told to."""

    def __init__(self, policy: ErrorsPolicy, scenario: Scenario) -> None:
        self.scenario = scenario
        self.memory = MemoryDevice(GEOMETRY, MAX_OPEN, MAX_ACTIVE)
        self.fault = FaultDevice(self.memory)
        self.options = MountOptions(
            policy, explicit_open=scenario.explicit_open, copy="emulate" if scenario.emulate else "auto"
        )
        self.format = FormatOptions(aggregate_conventional=scenario.aggregated)
        self.chance = random.Random(scenario.name)
        self.fs: Filesystem | None = None
        self.handles: dict[int, str] = {}
        """Open for writing, by number: of which file."""
        format_device(self.memory, self.format, uuid=bytes(16))
        self.zones: dict[str, range] = {}
        self.media: dict[str, Media] = {}
        with Filesystem(self.memory, self.options) as fs:
            self._learn_files(fs)
            for name, blocks in scenario.before.items():
                handle = fs.open(name, DIRECT_WRITE)
                data = self.random(blocks * BLOCK)
                assert fs.write(handle, 0, data) == len(data)
                fs.release(handle)
                self._wrote(name, 0, data)
        self.steps: list[str] = []
        self.stale: set[str] = set()
        """Files that show less than is on media, because of an error."""

    def _learn_files(self, fs: Filesystem) -> None:
        for zone, name in fs.report():
            if name is not None:
                first = self.zones[name].start if name in self.zones else zone.number
                self.zones[name] = range(first, zone.number + 1)
        for name, zones in self.zones.items():
            sequential = name.startswith("seq")
            self.media[name] = Media(sequential, b"" if sequential else bytes(ZONE_SIZE * len(zones)))

    def random(self, length: int) -> bytes:
        """Bytes that are like no others."""
        return self.chance.randbytes(length)

    # Steps

    def step(self, what: str, call: Callable[[], R]) -> R | None:
        """Do *call*; None if it is refused. Anything but a refusal of ours is a bug, and passes."""
        self.steps.append(what)
        try:
            result = call()
        except ZonefsError as exc:
            self.steps[-1] += f": {exc.errno_name}"
            result = None
        return result

    @property
    def mounted(self) -> Filesystem:
        """The file system."""
        assert self.fs is not None
        return self.fs

    def mount(self) -> bool:
        """Mount, if it can be."""
        self.fs = self.step("mount", lambda: Filesystem(self.fault, self.options))
        self.check()
        return self.fs is not None

    def unmount(self) -> None:
        """Unmount; what is not possible is told, and the file system is gone all the same."""
        if self.fs is not None:
            self.step("unmount", self.fs.close)
            self.fs.close()
            self.fs = None
            self.handles.clear()
            self.check()

    def open(self, name: str, flags: int) -> int | None:
        """Open a file."""
        if flags & os.O_TRUNC:
            self.media[name].pending.append((0, None))
        handle = self.step(f"open {name} {flags:#x}", lambda: self.mounted.open(name, flags))
        if handle is not None:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                self.handles[handle] = name
            if flags & os.O_TRUNC:
                self._wrote(name, 0, None)
        self.check()
        return handle

    def close(self, handle: int | None) -> None:
        """Close a file: that succeeds."""
        if handle is not None:
            self.steps.append("close")
            self.mounted.release(handle)
            self.handles.pop(handle, None)
            self.check()

    def write(self, handle: int | None, name: str, offset: int, data: bytes, **how: bool) -> bool:
        """Write; return whether all that fits was written."""
        if handle is None:
            return False
        appends = self.media[name].sequential
        at = len(self.media[name].content) if appends else offset
        room = (CAPACITY if appends else len(self.media[name].content)) - at
        self.media[name].pending.append((at, data[:room]))
        before = len(data)
        length = self.step(f"write {name} {offset} {before}", lambda: self.mounted.write(handle, offset, data, **how))
        if length is not None:
            assert length == min(room, len(data))
            self._wrote(name, at, data[:length])
        self.check()
        return length is not None

    def append(self, name: str, blocks: int, flags: int = APPEND) -> bool:
        """Open, append, close."""
        handle = self.open(name, flags)
        done = self.write(handle, name, self.size(name), self.random(blocks * BLOCK))
        self.close(handle)
        return done

    def read(self, name: str, offset: int, length: int, flags: int = os.O_RDONLY) -> None:
        """Open, read, close: what is read is right."""
        handle = self.open(name, flags)
        if handle is None:
            return
        data = self.step(f"read {name} {offset} {length}", lambda: self.mounted.read(handle, offset, length))
        if data is not None:
            assert data == self.shown(name)[offset : offset + length], f"wrong data of {name}"
        self.close(handle)

    def truncate(self, name: str, size: int) -> None:
        """Reset or finish."""
        media = self.media[name]
        change = (0, None) if not size else (len(media.content), bytes(size - len(media.content)))
        media.pending.append(change)

        def succeeds() -> bool:
            self.mounted.truncate(name, size)
            return True

        if self.step(f"truncate {name} {size}", succeeds):
            self._wrote(name, *change)
        self.check()

    def fsync(self, handle: int | None) -> None:
        """Sync one file."""
        if handle is not None:
            self.step("fsync", lambda: self.mounted.fsync(handle))
            self.check()

    def copy(self, source: str, at: int, target: str, offset: int, length: int) -> None:
        """Copy a range."""
        reader, writer = self.open(source, os.O_RDONLY), self.open(target, os.O_WRONLY)
        if reader is not None and writer is not None:
            data = self.shown(source)[at : at + length]
            self.media[target].pending.append((offset, data))
            done = self.step(
                f"copy {source} {at} {target} {offset} {length}",
                lambda: self.mounted.copy_range(reader, at, writer, offset, length),
            )
            if done:
                self._wrote(target, offset, data[:done])
                self.media[target].pending.append((offset + done, data[done:]))
            self.check()
        self.close(reader)
        self.close(writer)

    def gather(self, target: str, offset: int | None, pieces: list[tuple[str, int, int]]) -> None:
        """Copy ranges of many files."""
        writer = self.open(target, os.O_WRONLY)
        if writer is not None:
            at = self.size(target) if offset is None else offset
            data = b"".join(self.shown(name)[start : start + length] for name, start, length in pieces)
            self.media[target].pending.append((at, data))
            sources = [(self.mounted.resolve(name), start, length) for name, start, length in pieces]
            copied = self.step(f"gather {target}", lambda: self.mounted.copy_ranges(writer, offset, sources))
            if copied is not None:
                done = sum(copied.completed)
                assert done == len(data) or copied.error is not None
                self._wrote(target, at, data[:done])
                self.media[target].pending.append((at + done, data[done:]))
            self.check()
        self.close(writer)

    def remount(self, **changes: Any) -> None:
        """Change options."""
        self.step(f"remount {changes}", lambda: self.mounted.remount(replace(self.mounted.options, **changes)))
        self.check()

    def break_zone(self, name: str, condition: ZoneCondition | None) -> None:
        """Make a file's zone read-only or offline, below the file system's feet; None: mend it."""
        self.steps.append(f"{name} becomes {condition}")
        self.memory.force_conditions(self.zones[name], condition)

    # What is there

    def size(self, name: str) -> int:
        """The size that the file system shows."""
        return self.mounted.getattr(self.mounted.resolve(name)).size

    def shown(self, name: str) -> bytes:
        """What a reader may get of a file: what is on media, up to its size."""
        return self.media[name].content[: self.size(name)]

    def _wrote(self, name: str, offset: int, data: bytes | None) -> None:
        media = self.media[name]
        media.pending.clear()
        if data is None:
            media.content = b""
        else:
            media.content = media.content[:offset] + data + media.content[offset + len(data) :]
        media.certain = len(media.content)

    def _on_media(self, name: str) -> bytes | None:
        """What is below the faults; None for a zone that cannot tell."""
        zones = self.zones[name]
        entries = self.memory.report_zones(zones.start, len(zones))
        if self.media[name].sequential:
            size = entries[0].data_size
            if size is None:
                return None
            return self.memory.read(entries[0].start, size) if size else b""
        if any(zone.condition is not ZoneCondition.NOT_WP for zone in entries):
            return None
        return self.memory.read(entries[0].start, ZONE_SIZE * len(zones))

    def check(self) -> None:
        """All that holds after each step."""
        for name, media in self.media.items():
            seen = self._on_media(name)
            if seen is not None:
                assert media.accepts(seen), f"{name} holds {len(seen)} bytes that it must not"
                media.content = seen
                media.certain = min(media.certain, len(seen))
                media.pending.clear()
        zones = self.memory.report_zones()
        assert sum(zone.condition in OPEN_CONDITIONS for zone in zones) <= MAX_OPEN
        assert sum(zone.condition in ACTIVE_CONDITIONS for zone in zones) <= MAX_ACTIVE
        if self.fs is not None:
            self._check_view(self.fs)

    def _check_view(self, fs: Filesystem) -> None:
        free = 0
        active = 0
        for name, media in self.media.items():
            attributes = fs.getattr(fs.resolve(name))
            size = attributes.size
            free += (CAPACITY if media.sequential else ZONE_SIZE * len(self.zones[name])) - size
            if not media.sequential:
                assert size == len(media.content) or not is_healthy(attributes)
                continue
            active += 0 < size < CAPACITY and is_healthy(attributes)
            assert size <= len(media.content), f"{name} shows {size} bytes of {len(media.content)}"
            media.certain = max(media.certain, size)
            if size == len(media.content):
                self.stale.discard(name)
            elif name not in self.stale:
                # An error has made it so; it stays like that until it is written, or mounted again.
                excused = fs.read_only or not is_healthy(attributes) or self.is_broken(name)
                assert excused, f"{name} shows {size} bytes of {len(media.content)}"
                self.stale.add(name)
        assert fs.statfs().blocks_free * BLOCK == free
        counters = fs.counters
        writing = {name for name in self.handles.values() if name.startswith("seq")}
        assert counters.nr_wro_seq_files == len(writing)
        # A zone whose closing failed stays open, and the file system is read-only then.
        opened = len(writing) if not fs.read_only else GEOMETRY.nr_zones
        assert active <= counters.nr_active_seq_files <= active + (opened if fs.options.explicit_open else 0)

    def is_broken(self, name: str) -> bool:
        """Whether the file's zone is read-only or offline."""
        return self.memory.report_zones(self.zones[name].start, 1)[0].condition in (
            ZoneCondition.READONLY,
            ZoneCondition.OFFLINE,
        )

    # The end

    def settle(self) -> None:
        """The faults are over: each file works, or says cleanly why not; after a new mount all of them work."""
        for status in self.fault.rules:
            self.fault.remove_rule(status.number)
        for name in self.media:
            self.break_zone(name, None)
        if self.fs is not None:
            for handle in list(self.handles):
                self.close(handle)
            for name in self.media:
                self.probe(name, always=False)
            self.steps.append("unmount")
            self.fs.close()
        self.fs = None
        format_again = self.scenario.formats
        if format_again:
            self.steps.append("mkfs")
            format_device(self.fault, self.format, uuid=bytes(16))
            for media in self.media.values():
                media.content = b"" if media.sequential else media.content
        assert self.mount(), "the device is healthy, and cannot be mounted"
        conditions = {zone.condition for zone in self.memory.report_zones()}
        assert not conditions & OPEN_CONDITIONS, "a mount leaves zones open"
        for name in self.media:
            assert self.size(name) == len(self.media[name].content)
            self.probe(name, always=True)
        self.mounted.close()

    def probe(self, name: str, *, always: bool) -> None:
        """Read and change a file; *always*: that must succeed, else what went wrong before may forbid it."""
        fs = self.mounted
        refusals: tuple[type[ZonefsError], ...] = ()
        if not always:
            # As with the kernel, a zone that errors= made read-only stays open on the device.
            refusals = (NotPermitted, ReadOnlyFilesystem, OpenZonesExhausted, ActiveZonesExhausted)
            if name in self.stale:
                refusals = (ZonefsError,)
        try:
            handle = fs.open(name, os.O_RDONLY)
            assert fs.read(handle, 0, 1 << 20) == self.shown(name), f"wrong data of {name}"
            fs.release(handle)
            if fs.options.explicit_open and self._would_be_too_active(name):
                return
            handle = fs.open(name, DIRECT_WRITE)
        except refusals:
            return
        self.handles[handle] = name
        data = self.random(BLOCK)
        offset = self.size(name) if self.media[name].sequential else BLOCK
        try:
            if offset < CAPACITY and not self._would_be_too_active(name):
                self.media[name].pending.append((offset, data))
                assert fs.write(handle, offset, data) == BLOCK
                self._wrote(name, offset, data)
            fs.fsync(handle)
            if self.media[name].sequential and always:
                fs.truncate(name, 0)
                self._wrote(name, 0, None)
        except refusals:
            pass
        finally:
            self.close(handle)
        self.check()

    def _would_be_too_active(self, name: str) -> bool:
        zones = self.memory.report_zones()
        mine = zones[self.zones[name].start]
        return mine.condition is ZoneCondition.EMPTY and (
            sum(zone.condition in ACTIVE_CONDITIONS for zone in zones) >= MAX_ACTIVE
        )


def is_healthy(attributes: Attributes) -> bool:
    """Whether the file may be written, by its mode."""
    return bool(attributes.mode & 0o200)


# Scenarios


@dataclass(frozen=True)
class Scenario:
    """Something that programs do. ``before``: blocks that files hold when it begins."""

    name: str
    do: Callable[[World], None]
    before: dict[str, int] = field(default_factory=dict)
    explicit_open: bool = False
    emulate: bool = False
    aggregated: bool = False
    formats: bool = False
    """It formats the device: it begins without a mount, and a format that failed is done again in the end."""
    mounts: bool = False
    """It begins without a mount."""


def mount(world: World) -> None:
    """Mount a device that somebody left with open zones; list it."""
    world.memory.zone_mgmt(ZoneOp.OPEN, world.zones["seq/0"].start)
    world.memory.zone_mgmt(ZoneOp.OPEN, world.zones["seq/2"].start)
    if world.mount():
        world.step("report", world.mounted.report)
        world.step("list", lambda: world.mounted.readdir(world.mounted.root))
        world.append("seq/1", 2)


def mkfs(world: World) -> None:
    for media in world.media.values():
        if media.sequential:
            media.pending.append((0, None))
    formatted = world.step("mkfs", lambda: format_device(world.fault, world.format, uuid=bytes(16)))
    world.check()
    if formatted is not None and world.mount():
        world.append("seq/0", 2)


def write(world: World) -> None:
    first, second = world.open("seq/0", DIRECT_WRITE), world.open("seq/1", DIRECT_WRITE)
    for blocks in (1, 3, 2):
        for handle, name in ((first, "seq/0"), (second, "seq/1")):
            world.write(handle, name, world.size(name), world.random(blocks * BLOCK))
    world.close(first)
    world.close(second)
    world.read("seq/0", 0, CAPACITY)


def append(world: World) -> None:
    handle = world.open("seq/0", APPEND)
    for blocks in (5, 5, 5, 1):
        if world.size("seq/0") < CAPACITY:
            world.write(handle, "seq/0", 0, world.random(blocks * BLOCK))
    world.close(handle)
    world.read("seq/0", 0, CAPACITY, os.O_RDONLY | os.O_DIRECT)


def write_conventional(world: World) -> None:
    handle = world.open("cnv/1", DIRECT_WRITE)
    for offset, blocks in ((0, 2), (BLOCK, 4), (ZONE_SIZE - 2 * BLOCK, 3)):
        world.write(handle, "cnv/1", offset, world.random(blocks * BLOCK))
    world.fsync(handle)
    world.close(handle)
    world.read("cnv/1", 0, ZONE_SIZE)


def partial_blocks(world: World) -> None:
    handle = world.open("cnv/0", os.O_RDWR)
    for offset, length in ((7, 100), (BLOCK - 5, 10), (3 * BLOCK + 1, 2 * BLOCK), (ZONE_SIZE - 9, 20)):
        world.write(handle, "cnv/0", offset, world.random(length))
    world.close(handle)
    world.read("cnv/0", 5, 2 * BLOCK)


def mapped(world: World) -> None:
    """What the kernel asks for a shared mapping: pages in, pages out."""
    handle = world.open("cnv/0", os.O_RDWR)
    page = 8 * BLOCK
    for number in (0, 1):
        world.read("cnv/0", number * page, page)
        world.write(handle, "cnv/0", number * page, world.random(page), direct=False, append=False)
    world.fsync(handle)
    world.close(handle)


def read(world: World) -> None:
    for name in ("seq/0", "cnv/0"):
        world.read(name, 0, CAPACITY)
        world.read(name, BLOCK, 2 * BLOCK, os.O_RDONLY | os.O_DIRECT)
        world.read(name, 3, 2 * BLOCK)
    world.append("seq/0", 1)


def reset(world: World) -> None:
    world.truncate("seq/0", 0)
    world.append("seq/0", 2)
    handle = world.open("seq/1", DIRECT_WRITE | os.O_TRUNC)
    world.write(handle, "seq/1", world.size("seq/1"), world.random(BLOCK))
    world.close(handle)


def finish(world: World) -> None:
    world.truncate("seq/0", CAPACITY)
    world.truncate("seq/1", CAPACITY)
    world.read("seq/0", 0, CAPACITY)
    world.truncate("seq/0", 0)
    world.append("seq/0", 12)


def explicit_open(world: World) -> None:
    first = world.open("seq/0", DIRECT_WRITE)
    second = world.open("seq/0", APPEND)
    third = world.open("seq/1", DIRECT_WRITE)
    world.open("seq/2", DIRECT_WRITE)
    world.write(first, "seq/0", world.size("seq/0"), world.random(BLOCK))
    world.close(first)
    world.truncate("seq/0", 0)
    world.write(second, "seq/0", 0, world.random(2 * BLOCK))
    world.close(second)
    world.truncate("seq/1", CAPACITY)
    world.close(third)
    world.append("seq/2", 1)


def copies(source: str, target: str, offset: int, length: int = 3 * PIECE) -> Callable[[World], None]:
    """A copy, and a write behind it."""

    def do(world: World) -> None:
        at = world.size(target) if target.startswith("seq") else offset
        world.copy(source, 0 if offset % BLOCK == 0 else offset, target, at, length)
        if target.startswith("seq"):
            world.append(target, 1)
        world.read(target, 0, ZONE_SIZE)

    return do


def gather(world: World) -> None:
    world.gather("seq/1", None, [("seq/0", BLOCK, 4 * BLOCK), ("cnv/0", 0, 2 * BLOCK), ("seq/0", 0, BLOCK)])
    world.gather("cnv/1", 3 * BLOCK, [("cnv/0", 5 * BLOCK, 2 * BLOCK), ("seq/0", 2 * BLOCK, 3 * BLOCK)])
    world.append("seq/1", 1)


def fsync(world: World) -> None:
    handle = world.open("seq/0", DIRECT_WRITE | os.O_DSYNC)
    for _ in range(2):
        # What could not be synced is written all the same: what is there counts as there.
        world.write(handle, "seq/0", world.size("seq/0"), world.random(BLOCK))
    world.fsync(handle)
    world.close(handle)
    handle = world.open("cnv/0", DIRECT_WRITE | os.O_SYNC)
    world.write(handle, "cnv/0", 0, world.random(BLOCK))
    world.close(handle)
    world.step("sync", world.mounted.sync)
    world.append("seq/1", 1)


def remount(world: World) -> None:
    world.append("seq/0", 1)
    world.remount(read_only=True)
    world.append("seq/0", 1)
    world.remount(read_only=False, errors=ErrorsPolicy.REPAIR)
    world.append("seq/0", 1)
    world.unmount()
    if world.mount():
        world.append("seq/0", 2)
        world.read("seq/0", 0, CAPACITY)


def recovery(world: World) -> None:
    """Zones break by themselves, and what is done about that fails too."""
    world.break_zone("seq/0", ZoneCondition.READONLY)
    world.append("seq/0", 1)
    world.break_zone("seq/1", ZoneCondition.OFFLINE)
    world.read("seq/1", 0, CAPACITY)
    world.append("seq/2", 1)
    world.break_zone("cnv/0", ZoneCondition.OFFLINE)
    world.read("cnv/0", 0, BLOCK)
    world.append("seq/2", 1)
    world.unmount()
    if world.mount():
        world.append("seq/2", 1)


def aggregated(world: World) -> None:
    handle = world.open("cnv/0", os.O_RDWR | os.O_DIRECT)
    for offset, blocks in ((0, 2), (ZONE_SIZE - BLOCK, 2), (ZONE_SIZE, 20)):
        world.write(handle, "cnv/0", offset, world.random(blocks * BLOCK))
    world.fsync(handle)
    world.close(handle)
    world.copy("cnv/0", ZONE_SIZE - PIECE, "seq/0", 0, 2 * PIECE)
    world.copy("seq/1", 0, "cnv/0", 2 * ZONE_SIZE - BLOCK, 2 * BLOCK)
    world.read("cnv/0", 0, 3 * ZONE_SIZE)


def too_many(world: World) -> None:
    """More zones than can be active, and more than can be open."""
    handles = [world.open(f"seq/{index}", DIRECT_WRITE) for index in range(5)]
    for index, handle in enumerate(handles):
        if world.size(f"seq/{index}") == 0 and index > 2:
            continue
        world.write(handle, f"seq/{index}", world.size(f"seq/{index}"), world.random(2 * BLOCK))
    for handle in handles:
        world.close(handle)
    world.append("seq/0", 1)


def unmount(world: World) -> None:
    """Unmount while files are open and written."""
    first, second = world.open("seq/0", DIRECT_WRITE), world.open("cnv/0", os.O_WRONLY)
    world.write(first, "seq/0", world.size("seq/0"), world.random(2 * BLOCK))
    world.write(second, "cnv/0", 5, world.random(BLOCK))
    world.unmount()


def space(world: World) -> None:
    world.append("seq/0", 3)
    world.step("statfs", world.mounted.statfs)
    world.step("report", world.mounted.report)
    world.truncate("seq/0", CAPACITY)
    world.step("statfs", world.mounted.statfs)


SCENARIOS = [
    Scenario("mount", mount, {"seq/0": 3}, mounts=True),
    Scenario("mkfs", mkfs, {"seq/0": 3, "seq/1": 12}, formats=True),
    Scenario("write", write, {"seq/0": 2}),
    Scenario("append", append, {"seq/0": 1}),
    Scenario("write-conventional", write_conventional, {"cnv/1": 16}),
    Scenario("partial-blocks", partial_blocks, {"cnv/0": 16}),
    Scenario("mapped", mapped, {"cnv/0": 16}),
    Scenario("read", read, {"seq/0": 9, "cnv/0": 16}),
    Scenario("reset", reset, {"seq/0": 12, "seq/1": 3}),
    Scenario("finish", finish, {"seq/0": 3}),
    Scenario("explicit-open", explicit_open, {"seq/0": 2}, explicit_open=True),
    Scenario("copy-seq-seq", copies("seq/0", "seq/1", 0), {"seq/0": 12, "seq/1": 1}),
    Scenario("copy-cnv-seq", copies("cnv/0", "seq/1", 0), {"cnv/0": 16}),
    Scenario("copy-seq-cnv", copies("seq/0", "cnv/0", 2 * BLOCK), {"seq/0": 9}),
    Scenario("copy-crooked", copies("cnv/0", "cnv/1", 100), {"cnv/0": 16, "cnv/1": 16}),
    Scenario("copy-emulated", copies("seq/0", "seq/1", 0), {"seq/0": 12, "seq/1": 1}, emulate=True),
    Scenario("gather", gather, {"seq/0": 9, "seq/1": 2, "cnv/0": 16}),
    Scenario("fsync", fsync, {"seq/0": 2}),
    Scenario("remount", remount, {"seq/0": 2}),
    Scenario("recovery", recovery, {"seq/0": 2, "seq/1": 3, "cnv/0": 16}),
    Scenario("aggregated", aggregated, {"cnv/0": 48, "seq/1": 4}, aggregated=True),
    Scenario("too-many", too_many, {"seq/0": 2}),
    Scenario("unmount", unmount, {"seq/0": 2}, explicit_open=True),
    Scenario("space", space, {"seq/1": 3}),
]


def start(scenario: Scenario, policy: ErrorsPolicy) -> World:
    """A world in which *scenario* can begin."""
    world = World(policy, scenario)
    if not scenario.formats and not scenario.mounts:
        assert world.mount()
        fs = world.mounted
        if scenario.emulate:
            fs.copy_engine = CopyEngine(fs.device, Engine.EMULATE, lambda size: bytearray(min(size, PIECE)))
        else:
            fs.copy_engine.set_limit("copy_max_bytes", PIECE)
    return world


def run(scenario: Scenario, policy: ErrorsPolicy, fault: Fault | None, limit: float = LIMIT_SECONDS) -> list[int]:
    """Do *scenario* with *fault*, if any, checking all; return how many calls there were, by the kinds of `KINDS`.

    AssertionError says what is wrong and what had been done by then; also if it is not over in *limit* seconds.
    """
    name = f"{scenario.name}, errors={policy.value}, {fault}"
    worlds: list[World] = []
    counts: list[int] = []
    failures: list[Exception] = []

    def work() -> None:
        try:
            worlds.append(start(scenario, policy))
            counts.extend(_go(worlds[0], fault))
        except Exception as exc:  # whatever it is, it is raised by who waits for this thread
            failures.append(exc)

    # In a thread, which is left behind if it hangs: nothing that it waits for can keep us.
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    thread.join(limit)
    steps = "; ".join(worlds[0].steps if worlds else ())
    if failures:
        failures[0].add_note(f"{name}: {steps}")
        raise failures[0]
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        raise AssertionError(f"{name}: it hangs, for {limit} s by now: {steps}\n{where}")
    return counts


def _go(world: World, fault: Fault | None) -> list[int]:
    counting = [world.fault.add_rule(FaultRule(operation, Effect.FAIL, first=1 << 60)) for _, operation, *_ in KINDS]
    if fault is not None:
        world.fault.add_rule(fault.rule())
    world.scenario.do(world)
    matched = {status.number: status.matched for status in world.fault.rules}
    world.settle()
    return [matched[number] for number in counting]


def faults(scenario: Scenario, policy: ErrorsPolicy) -> Iterable[Fault]:
    """Every call of *scenario* failing in every way, once and from then on."""
    for (name, operation, effect, error, after), calls in zip(KINDS, run(scenario, policy, None), strict=True):
        for number in range(1, calls + 1):
            for sticky in (False, True):
                yield Fault(name, operation, effect, number, sticky, error, after)

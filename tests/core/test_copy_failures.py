"""Every device call of a copy fails once, in every way: what is returned, what is on media, what files say after it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.core.copying import CopyDevice, Effect, Fault, copy_with_small_buffer, random_bytes, zone_bytes
from tests.descriptors import files_at_most
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError, NotAtWritePointer, NotPermitted, ReadOnlyFilesystem, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry

BLOCK = 512
PIECE = 4 * BLOCK
"""What one device call of a copy moves."""
ZONE_SIZE = 32 * BLOCK
CAPACITY = 24 * BLOCK
GEOMETRY = Geometry(ZONE_SIZE, CAPACITY, 8, 3, BLOCK, ZONE_SIZE)
"""cnv/0 and cnv/1, seq/0 to seq/4."""

ENGINES = ["device", "reflink", "host", "emulate"]

EARLIER = 2 * BLOCK
"""What sequential files hold before."""


@dataclass(frozen=True)
class Pair:
    """A copy: *length* bytes from *source_offset*, to a sequential file's write pointer or *offset*."""

    source: str
    source_offset: int
    target: str
    offset: int
    length: int = 4 * PIECE


PAIRS = [
    Pair("seq/0", BLOCK, "seq/1", EARLIER),
    Pair("cnv/0", 0, "seq/0", EARLIER),
    Pair("seq/1", 0, "cnv/0", 3 * BLOCK),
    Pair("cnv/0", 0, "cnv/1", BLOCK),
    Pair("seq/2", 0, "seq/2", CAPACITY - 2 * PIECE, 2 * PIECE),
]

FAULTS = [
    (Effect.ERROR, 0),
    (Effect.ERROR, 1),
    (Effect.ERROR, 3),
    (Effect.ERROR, 4),
    (Effect.SHORT, 0),
    (Effect.SHORT, 2),
    (Effect.SHORT, 4),
    (Effect.READ_ONLY, 0),
    (Effect.READ_ONLY, 2),
    (Effect.OFFLINE, 0),
    (Effect.OFFLINE, 2),
]

INITIAL = {
    "cnv/0": random_bytes(ZONE_SIZE, 1),
    "cnv/1": random_bytes(ZONE_SIZE, 2),
    "seq/0": random_bytes(CAPACITY, 3),
    "seq/1": random_bytes(CAPACITY, 4),
    "seq/2": random_bytes(CAPACITY - 2 * PIECE, 5),
}


def start(pair: Pair, engine: str, policy: ErrorsPolicy) -> tuple[CopyDevice, Filesystem, dict[str, bytes]]:
    """A file system over a device that can be told to fail; and what its files hold."""
    inner = MemoryDevice(GEOMETRY)
    format_device(inner, FormatOptions())
    device = CopyDevice(inner)
    fs = Filesystem(device, MountOptions(policy, copy=engine))
    files = {}
    for name in {pair.source, pair.target}:
        cut = EARLIER if name == pair.target and name.startswith("seq") and name != pair.source else None
        files[name] = INITIAL[name][:cut]
        handle = fs.open(name, os.O_RDWR | os.O_DIRECT)
        fs.write(handle, 0, files[name])
        fs.release(handle)
    copy_with_small_buffer(fs, PIECE)
    if engine != "emulate":
        fs.copy_engine.set_limit("copy_max_bytes", PIECE)
    del device.calls[:]
    return device, fs, files


class OneFailure:
    """A copy in which one call of the device fails, and everything that must hold after it."""

    def __init__(self, pair: Pair, engine: str, policy: ErrorsPolicy, fault: Fault) -> None:
        self.pair, self.engine, self.policy, self.fault = pair, engine, policy, fault
        self.device, self.fs, self.files = start(pair, engine, policy)
        self.device.fault = fault
        self.sequential = pair.target.startswith("seq")
        self.reader = self.fs.open(pair.source, os.O_RDONLY)
        self.writer = self.fs.open(pair.target, os.O_WRONLY)
        self.error: ZonefsError | None = None
        self.copied = 0

    def run(self) -> bool:
        """Do it and check; return whether the fault struck."""
        pair = self.pair
        try:
            self.copied = self.fs.copy_range(self.reader, pair.source_offset, self.writer, pair.offset, pair.length)
        except ZonefsError as exc:
            self.error = exc
        calls = list(self.device.calls)
        self.device.fault = None
        if len(calls) <= self.fault.number:
            assert self.copied == pair.length
            self.fs.close()
            return False
        self.struck = calls[self.fault.number]
        self.reading = self.struck.kind == "read"
        assert len(calls) == self.fault.number + 1, "nothing may be tried after an error"
        kinds = {"read", "write"} if self.engine == "emulate" else {"copy"}
        assert {call.kind for call in calls} <= kinds, "another engine was tried"
        self.check_answer()
        self.check_counters()
        self.check_target()
        self.check_source()
        self.check_policy()
        self.check_next_copy()
        self.fs.release(self.reader)
        self.fs.release(self.writer)
        self.check_media_and_mount_again()
        return True

    def before_it(self) -> int:
        """Bytes that the calls before the one that failed copied."""
        return self.fault.number // (2 if self.engine == "emulate" else 1) * PIECE

    def check_answer(self) -> None:
        """A positive count if any block is known to be copied, else the device's error."""
        known = self.before_it()
        if self.fault.effect is Effect.SHORT and self.engine != "emulate":
            known += self.part()
        assert self.copied == known
        if known:
            assert self.error is None
        else:
            assert isinstance(self.error, DeviceError)
            assert self.error.errno_name == "EIO"

    def part(self) -> int:
        """Bytes that the call did before it failed."""
        return 0 if self.reading else min(self.fault.blocks * BLOCK, self.struck.length)

    def on_media(self) -> int:
        """Bytes of the copy that are on the destination's media."""
        return self.before_it() + self.part()

    def check_counters(self) -> None:
        for engine, done in self.fs.copy_engine.counters.items():
            expected = (1, self.copied, 1) if engine.value == self.engine else (0, 0, 0)
            assert (done.copies, done.bytes, done.errors) == expected, engine

    def check_target(self) -> None:
        """The destination's size, by the errors= policy, and what can be read of it."""
        pair = self.pair
        size = self.fs.getattr(self.fs.resolve(pair.target)).size
        if not self.sequential:
            assert size == ZONE_SIZE
            return
        wp = pair.offset + self.on_media()
        known = pair.offset + self.copied
        broken = self.is_bad_zone() and (not self.reading or pair.source == pair.target)
        if self.reading and not broken:
            expected = known
        elif self.policy is ErrorsPolicy.ZONE_OFFLINE or (broken and self.fault.effect is Effect.OFFLINE):
            expected = 0
        elif self.policy is ErrorsPolicy.REPAIR and not broken:
            expected = wp
        else:
            # What is beyond was not acknowledged: it may be garbage, and is not shown.
            expected = known
        assert size == expected

    def is_bad_zone(self) -> bool:
        """Whether the zone of the call that failed is read-only or offline."""
        return self.fault.effect in (Effect.READ_ONLY, Effect.OFFLINE)

    def check_source(self) -> None:
        """The source is as it was, unless its own zone broke."""
        if self.pair.source == self.pair.target:
            return
        attributes = self.fs.getattr(self.fs.resolve(self.pair.source))
        if self.reading and self.fault.effect is Effect.OFFLINE:
            assert attributes.size == 0
        elif not (self.reading and self.is_bad_zone()):
            assert attributes.size == len(self.files[self.pair.source])
            assert attributes.mode & 0o222

    def check_policy(self) -> None:
        """The errors= action is taken for a failed write and for a zone that broke, not for a mere failed read."""
        acts = self.is_bad_zone() if self.reading else self.sequential
        assert self.fs.read_only == (acts and self.policy is ErrorsPolicy.REMOUNT_RO)

    def check_next_copy(self) -> None:
        """It goes on where the destination's end is, or says cleanly why not."""
        pair = self.pair
        size = self.fs.getattr(self.fs.resolve(pair.target)).size
        offset = size if self.sequential else pair.offset + self.copied
        done = max(0, offset - pair.offset)
        try:
            copied = self.fs.copy_range(self.reader, pair.source_offset + done, self.writer, offset, pair.length - done)
        except NotPermitted:
            zone_policy = self.policy in (ErrorsPolicy.ZONE_RO, ErrorsPolicy.ZONE_OFFLINE)
            assert self.is_bad_zone() or (zone_policy and not self.reading)
            self.went_on = False
        except ReadOnlyFilesystem:
            assert self.fs.read_only
            self.went_on = False
        except DeviceError:
            # A broken conventional zone: a write there has no errors= action, and fails each time.
            assert self.is_bad_zone()
            assert not self.sequential
            self.went_on = False
        else:
            assert copied == pair.length - done
            self.went_on = True

    def check_media_and_mount_again(self) -> None:
        """What was acknowledged is on media; a new mount's file ends at the write pointer."""
        pair = self.pair
        target = self.fs.resolve(pair.target)
        self.device.inner.force_condition(self.fs.resolve(pair.source), None)
        media = zone_bytes(self.device.inner, target)
        known = pair.length if self.went_on else self.on_media()
        if self.sequential:
            assert len(media) == pair.offset + known
        source = self.files[pair.source] if pair.source != pair.target else media
        assert media[pair.offset :][:known] == source[pair.source_offset :][:known]
        assert self.copied <= known
        before = self.files[pair.target]
        assert media[: pair.offset] == before[: pair.offset]
        assert media[pair.offset + known :] == before[pair.offset + known :]
        self.fs.close()
        with Filesystem(self.device) as fs:
            assert fs.getattr(target).size == len(media)
            handle = fs.open(target, os.O_RDONLY)
            assert fs.read(handle, 0, len(media)) == media
            fs.release(handle)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", list(ErrorsPolicy), ids=lambda policy: policy.value)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.source}-{pair.target}")
def test_each_call_fails_in_each_way(engine: str, policy: ErrorsPolicy, pair: Pair) -> None:
    for effect, blocks in FAULTS:
        for number in count():
            if not OneFailure(pair, engine, policy, Fault(number, effect, blocks)).run():
                pieces = -(-pair.length // PIECE)
                assert number == pieces * (2 if engine == "emulate" else 1)
                break


@pytest.mark.parametrize("engine", ENGINES)
def test_the_error_that_cut_a_copy_short_meets_the_next(engine: str) -> None:
    device, fs, _ = start(PAIRS[0], engine, ErrorsPolicy.REPAIR)
    reader, writer = fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", os.O_WRONLY)
    device.fault = Fault(4 if engine == "emulate" else 2, Effect.ERROR, lasting=True)
    assert fs.copy_range(reader, 0, writer, EARLIER, 16 * BLOCK) == 2 * PIECE
    for _ in range(2):
        with pytest.raises(DeviceError):
            fs.copy_range(reader, 2 * PIECE, writer, EARLIER + 2 * PIECE, 16 * BLOCK)
    device.fault = None
    assert fs.copy_range(reader, 2 * PIECE, writer, EARLIER + 2 * PIECE, 2 * PIECE) == 2 * PIECE


@pytest.mark.parametrize("engine", ENGINES)
def test_changed_files_are_announced(engine: str) -> None:
    """The kernel must ask again for a size that an error has changed."""
    device, fs, _ = start(PAIRS[0], engine, ErrorsPolicy.REPAIR)
    changed: list[int] = []
    fs.on_change = changed.append
    reader, writer = fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", os.O_WRONLY)
    assert fs.copy_range(reader, 0, writer, EARLIER, PIECE) == PIECE
    assert changed == []
    device.fault = Fault(len(device.calls) + (engine == "emulate"), Effect.ERROR, blocks=2)
    with pytest.raises(DeviceError):
        fs.copy_range(reader, 0, writer, EARLIER + PIECE, PIECE)
    assert changed == [fs.resolve("seq/1")]
    assert fs.getattr(fs.resolve("seq/1")).size == EARLIER + PIECE + 2 * BLOCK
    with pytest.raises(NotAtWritePointer):
        fs.copy_range(reader, 0, writer, EARLIER + PIECE, PIECE)


def test_unaligned_bytes_fail_like_others() -> None:
    """Source and destination do not have their blocks at the same places: all goes through memory."""
    for number in range(2):
        device, fs, files = start(PAIRS[0], "host", ErrorsPolicy.REPAIR)
        copy_with_small_buffer(fs, 2 * PIECE)
        reader, writer = fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", os.O_WRONLY)
        device.fault = Fault(number, Effect.ERROR, blocks=2)
        with pytest.raises(DeviceError):
            fs.copy_range(reader, 1, writer, EARLIER, PIECE)
        device.fault = None
        assert [call.kind for call in device.calls] == ["read", "write"][: number + 1]
        size = EARLIER + 2 * BLOCK * number
        assert fs.getattr(fs.resolve("seq/1")).size == size
        done = 2 * BLOCK * number
        assert fs.copy_range(reader, 1 + done, writer, size, PIECE) == PIECE
        assert zone_bytes(device.inner, fs.resolve("seq/1"))[EARLIER:] == files["seq/0"][1 : 1 + done + PIECE]


CROOKED = [(BLOCK + 100, 3 * BLOCK + 100, 3 * PIECE), (100, 100, PIECE + 7), (5, 2 * BLOCK + 6, 2 * PIECE)]
"""Offsets in cnv/0 and cnv/1, and a length: equally crooked with a middle, and not."""


def crooked_copy_fails(place: tuple[int, int, int], engine: str, policy: ErrorsPolicy, fault: Fault) -> bool:
    """Do it and check; return whether the fault struck."""
    device, fs, files = start(Pair("cnv/0", 0, "cnv/1", 0), engine, policy)
    source, offset, length = place
    reader, writer = fs.open("cnv/0", os.O_RDONLY), fs.open("cnv/1", os.O_RDWR)
    device.fault = fault
    try:
        copied = fs.copy_range(reader, source, writer, offset, length)
    except DeviceError:
        copied = 0
    calls = list(device.calls)
    device.fault = None
    struck = len(calls) > fault.number
    assert len(calls) <= fault.number + 1, "nothing may be tried after an error"
    assert struck or copied == length
    used = fs.copy_engine.counters
    assert sum(done.errors for done in used.values()) == struck
    assert sum(done.bytes for done in used.values()) == copied
    if fault.effect in (Effect.READ_ONLY, Effect.OFFLINE):
        for name in files:
            device.inner.force_condition(fs.resolve(name), None)
    media = zone_bytes(device.inner, fs.resolve("cnv/1"))
    wanted = files["cnv/0"][source : source + length]
    assert media[offset : offset + copied] == wanted[:copied]
    # What is not known to be copied is old or new, byte by byte; what is not of the copy is as it was.
    old = files["cnv/1"]
    assert all(now in (before, after) for now, before, after in zip(media[offset:], old[offset:], wanted, strict=False))
    assert (media[:offset], media[offset + length :]) == (old[:offset], old[offset + length :])
    assert zone_bytes(device.inner, fs.resolve("cnv/0")) == files["cnv/0"]
    fs.close()
    return struck


@pytest.mark.parametrize("place", CROOKED, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_each_call_of_a_crooked_copy_fails_in_each_way(place: tuple[int, int, int], engine: str) -> None:
    for policy in (ErrorsPolicy.REPAIR, ErrorsPolicy.REMOUNT_RO):
        for effect, blocks in FAULTS:
            number = 0
            while crooked_copy_fails(place, engine, policy, Fault(number, effect, blocks)):
                number += 1
            assert number > 2


@pytest.mark.parametrize("engine", ["host", "emulate"])
@pytest.mark.parametrize("limit", [0, 3 * 4096, 3 * 4096 + 100, 5 * 4096 - 1])
def test_the_host_takes_a_part(tmp_path: Path, caplog: pytest.LogCaptureFixture, engine: str, limit: int) -> None:
    """What the host is known to have copied is acknowledged; the size is the write pointer, in whole blocks."""
    geometry = Geometry(16 * 4096, 12 * 4096, 4, 1, 4096, 16 * 4096)
    create_device(tmp_path / "disk", geometry)
    device = open_device(tmp_path / "disk")
    format_device(device, FormatOptions())
    with Filesystem(device, MountOptions(ErrorsPolicy.REPAIR, copy=engine)) as fs:
        data = random_bytes(12 * 4096, 1)
        both = os.O_RDWR | os.O_DIRECT
        reader, writer = fs.open("seq/0", both), fs.open("seq/1", both)
        assert fs.write(reader, 0, data) == len(data)
        whole = limit // 4096 * 4096
        with files_at_most(limit):
            if engine == "host" and whole:
                assert fs.copy_range(reader, 0, writer, 0, len(data)) == whole
            else:
                with pytest.raises(DeviceError):
                    fs.copy_range(reader, 0, writer, 0, len(data))
        # Whose zone it was is not to be mistaken, though both files are looked at.
        assert [line.split(" zone 2: ")[0] for line in caplog.messages if " zone 2: " in line] == [
            "seq/1:",
            "seq/0: a copy from it to seq/1 failed:",
        ]
        assert fs.getattr(fs.resolve("seq/1")).size == whole
        assert (tmp_path / "disk" / "seq-000002").stat().st_size == whole
        assert fs.copy_range(reader, whole, writer, whole, len(data)) == len(data) - whole
        assert fs.read(writer, 0, len(data)) == data
        fs.release(reader)
        fs.release(writer)

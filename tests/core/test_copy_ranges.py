"""Copies of several ranges into one file, without a mount: data, refusals, accounting, errors, and any bytes at all."""

from __future__ import annotations

import errno
import os
import random
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from zonefs_py import Filesystem, FormatOptions, Geometry, MemoryDevice, MountOptions, format_device
from zonefs_py.config import ErrorsPolicy
from zonefs_py.copy import abi
from zonefs_py.errors import (
    AccessDenied,
    ActiveZonesExhausted,
    BadHandle,
    BeyondCapacity,
    DeviceError,
    InvalidRequest,
    IsADirectory,
    NoSuchFile,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    ReadOnlyFilesystem,
    ZonefsError,
)
from zonefs_py.fs.access import ROOT, Caller
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.copying import RangesCopied
from zonefs_py.fs.ioctl import answer_copy
from zonefs_py.units import KIB
from zonefs_py.zone import ZoneCondition

BLOCK = 4096
ZONE = 64 * KIB
CAPACITY = 48 * KIB
NR_ZONES = 9
CNV, SEQ = (1, 2), (3, 4, 5, 6, 7, 8)
"""Inode numbers of cnv/0.. and seq/0..; zone 0 is the superblock's."""
HUGE = (1 << 64) - 1


def pattern(file: int, size: int) -> bytes:
    return b"".join(struct.pack("<II", file, number) for number in range(size // 8))


class Mounted:
    """A file system with data: seq/0 full, seq/1 half, the others empty; cnv/0 and cnv/1 whole."""

    def __init__(self, options: MountOptions | None = None, aggregate: bool = False, **limits: int) -> None:
        self.device = MemoryDevice(Geometry(ZONE, CAPACITY, NR_ZONES, 3, BLOCK, ZONE), **limits)
        format_device(
            self.device, FormatOptions(aggregate_conventional=aggregate, uid=1000, gid=100, permissions=0o640)
        )
        self.fs = Filesystem(self.device, options or MountOptions())
        sizes = {"cnv/0": 2 * ZONE} if aggregate else {"cnv/0": ZONE, "cnv/1": ZONE}
        for number, (name, size) in enumerate((sizes | {"seq/0": CAPACITY, "seq/1": CAPACITY // 2}).items()):
            handle = self.fs.open(name, os.O_WRONLY | os.O_DIRECT)
            self.fs.write(handle, 0, pattern(number, size))
            self.fs.release(handle)

    def open(self, name: str, flags: int = os.O_RDWR) -> int:
        return self.fs.open(name, flags)

    def content(self, name: str) -> bytes:
        handle = self.fs.open(name, os.O_RDONLY)
        data = self.fs.read(handle, 0, 1 << 20)
        self.fs.release(handle)
        return data

    def state(self) -> tuple[Any, ...]:
        """Everything that a copy could change."""
        names = [name for _, name in self.fs.report() if name]
        return (
            self.device.report_zones(),
            {name: self.content(name) for name in names if self.fs.getattr(self.fs.resolve(name)).mode & 0o777},
            [self.fs.getattr(self.fs.resolve(name))._replace(atime_ns=0) for name in names],
            self.fs.counters,
            self.fs.statfs(),
            self.fs.read_only,
        )


@pytest.fixture
def mounted() -> Iterator[Mounted]:
    mounted = Mounted()
    with mounted.fs:
        yield mounted


def test_ranges_follow_each_other_at_the_write_pointer(mounted: Mounted) -> None:
    target = mounted.open("seq/1")
    before = mounted.content("seq/1")
    ranges = [(SEQ[0], 4 * BLOCK, 2 * BLOCK), (CNV[1], 0, BLOCK), (SEQ[1], 0, BLOCK), (SEQ[0], 0, BLOCK)]
    copied = mounted.fs.copy_ranges(target, None, ranges)
    assert copied == RangesCopied(CAPACITY // 2, (2 * BLOCK, BLOCK, BLOCK, BLOCK), None)
    full, other = mounted.content("seq/0"), mounted.content("cnv/1")
    expected = full[4 * BLOCK : 6 * BLOCK] + other[:BLOCK] + before[:BLOCK] + full[:BLOCK]
    assert mounted.content("seq/1") == before + expected
    counters = [one for one in mounted.fs.copy_engine.counters.values() if one.copies]
    assert [(one.copies, one.commands, one.bytes) for one in counters] == [(1, 1, 5 * BLOCK)]
    assert mounted.device.report_zones(SEQ[1], 1)[0].wp == SEQ[1] * ZONE + CAPACITY // 2 + 5 * BLOCK
    # The rest of it, by the number of the write pointer: the zone is full, and no longer active.
    active = mounted.fs.counters.nr_active_seq_files
    rest = CAPACITY // 2 - 5 * BLOCK
    assert mounted.fs.copy_ranges(target, CAPACITY - rest, [(SEQ[0], 0, rest)]).completed == (rest,)
    assert mounted.device.report_zones(SEQ[1], 1)[0].condition is ZoneCondition.FULL
    assert mounted.fs.counters.nr_active_seq_files == active - 1


def test_conventional_files_take_ranges_anywhere() -> None:
    mounted = Mounted(aggregate=True)
    with mounted.fs:
        before, full = bytearray(mounted.content("cnv/0")), mounted.content("seq/0")
        target = mounted.open("cnv/0", os.O_WRONLY)
        # Across the seam of the two zones that make up the file; from within the file itself, too.
        ranges = [(SEQ[0], 0, 2 * BLOCK), (CNV[0], ZONE - BLOCK, BLOCK)]
        copied = mounted.fs.copy_ranges(target, ZONE + BLOCK, ranges)
        assert copied == RangesCopied(ZONE + BLOCK, (2 * BLOCK, BLOCK), None)
        copied = mounted.fs.copy_ranges(target, ZONE - 4 * BLOCK, [(SEQ[0], 0, 5 * BLOCK)])
        assert copied.completed == (5 * BLOCK,)
        wanted = bytearray(before)
        wanted[ZONE + BLOCK : ZONE + 4 * BLOCK] = full[: 2 * BLOCK] + before[ZONE - BLOCK : ZONE]
        wanted[ZONE - 4 * BLOCK : ZONE + BLOCK] = full[: 5 * BLOCK]
        assert mounted.content("cnv/0") == wanted


GOOD = (SEQ[0], 0, BLOCK)


@pytest.mark.parametrize(
    ("target", "offset", "ranges", "error"),
    [
        ("seq/1", None, [], InvalidRequest),
        ("seq/1", None, [GOOD] * 4096, InvalidRequest),
        ("seq/1", None, [GOOD, (SEQ[0], 0, 0)], InvalidRequest),
        ("seq/1", None, [GOOD, (SEQ[0], 1, BLOCK)], NotAligned),
        ("seq/1", None, [GOOD, (SEQ[0], 0, BLOCK - 512)], NotAligned),
        ("cnv/0", 512, [GOOD], NotAligned),
        ("seq/1", None, [GOOD, (SEQ[0], -BLOCK, BLOCK)], InvalidRequest),
        ("seq/1", None, [GOOD, (SEQ[0], BLOCK, -BLOCK)], InvalidRequest),
        ("cnv/0", -BLOCK, [GOOD], InvalidRequest),
        ("seq/1", None, [GOOD, (0, 0, BLOCK)], NoSuchFile),
        ("seq/1", None, [GOOD, (HUGE, 0, BLOCK)], NoSuchFile),
        ("seq/1", None, [GOOD, (NR_ZONES, 0, BLOCK)], IsADirectory),
        ("seq/1", None, [GOOD, (SEQ[2], 0, BLOCK)], InvalidRequest),  # empty
        ("seq/1", None, [GOOD, (SEQ[0], CAPACITY - BLOCK, 2 * BLOCK)], InvalidRequest),
        ("seq/1", None, [GOOD, (SEQ[0], (1 << 64) - BLOCK, BLOCK)], InvalidRequest),
        ("seq/1", 0, [GOOD], NotAtWritePointer),
        ("seq/1", CAPACITY // 2 - BLOCK, [GOOD], NotAtWritePointer),
        ("seq/1", CAPACITY // 2 + BLOCK, [GOOD], NotAtWritePointer),
        ("seq/1", CAPACITY // 2, [GOOD, (SEQ[0], 0, CAPACITY // 2)], BeyondCapacity),
        ("seq/1", None, [GOOD, (SEQ[0], 0, (1 << 64) - BLOCK)], BeyondCapacity),
        ("seq/0", None, [(SEQ[1], 0, BLOCK)], BeyondCapacity),
        ("cnv/0", ZONE, [GOOD], BeyondCapacity),
        ("cnv/0", ZONE - BLOCK, [GOOD, GOOD], BeyondCapacity),
        ("cnv/0", None, [GOOD], InvalidRequest),
        ("cnv/0", 0, [GOOD, (CNV[0], BLOCK, BLOCK)], InvalidRequest),  # overlaps
        ("cnv/0", BLOCK, [(CNV[0], 0, 2 * BLOCK)], InvalidRequest),
    ],
)
def test_what_is_refused_changes_nothing(
    mounted: Mounted, target: str, offset: int | None, ranges: list[tuple[int, int, int]], error: type[ZonefsError]
) -> None:
    handle = mounted.open(target)
    before = mounted.state()
    with pytest.raises(error) as caught:
        mounted.fs.copy_ranges(handle, offset, ranges)
    assert type(caught.value) is error
    assert mounted.state() == before
    assert not any(one.copies for one in mounted.fs.copy_engine.counters.values())


def test_the_largest_number_of_ranges() -> None:
    device = MemoryDevice(Geometry(16 << 20, 16 << 20, 4, 1, BLOCK, 16 << 20))
    format_device(device, FormatOptions())
    with Filesystem(device) as fs:
        writer = fs.open("seq/0", os.O_WRONLY | os.O_DIRECT)
        fs.write(writer, 0, pattern(1, BLOCK))
        target = fs.open("seq/1", os.O_WRONLY)
        assert fs.copy_ranges(target, None, [(1, 0, BLOCK)] * 4095).completed == (BLOCK,) * 4095


def test_states_of_files_and_mount(mounted: Mounted) -> None:
    fs = mounted.fs
    reader = mounted.open("seq/2", os.O_RDONLY)
    for handle in (reader, 12345):
        with pytest.raises(BadHandle):
            fs.copy_ranges(handle, None, [GOOD])
    # O_APPEND is no hindrance: an ioctl has an offset of its own, or the write pointer.
    append = mounted.open("seq/2", os.O_WRONLY | os.O_APPEND)
    assert fs.copy_ranges(append, None, [GOOD]).completed == (BLOCK,)
    broken = Mounted()
    with broken.fs:
        target = broken.open("seq/2")
        broken.device.force_conditions([SEQ[0], SEQ[3]], ZoneCondition.READONLY)
        # The device's doing is not known yet: the copy meets it. A read-only zone can be read, the other not written.
        lost = broken.open("seq/3")
        assert broken.fs.copy_ranges(target, None, [GOOD]).error is None
        failed = broken.fs.copy_ranges(lost, None, [(SEQ[1], 0, BLOCK)])
        assert (failed.completed, type(failed.error)) == ((0,), DeviceError)
        assert broken.fs.read_only
        with pytest.raises(NotPermitted):
            broken.fs.copy_ranges(lost, None, [GOOD])
        with pytest.raises(ReadOnlyFilesystem):
            broken.fs.copy_ranges(target, None, [GOOD])


def test_a_source_whose_zone_is_offline_stops_the_copy_there() -> None:
    mounted = Mounted(MountOptions(errors=ErrorsPolicy.REPAIR))
    with mounted.fs as fs:
        changed: list[int] = []
        fs.on_change = changed.append
        target = mounted.open("seq/2")
        mounted.device.force_condition(SEQ[1], ZoneCondition.OFFLINE)
        copied = fs.copy_ranges(target, None, [GOOD, (SEQ[0], BLOCK, BLOCK), (SEQ[1], 0, BLOCK), GOOD])
        assert copied.completed == (BLOCK, BLOCK, 0, 0)
        assert isinstance(copied.error, DeviceError)
        assert fs.getattr(SEQ[2]).size == 2 * BLOCK
        assert mounted.content("seq/2") == mounted.content("seq/0")[: 2 * BLOCK]
        assert fs.getattr(SEQ[1]).size == 0
        assert SEQ[1] in changed
        assert SEQ[0] not in changed
        # Now it is known, and so refused before anything is copied.
        with pytest.raises(NotPermitted):
            fs.copy_ranges(target, None, [GOOD, (SEQ[1], 0, BLOCK)])
        assert fs.copy_ranges(target, None, [GOOD]) == RangesCopied(2 * BLOCK, (BLOCK,), None)


def test_a_device_without_room_for_another_active_zone() -> None:
    mounted = Mounted(max_open_zones=1, max_active_zones=1)
    with mounted.fs as fs:
        # seq/1 is the one.
        copied = fs.copy_ranges(mounted.open("seq/2"), None, [GOOD])
        assert copied.completed == (0,)
        assert isinstance(copied.error, ActiveZonesExhausted)
        assert fs.getattr(SEQ[2]).size == 0


def test_reading_a_source_moves_its_access_time(mounted: Mounted) -> None:
    before = {ino: mounted.fs.getattr(ino).atime_ns for ino in (SEQ[0], SEQ[1], CNV[0])}
    mounted.fs.copy_ranges(mounted.open("seq/2"), None, [GOOD, (CNV[0], 0, BLOCK)])
    after = {ino: mounted.fs.getattr(ino).atime_ns for ino in before}
    assert [ino for ino in before if after[ino] > before[ino]] == [SEQ[0], CNV[0]]


OWNER, GROUP, OTHER = Caller(1000, 5), Caller(1001, 100), Caller(1001, 5)


@pytest.mark.parametrize(
    ("mode", "caller", "allowed"),
    [
        (0o640, ROOT, True),
        (0o000, ROOT, True),
        (0o640, OWNER, True),
        (0o640, GROUP, True),
        (0o640, Caller(1001, 5, frozenset({7, 100})), True),
        (0o640, Caller(1001, 5, frozenset({7})), False),
        (0o640, OTHER, False),
        (0o004, OTHER, True),
        (0o004, GROUP, False),
        (0o044, OWNER, False),
        (0o040, GROUP, True),
        (0o733, OWNER, True),
        (0o733, GROUP, False),
        (0o733, OTHER, False),
    ],
)
def test_the_caller_needs_permission_to_read(mounted: Mounted, mode: int, caller: Caller, allowed: bool) -> None:
    fs = mounted.fs
    fs.setattr(SEQ[0], AttributeChanges(mode=mode))
    target = mounted.open("seq/2")
    if allowed:
        assert fs.copy_ranges(target, None, [GOOD], caller).completed == (BLOCK,)
        # The directories on the way count as well, for all but root.
        for directory in (fs.root, fs.resolve("seq")):
            fs.setattr(directory, AttributeChanges(mode=0o444))
            if caller == ROOT:
                assert fs.copy_ranges(target, None, [GOOD], caller).error is None
            else:
                with pytest.raises(AccessDenied):
                    fs.copy_ranges(target, None, [GOOD], caller)
            fs.setattr(directory, AttributeChanges(mode=0o555))
    else:
        before = mounted.state()
        with pytest.raises(AccessDenied):
            fs.copy_ranges(target, None, [(CNV[0], 0, BLOCK), GOOD] if caller == OWNER else [GOOD], caller)
        assert mounted.state() == before


def test_opposite_copies_never_wait_for_each_other(mounted: Mounted) -> None:
    """Many threads, each with several sources in an order of its own, one of them another's destination."""
    fs = mounted.fs
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        target = fs.open(CNV[seed % 2], os.O_RDWR)
        try:
            for _ in range(300):
                inodes = chance.sample([*CNV, SEQ[0], SEQ[1]], 4)
                copied = fs.copy_ranges(target, 8 * BLOCK, [(inode, 0, BLOCK) for inode in inodes])
                assert copied.completed == (BLOCK,) * 4
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures


# Any bytes that a program can hand to the ioctl

interesting = st.sampled_from(
    [0, 1, 2, 511, 512, BLOCK - 1, BLOCK, CAPACITY // 2, CAPACITY, ZONE, 1 << 32, 1 << 63, HUGE]
)
numbers = (
    interesting
    | st.integers(0, NR_ZONES + 3)
    | st.integers(0, 20).map(lambda count: count * BLOCK)
    | st.integers(0, HUGE)
)
plausible = st.tuples(
    st.sampled_from([*CNV, SEQ[0], SEQ[0], SEQ[1]]),
    st.integers(0, 4).map(lambda count: count * BLOCK),
    st.integers(1, 3).map(lambda count: count * BLOCK),
)
destinations = st.sampled_from([HUGE, HUGE, HUGE, 0, 8 * BLOCK, CAPACITY // 2])


@st.composite
def buffers(draw: st.DrawFn) -> bytes:
    """Requests that are well formed, most of them, but for one number, or one cut; and a few that are anything."""
    if not draw(st.integers(0, 9)):
        return draw(st.binary(max_size=300))
    chosen = draw(st.lists(plausible, min_size=1, max_size=5))
    fields = [len(chosen), draw(destinations), draw(numbers), 0]
    for one in chosen:
        fields += [*one, draw(numbers)]
    what = draw(st.integers(0, 9))
    if what < 4:
        fields[draw(st.integers(0, len(fields) - 1))] = draw(numbers)
    data = struct.pack(f"={len(fields)}Q", *fields)
    return data[: draw(st.integers(0, len(data)))] if what == 4 else data


CLEAN = {
    errno.EINVAL,
    errno.ENOENT,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EFBIG,
    errno.EIO,
    errno.EOVERFLOW,
}


@settings(max_examples=2500)
@given(
    buffers(),
    st.sampled_from(["cnv/0", "cnv/1", "seq/1", "seq/2", "seq/3", "seq/0"]),
    st.sampled_from([ROOT, OWNER, GROUP, OTHER]),
    st.none() | st.tuples(st.sampled_from(SEQ[:3]), st.sampled_from([ZoneCondition.OFFLINE, ZoneCondition.READONLY])),
)
@example(struct.pack("=8Q", 1, HUGE, HUGE, 0, SEQ[0], 0, BLOCK, HUGE), "seq/2", OWNER, None)
def test_any_bytes_are_answered_cleanly(
    data: bytes, target: str, caller: Caller, forced: tuple[int, ZoneCondition] | None
) -> None:
    try:
        request = abi.parse_request(data)
    except InvalidRequest:
        event("malformed")
        return
    mounted = Mounted(MountOptions(errors=ErrorsPolicy.REPAIR), max_open_zones=2, max_active_zones=2)
    with mounted.fs as fs:
        handle = fs.open(target, os.O_WRONLY)
        before = fs.getattr(fs.resolve(target)).size
        if forced:
            mounted.device.force_condition(*forced)
        answer = answer_copy(fs, handle, data, request, caller)
        assert len(answer) == len(data)
        assert parse_back(answer) == parse_back(data)
        offset, result, completed = abi.parse_reply(answer, len(request.sources))
        total = sum(completed)
        event(errno.errorcode.get(result, "copied"))
        assert result in CLEAN | {0}
        assert completed == abi.share_out(total, [source.length for source in request.sources])
        if not result:
            assert total == sum(source.length for source in request.sources)
        else:
            assert not total or result == errno.EIO
        after = fs.getattr(fs.resolve(target))
        if target.startswith("seq") and after.mode & 0o200:
            assert after.size == before + total
            assert result or offset == before


def parse_back(data: bytes) -> list[tuple[int, ...]]:
    """The input fields of a request, but for where it goes."""
    return [one[:3] for one in struct.iter_unpack("=4Q", data[32:])] + [struct.unpack_from("=4Q", data)[::3]]


def test_a_handle_for_reading_only_is_the_ioctls_own_error(mounted: Mounted) -> None:
    request = abi.CopyRequest(None, (abi.SourceRange(*GOOD),))
    data = bytes(abi.pack_request(request))
    with pytest.raises(BadHandle):
        answer_copy(mounted.fs, mounted.open("seq/1", os.O_RDONLY), data, request, ROOT)

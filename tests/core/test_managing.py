"""Zone operations on a mounted file system, its numbers, and its notes of refusals."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from zonefs_py.config import FormatOptions, MountOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError, NotAtWritePointer, NotPermitted, ReadOnlyFilesystem, UserError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

BLOCK = 4096
SIZE = 16 * BLOCK
CAPACITY = 12 * BLOCK
GEOMETRY = Geometry(SIZE, CAPACITY, 8, 2, BLOCK, SIZE)
"""cnv/0 is zone 1, seq/0 zone 2."""
SEQ = 2
FLAGS = os.O_RDWR | os.O_DIRECT


def mounted(options: MountOptions = MountOptions(), aggregate: bool = False) -> Filesystem:  # noqa: B008  (frozen)
    device = MemoryDevice(GEOMETRY, max_open_zones=3, max_active_zones=4)
    format_device(device, FormatOptions(aggregate_conventional=aggregate))
    fs = Filesystem(FaultDevice.over(device), options)
    # The types: a list of the tests' own, kept where it is at hand.
    fs.changed = []  # type: ignore[attr-defined]
    fs.on_change = fs.changed.append  # type: ignore[attr-defined]
    return fs


def condition(fs: Filesystem, zone: int = SEQ) -> ZoneCondition:
    return fs.device.report_zones(zone, 1)[0].condition


def check(fs: Filesystem) -> None:
    """What the file system counts is what is there, and files are as their zones."""
    files = [fs.getattr(fs.resolve(f"seq/{index}")) for index in range(6)]
    zones = fs.device.report_zones(SEQ)
    assert [file.size for file in files] == [zone.data_size for zone in zones]
    assert fs.used == sum(file.size for file in files) + fs.getattr(1).size
    active = {ZoneCondition.IMP_OPEN, ZoneCondition.EXP_OPEN, ZoneCondition.CLOSED}
    assert fs.counters.nr_active_seq_files == sum(zone.condition in active for zone in zones)


def test_zones_are_managed_and_files_follow() -> None:
    fs = mounted()
    handle = fs.open("seq/0", FLAGS)
    fs.write(handle, 0, bytes(2 * BLOCK))
    steps = [
        (ZoneOp.CLOSE, 2 * BLOCK, ZoneCondition.CLOSED),
        (ZoneOp.OPEN, 2 * BLOCK, ZoneCondition.EXP_OPEN),
        (ZoneOp.FINISH, CAPACITY, ZoneCondition.FULL),
        (ZoneOp.RESET, 0, ZoneCondition.EMPTY),
        (ZoneOp.RESET, 0, ZoneCondition.EMPTY),
        (ZoneOp.OPEN, 0, ZoneCondition.EXP_OPEN),
        (ZoneOp.CLOSE, 0, ZoneCondition.EMPTY),
        (ZoneOp.FINISH, CAPACITY, ZoneCondition.FULL),
    ]
    for number, (op, size, expected) in enumerate(steps, start=1):
        fs.manage_zone(op, SEQ)
        assert (fs.getattr(SEQ).size, condition(fs)) == (size, expected)
        assert fs.changed == [SEQ] * number  # type: ignore[attr-defined]
        check(fs)
    fs.manage_zone(ZoneOp.RESET, SEQ)
    # The handle that was open all the time goes on at the new write pointer.
    assert fs.write(handle, 0, bytes(BLOCK)) == BLOCK
    fs.release(handle)
    check(fs)
    fs.close()


def test_a_zone_that_was_opened_is_closed_with_its_last_writer() -> None:
    fs = mounted()
    fs.manage_zone(ZoneOp.OPEN, SEQ)
    handle = fs.open("seq/0", FLAGS)
    fs.write(handle, 0, bytes(BLOCK))
    assert condition(fs) is ZoneCondition.EXP_OPEN
    fs.release(handle)
    assert condition(fs) is ZoneCondition.CLOSED
    check(fs)


def test_with_explicit_open_a_reset_zone_is_open_for_its_writer() -> None:
    fs = mounted(MountOptions(explicit_open=True))
    handle = fs.open("seq/0", FLAGS)
    fs.write(handle, 0, bytes(BLOCK))
    fs.manage_zone(ZoneOp.RESET, SEQ)
    assert condition(fs) is ZoneCondition.EXP_OPEN
    check(fs)
    fs.release(handle)
    assert condition(fs) is ZoneCondition.EMPTY
    check(fs)


def refused(fs: Filesystem, op: ZoneOp, zone: int, kind: type[Exception], words: str) -> None:
    before = (fs.device.report_zones(), [fs.getattr(ino) for ino in range(1, 8)], fs.counters)
    with pytest.raises(kind, match=words):
        fs.manage_zone(op, zone)
    assert (fs.device.report_zones(), [fs.getattr(ino) for ino in range(1, 8)], fs.counters) == before
    assert fs.changed == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("op", list(ZoneOp))
def test_refusals_change_nothing(op: ZoneOp) -> None:
    fs = mounted()
    refused(fs, op, -1, UserError, "there is no zone -1")
    refused(fs, op, 8, UserError, "the device has zones 0 to 7")
    refused(fs, op, 0, UserError, "superblock")
    refused(fs, op, 1, UserError, "zone 1 is conventional")
    fs.device.force_condition(4, ZoneCondition.READONLY)
    handle = fs.open("seq/2", FLAGS)
    with pytest.raises(DeviceError):
        fs.write(handle, 0, bytes(BLOCK))
    fs.release(handle)
    fs.changed.clear()  # type: ignore[attr-defined]
    fs.remount(MountOptions())
    refused(fs, op, 4, NotPermitted, "seq/2: the zone cannot be written")
    assert isinstance(fs.device, FaultDevice)
    fs.device.add_rule(FaultRule(Operation.ANY, Effect.FAIL, (3, 3), first=2, count=None))
    with pytest.raises(DeviceError):
        fs.manage_zone(op, 3)
    fs.device.remove_rules()
    check_only = fs.getattr(3)
    assert check_only.size == 0
    fs.remount(MountOptions(read_only=True))
    refused(fs, op, 3, ReadOnlyFilesystem, "read-only")


def test_conventional_zones_that_are_one_file() -> None:
    fs = mounted(aggregate=True)
    with pytest.raises(UserError, match="zone 1 is conventional"):
        fs.manage_zone(ZoneOp.RESET, 1)


def test_numbers() -> None:
    fs = mounted()
    handle = fs.open("seq/0", FLAGS)
    fs.write(handle, 0, bytes(3 * BLOCK))
    fs.read(handle, BLOCK, BLOCK)
    fs.read(handle, 3 * BLOCK, BLOCK)  # at the end: nothing is read
    fs.read_now(handle, 0, memoryview(bytearray(2 * BLOCK)))
    fs.fsync(handle)
    with pytest.raises(NotAtWritePointer):
        fs.write(handle, 0, bytes(BLOCK))
    fs.truncate("seq/0", 0)
    fs.truncate("seq/0", 0)  # which is nothing to do
    fs.truncate("seq/1", CAPACITY)
    fs.manage_zone(ZoneOp.RESET, SEQ + 1)
    assert fs.activity == (2, 3 * BLOCK, 1, 3 * BLOCK, 1, 2, 1)
    assert fs.nr_handles == 1
    fs.release(handle)
    assert fs.nr_handles == 0


def test_a_refusal_is_noted_with_the_state_of_the_file() -> None:
    fs = mounted()
    handle = fs.open("seq/0", FLAGS)
    fs.write(handle, 0, bytes(BLOCK))
    note = fs.note_refusal("write", NotAtWritePointer("x"), SEQ, 8 * BLOCK, BLOCK, 5, "dd")
    assert (note.file, note.zone, note.size, note.capacity) == ("seq/0", SEQ, BLOCK, CAPACITY)
    assert f"write at offset {BLOCK}" in note.advice
    for inode in (None, fs.root, 4711):
        assert fs.note_refusal("write", NotPermitted("x"), inode).file is None
    assert len(fs.refusals.last()) == 4


def test_a_zone_that_its_own_operation_takes_away(tmp_path: Path) -> None:
    """Who is told that the zone's file must not be read any more can look at the file."""
    create_device(tmp_path / "disk", GEOMETRY)
    with open_device(tmp_path / "disk") as lower:
        format_device(lower, FormatOptions())
    device = FaultDevice.over(open_device(tmp_path / "disk"))
    told: list[int | None] = []
    with Filesystem(device) as fs:
        writer = fs.open("seq/0", FLAGS)
        fs.write(writer, 0, bytes(BLOCK))
        fs.release(writer)
        reader = fs.open("seq/0", os.O_RDONLY)
        descriptor = fs.backing_descriptor(reader)
        assert descriptor is not None
        os.close(descriptor)

        def look(_: int) -> None:
            with contextlib.suppress(DeviceError):
                told.append(fs.backing_descriptor(reader))

        fs.on_withdrawn = look
        device.add_rule(FaultRule(Operation.RESET, Effect.OFFLINE))

        def reset() -> None:
            with contextlib.suppress(DeviceError):
                fs.manage_zone(ZoneOp.RESET, SEQ)

        thread = threading.Thread(target=reset, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "it waits for itself"
        assert condition(fs) is ZoneCondition.OFFLINE
        assert told in ([], [None])
        fs.on_withdrawn = None

"""Copies between files of a file system that lies on a stack: which way they go, and what faults make of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.core.calls import content
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.engine import MAX_PLANS, Engine
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.errors import DeviceError, TableChanged, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneCondition

BLOCK = 4096
ZONE = 64 * 1024
GEOMETRY = Geometry(ZONE, ZONE, 4, 0, BLOCK, ZONE)
CONTENT = b"".join(bytes([number + 1]) * BLOCK for number in range(6))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two devices of four sequential zones: end to end, the first has seq/0 to seq/2, the second seq/3 to seq/6."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        create_device(path, GEOMETRY)
    return paths


def linear_over(parts: list[Path]) -> LinearDevice:
    return LinearDevice([Slice(open_device(path)) for path in parts])


def filled(device: LinearDevice | FaultDevice, *names: str) -> Filesystem:
    """A new file system on *device*, mounted with errors=repair, with `CONTENT` in the files *names*."""
    format_device(device, FormatOptions())
    fs = Filesystem(device, MountOptions(errors=ErrorsPolicy.REPAIR))
    for name in names:
        fs.write(fs.open(name, 2), 0, CONTENT, direct=True)
    return fs


def copy(fs: Filesystem, source: str, destination: str, offset: int = 0, length: int = len(CONTENT)) -> int:
    reader, writer = fs.open(source, 0), fs.open(destination, 1)
    try:
        return fs.copy_range(reader, 0, writer, offset, length)
    finally:
        fs.release(reader)
        fs.release(writer)


def copies(fs: Filesystem) -> dict[Engine, int]:
    """How many copies each engine has made, but for those that made none."""
    return {engine: counters.copies for engine, counters in fs.copy_engine.counters.items() if counters.copies}


@pytest.mark.parametrize(
    ("source", "destination", "offload"),
    [("seq/0", "seq/2", True), ("seq/3", "seq/6", True), ("seq/2", "seq/3", False), ("seq/3", "seq/0", False)],
)
def test_a_copy_within_a_part_is_the_devices_own(
    parts: list[Path], source: str, destination: str, offload: bool
) -> None:
    with filled(linear_over(parts), source) as fs:
        assert copy(fs, source, destination) == len(CONTENT)
        assert content(fs, destination) == CONTENT
        assert (Engine.EMULATE not in copies(fs)) == offload
        assert sum(copies(fs).values()) == 1


class ChangingDevice(LinearDevice):
    """Somebody replaces its table just when a command has been planned, so many times."""

    changes = 0

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        answer = super().can_copy(ranges, method)
        if self.changes:
            self.changes -= 1
            self.replace_table(self.slices)
        return answer


@pytest.mark.parametrize("changes", [1, 2, MAX_PLANS - 1])
def test_a_copy_that_was_planned_for_another_table_is_planned_again(parts: list[Path], changes: int) -> None:
    device = ChangingDevice([Slice(open_device(path)) for path in parts])
    with filled(device, "seq/0") as fs:
        device.changes = changes
        assert copy(fs, "seq/0", "seq/1") == len(CONTENT)
        assert content(fs, "seq/1") == CONTENT
        (counters,) = [counters for counters in fs.copy_engine.counters.values() if counters.copies]
        assert (counters.copies, counters.bytes, counters.errors) == (1, len(CONTENT), 0)


def test_a_table_that_changes_all_the_time_is_an_error_and_no_more(parts: list[Path]) -> None:
    device = ChangingDevice([Slice(open_device(path)) for path in parts])
    with filled(device, "seq/0") as fs:
        device.changes = MAX_PLANS
        with pytest.raises(TableChanged):
            copy(fs, "seq/0", "seq/1")
        # Nothing was tried, so no zone is looked at and no action taken.
        assert not fs.read_only
        assert content(fs, "seq/1") == b""
        assert Engine.EMULATE not in copies(fs)
        assert copy(fs, "seq/0", "seq/1") == len(CONTENT)


EFFECTS = (Effect.FAIL, Effect.SHORT, Effect.READONLY, Effect.OFFLINE, Effect.EXTERNAL_WRITE, Effect.EXTERNAL_FINISH)


@pytest.mark.parametrize("blocks", [0, 1, 5, 6])
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: effect.value)
@pytest.mark.parametrize("operation", [Operation.COPY, Operation.WRITE], ids=lambda operation: operation.value)
def test_a_fault_in_a_copy_is_never_hidden(
    parts: list[Path], operation: Operation, effect: Effect, blocks: int
) -> None:
    # seq/2 and seq/3 are zones 3 and 4, on both sides of the seam: that copy is emulated, so that writes are struck.
    source, destination, zone = ("seq/0", "seq/1", 2) if operation is Operation.COPY else ("seq/2", "seq/3", 4)
    device = FaultDevice(linear_over(parts))
    with filled(device, source) as fs:
        more: dict[str, Any] = {"length": BLOCK} if effect is Effect.EXTERNAL_WRITE else {}
        device.add_rule(FaultRule(operation, effect, (zone, zone), after=blocks * BLOCK, **more))
        try:
            done = copy(fs, source, destination)
        except DeviceError:
            done = 0
        if done == len(CONTENT):
            # It struck behind the last byte: the next write finds out, if there is something to find.
            handle = fs.open(destination, 1)
            with contextlib.suppress(DeviceError):
                fs.write(handle, done, bytes(BLOCK), direct=True)
            fs.release(handle)
        assert [status.fired for status in device.rules] == [1]
        assert len(copies(fs)) == 1
        entry = device.report_zones(zone, 1)[0]
        size = fs.getattr(fs.resolve(destination)).size
        on_media = device.read(entry.start, ZONE) if entry.condition is not ZoneCondition.OFFLINE else b""
        if on_media:
            # What was said to be copied is there, and the file is as long as the zone says.
            assert on_media[:done] == CONTENT[:done]
            assert entry.data_size in (None, size)
            assert size >= done
        else:
            assert size == 0
        # The next copy works, or is refused in a clean way.
        try:
            again = copy(fs, source, destination, size)
        except ZonefsError as exc:
            assert exc.errno_name in ("EPERM", "EIO", "EFBIG")  # noqa: PT017  (it need not fail)
            assert entry.condition in (ZoneCondition.READONLY, ZoneCondition.OFFLINE, ZoneCondition.FULL)
        else:
            assert content(fs, destination)[size:] == CONTENT[:again]

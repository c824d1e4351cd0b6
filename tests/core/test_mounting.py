"""Mounting, unmounting and remounting, on a device in memory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.calls import size_of
from tests.core.filesystems import (
    BLOCK,
    BLOCKS,
    CAPACITY,
    DIRECT,
    FIRST,
    GEOMETRY,
    ZONE_SIZE,
    check_invariants,
    fill,
    new_device,
    options,
    pattern,
)
from tests.device.failing import Call, FailingDevice, Rule
from zonefs_py.config import FormatOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import (
    BadHandle,
    DeviceError,
    DeviceReadOnly,
    FilesystemBusy,
    ReadOnlyFilesystem,
    SuperblockError,
    TooManyWriteOpenFiles,
)
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp


class TestMounting:
    def test_what_is_no_zonefs_leaves_the_device_with_its_owner(self) -> None:
        device = FailingDevice(MemoryDevice(GEOMETRY))
        with pytest.raises(SuperblockError):
            Filesystem(device)
        assert not device.closed

    @pytest.mark.parametrize("call", ["read", "report"])
    def test_a_device_that_fails_at_once_too(self, call: Call) -> None:
        device = FailingDevice(new_device(), Rule(call))
        with pytest.raises(DeviceError):
            Filesystem(device)
        assert not device.closed
        Filesystem(device).close()
        assert device.closed

    def test_open_zones_are_closed(self) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 1)
            fill(fs, "seq/1", 1)
            fill(fs, "seq/3", BLOCKS)
        device.zone_mgmt(ZoneOp.OPEN, FIRST + 1)
        device.zone_mgmt(ZoneOp.OPEN, FIRST + 2)
        assert device.nr_open_zones == 3
        with Filesystem(device) as fs:
            assert device.nr_open_zones == 0
            names = [zone.condition.name for zone, _ in fs.report()][FIRST : FIRST + 4]
            assert names == ["CLOSED", "CLOSED", "EMPTY", "FULL"]
            assert fs.counters.nr_active_seq_files == 2
            check_invariants(fs)

    def test_moved_zones_are_taken_as_they_are(self) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            for index in range(3):
                fill(fs, f"seq/{index}", 2)
        device.write(FIRST * ZONE_SIZE + 2 * BLOCK, bytes(BLOCK))
        device.zone_mgmt(ZoneOp.RESET, FIRST + 1)
        device.zone_mgmt(ZoneOp.FINISH, FIRST + 2)
        with Filesystem(device) as fs:
            assert [size_of(fs, f"seq/{index}") for index in range(3)] == [3 * BLOCK, 0, CAPACITY]
            check_invariants(fs)

    @pytest.mark.parametrize("explicit_open", [False, True])
    def test_unmounting_lets_go_of_everything(self, explicit_open: bool) -> None:
        inner = new_device(4, 6)
        device = FailingDevice(inner)
        fs = Filesystem(device, options(explicit_open=explicit_open))
        written = fs.open("seq/0", DIRECT)
        fs.write(written, 0, pattern(0, BLOCK))
        fs.open("seq/1", DIRECT)
        reader = fs.open("seq/0", os.O_RDONLY)
        fs.close()
        assert device.closed
        assert device.flushed[-1] is None
        conditions = [zone.condition.name for zone in inner.report_zones(FIRST, 2)]
        assert conditions == (["CLOSED", "EMPTY"] if explicit_open else ["IMP_OPEN", "EMPTY"])
        flushes = len(device.flushed)
        fs.close()
        assert len(device.flushed) == flushes
        for call in (
            lambda: fs.write(written, BLOCK, bytes(BLOCK)),
            lambda: fs.read(reader, 0, BLOCK),
            lambda: fs.fsync(written),
            lambda: fs.release(reader),
        ):
            with pytest.raises(BadHandle):
                call()

    def test_a_closed_file_system_does_nothing_to_who_has_its_descriptors_next(self, tmp_path: Path) -> None:
        for name in ("first", "second"):
            create_device(tmp_path / name, Geometry(16 * BLOCK, 16 * BLOCK, 8, 2, BLOCK, 16 * BLOCK))
            with open_device(tmp_path / name) as device:
                format_device(device, FormatOptions())
        first = Filesystem(open_device(tmp_path / "first"))
        first_device = first.device
        first.close()
        with Filesystem(open_device(tmp_path / "second")) as second:
            handle = second.open("seq/1", DIRECT)
            second.write(handle, 0, pattern(0, BLOCK))
            for call in (
                lambda: first.truncate("seq/1", 0),
                lambda: first.open("cnv/0", os.O_RDWR),
                lambda: first.getattr(first.resolve("seq/1")),
                lambda: first.manage_zone(ZoneOp.RESET, 3),
                first.sync,
            ):
                with pytest.raises(BadHandle):
                    call()
            with pytest.raises(DeviceError):
                first_device.zone_mgmt(ZoneOp.FINISH, 3)
            with pytest.raises(DeviceError):
                first_device.write(16 * BLOCK, bytes(BLOCK))
            assert second.read(handle, 0, BLOCK) == pattern(0, BLOCK)

    def test_unmounting_a_device_that_cannot_flush_says_so(self) -> None:
        device = FailingDevice(new_device(), Rule("flush"))
        fs = Filesystem(device)
        with pytest.raises(DeviceError):
            fs.close()
        assert device.closed
        fs.close()

    def test_as_a_context_manager(self) -> None:
        device = FailingDevice(new_device())
        with Filesystem(device) as fs:
            fs.open("seq/0", DIRECT)
        assert device.closed
        device.closed = False
        with pytest.raises(ZeroDivisionError), Filesystem(device):
            _ = 1 // 0
        assert device.closed

    @pytest.mark.parametrize("handle", [0, -1, 99, 1 << 62])
    def test_handles_that_nobody_has(self, handle: int) -> None:
        with Filesystem(new_device()) as fs:
            for call in (
                lambda: fs.read(handle, 0, 1),
                lambda: fs.write(handle, 0, b""),
                lambda: fs.fsync(handle),
                lambda: fs.release(handle),
            ):
                with pytest.raises(BadHandle):
                    call()

    def test_handles_are_not_reused(self) -> None:
        with Filesystem(new_device()) as fs:
            first = fs.open("seq/0", DIRECT)
            fs.release(first)
            with pytest.raises(BadHandle):
                fs.release(first)
            assert fs.open("seq/0", DIRECT) != first
            assert fs.counters.nr_wro_seq_files == 1


class TestRemount:
    def test_to_read_only_and_back(self) -> None:
        with Filesystem(new_device()) as fs:
            fill(fs, "seq/0", 1)
            reader = fs.open("seq/0", os.O_RDONLY)
            writer = fs.open("seq/0", DIRECT)
            conventional = fs.open("cnv/0", os.O_WRONLY)
            for still_open in (writer, conventional):
                with pytest.raises(FilesystemBusy):
                    fs.remount(options("repair", read_only=True))
                assert fs.options == options()
                assert not fs.read_only
                fs.release(still_open)
            fs.remount(options("repair", read_only=True))
            assert fs.read_only
            assert fs.options == options("repair", read_only=True)
            for refused in (
                lambda: fs.open("seq/0", DIRECT),
                lambda: fs.open("cnv/0", os.O_WRONLY),
                lambda: fs.open("seq/0", os.O_RDONLY | os.O_TRUNC),
                lambda: fs.truncate("seq/0", 0),
                lambda: fs.setattr("seq/0", AttributeChanges(mode=0o600)),
                lambda: fs.setattr("seq/0", AttributeChanges(uid=1)),
                lambda: fs.setattr("seq/0", AttributeChanges(mtime_ns=1)),
                lambda: fs.refuse_remove(fs.resolve("seq"), b"0"),
            ):
                with pytest.raises(ReadOnlyFilesystem):
                    refused()
            assert fs.read(reader, 0, BLOCK) == pattern(0, BLOCK)
            fs.remount(options("zone-ro"))
            fill(fs, "seq/0", 1)
            check_invariants(fs)

    def test_options_of_the_next_error_and_the_next_open(self) -> None:
        device = FailingDevice(new_device(2, 4))
        with Filesystem(device) as fs:
            before = fs.open("seq/0", DIRECT)
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EMPTY
            fs.remount(options("repair", explicit_open=True))
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EMPTY
            other = fs.open("seq/1", DIRECT)
            assert device.report_zones(FIRST + 1, 1)[0].condition is ZoneCondition.EXP_OPEN
            with pytest.raises(TooManyWriteOpenFiles):
                fs.open("seq/2", DIRECT)
            fs.remount(options("repair"))
            third = fs.open("seq/2", DIRECT)
            device.rules.append(Rule("write"))
            with pytest.raises(DeviceError):
                fs.write(third, 0, pattern(0, BLOCK))
            assert not fs.read_only
            for handle in (before, other, third):
                fs.release(handle)
            check_invariants(fs)

    def test_a_mount_of_a_device_without_limits_ignores_explicit_open_but_a_remount_does_not(self) -> None:
        device = new_device()
        with Filesystem(device, options(explicit_open=True)) as fs:
            assert not fs.options.explicit_open
            fs.remount(options("repair", explicit_open=True))
            assert fs.options == options("repair", explicit_open=True)
            handles = [fs.open(f"seq/{index}", DIRECT) for index in range(3)]
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EXP_OPEN
            assert fs.counters.nr_active_seq_files == 3
            for handle in handles:
                fs.release(handle)
            assert device.report_zones(FIRST, 1)[0].condition is ZoneCondition.EMPTY
            check_invariants(fs)

    def test_after_an_error(self) -> None:
        device = FailingDevice(new_device(), Rule("write"))
        with Filesystem(device) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.read_only
            with pytest.raises(ReadOnlyFilesystem):
                fs.write(handle, 0, pattern(0, BLOCK))
            fs.remount(options())
            assert fs.write(handle, 0, pattern(0, BLOCK)) == BLOCK
            fs.release(handle)
            check_invariants(fs)

    def test_a_read_only_device_stays_read_only(self) -> None:
        class ReadOnly(FailingDevice):
            """Says that it is read-only."""

            @property
            def info(self) -> Any:

                return replace(super().info, read_only=True)

        with Filesystem(ReadOnly(new_device()), options(read_only=True)) as fs:
            with pytest.raises(DeviceReadOnly):
                fs.remount(options())
            fs.remount(options("repair", read_only=True))
            assert fs.read_only

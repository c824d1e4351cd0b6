"""A file system on a device in memory: times, who is told of changes, and the files that zones are in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.calls import size_of
from tests.core.filesystems import (
    BLOCK,
    CAPACITY,
    DIRECT,
    FIRST,
    GEOMETRY,
    ZONE_SIZE,
    announced,
    fill,
    new_device,
    options,
    pattern,
)
from tests.device.failing import FailingDevice, Rule
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import DeviceError, NotPermitted, ZonefsError
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import ZoneCondition, ZoneOp


class TestTimes:
    """Nanoseconds of a clock that goes on by one a look."""

    @pytest.fixture
    def fs(self) -> Iterator[Filesystem]:
        clock = iter(range(1_000, 2_000))
        with Filesystem(new_device(), clock=lambda: next(clock)) as fs:
            fs.setattr("seq/0", AttributeChanges(atime_ns=1, mtime_ns=2))
            yield fs

    @staticmethod
    def times(fs: Filesystem, name: str) -> tuple[int, int, int]:
        status = fs.getattr(fs.resolve(name))
        return status.atime_ns, status.mtime_ns, status.ctime_ns

    @pytest.mark.parametrize("size", [0, CAPACITY])
    def test_truncating_by_name_moves_none(self, fs: Filesystem, size: int) -> None:
        before = self.times(fs, "seq/0")
        fs.truncate("seq/0", size)
        assert self.times(fs, "seq/0") == before

    @pytest.mark.parametrize("size", [0, CAPACITY])
    def test_truncating_by_handle_moves_two(self, fs: Filesystem, size: int) -> None:
        handle = fs.open("seq/0", DIRECT)
        before = self.times(fs, "seq/0")
        fs.setattr("seq/0", AttributeChanges(size=size), handle=handle)
        after = self.times(fs, "seq/0")
        assert after[0] == before[0]
        assert after[1] == after[2] > before[2]

    def test_a_refused_truncation_moves_none(self, fs: Filesystem) -> None:
        handle = fs.open("seq/0", DIRECT)
        before = self.times(fs, "seq/0")
        with pytest.raises(NotPermitted):
            fs.setattr("seq/0", AttributeChanges(size=1), handle=handle)
        assert self.times(fs, "seq/0") == before

    def test_a_truncating_open_moves_two(self, fs: Filesystem) -> None:
        before = self.times(fs, "seq/0")
        fs.release(fs.open("seq/0", os.O_RDONLY))
        assert self.times(fs, "seq/0") == before
        fs.release(fs.open("seq/0", os.O_RDONLY | os.O_TRUNC))
        after = self.times(fs, "seq/0")
        assert after[0] == before[0]
        assert after[1] == after[2] > before[2]

    def test_listing_moves_the_access_time_of_a_directory(self, fs: Filesystem) -> None:
        seq = fs.resolve("seq")
        before = self.times(fs, "seq")
        fs.readdir(seq)
        after = self.times(fs, "seq")
        assert after[0] > before[0]
        assert after[1:] == before[1:]
        fs.readdir(seq)
        assert self.times(fs, "seq") == after, "relatime: it is later than the others"

    def test_listing_a_read_only_file_system_moves_none(self, fs: Filesystem) -> None:
        before = self.times(fs, "seq")
        fs.remount(options(read_only=True))
        fs.readdir(fs.resolve("seq"))
        assert self.times(fs, "seq") == before


class TestAnnouncements:
    def test_a_failed_write_is_announced(self) -> None:
        device = FailingDevice(new_device(), Rule("write", blocks=1))
        with Filesystem(device, options("repair")) as fs:
            seen = announced(fs)
            handle = fs.open("seq/2", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, 2 * BLOCK))
            assert seen == [FIRST + 2]
            assert size_of(fs, "seq/2") == BLOCK

    def test_what_changes_nothing_is_not(self) -> None:
        device = FailingDevice(new_device(), Rule("read", FIRST), Rule(ZoneOp.RESET), Rule("read", 1), Rule("write", 1))
        with Filesystem(device, options("repair")) as fs:
            fill(fs, "seq/0", 2)
            seen = announced(fs)
            handle = fs.open("seq/0", DIRECT)
            conventional = fs.open("cnv/0", os.O_RDWR)
            for call in (
                lambda: fs.read(handle, 0, BLOCK),
                lambda: fs.truncate("seq/0", 0),
                lambda: fs.read(conventional, 0, BLOCK),
                lambda: fs.write(conventional, 0, bytes(BLOCK)),
                lambda: fs.write(handle, 0, bytes(BLOCK)),
            ):
                with pytest.raises(ZonefsError):
                    call()
            fs.write(handle, 2 * BLOCK, bytes(BLOCK))
            assert seen == []

    def test_an_offline_zone_is_announced_by_the_read_that_finds_it(self) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 2)
            seen = announced(fs)
            device.force_condition(FIRST, ZoneCondition.OFFLINE)
            handle = fs.open("seq/0", os.O_RDONLY)
            with pytest.raises(DeviceError):
                fs.read(handle, 0, BLOCK)
            assert seen == [FIRST]

    def test_a_failed_flush_and_a_failed_close_are_announced(self) -> None:
        inner = new_device(4, 4)
        device = FailingDevice(inner, Rule("flush", FIRST))
        with Filesystem(device, options("zone-ro", explicit_open=True)) as fs:
            seen = announced(fs)
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            with pytest.raises(DeviceError):
                fs.fsync(handle)
            assert seen == [FIRST]
            other = fs.open("seq/1", DIRECT)
            fs.write(other, 0, pattern(0, BLOCK))
            inner.force_condition(FIRST + 1, ZoneCondition.READONLY)
            fs.release(other)
            assert seen == [FIRST, FIRST + 1]


class TestBackingFiles:
    """What may be read in place of an open file, and until when."""

    @staticmethod
    def content(fs: Filesystem, handle: int) -> bytes | None:
        descriptor = fs.backing_descriptor(handle)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, 2 * ZONE_SIZE, 0)
        finally:
            os.close(descriptor)

    def test_they_are_what_read_gives(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", GEOMETRY)
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions())
        with Filesystem(open_device(tmp_path / "disk")) as fs:
            handle, conventional = fs.open("seq/0", DIRECT), fs.open("cnv/0", os.O_RDWR)
            assert self.content(fs, handle) == b""
            fs.write(handle, 0, pattern(0, 3 * BLOCK))
            fs.write(conventional, 5, b"some bytes")
            assert self.content(fs, handle) == fs.read(handle, 0, ZONE_SIZE) == pattern(0, 3 * BLOCK)
            assert self.content(fs, conventional) == fs.read(conventional, 0, ZONE_SIZE)
            fs.truncate("seq/0", CAPACITY)
            assert self.content(fs, handle) == fs.read(handle, 0, ZONE_SIZE)
            fs.truncate("seq/0", 0)
            assert self.content(fs, handle) == b""

    def test_not_of_a_zone_that_somebody_else_has_written(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", GEOMETRY)
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions())
        with Filesystem(open_device(tmp_path / "disk")) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            with (tmp_path / "disk" / f"seq-{FIRST:06d}").open("ab") as file:
                file.write(bytes(BLOCK))
            assert self.content(fs, handle) is None, "the file is shown with another size"

    def test_not_of_an_offline_zone_and_that_is_told(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", GEOMETRY)
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions())
        withdrawn: list[int] = []
        with Filesystem(open_device(tmp_path / "disk"), MountOptions(errors=ErrorsPolicy.REPAIR)) as fs:
            fs.on_withdrawn = withdrawn.append
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            fs.device.force_condition(FIRST, ZoneCondition.READONLY)
            assert withdrawn == []
            assert self.content(fs, handle) == pattern(0, BLOCK)
            # Zone 0 has no file.
            fs.device.force_conditions([0, FIRST], ZoneCondition.OFFLINE)
            assert withdrawn == [FIRST]
            assert self.content(fs, handle) is None
            with pytest.raises(DeviceError):
                fs.read(handle, 0, BLOCK)
            fs.device.force_conditions([0, FIRST], None)
            assert self.content(fs, handle) is None, "the file itself was taken offline"

    def test_not_of_a_device_without_files_or_a_file_of_several_zones(self, tmp_path: Path) -> None:
        create_device(tmp_path / "disk", replace(GEOMETRY, nr_conventional=4))
        with open_device(tmp_path / "disk") as device:
            format_device(device, FormatOptions(aggregate_conventional=True))
        with Filesystem(open_device(tmp_path / "disk")) as fs:
            assert fs.backing_descriptor(fs.open("cnv/0", os.O_RDONLY)) is None
            assert self.content(fs, fs.open("seq/0", os.O_RDONLY)) == b""
        with Filesystem(new_device()) as fs:
            assert fs.backing_descriptor(fs.open("seq/0", os.O_RDONLY)) is None

    def test_counting_a_read_moves_the_access_time(self) -> None:
        with Filesystem(new_device()) as fs:
            fs.setattr("seq/0", AttributeChanges(atime_ns=5, mtime_ns=10))
            fs.count_as_read(fs.open("seq/0", os.O_RDONLY | os.O_NOATIME))
            assert fs.getattr(fs.resolve("seq/0")).atime_ns == 5
            fs.count_as_read(fs.open("seq/0", os.O_RDONLY))
            assert fs.getattr(fs.resolve("seq/0")).atime_ns > 10

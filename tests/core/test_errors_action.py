"""What errors of the device lead to, by the mount option ``errors=``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import pytest

from tests.core.calls import size_of
from tests.core.filesystems import (
    BLOCK,
    CAPACITY,
    DIRECT,
    FIRST,
    POLICIES,
    ZONE_SIZE,
    check_invariants,
    fill,
    mode_of,
    new_device,
    options,
    pattern,
)
from tests.device.failing import FailingDevice, Rule
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import (
    ActiveZonesExhausted,
    DeviceError,
    HostFull,
    MediumFailed,
    NotPermitted,
    ReadOnlyFilesystem,
)
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.zone import ZoneCondition, ZoneOp


def check_degraded(fs: Filesystem, handle: int, policy: str, size: int) -> None:
    """Check what is left of seq/0 (mode 0640, *handle* is open for both) of *size* bytes when *policy* was applied."""
    expected_mode = {"zone-ro": 0o440, "zone-offline": 0}.get(policy, 0o640)
    assert mode_of(fs, "seq/0") == expected_mode
    assert fs.read_only == (policy == "remount-ro")
    assert size_of(fs, "seq/0") == (0 if policy == "zone-offline" else size)
    if policy == "repair":
        assert fs.write(handle, size, pattern(size, BLOCK)) == BLOCK
    else:
        refusal = ReadOnlyFilesystem if policy == "remount-ro" else NotPermitted
        for refused in (
            lambda: fs.write(handle, size, pattern(size, BLOCK)),
            lambda: fs.open("seq/0", DIRECT),
            lambda: fs.open("seq/0", os.O_RDONLY | os.O_TRUNC),
            lambda: fs.truncate("seq/0", 0),
            lambda: fs.setattr("seq/0", AttributeChanges(mode=0o600)),
        ):
            with pytest.raises(refusal):
                refused()
    reader = fs.open("seq/0", os.O_RDONLY)
    for one in (handle, reader):
        if policy == "zone-offline":
            with pytest.raises(NotPermitted):
                fs.read(one, 0, BLOCK)
        else:
            assert len(fs.read(one, 0, CAPACITY)) == size_of(fs, "seq/0")
    fs.release(reader)
    if policy != "remount-ro":
        before = size_of(fs, "seq/1")
        fill(fs, "seq/1", 1)
        assert size_of(fs, "seq/1") == before + BLOCK


class TestErrors:
    @pytest.mark.parametrize("size", [0, CAPACITY])
    def test_an_open_handle_truncates_after_an_error_made_everything_read_only(self, size: int) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST))
        with Filesystem(device, options("remount-ro")) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.read_only
            with pytest.raises(ReadOnlyFilesystem):
                fs.truncate("seq/0", size)
            fs.setattr("seq/0", AttributeChanges(size=size), handle=handle)
            assert size_of(fs, "seq/0") == size
            fs.release(handle)
            check_invariants(fs)

    @pytest.mark.parametrize("policy", ["zone-ro", "zone-offline"])
    def test_a_file_that_an_error_closed_is_not_synchronised(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST))
        with Filesystem(device, options(policy)) as fs:
            handle, reader, other = fs.open("seq/0", DIRECT), fs.open("seq/0", os.O_RDONLY), fs.open("seq/1", DIRECT)
            fs.fsync(handle)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            for one in (handle, reader):
                with pytest.raises(NotPermitted):
                    fs.fsync(one)
            fs.fsync(other)

    @pytest.mark.parametrize("blocks", [0, 1, 3])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_write_that_fails(self, policy: str, blocks: int) -> None:
        inner = new_device()
        device = FailingDevice(inner, Rule("write", FIRST, skip=1, blocks=blocks))
        fs = Filesystem(device, options(policy))
        fill(fs, "seq/0", 1)
        handle = fs.open("seq/0", DIRECT)
        with pytest.raises(DeviceError) as raised:
            fs.write(handle, BLOCK, pattern(BLOCK, 4 * BLOCK))
        assert raised.value.errno_name == "EIO"
        check_degraded(fs, handle, policy, (1 + blocks) * BLOCK if policy == "repair" else BLOCK)
        fs.release(handle)
        fs.close()
        # Mounted again, the device is what counts.
        with Filesystem(inner, options(policy)) as fs:
            on_device = inner.report_zones()[FIRST].data_size
            assert on_device == (1 + blocks + (policy == "repair")) * BLOCK
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (on_device, 0o640, False)
            handle = fs.open("seq/0", DIRECT)
            assert fs.read(handle, 0, on_device) == pattern(0, on_device)
            fs.release(handle)
            fill(fs, "seq/0", 1)
            check_invariants(fs)

    @pytest.mark.parametrize(
        ("move", "kept", "repaired"),
        [
            (lambda device: device.write(FIRST * ZONE_SIZE + BLOCK, pattern(BLOCK, BLOCK)), BLOCK, 2 * BLOCK),
            (lambda device: device.zone_mgmt(ZoneOp.RESET, FIRST), 0, 0),
        ],
        ids=["written", "reset"],
    )
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_somebody_moved(
        self, policy: str, move: Callable[[MemoryDevice], None], kept: int, repaired: int
    ) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", DIRECT)
            move(device)
            # Nobody notices before a write.
            assert size_of(fs, "seq/0") == BLOCK
            fs.release(fs.open("seq/0", DIRECT))
            with pytest.raises(DeviceError):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            sizes = {"remount-ro": kept, "zone-ro": BLOCK, "repair": repaired}
            check_degraded(fs, handle, policy, sizes.get(policy, 0))

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_somebody_finished(self, policy: str) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", DIRECT)
            device.zone_mgmt(ZoneOp.FINISH, FIRST)
            with pytest.raises(DeviceError):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            expected = {"repair": CAPACITY, "zone-offline": 0}.get(policy, BLOCK)
            assert size_of(fs, "seq/0") == expected
            assert fs.read_only == (policy == "remount-ro")
            assert fs.counters.nr_active_seq_files == (1 if policy == "remount-ro" else 0)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_moved_by_others_is_simply_reset_by_a_truncation(self, policy: str) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            device.write(FIRST * ZONE_SIZE + BLOCK, pattern(BLOCK, BLOCK))
            fs.truncate("seq/0", 0)
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (0, 0o640, False)
            fill(fs, "seq/0", 1)
            check_invariants(fs)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_read_that_fails_changes_nothing(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("read", FIRST), Rule("read", 1), Rule("write", 1))
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 2)
            handle = fs.open("seq/0", DIRECT)
            conventional = fs.open("cnv/0", DIRECT)
            for call in (
                lambda: fs.read(handle, 0, BLOCK),
                lambda: fs.read(conventional, 0, BLOCK),
                lambda: fs.write(conventional, 0, bytes(BLOCK)),
            ):
                with pytest.raises(DeviceError):
                    call()
                assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (2 * BLOCK, 0o640, False)
                assert (size_of(fs, "cnv/0"), mode_of(fs, "cnv/0")) == (ZONE_SIZE, 0o640)
            assert fs.read(handle, 0, 2 * BLOCK) == pattern(0, 2 * BLOCK)
            for one in (handle, conventional):
                fs.release(one)
            check_invariants(fs)

    @pytest.mark.parametrize("name", ["seq/0", "cnv/0"])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_flush_that_fails(self, policy: str, name: str) -> None:
        number = 1 if name == "cnv/0" else FIRST
        device = FailingDevice(new_device(), Rule("flush", number))
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            size = size_of(fs, name)
            handle = fs.open(name, DIRECT)
            with pytest.raises(DeviceError):
                fs.fsync(handle)
            with pytest.raises(NotPermitted) if policy.startswith("zone-") else contextlib.nullcontext():
                fs.fsync(handle)
            assert fs.read_only == (policy == "remount-ro")
            if name == "seq/0":
                check_degraded(fs, handle, policy, size)
            elif policy in ("remount-ro", "repair"):
                assert (size_of(fs, name), mode_of(fs, name)) == (size, 0o640)

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_a_zone_that_breaks(self, policy: str, condition: ZoneCondition) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", DIRECT)
            device.force_condition(FIRST, condition)
            # A truncation fails, and nothing more.
            for size in (0, CAPACITY):
                with pytest.raises(DeviceError):
                    fs.truncate("seq/0", size)
                assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0"), fs.read_only) == (BLOCK, 0o640, False)
            if condition is ZoneCondition.READONLY:
                assert fs.read(handle, 0, BLOCK) == pattern(0, BLOCK)
                assert mode_of(fs, "seq/0") == 0o640
            with pytest.raises(DeviceError):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            gone = condition is ZoneCondition.OFFLINE or policy == "zone-offline"
            assert mode_of(fs, "seq/0") == (0 if gone else 0o440)
            assert size_of(fs, "seq/0") == (0 if gone else BLOCK)
            assert fs.read_only == (policy == "remount-ro")
            assert fs.counters.nr_active_seq_files == 0
            with pytest.raises(NotPermitted):
                fs.write(handle, BLOCK, pattern(BLOCK, BLOCK))
            fs.release(handle)
            assert fs.counters.nr_wro_seq_files == 0
            assert fs.statfs().blocks_free == (8 * CAPACITY - (0 if gone else BLOCK)) // BLOCK
        device.force_condition(FIRST, None)
        with Filesystem(device, options(policy)) as fs:
            assert size_of(fs, "seq/0") == BLOCK
            check_invariants(fs)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_read_finds_an_offline_zone(self, policy: str) -> None:
        device = new_device()
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 1)
            handle = fs.open("seq/0", os.O_RDONLY)
            device.force_condition(FIRST, ZoneCondition.OFFLINE)
            with pytest.raises(DeviceError):
                fs.read(handle, 0, 100)
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0")) == (0, 0)
            assert fs.read_only == (policy == "remount-ro")
            with pytest.raises(NotPermitted):
                fs.read(handle, 0, 100)

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_was_broken_before_the_mount(self, policy: str, condition: ZoneCondition) -> None:
        device = new_device()
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 1)
        device.force_condition(FIRST, condition)
        with Filesystem(device, options(policy)) as fs:
            attributes = fs.getattr(fs.resolve("seq/0"))
            assert (attributes.size, attributes.mode & 0o7777) == (0, 0)
            assert attributes.blocks == CAPACITY // 512
            assert not fs.read_only
            statistics = fs.statfs()
            assert statistics.blocks == (ZONE_SIZE + 8 * CAPACITY) // BLOCK
            assert statistics.blocks_free == 8 * CAPACITY // BLOCK
            fill(fs, "seq/1", 1)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_cannot_be_reported_makes_everything_read_only(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST), Rule("report", FIRST))
        with Filesystem(device, options(policy)) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.read_only
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0")) == (0, 0o640)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_full_host_is_a_write_error_with_its_own_errno(self, policy: str) -> None:
        device = FailingDevice(new_device(), Rule("write", FIRST, blocks=2, error=HostFull))
        with Filesystem(device, options(policy)) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(HostFull) as raised:
                fs.write(handle, 0, pattern(0, 4 * BLOCK))
            assert raised.value.errno_name == "ENOSPC"
            check_degraded(fs, handle, policy, 2 * BLOCK if policy == "repair" else 0)

    def test_a_read_past_the_page_cache_has_the_errno_of_the_device_and_another_is_an_io_error(self) -> None:
        device = FailingDevice(new_device(), Rule("read", FIRST, times=3, error=MediumFailed))
        with Filesystem(device) as fs:
            fill(fs, "seq/0", 1)
            with pytest.raises(MediumFailed):
                fs.read(fs.open("seq/0", DIRECT), 0, BLOCK)
            for handle, direct in ((fs.open("seq/0", os.O_RDONLY), None), (fs.open("seq/0", DIRECT), False)):
                with pytest.raises(DeviceError) as raised:
                    fs.read(handle, 0, BLOCK, direct=direct)
                assert raised.value.errno_name == "EIO"
                assert "fails as asked for" in str(raised.value)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_write_beyond_the_active_zones_is_an_error(self, policy: str) -> None:
        with Filesystem(new_device(max_active=2), options(policy)) as fs:
            fill(fs, "seq/2", 1)
            fill(fs, "seq/1", 1)
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(ActiveZonesExhausted) as raised:
                fs.write(handle, 0, pattern(0, BLOCK))
            assert raised.value.errno_name == "EOVERFLOW"
            assert fs.read_only == (policy == "remount-ro")
            assert mode_of(fs, "seq/0") == {"zone-ro": 0o440, "zone-offline": 0}.get(policy, 0o640)
            assert fs.counters.nr_active_seq_files == 2
            if policy == "repair":
                fs.truncate("seq/1", 0)
                assert fs.write(handle, 0, pattern(0, BLOCK)) == BLOCK

    @pytest.mark.parametrize("op", [ZoneOp.RESET, ZoneOp.FINISH])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_truncation_that_fails_changes_nothing(self, policy: str, op: ZoneOp) -> None:
        device = FailingDevice(new_device(), Rule(op, FIRST))
        with Filesystem(device, options(policy)) as fs:
            fill(fs, "seq/0", 2)
            new_size = 0 if op is ZoneOp.RESET else CAPACITY
            changes = AttributeChanges(size=new_size, mode=0o600, uid=5, mtime_ns=1)
            before = fs.getattr(FIRST)
            with pytest.raises(DeviceError):
                fs.setattr("seq/0", changes)
            assert fs.getattr(FIRST) == before
            assert not fs.read_only
            fs.setattr("seq/0", changes)
            assert size_of(fs, "seq/0") == new_size
            check_invariants(fs)

    def test_an_open_that_cannot_truncate_opens_nothing(self) -> None:
        device = FailingDevice(new_device(2, 2), Rule(ZoneOp.RESET, FIRST, times=2))
        with Filesystem(device, options(explicit_open=True)) as fs:
            fill(fs, "seq/0", 2)
            for access in (os.O_RDONLY, os.O_WRONLY):
                with pytest.raises(DeviceError):
                    fs.open("seq/0", access | os.O_TRUNC)
            check_invariants(fs)
            fs.remount(options(read_only=True))

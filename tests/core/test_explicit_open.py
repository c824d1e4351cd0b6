"""The mount option ``explicit-open``: zones that are open while their files are open for writing."""

from __future__ import annotations

import os

import pytest

from tests.core.calls import size_of
from tests.core.filesystems import (
    BLOCK,
    CAPACITY,
    DIRECT,
    FIRST,
    POLICIES,
    check_invariants,
    mode_of,
    new_device,
    options,
    pattern,
)
from tests.device.failing import FailingDevice, Rule
from zonefs_py.errors import DeviceError, OpenZonesExhausted, TooManyWriteOpenFiles
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.zone import ZoneCondition, ZoneOp


class TestExplicitOpen:
    """Errors of the device while zones are opened and closed explicitly."""

    def test_an_open_that_fails_opens_nothing(self) -> None:
        device = FailingDevice(new_device(2, 4), Rule(ZoneOp.OPEN, FIRST))
        with Filesystem(device, options(explicit_open=True)) as fs:
            with pytest.raises(DeviceError):
                fs.open("seq/0", DIRECT)
            assert not fs.read_only
            check_invariants(fs)
            fs.release(fs.open("seq/0", DIRECT))
            fs.remount(options(read_only=True))

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("blocks", [0, 1])
    def test_a_close_that_fails_makes_everything_read_only(self, policy: str, blocks: int) -> None:
        """A zone that stays open would sooner or later leave none to write."""
        inner = new_device(2, 4)
        device = FailingDevice(inner, Rule(ZoneOp.CLOSE if blocks else ZoneOp.RESET, FIRST))
        with Filesystem(device, options(policy, explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            if blocks:
                fs.write(handle, 0, pattern(0, BLOCK))
            fs.release(handle)
            assert fs.read_only
            assert fs.counters.nr_wro_seq_files == 0
            assert (size_of(fs, "seq/0"), mode_of(fs, "seq/0")) == (blocks * BLOCK, 0o640)
            assert inner.report_zones(FIRST, 1)[0].condition is ZoneCondition.EXP_OPEN
            # The way back: remounted, the next writer closes it.
            fs.remount(options(policy, explicit_open=True))
            fs.release(fs.open("seq/0", DIRECT))
            assert not fs.read_only
            check_invariants(fs)

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_that_broke_is_found_when_it_is_closed(self, policy: str, condition: ZoneCondition) -> None:
        device = new_device(2, 4)
        with Filesystem(device, options(policy, explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            device.force_condition(FIRST, condition)
            fs.release(handle)
            gone = condition is ZoneCondition.OFFLINE or policy == "zone-offline"
            assert mode_of(fs, "seq/0") == (0 if gone else 0o440)
            assert fs.read_only == (policy == "remount-ro")
            assert fs.counters.nr_wro_seq_files == fs.counters.nr_active_seq_files == 0

    def test_a_reset_zone_that_cannot_be_opened_again_is_open_implicitly(self) -> None:
        device = FailingDevice(new_device(2, 4), Rule(ZoneOp.OPEN, FIRST, skip=1))
        with Filesystem(device, options(explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            fs.truncate("seq/0", 0)
            assert size_of(fs, "seq/0") == 0
            assert fs.counters.nr_active_seq_files == 0
            fs.write(handle, 0, pattern(0, BLOCK))
            assert fs.counters.nr_active_seq_files == 1
            fs.release(handle)
            assert not fs.read_only
            check_invariants(fs)

    def test_a_failed_write_keeps_the_zone_open_until_it_is_closed(self) -> None:
        inner = new_device(1, 2)
        device = FailingDevice(inner, Rule("write", FIRST, blocks=1))
        with Filesystem(device, options("repair", explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            with pytest.raises(DeviceError):
                fs.write(handle, 0, pattern(0, 2 * BLOCK))
            assert inner.report_zones(FIRST, 1)[0].condition is ZoneCondition.EXP_OPEN
            assert fs.counters.nr_active_seq_files == 1
            fs.release(handle)
            assert inner.report_zones(FIRST, 1)[0].condition is ZoneCondition.CLOSED
            fs.release(fs.open("seq/1", DIRECT))
            check_invariants(fs)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_zone_finished_by_others_is_closed_without_complaint(self, policy: str) -> None:
        """Closing a full zone is refused by the device; that the zone is not open is what counts."""
        device = new_device(2, 4)
        with Filesystem(device, options(policy, explicit_open=True)) as fs:
            handle = fs.open("seq/0", DIRECT)
            fs.write(handle, 0, pattern(0, BLOCK))
            fs.write(handle, BLOCK, pattern(BLOCK, CAPACITY - BLOCK))
            fs.release(handle)
            assert not fs.read_only
            assert size_of(fs, "seq/0") == CAPACITY
            check_invariants(fs)

    def test_limits_are_those_of_the_device(self) -> None:
        device = new_device(1, 2)
        with Filesystem(device, options(explicit_open=True)) as fs:
            first = fs.open("seq/0", DIRECT)
            with pytest.raises(TooManyWriteOpenFiles):
                fs.open("seq/1", os.O_WRONLY | os.O_TRUNC)
            second = fs.open("seq/0", DIRECT)
            fs.release(first)
            with pytest.raises(TooManyWriteOpenFiles):
                fs.open("seq/1", DIRECT)
            with pytest.raises(OpenZonesExhausted):
                fs.truncate("seq/2", CAPACITY)
            fs.release(second)
            fs.truncate("seq/2", CAPACITY)
            fs.release(fs.open("seq/1", DIRECT))
            check_invariants(fs)

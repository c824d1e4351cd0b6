"""Copies between zones that cannot be opened, or are broken: what is copied, and what the mount makes of it."""

from __future__ import annotations

import os

import pytest

from tests.core.calls import content, size_of
from tests.core.copy_files import BLOCK, CAPACITY, FIRST, ZONE_SIZE, MakeDevice, check_books, copy, put
from tests.core.copying import Call, CopyDevice, copy_with_small_buffer, random_bytes, zone_bytes
from zonefs_py.config import ErrorsPolicy, MountOptions
from zonefs_py.errors import ActiveZonesExhausted, DeviceError, NotPermitted, OpenZonesExhausted, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.zone import ZoneCondition, ZoneOp


class TestActiveAndOpenZones:
    """Z14: who is active and open after a copy; the limits hold for copies as for writes."""

    def test_a_zone_that_a_copy_fills_is_no_longer_active(self, make_device: MakeDevice) -> None:
        device = make_device(max_active=1)
        with Filesystem(device) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            assert copy(fs, "cnv/0", 0, "seq/0", 0, CAPACITY - BLOCK) == CAPACITY - BLOCK
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 1
            assert copy(fs, "cnv/0", 0, "seq/0", CAPACITY - BLOCK, ZONE_SIZE) == BLOCK
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 0
            assert copy(fs, "cnv/0", 0, "seq/1", 0, CAPACITY) == CAPACITY
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 0
            assert copy(fs, "cnv/0", 0, "seq/2", 0, BLOCK) == BLOCK
            assert fs.counters.nr_active_seq_files == device.nr_active_zones == 1
            check_books(fs)

    @pytest.mark.parametrize("engine", ["auto", "emulate"])
    @pytest.mark.parametrize("policy", list(ErrorsPolicy))
    def test_no_zone_can_become_active(self, make_device: MakeDevice, engine: str, policy: ErrorsPolicy) -> None:
        """As a write there: EOVERFLOW, and the errors= action for the destination; the source is not touched."""
        device = make_device(max_active=2)
        with Filesystem(device, MountOptions(policy, copy=engine)) as fs:
            put(fs, "seq/0", random_bytes(2 * BLOCK, 1))
            put(fs, "seq/1", random_bytes(BLOCK, 2))
            with pytest.raises(ActiveZonesExhausted) as refused:
                copy(fs, "seq/0", 0, "seq/2", 0, BLOCK)
            assert refused.value.errno_name == "EOVERFLOW"
            assert size_of(fs, "seq/2") == 0
            assert fs.counters.nr_active_seq_files == 2
            assert fs.read_only == (policy is ErrorsPolicy.REMOUNT_RO)
            if policy in (ErrorsPolicy.ZONE_RO, ErrorsPolicy.ZONE_OFFLINE):
                with pytest.raises(NotPermitted):
                    fs.open("seq/2", os.O_WRONLY)
            if policy is not ErrorsPolicy.REMOUNT_RO:
                # Copies to active zones and out of any go on; so does the refused one when there is room.
                assert copy(fs, "seq/0", 0, "seq/1", BLOCK, BLOCK) == BLOCK
                fs.truncate("seq/1", 0)
            if policy is ErrorsPolicy.REPAIR:
                assert copy(fs, "seq/0", 0, "seq/2", 0, BLOCK) == BLOCK
            assert content(fs, "seq/0") == random_bytes(2 * BLOCK, 1)

    def test_no_zone_can_become_open(self, make_device: MakeDevice) -> None:
        device = make_device(max_open=1, max_active=3)
        with Filesystem(device, MountOptions(ErrorsPolicy.REPAIR, explicit_open=True)) as fs:
            handle = fs.open("seq/0", os.O_RDWR | os.O_DIRECT)
            fs.write(handle, 0, random_bytes(BLOCK, 1))
            with pytest.raises(ZonefsError) as refused:
                fs.open("seq/1", os.O_WRONLY)
            assert refused.value.errno_name == "EBUSY"
            assert fs.copy_range(handle, 0, handle, BLOCK, BLOCK) == BLOCK
            device.zone_mgmt(ZoneOp.CLOSE, FIRST)
            device.zone_mgmt(ZoneOp.OPEN, FIRST + 1)
            with pytest.raises(OpenZonesExhausted):
                fs.copy_range(handle, 0, handle, 2 * BLOCK, BLOCK)
            assert size_of(fs, "seq/0") == 2 * BLOCK
            device.zone_mgmt(ZoneOp.RESET, FIRST + 1)
            assert fs.copy_range(handle, 0, handle, 2 * BLOCK, BLOCK) == BLOCK
            fs.release(handle)

    def test_an_implicitly_open_zone_makes_room(self, make_device: MakeDevice) -> None:
        device = make_device(max_open=1)
        with Filesystem(device) as fs:
            put(fs, "seq/0", random_bytes(BLOCK, 1))
            for target in ("seq/1", "seq/2", "seq/3"):
                assert copy(fs, "seq/0", 0, target, 0, BLOCK) == BLOCK
                assert device.nr_open_zones == 1
            conditions = [zone.condition for zone, _ in fs.report()][FIRST : FIRST + 4]
            assert conditions == [ZoneCondition.CLOSED] * 3 + [ZoneCondition.IMP_OPEN]
            check_books(fs)

    def test_explicitly_open_zones(self, make_device: MakeDevice) -> None:
        device = make_device(max_open=2, max_active=3)
        with Filesystem(device, MountOptions(explicit_open=True)) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            reader, writer = fs.open("cnv/0", os.O_RDONLY), fs.open("seq/0", os.O_WRONLY)

            def condition() -> ZoneCondition:
                return device.report_zones(FIRST, 1)[0].condition

            assert condition() is ZoneCondition.EXP_OPEN
            assert fs.counters[1::2] == (1, 1)
            assert fs.copy_range(reader, 0, writer, 0, BLOCK) == BLOCK
            assert condition() is ZoneCondition.EXP_OPEN
            assert fs.copy_range(reader, 0, writer, BLOCK, ZONE_SIZE) == CAPACITY - BLOCK
            assert condition() is ZoneCondition.FULL
            assert fs.counters[1::2] == (1, 0)
            fs.release(writer)
            assert condition() is ZoneCondition.FULL
            assert fs.counters[1::2] == (0, 0)
            writer = fs.open("seq/1", os.O_WRONLY)
            assert fs.copy_range(reader, 0, writer, 0, BLOCK) == BLOCK
            fs.release(writer)
            assert device.report_zones(FIRST + 1, 1)[0].condition is ZoneCondition.CLOSED
            assert fs.counters[1::2] == (0, 1)
            fs.release(reader)
            check_books(fs)


@pytest.mark.parametrize("engine", ["device", "reflink", "host", "emulate"])
class TestBrokenZones:
    """A zone that is read-only or offline, before a copy and during it, on either side."""

    def start(self, device: CopyDevice, engine: str, policy: ErrorsPolicy = ErrorsPolicy.REPAIR) -> Filesystem:
        fs = Filesystem(device, MountOptions(policy, copy=engine))
        copy_with_small_buffer(fs, CAPACITY // 4)
        if engine != "emulate":
            fs.copy_engine.set_limit("copy_max_bytes", CAPACITY // 4)
        return fs

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_the_destination_before(self, make_device: MakeDevice, engine: str, condition: ZoneCondition) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            put(fs, "cnv/0", random_bytes(ZONE_SIZE, 1))
            put(fs, "seq/0", random_bytes(BLOCK, 2))
            device.inner.force_condition(FIRST, condition)
            with pytest.raises(DeviceError):
                copy(fs, "cnv/0", 0, "seq/0", BLOCK, 4 * BLOCK)
            with pytest.raises(NotPermitted):
                fs.open("seq/0", os.O_WRONLY)
            assert size_of(fs, "seq/0") == (BLOCK if condition is ZoneCondition.READONLY else 0)
            assert fs.counters.nr_active_seq_files == 0
            assert zone_bytes(device.inner, FIRST) == random_bytes(BLOCK, 2)

    def test_a_read_only_source(self, make_device: MakeDevice, engine: str) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            put(fs, "seq/0", random_bytes(4 * BLOCK, 2))
            device.inner.force_condition(FIRST, ZoneCondition.READONLY)
            assert copy(fs, "seq/0", 0, "seq/1", 0, 4 * BLOCK) == 4 * BLOCK
            assert content(fs, "seq/1") == random_bytes(4 * BLOCK, 2)

    @pytest.mark.parametrize("policy", list(ErrorsPolicy))
    @pytest.mark.parametrize("source", ["seq/0", "cnv/0"])
    def test_an_offline_source(self, make_device: MakeDevice, engine: str, policy: ErrorsPolicy, source: str) -> None:
        """The destination is not to blame: its zone stays as it is, whatever errors= says."""
        device = CopyDevice(make_device())
        with self.start(device, engine, policy) as fs:
            put(fs, source, random_bytes(4 * BLOCK, 1))
            put(fs, "seq/1", random_bytes(BLOCK, 2))
            reader, writer = fs.open(source, os.O_RDONLY), fs.open("seq/1", os.O_WRONLY)
            device.inner.force_condition(fs.resolve(source), ZoneCondition.OFFLINE)
            with pytest.raises(DeviceError):
                fs.copy_range(reader, 0, writer, BLOCK, 4 * BLOCK)
            assert fs.read_only == (policy is ErrorsPolicy.REMOUNT_RO)
            assert size_of(fs, source) == 0
            with pytest.raises(NotPermitted):
                fs.copy_range(reader, 0, writer, BLOCK, 4 * BLOCK)
            fs.release(reader)
            fs.release(writer)
            assert content(fs, "seq/1") == random_bytes(BLOCK, 2)
            if policy is not ErrorsPolicy.REMOUNT_RO:
                assert copy(fs, "seq/1", 0, "seq/1", BLOCK, BLOCK) == BLOCK

    @pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
    def test_the_destination_in_the_middle(
        self, make_device: MakeDevice, engine: str, condition: ZoneCondition
    ) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            data = random_bytes(ZONE_SIZE, 1)
            put(fs, "cnv/0", data)
            pieces = 0

            def break_zone(call: Call) -> None:
                nonlocal pieces
                pieces += call.kind != "read"
                if pieces == 3:
                    device.inner.force_condition(FIRST, condition)

            device.before = break_zone
            reader, writer = fs.open("cnv/0", os.O_RDONLY), fs.open("seq/0", os.O_WRONLY)
            half = CAPACITY // 2
            assert fs.copy_range(reader, 0, writer, 0, CAPACITY) == half
            with pytest.raises(NotPermitted):
                fs.copy_range(reader, half, writer, half, BLOCK)
            fs.release(reader)
            fs.release(writer)
            device.before = None
            assert size_of(fs, "seq/0") == (half if condition is ZoneCondition.READONLY else 0)
            if condition is ZoneCondition.READONLY:
                assert content(fs, "seq/0") == data[:half]
            assert zone_bytes(device.inner, FIRST) == data[:half]

    def test_the_source_in_the_middle(self, make_device: MakeDevice, engine: str) -> None:
        device = CopyDevice(make_device())
        with self.start(device, engine) as fs:
            data = random_bytes(CAPACITY, 1)
            put(fs, "seq/0", data)
            calls = 0

            def break_zone(call: Call) -> None:
                nonlocal calls
                calls += call.kind != "write"
                if calls == 3:
                    device.inner.force_condition(FIRST, ZoneCondition.OFFLINE)

            device.before = break_zone
            assert copy(fs, "seq/0", 0, "seq/1", 0, CAPACITY) == CAPACITY // 2
            device.before = None
            assert size_of(fs, "seq/0") == 0
            assert content(fs, "seq/1") == data[: CAPACITY // 2]
            assert copy(fs, "seq/1", 0, "seq/1", CAPACITY // 2, BLOCK) == BLOCK

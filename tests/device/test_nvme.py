"""A device that copies by NVMe's Copy: how commands end, where they leave the zone, and the write that comes after."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.nvme import NvmeDevice, check_permission, read_support, with_copies, with_namespace
from zonefs_py.device.nvme_copy import (
    CNS_CONTROLLER,
    CNS_NAMESPACE,
    CNS_NAMESPACE_OF_COMMAND_SET,
    Controller,
    Namespace,
    NoCopy,
    NvmeCommand,
    pack_controller,
    pack_namespace,
)
from zonefs_py.device.nvme_status import STATUS_RULES, Completion, copied_ranges
from zonefs_py.device.nvme_target import TargetLimits, model_device
from zonefs_py.errors import DeviceError, HostFull, TableChanged
from zonefs_py.zone import CopyMethod, CopyRange, DeviceInfo, Geometry, ZoneCondition, ZoneOp

from .conformance import pattern, zone_of
from .failing import FailingDevice, Rule
from .nvme_helpers import PluggedDevice, ScriptedNamespace

BLOCK = 4096
ZONE = 16 * BLOCK
CAPACITY = 12 * BLOCK
GEOMETRY = Geometry(ZONE, CAPACITY, 8, 1, BLOCK, ZONE)
LIMITS = TargetLimits(mssrl=6, mcl=10, msrc=3)
DEVICE = CopyMethod.DEVICE
LENGTHS = (2, 3, 1)
"""Blocks of the ranges of `three_ranges`."""


class Setup:
    """A device whose zone 1 is full and whose zone 3 has *written* blocks, and what is around it."""

    def __init__(self, written: int = 1) -> None:
        self.memory = MemoryDevice(GEOMETRY)
        self.memory.write(ZONE, pattern(ZONE, CAPACITY))
        self.below = PluggedDevice(self.memory)
        self.namespace = ScriptedNamespace(self.memory, LIMITS)
        self.device = NvmeDevice(self.below, self.namespace, read_support(self.namespace, BLOCK))
        self.start = 3 * ZONE + written * BLOCK
        if written:
            self.device.write(3 * ZONE, pattern(3 * ZONE, written * BLOCK))

    def three_ranges(self) -> list[CopyRange]:
        """Ranges from zone 1 to the write pointer of zone 3."""
        ranges, destination, source = [], self.start, ZONE
        for blocks in LENGTHS:
            ranges.append(CopyRange(source, destination, blocks * BLOCK))
            destination, source = destination + blocks * BLOCK, source + (blocks + 1) * BLOCK
        return ranges

    def copied(self, nr_ranges: int = 3) -> bytes:
        """What the first ranges of `three_ranges` hold."""
        return b"".join(self.memory.read(part.source, part.length) for part in self.three_ranges()[:nr_ranges])

    def wp(self) -> int:
        """The write pointer of zone 3."""
        return zone_of(self.memory, 3).wp


@pytest.fixture
def setup() -> Setup:
    """A device that copies."""
    return Setup()


def test_it_is_the_other_device_but_for_copies(setup: Setup) -> None:
    assert setup.device.info == replace(
        setup.memory.info,
        copy_methods=(DEVICE,),
        copy_max_hw_bytes=10 * BLOCK,
        copy_max_range_hw_bytes=6 * BLOCK,
        copy_max_nr_ranges_hw=4,
    )
    assert setup.device.report_zones() == setup.memory.report_zones()
    assert setup.device.read(ZONE, BLOCK) == pattern(ZONE, BLOCK)
    buffer = bytearray(BLOCK)
    setup.device.read_into(ZONE, memoryview(buffer))
    assert buffer == pattern(ZONE, BLOCK)
    setup.device.flush(3)
    setup.device.flush()
    assert setup.below.flushed == [3, None]
    setup.device.force_condition(5, ZoneCondition.OFFLINE)
    assert zone_of(setup.memory, 5).condition is ZoneCondition.OFFLINE
    setup.device.close()
    assert setup.below.closed


class SlowToRead(FailingDevice):
    """Has nothing at hand."""

    def read_into_now(self, offset: int, buffer: memoryview) -> bool:
        return False


def test_a_read_that_must_not_wait_does_not(setup: Setup) -> None:
    def at_hand(below: ZonedDevice) -> bool:
        return NvmeDevice(below, setup.namespace, read_support(setup.namespace, BLOCK)).read_into_now(ZONE, buffer)

    buffer = memoryview(bytearray(BLOCK))
    assert not at_hand(SlowToRead(setup.memory))
    assert bytes(buffer) == bytes(BLOCK)
    assert at_hand(setup.memory)
    assert bytes(buffer) == pattern(ZONE, BLOCK)


def test_a_copy_is_one_command(setup: Setup) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE, setup.device.generation)
    (command,) = setup.namespace.commands
    assert command.cdw == (3 * 16 + 1, 0, 2, 0, 0, 0)
    assert setup.wp() == setup.start + 6 * BLOCK
    assert setup.memory.read(setup.start, 6 * BLOCK) == setup.copied()


@pytest.mark.parametrize(
    ("ranges", "can"),
    [
        ([(16, 48, 6)], True),
        ([(16, 48, 7)], False),
        ([(16, 48, 6), (16, 54, 4)], True),
        ([(16, 48, 6), (16, 54, 5)], False),
        ([(16, 48, 1), (16, 49, 1), (16, 50, 1), (16, 51, 1)], True),
        ([(16, 48, 1), (16, 49, 1), (16, 50, 1), (16, 51, 1), (16, 52, 1)], False),
        ([(16, 48, 1), (16, 50, 1)], False),
        ([(14, 48, 2)], True),
        ([(14, 48, 3)], False),
        ([(16, 62, 2)], True),
        ([(16, 62, 3)], False),
        ([(16, 62, 2), (16, 64, 1)], False),
        ([(127, 48, 1)], True),
        ([(127, 48, 2)], False),
        ([], False),
    ],
)
def test_what_is_one_command(setup: Setup, ranges: list[tuple[int, int, int]], can: bool) -> None:
    asked = [CopyRange(*(number * BLOCK for number in part)) for part in ranges]
    if can:
        assert setup.device.can_copy(asked, DEVICE)
        for method in (CopyMethod.REFLINK, CopyMethod.HOST):
            assert not setup.device.can_copy(asked, method)
            with pytest.raises(ValueError, match=f"memory cannot copy by {method.value}"):
                setup.device.copy(asked, method)
    else:
        with pytest.raises(ValueError, match="a copy "):
            setup.device.can_copy(asked, DEVICE)
        with pytest.raises(ValueError, match="a copy "):
            setup.device.copy(asked, DEVICE)
    assert not setup.namespace.commands


def test_a_copy_planned_under_another_table_is_refused() -> None:
    part = MemoryDevice(GEOMETRY)
    linear = LinearDevice([Slice(part)])
    device = model_device(linear, LIMITS)
    generation = device.generation
    linear.replace_table([Slice(MemoryDevice(GEOMETRY))])
    with pytest.raises(TableChanged):
        device.copy([CopyRange(ZONE, 3 * ZONE, BLOCK)], DEVICE, generation)
    assert zone_of(device, 3).condition is ZoneCondition.EMPTY
    device.copy([CopyRange(ZONE, 3 * ZONE, BLOCK)], DEVICE, device.generation)


def test_a_read_only_device_copies_nothing() -> None:
    class ReadOnly(FailingDevice):
        @property
        def info(self) -> DeviceInfo:
            return replace(self.inner.info, read_only=True)

    info = model_device(ReadOnly(MemoryDevice(GEOMETRY))).info
    assert (info.copy_methods, info.copy_max_hw_bytes) == ((), 0)
    assert (info.copy_max_range_hw_bytes, info.copy_max_nr_ranges_hw) == (0, 0)


# How commands end

BYTES_BEFORE = [0, 2 * BLOCK, 5 * BLOCK, 6 * BLOCK]


@pytest.mark.parametrize("nr_ranges", [0, 1, 2])
@pytest.mark.parametrize("code", [*STATUS_RULES, 0x17F, 0x7C1])
def test_every_status_at_every_range(setup: Setup, code: int, nr_ranges: int) -> None:
    setup.namespace.fail(nr_ranges, code | 0x4000)
    with pytest.raises(DeviceError) as raised:
        setup.device.copy(setup.three_ranges(), DEVICE)
    told = copied_ranges(Completion(code, nr_ranges), 3)
    assert told == (nr_ranges if code in STATUS_RULES and STATUS_RULES[code].progress else 0)
    assert raised.value.completed == BYTES_BEFORE[told]
    # The write pointer is where the ranges that are there end: the source may be blamed.
    assert raised.value.source_failed is (code in (0x281, 0x287))
    assert setup.wp() == setup.start + BYTES_BEFORE[nr_ranges]
    # Whatever happened, the zone goes on from where it is.
    setup.namespace.answer = None
    wp = setup.wp()
    setup.device.write(wp, pattern(wp, BLOCK))
    assert setup.device.read(wp, BLOCK) == pattern(wp, BLOCK)


def test_the_write_pointer_is_believed_more_than_dword_0(setup: Setup) -> None:
    setup.namespace.fail(1, 0x281, result=2)
    with pytest.raises(DeviceError) as raised:
        setup.device.copy(setup.three_ranges(), DEVICE)
    assert raised.value.completed == BYTES_BEFORE[1]


def test_a_source_is_not_blamed_where_the_write_pointer_is_farther(setup: Setup) -> None:
    setup.namespace.fail(2, 0x281, result=1)
    with pytest.raises(DeviceError) as raised:
        setup.device.copy(setup.three_ranges(), DEVICE)
    assert (raised.value.completed, raised.value.source_failed) == (BYTES_BEFORE[1], False)


@pytest.mark.parametrize("nr_ranges", [0, 1, 2])
def test_success_without_a_write_pointer_to_show_for_it(setup: Setup, nr_ranges: int) -> None:
    setup.namespace.fail(nr_ranges, 0)
    with pytest.raises(DeviceError, match="said to be done") as raised:
        setup.device.copy(setup.three_ranges(), DEVICE)
    assert raised.value.completed == BYTES_BEFORE[nr_ranges]


def test_a_command_that_was_never_sent(setup: Setup) -> None:
    def answer(command: NvmeCommand) -> Completion:
        raise OSError(28, "No space left on device")

    setup.namespace.answer = answer
    with pytest.raises(HostFull) as raised:
        setup.device.copy(setup.three_ranges(), DEVICE)
    assert raised.value.completed == 0
    assert isinstance(raised.value.__cause__, OSError)
    assert setup.wp() == setup.start


@pytest.mark.parametrize("failing", [False, True])
def test_a_zone_that_cannot_be_reported_after_a_copy(setup: Setup, failing: bool) -> None:
    if failing:
        setup.namespace.fail(1, 0x281)
    setup.below.rules.append(Rule("report", 3))
    with pytest.raises(DeviceError) as raised:
        setup.device.copy(setup.three_ranges(), DEVICE)
    assert raised.value.completed == (BYTES_BEFORE[1] if failing else BYTES_BEFORE[3])
    assert not raised.value.source_failed
    assert ("report" in str(raised.value)) is not failing


@pytest.mark.parametrize("source", [True, False])
def test_which_end_is_offline_is_looked_up(setup: Setup, source: bool) -> None:
    ranges = setup.three_ranges()
    ranges[1] = ranges[1]._replace(source=5 * ZONE)

    def answer(command: NvmeCommand) -> Completion:
        setup.namespace.answer = None
        setup.namespace.fail(1, 0x1BB)
        assert setup.namespace.answer is not None
        completion: Completion = setup.namespace.answer(command)
        setup.memory.force_condition(5 if source else 3, ZoneCondition.OFFLINE)
        return completion

    setup.namespace.answer = answer
    with pytest.raises(DeviceError) as raised:
        setup.device.copy(ranges, DEVICE)
    assert (raised.value.completed, raised.value.source_failed) == (BYTES_BEFORE[1], source)


def test_an_error_of_a_copy_to_a_conventional_zone(setup: Setup) -> None:
    setup.namespace.fail(1, 0x280)
    with pytest.raises(DeviceError) as raised:
        setup.device.copy([CopyRange(ZONE, 0, BLOCK), CopyRange(ZONE, BLOCK, BLOCK)], DEVICE)
    assert raised.value.completed == BLOCK
    assert setup.memory.read(0, 2 * BLOCK) == pattern(ZONE, BLOCK) + bytes(BLOCK)


# The write that comes after


def test_the_first_write_after_a_copy_is_repeated(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for copies in range(2):
        setup.device.copy([CopyRange(ZONE, setup.wp(), BLOCK)], DEVICE)
        for _ in range(2):
            wp = setup.wp()
            setup.device.write(wp, pattern(wp, BLOCK))
            assert setup.device.read(wp, BLOCK) == pattern(wp, BLOCK)
        assert setup.below.refused == copies + 1
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 2
    assert "zone 3: the first write after a copy is repeated" in caplog.text


def test_there_is_nothing_to_repeat_in_a_zone_that_only_copies_wrote() -> None:
    setup = Setup(written=0)
    setup.device.copy(setup.three_ranges(), DEVICE)
    setup.device.write(setup.wp(), bytes(BLOCK))
    assert setup.below.refused == 0


@pytest.mark.parametrize("op", [ZoneOp.RESET, ZoneOp.FINISH])
def test_after_reset_and_finish_a_write_is_not_repeated(setup: Setup, op: ZoneOp) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    setup.device.zone_mgmt(op, 3)
    setup.below.rules.append(Rule("write", 3))
    with pytest.raises(DeviceError, match="as asked for"):
        setup.device.write(3 * ZONE, bytes(BLOCK))
    assert setup.below.rules[0].struck == 1


def test_opening_and_closing_does_not_bring_the_write_pointer_along(setup: Setup) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    setup.device.zone_mgmt(ZoneOp.OPEN, 3)
    setup.device.zone_mgmt(ZoneOp.CLOSE, 3)
    setup.device.write(setup.wp(), bytes(BLOCK))
    assert setup.below.refused == 1


def test_a_write_that_fails_for_good_is_tried_twice_and_no_more(setup: Setup) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    wp = setup.wp()
    setup.below.plugs.clear()
    setup.below.rules.append(Rule("write", 3, times=100))
    for attempts in (2, 3):
        with pytest.raises(DeviceError, match="as asked for"):
            setup.device.write(wp, bytes(BLOCK))
        assert setup.below.rules[0].struck == attempts
    assert setup.wp() == wp


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_write_that_got_somewhere_is_not_repeated(setup: Setup, blocks: int) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    wp = setup.wp()
    setup.below.plugs.clear()
    setup.below.rules.append(Rule("write", 3, blocks=blocks))
    with pytest.raises(DeviceError, match="as asked for"):
        setup.device.write(wp, pattern(wp, 3 * BLOCK))
    assert setup.wp() == wp + blocks * BLOCK


def test_a_write_elsewhere_is_not_repeated(setup: Setup) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    wp = setup.wp()
    for offset in (wp + BLOCK, wp - BLOCK):
        with pytest.raises(DeviceError):
            setup.device.write(offset, bytes(BLOCK))
    assert setup.below.refused == 2


@pytest.mark.parametrize("condition", [ZoneCondition.READONLY, ZoneCondition.OFFLINE])
def test_a_write_to_a_zone_that_broke_is_not_repeated(setup: Setup, condition: ZoneCondition) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    wp = setup.wp()
    setup.memory.force_condition(3, condition)
    with pytest.raises(DeviceError):
        setup.device.write(wp, bytes(BLOCK))
    assert setup.below.refused == 1


def test_a_write_is_not_repeated_where_the_zone_cannot_be_reported(setup: Setup) -> None:
    setup.device.copy(setup.three_ranges(), DEVICE)
    setup.below.rules.append(Rule("report", 3))
    with pytest.raises(DeviceError, match="write plug"):
        setup.device.write(setup.wp(), bytes(BLOCK))


# Threads


def run_together(setup: Setup, copies: list[list[CopyRange]], begin: Callable[[], object]) -> list[BaseException]:
    """Do *copies* in a thread each, which calls *begin* first; return what went wrong."""
    failures: list[BaseException] = []

    def copy(ranges: list[CopyRange]) -> None:
        try:
            begin()
            setup.device.copy(ranges, DEVICE)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=copy, args=(ranges,)) for ranges in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_copies_to_different_zones_run_at_the_same_time(setup: Setup) -> None:
    together = threading.Barrier(2)

    def around(_: int, before: bool) -> None:
        if before:
            together.wait(30)

    setup.namespace.around = around
    copies = [[CopyRange(ZONE, zone * ZONE, BLOCK)] for zone in (4, 5)]
    assert not run_together(setup, copies, lambda: None)
    for zone in (4, 5):
        assert zone_of(setup.memory, zone).wp == zone * ZONE + BLOCK


def test_copies_to_one_zone_run_one_after_the_other(setup: Setup) -> None:
    together = threading.Barrier(8)
    inside: list[int] = []
    most = 0

    def around(destination: int, before: bool) -> None:
        nonlocal most
        if before:
            inside.append(destination)
            most = max(most, len(inside))
        else:
            most = max(most, len(inside))
            inside.remove(destination)

    setup.namespace.around = around
    # To a conventional zone, where no write pointer decides about the order.
    copies = [[CopyRange(ZONE, number * BLOCK, BLOCK)] for number in range(8)]
    assert not run_together(setup, copies, lambda: together.wait(30))
    assert most == 1
    assert len(setup.namespace.commands) == 8
    assert setup.memory.read(0, 8 * BLOCK) == pattern(ZONE, BLOCK) * 8


def test_what_lies_below_is_told_of_every_command(setup: Setup) -> None:
    told: list[int] = []
    support = read_support(setup.namespace, BLOCK)
    device = NvmeDevice(setup.below, setup.namespace, support, changed=lambda: told.append(setup.wp()))
    ranges = setup.three_ranges()
    device.copy(ranges, DEVICE)
    # After it: what is flushed then is there.
    assert told == [ranges[0].destination + 6 * BLOCK]
    setup.namespace.fail(0, 0x281)
    with pytest.raises(DeviceError):
        device.copy([CopyRange(ZONE, setup.wp(), BLOCK)], DEVICE)
    assert len(told) == 2


# Opening


class TellingNamespace:
    """A namespace that tells what it is told to, and allows what it is told to."""

    nsid = 1

    def __init__(self, pages: dict[int, bytes], copy: Completion | OSError) -> None:
        self.pages = pages
        self.copy = copy
        self.asked: list[int] = []

    def submit(self, command: NvmeCommand) -> tuple[Completion, bytes]:
        if command.opcode == 0x19:
            # Nothing may be copied to find out whether it may be.
            assert command.cdw == (8 * 16, 0, 0, 0, 0, 0)
            if isinstance(self.copy, OSError):
                raise self.copy
            return self.copy, b""
        cns = command.cdw[0]
        self.asked.append(cns)
        page = self.pages.get(cns)
        return (Completion(0x4002, 0), bytes(4096)) if page is None else (Completion(0, 0), page)


CONTROLLER = Controller(copy=True, formats=1, extended_formats=False)
NAMESPACE = Namespace(8 * 16, BLOCK, 0, 6, 10, 3)
PAGES = {CNS_CONTROLLER: pack_controller(CONTROLLER), CNS_NAMESPACE: pack_namespace(NAMESPACE)}
REFUSED = Completion(0x4080, 0)


def test_a_namespace_that_copies() -> None:
    namespace = TellingNamespace(PAGES, REFUSED)
    device = with_namespace(MemoryDevice(GEOMETRY), namespace)
    assert device.info.copy_methods == (DEVICE,)
    assert device.info.copy_max_nr_ranges_hw == 4
    assert namespace.asked == [CNS_CONTROLLER, CNS_NAMESPACE]


def extended(format: int) -> dict[int, bytes]:
    """Pages of a namespace with protection information in one of the extended formats."""
    own = bytearray(4096)
    own[12:16] = (format << 7).to_bytes(4, "little")
    return {
        CNS_CONTROLLER: pack_controller(CONTROLLER._replace(extended_formats=True)),
        CNS_NAMESPACE: pack_namespace(NAMESPACE._replace(protection=1)),
        CNS_NAMESPACE_OF_COMMAND_SET: bytes(own),
    }


@pytest.mark.parametrize(
    ("pages", "copy", "words"),
    [
        ({}, REFUSED, "the controller cannot be identified: Invalid Field in Command"),
        ({CNS_CONTROLLER: bytes(4096)}, REFUSED, "does not support the Copy command"),
        ({CNS_CONTROLLER: PAGES[CNS_CONTROLLER]}, REFUSED, "the namespace cannot be identified"),
        (extended(2), REFUSED, "protection information of type 1, 64-bit guard"),
        ({**extended(0), CNS_NAMESPACE_OF_COMMAND_SET: None}, REFUSED, "command set cannot be identified"),
        ({**PAGES, CNS_NAMESPACE: pack_namespace(NAMESPACE._replace(nr_blocks=128 * 16))}, REFUSED, "size"),
        (PAGES, Completion(0, 0), "behind its end"),
    ],
)
def test_namespaces_that_do_not(pages: dict[int, bytes], copy: Completion, words: str) -> None:
    with pytest.raises(NoCopy, match=words):
        with_namespace(MemoryDevice(GEOMETRY), TellingNamespace(pages, copy))


def test_permission_is_found_out_when_the_device_is_opened() -> None:
    namespace = TellingNamespace(PAGES, PermissionError(13, "Permission denied"))
    with pytest.raises(PermissionError):
        with_namespace(MemoryDevice(GEOMETRY), namespace)
    support = read_support(namespace, BLOCK)
    with pytest.raises(PermissionError):
        check_permission(namespace, support)


def test_what_is_no_namespace_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    below = MemoryDevice(GEOMETRY)
    with (tmp_path / "file").open("w") as file:
        assert with_copies(below, file.fileno(), sysfs=tmp_path) is below
        assert "memory: no copies by the device: it is not an NVMe namespace" in caplog.text
        # It is one, says the kernel, but not to those who ask.
        (tmp_path / "dev" / "block" / "0:0").mkdir(parents=True)
        (tmp_path / "dev" / "block" / "0:0" / "nsid").write_text("1\n")
        assert with_copies(below, file.fileno(), sysfs=tmp_path) is below
    assert "memory: no copies by the device: Inappropriate ioctl for device" in caplog.text


def test_a_multipath_device_does_not_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel would refuse every write after a copy: seen on Linux 6.12, with a shared namespace of QEMU 10's."""
    caplog.set_level(logging.INFO)
    disk = tmp_path / "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
    disk.mkdir(parents=True)
    (disk / "nsid").write_text("1\n")
    (tmp_path / "dev" / "block").mkdir(parents=True)
    (tmp_path / "dev" / "block" / "0:0").symlink_to(disk)
    below = MemoryDevice(GEOMETRY)
    with (tmp_path / "file").open("w") as file:
        assert with_copies(below, file.fileno(), sysfs=tmp_path) is below
    assert "memory: no copies by the device: it has multipath" in caplog.text

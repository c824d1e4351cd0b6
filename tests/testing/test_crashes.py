"""The file system under power cuts: more than 100,000 crash states, each mounted, checked and used; all in process.

All sequences of two operations, and a sample of those of three, on files as several beginnings leave them. Then the
same with bugs that were put in, each of which must be found: in the drive, and in the file system.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from zonefs_py.config import MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.testing.calls import Call, FlushCall, ManageCall
from zonefs_py.testing.crash_states import CrashState
from zonefs_py.testing.explorer import Failure, Report, explore
from zonefs_py.testing.image import ConventionalImage, DeviceImage, SequentialImage, ZoneImage, open_image
from zonefs_py.zone import DeviceInfo, Zone, ZoneOp

from .workloads import (
    BLOCK,
    OPERATIONS,
    SETUPS,
    Operation,
    Recorded,
    base_image,
    clock,
    run_workload,
)

LIMIT = 128
"""Of one crash point with more states than that, so many are drawn."""

CONFIGURATIONS = {
    "default": (MountOptions(), (None, None)),
    "explicit-open": (MountOptions(explicit_open=True), (2, 3)),
}

# What the explorer visits must not shrink unnoticed. The numbers are a little below those that were counted.
PAIRS = {
    ("default", "nothing", "first"): 3_900,
    ("default", "nothing", "second"): 1_200,
    ("default", "something_synced", "first"): 3_900,
    ("default", "something_synced", "second"): 1_500,
    ("default", "something_unsynced", "first"): 36_000,
    ("default", "something_unsynced", "second"): 20_000,
    ("default", "almost_full", "first"): 6_700,
    ("default", "almost_full", "second"): 3_100,
    ("explicit-open", "nothing", "first"): 3_200,
    ("explicit-open", "nothing", "second"): 1_100,
    ("explicit-open", "something_synced", "first"): 3_300,
    ("explicit-open", "something_synced", "second"): 1_500,
    ("explicit-open", "something_unsynced", "first"): 34_000,
    ("explicit-open", "something_unsynced", "second"): 21_000,
    ("explicit-open", "almost_full", "first"): 5_800,
    ("explicit-open", "almost_full", "second"): 3_200,
}
"""By mount options, beginning, and half of the operations that come first: a test should not take too long."""

TRIPLES = 4_000
NR_TRIPLES = 60


def visit(recorded: Recorded) -> Report:
    return explore(recorded.base, recorded.calls, recorded.check, first=recorded.nr_setup_calls, limit=LIMIT)


def test_the_exploration_is_as_large_as_promised() -> None:
    assert len(OPERATIONS) >= 12
    assert sum(PAIRS.values()) >= 100_000


@pytest.mark.parametrize(("configuration", "setup", "half"), PAIRS)
def test_all_sequences_of_two_operations(configuration: str, setup: str, half: str) -> None:
    options, limits = CONFIGURATIONS[configuration]
    base = base_image(*limits)
    states = 0
    middle = len(OPERATIONS) // 2
    begin = list(OPERATIONS)[:middle] if half == "first" else list(OPERATIONS)[middle:]
    for names in itertools.product(begin, OPERATIONS):
        report = visit(run_workload(base, options, SETUPS[setup], [OPERATIONS[name] for name in names]))
        assert not report.failures, f"{setup}, {', '.join(names)}: {report.failures[0]}"
        states += report.states
    assert states >= PAIRS[configuration, setup, half], states


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_sample_of_the_sequences_of_three_operations(configuration: str, request: pytest.FixtureRequest) -> None:
    options, limits = CONFIGURATIONS[configuration]
    base = base_image(*limits)
    chance = random.Random(2026)
    states = 0
    for _ in range(NR_TRIPLES * (50 if request.config.getoption("--long") else 1)):
        setup = chance.choice(list(SETUPS))
        names = chance.choices(list(OPERATIONS), k=3)
        report = visit(run_workload(base, options, SETUPS[setup], [OPERATIONS[name] for name in names]))
        assert not report.failures, f"{setup}, {', '.join(names)}: {report.failures[0]}"
        states += report.states
    assert states >= TRIPLES, states


# Bugs that were put in


class Passing(ZonedDevice):
    """Another device, passed on to call by call."""

    def __init__(self, device: ZonedDevice) -> None:
        self.device = device

    @property
    def info(self) -> DeviceInfo:
        return self.device.info

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        return self.device.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        return self.device.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.device.write(offset, data)

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self.device.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        self.device.flush(number)

    def close(self) -> None:
        self.device.close()


class IgnoresFlushes(Passing):
    """A drive that says that it has flushed, and has not."""

    def flush(self, number: int | None = None) -> None:
        pass


class FlushesOneZoneTooFew(Passing):
    """A drive that forgets the last zone when it flushes all."""

    def flush(self, number: int | None = None) -> None:
        numbers = range(self.info.nr_zones - 2) if number is None else [number]
        for one in numbers:
            self.device.flush(one)


class AcknowledgesEarly(Filesystem):
    """A file system whose fsync comes back at once."""

    def fsync(self, handle: int) -> None:
        self._opened(handle)


class ForgetsSync(Filesystem):
    """A file system that takes no notice of O_SYNC."""

    def write(
        self,
        handle: int,
        offset: int,
        data: bytes | bytearray | memoryview,
        direct: bool | None = None,
        append: bool | None = None,
        sync: bool | None = None,
    ) -> int:
        return super().write(handle, offset, data, direct, append, False)


class FinishesLate(Filesystem):
    """A file system that remembers that a file was finished, and does it when it is unmounted."""

    def truncate(self, file: int | str, size: int) -> None:
        if size == 0:
            super().truncate(file, size)


def bug_in_drive(kind: Callable[[ZonedDevice], ZonedDevice]) -> Callable[[Operation], Iterator[Failure]]:
    def find(setup: Operation) -> Iterator[Failure]:
        yield from failures(setup, lambda device, options: Filesystem(kind(device), options, clock=clock))

    return find


def bug_in_filesystem(kind: type[Filesystem]) -> Callable[[Operation], Iterator[Failure]]:
    def find(setup: Operation) -> Iterator[Failure]:
        yield from failures(setup, lambda device, options: kind(device, options, clock=clock))

    return find


def failures(setup: Operation, make: Callable[[ZonedDevice, MountOptions], Filesystem]) -> Iterator[Failure]:
    for operations in itertools.product(OPERATIONS.values(), repeat=2):
        recorded = run_workload(base_image(), MountOptions(), setup, operations, make)
        yield from visit(recorded).failures


def bug_after_the_cut(
    spoil_calls: Callable[[Call], bool] = lambda call: True,
    spoil_zone: Callable[[ZoneImage], ZoneImage] = lambda zone: zone,
) -> Callable[[Operation], Iterator[Failure]]:
    """A drive that forgets some calls, or comes back with other zones than it may."""

    def find(setup: Operation) -> Iterator[Failure]:
        for operations in itertools.product(OPERATIONS.values(), repeat=2):
            recorded = run_workload(base_image(), MountOptions(), setup, operations)

            def check(state: CrashState, device: EmulatedDevice, recorded: Recorded = recorded) -> None:
                image = state.image
                zones = {number: spoil_zone(zone) if number else zone for number, zone in image.zones.items()}
                recorded.check(state, open_image(DeviceImage(image.description, image.info, zones)))

            # A flush in the place of what is forgotten: the calls behind it keep their numbers.
            calls = [call if spoil_calls(call) else FlushCall(0) for call in recorded.calls]
            yield from explore(recorded.base, calls, check, limit=LIMIT).failures

    return find


def data_behind_the_write_pointer(zone: ZoneImage) -> ZoneImage:
    """The write pointer has moved, and the last block is not there yet."""
    return zone._replace(written=max(0, zone.written - BLOCK)) if isinstance(zone, SequentialImage) else zone


def torn_in_a_block(zone: ZoneImage) -> ZoneImage:
    """Of each block of a conventional zone only one half was written."""
    if not isinstance(zone, ConventionalImage):
        return zone
    return ConventionalImage({at: data[:100] + bytes(BLOCK - 100) for at, data in zone.blocks.items()})


def one_block_less(zone: ZoneImage) -> ZoneImage:
    """The last block is gone, flushed or not."""
    if not isinstance(zone, SequentialImage) or zone.size == 0:
        return zone
    return SequentialImage(zone.data, min(zone.written, zone.size - BLOCK), zone.size - BLOCK)


BUGS = {
    "a drive that ignores flushes": (bug_in_drive(IgnoresFlushes), "were synced"),
    "a drive that flushes too few zones": (bug_in_drive(FlushesOneZoneTooFew), "were synced"),
    "a drive that forgets resets": (
        bug_after_the_cut(spoil_calls=lambda call: not (isinstance(call, ManageCall) and call.op is ZoneOp.RESET)),
        "not any more",
    ),
    "a drive that forgets finishes": (
        bug_after_the_cut(spoil_calls=lambda call: not (isinstance(call, ManageCall) and call.op is ZoneOp.FINISH)),
        "were synced",
    ),
    "a drive whose write pointer is ahead of the data": (
        bug_after_the_cut(spoil_zone=data_behind_the_write_pointer),
        "was not written there",
    ),
    "a drive that tears blocks": (bug_after_the_cut(spoil_zone=torn_in_a_block), "was never written like that"),
    "a drive that loses flushed data": (bug_after_the_cut(spoil_zone=one_block_less), "were synced"),
    "a file system whose fsync does nothing": (bug_in_filesystem(AcknowledgesEarly), "were synced"),
    "a file system that takes no notice of O_SYNC": (bug_in_filesystem(ForgetsSync), "were synced"),
    "a file system that finishes late": (bug_in_filesystem(FinishesLate), "were synced"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_that_was_put_in_is_found(bug: str) -> None:
    find, words = BUGS[bug]
    failure = next(find(SETUPS["nothing"]), None)
    assert failure is not None
    assert words in str(failure)
    assert str(failure).startswith(f"state {failure.state.id} (")


def test_the_explorer_goes_on_after_a_failure_if_told() -> None:
    recorded = run_workload(base_image(), MountOptions(), SETUPS["something_unsynced"], [OPERATIONS["sync"]])

    def check(state: CrashState, device: EmulatedDevice) -> None:
        raise ValueError("no state is good enough")

    report = explore(recorded.base, recorded.calls, check, max_failures=7)
    assert (report.states, len(report.failures)) == (7, 7)
    everything = explore(recorded.base, recorded.calls, check, max_failures=1_000_000)
    assert len(everything.failures) == everything.states > 7
    assert everything.points == len(recorded.calls) + 1
    assert len({failure.state.id for failure in everything.failures}) == everything.states

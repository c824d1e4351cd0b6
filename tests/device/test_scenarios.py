"""Every scenario in docs/examples/faults does to a file system what it says."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import zonefs_py
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import format_rules, parse_scenario
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.stack import read_scenario
from zonefs_py.errors import ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition, ZoneOp

SCENARIOS = Path(zonefs_py.__file__).parent.parent / "docs/examples/faults"

BLOCK = 4096
MIB = 1 << 20
GEOMETRY = Geometry(MIB, MIB, 8, 2, BLOCK, MIB)
"""As in docs/errors.md: seq/0 is zone 2."""

FLAGS = os.O_RDWR | os.O_DIRECT | os.O_APPEND


class Machine:
    """A mounted device with a scenario; time and delays are the test's."""

    def __init__(self, name: str, policy: ErrorsPolicy = ErrorsPolicy.REPAIR) -> None:
        self.now = 0.0
        self.delays: list[float] = []
        below = MemoryDevice(GEOMETRY)
        format_device(below, FormatOptions())
        self.device = FaultDevice(below, waits=True, sleep=self.delays.append, clock=lambda: self.now)
        self.fs = Filesystem(self.device, MountOptions(policy))
        self.handles = {index: self.fs.open(f"seq/{index}", FLAGS) for index in range(6)}
        self.device.add_rules(read_scenario(str(SCENARIOS / f"{name}.json")).rules)

    def append(self, index: int, blocks: int = 1, fill: bytes = b"z") -> str:
        """Append blocks to a file; return ``ok`` or the name of the errno."""
        return self.outcome(lambda: self.fs.write(self.handles[index], 0, fill * (blocks * BLOCK)))

    def outcome(self, call: Callable[[], object]) -> str:
        try:
            call()
        except ZonefsError as exc:
            return exc.errno_name
        return "ok"

    def read(self, index: int, offset: int, length: int = BLOCK) -> bytes:
        return self.fs.read(self.handles[index], offset, length)

    def size(self, index: int) -> int:
        """The size of a file in blocks."""
        return self.fs.getattr(self.fs.resolve(f"seq/{index}")).size // BLOCK


def partial_write() -> None:
    machine = Machine("partial-write")
    assert [machine.append(0, 3), machine.append(0, 3)] == ["EIO", "ok"]
    assert machine.size(0) == 4


def worn_out_blocks() -> None:
    machine = Machine("worn-out-blocks")
    assert machine.append(0, 7) == "ok"
    assert machine.append(0, 3) == "EIO"
    # The zone has what lies before the bad blocks.
    assert machine.size(0) == 8
    assert machine.outcome(lambda: machine.read(0, 0, 8 * BLOCK)) == "ok"
    assert machine.append(0) == "EIO"
    assert machine.size(0) == 8
    machine.device.remove_rules([2])
    assert machine.append(0, 4) == "ok"
    read = [functools.partial(machine.read, 0, block * BLOCK) for block in (7, 8, 9, 10)]
    assert [machine.outcome(call) for call in read] == ["ok", "EIO", "EIO", "ok"]
    target = machine.fs.open("seq/1", os.O_RDWR)
    assert machine.fs.copy_range(machine.handles[0], 0, target, 0, 8 * BLOCK) == 8 * BLOCK
    assert (
        machine.outcome(lambda: machine.fs.copy_range(machine.handles[0], 8 * BLOCK, target, 8 * BLOCK, BLOCK)) == "EIO"
    )


def full_disk() -> None:
    machine = Machine("full-disk")
    assert machine.append(0, 10) == "ok"
    assert machine.append(1, 10) == "ENOSPC"
    # Of sixteen blocks all have found room.
    assert (machine.size(0), machine.size(1)) == (10, 6)
    assert [machine.append(index) for index in (0, 1, 2)] == ["ENOSPC"] * 3


def failed_flush() -> None:
    machine = Machine("failed-flush")
    assert machine.append(0) == "ok"
    assert [machine.outcome(lambda: machine.fs.fsync(machine.handles[0])) for _ in (1, 2)] == ["EIO", "ok"]


def dying_zones() -> None:
    machine = Machine("dying-zones")
    assert [machine.append(0), machine.append(0), machine.append(1, 2), machine.append(2)] == ["ok", "EIO", "EIO", "ok"]
    conditions = [zone.condition for zone in machine.device.report_zones(2, 2)]
    assert conditions == [ZoneCondition.READONLY, ZoneCondition.OFFLINE]
    assert machine.outcome(lambda: machine.read(0, 0)) == "ok"
    assert machine.outcome(lambda: machine.read(1, 0)) == "EPERM"


def open_limit() -> None:
    machine = Machine("open-limit")
    assert [machine.append(0) for _ in range(3)] == ["ETOOMANYREFS", "ETOOMANYREFS", "ok"]
    assert machine.outcome(lambda: machine.fs.manage_zone(ZoneOp.OPEN, 4)) == "EOVERFLOW"


def flaky_cable() -> None:
    def outcomes() -> list[str]:
        machine = Machine("flaky-cable")
        written = [machine.append(0) for _ in range(100)]
        return written + [machine.outcome(lambda: machine.read(0, 0)) for _ in range(100)]

    first = outcomes()
    assert first == outcomes()
    assert 8 <= first[:100].count("EIO") <= 35
    assert 8 <= first[100:].count("EIO") <= 35


def late_failure() -> None:
    machine = Machine("late-failure", ErrorsPolicy.ZONE_RO)
    machine.now = 0.4
    assert machine.append(0) == "ok"
    machine.now = 0.6
    assert [machine.append(0), machine.append(1)] == ["EIO", "EROFS"]


def slow_drive() -> None:
    machine = Machine("slow-drive")
    for _ in range(20):
        assert machine.append(0) == "ok"
    writes, machine.delays[:] = list(machine.delays), []
    for _ in range(20):
        machine.read(0, 0)
    reads, machine.delays[:] = list(machine.delays), []
    machine.fs.truncate("seq/0", 0)
    assert all(0 <= delay <= 0.1 for delay in writes)
    assert all(0.002 <= delay <= 0.01 for delay in reads)
    assert machine.delays == [0.02]
    assert len({*writes, *reads}) == 40


def stuck_zone() -> None:
    machine = Machine("stuck-zone")
    results: list[str] = []
    writer = threading.Thread(target=lambda: results.append(machine.append(0)))
    writer.start()
    ended = threading.Event()
    while not machine.device.stuck:
        assert writer.is_alive()
        ended.wait(0.001)
    assert machine.append(1) == "ok"
    assert machine.device.release() == 1
    writer.join(30)
    assert results == ["ok"]


def silent_corruption() -> None:
    machine = Machine("silent-corruption")
    assert [machine.append(0), machine.append(0), machine.append(1), machine.append(1)] == ["ok"] * 4
    good = b"z" * BLOCK
    assert machine.read(0, 0) == good
    assert machine.read(0, BLOCK) == bytes([ord("z") ^ 8]) + good[1:]
    assert [machine.read(1, 0), machine.read(1, BLOCK)] == [bytes(BLOCK), good]


def somebody_else() -> None:
    machine = Machine("somebody-else")
    assert [machine.append(0), machine.append(0), machine.append(0)] == ["ok", "EIO", "ok"]
    assert machine.size(0) == 3
    assert [machine.append(1), machine.append(1), machine.append(1)] == ["ok", "EIO", "ok"]
    assert machine.size(1) == 1


CHECKS = {
    check.__name__.replace("_", "-"): check
    for check in (
        partial_write,
        worn_out_blocks,
        full_disk,
        failed_flush,
        dying_zones,
        open_limit,
        flaky_cable,
        late_failure,
        slow_drive,
        stuck_zone,
        silent_corruption,
        somebody_else,
    )
}


@pytest.mark.parametrize("name", sorted(path.stem for path in SCENARIOS.glob("*.json")))
def test_a_scenario_does_what_it_says(name: str) -> None:
    CHECKS[name]()


@pytest.mark.parametrize("name", CHECKS)
def test_a_scenario_is_named_and_described(name: str) -> None:
    text = (SCENARIOS / f"{name}.json").read_text()
    scenario = parse_scenario(text)
    assert scenario.name.replace(" ", "-") == name
    assert scenario.description.endswith(".")
    assert all(rule.name for rule in scenario.rules)
    # And is as we would write it.
    assert json.loads(format_rules(scenario.rules, scenario.name, scenario.description)) == json.loads(text)

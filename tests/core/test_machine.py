"""The state machine over the core: a memory device, and an emulated device in a temporary directory."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.drivers import CoreDriver
from tests.model.machine import make_machine, stepping
from tests.model.oracle import Options, Setup
from tests.model.strategies import Amount, Place, setups
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.units import KIB
from zonefs_py.zone import Geometry

ZONE_SIZES = (8 * KIB, 16 * KIB, 64 * KIB)


def _settings(request: pytest.FixtureRequest, examples: int, steps: int) -> settings:
    longer = 20 if request.config.getoption("--long") else 1
    # A step looks at the whole file system, which hypothesis takes for slow data generation.
    slow = [HealthCheck.too_slow]
    # Without "explain", which runs a failing example many times more to say little about a machine of many rules.
    phases = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
    return settings(
        max_examples=examples * longer, stateful_step_count=steps, suppress_health_check=slow, phases=phases
    )


def test_memory_device(request: pytest.FixtureRequest) -> None:
    machine = make_machine(CoreDriver, setups(ZONE_SIZES))
    run_state_machine_as_test(machine, settings=_settings(request, examples=200, steps=60))


def test_emulated_device(request: pytest.FixtureRequest) -> None:
    machine = make_machine(functools.partial(CoreDriver, emulated=True), setups(ZONE_SIZES))
    run_state_machine_as_test(machine, settings=_settings(request, examples=40, steps=50))


class CachedDriver(CoreDriver):
    """The same over a write cache, so small that it often has to let go."""

    def _open_inner(self) -> WriteCacheDevice:
        below = super()._open_inner()
        assert isinstance(below, MemoryDevice)
        return WriteCacheDevice(below, size=16 * KIB)


def test_write_cache(request: pytest.FixtureRequest) -> None:
    machine = make_machine(CachedDriver, setups(ZONE_SIZES))
    run_state_machine_as_test(machine, settings=_settings(request, examples=60, steps=50))


# What the machine found. Each ends in the comparison of everything with the oracle.

SMALL = Geometry(8 * KIB, 8 * KIB, 6, 3, 4 * KIB, 8 * KIB)


@pytest.mark.parametrize("emulated", [False, True])
def test_zone_filled_by_writes_is_neither_active_nor_closed(emulated: bool) -> None:
    setup = Setup(SMALL, max_active=1, options=Options(explicit_open=True))
    with stepping(CoreDriver(emulated=emulated), setup) as machine:
        machine.write_sequentially(index=0, amount=Amount(blocks=2), appends=False)
        assert machine.oracle.file("seq/0").size == 8 * KIB
        machine.close_file(index=0)
        machine.write_sequentially(index=1, amount=Amount(blocks=1), appends=False)
        assert machine.oracle.file("seq/1").size == 4 * KIB


def test_empty_write_past_the_end_of_a_conventional_file() -> None:
    with stepping(CoreDriver(), Setup(SMALL)) as machine:
        conventional = len(machine.oracle.files) - 2
        assert machine.oracle.nodes["cnv/0"].ino == 1
        for place in (Place("capacity"), Place("huge")):
            machine.write_anything(index=conventional, place=place, amount=Amount(), flags="direct")


@pytest.mark.parametrize("emulated", [False, True])
def test_read_only_mount_becomes_writable(emulated: bool) -> None:
    with stepping(CoreDriver(emulated=emulated), Setup(SMALL)) as machine:
        machine.mount_again(options=Options(), read_only=True)
        machine.remount(options=Options(), read_only=False)
        machine.write_some_more(index=0, blocks=1, nr_writes=2)
        assert machine.oracle.file("seq/0").size == 8 * KIB

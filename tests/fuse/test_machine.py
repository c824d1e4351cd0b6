"""The state machine over a live mount: command line, kernel and daemon together."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.drivers import MountDriver
from tests.model.machine import make_machine, stepping
from tests.model.oracle import Options, Setup
from tests.model.strategies import Amount, setups
from zonefs_py.units import KIB
from zonefs_py.zone import Geometry, ZoneOp

ZONE_SIZES = (64 * KIB, 256 * KIB)


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse: modprobe fuse")
@pytest.mark.skipif(os.geteuid() != 0, reason="chown and remount need root")
@pytest.mark.parametrize("passthrough", ["off", "on"])
def test_live_mount(request: pytest.FixtureRequest, passthrough: str) -> None:
    if passthrough == "on":
        request.getfixturevalue("passing")()
    long = bool(request.config.getoption("--long"))
    chosen = settings(
        max_examples=100 if long else 8,
        stateful_step_count=60,
        # Mounting takes half a second, which hypothesis takes for slow data generation.
        suppress_health_check=[HealthCheck.too_slow],
        # A failing example is shown as it was found: shrinking runs hundreds more, each with mounts of its own.
        phases=(Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if long else [])),
    )
    run_state_machine_as_test(make_machine(lambda: MountDriver(passthrough), setups(ZONE_SIZES)), settings=chosen)


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse: modprobe fuse")
@pytest.mark.skipif(os.geteuid() != 0, reason="remount needs root")
def test_a_zone_that_somebody_finished_cannot_be_opened_explicitly() -> None:
    """The machine met it: a remount turns explicit-open on where there are no limits."""
    with stepping(MountDriver("off"), Setup(Geometry(64 * KIB, 48 * KIB, 6, 3, 4 * KIB, 64 * KIB))) as machine:
        machine.remount(options=Options(explicit_open=True), read_only=False)
        machine.write_sequentially(index=0, amount=Amount(blocks=1), appends=False)
        machine.close_file(index=0)
        machine.somebody_manages(index=0, op=ZoneOp.FINISH)
        machine.write_sequentially(index=0, amount=Amount(blocks=1), appends=False)
        assert machine.oracle.file("seq/0").size == 4 * KIB

"""Every device call of two dozen scenarios fails in turn, in every way, once and for good, with each errors= policy."""

from __future__ import annotations

import threading

import pytest

from tests.abuse.sweep import SCENARIOS, Fault, Scenario, World, faults, run
from zonefs_py.config import ErrorsPolicy
from zonefs_py.device.fault_rules import Effect, Operation


def test_there_are_twenty() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) >= 20


@pytest.mark.parametrize("policy", list(ErrorsPolicy), ids=lambda policy: policy.value)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_call_fails_in_turn(scenario: Scenario, policy: ErrorsPolicy) -> None:
    done = 0
    for fault in faults(scenario, policy):
        run(scenario, policy, fault)
        done += 1
    assert done >= 4, "too few calls: is there a scenario?"


@pytest.mark.parametrize("name", ["write", "partial-blocks", "finish", "copy-seq-seq"])
def test_a_device_that_lies_is_noticed(name: str) -> None:
    """What is acknowledged and not there is what all this is about."""
    (scenario,) = (one for one in SCENARIOS if one.name == name)
    operation = {"finish": Operation.FINISH, "copy-seq-seq": Operation.COPY}.get(name, Operation.WRITE)
    with pytest.raises(AssertionError):
        run(scenario, ErrorsPolicy.REPAIR, Fault("is lied about", operation, Effect.DROP, 1, sticky=False))


def test_a_file_system_that_hangs_is_noticed() -> None:
    """The failure says in which scenario, with what, after which steps, and where it waits."""
    over = threading.Event()

    def hang(world: World) -> None:
        world.append("seq/0", 1)
        over.wait()

    fault = Fault("fails", Operation.ANY, Effect.FAIL, 7, sticky=False)
    try:
        with pytest.raises(AssertionError, match=r"endless, errors=repair, any 7 fails: it hangs") as caught:
            run(Scenario("endless", hang), ErrorsPolicy.REPAIR, fault, limit=0.2)
    finally:
        over.set()
    assert "write seq/0 0 512; close" in str(caught.value)
    assert "over.wait()" in str(caught.value)

"""Zoned block devices: conformance, what is special about them, and the shell suite, in a machine of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.machine.session import Machine, Settings

from .zns_devices import LIMITS, device_texts

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).parent / "inside"
SECONDS = 3600.0

SCRIPT_ZNS = "zns:zones=16,zone_size=4M,zone_capacity=3M,max_open=4,max_active=6"


@dataclass(frozen=True)
class Suite:
    """Scripts of tests/scripts on a block device, and those of them that skip there."""

    device: str
    tests: str
    skipped: frozenset[str] = frozenset()


# What depends on the device. Starting a program takes seconds in the machine, so the rest stays with emulated devices.
SUITES = {
    "null_blk": Suite(
        "null_blk:zone_size=4M,zones=16,zone_nr_conv=4,blocksize=4096",
        "0009,0025,0034,0035,0113,0205,0305,0322,0331,0600,0604,0617,0621,0700",
    ),
    "null_blk with limits": Suite(
        "null_blk:zone_size=4M,zone_capacity=3M,zones=16,blocksize=512,zone_max_open=4,zone_max_active=6",
        "0008,0303,0337,0503,0504,0505,0521",
    ),
    "scsi_debug": Suite(
        "scsi_debug:zone_size_mb=4,dev_size_mb=64,zone_nr_conv=4,sector_size=4096,zone_max_open=4,delay=0",
        "0205,0300,0331,0601,0617",
        # SCSI disks cannot be made to have a bad zone.
        frozenset({"0617"}),
    ),
    "zns": Suite(SCRIPT_ZNS, "0008,0303,0322,0336,0505"),
}

ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
PROGRAMS = "/run/zonefs-py-programs"
"""Where the programs are in the machine that `inside.command_server` makes."""


@dataclass(frozen=True)
class Group:
    """The machine of these tests, and what its shell suites give."""

    machine: Machine
    scripts: dict[str, Future[str]]


def run_suite(machine: Machine, suite: Suite, node: str | None, logs: Path) -> str:
    """Run a shell suite on *node*, or on a device that is made for it; return its output."""
    path = node or machine.add_device(suite.device)
    options = {"--device": path, "--tests": suite.tests, "--logs": str(logs), "--timeout": "1200"}
    words = ["tests/zonefs-tests.sh", *(word for option in options.items() for word in option)]
    result = machine.run(words, env=ENVIRONMENT | {"ZONEFS_PY_BIN": PROGRAMS}, cwd=ROOT, timeout=SECONDS)
    if node is None:
        machine.remove_device(path)
    return result.stdout.decode() + result.stderr.decode()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A machine in which the shell suites run beside the other tests: it has two processors."""
    logs = tmp_path_factory.mktemp("logs")
    devices = [*device_texts(), SCRIPT_ZNS]
    with (
        Machine.start(Settings(devices=devices, shares=[logs], memory_mib=2048)) as machine,
        ThreadPoolExecutor(2) as pool,
    ):
        serve = [sys.executable, "-m", "tests.vm.inside.command_server", PROGRAMS]
        result = machine.run(serve, env=ENVIRONMENT, cwd=ROOT, timeout=SECONDS)
        assert result.status == 0, result.stderr.decode()
        scripts = {
            name: pool.submit(run_suite, machine, suite, machine.devices[-1] if name == "zns" else None, logs)
            for name, suite in SUITES.items()
        }
        yield Group(machine, scripts)
        pool.shutdown(cancel_futures=True)


def run_inside(group: Group, module: str, at_least: int) -> None:
    """Run a module of `INSIDE` in the machine; so many of its tests at least must have passed, and none failed."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INSIDE / module)]
    environment = ENVIRONMENT | {"ZONEFS_VM_DEVICES": " ".join(group.machine.devices[: len(LIMITS)])}
    result = group.machine.run(words, env=environment, cwd=ROOT, timeout=SECONDS)
    output = result.stdout.decode() + result.stderr.decode()
    assert result.status == 0, output
    passed = re.search(r"^(?:\S+ )*?(\d+) passed", output.splitlines()[-1])
    assert passed is not None, output
    assert int(passed[1]) >= at_least, output


def test_what_is_special_about_block_devices(group: Group) -> None:
    run_inside(group, "test_blockdev.py", 24)


def test_null_blk_conforms(group: Group) -> None:
    run_inside(group, "test_null_blk_conformance.py", 130)


def test_zns_conforms(group: Group) -> None:
    run_inside(group, "test_zns_conformance.py", 55)


def test_scsi_debug_conforms(group: Group) -> None:
    # Without the shell suite's.
    group.scripts["scsi_debug"].result(SECONDS)
    run_inside(group, "test_scsi_debug_conformance.py", 65)


@pytest.mark.parametrize("name", SUITES)
def test_scripts(group: Group, name: str) -> None:
    suite = SUITES[name]
    output = group.scripts[name].result(SECONDS)
    lines = re.findall(r"^\S+ +(\d{4}): .*? +(passed|FAILED|skipped) ", output, re.MULTILINE)
    assert dict(lines) == {
        number: "skipped" if number in suite.skipped else "passed" for number in suite.tests.split(",")
    }, output

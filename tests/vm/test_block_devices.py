"""Zoned block devices: conformance, what is special about them, and the shell suite, in a machine of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.machine.session import Machine, Settings

from .conftest import running_machine
from .suites import SCRIPT_ZNS, SUITES, each_once, everything
from .zns_devices import LIMITS, device_texts

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).parent / "inside"
SILENCE = 1800.0
"""Seconds without a word after which a command hangs. A script has 1200; other work may have most of this computer."""

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
PROGRAMS = "/run/zonefs-py-programs"
"""Where the programs are in the machine that `inside.command_server` makes."""


@dataclass(frozen=True)
class Group:
    """The machine of these tests, and what its shell suites give."""

    machine: Machine
    scripts: dict[str, Future[str]]


def run_suite(machine: Machine, device: str, scripts: Sequence[str], logs: Path) -> str:
    """Run *scripts* on *device*, a path or what is to be made; return the output."""
    path = device if device.startswith("/") else machine.add_device(device)
    options = {"--device": path, "--tests": ",".join(scripts), "--logs": str(logs), "--timeout": "1200"}
    words = ["tests/zonefs-tests.sh", *(word for option in options.items() for word in option)]
    result = machine.run(words, env=ENVIRONMENT | {"ZONEFS_PY_BIN": PROGRAMS}, cwd=ROOT, silence=SILENCE)
    if path != device:
        machine.remove_device(path)
    return result.stdout.decode() + result.stderr.decode()


def scripts_of(name: str, config: pytest.Config) -> list[str]:
    """What runs on the device of the suite *name*: with ``--long``, each script on each that it may differ on."""
    return (everything() if config.getoption("--long") else each_once())[name]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Group]:
    """A machine in which the shell suites run beside the other tests: it has two processors."""
    logs = tmp_path_factory.mktemp("logs")
    devices = [*device_texts(), SCRIPT_ZNS]
    with (
        running_machine(Settings(devices=devices, shares=[logs], memory_mib=2048)) as machine,
        ThreadPoolExecutor(2) as pool,
    ):
        serve = [sys.executable, "-m", "tests.vm.inside.command_server", PROGRAMS]
        result = machine.run(serve, env=ENVIRONMENT, cwd=ROOT, silence=SILENCE)
        assert result.status == 0, result.stderr.decode()
        scripts = {
            name: pool.submit(
                run_suite,
                machine,
                # QEMU's are made at the start.
                machine.devices[-1] if suite.device == SCRIPT_ZNS else suite.device,
                scripts_of(name, pytestconfig),
                logs,
            )
            for name, suite in SUITES.items()
        }
        yield Group(machine, scripts)
        pool.shutdown(cancel_futures=True)


def run_inside(group: Group, module: str, at_least: int) -> None:
    """Run a module of `INSIDE` in the machine; so many of its tests at least must have passed, and none failed."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INSIDE / module)]
    environment = ENVIRONMENT | {"ZONEFS_VM_DEVICES": " ".join(group.machine.devices[: len(LIMITS)])}
    result = group.machine.run(words, env=environment, cwd=ROOT, silence=SILENCE)
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
    group.scripts["scsi_debug"].result()
    run_inside(group, "test_scsi_debug_conformance.py", 65)


@pytest.mark.parametrize("name", SUITES)
def test_scripts(group: Group, name: str, pytestconfig: pytest.Config) -> None:
    output = group.scripts[name].result()
    lines = re.findall(r"^\S+ +(\d{4}): .*? +(passed|FAILED|skipped) ", output, re.MULTILINE)
    skipped = SUITES[name].skipped
    assert dict(lines) == {
        number: "skipped" if number in skipped else "passed" for number in scripts_of(name, pytestconfig)
    }, output

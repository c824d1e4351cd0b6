"""Commands on stacks of devices: a stack's text stands wherever a device's path does."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zonefs_py.cli import main as main_module
from zonefs_py.cli import mkzonefs as mkzonefs_module
from zonefs_py.control.server import Control
from zonefs_py.fs.opening import open_filesystem


def call(*argv: object, main: Callable[[list[str]], int] = main_module.main) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in argv])
    return status, out.getvalue(), err.getvalue()


def run(*argv: object, **more: Any) -> str:
    status, out, err = call(*argv, **more)
    assert (status, err) == (0, "")
    return out


def refused(*argv: object) -> str:
    status, out, err = call(*argv)
    assert (status, out) == (1, "")
    assert err.startswith("zonefs-py: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with two devices of four zones; a has two conventional ones."""
    monkeypatch.chdir(tmp_path)
    for name, conventional in (("a", 2), ("b", 0)):
        run("create", name, "--zones", 4, "--conventional", conventional, "--zone-size", "256K")
    write_rules("r.json")
    return tmp_path


def write_rules(path: str, *rules: object) -> None:
    Path(path).write_text(json.dumps({"version": 1, "rules": rules}))


def info(target: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("info", target, "--format", "json"))
    return found


def zones(target: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("report", target, "--format", "json"))["zones"]
    return found


STACKS = ["linear:a+b", "fault:r.json,linear:a+b", "linear:(fault:r.json,a)+b[0-3]"]


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_formatted_and_shown(stack: str) -> None:
    assert info(stack)["format"] is None
    assert f"Device:     {stack}\n" in run("mkfs", "-v", stack, "-L", "both")
    document = info(stack)
    assert document["format"]["label"] == "both"
    device = document["device"]
    assert (device["kind"], device["name"]) == (stack.partition(":")[0], stack)
    assert (device["nr_zones"], device["nr_conventional_zones"], device["read_only"]) == (8, 2, False)
    report = json.loads(run("report", stack, "--format", "json"))
    assert report["device"] == stack
    assert [zone["file"] for zone in report["zones"]] == [None, "cnv/0"] + [f"seq/{n}" for n in range(6)]
    rows = list(csv.DictReader(run("report", stack, "--format", "csv").splitlines()))
    assert [int(row["start"]) for row in rows] == [number * 256 * 1024 for number in range(8)]
    assert stack in run("info", stack)
    assert "holds a zonefs file system" in refused("mkfs", stack)
    run("-f", stack, main=mkzonefs_module.main)


def test_zones_of_a_stack_are_managed() -> None:
    stack = "linear:a+b"
    run("mkfs", stack)
    run("zone", "finish", stack, "3", "6-7")
    assert [zone["number"] for zone in zones(stack) if zone["condition"] == "full"] == [3, 6, 7]
    assert [zone["number"] for zone in zones("b") if zone["condition"] == "full"] == [2, 3]
    run("zone", "reset", stack, "--all")
    assert not [zone for zone in zones(stack) if zone["condition"] == "full"]
    run("zone", "offline", stack, "2", "5")
    run("zone", "readonly", f"fault:r.json,{stack}", "6")
    assert [zone["condition"] for zone in zones(stack)][2:] == [
        "offline", "empty", "empty", "offline", "read-only", "empty"
    ]  # fmt: skip
    run("zone", "online", stack, "--all")
    assert {zone["condition"] for zone in zones(stack)} == {"not-write-pointer", "empty"}
    assert "there is no zone 8" in refused("zone", "reset", stack, "8")


def test_faults_meet_commands() -> None:
    write_rules("r.json", {"operation": "reset", "zones": 5, "effect": "fail", "error": "ENOSPC"})
    run("zone", "finish", "linear:a+b", "4-6")
    message = refused("zone", "reset", "fault:r.json,linear:a+b", "4-6")
    stack = "fault:r.json,linear:a+b"
    assert message == f"zonefs-py: {stack}: zone 5: reset fails by rule 1; 1 of 3 zones were done before\n"
    assert [zone["condition"] for zone in zones("linear:a+b")][4:7] == ["empty", "full", "full"]
    write_rules("r.json", {"operation": "write", "effect": "fail"})
    assert "fails by rule 1" in refused("mkfs", "fault:r.json,a")


@pytest.mark.parametrize("command", [("mkfs",), ("report",), ("info",), ("zone", "reset"), ("zone", "offline")])
@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ("linear:", "linear:: character 8: the path of a device expected"),
        ("linear:a+none", "none does not exist"),
        ("linear:a+a", "a is used twice"),
        ("linear:a,b", "character 9: ',' is not expected here"),
        ("fault:none.json,a", "rule file none.json: No such file or directory"),
        ("fault:bad.json,a", 'bad.json: rule 1: "operation" is missing'),
    ],
)
def test_mistakes_are_one_line(command: tuple[str, ...], stack: str, words: str) -> None:
    write_rules("bad.json", {"effect": "fail"})
    assert words in refused(*command, stack, *(["3"] if command[0] == "zone" else []))
    run("zone", "reset", "a", "3")  # it is not in use


def test_a_mount_refuses_mistakes_before_anything_else(here: Path) -> None:
    (here / "mnt").mkdir()
    assert "character 8" in refused("mount", "linear:", "mnt")


def test_directories_with_odd_names_are_devices_as_before(here: Path) -> None:
    for name in ("x+y", "x,y", "x[1]", "x\\y", "(x)", "faulty:x"):
        os.rename("a", name)
        run("mkfs", "-f", name)
        assert info(name)["device"]["name"] == name
        os.rename(name, "a")
    os.rename("a", "linear:a")
    assert info("./linear:a")["device"]["kind"] == "emulated"
    assert "a does not exist" in refused("info", "linear:a")


def test_a_stack_is_read_only_if_a_part_is(here: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything; run as a plain user")
    (here / "b" / "device.json").chmod(0o444)
    assert info("linear:a+b")["device"]["read_only"]


def test_the_control_socket_forces_conditions_through_a_stack() -> None:
    run("mkfs", "linear:a+b")
    with open_filesystem("fault:r.json,linear:a+b") as fs:
        control = Control(fs, None, str, {})  # type: ignore[arg-type]  # no mount: this request does not look
        answer = control.answer({"request": "force-condition", "zones": [3, 5], "condition": "offline"})
        assert answer == {"ok": True, "result": None}
        answer = control.answer({"request": "force-condition", "zones": [8], "condition": "offline"})
        assert answer["error"] == "zones must be a list of numbers below 8"
    assert [zone["number"] for zone in zones("linear:a+b") if zone["condition"] == "offline"] == [3, 5]

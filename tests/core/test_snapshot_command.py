"""``zonefs-py snapshot`` and ``rollback``: what they do, and how they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.test_cli import SMALL, conditions, refused, run, unchanged
from zonefs_py import FormatOptions, format_device, open_device


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A formatted device, called ``d``, in the current directory."""
    monkeypatch.chdir(tmp_path)
    run("create", "d", *SMALL)
    with open_device("d") as opened:
        format_device(opened, FormatOptions())
        opened.write(2 * 256 * 1024, b"a" * 4096)
    return "d"


def write(number: int, blocks: int) -> None:
    with open_device("d") as opened:
        zone = opened.report_zones(number, 1)[0]
        opened.write(zone.start if zone.is_conventional else zone.wp, b"b" * 4096 * blocks)


@pytest.mark.parametrize("back", [("rollback",), ("snapshot", "rollback")])
@pytest.mark.parametrize("make", [("snapshot",), ("snapshot", "create"), ("snapshot", "create", "--no-sync")])
def test_there_and_back(make: tuple[str, ...], back: tuple[str, ...], device: str) -> None:
    assert run(*make, device, "base").out == ""
    write(2, 1)
    write(1, 1)
    run("zone", "offline", device, 7)
    assert conditions(Path(device)) == "nw nw cl em em em em of"
    assert run("snapshot", "diff", device, "base").out.splitlines() == [
        "zone 1: content",
        "zone 2: write pointer +4K -> +8K",
        "zone 7: condition empty -> offline",
    ]
    assert json.loads(run("snapshot", "diff", device, "base", "--format", "json").out)["zones"][1] == {
        "zone": 2,
        "old": {"condition": "closed", "wpoffset": 4096},
        "new": {"condition": "closed", "wpoffset": 8192},
        "content_differs": None,
    }
    assert run(*back, device, "base").out == ""
    assert conditions(Path(device)) == "nw nw cl em em em em em"
    assert run("snapshot", "diff", device, "base").out == ""


def test_list_and_delete(device: str) -> None:
    assert run("snapshot", "list", device).out == ""
    run("snapshot", device, "base")
    write(2, 1)
    run("snapshot", device, "later")
    lines = run("snapshot", "list", device).out.splitlines()
    assert [line.split()[-1] for line in lines] == ["base", "later"]
    found = json.loads(run("snapshot", "list", device, "--format", "json").out)["snapshots"]
    assert [(one["name"], one["path"]) for one in found] == [
        ("base", "d/.snapshots/base"),
        ("later", "d/.snapshots/later"),
    ]
    assert run("snapshot", "diff", device, "base", "later").out == "zone 2: write pointer +4K -> +8K\n"
    run("snapshot", "delete", device, "base")
    assert [line.split()[-1] for line in run("snapshot", "list", device).out.splitlines()] == ["later"]


def test_a_snapshot_is_a_device(device: str) -> None:
    run("snapshot", device, "base")
    write(2, 1)
    assert conditions(Path("d/.snapshots/base")) == conditions(Path(device))
    run("clone", "d/.snapshots/base", "copy", "--data")
    assert Path("copy/seq-000002").read_bytes() == b"a" * 4096
    with unchanged(Path()):
        assert "is a snapshot" in refused("mkfs", "-f", "d/.snapshots/base")
        assert "is a snapshot" in refused("zone", "reset", "d/.snapshots/base", 2)
        assert "is a snapshot" in refused("create", "d/.snapshots/base", *SMALL, "-f")


def test_force_keeps_snapshots(device: str) -> None:
    run("snapshot", device, "base")
    assert "not empty" in refused("create", device, *SMALL)
    run("create", device, *SMALL, "-f")
    assert "+4K -> +0" in run("snapshot", "diff", device, "base").out
    run("rollback", device, "base")
    assert Path("d/seq-000002").read_bytes() == b"a" * 4096


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["snapshot", "d", "base"], 1, "already"),
        (["snapshot", "d", "../x"], 1, "cannot be the name"),
        (["snapshot", "d"], 2, "NAME"),
        (["snapshot", "none", "s"], 1, "none"),
        (["snapshot", "empty", "s"], 1, "neither an emulated device"),
        (["snapshot", "linear:d", "s"], 1, "is a stack"),
        (["snapshot", "list", "empty"], 1, "not an emulated device"),
        (["snapshot", "list", "linear:d"], 1, "is a stack"),
        (["snapshot", "delete", "d", "s"], 1, "no snapshot 's'"),
        (["snapshot", "diff", "d", "s"], 1, "no snapshot 's'"),
        (["snapshot", "diff", "d", "base", "s"], 1, "no snapshot 's'"),
        (["rollback", "d", "s"], 1, "no snapshot 's'"),
        (["rollback", "empty", "s"], 1, "no snapshots"),
        (["rollback", "none", "s"], 1, "does not exist"),
        (["rollback", "fault:x,d", "s"], 1, "is a stack"),
        (["rollback", "d"], 2, "NAME"),
    ],
)
def test_refusals(words: list[str], status: int, says: str, device: str) -> None:
    Path("empty").mkdir()
    run("snapshot", device, "base")
    with unchanged(Path()):
        assert says in refused(*words, status=status)


def test_a_device_in_use_is_refused(device: str) -> None:
    run("snapshot", device, "base")
    with open_device(device), unchanged(Path()):
        for words in (["snapshot", device, "s"], ["rollback", device, "base"], ["snapshot", "diff", device, "base"]):
            line = refused(*words)
            assert "in use by pid" in line
            assert "unmount it first" in line

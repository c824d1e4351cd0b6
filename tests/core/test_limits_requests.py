"""Copy limits over the control socket, and the command that asks for them, without a mount."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_cli import refused, run
from zonefs_py import Filesystem, FormatOptions, Geometry, MemoryDevice, format_device
from zonefs_py.cli import limits as limits_module
from zonefs_py.control import client
from zonefs_py.control.mounts import MountEntry
from zonefs_py.control.server import Control
from zonefs_py.errors import MountError

BLOCK = 4096
ZONE = 64 * 1024
GIB = 1 << 30


def make_control() -> Control:
    device = MemoryDevice(Geometry(ZONE, ZONE, 6, 2, BLOCK, ZONE))
    format_device(device, FormatOptions())
    entry = MountEntry("0:99", "/mnt", "fuse.zonefs-py", "/disk", frozenset())
    return Control(Filesystem(device), entry, lambda: "rw", {"versions": {}, "capabilities": {}})


@pytest.fixture
def control() -> Control:
    return make_control()


def limits(control: Control) -> dict[str, int]:
    answer = control.answer({"request": "copy-limits"})
    assert answer["ok"]
    assert {name: answer["result"][name] for name in ("schema", "version", "device")} == {
        "schema": "zonefs-py/limits",
        "version": 1,
        "device": "memory",
    }
    found: dict[str, int] = answer["result"]["limits"]
    return found


def test_limits_are_read_and_set(control: Control) -> None:
    before = limits(control)
    assert before == {
        "copy_offload": 1,
        "copy_max_bytes": GIB,
        "copy_max_hw_bytes": GIB,
        "copy_max_range_bytes": GIB,
        "copy_max_range_hw_bytes": GIB,
        "copy_max_nr_ranges": 256,
        "copy_max_nr_ranges_hw": 256,
    }
    answer = control.answer({"request": "set-copy-limit", "name": "copy_max_bytes", "value": 2 * GIB})
    assert answer["result"]["limits"] == before, "a value above the device's limit becomes that"
    answer = control.answer({"request": "set-copy-limit", "name": "copy_max_bytes", "value": BLOCK})
    assert answer["result"]["limits"] == limits(control) == before | {"copy_max_bytes": BLOCK}
    several = {"copy_max_bytes": 2 * BLOCK, "copy_offload": 0}
    assert control.answer({"request": "set-copy-limits", "limits": several})["result"]["limits"] == before | several
    info = control.answer({"request": "info"})["result"]
    assert info["copy"]["limits"] == limits(control)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"request": "set-copy-limit"}, "None: the value must be a whole number"),
        ({"request": "set-copy-limit", "name": "copy_max_bytes"}, "copy_max_bytes: the value must be a whole number"),
        ({"request": "set-copy-limit", "name": "copy_offload", "value": True}, "must be a whole number"),
        ({"request": "set-copy-limit", "name": "copy_offload", "value": "1"}, "must be a whole number"),
        ({"request": "set-copy-limit", "name": "copy_max_hw_bytes", "value": 0}, "the device sets it"),
        ({"request": "set-copy-limit", "name": "copy_max_bytes", "value": 4095}, "multiple of the block size, 4096"),
        ({"request": "set-copy-limits"}, "limits must be an object"),
        ({"request": "set-copy-limits", "limits": {"copy_offload": 0, "copy_max_bytes": -1}}, "negative"),
    ],
)
def test_what_is_refused_changes_nothing(control: Control, request_: dict[str, Any], words: str) -> None:
    before = limits(control)
    answer = control.answer(request_)
    assert not answer["ok"]
    assert words in answer["error"]
    assert answer["errno"] == "EINVAL"
    assert limits(control) == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["copy_offload", "copy_max_bytes", "copy_max_nr_ranges", "copy_max_range_bytes"]) | st.text()


@given(st.dictionaries(names, json_values, max_size=4) | json_values, names, json_values)
def test_any_request_is_answered(values: Any, name: str, value: Any) -> None:
    control = make_control()
    for request in (
        {"request": "set-copy-limits", "limits": values},
        {"request": "set-copy-limit", "name": name, "value": value},
    ):
        before = limits(control)
        answer = control.answer(request)
        json.dumps(answer)
        assert answer["ok"] or limits(control) == before


# The command


@pytest.fixture
def asked(control: Control, monkeypatch: pytest.MonkeyPatch) -> Control:
    """The command finds *control* at /mnt: the socket between them has tests of its own."""

    def ask(mountpoint: str, request: dict[str, Any]) -> Any:
        answer = control.answer(json.loads(json.dumps(request)))
        if not answer["ok"]:
            raise MountError(f"{mountpoint}: {answer['error']}")
        return answer["result"]

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(limits_module, "is_device", lambda path: False)
    return control


def test_the_table_and_the_json(asked: Control) -> None:
    table = run("limits", "/mnt").out.splitlines()
    assert table[0] == f"{'copy_offload':<24}{1:>14}"
    assert table[1] == f"{'copy_max_bytes':<24}{GIB:>14}  (1G)"
    assert table[5] == f"{'copy_max_nr_ranges':<24}{256:>14}"
    assert len(table) == 7
    document = json.loads(run("limits", "/mnt", "--format", "json").out)
    assert (document["schema"], document["limits"]) == ("zonefs-py/limits", limits(asked))


def test_settings_with_suffixes(asked: Control) -> None:
    out = run("limits", "/mnt", "copy_max_bytes=64M", "copy_max_nr_ranges=3", "--format", "json").out
    assert json.loads(out)["limits"] == limits(asked)
    assert limits(asked)["copy_max_bytes"] == 64 << 20
    assert limits(asked)["copy_max_nr_ranges"] == 3
    run("limits", "/mnt", "copy_max_range_bytes=1GiB", "copy_offload=0")
    assert limits(asked)["copy_offload"] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["copy_max_bytes"], "'copy_max_bytes' is not NAME=VALUE"),
        (["=1"], "'=1' is not NAME=VALUE"),
        (["copy_max_bytes="], "copy_max_bytes: '' is not a size, such as 64M"),
        (["copy_max_bytes=lots"], "copy_max_bytes: 'lots' is not a size, such as 64M"),
        (["copy_max_bytes=1K"], "/mnt: copy_max_bytes: 1024 is not a multiple of the block size, 4096"),
        (["copy_max_nr_ranges=1K"], "copy_max_nr_ranges: '1K' is not a number"),
        (["copy_max_nr_ranges=-1"], "copy_max_nr_ranges: '-1' is not a number"),
        (["copy_offload=" + "9" * 5000], f"copy_offload: '{'9' * 40}' is not a number"),
        (["copy_offload=0", "copy_offload=1"], "copy_offload is given twice"),
        (["copy_offload=0", "copy_max_hw_bytes=1G"], "/mnt: copy_max_hw_bytes: the device sets it"),
        (["nonsense=1"], "/mnt: nonsense: no such limit"),
    ],
)
def test_bad_settings_change_nothing(asked: Control, words: list[str], complaint: str) -> None:
    before = limits(asked)
    # What the daemon refuses begins with the mount point; the rest is wrong in itself.
    assert refused("limits", "/mnt", *words, status=1 if complaint.startswith("/mnt") else 2) == complaint
    assert limits(asked) == before


def test_limits_are_those_of_a_mount(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--zones", "4", "--zone-size", "1M")
    assert "give the mount point" in refused("limits", tmp_path / "d")
    assert "neither" in refused("limits", tmp_path)

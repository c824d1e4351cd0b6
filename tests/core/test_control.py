"""The daemon's side of the control socket, without a socket: whatever JSON comes, it is answered or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.control.mounts import MountEntry
from zonefs_py.control.server import Control, ControlServer
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import Geometry, ZoneCondition

SIZE = 64 * 1024
NR_ZONES = 6
GEOMETRY = Geometry(SIZE, SIZE, NR_ZONES, 2, 4096, SIZE)


class Daemon:
    """What a daemon has, but for FUSE and the socket."""

    def __init__(self) -> None:
        self.device = MemoryDevice(GEOMETRY, 2, 3)
        format_device(self.device, FormatOptions(), uuid=bytes(16))
        self.fs = Filesystem(self.device)
        entry = MountEntry("0:99", "/mnt", "fuse.zonefs-py", "/disk", frozenset({"user_id=0"}))
        self.control = Control(self.fs, entry, lambda: "rw", {"versions": {"libfuse": "3"}, "capabilities": {}})

    def state(self) -> tuple[Any, ...]:
        """Everything that a request could change."""
        files = [self.fs.getattr(ino) for ino in range(1, NR_ZONES)]
        return self.device.report_zones(), files, self.fs.options, self.fs.read_only, self.fs.counters

    def answer_line(self, line: bytes) -> dict[str, Any]:
        """Answer a line as the socket does."""
        return ControlServer.answer_line(self, line)  # type: ignore[arg-type]  # only `_control` is used

    @property
    def _control(self) -> Control:
        return self.control


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A fresh one."""
    daemon = Daemon()
    yield daemon
    daemon.fs.close()


def test_info_and_report(daemon: Daemon) -> None:
    info = daemon.control.answer({"request": "info"})
    assert info["ok"]
    result = info["result"]
    assert (result["schema"], result["version"]) == ("zonefs-py/info", 1)
    assert result["device"]["nr_zones"] == NR_ZONES
    assert result["mount"]["mountpoint"] == "/mnt"
    assert result["mount"]["max_wro_seq_files"] == 2
    report = daemon.control.answer({"request": "report"})["result"]
    assert [zone["file"] for zone in report["zones"]] == [None, "cnv/0", "seq/0", "seq/1", "seq/2", "seq/3"]


def test_zones_are_made_to_fail_and_mended(daemon: Daemon) -> None:
    order = {"request": "force-condition", "zones": [1, 3], "condition": "offline"}
    assert daemon.control.answer(order) == {"ok": True, "result": None}
    conditions = [zone.condition for zone in daemon.device.report_zones()]
    assert [number for number, one in enumerate(conditions) if one is ZoneCondition.OFFLINE] == [1, 3]
    assert daemon.control.answer(order | {"condition": None})["ok"]
    assert ZoneCondition.OFFLINE not in [zone.condition for zone in daemon.device.report_zones()]


def test_options_are_changed_together_or_not_at_all(daemon: Daemon) -> None:
    order = {"request": "remount", "errors": "repair", "explicit_open": True, "read_only": True}
    assert not daemon.control.answer(order | {"colour": 1})["ok"]
    assert daemon.fs.options == MountOptions()
    assert daemon.control.answer(order)["ok"]
    assert daemon.fs.options == MountOptions(ErrorsPolicy.REPAIR, explicit_open=True, read_only=True)


def test_a_remount_that_the_file_system_refuses_says_why(daemon: Daemon) -> None:
    handle = daemon.fs.open("seq/0", 1)
    answer = daemon.control.answer({"request": "remount", "read_only": True})
    assert (answer["ok"], answer["errno"]) == (False, "EBUSY")
    daemon.fs.release(handle)


@pytest.mark.parametrize("around", ['{{"request": {}}}', '{{"request": "remount", "errors": {}}}', "{}"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_any_depth_is_answered(daemon: Daemon, around: str, opening: str) -> None:
    """Where JSON is just not too deep to be read, it must not be too deep to be refused."""
    before = daemon.state()
    closing = "]" if opening == "[" else "}"
    for depth in [*range(1, 50), *range(300, 1050)]:
        line = around.format(opening * depth + "1" + closing * depth).encode()
        try:
            answer = daemon.answer_line(line)
        except RecursionError:
            pytest.fail(f"a depth of {depth} is not refused, but raises")
        assert answer["ok"] is False
        assert len(answer["error"]) < 300
    assert daemon.state() == before


NAMES = st.sampled_from(["ping", "info", "report", "force-condition", "remount", "reset", ""])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, NR_ZONES + 1),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["offline", "read-only", "repair", "zone-ro", "full"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | NAMES, inner, max_size=4),
    max_leaves=10,
)
FIELDS = {
    "zones": st.lists(st.integers(-1, NR_ZONES) | LEAVES, max_size=5) | VALUES,
    "condition": VALUES,
    "errors": VALUES,
    "explicit_open": VALUES,
    "read_only": VALUES,
    "colour": VALUES,
}
REQUESTS = st.fixed_dictionaries({"request": NAMES | VALUES}, optional=FIELDS) | VALUES


@settings(max_examples=500)
@given(st.lists(REQUESTS, min_size=1, max_size=4))
@example([{"request": "force-condition", "zones": [], "condition": None}])
@example([{"request": "force-condition", "zones": [0, 1, 2], "condition": "offline"}, {"request": "info"}])
@example([{"request": "remount", "errors": {}}])
@example([{"request": "remount", "errors": None}])
def test_any_requests(requests: list[Any]) -> None:
    daemon = Daemon()
    for request in requests:
        before = daemon.state()
        answer = daemon.control.answer(request)
        assert json.loads(json.dumps(answer)) is not None
        if answer["ok"]:
            assert request["request"] in Control.REQUESTS
            if request["request"] in ("ping", "info", "report"):
                assert daemon.state() == before
        else:
            assert daemon.state() == before
            assert answer["error"]
            assert len(answer["error"]) < 300
            assert "\n" not in answer["error"]
            assert answer["errno"].startswith("E")
    # Whatever it was, the daemon goes on.
    assert daemon.control.answer({"request": "info"})["ok"]


@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"")
@example(b"{")
@example(b"\xff")
@example(b"9" * 5000)
@example(b'{"request": "\\ud800"}')
@example(b'{"request": NaN}')
def test_any_bytes(line: bytes) -> None:
    daemon = Daemon()
    before = daemon.state()
    answer = daemon.answer_line(line)
    json.dumps(answer).encode()
    assert answer["ok"] is False
    assert daemon.state() == before

"""The daemon's side of the control socket, without a socket: whatever JSON comes, it is answered or refused."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.control import live
from zonefs_py.control.client import NoAnswer, exchange
from zonefs_py.control.mounts import MountEntry
from zonefs_py.control.server import ZONES_PER_PART, Control, ControlServer, encode
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError, NotAtWritePointer
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
        self.faults = FaultDevice.over(self.device)
        self.fs = Filesystem(self.faults)
        self.waits: list[bool] = []
        self.fs.on_waits = self.waits.append
        entry = MountEntry("0:99", "/mnt", "fuse.zonefs-py", "/disk", frozenset({"user_id=0"}))
        self.control = Control(self.fs, entry, lambda: "rw", {"versions": {"libfuse": "3"}, "capabilities": {}})

    def state(self) -> tuple[Any, ...]:
        """Everything that a request could change."""
        files = [self.fs.getattr(ino) for ino in range(1, NR_ZONES)]
        level = logging.getLogger().level
        rules = [(status.number, status.rule) for status in self.faults.rules]
        numbers = self.fs.counters, self.fs.activity, self.fs.copy_engine.limits, level
        return self.device.report_zones(), files, self.fs.options, self.fs.read_only, rules, numbers

    def answer_line(self, line: bytes) -> dict[str, Any]:
        """Answer a line as the socket does."""
        return ControlServer.answer_line(self, line)  # type: ignore[arg-type]  # only `_control` is used

    @property
    def _control(self) -> Control:
        return self.control


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A fresh one."""
    level = logging.getLogger().level
    daemon = Daemon()
    yield daemon
    daemon.fs.close()
    logging.getLogger().setLevel(level)


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


@pytest.mark.parametrize("count", [0, 1, 2, ZONES_PER_PART - 1, ZONES_PER_PART, ZONES_PER_PART + 1, 3 * ZONES_PER_PART])
def test_a_report_goes_out_in_parts(count: int) -> None:
    zones = [{"number": number, "file": "]" * (number % 3)} for number in range(count)]
    answer = {"ok": True, "result": {"device": "a]b", "zones": zones}}
    parts = list(encode({"ok": True, "result": {"device": "a]b", "zones": iter(zones)}}))
    assert b"".join(parts) == json.dumps(answer).encode() + b"\n"
    assert len(parts) == 2 + -(-count // ZONES_PER_PART)
    assert list(encode(answer)) == [b"".join(parts)], "a list goes out as it is"


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


def test_many_can_ask_at_once(daemon: Daemon, tmp_path: Path) -> None:
    """A server that does not come to take connections for a moment must not turn them away."""
    path = tmp_path / "socket"
    server = ControlServer(path, daemon.control)
    server.shutdown()
    with contextlib.ExitStack() as connections:
        for _ in range(50):
            one = connections.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            one.settimeout(60)
            one.connect(str(path))
    server.server_close()


@pytest.mark.parametrize("value", [1, "x"])
def test_a_name_of_two_lines_is_refused_in_one(daemon: Daemon, value: object) -> None:
    answer = daemon.control.answer({"request": "set-copy-limits", "limits": {"a\nb": value}})
    assert not answer["ok"]
    assert answer["error"] == r"there is no limit 'a\nb'"


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


def ask(daemon: Daemon, name: str, **fields: Any) -> Any:
    answer = daemon.control.answer({"request": name, **fields})
    assert answer["ok"], answer
    return answer["result"]


def refusal(daemon: Daemon, name: str, **fields: Any) -> str:
    before = daemon.state()
    answer = daemon.control.answer({"request": name, **fields})
    assert not answer["ok"]
    assert daemon.state() == before
    return str(answer["error"])


FAIL = {"operation": "write", "effect": "fail", "zones": 2}
STUCK = {"operation": "read", "effect": "stuck", "count": None}


def test_faults_come_and_go(daemon: Daemon) -> None:
    assert ask(daemon, "list-faults") == {"rules": [], "stuck": []}
    assert ask(daemon, "add-faults", rules=[FAIL, FAIL | {"name": "again"}]) == [1, 2]
    handle = daemon.fs.open("seq/0", 1)
    with pytest.raises(DeviceError, match="by rule 1"):
        daemon.fs.write(handle, 0, bytes(4096), direct=True)
    daemon.fs.release(handle)
    listed = ask(daemon, "list-faults")["rules"]
    assert listed[0] == {"number": 1, "matched": 1, "fired": 1, "rule": FAIL}
    assert [rule["fired"] for rule in listed] == [1, 0]
    assert ask(daemon, "remove-faults", numbers=[1]) == 1
    assert [rule["number"] for rule in ask(daemon, "list-faults")["rules"]] == [2]
    assert ask(daemon, "remove-faults") == 1
    assert ask(daemon, "remove-faults", numbers=None) == 0
    assert daemon.waits == []


def test_a_rule_that_is_wrong_adds_none(daemon: Daemon) -> None:
    assert refusal(daemon, "add-faults", rules=[FAIL, {"operation": "write"}]) == 'rule 2: "effect" is missing'
    assert refusal(daemon, "add-faults", rules=[FAIL, FAIL | {"zones": 6}]).startswith('rule 2: "zones" has a zone 6')
    assert refusal(daemon, "add-faults", rules=[STUCK, FAIL | {"zones": 6}]).startswith('rule 2: "zones"')
    # It was let wait for a moment.
    assert daemon.waits == [True, False]
    assert not daemon.fs.info.waits
    assert refusal(daemon, "add-faults", rules=FAIL) == "rules must be a list"
    assert refusal(daemon, "add-faults", rules=[FAIL] * 10_001) == "a mount can have 10000 rules"
    assert refusal(daemon, "add-faults", rule=[]) == "add-faults has no field 'rule'"
    assert refusal(daemon, "remove-faults", numbers=[1]) == "there is no rule 1"
    assert refusal(daemon, "remove-faults", numbers=[True]) == "numbers must be a list of whole numbers"
    assert refusal(daemon, "release-stuck", numbers=[1]) == "there is no rule 1"
    assert refusal(daemon, "release-stuck", fail=1) == "fail must be true or false"


@pytest.mark.parametrize("fail", [False, True])
def test_a_stuck_call_is_seen_and_released(daemon: Daemon, fail: bool) -> None:
    """Who serves the file system hears of it before the first call can wait, and when none can any more."""
    (number,) = ask(daemon, "add-faults", rules=[STUCK])
    assert daemon.waits == [True]
    handle = daemon.fs.open("cnv/0", 0)
    results: list[object] = []

    def read() -> None:
        try:
            results.append(daemon.fs.read(handle, 0, 10))
        except DeviceError as exc:
            results.append(exc.errno_name)

    reader = threading.Thread(target=read)
    reader.start()
    ended = threading.Event()
    for _ in range(3000):
        stuck = ask(daemon, "list-faults")["stuck"]
        if stuck:
            break
        ended.wait(0.01)
    assert [(one["rule"], one["zone"]) for one in stuck] == [(number, 1)]
    assert ask(daemon, "statistics")["faults"] == {"rules": 1, "fired": 1, "stuck": 1}
    assert ask(daemon, "release-stuck", fail=fail) == 1
    reader.join(30)
    assert results == ["EIO" if fail else bytes(10)]
    ask(daemon, "remove-faults")
    assert daemon.waits == [True, False]


def test_zones_are_managed(daemon: Daemon) -> None:
    changed: list[int] = []
    daemon.fs.on_change = changed.append
    assert ask(daemon, "manage-zones", operation="finish", zones=[2, 4, 2]) == {"files": ["seq/0", "seq/2"]}
    assert [daemon.fs.getattr(ino).size for ino in (2, 3, 4)] == [SIZE, 0, SIZE]
    assert changed == [2, 4]
    ask(daemon, "manage-zones", operation="reset", zones=[4])
    assert daemon.fs.getattr(4).size == 0
    for zones, words in (
        ([3, 0], "zone 0 holds the superblock"),
        ([3, 1], "zone 1 is conventional"),
        ([3, 6], "there is no zone 6: the device has zones 0 to 5"),
        ([3, -1], "there is no zone -1"),
        ([3, True], "zones must be a list of whole numbers"),
        (3, "zones must be a list of whole numbers"),
    ):
        assert refusal(daemon, "manage-zones", operation="finish", zones=zones).startswith(words)
    words = refusal(daemon, "manage-zones", operation="erase", zones=[3])
    assert words == "operation must be one of reset, open, close, finish"


def test_a_zone_operation_that_fails_says_how_far_it_came(daemon: Daemon) -> None:
    ask(daemon, "add-faults", rules=[{"operation": "finish", "effect": "fail", "zones": 3}])
    answer = daemon.control.answer({"request": "manage-zones", "operation": "finish", "zones": [2, 3, 4]})
    assert answer["error"].endswith("; 1 of 3 zones were done before")
    assert [daemon.fs.getattr(ino).size for ino in (2, 3, 4)] == [SIZE, 0, 0]


def test_numbers_and_refusals(daemon: Daemon) -> None:
    handle = daemon.fs.open("seq/0", 1)
    daemon.fs.write(handle, 0, bytes(8192), direct=True)
    daemon.fs.note_refusal("write", NotAtWritePointer("x"), 2, 4096, 4096, 17, "dd")
    daemon.fs.note_refusal("write", NotAtWritePointer("y"), 2, 0, 4096)
    numbers = ask(daemon, "statistics")
    assert numbers["activity"]["writes"] == 1
    assert numbers["activity"]["bytes_written"] == 8192
    assert numbers["space"] == {"used": 8192 + SIZE, "capacity": 5 * SIZE}
    assert numbers["files"]["open_handles"] == 1
    assert numbers["refusals"] == {"EINVAL": 2}
    first, second = ask(daemon, "why")
    assert (first["errno"], first["file"], first["zone"], first["offset"]) == ("EINVAL", "seq/0", 2, 4096)
    assert (first["size"], first["pid"], first["process"]) == (8192, 17, "dd")
    assert "write at offset 8192" in first["advice"]
    assert ask(daemon, "why", last=1) == [second]
    assert refusal(daemon, "why", last=-1) == "last must be a whole number, 0 or more"
    daemon.fs.release(handle)


def test_the_log_level(daemon: Daemon) -> None:
    for level in ("debug", "warning"):
        ask(daemon, "set-log-level", level=level)
        assert ask(daemon, "statistics")["daemon"]["log_level"] == level
    assert refusal(daemon, "set-log-level", level="all") == "level must be one of debug, info, warning, error"


def test_a_bug_is_an_answer_too(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(live.REQUESTS, "why", lambda fs, request: 1 // 0)
    answer = daemon.control.answer({"request": "why"})
    assert answer == {"ok": False, "error": "a bug of zonefs-py; its log has the rest", "errno": "EIO"}
    assert "ZeroDivisionError" in caplog.text


# The client's side


class Counting(ControlServer):
    """A server that counts pings."""

    pings = 0

    def answer_line(self, line: bytes) -> dict[str, Any]:
        if json.loads(line) == {"request": "ping"}:
            self.pings += 1
        return super().answer_line(line)


RESET = {"request": "manage-zones", "operation": "reset", "zones": [2]}


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    reached = threading.Event()
    for _ in range(6000):
        if condition():
            return
        reached.wait(0.01)
    pytest.fail("it did not happen")


@pytest.fixture
def stuck_reset(daemon: Daemon, tmp_path: Path) -> Iterator[tuple[Counting, Future[dict[str, Any]]]]:
    """A server, and a request of which it answers nothing yet, because the zone is stuck."""
    handle = daemon.fs.open("seq/0", 1)
    daemon.fs.write(handle, 0, bytes(4096), direct=True)
    daemon.fs.release(handle)
    ask(daemon, "add-faults", rules=[{"operation": "reset", "effect": "stuck"}])
    server = Counting(tmp_path / "socket", daemon.control)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(exchange, tmp_path / "socket", RESET, 0.01)
        wait_for(lambda: len(daemon.faults.stuck) == 1)
        yield server, answer
        daemon.faults.release()
    # The test may have done that.
    with contextlib.suppress(OSError):
        server.stop()


def test_an_answer_may_take_longer_than_a_client_has_patience(
    daemon: Daemon, stuck_reset: tuple[Counting, Future[dict[str, Any]]]
) -> None:
    """It would else report a failure, and the zone be reset afterwards."""
    server, answer = stuck_reset
    wait_for(lambda: server.pings >= 3)
    assert not answer.done()
    assert daemon.fs.getattr(2).size == 4096
    daemon.faults.release()
    assert answer.result(60) == {"ok": True, "result": {"files": ["seq/0"]}}
    assert daemon.fs.getattr(2).size == 0


def test_a_daemon_shows_that_it_lives_while_a_file_is_being_closed(daemon: Daemon) -> None:
    waited: list[str] = []
    daemon.fs.until_closed = lambda: waited.append("for the close")
    assert ask(daemon, "ping")["errors"] == "remount-ro"
    assert not waited
    ask(daemon, "statistics")
    assert waited == ["for the close"]


def test_of_a_daemon_that_has_ended_no_answer_is_awaited(
    stuck_reset: tuple[Counting, Future[dict[str, Any]]],
) -> None:
    server, answer = stuck_reset
    server.stop()
    # Its socket is gone, or was closed before a ping was taken from it.
    with pytest.raises(NoAnswer):
        answer.result(60)


def test_an_answer_that_came_just_before_the_daemon_ended(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        answer = pool.submit(exchange, path, RESET, 0.05)
        connection, _ = listener.accept()
        asking, _ = listener.accept()
        with connection, asking:
            assert json.loads(asking.recv(1000)) == {"request": "ping"}
            connection.sendall(b'{"ok": true}\n')
        assert answer.result(60) == {"ok": True}


@pytest.mark.parametrize(("said", "why"), [(b"", "it was closed"), (b"[]\n", "no JSON object"), (b"x\n", "Expecting")])
def test_an_answer_that_is_none(tmp_path: Path, said: bytes, why: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        answer = pool.submit(exchange, path, RESET)
        connection, _ = listener.accept()
        with connection:
            assert json.loads(connection.recv(1000)) == RESET
            connection.sendall(said)
        with pytest.raises(NoAnswer, match=why):
            answer.result(60)
    with pytest.raises(ConnectionRefusedError):
        exchange(path, RESET)


NAMES = st.sampled_from(["ping", "info", "report", "force-condition", "remount", "reset", "", *live.REQUESTS])
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
    "operation": st.sampled_from(["reset", "open", "close", "finish"]) | VALUES,
    "numbers": st.lists(st.integers(-1, 3), max_size=3) | VALUES,
    "fail": VALUES,
    "last": VALUES,
    "level": st.sampled_from(["debug", "error"]) | VALUES,
    "rules": st.lists(
        st.fixed_dictionaries(
            {"operation": st.sampled_from(["flush", "any"]) | LEAVES, "effect": st.sampled_from(["fail"]) | LEAVES},
            optional={"zones": LEAVES, "count": LEAVES, "first": st.just(1 << 50) | LEAVES, "probability": LEAVES},
        ),
        max_size=3,
    )
    | VALUES,
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
        assert json.loads(b"".join(encode(answer))) is not None
        if answer["ok"]:
            assert request["request"] in {*Control.REQUESTS, *live.REQUESTS}
            if request["request"] in ("ping", "info", "report", "statistics", "why", "list-faults", "release-stuck"):
                assert daemon.state() == before
        elif "zones were done before" not in answer["error"]:
            assert daemon.state() == before
            assert "a bug of" not in answer["error"]
            assert answer["error"]
            assert len(answer["error"]) < 300
            assert "\n" not in answer["error"]
            assert answer["errno"].startswith("E")
    # Whatever it was, the daemon goes on. (Rules for reports are obeyed.)
    ask(daemon, "remove-faults")
    logging.getLogger().setLevel(logging.WARNING)
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
    b"".join(encode(answer))
    assert answer["ok"] is False
    assert daemon.state() == before

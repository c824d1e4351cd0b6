"""What tools/machine makes of the frames of a machine; this computer plays the machine's part."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.machine.errors import MachineError
from tools.machine.protocol import Decoder, frame
from tools.machine.session import Machine, Settings


class Played:
    """A machine whose agent is the test, which reads requests and sends frames at *port*."""

    def __init__(self, directory: Path) -> None:
        ours, self.port = socket.socketpair()
        (directory / "own").mkdir()
        claim = os.open(directory / "own", os.O_RDONLY)
        qemu = subprocess.Popen(["sleep", "infinity"])
        settings = Settings(cache=directory / "cache")
        self.machine = Machine(qemu, ours, directory / "own", claim, settings, directory)

    def requests(self, number: int) -> list[tuple[str, int, bytes]]:
        """So many requests; more must not have come."""
        decoder = Decoder()
        found: list[tuple[str, int, bytes]] = []
        while len(found) < number:
            found += decoder.feed(self.port.recv(1 << 16))
        assert len(found) == number
        return found


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    played = Played(tmp_path)
    try:
        yield played
    finally:
        # Its reader ends when the port does, as QEMU closes it by ending.
        played.port.close()
        played.machine.close()


def test_output_comes_as_it_is_sent_and_ends_with_the_status(played: Played) -> None:
    job = played.machine.begin(["true"])
    output: list[tuple[str, bytes]] = []
    for kind, data in (("o", b"one"), ("e", b"two")):
        played.port.sendall(frame(kind, job, data))
    played.port.sendall(frame("o", job + 1, b"of nobody's") + frame("X", job, json.dumps({"status": 3}).encode()))
    assert played.machine.finish(job, lambda kind, data: output.append((kind, data)), timeout=60, silence=60) == 3
    assert output == [("o", b"one"), ("e", b"two")]


@pytest.mark.parametrize(
    ("timeout", "silence", "says"),
    [
        (0.1, None, "tool did not end within 0.1 s; kernel log: "),
        (0.1, 60.0, "tool did not end within 0.1 s; kernel log: "),
        (None, 0.1, "tool did not end and said nothing for 0.1 s; kernel log: "),
        (60.0, 0.1, "tool did not end and said nothing for 0.1 s; kernel log: "),
    ],
)
def test_a_command_that_hangs_is_killed(
    played: Played, timeout: float | None, silence: float | None, says: str
) -> None:
    job = played.machine.begin(["tool"])
    with pytest.raises(MachineError) as raised:
        played.machine.finish(job, lambda *_: None, timeout=timeout, silence=silence, name="tool")
    assert str(raised.value).startswith(says)
    (_, _, request), killed = played.requests(2)
    assert json.loads(request)["argv"] == ["tool"]
    assert killed == ("K", job, b"9")


def test_whoever_says_something_has_its_time_anew(played: Played) -> None:
    """The time in which the output is taken does not count: nothing was waited for."""
    job = played.machine.begin(["tool"])
    left = 3

    def take(_kind: str, _data: bytes) -> None:
        nonlocal left
        left -= 1
        # As long as a silence would have lasted.
        with pytest.raises(TimeoutError):
            played.port.recv(1)
        played.port.sendall(frame("o", job, b".") if left else frame("X", job, b'{"status": 0}'))

    played.requests(1)
    played.port.settimeout(1.0)
    played.port.sendall(frame("o", job, b"."))
    assert played.machine.finish(job, take, silence=1.0) == 0
    assert left == 0

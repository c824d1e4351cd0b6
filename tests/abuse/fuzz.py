"""Inputs from outside, by the hundred thousand: random ones, and valid ones that were damaged a little.

Each function feeds *inputs* of them to one parser and returns how many were accepted and refused. Anything but a clean
refusal, and an accepted input that contradicts itself, is an exception; its note has the number of the input. The same
seed gives the same inputs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import resource
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zonefs_py.config import FormatOptions
from zonefs_py.control.mounts import MountEntry
from zonefs_py.control.server import Control, ControlServer, encode
from zonefs_py.copy import abi
from zonefs_py.device.description import DeviceDescription, check_description, format_description, parse_description
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation, describe_rule, parse_rules
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import InvalidRequest, SuperblockError, UserError, ZonefsError
from zonefs_py.fs.access import ROOT
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.fs.ioctl import answer_copy
from zonefs_py.fs.superblock import SUPERBLOCK_SIZE, Features, Superblock, checksum
from zonefs_py.zone import Geometry, ZoneCondition

KIB = 1024
GEOMETRY = Geometry(64 * KIB, 48 * KIB, 7, 3, 4096, 64 * KIB)
MOST_MEMORY = 256 * KIB * KIB
"""Bytes that a fuzz run may take beside what the process had: an input of a few KiB is to cost no more than that."""

LONGEST_MESSAGE = 500
ERRNO_NAMES = {"EINVAL", "EIO", "EPERM", "EROFS", "EBUSY", "EFBIG", "ENOENT", "EISDIR", "ETOOMANYREFS", "EOVERFLOW"}

NASTY: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 511, 512, 4096, 65536, 1 << 31, 1 << 32, 1 << 60, 1 << 61, 1 << 63, 1 << 64),
    *(-(1 << 63), 10**30, 0.5, -0.0, 1e308, 1e-308, 4096.0, "", "0", "1", "3-5", "5-3", "-", "a\nb", "\x00", "\x1b[2J"),
    *(
        "\ud800",
        "²",
        "x" * 300,
        [],
        {},
        [1],
        [[]],
        {"a": 1},
        [None] * 50,
        "EIO",
        "offline",
        "read-only",
        "any",
        "write",
    ),
]


def _one_line(exc: Exception) -> None:
    text = str(exc)
    assert text
    assert "\n" not in text
    assert len(text) <= LONGEST_MESSAGE


def _feed(inputs: int, seed: int, one: Callable[[random.Random], bool]) -> Counter[str]:
    """Call *one* so often; it returns whether its input was accepted."""
    chance = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: Counter[str] = Counter()
    for number in range(inputs):
        try:
            accepted = one(chance)
        except Exception as exc:
            exc.add_note(f"input {number} of seed {seed}")
            raise
        found["accepted" if accepted else "refused"] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * KIB
    assert grown < MOST_MEMORY, f"{grown} bytes of memory for small inputs"
    return found


def damage(chance: random.Random, data: bytes) -> bytes:
    """Change some bytes of *data*: flip, overwrite, insert, remove, repeat, cut."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B, 0x5D, 0x39))
        elif kind == 2:
            changed[at:at] = chance.randbytes(chance.randrange(1, 5))
        elif kind == 3:
            del changed[at : at + chance.randrange(1, 9)]
        elif kind == 4:
            changed[at:at] = changed[at : at + chance.randrange(1, 40)]
        elif chance.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def damage_value(chance: random.Random, value: Any, names: Sequence[str]) -> Any:
    """Return *value*, decoded JSON, with something in it changed; *names* are fields that somebody knows."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        changed = dict(value)
        name = chance.choice(list(changed))
        kind = chance.randrange(6)
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[chance.choice(names) if chance.random() < 0.8 else "colour"] = chance.choice(NASTY)
        elif kind == 2:
            changed[name] = chance.choice(NASTY)
        else:
            changed[name] = damage_value(chance, changed[name], names)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.8:
        items = list(value)
        at = chance.randrange(len(items))
        items[at] = damage_value(chance, items[at], names)
        return items * chance.choice((1, 1, 1, 2)) if chance.random() < 0.9 else items[1:]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice((-4096, -512, -1, 1, 512, 4096)) if chance.random() < 0.5 else value << 1
    return chance.choice(NASTY)


def json_input(chance: random.Random, valid: Sequence[Any], names: Sequence[str]) -> bytes:
    """Return a text: one of the *valid* values, damaged as a value or as a text; now and then something else."""
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randrange(80))
    if kind < 0.06:
        return chance.choice((b"[", b'{"a":', b'{"rules":[', b"9")) * chance.choice((10, 990, 5000))
    value = chance.choice(valid)
    if kind < 0.75:
        for _ in range(chance.choice((1, 1, 2, 3))):
            value = damage_value(chance, value, names)
    text = json.dumps(value).encode()
    return text if kind < 0.75 else damage(chance, text)


# Superblocks


def superblocks(inputs: int, seed: int) -> Counter[str]:
    """Blocks for `Superblock.unpack`, most with the right checksum for what they hold."""

    def one(chance: random.Random) -> bool:
        if chance.random() < 0.05:
            block = chance.randbytes(chance.choice((0, 8, 4095, SUPERBLOCK_SIZE, SUPERBLOCK_SIZE)))
        else:
            valid = Superblock(
                b"label"[: chance.randrange(6)],
                chance.randbytes(16),
                Features(chance.randrange(16)),
                *(chance.choice((0, 1000, 0xFFFFFFFE, 0xFFFFFFFF)) for _ in range(3)),
            )
            changed = bytearray(valid.pack())
            for _ in range(chance.choice((0, 1, 1, 2))):
                # Where the fields are, most of the time.
                at = chance.randrange(116) if chance.random() < 0.9 else chance.randrange(SUPERBLOCK_SIZE)
                changed[at] = chance.randrange(256)
            if chance.random() < 0.8:
                changed[4:8] = checksum(bytes(changed)).to_bytes(4, "little")
            block = bytes(changed)
        try:
            found = Superblock.unpack(block)
        except SuperblockError as exc:
            _one_line(exc)
            return False
        assert found.pack() == block, "it is not what is on the device"
        assert (found.file_uid, found.file_gid) != (0xFFFFFFFF, 0xFFFFFFFF)
        assert len(found.label_text) <= 64
        return True

    return _feed(inputs, seed, one)


# device.json


_DESCRIPTION = DeviceDescription(
    GEOMETRY, 3, 5, "0123456789abcdef", "a drive", {4: ZoneCondition.READONLY, 6: ZoneCondition.OFFLINE}
)


def descriptions(inputs: int, seed: int) -> Counter[str]:
    """Texts for `parse_description`; some of them as the device.json of a device that is then opened."""
    valid = json.loads(format_description(_DESCRIPTION))
    plain = json.loads(format_description(DeviceDescription(GEOMETRY)))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        device = Path(name) / "disk"
        create_device(device, GEOMETRY)

        def one(chance: random.Random) -> bool:
            text = json_input(chance, (valid, plain), list(valid))
            try:
                found = parse_description(text)
            except UserError as exc:
                _one_line(exc)
                accepted = False
            else:
                check_description(found)
                assert parse_description(format_description(found)) == found
                accepted = True
            if chance.random() < (0.2 if accepted else 0.01):
                (device / "device.json").write_bytes(text)
                try:
                    with open_device(device) as opened:
                        assert accepted, "what is no description describes a device"
                        opened.report_zones()
                except UserError as exc:
                    _one_line(exc)
            return accepted

        return _feed(inputs, seed, one)


# Faults


_RULES = [
    FaultRule(Operation.WRITE, Effect.FAIL, (4, 5), first=3, error="ENOSPC", after=8192),
    FaultRule(Operation.ANY, Effect.DELAY, (4, 4), every=10, count=None, milliseconds=50),
    FaultRule(Operation.COPY, Effect.OFFLINE, source_zones=(4, 4), after=4096, target=4),
    FaultRule(Operation.READ, Effect.FLIP, (5, 5), byte=3, bit=7),
    FaultRule(Operation.WRITE, Effect.EXTERNAL_WRITE, length=4096),
    FaultRule(Operation.WRITE, Effect.FAIL, probability=0.5, seed=7, count=None, at_byte=4096, name="half"),
    FaultRule(Operation.READ, Effect.STUCK, blocks=(3, 9)),
]
_RULE_NAMES = sorted({name for rule in _RULES for name in vars(rule)})


def faults(inputs: int, seed: int) -> Counter[str]:
    """Texts for `parse_rules`; what is accepted becomes rules of a device, or is refused by it."""
    contents = [describe_rule(rule) for rule in _RULES]
    valid = [{"version": 1, "rules": contents[at : at + 2], "name": "x", "description": "y"} for at in range(7)]
    memory = MemoryDevice(GEOMETRY)

    def one(chance: random.Random) -> bool:
        text = json_input(chance, valid, ["version", "rules", "name", "description", *_RULE_NAMES])
        try:
            found = parse_rules(text)
            again = json.dumps({"version": 1, "rules": [describe_rule(rule) for rule in found]})
            assert parse_rules(again) == found
            device = FaultDevice(memory, found)
        except UserError as exc:
            _one_line(exc)
            return False
        assert [status.rule for status in device.rules] == found
        return True

    return _feed(inputs, seed, one)


# Control requests


class Daemon:
    """What a daemon has, but for FUSE."""

    def __init__(self) -> None:
        self.device = FaultDevice(WriteCacheDevice(MemoryDevice(GEOMETRY, 3, 4)))
        format_device(self.device, FormatOptions(), uuid=bytes(16))
        self.device.flush()
        self.fs = Filesystem(self.device)
        self._level = logging.getLogger().level
        entry = MountEntry("0:99", "/mnt", "fuse.zonefs-py", "/disk", frozenset({"user_id=0"}))
        self.control = Control(self.fs, entry, lambda: "rw", {"versions": {}, "capabilities": {}})

    def state(self) -> tuple[Any, ...]:
        """What a request could change."""
        fs = self.fs
        files = [(one.size, one.mode) for one in map(fs.getattr, range(1, GEOMETRY.nr_zones))]
        rules = [status.rule for status in self.device.rules]
        settings = fs.options, fs.read_only, fs.copy_engine.limits, logging.getLogger().level
        unflushed = [(zone.number, zone.length, zone.blocks) for zone in self.device.unflushed()]
        return self.device.report_zones(), unflushed, files, rules, settings

    def settle(self) -> None:
        """Undo what would make all that follows wait or fail; and have something that a power cut could lose."""
        self.device.remove_rules()
        logging.getLogger().setLevel(self._level)
        if not self.fs.powered:
            self.device.power_on()
            # It may be why the device could not be mounted again.
            self.device.force_condition(0, None)
            self.fs.power_on()
        if not self.device.unflushed():
            # Unless the file is full, or all is read-only now.
            with contextlib.suppress(ZonefsError):
                handle = self.fs.open("seq/0", os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
                with contextlib.suppress(ZonefsError):
                    self.fs.write(handle, 0, bytes(4096))
                self.fs.release(handle)

    @property
    def _control(self) -> Control:
        return self.control

    def answer(self, line: bytes) -> dict[str, Any]:
        """Answer a line as the socket does."""
        answer = ControlServer.answer_line(self, line)  # type: ignore[arg-type]  # only `_control` is used
        decoded: dict[str, Any] = json.loads(b"".join(encode(answer)))
        return decoded


_REQUESTS: list[dict[str, Any]] = [
    {"request": "ping"},
    {"request": "info"},
    {"request": "report"},
    {"request": "statistics"},
    {"request": "force-condition", "zones": [4], "condition": "offline"},
    {"request": "force-condition", "zones": [1, 4, 5], "condition": None},
    {"request": "remount", "errors": "repair", "explicit_open": True, "read_only": False},
    {"request": "remount", "read_only": True},
    {"request": "copy-limits"},
    {"request": "set-copy-limits", "limits": {"copy_max_bytes": 4096, "copy_offload": 1}},
    {"request": "set-copy-limit", "name": "copy_max_bytes", "value": 8192},
    {"request": "manage-zones", "operation": "finish", "zones": [3, 5]},
    {"request": "manage-zones", "operation": "reset", "zones": [3]},
    {"request": "why", "last": 5},
    {"request": "list-faults"},
    {"request": "remove-faults", "numbers": [1]},
    {"request": "release-stuck", "numbers": [], "fail": True},
    {"request": "power-cut"},
    {"request": "power-cut", "keep": "seed:7"},
    {"request": "power-cut", "keep": "all", "dead": True},
    {"request": "power-on"},
    {"request": "set-log-level", "level": "debug"},
    *({"request": "add-faults", "rules": [describe_rule(rule)]} for rule in _RULES),
]
_REQUEST_NAMES = sorted({name for request in _REQUESTS for name in request})


def check_answer(answer: Any) -> bool:
    """Return whether *answer*, of a daemon, says that a request was done; it is well-formed."""
    if answer["ok"]:
        return True
    assert answer["error"]
    assert len(answer["error"]) <= LONGEST_MESSAGE, answer
    assert "\n" not in answer["error"], answer
    assert answer["errno"] in ERRNO_NAMES
    return False


def requests(inputs: int, seed: int) -> Counter[str]:
    """Lines for the control socket, without the socket: what is refused has changed nothing."""
    daemon = Daemon()
    daemon.settle()
    before = daemon.state()

    def one(chance: random.Random) -> bool:
        nonlocal before
        line = json_input(chance, _REQUESTS, [*_REQUEST_NAMES, *_RULE_NAMES])
        answer = daemon.answer(line)
        accepted = check_answer(answer)
        # Two errors come after something was done: of several zones that are managed one cannot be, and a device cannot
        # be mounted after a power cut.
        if accepted or "zones were done before" in answer["error"] or not daemon.fs.powered:
            daemon.settle()
            before = daemon.state()
            return accepted
        if chance.random() < 0.1:
            assert daemon.state() == before, "what was refused has changed something"
        return False

    found = _feed(inputs, seed, one)
    assert daemon.answer(b'{"request": "ping"}')["ok"]
    daemon.fs.close()
    return found


def socket_lines(inputs: int, seed: int) -> Counter[str]:
    """The same through a real socket, with lines that come in pieces, are too long, or never end."""
    daemon = Daemon()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        path = Path(name) / "socket"
        server = ControlServer(path, daemon.control)

        def connect() -> socket.socket:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(60)
            connection.connect(str(path))
            return connection

        def one(chance: random.Random) -> bool:
            line = json_input(chance, _REQUESTS, [*_REQUEST_NAMES, *_RULE_NAMES]).replace(b"\n", b" ")
            if chance.random() < 0.002:
                line = b'"' + b"x" * (1 << 21)
            with connect() as connection:
                try:
                    if chance.random() < 0.1:
                        # Somebody who goes away in the middle.
                        connection.sendall(line[: len(line) // 2])
                        return False
                    cut = chance.randrange(len(line) + 1)
                    connection.sendall(line[:cut])
                    connection.sendall(line[cut:] + b"\n")
                    with connection.makefile("rb") as stream:
                        answered = stream.readline()
                except (BrokenPipeError, ConnectionResetError):
                    return False  # it was too long, and nobody read it to its end
                daemon.settle()
                return bool(answered) and check_answer(json.loads(answered))

        try:
            found = _feed(inputs, seed, one)
            with connect() as connection:
                connection.sendall(b'{"request": "ping"}\n')
                with connection.makefile("rb") as stream:
                    assert json.loads(stream.readline())["ok"]
        finally:
            server.stop()
    daemon.fs.close()
    return found


# Buffers of the copy ioctl


def ioctl_buffers(inputs: int, seed: int) -> Counter[str]:
    """Buffers for the copy ioctl on an open file: what is answered fits the request, and what the file has become."""
    memory = MemoryDevice(GEOMETRY)
    format_device(memory, FormatOptions(), uuid=bytes(16))
    fs = Filesystem(memory)
    for name in ("seq/0", "cnv/0"):
        handle = fs.open(name, os.O_WRONLY | os.O_DIRECT)
        fs.write(handle, 0, bytes(48 * KIB))
        fs.release(handle)
    target = fs.resolve("seq/1")
    writer = fs.open(target, os.O_WRONLY)
    numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 511, 4096, 8192, 12288, 48 * KIB, 1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1]

    def one(chance: random.Random) -> bool:
        sources = tuple(
            abi.SourceRange(chance.choice((1, 1, 3, 3, 9, 1 << 63)), chance.choice(numbers), chance.choice(numbers))
            if chance.random() < 0.2
            else abi.SourceRange(chance.choice((1, 3)), chance.choice((0, 4096)), 4096)
            for _ in range(chance.choice((1, 1, 1, 2, 5, 40)))
        )
        offset = None if chance.random() < 0.7 else chance.choice(numbers[:-1])
        data = bytes(abi.pack_request(abi.CopyRequest(offset, sources)))
        if chance.random() < 0.4:
            data = damage(chance, data)
        elif chance.random() < 0.05:
            data = chance.randbytes(chance.choice((0, 31, 32, 64, 96, 16352)))
        try:
            request = abi.parse_request(data)
        except InvalidRequest as exc:
            _one_line(exc)
            return False
        before = fs.getattr(target).size
        answered = answer_copy(fs, writer, data, request, ROOT)
        reply = abi.parse_reply(answered, len(request.sources))
        assert len(answered) == len(data)
        copied = fs.getattr(target).size - before
        assert copied == sum(reply.completed)
        assert all(done <= source.length for done, source in zip(reply.completed, request.sources, strict=True))
        if reply.result:
            assert copied == 0, "the device is healthy: it is copied whole or not at all"
        else:
            assert copied == sum(source.length for source in request.sources)
            assert reply.offset == before
        if fs.getattr(target).size > 40 * KIB:
            fs.truncate(target, 0)
        return reply.result == 0

    try:
        return _feed(inputs, seed, one)
    finally:
        fs.close()


FUZZERS: dict[str, Callable[[int, int], Counter[str]]] = {
    "superblock": superblocks,
    "device.json": descriptions,
    "faults": faults,
    "control": requests,
    "ioctl": ioctl_buffers,
}
"""What is fuzzed a hundred thousand times each."""

"""Copies of ranges of a bare device: the checks in their order, what zones make of it, and the command."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from tests.core.test_cli import call, refused, run, snapshot
from zonefs_py import Geometry, MemoryDevice
from zonefs_py.cli import main as main_module
from zonefs_py.copy.blocks import MAX_COPY_NR_RANGES, MAX_COPY_TOTAL_BYTES, copy_blocks
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.device.directory import open_device
from zonefs_py.errors import DeviceError, InvalidRequest, NotAligned, NotPermitted, ZonefsError
from zonefs_py.units import KIB, MIB
from zonefs_py.zone import ZoneCondition

BLOCK = 4096
ZONE = 64 * KIB
CAPACITY = 48 * KIB
LARGE = 256 * MIB


def pattern(size: int) -> bytes:
    return b"".join(struct.pack("<Q", number) for number in range(size // 8))


@pytest.fixture
def device() -> MemoryDevice:
    """Zones 0 to 3 conventional, of which 0 and 1 hold data; 4 to 7 sequential, 4 full of data."""
    device = MemoryDevice(Geometry(ZONE, CAPACITY, 8, 4, BLOCK, ZONE))
    device.write(0, pattern(2 * ZONE))
    device.write(4 * ZONE, pattern(CAPACITY))
    return device


@pytest.fixture
def large() -> MemoryDevice:
    """Two conventional zones in which 128 MiB are not much."""
    return MemoryDevice(Geometry(LARGE, LARGE, 2, 2, BLOCK, LARGE))


def state(device: MemoryDevice) -> object:
    geometry = device.geometry
    return device.report_zones(), [device.read(n * geometry.zone_size, geometry.zone_size) for n in range(8)]


BLOCK_RANGE = (0, BLOCK)
TO = 3 * ZONE


@pytest.mark.parametrize(
    ("ranges", "destination", "error"),
    [
        ([], TO, "0 ranges: there can be 1 to 4095"),
        ([BLOCK_RANGE] * 4096, TO, "4096 ranges: there can be 1 to 4095"),
        ([BLOCK_RANGE, (0, 0)], TO, "0 bytes"),
        ([BLOCK_RANGE, (512, BLOCK)], TO, "not multiples of the block size, 4096"),
        ([BLOCK_RANGE, (0, BLOCK + 512)], TO, "not multiples of the block size, 4096"),
        ([BLOCK_RANGE], TO + 2048, "not multiples of the block size, 4096"),
        ([BLOCK_RANGE], TO + 1, "not multiples of the block size, 4096"),
        ([(-BLOCK, BLOCK)], TO, "copy of"),
        ([BLOCK_RANGE, (0, -BLOCK)], TO, "copy of"),
        ([BLOCK_RANGE], -BLOCK, "copy of"),
        ([(8 * ZONE, BLOCK)], TO, "the device has 524288"),
        ([(8 * ZONE - BLOCK, 2 * BLOCK)], TO, "the device has 524288"),
        ([BLOCK_RANGE, BLOCK_RANGE], 8 * ZONE - BLOCK, "the device has 524288"),
        ([BLOCK_RANGE, (TO + BLOCK, BLOCK)], TO, "overlaps"),
        ([(TO, 2 * BLOCK)], TO + BLOCK, "overlaps"),
    ],
)
def test_what_is_refused_changes_nothing(
    device: MemoryDevice, ranges: list[tuple[int, int]], destination: int, error: str
) -> None:
    before = state(device)
    with pytest.raises(InvalidRequest, match=error):
        copy_blocks(device, ranges, destination)
    assert state(device) == before


def test_the_checks_come_in_the_order_of_the_series(tmp_path: Path) -> None:
    run("create", tmp_path / "d", "--zones", "2", "--conventional", "2", "--zone-size", "256M")
    zero, crooked, much = (0, 0), (512, BLOCK), (0, MAX_COPY_TOTAL_BYTES)
    with open_device(tmp_path / "d", read_only=True) as device:
        for ranges in ([], [zero] * 4096):
            with pytest.raises(InvalidRequest, match="there can be"):
                copy_blocks(device, ranges, 1)
        for ranges in ([zero] * 4095, [crooked], [much], [BLOCK_RANGE]):
            with pytest.raises(NotPermitted, match="read-only"):
                copy_blocks(device, ranges, LARGE)
    ladder: list[tuple[list[tuple[int, int]], type[ZonefsError], str]] = [
        ([crooked, much, zero], InvalidRequest, "0 bytes"),
        ([much, crooked], NotAligned, "not multiples"),
        ([much, (1 << 40, BLOCK)], InvalidRequest, "less than 134217728"),
        ([(1 << 40, BLOCK), (LARGE, BLOCK)], InvalidRequest, "the device has"),
        ([(LARGE, BLOCK)], InvalidRequest, "overlaps"),
    ]
    with open_device(tmp_path / "d") as device:
        for ranges, error, words in ladder:
            with pytest.raises(error, match=words):
                copy_blocks(device, ranges, LARGE)


@pytest.mark.parametrize("count", [1, MAX_COPY_NR_RANGES - 1, MAX_COPY_NR_RANGES])
def test_numbers_of_ranges_up_to_the_limit(large: MemoryDevice, count: int) -> None:
    large.write(0, pattern(BLOCK))
    copied = copy_blocks(large, [BLOCK_RANGE] * count, LARGE)
    assert copied == ((BLOCK,) * count, None)
    assert large.read(LARGE, count * BLOCK) == pattern(BLOCK) * count


@pytest.mark.parametrize("parts", [1, 2])
def test_totals_up_to_the_limit(large: MemoryDevice, parts: int) -> None:
    over = [(number * BLOCK, MAX_COPY_TOTAL_BYTES // parts) for number in range(parts)]
    with pytest.raises(InvalidRequest, match="less than 134217728"):
        copy_blocks(large, over, LARGE)
    assert large.report_zones()[1].data_size is None
    under = [*over[1:], (0, over[0][1] - BLOCK)]
    large.write(MAX_COPY_TOTAL_BYTES // parts - 2 * BLOCK, pattern(BLOCK))
    assert copy_blocks(large, under, LARGE).completed == tuple(length for _, length in under)
    end = LARGE + MAX_COPY_TOTAL_BYTES - BLOCK
    assert large.read(end - BLOCK, BLOCK) == pattern(BLOCK)


def test_ranges_cross_zones_as_in_the_block_layer(device: MemoryDevice) -> None:
    engine = CopyEngine(device)
    ranges = [(ZONE - BLOCK, 2 * BLOCK), (0, BLOCK)]
    copied = copy_blocks(device, ranges, 3 * ZONE - 2 * BLOCK, engine)
    assert copied == ((2 * BLOCK, BLOCK), None)
    data = pattern(2 * ZONE)
    assert device.read(3 * ZONE - 2 * BLOCK, 3 * BLOCK) == data[ZONE - BLOCK : ZONE + BLOCK] + data[:BLOCK]
    # A command stays in one zone of the destination.
    assert engine.counters[Engine.HOST].commands == 2
    # What was never written is zeros, as for a reader: from the end of a sequential zone into the next one.
    assert copy_blocks(device, [(5 * ZONE - 2 * BLOCK, 3 * BLOCK)], 2 * ZONE).error is None
    assert device.read(2 * ZONE, 3 * BLOCK) == bytes(3 * BLOCK)


@pytest.mark.parametrize(
    ("destination", "lengths", "completed", "wpoffset"),
    [
        (5 * ZONE, (BLOCK, BLOCK), (BLOCK, BLOCK), 2 * BLOCK),
        (5 * ZONE, (CAPACITY,), (CAPACITY,), CAPACITY),
        (5 * ZONE + BLOCK, (BLOCK,), (0,), 0),  # not at the write pointer
        (4 * ZONE, (BLOCK,), (0,), 0),  # full
        (5 * ZONE, (CAPACITY - BLOCK, 2 * BLOCK, BLOCK), (CAPACITY - BLOCK, 0, 0), CAPACITY - BLOCK),
    ],
)
def test_a_sequential_zone_has_the_last_word(
    device: MemoryDevice, destination: int, lengths: tuple[int, ...], completed: tuple[int, ...], wpoffset: int
) -> None:
    copied = copy_blocks(device, [(0, length) for length in lengths], destination)
    assert copied.completed == completed
    assert (copied.error is None) == (completed == lengths)
    assert copied.error is None or isinstance(copied.error, DeviceError)
    zone = device.report_zones(5, 1)[0]
    assert zone.data_size == wpoffset
    written = b"".join(pattern(2 * ZONE)[:done] for done in completed)
    assert device.read(5 * ZONE, ZONE)[:wpoffset] == written[:wpoffset]


def test_a_range_over_a_zone_that_is_offline_comes_as_far_as_that(device: MemoryDevice) -> None:
    device.force_condition(1, ZoneCondition.OFFLINE)
    copied = copy_blocks(device, [(0, BLOCK), (ZONE - 2 * BLOCK, 4 * BLOCK), (0, BLOCK)], 2 * ZONE)
    assert copied.completed == (BLOCK, 2 * BLOCK, 0)
    assert isinstance(copied.error, DeviceError)


def test_with_every_engine(device: MemoryDevice) -> None:
    for number, wanted in enumerate((Engine.HOST, Engine.EMULATE)):
        copy_blocks(device, [(8 * BLOCK, BLOCK), (0, BLOCK)], (5 + number) * ZONE, CopyEngine(device, wanted))
    assert device.read(5 * ZONE, ZONE) == device.read(6 * ZONE, ZONE)
    assert device.read(5 * ZONE, BLOCK) == pattern(9 * BLOCK)[8 * BLOCK :]


# The command


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A device of four zones, two of them conventional; zone 1 holds data."""
    path = tmp_path / "d"
    run("create", path, "--zones", "4", "--conventional", "2", "--zone-size", "256K", "--zone-capacity", "192K")
    with open_device(path) as device:
        device.write(256 * KIB, pattern(256 * KIB))
    return path


def test_the_command_copies_and_says_how_much(directory: Path) -> None:
    result = run("blkcopy", directory, "--range", "256K:8K", "--range", "320K:4096", "--to", "512K")
    assert [line.split() for line in result.out.splitlines()] == [
        ["source", "length", "comp_len"],
        ["262144", "8192", "8192"],
        ["327680", "4096", "4096"],
    ]
    data = pattern(256 * KIB)
    assert (directory / "seq-000002").read_bytes() == data[: 8 * KIB] + data[64 * KIB : 68 * KIB]
    out = run("blkcopy", directory, "--range", "256K:4K", "--to", str(524288 + 12288), "--format", "json").out
    assert json.loads(out) == {
        "schema": "zonefs-py/blkcopy",
        "version": 1,
        "to": 536576,
        "ranges": [{"source": 262144, "length": 4096, "comp_len": 4096}],
    }


def test_the_command_fails_when_not_all_is_copied(directory: Path) -> None:
    result = call(main_module.main, "blkcopy", directory, "--range", "256K:188K", "--range", "256K:8K", "--to", "512K")
    assert result.status == 1
    assert [line.split()[2] for line in result.out.splitlines()] == ["comp_len", "192512", "0"]
    assert result.err == f"zonefs-py: {directory}: zone 2: write of 8192 bytes at 192512 crosses the zone capacity\n"
    assert (directory / "seq-000002").read_bytes() == pattern(256 * KIB)[: 188 * KIB]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--range", "99999999999999999999T:4K", "--to", "512K"], "the device has 1048576"),
        (["--range", "256K:99999999999999999999T", "--to", "512K"], "at once it must be less than 134217728"),
        (["--range", "256K:4K", "--to", "99999999999999999999T"], "the device has 1048576"),
        (["--range", "256K:0", "--to", "512K"], "0 bytes"),
        (["--range", "256K:4K", "--range", "256K:1K", "--to", "512K"], "not multiples of the block size"),
        (["--range", "0:4K", "--range", "256K:128M", "--to", "512K"], "at once it must be less than 134217728"),
        (["--range", "1M:4K", "--to", "512K"], "the device has 1048576"),
        (["--range", "256K:8K", "--to", "260K"], "overlaps"),
    ],
)
def test_what_the_command_refuses(directory: Path, words: list[str], complaint: str) -> None:
    before = snapshot(directory)
    assert complaint in refused("blkcopy", directory, *words)
    assert snapshot(directory) == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--range", "256K", "--to", "512K"], "'--range': '256K' is not SRC:LEN"),
        (["--range", "256K:", "--to", "512K"], "'--range': '' is not a size"),
        (["--range", ":4K", "--to", "512K"], "'--range': '' is not a size"),
        (["--range", "256K:4K", "--to", "there"], "'--to': 'there' is not a size"),
    ],
)
def test_what_no_device_could_take(directory: Path, words: list[str], complaint: str) -> None:
    assert complaint in refused("blkcopy", directory, *words, status=2)


def test_the_command_needs_a_device_and_its_options(directory: Path, tmp_path: Path) -> None:
    assert "neither" in refused("blkcopy", tmp_path, "--range", "0:4K", "--to", "512K")
    assert "--range" in refused("blkcopy", directory, "--to", "512K", status=2)
    assert "--to" in refused("blkcopy", directory, "--range", "0:4K", status=2)
    with open_device(directory):
        assert f"in use by pid {os.getpid()}" in refused("blkcopy", directory, "--range", "0:4K", "--to", "512K")


def test_a_superblock_is_not_copied_over_by_accident(directory: Path) -> None:
    run("mkfs", directory)
    before = snapshot(directory)
    words = ("blkcopy", directory, "--range", "256K:4K", "--to", "128K")
    assert "zone 0 holds the superblock" in refused(*words)
    assert snapshot(directory) == before
    run(*words, "-f")
    run("blkcopy", directory, "--range", "0:4K", "--to", "256K")
    assert (directory / "cnv-000001").read_bytes()[:BLOCK] == (directory / "cnv-000000").read_bytes()[:BLOCK]


@pytest.mark.parametrize("format_name", ["table", "json"])
def test_how_far_it_came_is_told_though_it_may_be_lost_again(directory: Path, tmp_path: Path, format_name: str) -> None:
    rules = {"version": 1, "rules": [{"operation": "flush", "effect": "fail"}]}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    stack = f"fault:{tmp_path}/rules.json,{directory}"
    words = ("--range", "256K:8K", "--to", "512K", "--format", format_name)
    result = call(main_module.main, "blkcopy", stack, *words)
    assert result.status == 1
    if format_name == "json":
        assert json.loads(result.out)["ranges"][0]["comp_len"] == 8 * KIB
    else:
        assert result.out.split()[-1] == "8192"
    assert result.err.startswith(f"zonefs-py: {stack}: ")
    assert "flush" in result.err

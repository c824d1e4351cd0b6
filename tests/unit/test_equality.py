"""The comparison with the kernel's answers: that it would find what it is there to find."""

from __future__ import annotations

import copy
import fnmatch
import json
from typing import Any

import pytest

from tests.equality import runner
from tests.equality.cases import LIVE_GROUPS
from tests.equality.compare import Recording, compare, read_lines, read_recording
from tests.equality.differences import DIFFERENCES
from tests.equality.random_calls import LIVE_SEQUENCES


@pytest.fixture(scope="module")
def recorded() -> Recording:
    return read_recording(runner.RECORDED)


@pytest.fixture
def ours(recorded: Recording) -> Recording:
    """As if we answered just like the kernel."""
    return Recording("ours", "us", copy.deepcopy(recorded.cases))


def test_equal_answers_are_equal(recorded: Recording, ours: Recording) -> None:
    result = compare(recorded, ours)
    assert result.unexplained == []
    assert result.equal == recorded.calls
    # A difference that is gone must go from the table, and from docs/differences.md.
    assert result.unused == [one.name for one in DIFFERENCES if not one.only_on_block_devices]
    assert result.unused_on_block_device == [
        one.name for one in DIFFERENCES if one.only_on_block_devices and any(map(one.concerns, recorded.cases))
    ]


def test_differences_of_block_devices_are_missed_only_where_they_could_be_met(recorded: Recording) -> None:
    some = runner.matching(recorded, ["mounts/*", "plain/names"])
    assert {name.partition("/")[0] for name in some.cases} == {"mounts", "plain"}
    ours = Recording("ours", "us", copy.deepcopy(some.cases))
    (missed,) = compare(some, ours).unused_on_block_device
    assert missed.startswith("zones of a block device that are open")
    line = next(line for line in ours.cases["mounts/mount_read_only"] if line.get("ret") == {"4": "cl 4096"})
    line["ret"] = {"4": "oi 4096"}
    met = compare(some, ours)
    assert (met.unexplained, met.unused_on_block_device) == ([], [])
    assert compare(recorded.only(["plain/names"]), ours.only(["plain/names"])).unused_on_block_device == []


def test_what_runs_on_null_blk_is_there(recorded: Recording) -> None:
    for patterns in runner.ON_NULL_BLK.values():
        for pattern in patterns:
            assert runner.matching(recorded, [pattern]).cases
    patterns = [pattern for some in runner.ALL_ON_NULL_BLK.values() for pattern in some]
    assert runner.matching(recorded, patterns) == recorded


def test_what_is_asked_live_is_there() -> None:
    for kind, patterns in runner.LIVE.items():
        names = [f"{name}/{case.__name__}" for name, group in LIVE_GROUPS.items() for case in group.cases]
        names = [name for name in names if LIVE_GROUPS[name.partition("/")[0]].device == kind]
        names += [f"random/{name}" for name in LIVE_SEQUENCES[kind]]
        for pattern in patterns:
            assert fnmatch.filter(names, pattern), pattern
    assert {group.device for group in LIVE_GROUPS.values()} == set(runner.LIVE) == set(runner.ALL_LIVE)


@pytest.mark.parametrize(
    ("case", "line", "change", "words"),
    [
        ("plain/write_positions", 1, {"ret": 512}, "pwrite ['seq/0', 0, 4096]: the kernel 4096, we 512"),
        ("plain/write_positions", 3, {"err": "EIO"}, "the kernel EINVAL, we EIO"),
        ("plain/write_positions", 1, {"state": [8192, "100640", 8192, 0, 0]}, "files [4096, '100640', 8192, 0, 0] and"),
        ("plain/tree", 1, {"ret": []}, "we []"),
        ("random/limits", 20, {"args": ["other"]}, "we were asked"),
        ("plain/identity", 0, {"ret": "0x1"}, "statfs-type []: the kernel 0x5a4f4653, we 0x1"),
    ],
)
def test_another_answer_is_found(
    recorded: Recording, ours: Recording, case: str, line: int, change: dict[str, Any], words: str
) -> None:
    ours.cases[case][line] |= change
    (found,) = compare(recorded, ours).unexplained
    assert found.startswith(f"{case}: line {line + 1}: ")
    assert words in found


def test_a_known_difference_is_explained_and_counted(recorded: Recording, ours: Recording) -> None:
    ours.cases["plain/identity"][0]["ret"] = "0x65735546"
    result = compare(recorded, ours)
    assert result.unexplained == []
    assert {name: count for name, count in result.known.items() if count} == {"type in statfs": 1}


def test_a_known_difference_explains_nothing_elsewhere(recorded: Recording, ours: Recording) -> None:
    """Writes of 0 bytes differ, but not where the kernel takes them."""
    line = next(
        line for line in ours.cases["plain/write_nothing_buffered"] if line.get("ret") == 0 and "pwrite" in line["call"]
    )
    del line["ret"]
    line["err"] = "EIO"
    assert len(compare(recorded, ours).unexplained) == 1


def test_a_copy_of_nothing_is_one_only_if_there_is_nothing_to_copy(recorded: Recording, ours: Recording) -> None:
    """Where the kernel refuses a copy of data by EFBIG, a copy of 0 bytes is another answer."""
    sizes: dict[str, int] = {}
    changed = 0
    for line in ours.cases["random/blocks"]:
        args = line["args"]
        if line["call"] == "copy_file_range":
            if line.get("err") == "EFBIG" and args[1] < sizes[args[0]]:
                del line["err"]
                line["ret"] = 0
                changed += 1
            sizes[args[2]] = line["state"][0]
        elif line["call"] in ("open", "pwrite", "write", "truncate", "ftruncate", "fsync", "close"):
            sizes[args[0]] = line["state"][0]
    assert changed
    assert len(compare(recorded, ours).unexplained) == changed


def test_what_is_missing_is_found(recorded: Recording, ours: Recording) -> None:
    del ours.cases["plain/names"]
    ours.cases["odd/tree"].pop()
    ours.cases["odd/more"] = []
    found = compare(recorded, ours).unexplained
    assert [line.partition(":")[0] for line in found] == ["plain/names", "odd/tree", "odd/more"]


def test_what_the_probe_writes_is_read() -> None:
    lines = [{"subject": "kernel", "version": "Linux"}, {"case": "a/b"}, {"call": "c", "args": [1], "ret": None}]
    recording = read_lines(map(json.dumps, lines))
    assert recording == Recording("kernel", "Linux", {"a/b": [{"call": "c", "args": [1], "ret": None}]})
    assert recording.only(["x"]).cases == {}
    assert read_lines(recording.lines()) == recording

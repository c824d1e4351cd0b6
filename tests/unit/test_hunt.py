"""The hunt for differences: what is drawn, compared, made shorter and told; no file system has a part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.equality import hunt
from tests.equality.compare import Line
from tests.equality.shrink import shrink
from tests.equality.wide_calls import SCENES, Player, Step, draw


def needs(*words: str) -> Callable[[list[str]], bool]:
    """Whether these are there, in this order."""

    def shows(steps: list[str]) -> bool:
        left = iter(steps)
        return all(word in left for word in words)

    return shows


@pytest.mark.parametrize("wanted", ["a", "z", "az", "bcd", "aceg", "abcdefghijklmnopqrstuvwxyz"])
def test_only_what_is_needed_is_left(wanted: str) -> None:
    assert shrink(list("abcdefghijklmnopqrstuvwxyz"), needs(*wanted), 1000) == list(wanted)


def test_shrinking_tries_no_more_than_it_may_and_what_is_left_still_shows_it() -> None:
    asked: list[list[str]] = []

    def shows(steps: list[str]) -> bool:
        asked.append(steps)
        return needs("c", "x")(steps)

    left = shrink(list("abcdefghijklmnopqrstuvwxyz"), shows, 4)
    assert len(asked) == 4
    assert needs("c", "x")(left)
    assert len(left) < 26


def test_what_cannot_be_shorter_stays() -> None:
    assert shrink(["a"], lambda _: pytest.fail("there is nothing to leave out"), 10) == ["a"]
    assert shrink(list("abc"), lambda _: False, 10) == list("abc")
    assert shrink([], lambda _: True, 10) == []


@pytest.mark.parametrize("name", SCENES)
def test_a_seed_says_what_is_drawn(name: str) -> None:
    scene = SCENES[name]
    steps = draw(7, scene, 200)
    assert steps == draw(7, scene, 200) != draw(8, scene, 200)
    assert len(steps) == 200
    assert steps[-1] == ("check", {})
    assert all(callable(getattr(Player, step)) for step, _ in steps)


def test_fewer_steps_are_the_first_of_more() -> None:
    assert draw(3, SCENES["plain"], 50)[:-1] == draw(3, SCENES["plain"], 100)[:49]


def line(call: str, step: int, **words: Any) -> Line:
    return {"call": call, "args": words.pop("args", ["seq/0", 0, 4096]), "step": step, **words}


SAME = [line("open", 0, ret=0), line("pwrite", 1, ret=4096), line("close", 4, ret=None)]


def test_the_first_difference_names_its_step() -> None:
    ours = [*SAME[:1], line("pwrite", 1, err="EIO"), line("close", 4, err="EIO")]
    equal, known, finding = hunt.first_difference("plain", SAME, ours)
    assert (equal, known) == (1, {})
    assert finding == hunt.Finding(("pwrite", "", "EIO"), "pwrite ['seq/0', 0, 4096]: the kernel 4096, we EIO", 1)
    assert hunt.first_difference("plain", SAME, SAME) == (3, {}, None)


def test_another_state_is_a_difference() -> None:
    theirs, ours = ([line("fsync", 3, ret=None, state=[size])] for size in (0, 4096))
    _, _, finding = hunt.first_difference("plain", theirs, ours)
    assert finding is not None
    assert finding.kind == ("fsync", "", "")
    assert finding.text.endswith("files [0] and [4096]")


@pytest.mark.parametrize(
    ("ours", "asked"),
    [
        ([SAME[0], line("fsync", 1, ret=None)], "fsync"),
        ([SAME[0], line("broken", 1, args=[], ret="Traceback")], "broken"),
        (SAME[:1], "nothing"),
    ],
)
def test_other_calls_are_a_difference(ours: list[Line], asked: str) -> None:
    _, _, finding = hunt.first_difference("plain", SAME, ours)
    assert finding is not None
    assert finding.kind == ("asked", "pwrite", asked)
    assert finding.step == 1


def test_known_differences_are_counted_and_no_finding() -> None:
    theirs = line("open", 5, args=["seq/0", "RDWR"], err="EPERM")
    ours = line("open", 5, args=["seq/0", "RDWR"], err="EACCES")
    equal, known, finding = hunt.first_difference("plain", [*SAME, theirs], [*SAME, ours])
    assert (equal, list(known.values()), finding) == (3, [1], None)
    equal, known, finding = hunt.first_difference("plain", [*SAME, ours], [*SAME, theirs])
    assert known == {}
    assert finding is not None


def sides(bad: str) -> hunt.Both:
    """Two file systems that differ in the calls of a step called *bad* after one called open, and their steps."""

    def both(scene: str, steps: list[Step]) -> tuple[list[Line], list[Line]]:
        assert scene in SCENES
        opened = [number for number, (name, _) in enumerate(steps) if name == "open"]
        kernel = [line(name, number, ret=0) for number, (name, _) in enumerate(steps) if name != "external"]
        ours = [
            line(name, number, ret=int(name == bad and bool(opened) and opened[0] < number))
            for number, (name, _) in enumerate(steps)
            if name != "external"
        ]
        return kernel, ours

    return both


def test_a_round_that_finds_something_is_told_as_short_as_it_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    tally = hunt.hunt(sides("look"), 11, 200, 0, ["plain"])
    assert tally.found == {("look", "", ""): 1}
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("seed 11 (plain), step ")
    assert told[1].startswith("  2 steps are enough; Scene(")
    assert told[2:] == ['    open ["seq/0", 0, 4096]: 0', '    look ["seq/0", 0, 4096]: 0 | 1']
    assert str(tally).splitlines()[1] == "not explained: 1 x look: the kernel other, we other"


def test_a_round_that_finds_nothing_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tally = hunt.hunt(sides("no such step"), 11, 50, 0, list(SCENES))
    assert capsys.readouterr().out == ""
    assert str(tally) == f"1 rounds, {tally.equal} answers equal, 0 known differences"


def test_a_kind_that_was_found_before_is_counted_only() -> None:
    tally = hunt.Tally()
    finding = hunt.Finding(("open", "EIO", ""), "text", 3)
    assert tally.take(10, {"a": 1}, finding)
    assert not tally.take(10, {"a": 2}, finding)
    assert not tally.take(5, {}, None)
    assert (tally.rounds, tally.equal, tally.known, tally.found) == (3, 25, {"a": 3}, {finding.kind: 2})

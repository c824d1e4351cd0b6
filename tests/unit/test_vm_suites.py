"""The tables of tests/vm/suites.py are what the scripts say."""

from __future__ import annotations

import re

import pytest

from tests.vm.suites import SCRIPTS, SUITES, WITHOUT, each_once, every_script, everything, numbers, same_everywhere

SAID = {
    "a conventional file": r"^require_cnv_files\b",
    "a sequential zone 0": r"^require_seq_zone_0\b",
    "a conventional zone 0": r"^require_changeable_superblock\b",
    "a smaller last zone": r"^require_smaller_last_zone\b",
    "limits on open and active zones": r"^require_limits\b",
    "freedom from such limits": r"^require_no_limits\b",
    "zones that can be made to fail": r"^(require_breakable_zones|check_write_error \S+ (readonly|offline))\b",
    "the files of an emulated device": r"^(require_emulated|check_write_error \S+ host)\b",
}
"""How a script says that it needs something."""


@pytest.mark.parametrize("what", WITHOUT)
def test_scripts_skip_where_they_say_so(what: str) -> None:
    said = [number for number in every_script() if re.search(SAID[what], text(number), re.MULTILINE)]
    assert numbers(WITHOUT[what]) == said


def test_nothing_else_makes_a_script_skip() -> None:
    patterns = "|".join(pattern for pattern in SAID.values())
    for number in every_script():
        for line in text(number).splitlines():
            if re.match(r"(require_|exit_skip|check_write_error)", line) and not re.match(r"require_program\b", line):
                assert re.match(patterns, line) or re.match(r"check_write_error \S+ (forward|reset|finish) ", line), (
                    f"{number}: {line}"
                )


def text(number: str) -> str:
    return (SCRIPTS / f"{number}.sh").read_text()


@pytest.mark.parametrize("name", SUITES)
def test_what_a_suite_names_is_there(name: str) -> None:
    suite = SUITES[name]
    assert suite.lacks <= set(WITHOUT)
    chosen = numbers(suite.chosen)
    assert ",".join(chosen) == suite.chosen, "each is there, in order"
    assert not set(chosen) & suite.skipped


def test_everything_is_all_scripts_on_all_devices_they_may_differ_on() -> None:
    first, *others = everything().values()
    assert first == every_script()
    for scripts in others:
        assert set(every_script()) - set(scripts) == same_everywhere()


def test_each_script_runs_on_a_device_that_has_what_it_needs() -> None:
    suites = each_once()
    for name, scripts in suites.items():
        assert scripts == sorted(set(scripts))
        assert set(numbers(SUITES[name].chosen)) <= set(scripts)
        assert not set(scripts) & SUITES[name].skipped
    nowhere = set(every_script()).difference(*suites.values())
    assert nowhere == {*numbers(WITHOUT["a smaller last zone"]), *numbers(WITHOUT["the files of an emulated device"])}
    assert max(map(len, suites.values())) - min(map(len, suites.values())) <= 5, "each has its share"

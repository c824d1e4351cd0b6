"""The tables of tests/vm/suites.py are what the scripts say."""

from __future__ import annotations

import re

import pytest

from tests.vm.suites import SCRIPTS, SUITES, WITHOUT, every_script, numbers, same_everywhere

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
def test_a_suite_is_some_scripts_or_all(name: str) -> None:
    suite = SUITES[name]
    assert suite.lacks <= set(WITHOUT)
    chosen = suite.scripts(all_=False)
    assert ",".join(chosen) == suite.chosen, "each is there, in order"
    assert suite.scripts(all_=True) == every_script()
    elsewhere = suite.scripts(all_=True, others=every_script())
    assert set(every_script()) - set(elsewhere) == same_everywhere()
    assert len(set(elsewhere) - suite.skipped) > 40

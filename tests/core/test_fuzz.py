"""A hundred thousand inputs for each parser that reads what comes from outside: clean refusals, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.abuse.fuzz import FUZZERS, socket_lines

SEED = 20261124
INPUTS = 100_000
SOCKET_INPUTS = 3000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A request may set the log level of the whole process, and each input be logged."""
    root = logging.getLogger()
    before = root.level
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    root.setLevel(before)


@pytest.mark.parametrize("name", FUZZERS)
def test_nothing_but_clean_refusals(name: str, request: pytest.FixtureRequest) -> None:
    inputs = INPUTS * (20 if request.config.getoption("--long") else 1)
    found = FUZZERS[name](inputs, SEED)
    assert found.total() == inputs
    # Else it would have shown nothing: what is refused at first sight, or everything accepted.
    assert min(found["accepted"], found["refused"]) > inputs / 100


def test_nothing_but_clean_refusals_by_a_socket() -> None:
    found = socket_lines(SOCKET_INPUTS, SEED)
    assert found.total() == SOCKET_INPUTS
    assert found["accepted"] > SOCKET_INPUTS / 100


def test_a_seed_repeats_its_inputs() -> None:
    for fuzzer in FUZZERS.values():
        assert fuzzer(500, 1) == fuzzer(500, 1)

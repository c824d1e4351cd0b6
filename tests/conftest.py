"""What all tests share: the ``--long`` option and the hypothesis profile."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A step of a mounted machine waits for a daemon: how long it takes says nothing about a bug.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=False)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the state machines many times longer")

"""What all tests share: the options ``--long`` and ``--passthrough``, and the hypothesis profile."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.passthrough import VARIABLE

# A step of a mounted machine waits for a daemon: how long it takes says nothing about a bug.
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=False)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the state machines many times longer")
    parser.addoption("--passthrough", choices=("auto", "on", "off"), help="the mount option of all mounts")


def pytest_configure(config: pytest.Config) -> None:
    if wanted := config.getoption("--passthrough"):
        os.environ[VARIABLE] = wanted
    # Shells start jobs in the background with SIGINT ignored. What the tests start inherits that, and is sent it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

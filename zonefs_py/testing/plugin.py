"""The pytest plugin: fixtures with devices, file systems and mounts for tests of software on zoned storage.

pytest loads this module by its entry point in every test run of an environment in which zonefs-py is installed. So it
imports nothing of ours before a fixture is asked for, and FUSE only in the daemons of mounts. docs/testing.md shows the
fixtures at work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zonefs_py.testing.kit import Devices, Faults, Filesystems, Mounts, Power, Settings
    from zonefs_py.testing.scratch import Scratch

_MARKER = "zonefs"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--zonefs NAME=VALUE`` and the ini option ``zonefs``."""
    group = parser.getgroup("zonefs", "zoned devices of zonefs-py")
    group.addoption(
        "--zonefs",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what devices are like of which a test does not say it itself, such as max_open=2; can be repeated",
    )
    parser.addini("zonefs", "the same as --zonefs, one NAME=VALUE a line; --zonefs replaces it", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers", f"{_MARKER}(**settings): what the devices of this test are like, such as zones=16, max_open=2"
    )


@pytest.fixture
def zonefs_settings(request: pytest.FixtureRequest) -> Settings:
    """What devices of this test are like unless a call says otherwise: the ini option, replaced by ``--zonefs``,
    replaced by the markers, of which the closest to the test wins."""
    from zonefs_py.testing.kit import Settings, UsageError

    settings = Settings()
    try:
        for text in [*request.config.getini("zonefs"), *request.config.getoption("zonefs")]:
            settings = settings.parse(text)
        for marker in reversed(list(request.node.iter_markers(_MARKER))):
            if marker.args:
                raise UsageError("the marker zonefs takes keywords only, such as zonefs(zones=16)")
            settings = settings.change(**marker.kwargs)
    except UsageError as exc:
        raise pytest.UsageError(str(exc)) from None
    return settings


@pytest.fixture
def zonefs_device(zonefs_settings: Settings, tmp_path: Path) -> Devices:
    """A factory of emulated devices, formatted: ``path = zonefs_device(zones=8)``."""
    from zonefs_py.testing.kit import Devices

    return Devices(tmp_path, zonefs_settings)


@pytest.fixture
def zonefs_faults(tmp_path: Path) -> Faults:
    """Faults of all file systems and mounts of this test: ``zonefs_faults.add("write", "fail", zones=2)``."""
    from zonefs_py.testing.kit import Faults

    return Faults(tmp_path)


@pytest.fixture
def zonefs_filesystem(zonefs_settings: Settings, zonefs_faults: Faults) -> Iterator[Filesystems]:
    """A factory of file systems in this process, on devices in memory; /dev/fuse is not needed:
    ``fs = zonefs_filesystem(zones=8)``. They are closed at the end."""
    from zonefs_py.testing.kit import Filesystems

    filesystems = Filesystems(zonefs_settings, zonefs_faults)
    yield filesystems
    filesystems.close()


@pytest.fixture
def zonefs_power(zonefs_filesystem: Filesystems) -> Power:
    """Power cuts of file systems with a write cache: ``fs = zonefs_power.cycle(fs, "seed:1")``."""
    from zonefs_py.testing.kit import Power

    return Power(zonefs_filesystem)


@pytest.fixture(scope="session")
def _zonefs_scratch() -> Iterator[Scratch]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is missing or cannot be opened; zonefs_filesystem does without")
    from zonefs_py.testing.scratch import Scratch

    with Scratch() as scratch:
        yield scratch


@pytest.fixture
def zonefs_mount(zonefs_device: Devices, zonefs_faults: Faults, _zonefs_scratch: Scratch) -> Iterator[Mounts]:
    """A factory of real mounts: ``mount = zonefs_mount(mount_options="errors=repair")``, and files are below
    ``mount.path``. At the end they are unmounted; a test whose daemon failed, or found a bug of its own, fails. Skips
    the test where there is no /dev/fuse."""
    from zonefs_py.testing.kit import Mounts

    mounts = Mounts(zonefs_device, zonefs_faults, _zonefs_scratch)
    yield mounts
    complaints = mounts.close()
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)

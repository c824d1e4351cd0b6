"""Every command that takes a zoned block device says what is missing when libzbd is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.device.test_blockdev import NODE, pretend
from zonefs_py.cli.main import main
from zonefs_py.device.blockdev import open_block_device

pytestmark = pytest.mark.skipif(NODE is None, reason="this machine shows no block device")

COMMANDS = {
    "mkfs": ["mkfs", "{}"],
    "mkfs of a stack": ["mkfs", "linear:{}[0-3]"],
    "mount": ["mount", "--foreground", "{}", "{directory}"],
    "report": ["report", "{}"],
    "info": ["info", "{}"],
    "zone": ["zone", "reset", "{}", "1"],
    "clone": ["clone", "{}", "{directory}/clone"],
    "blkcopy": ["blkcopy", "{}", "--range", "0:4096", "--to", "8388608"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_package_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert NODE is not None
    directory = tmp_path / "directory"
    directory.mkdir()
    assert open_block_device.__kwdefaults__ is not None
    monkeypatch.setitem(open_block_device.__kwdefaults__, "library", "libnonesuch.so.2")
    monkeypatch.setitem(open_block_device.__kwdefaults__, "sysfs", pretend(tmp_path, NODE))
    assert main([word.format(NODE, directory=directory) for word in words]) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("zonefs-py: ")
    assert shown.err.endswith(
        "block devices need libzbd (libnonesuch.so.2), which is not installed; on Debian: apt-get install libzbd2\n"
    )
    assert shown.err.count("\n") == 1
    assert not list(directory.iterdir())

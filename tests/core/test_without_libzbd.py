"""Every command that takes a zoned block device says what is missing when libzbd is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device import block_nodes
from tests.device.test_blockdev import pretend
from zonefs_py.cli.main import main
from zonefs_py.device.blockdev import open_block_device

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


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A block device that cannot suffer, if it should not be refused."""
    with block_nodes.harmless_node(tmp_path_factory.mktemp("node")) as path:
        yield path


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_package_is_named(
    node: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    assert open_block_device.__kwdefaults__ is not None
    monkeypatch.setitem(open_block_device.__kwdefaults__, "library", "libnonesuch.so.2")
    monkeypatch.setitem(open_block_device.__kwdefaults__, "sysfs", pretend(tmp_path, node))
    assert main([word.format(node, directory=directory) for word in words]) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("zonefs-py: ")
    assert shown.err.endswith(
        "block devices need libzbd (libnonesuch.so.2), which is not installed; on Debian: apt-get install libzbd2\n"
    )
    assert shown.err.count("\n") == 1
    assert not list(directory.iterdir())

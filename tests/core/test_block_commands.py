"""Commands on a block device without zones: one line, and nothing happens. With zones: tests/vm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.device.test_blockdev import NODE

from .test_stack_commands import refused

pytestmark = pytest.mark.skipif(NODE is None, reason="this machine shows no block device")


@pytest.mark.parametrize(
    "words",
    [
        ["report", NODE],
        ["info", NODE],
        ["mkfs", NODE],
        ["zone", "reset", NODE, "1"],
        ["zone", "readonly", NODE, "1"],
        ["blkcopy", NODE, "--range", "0:4K", "--to", "1M"],
        ["report", f"linear:{NODE}"],
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_commands_refuse_it(words: list[object]) -> None:
    assert f"{NODE} is a block device without zones" in refused(*words)


def test_a_mount_refuses_it(tmp_path: Path) -> None:
    # In the foreground: what is forked off inherits what pytest has made of the standard descriptors.
    assert "is a block device without zones" in refused("mount", "--foreground", NODE, tmp_path)


def test_limits_are_those_of_a_mount() -> None:
    assert f"{NODE} is a device: limits are those of a mount" in refused("limits", NODE)


def test_an_emulated_device_is_made_in_a_directory() -> None:
    assert f"{NODE} is not a directory" in refused("create", NODE, "--zones", 4, "--zone-size", "1M")


def test_unmounting_takes_a_mount_point() -> None:
    assert f"{NODE} is not mounted" in refused("umount", NODE)


def test_copies_are_between_files(tmp_path: Path) -> None:
    assert f"{NODE} is not a regular file" in refused("copy", NODE, tmp_path / "file")
    assert not (tmp_path / "file").exists()

"""Commands on a block device without zones: one line, and nothing happens. With zones: tests/vm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device import block_nodes

from .test_stack_commands import refused


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A block device that cannot suffer, if it should not be refused."""
    with block_nodes.harmless_node(tmp_path_factory.mktemp("node")) as path:
        yield path


@pytest.mark.parametrize(
    "text",
    [
        "report NODE",
        "info NODE",
        "mkfs NODE",
        "zone reset NODE 1",
        "zone readonly NODE 1",
        "blkcopy NODE --range 0:4K --to 1M",
        "report linear:NODE",
    ],
)
def test_commands_refuse_it(node: Path, text: str) -> None:
    assert f"{node} is a block device without zones" in refused(*text.replace("NODE", str(node)).split())


def test_a_mount_refuses_it(node: Path, tmp_path: Path) -> None:
    # In the foreground: what is forked off inherits what pytest has made of the standard descriptors.
    assert "is a block device without zones" in refused("mount", "--foreground", node, tmp_path)


def test_limits_are_those_of_a_mount(node: Path) -> None:
    assert f"{node} is a device: limits are those of a mount" in refused("limits", node)


def test_an_emulated_device_is_made_in_a_directory(node: Path) -> None:
    assert f"{node} is not a directory" in refused("create", node, "--zones", 4, "--zone-size", "1M")


def test_unmounting_takes_a_mount_point(node: Path) -> None:
    assert f"{node} is not mounted" in refused("umount", node)


def test_copies_are_between_files(node: Path, tmp_path: Path) -> None:
    assert f"{node} is not a regular file" in refused("copy", node, tmp_path / "file")
    assert not (tmp_path / "file").exists()

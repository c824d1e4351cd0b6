"""Block devices without zones, for tests that no drive of this machine's may suffer from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zonefs_py.device.blockdev import is_block_device
from zonefs_py.device.sysfs import SYSFS


def names_without_zones(sysfs: Path = SYSFS) -> list[str]:
    """The kernel's names of the block devices that it says have no zones; *sysfs* is where it tells."""
    zoned = sorted((sysfs / "class" / "block").glob("*/queue/zoned"))
    return [path.parents[1].name for path in zoned if path.read_text().strip() == "none"]


def find_block_device() -> Path | None:
    """A device of this machine's that has no zones, under the kernel's name. It is not to be changed."""
    nodes = (Path("/dev") / name for name in names_without_zones())
    return next((node for node in nodes if is_block_device(node)), None)


def can_make_loop_devices() -> bool:
    """Whether `loop_device` works here."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """A block device of the caller's own, without zones, of 1 MiB; *image* is the file behind it, made here."""
    image.write_bytes(bytes(1 << 20))
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@contextmanager
def harmless_node(directory: Path) -> Iterator[Path]:
    """A block device without zones that cannot suffer if a command is not refused on it.

    It is the caller's own, with the file behind it in *directory*, or one that we may not write; else the test is
    skipped.
    """
    if can_make_loop_devices():
        with loop_device(directory / "image") as path:
            yield path
        return
    found = find_block_device()
    if found is None or os.access(found, os.W_OK):
        pytest.skip("there is no loop device to be had, and no block device without zones that we may not write")
    yield found

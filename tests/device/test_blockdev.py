"""Block devices that cannot be used, on a machine without zones; the rest is in tests/vm."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zonefs_py.device.blockdev import is_block_device, open_block_device
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceFormatError, DeviceInUse, DeviceReadOnly, UserError

from . import block_nodes
from .test_sysfs import DISK


@pytest.fixture(scope="module")
def node() -> Path:
    """A block device without zones. Nothing is done to it."""
    found = block_nodes.find_block_device()
    if found is None:
        pytest.skip("this machine shows no block device without zones")
    return found


def test_no_test_is_made_on_a_zoned_drive(tmp_path: Path) -> None:
    """Some other test may hand a device to mkfs, in the belief that it is refused."""
    for name, model in {"sda": "host-managed", "sdb": "host-aware", "sdc": "none", "sdd": "a newer word"}.items():
        queue = tmp_path / "class" / "block" / name / "queue"
        queue.mkdir(parents=True)
        (queue / "zoned").write_text(model + "\n")
    (tmp_path / "class" / "block" / "sdc1").mkdir()
    assert block_nodes.names_without_zones(tmp_path) == ["sdc"]


def pretend(root: Path, node: Path, partition: bool = False, **changed: str) -> Path:
    """A /sys in which *node* is a zoned device, with some attributes changed."""
    number = node.stat().st_rdev
    disk = root / "devices" / node.name
    for attribute, text in (DISK | {name.replace("__", "/"): text for name, text in changed.items()}).items():
        path = disk / attribute
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    entry = disk
    if partition:
        entry = disk / f"{node.name}p1"
        entry.mkdir()
        (entry / "partition").write_text("1\n")
    links = root / "dev" / "block"
    links.mkdir(parents=True)
    (links / f"{os.major(number)}:{os.minor(number)}").symlink_to(entry)
    return root


def test_what_is_a_block_device(node: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(node)
    assert is_block_device(node)
    assert is_block_device(tmp_path / "link")
    for path in (tmp_path, tmp_path / "nothing", "/dev/null", __file__, "a\0b"):
        assert not is_block_device(path)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_device_without_zones_is_refused_without_libzbd(node: Path, read_only: bool) -> None:
    with pytest.raises(DeviceFormatError, match=rf"^{node} is a block device without zones; zonefs-py create makes"):
        open_block_device(node, read_only, library="libnonesuch.so.2")


@pytest.mark.parametrize("stack", ["{}", "linear:{}[0-3]", "fault:{}/rules.json,{}"])
def test_a_stack_of_it_is_refused_too(node: Path, tmp_path: Path, stack: str) -> None:
    (tmp_path / "rules.json").write_text('{"version": 1, "rules": []}')
    text = stack.format(tmp_path, node) if "rules" in stack else stack.format(node)
    with pytest.raises(DeviceFormatError, match="block device without zones"):
        open_stack(text)


def test_one_device_under_two_names_is_used_once(node: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(node)
    with pytest.raises(UserError, match="are the same device, used twice"):
        open_stack(f"linear:{node}[0]+{tmp_path}/link[1]")


def test_a_zoned_device_needs_libzbd(node: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"need libzbd \(libnonesuch.so.2\).*on Debian: apt-get install libzbd2"):
        open_block_device(node, library="libnonesuch.so.2", sysfs=pretend(tmp_path, node))


def test_a_partition_is_refused_with_the_way_out(node: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceFormatError, match=rf"partition of {node.name}.*linear:/dev/{node.name}\[FIRST-LAST\]"):
        open_block_device(node, sysfs=pretend(tmp_path, node, partition=True))


@pytest.mark.parametrize("granularity", ["8192", "16384", "4104"])
def test_blocks_larger_than_the_superblock_are_refused(node: Path, tmp_path: Path, granularity: str) -> None:
    with pytest.raises(DeviceFormatError, match=f"blocks of {granularity} bytes; zonefs takes 4096 at most"):
        open_block_device(node, sysfs=pretend(tmp_path, node, queue__zone_write_granularity=granularity))


def test_a_write_protected_device_is_not_opened_for_writing(node: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceReadOnly, match="write-protected; a read-only mount"):
        open_block_device(node, sysfs=pretend(tmp_path, node, ro="1"))


def test_a_node_without_the_kernels_name_is_refused(node: Path, tmp_path: Path) -> None:
    sysfs = pretend(tmp_path, node)
    (sysfs / "devices" / node.name).rename(sysfs / "devices" / "zoned-nonesuch")
    number = node.stat().st_rdev
    link = sysfs / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    link.unlink()
    link.symlink_to(sysfs / "devices" / "zoned-nonesuch")
    with pytest.raises(DeviceFormatError, match="is the kernel's zoned-nonesuch, but there is no /dev/zoned-nonesuch"):
        open_block_device(node, sysfs=sysfs)


def test_a_device_that_the_kernel_does_not_show(node: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the kernel has no block device"):
        open_block_device(node, sysfs=tmp_path)


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    """A block device that nobody else uses."""
    if not block_nodes.can_make_loop_devices():
        pytest.skip("making a loop device needs root and the kernel's loop driver")
    with block_nodes.loop_device(tmp_path / "image") as path:
        yield path


@pytest.mark.parametrize("read_only", [True, False])
def test_what_libzbd_refuses_is_one_line(loop_device: Path, tmp_path: Path, read_only: bool) -> None:
    # It reads the real /sys, where the device has no zones.
    with pytest.raises(UserError, match=rf"^{loop_device} cannot be opened: [^\n]+$"):
        open_block_device(loop_device, read_only, sysfs=pretend(tmp_path / "sys", loop_device))


def test_a_device_in_use_is_named_with_its_user(loop_device: Path, tmp_path: Path) -> None:
    sysfs = pretend(tmp_path / "sys", loop_device)
    holder = os.open(loop_device, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(DeviceInUse, match=f"{loop_device} is in use by pid {os.getpid()}"):
        open_block_device(loop_device, read_only=True, sysfs=sysfs)
    os.close(holder)

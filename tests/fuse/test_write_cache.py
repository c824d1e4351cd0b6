"""Real mounts of write caches: a daemon that is killed is a power cut that keeps nothing."""

from __future__ import annotations

import os
from pathlib import Path

from .conftest import run
from .daemon_helpers import BLOCK, Site, descriptor, pattern, write_direct, zonefs_py


def write_at(path: Path, offset: int, data: bytes, flags: int = 0) -> None:
    """Write to a conventional file, past the page cache."""
    with descriptor(path, os.O_WRONLY | os.O_DIRECT | flags) as file:
        assert os.pwrite(file, data, offset) == len(data)


def test_what_was_synced_survives_the_daemon_and_nothing_else(site: Site) -> None:
    device = site.device()
    stack = Path(f"write-cache:{device}")
    mnt = site.mountpoint()
    pid = site.mount(stack, mnt)
    synced, lost = pattern(0, 2 * BLOCK), pattern(2 * BLOCK, 3 * BLOCK)
    write_direct(mnt / "seq/0", synced)
    with descriptor(mnt / "seq/0", os.O_RDONLY) as file:
        os.fsync(file)
    write_direct(mnt / "seq/0", lost)
    write_direct(mnt / "seq/1", lost)
    write_at(mnt / "cnv/0", 0, synced, os.O_DSYNC)
    write_at(mnt / "cnv/0", BLOCK, lost)
    # Nobody sees that some of it is durable, and some is not.
    assert (mnt / "seq/0").read_bytes() == synced + lost
    assert (mnt / "cnv/0").read_bytes()[: 4 * BLOCK] == synced[:BLOCK] + lost
    assert site.info(mnt)["device"]["kind"] == "write-cache"

    site.kill(pid)
    site.mount(stack, mnt)
    assert (mnt / "seq/0").read_bytes() == synced
    assert (mnt / "seq/1").read_bytes() == b""
    assert (mnt / "cnv/0").read_bytes()[: 4 * BLOCK] == synced + bytes(2 * BLOCK)
    write_direct(mnt / "seq/0", lost)
    zonefs_py("umount", mnt)

    # An orderly unmount loses nothing.
    assert (device / "seq-000002").read_bytes() == synced + lost


def test_copies_go_through_the_cache(site: Site) -> None:
    device = site.device()
    mnt = site.mountpoint()
    pid = site.mount(Path(f"write-cache:{device}"), mnt)
    write_direct(mnt / "seq/0", pattern(0, 4 * BLOCK))
    run("cp", mnt / "seq/0", mnt / "seq/1")
    assert (mnt / "seq/1").read_bytes() == pattern(0, 4 * BLOCK)
    zonefs_py("copy", mnt / "seq/1", mnt / "seq/2")
    with descriptor(mnt / "seq/2", os.O_RDONLY) as file:
        os.fsync(file)
    site.kill(pid)
    assert [(device / f"seq-{number:06d}").stat().st_size for number in (2, 3, 4)] == [0, 0, 4 * BLOCK]


def test_sync_and_syncfs_flush_nothing(site: Site) -> None:
    """They write what the kernel holds, and flush no drive, as with kernel zonefs: that is what fsync is for."""
    device = site.device()
    stack = Path(f"write-cache:{device}")
    mnt = site.mountpoint()
    pid = site.mount(stack, mnt)
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    os.sync()
    run("sync", "--file-system", mnt / "seq/0")
    assert (device / "seq-000002").stat().st_size == 0
    site.kill(pid)
    site.mount(stack, mnt)
    assert (mnt / "seq/0").stat().st_size == 0

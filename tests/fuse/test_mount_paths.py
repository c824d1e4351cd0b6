"""How mounts are named, and what is left of a dead one: links and dots in paths, control sockets."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fuse.conftest import ZONEFS_PY, command_environment, wait_until
from tests.fuse.daemon_helpers import (
    BLOCK,
    COMMAND_SECONDS,
    Site,
    is_mounted,
    pattern,
    refused,
    write_direct,
    zonefs_py,
)
from zonefs_py.control.mounts import find_mount
from zonefs_py.control.socket_path import socket_path


def test_dots_behind_a_link_lead_where_the_kernel_goes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """link/../x is beside what the link names, not beside the link."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    device = site.device("far/disk")
    mnt = site.mountpoint("far/mnt")
    monkeypatch.chdir(tmp_path)
    # As text each of these would be in tmp_path, where there is nothing.
    words = ("link/../disk", "link/../mnt")
    zonefs_py("mount", *words, "--log-file", "link/../far.log")
    site.adopt(mnt)
    assert (tmp_path / "far" / "far.log").exists()
    assert Path(words[1]).joinpath("seq/0").exists()
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    assert site.info(Path("link/../mnt"))["mount"]["mountpoint"] == str(mnt)
    assert site.info(Path("link/../mnt"))["device"]["name"] == str(device)
    zonefs_py("umount", "link/../mnt")
    assert not is_mounted(mnt)


@pytest.mark.parametrize("by", ["umount", "mount"])
def test_the_socket_of_a_dead_mount_is_removed(site: Site, by: str) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    entry = find_mount(str(mnt))
    assert entry is not None
    path = socket_path(entry)
    assert path.is_socket()
    identity = path.stat().st_ino, path.stat().st_ctime_ns

    def is_left() -> bool:
        # A new mount, of anybody, may have the old one's device number, and so its socket's name.
        return path.exists() and (path.stat().st_ino, path.stat().st_ctime_ns) == identity

    site.kill(pid)
    assert is_left()
    if by == "umount":
        zonefs_py("umount", mnt)
    else:
        done = zonefs_py("mount", device, mnt, "--log-file", site.log(mnt))
        assert done.stderr == f"zonefs-py: {mnt}: cleaned up after a daemon that had died\n"
        site.adopt(mnt)
        assert site.info(mnt)["mount"]["mountpoint"] == str(mnt)
    assert not is_left()


def test_ctrl_c_before_the_mount_answers(site: Site) -> None:
    """Who waits for a mount and gives up has none: the daemon sees that nobody waits, and unmounts."""
    device, mnt = site.device(), site.mountpoint()
    with subprocess.Popen(
        [str(word) for word in (ZONEFS_PY, "mount", device, mnt, "--log-file", site.log(mnt))],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=command_environment(),
    ) as command:
        # The daemon's log is set up just before it mounts.
        wait_until("the daemon begins", lambda: site.log(mnt).exists() or command.poll() is not None)
        command.send_signal(signal.SIGINT)
        _, message = command.communicate(timeout=COMMAND_SECONDS)
    assert message in ("zonefs-py: interrupted\n", "")
    if message:
        assert command.returncode == 130
        wait_until("the mount is gone", lambda: "has gone away" in site.log(mnt).read_text() and not is_mounted(mnt))
        site.expected.append("has gone away")
    else:
        # It was mounted by the time the signal came.
        assert command.returncode == 0
        os.kill(site.adopt(mnt), signal.SIGTERM)


def test_a_mounted_device_is_cloned_only_if_nobody_can_write(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    copy = site.directory / "copy"
    pid = site.mount(device, mnt)
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    refused(zonefs_py("clone", device, copy, check=False), f"in use by pid {pid}", "mount it read-only")
    refused(zonefs_py("clone", mnt, copy, check=False), "is a mount point: unmount it")
    assert not copy.exists()
    zonefs_py("umount", mnt)
    site.mount(device, mnt, "ro")
    zonefs_py("clone", device, copy, "--data")
    refused(zonefs_py("clone", mnt, copy, "-f", check=False), "is a mount point: unmount it")
    other = site.mountpoint("other")
    site.mount(copy, other)
    assert (other / "seq/0").read_bytes() == (mnt / "seq/0").read_bytes() == pattern(0, BLOCK)
    refused(zonefs_py("clone", device, copy, "-f", check=False), "in use by pid")

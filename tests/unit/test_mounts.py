"""What is mounted, read from mountinfo, where every odd byte of a name is written as three octal digits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zonefs_py.control.mounts import MountEntry, find_mount, list_mounts
from zonefs_py.control.socket_path import remove_dead_socket, runtime_directory, socket_path

ODD_NAMES = [
    b"plain",
    b"with space",
    b"with\ttab",
    b"with\nnewline",
    b"with\\backslash",
    b"\\040 looks escaped",
    b"comma,and-dash - here",
    b"#hash",
    "ümlaut".encode(),
    b"no utf-8 \xff\xfe",
    b"'quotes\"",
]

MOUNT_AND_LIST = """
import os, subprocess, sys
from zonefs_py.control.mounts import find_mount
directory = sys.argv[1].encode()
for name in sorted(os.listdir(directory)):
    path = os.path.join(directory, name)
    # mount(8) says what the source is in the second to last field: the odd name once more.
    subprocess.run([b"mount", b"-t", b"tmpfs", b"-o", b"size=64k", b"--", name, path], check=True)
    text = os.fsdecode(path)
    entry = find_mount(text)
    nested = find_mount(text + "/nothing")
    sys.stdout.buffer.write(b"%s\\0%s\\0%s\\0%d\\0" % (
        os.fsencode(entry.mountpoint), os.fsencode(entry.source), os.fsencode(entry.type), nested is None))
    os.stat(path)
    major, minor = map(int, entry.device.split(":"))
    assert os.makedev(major, minor) == os.stat(path).st_dev
    # A second one on top: the topmost counts.
    subprocess.run([b"mount", b"-t", b"ramfs", b"--", b"over", path], check=True)
    assert find_mount(text).type == "ramfs", find_mount(text)
    assert find_mount(os.path.relpath(text)).type == "ramfs"
    assert find_mount(text + "/").type == "ramfs"
"""


def in_mount_namespace(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run *command* where it may mount and nobody else sees it."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    probe = subprocess.run([*unshare, "true"], capture_output=True, check=False, timeout=30)
    if probe.returncode:
        pytest.skip(f"{' '.join(unshare)}: {probe.stderr.decode().strip()}")
    return subprocess.run([*unshare, *map(str, command)], capture_output=True, check=False, timeout=60)


def test_odd_names(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path / "mounts")
    os.mkdir(directory)
    for name in ODD_NAMES:
        os.mkdir(os.path.join(directory, name))
    done = in_mount_namespace(sys.executable, "-c", MOUNT_AND_LIST, os.fsdecode(directory))
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    fields = done.stdout.split(b"\0")[:-1]
    for index, name in enumerate(sorted(ODD_NAMES)):
        mountpoint, source, kind, nothing_nested = fields[4 * index : 4 * index + 4]
        assert mountpoint == os.path.join(directory, name)
        assert source == name
        assert kind == b"tmpfs"
        assert nothing_nested == b"1"


def test_the_root_is_mounted() -> None:
    root = find_mount("/")
    assert root is not None
    assert root.mountpoint == "/"
    assert root in list_mounts()


def test_proc_is_found_as_it_is() -> None:
    proc = find_mount("/proc")
    assert proc is not None
    assert proc.type == "proc"
    assert "rw" in proc.options or "ro" in proc.options
    major, minor = map(int, proc.device.split(":"))
    assert os.makedev(major, minor) == os.stat("/proc").st_dev


def test_what_is_not_mounted(tmp_path: Path) -> None:
    assert find_mount(str(tmp_path)) is None
    assert find_mount(str(tmp_path / "missing" / "deeper")) is None
    assert find_mount("/proc/self") is None


def test_links_on_the_way_are_followed(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    (tmp_path / "proc").symlink_to("/proc")
    for path in (tmp_path / "root" / "proc", tmp_path / "proc"):
        found = find_mount(str(path))
        assert found is not None
        assert (found.mountpoint, found.type) == ("/proc", "proc")


def test_dots_behind_a_link_are_not_taken_out_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    found = find_mount(f"{tmp_path}/link/..")
    assert found is not None
    assert found.mountpoint == "/proc"


def test_a_socket_that_is_not_there_or_not_ours_is_left(tmp_path: Path) -> None:
    remove_dead_socket(entry("user_id=54321"))
    remove_dead_socket(entry("user_id=0")._replace(device="9999:9999"))


def entry(*options: str) -> MountEntry:
    """A mount with *options*."""
    return MountEntry("0:57", "/mnt", "fuse.zonefs-py", "/disk", frozenset(options))


@pytest.mark.parametrize(
    ("options", "uid"),
    [
        (("rw", "user_id=0", "group_id=0"), 0),
        (("rw", "user_id=12345", "group_id=7"), 12345),
        (("rw",), 0),
        (("user_id=", "rw"), 0),
        (("user_id=x",), 0),
        (("x_user_id=5", "user_id=6"), 6),
    ],
)
def test_the_user_of_a_mount(options: tuple[str, ...], uid: int) -> None:
    assert entry(*options).user_id == uid


def test_each_mount_has_its_own_socket() -> None:
    root = entry("user_id=0")
    assert socket_path(root) == Path("/run/zonefs-py/0-57.sock")
    assert socket_path(root._replace(device="0:5", mountpoint="/other")) == Path("/run/zonefs-py/0-5.sock")
    user = entry("user_id=54321")
    assert socket_path(user).parent == runtime_directory(54321)
    assert runtime_directory(54321) != runtime_directory(54322)

"""A second user, a real one, on the machine of a mount of root's: every way in, and nothing has changed afterwards.

That user's own mounts, and what modes do allow, are in test_daemon.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zonefs_py.control.client import MountControl
from zonefs_py.control.mounts import find_mount
from zonefs_py.control.socket_path import socket_path

from .conftest import ZONEFS_PY, Mounts, run

SECOND = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")

BLOCK = 4096

COMMANDS: list[list[str]] = [
    ["zonefs-py", "ctl", "{mnt}", "why"],
    ["zonefs-py", "ctl", "{mnt}", "stats"],
    ["zonefs-py", "ctl", "{mnt}", "log-level", "debug"],
    ["zonefs-py", "ctl", "{mnt}", "zone", "reset", "2"],
    ["zonefs-py", "ctl", "{mnt}", "power-cut"],
    ["zonefs-py", "ctl", "{mnt}", "power-on"],
    ["zonefs-py", "ctl", "{mnt}", "limits", "copy_max_bytes=4096"],
    ["zonefs-py", "fault", "{mnt}", "list"],
    ["zonefs-py", "fault", "{mnt}", "add", "operation=write", "effect=fail"],
    ["zonefs-py", "fault", "{mnt}", "clear"],
    ["zonefs-py", "fault", "{mnt}", "release"],
    ["zonefs-py", "zone", "reset", "{mnt}", "3"],
    ["zonefs-py", "zone", "offline", "{mnt}", "3"],
    ["zonefs-py", "limits", "{mnt}", "copy_offload=0"],
    ["zonefs-py", "umount", "{mnt}"],
    ["zonefs-py", "mount", "{device}", "{mnt}", "-o", "remount,errors=zone-offline"],
    ["zonefs-py", "mkfs", "{device}", "-f"],
    ["zonefs-py", "copy", "{mnt}/seq/0", "{mnt}/seq/1"],
    ["zonefs-py", "snapshot", "{device}", "mine"],
    ["fusermount3", "-u", "{mnt}"],
    ["fusermount3", "-u", "-z", "{mnt}"],
    ["umount", "{mnt}"],
    ["cat", "{mnt}/seq/0"],
    ["truncate", "--size=0", "{mnt}/seq/0"],
    ["truncate", "--size=0", "{device}/seq-000002"],
    ["dd", "if=/dev/zero", "of={mnt}/cnv/0", "bs=4k", "count=1", "conv=notrunc"],
    ["dd", "if=/dev/zero", "of={device}/cnv-000001", "bs=4k", "count=1", "conv=notrunc"],
    ["chmod", "0666", "{mnt}/seq/0"],
    ["chown", "65534", "{mnt}/seq/0"],
    ["touch", "{mnt}/seq/0"],
    ["touch", "{mnt}/new"],
    ["rm", "-f", "{device}/device.json"],
    ["mv", "{device}/seq-000002", "{device}/seq-000003"],
]

REQUESTS: list[dict[str, object]] = [
    {"request": "statistics"},
    {"request": "set-log-level", "level": "debug"},
    {"request": "manage-zones", "operation": "reset", "zones": [2]},
    {"request": "power-cut", "keep": "none", "dead": False},
    {"request": "set-copy-limits", "limits": {"copy_max_bytes": 4096}},
    {"request": "add-faults", "rules": [{"operation": "write", "effect": "fail"}]},
    {"request": "remount", "errors": "zone-offline"},
]
"""What the commands send, sent without them: they ask who they are first."""

SEND = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(sys.argv[2].encode() + b"\\n")
    print(connection.recv(1000))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user; run the tests as root")
def test_nothing_of_it_is_theirs(device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path) -> None:
    probe = run(*SECOND, ZONEFS_PY, "--version", check=False)
    if probe.returncode:
        pytest.skip(f"another user cannot run {ZONEFS_PY}: {probe.stderr.strip()}")
    device = device_dir()
    # They can go there, and see what is there; no more.
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o011)
    # With a write cache, so that there is power to be cut.
    mnt = mounted(Path(f"write-cache:{device}"))
    control = MountControl(mnt)
    entry = find_mount(str(mnt))
    assert entry is not None
    with (mnt / "cnv/0").open("r+b", buffering=0) as stream:
        stream.write(b"root's" * 100)
    descriptor = os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT)
    assert os.write(descriptor, b"r" * BLOCK) == BLOCK
    os.close(descriptor)

    def state() -> object:
        # Times aside: whoever lists a directory moves some.
        files = [(path, path.stat().st_mode, path.stat().st_uid, path.read_bytes()) for path in mnt.glob("*/*")]
        options = control.info()["mount"]
        shown = {name: options[name] for name in ("options", "pid", "read_only")}
        told = control.faults(), control.copy_limits(), control.statistics()["daemon"]["log_level"]
        return sorted(files), shown, told, control.report(), sorted(os.listdir(device))

    before = state()
    for words in COMMANDS:
        command = [word.format(mnt=mnt, device=device) for word in words]
        ours = command[0] == "zonefs-py"
        command[0] = str(ZONEFS_PY) if ours else command[0]
        done = run(*SECOND, *command, check=False, cwd="/")
        # 2 is what everybody gets for a command that there is not.
        assert done.returncode == 1 if ours else done.returncode != 0, (command, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert state() == before, command
    # What they run must be theirs to read: the interpreter itself, without our package.
    python = (os.path.realpath(sys.executable), "-I", "-c", SEND, socket_path(entry))
    for request in REQUESTS:
        done = run(*SECOND, *python, json.dumps(request), check=False, cwd="/")
        assert "PermissionError" in done.stderr, (request, done.stdout, done.stderr)
        assert state() == before, request

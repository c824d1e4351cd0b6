"""The life of a mount: how it begins, what ends it, who may use it, and what it survives."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.conftest import ZONEFS_PY, command_environment, run, wait_until
from tests.fuse.daemon_helpers import (
    BLOCK,
    CAPACITY,
    COMMAND_SECONDS,
    ZONE_SIZE,
    Site,
    close,
    descriptor,
    is_mounted,
    pattern,
    refused,
    runs,
    write_direct,
    zonefs_py,
)
from zonefs_py.control.mounts import find_mount
from zonefs_py.control.socket_path import socket_path
from zonefs_py.device.directory import open_device


def as_root() -> None:
    """Skip what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("mount(8) and other users: run as root")


def content(device: Path, number: int, length: int) -> bytes:
    """What is on an unmounted device at the start of zone *number*."""
    with open_device(device, read_only=True) as opened:
        return opened.read(number * ZONE_SIZE, length)


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write *data* into a file that is there, through the page cache if it has one."""
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        assert file.write(data) == len(data)


# How a mount ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_unmounts_cleanly(site: Site, number: signal.Signals) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    write_direct(mnt / "seq/0", pattern(0, 5 * BLOCK))
    write_at(mnt / "cnv/0", 0, pattern(0, 104))
    with descriptor(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as still_open:
        os.kill(pid, number)
        site.wait_for_end(pid)
        with pytest.raises(OSError, match="connect") as raised:
            os.pread(still_open, BLOCK, 0)
        assert raised.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert not is_mounted(mnt)
    assert content(device, 2, 6 * BLOCK) == pattern(0, 5 * BLOCK) + bytes(BLOCK)
    assert content(device, 1, BLOCK)[:200] == pattern(0, 104) + bytes(96)
    log = site.log(mnt).read_text()
    assert f"{number.name}: unmounting" in log
    assert log.splitlines()[-1].endswith(f"{mnt}: unmounted")
    mountless = zonefs_py("umount", mnt, check=False)
    refused(mountless, "not mounted")


def test_a_signal_while_a_zone_is_broken(site: Site) -> None:
    """The zone of a file that is still open cannot be closed: that is said, and the end is clean all the same."""
    site.expected += ["seq/0", "read-only"]
    device, mnt = site.device(max_open=2), site.mountpoint()
    pid = site.mount(device, mnt, "explicit-open")
    with descriptor(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
        assert os.pwrite(file, pattern(0, BLOCK), 0) == BLOCK
        zonefs_py("zone", "readonly", mnt, "2")
        os.kill(pid, signal.SIGTERM)
        site.wait_for_end(pid)
    assert not is_mounted(mnt)
    lines = site.log(mnt).read_text().splitlines()
    assert lines[-1].endswith("unmounted")
    assert any("seq/0" in line and "WARNING" in line for line in lines)
    assert content(device, 2, BLOCK) == pattern(0, BLOCK)


@pytest.mark.parametrize("policy", ["repair", "remount-ro"])
def test_a_full_host_is_an_applications_enospc(site: Site, policy: str) -> None:
    as_root()
    host, mnt = site.mountpoint("host"), site.mountpoint()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "zonefs-py-test", host)
    site.expected += ["seq/1", "read-only"]
    site.device("host/disk")
    pid = site.mount(host / "disk", mnt, f"errors={policy}")
    write_direct(mnt / "seq/0", pattern(0, 160 * 1024))
    with descriptor(mnt / "seq/1", os.O_RDWR | os.O_DIRECT) as file:
        with pytest.raises(OSError, match="No space left"):
            os.pwrite(file, pattern(0, 128 * 1024), 0)
        size = os.fstat(file).st_size
        assert size % BLOCK == 0
        if policy == "repair":
            assert size == (host / "disk/seq-000003").stat().st_size > 0
            assert os.pread(file, size, 0) == pattern(0, size)
            os.truncate(mnt / "seq/0", 0)
            assert os.pwrite(file, pattern(size, 128 * 1024 - size), size) == 128 * 1024 - size
            assert os.pread(file, 128 * 1024, 0) == pattern(0, 128 * 1024)
        else:
            assert size == 0
            with pytest.raises(OSError, match="Read-only"):
                os.truncate(mnt / "seq/0", 0)
            assert (mnt / "seq/0").read_bytes() == pattern(0, 160 * 1024)
    zonefs_py("umount", mnt)
    assert not runs(pid)


@pytest.mark.parametrize("cleaner", ["mount", "umount"])
def test_what_was_acknowledged_survives_the_death_of_the_daemon(site: Site, cleaner: str) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    for number in range(7):
        write_direct(mnt / "seq/0", pattern(number * BLOCK, BLOCK))
    write_direct(mnt / "seq/1", pattern(0, CAPACITY))
    write_direct(mnt / "seq/2", pattern(0, BLOCK))
    os.truncate(mnt / "seq/2", 0)
    os.truncate(mnt / "seq/3", CAPACITY)
    write_at(mnt / "cnv/0", 1000, pattern(0, 4000))
    held = os.open(mnt / "seq/0", os.O_RDWR | os.O_DIRECT)
    site.kill(pid)
    with pytest.raises(OSError, match="connect"):
        os.statvfs(mnt)
    for command in ("info", "report"):
        refused(zonefs_py(command, mnt, check=False), "umount")
    assert is_mounted(mnt)
    if cleaner == "umount":
        assert zonefs_py("umount", mnt).stderr == ""
        assert not is_mounted(mnt)
        site.mount(device, mnt)
    else:
        done = zonefs_py("mount", device, mnt, "--log-file", site.log(mnt))
        assert len(done.stderr.splitlines()) == 1
        assert "cleaned up" in done.stderr
        assert site.adopt(mnt) != pid
    close(held)
    assert (mnt / "seq/0").read_bytes() == pattern(0, 7 * BLOCK)
    assert (mnt / "seq/1").read_bytes() == pattern(0, CAPACITY)
    assert (mnt / "seq/2").stat().st_size == 0
    assert (mnt / "seq/3").read_bytes() == bytes(CAPACITY)
    assert (mnt / "cnv/0").read_bytes()[:6000] == bytes(1000) + pattern(0, 4000) + bytes(1000)
    write_direct(mnt / "seq/0", pattern(7 * BLOCK, BLOCK))
    assert (mnt / "seq/0").read_bytes() == pattern(0, 8 * BLOCK)
    # Only one mount is there: nothing of the dead one is left below.
    zonefs_py("umount", mnt)
    assert not is_mounted(mnt)


def test_a_writer_sees_its_daemon_die(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    acknowledged = 0
    enough = threading.Event()
    failure: list[OSError] = []

    def write() -> None:
        nonlocal acknowledged
        with descriptor(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as file:
            try:
                while True:
                    acknowledged += os.pwrite(file, pattern(acknowledged, BLOCK), acknowledged)
                    if acknowledged == 4 * BLOCK:
                        enough.set()
                    if acknowledged == CAPACITY:
                        os.ftruncate(file, 0)
                        acknowledged = 0
            except OSError as exc:
                failure.append(exc)

    writer = threading.Thread(target=write)
    writer.start()
    assert enough.wait(30)
    site.kill(pid)
    writer.join(30)
    assert not writer.is_alive()
    assert failure[0].errno in (errno.ENOTCONN, errno.ECONNABORTED)
    zonefs_py("umount", mnt)
    with open_device(device) as opened:
        (zone,) = opened.report_zones(2, 1)
        assert zone.data_size is not None
        assert zone.data_size in (acknowledged, acknowledged + BLOCK) or acknowledged == 0
        assert opened.read(zone.start, ZONE_SIZE)[: zone.data_size] == pattern(0, zone.data_size)


def test_a_busy_mount_stays(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    with descriptor(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        refused(zonefs_py("umount", mnt, check=False), "busy: who uses it must let go of it, or --lazy")
        refused(zonefs_py("zone", "reset", mnt, "2", check=False), f"use 'zonefs-py ctl {mnt} zone reset'")
        assert is_mounted(mnt)
        assert os.pwrite(file, pattern(0, BLOCK), 0) == BLOCK
        assert runs(pid)
    zonefs_py("umount", mnt)
    assert not is_mounted(mnt)
    assert not runs(pid), "umount comes back when the daemon has let go of the device"
    assert content(device, 2, BLOCK) == pattern(0, BLOCK)


def test_a_busy_mount_can_be_detached(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    with descriptor(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        zonefs_py("umount", "-l", mnt)
        assert not is_mounted(mnt)
        assert os.pwrite(file, pattern(0, BLOCK), 0) == BLOCK
        assert os.pread(file, BLOCK, 0) == pattern(0, BLOCK)
        assert runs(pid)
    site.wait_for_end(pid)
    assert content(device, 2, BLOCK) == pattern(0, BLOCK)


def test_unmounting_by_the_name_of_the_device(site: Site) -> None:
    device, one, two = site.device(), site.mountpoint("one"), site.mountpoint("two")
    pid = site.mount(device, one)
    zonefs_py("umount", device)
    site.wait_for_end(pid)
    assert not is_mounted(one)
    site.mount(device, one, "ro")
    zonefs_py("mount", f"linear:{device}", two, "-o", "ro")
    refused(zonefs_py("umount", device, check=False), f"mounted at {one} and {two}: say which")
    zonefs_py("umount", two)
    zonefs_py("umount", device)
    assert not is_mounted(one)


def test_unmounting_by_a_device_that_is_a_mount_of_something_else(site: Site) -> None:
    as_root()
    device, mnt = site.device(), site.mountpoint()
    run("mount", "--bind", device, device)
    try:
        pid = site.mount(device, mnt)
        zonefs_py("umount", device)
        site.wait_for_end(pid)
        refused(zonefs_py("umount", device, check=False), "is a mount of type")
    finally:
        run("umount", device)
    assert not is_mounted(mnt)


def test_unmounting_what_is_not_ours(site: Site) -> None:
    mnt = site.mountpoint()
    refused(zonefs_py("umount", mnt, check=False), str(mnt), "not mounted")
    refused(zonefs_py("umount", site.directory / "missing", check=False), "not mounted")
    refused(zonefs_py("umount", "/proc", check=False), "/proc", "proc")
    assert is_mounted(Path("/proc"))


# What is not mounted


def test_one_mount_point_one_mount(site: Site) -> None:
    device, other, mnt = site.device(), site.device("other"), site.mountpoint()
    site.mount(device, mnt)
    for second in (device, other):
        refused(zonefs_py("mount", second, mnt, check=False), "busy", str(mnt))
    assert list(mnt.iterdir())
    zonefs_py("umount", mnt)
    assert not is_mounted(mnt)


def test_one_device_one_mount(site: Site) -> None:
    device, mnt, elsewhere = site.device(), site.mountpoint(), site.mountpoint("elsewhere")
    pid = site.mount(device, mnt)
    commands: list[list[str | Path]] = [
        ["mount", device, elsewhere],
        ["mount", device, elsewhere, "-o", "ro"],
        ["mkfs", "-f", device],
        ["zone", "reset", device, "2"],
    ]
    for words in commands:
        refused(zonefs_py(*words, check=False), f"in use by pid {pid}")
    on_the_mount: list[list[str | Path]] = [["mount", mnt, elsewhere], ["mkfs", "-f", mnt], ["snapshot", mnt, "s"]]
    for words in on_the_mount:
        refused(zonefs_py(*words, check=False), f"{mnt} is a mount point: give the device, which is {device}")
    assert not is_mounted(elsewhere)
    write_direct(mnt / "seq/0", pattern(0, BLOCK))


def test_readers_may_share_a_device(site: Site) -> None:
    device, mnt, elsewhere = site.device(), site.mountpoint(), site.mountpoint("elsewhere")
    for path in (mnt, elsewhere):
        site.mount(device, path, "ro")
    assert os.listdir(mnt / "seq") == os.listdir(elsewhere / "seq")
    with pytest.raises(OSError, match="Read-only") as raised:
        write_direct(mnt / "seq/0", pattern(0, BLOCK))
    assert raised.value.errno == errno.EROFS


def missing_mountpoint(site: Site) -> list[str | Path]:
    return [site.device(), site.directory / "missing"]


def mountpoint_is_a_file(site: Site) -> list[str | Path]:
    (site.directory / "file").touch()
    return [site.device(), site.directory / "file"]


def with_options(options: str) -> Callable[[Site], list[str | Path]]:
    """The arguments of a mount with bad *options*."""
    return lambda site: [site.device(), site.mountpoint(), "-o", options]


def with_bad_log_file(site: Site) -> list[str | Path]:
    return [site.device(), site.mountpoint(), "--log-file", site.directory / "missing" / "log"]


def unformatted(site: Site) -> list[str | Path]:
    return [site.device(formatted=False), site.mountpoint()]


def missing_device(site: Site) -> list[str | Path]:
    return [site.directory / "missing", site.mountpoint()]


def device_is_a_file(site: Site) -> list[str | Path]:
    (site.directory / "file").write_bytes(bytes(8192))
    return [site.directory / "file", site.mountpoint()]


def device_is_a_directory(site: Site) -> list[str | Path]:
    return [site.mountpoint("empty"), site.mountpoint()]


def device_lacks_a_zone(site: Site) -> list[str | Path]:
    device = site.device()
    (device / "seq-000005").unlink()
    return [device, site.mountpoint()]


def mountpoint_is_the_device(site: Site) -> list[str | Path]:
    device = site.device()
    return [f"linear:{device}[0-3]", device]


def mountpoint_is_below_the_device(site: Site) -> list[str | Path]:
    device = site.device()
    (device / "mnt").mkdir()
    return [device, device / "mnt"]


def zone_of_the_superblock_is_offline(site: Site) -> list[str | Path]:
    device = site.device()
    zonefs_py("zone", "offline", device, "0")
    return [device, site.mountpoint()]


BAD_MOUNTS = [
    (missing_mountpoint, "missing"),
    (mountpoint_is_a_file, "file"),
    (with_options("colour=blue"), "colour"),
    (with_options("errors=foo"), "errors=foo"),
    (with_options("errors"), "errors="),
    (with_options("explicit-open=1"), "explicit-open"),
    (with_options("ro,noexplicit-open"), "noexplicit-open"),
    (with_options("uid=0"), "uid"),
    (with_options(" ro"), "' ro'"),
    (with_options("log="), "log"),
    (with_bad_log_file, "log"),
    (unformatted, "zonefs"),
    (missing_device, "missing"),
    (device_is_a_file, "file"),
    (device_is_a_directory, "device.json"),
    (device_lacks_a_zone, "seq-000005"),
    (mountpoint_is_the_device, "is the device itself"),
    (mountpoint_is_below_the_device, "a part of it"),
    (zone_of_the_superblock_is_offline, "disk 0' brings it back"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), BAD_MOUNTS, ids=[f"{n}-{says}" for n, (_, says) in enumerate(BAD_MOUNTS)]
)
def test_what_cannot_be_mounted(site: Site, arguments: Callable[[Site], list[str | Path]], says: str) -> None:
    words = arguments(site)
    before = sorted(site.directory.rglob("*"))
    refused(zonefs_py("mount", *words, check=False), says, status=2 if "-o" in words else 1)
    assert sorted(site.directory.rglob("*")) == before
    assert not is_mounted(Path(words[1]))


@pytest.mark.parametrize(("arguments", "says"), [BAD_MOUNTS[0], BAD_MOUNTS[11], BAD_MOUNTS[15]], ids=["0", "11", "15"])
def test_what_cannot_be_mounted_in_the_foreground(
    site: Site, arguments: Callable[[Site], list[str | Path]], says: str
) -> None:
    words = arguments(site)
    refused(zonefs_py("mount", "-f", *words, check=False), says)
    assert not is_mounted(Path(words[1]))


def superblock(**fields: Any) -> bytes:
    """A superblock with a right CRC (unless one is given): magic, label, uuid, features, uid, gid, perm, reserved."""
    body = b"label".ljust(64, b"\0") + bytes(16)
    body += struct.pack("<QIII", *(fields.get(name, 0) for name in ("features", "uid", "gid", "perm")))
    body += bytes(fields.get("reserved", bytes(3988)))
    magic = fields.get("magic", b"SFOZ")
    assert isinstance(magic, bytes)
    crc = fields.get("crc", zlib.crc32(magic + bytes(4) + body) ^ 0xFFFFFFFF)
    return magic + struct.pack("<I", crc) + body


def test_damaged_superblocks(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    damages: dict[str, bytes] = {
        "magic": superblock(magic=b"SFOX"),
        "crc": superblock(crc=0x12345678),
        "features": superblock(features=1 << 4),
        "uid": superblock(features=2, uid=0xFFFFFFFF),
        "gid": superblock(features=4, gid=0xFFFFFFFF),
        "reserved first": superblock(reserved=b"\1" + bytes(3987)),
        "reserved last": superblock(reserved=bytes(3987) + b"\1"),
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "text": b"no superblock at all\n".ljust(4096, b" "),
    }
    said = set()
    for name, damaged in damages.items():
        write_at(device / "cnv-000000", 0, damaged)
        said.add(refused(zonefs_py("mount", device, mnt, check=False)))
        assert not is_mounted(mnt), name
        assert (device / "cnv-000000").read_bytes()[:4096] == damaged
    # Each says what is wrong; only where no superblock can be made out is it the same.
    assert len(said) >= 6
    write_at(device / "cnv-000000", 0, superblock(features=8, perm=0o600))
    site.mount(device, mnt)
    assert stat.S_IMODE((mnt / "seq/0").stat().st_mode) == 0o600


def test_a_device_of_another_user_can_only_be_read(site: Site, plain: PlainUser) -> None:
    device = plain.directory / "disk"
    shutil.copytree(site.device(), device)
    device.chmod(0o755)
    mnt = plain.make_directory("mnt")
    refused(plain.zonefs_py("mount", device, mnt), "-o ro")
    assert not is_mounted(mnt)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "comma,and=equals",
        "back\\slash",
        "tab\there",
        "new\nline",
        "ümlaut",
        os.fsdecode(b"\xff\xfe"),
        "-dash",
    ],
    ids=ascii,
)
def test_odd_names(site: Site, name: str) -> None:
    device, mnt = site.device(f"{name}-disk"), site.mountpoint(name)
    zonefs_py("mount", "--log-file", "log", "--", device.name, name, cwd=site.directory)
    site.adopt(mnt)
    entry = find_mount(str(mnt))
    assert entry is not None
    assert entry.source == str(device)
    assert json.loads(zonefs_py("ctl", "--", device.name, "stats", "--format", "json", cwd=site.directory).stdout)
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    assert len(zonefs_py("report", "--", name, cwd=site.directory).stdout.splitlines()) >= 8
    zonefs_py("umount", "--", name, cwd=site.directory)
    assert not is_mounted(mnt)


def test_relative_paths_and_links(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    (site.directory / "link").symlink_to("mnt")
    (site.directory / "disk-link").symlink_to("disk")
    zonefs_py("mount", "disk-link", "link", "-o", "log=daemon.log", cwd=site.directory)
    site.adopt(mnt)
    assert site.info(site.directory / "link")["mount"]["pid"] == site.info(mnt)["mount"]["pid"]
    assert "mounted at" in (site.directory / "daemon.log").read_text()
    refused(zonefs_py("mount", device, "mnt/../link", check=False, cwd=site.directory), "busy")
    zonefs_py("umount", "link", cwd=site.directory)
    assert not is_mounted(mnt)


# Log and foreground


def test_the_log_tells_the_story(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    site.expected += ["seq/0", "read-only"]
    site.mount(device, mnt)
    os.truncate(device / "seq-000002", BLOCK)
    with pytest.raises(OSError, match="Input/output"):
        write_direct(mnt / "seq/0", pattern(0, BLOCK))
    zonefs_py("umount", mnt)
    log = site.log(mnt).read_text()
    lines = log.splitlines()
    for words in (
        "mounting 8 zones",
        'zone group "cnv" has 1 file',
        'zone group "seq" has 6 files',
        f"{device}: mounted at {mnt} (rw,errors=remount-ro",
        "seq/0: zone 2: write at 0, but the write pointer is at 4096",
        "remounting file system read-only",
        f"{mnt}: unmounted",
    ):
        assert words in log
    assert all("zonefs-py[" in line for line in lines)
    # Mounted again, the log goes on.
    site.mount(device, mnt)
    assert site.log(mnt).read_text().startswith(log)
    assert (mnt / "seq/0").stat().st_size == BLOCK


@pytest.mark.parametrize("end", ["SIGINT", "SIGTERM", "umount"])
def test_the_foreground(site: Site, end: str) -> None:
    device, mnt = site.device(), site.mountpoint()
    command = [str(word) for word in (ZONEFS_PY, "mount", "-f", device, mnt)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=command_environment()
    ) as daemon:
        try:
            wait_until("the mount answers", lambda: (mnt / "seq/0").exists())
            wait_until("info answers", lambda: zonefs_py("info", mnt, check=False).returncode == 0)
            assert site.adopt(mnt) == daemon.pid
            write_direct(mnt / "seq/0", pattern(0, BLOCK))
            if end == "umount":
                zonefs_py("umount", mnt)
            else:
                daemon.send_signal(signal.Signals[end])
            out, err = daemon.communicate(timeout=COMMAND_SECONDS)
        finally:
            if daemon.poll() is None:
                daemon.kill()
    assert daemon.returncode == 0
    assert out == b""
    assert b"mounting 8 zones" in err
    assert b"Traceback" not in err
    assert err.splitlines()[-1].endswith(b"unmounted")
    assert not is_mounted(mnt)
    assert content(device, 2, BLOCK) == pattern(0, BLOCK)


# mount(8)


@pytest.fixture
def mount_helper() -> Iterator[None]:
    """mount(8) knows our type."""
    as_root()
    link = Path("/sbin/mount.fuse.zonefs-py")
    was_there = link.is_symlink()
    if not was_there:
        done = zonefs_py("install-mount-helper")
        assert str(link) in done.stdout
        assert link.resolve() == ZONEFS_PY.with_name("mount.fuse.zonefs-py").resolve()
    yield
    if not was_there:
        zonefs_py("install-mount-helper", "--remove")
        assert not link.is_symlink()


def mount8(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run mount(8)."""
    return run("mount", *words, check=check, timeout=COMMAND_SECONDS)


@pytest.mark.usefixtures("mount_helper")
def test_mount8_mounts_and_unmounts(site: Site) -> None:
    device, mnt = site.device(max_open=3), site.mountpoint()
    options = f"errors=repair,explicit-open,noexec,log={site.log(mnt)}"
    mount8("-t", "fuse.zonefs-py", device, mnt, "-o", options)
    pid = site.adopt(mnt)
    info = site.info(mnt)
    assert info["mount"]["options"].startswith("rw,errors=repair,explicit-open")
    entry = find_mount(str(mnt))
    assert entry is not None
    assert (entry.type, entry.source) == ("fuse.zonefs-py", str(device))
    assert "noexec" in entry.options
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    run("umount", mnt, timeout=COMMAND_SECONDS)
    site.wait_for_end(pid)
    assert content(device, 2, BLOCK) == pattern(0, BLOCK)
    for options, says in (("errors=foo", "errors=foo"), ("colour", "colour")):
        done = mount8("-t", "fuse.zonefs-py", device, mnt, "-o", options, check=False)
        assert done.returncode
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert not is_mounted(mnt)


@pytest.mark.usefixtures("mount_helper")
def test_an_fstab_line(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    fstab = site.directory / "fstab"
    fstab.write_text(
        f"{device} {mnt} fuse.zonefs-py noauto,ro,errors=zone-ro,nofail,x-note=1,log={site.log(mnt)} 0 0\n"
    )
    mount8("-T", fstab, mnt)
    site.adopt(mnt)
    assert site.info(mnt)["mount"]["options"].startswith("ro,errors=zone-ro")
    entry = find_mount(str(mnt))
    assert entry is not None
    assert "ro" in entry.options
    with pytest.raises(OSError, match="Read-only"):
        os.truncate(mnt / "seq/0", 0)
    run("umount", mnt, timeout=COMMAND_SECONDS)


@pytest.mark.usefixtures("mount_helper")
def test_remounting(site: Site) -> None:
    device, mnt = site.device(max_open=2), site.mountpoint()
    site.mount(device, mnt)

    def options() -> str:
        return str(site.info(mnt)["mount"]["options"])

    with descriptor(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as file:
        done = mount8("-o", "remount,ro", mnt, check=False)
        assert done.returncode
        assert "busy" in done.stderr
        assert "Traceback" not in done.stderr
        assert options().startswith("rw,errors=remount-ro")
        assert os.pwrite(file, pattern(0, BLOCK), 0) == BLOCK
    with descriptor(mnt / "seq/0", os.O_RDONLY) as file:
        mount8("-o", "remount,ro", mnt)
        assert options().startswith("ro,errors=remount-ro")
        for refusal in (
            lambda: os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT),
            lambda: os.truncate(mnt / "seq/0", 0),
            lambda: os.chmod(mnt / "seq/0", 0o600),
            lambda: os.utime(mnt / "seq/0"),
            lambda: os.unlink(mnt / "seq/0"),
        ):
            with pytest.raises(OSError, match="Read-only"):
                refusal()
        assert os.pread(file, BLOCK, 0) == pattern(0, BLOCK)
    mount8("-o", "remount,rw", mnt)
    assert options().startswith("rw,errors=remount-ro")
    write_direct(mnt / "seq/0", pattern(BLOCK, BLOCK))
    # Options that are not named stay.
    mount8("-o", "remount,errors=zone-ro", mnt)
    mount8("-o", "remount,explicit-open", mnt)
    assert options().startswith("rw,errors=zone-ro,explicit-open")
    with descriptor(mnt / "seq/1", os.O_WRONLY | os.O_DIRECT):
        assert site.zones(mnt)["seq/1"]["condition"] == "explicit-open"
    for bad in ("errors=foo", "colour=blue"):
        done = mount8("-o", f"remount,{bad}", mnt, check=False)
        assert done.returncode
        assert bad.split("=")[0] in done.stderr
        assert options().startswith("rw,errors=zone-ro,explicit-open")
    other = site.device("other")
    done = zonefs_py("mount", other, mnt, "-o", "remount,errors=repair", check=False)
    assert (done.returncode, done.stderr) == (1, f"zonefs-py: {mnt} is a mount of {device}, not of {other}\n")
    assert options().startswith("rw,errors=zone-ro,explicit-open")
    # After an error made it read-only, it becomes writable again.
    zonefs_py("mount", device, mnt, "-o", "remount,errors=remount-ro")
    site.expected += ["seq/2", "read-only"]
    os.truncate(device / "seq-000004", BLOCK)
    with pytest.raises(OSError, match="Input/output"):
        write_direct(mnt / "seq/2", pattern(0, BLOCK))
    assert site.info(mnt)["mount"]["read_only"]
    with pytest.raises(OSError, match="Read-only"):
        write_direct(mnt / "seq/0", pattern(0, BLOCK))
    with descriptor(mnt / "seq/3", os.O_RDONLY):
        mount8("-o", "remount,rw", mnt)
    # So it is remounted read-only as well, although a file is open for writing.
    with descriptor(mnt / "seq/2", os.O_WRONLY | os.O_DIRECT) as file:
        os.truncate(device / "seq-000004", BLOCK)
        with pytest.raises(OSError, match="Input/output"):
            os.pwrite(file, pattern(0, BLOCK), 0)
        mount8("-o", "remount,ro", mnt)
        assert site.info(mnt)["mount"]["read_only"]
    mount8("-o", "remount,rw", mnt)
    write_direct(mnt / "seq/0", pattern(2 * BLOCK, BLOCK))


def test_the_helper_by_itself(site: Site) -> None:
    helper = ZONEFS_PY.with_name("mount.fuse.zonefs-py")
    device, mnt = site.device(), site.mountpoint()
    assert run(helper, device, mnt, "-f", "-v", "-n", "-o", "rw,errors=repair").returncode == 0
    assert not is_mounted(mnt)
    program = "mount.fuse.zonefs-py"
    refused(run(helper, device, mnt, "-o", "colour", check=False), "colour", program=program)
    refused(run(helper, device, mnt, "-t", "ext4", check=False), "ext4", program=program)
    refused(run(helper, device, site.directory / "missing", check=False), "missing", program=program, status=32)
    directory = site.directory / "sbin"
    directory.mkdir()
    zonefs_py("install-mount-helper", "--directory", directory)
    link = directory / program
    assert os.readlink(link) == str(helper)
    zonefs_py("install-mount-helper", "--directory", directory)
    zonefs_py("install-mount-helper", "--directory", directory, "--remove")
    assert not link.exists()
    link.write_text("somebody else's")
    refused(
        zonefs_py("install-mount-helper", "--directory", directory, check=False),
        "not a link that",
    )
    refused(
        zonefs_py("install-mount-helper", "--directory", directory, "--remove", check=False),
        "not a link that",
    )
    assert link.read_text() == "somebody else's"


# Users


def unused_users() -> Iterator[int]:
    """Users that fusermount3 knows by name (it insists), but who have no mounts."""
    for user in pwd.getpwall():
        if 0 < user.pw_uid < 1000 and not Path(f"/tmp/zonefs-py-{user.pw_uid}").exists():
            yield user.pw_uid


PLAIN_UID, OTHER_UID, *_ = unused_users()


class PlainUser:
    """A user without any rights, with a directory of their own."""

    def __init__(self, uid: int, directory: Path) -> None:
        self.uid = uid
        self.directory = directory

    def run(self, *words: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
        """Run a command as that user."""
        command = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--", *map(str, words)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            env=command_environment() | {"HOME": str(self.directory), "XDG_STATE_HOME": str(self.directory / "state")},
        )

    def zonefs_py(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run zonefs-py as that user."""
        return self.run(ZONEFS_PY, *words)

    def make_directory(self, name: str) -> Path:
        """Make a directory that belongs to the user."""
        path = self.directory / name
        path.mkdir()
        os.chown(path, self.uid, self.uid)
        return path


@pytest.fixture
def other() -> PlainUser:
    """Somebody else."""
    as_root()
    return PlainUser(OTHER_UID, Path("/"))


@pytest.fixture
def plain() -> Iterator[PlainUser]:
    """A user who may use FUSE, as on any Debian machine; nothing of theirs is left at the end."""
    as_root()
    runtime = Path(f"/tmp/zonefs-py-{PLAIN_UID}")
    assert not runtime.exists()
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    with tempfile.TemporaryDirectory(prefix="zonefs-py-plain-") as name:
        directory = Path(name)
        os.chown(directory, PLAIN_UID, PLAIN_UID)
        directory.chmod(0o755)
        user = PlainUser(PLAIN_UID, directory)
        probe = user.zonefs_py("--version")
        if probe.returncode:
            pytest.skip(f"user {PLAIN_UID} cannot run {ZONEFS_PY}: {probe.stderr.strip()}")
        os.chmod("/dev/fuse", mode | 0o666)
        try:
            yield user
        finally:
            os.chmod("/dev/fuse", mode)
            # Root may not even look at them.
            mounted = [path for path in directory.iterdir() if find_mount(str(path))]
            for path in mounted:
                run("umount", "-l", path, check=False, timeout=COMMAND_SECONDS)
            for left in (runtime, *runtime.parent.glob(f"{runtime.name}-*")):
                shutil.rmtree(left, ignore_errors=True)


def test_a_plain_user_can_do_it_all(plain: PlainUser, other: PlainUser) -> None:
    mnt = plain.make_directory("mnt")
    for words in (
        ["create", "disk", "--zones", "8", "--conventional", "2", "--zone-size", "256K"],
        ["mkfs", "disk"],
        ["mount", "disk", "mnt", "-o", "errors=repair,log=daemon.log"],
    ):
        done = plain.zonefs_py(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    entry = find_mount(str(mnt))
    assert entry is not None
    assert entry.user_id == PLAIN_UID
    try:
        listing = plain.run("ls", "-ln", "mnt/seq")
        assert listing.returncode == 0, listing.stderr
        assert len(listing.stdout.splitlines()) == 7
        # Files are root's in a file system that was formatted without owner, as kernel zonefs has it.
        assert "-rw-r----- 1 0 0" in listing.stdout
        info = json.loads(plain.zonefs_py("info", "mnt", "--format", "json").stdout)
        assert info["mount"]["pid"] > 0
        # The mount is theirs alone: nobody else gets in, not even root.
        for program, path in (("ls", mnt), ("cat", mnt / "seq/0")):
            assert "Permission denied" in other.run(program, path).stderr
            assert "Permission denied" in run(program, path, check=False).stderr
        # Root may ask the daemon, though.
        assert json.loads(zonefs_py("info", mnt, "--format", "json").stdout)["mount"]["pid"] == info["mount"]["pid"]
        assert len(zonefs_py("report", mnt).stdout.splitlines()) >= 8
        whose = f"{mnt} is a mount of user {PLAIN_UID}: only they and root may"
        refused(other.zonefs_py("info", mnt), f"{whose} ask its daemon")
        refused(other.zonefs_py("ctl", mnt, "stats"), f"{whose} ask its daemon")
        refused(other.zonefs_py("umount", mnt), f"{whose} unmount it")
        assert is_mounted(mnt)
        done = plain.zonefs_py("mount", "disk", "mnt", "-o", "remount,errors=zone-ro")
        refused(done, "root")
        assert oct(Path(f"/tmp/zonefs-py-{PLAIN_UID}").stat().st_mode & 0o777) == "0o700"
    finally:
        done = plain.zonefs_py("umount", "mnt")
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_mounted(mnt)
    assert not runs(info["mount"]["pid"])
    log = (plain.directory / "daemon.log").read_text()
    assert "unmounted" in log
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_a_plain_users_files_can_be_their_own(plain: PlainUser) -> None:
    mnt = plain.make_directory("mnt")
    plain.zonefs_py("create", "disk", "--zones", "4", "--zone-size", "256K")
    assert plain.zonefs_py("mkfs", "disk", "-o", f"uid={PLAIN_UID},gid={PLAIN_UID},perm=600").returncode == 0
    assert plain.zonefs_py("mount", "disk", "mnt", "-o", "log=daemon.log").returncode == 0
    pid = json.loads(plain.zonefs_py("info", "mnt", "--format", "json").stdout)["mount"]["pid"]
    written = plain.run("dd", "if=/dev/zero", "of=mnt/seq/0", "bs=64k", "count=3", "oflag=direct", "status=none")
    assert (written.returncode, written.stderr) == (0, "")
    assert plain.run("stat", "-c", "%s %U", "mnt/seq/0").stdout.split()[0] == str(3 * 65536)
    # Their daemon dies; they clean up themselves.
    assert pid > 0
    os.kill(pid, signal.SIGKILL)
    wait_until("the daemon ends", lambda: not runs(pid))
    done = plain.zonefs_py("umount", "mnt")
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_mounted(mnt)
    assert plain.zonefs_py("mount", "disk", "mnt", "-o", "log=daemon.log").returncode == 0
    assert plain.run("stat", "-c", "%s", "mnt/seq/0").stdout.strip() == str(3 * 65536)
    assert plain.zonefs_py("umount", "mnt").returncode == 0


def test_a_plain_users_reads_go_through_the_daemon(plain: PlainUser) -> None:
    """Passthrough takes a capability that they have not: they are told if they insist, else it is left out."""
    mnt = plain.make_directory("mnt")
    plain.zonefs_py("create", "disk", "--zones", "4", "--zone-size", "256K")
    plain.zonefs_py("mkfs", "disk", "-o", f"uid={PLAIN_UID},gid={PLAIN_UID}")
    insisting = plain.zonefs_py("mount", "disk", "mnt", "-o", "log=daemon.log,passthrough=on")
    line = refused(insisting, "passthrough=on is not possible")
    assert not is_mounted(mnt)
    assert plain.zonefs_py("mount", "disk", "mnt", "-o", "log=daemon.log,passthrough=auto").returncode == 0
    capabilities = json.loads(plain.zonefs_py("info", "mnt", "--format", "json").stdout)["capabilities"]
    assert capabilities["passthrough"] is False
    assert capabilities["no_passthrough_because"] in line
    assert plain.run("cat", "mnt/seq/0").stdout == ""
    assert plain.zonefs_py("umount", "mnt").returncode == 0


GATHER = """
import os, sys
from zonefs_py import CopyRangesError, copy_ranges
print(os.getuid())
with open("mnt/seq/0", "rb") as source, open("mnt/seq/1", "r+b") as target:
    print(copy_ranges(target, [(source, 8192, 4096), (source, 0, 8192)]))
    try:
        copy_ranges(target, [(source, 0, 4096)], 0)
    except CopyRangesError as exc:
        print(exc.strerror, exc.completed)
"""


def test_a_plain_user_gathers_ranges(plain: PlainUser) -> None:
    mnt = plain.make_directory("mnt")
    plain.zonefs_py("create", "disk", "--zones", "4", "--zone-size", "256K")
    assert plain.zonefs_py("mkfs", "disk", "-o", f"uid={PLAIN_UID},gid={PLAIN_UID},perm=600").returncode == 0
    assert plain.zonefs_py("mount", "disk", "mnt", "-o", "log=daemon.log").returncode == 0
    (plain.directory / "data").write_bytes(bytes(range(256)) * 48)
    try:
        written = plain.run("dd", "if=data", "of=mnt/seq/0", "bs=12k", "count=1", "oflag=direct", "status=none")
        assert (written.returncode, written.stderr) == (0, "")
        done = plain.run(sys.executable, "-c", GATHER)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [str(PLAIN_UID), "[4096, 8192]", "Invalid argument [0]"]
        assert plain.run("cmp", "mnt/seq/1", "data").returncode == 0  # each 256 bytes are alike
        assert plain.run("stat", "-c", "%s", "mnt/seq/1").stdout.strip() == "12288"
    finally:
        done = plain.zonefs_py("umount", "mnt")
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_mounted(mnt)


def test_a_plain_user_cannot_mount_just_anywhere(plain: PlainUser, site: Site) -> None:
    mnt = site.mountpoint()
    plain.zonefs_py("create", "disk", "--zones", "4", "--zone-size", "256K")
    plain.zonefs_py("mkfs", "disk")
    refused(plain.zonefs_py("mount", "disk", mnt, "-o", "log=daemon.log"))
    rootless = plain.directory / "roots"
    rootless.mkdir(mode=0o755)
    refused(plain.zonefs_py("mount", "disk", "roots", "-o", "log=daemon.log"))
    assert not is_mounted(rootless)


def mount_of(plain: PlainUser, mnt: Path) -> int:
    """Mount a device of the user's at *mnt*, a new one the first time; return the daemon's pid."""
    if not (plain.directory / "disk").exists():
        plain.zonefs_py("create", "disk", "--zones", "4", "--zone-size", "256K")
        plain.zonefs_py("mkfs", "disk")
    done = plain.zonefs_py("mount", "disk", mnt, "-o", "log=daemon.log")
    assert (done.returncode, done.stderr) == (0, "")
    return pid_of(plain, mnt)


def pid_of(plain: PlainUser, mnt: Path) -> int:
    """The pid of the daemon of the user's mount at *mnt*, as the daemon says to them, and to root."""
    asked = [plain.zonefs_py("info", mnt, "--format", "json"), zonefs_py("info", mnt, "--format", "json")]
    (pid,) = {json.loads(done.stdout)["mount"]["pid"] for done in asked}
    assert isinstance(pid, int)
    return pid


def unmount_of(plain: PlainUser, mnt: Path, pid: int) -> None:
    """Unmount it: the daemon has ended by then, and had nothing to complain of."""
    done = plain.zonefs_py("umount", mnt)
    assert (done.returncode, done.stderr) == (0, "")
    assert not runs(pid)
    log = (plain.directory / "daemon.log").read_text()
    assert log.endswith(f"{mnt}: unmounted\n")
    assert "ERROR" not in log


def test_somebody_else_made_the_directory_of_the_socket_first(plain: PlainUser) -> None:
    """In /tmp anybody can. It keeps nobody from mounting, nor does anything go there."""
    mnt = plain.make_directory("mnt")
    trap = Path(f"/tmp/zonefs-py-{PLAIN_UID}")
    trap.mkdir(mode=0o777)
    decoy = Path(f"/tmp/zonefs-py-{PLAIN_UID}-0")
    decoy.symlink_to(trap)
    try:
        pid = mount_of(plain, mnt)
        own = [path for path in trap.parent.glob(f"{trap.name}-*") if path != decoy]
        assert len(own) == 1
        assert (own[0].stat().st_uid, stat.S_IMODE(own[0].stat().st_mode)) == (PLAIN_UID, 0o700)
        unmount_of(plain, mnt, pid)
        # The next one goes to the same place.
        unmount_of(plain, mnt, mount_of(plain, mnt))
        assert [path for path in trap.parent.glob(f"{trap.name}-*") if path != decoy] == own
        assert not list(trap.iterdir())
        assert not list(own[0].iterdir())
    finally:
        decoy.unlink()
        shutil.rmtree(trap)


@pytest.mark.parametrize("begins", [True, False], ids=["begins", "ends"])
def test_a_session_comes_and_goes(plain: PlainUser, begins: bool) -> None:
    """Whoever is asked for the daemon finds it, whether its user is logged in then, or was when it was mounted."""
    mnt = plain.make_directory("mnt")
    session = Path(f"/run/user/{PLAIN_UID}")
    assert not session.exists()
    made = not session.parent.exists()

    def log_in() -> None:
        session.mkdir(mode=0o700, parents=True)
        os.chown(session, PLAIN_UID, PLAIN_UID)

    try:
        if begins:
            pid = mount_of(plain, mnt)
            log_in()
        else:
            log_in()
            pid = mount_of(plain, mnt)
            shutil.rmtree(session)
        assert pid_of(plain, mnt) == pid
        unmount_of(plain, mnt, pid)
    finally:
        shutil.rmtree(session, ignore_errors=True)
        if made:
            session.parent.rmdir()


def test_the_directory_of_the_socket_goes(plain: PlainUser) -> None:
    """Then nobody can ask the daemon, but it serves, and ends as always."""
    mnt = plain.make_directory("mnt")
    pid = mount_of(plain, mnt)
    shutil.rmtree(f"/tmp/zonefs-py-{PLAIN_UID}")
    refused(plain.zonefs_py("info", mnt), "its control socket", "does not answer")
    assert plain.run("ls", "mnt/seq").stdout.split() == ["0", "1", "2"]
    done = plain.zonefs_py("umount", mnt)
    assert (done.returncode, done.stderr) == (0, "")
    wait_until("the daemon ends", lambda: not runs(pid))
    log = (plain.directory / "daemon.log").read_text()
    assert log.endswith(f"{mnt}: unmounted\n")
    assert "ERROR" not in log


def test_modes_decide_on_a_mount_of_root(site: Site, plain: PlainUser) -> None:
    device = site.device()
    mnt = plain.directory / "roots-mnt"
    mnt.mkdir()
    site.mountpoint(str(mnt))
    zonefs_py("mount", device, mnt, "--log-file", site.directory / "log")
    site.adopt(mnt)
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    assert plain.run("ls", mnt / "seq").stdout.split() == [str(index) for index in range(6)]
    for command in ("cat", "truncate -s 0", "touch -c"):
        assert "Permission denied" in plain.run(*command.split(), mnt / "seq/0").stderr
    assert "not permitted" in plain.run("chmod", "666", mnt / "seq/0").stderr
    assert (mnt / "seq/0").stat().st_size == BLOCK
    os.chown(mnt / "seq/0", PLAIN_UID, 0)
    write = ["dd", "if=/dev/zero", f"of={mnt}/seq/0", "bs=4k", "seek=1", "count=1", "oflag=direct", "conv=notrunc"]
    assert plain.run(*write).returncode == 0
    assert (mnt / "seq/0").stat().st_size == 2 * BLOCK
    assert plain.run("truncate", "-s", "0", mnt / "seq/0").returncode == 0
    assert plain.run("chmod", "400", mnt / "seq/0").returncode == 0
    assert "Permission denied" in plain.run("truncate", "-s", "0", mnt / "seq/0").stderr
    # Its control socket is root's.
    for command in ("info", "report", "umount"):
        refused(plain.zonefs_py(command, mnt))
    refused(plain.zonefs_py("zone", "offline", mnt, "2"))
    entry = find_mount(str(mnt))
    assert entry is not None
    path = socket_path(entry)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    assert "PermissionError" in plain.run(ZONEFS_PY.with_name("python"), "-c", connect, path).stderr
    zonefs_py("umount", mnt)


# The control socket


def exchange(path: Path, data: bytes, *, close: bool = True) -> bytes:
    """Send *data* to a control socket and return all that comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(COMMAND_SECONDS)
        connection.connect(str(path))
        answer = b""
        try:
            connection.sendall(data)
            if close:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer


def test_whatever_comes_over_the_control_socket_changes_nothing(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    entry = find_mount(str(mnt))
    assert entry is not None
    path = socket_path(entry)
    born = path.stat().st_ctime_ns
    before = site.info(mnt), site.zones(mnt)
    requests = [
        b"\n",
        b"{}\n",
        b"null\n",
        b"no json\n",
        b"\xff\xfe\0\n",
        b'{"request": "reboot"}\n',
        b'{"request": ["info"]}\n',
        b'{"request": "force-condition"}\n',
        b'{"request": "force-condition", "zones": [8], "condition": "offline"}\n',
        b'{"request": "force-condition", "zones": [1, -1], "condition": "offline"}\n',
        b'{"request": "force-condition", "zones": [true], "condition": "offline"}\n',
        b'{"request": "force-condition", "zones": [2], "condition": "full"}\n',
        b'{"request": "force-condition", "zones": 2, "condition": "offline"}\n',
        b'{"request": "remount", "errors": "foo"}\n',
        b'{"request": "remount", "errors": "repair", "read_only": 1}\n',
        b'{"request": "remount", "colour": "blue"}\n',
        b'{"request": "remount", "errors": [[]]}\n',
        b"[" * 100_000 + b"\n",
        b'{"request": ' + b"9" * 10_000 + b"}\n",
        b'{"request": "' + b"x" * 100_000 + b'"}\n',
    ]
    for request in requests:
        (line,) = exchange(path, request).splitlines()
        answer = json.loads(line)
        assert answer["ok"] is False
        assert len(answer["error"]) < 300
    # Several on one connection are answered in order; a last one without its end is answered too.
    answers = [json.loads(line) for line in exchange(path, b'{"request": "ping"}\nx\n{"request": "ping"}').splitlines()]
    assert [answer["ok"] for answer in answers] == [True, False, True]
    # More than a request can be, and nothing at all.
    assert b'"ok": true' not in exchange(path, b"x" * (17 << 20))
    assert exchange(path, b"") == b""
    idle = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for connection in idle:
        connection.connect(str(path))
        connection.sendall(b'{"request"')
    assert (site.info(mnt), site.zones(mnt)) == before
    for connection in idle:
        connection.close()
    assert runs(pid)
    write_direct(mnt / "seq/0", pattern(0, BLOCK))
    zonefs_py("umount", mnt)
    # The kernel may have given the mount's number, which is the socket's name, to a new mount at once.
    assert not path.exists() or path.stat().st_ctime_ns != born


def test_a_socket_that_a_killed_daemon_left_is_replaced(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    pid = site.mount(device, mnt)
    site.kill(pid)
    site.mount(device, mnt)
    assert site.info(mnt)["mount"]["mountpoint"] == str(mnt)


def test_the_last_of_contradicting_flags_wins(site: Site) -> None:
    device, mnt = site.device(), site.mountpoint()
    site.mount(device, mnt, "noexec,exec,suid,nosuid")
    entry = find_mount(str(mnt))
    assert entry is not None
    assert "noexec" not in entry.options
    assert "nosuid" in entry.options


def test_flags_of_a_remount_reach_the_kernel(site: Site) -> None:
    as_root()
    device, mnt = site.device(), site.mountpoint()
    site.mount(device, mnt)
    zonefs_py("mount", device, mnt, "-o", "remount,noexec")
    entry = find_mount(str(mnt))
    assert entry is not None
    assert "noexec" in entry.options
    for words in ("noallow_other", "allow_root", "log=/tmp/x"):
        refused(
            zonefs_py("mount", device, mnt, "-o", f"remount,{words}", check=False), "cannot be changed by a remount"
        )


def test_a_log_file_with_a_comma_in_its_name(site: Site, tmp_path: Path) -> None:
    as_root()
    device, mnt = site.device(), site.mountpoint()
    zonefs_py("mount", device, mnt, "--log-file", tmp_path / "a,b.log")
    site.adopt(mnt)
    zonefs_py("mount", device, mnt, "-o", "remount,errors=repair")
    assert "errors=repair" in site.info(mnt)["mount"]["options"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(site: Site, closed: str) -> None:
    device, mnt = site.device(), site.mountpoint()
    run("sh", "-c", f'exec "$0" mount "$1" "$2" {closed}', ZONEFS_PY, device, mnt)
    site.adopt(mnt)
    done = run("sh", "-c", f'exec "$0" report "$1" {closed}', ZONEFS_PY, mnt, check=False)
    assert "Traceback" not in done.stderr


def test_the_daemon_keeps_nothing_that_the_caller_had_open(site: Site, tmp_path: Path) -> None:
    device, mnt = site.device(), site.mountpoint()
    (tmp_path / "lock").write_text("")
    run("sh", "-c", 'exec 9>"$3"; "$0" mount "$1" "$2"', ZONEFS_PY, device, mnt, tmp_path / "lock")
    pid = site.adopt(mnt)
    open_files = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert str(tmp_path / "lock") not in open_files


def test_help_without_words(site: Site) -> None:
    for words in ((), ("zone",)):
        done = zonefs_py(*words, check=False)
        assert done.returncode == 2
        assert "Usage: zonefs-py" in done.stderr
        assert "\\n" not in done.stderr


def test_only_its_own_link_is_replaced_by_install_mount_helper(tmp_path: Path) -> None:
    link = tmp_path / "mount.fuse.zonefs-py"
    link.symlink_to("/bin/true")
    for words in ((), ("--remove",)):
        done = zonefs_py("install-mount-helper", "--directory", tmp_path, *words, check=False)
        refused(done, str(link))
        assert link.readlink() == Path("/bin/true")
    refused(zonefs_py("install-mount-helper", "--directory", tmp_path / "none", check=False), str(tmp_path / "none"))

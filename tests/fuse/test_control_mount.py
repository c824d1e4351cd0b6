"""A mount in use, steered over its control socket: by commands, from Python, and by those who must not."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuse.conftest import ZONEFS_PY, LiveMount, Mounts, run, wait_until
from tests.fuse.daemon_helpers import Site, pattern, refused, zonefs_py
from zonefs_py import FaultRule, MountControl
from zonefs_py.control.mounts import find_mount
from zonefs_py.control.socket_path import socket_path
from zonefs_py.device.fault_rules import Effect, Operation
from zonefs_py.errors import MountError
from zonefs_py.zone import ZoneCondition

log = logging.getLogger(__name__)

BLOCK = 4096
MIB = 1 << 20
SECONDS = 60

DeviceFactory = Callable[..., Path]


@pytest.fixture
def mnt(device_dir: DeviceFactory, mounted: Mounts) -> Path:
    """A mount with errors=repair; zone 2 is seq/0. What faults do is in its log."""
    path = mounted(device_dir(), "errors=repair,explain")
    mounted.expect_log(path, "WARNING seq/")
    return path


def append(path: Path, content: bytes) -> int:
    """Append with direct I/O; return how much was written."""
    memory = mmap.mmap(-1, len(content))
    memory.write(content)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
    try:
        return os.write(handle, memory)
    finally:
        os.close(handle)


def errno_of(call: Callable[[], object]) -> str:
    """The name of the errno with which *call* fails."""
    try:
        call()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    pytest.fail("it was not refused")


# Finding the mount


def test_a_mount_is_found_by_mount_point_and_by_device(device_dir: DeviceFactory, mounted: Mounts) -> None:
    device, other = device_dir(), device_dir()
    mnt = mounted(device)
    link = device.parent / "link"
    link.symlink_to(device)
    for target in (mnt, device, link, os.path.relpath(device), f"{mnt}/../{mnt.name}"):
        control = MountControl(target)
        assert (control.mountpoint, control.device) == (str(mnt), str(device))
    for target in (other, device.parent, device.parent / "missing", mnt / "seq"):
        with pytest.raises(MountError, match="neither a mount point of zonefs-py nor a device that is mounted"):
            MountControl(target)
    refused(zonefs_py("ctl", other, "stats", check=False), f"{other} is neither a mount point")


def test_a_device_in_a_stack_is_found(device_dir: DeviceFactory, mounted: Mounts) -> None:
    a, b = device_dir(mkfs=None, zones=4), device_dir(mkfs=None, zones=4, conventional=0)
    stack = f"linear:{a}+{b}"
    run(ZONEFS_PY, "mkfs", stack)
    mnt = mounted(Path(stack))
    for target in (mnt, a, b, stack):
        assert MountControl(target).mountpoint == str(mnt)
    # A place for faults is over the whole of it, and invisible.
    info = mounted.info(mnt)["device"]
    assert (info["kind"], info["name"]) == ("linear", stack)
    (number,) = MountControl(a).add_faults([{"operation": "write", "zones": 5, "effect": "fail"}])
    mounted.expect_log(mnt, "WARNING seq/3")
    assert errno_of(lambda: append(mnt / "seq/3", bytes(BLOCK))) == "EIO"
    MountControl(b).remove_faults(number)


# Zones


def test_zone_operations_reach_the_kernel(mnt: Path) -> None:
    control = MountControl(mnt)
    file = mnt / "seq/0"
    data = pattern(0, 8 * BLOCK)
    assert append(file, data) == len(data)
    assert file.stat().st_size == len(data)
    reader = os.open(file, os.O_RDONLY)
    writer = os.open(mnt / "seq/1", os.O_WRONLY)
    try:
        zonefs_py("ctl", mnt, "zone", "finish", "2")
        assert os.fstat(reader).st_size == MIB
        # The kernel cuts copies at the size that it knows of.
        assert os.copy_file_range(reader, writer, MIB, 0, 0) == MIB
        assert (mnt / "seq/1").read_bytes() == data + bytes(MIB - len(data))
        control.reset_zones(2, 3)
        assert (os.fstat(reader).st_size, (mnt / "seq/1").stat().st_size) == (0, 0)
        assert os.pread(reader, BLOCK, 0) == b""
    finally:
        os.close(reader)
        os.close(writer)
    assert append(file, data) == len(data)
    assert file.read_bytes() == data
    control.close_zones(2)
    control.open_zones(4)
    conditions = [zone["condition"] for zone in control.report()]
    assert (conditions[2], conditions[4]) == ("closed", "explicit-open")
    zonefs_py("ctl", mnt, "zone", "close", "4")
    control.force_zones(2, condition=ZoneCondition.READONLY)
    assert errno_of(lambda: append(file, bytes(BLOCK))) == "EIO"
    zonefs_py("ctl", mnt, "zone", "online", "2")


def test_a_copy_knows_what_a_zone_operation_made_of_the_size(mnt: Path) -> None:
    """The kernel ends it where it thinks the source does. Nobody asks for the size before, as `finish_zones` would."""
    data = pattern(0, 8 * BLOCK)
    assert append(mnt / "seq/0", data) == len(data)
    reader, writer = os.open(mnt / "seq/0", os.O_RDONLY | os.O_DIRECT), os.open(mnt / "seq/1", os.O_WRONLY)
    try:
        MountControl(mnt).ask("manage-zones", operation="finish", zones=[2])
        assert os.copy_file_range(reader, writer, MIB, 0, 0) == MIB
    finally:
        os.close(reader)
        os.close(writer)


def test_zones_that_cannot_be_managed(mnt: Path) -> None:
    before = MountControl(mnt).report()
    for words, says, status in (
        (("reset", "0"), "zone 0 holds the superblock", 1),
        (("finish", "2", "1"), "zone 1 is conventional", 1),
        (("finish", "2", "8"), "has zones 0 to 7", 1),
        (("finish", "x"), "'x' is not a zone", 2),
    ):
        refused(zonefs_py("ctl", mnt, "zone", *words, check=False), says, status=status)
    assert MountControl(mnt).report() == before


# Faults


def test_faults_by_command(mnt: Path, tmp_path: Path) -> None:
    def fault(*words: str | Path) -> str:
        return zonefs_py("fault", mnt, *words).stdout

    assert fault("list") == "no rules\n"
    assert fault("add", "operation=write", "zones=2", "first=2", "effect=fail", "error=ENOSPC", "after=4096") == "1\n"
    append(mnt / "seq/0", bytes(BLOCK))
    assert errno_of(lambda: append(mnt / "seq/0", bytes(2 * BLOCK))) == "ENOSPC"
    assert (mnt / "seq/0").stat().st_size == 2 * BLOCK
    scenario = tmp_path / "scenario.json"
    rules = [{"operation": "flush", "effect": "fail", "name": "bad flush"}, {"operation": "read", "effect": "fail"}]
    scenario.write_text(json.dumps({"version": 1, "name": "two", "rules": rules}))
    assert fault("add", "--file", scenario) == "2\n3\n"
    with (mnt / "seq/0").open("rb") as file:
        assert errno_of(lambda: os.fsync(file.fileno())) == "EIO"
    shown = fault("list").splitlines()
    assert shown[0].split() == ["rule", "matched", "fired"]
    assert shown[1].split()[:4] == ["1", "2", "1", "operation=write"]
    assert shown[2].endswith('operation=flush effect=fail name="bad flush"')
    assert [rule["number"] for rule in json.loads(fault("list", "--format", "json"))["rules"]] == [1, 2, 3]
    fault("remove", "3", "1")
    assert (mnt / "seq/0").read_bytes() == bytes(2 * BLOCK)
    fault("add", "--sticky", "operation=write", "effect=fail")
    for _ in range(3):
        assert errno_of(lambda: append(mnt / "seq/1", bytes(BLOCK))) == "EIO"
    fault("clear")
    assert fault("list") == "no rules\n"
    append(mnt / "seq/1", bytes(BLOCK))


def test_wrong_faults_add_nothing(mnt: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"version": 1, "rules": [{"operation": "read", "effect": "fail"}, {"operation": "read"}]}')
    for words, says, status in (
        (("operation=write",), '"effect" is missing', 2),
        (("operation=write", "effect=fail", "zones=8"), "has a zone 8: the device has zones 0 to 7", 1),
        (("operation=write", "effect=fail", "first=x"), "\"first\" is 'x', not a whole number", 2),
        (("operation",), "'operation' is not FIELD=VALUE", 2),
        (("effect=fail", "effect=fail"), "effect is given twice", 2),
        (("--sticky", "operation=write", "effect=fail", "count=3"), "--sticky and count= contradict", 2),
        ((), "give a rule (FIELD=VALUE...), or --file", 2),
        (("--file", bad), 'bad.json: rule 2: "effect" is missing', 1),
        (("--file", tmp_path), "not a regular file", 1),
    ):
        refused(zonefs_py("fault", mnt, "add", *words, check=False), says, status=status)
    refused(zonefs_py("fault", mnt, "remove", "1", check=False), "there is no rule 1")
    assert MountControl(mnt).faults() == {"rules": [], "stuck": []}


class Writer:
    """A thread that appends a block, and may have to wait for that."""

    def __init__(self, path: Path) -> None:
        self.result: object = None
        self._path = path
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = append(self._path, bytes(BLOCK))
        except OSError as exc:
            self.result = errno.errorcode[exc.errno or 0]

    def end(self) -> object:
        """Wait for the end; return the number of bytes, or the errno."""
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        return self.result


def test_a_stuck_write_stops_no_other_zone(mnt: Path) -> None:
    control = MountControl(mnt)
    control.add_faults([FaultRule(Operation.WRITE, Effect.STUCK, (2, 2), count=None)])
    writer = Writer(mnt / "seq/0")
    wait_until("the write is stuck", lambda: len(control.faults()["stuck"]) == 1)
    for number in range(1, 6):
        append(mnt / "seq" / str(number), bytes(BLOCK))
    assert sorted(os.listdir(mnt / "seq")) == list("012345")
    assert writer.thread.is_alive()
    assert "stuck by rule 1 in zone 2 for" in zonefs_py("fault", mnt, "list").stdout
    assert zonefs_py("fault", mnt, "release").stdout == "1\n"
    assert writer.end() == BLOCK
    writer = Writer(mnt / "seq/0")
    wait_until("the next write is stuck", lambda: len(control.faults()["stuck"]) == 1)
    assert control.release_stuck(1, fail=True) == 1
    assert writer.end() == "EIO"
    writer = Writer(mnt / "seq/0")
    wait_until("and the next", lambda: len(control.faults()["stuck"]) == 1)
    control.clear_faults()
    assert writer.end() == BLOCK
    assert (mnt / "seq/0").stat().st_size == 2 * BLOCK


def test_stuck_calls_in_many_zones_stop_no_other(device_dir: DeviceFactory, mounted: Mounts) -> None:
    """There are more of them than worker threads."""
    mnt = mounted(device_dir(zones=64, zone_size="64K"), "errors=repair")
    # Their answers may come when the kernel has forgotten the questions.
    mounted.expect_log(mnt, "WARNING seq/")
    control = MountControl(mnt)
    control.add_faults([FaultRule(Operation.WRITE, Effect.STUCK, (2, 51), count=None)])
    writers = [Writer(mnt / "seq" / str(number)) for number in range(50)]
    wait_until("all writes are stuck", lambda: len(control.faults()["stuck"]) == len(writers))
    others = [Writer(mnt / "seq" / str(number)) for number in (50, 51)]
    assert [writer.end() for writer in others] == [BLOCK] * 2
    with (mnt / "seq/50").open("rb") as file:
        os.fsync(file.fileno())
        assert file.read() == bytes(BLOCK)
    assert control.statistics()["faults"]["stuck"] == len(writers)
    control.clear_faults()
    assert [writer.end() for writer in writers] == [BLOCK] * len(writers)


def test_faults_meet_reads_that_the_kernel_served_past_us(mnt: Path) -> None:
    """Who has the file open when the rule comes may lose it (EIO); who opens it then is served by the daemon."""
    control = MountControl(mnt)
    for number in (0, 1):
        append(mnt / "seq" / str(number), pattern(0, 2 * BLOCK))
    readers = [os.open(mnt / "seq" / str(number), os.O_RDONLY) for number in (0, 1)]
    try:
        assert [os.pread(reader, BLOCK, 0) for reader in readers] == [pattern(0, BLOCK)] * 2
        control.add_faults([{"operation": "read", "zones": 2, "effect": "fail", "count": None}])
        assert errno_of(lambda: os.pread(readers[0], BLOCK, 0)) == "EIO"
        assert errno_of(lambda: (mnt / "seq/0").read_bytes()) == "EIO"
        assert control.faults()["rules"][0]["fired"] > 0
        assert os.pread(readers[1], BLOCK, 0) == pattern(0, BLOCK)
        control.clear_faults()
        assert (mnt / "seq/0").read_bytes() == pattern(0, 2 * BLOCK)
    finally:
        for reader in readers:
            # Of a file that was lost, close(2) says so too; it is closed all the same.
            with contextlib.suppress(OSError):
                os.close(reader)


STUCK_CALLS: dict[str, Callable[[Path], object]] = {
    "write": lambda mnt: append(mnt / "seq/0", bytes(BLOCK)),
    "reset": lambda mnt: os.truncate(mnt / "seq/1", 0),
    "flush": lambda mnt: os.fsync(os.open(mnt / "seq/1", os.O_RDONLY)),
    "open": lambda mnt: os.open(mnt / "seq/0", os.O_WRONLY),
    "close": lambda mnt: append(mnt / "seq/1", bytes(BLOCK)),
}


@pytest.mark.parametrize("operation", STUCK_CALLS)
@pytest.mark.parametrize("way", ["umount", "signal"])
def test_a_stuck_call_does_not_keep_a_mount(
    device_dir: DeviceFactory, mounted: Mounts, operation: str, way: str
) -> None:
    """The call fails, the daemon ends, and the device is free."""
    device = device_dir(max_open=4)
    mnt = mounted(device, "errors=repair,explicit-open")
    # An answer may come when the kernel has forgotten the question; pyfuse3 says so.
    mounted.expect_log(mnt, "WARNING seq/|ERROR fuse_.*reply.* failed")
    append(mnt / "seq/1", bytes(BLOCK))
    MountControl(mnt).add_faults([{"operation": operation, "effect": "stuck"}])
    # In a process of its own: it can be waited for, and its files are closed when it ends.
    source = (
        "import sys; from pathlib import Path; from tests.fuse.test_control_mount import STUCK_CALLS;"
        f"STUCK_CALLS[{operation!r}](Path(sys.argv[1]))"
    )
    caller = subprocess.Popen([sys.executable, "-c", source, str(mnt)], stderr=subprocess.PIPE, text=True)
    wait_until("the call is stuck", lambda: len(MountControl(mnt).faults()["stuck"]) == 1)
    live: LiveMount = mounted.get(mnt)
    if way == "signal":
        os.kill(live.pid, signal.SIGTERM)
        wait_until("the daemon ends", lambda: not live.daemon_runs)
    else:
        # It may be busy for the moment that the caller needs to end.
        wait_until("it is unmounted", lambda: zonefs_py("umount", mnt, check=False).returncode == 0)
        assert not live.daemon_runs
    _, complaint = caller.communicate(timeout=SECONDS)
    # close(2) tells nobody; a device that is not there any more is not asked.
    assert ("OSError" in complaint) == (operation != "close"), complaint
    assert not live.is_mounted
    assert not live.bad_log_lines(), live.log_file.read_text()
    mounted.forget(mnt)
    assert zonefs_py("report", device).returncode == 0


def test_delays_hold_up_their_zone_only(mnt: Path, mounted: Mounts) -> None:
    control = MountControl(mnt)
    rule = {"operation": "write", "zones": 2, "effect": "delay", "milliseconds": 3_600_000}
    control.add_faults([rule])
    writer = Writer(mnt / "seq/0")
    wait_until("the write waits", lambda: control.faults()["rules"][0]["fired"] == 1)
    append(mnt / "seq/1", bytes(BLOCK))
    assert writer.thread.is_alive()
    zonefs_py("umount", mnt, check=False)  # it is busy, so this changes nothing
    assert writer.thread.is_alive()
    os.kill(control.info()["mount"]["pid"], signal.SIGTERM)
    # Nobody waits for a delay when the daemon ends; the write is done, or finds the mount gone.
    assert writer.end() in (BLOCK, "ENOTCONN", "ECONNABORTED", "EIO")
    wait_until("it is unmounted", lambda: find_mount(str(mnt)) is None)
    mounted.forget(mnt)


def test_who_asked_a_daemon_that_died_is_told_that_nobody_knows(site: Site) -> None:
    mnt = site.mountpoint()
    pid = site.mount(site.device(), mnt)
    control = MountControl(mnt)
    control.add_faults([{"operation": "reset", "effect": "stuck"}])
    with ThreadPoolExecutor(1) as pool:
        reset = pool.submit(control.reset_zones, 2)
        wait_until("the reset is stuck", lambda: len(control.faults()["stuck"]) == 1)
        site.kill(pid)
        with pytest.raises(MountError, match=r"does not answer .*; what it was asked for may be done all the same"):
            reset.result(SECONDS)


# Refusals


def test_why(mnt: Path) -> None:
    control = MountControl(mnt)
    assert zonefs_py("ctl", mnt, "why").stdout == "nothing was refused\n"
    append(mnt / "seq/0", bytes(BLOCK))
    me = os.getpid()

    def refused_call(name: str, file: str | None, call: Callable[[], object]) -> dict[str, object]:
        number = errno_of(call)
        last = control.refusals(1)[0]
        assert (last["call"], last["errno"], last["file"], last["pid"]) == (name, number, file, me)
        assert last["process"] == Path("/proc/self/comm").read_text().strip()
        assert all(last[text] for text in ("message", "rule", "source", "advice"))
        return last

    handle = os.open(mnt / "seq/0", os.O_RDWR | os.O_DIRECT)
    source = os.open(mnt / "cnv/0", os.O_RDONLY)
    memory = mmap.mmap(-1, 2 * BLOCK)
    last = refused_call("write", "seq/0", lambda: os.pwritev(handle, [memory], 8 * BLOCK))
    assert (last["offset"], last["length"], last["size"], last["capacity"]) == (8 * BLOCK, 2 * BLOCK, BLOCK, MIB)
    assert (last["zone"], last["number"]) == (2, 1)
    assert "write at offset 4096" in str(last["advice"])
    refused_call("read", "seq/0", lambda: os.preadv(handle, [memoryview(memory)[:512]], 512))
    refused_call("setattr", "seq/0", lambda: os.truncate(mnt / "seq/0", 5))
    refused_call("setattr", "cnv/0", lambda: os.truncate(mnt / "cnv/0", 5))
    refused_call("copy_file_range", "seq/0", lambda: os.copy_file_range(source, handle, BLOCK, 0, 0))
    refused_call("unlink", None, lambda: os.unlink(mnt / "seq/0"))
    refused_call("mkdir", None, lambda: os.mkdir(mnt / "new"))
    control.add_faults([{"operation": "write", "effect": "fail", "name": "worn out"}])
    last = refused_call("write", "seq/0", lambda: os.pwritev(handle, [memory], BLOCK))
    assert "fails by rule 1 (worn out)" in str(last["message"])
    os.close(handle)
    os.close(source)
    assert len(control.refusals()) == 8
    shown = zonefs_py("ctl", mnt, "why", "--last", "1").stdout
    assert f"({me}): EIO" in shown
    assert "write pointer 4096" in shown
    assert json.loads(zonefs_py("ctl", mnt, "why", "--format", "json").stdout) == control.refusals()
    statistics = control.statistics()
    assert statistics["refusals"] == {"EINVAL": 3, "EIO": 1, "ENOENT": 1, "EPERM": 3}


def test_refusals_are_logged_if_asked_for(device_dir: DeviceFactory, mounted: Mounts) -> None:
    loud, quiet = mounted(device_dir(), "explain"), mounted(device_dir())
    for level, count in (("info", 1), ("error", 2)):
        for mnt in (loud, quiet):
            MountControl(mnt).set_log_level(level)
            with pytest.raises(OSError, match="seq/0"):
                os.truncate(mnt / "seq/0", 5)
        assert mounted.get(loud).log_file.read_text().count("refused: setattr of seq/0 (zone 2) by") == count
    assert "refused" not in mounted.get(quiet).log_file.read_text()
    assert "explain" in mounted.info(loud)["mount"]["options"].split(",")


# The rest


def test_statistics_and_log_level(mnt: Path, mounted: Mounts) -> None:
    control = MountControl(mnt)
    append(mnt / "seq/0", bytes(3 * BLOCK))
    # With O_DIRECT it comes to the daemon, whatever the kernel can do.
    reader = os.open(mnt / "seq/0", os.O_RDONLY | os.O_DIRECT)
    assert os.preadv(reader, [mmap.mmap(-1, 4 * BLOCK)], 0) == 3 * BLOCK
    os.close(reader)
    os.truncate(mnt / "seq/0", 0)
    statistics = control.statistics()
    activity = statistics["activity"]
    assert (activity["writes"], activity["bytes_written"], activity["resets"]) == (1, 3 * BLOCK, 1)
    assert activity["bytes_read"] == 3 * BLOCK
    assert statistics["space"]["used"] == MIB
    assert statistics["daemon"]["pid"] == mounted.get(mnt).pid
    assert "bytes written:          12288" in zonefs_py("ctl", mnt, "stats").stdout
    shown = json.loads(zonefs_py("ctl", mnt, "stats", "--format", "json").stdout)
    assert shown["activity"] == activity
    without = zonefs_py("ctl", mnt, "log-level", check=False)
    assert (without.returncode, without.stderr.count("\n"), "\\" in without.stderr) == (2, 1, False)
    assert "Choose from: debug, info" in without.stderr
    zonefs_py("ctl", mnt, "log-level", "debug")
    with pytest.raises(OSError, match="seq/9"):
        os.stat(mnt / "seq/9")
    assert "DEBUG lookup: ENOENT" in mounted.get(mnt).log_file.read_text()
    assert control.statistics()["daemon"]["log_level"] == "debug"
    control.set_log_level("info")
    assert control.set_copy_limits(copy_max_bytes=MIB)["copy_max_bytes"] == MIB
    assert "copy_max_bytes                 1048576  (1M)" in zonefs_py("ctl", mnt, "limits").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user; run the tests as root")
def test_another_user_has_no_control(mnt: Path, mounted: Mounts) -> None:
    mounted.expect_log(mnt, "control connection of user 65534 refused")
    entry = find_mount(str(mnt))
    assert entry is not None
    path = socket_path(entry)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    before = MountControl(mnt).report()
    # As somebody else, in every way that there is: the socket, and the commands.
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    source = (
        "import socket, sys\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: print('refused')\n"
    )
    # What they run must be theirs to read: the interpreter itself, without our package.
    plain = os.path.realpath(sys.executable)
    done = run(*nobody, plain, "-I", "-c", source, path, check=False)
    assert done.stdout == "refused\n", done.stderr
    # Let through by modes that somebody has changed, they are not served. The directory serves other mounts of the
    # machine as well, so its modes stay: the socket is entered by another name.
    door = path.parent.parent / f"zonefs-py-test-{os.getpid()}"
    os.link(path, door)
    os.chmod(path, 0o666)
    try:
        source = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
            "try:\n"
            '    s.sendall(b\'{"request": "manage-zones", "operation": "finish", "zones": [2]}\\n\')\n'
            "    print(s.recv(100))\n"
            "except (BrokenPipeError, ConnectionResetError): print(b'')\n"
        )
        assert run(*nobody, plain, "-I", "-c", source, door).stdout == "b''\n"
    finally:
        os.chmod(path, 0o600)
        door.unlink()
    assert MountControl(mnt).report() == before


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{\n",
        b"[" * 100_000 + b"\n",
        b'{"request": "manage-zones", "operation": "finish", "zones": [' + b"2," * 1_000_000 + b"x]}\n",
        b"9" * (17 * MIB) + b"\n",
        b"\0" * (17 * MIB),
        b'{"request": "info"}',
        os.urandom(5000) + b"\n",
    ],
    ids=["empty", "short", "deep", "wrong", "huge", "endless", "no-end", "noise"],
)
def test_what_is_no_request_harms_nothing(mnt: Path, line: bytes) -> None:
    entry = find_mount(str(mnt))
    assert entry is not None
    before = MountControl(mnt).report()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(socket_path(entry)))
        try:
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as stream:
                answer = stream.readline()
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    if answer and line != b'{"request": "info"}':
        assert not json.loads(answer)["ok"]
    control = MountControl(mnt)
    assert control.report() == before
    append(mnt / "seq/0", bytes(BLOCK))
    assert control.statistics()["daemon"]["resident"] < 400 * MIB

"""``zonefs-py ctl MOUNTPOINT power-cut``: a mount loses power under those who use it, and comes back, or does not."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.conftest import Mounts, wait_until
from tests.fuse.daemon_helpers import pattern, refused, zonefs_py
from tests.fuse.test_control_mount import Writer, append, errno_of
from zonefs_py import FaultRule, MountControl
from zonefs_py.device.fault_rules import Effect, Operation
from zonefs_py.device.power_cut import PowerCut, ZoneLoss
from zonefs_py.errors import MountError, OptionError

BLOCK = 4096
MIB = 1 << 20
SECONDS = 60

DeviceFactory = Callable[..., Path]


@pytest.fixture
def mnt(device_dir: DeviceFactory, mounted: Mounts) -> Path:
    """A mount with a write cache; zone 1 is cnv/0, zone 2 is seq/0."""
    return mounted(Path(f"write-cache:{device_dir(max_open=4)}"), "errors=repair,explicit-open")


def synced(path: Path, content: bytes) -> None:
    """Append *content*, and have it durable."""
    append(path, content)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def close(*handles: int) -> None:
    """Close files. Of one that was lost, close(2) says so too; it is closed all the same."""
    for handle in handles:
        with contextlib.suppress(OSError):
            os.close(handle)


def test_what_was_synced_is_there_and_the_rest_is_lost_or_kept(mnt: Path) -> None:
    data = pattern(0, 8 * BLOCK)
    file = mnt / "seq/0"
    synced(file, data[: 2 * BLOCK])
    append(file, data[2 * BLOCK : 4 * BLOCK])
    shown = zonefs_py("ctl", mnt, "power-cut", "--keep", "all").stdout
    assert shown == "zone 2: 8192 bytes not flushed, 8192 kept\n8192 bytes were not flushed, 8192 of them are kept\n"
    assert file.stat().st_size == 4 * BLOCK
    append(file, data[4 * BLOCK :])
    assert file.stat().st_size == 8 * BLOCK
    document = json.loads(zonefs_py("ctl", mnt, "power-cut", "--format", "json").stdout)
    assert document == {"zones": [{"number": 2, "unflushed": 4 * BLOCK, "kept": 0}]}
    assert file.read_bytes() == data[: 4 * BLOCK]
    # In part: chosen by a seed, the same each time.
    kept = set()
    for seed in range(8):
        os.truncate(file, 0)
        append(file, data)
        cut = MountControl(mnt).power_cut(f"seed:{seed}")
        assert file.read_bytes() == data[: cut.kept]
        kept.add(cut.kept)
    assert len(kept) > 2


def test_the_kernel_knows_of_sizes_and_attributes(mnt: Path) -> None:
    file, other = mnt / "seq/0", mnt / "seq/1"
    append(file, bytes(4 * BLOCK))
    os.chmod(file, 0o600)
    os.chmod(other, 0o600)
    assert file.stat().st_size == 4 * BLOCK
    MountControl(mnt).power_cut()
    assert (file.stat().st_size, file.stat().st_mode & 0o777, other.stat().st_mode & 0o777) == (0, 0o640, 0o640)
    # A copy ends where the kernel takes the source to end, and an append begins there.
    append(file, pattern(1, 2 * BLOCK))
    with file.open("rb") as source, other.open("r+b") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), MIB, 0, 0) == 2 * BLOCK
    assert other.read_bytes() == pattern(1, 2 * BLOCK)


def test_open_files_are_lost_and_can_be_opened_again(mnt: Path) -> None:
    control = MountControl(mnt)
    synced(mnt / "seq/0", pattern(0, 2 * BLOCK))
    reader = os.open(mnt / "seq/0", os.O_RDONLY)
    writer = os.open(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
    idle = os.open(mnt / "seq/1", os.O_WRONLY)
    conventional = os.open(mnt / "cnv/0", os.O_RDWR)
    directory = os.open(mnt / "seq", os.O_RDONLY)
    memory = mmap.mmap(-1, BLOCK)
    assert os.pread(conventional, 4, 0) == bytes(4)
    assert control.info()["mount"]["nr_wro_seq_files"] == 2
    control.power_cut()
    for call in (
        lambda: os.pread(reader, BLOCK, 0),
        lambda: os.fstat(reader),
        lambda: os.write(writer, memory),
        lambda: os.fsync(writer),
        lambda: os.ftruncate(idle, 0),
        lambda: os.pread(conventional, 4, 0),
        lambda: os.pwrite(conventional, b"x", 0),
        lambda: os.copy_file_range(conventional, idle, BLOCK, 0, 0),
    ):
        assert errno_of(call) == "EIO"
    # Zones that were explicitly open are so no more, and the lost files take up none.
    info = control.info()["mount"]
    assert (info["nr_wro_seq_files"], info["nr_active_seq_files"]) == (0, 1)
    assert control.report()[3]["condition"] == "empty"
    writers = [os.open(mnt / "seq" / str(number), os.O_WRONLY) for number in range(4)]
    close(*writers)
    assert sorted(os.listdir(directory)) == sorted(os.listdir(mnt / "seq")) == list("012345")
    assert (mnt / "seq/0").read_bytes() == pattern(0, 2 * BLOCK)
    append(mnt / "seq/0", bytes(BLOCK))
    close(reader, writer, idle, conventional, directory)
    wait_until("all is closed", lambda: control.statistics()["files"]["open_handles"] == 0)
    assert control.info()["mount"]["nr_wro_seq_files"] == 0


def test_pages_of_before_are_not_shown(mnt: Path) -> None:
    """Neither those of the page cache nor those that a program has mapped, written or not; nor are they written."""
    file = mnt / "cnv/0"
    handle = os.open(file, os.O_RDWR)
    os.pwrite(handle, b"old" * BLOCK, 0)
    os.fsync(handle)
    os.pwrite(handle, b"new" * BLOCK, 0)
    mapped = mmap.mmap(handle, 3 * BLOCK)
    mapped[2 * BLOCK : 2 * BLOCK + 4] = b"dirt"
    assert mapped[:3] == b"new"
    cut = MountControl(mnt).power_cut()
    assert cut.zones == (ZoneLoss(1, 3 * BLOCK, 0),)
    assert file.read_bytes()[: 3 * BLOCK] == b"old" * BLOCK
    with file.open("r+b") as again, mmap.mmap(again.fileno(), 3 * BLOCK) as fresh:
        assert fresh[:] == b"old" * BLOCK
        fresh[:3] = b"NEW"
        fresh.flush()
        assert file.read_bytes()[:6] == b"NEWold"
    # Who still looks at his mapping finds nothing: SIGBUS, as for a disk that is gone.
    child = os.fork()
    if not child:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        os._exit(mapped[0])
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGBUS
    close(handle)


def test_a_dead_mount_answers_eio_and_can_be_brought_back(mnt: Path) -> None:
    control = MountControl(mnt)
    file = mnt / "seq/0"
    synced(file, pattern(0, BLOCK))
    append(file, pattern(0, BLOCK))
    reader = os.open(file, os.O_RDONLY)
    (mnt / "cnv/0").read_bytes()
    zonefs_py("ctl", mnt, "power-cut", "--dead")
    for call in (
        lambda: os.pread(reader, BLOCK, 0),
        lambda: os.fstat(reader),
        lambda: file.stat(),
        lambda: file.read_bytes(),
        lambda: (mnt / "cnv/0").read_bytes(),
        lambda: append(file, bytes(BLOCK)),
        lambda: os.truncate(file, 0),
        lambda: os.chmod(file, 0o600),
        lambda: os.listdir(mnt),
        lambda: os.listdir(mnt / "seq"),
        lambda: os.statvfs(mnt),
        lambda: os.stat(mnt),
    ):
        assert errno_of(call) == "EIO"
    for words in (("ctl", mnt, "zone", "reset", "2"), ("info", mnt), ("report", mnt)):
        refused(zonefs_py(*words, check=False), f"has no power; 'zonefs-py ctl {mnt} power-on' brings it back")
    assert control.refusals(1)[0]["errno"] == "EIO"
    assert control.power_cut("all", dead=True) == PowerCut(())
    zonefs_py("ctl", mnt, "power-on")
    assert file.read_bytes() == pattern(0, BLOCK)
    assert errno_of(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
    assert sorted(os.listdir(mnt)) == ["cnv", "seq"]
    close(reader)


@pytest.mark.parametrize("way", ["umount", "signal"])
def test_a_dead_mount_can_be_ended(mnt: Path, mounted: Mounts, way: str) -> None:
    live = mounted.get(mnt)
    synced(mnt / "seq/0", pattern(0, BLOCK))
    append(mnt / "seq/0", pattern(0, BLOCK))
    MountControl(mnt).power_cut(dead=True)
    if way == "umount":
        zonefs_py("umount", mnt)
    else:
        os.kill(live.pid, signal.SIGTERM)
    wait_until("the daemon ends", lambda: not live.daemon_runs)
    assert not live.is_mounted
    assert not live.bad_log_lines(), live.log_file.read_text()
    mounted.forget(mnt)
    device = next(mnt.parent.glob("disk*"))
    zone = json.loads(zonefs_py("report", device, "--format", "json").stdout)["zones"][2]
    assert zone["write_pointer"] - zone["start"] == BLOCK


def test_nothing_to_lose(mnt: Path) -> None:
    for words in ((), ("--keep", "seed:7"), ("--keep", "all")):
        assert zonefs_py("ctl", mnt, "power-cut", *words).stdout == "0 bytes were not flushed, 0 of them are kept\n"
    append(mnt / "seq/0", bytes(BLOCK))
    assert (mnt / "seq/0").stat().st_size == BLOCK


def test_wrong_calls_cut_nothing(mnt: Path, device_dir: DeviceFactory, mounted: Mounts) -> None:
    append(mnt / "seq/0", bytes(BLOCK))
    refused(zonefs_py("ctl", mnt, "power-cut", "--keep", "some", check=False), "'some'", status=2)
    with pytest.raises(OptionError, match="none, all, or seed:N"):
        MountControl(mnt).power_cut("seed:x")
    control = MountControl(mnt)
    for fields, words in (({"keep": 7}, "keep must be"), ({"dead": 1}, "dead must be"), ({"how": 1}, "no field")):
        with pytest.raises(MountError, match=words):
            control.ask("power-cut", **fields)
    assert (mnt / "seq/0").stat().st_size == BLOCK
    # Without a cache, one line says what to mount.
    device = device_dir()
    plain = mounted(device)
    append(plain / "seq/0", bytes(BLOCK))
    for command in ("power-cut", "power-on"):
        refused(zonefs_py("ctl", plain, command, check=False), f"{device} has no write cache", f"write-cache:{device}")
    assert (plain / "seq/0").read_bytes() == bytes(BLOCK)


def test_a_mount_that_cannot_come_back_is_dead(mnt: Path, mounted: Mounts) -> None:
    mounted.expect_log(mnt, "ERROR the power was cut, and the device cannot be mounted again")
    synced(mnt / "seq/0", pattern(0, BLOCK))
    zonefs_py("fault", mnt, "add", "--sticky", "operation=read", "zones=0", "effect=fail")
    refused(zonefs_py("ctl", mnt, "power-cut", check=False), "cannot be mounted again", "by rule 1")
    assert errno_of(lambda: (mnt / "seq/0").read_bytes()) == "EIO"
    zonefs_py("fault", mnt, "clear")
    zonefs_py("ctl", mnt, "power-on")
    assert (mnt / "seq/0").read_bytes() == pattern(0, BLOCK)


def test_calls_that_are_stuck_fail_and_others_wait(mnt: Path) -> None:
    control = MountControl(mnt)
    writes = FaultRule(Operation.WRITE, Effect.STUCK, (2, 2), count=None)
    control.add_faults([writes, FaultRule(Operation.REPORT, Effect.STUCK)])
    stuck = Writer(mnt / "seq/0")
    wait_until("the write is stuck", lambda: len(control.faults()["stuck"]) == 1)
    cutter = threading.Thread(target=control.power_cut)
    cutter.start()
    assert stuck.end() == "EIO"
    # Coming back is stuck as well: what is asked for meanwhile waits for it.
    wait_until("the report is stuck", lambda: [one["rule"] for one in control.faults()["stuck"]] == [2])
    waiting = Writer(mnt / "seq/1")
    statfs = threading.Thread(target=lambda: os.stat(mnt / "seq/2"))
    statfs.start()
    assert waiting.thread.is_alive()
    assert cutter.is_alive()
    assert control.release_stuck(2) == 1
    cutter.join(SECONDS)
    assert not cutter.is_alive()
    assert waiting.end() == BLOCK
    statfs.join(SECONDS)
    assert not statfs.is_alive()


def test_a_truncation_of_an_open_file_is_not_done_to_what_comes_back(mnt: Path) -> None:
    """It comes while the power is away, and waits: whoever made it must not empty what the cut has left."""
    control = MountControl(mnt)
    synced(mnt / "seq/0", pattern(0, BLOCK))
    handle = os.open(mnt / "seq/0", os.O_RDWR)
    control.add_faults([FaultRule(Operation.REPORT, Effect.STUCK)])
    cutter = threading.Thread(target=control.power_cut, daemon=True)
    cutter.start()
    wait_until("coming back is stuck", lambda: len(control.faults()["stuck"]) == 1)
    source = "import os, sys; sys.stdout.write('.'); sys.stdout.flush(); os.ftruncate(int(sys.argv[1]), 0)"
    truncation = subprocess.Popen(
        [sys.executable, "-c", source, str(handle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[handle],
    )
    assert truncation.stdout is not None
    truncation.stdout.read(1)
    wait_until("it waits", lambda: Path(f"/proc/{truncation.pid}/stat").read_text().rpartition(") ")[2][0] in "DS")
    control.release_stuck()
    cutter.join(SECONDS)
    assert "Input/output error" in truncation.communicate(timeout=SECONDS)[1]
    assert (mnt / "seq/0").read_bytes() == pattern(0, BLOCK)
    close(handle)


def test_devices_together_one_of_which_is_stuck_below_its_cache(
    device_dir: DeviceFactory, mounted: Mounts, tmp_path: Path
) -> None:
    """The cut does not wait; what was written to the device without a cache is there."""
    rules = tmp_path / "rules.json"
    rule = {"operation": "flush", "effect": "stuck", "zones": "2"}
    rules.write_text(json.dumps({"version": 1, "rules": [rule]}))
    first, second = device_dir(), device_dir()
    mnt = mounted(Path(f"linear:(write-cache:fault:{rules},{first})+{second}[2-7]"), "errors=repair")
    append(mnt / "seq/0", pattern(0, BLOCK))
    append(mnt / "seq/6", pattern(6, BLOCK))
    handle = os.open(mnt / "seq/0", os.O_RDWR)
    errors: list[str] = []
    syncer = threading.Thread(target=lambda: errors.append(errno_of(lambda: os.fsync(handle))), daemon=True)
    log = mounted.get(mnt).log_file
    syncer.start()
    wait_until("the flush is stuck", lambda: "flush is stuck by rule 1" in log.read_text())
    out = zonefs_py("ctl", mnt, "power-cut").stdout
    # It was written down, and only its flush got stuck.
    assert out == "0 bytes were not flushed, 0 of them are kept\n"
    syncer.join(SECONDS)
    assert errors == ["EIO"]
    close(handle)
    assert (mnt / "seq/0").read_bytes() == pattern(0, BLOCK)
    assert (mnt / "seq/6").read_bytes() == pattern(6, BLOCK)
    synced(mnt / "seq/0", pattern(1, BLOCK))


WORK = """
import mmap, os, sys
mnt, number, log = sys.argv[1], int(sys.argv[2]), open(sys.argv[3], "a", buffering=1)
BLOCK = 4096
path = f"{mnt}/seq/{number}"
memory = mmap.mmap(-1, BLOCK)
step = 0
while True:
    step += 1
    memory[:] = step.to_bytes(8, "little") * (BLOCK // 8)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
        try:
            if os.fstat(handle).st_size == 1 << 20:
                log.write("reset\\n")
                os.truncate(path, 0)
            os.write(handle, memory)
            os.fsync(handle)
            log.write(f"{step}\\n")
            if number == 0:
                source = os.open(path, os.O_RDONLY)
                target = os.open(f"{mnt}/cnv/0", os.O_RDWR)
                try:
                    os.copy_file_range(source, target, 1 << 20, 0, 0)
                finally:
                    os.close(source)
                    os.close(target)
        finally:
            os.close(handle)
    except OSError as exc:
        if exc.errno != 5:
            log.write(f"errno {exc.errno}\\n")
            raise
"""


@pytest.mark.parametrize("keep", ["none", "seed"])
def test_under_writers_and_copies(mnt: Path, tmp_path: Path, keep: str) -> None:
    """Whatever a program was told to be durable is there, in order; it goes on after each cut."""
    control = MountControl(mnt)
    chance = random.Random(1)
    logs = [tmp_path / f"log{number}" for number in range(4)]
    commands = [[sys.executable, "-c", WORK, str(mnt), str(number), str(log)] for number, log in enumerate(logs)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]

    def lines() -> int:
        return sum(len(log.read_text().splitlines()) for log in logs if log.exists())

    try:
        for number in range(12):
            before = lines()
            # The type: mypy cannot infer that of a lambda with a default.
            wait_until("the writers go on", lambda before=before: lines() >= before + 8)  # type: ignore[misc]
            control.power_cut("none" if keep == "none" else f"seed:{chance.randrange(1000)}", dead=number % 4 == 3)
            if number % 4 == 3:
                control.power_on()
        assert [worker.poll() for worker in workers] == [None] * len(workers), [log.read_text()[-100:] for log in logs]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    for number, log in enumerate(logs):
        durable: list[int] = []
        for line in log.read_text().splitlines():
            durable = [] if line == "reset" else [*durable, int(line)]
        data = (mnt / "seq" / str(number)).read_bytes()
        steps = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), BLOCK)]
        assert all(data[at : at + BLOCK] == data[at : at + 8] * (BLOCK // 8) for at in range(0, len(data), BLOCK))
        assert steps == sorted(set(steps))
        if log.read_text().splitlines()[-1:] != ["reset"]:
            assert set(durable) <= set(steps)
    wait_until("all is closed", lambda: control.statistics()["files"]["open_handles"] == 0)
    info = control.info()
    report = control.report()
    sizes = [(mnt / str(zone["file"])).stat().st_size for zone in report if zone["file"]]
    assert control.statistics()["space"]["used"] == sum(sizes)
    assert info["mount"]["nr_wro_seq_files"] == 0
    conditions = [zone["condition"] for zone in report]
    assert info["mount"]["nr_active_seq_files"] == sum(condition == "closed" for condition in conditions)
    assert set(conditions) <= {"not-write-pointer", "empty", "closed", "full"}


def test_a_truncation_that_waits_does_not_hold_up_the_kernel(mnt: Path) -> None:
    """While the kernel truncates a file it writes no pages of it; the cut has it write those that are mapped."""
    control = MountControl(mnt)
    file = mnt / "cnv/0"
    handle = os.open(file, os.O_RDWR)
    mapped = mmap.mmap(handle, BLOCK)
    mapped[:4] = b"dirt"
    control.add_faults([FaultRule(Operation.REPORT, Effect.STUCK)])
    cutter = threading.Thread(target=control.power_cut, daemon=True)
    cutter.start()
    wait_until("coming back is stuck", lambda: len(control.faults()["stuck"]) == 1)
    source = "import os, sys; sys.stdout.write('.'); sys.stdout.flush(); os.truncate(sys.argv[1], 5)"
    command = [sys.executable, "-c", source, str(file)]
    truncation = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert truncation.stdout is not None
    truncation.stdout.read(1)
    wait_until("it waits", lambda: Path(f"/proc/{truncation.pid}/stat").read_text().rpartition(") ")[2][0] in "DS")
    control.release_stuck()
    cutter.join(SECONDS)
    assert not cutter.is_alive()
    assert "PermissionError" in truncation.communicate(timeout=SECONDS)[1]
    assert file.read_bytes()[:4] == bytes(4)
    close(handle)

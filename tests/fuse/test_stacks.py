"""Real mounts of stacks: over the seam of a linear device, and with faults."""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ZONEFS_PY, Mounts, run

BLOCK = 4096
MIB = 1 << 20


def aligned(content: bytes) -> mmap.mmap:
    """Memory for direct I/O."""
    memory = mmap.mmap(-1, len(content))
    memory.write(content)
    return memory


def append(path: Path, content: bytes) -> int:
    """Append with direct I/O; return how much was written."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
    try:
        return os.write(handle, aligned(content))
    finally:
        os.close(handle)


def write_rules(path: Path, *rules: object) -> Path:
    path.write_text(json.dumps({"version": 1, "rules": rules}))
    return path


def test_a_linear_mount(device_dir: Callable[..., Path], mounted: Mounts, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = device_dir(mkfs=None, zones=4, conventional=2), device_dir(mkfs=None, zones=4, conventional=1)
    monkeypatch.chdir(a.parent)
    # Relative paths, and a slice: zones 0 to 2 of the second device.
    text = f"linear:{a.name}+{b.name}[0-2]"
    run(ZONEFS_PY, "mkfs", text)
    mnt = mounted(Path(text))
    absolute = f"linear:{a}+{b}[0-2]"
    device = mounted.info(mnt)["device"]
    assert (device["kind"], device["name"], device["nr_zones"]) == ("linear", absolute, 7)
    assert f"{absolute}: mounted at {mnt}" in mounted.get(mnt).log_file.read_text()
    assert f"{absolute} {mnt} fuse.zonefs-py" in Path("/proc/self/mounts").read_text()
    assert (sorted(os.listdir(mnt / "cnv")), sorted(os.listdir(mnt / "seq"))) == (["0", "1"], ["0", "1", "2", "3"])
    for number in range(4):
        content = bytes([number + 1]) * (8 * BLOCK)
        assert append(mnt / "seq" / str(number), content) == len(content)
    with (mnt / "cnv" / "1").open("r+b") as file:
        file.write(b"behind the seam")
    # The daemon owns both devices.
    busy = run(ZONEFS_PY, "info", b, check=False)
    assert (busy.returncode, busy.stderr.count("\n")) == (1, 1)
    assert "is in use by pid" in busy.stderr
    run(ZONEFS_PY, "zone", "offline", mnt, "5")
    mounted.expect_log(mnt, "seq/2")
    with pytest.raises(OSError, match="Input/output"):
        (mnt / "seq" / "2").read_bytes()
    mounted.unmount(mnt)
    assert (b / "seq-000001").stat().st_size == (b / "seq-000002").stat().st_size == 8 * BLOCK
    run(ZONEFS_PY, "zone", "online", text, "5")
    mnt = mounted(Path(text))
    for number in range(4):
        assert (mnt / "seq" / str(number)).read_bytes() == bytes([number + 1]) * (8 * BLOCK)
    assert (mnt / "cnv" / "1").read_bytes().startswith(b"behind the seam")


def test_a_file_of_conventional_zones_of_both_parts(device_dir: Callable[..., Path], mounted: Mounts) -> None:
    a, b = device_dir(mkfs=None, zones=2, conventional=2), device_dir(mkfs=None, zones=3, conventional=1)
    text = f"linear:{a}+{b}"
    run(ZONEFS_PY, "mkfs", "-o", "aggr_cnv", text)
    mnt = mounted(Path(text))
    path = mnt / "cnv" / "0"
    assert path.stat().st_size == 2 * MIB
    content = os.urandom(2 * MIB)
    with path.open("r+b") as file:
        file.write(content)
        os.fsync(file.fileno())
    assert path.read_bytes() == content
    assert (b / "cnv-000000").read_bytes() == content[MIB:]


def test_a_mount_with_faults(device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path) -> None:
    device = device_dir()
    rules = write_rules(
        tmp_path / "rules.json",
        {"operation": "write", "zones": 2, "first": 2, "effect": "fail", "error": "ENOSPC", "after": BLOCK},
        {"operation": "write", "zones": 3, "effect": "offline", "after": BLOCK},
        {"operation": "read", "zones": 4, "effect": "flip", "byte": 5},
        {"operation": "write", "zones": 5, "effect": "drop"},
    )
    text = f"fault:{rules},{device}"
    mnt = mounted(Path(text), "errors=repair")
    mounted.expect_log(mnt, r"seq/[01]")
    assert (mounted.info(mnt)["device"]["kind"], mounted.info(mnt)["device"]["name"]) == ("fault", text)
    first = mnt / "seq" / "0"
    assert append(first, b"a" * BLOCK) == BLOCK
    with pytest.raises(OSError, match="No space") as raised:
        append(first, b"b" * (2 * BLOCK))
    assert raised.value.errno == errno.ENOSPC
    assert first.read_bytes() == b"a" * BLOCK + b"b" * BLOCK
    assert append(first, b"c" * BLOCK) == BLOCK
    second = mnt / "seq" / "1"
    with pytest.raises(OSError, match="Input/output"):
        append(second, b"x" * (2 * BLOCK))
    assert (second.stat().st_size, second.stat().st_mode & 0o777) == (0, 0)
    third = mnt / "seq" / "2"
    append(third, b"y" * BLOCK)
    assert third.read_bytes() == b"y" * 5 + b"x" + b"y" * (BLOCK - 6)  # "y" and "x" differ in bit 0
    assert third.read_bytes() == b"y" * BLOCK
    fourth = mnt / "seq" / "3"
    append(fourth, b"z" * BLOCK)
    assert fourth.read_bytes() == bytes(BLOCK)
    assert "rule 1 (fail) strikes a write" in mounted.get(mnt).log_file.read_text()
    mounted.unmount(mnt)
    assert (device / "seq-000002").read_bytes() == b"a" * BLOCK + b"b" * BLOCK + b"c" * BLOCK


@pytest.mark.parametrize("flag", [os.O_DSYNC, os.O_SYNC])
@pytest.mark.parametrize("name", ["seq/0", "cnv/0"])
def test_a_synchronous_write_is_flushed(
    device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path, name: str, flag: int
) -> None:
    """What fails is the flush, so the write must have asked for one; a write without the flag must not."""
    rules = write_rules(tmp_path / "rules.json", {"operation": "flush", "count": 2, "effect": "fail", "error": "EIO"})
    mnt = mounted(Path(f"fault:{rules},{device_dir()}"), "errors=repair")
    mounted.expect_log(mnt, "flush|" + name)
    memory = mmap.mmap(-1, BLOCK)

    def write(flags: int, per_call: int = 0) -> int:
        descriptor = os.open(mnt / name, os.O_WRONLY | os.O_DIRECT | flags)
        try:
            return os.pwritev(descriptor, [memory], os.fstat(descriptor).st_size % (1 << 20), per_call)
        finally:
            os.close(descriptor)

    assert write(0) == BLOCK
    with pytest.raises(OSError, match="Input/output"):
        write(flag)
    with pytest.raises(OSError, match="Input/output"):
        write(0, os.RWF_DSYNC)
    assert write(0) == BLOCK


def test_a_slow_zone_holds_up_no_other(device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path) -> None:
    delay = 3000
    device = device_dir()
    rules = write_rules(
        tmp_path / "rules.json", {"operation": "write", "zones": 2, "effect": "delay", "milliseconds": delay}
    )
    mnt = mounted(Path(f"fault:{rules},{device}"))
    finished: list[float] = []

    def write_slowly() -> None:
        append(mnt / "seq" / "0", bytes(BLOCK))
        finished.append(time.monotonic())

    started = time.monotonic()
    slow = threading.Thread(target=write_slowly)
    slow.start()
    for _ in range(8):
        append(mnt / "seq" / "1", bytes(BLOCK))
        assert (mnt / "seq" / "1").stat().st_size
    others_finished = time.monotonic()
    slow.join()
    assert finished[0] - started >= delay / 1000
    assert others_finished < finished[0]


def test_who_closes_a_file_has_closed_its_zone(
    device_dir: Callable[..., Path], mounted: Mounts, tmp_path: Path
) -> None:
    """close(2) does not wait for FUSE; what is asked for next must all the same find the zone closed."""
    device = device_dir(max_open=1, max_active=2)
    rules = write_rules(
        tmp_path / "rules.json", {"operation": "close", "effect": "delay", "milliseconds": 300, "count": None}
    )
    mnt = mounted(Path(f"fault:{rules},{device}"), "explicit-open")
    for number in (0, 1, 0):
        append(mnt / "seq" / str(number), bytes(BLOCK))
    assert [mounted.zones(mnt)[f"seq/{number}"]["condition"] for number in (0, 1)] == ["closed", "closed"]
    with open(mnt / "seq/0", "r+b", buffering=0):
        pass
    os.truncate(mnt / "seq/1", 1 << 20)
    with open(mnt / "seq/0", "r+b", buffering=0):
        pass
    assert mounted.info(mnt)["mount"]["nr_wro_seq_files"] == 0


def test_mistakes_are_seen_before_the_mount(device_dir: Callable[..., Path], tmp_path: Path) -> None:
    device = device_dir()
    (tmp_path / "mnt").mkdir()
    rules = write_rules(tmp_path / "rules.json", {"operation": "write", "effect": "explode"})
    for text, words in (
        (f"linear:{device}+{device}", "is used twice"),
        (f"linear:{device}[0-8]", "has zones 0 to 7, not 0 to 8"),
        (f"linear:{device},", "',' is not expected here"),
        (f"fault:{rules},{device}", "rules.json: rule 1: \"effect\" is 'explode'"),
    ):
        done = run(ZONEFS_PY, "mount", text, tmp_path / "mnt", check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert words in done.stderr
        assert not os.path.ismount(tmp_path / "mnt")
    run(ZONEFS_PY, "info", device)  # nobody has it open

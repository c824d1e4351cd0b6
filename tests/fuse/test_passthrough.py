"""Reads that the kernel serves from the zones' files past the daemon: that it does, and that no rule suffers.

Whether it does is seen by stopping the daemon: what needs an answer of it waits then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.descriptors import opened
from tests.equality import system
from tests.fuse.conftest import ZONEFS_PY, Mounts, run, wait_until
from tests.fuse.passing import BLOCK, append, is_read_past, opened_until_taken, pattern, refusal
from zonefs_py.config import ErrorsPolicy, MountOptions
from zonefs_py.control.client import MountControl
from zonefs_py.device.directory import open_device
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.errors import DeviceError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.testing.served import served
from zonefs_py.zone import ZoneCondition

MIB = 1 << 20
FIRST = 2
"""The zone of seq/0 on a device of `device_dir`."""

Device = Callable[..., Path]


def pid_of(mounted: Mounts, mnt: Path) -> int:
    return mounted.get(mnt).pid


# Whether it is used


def test_reads_pass_the_daemon_by(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    data = pattern(3 * BLOCK)
    append(mnt / "seq/0", data)
    with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "cnv/0", os.O_RDONLY) as conventional:
        assert is_read_past(pid_of(mounted, mnt), reader)
        assert is_read_past(pid_of(mounted, mnt), conventional)
        assert os.pread(reader, MIB, 0) == data
        assert os.pread(conventional, 2 * MIB, 0) == bytes(MIB)


def test_direct_reads_are_checked_by_us(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    append(mnt / "seq/0", pattern(3 * BLOCK))
    with opened(mnt / "seq/0", os.O_RDONLY | os.O_DIRECT) as reader:
        assert refusal(lambda: os.pread(reader, 512, 512)) == "EINVAL"
        assert os.pread(reader, MIB, BLOCK) == pattern(3 * BLOCK)[BLOCK:]
        # On either side of it, the others are as they would be without.
        with opened(mnt / "seq/0", os.O_RDONLY) as other:
            assert is_read_past(pid_of(mounted, mnt), other)
            assert refusal(lambda: os.pread(reader, 512, 512)) == "EINVAL"


def test_it_can_be_switched_off(mounted: Mounts, device_dir: Device) -> None:
    mnt = mounted(device_dir(), "passthrough=off")
    capabilities = mounted.info(mnt)["capabilities"]
    assert not capabilities["passthrough"]
    assert "passthrough=off" in capabilities["no_passthrough_because"]
    append(mnt / "seq/0", pattern(BLOCK))
    with opened(mnt / "seq/0", os.O_RDONLY) as reader:
        assert not is_read_past(pid_of(mounted, mnt), reader)


def test_root_without_a_capability_goes_without_it(
    passing: Callable[..., Path], mounted: Mounts, device_dir: Device, tmp_path: Path
) -> None:
    """CAP_DAC_READ_SEARCH, that is. Without CAP_SYS_ADMIN root cannot mount; plain users, who can: see test_daemon."""
    passing()  # or skip
    device, mnt = device_dir(), tmp_path / "poor"
    mnt.mkdir()
    poor = ("setpriv", "--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search", "--")
    done = run(*poor, ZONEFS_PY, "mount", device, mnt, "-o", "passthrough=on", check=False)
    assert done.returncode == 1
    assert not os.path.ismount(mnt)
    done = run(*poor, ZONEFS_PY, "mount", device, mnt)
    try:
        assert done.stdout + done.stderr == "", "nothing that is worth a word"
        assert "CAP_DAC_READ_SEARCH" in mounted.info(mnt)["capabilities"]["no_passthrough_because"]
        append(mnt / "seq/0", pattern(BLOCK))
        with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/0", os.O_RDWR | os.O_DIRECT) as both:
            assert os.pread(reader, MIB, 0) == pattern(BLOCK)
            assert os.pwrite(both, pattern(BLOCK, 1), BLOCK) == BLOCK
            assert os.pread(reader, MIB, BLOCK) == pattern(BLOCK, 1)
    finally:
        run(ZONEFS_PY, "umount", mnt)


@pytest.mark.parametrize("above", ["fault:{rules},", "write-cache:"])
def test_a_device_that_must_see_reads_sees_them(
    mounted: Mounts, device_dir: Device, tmp_path: Path, above: str
) -> None:
    rule = {"operation": "read", "effect": "fail", "first": 1 << 40}
    (tmp_path / "rules.json").write_text(json.dumps({"version": 1, "rules": [rule]}))
    stack = above.format(rules=tmp_path / "rules.json") + str(device_dir())
    mnt = mounted(stack, "passthrough=auto")  # type: ignore[arg-type]  # a stack is a text
    capabilities = mounted.info(mnt)["capabilities"]
    assert not capabilities["passthrough"]
    append(mnt / "seq/0", pattern(BLOCK))
    with opened(mnt / "seq/0", os.O_RDONLY) as reader:
        assert not is_read_past(pid_of(mounted, mnt), reader)
    mounted.unmount(mnt)
    done = run(ZONEFS_PY, "mount", stack, mnt, "-o", "passthrough=on", check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("zonefs-py: passthrough=on is not possible: ")
    assert not os.path.ismount(mnt)


@pytest.mark.parametrize("value", ["", "=yes", "=On"])
def test_other_values_are_refused(device_dir: Device, tmp_path: Path, value: str) -> None:
    done = run(ZONEFS_PY, "mount", device_dir(), tmp_path, "-o", f"passthrough{value}", check=False)
    assert done.returncode == 2
    assert "auto, on, off" in done.stderr


def test_parts_of_a_linear_device_pass(passing: Callable[..., Path], mounted: Mounts, device_dir: Device) -> None:
    first, second = device_dir(), device_dir(conventional=0, zones=4)
    mnt = passing(f"linear:{first}+{second}[1-3]")
    for number in (0, 6, 8):
        append(mnt / f"seq/{number}", pattern(2 * BLOCK, number))
    with opened_until_taken(mnt / "seq/8", os.O_RDONLY) as reader, opened(mnt / "seq/0", os.O_RDONLY) as other:
        assert is_read_past(pid_of(mounted, mnt), reader)
        assert os.pread(reader, MIB, 0) == pattern(2 * BLOCK, 8)
        # Zone 10 of all is zone 3 of the second part.
        mounted.expect_log(mnt, "seq/8|remounting")
        run(ZONEFS_PY, "zone", "offline", mnt, "10")
        assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
        assert os.pread(other, MIB, 0) == pattern(2 * BLOCK, 0)


# The write pointer


@pytest.mark.parametrize("writer_first", [False, True])
def test_the_write_pointer_is_enforced_beside_readers(
    passing: Callable[..., Path], mounted: Mounts, writer_first: bool
) -> None:
    mnt = passing()
    path = mnt / "seq/0"
    append(path, pattern(BLOCK, 1))
    with contextlib.ExitStack() as stack:
        order = [os.O_WRONLY | os.O_DIRECT, os.O_RDONLY]
        handles = {flags: stack.enter_context(opened(path, flags)) for flags in order[:: 1 if writer_first else -1]}
        writer, reader = handles[order[0]], handles[order[1]]
        assert is_read_past(pid_of(mounted, mnt), reader)
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), 0)) == "EINVAL"
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), 2 * BLOCK)) == "EINVAL"
        assert refusal(lambda: mmap.mmap(writer, BLOCK, mmap.MAP_SHARED, mmap.PROT_WRITE)) == "EACCES"
        assert os.pread(reader, MIB, 0) == pattern(BLOCK, 1), "not beyond the write pointer"
        assert os.pwrite(writer, pattern(BLOCK, 2), BLOCK) == BLOCK
        assert os.pread(reader, MIB, 0) == pattern(BLOCK, 1) + pattern(BLOCK, 2)
        assert os.fstat(reader).st_size == 2 * BLOCK


def test_a_reset_and_a_finish_are_seen_by_who_reads(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    path = mnt / "seq/0"
    append(path, pattern(2 * BLOCK))
    with opened(path, os.O_RDONLY) as reader:
        assert is_read_past(pid_of(mounted, mnt), reader)
        os.truncate(path, 0)
        assert os.pread(reader, BLOCK, 0) == b""
        assert os.fstat(reader).st_size == 0
        append(path, pattern(BLOCK, 7))
        assert os.pread(reader, MIB, 0) == pattern(BLOCK, 7)
        os.truncate(path, MIB)
        assert os.pread(reader, 2 * MIB, 0) == pattern(BLOCK, 7) + bytes(MIB - BLOCK)


def test_a_zone_copied_to_is_seen_by_who_reads(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    append(mnt / "seq/0", pattern(4 * BLOCK))
    with (
        opened(mnt / "seq/0", os.O_RDONLY) as source,
        opened(mnt / "seq/1", os.O_RDONLY) as reader,
        opened(mnt / "seq/1", os.O_WRONLY) as target,
    ):
        assert os.pread(reader, BLOCK, 0) == b""
        assert os.copy_file_range(source, target, 4 * BLOCK, 0, 0) == 4 * BLOCK
        assert os.pread(reader, MIB, 0) == pattern(4 * BLOCK)


# O_RDWR: a shared mapping of it could be stored to


@pytest.mark.parametrize("first", [os.O_RDONLY, os.O_WRONLY | os.O_DIRECT, os.O_RDONLY | os.O_DIRECT, None])
def test_nothing_is_stored_around_the_write_pointer(
    passing: Callable[..., Path], mounted: Mounts, first: int | None
) -> None:
    mnt = passing()
    path = mnt / "seq/0"
    append(path, pattern(2 * BLOCK))
    with contextlib.ExitStack() as stack:
        before = None if first is None else stack.enter_context(opened(path, first))
        both = stack.enter_context(opened(path, os.O_RDWR | os.O_DIRECT))
        mapping = refusal(lambda: mmap.mmap(both, BLOCK, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))
        assert mapping == "ENODEV"
        assert refusal(lambda: os.pwrite(both, pattern(BLOCK), 0)) == "EINVAL"
        after = stack.enter_context(opened(path, os.O_RDONLY))
        assert not is_read_past(pid_of(mounted, mnt), after)
        for descriptor in (both, after):
            assert os.pread(descriptor, MIB, 0) == pattern(2 * BLOCK)
        if before is not None and first == os.O_RDONLY:
            assert is_read_past(pid_of(mounted, mnt), before), "it was open before"
        # Another one, now that the name leads elsewhere.
        stack.enter_context(opened(path, os.O_RDWR))

    def passes_again() -> bool:
        # The kernel tells of a closed file some time after close(2).
        with opened(path, os.O_RDONLY) as reader:
            return is_read_past(pid_of(mounted, mnt), reader)

    wait_until("the handles are released", passes_again)


def test_all_who_have_a_file_open_see_one_file(passing: Callable[..., Path]) -> None:
    """Also if they opened it at different times, so that the kernel takes it for two."""
    mnt = passing()
    path = mnt / "seq/0"
    append(path, pattern(BLOCK))
    with (
        opened(path, os.O_RDONLY) as reader,
        opened(path, os.O_WRONLY | os.O_DIRECT) as writer,
        opened(path, os.O_RDWR | os.O_DIRECT) as both,
    ):
        everybody = (reader, writer, both)

        def sizes() -> set[int]:
            return {os.fstat(descriptor).st_size for descriptor in everybody} | {path.stat().st_size}

        assert len({(os.fstat(one).st_ino, os.fstat(one).st_dev) for one in everybody}) == 1
        assert sizes() == {BLOCK}
        os.pwrite(both, pattern(BLOCK, 1), BLOCK)
        assert sizes() == {2 * BLOCK}
        os.pwrite(writer, pattern(BLOCK, 2), 2 * BLOCK)
        assert sizes() == {3 * BLOCK}
        expected = pattern(BLOCK) + pattern(BLOCK, 1) + pattern(BLOCK, 2)
        assert os.pread(reader, MIB, 0) == os.pread(both, MIB, 0) == expected
        os.ftruncate(writer, MIB)
        assert sizes() == {MIB}
        os.truncate(path, 0)
        assert sizes() == {0}
        with opened(mnt / "seq/1", os.O_WRONLY | os.O_DIRECT) as other:
            os.write(other, pattern(2 * BLOCK, 3))
        with opened(mnt / "seq/1", os.O_RDONLY) as source:
            assert os.copy_file_range(source, both, 2 * BLOCK, 0, 0) == 2 * BLOCK
        assert sizes() == {2 * BLOCK}
        assert os.pread(reader, MIB, 0) == pattern(2 * BLOCK, 3)
        os.chmod(path, 0o604)
        assert {os.fstat(descriptor).st_mode & 0o777 for descriptor in everybody} == {0o604}


ALL_ZONES = 100_000

OPEN_MANY = """
import os, resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [os.open(f"{sys.argv[1]}/seq/{number}", os.O_RDONLY) for number in range(*map(int, sys.argv[2:]))]
print("all open", flush=True)
sys.stdin.read()
"""

READ_AGAIN_AND_AGAIN = """
import os, sys
held = []
while True:
    held.append(os.open(sys.argv[1], os.O_RDONLY))
    if len(held) > 2:
        os.close(held.pop(0))
"""


def test_writers_who_come_among_readers_are_let_in(passing: Callable[..., Path]) -> None:
    """The kernel makes up for one ESTALE only: who comes in between must not make for a second."""
    path = passing() / "seq/0"
    readers = [subprocess.Popen([sys.executable, "-c", READ_AGAIN_AND_AGAIN, path]) for _ in range(3)]
    try:
        for _ in range(12_000):
            os.close(os.open(path, os.O_RDWR))
        assert [reader.poll() for reader in readers] == [None] * 3
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_locks_of_two_nodes(passing: Callable[..., Path]) -> None:
    mnt = passing()
    with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/0", os.O_WRONLY) as writer:
        fcntl.flock(reader, fcntl.LOCK_EX)
        assert refusal(lambda: fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)) == "EAGAIN"
        with opened(mnt / "seq/0", os.O_RDWR) as both, opened(mnt / "seq/0", os.O_RDWR) as other:
            fcntl.flock(both, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert refusal(lambda: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)) == "EAGAIN"


def test_a_reader_that_is_opened_again_by_its_descriptor_cannot_write(passing: Callable[..., Path]) -> None:
    mnt = passing()
    append(mnt / "seq/0", pattern(BLOCK))
    with opened(mnt / "seq/0", os.O_RDONLY) as reader:
        assert refusal(lambda: os.open(f"/proc/self/fd/{reader}", os.O_RDWR)) == "ESTALE"
        # By its name it can.
        with opened(mnt / "seq/0", os.O_RDWR):
            pass
        assert os.pread(reader, BLOCK, 0) == pattern(BLOCK)


def test_a_shared_mapping_to_read_shows_what_is_written(passing: Callable[..., Path]) -> None:
    mnt = passing()
    append(mnt / "seq/0", pattern(BLOCK, 1))
    with opened(mnt / "seq/0", os.O_RDONLY) as reader:
        append(mnt / "seq/0", pattern(BLOCK, 2))
        with mmap.mmap(reader, 2 * BLOCK, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
            assert mapping[:] == pattern(BLOCK, 1) + pattern(BLOCK, 2)
        assert refusal(lambda: mmap.mmap(reader, BLOCK, mmap.MAP_SHARED, mmap.PROT_WRITE)) == "EACCES"


# Conventional files


def test_a_conventional_file_is_one_with_its_mappings(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    path = mnt / "cnv/0"
    with (
        opened(path, os.O_RDONLY) as reader,
        opened(path, os.O_RDWR) as both,
        mmap.mmap(both, MIB, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapping,
    ):
        assert is_read_past(pid_of(mounted, mnt), reader)
        mapping[10:20] = b"0123456789"
        assert os.pread(reader, 10, 10) == os.pread(both, 10, 10) == b"0123456789"
        # Single bytes of the same block, from the other side.
        assert os.pwrite(both, b"ab", 13) == 2
        assert mapping[10:20] == os.pread(reader, 10, 10) == b"012ab56789"
        assert os.pwrite(both, pattern(2 * BLOCK), MIB - BLOCK) == BLOCK, "up to the capacity"
        assert refusal(lambda: os.pwrite(both, b"x", MIB)) == "EFBIG"
        assert mapping[-BLOCK:] == pattern(2 * BLOCK)[:BLOCK]
        assert os.fstat(both).st_size == path.stat().st_size == MIB
    assert (mounted.info(mnt)["device"]["zone_size"]) == MIB


def test_a_conventional_file_that_is_written_has_its_page_cache(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    with (
        opened(mnt / "cnv/0", os.O_RDWR) as both,
        opened(mnt / "cnv/0", os.O_RDONLY) as reader,
        mmap.mmap(both, BLOCK, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapping,
    ):
        mapping[:3] = b"abc"
        assert os.pread(reader, 3, 0) == os.pread(both, 3, 0) == b"abc"
        os.pwrite(both, b"x", 1)
        assert mapping[:3] == os.pread(reader, 3, 0) == b"axc"


@pytest.mark.parametrize("lost", [False, True], ids=["he has it on", "he has lost it"])
def test_who_comes_to_a_conventional_file_sees_what_is_stored_past_us(
    passing: Callable[..., Path], mounted: Mounts, lost: bool
) -> None:
    """A reader past us came first, then who maps the host file to store; then a rule keeps others from reading it."""
    mnt = passing(options="errors=repair")
    path = mnt / "cnv/0"
    with contextlib.ExitStack() as readers, contextlib.ExitStack() as old:
        reader = readers.enter_context(opened_until_taken(path, os.O_RDONLY) if lost else opened(path, os.O_RDONLY))
        both = old.enter_context(opened_until_taken(path, os.O_RDWR) if lost else opened(path, os.O_RDWR))
        mapping = old.enter_context(mmap.mmap(both, BLOCK))
        assert is_read_past(pid_of(mounted, mnt), reader)
        if not lost:
            # Nobody is left of whom something would have to be taken.
            readers.close()
        MountControl(mnt).add_faults([{"operation": "read", "effect": "fail", "first": 1_000_000}])
        new = readers.enter_context(opened(path, os.O_RDWR))
        assert os.pread(new, 3, 0) == bytes(3)
        mapping[:3] = b"abc"
        assert os.pread(new, 3, 0) == b"abc"
        os.pwrite(new, b"x", 1)
        assert mapping[:3] == b"axc"
        if lost:
            assert refusal(lambda: os.pwrite(both, b"z", 2)) == "EIO"
        else:
            assert os.pread(both, 3, 0) == b"axc"
            os.pwrite(both, b"z", 2)
            assert os.pread(new, 3, 0) == mapping[:3] == b"axz"
        # What is stored to pages of its own would go over what is stored to the host file.
        assert refusal(lambda: mmap.mmap(new, BLOCK)) == "ENODEV"
        mapping[3:5] = b"de"
        before = mapping[:5]
        old.close()
        with opened(path, os.O_RDWR) as newer, mmap.mmap(newer, BLOCK) as shared:
            assert shared[:5] == os.pread(new, 5, 0) == before
            shared[0:1] = b"A"
            assert os.pread(new, 1, 0) == b"A"
            os.pwrite(new, b"B", 0)
            assert shared[0:1] == os.pread(newer, 1, 0) == b"B"


def test_writes_of_single_bytes_leave_mapped_neighbours_alone(passing: Callable[..., Path]) -> None:
    mnt = passing()
    with (
        opened(mnt / "cnv/0", os.O_RDONLY),
        opened(mnt / "cnv/0", os.O_RDWR) as both,
        mmap.mmap(both, BLOCK, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapping,
    ):
        done = threading.Event()

        def write() -> None:
            while not done.is_set():
                os.pwrite(both, b"w", 100)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for number in range(20_000):
                value = number % 251 + 1
                mapping[0] = value
                assert mapping[0] == value, "a write to byte 100 brought byte 0 back"
        finally:
            done.set()
            thread.join()


def test_aggregated_files_are_served_by_us(passing: Callable[..., Path], mounted: Mounts, device_dir: Device) -> None:
    mnt = passing(device_dir(conventional=4, mkfs=("-o", "aggr_cnv")))
    with opened(mnt / "cnv/0", os.O_RDWR) as both:
        assert os.pwrite(both, pattern(2 * BLOCK), MIB - BLOCK) == 2 * BLOCK
        with opened(mnt / "cnv/0", os.O_RDONLY) as reader:
            assert os.pread(reader, 2 * BLOCK, MIB - BLOCK) == pattern(2 * BLOCK)


# Zones that break


def mount_state(mounted: Mounts, mnt: Path, path: Path) -> tuple[bool, int, str]:
    """What an error left: whether the mount is read-only; size and mode of the file."""
    return mounted.info(mnt)["mount"]["read_only"], path.stat().st_size, oct(path.stat().st_mode)


@pytest.mark.parametrize("policy", ["remount-ro", "zone-ro", "zone-offline", "repair"])
def test_an_offline_zone_is_read_by_nobody(
    passing: Callable[..., Path], mounted: Mounts, device_dir: Device, policy: str
) -> None:
    """The reader gets what he would get from kernel zonefs, and what follows is what follows there."""
    states = []
    for passes in (True, False):
        device = device_dir()
        mnt = passing(device, f"errors={policy}") if passes else mounted(device, f"errors={policy},passthrough=off")
        mounted.expect_log(mnt, "seq/0|remounting")
        path = mnt / "seq/0"
        append(path, pattern(2 * BLOCK))
        append(mnt / "seq/1", pattern(2 * BLOCK))
        handle = opened_until_taken if passes else opened
        with handle(path, os.O_RDONLY) as reader, opened(mnt / "seq/1", os.O_RDONLY) as other:
            assert os.pread(reader, BLOCK, 0) == pattern(2 * BLOCK)[:BLOCK]
            run(ZONEFS_PY, "zone", "offline", mnt, str(FIRST))
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) in ("EIO", "EPERM")
            assert os.pread(other, MIB, 0) == pattern(2 * BLOCK), "the other zones are well"
            with opened(path, os.O_RDONLY) as late:
                assert refusal(lambda: os.pread(late, BLOCK, 0)) == "EPERM"
        states.append(mount_state(mounted, mnt, path))
    assert states[0] == states[1]


def test_a_zone_that_the_request_itself_takes_offline(passing: Callable[..., Path], mounted: Mounts) -> None:
    """The readers of the file are stopped by the request that holds its lock."""
    mnt = passing(options="errors=repair")
    mounted.expect_log(mnt, "seq/0")
    append(mnt / "seq/0", pattern(BLOCK))
    rules = [{"operation": "reset", "effect": "offline"}]
    with opened_until_taken(mnt / "seq/0", os.O_RDONLY) as reader:
        assert is_read_past(pid_of(mounted, mnt), reader)
        MountControl(mnt).add_faults(rules)
        resets = subprocess.Popen(["truncate", "--size=0", mnt / "seq/0"], stderr=subprocess.DEVNULL)
        try:
            assert resets.wait(60) == 1
        except subprocess.TimeoutExpired:
            os.kill(pid_of(mounted, mnt), signal.SIGKILL)  # or nothing would end
            raise
        assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"


def test_a_zone_that_came_back_is_passed_through_again(
    passing: Callable[..., Path], mounted: Mounts, device_dir: Device
) -> None:
    device = device_dir()
    mnt = passing(device)
    mounted.expect_log(mnt, "seq/0|remounting")
    append(mnt / "seq/0", pattern(BLOCK))
    for _ in range(3):
        with opened_until_taken(mnt / "seq/0", os.O_RDONLY) as reader:
            assert is_read_past(pid_of(mounted, mnt), reader)
            run(ZONEFS_PY, "zone", "offline", mnt, str(FIRST))
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
        run(ZONEFS_PY, "zone", "online", mnt, str(FIRST))
        mounted.unmount(mnt)
        mnt = passing(device)
        mounted.expect_log(mnt, "seq/0|remounting")


def test_a_read_only_zone_is_read_on(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing(options="errors=zone-ro")
    append(mnt / "seq/0", pattern(BLOCK))
    mounted.expect_log(mnt, "seq/0")
    with opened(mnt / "seq/0", os.O_RDONLY) as reader, opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as writer:
        run(ZONEFS_PY, "zone", "readonly", mnt, str(FIRST))
        assert os.pread(reader, MIB, 0) == pattern(BLOCK)
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK)) == "EIO"
        assert os.pread(reader, MIB, 0) == pattern(BLOCK)
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK)) == "EPERM"


def test_a_file_that_an_error_takes_offline_is_read_by_nobody(passing: Callable[..., Path], mounted: Mounts) -> None:
    """The zone itself could still be read: the mount option says that the file is not."""
    mnt = passing(options="errors=zone-offline")
    append(mnt / "seq/0", pattern(BLOCK))
    mounted.expect_log(mnt, "seq/0")
    path = mnt / "seq/0"
    with (
        opened_until_taken(path, os.O_RDONLY) as reader,
        opened_until_taken(path, os.O_WRONLY | os.O_DIRECT) as writer,
    ):
        assert os.pread(reader, MIB, 0) == pattern(BLOCK)
        run(ZONEFS_PY, "zone", "readonly", mnt, str(FIRST))
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK)) == "EIO"
        wait_until("the reader is stopped", lambda: refusal(lambda: os.pread(reader, BLOCK, 0)) is not None)
        assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"


def test_nobody_comes_to_read_an_offline_zone_past_us(passing: Callable[..., Path], mounted: Mounts) -> None:
    """Also where a writer has it open, of whom nothing was to be taken."""
    mnt = passing(options="errors=repair")
    mounted.expect_log(mnt, "seq/0")
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as writer:
        assert os.write(writer, pattern(BLOCK)) == BLOCK
        run(ZONEFS_PY, "zone", "offline", mnt, str(FIRST))
        with opened(mnt / "seq/0", os.O_RDONLY) as reader:
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EPERM"
            shared = refusal(lambda: system.map_file(reader, BLOCK, mmap.PROT_READ, mmap.MAP_SHARED))
            assert shared == "ENODEV", "as without passthrough"
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK)) == "EPERM"


def test_nobody_comes_to_read_past_us_what_an_error_took_offline(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing(options="errors=zone-offline")
    mounted.expect_log(mnt, "seq/0")
    with opened(mnt / "seq/0", os.O_WRONLY | os.O_DIRECT) as writer:
        assert os.write(writer, pattern(BLOCK)) == BLOCK
        run(ZONEFS_PY, "zone", "readonly", mnt, str(FIRST))
        assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK)) == "EIO"
        with opened(mnt / "seq/0", os.O_RDONLY) as reader:
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EPERM"


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_DIRECT, os.O_RDONLY | os.O_DIRECT])
def test_a_rule_holds_for_who_comes_and_takes_nothing_from_others(
    passing: Callable[..., Path], mounted: Mounts, flags: int
) -> None:
    mnt = passing(options="errors=repair")
    mounted.expect_log(mnt, "seq/0")
    path = mnt / "seq/0"
    append(path, pattern(BLOCK))
    control = MountControl(mnt)
    with opened(path, flags) as before:
        control.add_faults([{"operation": "read", "effect": "fail", "count": None}])
        with opened(path, os.O_RDONLY) as reader, opened(path, os.O_RDWR | os.O_DIRECT) as both:
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
            assert refusal(lambda: os.pread(both, BLOCK, 0)) == "EIO"
            if flags & os.O_WRONLY:
                assert os.pwrite(before, pattern(BLOCK, 1), BLOCK) == BLOCK
                assert os.fstat(reader).st_size == 2 * BLOCK
            else:
                assert refusal(lambda: os.pread(before, BLOCK, 0)) == "EIO"
            control.clear_faults()
            assert os.pread(reader, BLOCK, 0) == pattern(BLOCK)
            if not flags & os.O_WRONLY:
                assert os.pread(before, BLOCK, 0) == pattern(BLOCK)


def test_a_rule_that_holds_up_reads_does_not_hold_up_who_adds_it(passing: Callable[..., Path], mounted: Mounts) -> None:
    """The reader loses the file, and that has its consequences when the rule lets go."""
    mnt = passing(options="errors=repair")
    mounted.expect_log(mnt, "seq/0")
    append(mnt / "seq/0", pattern(BLOCK))
    control = MountControl(mnt)
    with opened_until_taken(mnt / "seq/0", os.O_RDONLY) as reader, ThreadPoolExecutor() as threads:
        try:
            threads.submit(control.add_faults, [{"operation": "read", "effect": "stuck", "count": None}]).result(60)
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
        finally:
            MountControl(mnt).clear_faults()
    assert (mnt / "seq/0").read_bytes() == pattern(BLOCK)


class Meeting:
    """Where this process and the one that serves a mount wait for each other. To be made before that is."""

    def __init__(self) -> None:
        self._here, self._there = os.pipe(), os.pipe()

    def reach(self) -> None:
        """There: say that the place is reached, and wait until the other side goes on."""
        os.write(self._here[1], b"r")
        os.read(self._there[0], 1)

    def wait(self) -> None:
        """Here: wait until the place is reached there."""
        assert os.read(self._here[0], 1) == b"r"

    def go_on(self) -> None:
        """Here: let the other side go on."""
        os.write(self._there[1], b"g")

    def close(self) -> None:
        for descriptor in (*self._here, *self._there):
            os.close(descriptor)


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    meeting = Meeting()
    yield meeting
    meeting.close()


@pytest.fixture
def other_mnt(passing: Callable[..., Path], tmp_path: Path) -> Path:
    """A directory to mount at; skips where nothing can be passed through."""
    passing()
    mnt = tmp_path / "other"
    mnt.mkdir()
    return mnt


def test_a_zone_that_goes_offline_during_an_open_is_not_passed_through(other_mnt: Path, device_dir: Device) -> None:
    """It goes after it was asked for its file, and before that is known to who looks for readers."""
    directory = device_dir()
    with open_device(directory) as device:
        device.write(FIRST * MIB, pattern(BLOCK))

    def make() -> Filesystem:
        device = open_device(directory)
        give = device.backing_descriptor

        def backing_descriptor(number: int) -> int | None:
            descriptor = give(number)
            if number == FIRST and descriptor is not None:
                goes = threading.Thread(target=device.force_condition, args=(FIRST, ZoneCondition.OFFLINE))
                goes.start()
                goes.join()
            return descriptor

        device.backing_descriptor = backing_descriptor  # type: ignore[method-assign]  # between two instructions of ours
        return Filesystem(device, MountOptions(errors=ErrorsPolicy.REPAIR))

    with served(make, str(other_mnt)), opened(other_mnt / "seq/0", os.O_RDONLY) as reader:
        assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"


def test_a_reader_who_leaves_takes_the_zone_from_nobody(other_mnt: Path, device_dir: Device, meeting: Meeting) -> None:
    """The zone is well; it is asked for by the handle of a reader who has closed it by then."""
    directory = device_dir()
    asked: list[int] = []

    def make() -> Filesystem:
        filesystem = Filesystem(open_device(directory), MountOptions(errors=ErrorsPolicy.REPAIR))
        ask = filesystem.backing_descriptor

        def backing_descriptor(handle: int, *, wait: bool = True) -> int | None:
            if wait and not asked:
                asked.append(handle)
                meeting.reach()
                wait_until("the handle is closed", lambda: handle not in filesystem._handles)
            return ask(handle, wait=wait)

        filesystem.backing_descriptor = backing_descriptor  # type: ignore[method-assign]  # slow to ask
        return filesystem

    path = other_mnt / "seq/0"
    with served(make, str(other_mnt)):
        append(path, pattern(BLOCK))
        first = os.open(path, os.O_RDONLY)
        with opened(path, os.O_RDONLY) as second, opened(path, os.O_WRONLY | os.O_DIRECT) as writer:
            # Somebody else writes to the zone: the write fails, and the file gets the size of the zone.
            with (directory / f"seq-{FIRST:06d}").open("ab") as zone:
                zone.write(pattern(BLOCK, 1))
            write = threading.Thread(target=refusal, args=(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK),))
            write.start()
            meeting.wait()
            os.close(first)
            meeting.go_on()
            write.join()
            assert os.pread(second, MIB, 0) == pattern(BLOCK) + pattern(BLOCK, 1)


@pytest.mark.parametrize("fails", [1, 1000])
def test_a_host_without_descriptors_takes_the_zone_from_nobody_at_once(
    other_mnt: Path, device_dir: Device, fails: int
) -> None:
    """But if it goes on for long, nobody knows whether the zone may still be read."""
    directory = device_dir()

    def make() -> Filesystem:
        filesystem = Filesystem(open_device(directory), MountOptions(errors=ErrorsPolicy.REPAIR))
        ask, left = filesystem.backing_descriptor, [None] * fails

        def backing_descriptor(handle: int, *, wait: bool = True) -> int | None:
            if wait and left:
                left.pop()
                raise DeviceError("Too many open files")
            return ask(handle, wait=wait)

        filesystem.backing_descriptor = backing_descriptor  # type: ignore[method-assign]  # of a poor host
        return filesystem

    path = other_mnt / "seq/0"
    with served(make, str(other_mnt)):
        append(path, pattern(BLOCK))
        closing = opened if fails == 1 else opened_until_taken
        with closing(path, os.O_RDONLY) as reader, closing(path, os.O_WRONLY | os.O_DIRECT) as writer:
            with (directory / f"seq-{FIRST:06d}").open("ab") as zone:
                zone.write(pattern(BLOCK, 1))
            assert refusal(lambda: os.pwrite(writer, pattern(BLOCK), BLOCK)) == "EIO"
            assert os.pread(reader, MIB, 0) == pattern(BLOCK) + pattern(BLOCK, 1)
            if fails > 1:
                wait_until("it is taken", lambda: refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO")


def test_a_zone_that_lies_elsewhere_is_not_read_where_it_was(
    other_mnt: Path, device_dir: Device, meeting: Meeting
) -> None:
    """A linear device gets another table: who reads the old part past us loses it, who comes reads the new one."""
    first, old, new = device_dir(), device_dir(None, conventional=0), device_dir(None, conventional=0)
    for directory, seed in ((old, 1), (new, 2)):
        with open_device(directory) as device:
            device.write(0, pattern(BLOCK, seed))
    zones = 8

    def make() -> Filesystem:
        device = open_device(first)
        linear = LinearDevice([Slice(device), Slice(open_device(old))])

        def change() -> None:
            meeting.reach()
            for gone in linear.replace_table([Slice(device), Slice(open_device(new))]):
                gone.close()
            meeting.reach()

        threading.Thread(target=change, daemon=True).start()
        return Filesystem(linear)

    path, beside = other_mnt / f"seq/{zones - FIRST}", other_mnt / "seq/0"
    with served(make, str(other_mnt)):
        meeting.wait()
        with (
            opened_until_taken(path, os.O_RDONLY) as reader,
            opened(beside, os.O_RDONLY) as other,
        ):
            assert os.pread(reader, MIB, 0) == pattern(BLOCK, 1)
            meeting.go_on()
            meeting.wait()
            assert refusal(lambda: os.pread(reader, BLOCK, 0)) == "EIO"
            assert os.pread(other, MIB, 0) == b"", "its zone is where it was"
            with opened(path, os.O_RDONLY) as late:
                assert os.pread(late, MIB, 0) == pattern(BLOCK, 2)
        meeting.go_on()


# What it costs


@pytest.mark.parametrize(("name", "flags"), [("seq/0", os.O_DIRECT), ("cnv/0", os.O_DIRECT), ("cnv/0", 0)])
def test_a_write_is_one_request(mounted: Mounts, device_dir: Device, name: str, flags: int) -> None:
    """The kernel would ask for an attribute (file capabilities) before those that go through the page cache, if it had
    not learnt that there are none.

    The daemon answers by one system call that writes, and writes to the host's file by another; nothing else does.
    """
    mnt = mounted(device_dir(), "errors=repair")
    accounts = Path(f"/proc/{pid_of(mounted, mnt)}/io")
    if not accounts.exists():
        pytest.skip(f"no {accounts}: a kernel without CONFIG_TASK_IO_ACCOUNTING")

    def written() -> int:
        return int(accounts.read_text().partition("syscw:")[2].split()[0])

    count = 200
    with opened(mnt / name, os.O_WRONLY | flags) as writer:
        for number in (0, 1):
            os.pwrite(writer, pattern(BLOCK), number * BLOCK)
        before = written()
        for number in range(2, 2 + count):
            assert os.pwrite(writer, pattern(BLOCK), number * BLOCK) == BLOCK
        # Some, for what the daemon's threads have to tell each other.
        assert written() - before < 2.5 * count


def test_what_is_open_is_bounded_by_what_is_open(
    passing: Callable[..., Path], mounted: Mounts, device_dir: Device
) -> None:
    """Neither files opened once nor files kept open take descriptors of the daemon, or ids for good."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"takes 4096 open files, not {hard}: ulimit -Hn")
    zones = 600
    mnt = passing(device_dir(zones=zones, conventional=1, zone_size="64K"))
    daemon = pid_of(mounted, mnt)
    names = [mnt / f"seq/{number}" for number in range(zones - 1)]
    descriptors = Path(f"/proc/{daemon}/fd")
    before = len(list(descriptors.iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * zones), hard))
    try:
        with contextlib.ExitStack() as stack:
            handles = [stack.enter_context(opened(name, os.O_RDONLY)) for name in names]
            assert {os.pread(handle, BLOCK, 0) for handle in handles} == {b""}
            assert len(list(descriptors.iterdir())) <= before + 4
            assert is_read_past(daemon, handles[-1])
        for name in names:
            with opened(name, os.O_RDONLY):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list(descriptors.iterdir())) <= before + 4


@pytest.mark.skipif("not config.getoption('--long')", reason="opens 100,000 files: --long")
def test_a_hundred_thousand_zones_all_open(passing: Callable[..., Path], mounted: Mounts, device_dir: Device) -> None:
    """What is open beyond 65,536 files is served by the daemon; memory and descriptors are those of what is open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    children = -(-ALL_ZONES // (hard - 100))
    mnt = passing(device_dir(zones=ALL_ZONES + 2, conventional=1, zone_size="64K"))
    last = mnt / f"seq/{ALL_ZONES}"
    daemon = pid_of(mounted, mnt)

    def descriptors() -> int:
        return len(list(Path(f"/proc/{daemon}/fd").iterdir()))

    def resident() -> int:
        status = Path(f"/proc/{daemon}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    assert len(os.listdir(mnt / "seq")) == ALL_ZONES + 1
    before, memory = descriptors(), resident()
    with contextlib.ExitStack() as stack:
        openers = []
        for number in range(children):
            some = (str(number * ALL_ZONES // children), str((number + 1) * ALL_ZONES // children))
            opener = subprocess.Popen(
                [sys.executable, "-c", OPEN_MANY, mnt, *some], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            openers.append(stack.enter_context(opener))
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "all open\n"
        assert descriptors() <= before + 4
        assert resident() <= memory + ALL_ZONES * 1536
        with opened(last, os.O_RDONLY) as reader:
            assert not is_read_past(daemon, reader)
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.close()

    def passes_again() -> bool:
        with opened(last, os.O_RDONLY) as reader:
            return is_read_past(daemon, reader)

    wait_until("the kernel has told of those that were closed", passes_again)
    memory = resident()
    for number in range(ALL_ZONES):
        os.close(os.open(mnt / f"seq/{number}", os.O_RDONLY))
    assert resident() <= memory + (8 << 20)
    assert descriptors() <= before + 4


def test_a_write_under_way_can_be_read(passing: Callable[..., Path], device_dir: Device, tmp_path: Path) -> None:
    """The host file has the data, and the write has not returned."""
    passing()  # or skip
    directory, mnt = device_dir(), tmp_path / "slow"
    mnt.mkdir()
    has_written, written = os.pipe()
    go_on, let_go_on = os.pipe()

    def make() -> Filesystem:
        device = open_device(directory)
        store = device.write

        def write(offset: int, data: bytes | bytearray | memoryview) -> None:
            store(offset, data)
            os.write(written, b"w")
            os.read(go_on, 1)

        device.write = write  # type: ignore[method-assign]  # a device that takes long over the answer
        return Filesystem(device)

    with served(make, str(mnt)), opened(mnt / "seq/0", os.O_RDONLY) as reader:
        writer = threading.Thread(target=append, args=(mnt / "seq/0", pattern(BLOCK)))
        writer.start()
        assert os.read(has_written, 1) == b"w"
        assert os.pread(reader, MIB, 0) == pattern(BLOCK)
        assert writer.is_alive()
        os.write(let_go_on, b"g")
        writer.join()
    for descriptor in (has_written, written, go_on, let_go_on):
        os.close(descriptor)


def test_reads_go_on_when_the_daemon_dies(passing: Callable[..., Path], mounted: Mounts) -> None:
    mnt = passing()
    append(mnt / "seq/0", pattern(BLOCK))
    with opened(mnt / "seq/0", os.O_RDONLY) as reader:
        daemon = mounted.get(mnt)
        os.kill(daemon.pid, signal.SIGKILL)
        wait_until("the daemon ends", lambda: not daemon.daemon_runs)
        assert os.pread(reader, MIB, 0) == pattern(BLOCK)
        assert refusal(lambda: os.open(mnt / "seq/0", os.O_RDONLY)) in ("ENOTCONN", "ECONNABORTED")
    subprocess.run([str(ZONEFS_PY), "umount", str(mnt)], check=True)
    mounted.forget(mnt)


def test_opening_to_read_past_us_counts_as_reading(passing: Callable[..., Path]) -> None:
    mnt = passing()
    append(mnt / "seq/0", pattern(BLOCK))
    os.utime(mnt / "seq/0", ns=(1_000_000_000, 2_000_000_000))
    with opened(mnt / "seq/0", os.O_RDONLY | os.O_NOATIME):
        assert (mnt / "seq/0").stat().st_atime_ns == 1_000_000_000
    before = time.time_ns()
    with opened(mnt / "seq/0", os.O_RDONLY) as reader:
        moved = (mnt / "seq/0").stat().st_atime_ns
        assert moved > 2_000_000_000
        assert abs(moved - before) < 60_000_000_000
        os.pread(reader, BLOCK, 0)
        assert (mnt / "seq/0").stat().st_atime_ns == moved

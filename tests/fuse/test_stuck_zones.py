"""Mounts of which a zone is stuck, by a fault: what the kernel and the daemon together let go on."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.conftest import Mounts, run, wait_until
from tests.fuse.passing import threads_in
from tests.fuse.test_control_mount import append
from tests.fuse.test_copy_mount import host_filesystem
from zonefs_py import FaultRule, MountControl, copy_ranges
from zonefs_py.device.fault_rules import Effect, Operation
from zonefs_py.fuse.operations import READS_TOGETHER

BLOCK = 4096
MIB = 1 << 20
SECONDS = 60


@pytest.fixture
def mnt(device_dir: Callable[..., Path], mounted: Mounts) -> Path:
    """A mount in which zone N + 2 is seq/N."""
    return mounted(device_dir())


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(200) as pool:
        yield pool


def use_others(mnt: Path) -> None:
    """Do all there is to do with the other files."""
    for number in (1, 5):
        path = mnt / "seq" / str(number)
        data = bytes([number]) * BLOCK
        assert append(path, data) == BLOCK
        assert path.read_bytes() == data
        with path.open("rb") as file:
            os.fsync(file.fileno())
        os.truncate(path, 0)
    assert sorted(os.listdir(mnt / "seq")) == list("012345")
    assert {path.stat().st_size for path in (mnt / "seq").iterdir()} == {0, 4 * BLOCK}


@pytest.mark.parametrize("operation", [Operation.READ, Operation.WRITE, Operation.FLUSH], ids=lambda one: one.value)
def test_a_stuck_zone_stops_no_other(mnt: Path, threads: ThreadPoolExecutor, operation: Operation) -> None:
    """More callers than there are threads to spare."""
    path = mnt / "seq/0"
    data = b"".join(bytes([number]) * BLOCK for number in range(4))
    append(path, data)
    control = MountControl(mnt)
    control.add_faults([FaultRule(operation, Effect.STUCK, (2, 2), count=None)])
    descriptor = os.open(path, os.O_RDWR)
    calls: list[Future[Any]]
    try:
        if operation is Operation.READ:
            calls = [threads.submit(os.pread, descriptor, BLOCK, number % 4 * BLOCK) for number in range(150)]
        elif operation is Operation.FLUSH:
            calls = [threads.submit(os.fsync, descriptor) for _ in range(150)]
        else:
            calls = [threads.submit(append, path, bytes([4]) * BLOCK) for _ in range(150)]
        # Of writes and fsyncs of one file, the kernel sends one at a time.
        stuck = READS_TOGETHER if operation is Operation.READ else 1
        wait_until(f"{stuck} calls are stuck", lambda: len(control.faults()["stuck"]) == stuck)
        use_others(mnt)
        assert len(control.faults()["stuck"]) == stuck
        assert not any(call.done() for call in calls)
        control.clear_faults()
        results = [call.result(SECONDS) for call in calls]
    finally:
        control.clear_faults()
        os.close(descriptor)
    if operation is Operation.READ:
        assert results == [data[number % 4 * BLOCK :][:BLOCK] for number in range(150)]
    assert path.stat().st_size == len(data) + (150 * BLOCK if operation is Operation.WRITE else 0)


class Aio:
    """The kernel's asynchronous I/O, which needs no thread for a request. See io_submit(2)."""

    SETUP, DESTROY, GETEVENTS, SUBMIT = 206, 207, 208, 209
    PREAD = 0

    def __init__(self, depth: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._context = ctypes.c_ulong()
        self._blocks: list[object] = []
        self._call(self.SETUP, depth, ctypes.byref(self._context))

    def _call(self, number: int, *arguments: object) -> int:
        result = int(self._libc.syscall(ctypes.c_long(number), *arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), "aio")
        return result

    def read(self, descriptor: int, memory: mmap.mmap, offset: int) -> None:
        """Begin to read one block to the start of *memory*."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        # struct iocb: data, key, flags, opcode, priority, descriptor, buffer, length, offset; two more words.
        block = ctypes.create_string_buffer(
            struct.pack("=QIIHhIQQq16x", 0, 0, 0, self.PREAD, 0, descriptor, address, BLOCK, offset), 64
        )
        self._blocks.append(block)
        pointer = ctypes.pointer(block)
        assert self._call(self.SUBMIT, self._context, ctypes.c_long(1), ctypes.byref(pointer)) == 1

    def end(self) -> list[int]:
        """Wait for all that was begun; return what it returned."""
        count = len(self._blocks)
        events = ctypes.create_string_buffer(32 * count)
        number = ctypes.c_long(count)
        assert self._call(self.GETEVENTS, self._context, number, number, events, None) == count
        return [result for _, _, result, _ in struct.iter_unpack("=QQqq", events.raw)]

    def close(self) -> None:
        self._call(self.DESTROY, self._context)


def test_requests_that_nobody_waits_for_in_a_call_stop_no_others_either(mnt: Path) -> None:
    """The kernel keeps back what is beyond a number that the daemon gives: a dozen, if it gives none."""
    count = 100
    for number in (0, 1):
        append(mnt / "seq" / str(number), bytes([number]) * BLOCK)
    control = MountControl(mnt)
    control.add_faults([FaultRule(Operation.READ, Effect.STUCK, (2, 2), count=None)])
    memory = [mmap.mmap(-1, BLOCK) for _ in range(count + 1)]
    stuck, free = (os.open(mnt / "seq" / str(number), os.O_RDONLY | os.O_DIRECT) for number in (0, 1))
    aio, other = Aio(count), Aio(1)
    try:
        for number in range(count):
            aio.read(stuck, memory[number], 0)
        wait_until("reads are stuck", lambda: len(control.faults()["stuck"]) == READS_TOGETHER)
        other.read(free, memory[count], 0)
        ended: list[int] = []
        waiter = threading.Thread(target=lambda: ended.extend(other.end()), daemon=True)
        waiter.start()
        waiter.join(SECONDS)
        assert ended == [BLOCK]
        assert memory[count][:] == bytes([1]) * BLOCK
        assert len(control.faults()["stuck"]) == READS_TOGETHER
    finally:
        control.clear_faults()
        assert aio.end() == [BLOCK] * count
        other.close()
        aio.close()
        os.close(stuck)
        os.close(free)


def test_pages_that_are_stuck_keep_nobody_else_from_dropping_theirs(mnt: Path, threads: ThreadPoolExecutor) -> None:
    """A copy of ranges has the changed pages of a conventional source written back first."""
    data = bytes([7]) * BLOCK
    control = MountControl(mnt)
    files = [
        os.open(mnt / name, os.O_RDWR | (os.O_DIRECT if name[0] == "s" else 0)) for name in ("cnv/0", "seq/0", "seq/1")
    ]
    source, target, other = files
    assert os.pwrite(source, data, 0) == BLOCK
    with mmap.mmap(source, BLOCK) as memory:
        control.add_faults([FaultRule(Operation.WRITE, Effect.STUCK, (1, 1), count=None)])
        try:
            memory[:] = bytes([8]) * BLOCK
            calls = [threads.submit(copy_ranges, target, [(source, 0, BLOCK)]) for _ in range(100)]
            wait_until("pages are stuck", lambda: bool(control.faults()["stuck"]))
            # As many more as there are threads of the daemon's must be on their way, too.
            wait_until("all copy", lambda: threads_in("ioctl") == len(calls))
            assert append(mnt / "seq/2", data) == BLOCK
            with (mnt / "seq/2").open("rb") as free:
                assert threads.submit(copy_ranges, other, [(free.fileno(), 0, BLOCK)]).result(SECONDS) == [BLOCK]
            assert not any(call.done() for call in calls)
        finally:
            control.clear_faults()
        assert [call.result(SECONDS) for call in calls] == [[BLOCK]] * len(calls)
    for descriptor in files:
        os.close(descriptor)
    assert (mnt / "seq/0").read_bytes() == bytes([8]) * BLOCK * len(calls)


def test_a_zone_operation_that_waits_holds_up_nobody_when_its_rule_is_gone(
    mnt: Path, threads: ThreadPoolExecutor
) -> None:
    """It comes by the control socket, so it has the file, while no request for it is known of."""
    data = bytes([1]) * BLOCK
    append(mnt / "seq/0", data)
    append(mnt / "seq/1", data)
    control = MountControl(mnt)
    control.add_faults([{"operation": "reset", "zones": 2, "effect": "delay", "milliseconds": 3_600_000}])
    reset = threads.submit(control.reset_zones, 2)
    wait_until("the reset waits", lambda: control.faults()["rules"][0]["fired"] == 1)
    control.clear_faults()
    assert threads.submit((mnt / "seq/0").read_bytes).result(SECONDS) in (data, b"")
    assert threads.submit((mnt / "seq/1").read_bytes).result(SECONDS) == data
    # Nor does it wait for an hour, now that nothing says so any more.
    reset.result(SECONDS)
    assert (mnt / "seq/0").stat().st_size == 0


def test_a_zone_operation_that_waits_for_the_host_holds_up_no_other_file(
    tmp_path: Path, device_dir: Callable[..., Path], mounted: Mounts, threads: ThreadPoolExecutor
) -> None:
    """The host's file system is frozen, as for a backup: no rule says that calls wait."""
    data = bytes([1]) * BLOCK
    with host_filesystem("xfs", tmp_path, 512 * MIB) as host:
        device = host.path / "disk"
        device_dir().rename(tmp_path / "original")
        run("cp", "--archive", "--sparse=always", tmp_path / "original", device)
        mnt = mounted(device)
        for number in (0, 1):
            append(mnt / "seq" / str(number), data)
        control = MountControl(mnt)
        run("fsfreeze", "--freeze", host.path)
        try:
            reset = threads.submit(control.reset_zones, 2)
            wait_until("the reset waits", lambda: threads_in("ftruncate", mounted.get(mnt).pid) == 1)
            reads = threads.submit((mnt / "seq/0").read_bytes)
            assert threads.submit((mnt / "seq/1").read_bytes).result(SECONDS) == data
            assert threads.submit(os.listdir, mnt / "seq").result(SECONDS)
            assert not reset.done()
            assert not reads.done()
        finally:
            run("fsfreeze", "--unfreeze", host.path)
        reset.result(SECONDS)
        assert reads.result(SECONDS) == b""
        mounted.unmount(mnt)


def test_an_aborted_mount_logs_no_errors(mnt: Path, threads: ThreadPoolExecutor, mounted: Mounts) -> None:
    append(mnt / "seq/0", bytes(BLOCK))
    control = MountControl(mnt)
    control.add_faults([FaultRule(Operation.FLUSH, Effect.STUCK, (2, 2), count=None)])
    descriptor = os.open(mnt / "seq/0", os.O_RDONLY)
    daemon = mounted.get(mnt)
    mounted.expect_log(mnt, "stuck by rule 1, and given up|remounting file system read-only")
    try:
        call = threads.submit(os.fsync, descriptor)
        wait_until("fsync is stuck", lambda: len(control.faults()["stuck"]) == 1)
        # It is busy, so it stays; but the connection ends.
        assert run("umount", "-f", mnt, check=False).returncode
        with pytest.raises(OSError, match=os.strerror(errno.ECONNABORTED)):
            call.result(SECONDS)
        wait_until("the daemon ends", lambda: not daemon.daemon_runs)
    finally:
        os.close(descriptor)
        run("umount", "-l", mnt)
        mounted.forget(mnt)
    assert not daemon.bad_log_lines(), daemon.log_file.read_text()

"""What tests of reads past the daemon share: calls on zone files, and whether a read passes the daemon by."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.descriptors import opened
from tests.fuse.conftest import wait_until

BLOCK = 4096
SYSTEM_CALLS = {"x86_64": {"ioctl": 16, "ftruncate": 77}, "aarch64": {"ioctl": 29, "ftruncate": 46}}
"""Numbers of system calls, by machine."""


def pattern(length: int, seed: int = 0) -> bytes:
    """*length* bytes, each eight of which differ by where they are and by *seed*."""
    return b"".join((seed << 40 | more + 1).to_bytes(8, "big") for more in range(0, length, 8))


@contextlib.contextmanager
def opened_until_taken(path: Path, flags: int) -> Iterator[int]:
    """Open *path*, until that is taken back: then close(2) has an error, too (the descriptor is closed)."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        assert refusal(lambda: os.close(descriptor)) == "EIO"


def append(path: Path, data: bytes) -> None:
    """Write *data* at the end of a sequential file."""
    with opened(path, os.O_WRONLY | os.O_DIRECT | os.O_APPEND) as descriptor:
        assert os.write(descriptor, data) == len(data)


def refusal(call: Callable[[], object]) -> str | None:
    """The name of the errno that *call* fails with, None if it does not."""
    try:
        call()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return None


def waits_for_the_daemon(thread: threading.Thread) -> bool:
    """Whether *thread*, one of this process that was started, waits for an answer of a daemon."""
    # The function of Linux's FUSE that waits (fs/fuse/dev.c).
    try:
        return Path(f"/proc/self/task/{thread.native_id}/wchan").read_text() == "request_wait_answer"
    except OSError:
        return False


def is_read_past(daemon: int, descriptor: int) -> bool:
    """Whether a read of *descriptor* is answered while the daemon is stopped."""
    thread = threading.Thread(target=os.pread, args=(descriptor, BLOCK, 0))
    os.kill(daemon, signal.SIGSTOP)
    try:
        thread.start()
        wait_until("the read ends, or waits", lambda: not thread.is_alive() or waits_for_the_daemon(thread))
        return not thread.is_alive()
    finally:
        os.kill(daemon, signal.SIGCONT)
        thread.join()


def threads_in(call: str, process: int | str = "self") -> int:
    """How many threads of *process* are waiting in the system call *call*, one of `SYSTEM_CALLS`."""
    number = SYSTEM_CALLS[os.uname().machine][call]
    found = 0
    for path in Path(f"/proc/{process}/task").glob("*/syscall"):
        # Threads end.
        with contextlib.suppress(OSError):
            found += path.read_text().startswith(f"{number} ")
    return found

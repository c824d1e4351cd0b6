"""Mounts a `Filesystem` with FUSE and serves it until it is unmounted or a signal comes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import trio

from zonefs_py.config import FILESYSTEM_SUBTYPE, FuseOptions
from zonefs_py.errors import MountError, is_too_late
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fuse import door
from zonefs_py.fuse.door import pyfuse3
from zonefs_py.fuse.kernel_cache import KernelCache
from zonefs_py.fuse.operations import Operations
from zonefs_py.fuse.passthrough import Passthrough

log = logging.getLogger(__name__)

MAX_TASKS = 1 << 20
"""Requests that pyfuse3 has under way at a time: each waits in a task of its own, and nothing is read without one.

Not fewer than can come: one may wait for the answer to another.
"""

ReadyHandler = Callable[[str | None], None]
"""Gets why reads are not passed through to the kernel; None if they are."""


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a log line of pyfuse3's says something: not that an answer came too late, after an abort or a signal."""
    message = record.getMessage()
    late = "fuse_reply_" in message and is_too_late(message.rpartition(" failed with ")[2])
    if late:
        log.debug("%s", message)
    return not late


def serve(filesystem: Filesystem, mountpoint: str, options: FuseOptions, *, on_ready: ReadyHandler) -> bool:
    """Mount *filesystem* at *mountpoint* and answer requests until it is unmounted or SIGTERM, SIGINT or SIGHUP comes.

    *on_ready* is called, in a worker thread, once the mount answers. Returns whether no handler met an unexpected
    error. The file system is not closed. Raises MountError if it cannot be mounted, or
    not as *options* demand.
    """
    logging.getLogger(pyfuse3.__name__).addFilter(is_worth_a_line)
    passthrough = Passthrough(filesystem, options.passthrough)
    operations = Operations(filesystem, passthrough)
    door.want_passthrough(options.passthrough != "off")
    door.set_source(filesystem.info.name)
    with _libfuse_complaints() as complaints:
        try:
            pyfuse3.init(operations, mountpoint, _session_options(filesystem, options))
        except RuntimeError as exc:
            raise MountError(f"{mountpoint}: {complaints() or exc}") from exc
    try:
        door.check_in_use()
        trio.run(_serve, operations, passthrough, mountpoint, on_ready)
    except BaseExceptionGroup as group:
        raise _only(group) from group
    finally:
        pyfuse3.close(unmount=True)
    return not operations.failed


def _only(exc: BaseException) -> BaseException:
    """What a nursery wrapped, if it is one exception: that is what a user should read."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _session_options(filesystem: Filesystem, options: FuseOptions) -> set[str]:
    chosen = {"default_permissions", f"subtype={FILESYSTEM_SUBTYPE}", *options.kernel_flags}
    if filesystem.options.read_only:
        chosen.add("ro")
    # The kernel's own file systems are there for everybody, and modes decide. A plain user's FUSE mount is not.
    allow_other = options.allow_other if options.allow_other is not None else os.geteuid() == 0
    if options.allow_root:
        chosen.add("allow_root")
    elif allow_other:
        chosen.add("allow_other")
    return chosen


@contextlib.contextmanager
def _libfuse_complaints() -> Iterator[Callable[[], str]]:
    """Catch what libfuse and fusermount3 write to stderr; gives a function that returns its last line."""
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)

        def last_line() -> str:
            caught.seek(0)
            lines = caught.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""

        try:
            yield last_line
        finally:
            os.dup2(kept, 2)
            os.close(kept)


async def _serve(operations: Operations, passthrough: Passthrough, mountpoint: str, on_ready: ReadyHandler) -> None:
    async with trio.open_nursery() as nursery, trio.open_nursery() as copies:
        operations.nursery = copies
        door.set_handlers(
            operations.on_open, operations.on_read, operations.on_write, operations.on_copy, operations.on_ioctl
        )
        door.set_end_handler(operations.end)
        await nursery.start(_watch_signals, operations)
        nursery.start_soon(_announce, operations.kernel, passthrough, mountpoint, on_ready)
        await pyfuse3.main(min_tasks=1, max_tasks=MAX_TASKS)
        operations.end()
        nursery.cancel_scope.cancel()


async def _watch_signals(operations: Operations, task_status: trio.TaskStatus[Any]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            operations.end()
            pyfuse3.terminate()


async def _announce(kernel: KernelCache, passthrough: Passthrough, mountpoint: str, on_ready: ReadyHandler) -> None:
    def ask() -> None:
        # A request through the kernel and back: only now does the file system answer.
        os.statvfs(mountpoint)
        kernel.begin(mountpoint)
        passthrough.start(reaches_nodes=kernel.reaches_nodes)
        on_ready(passthrough.reason)

    await trio.to_thread.run_sync(ask)

"""Serving a file system with FUSE from a process of its own, for as long as a block of code runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

from zonefs_py.config import FuseOptions
from zonefs_py.errors import MountError, ZonefsError, describe_os_error
from zonefs_py.fs.filesystem import Filesystem

_READY = b"\0"


@contextlib.contextmanager
def served(make: Callable[[], Filesystem], mountpoint: str, finish: Callable[[], None] | None = None) -> Iterator[int]:
    """Mount what *make* returns at *mountpoint* while the block runs; gives the pid of the process that serves it.

    *make* and *finish*, called after the unmount, run in that process. It ends with the block, and also if this process
    is killed. Nothing in this process may have started threads that hold locks. Raises MountError if it
    cannot be mounted, or if the file system met an unexpected error; the block's own exceptions pass through.
    """
    # Loaded once, here, so that each process need not.
    import_module("zonefs_py.fuse.serve")

    ready, say = os.pipe()
    lifeline, hold = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(ready)
        os.close(hold)
        _serve(make, mountpoint, finish, say, lifeline)
    os.close(say)
    os.close(lifeline)
    try:
        with open(ready, "rb") as stream:
            said = stream.read()
        if said != _READY:
            os.waitpid(child, 0)
            child = 0
            raise MountError(said.decode(errors="replace") or "the process that serves the file system ended")
        yield child
        child, status = 0, _stop(child)
        if status:
            raise MountError(f"{mountpoint}: the file system met an unexpected error (status {status})")
    finally:
        if child:
            _stop(child)
        os.close(hold)


def _stop(child: int) -> int:
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def die_with(lifeline: int) -> None:
    """Get SIGTERM when nobody holds the other end of the pipe *lifeline* any more."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        gone = os.read(lifeline, 1) == b""
    except BlockingIOError:
        return
    if gone:  # before the signal was ordered
        os.kill(os.getpid(), signal.SIGTERM)


def _serve(
    make: Callable[[], Filesystem], mountpoint: str, finish: Callable[[], None] | None, say: int, lifeline: int
) -> None:
    """The child's side. Ends the process."""
    from zonefs_py.fuse.serve import serve

    status = 1
    ready = False

    def say_ready() -> None:
        nonlocal ready
        ready = True
        os.write(say, _READY)
        os.close(say)

    try:
        die_with(lifeline)
        with make() as filesystem:
            healthy = serve(filesystem, mountpoint, FuseOptions(), on_ready=lambda _: say_ready())
        if finish is not None:
            finish()
        status = 0 if healthy else 1
    except (ZonefsError, OSError) as exc:
        message = describe_os_error(exc) if isinstance(exc, OSError) else str(exc)
        if ready:
            print(f"zonefs-py: {mountpoint}: {message}", file=sys.stderr)
        else:
            os.write(say, message.encode(errors="surrogateescape"))
    except SystemExit:
        pass  # told to end before it served
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)

"""Running a part of the program in the background: the foreground leaves only when that says that it works."""

from __future__ import annotations

import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from zonefs_py.errors import MountError, NoSuchFile, ZonefsError, describe_os_error

log = logging.getLogger(__name__)

LINE_FORMAT = "%(asctime)s zonefs-py[%(process)d] %(levelname)s %(message)s"
JOURNAL_FORMAT = "zonefs-py[%(process)d]: %(levelname)s %(message)s"
JOURNAL_SOCKET = "/dev/log"
LEVELS = ("debug", "info", "warning", "error")

_READY = b"\0ready"

_UNWANTED_ANSWER = f"fuse_reply_* failed with {os.strerror(NoSuchFile.errno)}"
"""What pyfuse3 says when the kernel does not know the request any more that was answered."""


def default_log_file() -> Path:
    """Where the log goes where there is no journal: /var/log for root, the user's state directory else."""
    if os.geteuid() == 0:
        return Path("/var/log/zonefs-py.log")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "zonefs-py" / "zonefs-py.log"


def set_up_logging(log_file: str | None, level: str, *, foreground: bool) -> None:
    """Send the log to *log_file*; without one to stderr in the foreground, else to the journal or the default file.

    Raises OSError if the file cannot be written.
    """
    handler: logging.Handler
    line_format = LINE_FORMAT
    if log_file is not None:
        handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
    elif foreground:
        handler = logging.StreamHandler()
    elif os.path.exists(JOURNAL_SOCKET):
        handler = logging.handlers.SysLogHandler(JOURNAL_SOCKET, logging.handlers.SysLogHandler.LOG_DAEMON)
        line_format = JOURNAL_FORMAT
    else:
        path = default_log_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(line_format))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # pyfuse3 logs each task that it starts; and an answer that nobody waits for, which is no error: the last file of a
    # mount that was detached is closed while the kernel forgets the mount.
    logger = logging.getLogger("pyfuse3")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().endswith(_UNWANTED_ANSWER)


def run_in_background(work: Callable[[Callable[[], None]], int]) -> None:
    """Run *work* in a daemon process, and return here when it calls the function that it is given: it is ready.

    *work* returns the daemon's exit status. Raises MountError with what went wrong if it ends before it is ready.
    If Ctrl-C ends the waiting, the daemon's call raises MountError: it is to undo its work.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_daemon(work, writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        said = stream.read()
    if said.endswith(_READY):
        return
    _, status = os.waitpid(child, 0)
    raise MountError(said.decode(errors="replace") or f"the daemon ended before it was ready ({_how(status)})")


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"{signal.Signals(-code).name}"


def _be_daemon(work: Callable[[Callable[[], None]], int], writer: int) -> NoReturn:
    """The child's side. Ends the process."""
    ready = False

    def say_ready() -> None:
        nonlocal ready
        ready = True
        try:
            os.write(writer, _READY)
        except BrokenPipeError:
            raise MountError("who asked for the mount has gone away; unmounting") from None
        os.close(writer)

    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        # What the caller had open is the caller's: a lock on it must not last as long as the mount.
        os.closerange(3, writer)
        os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        status = work(say_ready)
    except (ZonefsError, OSError) as exc:
        message = describe_os_error(exc) if isinstance(exc, OSError) else str(exc)
        log.error("%s", message)
        if not ready:
            os.write(writer, message.encode(errors="surrogateescape"))
    except BaseException as exc:
        log.exception("bug: the daemon failed")
        if not ready:
            os.write(writer, f"bug: {exc!r}; the log has the rest".encode())
    finally:
        logging.shutdown()
        os._exit(status)

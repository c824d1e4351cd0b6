"""Running work that must clean up after itself in a process of its own: it does so even if this one is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from zonefs_py.errors import UserError, ZonefsError, describe_os_error
from zonefs_py.testing.ending import end_on_sigterm, take_no_notice
from zonefs_py.testing.served import die_with

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_BUG = 70  # EX_SOFTWARE of sysexits.h


def run_supervised(work: Callable[[], int]) -> int:
    """Run *work* in a child process, and return what it returns, a small number.

    When this process is told to end (SIGINT, SIGTERM, SIGHUP) or is killed, SystemExit is raised in *work*, and this
    function raises KeyboardInterrupt when that has ended. A ZonefsError or OSError of *work* is a UserError here.
    """
    lifeline, hold = os.pipe()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Neither side is to be ended before it knows what to do then: the child would clean up after us, and we would not
    # wait for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        child = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    if child == 0:
        os.close(hold)
        os.close(reader)
        _run(work, writer, lifeline, mask)
    os.close(lifeline)
    os.close(writer)
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    with open(reader, "rb") as messages:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            message = messages.read()
            _, status = os.waitpid(child, 0)
        except KeyboardInterrupt:
            os.close(hold)
            os.waitpid(child, 0)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    os.close(hold)
    code = os.waitstatus_to_exitcode(status)
    if message:
        raise UserError(message.decode(errors="surrogateescape"))
    if code < 0 or code == _BUG:
        raise RuntimeError(f"the working process failed (status {code})")
    return code


def _run(work: Callable[[], int], writer: int, lifeline: int, mask: set[int]) -> None:
    """The child's side; *mask* has the signals that are to be blocked while it works. Ends the process."""
    status = _BUG
    try:
        for number in (signal.SIGINT, signal.SIGHUP):
            # They come to the other process, too, which ends this one.
            signal.signal(number, take_no_notice)
        end_on_sigterm()
        die_with(lifeline)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = work()
    except SystemExit:
        pass
    except (ZonefsError, OSError) as exc:
        message = describe_os_error(exc) if isinstance(exc, OSError) else str(exc)
        os.write(writer, message.encode(errors="surrogateescape"))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

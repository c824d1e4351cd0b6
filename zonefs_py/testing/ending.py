"""Being told to end: SIGTERM as an exception that cleans up, and never comes where it would do harm."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_depth = 0
"""How many `undisturbed` blocks the main thread is in."""
_told = False
_raised = False


def end_on_sigterm() -> None:
    """Make the first SIGTERM from now on raise SystemExit in the main thread, and the others do nothing."""
    global _depth, _told, _raised
    _depth, _told, _raised = 0, False, False
    signal.signal(signal.SIGTERM, _end)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let the SystemExit of `end_on_sigterm` wait for the end of the block: what that does, it does as a whole."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _told:
        _raise()


def take_no_notice(_number: int, _frame: FrameType | None) -> None:
    """A signal's handler. Unlike SIG_IGN it does not become that of the programs that are started."""


def _end(_number: int, _frame: FrameType | None) -> None:
    global _told
    _told = True
    _raise()


def _raise() -> None:
    global _raised
    if not _depth and not _raised:
        # Once: what cleans up must not be disturbed.
        _raised = True
        raise SystemExit

"""Calls that faults make wait: for some time, or until somebody lets them go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from zonefs_py.errors import DeviceError

log = logging.getLogger(__name__)


class StuckCall(NamedTuple):
    """A call that waits to be released: by which rule, in which zone, what it is, and for how many seconds already."""

    rule: int
    zone: int
    what: str
    seconds: float


@dataclass(eq=False)
class _Held:
    """A stuck call. *goes_on* None: it is still held."""

    rule: int
    zone: int
    what: str
    since: float
    goes_on: bool | None = None


class StuckCalls:
    """Who waits. Each call waits in its own thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """*clock* gives seconds."""
        self._clock = clock
        self._changed = threading.Condition()
        """Guards what is below. Nothing is called while it is held, but what says whether a rule is there."""
        self._held: list[_Held] = []
        self._abandoned = False
        self._interrupted = False
        self.watcher: Callable[[bool], None] | None = None
        """See `ZonedDevice.watch_stuck`."""

    @property
    def calls(self) -> list[StuckCall]:
        """The calls that are stuck now, the longest first."""
        with self._changed:
            now = self._clock()
            return [StuckCall(one.rule, one.zone, one.what, now - one.since) for one in self._held]

    def hold(self, rule: int, zone: int, what: str, is_there: Callable[[], bool]) -> None:
        """Wait until the call is released. Raises DeviceError if it is to fail then.

        *is_there* tells whether the rule is: it must not be any more when `release` is called for its removal.
        """
        watcher = self.watcher
        if watcher is not None:
            watcher(True)
        try:
            goes_on = self._wait(_Held(rule, zone, what, self._clock()), is_there)
        finally:
            if watcher is not None:
                watcher(False)
        if not goes_on:
            raise DeviceError(f"zone {zone}: {what} was stuck by rule {rule}, and given up")

    def _wait(self, held: _Held, is_there: Callable[[], bool]) -> bool:
        with self._changed:
            if self._abandoned or self._interrupted:
                return False
            if not is_there():
                # It was removed after it had struck: nobody could release the call by its number.
                return True
            log.info("zone %d: %s is stuck by rule %d", held.zone, held.what, held.rule)
            self._held.append(held)
            self._changed.wait_for(lambda: held.goes_on is not None)
        return bool(held.goes_on)

    def sleep(self, seconds: float, is_there: Callable[[], bool]) -> None:
        """Wait for *seconds*, or until waiting is interrupted, or the rule is not there any more, as in `hold`."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or self._interrupted or not is_there(), seconds)

    def release(self, rules: Iterable[int] | None, *, fail: bool) -> int:
        """Let calls that are stuck by *rules* (None: by any) go on, or *fail*; return how many there were."""
        wanted = None if rules is None else set(rules)
        with self._changed:
            chosen = [one for one in self._held if wanted is None or one.rule in wanted]
            for one in chosen:
                one.goes_on = not fail
            self._held = [one for one in self._held if one.goes_on is None]
            self._changed.notify_all()
        return len(chosen)

    def interrupt(self) -> None:
        """Make nobody wait any more, as `abandon`, but until `resume`."""
        with self._changed:
            self._interrupted = True
        self.release(None, fail=True)

    def resume(self) -> None:
        """Let calls wait again."""
        with self._changed:
            self._interrupted = False

    def abandon(self) -> None:
        """Make nobody wait any more, for good: stuck calls fail, and so do those that would get stuck."""
        with self._changed:
            self._abandoned = True
        self.release(None, fail=True)

"""The last refusals of a mounted file system, explained: a bounded list, which costs nothing before a refusal."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from zonefs_py.errors import ZonefsError
from zonefs_py.fs.explain import FileState, explain

log = logging.getLogger(__name__)

MOST_REFUSALS = 256


@dataclass(frozen=True)
class Refusal:
    """Something that was refused. Offsets and lengths are bytes of the file; what is not known, or not there, is None.

    ``number`` counts the mount's refusals, from 1; ``time_ns`` is since 1970. ``size`` is the file's at that time, the
    write pointer of a sequential one.
    """

    number: int
    time_ns: int
    call: str
    errno: str
    message: str
    rule: str
    source: str
    advice: str
    file: str | None = None
    zone: int | None = None
    offset: int | None = None
    length: int | None = None
    size: int | None = None
    capacity: int | None = None
    pid: int | None = None
    process: str | None = None

    def __str__(self) -> str:
        """One line, as the log has it."""
        what = f"{self.call} of {self.file} (zone {self.zone})" if self.file else self.call
        who = f" by {self.process or 'process'} ({self.pid})" if self.pid else ""
        return f"{what}{who}: {self.errno}: {self.message}. {self.rule} ({self.source}) Instead: {self.advice}"


class RefusalLog:
    """The last `MOST_REFUSALS` refusals."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """*clock* gives nanoseconds since 1970."""
        self._clock = clock
        self._lock = threading.Lock()
        """Guards what is below. Nothing is called while it is held."""
        self._last: deque[Refusal] = deque(maxlen=MOST_REFUSALS)
        self._by_errno: Counter[str] = Counter()
        self._number = 0
        self._logs = False

    def log_each(self) -> None:
        """Log refusals as they happen from now on, whatever the log level: who wants that has asked for just these."""
        self._logs = True
        log.setLevel(logging.INFO)

    def last(self, count: int = MOST_REFUSALS) -> list[Refusal]:
        """Return the last *count* refusals, the oldest of them first."""
        with self._lock:
            found = list(self._last)
        return found[max(0, len(found) - count) :]

    @property
    def by_errno(self) -> dict[str, int]:
        """How many refusals there were of each errno, all together."""
        with self._lock:
            return dict(sorted(self._by_errno.items()))

    def add(
        self,
        call: str,
        error: ZonefsError,
        file: FileState | None,
        offset: int | None,
        length: int | None,
        pid: int | None,
        process: str | None,
    ) -> Refusal:
        """Take note that *call* was answered with *error*, and why; return the note."""
        why = explain(call, error, file)
        with self._lock:
            self._number += 1
            refusal = Refusal(
                self._number,
                self._clock(),
                call,
                error.errno_name,
                str(error),
                *why,
                file=file.path if file else None,
                zone=file.zone if file else None,
                offset=offset,
                length=length,
                size=file.size if file else None,
                capacity=file.capacity if file else None,
                pid=pid,
                process=process,
            )
            self._last.append(refusal)
            self._by_errno[refusal.errno] += 1
        if self._logs:
            log.info("refused: %s", refusal)
        return refusal

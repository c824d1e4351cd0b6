"""Whose turn it is at which file, and how many worker threads may be busy with one. No I/O, no thread is here.

Requests for one file are let in in the order of their arrival: one alone, or several that only read together. What is
let in has a worker thread to itself. One file can never take all of them: its first request needs no leave, every
further one a *spare*, of which all files together have few. So a file whose device is slow or stuck holds up no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from types import TracebackType

import trio


class _Turn:
    """One request at one gate."""

    __slots__ = ("admitted", "event", "ino", "shared")

    def __init__(self, ino: int, *, shared: bool) -> None:
        self.ino = ino
        self.shared = shared
        self.admitted = False
        self.event: trio.Event | None = None
        """Made when somebody waits for it."""

    async def wait(self) -> None:
        if not self.admitted:
            self.event = trio.Event()
            await self.event.wait()


class _Gate:
    """The requests for one file."""

    __slots__ = ("alone", "inside", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Turn] = deque()
        self.inside = 0
        self.alone = False
        """Whether the one inside wants nobody beside it."""


class Passage:
    """Turns at some gates. Entering waits until all have come; leaving ends them. It must be entered, or given up."""

    __slots__ = ("_gates", "_turns")

    def __init__(self, gates: Gates, turns: list[_Turn]) -> None:
        self._gates = gates
        self._turns = turns

    async def __aenter__(self) -> None:
        try:
            for turn in self._turns:
                await turn.wait()
        except BaseException:
            self._gates.end(self._turns)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gates.end(self._turns)

    def give_up(self) -> None:
        """End the turns of a passage that will not be entered."""
        self._gates.end(self._turns)


class Gates:
    """The gates of all files, by inode number; a file of which nothing is under way has none.

    For one thread, trio's. Who calls `alone` or `together` queues at once, so the order is that of the calls.
    """

    def __init__(self, most_together: int, spares: int) -> None:
        """*most_together* requests of one file can be inside together; those beyond the first need one of *spares*."""
        self._most_together = most_together
        self._spares = spares
        self.busy: dict[int, _Gate] = {}
        """Files of which anything is under way, or waits. To look into, at every request."""
        self._hungry: dict[int, None] = {}
        """Files whose next request waits for a spare, the longest first."""

    def alone(self, inos: Iterable[int]) -> Passage:
        """Queue at the gates of *inos*, to be inside all of them with nobody beside."""
        # All queue at once, at all gates that they need: so nobody waits in a circle, whatever the order.
        return Passage(self, [self._queue(_Turn(ino, shared=False)) for ino in inos])

    def together(self, inos: Iterable[int]) -> Passage:
        """Queue at the gates of *inos*, to be inside with others that came by `together`, before and after."""
        return Passage(self, [self._queue(_Turn(ino, shared=True)) for ino in inos])

    def _queue(self, turn: _Turn) -> _Turn:
        gate = self.busy.get(turn.ino)
        if gate is None:
            gate = self.busy[turn.ino] = _Gate()
        gate.waiting.append(turn)
        self._admit(turn.ino, gate)
        return turn

    def _admit(self, ino: int, gate: _Gate) -> None:
        """Let in whose turn it is at *gate*."""
        while gate.waiting:
            turn = gate.waiting[0]
            if gate.inside:
                if not turn.shared or gate.alone or gate.inside >= self._most_together:
                    break
                if not self._spares:
                    self._hungry.setdefault(ino)
                    break
                self._spares -= 1
            gate.waiting.popleft()
            gate.inside += 1
            gate.alone = not turn.shared
            turn.admitted = True
            if turn.event is not None:
                turn.event.set()

    def end(self, turns: Iterable[_Turn]) -> None:
        """End *turns*, be they inside or waiting."""
        for turn in turns:
            gate = self.busy[turn.ino]
            if not turn.admitted:
                gate.waiting.remove(turn)
            else:
                gate.inside -= 1
                gate.alone = False
                if gate.inside:
                    self._spares += 1
            if gate.inside or gate.waiting:
                self._admit_hungry()
                self._admit(turn.ino, gate)
            else:
                del self.busy[turn.ino]

    def _admit_hungry(self) -> None:
        while self._spares and self._hungry:
            ino = next(iter(self._hungry))
            del self._hungry[ino]
            # It may have gone, or not need a spare any more.
            if ino in self.busy:
                self._admit(ino, self.busy[ino])

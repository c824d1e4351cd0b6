"""What a background copy does next: its pieces, its throttle, the order of jobs. Pure: times come as arguments.

All numbers are bytes; times are seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zonefs_py.errors import InvalidRequest
from zonefs_py.units import round_down

MAX_DESTINATIONS = 8
"""Destinations of one job, as of one job of the Linux kernel's kcopyd (DM_KCOPYD_MAX_REGIONS)."""

PIECES_PER_SECOND = 10
"""A throttled job copies pieces of this part of a second: what a burst is at most, and how soon a cancel works."""


class Throttle:
    """Bytes per second, without credit for a time in which nothing was copied.

    Jobs of one queue can share one: together they are no faster then, at once or one after the other.
    """

    def __init__(self, rate: int | None) -> None:
        """*rate* None: no throttle. Raises InvalidRequest for a rate that is not above 0."""
        self._rate = _checked(rate)
        self._debt = 0.0
        """Bytes that were copied ahead of time, at the time `_settled`."""
        self._settled = 0.0

    @property
    def rate(self) -> int | None:
        """The rate in force."""
        return self._rate

    def set_rate(self, rate: int | None, now: float) -> None:
        """Change the rate; what was copied before is paid off at the new one. Raises InvalidRequest."""
        rate = _checked(rate)
        self._settle(now)
        self._rate = rate

    def spend(self, length: int, now: float) -> None:
        """Take note of *length* bytes that are copied from *now* on, or (negative) were not copied after all."""
        self._settle(now)
        if self._rate is not None:
            self._debt = max(0.0, self._debt + length)

    def due(self, now: float) -> float:
        """Return when the next piece may start: *now*, or a later time."""
        self._settle(now)
        # Less than a byte is what rounding leaves.
        return now if self._rate is None or self._debt < 1 else now + self._debt / self._rate

    def _settle(self, now: float) -> None:
        if self._rate is None:
            self._debt = 0.0
        else:
            self._debt = max(0.0, self._debt - self._rate * (now - self._settled))
        self._settled = now


def _checked(rate: int | None) -> int | None:
    if rate is not None and rate <= 0:
        raise InvalidRequest(f"a throttle of {rate} bytes per second")
    return rate


class Piece(NamedTuple):
    """What is copied in one go: to destination number *destination*, from and to *done* bytes after the start."""

    destination: int
    done: int
    length: int


@dataclass(frozen=True)
class DestinationResult:
    """What became of one destination.

    ``copied`` bytes were copied to ``offset``, which is None if nothing was tried. ``error`` is what stopped it, None
    if nothing did: fewer bytes than asked for then mean that the source ended, or that the job was cancelled.
    """

    name: str
    offset: int | None
    copied: int
    error: BaseException | None


class JobState:
    """How far a job is. Its user guards it with a lock."""

    def __init__(
        self,
        length: int,
        names: Sequence[str],
        block_sizes: Sequence[int],
        offsets: Sequence[int | None],
        largest_piece: int,
        throttle: Throttle,
    ) -> None:
        """*length* bytes go to each destination; one without an offset appends, and gets to know where in `started`."""
        self.length = length
        self.throttle = throttle
        self.cancelled = False
        self._names = tuple(names)
        self._block_sizes = tuple(block_sizes)
        self._offsets = list(offsets)
        self._largest_piece = largest_piece
        self._copied = [0] * len(names)
        self._errors: list[BaseException | None] = [None] * len(names)
        self._ended = [False] * len(names)

    @property
    def progress(self) -> tuple[int, ...]:
        """Bytes copied so far, by destination."""
        return tuple(self._copied)

    @property
    def cut_short(self) -> bool:
        """Whether it was cancelled, and had something left to copy."""
        return self.cancelled and any(
            copied < self.length and not ended for copied, ended in zip(self._copied, self._ended, strict=True)
        )

    @property
    def results(self) -> tuple[DestinationResult, ...]:
        """What became of each destination."""
        return tuple(map(DestinationResult, self._names, self._offsets, self._copied, self._errors))

    def next_piece(self) -> Piece | None:
        """Return what to copy next, None if nothing is left.

        Destinations stay abreast: what one has read is still cached when the next one reads it.
        """
        live = [
            number
            for number, copied in enumerate(self._copied)
            if copied < self.length and not self._ended[number] and not self.cancelled
        ]
        if not live:
            return None
        number = min(live, key=lambda number: self._copied[number])
        done = self._copied[number]
        return Piece(number, done, min(self._piece_size(self._block_sizes[number]), self.length - done))

    def _piece_size(self, block_size: int) -> int:
        size = self._largest_piece
        if self.throttle.rate is not None:
            size = min(size, self.throttle.rate // PIECES_PER_SECOND)
        return max(block_size, round_down(size, block_size))

    def offset(self, number: int) -> int | None:
        """Where destination *number* begins, None as long as that is not known."""
        return self._offsets[number]

    def started(self, number: int, offset: int) -> None:
        """Take note that what goes to destination *number* begins at *offset*."""
        self._offsets[number] = offset

    def take(self, now: float) -> Piece | None:
        """Return what to copy next and count it against the throttle; None if nothing is left."""
        piece = self.next_piece()
        if piece is not None:
            self.throttle.spend(piece.length, now)
        return piece

    def copied(self, piece: Piece, length: int, now: float) -> None:
        """Take note that *length* bytes of *piece* have been copied; 0 means that the source ends there."""
        self._copied[piece.destination] += length
        self._ended[piece.destination] = not length
        self.throttle.spend(length - piece.length, now)

    def failed(self, piece: Piece, error: BaseException, now: float) -> None:
        """Take note that *error* ends the copy to the piece's destination, of which nothing was copied."""
        self._errors[piece.destination] = error
        self._ended[piece.destination] = True
        self.throttle.spend(-piece.length, now)

    def due(self, now: float) -> float:
        """Return when the next piece may start; there is nothing to wait for where none is left."""
        return self.throttle.due(now) if self.next_piece() else now


def in_turn(jobs: Iterable[frozenset[Hashable]]) -> Iterator[int]:
    """Yield the numbers of the jobs that may run now, each given by the files it writes, oldest job first.

    A job whose turn it is writes no file that an older one writes: what is appended to a zone comes in order.
    """
    taken: set[Hashable] = set()
    for number, files in enumerate(jobs):
        if not files & taken:
            yield number
        taken |= files

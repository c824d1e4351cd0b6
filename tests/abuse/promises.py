"""What a file may hold after a crash, by what was acknowledged before it, and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field


class BrokenPromise(Exception):
    """A file holds what it must not."""


@dataclass
class Promise:
    """What one file has promised so far. All its bytes are acknowledged ones.

    A sequential file holds what was ``synced``, and of what was ``written`` behind that any whole blocks, in order. A
    block of a conventional file holds what it did at the last sync, or after any of the changes ``since``.
    """

    name: str
    sequential: bool
    capacity: int
    block: int
    written: bytes
    synced: bytes = b""
    since: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.synced = self.written

    def change(self, offset: int, data: bytes | None) -> None:
        """*data* was written at *offset*; None: the file was emptied. Emptying and finishing are durable at once."""
        if data is None:
            self.written = self.synced = b""
            return
        self.written = _changed(self.written, offset, data)
        if not self.sequential:
            self.since.append((offset, data))

    def sync(self) -> None:
        """All that was written is durable."""
        self.synced = self.written
        self.since.clear()

    def check(self, seen: bytes, pending: tuple[int, bytes | None] | None, *, volatile: bool) -> None:
        """Raise BrokenPromise if the file may not hold *seen* after a crash.

        *pending* is the change that was under way, if any. *volatile*: what was not synced may be lost.
        """
        if self.sequential:
            self._check_sequential(seen, pending, volatile=volatile)
        else:
            self._check_conventional(seen, pending, volatile=volatile)

    def _check_sequential(self, seen: bytes, pending: tuple[int, bytes | None] | None, *, volatile: bool) -> None:
        if len(seen) % self.block:
            raise BrokenPromise(f"{self.name}: {len(seen)} bytes are not whole blocks")
        most = self.written
        if pending is not None:
            data = pending[1]
            if data is None:
                if not seen:
                    return
            else:
                most += data
        least = self.synced if volatile else self.written
        if len(seen) < len(least):
            raise BrokenPromise(f"{self.name}: {len(seen)} bytes are left of {len(least)}")
        if not most.startswith(seen):
            raise BrokenPromise(f"{self.name}: {_difference(self.name, seen, most)}")

    def check_lost(self, seen: bytes, pending: tuple[int, bytes | None] | None, lost: int) -> None:
        """Raise BrokenPromise unless *seen* and the *lost* bytes are together what a sequential file held before.

        That is what was acknowledged, and any part of the *pending* change.
        """
        more = 0
        if pending is not None:
            if pending[1] is None and not seen:
                return  # it was emptied just then
            more = len(pending[1] or b"")
        if not len(self.written) <= len(seen) + lost <= len(self.written) + more:
            raise BrokenPromise(
                f"{self.name}: {len(seen)} bytes are left and {lost} are said to be lost of {len(self.written)}"
            )

    def _check_conventional(self, seen: bytes, pending: tuple[int, bytes | None] | None, *, volatile: bool) -> None:
        if len(seen) != self.capacity:
            raise BrokenPromise(f"{self.name}: {len(seen)} bytes instead of {self.capacity}")
        after = self.written
        if pending is not None and pending[1] is not None:
            after = _changed(after, pending[0], pending[1])
        if seen in (self.written, after):
            return
        versions = self._versions(pending) if volatile else [self.written, after]
        for at in range(0, self.capacity, self.block):
            block = seen[at : at + self.block]
            possible = [version[at : at + self.block] for version in versions]
            # A block that was being written when the daemon died may be half new: nothing is torn but that one write.
            torn = {self.written[at : at + self.block], after[at : at + self.block]}
            if block not in possible and not is_mixed(block, *sorted(torn)):
                raise BrokenPromise(f"{self.name}: the block at {at} never was like that")

    def _versions(self, pending: tuple[int, bytes | None] | None) -> list[bytes]:
        versions = [self.synced]
        for offset, data in [*self.since, *([pending] if pending is not None else [])]:
            if data is not None:
                versions.append(_changed(versions[-1], offset, data))
        return versions

    def adopt(self, seen: bytes) -> None:
        """Go on with what is there after a crash: it is durable, for it was read after it."""
        self.written = self.synced = seen
        self.since.clear()


def _changed(content: bytes, offset: int, data: bytes) -> bytes:
    return content[:offset] + data + content[offset + len(data) :]


def is_mixed(block: bytes, *halves: bytes) -> bool:
    """Whether each byte of *block* is that of one of the *halves*."""
    return all(byte in now for byte, *now in zip(block, *halves, strict=True))


def _difference(name: str, seen: bytes, most: bytes) -> str:
    if len(seen) > len(most):
        return f"{len(seen)} bytes, but no more than {len(most)} were ever written"
    first = next(at for at, (one, other) in enumerate(zip(seen, most, strict=False)) if one != other)
    return f"byte {first} is {seen[first]:#04x} instead of {most[first]:#04x}"

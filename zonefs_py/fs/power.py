"""What a power cut makes of a file system in use: which files there look otherwise afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from zonefs_py.fs.tree import NOT_SEEN, Tree


class ViewChange(NamedTuple):
    """How what names and attributes show has changed, for those who keep some of it. Inode numbers."""

    seen: tuple[int, ...]
    """Files that somebody has looked at since the file system was mounted: their times, at least, are others now."""
    resized: tuple[int, ...]
    """Those of them that have another size."""
    dead: bool
    """Whether there is no power: nothing is shown any more."""


Announce = Callable[[ViewChange], None]
"""To be called at most once, when the new view is there, or none is."""

AroundPower = Callable[[], AbstractContextManager[Announce]]
"""Entered while one view takes the place of another."""


def unobserved() -> AbstractContextManager[Announce]:
    """An `AroundPower` of nobody."""
    return nullcontext(lambda change: None)


def change_of_view(old: Tree, new: Tree | None) -> ViewChange:
    """Return how *new*, which is made of the same zones, differs from *old*. None: there is no power."""
    seen = [file for file in old.files() if file.ctime_ns != NOT_SEEN]
    if new is None:
        return ViewChange(tuple(file.ino for file in seen), (), True)
    sizes = {file.ino: file.size for file in new.files()}
    resized = tuple(file.ino for file in seen if sizes.get(file.ino) != file.size)
    return ViewChange(tuple(file.ino for file in seen), resized, False)

"""Makes a list of steps that shows something as short as is easy. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(steps: Sequence[T], shows: Callable[[list[T]], bool], tries: int) -> list[T]:
    """Leave out of *steps* what *shows* does not need, calling it *tries* times at most; return what is left.

    What is returned shows it, if *steps* does: that is not asked again. Halves are tried first, single steps last.
    """
    left = list(steps)
    size = max(1, len(left) // 2)
    while tries > 0 and len(left) > 1:
        at, before = len(left), len(left)
        # From the end: what came before may have made what is there.
        while at > 0 and tries > 0 and len(left) > 1:
            start = max(0, at - size)
            shorter = left[:start] + left[at:]
            tries -= 1
            if shorter and shows(shorter):
                left = shorter
            at = start
        if size == 1 and len(left) == before:
            break
        size = max(1, size // 2)
    return left

"""The judge of the crash rounds, by itself: what may be there after a crash, and what must not."""

from __future__ import annotations

import contextlib

import pytest

from tests.abuse.promises import BrokenPromise, Promise

BLOCK = 8
A, B, C, D = (bytes([letter]) * BLOCK for letter in b"ABCD")


def sequential() -> Promise:
    """A is synced, B is only acknowledged."""
    promise = Promise("seq/0", True, 5 * BLOCK, BLOCK, b"")
    promise.change(0, A)
    promise.sync()
    promise.change(BLOCK, B)
    return promise


def conventional() -> Promise:
    """Three blocks of A; the second was B and then C since the last sync."""
    promise = Promise("cnv/0", False, 3 * BLOCK, BLOCK, A * 3)
    promise.change(BLOCK, B)
    promise.change(BLOCK, C)
    return promise


@pytest.mark.parametrize(
    ("seen", "pending", "volatile", "legal"),
    [
        (A + B, None, False, True),
        (A, None, False, False),
        (A, None, True, True),
        (b"", None, True, False),
        (A + B[:4], None, True, False),
        (A + C, None, True, False),
        (A + B + C, None, False, False),
        (A + B + C, (2 * BLOCK, C + D), False, True),
        (A + B + C + D, (2 * BLOCK, C + D), True, True),
        (A + B + D, (2 * BLOCK, C + D), True, False),
        (A + B + C + D + D, (2 * BLOCK, C + D), False, False),
        (b"", (0, None), False, True),
        (A + B, (0, None), False, True),
        (A, (0, None), False, False),
    ],
)
def test_sequential(seen: bytes, pending: tuple[int, bytes | None] | None, volatile: bool, legal: bool) -> None:
    judge(sequential(), seen, pending, volatile, legal)


@pytest.mark.parametrize(
    ("seen", "pending", "volatile", "legal"),
    [
        (A + C + A, None, False, True),
        (A + B + A, None, False, False),
        (A + B + A, None, True, True),
        (A + A + A, None, True, True),
        (A + A + A, None, False, False),
        (A + D + A, None, True, False),
        (A + C, None, True, False),
        (A + C + D, (2 * BLOCK, D), False, True),
        (A + C + A[:4] + D[:4], (2 * BLOCK, D), False, True),
        (A + B[:4] + C[:4] + A, (2 * BLOCK, D), False, False),
        (A + A + D, (2 * BLOCK, D), True, True),
        (D + C + A, (2 * BLOCK, D), True, False),
    ],
)
def test_conventional(seen: bytes, pending: tuple[int, bytes | None] | None, volatile: bool, legal: bool) -> None:
    judge(conventional(), seen, pending, volatile, legal)


def judge(promise: Promise, seen: bytes, pending: tuple[int, bytes | None] | None, volatile: bool, legal: bool) -> None:
    if legal:
        promise.check(seen, pending, volatile=volatile)
        promise.adopt(seen)
        promise.check(seen, None, volatile=False)
    else:
        with pytest.raises(BrokenPromise, match=promise.name):
            promise.check(seen, pending, volatile=volatile)


def test_emptying_is_durable() -> None:
    promise = sequential()
    promise.change(0, None)
    promise.check(b"", None, volatile=True)
    with pytest.raises(BrokenPromise):
        promise.check(A, None, volatile=True)


@pytest.mark.parametrize(
    ("seen", "pending", "lost", "legal"),
    [
        (A + B, None, 0, True),
        (A, None, BLOCK, True),
        (A, None, 0, False),
        (A, None, 2 * BLOCK, False),
        (A + B, None, BLOCK, False),
        (A + B, (2 * BLOCK, C + D), 0, True),
        (A, (2 * BLOCK, C + D), 2 * BLOCK, True),
        (A, (2 * BLOCK, C + D), 3 * BLOCK, True),
        (A, (2 * BLOCK, C + D), 4 * BLOCK, False),
        (b"", (0, None), 0, True),
        (A, (0, None), 0, False),
    ],
)
def test_what_is_told_to_be_lost(seen: bytes, pending: tuple[int, bytes | None] | None, lost: int, legal: bool) -> None:
    with contextlib.nullcontext() if legal else pytest.raises(BrokenPromise, match="said to be lost"):
        sequential().check_lost(seen, pending, lost)

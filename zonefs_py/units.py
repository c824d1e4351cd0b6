"""Sizes as text and as bytes, and alignment. Everything inside the project counts in bytes."""

from __future__ import annotations

import re

SECTOR_SIZE = 512
"""Bytes in a Linux sector, whatever the device's block size is (``linux/blk_types.h``)."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SUFFIXES = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
_SIZE = re.compile(r"([0-9]{1,40})(?: ?([KMGT])(?:iB)?)?", re.IGNORECASE | re.ASCII)
_COUNT = re.compile(r"[0-9]{1,40}", re.ASCII)


def parse_size(text: str) -> int:
    """Return the number of bytes that *text* names: ``4096``, ``4K``, ``64M``, ``1GiB``.

    Suffixes are powers of 1024. Raises ValueError with a sentence naming *text*.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a number with K, M, G or T, such as 64M")
    return int(match[1]) * _SUFFIXES[(match[2] or "").upper()]


def parse_count(text: str) -> int:
    """Return the number that *text* is: decimal, not negative. Raises ValueError with a sentence naming *text*."""
    if _COUNT.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a number: write decimal digits, such as 8")
    return int(text)


def format_size(size: int) -> str:
    """Return *size* (bytes) with the largest suffix that divides it, so that it parses back."""
    for suffix in ("T", "G", "M", "K"):
        unit = _SUFFIXES[suffix]
        if size and size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)


def is_aligned(value: int, alignment: int) -> bool:
    """Whether *value* is a multiple of *alignment* (both in bytes)."""
    return value % alignment == 0


def round_down(value: int, alignment: int) -> int:
    """The largest multiple of *alignment* that is not above *value* (both in bytes)."""
    return value - value % alignment

"""What hypothesis draws from: devices and mounts, places in a file, amounts of data; and the data itself."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from hypothesis import strategies as st

from zonefs_py.zone import Geometry

from .oracle import Format, ModelFile, Options, Setup

POLICIES = ("remount-ro", "zone-ro", "zone-offline", "repair")
SUPERBLOCK_SIZE = 4096
HUGE = 1 << 62

# Devices and mounts.


@st.composite
def geometries(draw: st.DrawFn, zone_sizes: tuple[int, ...]) -> Geometry:
    """Few zones of one of *zone_sizes* bytes: no, one or several conventional, at least two sequential files."""
    block_size = draw(st.sampled_from((4096, 512)))
    zone_size = draw(st.sampled_from(zone_sizes))
    blocks = zone_size // block_size
    lost = draw(st.one_of(st.just(0), st.integers(1, max(1, blocks // 3))))
    # The superblock must fit into zone 0, which may be a sequential one.
    capacity = max(zone_size - lost * block_size, SUPERBLOCK_SIZE)
    nr_conventional = draw(st.sampled_from((0, 1, 2, 4)))
    nr_zones = max(nr_conventional, 1) + draw(st.integers(2, 6))
    last = draw(st.one_of(st.just(blocks), st.integers(1, blocks)))
    return Geometry(zone_size, capacity, nr_zones, nr_conventional, block_size, last * block_size)


def options() -> st.SearchStrategy[Options]:
    """Mount options, read-write."""
    return st.builds(Options, errors=st.sampled_from(POLICIES), explicit_open=st.booleans())


def formats() -> st.SearchStrategy[Format]:
    """What mkfs is told."""
    return st.builds(
        Format,
        aggregate=st.booleans(),
        uid=st.sampled_from((None, 0, 1000)),
        gid=st.sampled_from((None, 0, 1000)),
        permissions=st.sampled_from((None, 0o640, 0o600, 0o777, 0o444)),
    )


@st.composite
def setups(draw: st.DrawFn, zone_sizes: tuple[int, ...]) -> Setup:
    """A device, formatted and mounted, with or without limits that are below its number of sequential zones."""
    geometry = draw(geometries(zone_sizes))
    most = geometry.nr_zones - geometry.nr_conventional - 1
    limits = st.one_of(st.none(), st.integers(1, most))
    max_open, max_active = draw(limits), draw(limits)
    if max_open is not None and max_active is not None and max_open > max_active:
        max_open, max_active = max_active, max_open
    return Setup(geometry, max_open, max_active, draw(formats()), draw(options()))


# Places and amounts. Drawn without knowing the file, and resolved when its state is known.


@dataclass(frozen=True)
class Place:
    """An offset: so many blocks and bytes from an anchor."""

    anchor: str
    blocks: int = 0
    bytes: int = 0

    def resolve(self, file: ModelFile) -> int:
        """The offset in *file*, never negative."""
        # In the middle of an aggregated file two zones often meet.
        middle = file.capacity // 2 // file.block_size * file.block_size
        anchors = {"start": 0, "middle": middle, "size": file.size, "capacity": file.capacity, "huge": HUGE}
        return max(0, anchors[self.anchor] + self.blocks * file.block_size + self.bytes)


@dataclass(frozen=True)
class Amount:
    """A length: so many blocks and bytes, or counted from what is left to the capacity or to the size."""

    base: str = "nothing"
    blocks: int = 0
    bytes: int = 0

    def resolve(self, file: ModelFile, offset: int) -> int:
        """The length from *offset* of *file*, never negative and never more than a few blocks above the capacity."""
        bases = {
            "nothing": 0,
            "to-capacity": max(0, file.capacity - offset),
            "to-size": max(0, file.size - offset),
            "capacity": file.capacity,
        }
        length = bases[self.base] + self.blocks * file.block_size + self.bytes
        return max(0, min(length, file.capacity + 8 * file.block_size))


def places() -> st.SearchStrategy[Place]:
    """Anywhere, with a liking for the write pointer, the capacity and the edges of blocks."""
    return st.builds(
        Place,
        anchor=st.sampled_from(("size", "size", "size", "start", "middle", "capacity", "huge")),
        blocks=st.sampled_from((0, 0, 0, 1, -1, 2, -2, 5)),
        bytes=st.sampled_from((0, 0, 0, 0, 1, -1, 100, 512)),
    )


def amounts() -> st.SearchStrategy[Amount]:
    """Any length, with a liking for whole blocks."""
    return st.builds(
        Amount,
        base=st.sampled_from(("nothing", "nothing", "nothing", "to-capacity", "to-size", "capacity")),
        blocks=st.sampled_from((1, 2, 3, 0, 0, -1, 7)),
        bytes=st.sampled_from((0, 0, 0, 0, 1, 100, 512)),
    )


def whole_blocks() -> st.SearchStrategy[Amount]:
    """What a well-behaved writer writes: some blocks, or all that is left."""
    return st.one_of(
        st.builds(Amount, blocks=st.integers(1, 4)),
        st.builds(Amount, blocks=st.integers(1, 4)),
        st.builds(Amount, base=st.just("to-capacity"), blocks=st.sampled_from((0, -1))),
    )


# Data.


@functools.lru_cache(maxsize=64)
def _positions(first_word: int, nr_words: int) -> int:
    words = struct.pack(f"<{nr_words}Q", *range(first_word, first_word + nr_words))
    return int.from_bytes(words, "little")


def pattern(ino: int, generation: int, offset: int, length: int) -> bytes:
    """Return data that differs by file, write and position, so that none passes for another.

    Each 8 bytes hold the generation (24 bits), the inode number (16) and the position in the file in words (24).
    """
    first_word = offset // 8
    nr_words = (offset % 8 + length + 7) // 8
    header = struct.pack("<Q", generation << 40 | ino << 24)
    base = _positions(first_word & 0xFFFFFF, nr_words) | int.from_bytes(header * nr_words, "little")
    return base.to_bytes(nr_words * 8, "little")[offset % 8 :][:length]

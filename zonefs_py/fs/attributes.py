"""What stat, statfs, readdir and setattr speak of."""

from __future__ import annotations

from typing import NamedTuple

KEEP = None
"""In `AttributeChanges`: leave as it is."""


class Attributes(NamedTuple):
    """What stat shows. ``size`` in bytes, ``blocks`` in sectors of 512 bytes, times in nanoseconds since 1970."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    block_size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class AttributeChanges(NamedTuple):
    """What setattr is to change; None leaves an attribute as it is. ``mode`` is permission bits only."""

    size: int | None = KEEP
    mode: int | None = KEEP
    uid: int | None = KEEP
    gid: int | None = KEEP
    atime_ns: int | None = KEEP
    mtime_ns: int | None = KEEP


class DirectoryEntry(NamedTuple):
    """One entry of a directory; ``next_offset`` is where a listing goes on after it."""

    name: bytes
    ino: int
    mode: int
    next_offset: int


class FilesystemStatistics(NamedTuple):
    """What statfs shows. ``blocks`` and ``blocks_free`` count blocks of ``block_size`` bytes."""

    block_size: int
    blocks: int
    blocks_free: int
    files: int
    fsid: int
    name_max: int

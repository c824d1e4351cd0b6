"""Write the initramfs: a cpio archive ("newc") with busybox, a few modules, and guest/init."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_REGULAR, _DIRECTORY = 0o100000, 0o040000


@dataclass(frozen=True)
class Entry:
    """One file of an archive: *mode* includes the type; *data* is the content."""

    name: str
    mode: int
    data: bytes = b""


def regular(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, _REGULAR | permissions, data)


def directory(name: str) -> Entry:
    """A directory; archives must have it before what lies in it."""
    return Entry(name, _DIRECTORY | 0o755)


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive as bytes, padded so that another one may follow. Equal entries give equal bytes."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        nlink = 2 if entry.mode & _DIRECTORY == _DIRECTORY else 1
        fields = (number, entry.mode, 0, 0, nlink, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    out += bytes(-len(out) % 512)
    return bytes(out)

"""Who may read what, by mode and owner: for the requests that the kernel does not check for us. Pure."""

from __future__ import annotations

from typing import NamedTuple

from zonefs_py.fs.file import Inode

READ = 0o4
SEARCH = 0o1


class Caller(NamedTuple):
    """Who asks: user, group and supplementary groups by number. User 0 may read and search everything."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


ROOT = Caller(0, 0)


def permits(inode: Inode, caller: Caller, bits: int) -> bool:
    """Whether *inode*'s mode lets *caller* do what *bits* (of others' three) stand for.

    As in the kernel the first class that fits decides: an owner without permission does not get that of others.
    """
    if caller.uid == 0:
        return True
    if caller.uid == inode.uid:
        mode = inode.mode >> 6
    elif inode.gid == caller.gid or inode.gid in caller.groups:
        mode = inode.mode >> 3
    else:
        mode = inode.mode
    return mode & bits == bits

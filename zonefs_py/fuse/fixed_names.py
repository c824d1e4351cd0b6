"""Handlers of a file system whose names nobody can make, remove or change; and how a handler's errors are answered."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from zonefs_py.errors import ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fuse.caller import process_of
from zonefs_py.fuse.door import NODE_NUMBER_SHIFT, NODE_OFFSET, ROOT_NODE, pyfuse3

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


def answering(handler: Handler) -> Handler:
    """Make a handler of a `FixedNames` raise nothing but FUSEError.

    Our errors become their errno, anything else is a bug, EIO.
    """

    @functools.wraps(handler)
    async def answer(self: FixedNames, *args: Any) -> Any:
        try:
            return await handler(self, *args)
        except ZonefsError as exc:
            self.note_refusal(handler.__name__, exc, args)
            raise pyfuse3.FUSEError(exc.errno) from None
        except Exception:
            self._failed = True
            log.exception("bug: %s failed", handler.__name__)
            raise pyfuse3.FUSEError(ZonefsError.errno) from None

    return cast(Handler, answer)


class FixedNames(pyfuse3.Operations):
    """Handlers that are refused whatever they are asked for, but for renaming a file to itself."""

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__()
        self._fs = filesystem
        self._files: dict[int, int] = {}
        """Inode numbers by handle."""
        self._failed = False
        """Whether a handler met an error that it did not expect."""

    def _ino(self, node: int) -> int:
        return self._fs.root if node == ROOT_NODE else (node & (1 << NODE_NUMBER_SHIFT) - 1) - NODE_OFFSET

    def note_refusal(self, name: str, exc: ZonefsError, args: tuple[Any, ...]) -> None:
        """Take note that the handler *name* of pyfuse3's was refused what it was called with."""
        log.debug("%s: %s: %s", name, exc.errno_name, exc)
        if name == "lookup":
            return  # shells look for many names
        context = args[-1] if isinstance(args[-1], pyfuse3.RequestContext) else None
        ino = None
        if name in ("open", "setattr", "getattr"):
            ino = self._ino(args[0])
        elif name in ("fsync", "release"):
            ino = self._files.get(args[0])
        process = process_of(context.pid if context else 0)
        self._fs.note_refusal(name, exc, ino, None, None, process.pid, process.name)

    @answering
    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @answering
    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @answering
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @answering
    async def symlink(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        target: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @answering
    async def link(
        self,
        inode: pyfuse3.InodeT,
        new_parent_inode: pyfuse3.InodeT,
        new_name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(new_parent_inode), new_name)

    @answering
    async def unlink(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        self._fs.refuse_remove(self._ino(parent_inode), name)

    @answering
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        self._fs.refuse_remove(self._ino(parent_inode), name)

    @answering
    async def rename(
        self,
        parent_inode_old: pyfuse3.InodeT,
        name_old: pyfuse3.FileNameT,
        parent_inode_new: pyfuse3.InodeT,
        name_new: pyfuse3.FileNameT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        self._fs.refuse_rename(self._ino(parent_inode_old), name_old, self._ino(parent_inode_new), name_new)

    @answering
    async def listxattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> list[pyfuse3.XAttrNameT]:
        return []

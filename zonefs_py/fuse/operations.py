"""pyfuse3 in, Filesystem out: node ids, flags, threads and the translation of errors. No rule of zonefs is here.

*Where a request runs.* The core is synchronous. A call that cannot wait (memory, the host's page cache) is made in
place, on trio's thread: a hop to a worker thread costs many times more than the call. A call that can wait (a device
that says so, a truncation, fsync) goes to a worker thread. While one does, later requests for the same file queue
behind it at the file's gate, in the order of their arrival: writes never overtake each other, and other files go on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar, cast

import trio

from zonefs_py.copy import abi
from zonefs_py.errors import InvalidRequest, UnknownIoctl, ZonefsError
from zonefs_py.fs import ioctl
from zonefs_py.fs.access import Caller
from zonefs_py.fs.attributes import AttributeChanges, Attributes
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fuse import door
from zonefs_py.fuse.door import NODE_OFFSET, ROOT_NODE, pyfuse3, split_handle

log = logging.getLogger(__name__)

CACHE_SECONDS = 86_400.0
"""How long the kernel may keep names and attributes. Names never change; what changes attributes other than a request
of the kernel's own (an error) is announced, see `Operations.attributes_changed`."""

WORKER_THREADS = 32
MOST_PER_REPLY = 1 << 30
"""Bytes of one copy_file_range: the reply has 32 bits, and a signal waits for the end of it."""
ENTRIES_AT_A_TIME = 128

R = TypeVar("R")
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


def _answering(handler: Handler) -> Handler:
    """Make a handler raise nothing but FUSEError: our errors become their errno, anything else is a bug, EIO."""

    @functools.wraps(handler)
    async def answer(self: Operations, *args: Any) -> Any:
        try:
            return await handler(self, *args)
        except ZonefsError as exc:
            log.debug("%s: %s: %s", handler.__name__, exc.errno_name, exc)
            raise pyfuse3.FUSEError(exc.errno) from None
        except Exception:
            self.failed = True
            log.exception("bug: %s failed", handler.__name__)
            raise pyfuse3.FUSEError(ZonefsError.errno) from None

    return cast(Handler, answer)


class Operations(pyfuse3.Operations):
    """The handlers of one mounted `Filesystem`."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__()
        self.failed = False
        """Whether a handler met an error that it did not expect: the process must say so when it ends."""
        self._fs = filesystem
        self._waits = filesystem.info.waits
        self._gates: dict[int, trio.Lock] = {}
        """Gates of the files that a worker thread is busy with, by inode number."""
        self._readings: Counter[int] = Counter()
        """How many copies read from a sequential file without holding its gate: a truncation waits for them."""
        self._files: dict[int, int] = {}
        """Inode numbers by handle."""
        self._closing: set[trio.Event] = set()
        """Files that were closed, while the device has yet to be told; each is set when it has been."""
        self.nursery: trio.Nursery | None = None
        """Where answers to requests that pyfuse3 does not know are worked out; None while nothing is served."""
        self._limiter = trio.CapacityLimiter(WORKER_THREADS)
        self._cache_limiter = trio.CapacityLimiter(WORKER_THREADS)
        """For threads that may wait for the kernel to read and write pages: that needs the workers above."""
        filesystem.on_change = self.attributes_changed

    # Threads

    async def _call(self, ino: int, function: Callable[..., R], *args: Any) -> R:
        """Call *function* for the file *ino*: in place if it cannot wait and nothing of that file is under way."""
        if not self._waits and ino not in self._gates and not self._readings[ino]:
            return function(*args)
        return await self._call_on_worker(ino, function, *args)

    async def _call_on_worker(self, ino: int, function: Callable[..., R], *args: Any) -> R:
        async with self._gate(ino):
            return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    async def _closed_before(self) -> None:
        """Wait until files that were closed before this request are closed on the device as well.

        close(2) waits for the kernel's zonefs, but not for FUSE. Who opens a zone next must find the last one free.
        """
        # Without explicit-open a close changes no zone, and a slow one is to hold up no other.
        if self._fs.options.explicit_open:
            for closing in list(self._closing):
                await closing.wait()

    @contextlib.asynccontextmanager
    async def _gate(self, ino: int) -> AsyncIterator[None]:
        """Hold the gate of the file *ino*; who comes later waits."""
        gate = self._gates.get(ino)
        if gate is None:
            gate = self._gates[ino] = trio.Lock()
        async with gate:
            try:
                yield
            finally:
                if not gate.statistics().tasks_waiting:
                    del self._gates[ino]

    def attributes_changed(self, ino: int) -> None:
        """Tell the kernel to ask again for the attributes of *ino*. Called in any thread."""
        self._invalidate(ino, attr_only=True)

    def _invalidate(self, ino: int, *, attr_only: bool) -> None:
        try:
            pyfuse3.invalidate_inode(pyfuse3.InodeT(self._node(ino)), attr_only=attr_only)
        except OSError as exc:
            # ENOENT: the kernel has forgotten the inode, which is as good.
            log.debug("inode %d: %s", ino, exc)

    # Nodes and attributes

    def _ino(self, node: int) -> int:
        return self._fs.root if node == ROOT_NODE else node - NODE_OFFSET

    def _node(self, ino: int) -> int:
        return ROOT_NODE if ino == self._fs.root else ino + NODE_OFFSET

    @staticmethod
    def _entry(attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(attributes.ino)
        entry.st_mode = pyfuse3.ModeT(attributes.mode)
        entry.st_nlink = attributes.nlink
        entry.st_uid = attributes.uid
        entry.st_gid = attributes.gid
        entry.st_size = attributes.size
        entry.st_blocks = attributes.blocks
        entry.st_blksize = attributes.block_size
        entry.st_atime_ns = attributes.atime_ns
        entry.st_mtime_ns = attributes.mtime_ns
        entry.st_ctime_ns = attributes.ctime_ns
        entry.entry_timeout = entry.attr_timeout = CACHE_SECONDS
        return entry

    @_answering
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.lookup(self._ino(parent_inode), name))

    @_answering
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        ino = self._ino(inode)
        return self._entry(await self._call(ino, self._fs.getattr, ino))

    @_answering
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        ino = self._ino(inode)
        changes = AttributeChanges(
            size=attr.st_size if fields.update_size else None,
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        # The kernel names a handle for ftruncate(2) only.
        change = functools.partial(self._fs.setattr, ino, changes, ctx.uid, by_handle=fh is not None)
        # Cutting a large file takes the host's file system a while.
        call = self._call
        if fields.update_size:
            await self._closed_before()
            call = self._call_on_worker
        return self._entry(await call(ino, change))

    @_answering
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        await self._closed_before()
        statistics = self._fs.statfs()
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = statistics.block_size
        answer.f_blocks = statistics.blocks
        answer.f_bfree = answer.f_bavail = statistics.blocks_free
        answer.f_files = statistics.files
        answer.f_ffree = answer.f_favail = 0
        answer.f_namemax = statistics.name_max
        return answer

    # Directories

    @_answering
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(self._ino(inode))

    @_answering
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        offset = start_id
        while entries := self._fs.readdir(fh, offset, ENTRIES_AT_A_TIME):
            for entry in entries:
                attributes = self._entry(self._fs.getattr(entry.ino))
                if not pyfuse3.readdir_reply(token, entry.name, attributes, entry.next_offset):
                    return
            offset = entries[-1].next_offset

    @_answering
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        pass

    @_answering
    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        raise InvalidRequest("a zonefs directory cannot be synchronised")

    # Open files

    @_answering
    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        ino = self._ino(inode)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            await self._closed_before()
        call = self._call_on_worker if flags & os.O_TRUNC else self._call
        handle = await call(ino, self._fs.open, ino, flags, ctx.uid)
        self._files[handle] = ino
        # A sequential file is never cached: what the device has is what is read, and the device answers a write. A
        # conventional file has a page cache, as kernel zonefs has for it: shared mappings need one. Not with O_DIRECT:
        # the kernel's direct I/O on a cached FUSE file does not take a short write at the end of the file for one.
        direct_io = self._fs.is_sequential(ino) or bool(flags & os.O_DIRECT)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=direct_io, keep_cache=False)

    @_answering
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        handle, direct, _, _ = split_handle(fh)
        return await self._call(self._files[handle], self._fs.read, handle, off, size, direct)

    @_answering
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        handle, direct, append, sync = split_handle(fh)
        if append:
            # The kernel has put its idea of the file's end there; what the application gave is lost.
            off = 0
        written = await self._call(self._files[handle], self._fs.write, handle, off, buf, direct, append, False)
        if sync and written:
            await trio.to_thread.run_sync(self._fs.fsync, handle, limiter=self._limiter)
        return written

    @_answering
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        # Not through the gate: the file stays usable while the host's disk works.
        await trio.to_thread.run_sync(self._fs.fsync, fh, limiter=self._limiter)

    @_answering
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        closing = trio.Event()
        self._closing.add(closing)
        try:
            await self._call(self._files.pop(fh), self._fs.release, fh)
        finally:
            self._closing.discard(closing)
            closing.set()

    # Copies

    def start_copy(
        self, request: int, source: int, source_offset: int, target: int, offset: int, length: int, flags: int
    ) -> None:
        """Start the answer to a copy_file_range request; the handler that the door calls."""
        if self.nursery is None:
            door.reply_error(request, ZonefsError.errno)
            return
        self.nursery.start_soon(self._copy, request, source, source_offset, target, offset, length, flags)

    async def _copy(
        self, request: int, source: int, source_offset: int, target: int, offset: int, length: int, flags: int
    ) -> None:
        # The kernel takes ENOSYS, EOPNOTSUPP and EXDEV for "do it by read and write yourself, and report success": none
        # of the core's errors has these numbers, and a bug is EIO.
        copy = self._copy_on_worker(source, source_offset, target, offset, length, flags)
        await self._answer("copy_file_range", request, copy, door.reply_written)

    async def _answer(
        self, name: str, request: int, answer: Coroutine[Any, Any, R], reply: Callable[[int, R], None]
    ) -> None:
        """Answer a request that came through the door by *reply* with what *answer* gives, or with its error."""
        try:
            result = await answer
        except ZonefsError as exc:
            log.debug("%s: %s: %s", name, exc.errno_name, exc)
            door.reply_error(request, exc.errno)
        except Exception:
            self.failed = True
            log.exception("bug: %s failed", name)
            door.reply_error(request, ZonefsError.errno)
        else:
            reply(request, result)

    async def _copy_on_worker(
        self, source: int, source_offset: int, target: int, offset: int, length: int, flags: int
    ) -> int:
        if flags:
            raise InvalidRequest(f"copy_file_range with flags {flags}")
        files = {self._files[source], self._files[target]}
        arguments = (source, source_offset, target, offset, min(length, MOST_PER_REPLY))
        return await self._copy_between(self._files[target], files, self._fs.copy_range, *arguments)

    async def _copy_between(self, target: int, files: Iterable[int], copy: Callable[..., R], *arguments: Any) -> R:
        """Call *copy*, which copies to *target* from among *files*, on a worker.

        The gates of sequential sources are passed, but not held: the core holds their locks for a moment only.
        """
        read = [ino for ino in files if ino != target and self._fs.is_sequential(ino)]
        async with contextlib.AsyncExitStack() as gates:
            # In the order of the zones, as the core takes its locks.
            passed = []
            for ino in sorted({target, *files}):
                gate = await self._entered(gates, ino)
                if ino in read:
                    passed.append(gate)
            self._readings.update(read)
            try:
                for gate in passed:
                    await gate.aclose()
                return await trio.to_thread.run_sync(copy, *arguments, limiter=self._limiter)
            finally:
                self._readings.subtract(read)
                self._readings += Counter()  # drops what is 0

    async def _entered(self, gates: contextlib.AsyncExitStack, ino: int) -> contextlib.AsyncExitStack:
        """Hold the gate of *ino* until the end of *gates*, or of what is returned if that is closed before."""
        own = await gates.enter_async_context(contextlib.AsyncExitStack())
        await own.enter_async_context(self._gate(ino))
        return own

    def start_ioctl(
        self, request: int, handle: int, command: int, flags: int, data: bytes, size: int, uid: int, gid: int, pid: int
    ) -> None:
        """Start the answer to an ioctl; the handler that the door calls. Of ours there is one: the copy of ranges."""
        if flags & door.IOCTL_DIR or not abi.is_copy(command):
            door.reply_error(request, UnknownIoctl.errno)
        elif self.nursery is None:
            door.reply_error(request, ZonefsError.errno)
        else:
            copy = self._copy_ranges(handle, data, uid, gid, pid)
            self.nursery.start_soon(self._answer, "copy ioctl", request, copy, door.reply_ioctl)

    async def _copy_ranges(self, handle: int, data: bytes, uid: int, gid: int, pid: int) -> bytes:
        copy = abi.parse_request(data)
        target = self._files[handle]
        files = {target: self._fs.is_sequential(target)}
        for source in copy.sources:
            # What is no file of ours, the core will refuse.
            with contextlib.suppress(ZonefsError):
                files[source.inode] = self._fs.is_sequential(source.inode)
        # The kernel does nothing for an ioctl of what it does for copy_file_range. Before: what a mapping has changed
        # must be on the device. After: the destination's pages are stale, and its size and the times are new. Dropping
        # pages waits for requests that are under way for them, which wait for the gates: so never hold one meanwhile.
        cached = [ino for ino, sequential in files.items() if not sequential]
        if cached:
            await self._forget(cached)
        answer = await self._copy_between(target, files, self._copy_ranges_for, handle, data, copy, uid, gid, pid)
        await self._forget([target], attributes_of=files)
        return answer

    def _copy_ranges_for(self, handle: int, data: bytes, copy: abi.CopyRequest, uid: int, gid: int, pid: int) -> bytes:
        groups: frozenset[int] = frozenset()
        if uid:
            # Without a /proc entry (another PID namespace) the caller has no groups that we could know of.
            with contextlib.suppress(OSError):
                groups = frozenset(pyfuse3.get_sup_groups(pid))
        return ioctl.answer_copy(self._fs, handle, data, copy, Caller(uid, gid, groups))

    async def _forget(self, inos: Iterable[int], attributes_of: Iterable[int] = ()) -> None:
        """Have the kernel write back and forget all pages of *inos*, and the attributes of *attributes_of* too."""

        def forget() -> None:
            for ino in inos:
                self._invalidate(ino, attr_only=False)
            for ino in attributes_of:
                self._invalidate(ino, attr_only=True)

        await trio.to_thread.run_sync(forget, limiter=self._cache_limiter)

    # Names are as they are

    @_answering
    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @_answering
    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @_answering
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @_answering
    async def symlink(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        target: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(parent_inode), name)

    @_answering
    async def link(
        self,
        inode: pyfuse3.InodeT,
        new_parent_inode: pyfuse3.InodeT,
        new_name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self._fs.refuse_create(self._ino(new_parent_inode), new_name)

    @_answering
    async def unlink(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        self._fs.refuse_remove(self._ino(parent_inode), name)

    @_answering
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        self._fs.refuse_remove(self._ino(parent_inode), name)

    @_answering
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

    @_answering
    async def listxattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> list[pyfuse3.XAttrNameT]:
        return []

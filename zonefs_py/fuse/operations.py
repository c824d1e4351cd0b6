"""pyfuse3 in, Filesystem out: node ids, flags, threads and the translation of errors. No rule of zonefs is here.

*Where a request runs.* The core is synchronous. A call that cannot wait (memory, the host's page cache) is made in
place, on trio's thread: a hop to a worker thread costs many times more than the call. A call that can wait (a device
that says so, a truncation, fsync) goes to a worker thread. While one does, later requests for the same file queue
behind it at the file's gate, in the order of their arrival: writes never overtake each other, reads run beside each
other, and other files go on. Attributes are memory: to look at them waits for nothing.

*No lock of a file is waited for in place.* Gates know of requests. Others take these locks, too, and may keep them for
long: a zone operation by the control socket, the repair after an fsync, a power cut. So what is called in place are the
core's ``..._now``, which give up if the lock is not free: then the request goes to a worker, as one that can wait.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import trio

from zonefs_py.copy import abi
from zonefs_py.errors import (
    ActiveZonesExhausted,
    InvalidRequest,
    OpenZonesExhausted,
    StaleNode,
    TooManyWriteOpenFiles,
    UnknownIoctl,
    ZonefsError,
)
from zonefs_py.fs import ioctl
from zonefs_py.fs.access import Caller
from zonefs_py.fs.attributes import AttributeChanges, Attributes
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.power import Announce, ViewChange
from zonefs_py.fuse import door
from zonefs_py.fuse.announcer import Announcer
from zonefs_py.fuse.caller import process_of
from zonefs_py.fuse.door import NODE_NUMBER_SHIFT, pyfuse3
from zonefs_py.fuse.fixed_names import FixedNames, answering
from zonefs_py.fuse.gates import Gates, Passage
from zonefs_py.fuse.kernel_cache import KernelCache
from zonefs_py.fuse.passthrough import OpenMode, Passthrough
from zonefs_py.fuse.workers import Workers

log = logging.getLogger(__name__)

CACHE_SECONDS = 86_400.0
"""How long the kernel may keep names and attributes. Names never change; what changes attributes other than a request
of the kernel's own (an error) is announced, see `Announcer.attributes_changed`."""

READS_TOGETHER = 16
"""Calls of one file that can be in worker threads at a time, if they only read."""
SPARE_THREADS = 64
"""Worker threads that files can have beyond their first, all of them together."""
BUSY_FILES = 512
"""Files that can have a call in a worker thread at a time. Only if the device held up that many would others wait."""
MOST_PER_REPLY = 1 << 30
"""Bytes of one copy_file_range: the reply has 32 bits, and a signal waits for the end of it."""
ENTRIES_AT_A_TIME = 128

EXHAUSTED = (TooManyWriteOpenFiles, OpenZonesExhausted, ActiveZonesExhausted)
"""What may be otherwise when a file has been closed."""

R = TypeVar("R")
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])


class About(NamedTuple):
    """What a request is about, for who asks later why it was refused: file, offset and length in bytes."""

    ino: int | None
    offset: int | None
    length: int | None


NOTHING = About(None, None, None)


class Operations(FixedNames):
    """The handlers of one mounted `Filesystem`."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, filesystem: Filesystem, passthrough: Passthrough) -> None:
        super().__init__(filesystem)
        self._passthrough = passthrough
        self.kernel = KernelCache(filesystem, passthrough)
        self._announcer = Announcer(filesystem, passthrough, self.kernel)
        self._waits = filesystem.info.waits
        self._gates = Gates(READS_TOGETHER, SPARE_THREADS)
        """Of the files that worker threads are busy with: whose turn it is, and who comes after."""
        self._flushes = Gates(READS_TOGETHER, SPARE_THREADS)
        """The same for fsync, which holds up nothing else of its file."""
        self._readings: Counter[int] = Counter()
        """How many copies read from a sequential file without holding its gate: a truncation waits for them."""
        self._numbers: dict[int, int] = {}
        """Numbers of the nodes that files were opened by, by handle."""
        self._closing: set[trio.Event] = set()
        """Files that were closed, while the device has yet to be told; each is set when it has been."""
        self._one_closed = trio.Event()
        """Set, and replaced, whenever one of these is."""
        self._nr_stuck = 0
        """How many calls wait until somebody lets them go on."""
        self._patience: set[trio.CancelScope] = set()
        """Of those who wait, but for no call that is stuck."""
        self._no_view: trio.Event | None = None
        """Set when there are names and attributes again; None if there are."""
        self._unsettled: trio.Event | None = None
        """Set when files can be opened again, because the kernel knows what they are now; None if they can."""
        # Gates and flushes each have spare threads, and each file its first in either.
        self._workers = Workers(2 * (BUSY_FILES + SPARE_THREADS))
        filesystem.on_change = self._announcer.attributes_changed
        filesystem.on_withdrawn = self._announcer.withdrawn
        filesystem.on_waits = self.waits_changed
        filesystem.until_closed = self.until_closed
        filesystem.around_power = self.around_power
        filesystem.device.watch_stuck(self.stuck_changed)

    @property
    def failed(self) -> bool:
        """Whether a handler met an error that it did not expect: the process must say so when it ends."""
        return self._failed or self._announcer.failed

    @property
    def nursery(self) -> trio.Nursery | None:
        """Where answers to requests that pyfuse3 does not know are worked out; None while nothing is served."""
        return self._announcer.nursery

    @nursery.setter
    def nursery(self, nursery: trio.Nursery | None) -> None:
        self._announcer.nursery = nursery

    # Threads

    def waits_changed(self, waits: bool) -> None:
        """Take note of whether calls of the device may wait from now on. Called in any thread but trio's.

        When it returns, no call that must not wait is under way in trio's thread.
        """

        def change() -> None:
            self._waits = waits

        self._on_our_thread(change)

    def _on_our_thread(self, function: Callable[[], R]) -> R | None:
        """Call *function* on trio's thread, from another one; return what it gives. None if nothing is served."""
        try:
            if pyfuse3.trio_token is None:
                return function()
            return trio.from_thread.run_sync(function, trio_token=pyfuse3.trio_token)
        except trio.RunFinishedError:
            log.debug("nothing is served any more")
            return None

    def stuck_changed(self, stuck: bool) -> None:
        """Take note that a call is stuck, or that one is not any more. Called in any thread; does not wait."""
        if pyfuse3.trio_token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                pyfuse3.trio_token.run_sync_soon(self._count_stuck, 1 if stuck else -1)

    def _count_stuck(self, more: int) -> None:
        self._nr_stuck += more
        if self._nr_stuck:
            for scope in self._patience:
                scope.cancel()

    def end(self) -> None:
        """Let no call of the device wait any more: nothing is served from now on, and this process is to end."""
        self._fs.device.abandon()
        self._announcer.end()

    # Power cuts

    @contextlib.contextmanager
    def around_power(self) -> Iterator[Announce]:
        """See `Filesystem.around_power`: requests that ask what there is wait meanwhile. For any thread but trio's.

        Requests on open files do not: they are done before the power is cut, or fail.
        """

        def freeze() -> None:
            self._no_view = trio.Event()
            self._unsettled = trio.Event()

        self._on_our_thread(freeze)
        try:
            yield self._take_view
        finally:
            self._on_our_thread(self._settle)

    def _settle(self) -> None:
        self._show_view()
        if self._unsettled is not None:
            self._unsettled.set()
            self._unsettled = None

    def _show_view(self) -> None:
        if self._no_view is not None:
            self._no_view.set()
            self._no_view = None

    def _take_view(self, change: ViewChange) -> None:
        """Have the kernel forget what files were, and find that those which are open are gone."""

        def show() -> set[int]:
            # The kernel asks for names and attributes in what follows.
            self._show_view()
            return set(self._files.values())

        opened = self._on_our_thread(show) or set()
        for ino in opened:
            # Pages that were changed are written back to us first: that fails, and so nothing of them is left.
            self.kernel.forget(ino, attr_only=False)
            if not change.dead:
                for _ in self._passthrough.take_back(ino):
                    self.kernel.look_up_again(ino)
        for ino in (*self._fs.directories, *change.seen):
            self.kernel.forget(ino, attr_only=True)
        for ino in change.resized:
            if ino not in opened:
                self._announcer.refresh(ino)

    async def _viewed(self) -> None:
        """Wait while there are no names and attributes."""
        while self._no_view is not None:
            await self._no_view.wait()

    async def _settled(self) -> None:
        """Wait while files cannot be opened."""
        while self._unsettled is not None:
            await self._unsettled.wait()

    async def _call(self, ino: int, now: Callable[[], bool], function: Callable[[], object]) -> None:
        """Call *now* for the file *ino*, in place, if nothing of that file is under way; or *function* on a worker.

        *now* does what *function* does, but it waits for nothing: it returns whether it was done.
        """
        if not (self._is_free(ino) and now()):
            await self._call_on_worker(ino, function)

    def _is_free(self, ino: int) -> bool:
        """Whether a call for the file *ino* cannot wait, as far as other requests for it and the device are concerned.

        Somebody else may have its lock.
        """
        return not self._waits and ino not in self._gates.busy and ino not in self._readings

    def _call_on_worker(self, ino: int, function: Callable[..., R], *args: Any) -> Coroutine[Any, Any, R]:
        """Call *function* in a worker thread, when it is the turn of who calls this now, and nothing else's."""
        return self._call_in_turn(self._gates.alone([ino]), function, *args)

    def _read_on_worker(self, ino: int, function: Callable[..., R], *args: Any) -> Coroutine[Any, Any, R]:
        """Do the same with a *function* that only reads: others like it may run beside it."""
        return self._call_in_turn(self._gates.together([ino]), function, *args)

    async def _call_in_turn(self, turn: Passage, function: Callable[..., R], *args: Any) -> R:
        async with turn:
            return await self._workers.call(self._announcer.work, function, *args)

    async def _flush(self, handle: int) -> None:
        # Not through the gate: the file stays usable while the disk works.
        await self._call_in_turn(self._flushes.together([self._files[handle]]), self._fs.fsync, handle)

    async def _closed_before(self) -> None:
        """Wait until files that were closed before this request are closed on the device as well.

        close(2) waits for the kernel's zonefs, but not for FUSE. Who opens a zone next must find the last one free.
        """
        if self._awaits_closed():
            for closing in list(self._closing):
                await closing.wait()

    async def _unless_stuck(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await *wait*, but not while a call is stuck: that would keep those away who could release it."""
        if self._nr_stuck:
            return
        with trio.CancelScope() as scope:
            self._patience.add(scope)
            try:
                await wait()
            finally:
                self._patience.discard(scope)

    def until_closed(self) -> None:
        """See `Filesystem.until_closed`. For any thread but trio's."""
        if pyfuse3.trio_token is not None:
            with contextlib.suppress(trio.RunFinishedError, trio.Cancelled):
                trio.from_thread.run(self._unless_stuck, self._closed_before, trio_token=pyfuse3.trio_token)

    def _awaits_closed(self) -> bool:
        # Without explicit-open a close changes no zone.
        return bool(self._closing) and self._fs.options.explicit_open

    async def _with_room(self, attempt: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Do *attempt*; if it lacks open or active zones, again whenever a file is closed that was let go of before.

        So a close that takes long holds up only who needs what it sets free.
        """
        closing = set(self._closing) if self._awaits_closed() else set()
        while True:
            # What is closed from here on may be too late for this attempt.
            left, one_closed = closing & self._closing, self._one_closed
            try:
                return await attempt()
            except EXHAUSTED:
                if not left:
                    raise
            await one_closed.wait()

    def _in_place(self, name: str, request: int, result: R, reply: Callable[[int, R], None]) -> bool:
        """Whether *result* can be the answer now. If not, *reply* is called with it, after `Announcer.announced`."""
        if not self._announcer.changed_in_place:
            return True

        async def answer() -> R:
            return result

        changed, self._announcer.changed_in_place = self._announcer.changed_in_place, set()
        self._announcer.changed |= changed
        self._start(name, request, answer(), reply, inos=changed)
        return False

    def _refused(self, name: str, request: int, exc: Exception, about: About) -> int | None:
        """What a handler returns that has met *exc* with what the request was *about*."""
        number = self._errno(name, exc, request, about)
        return -number if self._in_place(name, request, number, door.reply_error) else None

    # Nodes and attributes

    def _entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        number, generation = self._passthrough.node(attributes.ino)
        entry = pyfuse3.EntryAttributes()
        entry.generation = number << NODE_NUMBER_SHIFT | generation
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
        entry.entry_timeout = CACHE_SECONDS
        # Of a node that the kernel is only about to learn of, it cannot be told meanwhile that these are old.
        entry.attr_timeout = 0.0 if self._passthrough.is_renumbered(attributes.ino) else CACHE_SECONDS
        return entry

    @answering
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._viewed()
        return self._entry(self._fs.lookup(self._ino(parent_inode), name))

    @answering
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        await self._viewed()
        ino = self._ino(inode)
        # Not through the gate: stat(2) waits for nobody, and who holds a gate may wait for the kernel to ask this.
        return self._entry(self._fs.getattr(ino))

    @answering
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        # Not longer: while it truncates a file the kernel may write no pages of it, and those who settle wait for that.
        await self._viewed()
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
        change = functools.partial(self._fs.setattr, ino, changes, ctx.uid, handle=fh)
        change_now = functools.partial(self._fs.setattr_now, ino, changes, ctx.uid, handle=fh)
        # Cutting a large file takes the host's file system a while.
        try:
            if fields.update_size:
                await self._with_room(lambda: self._call_on_worker(ino, change))
                await self._announcer.changed_by(ino, inode >> NODE_NUMBER_SHIFT)
            else:
                await self._call(ino, change_now, change)
                self.kernel.forget(ino, attr_only=True, but=inode >> NODE_NUMBER_SHIFT)
        finally:
            self._announcer.changed |= self._announcer.changed_in_place
            self._announcer.changed_in_place.clear()
            await self._announcer.announced([ino])
        # Not what the change returned: somebody may have written by another node meanwhile.
        return self._entry(self._fs.getattr(ino))

    @answering
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        # Who asks the daemon begins with this: for no zone that is being closed or written, however long that takes.
        await self._unless_stuck(self._viewed)
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

    @answering
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        await self._viewed()
        self._fs.getattr(self._ino(inode))
        return pyfuse3.FileHandleT(self._ino(inode))

    @answering
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        await self._viewed()
        offset = start_id
        while entries := self._fs.readdir(fh, offset, ENTRIES_AT_A_TIME):
            for entry in entries:
                attributes = self._entry(self._fs.getattr(entry.ino))
                if not pyfuse3.readdir_reply(token, entry.name, attributes, entry.next_offset):
                    return
            offset = entries[-1].next_offset

    @answering
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        pass

    @answering
    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        raise InvalidRequest("a zonefs directory cannot be synchronised")

    # Open files

    @answering
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        try:
            await self._flush(fh)
        finally:
            await self._announcer.announced([self._files[fh]])

    @answering
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        await self._release(self._let_go(fh), fh)

    async def _release(self, ino: int, handle: int) -> None:
        closing = trio.Event()
        self._closing.add(closing)
        try:
            await self._call(
                ino,
                functools.partial(self._fs.release_now, handle),
                functools.partial(self._fs.release, handle),
            )
            self._announcer.changed |= self._announcer.changed_in_place
            self._announcer.changed_in_place.clear()
            await self._announcer.announced([ino])
        finally:
            self._closing.discard(closing)
            closing.set()
            self._one_closed.set()
            self._one_closed = trio.Event()

    def _release_soon(self, ino: int, handle: int) -> None:
        """Release *handle*, of which the kernel will never know: in its turn, as that may wait for the device."""

        async def release() -> None:
            try:
                await self._release(ino, handle)
            except ZonefsError as exc:
                log.debug("inode %d: %s", ino, exc)
            except Exception:
                self._failed = True
                log.exception("bug: release failed")

        if self.nursery is not None:
            self.nursery.start_soon(release)

    # Requests that come through the door: the handlers that it calls

    def _errno(self, name: str, exc: Exception, request: int, about: About = NOTHING) -> int:
        """The errno that answers *exc*: ours have one, anything else is a bug, EIO. *request* is not answered yet."""
        if isinstance(exc, ZonefsError):
            log.debug("%s: %s: %s", name, exc.errno_name, exc)
            if not isinstance(exc, StaleNode):  # which no caller ever sees
                process = process_of(door.caller(request))
                self._fs.note_refusal(name, exc, *about, process.pid, process.name)
            return exc.errno
        self._failed = True
        log.error("bug: %s failed", name, exc_info=exc)
        return ZonefsError.errno

    def _start(
        self,
        name: str,
        request: int,
        answer: Coroutine[Any, Any, R],
        reply: Callable[[int, R], None],
        about: About = NOTHING,
        inos: Iterable[int] = (),
    ) -> int | None:
        """Have *request*, on the files *inos*, answered later by *reply* with what *answer* gives, or its error."""
        if self.nursery is None:
            answer.close()
            return -ZonefsError.errno
        self.nursery.start_soon(self._answer, name, request, answer, reply, about, inos)
        return None

    async def _answer(
        self,
        name: str,
        request: int,
        answer: Coroutine[Any, Any, R],
        reply: Callable[[int, R], None],
        about: About,
        inos: Iterable[int],
    ) -> None:
        try:
            result = await answer
        except Exception as exc:
            number = self._errno(name, exc, request, about)
            await self._announcer.announced(inos)
            door.reply_error(request, number)
        else:
            await self._announcer.announced(inos)
            reply(request, result)

    def on_open(self, request: int, node: int, flags: int, uid: int) -> int | None:
        """Answer an open of a file: in place, unless it truncates."""
        if self._unsettled is not None and self.nursery is not None:
            self.nursery.start_soon(self._open_settled, request, node, flags, uid)
            return None
        ino, number = self._ino(node), node >> NODE_NUMBER_SHIFT
        try:
            sequential = self._fs.is_sequential(ino)
            self._passthrough.check_open(ino, number, flags, sequential=sequential)
            waits = bool(flags & os.O_TRUNC) or (bool(flags & os.O_ACCMODE) and self._awaits_closed())
            # The kernel may have just learnt of another node: what was written while it did, it may not know.
            waits = waits or self._passthrough.is_renumbered(ino)
            handle = self._fs.open_now(ino, flags, uid) if not waits and self._is_free(ino) else None
        except Exception as exc:
            return self._refused("open", request, exc, About(ino, None, None))
        if handle is not None:
            return self._reply_open(request, ino, number, handle, flags, sequential)

        def reply(request: int, handle: int) -> None:
            error = self._reply_open(request, ino, number, handle, flags, sequential)
            if error is not None:
                door.reply_error(request, -error)

        return self._start("open", request, self._open_on_worker(ino, number, flags, uid), reply, inos=[ino])

    async def _open_settled(self, request: int, node: int, flags: int, uid: int) -> None:
        await self._settled()
        number = self.on_open(request, node, flags, uid)
        if number is not None:
            door.reply_error(request, -number)

    async def _open_on_worker(self, ino: int, number: int, flags: int, uid: int) -> int:
        handle = await self._with_room(lambda: self._call_on_worker(ino, self._fs.open, ino, flags, uid))
        if flags & os.O_TRUNC:
            await self._announcer.changed_by(ino, number)
        elif self._passthrough.is_renumbered(ino):
            await self._announcer.in_kernel(self._announcer.refresh, ino)
        return handle

    def _reply_open(self, request: int, ino: int, number: int, handle: int, flags: int, sequential: bool) -> int | None:
        """Answer an open by *handle*; or return the errno, negative, that is to be the answer."""
        try:
            mode = self._begin_use(ino, number, handle, flags, sequential)
        except Exception as exc:
            self._release_soon(ino, handle)
            return -self._errno("open", exc, request, About(ino, None, None))
        # From here on there is no request any more, whether the answer found somebody or not.
        if not door.reply_open(request, handle, mode.direct_io, mode.backing):
            try:
                # Whoever asked is gone, and so nobody will release it.
                self._release_soon(self._let_go(handle), handle)
            except Exception:
                self._failed = True
                log.exception("bug: a file whose open was answered too late stays open")
        return None

    def _begin_use(self, ino: int, number: int, handle: int, flags: int, sequential: bool) -> OpenMode:
        mode = self._passthrough.open(ino, number, handle, flags, sequential=sequential)
        if not mode.backing and self._fs.is_offline(ino):
            # Its size is 0: the page cache would answer reads by the end of the file; they are to be refused.
            mode = OpenMode(True, 0)
        self._files[handle] = ino
        self._numbers[handle] = number
        if mode.passes_by and self._fs.count_as_read(handle):
            # The kernel does not see that as the read that it knows of.
            self.kernel.forget(ino, attr_only=True)
        return mode

    def _let_go(self, handle: int) -> int:
        """Forget *handle*; return its file's inode number."""
        self._passthrough.release(handle)
        del self._numbers[handle]
        return self._files.pop(handle)

    def on_read(
        self, request: int, handle: int, offset: int, size: int, direct: bool, buffer: memoryview
    ) -> int | None:
        """Answer a read: in place if no disk is needed for it."""
        ino = self._files[handle]
        if self._is_free(ino):
            try:
                done = self._fs.read_now(handle, offset, buffer, direct)
            except Exception as exc:
                return self._refused("read", request, exc, About(ino, offset, size))
            if done is not None and not self._announcer.changed_in_place:
                return done
            if done is not None:
                self._in_place("read", request, bytes(buffer[:done]), door.reply_data)
                return None
        read = self._read_on_worker(ino, self._fs.read, handle, offset, size, direct)
        return self._start("read", request, read, door.reply_data, About(ino, offset, size), [ino])

    def on_write(
        self, request: int, handle: int, offset: int, data: memoryview, direct: bool, append: bool, sync: bool
    ) -> int | None:
        """Answer a write: in place, into the host's page cache, unless it must be durable."""
        ino = self._files[handle]
        if append:
            # The kernel has put its idea of the file's end there; what the application gave is lost.
            offset = 0
        if not sync and self._is_free(ino) and not self._passthrough.is_split(ino):
            try:
                written = self._fs.write_now(handle, offset, data, direct, append)
            except Exception as exc:
                return self._refused("write", request, exc, About(ino, None if append else offset, len(data)))
            if written is not None and not self._announcer.changed_in_place:
                return written
            if written is not None:
                self._in_place("write", request, written, door.reply_written)
                return None
        write = self._call_on_worker(ino, self._fs.write, handle, offset, bytes(data), direct, append, False)
        about = About(ino, None if append else offset, len(data))
        answer = self._after_write(write, handle, sync=sync)
        return self._start("write", request, answer, door.reply_written, about, [ino])

    async def _after_write(self, write: Coroutine[Any, Any, int], handle: int, *, sync: bool) -> int:
        written = await write
        await self._announcer.changed_by(self._files[handle], self._numbers[handle])
        if sync and written:
            # No longer in the file's turn.
            await self._flush(handle)
        return written

    def on_copy(
        self, request: int, source: int, source_offset: int, target: int, offset: int, length: int, flags: int
    ) -> int | None:
        """Answer a copy_file_range request: in place if it is a reflink of what is on the disk."""
        # The kernel takes ENOSYS, EOPNOTSUPP and EXDEV for "do it by read and write yourself, and report success": none
        # of the core's errors has these numbers, and a bug is EIO.
        if flags:
            return -InvalidRequest.errno
        files = {self._files[source], self._files[target]}
        # The kernel has seen to it that the destination does not append now. How it was opened says nothing of that.
        arguments = (source, source_offset, target, offset, min(length, MOST_PER_REPLY), False)
        if all(map(self._is_free, files)) and not self._passthrough.is_split(self._files[target]):
            try:
                copied = self._fs.copy_range_now(*arguments)
            except Exception as exc:
                return self._refused("copy_file_range", request, exc, About(self._files[target], offset, length))
            if copied is not None:
                return copied if self._in_place("copy_file_range", request, copied, door.reply_written) else None
        # A request to copy does not say whether the result must be durable, as one to write does.
        sync = self._fs.is_synchronous(target)
        copy = self._copy_between(self._files[target], files, self._fs.copy_range, *arguments, False)
        about = About(self._files[target], offset, length)
        answer = self._after_write(copy, target, sync=sync)
        return self._start("copy_file_range", request, answer, door.reply_written, about, files)

    def _copy_between(
        self, target: int, files: Iterable[int], copy: Callable[..., R], *arguments: Any
    ) -> Coroutine[Any, Any, R]:
        """Call *copy*, which copies to *target* from among *files*, on a worker, when it is its turn.

        The gates of sequential sources are passed, but not held: the core holds their locks for a moment only.
        """
        read = {ino for ino in files if ino != target and self._fs.is_sequential(ino)}
        held = self._gates.alone({target, *files} - read)
        return self._copy_in_turn(held, self._gates.together(read), read, copy, *arguments)

    async def _copy_in_turn(
        self,
        held: Passage,
        passed: Passage,
        read: Iterable[int],
        copy: Callable[..., R],
        *arguments: Any,
    ) -> R:
        # First: who is let in at a source's gate keeps out who comes to write it, and the other gate may take its time.
        try:
            async with passed:
                self._readings.update(read)
        except BaseException:
            held.give_up()
            raise
        try:
            async with held:
                return await self._workers.call(self._announcer.work, copy, *arguments)
        finally:
            self._readings.subtract(read)
            self._readings += Counter()  # drops what is 0

    def on_ioctl(
        self, request: int, handle: int, command: int, flags: int, data: bytes, size: int, uid: int, gid: int, pid: int
    ) -> int | None:
        """Answer an ioctl. Of ours there is one: the copy of ranges."""
        if flags & door.IOCTL_DIR or not abi.is_copy(command):
            return -UnknownIoctl.errno
        copy = self._copy_ranges(handle, data, uid, gid, pid)
        return self._start("copy ioctl", request, copy, door.reply_ioctl, About(self._files[handle], None, None))

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
        for ino, sequential in files.items():
            if not sequential:
                await self._announcer.drop(ino)
        try:
            answer = await self._copy_between(target, files, self._copy_ranges_for, handle, data, copy, uid, gid, pid)
        finally:
            await self._announcer.announced(files)
        await self._announcer.drop(target, attributes_of=files, size_of=target if files[target] else None)
        return answer

    def _copy_ranges_for(self, handle: int, data: bytes, copy: abi.CopyRequest, uid: int, gid: int, pid: int) -> bytes:
        groups: frozenset[int] = frozenset()
        if uid:
            # Without a /proc entry (another PID namespace) the caller has no groups that we could know of.
            with contextlib.suppress(OSError):
                groups = frozenset(pyfuse3.get_sup_groups(pid))

        def refused(exc: ZonefsError) -> None:
            self._fs.note_refusal("copy ioctl", exc, self._files[handle], copy.offset, None, *process_of(pid))

        return ioctl.answer_copy(self._fs, handle, data, copy, Caller(uid, gid, groups), refused)

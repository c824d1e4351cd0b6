"""Who sees to it that the kernel knows what changed in a file other than by a request for it, before that is answered.

In a thread that answers requests nothing here is waited for: what changed is set aside, and `Announcer.announced` is
awaited before the answer. Other threads wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, TypeVar

import trio

from zonefs_py.errors import BadHandle, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fuse.door import pyfuse3
from zonefs_py.fuse.gates import Gates
from zonefs_py.fuse.kernel_cache import KernelCache
from zonefs_py.fuse.passthrough import Passed, Passthrough, host_file_of

log = logging.getLogger(__name__)

MOST_THREADS = 1024
"""Threads that can wait for the kernel at a time. A file whose zone is stuck has few of them."""
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.1
"""Seconds before the kernel is told a size again that it did not take; doubled each time."""
TIMES_TO_ASK = 7
"""How often it is asked whether a file may still be read past us, until there is an answer: for some six seconds."""
ROUNDS_TO_ASK = 1000
"""How often others are asked in the place of who has just closed the file."""

R = TypeVar("R")


class Answer(Enum):
    """Whether who reads a file past us may go on."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()
    NOBODY = auto()
    """Those who read it have closed it, maybe after others came."""


class Announcer:
    """Tells the kernel of one mount."""

    def __init__(self, filesystem: Filesystem, passthrough: Passthrough, kernel: KernelCache) -> None:
        """To be made in the thread that will answer requests."""
        self._fs = filesystem
        self._passthrough = passthrough
        self.kernel = kernel
        self.failed = False
        """Whether there was an error that nobody expected."""
        self.nursery: trio.Nursery | None = None
        """Where goes what nobody waits for; None while nothing is served."""
        self._local = threading.local()
        """Whether a thread is a worker of ours, busy with a request: ``is_worker``."""
        self._thread = threading.get_ident()
        """trio's, which answers requests: what waits for one must not run there."""
        self._asking: set[trio.CancelScope] = set()
        """Of those who wait for the kernel to make requests of us; see `in_kernel`."""
        self._has_ended = False
        """Whether nothing is served any more."""
        self.changed: set[int] = set()
        """Files that worker threads have changed, of which the kernel may not know all yet; see `announced`."""
        self.changed_in_place: set[int] = set()
        """Those that the request which is being worked on in place has changed."""
        self._announcing: dict[int, trio.Event] = {}
        """Those that the kernel is just learning of; each is set when it has."""
        self._limiter = trio.CapacityLimiter(MOST_THREADS)
        """Not that of worker threads: who waits for the kernel to read and write pages needs these."""
        self._dropping = Gates(1, 0)
        """Files whose pages the kernel is dropping for a copy: one call each, for those of a stuck zone are stuck."""
        self._untaken: set[int] = set()
        """Files of which the kernel did not take a size: see `refresh`."""
        self._unsure: Counter[int] = Counter()
        """Files of which it could not be told whether they may be read past us on, and how often: see `_withdraw`."""

    def end(self) -> None:
        """Let nobody wait for the kernel any more: nothing is served from now on."""
        self._has_ended = True
        for scope in self._asking:
            scope.cancel()

    def work(self, function: Callable[..., R], *args: Any) -> R:
        """Call *function*, which works on a request, in this thread, which does not answer requests."""
        self._local.is_worker = True
        try:
            return function(*args)
        finally:
            self._local.is_worker = False

    def attributes_changed(self, ino: int) -> None:
        """Tell the kernel to ask again for the attributes of *ino*. Called in any thread.

        On return it knows them, but in a thread that works on a request: then it is before that is answered.
        """
        self.kernel.forget(ino, attr_only=True)
        # The rest waits for requests to be answered: that is for who answers the request which changed them.
        self.set_aside(ino)
        if threading.get_ident() != self._thread and not self.is_worker() and pyfuse3.trio_token is not None:
            with contextlib.suppress(trio.RunFinishedError, trio.Cancelled):
                trio.from_thread.run(self.announced, [ino], trio_token=pyfuse3.trio_token)

    def is_worker(self) -> bool:
        return getattr(self._local, "is_worker", False)

    def withdrawn(self, ino: int) -> None:
        """See to it that *ino* is not read past us if it may be no more. Called in any thread.

        That is done on return, but in a thread that works on a request: then it is before that is answered, for its
        own files.
        """
        if threading.get_ident() == self._thread:
            self.set_aside(ino)
        elif self.is_worker():
            # It holds the lock of a file, maybe of this one: it can neither look nor wait for the kernel. This may also
            # be another file than that of the request, whose answer waits for its own only.
            self.set_aside(ino)
            assert pyfuse3.trio_token is not None
            with contextlib.suppress(trio.RunFinishedError):
                pyfuse3.trio_token.run_sync_soon(self._announce_soon, ino)
        else:
            self._withdraw(ino)

    def _announce_soon(self, ino: int) -> None:
        if self.nursery is not None:
            self.nursery.start_soon(self.announced, [ino])

    def set_aside(self, ino: int) -> None:
        (self.changed_in_place if threading.get_ident() == self._thread else self.changed).add(ino)

    async def changed_by(self, ino: int, number: int) -> None:
        """The file has been changed by its node *number*: have the kernel forget what it has of the others."""

        def forget() -> None:
            self.kernel.forget(ino, attr_only=False, but=number)
            self.refresh(ino, but=number)

        if self._passthrough.is_split(ino):
            await self.in_kernel(forget)

    def refresh(self, ino: int, but: int | None = None) -> None:
        """Have the kernel ask for the size of *ino*, as `KernelCache.refresh`; and again later if it does not take it.

        Nobody waits for that: the kernel is busy with a call that may itself wait, for who calls this.
        """
        if not self.kernel.refresh(ino, but) and pyfuse3.trio_token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                pyfuse3.trio_token.run_sync_soon(self._refresh_later, ino)

    def _refresh_later(self, ino: int) -> None:
        if self.nursery is not None and ino not in self._untaken:
            self._untaken.add(ino)
            self.nursery.start_soon(self._refresh_until_taken, ino)

    async def _refresh_until_taken(self, ino: int) -> None:
        taken, pause = False, FIRST_PAUSE

        def refresh() -> None:
            nonlocal taken
            taken = self.kernel.refresh(ino)

        try:
            # Nothing tells when the kernel's call has ended: its answer is ours, but what it does then is not.
            while not taken and not self._has_ended:
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                await self.in_kernel(refresh)
        except Exception:
            self.failed = True
            log.exception("bug: the kernel has not been told the size of inode %d", ino)
        finally:
            self._untaken.discard(ino)

    async def in_kernel(self, function: Callable[..., object], *args: Any) -> None:
        """Call *function*, which waits for the kernel to make requests of us, in a thread.

        If we end meanwhile, nobody answers those: then we do not wait for it.
        """
        with trio.CancelScope() as scope:
            self._asking.add(scope)
            try:
                if not self._has_ended:
                    await trio.to_thread.run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=True)
            finally:
                self._asking.discard(scope)

    async def announced(self, inos: Iterable[int]) -> None:
        """See to it that the kernel knows how *inos* have changed, and that nobody reads what he may no more.

        To be awaited before the answer to a request on them that may have met an error.
        """
        for ino in inos:
            while ino in self.changed or ino in self._announcing:
                if ino in self._announcing:
                    await self._announcing[ino].wait()
                    continue
                self.changed.discard(ino)
                self._announcing[ino] = trio.Event()
                try:
                    await self.in_kernel(self._announce, ino)
                except Exception:
                    # Whatever it is, the request must be answered, and others served.
                    self.failed = True
                    log.exception("bug: the kernel has not been told of all that changed in inode %d", ino)
                finally:
                    self._announcing.pop(ino).set()

    def _announce(self, ino: int) -> None:
        # What that finds out about the file is announced by who waits for this.
        self.work(self._withdraw, ino)
        self.refresh(ino)

    def _withdraw(self, ino: int) -> None:
        """Have all who read *ino* past us fail, unless they still may. Waits for requests to be answered.

        Where that cannot be told just now, nobody waits for it: it is asked again.
        """
        if not self._try_to_withdraw(ino) and pyfuse3.trio_token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                pyfuse3.trio_token.run_sync_soon(self._withdraw_later, ino)

    def _withdraw_later(self, ino: int) -> None:
        if self.nursery is None:
            return
        self._unsure[ino] += 1
        if self._unsure[ino] == 1:
            self.nursery.start_soon(self._withdraw_when_known, ino)

    async def _withdraw_when_known(self, ino: int) -> None:
        is_known, pause = False, LONGEST_PAUSE

        def withdraw(last: bool) -> None:
            nonlocal is_known
            is_known = self.work(self._try_to_withdraw, ino, last)

        try:
            for times in range(2, TIMES_TO_ASK + 1):
                # Nothing tells when the host has descriptors and memory again.
                await trio.sleep(pause)
                pause *= 2
                doubts = self._unsure[ino]
                await self.in_kernel(withdraw, times == TIMES_TO_ASK)
                # What came to be doubted while this was asked, it does not answer.
                if (is_known and self._unsure[ino] == doubts) or self._has_ended:
                    break
        except Exception:
            # Whatever it is, others must be served.
            self.failed = True
            log.exception("bug: inode %d may be read past the file system where it must not be", ino)
        finally:
            del self._unsure[ino]
        await self.announced([ino])

    def _try_to_withdraw(self, ino: int, last: bool = False) -> bool:
        """Do as `_withdraw`; return False if it must be asked again. If it is the *last* time, take that for a no."""
        answers: list[tuple[Passed, Answer]] = []
        # Whoever was to be asked may have closed the file meanwhile: then others are. Without end only by a bug.
        for _ in range(ROUNDS_TO_ASK):
            answers = [(node, self._ask(node)) for node in self._passthrough.doubt(ino)]
            if not answers:
                return True
            if all(answer is not Answer.NOBODY for _, answer in answers):
                break
        over = (Answer.NO, Answer.NOBODY, Answer.UNKNOWN) if last else (Answer.NO, Answer.NOBODY)
        nodes = [node for node, answer in answers if answer in over]
        if nodes:
            self._take(ino, nodes)
        return last or all(answer is not Answer.UNKNOWN for _, answer in answers)

    def _take(self, ino: int, nodes: list[Passed]) -> None:
        """Take *ino* from those who read it past us by *nodes*, and let nobody come to do so there."""
        readers = [handle for node in nodes for handle, passes_by in node.handles.items() if passes_by]
        if readers and not self._fs.info.waits:
            self._meet_error(ino, readers)
        elif readers and pyfuse3.trio_token is not None:
            # That may take long, and even wait for who is now told of a rule that says so.
            with contextlib.suppress(trio.RunFinishedError):
                pyfuse3.trio_token.run_sync_soon(self._meet_error_later, ino, readers)
        for _ in self._passthrough.withdraw(ino, nodes):
            log.info("inode %d: taken from those who read it past the file system", ino)
            self.kernel.look_up_again(ino)

    def _meet_error_later(self, ino: int, readers: list[int]) -> None:
        async def meet_error() -> None:
            try:
                await self.in_kernel(self.work, self._meet_error, ino, readers)
            except Exception:
                # Whatever it is, others must be served.
                self.failed = True
                log.exception("bug: the error that readers of inode %d got has not been dealt with", ino)
            await self.announced([ino])

        if self.nursery is not None:
            self.nursery.start_soon(meet_error)

    def _meet_error(self, ino: int, readers: list[int]) -> None:
        """Read *ino* for one of *readers*, who will get an error: had he met it here, there would be an action, too."""
        for handle in readers:
            try:
                self._fs.read(handle, 0, self._fs.info.block_size, True)
            except BadHandle:
                continue  # closed meanwhile
            except ZonefsError as exc:
                log.debug("inode %d: %s", ino, exc)
            break

    def _ask(self, node: Passed) -> Answer:
        """Whether the file may be read past us by *node*."""
        for handle in node.handles:
            try:
                descriptor = self._fs.backing_descriptor(handle)
            except BadHandle:
                continue  # closed meanwhile
            except ZonefsError as exc:
                log.debug("handle %d: %s", handle, exc)
                return Answer.UNKNOWN
            if descriptor is None:
                return Answer.NO
            try:
                # The zone may be in another file now.
                return Answer.YES if host_file_of(descriptor) == node.host_file else Answer.NO
            finally:
                os.close(descriptor)
        return Answer.NOBODY

    async def drop(self, ino: int, attributes_of: Iterable[int] = (), size_of: int | None = None) -> None:
        """Have the kernel write back and forget all pages of *ino*, and forget the attributes of *attributes_of* too.

        Of *size_of* it asks for them, and the size.
        """

        def drop() -> None:
            self.kernel.forget(ino, attr_only=False)
            for other in attributes_of:
                self.kernel.forget(other, attr_only=True)
            if size_of is not None:
                self.refresh(size_of)

        # No answer to a request for pages waits for this, and who is here has no other file's turn.
        async with self._dropping.alone([ino]):
            await self.in_kernel(drop)

"""Worker threads for calls that may wait for a device: trio's, without what its `to_thread.run_sync` does beside.

That names the thread anew for every call, by a system call before and one after, and both let go of the interpreter's
lock: on a block device, where every read and write is such a call, it took longer than the request itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

if TYPE_CHECKING:
    import outcome

R = TypeVar("R")


class Workers:
    """Threads of which so many are busy at most. For trio's thread."""

    def __init__(self, most: int) -> None:
        self._free = trio.Semaphore(most)

    async def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call *function* in a thread; return or raise what it does.

        Whoever is cancelled before it began is so at once, later only when it has returned.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self._free.acquire()
        try:
            return await _call_in_thread(functools.partial(function, *arguments))
        finally:
            self._free.release()


async def _call_in_thread(function: Callable[[], R]) -> R:
    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

    def deliver(result: outcome.Outcome[R]) -> None:
        # Trio does not end before: the task cannot be cancelled meanwhile.
        token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(function, deliver)
    return cast("R", await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED))

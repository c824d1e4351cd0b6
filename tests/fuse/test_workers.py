"""Worker threads: what comes back from them, how many there are, and what a cancellation does. Without a mount."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from zonefs_py.fuse.workers import Workers

SECONDS = 60.0


def test_a_call_returns_or_raises_what_its_function_does() -> None:
    async def main() -> None:
        workers = Workers(1)
        assert await workers.call(divmod, 17, 5) == (3, 2)
        assert await workers.call(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await workers.call(divmod, 1, 0)
        # What failed has set its thread free.
        assert await workers.call(divmod, 9, 3) == (3, 0)

    trio.run(main)


def test_others_go_on_and_no_more_are_busy_than_may_be() -> None:
    go_on = threading.Event()
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        assert go_on.wait(SECONDS)
        ended.append(number)

    async def main() -> None:
        workers = Workers(2)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(workers.call, work, number)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(SECONDS):
                while len(begun) < 2:
                    await trio.lowlevel.checkpoint()
            # This task runs though both are busy; whoever came third waits for one of them.
            await trio.testing.wait_all_tasks_blocked()
            assert len(begun) == 2
            go_on.set()
        assert sorted(ended) == list(range(5))

    trio.run(main)


def test_a_call_can_be_cancelled_until_it_begins() -> None:
    go_on, running = threading.Event(), threading.Event()
    ended: list[str] = []

    def work(name: str) -> None:
        running.set()
        assert go_on.wait(SECONDS)
        ended.append(name)

    async def main() -> None:
        workers = Workers(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.call, work, "first")
            await trio.testing.wait_all_tasks_blocked()
            assert await trio.to_thread.run_sync(running.wait, SECONDS)
            with trio.CancelScope() as waiting:
                waiting.cancel()
                await workers.call(work, "cancelled before")
            assert waiting.cancelled_caught
            with trio.move_on_after(0) as waiting:
                await workers.call(work, "cancelled while it waited")
            assert waiting.cancelled_caught
            # The one that runs is waited for: what it does to a device cannot be called off.
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert ended == []
                assert len(nursery.child_tasks) == 1
            go_on.set()
        assert ended == ["first"]
        assert await workers.call(divmod, 9, 3) == (3, 0), "its thread is free"

    trio.run(main)

"""``zonefs-py copy``: files into zone files, out of them, and from one to another."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

import click

from zonefs_py.cli.common import EXIT_INTERRUPTED, SlowProgress, complain
from zonefs_py.cli.copy_files import (
    CopyFile,
    DescriptorTarget,
    Kind,
    Part,
    compare,
    examine,
    open_destination,
    open_source,
    plan_parts,
)
from zonefs_py.cli.parameters import PATH, SIZE
from zonefs_py.copy.jobs import CopyDestination, CopyJobs, CopySource
from zonefs_py.copy.schedule import Throttle
from zonefs_py.errors import OptionError, UserError, describe_os_error

LOOK_SECONDS = 0.1
"""How often the bar moves and Ctrl-C is looked for."""


@dataclass(frozen=True)
class Outcome:
    """How far a copy came, in bytes of all sources; ``problem`` is what stopped it."""

    copied: int
    interrupted: bool = False
    problem: str | None = None


@click.command(short_help="Copy files into zone files, out of them, or between them.")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=PATH)
@click.argument("destination", metavar="DST", type=PATH)
@click.option("--append", is_flag=True, help="Add to what DST has: to a sequential file, at its write pointer.")
@click.option("--pad", is_flag=True, help="Fill the last block of each SRC with zeros, where DST is sequential.")
@click.option("--throttle", type=SIZE, metavar="SIZE", help="Copy at most so much a second, such as 100M.")
@click.option("--verify", is_flag=True, help="Read everything back and compare.")
def copy(
    sources: tuple[str, ...], destination: str, append: bool, pad: bool, throttle: int | None, verify: bool
) -> int:
    """Copy the contents of one file SRC, or of several in this order, to the file DST.

    Each may be a zone file of a mount or an ordinary file. Between files of one mount the device copies by itself, if
    it can; everything else is read and written.

    A sequential zone file or an ordinary file that is DST must be empty, unless you say --append; a conventional
    zone file is written from its beginning. A sequential file takes whole blocks only: a SRC whose length is not a
    multiple of the block size is refused before anything is copied, unless you say --pad. No file is truncated,
    and only an ordinary DST is made if it does not exist.

    Ctrl-C ends the copy; what was copied until then stays.
    """
    if throttle == 0:
        raise OptionError("--throttle: nothing can be copied at 0 bytes a second")
    target = examine(destination, missing_ok=True)
    parts = plan_parts([examine(source) for source in sources], target, append=append, pad=pad)
    total = sum(part.length for part in parts)
    outcome = _copy_parts(parts, target, total, throttle)
    so_far = f"{outcome.copied} of {total} bytes were copied to {destination}"
    if outcome.problem is not None:
        raise UserError(f"{outcome.problem}; {so_far}")
    if outcome.interrupted:
        complain("zonefs-py", f"interrupted: {so_far}")
        return EXIT_INTERRUPTED
    if verify:
        with SlowProgress(total, "Verifying") as progress:
            compare(parts, target, lambda end: progress(end - parts[0].offset))
    return 0


def _copy_parts(parts: Sequence[Part], destination: CopyFile, total: int, throttle: int | None) -> Outcome:
    """Copy *parts* one after the other; the first that does not come through is the last. Raises OSError."""
    with contextlib.ExitStack() as stack:

        def closing(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        # Everything is opened before anything is copied, and the destination last: it may be made.
        readers = [closing(open_source(part.source)) for part in parts]
        target = DescriptorTarget(destination, closing(open_destination(destination)))
        progress = stack.enter_context(SlowProgress(total, "Copying"))
        interrupted = stack.enter_context(_interruptible())
        queue = stack.enter_context(CopyJobs(workers=1))
        # One for all: what the last source has taken too early, the next one waits for.
        shared = Throttle(throttle)
        before = 0
        for part, reader in zip(parts, readers, strict=True):
            if interrupted.is_set():
                return Outcome(before, interrupted=True)
            job = queue.submit(
                CopySource(reader, 0, part.length), [CopyDestination(target, part.offset)], throttle=shared
            )
            while (result := job.wait(LOOK_SECONDS)) is None:
                progress(before + job.progress[0])
                if interrupted.is_set():
                    job.cancel()
            done = result.destinations[0]
            before += done.copied
            if done.error is not None and destination.kind is Kind.SEQUENTIAL:
                # A call that fails tells no number, but what it has written is there: nobody could add anything else.
                before = max(before, min(target.end() - parts[0].offset, part.offset - parts[0].offset + part.length))
            progress(before)
            if done.error is not None:
                words = describe_os_error(done.error) if isinstance(done.error, OSError) else str(done.error)
                return Outcome(before, problem=f"{part.source.path} to {destination.path}: {words}")
            if result.cancelled:
                return Outcome(before, interrupted=True)
            if done.copied < part.length:
                return Outcome(before, problem=f"{part.source.path} became shorter meanwhile")
    return Outcome(before)


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event, so that it comes between two pieces; the second is as ever."""
    interrupted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)

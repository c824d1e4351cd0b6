"""tools/zone-fsx as a load that is interrupted: what it was acknowledged becomes promises."""

from __future__ import annotations

import contextlib
import errno
import importlib.machinery
import importlib.util
import mmap
import os
import random
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.abuse.promises import Promise

TOOL = Path(__file__).parents[2] / "tools" / "zone-fsx"

LONGEST = 32 * 1024

_GONE = re.compile(r"ENOTCONN|ECONNABORTED|Transport endpoint is not connected|Software caused connection abort")

_CUT_SHORT = re.compile(r"gave (\d+|EIO|EFAULT)( instead of \d+)?$|Input/output error")

_POWERLESS = re.compile(
    r"gave (EIO|EFAULT) instead of \w+$|gave \d+( instead of \d+)?$|Input/output error|its size is \d+ instead of \d+$"
)


def _load_tool() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("zone_fsx", str(TOOL))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look there
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


zone_fsx: Any = _load_tool()


class Load:
    """Random operations on the files *names* of a mount, until it is gone. They go on where *promises* end."""

    def __init__(self, mount_point: Path, promises: dict[str, Promise], seed: int) -> None:
        self.promises = promises
        self._files = [file for file in zone_fsx.find_files(mount_point) if file.name in promises]
        self.run = zone_fsx.Run(self._files, seed, LONGEST, 0, None, self._step)
        # A mapping of a file whose daemon dies is a SIGBUS.
        others = {"write_mapped": self._write_mapped, "read_mapped": self.run.read}
        self.run.operations = [others.get(operation.__name__, operation) for operation in self.run.operations]
        for file in self._files:
            file.content = bytearray(promises[file.name].written)
        self._chance = random.Random(seed)
        self._line = ""
        self.signal_at = 0
        """The operation at the beginning of which `reached` is set."""
        self.reached = threading.Event()
        self.power_goes = threading.Event()
        """To be set before the power of the mount is cut: its files fail with EIO then, until they are opened again."""

    def _step(self, line: str) -> None:
        """An operation begins: the one before it, if there was one, has been acknowledged."""
        self._acknowledge()
        self._line = line
        if self.run.done >= self.signal_at:
            self.reached.set()

    def _acknowledge(self) -> None:
        done = self.run.pending
        words = self._line.split()[1:]
        self._line = ""
        if done is not None:
            promise = self.promises[done.file.name]
            promise.change(done.offset, done.data)
            # A full zone is not finished again, so nothing of it becomes durable by that.
            if (words[0] == "truncate" and done.data) or words[-1] == "rwf_dsync" or words[0] == "write_mapped":
                promise.sync()
        elif words and words[0] == "fsync":
            self.promises[words[1]].sync()

    def _write_mapped(self) -> None:
        """Store by a shared mapping, and sync.

        It is the kernel that stores, asked by a read(2) into the mapping: where we would get SIGBUS it says EFAULT. And
        instead of msync(2) it is fsync(2), which does the same, but without Python's lock: the end may come meanwhile.
        """
        file, offset, length = self.run.conventional_place(aligned=False)
        data = self.run.data(length)
        self.run.note(f"write_mapped {file.name} {offset} {length}")
        self.run.pending = zone_fsx.Change(file, offset, data)
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        source = os.memfd_create("mapped")
        try:
            os.write(source, data)
            with (
                mmap.mmap(file.buffered, offset + length - start, offset=start) as memory,
                memoryview(memory) as whole,
                whole[offset - start :] as target,
            ):
                what = f"mapped write to {file.name}"
                self.run.expect(what, length, lambda: os.preadv(source, [target], 0))
                self.run.expect(f"sync of {what}", 0, lambda: os.fsync(file.buffered))
        except zone_fsx.Wrong:
            # What is dirty fails now, for us, and not when it is synced by somebody else who opens the file next.
            with contextlib.suppress(OSError):
                os.fsync(file.buffered)
            raise
        finally:
            os.close(source)
        file.content[offset : offset + length] = data
        self.run.check_range(file, offset, length)

    @property
    def operation(self) -> str:
        """What is, or was last, under way."""
        return self._line

    def go(self, ops: int) -> bool:
        """Do at most *ops* operations; return whether the mount, or its power, has gone meanwhile.

        Raises what zone-fsx raises.
        """
        for file in self._files:
            file.open()
        try:
            self.run.go(ops, ops + 1)
            self._acknowledge()
        except (zone_fsx.Wrong, OSError) as exc:
            if not self._is_end(str(exc)):
                raise
            return True
        finally:
            self.close()
        return False

    def _is_end(self, text: str) -> bool:
        """Whether the error *text* is no more than what the end of the mount, or of its power, leads to."""
        if self.power_goes.is_set():
            # Who asks for a size while the power is away is answered when it is back: with what is left.
            return bool(_POWERLESS.search(text))
        # The kernel sends a long request in parts, and the daemon may have died between two; for pages that it could
        # not read because of that, sendfile(2) says EIO.
        return bool(_GONE.search(text)) or (bool(_CUT_SHORT.search(text)) and self._is_gone())

    def _is_gone(self) -> bool:
        try:
            # Not stat: the kernel would answer that from what it remembers.
            os.statvfs(self.run.files[0].path)
        except OSError as exc:
            return bool(_GONE.search(str(exc)))
        return False

    def close(self) -> None:
        """Close the files; one of a dead mount, or of before a power cut, tells so, and is closed all the same."""
        for file in self._files:
            for descriptor in file.descriptors.values():
                try:
                    os.close(descriptor)
                except OSError as exc:
                    if exc.errno != errno.EIO if self.power_goes.is_set() else not _GONE.search(str(exc)):
                        raise
            file.descriptors.clear()

    def pending(self, name: str) -> tuple[int, bytes | None] | None:
        """The change of the file *name* that was not acknowledged."""
        change = self.run.pending
        return None if change is None or change.file.name != name else (change.offset, change.data)


def promises_of(mount_point: Path, chosen: Callable[[str], bool]) -> dict[str, Promise]:
    """Return promises of the files whose names are *chosen*: that they hold what they do."""
    return {
        file.name: Promise(file.name, file.sequential, file.capacity, file.block, file.path.read_bytes())
        for file in zone_fsx.find_files(mount_point)
        if chosen(file.name)
    }

"""Every device call of a copy of several ranges fails once, in every way, as in `test_copy_failures` for one range."""

from __future__ import annotations

import os
from itertools import count

import pytest

from tests.core.copying import CopyDevice, Effect, Fault, copy_with_small_buffer, zone_bytes
from tests.core.test_copy_failures import BLOCK, EARLIER, ENGINES, FAULTS, GEOMETRY, INITIAL, PIECE, ZONE_SIZE
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.abi import share_out
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import DeviceError, InvalidRequest, NotPermitted, ReadOnlyFilesystem
from zonefs_py.fs.copying import RangesCopied
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device

RANGES = [
    ("seq/0", BLOCK, PIECE + BLOCK),
    ("cnv/0", 3 * BLOCK, 2 * BLOCK),
    ("seq/0", 0, BLOCK),
    ("seq/2", 2 * BLOCK, PIECE),
]
"""File, offset and length: twelve blocks."""

GATHERED = b"".join(INITIAL[name][offset : offset + length] for name, offset, length in RANGES)

EARLIER_IN_TARGETS = {"seq/1": EARLIER, "seq/2": 10 * BLOCK}

TARGETS = [*EARLIER_IN_TARGETS.items(), ("cnv/1", 5 * BLOCK)]
"""Destinations, and where the copy begins; one is a source too."""

LIMITS = [
    {"copy_max_bytes": PIECE},
    {"copy_max_bytes": 2 * PIECE, "copy_max_range_bytes": 3 * BLOCK},
    {"copy_max_nr_ranges": 1},
]
"""One range a command, several in one, and whole ranges."""


class OneGatherFails:
    """A copy of `RANGES` in which one call of the device fails, and everything that must hold after it."""

    def __init__(
        self, target: str, offset: int, engine: str, policy: ErrorsPolicy, limits: dict[str, int], fault: Fault
    ) -> None:
        self.target, self.offset, self.engine, self.policy, self.fault = target, offset, engine, policy, fault
        self.sequential = target.startswith("seq")
        self.device = CopyDevice(MemoryDevice(GEOMETRY))
        format_device(self.device.inner, FormatOptions())
        self.fs = Filesystem(self.device, MountOptions(policy, copy=engine))
        self.files = {name: data for name, data in INITIAL.items() if name in {target, *(name for name, *_ in RANGES)}}
        self.files[target] = self.files[target][: EARLIER_IN_TARGETS.get(target)]
        for name, data in self.files.items():
            handle = self.fs.open(name, os.O_RDWR | os.O_DIRECT)
            self.fs.write(handle, 0, data)
            self.fs.release(handle)
        copy_with_small_buffer(self.fs, PIECE)
        self.fs.copy_engine.set_limits(limits)
        del self.device.calls[:]
        self.device.fault = fault
        self.writer = self.fs.open(target, os.O_WRONLY)

    def gather(self, done: int) -> RangesCopied:
        """Copy what is left of the ranges after *done* bytes."""
        left = []
        for name, offset, length in RANGES:
            skip = min(done, length)
            done -= skip
            if skip < length:
                left.append((self.fs.resolve(name), offset + skip, length - skip))
        reached = self.offset + len(GATHERED) - sum(length for *_, length in left)
        return self.fs.copy_ranges(self.writer, None if self.sequential else reached, left)

    def run(self) -> bool:
        """Do it and check; return whether the fault struck."""
        copied = self.gather(0)
        calls = list(self.device.calls)
        self.device.fault = None
        lengths = [length for *_, length in RANGES]
        if len(calls) <= self.fault.number:
            assert copied == (self.offset, tuple(lengths), None)
            self.fs.close()
            return False
        struck = calls[self.fault.number]
        assert len(calls) == self.fault.number + 1, "nothing may be tried after an error"
        assert {call.kind for call in calls} <= ({"read", "write"} if self.engine == "emulate" else {"copy"})
        self.reading = struck.kind == "read"
        before = sum(call.length for call in calls[:-1] if call.kind != "read")
        part = 0 if self.reading else min(self.fault.blocks * BLOCK, struck.length)
        known = before + (part if self.fault.effect is Effect.SHORT and struck.kind == "copy" else 0)
        assert copied.offset == self.offset
        assert copied.completed == share_out(known, lengths)
        assert isinstance(copied.error, DeviceError)
        assert copied.error.errno_name == "EIO"
        self.check_counters(known)
        if self.sequential:
            self.check_size(known, before + part)
        went_on = self.check_next(known)
        self.check_media(len(GATHERED) if went_on else before + part)
        return True

    def is_bad_zone(self) -> bool:
        return self.fault.effect in (Effect.READ_ONLY, Effect.OFFLINE)

    def breaks_target(self) -> bool:
        """Whether the zone that broke is the destination's: a read breaks its source's."""
        return self.is_bad_zone() and (not self.reading or self.broken() == self.target)

    def broken(self) -> str | None:
        """The file whose zone broke."""
        bad = [
            name for name in self.files if self.device.report_zones(self.fs.resolve(name), 1)[0].condition in (13, 15)
        ]
        return bad[0] if bad else None

    def check_counters(self, known: int) -> None:
        for engine, done in self.fs.copy_engine.counters.items():
            expected = (1, known, 1) if engine.value == self.engine else (0, 0, 0)
            assert (done.copies, done.bytes, done.errors) == expected, engine

    def check_size(self, known: int, on_media: int) -> None:
        size = self.fs.getattr(self.fs.resolve(self.target)).size
        broken = self.breaks_target()
        if self.reading and not broken:
            expected = self.offset + known
        elif self.policy is ErrorsPolicy.ZONE_OFFLINE or (broken and self.fault.effect is Effect.OFFLINE):
            expected = 0
        elif self.policy is ErrorsPolicy.REPAIR and not broken:
            expected = self.offset + on_media
        else:
            # What is beyond was not acknowledged: it may be garbage, and is not shown.
            expected = self.offset + known
        assert size == expected

    def check_next(self, known: int) -> bool:
        """The next copy goes on where the destination's end is, or says cleanly why not."""
        size = self.fs.getattr(self.fs.resolve(self.target)).size
        done = max(0, size - self.offset) if self.sequential else known
        try:
            if done == len(GATHERED):
                return True
            copied = self.gather(done)
        except NotPermitted:
            zone_policy = self.policy in (ErrorsPolicy.ZONE_RO, ErrorsPolicy.ZONE_OFFLINE)
            assert self.is_bad_zone() or (zone_policy and not self.reading)
            return False
        except ReadOnlyFilesystem:
            assert self.fs.read_only
            return False
        except InvalidRequest:
            # A source that went offline has no bytes any more.
            assert self.reading
            assert self.fault.effect is Effect.OFFLINE
            return False
        if copied.error is not None:
            # A broken conventional zone: a write there has no errors= action, and fails each time.
            assert self.is_bad_zone()
            return False
        assert sum(copied.completed) == len(GATHERED) - done
        return True

    def check_media(self, known: int) -> None:
        """What was acknowledged is on media; a new mount's file ends at the write pointer."""
        target = self.fs.resolve(self.target)
        for name in self.files:
            self.device.inner.force_condition(self.fs.resolve(name), None)
        media = zone_bytes(self.device.inner, target)
        before = self.files[self.target]
        assert media[self.offset : self.offset + known] == GATHERED[:known]
        assert media[: self.offset] == before[: self.offset]
        assert media[self.offset + known :] == before[self.offset + known :]
        assert len(media) == (self.offset + known if self.sequential else ZONE_SIZE)
        self.fs.close()
        with Filesystem(self.device) as fs:
            assert fs.getattr(target).size == len(media)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", list(ErrorsPolicy), ids=lambda policy: policy.value)
@pytest.mark.parametrize(("target", "offset"), TARGETS)
def test_each_call_fails_in_each_way(
    target: str, offset: int, policy: ErrorsPolicy, engine: str, limits: dict[str, int]
) -> None:
    for effect, blocks in [*FAULTS, (Effect.SHORT, 5), (Effect.ERROR, 7)]:
        for number in count():
            if not OneGatherFails(target, offset, engine, policy, limits, Fault(number, effect, blocks)).run():
                assert number > 1
                break

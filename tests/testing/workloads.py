"""Workloads for the crash explorer, what they may find after a power cut, and the check of one state.

The promises are written down from what the file system acknowledged, and from nothing else: neither the device nor
the recorder is asked. What a sequential file held when it was last synced is there; it may hold more, in order, of
what was written since, in whole blocks. A block of a conventional file holds what it held at the last sync, or
anything that was written since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zonefs_py.config import FormatOptions, MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import NotAtWritePointer
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.testing.calls import Call
from zonefs_py.testing.crash_states import CrashState
from zonefs_py.testing.image import DeviceImage, empty_image, open_image, take_image
from zonefs_py.testing.recorder import RecordingDevice
from zonefs_py.zone import Geometry, ZoneCondition

BLOCK = 512
ZONE = 10 * BLOCK
CAPACITY = 9 * BLOCK
GEOMETRY = Geometry(ZONE, CAPACITY, 5, 2, BLOCK, ZONE)
"""Zone 0 holds the superblock, 1 is cnv/0, 2 to 4 are seq/0 to seq/2."""

DIRECT = os.O_RDWR | os.O_DIRECT


def clock() -> int:
    """No time passes."""
    return 0


@dataclass
class Promise:
    """What one file may hold after a power cut."""

    sequential: bool
    synced: bytes = b""
    """Of a sequential file: what is there for certain."""
    written: bytes = b""
    """Of a sequential file: all that was written, so the most that can be there."""
    others: list[bytes] = field(default_factory=list)
    """Of a sequential file: what it may hold besides, whole; while a reset or finish is under way."""
    blocks: dict[int, list[bytes]] = field(default_factory=dict)
    """Of a conventional file: of each block what it held at the last sync, and then everything written since."""

    def copy(self) -> Promise:
        return Promise(
            self.sequential,
            self.synced,
            self.written,
            list(self.others),
            {at: list(versions) for at, versions in self.blocks.items()},
        )

    def sync(self) -> None:
        self.synced = self.written
        self.blocks = {at: versions[-1:] for at, versions in self.blocks.items()}

    def put(self, at: int, data: bytes) -> None:
        """A conventional file gets *data* at *at*, any bytes."""
        for block in range(at // BLOCK, (at + len(data) - 1) // BLOCK + 1):
            versions = self.blocks.setdefault(block, [bytes(BLOCK)])
            now = bytearray(versions[-1])
            first, last = max(at, block * BLOCK), min(at + len(data), (block + 1) * BLOCK)
            now[first - block * BLOCK : last - block * BLOCK] = data[first - at : last - at]
            versions.append(bytes(now))

    def check(self, seen: bytes) -> None:
        """AssertionError if the file may not hold *seen*."""
        if not self.sequential:
            for block in range(len(seen) // BLOCK):
                legal = self.blocks.get(block, [bytes(BLOCK)])
                assert seen[block * BLOCK : (block + 1) * BLOCK] in legal, f"block {block} was never written like that"
            return
        if seen in self.others:
            return
        assert len(seen) % BLOCK == 0, f"{len(seen)} bytes are not whole blocks"
        assert len(seen) >= len(self.synced), f"{len(seen)} bytes, but {len(self.synced)} were synced"
        assert self.written.startswith(seen), "it holds what was not written there, or not any more"


Promises = dict[str, Promise]


class Run:
    """A file system on a recorder, and what it has promised by its answers so far."""

    def __init__(self, base: DeviceImage, options: MountOptions, make: MakeFilesystem) -> None:
        self.recorder = RecordingDevice(open_image(base))
        self.fs = make(self.recorder, options)
        self.promises = {"cnv/0": Promise(False)} | {f"seq/{index}": Promise(True) for index in range(3)}
        self.stamp = 0
        self.log: list[tuple[int, Promises]] = [(0, self._copies())]
        """From how many calls on which promises hold."""

    def _copies(self) -> Promises:
        return {name: promise.copy() for name, promise in self.promises.items()}

    def fresh(self, count: int) -> bytes:
        """*count* blocks that are like no others."""
        self.stamp += 1
        return b"".join(
            b"%06d.%d" % (self.stamp, index) + bytes([33 + (self.stamp + index) % 90]) * (BLOCK - 8)
            for index in range(count)
        )

    def allow(self, file: str) -> Promise:
        """The promise of *file* that holds while a call is under way, and after it; to be changed to be wider."""
        return self.promises[file]

    def promise(self) -> None:
        """What was changed holds from the next call on: something is about to be done, or was acknowledged."""
        self.log.append((len(self.recorder.calls), self._copies()))

    def at(self, call: int) -> Promises:
        """What holds when power is lost during call *call*."""
        return [promises for since, promises in self.log if since <= call][-1]

    # Operations, each with what it means

    def write(self, file: str, count: int, at: int = 0, flags: int = DIRECT) -> None:
        """Write so many blocks: to a sequential file at its end, as many as fit; else at block *at*."""
        promise = self.allow(file)
        data = self.fresh(count)
        if promise.sequential:
            at = len(promise.written) // BLOCK
            data = data[: CAPACITY - len(promise.written)]
            if not data:
                return
            promise.written += data
        else:
            promise.put(at * BLOCK, data)
        self.promise()
        handle = self.fs.open(file, flags)
        assert self.fs.write(handle, at * BLOCK, data) == len(data)
        self.fs.release(handle)
        if flags & os.O_DSYNC:
            promise.sync()
        self.promise()

    def write_bytes(self, file: str, at: int, length: int) -> None:
        """Write any bytes, through no O_DIRECT."""
        data = self.fresh(4)[:length]
        self.allow(file).put(at, data)
        self.promise()
        handle = self.fs.open(file, os.O_WRONLY)
        assert self.fs.write(handle, at, data) == length
        self.fs.release(handle)
        self.promise()

    def fsync(self, file: str) -> None:
        handle = self.fs.open(file, os.O_RDONLY)
        self.fs.fsync(handle)
        self.fs.release(handle)
        self.allow(file).sync()
        self.promise()

    def sync(self) -> None:
        self.fs.sync()
        for promise in self.promises.values():
            promise.sync()
        self.promise()

    def reset(self, file: str) -> None:
        promise = self.allow(file)
        promise.others = [b""]
        self.promise()
        self.fs.truncate(file, 0)
        self.promises[file] = Promise(True)
        self.promise()

    def finish(self, file: str) -> None:
        promise = self.allow(file)
        full = promise.written + bytes(CAPACITY - len(promise.written))
        if full == promise.written:
            # Nothing happens, so nothing is promised.
            self.fs.truncate(file, CAPACITY)
            return
        promise.others = [full]
        self.promise()
        self.fs.truncate(file, CAPACITY)
        self.promises[file] = Promise(True, synced=full, written=full)
        self.promise()

    def copy(self, source: str, destination: str, count: int) -> None:
        """Copy so many blocks from the start of one file to the end of another."""
        from_file, to_file = self.allow(source), self.allow(destination)
        if from_file.sequential:
            data = from_file.written[: count * BLOCK]
        else:
            data = b"".join(from_file.blocks.get(block, [bytes(BLOCK)])[-1] for block in range(count))
        at = len(to_file.written)
        data = data[: CAPACITY - at]
        if not data:
            return
        to_file.written += data
        self.promise()
        reader, writer = self.fs.open(source, os.O_RDONLY), self.fs.open(destination, os.O_WRONLY)
        assert self.fs.copy_range(reader, 0, writer, at, len(data)) == len(data)
        self.fs.release(reader)
        self.fs.release(writer)
        self.promise()

    def open_and_close(self, file: str) -> None:
        """Open for writing, and write nothing."""
        self.fs.release(self.fs.open(file, DIRECT))


Operation = Callable[[Run], None]
MakeFilesystem = Callable[[ZonedDevice, MountOptions], Filesystem]

OPERATIONS: dict[str, Operation] = {
    "append a block": lambda run: run.write("seq/0", 1),
    "append blocks": lambda run: run.write("seq/0", 3),
    "append to another": lambda run: run.write("seq/1", 2),
    "append synchronously": lambda run: run.write("seq/0", 2, flags=DIRECT | os.O_SYNC),
    "fill": lambda run: run.write("seq/0", 9),
    "write a block": lambda run: run.write("cnv/0", 1),
    "write blocks": lambda run: run.write("cnv/0", 3, at=1),
    "write some bytes": lambda run: run.write_bytes("cnv/0", BLOCK - 100, 900),
    "fsync": lambda run: run.fsync("seq/0"),
    "fsync another": lambda run: run.fsync("seq/1"),
    "fsync conventional": lambda run: run.fsync("cnv/0"),
    "sync": lambda run: run.sync(),
    "reset": lambda run: run.reset("seq/0"),
    "reset another": lambda run: run.reset("seq/1"),
    "finish": lambda run: run.finish("seq/0"),
    "copy from conventional": lambda run: run.copy("cnv/0", "seq/1", 2),
    "copy from sequential": lambda run: run.copy("seq/0", "seq/2", 2),
    "open and close": lambda run: run.open_and_close("seq/2"),
}


def nothing(run: Run) -> None:
    """Every file as mkfs left it."""


def something_synced(run: Run) -> None:
    """Files that hold something, all of it durable."""
    run.write("seq/0", 2)
    run.write("seq/1", 3)
    run.write("cnv/0", 2)
    run.sync()


def something_unsynced(run: Run) -> None:
    """Files that hold something, some of it durable and some not."""
    run.write("seq/0", 2)
    run.write("cnv/0", 1)
    run.sync()
    run.write("seq/0", 2)
    run.write("seq/1", 2)
    run.write("cnv/0", 2)


def almost_full(run: Run) -> None:
    """A file that holds all but a block, half of it durable, and one that is full."""
    run.write("seq/0", 5)
    run.write("seq/1", 9)
    run.sync()
    run.write("seq/0", 3)


SETUPS: dict[str, Operation] = {
    operation.__name__: operation for operation in (nothing, something_synced, something_unsynced, almost_full)
}


def base_image(max_open: int | None = None, max_active: int | None = None) -> DeviceImage:
    """A formatted device."""
    device = open_image(empty_image(GEOMETRY, max_open, max_active))
    format_device(device, FormatOptions(), uuid=bytes(16))
    return take_image(device)


def mount(device: ZonedDevice, options: MountOptions) -> Filesystem:
    """The file system as it is."""
    return Filesystem(device, options, clock=clock)


@dataclass
class Recorded:
    """A workload that was run."""

    base: DeviceImage
    options: MountOptions
    calls: list[Call]
    nr_setup_calls: int
    run: Run

    def check(self, state: CrashState, device: ZonedDevice) -> None:
        """See that *state* is legal, and that the file system works on it. AssertionError if not."""
        check_state(device, self.options, self.run.at(state.id.call))


def run_workload(
    base: DeviceImage,
    options: MountOptions,
    setup: Operation,
    operations: Sequence[Operation],
    make: MakeFilesystem = mount,
) -> Recorded:
    """Run *operations* on files as *setup* leaves them."""
    run = Run(base, options, make)
    setup(run)
    nr_setup_calls = len(run.recorder.calls)
    for operation in operations:
        operation(run)
    # Not closed: the power goes while it is mounted.
    return Recorded(base, options, run.recorder.calls, nr_setup_calls, run)


def check_state(device: ZonedDevice, options: MountOptions, promises: Promises) -> None:
    """Mount what a power cut left, and see that it is what was promised and that it can be used."""
    zones = device.report_zones()
    fs = mount(device, options)
    assert fs.counters.nr_wro_seq_files == 0
    used = 0
    nr_active = 0
    for number, (name, promise) in enumerate(promises.items(), start=1):
        zone = zones[number]
        size = fs.getattr(number).size
        handle = fs.open(number, os.O_RDONLY)
        seen = fs.read(handle, 0, ZONE)
        fs.release(handle)
        used += size
        try:
            if promise.sequential:
                assert size == zone.data_size, f"size {size}, but the write pointer is at {zone.data_size}"
                settled = {0: ZoneCondition.EMPTY, CAPACITY: ZoneCondition.FULL}.get(size, ZoneCondition.CLOSED)
                assert zone.condition is settled, f"{zone.condition.name}, not {settled.name}"
                nr_active += settled is ZoneCondition.CLOSED
            assert len(seen) == size
            promise.check(seen)
        except AssertionError as exc:
            raise AssertionError(f"{name}: {exc}") from exc
    assert fs.counters.nr_active_seq_files == nr_active
    statistics = fs.statfs()
    assert (statistics.blocks - statistics.blocks_free) * BLOCK == used
    check_use(fs, promises)


def check_use(fs: Filesystem, promises: Promises) -> None:
    """The next write works on each file, at its end and nowhere else."""
    data = b"\xaa" * BLOCK
    for number, promise in enumerate(promises.values(), start=1):
        size = fs.getattr(number).size
        if not promise.sequential:
            at = 0
        elif size < CAPACITY:
            at = size
        else:
            fs.truncate(number, 0)
            at = 0
        handle = fs.open(number, DIRECT)
        if fs.options.explicit_open and promise.sequential:
            assert fs.device.report_zones(number, 1)[0].condition is ZoneCondition.EXP_OPEN
        if promise.sequential and at + BLOCK < CAPACITY:
            try:
                fs.write(handle, at + BLOCK, data)
            except NotAtWritePointer:
                pass
            else:
                raise AssertionError("a write behind the write pointer was taken")
        assert fs.write(handle, at, data) == BLOCK
        assert fs.read(handle, at, BLOCK) == data
        fs.release(handle)
        if promise.sequential:
            assert fs.getattr(number).size == at + BLOCK
            # Room for the next one, where active zones are limited.
            fs.truncate(number, 0)
    assert fs.counters.nr_wro_seq_files == 0

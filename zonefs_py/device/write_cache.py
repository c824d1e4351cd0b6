"""A volatile write cache over any device: what was not flushed is held here, and a power cut loses it, or a part of it.

What it shows is what the device below would show without it, conditions and limits of open and active zones included.
The device below sees data when it is flushed, or when the cache is full, oldest first; and each reset and finish at
once: these are durable when they are acknowledged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.conditions import EXP_OPEN, FULL, IMP_OPEN, NOT_WP, OFFLINE, READONLY, ZoneConditions
from zonefs_py.device.power_cut import Keep, Kept, PowerCut, Unflushed, ZoneLoss, choose
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.units import MIB
from zonefs_py.zone import CONDITION_NAMES, OPEN_CONDITIONS, DeviceInfo, Zone, ZoneCondition, ZoneOp

log = logging.getLogger(__name__)

DEFAULT_SIZE = 64 * MIB
PIECE_SIZE = MIB
"""Bytes that are written down at once."""

_BROKEN = (READONLY, OFFLINE)


class _Shapes:
    """The zones of a device, as `ZoneConditions` wants them: unlike a geometry, of any kind in any order."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._zones = zones

    @property
    def nr_zones(self) -> int:
        return len(self._zones)

    def is_conventional(self, number: int) -> bool:
        return self._zones[number].is_conventional

    def capacity_of(self, number: int) -> int:
        return self._zones[number].capacity


class _HeldSequential:
    """What is held of a sequential zone: the bytes between the write pointer below and the one that is shown."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def length(self) -> int:
        return len(self.data)


class _HeldConventional:
    """What is held of a conventional zone: blocks by their offset in the zone, the one first written first."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self.blocks: dict[int, bytes] = {}

    @property
    def length(self) -> int:
        return len(self.blocks) * self._block_size


_Held = _HeldSequential | _HeldConventional


class WriteCacheDevice(ZonedDevice):
    """Another device, which it owns, with a volatile write cache of *size* bytes in front of it.

    `close` flushes, as an orderly shutdown does; a process that is killed loses what is held, as by `power_cut` with
    nothing kept. The limits of open and active zones are those that the device below tells, for all its zones
    together. The device has no copy methods: a copy goes through the cache like any read and write.

    Somebody else's changes below are noticed when one zone alone is reported; what is held of that zone is lost then.
    """

    def __init__(self, device: ZonedDevice, name: str | None = None, size: int = DEFAULT_SIZE) -> None:
        """Raises DeviceError if the zones cannot be reported; the device is then still the caller's."""
        below = device.info
        self._device = device
        self._size = size
        self._info = replace(
            below,
            kind="write-cache",
            name=name or f"write-cache:{below.name}",
            copy_methods=(),
            copy_max_hw_bytes=0,
            copy_max_range_hw_bytes=0,
            copy_max_nr_ranges_hw=0,
            reflink_alignment=0,
            # One zone's data may go down while the others wait.
            waits=True,
        )
        self._lock = threading.Lock()
        """Guards everything below. Data goes down while it is held; reads of zones of which nothing is held and
        flushes of the device below do not need it."""
        self._powered = True
        self._closed = False
        self._held: dict[int, _Held] = {}
        """By zone, the one that has been dirty for longest first; but last what could not be written down to make room.
        None is empty."""
        self._nr_held = 0
        """Bytes that are held."""
        self._start()

    def _start(self) -> None:
        """Take all zones as the device below reports them."""
        zones = self._device.report_zones()
        self._zones = zones
        """As they were then: of them only what never changes is used."""
        self._below = [zone.data_size or 0 for zone in zones]
        """The write pointers of the zones below, in bytes from the zone's start."""
        info = self._info
        self._conditions = ZoneConditions(_Shapes(zones), info.max_open_zones, info.max_active_zones, self._below)
        for zone in zones:
            if zone.condition in _BROKEN:
                self._conditions.force(zone.number, zone.condition)
            elif zone.condition is EXP_OPEN:
                self._conditions.complete_manage(zone.number, self._conditions.check_manage(ZoneOp.OPEN, zone.number))
            elif zone.condition is IMP_OPEN:
                self._conditions.begin_write(zone.number, self._below[zone.number], 0)
        if not info.read_only:
            for zone in zones:
                # A zone is open here, and below only while data goes down: so there is always one to be had.
                if zone.condition in OPEN_CONDITIONS:
                    self._device.zone_mgmt(ZoneOp.CLOSE, zone.number)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def generation(self) -> int:
        return self._device.generation

    @property
    def held_bytes(self) -> int:
        """How many bytes a power cut could lose now."""
        return self._nr_held

    # Reports

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        end = len(self._zones) if count is None else min(start + count, len(self._zones))
        with self._lock:
            self._check_power()
            if count == 1 and start < end:
                # Asked about one zone, after an error: the truth is below.
                self._adopt(start)
            return [self._zone(number) for number in range(start, end)]

    def _zone(self, number: int) -> Zone:
        zone = self._zones[number]
        condition = self._conditions.condition(number)
        if zone.is_conventional or condition is FULL:
            wp = zone.start + zone.size
        else:
            wp = zone.start + self._conditions.wpoffset(number)
        return zone._replace(wp=wp, condition=condition)

    def _adopt(self, number: int) -> None:
        """See whether zone *number* has changed below other than through us, and take that for true."""
        below = self._device.report_zones(number, 1)[0]
        condition = self._conditions.condition(number)
        if below.condition in _BROKEN:
            if condition is not below.condition:
                self._forget(number, f"the zone is {CONDITION_NAMES[below.condition]}")
                self._conditions.abort_write(number, self._below[number])
                self._conditions.force(number, below.condition)
            return
        if condition in _BROKEN:
            self._conditions.force(number, None)
        if below.data_size is not None and not below.is_conventional and below.data_size != self._below[number]:
            self._forget(number, "the write pointer has moved below the write cache")
            self._below[number] = below.data_size
            self._conditions.resync(number, below.data_size)

    def _forget(self, number: int, why: str) -> None:
        held = self._held.pop(number, None)
        if held is not None:
            self._nr_held -= held.length
            log.warning("zone %d: %d bytes that were not flushed are lost: %s", number, held.length, why)

    # Reads

    def read(self, offset: int, length: int) -> bytes:
        if not self._held:
            self._check_power()
            return self._device.read(offset, length)
        return b"".join(self._read_zone(*span) for span in self._spans(offset, length))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if self._held:
            buffer[:] = self.read(offset, len(buffer))
        else:
            self._check_power()
            self._device.read_into(offset, buffer)

    def _read_zone(self, number: int, within: int, length: int) -> bytes:
        with self._lock:
            self._check_power()
            held = self._held.get(number)
            if held is not None:
                if isinstance(held, _HeldSequential):
                    return self._read_sequential(number, held, within, length)
                return self._read_conventional(number, held, within, length)
        return self._device.read(self._zones[number].start + within, length)

    def _read_sequential(self, number: int, held: _HeldSequential, within: int, length: int) -> bytes:
        below = self._below[number]
        first = max(0, min(length, below - within))
        # Behind its write pointer the device below need not answer.
        head = self._device.read(self._zones[number].start + within, first) if first else b""
        at = within + first - below
        data = head + held.data[at : at + length - first]
        return data + bytes(length - len(data))

    def _read_conventional(self, number: int, held: _HeldConventional, within: int, length: int) -> bytes:
        data = bytearray(self._device.read(self._zones[number].start + within, length))
        block = self._info.block_size
        for at in range(within, within + length, block):
            if (changed := held.blocks.get(at)) is not None:
                data[at - within : at - within + block] = changed
        return bytes(data)

    # Writes

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check_writable()
        view = memoryview(data)
        done = 0
        for number, within, length in self._spans(offset, len(view)):
            with self._lock:
                self._check_power()
                fits = self._make_room(number, length)
                if self._zones[number].is_conventional:
                    self._hold_conventional(number, within, view[done : done + length])
                else:
                    self._hold_sequential(number, within, view[done : done + length])
                if not fits:
                    self._write_down(number)
            done += length

    def _hold_conventional(self, number: int, within: int, piece: memoryview) -> None:
        condition = self._conditions.condition(number)
        if condition is not NOT_WP:
            raise DeviceError(f"zone {number}: write to a zone that is {CONDITION_NAMES[condition]}")
        held = self._held.get(number)
        if not isinstance(held, _HeldConventional):
            held = self._held[number] = _HeldConventional(self._info.block_size)
        before = held.length
        block = self._info.block_size
        for at in range(0, len(piece), block):
            held.blocks[within + at] = bytes(piece[at : at + block])
        self._nr_held += held.length - before

    def _hold_sequential(self, number: int, within: int, piece: memoryview) -> None:
        self._conditions.begin_write(number, within, len(piece))
        held = self._held.get(number)
        if not isinstance(held, _HeldSequential):
            held = self._held[number] = _HeldSequential()
        held.data += piece
        self._nr_held += len(piece)
        self._conditions.complete_write(number)
        if self._info.max_active_zones is not None and self._conditions.condition(number) is FULL:
            # Another zone may become active now. After a power loss there must not be one too many.
            self._write_down(number)

    def _make_room(self, number: int, length: int) -> bool:
        """Write down what has been held for longest until *length* bytes more fit, or nothing is held.

        Return whether that came about. If not, other zones than *number*, which is about to be written, cannot be
        written down; that is nothing to tell its writer. Raises DeviceError if it is that zone itself.
        """
        if self._nr_held + length <= self._size:
            return True
        for one in list(self._held):
            over = self._nr_held + length - self._size
            if over <= 0:
                break
            try:
                self._write_down(one, max(PIECE_SIZE, over))
            except DeviceError as exc:
                if one == number:
                    raise
                log.warning("zone %d: what is held of it cannot be written down to make room: %s", one, exc)
                # It may all be down in spite of the error.
                if (held := self._held.pop(one, None)) is not None:
                    self._held[one] = held
        return not self._held or self._nr_held + length <= self._size

    def _write_down(self, number: int, length: int | None = None) -> None:
        """Write down *length* bytes of what is held of zone *number*, or as much as there is; all, if None.

        Raises DeviceError. What did go down is no longer held, the rest is.
        """
        held = self._held.get(number)
        if held is None:
            return
        length = held.length if length is None else min(length, held.length)
        try:
            if isinstance(held, _HeldSequential):
                self._write_down_sequential(number, held, length)
            else:
                self._write_down_blocks(number, held, list(held.blocks)[: -(-length // self._info.block_size)])
        finally:
            if not held.length:
                del self._held[number]

    def _write_down_sequential(self, number: int, held: _HeldSequential, length: int) -> None:
        start = self._zones[number].start
        try:
            while length:
                piece = bytes(held.data[: min(length, PIECE_SIZE)])
                try:
                    self._device.write(start + self._below[number], piece)
                except DeviceError:
                    self._take_what_went_down(number, held, len(piece))
                    raise
                self._went_down(number, held, len(piece))
                length -= len(piece)
        finally:
            self._close_below(number)

    def _went_down(self, number: int, held: _HeldSequential, length: int) -> None:
        del held.data[:length]
        self._below[number] += length
        self._nr_held -= length

    def _take_what_went_down(self, number: int, held: _HeldSequential, length: int) -> None:
        """After a failed write of *length* bytes: its beginning may be below all the same."""
        try:
            size = self._device.report_zones(number, 1)[0].data_size
        except DeviceError as exc:
            log.warning("zone %d: what a failed write left is not known: %s", number, exc)
            return
        if size is not None and 0 < size - self._below[number] <= length:
            self._went_down(number, held, size - self._below[number])

    def _write_down_blocks(self, number: int, held: _HeldConventional, blocks: Sequence[int]) -> None:
        """Write down these of the held *blocks*, neighbours in this order together."""
        start = self._zones[number].start
        size = self._info.block_size
        done = 0
        while done < len(blocks):
            end = done + 1
            while end < len(blocks) and blocks[end] == blocks[end - 1] + size and (end - done) * size < PIECE_SIZE:
                end += 1
            run = blocks[done:end]
            self._device.write(start + run[0], b"".join(held.blocks[at] for at in run))
            for at in run:
                del held.blocks[at]
            self._nr_held -= len(run) * size
            done = end

    def _close_below(self, number: int) -> None:
        if self._info.max_open_zones is None:
            return
        try:
            if self._device.report_zones(number, 1)[0].condition in OPEN_CONDITIONS:
                self._device.zone_mgmt(ZoneOp.CLOSE, number)
        except DeviceError as exc:
            # It stays open, and may keep another zone from being written down; that is an error then.
            log.warning("zone %d: could not be closed below the write cache: %s", number, exc)

    # Management and flushes

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self._check_writable()
        if not 0 <= number < len(self._zones):
            raise ValueError(f"zone {number} of {len(self._zones)}")
        with self._lock:
            self._check_power()
            after = self._conditions.check_manage(op, number)
            if op is ZoneOp.RESET:
                self._device.zone_mgmt(op, number)
                held = self._held.pop(number, None)
                self._nr_held -= held.length if held else 0
                self._below[number] = 0
            elif op is ZoneOp.FINISH:
                self._write_down(number)
                self._device.zone_mgmt(op, number)
                self._below[number] = self._zones[number].capacity
            self._conditions.complete_manage(number, after)

    def flush(self, number: int | None = None) -> None:
        errors = []
        with self._lock:
            self._check_power()
            for one in list(self._held) if number is None else [number]:
                try:
                    self._write_down(one)
                except DeviceError as exc:
                    # The other zones' data is not to be lost for it.
                    errors.append(exc)
        self._device.flush(number)
        if errors:
            raise errors[0]

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        numbers = list(numbers)
        with self._lock:
            self._check_power()
            for number in numbers:
                # Afterwards it could not go down, and was read before: it must be readable on.
                self._write_down(number)
            self._device.force_conditions(numbers, condition)
            for number in numbers:
                # A zone that gets well has a write pointer again, which may not have been known.
                self._adopt(number)

    # Power

    @property
    def has_write_cache(self) -> bool:
        return True

    def unflushed(self) -> list[Unflushed]:
        with self._lock:
            return [self._unflushed(number) for number in sorted(self._held)]

    def power_cut(self, keep: Keep) -> PowerCut:
        # A call that waits below may hold the lock, and nobody can be relied on to let it go on.
        self._device.interrupt()
        try:
            with self._lock:
                if not self._powered:
                    return PowerCut(())
                unflushed = [self._unflushed(number) for number in sorted(self._held)]
                chosen = choose(keep, unflushed, self._info.block_size)
                kept = [self._keep(zone, chosen[zone.number]) for zone in unflushed]
                self._held.clear()
                self._nr_held = 0
                self._powered = False
        except UserError:
            self._device.resume()
            raise
        return PowerCut(
            tuple(ZoneLoss(zone.number, zone.length, length) for zone, length in zip(unflushed, kept, strict=True))
        )

    def _unflushed(self, number: int) -> Unflushed:
        held = self._held[number]
        blocks = None if isinstance(held, _HeldSequential) else frozenset(held.blocks)
        return Unflushed(number, held.length, blocks)

    def _keep(self, zone: Unflushed, chosen: Kept) -> int:
        """Write down what is *chosen* of a zone that has unflushed data; return how many bytes that were."""
        number = zone.number
        held = self._held[number]
        try:
            if isinstance(held, _HeldConventional):
                assert not isinstance(chosen, int)
                self._write_down_blocks(number, held, sorted(chosen))
            elif chosen:
                assert isinstance(chosen, int)
                self._write_down_sequential(number, held, chosen)
        except DeviceError as exc:
            # Who lost power cannot be told of an error.
            log.warning("zone %d: less than was chosen survives the power cut: %s", number, exc)
        return zone.length - held.length

    def power_on(self) -> None:
        if self._powered:
            return  # whoever holds the lock
        with self._lock:
            if not self._powered:
                self._start()
                self._conditions.power_cycle()
                self._powered = True
        # Not before: a call that got stuck meanwhile could not be released.
        self._device.resume()

    def abandon(self) -> None:
        # Not under the lock: a call that waits below may hold it.
        self._device.abandon()

    def interrupt(self) -> None:
        self._device.interrupt()

    def resume(self) -> None:
        self._device.resume()

    def watch_stuck(self, watcher: Callable[[bool], None] | None) -> None:
        self._device.watch_stuck(watcher)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            if self._powered and self._held:
                self.flush()
        finally:
            self._device.close()

    # Checks

    def _check_power(self) -> None:
        if not self._powered:
            raise DeviceError(f"{self._info.name} has no power")

    def _check_writable(self) -> None:
        if self._info.read_only:
            raise DeviceError("the device is open read-only")

    def _spans(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range of the device at zone boundaries: zone number, offset in the zone, length. Raises ValueError."""
        info = self._info
        block = info.block_size
        if offset % block or length % block or offset < 0 or length <= 0 or offset + length > info.size:
            raise ValueError(f"{length} bytes at {offset}: not whole blocks of {block} within {info.size}")
        first, last = offset // info.zone_size, (offset + length - 1) // info.zone_size
        if first != last and not all(self._zones[number].is_conventional for number in range(first, last + 1)):
            raise ValueError(f"{length} bytes at {offset} cross a zone boundary")
        within = offset - first * info.zone_size
        for number in range(first, last + 1):
            piece = min(length, self._zones[number].size - within)
            yield number, within, piece
            within, length = 0, length - piece

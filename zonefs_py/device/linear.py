"""Zoned devices end to end, or slices of them, as one device: what dm-linear is for the kernel.

Zone numbers, starts and write pointers are rewritten in reports, and offsets in requests; nothing else. Whoever owns
the zones below keeps their conditions and limits.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.copy_command import check_command
from zonefs_py.device.linear_table import Slice, Table
from zonefs_py.device.power_cut import Keep, KeepChosen, Kept, PowerCut, Unflushed, ZoneLoss, choose
from zonefs_py.errors import DeviceError, TableChanged, UserError
from zonefs_py.zone import OPEN_CONDITIONS, CopyMethod, CopyRange, DeviceInfo, Zone, ZoneCondition, ZoneOp


class _Gate:
    """Lets any number of requests through, or one change of the whole device when none is under way."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        """Guards all below."""
        self._inside = 0
        self._closed = False
        self.refusal: str | None = None
        """Why nobody is let in, as a DeviceError. Changed only by who has closed the gate."""

    def __enter__(self) -> None:
        with self._condition:
            while self._closed:
                self._condition.wait()
            if self.refusal is not None:
                raise DeviceError(self.refusal)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._inside -= 1
            if self._closed and not self._inside:
                self._condition.notify_all()

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Wait until nobody is inside, and let nobody in."""
        with self._condition:
            while self._closed:
                self._condition.wait()
            self._closed = True
            while self._inside:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()


@contextlib.contextmanager
def _naming(device: ZonedDevice) -> Iterator[None]:
    """Say in a device error which part it came from: the zone numbers in it are the part's."""
    try:
        yield
    except DeviceError as exc:
        named = type(exc)(f"{device.info.name}: {exc}")
        named.completed, named.source_failed = exc.completed, exc.source_failed
        raise named from exc


class LinearDevice(ZonedDevice):
    """Slices of devices, one after the other, as one device that owns them.

    A command of a copy runs in one part or not at all. The limits of open and active zones are the smallest of the
    parts'; they are kept by each part for itself, where zones outside the slices count too.
    """

    def __init__(self, slices: Sequence[Slice], name: str | None = None) -> None:
        """Raises UserError if *slices* do not fit each other, DeviceError; the devices are then still the caller's."""
        self._gate = _Gate()
        self._table = Table(slices)
        """Read inside the gate, or by one whom a change in between does not matter to."""
        self._generation = 0
        self._info = self._make_info(name)
        self._closed = False
        self._withdrawn: Callable[[Iterable[int]], None] | None = None
        self._stuck_watcher: Callable[[bool], None] | None = None

    def _make_info(self, name: str | None) -> DeviceInfo:
        table = self._table
        infos = [device.info for device in table.devices]
        return DeviceInfo(
            kind="linear",
            name=name or "linear:" + "+".join(info.name for info in infos),
            size=table.size,
            nr_zones=table.nr_zones,
            zone_size=table.zone_size,
            block_size=table.block_size,
            max_open_zones=_smaller(info.max_open_zones for info in infos),
            max_active_zones=_smaller(info.max_active_zones for info in infos),
            read_only=any(info.read_only for info in infos),
            waits=any(info.waits for info in infos),
            serial="+".join(info.serial for info in infos),
            copy_methods=_common_methods(infos),
            copy_max_hw_bytes=min(info.copy_max_hw_bytes for info in infos),
            copy_max_range_hw_bytes=min(info.copy_max_range_hw_bytes for info in infos),
            copy_max_nr_ranges_hw=min(info.copy_max_nr_ranges_hw for info in infos),
            reflink_alignment=max(info.reflink_alignment for info in infos),
        )

    @property
    def info(self) -> DeviceInfo:
        return self._info

    # The table

    @property
    def slices(self) -> list[Slice]:
        """What lies where now, in order."""
        return [Slice(row.device, row.first, row.nr_zones) for row in self._table.rows]

    @property
    def generation(self) -> int:
        return self._total(self._generation, self._table)

    @staticmethod
    def _total(own: int, table: Table) -> int:
        return own + sum(device.generation for device in table.devices)

    def replace_table(self, slices: Sequence[Slice]) -> list[ZonedDevice]:
        """Put *slices* in the place of the present ones; return the devices that are used no more, open.

        Waits for requests under way, and holds new ones back meanwhile. Who replaces the table has moved the data: what
        is mounted above is not told. Copies that were planned before are refused from now on (`generation`).

        The device must look the same as before: raises UserError if zones, blocks, capacities, types, or anything
        else that `info` tells would change, DeviceError if a part cannot be reported. Nothing has changed then.
        """
        with self._gate.closed():
            old = self._table
            table = Table(slices)
            self._check_alike(table)
            # The number of changes below may be smaller in the new parts; the sum must grow all the same.
            self._generation = self._total(self._generation, old) + 1 - self._total(0, table)
            self._table = table
            self._watch_parts()
            unused = [device for device in old.devices if device not in table.devices]
        for device in unused:
            device.watch_backing(None)
            device.watch_stuck(None)
        if self._withdrawn is not None:
            self._withdrawn(range(table.nr_zones))
        return unused

    def _check_alike(self, table: Table) -> None:
        now = self._info
        infos = [device.info for device in table.devices]
        if (table.zone_size, table.block_size) != (now.zone_size, now.block_size) or table.shape != self._table.shape:
            raise UserError(f"{now.name}: the new table makes zones of other sizes, capacities or types")
        for name, here, there in (
            ("max open zones", now.max_open_zones, _smaller(info.max_open_zones for info in infos)),
            ("max active zones", now.max_active_zones, _smaller(info.max_active_zones for info in infos)),
            ("read-only", now.read_only, any(info.read_only for info in infos)),
        ):
            if here != there:
                raise UserError(f"{now.name}: the new table changes {name} from {here} to {there}")
        if any(info.waits for info in infos) and not now.waits:
            raise UserError(f"{now.name}: the new table has a device that waits, and none did before")
        missing = set(now.copy_methods) - set(_common_methods(infos))
        if missing:
            raise UserError(f"{now.name}: the new table cannot copy by {missing.pop().value}")
        if any(
            info.copy_max_hw_bytes < now.copy_max_hw_bytes
            or info.copy_max_range_hw_bytes < now.copy_max_range_hw_bytes
            or info.copy_max_nr_ranges_hw < now.copy_max_nr_ranges_hw
            for info in infos
        ):
            raise UserError(f"{now.name}: the new table has lower limits for copies")

    # Requests

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        found: list[Zone] = []
        with self._gate:
            table = self._table
            end = table.nr_zones if count is None else min(start + count, table.nr_zones)
            for row in table.rows:
                low, high = max(start, row.number), min(end, row.number + row.nr_zones)
                if low < high:
                    with _naming(row.device):
                        zones = row.device.report_zones(low - row.number + row.first, high - low)
                    number, shift = row.number - row.first, row.start - row.offset
                    found += [
                        Zone(
                            zone.number + number,
                            zone.start + shift,
                            zone.size,
                            zone.capacity,
                            zone.wp + shift,
                            zone.type,
                            zone.condition,
                        )
                        for zone in zones
                    ]
        return found

    def read(self, offset: int, length: int) -> bytes:
        found = []
        with self._gate:
            for device, there, piece in self._table.pieces(offset, length):
                with _naming(device):
                    found.append(device.read(there, piece))
        return found[0] if len(found) == 1 else b"".join(found)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        with self._gate:
            for device, there, piece in self._table.pieces(offset, len(buffer)):
                with _naming(device):
                    device.read_into(there, buffer[done : done + piece])
                done += piece

    def read_into_now(self, offset: int, buffer: memoryview) -> bool:
        done = 0
        with self._gate:
            for device, there, piece in self._table.pieces(offset, len(buffer)):
                with _naming(device):
                    if not device.read_into_now(there, buffer[done : done + piece]):
                        return False
                done += piece
        return True

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        done = 0
        with self._gate:
            for device, there, piece in self._table.pieces(offset, len(view)):
                with _naming(device):
                    device.write(there, view[done : done + piece])
                done += piece

    def write_bytes(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        done = 0
        with self._gate:
            table = self._table
            while done < len(view):
                number, within = divmod(offset + done, table.zone_size)
                device, there = table.zone(number)
                piece = view[done : done + table.zone_size - within]
                with _naming(device):
                    device.write_bytes(there * table.zone_size + within, piece)
                done += len(piece)

    def backing_descriptor(self, number: int) -> int | None:
        with self._gate:
            device, there = self._table.zone(number)
            with _naming(device):
                return device.backing_descriptor(there)

    def watch_backing(self, withdrawn: Callable[[Iterable[int]], None] | None) -> None:
        self._withdrawn = withdrawn
        self._watch_parts()

    def _watch_parts(self) -> None:
        for device in self._table.devices:
            watch = None if self._withdrawn is None else functools.partial(self._withdraw_of, device)
            device.watch_backing(watch)
            device.watch_stuck(self._stuck_watcher)

    def _withdraw_of(self, device: ZonedDevice, theirs: Iterable[int]) -> None:
        """Pass on which zones of *device* are withdrawn, as far as they are zones of ours."""
        zones = self._numbers(device, theirs)
        if zones and self._withdrawn is not None:
            self._withdrawn(zones)

    def _numbers(self, device: ZonedDevice, theirs: Iterable[int]) -> list[int]:
        """Our numbers of zones of *device*, of those that are ours."""
        return [
            row.number + number - row.first
            for number in theirs
            for row in self._table.rows
            if row.device is device and row.first <= number < row.first + row.nr_zones
        ]

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        with self._gate:
            device, there = self._table.zone(number)
            with _naming(device):
                device.zone_mgmt(op, there)

    def flush(self, number: int | None = None) -> None:
        with self._gate:
            if number is not None:
                device, there = self._table.zone(number)
                with _naming(device):
                    device.flush(there)
                return
            errors = []
            for device in self._table.devices:
                try:
                    with _naming(device):
                        device.flush()
                except DeviceError as exc:
                    # The other parts' data is not to be lost for it.
                    errors.append(exc)
            if errors:
                raise errors[0]

    def can_copy(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        check_command(ranges, self._info)
        with self._gate:
            where = self._one_part(self._table, ranges)
            return where is not None and where[0].can_copy(where[1], method)

    def copy_waits(self, ranges: Sequence[CopyRange], method: CopyMethod) -> bool:
        with self._gate:
            where = self._one_part(self._table, ranges)
            return where is None or where[0].copy_waits(where[1], method)

    def copy(self, ranges: Sequence[CopyRange], method: CopyMethod, generation: int | None = None) -> None:
        check_command(ranges, self._info)
        with self._gate:
            table = self._table
            # Asked once: a part below may change its table too, and then it refuses by the number that it gets.
            below = {device: device.generation for device in table.devices}
            now = self._generation + sum(below.values())
            if generation is not None and generation != now:
                raise TableChanged(
                    f"{self._info.name}: the copy was planned under table {generation}, now it is table {now}"
                )
            where = self._one_part(table, ranges)
            if where is None:
                raise ValueError(f"the ends of {list(ranges)[:4]} are not in one part")
            device, there = where
            with _naming(device):
                device.copy(there, method, None if generation is None else below[device])

    def _one_part(self, table: Table, ranges: Sequence[CopyRange]) -> tuple[ZonedDevice, list[CopyRange]] | None:
        """The device that has all ends, with the ranges as they are there; None if there is none."""
        to = table.row_at(ranges[0].destination)
        there = []
        for source, destination, length in ranges:
            row = table.row_at(source)
            if row.device is not to.device:
                return None
            there.append(
                CopyRange(source - row.start + row.offset, destination - to.start + to.offset, length),
            )
        return to.device, there

    def copy_out(self, number: int, length: int, descriptor: int, progress: Callable[[int], None]) -> bool:
        with self._gate:
            device, there = self._table.zone(number)
            with _naming(device):
                return device.copy_out(there, length, descriptor, progress)

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        """All zones of one part change or none; where a part fails, those before it have changed."""
        with self._gate:
            by_device: dict[ZonedDevice, list[int]] = {}
            for number in numbers:
                device, there = self._table.zone(number)
                by_device.setdefault(device, []).append(there)
            for device, those in by_device.items():
                with _naming(device):
                    device.force_conditions(those, condition)

    def abandon(self) -> None:
        # Not through the gate: it may be held by a call that waits.
        for device in self._table.devices:
            device.abandon()

    def interrupt(self) -> None:
        for device in self._table.devices:
            device.interrupt()

    def resume(self) -> None:
        for device in self._table.devices:
            device.resume()

    @property
    def has_write_cache(self) -> bool:
        return any(device.has_write_cache for device in self._table.devices)

    def unflushed(self) -> list[Unflushed]:
        found = [zone for device in self._table.devices for zone in self._ours(device, device.unflushed())]
        return sorted(found, key=lambda zone: zone.number)

    def _ours(self, device: ZonedDevice, theirs: Iterable[Unflushed]) -> Iterator[Unflushed]:
        for zone in theirs:
            for number in self._numbers(device, [zone.number]):
                yield Unflushed(number, zone.length, zone.blocks)

    def power_cut(self, keep: Keep) -> PowerCut:
        """Do what `ZonedDevice.power_cut` says to all parts at one moment. A part without a cache loses nothing."""
        if not self.has_write_cache:
            raise self._no_cache()
        # Or calls that wait would keep the gate open.
        self.interrupt()
        try:
            with self._gate.closed():
                if self._gate.refusal is not None:
                    return PowerCut(())
                chosen = choose(keep, self.unflushed(), self._info.block_size)
                losses = [loss for device in self._table.devices for loss in self._cut_part(device, chosen)]
                self._gate.refusal = f"{self._info.name} has no power"
        except UserError:
            self.resume()
            raise
        return PowerCut(tuple(sorted(losses, key=lambda loss: loss.number)))

    def _cut_part(self, device: ZonedDevice, chosen: Mapping[int, Kept]) -> Iterator[ZoneLoss]:
        if not device.has_write_cache:
            return
        theirs = {}
        for number, kept in chosen.items():
            owner, there = self._table.zone(number)
            if owner is device:
                theirs[there] = kept
        for loss in device.power_cut(KeepChosen(theirs)).zones:
            for number in self._numbers(device, [loss.number]):
                yield replace(loss, number=number)

    def power_on(self) -> None:
        if not self.has_write_cache:
            raise self._no_cache()
        if self._gate.refusal is None:
            return  # whoever is inside
        with self._gate.closed():
            for device in self._table.devices:
                with _naming(device):
                    if device.has_write_cache:
                        device.power_on()
                    else:
                        _close_zones(device)
            self._gate.refusal = None
        self.resume()

    def watch_stuck(self, watcher: Callable[[bool], None] | None) -> None:
        self._stuck_watcher = watcher
        self._watch_parts()

    def close(self) -> None:
        """Close all parts, also when closing one of them fails."""
        if not self._closed:
            self._closed = True
            with contextlib.ExitStack() as stack:
                for device in self._table.devices:
                    stack.callback(device.close)


def _close_zones(device: ZonedDevice) -> None:
    """Close the zones of *device* that are open, as a loss of power does."""
    if not device.info.read_only:
        for zone in device.report_zones():
            if zone.condition in OPEN_CONDITIONS:
                device.zone_mgmt(ZoneOp.CLOSE, zone.number)


def _smaller(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _common_methods(infos: Sequence[DeviceInfo]) -> tuple[CopyMethod, ...]:
    """What all can do, in the order of the first."""
    return tuple(method for method in infos[0].copy_methods if all(method in info.copy_methods for info in infos))

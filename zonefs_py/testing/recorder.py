"""A device that writes down which calls it is asked to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from zonefs_py.device.base import ZonedDevice
from zonefs_py.testing.calls import Call, FlushCall, ManageCall, WriteCall
from zonefs_py.zone import DeviceInfo, Zone, ZoneOp


class RecordingDevice(ZonedDevice):
    """Another device, which it owns, and every successful call on it that a power cut has to do with.

    One call at a time is let through, so that there is one order of them. The device below must be one whose refusals
    change nothing, such as a `MemoryDevice`. A copy is recorded as the read and write that it is made of.
    """

    def __init__(self, device: ZonedDevice, before_call: Callable[[int], None] | None = None) -> None:
        """*before_call* is called with the number of calls so far, before each that is recorded."""
        self._device = device
        self._before_call = before_call
        self._lock = threading.Lock()
        """Guards ``calls``, and is held while a call is done: their order here is the one in which they happened."""
        self.calls: list[Call] = []
        """All calls so far; a write across zones is one for each zone."""
        self._info = replace(
            device.info,
            copy_methods=(),
            copy_max_hw_bytes=0,
            copy_max_range_hw_bytes=0,
            copy_max_nr_ranges_hw=0,
            reflink_alignment=0,
        )

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        return self._device.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        return self._device.read(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._device.read_into(offset, buffer)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        zone_size = self._info.zone_size
        view = memoryview(data)
        with self._lock:
            self._announce()
            self._device.write(offset, data)
            done = 0
            while done < len(view):
                zone, within = divmod(offset + done, zone_size)
                piece = view[done : done + zone_size - within]
                self.calls.append(WriteCall(zone, within, bytes(piece)))
                done += len(piece)

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        if op in (ZoneOp.OPEN, ZoneOp.CLOSE):
            self._device.zone_mgmt(op, number)
            return
        with self._lock:
            self._announce()
            self._device.zone_mgmt(op, number)
            self.calls.append(ManageCall(op, number))

    def flush(self, number: int | None = None) -> None:
        with self._lock:
            self._announce()
            self._device.flush(number)
            self.calls.append(FlushCall(number))

    def abandon(self) -> None:
        self._device.abandon()

    def interrupt(self) -> None:
        self._device.interrupt()

    def resume(self) -> None:
        self._device.resume()

    def watch_stuck(self, watcher: Callable[[bool], None] | None) -> None:
        self._device.watch_stuck(watcher)

    def close(self) -> None:
        self._device.close()

    def _announce(self) -> None:
        if self._before_call is not None:
            self._before_call(len(self.calls))

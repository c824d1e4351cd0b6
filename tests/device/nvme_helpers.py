"""What stands in for a controller and a kernel in the tests of NVMe copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from tests.device.failing import FailingDevice
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.nvme_copy import COPY_OPCODE, NvmeCommand, decode_copy, encode_sources
from zonefs_py.device.nvme_status import Completion
from zonefs_py.device.nvme_target import CopyTarget, TargetLimits
from zonefs_py.errors import DeviceError
from zonefs_py.zone import Zone, ZoneCondition, ZoneOp


class ScriptedNamespace:
    """A target that remembers its Copy commands, and ends one otherwise than it would."""

    nsid = 1

    def __init__(self, device: ZonedDevice, limits: TargetLimits) -> None:
        self.target = CopyTarget(device, limits)
        self.commands: list[NvmeCommand] = []
        self.answer: Callable[[NvmeCommand], Completion] | None = None
        """Answers Copy commands instead of the target."""
        self.around: Callable[[int, bool], None] | None = None
        """Called with the first block of the destination, with True before a Copy command and with False after it."""
        self._lock = threading.Lock()
        """Guards ``commands``."""

    def submit(self, command: NvmeCommand) -> tuple[Completion, bytes]:
        if command.opcode != COPY_OPCODE:
            return self.target.submit(command)
        with self._lock:
            self.commands.append(command)
        destination = decode_copy(command).destination
        if self.around is not None:
            self.around(destination, True)
        try:
            return self.target.submit(command) if self.answer is None else (self.answer(command), b"")
        finally:
            if self.around is not None:
                self.around(destination, False)

    def fail(self, nr_ranges: int, status: int, result: int | None = None) -> None:
        """Let Copy commands copy *nr_ranges* ranges, and then end with *status*; dword 0 says so, or is *result*."""

        def answer(command: NvmeCommand) -> Completion:
            request = decode_copy(command)
            if nr_ranges:
                part = encode_sources(self.nsid, request.destination, request.ranges[:nr_ranges])
                assert self.target.submit(part)[0] == Completion(0, 0)
            return Completion(status, nr_ranges if result is None else result)

        self.answer = answer


class PluggedDevice(FailingDevice):
    """A device behind Linux's zone write plugs: write pointers that know nothing of what goes around them.

    As measured on Linux 6.12: a write to a zone that was written before, but not up to where its write pointer is now,
    fails; after the next report of the zone it succeeds.
    """

    def __init__(self, inner: ZonedDevice) -> None:
        super().__init__(inner)
        self.plugs: dict[int, int] = {}
        """Zones with a plug, and its write pointer."""
        self.failed: set[int] = set()
        """Zones of which no write gets through before they are reported."""
        self.refused = 0
        """How many writes did not get through."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        number = offset // self.info.zone_size
        if number in self.failed or self.plugs.get(number, offset) != offset:
            self.failed.add(number)
            self.refused += 1
            raise DeviceError(f"zone {number}: write plug")
        super().write(offset, data)
        zone = self.inner.report_zones(number, 1)[0]
        if zone.has_write_pointer:
            self.plugs[number] = zone.wp
        else:
            self.plugs.pop(number, None)

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        zones = super().report_zones(start, count)
        for zone in zones:
            if zone.number in self.failed:
                self.failed.remove(zone.number)
                self.plugs[zone.number] = zone.wp
        return zones

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        super().zone_mgmt(op, number)
        if op in (ZoneOp.RESET, ZoneOp.FINISH):
            self.plugs.pop(number, None)

    def force_conditions(self, numbers: Iterable[int], condition: ZoneCondition | None) -> None:
        self.inner.force_conditions(numbers, condition)

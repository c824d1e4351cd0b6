"""A device that fails when it is told to: the next write after some blocks of it, or the next read."""

from __future__ import annotations

from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import DeviceError
from zonefs_py.zone import DeviceInfo, Zone, ZoneOp


class FaultyDevice(ZonedDevice):
    """Another device, and at most one fault of each kind at a time; a fault strikes once."""

    def __init__(self, inner: ZonedDevice) -> None:
        self.inner = inner
        self._blocks_until_write_fault: int | None = None
        self._read_fault = False

    def fail_next_write(self, after_blocks: int) -> None:
        """Fail the next write when *after_blocks* blocks of it are written, or its last block at the latest."""
        self._blocks_until_write_fault = after_blocks

    def fail_next_read(self) -> None:
        """Fail the next read."""
        self._read_fault = True

    def disarm(self) -> bool:
        """Forget faults that did not strike; return whether there were any."""
        armed = self._blocks_until_write_fault is not None or self._read_fault
        self._blocks_until_write_fault = None
        self._read_fault = False
        return armed

    @property
    def info(self) -> DeviceInfo:
        return self.inner.info

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        return self.inner.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        if self._read_fault:
            self._read_fault = False
            raise DeviceError(f"read of {length} bytes at {offset} fails as asked for")
        return self.inner.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        blocks = self._blocks_until_write_fault
        if blocks is None:
            self.inner.write(offset, data)
            return
        self._blocks_until_write_fault = None
        block_size = self.info.block_size
        done = min(blocks * block_size, len(data) - block_size)
        if done:
            self.inner.write(offset, bytes(data[:done]))
        raise DeviceError(f"write of {len(data)} bytes at {offset} fails after {done} as asked for")

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        self.inner.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        self.inner.flush(number)

    def close(self) -> None:
        self.inner.close()

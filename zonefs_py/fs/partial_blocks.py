"""Reads and writes of any bytes of a file on a device that takes whole blocks only."""

from __future__ import annotations

from zonefs_py.device.base import ZonedDevice
from zonefs_py.fs.file import ZoneFile


def read_bytes(device: ZonedDevice, file: ZoneFile, offset: int, length: int) -> bytes:
    """Return *length* bytes at *offset* of *file*, whose lock is held. Raises DeviceError."""
    # The device takes whole blocks only, a buffered read any bytes.
    block = file.block_size
    before = offset % block
    after = -(offset + length) % block
    data = device.read(file.start + offset - before, before + length + after)
    return data[before : before + length] if before or after else data


def read_bytes_now(device: ZonedDevice, file: ZoneFile, offset: int, buffer: memoryview) -> bool:
    """Fill *buffer* from *offset* of *file*, whose lock is held, unless that would wait for a disk; whether it did.

    Raises DeviceError.
    """
    block = file.block_size
    before = offset % block
    after = -(offset + len(buffer)) % block
    if not before and not after:
        return device.read_into_now(file.start + offset, buffer)
    whole = memoryview(bytearray(before + len(buffer) + after))
    done = device.read_into_now(file.start + offset - before, whole)
    buffer[:] = whole[before : before + len(buffer)]
    return done

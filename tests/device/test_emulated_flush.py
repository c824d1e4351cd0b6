"""The emulated device in a directory: what has to be made durable, and when it is."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from pathlib import Path

import pytest

from tests.descriptors import opened
from tests.device.conformance import geometry
from tests.device.directories import BLOCK, FIRST, MIB, SIZE, zone_file
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.errors import DeviceError
from zonefs_py.zone import CopyMethod, CopyRange, Geometry, ZoneOp

NR_CACHESTAT = 451
"""cachestat(2), since Linux 6.5; the same number on every architecture."""


def dirty_pages(file: Path) -> int:
    """How many pages of a file the host has in memory only. Skips the test where the kernel does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    everything, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    with opened(file, os.O_RDONLY) as descriptor:
        if libc.syscall(NR_CACHESTAT, descriptor, everything, counts, 0):
            pytest.skip(f"cachestat: {os.strerror(ctypes.get_errno())}")
    return counts[1] + counts[2]


def test_a_flush_beside_a_write_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    size = 128 * MIB
    create_device(tmp_path / "disk", Geometry(size, size, 2, 1, BLOCK, size))
    file = tmp_path / "disk" / "seq-000001"
    with open_device(tmp_path / "disk") as device:
        writer = threading.Thread(target=device.write, args=(size, bytes(size)))
        writer.start()
        while not file.stat().st_size:
            assert writer.is_alive() or file.stat().st_size
        device.flush(1)
        writer.join()
        # As an unmount does.
        device.flush()
        assert dirty_pages(file) == 0


def test_a_flush_goes_on_behind_a_zone_that_fails(tmp_path: Path) -> None:
    create_device(tmp_path / "disk", geometry(zones=40, conventional=2))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # So that the device keeps few files open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, limits[1]))
    try:
        device = open_device(tmp_path / "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def waits(number: int) -> bool:
        return device.copy_waits([CopyRange(number * SIZE, 39 * SIZE, BLOCK)], CopyMethod.REFLINK)

    with device:
        device.write(FIRST * SIZE, bytes(BLOCK))
        zone_file(tmp_path / "disk", FIRST).rename(tmp_path / "elsewhere")
        for number in range(FIRST + 1, 39):
            device.write(number * SIZE, bytes(BLOCK))
        for _ in range(2):
            with pytest.raises(DeviceError, match="No such file"):
                device.flush()
            assert [number for number in range(FIRST, 39) if waits(number)] == [FIRST], "what is not on the disk yet"
        (tmp_path / "elsewhere").rename(zone_file(tmp_path / "disk", FIRST))
        device.flush()
        assert not waits(FIRST)


class Disk:
    """Stands in for fdatasync(2), which it calls: counts the calls, and makes one wait if it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushes = 0
        self.waits = threading.Event()
        """Set when a call waits, before it flushes."""
        self.go_on = threading.Event()
        self._flush = os.fdatasync
        self._holds = False
        monkeypatch.setattr(os, "fdatasync", self)

    def hold_next(self) -> None:
        self._holds = True

    def __call__(self, descriptor: int) -> None:
        self.flushes += 1
        if self._holds:
            self._holds = False
            self.waits.set()
            assert self.go_on.wait(60)
        self._flush(descriptor)


def test_a_zone_is_flushed_if_it_may_not_be_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    with open_device(path) as device:
        flushed = []
        for change in (
            lambda: None,  # of who was here before nothing is known
            lambda: None,
            lambda: device.write(FIRST * SIZE, bytes(BLOCK)),
            lambda: device.read(FIRST * SIZE, BLOCK),
            lambda: device.write((FIRST + 1) * SIZE, bytes(BLOCK)),  # another zone
            lambda: device.zone_mgmt(ZoneOp.FINISH, FIRST),
            lambda: device.zone_mgmt(ZoneOp.RESET, FIRST),
            lambda: device.copy([CopyRange((FIRST + 1) * SIZE, FIRST * SIZE, BLOCK)], CopyMethod.HOST),
        ):
            change()
            before = disk.flushes
            device.flush(FIRST)
            flushed.append(disk.flushes - before)
    assert flushed == [1, 0, 1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("number", [FIRST, None], ids=["of the zone", "of all"])
def test_a_flush_does_not_return_before_one_that_took_its_data(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    disk = Disk(monkeypatch)
    with open_device(path) as device:
        device.flush(FIRST)
        device.write(FIRST * SIZE, bytes(BLOCK))
        disk.hold_next()
        slow = threading.Thread(target=device.flush, args=(FIRST,))
        slow.start()
        assert disk.waits.wait(60)
        before = disk.flushes
        device.flush(number)
        assert disk.flushes == before + 1, "nothing was durable yet"
        # What is written beside a flush is not known to be in it.
        device.write(FIRST * SIZE + BLOCK, bytes(BLOCK))
        disk.go_on.set()
        slow.join()
        device.flush(number)
        assert disk.flushes == before + 2


def test_an_older_flush_says_nothing_about_what_a_newer_one_took(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone is written beside the first flush; the second takes that, and the first ends before it."""
    disk = Disk(monkeypatch)
    with open_device(path) as device:
        disk.hold_next()
        slow = threading.Thread(target=device.flush, args=(FIRST,))
        slow.start()
        assert disk.waits.wait(60)
        device.write(FIRST * SIZE, bytes(BLOCK))
        flush = disk._flush

        def flush_beside(descriptor: int) -> None:
            # The first one ends within the second.
            disk.go_on.set()
            slow.join()
            before = disk.flushes
            device.flush(FIRST)
            assert disk.flushes == before + 1, "the second has not flushed it yet"
            flush(descriptor)

        calls = iter([flush_beside])
        monkeypatch.setattr(disk, "_flush", lambda descriptor: next(calls, flush)(descriptor))
        device.flush(FIRST)
        before = disk.flushes
        device.flush(FIRST)
        assert disk.flushes == before, "all is durable"

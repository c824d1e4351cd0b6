"""libzbd's structures and failures, with the library itself but without a zoned device."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.device import _libzbd
from zonefs_py.device.libzbd import ZbdHandle, check_library, parse_zones
from zonefs_py.errors import DeviceError, UserError
from zonefs_py.zone import Zone, ZoneCondition, ZoneType

ZONE_SIZE = 1 << 28
CONDITIONS: dict[ZoneType, list[ZoneCondition]] = {
    ZoneType.CONVENTIONAL: [ZoneCondition.NOT_WP, ZoneCondition.READONLY, ZoneCondition.OFFLINE],
    ZoneType.SEQ_WRITE_REQUIRED: [condition for condition in ZoneCondition if condition is not ZoneCondition.NOT_WP],
    ZoneType.SEQ_WRITE_PREFERRED: [condition for condition in ZoneCondition if condition is not ZoneCondition.NOT_WP],
}


@st.composite
def reports(draw: st.DrawFn) -> list[Zone]:
    """Some neighbouring zones."""
    first = draw(st.integers(0, 1 << 20))
    zones = []
    for number in range(first, first + draw(st.integers(0, 20))):
        type_: ZoneType = draw(st.sampled_from(list(ZoneType)))
        start = number * ZONE_SIZE
        capacity = draw(st.integers(1, ZONE_SIZE))
        wp = start + draw(st.integers(0, ZONE_SIZE))
        zones.append(Zone(number, start, ZONE_SIZE, capacity, wp, type_, draw(st.sampled_from(CONDITIONS[type_]))))
    return zones


def pack(zones: list[Zone]) -> bytes:
    """The report as a C program would have it."""
    return b"".join(
        bytes(_libzbd.ZbdZone(zone.start, zone.size, zone.capacity, zone.wp, 3, zone.type, zone.condition))
        for zone in zones
    )


@given(reports())
def test_a_report_is_taken_apart(zones: list[Zone]) -> None:
    assert parse_zones(pack(zones), zones[0].number if zones else 0, ZONE_SIZE) == zones


GOOD = Zone(5, 5 * ZONE_SIZE, ZONE_SIZE, ZONE_SIZE, 0, ZoneType.SEQ_WRITE_REQUIRED, ZoneCondition.FULL)


@pytest.mark.parametrize(
    "change",
    [
        {"start": 4 * ZONE_SIZE},
        {"start": 5 * ZONE_SIZE + 512},
        {"size": 0},
        {"size": 2 * ZONE_SIZE},
        {"capacity": 0},
        {"capacity": ZONE_SIZE + 512},
        {"type": 0},
        {"type": 4},
        {"condition": 5},
        {"condition": 255},
    ],
    ids=str,
)
def test_what_no_zone_can_be_is_an_error(change: dict[str, int]) -> None:
    zone = GOOD._replace(**change)  # type: ignore[arg-type]  # each value is of its field's type
    with pytest.raises(DeviceError, match="zone 5: the device reports"):
        parse_zones(pack([zone]), 5, ZONE_SIZE)
    assert parse_zones(pack([GOOD]), 5, ZONE_SIZE) == [GOOD]


def test_the_format_is_the_structure() -> None:
    assert struct.calcsize(_libzbd.ZONE_FORMAT) == ctypes.sizeof(_libzbd.ZbdZone)


def test_a_larger_structure_is_noticed() -> None:
    guarded = _libzbd.GuardedInfo()
    assert guarded.is_intact
    ctypes.memset(ctypes.addressof(guarded), 0, ctypes.sizeof(_libzbd.ZbdInfo))
    assert guarded.is_intact
    ctypes.memset(ctypes.addressof(guarded), 0, ctypes.sizeof(_libzbd.ZbdInfo) + 1)
    assert not guarded.is_intact


def test_a_library_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(UserError, match=r"need libzbd \(libnonesuch.so.2\).*apt-get install libzbd2"):
        check_library("libnonesuch.so.2")


def test_another_library_is_refused() -> None:
    with pytest.raises(UserError, match="no function zbd_open: it is not libzbd 2"):
        check_library("libc.so.6")


def test_refusals_without_a_reason() -> None:
    # A descriptor that is not libzbd's: it returns -1 and leaves errno alone.
    library = _libzbd.load()
    found = ctypes.c_uint(1)
    with pytest.raises(OSError, match="zbd_report_zones failed without a reason"):
        _libzbd.call(library.zbd_report_zones, -1, 0, 0, 0, (_libzbd.ZbdZone * 1)(), ctypes.byref(found))
    with pytest.raises(OSError, match="zbd_zones_operation failed without a reason"):
        _libzbd.call(library.zbd_zones_operation, -1, 1, 0, 4096)


def test_what_is_no_block_device_is_refused() -> None:
    with pytest.raises(OSError):  # noqa: PT011  (any: what the C library's realpath leaves)
        ZbdHandle("/dev/null", os.O_RDONLY)


def test_a_reason_is_kept() -> None:
    with pytest.raises(FileNotFoundError):
        ZbdHandle("/dev/nonesuch/device", os.O_RDONLY)


def test_an_errno_as_the_result_is_understood() -> None:
    function = _libzbd.load().zbd_report_zones
    check: Any = function.errcheck
    with pytest.raises(PermissionError):
        check(-13, function, ())
    assert check(0, function, ()) == 0


def test_descriptors_beyond_its_table_are_never_given_to_libzbd() -> None:
    program = """
import os, resource
from zonefs_py.device.libzbd import ZbdHandle
from zonefs_py.errors import UserError
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
while os.dup(0) < 1000:
    pass
try:
    ZbdHandle("/dev/null", os.O_RDONLY)
except UserError as refused:
    print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "libzbd needs a file descriptor below 1023, and 1001 files are open\n"

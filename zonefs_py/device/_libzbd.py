"""libzbd's C interface, declared for ctypes, and nothing else: what its header says, and how its functions fail.

libzbd (LGPL) is what Linux's zoned storage tools use; Debian has it as libzbd2. It is loaded when the first block
device is opened: whoever has none does not need it. Only functions that the library exports are here; its helpers
for single zone operations are inline in the header.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

from zonefs_py.errors import UserError

LIBRARY = "libzbd.so.2"
PACKAGE = "libzbd2"

MAX_DESCRIPTOR = 1023
"""libzbd keeps what it knows of a device in a table of 1024 entries by descriptor, and writes past its end."""

HOST_MANAGED = 1
HOST_AWARE = 2

REPORT_ALL = 0


class ZbdZone(ctypes.Structure):
    """``struct zbd_zone``, all positions in bytes from the start of the device."""

    _pack_ = 1
    _fields_ = (
        ("start", ctypes.c_ulonglong),
        ("len", ctypes.c_ulonglong),
        ("capacity", ctypes.c_ulonglong),
        ("wp", ctypes.c_ulonglong),
        ("flags", ctypes.c_uint),
        ("type", ctypes.c_uint),
        ("cond", ctypes.c_uint),
        ("reserved", ctypes.c_uint8 * 20),
    )


ZONE_FORMAT = "=QQQQIII20x"
"""`ZbdZone` for `struct`: a report of 100,000 zones is taken apart in one go."""


class ZbdInfo(ctypes.Structure):
    """``struct zbd_info``. Limits: 0 is none, all bits set is unknown."""

    _pack_ = 1
    _fields_ = (
        ("vendor_id", ctypes.c_char * 32),
        ("nr_sectors", ctypes.c_ulonglong),
        ("nr_lblocks", ctypes.c_ulonglong),
        ("nr_pblocks", ctypes.c_ulonglong),
        ("zone_size", ctypes.c_ulonglong),
        ("zone_sectors", ctypes.c_uint),
        ("lblock_size", ctypes.c_uint),
        ("pblock_size", ctypes.c_uint),
        ("nr_zones", ctypes.c_uint),
        ("max_nr_open_zones", ctypes.c_uint),
        ("max_nr_active_zones", ctypes.c_uint),
        ("model", ctypes.c_uint),
        ("reserved", ctypes.c_uint8 * 36),
    )


# As a C compiler has them for the header of version 2.0.4.
assert ctypes.sizeof(ZbdZone) == 64
assert ctypes.sizeof(ZbdInfo) == 128


class GuardedInfo(ctypes.Structure):
    """A `ZbdInfo` with room behind it: a library with a larger one writes there, and not over our memory."""

    _fields_ = (("info", ZbdInfo), ("guard", ctypes.c_uint8 * 384))

    def __init__(self) -> None:
        super().__init__()
        ctypes.memset(ctypes.addressof(self), _GUARD, ctypes.sizeof(self))

    @property
    def is_intact(self) -> bool:
        """Whether nothing was written behind the structure."""
        return bytes(self.guard) == bytes([_GUARD]) * len(self.guard)


_GUARD = 0xA5


def _fail(number: int, function: str) -> OSError:
    # libzbd also says no without a reason: then errno is what we set it to before the call.
    return OSError(number, os.strerror(number) if number else f"{function} failed without a reason")


def _check_minus_one(result: int, function: Any, _arguments: tuple[Any, ...]) -> int:
    """-1, with errno set or not."""
    if result < 0:
        raise _fail(ctypes.get_errno(), function.__name__)
    return result


def _check_report(result: int, function: Any, _arguments: tuple[Any, ...]) -> int:
    """-1, with errno set or not, or a negative errno. (An ioctl's EPERM is -1 too, and leaves errno set.)"""
    if result < 0:
        raise _fail(ctypes.get_errno() if result == -1 else -result, function.__name__)
    return result


def call(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function of `load`'s with errno cleared. Raises OSError, whose errno is 0 if libzbd gave no reason."""
    ctypes.set_errno(0)
    return function(*arguments)


@functools.cache
def load(name: str = LIBRARY) -> ctypes.CDLL:
    """Return libzbd with its functions declared. Raises UserError that names the package."""
    try:
        library = ctypes.CDLL(name, use_errno=True)
    except OSError:
        raise UserError(
            f"block devices need libzbd ({name}), which is not installed; on Debian: apt-get install {PACKAGE}"
        ) from None
    # off_t has 64 bits: the library is built with large files on every machine.
    prototypes: dict[str, tuple[Any, list[Any], Any]] = {
        "zbd_open": (ctypes.c_int, [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p], _check_minus_one),
        "zbd_close": (None, [ctypes.c_int], None),
        "zbd_report_zones": (
            ctypes.c_int,
            [
                ctypes.c_int,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_int,
                ctypes.POINTER(ZbdZone),
                ctypes.POINTER(ctypes.c_uint),
            ],
            _check_report,
        ),
        "zbd_zones_operation": (
            ctypes.c_int,
            [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64],
            _check_minus_one,
        ),
    }
    for function_name, (result, arguments, check) in prototypes.items():
        try:
            function = getattr(library, function_name)
        except AttributeError:
            raise UserError(
                f"{name} has no function {function_name}: it is not libzbd 2; on Debian: apt-get install {PACKAGE}"
            ) from None
        function.restype, function.argtypes = result, arguments
        if check is not None:
            function.errcheck = check
    return library

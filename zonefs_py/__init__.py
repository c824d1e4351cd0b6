"""Linux zonefs in userspace: zoned block devices, real or emulated, as a filesystem of zone files.

The Python API is the file system itself, without a mount::

    from zonefs_py import Filesystem, open_device

    with Filesystem(open_device("disk")) as fs:
        handle = fs.open("seq/0", os.O_RDWR | os.O_DIRECT)
        fs.write(handle, 0, bytes(4096))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ErrorsPolicy": "zonefs_py.config",
    "FormatOptions": "zonefs_py.config",
    "MountOptions": "zonefs_py.config",
    "Filesystem": "zonefs_py.fs.filesystem",
    "AttributeChanges": "zonefs_py.fs.attributes",
    "format_device": "zonefs_py.fs.format",
    "MemoryDevice": "zonefs_py.device.memory",
    "create_device": "zonefs_py.device.directory",
    "open_device": "zonefs_py.device.directory",
    "open_stack": "zonefs_py.device.stack",
    "Geometry": "zonefs_py.zone",
    "ZonefsError": "zonefs_py.errors",
    "CopyRangesError": "zonefs_py.control.copy_ranges",
    "copy_ranges": "zonefs_py.control.copy_ranges",
    "MountControl": "zonefs_py.control.client",
    "FaultRule": "zonefs_py.device.fault_rules",
}

__all__ = [
    "AttributeChanges",
    "CopyRangesError",
    "ErrorsPolicy",
    "FaultRule",
    "Filesystem",
    "FormatOptions",
    "Geometry",
    "MemoryDevice",
    "MountControl",
    "MountOptions",
    "ZonefsError",
    "copy_ranges",
    "create_device",
    "format_device",
    "open_device",
    "open_stack",
]

if TYPE_CHECKING:
    from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
    from zonefs_py.control.client import MountControl
    from zonefs_py.control.copy_ranges import CopyRangesError, copy_ranges
    from zonefs_py.device.directory import create_device, open_device
    from zonefs_py.device.fault_rules import FaultRule
    from zonefs_py.device.memory import MemoryDevice
    from zonefs_py.device.stack import open_stack
    from zonefs_py.errors import ZonefsError
    from zonefs_py.fs.attributes import AttributeChanges
    from zonefs_py.fs.filesystem import Filesystem
    from zonefs_py.fs.format import format_device
    from zonefs_py.zone import Geometry


def __getattr__(name: str) -> Any:
    # Loaded when first used: the command line must start quickly, and `--version` needs none of it.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

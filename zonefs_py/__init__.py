"""Linux zonefs in userspace: zoned block devices, real or emulated, as a filesystem of zone files.

The Python API is the file system itself, without a mount::

    from zonefs_py import open_filesystem

    with open_filesystem("disk") as fs:
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
    "FileTarget": "zonefs_py.fs.copy_target",
    "format_device": "zonefs_py.fs.format",
    "open_filesystem": "zonefs_py.fs.opening",
    "CopyDestination": "zonefs_py.copy.jobs",
    "CopyJob": "zonefs_py.copy.jobs",
    "CopyJobs": "zonefs_py.copy.jobs",
    "CopySource": "zonefs_py.copy.jobs",
    "CopyTarget": "zonefs_py.copy.jobs",
    "JobResult": "zonefs_py.copy.jobs",
    "Throttle": "zonefs_py.copy.schedule",
    "ZonedDevice": "zonefs_py.device.base",
    "MemoryDevice": "zonefs_py.device.memory",
    "clone_device": "zonefs_py.device.clone",
    "create_device": "zonefs_py.device.directory",
    "open_device": "zonefs_py.device.directory",
    "Snapshot": "zonefs_py.device.snapshots",
    "ZoneDifference": "zonefs_py.device.snapshots",
    "ZoneState": "zonefs_py.device.snapshots",
    "create_snapshot": "zonefs_py.device.snapshots",
    "delete_snapshot": "zonefs_py.device.snapshots",
    "diff_snapshots": "zonefs_py.device.snapshots",
    "list_snapshots": "zonefs_py.device.snapshots",
    "rollback_snapshot": "zonefs_py.device.snapshots",
    "open_stack": "zonefs_py.device.stack",
    "DeviceInfo": "zonefs_py.zone",
    "Geometry": "zonefs_py.zone",
    "Zone": "zonefs_py.zone",
    "ZoneCondition": "zonefs_py.zone",
    "ZoneOp": "zonefs_py.zone",
    "ZoneType": "zonefs_py.zone",
    "ZonefsError": "zonefs_py.errors",
    "CopyRangesError": "zonefs_py.control.copy_ranges",
    "copy_ranges": "zonefs_py.control.copy_ranges",
    "MountControl": "zonefs_py.control.client",
    "FaultRule": "zonefs_py.device.fault_rules",
}

__all__ = [
    "AttributeChanges",
    "CopyDestination",
    "CopyJob",
    "CopyJobs",
    "CopyRangesError",
    "CopySource",
    "CopyTarget",
    "DeviceInfo",
    "ErrorsPolicy",
    "FaultRule",
    "FileTarget",
    "Filesystem",
    "FormatOptions",
    "Geometry",
    "JobResult",
    "MemoryDevice",
    "MountControl",
    "MountOptions",
    "Snapshot",
    "Throttle",
    "Zone",
    "ZoneCondition",
    "ZoneDifference",
    "ZoneOp",
    "ZoneState",
    "ZoneType",
    "ZonedDevice",
    "ZonefsError",
    "clone_device",
    "copy_ranges",
    "create_device",
    "create_snapshot",
    "delete_snapshot",
    "diff_snapshots",
    "format_device",
    "list_snapshots",
    "open_device",
    "open_filesystem",
    "open_stack",
    "rollback_snapshot",
]

if TYPE_CHECKING:
    from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
    from zonefs_py.control.client import MountControl
    from zonefs_py.control.copy_ranges import CopyRangesError, copy_ranges
    from zonefs_py.copy.jobs import CopyDestination, CopyJob, CopyJobs, CopySource, CopyTarget, JobResult
    from zonefs_py.copy.schedule import Throttle
    from zonefs_py.device.base import ZonedDevice
    from zonefs_py.device.clone import clone_device
    from zonefs_py.device.directory import create_device, open_device
    from zonefs_py.device.fault_rules import FaultRule
    from zonefs_py.device.memory import MemoryDevice
    from zonefs_py.device.snapshots import (
        Snapshot,
        ZoneDifference,
        ZoneState,
        create_snapshot,
        delete_snapshot,
        diff_snapshots,
        list_snapshots,
        rollback_snapshot,
    )
    from zonefs_py.device.stack import open_stack
    from zonefs_py.errors import ZonefsError
    from zonefs_py.fs.attributes import AttributeChanges
    from zonefs_py.fs.copy_target import FileTarget
    from zonefs_py.fs.filesystem import Filesystem
    from zonefs_py.fs.format import format_device
    from zonefs_py.fs.opening import open_filesystem
    from zonefs_py.zone import DeviceInfo, Geometry, Zone, ZoneCondition, ZoneOp, ZoneType


def __getattr__(name: str) -> Any:
    # Loaded when first used: the command line must start quickly, and `--version` needs none of it.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

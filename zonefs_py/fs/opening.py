"""From the name of a device to its mounted file system in one step, with nothing left open where that fails."""

from __future__ import annotations

import contextlib
import os

from zonefs_py.config import MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError, SuperblockError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.zone import ZoneCondition


def open_filesystem(
    device: str | os.PathLike[str], options: MountOptions | None = None, *, faults: bool = False
) -> Filesystem:
    """Open *device*, a path or the text of a stack, and mount it as *options* say (the defaults, if None).

    The device is opened read-only if the options say so. It belongs to the file system: closing that closes it, and if
    it cannot be mounted it is closed before the exception leaves. *faults* makes it one to which faults can be added.
    Raises what `open_stack` and `Filesystem` raise.
    """
    options = options or MountOptions()
    opened = open_stack(os.fspath(device), read_only=options.read_only)
    if faults:
        # Without any, calls go to the device below as if this were not there.
        opened = FaultDevice.over(opened)
    try:
        return Filesystem(opened, options)
    except SuperblockError as exc:
        opened.close()
        raise SuperblockError(f"{opened.info.name}: {exc}; 'zonefs-py mkfs' formats a device") from None
    except DeviceError as exc:
        hint = _way_back(opened)
        opened.close()
        raise type(exc)(f"{opened.info.name}: {exc}{hint}") from exc
    except BaseException:
        opened.close()
        raise


def _way_back(device: ZonedDevice) -> str:
    """What to do if the zone of the superblock fails, as far as that is known: behind the message, or empty."""
    with contextlib.suppress(DeviceError):
        if device.report_zones(0, 1)[0].condition is ZoneCondition.OFFLINE:
            instead = f"'zonefs-py zone online {device.info.name} 0'"
            return f", which holds the superblock; {instead} brings it back if the device is emulated"
    return ""

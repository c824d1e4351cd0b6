"""From the name of a device to its mounted file system in one step, with nothing left open where that fails."""

from __future__ import annotations

import os

from zonefs_py.config import MountOptions
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError, SuperblockError
from zonefs_py.fs.filesystem import Filesystem


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
        opened.close()
        raise type(exc)(f"{opened.info.name}: {exc}") from exc
    except BaseException:
        opened.close()
        raise

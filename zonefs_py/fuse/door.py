"""Loads the C extension that stands between pyfuse3 and libfuse, before pyfuse3; see _door.c for what it does.

Whoever needs pyfuse3 imports it from here, so that the order is always right.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType

from zonefs_py.errors import MountError


def _load_globally(name: str) -> ModuleType:
    # The dynamic linker looks for pyfuse3's undefined symbols in what was loaded with RTLD_GLOBAL first.
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MountError(f"the C extension {name} cannot be loaded ({exc}); install zonefs-py again") from exc
    finally:
        sys.setdlopenflags(flags)


_door = _load_globally("zonefs_py.fuse._door")

import pyfuse3 as pyfuse3  # noqa: E402  (must come after the door)

NODE_OFFSET: int = _door.NODE_OFFSET
"""What the lower half of a FUSE node id is above the inode number, but for the root, whose node id is 1."""
NODE_NUMBER_SHIFT = 32
"""The upper half is the number of the node, if a file has several. In answers it is in the upper half of the
generation: pyfuse3 knows no node ids."""

ROOT_NODE = 1


def file_node(ino: int, number: int = 0) -> int:
    """The node id of node *number* of the file *ino*, or of a directory other than the root."""
    return (number << NODE_NUMBER_SHIFT) + ino + NODE_OFFSET


OpenHandler = Callable[[int, int, int, int], int | None]
"""Request, node, flags of open(2), caller's uid. Answers by `reply_open`, also at once; only an errno is returned."""
ReadHandler = Callable[[int, int, int, int, bool, memoryview], int | None]
"""Request, handle, offset, size, whether O_DIRECT holds for this request, and memory of that size for an answer."""
WriteHandler = Callable[[int, int, int, memoryview, bool, bool, bool], int | None]
"""Request, handle, offset, data, whether O_DIRECT, O_APPEND and O_DSYNC hold for this request."""
CopyHandler = Callable[[int, int, int, int, int, int, int], int | None]
"""Request, handle and offset of the source, those of the destination, length, flags."""
IoctlHandler = Callable[[int, int, int, int, bytes, int, int, int, int], int | None]
"""Request, handle, command, flags, data, size of the output, caller's uid, gid and pid."""

IOCTL_DIR: int = _door.IOCTL_DIR
"""In an ioctl's flags: it is on a directory."""


def set_handlers(
    open: OpenHandler, read: ReadHandler, write: WriteHandler, copy_file_range: CopyHandler, ioctl: IoctlHandler
) -> None:
    """Register who gets these requests. Handlers are called on trio's thread and must not wait for anything.

    A handler returns the answer: the number of bytes that were read (they are in its memory), written or copied, or
    an errno, negative. Or None: then it has started what answers, by `reply_data`, `reply_written`, `reply_ioctl` or
    `reply_error`, exactly once and on the same thread. The memory of a read, and of what a write brings, is not the
    handler's any more when it returns.
    """
    _door.set_handlers(open, read, write, copy_file_range, ioctl)


PASSTHROUGH_BY: str = _door.PASSTHROUGH_BY
"""Who speaks passthrough with the kernel: ``libfuse`` (3.17 or newer), ``door`` (3.13 to 3.16), or nobody: empty."""


def set_source(name: str) -> None:
    """Say what the mount table shall show as the device, in whatever bytes; call it before ``pyfuse3.init``."""
    # libfuse's options are separated by commas.
    option = b"fsname=" + os.fsencode(name).replace(b"\\", rb"\\").replace(b",", rb"\,")
    _door.set_source(option)


def want_passthrough(wanted: bool) -> None:
    """Ask the kernel for passthrough, or do not; call it before ``pyfuse3.init``."""
    _door.want_passthrough(wanted)


def has_passthrough() -> bool:
    """Whether the kernel knows passthrough and was asked for it. Known once the mount has answered a first request."""
    granted: bool = _door.has_passthrough()
    return granted


def open_backing(descriptor: int) -> int:
    """Make the file of *descriptor*, which may be closed then, a backing file of the session; return its id.

    Raises OSError: EPERM without CAP_SYS_ADMIN, ELOOP for a file on a file system that is stacked itself.
    """
    number: int = _door.open_backing(descriptor)
    return number


def close_backing(number: int) -> None:
    """Let go of a backing file. Files that were opened with it keep it. Raises OSError."""
    _door.close_backing(number)


def refresh(mount: int, node: int, generation: int) -> int:
    """Make the kernel ask for the attributes of *node*, and wait until it has them; return the size that it has then.

    That is another than in the answer while a call that may change the size is under way in the kernel.

    *mount* is a descriptor of the mount point, without O_PATH. Not for the thread that answers requests. Raises
    OSError: ESTALE if the kernel has no such inode, EPERM without CAP_DAC_READ_SEARCH.
    """
    size: int = _door.refresh(mount, node, generation)
    return size


def reply_open(request: int, handle: int, direct_io: bool, backing: int) -> bool:
    """Answer *request*, an open, with *handle*; return whether the answer found the caller.

    If not, it was interrupted, and nobody will release the handle. *direct_io*: reads and writes come to us as they
    are; else they go through the kernel's page cache or, with *backing* (an id, or 0), to the backing file.
    """
    result: int = _door.reply_open(request, handle, direct_io, backing)
    return result == 0


def reply_data(request: int, data: bytes) -> None:
    """Answer *request*, a read, with *data*."""
    _door.reply_data(request, data)


def reply_ioctl(request: int, data: bytes) -> None:
    """Answer *request*, an ioctl, with 0 and *data*, which the caller finds where his own was."""
    _door.reply_ioctl(request, data)


def reply_written(request: int, count: int) -> None:
    """Answer *request*: *count* bytes were copied."""
    _door.reply_written(request, count)


def reply_error(request: int, number: int) -> None:
    """Answer *request* with the errno *number*."""
    _door.reply_error(request, number)


def set_end_handler(handler: Callable[[], None]) -> None:
    """Register who is called, on trio's thread, when there are no more requests: the file system was unmounted."""
    _door.set_end_handler(handler)


def caller(request: int) -> int:
    """Return the id of the thread that sent *request*, which is not answered yet; 0 if it is nobody that we can see."""
    thread: int = _door.caller(request)
    return thread


def libfuse_version() -> str:
    """The version of the libfuse in use."""
    version: str = _door.libfuse_version()
    return version


def check_in_use() -> None:
    """Raise MountError unless pyfuse3's session was made through the door; call it after ``pyfuse3.init``."""
    if not _door.sessions():
        raise MountError(
            "pyfuse3 did not come through zonefs-py's C extension (is it linked statically, or was it imported"
            " before zonefs_py.fuse?); the file system would give wrong answers, so it is not mounted"
        )

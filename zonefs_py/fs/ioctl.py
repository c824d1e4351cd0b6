"""The copy ioctl on an open zone file: bytes in, bytes out. What the FUSE side adds is the caller and the cache."""

from __future__ import annotations

from collections.abc import Callable

from zonefs_py.copy.abi import CopyReply, CopyRequest, pack_reply
from zonefs_py.errors import BadHandle, ZonefsError
from zonefs_py.fs.access import Caller
from zonefs_py.fs.filesystem import Filesystem


def answer_copy(
    filesystem: Filesystem,
    handle: int,
    data: bytes,
    request: CopyRequest,
    caller: Caller,
    refused: Callable[[ZonefsError], None] = lambda _: None,
) -> bytes:
    """Do *request*, which *data* holds, on the open file *handle*; return *data* with the answer filled in.

    Refusals and errors are part of the answer, and *refused* is told of them. Raises BadHandle only: the kernel carries
    no answer back with an error.
    """
    try:
        copied = filesystem.copy_ranges(handle, request.offset, request.sources, caller)
    except BadHandle:
        raise
    except ZonefsError as exc:
        refused(exc)
        reply = CopyReply(None, exc.errno, (0,) * len(request.sources))
    else:
        if copied.error is not None:
            refused(copied.error)
        reply = CopyReply(copied.offset, 0 if copied.error is None else copied.error.errno, copied.completed)
    return pack_reply(data, reply)

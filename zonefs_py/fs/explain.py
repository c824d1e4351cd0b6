"""Why something was refused, in words: the rule, where it comes from, and what to do instead. Pure."""

from __future__ import annotations

from typing import NamedTuple

from zonefs_py.errors import (
    AccessDenied,
    ActiveZonesExhausted,
    AlreadyExists,
    AppendToConventional,
    BadHandle,
    BeyondCapacity,
    BufferedSequentialWrite,
    DeviceError,
    FilesystemBusy,
    HostFull,
    InvalidRequest,
    IsADirectory,
    NoSuchFile,
    NotADirectory,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    OpenZonesExhausted,
    OutOfMemory,
    PowerLost,
    ReadOnlyFilesystem,
    TooManyWriteOpenFiles,
    UnknownIoctl,
    ZonefsError,
)

ZONEFS_DOC = "Linux Documentation/filesystems/zonefs.rst"
ZONEFS_FILE = "Linux fs/zonefs/file.c"
NULL_BLK = "Linux drivers/block/null_blk/zoned.c"
ZBC = "ZBC, ZAC and ZNS: zone conditions"


class FileState(NamedTuple):
    """What a file was like when something was refused. Sizes in bytes of the file; ``size`` is the write pointer of a
    sequential one."""

    path: str
    zone: int
    sequential: bool
    size: int
    capacity: int
    block_size: int
    readonly: bool
    offline: bool


class Explanation(NamedTuple):
    """A rule in words, with its source, and what to do instead."""

    rule: str
    source: str
    advice: str


_FIXED: dict[type[ZonefsError], Explanation] = {
    BufferedSequentialWrite: Explanation(
        "A sequential file takes direct writes only.",
        f"{ZONEFS_DOC}, sequential zone files",
        "open the file with O_DIRECT (dd: oflag=direct), and write whole blocks",
    ),
    AppendToConventional: Explanation(
        "A conventional file has a fixed size, so that O_APPEND means nothing to it.",
        f"{ZONEFS_FILE}, checks of writes",
        "open it without O_APPEND, and write at an offset below the size",
    ),
    ReadOnlyFilesystem: Explanation(
        "The file system is read-only: by mount option, or after an I/O error with errors=remount-ro.",
        f"{ZONEFS_DOC}, I/O error handling",
        "look in the log for an I/O error; 'mount -o remount,rw' (after 'zonefs-py install-mount-helper') or a new"
        " mount makes it writable again, and errors=repair or errors=zone-ro keep one bad zone from doing this",
    ),
    TooManyWriteOpenFiles: Explanation(
        "With explicit-open, no more sequential files can be open for writing than the device can have open zones.",
        f"{ZONEFS_DOC}, explicit-open mount option",
        "close a file that is open for writing first, or mount without explicit-open",
    ),
    FilesystemBusy: Explanation(
        "A file system cannot become read-only while files are open for writing.",
        "mount(2), MS_REMOUNT",
        "close them first",
    ),
    AccessDenied: Explanation(
        "The modes and owners of the file and the directories above it decide who may read it.",
        "path_resolution(7)",
        "run as the owner, or change mode or owner of the file ('zonefs-py mkfs -o uid=N,gid=N,perm=OCTAL' for all)",
    ),
    AlreadyExists: Explanation(
        "Every zone is one file, and no others can be made.",
        f"{ZONEFS_DOC}, zone files",
        "open the file that is there, without O_EXCL",
    ),
    NoSuchFile: Explanation(
        "Every zone is one file, and no others can be made.",
        f"{ZONEFS_DOC}, zone files",
        "use the files in cnv and seq; 'zonefs-py report' lists them",
    ),
    NotADirectory: Explanation("Only the root, cnv and seq are directories.", ZONEFS_DOC, "use the file's own path"),
    IsADirectory: Explanation("Directories have no data of their own.", "open(2)", "use a file in cnv or seq"),
    UnknownIoctl: Explanation(
        "The only ioctl of a zone file is zonefs-py's copy of ranges.",
        "docs/copy.md",
        "use truncate(2) to reset or finish a zone, and 'zonefs-py report' for its condition",
    ),
    BadHandle: Explanation(
        "The file is not open for this kind of access.", "read(2), write(2)", "open it with the right access mode"
    ),
    PowerLost: Explanation(
        "A power cut takes away every file that is open, as the end of the process would; without power there is"
        " nothing.",
        "docs/control.md",
        "open the file again; if the mount is dead, 'zonefs-py ctl MOUNTPOINT power-on' brings it back",
    ),
    OutOfMemory: Explanation(
        "A copy through memory needs a buffer.", "docs/copy.md", "copy less at a time, or set copy_max_bytes lower"
    ),
    HostFull: Explanation(
        "No space is left: on the host, whose files the zones of an emulated device are, or on a drive that has less"
        " than it shows.",
        "docs/device-format.md, docs/block-devices.md",
        "free space on the host's file system, or reset zones that are not needed",
    ),
    OpenZonesExhausted: Explanation(
        "The device has a limit of open zones, and all of them are explicitly open.",
        f"{NULL_BLK}, resources of zones",
        "close files that are open for writing (explicit-open), or 'zonefs-py ctl MOUNTPOINT zone close ZONE'",
    ),
    ActiveZonesExhausted: Explanation(
        "The device has a limit of active zones: those that are open, or closed and written in part.",
        f"{NULL_BLK}, resources of zones",
        "finish or reset a zone first: truncate its file to the capacity, or to 0",
    ),
}

_DEVICE = Explanation(
    "The device failed the request; what then happens to the file is up to the mount option errors=.",
    f"{ZONEFS_DOC}, I/O error handling",
    "look at the zone with 'zonefs-py report', and for rules with 'zonefs-py fault MOUNTPOINT list'",
)
_OTHER = Explanation("The request makes no sense here.", ZONEFS_DOC, "see the message")


def explain(call: str, error: ZonefsError, file: FileState | None = None) -> Explanation:
    """Return why *call* (``write``, ``setattr``, ...) was answered with *error*; *file* is what it was about."""
    if isinstance(error, NotAtWritePointer):
        where = "its end" if file is None else f"offset {file.size}"
        return Explanation(
            "A sequential file is written at its end, which is the write pointer of its zone, and nowhere else.",
            f"{ZONEFS_DOC}, sequential zone files",
            f"write at {where}, or open the file with O_APPEND; one writer at a time",
        )
    if isinstance(error, NotAligned):
        block = "the block size" if file is None else str(file.block_size)
        return Explanation(
            "Direct I/O, and writes to sequential files, are in whole blocks of the device.",
            f"{ZONEFS_DOC}, sequential zone files",
            f"use offsets and lengths that are multiples of {block} ('stat --format=%o' shows it)",
        )
    if isinstance(error, BeyondCapacity):
        capacity = "" if file is None else f" of {file.capacity} bytes"
        return Explanation(
            f"A file never holds more than the capacity{capacity} of its zone.",
            f"{ZONEFS_DOC}, zone files",
            "go on in another file; truncating a sequential file to 0 resets its zone",
        )
    if isinstance(error, NotPermitted):
        return _not_permitted(call, file)
    for kind in type(error).__mro__:
        if kind in _FIXED:
            return _FIXED[kind]
    if isinstance(error, DeviceError):
        return _DEVICE
    if isinstance(error, InvalidRequest):
        return _OTHER._replace(source=ZONEFS_FILE)
    return _OTHER


def _not_permitted(call: str, file: FileState | None) -> Explanation:
    if file is not None and (file.offline or file.readonly):
        condition = "offline" if file.offline else "read-only"
        return Explanation(
            f"The zone is {condition}, or an I/O error and the mount option errors= made the file so.",
            f"{ZBC}; {ZONEFS_DOC}, I/O error handling",
            "copy what can be read to another zone; 'zonefs-py zone online' brings back a zone that was forced",
        )
    if call == "setattr" and file is not None:
        if not file.sequential:
            return Explanation(
                "A conventional file has a fixed size.",
                f"{ZONEFS_DOC}, conventional zone files",
                "open it without O_TRUNC, and overwrite what is not needed",
            )
        return Explanation(
            "Truncation of a sequential file is a zone operation: to 0 resets, to the capacity finishes the zone.",
            f"{ZONEFS_DOC}, sequential zone files",
            f"truncate to 0 or to {file.capacity}",
        )
    if call == "setattr":
        return Explanation(
            "Directories of zonefs are never writable: their names are fixed.",
            f"{ZONEFS_DOC}, zone files",
            "leave out the write bits",
        )
    return Explanation(
        "Every zone is one file: names cannot be made, removed or changed.",
        f"{ZONEFS_DOC}, zone files",
        "truncate a sequential file to 0 to have its zone empty",
    )

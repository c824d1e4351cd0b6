"""Every error of ours and its errno: the only module that knows errno numbers.

A class declares its errno; there is no second table. Our errors do not derive from OSError, so that a stray
``except OSError`` does not swallow them. `from_os_error` reads the same knowledge backwards, as the kernel's
``blk_errors[]`` serves both directions.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import ClassVar


class ZonefsError(Exception):
    """Base of all our errors. ``errno`` is what a system call answers for it."""

    errno: ClassVar[int] = errno.EIO

    def __init_subclass__(cls, *, errno: int | None = None) -> None:
        super().__init_subclass__()
        if errno is not None:
            cls.errno = errno

    @property
    def errno_name(self) -> str:
        """The symbolic name, such as ``EINVAL``."""
        return errno.errorcode[self.errno]


# What a file operation refuses. The errno are kernel zonefs's, as measured; see docs/differences.md for
# what FUSE changes.


class InvalidRequest(ZonefsError, errno=errno.EINVAL):
    """An argument is out of range."""


class NotAligned(InvalidRequest):
    """Offset or length of a direct I/O is not a multiple of the block size."""


class NotAtWritePointer(InvalidRequest):
    """A write to a sequential file does not start at its write pointer."""


class AppendToConventional(InvalidRequest):
    """O_APPEND has no meaning for a conventional file, whose end never moves."""


class BeyondCapacity(ZonefsError, errno=errno.EFBIG):
    """Offset or size is past what the file can ever hold."""


class BufferedSequentialWrite(ZonefsError, errno=errno.EIO):
    """A sequential file was written without O_DIRECT."""


class NotPermitted(ZonefsError, errno=errno.EPERM):
    """The file system's rules forbid it to everybody, root included."""


class ReadOnlyFilesystem(ZonefsError, errno=errno.EROFS):
    """The file system is mounted read-only, or an error made it so."""


class TooManyWriteOpenFiles(ZonefsError, errno=errno.EBUSY):
    """explicit-open: as many sequential files are open for writing as the device can have open zones."""


class FilesystemBusy(ZonefsError, errno=errno.EBUSY):
    """Files are open for writing, so the file system cannot become read-only."""


class AccessDenied(ZonefsError, errno=errno.EACCES):
    """The caller has no permission for it; others may have."""


class UnknownIoctl(ZonefsError, errno=errno.ENOTTY):
    """No ioctl of ours."""


class DifferentFilesystems(ZonefsError, errno=errno.EXDEV):
    """Two files of a copy are not of one mount. Never an answer to the kernel: it would copy by itself then."""


class PowerLost(ZonefsError, errno=errno.EIO):
    """The device has no power, or the file was opened before it lost that."""


class OutOfMemory(ZonefsError, errno=errno.ENOMEM):
    """There is no memory for what was asked."""


class BadHandle(ZonefsError, errno=errno.EBADF):
    """The handle is closed, or not open for this kind of access."""


class NoSuchFile(ZonefsError, errno=errno.ENOENT):
    """No such name, or a name that zonefs never has."""


class StaleNode(ZonefsError, errno=errno.ESTALE):
    """The file has another inode now; a look-up finds it. The kernel makes one by itself."""


class NameTooLong(ZonefsError, errno=errno.ENAMETOOLONG):
    """More bytes than a zonefs name can have."""


class NotADirectory(ZonefsError, errno=errno.ENOTDIR):
    """A file was used as a directory."""


class IsADirectory(ZonefsError, errno=errno.EISDIR):
    """A directory was used as a file."""


class AlreadyExists(ZonefsError, errno=errno.EEXIST):
    """The name is taken."""


# What a device answers.


class DeviceError(ZonefsError, errno=errno.EIO):
    """The device failed a request. The zone may have changed: report it again."""

    completed = 0
    """Of a copy that failed: how many bytes from its start are known to be copied."""

    source_failed = False
    """Of a copy that failed: whether it is known that its source could not be read, and nothing else is wrong."""


class OpenZonesExhausted(DeviceError, errno=errno.ETOOMANYREFS):
    """No more zones can be open (``BLK_STS_ZONE_OPEN_RESOURCE``)."""


class ActiveZonesExhausted(DeviceError, errno=errno.EOVERFLOW):
    """No more zones can be active (``BLK_STS_ZONE_ACTIVE_RESOURCE``)."""


class TableChanged(DeviceError):
    """A copy was planned before it changed what lies where below the device. Nothing was done."""


class HostFull(DeviceError, errno=errno.ENOSPC):
    """The host file system below an emulated device has no space (or quota) left."""


class RequestTimedOut(DeviceError, errno=errno.ETIMEDOUT):
    """The device did not answer in time (``BLK_STS_TIMEOUT``)."""


class TransportFailed(DeviceError, errno=errno.ENOLINK):
    """The way to the device failed (``BLK_STS_TRANSPORT``)."""


class TargetFailed(DeviceError, errno=errno.EREMOTEIO):
    """The device failed, or refused the request as one that cannot be done (``BLK_STS_TARGET``)."""


class ReservedForOthers(DeviceError, errno=errno.EBADE):
    """Another computer has reserved the device (``BLK_STS_RESV_CONFLICT``)."""


class MediumFailed(DeviceError, errno=errno.ENODATA):
    """The device could not read or write its medium there (``BLK_STS_MEDIUM``)."""


class ProtectionFailed(DeviceError, errno=errno.EILSEQ):
    """The data do not fit what protects them (``BLK_STS_PROTECTION``)."""


class DeviceOffline(DeviceError, errno=errno.ENODEV):
    """The kernel sends the device no more requests (``BLK_STS_OFFLINE``)."""


# What keeps a device or a file system from being used at all. The message is for a user.


class UserError(ZonefsError, errno=errno.EINVAL):
    """Bad input from a user: the message names what was wrong and what to do."""


class OptionError(UserError):
    """An option, or what is given for it, is none that there is. Known without a look at any device."""


class DeviceFormatError(UserError):
    """The directory is not an emulated device, or a damaged one."""


class DeviceInUse(UserError, errno=errno.EBUSY):
    """Somebody else has the device open."""


class DeviceReadOnly(UserError, errno=errno.EROFS):
    """The device was opened read-only, or cannot be written by this user."""


class SuperblockError(UserError):
    """The device carries no zonefs superblock that we can mount."""


class MountError(UserError):
    """The file system could not be mounted or unmounted."""


DEVICE_ERRORS: tuple[type[DeviceError], ...] = (
    DeviceError,
    HostFull,
    OpenZonesExhausted,
    ActiveZonesExhausted,
    RequestTimedOut,
    TransportFailed,
    TargetFailed,
    ReservedForOthers,
    MediumFailed,
    ProtectionFailed,
    DeviceOffline,
)
"""What a call of a device can fail with: each has an errno of its own, that of a status of the kernel's block layer."""

_FROM_OS: dict[int, type[DeviceError]] = {kind.errno: kind for kind in DEVICE_ERRORS} | {errno.EDQUOT: HostFull}
# Of the other errnos the kernel takes some for more than an answer: it would go on by itself, or ask again.


def from_os_error(exc: OSError, what: str) -> DeviceError:
    """Return the device error for *exc*, which the host raised while it did *what*."""
    return _FROM_OS.get(exc.errno or 0, DeviceError)(f"{what}: {exc.strerror or exc}")


def describe_os_error(exc: OSError) -> str:
    """One line for a user: the file, if any, and the system's words."""
    words = exc.strerror or (os.strerror(exc.errno) if exc.errno else str(exc))
    name = exc.filename2 or exc.filename
    return f"{name}: {words}" if name else words


@contextlib.contextmanager
def naming_errors(name: str | os.PathLike[str]) -> Iterator[None]:
    """Give an OSError that comes through the file name *name*: calls on descriptors know none.

    One with a relative name, as openat(2) gives it, gets *name* as its directory.
    """
    try:
        yield
    except OSError as exc:
        inner = exc.filename if isinstance(exc.filename, str) else ""
        exc.filename = os.path.join(name, inner) if inner else os.fspath(name)
        exc.filename2 = None
        raise


def is_disconnected(exc: OSError) -> bool:
    """Whether *exc* says that the daemon of a FUSE mount is gone."""
    return exc.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def is_answered(exc: OSError) -> bool:
    """Whether *exc*, from a FUSE mount, is the answer of a daemon whose device has no power, or of a failing one."""
    return exc.errno == errno.EIO


def is_too_late(words: str) -> bool:
    """Whether *words*, strerror(3)'s, say that an answer to a FUSE request found nobody who waits for it."""
    return words in map(os.strerror, (errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED))


def is_forgotten(exc: OSError) -> bool:
    """Whether *exc* says that the kernel has no such inode of a FUSE mount, or takes it for a deleted one."""
    return exc.errno in (errno.ESTALE, errno.ENOENT, errno.EIO)


def why_no_passthrough(exc: OSError) -> str:
    """Return why the kernel refused a backing file with *exc*, in words for a user."""
    if exc.errno == errno.EPERM:
        return "it takes the capability CAP_SYS_ADMIN, outside of user namespaces"
    if exc.errno == errno.ELOOP:
        return "the device lies on a file system that is stacked on another one, such as overlayfs"
    return f"the kernel refuses the device's files: {exc.strerror}"


def is_busy(exc: OSError) -> bool:
    """Whether *exc* says that somebody else uses a device, or has locked it."""
    return exc.errno in (errno.EBUSY, errno.EAGAIN)


def is_write_protected(exc: OSError) -> bool:
    """Whether *exc* says that a device may not be written, by this user or at all."""
    return exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def is_out_of_descriptors(exc: OSError) -> bool:
    """Whether *exc* says that this process or the system has no more file descriptors."""
    return exc.errno in (errno.EMFILE, errno.ENFILE)


def is_unsupported(exc: OSError) -> bool:
    """Whether *exc* says that a file, or its file system, cannot do such a thing at all."""
    return exc.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY)


def would_wait(exc: OSError) -> bool:
    """Whether *exc* says that what was asked for cannot be done at once."""
    return exc.errno == errno.EAGAIN


def is_not_possible(exc: OSError) -> bool:
    """Whether *exc* says that these files, or this host, cannot be copied between in the way that was tried."""
    return exc.errno in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ETXTBSY)


def is_past_the_end(exc: OSError) -> bool:
    """Whether lseek(2) says by *exc* that there is no more data in a file."""
    return exc.errno == errno.ENXIO


def is_denied(exc: OSError) -> bool:
    """Whether *exc* says that the caller may not."""
    return exc.errno in (errno.EACCES, errno.EPERM)


def is_too_large(exc: OSError) -> bool:
    """Whether *exc* says that files of that size cannot be."""
    return exc.errno == errno.EFBIG


def is_missing(exc: OSError) -> bool:
    """Whether *exc* says that a file is not there."""
    return exc.errno in (errno.ENOENT, errno.ENOTDIR)

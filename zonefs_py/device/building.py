"""Builds an emulated device in a directory so that it is there as a whole or not at all, also in place of another one.

In place of another, the new device grows in a directory of its own below that of the old one, on the same file system
whatever is mounted where, and with no need to write beside it. Renaming that directory is the moment from which the new
device is the one: from then on the rest, renaming its files, can be finished by whoever opens the device next.
docs/device-format.md has it too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from zonefs_py.device.description import MAX_FILE_SIZE, DeviceDescription, check_description, parse_description
from zonefs_py.device.directory_lock import lock_directory
from zonefs_py.device.host_files import read_small_file
from zonefs_py.device.zone_files import DESCRIPTION_NAME, SNAPSHOTS_NAME, write_description, zone_file_name
from zonefs_py.errors import DeviceFormatError, DeviceReadOnly, UserError, is_too_large, naming_errors
from zonefs_py.units import format_size
from zonefs_py.zone import Geometry

UNFINISHED = ".replacement.unfinished"
"""Where a device grows that is to replace another. What is left of one that was cut short is removed by the next."""

REPLACEMENT = ".replacement"
"""The same, once the device is whole: the one that is there is replaced by it."""


@contextlib.contextmanager
def build_device(path: str | os.PathLike[str], description: DeviceDescription, *, force: bool) -> Iterator[int]:
    """Make the directory *path* an emulated device of *description*.

    Gives an open directory in which the zone files are to be made, all of them (`make_zone_file`). When the block
    ends, the device is there. If an exception leaves the block, or there is no space for the rest, everything is
    as it was before: no device, or with *force* the old one, untouched.

    *path* is made if it is missing. One that is not empty is refused; with *force* an emulated device in it is
    replaced, but anything else is still refused. Its snapshots stay. Raises UserError, DeviceInUse, OSError.
    """
    if not os.fspath(path):
        raise UserError("an empty path names no device")
    path = Path(path)
    check_no_snapshot(path)
    check_description(description)
    made = _make_directory(path)
    try:
        with _open_directory(path) as directory:
            lock_directory(directory, path, exclusive=True)
            if _check_replaceable(directory, path, force=force):
                with build_replacement(directory, path, description) as replacement:
                    yield replacement
            else:
                with _build_in_place(directory, path, description):
                    yield directory
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def make_directory(parent: int, name: str) -> int:
    """Make the directory *name* in *parent*, an open directory, and return it open. For now it is this user's alone.

    Whoever owns *parent* can put something else in its place, to have root write there. Raises UserError then, OSError.
    """
    os.mkdir(name, 0o700, dir_fd=parent)
    return open_made(parent, name)


def open_made(parent: int, name: str) -> int:
    """Open the directory *name* in *parent* that this user has just made. Raises UserError if it is not that one."""
    try:
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as exc:
        raise UserError(f"{name} was changed by somebody else meanwhile ({exc.strerror})") from None
    # What nobody else could write to, and has nothing in it, holds nothing that leads elsewhere.
    status = os.fstat(made)
    theirs = os.fstat(parent).st_uid != os.geteuid()
    if theirs and (status.st_uid != os.geteuid() or status.st_mode & 0o077 or os.listdir(made)):
        os.close(made)
        raise UserError(f"{name} was changed by somebody else meanwhile")
    return made


def make_zone_file(directory: int, geometry: Geometry, number: int) -> int:
    """Make zone *number*'s file in *directory*, open it for writing and return the descriptor.

    It is empty if the zone is sequential, and reads as zeros over its whole size if it is conventional. Raises OSError,
    UserError if the file could not become as large as the first sequential zone is.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(zone_file_name(geometry, number), flags, 0o666, dir_fd=directory)
    try:
        if geometry.is_conventional(number):
            os.ftruncate(descriptor, geometry.size_of(number))
        elif number == geometry.nr_conventional:
            os.ftruncate(descriptor, geometry.size_of(number))
            os.ftruncate(descriptor, 0)
    except OSError as exc:
        os.close(descriptor)
        if not is_too_large(exc):
            raise
        size = format_size(geometry.size_of(number))
        raise UserError(f"a zone of {size} is larger than a file can be there: choose smaller zones") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_no_snapshot(path: Path) -> None:
    """Raise DeviceReadOnly if *path* is a snapshot of a device: it would not be what it was if that were written."""
    # Not Path.resolve: a loop of symbolic links is a RuntimeError to it.
    if Path(os.path.realpath(path)).parent.name == SNAPSHOTS_NAME:
        raise DeviceReadOnly(f"{path} is a snapshot: mount it with -o ro, or clone it and write to the clone")


@contextlib.contextmanager
def build_replacement(
    directory: int, path: Path, description: DeviceDescription, *, sync: bool = True
) -> Iterator[int]:
    """Replace the emulated device *path*, as a whole, by one of *description*.

    *directory* is *path* opened, locked exclusively and with no replacement under way. Gives an open directory in which
    the zone files are to be made. Those that are not made are taken over from the device that is there: they must fit.
    When the block ends, the new device is there. If an exception leaves the block, the old one is, untouched.

    Without *sync* this holds for whatever kills this process, but not for a loss of power. Raises OSError.
    """
    with naming_errors(path):
        _remove_unfinished(directory)
        replacement = make_directory(directory, UNFINISHED)
        try:
            try:
                yield replacement
                write_description(replacement, description, sync=sync)
            finally:
                os.close(replacement)
            os.rename(UNFINISHED, REPLACEMENT, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _remove_unfinished(directory)
            raise
        if sync:
            os.fsync(directory)
    finish_replacement(directory, path, sync=sync)


def finish_replacement(directory: int, path: Path, *, sync: bool = True) -> None:
    """Put a new device in place that was built and whose files may have been moved in part; else do nothing.

    *directory* is *path* opened, and locked exclusively. Without *sync* what a loss of power leaves is not known.
    Raises DeviceFormatError, OSError; what is left to do can then be done later.
    """
    with naming_errors(path):
        try:
            replacement = os.open(REPLACEMENT, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return
        try:
            _move_files(replacement, directory, path, sync=sync)
        finally:
            os.close(replacement)
        os.rmdir(REPLACEMENT, dir_fd=directory)
        if sync:
            os.fsync(directory)


def check_not_replaced(directory: int, path: Path) -> None:
    """Raise DeviceFormatError if there is work for `finish_replacement` in *path*, which is open as *directory*."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(REPLACEMENT, dir_fd=directory, follow_symlinks=False)
        raise DeviceFormatError(
            f"{path} was being replaced when that was cut short: to finish it, open the device for writing"
            " (a mount that is not read-only does), or repeat what replaced it"
        )


def _move_files(replacement: int, directory: int, path: Path, *, sync: bool) -> None:
    names = set(os.listdir(replacement))
    if DESCRIPTION_NAME not in names:
        return  # it is moved last
    content = read_small_file(DESCRIPTION_NAME, MAX_FILE_SIZE, os.O_NOFOLLOW, replacement)
    try:
        geometry = parse_description(content or b"").geometry
    except UserError as exc:
        raise DeviceFormatError(f"{path / REPLACEMENT / DESCRIPTION_NAME}: {exc}") from None
    zones = {zone_file_name(geometry, number) for number in range(geometry.nr_zones)}
    for name in os.listdir(directory):
        if _is_zone_file(name) and name not in zones:
            os.unlink(name, dir_fd=directory)
    for name in sorted(names & zones):
        os.rename(name, name, src_dir_fd=replacement, dst_dir_fd=directory)
    # By now the old description goes with none of the files: the new one follows when all are there for good.
    if sync:
        os.fsync(directory)
    os.rename(DESCRIPTION_NAME, DESCRIPTION_NAME, src_dir_fd=replacement, dst_dir_fd=directory)
    if sync:
        os.fsync(directory)


@contextlib.contextmanager
def _build_in_place(directory: int, path: Path, description: DeviceDescription) -> Iterator[None]:
    try:
        with naming_errors(path):
            yield
            # Last: until then the directory is no device.
            write_description(directory, description)
    except BaseException:
        for name in os.listdir(directory):
            if _is_ours(directory, name):
                os.unlink(name, dir_fd=directory)
        raise


def _remove_unfinished(directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(UNFINISHED, dir_fd=directory)


def _make_directory(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise UserError(f"{path} is not a directory; an emulated device is made in one") from None
        return False
    return True


@contextlib.contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _check_replaceable(directory: int, path: Path, *, force: bool) -> bool:
    """Whether there is a device, or what is left of one, to be replaced. Raises UserError if that must not be."""
    names = os.listdir(directory)
    if not names:
        return False
    if not force:
        raise UserError(f"{path} is not empty; -f replaces an emulated device that is there")
    foreign = sorted(name for name in names if not _is_ours(directory, name))
    if foreign:
        raise UserError(f"{path} holds {foreign[0]!r}, which is not part of an emulated device; it will not be removed")
    finish_replacement(directory, path)
    return True


def _is_ours(directory: int, name: str) -> bool:
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    if name in (UNFINISHED, REPLACEMENT, SNAPSHOTS_NAME):
        return stat.S_ISDIR(mode)
    known = name == DESCRIPTION_NAME or name.startswith(f".{DESCRIPTION_NAME}.") or _is_zone_file(name)
    return known and stat.S_ISREG(mode)


def _is_zone_file(name: str) -> bool:
    kind, dash, digits = name.partition("-")
    return kind in ("cnv", "seq") and dash == "-" and len(digits) >= 6 and digits.isascii() and digits.isdecimal()

"""Snapshots of an emulated device: kept in its own directory, made and rolled back as a whole or not at all.

A snapshot is itself an emulated device, in the subdirectory ``.snapshots/NAME``, that can be opened for reading. Where
the host's file system has reflinks its zone files share their data with the device's. docs/device-format.md has it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zonefs_py.device import host_copy
from zonefs_py.device.building import (
    build_replacement,
    check_no_snapshot,
    finish_replacement,
    make_directory,
    make_zone_file,
)
from zonefs_py.device.description import DeviceDescription
from zonefs_py.device.directory import lock_and_check, open_directory
from zonefs_py.device.directory_lock import lock_directory
from zonefs_py.device.file_comparison import same_content, same_extents
from zonefs_py.device.zone_files import DESCRIPTION_NAME, SNAPSHOTS_NAME, write_description, zone_file_name
from zonefs_py.errors import DeviceFormatError, DeviceInUse, UserError, naming_errors
from zonefs_py.units import MIB
from zonefs_py.zone import Geometry, ZoneCondition

_UNFINISHED = ".unfinished"
"""Where a snapshot grows, beside the others, and where one goes to be removed. What is left there means nothing."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PIECE_SIZE = 1 * MIB

Progress = Callable[[int, int], None]
"""Called with the number of zones that are done, and of all."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that there is. ``created`` is in seconds since 1970; ``path`` is that of a device, for reading."""

    name: str
    created: float
    path: Path


@dataclass(frozen=True)
class ZoneState:
    """What a closed device tells of a zone. ``wpoffset`` is the size of the zone's file: for a sequential zone, its
    write pointer in bytes from its start, and what it will be again when a zone that failed is put right."""

    condition: ZoneCondition
    wpoffset: int


@dataclass(frozen=True)
class ZoneDifference:
    """A zone that is not the same on both sides. ``content`` says whether the bytes differ; None where the write
    pointers do, and the bytes were not looked at."""

    number: int
    old: ZoneState
    new: ZoneState
    content: bool | None


def create_snapshot(
    path: str | os.PathLike[str], name: str, *, sync: bool = True, progress: Progress = lambda done, total: None
) -> Snapshot:
    """Keep what the emulated device *path* holds now, as *name*; that zones are open is not kept.

    The device must not be in use. If it fails, or this process is killed, there is no snapshot; with *sync* that is so
    for a loss of power too.

    Raises UserError if there is such a snapshot, or none can be called so, DeviceReadOnly if *path* is a snapshot
    itself, DeviceInUse, DeviceFormatError, OSError.
    """
    _check_name(name)
    path = Path(path)
    check_no_snapshot(path)
    with _open_exclusively(path) as directory:
        description, sizes = lock_and_check(directory, path, read_only=False)
        with naming_errors(path), _open_snapshots(directory, path, make=True) as snapshots:
            if _exists(snapshots, name):
                raise UserError(f"{path} has a snapshot {name!r} already; delete it first, or choose another name")
            with _unfinished(snapshots) as unfinished:
                for number, size in enumerate(sizes):
                    _copy_zone(directory, unfinished, description.geometry, number, size, sync=sync)
                    progress(number + 1, len(sizes))
                write_description(unfinished, description, sync=sync)
                _take_over_owner(directory, unfinished)
                os.rename(_UNFINISHED, name, src_dir_fd=snapshots, dst_dir_fd=snapshots)
            if sync:
                os.fsync(snapshots)
                os.fsync(directory)
            return _describe(snapshots, path, name)


def rollback_snapshot(path: str | os.PathLike[str], name: str, *, sync: bool = True) -> list[int]:
    """Make the emulated device *path* what it was when its snapshot *name* was made; return the zones that changed.

    Also where the device has been damaged or replaced since. Only zones that are not known to be the same are put back;
    what is known is not guessed from times: they share their extents, or they were read. The device must not be in
    use. If it fails, everything is as it was; if this process is killed, the device is the old or the new one as a
    whole, for whoever opens it next. With *sync* that is so for a loss of power too.

    Raises UserError if there is no such snapshot, DeviceInUse, DeviceFormatError if the snapshot is damaged, OSError.
    """
    _check_name(name)
    path = Path(path)
    with _open_exclusively(path) as directory:
        lock_directory(directory, path, exclusive=True)
        finish_replacement(directory, path)
        with _open_snapshot(directory, path, name) as (snapshot, description, sizes):
            changed = _zones_to_put_back(snapshot, directory, path, description.geometry, sizes)
            if not changed and _same_description(directory, path, description):
                return []
            with build_replacement(directory, path, description, sync=sync) as replacement:
                for number in changed:
                    _copy_zone(snapshot, replacement, description.geometry, number, sizes[number], sync=sync)
                _take_over_owner(snapshot, replacement)
            return changed


def list_snapshots(path: str | os.PathLike[str]) -> list[Snapshot]:
    """Return the snapshots of the emulated device *path*, oldest first. It may be in use. Raises UserError, OSError."""
    path = Path(path)
    directory = open_directory(path)
    try:
        if not _exists(directory, DESCRIPTION_NAME) and not _exists(directory, SNAPSHOTS_NAME):
            raise DeviceFormatError(f"{path} is not an emulated device: it has no {DESCRIPTION_NAME}")
        try:
            snapshots = os.open(SNAPSHOTS_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return []
        try:
            names = [name for name in os.listdir(snapshots) if _NAME.fullmatch(name) and _exists(snapshots, name)]
            return sorted((_describe(snapshots, path, name) for name in names), key=lambda one: (one.created, one.name))
        finally:
            os.close(snapshots)
    finally:
        os.close(directory)


def delete_snapshot(path: str | os.PathLike[str], name: str) -> None:
    """Delete the snapshot *name* of the emulated device *path*, which may be in use; the snapshot must not be.

    It is gone as a whole or not at all. Raises UserError if there is none, DeviceInUse, OSError.
    """
    _check_name(name)
    path = Path(path)
    directory = open_directory(path)
    try:
        with naming_errors(path), _open_snapshots(directory, path) as snapshots:
            snapshot = _open_one(snapshots, path, name)
            try:
                lock_directory(snapshot, path / SNAPSHOTS_NAME / name, exclusive=True)
                _remove(snapshots, _UNFINISHED)
                os.rename(name, _UNFINISHED, src_dir_fd=snapshots, dst_dir_fd=snapshots)
                os.fsync(snapshots)
            finally:
                os.close(snapshot)
            _remove(snapshots, _UNFINISHED)
    finally:
        os.close(directory)


def diff_snapshots(path: str | os.PathLike[str], old: str, new: str | None = None) -> list[ZoneDifference]:
    """Return the zones in which the emulated device *path* (or its snapshot *new*) differs from its snapshot *old*.

    Write pointers, conditions and bytes are compared; bytes where the write pointers are the same. The device must not
    be in use by a writer. Raises UserError, for geometries that differ too, DeviceInUse, DeviceFormatError, OSError.
    """
    path = Path(path)
    directory = open_directory(path)
    try:
        with contextlib.ExitStack() as opened:
            _check_name(old)
            before = opened.enter_context(_open_snapshot(directory, path, old))
            if new is None:
                with _say_unmount():
                    after = (directory, *lock_and_check(directory, path, read_only=True))
            else:
                _check_name(new)
                after = opened.enter_context(_open_snapshot(directory, path, new))
            return list(_differences(before, after, path, old))
    finally:
        os.close(directory)


_Opened = tuple[int, DeviceDescription, list[int]]
"""A device's directory, its description, and the sizes of its zone files."""


def _differences(before: _Opened, after: _Opened, path: Path, name: str) -> Iterator[ZoneDifference]:
    old, old_description, old_sizes = before
    new, new_description, new_sizes = after
    geometry = old_description.geometry
    if new_description.geometry != geometry:
        raise UserError(f"{path}: snapshot {name!r} has other zones; a rollback would replace the device as a whole")
    for number, sizes in enumerate(zip(old_sizes, new_sizes, strict=True)):
        states = [
            ZoneState(_condition(description, number, size), size)
            for description, size in zip((old_description, new_description), sizes, strict=True)
        ]
        content = None
        if sizes[0] == sizes[1]:
            content = bool(sizes[0]) and not _same_file(old, new, zone_file_name(geometry, number), read=True)
        if content is not False or states[0] != states[1]:
            yield ZoneDifference(number, states[0], states[1], content)


def _condition(description: DeviceDescription, number: int, size: int) -> ZoneCondition:
    """The condition of a zone of a device that is closed."""
    if number in description.forced:
        return description.forced[number]
    if description.geometry.is_conventional(number):
        return ZoneCondition.NOT_WP
    if size == description.geometry.capacity_of(number):
        return ZoneCondition.FULL
    return ZoneCondition.CLOSED if size else ZoneCondition.EMPTY


def _zones_to_put_back(snapshot: int, directory: int, path: Path, geometry: Geometry, sizes: list[int]) -> list[int]:
    """The zones of which *directory*'s file is not known to be what *snapshot*'s is."""
    # A reflink costs less than reading; without them reading costs less than writing.
    read: bool | None = None
    changed = []
    for number, size in enumerate(sizes):
        name = zone_file_name(geometry, number)
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            changed.append(number)
            continue
        if stat.S_ISDIR(status.st_mode):
            raise DeviceFormatError(f"{path / name} is a directory: remove it, it is in the way of the zone's file")
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            changed.append(number)
        elif size and not _same_file(snapshot, directory, name, read=False):
            if read is None:
                read = not host_copy.reflink_alignment(directory)
            if not read or not _same_file(snapshot, directory, name, read=True):
                changed.append(number)
    return changed


def _same_file(one: int, other: int, name: str, *, read: bool) -> bool:
    """Whether the files *name* in two directories, of one size, are the same: for their places, or if *read* at all."""
    with contextlib.ExitStack() as opened:
        descriptors = []
        for directory in (one, other):
            descriptors.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory))
            opened.callback(os.close, descriptors[-1])
        return same_extents(*descriptors) or (read and same_content(*descriptors))


def _same_description(directory: int, path: Path, description: DeviceDescription) -> bool:
    try:
        return lock_and_check(directory, path, read_only=False)[0] == description
    except DeviceFormatError:
        return False


def _copy_zone(source: int, destination: int, geometry: Geometry, number: int, size: int, *, sync: bool) -> None:
    """Make zone *number*'s file in the directory *destination* what it is in *source*: *size* bytes long."""
    reader = os.open(zone_file_name(geometry, number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=source)
    try:
        writer = make_zone_file(destination, geometry, number)
        try:
            if size and not host_copy.copy_out(reader, writer, size, lambda done: None):
                _copy_data(reader, writer, size)
            os.ftruncate(writer, size)
            _take_over_owner(reader, writer)
            if size and sync:
                os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_data(reader: int, writer: int, size: int) -> None:
    """Copy what is no hole through memory: for a host that can do it in no other way."""
    for start, end in host_copy.data_ranges(reader, size):
        done = start
        while done < end:
            data = os.pread(reader, min(_PIECE_SIZE, end - done), done)
            if not data:
                return
            done += os.pwrite(writer, data, done)


def _take_over_owner(source: int, destination: int) -> None:
    """Give the file *destination* the mode of *source*, and its owner if we may: root makes snapshots for others."""
    wanted, now = os.fstat(source), os.fstat(destination)
    if (wanted.st_uid, wanted.st_gid) != (now.st_uid, now.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(destination, wanted.st_uid, wanted.st_gid)
    if stat.S_IMODE(wanted.st_mode) != stat.S_IMODE(now.st_mode):
        os.fchmod(destination, stat.S_IMODE(wanted.st_mode))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of a snapshot: use up to 64 letters, digits, dots, dashes and underscores,"
            " a letter or digit first"
        )


@contextlib.contextmanager
def _say_unmount() -> Iterator[None]:
    try:
        yield
    except DeviceInUse as exc:
        raise DeviceInUse(f"{exc}; a snapshot is of a device that is not in use: unmount it first") from None


@contextlib.contextmanager
def _open_exclusively(path: Path) -> Iterator[int]:
    """Open *path*; what it is in use for is said in full. The lock is the caller's to take."""
    directory = open_directory(path)
    try:
        with _say_unmount():
            yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def _open_snapshots(directory: int, path: Path, *, make: bool = False) -> Iterator[int]:
    """Open the directory of snapshots and hold others off who make or delete some.

    With *make* it is made if need be, and removed again if the block fails.
    """
    made = False
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(SNAPSHOTS_NAME, dir_fd=directory)
            made = True
    try:
        snapshots = os.open(SNAPSHOTS_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        raise UserError(f"{path} has no snapshots") from None
    try:
        fcntl.flock(snapshots, fcntl.LOCK_EX)
        if make:
            _take_over_owner(directory, snapshots)
        yield snapshots
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(SNAPSHOTS_NAME, dir_fd=directory)
        raise
    finally:
        os.close(snapshots)


def _open_one(snapshots: int, path: Path, name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=snapshots)
    except FileNotFoundError:
        raise UserError(
            f"{path} has no snapshot {name!r}; 'zonefs-py snapshot list {path}' shows which it has"
        ) from None


@contextlib.contextmanager
def _open_snapshot(directory: int, path: Path, name: str) -> Iterator[_Opened]:
    """Open a snapshot, locked against its being deleted, and check that it is whole."""
    with _open_snapshots(directory, path) as snapshots:
        snapshot = _open_one(snapshots, path, name)
    try:
        yield (snapshot, *lock_and_check(snapshot, path / SNAPSHOTS_NAME / name, read_only=True))
    finally:
        os.close(snapshot)


@contextlib.contextmanager
def _unfinished(snapshots: int) -> Iterator[int]:
    """Give a new directory to make a snapshot in, and remove it if that fails."""
    _remove(snapshots, _UNFINISHED)
    unfinished = make_directory(snapshots, _UNFINISHED)
    try:
        try:
            yield unfinished
        finally:
            os.close(unfinished)
    except BaseException:
        _remove(snapshots, _UNFINISHED)
        raise


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=directory)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _describe(snapshots: int, path: Path, name: str) -> Snapshot:
    created = os.stat(f"{name}/{DESCRIPTION_NAME}", dir_fd=snapshots).st_mtime
    return Snapshot(name, created, path / SNAPSHOTS_NAME / name)

"""Makes and opens emulated devices in directories: locks, checks and repairs; docs/device-format.md."""

from __future__ import annotations

import logging
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

from zonefs_py.device import host_copy
from zonefs_py.device.building import (
    build_device,
    check_no_snapshot,
    check_not_replaced,
    finish_replacement,
    make_zone_file,
)
from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.device.description import MAX_FILE_SIZE, DeviceDescription, parse_description
from zonefs_py.device.directory_lock import lock_directory
from zonefs_py.device.emulated import EmulatedDevice, make_info
from zonefs_py.device.host_files import read_small_file
from zonefs_py.device.zone_files import DESCRIPTION_NAME, DirectoryStore, zone_file_name
from zonefs_py.errors import DeviceFormatError, DeviceReadOnly, ZonefsError
from zonefs_py.units import round_down
from zonefs_py.zone import Geometry

log = logging.getLogger(__name__)


def create_device(
    path: str | os.PathLike[str],
    geometry: Geometry,
    max_open_zones: int | None = None,
    max_active_zones: int | None = None,
    serial: str | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
    profile: str = "",
) -> None:
    """Make an emulated device in the directory *path*, which is made too if it is missing.

    A directory that is not empty is refused; with *force* an emulated device in it is replaced, but anything else
    is still refused. If it fails, everything is as it was before: nothing, or the old device, untouched. *profile* is
    the name of a drive that it is like. *progress* is called with the number of zones made so far. Raises UserError,
    OSError.
    """
    description = DeviceDescription(
        geometry,
        max_open_zones=max_open_zones,
        max_active_zones=max_active_zones,
        serial=new_serial() if serial is None else serial,
        profile=profile,
    )
    with build_device(path, description, force=force) as directory:
        for number in range(geometry.nr_zones):
            os.close(make_zone_file(directory, geometry, number))
            if progress is not None and number % 256 == 255:
                progress(number + 1)


def new_serial() -> str:
    """Return a serial that no other device has."""
    return uuid.uuid4().hex[:16]


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether *path* looks like an emulated device: a directory with a device.json."""
    return (Path(path) / DESCRIPTION_NAME).exists()


def open_device(path: str | os.PathLike[str], read_only: bool = False) -> EmulatedDevice:
    """Open the emulated device in the directory *path* and lock it: exclusively, or shared if *read_only*.

    A sequential file whose size is not a multiple of the block size is what a killed writer leaves: it is cut down
    (unless *read_only*) and logged. A replacement of the device that was cut short is finished first; *read_only* it
    is refused. Raises DeviceFormatError naming the file, DeviceInUse, DeviceReadOnly, OSError.
    """
    if not os.fspath(path):
        raise DeviceFormatError("an empty path names no device")
    path = Path(path)
    if not read_only:
        check_no_snapshot(path)
    directory = open_directory(path)
    try:
        description, sizes = lock_and_check(directory, path, read_only=read_only)
        conditions = ZoneConditions(
            description.geometry, description.max_open_zones, description.max_active_zones, sizes
        )
        alignment = 0 if read_only else host_copy.reflink_alignment(directory)
        store = DirectoryStore(str(path), directory, description.geometry, read_only=read_only, alignment=alignment)
        methods = () if read_only else host_copy.methods(alignment)
        info = make_info(
            description,
            "emulated",
            str(path),
            read_only=read_only,
            copy_methods=methods,
            reflink_alignment=max(alignment, description.geometry.block_size) if alignment else 0,
        )
        return EmulatedDevice(store, description, conditions, info)
    except BaseException:
        os.close(directory)
        raise


def lock_and_check(directory: int, path: Path, *, read_only: bool) -> tuple[DeviceDescription, list[int]]:
    """Lock the emulated device *path*, open as *directory*; return what it is and the sizes of its zone files.

    Locks, checks and repairs what `open_device` does, and raises the same.
    """
    lock_directory(directory, path, exclusive=not read_only)
    if read_only:
        check_not_replaced(directory, path)
    else:
        finish_replacement(directory, path)
    description = _read_description(directory, path)
    if not read_only:
        _check_access(directory, path, description.geometry)
    return description, _read_sizes(directory, path, description.geometry, read_only=read_only)


def open_directory(path: Path) -> int:
    """Open the directory of an emulated device and return the descriptor. Raises DeviceFormatError, OSError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise DeviceFormatError(f"{path} is not a directory, so not an emulated device") from None
    except FileNotFoundError:
        raise DeviceFormatError(f"{path} does not exist; zonefs-py create makes a device") from None


def _read_description(directory: int, path: Path) -> DeviceDescription:
    name = path / DESCRIPTION_NAME
    try:
        content = read_small_file(DESCRIPTION_NAME, MAX_FILE_SIZE, os.O_NOFOLLOW, directory)
    except FileNotFoundError:
        raise DeviceFormatError(f"{path} is not an emulated device: it has no {DESCRIPTION_NAME}") from None
    except OSError as exc:
        raise DeviceFormatError(f"{name}: {exc.strerror}") from None
    if content is None:
        raise DeviceFormatError(f"{name}: not a regular file of a size that a description can have")
    try:
        return parse_description(content)
    except ZonefsError as exc:
        raise DeviceFormatError(f"{name}: {exc}") from None


def _check_access(directory: int, path: Path, geometry: Geometry) -> None:
    try:
        descriptor = os.open(zone_file_name(geometry, 0), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
    except PermissionError:
        raise DeviceReadOnly(f"{path}: no permission to write its zones; a read-only mount (-o ro) may do") from None
    except OSError as exc:
        # A read-only host file system: EROFS. What else is wrong with the file, the scan says better.
        if stat.S_ISREG(_status(directory, path, geometry, 0).st_mode):
            raise DeviceReadOnly(f"{path}: {exc.strerror}; a read-only mount (-o ro) may do") from None
    else:
        os.close(descriptor)


def _status(directory: int, path: Path, geometry: Geometry, number: int) -> os.stat_result:
    name = zone_file_name(geometry, number)
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        raise DeviceFormatError(f"{path / name} is missing: the device is damaged") from None


def _read_sizes(directory: int, path: Path, geometry: Geometry, *, read_only: bool) -> list[int]:
    sizes = []
    # A hundred thousand times: what is the same for nearly all is worked out once.
    nr_conventional, last, block_size = geometry.nr_conventional, geometry.nr_zones - 1, geometry.block_size
    most = min(geometry.zone_size, geometry.zone_capacity)
    for number in range(geometry.nr_zones):
        status = _status(directory, path, geometry, number)
        size = status.st_size
        is_plain = nr_conventional <= number < last and size <= most and not size % block_size
        if not is_plain or not stat.S_ISREG(status.st_mode):
            size = _check_file(directory, path, geometry, number, status, read_only=read_only)
        sizes.append(size)
    return sizes


def _check_file(
    directory: int, path: Path, geometry: Geometry, number: int, status: os.stat_result, *, read_only: bool
) -> int:
    """Return the size of zone *number*'s file, cut to whole blocks. Raises DeviceFormatError."""
    size, capacity = status.st_size, geometry.capacity_of(number)
    file = path / zone_file_name(geometry, number)
    if not stat.S_ISREG(status.st_mode):
        raise DeviceFormatError(f"{file} is not a regular file: the device is damaged")
    if size > capacity:
        raise DeviceFormatError(f"{file} is {size} bytes, but the zone holds {capacity}: the device is damaged")
    if geometry.is_conventional(number):
        if size != capacity:
            raise DeviceFormatError(f"{file} is {size} bytes; a conventional zone's file is always {capacity}")
    elif size % geometry.block_size:
        return _cut_to_block(directory, path, geometry, number, size, read_only=read_only)
    return size


def _cut_to_block(directory: int, path: Path, geometry: Geometry, number: int, size: int, *, read_only: bool) -> int:
    name = zone_file_name(geometry, number)
    whole = round_down(size, geometry.block_size)
    if not read_only:
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory)
        try:
            os.ftruncate(descriptor, whole)
        finally:
            os.close(descriptor)
        log.warning("%s: cut from %d to %d bytes: a writer was killed within a block", path / name, size, whole)
    return whole

"""Makes and opens emulated devices in directories: locks, checks and repairs; docs/device-format.md."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import uuid
from collections.abc import Callable, Container
from pathlib import Path

from zonefs_py.device import host_copy
from zonefs_py.device.conditions import ZoneConditions
from zonefs_py.device.description import DeviceDescription, check_description, parse_description
from zonefs_py.device.emulated import EmulatedDevice, make_info
from zonefs_py.device.zone_files import DESCRIPTION_NAME, DirectoryStore, write_description, zone_file_name
from zonefs_py.errors import DeviceFormatError, DeviceInUse, DeviceReadOnly, UserError, ZonefsError
from zonefs_py.units import round_down
from zonefs_py.zone import Geometry

log = logging.getLogger(__name__)

MAX_DESCRIPTION_SIZE = 64 * 1024 * 1024


def create_device(
    path: str | os.PathLike[str],
    geometry: Geometry,
    max_open_zones: int | None = None,
    max_active_zones: int | None = None,
    serial: str | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make an emulated device in the directory *path*, which is made too if it is missing.

    A directory that is not empty is refused; with *force* an emulated device in it is replaced, but anything else
    is still refused. device.json is written last: a creation that was cut short leaves no device. *progress* is
    called with the number of zones made so far. Raises UserError, OSError.
    """
    path = Path(path)
    description = DeviceDescription(
        geometry,
        max_open_zones=max_open_zones,
        max_active_zones=max_active_zones,
        serial=serial if serial is not None else uuid.uuid4().hex[:16],
    )
    check_description(description)
    made = _make_directory(path)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(directory, path, exclusive=True)
        _clear(directory, path, geometry, force=force)
        try:
            for number in range(geometry.nr_zones):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(zone_file_name(geometry, number), flags, 0o666, dir_fd=directory)
                try:
                    if geometry.is_conventional(number):
                        os.ftruncate(descriptor, geometry.size_of(number))
                finally:
                    os.close(descriptor)
                if progress is not None and number % 256 == 255:
                    progress(number + 1)
            write_description(directory, description)
        except BaseException:
            # Interrupted or out of space: what is there is no device, so leave nothing behind.
            _remove_zone_files(directory)
            if made:
                path.rmdir()
            raise
    finally:
        os.close(directory)


def _make_directory(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise UserError(f"{path} is not a directory") from None
        return False
    return True


def _is_ours(name: str) -> bool:
    if name == DESCRIPTION_NAME or name.startswith(f".{DESCRIPTION_NAME}."):
        return True
    kind, dash, digits = name.partition("-")
    return kind in ("cnv", "seq") and dash == "-" and len(digits) >= 6 and digits.isascii() and digits.isdecimal()


def _is_regular(directory: int, name: str) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _clear(directory: int, path: Path, geometry: Geometry, *, force: bool) -> None:
    """Remove a device that is there, but for files that one of *geometry* has too: ext4 is slow to make them anew."""
    names = os.listdir(directory)
    if not names:
        return
    if not force:
        raise UserError(f"{path} is not empty; -f replaces an emulated device that is there")
    foreign = sorted(name for name in names if not _is_ours(name) or not _is_regular(directory, name))
    if foreign:
        raise UserError(f"{path} holds {foreign[0]!r}, which is not part of an emulated device; it will not be removed")
    _remove_zone_files(directory, {zone_file_name(geometry, number) for number in range(geometry.nr_zones)})


def _remove_zone_files(directory: int, but: Container[str] = ()) -> None:
    # The description first: without it the rest is no device.
    for name in sorted(os.listdir(directory), key=lambda name: name != DESCRIPTION_NAME):
        if _is_ours(name) and name not in but:
            os.unlink(name, dir_fd=directory)


def _lock(directory: int, path: Path, *, exclusive: bool) -> None:
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(directory, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _lock_holder(directory)
        raise DeviceInUse(f"{path} is in use by {f'pid {holder}' if holder else 'another process'}") from None


def _lock_holder(directory: int) -> int | None:
    status = os.fstat(directory)
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    # "1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF"; a blocked one has "->" as its second word.
    locks = [words for line in lines if len(words := line.split()) > 5 and words[1] == "FLOCK"]
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    # On btrfs and overlayfs stat gives another device number than the kernel uses here: then the inode must do.
    for end in (f"{device}:{status.st_ino}", f":{status.st_ino}"):
        for words in locks:
            if words[5].endswith(end):
                return int(words[4])
    return None


def is_device(path: str | os.PathLike[str]) -> bool:
    """Whether *path* looks like an emulated device: a directory with a device.json."""
    return (Path(path) / DESCRIPTION_NAME).exists()


def open_device(path: str | os.PathLike[str], read_only: bool = False) -> EmulatedDevice:
    """Open the emulated device in the directory *path* and lock it: exclusively, or shared if *read_only*.

    A sequential file whose size is not a multiple of the block size is what a killed writer leaves: it is cut down
    (unless *read_only*) and logged. Raises DeviceFormatError naming the file, DeviceInUse, DeviceReadOnly, OSError.
    """
    path = Path(path)
    directory = _open_directory(path)
    try:
        _lock(directory, path, exclusive=not read_only)
        description = _read_description(directory, path)
        if not read_only:
            _check_access(directory, path, description.geometry)
        sizes = _read_sizes(directory, path, description.geometry, read_only=read_only)
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


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise DeviceFormatError(f"{path} is not a directory, so not an emulated device") from None
    except FileNotFoundError:
        raise DeviceFormatError(f"{path} does not exist; zonefs-py create makes a device") from None


def _read_description(directory: int, path: Path) -> DeviceDescription:
    name = path / DESCRIPTION_NAME
    try:
        # Not blocking: a named pipe of that name must not stop us before it is recognised.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(DESCRIPTION_NAME, flags, dir_fd=directory)
    except FileNotFoundError:
        raise DeviceFormatError(f"{path} is not an emulated device: it has no {DESCRIPTION_NAME}") from None
    except OSError as exc:
        raise DeviceFormatError(f"{name}: {exc.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_DESCRIPTION_SIZE:
        os.close(descriptor)
        raise DeviceFormatError(f"{name}: not a regular file of a size that a description can have")
    with open(descriptor, "rb") as file:
        content = file.read()
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
    for number in range(geometry.nr_zones):
        status = _status(directory, path, geometry, number)
        size = status.st_size
        capacity = geometry.capacity_of(number)
        file = path / zone_file_name(geometry, number) if not stat.S_ISREG(status.st_mode) or size > capacity else None
        if not stat.S_ISREG(status.st_mode):
            raise DeviceFormatError(f"{file} is not a regular file: the device is damaged")
        if size > capacity:
            raise DeviceFormatError(f"{file} is {size} bytes, but the zone holds {capacity}: the device is damaged")
        if geometry.is_conventional(number):
            if size != capacity:
                file = path / zone_file_name(geometry, number)
                raise DeviceFormatError(f"{file} is {size} bytes; a conventional zone's file is always {capacity}")
        elif size % geometry.block_size:
            size = _cut_to_block(directory, path, geometry, number, size, read_only=read_only)
        sizes.append(size)
    return sizes


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

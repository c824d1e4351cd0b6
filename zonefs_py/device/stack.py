"""Opens stacks of devices from their text form: the only place where stacks are built from what a user says."""

from __future__ import annotations

import contextlib
import os
import stat

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.blockdev import is_block_device, open_block_device
from zonefs_py.device.directory import open_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import FaultRule, Scenario, parse_scenario
from zonefs_py.device.host_files import read_small_file
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.nvme import with_copies
from zonefs_py.device.nvme_target import TargetLimits, default_limits, model_device
from zonefs_py.device.stack_spec import (
    DeviceSpec,
    FaultSpec,
    NvmeCopySpec,
    PartSpec,
    PathSpec,
    WriteCacheSpec,
    device_paths,
    format_spec,
    map_paths,
    parse_spec,
)
from zonefs_py.device.sysfs import read_facts
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.device.zone_files import DESCRIPTION_NAME
from zonefs_py.errors import UserError

MAX_RULES_SIZE = 16 * 1024 * 1024


def open_stack(text: str, read_only: bool = False) -> ZonedDevice:
    """Open the device that *text* stands for: a device by its path, or a stack (see `stack_spec`).

    Closing it closes all devices in it. If one cannot be opened, or does not fit, those that were opened are closed.
    Raises UserError (DeviceFormatError, DeviceInUse, DeviceReadOnly), DeviceError, OSError.
    """
    spec = parse_spec(text)
    _check_used_once(spec)
    with contextlib.ExitStack() as opened:
        device = _open(spec, opened, read_only=read_only)
        # All went well: whoever closes the device closes what is below.
        opened.pop_all()
    return device


def absolute_text(text: str) -> str:
    """Return *text* with absolute paths, for a process that will change its directory. Raises UserError."""
    return format_spec(map_paths(parse_spec(text), absolute_path))


def absolute_path(path: str) -> str:
    """Return *path* as an absolute path that names the same file, whatever links are on the way."""
    # A ".." behind a link leads to the parent of what the link names: taking it out of the text would be wrong.
    return os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)


def _check_used_once(spec: DeviceSpec) -> None:
    seen: dict[tuple[int, int], str] = {}
    for path in device_paths(spec):
        try:
            status = os.stat(path)
        except OSError:
            continue  # opening it says what is wrong
        # Several nodes may be one block device.
        block = stat.S_ISBLK(status.st_mode)
        identity = (-1, status.st_rdev) if block else (status.st_dev, status.st_ino)
        if identity in seen:
            other = seen[identity]
            same = f"{path} is" if path == other else f"{path} and {other} are the same device,"
            raise UserError(f"{same} used twice: name it once, with all its zones in brackets, such as [0-3,8-15]")
        seen[identity] = path


def _open(spec: DeviceSpec, opened: contextlib.ExitStack, *, read_only: bool) -> ZonedDevice:
    """Open *spec*; what is opened below is put on *opened*, to be closed again if the rest fails."""
    if isinstance(spec, PathSpec):
        device = open_path(spec.path, read_only=read_only)
        opened.callback(device.close)
        return device
    if isinstance(spec, FaultSpec):
        rules = read_rules(spec.rules)
        device = _open(spec.device, opened, read_only=read_only)
        try:
            return FaultDevice(device, rules, format_spec(spec))
        except UserError as exc:
            raise UserError(f"{spec.rules}: {exc}") from None
    if isinstance(spec, NvmeCopySpec):
        device = _open(spec.device, opened, read_only=read_only)
        return model_device(device, _limits(spec, device.info.block_size), spec.back_end, format_spec(spec))
    if isinstance(spec, WriteCacheSpec):
        return WriteCacheDevice(_open(spec.device, opened, read_only=read_only), format_spec(spec))
    slices = [piece for part in spec.parts for piece in _slices(part, opened, read_only=read_only)]
    return LinearDevice(slices, format_spec(spec))


def open_path(path: str, read_only: bool = False) -> ZonedDevice:
    """Open what *path* names: a block device, or an emulated one in a directory. Raises as `open_stack`."""
    if is_block_device(path):
        device = open_block_device(path, read_only=read_only)
        return with_copies(device, device.descriptor, device.note_change)
    return open_device(path, read_only=read_only)


def can_be_written(path: str) -> bool:
    """Whether this user may write the device *path*, of either kind, which can be opened. Raises OSError."""
    if is_block_device(path):
        return os.access(path, os.W_OK, effective_ids=True) and not read_facts(os.stat(path).st_rdev).read_only
    return os.access(os.path.join(path, DESCRIPTION_NAME), os.W_OK, effective_ids=True)


def _limits(spec: NvmeCopySpec, block_size: int) -> TargetLimits:
    defaults = default_limits(spec.back_end, block_size)
    return TargetLimits(
        defaults.mssrl if spec.mssrl is None else spec.mssrl,
        defaults.mcl if spec.mcl is None else spec.mcl,
        defaults.msrc if spec.msrc is None else spec.msrc,
    )


def _slices(part: PartSpec, opened: contextlib.ExitStack, *, read_only: bool) -> list[Slice]:
    device = _open(part.device, opened, read_only=read_only)
    if not part.zones:
        return [Slice(device)]
    return [
        Slice(device, zones.first, None if zones.last is None else zones.last - zones.first + 1) for zones in part.zones
    ]


def read_rules(path: str) -> list[FaultRule]:
    """Return the rules in the file *path*. Raises UserError as `read_scenario` does."""
    return list(read_scenario(path).rules)


def read_scenario(path: str) -> Scenario:
    """Return what the rule file *path* says. Raises UserError that names the file, the rule and the field."""
    try:
        content = read_small_file(path, MAX_RULES_SIZE)
    except OSError as exc:
        raise UserError(f"rule file {path}: {exc.strerror}") from None
    if content is None:
        raise UserError(f"rule file {path}: not a regular file of at most {MAX_RULES_SIZE} bytes")
    try:
        return parse_scenario(content)
    except UserError as exc:
        raise UserError(f"{path}: {exc}") from None

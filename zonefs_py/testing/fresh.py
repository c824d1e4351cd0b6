"""Fresh formatted devices for tests, and the text of what is stacked on them."""

from __future__ import annotations

import os
from pathlib import Path

from zonefs_py.config import FormatOptions, parse_format_options
from zonefs_py.device.choice import DeviceChoice
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.stack_spec import DeviceSpec, FaultSpec, PathSpec, WriteCacheSpec, format_spec
from zonefs_py.fs.format import format_device


def fresh_device(path: Path, choice: DeviceChoice, features: str = "") -> Path:
    """Make *path* a device of *choice*, formatted as mkfs's ``-o`` *features* say; files are the caller's by default.

    Raises OptionError, UserError, OSError.
    """
    options = parse_format_options(features, FormatOptions(uid=os.geteuid(), gid=os.getegid()))
    max_open, max_active = choice.limits()
    create_device(path, choice.geometry(), max_open, max_active, profile=choice.profile or "")
    with open_device(path) as device:
        format_device(device, options)
    return path


def stack_text(path: str, *, rules: str | None = None, write_cache: bool = False) -> str:
    """Return the text of the device *path* with a write cache, and a rule file, on it, as far as wanted."""
    spec: DeviceSpec = PathSpec(path)
    if write_cache:
        spec = WriteCacheSpec(spec)
    if rules is not None:
        spec = FaultSpec(os.path.abspath(rules), spec)
    return path if isinstance(spec, PathSpec) else format_spec(spec)

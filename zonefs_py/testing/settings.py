"""What a test says of its devices and mounts, from several places, the closer one replacing the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack

from zonefs_py.config import parse_format_options, parse_mount_options
from zonefs_py.device.choice import DeviceChoice
from zonefs_py.errors import OptionError, UserError
from zonefs_py.units import parse_count, parse_size


class UsageError(UserError):
    """A setting that there is not, or whose value is wrong."""


class SettingsChanges(TypedDict, total=False):
    """The settings, as keywords. Sizes are in bytes, or text such as ``"4M"``."""

    zones: int
    conventional: int
    zone_size: int | str
    zone_capacity: int | str
    block_size: int | str
    max_open: int
    max_active: int
    last_zone_size: int | str
    profile: str
    features: str
    mount_options: str
    write_cache: bool


_COUNTS = ("zones", "conventional", "max_open", "max_active")
_SIZES = ("zone_size", "zone_capacity", "block_size", "last_zone_size")
_TEXTS = ("profile", "features", "mount_options")
_FLAGS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
NAMES = (*_COUNTS, *_SIZES, *_TEXTS, "write_cache")


@dataclass(frozen=True)
class Settings:
    """What devices and mounts are like. `change` is the way from one to another."""

    said: DeviceChoice = field(default_factory=DeviceChoice)
    features: str = ""
    """What mkfs has after ``-o``."""
    mount_options: str = ""
    """What mount has after ``-o``."""
    write_cache: bool = False

    @property
    def choice(self) -> DeviceChoice:
        """The device: what was said, and `DeviceChoice.completed` for the rest."""
        return self.said.completed()

    def change(self, **changes: Unpack[SettingsChanges]) -> Settings:
        """Return these settings with *changes*. Raises UsageError that names the setting."""
        result = self
        for name, value in changes.items():
            result = result._with(name, value)
        return result

    def parse(self, text: str) -> Settings:
        """Return these settings with *text*, ``NAME=VALUE``. Raises UsageError that names the setting."""
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"zonefs: {text!r} is not NAME=VALUE")
        return self._with(name.strip(), value.strip())

    def _with(self, name: str, value: object) -> Settings:
        if name not in NAMES:
            raise UsageError(f"zonefs: there is no setting {name!r}; known are {', '.join(NAMES)}")
        try:
            read = _read(name, value)
            change: dict[str, Any] = {name: read}
            if name in ("features", "mount_options", "write_cache"):
                return replace(self, **change)
            changed = replace(self.said, **change)
            if name == "profile":
                DeviceChoice(profile=changed.profile).geometry()
        except (ValueError, OptionError) as exc:
            raise UsageError(f"zonefs: {name}={value!r}: {exc}") from None
        return replace(self, said=changed)


def _read(name: str, value: object) -> object:
    """Return *value*, as it is given in Python or as text, as setting *name* has it. Raises ValueError, OptionError."""
    if name == "write_cache":
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _FLAGS:
            return _FLAGS[value.lower()]
        raise ValueError("write yes or no")
    if name in _TEXTS:
        if not isinstance(value, str):
            raise ValueError("it must be text")
        if name == "features":
            parse_format_options(value)
        elif name == "mount_options":
            parse_mount_options(value)
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if not isinstance(value, str):
        raise ValueError("it must be a number, not negative" + ("" if name in _COUNTS else ", or text such as 4M"))
    return parse_count(value) if name in _COUNTS else parse_size(value)

"""What the fixtures of `plugin` give to tests. It knows nothing of pytest, and can be used without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from zonefs_py.config import FormatOptions, MountOptions, parse_format_options, parse_mount_options
from zonefs_py.control.client import MountControl
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import FaultRule, format_rules, parse_rule
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import Keep, PowerCut, parse_keep
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import MountError, UserError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.testing.fresh import fresh_device, stack_text
from zonefs_py.testing.scratch import Scratch, ScratchMount
from zonefs_py.testing.settings import Settings, SettingsChanges, UsageError

__all__ = ["Devices", "Faults", "Filesystems", "LiveMount", "Mounts", "Power", "Settings", "UsageError"]


def device_text(device: Path, faults: Faults, *, write_cache: bool) -> str:
    """Return the text of *device* with the rules that *faults* has now, and a write cache if wanted."""
    return stack_text(str(device), rules=faults.file_for_mount(), write_cache=write_cache)


class Devices:
    """Makes emulated devices, formatted, in a directory."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.settings = settings
        self._directory = directory
        self._made = 0

    def __call__(self, **changes: Unpack[SettingsChanges]) -> Path:
        """Make a device of the test's settings with these *changes*, and return its directory. Files are the caller's.

        Raises UsageError, UserError, OSError.
        """
        settings = self.settings.change(**changes)
        self._made += 1
        return fresh_device(self._directory / f"zonefs-device{self._made}", settings.choice, settings.features)


class Faults:
    """Rules about what goes wrong, as docs/stacks.md has them, for all devices of a test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rules: list[FaultRule] = []
        self._devices: list[FaultDevice] = []
        self._mounts: list[LiveMount] = []

    def add(self, operation: str, effect: str, **more: object) -> None:
        """Add a rule with the fields of a rule file: ``add("write", "fail", zones="2-3", first=2, error="ENOSPC")``.

        It holds for the file systems and mounts of the test that there are and those to come, and counts from now on;
        in a mount that is mounted again, from then on. Raises UserError that names the field that is wrong, MountError
        if a mount does not take it.
        """
        parsed = parse_rule({"operation": operation, "effect": effect, **more})
        for device in self._devices:
            device.add_rule(parsed)
        for control in self._controls():
            control.add_faults([parsed])
        self._rules.append(parsed)

    def clear(self) -> None:
        """Take all rules away, of the file systems and mounts that there are too. Calls that are stuck go on."""
        for device in self._devices:
            device.remove_rules()
        for control in self._controls():
            control.clear_faults()
        self._rules.clear()

    def release(self, *, fail: bool = False) -> int:
        """Let calls that are stuck go on, or *fail*; return how many there were. The rules stay."""
        count = sum(device.release(fail=fail) for device in self._devices)
        return count + sum(control.release_stuck(fail=fail) for control in self._controls())

    @property
    def fired(self) -> int:
        """How often the rules that there are have struck, in file systems of this process and mounts in use."""
        here = sum(status.fired for device in self._devices for status in device.rules)
        there: list[int] = [rule["fired"] for control in self._controls() for rule in control.faults()["rules"]]
        return here + sum(there)

    @property
    def stuck(self) -> int:
        """How many calls are stuck now."""
        return sum(len(device.stuck) for device in self._devices) + sum(
            len(control.faults()["stuck"]) for control in self._controls()
        )

    def _controls(self) -> list[MountControl]:
        return [mount.control for mount in self._mounts if mount.in_use]

    def watch(self, mount: LiveMount) -> None:
        """Take *mount*, which was mounted with `file_for_mount`, as one of the test's."""
        self._mounts.append(mount)

    def over(self, device: ZonedDevice) -> FaultDevice:
        """Return *device* with the rules."""
        # It may wait: nobody here has been promised otherwise.
        faulty = FaultDevice(device, self._rules, waits=True)
        self._devices.append(faulty)
        return faulty

    def file_for_mount(self) -> str | None:
        """Write the rules to a file and return its path; None if there are none."""
        if not self._rules:
            return None
        path = self._directory / "zonefs-faults.json"
        path.write_text(format_rules(self._rules))
        return str(path)


class Filesystems:
    """Makes file systems in this process."""

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self.settings = settings
        self._faults = faults
        self._open: list[Filesystem] = []

    def __call__(self, **changes: Unpack[SettingsChanges]) -> Filesystem:
        """Make a device in memory of the test's settings with these *changes*, format and mount it.

        Raises UsageError, UserError, DeviceError.
        """
        settings = self.settings.change(**changes)
        max_open, max_active = settings.choice.limits()
        device: ZonedDevice = MemoryDevice(settings.choice.geometry(), max_open, max_active)
        owner = FormatOptions(uid=os.geteuid(), gid=os.getegid())
        format_device(device, parse_format_options(settings.features, owner))
        if settings.write_cache:
            device = WriteCacheDevice(device)
        return self.mount(self._faults.over(device), parse_mount_options(settings.mount_options).filesystem)

    def mount(self, device: ZonedDevice, options: MountOptions) -> Filesystem:
        """Mount *device*, which is closed with the others at the end. Raises what `Filesystem` raises."""
        filesystem = Filesystem(device, options)
        self._open.append(filesystem)
        return filesystem

    def forget(self, filesystem: Filesystem) -> None:
        """Do not close *filesystem*, because its device goes on."""
        self._open.remove(filesystem)

    def close(self) -> None:
        """Close them all. What a fault does to that is no failure of the test."""
        self._faults.clear()
        for filesystem in self._open:
            filesystem.close()


class Power:
    """Cuts the power of file systems in this process that have a write cache."""

    def __init__(self, filesystems: Filesystems) -> None:
        self._filesystems = filesystems
        self.last: PowerCut | None = None
        """What the last cut did."""

    def cycle(self, filesystem: Filesystem, keep: Keep | str = "none") -> Filesystem:
        """Cut the power, turn it on, and mount again; return the new file system. The old one is of no more use.

        *keep* says what is kept of what was not flushed: ``none``, ``all``, ``seed:N``, or a `Keep`. Raises UserError
        if there is no write cache: ask for one with ``write_cache=True``.
        """
        device = filesystem.device
        self.last = device.power_cut(parse_keep(keep) if isinstance(keep, str) else keep)
        self._filesystems.forget(filesystem)
        device.power_on()
        return self._filesystems.mount(device, filesystem.options)


class LiveMount:
    """A real mount: files are below ``path``; ``device`` is the directory of the emulated device."""

    def __init__(self, mount: ScratchMount, device: Path, faults: Faults, *, write_cache: bool) -> None:
        self.device = device
        self._mount = mount
        self._faults = faults
        self._write_cache = write_cache

    @property
    def path(self) -> Path:
        """Where it is mounted."""
        return self._mount.path

    @property
    def pid(self) -> int:
        """The daemon that serves it."""
        return self._mount.pid

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        return self._mount.log_file.read_text(errors="replace")

    def unmount(self) -> None:
        """Unmount: everything is on the device then. Raises MountError if a file is open, or the daemon failed."""
        if status := self._mount.unmount():
            raise MountError(f"{self.path}: the daemon failed ({status}); its log:\n{self.log}")

    @property
    def in_use(self) -> bool:
        """Whether it is mounted, and its daemon runs."""
        return self._mount.mounted and self._mount.exit_status is None

    @property
    def control(self) -> MountControl:
        """What can be asked of the mount while it is in use: numbers, zones, refusals. Raises MountError."""
        return MountControl(self.path)

    def remount(self, mount_options: str | None = None) -> None:
        """Mount again, unmounting first if need be, with other options if they are given. Raises MountError."""
        if self._mount.mounted:
            self.unmount()
        text = device_text(self.device, self._faults, write_cache=self._write_cache)
        self._mount.remount(text, options=mount_options)

    def power_cut(self, keep: str = "none", *, dead: bool = False) -> PowerCut:
        """Cut the power; return what was not flushed and is kept: ``none``, ``all``, or by chance, ``seed:N``.

        The mount is back then, or, if *dead*, answers every call with EIO until `power_on`. Files that are open are
        lost. Raises UserError if there is no write cache: ask for one with ``write_cache=True``.
        """
        self._check_write_cache()
        return self.control.power_cut(keep, dead=dead)

    def power_on(self) -> None:
        """Bring back a mount that `power_cut` has left dead. Raises as that."""
        self._check_write_cache()
        self.control.power_on()

    def _check_write_cache(self) -> None:
        if not self._write_cache:
            raise UserError("a power cut needs a device with a write cache: zonefs_mount(write_cache=True)")

    def close(self) -> str | None:
        """Unmount whatever happens; return what there is to complain about, if anything."""
        if not self._mount.mounted and self._mount.exit_status is None:
            return None
        before = self._mount.exit_status
        status = self._mount.unmount(lazy=True) if before is None else before
        if before is not None and self._mount.mounted:
            self._mount.unmount(lazy=True)
        if status:
            return f"the daemon of {self.path} failed ({status}); its log:\n{self.log}"
        return None


class Mounts:
    """Makes real mounts."""

    def __init__(self, devices: Devices, faults: Faults, scratch: Scratch) -> None:
        self._devices = devices
        self._faults = faults
        self._scratch = scratch
        self._made: list[LiveMount] = []

    def __call__(self, device: str | os.PathLike[str] | None = None, **changes: Unpack[SettingsChanges]) -> LiveMount:
        """Mount *device*, the directory of an emulated one, or a new one of the test's settings with these *changes*.

        Raises UsageError, UserError, OSError.
        """
        settings = self._devices.settings.change(**changes)
        path = self._devices(**changes) if device is None else Path(device)
        text = device_text(path, self._faults, write_cache=settings.write_cache)
        scratch = self._scratch.mount(text, settings.mount_options)
        mount = LiveMount(scratch, path, self._faults, write_cache=settings.write_cache)
        self._faults.watch(mount)
        self._made.append(mount)
        return mount

    def close(self) -> list[str]:
        """Unmount all; return what there is to complain about."""
        return [complaint for mount in self._made if (complaint := mount.close()) is not None]

"""The file systems that the probe runs on: the kernel's and ours, on block devices; ours on an emulated device."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.equality import system
from tests.equality.flakey import FlakyNullBlk
from tests.equality.geometry import Geometry
from tests.equality.nullblk import NullBlk
from tests.equality.scsidebug import ScsiDebug
from tests.equality.zns import Zns
from tests.equality.zoned import ZonedBlockDevice

POLICIES = ("remount-ro", "zone-ro", "zone-offline", "repair")

Zones = list[tuple[str, int]]


_CONDITIONS = {
    "not-write-pointer": "nw",
    "empty": "em",
    "implicit-open": "oi",
    "explicit-open": "oe",
    "closed": "cl",
    "read-only": "ro",
    "full": "fu",
    "offline": "of",
}
"""Conditions as our report names them, and in short."""


class Refused(Exception):
    """The file system would not be mounted, or remounted."""


class Subject(ABC):
    """One file system on one device at a time, mounted at ``root`` now and then."""

    kind: str
    device_kind = "null_blk"
    """Which groups of cases are for it: an emulated device takes the place of a null_blk."""

    def __init__(self, directory: Path, node: str = "") -> None:
        """*directory* is the subject's own; *node* is a device for those that make none."""
        self.directory = directory
        self.node = node
        self.root = str(directory / "mnt")
        Path(self.root).mkdir(parents=True, exist_ok=True)
        self.options = ""
        self.read_only = False

    @property
    @abstractmethod
    def version(self) -> str:
        """What this is the answer of."""

    @abstractmethod
    def make(
        self, geometry: Geometry, write_errors: tuple[int, ...], read_errors: tuple[int, ...], *, flaky: bool = False
    ) -> None:
        """Make a new device. Zones in *write_errors* and *read_errors* are those that `fail` will be called for.

        A *flaky* one is for `let_fail`.
        """

    @abstractmethod
    def format(self, superblock: bytes) -> None:
        """Put *superblock* on the device. A sequential zone 0 is finished then."""

    @abstractmethod
    def drop(self) -> None:
        """Take the device away."""

    @abstractmethod
    def mount(self, options: str = "", *, read_only: bool = False) -> None:
        """Mount. Raises Refused."""

    @abstractmethod
    def umount(self) -> None:
        """Unmount. Raises OSError."""

    @abstractmethod
    def remount(self, options: str, *, read_only: bool | None = None) -> None:
        """Change options as mount(8) does: what is not named stays. Raises Refused."""

    @abstractmethod
    def remount_bare(self) -> None:
        """Remount without naming any option. Raises Refused."""

    @abstractmethod
    def mount_again(self) -> None:
        """Mount the device that is mounted already at a second place, and unmount that. Raises Refused."""

    @abstractmethod
    def report(self) -> Zones:
        """Condition and write pointer of every zone; the write pointer means nothing unless it is em, oi, oe or cl."""

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """The numbers of open and active sequential files, and their limits."""

    @abstractmethod
    def external(self, zone: int, what: str) -> None:
        """Do to *zone*, behind the file system: ``write`` (a block), reset, finish, open, close, readonly, offline."""

    @abstractmethod
    def fail(self, zone: int, offset: int, length: int) -> None:
        """Let I/O on a part of a zone fail, from now on."""

    @abstractmethod
    def let_fail(self, how: str) -> None:
        """Let all writes and flushes of a flaky device fail (``error``) or be dropped (``drop``); empty: neither.

        A scsi_debug has more ways to fail (`ScsiDebug.let_fail`).
        """

    def detach(self) -> None:
        """Unmount lazily: what is open stays usable. `wait_for_end` is to be called when nothing is open any more."""
        system.umount(self.root, lazily=True)

    def wait_for_end(self) -> None:  # noqa: B027  (not abstract: a file system of the kernel's ends with its last file)
        """Wait until the file system that was detached is gone."""

    def wait_for_closes(self) -> None:  # noqa: B027  (not abstract: the kernel's close(2) does it)
        """Wait until files that were closed are closed on the device, too."""


class _OnBlockDevice(Subject):
    """What the subjects on a block device have in common."""

    device: ZonedBlockDevice

    def format(self, superblock: bytes) -> None:
        geometry = self.device.geometry
        if not geometry.nr_conventional:
            self.device.manage("reset", 0)
        self.device.write(0, superblock)
        if not geometry.nr_conventional:
            self.device.manage("finish", 0)

    def drop(self) -> None:
        self.device.remove()

    def report(self) -> Zones:
        self.wait_for_closes()
        return self.device.report()

    def external(self, zone: int, what: str) -> None:
        device = self.device
        if what == "write":
            _, wp = device.report()[zone]
            device.write(zone * device.geometry.zone_size + wp, b"\xee" * device.geometry.block)
        else:
            device.manage(what, zone)

    def fail(self, zone: int, offset: int, length: int) -> None:
        raise AssertionError("no part of a zone of this device can fail")

    def let_fail(self, how: str) -> None:
        self.wait_for_closes()
        self.device.let_fail(how)


class _OnNullBlk(_OnBlockDevice):
    """On null_blk."""

    _made = 0

    def make(
        self, geometry: Geometry, write_errors: tuple[int, ...], read_errors: tuple[int, ...], *, flaky: bool = False
    ) -> None:
        self.device = (FlakyNullBlk if flaky else NullBlk)(f"equal{os.getpid()}x{self._made}", geometry)
        self._made += 1

    def external(self, zone: int, what: str) -> None:
        if what in ("readonly", "offline"):
            self._null_blk.break_zone(zone, what)
        else:
            super().external(zone, what)

    def fail(self, zone: int, offset: int, length: int) -> None:
        self._null_blk.set_bad(zone, offset, length)

    @property
    def _null_blk(self) -> NullBlk:
        assert isinstance(self.device, NullBlk)
        return self.device


class _OnScsiDebug(_OnBlockDevice):
    """On scsi_debug. What may fail is not said when it is made: see `ScsiDebug.let_fail`."""

    device_kind = "scsi_debug"

    def make(
        self, geometry: Geometry, write_errors: tuple[int, ...], read_errors: tuple[int, ...], *, flaky: bool = False
    ) -> None:
        self.device = ScsiDebug(geometry)


class _OnZns(_OnBlockDevice):
    """On the namespace ``node``."""

    device_kind = "zns"

    def make(
        self, geometry: Geometry, write_errors: tuple[int, ...], read_errors: tuple[int, ...], *, flaky: bool = False
    ) -> None:
        self.device = Zns(self.node, geometry)


class _Kernel(_OnBlockDevice):
    """The kernel's zonefs."""

    @property
    def version(self) -> str:
        return f"Linux {platform.release()}"

    def mount(self, options: str = "", *, read_only: bool = False) -> None:
        words = options.split(",")
        flags = system.MS_RDONLY if read_only else 0
        if "noatime" in words:
            # Options of mount(8) are flags of mount(2).
            words.remove("noatime")
            flags |= system.MS_NOATIME
        try:
            system.mount(self.device.path, self.root, "zonefs", flags, ",".join(words))
        except OSError as exc:
            raise Refused(str(exc)) from exc
        self.options, self.read_only = options, read_only

    def umount(self) -> None:
        system.umount(self.root)

    def remount(self, options: str, *, read_only: bool | None = None) -> None:
        # What mount(8) does: the options of the mount table, then the new ones.
        merged = ",".join(word for word in (self.options, options) if word)
        now = self.read_only if read_only is None else read_only
        flags = system.MS_REMOUNT | (system.MS_RDONLY if now else 0)
        try:
            system.mount(self.device.path, self.root, "zonefs", flags, merged)
        except OSError as exc:
            raise Refused(str(exc)) from exc
        self.options, self.read_only = merged, now

    def remount_bare(self) -> None:
        system.mount(self.device.path, self.root, "zonefs", system.MS_REMOUNT, None)

    def mount_again(self) -> None:
        second = self.directory / "second"
        second.mkdir(exist_ok=True)
        try:
            system.mount(self.device.path, str(second), "zonefs", 0, "")
        except OSError as exc:
            raise Refused(str(exc)) from exc
        system.umount(str(second))

    def counters(self) -> dict[str, int]:
        names = ("max_active_seq_files", "max_wro_seq_files", "nr_active_seq_files", "nr_wro_seq_files")
        directory = Path("/sys/fs/zonefs", self.device.name)
        return {name: int((directory / name).read_text()) for name in names}


class KernelOnNullBlk(_Kernel, _OnNullBlk):
    """The kernel's zonefs on null_blk: whose answers are recorded."""

    kind = "kernel"


class KernelOnScsiDebug(_Kernel, _OnScsiDebug):
    """The kernel's zonefs on scsi_debug."""

    kind = "kernel-on-scsi_debug"


class KernelOnZns(_Kernel, _OnZns):
    """The kernel's zonefs on ZNS."""

    kind = "kernel-on-zns"


class _Ours(Subject):
    """What the subjects that are zonefs-py have in common: the commands' own functions, in processes forked from here.

    That is what ``zonefs-py mount`` does, without starting Python anew every time.
    """

    passthrough = "off"
    """The mount option: ``on``, ``off`` or ``auto``. What differs with it stands in docs/differences.md."""

    def __init__(self, directory: Path, node: str = "") -> None:
        super().__init__(directory, node)
        self._log = directory / "daemon.log"
        self._pid = 0

    @property
    def version(self) -> str:
        from zonefs_py import __version__

        return f"zonefs-py {__version__} on Linux {platform.release()}"

    @property
    @abstractmethod
    def device_text(self) -> str:
        """The device as ``zonefs-py mount`` takes it."""

    def _preload(self) -> None:
        import zonefs_py.control.server
        import zonefs_py.fs.filesystem
        import zonefs_py.fuse.serve  # noqa: F401  (what a mount needs, read once instead of in each fork)

    def mount(self, options: str = "", *, read_only: bool = False) -> None:
        from zonefs_py.cli.mount import MountCommand, run_mount
        from zonefs_py.control.client import ask
        from zonefs_py.errors import ZonefsError

        self._preload()
        words = ("ro" if read_only else "", options, f"passthrough={self.passthrough}")
        text = ",".join(word for word in words if word)
        try:
            run_mount(MountCommand(self.device_text, self.root, text, str(self._log)))
        except ZonefsError as exc:
            raise Refused(str(exc)) from exc
        self._pid = ask(self.root, {"request": "ping"})["pid"]
        self.options = options

    def umount(self) -> None:
        system.umount(self.root)
        self.wait_for_end()

    def wait_for_closes(self) -> None:
        from zonefs_py.control.client import ask

        if not os.path.ismount(self.root):
            return
        # The daemon answers nobody but its own user and root, and calls may be another's just now.
        caller = os.geteuid()
        os.seteuid(0)
        try:
            ask(self.root, {"request": "copy-limits"})
        finally:
            os.seteuid(caller)

    def wait_for_end(self) -> None:
        # The daemon was forked by this process; the device is free when it has ended.
        _, status = os.waitpid(self._pid, 0)
        if status:
            raise AssertionError(f"the daemon failed; {self._log} says why")

    def remount(self, options: str, *, read_only: bool | None = None) -> None:
        from zonefs_py.cli.mount import MountCommand, remount
        from zonefs_py.errors import ZonefsError

        mode = "" if read_only is None else "ro" if read_only else "rw"
        text = ",".join(word for word in ("remount", mode, options) if word)
        try:
            remount(MountCommand(self.device_text, self.root, text))
        except ZonefsError as exc:
            raise Refused(str(exc)) from exc
        self.options = ",".join(word for word in (self.options, options) if word)

    def remount_bare(self) -> None:
        self.remount("")

    def mount_again(self) -> None:
        from zonefs_py.cli.mount import MountCommand, run_mount
        from zonefs_py.errors import ZonefsError

        second = self.directory / "second"
        second.mkdir(exist_ok=True)
        try:
            run_mount(MountCommand(self.device_text, str(second), "", str(self._log)))
        except ZonefsError as exc:
            raise Refused(str(exc)) from exc
        system.umount(str(second))

    def counters(self) -> dict[str, int]:
        from zonefs_py.control.client import ask

        shown = ask(self.root, {"request": "info"})["mount"]
        names = ("max_active_seq_files", "max_wro_seq_files", "nr_active_seq_files", "nr_wro_seq_files")
        return {name: shown[name] for name in names}

    def kill(self) -> None:
        """Unmount by force, when something went wrong."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)


class _OursOnBlockDevice(_Ours, _OnBlockDevice):
    """zonefs-py on a block device."""

    @property
    def device_text(self) -> str:
        return self.device.path


class OursOnNullBlk(_OursOnBlockDevice, _OnNullBlk):
    """zonefs-py on null_blk."""

    kind = "ours-on-null_blk"


class OursOnScsiDebug(_OursOnBlockDevice, _OnScsiDebug):
    """zonefs-py on scsi_debug."""

    kind = "ours-on-scsi_debug"


class OursOnZns(_OursOnBlockDevice, _OnZns):
    """zonefs-py on ZNS."""

    kind = "ours-on-zns"


class OursOnEmulated(_Ours):
    """zonefs-py on an emulated device."""

    kind = "ours"

    def make(
        self, geometry: Geometry, write_errors: tuple[int, ...], read_errors: tuple[int, ...], *, flaky: bool = False
    ) -> None:
        from zonefs_py.device.directory import create_device
        from zonefs_py.zone import Geometry as DeviceGeometry

        self.geometry = geometry
        self._device = self.directory / "disk"
        shape = DeviceGeometry(
            geometry.zone_size,
            geometry.capacity,
            geometry.nr_zones,
            geometry.nr_conventional,
            geometry.block,
            geometry.last_zone_size,
        )
        create_device(self._device, shape, geometry.max_open or None, geometry.max_active or None)
        # The first write to a zone goes well, later ones fail; all reads of one fail.
        rules: list[dict[str, Any]] = [
            *(
                {"operation": "write", "zones": zone, "first": 2, "count": None, "effect": "fail"}
                for zone in write_errors
            ),
            *({"operation": "read", "zones": zone, "count": None, "effect": "fail"} for zone in read_errors),
        ]
        self._failing = {*write_errors, *read_errors}
        self._dropped_from: dict[Path, int] = {}
        self._rules = self.directory / "rules.json"
        self._rules.write_text(json.dumps({"version": 1, "rules": rules}))

    @property
    def device_text(self) -> str:
        return f"fault:{self._rules},{self._device}" if self._failing else str(self._device)

    def _zone_file(self, zone: int) -> Path:
        kind = "cnv" if zone < self.geometry.nr_conventional else "seq"
        return self._device / f"{kind}-{zone:06d}"

    def format(self, superblock: bytes) -> None:
        if self.geometry.nr_conventional:
            with self._zone_file(0).open("r+b") as zone:
                zone.write(superblock)
        else:
            self._zone_file(0).write_bytes(superblock)
            os.truncate(self._zone_file(0), self.geometry.capacity)

    def drop(self) -> None:
        shutil.rmtree(self._device)

    def report(self) -> Zones:
        from zonefs_py.control.client import ask

        zones = ask(self.root, {"request": "report"})["zones"]
        return [
            (
                _CONDITIONS[zone["condition"]],
                0 if zone["write_pointer"] is None else zone["write_pointer"] - zone["start"],
            )
            for zone in zones
        ]

    def external(self, zone: int, what: str) -> None:
        from zonefs_py.control.client import ask

        file = self._zone_file(zone)
        if what in ("readonly", "offline"):
            condition = {"readonly": "read-only", "offline": "offline"}[what]
            if os.path.ismount(self.root):
                ask(self.root, {"request": "force-condition", "zones": [zone], "condition": condition})
            else:
                from zonefs_py.device.directory import open_device
                from zonefs_py.zone import ZoneCondition

                with open_device(self._device) as device:
                    device.force_conditions([zone], ZoneCondition[what.upper()])
        elif what == "write":
            with file.open("ab") as stream:
                stream.write(b"\xee" * self.geometry.block)
        elif what in ("reset", "finish"):
            os.truncate(file, 0 if what == "reset" else self.geometry.zone_capacity(zone))

    def fail(self, zone: int, offset: int, length: int) -> None:
        if zone not in self._failing:
            raise AssertionError(f"zone {zone} was not said to fail when the device was made")

    def let_fail(self, how: str) -> None:
        from zonefs_py.control.client import ask

        ask(self.root, {"request": "remove-faults"})
        # What was dropped is not there afterwards. (With the effect drop of a rule the write pointer would move.)
        while self._dropped_from:
            file, size = self._dropped_from.popitem()
            os.truncate(file, size)
        if how == "error":
            rules = [{"operation": one, "count": None, "effect": "fail"} for one in ("write", "copy", "flush")]
            ask(self.root, {"request": "add-faults", "rules": rules})
        elif how == "drop":
            zones = range(self.geometry.nr_conventional, self.geometry.nr_zones)
            self._dropped_from = {file: file.stat().st_size for file in map(self._zone_file, zones)}


class OursPassingReads(OursOnEmulated):
    """zonefs-py on an emulated device, with reads past the daemon (docs/passthrough.md) where that is possible."""

    kind = "ours-with-passthrough"
    passthrough = "auto"


SUBJECTS: dict[str, type[Subject]] = {
    subject.kind: subject
    for subject in (
        KernelOnNullBlk,
        KernelOnScsiDebug,
        KernelOnZns,
        OursOnNullBlk,
        OursOnScsiDebug,
        OursOnZns,
        OursOnEmulated,
        OursPassingReads,
    )
}

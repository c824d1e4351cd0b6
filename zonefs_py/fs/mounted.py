"""A device that is mounted: its zones as files, its numbers, and its power, which can be cut."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from zonefs_py.config import MountOptions
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.power_cut import Keep, PowerCut
from zonefs_py.errors import BadHandle, DeviceReadOnly, PowerLost, ZonefsError
from zonefs_py.fs.activity import Activity, ActivityCounters
from zonefs_py.fs.attributes import FilesystemStatistics
from zonefs_py.fs.copying import FileCopier
from zonefs_py.fs.mount import Mount, SequentialFileCounters
from zonefs_py.fs.power import AroundPower, change_of_view, unobserved
from zonefs_py.fs.repair import Repair
from zonefs_py.fs.superblock import SUPERBLOCK_SIZE, Superblock
from zonefs_py.fs.tree import Tree
from zonefs_py.zone import OPEN_CONDITIONS, DeviceInfo, Zone, ZoneOp

log = logging.getLogger(__name__)


class MountedDevice:
    """What a `Filesystem` is made of: the files of a device's zones, and the accounts of the mount."""

    def __init__(self, device: ZonedDevice, options: MountOptions, clock: Callable[[], int]) -> None:
        """Raises SuperblockError, DeviceError."""
        self.device = device
        self._clock = clock
        self._power = threading.Lock()
        """Held while the power goes or comes. Taken before the lock of any file."""
        self._closed = False
        self._activity = Activity()
        self.around_power: AroundPower = unobserved
        """Entered, with no lock of a file held, while the power is cut, or comes back."""
        self._look_afresh(options)

    def _look_afresh(self, options: MountOptions) -> None:
        """Make files of the zones as the device reports them. Raises SuperblockError, DeviceError, nothing changed."""
        device = self.device
        superblock = Superblock.unpack(device.read(0, SUPERBLOCK_SIZE))
        mount = Mount(options, device.info.max_open_zones, device.info.max_active_zones)
        tree = Tree(self._settled_zones(), superblock, device.info.block_size, self._clock())
        mount.add_files(tree.files())
        # Who has a file of before finds that it is lost; so it does no harm to see some of these, and not the others.
        self.superblock = superblock
        self._mount = mount
        self._repair = Repair(device, mount)
        self._copier = FileCopier(device, mount, self._repair, self._clock)
        self._tree = tree
        """While there is no power, as it was before."""

    def _settled_zones(self) -> list[Zone]:
        """Report all zones, having closed those that are open: the count of open zones starts at zero."""
        zones = self.device.report_zones()
        log.info("mounting %d zones", len(zones))
        for zone in zones:
            if zone.condition in OPEN_CONDITIONS and zone.number and not self.device.info.read_only:
                self._close_zone(zone.number, zone.wp - zone.start)
        return zones

    def _close_zone(self, number: int, wpoffset: int) -> None:
        # A ZNS drive keeps a zone active that is closed unwritten; a reset frees it (zonefs_zone_mgmt).
        self.device.zone_mgmt(ZoneOp.CLOSE if wpoffset else ZoneOp.RESET, number)

    # Power

    @property
    def powered(self) -> bool:
        """Whether the device has power, as far as `power_cut` and `power_on` are concerned."""
        return not self._mount.power_lost

    def power_cut(self, keep: Keep, *, dead: bool = False) -> PowerCut:
        """Cut the power of the device, which must have a write cache, and come back as a new mount does.

        What was not flushed is lost, but for what *keep* says; the superblock and the zones are read afresh, modes,
        owners and times of files are as after a mount. Calls under way fail, or are done before. Open files stay open,
        and every call on them but `release` raises PowerLost. *dead*: there is no power until `power_on`, and every
        call raises PowerLost. Cutting the power when there is none loses nothing.

        Raises UserError if there is no write cache, or *keep* asks for what there is not: nothing has happened then.
        PowerLost: the power was cut, but the device could not be mounted again; it is as with *dead*.
        """
        with self._power:
            if self.powered:
                # Refused where there is nothing to cut; with power, it does nothing.
                self.device.power_on()
            with self.around_power() as announce:
                before = self._tree
                cut = self._lose_power(keep) if self.powered else PowerCut(())
                try:
                    if not dead:
                        self._come_back()
                finally:
                    announce(change_of_view(before, self._tree if self.powered else None))
        return cut

    def power_on(self) -> None:
        """Come back after `power_cut` with ``dead``; nothing happens if there is power.

        Raises UserError if there is no write cache, PowerLost if the device cannot be mounted: it stays dead.
        """
        with self._power:
            if self.powered:
                self.device.power_on()
                return
            with self.around_power() as announce:
                before = self._tree
                try:
                    self._come_back()
                finally:
                    announce(change_of_view(before, self._tree if self.powered else None))

    def _lose_power(self, keep: Keep) -> PowerCut:
        self._mount.power_lost = True
        try:
            cut = self.device.power_cut(keep)
        except BaseException:
            self._mount.power_lost = False
            raise
        log.info("power cut: %d bytes were not flushed, %d of them are kept", cut.unflushed, cut.kept)
        # Without power, whoever holds a lock is done soon. Who gets it next finds that the file is lost.
        for file in self._tree.files():
            with file.lock:
                file.lose()
        self._activity.carry(self._tree.files())
        return cut

    def _come_back(self) -> None:
        options = self._mount.options
        try:
            self.device.power_on()
            self._look_afresh(options)
        except ZonefsError as exc:
            log.error("the power was cut, and the device cannot be mounted again: %s", exc)
            raise PowerLost(f"the power was cut, and the device cannot be mounted again: {exc}") from exc

    def _check_power(self) -> None:
        if self._closed:
            raise BadHandle(f"{self.info.name} is not mounted any more")
        if self._mount.power_lost:
            raise PowerLost(f"{self.info.name} has no power")

    # What is mounted

    @property
    def info(self) -> DeviceInfo:
        """The device's own description."""
        return self.device.info

    @property
    def options(self) -> MountOptions:
        """The options in force; ``read_only`` there is what was asked for, see `read_only`."""
        return self._mount.options

    @property
    def read_only(self) -> bool:
        """Whether changes are refused, be it by option or after an error."""
        return self._mount.read_only

    @property
    def counters(self) -> SequentialFileCounters:
        """The numbers of write-open and active sequential files, and their limits."""
        return self._mount.counters

    @property
    def activity(self) -> ActivityCounters:
        """What was done through the file system since it was mounted, in numbers."""
        return self._activity.counters(self._tree.files())

    @property
    def used(self) -> int:
        """Bytes that are data, over all files."""
        return self._mount.used

    @property
    def capacity(self) -> int:
        """Bytes that all files together can hold."""
        return self._tree.capacity

    @property
    def root(self) -> int:
        """Inode number of the root."""
        return self._tree.root.ino

    @property
    def directories(self) -> list[int]:
        """Inode numbers of all directories."""
        return [self.root, *(directory.ino for directory in self._tree.root.children.values())]

    @property
    def max_file_size(self) -> int:
        """Bytes of the largest file that there can be."""
        return self._tree.max_file_size

    def remount(self, options: MountOptions) -> None:
        """Take *options* instead of the present ones. Raises FilesystemBusy, DeviceReadOnly; nothing changes then."""
        self._check_power()
        if self.info.read_only and not options.read_only:
            raise DeviceReadOnly("the device is open read-only; unmount it and mount it read-write")
        self._mount.remount(options)

    def report(self) -> Iterator[tuple[Zone, str | None]]:
        """Return the device's zones of this moment, each with the path of its file, if it has one.

        Raises DeviceError, now: what is returned can be gone through at leisure.
        """
        zones = self.device.report_zones()
        return zip(zones, self._tree.zone_names(zone.number for zone in zones), strict=True)

    def statfs(self) -> FilesystemStatistics:
        """Return the space accounting: only unwritten parts of sequential files are free. Raises PowerLost."""
        self._check_power()
        block_size = self.info.block_size
        return FilesystemStatistics(
            block_size=block_size,
            blocks=self._tree.capacity // block_size,
            blocks_free=(self._tree.capacity - self._mount.used) // block_size,
            files=self._tree.nr_files + len(self._tree.root.children),
            fsid=self.superblock.fsid,
            name_max=self._tree.name_max,
        )

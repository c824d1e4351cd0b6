"""Carries out the verdicts of `recovery` after an I/O error."""

from __future__ import annotations

import logging

from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import DeviceError
from zonefs_py.fs import recovery
from zonefs_py.fs.file import PERMISSION_BITS, WRITE_BITS, ZoneFile
from zonefs_py.fs.mount import Mount
from zonefs_py.fs.recovery import Verdict

log = logging.getLogger(__name__)


class Repair:
    """Brings files, and the mount, in line with their zones."""

    def __init__(self, device: ZonedDevice, mount: Mount) -> None:
        self._device = device
        self._mount = mount

    def recover(self, file: ZoneFile, error: DeviceError, *, was_write: bool, because: str = "") -> Verdict | None:
        """Bring the file (its lock is held) and the mount in line with its zone after *error*. Return what changed.

        *because* is what the log says before the error, where that may be another file's. Kernel zonefs:
        zonefs_io_error.
        """
        if file.lost or self._mount.power_lost:
            return None
        policy = self._mount.options.errors
        log.warning("%s: %s%s", file.name, because, error)
        try:
            zone = self._device.report_zones(file.number, 1)[0]
        except DeviceError as exc:
            self._mount.become_read_only(f"{file.name}: its zone cannot be reported ({exc})")
            return None
        verdict = recovery.decide(
            policy,
            size=file.size,
            readonly=file.readonly,
            offline=file.offline,
            zone=zone,
            was_write=was_write,
            sequential=file.sequential,
            capacity=file.capacity,
        )
        if verdict is not None:
            self._apply(file, verdict)
        return verdict

    def _apply(self, file: ZoneFile, verdict: Verdict) -> None:
        if verdict.offline and not file.offline:
            log.warning("%s: read and write access disabled", file.name)
            file.mode &= ~PERMISSION_BITS
        elif verdict.readonly and not file.readonly:
            log.warning("%s: write access disabled", file.name)
            file.mode &= ~WRITE_BITS
        if verdict.size != file.size:
            log.warning("%s: size changed from %d to %d", file.name, file.size, verdict.size)
        file.offline, file.readonly = verdict.offline, verdict.readonly
        if file.immutable:
            file.explicitly_open = False
        self._mount.set_size(file, verdict.size)
        if verdict.remount_read_only:
            self._mount.become_read_only(file.name)

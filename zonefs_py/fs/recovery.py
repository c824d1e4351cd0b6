"""What an I/O error does to a file and to the mount: the ``errors=`` policies, as a pure decision.

Kernel zonefs has one function for it (zonefs_handle_io_error); the table in Documentation/filesystems/zonefs.rst says
what comes out. The device is asked first (a zone report); this module only decides.
"""

from __future__ import annotations

from typing import NamedTuple

from zonefs_py.config import ErrorsPolicy
from zonefs_py.zone import Zone, ZoneCondition


class Verdict(NamedTuple):
    """What to make of a file after an I/O error. ``size`` in bytes."""

    size: int
    readonly: bool
    offline: bool
    remount_read_only: bool


def decide(
    policy: ErrorsPolicy,
    *,
    size: int,
    readonly: bool,
    offline: bool,
    zone: Zone,
    was_write: bool,
    sequential: bool,
    capacity: int,
) -> Verdict | None:
    """Return the verdict on a file of *size* bytes and *capacity* whose zone is now as *zone* reports.

    *readonly* and *offline* are what the file was taken for so far. None: nothing is wrong with the zone and a read
    failed, so nothing changes.
    """
    offline = offline or zone.condition is ZoneCondition.OFFLINE
    readonly = readonly or zone.condition is ZoneCondition.READONLY
    data_size = _data_size(zone, size=size, offline=offline, sequential=sequential, capacity=capacity)
    if not was_write and not offline and not readonly and data_size == size:
        return None
    if offline or policy is ErrorsPolicy.ZONE_OFFLINE:
        offline, data_size = True, 0
    elif readonly or policy is ErrorsPolicy.ZONE_RO:
        # What was readable stays readable; the rest may be garbage.
        readonly, data_size = True, size
    elif policy is ErrorsPolicy.REMOUNT_RO:
        data_size = min(data_size, size)
    return Verdict(data_size, readonly, offline, policy is ErrorsPolicy.REMOUNT_RO)


def _data_size(zone: Zone, *, size: int, offline: bool, sequential: bool, capacity: int) -> int:
    if offline:
        return 0
    if not sequential:
        return capacity
    # A read-only zone's write pointer means nothing: keep the size that was last known.
    return size if zone.data_size is None else zone.data_size

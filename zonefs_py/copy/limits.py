"""The limits of a device's copy path: names and rules of the Linux copy-offload series (queue limits in sysfs).

Pure. ``hw`` limits are the device's own; the others are set by the user, at run time too, and count for the next copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from zonefs_py.errors import InvalidRequest
from zonefs_py.units import SECTOR_SIZE, is_aligned, round_down

MAX_NR_RANGES = 65_535
MAX_RANGE_BYTES = 0xFFFFFFFF * SECTOR_SIZE
"""The kernel holds these limits in 16 bits, and in 32 bits of sectors."""

BYTE_LIMITS = frozenset(
    {"copy_max_bytes", "copy_max_hw_bytes", "copy_max_range_bytes", "copy_max_range_hw_bytes"},
)
SETTABLE = ("copy_offload", "copy_max_bytes", "copy_max_range_bytes", "copy_max_nr_ranges")


@dataclass(frozen=True)
class CopyLimits:
    """What one copy command may be at most. Bytes, but for the numbers of ranges and the switch.

    ``copy_offload`` 1 lets the device copy by itself, 0 emulates. ``copy_max_bytes`` bounds a command, all its ranges
    together; ``copy_max_range_bytes`` one range; ``copy_max_nr_ranges`` the number of ranges of a command. A
    ``copy_max_hw_bytes`` of 0: the device cannot copy.
    """

    copy_offload: int = 0
    copy_max_bytes: int = 0
    copy_max_hw_bytes: int = 0
    copy_max_range_bytes: int = 0
    copy_max_range_hw_bytes: int = 0
    copy_max_nr_ranges: int = 0
    copy_max_nr_ranges_hw: int = 0

    @classmethod
    def of_hardware(cls, max_bytes: int, max_range_bytes: int, max_nr_ranges: int, block_size: int) -> CopyLimits:
        """Return the limits of a device that can copy so much; the user's limits are the device's, in whole blocks.

        A range that the device would take but these limits cannot express becomes the largest that they can.
        """
        max_range_bytes = min(max_range_bytes, MAX_RANGE_BYTES)
        max_nr_ranges = min(max_nr_ranges, MAX_NR_RANGES)
        return cls(
            copy_offload=int(max_bytes > 0),
            copy_max_bytes=round_down(max_bytes, block_size),
            copy_max_hw_bytes=max_bytes,
            copy_max_range_bytes=round_down(max_range_bytes, block_size),
            copy_max_range_hw_bytes=max_range_bytes,
            copy_max_nr_ranges=max_nr_ranges,
            copy_max_nr_ranges_hw=max_nr_ranges,
        )

    def with_limits(self, values: Mapping[str, int], block_size: int) -> CopyLimits:
        """Return the limits with several set, in order. Raises as `with_limit`."""
        limits = self
        for name, value in values.items():
            limits = limits.with_limit(name, value, block_size)
        return limits

    def with_limit(self, name: str, value: int, block_size: int) -> CopyLimits:
        """Return the limits with *name* set to *value*; a value above the device's own limit becomes that.

        0 is always allowed: it switches off what the device does by itself, see `offload`.

        Raises InvalidRequest: not a settable limit, switched on for a device that cannot copy, bytes that are not
        a multiple of *block_size*, out of range.
        """
        if name not in SETTABLE:
            known = name in {field.name for field in fields(self)}
            raise InvalidRequest(f"{name[:40]}: {'the device sets it' if known else 'no such limit'}")
        if value < 0:
            raise InvalidRequest(f"{name}: {value} is negative")
        if name == "copy_offload":
            if value not in (0, 1):
                raise InvalidRequest("copy_offload: 0 or 1")
            if value and not self.copy_max_hw_bytes:
                raise InvalidRequest("copy_offload: the device cannot copy by itself")
            return replace(self, copy_offload=value)
        if name == "copy_max_nr_ranges":
            if value > MAX_NR_RANGES:
                raise InvalidRequest(f"copy_max_nr_ranges: at most {MAX_NR_RANGES}")
            return replace(self, copy_max_nr_ranges=min(value, self.copy_max_nr_ranges_hw))
        if not is_aligned(value, block_size):
            raise InvalidRequest(f"{name}: {value} is not a multiple of the block size, {block_size}")
        if name == "copy_max_range_bytes":
            if value > MAX_RANGE_BYTES:
                raise InvalidRequest(f"copy_max_range_bytes: at most {MAX_RANGE_BYTES}")
            return replace(self, copy_max_range_bytes=round_down(min(value, self.copy_max_range_hw_bytes), block_size))
        return replace(self, copy_max_bytes=round_down(min(value, self.copy_max_hw_bytes), block_size))

    @property
    def offload(self) -> bool:
        """Whether the device may be asked to copy: switched on, and no limit is 0."""
        return bool(self.copy_offload and self.copy_max_bytes and self.copy_max_range_bytes and self.copy_max_nr_ranges)

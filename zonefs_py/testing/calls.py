"""What a workload asked of a device: the calls that matter after a power cut, in order."""

from __future__ import annotations

from dataclasses import dataclass

from zonefs_py.zone import ZoneOp


@dataclass(frozen=True)
class WriteCall:
    """A write of *data* to zone *zone*, *offset* bytes from its start."""

    zone: int
    offset: int
    data: bytes

    def __str__(self) -> str:
        return f"write of {len(self.data)} bytes at {self.offset} of zone {self.zone}"


@dataclass(frozen=True)
class ManageCall:
    """A reset or finish; opening and closing leave no trace."""

    op: ZoneOp
    zone: int

    def __str__(self) -> str:
        return f"{self.op.name.lower()} of zone {self.zone}"


@dataclass(frozen=True)
class FlushCall:
    """A flush of one zone, or of all."""

    zone: int | None

    def __str__(self) -> str:
        return "flush of all zones" if self.zone is None else f"flush of zone {self.zone}"


Call = WriteCall | ManageCall | FlushCall

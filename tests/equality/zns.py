"""An NVMe namespace with zones, made by QEMU when the machine started."""

from __future__ import annotations

from tests.equality.geometry import Geometry
from tests.equality.zoned import ZonedBlockDevice


class Zns(ZonedBlockDevice):
    """The namespace at a path; it stays, and begins with empty zones."""

    def __init__(self, path: str, geometry: Geometry) -> None:
        super().__init__(path, geometry)
        self.empty()

    def remove(self) -> None:
        """Leave it for the next one."""

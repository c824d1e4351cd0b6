"""The ZNS namespaces that the conformance suite needs; QEMU makes them before the machine starts."""

from __future__ import annotations

from tests.device.conformance import KIB, geometry

SHAPE = geometry(capacity=48 * KIB)

LIMITS: list[tuple[int | None, int | None]] = [(None, None), (3, 4), (2, None), (2, 2), (1, None), (1, 1), (1, 2)]
"""Open and active zones of each namespace; None: no limit."""


def device_texts() -> list[str]:
    """What tools/vm is to be told, in the order of `LIMITS`."""
    size = f"zone_size={SHAPE.zone_size},zone_capacity={SHAPE.zone_capacity},zones={SHAPE.nr_zones}"
    return [f"zns:{size},max_open={opened or 0},max_active={active or 0}" for opened, active in LIMITS]

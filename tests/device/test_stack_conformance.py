"""The conformance suite over stacks: they must be as good as what they are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.directory import create_device
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.nvme_target import TargetLimits, model_device
from zonefs_py.device.stack import open_stack
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.zone import Geometry

from .conformance import Make, ZonedDeviceConformance, shape

__all__ = ["shape"]


def cut(geometry: Geometry, at: int) -> tuple[Geometry, Geometry]:
    """The geometries of two devices that are *geometry* when put end to end, the first with *at* zones."""
    conventional = geometry.nr_conventional
    return (
        replace(geometry, nr_zones=at, nr_conventional=min(at, conventional), last_zone_size=geometry.zone_size),
        replace(geometry, nr_zones=geometry.nr_zones - at, nr_conventional=max(0, conventional - at)),
    )


def as_it_is(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    return LinearDevice([Slice(MemoryDevice(geometry, max_open, max_active))])


def cut_in_slices(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    device = MemoryDevice(geometry, max_open, max_active)
    return LinearDevice([Slice(device, 0, 1), Slice(device, 1, 1), Slice(device, 2)])


def on_larger(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    # Zones before and behind the slice, and whole conventional zones before it only.
    larger = replace(geometry, nr_zones=geometry.nr_zones + 2, nr_conventional=geometry.nr_conventional + 2)
    return LinearDevice([Slice(MemoryDevice(larger, max_open, max_active), 2)])


def two_parts(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    # Limits are kept by each part for itself, so one part must have all the zones that they are about.
    limited = max_open is not None or max_active is not None
    if limited and geometry.nr_conventional < 2:
        return as_it_is(geometry, max_open, max_active)
    first, second = cut(geometry, geometry.nr_conventional if limited else 2 if geometry.nr_zones > 3 else 1)
    if min(first.nr_zones, second.nr_zones) < 2:
        return as_it_is(geometry, max_open, max_active)
    return LinearDevice([Slice(MemoryDevice(one, max_open, max_active)) for one in (first, second)])


def no_rules(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    return FaultDevice(MemoryDevice(geometry, max_open, max_active))


def rules_that_do_nothing(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    # Every call is taken apart, delayed by nothing, and put together again.
    later = FaultRule(Operation.ANY, Effect.FAIL, first=1 << 40)
    delay = FaultRule(Operation.WRITE, Effect.DELAY, count=None, milliseconds=1, after=geometry.block_size)
    others = FaultRule(Operation.ANY, Effect.DELAY, count=None, milliseconds=1)
    device = MemoryDevice(geometry, max_open, max_active)
    return FaultDevice(device, [later, delay, others], sleep=lambda _: None)


def nvme_copy(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    return model_device(MemoryDevice(geometry, max_open, max_active), TargetLimits(3, 5, 2))


def write_cache(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    return WriteCacheDevice(MemoryDevice(geometry, max_open, max_active))


def write_cache_of_two_blocks(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    # Whatever is written goes down soon after, at moments that have nothing to do with flushes.
    return WriteCacheDevice(MemoryDevice(geometry, max_open, max_active), size=2 * geometry.block_size)


def write_cache_on_slices(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    return WriteCacheDevice(cut_in_slices(geometry, max_open, max_active))


def slices_of_a_write_cache(geometry: Geometry, max_open: int | None, max_active: int | None) -> ZonedDevice:
    device = WriteCacheDevice(MemoryDevice(geometry, max_open, max_active))
    return LinearDevice([Slice(device, 0, 1), Slice(device, 1)])


KINDS: dict[str, Callable[[Geometry, int | None, int | None], ZonedDevice]] = {
    function.__name__: function
    for function in (
        as_it_is,
        cut_in_slices,
        on_larger,
        two_parts,
        no_rules,
        rules_that_do_nothing,
        nvme_copy,
        write_cache,
        write_cache_of_two_blocks,
        write_cache_on_slices,
        slices_of_a_write_cache,
    )
}


@pytest.mark.parametrize("kind", KINDS)
class TestStacksInMemory(ZonedDeviceConformance):
    @pytest.fixture
    def make(self, kind: str) -> Make:
        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            return KINDS[kind](geometry, max_open, max_active)

        return make


class TestStackFromText(ZonedDeviceConformance):
    """Faults that never come, over a write cache, over slices of an emulated device, below NVMe copies."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Make]:
        made: list[ZonedDevice] = []
        rules = tmp_path / "rules.json"
        never = {"operation": "any", "effect": "fail", "first": 1 << 40}
        rules.write_text(json.dumps({"version": 1, "rules": [never]}))

        def make(geometry: Geometry, max_open: int | None = None, max_active: int | None = None) -> ZonedDevice:
            path = tmp_path / f"device{len(made)}"
            create_device(path, geometry, max_open, max_active)
            made.append(open_stack(f"nvme-copy:msrc=1,fault:{rules},write-cache:linear:{path}[0,1-]"))
            return made[-1]

        yield make
        for device in made:
            device.close()

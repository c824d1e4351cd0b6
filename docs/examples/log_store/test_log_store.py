"""Does the store keep what it has acknowledged?"""

from __future__ import annotations

import random

import pytest
from conftest import ZonesInProcess
from log_store import LogStore, MountedZones

from zonefs_py.testing.kit import Filesystems, Mounts, Power

KEYS = [f"key{number}" for number in range(8)]

# Seven zones of four records each, for eight keys: zones are collected all the time.
pytestmark = pytest.mark.zonefs(zones=8, conventional=1, zone_size="16K", write_cache=True)


def work(store: LogStore, expected: dict[str, bytes], chance: random.Random, puts: int) -> None:
    """Put values; note down each that was acknowledged."""
    for _ in range(puts):
        key, value = chance.choice(KEYS), chance.randbytes(20)
        store.put(key, value)
        expected[key] = value


def check(store: LogStore, expected: dict[str, bytes]) -> None:
    """What was acknowledged must be there."""
    assert store.contents() == expected


def test_it_stores(store_type: type[LogStore], zonefs_filesystem: Filesystems) -> None:
    zones = ZonesInProcess(zonefs_filesystem())
    expected: dict[str, bytes] = {}
    work(store_type(zones), expected, random.Random(1), 200)
    check(store_type(zones), expected)


def test_power_cuts(store_type: type[LogStore], zonefs_filesystem: Filesystems, zonefs_power: Power) -> None:
    for seed in range(20):
        chance = random.Random(seed)
        filesystem = zonefs_filesystem()
        store = store_type(ZonesInProcess(filesystem))
        expected: dict[str, bytes] = {}
        for _ in range(4):
            work(store, expected, chance, chance.randrange(1, 40))
            filesystem = zonefs_power.cycle(filesystem, f"seed:{seed}")
            store = store_type(ZonesInProcess(filesystem))
            check(store, expected)


def test_a_power_cut_of_a_mount(store_type: type[LogStore], zonefs_mount: Mounts) -> None:
    mount = zonefs_mount()
    expected: dict[str, bytes] = {}
    work(store_type(MountedZones(mount.path)), expected, random.Random(5), puts=48)
    mount.power_cut()
    check(store_type(MountedZones(mount.path)), expected)

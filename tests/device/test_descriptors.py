"""The cache of descriptors, when there are fewer than it reckoned with."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from zonefs_py.device.descriptors import DescriptorCache


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Leave this process about a dozen descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 12, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_idle_descriptors_make_room_when_the_process_has_no_more(tmp_path: Path, few_descriptors: None) -> None:
    (tmp_path / "zone").write_bytes(b"")
    cache = DescriptorCache(lambda number: os.open(tmp_path / "zone", os.O_RDONLY), limit=200_000)
    for number in range(100):
        cache.acquire(number)
        cache.release(number)
    cache.close()


def test_held_descriptors_stay_open(tmp_path: Path, few_descriptors: None) -> None:
    (tmp_path / "zone").write_bytes(b"")
    cache = DescriptorCache(lambda number: os.open(tmp_path / "zone", os.O_RDONLY), limit=200_000)
    held: list[int] = []

    def hold_many() -> None:
        while True:
            held.append(cache.acquire(len(held)))

    with pytest.raises(OSError, match="Too many open files"):
        hold_many()
    for descriptor in held:
        os.fstat(descriptor)
    cache.release(0)
    assert cache.acquire(100_000) == held[0]
    cache.release(100_000)
    cache.close()

"""A short soak: everything at once, and the daemon is as small afterwards. tools/abuse does half an hour of it."""

from __future__ import annotations

from pathlib import Path

from tests.abuse.soak import MOST_GROWTH, Soak

SEED = 20261124
SECONDS = 5


def test_memory_and_descriptors_stay(tmp_path: Path) -> None:
    soak = Soak(tmp_path, SEED)
    soak.run(2, SECONDS)
    assert soak.growth <= MOST_GROWTH
    for name in ("appends", "conventional writes", "copies", "reads", "faults", "questions", "garbage", "remounts"):
        assert soak.done[name], name

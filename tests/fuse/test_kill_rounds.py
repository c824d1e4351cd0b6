"""Mounts that die under load, round after round; ``--long`` does as many as are promised, tools/abuse any number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.abuse.promises import BrokenPromise
from tests.abuse.rounds import Rounds

SEED = 20261124


@pytest.fixture
def nr_rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds."""
    return 1000 if request.config.getoption("--long") else 20


def test_nothing_acknowledged_is_lost_by_a_killed_daemon(tmp_path: Path, nr_rounds: int) -> None:
    totals = Rounds(tmp_path, SEED, volatile=False).run(nr_rounds)
    assert totals.rounds == nr_rounds
    assert totals.operations > 10 * nr_rounds
    assert totals.fio_writes > nr_rounds
    assert totals.lost == 0


def test_nothing_synced_is_lost_with_the_power(tmp_path: Path, nr_rounds: int) -> None:
    """Cut on a mount in use, which comes back, and by the end of the daemon."""
    totals = Rounds(tmp_path, SEED, volatile=True).run(nr_rounds)
    assert totals.rounds == nr_rounds
    for ending in ("kill -9", *(f"power-cut --keep {keep}" for keep in ("none", "all", "seed", "seed --dead"))):
        assert totals.endings[ending], ending
    assert totals.lost > 0, "there was nothing to lose, so nothing was shown"


def test_what_is_lost_is_noticed(tmp_path: Path) -> None:
    """A write cache loses what was only acknowledged: who expects that to be there must find out."""
    rounds = Rounds(tmp_path, SEED, volatile=True)
    rounds.volatile = False
    with pytest.raises(BrokenPromise, match=r"bytes are left of|never was like that|blocks are there"):
        rounds.run(20)

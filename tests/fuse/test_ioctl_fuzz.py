"""Ioctls by the thousand on a real mount: random commands and buffers, on anything that can be open there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.abuse.ioctls import Ioctls

SEED = 20261124
INPUTS = 10_000


def test_nothing_but_clean_errors(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    inputs = INPUTS * (20 if request.config.getoption("--long") else 1)
    found = Ioctls(tmp_path).run(inputs, SEED)
    assert found.total() == inputs
    # Else it would have shown nothing: none that is refused, or no copy that is done.
    for name in ("copied", "copy: EINVAL", "ENOTTY", "EINVAL", "EBADF"):
        assert found[name] > inputs / 200, found


def test_a_seed_repeats_its_calls(tmp_path: Path) -> None:
    counts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        counts.append(Ioctls(tmp_path / name).run(400, 1))
    assert counts[0] == counts[1]


def test_what_is_copied_wrong_is_noticed(tmp_path: Path) -> None:
    wrong = [
        {"operation": operation, "effect": "flip", "zones": "5", "byte": 100, "bit": 3}
        for operation in ("copy", "write")
    ]
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"version": 1, "rules": wrong}))
    ioctls = Ioctls(tmp_path)
    ioctls.stack = f"fault:{rules},{ioctls.stack}"
    with pytest.raises(AssertionError, match="seq/1 holds something else"):
        ioctls.run(1000, SEED)

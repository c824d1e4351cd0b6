"""Medians, ratios and their spread. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of some runs, the lowest and the highest of them."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Summarise *values*, which must not be empty."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], others: Sequence[float]) -> Spread:
    """Summarise the ratios of two targets, run by run.

    Runs of the same number were made one after the other: what slowed the machine then slowed both. So the ratio of
    each pair says more than the ratio of two medians. Raises ValueError if the lengths differ or there is no run.
    """
    return spread([a / b for a, b in zip(ours, others, strict=True)])

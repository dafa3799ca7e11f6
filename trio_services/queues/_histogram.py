"""How long things took, in fixed buckets: cheap to add to, read when somebody asks."""

from __future__ import annotations

from bisect import bisect_left

import attrs

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""The upper bounds of the buckets, in seconds; the last bucket has none."""

_FIRST = BOUNDS[0]


@attrs.frozen
class HistogramStatistics:
    """How long things took.

    Attributes:
        counts: how many fell into each bucket of `BOUNDS`, and above the last bound.
        total: seconds in all.
    """

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Histogram:
    """A histogram that is added to."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        # Most jobs of a queue in memory are quick; for them the search costs as much as all else.
        self._counts[bisect_left(BOUNDS, seconds) if seconds > _FIRST else 0] += 1
        self._total += seconds

    def statistics(self) -> HistogramStatistics:
        """What there is at this moment."""
        return HistogramStatistics(tuple(self._counts), self._total)

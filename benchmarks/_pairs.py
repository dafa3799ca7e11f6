"""Paired measurements: ours and the reference take turns, and the ratio of each pair counts.

Machines drift; two things that are measured within the same second drift together.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable


def compare(
    figure: str,
    ours: Callable[[], float],
    reference: Callable[[], float],
    *,
    unit: str,
    target: float,
    pairs: int = 7,
) -> None:
    """Print one JSON line: the medians, and the median and range of the paired ratios.

    Args:
        figure: what is measured.
        ours, reference: run once and return the cost.
        unit: of the costs.
        target: the ratio that we want to stay at or below.
        pairs: how many pairs count, after one to warm up.
    """
    ours()
    reference()
    measured = [(ours(), reference()) for _ in range(pairs)]
    ratios = [mine / theirs for mine, theirs in measured]
    print(
        json.dumps(
            {
                "figure": figure,
                "ours": round(statistics.median(mine for mine, _ in measured), 3),
                "reference": round(statistics.median(theirs for _, theirs in measured), 3),
                "unit": unit,
                "ratio": round(statistics.median(ratios), 2),
                "range": [round(min(ratios), 2), round(max(ratios), 2)],
                "target": target,
                "met": statistics.median(ratios) <= target,
            }
        ),
        flush=True,
    )

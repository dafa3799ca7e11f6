"""What timers have in common: their beats, and how they wait for them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

import attrs
import trio

from ..lifecycle import Lifetime

Missed = Literal["once", "all", "skip"]
"""What becomes of beats that pass unseen: one for all of them, each of them, or none."""


@attrs.frozen
class Tick:
    """One beat of a timer.

    Args:
        number: from 0. Of `every`, the place on the grid: where beats were missed there is a gap.
            Of `at`, how many ticks came before.
        scheduled: when it was due, in seconds on Trio's clock.
        late: seconds between that and its delivery; ≥ 0.
        when: of `at`, the time that the expression names, by the clocks of its zone.
    """

    number: int
    scheduled: float
    late: float
    when: datetime | None = None


def check_missed(missed: Missed) -> Missed:
    """The same, if it is one of those that there are.

    Raises:
        ValueError: it is none.
    """
    if missed not in get_args(Missed):
        raise ValueError(f"missed must be 'once', 'all' or 'skip', not {missed!r}")
    return missed


async def wait_until(when: float, service: Lifetime | None) -> bool:
    """Whether a time came before a stop of the service was requested.

    A checkpoint, unless the stop was requested before.

    Args:
        when: seconds on Trio's clock; may have passed.
        service: None waits for the time alone.
    """
    if service is None:
        await trio.sleep_until(when)
        return True
    return not service.stop_requested and await service.sleep_until(when)

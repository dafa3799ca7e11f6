"""Ticks on a fixed grid, which do not drift and do not pile up."""

from __future__ import annotations

import math
import random
from typing import Self

import attrs
import trio

from ..lifecycle import Lifetime, surrounding_service


@attrs.frozen
class Tick:
    """One beat of a timer.

    Args:
        number: the place on the grid, from 0; where beats were missed there is a gap.
        scheduled: when it was due, in seconds on Trio's clock.
        late: seconds between that and its delivery; ≥ 0.
    """

    number: int
    scheduled: float
    late: float


class every:  # noqa: N801 -- reads as an adverb: `async for tick in every(5.0):`
    """Tick at once and then every `period` seconds, on a grid that the work does not shift.

    ::

        async for tick in every(5.0):
            await poll()

    Beats that pass while the loop's body runs are coalesced: the next tick comes at once if its
    place on the grid has passed, and the one after is back on the grid. In a supervised service
    the loop ends by itself when a stop is requested between two ticks.

    Args:
        period: seconds between beats; > 0.
        start: seconds from the first `async for` to the first tick; ≥ 0. Default: at once.
        jitter: each tick is delayed by up to this many seconds at random, without shifting the
            grid; 0 ≤ jitter < period.

    Cancellation: at any time between ticks; no tick is lost, since the grid is a matter of time.
    """

    def __init__(self, period: float, *, start: float = 0.0, jitter: float = 0.0) -> None:
        if not 0 < period < math.inf:
            raise ValueError(f"a period must be more than 0 s and finite, not {period}")
        if not 0 <= start < math.inf:
            raise ValueError(f"start must be at least 0 s and finite, not {start}")
        if not 0 <= jitter < period:
            raise ValueError(f"jitter must be at least 0 s and less than the period, not {jitter}")
        self.period = period
        self.start = start
        self.jitter = jitter
        self._origin = math.nan
        self._next = 0
        self._service: Lifetime | None = None

    def __aiter__(self) -> Self:
        self._origin = trio.current_time() + self.start
        self._next = 0
        self._service = surrounding_service()
        return self

    async def __anext__(self) -> Tick:
        if self._service is not None and self._service.stop_requested:
            raise StopAsyncIteration
        now = trio.current_time()
        # The newest beat that has passed, if the one that is due has: all between are coalesced.
        number = max(self._next, math.floor((now - self._origin) / self.period))
        if self._origin + (number + 1) * self.period <= now:
            number += 1  # the division was rounded down from a whole number
        scheduled = self._origin + number * self.period
        delay = random.uniform(0, self.jitter) if self.jitter else 0.0
        if not await self._sleep_until(scheduled + delay):
            raise StopAsyncIteration
        self._next = number + 1
        return Tick(number, scheduled, max(0.0, trio.current_time() - scheduled))

    async def _sleep_until(self, when: float) -> bool:
        """Whether the time came before a stop was requested; always a checkpoint."""
        if self._service is None:
            await trio.sleep_until(when)
            return True
        with trio.move_on_at(when):
            await self._service.wait_stop_requested()
        return not self._service.stop_requested

"""Ticks on a fixed grid, which do not drift and do not pile up."""

from __future__ import annotations

import math
import random
from typing import Self

import trio

from ..lifecycle import Lifetime, surrounding_service
from ._tick import Missed, Tick, check_missed, wait_until

# The share of a period by which two sums of floats may differ that should be the same time.
_HAIR = 1e-6


class every:  # noqa: N801 -- reads as an adverb: `async for tick in every(5.0):`
    """Tick at once and then every `period` seconds, on a grid that the work does not shift.

    ::

        async for tick in every(5.0):
            await poll()

    In a supervised service the loop ends by itself when a stop is requested between two ticks.

    Args:
        period: seconds between beats; > 0.
        start: seconds from the first `async for` to the first tick; ≥ 0. Default: at once.
        jitter: each tick is delayed by up to this many seconds at random, without shifting the
            grid; 0 ≤ jitter < period.
        missed: what becomes of beats that pass while the loop's body runs, or the event loop is
            blocked. ``"once"``: one tick for all of them, at once, and the one after is back on the
            grid. ``"all"``: each comes, one right after the other, until none is behind.
            ``"skip"``: none of them comes, only the next on the grid; one that is late by less than
            a period has not been missed.

    Attributes:
        due: when the tick is due that is waited for, or came last, in seconds on Trio's clock;
            None before the first.

    Cancellation: at any time between ticks; no tick is lost, since the grid is a matter of time.
    """

    def __init__(
        self, period: float, *, start: float = 0.0, jitter: float = 0.0, missed: Missed = "once"
    ) -> None:
        if not 0 < period < math.inf:
            raise ValueError(f"a period must be more than 0 s and finite, not {period}")
        if not 0 <= start < math.inf:
            raise ValueError(f"start must be at least 0 s and finite, not {start}")
        if not 0 <= jitter < period:
            raise ValueError(f"jitter must be at least 0 s and less than the period, not {jitter}")
        self.period: float = period
        self.start: float = start
        self.jitter: float = jitter
        self.missed: Missed = check_missed(missed)
        self.due: float | None = None
        self._origin = math.nan
        self._next = 0
        self._service: Lifetime | None = None

    def __aiter__(self) -> Self:
        self._origin = trio.current_time() + self.start
        self._next = 0
        self._service = surrounding_service()
        return self

    async def __anext__(self) -> Tick:
        now = trio.current_time()
        number = max(self._next, self._first_wanted(now))
        while True:
            self.due = scheduled = self._origin + number * self.period
            delay = random.uniform(0, self.jitter) if self.jitter else 0.0
            if not await wait_until(scheduled + delay, self._service):
                raise StopAsyncIteration
            now = trio.current_time()
            # More than this one have passed if the event loop was blocked.
            passed = self._passed(now - delay)
            if passed <= number or self.missed == "all":
                break
            if self.missed == "once":
                number = passed
                self.due = scheduled = self._origin + number * self.period
                break
            number = self._first_wanted(now)
        self._next = number + 1
        return Tick(number, scheduled, max(0.0, now - scheduled))

    def _first_wanted(self, now: float) -> int:
        """The first beat that is not to be left out for having passed."""
        if self.missed == "all":
            return 0
        if self.missed == "once":
            return self._passed(now)
        return math.ceil((now - self._origin) / self.period - _HAIR)

    def _passed(self, now: float) -> int:
        """The last beat that has passed."""
        return math.floor((now - self._origin) / self.period + _HAIR)

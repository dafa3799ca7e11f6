"""Ticks at times of day, by the clocks of a time zone.

Theory. How long it is until a time of day is known only as long as nobody sets the clock, and
while the machine sleeps Trio's clock may stand still. So the wall clock is read again at least once
a minute, and a tick comes when it reads the time or more. A clock that is set back by an hour or
two shows some times twice, which come once all the same; one that is set back by more was wrong,
and counts from what it reads now. One that is set forward has missed what it left out.

Source: cron(8) of Debian, "Daylight Saving Time and other time changes".
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Self

import trio

from ..lifecycle import Lifetime, surrounding_service
from ._cron import Cron
from ._tick import Missed, Tick, check_missed, wait_until

wall_clock: ContextVar[Callable[[], float]] = ContextVar(
    "trio_services.wall_clock", default=time.time
)
"""What `at` reads the wall clock with: seconds since 1970, in UTC.

A test in virtual time sets it to something like ``lambda: start + trio.current_time()``.
"""

_READ_AGAIN = timedelta(minutes=1)
_CORRECTED = timedelta(hours=3)


class at:  # noqa: N801 -- reads as a preposition: `async for tick in at("0 3 * * *"):`
    """Tick at each time that a cron expression names.

    ::

        async for tick in at("30 2 * * *", timezone="Europe/Berlin"):
            await report(tick.when)

    The first tick is the first time after the first `async for`. In a supervised service the loop
    ends by itself when a stop is requested between two ticks.

    Args:
        cron: the expression; see `Cron`, also for what becomes of times that clocks pass over or
            show twice when daylight saving time begins and ends.
        timezone: whose clocks; a name of the IANA data base, like ``Europe/Berlin``.
        jitter: each tick is delayed by up to this many seconds at random, but not until the next
            time; ≥ 0.
        missed: what becomes of times that pass while the loop's body runs, while the machine
            sleeps, or because the clock is set forward. ``"once"``: one tick for all of them, at
            once, for the last. ``"all"``: each comes, one right after the other. ``"skip"``: none
            of them comes, only the next.

    Attributes:
        due: when the tick is due that is waited for, or came last, in seconds on Trio's clock;
            None before the first.

    Raises:
        ValueError: the expression is wrong, or there is no such zone.

    Cancellation: at any time between ticks; no tick is lost.
    """

    def __init__(
        self, cron: str, *, timezone: str = "UTC", jitter: float = 0.0, missed: Missed = "once"
    ) -> None:
        if not 0 <= jitter < math.inf:
            raise ValueError(f"jitter must be at least 0 s and finite, not {jitter}")
        self.cron: Cron = Cron(cron, timezone)
        self.jitter: float = jitter
        self.missed: Missed = check_missed(missed)
        self.due: float | None = None
        self._clock = time.time
        self._passed = datetime.min.replace(tzinfo=UTC)  # up to here nothing is owed
        self._draw = 0.0
        self._number = 0
        self._service: Lifetime | None = None

    def __aiter__(self) -> Self:
        self._clock = wall_clock.get()
        self._passed = self._now()
        self._draw = random.random()
        self._number = 0
        self._service = surrounding_service()
        return self

    async def __anext__(self) -> Tick:
        awaited = False
        while True:
            now = self._now()
            slot = self._slot(now, awaited=awaited)
            due = slot + self._delay(slot)
            self.due = trio.current_time() + (due - now).total_seconds()
            if awaited and due <= now:
                break
            wait = min(max(due - now, timedelta()), _READ_AGAIN).total_seconds()
            if not await wait_until(trio.current_time() + wait, self._service):
                raise StopAsyncIteration
            awaited = True
        self._passed = slot
        self._draw = random.random()
        number, self._number = self._number, self._number + 1
        late = (now - slot).total_seconds()
        return Tick(number, trio.current_time() - late, late, self.cron.local(slot))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _slot(self, now: datetime, *, awaited: bool) -> datetime:
        """The time that is to come next, or has passed and is owed a tick."""
        if now < self._passed - _CORRECTED:
            self._passed = now
        slot = self.cron.next(self._passed)
        if self.missed == "once":
            return (
                slot
                if self.cron.next(slot) > now
                else self.cron.previous(now + datetime.resolution)
            )
        if self.missed == "skip":
            # What was waited for comes a little late, and is missed only if it comes much later.
            grace = _READ_AGAIN if awaited else timedelta()
            if slot + self._delay(slot) + grace < now:
                self._passed = now - datetime.resolution
                slot = self.cron.next(self._passed)
        return slot

    def _delay(self, slot: datetime) -> timedelta:
        if not self.jitter:
            return timedelta()
        return self._draw * min(timedelta(seconds=self.jitter), self.cron.next(slot) - slot)

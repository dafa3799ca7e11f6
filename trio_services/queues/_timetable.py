"""A schedule at work: its calls, one after the other or side by side."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..lifecycle import Lifetime, graceful
from ..timers import Tick
from ._histogram import Histogram, HistogramStatistics
from ._isolation import limited
from ._job import Job, Outcome, current_job
from ._runner import Policy, Runner

if TYPE_CHECKING:
    from ._schedule import Schedule

# The share of a period by which two sums of floats may differ that should be the same time.
_HAIR = 1e-6


@attrs.frozen
class ScheduleStatistics:
    """A schedule at one moment. Times are seconds on Trio's clock, None for what never was.

    Attributes:
        next: when the next call is due.
        began: when the last call began.
        ended: when the last call ended.
        outcome: what became of that.
        running: how many calls are being made.
        done: how many were done; see `Outcome`.
        discarded: how many were discarded.
        dead: how many were dead.
        skipped: how many were not made because the one before was still being made.
        durations: how long the attempts took.
        lateness: how late the calls began.
    """

    next: float | None
    began: float | None
    ended: float | None
    outcome: Outcome | None
    running: int
    done: int
    discarded: int
    dead: int
    skipped: int
    durations: HistogramStatistics
    lateness: HistogramStatistics


class Timetable:
    """One run of a `Schedule`.

    Args:
        spec: what it is a run of.
        service: its lifetime.
        call: what to call.
    """

    def __init__(
        self, spec: Schedule, service: Lifetime, call: Callable[[], Awaitable[object]]
    ) -> None:
        async def make(_: Tick) -> None:
            await call()

        self._spec = spec
        self._service = service
        self._ticks = spec.ticks()
        self._runner = Runner[Any](service, limited(make, spec.timeout), Policy(retry=spec.retry))
        self._lateness = Histogram()
        self._counts = dict.fromkeys(Outcome, 0)
        self._running = 0
        self._skipped = 0
        self._numbered = 0
        self._began: float | None = None
        self._ended: float | None = None
        self._outcome: Outcome | None = None

    async def run(self) -> None:
        """Make the calls until a stop."""
        if self._spec.overlap == "skip":
            await self._one_by_one()
        else:
            await self._side_by_side(trio.Lock() if self._spec.overlap == "queue" else None)

    def statistics(self) -> ScheduleStatistics:
        """The schedule at this moment."""
        return ScheduleStatistics(
            next=self._ticks.due,
            began=self._began,
            ended=self._ended,
            outcome=self._outcome,
            running=self._running,
            done=self._counts[Outcome.DONE],
            discarded=self._counts[Outcome.DISCARDED],
            dead=self._counts[Outcome.DEAD],
            skipped=self._skipped,
            durations=self._runner.durations.statistics(),
            lateness=self._lateness.statistics(),
        )

    async def _one_by_one(self) -> None:
        """No tasks are needed for that: a call is missing to the grid as long as it takes."""
        hair = _HAIR * (self._spec.every or 1.0)
        ended = busy_since = -math.inf
        with graceful() as region:
            region.suspend()
            async for tick in self._ticks:
                if ended - tick.scheduled <= hair:
                    busy_since = trio.current_time()
                elif tick.scheduled >= busy_since:
                    self._skipped += 1  # it fell due while a call was still being made
                    continue
                region.resume()
                await self._call(tick, region)
                ended = trio.current_time()
                region.suspend()

    async def _side_by_side(self, queue: trio.Lock | None) -> None:
        """A task for each call; with a queue they are made one after the other."""

        async def make(tick: Tick) -> None:
            with graceful() as region:
                if queue is None:
                    await self._call(tick, region)
                    return
                region.suspend()
                async with queue:
                    region.resume()
                    await self._call(tick, region)

        async with trio.open_nursery() as nursery:
            async for tick in self._ticks:
                nursery.start_soon(make, tick)

    async def _call(self, tick: Tick, region: graceful) -> None:
        self._numbered += 1
        self._running += 1
        self._began = began = trio.current_time()
        self._lateness.add(max(0.0, began - tick.scheduled))
        try:
            outcome = await self._runner.run(Job(self._service.name, self._numbered, tick), region)
        finally:
            current_job.set(None)  # what the service does next is not a part of it
            self._running -= 1
            self._ended = trio.current_time()
        self._outcome = outcome
        self._counts[outcome] += 1

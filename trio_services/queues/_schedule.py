"""A call that is made again and again, each time as a job."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import attrs
import trio
from attrs import validators

from .. import timers
from ..lifecycle import current_service, graceful
from ..resilience import Retry
from ..services import Service, name_of
from ._job import Job
from ._runner import Runner

# The share of a period by which two sums of floats may differ that should be the same time.
_HAIR = 1e-6


@attrs.frozen
class Schedule(Service):
    """Make a call every so many seconds, on a grid that the calls do not shift.

    Calls do not overlap: one that takes longer than its period delays the next to the first place
    on the grid after it has ended. A call that fails for good is published as a dead job, and
    the schedule goes on. At a stop the call in hand is finished, within `stop_within`.

    Args:
        call: ``async def call()``.
        every: seconds between the starts of two calls; > 0.
        start: seconds before the first call; ≥ 0.
        jitter: each call is delayed by up to this many seconds at random; less than `every`.
        timeout: seconds that one attempt may take; > 0. Default: no limit.
        retry: which failures are tried again, and when. Default: none.
    """

    call: Callable[[], Awaitable[object]]
    every: float = attrs.field(kw_only=True)
    start: float = attrs.field(default=0.0, kw_only=True)
    jitter: float = attrs.field(default=0.0, kw_only=True)
    timeout: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.gt(0))
    )
    retry: Retry | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._ticks()  # says what is wrong with the times now, and not when it is started

    @property
    def name(self) -> str:
        """The name of what is called."""
        return name_of(self.call)

    async def run(self) -> None:
        """Make the calls until a stop."""
        service = current_service()
        runner = Runner(service, self._make, timeout=self.timeout, retry=self.retry)
        with graceful() as region:
            region.suspend()
            ended = -math.inf
            async for tick in self._ticks():
                if ended - tick.scheduled > _HAIR * self.every:
                    continue  # it fell due while the call before was still being made
                region.resume()
                await runner.run(Job(service.name, tick.number + 1, tick), region)
                region.suspend()
                ended = trio.current_time()

    def _ticks(self) -> timers.every:
        return timers.every(self.every, start=self.start, jitter=self.jitter)

    async def _make(self, tick: timers.Tick) -> None:
        await self.call()

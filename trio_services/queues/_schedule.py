"""A call that is made again and again, each time as a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, get_args

import attrs
from attrs import validators

from .. import timers
from ..lifecycle import JobCall, current_service
from ..resilience import Retry
from ..services import Service, name_of
from ._timetable import Timetable

Overlap = Literal["skip", "queue", "parallel"]


@attrs.frozen
class Schedule(Service):
    """Make a call every so many seconds, or at the times of a cron expression.

    The calls do not shift the times at which they are due. One that fails for good is published as
    a dead job, and the schedule goes on. At a stop the calls in hand are finished, within
    `stop_within`.

    Args:
        call: ``async def call()``, or with what it asks for by the types of its parameters; see
            `Container`.
        every: seconds between two times; > 0. Either this or `cron`.
        cron: a cron expression; see `timers.Cron`.
        timezone: by whose clocks; a name of the IANA data base. Only with `cron`.
        start: seconds before the first call; ≥ 0. Only with `every`.
        jitter: each call is delayed by up to this many seconds at random; less than `every`.
        overlap: what becomes of a call that is due while the one before is still being made. It is
            left out (``"skip"``), made after it (``"queue"``), or beside it (``"parallel"``).
        missed: what becomes of times that passed while nothing could be done, because the event
            loop was blocked, the machine slept, or its clock was set forward: one call for all of
            them (``"once"``), one for each (``"all"``), or none (``"skip"``).
        timeout: seconds that one attempt may take; > 0. Default: no limit.
        retry: which failures are tried again, and when. Default: none.

    Raises:
        ValueError: the times are not such as there can be.
    """

    call: Callable[..., Awaitable[object]]
    every: float | None = attrs.field(default=None, kw_only=True)
    cron: str | None = attrs.field(default=None, kw_only=True)
    timezone: str | None = attrs.field(default=None, kw_only=True)
    start: float = attrs.field(default=0.0, kw_only=True)
    jitter: float = attrs.field(default=0.0, kw_only=True)
    overlap: Overlap = attrs.field(
        default="skip", kw_only=True, validator=validators.in_(get_args(Overlap))
    )
    missed: timers.Missed = attrs.field(default="once", kw_only=True)
    timeout: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.gt(0))
    )
    retry: Retry | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self.ticks()  # says what is wrong with the times now, and not when it is started

    @property
    def name(self) -> str:
        """The name of what is called."""
        return name_of(self.call)

    def job_calls(self) -> Iterable[JobCall]:
        """What is called."""
        return [(self.call, 0)]

    async def run(self) -> None:
        """Make the calls until a stop."""
        service = current_service()
        call = await service.bind(self.call, 0)
        service.at_work = timetable = Timetable(self, service, call)
        await timetable.run()

    def ticks(self) -> timers.every | timers.at:
        """The times at which calls are due, from now on.

        Raises: see above.
        """
        if (self.every is None) == (self.cron is None):
            raise ValueError("a schedule needs either every= or cron=")
        if self.every is not None:
            if self.timezone is not None:
                raise ValueError("timezone goes with cron=, not with every=")
            return timers.every(
                self.every, start=self.start, jitter=self.jitter, missed=self.missed
            )
        if self.start:
            raise ValueError("start goes with every=, not with cron=")
        zone = self.timezone or "UTC"
        return timers.at(self.cron or "", timezone=zone, jitter=self.jitter, missed=self.missed)

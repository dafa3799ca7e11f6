"""One job through its policies: the way of every queue item and every timer tick.

::

    source → breaker → rate → handler → done
                                 │ Discard    → discarded
                                 │ RetryLater → once more after its delay
                                 │ error      → retry after a delay, or fallback, or dead
                                 └ stop       → returned

The policies are read once, when the runner is made; a job makes no task, no closure and no cancel
scope.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Concatenate, Generic, Protocol, TypeVar, cast

import attrs
import trio

from ..errors import Failure
from ..lifecycle import (
    Lifetime,
    asks_for_exit,
    events,
    graceful,
    set_aside_cancellations,
    summarize,
)
from ..resilience import Rate, RateLimiter, Retry, is_transient
from ._breaking import HandlerBreaker
from ._histogram import Histogram
from ._job import DeadLetter, Discard, Job, Outcome, RetryLater, current_job

T = TypeVar("T")

Handler = Callable[[T], Awaitable[object]]
OnFailure = Callable[Concatenate[T, Exception, ...], Awaitable[object]]
"""What gets an item whose job has failed for good, and the last error."""

_ONCE = Retry(attempts=1)


class Books(Protocol):
    """Where a source of jobs keeps what a runner has to say about them."""

    def count_retry(self) -> None:
        """Book a further attempt."""
        ...

    def keep(self, letter: DeadLetter[Any], /) -> None:
        """Remember a dead letter that nobody else takes."""
        ...

    def hold(self, job: Job[Any], /) -> AbstractContextManager[object]:
        """A block around the work at a job, which is cancelled when the job is lost to others."""
        ...

    def postpone(self, job: Job[Any], delay: float, /) -> bool:
        """Whether a job is to be returned, and taken anew after a delay."""
        ...


@attrs.frozen
class Policy(Generic[T]):
    """What a job goes through on its way.

    Args:
        retry: which failures are tried again, and when; None: none.
        rate: how often a handler may be entered; None: no limit.
        breaker: leaves the handler alone while it keeps failing; None: never.
        fallback: what to do for an item instead, when its job has failed for good.
        on_dead: takes the item and the last error of a job that is dead.
        drain: whether a job may also wait for an attempt while the service stops.
    """

    retry: Retry | None = None
    rate: Rate | None = None
    breaker: HandlerBreaker | None = None
    fallback: OnFailure[T] | None = None
    on_dead: OnFailure[T] | None = None
    drain: bool = False


class Runner(Generic[T]):
    """Runs the jobs of one source.

    Args:
        service: the service in whose name it works; events are published there.
        handler: called with each job's item; its time-out is its own affair.
        policy: what a job goes through.
        books: those of the source, if it has any.

    Attributes:
        durations: how long the attempts took.
        ended_at: when the last of them ended, in seconds on Trio's clock.
    """

    __slots__ = (
        "_books",
        "_breaker",
        "_call",
        "_gated",
        "_limiter",
        "_now",
        "_policy",
        "_retry",
        "_service",
        "durations",
        "ended_at",
    )

    def __init__(
        self,
        service: Lifetime,
        handler: Handler[T],
        policy: Policy[T],
        books: Books | None = None,
    ) -> None:
        self._service = service
        self._policy = policy
        self._books = books
        self._retry = policy.retry or _ONCE
        self._breaker = policy.breaker
        self._limiter = RateLimiter(policy.rate) if policy.rate is not None else None
        self._gated = self._limiter is not None or self._breaker is not None
        self._call = handler
        self._now = trio.lowlevel.current_clock().current_time
        self.ended_at: float = self._now()
        self.durations: Histogram = Histogram()

    async def run_held(self, job: Job[T], region: graceful) -> Outcome:
        """As `run` does; a job that is lost to others meanwhile is returned."""
        with cast("Books", self._books).hold(job):
            return await self.run(job, region)
        return Outcome.RETURNED  # its block was cancelled

    async def run(self, job: Job[T], region: graceful) -> Outcome:
        """What became of the job; `region` is the graceful region that it runs in.

        Cancellation: of the handler by the region's deadline, before an attempt at once. It
        passes through, and the caller books what the job is if it is interrupted.
        """
        current_job.set(job)
        if job.broken is not None:
            if self._breaker is not None:
                self._breaker.leave(region)  # if it was to be the probe, it shows nothing
            self._remember(job, job.broken)
            await self._bury(job, job.broken)
            return Outcome.DEAD
        while True:
            if self._gated:
                await self._admitted(region)
            job.attempt += 1
            began = self._now()
            try:
                await self._call(job.item)
            except (trio.Cancelled, GeneratorExit):
                raise
            except BaseException as raised:  # a job's failure is data
                self.ended_at = ended = self._now()
                self.durations.add(ended - began)
                error = _failure_of(raised)
                if error is None:
                    raise
            else:
                self.ended_at = ended = self._now()
                self.durations.add(ended - began)
                if self._breaker is not None:
                    self._breaker.succeeded(region)
                return Outcome.DONE
            after = await self._after_error(job, error, region)
            del error  # a past attempt's traceback is not kept alive meanwhile
            if isinstance(after, Outcome):
                return after
            if self._books is not None and self._books.postpone(job, after):
                return Outcome.RETURNED
            self._pause(region)
            await trio.sleep(after)
            region.resume()
            if self._books is not None:
                self._books.count_retry()

    async def _admitted(self, region: graceful) -> None:
        """Return when an attempt may begin."""
        self._pause(region)
        if self._breaker is not None and not self._breaker.admits(region):
            await self._breaker.wait_admitted(region)
        if self._limiter is not None:
            await self._limiter.acquire()
        region.resume()

    def _pause(self, region: graceful) -> None:
        if not self._policy.drain:
            region.suspend()

    async def _after_error(
        self, job: Job[T], error: Exception, region: graceful
    ) -> Outcome | float:
        """What becomes of a job whose attempt raised, or the seconds until its next attempt."""
        if isinstance(error, (Discard, RetryLater)):
            if self._breaker is not None:
                self._breaker.succeeded(region)
            return Outcome.DISCARDED if isinstance(error, Discard) else error.delay
        try:
            transient = is_transient(error, self._retry.on)
        except Exception as broken:  # noqa: BLE001 -- the predicate's own failure is told instead
            broken.__context__ = error
            error, transient = broken, False
        if self._breaker is not None:
            # What another attempt cannot mend says nothing about what the handler depends on.
            (self._breaker.failed if transient else self._breaker.succeeded)(region)
        job.failed += 1
        failure = self._remember(job, error)
        if transient and job.failed < self._retry.attempts:
            delay = self._retry.backoff.delay(job.failed)
            self._service.publish(
                events.JobRetrying, job.source, job.id, job.attempt, failure, delay
            )
            return delay
        if self._policy.fallback is not None:
            try:
                await self._policy.fallback(job.item, error)
            except Exception as raised:  # noqa: BLE001 -- it is dead for that reason
                error, failure = raised, self._remember(job, raised)
            else:
                self._service.publish(events.JobFellBack, job.source, job.id, job.attempt, failure)
                return Outcome.DONE
        await self._bury(job, error)
        return Outcome.DEAD

    def _remember(self, job: Job[T], error: Exception) -> Failure:
        failure = summarize(self._service.name, error)
        job.remember(failure)
        return failure

    async def _bury(self, job: Job[T], error: Exception) -> None:
        """Give the dead letters of a job to who takes them; what nobody takes is kept."""
        job.if_interrupted = Outcome.DEAD  # it is published as that
        letters = deque(
            DeadLetter(one.source, one.id, one.item, job.attempt, job.failures)
            for one in job.parts or (job,)
        )
        for letter in letters:
            self._service.publish(
                events.JobDead,
                letter.source,
                letter.job,
                letter.attempts,
                letter.failure,
                letter.item,
                error,
            )
        on_dead = self._policy.on_dead
        try:
            while letters and on_dead is not None:
                await self._offer(letters[0], on_dead, error)
                letters.popleft()
        finally:
            for letter in letters:
                self._keep(letter)

    async def _offer(
        self, letter: DeadLetter[Any], on_dead: OnFailure[Any], error: Exception
    ) -> None:
        try:
            await on_dead(letter.item, error)
        except Exception as raised:  # noqa: BLE001 -- published, and the letter is kept
            failed = summarize(self._service.name, raised)
            self._service.publish(
                events.DeadLetterKept, letter.source, letter.job, failed, letter.item, raised
            )
            self._keep(letter)

    def _keep(self, letter: DeadLetter[Any]) -> None:
        if self._books is not None:
            self._books.keep(letter)


def _failure_of(raised: BaseException) -> Exception | None:
    """What of an exception is a job's own failure; None if it is not about the job alone."""
    cancelled, cause = set_aside_cancellations(raised)
    if cancelled is not None or cause is None or asks_for_exit(cause):
        return None
    return cast("Exception", cause)

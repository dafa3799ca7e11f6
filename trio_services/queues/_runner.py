"""One job through its policies: the way of every queue item and every timer tick.

::

    source → time-out → handler → done
                           │ Discard → discarded
                           │ error   → retry after a delay, or dead
                           └ stop    → returned

The policies are read once, when the runner is made; a job makes no task, no closure, and a cancel
scope only where a time-out is set.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar, cast

import trio

from ..lifecycle import (
    Lifetime,
    asks_for_exit,
    events,
    graceful,
    set_aside_cancellations,
    summarize,
)
from ..resilience import Retry, timeout
from ._job import DeadLetter, Discard, Job, Outcome, current_job

T = TypeVar("T")

Handler = Callable[[T], Awaitable[object]]
OnDead = Callable[[T, Exception], Awaitable[object]]

_ONCE = Retry(attempts=1)


class Books(Protocol[T]):
    """Where a source of jobs keeps what a runner has to say about them."""

    def count_retry(self) -> None:
        """Book a further attempt."""
        ...

    def keep(self, letter: DeadLetter[T], /) -> None:
        """Remember a dead letter that nobody else takes."""
        ...


class Runner(Generic[T]):
    """Runs the jobs of one source.

    Args:
        service: the service in whose name it works; events are published there.
        handler: called with each job's item.
        timeout: seconds that one attempt may take; None: no limit.
        retry: which failures are tried again, and when; None: none.
        on_dead: takes the item and the last error of a job that failed for good.
        books: those of the source, if it has any.
    """

    __slots__ = ("_books", "_handler", "_on_dead", "_retry", "_service", "_timeout")

    def __init__(
        self,
        service: Lifetime,
        handler: Handler[T],
        *,
        timeout: float | None,
        retry: Retry | None,
        on_dead: OnDead[T] | None = None,
        books: Books[T] | None = None,
    ) -> None:
        self._service = service
        self._handler = handler
        self._timeout = timeout
        self._retry = retry or _ONCE
        self._on_dead = on_dead
        self._books = books

    async def run(self, job: Job[T], region: graceful) -> Outcome:
        """What became of the job; `region` is the graceful region that it runs in.

        Cancellation: of the handler by the region's deadline, between two attempts at once. It
        passes through, and the caller books the job as returned.
        """
        current_job.set(job)
        try:
            while True:
                delay = await self._attempt(job)
                if isinstance(delay, Outcome):
                    return delay
                region.suspend()
                await trio.sleep(delay)
                region.resume()
                if self._books is not None:
                    self._books.count_retry()
        finally:
            current_job.set(None)

    async def _attempt(self, job: Job[T]) -> Outcome | float:
        """The outcome of a job, or the seconds until its next attempt."""
        job.attempt += 1
        try:
            if self._timeout is None:
                await self._handler(job.item)
            else:
                with timeout(self._timeout):
                    await self._handler(job.item)
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as raised:  # a job's failure is data
            cancelled, cause = set_aside_cancellations(raised)
            if cancelled is not None or cause is None or asks_for_exit(cause):
                raise
            if isinstance(cause, Discard):
                return Outcome.DISCARDED
            return await self._after_failure(job, cast("Exception", cause))
        return Outcome.DONE

    async def _after_failure(self, job: Job[T], error: Exception) -> Outcome | float:
        try:
            delay = self._retry.delay(job.attempt, error)
        except Exception as broken:  # noqa: BLE001 -- the predicate's own failure is told instead
            broken.__context__ = error
            error, delay = broken, None
        failure = summarize(self._service.name, error)
        name = self._service.name
        if delay is not None:
            self._service.publish(
                events.JobRetrying, job.source, job.id, job.attempt, failure, delay
            )
            return delay
        self._service.publish(
            events.JobDead, job.source, job.id, job.attempt, failure, job.item, error
        )
        job.if_interrupted = Outcome.DEAD  # it is published as that
        taken = False
        try:
            if self._on_dead is not None:
                await self._on_dead(job.item, error)
                taken = True
        except Exception as raised:  # noqa: BLE001 -- published, and the letter is kept
            failed = summarize(name, raised)
            self._service.publish(
                events.DeadLetterKept, job.source, job.id, failed, job.item, raised
            )
        finally:
            if not taken and self._books is not None:
                self._books.keep(DeadLetter(job.id, job.item, job.attempt, failure))
        return Outcome.DEAD

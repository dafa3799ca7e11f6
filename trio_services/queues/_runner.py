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
from typing import Generic, TypeVar

import trio

from ..lifecycle import Lifetime, events, graceful, summarize
from ..resilience import Retry, timeout
from ._job import DeadLetter, Discard, Job, Outcome, current_job

T = TypeVar("T")

Handler = Callable[[T], Awaitable[object]]
OnDead = Callable[[T, Exception], Awaitable[object]]

_ONCE = Retry(attempts=1)


class Runner(Generic[T]):
    """Runs the jobs of one source, one after the other, for one task.

    Args:
        service: the service in whose name it works; events are published there.
        handler: called with each job's item.
        timeout: seconds that one attempt may take; None: no limit.
        retry: which failures are tried again, and when; None: none.
        on_dead: takes the item and the last error of a job that failed for good.
        keep: takes the dead letters that no `on_dead` took.
    """

    __slots__ = ("_handler", "_keep", "_on_dead", "_retry", "_service", "_timeout")

    def __init__(
        self,
        service: Lifetime,
        handler: Handler[T],
        *,
        timeout: float | None,
        retry: Retry | None,
        on_dead: OnDead[T] | None = None,
        keep: Callable[[DeadLetter[T]], None] | None = None,
    ) -> None:
        self._service = service
        self._handler = handler
        self._timeout = timeout
        self._retry = retry or _ONCE
        self._on_dead = on_dead
        self._keep = keep

    async def run(self, job: Job[T], region: graceful) -> Outcome:
        """What became of the job; `region` is the graceful region that it runs in.

        Cancellation: of the handler by the region's deadline, between two attempts at once. It
        passes through, and the caller books the job as returned.
        """
        current_job.set(job)
        try:
            return await self._attempts(job, region)
        finally:
            current_job.set(None)

    async def _attempts(self, job: Job[T], region: graceful) -> Outcome:
        while True:
            job.attempt += 1
            try:
                if self._timeout is None:
                    await self._handler(job.item)
                else:
                    with timeout(self._timeout):
                        await self._handler(job.item)
            except Discard:
                return Outcome.DISCARDED
            except Exception as error:  # noqa: BLE001 -- a job's failure is data
                delay = self._retry.delay(job.attempt, error)
                if delay is None:
                    await self._bury(job, error)
                    return Outcome.DEAD
                failure = summarize(self._service.name, error)
            else:
                return Outcome.DONE
            self._service.publish(
                events.JobRetrying(
                    self._service.name, job.source, job.id, job.attempt, failure, delay
                )
            )
            region.suspend()
            await trio.sleep(delay)
            region.resume()

    async def _bury(self, job: Job[T], error: Exception) -> None:
        name = self._service.name
        failure = summarize(name, error)
        self._service.publish(
            events.JobDead(name, job.source, job.id, job.attempt, failure, job.item, error)
        )
        if self._on_dead is not None:
            try:
                await self._on_dead(job.item, error)
            except Exception as sink_error:  # noqa: BLE001 -- published, and the letter is kept
                self._service.publish(
                    events.DeadLetterKept(
                        name, job.source, job.id, summarize(name, sink_error), job.item, sink_error
                    )
                )
            else:
                return
        if self._keep is not None:
            self._keep(DeadLetter(job.id, job.item, job.attempt, failure))

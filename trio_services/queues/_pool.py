"""Workers at work: so many tasks that take jobs, run them, and book what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import trio

from ..errors import ServicesError
from ..lifecycle import Lifetime, graceful
from ..resilience import BreakerState
from ._batches import Gatherer
from ._breaking import HandlerBreaker
from ._histogram import HistogramStatistics
from ._isolation import isolated
from ._job import Job, Outcome, current_job
from ._lanes import Lanes
from ._runner import Policy, Runner
from ._source import Source
from ._turn import current_turn

if TYPE_CHECKING:
    from ._workers import Workers

T = TypeVar("T")

# Jobs for each worker that may wait for others of their key.
_IN_LANES = 8


@attrs.frozen
class PoolStatistics:
    """A pool of workers at one moment.

    Attributes:
        queue: the name of the queue that it works on.
        count: how many workers there are to be.
        busy: how many have a job in hand.
        breaker: what the breaker around the handler lets through; None if there is none.
        durations: how long the attempts took.
    """

    queue: str
    count: int
    busy: int
    breaker: BreakerState | None
    durations: HistogramStatistics


@attrs.define(eq=False)
class _Worker:
    """One worker.

    Attributes:
        scope: ends it while it is idle.
        idle: whether it has nothing in hand.
        dismissed: whether it is not needed any more, and ends as soon as it has nothing in hand.
    """

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    idle: bool = True
    dismissed: bool = False


class Pool(Generic[T]):
    """One run of `Workers`.

    Args:
        spec: what it is a run of.
        service: its lifetime.

    Attributes:
        interrupted: the items that a stop has interrupted.
    """

    def __init__(self, spec: Workers[T], service: Lifetime) -> None:
        self.interrupted: list[T] = []
        self._spec = spec
        self._service = service
        self._source: Source[Any] = spec.queue
        if spec.key is not None:
            self._source = Lanes(spec.queue, spec.key, _IN_LANES * spec.count)
        self._gatherer = Gatherer(spec.batch, self._source) if spec.batch is not None else None
        self._breaker = HandlerBreaker(spec.breaker, service) if spec.breaker is not None else None
        self._turn = current_turn()
        self._workers: set[_Worker] = set()
        self._count = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Work until there are no more jobs, or until a stop."""
        spec = self._spec
        handler: Callable[..., Any] = spec.handler
        if spec.isolation == "task":
            handler = await self._service.bind(handler, 1)
        policy = Policy[Any](
            retry=spec.retry or spec.queue.retry,
            rate=spec.rate,
            breaker=self._breaker,
            fallback=spec.fallback and await self._service.bind(spec.fallback, 2),
            on_dead=spec.on_dead and await self._service.bind(spec.on_dead, 2),
            drain=spec.drain,
        )
        async with (
            isolated(handler, spec.isolation, timeout=spec.timeout, count=spec.count) as call,
            trio.open_nursery() as attendants,
        ):
            self._runner = Runner[Any](self._service, call, policy, spec.queue)
            if self._gatherer is not None:
                attendants.start_soon(self._gatherer.heed_stops)
            async with trio.open_nursery() as self._nursery:
                self._set_count(spec.count)
                self._service.at_work = self
                task_status.started()
            attendants.cancel_scope.cancel()

    def resize(self, count: int) -> None:
        """Have another number of workers; those too many finish what they have in hand.

        Args:
            count: ≥ 1.

        Raises:
            ServicesError: its queue was closed and is empty, and its workers have ended.
            ValueError: the number is not at least 1.
        """
        if type(count) is not int or count < 1:
            raise ValueError(f"the number of workers must be a whole number ≥ 1, not {count}")
        if not self._workers:
            raise ServicesError(
                f"the workers of {self._service.name} have ended: there is nothing to resize"
            )
        self._set_count(count)

    def _set_count(self, count: int) -> None:
        self._count = count
        while len(self._workers) < count:
            worker = _Worker()
            self._workers.add(worker)
            self._nursery.start_soon(self._work, worker)
        for worker in sorted(self._workers, key=lambda worker: not worker.idle):
            if len(self._workers) == count:
                break
            self._workers.remove(worker)
            worker.dismissed = True
            if worker.idle:
                worker.scope.cancel()

    def statistics(self) -> PoolStatistics:
        """The pool at this moment."""
        return PoolStatistics(
            queue=self._spec.queue.name,
            count=self._count,
            busy=sum(not worker.idle for worker in self._workers),
            breaker=self._breaker.state if self._breaker is not None else None,
            durations=self._runner.durations.statistics(),
        )

    async def _work(self, worker: _Worker) -> None:
        source, runner, turn = self._source, self._runner, self._turn
        service, breaker, gatherer = self._service, self._breaker, self._gatherer
        run = runner.run_held if self._spec.queue.lends else runner.run
        job: Job[Any] | None = None  # in hand, or to follow on the last one
        # One region for the worker's whole life, suspended while nothing is in hand: a region
        # for each item would cost a cancel scope each.
        with worker.scope, graceful() as region:
            try:
                while not (service.stop_requested or worker.dismissed) or self._drains(worker):
                    if turn.over(runner.ended_at):
                        await self._give_way()
                        continue
                    if breaker is not None and breaker.lets_nobody_through:
                        self._rest(worker, region)
                        await breaker.wait_due()
                        continue
                    if job is None:
                        job = source.take_nowait()
                    if job is None:
                        self._rest(worker, region)
                        number = turn.number
                        job = await source.take()
                        turn.came_back(number)
                    if worker.idle:
                        worker.idle = False
                        region.resume()
                        if service.stop_requested or worker.dismissed:
                            continue  # to where it is decided whether the job is begun
                    if breaker is not None and not breaker.admits(region):
                        source.release(job)
                        job = None
                        continue
                    if gatherer is not None:
                        first, job = job, None
                        job = await gatherer.gather(first)
                    outcome = await run(job, region)
                    if gatherer is None:
                        job = source.settle(job, outcome)
                    else:
                        job = self._settle(job, outcome)
            except trio.EndOfChannel:
                pass  # of the queue: what a handler raises does not come here
            finally:
                self._workers.discard(worker)
                if job is not None:
                    self._give_back(job)
                if breaker is not None:
                    breaker.leave(region)

    def _drains(self, worker: _Worker) -> bool:
        """Whether a worker goes on at a stop, because what waits is to be finished too."""
        if worker.dismissed or not self._spec.drain or not self._service.ends_for_good:
            return False
        self._spec.queue.close()
        return True

    async def _give_way(self) -> None:
        number = self._turn.number
        await trio.lowlevel.checkpoint()
        self._turn.came_back(number)

    def _rest(self, worker: _Worker, region: graceful) -> None:
        """A worker has nothing in hand: a stop need not wait for it."""
        worker.idle = True
        region.suspend()
        current_job.set(None)

    def _settle(self, job: Job[Any], outcome: Outcome) -> Job[Any] | None:
        """Book the outcome of a job; the one that follows on it, if there is one."""
        if not job.parts:
            return self._source.settle(job, outcome)
        for part in job.parts:
            self._source.settle(part, outcome)
        return None

    def _give_back(self, job: Job[Any]) -> None:
        """Book a job that a worker cannot do any more."""
        if not job.attempt and job.if_interrupted is Outcome.RETURNED:  # it was not begun
            self._source.release(*(job.parts or (job,)))
            return
        if job.if_interrupted is Outcome.RETURNED:
            self.interrupted += [part.item for part in job.parts or (job,)]
        following = self._settle(job, job.if_interrupted)
        if following is not None:
            self._source.release(following)

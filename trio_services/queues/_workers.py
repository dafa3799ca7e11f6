"""A pool of workers, which run a handler for each item of a queue."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import trio
from attrs import validators

from ..lifecycle import Lifetime, current_service, events, graceful
from ..resilience import Retry
from ..services import Service, name_of
from ._memory import WorkQueue
from ._runner import Handler, OnDead, Runner

T = TypeVar("T")

# How many items a worker takes without giving way, so that others get a turn beside a handler
# that never waits for anything.
_BURST = 64


@attrs.frozen
class Workers(Service, Generic[T]):
    """Run `handler` for each item of `queue`, several at a time.

    They end when the queue was closed and is empty. At a stop the items in hand are finished,
    within `stop_within`; those still waiting are counted as left.

    Args:
        queue: where the items come from.
        handler: ``async def handle(item)``. It returns: done. It raises `Discard`: discarded.
            It raises anything else: tried again as `retry` says, and a dead letter after that.
        count: how many items are worked on at the same time; ≥ 1.
        timeout: seconds that one attempt may take; > 0. Default: no limit.
        retry: which failures are tried again, and when. Default: none.
        on_dead: ``async def on_dead(item, error)`` receives dead letters. Without it, or when it
            raises, they are kept in `queue.dead_letters()`.
    """

    queue: WorkQueue[T]
    handler: Handler[T]
    count: int = attrs.field(
        default=1, kw_only=True, validator=[validators.instance_of(int), validators.ge(1)]
    )
    timeout: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.gt(0))
    )
    retry: Retry | None = attrs.field(default=None, kw_only=True)
    on_dead: OnDead[T] | None = attrs.field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """The handler's name."""
        return name_of(self.handler)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until the queue is closed and empty, or until a stop."""
        service = current_service()
        self.enlist(service, service.name)
        runner = Runner(
            service,
            self.handler,
            timeout=self.timeout,
            retry=self.retry,
            on_dead=self.on_dead,
            books=self.queue,
        )
        async with trio.open_nursery() as nursery:
            for _ in range(self.count):
                nursery.start_soon(self._work, runner)
            task_status.started()

    def enlist(self, lifetime: Lifetime, name: str) -> None:
        """Count as consumers until they cannot be started again; the last close the books."""

        queue = self.queue  # and not itself, which may be made anew for each start

        def close_books() -> None:
            if queue.detach():
                accounts = str(queue.statistics())
                lifetime.bus.publish(events.WorkEnded(name, queue.name, accounts))

        if lifetime.at_end(name, id(queue), close_books):
            queue.attach()

    async def _work(self, runner: Runner[T]) -> None:
        queue = self.queue
        service = current_service()
        # One region for the worker's whole life, suspended while nothing is in hand: a region
        # for each item would cost a cancel scope each.
        with graceful() as region:
            turns = 0
            while not service.stop_requested:
                region.suspend()
                turns += 1
                if turns % _BURST == 0:
                    await trio.lowlevel.checkpoint()
                try:
                    job = await queue.take()
                except trio.EndOfChannel:
                    return
                region.resume()
                try:
                    outcome = await runner.run(job, region)
                except BaseException:
                    queue.settle(job, job.if_interrupted)
                    raise
                queue.settle(job, outcome)
                del job  # an idle worker does not keep what it had last

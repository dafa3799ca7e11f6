"""A pool of workers, which run a handler for each item of a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Concatenate, Generic, TypeVar

import attrs
import trio
from attrs import validators

from ..lifecycle import JobCall, Lifetime, current_service, events, graceful
from ..resilience import Breaker, Rate, Retry
from ..services import Service, name_of
from ._batches import Batch
from ._isolation import Isolation, check_isolation
from ._memory import WorkQueue
from ._pool import Pool
from ._runner import OnFailure
from ._source import Queue

T = TypeVar("T")

Handler = Callable[Concatenate[T, ...], object]
"""``async def handle(item)``; without async where it is isolated in a thread or a process."""


def _queues(
    given: WorkQueue[Any] | Iterable[WorkQueue[Any]],
) -> tuple[WorkQueue[Any], ...]:
    return (given,) if isinstance(given, WorkQueue) else tuple(given)


@attrs.frozen
class Workers(Service, Generic[T]):
    """Run `handler` for each item of `queue`, several at a time.

    They end when the queue was closed and is empty. At a stop the items in hand are finished,
    within `stop_within`; those still waiting are left.

    Args:
        queue: where the items come from.
        handler: gets an item, or with `batch` a list of them, and what else it asks for by the
            types of its parameters; see `Container`. It returns: done. It raises
            `Discard`: discarded; `RetryLater`: once more after a while. It raises anything else:
            tried again as `retry` says, and a dead letter after that.
        count: how many items, or batches, are worked on at the same time; ≥ 1.
        timeout: seconds that one attempt may take; > 0. Default: no limit.
        retry: which failures are tried again, and when. Until then it stays in its worker's hand.
            Default: none.
        rate: how often the handler is called. Default: no limit.
        breaker: takes nothing from the queue for a while when too many attempts fail for a reason
            that `retry` calls transient; then one item is tried. Default: none.
        batch: hand over lists. Not together with `key`.
        key: items with the same key are handled in order, one at a time; others beside them.
        isolation: where the handler runs: as a ``"task"``, or, if it is no async function, in a
            ``"thread"`` or a ``"process"``.
        fallback: ``async def fallback(item, error)``: what to do instead for an item that has
            failed for good. When it returns, the item is done.
        on_dead: ``async def on_dead(item, error)`` receives dead letters. Without it, or when it
            raises, they are kept in `queue.dead_letters()`.
        on_left: ``async def on_left(item)`` receives, at the last stop, the items that are left or
            were interrupted, as far as there is time for it.
        drain: whether the last stop closes the queue, and what waits in it is finished too, within
            `stop_within`.
        feeds: the queues that the handler puts items to. They are closed when all who feed them
            have ended because their own queues were closed and empty.
    """

    queue: Queue[T]
    handler: Handler[T] | Handler[list[T]]
    count: int = attrs.field(
        default=1, kw_only=True, validator=[validators.instance_of(int), validators.ge(1)]
    )
    timeout: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.gt(0))
    )
    retry: Retry | None = attrs.field(default=None, kw_only=True)
    rate: Rate | None = attrs.field(default=None, kw_only=True)
    breaker: Breaker | None = attrs.field(default=None, kw_only=True)
    batch: Batch | None = attrs.field(default=None, kw_only=True)
    key: Callable[[T], Hashable] | None = attrs.field(default=None, kw_only=True)
    isolation: Isolation = attrs.field(default="task", kw_only=True)
    fallback: OnFailure[T] | OnFailure[list[T]] | None = attrs.field(default=None, kw_only=True)
    on_dead: OnFailure[T] | None = attrs.field(default=None, kw_only=True)
    on_left: Callable[Concatenate[T, ...], Awaitable[object]] | None = attrs.field(
        default=None, kw_only=True
    )
    drain: bool = attrs.field(default=False, kw_only=True)
    feeds: tuple[WorkQueue[Any], ...] = attrs.field(default=(), kw_only=True, converter=_queues)

    def __attrs_post_init__(self) -> None:
        if self.batch is not None and self.key is not None:
            raise ValueError("batch and key do not go together: items of a batch have many keys")
        check_isolation(self.handler, self.isolation)

    @property
    def name(self) -> str:
        """The handler's name."""
        return name_of(self.handler)

    def job_calls(self) -> Iterable[JobCall]:
        """The handler, unless it runs elsewhere, and what else is called for an item."""
        if self.isolation == "task":
            yield self.handler, 1
        for call in (self.fallback, self.on_dead):
            if call is not None:
                yield call, 2
        if self.on_left is not None:
            yield self.on_left, 1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until the queue is closed and empty, or until a stop.

        Raises:
            BreakerOpen: the breaker has given up.
        """
        service = current_service()
        self.enlist(service, service.name)
        on_left = self.on_left and await service.bind(self.on_left, 1)
        pool = Pool(self, service)
        try:
            await pool.run(task_status)
        finally:
            if on_left is not None and service.ends_for_good:
                with graceful():
                    await self._offer_left(pool.interrupted, on_left)  # noqa: ASYNC102 -- the region is the shield
        for queue in self.feeds:
            queue.fed(service.name)

    def enlist(self, lifetime: Lifetime, name: str) -> None:
        """Count as consumers until they cannot be started again; the last close the books."""
        queue = self.queue  # and not itself, which may be made anew for each start

        def close_books() -> None:
            if queue.detach():
                accounts = str(queue.statistics())
                lifetime.bus.publish(events.WorkEnded(name, queue.name, accounts))

        if lifetime.at_end(name, id(queue), close_books):
            queue.attach()
            for fed in self.feeds:
                fed.feed(name)

    async def _offer_left(
        self, interrupted: list[T], on_left: Callable[[T], Awaitable[object]]
    ) -> None:
        """Give away what nobody will do any more.

        Raises:
            ExceptionGroup: of what `on_left` raised; all are offered nevertheless.

        Cancellation: at the deadline of the stop.
        """
        errors: list[Exception] = []
        while True:
            if interrupted:
                item = interrupted.pop(0)
            elif (job := self.queue.leave()) is not None:
                item = job.item
            else:
                break
            try:
                await on_left(item)
            except Exception as error:  # noqa: BLE001 -- raised below
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"on_left failed for items of queue {self.queue.name}", errors)
        await trio.lowlevel.checkpoint()

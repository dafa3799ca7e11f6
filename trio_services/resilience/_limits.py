"""Limits on how long a piece of work may take, how often it is done, and how many at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import attrs
import trio
from attrs import validators

from ..errors import BulkheadFull, TimedOut
from ._rate import Bucket, Rate

T = TypeVar("T")


class timeout:  # noqa: N801 -- reads as a verb: `with timeout(30.0):`
    """Cancel the block after some seconds and raise `TimedOut`.

    Unlike `trio.fail_after`, its error can be told from a time-out of the block's own.

    Args:
        seconds: how long the block may take; > 0.

    Cancellation: passes through untouched; only the block's own deadline raises `TimedOut`.
    """

    __slots__ = ("_scope", "seconds")

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"a time-out must be more than 0 s, not {seconds}")
        self.seconds: float = seconds
        self._scope = trio.CancelScope(relative_deadline=seconds)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        handled = bool(self._scope.__exit__(exc_type, exc, traceback))
        if self._scope.cancelled_caught:
            raise TimedOut(self.seconds) from exc  # which shows where the block was waiting
        return handled


class RateLimiter:
    """One rate at work among tasks, which get their turns in the order in which they came.

    Args:
        rate: how often one of them gets one.
    """

    __slots__ = ("_bucket", "_turn", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate: Rate = rate
        self._bucket = Bucket(rate)
        self._turn = trio.Lock()  # held by the first that waits, while the others queue for it

    def acquire_nowait(self) -> None:
        """Take a turn.

        Raises:
            trio.WouldBlock: there is none now, or others are waiting for it.
        """
        now = trio.current_time()
        if self._turn.locked() or self._bucket.due(now) > now:
            raise trio.WouldBlock
        self._bucket.take(now)

    async def acquire(self) -> None:
        """Take a turn, as soon as there is one.

        Cancellation: one who is cancelled has taken none.
        """
        async with self._turn:
            now = trio.current_time()
            due = self._bucket.due(now)
            if due > now:
                await trio.sleep_until(due)
            # When it was due and not now, or what tasks oversleep would add up.
            self._bucket.take(due)

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """What `function(*args)` returns, which is called when it has its turn."""
        await self.acquire()
        return await function(*args)


@attrs.frozen
class Bulkhead:
    """At most so many at the same time, so that one flood does not sink the whole ship.

    Args:
        limit: how many may be at work; ≥ 1.
        waiting: how many more may wait for a place; ≥ 0. Whoever comes then is refused.
    """

    limit: int = attrs.field(validator=[validators.instance_of(int), validators.ge(1)])
    waiting: int = attrs.field(default=0, validator=[validators.instance_of(int), validators.ge(0)])


class Compartment:
    """One bulkhead at work: the places behind it, given out in the order of asking.

    Args:
        bulkhead: how many there are.
    """

    __slots__ = ("_places", "bulkhead")

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.bulkhead: Bulkhead = bulkhead
        self._places = trio.Semaphore(bulkhead.limit)

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """What `function(*args)` returns, which is called when there is a place for it.

        Raises:
            BulkheadFull: there is none, and enough others wait already.
        """
        waiting = self._places.statistics().tasks_waiting
        if not self._places.value and waiting >= self.bulkhead.waiting:
            raise BulkheadFull(self.bulkhead.limit, self.bulkhead.waiting)
        async with self._places:
            return await function(*args)

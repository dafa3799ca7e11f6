"""Trying again: which errors are worth it, how often, and after how long."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import trio
from attrs import validators

from ._backoff import Backoff

T = TypeVar("T")

Transient = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors may pass by themselves: exception types, or a predicate."""


@attrs.frozen
class Retry:
    """Repeat what failed for a transient reason.

    Args:
        attempts: how often to try in all, the first included; ≥ 1.
        backoff: the delays between attempts.
        on: which errors are transient. Any other error is final at its first occurrence.
    """

    attempts: int = attrs.field(
        default=5, validator=[validators.instance_of(int), validators.ge(1)]
    )
    backoff: Backoff = attrs.field(factory=Backoff)
    on: Transient = Exception

    def delay(
        self, attempt: int, error: Exception, draw: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after a failed attempt (the first is 1), or None: do not try again."""
        if attempt >= self.attempts or not is_transient(error, self.on):
            return None
        return self.backoff.delay(attempt, draw)

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """What `function(*args)` returns, at the first attempt that succeeds.

        Raises: what the last attempt raised.

        Cancellation: at any time, also between attempts; it is never taken for a failure.
        """
        attempt = 1
        while True:
            try:
                return await function(*args)
            except Exception as error:
                delay = self.delay(attempt, error)
                if delay is None:
                    raise
            # Outside the handler, so that a past attempt's traceback is not kept alive meanwhile.
            await trio.sleep(delay)
            attempt += 1


def is_transient(error: Exception, on: Transient) -> bool:
    """Whether an error is one of those that may pass."""
    return isinstance(error, on) if isinstance(on, (type, tuple)) else on(error)

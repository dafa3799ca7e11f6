"""What takes the place of what failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs

from ._retry import Transient, is_transient

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class Fallback(Generic[T]):
    """Go on without what failed.

    Args:
        instead: ``async def instead(error)``, which returns what is used instead.
        on: which errors are replaced. All others are raised.
    """

    instead: Callable[[Exception], Awaitable[T]]
    on: Transient = Exception

    async def call(self, function: Callable[..., Awaitable[U]], *args: object) -> U | T:
        """What `function(*args)` returns, or what is used instead.

        Raises: what `function` raised, if that is not to be replaced; what `instead` raises.

        Cancellation: at any time; it is never taken for a failure.
        """
        try:
            return await function(*args)
        except Exception as raised:
            if not is_transient(raised, self.on):
                raise
            error = raised
        # Outside the handler, so that a failure of `instead` is not told as one within another.
        return await self.instead(error)

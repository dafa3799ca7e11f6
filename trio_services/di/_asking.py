"""How objects are asked for, in a scope of any length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio

from ._graph import Graph
from ._providers import Scope

T = TypeVar("T")


class OpenScope(ABC):
    """Somewhere to ask for objects.

    Args:
        graph: all providers.
        scope: how long it is open.
    """

    __slots__ = ("_graph", "_scope")

    def __init__(self, graph: Graph, scope: Scope) -> None:
        self._graph = graph
        self._scope = scope

    async def get(self, provided: type[T]) -> T:
        """The object of a type, made now if there is none yet.

        Raises:
            PlanError: there is no provider for it in this scope.
            InjectionError: it cannot be made here, or not any more.
            Exception: whatever its factory raises; it is tried again when it is asked for again.

        Cancellation: at any time.
        """
        await trio.lowlevel.checkpoint()
        self._graph.require(provided, self._scope)
        made: T = await self._get(provided)
        return made

    async def fill(self, function: Callable[..., T], given: int = 0) -> Callable[..., T]:
        """A function with the arguments that it asks for; itself if it asks for nothing.

        Args:
            function: what parameters it has whose types are provided, it gets by their names.
            given: how many positional arguments it will be called with; they come first.

        Raises: as `get` does.

        Cancellation: at any time.
        """
        await trio.lowlevel.checkpoint()
        asks = self._graph.asks(function, given, self._scope)
        if not asks:
            return function
        return partial(function, **{name: await self._get(asked) for name, asked in asks.items()})

    async def make(self, factory: Callable[..., T], *args: object) -> T:
        """What a class makes, or a plain function returns, with what it asks for after `args`.

        Raises, Cancellation: as `fill`.
        """
        filled = await self.fill(factory, len(args))
        return filled(*args)

    async def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """What an async function returns, with what it asks for after `args`.

        Raises, Cancellation: as `fill`, and those of the function.
        """
        filled = await self.fill(function, len(args))
        return await filled(*args)

    @abstractmethod
    async def _get(self, provided: Any) -> Any:
        """The object of a type that there is a provider for."""

"""Open scopes: where to ask for objects, and which task makes them.

Theory. What is entered must be left in the same task, or the cancel scopes and nurseries of a
provider would be torn apart. The objects of a service, and of a job, are made in the task that
opened the scope and will close it, by whoever asks there. Those of the HOST scope are asked for by
many tasks, none of which is there at its end; so a task of its own makes them one after another,
and disposes of them. What a JOB needs from longer scopes is made before any job comes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import attrs
import trio

from ..errors import InjectionError
from ..lifecycle import JobCall, set_aside_cancellations, single_errors_as_themselves
from ._asking import OpenScope
from ._contents import Contents, settle
from ._graph import Graph
from ._objects import Objects, host_objects
from ._providers import HOST, JOB, SERVICE, told

Values = Mapping[type[object], object]


class HostScope(OpenScope):
    """The objects of an application; any task inside of it may ask for them."""

    __slots__ = ("_asked", "_contents", "_error", "_left", "_objects", "_wishes", "dispose_within")

    def __init__(self, graph: Graph, values: Values | None, dispose_within: float) -> None:
        super().__init__(graph, HOST)
        self.dispose_within: float = dispose_within
        self._contents = Contents(values, dispose_within)
        self._objects = host_objects(graph, self._contents)
        self._asked, self._wishes = trio.open_memory_channel[_Wish](float("inf"))
        self._error: BaseException | None = None
        self._left = trio.Event()

    def check(self, *services: Callable[..., object], jobs: Iterable[JobCall] = ()) -> None:
        """See that all that these ask for can be provided; see `Container.check`."""
        self._graph.check(services, jobs)

    def open_service(self, values: Values | None = None) -> ServiceScope:
        """The scope of one run of a service: ``async with host.open_service() as service:``.

        Args:
            values: instances of types that the container was told to `expect`, by those types.
        """
        return ServiceScope(self, self._graph, self._objects, values)

    async def _get(self, provided: Any) -> Any:
        if self._contents.mine:  # asked for by a factory, which the others wait for
            return await self._objects.get(provided)
        wish = _Wish(provided)
        try:
            self._asked.send_nowait(wish)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise InjectionError(
                f"no {told(provided)} any more: the HOST scope is closed"
            ) from None
        await wish.granted.wait()
        error, wish.error = wish.error, None
        if error is None:
            return wish.object
        try:
            raise error
        finally:
            del error  # which would keep itself alive, by its traceback and this frame

    async def keep(self, nursery: trio.Nursery) -> None:
        """Make objects as they are asked for, until the scope is left; then dispose of them.

        Args:
            nursery: that of this task and of the work.

        Raises: what came out at the disposal, if it is not what the work has raised.

        Cancellation: by nothing, because the objects have to outlast those who use them.
        """
        self._contents.open(shield=True)
        failed: BaseException | None = None
        try:
            async for wish in self._wishes:
                await self._grant(wish)
                del wish
        except BaseException as raised:  # noqa: BLE001, ASYNC103 -- what is provided has failed
            _, cause = set_aside_cancellations(raised)
            if cause is not None or not self._left.is_set():  # else it was cut off at the end
                failed = raised
            self._wishes.close()
            nursery.cancel_scope.cancel()
            # Those who use it are going. They have their own deadlines.
            with trio.CancelScope(shield=True):
                await self._left.wait()
        _, cause = set_aside_cancellations(await self._contents.close(failed or self._error))
        _, raised_by_work = set_aside_cancellations(self._error)
        if cause is None and failed is not None:
            raise InjectionError("what was provided has ended by itself, without an error")
        if cause is not None and cause is not raised_by_work:
            raise cause

    async def _grant(self, wish: _Wish) -> None:
        try:
            wish.object = await self._objects.get(wish.provided)
        except BaseException as error:  # noqa: ASYNC103 -- it is raised where it was asked for
            if set_aside_cancellations(error)[0] is not None:
                raise
            wish.error = error
        wish.granted.set()

    def leave(self, error: BaseException | None) -> None:
        """The work is done; what is still being made has no more than the time for disposal."""
        self._error = error
        self._asked.close()
        self._contents.limit()
        self._left.set()


@attrs.define(eq=False)
class _Wish:
    """An object that somebody waits for."""

    provided: object
    object: object = None
    error: BaseException | None = None
    granted: trio.Event = attrs.Factory(trio.Event)


@asynccontextmanager
async def open_host_scope(
    graph: Graph, values: Values | None, dispose_within: float
) -> AsyncGenerator[HostScope, None]:
    """See `Container.open`."""
    scope = HostScope(graph, values, dispose_within)
    with single_errors_as_themselves():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scope.keep, nursery)
            try:
                yield scope
            except BaseException as error:
                scope.leave(error)
                raise
            else:
                scope.leave(None)


class ServiceScope(OpenScope):
    """The objects of one run of a service; the task that opens it asks for them."""

    __slots__ = ("_contents", "_host", "_made", "_objects", "dispose_within")

    def __init__(
        self, host: HostScope, graph: Graph, objects: Objects, values: Values | None
    ) -> None:
        super().__init__(graph, SERVICE)
        self.dispose_within: float = host.dispose_within
        self._host = host
        self._contents = Contents(values, host.dispose_within)
        self._objects = objects.inner(SERVICE, self._contents)
        self._made: set[object] = set()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._contents.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        came_out = await self._contents.close(error)  # noqa: ASYNC102 -- it shields itself
        _raise(settle(error, came_out), error)

    def open_job(self, values: Values | None = None) -> JobScope:
        """The scope of one attempt at a job: ``async with service.open_job() as job:``.

        Args:
            values: instances of types that the container was told to `expect`, by those types.
        """
        return JobScope(self, self._graph, self._objects, values)

    async def bind(
        self, function: Callable[..., Awaitable[object]], given: int
    ) -> Callable[..., Awaitable[object]]:
        """What to call for each job, from any task of the service, instead of a function.

        Each call is made in a JOB scope of its own, which sees how it ends. What all of them share
        is made now. A function that asks for nothing is itself returned, and one that asks only for
        what lives longer than a job is called without a scope.

        Args, Raises, Cancellation: as `fill`.
        """
        await trio.lowlevel.checkpoint()
        shared: dict[str, object] = {}
        per_job: list[tuple[str, object]] = []
        for name, asked in self._graph.asks(function, given, JOB).items():
            if self._graph.scope_of(asked) is JOB:
                per_job.append((name, asked))
                for one in self._graph.needed(asked):
                    if self._graph.scope_of(one) is not JOB:
                        await self._get(one)
            else:
                shared[name] = await self._get(asked)
        if not per_job:
            return partial(function, **shared) if shared else function

        async def call_in_scope(*args: object) -> object:
            async with JobScope(self, self._graph, self._objects, None) as job:
                made = {name: await job.objects.get(asked) for name, asked in per_job}
                return await function(*args, **shared, **made)

        return call_in_scope

    async def _get(self, provided: Any) -> Any:
        if self._graph.scope_of(provided) is HOST:
            return await self._host._get(provided)
        if provided not in self._made:
            if not self._contents.mine:
                raise _elsewhere(provided, "service")
            needed = self._graph.needed(provided)
            for one in needed:
                if self._graph.scope_of(one) is HOST:
                    await self._host._get(one)
            await self._objects.get(provided)
            self._made.update(needed)
        return await self._objects.get(provided)


class JobScope(OpenScope):
    """The objects of one attempt at a job; the task that opens it asks for them."""

    __slots__ = ("_contents", "_service", "objects")

    def __init__(
        self, service: ServiceScope, graph: Graph, objects: Objects, values: Values | None
    ) -> None:
        super().__init__(graph, JOB)
        self._service = service
        self._contents = Contents(values, service.dispose_within)
        self.objects: Objects = objects.inner(JOB, self._contents)

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._contents.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        came_out = await self._contents.close(error)  # noqa: ASYNC102 -- it shields itself
        _raise(settle(error, came_out), error)

    async def _get(self, provided: Any) -> Any:
        if not self._contents.mine:
            raise _elsewhere(provided, "job")
        for one in self._graph.needed(provided):
            if self._graph.scope_of(one) < JOB:
                await self._service._get(one)
        return await self.objects.get(provided)


def _elsewhere(provided: object, scope: str) -> InjectionError:
    return InjectionError(
        f"{told(provided)} was asked for by another task than that of the {scope}, which has to "
        f"make it and to dispose of it; ask for it there, and pass it on"
    )


def _raise(came_out: BaseException | None, error: BaseException | None) -> None:
    """Raise what came out of a scope, unless it is what the work has raised, which goes on."""
    if came_out is None or came_out is error:
        return
    context = came_out.__context__
    try:
        raise came_out
    finally:
        came_out.__context__ = context  # and not what is being handled here
        del came_out, error, context

"""The providers of an application."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, cast

from ..errors import PlanError
from ..lifecycle import JobCall
from ._graph import Graph
from ._providers import HOST, JOB, SERVICE, Kind, Provider, Scope, provider_of, told
from ._scopes import HostScope, Values, open_host_scope


class Container:
    """What services and jobs may ask for by the types of their parameters.

    ::

        @asynccontextmanager
        async def transaction(pool: Pool) -> AsyncIterator[Transaction]:
            async with pool.transaction() as opened:
                yield opened

        container = Container()
        container.provide(Pool)
        container.provide(transaction, scope=JOB)

        run(tree, container=container)

    Objects are made when they are first asked for, one for each scope. At the end of the scope what
    was entered is left, the last first, as if the work stood inside of nested `async with` blocks;
    but shielded from cancellation, and no provider can swallow an error.

    Args:
        dispose_within: seconds that the disposal of one scope may take; ≥ 0. What is not done by
            then is cancelled, and told as a `DisposalTimeout`.
    """

    def __init__(self, *, dispose_within: float = 5.0) -> None:
        self.dispose_within: float = dispose_within
        self._providers: dict[object, Provider] = {}

    def provide(self, factory: Callable[..., object], *, scope: Scope = HOST) -> None:
        """Have objects made by a class or a function; what it asks for itself is provided too.

        Args:
            factory: a class, which provides itself; a function, async or not, which provides the
                type that it returns; or one with ``@asynccontextmanager`` or ``@contextmanager``,
                which provides what it yields.
            scope: how long an object lives, and who shares it.

        Raises:
            PlanError: it is none of that, or something else provides the same type.
        """
        self._add(provider_of(factory, scope))

    def provide_value(self, value: object, as_type: type[object] | None = None) -> None:
        """Provide an object that is there already; nobody disposes of it.

        Args:
            value: the object.
            as_type: what it is asked for as. Default: its class.

        Raises:
            PlanError: something else provides the same type.
        """
        self._add(_value(value, type(value) if as_type is None else as_type, HOST))

    def expect(self, provided: type[object], *, scope: Scope) -> None:
        """Provide what a scope is opened with: ``host.open_service({Options: options})``.

        Raises:
            PlanError: something else provides the same type.
        """
        self._add(Provider(provided, scope, Kind.GIVEN, lambda: None))

    def override(self, provided: object, replacement: object) -> Container:
        """A container like this one, but for what provides one type; for tests.

        Args:
            provided: the type, or the class or function that provides it here.
            replacement: a class or function that takes its place, or any other object to be
                provided as it is.

        Raises:
            PlanError: nothing provides it here.
        """
        for provider in self._providers.values():
            if provided in (provider.type, provider.factory):
                break
        else:
            raise PlanError(f"nothing provides {told(provided)} that could be overridden")
        container = Container(dispose_within=self.dispose_within)
        container._providers = dict(self._providers)
        is_partial = isinstance(replacement, partial)
        if is_partial or inspect.isclass(replacement) or inspect.isroutine(replacement):
            factory = cast("Callable[..., object]", replacement)
            other = provider_of(factory, provider.scope, provider.type)
        else:
            other = _value(replacement, provider.type, provider.scope)
        container._providers[provider.type] = other
        return container

    def with_default(self, factory: Callable[..., object], *, scope: Scope = HOST) -> Container:
        """A container like this one, which has a factory's objects made if nothing else does.

        Args, Raises: see `provide`.
        """
        provider = provider_of(factory, scope)
        container = Container(dispose_within=self.dispose_within)
        container._providers = {provider.type: provider, **self._providers}
        return container

    def check(self, *services: Callable[..., object], jobs: Iterable[JobCall] = ()) -> None:
        """See that all that is asked for can be provided; nothing is made.

        Args:
            services: classes and functions that get what they ask for at each start of a service.
            jobs: functions that are called for each job, and with how many arguments beside what
                they ask for: ``[(send_invoice, 1)]``.

        Raises:
            PlanError: with a line for each problem.
        """
        Graph(self._providers).check(services, jobs)

    def needed_by(
        self, *services: Callable[..., object], jobs: Iterable[JobCall] = ()
    ) -> list[type[object]]:
        """All types of which objects are made for these, each before what it needs itself.

        Args: see `check`, which has nothing to say of them.
        """
        graph = Graph(self._providers)
        calls = [*((service, 0, SERVICE) for service in services)]
        calls += [(function, given, JOB) for function, given in jobs]
        found: dict[Any, None] = {}
        for function, given, scope in calls:
            for asked in graph.asks(function, given, scope).values():
                found |= dict.fromkeys(graph.needed(asked))
        return list(found)

    @property
    def expected(self) -> frozenset[type[object]]:
        """The types that it was told to `expect` for each run of a service."""
        found: list[Any] = [
            provider.type
            for provider in self._providers.values()
            if provider.kind is Kind.GIVEN and provider.scope is SERVICE
        ]
        return frozenset(found)

    def open(self, values: Values | None = None) -> AbstractAsyncContextManager[HostScope]:
        """The HOST scope: ``async with container.open() as host:``.

        What is provided to this container later is not known there. If a task that runs inside of
        what was provided fails, the block is cancelled, and the error is raised.

        Args:
            values: instances of types that it was told to `expect`, by those types.

        Raises:
            PlanError: what is provided here cannot be; see `check`.

        Cancellation: of the block; the disposal is shielded from it.
        """
        graph = Graph(self._providers)
        graph.check((), ())
        return open_host_scope(graph, values, self.dispose_within)

    def _add(self, provider: Provider) -> None:
        if provider.type in self._providers:
            raise PlanError(
                f"{provider.name} is provided twice; leave one out, or override it in tests"
            )
        self._providers[provider.type] = provider


def _value(value: object, provided: object, scope: Scope) -> Provider:
    return Provider(provided, scope, Kind.CALL, lambda: value)

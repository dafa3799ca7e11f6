"""Whether all that is asked for can be provided, and what of it lives longer. Pure.

Theory: providers ask for what others provide, so they are a graph. An object may hold only what
lives at least as long as itself; one that holds something shorter (a *captive* dependency) would
go on using it after its end. And the graph has no cycles, or there would be no first object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..errors import PlanError
from ._providers import JOB, SERVICE, Ask, Provider, Scope, asks_of, told


class Graph:
    """Providers by the types that they provide, as they are now."""

    def __init__(self, providers: Mapping[object, Provider]) -> None:
        self.providers: Mapping[object, Provider] = dict(providers)
        self._needed: dict[object, Sequence[object]] = {}

    def check(
        self,
        services: Iterable[Callable[..., object]],
        jobs: Iterable[tuple[Callable[..., object], int]],
    ) -> None:
        """See that all of it, and these callables, can be provided.

        Raises:
            PlanError: with a line for each problem.
        """
        problems: list[str] = []
        for provider in self.providers.values():
            problems += self._problems(provider.name, provider.scope, provider.asks)
        problems += self._cycles()
        calls = [(service, 0, SERVICE) for service in services]
        calls += [(job, given, JOB) for job, given in jobs]
        for function, given, scope in calls:
            try:
                problems += self._problems(told(function), scope, asks_of(function, given))
            except PlanError as error:
                problems.append(str(error))
        if problems:
            raise PlanError("\n".join(dict.fromkeys(problems)))

    def asks(
        self, function: Callable[..., object], given: int, scope: Scope
    ) -> Mapping[str, object]:
        """The types that a callable gets by the names of its parameters.

        Raises:
            PlanError: one cannot be provided in that scope.
        """
        asks = asks_of(function, given)
        problems = list(self._problems(told(function), scope, asks))
        if problems:
            raise PlanError("\n".join(problems))
        return self.provided(asks)

    def provided(self, asks: Iterable[Ask]) -> Mapping[str, object]:
        """Those of the types asked for that there are providers of, by parameter."""
        return {ask.name: ask.type for ask in asks if ask.type in self.providers}

    def needed(self, provided: object) -> Sequence[object]:
        """All types that are made to provide one, itself included."""
        if provided not in self._needed:
            found: dict[object, None] = {}
            todo = [provided]
            while todo:
                wanted = todo.pop()
                if wanted not in found:
                    found[wanted] = None
                    todo += self.provided(self.providers[wanted].asks).values()
            self._needed[provided] = tuple(found)
        return self._needed[provided]

    def scope_of(self, provided: object) -> Scope:
        """How long the object of a type lives."""
        return self.providers[provided].scope

    def require(self, provided: object, scope: Scope) -> None:
        """See that a type can be asked for in a scope.

        Raises:
            PlanError: it cannot.
        """
        for problem in self._problems(f"a {scope.name} scope", scope, [Ask("", provided, True)]):
            raise PlanError(problem)

    def _problems(self, who: str, scope: Scope, asks: Iterable[Ask]) -> Iterator[str]:
        for ask in asks:
            provider = self.providers.get(ask.type)
            asked = told(ask.type)
            if provider is None:
                if ask.required:
                    yield (
                        f"no provider for {asked} (asked by {who}); add "
                        f"container.provide({asked}, …){self._hint(ask.type)}"
                    )
            elif provider.scope > scope:
                yield (
                    f"{asked} lives for one {provider.scope.name}, and {who} asks for it in a "
                    f"{scope.name} scope; "
                    f"provide {asked} with scope={scope.name}, or ask for it where it lives"
                )

    def _hint(self, asked: object) -> str:
        """A provider that is near to what was asked for."""
        for other in self.providers:
            if inspect.isclass(asked) and inspect.isclass(other) and issubclass(other, asked):
                return (
                    f" or, since {told(other)} is one, annotate what provides that as "
                    f"returning {told(asked)}"
                )
        return ""

    def _cycles(self) -> Iterator[str]:
        """Each cycle once; a depth-first search that meets a provider that it is still in."""
        done: set[object] = set()
        for start in self.providers:
            path: dict[object, Iterator[object]] = {}
            if start not in done:
                path[start] = self._asked_by(start)
            while path:
                last = next(reversed(path))
                wanted = next(path[last], None)
                if wanted is None:
                    done.add(last)
                    del path[last]
                elif wanted in path:
                    cycle = [*list(path)[list(path).index(wanted) :], wanted]
                    yield (
                        "each of these asks for the next: "
                        + " → ".join(told(one) for one in cycle)
                        + "; let one of them do without"
                    )
                elif wanted not in done:
                    path[wanted] = self._asked_by(wanted)

    def _asked_by(self, provided: object) -> Iterator[object]:
        return iter(self.provided(self.providers[provided].asks).values())

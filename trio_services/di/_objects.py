"""The objects of a scope, each made when it is first asked for; dishka does that.

Two of its ways are not ours. It would leave context managers by sending them the error of the
work as a value, which commits the transaction of a failed job; so it sees only functions here, and
what they enter is kept in the scope's `Contents`. And it would take a lock for each object, which
costs more than making it; ours are made in the one task that their scope belongs to, so that none
is made twice.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, NewType

from dishka import AsyncContainer, BaseScope, Provider as Dishka, make_async_container, new_scope

from ..errors import InjectionError
from ._contents import Contents
from ._graph import Graph
from ._providers import Kind, Provider, Scope


class _Scopes(BaseScope):
    HOST = new_scope("HOST")
    SERVICE = new_scope("SERVICE")
    JOB = new_scope("JOB")


# The contents of each scope, by types of their own for dishka to tell them apart.
_CONTENTS: Any = (
    NewType("HostContents", Contents),
    NewType("ServiceContents", Contents),
    NewType("JobContents", Contents),
)
_OURS = "_contents"  # the parameter for them


class Objects:
    """The objects of one scope, and through it those of the longer ones around it."""

    __slots__ = ("_container",)

    def __init__(self, container: AsyncContainer) -> None:
        self._container = container

    async def get(self, provided: Any) -> Any:
        """The object of a type, made now if there is none yet.

        Raises: whatever its factory, or that of something it needs, does.
        """
        return await self._container.get(provided)

    def inner(self, scope: Scope, contents: Contents) -> Objects:
        """Those of a new scope, the next shorter one."""
        return Objects(self._container({_CONTENTS[scope]: contents}))


def host_objects(graph: Graph, contents: Contents) -> Objects:
    """Those of a new HOST scope."""
    source = Dishka()
    for scope, key in zip(_Scopes, _CONTENTS, strict=True):
        source.from_context(provides=key, scope=scope)
    for provider in graph.providers.values():
        scope = list(_Scopes)[provider.scope]
        source.provide(_recipe(graph, provider), provides=provider.type, scope=scope)
    container = make_async_container(
        source,
        scopes=_Scopes,
        context={_CONTENTS[0]: contents},
        lock_factory=None,
        skip_validation=True,  # ours tells all problems at once, and what to do
    )
    return Objects(container)


def _recipe(graph: Graph, provider: Provider) -> Callable[..., object]:
    """A function that makes an object, with a signature that dishka can read."""
    types = dict(graph.provided(provider.asks))
    kind = Parameter.KEYWORD_ONLY
    parameters = [Parameter(name, kind, annotation=asked) for name, asked in types.items()]
    if provider.kind not in (Kind.CALL, Kind.AWAIT):
        types[_OURS] = _CONTENTS[provider.scope]
        ours = Parameter(_OURS, Parameter.POSITIONAL_ONLY, annotation=types[_OURS])
        parameters.insert(0, ours)
    recipe = _bare_recipe(provider)
    vars(recipe)["__signature__"] = Signature(parameters)
    recipe.__annotations__ = types
    return recipe


def _bare_recipe(provider: Provider) -> Callable[..., object]:
    factory: Callable[..., Any] = provider.factory
    name = provider.name
    provided: Any = provider.type

    def call(**asked: object) -> object:
        return factory(**asked)

    async def wait(**asked: object) -> object:
        return await factory(**asked)

    def enter(contents: Contents, /, **asked: object) -> object:
        return contents.enter(name, factory(**asked))

    async def enter_async(contents: Contents, /, **asked: object) -> object:
        return await contents.enter_async(name, factory(**asked))

    def look_up(contents: Contents, /) -> object:
        try:
            return contents.values[provided]
        except KeyError:
            raise InjectionError(
                f"no {name} was given when the {provider.scope.name} scope was opened"
            ) from None

    match provider.kind:
        case Kind.CALL:
            return call
        case Kind.AWAIT:
            return wait
        case Kind.ENTER:
            return enter
        case Kind.ENTER_ASYNC:
            return enter_async
        case Kind.GIVEN:
            return look_up

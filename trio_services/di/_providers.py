"""What provides an object, and what a callable asks for: read from signatures. Pure."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import Enum, IntEnum
from functools import partial
from typing import Any, cast, get_args, get_origin, get_type_hints

import attrs

from ..errors import PlanError


class Scope(IntEnum):
    """How long an object lives; a longer scope comes before a shorter one."""

    HOST = 0
    """As long as the application; all share it."""
    SERVICE = 1
    """For one run of a service: a restart gets a fresh one."""
    JOB = 2
    """For one attempt at a job."""


HOST, SERVICE, JOB = Scope

Factory = Callable[..., object]


class Kind(Enum):
    """How a provider comes by its object."""

    CALL = "by a call"
    AWAIT = "by an awaited call"
    ENTER = "by entering a context manager"
    ENTER_ASYNC = "by entering an async context manager"
    GIVEN = "it is given when the scope is opened"


@attrs.frozen
class Ask:
    """A parameter that an object of a type may be passed for."""

    name: str
    type: object
    required: bool


@attrs.frozen
class Provider:
    """Where objects of a type come from.

    Args:
        type: what it provides.
        scope: how long an object lives.
        kind: how it is made.
        factory: what makes it.
        asks: the parameters of the factory.
    """

    type: object
    scope: Scope
    kind: Kind
    factory: Factory
    asks: Sequence[Ask] = ()

    @property
    def name(self) -> str:
        """What it goes by in messages."""
        return told(self.type)


def provider_of(factory: Factory, scope: Scope, provided: object = None) -> Provider:
    """The provider that a class or function is.

    Args:
        factory: it.
        scope: how long its objects live.
        provided: their type. Default: the class, or what the function returns or yields.

    Raises:
        PlanError: it cannot be one.
    """
    name = told(factory)
    if inspect.isclass(factory):
        made = factory if provided is None else provided
        return Provider(made, scope, Kind.CALL, factory, asks_of(factory))
    if inspect.isasyncgenfunction(factory) or inspect.isgeneratorfunction(factory):
        wanted = "asynccontextmanager" if inspect.isasyncgenfunction(factory) else "contextmanager"
        raise PlanError(f"{name} is a generator; decorate it with @{wanted}")
    if not callable(factory):
        raise PlanError(f"{name} is neither a class nor a function; use container.provide_value")
    returned = _hints(factory).get("return")
    origin = get_origin(returned)
    kind = Kind.AWAIT if inspect.iscoroutinefunction(factory) else Kind.CALL
    inner = inspect.unwrap(factory)
    if inspect.isasyncgenfunction(inner) or origin is AbstractAsyncContextManager:
        kind = Kind.ENTER_ASYNC
    elif inspect.isgeneratorfunction(inner) or origin is AbstractContextManager:
        kind = Kind.ENTER
    if provided is None and kind in (Kind.ENTER, Kind.ENTER_ASYNC):
        provided = get_args(returned)[0] if origin in _YIELDING else None
    elif provided is None:
        provided = returned
    if provided in (None, type(None)):
        raise PlanError(f"{name} does not say what it provides; annotate what it returns")
    return Provider(provided, scope, kind, factory, asks_of(factory))


_YIELDING = (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncGenerator,
    AsyncIterator,
    Generator,
    Iterator,
)


def asks_of(function: Factory, given: int = 0) -> Sequence[Ask]:
    """What a callable may be passed beside its first positional arguments.

    Args:
        function: a class or function, or a partial of one.
        given: how many arguments it gets anyway.

    Raises:
        PlanError: a parameter that has to be passed cannot be told by its type.
    """
    bound = cast("partial[object]", function).keywords if _is_partial(function) else {}
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return ()
    asked = [
        parameter
        for parameter in parameters[given:]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        # Trio's, for services; what a partial has bound is decided.
        and parameter.name != "task_status"
        and parameter.name not in bound
    ]
    needed = [parameter for parameter in asked if parameter.default is parameter.empty]
    try:
        hints = _hints(function)
    except PlanError:
        if needed:
            raise
        return ()  # what nobody can know has its default
    for parameter in needed:
        if parameter.name not in hints:
            raise PlanError(
                f"parameter {parameter.name!r} of {told(function)} has no type to provide it by; "
                "annotate it, or give it a default"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise PlanError(
                f"parameter {parameter.name!r} of {told(function)} is positional-only, and is "
                "passed by name; take the '/' away"
            )
    return tuple(
        Ask(parameter.name, hints[parameter.name], parameter in needed)
        for parameter in asked
        if parameter.name in hints and parameter.kind is not parameter.POSITIONAL_ONLY
    )


def told(thing: object) -> str:
    """What a type or function goes by in messages."""
    if _is_partial(thing):
        return told(cast("partial[object]", thing).func)
    if get_origin(thing) is None:
        name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
        if isinstance(name, str):
            return name.rpartition("<locals>.")[2]
    return repr(thing)


def _is_partial(thing: object) -> bool:
    return isinstance(thing, partial)


def _hints(function: Factory) -> Mapping[str, Any]:
    """The types of parameters, and of what is returned, by name."""
    while _is_partial(function):
        function = cast("partial[object]", function).func
    try:
        if not inspect.isclass(function):
            is_instance = not (inspect.isroutine(function) or hasattr(function, "__wrapped__"))
            return get_type_hints(type(function).__call__ if is_instance else function)
        # What is generated for fields is looked up at the class: text in its annotations can be
        # resolved only there.
        if attrs.has(function):
            types = get_type_hints(function)
            fields = {field.alias or "": types[field.name] for field in attrs.fields(function)}
        elif dataclasses.is_dataclass(function):
            fields = get_type_hints(function)
        else:
            return get_type_hints(function.__init__)
        written = inspect.signature(function).parameters
        if set(written) <= set(fields):
            return fields
        return get_type_hints(function.__init__)  # its own, and not a generated one
    except Exception as error:  # what annotations hold is evaluated here, and may raise anything
        raise PlanError(f"the annotations of {told(function)} do not resolve: {error}") from error

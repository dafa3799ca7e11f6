"""The container that a configuration names, and the options that code gets from it by their class.

Theory. Several services may have options of one class, with other values each. So a class that the
container was told to `expect` is provided for each run of a service by what knows all parts, and
looks for the one that the calling task belongs to. A reload gives it other parts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from ..errors import InjectionError, PlanError
from ..host import with_logger
from ..lifecycle import JobCall, current_service
from ..services import AnyService, Service, factory_of
from ..supervision import check_injection
from ._arguments import Supplies
from ._code import CodeError
from ._reference import CodeReference
from ._types import is_class

if TYPE_CHECKING:
    from ..di import Container
    from ..pg import Pool


class Injected(Protocol):
    """A part of an application."""

    @property
    def injected(self) -> Mapping[type[object], object]:
        """Its options by their classes."""
        ...


@attrs.define
class Injection:
    """What gives the code of an application what it asks for by type.

    Args:
        declared: the container that the file names.
        pool: of connections to the database; None if there is none.

    Attributes:
        container: the same, with the options of each service, and for each job a transaction.
        parts: those that run, or are to run, by name.
    """

    declared: Container
    pool: Pool | None
    container: Container = attrs.field(init=False)
    parts: Mapping[str, Injected] = attrs.field(factory=dict[str, Injected], init=False)

    def __attrs_post_init__(self) -> None:
        container = with_logger(self.declared)
        for kind in self.declared.expected:
            if is_class(kind):
                container = container.override(kind, partial(self._options_of_caller, kind))
        if self.pool is not None:
            from ..pg._provide import with_pool

            container = with_pool(container, self.pool)
        self.container = container

    @classmethod
    def of(cls, code: object, reference: CodeReference, pool: Pool | None) -> Injection:
        """That of the container which a reference names.

        Raises:
            CodeError: it is none.
        """
        from ..di import Container  # slow to import: only for who needs it

        if not isinstance(code, Container):
            raise CodeError(f"{reference} is no Container; expected `container = Container()`")
        return cls(code, pool)

    def check(self) -> None:
        """See that all that is provided can be.

        Raises:
            PlanError: with a line for each problem.
        """
        self.container.check()

    def options(self, service: AnyService, supplies: Supplies) -> Mapping[type[object], object]:
        """The options that something asks for by their class which a service needs.

        Raises:
            PlanError: something that it, or a job of it, asks for cannot be provided; with a line
                for each problem.
            StructureError: its table's options do not fit.
        """
        known: list[str] = []
        try:
            self.check()
        except PlanError as error:
            known = str(error).splitlines()
        try:
            check_injection(self.container, [service])
        except PlanError as error:
            own = [line for line in str(error).splitlines() if line not in known]
            if own:
                raise PlanError("\n".join(own)) from error
        if known:
            return {}
        calls, jobs = calls_of(service)
        needed = set(self.container.needed_by(*calls, jobs=jobs))
        kinds = [kind for kind in self.declared.expected if is_class(kind) and kind in needed]
        return {kind: supplies.of_type(kind) for kind in kinds}

    def needs(self, service: AnyService) -> list[type[object]]:
        """All types of which objects are made for a service and its jobs."""
        calls, jobs = calls_of(service)
        return self.container.needed_by(*calls, jobs=jobs)

    def needs_pool(self, service: AnyService) -> bool:
        """Whether something that is made for a service or its jobs needs the database."""
        return self.pool is not None and type(self.pool) in self.needs(service)

    def _options_of_caller(self, kind: type[object]) -> object:
        path = current_service().name
        _, _, below = path.partition("/")
        part = self.parts.get(below.partition("/")[0])
        if part is None or kind not in part.injected:
            raise InjectionError(f"the configuration has no {kind.__qualname__} for {path}")
        return part.injected[kind]


def calls_of(service: AnyService) -> tuple[list[Callable[..., object]], list[JobCall]]:
    """What is called, with what it asks for, at each start of a service and for each job of it."""
    call = factory_of(service)
    if call is not None:
        return [call], []
    return [], list(service.job_calls()) if isinstance(service, Service) else []


def without_asks(function: Callable[..., Any], given: int) -> Callable[..., Any]:
    """A function as whoever calls it sees it: what it asks for beside what it is given, it has."""
    asked = list(inspect.signature(function).parameters.values())[given:]
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [one.name for one in asked if one.default is one.empty and one.kind not in starred]
    return partial(function, **dict.fromkeys(names)) if names else function

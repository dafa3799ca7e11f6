"""One service of a supervisor, and its policy."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Literal, cast

import attrs
from attrs import validators

from ..errors import PlanError
from ..resilience import Backoff, Breaker
from ..services import AnyService, Service, name_of

Restart = Literal["always", "on_failure", "never"]


def names(after: str | Iterable[str]) -> tuple[str, ...]:
    """What a service comes `after`, given as one name or several."""
    return (after,) if isinstance(after, str) else tuple(dict.fromkeys(after))


def _is_service(instance: object, attribute: object, value: AnyService) -> None:
    if not isinstance(value, Service) and not callable(cast(object, value)):
        raise PlanError(
            f"{value!r} is not a service: give a Service, a @service value or an async function "
            "(the function itself, not its call)"
        )
    if inspect.isasyncgenfunction(getattr(value, "run", value)):
        raise PlanError(f"{value!r} is not a service: it yields, so nobody can await it")


def is_name(instance: object, attribute: object, value: str) -> None:
    """Refuse what cannot be a part of a path."""
    if not value or "/" in value or not value.isprintable():
        raise PlanError(f"{value!r} is no name for a service: it must be text without '/'")


@attrs.frozen
class Child:
    """One service of a supervisor, and its policy; None means the supervisor's default.

    Args:
        service: what to run. Given a class or another factory, each start gets a fresh instance.
        name: its name among its siblings. Default: the name of the class or function.
        after: the siblings that have to be ready before it starts, and that stop after it.
        restart: ``"on_failure"`` (default), ``"always"``: also when it returns, or ``"never"``.
        backoff: the delays before restarts.
        breaker: leaves it alone for a while when it fails too often; its failures do not count
            toward `max_restarts` then. Default: none.
        start_within: seconds it may take to become ready; > 0. Default 30; for a supervisor at
            least what its children need in the worst case.
        stop_within: seconds it has at a stop for what it has in hand; ≥ 0. Default 10; for a
            supervisor what its children need in the worst case.
        stale_after: seconds after which it is unhealthy, unless it calls
            ``current_service().progress()`` meanwhile; > 0. Default: never.
        critical: whether the supervisor gives up when it fails for good, by ``restart="never"`` or
            its breaker's `give_up_after`. If not, it stays down, and the rest runs on without it.
            What it is restarted for counts toward `max_restarts` either way.
        retry_start: whether a failure before it was ready for the first time is like any other. If
            not, it is not started again after one. Default True.
    """

    service: AnyService = attrs.field(validator=_is_service)
    name: str = attrs.field(
        default=attrs.Factory(lambda self: name_of(self.service), takes_self=True),
        kw_only=True,
        validator=[validators.instance_of(str), is_name],
    )
    after: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=names)
    restart: Restart | None = attrs.field(
        default=None,
        kw_only=True,
        validator=validators.optional(validators.in_(("always", "on_failure", "never"))),
    )
    backoff: Backoff | None = attrs.field(
        default=None,
        kw_only=True,
        validator=validators.optional(validators.instance_of(Backoff)),
    )
    breaker: Breaker | None = attrs.field(
        default=None,
        kw_only=True,
        validator=validators.optional(validators.instance_of(Breaker)),
    )
    start_within: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.gt(0))
    )
    stop_within: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.ge(0))
    )
    stale_after: float | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.gt(0))
    )
    critical: bool = attrs.field(default=True, kw_only=True)
    retry_start: bool = attrs.field(default=True, kw_only=True)

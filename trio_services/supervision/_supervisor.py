"""The value that a tree of services is written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import trio
from attrs import validators

from ..lifecycle import Lifetime, current_service
from ..resilience import Backoff, Breaker
from ..services import AnyService, Service
from ._child import Child, Restart, is_name, names
from ._plan import (
    Strategy,
    check_children,
    dependencies,
    longest_path,
    longest_start,
    stop_within,
)
from ._record import Record
from ._restarts import Limit
from ._supervision import Supervision


def _children(given: Iterable[Child | AnyService]) -> tuple[Child, ...]:
    return tuple(as_child(one) for one in given)


def as_child(given: Child | AnyService) -> Child:
    """The child that is meant by what a user wrote in its place."""
    child = given if isinstance(given, Child) else Child(given)
    if isinstance(child.service, Supervisor) and child.service.after:
        return attrs.evolve(child, after=(*child.service.after, *child.after))
    return child


def _graph(supervisor: Supervisor) -> Mapping[str, tuple[str, ...]]:
    check_children(supervisor.name, supervisor.children, supervisor.strategy)
    return dependencies(supervisor.children, supervisor.strategy)


def _worst_start(supervisor: Supervisor) -> float:
    default = supervisor.start_within
    within = {child.name: longest_start(child, default) for child in supervisor.children}
    return longest_path(within, supervisor.graph)


def _worst_stop(supervisor: Supervisor) -> float:
    default = supervisor.stop_within
    within = {child.name: stop_within(child, default) for child in supervisor.children}
    return longest_path(within, supervisor.graph)


@attrs.frozen
class Supervisor(Service):
    """Keeps its children running: starts, restarts and stops them; a service itself.

    Children start concurrently, but for those that come `after` others, and stop in the reverse
    order. A child starts, for the first time or again, once those that it comes after are ready.

    Args:
        name: its name among its siblings, and the first part of its children's paths.
        children: `Child` values, or services with the policy below.
        strategy: who is stopped and started again when a child is: ``"one_for_one"``, nobody
            else; ``"one_for_all"``, all others; ``"rest_for_one"``, those after it in the list,
            each of which comes after the one before it. Those are restarted together, once all of
            them have ended. A child with ``restart="never"`` that is stopped like that stays down.
        after: as for a `Child`, and in addition to what that comes after, where it is among the
            children of another supervisor.
        max_restarts: one restart more than this, and it stops its children and fails with
            `RestartLimitExceeded`. What several children are restarted for counts once.
        restart, backoff, breaker, start_within, stop_within: what its children have where they
            say nothing themselves; see `Child`.
        overdue_after: seconds past its deadline after which a service that is still there is
            reported; > 0.

    Attributes:
        graph: the names that each child comes after.
        worst_start: seconds that a start takes at worst, when every child uses all of its time
            and none fails.
        worst_stop: seconds that a stop takes at worst, when every child uses all of its time.

    Raises:
        PlanError: the children cannot be run as written; every problem is told.
    """

    name: str = attrs.field(validator=[validators.instance_of(str), is_name])
    children: tuple[Child, ...] = attrs.field(converter=_children)
    strategy: Strategy = attrs.field(
        default="one_for_one",
        kw_only=True,
        validator=validators.in_(("one_for_one", "one_for_all", "rest_for_one")),
    )
    after: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=names)
    max_restarts: Limit = attrs.field(
        default=Limit(5, per=60.0), kw_only=True, validator=validators.instance_of(Limit)
    )
    restart: Restart = attrs.field(
        default="on_failure",
        kw_only=True,
        validator=validators.in_(("always", "on_failure", "never")),
    )
    backoff: Backoff = attrs.field(
        default=Backoff(), kw_only=True, validator=validators.instance_of(Backoff)
    )
    breaker: Breaker | None = attrs.field(
        default=None,
        kw_only=True,
        validator=validators.optional(validators.instance_of(Breaker)),
    )
    start_within: float = attrs.field(default=30.0, kw_only=True, validator=validators.gt(0))
    stop_within: float = attrs.field(default=10.0, kw_only=True, validator=validators.ge(0))
    overdue_after: float = attrs.field(default=1.0, kw_only=True, validator=validators.gt(0))
    graph: Mapping[str, tuple[str, ...]] = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_graph, takes_self=True)
    )
    worst_start: float = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_worst_start, takes_self=True)
    )
    worst_stop: float = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_worst_stop, takes_self=True)
    )

    def enlist(self, lifetime: Lifetime, name: str) -> None:
        """Enlist all services below: should it never be started, they will not be either."""
        for child in self.children:
            if isinstance(child.service, Service):
                child.service.enlist(lifetime, f"{name}/{child.name}")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the children until all have ended for good, or until a stop.

        Raises:
            RestartLimitExceeded: it gave up.
            StopFailed: children failed while they were stopped.
            StopOverdue: a child ended long after its deadline.
        """
        life = current_service()
        supervision = Supervision(self, life)
        if isinstance(life, Record):
            life.supervision = supervision  # how an operator's word finds the children
        await supervision.run(task_status=task_status)

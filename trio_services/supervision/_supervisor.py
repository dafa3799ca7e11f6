"""The value that a tree of services is written in."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import trio
from attrs import validators

from ..lifecycle import Lifetime, current_service
from ..resilience import Backoff
from ..services import AnyService, Service
from ._child import Child, Restart, is_name, names
from ._plan import check_children, worst_stop
from ._restarts import Limit
from ._supervision import Supervision


def _children(given: Iterable[Child | AnyService]) -> tuple[Child, ...]:
    return tuple(_child(one) for one in given)


def _child(given: Child | AnyService) -> Child:
    if isinstance(given, Child):
        return given
    if isinstance(given, Supervisor):
        return Child(given, after=given.after)
    return Child(given)


@attrs.frozen
class Supervisor(Service):
    """Keeps its children running: starts, restarts and stops them; a service itself.

    Children start concurrently, but for those that come `after` others, and stop in the reverse
    order. One that fails is started again alone (*one for one*).

    Args:
        name: its name among its siblings, and the first part of its children's paths.
        children: `Child` values, or services with the policy below.
        after: as for a `Child`, where it is given among the children of another supervisor.
        max_restarts: one restart more than this, and it stops its children and fails with
            `RestartLimitExceeded`.
        restart, backoff, start_within, stop_within: what its children have where they say
            nothing themselves; see `Child`.

    Attributes:
        worst_stop: seconds that a stop takes at worst, when every child uses all of its time.

    Raises:
        PlanError: the children cannot be run as written; every problem is told.
    """

    name: str = attrs.field(validator=[validators.instance_of(str), is_name])
    children: tuple[Child, ...] = attrs.field(converter=_children)
    after: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=names)
    max_restarts: Limit = attrs.field(default=Limit(5, per=60.0), kw_only=True)
    restart: Restart = attrs.field(
        default="on_failure",
        kw_only=True,
        validator=validators.in_(("always", "on_failure", "never")),
    )
    backoff: Backoff = attrs.field(default=Backoff(), kw_only=True)
    start_within: float = attrs.field(default=30.0, kw_only=True, validator=validators.gt(0))
    stop_within: float = attrs.field(default=10.0, kw_only=True, validator=validators.ge(0))
    worst_stop: float = attrs.field(
        init=False,
        eq=False,
        repr=False,
        default=attrs.Factory(lambda self: self._plan(), takes_self=True),
    )

    def _plan(self) -> float:
        check_children(self.name, self.children)
        return worst_stop(self.children, self.stop_within)

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
        """
        await Supervision(self, current_service()).run(task_status=task_status)

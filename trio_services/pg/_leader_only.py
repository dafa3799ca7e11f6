"""A service that runs in one process of many: in that which leads."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import cast

import attrs
import trio
from attrs import validators

from ..errors import LeadershipLost
from ..lifecycle import JobCall, Lifetime, surrounding_service
from ..services import AnyService, Service, factory_of, name_of, start
from ._leader import Term, leadership
from ._pool import Pool

_term: ContextVar[Term] = ContextVar("trio_services_term")


def current_term() -> Term:
    """The term in which the calling service, or a job of it, runs; see `LeaderOnly`.

    Raises:
        LookupError: it is no service that runs only in the leader.
    """
    return _term.get()


def _name_of_service(leader_only: LeaderOnly) -> str:
    return name_of(leader_only.service)


@attrs.frozen
class LeaderOnly(Service):
    """Run a service in one process of all that have it, and in another when that is gone.

    ::

        nightly = pg.LeaderOnly(Schedule(report, cron="0 3 * * *"), pool)

    It is ready at once, leading or not. When the lead is lost the service is cancelled before
    another process can start it, and this one contends again. A service that returns has done what
    there was to do, for this process: another may then run it too. What it writes is fenced off by
    ``await pg.current_term().fence(connection)``.

    At a stop the lease is not renewed any more: the work in hand has what is left of it, besides
    its own `stop_within`.

    Args:
        service: what to run, such as a `Schedule`.
        pool: where the leadership is.
        name: of the leadership. Default: the name of the service.
        lease: seconds; see `leadership`.
    """

    service: AnyService
    pool: Pool = attrs.field(repr=False)
    name: str = attrs.field(default=attrs.Factory(_name_of_service, takes_self=True), kw_only=True)
    lease: float = attrs.field(default=10.0, kw_only=True, validator=validators.ge(1))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Contend for the lead, and run the service in each term."""
        task_status.started()
        life = surrounding_service()
        while True:  # noqa: ASYNC913 -- contending checks
            try:
                async with leadership(self.pool, self.name, lease=self.lease) as term:
                    token = _term.set(term)
                    try:
                        await self._run(life)
                    finally:
                        _term.reset(token)
                    return
            except LeadershipLost as lost:
                if lost.name != self.name:  # the service itself contends for something else
                    raise

    async def _run(self, life: Lifetime | None) -> None:
        service = self.service
        call = factory_of(service)
        if call is not None and life is not None and life.injected is not None:
            service = cast("AnyService", await life.injected.fill(call))
        try:
            await start(service, trio.TASK_STATUS_IGNORED)
        finally:
            if life is not None:  # there is nothing to ask, or to steer, until it leads again
                life.check = life.at_work = None

    def enlist(self, lifetime: Lifetime, name: str) -> None:
        """What it runs is taken on too."""
        if isinstance(self.service, Service):
            self.service.enlist(lifetime, name)

    def job_calls(self) -> Iterable[JobCall]:
        """Those of what it runs."""
        return self.service.job_calls() if isinstance(self.service, Service) else ()

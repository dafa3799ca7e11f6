"""A tree of services as an application, inside any Trio program."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..errors import Failure
from ..lifecycle import Bus, HealthStatus, Lifetime, State
from ..queues import Queue, Workers
from ..services import AnyService
from ..supervision import (
    STOP_WITHIN,
    Change,
    Child,
    ServiceStatistics,
    Supervisor,
    Tree,
    check_budget,
    check_injection,
)
from ..telemetry import EventLog, HealthChecks, HealthReport, Meter, Readings, service_logger

if TYPE_CHECKING:
    from ..di import Container

Companion = Callable[["Host"], Child]
"""Makes a service that needs the host itself.

It starts before all others and stops after them; when all others have ended, it is stopped.
"""


class Host:
    """The handle of a running application.

    Attributes:
        name: that of its tree.
        bus: where the events of all its services are published.
        stop_within: seconds that a stop may take.
    """

    def __init__(
        self,
        tree: AnyService,
        stop_within: float,
        companions: Sequence[Companion] = (),
        container: Container | None = None,
    ) -> None:
        root = tree if isinstance(tree, Supervisor) else Supervisor("app", [Child(tree)])
        first = [make(self) for make in companions]
        self._companions = [child.name for child in first]
        if first:
            rest = [
                attrs.evolve(child, after=(*child.after, *self._companions))
                for child in root.children
            ]
            root = attrs.evolve(root, children=(*first, *rest))
        worst_stop = root.worst_stop
        if container is not None:
            container = with_logger(container)
            check_injection(container, [root])
            worst_stop += container.dispose_within
        check_budget(root.name, worst_stop, stop_within)
        self.name: str = root.name
        self.bus: Bus = Bus()
        self.stop_within = stop_within
        self._root = root
        self._container = container
        self._tree: Tree | None = None
        self._checks: HealthChecks | None = None
        self._children = {child.name: child for child in root.children}
        self._meter = Meter()

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    def request_stop(self) -> None:
        """Stop all services in order; asking again changes nothing."""
        if self._tree is not None:
            self._tree.request_stop()

    def cancel(self) -> None:
        """Cancel all services at once, whatever they have in hand."""
        if self._tree is not None:
            self._tree.cancel()

    @property
    def tree(self) -> Tree:
        """The running services, to look at and to steer one by one."""
        if self._tree is None:
            raise RuntimeError(f"{self.name} was not opened")
        return self._tree

    async def change(self, change: Change) -> None:
        """Change several services together; see `Tree.change`. Companions stay around them."""
        first = self._companions

        def around(children: Sequence[Child]) -> list[Child]:
            return [attrs.evolve(child, after=(*child.after, *first)) for child in children]

        await self.tree.change(
            attrs.evolve(change, start=around(change.start), amend=around(change.amend))
        )
        for name in change.remove:
            self._children.pop(name, None)  # a change that failed may be undone here
        self._children |= {child.name: child for child in (*change.start, *change.amend)}

    async def wait_ended(self) -> None:
        """Return when every service has ended for good."""
        await self.tree.wait_ended()

    @property
    def ready(self) -> bool:
        """Whether there is nothing that `unready` would tell."""
        return not self.unready()

    @property
    def was_ready(self) -> bool:
        """Whether all services became ready, whatever happened since."""
        return self._tree is not None and self._tree.was_ready

    def unready(self) -> list[str]:
        """Why the application is not ready, a line for each service; nothing when it is."""
        if self._tree is None:
            return [f"{self.name} is not started"]
        root = self._tree.life
        if root.stop_requested:
            return [f"{self.name} is stopping"]
        reasons = [
            f"{life.name} is {life.state.replace('_', ' ')}"
            + (f" after {_first_line(life.failure)}" if life.failure else "")
            for life in _critical_leaves(root)
            if life.state not in (State.RUNNING, State.DONE)
        ]
        if not reasons and root.state not in (State.RUNNING, State.DONE):
            reasons = [f"{self.name} is {root.state}"]
        return reasons

    def degraded(self) -> list[str]:
        """What the application does without for now, a line for each service."""
        if self._tree is None:
            return []
        return list(_lacking(self._tree.statistics(), needed=True))

    async def health(self) -> HealthReport:
        """How well each service is, now or a second ago; see `HealthChecks`."""
        tree = self.tree
        if self._checks is None:
            self._checks = HealthChecks(tree)
        return await self._checks.report()

    def readings(self) -> Readings:
        """What metrics are made of, at this moment.

        Of queues, those are told that the tree was written or changed with.
        """
        return self._meter.read(self.tree.statistics(), _queues(self._children.values()))

    async def measure_lag(self) -> None:
        """Measure how late the event loop is, for the `readings`; never returns.

        Cancellation: at any time.
        """
        await self._meter.measure_lag()

    def unended(self) -> list[Lifetime]:
        """The services that are still there."""
        if self._tree is None:
            return []
        return [life for life in _leaves(self._tree.life) if not life.state.ended]

    @asynccontextmanager
    async def open(self, *, open_ended: bool) -> AsyncGenerator[None, None]:
        """Run the services inside this block; see `open_host`."""
        async with nullcontext() if self._container is None else self._container.open() as injector:
            self._tree = Tree(
                self._root,
                self.stop_within,
                self.bus,
                open_ended=open_ended,
                attendants=self._companions,
                injector=injector,
            )
            with self.bus.listening(EventLog()), self.bus.listening(self._meter):
                async with self._tree.open():
                    yield


def with_logger(container: Container) -> Container:
    """A container which has for each service the logger that is bound to it."""
    from ..di import SERVICE  # which is there if there is a container, and slow to import if not

    return container.with_default(service_logger, scope=SERVICE)


def _queues(children: Iterable[Child]) -> Iterator[Queue[Any]]:
    """The queues that some children work on or feed."""
    for child in children:
        service: Any = child.service
        if isinstance(service, Workers):
            workers: Workers[Any] = service  # pyright: ignore[reportUnknownVariableType]
            yield workers.queue
            yield from workers.feeds
        elif isinstance(service, Supervisor):
            yield from _queues(service.children)


def _leaves(life: Lifetime) -> Iterator[Lifetime]:
    if life.children:
        for child in life.children.values():
            yield from _leaves(child)
    else:
        yield life


def _critical_leaves(life: Lifetime) -> Iterator[Lifetime]:
    """The services below that the application needs, and all of whose supervisors it needs."""
    if not life.critical:
        return
    if life.children and life.state.runs:
        for child in life.children.values():
            yield from _critical_leaves(child)
    else:
        yield life


def _lacking(one: ServiceStatistics, *, needed: bool) -> Iterator[str]:
    """What is not well in a service, or below it, as far as the application does without it.

    Args:
        one: of the service.
        needed: whether it needs all of the supervisors above it.
    """
    needed = needed and one.critical
    if one.children and one.state.runs:
        for child in one.children:
            yield from _lacking(child, needed=needed)
    elif one.health.status is HealthStatus.DEGRADED or (
        one.health.status is HealthStatus.UNHEALTHY and not needed
    ):
        yield one.health.reason


def _first_line(failure: Failure) -> str:
    first, *_ = failure.message.splitlines() or [""]
    return f"{failure.type}: {first}"


@asynccontextmanager
async def open_host(
    tree: AnyService,
    *,
    stop_within: float = STOP_WITHIN,
    companions: Sequence[Companion] = (),
    container: Container | None = None,
) -> AsyncGenerator[Host, None]:
    """Run an application inside this block: ready on entry, stopped on exit.

    It installs no signal handlers and sets up no logging; what happens is logged through loguru.

    Args:
        tree: a supervisor, or a single service.
        stop_within: seconds that the whole stop may take; ≥ what the tree needs at worst.
        companions: make services that need the host itself.
        container: what services and jobs get by the types of their parameters; see `Container`.

    Raises: see `open_supervisor`.

    Cancellation: of the block, or of anything around it, stops the services in order.
    """
    host = Host(tree, stop_within, companions, container)
    async with host.open(open_ended=True):
        yield host


async def serve(
    tree: AnyService,
    *,
    stop_within: float = STOP_WITHIN,
    companions: Sequence[Companion] = (),
    container: Container | None = None,
    task_status: trio.TaskStatus[Host] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run an application until all its services have ended; ``await nursery.start(serve, tree)``.

    `task_status` gets the `Host` when all services are ready.

    Args, Raises: see `open_host`.

    Cancellation: stops the services in order, and returns when that is done.
    """
    host = Host(tree, stop_within, companions, container)
    async with host.open(open_ended=False):
        if host.was_ready:  # else it was told to stop before
            task_status.started(host)
        await host.wait_ended()

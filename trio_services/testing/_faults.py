"""Faults that a test lets happen to the services of an application.

Theory. Each service runs inside of a cancel scope of the faults. A fault that is to happen now
cancels it; one that happens at random draws the time until then at each start and makes it the
scope's deadline. So nothing else runs beside the service, and virtual time stays exact.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, cast, get_type_hints

import attrs
import trio

from ..errors import UnknownService
from ..lifecycle import Health, JobCall, Lifetime, current_service
from ..services import AnyService, Service, ServiceCall, start
from ..supervision import Child, Supervisor
from ._errors import InjectedFault


@attrs.define(eq=False)
class _Faulted:
    """The faults of one service, and the scope of its present run."""

    chances: random.Random
    scope: trio.CancelScope | None = None
    hangs: bool = False
    slow_by: float = 0.0
    swallows: float = 0.0
    probability: float = 0.0
    every: float = 1.0

    def draw(self) -> float:
        """Seconds until the next crash."""
        if not self.probability:
            return math.inf
        tries = 1
        while self.chances.random() >= self.probability:
            tries += 1
        return tries * self.every

    async def run(self, service: AnyService, task_status: trio.TaskStatus[None]) -> None:
        """One run of the service, with what is to happen to it."""
        life = current_service()
        if self.slow_by:
            await trio.sleep(self.slow_by)
        self.hangs = False
        try:
            with trio.move_on_after(self.draw()) as self.scope:
                await start(service, task_status)
        except trio.Cancelled:  # noqa: ASYNC103 -- to swallow it is the very fault
            if not self.swallows:
                raise
            with trio.move_on_after(self.swallows, shield=True):
                await trio.sleep_forever()
            return  # noqa: ASYNC104
        if self.scope.cancelled_caught:
            await trio.lowlevel.checkpoint()  # a stop that came meanwhile goes first
            if self.hangs:
                await trio.sleep_forever()
            raise InjectedFault(life.name)


class Faults:
    """What happens to the services of an application under test, now or at random.

    ::

        faults = testing.Faults(seed=7)
        faults.crash("sync", probability=0.1, every=60.0)
        async with testing.host(tree, faults=faults) as app:
            faults.hang("mail")

    A path is that of a service, with or without the name of the root.

    Args:
        seed: of what happens at random; the same one gives the same faults, at the same times.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._services: dict[str, _Faulted] = {}
        self._root = ""

    def crash(self, path: str, *, probability: float | None = None, every: float = 1.0) -> None:
        """Let a service fail with an `InjectedFault`: now, if it runs, or at random.

        It is a failure like any other: its policy says what follows.

        Args:
            path: of the service.
            probability: from its next start on, of a crash after each `every` seconds; 0 to 1, and
                0 for no more of them.
            every: seconds; > 0.
        """
        faulted = self._of(path)
        if probability is None:
            self._cut(faulted, hangs=False)
        elif not 0 <= probability <= 1 or not every > 0:
            raise ValueError("a probability is from 0 to 1, and every= is more than 0 s")
        else:
            faulted.probability = probability
            faulted.every = every

    def hang(self, path: str) -> None:
        """Let a service that runs do nothing any more until it is stopped.

        It stays in its state; if it has a `stale_after`, it is unhealthy after that.
        """
        self._cut(self._of(path), hangs=True)

    def slow(self, path: str, by: float) -> None:
        """Let each start of a service take some seconds more, from the next one on.

        With more than its `start_within` it fails with a `StartTimeout`.
        """
        self._of(path).slow_by = by

    def swallow_cancel(self, path: str, takes: float = 5.0) -> None:
        """Let a service ignore that it is cancelled, for some seconds.

        Those past its `stop_within` it is overdue, and named as such.
        """
        self._of(path).swallows = takes

    def _of(self, path: str) -> _Faulted:
        path = path.removeprefix(f"{self._root}/")
        if path not in self._services:
            if self._root:
                raise UnknownService(f"{self._root} has no service {path!r}")
            # Text, because what is hashed otherwise differs from one process to the next.
            self._services[path] = _Faulted(random.Random(f"{self._seed} {path}"))
        return self._services[path]

    def _cut(self, faulted: _Faulted, *, hangs: bool) -> None:
        faulted.hangs = hangs
        if faulted.scope is not None:
            faulted.scope.cancel()

    def inject(self, tree: Supervisor) -> Supervisor:
        """The tree, in which these faults may happen; it is to be called once.

        Raises:
            UnknownService: a fault was planned for a service that is not there.
        """
        root = tree.name
        self._services = {
            path.removeprefix(f"{root}/"): planned for path, planned in self._services.items()
        }
        unknown = set(self._services)
        injected = self._inject(tree, "", unknown)
        for path in sorted(unknown):
            raise UnknownService(f"{root} has no service {path!r} for a fault to happen to")
        self._root = root
        return injected

    def _inject(self, tree: Supervisor, prefix: str, unknown: set[str]) -> Supervisor:
        children: list[Child] = []
        for child in tree.children:
            path = prefix + child.name
            if isinstance(child.service, Supervisor):
                service: AnyService = self._inject(child.service, f"{path}/", unknown)
            else:
                unknown.discard(path)
                service = _with_faults(child.service, self._of(path))
            children.append(attrs.evolve(child, service=service))
        return attrs.evolve(tree, children=children)


@attrs.frozen(eq=False)
class _FaultyService(Service):
    """A service to which faults happen; for all else it is what it was."""

    service: AnyService
    faulted: _Faulted

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.faulted.run(self.service, task_status)

    async def check(self) -> Health:
        if isinstance(self.service, Service):
            return await self.service.check()
        return await super().check()

    def enlist(self, lifetime: Lifetime, name: str) -> None:
        if isinstance(self.service, Service):
            self.service.enlist(lifetime, name)

    def job_calls(self) -> Iterable[JobCall]:
        return self.service.job_calls() if isinstance(self.service, Service) else ()


def _with_faults(service: AnyService, faulted: _Faulted) -> AnyService:
    if isinstance(service, ServiceCall):
        return attrs.evolve(service, function=_faulty(service.function, faulted))
    if isinstance(service, Service):
        return _FaultyService(service, faulted)
    return _faulty(service, faulted)


def _faulty(factory: Callable[..., Any], faulted: _Faulted) -> Callable[..., Any]:
    """A factory of the same signature, by which it is still told what it asks for."""

    @wraps(factory)
    def call(*args: object, **kwargs: object) -> Service:
        kwargs.pop("task_status", None)  # the run of what is returned gets it
        return _FaultyService(partial(factory, *args, **kwargs), faulted)

    if inspect.isclass(factory):
        call.__annotations__ = get_type_hints(cast("Any", factory).__init__)
    return call

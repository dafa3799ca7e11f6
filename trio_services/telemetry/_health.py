"""How well an application is, service by service, as the services and their supervisors say."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping

import attrs
import trio

from ..lifecycle import (
    Health,
    HealthStatus,
    Lifetime,
    State,
    asks_for_exit,
    set_aside_cancellations,
)
from ..supervision import ServiceStatistics, Tree


@attrs.frozen
class ServiceHealth:
    """How well one service is.

    Attributes:
        name: its path.
        state: what it is doing.
        critical: whether the application is not well without it: it is critical, and so are all
            of the supervisors above it.
        health: as its supervisor sees it, or as it says itself, whichever is worse.
    """

    name: str
    state: State
    critical: bool
    health: Health


@attrs.frozen
class HealthReport:
    """How well all services were when they were asked."""

    services: tuple[ServiceHealth, ...]

    @property
    def status(self) -> HealthStatus:
        """Unhealthy if a critical service is, and degraded if any other thing is not well."""
        if self.unhealthy:
            return HealthStatus.UNHEALTHY
        return HealthStatus.DEGRADED if self.degraded else HealthStatus.HEALTHY

    @property
    def unhealthy(self) -> list[str]:
        """What the application is not well without, a line for each service."""
        return [one.health.reason for one in self.services if _breaks(one)]

    @property
    def degraded(self) -> list[str]:
        """What it does without for now, a line for each service."""
        healthy = HealthStatus.HEALTHY
        return [
            one.health.reason
            for one in self.services
            if one.health.status is not healthy and not _breaks(one)
        ]


def _breaks(one: ServiceHealth) -> bool:
    return one.critical and one.health.status is HealthStatus.UNHEALTHY


class HealthChecks:
    """Asks the services of a tree how they are; for all who want to know at the same time, once.

    Args:
        tree: whose services.
        within: seconds that each service has to answer, before it is unhealthy; ≥ 0.
        fresh_for: seconds for which a report is given again, and nobody asked; ≥ 0.
    """

    def __init__(self, tree: Tree, *, within: float = 3.0, fresh_for: float = 1.0) -> None:
        self._tree = tree
        self._within = within
        self._fresh_for = fresh_for
        self._report = HealthReport(())
        self._asked_at = -math.inf
        self._asking = trio.Lock()

    async def report(self) -> HealthReport:
        """How well all services are, now or a moment ago.

        Cancellation: at any time; if others wait too, one of them asks instead.
        """
        async with self._asking:
            if trio.current_time() - self._asked_at >= self._fresh_for:
                answers = await self._ask()
                services = _services(self._tree.statistics(), answers, critical=True)
                self._report = HealthReport(tuple(services))
                self._asked_at = trio.current_time()
            return self._report

    async def _ask(self) -> Mapping[str, Health]:
        """What those services say that say by themselves how they are."""
        answers: dict[str, Health] = {}

        async def ask(life: Lifetime, check: Callable[[], Awaitable[object]]) -> None:
            name, attempt = life.name, life.attempt
            answer = Health.unhealthy(f"{name} did not say within {self._within:g} s how it is")
            with trio.move_on_after(self._within):
                answer = await _answer(name, check)
            if life.attempt == attempt:  # else it was about a run that has ended
                answers[name] = answer

        async with trio.open_nursery() as nursery:
            for life in _lives(self._tree.life):
                if life.check is not None and life.state is State.RUNNING:
                    nursery.start_soon(ask, life, life.check)
        return answers


async def _answer(name: str, check: Callable[[], Awaitable[object]]) -> Health:
    """What a service says of itself, or what keeps it from saying so."""
    try:
        answer = await check()
        if not isinstance(answer, Health):
            raise TypeError(f"it said {answer!r}, which is no Health")
    except BaseException as error:  # noqa: ASYNC103 -- a foreign cancellation is a failure
        cancelled, _ = set_aside_cancellations(error)
        if cancelled is not None or asks_for_exit(error):
            raise
        # Only the type: messages may hold passwords, and probes are answered without a token.
        kind = type(error).__name__
        return Health.unhealthy(f"{name} failed to say how it is: {kind}")  # noqa: ASYNC104
    said = f": {answer.reason}" if answer.reason else f" is {answer.status.name.lower()}"
    return Health(answer.status, name + said)


def _lives(life: Lifetime) -> Iterator[Lifetime]:
    yield life
    for child in life.children.values():
        yield from _lives(child)


def _services(
    one: ServiceStatistics, answers: Mapping[str, Health], *, critical: bool
) -> Iterator[ServiceHealth]:
    """The services below, and supervisors that do not run; `critical` is of those above."""
    critical = critical and one.critical
    if one.children and one.state.runs:
        for child in one.children:
            yield from _services(child, answers, critical=critical)
        return
    health = max(one.health, answers.get(one.name, one.health), key=lambda health: health.status)
    if health.status is HealthStatus.HEALTHY:
        health = Health.healthy()
    elif health.status is HealthStatus.UNHEALTHY and not critical:
        health = Health.degraded(health.reason)
    yield ServiceHealth(one.name, one.state, critical, health)

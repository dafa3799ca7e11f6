"""What there is to know of the services of a tree at one moment, as frozen values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

import attrs
import trio

from ..errors import Failure
from ..lifecycle import (
    Health,
    HealthStatus,
    Lifetime,
    State,
    asks_for_exit,
    set_aside_cancellations,
)
from ..resilience import BreakerState
from ._record import Record


@attrs.frozen
class ServiceStatistics:
    """A service, or a supervisor and those below it. Times are seconds on Trio's clock.

    Attributes:
        name: its path.
        state: what it is doing.
        since: when it came into that state.
        restarts: how often it was started again.
        failure: its last failure, with its type, message and time.
        next_start: when it is to be started again, if it waits for a time.
        breaker: the state of its circuit breaker, if it has one.
        waits_on: the paths of those that it waits for: to be ready when it is to start, to end
            when it is to stop.
        tasks: the names of the tasks that it started.
        work: what a running service has to say of its work: workers their `PoolStatistics`, a
            schedule its `ScheduleStatistics`.
        critical: whether the application is not well without it.
        health: how well it is, as its supervisor sees it.
        children: for a supervisor, those below it.
    """

    name: str
    state: State
    since: float
    restarts: int
    failure: Failure | None
    next_start: float | None
    breaker: BreakerState | None
    waits_on: tuple[str, ...]
    tasks: tuple[str, ...]
    work: object
    critical: bool
    health: Health
    children: tuple[ServiceStatistics, ...]

    def walk(self) -> Iterator[ServiceStatistics]:
        """This and all below, from the top down."""
        yield self
        for child in self.children:
            yield from child.walk()


_HEALTHY = Health.healthy()


def take(life: Lifetime, now: float) -> ServiceStatistics:
    """Take the statistics of a service and those below it."""
    children: tuple[ServiceStatistics, ...] = ()
    if life.children:
        children = tuple([take(child, now) for child in life.children.values()])
    health = _health(life, now)
    if children:
        health = worst([health, *[child.health for child in children]])
    health = _as_it_matters(life, health)
    failure = life.failure
    restarts = life.attempt - 1 if life.attempt else 0
    next_start = breaker = None
    waits_on: tuple[str, ...] = ()
    if isinstance(life, Record):
        if life.state is State.BACKING_OFF:
            next_start = life.due
        breaker = _breaker(life)
        waits_on = _waits_on(life)
    return ServiceStatistics(
        life.name,
        life.state,
        life.since,
        restarts,
        failure,
        next_start,
        breaker,
        waits_on,
        _tasks(life, bool(children)),
        None if life.at_work is None else life.at_work.statistics(),
        life.critical,
        health,
        children,
    )


def worst(healths: Iterable[Health]) -> Health:
    """The worst of some, the first of those that are alike."""
    return max(healths, key=lambda health: health.status, default=_HEALTHY)


def _as_it_matters(life: Lifetime, health: Health) -> Health:
    """What the health of a service means for the whole: it may do without some."""
    if health.status is HealthStatus.UNHEALTHY and not life.critical:
        return Health.degraded(health.reason)
    return health


def _health(life: Lifetime, now: float) -> Health:
    """How well a service is itself; those below it are not asked."""
    if life.state is State.RUNNING:
        if not isinstance(life, Record):
            return _HEALTHY
        stale_after = life.child.stale_after
        if stale_after is not None and now - life.progressed_at > stale_after:
            silent = now - life.progressed_at
            return Health.unhealthy(f"{life.name} has made no progress for {silent:.3g} s")
        if life.circuit_in(BreakerState.HALF_OPEN):
            return Health.degraded(f"{life.name} runs again, on probation")
        return _HEALTHY
    if life.state is State.DONE:
        return _HEALTHY
    state = "is down" if life.state is State.FAILED else f"is {life.state.replace('_', ' ')}"
    if isinstance(life, Record) and life.circuit_in(BreakerState.OPEN):
        state = "is left alone, its breaker is open"
    why = f" after {life.failure.type}" if life.failure is not None else ""
    return Health.unhealthy(f"{life.name} {state}{why}")


def _breaker(record: Record) -> BreakerState | None:
    if record.circuit is not None:
        return record.circuit.state
    has_one = record.child.breaker is not None or record.spec.breaker is not None
    return BreakerState.CLOSED if has_one else None


def _waits_on(record: Record) -> tuple[str, ...]:
    if record.waits_for and record.state in (State.WAITING, State.BACKING_OFF):
        names = [one.name for one in record.dependencies if not one.passed]
        gates = record.held_by or ()
        if len(gates) == 1 and not names and record.opens is None:
            return gates[0].waits_on()  # the same for thousands of them
        for gate in gates:
            names += gate.waits_on()
        return tuple([name for name in dict.fromkeys(names) if name != record.name])
    if record.to_stop and record.state in (State.STARTING, State.RUNNING) and record.dependents:
        return tuple([one.name for one in record.dependents if one.busy])
    return ()


def _tasks(life: Lifetime, supervises: bool) -> tuple[str, ...]:
    """The tasks of a service; those of a supervisor are its children's."""
    if life.task is None or supervises or not life.task.child_nurseries:
        return ()
    names: list[str] = []
    todo = [life.task]
    while todo:
        for nursery in todo.pop().child_nurseries:
            for task in nursery.child_tasks:
                names.append(task.name)
                todo.append(task)
    return tuple(names)


async def ask(life: Lifetime, within: float) -> Health:
    """How well a service and all below it are, also in their own words.

    Args:
        life: of the service.
        within: seconds that each has to answer; ≥ 0.

    Cancellation: at once; nobody is asked any more.
    """
    answers: dict[Lifetime, Health] = {}

    async def ask_one(one: Lifetime, check: Callable[[], Awaitable[object]]) -> None:
        answers[one] = Health.unhealthy(f"{one.name} did not say within {within:g} s how it is")
        with trio.move_on_after(within):
            answers[one] = await _answer(one, check)

    def overall(one: Lifetime) -> Health:
        own = [_health(one, now), answers.get(one, _HEALTHY)]
        return _as_it_matters(one, worst([*own, *map(overall, one.children.values())]))

    async with trio.open_nursery() as nursery:
        for one in _all(life):
            if one.check is not None and one.state is State.RUNNING:
                nursery.start_soon(ask_one, one, one.check)
    now = trio.current_time()
    return overall(life)


async def _answer(life: Lifetime, check: Callable[[], Awaitable[object]]) -> Health:
    """What a service says of itself, or what keeps it from saying so."""
    try:
        answer = await check()
        if not isinstance(answer, Health):
            raise TypeError(f"it said {answer!r}, which is no Health")
    except BaseException as error:  # noqa: ASYNC103 -- a foreign cancellation is a failure
        cancelled, _ = set_aside_cancellations(error)
        if cancelled is not None or asks_for_exit(error):
            raise
        return Health.unhealthy(f"{life.name} failed to say how it is: {error!r}")  # noqa: ASYNC104
    return Health(answer.status, f"{life.name}: {answer.reason}" if answer.reason else "")


def _all(life: Lifetime) -> Iterator[Lifetime]:
    yield life
    for child in life.children.values():
        yield from _all(child)

"""Scripted services and injected faults: each has the outcome that is documented."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Container,
    Limit,
    RestartLimitExceeded,
    Service,
    StopOverdue,
    Supervisor,
    UnknownService,
    Workers,
    WorkQueue,
    events,
    service,
    testing,
)
from trio_services.lifecycle import HealthStatus, State
from trio_services.services import AnyService

EXACT = Backoff(initial=10.0, factor=1.0, jitter=0)


def tree(one: AnyService, **policy: Any) -> Supervisor:
    return Supervisor("app", [Child(one, name="sync", backoff=EXACT, **policy)])


@service
async def idle() -> None:
    await trio.sleep_forever()


# -- scripted services ---------------------------------------------------------------------


async def test_acts_follow_one_another_from_start_to_start(autojump_clock: MockClock) -> None:
    script = testing.Scripted(["fail", "fail", "work"], after=2.0)
    async with testing.host(tree(script)) as app:
        await app.wait_for(events.ServiceReady, service="sync", nth=3)
        await trio.sleep(1000.0)
        failed = [event.at for event in app.events if isinstance(event, events.ServiceFailed)]
        assert failed == [2.0, 14.0]
        assert app.service("sync").state is State.RUNNING


def test_an_unknown_act_is_refused() -> None:
    with pytest.raises(ValueError, match="acts"):
        testing.Scripted("dance")  # type: ignore[arg-type]


async def test_a_script_that_returns_is_done(autojump_clock: MockClock) -> None:
    async with testing.host(tree(testing.Scripted("return", after=3.0))) as app:
        await app.wait_ended()
        assert trio.current_time() == 3.0


async def test_a_script_that_hangs_becomes_unhealthy(autojump_clock: MockClock) -> None:
    script = testing.Scripted("hang", after=100.0)
    async with testing.host(tree(script, stale_after=5.0)) as app:
        await app.ready()
        await trio.sleep(99.0)
        assert app.service("sync").health.status is HealthStatus.HEALTHY
        await trio.sleep(10.0)
        assert app.service("sync").health.status is HealthStatus.UNHEALTHY
        assert app.service("sync").state is State.RUNNING


async def test_a_script_that_is_never_ready_fails_in_time(autojump_clock: MockClock) -> None:
    script = testing.Scripted(["never_ready", "work"])
    async with testing.host(tree(script, start_within=7.0)) as app:
        failed = await app.wait_for(events.ServiceFailed, service="sync")
        assert failed.failure.type == "StartTimeout"
        assert failed.at == 7.0
        await app.ready()


async def test_a_script_that_stops_slowly_is_waited_for(autojump_clock: MockClock) -> None:
    async with testing.host(tree(testing.Scripted("slow_stop", takes=4.0))) as app:
        await app.ready()
        await app.stop()
    stopped = await app.wait_for(events.ServiceStopped, service="sync")
    assert stopped.took == 4.0


async def test_a_script_that_swallows_its_cancellation_is_overdue(
    autojump_clock: MockClock,
) -> None:
    script = testing.Scripted("swallow_cancel", takes=20.0)
    with pytest.raises(StopOverdue, match="app/sync"):
        async with testing.host(tree(script, stop_within=2.0)) as app:
            await app.ready()
            app.host.request_stop()
            overdue = await app.wait_for(events.ServiceOverdue, service="sync")
            assert overdue.overdue == 1.0
            await app.stop()


# -- faults --------------------------------------------------------------------------------


async def test_a_crash_is_a_failure_like_any_other(autojump_clock: MockClock) -> None:
    faults = testing.Faults()
    async with testing.host(tree(idle()), faults=faults) as app:
        await app.ready()
        await trio.sleep(5.0)
        faults.crash("sync")
        failed = await app.wait_for(events.ServiceFailed, service="sync")
        assert failed.failure.type == "InjectedFault"
        again = await app.wait_for(events.ServiceReady, service="sync", nth=2)
        assert (failed.at, again.at) == (5.0, 15.0)


async def test_crashes_open_the_breaker(autojump_clock: MockClock) -> None:
    faults = testing.Faults()
    faults.crash("sync", probability=1.0, every=1.0)
    breaker = Breaker(failures=3, within=600.0, reset_after=300.0)
    async with testing.host(tree(idle(), breaker=breaker), faults=faults) as app:
        await app.wait_for(events.BreakerOpened, service="sync", within=600.0)
        faults.crash("sync", probability=0.0)
        await app.wait_for(events.BreakerClosed, service="sync", within=3600.0)


async def test_crashes_exceed_the_restart_limit(autojump_clock: MockClock) -> None:
    faults = testing.Faults()
    faults.crash("app/sync", probability=1.0)
    limited = attrs.evolve(tree(idle()), max_restarts=Limit(2, per=3600.0))
    with pytest.raises(RestartLimitExceeded):
        async with testing.host(limited, faults=faults):
            await trio.sleep_forever()


async def crash_times(seed: int) -> list[float]:
    faults = testing.Faults(seed)
    faults.crash("sync", probability=0.1, every=60.0)
    patient = attrs.evolve(tree(idle()), max_restarts=Limit(10_000, per=1.0))
    began = trio.current_time()
    async with testing.host(patient, faults=faults) as app:
        await trio.sleep(86400.0)
    return [event.at - began for event in app.events if isinstance(event, events.ServiceFailed)]


async def test_the_same_seed_gives_the_same_crashes(autojump_clock: MockClock) -> None:
    first = await crash_times(7)
    assert first == pytest.approx(await crash_times(7))
    assert 100 < len(first) < 180
    assert first != pytest.approx(await crash_times(8))


async def test_a_service_that_hangs_stays_as_it_is_and_can_be_restarted(
    autojump_clock: MockClock,
) -> None:
    faults = testing.Faults()
    script = testing.Scripted("work")
    async with testing.host(tree(script, stale_after=5.0), faults=faults) as app:
        await app.ready()
        faults.hang("sync")
        await trio.sleep(10.0)
        assert app.service("sync").state is State.RUNNING
        assert app.service("sync").health.status is HealthStatus.UNHEALTHY
        await app.host.tree.restart("sync")
        await trio.sleep(10.0)
        assert app.service("sync").health.status is HealthStatus.HEALTHY


async def test_a_slow_start_runs_into_its_time_out(autojump_clock: MockClock) -> None:
    faults = testing.Faults()
    faults.slow("sync", by=8.0)
    async with testing.host(tree(idle(), start_within=7.0), faults=faults) as app:
        failed = await app.wait_for(events.ServiceFailed, service="sync")
        assert failed.failure.type == "StartTimeout"
        faults.slow("sync", by=6.0)
        ready = await app.wait_for(events.ServiceReady, service="sync")
        assert ready.took == 6.0


async def test_a_swallowed_cancellation_is_overdue(autojump_clock: MockClock) -> None:
    faults = testing.Faults()
    faults.swallow_cancel("sync", takes=20.0)
    with pytest.raises(StopOverdue, match="app/sync"):
        async with testing.host(tree(idle(), stop_within=2.0), faults=faults) as app:
            await app.ready()


async def test_a_fault_for_nobody_is_refused() -> None:
    faults = testing.Faults()
    faults.crash("sink", probability=0.5)
    with pytest.raises(UnknownService, match="'sink' for a fault"):
        async with testing.host(tree(idle()), faults=faults):
            pass


class Client:
    pass


class Sync(Service):
    def __init__(self, client: Client) -> None:
        self.client = client

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.sleep(1.0)
        task_status.started()
        await trio.sleep_forever()


@service
async def call(client: Client) -> None:
    assert isinstance(client, Client)
    await trio.sleep_forever()


async def function(client: Client, *, task_status: trio.TaskStatus[None]) -> None:
    assert isinstance(client, Client)
    await trio.sleep(2.0)
    task_status.started()
    await trio.sleep_forever()


async def test_services_still_get_what_they_ask_for(autojump_clock: MockClock) -> None:
    container = Container()
    container.provide(Client)
    whole = Supervisor("app", [Sync, cast("Any", call)(), function])
    faults = testing.Faults()
    async with testing.host(whole, container=container, faults=faults) as app:
        await app.ready()
        assert trio.current_time() == 2.0
        faults.crash("Sync")
        await app.wait_for(events.ServiceReady, service="Sync", nth=2)


async def test_no_item_is_lost_when_workers_crash(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("numbers")

    async def handle(number: int) -> None:
        await trio.sleep(1.0)

    faults = testing.Faults()
    workers = Supervisor("app", [Child(Workers(queue, handle), name="work", backoff=EXACT)])
    async with testing.host(workers, faults=faults) as app:
        for number in range(10):
            await queue.put(number)
        await trio.sleep(3.5)
        faults.crash("work")
        queue.close()
        await app.wait_ended()
    books = queue.statistics()
    assert books.accepted == 10 == books.done + books.returned

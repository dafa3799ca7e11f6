"""An application inside of somebody else's Trio program."""

from __future__ import annotations

import gc
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from loguru import logger

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Host,
    PlanError,
    RestartLimitExceeded,
    StopFailed,
    Supervisor,
    graceful,
    open_host,
    serve,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from trio.testing import MockClock

    from trio_services.supervision import Restart


@pytest.fixture(autouse=True)
def _quiet() -> Generator[None]:
    logger.remove()
    yield
    logger.remove()


async def idle() -> None:
    await trio.sleep_forever()


def ready_after(seconds: float) -> Callable[..., Awaitable[None]]:
    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(seconds)
        task_status.started()
        await trio.sleep_forever()

    return service


async def broken() -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError("broken")


class Nothing:
    """Something to await that does not even yield."""

    def __await__(self) -> Generator[None]:
        yield from ()


async def test_start_gives_the_host_when_all_are_ready(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        host = await nursery.start(serve, Supervisor("app", [ready_after(3), idle]))

        assert isinstance(host, Host)
        assert trio.current_time() == 3
        assert (host.name, host.ready, host.unready()) == ("app", True, [])
        nursery.cancel_scope.cancel()


async def test_cancelling_the_scope_of_serve_stops_gracefully(autojump_clock: MockClock) -> None:
    finished: list[float] = []

    async def busy() -> None:
        with graceful():
            await trio.sleep(5)
            finished.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Supervisor("app", [busy]))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert finished == [5]
    assert trio.current_time() == 5


async def test_serve_returns_when_all_services_have_ended(autojump_clock: MockClock) -> None:
    async def job() -> None:
        await trio.sleep(4)

    await serve(Supervisor("app", [job, Supervisor("inner", [job])]))

    assert trio.current_time() == 4


async def test_services_that_end_at_once_were_started_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async def job() -> None:
        await Nothing()

    async with trio.open_nursery() as nursery:
        host = await nursery.start(serve, Supervisor("app", [job]))
        await host.wait_ended()


async def test_application_without_services_ends_at_once(autojump_clock: MockClock) -> None:
    await serve(Supervisor("app", []))

    assert trio.current_time() == 0


async def test_serve_returns_after_a_requested_stop(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        host = await nursery.start(serve, idle)
        host.request_stop()
        await host.wait_ended()


async def test_failed_start_comes_out_of_serve(autojump_clock: MockClock) -> None:
    async def failing(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)
        raise ValueError("refused")

    with pytest.raises(RestartLimitExceeded, match="refused"):
        await serve(Supervisor("app", [Child(failing, restart="never")]))


async def test_failure_at_a_stop_comes_out_of_serve(autojump_clock: MockClock) -> None:
    async def rude() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cannot close")

    with pytest.raises(StopFailed, match="cannot close"), trio.move_on_after(1):
        await serve(rude)


async def test_class_and_factory_and_function_are_applications(autojump_clock: MockClock) -> None:
    async with open_host(idle) as host:
        assert host.name == "app"


async def test_block_of_open_host_has_a_ready_application(autojump_clock: MockClock) -> None:
    async with open_host(Supervisor("app", [ready_after(2)])) as host:
        assert host.ready
        assert trio.current_time() == 2

    assert host.unended() == []


async def test_open_host_stays_open_when_all_services_have_ended(
    autojump_clock: MockClock,
) -> None:
    async def job() -> None:
        await trio.sleep(1)

    async with open_host(job):
        await trio.sleep(10)

    assert trio.current_time() == 10


async def test_block_of_open_host_is_not_entered_when_the_start_failed(
    autojump_clock: MockClock,
) -> None:
    async def failing(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)
        raise ValueError("refused")

    entered = False

    async def block() -> None:
        nonlocal entered
        async with open_host(Supervisor("app", [Child(failing, restart="never")])):
            entered = True
            await trio.sleep_forever()

    with pytest.raises(RestartLimitExceeded):
        await block()

    assert not entered


async def test_serve_leaves_signals_and_logs_alone(autojump_clock: MockClock) -> None:
    signals = [signal.getsignal(number) for number in signal.valid_signals()]
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}", level=0)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve, idle)
        assert [signal.getsignal(number) for number in signal.valid_signals()] == signals
        assert [thread.name for thread in threading.enumerate()].count("stop guard") == 0
        nursery.cancel_scope.cancel()

    logger.remove(handler)  # raises if somebody else removed it
    assert any("ready" in line for line in lines)


async def test_nothing_is_left_after_serve() -> None:
    async def listening(*, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            task_status.started()
            await listener.accept()

    async def child() -> None:
        await trio.run_process(["sleep", "60"])

    def state() -> tuple[object, ...]:
        gc.collect()
        return (
            trio.lowlevel.current_statistics().tasks_living,
            sorted(path.name for path in Path("/proc/self/fd").iterdir()),
            [one.name for one in threading.enumerate() if not one.name.startswith("Trio thread")],
            Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        )

    before = state()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Supervisor("app", [listening, child, idle]))
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()

    assert state() == before


async def test_tree_over_its_budget_is_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(PlanError, match="app may need 10 s to stop, but has 5 s"):
        await serve(idle, stop_within=5)


async def test_reasons_for_not_being_ready_before_and_during_the_start(
    autojump_clock: MockClock,
) -> None:
    tree = Supervisor(
        "app",
        [
            Child(ready_after(3), name="db"),
            Child(ready_after(3), name="sync", after="db"),
        ],
    )
    host = Host(tree, 30)
    assert host.unready() == ["app is not started"]

    async def starting() -> None:
        async with host.open(open_ended=True):
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(starting)
        await trio.sleep(1)
        assert host.unready() == ["app/db is starting", "app/sync is waiting"]
        assert not host.ready
        await trio.sleep(3)
        assert host.unready() == ["app/sync is starting"]
        await trio.sleep(3)
        assert host.unready() == []


async def test_reasons_for_not_being_ready_during_a_backoff(autojump_clock: MockClock) -> None:
    async def failing() -> None:
        await trio.sleep(1)
        raise ValueError("connection lost")

    tree = Supervisor("app", [Child(failing, backoff=Backoff(initial=5, jitter=0))])

    async with open_host(tree) as host:
        await trio.sleep(2)
        assert host.unready() == ["app/failing is backing off after ValueError: connection lost"]


async def test_past_failure_is_no_reason_for_not_being_ready(autojump_clock: MockClock) -> None:
    failures = iter([1.0])

    async def failing() -> None:
        await trio.sleep(next(failures, 1e9))
        raise ValueError("connection lost")

    async with open_host(failing) as host:
        await trio.sleep(5)
        assert host.unready() == []


async def test_reason_for_not_being_ready_is_one_line(autojump_clock: MockClock) -> None:
    async def failing() -> None:
        await trio.sleep(0.5)
        raise ValueError("line one\nline two")

    tree = Supervisor("app", [Child(failing, backoff=Backoff(initial=5, jitter=0))])

    async with open_host(tree) as host:
        await trio.sleep(1)
        assert [len(reason.splitlines()) for reason in host.unready()] == [1]


async def test_reasons_for_not_being_ready_during_and_after_the_stop(
    autojump_clock: MockClock,
) -> None:
    async def busy() -> None:
        with graceful():
            await trio.sleep(5)

    async with open_host(busy) as host:
        await trio.sleep(1)
        host.request_stop()
        await trio.sleep(1)
        assert host.unready() == ["app is stopping"]
        assert not host.ready
    assert host.unready() != []


async def test_noncritical_service_that_is_down_does_not_matter(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [Child(broken, restart="never", critical=False), idle])

    async with open_host(tree) as host:
        await trio.sleep(1)
        assert host.unready() == []


async def test_noncritical_supervisor_that_is_down_does_not_matter(
    autojump_clock: MockClock,
) -> None:
    inner = Supervisor("inner", [Child(broken, restart="never"), idle])
    tree = Supervisor("app", [Child(inner, restart="never", critical=False), idle])

    async with open_host(tree) as host:
        await trio.sleep(1)
        assert host.ready
        assert host.unready() == []


async def test_application_that_gives_up_is_not_ready(autojump_clock: MockClock) -> None:
    async def fatal() -> None:
        await trio.sleep(1)
        raise ValueError("fatal")

    async def busy() -> None:
        with graceful():
            await trio.sleep(5)

    host = Host(Supervisor("app", [Child(fatal, restart="never"), busy]), 30)
    seen: list[tuple[bool, bool]] = []

    async def asking() -> None:
        await trio.sleep(3)
        seen.append((host.ready, bool(host.unready())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking)
        with pytest.raises(RestartLimitExceeded):
            async with host.open(open_ended=True):
                await trio.sleep_forever()

    assert seen == [(False, True)]


async def test_companions_start_first_and_stop_last(autojump_clock: MockClock) -> None:
    story: list[str] = []
    hosts: list[Host] = []

    def noting(name: str) -> Callable[..., Awaitable[None]]:
        async def service(*, task_status: trio.TaskStatus[None]) -> None:
            try:
                await trio.sleep(1)
                story.append(f"{name} ready")
                task_status.started()
                await trio.sleep_forever()
            finally:
                story.append(f"{name} left")

        return service

    def companion(host: Host) -> Child:
        hosts.append(host)
        return Child(noting("companion"), name="companion")

    tree = Supervisor(
        "app", [Child(noting("db"), name="db"), Child(noting("sync"), name="sync", after="db")]
    )

    async with open_host(tree, companions=[companion]) as host:
        assert hosts == [host]

    assert story == [
        "companion ready",
        "db ready",
        "sync ready",
        "sync left",
        "db left",
        "companion left",
    ]


async def test_companions_do_not_keep_an_application_that_has_ended(
    autojump_clock: MockClock,
) -> None:
    async def job() -> None:
        await trio.sleep(4)

    def companion(host: Host) -> Child:
        return Child(idle, name="companion")

    with trio.fail_after(100):
        await serve(Supervisor("app", [job]), companions=[companion])

    assert trio.current_time() == 4


async def test_companion_that_is_not_ready_does_not_keep_an_application_without_services(
    autojump_clock: MockClock,
) -> None:
    async def companion(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        host: Host = await nursery.start(
            partial(serve, Supervisor("app", []), companions=[lambda _: Child(companion)])
        )

    assert host.was_ready
    assert trio.current_time() == 0


async def test_companion_may_stop_the_host(autojump_clock: MockClock) -> None:
    def companion(host: Host) -> Child:
        async def service() -> None:
            await trio.sleep(3)
            host.request_stop()
            await trio.sleep_forever()

        return Child(service, name="timer")

    await serve(Supervisor("app", [idle]), companions=[companion])

    assert trio.current_time() == 3


async def test_companion_may_cancel_the_host(autojump_clock: MockClock) -> None:
    async def busy() -> None:
        with graceful():
            await trio.sleep_forever()

    def companion(host: Host) -> Child:
        async def service() -> None:
            await trio.sleep(3)
            host.cancel()
            await trio.sleep_forever()

        return Child(service, name="timer")

    await serve(Supervisor("app", [busy]), companions=[companion])

    assert trio.current_time() == 3


async def test_requests_before_the_opening_are_harmless(autojump_clock: MockClock) -> None:
    host = Host(idle, 30)

    host.request_stop()
    host.cancel()

    assert host.unended() == []
    with pytest.raises(RuntimeError, match="app was not opened"):
        await host.wait_ended()


async def test_two_applications_run_side_by_side(autojump_clock: MockClock) -> None:
    async with (
        open_host(Supervisor("one", [idle])) as one,
        open_host(Supervisor("two", [idle])) as two,
    ):
        one.request_stop()
        await one.wait_ended()
        assert two.ready


async def test_unended_names_who_is_still_there(autojump_clock: MockClock) -> None:
    async def job() -> None:
        await trio.sleep(1)

    tree = Supervisor("app", [job, Supervisor("inner", [idle])])

    async with open_host(tree) as host:
        await trio.sleep(2)
        assert [life.name for life in host.unended()] == ["app/inner/idle"]


async def test_host_tells_what_it_does_without_and_gives_its_tree(
    autojump_clock: MockClock,
) -> None:
    async def forecast() -> None:
        await trio.sleep(1)
        raise OSError("no weather")

    tree = Supervisor(
        "app",
        [
            trio.sleep_forever,
            Child(forecast, critical=False, breaker=Breaker(1, reset_after=60, jitter=0)),
        ],
    )
    host = Host(tree, 30)
    assert host.degraded() == []
    with pytest.raises(RuntimeError, match="app was not opened"):
        _ = host.tree

    async with host.open(open_ended=True):
        assert host.degraded() == []
        await trio.sleep(2)
        assert host.degraded() == ["app/forecast is left alone, its breaker is open after OSError"]
        assert host.ready
        host.tree.reset("forecast")
        await trio.testing.wait_all_tasks_blocked()
        assert host.degraded() == []


async def test_health_is_that_of_each_service(autojump_clock: MockClock) -> None:
    host = Host(Supervisor("app", [Child(trio.sleep_forever, name="slow", stale_after=5)]), 30)
    with pytest.raises(RuntimeError, match="app was not opened"):
        await host.health()
    async with host.open(open_ended=True):
        await trio.sleep(6)
        report = await host.health()
        assert host.ready  # as far as it can tell without asking
    assert report.unhealthy == ["app/slow has made no progress for 6 s"]


@pytest.mark.parametrize(
    ("restart", "reason"),
    [
        ("on_failure", "app/reports/daily is backing off after OSError"),
        ("never", "app/reports is down after RestartLimitExceeded"),
    ],
)
async def test_noncritical_supervisor_that_is_not_well_is_told_as_what_it_does_without(
    restart: Restart, reason: str, autojump_clock: MockClock
) -> None:
    async def daily() -> None:
        await trio.sleep(1)
        raise OSError("disk full")

    reports = Supervisor("reports", [daily, idle], restart=restart, backoff=Backoff(10, jitter=0))
    tree = Supervisor("app", [idle, Child(reports, critical=False, restart="never")])

    async with open_host(tree) as host:
        assert host.degraded() == []
        await trio.sleep(2)
        assert host.degraded() == [reason]
        assert host.ready

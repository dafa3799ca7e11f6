"""`testing.host`: a whole application under test."""

from __future__ import annotations

import socket
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from trio_services import (
    Backoff,
    Child,
    Container,
    PlanError,
    RestartLimitExceeded,
    Schedule,
    Service,
    Supervisor,
    UnknownService,
    Workers,
    WorkQueue,
    current_service,
    events,
    service,
    testing,
)
from trio_services.lifecycle import State

KEPT: list[object] = []


class Boom(Exception):
    """What services fail with here."""


@service
async def idle() -> None:
    await trio.sleep_forever()


async def fail_at_first() -> None:
    if current_service().attempt == 1:
        raise Boom("not yet")
    await trio.sleep_forever()


EXACT = Backoff(initial=10.0, jitter=0)


async def test_the_tree_is_ready_when_all_its_services_are() -> None:
    async with testing.host(Supervisor("app", [Child(idle(), name="sync")])) as app:
        await app.ready()
        assert app.host.ready
        assert app.service("sync").state is State.RUNNING
        assert app.service("app/sync") == app.service("sync")
    assert app.service("sync").state is State.STOPPED


async def test_a_service_that_is_not_there_is_named() -> None:
    async with testing.host(idle()) as app:
        await app.ready()
        with pytest.raises(UnknownService, match="app has no service 'sink'"):
            app.service("sink")


async def test_stop_returns_when_all_have_ended() -> None:
    async with testing.host(Supervisor("app", [Child(idle(), name="sync")])) as app:
        await app.stop()
        assert isinstance(app.events[-1], events.ServiceStopped)
        assert app.events[-1].service == "app"


async def test_an_event_that_has_come_is_found_at_once(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [Child(fail_at_first, name="sync", backoff=EXACT)])
    async with testing.host(tree) as app:
        await app.wait_for(events.ServiceReady, service="sync", nth=2)
        assert trio.current_time() == 10.0
        failed = await app.wait_for(events.ServiceFailed, service="app/sync")
        assert trio.current_time() == 10.0
        assert failed.failure.message == "not yet"


async def test_an_event_that_does_not_come_is_told(autojump_clock: MockClock) -> None:
    with pytest.raises(testing.NotSeen, match=r"no ServiceFailed of app/sync number 1 .* 5 s"):
        async with testing.host(Supervisor("app", [Child(idle(), name="sync")])) as app:
            await app.wait_for(events.ServiceFailed, service="sync", within=5)


async def test_an_event_that_cannot_come_any_more_is_told_at_once() -> None:
    async with testing.host(idle()) as app:
        await app.stop()
        with pytest.raises(testing.NotSeen, match="before all had ended"):
            await app.wait_for(events.ServiceFailed)


async def test_a_failing_test_tells_the_live_tree_and_the_log() -> None:
    with pytest.raises(Boom) as caught:
        async with testing.host(Supervisor("app", [Child(idle(), name="sync")])) as app:
            await app.ready()
            raise Boom("the test's own")
    (note,) = caught.value.__notes__
    assert "  app: stopped" in note
    assert "    app/sync: stopped" in note
    assert "ServiceReady(service='app/sync'" in note


async def test_a_failing_application_fails_the_test() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise Boom("always")

    tree = Supervisor("app", [Child(fail, restart="never")])
    with pytest.raises(RestartLimitExceeded):
        async with testing.host(tree):
            await trio.sleep_forever()


async def test_it_ends_when_the_work_is_done() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()

    async with testing.host(Supervisor("app", [work])) as app:
        await app.wait_ended()


async def test_a_cancelled_test_stops_the_application_in_order() -> None:
    stopped: list[events.Event] = []
    with trio.CancelScope() as scope:
        async with testing.host(idle()) as app:
            await app.ready()
            stopped = app.events
            scope.cancel()
            await trio.sleep_forever()
    assert isinstance(stopped[-1], events.ServiceStopped)


# -- doubles -------------------------------------------------------------------------------


class Client:
    async def fetch(self) -> str:
        raise Boom("the real one")


class FakeClient(Client):
    async def fetch(self) -> str:
        return "fake"


class Sync(Service):
    def __init__(self, client: Client) -> None:
        self.client = client

    async def run(self) -> None:
        KEPT.append(await self.client.fetch())
        await trio.sleep_forever()


async def test_what_services_ask_for_is_overridden_by_type() -> None:
    KEPT.clear()
    container = Container()
    container.provide(Client)
    tree = Supervisor("app", [Sync])
    async with testing.host(tree, container=container, overrides={Client: FakeClient()}) as app:
        await app.ready()
        await trio.testing.wait_all_tasks_blocked()
    assert KEPT == ["fake"]


async def test_an_override_of_what_nobody_provides_is_refused() -> None:
    with pytest.raises(PlanError, match="nothing provides Client"):
        async with testing.host(idle(), overrides={Client: FakeClient()}):
            pass


async def test_a_service_is_overridden_by_its_path_and_keeps_its_policy() -> None:
    inner = Supervisor("inner", [Child(fail_at_first, name="sync", backoff=EXACT)])
    tree = Supervisor("app", [inner, Child(idle(), name="other", after=["inner"])])
    async with testing.host(tree, overrides={"inner/sync": idle()}) as app:
        await app.ready()
        assert not any(isinstance(event, events.ServiceFailed) for event in app.events)
        assert tree.children[0].service is inner


async def test_an_override_of_a_service_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownService, match="'inner/sink' that could be overridden"):
        async with testing.host(idle(), overrides={"inner/sink": idle()}):
            pass


async def test_a_configured_application_runs_with_doubles(tmp_path: Path) -> None:
    file = tmp_path / "app.toml"
    file.write_text(
        '[host]\nname = "clocks"\nimports = ["tests"]\n'
        '[schedules.tell]\nevery = "1h"\ncall = "tests.testing.test_host:fail_at_first"\n'
    )
    file.chmod(0o644)
    async with testing.host(file, overrides={"tell": idle()}) as app:
        await app.ready()
        assert [event.service for event in app.events][-1] == "clocks"


# -- what is left --------------------------------------------------------------------------


async def test_a_thread_that_is_left_is_named() -> None:
    go = threading.Event()

    async def leak() -> None:
        thread = threading.Thread(target=go.wait, name="forgotten", daemon=True)
        thread.start()
        await trio.sleep_forever()

    try:
        with pytest.raises(testing.LeftBehind, match="thread forgotten"):
            async with testing.host(leak) as app:
                await app.ready()
                await trio.testing.wait_all_tasks_blocked()
    finally:
        go.set()


async def test_a_socket_that_is_left_is_named() -> None:
    async def leak() -> None:
        KEPT.append(socket.socket())
        await trio.sleep_forever()

    KEPT.clear()
    with pytest.raises(testing.LeftBehind, match="socket:"):
        async with testing.host(leak) as app:
            await app.ready()
            await trio.testing.wait_all_tasks_blocked()
    (left,) = KEPT
    assert isinstance(left, socket.socket)
    left.close()


async def test_a_child_process_that_is_left_is_named() -> None:
    async def leak() -> None:
        KEPT.append(subprocess.Popen(["sleep", "60"]))  # noqa: ASYNC220
        await trio.sleep_forever()

    KEPT.clear()
    with pytest.raises(testing.LeftBehind, match="child process"):
        async with testing.host(leak) as app:
            await app.ready()
            await trio.testing.wait_all_tasks_blocked()
    (left,) = KEPT
    assert isinstance(left, subprocess.Popen)
    left.kill()
    left.wait()


async def test_a_task_that_is_left_is_named_with_its_line() -> None:
    async def forgotten() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def leak() -> None:
            # As a library may do that has a nursery of its own: with the context of who asks.
            trio.lowlevel.spawn_system_task(
                forgotten, context=trio.lowlevel.current_task().context.copy()
            )
            await trio.sleep_forever()

        with pytest.raises(
            testing.LeftBehind, match=r"a task of app/leak: .*forgotten waits on sleep_forever"
        ):
            async with testing.host(leak) as app:
                await app.ready()
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_nothing_is_said_of_what_the_test_itself_does() -> None:
    async with trio.open_nursery() as nursery, testing.host(idle()) as app:
        await app.ready()
        nursery.start_soon(trio.sleep, 0.01)


async def test_a_queue_whose_books_do_not_balance_is_named() -> None:
    queue = WorkQueue[int]("numbers")

    async def handle(number: int) -> None:
        await trio.lowlevel.checkpoint()
        queue._accepted += 1

    with pytest.raises(testing.LeftBehind, match="open books of queue numbers: 2 accepted"):
        async with testing.host(Supervisor("app", [Workers(queue, handle)])):
            await queue.put(1)
            queue.close()
            await trio.testing.wait_all_tasks_blocked()


# -- virtual time --------------------------------------------------------------------------


async def test_a_week_of_schedules_passes_at_once(autojump_clock: MockClock) -> None:
    calls: list[datetime] = []

    async def tell() -> None:
        await trio.lowlevel.checkpoint()
        calls.append(app.wall.now())

    tree = Schedule(tell, cron="30 2 * * *", timezone="Europe/Berlin")
    friday = datetime(2026, 3, 27, 12, tzinfo=UTC)
    async with testing.host(tree, at=friday) as app:
        await app.ready()
        await trio.sleep(7 * 86400)
    assert [call.hour for call in calls] == [1, 1, 0, 0, 0, 0, 0]


async def test_the_wall_clock_may_be_set_forward(autojump_clock: MockClock) -> None:
    calls: list[float] = []

    async def tell() -> None:
        await trio.lowlevel.checkpoint()
        calls.append(trio.current_time())

    noon = datetime(2026, 3, 27, 12, tzinfo=UTC)
    async with testing.host(Schedule(tell, cron="0 18 * * *"), at=noon) as app:
        await app.ready()
        app.wall.jump(timedelta(hours=6))
        await trio.sleep(61.0)
        assert calls == [60.0]  # it is read once a minute


async def test_a_thread_in_virtual_time_is_refused(autojump_clock: MockClock) -> None:
    async def thread() -> None:
        await trio.to_thread.run_sync(int)

    with pytest.raises(testing.RealTimeUsed, match=r"thread waits on .* a thread takes real time"):
        async with testing.host(thread):
            await trio.sleep(1.0)


async def test_a_socket_in_virtual_time_is_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(testing.RealTimeUsed, match="a socket or a pipe"):
        async with testing.host(idle()):
            left, right = trio.socket.socketpair()
            with left, right:
                await left.recv(1)


async def test_threads_are_welcome_in_real_time() -> None:
    async with testing.host(idle()) as app:
        await app.ready()
        assert await trio.to_thread.run_sync(int) == 0


async def test_a_deadlock_is_told_with_what_each_task_waits_on(
    autojump_clock: MockClock,
) -> None:
    first, second = trio.Lock(), trio.Lock()

    async def one() -> None:
        async with first:
            await trio.sleep(1.0)
            async with second:
                pass

    async def other() -> None:
        async with second:
            await trio.sleep(1.0)
            async with first:
                pass

    with pytest.raises(testing.Deadlock) as caught:
        async with testing.host(Supervisor("app", [one, other])) as app:
            await app.wait_ended()
    told = str(caught.value)
    assert "app/one waits on" in told
    assert "in one: async with second:" in told
    assert "in other: async with first:" in told
    assert trio.current_time() == 1.0


async def test_waiting_for_a_time_is_no_deadlock(autojump_clock: MockClock) -> None:
    async with testing.host(idle()) as app:
        await app.ready()
        await trio.sleep(86400.0)
        await trio.testing.wait_all_tasks_blocked()

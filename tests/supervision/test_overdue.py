from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services import Child, RestartLimitExceeded, Service, StopOverdue, Supervisor
from trio_services.lifecycle import events

from .harness import AtOnce, Boom, Story, fails_after, fragile, idle, ready_after, using_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


def shielded(seconds: float, name: str = "sleeper") -> Callable[[], Awaitable[None]]:
    """Ignores its cancellation for so long."""

    async def service() -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            await oversleep()

    service.__name__ = name
    return service


async def oversleep() -> None:
    await trio.sleep_forever()


async def test_shielded_service_is_named_with_its_stack(autojump_clock: MockClock) -> None:
    story = Story()

    with pytest.raises(StopOverdue):
        async with story.open(Supervisor("app", [Child(shielded(20), stop_within=5)])):
            await trio.sleep(1)

    (overdue,) = story.of(events.ServiceOverdue)
    assert (overdue.service, overdue.at, overdue.overdue) == ("app/sleeper", 7, 1)
    assert "test_overdue.py" in overdue.stack
    assert "in oversleep" in overdue.stack
    assert "await trio.sleep_forever()" in overdue.stack
    assert "_supervision.py" not in overdue.stack
    assert trio.current_time() == 20


async def test_cancellation_does_not_put_off_the_naming(autojump_clock: MockClock) -> None:
    story = Story()

    with pytest.raises(StopOverdue):
        async with story.open(
            Supervisor("app", [Child(shielded(20), stop_within=5)]), stop_within=5.5
        ):
            pass

    assert story.times(events.ServiceOverdue, "app/sleeper") == [6]


async def test_swallower_is_named_until_it_gives_in(autojump_clock: MockClock) -> None:
    story = Story()

    async def swallower() -> None:
        begin = trio.current_time()
        while trio.current_time() < begin + 8:
            with trio.move_on_after(1, shield=True):
                await oversleep()
            with suppress(trio.Cancelled):
                await trio.lowlevel.checkpoint()
        await AtOnce()

    with pytest.raises(StopOverdue):
        async with story.open(Supervisor("app", [Child(swallower, stop_within=2)])):
            await trio.sleep(1)

    assert story.times(events.ServiceOverdue, "app/swallower") == [4]
    assert trio.current_time() == 8


async def test_stack_shows_the_tasks_of_the_service(autojump_clock: MockClock) -> None:
    story = Story()

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded(20), name="the child task")
            nursery.start_soon(idle)

    with pytest.raises(StopOverdue):
        async with story.open(Supervisor("app", [Child(parent, stop_within=0)])):
            await trio.sleep(1)

    (overdue,) = story.of(events.ServiceOverdue)
    assert "task the child task" in overdue.stack
    assert "in oversleep" in overdue.stack


async def test_others_stop_in_order_and_do_not_wait_for_an_overdue_one(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            ready_after(0, "db", story),
            Child(shielded(20), after="db", stop_within=5),
            ready_after(0, "other", story),
        ],
    )

    with pytest.raises(StopOverdue):
        async with story.open(tree):
            await trio.sleep(1)

    assert story.at("other left") == 1
    assert story.at("db left") == 7
    assert trio.current_time() == 20


async def test_service_that_ends_in_time_is_not_named(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(shielded(6.75), stop_within=5), using_all("a"), idle])

    async with story.open(tree):
        await trio.sleep(1)

    assert not story.of(events.ServiceOverdue)


async def test_each_overdue_service_is_named_once(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(shielded(40, "a"), stop_within=1),
            Child(shielded(50, "b"), stop_within=3),
            Child(shielded(60, "c"), stop_within=1, after="a"),
        ],
    )

    with pytest.raises(StopOverdue):
        async with story.open(tree):
            await trio.sleep(1)

    assert sorted((event.service, event.at) for event in story.of(events.ServiceOverdue)) == [
        ("app/a", 5),  # told when c was named
        ("app/b", 5),
        ("app/c", 3),
    ]


async def test_service_below_a_nested_supervisor_is_the_one_named(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor("inner", [Child(shielded(20), stop_within=2), idle])

    with pytest.raises(StopOverdue):
        async with story.open(Supervisor("app", [inner])):
            await trio.sleep(1)

    assert {event.service for event in story.of(events.ServiceOverdue)} == {"app/inner/sleeper"}


async def test_service_that_is_overdue_when_its_supervisor_gave_up_is_named(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [Child(shielded(20), stop_within=2), fragile(fails_after(1), name="bad")],
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert story.times(events.ServiceOverdue, "app/sleeper") == [4]


async def test_service_that_ran_a_supervisor_itself_is_named(autojump_clock: MockClock) -> None:
    story = Story()

    class Wrapper(Service):
        async def run(
            self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            try:
                await Supervisor("inner", [idle]).run(task_status=task_status)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
                    await oversleep()

    with pytest.raises(StopOverdue):
        async with story.open(Supervisor("app", [Child(Wrapper, stop_within=2)])):
            await trio.sleep(1)

    assert "app/Wrapper" in {event.service for event in story.of(events.ServiceOverdue)}


async def test_overdue_service_that_fails_in_the_end_is_told(autojump_clock: MockClock) -> None:
    story = Story()

    async def late() -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await trio.sleep_forever()
        raise Boom("too late")

    with pytest.raises(Exception, match="too late"):
        async with story.open(Supervisor("app", [Child(late, stop_within=0)])):
            await trio.sleep(1)

    assert story.sequence("app/late") == [
        "ServiceStarting",
        "ServiceReady",
        "ServiceStopping",
        "ServiceOverdue",
        "ServiceFailed",
    ]


async def test_hard_cancelled_service_is_named_a_moment_later(autojump_clock: MockClock) -> None:
    story = Story()

    async def cancelled() -> None:
        async with story.open(Supervisor("app", [Child(shielded(30), stop_within=20)])) as opened:
            await trio.sleep(1)
            opened.cancel()

    with pytest.raises(StopOverdue):
        await cancelled()

    assert story.times(events.ServiceOverdue, "app/sleeper") == [2]


async def test_service_that_ignores_its_start_time_out_is_named(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def deaf(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(9)

    tree = Supervisor("app", [Child(deaf, start_within=2, restart="never", critical=False)])
    async with story.open(tree):
        pass

    [event] = story.of(events.ServiceOverdue)
    assert (event.service, event.at) == ("app/deaf", 3)

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services import (
    Backoff,
    Child,
    Limit,
    RestartLimitExceeded,
    StopFailed,
    Supervisor,
    current_service,
    graceful,
    open_supervisor,
)
from trio_services.lifecycle import State, events
from trio_services.supervision import Tree

from .harness import (
    AT_ONCE,
    AtOnce,
    Boom,
    Story,
    broken,
    ending_within,
    fails_after,
    finishing,
    fragile,
    idle,
    lives_of,
    never_ready,
    ready_after,
    using_all,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_services.lifecycle import Bus


def raising_at_stop(name: str, error: BaseException | None = None) -> Callable[[], Awaitable[None]]:
    async def service() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error or Boom(f"{name} cannot close")

    service.__name__ = name
    return service


def open_ended(tree: Supervisor, bus: Bus) -> Tree:
    return Tree(tree, 30.0, bus, open_ended=True)


async def test_dependents_stop_first(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(finishing(3, story, "a")),
            Child(finishing(2, story, "b"), after="a"),
            Child(finishing(1, story, "c"), after="b"),
        ],
    )

    async with story.open(tree):
        pass

    assert story.order(events.ServiceStopping) == ["app/c", "app/b", "app/a"]
    assert story.order(events.ServiceStopped) == ["app/c", "app/b", "app/a"]
    assert [text for text in story.noted if "finished" in text] == [
        "c finished",
        "b finished",
        "a finished",
    ]


async def test_dependency_is_not_disturbed_until_its_dependents_have_ended(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            ready_after(0, "db", story),
            Child(finishing(4, story, "sync"), after="db"),
            Child(finishing(6, story, "report"), after="db"),
        ],
    )

    async with story.open(tree):
        stop = trio.current_time()

    assert story.at("db left") == stop + 6


async def test_unrelated_services_stop_together(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, name) for name in "abc"])):
        stop = trio.current_time()

    assert trio.current_time() == stop + 4


async def test_nested_supervisor_stops_in_the_order_of_both(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor(
        "inner",
        [Child(finishing(1, story, "b")), Child(finishing(1, story, "c"), after="b")],
        after="a",
    )

    async with story.open(Supervisor("app", [finishing(1, story, "a"), inner])):
        pass

    assert story.order(events.ServiceStopped) == [
        "app/inner/c",
        "app/inner/b",
        "app/inner",
        "app/a",
    ]
    assert "b finished" in story.noted


async def test_work_in_hand_finishes(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [Child(finishing(8, story, "a"), stop_within=10)])):
        await trio.sleep(1)

    assert "a finished" in story.noted


async def test_work_in_hand_is_cancelled_at_the_deadline(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [Child(using_all("a"), stop_within=4)])):
        await trio.sleep(1)

    assert trio.current_time() == 5
    assert [event.took for event in story.of(events.ServiceStopped, "app/a")] == [4]


async def test_what_is_not_work_in_hand_is_cancelled_at_once(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle, ready_after(0, "a")])):
        await trio.sleep(1)

    assert trio.current_time() == 1


async def test_work_in_child_tasks_finishes_too(autojump_clock: MockClock) -> None:
    story = Story()

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(finishing(3, story, "a"))
            nursery.start_soon(finishing(6, story, "b"))

    async with story.open(Supervisor("app", [service])):
        await trio.sleep(1)

    assert [text for text in story.noted if "finished" in text] == ["a finished", "b finished"]


async def test_work_begun_during_the_stop_obeys_the_same_deadline(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def flush() -> None:
        with graceful():
            await trio.sleep(3)
            story.note("flushed")
        with graceful():
            await trio.sleep(3)
            story.note("too late")

    async def service() -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(flush)
            await trio.sleep_forever()

    async with story.open(Supervisor("app", [Child(service, stop_within=5)])):
        await trio.sleep(1)

    assert story.notes == [(4, "flushed")]
    assert trio.current_time() == 6


async def test_nested_supervisor_finishes_its_work_long_after_its_start(
    autojump_clock: MockClock,
) -> None:
    # Longer after it than the time that it had for its start.
    story = Story()
    inner = Supervisor("inner", [finishing(4, story, "a")])

    async with story.open(Supervisor("app", [Child(inner, start_within=30)])):
        await trio.sleep(100)

    assert "a finished" in story.noted


async def test_nested_supervisor_keeps_its_order_long_after_its_start(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor("inner", [using_all("a"), Child(using_all("b"), after="a")])

    async with story.open(Supervisor("app", [inner])):
        await trio.sleep(100)

    assert story.times(events.ServiceStopped, "app/inner/b") == [110]
    assert story.times(events.ServiceStopped, "app/inner/a") == [120]


async def test_work_begun_before_readiness_finishes(autojump_clock: MockClock) -> None:
    story = Story()

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        with graceful():
            task_status.started()
            await trio.sleep(51)
            story.note("finished")

    async with story.open(Supervisor("app", [Child(service, start_within=30)])):
        await trio.sleep(50)

    assert story.noted == ["finished"]


async def test_stop_during_start_up_cancels_it(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [ready_after(10, "a", story), Child(ready_after(0, "b", story), after="a")]
    )

    with trio.move_on_after(4):
        async with story.open(tree):
            pytest.fail("it was not ready")

    assert story.notes == [(0, "a entered"), (4, "a left")]
    assert not story.of(events.ServiceReady)
    assert not story.of(events.ServiceFailed)


async def test_stop_during_start_up_spares_work_in_hand(autojump_clock: MockClock) -> None:
    story = Story()

    async def migrating(*, task_status: trio.TaskStatus[None]) -> None:
        with graceful():
            await trio.sleep(8)
            story.note("migrated")
        await trio.sleep(100)
        task_status.started()

    with trio.move_on_after(4):
        async with story.open(Supervisor("app", [migrating])):
            pytest.fail("it was not ready")

    assert story.notes == [(8, "migrated")]
    assert trio.current_time() == 8


async def test_stop_ends_a_backoff(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(fails_after(1), backoff=Backoff(initial=50, jitter=0))])

    async with story.open(tree) as opened:
        await trio.sleep(2)

    assert trio.current_time() == 2
    assert opened.life.children["service"].state is State.STOPPED
    assert len(story.of(events.ServiceStarting, "app/service")) == 1


async def test_stop_at_the_end_of_a_backoff_starts_nobody(autojump_clock: MockClock) -> None:
    # The delay and the block end at the same moment, in either order.
    for _ in range(20):
        story = Story()
        begin = trio.current_time()
        backoff = Backoff(initial=4, jitter=0)
        async with story.open(Supervisor("app", [Child(fails_after(1), backoff=backoff)])):
            await trio.sleep_until(begin + 5)
        stopping = story.times(events.ServiceStopping, "app")[0]
        told = story.events.index(story.of(events.ServiceStopping, "app")[0])
        assert stopping == begin + 5
        assert not any(isinstance(event, events.ServiceStarting) for event in story.events[told:])


async def test_stop_while_waiting_for_a_dependency_starts_nobody(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    children = [Child(never_ready, name="c0", start_within=100)]
    children += [Child(ready_after(0, f"c{n}", story), after=f"c{n - 1}") for n in range(1, 30)]
    tree = Supervisor("app", children, stop_within=1)

    with trio.move_on_after(4):
        async with story.open(tree):
            pytest.fail("it was not ready")

    assert story.noted == []
    assert story.tree is not None
    assert {life.state for life in lives_of(story.tree.life)} == {State.STOPPED}


async def test_stop_lets_nobody_start_whose_dependency_becomes_ready_meanwhile(
    autojump_clock: MockClock,
) -> None:
    # The dependency is told to stop last, and becomes ready while its dependents are told.
    story = Story()

    async def busy(*, task_status: trio.TaskStatus[None]) -> None:
        opened.request_stop()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        task_status.started()
        await trio.sleep_forever()

    children = [Child(busy, name="c0")]
    children += [Child(ready_after(0, f"c{n}", story), after=f"c{n - 1}") for n in range(1, 30)]
    opened = open_ended(Supervisor("app", children, stop_within=1), story.bus)

    async with opened.open():
        await opened.wait_ended()

    assert story.noted == []


async def test_stop_before_the_start_starts_nobody(autojump_clock: MockClock) -> None:
    for _ in range(10):
        story = Story()
        with trio.CancelScope() as scope:
            scope.cancel()
            async with story.open(Supervisor("app", [ready_after(0, "a", story)])):
                pytest.fail("it was cancelled before")
        assert story.tree is None or all(life.state.ended for life in lives_of(story.tree.life))


async def test_stop_requested_by_a_service_before_its_readiness_is_no_failure(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        opened.request_stop()
        task_status.started()
        await trio.sleep_forever()

    opened = open_ended(Supervisor("app", [service]), story.bus)

    with story.bus.listening(story.events.append):
        async with opened.open():
            await opened.wait_ended()

    assert not story.of(events.ServiceFailed)
    assert opened.life.children["service"].state is State.STOPPED


@pytest.mark.parametrize(
    "moment",
    [
        events.ServiceStarting,
        events.ServiceReady,
        events.ServiceFailed,
        events.ServiceRestarting,
        events.ServiceReturned,
        events.ServiceStopping,
        events.ServiceStopped,
    ],
)
@pytest.mark.parametrize("whose", ["app", "app/a", "app/b", "app/c", "app/d", "app/e"])
async def test_listener_may_request_a_stop_at_any_moment(
    autojump_clock: MockClock, moment: type[events.Event], whose: str
) -> None:
    story = Story()

    async def job() -> None:
        await trio.sleep(1)

    tree = Supervisor(
        "app",
        [
            fragile(broken, name="a", critical=False),
            Child(fails_after(0, 1), name="b", after="a", backoff=AT_ONCE),
            fragile(job, name="c", after="b"),
            fragile(failing_start, name="d", critical=False),
            ready_after(0, "e"),
        ],
    )
    opened = open_ended(tree, story.bus)

    def listen(event: events.Event) -> None:
        story.events.append(event)
        if isinstance(event, moment) and event.service == whose:
            opened.request_stop()

    with story.bus.listening(listen), ending_within(3):
        async with opened.open():
            await trio.sleep(2)

    assert [event.failure.type for event in story.of(events.ServiceFailed)] == ["Boom"] * len(
        story.of(events.ServiceFailed)
    )
    assert all(life.state.ended for life in lives_of(opened.life))


async def failing_start(*, task_status: trio.TaskStatus[None]) -> None:
    await AtOnce(Boom("refused"))


def test_stop_after_a_noncritical_start_failed_ends() -> None:
    # In a process of its own, because nothing else ends a tree that waits for ever.
    program = """
        import trio, trio.testing
        from trio_services import Child, Supervisor
        from trio_services.lifecycle import Bus, events
        from trio_services.supervision import Tree

        async def failing(*, task_status):
            raise ValueError("refused")

        def stop(event):
            if isinstance(event, events.ServiceFailed):
                tree.request_stop()

        async def main():
            global tree
            bus = Bus()
            children = [Child(failing, restart="never", critical=False)]
            tree = Tree(Supervisor("app", children), 30, bus, open_ended=True)
            with bus.listening(stop):
                async with tree.open():
                    await tree.wait_ended()

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parents[2],
        timeout=5,
        check=False,
    )

    assert done.returncode == 0


async def test_service_that_fails_while_stopping_does_not_keep_the_others(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            ready_after(0, "a", story),
            Child(raising_at_stop("b"), after="a"),
            ready_after(0, "c", story),
        ],
    )

    with pytest.raises(StopFailed):
        async with story.open(tree):
            await trio.sleep(1)

    assert sorted(story.noted) == ["a entered", "a left", "c entered", "c left"]


async def test_all_failures_while_stopping_are_told(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [
            raising_at_stop("a"),
            Child(raising_at_stop("b"), after="a"),
            Supervisor("inner", [raising_at_stop("c")]),
        ],
    )

    with pytest.raises(StopFailed) as caught:
        async with open_supervisor(tree):
            await trio.sleep(1)

    assert {failure.service for failure in caught.value.failures} == {
        "app/a",
        "app/b",
        "app/inner",
    }
    for name in ("app/a: Boom: a cannot close", "app/b: Boom", "app/inner/c: Boom: c cannot"):
        assert name in str(caught.value)


async def test_service_that_failed_while_stopping_is_not_started_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(raising_at_stop("a"), restart="always", backoff=AT_ONCE)])

    with pytest.raises(StopFailed):
        async with story.open(tree):
            await trio.sleep(1)

    assert len(story.of(events.ServiceStarting, "app/a")) == 1
    assert [event.stopping for event in story.of(events.ServiceFailed)] == [True]


async def test_return_at_a_stop_is_no_failure(autojump_clock: MockClock) -> None:
    async def polite() -> None:
        with graceful():
            await current_service().wait_stop_requested()

    story = Story()

    async with story.open(Supervisor("app", [Child(polite, restart="always")])):
        await trio.sleep(1)

    assert story.sequence("app/polite") == [
        "ServiceStarting",
        "ServiceReady",
        "ServiceStopping",
        "ServiceStopped",
    ]


async def test_stop_is_requested_before_the_cancellation(autojump_clock: MockClock) -> None:
    seen: list[bool] = []

    async def service() -> None:
        life = current_service()
        seen.append(life.stop_requested)
        try:
            await trio.sleep_forever()
        finally:
            seen.append(life.stop_requested)

    async with open_supervisor(Supervisor("app", [service])):
        pass

    assert seen == [False, True]


async def test_failed_start_stops_what_had_started(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            ready_after(1, "db", story),
            Child(ready_after(1, "cache", story), after="db"),
            fragile(failing_later, name="bad", after="cache"),
        ],
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert story.noted == ["db entered", "cache entered", "cache left", "db left"]


async def failing_later(*, task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep(1)
    raise Boom("refused")


async def test_request_while_giving_up_ends_in_the_failure(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [fragile(fails_after(1), name="bad"), Child(using_all("a"), stop_within=5)]
    )
    opened = open_ended(tree, story.bus)

    async def late() -> None:
        await trio.sleep(2)
        opened.request_stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        with pytest.raises(RestartLimitExceeded):
            async with opened.open():
                await trio.sleep_forever()

    assert trio.current_time() == 6


async def test_failure_while_giving_up_is_told(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [fragile(fails_after(1), name="bad"), raising_at_stop("a")])

    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(tree):
            await trio.sleep_forever()

    assert "app/bad: Boom: broken" in str(caught.value)
    assert "app/a: Boom: a cannot close" in str(caught.value)


async def test_exit_asked_for_while_giving_up_is_not_lost(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app", [fragile(fails_after(1), name="bad"), raising_at_stop("a", SystemExit(7))]
    )

    with pytest.raises((SystemExit, RestartLimitExceeded)) as caught:
        async with open_supervisor(tree):
            await trio.sleep_forever()

    assert isinstance(caught.value, SystemExit) or "SystemExit" in str(caught.value)


async def test_restarts_end_when_the_supervisor_gives_up(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(fails_after(1), name="a", backoff=Backoff(initial=9, jitter=0)),
            Child(fails_after(2, 2), name="b", backoff=AT_ONCE),
        ],
        max_restarts=Limit(2, per=60),
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 4
    assert len(story.of(events.ServiceStarting, "app/a")) == 1


async def test_hard_cancellation_reaches_work_in_hand_everywhere(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            using_all("a"),
            Supervisor("inner", [using_all("b"), Supervisor("innermost", [using_all("c")])]),
            Child(using_all("d"), after="a"),
        ],
    )
    opened = open_ended(tree, story.bus)

    async with opened.open():
        await trio.sleep(1)
        opened.cancel()
        await opened.wait_ended()

    assert trio.current_time() == 1
    assert all(life.state.ended for life in lives_of(opened.life))


async def test_hard_cancellation_in_the_middle_of_a_stop(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [using_all("a"), Child(using_all("b"), after="a"), Supervisor("inner", [using_all("c")])],
    )
    opened = open_ended(tree, story.bus)

    async with opened.open():
        await trio.sleep(1)
        opened.request_stop()
        await trio.sleep(2)
        opened.cancel()
        await opened.wait_ended()

    assert trio.current_time() == 3


async def test_hard_cancellation_while_giving_up(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [fragile(fails_after(1), name="bad"), using_all("a")])
    opened = open_ended(tree, Story().bus)

    async def impatient() -> None:
        await trio.sleep(3)
        opened.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        with pytest.raises(RestartLimitExceeded):
            async with opened.open():
                await trio.sleep_forever()

    assert trio.current_time() == 3


async def test_stop_of_an_open_tree_whose_services_are_done(autojump_clock: MockClock) -> None:
    async def job() -> None:
        await trio.sleep(1)

    with ending_within(5):
        async with open_supervisor(Supervisor("app", [job])) as opened:
            await trio.sleep(5)
            assert opened.ready

    assert opened.life.state is State.STOPPED


async def test_stop_may_be_requested_again(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [using_all("a")])) as opened:
        opened.request_stop()
        with trio.move_on_after(3, shield=True):
            await trio.sleep(2)
        opened.request_stop()

    assert trio.current_time() == 10
    assert len(story.of(events.ServiceStopping, "app")) == 1


async def test_dependency_that_fails_during_the_stop_is_still_stopped(
    autojump_clock: MockClock,
) -> None:
    # It is needed until its dependents have ended, and not told to stop before.
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(fails_after(3), name="db", backoff=AT_ONCE),
            Child(finishing(6, story, "sync"), after="db"),
        ],
    )

    async with story.open(tree) as opened:
        await trio.sleep(1)

    assert "sync finished" in story.noted
    assert all(life.state.ended for life in lives_of(opened.life))


async def test_failure_before_and_at_the_stop_are_both_published(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    runs = 0

    async def service() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Boom("first")
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("last")

    with pytest.raises(StopFailed) as caught:
        async with story.open(Supervisor("app", [Child(service, backoff=AT_ONCE)])):
            await trio.sleep(1)

    assert [failure.message for failure in caught.value.failures] == ["last"]
    assert [event.failure.message for event in story.of(events.ServiceFailed)] == ["first", "last"]


async def test_cancellation_with_an_error_in_one_group_is_split(autojump_clock: MockClock) -> None:
    story = Story()

    async def service() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle)
            nursery.start_soon(raising_at_stop("part"))
            await trio.sleep_forever()

    with pytest.raises(StopFailed) as caught:
        async with story.open(Supervisor("app", [service])):
            await trio.sleep(1)

    assert [(failure.type, failure.message) for failure in caught.value.failures] == [
        ("Boom", "part cannot close")
    ]


async def test_hard_cancelled_services_were_told_to_stop_first(autojump_clock: MockClock) -> None:
    story = Story()
    opened = open_ended(Supervisor("app", [idle, Child(using_all("b"), after="idle")]), story.bus)

    with story.bus.listening(story.events.append):
        async with opened.open():
            opened.cancel()
            await opened.wait_ended()

    for name in ("app/idle", "app/b"):
        assert story.sequence(name)[-2:] == ["ServiceStopping", "ServiceStopped"]


async def test_service_waits_for_those_that_come_after_it_through_one_that_has_ended(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def migrate() -> None:
        await trio.sleep(1)

    tree = Supervisor(
        "app",
        [
            ready_after(0, "db", story),
            Child(migrate, after="db"),
            Child(finishing(6, story, "sync"), after="migrate"),
        ],
    )
    async with story.open(tree):
        await trio.sleep(2)

    assert story.at("sync left") == 8
    assert story.at("db left") == 8

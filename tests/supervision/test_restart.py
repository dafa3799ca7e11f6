from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Literal

import pytest
import trio
import trio.testing

from trio_services import (
    Backoff,
    Child,
    Limit,
    RestartLimitExceeded,
    Supervisor,
    graceful,
    open_supervisor,
)
from trio_services.lifecycle import State, events

from .harness import (
    AT_ONCE,
    EVER_SO_OFTEN,
    AtOnce,
    Boom,
    Story,
    broken,
    ending_within,
    fails_after,
    fragile,
    idle,
    ready_after,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_services.supervision import Restart


async def returning() -> None:
    await trio.sleep(1)


async def failing() -> None:
    await trio.sleep(1)
    raise Boom("again")


@pytest.mark.parametrize(
    ("restart", "service", "outcome"),
    [
        ("always", returning, "restarts"),
        ("always", failing, "restarts"),
        ("on_failure", returning, "done"),
        ("on_failure", failing, "restarts"),
        ("never", returning, "done"),
        ("never", failing, "escalates"),
    ],
)
async def test_policy_decides_what_follows(
    autojump_clock: MockClock,
    restart: Restart,
    service: Callable[[], Awaitable[None]],
    outcome: Literal["restarts", "done", "escalates"],
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(service, name="a", restart=restart, backoff=AT_ONCE)])

    try:
        async with story.open(tree) as opened:
            await trio.sleep(2.5)
            state = opened.life.children["a"].state
    except RestartLimitExceeded:
        await AtOnce()
        assert outcome == "escalates"
        assert trio.current_time() == 1
    else:
        assert outcome == {State.DONE: "done", State.RUNNING: "restarts"}[state]
    assert len(story.of(events.ServiceStarting, "app/a")) == (3 if outcome == "restarts" else 1)


async def test_supervisor_gives_its_children_their_policy(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(returning, name="a")], restart="always", backoff=AT_ONCE)

    async with story.open(tree):
        await trio.sleep(2.5)

    assert story.times(events.ServiceStarting, "app/a") == [0, 1, 2]


async def test_delays_grow_to_the_cap(autojump_clock: MockClock) -> None:
    story = Story()
    backoff = Backoff(initial=0.5, factor=2, cap=3, jitter=0)
    tree = Supervisor("app", [Child(broken, backoff=backoff)])

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert [event.delay for event in story.of(events.ServiceRestarting)] == [0.5, 1, 2, 3, 3]
    assert story.times(events.ServiceStarting, "app/broken") == [0, 0.5, 1.5, 3.5, 6.5, 9.5]


async def test_delays_start_anew_after_healthy_running(autojump_clock: MockClock) -> None:
    story = Story()
    backoff = Backoff(initial=1, factor=2, jitter=0, reset_after=60)
    tree = Supervisor("app", [Child(fails_after(0, 0, 60, 59), name="a", backoff=backoff)])

    async with story.open(tree):
        await trio.sleep(500)

    assert [event.delay for event in story.of(events.ServiceRestarting)] == [1, 2, 1, 2]


async def test_time_before_readiness_is_no_healthy_running(autojump_clock: MockClock) -> None:
    story = Story()
    backoff = Backoff(initial=1, factor=2, jitter=0, reset_after=5)

    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(6)
        raise Boom("refused")

    tree = Supervisor("app", [Child(slow, backoff=backoff)], max_restarts=Limit(3, per=60))

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert [event.delay for event in story.of(events.ServiceRestarting)] == [1, 2, 4]


async def test_delays_of_one_child_do_not_lengthen_those_of_another(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    backoff = Backoff(initial=1, factor=2, jitter=0)
    children = [Child(fails_after(0, 0), name="a"), Child(fails_after(10, 0), name="b")]

    async with story.open(Supervisor("app", children, backoff=backoff)):
        await trio.sleep(30)

    delays = {
        name: [event.delay for event in story.of(events.ServiceRestarting, f"app/{name}")]
        for name in "ab"
    }
    assert delays == {"a": [1, 2], "b": [1, 2]}


async def test_restarted_service_is_backing_off_meanwhile(autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=4, jitter=0)
    tree = Supervisor("app", [Child(fails_after(1), name="a", backoff=backoff)])

    async with open_supervisor(tree) as opened:
        life = opened.life.children["a"]
        await trio.sleep(2)
        assert state_of(life) is State.BACKING_OFF
        assert life.failure is not None
        assert (life.failure.type, life.failure.message) == ("Boom", "broken")
        await trio.sleep(3.5)
        assert state_of(life) is State.RUNNING


async def test_as_many_restarts_as_allowed_are_made(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [Child(fails_after(0, 0, 0), name="a", backoff=AT_ONCE)], max_restarts=Limit(3, 60)
    )

    async with story.open(tree) as opened:
        await trio.sleep(1)
        assert opened.ready

    assert len(story.of(events.ServiceStarting, "app/a")) == 4


async def test_one_restart_more_than_allowed_escalates(autojump_clock: MockClock) -> None:
    story = Story()
    service = fails_after(1, 1, 1, 1)
    tree = Supervisor("app", [Child(service, name="a", backoff=AT_ONCE)], max_restarts=Limit(3, 60))

    with pytest.raises(RestartLimitExceeded) as caught:
        async with story.open(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 4
    assert len(story.of(events.ServiceStarting, "app/a")) == 4
    assert caught.value.supervisor == "app"
    assert [failure.message for failure in caught.value.failures] == ["broken"] * 4
    assert isinstance(caught.value.__cause__, Boom)


async def test_window_of_restarts_slides(autojump_clock: MockClock) -> None:
    # Restarts at 4, 8, 12, …: never more than two within any 8 s; a fixed window would see three.
    story = Story()
    tree = Supervisor(
        "app",
        [Child(fails_after(*[4.0] * 10), name="a", backoff=AT_ONCE)],
        max_restarts=Limit(2, per=8),
    )

    async with story.open(tree) as opened:
        await trio.sleep(100)
        assert opened.ready

    assert len(story.of(events.ServiceStarting, "app/a")) == 11


async def test_restarts_a_moment_within_the_window_escalate(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [Child(fails_after(4, 4, 3.75), name="a", backoff=AT_ONCE)],
        max_restarts=Limit(2, per=8),
    )

    with pytest.raises(RestartLimitExceeded):
        async with open_supervisor(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 11.75


async def test_window_is_shared_by_the_children(autojump_clock: MockClock) -> None:
    children = [Child(fails_after(n), name=f"c{n}", backoff=AT_ONCE) for n in range(1, 4)]

    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(Supervisor("app", children, max_restarts=Limit(2, per=60))):
            await trio.sleep_forever()

    assert [failure.service for failure in caught.value.failures] == ["app/c1", "app/c2", "app/c3"]


async def test_restarts_after_returns_count_too(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [Child(returning, restart="always", backoff=AT_ONCE)],
        max_restarts=Limit(2, per=60),
    )

    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 3
    assert caught.value.failures == ()


async def test_without_restarts_allowed_the_first_failure_escalates(
    autojump_clock: MockClock,
) -> None:
    tree = Supervisor("app", [fails_after(3)], max_restarts=Limit(0, per=1))

    with pytest.raises(RestartLimitExceeded):
        async with open_supervisor(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 3


async def test_giving_up_stops_the_others_in_order(autojump_clock: MockClock) -> None:
    story = Story()

    def draining(name: str) -> Callable[[], Awaitable[None]]:
        async def service() -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(2, shield=True):
                    await trio.sleep(1)
                story.note(name)

        return service

    tree = Supervisor(
        "app",
        [
            Child(draining("db"), name="db"),
            Child(draining("sync"), name="sync", after="db"),
            fragile(fails_after(5), name="bad"),
        ],
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert story.notes == [(6, "sync"), (7, "db")]


async def test_critical_failure_without_restart_escalates_at_once(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(RestartLimitExceeded, match="app/a is critical and not restarted") as caught:
        async with open_supervisor(Supervisor("app", [fragile(fails_after(3), name="a"), idle])):
            await trio.sleep_forever()

    assert trio.current_time() == 3
    assert isinstance(caught.value.__cause__, Boom)


async def test_noncritical_failure_without_restart_stays_down(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [fragile(fails_after(3), name="a", critical=False), idle])

    async with story.open(tree) as opened:
        await trio.sleep(100)
        assert opened.life.children["a"].state is State.FAILED
        assert opened.ready

    assert story.sequence("app/a") == ["ServiceStarting", "ServiceReady", "ServiceFailed"]


async def test_failing_supervisor_is_restarted_by_the_one_above(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor("inner", [ready_after(0, "a", story), fragile(fails_after(5), name="bad")])
    tree = Supervisor("app", [Child(inner, backoff=Backoff(initial=2, jitter=0))])

    async with story.open(tree) as opened:
        await trio.sleep(20)
        assert opened.ready

    assert story.notes == [(0, "a entered"), (5, "a left"), (7, "a entered"), (20, "a left")]
    assert len(story.of(events.SupervisorGaveUp, "app/inner")) == 1
    assert [event.failure.type for event in story.of(events.ServiceFailed, "app/inner")] == [
        "RestartLimitExceeded"
    ]


async def test_escalation_goes_up_the_tree(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Supervisor(
                "middle",
                [Supervisor("inner", [failing], max_restarts=Limit(2, per=60))],
                max_restarts=Limit(1, per=60),
            )
        ],
        max_restarts=Limit(0, per=60),
    )

    with pytest.raises(RestartLimitExceeded) as caught:
        async with story.open(tree):
            await trio.sleep_forever()

    # Three runs of the service for each of the two of its supervisor.
    assert len(story.of(events.ServiceStarting, "app/middle/inner/failing")) == 6
    assert [event.service for event in story.of(events.SupervisorGaveUp)] == [
        "app/middle/inner",
        "app/middle/inner",
        "app/middle",
        "app",
    ]
    cause = caught.value.__cause__
    assert isinstance(cause, RestartLimitExceeded)
    assert cause.supervisor == "app/middle"


async def test_story_of_an_escalation_names_the_first_cause(autojump_clock: MockClock) -> None:
    inner = Supervisor("inner", [fragile(fails_after(1, error=Boom("disk on fire")), name="a")])

    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(Supervisor("app", [fragile(inner)])):
            await trio.sleep_forever()

    lines = str(caught.value).splitlines()
    assert lines[0].startswith("app gave up: app/inner is critical")
    assert any("app/inner/a: Boom: disk on fire" in line for line in lines)
    assert len(lines) <= 4


async def test_alike_failures_are_told_once_with_their_count(autojump_clock: MockClock) -> None:
    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(Supervisor("app", [Child(broken, backoff=AT_ONCE)])):
            await trio.sleep_forever()

    lines = str(caught.value).splitlines()
    assert len(lines) == 2, lines
    assert lines[1].endswith("(6 times)")


async def test_siblings_run_on_while_one_restarts(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [ready_after(0, "a", story), fails_after(1, 1, 1)])

    async with story.open(tree):
        await trio.sleep(50)
        assert story.noted == ["a entered"]


async def test_other_tasks_get_their_turn_while_one_restarts_without_delay(
    autojump_clock: MockClock,
) -> None:
    starts = 0

    async def quick() -> None:
        nonlocal starts
        starts += 1
        await AtOnce()

    tree = Supervisor(
        "app",
        [Child(quick, restart="always", backoff=AT_ONCE)],
        max_restarts=EVER_SO_OFTEN,
    )

    with ending_within(10):
        async with open_supervisor(tree):
            for _ in range(20):
                await trio.lowlevel.checkpoint()

    assert 5 < starts < 100


async def test_no_delay_stays_no_delay(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [Child(fails_after(*[0.0] * 1_500), backoff=Backoff(initial=0, jitter=0))],
        max_restarts=EVER_SO_OFTEN,
    )

    async with open_supervisor(tree) as opened:
        await trio.testing.wait_all_tasks_blocked()
        assert opened.life.children["service"].attempt == 1_501


async def test_past_failures_are_not_kept_alive(autojump_clock: MockClock) -> None:
    alive: weakref.WeakSet[Boom] = weakref.WeakSet()
    starts = 0

    async def crashing() -> None:
        nonlocal starts
        starts += 1
        if starts > 2_000:
            await trio.sleep_forever()
        error = Boom("again")
        alive.add(error)
        raise error

    tree = Supervisor("app", [Child(crashing, backoff=AT_ONCE)], max_restarts=EVER_SO_OFTEN)

    async with open_supervisor(tree):
        await trio.testing.wait_all_tasks_blocked()
        assert starts == 2_001
        gc.collect()
        assert len(alive) == 0


async def test_past_instances_are_not_kept_alive(autojump_clock: MockClock) -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    starts = 0

    class Crashing:
        def __init__(self) -> None:
            alive.add(self)

        async def __call__(self) -> None:
            nonlocal starts
            starts += 1
            if starts > 500:
                await trio.sleep_forever()
            with graceful():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(broken)
                    nursery.start_soon(idle)

    async def fresh() -> None:
        await Crashing()()

    tree = Supervisor("app", [Child(fresh, backoff=AT_ONCE)], max_restarts=EVER_SO_OFTEN)

    async with open_supervisor(tree):
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert len(alive) == 1


async def test_failure_without_garbage_collection_leaves_no_cycle(
    autojump_clock: MockClock,
) -> None:
    alive: weakref.WeakSet[Boom] = weakref.WeakSet()
    starts = 0

    async def crashing() -> None:
        nonlocal starts
        starts += 1
        if starts > 50:
            await trio.sleep_forever()
        alive.add(error := Boom("again"))
        try:
            raise error
        finally:
            del error

    tree = Supervisor("app", [Child(crashing, backoff=AT_ONCE)], max_restarts=EVER_SO_OFTEN)

    gc.collect()
    gc.disable()
    try:
        async with open_supervisor(tree):
            await trio.testing.wait_all_tasks_blocked()
            assert len(alive) == 0
    finally:
        gc.enable()

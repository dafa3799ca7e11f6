"""What a tree tells of itself: statistics and health."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Health,
    Limit,
    RestartLimitExceeded,
    Service,
    Supervisor,
    current_service,
    open_supervisor,
)
from trio_services.lifecycle import HealthStatus, State, events
from trio_services.resilience import BreakerState
from trio_services.supervision import Tree

from .harness import (
    AtOnce,
    Boom,
    Story,
    fails_after,
    finishing,
    fragile,
    idle,
    never_ready,
    ready_after,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_services.supervision import ServiceStatistics

IN_10 = Backoff(initial=10, factor=1, jitter=0)
EXACT = Breaker(failures=1, reset_after=30, healthy_after=10, jitter=0)


def of(tree: Tree | None, path: str) -> ServiceStatistics:
    """The statistics of one service, by its path below the root."""
    assert tree is not None
    return next(one for one in tree.statistics().walk() if one.name == f"app/{path}")


def named(name: str) -> Callable[[], Awaitable[None]]:
    async def service() -> None:
        await trio.sleep_forever()

    service.__name__ = name
    return service


class Checked(Service):
    """Says how it is as it is told to, after so many seconds."""

    def __init__(self, answer: Health | BaseException | object, seconds: float = 0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.asked = 0
        self.cancelled = False

    async def run(self) -> None:
        await trio.sleep_forever()

    async def check(self) -> Health:
        self.asked += 1
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled = True
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]


HEALTHY, DEGRADED, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY
SICK = Health.unhealthy("sick")


# -- every field in every state ----------------------------------------------------------


async def test_running_service_in_full(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [ready_after(3, "a")])) as tree:
        await trio.sleep_until(5)
        one = of(tree, "a")

    assert attrs.asdict(one, recurse=False) == {
        "name": "app/a",
        "state": State.RUNNING,
        "since": 3,
        "restarts": 0,
        "failure": None,
        "next_start": None,
        "breaker": None,
        "waits_on": (),
        "tasks": (),
        "work": None,
        "critical": True,
        "health": Health.healthy(),
        "children": (),
    }


async def test_root_in_full(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [ready_after(3, "a")])) as tree:
        await trio.sleep_until(5)
        root = tree.statistics()

    assert (root.name, root.state, root.since) == ("app", State.RUNNING, 3)
    assert (root.restarts, root.failure, root.next_start) == (0, None, None)
    assert (root.breaker, root.waits_on, root.tasks) == (None, (), ())
    assert root.critical
    assert root.health == Health.healthy()
    assert [one.name for one in root.children] == ["app/a"]


async def test_service_that_backs_off_in_full(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [Child(fails_after(2), name="a", backoff=IN_10, critical=False)])

    async with open_supervisor(tree) as opened:
        await trio.sleep_until(5)
        one = of(opened, "a")
        await trio.sleep_until(13)
        again = of(opened, "a")

    assert (one.state, one.since, one.next_start, one.restarts) == (State.BACKING_OFF, 2, 12, 0)
    assert one.failure is not None
    assert (one.failure.type, one.failure.message, one.failure.at) == ("Boom", "broken", 2)
    assert not one.critical
    assert one.health.status is DEGRADED
    assert "app/a is backing off after Boom" in one.health.reason
    assert (again.state, again.since, again.next_start, again.restarts) == (
        State.RUNNING, 12, None, 1
    )  # fmt: skip
    assert again.failure == one.failure  # its last one, which is remembered
    assert again.health == Health.healthy()


async def test_start_of_a_tree_state_by_state(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [ready_after(4, "db"), Child(ready_after(2, "sync"), after="db")], breaker=EXACT
    )

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(tree):
                await trio.sleep_until(10)

        await trio.sleep(1)
        db, sync = of(story.tree, "db"), of(story.tree, "sync")
        assert (db.state, db.since, db.waits_on) == (State.STARTING, 0, ())
        assert db.health == Health.unhealthy("app/db is starting")
        assert (sync.state, sync.waits_on) == (State.WAITING, ("app/db",))
        assert sync.health == Health.unhealthy("app/sync is waiting")
        assert sync.breaker is BreakerState.CLOSED
        assert story.tree is not None
        assert story.tree.statistics().state is State.STARTING
        assert story.tree.statistics().health.status is UNHEALTHY
        await trio.sleep_until(5)
        sync = of(story.tree, "sync")
        assert (sync.state, sync.since, sync.waits_on) == (State.STARTING, 4, ())
        await trio.sleep_until(7)
        assert (of(story.tree, "sync").state, of(story.tree, "sync").since) == (State.RUNNING, 6)
        assert story.tree.statistics().health == Health.healthy()


async def test_each_way_to_end(autojump_clock: MockClock) -> None:
    async def job() -> None:
        await trio.sleep(1)

    tree = Supervisor(
        "app", [job, fragile(fails_after(2), name="bad", critical=False), named("stopped")]
    )

    async with open_supervisor(tree) as opened:
        await trio.sleep_until(3)
        await opened.stop("stopped")
        done, failed, stopped = opened.statistics().children

    assert (done.state, done.since, done.health) == (State.DONE, 1, Health.healthy())
    assert (failed.state, failed.since) == (State.FAILED, 2)
    assert failed.health == Health.degraded("app/bad is down after Boom")
    assert failed.next_start is None
    assert (stopped.state, stopped.since) == (State.STOPPED, 3)
    assert stopped.health == Health.unhealthy("app/stopped is stopped")


async def test_service_that_stops_is_told_as_such(autojump_clock: MockClock) -> None:
    story = Story()

    async with (
        story.open(Supervisor("app", [finishing(5, story, "a"), idle])) as tree,
        trio.open_nursery() as nursery,
    ):
        await trio.sleep_until(2)
        nursery.start_soon(tree.stop, "a")
        await trio.sleep_until(3)
        one = of(tree, "a")
        assert (one.state, one.since, one.waits_on) == (State.STOPPING, 2, ())
        assert one.health == Health.unhealthy("app/a is stopping")


async def test_failed_root_is_told(autojump_clock: MockClock) -> None:
    story = Story()

    with pytest.raises(RestartLimitExceeded):
        async with story.open(Supervisor("app", [fragile(fails_after(3), name="a")])):
            await trio.sleep_forever()

    assert story.tree is not None
    root = story.tree.statistics()
    assert root.state is State.FAILED
    assert root.failure is not None
    assert root.failure.type == "RestartLimitExceeded"
    assert root.health.status is UNHEALTHY
    assert of(story.tree, "a").state is State.FAILED


async def test_tree_can_be_looked_at_before_it_starts_and_after_it_has_ended(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Tree(Supervisor("app", [idle]), 30, story.bus, open_ended=True)

    before = tree.statistics()
    async with tree.open():
        await trio.sleep(2)
    after = tree.statistics()

    assert (before.state, before.restarts) == (State.WAITING, 0)
    assert [one.state for one in before.children] == [State.WAITING]
    assert (after.state, after.since) == (State.STOPPED, 2)
    assert [one.state for one in after.children] == [State.STOPPED]


async def test_restarts_are_counted_whatever_they_are_for(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [Child(fails_after(5), name="a", backoff=IN_10), named("b")],
        strategy="one_for_all",
    )

    async with open_supervisor(tree) as opened:
        assert [one.restarts for one in opened.statistics().children] == [0, 0]
        await trio.sleep_until(20)
        assert [one.restarts for one in opened.statistics().children] == [1, 1]
        await opened.restart("b")
        assert [one.restarts for one in opened.statistics().children] == [1, 2]


async def test_breaker_is_told_in_each_of_its_states(autojump_clock: MockClock) -> None:
    async def bad() -> None:
        await trio.sleep(1)
        if trio.current_time() < 10:
            raise Boom("broken")
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(bad, breaker=EXACT)])) as tree:
        told: list[object] = []
        for second in (0.5, 2, 35, 45):
            await trio.sleep_until(second)
            one = of(tree, "bad")
            told.append((one.breaker, one.next_start, one.health.status))

    assert told == [
        (BreakerState.CLOSED, None, HEALTHY),
        (BreakerState.OPEN, 31, UNHEALTHY),
        (BreakerState.HALF_OPEN, None, DEGRADED),
        (BreakerState.CLOSED, None, HEALTHY),
    ]


async def test_walk_goes_from_the_top_down(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app", [Supervisor("x", [named("a"), Supervisor("y", [named("b")])]), named("c")]
    )

    async with open_supervisor(tree) as opened:
        names = [one.name for one in opened.statistics().walk()]

    assert names == ["app", "app/x", "app/x/a", "app/x/y", "app/x/y/b", "app/c"]


async def test_statistics_are_frozen(autojump_clock: MockClock) -> None:
    async with open_supervisor(
        Supervisor("app", [Child(fails_after(2), name="a", backoff=IN_10)])
    ) as tree:
        await trio.sleep_until(5)
        before = tree.statistics()
        one = before.children[0]
        copies = (attrs.asdict(before), attrs.asdict(one))
        for value, name in [(before, "state"), (one, "restarts"), (one.health, "status"),
                            (one.failure, "type")]:  # fmt: skip
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(value, name, None)
        assert isinstance(hash(before), int)
        await trio.sleep_until(20)  # what happens later is not seen in it
        assert (attrs.asdict(before), attrs.asdict(one)) == copies
        assert of(tree, "a").state is State.RUNNING


async def test_two_looks_at_one_moment_are_equal(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle, Supervisor("x", [named("a")])])) as tree:
        assert tree.statistics() == tree.statistics()
        first = tree.statistics()
        await tree.restart("idle")
        assert tree.statistics() != first


# -- what it waits on --------------------------------------------------------------------


async def test_waiting_one_waits_on_all_that_are_not_ready(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            ready_after(2, "a"),
            ready_after(4, "b"),
            named("c"),
            Child(named("last"), after=["a", "b", "c"]),
        ],
    )

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(tree):
                pass

        await trio.sleep(1)
        assert of(story.tree, "last").waits_on == ("app/a", "app/b")
        await trio.sleep_until(3)
        assert of(story.tree, "last").waits_on == ("app/b",)


async def test_thousands_that_wait_for_the_same_share_what_they_wait_on(
    autojump_clock: MockClock,
) -> None:
    crowd = [Child(idle, name=f"s{number}") for number in range(1000)]
    tree = Supervisor(
        "app",
        [Child(fails_after(1), name="bad", backoff=Backoff(60, jitter=0)), *crowd],
        strategy="one_for_all",
    )

    async with open_supervisor(tree) as opened:
        await trio.sleep(2)
        waiting = [one.waits_on for one in opened.statistics().children[1:]]

    assert waiting[0] == ("app/bad",)
    assert all(one is waiting[0] for one in waiting)


async def test_one_waits_on_a_dependency_that_was_stopped(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [named("db"), Child(fails_after(5), name="a", after="db")])

    async with open_supervisor(tree) as opened:
        await opened.stop("db")
        await trio.sleep_until(20)
        one = of(opened, "a")
        assert (one.state, one.waits_on) == (State.WAITING, ("app/db",))


async def test_those_restarted_together_wait_on_each_other(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [Child(fails_after(5), name="bad", backoff=IN_10), finishing(4, story, "slow"), named("c")],
        strategy="one_for_all",
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(6)
        assert of(opened, "c").waits_on == ("app/bad", "app/slow")
        assert of(opened, "bad").waits_on == ("app/slow",)
        assert of(opened, "bad").next_start == 15
        assert of(opened, "slow").state is State.STOPPING
        assert of(opened, "slow").waits_on == ()
        await trio.sleep_until(10)
        assert of(opened, "c").waits_on == of(opened, "slow").waits_on == ("app/bad",)
        assert of(opened, "bad").waits_on == ()
        await trio.sleep_until(16)
        assert all(one.waits_on == () for one in opened.statistics().walk())


async def test_one_that_is_due_waits_on_the_others_to_end(autojump_clock: MockClock) -> None:
    story = Story()
    backoff = Backoff(initial=1, jitter=0)
    tree = Supervisor(
        "app",
        [Child(fails_after(5), name="bad", backoff=backoff), finishing(4, story, "slow")],
        strategy="rest_for_one",
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(7)
        one = of(opened, "bad")
        assert (one.state, one.next_start, one.waits_on) == (State.WAITING, None, ("app/slow",))


async def test_at_a_stop_dependencies_wait_on_their_dependents(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            finishing(1, story, "db"),
            Child(finishing(3, story, "a"), after="db"),
            Child(finishing(5, story, "b"), after="db"),
        ],
    )
    seen: list[tuple[float, State, tuple[str, ...]]] = []

    async def look() -> None:
        for second in (2, 4, 5.5):
            await trio.sleep_until(second)
            one = of(opened, "db")
            seen.append((second, one.state, one.waits_on))

    async with trio.open_nursery() as nursery, story.open(tree) as opened:  # noqa: ASYNC112
        nursery.start_soon(look)

    assert seen == [
        (2, State.RUNNING, ("app/a", "app/b")),
        (4, State.RUNNING, ("app/b",)),
        (5.5, State.STOPPING, ()),
    ]


async def test_one_that_ended_during_a_stop_waits_on_nobody(autojump_clock: MockClock) -> None:
    story = Story()

    async def db() -> None:
        await trio.sleep(2)

    tree = Supervisor("app", [db, Child(finishing(5, story, "a"), after="db")])
    seen: list[tuple[State, tuple[str, ...]]] = []

    async def look() -> None:
        await trio.sleep_until(3)
        one = of(opened, "db")
        seen.append((one.state, one.waits_on))

    async with trio.open_nursery() as nursery, story.open(tree) as opened:  # noqa: ASYNC112
        nursery.start_soon(look)

    assert seen == [(State.DONE, ())]


async def test_overdue_dependent_is_not_waited_on(autojump_clock: MockClock) -> None:
    story = Story()

    async def stuck() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(20 if trio.current_time() < 30 else 0)

    tree = Supervisor(
        "app",
        [finishing(6, story, "db"), Child(stuck, after="db", stop_within=2), fails_after(5)],
        strategy="one_for_all",
        backoff=IN_10,
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(7)
        assert of(opened, "db").waits_on == ("app/stuck",)
        await trio.sleep_until(9)
        assert story.times(events.ServiceOverdue, "app/stuck") == [8]
        assert (of(opened, "db").state, of(opened, "db").waits_on) == (State.STOPPING, ())
        await trio.sleep_until(17)
        assert of(opened, "db").waits_on == ("app/stuck",)  # to be started with it again
        await trio.sleep_until(40)


async def test_nested_service_is_told_by_its_full_path(autojump_clock: MockClock) -> None:
    inner = Supervisor("inner", [named("db"), Child(fails_after(5), name="a", after="db")])

    async with open_supervisor(Supervisor("app", [inner])) as opened:
        await opened.stop("inner/db")
        await trio.sleep_until(20)
        assert of(opened, "inner/a").waits_on == ("app/inner/db",)


# -- tasks -------------------------------------------------------------------------------


async def test_tasks_of_a_service_are_told_by_name(autojump_clock: MockClock) -> None:
    async def deep() -> None:
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112
            nursery.start_soon(idle, name="deeper")

    async def a() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deep, name="deep")
            nursery.start_soon(idle, name="shallow")

    async with open_supervisor(Supervisor("app", [a, idle])) as tree:
        await wait_all_tasks_blocked()
        assert sorted(of(tree, "a").tasks) == ["deep", "deeper", "shallow"]
        assert of(tree, "idle").tasks == ()
        await tree.stop("a")
        assert of(tree, "a").tasks == ()


async def test_children_of_a_supervisor_are_no_tasks_of_it(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [Supervisor("inner", [idle])])) as tree:
        await wait_all_tasks_blocked()
        assert all(one.tasks == () for one in tree.statistics().walk())


# -- stale -------------------------------------------------------------------------------


async def test_one_without_progress_for_too_long_is_unhealthy(autojump_clock: MockClock) -> None:
    async def a(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(20)  # the time for its start does not count
        task_status.started()
        await trio.sleep(8)
        current_service().progress()
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(a, stale_after=10)])) as tree:
        told: list[object] = []
        for second in (21, 29, 38, 38.5, 40):
            await trio.sleep_until(second)
            told.append((second, of(tree, "a").health.status))
        reason = of(tree, "a").health.reason
        health = await tree.health()

    assert told == [
        (21, HEALTHY),
        (29, HEALTHY),
        (38, HEALTHY),  # exactly as long as it may
        (38.5, UNHEALTHY),
        (40, UNHEALTHY),
    ]
    assert reason == "app/a has made no progress for 12 s"
    assert health == Health.unhealthy(reason)


async def test_stale_one_that_makes_progress_is_healthy_again(autojump_clock: MockClock) -> None:
    async def a() -> None:
        await trio.sleep(20)
        current_service().progress()
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(a, stale_after=10)])) as tree:
        await trio.sleep_until(15)
        assert of(tree, "a").health.status is UNHEALTHY
        await trio.sleep_until(21)
        assert of(tree, "a").health.status is HEALTHY


async def test_progress_of_a_task_of_the_service_counts(autojump_clock: MockClock) -> None:
    async def beat() -> None:
        while True:
            await trio.sleep(5)
            current_service().progress()

    async def a() -> None:
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112
            nursery.start_soon(beat)

    async with open_supervisor(Supervisor("app", [Child(a, stale_after=6)])) as tree:
        await trio.sleep_until(99)
        assert of(tree, "a").health.status is HEALTHY


async def test_restarted_one_is_not_stale_from_its_last_run(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [Child(fails_after(5), name="a", backoff=IN_10, stale_after=8)])

    async with open_supervisor(tree) as opened:
        await trio.sleep_until(16)
        assert of(opened, "a").health.status is HEALTHY
        await trio.sleep_until(24)
        assert of(opened, "a").health.status is UNHEALTHY


async def test_service_is_never_stale_by_default(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await trio.sleep_until(1e7)
        assert tree.statistics().health == Health.healthy()


async def test_one_that_is_not_critical_and_stale_degrades(autojump_clock: MockClock) -> None:
    child = Child(idle, stale_after=1, critical=False)

    async with open_supervisor(Supervisor("app", [child])) as tree:
        await trio.sleep_until(5)
        assert tree.statistics().health.status is DEGRADED
        assert (await tree.health()).status is DEGRADED


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_stale_after_nothing_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="stale_after"):
        Child(idle, stale_after=value)


# -- aggregation -------------------------------------------------------------------------


async def test_supervisor_is_as_well_as_the_worst_below_it(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [
            Supervisor("good", [named("a")]),
            Supervisor("poor", [fragile(fails_after(1), name="b", critical=False), named("c")]),
            Supervisor("bad", [Child(fails_after(1), name="d", backoff=IN_10)]),
        ],
    )

    async with open_supervisor(tree) as opened:
        assert all(one.health.status is HEALTHY for one in opened.statistics().walk())
        await trio.sleep_until(2)
        statistics = opened.statistics()
        assert [one.health.status for one in statistics.children] == [HEALTHY, DEGRADED, UNHEALTHY]
        assert statistics.health == Health.unhealthy("app/bad/d is backing off after Boom")
        assert await opened.health() == statistics.health
        await trio.sleep_until(15)
        assert opened.statistics().health == Health.degraded("app/poor/b is down after Boom")


async def test_noncritical_supervisor_only_degrades_what_is_above(
    autojump_clock: MockClock,
) -> None:
    inner = Supervisor("inner", [Child(fails_after(1), name="a", backoff=IN_10)])

    async with open_supervisor(Supervisor("app", [Child(inner, critical=False), idle])) as tree:
        await trio.sleep_until(2)
        assert of(tree, "inner/a").health.status is UNHEALTHY
        assert of(tree, "inner").health.status is DEGRADED
        assert tree.statistics().health.status is DEGRADED
        assert (await tree.health()).status is DEGRADED


async def test_supervisor_on_probation_does_not_hide_who_is_unhealthy_below(
    autojump_clock: MockClock,
) -> None:
    inner = Supervisor("inner", [Child(fails_after(40), name="a", backoff=IN_10), named("b")])

    async with open_supervisor(Supervisor("app", [Child(inner, breaker=EXACT)])) as tree:
        tree.trip("inner")
        await trio.sleep_until(32)
        await tree.stop("inner/b")
        assert of(tree, "inner").breaker is BreakerState.HALF_OPEN
        assert of(tree, "inner").health.status is UNHEALTHY
        assert tree.statistics().health.status is UNHEALTHY
        assert (await tree.health()).status is UNHEALTHY


async def test_supervisor_that_is_down_is_told_itself(autojump_clock: MockClock) -> None:
    inner = Supervisor("inner", [fails_after(1), named("b")], max_restarts=Limit(0, 1))

    async with open_supervisor(Supervisor("app", [Child(inner, backoff=IN_10)])) as tree:
        await trio.sleep_until(2)
        one = of(tree, "inner")
        assert (one.state, one.next_start) == (State.BACKING_OFF, 11)
        assert one.health == Health.unhealthy("app/inner is backing off after RestartLimitExceeded")
        assert {below.state for below in one.children} == {State.FAILED, State.STOPPED}


# -- in their own words ------------------------------------------------------------------


async def test_healthy_words(autojump_clock: MockClock) -> None:
    checked = Checked(Health.healthy())

    async with open_supervisor(Supervisor("app", [checked, idle])) as tree:
        assert await tree.health() == Health.healthy()
        assert checked.asked == 1


@pytest.mark.parametrize("answer", [Health.degraded("slow"), SICK])
async def test_words_of_one_are_those_of_the_tree(
    autojump_clock: MockClock, answer: Health
) -> None:
    tree = Supervisor("app", [idle, Supervisor("inner", [Checked(answer)])])

    async with open_supervisor(tree) as opened:
        # Whose words they are is told, too.
        assert await opened.health() == Health(answer.status, f"app/inner/Checked: {answer.reason}")
        assert opened.statistics().health == Health.healthy()  # which asks nobody


async def test_the_worst_words_count(autojump_clock: MockClock) -> None:
    answers = [Health.degraded("one"), Health.healthy(), SICK, Health.degraded("two")]
    children = [Child(Checked(answer), name=f"c{n}") for n, answer in enumerate(answers)]

    async with open_supervisor(Supervisor("app", children)) as tree:
        assert await tree.health() == Health.unhealthy("app/c2: sick")


async def test_words_cannot_make_good_what_the_supervisor_sees(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [Checked(Health.healthy()), Child(named("b"))])

    async with open_supervisor(tree) as opened:
        await opened.stop("b")
        assert (await opened.health()) == Health.unhealthy("app/b is stopped")


@pytest.mark.parametrize("error", [Boom("no pulse"), ExceptionGroup("two", [Boom("x")])])
async def test_one_that_cannot_say_how_it_is_is_unhealthy(
    autojump_clock: MockClock, error: Exception
) -> None:
    async with open_supervisor(Supervisor("app", [Checked(error), idle])) as tree:
        health = await tree.health()
        assert health.status is UNHEALTHY
        assert "app/Checked" in health.reason
        assert "Boom" in health.reason
        assert of(tree, "Checked").state is State.RUNNING  # it is told, and not stopped
        assert of(tree, "Checked").failure is None


@pytest.mark.parametrize("answer", [None, True, "healthy", HEALTHY])
async def test_one_that_says_something_else_is_unhealthy(
    autojump_clock: MockClock, answer: object
) -> None:
    async with open_supervisor(Supervisor("app", [Checked(answer), idle])) as tree:
        health = await tree.health()
        assert health.status is UNHEALTHY
        assert "app/Checked" in health.reason


async def test_one_that_hangs_is_unhealthy_when_its_time_is_over(
    autojump_clock: MockClock,
) -> None:
    slow, quick = Checked(Health.healthy(), seconds=60), Checked(Health.healthy())
    children = [Child(slow, name="slow"), Child(quick, name="quick")]

    async with open_supervisor(Supervisor("app", children)) as tree:
        assert await tree.health(within=2) == Health.unhealthy(
            "app/slow did not say within 2 s how it is"
        )
        assert trio.current_time() == 2
        assert slow.cancelled
        assert (await tree.health()).status is UNHEALTHY
        assert trio.current_time() == 7  # five seconds by default
        assert (await tree.health(within=61)).status is HEALTHY


async def test_all_are_asked_at_the_same_time(autojump_clock: MockClock) -> None:
    children = [Child(Checked(Health.healthy(), seconds=3), name=f"c{n}") for n in range(50)]

    async with open_supervisor(Supervisor("app", children)) as tree:
        assert (await tree.health()).status is HEALTHY
        assert trio.current_time() == 3


async def test_without_any_time_only_those_answer_that_need_none(
    autojump_clock: MockClock,
) -> None:
    class Prompt(Service):
        async def run(self) -> None:
            await trio.sleep_forever()

        async def check(self) -> Health:
            await AtOnce()
            return Health.degraded("prompt")

    async with open_supervisor(Supervisor("app", [Prompt()])) as tree:
        assert await tree.health(within=0) == Health.degraded("app/Prompt: prompt")
        await tree.start(Checked(Health.healthy()))
        assert (await tree.health(within=0)).status is UNHEALTHY


@pytest.mark.parametrize("answer", [SICK, Boom("no pulse"), None])
async def test_words_of_one_that_is_not_critical_only_degrade(
    autojump_clock: MockClock, answer: object
) -> None:
    child = Child(Checked(answer), name="a", critical=False)

    async with open_supervisor(Supervisor("app", [child, idle])) as tree:
        assert (await tree.health()).status is DEGRADED


async def test_words_of_a_hanging_one_that_is_not_critical_only_degrade(
    autojump_clock: MockClock,
) -> None:
    child = Child(Checked(Health.healthy(), seconds=60), name="a", critical=False)

    async with open_supervisor(Supervisor("app", [child, idle])) as tree:
        assert (await tree.health(within=1)).status is DEGRADED


async def test_words_below_a_supervisor_that_is_not_critical_only_degrade(
    autojump_clock: MockClock,
) -> None:
    inner = Supervisor("inner", [Supervisor("low", [Checked(SICK)])])

    async with open_supervisor(Supervisor("app", [Child(inner, critical=False), idle])) as tree:
        assert await tree.health() == Health.degraded("app/inner/low/Checked: sick")


@pytest.mark.parametrize("words", [SICK, Health.degraded("slow")])
async def test_only_those_that_run_are_asked(autojump_clock: MockClock, words: Health) -> None:
    checked = Checked(words)
    tree = Supervisor("app", [Child(checked, name="a"), idle])

    async with open_supervisor(tree) as opened:
        await opened.stop("a")
        assert await opened.health() == Health.unhealthy("app/a is stopped")
        assert checked.asked == 0


async def test_one_that_starts_is_not_asked(autojump_clock: MockClock) -> None:
    asked = False

    class Slow(Service):
        async def run(
            self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            await trio.sleep(10)
            task_status.started()
            await trio.sleep_forever()

        async def check(self) -> Health:
            nonlocal asked
            asked = True
            return await super().check()

    story = Story()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(Supervisor("app", [Slow()])):
                await trio.sleep_until(20)

        await trio.sleep(5)
        assert story.tree is not None
        assert (await story.tree.health()).status is UNHEALTHY
        assert not asked
        await trio.sleep_until(15)
        assert (await story.tree.health()).status is HEALTHY
        assert asked


async def test_fresh_instance_is_asked_after_a_restart(autojump_clock: MockClock) -> None:
    made: list[Fresh] = []

    class Fresh(Service):
        def __init__(self) -> None:
            made.append(self)
            self.number = len(made)
            self.asked = 0

        async def run(self) -> None:
            await trio.sleep(5)
            if self.number == 1:
                raise Boom("again")
            await trio.sleep_forever()

        async def check(self) -> Health:
            self.asked += 1
            await trio.lowlevel.checkpoint()
            return Health.degraded(f"number {self.number}")

    async with open_supervisor(Supervisor("app", [Child(Fresh, backoff=IN_10)])) as tree:
        assert (await tree.health()).reason == "app/Fresh: number 1"
        await trio.sleep_until(16)
        assert (await tree.health()).reason == "app/Fresh: number 2"
        assert [one.asked for one in made] == [1, 1]


async def test_check_of_a_past_instance_is_forgotten(autojump_clock: MockClock) -> None:
    made: list[object] = []

    def either() -> Service:
        made.append(None)
        return Checked(SICK) if len(made) == 1 else Plain()

    class Plain(Service):
        async def run(self) -> None:
            await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(either, name="a")])) as tree:
        assert await tree.health() == Health.unhealthy("app/a: sick")
        await tree.restart("a")
        assert await tree.health() == Health.healthy()


async def test_cancelled_asking_leaves_nothing(autojump_clock: MockClock) -> None:
    checked = Checked(Health.healthy(), seconds=60)

    async with open_supervisor(Supervisor("app", [checked])) as tree:
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(1) as scope:
            await tree.health(within=30)
        assert scope.cancelled_caught
        assert checked.cancelled
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert trio.current_time() == 1


async def test_health_is_asked_of_a_tree_that_stops(autojump_clock: MockClock) -> None:
    story = Story()
    answers: list[Health] = []

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            await trio.sleep(1)
            answers.append(await tree.health())

        async with story.open(Supervisor("app", [finishing(5, story, "a"), idle])) as tree:
            nursery.start_soon(ask)

    assert [answer.status for answer in answers] == [UNHEALTHY]
    assert (await tree.health()).status is UNHEALTHY  # and of one that has ended


async def test_service_that_ends_while_it_is_asked_does_not_harm_the_asking(
    autojump_clock: MockClock,
) -> None:
    checked = Checked(Health.degraded("slow"), seconds=3)

    async with open_supervisor(Supervisor("app", [Child(checked, name="a"), idle])) as tree:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def operator() -> None:
                await trio.sleep(1)
                await tree.remove("a")

            health = await tree.health()
        assert health.status in (HEALTHY, DEGRADED)


async def test_check_may_ask_for_the_statistics(autojump_clock: MockClock) -> None:
    story = Story()

    class Curious(Service):
        async def run(self) -> None:
            await trio.sleep_forever()

        async def check(self) -> Health:
            await trio.lowlevel.checkpoint()
            assert story.tree is not None
            return story.tree.statistics().health

    async with story.open(Supervisor("app", [Curious()])) as tree:
        assert await tree.health() == Health.healthy()


async def test_check_that_fails_with_a_foreign_cancellation_is_told(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(
        Supervisor("app", [Checked(asyncio.CancelledError("foreign")), idle])
    ) as tree:
        health = await tree.health()
        assert health.status is UNHEALTHY
        assert "app/Checked" in health.reason


async def test_exit_asked_for_by_a_check_is_not_swallowed(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [Checked(SystemExit(3))])) as tree:
        with pytest.RaisesGroup(SystemExit):
            await tree.health()


# -- told while it happens ---------------------------------------------------------------


async def test_what_is_published_is_true_already(autojump_clock: MockClock) -> None:
    story = Story()
    told: list[tuple[str, State, BreakerState | None, float | None]] = []

    def listener(event: events.Event) -> None:
        if event.service == "app/bad" and story.tree is not None:
            one = of(story.tree, "bad")
            told.append((type(event).__name__, one.state, one.breaker, one.next_start))

    async def bad() -> None:
        await trio.sleep(1)
        if trio.current_time() < 10:
            raise Boom("broken")
        await trio.sleep_forever()

    with story.bus.listening(listener):
        async with story.open(Supervisor("app", [Child(bad, breaker=EXACT)])):
            await trio.sleep_until(50)

    closed, opened, half = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
    assert [one for one in told if one[0] not in ("ServiceFailed", "BreakerOpened")] == [
        ("ServiceStarting", State.STARTING, closed, None),
        ("ServiceReady", State.RUNNING, closed, None),
        ("ServiceRestarting", State.BACKING_OFF, opened, 31),
        ("BreakerHalfOpened", State.WAITING, half, None),
        ("ServiceStarting", State.STARTING, half, None),
        ("ServiceReady", State.RUNNING, half, None),
        ("BreakerClosed", State.RUNNING, closed, None),
        ("ServiceStopping", State.STOPPING, closed, None),
        ("ServiceStopped", State.STOPPED, closed, None),
    ]
    # These are told on the way: what follows from them is decided when they are known.
    assert [one[2] for one in told if one[0] == "BreakerOpened"] == [opened]


async def test_large_tree_is_looked_at_quickly(autojump_clock: MockClock) -> None:
    children = [Child(named("x"), name=f"x{n}") for n in range(2000)]

    async with open_supervisor(Supervisor("app", [Supervisor("inner", children)])) as tree:
        statistics = tree.statistics()
        assert len(list(statistics.walk())) == 2002
        assert statistics.health == Health.healthy()
        assert (await tree.health()).status is HEALTHY


async def test_never_ready_one_that_is_not_critical_degrades(autojump_clock: MockClock) -> None:
    async with (
        open_supervisor(Supervisor("app", [idle])) as tree,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tree.start, Child(never_ready, critical=False))
        await trio.sleep(1)
        assert tree.statistics().health == Health.degraded("app/never_ready is starting")
        nursery.cancel_scope.cancel()


async def test_failure_is_the_last_of_several(autojump_clock: MockClock) -> None:
    errors = iter([Boom("first"), ValueError("second")])

    async def bad() -> None:
        await trio.sleep(1)
        if error := next(errors, None):
            raise error
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(bad, backoff=IN_10)])) as tree:
        told: list[object] = []
        for second in (0.5, 2, 13, 100):
            await trio.sleep_until(second)
            failure = of(tree, "bad").failure
            told.append(failure and (failure.type, failure.message, failure.at))

    assert told == [
        None,
        ("Boom", "first", 1),
        ("ValueError", "second", 12),
        ("ValueError", "second", 12),
    ]

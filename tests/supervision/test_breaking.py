"""The circuit breaker of a supervised service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Limit,
    RestartLimitExceeded,
    ServicesError,
    Supervisor,
    UnknownService,
    graceful,
    open_supervisor,
)
from trio_services.lifecycle import HealthStatus, State, events
from trio_services.resilience import BreakerState
from trio_services.supervision import Tree

from .harness import (
    AT_ONCE,
    AtOnce,
    Boom,
    Story,
    fails_after,
    finishing,
    idle,
    lives_of,
    ready_after,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_services.lifecycle import Bus
    from trio_services.supervision import ServiceStatistics, Strategy

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
TOGETHER: tuple[Strategy, ...] = ("one_for_all", "rest_for_one")

EXACT = Breaker(failures=3, within=60, reset_after=30, cap=100, healthy_after=10, jitter=0)
FIRST = attrs.evolve(EXACT, failures=1)
NO_RESTARTS = Limit(0, per=60)


def broken_until(when: float = 1e9, *, after: float = 1) -> Callable[[], Awaitable[None]]:
    """Fails one second after each start, until a time; then it runs on."""

    async def bad() -> None:
        await trio.sleep(after)
        if trio.current_time() < when:
            raise Boom("broken")
        await trio.sleep_forever()

    return bad


def starts(story: Story, name: str = "bad") -> list[float]:
    return story.times(events.ServiceStarting, f"app/{name}")


def of(tree: Tree, name: str = "bad") -> ServiceStatistics:
    """The statistics of one service."""
    return next(one for one in tree.statistics().walk() if one.name == f"app/{name}")


def breakings(story: Story, name: str = "bad") -> list[tuple[float, str]]:
    """What its breaker did, and when."""
    return [
        (event.at, type(event).__name__.removeprefix("Breaker"))
        for event in story.events
        if type(event).__name__.startswith("Breaker") and event.service == f"app/{name}"
    ]


# -- opening and closing by itself -------------------------------------------------------


async def test_breaker_opens_after_so_many_failures_in_its_window(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    backoff = Backoff(initial=2, factor=1, jitter=0)
    tree = Supervisor("app", [Child(broken_until(10), breaker=EXACT, backoff=backoff)])

    async with story.open(tree) as opened:
        await trio.sleep_until(7.5)
        assert of(opened).breaker is OPEN
        assert of(opened).state is State.BACKING_OFF
        assert of(opened).next_start == 37

    # Fails at 1, 4 and 7; the first two are followed by the backoff, the third by the breaker.
    assert starts(story) == [0, 3, 6]
    assert [(e.at, e.opened, e.delay) for e in story.of(events.BreakerOpened)] == [(7, 1, 30)]
    assert [e.delay for e in story.of(events.ServiceRestarting)] == [2, 2, 30]


async def test_failures_that_are_too_far_apart_do_not_open_it(autojump_clock: MockClock) -> None:
    story = Story()
    breaker = attrs.evolve(EXACT, within=20)
    service = fails_after(*[10.0] * 9)
    tree = Supervisor("app", [Child(service, name="bad", breaker=breaker, backoff=AT_ONCE)])

    async with story.open(tree) as opened:
        await trio.sleep_until(200)
        assert of(opened).breaker is CLOSED

    assert len(starts(story)) == 10
    assert not breakings(story)


async def test_nothing_is_started_while_it_is_open(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST, backoff=AT_ONCE), idle])

    async with story.open(tree) as opened:
        await trio.sleep_until(30.9)
        assert starts(story) == [0]
        assert of(opened, "idle").state is State.RUNNING
        await trio.sleep_until(31.1)
        assert starts(story) == [0, 31]


async def test_probe_that_stays_healthy_closes_it(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(40.9)
        assert of(opened).breaker is HALF_OPEN
        await trio.sleep_until(41.1)
        assert of(opened).breaker is CLOSED
        assert of(opened).state is State.RUNNING

    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (41, "Closed")]


async def test_probe_is_healthy_only_from_when_it_is_ready(autojump_clock: MockClock) -> None:
    story = Story()
    first = True

    async def bad(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal first
        if first:
            first = False
            await trio.sleep(1)
            raise Boom("refused")
        await trio.sleep(25)
        task_status.started()
        await trio.sleep_forever()

    async with story.open(Supervisor("app", [Child(bad, breaker=FIRST)])):
        await trio.sleep_until(100)

    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (66, "Closed")]


async def test_failing_probe_opens_it_for_twice_as_long_up_to_the_cap(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(), breaker=FIRST)])

    async with story.open(tree):
        await trio.sleep_until(500)

    # Each probe runs for a second: 30, 60, 100, 100, … s in between.
    assert starts(story) == [0, 31, 92, 193, 294, 395, 496]
    assert [(e.opened, e.delay) for e in story.of(events.BreakerOpened)] == [
        (1, 30),
        (2, 60),
        (3, 100),
        (4, 100),
        (5, 100),
        (6, 100),
        (7, 100),
    ]
    assert not story.of(events.BreakerClosed)


async def test_probe_that_fails_a_moment_before_it_was_healthy_opens_it_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    service = fails_after(1, 9.75)
    tree = Supervisor("app", [Child(service, name="bad", breaker=FIRST)])

    async with story.open(tree):
        await trio.sleep_until(100)

    assert breakings(story)[:3] == [(1, "Opened"), (31, "HalfOpened"), (40.75, "Opened")]
    assert story.of(events.BreakerOpened)[1].delay == 60


async def test_single_failure_of_a_probe_is_enough(autojump_clock: MockClock) -> None:
    story = Story()
    breaker = attrs.evolve(EXACT, within=5)
    service = fails_after(1, 1, 1, 1)
    tree = Supervisor("app", [Child(service, name="bad", breaker=breaker, backoff=AT_ONCE)])

    async with story.open(tree):
        await trio.sleep_until(50)

    assert starts(story) == [0, 1, 2, 33]
    assert breakings(story) == [(3, "Opened"), (33, "HalfOpened"), (34, "Opened")]


async def test_after_closing_failures_are_counted_from_the_start(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    breaker = attrs.evolve(EXACT, failures=2, within=1000)
    service = fails_after(1, 1, 20, 1)
    tree = Supervisor("app", [Child(service, name="bad", breaker=breaker, backoff=AT_ONCE)])

    async with story.open(tree):
        await trio.sleep_until(200)

    assert breakings(story) == [
        (2, "Opened"),
        (32, "HalfOpened"),
        (42, "Closed"),
        (53, "Opened"),
        (83, "HalfOpened"),
        (93, "Closed"),
    ]
    assert [(e.opened, e.delay) for e in story.of(events.BreakerOpened)] == [(1, 30), (1, 30)]


async def test_probe_that_returns_in_good_order_closes_it(autojump_clock: MockClock) -> None:
    story = Story()

    async def bad() -> None:
        await trio.sleep(1)
        if trio.current_time() < 10:
            raise Boom("broken")

    async with story.open(Supervisor("app", [Child(bad, breaker=FIRST)])) as opened:
        await trio.sleep_until(40)
        assert (of(opened).state, of(opened).breaker) == (State.DONE, CLOSED)

    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (32, "Closed")]


async def test_time_out_of_a_start_counts_as_a_failure(autojump_clock: MockClock) -> None:
    story = Story()
    bad = Child(ready_after(1e6, "bad"), start_within=5, breaker=attrs.evolve(EXACT, failures=2),
                backoff=AT_ONCE)  # fmt: skip

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(Supervisor("app", [bad], max_restarts=NO_RESTARTS)):
                raise AssertionError("it was never ready")

        await trio.sleep_until(46)
        assert starts(story) == [0, 5, 40]
        assert breakings(story) == [(10, "Opened"), (40, "HalfOpened"), (45, "Opened")]
        nursery.cancel_scope.cancel()


async def test_probe_healthy_after_0_s_closes_it_at_once(autojump_clock: MockClock) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, healthy_after=0)

    async with story.open(Supervisor("app", [Child(broken_until(10), breaker=breaker)])):
        await trio.sleep_until(32)

    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (31, "Closed")]


async def test_open_time_is_jittered(autojump_clock: MockClock) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, jitter=0.5)
    children = [Child(fails_after(1), name=f"c{n}", breaker=breaker) for n in range(20)]

    async with story.open(Supervisor("app", children)):
        await trio.sleep_until(50)

    delays = {event.delay for event in story.of(events.BreakerOpened)}
    assert len(delays) == 20
    assert all(15 <= delay <= 30 for delay in delays)
    for n in range(20):
        [half] = story.times(events.BreakerHalfOpened, f"app/c{n}")
        [opening] = story.of(events.BreakerOpened, f"app/c{n}")
        assert half == pytest.approx(opening.at + opening.delay)


async def test_all_events_come_in_order_with_their_data(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(35), breaker=FIRST)])

    async with story.open(tree):
        await trio.sleep_until(110)

    assert story.sequence("app/bad")[:-2] == [
        "ServiceStarting",
        "ServiceReady",
        "ServiceFailed",
        "BreakerOpened",
        "ServiceRestarting",
        "BreakerHalfOpened",
        "ServiceStarting",
        "ServiceReady",
        "ServiceFailed",
        "BreakerOpened",
        "ServiceRestarting",
        "BreakerHalfOpened",
        "ServiceStarting",
        "ServiceReady",
        "BreakerClosed",
    ]
    assert breakings(story) == [
        (1, "Opened"),
        (31, "HalfOpened"),
        (32, "Opened"),
        (92, "HalfOpened"),
        (102, "Closed"),
    ]
    assert [e.attempt for e in story.of(events.ServiceStarting, "app/bad")] == [1, 2, 3]
    assert [e.restart for e in story.of(events.ServiceRestarting)] == [1, 2]
    assert [e.delay for e in story.of(events.ServiceRestarting)] == [30, 60]


# -- the limit, and giving up ------------------------------------------------------------


async def test_failures_do_not_count_toward_max_restarts(autojump_clock: MockClock) -> None:
    story = Story()
    breaker = attrs.evolve(EXACT, failures=20, reset_after=1)
    bad = Child(fails_after(*[0.5] * 60), name="bad", breaker=breaker, backoff=AT_ONCE)

    async with story.open(Supervisor("app", [bad], max_restarts=NO_RESTARTS)) as opened:
        await trio.sleep_until(300)
        assert opened.ready

    assert len(starts(story)) > 25


async def test_failures_of_others_count_as_ever(autojump_clock: MockClock) -> None:
    tree = Supervisor(
        "app",
        [Child(broken_until(), breaker=FIRST), fails_after(50)],
        max_restarts=NO_RESTARTS,
    )

    with pytest.raises(RestartLimitExceeded):
        async with open_supervisor(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 50


async def test_restarts_after_a_return_count_with_a_breaker_too(
    autojump_clock: MockClock,
) -> None:
    async def job() -> None:
        await trio.sleep(1)

    child = Child(job, restart="always", breaker=EXACT, backoff=AT_ONCE)

    with pytest.raises(RestartLimitExceeded):
        async with open_supervisor(Supervisor("app", [child], max_restarts=Limit(3, per=60))):
            await trio.sleep_forever()

    assert trio.current_time() == 4


@pytest.mark.parametrize("opens", [1, 2, 3])
async def test_critical_one_escalates_when_its_breaker_gives_up(
    autojump_clock: MockClock, opens: int
) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, give_up_after=opens)
    tree = Supervisor("app", [Child(broken_until(), breaker=breaker), idle])

    with pytest.raises(RestartLimitExceeded, match="app/bad is critical, and its br") as caught:
        async with story.open(tree):
            await trio.sleep_forever()

    assert len(starts(story)) == opens + 1
    assert len(story.of(events.BreakerOpened)) == opens
    assert [(e.at, e.opened) for e in story.of(events.BreakerGaveUp)] == [
        (trio.current_time(), opens)
    ]
    assert isinstance(caught.value.__cause__, Boom)


async def test_noncritical_one_stays_down_when_its_breaker_gives_up(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, give_up_after=2)
    tree = Supervisor("app", [Child(broken_until(), breaker=breaker, critical=False), idle])

    async with story.open(tree) as opened:
        await trio.sleep_until(10_000)
        assert of(opened).state is State.FAILED
        assert of(opened).breaker is OPEN
        assert of(opened).next_start is None
        assert of(opened, "idle").state is State.RUNNING
        assert opened.ready
        health = await opened.health()
        assert health.status is HealthStatus.DEGRADED
        assert "app/bad" in health.reason

    assert breakings(story) == [
        (1, "Opened"),
        (31, "HalfOpened"),
        (32, "Opened"),
        (92, "HalfOpened"),
        (93, "GaveUp"),
    ]
    assert story.sequence("app/bad")[-2:] == ["ServiceFailed", "BreakerGaveUp"]


async def test_one_that_has_given_up_can_be_restarted_by_hand(autojump_clock: MockClock) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, give_up_after=1)
    bad = Child(broken_until(100), breaker=breaker, critical=False)

    async with story.open(Supervisor("app", [bad, idle])) as opened:
        await trio.sleep_until(200)
        await opened.restart("bad")
        assert of(opened).breaker is HALF_OPEN
        await trio.sleep_until(215)
        assert of(opened).breaker is CLOSED
        assert of(opened).state is State.RUNNING


async def test_one_that_fails_again_after_it_had_given_up_gives_up_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, give_up_after=1)
    bad = Child(broken_until(), breaker=breaker, critical=False)

    async with story.open(Supervisor("app", [bad, idle])) as opened:
        await trio.sleep_until(200)
        await opened.restart("bad")
        await trio.sleep_until(10_000)
        assert of(opened).state is State.FAILED

    assert starts(story) == [0, 31, 200]
    assert [kind for _, kind in breakings(story)] == [
        "Opened",
        "HalfOpened",
        "GaveUp",
        "HalfOpened",
        "GaveUp",
    ]


async def test_run_of_a_tree_ends_when_the_last_one_has_given_up(
    autojump_clock: MockClock,
) -> None:
    breaker = attrs.evolve(FIRST, give_up_after=1)
    story = Story()
    tree = Tree(
        Supervisor("app", [Child(broken_until(), breaker=breaker, critical=False)]),
        30,
        story.bus,
        open_ended=False,
    )

    async with tree.open():
        await tree.wait_ended()

    assert trio.current_time() == 32


# -- health ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("critical", "status"), [(True, HealthStatus.UNHEALTHY), (False, HealthStatus.DEGRADED)]
)
async def test_open_breaker_is_bad_for_the_health_as_the_service_is_critical(
    autojump_clock: MockClock, critical: bool, status: HealthStatus
) -> None:
    bad = Child(broken_until(10), breaker=FIRST, critical=critical)

    async with open_supervisor(Supervisor("app", [bad, idle])) as opened:
        assert opened.statistics().health.status is HealthStatus.HEALTHY
        await trio.sleep_until(5)
        assert opened.statistics().health.status is status
        assert "breaker is open" in of(opened).health.reason
        assert "Boom" in of(opened).health.reason
        await trio.sleep_until(35)
        assert opened.statistics().health.status is HealthStatus.DEGRADED
        assert "probation" in of(opened).health.reason
        await trio.sleep_until(42)
        assert opened.statistics().health.status is HealthStatus.HEALTHY


# -- by hand, in every state -------------------------------------------------------------


async def test_waiting_one_that_is_tripped_waits_for_its_breaker_too(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app", [ready_after(5, "db"), Child(idle, name="bad", after="db", breaker=FIRST)]
    )

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(1)
            assert story.tree is not None
            story.tree.trip("bad")
            assert of(story.tree).state is State.BACKING_OFF
            assert of(story.tree).next_start == 31

        async with story.open(tree):
            assert trio.current_time() == 31

    assert starts(story) == [31]
    assert breakings(story)[:2] == [(1, "Opened"), (31, "HalfOpened")]


async def test_waiting_one_that_is_tripped_still_waits_for_its_dependency(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    db = Child(ready_after(50, "db"), start_within=60)
    tree = Supervisor("app", [db, Child(idle, name="bad", after="db", breaker=FIRST)])

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(1)
            assert story.tree is not None
            story.tree.trip("bad")
            await trio.sleep_until(40)
            assert of(story.tree).state is State.WAITING

        async with story.open(tree):
            assert trio.current_time() == 50
            await trio.sleep_until(55)

    assert starts(story) == [50]
    assert breakings(story)[:2] == [(1, "Opened"), (31, "HalfOpened")]


async def test_waiting_one_that_was_tripped_and_reset_starts_as_soon_as_it_may(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app", [ready_after(5, "db"), Child(idle, name="bad", after="db", breaker=FIRST)]
    )

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(1)
            assert story.tree is not None
            story.tree.trip("bad")
            await trio.sleep(1)
            story.tree.reset("bad")
            assert of(story.tree).state is State.WAITING

        async with story.open(tree):
            assert trio.current_time() == 5

    assert breakings(story) == [(1, "Opened"), (2, "Closed")]


async def test_starting_one_that_is_tripped_is_stopped_and_probed_later(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(ready_after(5, "bad"), breaker=FIRST)])

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(1)
            assert story.tree is not None
            story.tree.trip("bad")

        async with story.open(tree):
            assert trio.current_time() == 36

    assert starts(story) == [0, 31]
    assert story.times(events.ServiceStopped, "app/bad")[0] == 1
    assert not story.of(events.ServiceFailed)


async def test_running_one_that_is_tripped_finishes_its_work_and_is_probed_later(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(finishing(6, story, "bad"), breaker=FIRST), idle])

    async with story.open(tree) as opened:
        await trio.sleep_until(2)
        opened.trip("bad")
        assert of(opened).state is State.STOPPING
        assert of(opened).breaker is OPEN
        await trio.sleep_until(10)
        assert story.notes == [(8, "bad finished"), (8, "bad left")]
        assert of(opened).state is State.BACKING_OFF
        assert of(opened).next_start == 32
        await trio.sleep_until(43)
        assert of(opened).breaker is CLOSED

    assert starts(story) == [0, 32]
    assert breakings(story) == [(2, "Opened"), (32, "HalfOpened"), (42, "Closed")]


async def test_tripped_one_that_takes_longer_to_stop_than_it_is_open_is_probed_at_once(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, reset_after=3)
    tree = Supervisor("app", [Child(finishing(6, story, "bad"), breaker=breaker)])

    async with story.open(tree) as opened:
        await trio.sleep_until(2)
        opened.trip("bad")
        await trio.sleep_until(15)

    assert starts(story) == [0, 8]
    assert breakings(story)[:2] == [(2, "Opened"), (8, "HalfOpened")]


async def test_one_that_was_tripped_and_reset_while_it_stops_starts_when_it_has(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(finishing(6, story, "bad"), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(2)
        opened.trip("bad")
        opened.reset("bad")
        await trio.sleep_until(15)
        assert of(opened).breaker is CLOSED

    assert starts(story) == [0, 8]


async def test_trip_by_hand_is_no_failure_and_no_restart_that_counts(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    bad = Child(idle, name="bad", breaker=attrs.evolve(FIRST, give_up_after=1))

    async with story.open(Supervisor("app", [bad], max_restarts=NO_RESTARTS)) as opened:
        for _ in range(10):
            opened.trip("bad")
            await trio.sleep(31)
        assert of(opened).failure is None
        assert of(opened).state is State.RUNNING

    assert [e.delay for e in story.of(events.BreakerOpened)] == [30] * 10


async def test_one_that_backs_off_and_is_tripped_is_left_alone_for_longer(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    backoff = Backoff(initial=5, jitter=0)
    tree = Supervisor("app", [Child(broken_until(10), breaker=EXACT, backoff=backoff)])

    async with story.open(tree) as opened:
        await trio.sleep_until(3)
        assert of(opened).next_start == 6
        opened.trip("bad")
        assert of(opened).next_start == 33
        await trio.sleep_until(50)

    assert starts(story) == [0, 33]


async def test_reset_does_not_shorten_an_ordinary_backoff(autojump_clock: MockClock) -> None:
    story = Story()
    backoff = Backoff(initial=5, jitter=0)
    tree = Supervisor("app", [Child(broken_until(3), breaker=EXACT, backoff=backoff)])

    async with story.open(tree) as opened:
        await trio.sleep_until(3)
        opened.reset("bad")
        await trio.sleep_until(10)

    assert starts(story) == [0, 6]
    assert not breakings(story)


async def test_open_one_that_is_tripped_is_left_alone_from_then(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(21)
        opened.trip("bad")
        assert of(opened).next_start == 51
        await trio.sleep_until(55)

    assert starts(story) == [0, 51]
    assert [(e.opened, e.delay) for e in story.of(events.BreakerOpened)] == [(1, 30), (1, 30)]


async def test_open_one_that_is_reset_starts_at_once(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(21)
        opened.reset("bad")
        await trio.sleep_until(22)
        assert (of(opened).state, of(opened).breaker) == (State.RUNNING, CLOSED)
        await trio.sleep_until(100)  # and what it was due at before has no effect

    assert starts(story) == [0, 21]
    assert breakings(story) == [(1, "Opened"), (21, "Closed")]


async def test_open_one_that_is_restarted_by_hand_is_probed_at_once(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(21)
        await opened.restart("bad")
        assert of(opened).breaker is HALF_OPEN
        await trio.sleep_until(100)

    assert starts(story) == [0, 21]
    assert breakings(story) == [(1, "Opened"), (21, "HalfOpened"), (31, "Closed")]


async def test_open_one_that_is_stopped_by_hand_stays_down(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST), idle])

    async with story.open(tree) as opened:
        await trio.sleep_until(21)
        await opened.stop("bad")
        await trio.sleep_until(1000)
        assert of(opened).state is State.STOPPED
        assert of(opened).breaker is OPEN

    assert starts(story) == [0]


async def test_half_open_one_that_is_tripped_is_stopped_and_left_alone_as_long_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(35)
        opened.trip("bad")
        await trio.sleep_until(80)

    assert starts(story) == [0, 31, 65]
    assert breakings(story) == [
        (1, "Opened"),
        (31, "HalfOpened"),
        (35, "Opened"),
        (65, "HalfOpened"),
        (75, "Closed"),
    ]


async def test_half_open_one_that_is_reset_runs_on(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST)])

    async with story.open(tree) as opened:
        await trio.sleep_until(35)
        opened.reset("bad")
        assert (of(opened).state, of(opened).breaker) == (State.RUNNING, CLOSED)
        await trio.sleep_until(100)

    assert starts(story) == [0, 31]
    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (35, "Closed")]


async def test_half_open_one_that_is_reset_while_it_starts_is_not_closed_twice(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(ready_after(5, "bad"), breaker=FIRST), idle])

    async with story.open(tree) as opened:
        opened.trip("bad")
        await trio.sleep_until(37)
        assert of(opened).state is State.STARTING
        opened.reset("bad")
        await trio.sleep_until(100)
        assert of(opened).state is State.RUNNING

    assert breakings(story) == [(5, "Opened"), (35, "HalfOpened"), (37, "Closed")]


async def test_half_open_one_that_is_stopped_by_hand_is_probed_when_it_is_started(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST), idle])

    async with story.open(tree) as opened:
        await trio.sleep_until(35)
        await opened.stop("bad")
        await trio.sleep_until(60)
        assert not story.of(events.BreakerClosed)
        await opened.restart("bad")
        await trio.sleep_until(80)

    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (70, "Closed")]


async def test_one_that_an_operator_stops_and_that_is_tripped_meanwhile_stays_down(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(finishing(6, story, "bad"), breaker=FIRST), idle])

    async with story.open(tree) as opened, trio.open_nursery() as nursery:
        nursery.start_soon(opened.stop, "bad")
        await trio.sleep_until(2)
        opened.trip("bad")
        await trio.sleep_until(100)
        assert (of(opened).state, of(opened).breaker) == (State.STOPPED, OPEN)

    assert starts(story) == [0]


async def test_one_that_is_tripped_while_it_is_restarted_by_hand_is_left_alone(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(finishing(6, story, "bad"), breaker=FIRST), idle])
    restarted: list[float] = []

    async with story.open(tree) as opened, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await opened.restart("bad")
            restarted.append(trio.current_time())

        await trio.sleep_until(2)
        opened.trip("bad")
        await trio.sleep_until(40)

    assert starts(story) == [0, 32]
    assert restarted == [32]


async def test_done_one_that_is_tripped_stays_done(autojump_clock: MockClock) -> None:
    story = Story()

    async def bad() -> None:
        await trio.sleep(1)

    async with story.open(Supervisor("app", [Child(bad, breaker=FIRST), idle])) as opened:
        await trio.sleep_until(2)
        opened.trip("bad")
        await trio.sleep_until(100)
        assert (of(opened).state, of(opened).breaker) == (State.DONE, OPEN)
        opened.reset("bad")
        await trio.sleep_until(200)
        assert (of(opened).state, of(opened).breaker) == (State.DONE, CLOSED)

    assert starts(story) == [0]


async def test_done_one_that_was_tripped_is_probed_when_it_is_restarted(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def bad() -> None:
        await trio.sleep(1)

    async with story.open(Supervisor("app", [Child(bad, breaker=FIRST), idle])) as opened:
        await trio.sleep_until(2)
        opened.trip("bad")
        await opened.restart("bad")
        await trio.sleep_until(100)

    assert starts(story) == [0, 2]
    assert breakings(story) == [(2, "Opened"), (2, "HalfOpened"), (3, "Closed")]


async def test_failed_one_that_is_tripped_stays_down(autojump_clock: MockClock) -> None:
    story = Story()
    bad = Child(broken_until(10), restart="never", critical=False, breaker=FIRST)

    async with story.open(Supervisor("app", [bad, idle])) as opened:
        await trio.sleep_until(2)
        opened.trip("bad")
        await trio.sleep_until(100)
        assert of(opened).state is State.FAILED
        opened.reset("bad")
        assert of(opened).state is State.FAILED

    assert starts(story) == [0]


async def test_service_without_a_breaker_cannot_be_tripped_or_reset(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as opened:
        with pytest.raises(ServicesError, match="app/idle has no breaker"):
            opened.trip("idle")
        with pytest.raises(ServicesError, match="app/idle has no breaker"):
            opened.reset("app/idle")
        assert of(opened, "idle").breaker is None
        await trio.lowlevel.checkpoint()
        assert of(opened, "idle").state is State.RUNNING


async def test_unknown_service_cannot_be_tripped_or_reset(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [Child(idle, breaker=FIRST)])) as opened:
        with pytest.raises(UnknownService, match="did you mean 'idle'"):
            opened.trip("idel")
        with pytest.raises(UnknownService, match="did you mean 'idle'"):
            opened.reset("idel")


# -- with the rest of supervision --------------------------------------------------------


async def test_breaker_is_by_default_that_of_the_supervisor(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [broken_until(10), Child(fails_after(1), name="own", breaker=EXACT, backoff=AT_ONCE)],
        breaker=FIRST,
    )

    async with story.open(tree) as opened:
        assert of(opened).breaker is CLOSED
        await trio.sleep_until(5)
        assert of(opened).breaker is OPEN
        assert of(opened, "own").breaker is CLOSED

    assert story.of(events.BreakerOpened)[0].service == "app/bad"


async def test_breaker_of_a_supervisor_is_not_shared_by_its_children(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    breaker = attrs.evolve(EXACT, failures=2)
    children = [Child(fails_after(1), name=name, backoff=AT_ONCE) for name in "abc"]

    async with story.open(Supervisor("app", children, breaker=breaker)):
        await trio.sleep_until(50)

    assert not story.of(events.BreakerOpened)


async def test_breaker_of_a_supervisor_is_not_that_of_those_below_the_next(
    autojump_clock: MockClock,
) -> None:
    inner = Supervisor("inner", [idle])

    async with open_supervisor(Supervisor("app", [inner], breaker=FIRST)) as opened:
        assert of(opened, "inner").breaker is CLOSED
        assert of(opened, "inner/idle").breaker is None


async def test_breaker_of_a_nested_supervisor_counts_its_failures(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor("inner", [broken_until(10), idle], max_restarts=NO_RESTARTS)
    tree = Supervisor("app", [Child(inner, breaker=FIRST)], max_restarts=NO_RESTARTS)

    async with story.open(tree) as opened:
        await trio.sleep_until(45)
        assert opened.ready

    assert starts(story, "inner") == starts(story, "inner/bad") == [0, 31]
    assert breakings(story, "inner") == [(1, "Opened"), (31, "HalfOpened"), (41, "Closed")]


async def test_counts_start_anew_with_a_new_run_of_the_supervisor(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor(
        "inner", [Child(broken_until(), breaker=attrs.evolve(EXACT, failures=2), backoff=AT_ONCE)]
    )

    async with story.open(Supervisor("app", [inner])) as opened:
        await trio.sleep_until(1.5)
        await opened.restart("inner")
        await trio.sleep_until(3)
        assert of(opened, "inner/bad").breaker is CLOSED
        await trio.sleep_until(4)
        assert of(opened, "inner/bad").breaker is OPEN


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_group_is_down_while_the_breaker_of_one_is_open_and_starts_with_its_probe(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [Child(broken_until(10), breaker=FIRST), Child(idle, name="b")],
        strategy=strategy,
        max_restarts=NO_RESTARTS,
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(20)
        assert of(opened, "b").state is State.WAITING
        assert of(opened, "b").waits_on == ("app/bad",)
        await trio.sleep_until(50)

    assert starts(story) == starts(story, "b") == [0, 31]
    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (41, "Closed")]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_reset_lets_the_group_start_at_once(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor(
        "app", [Child(broken_until(10), breaker=FIRST), Child(idle, name="b")], strategy=strategy
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(20)
        opened.reset("bad")
        await trio.sleep_until(50)

    assert starts(story) == starts(story, "b") == [0, 20]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_trip_by_hand_leaves_the_siblings_alone(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor(
        "app", [Child(idle, name="bad", breaker=FIRST), Child(idle, name="b")], strategy=strategy
    )

    async with story.open(tree) as opened:
        opened.trip("bad")
        await trio.sleep_until(50)

    assert starts(story) == [0, 30]
    assert starts(story, "b") == [0]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_noncritical_one_that_gives_up_lets_its_group_run_on(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    breaker = attrs.evolve(FIRST, give_up_after=1)
    tree = Supervisor(
        "app",
        [Child(broken_until(), breaker=breaker, critical=False), Child(idle, name="b")],
        strategy=strategy,
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(500)
        assert of(opened).state is State.FAILED
        assert of(opened, "b").state is State.RUNNING

    assert starts(story, "b") == [0, 31]


async def test_sibling_on_probation_that_is_restarted_with_others_stays_on_probation(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    crash = Child(fails_after(35), name="crash", backoff=Backoff(initial=1, jitter=0))
    tree = Supervisor(
        "app", [crash, Child(broken_until(10), breaker=FIRST)], strategy="rest_for_one"
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(200)
        assert of(opened).breaker is CLOSED

    assert breakings(story) == [(1, "Opened"), (31, "HalfOpened"), (46, "Closed")]
    assert starts(story) == [0, 31, 36]


@pytest.mark.parametrize("at", [0.5, 1, 15, 31, 32, 40.5, 50])
async def test_tree_can_be_stopped_in_every_state_of_a_breaker(
    autojump_clock: MockClock, at: float
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST), idle])

    async with story.open(tree) as opened:
        await trio.sleep_until(at)

    assert trio.current_time() == at
    assert all(life.state.ended for life in lives_of(opened.life))
    after = [event for event in story.events if event.at == at]
    assert [type(e).__name__ for e in after][-2:] == ["ServiceStopped", "ServiceStopped"]


async def test_open_breaker_does_not_keep_the_stop_of_a_tree_waiting(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    bad = Child(broken_until(10), after="db", breaker=FIRST)

    async with story.open(Supervisor("app", [ready_after(0, "db"), bad])):
        await trio.sleep_until(5)

    assert trio.current_time() == 5
    assert story.order(events.ServiceStopped) == ["app/db"]


async def test_dependents_of_an_open_one_run_on(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [Child(broken_until(10), breaker=FIRST), Child(idle, name="user", after="bad")]
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(5)
        assert of(opened, "user").state is State.RUNNING
        with trio.move_on_after(5):
            await opened.restart("user")
            raise AssertionError("it has to wait for what it comes after")
        assert of(opened, "user").waits_on == ("app/bad",)
        await trio.sleep_until(40)

    assert starts(story, "user") == [0, 31]


# -- from within listeners, who hear of each step while it is made -----------------------


@pytest.mark.parametrize(
    "kind",
    [
        events.ServiceStarting,
        events.ServiceReady,
        events.ServiceFailed,
        events.ServiceReturned,
        events.ServiceRestarting,
        events.BreakerOpened,
        events.BreakerHalfOpened,
        events.BreakerClosed,
        events.ServiceStopping,
        events.ServiceStopped,
    ],
)
@pytest.mark.parametrize("word", ["trip", "reset", "trip and reset"])
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
async def test_operator_may_speak_at_any_event(
    autojump_clock: MockClock, kind: type[events.Event], word: str, strategy: Strategy
) -> None:
    story = Story()
    spoken = 0
    ends = iter(["fail", "return", "fail", "fail", "run on"])

    async def bad() -> None:
        end = next(ends, "run on")
        await trio.sleep(1)
        if end == "fail":
            raise Boom("broken")
        if end == "run on":
            await trio.sleep_forever()

    def operator(event: events.Event) -> None:
        nonlocal spoken
        if isinstance(event, kind) and event.service == "app/bad" and spoken < 3:
            spoken += 1
            assert story.tree is not None
            if "trip" in word:
                story.tree.trip("bad")
            if "reset" in word:
                story.tree.reset("bad")

    breaker = attrs.evolve(EXACT, failures=2, reset_after=5, healthy_after=3)
    child = Child(bad, restart="always", backoff=AT_ONCE, breaker=breaker)
    tree = Supervisor("app", [Child(idle, name="a"), child], strategy=strategy)

    bus: Bus = story.bus
    with bus.listening(operator):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def run() -> None:
                async with story.open(tree):
                    await trio.sleep_until(500)
                    assert story.tree is not None
                    assert of(story.tree).state is State.RUNNING
                    assert of(story.tree).breaker is CLOSED
                    assert of(story.tree, "a").state is State.RUNNING

    assert trio.current_time() == 500
    assert all(life.state.ended for life in lives_of(story.tree.life))  # type: ignore[union-attr]


async def test_one_that_is_reset_when_its_breaker_opens_is_not_left_alone(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(broken_until(10), breaker=FIRST, backoff=AT_ONCE)])

    def operator(event: events.Event) -> None:
        if isinstance(event, events.BreakerOpened):
            opened.reset("bad")

    async with story.open(tree) as opened:
        with story.bus.listening(operator):
            await trio.sleep_until(15)

    assert starts(story)[1] < 10


async def test_probe_is_the_only_start_however_often_it_is_asked_for(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    running = 0

    async def bad(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal running
        running += 1
        assert running == 1
        try:
            await trio.sleep(1)
            if trio.current_time() < 10:
                raise Boom("broken")
            with graceful():
                task_status.started()
                await trio.sleep_forever()
        finally:
            running -= 1

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(Supervisor("app", [Child(bad, breaker=FIRST)])):
                await trio.sleep_until(60)

        await trio.sleep_until(31)
        assert story.tree is not None
        for _ in range(5):
            nursery.start_soon(story.tree.restart, "bad")
        await AtOnce()

    assert state_of(story.tree.life.children["bad"]) is State.STOPPED
    assert not story.of(events.ServiceFailed, "app/bad")[1:]


async def test_tree_becomes_ready_without_a_noncritical_one_whose_breaker_opens(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def refused(*, task_status: trio.TaskStatus[None]) -> None:
        await AtOnce(Boom("refused"))

    tree = Supervisor("app", [idle, Child(refused, critical=False, breaker=FIRST)])
    async with story.open(tree) as opened:
        assert trio.current_time() < 1
        assert state_of(opened.life.children["refused"]) is State.BACKING_OFF

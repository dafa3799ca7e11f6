"""Who is restarted with whom, in which order, and when."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
import trio
from loguru import logger

from trio_services import (
    Backoff,
    Child,
    Limit,
    RestartLimitExceeded,
    Service,
    StopFailed,
    Supervisor,
    graceful,
    open_host,
    open_supervisor,
)
from trio_services.lifecycle import State, events

from .harness import (
    AT_ONCE,
    Boom,
    Story,
    broken,
    fails_after,
    finishing,
    fragile,
    idle,
    lives_of,
    ready_after,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_services import Host
    from trio_services.supervision import Restart, Strategy

IN_2 = Backoff(initial=2, factor=1, jitter=0)
STRATEGIES: tuple[Strategy, ...] = ("one_for_one", "one_for_all", "rest_for_one")
TOGETHER: tuple[Strategy, ...] = ("one_for_all", "rest_for_one")


def named(name: str) -> Callable[[], Awaitable[None]]:
    async def service() -> None:
        await trio.sleep_forever()

    service.__name__ = name
    return service


def draining(name: str, *seconds: float, story: Story) -> Callable[[], Awaitable[None]]:
    """Notes its start and its end; takes so many seconds to clean up at each stop, the last again.

    Its clean-up is shielded: what is longer than its `stop_within` is overdue.
    """
    left = list(seconds)

    async def service() -> None:
        story.note(f"{name} in")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(left.pop(0) if len(left) > 1 else left[0])
            story.note(f"{name} out")

    service.__name__ = name
    return service


def once(*seconds: float, name: str = "bad") -> Callable[[], Awaitable[None]]:
    """Fails after so many seconds, another number at each start, then idles."""
    service = fails_after(*seconds)
    service.__name__ = name
    return service


def starts(story: Story, name: str) -> list[float]:
    return story.times(events.ServiceStarting, f"app/{name}")


def stops(story: Story, name: str) -> list[float]:
    return story.times(events.ServiceStopping, f"app/{name}")


# -- the matrix: policy x kind of exit x strategy ----------------------------------------


class Exits:
    """Ends at second 5 in one of several ways, and idles when it is started again."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.runs = count()

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        if next(self.runs):
            task_status.started()
            await trio.sleep_forever()
        if self.kind == "start time-out":
            await trio.sleep_forever()
        if self.kind != "failure before ready":
            task_status.started()
        await trio.sleep(5)
        match self.kind:
            case "return":
                return
            case "group":
                raise ExceptionGroup("two", [Boom("first"), ValueError("second")])
            case "group in a nursery":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(broken)
                    nursery.start_soon(idle)
            case "mixed group":
                raise BaseExceptionGroup("mixed", [Boom("first"), await a_cancellation()])
            case _:
                raise Boom("again")


async def a_cancellation() -> trio.Cancelled:
    """One that was caught where it belongs, as a careless library does."""
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            kept.append(cancelled)
            raise
    return kept[0]


KINDS = [
    "return",
    "failure",
    "failure before ready",
    "start time-out",
    "group",
    "group in a nursery",
    "mixed group",
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restart", ["always", "on_failure", "never"])
async def test_policy_exit_and_strategy_decide_who_is_started_again(
    autojump_clock: MockClock, restart: Restart, kind: str, strategy: Strategy
) -> None:
    story = Story()
    bad = Child(Exits(kind), name="bad", restart=restart, critical=False, start_within=5)
    tree = Supervisor(
        "app", [named("before"), bad, named("behind")], strategy=strategy, backoff=IN_2
    )

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(tree):
                await trio.sleep_until(30)

        await trio.sleep_until(20)
        assert story.tree is not None
        states = {name: life.state for name, life in story.tree.life.children.items()}

    restarts = restart == "always" or (restart == "on_failure" and kind != "return")
    unready = kind in ("failure before ready", "start time-out")
    with_it = {
        "one_for_one": ["bad"],
        "one_for_all": ["before", "bad", "behind"],
        "rest_for_one": ["bad", "behind"],
    }[strategy]
    expected = {name: [0.0] for name in ("before", "bad", "behind")}
    if strategy == "rest_for_one" and unready:
        expected["behind"] = [] if restarts else [5]
    if restarts:
        for name in with_it:
            expected[name].append(7)
    assert {name: starts(story, name) for name in expected} == expected
    ended = State.DONE if kind == "return" else State.FAILED
    assert states == {
        "before": State.RUNNING,
        "bad": State.RUNNING if restarts else ended,
        "behind": State.RUNNING,
    }
    assert len(story.of(events.ServiceFailed)) == (kind != "return")
    assert len(story.of(events.ServiceRestarting)) == restarts  # of the one that caused it


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["failure", "failure before ready", "start time-out", "group"])
async def test_critical_one_that_is_never_restarted_escalates_whatever_the_strategy(
    autojump_clock: MockClock, kind: str, strategy: Strategy
) -> None:
    story = Story()
    bad = Child(Exits(kind), name="bad", restart="never", start_within=5)
    tree = Supervisor("app", [named("before"), bad, named("behind")], strategy=strategy)

    with pytest.raises(RestartLimitExceeded, match="app/bad is critical"):
        async with story.open(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 5
    assert starts(story, "before") == [0]
    assert starts(story, "bad") == [0]


# -- order and time ----------------------------------------------------------------------


async def test_one_for_all_stops_dependents_first_and_starts_dependencies_first(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(ready_after(1, "db"), name="db"),
            Child(ready_after(1, "sync"), name="sync", after="db"),
            Child(ready_after(1, "report"), name="report", after="sync"),
            once(10),
        ],
        strategy="one_for_all",
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(20)
        assert story.order(events.ServiceStopping) == ["app/report", "app/sync", "app/db"]
        assert story.order(events.ServiceStopped) == ["app/report", "app/sync", "app/db"]

    assert starts(story, "bad") == [0, 12]
    assert [starts(story, name)[1] for name in ("db", "sync", "report")] == [12, 13, 14]


async def test_one_for_all_disturbs_no_dependency_until_its_dependents_have_ended(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            draining("db", 1, story=story),
            Child(draining("sync", 3, story=story), after="db"),
            once(10),
        ],
        strategy="one_for_all",
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(20)
        assert story.notes[2:] == [
            (13, "sync out"),
            (14, "db out"),
            (14, "db in"),
            (14, "sync in"),
        ]
    assert starts(story, "bad") == [0, 14]


async def test_rest_for_one_stops_from_the_end_and_starts_from_the_one_that_failed(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    children = [
        named("a"),
        once(10),
        ready_after(1, "c"),
        ready_after(1, "d"),
        ready_after(1, "e"),
    ]

    async with story.open(
        Supervisor("app", children, strategy="rest_for_one", backoff=IN_2, stop_within=1)
    ):
        await trio.sleep_until(30)
        assert story.order(events.ServiceStopped) == ["app/e", "app/d", "app/c"]

    assert starts(story, "a") == [0]
    # The failure was at 10 s from its own start.
    assert [starts(story, name)[1] for name in ("bad", "c", "d", "e")] == [12, 12, 13, 14]


async def test_rest_for_one_restarts_all_when_the_first_fails(autojump_clock: MockClock) -> None:
    story = Story()
    children = [once(5), named("b"), named("c")]

    async with story.open(Supervisor("app", children, strategy="rest_for_one", backoff=IN_2)):
        await trio.sleep_until(10)

    assert {name: starts(story, name) for name in ("bad", "b", "c")} == {
        "bad": [0, 7],
        "b": [0, 7],
        "c": [0, 7],
    }


async def test_rest_for_one_restarts_only_the_last_when_the_last_fails(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    children = [named("a"), named("b"), once(5)]

    async with story.open(Supervisor("app", children, strategy="rest_for_one", backoff=IN_2)):
        await trio.sleep_until(10)

    assert {name: starts(story, name) for name in ("a", "b", "bad")} == {
        "a": [0],
        "b": [0],
        "bad": [0, 7],
    }


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_siblings_stop_at_once_and_start_after_the_delay(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    backoff = Backoff(initial=20, factor=1, jitter=0)
    tree = Supervisor("app", [once(5), named("b")], strategy=strategy, backoff=backoff)

    async with story.open(tree) as opened:
        await trio.sleep_until(24)
        assert stops(story, "b") == [5]
        assert state_of(opened.life.children["b"]) is State.WAITING
        assert state_of(opened.life.children["bad"]) is State.BACKING_OFF
        await trio.sleep_until(40)

    assert starts(story, "bad") == starts(story, "b") == [0, 25]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_siblings_finish_their_work_before_any_is_started_again(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor("app", [once(5), finishing(6, story, "b")], strategy=strategy, backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(10)
        assert state_of(opened.life.children["bad"]) is State.WAITING
        await trio.sleep_until(20)
        assert story.notes == [(11, "b finished"), (11, "b left")]

    assert starts(story, "bad") == starts(story, "b") == [0, 11]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_work_of_a_sibling_is_cancelled_at_its_deadline(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    slow = Child(finishing(60, story, "b"), stop_within=4)
    tree = Supervisor("app", [once(5), slow], strategy=strategy, backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(20)
        assert story.notes == [(9, "b left")]

    assert starts(story, "bad") == starts(story, "b") == [0, 9]
    assert not story.of(events.ServiceOverdue)


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_sibling_that_ignores_its_cancellation_is_named_and_waited_for(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    stuck = Child(draining("b", 8, 0, story=story), stop_within=3)
    tree = Supervisor("app", [once(5), stuck], strategy=strategy, backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(12)
        assert story.times(events.ServiceOverdue, "app/b") == [9]
        assert starts(story, "bad") == [0]
        await trio.sleep_until(20)
        assert starts(story, "bad") == starts(story, "b") == [0, 13]


async def test_dependency_of_an_overdue_sibling_is_stopped_without_waiting_for_it(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            draining("db", 0, story=story),
            Child(draining("sync", 8, 0, story=story), after="db", stop_within=3),
            once(5),
        ],
        strategy="one_for_all",
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(20)
        assert [note for note in story.notes if "out" in note[1]] == [
            (9, "db out"),
            (13, "sync out"),
        ]

    assert starts(story, "db") == starts(story, "sync") == starts(story, "bad") == [0, 13]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_sibling_that_fails_at_the_stop_of_the_group_starts_again_with_it(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()

    async def b() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if trio.current_time() < 10:
                raise Boom("cannot close")

    # One restart is allowed, and used up by the first failure.
    limit = Limit(1, per=60)
    tree = Supervisor("app", [once(5), b], strategy=strategy, backoff=IN_2, max_restarts=limit)

    async with story.open(tree) as opened:
        await trio.sleep_until(10)
        assert opened.ready

    assert starts(story, "bad") == starts(story, "b") == [0, 7]
    assert [(event.at, event.stopping) for event in story.of(events.ServiceFailed, "app/b")] == [
        (5, True)
    ]


# -- siblings in other states ------------------------------------------------------------


async def test_one_for_all_starts_those_again_that_were_done(autojump_clock: MockClock) -> None:
    story = Story()

    async def job() -> None:
        await trio.sleep(1)

    tree = Supervisor("app", [job, once(5)], strategy="one_for_all", backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(6)
        assert state_of(opened.life.children["job"]) is State.WAITING
        await trio.sleep_until(10)
        assert state_of(opened.life.children["job"]) is State.DONE

    assert starts(story, "job") == [0, 7]


async def test_rest_for_one_starts_only_those_again_that_are_done_behind_it(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    def job(name: str) -> Callable[[], Awaitable[None]]:
        async def service() -> None:
            await trio.sleep(1)

        service.__name__ = name
        return service

    tree = Supervisor("app", [job("a"), once(5), job("c")], strategy="rest_for_one", backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(10)

    assert {name: starts(story, name) for name in ("a", "bad", "c")} == {
        "a": [0],
        "bad": [0, 7],
        "c": [0, 7],
    }


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_never_restarted_sibling_that_was_stopped_with_them_stays_down(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor("app", [once(5), fragile(named("b"))], strategy=strategy, backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(50)
        assert state_of(opened.life.children["b"]) is State.STOPPED
        assert state_of(opened.life.children["bad"]) is State.RUNNING

    assert starts(story, "b") == [0]
    assert not story.of(events.ServiceFailed, "app/b")


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_never_restarted_sibling_that_was_done_stays_done(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()

    async def job() -> None:
        await trio.sleep(1)

    tree = Supervisor("app", [once(5), fragile(job)], strategy=strategy, backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(10)
        assert state_of(opened.life.children["job"]) is State.DONE

    assert starts(story, "job") == [0]


async def test_one_for_all_starts_those_again_that_come_after_a_finished_job(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def migrate() -> None:
        await trio.sleep(1)

    tree = Supervisor(
        "app",
        [fragile(migrate), Child(once(5), after="migrate")],
        strategy="one_for_all",
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(50)

    assert starts(story, "bad") == [0, 7]
    assert starts(story, "migrate") == [0]


async def test_rest_for_one_starts_those_again_behind_one_that_has_failed_for_good(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    hopeless = fragile(once(1, name="hopeless"), critical=False)
    tree = Supervisor("app", [once(5), hopeless, named("c")], strategy="rest_for_one", backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(50)

    assert {name: starts(story, name) for name in ("bad", "hopeless", "c")} == {
        "bad": [0, 7],
        "hopeless": [0],
        "c": [0, 7],
    }


async def test_rest_for_one_goes_on_behind_a_stopped_never_sibling_time_after_time(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [once(5, 5, 5), fragile(named("b")), named("c")],
        strategy="rest_for_one",
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(50)

    assert {name: starts(story, name) for name in ("bad", "b", "c")} == {
        "bad": [0, 7, 14, 21],
        "b": [0],
        "c": [0, 7, 14, 21],
    }


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_sibling_that_an_operator_stopped_stays_down(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor("app", [once(5), named("b")], strategy=strategy, backoff=IN_2)

    async with story.open(tree) as opened:
        await opened.stop("b")
        await trio.sleep_until(50)
        assert state_of(opened.life.children["b"]) is State.STOPPED
        await opened.restart("b")
        assert state_of(opened.life.children["b"]) is State.RUNNING

    assert starts(story, "b") == [0, 50]


async def test_sibling_that_was_done_when_an_operator_stopped_it_stays_down(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def job() -> None:
        await trio.sleep(1)

    tree = Supervisor("app", [once(5), job], strategy="one_for_all", backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(3)
        await opened.stop("job")
        await trio.sleep_until(20)

    assert starts(story, "job") == [0]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_operator_can_stop_a_sibling_for_good_while_the_group_stops(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor("app", [once(5), finishing(6, story, "b")], strategy=strategy, backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(8)
        await opened.stop("b")
        assert trio.current_time() == 11
        await trio.sleep_until(20)
        assert state_of(opened.life.children["b"]) is State.STOPPED

    assert starts(story, "b") == [0]
    assert starts(story, "bad") == [0, 11]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_sibling_that_is_removed_while_the_group_stops_does_not_hold_it_up(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [once(5), finishing(6, story, "b"), named("c")],
        strategy=strategy,
        backoff=IN_2,
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(8)
        await opened.remove("b")
        await trio.sleep_until(20)
        assert list(opened.life.children) == ["bad", "c"]

    assert starts(story, "bad") == starts(story, "c") == [0, 11]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_group_starts_without_the_one_that_failed_if_that_is_removed(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    backoff = Backoff(initial=100, jitter=0)
    tree = Supervisor("app", [once(5), named("b")], strategy=strategy, backoff=backoff)

    async with story.open(tree) as opened:
        await trio.sleep_until(8)
        await opened.remove("bad")
        await trio.sleep_until(9)
        assert state_of(opened.life.children["b"]) is State.RUNNING

    assert starts(story, "b") == [0, 8]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_group_starts_at_once_when_the_one_that_failed_is_restarted_by_hand(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    backoff = Backoff(initial=100, jitter=0)
    tree = Supervisor("app", [once(5), named("b")], strategy=strategy, backoff=backoff)

    async with story.open(tree) as opened:
        await trio.sleep_until(8)
        await opened.restart("bad")
        await trio.sleep_until(9)

    assert starts(story, "bad") == starts(story, "b") == [0, 8]


async def test_siblings_that_are_still_starting_are_stopped_and_started_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app", [ready_after(8, "slow"), once(5)], strategy="one_for_all", backoff=IN_2
    )

    async with story.open(tree) as opened:
        assert trio.current_time() == 15  # nobody got in before all were ready
        assert opened.ready

    assert starts(story, "slow") == starts(story, "bad") == [0, 7]
    assert stops(story, "slow")[0] == 5


async def test_tree_is_not_ready_before_those_behind_one_that_failed_at_first(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    first = Exits("failure before ready")
    tree = Supervisor(
        "app",
        [Child(first, name="bad"), ready_after(1, "b")],
        strategy="rest_for_one",
        backoff=IN_2,
    )

    async with story.open(tree):
        assert trio.current_time() == 8


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_sibling_that_backs_off_itself_starts_no_sooner_than_it_would(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    late = Child(once(4, name="late"), backoff=Backoff(initial=30, jitter=0))
    # `early` fails while `late` backs off; both come back together.
    tree = Supervisor(
        "app",
        [once(1e9, name="early"), late] if strategy == "rest_for_one" else [late, once(5)],
        strategy=strategy,
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(60)

    assert starts(story, "late") == [0, 34]


async def test_two_that_fail_at_the_same_moment_restart_the_group_once(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [once(5, name="x"), once(5, name="y"), named("z")],
        strategy="one_for_all",
        backoff=IN_2,
        max_restarts=Limit(1, per=60),
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(20)
        assert opened.ready

    assert {name: starts(story, name) for name in "xyz"} == {
        "x": [0, 7],
        "y": [0, 7],
        "z": [0, 7],
    }


async def test_one_that_fails_while_it_waits_for_those_after_it_to_stop_is_held_with_them(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(once(8, name="db"), backoff=Backoff(initial=10, jitter=0)),
            Child(finishing(6, story, "sync"), after="db"),
            once(5),
        ],
        strategy="one_for_all",
        backoff=IN_2,
    )

    async with story.open(tree):
        await trio.sleep_until(30)
        assert story.at("sync finished") == 11

    # db failed at 8, on its own account, and may start at 18: nobody starts before.
    assert starts(story, "db") == starts(story, "sync") == starts(story, "bad") == [0, 18]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_always_sibling_that_returns_at_the_stop_of_the_group_does_not_count(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    diligent = Child(finishing(1, story, "b"), restart="always")
    tree = Supervisor(
        "app",
        [once(5), diligent],
        strategy=strategy,
        backoff=IN_2,
        max_restarts=Limit(1, per=60),
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(20)
        assert opened.ready

    assert starts(story, "b") == [0, 7]


# -- counting ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_restart_of_a_group_counts_once(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [once(5, 5, 5), *[named(name) for name in "abcdef"]],
        strategy=strategy,
        backoff=IN_2,
        max_restarts=Limit(3, per=60),
        stop_within=1,
    )

    async with story.open(tree) as opened:
        await trio.sleep_until(50)
        assert opened.ready

    assert starts(story, "f") == [0, 7, 14, 21]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_one_restart_of_a_group_too_many_escalates(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    children = [once(5, 5, 5, 5), named("b")]
    tree = Supervisor(
        "app", children, strategy=strategy, backoff=IN_2, max_restarts=Limit(3, per=60)
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 26
    assert starts(story, "b") == [0, 7, 14, 21]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_restart_with_a_sibling_does_not_lengthen_the_own_backoff(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [once(5, 5, name="a"), once(1e9, 1e9, 5, name="b")],
        strategy=strategy,
        backoff=Backoff(initial=1, factor=3, jitter=0, reset_after=1000),
        max_restarts=Limit(10, per=60),
    )

    async with story.open(tree):
        await trio.sleep_until(100)

    delays = [(event.service, event.delay) for event in story.of(events.ServiceRestarting)]
    assert delays == [("app/a", 1), ("app/a", 3), ("app/b", 1)]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_all_of_a_group_get_fresh_instances(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    made: dict[str, list[Service]] = {"First": [], "Second": []}

    class First(Service):
        def __init__(self) -> None:
            made["First"].append(self)
            self.runs = 0

        async def run(self) -> None:
            self.runs += 1
            await trio.sleep(5)
            if len(made["First"]) < 3:
                raise Boom("again")
            await trio.sleep_forever()

    class Second(Service):
        def __init__(self) -> None:
            made["Second"].append(self)
            self.runs = 0

        async def run(self) -> None:
            self.runs += 1
            await trio.sleep_forever()

    tree = Supervisor("app", [Child(First), Child(Second)], strategy=strategy, backoff=IN_2)

    async with open_supervisor(tree):
        await trio.sleep(60)

    for instances in made.values():
        assert len(set(map(id, instances))) == 3
        assert [getattr(one, "runs", 0) for one in instances] == [1, 1, 1]


# -- a stop in between -------------------------------------------------------------------


@pytest.mark.parametrize("strategy", TOGETHER)
@pytest.mark.parametrize("at", [5, 6, 8, 10.5, 11, 12, 30])
async def test_tree_can_be_stopped_at_any_moment_of_a_restart_together(
    autojump_clock: MockClock, strategy: Strategy, at: float
) -> None:
    # It fails at 5; `b` has stopped at 11; both are due at 15, and `b` is ready at 18.
    story = Story()

    async def b(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(3 if trio.current_time() > 5 else 0)
        task_status.started()
        with graceful():
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(2, shield=True):
                    await trio.sleep(0.5)

    backoff = Backoff(initial=10, jitter=0)
    tree = Supervisor("app", [once(5), Child(b, stop_within=4)], strategy=strategy, backoff=backoff)

    async with story.open(tree) as opened:
        await trio.sleep_until(at)

    assert all(life.state is State.STOPPED for life in lives_of(opened.life))
    assert trio.current_time() - at <= 6
    last = [event for event in story.events if not isinstance(event, events.ServiceStopped)]
    assert not any(isinstance(event, events.ServiceStarting) for event in last if event.at > at)


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_cancellation_ends_a_group_that_is_being_restarted(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    story = Story()
    tree = Supervisor("app", [once(5), finishing(9, story, "b")], strategy=strategy, backoff=IN_2)

    async with story.open(tree) as opened:
        await trio.sleep_until(6)
        opened.cancel()

    assert trio.current_time() == 6
    assert starts(story, "bad") == starts(story, "b") == [0]


@pytest.mark.parametrize("end", ["return", "failure"])
async def test_one_that_ends_by_itself_while_the_tree_stops_is_no_restart_that_counts(
    autojump_clock: MockClock, end: str
) -> None:
    story = Story()

    async def db() -> None:
        await trio.sleep(3)
        if end == "failure":
            raise Boom("broken")

    tree = Supervisor(
        "app",
        [Child(db, restart="always"), Child(finishing(5, story, "sync"), after="db")],
        max_restarts=Limit(0, per=60),
    )

    with suppress(StopFailed):  # a failure at a stop may be told as that
        async with story.open(tree):
            await trio.sleep_until(1)

    assert trio.current_time() == 6
    assert len(story.of(events.ServiceFailed, "app/db")) == (end == "failure")
    assert story.noted == ["sync finished", "sync left"]
    assert not story.of(events.SupervisorGaveUp)
    assert not story.of(events.ServiceRestarting)


@pytest.mark.parametrize("restart", ["always", "on_failure", "never"])
async def test_stray_cancellation_leaves_the_siblings_alone(
    autojump_clock: MockClock, restart: Restart
) -> None:
    story = Story()

    async def bad() -> None:
        await trio.sleep(5)
        if trio.current_time() < 6:
            raise await a_cancellation()
        await trio.sleep_forever()

    child = Child(bad, restart=restart, critical=False)
    tree = Supervisor("app", [finishing(1, story, "a"), child], backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(20)
        assert story.noted == []


async def test_group_restart_without_delay_ends_in_order_at_a_stop(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [named("db"), Child(named("sync"), after="db"), once(5)],
        strategy="one_for_all",
        backoff=AT_ONCE,
    )

    async with story.open(tree):
        await trio.sleep_until(10)
        story.events.clear()

    assert trio.current_time() == 10
    order = story.order(events.ServiceStopped)
    assert order.index("app/sync") < order.index("app/db")


async def test_stop_after_a_restart_without_delay_stops_dependents_first_and_at_once(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [named("db"), Child(once(5), after="db", backoff=AT_ONCE)])

    async with story.open(tree):
        await trio.sleep_until(10)

    assert trio.current_time() == 10
    assert story.order(events.ServiceStopped) == ["app/bad", "app/db"]


@pytest.mark.parametrize("restarts", [1, 2, 7])
async def test_dependency_outlives_a_dependent_that_was_restarted_without_delay(
    autojump_clock: MockClock, restarts: int
) -> None:
    story = Story()
    left = count()

    async def sync() -> None:
        if next(left) < restarts:
            await broken()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(4, shield=True):
                await trio.sleep(3)

    tree = Supervisor(
        "app",
        [named("db"), Child(sync, after="db", backoff=AT_ONCE)],
        max_restarts=Limit(10, per=1),
    )

    async with story.open(tree):
        await trio.sleep_until(10)

    assert trio.current_time() == 13
    assert stops(story, "db") == [13]


# -- nested supervisors, and companions --------------------------------------------------


async def test_strategy_of_a_nested_supervisor_ends_at_its_door(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor("inner", [once(5), named("b")], strategy="one_for_all", backoff=IN_2)

    async with story.open(Supervisor("app", [inner, named("z")], strategy="one_for_one")):
        await trio.sleep_until(20)

    assert starts(story, "inner/bad") == starts(story, "inner/b") == [0, 7]
    assert starts(story, "inner") == starts(story, "z") == [0]


async def test_nested_supervisor_is_restarted_as_one_of_its_siblings(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor(
        "inner",
        [draining("x", 2, story=story), draining("y", 2, story=story)],
        strategy="rest_for_one",
    )
    tree = Supervisor("app", [inner, once(5)], strategy="one_for_all", backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(20)
        assert story.notes == [
            (0, "x in"),
            (0, "y in"),
            (7, "y out"),
            (9, "x out"),
            (9, "x in"),
            (9, "y in"),
        ]

    assert starts(story, "inner") == starts(story, "bad") == [0, 9]


async def test_nested_supervisor_that_gives_up_takes_its_siblings_along(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor(
        "inner", [once(5), named("b")], strategy="one_for_one", max_restarts=Limit(0, per=1)
    )
    tree = Supervisor("app", [named("a"), inner, named("c")], strategy="rest_for_one", backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(20)

    assert starts(story, "a") == [0]
    for name in ("inner", "inner/bad", "inner/b", "c"):
        assert starts(story, name) == [0, 7], name


async def test_three_levels_of_strategies_do_not_mix(autojump_clock: MockClock) -> None:
    story = Story()
    low = Supervisor("low", [once(5), named("p")], strategy="one_for_one", backoff=IN_2)
    middle = Supervisor("middle", [low, named("q")], strategy="one_for_all", backoff=IN_2)
    tree = Supervisor("app", [middle, named("r")], strategy="rest_for_one", backoff=IN_2)

    async with story.open(tree):
        await trio.sleep_until(20)

    assert starts(story, "middle/low/bad") == [0, 7]
    for name in ("middle/low/p", "middle/low", "middle/q", "middle", "r"):
        assert starts(story, name) == [0], name


async def test_dynamic_children_belong_to_the_group(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [named("a"), once(5)], strategy="rest_for_one", backoff=IN_2)

    async with story.open(tree) as opened:
        await opened.start(named("later"))
        await trio.sleep_until(20)

    assert starts(story, "a") == [0]
    assert starts(story, "bad") == starts(story, "later") == [0, 7]


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_companions_are_untouched_by_strategies(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    logger.remove()
    story = Story()

    def companion(host: Host) -> Child:
        return Child(draining("admin", 0, story=story))

    tree = Supervisor(
        "app", [draining("a", 0, story=story), once(5), draining("c", 0, story=story)],
        strategy=strategy, backoff=IN_2, stop_within=1,
    )  # fmt: skip

    async with open_host(tree, companions=[companion]):
        await trio.sleep_until(20)
        restarted = ["a in", "c in"] if strategy == "one_for_all" else ["c in"]
        assert sorted(text for when, text in story.notes if when == 7) == restarted
        assert story.noted.count("admin in") == 1


@pytest.mark.parametrize("strategy", TOGETHER)
async def test_failing_companion_is_restarted_alone(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    logger.remove()
    story = Story()
    tree = Supervisor("app", [draining("a", 0, story=story)], strategy=strategy, backoff=IN_2)

    async with open_host(tree, companions=[lambda host: Child(once(5, name="admin"))]) as host:
        seen: list[events.Event] = []
        with host.bus.listening(seen.append):
            await trio.sleep_until(20)
        assert story.noted == ["a in"]
        assert [e.at for e in seen if isinstance(e, events.ServiceStarting)] == [7]


async def test_held_sibling_waits_until_the_one_that_failed_is_due(
    autojump_clock: MockClock,
) -> None:
    # A held sibling is not due by itself: nothing but the gate lets it go.
    tree = Supervisor(
        "app", [once(5), named("b")], strategy="one_for_all", backoff=Backoff(initial=9, jitter=0)
    )

    async with open_supervisor(tree) as opened:
        held = opened.life.children["b"]
        for second, state in [(4, State.RUNNING), (6, State.WAITING), (13.9, State.WAITING)]:
            await trio.sleep_until(second)
            assert state_of(held) is state
        await trio.sleep_until(14.1)
        assert state_of(held) is State.RUNNING


async def test_failure_at_a_group_stop_is_not_told_as_in_the_handling_of_its_cause(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def untidy() -> None:
        try:
            await trio.sleep(1.5)
        finally:
            if trio.current_time() < 1.5:
                raise Boom("clean-up")
        await trio.sleep_forever()

    tree = Supervisor(
        "app",
        [Child(fails_after(1), name="cause", backoff=AT_ONCE), untidy],
        strategy="one_for_all",
    )
    async with story.open(tree):
        await trio.sleep(2)
        (failed,) = story.of(events.ServiceFailed, "app/untidy")
        told: BaseException | None = failed.error
        while told is not None:
            assert str(told) != "broken"
            told = told.__context__
        del failed, told
        story.events.clear()
        await trio.sleep_until(3)

"""Services that are started, stopped, restarted and removed while the tree runs."""

from __future__ import annotations

import gc
import math
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services import (
    Backoff,
    Child,
    Limit,
    PlanError,
    RestartLimitExceeded,
    Service,
    ServicesError,
    StartFailed,
    Supervisor,
    UnknownService,
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
    fails_after,
    finishing,
    fragile,
    idle,
    lives_of,
    never_ready,
    ready_after,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_services.supervision import Strategy

IN_2 = Backoff(initial=2, factor=1, jitter=0)


def named(name: str) -> Callable[[], Awaitable[None]]:
    async def service() -> None:
        await trio.sleep_forever()

    service.__name__ = name
    return service


async def job() -> None:
    await trio.sleep(1)


def starts(story: Story, name: str) -> list[float]:
    return story.times(events.ServiceStarting, f"app/{name}")


def names(tree: Tree) -> list[str]:
    """The paths of all that there is, without the root's name."""
    return [life.name.removeprefix("app/") for life in lives_of(tree.life)][1:]


def state(tree: Tree, name: str) -> State:
    return next(life.state for life in lives_of(tree.life) if life.name == f"app/{name}")


def task_count() -> int:
    return trio.lowlevel.current_statistics().tasks_living


class Word:
    """A word to the tree that is on its way: when it was answered, and how."""

    def __init__(self, nursery: trio.Nursery, call: Callable[..., Awaitable[None]], *args: object):
        self.scope = trio.CancelScope()
        self.answer: object = None
        self.at: float | None = None
        nursery.start_soon(self._run, call, args)

    async def _run(self, call: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        with self.scope:
            try:
                await call(*args)
                self.answer = "done"
            except ServicesError as error:
                self.answer = error
            self.at = trio.current_time()
        if self.answer is None:
            self.answer = "cancelled"

    @property
    def answered(self) -> object:
        return self.answer


# -- start -------------------------------------------------------------------------------


async def test_start_returns_when_the_service_is_ready(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await tree.start(Child(ready_after(3, "extra")))
        assert trio.current_time() == 3
        assert state(tree, "extra") is State.RUNNING


async def test_start_takes_what_children_are_written_with(autojump_clock: MockClock) -> None:
    class Extra(Service):
        async def run(self) -> None:
            await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await tree.start(Extra())
        await tree.start(Child(Extra, name="factory"))
        await tree.start(named("function"))
        await tree.start(Supervisor("inner", [named("x")], after="function"))
        assert names(tree) == ["idle", "Extra", "factory", "function", "inner", "inner/x"]
        assert all(life.state is State.RUNNING for life in lives_of(tree.life))


async def test_start_returns_when_a_job_has_done_its_work(autojump_clock: MockClock) -> None:
    async def quick(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await AtOnce()

    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await tree.start(quick)
        assert state(tree, "quick") is State.DONE


async def test_started_service_is_stopped_with_the_tree(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree:
        await tree.start(finishing(3, story, "extra"))

    assert "extra finished" in story.noted
    assert state(tree, "extra") is State.STOPPED


async def test_started_service_stops_before_what_it_comes_after(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [named("db")])) as tree:
        await tree.start(Child(named("sync"), after="db"))
        await tree.start(Child(named("report"), after=["sync"]))

    assert story.order(events.ServiceStopped) == ["app/report", "app/sync", "app/db"]


async def test_start_waits_for_what_it_comes_after(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(fails_after(5), name="db", backoff=IN_2)])

    async with story.open(tree) as opened:
        await trio.sleep_until(6)
        await opened.start(Child(idle, after="db"))
        assert trio.current_time() == 7


async def test_start_survives_failures_before_readiness(autojump_clock: MockClock) -> None:
    story = Story()
    runs = 0

    async def shy(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal runs
        runs += 1
        await trio.sleep(1)
        if runs < 3:
            raise Boom("refused")
        task_status.started()
        await trio.sleep_forever()

    async with story.open(Supervisor("app", [idle])) as tree:
        await tree.start(Child(shy, backoff=IN_2))
        assert trio.current_time() == 7

    assert starts(story, "shy") == [0, 3, 6]


async def test_started_service_is_restarted_by_its_policy(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree:
        await tree.start(Child(fails_after(5, 5), name="a", backoff=IN_2))
        await tree.start(Child(job, restart="always", backoff=IN_2))
        await tree.start(fragile(fails_after(3), name="c", critical=False))
        await trio.sleep_until(6.5)
        assert state(tree, "c") is State.FAILED

    assert starts(story, "a") == [0]
    assert starts(story, "job") == [0, 3, 6]


async def test_failures_of_started_services_count_toward_the_limit(
    autojump_clock: MockClock,
) -> None:
    async def run() -> None:
        async with open_supervisor(Supervisor("app", [idle], max_restarts=Limit(1, 60))) as tree:
            await tree.start(Child(fails_after(5, 5), name="a", backoff=AT_ONCE))
            await trio.sleep_forever()

    with pytest.raises(RestartLimitExceeded):
        await run()

    assert trio.current_time() == 10


async def test_start_that_brings_the_supervisor_down_ends_with_it(
    autojump_clock: MockClock,
) -> None:
    async def refusing(*, task_status: trio.TaskStatus[None]) -> None:
        await broken()

    async def run() -> None:
        async with open_supervisor(Supervisor("app", [idle])) as tree:
            with pytest.raises(StartFailed):
                await tree.start(fragile(refusing))
            await trio.sleep_forever()

    with pytest.raises(RestartLimitExceeded, match="app/refusing is critical"):
        await run()


@pytest.mark.parametrize("policy", [{"restart": "never"}, {"retry_start": False}])
async def test_start_fails_when_the_service_has_failed_for_good_and_forgets_it(
    autojump_clock: MockClock, policy: dict[str, object]
) -> None:
    async def refusing(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(2)
        raise Boom("wrong password")

    async with open_supervisor(Supervisor("app", [idle])) as tree:
        with pytest.raises(StartFailed, match=r"app/refusing.*Boom: wrong password"):
            await tree.start(Child(refusing, critical=False, **policy))  # type: ignore[arg-type]
        assert trio.current_time() == 2
        assert names(tree) == ["idle"]


async def test_start_fails_when_the_service_is_stopped_meanwhile(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        async with trio.open_nursery() as nursery:
            start = Word(nursery, tree.start, Child(never_ready))
            await trio.sleep(3)
            await tree.stop("never_ready")
            await wait_all_tasks_blocked()
            assert isinstance(start.answered, StartFailed)
            assert "was stopped before it was ready" in str(start.answered)
        assert names(tree) == ["idle"]


async def test_start_of_one_that_takes_too_long_names_it(autojump_clock: MockClock) -> None:
    hopeless = fragile(never_ready, start_within=4, critical=False)

    async with open_supervisor(Supervisor("app", [idle])) as tree:
        with pytest.raises(StartFailed, match="not ready within 4 s"):
            await tree.start(hopeless)
        assert trio.current_time() == 4
        await tree.start(Child(idle, name="never_ready"))  # the next may have its name


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (Child(named("idle")), "child named 'idle' already"),
        (Child(named("x"), after="idel"), "comes after 'idel'.*did you mean 'idle'"),
        (Child(named("x"), after="x"), "app/x comes after itself"),
        (Child(named("x"), stop_within=31), "31 s to stop, but has 30 s"),
        (Child(named("x"), after="idle", stop_within=21), "31 s to stop, but has 30 s"),
        (Child(Supervisor("x", [idle]), stop_within=5), "app/x may need 10 s to stop"),
    ],
)
async def test_what_cannot_be_run_with_the_others_is_refused_before_it_starts(
    autojump_clock: MockClock, child: Child, message: str
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree:
        with pytest.raises(PlanError, match=message):
            await tree.start(child)
        assert names(tree) == ["idle"]
        await tree.start(named("y"))  # the books are right

    assert not starts(story, "x")


async def test_what_is_no_service_is_refused(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        with pytest.raises(PlanError, match="is not a service"):
            await tree.start("idle")  # type: ignore[arg-type]


async def test_budget_counts_what_was_started_before(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await tree.start(Child(named("a"), after="idle"))
        await tree.start(Child(named("b"), after="a"))
        with pytest.raises(PlanError, match="app with c may need 40 s"):
            await tree.start(Child(named("c"), after="b"))
        await tree.remove("b")
        await tree.start(Child(named("c"), after="a"))


async def test_rest_for_one_counts_each_as_after_the_one_before(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle], strategy="rest_for_one")) as tree:
        await tree.start(named("a"))
        await tree.start(named("b"))
        with pytest.raises(PlanError, match="40 s to stop"):
            await tree.start(named("c"))


async def test_started_one_comes_after_the_last_in_rest_for_one(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [named("a")], strategy="rest_for_one")) as tree:
        await tree.start(named("b"))

    assert story.order(events.ServiceStopped) == ["app/b", "app/a"]


async def test_name_is_free_again_after_a_removal_and_not_after_a_stop(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await tree.start(named("x"))
        await tree.stop("x")
        with pytest.raises(PlanError, match="child named 'x' already"):
            await tree.start(named("x"))
        await tree.remove("x")
        await tree.start(named("x"))
        assert state(tree, "x") is State.RUNNING


async def test_name_is_taken_until_the_removal_has_ended(autojump_clock: MockClock) -> None:
    story = Story()

    async with (
        open_supervisor(Supervisor("app", [finishing(5, story, "x"), idle])) as tree,
        trio.open_nursery() as nursery,
    ):
        remove = Word(nursery, tree.remove, "x")
        await trio.sleep(1)
        with pytest.raises(PlanError):
            await tree.start(named("x"))
        await trio.sleep(5)
        assert remove.at == 5
        await tree.start(named("x"))


async def test_two_starts_of_one_name_at_once_start_one(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree:
        async with trio.open_nursery() as nursery:
            words = [Word(nursery, tree.start, ready_after(1, "x")) for _ in range(5)]
        answers = [word.answered for word in words]
        assert answers.count("done") == 1
        assert sum(isinstance(answer, PlanError) for answer in answers) == 4

    assert starts(story, "x") == [0]


async def test_service_may_start_others_of_its_own_tree(autojump_clock: MockClock) -> None:
    story = Story()

    async def spawning() -> None:
        await trio.sleep(1)
        assert story.tree is not None
        await story.tree.start(ready_after(1, "a"))
        await trio.sleep(1)
        raise Boom("and now?")

    async with story.open(Supervisor("app", [fragile(spawning, critical=False)])) as tree:
        await trio.sleep(10)
        # It is a child of the supervisor, and not of who asked for it.
        assert state(tree, "a") is State.RUNNING
        assert state(tree, "spawning") is State.FAILED


# -- start is cancelled ------------------------------------------------------------------


async def test_cancelled_start_removes_a_service_that_starts(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree:
        await wait_all_tasks_blocked()
        tasks = task_count()
        with trio.move_on_after(3) as scope:
            await tree.start(ready_after(60, "x", story))
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert story.noted == ["x entered", "x left"]
        assert names(tree) == ["idle"]
        assert task_count() == tasks
        await tree.start(named("x"))


async def test_cancelled_start_removes_a_service_that_waits_for_another(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [named("db")])) as tree:
        await tree.stop("db")
        with trio.move_on_after(3):
            await tree.start(Child(named("x"), after="db"))
        assert names(tree) == ["db"]
        await tree.restart("db")
        await wait_all_tasks_blocked()
        await tree.remove("db")  # nobody comes after it any more

    assert not starts(story, "x")


async def test_cancelled_start_removes_a_service_that_backs_off(autojump_clock: MockClock) -> None:
    story = Story()

    async def refusing(*, task_status: trio.TaskStatus[None]) -> None:
        await broken()

    async with story.open(Supervisor("app", [idle])) as tree:
        with trio.move_on_after(3):
            await tree.start(Child(refusing, backoff=Backoff(initial=50, jitter=0)))
        assert names(tree) == ["idle"]
        await trio.sleep_until(200)

    assert starts(story, "refusing") == [0]


async def test_cancelled_start_lets_what_the_service_has_in_hand_finish(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        await finishing(4, story, "x")()

    async with story.open(Supervisor("app", [idle])) as tree:
        with trio.move_on_after(3):
            await tree.start(Child(slow, name="x"))
        assert trio.current_time() == 3
        assert state(tree, "x") is State.STOPPING
        await trio.sleep_until(8)
        assert story.notes == [(7, "x finished"), (7, "x left")]
        assert names(tree) == ["idle"]


async def test_start_that_is_cancelled_before_it_began_does_nothing(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree:
        with trio.CancelScope() as scope:
            scope.cancel()
            await tree.start(named("x"))
        assert scope.cancelled_caught
        assert names(tree) == ["idle"]

    assert not starts(story, "x")


@pytest.mark.parametrize("turn", range(20))
async def test_start_that_is_cancelled_while_it_is_removed_strikes_nothing_else_off(
    autojump_clock: MockClock, turn: int
) -> None:
    async with open_supervisor(Supervisor("app", [named("db")])) as tree:
        await tree.stop("db")
        async with trio.open_nursery() as nursery:
            start = Word(nursery, tree.start, Child(named("x"), after="db"))
            await trio.sleep(1)
            start.scope.cancel()
            # Both go on in the next batch of tasks, in an order that is Trio's to choose.
            with suppress(UnknownService):
                await tree.remove("x")
        assert start.answered == "cancelled" or isinstance(start.answered, StartFailed)
        assert names(tree) == ["db"]
        await tree.start(named("x"))


@pytest.mark.parametrize("turn", range(10))
async def test_start_that_is_cancelled_when_its_service_becomes_ready_leaves_it_or_removes_it(
    autojump_clock: MockClock, turn: int
) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        with trio.move_on_after(3) as scope:
            await tree.start(ready_after(3, "x"))
        await wait_all_tasks_blocked()
        assert names(tree) == (["idle"] if scope.cancelled_caught else ["idle", "x"])


# -- stop --------------------------------------------------------------------------------


async def test_stop_returns_when_the_service_has_ended(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        await tree.stop("a")
        assert trio.current_time() == 4
        assert story.noted == ["a finished", "a left"]
        assert state(tree, "a") is State.STOPPED
        assert tree.ready


async def test_stopped_service_stays_down_whatever_its_policy(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [Child(idle, restart="always")])) as tree:
        await tree.stop("idle")
        await trio.sleep(1000)
        assert state(tree, "idle") is State.STOPPED

    assert starts(story, "idle") == [0]


async def test_stop_is_cut_short_at_the_deadline_of_the_service(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(
        Supervisor("app", [Child(finishing(60, story, "a"), stop_within=3)])
    ) as tree:
        await tree.stop("a")
        assert trio.current_time() == 3
        assert story.noted == ["a left"]


async def test_failure_at_a_stop_by_hand_is_told_and_does_not_escalate(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def bad() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("cannot close")

    async with story.open(Supervisor("app", [bad], max_restarts=Limit(0, 1))) as tree:
        await tree.stop("bad")
        assert state(tree, "bad") is State.FAILED
        assert [event.stopping for event in story.of(events.ServiceFailed)] == [True]
        await trio.sleep(100)

    assert starts(story, "bad") == [0]


async def test_stop_does_not_stop_those_that_come_after(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(
        Supervisor("app", [named("db"), Child(named("sync"), after="db")])
    ) as tree:
        await tree.stop("db")
        await trio.sleep(5)
        assert state(tree, "sync") is State.RUNNING
        with trio.move_on_after(5) as scope:
            await tree.restart("sync")
        assert scope.cancelled_caught
        await tree.restart("db")
        await wait_all_tasks_blocked()
        assert state(tree, "sync") is State.RUNNING

    assert starts(story, "sync") == [0, 10]
    assert story.order(events.ServiceStopped)[-2:] == ["app/sync", "app/db"]


@pytest.mark.parametrize("path", ["a", "app/a"])
async def test_stop_of_one_that_backs_off_ends_it_at_once(
    autojump_clock: MockClock, path: str
) -> None:
    story = Story()

    async with story.open(
        Supervisor("app", [Child(fails_after(1), name="a", backoff=IN_2)])
    ) as tree:
        await trio.sleep_until(2)
        await tree.stop(path)
        assert trio.current_time() == 2
        await trio.sleep(10)
        assert state(tree, "a") is State.STOPPED

    assert starts(story, "a") == [0]


async def test_stop_of_one_that_has_ended_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_supervisor(
        Supervisor("app", [job, idle, fragile(fails_after(1), name="bad", critical=False)])
    ) as tree:
        await trio.sleep(2)
        await tree.stop("job")
        await tree.stop("bad")
        await tree.stop("idle")
        await tree.stop("idle")
        assert state(tree, "job") is State.DONE
        assert state(tree, "bad") is State.FAILED
        assert state(tree, "idle") is State.STOPPED


async def test_cancelled_stop_goes_on(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        with trio.move_on_after(1):
            await tree.stop("a")
        assert state(tree, "a") is State.STOPPING
        await trio.sleep_until(10)
        assert state(tree, "a") is State.STOPPED
        assert "a finished" in story.noted

    assert starts(story, "a") == [0]


async def test_service_can_stop_itself(autojump_clock: MockClock) -> None:
    story = Story()

    async def tired() -> None:
        await trio.sleep(1)
        assert story.tree is not None
        await story.tree.stop("tired")
        raise AssertionError("it was cancelled")

    async with story.open(Supervisor("app", [tired])) as tree:
        await trio.sleep(10)
        assert state(tree, "tired") is State.STOPPED

    assert not story.of(events.ServiceFailed)


# -- restart -----------------------------------------------------------------------------


async def test_restart_returns_when_the_service_is_ready_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [ready_after(3, "a")])) as tree:
        await trio.sleep_until(5)
        await tree.restart("a")
        assert trio.current_time() == 8
        assert state(tree, "a") is State.RUNNING

    assert starts(story, "a") == [0, 5]


async def test_restart_makes_a_fresh_instance(autojump_clock: MockClock) -> None:
    made: list[Service] = []

    class Fresh(Service):
        def __init__(self) -> None:
            made.append(self)

        async def run(self) -> None:
            await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(Fresh)])) as tree:
        await tree.restart("Fresh")
        await tree.stop("Fresh")
        await tree.restart("Fresh")

    assert len(made) == 3
    assert len(set(map(id, made))) == 3


async def test_restart_does_not_count_toward_the_limit(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle], max_restarts=Limit(0, 60))) as tree:
        for _ in range(10):
            await tree.restart("idle")
        assert tree.ready


@pytest.mark.parametrize("policy", ["always", "on_failure", "never"])
@pytest.mark.parametrize("service", [job, fails_after(1), idle], ids=["done", "failed", "stopped"])
async def test_one_that_has_ended_can_be_restarted(
    autojump_clock: MockClock, policy: str, service: Callable[[], Awaitable[None]]
) -> None:
    story = Story()
    left = iter([service])

    async def a() -> None:
        await next(left, idle)()

    child = Child(a, restart=policy, critical=False, backoff=AT_ONCE)  # type: ignore[arg-type]

    async with story.open(Supervisor("app", [child])) as tree:
        await trio.sleep_until(2)
        if service is idle:
            await tree.stop("a")
        await tree.restart("a")
        await trio.sleep_until(5)
        assert state(tree, "a") is State.RUNNING

    assert starts(story, "a")[-1] == 2


async def test_restart_of_one_that_backs_off_starts_it_at_once(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    backoff = Backoff(initial=60, jitter=0)

    async with story.open(
        Supervisor("app", [Child(fails_after(1), name="a", backoff=backoff)])
    ) as tree:
        await trio.sleep_until(3)
        await tree.restart("a")
        assert trio.current_time() == 3
        await trio.sleep_until(100)

    assert starts(story, "a") == [0, 3]


async def test_restart_of_one_that_starts_begins_anew(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [idle])) as tree, trio.open_nursery() as nursery:
        start = Word(nursery, tree.start, ready_after(5, "a"))
        await trio.sleep_until(3)
        await tree.restart("a")
        assert trio.current_time() == 8
        await wait_all_tasks_blocked()
        assert (start.answered, start.at) == ("done", 8)


async def test_restart_of_a_supervisor_begins_with_what_it_was_written_with(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [Supervisor("inner", [named("a")])])) as tree:
        await tree.start(named("b"), under="inner")
        assert names(tree) == ["inner", "inner/a", "inner/b"]
        await tree.restart("inner")
        assert names(tree) == ["inner", "inner/a"]
        assert state(tree, "inner/a") is State.RUNNING


async def test_restart_fails_when_the_service_fails_for_good(autojump_clock: MockClock) -> None:
    runs = 0

    async def once(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            await broken()
        task_status.started()
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [fragile(once, critical=False)])) as tree:
        with pytest.raises(StartFailed, match="app/once failed for good after Boom: broken"):
            await tree.restart("once")
        assert state(tree, "once") is State.FAILED


async def test_cancelled_restart_goes_on(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a")])) as tree:
        with trio.move_on_after(1):
            await tree.restart("a")
        await trio.sleep_until(10)
        assert state(tree, "a") is State.RUNNING

    assert starts(story, "a") == [0, 4]


async def test_two_restarts_at_once_are_one(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a")])) as tree:
        async with trio.open_nursery() as nursery:
            words = [Word(nursery, tree.restart, "a") for _ in range(3)]
        assert [(word.answered, word.at) for word in words] == [("done", 4)] * 3

    assert starts(story, "a") == [0, 4]


async def test_service_can_restart_itself(autojump_clock: MockClock) -> None:
    story = Story()

    async def a() -> None:
        await trio.sleep(1)
        if trio.current_time() < 2:
            assert story.tree is not None
            await story.tree.restart("a")
        await trio.sleep_forever()

    async with story.open(Supervisor("app", [a])) as tree:
        await trio.sleep(10)
        assert state(tree, "a") is State.RUNNING

    assert starts(story, "a") == [0, 1]


# -- remove ------------------------------------------------------------------------------


async def test_remove_returns_when_the_service_has_ended_and_forgets_it(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        await tree.remove("a")
        assert trio.current_time() == 4
        assert "a finished" in story.noted
        assert names(tree) == ["idle"]
        with pytest.raises(UnknownService):
            await tree.stop("a")
        with pytest.raises(UnknownService):
            await tree.remove("a")


@pytest.mark.parametrize("running", [True, False])
async def test_one_that_others_come_after_is_not_removed(
    autojump_clock: MockClock, running: bool
) -> None:
    tree = Supervisor("app", [named("db"), Child(named("sync"), after="db")])

    async with open_supervisor(tree) as opened:
        if not running:
            await opened.stop("sync")
        with pytest.raises(PlanError, match="app/sync comes after it; remove that first"):
            await opened.remove("db")
        assert state(opened, "db") is State.RUNNING
        await opened.remove("sync")
        await opened.remove("db")
        assert names(opened) == []


async def test_one_in_the_middle_of_rest_for_one_can_be_removed(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [Child(fails_after(5), name="a", backoff=IN_2), named("b"), named("c")],
        strategy="rest_for_one",
    )

    async with story.open(tree) as opened:
        await opened.remove("b")
        assert state(opened, "c") is State.RUNNING
        await trio.sleep_until(10)

    assert starts(story, "a") == starts(story, "c") == [0, 7]
    assert story.order(events.ServiceStopped)[-2:] == ["app/c", "app/a"]


@pytest.mark.parametrize("position", [0, 1, 2])
async def test_order_of_stops_holds_when_one_of_rest_for_one_was_removed(
    autojump_clock: MockClock, position: int
) -> None:
    story = Story()
    children = [finishing(1, story, name) for name in "abc"]

    async with story.open(Supervisor("app", children, strategy="rest_for_one")) as tree:
        await tree.remove("abc"[position])
        await trio.sleep_until(10)
        story.events.clear()

    left = ["app/a", "app/b", "app/c"]
    del left[position]
    assert story.order(events.ServiceStopped) == left[::-1]
    assert trio.current_time() == 12


@pytest.mark.parametrize(
    "service", [job, fails_after(1), idle], ids=["done", "backing off", "stopped"]
)
async def test_one_that_does_not_run_is_removed_at_once(
    autojump_clock: MockClock, service: Callable[[], Awaitable[None]]
) -> None:
    async with open_supervisor(
        Supervisor("app", [Child(service, name="a", backoff=IN_2), named("b")])
    ) as tree:
        await trio.sleep_until(2)
        if service is idle:
            await tree.stop("a")
        await tree.remove("a")
        assert trio.current_time() == 2
        assert names(tree) == ["b"]
        await trio.sleep(20)
        assert names(tree) == ["b"]


async def test_failure_at_a_removal_is_told_and_the_service_is_gone(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def bad() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("cannot close")

    async with story.open(Supervisor("app", [bad, idle])) as tree:
        await tree.remove("bad")
        assert names(tree) == ["idle"]

    assert len(story.of(events.ServiceFailed, "app/bad")) == 1


async def test_cancelled_removal_goes_on(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        with trio.move_on_after(1):
            await tree.remove("a")
        assert names(tree) == ["a", "idle"]
        await trio.sleep_until(5)
        assert names(tree) == ["idle"]


async def test_supervisor_can_be_removed_with_all_below(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor("inner", [finishing(1, story, "x"), finishing(3, story, "y")])

    async with story.open(Supervisor("app", [inner, idle])) as tree:
        await tree.remove("inner")
        assert trio.current_time() == 3
        assert names(tree) == ["idle"]
        with pytest.raises(UnknownService):
            await tree.stop("inner/x")


async def test_tree_is_ready_although_one_was_removed_before_it_was(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(3)
            assert story.tree is not None
            await story.tree.remove("never_ready")

        async with story.open(Supervisor("app", [never_ready, ready_after(1, "b")])):
            assert trio.current_time() == 3


# -- two words at once -------------------------------------------------------------------


async def test_stop_overrules_a_restart_that_waits(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        async with trio.open_nursery() as nursery:
            restart = Word(nursery, tree.restart, "a")
            await trio.sleep(1)
            await tree.stop("a")
        assert isinstance(restart.answered, StartFailed)
        assert state(tree, "a") is State.STOPPED

    assert starts(story, "a") == [0]


async def test_stop_overrules_a_restart_that_has_begun(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [ready_after(4, "a"), idle])) as tree:
        async with trio.open_nursery() as nursery:
            restart = Word(nursery, tree.restart, "a")
            await trio.sleep(2)
            await tree.stop("a")
        assert isinstance(restart.answered, StartFailed)
        assert state(tree, "a") is State.STOPPED


async def test_stop_ends_when_a_restart_overrules_it(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        async with trio.open_nursery() as nursery:
            stop = Word(nursery, tree.stop, "a")
            await trio.sleep(1)
            await tree.restart("a")
            await wait_all_tasks_blocked()
            assert stop.at == 4
            nursery.cancel_scope.cancel()
        assert state(tree, "a") is State.RUNNING


async def test_removal_overrules_a_restart_that_waits(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        async with trio.open_nursery() as nursery:
            restart = Word(nursery, tree.restart, "a")
            await trio.sleep(1)
            await tree.remove("a")
        assert isinstance(restart.answered, StartFailed)
        assert names(tree) == ["idle"]

    assert starts(story, "a") == [0]


async def test_removal_is_not_undone_by_a_later_word(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "a"), idle])) as tree:
        async with trio.open_nursery() as nursery:
            remove = Word(nursery, tree.remove, "a")
            await trio.sleep(1)
            restart = Word(nursery, tree.restart, "a")
            stop = Word(nursery, tree.stop, "a")
            again = Word(nursery, tree.remove, "a")
        assert isinstance(restart.answered, ServicesError)
        assert (stop.answered, again.answered, remove.answered) == ("done", "done", "done")
        assert names(tree) == ["idle"]

    assert starts(story, "a") == [0]


async def test_removal_of_one_that_starts_ends_its_start(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        async with trio.open_nursery() as nursery:
            start = Word(nursery, tree.start, never_ready)
            await trio.sleep(1)
            await tree.remove("never_ready")
            await wait_all_tasks_blocked()
            assert isinstance(start.answered, StartFailed)
            nursery.cancel_scope.cancel()
        assert names(tree) == ["idle"]


async def test_one_that_is_being_removed_is_nothing_to_come_after(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with story.open(Supervisor("app", [finishing(4, story, "db"), idle])) as tree:
        async with trio.open_nursery() as nursery:
            Word(nursery, tree.remove, "db")
            await trio.sleep(1)
            with pytest.raises(ServicesError):
                await tree.start(Child(named("sync"), after="db"))
        assert names(tree) == ["idle"]


async def test_restart_of_a_supervisor_ends_the_starts_below_it(
    autojump_clock: MockClock,
) -> None:
    tree = Supervisor("app", [Supervisor("inner", [named("a")])])

    async with open_supervisor(tree) as opened, trio.open_nursery() as nursery:

        async def start() -> None:
            await opened.start(never_ready, under="inner")

        word = Word(nursery, start)
        await trio.sleep(1)
        await opened.restart("inner")
        await wait_all_tasks_blocked()
        assert isinstance(word.answered, StartFailed)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("turn", range(10))
async def test_many_words_at_once_leave_the_books_right(
    autojump_clock: MockClock, turn: int
) -> None:
    story = Story()

    async def busy(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(turn % 3)
        task_status.started()
        await finishing(turn % 4, story, "busy")()

    tree = Supervisor("app", [named("db"), Child(busy, after="db")])

    async with story.open(tree) as opened:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = 30
            words: list[Word] = []
            for number in range(12):
                call = [opened.stop, opened.restart, opened.stop][(turn + number) % 3]
                words.append(Word(nursery, call, ["busy", "db"][number % 2]))
                if number % 3 == turn % 3:
                    await trio.sleep(1)
            await trio.sleep(20)
            unanswered = [word for word in words if word.answered is None]
            # A restart may have to wait for what it comes after, which stays down.
            assert not unanswered or state(opened, "db") is State.STOPPED
            nursery.cancel_scope.cancel()
        await opened.restart("db")
        await opened.restart("busy")
        assert state(opened, "db") is state(opened, "busy") is State.RUNNING
        begun = trio.current_time()

    assert trio.current_time() - begun == turn % 4
    assert story.order(events.ServiceStopped)[-2:] == ["app/busy", "app/db"]


# -- paths -------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "app/"])
async def test_paths_may_begin_with_the_name_of_the_root(
    autojump_clock: MockClock, prefix: str
) -> None:
    story = Story()
    low = Supervisor("low", [named("a")])
    tree = Supervisor("app", [Supervisor("inner", [low, named("a")]), named("a")])

    async with story.open(tree) as opened:
        await opened.restart(f"{prefix}a")
        assert [e.service for e in story.of(events.ServiceStopped)] == ["app/a"]
        await opened.restart(f"{prefix}inner/a")
        await opened.restart(f"{prefix}inner/low/a")
        assert [e.service for e in story.of(events.ServiceStopped)] == [
            "app/a",
            "app/inner/a",
            "app/inner/low/a",
        ]
        await opened.start(named("b"), under=f"{prefix}inner/low")
        assert "inner/low/b" in names(opened)
        await opened.stop(f"{prefix}inner/low/b")
        await opened.remove(f"{prefix}inner/low/b")
        assert "inner/low/b" not in names(opened)


async def test_root_can_be_named_as_what_to_start_under(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await tree.start(named("a"), under="app")
        await tree.start(named("b"), under="")
        assert names(tree) == ["idle", "a", "b"]


async def test_every_path_that_statistics_tell_is_known(autojump_clock: MockClock) -> None:
    # The usual name of the root is a likely one for a service, too.
    tree = Supervisor("app", [named("x"), Supervisor("app", [named("x"), named("app")])])

    async with open_supervisor(tree) as opened:
        for one in list(opened.statistics().walk())[1:]:
            before = {life.name: life.attempt for life in lives_of(opened.life)}
            if one.children:
                continue
            await opened.restart(one.name)
            after = {life.name: life.attempt for life in lives_of(opened.life)}
            assert [name for name in after if after[name] != before[name]] == [one.name]


@pytest.mark.parametrize("path", ["", "/", "app", "app/", "/a", "a/", "a/a", "app/a/b", "A", "a "])
async def test_path_of_nothing_is_unknown(autojump_clock: MockClock, path: str) -> None:
    async with open_supervisor(Supervisor("app", [named("a"), named("b")])) as tree:
        for call in (tree.stop, tree.restart, tree.remove):
            with pytest.raises(UnknownService):
                await call(path)
        assert state(tree, "a") is state(tree, "b") is State.RUNNING


@pytest.mark.parametrize("path", ["databse", "app/databse", "inner/databse", "app/inner/databse"])
async def test_unknown_path_is_told_with_a_hint(autojump_clock: MockClock, path: str) -> None:
    inner = Supervisor("inner", [named("database")])

    async with open_supervisor(Supervisor("app", [named("database"), inner])) as tree:
        for call in (tree.stop, tree.restart, tree.remove):
            with pytest.raises(UnknownService, match="'databse'; did you mean 'database'"):
                await call(path)


async def test_there_is_nothing_below_a_service_that_is_no_supervisor(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(Supervisor("app", [named("a")])) as tree:
        with pytest.raises(UnknownService, match="app/a is no supervisor"):
            await tree.start(named("b"), under="a")
        with pytest.raises(UnknownService, match="app/a is no supervisor"):
            await tree.stop("a/b")


async def test_there_is_nothing_below_a_supervisor_that_is_down(
    autojump_clock: MockClock,
) -> None:
    inner = Supervisor("inner", [named("x"), fails_after(5)], max_restarts=Limit(0, 1))
    tree = Supervisor("app", [Child(inner, backoff=IN_2), idle])

    async with open_supervisor(tree) as opened:
        await trio.sleep_until(6)
        with pytest.raises(UnknownService, match="app/inner is backing off"):
            await opened.stop("inner/x")
        with pytest.raises(UnknownService, match="app/inner is backing off"):
            await opened.start(named("y"), under="inner")
        await trio.sleep_until(8)
        await opened.start(named("y"), under="inner")
        await opened.stop("inner")
        with pytest.raises(UnknownService, match="app/inner is stopped"):
            await opened.restart("inner/x")


async def test_supervisor_that_was_never_started_is_not_said_to_be_none(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Supervisor("app", [never_ready, Supervisor("inner", [idle], after="never_ready")])

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            async with story.open(tree):
                pass

        await trio.sleep(1)
        assert story.tree is not None
        try:
            with pytest.raises(UnknownService, match="app/inner is waiting"):
                await story.tree.stop("inner/idle")
        finally:
            story.tree.request_stop()


# -- under a nested supervisor -----------------------------------------------------------


async def test_one_can_be_started_under_a_nested_supervisor(autojump_clock: MockClock) -> None:
    story = Story()

    inner = Child(Supervisor("inner", [named("a")]), stop_within=20)

    async with story.open(Supervisor("app", [inner])) as tree:
        await tree.start(Child(ready_after(2, "b"), after="a"), under="inner")
        assert trio.current_time() == 2
        assert state(tree, "inner/b") is State.RUNNING

    assert story.order(events.ServiceStopped) == ["app/inner/b", "app/inner/a", "app/inner"]


async def test_budget_of_a_nested_supervisor_is_its_own(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [Supervisor("inner", [named("a")])])) as tree:
        with pytest.raises(PlanError, match="app/inner with b may need 20 s to stop, but has 10 s"):
            await tree.start(Child(named("b"), after="a"), under="inner")
        await tree.start(Child(named("b"), after="a", stop_within=0), under="inner")


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one"])
async def test_siblings_of_a_nested_one_are_looked_for_in_its_own_supervisor(
    autojump_clock: MockClock, strategy: Strategy
) -> None:
    inner = Supervisor("inner", [named("a")], strategy=strategy)

    async with open_supervisor(Supervisor("app", [named("db"), Child(inner, stop_within=20)])) as t:
        with pytest.raises(PlanError, match="'db', which is no child of app/inner"):
            await t.start(Child(named("b"), after="db"), under="inner")
        await t.start(named("db"), under="inner")  # the name is free there
        assert names(t) == ["db", "inner", "inner/a", "inner/db"]


async def test_nested_supervisor_gives_up_for_those_that_were_started_under_it(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor("inner", [named("a")], max_restarts=Limit(0, 1))

    async with story.open(Supervisor("app", [Child(inner, backoff=IN_2)])) as tree:
        await tree.start(fails_after(1), under="inner")
        await trio.sleep_until(10)
        assert names(tree) == ["inner", "inner/a"]  # it forgot who brought it down

    assert starts(story, "inner/a") == [0, 3]


# -- while the tree starts, and while it stops -------------------------------------------


async def test_one_can_be_started_while_the_tree_starts(autojump_clock: MockClock) -> None:
    story = Story()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(1)
            assert story.tree is not None
            await story.tree.start(ready_after(20, "extra"))
            story.note("extra ready")

        async with story.open(Supervisor("app", [ready_after(5, "a")])):
            assert trio.current_time() == 5  # it does not wait for the one more
            await trio.sleep_until(30)

    assert story.notes == [(21, "extra ready")]


async def test_stop_of_one_that_never_gets_ready_lets_the_tree_be_ready(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(3)
            assert story.tree is not None
            await story.tree.stop("never_ready")

        async with story.open(Supervisor("app", [never_ready, idle])) as tree:
            assert trio.current_time() == 3
            assert state(tree, "never_ready") is State.STOPPED


async def test_restart_while_the_tree_starts(autojump_clock: MockClock) -> None:
    story = Story()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def operator() -> None:
            await trio.sleep(3)
            assert story.tree is not None
            await story.tree.restart("a")

        async with story.open(Supervisor("app", [ready_after(5, "a")])):
            assert trio.current_time() == 8

    assert starts(story, "a") == [0, 3]


@pytest.mark.parametrize("moment", ["at once", "meanwhile", "afterwards"])
async def test_nothing_is_started_in_a_tree_that_stops(
    autojump_clock: MockClock, moment: str
) -> None:
    story = Story()
    answers: list[object] = []
    tree = Supervisor("app", [finishing(5, story, "a"), job])

    async def say(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
            answers.append("done")
        except ServicesError as error:
            answers.append(error)

    async with trio.open_nursery() as nursery, story.open(tree) as opened:
        await trio.sleep(2)
        opened.request_stop()
        if moment == "meanwhile":
            await trio.sleep(1)
        elif moment == "afterwards":
            await opened.wait_ended()
        nursery.start_soon(say, lambda: opened.start(named("x")))
        nursery.start_soon(say, lambda: opened.restart("a"))
        nursery.start_soon(say, lambda: opened.restart("job"))

    assert trio.current_time() == 7
    assert len(answers) == 3
    assert all(isinstance(answer, ServicesError) for answer in answers)
    assert starts(story, "x") == []
    assert starts(story, "a") == starts(story, "job") == [0]
    assert all(life.state.ended for life in lives_of(opened.life))


@pytest.mark.parametrize("call", [Tree.stop, Tree.remove])
async def test_stop_and_removal_in_a_tree_that_stops_return_when_the_service_has_ended(
    autojump_clock: MockClock, call: Callable[[Tree, str], Awaitable[None]]
) -> None:
    story = Story()
    answered: list[float] = []

    async with trio.open_nursery() as nursery:

        async def say(path: str) -> None:
            await call(opened, path)
            answered.append(trio.current_time())

        async with story.open(Supervisor("app", [finishing(5, story, "a"), idle])) as opened:
            opened.request_stop()
            await trio.sleep(1)
            nursery.start_soon(say, "a")
            nursery.start_soon(say, "idle")

    assert answered == [1, 5]
    assert trio.current_time() == 5


async def test_words_to_a_tree_that_has_ended_fail_or_return(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        pass

    await tree.stop("idle")
    with pytest.raises(ServicesError, match="stopping"):
        await tree.restart("idle")
    with pytest.raises(ServicesError, match="stopping"):
        await tree.start(named("x"))
    assert tree.statistics().state is State.STOPPED


async def test_start_that_waits_ends_with_the_tree(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [named("db")])

    async with trio.open_nursery() as nursery, open_supervisor(tree) as opened:
        await opened.stop("db")
        starting = Word(nursery, opened.start, never_ready)
        waiting = Word(nursery, opened.start, Child(named("x"), after="db"))
        await trio.sleep(3)

    assert isinstance(starting.answered, StartFailed)
    assert isinstance(waiting.answered, StartFailed)
    assert trio.current_time() == 3


# -- when the run ends -------------------------------------------------------------------


async def test_run_ends_when_the_last_that_is_expected_to_work_is_removed(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    tree = Tree(Supervisor("app", [idle, job]), 30, story.bus, open_ended=False)

    async with tree.open():
        await tree.start(named("extra"))
        await trio.sleep_until(5)
        await tree.remove("idle")
        await trio.sleep_until(8)
        assert state_of(tree.life) is State.RUNNING
        await tree.remove("extra")
        await tree.wait_ended()
        assert trio.current_time() == 8

    assert tree.life.state is State.DONE


async def test_run_goes_on_while_one_is_stopped_by_hand(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Tree(Supervisor("app", [idle, job]), 30, story.bus, open_ended=False)

    async with tree.open():
        await tree.stop("idle")
        await trio.sleep_until(100)
        assert state_of(tree.life) is State.RUNNING
        await tree.restart("idle")
        await trio.sleep_until(200)
        await tree.stop("idle")
        await tree.remove("idle")
        await tree.wait_ended()
        assert trio.current_time() == 200


async def test_run_goes_on_while_a_job_that_was_done_runs_again(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    long = iter([50.0])

    async def other() -> None:
        await trio.sleep(next(long, 0))

    async def again() -> None:
        await trio.sleep(60 if trio.current_time() > 1 else 1)

    tree = Tree(Supervisor("app", [other, again]), 30, story.bus, open_ended=False)

    async with tree.open():
        await trio.sleep_until(10)
        await tree.restart("again")
        await trio.sleep_until(60)
        assert state_of(tree.life) is State.RUNNING
        await tree.wait_ended()
        assert trio.current_time() == 70


async def test_run_goes_on_for_a_started_job_and_ends_with_it(autojump_clock: MockClock) -> None:
    story = Story()

    async def long() -> None:
        await trio.sleep(20)

    tree = Tree(Supervisor("app", [job]), 30, story.bus, open_ended=False)

    async with tree.open():
        await tree.start(long)
        await tree.wait_ended()
        assert trio.current_time() == 20


async def test_nested_supervisor_ends_when_its_last_child_is_removed(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(Supervisor("app", [Supervisor("inner", [named("a")])])) as tree:
        await tree.start(named("b"), under="inner")
        await tree.remove("inner/a")
        await trio.sleep(5)
        assert state(tree, "inner") is State.RUNNING
        await tree.remove("inner/b")
        await wait_all_tasks_blocked()
        assert state(tree, "inner") is State.DONE


# -- nothing leaks -----------------------------------------------------------------------


def records() -> int:
    gc.collect()
    return sum(type(one).__name__ == "Record" for one in gc.get_objects())


@pytest.mark.parametrize("under", ["", "inner"])
@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one"])
async def test_a_thousand_that_are_started_and_removed_leave_nothing(
    autojump_clock: MockClock, under: str, strategy: Strategy
) -> None:
    inner = Child(Supervisor("inner", [named("a")], strategy=strategy), stop_within=20)
    tree = Supervisor("app", [inner], strategy=strategy)
    prefix = f"{under}/" if under else ""

    async with open_supervisor(tree) as opened:
        await wait_all_tasks_blocked()
        tasks, before = task_count(), records()
        for number in range(1000):
            child = Child(ready_after(number % 2, "x"), stop_within=5)
            await opened.start(child, under=under)
            await opened.remove(f"{prefix}x")
        await wait_all_tasks_blocked()
        assert task_count() == tasks
        assert names(opened) == ["inner", "inner/a"]
        for life in lives_of(opened.life):
            assert not getattr(life, "dependents", None)
        # Of deadlines that were called off some may be there until they are reached.
        assert records() - before < 250
        await trio.sleep(100)
        assert records() - before <= 1


async def test_a_thousand_at_once_are_started_and_removed(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [named("db")])) as tree:
        await wait_all_tasks_blocked()
        tasks = task_count()
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                child = Child(ready_after(1, "x"), name=f"x{number}", after="db")
                nursery.start_soon(tree.start, child)
        assert len(tree.life.children) == 1001
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(tree.remove, f"x{number}")
        await wait_all_tasks_blocked()
        assert task_count() == tasks
        assert names(tree) == ["db"]
        await tree.remove("db")


async def test_dynamic_children_that_fail_for_good_leave_nothing_when_removed(
    autojump_clock: MockClock,
) -> None:
    async with open_supervisor(Supervisor("app", [idle])) as tree:
        await wait_all_tasks_blocked()
        tasks = task_count()
        for _ in range(100):
            await tree.start(fragile(broken, critical=False))
            await wait_all_tasks_blocked()
            await tree.remove("broken")
        assert task_count() == tasks
        assert names(tree) == ["idle"]


async def test_endless_time_for_the_start_is_not_kept_when_it_is_over(
    autojump_clock: MockClock,
) -> None:
    async def ready(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)
        task_status.started()
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [idle])) as tree:
        before = records()
        for _ in range(100):
            await tree.start(Child(ready, start_within=math.inf))
            await tree.remove("ready")
        await trio.sleep(100)
        assert records() - before <= 1


# -- no state is shared by accident ------------------------------------------------------

variable: ContextVar[str] = ContextVar("variable", default="clean")


async def test_context_of_the_caller_is_not_that_of_the_service(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []

    async def extra() -> None:
        seen.append(variable.get())
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [idle])) as tree:
        token = variable.set("the caller's")
        await tree.start(extra)
        variable.reset(token)

    assert seen == ["clean"]


async def test_context_of_a_dependency_is_not_that_of_those_after_it(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []

    async def db(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()
        variable.set("db's")
        task_status.started()
        await trio.sleep_forever()

    async def sync() -> None:
        seen.append(variable.get())
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [db, Child(sync, after="db")])):
        pass

    assert seen == ["clean"]


@pytest.mark.parametrize("backoff", [AT_ONCE, IN_2])
async def test_context_of_a_run_is_not_that_of_the_next(
    autojump_clock: MockClock, backoff: Backoff
) -> None:
    seen: list[str] = []

    async def bad() -> None:
        seen.append(variable.get())
        variable.set("dirty")
        await trio.sleep(1)
        if len(seen) < 3:
            raise Boom("again")
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(bad, backoff=backoff)])):
        await trio.sleep(10)

    assert seen == ["clean"] * 3


async def test_context_of_whom_the_supervisor_was_opened_by_is_that_of_all(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []

    async def bad() -> None:
        seen.append(variable.get())
        await trio.sleep(1)
        if len(seen) < 2:
            raise Boom("again")
        await trio.sleep_forever()

    token = variable.set("the program's")
    async with open_supervisor(Supervisor("app", [Child(bad, backoff=IN_2)])):
        await trio.sleep(10)
    variable.reset(token)

    assert seen == ["the program's"] * 2

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services import (
    Backoff,
    Child,
    Limit,
    RestartLimitExceeded,
    Service,
    StartFailed,
    StartTimeout,
    Supervisor,
    current_service,
    open_supervisor,
    service,
)
from trio_services.lifecycle import State, events

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
    from trio.testing import MockClock


async def test_children_start_concurrently(autojump_clock: MockClock) -> None:
    tree = Supervisor("app", [ready_after(3, name) for name in "abc"])

    async with open_supervisor(tree):
        assert trio.current_time() == 3


async def test_dependent_waits_for_readiness(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(ready_after(1, "c", story), after=["b"]),
            Child(ready_after(2, "b", story), after=["a"]),
            Child(ready_after(4, "a", story)),
        ],
    )

    async with story.open(tree):
        assert story.notes == [(0, "a entered"), (4, "b entered"), (6, "c entered")]
        assert trio.current_time() == 7


async def test_dependent_waits_for_all_of_its_dependencies(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(ready_after(0, "last", story), after=["slow", "quick"]),
            ready_after(5, "slow"),
            ready_after(1, "quick"),
        ],
    )

    async with story.open(tree):
        assert story.at("last entered") == 5


async def test_dependent_of_a_supervisor_waits_for_all_its_children(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor("inner", [ready_after(1, "a"), ready_after(6, "b")])
    tree = Supervisor("app", [Child(ready_after(0, "last", story), after="inner"), inner])

    async with story.open(tree):
        assert story.at("last entered") == 6


async def test_supervisor_waits_for_what_it_comes_after(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor("inner", [ready_after(1, "a", story)], after=["db"])

    async with story.open(Supervisor("app", [inner, ready_after(2, "db")])):
        assert story.at("a entered") == 2


async def test_dependent_starts_after_a_job_that_is_done(autojump_clock: MockClock) -> None:
    story = Story()

    async def migrate(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(2)
        task_status.started()

    tree = Supervisor("app", [migrate, Child(ready_after(0, "app", story), after="migrate")])

    async with story.open(tree):
        assert story.at("app entered") == 2


async def test_block_is_entered_when_all_are_ready(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [ready_after(5, "a"), idle])) as tree:
        assert trio.current_time() == 5
        assert tree.ready
        assert {life.state for life in lives_of(tree.life)} == {State.RUNNING}


async def test_service_without_task_status_is_ready_once_entered(
    autojump_clock: MockClock,
) -> None:
    async def slow() -> None:
        await trio.sleep(100)

    async with open_supervisor(Supervisor("app", [slow])):
        assert trio.current_time() == 0


class Counter(Service):
    """Counts its instances."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.starts = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.starts += 1
        assert self.starts == 1
        await trio.sleep(1)
        task_status.started()
        await trio.sleep(1)
        raise Boom("again")


async def test_each_start_makes_a_fresh_instance(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counter, "made", 0)
    tree = Supervisor("app", [Counter], backoff=AT_ONCE)

    async with open_supervisor(tree):
        await trio.sleep(5.5)

    assert Counter.made == 4


async def test_instance_is_used_again(autojump_clock: MockClock) -> None:
    class Shared(Service):
        starts = 0

        async def run(self) -> None:
            self.starts += 1
            await trio.sleep(1)
            raise Boom("again")

    shared = Shared()

    async with open_supervisor(Supervisor("app", [shared], backoff=AT_ONCE)):
        await trio.sleep(2.5)

    assert shared.starts == 3


async def test_partial_of_a_trio_server_is_a_service(autojump_clock: MockClock) -> None:
    story = Story()

    async def serve(greeting: str, *, task_status: trio.TaskStatus[str]) -> None:
        await trio.sleep(1)
        task_status.started(greeting)
        await trio.sleep_forever()

    async with story.open(Supervisor("app", [partial(serve, "hello")])):
        assert story.times(events.ServiceReady, "app/serve") == [1]


async def test_call_of_a_decorated_function_is_made_anew_at_each_start(
    autojump_clock: MockClock,
) -> None:
    calls: list[str] = []

    @service
    async def hello(name: str) -> None:
        calls.append(name)
        await trio.sleep(1)
        raise Boom(name)

    async with open_supervisor(Supervisor("app", [hello("you")], backoff=AT_ONCE)):
        await trio.sleep(2.5)

    assert calls == ["you"] * 3


async def test_service_knows_its_path(autojump_clock: MockClock) -> None:
    names: list[str] = []

    async def asking() -> None:
        names.append(current_service().name)
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Supervisor("inner", [asking])])):
        assert names == ["app/inner/asking"]


async def test_start_timeout_names_the_child(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [fragile(never_ready, name="mute", start_within=7)])

    with pytest.raises(RestartLimitExceeded) as caught:
        async with story.open(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 7
    cause = caught.value.__cause__
    assert isinstance(cause, StartTimeout)
    assert (cause.service, cause.start_within) == ("app/mute", 7)
    assert "app/mute was not ready within 7 s" in str(cause)
    assert "app/mute" in str(caught.value)


async def test_block_is_not_entered_when_the_start_failed(autojump_clock: MockClock) -> None:
    entered = False

    async def block() -> None:
        nonlocal entered
        async with open_supervisor(Supervisor("app", [fragile(broken_start)])):
            entered = True
            await trio.sleep_forever()

    with pytest.raises(RestartLimitExceeded):
        await block()

    assert not entered


async def test_start_timeout_counts_as_a_failure(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [Child(never_ready, start_within=2, backoff=Backoff(initial=1, jitter=0))],
        max_restarts=Limit(1, per=60),
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert story.sequence("app/never_ready") == [
        "ServiceStarting",
        "ServiceFailed",
        "ServiceRestarting",
        "ServiceStarting",
        "ServiceFailed",
    ]
    assert story.times(events.ServiceFailed, "app/never_ready") == [2, 5]


async def test_start_timeout_of_a_supervisor_lets_the_work_in_hand_below_it_finish(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    group = Supervisor(
        "group",
        [
            ready_after(0, "db", story),
            Child(finishing(3, story, "work"), after=["db"]),
            Child(never_ready, start_within=10),
        ],
        start_within=5,
    )
    tree = Supervisor("app", [Child(group, start_within=15, critical=False, restart="never")])

    async with story.open(tree):
        assert trio.current_time() == 18

    assert story.notes == [
        (0, "db entered"),
        (18, "work finished"),
        (18, "work left"),
        (18, "db left"),
    ]
    [failed] = story.of(events.ServiceFailed, "app/group")
    assert failed.failure.type == "StartTimeout"
    assert not failed.stopping


async def test_start_timeout_ends_with_readiness(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [Child(ready_after(2, "a"), start_within=3)])):
        await trio.sleep(100)

    assert not story.of(events.ServiceFailed)


async def test_error_of_a_start_that_takes_too_long_is_told(autojump_clock: MockClock) -> None:
    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("while undoing")

    with pytest.raises(RestartLimitExceeded, match="while undoing"):
        async with open_supervisor(Supervisor("app", [fragile(slow, start_within=1)])):
            await trio.sleep_forever()


async def test_return_before_readiness_is_a_failure(autojump_clock: MockClock) -> None:
    async def quitter(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)

    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(Supervisor("app", [fragile(quitter)])):
            await trio.sleep_forever()

    assert isinstance(caught.value.__cause__, StartFailed)
    assert "returned before task_status.started()" in str(caught.value)


async def test_second_call_of_started_is_a_failure(autojump_clock: MockClock) -> None:
    async def eager(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        task_status.started()
        await trio.sleep_forever()

    with pytest.raises(RestartLimitExceeded, match=r"called task_status.started\(\) twice"):
        async with open_supervisor(Supervisor("app", [fragile(eager)])):
            await trio.sleep_forever()


async def test_constructor_that_raises_is_a_failure(autojump_clock: MockClock) -> None:
    attempts: list[float] = []

    class Picky(Service):
        def __init__(self) -> None:
            attempts.append(trio.current_time())
            if len(attempts) < 3:
                raise Boom("not yet")

        async def run(self) -> None:
            await trio.sleep_forever()

    tree = Supervisor("app", [Child(Picky, backoff=Backoff(initial=1, factor=1, jitter=0))])

    async with open_supervisor(tree):
        assert attempts == [0, 1, 2]


async def test_factory_of_something_else_is_told(autojump_clock: MockClock) -> None:
    def factory() -> Service:
        return 17  # type: ignore[return-value]

    with pytest.raises(RestartLimitExceeded, match="factory returned 17: a service is"):
        async with open_supervisor(Supervisor("app", [fragile(factory)])):
            await trio.sleep_forever()


async def test_async_factory_is_told(autojump_clock: MockClock) -> None:
    class Idle(Service):
        async def run(self) -> None:
            await trio.sleep_forever()

    async def make() -> Service:  # noqa: ASYNC124
        return Idle()

    with pytest.raises(RestartLimitExceeded, match="a factory is a plain function"):
        async with open_supervisor(Supervisor("app", [fragile(make)])):
            await trio.sleep_forever()


async def test_dependents_do_not_start_until_a_failing_start_succeeds(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    attempts = 0

    async def db(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal attempts
        attempts += 1
        await trio.sleep(1)
        if attempts < 3:
            raise Boom("refused")
        task_status.started()
        await trio.sleep_forever()

    tree = Supervisor(
        "app",
        [
            Child(db, backoff=Backoff(initial=2, factor=1, jitter=0)),
            Child(ready_after(0, "sync", story), after="db"),
        ],
    )

    async with story.open(tree):
        assert story.at("sync entered") == 7  # three starts of 1 s, two delays of 2 s


async def test_dependents_run_on_while_a_dependency_restarts(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(fails_after(5), name="db"),
            Child(ready_after(0, "sync", story), after="db"),
        ],
    )

    async with story.open(tree):
        await trio.sleep(20)
        assert story.noted == ["sync entered"]


async def test_supervisor_without_children_is_ready_at_once(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [])) as tree:
        await trio.sleep(10)
        assert tree.ready


async def test_nested_supervisor_without_children_is_done(autojump_clock: MockClock) -> None:
    async with open_supervisor(Supervisor("app", [Supervisor("none", []), idle])) as tree:
        await trio.sleep(1)
        assert tree.life.children["none"].state is State.DONE


async def test_long_chain_starts_and_stops_in_order(autojump_clock: MockClock) -> None:
    story = Story()
    chain = [Child(idle, name="c0")]
    chain += [Child(idle, name=f"c{n}", after=f"c{n - 1}", stop_within=0) for n in range(1, 1000)]

    async with story.open(Supervisor("app", chain)):
        pass

    names = [f"app/c{n}" for n in range(1000)]
    assert story.order(events.ServiceReady) == names
    assert story.order(events.ServiceStopped) == names[::-1]


async def test_deeply_nested_supervisors_start_and_stop(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("leaf", [idle])
    for depth in range(60):
        tree = Supervisor(f"s{depth}", [tree])

    async with story.open(tree) as opened:
        assert opened.ready

    assert story.tree is not None
    assert {life.state for life in lives_of(story.tree.life)} == {State.STOPPED}


async def test_dependents_of_a_service_that_gave_up_do_not_start(
    autojump_clock: MockClock,
) -> None:
    # Those in the middle of the chain are the ones who are told to stop last.
    story = Story()
    tree = Supervisor(
        "app",
        [
            fragile(broken_start, name="db"),
            Child(ready_after(0, "sync", story), after="db"),
            Child(ready_after(0, "report", story), after="sync"),
        ],
    )

    with pytest.raises(RestartLimitExceeded):
        async with story.open(tree):
            await trio.sleep_forever()

    assert story.noted == []


async def test_nobody_starts_once_the_supervisor_has_given_up(autojump_clock: MockClock) -> None:
    # The siblings' tasks have not had their first turn when this one fails.
    story = Story()
    siblings = [ready_after(0, f"s{n}", story) for n in range(30)]
    entered: list[int] = []

    async def bad() -> None:
        entered.append(len(story.notes))
        await AtOnce(Boom("at once"))

    with pytest.raises(RestartLimitExceeded):
        async with story.open(Supervisor("app", [fragile(bad), *siblings])):
            await trio.sleep_forever()

    assert len([text for text in story.noted if text.endswith("entered")]) == entered[0]
    (gave_up,) = story.of(events.SupervisorGaveUp)
    later = story.events[story.events.index(gave_up) :]
    assert not any(isinstance(event, events.ServiceStarting) for event in later)


async def test_readiness_of_an_earlier_run_is_not_that_of_the_next(
    autojump_clock: MockClock,
) -> None:
    statuses: list[trio.TaskStatus[None]] = []

    async def leaky(*, task_status: trio.TaskStatus[None]) -> None:
        statuses.append(task_status)
        if len(statuses) == 1:
            raise Boom("first")
        await trio.sleep(1)
        statuses[0].started()
        await trio.sleep(1)
        task_status.started()
        await trio.sleep_forever()

    async with open_supervisor(Supervisor("app", [Child(leaky, backoff=AT_ONCE)])):
        assert trio.current_time() == 2


async def broken_start(*, task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep(1)
    raise Boom("refused")


async def test_starts_are_counted(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [Child(fails_after(1, 1), name="a")])):
        await trio.sleep(20)

    assert [event.attempt for event in story.of(events.ServiceStarting, "app/a")] == [1, 2, 3]


async def test_time_to_readiness_is_told(autojump_clock: MockClock) -> None:
    story = Story()

    async with story.open(Supervisor("app", [ready_after(3, "a")])):
        pass

    assert [event.took for event in story.of(events.ServiceReady)] == [3, 3]


async def test_failed_noncritical_start_lets_dependents_start(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            fragile(broken_start, name="cache", critical=False),
            Child(ready_after(0, "sync", story), after="cache"),
        ],
    )

    async with story.open(tree) as opened:
        assert story.at("sync entered") == 1
        assert state_of(opened.life.children["cache"]) is State.FAILED
        await trio.sleep(math.pi)
        assert opened.ready


async def test_synchronous_function_is_told(autojump_clock: MockClock) -> None:
    def blocking() -> None:
        return None

    with pytest.raises(RestartLimitExceeded, match="a service is an async callable"):
        async with open_supervisor(Supervisor("app", [fragile(blocking)])):
            await trio.sleep_forever()


async def test_broken_service_does_not_disturb_its_siblings(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [fragile(broken, critical=False), ready_after(0, "a", story)],
    )

    async with story.open(tree):
        await trio.sleep(10)
        assert story.noted == ["a entered"]

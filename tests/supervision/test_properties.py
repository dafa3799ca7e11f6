"""What is true of every tree, whatever its services do: asked of random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Limit,
    RestartLimitExceeded,
    Service,
    StopFailed,
    Supervisor,
    current_service,
    graceful,
)
from trio_services.lifecycle import State, events
from trio_services.supervision import Strategy
from trio_services.supervision._record import Record

from .harness import Boom, Story, ending_within, lives_of, using_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# How many examples is for the profile to say.
EXAMPLES = settings(deadline=None)

# Which event may follow which, written from the contract: `None` is before the first. Those that
# are cancelled at a deadline from above have not always been told to stop before.
MAY_FOLLOW: dict[str | None, set[str]] = {
    None: {"ServiceStarting"},
    "ServiceStarting": {"ServiceReady", "ServiceFailed", "ServiceStopping", "ServiceStopped"},
    "ServiceReady": {"ServiceReturned", "ServiceFailed", "ServiceStopping", "ServiceStopped"},
    "ServiceReturned": {"ServiceRestarting"},
    "ServiceFailed": {"ServiceRestarting"},
    "ServiceRestarting": {"ServiceStarting"},
    "ServiceStopping": {"ServiceStopped", "ServiceFailed", "ServiceOverdue"},
    "ServiceOverdue": {"ServiceStopped", "ServiceFailed"},
    "ServiceStopped": set(),
}


def in_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    with ending_within(20):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


STRATEGIES: list[Strategy] = ["one_for_one", "one_for_all", "rest_for_one"]


# -- how long a start and a stop take ---------------------------------------------------

within = st.integers(0, 12).map(lambda quarters: quarters / 4)


@st.composite
def plans(
    draw: st.DrawFn, make: Callable[[str], Callable[[], Awaitable[None]]], depth: int = 2
) -> Supervisor:
    """Trees with any dependencies between siblings, in any order."""
    children: list[Child] = []
    for n in range(draw(st.integers(1, 4))):
        name = f"c{n}"
        after = draw(st.sets(st.sampled_from(children), max_size=2)) if children else set[Child]()
        names = sorted(child.name for child in after)
        if depth and draw(st.booleans()):
            inner = attrs.evolve(draw(plans(make, depth - 1)), name=name)
            children.append(Child(inner, after=names))
        else:
            children.append(
                Child(
                    make(name),
                    name=name,
                    after=names,
                    start_within=draw(within) + 0.25,
                    stop_within=draw(within),
                )
            )
    strategy = draw(st.sampled_from(STRATEGIES))
    return Supervisor(
        "app",
        children if strategy == "rest_for_one" else draw(st.permutations(children)),
        strategy=strategy,
    )


@EXAMPLES
@given(plans(using_all))
def test_stop_takes_as_long_as_predicted_when_all_use_all_of_their_time(tree: Supervisor) -> None:
    async def main() -> None:
        story = Story()
        async with story.open(tree, stop_within=1_000):
            await trio.sleep(100)
            begin = trio.current_time()
        assert trio.current_time() - begin == pytest.approx(tree.worst_stop)
        assert not story.of(events.ServiceOverdue)

    in_virtual_time(main)


@EXAMPLES
@given(st.data())
def test_start_never_takes_longer_than_predicted(data: st.DataObject) -> None:
    parts: dict[str, float] = {}

    def make(name: str) -> Callable[..., Awaitable[None]]:
        async def service(*, task_status: trio.TaskStatus[None]) -> None:
            life = current_service()
            # All of its time but a hair, at which it would be timed out.
            part = parts.setdefault(life.name, data.draw(st.sampled_from([0.0, 0.5, 1 - 1e-9])))
            assert isinstance(life, Record)
            await trio.sleep(life.start_within * part)
            task_status.started()
            await trio.sleep_forever()

        return service

    tree = data.draw(plans(make))

    async def main() -> None:
        async with Story().open(tree, stop_within=1_000):
            took = trio.current_time()
        assert took <= tree.worst_start + 1e-6
        if all(part == 1 - 1e-9 for part in parts.values()):
            assert took == pytest.approx(tree.worst_start, abs=0.001)

    in_virtual_time(main)


class Unsteady(Service):
    """At a stop, uses a part of its time."""

    def __init__(self, part: float) -> None:
        self.part = part

    async def run(self) -> None:
        with graceful() as region:
            await current_service().wait_stop_requested()
            await trio.sleep((region.scope.deadline - trio.current_time()) * self.part)


@EXAMPLES
@given(st.data())
def test_stop_never_takes_longer_than_predicted(data: st.DataObject) -> None:
    def make(name: str) -> Callable[[], Awaitable[None]]:
        part = data.draw(st.sampled_from([0.0, 0.25, 0.75, 1.0, 2.0]))
        return Unsteady(part).run

    tree = data.draw(plans(make))

    async def main() -> None:
        async with Story().open(tree, stop_within=1_000):
            await trio.sleep(100)
            begin = trio.current_time()
        assert trio.current_time() - begin <= tree.worst_stop + 1e-6

    in_virtual_time(main)


# -- what is left ----------------------------------------------------------------------


@attrs.frozen
class Run:
    """What one run of a service does: get ready after a while, or never, then end somehow."""

    ready_after: float | None
    ends_after: float
    how: str  # "return", "fail", "group"
    at_stop: str  # "obey", "drain", "fail", "swallow"


runs = st.builds(
    Run,
    ready_after=st.sampled_from([0.0, 0.0, 0.5, 2.0, None]),
    ends_after=st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0, 1000.0]),
    how=st.sampled_from(["return", "fail", "group"]),
    at_stop=st.sampled_from(["obey", "obey", "drain", "fail", "swallow"]),
)


@attrs.define(eq=False)
class Actor:
    """Makes a fresh service for each start, which plays the next run; the last for ever."""

    name: str
    script: list[Run]
    made: int = 0
    alive: int = 0
    most_alive: int = 0

    def __call__(self) -> Play:
        self.made += 1
        return Play(self, self.script[min(self.made, len(self.script)) - 1])


@attrs.define(eq=False)
class Play(Service):
    actor: Actor
    plan: Run
    used: bool = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        assert not self.used
        self.used = True
        actor, plan = self.actor, self.plan
        actor.alive += 1
        actor.most_alive = max(actor.most_alive, actor.alive)
        finished = False
        try:
            await trio.sleep(plan.ends_after if plan.ready_after is None else plan.ready_after)
            if plan.ready_after is None:
                finished = True
                raise Boom("not ready")
            task_status.started()
            if plan.at_stop == "drain":
                with graceful():
                    await trio.sleep(plan.ends_after)
            else:
                await trio.sleep(plan.ends_after)
            finished = True
        finally:
            actor.alive -= 1
            if not finished and plan.at_stop == "fail":
                raise Boom("at the stop")
            if not finished and plan.at_stop == "swallow":
                with trio.move_on_after(0.5, shield=True):
                    await trio.sleep_forever()
        if plan.how == "fail":
            raise Boom("failed")
        if plan.how == "group":
            raise ExceptionGroup("", [Boom("one"), ExceptionGroup("", [Boom("two")])])


breakers = st.sampled_from(
    [
        None,
        None,
        Breaker(2, within=10, reset_after=1, healthy_after=0.5, jitter=0),
        Breaker(1, within=5, reset_after=2, cap=3, healthy_after=1, give_up_after=2, jitter=0),
    ]
)


@st.composite
def casts(draw: st.DrawFn, actors: list[Actor], depth: int = 2) -> Supervisor:
    children: list[Child] = []
    for n in range(draw(st.integers(1, 4))):
        name = f"c{n}"
        after = draw(st.sets(st.sampled_from(children), max_size=2)) if children else set[Child]()
        names = sorted(child.name for child in after)
        if depth and draw(st.integers(0, 3)) == 0:
            inner = attrs.evolve(draw(casts(actors, depth - 1)), name=name)
            service: Supervisor | Actor = inner
        else:
            inner = None
            service = Actor(name, draw(st.lists(runs, min_size=1, max_size=4)))
            actors.append(service)
        children.append(
            Child(
                service,
                name=name,
                after=names,
                restart=draw(st.sampled_from(["always", "on_failure", "never", None])),
                breaker=draw(breakers),
                critical=draw(st.booleans()),
                retry_start=draw(st.booleans()),
                start_within=None if service is inner else draw(st.sampled_from([None, 1.0])),
                stop_within=None if service is inner else draw(st.sampled_from([None, 0.0, 1.0])),
            )
        )
    strategy = draw(st.sampled_from(STRATEGIES))
    return Supervisor(
        "app",
        children if strategy == "rest_for_one" else draw(st.permutations(children)),
        strategy=strategy,
        max_restarts=draw(st.sampled_from([Limit(0, 1), Limit(2, 5), Limit(50, 60)])),
        backoff=draw(
            st.sampled_from(
                [Backoff(initial=0.25, cap=1, jitter=0), Backoff(initial=0.5, cap=8, jitter=0)]
            )
        ),
    )


@EXAMPLES
@given(
    data=st.data(),
    how=st.sampled_from(["leave", "request", "cancel", "outside", "raise", "twice"]),
    when=st.sampled_from([0.0, 0.5, 1.0, 2.25, 3.0, 20.0]),
)
def test_whatever_happens_nothing_is_left(data: st.DataObject, how: str, when: float) -> None:
    actors: list[Actor] = []
    tree = data.draw(casts(actors))
    story = Story()

    async def stop(scope: trio.CancelScope) -> None:
        await trio.sleep(when)
        assert story.tree is not None
        if how in ("request", "twice"):
            story.tree.request_stop()
        if how == "twice":
            await trio.sleep(0.5)
        if how in ("cancel", "twice"):
            story.tree.cancel()
        if how == "outside":
            scope.cancel()
        await trio.sleep(100)
        story.tree.request_stop()  # a tree that never becomes ready would be tried for ever

    async def main() -> None:
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop, scope)
                try:
                    async with story.open(tree, stop_within=1_000) as opened:
                        await trio.sleep(when)
                        if how == "raise":
                            raise Boom("block")
                        if how != "leave":
                            await opened.wait_ended()
                except* (RestartLimitExceeded, StopFailed, Boom):
                    pass
                nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_statistics().tasks_living == tasks

    in_virtual_time(main)

    assert [actor.name for actor in actors if actor.alive] == []
    assert all(actor.most_alive <= 1 for actor in actors)
    assert story.tree is not None
    lives = {life.name: life for life in lives_of(story.tree.life)}
    assert {name: life.state for name, life in lives.items() if not life.state.ended} == {}
    internal = [
        event.failure
        for event in story.of(events.ServiceFailed)
        if event.failure.type in ("RuntimeError", "AssertionError", "KeyError", "TypeError")
    ]
    assert internal == []
    for name in {event.service for event in story.events}:
        check_sequence(name, story, together=tree.strategy != "one_for_one")


def check_sequence(name: str, story: Story, *, together: bool) -> None:
    before: str | None = None
    for step in story.sequence(name):
        if step == "SupervisorGaveUp" or step.startswith("Breaker"):
            continue
        if before == "ServiceStopped" or (
            before in ("ServiceFailed", "ServiceReturned") and step == "ServiceStarting"
        ):
            # It was restarted together with others, or all that is below its supervisor was.
            assert together or name.count("/") > 1, (name, story.sequence(name))
            before = None
        assert step in MAY_FOLLOW[before], (name, before, step, story.sequence(name))
        before = step


@EXAMPLES
@given(data=st.data())
def test_nobody_runs_without_those_that_it_comes_after_having_been_ready(
    data: st.DataObject,
) -> None:
    actors: list[Actor] = []
    tree = data.draw(casts(actors, depth=0))
    story = Story()

    async def main() -> None:
        try:
            with trio.move_on_after(50):
                async with story.open(tree, stop_within=1_000):
                    await trio.sleep(5)
        except (RestartLimitExceeded, StopFailed):
            await trio.lowlevel.checkpoint()

    in_virtual_time(main)

    passed: set[str] = set()
    stopping = False
    dependencies = {f"app/{child.name}": child.after for child in tree.children}
    critical = {f"app/{child.name}": child.critical for child in tree.children}
    fragile = {f"app/{child.name}": child.restart == "never" for child in tree.children}
    for event in story.events:
        if event.service == "app":
            stopping |= isinstance(event, events.ServiceStopping | events.SupervisorGaveUp)
        elif isinstance(event, events.ServiceReady):
            passed.add(event.service)
        elif isinstance(event, events.ServiceFailed) and (
            event.stopping or not critical[event.service]
        ):
            passed.add(event.service)  # perhaps for good; then those after it start without it
        elif isinstance(event, events.ServiceStopped) and fragile[event.service]:
            passed.add(event.service)  # for good, by the strategy
        elif isinstance(event, events.ServiceStarting) and event.attempt == 1:
            assert {f"app/{name}" for name in dependencies[event.service]} <= passed
            assert not stopping


@EXAMPLES
@given(data=st.data())
def test_those_that_come_after_a_service_have_ended_before_it_is_told_to_stop(
    data: st.DataObject,
) -> None:
    tree = data.draw(plans(using_all, depth=0))
    story = Story()

    async def main() -> None:
        async with story.open(tree, stop_within=1_000):
            await trio.sleep(1)

    in_virtual_time(main)

    stopped: set[str] = set()
    for event in story.events:
        if isinstance(event, events.ServiceStopped):
            stopped.add(event.service)
        elif isinstance(event, events.ServiceStopping) and event.service != "app":
            name = event.service.removeprefix("app/")
            assert {
                f"app/{child.name}" for child in tree.children if name in child.after
            } <= stopped
    assert story.tree is not None
    assert {life.state for life in lives_of(story.tree.life)} == {State.STOPPED}

"""Several children are added, removed, replaced and amended in a running tree, or none are."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trio_services import (
    Child,
    PlanError,
    ServicesError,
    StartFailed,
    Supervisor,
    UnknownService,
    Workers,
    WorkQueue,
)
from trio_services.lifecycle import State, events
from trio_services.supervision import Change, Tree

from .harness import AT_ONCE, Boom, Story, broken, finishing, idle, never_ready, ready_after


def child(name: str, *after: str) -> Child:
    return Child(idle, name=name, after=after)


def states(tree: Tree) -> dict[str, State]:
    return {one.name.removeprefix("app/"): one.state for one in tree.statistics().children}


def starts(tree: Tree) -> dict[str, int]:
    return {one.name.removeprefix("app/"): one.restarts + 1 for one in tree.statistics().children}


async def test_children_are_added_removed_and_replaced_together(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    slow = Child(finishing(1, story, "c"), name="c", after="b")
    tree = Supervisor("app", [child("a"), child("b", "a"), slow, child("d")])
    async with story.open(tree) as running:
        await running.change(Change(start=[child("e"), child("c", "a", "e")], remove=["b"]))

        assert states(running) == dict.fromkeys(["a", "c", "d", "e"], State.RUNNING)
        assert starts(running) == {"a": 1, "c": 2, "d": 1, "e": 1}
        assert story.order(events.ServiceStopped) == ["app/c", "app/b"]
        assert story.order(events.ServiceReady)[-2:] == ["app/e", "app/c"]


async def test_stop_follows_the_graph_as_it_was_changed(autojump_clock: MockClock) -> None:
    story = Story()
    async with story.open(Supervisor("app", [child("a"), child("b", "a")])) as running:
        await running.change(Change(start=[child("b"), child("a", "b")]))
        assert starts(running) == {"a": 2, "b": 2}
        del story.events[:]

    assert story.order(events.ServiceStopped) == ["app/a", "app/b"]


async def test_child_that_is_amended_goes_on_and_has_the_new_policy(
    autojump_clock: MockClock,
) -> None:
    async def fragile() -> None:
        await fail.wait()
        raise Boom

    fail = trio.Event()
    story = Story()
    first = Child(fragile, name="a")
    async with story.open(Supervisor("app", [first, child("b")])) as running:
        await running.change(
            Change(amend=[Child(fragile, name="a", restart="never", critical=False)])
        )
        assert starts(running) == {"a": 1, "b": 1}
        fail.set()
        await trio.sleep(1)

        assert states(running) == {"a": State.FAILED, "b": State.RUNNING}
        (a, _) = running.statistics().children
        assert not a.critical


@pytest.mark.parametrize(
    ("policy", "bad", "reason"),
    [
        ({"restart": "never"}, broken, "Boom"),
        ({}, broken, "Boom"),
        ({"restart": "always", "backoff": AT_ONCE}, broken, "Boom"),
        ({"start_within": 5}, never_ready, "not ready within 5 s"),
    ],
)
async def test_child_that_does_not_become_ready_has_one_attempt_and_harms_nobody(
    autojump_clock: MockClock, policy: dict[str, Any], bad: Any, reason: str
) -> None:
    story = Story()
    async with story.open(Supervisor("app", [child("a"), child("b", "a")])) as running:
        with pytest.raises(StartFailed, match=reason) as caught:
            await running.change(
                Change(
                    start=[Child(bad, name="a", **policy), child("c")], remove=["b"], probation=1
                )
            )
        assert caught.value.service == "app/a"
        await trio.sleep(100)
        assert states(running)["a"] is State.FAILED
        assert starts(running)["a"] == 2

        await running.change(Change(start=[child("a"), child("b", "a")], remove=["c"]))

        assert states(running) == {"a": State.RUNNING, "b": State.RUNNING}
        assert not story.of(events.ServiceRestarting)
        assert not story.of(events.SupervisorGaveUp)


async def test_child_that_fails_after_it_was_ready_is_restarted_as_ever(
    autojump_clock: MockClock,
) -> None:
    lives = 0

    async def fails_once() -> None:
        nonlocal lives
        lives += 1
        await trio.sleep(1)
        if lives == 1:
            raise Boom
        await trio.sleep_forever()

    story = Story()
    async with story.open(Supervisor("app", [child("a")], backoff=AT_ONCE)) as running:
        await running.change(Change(start=[Child(fails_once, name="a")]))
        await trio.sleep(2)

        assert states(running) == {"a": State.RUNNING}
        assert lives == 2


async def test_child_that_waits_for_one_that_is_down_fails_in_time(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    async with story.open(Supervisor("app", [child("a"), child("b")])) as running:
        await running.stop("a")
        with pytest.raises(StartFailed, match="app/c waits for app/a"):
            await running.change(Change(start=[child("c", "a")]))


async def test_child_that_has_returned_is_started_anew(autojump_clock: MockClock) -> None:
    async def brief() -> None:
        await trio.lowlevel.checkpoint()

    story = Story()
    async with story.open(Supervisor("app", [Child(brief, name="a")])) as running:
        await running.change(Change(start=[Child(brief, name="a")]))
        assert states(running) == {"a": State.DONE}
        await running.change(Change(start=[child("a")]))
        assert states(running) == {"a": State.RUNNING}


async def test_tree_in_which_all_is_replaced_does_not_end(autojump_clock: MockClock) -> None:
    tree = Tree(Supervisor("app", [child("a")]), 30, Story().bus, open_ended=False)
    async with tree.open():
        await tree.change(Change(start=[child("b")], remove=["a"]))
        await trio.sleep(1)

        assert states(tree) == {"b": State.RUNNING}


async def test_queue_of_workers_that_are_replaced_goes_on(autojump_clock: MockClock) -> None:
    async def handle(item: int) -> None:
        await trio.sleep(1)

    async def handle_otherwise(item: int) -> None:
        await trio.sleep(0.1)

    queue = WorkQueue[int]("numbers")
    for number in range(10):
        queue.put_nowait(number)
    story = Story()
    async with story.open(Supervisor("app", [Child(Workers(queue, handle), name="w")])) as running:
        await trio.sleep(2.5)
        await running.change(Change(start=[Child(Workers(queue, handle_otherwise), name="w")]))
        await trio.sleep(1)

        assert queue.statistics().done == 10
        assert queue.statistics().returned == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (Change(remove=["a"]), PlanError, "app/b comes after 'a', which is no child of app"),
        (Change(remove=["z"]), UnknownService, "app has no service 'z'"),
        (Change(amend=[Child(idle, name="z")]), UnknownService, "app has no service 'z'"),
        (
            Change(amend=[Child(idle, name="b")]),
            PlanError,
            "b has to start anew to come after others",
        ),
        (
            Change(start=[Child(idle, name="a", after="b")]),
            PlanError,
            "each of these comes after the next",
        ),
        (
            Change(start=[Child(idle, name="a", stop_within=25)]),
            PlanError,
            "app may need 35 s to stop, but has 30 s",
        ),
    ],
)
async def test_change_that_cannot_be_is_refused_before_anything_is_done(
    change: Change, error: type[ServicesError], message: str
) -> None:
    story = Story()
    async with story.open(Supervisor("app", [child("a"), child("b", "a")])) as running:
        with pytest.raises(error, match=message):
            await running.change(change)

        assert starts(running) == {"a": 1, "b": 1}
        assert not story.of(events.ServiceStopping)


async def test_tree_of_another_strategy_is_not_changed() -> None:
    story = Story()
    tree = Supervisor("app", [child("a")], strategy="one_for_all")
    async with story.open(tree) as running:
        with pytest.raises(PlanError, match="app is one_for_all"):
            await running.change(Change(start=[child("b")]))


async def test_stop_during_a_change_ends_the_change(autojump_clock: MockClock) -> None:
    story = Story()
    async with story.open(Supervisor("app", [child("a")])) as running:
        async with trio.open_nursery() as nursery:

            async def change() -> None:
                with pytest.raises(StartFailed, match="app/b was stopped"):
                    await running.change(Change(start=[Child(ready_after(9, "b"))]))

            nursery.start_soon(change)
            await trio.sleep(1)
            running.request_stop()
        with pytest.raises(ServicesError, match="app is stopping"):
            await running.change(Change(start=[child("c")]))


NAMES = "abcd"


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Children by name, each with those that it comes after, in an order that has no cycle."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, 4))]
    return {
        name: tuple(draw(st.sets(st.sampled_from(names[:place])))) if place else ()
        for place, name in enumerate(names)
    }


@settings(deadline=None, max_examples=60)
@given(before=graphs(), after=graphs(), anew=st.sets(st.sampled_from(NAMES)), fails=st.booleans())
def test_any_change_makes_the_tree_the_new_one_or_can_be_undone(
    before: dict[str, tuple[str, ...]],
    after: dict[str, tuple[str, ...]],
    anew: set[str],
    fails: bool,
) -> None:
    def tree_of(graph: dict[str, tuple[str, ...]]) -> dict[str, Child]:
        return {name: child(name, *others) for name, others in graph.items()}

    async def main() -> None:
        old, new = tree_of(before), tree_of(after)
        start = [
            one
            for name, one in new.items()
            if name in anew or name not in old or old[name].after != one.after
        ]
        if fails:
            start.append(Child(broken, name="e"))
            new["e"] = start[-1]
        remove = old.keys() - new.keys()
        story = Story()
        async with story.open(Supervisor("app", old.values(), stop_within=1)) as running:
            try:
                await running.change(Change(start=start, remove=remove, probation=1))
            except StartFailed:
                assert fails
                again = [old[one.name] for one in start if one.name in old]
                again += [old[name] for name in remove]
                await running.change(Change(start=again, remove=new.keys() - old.keys()))
                new = old
            else:
                assert not fails
            assert states(running) == dict.fromkeys(new, State.RUNNING)
            unchanged = old.keys() & new.keys() - {one.name for one in start}
            assert all(starts(running)[name] == 1 for name in unchanged)
            del story.events[:]
        stopped = story.order(events.ServiceStopped)
        for name, one in new.items():
            for other in one.after:
                assert stopped.index(f"app/{name}") < stopped.index(f"app/{other}")

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_workers_that_were_added_by_hand_finish_what_they_have_in_hand_at_a_stop(
    autojump_clock: MockClock,
) -> None:
    async def handle(item: int) -> None:
        await trio.sleep(1)

    queue = WorkQueue[int]("numbers")
    for number in range(4):
        queue.put_nowait(number)
    story = Story()
    async with story.open(Supervisor("app", [Child(Workers(queue, handle), name="w")])) as running:
        running.resize("w", 4)
        await trio.sleep(0.5)

    assert queue.statistics().done == 4
    assert queue.statistics().returned == 0

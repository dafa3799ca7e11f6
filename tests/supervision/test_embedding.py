"""A tree inside of another program, and inside of a service of another tree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services import (
    Child,
    PlanError,
    Service,
    Supervisor,
    graceful,
    open_supervisor,
)
from trio_services.lifecycle import events

from .harness import Boom, Story, fails_after, finishing, fragile, idle, ready_after, using_all

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_cancellation_around_the_tree_stops_it_in_order(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [finishing(2, story, "db"), Child(finishing(3, story, "sync"), after="db")]
    )

    with trio.move_on_after(5) as scope:
        async with story.open(tree):
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert [text for text in story.notes if "finished" in text[1]] == [
        (8, "sync finished"),
        (10, "db finished"),
    ]


async def test_stop_by_cancellation_obeys_the_deadlines(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(using_all("db"), stop_within=2),
            Child(using_all("sync"), stop_within=3, after="db"),
        ],
    )

    with trio.move_on_after(1):
        async with story.open(tree):
            await trio.sleep_forever()

    assert trio.current_time() == 6


async def test_cancellation_during_the_stop_does_not_hurry_it(autojump_clock: MockClock) -> None:
    story = Story()

    with trio.CancelScope() as scope:
        async with story.open(Supervisor("app", [finishing(8, story, "a")])):
            await trio.sleep(1)
            scope.deadline = trio.current_time() + 2

    assert "a finished" in story.noted
    assert trio.current_time() == 9


async def test_trees_side_by_side_stop_by_themselves(autojump_clock: MockClock) -> None:
    story = Story()

    async with open_supervisor(Supervisor("one", [finishing(2, story, "a")])):
        async with open_supervisor(Supervisor("two", [finishing(3, story, "b")])):
            await trio.sleep(1)
        assert story.noted == ["b finished", "b left"]
    assert trio.current_time() == 6


def outer_tree(inner: Supervisor, story: Story, stop_within: float) -> Supervisor:
    class Outer(Service):
        async def run(
            self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            try:
                async with open_supervisor(inner, bus=story.bus):
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                story.note("outer left")

    return Supervisor("app", [Child(Outer, stop_within=stop_within)])


async def test_tree_in_a_service_stops_in_order_with_it(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor(
        "inner", [finishing(2, story, "db"), Child(finishing(3, story, "sync"), after="db")]
    )

    async with story.open(outer_tree(inner, story, stop_within=20)):
        await trio.sleep(1)

    assert [text for text in story.notes if "left" in text[1]] == [
        (4, "sync left"),
        (6, "db left"),
        (6, "outer left"),
    ]


async def test_tree_in_a_service_obeys_its_deadline(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor("inner", [using_all("db"), Child(using_all("sync"), after="db")])

    async with story.open(outer_tree(inner, story, stop_within=4)):
        await trio.sleep(1)

    assert trio.current_time() == 5
    assert story.of(events.ServiceStopped, "inner/db")


async def test_tree_in_a_service_finishes_its_work_long_after_its_start(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor("inner", [finishing(2, story, "db")])

    async with story.open(outer_tree(inner, story, stop_within=20)):
        await trio.sleep(100)

    assert "db finished" in story.noted


async def test_cancellation_around_both_trees_stops_the_inner_in_order(
    autojump_clock: MockClock,
) -> None:
    story = Story()
    inner = Supervisor(
        "inner", [finishing(2, story, "db"), Child(finishing(3, story, "sync"), after="db")]
    )

    with trio.move_on_after(1):
        async with story.open(outer_tree(inner, story, stop_within=20)):
            await trio.sleep_forever()

    assert [text for text in story.noted if "finished" in text] == [
        "sync finished",
        "db finished",
    ]


async def test_hard_cancellation_reaches_a_tree_in_a_service(autojump_clock: MockClock) -> None:
    story = Story()
    inner = Supervisor("inner", [using_all("db"), Supervisor("innermost", [using_all("sync")])])

    async with story.open(outer_tree(inner, story, stop_within=20)) as opened:
        await trio.sleep(1)
        opened.cancel()

    assert trio.current_time() == 1


async def test_tree_in_a_service_is_restarted_with_it(autojump_clock: MockClock) -> None:
    story = Story()
    runs = 0

    async def outer() -> None:
        nonlocal runs
        runs += 1
        async with open_supervisor(Supervisor("inner", [ready_after(0, "a", story)])):
            await trio.sleep(1)
            if runs == 1:
                raise Boom("outer")
            await trio.sleep_forever()

    async with story.open(Supervisor("app", [outer])):
        await trio.sleep(20)

    assert story.noted == ["a entered", "a left", "a entered", "a left"]


async def test_failure_of_a_tree_in_a_service_is_that_of_the_service(
    autojump_clock: MockClock,
) -> None:
    story = Story()

    async def outer() -> None:
        async with open_supervisor(Supervisor("inner", [fragile(fails_after(1))])):
            await trio.sleep_forever()

    async with story.open(Supervisor("app", [fragile(outer, critical=False)])):
        await trio.sleep(5)

    assert [event.failure.type for event in story.of(events.ServiceFailed, "app/outer")] == [
        "RestartLimitExceeded"
    ]


async def test_tree_within_a_unit_of_work_stops_with_it(autojump_clock: MockClock) -> None:
    story = Story()

    async def outer() -> None:
        with graceful():
            async with open_supervisor(Supervisor("inner", [using_all("a")])):
                await trio.sleep_forever()

    async with story.open(Supervisor("app", [Child(outer, stop_within=6)])):
        await trio.sleep(1)

    assert trio.current_time() == 7


async def test_service_of_a_tree_may_stop_the_tree(autojump_clock: MockClock) -> None:
    story = Story()

    async def boss() -> None:
        await trio.sleep(3)
        assert story.tree is not None
        story.tree.request_stop()
        await trio.sleep(1)
        story.note("not reached")

    async with story.open(Supervisor("app", [boss, ready_after(0, "a", story)])) as opened:
        await opened.wait_ended()

    assert story.notes == [(0, "a entered"), (3, "a left")]


async def test_tree_that_may_need_more_time_is_refused(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor("app", [Child(ready_after(0, "a", story), stop_within=31)])

    with pytest.raises(PlanError, match="app may need 31 s to stop, but has 30 s"):
        async with open_supervisor(tree):
            pytest.fail("it was refused")

    assert story.noted == []


async def test_budget_that_is_no_number_is_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(PlanError, match="app may need 10 s to stop, but has nan s"):
        async with open_supervisor(Supervisor("app", [idle]), stop_within=math.nan):
            pass  # pragma: no cover


async def test_tree_that_needs_just_its_budget_is_accepted(autojump_clock: MockClock) -> None:
    chain = [
        Child(idle, name="a", stop_within=0.1),
        Child(idle, name="b", stop_within=0.1, after="a"),
        Child(idle, name="c", stop_within=0.1, after="b"),
    ]

    async with open_supervisor(Supervisor("app", chain), stop_within=0.3):
        pass

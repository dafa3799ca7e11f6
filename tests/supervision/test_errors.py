"""What comes out of a tree, and what comes out of its services."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services import (
    Child,
    Limit,
    RestartLimitExceeded,
    StopFailed,
    Supervisor,
    open_supervisor,
)
from trio_services.lifecycle import State, events

from .harness import (
    AT_ONCE,
    AtOnce,
    Boom,
    Story,
    fails_after,
    fragile,
    idle,
    lives_of,
    ready_after,
    using_all,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_error_of_the_block_comes_out_as_itself(autojump_clock: MockClock) -> None:
    story = Story()
    error = Boom("mine")

    with pytest.raises(Boom) as caught:
        async with story.open(Supervisor("app", [ready_after(0, "a", story)])):
            raise error

    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert story.noted == ["a entered", "a left"]


async def test_error_of_the_block_stops_the_tree_in_order(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [
            Child(using_all("db"), stop_within=2),
            Child(using_all("sync"), stop_within=3, after="db"),
        ],
    )

    async def block() -> None:
        async with story.open(tree):
            await trio.sleep(1)
            raise Boom("mine")

    with pytest.raises(Boom):
        await block()

    assert story.times(events.ServiceStopped, "app/sync") == [4]
    assert story.times(events.ServiceStopped, "app/db") == [6]


async def test_group_that_the_block_raises_comes_out_as_it_was(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("mine", [Boom("a"), Boom("b")])

    with pytest.RaisesGroup(Boom, Boom, match="mine") as caught:
        async with open_supervisor(Supervisor("app", [idle])):
            raise group

    assert caught.value.exceptions == group.exceptions


async def test_error_of_the_block_and_of_the_stop_both_come_out(autojump_clock: MockClock) -> None:
    async def bad() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("cannot close")

    with pytest.RaisesGroup(Boom, StopFailed):
        async with open_supervisor(Supervisor("app", [bad])):
            raise Boom("mine")


async def test_error_that_is_false_is_not_lost(autojump_clock: MockClock) -> None:
    class NoErrors(Exception):
        def __len__(self) -> int:
            return 0

    async def bad() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("cannot close")

    with pytest.RaisesGroup(NoErrors, StopFailed):
        async with open_supervisor(Supervisor("app", [bad])):
            raise NoErrors


async def test_exit_from_the_block_comes_out_as_itself(autojump_clock: MockClock) -> None:
    with pytest.raises(SystemExit):
        async with open_supervisor(Supervisor("app", [idle])):
            sys.exit(7)


async def test_failure_of_the_tree_cancels_the_block(autojump_clock: MockClock) -> None:
    cancelled = False

    async def block() -> None:
        nonlocal cancelled
        async with open_supervisor(Supervisor("app", [fragile(fails_after(3))])):
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise

    with pytest.raises(RestartLimitExceeded):
        await block()

    assert cancelled
    assert trio.current_time() == 3


async def test_failure_comes_out_alone_when_the_block_was_cancelled(
    autojump_clock: MockClock,
) -> None:
    async def bad() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom("cannot close")

    with pytest.raises(StopFailed), trio.move_on_after(1):
        async with open_supervisor(Supervisor("app", [bad])):
            await trio.sleep_forever()


async def test_group_of_one_error_is_told_as_that_error(autojump_clock: MockClock) -> None:
    story = Story()

    async def grouped() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle)
            nursery.start_soon(fails_after(1))

    with pytest.raises(RestartLimitExceeded) as caught:
        async with story.open(Supervisor("app", [fragile(grouped)])):
            await trio.sleep_forever()

    assert isinstance(caught.value.__cause__, Boom)
    assert "Group" not in str(caught.value)
    (failed,) = story.of(events.ServiceFailed)
    assert (failed.failure.type, failed.failure.message) == ("Boom", "broken")


async def test_group_of_several_errors_is_told_with_their_number(
    autojump_clock: MockClock,
) -> None:
    async def grouped() -> None:
        inner = ExceptionGroup("", [Boom("two"), Boom("three")])
        await AtOnce(ExceptionGroup("", [Boom("one"), inner]))

    with pytest.raises(RestartLimitExceeded, match=r"Boom: one \(and 2 more\)"):
        async with open_supervisor(Supervisor("app", [fragile(grouped)])):
            await trio.sleep_forever()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_exit_in_a_service_stops_the_tree_in_order_and_comes_out(
    autojump_clock: MockClock, kind: type[BaseException]
) -> None:
    story = Story()
    error = kind(7)
    tree = Supervisor(
        "app",
        [
            Child(using_all("db"), stop_within=2),
            Child(using_all("sync"), stop_within=3, after="db"),
            Child(fails_after(1, error=error), name="exiting", restart="always"),
        ],
    )

    with pytest.raises(kind) as caught:
        async with story.open(tree):
            await trio.sleep_forever()

    assert caught.value is error
    assert story.times(events.ServiceStopped, "app/sync") == [4]
    assert story.times(events.ServiceStopped, "app/db") == [6]
    assert len(story.of(events.ServiceStarting, "app/exiting")) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_exit_below_a_nested_supervisor_comes_out(
    autojump_clock: MockClock, kind: type[BaseException]
) -> None:
    inner = Supervisor("inner", [fails_after(1, error=kind(7)), idle])

    with pytest.raises(kind):
        async with open_supervisor(Supervisor("app", [Supervisor("middle", [inner]), idle])):
            await trio.sleep_forever()


async def test_exit_outweighs_other_errors_of_its_group(autojump_clock: MockClock) -> None:
    group = BaseExceptionGroup("", [Boom("also"), SystemExit(7)])

    with pytest.raises(SystemExit):
        async with open_supervisor(Supervisor("app", [fails_after(1, error=group)])):
            await trio.sleep_forever()


async def test_first_of_several_exits_comes_out(autojump_clock: MockClock) -> None:
    async def second() -> None:
        try:
            await trio.sleep_forever()
        finally:
            sys.exit(4)

    with pytest.raises(SystemExit) as caught:
        async with open_supervisor(
            Supervisor("app", [second, fails_after(1, error=SystemExit(3))])
        ):
            await trio.sleep_forever()

    assert caught.value.code == 3


async def test_exit_at_a_stop_comes_out(autojump_clock: MockClock) -> None:
    async def exiting() -> None:
        try:
            await trio.sleep_forever()
        finally:
            sys.exit(7)

    with pytest.raises(SystemExit):
        async with open_supervisor(Supervisor("app", [exiting])):
            await trio.sleep(1)


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError("foreign"), concurrent.futures.CancelledError("foreign")],
    ids=["asyncio", "concurrent.futures"],
)
async def test_foreign_cancellation_is_a_failure(
    autojump_clock: MockClock, error: BaseException
) -> None:
    story = Story()
    tree = Supervisor("app", [Child(fails_after(1, 1, error=error), backoff=AT_ONCE), idle])

    async with story.open(tree) as opened:
        await trio.sleep(5)
        assert opened.ready

    assert [event.failure.type for event in story.of(events.ServiceFailed)] == [
        "CancelledError"
    ] * 2


class Odd(BaseException):
    """Not an `Exception`, and nothing that Python or Trio knows."""


async def test_foreign_cancellation_at_a_stop_is_told(autojump_clock: MockClock) -> None:
    story = Story()

    async def bad() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise asyncio.CancelledError("foreign")

    with pytest.raises(StopFailed, match="app/bad"):
        async with story.open(Supervisor("app", [Child(ready_after(0, "db", story)), bad])):
            await trio.sleep(1)

    assert "db left" in story.noted


@pytest.mark.parametrize("error", [Odd(), GeneratorExit()])
async def test_any_other_base_exception_stops_the_tree_in_order(
    error: BaseException, autojump_clock: MockClock
) -> None:
    story = Story()
    tree = Supervisor(
        "app",
        [Child(using_all("db"), stop_within=4), fragile(fails_after(1, error=error), name="odd")],
    )

    with pytest.raises(type(error)):
        async with story.open(tree):
            await trio.sleep_forever()

    assert story.times(events.ServiceStopped, "app/db") == [5]


async def test_error_with_a_broken_message_is_a_failure_like_any_other(
    autojump_clock: MockClock,
) -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no message for you")

    with pytest.raises(RestartLimitExceeded, match="Rude"):
        async with open_supervisor(Supervisor("app", [fragile(fails_after(1, error=Rude()))])):
            await trio.sleep_forever()


async def test_listener_that_raises_harms_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    reported: list[object] = []

    def report(kind: object, error: object, traceback: object) -> None:
        reported.append(error)

    monkeypatch.setattr(sys, "excepthook", report)

    def rude(event: events.Event) -> None:
        raise Boom("listener")

    with story.bus.listening(rude):
        async with story.open(Supervisor("app", [Child(fails_after(1), backoff=AT_ONCE)])):
            await trio.sleep(5)

    assert len(reported) == len(story.events)
    assert story.sequence("app/service").count("ServiceReady") == 2


async def test_error_of_a_failed_tree_names_its_failures_only(autojump_clock: MockClock) -> None:
    with pytest.raises(RestartLimitExceeded) as caught:
        async with open_supervisor(
            Supervisor("app", [fails_after(1)], max_restarts=Limit(0, per=1))
        ):
            await trio.sleep_forever()

    assert isinstance(caught.value.failures, tuple)
    assert caught.value.args == ("app", caught.value.reason, caught.value.failures)


async def test_root_of_a_failed_tree_has_failed(autojump_clock: MockClock) -> None:
    story = Story()

    with pytest.raises(RestartLimitExceeded):
        async with story.open(Supervisor("app", [fragile(fails_after(1), name="a"), idle])):
            await trio.sleep_forever()

    assert story.tree is not None
    assert story.tree.life.state is State.FAILED
    assert story.tree.life.failure is not None
    assert all(life.state.ended for life in lives_of(story.tree.life))


async def test_tree_that_gives_up_is_not_ready_meanwhile(autojump_clock: MockClock) -> None:
    story = Story()
    tree = Supervisor(
        "app", [fragile(fails_after(1), name="a"), Child(using_all("b"), stop_within=5)]
    )
    ready: list[bool] = []

    async def asking() -> None:
        await trio.sleep(3)
        assert story.tree is not None
        ready.append(story.tree.ready)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking)
        with pytest.raises(RestartLimitExceeded):
            async with story.open(tree):
                await trio.sleep_forever()

    assert ready == [False]


async def test_nothing_of_a_tree_is_left_after_it(autojump_clock: MockClock) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living

    for _ in range(3):
        async with open_supervisor(Supervisor("app", [idle, Supervisor("inner", [idle])])):
            pass
        with pytest.raises(RestartLimitExceeded):
            async with open_supervisor(Supervisor("app", [fragile(fails_after(1)), idle])):
                await trio.sleep_forever()

    gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == tasks

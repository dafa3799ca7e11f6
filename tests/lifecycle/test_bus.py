from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.lifecycle import Bus, events

if TYPE_CHECKING:
    from trio.testing import MockClock


def happened(number: int) -> events.Event:
    """One event of several that can be told apart."""
    return events.ServiceStarting("app/service", number, at=0)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """The errors that were shown because nobody could be told."""
    seen: list[BaseException] = []

    def hook(kind: type[BaseException], error: BaseException, traceback: object) -> None:
        seen.append(error)

    monkeypatch.setattr(sys, "excepthook", hook)
    return seen


# -- listeners --------------------------------------------------------------------------


def test_every_listener_sees_every_event_in_order() -> None:
    bus = Bus()
    told: list[tuple[str, events.Event]] = []
    first, second = happened(1), happened(2)
    with (
        bus.listening(lambda event: told.append(("a", event))),
        bus.listening(lambda event: told.append(("b", event))),
    ):
        bus.publish(first)
        bus.publish(second)
    assert told == [("a", first), ("b", first), ("a", second), ("b", second)]


def test_listener_is_called_only_inside_of_its_block() -> None:
    bus = Bus()
    told: list[events.Event] = []
    first, second, third = (happened(number) for number in (1, 2, 3))
    bus.publish(first)
    with bus.listening(told.append):
        bus.publish(second)
    bus.publish(third)
    assert told == [second]


def test_listener_that_raises_harms_neither_the_publisher_nor_other_listeners(
    shown: list[BaseException],
) -> None:
    bus = Bus()
    told: list[events.Event] = []
    event = happened(1)

    def broken(event: events.Event) -> None:
        raise ValueError("broken listener")

    with bus.listening(broken), bus.listening(told.append):
        bus.publish(event)

    assert told == [event]
    [error] = shown
    assert isinstance(error, ValueError)
    assert str(error) == "broken listener"
    assert error.__traceback__ is not None
    [note] = error.__notes__
    assert "ServiceStarting" in note
    assert "broken" in note


def test_listener_that_raises_harms_nobody_under_the_hook_that_python_comes_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    bus = Bus()
    told: list[events.Event] = []

    def broken(event: events.Event) -> None:
        raise ValueError("broken listener")

    with bus.listening(broken), bus.listening(told.append):
        bus.publish(happened(1))

    assert len(told) == 1
    assert "ValueError: broken listener" in capsys.readouterr().err


def test_hook_that_raises_itself_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(kind: object, error: object, traceback: object) -> None:
        raise RuntimeError("broken hook")

    monkeypatch.setattr(sys, "excepthook", hook)
    bus = Bus()
    told: list[events.Event] = []

    def broken(event: events.Event) -> None:
        raise ValueError("broken listener")

    with bus.listening(broken), bus.listening(told.append):
        bus.publish(happened(1))
    assert len(told) == 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __call__(self, event: events.Event) -> None:
        raise ValueError("broken listener")


def test_what_cannot_be_printed_harms_nobody(shown: list[BaseException]) -> None:
    bus = Bus()
    told: list[events.Event] = []
    event = events.ServiceReady("app/service", 1.0, Unprintable(), at=0)
    with bus.listening(Unprintable()), bus.listening(told.append):
        bus.publish(event)
    assert told == [event]
    assert [str(error) for error in shown] == ["broken listener"]


def test_exit_that_was_asked_for_passes_through_a_listener() -> None:
    bus = Bus()

    def interrupted(event: events.Event) -> None:
        raise KeyboardInterrupt

    with bus.listening(interrupted), pytest.raises(KeyboardInterrupt):
        bus.publish(happened(1))


def test_listener_may_remove_another_one(
    shown: list[BaseException],
) -> None:
    bus = Bus()
    stack = ExitStack()
    told: list[str] = []
    with bus.listening(lambda event: stack.close()):
        stack.enter_context(bus.listening(lambda event: told.append("removed")))
        with bus.listening(lambda event: told.append("stays")):
            bus.publish(happened(1))
            told.clear()
            bus.publish(happened(2))
    assert told == ["stays"]
    assert shown == []


def test_subscription_that_is_closed_by_a_listener_reports_no_error(
    shown: list[BaseException],
) -> None:
    bus = Bus()
    stack = ExitStack()
    with bus.listening(lambda event: stack.close()):
        stack.enter_context(bus.subscribe())
        bus.publish(happened(1))
    assert shown == []


def test_listener_that_is_added_by_another_sees_only_later_events() -> None:
    bus = Bus()
    told: list[events.Event] = []
    first, second = happened(1), happened(2)
    with ExitStack() as stack:

        def add(event: events.Event) -> None:
            if event is first:
                stack.enter_context(bus.listening(told.append))

        stack.enter_context(bus.listening(add))
        bus.publish(first)
        bus.publish(second)
    assert told == [second]


def test_listener_that_listens_twice_is_called_twice_and_removed_one_by_one() -> None:
    bus = Bus()
    told: list[events.Event] = []
    listener = told.append
    with bus.listening(listener):
        with bus.listening(listener):
            bus.publish(happened(1))
            assert len(told) == 2
        bus.publish(happened(2))
        assert len(told) == 3
    bus.publish(happened(3))
    assert len(told) == 3


def test_event_that_a_listener_publishes_comes_after_the_one_that_it_answers() -> None:
    # Who stops the application at a failure publishes the stop in the middle of that.
    bus = Bus()
    told: list[events.Event] = []
    cause, effect = happened(1), happened(2)

    def answer(event: events.Event) -> None:
        if event is cause:
            bus.publish(effect)

    with bus.listening(answer), bus.listening(told.append):
        bus.publish(cause)
    assert told == [cause, effect]


# -- events -----------------------------------------------------------------------------


async def test_event_tells_the_time_on_trio_s_clock(autojump_clock: MockClock) -> None:
    await trio.sleep(7)
    assert events.ServiceStarting("app/service", 1).at == 7


def test_event_cannot_be_changed() -> None:
    event = happened(1)
    with pytest.raises(AttributeError):
        event.service = "other"  # type: ignore[misc]


# -- subscriptions ----------------------------------------------------------------------


async def test_subscription_yields_the_events_in_order(autojump_clock: MockClock) -> None:
    bus = Bus()
    read: list[events.Event] = []
    sent = [happened(number) for number in range(3)]
    with bus.subscribe() as subscription:
        for event in sent:
            bus.publish(event)
        with trio.move_on_after(1):
            async for event in subscription:
                read.append(event)  # noqa: PERF401 -- it never ends by itself
        assert subscription.dropped == 0
    assert read == sent


async def test_reader_of_a_subscription_waits_for_the_next_event() -> None:
    bus = Bus()
    read: list[events.Event] = []

    async def reader() -> None:
        async for event in subscription:
            read.append(event)
            return

    with bus.subscribe() as subscription:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await wait_all_tasks_blocked()
            assert read == []
            bus.publish(happened(1))
    assert len(read) == 1


async def test_full_subscription_drops_the_newest_events_and_counts_them(
    autojump_clock: MockClock,
) -> None:
    bus = Bus()
    sent = [happened(number) for number in range(7)]
    with bus.subscribe(capacity=2) as subscription:
        for event in sent[:5]:
            bus.publish(event)
        assert subscription.dropped == 3
        assert [await anext(subscription), await anext(subscription)] == sent[:2]
        bus.publish(sent[5])
        assert await anext(subscription) is sent[5]
        assert subscription.dropped == 3


def test_full_subscription_does_not_hold_up_others() -> None:
    bus = Bus()
    with bus.subscribe(capacity=1) as full, bus.subscribe() as other:
        for number in range(5):
            bus.publish(happened(number))
        assert (full.dropped, other.dropped) == (4, 0)


async def test_subscription_ends_with_its_block(shown: list[BaseException]) -> None:
    bus = Bus()
    with bus.subscribe() as subscription:
        pass
    bus.publish(happened(1))
    assert subscription.dropped == 0
    assert shown == []
    with pytest.raises(trio.ClosedResourceError):
        await anext(subscription)


async def test_cancelled_reader_loses_no_event(autojump_clock: MockClock) -> None:
    bus = Bus()
    event = happened(1)
    with bus.subscribe() as subscription:
        with trio.move_on_after(1):
            await anext(subscription)
        bus.publish(event)
        assert await anext(subscription) is event


@pytest.mark.parametrize("capacity", [0, -1])
def test_subscription_needs_room_for_an_event(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"), Bus().subscribe(capacity):
        pass

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import pickle
import sys
import weakref
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services.errors import (
    ConfigError,
    Failure,
    PlanError,
    QueueClosed,
    QueueFull,
    RestartLimitExceeded,
    ServicesError,
    StartFailed,
    StartTimeout,
    StopFailed,
    TimedOut,
)
from trio_services.lifecycle import (
    asks_for_exit,
    leaves_of,
    set_aside_cancellations,
    summarize,
)
from trio_services.resilience import Backoff, timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


def line_of(function: Callable[..., object], text: str) -> str:
    """``file:line in function`` of the line that holds `text`."""
    source, first = inspect.getsourcelines(function)
    [offset] = [number for number, line in enumerate(source) if text in line]
    return f"test_failure.py:{first + offset} in {function.__name__}"


async def cancelled() -> trio.Cancelled:
    """An error such as Trio raises in what it cancels."""
    caught: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            caught.append(error)
            raise
    return caught[0]


async def told(error: BaseException) -> Failure:
    """The failure that is made of an error."""
    await trio.lowlevel.checkpoint()
    return summarize("app/service", error)


# -- what is told -----------------------------------------------------------------------


async def test_failure_says_who_what_and_when(autojump_clock: MockClock) -> None:
    await trio.sleep(7)
    failure = await told(ValueError("broken"))
    assert failure == Failure("app/service", "ValueError", "broken", "", 7)


async def test_failure_that_never_was_raised_has_no_place() -> None:
    assert (await told(ValueError())).where == ""


async def test_group_with_a_single_error_is_told_as_that_error() -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("broken")])])
    failure = await told(group)
    assert (failure.type, failure.message) == ("ValueError", "broken")


async def test_group_with_several_errors_is_told_as_the_first_and_the_number_of_others() -> None:
    group = ExceptionGroup(
        "outer", [ValueError("first"), ExceptionGroup("inner", [KeyError("a"), OSError("b")])]
    )
    failure = await told(group)
    assert (failure.type, failure.message) == ("ValueError", "first (and 2 more)")


async def test_cancellations_are_set_aside() -> None:
    group = BaseExceptionGroup(
        "nursery", [await cancelled(), ValueError("broken"), await cancelled()]
    )
    failure = await told(group)
    assert (failure.type, failure.message) == ("ValueError", "broken")


async def test_cancellation_alone_is_still_told_as_something() -> None:
    assert (await told(await cancelled())).type == "Cancelled"
    group = BaseExceptionGroup("nursery", [await cancelled()])
    assert (await told(group)).type == "BaseExceptionGroup"


async def test_leaves_are_the_single_errors_in_order() -> None:
    first, second, third = ValueError(), KeyboardInterrupt(), OSError()
    group = BaseExceptionGroup("a", [first, BaseExceptionGroup("b", [await cancelled(), second])])
    assert list(leaves_of(BaseExceptionGroup("c", [group, third]))) == [first, second, third]
    assert list(leaves_of(first)) == [first]
    assert list(leaves_of(await cancelled())) == []


async def test_single_error_is_taken_out_of_its_groups_and_cancellations_are_set_aside() -> None:
    single = ValueError()
    wrapped = BaseExceptionGroup("a", [await cancelled(), ExceptionGroup("b", [single])])
    rest, error = set_aside_cancellations(wrapped)
    assert error is single
    assert rest is not None
    assert list(leaves_of(rest)) == []


def test_several_errors_stay_a_group() -> None:
    several = ExceptionGroup("group", [ValueError(), OSError()])
    cancellations, error = set_aside_cancellations(several)
    assert cancellations is None
    assert error is not None
    assert list(leaves_of(error)) == list(several.exceptions)


def test_error_in_no_group_is_what_it_is() -> None:
    single = ValueError()
    assert set_aside_cancellations(single) == (None, single)


async def test_cancellations_alone_are_about_no_error() -> None:
    group = BaseExceptionGroup("group", [await cancelled(), await cancelled()])
    cancellations, error = set_aside_cancellations(group)
    assert error is None
    assert cancellations is not None


@pytest.mark.parametrize("exit_", [KeyboardInterrupt(), SystemExit(1)])
def test_exit_that_was_asked_for_outweighs_other_errors(exit_: BaseException) -> None:
    group = BaseExceptionGroup("outer", [ValueError(), BaseExceptionGroup("inner", [exit_])])
    assert set_aside_cancellations(group) == (None, exit_)


@pytest.mark.parametrize(
    ("error", "asks"),
    [
        (KeyboardInterrupt(), True),
        (SystemExit(1), True),
        (ValueError(), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_exits_that_were_asked_for_are_told_from_failures(error: BaseException, asks: bool) -> None:
    assert asks_for_exit(error) is asks


async def test_group_of_any_depth_is_told() -> None:
    error = ExceptionGroup[Exception]("deepest", [ValueError("broken")])
    for _ in range(sys.getrecursionlimit() + 10):
        error = ExceptionGroup("deep", [error])
    assert (await told(error)).message == "broken"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


async def test_message_that_cannot_be_shown_hides_nothing_else() -> None:
    failure = await told(Unprintable())
    assert (failure.type, failure.message) == ("Unprintable", "<its message cannot be shown>")


async def test_long_message_is_shortened() -> None:
    message = (await told(ValueError("x" * 5_000_000))).message
    assert message == "x" * 1000 + "…"
    assert (await told(ValueError("x" * 1000))).message == "x" * 1000


async def test_number_of_the_others_is_told_after_a_long_message() -> None:
    group = ExceptionGroup("g", [ValueError("x" * 5000), ValueError()])
    assert (await told(group)).message.endswith("… (and 1 more)")


async def test_further_lines_of_a_message_are_indented() -> None:
    text = str(await told(ValueError("one\nERROR two")))
    assert text == "app/service: ValueError: one\n      ERROR two"


# -- where it happened ------------------------------------------------------------------


def fails() -> None:
    raise ValueError("here")


def calls() -> None:
    fails()


async def test_place_is_the_innermost_line_of_the_user_s_own_code() -> None:
    with pytest.raises(ValueError, match="here") as caught:
        calls()
    assert (await told(caught.value)).where == line_of(fails, "raise")


def parse() -> None:
    json.loads("{")


async def test_lines_of_libraries_are_passed_over() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        parse()
    assert (await told(caught.value)).where == line_of(parse, "json.loads")


async def closed() -> None:
    channel, _ = trio.open_memory_channel[int](0)
    channel.close()
    await channel.send(1)


async def test_lines_of_trio_are_passed_over() -> None:
    with pytest.raises(trio.ClosedResourceError) as caught:
        await closed()
    assert (await told(caught.value)).where == line_of(closed, "channel.send")


def configure() -> None:
    Backoff(initial=-1)


async def test_lines_of_generated_code_are_passed_over() -> None:
    # attrs, dataclasses and cattrs make functions whose file has no name but "<…>".
    with pytest.raises(ValueError, match="initial") as caught:
        configure()
    assert (await told(caught.value)).where == line_of(configure, "Backoff(")


def translates() -> None:
    try:
        fails()
    except ValueError as error:
        raise OSError("translated") from error


async def test_place_is_that_of_the_error_itself_before_that_of_its_cause() -> None:
    with pytest.raises(OSError, match="translated") as caught:
        translates()
    assert (await told(caught.value)).where == line_of(translates, "raise OSError")


async def test_place_is_that_of_the_cause_if_the_error_came_through_libraries_only() -> None:
    error = OSError("from a library")
    with pytest.raises(ValueError, match="here") as caught:
        fails()
    error.__cause__ = caught.value
    assert (await told(error)).where == line_of(fails, "raise")


async def test_error_that_came_through_libraries_only_is_told_with_their_innermost_line() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    assert (await told(error)).where.startswith("decoder.py:")


async def test_error_of_ours_without_any_line_of_the_user_s_has_no_place(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(TimedOut) as caught, timeout(3):
        await trio.sleep_forever()
    error = caught.value
    error.__traceback__ = error.__cause__ = None
    assert (await told(error)).where == ""


async def test_place_of_an_error_in_a_group_is_its_own() -> None:
    with pytest.RaisesGroup(ValueError) as caught:
        async with trio.open_nursery():
            calls()
    assert (await told(caught.value)).where == line_of(fails, "raise")


async def hangs() -> None:
    await trio.sleep_forever()


async def test_time_out_shows_where_the_work_hung(autojump_clock: MockClock) -> None:
    async def limited() -> None:
        with timeout(3):
            await hangs()

    with pytest.raises(ServicesError) as caught:
        await limited()
    assert (await told(caught.value)).where == line_of(hangs, "sleep_forever")


# -- errors -----------------------------------------------------------------------------

FAILURE = Failure("app/service", "ValueError", "broken", "", 7)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(["a.toml:x: wrong", "a.toml:y: wrong"]),
        PlanError("wrong"),
        StartFailed("app/service", "returned before it was ready"),
        StartTimeout("app/service", 30),
        RestartLimitExceeded("app", "too many", [FAILURE]),
        StopFailed("app", [FAILURE]),
        TimedOut(5),
        QueueFull("numbers", 100),
        QueueClosed("numbers"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_is_the_same_after_it_was_copied_or_sent_elsewhere(error: ServicesError) -> None:
    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(made) is type(error)
        assert (str(made), vars(made)) == (str(error), vars(error))


# -- what is kept alive -----------------------------------------------------------------


class Ballast:
    """Something that a frame holds."""


class BrokenError(Exception):
    """An error that can be watched, which those of Python cannot."""


async def test_failure_keeps_neither_the_exception_nor_its_frames_alive() -> None:
    alive: list[weakref.ref[object]] = []

    def fail() -> None:
        ballast = Ballast()
        alive.append(weakref.ref(ballast))
        raise BrokenError("broken")

    def failed() -> Failure:
        try:
            fail()
        except BrokenError as error:
            alive.append(weakref.ref(error))
            return summarize("s", ExceptionGroup("group", [error, OSError()]))
        raise AssertionError

    await trio.lowlevel.checkpoint()
    failure = failed()
    gc.collect()
    assert [one() for one in alive] == [None, None]
    assert failure.message == "broken (and 1 more)"


async def test_failure_is_let_go_without_the_garbage_collector() -> None:
    # A service that fails every second must not wait for a collection each time.
    def failed() -> weakref.ref[BrokenError]:
        try:
            raise BrokenError
        except BrokenError as error:
            summarize("s", error)
            return weakref.ref(error)

    await trio.lowlevel.checkpoint()
    gc.collect()
    gc.disable()
    try:
        assert failed()() is None
    finally:
        gc.enable()


async def test_failure_cannot_be_changed() -> None:
    failure = await told(ValueError())
    with pytest.raises(AttributeError):
        failure.message = "other"  # type: ignore[misc]

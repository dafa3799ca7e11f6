from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, strategies as st

from trio_services.resilience import Backoff, Retry

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio.testing import MockClock

    from trio_services.resilience import Transient

EXACT = Backoff(initial=1, factor=2, cap=60, jitter=0)


class Now:
    """Something to await that is there: the scheduler gets no turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


class Flaky:
    """A function that fails some times before it returns; knows when it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.called_at: list[float] = []

    async def __call__(self, *args: object) -> tuple[object, ...]:
        self.called_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return args


async def test_first_success_is_what_is_returned(autojump_clock: MockClock) -> None:
    function = Flaky(OSError(), OSError())
    result = await Retry(backoff=EXACT).call(function, 1, "two")
    assert result == (1, "two")
    assert function.called_at == [0, 1, 3]


async def test_success_is_not_repeated() -> None:
    function = Flaky()
    await Retry().call(function)
    assert len(function.called_at) == 1


async def test_last_failure_comes_out_as_it_was_raised(autojump_clock: MockClock) -> None:
    last = OSError("the last")
    function = Flaky(OSError("first"), OSError("second"), last, OSError("never"))
    with pytest.raises(OSError, match="the last") as caught:
        await Retry(attempts=3, backoff=EXACT).call(function)
    assert caught.value is last
    assert function.called_at == [0, 1, 3]


async def test_single_attempt_is_no_retry() -> None:
    function = Flaky(OSError())
    with pytest.raises(OSError):
        await Retry(attempts=1).call(function)
    assert len(function.called_at) == 1


def comes_from_outside(error: Exception) -> bool:
    return isinstance(error, OSError)


@pytest.mark.parametrize("on", [OSError, (OSError, LookupError), comes_from_outside])
async def test_only_transient_errors_are_tried_again(
    on: Transient, autojump_clock: MockClock
) -> None:
    final = ValueError("final")
    function = Flaky(ConnectionError(), OSError(), final, OSError())
    with pytest.raises(ValueError, match="final"):
        await Retry(backoff=EXACT, on=on).call(function)
    assert function.called_at == [0, 1, 3]


async def test_no_types_mean_that_nothing_is_transient() -> None:
    function = Flaky(OSError())
    with pytest.raises(OSError):
        await Retry(on=()).call(function)
    assert len(function.called_at) == 1


async def test_exit_that_was_asked_for_is_never_tried_again() -> None:
    function = Flaky(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        await Retry().call(function)
    assert len(function.called_at) == 1


async def test_cancellation_of_an_attempt_is_not_a_failure(autojump_clock: MockClock) -> None:
    calls = 0

    async def hangs() -> None:
        nonlocal calls
        calls += 1
        await trio.sleep_forever()

    with trio.move_on_after(3) as scope:
        await Retry(backoff=EXACT).call(hangs)
    assert scope.cancelled_caught
    assert (calls, trio.current_time()) == (1, 3)


async def test_cancellation_between_attempts_is_not_a_failure(autojump_clock: MockClock) -> None:
    function = Flaky(OSError(), OSError(), OSError())
    with trio.move_on_after(2) as scope:
        await Retry(backoff=EXACT).call(function)
    assert scope.cancelled_caught
    assert function.called_at == [0, 1]
    assert trio.current_time() == 2


async def test_failing_for_ever_at_once_can_be_cancelled_and_lets_others_run(
    autojump_clock: MockClock,
) -> None:
    async def fails() -> None:
        await Now()
        raise OSError

    turns = 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Retry(attempts=10**9, backoff=Backoff(initial=0)).call, fails)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                turns += 1
            scope.cancel()
    assert turns == 5


async def test_failed_attempt_is_let_go_while_waiting_for_the_next(
    autojump_clock: MockClock,
) -> None:
    class BrokenError(Exception):
        pass

    alive: list[weakref.ref[BrokenError]] = []

    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        error = BrokenError()
        alive.append(weakref.ref(error))
        raise error

    with trio.move_on_after(5):
        await Retry(backoff=Backoff(initial=10, jitter=0)).call(fails)
    gc.collect()
    assert [one() for one in alive] == [None]


@given(st.integers(1, 50), st.integers(1, 60))
def test_delay_ends_with_the_attempts(attempts: int, attempt: int) -> None:
    delay = Retry(attempts=attempts, backoff=EXACT).delay(attempt, OSError())
    if attempt >= attempts:
        assert delay is None
    else:
        assert delay == EXACT.delay(attempt)


def test_jitter_is_drawn_from_what_is_given() -> None:
    retry = Retry(backoff=Backoff(initial=8, jitter=1))
    assert retry.delay(1, OSError(), lambda: 0.5) == 4


def test_defaults_try_five_times_whatever_the_error() -> None:
    retry = Retry()
    assert (retry.attempts, retry.backoff, retry.on) == (5, Backoff(), Exception)


@pytest.mark.parametrize("attempts", [0, -1])
def test_there_is_at_least_one_attempt(attempts: int) -> None:
    with pytest.raises(ValueError, match="attempts"):
        Retry(attempts=attempts)


def test_attempts_are_a_whole_number() -> None:
    with pytest.raises(TypeError, match="attempts"):
        Retry(attempts=1.5)  # type: ignore[arg-type]


def test_retry_is_a_value() -> None:
    retry = Retry()
    with pytest.raises(AttributeError):
        retry.attempts = 1  # type: ignore[misc]
    assert retry == Retry()

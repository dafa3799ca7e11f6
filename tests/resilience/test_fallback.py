from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_services.resilience import Fallback

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_services.resilience import Transient


async def succeeds(value: int) -> int:
    await trio.lowlevel.checkpoint()
    return value


async def fails(error: BaseException) -> int:
    await trio.lowlevel.checkpoint()
    raise error


async def nothing(error: Exception) -> None:
    await trio.lowlevel.checkpoint()


async def from_error(error: Exception) -> int:
    await trio.lowlevel.checkpoint()
    return len(str(error))


async def test_what_succeeds_is_not_replaced() -> None:
    assert await Fallback(nothing).call(succeeds, 17) == 17


async def test_failure_is_replaced_by_what_a_function_makes_of_it() -> None:
    assert await Fallback(from_error).call(fails, OSError("four")) == 4
    assert await Fallback(nothing).call(fails, OSError()) is None


def comes_from_outside(error: Exception) -> bool:
    return isinstance(error, OSError)


@pytest.mark.parametrize("on", [OSError, (OSError, TypeError), comes_from_outside])
async def test_only_some_failures_may_be_replaced(on: Transient) -> None:
    fallback = Fallback(nothing, on=on)
    assert await fallback.call(fails, ConnectionError()) is None
    with pytest.raises(LookupError):
        await fallback.call(fails, LookupError())


async def test_failure_of_the_replacement_is_raised_by_itself() -> None:
    async def worse(error: Exception) -> int:
        await trio.lowlevel.checkpoint()
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await Fallback(worse).call(fails, OSError())
    assert caught.value.__context__ is None


async def test_cancellation_is_no_failure(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await Fallback(nothing).call(trio.sleep, 10)
    assert scope.cancelled_caught


async def test_exit_that_was_asked_for_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        await Fallback(nothing, on=lambda _: True).call(fails, KeyboardInterrupt())


def test_fallback_is_a_value() -> None:
    fallback = Fallback(nothing)
    assert fallback == Fallback(nothing, on=Exception)
    with pytest.raises(AttributeError):
        fallback.on = OSError  # type: ignore[misc]

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services.errors import ServicesError, TimedOut
from trio_services.resilience import timeout

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_block_that_takes_too_long_is_cancelled_and_timed_out(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(TimedOut, match=r"time-out of 2\.5 s") as caught, timeout(2.5):
        await trio.sleep(50)
    assert caught.value.seconds == 2.5
    assert isinstance(caught.value, ServicesError)
    assert trio.current_time() == 2.5


async def test_block_that_is_done_in_time_is_not_touched(autojump_clock: MockClock) -> None:
    with timeout(10):
        await trio.sleep(9)
    await trio.sleep(9)


async def test_block_that_is_late_but_was_not_waiting_is_done(autojump_clock: MockClock) -> None:
    with timeout(1):
        autojump_clock.jump(5)
    await trio.lowlevel.checkpoint()
    assert trio.current_time() == 5


async def test_seconds_count_from_the_entry(autojump_clock: MockClock) -> None:
    limit = timeout(3)
    await trio.sleep(10)
    with pytest.raises(TimedOut), limit:
        await trio.sleep(50)
    assert trio.current_time() == 13


async def test_time_out_of_the_block_s_own_can_be_told_from_it(autojump_clock: MockClock) -> None:
    with pytest.raises(trio.TooSlowError), timeout(10), trio.fail_after(2):
        await trio.sleep(50)
    assert trio.current_time() == 2


async def test_error_of_the_block_passes_through(autojump_clock: MockClock) -> None:
    async def fails() -> None:
        await trio.sleep(1)
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"), timeout(10):
        await fails()


async def test_cancellation_from_outside_passes_through(autojump_clock: MockClock) -> None:
    with trio.move_on_after(2) as scope, timeout(10):
        await trio.sleep(50)
    assert scope.cancelled_caught


async def test_cancellation_from_outside_outweighs_a_time_out_at_the_same_moment(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(2) as scope, timeout(2):
        await trio.sleep(50)
    assert scope.cancelled_caught


async def test_inner_time_out_is_an_error_inside_of_the_outer(autojump_clock: MockClock) -> None:
    with timeout(10):
        with pytest.raises(TimedOut, match="of 2 s"), timeout(2):
            await trio.sleep(50)
        await trio.sleep(3)
    assert trio.current_time() == 5


async def test_outer_time_out_passes_through_the_inner(autojump_clock: MockClock) -> None:
    with pytest.raises(TimedOut, match="of 2 s"), timeout(2), timeout(10):
        await trio.sleep(50)


async def test_of_two_alike_the_outer_one_times_out(autojump_clock: MockClock) -> None:
    inner: list[TimedOut] = []

    async def limited() -> None:
        try:
            with timeout(2):
                await trio.sleep(50)
        except TimedOut as error:
            inner.append(error)

    with pytest.raises(TimedOut), timeout(2):
        await limited()
    assert inner == []


async def cleans_up_badly() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("broken clean-up")


async def test_error_in_the_clean_up_of_what_timed_out_is_not_lost(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(ValueError, match="broken clean-up"), timeout(2):
        await cleans_up_badly()


async def test_error_beside_cancelled_tasks_is_not_lost(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="broken clean-up")), timeout(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(cleans_up_badly)


async def test_whole_nursery_times_out_as_one(autojump_clock: MockClock) -> None:
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(TimedOut), timeout(2):
        await work()


async def test_cause_shows_where_the_block_was_waiting(autojump_clock: MockClock) -> None:
    async def hangs() -> None:
        await trio.sleep_forever()

    with pytest.raises(TimedOut) as caught, timeout(2):
        await hangs()
    cause = caught.value.__cause__
    assert isinstance(cause, trio.Cancelled)
    names: list[str] = []
    traceback = cause.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "hangs" in names


@pytest.mark.parametrize("seconds", [0, -1, math.nan, -math.inf])
def test_time_out_must_be_more_than_nothing(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        timeout(seconds)


async def test_infinite_time_out_is_none(autojump_clock: MockClock) -> None:
    with timeout(math.inf):
        await trio.sleep(10**9)

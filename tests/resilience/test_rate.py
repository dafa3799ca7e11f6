from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_services.resilience import Bucket, Rate, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Sequence


def taken(bucket: Bucket, count: int, now: float = 0.0) -> list[float]:
    """When so many are taken by one who asks for nothing else."""
    times: list[float] = []
    for _ in range(count):
        now = bucket.due(now)
        bucket.take(now)
        times.append(now)
    return times


# -- the bucket -------------------------------------------------------------------------


def test_bucket_begins_full_and_then_gives_what_flows_in() -> None:
    assert taken(Bucket(Rate(3, 6)), 6) == [0, 0, 0, 2, 4, 6]


def test_burst_is_how_many_there_are_at_once() -> None:
    assert taken(Bucket(Rate(3, 6, burst=1)), 4) == [0, 2, 4, 6]
    assert taken(Bucket(Rate(3, 6, burst=5)), 7) == [0, 0, 0, 0, 0, 2, 4]


def test_bucket_fills_again_in_a_pause_but_not_over_its_brim() -> None:
    bucket = Bucket(Rate(3, 6))
    assert taken(bucket, 4, 100) == [100, 100, 100, 102]
    assert taken(bucket, 3, 105) == [105, 106, 108]
    assert taken(bucket, 5, 10**6) == [10**6, 10**6, 10**6, 10**6 + 2, 10**6 + 4]


def test_asking_when_it_is_due_takes_nothing() -> None:
    bucket = Bucket(Rate(1, 10))
    assert [bucket.due(5), bucket.due(5)] == [5, 5]
    bucket.take(5)
    assert [bucket.due(5), bucket.due(6), bucket.due(16)] == [15, 15, 16]


@pytest.mark.parametrize("burst", [1, None])
def test_rate_is_exact_after_a_million(burst: int | None) -> None:
    # A sum of so many sevenths of 0.3 s would be off by more.
    assert taken(Bucket(Rate(7, 0.3, burst)), 1_000_000)[-1] == (
        pytest.approx((1_000_000 - (burst or 7)) * 0.3 / 7, abs=1e-10)
    )


class Model:
    """A bucket of exact fractions of tokens."""

    def __init__(self, rate: Rate) -> None:
        self.size = Fraction(rate.burst or rate.count)
        self.speed = Fraction(rate.count) / Fraction(rate.per)
        self.tokens = self.size
        self.at = Fraction(0)

    def due(self, now: Fraction) -> Fraction:
        missing = 1 - self._tokens(now)
        return now + max(Fraction(0), missing / self.speed)

    def take(self, now: Fraction) -> None:
        self.tokens = self._tokens(now) - 1
        self.at = now
        assert self.tokens >= 0

    def _tokens(self, now: Fraction) -> Fraction:
        return min(self.size, self.tokens + (now - self.at) * self.speed)


rates = st.builds(
    Rate,
    st.sampled_from([1, 2, 4, 8]),  # such that times are numbers that a float holds exactly
    st.sampled_from([0.5, 1.0, 3.0]),
    st.one_of(st.none(), st.integers(1, 6)),
)
pauses = st.lists(st.integers(0, 40).map(lambda n: n / 16), max_size=60)


@given(rates, pauses)
def test_bucket_is_one_of_exact_fractions(rate: Rate, pauses: Sequence[float]) -> None:
    bucket, model = Bucket(rate), Model(rate)
    now = 0.0
    for pause in pauses:
        now += pause
        due = bucket.due(now)
        assert due == model.due(Fraction(now))
        bucket.take(due)
        model.take(Fraction(due))
        now = due


@given(rates, pauses)
def test_no_window_has_more_than_what_flows_in_and_the_burst(
    rate: Rate, pauses: Sequence[float]
) -> None:
    bucket = Bucket(rate)
    now = 0.0
    window: deque[float] = deque()
    for pause in pauses:
        now = bucket.due(now + pause)
        bucket.take(now)
        window.append(now)
        while window[0] <= now - rate.per:
            window.popleft()
        assert len(window) <= rate.count + (rate.burst or rate.count)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_count_is_a_whole_number(count: int) -> None:
    with pytest.raises(ValueError, match="count must be a whole number of at least 1"):
        Rate(count, 1)
    with pytest.raises(ValueError, match="burst must be a whole number of at least 1"):
        Rate(1, 1, burst=count)


@pytest.mark.parametrize("per", [0, -1, math.inf, math.nan])
def test_time_is_more_than_nothing_and_finite(per: float) -> None:
    with pytest.raises(ValueError, match="per must be a finite number above 0"):
        Rate(1, per)


def test_rate_is_a_value() -> None:
    rate = Rate(100, per=1)
    assert rate == Rate(100, 1.0)
    with pytest.raises(AttributeError):
        rate.count = 1  # type: ignore[misc]


# -- among tasks ------------------------------------------------------------------------


async def test_tasks_get_their_turns_in_the_order_in_which_they_came(
    autojump_clock: MockClock,
) -> None:
    limiter = RateLimiter(Rate(1, 2))
    got: list[tuple[int, float]] = []

    async def task(number: int) -> None:
        await limiter.acquire()
        got.append((number, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(task, number)
            await wait_all_tasks_blocked()
    assert got == [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)]


async def test_one_who_does_not_wait_does_not_push_in(autojump_clock: MockClock) -> None:
    limiter = RateLimiter(Rate(1, 2))
    limiter.acquire_nowait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        await wait_all_tasks_blocked()
        autojump_clock.jump(2)  # it is due, and was not woken yet
        with pytest.raises(trio.WouldBlock):
            limiter.acquire_nowait()
    with pytest.raises(trio.WouldBlock):
        limiter.acquire_nowait()
    await trio.sleep(2)
    limiter.acquire_nowait()


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_one_who_is_cancelled_while_waiting_takes_nothing(
    cancelled: int, autojump_clock: MockClock
) -> None:
    limiter = RateLimiter(Rate(1, 2))
    limiter.acquire_nowait()
    scopes = [trio.CancelScope() for _ in range(4)]
    got: list[tuple[int, float]] = []

    async def task(number: int) -> None:
        with scopes[number]:
            await limiter.acquire()
            got.append((number, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(task, number)
            await wait_all_tasks_blocked()
        await trio.sleep(1)
        scopes[cancelled].cancel()
    left = [number for number in range(4) if number != cancelled]
    assert got == list(zip(left, [2, 4, 6], strict=True))


async def test_one_who_was_cancelled_before_takes_nothing(autojump_clock: MockClock) -> None:
    limiter = RateLimiter(Rate(1, 2))
    with trio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    assert scope.cancelled_caught
    limiter.acquire_nowait()


async def test_turn_is_a_checkpoint_whether_it_waits_or_not(autojump_clock: MockClock) -> None:
    limiter = RateLimiter(Rate(1, 2))
    for _ in range(3):
        with assert_checkpoints():
            await limiter.acquire()


def test_what_tasks_oversleep_does_not_add_up() -> None:
    clock = MockClock()
    limiter = RateLimiter(Rate(1, 1, burst=1))

    async def main() -> list[float]:
        turns: list[float] = []

        async def take() -> None:
            for _ in range(50):
                await limiter.acquire()
                turns.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
            while len(turns) < 100:
                await wait_all_tasks_blocked()
                clock.jump(0.375)  # whoever sleeps until 1 is woken at 1.125
        return turns

    turns = trio.run(main, clock=clock)
    assert max(turns[n] - n for n in range(100)) < 0.375
    assert turns[99] - turns[0] <= 99.375
    assert all(later - earlier > 0.6 for earlier, later in pairwise(turns))


async def test_long_run_is_exact(autojump_clock: MockClock) -> None:
    limiter = RateLimiter(Rate(3, 0.7))
    for _ in range(30_000):
        await limiter.acquire()
    assert trio.current_time() == pytest.approx(29_997 * 0.7 / 3, abs=1e-6)


async def test_call_is_made_in_its_turn(autojump_clock: MockClock) -> None:
    limiter = RateLimiter(Rate(1, 2))

    async def when(*args: object) -> tuple[float, tuple[object, ...]]:
        await trio.lowlevel.checkpoint()
        return trio.current_time(), args

    assert await limiter.call(when, 1, "two") == (0, (1, "two"))
    assert await limiter.call(when) == (2, ())

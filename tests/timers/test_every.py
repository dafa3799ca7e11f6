from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_services.lifecycle import current_service, graceful
from trio_services.supervision import Supervisor, open_supervisor
from trio_services.timers import Missed, Tick, every

if TYPE_CHECKING:
    from collections.abc import Callable


async def beats(
    timer: every, count: int, work: Callable[[Tick], float] = lambda tick: 0.0
) -> list[tuple[float, Tick]]:
    """The first ticks and when each came; the body takes as long as `work` says."""
    seen: list[tuple[float, Tick]] = []
    async for tick in timer:
        seen.append((trio.current_time(), tick))
        if len(seen) == count:
            break
        await trio.sleep(work(tick))
    return seen


# -- the grid ---------------------------------------------------------------------------


async def test_first_tick_comes_at_once_and_the_others_on_the_grid(
    autojump_clock: MockClock,
) -> None:
    await trio.sleep(7)
    seen = await beats(every(5), 4, lambda tick: 2)
    assert seen == [(7 + 5 * n, Tick(n, 7 + 5 * n, 0)) for n in range(4)]


async def test_grid_does_not_drift_in_a_week(autojump_clock: MockClock) -> None:
    draw = random.Random(7)
    seen = await beats(every(300), 7 * 24 * 12 + 1, lambda tick: draw.uniform(0, 299))
    assert seen == [(300 * n, Tick(n, 300 * n, 0)) for n in range(7 * 24 * 12 + 1)]


async def test_grid_of_a_period_that_no_float_holds_does_not_drift(
    autojump_clock: MockClock,
) -> None:
    seen = await beats(every(0.1), 5000, lambda tick: 0.07)
    assert [tick.number for _, tick in seen] == list(range(5000))
    assert all(abs(when - 0.1 * n) < 1e-9 for n, (when, _) in enumerate(seen))


async def test_start_puts_off_the_whole_grid(autojump_clock: MockClock) -> None:
    await trio.sleep(1)
    seen = await beats(every(5, start=3), 3, lambda tick: 1)
    assert seen == [(4 + 5 * n, Tick(n, 4 + 5 * n, 0)) for n in range(3)]


async def test_start_counts_from_the_loop_and_not_from_when_the_timer_was_made(
    autojump_clock: MockClock,
) -> None:
    timer = every(5, start=3)
    await trio.sleep(100)
    assert [when for when, _ in await beats(timer, 2)] == [103, 108]


async def test_each_loop_has_a_grid_of_its_own(autojump_clock: MockClock) -> None:
    timer = every(5)
    await beats(timer, 3)
    await trio.sleep(2)
    assert await beats(timer, 2) == [(12, Tick(0, 12, 0)), (17, Tick(1, 17, 0))]


# -- overruns ---------------------------------------------------------------------------


async def test_missed_ticks_coalesce_and_the_next_is_back_on_the_grid(
    autojump_clock: MockClock,
) -> None:
    seen = await beats(every(10), 4, lambda tick: 34 if tick.number == 0 else 0)
    assert seen == [
        (0, Tick(0, 0, 0)),
        (34, Tick(3, 30, 4)),
        (40, Tick(4, 40, 0)),
        (50, Tick(5, 50, 0)),
    ]


async def test_work_that_takes_exactly_its_period_misses_nothing(
    autojump_clock: MockClock,
) -> None:
    seen = await beats(every(10), 4, lambda tick: 10)
    assert seen == [(10 * n, Tick(n, 10 * n, 0)) for n in range(4)]


@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 1.1])
async def test_work_that_ends_on_a_beat_gets_that_one_and_not_also_the_one_before(
    period: float, autojump_clock: MockClock
) -> None:
    # In virtual time this is the rule and not the exception, and few periods are numbers that a
    # float holds exactly.
    numbers: list[int] = []
    async for tick in every(period):
        numbers.append(tick.number)
        if tick.number > 80:
            break
        await trio.sleep_until((tick.number + 3) * period)
    assert numbers == list(range(0, 82, 3))


async def test_all_missed_ticks_come_one_after_the_other_where_that_is_wanted(
    autojump_clock: MockClock,
) -> None:
    seen = await beats(every(10, missed="all"), 6, lambda tick: 34 if tick.number == 0 else 0)
    assert seen == [
        (0, Tick(0, 0, 0)),
        (34, Tick(1, 10, 24)),
        (34, Tick(2, 20, 14)),
        (34, Tick(3, 30, 4)),
        (40, Tick(4, 40, 0)),
        (50, Tick(5, 50, 0)),
    ]


async def test_no_missed_tick_comes_where_they_are_skipped(autojump_clock: MockClock) -> None:
    seen = await beats(every(10, missed="skip"), 4, lambda tick: 34 if tick.number == 0 else 9)
    assert seen == [
        (0, Tick(0, 0, 0)),
        (40, Tick(4, 40, 0)),
        (50, Tick(5, 50, 0)),
        (60, Tick(6, 60, 0)),
    ]


@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 1.1])
@pytest.mark.parametrize("missed", ["once", "skip"])
async def test_beat_on_which_work_ends_is_not_missed(
    period: float, missed: Missed, autojump_clock: MockClock
) -> None:
    await trio.sleep(1e6 / 3)  # so that sums are not exact
    numbers: list[int] = []
    async for tick in every(period, missed=missed):
        numbers.append(tick.number)
        if tick.number > 300:
            break
        await trio.sleep(3 * period - tick.late)
    assert numbers == list(range(0, 304, 3))


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_no_beat_of_a_week_is_lost_or_early_whatever_becomes_of_missed_ones(
    missed: Missed, autojump_clock: MockClock
) -> None:
    seen = await beats(every(60.1, missed=missed), 7 * 24 * 60, lambda tick: 59)
    assert [tick.number for _, tick in seen] == list(range(7 * 24 * 60))
    assert all(when == pytest.approx(60.1 * n, abs=1e-6) for n, (when, _) in enumerate(seen))
    assert all(when >= tick.scheduled for when, tick in seen)


async def test_ten_minutes_of_a_hundred_milliseconds_do_not_drift(
    autojump_clock: MockClock,
) -> None:
    seen = await beats(every(0.1), 6001, lambda tick: 0.099)
    assert seen[-1][0] == pytest.approx(600, abs=1e-9)
    assert seen[-1][1].number == 6000


quarters = st.integers(0, 40).map(lambda n: n / 4)


@given(st.lists(quarters, min_size=1, max_size=20), st.sampled_from([0.25, 1.0, 2.5]), quarters)
@settings(deadline=None)
def test_every_tick_is_the_newest_that_is_due(
    durations: list[float], period: float, start: float
) -> None:
    async def main() -> list[tuple[float, Tick]]:
        left = iter(durations)
        return await beats(every(period, start=start), len(durations) + 1, lambda tick: next(left))

    seen = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert seen[0] == (start, Tick(0, start, 0))
    for ((before, earlier), (when, tick)), took in zip(pairwise(seen), durations, strict=True):
        asked = before + took
        assert tick.number > earlier.number
        assert tick.scheduled == start + tick.number * period
        assert tick.late == when - tick.scheduled
        # It came as soon as it could, and is the newest that there was; if it is one that was
        # waited for, then it is the very next.
        assert when == max(asked, tick.scheduled)
        assert tick.late < period
        if when > asked:
            following = max(earlier.number + 1, math.ceil((asked - start) / period))
            assert tick.number == following


@given(
    st.lists(quarters, min_size=1, max_size=20),
    st.sampled_from([0.25, 1.0, 2.5]),
    quarters,
    st.sampled_from(["all", "skip"]),
)
def test_every_beat_comes_or_only_those_that_nobody_is_late_for(
    durations: list[float], period: float, start: float, missed: Missed
) -> None:
    async def main() -> list[tuple[float, Tick]]:
        left = iter(durations)
        timer = every(period, start=start, missed=missed)
        return await beats(timer, len(durations) + 1, lambda tick: next(left))

    seen = trio.run(main, clock=MockClock(autojump_threshold=0))

    for ((before, earlier), (when, tick)), took in zip(pairwise(seen), durations, strict=True):
        asked = before + took
        assert tick.scheduled == start + tick.number * period
        assert tick.late == when - tick.scheduled
        assert when == max(asked, tick.scheduled)
        if missed == "all":
            assert tick.number == earlier.number + 1
        else:
            assert tick.late == 0
            assert tick.number == max(earlier.number + 1, math.ceil((asked - start) / period))


# -- jitter -----------------------------------------------------------------------------


async def test_jitter_delays_each_tick_but_keeps_the_grid(autojump_clock: MockClock) -> None:
    seen = await beats(every(10, jitter=3), 200, lambda tick: 1)
    assert [tick.number for _, tick in seen] == list(range(200))
    assert [tick.scheduled for _, tick in seen] == [10 * n for n in range(200)]
    late = [tick.late for _, tick in seen]
    assert [when - tick.scheduled for when, tick in seen] == pytest.approx(late)
    assert min(late) >= 0
    assert max(late) <= 3
    assert max(late) - min(late) > 1.5


async def test_largest_jitter_skips_no_beat(autojump_clock: MockClock) -> None:
    seen = await beats(every(10, jitter=9.999), 500)
    assert [tick.number for _, tick in seen] == list(range(500))


# -- stopping ---------------------------------------------------------------------------


async def test_loop_in_a_region_ends_by_itself_when_a_stop_is_requested_between_ticks(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[float, str]] = []

    async def service() -> None:
        with graceful():
            async for tick in every(5):
                told.append((trio.current_time(), f"tick {tick.number}"))  # noqa: PERF401
            told.append((trio.current_time(), "ended"))

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(7)
    assert told == [(0, "tick 0"), (5, "tick 1"), (7, "ended")]


async def test_loop_in_a_region_ends_after_the_body_in_which_a_stop_was_requested(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[float, str]] = []

    async def service() -> None:
        with graceful():
            async for _ in every(5):
                await trio.sleep(3)
                told.append((trio.current_time(), "body"))
            told.append((trio.current_time(), "ended"))

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(6)
    assert told == [(3, "body"), (8, "body"), (8, "ended")]


async def test_no_tick_is_made_up_for_after_a_stop(autojump_clock: MockClock) -> None:
    told: list[int] = []

    async def service() -> None:
        with graceful():
            async for tick in every(1):
                told.append(tick.number)
                await trio.sleep(4)

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(2)
    assert told == [0]


async def test_stop_in_the_moment_of_a_tick_ends_the_loop(autojump_clock: MockClock) -> None:
    told: list[int] = []

    async def service() -> None:
        with graceful():
            async for tick in every(5):
                told.append(tick.number)
                if tick.number == 1:
                    current_service().request_stop(10)

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(20)
    assert told == [0, 1]


async def test_loop_outside_of_a_region_ends_too_but_what_follows_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[float, str]] = []

    async def service() -> None:
        async for tick in every(5):
            told.append((trio.current_time(), f"tick {tick.number}"))  # noqa: PERF401
        told.append((trio.current_time(), "ended"))
        await trio.sleep(1)
        told.append((trio.current_time(), "went on"))

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(7)
    assert told == [(0, "tick 0"), (5, "tick 1"), (7, "ended")]


async def test_body_outside_of_a_region_is_cancelled_by_a_stop(autojump_clock: MockClock) -> None:
    told: list[tuple[float, str]] = []

    async def service() -> None:
        async for _ in every(5):
            told.append((trio.current_time(), "begun"))
            await trio.sleep(3)
            told.append((trio.current_time(), "done"))

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(6)
    assert told == [(0, "begun"), (3, "done"), (5, "begun")]
    assert trio.current_time() == 6


async def test_stop_that_the_body_asks_for_outside_of_a_region_ends_the_loop(
    autojump_clock: MockClock,
) -> None:
    told: list[str] = []

    async def service() -> None:
        async for tick in every(5):
            told.append(f"tick {tick.number}")
            current_service().request_stop(10)
        told.append("ended")

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(20)
    assert told == ["tick 0", "ended"]


async def test_stop_of_another_service_does_not_end_the_loop(autojump_clock: MockClock) -> None:
    told: list[float] = []

    async def ticking() -> None:
        async for _ in every(5):
            told.append(trio.current_time())  # noqa: PERF401

    async def stopped() -> None:
        await trio.sleep(2)
        current_service().request_stop(10)

    async with open_supervisor(Supervisor("app", [ticking, stopped])):
        await trio.sleep(11)
    assert told == [0, 5, 10]


# -- cancellation -----------------------------------------------------------------------


async def test_cancelled_wait_for_a_tick_loses_none(autojump_clock: MockClock) -> None:
    ticks = aiter(every(5))
    assert await anext(ticks) == Tick(0, 0, 0)
    with trio.move_on_after(3):
        await anext(ticks)
    assert trio.current_time() == 3
    assert await anext(ticks) == Tick(1, 5, 0)


async def test_each_tick_is_a_checkpoint(autojump_clock: MockClock) -> None:
    ticks = aiter(every(1e-9))
    for _ in range(5):
        with assert_checkpoints():
            await anext(ticks)


async def test_timer_needs_no_service(autojump_clock: MockClock) -> None:
    assert len(await beats(every(5), 3)) == 3


# -- validation -------------------------------------------------------------------------


@pytest.mark.parametrize("period", [0, -1, math.inf, math.nan])
def test_period_must_be_more_than_nothing_and_finite(period: float) -> None:
    with pytest.raises(ValueError, match="period"):
        every(period)


@pytest.mark.parametrize("start", [-1, -1e-9, math.inf, math.nan])
def test_start_must_not_be_in_the_past_and_finite(start: float) -> None:
    with pytest.raises(ValueError, match="start"):
        every(5, start=start)


@pytest.mark.parametrize("jitter", [-1, 5, 6, math.inf, math.nan])
def test_jitter_must_be_less_than_the_period(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        every(5, jitter=jitter)


def test_what_becomes_of_missed_ticks_must_be_known() -> None:
    with pytest.raises(ValueError, match="missed must be 'once', 'all' or 'skip', not 'never'"):
        every(5, missed="never")  # type: ignore[arg-type]


def test_tick_cannot_be_changed() -> None:
    tick = Tick(0, 0, 0)
    with pytest.raises(AttributeError):
        tick.number = 1  # type: ignore[misc]


# -- a blocked event loop ---------------------------------------------------------------


async def beats_over(timer: every, clock: MockClock, *jumps: float) -> list[tuple[float, Tick]]:
    """The ticks, and when each came, while so many seconds pass at once."""
    seen: list[tuple[float, Tick]] = []

    async def tick() -> None:
        async for one in timer:
            seen.append((trio.current_time(), one))  # noqa: PERF401 -- it is interrupted

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        for seconds in jumps:
            await wait_all_tasks_blocked()
            clock.jump(seconds)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return seen


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("once", [(0, 0), (3, 39), (4, 40)]),
        ("all", [(0, 0), (1, 39), (2, 39), (3, 39), (4, 40)]),
        ("skip", [(0, 0), (4, 40)]),
    ],
)
async def test_beats_that_pass_while_the_loop_is_blocked_are_missed(
    missed: Missed, expected: list[tuple[int, float]], mock_clock: MockClock
) -> None:
    seen = await beats_over(every(10, missed=missed), mock_clock, 39, 1)
    assert [(tick.number, when) for when, tick in seen] == expected


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_beat_that_is_a_little_late_is_not_missed(
    missed: Missed, mock_clock: MockClock
) -> None:
    _, *seen = await beats_over(every(10, missed=missed, jitter=5), mock_clock, 5, 13)
    assert [(tick.number, tick.late) for _, tick in seen] == [(1, 8)]


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_late_tick_with_long_jitter_is_not_taken_for_the_next(
    missed: Missed, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(low: float, high: float) -> float:
        return 9.0

    monkeypatch.setattr(random, "uniform", draw)
    timer = every(10, missed=missed, jitter=9.5)
    seen = await beats_over(timer, mock_clock, 9, 12)  # the tick of 10 comes at 21 instead of 19
    assert [tick.number for _, tick in seen] == [0, 1]

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, assert_checkpoints

from trio_services.lifecycle import graceful
from trio_services.supervision import Supervisor, open_supervisor
from trio_services.timers import Cron, Missed, Tick, at, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600.0
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)  # the day before clocks go forward in Europe


@attrs.define
class Wall:
    """A clock on the wall that goes with Trio's, and can be set."""

    shown: float = NOON.timestamp()

    def __attrs_post_init__(self) -> None:
        self.shown -= trio.current_time()
        wall_clock.set(self.read)

    def read(self) -> float:
        return self.shown + trio.current_time()

    def set(self, seconds: float) -> None:
        """Move it by so much."""
        self.shown += seconds

    def text(self) -> str:
        return datetime.fromtimestamp(self.read(), UTC).strftime("%d %H:%M:%S")


def slot(tick: Tick) -> str:
    assert tick.when is not None
    return tick.when.strftime("%d %H:%M")


async def slots(
    timer: at, count: int, work: Callable[[Tick], float] = lambda tick: 0.0
) -> list[str]:
    """The times of the first ticks; the body takes as long as `work` says."""
    seen: list[str] = []
    async for tick in timer:
        seen.append(slot(tick))
        if len(seen) == count:
            break
        await trio.sleep(work(tick))
    return seen


# -- times ------------------------------------------------------------------------------


async def test_tick_comes_at_the_time_and_tells_it(autojump_clock: MockClock) -> None:
    await trio.sleep(7)
    Wall()
    ticks = aiter(at("30 * * * *"))
    assert await anext(ticks) == Tick(0, 7 + 1800, 0, NOON + timedelta(minutes=30))
    assert trio.current_time() == 7 + 1800
    assert await anext(ticks) == Tick(1, 7 + 5400, 0, NOON + timedelta(minutes=90))
    assert trio.current_time() == 7 + 5400


async def test_time_is_that_of_the_zone_s_clocks(autojump_clock: MockClock) -> None:
    Wall()
    tick = await anext(aiter(at("30 2 * * *", timezone="America/New_York")))
    assert tick.when is not None
    assert tick.when.isoformat() == "2026-03-29T02:30:00-04:00"
    assert trio.current_time() == 18.5 * HOUR


async def test_time_that_is_now_has_passed(autojump_clock: MockClock) -> None:
    Wall()
    assert await slots(at("0 * * * *"), 2) == ["28 13:00", "28 14:00"]


async def test_each_loop_begins_anew(autojump_clock: MockClock) -> None:
    Wall()
    timer = at("0 * * * *")
    assert await slots(timer, 2) == ["28 13:00", "28 14:00"]
    await trio.sleep(10 * HOUR)
    assert await slots(timer, 1) == ["29 01:00"]
    assert (await anext(aiter(timer))).number == 0


async def test_gap_and_fold_have_one_tick_each(autojump_clock: MockClock) -> None:
    wall = Wall()
    daily = at("30 2 * * *", timezone="Europe/Berlin")
    assert await slots(daily, 3) == ["29 03:00", "30 02:30", "31 02:30"]
    wall.set(datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp() - wall.read())
    assert await slots(daily, 3) == ["25 02:30", "26 02:30", "27 02:30"]


async def test_no_minute_of_a_week_is_lost_or_late(autojump_clock: MockClock) -> None:
    Wall()
    ticks: list[Tick] = []
    async for tick in at("* * * * *"):
        ticks.append(tick)
        if len(ticks) == 7 * 24 * 60:
            break
        await trio.sleep(59.5)
    assert [tick.number for tick in ticks] == list(range(7 * 24 * 60))
    assert [tick.scheduled for tick in ticks] == [60 * (n + 1) for n in range(7 * 24 * 60)]
    assert {tick.late for tick in ticks} == {0}


# -- what is missed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("once", ["28 13:00", "28 16:00", "28 17:00", "28 18:00"]),
        ("all", ["28 13:00", "28 14:00", "28 15:00", "28 16:00", "28 17:00"]),
        ("skip", ["28 13:00", "28 17:00", "28 18:00"]),
    ],
)
async def test_times_that_pass_while_the_body_runs(
    missed: Missed, expected: list[str], autojump_clock: MockClock
) -> None:
    Wall()
    timer = at("0 * * * *", missed=missed)
    work = 3 * HOUR + 1
    assert await slots(timer, len(expected), lambda t: 0 if t.number else work) == expected


async def test_time_that_passed_only_now_is_skipped_too(autojump_clock: MockClock) -> None:
    Wall()
    timer = at("0 * * * *", missed="skip")
    assert await slots(timer, 2, lambda tick: HOUR + 1) == ["28 13:00", "28 15:00"]


@pytest.mark.parametrize("missed", ["once", "skip"])
async def test_time_that_is_now_is_not_missed_with_those_before(
    missed: Missed, autojump_clock: MockClock
) -> None:
    Wall()
    timer = at("0 * * * *", missed=missed)
    expected = ["28 13:00", "28 16:00", "28 17:00"]
    assert await slots(timer, 3, lambda tick: 0 if tick.number else 3 * HOUR) == expected


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_body_that_ends_with_the_hour_misses_nothing(
    missed: Missed, autojump_clock: MockClock
) -> None:
    Wall()
    timer = at("0 * * * *", missed=missed)
    expected = ["28 13:00", "28 14:00", "28 15:00"]
    assert await slots(timer, 3, lambda tick: HOUR) == expected


async def test_late_tick_says_by_how_much(autojump_clock: MockClock) -> None:
    Wall()
    ticks = aiter(at("0 * * * *"))
    await anext(ticks)
    await trio.sleep(HOUR + 100)
    assert await anext(ticks) == Tick(1, 2 * HOUR, 100, NOON + timedelta(hours=2))
    assert trio.current_time() == 2 * HOUR + 100


async def test_times_of_years_coalesce_without_looking_at_each(autojump_clock: MockClock) -> None:
    # A machine that has no clock of its own begins in 1970 until somebody tells it the time.
    wall = Wall(0.0)
    ticks = aiter(at("* * * * *"))
    await anext(ticks)
    wall.set(NOON.timestamp() + 30 - wall.read())
    assert (await anext(ticks)).when == NOON  # there are 29 million before it


# -- clocks that are set ----------------------------------------------------------------


async def ticks_while_set(
    missed: Missed, after: float, step: float, until: float, cron: str = "0 * * * *"
) -> list[tuple[str, str]]:
    """The time of each tick and when it came by the wall clock, which is set after a while."""
    wall = Wall()
    seen: list[tuple[str, str]] = []

    async def loop() -> None:
        async for tick in at(cron, missed=missed):
            seen.append((slot(tick), wall.text()))  # noqa: PERF401

    with trio.move_on_after(until):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop)
            await trio.sleep(after)
            wall.set(step)
    return seen


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_clock_that_is_set_back_by_an_hour_repeats_no_tick(
    missed: Missed, autojump_clock: MockClock
) -> None:
    # It is 13:10, and then 12:10 again.
    seen = await ticks_while_set(missed, 1.1666667 * HOUR, -HOUR, 4.5 * HOUR)
    assert [when for when, _ in seen] == ["28 13:00", "28 14:00", "28 15:00"]
    assert [came[:8] for _, came in seen] == ["28 13:00", "28 14:00", "28 15:00"]


async def test_tick_waits_for_a_clock_that_is_set_back(autojump_clock: MockClock) -> None:
    # It is 12:55, and then 11:55.
    seen = await ticks_while_set("once", 55 * 60, -HOUR, 3.5 * HOUR)
    assert seen == [("28 13:00", "28 13:00:00"), ("28 14:00", "28 14:00:00")]


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("once", ["28 13:00", "28 15:00", "28 16:00"]),
        ("all", ["28 13:00", "28 14:00", "28 15:00", "28 16:00"]),
        ("skip", ["28 13:00", "28 16:00"]),
    ],
)
async def test_times_over_which_the_clock_is_set_forward_are_missed_ones(
    missed: Missed, expected: list[str], autojump_clock: MockClock
) -> None:
    # It is 13:20:30, and then 15:20:30.
    seen = await ticks_while_set(missed, 80.5 * 60, 2 * HOUR, 2.5 * HOUR)
    assert [when for when, _ in seen] == expected
    if missed != "skip":
        # It is noticed when the clock is read again.
        assert seen[1][1] == "28 15:21:00"


async def test_clock_that_is_set_forward_by_an_hour_is_caught_up_with_once(
    autojump_clock: MockClock,
) -> None:
    seen = await ticks_while_set("once", 80.5 * 60, HOUR, 2.2 * HOUR)
    assert [when for when, _ in seen] == ["28 13:00", "28 14:00", "28 15:00"]


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_clock_that_is_set_forward_by_seconds_skips_nothing(
    missed: Missed, autojump_clock: MockClock
) -> None:
    seen = await ticks_while_set(missed, HOUR - 5, 20, 1.5 * HOUR)
    assert [when for when, _ in seen] == ["28 13:00"]


async def test_clock_that_was_wrong_by_days_counts_from_what_it_is_set_to(
    autojump_clock: MockClock,
) -> None:
    seen = await ticks_while_set("once", 80 * 60, -48 * HOUR, 3.5 * HOUR)
    assert [when for when, _ in seen] == ["28 13:00", "26 14:00", "26 15:00"]


minutes = st.integers(0, 90 * 60)
steps = st.lists(st.tuples(minutes, st.integers(-3600, 3600)), max_size=3)


@given(
    st.sampled_from(["*/20 * * * *", "5 * * * *"]), steps, minutes, st.sampled_from(["once", "all"])
)
@settings(max_examples=50)
def test_wherever_the_hands_are_moved_no_time_comes_twice_or_early_or_is_lost(
    expression: str, steps: list[tuple[int, int]], work: int, missed: Missed
) -> None:
    cron = Cron(expression)

    async def main() -> list[tuple[datetime, datetime]]:
        wall = Wall()
        seen: list[tuple[datetime, datetime]] = []

        async def loop() -> None:
            async for tick in at(expression, missed=missed):
                assert tick.when is not None
                seen.append((tick.when, datetime.fromtimestamp(wall.read(), UTC)))
                await trio.sleep(work)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop)
            for wait, step in steps:
                await trio.sleep(wait)
                wall.set(step)
            await trio.sleep(8 * HOUR)
            nursery.cancel_scope.cancel()
        return seen

    seen = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert len(seen) >= 2
    for when, came in seen:
        assert when <= came
        if missed == "once":
            assert cron.next(when) > came
    for (earlier, _), (later, _) in pairwise(seen):
        assert later > earlier
        if missed == "all":
            assert later == cron.next(earlier)


# -- jitter -----------------------------------------------------------------------------


async def test_jitter_delays_each_tick_but_no_time_is_lost(autojump_clock: MockClock) -> None:
    Wall()
    ticks = aiter(at("0 * * * *", jitter=600))
    seen = [await anext(ticks) for _ in range(50)]
    assert [tick.scheduled for tick in seen] == pytest.approx([HOUR * n for n in range(1, 51)])
    assert min(tick.late for tick in seen) >= 0
    assert max(tick.late for tick in seen) < 600.001
    assert max(tick.late for tick in seen) - min(tick.late for tick in seen) > 300


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
async def test_jitter_ends_before_the_next_time(missed: Missed, autojump_clock: MockClock) -> None:
    Wall()
    ticks = aiter(at("0,1 * * * *", jitter=1e6, missed=missed))
    seen = [await anext(ticks) for _ in range(40)]
    assert all(tick.late < (60 if tick.number % 2 == 1 else HOUR) for tick in seen)
    assert {round(tick.scheduled) % 3600 for tick in seen[0::2]} == {60}
    assert {round(tick.scheduled) % 3600 for tick in seen[1::2]} == {0}


async def test_jitter_of_one_tick_does_not_change_while_it_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    # Or a long wait, in which the clock is read often, would end with the shortest of many.
    Wall()
    ticks = aiter(at("0 * * * *", jitter=3000))
    late = [(await anext(ticks)).late for _ in range(100)]
    assert sum(late) / len(late) == pytest.approx(1500, rel=0.35)


# -- stopping and cancellation ----------------------------------------------------------


async def test_loop_in_a_region_ends_by_itself_when_a_stop_is_requested_between_ticks(
    autojump_clock: MockClock,
) -> None:
    Wall()
    told: list[tuple[float, str]] = []

    async def service() -> None:
        with graceful():
            async for tick in at("0 * * * *"):
                told.append((trio.current_time(), slot(tick)))  # noqa: PERF401
            told.append((trio.current_time(), "ended"))

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(1.5 * HOUR)
    assert told == [(HOUR, "28 13:00"), (1.5 * HOUR, "ended")]


async def test_loop_ends_after_the_body_in_which_a_stop_was_requested(
    autojump_clock: MockClock,
) -> None:
    Wall()
    told: list[str] = []

    async def service() -> None:
        with graceful():
            async for tick in at("* * * * *"):
                told.append(slot(tick))
                await trio.sleep(5)
            told.append("ended")

    async with open_supervisor(Supervisor("app", [service])):
        await trio.sleep(62)
    assert told == ["28 12:01", "ended"]
    assert trio.current_time() == 65


async def test_cancelled_wait_for_a_tick_loses_none(autojump_clock: MockClock) -> None:
    Wall()
    ticks = aiter(at("0 * * * *"))
    with trio.move_on_after(0.7 * HOUR):
        await anext(ticks)
    assert trio.current_time() == 0.7 * HOUR
    assert slot(await anext(ticks)) == "28 13:00"


async def test_each_tick_is_a_checkpoint(autojump_clock: MockClock) -> None:
    Wall()
    ticks = aiter(at("* * * * *", missed="all"))
    await trio.sleep(600)
    for _ in range(5):
        with assert_checkpoints():
            await anext(ticks)
    assert trio.current_time() == 600


async def test_tick_does_not_come_before_its_time_in_real_time() -> None:
    ahead = 59.8 - time.time() % 60  # so that the next minute is near
    wall_clock.set(lambda: time.time() + ahead)
    tick = await anext(aiter(at("* * * * *")))
    assert tick.when is not None
    assert 0 <= time.time() + ahead - tick.when.timestamp() < 5


def test_wall_clock_is_the_system_s_unless_a_test_says_otherwise() -> None:
    assert wall_clock.get() is time.time


# -- validation -------------------------------------------------------------------------


def test_expression_and_zone_are_checked_at_once() -> None:
    assert at("@daily", timezone="Europe/Berlin").cron == Cron("@daily", "Europe/Berlin")
    with pytest.raises(ValueError, match="minute '60'"):
        at("60 * * * *")
    with pytest.raises(ValueError, match="did you mean 'Europe/Berlin'"):
        at("@daily", timezone="Europe/Berlni")


@pytest.mark.parametrize("jitter", [-1, math.inf, math.nan])
def test_jitter_must_not_be_negative_or_infinite(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        at("@daily", jitter=jitter)


def test_what_becomes_of_missed_times_must_be_known() -> None:
    with pytest.raises(ValueError, match="missed must be 'once', 'all' or 'skip', not 'never'"):
        at("@daily", missed="never")  # type: ignore[arg-type]

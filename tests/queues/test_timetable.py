"""Schedules by cron, calls that overlap, times that were missed, and what statistics say."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services import timers
from trio_services.lifecycle import events
from trio_services.queues import Outcome, Schedule, ScheduleStatistics, current_job
from trio_services.resilience import Backoff, Retry

from .test_schedule import Calls, scheduled
from .working import working

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio.testing import MockClock

    from .working import Watched


@contextmanager
def wall_clock(now: datetime) -> Generator[None]:
    """A wall clock that reads `now`, and then goes with Trio's."""
    start = now.timestamp() - trio.current_time()
    token = timers.wall_clock.set(lambda: start + trio.current_time())
    try:
        yield
    finally:
        timers.wall_clock.reset(token)


class Times:
    """A call that notes for which time it is made."""

    def __init__(self) -> None:
        self.local: list[str] = []
        self.at: list[float] = []

    async def __call__(self) -> None:
        job = current_job.get()
        assert job is not None
        tick = job.item
        assert isinstance(tick, timers.Tick)
        assert tick.when is not None
        self.local.append(tick.when.strftime("%d %H:%M %Z"))
        self.at.append(trio.current_time())
        await trio.lowlevel.checkpoint()


def statistics_of(watched: Watched) -> ScheduleStatistics:
    (one,) = watched.tree.statistics().children
    assert isinstance(one.work, ScheduleStatistics)
    return one.work


# -- cron ---------------------------------------------------------------------------------


async def test_call_is_made_at_the_times_of_an_expression(autojump_clock: MockClock) -> None:
    call = Times()
    with wall_clock(datetime(2026, 1, 5, 12, 1, tzinfo=UTC)):
        async with working(scheduled(call, cron="*/15 * * * *")):
            await trio.sleep(3600)
    assert call.local == ["05 12:15 UTC", "05 12:30 UTC", "05 12:45 UTC", "05 13:00 UTC"]
    assert call.at == pytest.approx([14 * 60, 29 * 60, 44 * 60, 59 * 60], abs=0.01)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # Clocks pass over 02:30: it is made when they go on. They show it twice: made once.
        (datetime(2026, 3, 28, 12, tzinfo=UTC), ["29 03:00 CEST", "30 02:30 CEST"]),
        (datetime(2026, 10, 24, 12, tzinfo=UTC), ["25 02:30 CEST", "26 02:30 CET"]),
    ],
)
async def test_time_of_day_comes_once_whatever_clocks_do(
    day: datetime, expected: list[str], autojump_clock: MockClock
) -> None:
    call = Times()
    with wall_clock(day):
        async with working(scheduled(call, cron="30 2 * * *", timezone="Europe/Berlin")):
            await trio.sleep(48 * 3600)
    assert call.local == expected


async def test_zone_decides_when_a_time_of_day_is(autojump_clock: MockClock) -> None:
    for zone, hour in [("UTC", 12), ("Europe/Berlin", 11), ("America/New_York", 17)]:
        call = Times()
        began = trio.current_time()
        with wall_clock(datetime(2026, 1, 5, tzinfo=UTC)):
            async with working(scheduled(call, cron="0 12 * * *", timezone=zone)):
                await trio.sleep(24 * 3600)
        assert call.at == pytest.approx([began + hour * 3600], abs=0.01)


async def test_jitter_delays_calls_by_cron_and_not_their_times(autojump_clock: MockClock) -> None:
    call = Times()
    with wall_clock(datetime(2026, 1, 5, tzinfo=UTC)):
        async with working(scheduled(call, cron="0 * * * *", jitter=600)):
            await trio.sleep(48 * 3600 + 900)
    late = [when % 3600 for when in call.at]
    assert len(late) == 48
    assert 0 <= min(late) < 120 < 480 < max(late) <= 600.1
    assert call.local[0] == "05 01:00 UTC"


# -- calls that overlap -----------------------------------------------------------------------


async def test_queued_calls_are_made_one_after_the_other(autojump_clock: MockClock) -> None:
    call = Calls(25)
    async with working(scheduled(call, every=10, overlap="queue")) as watched:
        await trio.sleep(49)
        assert statistics_of(watched).skipped == 0
    assert call.begun == [0, 25, 25, 30, 40]
    assert call.ended == [25, 25, 25, 30, 40]


async def test_parallel_calls_are_made_beside_each_other(autojump_clock: MockClock) -> None:
    call = Calls(25, 25, 25, 25)
    async with working(scheduled(call, every=10, overlap="parallel")) as watched:
        await trio.sleep(24)
        assert statistics_of(watched).running == 3
        await trio.sleep(7)
    assert call.begun == [0, 10, 20, 30]
    assert call.ended == [25, 35, 45][: len(call.ended)]


@pytest.mark.parametrize("overlap", ["skip", "queue", "parallel"])
@pytest.mark.parametrize("stop_at", [0, 5, 10, 20, 24.9, 25, 30, 35])
async def test_stop_finishes_the_calls_in_hand_and_begins_none(
    overlap: str, stop_at: float, autojump_clock: MockClock
) -> None:
    call = Calls(25, 25, 25, 25)
    async with working(scheduled(call, every=10, overlap=overlap), stop_within=29) as watched:
        await trio.sleep(stop_at)
        begun = len(call.begun)
    assert len(call.ended) == len(call.begun)
    assert all(when <= stop_at for when in call.begun)
    assert len(call.begun) - begun <= 1  # which fell due in the very moment of the stop
    assert trio.current_time() <= stop_at + 25
    assert watched.of(events.JobDead) == []


@pytest.mark.parametrize("overlap", ["queue", "parallel"])
async def test_calls_are_cut_at_the_deadline_of_a_stop(
    overlap: str, autojump_clock: MockClock
) -> None:
    call = Calls(*[100] * 4)
    async with working(scheduled(call, every=10, overlap=overlap), stop_within=5):
        await trio.sleep(25)
    assert trio.current_time() == 30
    assert call.ended == []


async def test_queued_calls_wait_for_the_attempts_of_the_one_before(
    autojump_clock: MockClock,
) -> None:
    made: list[float] = []

    async def call() -> None:
        await trio.lowlevel.checkpoint()
        made.append(trio.current_time())
        if len(made) < 3:
            raise OSError

    retry = Retry(5, Backoff(initial=8, factor=1, jitter=0))
    async with working(scheduled(call, every=10, overlap="queue", retry=retry)):
        await trio.sleep(25)
    assert made == [0, 8, 16, 16, 20]


# -- what was missed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "begun"), [("once", [0, 39, 40]), ("all", [0, 39, 39, 39, 40]), ("skip", [0, 40])]
)
@pytest.mark.parametrize("overlap", ["skip", "queue", "parallel"])
async def test_times_that_passed_while_nothing_could_be_done(
    missed: str, begun: list[float], overlap: str, mock_clock: MockClock
) -> None:
    call = Calls()
    async with working(scheduled(call, every=10, missed=missed, overlap=overlap)):
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(39)  # the event loop was blocked
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
    assert call.begun == begun


async def test_what_falls_due_during_a_call_is_skipped_and_not_made_up_for(
    mock_clock: MockClock,
) -> None:
    call = Calls(0, 15, 0)  # the first of those that were missed takes longer than a period
    async with working(scheduled(call, every=10, missed="all")) as watched:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(35)
        for _ in range(30):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1)
        skipped = statistics_of(watched).skipped
    # 10, 20 and 30 were missed; 40 fell due while the first of these was made up for, 50 did not.
    assert call.begun == [0, 35, 50, 50, 50, 60]
    assert skipped == 1


# -- statistics --------------------------------------------------------------------------------


async def test_statistics_tell_of_the_last_call_and_the_next(autojump_clock: MockClock) -> None:
    call = Calls(2, 3)
    async with working(scheduled(call, every=10, start=5)) as watched:
        await trio.sleep(1)
        books = statistics_of(watched)
        assert (books.next, books.began, books.ended, books.outcome) == (5, None, None, None)
        await trio.sleep(5)
        books = statistics_of(watched)
        assert (books.began, books.ended, books.running) == (5, None, 1)
        await trio.sleep(2)
        books = statistics_of(watched)
        assert (books.next, books.began, books.ended) == (15, 5, 7)
        assert (books.outcome, books.running, books.done) == (Outcome.DONE, 0, 1)
        await trio.sleep(20)
        books = statistics_of(watched)
        assert (books.next, books.began, books.done) == (35, 25, 3)
        assert (books.lateness.count, books.lateness.total) == (3, 0)
        assert (books.durations.count, books.durations.total) == (3, 5)


async def test_statistics_tell_when_the_next_time_of_day_is(autojump_clock: MockClock) -> None:
    with wall_clock(datetime(2026, 1, 5, 12, 0, tzinfo=UTC)):
        async with working(scheduled(Calls(), cron="0 3 * * *")) as watched:
            await trio.sleep(3600)
            assert statistics_of(watched).next == pytest.approx(
                timedelta(hours=15).total_seconds(), abs=0.01
            )


async def test_statistics_count_what_is_skipped_dead_and_late(mock_clock: MockClock) -> None:
    failing = True

    async def call() -> None:
        await trio.lowlevel.checkpoint()
        if failing:
            raise ValueError

    async with working(scheduled(call, every=10)) as watched:
        await trio.testing.wait_all_tasks_blocked()
        books = statistics_of(watched)
        assert (books.dead, books.outcome) == (1, Outcome.DEAD)
        failing = False
        mock_clock.jump(14)
        await trio.testing.wait_all_tasks_blocked()
        books = statistics_of(watched)
        assert (books.done, books.outcome) == (1, Outcome.DONE)
        assert books.lateness.total == 4


# -- wrong combinations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "either every= or cron="),
        ({"every": 1, "cron": "* * * * *"}, "either every= or cron="),
        ({"every": 1, "timezone": "UTC"}, "timezone goes with cron="),
        ({"cron": "* * * * *", "start": 1}, "start goes with every="),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"cron": "0 0 31 2 *"}, "31"),
        ({"cron": ""}, "cron"),
        ({"cron": "* * * * *", "jitter": -1}, "jitter"),
        ({"every": 1, "overlap": "twice"}, "overlap"),
        ({"every": 1, "missed": "never"}, "missed"),
    ],
)
def test_wrong_combination_is_refused(options: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Schedule(Calls(), **options)  # type: ignore[arg-type]

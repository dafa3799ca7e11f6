from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from trio_services.lifecycle import State, events
from trio_services.queues import Discard, Schedule, current_job
from trio_services.resilience import Backoff, Retry
from trio_services.supervision import Child

from .working import working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


class Calls:
    """A call that says how long it takes each time, and knows when it was made and has ended."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.begun: list[float] = []
        self.ended: list[float] = []

    async def __call__(self) -> None:
        self.begun.append(trio.current_time())
        await trio.sleep(self.seconds.pop(0) if self.seconds else 0)
        self.ended.append(trio.current_time())


def scheduled(call: Callable[[], Awaitable[object]], **options: object) -> Child:
    return Child(Schedule(call, **options), name="schedule")  # type: ignore[arg-type]


async def test_call_is_made_at_once_and_then_on_the_grid(autojump_clock: MockClock) -> None:
    call = Calls(1, 2, 3, 4, 5)
    async with working(scheduled(call, every=10)):
        await trio.sleep(45)
    assert call.begun == [0, 10, 20, 30, 40]


async def test_grid_does_not_drift_in_a_week(autojump_clock: MockClock) -> None:
    call = Calls(*[17] * 2016)
    async with working(scheduled(call, every=300)):
        await trio.sleep(7 * 24 * 3600)
    assert call.begun[:2016] == [300 * n for n in range(2016)]


async def test_first_call_is_made_after_its_start(autojump_clock: MockClock) -> None:
    call = Calls()
    async with working(scheduled(call, every=10, start=4)):
        await trio.sleep(25)
    assert call.begun == [4, 14, 24]


async def test_jitter_keeps_the_grid(autojump_clock: MockClock) -> None:
    call = Calls()
    async with working(scheduled(call, every=10, jitter=2)):
        await trio.sleep(995)
    assert len(call.begun) == 100
    late = [when - 10 * n for n, when in enumerate(call.begun)]
    assert 0 <= min(late) < max(late) <= 2


async def test_schedule_is_ready_before_its_first_call(autojump_clock: MockClock) -> None:
    call = Calls()
    async with working(scheduled(call, every=10, start=5)) as watched:
        assert watched.tree.life.children["schedule"].state is State.RUNNING
        assert trio.current_time() == 0


async def test_calls_do_not_overlap_and_missed_ones_coalesce(autojump_clock: MockClock) -> None:
    call = Calls(35)
    async with working(scheduled(call, every=10)):
        await trio.sleep(65)
    # Three places on the grid have passed while the first call was made.
    assert len([when for when in call.begun if 0 < when < 40]) <= 1
    assert [when for when in call.begun if when >= 40] == [40, 50, 60]
    assert all(end <= begin for end, begin in zip(call.ended, call.begun[1:], strict=False))


async def test_call_longer_than_its_period_delays_the_next_to_a_place_on_the_grid(
    autojump_clock: MockClock,
) -> None:
    # As the docstring says; and `overlap="skip"` is the contract's default.
    call = Calls(15, 15, 15)
    async with working(scheduled(call, every=10)):
        await trio.sleep(58)
    assert call.begun == [0, 20, 40]


@pytest.mark.parametrize("period", [0.1, 0.7, 1.1])
async def test_call_that_takes_exactly_its_period_delays_nothing(
    period: float, autojump_clock: MockClock
) -> None:
    call = Calls(*[period] * 100)
    async with working(scheduled(call, every=period)):
        await trio.sleep(99.5 * period)
    assert [round(when / period) for when in call.begun] == list(range(100))


async def test_failing_call_does_not_end_the_schedule(autojump_clock: MockClock) -> None:
    made: list[float] = []

    async def call() -> None:
        await trio.lowlevel.checkpoint()
        made.append(trio.current_time())
        raise ValueError("broken")

    async with working(scheduled(call, every=10)) as watched:
        await trio.sleep(25)
    assert made == [0, 10, 20]
    dead = watched.of(events.JobDead)
    assert [(event.job, event.attempts, event.failure.message) for event in dead] == [
        ("app/schedule#1", 1, "broken"),
        ("app/schedule#2", 1, "broken"),
        ("app/schedule#3", 1, "broken"),
    ]
    assert watched.of(events.ServiceFailed) == []


async def test_discarding_call_is_no_failure(autojump_clock: MockClock) -> None:
    async def call() -> None:
        await trio.lowlevel.checkpoint()
        raise Discard("nothing to report")

    async with working(scheduled(call, every=10)) as watched:
        await trio.sleep(25)
    assert watched.of(events.JobDead) == []


async def test_call_that_takes_too_long_is_cancelled(autojump_clock: MockClock) -> None:
    call = Calls(50)
    async with working(scheduled(call, every=10, timeout=3)) as watched:
        await trio.sleep(15)
    assert call.begun == [0, 10]
    assert call.ended == [10]
    [dead] = watched.of(events.JobDead)
    assert (dead.failure.type, dead.at) == ("TimedOut", 3)


async def test_failed_call_is_tried_again_within_its_period(autojump_clock: MockClock) -> None:
    made: list[float] = []

    async def call() -> None:
        await trio.lowlevel.checkpoint()
        made.append(trio.current_time())
        if len(made) < 3:
            raise OSError

    retry = Retry(backoff=Backoff(initial=1, factor=2, jitter=0))
    async with working(scheduled(call, every=10, retry=retry)) as watched:
        await trio.sleep(15)
    assert made == [0, 1, 3, 10]
    assert [event.delay for event in watched.of(events.JobRetrying)] == [1, 2]


async def test_each_call_is_a_job_of_its_own(autojump_clock: MockClock) -> None:
    jobs: list[str] = []

    async def call() -> None:
        await trio.lowlevel.checkpoint()
        job = current_job.get()
        assert job is not None
        jobs.append(job.id)

    async with working(scheduled(call, every=10)):
        await trio.sleep(25)
    assert jobs == ["app/schedule#1", "app/schedule#2", "app/schedule#3"]


async def test_lines_after_a_call_are_not_about_its_job(autojump_clock: MockClock) -> None:
    stopping: list[object] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.ServiceStopped):
            stopping.append(current_job.get())

    async with working(scheduled(Calls(), every=10)) as watched:
        with watched.tree.bus.listening(listen):
            await trio.sleep(5)
            await watched.tree.stop("schedule")
    assert stopping == [None]


# -- stopping ---------------------------------------------------------------------------


async def test_stop_finishes_the_call_in_hand_and_makes_no_other(
    autojump_clock: MockClock,
) -> None:
    call = Calls(8)
    async with working(scheduled(call, every=1)):
        await trio.sleep(3)
    assert (call.begun, call.ended) == ([0], [8])
    assert trio.current_time() == 8


async def test_call_in_hand_is_cut_at_the_deadline(autojump_clock: MockClock) -> None:
    call = Calls(80)
    async with working(scheduled(call, every=1), stop_within=10):
        await trio.sleep(3)
    assert (call.begun, call.ended) == ([0], [])
    assert trio.current_time() == 13


async def test_stop_between_two_calls_is_immediate(autojump_clock: MockClock) -> None:
    call = Calls()
    async with working(scheduled(call, every=10)) as watched:
        await trio.sleep(3)
    assert trio.current_time() == 3
    assert watched.tree.life.children["schedule"].state is State.STOPPED


async def test_call_that_waits_for_its_next_attempt_is_given_up_by_a_stop(
    autojump_clock: MockClock,
) -> None:
    async def call() -> None:
        await trio.lowlevel.checkpoint()
        raise OSError

    retry = Retry(backoff=Backoff(initial=5, jitter=0))
    async with working(scheduled(call, every=10, retry=retry)) as watched:
        await trio.sleep(3)
    assert trio.current_time() == 3
    assert watched.of(events.JobDead) == []


# -- validation -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"every": -1},
        {"every": math.nan},
        {"every": math.inf},
        {"every": 1, "start": -1},
        {"every": 1, "jitter": 1},
        {"every": 1, "timeout": 0},
        {"every": 1, "timeout": math.nan},
    ],
)
def test_wrong_times_are_refused_when_the_schedule_is_made(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"period|start|jitter|timeout"):
        Schedule(Calls(), **options)  # type: ignore[arg-type]


def test_schedule_is_named_after_its_call() -> None:
    async def report() -> None: ...

    assert Schedule(report, every=1).name == "report"


def test_schedule_is_a_value() -> None:
    call = Calls()
    schedule = Schedule(call, every=1)
    with pytest.raises(AttributeError):
        schedule.every = 2  # type: ignore[misc]
    assert schedule == Schedule(call, every=1)

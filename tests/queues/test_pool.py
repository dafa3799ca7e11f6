"""What a pool can do beside running a handler: retry later, fall back, be resized, give away."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.errors import BreakerOpen
from trio_services.lifecycle import State, events
from trio_services.queues import Discard, Pool, RetryLater, Workers, WorkQueue, current_job
from trio_services.resilience import Backoff, Breaker, BreakerState, Retry
from trio_services.supervision import Child

from .working import ends, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from .working import Watched

EXACT = Backoff(initial=1, factor=2, cap=60, jitter=0)


def filled(*items: int, capacity: int = 100) -> WorkQueue[int]:
    queue = WorkQueue[int]("numbers", capacity=capacity)
    for item in items:
        queue.put_nowait(item)
    return queue


def pool_of(watched: Watched, name: str) -> Pool[int]:
    return cast("Pool[int]", watched.tree.life.children[name].at_work)


# -- retry later --------------------------------------------------------------------------


async def test_handler_says_when_it_wants_an_item_again(autojump_clock: MockClock) -> None:
    queue = filled(1)
    entered: list[tuple[float, int]] = []

    async def handle(item: int) -> None:
        job = current_job.get()
        assert job is not None
        entered.append((trio.current_time(), job.attempt))
        await trio.lowlevel.checkpoint()
        if len(entered) < 4:
            raise RetryLater(10)

    async with working(Workers(queue, handle)) as watched:  # it has no `retry`
        await trio.sleep(100)
    assert entered == [(0, 1), (10, 2), (20, 3), (30, 4)]
    assert ends(queue.statistics()) == {"done": 1}
    assert queue.statistics().retried == 3
    assert watched.of(events.JobRetrying) == []  # nothing failed


async def test_to_want_an_item_later_uses_up_no_attempt(autojump_clock: MockClock) -> None:
    queue = filled(1)
    raising: list[Exception] = [RetryLater(1), OSError(), RetryLater(1), OSError("second")]

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise raising.pop(0)

    async with working(Workers(queue, handle, retry=Retry(2, EXACT))) as watched:
        await trio.sleep(100)
    (dead,) = watched.of(events.JobDead)
    assert (dead.attempts, dead.failure.message) == (4, "second")
    assert raising == []


@pytest.mark.parametrize("delay", [-1.0, float("inf"), float("nan")])
def test_delay_that_cannot_be_is_refused(delay: float) -> None:
    with pytest.raises(ValueError, match="delay must be at least 0 s and finite"):
        RetryLater(delay)


# -- what is dead --------------------------------------------------------------------------


async def test_dead_letter_tells_the_history_of_its_attempts(autojump_clock: MockClock) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        job = current_job.get()
        assert job is not None
        await trio.lowlevel.checkpoint()
        raise OSError(f"attempt {job.attempt}")

    async with working(Workers(queue, handle, retry=Retry(3, EXACT))):
        await trio.sleep(100)
    (letter,) = queue.dead_letters()
    assert (letter.source, letter.job, letter.item, letter.attempts) == (
        "numbers",
        "numbers#1",
        1,
        3,
    )
    assert [failure.message for failure in letter.failures] == [
        "attempt 1",
        "attempt 2",
        "attempt 3",
    ]
    assert [failure.at for failure in letter.failures] == [0, 1, 3]


async def test_fallback_makes_a_failed_item_done(autojump_clock: MockClock) -> None:
    queue = filled(1, 2)
    fell_back: list[tuple[int, str]] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError(f"no {item}")

    async def fall_back(item: int, error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        if item == 2:
            raise ValueError("nor that")
        fell_back.append((item, str(error)))

    async with working(Workers(queue, handle, fallback=fall_back)) as watched:
        await trio.sleep(1)
    assert fell_back == [(1, "no 1")]
    assert ends(queue.statistics()) == {"done": 1, "dead": 1}
    assert [event.failure.message for event in watched.of(events.JobFellBack)] == ["no 1"]
    (letter,) = queue.dead_letters()
    assert [failure.message for failure in letter.failures] == ["no 2", "nor that"]


async def test_fallback_that_is_interrupted_by_a_stop_returns_its_item(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError

    async def fall_back(item: int, error: Exception) -> None:
        await trio.sleep(1000)

    async with working(Workers(queue, handle, fallback=fall_back), stop_within=3):
        await trio.sleep(1)
    assert trio.current_time() == 4
    assert ends(queue.statistics()) == {"returned": 1}


# -- the number of workers -------------------------------------------------------------------


async def test_pool_can_be_given_more_workers(autojump_clock: MockClock) -> None:
    queue = filled(*[10] * 6)
    async with working(Workers(queue, trio.sleep, count=2)) as watched:
        await trio.sleep(1)
        pool = pool_of(watched, "sleep")
        assert (pool.statistics().count, pool.statistics().busy) == (2, 2)
        pool.resize(5)
        await trio.sleep(1)
        assert (pool.statistics().count, pool.statistics().busy) == (5, 5)
        await trio.sleep(100)
        assert (pool.statistics().count, pool.statistics().busy) == (5, 0)
    assert ends(queue.statistics()) == {"done": 6}


async def test_workers_too_many_finish_what_they_have_in_hand(autojump_clock: MockClock) -> None:
    queue = filled(*[10] * 6)
    async with working(Workers(queue, trio.sleep, count=4)) as watched:
        await trio.sleep(1)
        pool = pool_of(watched, "sleep")
        pool.resize(1)
        await trio.sleep(5)
        assert pool.statistics().busy == 1  # of those that stay; three more are still at it
        assert queue.statistics().in_hand == 4
        await trio.sleep(5)
        assert queue.statistics().in_hand == 1
        await trio.sleep(100)
    assert ends(queue.statistics()) == {"done": 6}


async def test_idle_workers_that_are_too_many_end_at_once(autojump_clock: MockClock) -> None:
    queue = filled()
    async with working(Workers(queue, trio.sleep, count=4)) as watched:
        await wait_all_tasks_blocked()
        pool = pool_of(watched, "sleep")
        pool.resize(1)
        await wait_all_tasks_blocked()
        task = watched.tree.life.children["sleep"].task
        assert task is not None
        (names,) = [one.tasks for one in watched.tree.statistics().children]
        assert len([name for name in names if "_work" in name]) == 1
        queue.put_nowait(1)
        await trio.sleep(2)
    assert ends(queue.statistics()) == {"done": 1}


async def test_item_for_a_worker_that_is_dismissed_goes_to_another(
    autojump_clock: MockClock,
) -> None:
    queue = filled()
    async with working(Workers(queue, trio.sleep, count=3)) as watched:
        await wait_all_tasks_blocked()
        for _ in range(3):
            queue.put_nowait(1)  # wakes a worker, which has not looked yet
        pool_of(watched, "sleep").resize(1)
        await trio.sleep(1.5)
        assert ends(queue.statistics()) == {"depth": 1, "in_hand": 1, "done": 1}
        await trio.sleep(10)
    assert ends(queue.statistics()) == {"done": 3}


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
async def test_number_of_workers_that_cannot_be_is_refused(
    count: int, autojump_clock: MockClock
) -> None:
    async with working(Workers(filled(), trio.sleep)) as watched:
        await wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="the number of workers must be a whole number ≥ 1"):
            pool_of(watched, "sleep").resize(count)


async def test_pool_tells_how_long_attempts_took(autojump_clock: MockClock) -> None:
    queue = filled(0, 1, 2, 400)
    async with working(Workers(queue, trio.sleep, count=4)) as watched:
        pool = pool_of(watched, "sleep")
        await trio.sleep(500)
        durations = pool.statistics().durations
        assert durations.count == 4
        assert durations.total == 403
        assert durations.counts[0] == 1  # up to 1 ms
        assert durations.counts[-1] == 1  # more than 300 s


# -- what is left ----------------------------------------------------------------------------


async def test_what_is_left_at_a_stop_is_offered(autojump_clock: MockClock) -> None:
    queue = filled(5, 6, 7)
    offered: list[int] = []

    async def keep(item: int) -> None:
        await trio.sleep(1)
        offered.append(item)

    async with working(Workers(queue, trio.sleep, on_left=keep)):
        await trio.sleep(1)
    assert offered == [6, 7]
    assert ends(queue.statistics()) == {"done": 1, "left": 2}


async def test_what_a_stop_interrupts_between_attempts_is_offered_too(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5, 6)
    offered: list[int] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError

    async def keep(item: int) -> None:
        await trio.lowlevel.checkpoint()
        offered.append(item)

    workers = Workers(queue, handle, retry=Retry(5, Backoff(100)), on_left=keep)
    async with working(workers):
        await trio.sleep(1)
    assert offered == [5, 6]
    assert ends(queue.statistics()) == {"returned": 1, "left": 1}


async def test_what_there_is_no_time_to_offer_is_left_all_the_same(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2, 3, 4)
    offered: list[int] = []

    async def keep(item: int) -> None:
        await trio.sleep(2)
        offered.append(item)

    queue.pause()
    async with working(Workers(queue, trio.sleep, on_left=keep), stop_within=5):
        await trio.sleep(1)
    assert offered == [1, 2]
    assert trio.current_time() == 6
    assert ends(queue.statistics()) == {"left": 4}


async def test_all_is_offered_even_if_some_of_it_is_not_taken(autojump_clock: MockClock) -> None:
    queue = filled(1, 2, 3)
    queue.pause()
    offered: list[int] = []

    async def keep(item: int) -> None:
        await trio.lowlevel.checkpoint()
        offered.append(item)
        if item == 2:
            raise OSError("disk full")

    with pytest.raises(Exception, match="disk full"):
        async with working(Workers(queue, trio.sleep, on_left=keep)):
            await trio.sleep(1)
    assert offered == [1, 2, 3]


async def test_nothing_is_offered_when_the_workers_are_started_again(
    autojump_clock: MockClock,
) -> None:
    queue = filled(100, 2, 3)
    offered: list[int] = []

    async def keep(item: int) -> None:
        await trio.lowlevel.checkpoint()
        offered.append(item)

    async with working(
        Child(Workers(queue, trio.sleep, on_left=keep), name="pool", stop_within=1)
    ) as watched:
        await trio.sleep(1)
        await watched.tree.restart("pool")
        assert offered == []
        await trio.sleep(100)
    assert ends(queue.statistics()) == {"returned": 1, "done": 2}


# -- draining, and chains ----------------------------------------------------------------------


async def test_pool_that_drains_finishes_what_waits_at_a_stop(autojump_clock: MockClock) -> None:
    queue = filled(1, 2, 3, 4)
    async with working(Workers(queue, trio.sleep, drain=True)):
        await trio.sleep(0.5)
    assert trio.current_time() == 10
    assert ends(queue.statistics()) == {"done": 4}


async def test_pool_that_drains_waits_for_further_attempts_at_a_stop(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2)
    failing = {1, 2}

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        if item in failing:
            failing.remove(item)
            raise OSError

    async with working(Workers(queue, handle, retry=Retry(2, EXACT), drain=True)):
        await trio.sleep(0.5)
    assert ends(queue.statistics()) == {"done": 2}


async def test_draining_ends_with_the_deadline(autojump_clock: MockClock) -> None:
    queue = filled(2, 2, 2, 2)
    async with working(Workers(queue, trio.sleep, drain=True), stop_within=4):
        await trio.sleep(1)
    assert trio.current_time() == 5
    assert ends(queue.statistics()) == {"done": 2, "returned": 1, "left": 1}


async def test_closing_the_first_queue_of_a_chain_drains_all_of_it(
    autojump_clock: MockClock,
) -> None:
    first, second, third = (WorkQueue[int](name, capacity=2) for name in ("a", "b", "c"))
    arrived: list[int] = []

    def passing_to(queue: WorkQueue[int]) -> Callable[[int], object]:
        async def handle(item: int) -> None:
            await trio.sleep(0.5)
            await queue.put(item)

        return handle

    async def arrive(item: int) -> None:
        await trio.sleep(1)
        arrived.append(item)

    chain = [
        Child(Workers(third, arrive), name="third"),
        Child(Workers(second, passing_to(third), feeds=third), name="second", after=["third"]),
        Child(Workers(first, passing_to(second), feeds=[second]), name="first", after=["second"]),
    ]
    async with working(*chain) as watched:
        for item in range(20):
            await first.put(item)
        assert trio.current_time() > 10  # as slow as the last: the queues between are bounded
        first.close()
        await trio.sleep(30)
        assert {life.state for life in watched.tree.life.children.values()} == {State.DONE}
    assert arrived == list(range(20))
    for queue in (first, second, third):
        assert ends(queue.statistics()) == {"done": 20}


async def test_queue_that_several_feed_is_closed_when_the_last_has_ended(
    autojump_clock: MockClock,
) -> None:
    ahead, behind, after = (WorkQueue[int](name) for name in ("ahead", "behind", "after"))

    async def handle(item: int) -> None:
        await trio.sleep(item)
        await after.put(item)

    children = [
        Child(Workers(after, trio.sleep), name="after"),
        Child(Workers(ahead, handle, feeds=after), name="ahead", after=["after"]),
        Child(Workers(behind, handle, feeds=after), name="behind", after=["after"]),
    ]
    async with working(*children) as watched:
        ahead.put_nowait(1)
        behind.put_nowait(5)
        ahead.close()
        behind.close()
        life = watched.tree.life.children["after"]
        await trio.sleep(3)
        before = life.state
        await trio.sleep(100)
        assert (before, life.state) == (State.RUNNING, State.DONE)
    assert ends(after.statistics()) == {"done": 2}


async def test_chain_that_drains_at_a_stop_loses_nothing(autojump_clock: MockClock) -> None:
    first, second = WorkQueue[int]("first"), WorkQueue[int]("second", capacity=1)
    arrived: list[int] = []

    async def handle(item: int) -> None:
        await second.put(item)

    async def arrive(item: int) -> None:
        await trio.sleep(0.25)
        arrived.append(item)

    children = [
        Child(Workers(second, arrive, drain=True), name="second"),
        Child(Workers(first, handle, count=3, drain=True), name="first", after=["second"]),
    ]
    async with working(*children):
        for item in range(10):
            first.put_nowait(item)
    assert sorted(arrived) == list(range(10))
    assert ends(first.statistics()) == ends(second.statistics()) == {"done": 10}


# -- the breaker -----------------------------------------------------------------------------

BREAKER = Breaker(failures=2, within=60, reset_after=10, cap=100, jitter=0)


class Flaky:
    """A handler that fails while `down`; remembers when it was entered."""

    def __init__(self) -> None:
        self.down = True
        self.entered: list[float] = []

    async def __call__(self, item: int) -> None:
        self.entered.append(trio.current_time())
        await trio.sleep(item)
        if self.down:
            raise OSError("down")


async def test_open_breaker_takes_nothing_from_the_queue_until_a_probe_is_due(
    autojump_clock: MockClock,
) -> None:
    queue = filled(*[0] * 8)
    flaky = Flaky()
    async with working(
        Child(Workers(queue, flaky, count=3, breaker=BREAKER), name="pool")
    ) as watched:
        await trio.sleep(9)
        opened = len(flaky.entered)
        assert 2 <= opened <= 4  # two more may have begun before the second failure
        assert queue.statistics().depth == 8 - opened
        assert pool_of(watched, "pool").statistics().breaker is BreakerState.OPEN
        await trio.sleep(2)
        assert flaky.entered[opened:] == [10]  # one probe
        await trio.sleep(18)
        assert flaky.entered[opened:] == [10]  # left alone for twice as long
        flaky.down = False
        await trio.sleep(2)
        assert flaky.entered[opened + 1 :] == [30] * (8 - opened - 1)
        assert pool_of(watched, "pool").statistics().breaker is BreakerState.CLOSED
    states = [
        type(event).__name__
        for event in watched.seen
        if isinstance(event, events.BreakerOpened | events.BreakerHalfOpened | events.BreakerClosed)
    ]
    assert states == [
        "BreakerOpened",
        "BreakerHalfOpened",
        "BreakerOpened",
        "BreakerHalfOpened",
        "BreakerClosed",
    ]


async def test_only_the_probe_decides(autojump_clock: MockClock) -> None:
    queue = filled(15, 0, 0)  # the first began before the breaker opened, and fails at 15
    flaky = Flaky()
    async with working(Child(Workers(queue, flaky, count=3, breaker=BREAKER), name="pool")) as w:
        await trio.sleep(9)
        flaky.down = False
        queue.put_nowait(20)  # the probe, from 10 to 30
        await trio.sleep(7)
        assert pool_of(w, "pool").statistics().breaker is BreakerState.HALF_OPEN
        flaky.down = True
        await trio.sleep(15)
        assert pool_of(w, "pool").statistics().breaker is BreakerState.OPEN


async def test_failure_that_no_attempt_can_mend_does_not_count_for_the_breaker(
    autojump_clock: MockClock,
) -> None:
    queue = filled(*range(10))

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("malformed") if item % 3 else Discard

    workers = Workers(queue, handle, breaker=BREAKER, retry=Retry(on=OSError))
    async with working(Child(workers, name="pool")) as watched:
        await trio.sleep(1)
        assert pool_of(watched, "pool").statistics().breaker is BreakerState.CLOSED
    assert ends(queue.statistics()) == {"dead": 6, "discarded": 4}


async def test_breaker_holds_back_further_attempts_too(autojump_clock: MockClock) -> None:
    queue = filled(0)
    flaky = Flaky()
    workers = Workers(queue, flaky, breaker=BREAKER, retry=Retry(5, EXACT))
    async with working(Child(workers, name="pool")):
        await trio.sleep(10.5)
        flaky.down = False
        await trio.sleep(50)
    assert flaky.entered == [0, 1, 11]
    assert ends(queue.statistics()) == {"done": 1}


async def test_stop_while_the_breaker_is_open_leaves_what_waits(autojump_clock: MockClock) -> None:
    queue = filled(*[0] * 5)
    async with working(Child(Workers(queue, Flaky(), breaker=BREAKER), name="pool")):
        await trio.sleep(5)
    assert trio.current_time() == 5
    assert ends(queue.statistics()) == {"dead": 2, "left": 3}


async def test_worker_that_leaves_lets_another_probe(autojump_clock: MockClock) -> None:
    queue = filled(0, 0)
    flaky = Flaky()
    async with working(
        Child(Workers(queue, flaky, count=3, breaker=BREAKER), name="pool")
    ) as watched:
        await trio.sleep(11)  # one waits for an item to probe with
        pool = pool_of(watched, "pool")
        flaky.down = False
        for count in (2, 1):
            pool.resize(count)
            await trio.sleep(1)
        queue.put_nowait(0)
        await trio.sleep(1)
        assert pool.statistics().breaker is BreakerState.CLOSED
    assert ends(queue.statistics()) == {"dead": 2, "done": 1}


async def test_breaker_that_gives_up_fails_the_workers(autojump_clock: MockClock) -> None:
    queue = filled(*[0] * 9)
    breaker = Breaker(
        failures=1, within=60, reset_after=10, cap=10, jitter=0, give_up_after=2, healthy_after=0
    )
    child = Child(
        Workers(queue, Flaky(), breaker=breaker), name="pool", restart="never", critical=False
    )
    async with working(child) as watched:
        await trio.sleep(100)
    (failed,) = watched.of(events.ServiceFailed)
    assert isinstance(failed.error, BreakerOpen)
    assert str(failed.error) == (
        "the breaker of app/pool opened 2 times in a row, and its last probe failed too"
    )
    assert ends(queue.statistics()) == {"dead": 3, "left": 6}

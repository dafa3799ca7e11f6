from __future__ import annotations

import asyncio
import gc
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.errors import QueueClosed, RestartLimitExceeded, StopFailed, TimedOut
from trio_services.lifecycle import Bus, State, current_service, events, graceful
from trio_services.queues import Discard, Workers, WorkQueue, current_job
from trio_services.resilience import Backoff, Retry
from trio_services.supervision import Child, Limit, Supervisor, open_supervisor

from .working import ends, working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from trio.testing import MockClock

EXACT = Backoff(initial=1, factor=2, cap=60, jitter=0)


def filled(*items: int, capacity: int = 100) -> WorkQueue[int]:
    queue = WorkQueue[int]("numbers", capacity=capacity)
    for item in items:
        queue.put_nowait(item)
    return queue


async def sleeps(seconds: float) -> None:
    """A handler for items that say how long they take."""
    await trio.sleep(seconds)


class Now:
    """Something to await that is there: the scheduler gets no turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


# -- working ----------------------------------------------------------------------------


async def test_each_item_is_handled_once(autojump_clock: MockClock) -> None:
    queue = filled(*range(50))
    handled: list[int] = []

    async def handle(item: int) -> None:
        await trio.sleep(1)
        handled.append(item)

    async with working(Workers(queue, handle, count=7)):
        await trio.sleep(100)
    assert sorted(handled) == list(range(50))
    assert ends(queue.statistics()) == {"done": 50}


@pytest.mark.parametrize("count", [1, 3, 8])
async def test_as_many_items_are_in_hand_as_there_are_workers(
    count: int, autojump_clock: MockClock
) -> None:
    queue = filled(*range(20))
    now = most = 0

    async def handle(item: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        assert queue.statistics().in_hand >= now
        await trio.sleep(1)
        now -= 1

    async with working(Workers(queue, handle, count=count)):
        await trio.sleep(0.5)
        assert queue.statistics().in_hand == now == count
        await trio.sleep(100)
    assert most == count


async def test_workers_are_ready_when_they_wait_for_items(autojump_clock: MockClock) -> None:
    queue = filled()
    async with working(Workers(queue, sleeps, count=3)) as watched:
        assert watched.tree.life.children["sleeps"].state is State.RUNNING


def test_workers_are_named_after_their_handler() -> None:
    assert Workers(WorkQueue[int]("numbers"), sleeps).name == "sleeps"


async def test_workers_of_a_closed_queue_end_when_it_is_empty(autojump_clock: MockClock) -> None:
    queue = filled(3, 4, 5)
    queue.close()
    async with working(Workers(queue, sleeps, count=2)) as watched:
        life = watched.tree.life.children["sleeps"]
        await trio.sleep(7.5)
        before = life.state
        await trio.sleep(1)
        assert (before, life.state) == (State.RUNNING, State.DONE)
    assert ends(queue.statistics()) == {"done": 3}


async def test_waiting_workers_end_when_the_queue_is_closed(autojump_clock: MockClock) -> None:
    queue = filled()
    async with working(Workers(queue, sleeps, count=3)) as watched:
        await wait_all_tasks_blocked()
        queue.close()
        await wait_all_tasks_blocked()
        assert watched.tree.life.children["sleeps"].state is State.DONE


async def test_closed_and_drained_queue_makes_a_finished_batch_job(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2, 3)
    queue.close()
    batch = Supervisor("batch", [Workers(queue, sleeps)])
    async with open_supervisor(Supervisor("app", [batch])) as tree:
        await trio.sleep(100)
        assert tree.life.children["batch"].state is State.DONE


async def test_handler_that_never_waits_does_not_keep_others_from_running() -> None:
    queue = filled(*range(10_000), capacity=10_000)
    handled = 0

    async def handle(item: int) -> None:
        nonlocal handled
        handled += 1
        await Now()

    turns: list[int] = []
    async with working(Workers(queue, handle)):
        while handled < 10_000:
            await trio.lowlevel.checkpoint()
            turns.append(handled)
    assert max(after - before for before, after in pairwise(turns)) <= 1000


async def test_handler_that_never_waits_does_not_hold_up_a_stop() -> None:
    queue = filled(*range(10_000), capacity=10_000)

    async def handle(item: int) -> None:
        if item == 50:
            current_service().request_stop(10)
        await Now()

    async with working(Workers(queue, handle)):
        await wait_all_tasks_blocked()
    assert ends(queue.statistics()) == {"done": 51, "left": 9949}


# -- outcomes ---------------------------------------------------------------------------


async def test_discarded_item_is_neither_done_nor_dead_nor_tried_again(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)
    attempts = 0

    async def handle(item: int) -> None:
        nonlocal attempts
        await trio.lowlevel.checkpoint()
        attempts += 1
        raise Discard("nothing to do")

    async with working(Workers(queue, handle, retry=Retry(backoff=EXACT))):
        await trio.sleep(100)
    assert attempts == 1
    assert ends(queue.statistics()) == {"discarded": 1}
    assert queue.dead_letters() == ()


async def test_item_that_fails_is_a_dead_letter_and_the_next_is_handled(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2)

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        if item == 1:
            raise ValueError("broken")

    async with working(Workers(queue, handle)) as watched:
        await trio.sleep(1)
    [letter] = queue.dead_letters()
    assert (letter.job, letter.item, letter.attempts) == ("numbers#1", 1, 1)
    assert (letter.failure.type, letter.failure.message) == ("ValueError", "broken")
    assert letter.failure.where.endswith(" in handle")
    assert ends(queue.statistics()) == {"done": 1, "dead": 1}
    assert watched.of(events.ServiceFailed) == []
    assert watched.of(events.DeadLetterKept) == []


async def test_dead_job_is_published(autojump_clock: MockClock) -> None:
    queue = filled(7)
    broken = ValueError("broken")

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise broken

    async with working(Workers(queue, handle, retry=Retry(attempts=3, backoff=EXACT))) as watched:
        await trio.sleep(100)
    [dead] = watched.of(events.JobDead)
    assert (dead.service, dead.source, dead.job) == ("app/handle", "numbers", "numbers#1")
    assert (dead.attempts, dead.item, dead.failure.message) == (3, 7, "broken")
    assert dead.error is broken


async def test_item_that_takes_too_long_is_cancelled_retried_and_then_dead(
    autojump_clock: MockClock,
) -> None:
    queue = filled(50)
    begun: list[float] = []

    async def handle(item: int) -> None:
        begun.append(trio.current_time())
        await trio.sleep(item)

    workers = Workers(queue, handle, timeout=5, retry=Retry(attempts=3, backoff=EXACT))
    async with working(workers) as watched:
        await trio.sleep(100)
    assert begun == [0, 6, 13]
    [letter] = queue.dead_letters()
    assert letter.failure.type == "TimedOut"
    assert letter.failure.where.endswith(" in handle")
    [dead] = watched.of(events.JobDead)
    assert isinstance(dead.error, TimedOut)
    assert ends(queue.statistics()) == {"dead": 1}


async def test_time_out_is_for_each_attempt(autojump_clock: MockClock) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        job = current_job.get()
        assert job is not None
        await trio.sleep(4)
        if job.attempt < 3:
            raise OSError

    async with working(Workers(queue, handle, timeout=5, retry=Retry(backoff=EXACT))):
        await trio.sleep(100)
    assert ends(queue.statistics()) == {"done": 1}


async def test_failed_item_is_tried_again_after_its_backoff(autojump_clock: MockClock) -> None:
    queue = filled(1)
    begun: list[float] = []

    async def handle(item: int) -> None:
        begun.append(trio.current_time())
        await trio.sleep(1)
        if len(begun) < 4:
            raise OSError(f"attempt {len(begun)}")

    async with working(Workers(queue, handle, retry=Retry(backoff=EXACT))) as watched:
        await trio.sleep(100)
    assert begun == [0, 2, 5, 10]
    retrying = watched.of(events.JobRetrying)
    assert [(event.attempt, event.delay, event.failure.message) for event in retrying] == [
        (1, 1, "attempt 1"),
        (2, 2, "attempt 2"),
        (3, 4, "attempt 3"),
    ]
    assert {(event.source, event.job) for event in retrying} == {("numbers", "numbers#1")}
    assert ends(queue.statistics()) == {"done": 1}
    assert queue.statistics().retried == 3


async def test_further_attempts_are_counted_when_they_are_made(autojump_clock: MockClock) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        job = current_job.get()
        assert job is not None
        await trio.sleep(1)
        if job.attempt < 3:
            raise OSError

    async with working(Workers(queue, handle, retry=Retry(backoff=EXACT))):
        seen: list[int] = []
        for until in (0.5, 2.5, 5.5, 9):  # attempts begin at 0, 2 and 5 s
            await trio.sleep_until(until)
            seen.append(queue.statistics().retried)
    assert seen == [0, 1, 2, 2]


async def test_error_that_is_not_transient_is_final(autojump_clock: MockClock) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError

    async with working(Workers(queue, handle, retry=Retry(on=OSError, backoff=EXACT))) as watched:
        await trio.sleep(100)
    assert watched.of(events.JobRetrying) == []
    assert ends(queue.statistics()) == {"dead": 1}


async def test_item_in_its_retry_delay_keeps_its_worker(autojump_clock: MockClock) -> None:
    queue = filled(1, 2)
    begun: list[tuple[float, int]] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        begun.append((trio.current_time(), item))
        if len(begun) == 1:
            raise OSError

    async with working(Workers(queue, handle, retry=Retry(backoff=EXACT))):
        await trio.sleep(0.5)
        assert ends(queue.statistics()) == {"depth": 1, "in_hand": 1}
        await trio.sleep(10)
    assert begun == [(0, 1), (1, 1), (1, 2)]


async def test_end_of_somebody_else_s_channel_in_a_handler_is_a_failure_like_any_other(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2, 3)

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.EndOfChannel

    async with working(Workers(queue, handle)) as watched:
        await trio.sleep(1)
        assert watched.tree.life.children["handle"].state is State.RUNNING
    assert ends(queue.statistics()) == {"dead": 3}


async def test_time_out_of_the_handler_s_own_is_a_failure_like_any_other(
    autojump_clock: MockClock,
) -> None:
    queue = filled(50)

    async def handle(item: int) -> None:
        with trio.fail_after(2):
            await trio.sleep(item)

    async with working(Workers(queue, handle, timeout=5)):
        await trio.sleep(20)
    [letter] = queue.dead_letters()
    assert letter.failure.type == "TooSlowError"


async def test_errors_of_several_tasks_of_a_handler_are_one_failure(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)

    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("broken")

    async def handle(item: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            nursery.start_soon(trio.sleep_forever)

    async with working(Workers(queue, handle)) as watched:
        await trio.sleep(1)
    [letter] = queue.dead_letters()
    assert (letter.failure.type, letter.failure.message) == ("ValueError", "broken")
    assert watched.of(events.ServiceFailed) == []


async def test_item_discarded_by_a_task_of_its_handler_is_discarded(
    autojump_clock: MockClock,
) -> None:
    # A nursery puts whatever is raised inside of it into a group.
    queue = filled(1)

    async def handle(item: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise Discard("nothing to do")

    async with working(Workers(queue, handle)):
        await trio.sleep(1)
    assert ends(queue.statistics()) == {"discarded": 1}


@pytest.mark.parametrize("exit_", [KeyboardInterrupt, SystemExit])
async def test_exit_that_was_asked_for_beside_another_error_is_no_job_s_failure(
    exit_: type[BaseException], autojump_clock: MockClock
) -> None:
    queue = filled(1)

    async def cleans_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("broken clean-up")

    async def handle(item: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleans_up_badly)
            await trio.sleep(1)
            raise exit_

    with pytest.raises(exit_):
        async with working(Workers(queue, handle)):
            await trio.sleep(10)
    assert trio.current_time() == 1
    assert ends(queue.statistics()) == {"returned": 1}


async def test_foreign_library_s_own_cancellation_is_a_failure_like_any_other(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2)

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise asyncio.CancelledError

    async with working(Workers(queue, handle)) as watched:
        await trio.sleep(1)
    assert watched.of(events.ServiceFailed) == []
    assert ends(queue.statistics()) == {"dead": 2}


async def test_predicate_that_fails_makes_a_dead_letter_and_harms_no_other_item(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2)

    async def handle(item: int) -> None:
        await trio.sleep(item)
        if item == 1:
            raise ValueError("broken")

    def broken_predicate(error: Exception) -> bool:
        raise TypeError("broken predicate")

    workers = Workers(queue, handle, count=2, retry=Retry(on=broken_predicate))
    async with working(workers) as watched:
        await trio.sleep(10)
    assert watched.of(events.ServiceFailed) == []
    assert ends(queue.statistics()) == {"done": 1, "dead": 1}


def test_handler_that_is_not_async_is_refused() -> None:
    def handle(item: int) -> None:
        pass

    with pytest.raises(ValueError, match=r"handle is not async: define it with `async def`, or"):
        Workers(filled(1), handle)


async def test_handler_that_returns_nothing_to_await_makes_dead_letters(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)
    async with working(Workers(queue, lambda item: item)) as watched:
        await trio.sleep(1)
    assert watched.of(events.ServiceFailed) == []
    assert ends(queue.statistics()) == {"dead": 1}


# -- dead letters -----------------------------------------------------------------------


async def fails(item: int) -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError(f"broken {item}")


async def test_dead_letter_goes_to_on_dead_with_its_error(autojump_clock: MockClock) -> None:
    queue = filled(1, 2)
    taken: list[tuple[int, str]] = []

    async def on_dead(item: int, error: Exception) -> None:
        await trio.sleep(1)
        taken.append((item, str(error)))

    async with working(Workers(queue, fails, on_dead=on_dead)):
        await trio.sleep(0.5)
        assert ends(queue.statistics()) == {"depth": 1, "in_hand": 1}
        await trio.sleep(10)
    assert taken == [(1, "broken 1"), (2, "broken 2")]
    assert queue.dead_letters() == ()
    assert ends(queue.statistics()) == {"dead": 2}


async def test_dead_letter_that_on_dead_fails_to_take_is_kept_and_published(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)

    async def on_dead(item: int, error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("disk full")

    async with working(Workers(queue, fails, on_dead=on_dead)) as watched:
        await trio.sleep(1)
    [letter] = queue.dead_letters()
    assert (letter.item, letter.failure.message) == (1, "broken 1")
    [kept] = watched.of(events.DeadLetterKept)
    assert (kept.job, kept.item, kept.failure.message) == ("numbers#1", 1, "disk full")
    assert ends(queue.statistics()) == {"dead": 1}
    assert watched.of(events.ServiceFailed) == []


async def test_end_of_a_channel_in_on_dead_does_not_end_the_worker(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2)

    async def on_dead(item: int, error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.EndOfChannel

    async with working(Workers(queue, fails, on_dead=on_dead)):
        await trio.sleep(1)
    assert ends(queue.statistics()) == {"dead": 2}
    assert len(queue.dead_letters()) == 2


async def test_on_dead_may_finish_during_a_stop(autojump_clock: MockClock) -> None:
    queue = filled(1)
    taken: list[int] = []

    async def on_dead(item: int, error: Exception) -> None:
        await trio.sleep(5)
        taken.append(item)

    async with working(Workers(queue, fails, on_dead=on_dead)):
        await trio.sleep(1)
    assert taken == [1]
    assert ends(queue.statistics()) == {"dead": 1}


async def test_dead_letter_that_on_dead_had_no_time_to_take_is_kept(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)

    async def on_dead(item: int, error: Exception) -> None:
        await trio.sleep(50)

    async with working(Workers(queue, fails, on_dead=on_dead)) as watched:
        await trio.sleep(1)
    assert [letter.item for letter in queue.dead_letters()] == [1]
    # It was published as dead, so the accounts have to say that as well.
    assert len(watched.of(events.JobDead)) == 1
    assert ends(queue.statistics()) == {"dead": 1}


# -- stopping ---------------------------------------------------------------------------


async def test_item_in_hand_is_finished_and_the_rest_is_left(autojump_clock: MockClock) -> None:
    queue = filled(5, 5, 5, 5)
    async with working(Workers(queue, sleeps)):
        await trio.sleep(2)
    assert trio.current_time() == 5
    assert ends(queue.statistics()) == {"done": 1, "left": 3}


async def test_all_items_in_hand_are_finished(autojump_clock: MockClock) -> None:
    queue = filled(3, 4, 5, 6, 7)
    async with working(Workers(queue, sleeps, count=4)):
        await trio.sleep(1)
    assert trio.current_time() == 6
    assert ends(queue.statistics()) == {"done": 4, "left": 1}


async def test_item_still_in_hand_at_the_deadline_is_cut_and_returned(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5, 50, 50)
    async with working(Workers(queue, sleeps, count=2), stop_within=10):
        await trio.sleep(1)
    assert trio.current_time() == 11
    assert ends(queue.statistics()) == {"done": 1, "returned": 1, "left": 1}


async def test_item_that_is_cut_while_its_tasks_fail_is_returned_and_the_failure_told(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)

    async def cleans_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("broken clean-up")

    async def handle(item: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleans_up_badly)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(StopFailed, match="broken clean-up"):
        async with working(Workers(queue, handle, retry=Retry(backoff=EXACT)), stop_within=10):
            await trio.sleep(1)
    assert trio.current_time() == 11
    assert ends(queue.statistics()) == {"returned": 1}
    assert queue.dead_letters() == ()


async def test_idle_workers_are_stopped_at_once(autojump_clock: MockClock) -> None:
    queue = filled()
    async with working(Workers(queue, sleeps, count=4)):
        await trio.sleep(1)
    assert trio.current_time() == 1


async def test_item_in_its_retry_delay_is_returned_at_once(autojump_clock: MockClock) -> None:
    queue = filled(1)
    retry = Retry(backoff=Backoff(initial=5, jitter=0))
    async with working(Workers(queue, fails, retry=retry)):
        await trio.sleep(2)
    assert trio.current_time() == 2
    assert ends(queue.statistics()) == {"returned": 1}


async def test_item_that_fails_during_a_stop_is_not_tried_again(autojump_clock: MockClock) -> None:
    queue = filled(5)
    attempts = 0

    async def handle(item: int) -> None:
        nonlocal attempts
        attempts += 1
        await trio.sleep(item)
        raise OSError

    async with working(Workers(queue, handle, retry=Retry(backoff=Backoff(initial=0)))):
        await trio.sleep(2)
    assert attempts == 1
    assert ends(queue.statistics()) == {"returned": 1}


async def test_item_that_fails_for_good_during_a_stop_is_a_dead_letter(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5)

    async def handle(item: int) -> None:
        await trio.sleep(item)
        raise OSError

    async with working(Workers(queue, handle)):
        await trio.sleep(2)
    assert len(queue.dead_letters()) == 1
    assert ends(queue.statistics()) == {"dead": 1}


async def test_time_out_of_an_item_applies_during_a_stop(autojump_clock: MockClock) -> None:
    queue = filled(50)
    async with working(Workers(queue, sleeps, timeout=5)):
        await trio.sleep(2)
    assert trio.current_time() == 5
    assert ends(queue.statistics()) == {"dead": 1}


async def test_time_out_of_an_item_applies_to_a_region_that_its_handler_enters_during_a_stop(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        await trio.sleep(3)
        with graceful():
            await trio.sleep(50)

    async with working(Workers(queue, handle, timeout=5)):
        await trio.sleep(2)
    assert trio.current_time() == 5
    assert ends(queue.statistics()) == {"dead": 1}


async def test_item_that_comes_in_the_moment_of_the_stop_is_not_begun(
    autojump_clock: MockClock,
) -> None:
    queue = filled()
    async with working(Workers(queue, sleeps)) as watched:
        await wait_all_tasks_blocked()
        queue.put_nowait(5)
        watched.tree.life.children["sleeps"].request_stop(10)
    assert ends(queue.statistics()) == {"left": 1}


async def test_hard_cancellation_returns_what_is_in_hand(autojump_clock: MockClock) -> None:
    queue = filled(50, 50, 50)
    async with working(Workers(queue, sleeps, count=2)) as watched:
        await trio.sleep(1)
        watched.tree.cancel()
    assert trio.current_time() == 1
    assert ends(queue.statistics()) == {"returned": 2, "left": 1}


async def test_workers_that_are_stopped_before_they_begin_leave_everything(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2, 3)

    async def stopped() -> None:
        current_service().request_stop(10)
        await Workers(queue, sleeps, count=2).run()

    async with open_supervisor(Supervisor("app", [stopped])):
        await trio.sleep(20)
    assert ends(queue.statistics()) == {"left": 3}


async def test_item_put_by_a_handler_during_the_stop_is_left(autojump_clock: MockClock) -> None:
    queue = filled(1)

    async def handle(item: int) -> None:
        await trio.sleep(5)
        await queue.put(item + 1)

    async with working(Workers(queue, handle)):
        await trio.sleep(2)
    assert ends(queue.statistics()) == {"done": 1, "left": 1}


async def test_stop_closes_the_queue_and_wakes_blocked_producers(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5, capacity=1)
    refused: list[float] = []

    async def producer() -> None:
        await queue.put(5)
        with pytest.raises(QueueClosed):
            await queue.put(5)
        refused.append(trio.current_time())

    async with trio.open_nursery() as nursery, working(Workers(queue, sleeps)):
        nursery.start_soon(producer)
        await trio.sleep(2)
    assert refused == [5]
    assert ends(queue.statistics()) == {"done": 1, "left": 1}


@pytest.mark.parametrize("nested", [False, True])
async def test_producer_that_is_stopped_after_the_workers_is_refused_at_once(
    nested: bool, autojump_clock: MockClock
) -> None:
    queue = filled(5, capacity=1)
    refused: list[float] = []

    async def producer() -> None:
        with graceful():
            await queue.put(5)
            try:
                await queue.put(5)
            except QueueClosed:
                refused.append(trio.current_time())

    pair = [Child(producer), Child(Workers(queue, sleeps), after=["producer"])]
    async with open_supervisor(Supervisor("app", [Supervisor("part", pair)] if nested else pair)):
        await trio.sleep(2)
    assert refused == [5]
    assert ends(queue.statistics()) == {"done": 1, "left": 1}


async def test_left_is_counted_when_the_last_workers_of_the_queue_have_gone(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 7, *[1] * 10)
    async with working(
        Child(Workers(queue, sleeps), name="first"),
        Child(Workers(queue, sleeps), name="second", after=["first"]),
    ) as watched:
        await trio.sleep(0.5)
        watched.tree.request_stop()
        await trio.sleep(1)
        # One pool has ended, the other is still at work on what is in hand.
        first, second = (watched.tree.life.children[name].state for name in ("first", "second"))
        books = queue.statistics()
        if {first, second} & {State.STOPPED}:
            assert books.left == 0
        queue.put_nowait(1)
    assert sum(ends(queue.statistics()).values()) == 13
    assert queue.statistics().left > 0


async def test_pool_that_goes_on_takes_what_another_pool_has_left(
    autojump_clock: MockClock,
) -> None:
    queue = filled(*[1] * 6)
    async with working(
        Child(Workers(queue, sleeps), name="stays"), Child(Workers(queue, sleeps), name="goes")
    ) as watched:
        await trio.sleep(0.5)
        watched.tree.life.children["goes"].request_stop(10)
        await trio.sleep(20)
        assert ends(queue.statistics()) == {"done": 6}
        queue.put_nowait(1)
        await trio.sleep(2)
    assert ends(queue.statistics()) == {"done": 7}


async def test_accounts_are_published_once_by_the_last_workers(autojump_clock: MockClock) -> None:
    queue = filled(1, 7, 1, 1)
    async with working(
        Child(Workers(queue, sleeps), name="first"), Child(Workers(queue, sleeps), name="second")
    ) as watched:
        await trio.sleep(1.5)
    published = watched.of(events.WorkEnded)
    assert [(event.source, event.accounts) for event in published] == [
        ("numbers", "4 accepted = 3 done + 0 dead + 1 left")
    ]


async def test_accounts_of_a_drained_queue_are_published_once(autojump_clock: MockClock) -> None:
    queue = filled(1, 7)
    queue.close()
    async with working(
        Child(Workers(queue, sleeps), name="first"), Child(Workers(queue, sleeps), name="second")
    ) as watched:
        await trio.sleep(20)
        published = watched.of(events.WorkEnded)
        assert [event.accounts for event in published] == ["2 accepted = 2 done + 0 dead + 0 left"]
    assert len(watched.of(events.WorkEnded)) == 1


# -- crashes ----------------------------------------------------------------------------


def crashing(queue: WorkQueue[int], *, at: float, count: int = 1) -> Callable[[], Awaitable[None]]:
    """Workers in a service that fails once, at that time."""

    async def pool() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Workers(queue, sleeps, count=count).run)
            await trio.sleep_until(at)
            if trio.current_time() == at:
                raise OSError("crash")

    return pool


async def test_crash_of_a_pool_returns_what_is_in_hand_and_its_next_start_goes_on(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 3, 3, 1, 1)
    child = Child(crashing(queue, at=2, count=2), name="pool", backoff=EXACT)
    async with working(child) as watched:
        await trio.sleep(20)
        assert len(watched.of(events.ServiceFailed)) == 1
        assert ends(queue.statistics()) == {"done": 3, "returned": 2}
        queue.put_nowait(1)
        await trio.sleep(2)
    assert ends(queue.statistics()) == {"done": 4, "returned": 2}


async def test_items_wait_while_the_pool_waits_for_its_restart(autojump_clock: MockClock) -> None:
    queue = filled(5, 1, 1)
    child = Child(crashing(queue, at=2), name="pool", backoff=EXACT)
    async with working(child):
        await trio.sleep(2.5)
        queue.put_nowait(1)
        assert ends(queue.statistics()) == {"depth": 3, "returned": 1}
        await trio.sleep(10)
    assert ends(queue.statistics()) == {"done": 3, "returned": 1}


async def test_accounts_are_not_published_when_the_pool_will_start_again(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5, 1, 1)
    child = Child(crashing(queue, at=2), name="pool", backoff=EXACT)
    async with working(child) as watched:
        await trio.sleep(20)
        assert len(watched.of(events.ServiceFailed)) == 1
        assert watched.of(events.WorkEnded) == []
    assert len(watched.of(events.WorkEnded)) == 1


async def test_stop_while_the_pool_waits_for_its_restart_counts_what_is_left(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5, 1, 1, capacity=3)
    child = Child(crashing(queue, at=2), name="pool", backoff=Backoff(initial=60, jitter=0))
    async with working(child) as watched:
        await trio.sleep(5)
        assert watched.tree.life.children["pool"].state is State.BACKING_OFF
    assert ends(queue.statistics()) == {"returned": 1, "left": 2}
    with pytest.raises(QueueClosed):
        queue.put_nowait(4)


async def test_pool_that_is_given_up_counts_what_is_left(autojump_clock: MockClock) -> None:
    queue = filled(5, 1, 1)
    pool = Child(crashing(queue, at=2), name="pool")
    with pytest.raises(RestartLimitExceeded):
        async with open_supervisor(Supervisor("app", [pool], max_restarts=Limit(0, per=1))):
            await trio.sleep(20)
    assert ends(queue.statistics()) == {"returned": 1, "left": 2}


@pytest.mark.parametrize("nested", [False, True])
async def test_pool_that_was_never_started_counts_what_is_left(
    nested: bool, autojump_clock: MockClock
) -> None:
    queue = filled(1, 2)

    async def never_ready(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    pool = Child(Workers(queue, sleeps), name="pool", after=() if nested else ["never_ready"])
    late = Supervisor("part", [pool], after=["never_ready"]) if nested else pool
    with trio.move_on_after(5):
        async with open_supervisor(Supervisor("app", [never_ready, late])):
            raise AssertionError("never ready")
    assert ends(queue.statistics()) == {"left": 2}
    with pytest.raises(QueueClosed):
        queue.put_nowait(3)


async def test_restart_of_the_supervisor_of_a_pool_loses_nothing_that_waits(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 1, 1, 1)
    starts = 0

    async def crashes_once() -> None:
        nonlocal starts
        starts += 1
        await trio.sleep(2.5)
        if starts == 1:
            raise OSError("crash")

    part = Supervisor("part", [Workers(queue, sleeps), Child(crashes_once, restart="never")])
    async with working(Child(part, backoff=EXACT)) as watched:
        await trio.sleep(20)
        assert starts == 2
        assert watched.of(events.WorkEnded) == []
        queue.put_nowait(1)
        await trio.sleep(5)
        assert ends(queue.statistics()) == {"done": 5}
    assert len(watched.of(events.WorkEnded)) == 1


async def test_supervisor_of_a_pool_that_is_given_up_counts_what_is_left_once(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 1, 1, 1)

    async def crashes() -> None:
        await trio.sleep(0.5)
        raise OSError("crash")

    part = Supervisor("part", [Workers(queue, sleeps), Child(crashes, restart="never")])
    bus = Bus()
    ended: list[events.Event] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.WorkEnded):
            ended.append(event)

    with bus.listening(listen), pytest.raises(RestartLimitExceeded):
        async with open_supervisor(
            Supervisor("app", [part], max_restarts=Limit(2, per=60)), bus=bus
        ):
            await trio.sleep(100)
    assert len(ended) == 1
    assert ends(queue.statistics()) == {"done": 3, "left": 1}


async def test_workers_that_are_made_anew_for_each_start_are_let_go_and_close_the_books_once(
    autojump_clock: MockClock,
) -> None:
    queue = filled(5)
    alive: list[weakref.ref[Workers[int]]] = []

    async def pool() -> None:
        workers = Workers(queue, sleeps)
        alive.append(weakref.ref(workers))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.run)
            await trio.sleep(0.5)
            raise OSError("crash")

    child = Child(pool, backoff=Backoff(initial=0))
    bus = Bus()
    seen: list[events.Event] = []
    with bus.listening(seen.append):
        tree = Supervisor("app", [child], max_restarts=Limit(1000, per=1))
        async with open_supervisor(tree, bus=bus):
            await trio.sleep(20.25)
            seen.clear()
            gc.collect()
            assert len(alive) == 41
            assert sum(one() is not None for one in alive) <= 2
    assert len([event for event in seen if isinstance(event, events.WorkEnded)]) == 1


async def test_workers_of_a_queue_that_was_stopped_before_end_at_once(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1)
    async with working(Workers(queue, sleeps)):
        await trio.sleep(5)
    async with working(Workers(queue, sleeps)) as watched:
        await trio.sleep(5)
        assert watched.tree.life.children["sleeps"].state is State.DONE
        assert watched.of(events.ServiceFailed) == []


async def test_keyboard_interrupt_in_a_handler_stops_everything_and_returns_its_item(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2, 3)

    async def handle(item: int) -> None:
        await trio.sleep(item)
        if item == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with working(Workers(queue, handle)):
            await trio.sleep(100)
    assert trio.current_time() == 3
    assert queue.dead_letters() == ()
    books = queue.statistics()
    assert (books.accepted, books.done, books.returned) == (3, 1, 1)
    assert books.in_hand == 0


# -- memory -----------------------------------------------------------------------------


class Ballast:
    """An item that is large."""


async def test_idle_worker_does_not_keep_its_last_item_alive(autojump_clock: MockClock) -> None:
    queue = WorkQueue[Ballast]("ballast")

    async def handle(item: Ballast) -> None:
        await trio.sleep(1)

    async with working(Workers(queue, handle)):
        item = Ballast()
        alive = weakref.ref(item)
        await queue.put(item)
        del item
        await trio.sleep(5)
        gc.collect()
        assert alive() is None


async def test_item_in_its_retry_delay_does_not_keep_its_error_alive(
    autojump_clock: MockClock,
) -> None:
    class BrokenError(Exception):
        pass

    queue = filled(1)
    alive: list[weakref.ref[BrokenError]] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        error = BrokenError()
        alive.append(weakref.ref(error))
        raise error

    async with working(Workers(queue, handle, retry=Retry(backoff=Backoff(initial=9)))):
        await trio.sleep(1)
        gc.collect()
        assert [one() for one in alive] == [None]


async def test_nothing_is_kept_of_the_items_that_are_done(autojump_clock: MockClock) -> None:
    queue = WorkQueue[Ballast]("ballast")
    alive: list[weakref.ref[Ballast]] = []

    async def handle(item: Ballast) -> None:
        await trio.sleep(0.1)

    async with working(Workers(queue, handle, count=2)):
        for _ in range(100):
            item = Ballast()
            alive.append(weakref.ref(item))
            await queue.put(item)
            del item
        await trio.sleep(60)
        gc.collect()
        assert sum(one() is not None for one in alive) <= 2


# -- validation -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1])
def test_there_is_at_least_one_worker(count: int) -> None:
    with pytest.raises(ValueError, match="count"):
        Workers(filled(), sleeps, count=count)


def test_count_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match="count"):
        Workers(filled(), sleeps, count=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_time_out_must_be_more_than_nothing(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Workers(filled(), sleeps, timeout=timeout)


def test_workers_are_a_value() -> None:
    workers = Workers(filled(), sleeps)
    with pytest.raises(AttributeError):
        workers.count = 2  # type: ignore[misc]


async def test_workers_run_only_under_a_supervisor() -> None:
    with pytest.raises(RuntimeError, match="supervised"):
        await Workers(filled(), sleeps).run()

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.errors import QueueClosed, QueueFull, ServicesError
from trio_services.queues import DeadLetter, Workers, WorkQueue, current_job

from .working import ends, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


async def handled(queue: WorkQueue[int]) -> list[int]:
    """Close a queue and let a worker empty it; the items in the order in which they came."""
    items: list[int] = []

    async def handle(item: int) -> None:
        items.append(item)
        await trio.lowlevel.checkpoint()

    queue.close()
    async with working(Workers(queue, handle)):
        await wait_all_tasks_blocked()
    return items


# -- putting ----------------------------------------------------------------------------


async def test_items_come_out_in_the_order_in_which_they_went_in() -> None:
    queue = WorkQueue[int]("numbers")
    for number in range(10):
        await queue.put(number)
        queue.put_nowait(-number)
    assert await handled(queue) == [sign * n for n in range(10) for sign in (1, -1)]


async def test_blocked_producers_are_served_in_the_order_in_which_they_came() -> None:
    queue = WorkQueue[int]("numbers", capacity=2)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(queue.put, number)
            await wait_all_tasks_blocked()
        items: list[int] = []

        async def handle(item: int) -> None:
            items.append(item)
            await trio.lowlevel.checkpoint()

        async with working(Workers(queue, handle)):
            await wait_all_tasks_blocked()
    assert items == list(range(8))


async def test_nobody_overtakes_a_blocked_producer() -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    queue.put_nowait(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, 2)
        await wait_all_tasks_blocked()
        first = await queue.take()
        with pytest.raises(QueueFull):
            queue.put_nowait(3)
        second = await queue.take()
    assert (first.item, second.item) == (1, 2)


async def test_put_waits_for_room(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    put_at: list[float] = []

    async def handle(item: int) -> None:
        await trio.sleep(5)

    async with working(Workers(queue, handle)):
        for number in range(4):
            await queue.put(number)
            put_at.append(trio.current_time())
    # One is in hand and one waits; from there on there is room when one is done.
    assert put_at == [0, 0, 5, 10]


async def test_put_nowait_on_a_full_queue_says_so() -> None:
    queue = WorkQueue[int]("numbers", capacity=2)
    await queue.put(1)
    await queue.put(2)
    with pytest.raises(QueueFull, match=r"numbers is full \(2 items") as caught:
        queue.put_nowait(3)
    assert caught.value.queue == "numbers"
    assert isinstance(caught.value, ServicesError)
    assert caught.value.__cause__ is None
    assert queue.statistics().accepted == 2


async def test_queue_that_rejects_does_not_wait_for_room() -> None:
    queue = WorkQueue[int]("numbers", capacity=1, when_full="reject")
    await queue.put(1)
    with pytest.raises(QueueFull):
        await queue.put(2)
    assert queue.statistics().accepted == 1
    assert await handled(queue) == [1]


async def test_cancelled_put_has_not_put_anything(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    await queue.put(1)
    with trio.move_on_after(1) as scope:
        await queue.put(2)
    assert scope.cancelled_caught
    assert queue.statistics().blocked == 0
    assert queue.statistics().accepted == 1
    assert await handled(queue) == [1]


async def test_put_that_was_cancelled_before_puts_nothing_though_there_is_room() -> None:
    queue = WorkQueue[int]("numbers")
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.put(1)
    assert scope.cancelled_caught
    assert queue.statistics().accepted == 0


async def test_room_that_is_made_for_a_cancelled_producer_goes_to_the_next() -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    await queue.put(1)
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await queue.put(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        nursery.start_soon(queue.put, 3)
        await wait_all_tasks_blocked()
        scope.cancel()
        # Its task has not run since, so that it could not say that it is gone.
        taken = await queue.take()
        assert queue.statistics().accepted == 2
        assert queue.statistics().depth == 1
    assert (taken.item, (await queue.take()).item) == (1, 3)


async def test_taking_beside_a_cancelled_producer_accepts_nothing() -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    await queue.put(1)
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await queue.put(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        scope.cancel()
        await queue.take()
        assert queue.statistics().accepted == 1
        assert ends(queue.statistics()) == {"in_hand": 1}


async def test_producer_that_waits_for_nothing_else_lets_others_run() -> None:
    queue = WorkQueue[int]("numbers", capacity=10_000)
    done = 0

    async def producer() -> None:
        nonlocal done
        for number in range(10_000):
            await queue.put(number)
            done += 1

    turns = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(producer)
        while done < 10_000:
            await trio.lowlevel.checkpoint()
            turns.append(done)
    assert max(after - before for before, after in pairwise(turns)) <= 1000


# -- closing ----------------------------------------------------------------------------


async def test_closed_queue_accepts_no_more_items() -> None:
    queue = WorkQueue[int]("numbers")
    queue.close()
    with pytest.raises(QueueClosed, match="numbers is closed") as caught:
        await queue.put(1)
    assert caught.value.queue == "numbers"
    with pytest.raises(QueueClosed):
        queue.put_nowait(1)
    assert queue.statistics().accepted == 0


async def test_closed_queue_says_so_and_not_that_it_is_full() -> None:
    queue = WorkQueue[int]("numbers", capacity=1, when_full="reject")
    await queue.put(1)
    queue.close()
    with pytest.raises(QueueClosed):
        await queue.put(2)


async def test_items_that_waited_when_the_queue_was_closed_are_still_handled() -> None:
    queue = WorkQueue[int]("numbers")
    await queue.put(1)
    await queue.put(2)
    assert await handled(queue) == [1, 2]


async def test_closing_wakes_blocked_producers_with_an_error() -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    await queue.put(0)
    refused: list[int] = []

    async def producer(number: int) -> None:
        with pytest.raises(QueueClosed):
            await queue.put(number)
        refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(producer, number)
        await wait_all_tasks_blocked()
        assert queue.statistics().blocked == 3
        queue.close()
        assert queue.statistics().blocked == 0
    assert sorted(refused) == [0, 1, 2]
    assert queue.statistics().accepted == 1


async def test_closing_twice_is_closing_once() -> None:
    queue = WorkQueue[int]("numbers")
    await queue.put(1)
    queue.close()
    queue.close()
    assert await handled(queue) == [1]


# -- what can be seen -------------------------------------------------------------------


def test_new_queue_has_empty_books() -> None:
    books = WorkQueue[int]("numbers", capacity=7).statistics()
    assert (books.capacity, books.depth, books.blocked, books.accepted) == (7, 0, 0, 0)
    assert (books.oldest, books.retried, ends(books)) == (0, 0, {})


async def test_blocked_producers_are_visible(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(queue.put, number)
        await wait_all_tasks_blocked()
        books = queue.statistics()
        assert (books.depth, books.blocked, books.accepted) == (1, 3, 1)
        nursery.cancel_scope.cancel()
    assert queue.statistics().blocked == 0


async def test_oldest_is_how_long_the_item_at_the_head_has_waited(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers")
    await queue.put(1)
    await trio.sleep(3)
    await queue.put(2)
    await trio.sleep(2)
    assert queue.statistics().oldest == 5
    await queue.take()
    assert queue.statistics().oldest == 2
    await queue.take()
    assert queue.statistics().oldest == 0


async def test_age_of_an_item_counts_from_when_there_was_room_for_it(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers", capacity=1)
    await queue.put(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.put, 2)
        await trio.sleep(3)
        await queue.take()
        await trio.sleep(4)
        assert queue.statistics().oldest == 4


async def test_item_waits_until_the_worker_that_it_has_woken_takes_it(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers")
    taken: list[int] = []

    async def take() -> None:
        taken.append((await queue.take()).item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        queue.put_nowait(1)
        autojump_clock.jump(3)
        queue.put_nowait(2)
        assert queue.statistics().oldest == 3
        assert ends(queue.statistics()) == {"depth": 2}
        await wait_all_tasks_blocked()
        assert taken == [1]
        assert ends(queue.statistics()) == {"depth": 1, "in_hand": 1}


async def test_books_are_of_one_moment_and_cannot_be_changed() -> None:
    queue = WorkQueue[int]("numbers")
    books = queue.statistics()
    await queue.put(1)
    assert books.depth == 0
    with pytest.raises(AttributeError):
        books.depth = 1  # type: ignore[misc]


async def test_accounts_add_up_on_one_line() -> None:
    queue = WorkQueue[int]("numbers")
    queue.put_nowait(1)
    assert await handled(queue) == [1]
    assert str(queue.statistics()) == "1 accepted = 1 done + 0 dead + 0 left"


async def test_accounts_of_a_queue_at_work_add_up_too() -> None:
    queue = WorkQueue[int]("numbers")
    for number in range(3):
        await queue.put(number)
    await queue.take()
    text = str(queue.statistics())
    total, _, parts = text.partition(" accepted = ")
    assert total == "3"
    assert sum(int(part.split()[0]) for part in parts.split(" + ")) == 3


def test_items_can_be_put_before_trio_runs() -> None:
    queue = WorkQueue[int]("numbers")
    queue.put_nowait(1)
    queue.put_nowait(2)
    books = queue.statistics()
    assert (books.depth, books.accepted, books.oldest) == (2, 2, 0)

    async def main() -> tuple[float, list[int]]:
        return queue.statistics().oldest, await handled(queue)

    assert trio.run(main) == (0, [1, 2])
    assert ends(queue.statistics()) == {"done": 2}


async def test_job_is_named_after_its_queue() -> None:
    queue = WorkQueue[int]("numbers")
    names: list[str] = []

    async def handle(item: int) -> None:
        job = current_job.get()
        assert job is not None
        assert (job.item, job.source, job.attempt) == (item, "numbers", 1)
        names.append(job.id)
        await trio.lowlevel.checkpoint()

    for number in range(3):
        queue.put_nowait(number)
    queue.close()
    async with working(Workers(queue, handle)):
        await wait_all_tasks_blocked()
    assert names == ["numbers#1", "numbers#2", "numbers#3"]
    assert current_job.get() is None


async def test_only_the_last_thousand_dead_letters_are_kept() -> None:
    queue = WorkQueue[int]("numbers")

    async def fails(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError(item)

    async with working(Workers(queue, fails)):
        for number in range(1005):
            await queue.put(number)
        await wait_all_tasks_blocked()
        letters = queue.dead_letters()
    assert [letter.item for letter in letters] == list(range(5, 1005))
    assert all(isinstance(letter, DeadLetter) for letter in letters)
    assert queue.statistics().dead == 1005


# -- validation -------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, -1, 1.5, math.inf, math.nan, True])
def test_capacity_must_be_a_whole_number_of_at_least_1(capacity: float) -> None:
    with pytest.raises(ValueError, match="capacity of queue numbers"):
        WorkQueue[int]("numbers", capacity=capacity)  # type: ignore[arg-type]


def test_what_happens_when_it_is_full_must_be_known() -> None:
    with pytest.raises(ValueError, match="when_full of queue numbers"):
        WorkQueue[int]("numbers", when_full="explode")  # type: ignore[arg-type]


def test_queue_is_made_without_anything_running() -> None:
    # As a module of an application does, for its services to share.
    make: Callable[[], WorkQueue[int]] = lambda: WorkQueue("numbers")  # noqa: E731
    assert repr(make()) == "<WorkQueue numbers>"

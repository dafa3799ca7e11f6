from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.lifecycle import events
from trio_services.queues import Batch, Workers, WorkQueue
from trio_services.resilience import Backoff, Retry

from .working import ends, working

if TYPE_CHECKING:
    from trio.testing import MockClock


class Handler:
    """Remembers the batches that it got, and when; takes `seconds` for each."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.got: list[tuple[float, list[int]]] = []

    async def __call__(self, items: list[int]) -> None:
        self.got.append((trio.current_time(), items))
        await trio.sleep(self.seconds)


def filled(count: int) -> WorkQueue[int]:
    queue = WorkQueue[int]("numbers")
    for item in range(count):
        queue.put_nowait(item)
    return queue


async def test_items_come_in_batches_as_large_as_asked_for(autojump_clock: MockClock) -> None:
    queue, handler = filled(6), Handler()
    async with working(Workers(queue, handler, batch=Batch(3, within=5))):
        await trio.sleep(1)
    assert handler.got == [(0, [0, 1, 2]), (0, [3, 4, 5])]
    assert ends(queue.statistics()) == {"done": 6}


async def test_batch_waits_for_more_only_so_long_after_its_first_item(
    autojump_clock: MockClock,
) -> None:
    queue, handler = WorkQueue[int]("numbers"), Handler()
    async with working(Workers(queue, handler, batch=Batch(3, within=5))):
        await trio.sleep(10)
        queue.put_nowait(1)
        await trio.sleep(4)
        queue.put_nowait(2)
        await trio.sleep(10)
    assert handler.got == [(15, [1, 2])]


async def test_batch_without_a_wait_is_what_is_there(autojump_clock: MockClock) -> None:
    queue, handler = filled(5), Handler()
    async with working(Workers(queue, handler, batch=Batch(3))):
        await trio.sleep(1)
    assert handler.got == [(0, [0, 1, 2]), (0, [3, 4])]


async def test_closed_queue_ends_the_wait_for_more(autojump_clock: MockClock) -> None:
    queue, handler = filled(2), Handler()
    async with working(Workers(queue, handler, batch=Batch(3, within=1000))) as watched:
        await trio.sleep(1)
        assert handler.got == []
        queue.close()
        await wait_all_tasks_blocked()
        assert handler.got == [(1, [0, 1])]
        assert watched.tree.life.children["Handler"].state == "done"


async def test_incomplete_batch_is_done_at_a_stop(autojump_clock: MockClock) -> None:
    queue, handler = filled(2), Handler(seconds=3)
    async with working(Workers(queue, handler, batch=Batch(3, within=1000))):
        await trio.sleep(1)
    assert handler.got == [(1, [0, 1])]
    assert trio.current_time() == 4
    assert ends(queue.statistics()) == {"done": 2}


async def test_hard_cancellation_puts_an_incomplete_batch_back(autojump_clock: MockClock) -> None:
    queue, handler = filled(2), Handler()
    async with working(Workers(queue, handler, batch=Batch(3, within=1000))) as watched:
        await trio.sleep(1)
        watched.tree.cancel()
    assert handler.got == []
    assert ends(queue.statistics()) == {"left": 2}


async def test_interrupted_batch_returns_all_of_its_items(autojump_clock: MockClock) -> None:
    queue, handler = filled(5), Handler(seconds=100)
    async with working(Workers(queue, handler, batch=Batch(3)), stop_within=1):
        await trio.sleep(1)
    assert ends(queue.statistics()) == {"returned": 3, "left": 2}


async def test_failed_batch_is_tried_again_as_a_whole(autojump_clock: MockClock) -> None:
    queue = filled(3)
    got: list[list[int]] = []

    async def handle(items: list[int]) -> None:
        got.append(items)
        await trio.lowlevel.checkpoint()
        if len(got) == 1:
            raise OSError

    workers = Workers(queue, handle, batch=Batch(3), retry=Retry(2, Backoff(1)))
    async with working(workers):
        await trio.sleep(5)
    assert got == [[0, 1, 2]] * 2
    assert ends(queue.statistics()) == {"done": 3}


async def test_each_item_of_a_dead_batch_is_a_dead_letter(autojump_clock: MockClock) -> None:
    queue = filled(3)
    taken: list[int] = []

    async def handle(items: list[int]) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError

    async def take(item: int, error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        if item == 1:
            raise ValueError("not this one")
        taken.append(item)

    async with working(Workers(queue, handle, batch=Batch(3), on_dead=take)) as watched:
        await trio.sleep(1)
    assert taken == [0, 2]
    assert [letter.item for letter in queue.dead_letters()] == [1]
    assert [event.job for event in watched.of(events.JobDead)] == [
        "numbers#1",
        "numbers#2",
        "numbers#3",
    ]
    assert ends(queue.statistics()) == {"dead": 3}


async def test_letters_that_were_not_taken_before_a_stop_are_kept(
    autojump_clock: MockClock,
) -> None:
    queue = filled(3)

    async def handle(items: list[int]) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError

    async def take(item: int, error: Exception) -> None:
        await trio.sleep(2)

    workers = Workers(queue, handle, batch=Batch(3), on_dead=take)
    async with working(workers, stop_within=2):
        await trio.sleep(1)
    assert [letter.item for letter in queue.dead_letters()] == [1, 2]
    assert ends(queue.statistics()) == {"dead": 3}


def test_batches_of_items_in_order_are_refused() -> None:
    with pytest.raises(ValueError, match="batch and key do not go together"):
        Workers(filled(1), Handler(), batch=Batch(2), key=lambda item: item)


@pytest.mark.parametrize(("size", "within"), [(0, 1), (2.5, 1), (2, -1)])
def test_batch_that_cannot_be_is_refused(size: int, within: float) -> None:
    with pytest.raises((ValueError, TypeError), match=r"size|within"):
        Batch(size, within=within)

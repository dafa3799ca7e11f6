from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.errors import QueueClosed, QueueFull
from trio_services.queues import Workers, WorkQueue

from .working import ends, working

if TYPE_CHECKING:
    from trio.testing import MockClock


def taken(queue: WorkQueue[int]) -> list[int]:
    items: list[int] = []
    while (job := queue.take_nowait()) is not None:
        items.append(job.item)
    return items


async def test_full_queue_that_drops_the_oldest_keeps_the_newest() -> None:
    queue = WorkQueue[int]("numbers", capacity=3, when_full="drop_oldest")
    for item in range(5):
        await queue.put(item)
    books = queue.statistics()
    assert (books.accepted, books.dropped, books.depth) == (3, 2, 3)
    assert str(books) == "3 accepted = 0 done + 0 dead + 0 left + 3 waiting, and 2 dropped"
    assert taken(queue) == [2, 3, 4]


async def test_full_queue_that_drops_the_newest_keeps_the_oldest() -> None:  # noqa: ASYNC124
    queue = WorkQueue[int]("numbers", capacity=3, when_full="drop_newest")
    for item in range(5):
        queue.put_nowait(item)
    books = queue.statistics()
    assert (books.accepted, books.dropped, books.depth) == (3, 2, 3)
    assert taken(queue) == [0, 1, 2]


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
async def test_closed_queue_accepts_nothing_even_if_it_drops(when_full: str) -> None:
    queue = WorkQueue[int]("numbers", capacity=1, when_full=when_full)  # type: ignore[arg-type]
    queue.close()
    with pytest.raises(QueueClosed):
        await queue.put(1)
    assert queue.statistics().dropped == 0


async def test_idle_workers_are_as_good_as_room(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("numbers", capacity=1, when_full="reject")
    started: list[int] = []

    async def handle(item: int) -> None:
        started.append(item)
        await trio.sleep(1)

    async with working(Workers(queue, handle, count=3)):
        await wait_all_tasks_blocked()
        for item in range(4):  # three for the workers, one that waits
            queue.put_nowait(item)
        with pytest.raises(QueueFull, match=r"queue numbers is full \(1 items waiting\)"):
            queue.put_nowait(4)
        await wait_all_tasks_blocked()
        assert sorted(started) == [0, 1, 2]
        await trio.sleep(2)
    assert ends(queue.statistics()) == {"done": 4}


def test_unknown_when_full_is_refused() -> None:
    with pytest.raises(ValueError, match="when_full of queue numbers must be one of 'wait'"):
        WorkQueue[int]("numbers", when_full="panic")  # type: ignore[arg-type]


# -- pausing ----------------------------------------------------------------------------


async def test_paused_queue_gives_nothing_and_takes_what_it_has_room_for(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers", capacity=2, when_full="reject")
    done: list[int] = []

    async def handle(item: int) -> None:
        done.append(item)
        await trio.sleep(1)

    async with working(Workers(queue, handle, count=2)):
        queue.put_nowait(1)
        await wait_all_tasks_blocked()
        queue.pause()
        queue.pause()
        assert queue.statistics().paused
        queue.put_nowait(2)
        queue.put_nowait(3)
        with pytest.raises(QueueFull):
            queue.put_nowait(4)
        await trio.sleep(10)
        assert done == [1]
        queue.resume()
        queue.resume()
        await wait_all_tasks_blocked()
        assert sorted(done) == [1, 2, 3]
        assert not queue.statistics().paused


async def test_paused_queue_that_is_closed_ends_its_workers_when_it_is_resumed(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers")
    queue.pause()
    queue.put_nowait(1)

    async with working(Workers(queue, trio.sleep, count=3)) as watched:
        life = watched.tree.life.children["sleep"]
        await trio.sleep(1)
        queue.close()
        await trio.sleep(1)
        assert life.state == "running"
        queue.resume()
        await trio.sleep(2)
        assert life.state == "done"
    assert ends(queue.statistics()) == {"done": 1}


async def test_empty_paused_queue_that_is_closed_ends_its_workers(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers")
    queue.pause()
    async with working(Workers(queue, trio.sleep, count=3)) as watched:
        await wait_all_tasks_blocked()
        queue.close()
        await wait_all_tasks_blocked()
        assert watched.tree.life.children["sleep"].state == "done"


async def test_what_waits_in_a_paused_queue_at_a_stop_is_left(autojump_clock: MockClock) -> None:
    queue = WorkQueue[int]("numbers")
    queue.pause()
    queue.put_nowait(1)
    async with working(Workers(queue, trio.sleep, drain=True)):
        await trio.sleep(1)
    assert ends(queue.statistics()) == {"left": 1}


# -- waking workers -----------------------------------------------------------------------


async def test_all_workers_are_woken_when_there_is_enough_for_all(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers", capacity=1000)
    at_work = most = 0

    async def handle(item: int) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await trio.sleep(1)
        at_work -= 1

    async with working(Workers(queue, handle, count=100)):
        await wait_all_tasks_blocked()
        for item in range(100):
            queue.put_nowait(item)
        await wait_all_tasks_blocked()
        assert at_work == most == 100


async def test_worker_that_was_woken_and_is_cancelled_leaves_the_item_to_another(
    autojump_clock: MockClock,
) -> None:
    queue = WorkQueue[int]("numbers")
    got: list[int] = []

    async def take(scope: trio.CancelScope) -> None:
        with scope:
            got.append((await queue.take()).item)

    scopes = [trio.CancelScope(), trio.CancelScope()]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, scopes[0])
        await wait_all_tasks_blocked()
        nursery.start_soon(take, scopes[1])
        await wait_all_tasks_blocked()
        scopes[0].cancel()
        queue.put_nowait(1)
        await wait_all_tasks_blocked()
        assert got == [1]
        scopes[1].cancel()

"""Pools that are resized by an operator, started again, removed, and never without work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.errors import ServicesError, UnknownService
from trio_services.lifecycle import State
from trio_services.queues import Batch, PoolStatistics, Workers, WorkQueue
from trio_services.resilience import Breaker
from trio_services.supervision import Child, Supervisor

from .working import ends, working

if TYPE_CHECKING:
    from trio.testing import MockClock

    from .working import Watched


def filled(*items: int) -> WorkQueue[int]:
    queue = WorkQueue[int]("numbers", capacity=1000)
    for item in items:
        queue.put_nowait(item)
    return queue


def count_of(watched: Watched, name: str) -> int:
    (one,) = [one for one in watched.tree.statistics().walk() if one.name == f"app/{name}"]
    assert isinstance(one.work, PoolStatistics)
    return one.work.count


# -- by an operator --------------------------------------------------------------------------


async def test_pool_is_resized_by_its_path(autojump_clock: MockClock) -> None:
    pool = Child(Workers(filled(), trio.sleep, count=2), name="pool")
    async with working(pool, Child(Supervisor("in", [pool]))) as watched:
        watched.tree.resize("pool", 5)
        watched.tree.resize("app/in/pool", 7)
        assert (count_of(watched, "pool"), count_of(watched, "in/pool")) == (5, 7)
        await watched.tree.restart("pool")
        assert count_of(watched, "pool") == 2  # as it was written


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("poll", "app has no service 'poll'; did you mean 'pool'"),
        ("pool/pool", "app/pool is no supervisor"),
        ("in", "app/in has no workers: there is nothing to resize"),
        ("other", "app/other has no workers: there is nothing to resize"),
        ("down", "app/down is stopped: there is nothing to resize"),
        ("ended", "app/ended is done: there is nothing to resize"),
    ],
)
async def test_what_cannot_be_resized_is_told(
    path: str, error: str, autojump_clock: MockClock
) -> None:
    async def other() -> None:
        await trio.sleep_forever()

    closed = filled()
    closed.close()
    async with working(
        Child(Workers(filled(), trio.sleep), name="pool"),
        Child(Workers(filled(), trio.sleep), name="down"),
        Child(Workers(closed, trio.sleep), name="ended"),
        Child(other, name="other"),
        Child(Supervisor("in", [other])),
    ) as watched:
        await watched.tree.stop("down")
        await wait_all_tasks_blocked()
        with pytest.raises(ServicesError) as raised:
            watched.tree.resize(path, 3)
        assert error in str(raised.value)
        assert isinstance(raised.value, UnknownService) == (path in {"poll", "pool/pool"})


async def test_pool_that_is_about_to_end_is_not_resized(autojump_clock: MockClock) -> None:
    queue = filled()
    async with working(Child(Workers(queue, trio.sleep, count=2), name="pool")) as watched:
        await wait_all_tasks_blocked()
        queue.close()
        errors: list[str] = []
        while watched.tree.life.children["pool"].state is State.RUNNING:  # pass by pass
            try:
                watched.tree.resize("pool", 3)
            except ServicesError as error:
                errors.append(str(error))
            await trio.lowlevel.checkpoint()
    assert set(errors) == {"the workers of app/pool have ended: there is nothing to resize"}


async def test_pool_that_stops_is_not_resized(autojump_clock: MockClock) -> None:
    async with working(Child(Workers(filled(5), trio.sleep), name="pool")) as watched:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.tree.stop, "pool")
            await trio.sleep(1)
            with pytest.raises(ServicesError, match="is stopping: there is nothing to resize"):
                watched.tree.resize("pool", 3)


# -- started again, or not --------------------------------------------------------------------


async def test_pool_that_drains_keeps_its_queue_over_a_restart(autojump_clock: MockClock) -> None:
    queue = filled(1, 1, 1)
    async with working(Child(Workers(queue, trio.sleep, drain=True), name="pool")) as watched:
        await trio.sleep(0.5)
        await watched.tree.restart("pool")
        assert trio.current_time() == 1  # it has finished only what it had in hand
        queue.put_nowait(1)
        await trio.sleep(0.5)
    assert ends(queue.statistics()) == {"done": 4}


async def test_nothing_is_offered_when_a_supervisor_above_is_started_again(
    autojump_clock: MockClock,
) -> None:
    queue = filled(1, 2, 3)
    offered: list[int] = []

    async def keep(item: int) -> None:
        await trio.lowlevel.checkpoint()
        offered.append(item)

    pool = Child(Workers(queue, trio.sleep, on_left=keep), name="pool")
    async with working(Child(Supervisor("in", [pool]))) as watched:
        await trio.sleep(0.5)
        await watched.tree.restart("in")
        await trio.sleep(2.5)
        assert offered == []
    assert offered == []
    assert ends(queue.statistics()) == {"done": 3}


async def test_removing_a_pool_is_its_last_stop(autojump_clock: MockClock) -> None:
    queue = filled(1, 2, 3)
    offered: list[int] = []

    async def keep(item: int) -> None:
        await trio.lowlevel.checkpoint()
        offered.append(item)

    async with working(Child(Workers(queue, trio.sleep, on_left=keep), name="pool")) as watched:
        await trio.sleep(0.5)
        await watched.tree.remove("pool")
        assert offered == [2, 3]
        assert ends(queue.statistics()) == {"done": 1, "left": 2}


async def test_stopped_pool_leaves_nothing_before_the_tree_ends(autojump_clock: MockClock) -> None:
    queue = filled(1, 2, 3)
    async with working(Child(Workers(queue, trio.sleep), name="pool")) as watched:
        await trio.sleep(0.5)
        await watched.tree.stop("pool")
        assert ends(queue.statistics()) == {"depth": 2, "done": 1}
    assert ends(queue.statistics()) == {"done": 1, "left": 2}


# -- the breaker, once more ---------------------------------------------------------------------


async def test_item_whose_key_cannot_be_told_is_no_probe(autojump_clock: MockClock) -> None:
    queue = filled(0, 0)
    down = True

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        if down:
            raise OSError

    def key(item: int) -> int:
        if item == 13:
            raise KeyError(item)
        return item

    breaker = Breaker(failures=2, within=60, reset_after=10, jitter=0)
    workers = Workers(queue, handle, count=2, key=key, breaker=breaker)
    async with working(Child(workers, name="pool")):
        await trio.sleep(5)
        down = False
        queue.put_nowait(13)
        queue.put_nowait(1)
        await trio.sleep(6)
        assert ends(queue.statistics()) == {"done": 1, "dead": 3}


# -- fairness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("batch", [None, Batch(10)])
async def test_queue_that_is_never_empty_lets_others_have_their_turns(
    count: int, batch: Batch | None, autojump_clock: MockClock
) -> None:
    queue = WorkQueue[int]("numbers", capacity=1000)
    jobs_between: list[int] = []
    jobs = 0

    async def never_wait(item: int | list[int]) -> None:  # noqa: ASYNC124
        nonlocal jobs
        jobs += 1
        for _ in range(len(item) if isinstance(item, list) else 1):
            queue.put_nowait(0)

    for _ in range(500):
        queue.put_nowait(0)
    async with working(Child(Workers(queue, never_wait, count=count, batch=batch), name="pool")):
        for _ in range(20):
            before = jobs
            await trio.lowlevel.checkpoint()
            jobs_between.append(jobs - before)
    assert max(jobs_between) <= 2 * 500  # jobs; and in real time not more than some milliseconds
    assert jobs > 20 * 100

"""Slow runs: the same promises, for longer and under load."""

from __future__ import annotations

import gc
import os
import random
import tracemalloc
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from tests.examples.test_inbox import bundled_orders, copied
from trio_services import (
    Backoff,
    Batch,
    Child,
    Limit,
    Retry,
    Schedule,
    Supervisor,
    Workers,
    WorkQueue,
    open_supervisor,
)
from trio_services.queues import current_job
from trio_services.timers import Tick

pytestmark = pytest.mark.soak


def test_inbox_survives_kill_9_at_twenty_random_moments(tmp_path: Path) -> None:
    draw = random.Random(20261123)
    with copied(tmp_path) as app:
        for _ in range(20):
            process = app.start()
            app.wait_for_orders(len(app.orders()) + draw.randrange(1, 200))
            process.kill()
            process.wait()
        app.start()
        app.wait_for_files(4)

        assert sorted(app.orders()) == sorted(bundled_orders())
        assert len(app.dead_letters()) == len(set(app.dead_letters())) == 2


async def test_memory_is_flat_over_100_000_restarts(autojump_clock: MockClock) -> None:
    starts = 0
    done = trio.Event()
    sizes: list[int] = []

    async def crash() -> None:
        nonlocal starts
        starts += 1
        if starts in (20_000, 100_000):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        if starts == 100_000:
            done.set()
        await trio.lowlevel.checkpoint()
        raise ValueError(f"crash {starts}")

    child = Child(crash, backoff=Backoff(initial=0.001, cap=0.001, jitter=0))
    tree = Supervisor("app", [child], max_restarts=Limit(10, per=0.005))
    tracemalloc.start()
    try:
        async with open_supervisor(tree):
            await done.wait()
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 20_000  # a quarter of a byte for each


async def test_a_million_items_are_accounted_for_under_failures_and_cancellations() -> None:
    queue = WorkQueue[int]("items", capacity=50)
    draw = random.Random(7)
    done: set[int] = set()
    total = 1_000_000

    async def handle(item: int) -> None:
        if not item % 997:
            raise ValueError(item)
        if not item % 101:
            await trio.lowlevel.checkpoint()
        done.add(item)

    async def produce(first: int) -> None:
        for item in range(first, total, 4):
            while True:
                with trio.CancelScope() as scope:
                    if not draw.randrange(1000):
                        scope.cancel()
                    await queue.put(item)
                    break

    workers = Workers(queue, handle, count=8, retry=Retry(2, Backoff(initial=0)))
    async with open_supervisor(Supervisor("app", [workers])):
        async with trio.open_nursery() as nursery:
            for first in range(4):
                nursery.start_soon(produce, first)
        queue.close()
        while queue.statistics().depth or queue.statistics().in_hand:
            await trio.lowlevel.checkpoint()

    books = queue.statistics()
    dead = (total - 1) // 997 + 1
    assert (books.accepted, books.done, books.dead) == (total, total - dead, dead)
    assert books.retried == dead
    assert len(done) == books.done


class Pipeline:
    """Three stages, of which the first fails, the second takes too long and the last packs.

    Attributes:
        ended: for each item, how often it came to an end.
        left: what a stop has left, by stage.
    """

    def __init__(self, total: int) -> None:
        self.ended = bytearray(total)
        self.packed = 0
        self.dead = 0
        self.left: list[list[int]] = [[], [], []]
        self.queues = tuple(WorkQueue[int](name, capacity=200) for name in ("a", "b", "c"))

    async def first(self, item: int) -> None:
        job = current_job.get()
        assert job is not None
        if not item % 997 or (not item % 101 and job.attempt == 1):
            raise ConnectionError(item)
        await self.queues[1].put(item)

    async def second(self, item: int) -> None:
        if not item % 1009:
            await trio.sleep(1000)
        await self.queues[2].put(item)

    async def third(self, items: list[int]) -> None:
        await trio.lowlevel.checkpoint()
        for item in items:
            self.end(item)
        self.packed += len(items)

    async def bury(self, item: int, error: Exception) -> None:
        self.end(item)
        self.dead += 1
        await trio.lowlevel.checkpoint()

    def end(self, item: int) -> None:
        self.ended[item] += 1

    def workers(self, stage: int) -> Workers[int]:
        """The workers of a stage."""

        async def on_left(item: int) -> None:
            self.left[stage].append(item)
            await trio.lowlevel.checkpoint()

        options = [
            {"count": 4, "retry": Retry(2, Backoff(initial=0)), "feeds": self.queues[1]},
            {"count": 16, "timeout": 0.5, "feeds": self.queues[2]},
            {"count": 2, "batch": Batch(50, within=0.1)},
        ]
        handler = (self.first, self.second, self.third)[stage]
        return Workers(
            self.queues[stage],
            handler,
            on_dead=self.bury,
            on_left=on_left,
            **options[stage],  # type: ignore[arg-type]
        )

    def tree(self) -> Supervisor:
        """All three, of which each stops before those that it feeds."""
        c, b, a = (
            Child(self.workers(stage), name=name, after=after, stop_within=0.1)
            for stage, name, after in ((2, "c", ()), (1, "b", ("c",)), (0, "a", ("b",)))
        )
        return Supervisor("pipeline", [c, b, a])

    def check_books(self) -> None:
        for queue in self.queues:
            books = queue.statistics()
            assert (books.depth, books.in_hand, books.dropped) == (0, 0, 0)
            outcomes = books.done + books.discarded + books.dead + books.returned + books.left
            assert books.accepted == outcomes


def resident_memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_a_million_items_go_through_three_stages_and_a_stop_in_the_middle(
    autojump_clock: MockClock,
) -> None:
    total = 1_000_000
    before_stop, rest = Pipeline(total), Pipeline(total)
    sizes: list[int] = []

    async def produce(pipeline: Pipeline, first: int, last: int) -> None:
        for item in range(first, last):
            await pipeline.queues[0].put(item)
            if item in (150_000, total - 100_000):
                sizes.append(resident_memory())

    # The last stage gets stuck, so that a stop meets full queues and work in hand everywhere.
    async with open_supervisor(before_stop.tree()):
        await produce(before_stop, 0, 400_000)
        before_stop.queues[2].pause()
        middle = 400_000
        with trio.move_on_after(10):  # noqa: ASYNC912
            for middle in range(400_000, total):
                await before_stop.queues[0].put(middle)
    before_stop.check_books()
    unended = [item for item in range(middle) if not before_stop.ended[item]]
    books = [queue.statistics() for queue in before_stop.queues]
    assert len(unended) == sum(one.returned + one.left for one in books) > 400
    left = [item for stage in before_stop.left for item in stage]
    assert len(set(left)) == len(left) > 0
    assert set(left) <= set(unended)  # not all: what was in hand has used up most of the time
    assert before_stop.packed + before_stop.dead + len(unended) == middle

    rest.ended = before_stop.ended
    async with open_supervisor(rest.tree()) as tree:
        for item in unended:
            await rest.queues[0].put(item)
        await produce(rest, middle, total)
        rest.queues[0].close()  # and each stage closes the next
        for life in tree.life.children.values():
            while not life.state.ended:
                await life.wait_changed()
    rest.check_books()
    assert rest.ended == bytes([1]) * total
    for queue in rest.queues:
        assert (queue.statistics().returned, queue.statistics().left) == (0, 0)
    assert before_stop.packed + rest.packed + before_stop.dead + rest.dead == total
    assert sizes[1] - sizes[0] < 8 * 2**20


async def test_no_schedule_of_a_thousand_drifts_in_ten_minutes(autojump_clock: MockClock) -> None:
    calls = [0] * 1000
    farthest = 0.0

    def schedule(number: int) -> Child:
        period = (2.0, 2.7, 3.0, 4.1)[number % 4]
        start = number / 1000

        async def call() -> None:
            nonlocal farthest
            job = current_job.get()
            assert job is not None
            assert isinstance(job.item, Tick)
            due = start + calls[number] * period
            farthest = max(farthest, abs(trio.current_time() - due), abs(job.item.scheduled - due))
            calls[number] += 1
            await trio.lowlevel.checkpoint()

        return Child(Schedule(call, every=period, start=start), name=f"s{number}")

    async with open_supervisor(Supervisor("app", [schedule(number) for number in range(1000)])):
        await trio.sleep(600)
    for number, count in enumerate(calls):
        period = (2.0, 2.7, 3.0, 4.1)[number % 4]
        assert abs(count - (600 - number / 1000) / period) <= 1
    assert farthest < 0.0011  # alarms ring at most once in a millisecond

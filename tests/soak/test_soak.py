"""Slow runs: the same promises, for longer and under load."""

from __future__ import annotations

import gc
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
    Child,
    Limit,
    Retry,
    Supervisor,
    Workers,
    WorkQueue,
    open_supervisor,
)

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

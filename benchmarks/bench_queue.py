"""An item through a queue to workers, against the shortest program on a bare memory channel."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from _pairs import compare

from trio_services import Supervisor, Workers, WorkQueue
from trio_services.lifecycle import Bus
from trio_services.supervision import Tree

ITEMS = 30_000


async def nothing(item: int) -> None:
    pass


async def raw(capacity: int, count: int, timeout: float | None = None) -> float:
    async def work(channel: trio.MemoryReceiveChannel[int]) -> None:
        async for item in channel:
            if timeout is None:
                await nothing(item)
            else:
                with trio.fail_after(timeout):
                    await nothing(item)

    began = time.process_time()
    send, receive = trio.open_memory_channel[int](capacity)
    async with trio.open_nursery() as nursery, send:
        for _ in range(count):
            nursery.start_soon(work, receive)
        for item in range(ITEMS):
            await send.send(item)
        send.close()
    return (time.process_time() - began) / ITEMS * 1e6


async def ours(capacity: int, count: int, timeout: float | None = None) -> float:
    queue = WorkQueue[int]("items", capacity=capacity)
    workers = Workers(queue, nothing, count=count, timeout=timeout)
    tree = Tree(Supervisor("app", [workers]), 30.0, Bus(), open_ended=False)
    async with tree.open():
        # Who puts does it from the start on, as in the raw program: workers are there already.
        began = time.process_time()
        for item in range(ITEMS):
            await queue.put(item)
        queue.close()
        await tree.wait_ended()
        return (time.process_time() - began) / ITEMS * 1e6


def once(program: Callable[..., Awaitable[float]], *arguments: object) -> float:
    """CPU microseconds for each item."""
    return trio.run(program, *arguments)


for capacity, workers, target in (
    (100, 1, 0.35),
    (100, 10, 0.35),
    (100, 100, 0.35),
    (10_000, 1, 0.35),
    (10_000, 10, 0.35),
    (10_000, 100, 0.35),
    (1, 10, 1.0),
):
    compare(
        f"item through a queue of {capacity:,}, workers: {workers}",
        partial(once, ours, capacity, workers),
        partial(once, raw, capacity, workers),
        unit="CPU µs",
        target=target,
    )
compare(
    "item with a time-out, against a bare channel without one",
    partial(once, ours, 100, 10, 30.0),
    partial(once, raw, 100, 10),
    unit="CPU µs",
    target=1.2,
)
compare(
    "item with a time-out, against a bare channel with a cancel scope each",
    partial(once, ours, 100, 10, 30.0),
    partial(once, raw, 100, 10, 30.0),
    unit="CPU µs",
    target=0.8,
)

"""An item through a queue to one of ten workers, against a bare memory channel."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from _pairs import compare

from trio_services import Supervisor, Workers, WorkQueue
from trio_services.lifecycle import Bus
from trio_services.supervision import Tree

ITEMS = 50_000
WORKERS = 10


async def nothing(item: int) -> None:
    pass


async def raw(capacity: int) -> float:
    async def work(channel: trio.MemoryReceiveChannel[int]) -> None:
        async for item in channel:
            await nothing(item)

    began = time.process_time()
    send, receive = trio.open_memory_channel[int](capacity)
    async with trio.open_nursery() as nursery, send:
        for _ in range(WORKERS):
            nursery.start_soon(work, receive)
        for item in range(ITEMS):
            await send.send(item)
        send.close()
    return (time.process_time() - began) / ITEMS * 1e6


async def ours(capacity: int) -> float:
    queue = WorkQueue[int]("items", capacity=capacity)
    began = time.process_time()
    tree = Tree(
        Supervisor("app", [Workers(queue, nothing, count=WORKERS)]), 30.0, Bus(), open_ended=False
    )
    async with tree.open():
        for item in range(ITEMS):
            await queue.put(item)
        queue.close()
        await tree.wait_ended()
    return (time.process_time() - began) / ITEMS * 1e6


def once(program: Callable[[int], Awaitable[float]], capacity: int) -> float:
    """CPU microseconds for each item."""
    return trio.run(program, capacity)


for capacity, target in ((100, 0.35), (1, 1.0)):
    compare(
        f"item through a queue of {capacity}, {WORKERS} workers, against a bare channel",
        partial(once, ours, capacity),
        partial(once, raw, capacity),
        unit="CPU µs",
        target=target,
    )

"""Starting and stopping 10,000 services, against as many bare tasks."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
import trio.testing
from _pairs import compare

from trio_services import Child, Supervisor, open_supervisor

COUNT = 10_000


async def forever() -> None:
    await trio.sleep_forever()


async def raw() -> tuple[float, float]:
    gc.collect()
    began = time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(COUNT):
            nursery.start_soon(forever)
        await trio.testing.wait_all_tasks_blocked()
        started = time.process_time()
        nursery.cancel_scope.cancel()
    return started - began, time.process_time() - started


async def supervised() -> tuple[float, float]:
    tree = Supervisor("app", [Child(forever, name=f"s{n}") for n in range(COUNT)])
    gc.collect()
    began = time.process_time()
    async with open_supervisor(tree):
        await trio.testing.wait_all_tasks_blocked()
        started = time.process_time()
    return started - began, time.process_time() - started


def each(program: Callable[[], Awaitable[tuple[float, float]]], index: int) -> float:
    """CPU microseconds for each service, of the start (0) or the stop (1)."""
    return trio.run(program)[index] / COUNT * 1e6


for what, index, target in (("start", 0, 2.2), ("stop", 1, 1.8)):
    compare(
        f"{what} {COUNT:,} services, against bare tasks",
        partial(each, supervised, index),
        partial(each, raw, index),
        unit="CPU µs each",
        target=target,
        pairs=5,
    )

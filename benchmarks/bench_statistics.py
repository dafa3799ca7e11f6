"""What 10,000 supervised services cost to look at, and in memory."""

from __future__ import annotations

import gc
import json
import statistics
import time
import tracemalloc

import trio
import trio.testing

from trio_services import Child, Supervisor, open_supervisor

COUNT = 10_000


async def forever() -> None:
    await trio.sleep_forever()


def tree() -> Supervisor:
    return Supervisor("app", [Child(forever, name=f"s{n}") for n in range(COUNT)])


async def looking() -> float:
    """CPU milliseconds for the statistics of all."""
    times: list[float] = []
    async with open_supervisor(tree()) as opened:
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            began = time.process_time()
            opened.statistics()
            times.append(time.process_time() - began)
    return statistics.median(times) * 1e3


def used() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def supervised() -> float:
    """Bytes of memory for each service while it runs."""
    spec = tree()
    before = used()
    async with open_supervisor(spec):
        await trio.testing.wait_all_tasks_blocked()
        return (used() - before) / COUNT


async def raw() -> float:
    before = used()
    async with trio.open_nursery() as nursery:
        for _ in range(COUNT):
            nursery.start_soon(forever)
        await trio.testing.wait_all_tasks_blocked()
        taken = (used() - before) / COUNT
        nursery.cancel_scope.cancel()
    return taken


def report(figure: str, ours: float, unit: str, target: float) -> None:
    line = {"figure": figure, "ours": round(ours, 2), "unit": unit, "target": target}
    print(json.dumps({**line, "met": ours <= target}), flush=True)


report(f"statistics() of {COUNT:,} services", trio.run(looking), "CPU ms", 50)
tracemalloc.start()
report(
    "memory for each supervised service, over a bare task",
    (trio.run(supervised) - trio.run(raw)) / 1024,
    "KiB",
    4.0,
)

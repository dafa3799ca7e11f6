"""How late a thousand schedules of 100 ms begin, against as many loops around `sleep_until`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from _pairs import compare

from trio_services import Child, Schedule, Supervisor, open_supervisor
from trio_services.queues import current_job

SCHEDULES = 1000
PERIOD = 0.1
SECONDS = 4.0


async def raw(lateness: list[float]) -> None:
    async def loop(start: float) -> None:
        origin = trio.current_time() + start
        number = 0
        while True:
            await trio.sleep_until(origin + number * PERIOD)
            lateness.append(trio.current_time() - origin - number * PERIOD)
            number += 1

    async with trio.open_nursery() as nursery:
        for number in range(SCHEDULES):
            nursery.start_soon(loop, number / SCHEDULES * PERIOD)
        await trio.sleep(SECONDS)
        nursery.cancel_scope.cancel()


async def ours(lateness: list[float]) -> None:
    async def call() -> None:  # noqa: ASYNC124
        job = current_job.get()
        assert job is not None
        lateness.append(trio.current_time() - job.item.scheduled)

    children = [
        Child(Schedule(call, every=PERIOD, start=number / SCHEDULES * PERIOD), name=str(number))
        for number in range(SCHEDULES)
    ]
    async with open_supervisor(Supervisor("app", children)):
        await trio.sleep(SECONDS)


def p99(program: Callable[[list[float]], Awaitable[None]]) -> float:
    """Milliseconds that one call in a hundred is late, after the first second."""
    lateness: list[float] = []
    trio.run(program, lateness)
    settled = sorted(lateness[int(len(lateness) / SECONDS) :])
    return 1000 * settled[int(len(settled) * 0.99)]


def cpu(program: Callable[[list[float]], Awaitable[None]]) -> float:
    """The share of a processor, in percent."""
    began = time.process_time()
    lateness: list[float] = []
    trio.run(program, lateness)
    return 100 * (time.process_time() - began) / SECONDS


compare(
    f"lateness of {SCHEDULES:,} schedules of {PERIOD * 1000:g} ms, p99",
    partial(p99, ours),
    partial(p99, raw),
    unit="ms",
    target=1.2,
    pairs=5,
)
compare(
    f"processor time of {SCHEDULES:,} schedules of {PERIOD * 1000:g} ms",
    partial(cpu, ours),
    partial(cpu, raw),
    unit="%",
    target=2.0,
    pairs=3,
)

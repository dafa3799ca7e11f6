"""A restart without a delay, against a bare loop that opens a nursery for each attempt."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from _pairs import compare

from trio_services import Backoff, Child, Limit, Supervisor, open_supervisor

COUNT = 20_000


class Crash(Exception):
    """What the service fails with."""


class Crasher:
    """Fails at each start, and tells when it has done so often enough."""

    def __init__(self) -> None:
        self.left = COUNT
        self.done = trio.Event()

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        self.left -= 1
        if not self.left:
            self.done.set()
        raise Crash


async def raw() -> float:
    crasher = Crasher()
    began = time.process_time()
    while crasher.left:
        try:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112
                nursery.start_soon(crasher.run)
        except* Crash:
            pass
    return time.process_time() - began


async def supervised() -> float:
    crasher = Crasher()
    child = Child(crasher.run, backoff=Backoff(initial=0))
    tree = Supervisor("app", [child], max_restarts=Limit(COUNT, per=0.000001))
    began = time.process_time()
    async with open_supervisor(tree):
        await crasher.done.wait()
    return time.process_time() - began


def each(program: Callable[[], Awaitable[float]]) -> float:
    """CPU microseconds for each restart."""
    gc.collect()
    return trio.run(program) / COUNT * 1e6


compare(
    "restart, against a nursery for each attempt",
    partial(each, supervised),
    partial(each, raw),
    unit="CPU µs each",
    target=2.0,
)

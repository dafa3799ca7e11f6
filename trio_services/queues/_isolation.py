"""Where a handler runs: in the event loop, in a thread, or in a process of its own."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, get_args

import trio

from ..resilience import timeout as limit
from ..services import name_of
from ._processes import Processes

Isolation = Literal["task", "thread", "process"]


def check_isolation(handler: Callable[..., object], isolation: Isolation) -> None:
    """Refuse a handler that cannot run where it is to run.

    Raises:
        ValueError: it is a task's and no async function, or another's and one.
    """
    if isolation not in get_args(Isolation):
        choices = ", ".join(map(repr, get_args(Isolation)))
        raise ValueError(f"isolation must be one of {choices}, not {isolation!r}")
    is_async = inspect.iscoroutinefunction(inspect.unwrap(handler))
    if isolation != "task" and is_async:
        raise ValueError(
            f"{name_of(handler)} is an async function, which cannot run in a {isolation}: "
            'make it an ordinary one, or leave isolation at "task"'
        )
    if isolation == "task" and not is_async and _is_plain_function(handler):
        raise ValueError(
            f"{name_of(handler)} is not async: define it with `async def`, or give "
            'isolation="thread" or "process"'
        )


def _is_plain_function(handler: object) -> bool:
    """Whether what it returns is nothing to await, as far as one can see.

    A lambda may well return a coroutine, and so may a decorated function.
    """
    return inspect.isfunction(handler) and handler.__name__ != "<lambda>"


@asynccontextmanager
async def isolated(
    handler: Callable[..., Any], isolation: Isolation, *, timeout: float | None, count: int
) -> AsyncGenerator[Callable[[Any], Awaitable[object]], None]:
    """The async callable that runs a handler where it is to run, inside this block.

    Args:
        handler: what it runs.
        isolation: where.
        timeout: seconds that a call may take; None: no limit.
        count: how many calls there will be at the same time.
    """
    if isolation == "process":
        async with Processes(handler, timeout) as processes:
            await processes.prepare(count)
            yield processes.call
    elif isolation == "thread":
        limiter = trio.CapacityLimiter(math.inf)  # there are as many calls as workers
        # A thread cannot be cancelled: time-outs and stops are seen when it ends, or looks by
        # `trio.from_thread.check_cancelled()`.
        yield limited(partial(trio.to_thread.run_sync, handler, limiter=limiter), timeout)
    else:
        yield limited(handler, timeout)


def limited(
    call: Callable[[Any], Awaitable[object]], seconds: float | None
) -> Callable[[Any], Awaitable[object]]:
    """The same with a time-out, if it is to have one."""
    if seconds is None:
        return call

    async def call_in_time(item: object) -> None:
        with limit(seconds):
            await call(item)

    return call_in_time

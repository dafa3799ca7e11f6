"""Durable queues at work."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from trio_services import pg
from trio_services.queues import Workers

from ..queues.working import Watched, working

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .server import Server

TABLES = ("ready", "scheduled", "running", "dead", "lease", "unique_job")


def empty_tables(server: Server) -> None:
    """The framework's schema, with nothing in the queues."""
    trio.run(pg.migrate, server.url)
    server.execute(f"truncate {', '.join(f'trio_services.{table}' for table in TABLES)}")


def rows(server: Server) -> dict[str, int]:
    """How many rows there are in each table of the queues, without the zeros."""
    counts = {
        table: server.execute(f"select count(*) from trio_services.{table}")[0][0]
        for table in TABLES
    }
    return {table: count for table, count in counts.items() if count}


@asynccontextmanager
async def at_work(
    queue: pg.Queue[Any], handler: Callable[..., object], *, stop_within: float = 10.0, **more: Any
) -> AsyncGenerator[Watched]:
    """Workers inside the block; stopped at its end."""
    async with working(Workers(queue, handler, **more), stop_within=stop_within) as watched:
        yield watched


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Return when something has come true, which others do."""
    with trio.fail_after(within):  # noqa: ASYNC912
        while not condition():  # noqa: ASYNC110 -- another process does
            await trio.sleep(0.01)

"""Queries through a pool of ten connections, against psycopg on asyncio and asyncpg.

A server is started for the purpose; peers that are not installed are left out. A figure is
microseconds of wall time for each operation, when 1 or 10 tasks do them at the same time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio
from _pairs import compare

from trio_services import pg

OPERATIONS = 2_000
INSERT = "INSERT INTO bench (id) VALUES (1)"

Operation = Callable[[Any], Awaitable[object]]


async def ours_select(pool: pg.Pool) -> None:
    async with pool.connection() as connection:
        await (await connection.execute("SELECT 1")).fetchone()


async def ours_insert(pool: pg.Pool) -> None:
    async with pool.transaction() as connection:
        await connection.execute(INSERT)


async def ours(operation: Callable[[pg.Pool], Awaitable[object]], url: str, tasks: int) -> float:
    async with pg.open_pool(url, kwargs={"autocommit": True}, min_size=10) as pool:
        await pool.wait()

        async def work() -> None:
            for _ in range(OPERATIONS // tasks):
                await operation(pool)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(work)
        return (time.perf_counter() - began) / OPERATIONS * 1e6


async def on_asyncio(operation: Operation, pool: Any, tasks: int) -> float:
    async def work() -> None:
        for _ in range(OPERATIONS // tasks):
            await operation(pool)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return (time.perf_counter() - began) / OPERATIONS * 1e6


async def psycopg_select(pool: Any) -> None:
    async with pool.connection() as connection:
        await (await connection.execute("SELECT 1")).fetchone()


async def psycopg_insert(pool: Any) -> None:
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(INSERT)


async def psycopg(operation: Operation, url: str, tasks: int) -> float:
    pool = import_module("psycopg_pool").AsyncConnectionPool(
        url, kwargs={"autocommit": True}, min_size=10, max_size=10, open=False
    )
    async with pool:
        await pool.wait()
        return await on_asyncio(operation, pool, tasks)


async def asyncpg_select(pool: Any) -> None:
    async with pool.acquire() as connection:
        await connection.fetchrow("SELECT 1")


async def asyncpg_insert(pool: Any) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(INSERT)


async def asyncpg(operation: Operation, url: str, tasks: int) -> float:
    parts = dict(word.split("=", 1) for word in url.split())
    arguments = {"host": parts["host"], "port": int(parts["port"]), "user": parts["user"]}
    create = import_module("asyncpg").create_pool
    async with create(**arguments, database=parts["dbname"], min_size=10, max_size=10) as pool:
        return await on_asyncio(operation, pool, tasks)


def main(url: str) -> None:
    peers = {
        "psycopg on asyncio": ("psycopg_pool", psycopg, psycopg_select, psycopg_insert),
        "asyncpg": ("asyncpg", asyncpg, asyncpg_select, asyncpg_insert),
    }
    for peer, (package, run, *theirs) in peers.items():
        if find_spec(package) is None:
            continue
        names = ("SELECT 1", "insert and commit")
        for name, mine, its in zip(names, (ours_select, ours_insert), theirs, strict=True):
            for tasks in (1, 10):
                target = 1.0 if peer == "asyncpg" else {1: 0.67, 10: 0.5}[tasks]
                compare(
                    f"{name} through the pool, {tasks} at a time, against {peer}",
                    partial(on_trio, partial(ours, mine, url, tasks)),
                    partial(asyncio_run, partial(run, its, url, tasks)),
                    unit="µs",
                    target=target,
                )


def on_trio(function: Callable[[], Awaitable[float]]) -> float:
    return trio.run(function)


def asyncio_run(function: Callable[[], Any]) -> float:
    return float(asyncio.run(function()))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    server_class = import_module("tests.pg.server").Server
    server = server_class.create()
    try:
        server.start()
        server.execute("CREATE UNLOGGED TABLE bench (id int)")
        main(server.url)
    finally:
        server.remove()

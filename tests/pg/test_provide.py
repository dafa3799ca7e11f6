"""A job's transaction by injection: committed if it succeeds, and else rolled back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from psycopg import errors

from trio_services import Child, Container, Supervisor, Workers, WorkQueue, pg
from trio_services.host import open_host

from .server import Server

pytestmark = pytest.mark.usefixtures("items")

Handler = Callable[..., Awaitable[object]]


@asynccontextmanager
async def bound(server: Server, handler: Handler) -> AsyncGenerator[Handler]:
    async with pg.open_pool(server.url, max_size=4) as pool:
        container = Container()
        pg.provide(container, pool)
        async with container.open() as host, host.open_service() as service:
            yield await service.bind(handler, 1)
        with trio.fail_after(5):  # noqa: ASYNC912
            while server.running("insert into items"):  # noqa: ASYNC110 -- in the server
                await trio.sleep(0.01)
        assert not pool.statistics().requests_waiting


def entered(server: Server) -> list[int]:
    return [row[0] for row in server.execute("select id from items order by id")]


async def enter(item: int, connection: pg.AnyConnection) -> None:
    await connection.execute("insert into items values (%s)", [item])


async def test_job_that_succeeds_is_committed(server: Server) -> None:
    async with bound(server, enter) as job:
        await job(1)
        assert entered(server) == [1]


async def test_job_that_fails_is_rolled_back_and_the_next_is_committed(server: Server) -> None:
    async def fail_at_two(item: int, connection: pg.AnyConnection) -> None:
        await enter(item, connection)
        if item == 2:
            raise ValueError(item)

    async with bound(server, fail_at_two) as job:
        with pytest.raises(ValueError, match="2"):
            await job(2)
        assert entered(server) == []
        await job(3)
        assert entered(server) == [3]


async def test_job_that_is_cancelled_is_rolled_back(server: Server) -> None:
    async def hang(item: int, connection: pg.AnyConnection) -> None:
        await enter(item, connection)
        await connection.execute("select pg_sleep(60)")

    async with bound(server, hang) as job:
        with trio.move_on_after(0.2) as scope:
            await job(1)
        assert scope.cancelled_caught
        assert entered(server) == []
        assert not server.running("pg_sleep(60)")


async def test_commit_that_fails_fails_the_job(server: Server) -> None:
    async def enter_twice(item: int, connection: pg.AnyConnection) -> None:
        await connection.execute("set constraints all deferred")
        await enter(item, connection)
        await enter(item, connection)

    async with bound(server, enter_twice) as job:
        with pytest.raises(errors.UniqueViolation):
            await job(1)
        assert entered(server) == []


async def test_jobs_at_once_have_transactions_of_their_own(server: Server) -> None:
    async def fail_if_odd(item: int, connection: pg.AnyConnection) -> None:
        await enter(item, connection)
        await trio.sleep(0.01)
        if item % 2:
            raise ValueError(item)

    async def attempt(job: Handler, item: int) -> None:
        try:
            await job(item)
        except ValueError:
            assert item % 2

    async with bound(server, fail_if_odd) as job, trio.open_nursery() as nursery:
        for item in range(10):
            nursery.start_soon(attempt, job, item)
    assert entered(server) == [0, 2, 4, 6, 8]


async def test_workers_that_come_after_the_pool_get_a_transaction_for_each_item(
    server: Server,
) -> None:
    pool = pg.open_pool(server.url, name="pool")
    container = Container()
    pg.provide(container, pool)
    queue = WorkQueue[int]("numbers")
    for item in range(5):
        queue.put_nowait(item)
    tree = Supervisor("app", [Child(pool), Child(Workers(queue, enter), name="w", after=["pool"])])

    async with open_host(tree, container=container):
        with trio.fail_after(10):  # noqa: ASYNC912
            while len(entered(server)) < 5:  # noqa: ASYNC110 -- as others see it
                await trio.sleep(0.01)
    assert entered(server) == [0, 1, 2, 3, 4]

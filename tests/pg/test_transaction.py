"""Transactions on connections of a pool, and those that are tried again."""

from __future__ import annotations

import random
from typing import Literal

import psycopg
import pytest
import trio
from psycopg import errors
from psycopg.pq import TransactionStatus

from trio_services import pg

from .awkward import cancelled_at
from .server import Server


async def test_transaction_is_committed_at_the_end_of_its_block(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url) as pool:
        async with pool.transaction() as connection:
            await connection.execute("insert into items values (1)")
            assert connection.info.transaction_status == TransactionStatus.INTRANS
        assert server.execute("select id from items") == [(1,)]


async def test_nested_block_is_a_savepoint(server: Server, items: None) -> None:
    async with pg.open_pool(server.url) as pool, pool.transaction() as connection:
        await connection.execute("insert into items values (1)")
        async with connection.transaction() as savepoint:
            await connection.execute("insert into items values (2)")
            raise psycopg.Rollback(savepoint)
    assert server.execute("select id from items") == [(1,)]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_transaction_has_the_isolation_and_access_that_was_asked_for(
    isolation: Literal["read committed", "repeatable read", "serializable"], server: Server
) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:
        async with pool.transaction(isolation=isolation, read_only=True) as connection:
            shown = await connection.execute(
                "select current_setting('transaction_isolation'), "
                "current_setting('transaction_read_only')"
            )
            assert await shown.fetchone() == (isolation, "on")
        async with pool.transaction(read_only=False) as connection:
            shown = await connection.execute("show transaction_read_only")
            assert await shown.fetchone() == ("off",)
        async with pool.transaction() as connection:
            shown = await connection.execute("show transaction_isolation")
            assert await shown.fetchone() == ("read committed",)


async def test_statements_may_be_given_a_time_in_the_server(server: Server) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:
        with pytest.raises(errors.QueryCanceled, match="statement timeout"):
            async with pool.transaction(statement_timeout=0.05) as connection:
                await connection.execute("select pg_sleep(10)")
        async with pool.transaction() as connection:
            shown = await connection.execute("show statement_timeout")
            assert await shown.fetchone() == ("0",)


async def test_transaction_that_is_cancelled_anywhere_is_committed_or_not_as_it_says(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:
        outcomes: set[bool] = set()
        for step in range(30):
            committed = False

            async def insert() -> None:
                nonlocal committed
                async with pool.transaction(isolation="serializable") as connection:
                    await connection.execute("insert into items values (%s)", (step,))  # noqa: B023
                committed = True

            await cancelled_at(step, insert)
            assert (server.execute(f"select * from items where id = {step}") != []) == committed
            outcomes.add(committed)
        async with pool.connection(1) as connection:
            await connection.execute("select 1")
        assert outcomes == {True, False}
        assert pool.statistics().connections_lost == 0


async def test_transactions_that_conflict_are_tried_again_until_all_are_done(
    server: Server, items: None
) -> None:
    server.execute("drop table if exists accounts; create table accounts (id int, money int)")
    server.execute("insert into accounts values (1, 0)")
    calls = 0

    async def deposit(connection: pg.AnyConnection, amount: int) -> int:
        nonlocal calls
        calls += 1
        cursor = await connection.execute("select money from accounts where id = 1")
        row = await cursor.fetchone()
        assert row is not None
        money: int = row[0] + amount
        await trio.sleep(random.random() * 0.002)
        await connection.execute("update accounts set money = %s where id = 1", (money,))
        return money

    async with pg.open_pool(server.url, max_size=4) as pool:
        results: list[int] = []

        async def run() -> None:
            results.append(await pool.run_transaction(deposit, 10, retries=50))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(run)
    assert sorted(results) == [10 * (i + 1) for i in range(8)]
    assert calls > 8


async def test_conflict_in_a_nursery_is_a_conflict(server: Server) -> None:
    calls = 0

    async def conflict(connection: pg.AnyConnection) -> None:
        nonlocal calls
        calls += 1
        await connection.execute("select 1")
        if calls < 3:
            raise ExceptionGroup("of a nursery", [errors.DeadlockDetected()])

    async with pg.open_pool(server.url) as pool:
        await pool.run_transaction(conflict)
    assert calls == 3


async def test_conflicts_that_go_on_are_told_in_the_end(server: Server) -> None:
    calls = 0

    async def conflict(connection: pg.AnyConnection) -> None:
        nonlocal calls
        calls += 1
        await connection.execute("select 1")
        raise errors.SerializationFailure

    async with pg.open_pool(server.url) as pool:
        with pytest.raises(errors.SerializationFailure):
            await pool.run_transaction(conflict, retries=2)
    assert calls == 3


@pytest.mark.parametrize("error", [ZeroDivisionError(), pg.CommitUnknown()])
async def test_other_errors_are_not_tried_again(error: Exception, server: Server) -> None:
    calls = 0

    async def fail(connection: pg.AnyConnection) -> None:
        nonlocal calls
        calls += 1
        await connection.execute("select 1")
        raise error

    async with pg.open_pool(server.url) as pool:
        with pytest.raises(type(error)):
            await pool.run_transaction(fail)
    assert calls == 1

"""A cancelled query is cancelled in the server, and the connection is usable after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import psycopg
import pytest
import trio
from psycopg.pq import TransactionStatus

from trio_services import pg

from .awkward import cancelled_at
from .server import Server

Use = Callable[[pg.Connection[tuple[object, ...]]], Awaitable[object]]


async def _query(connection: pg.Connection[tuple[object, ...]]) -> None:
    await connection.execute("select pg_sleep(60) /* storm */")


async def _many(connection: pg.Connection[tuple[object, ...]]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "insert into items select %s /* storm */ where pg_sleep(0.0002) is not null",
            [(number,) for number in range(100)],
        )


async def _stream(connection: pg.Connection[tuple[object, ...]]) -> None:
    query = "select generate_series(1, 1000000) /* storm */"
    async with connection.stream(query) as rows:
        async for _ in rows:
            await trio.lowlevel.checkpoint()


async def _copy_out(connection: pg.Connection[tuple[object, ...]]) -> None:
    async with (
        connection.cursor() as cursor,
        cursor.copy("copy (select generate_series(1, 1000000) /* storm */) to stdout") as copy,
    ):
        while await copy.read():
            await trio.lowlevel.checkpoint()


async def _copy_in(connection: pg.Connection[tuple[object, ...]]) -> None:
    async with (
        connection.cursor() as cursor,
        cursor.copy("copy items from stdin /* storm */") as copy,
    ):
        for number in range(50):
            await copy.write_row((number,))
            await trio.lowlevel.checkpoint()


async def _pipeline(connection: pg.Connection[tuple[object, ...]]) -> None:
    async with connection.pipeline() as pipeline:
        for number in range(5):
            await connection.execute("select %s::int /* storm */", (number,))
        async with connection.transaction():
            await connection.execute("insert into items values (1) /* storm */")
        await pipeline.sync()
        await connection.execute("select pg_sleep(60) /* storm */")


async def _blocks(connection: pg.Connection[tuple[object, ...]]) -> None:
    async with connection.transaction():
        await connection.execute("insert into items values (1) /* storm */")
        async with connection.transaction():
            await connection.execute("insert into items values (2) /* storm */")
        async with connection.transaction():
            await connection.execute("insert into items values (3) /* storm */")


async def _server_cursor(connection: pg.Connection[tuple[object, ...]]) -> None:
    async with connection.transaction(), connection.cursor("storm") as cursor:
        await cursor.execute("select generate_series(1, 1000) /* storm */")
        async for _ in cursor:
            pass


USES = (_query, _many, _stream, _copy_out, _copy_in, _pipeline, _blocks, _server_cursor)


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("use", USES)
async def test_use_that_is_cancelled_anywhere_leaves_a_connection_in_order(
    use: Use, autocommit: bool, server: Server, items: None
) -> None:
    async with await pg.connect(server.url, autocommit=autocommit) as connection:
        for step in range(20):
            with trio.fail_after(10):
                cancelled = await cancelled_at(step, lambda: use(connection))
            assert not connection.closed
            assert connection.pgconn.pipeline_status == 0
            assert connection.info.transaction_status != TransactionStatus.ACTIVE
            assert not server.running("storm")
            if autocommit:
                assert connection.info.transaction_status == TransactionStatus.IDLE
            await connection.rollback()
            assert await (await connection.execute("select %s::int", (step,))).fetchone() == (step,)
            await connection.rollback()
            server.execute("truncate items")
            if not cancelled:
                break


async def test_query_that_is_cancelled_is_cancelled_in_the_server(server: Server) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        with trio.move_on_after(0.1) as scope:
            await connection.execute("select pg_sleep(60) /* cancelled */")
        assert scope.cancelled_caught
        assert not server.running("cancelled")
        assert await (await connection.execute("select 1")).fetchone() == (1,)


async def test_query_is_not_begun_in_a_cancelled_scope(server: Server, items: None) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.execute("insert into items values (1)")
        assert scope.cancelled_caught
    assert server.execute("select * from items") == []


async def test_statement_that_raises_cancelled_had_no_effect_and_one_that_returns_had(
    server: Server, items: None
) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        outcomes: set[bool] = set()
        for step in range(12):
            inserted = False

            async def insert(number: int) -> None:
                nonlocal inserted
                await connection.execute("insert into items values (%s)", (number,))
                inserted = True

            await cancelled_at(step, partial(insert, step))
            there = server.execute(f"select * from items where id = {step}") != []
            assert there == inserted
            outcomes.add(inserted)
        assert outcomes == {True, False}


async def test_block_that_raises_cancelled_is_rolled_back_and_one_that_returns_committed(
    server: Server, items: None
) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        outcomes: set[bool] = set()
        for step in range(40):
            committed = False

            async def insert(number: int) -> None:
                nonlocal committed
                async with connection.transaction():
                    await connection.execute("insert into items values (%s)", (number,))
                committed = True

            await cancelled_at(step, partial(insert, step))
            there = server.execute(f"select * from items where id = {step}") != []
            assert there == committed
            outcomes.add(committed)
        assert outcomes == {True, False}


async def test_commit_that_was_sent_is_waited_for(server: Server, items: None) -> None:
    # The constraint is checked by COMMIT, which waits there for the other transaction.
    async with (
        await pg.connect(server.url) as other,
        await pg.connect(server.url) as connection,
        trio.open_nursery() as nursery,
    ):
        await other.execute("insert into items values (1)")
        await connection.execute("set constraints all deferred")
        await connection.execute("insert into items values (1), (2)")

        async def release() -> None:
            await server.until_running("COMMIT")
            scope.cancel()
            await trio.sleep(0.1)
            await other.rollback()

        nursery.start_soon(release)
        with trio.CancelScope() as scope:
            await connection.commit()
            assert server.execute("select count(*) from items") == [(2,)]
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_commit_that_is_cancelled_and_not_answered_is_unknown(
    server: Server, items: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._drive.CLEAN_UP", 0.2)
    async with (
        await pg.connect(server.url) as other,
        await pg.connect(server.url) as connection,
        trio.open_nursery() as nursery,
    ):
        await other.execute("insert into items values (1)")
        await connection.execute("set constraints all deferred")
        await connection.execute("insert into items values (1)")

        async def cancel() -> None:
            await server.until_running("COMMIT")
            scope.cancel()

        nursery.start_soon(cancel)
        with trio.CancelScope() as scope, pytest.raises(pg.CommitUnknown):
            await connection.commit()
        assert connection.closed
        await other.rollback()


async def test_connection_is_closed_if_the_server_cannot_be_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cannot(pgconn: object) -> None:
        await trio.lowlevel.checkpoint()
        raise psycopg.OperationalError("no way")

    monkeypatch.setattr("trio_services.pg._drive.CLEAN_UP", 0.2)
    monkeypatch.setattr("trio_services.pg._drive.cancel_query", cannot)
    connection = await pg.connect(server.url, autocommit=True)
    with trio.move_on_after(0.05) as scope:
        await connection.execute("select pg_sleep(2) /* deaf */")
    assert scope.cancelled_caught
    assert connection.closed
    server.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%deaf%' "
        "and pid <> pg_backend_pid()"
    )


@pytest.mark.skipif(not psycopg.capabilities.has_cancel_safe(), reason="libpq asks in threads")
async def test_cancellations_of_many_queries_do_not_open_as_many_connections_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_services.pg import _cancel

    at_once = most = 0
    complete = _cancel._complete

    async def counted(request: object) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await complete(request)  # type: ignore[arg-type]
        finally:
            at_once -= 1

    monkeypatch.setattr(_cancel, "_complete", counted)
    connections = [await pg.connect(server.url, autocommit=True) for _ in range(20)]
    with trio.move_on_after(0.2):
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_query, connection)
    assert not server.running("storm")
    assert 1 < most <= 8
    for connection in connections:
        assert not connection.closed
        await connection.close()


async def test_server_cursor_is_closed_in_the_server_when_it_is_cancelled(
    server: Server,
) -> None:
    async with await pg.connect(server.url) as connection:
        async with connection.transaction():
            with trio.CancelScope() as scope:
                async with connection.cursor("left", withhold=True) as cursor:
                    await cursor.execute("select 1")
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        left = await connection.execute("select count(*) from pg_cursors")
        assert await left.fetchone() == (0,)


async def test_libpq_without_cancel_requests_is_asked_in_a_thread(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.capabilities, "has_cancel_safe", lambda: False)
    async with await pg.connect(server.url, autocommit=True) as connection:
        with trio.move_on_after(0.1) as scope:
            await connection.execute("select pg_sleep(60) /* old */")
        assert scope.cancelled_caught
        assert not server.running("old")
        assert not connection.closed


async def test_cancel_safe_cancels_what_another_task_runs(server: Server) -> None:
    async with (
        await pg.connect(server.url, autocommit=True) as connection,
        trio.open_nursery() as nursery,
    ):

        async def cancel() -> None:
            await server.until_running("safely")
            await connection.cancel_safe()

        nursery.start_soon(cancel)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute("select pg_sleep(60) /* safely */")

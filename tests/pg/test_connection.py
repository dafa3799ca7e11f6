"""What psycopg's connections can do, on Trio."""

from __future__ import annotations

import sys
from unittest.mock import patch

import psycopg
import pytest
import trio
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from trio_services import pg

from .server import Server


async def test_query_gives_rows(server: Server) -> None:
    async with await pg.connect(server.url) as connection:
        cursor = await connection.execute("select %s::int, %s", (1, "one"))
        assert await cursor.fetchall() == [(1, "one")]


async def test_rows_are_made_by_a_factory_and_values_by_adapters(server: Server) -> None:
    async with await pg.connect(server.url, row_factory=dict_row) as connection:
        cursor = await connection.execute("select %s as value", (Jsonb({"a": [1]}),))
        assert await cursor.fetchone() == {"value": {"a": [1]}}


async def test_binary_results_are_the_same(server: Server) -> None:
    async with (
        await pg.connect(server.url) as connection,
        connection.cursor(binary=True) as cursor,
    ):
        await cursor.execute("select 1::int8, 2.5::float8, 'x'::text, '\\xff'::bytea")
        assert await cursor.fetchone() == (1, 2.5, "x", b"\xff")


async def test_leaving_the_connection_commits_and_closes_it(server: Server, items: None) -> None:
    async with await pg.connect(server.url) as connection:
        await connection.execute("insert into items values (1)")
    assert connection.closed
    assert server.execute("select id from items") == [(1,)]


async def test_leaving_the_connection_with_an_error_rolls_back(server: Server, items: None) -> None:
    connection = await pg.connect(server.url)

    async def fail() -> None:
        async with connection:
            await connection.execute("insert into items values (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert connection.closed
    assert server.execute("select id from items") == []


async def test_client_and_raw_cursors_work(server: Server) -> None:
    connection = await pg.connect(server.url, cursor_factory=psycopg.AsyncClientCursor)
    async with connection:
        assert await (await connection.execute("select %s", ("it's",))).fetchone() == ("it's",)
        raw = psycopg.AsyncRawCursor(connection)
        await raw.execute("select $1::text", ["raw"])
        assert await raw.fetchone() == ("raw",)


async def test_server_side_cursor_reads_in_pages(server: Server) -> None:
    async with await pg.connect(server.url) as connection:
        async with connection.cursor("paged") as cursor:
            cursor.itersize = 10
            await cursor.execute("select generate_series(1, 25)")
            assert [row[0] async for row in cursor] == list(range(1, 26))
        left = await connection.execute("select count(*) from pg_cursors")
        assert await left.fetchone() == (0,)


async def test_statement_that_is_used_often_is_prepared(server: Server) -> None:
    async with await pg.connect(server.url, prepare_threshold=2) as connection:
        for _ in range(4):
            await connection.execute("select %s::int + 1", (1,))
        prepared = await connection.execute(
            "select count(*) from pg_prepared_statements", prepare=False
        )
        assert await prepared.fetchone() == (1,)


async def test_many_rows_are_inserted_and_streamed(server: Server, items: None) -> None:
    async with await pg.connect(server.url) as connection, connection.cursor() as cursor:
        await cursor.executemany("insert into items values (%s)", [(i,) for i in range(500)])
        async with connection.stream("select id from items order by id") as rows:
            assert [row[0] async for row in rows] == list(range(500))


async def test_stream_that_is_left_early_leaves_the_connection_usable(server: Server) -> None:
    async with await pg.connect(server.url) as connection:
        async with connection.stream("select generate_series(1, 10000000)") as rows:
            async for _ in rows:
                break
        await connection.rollback()
        assert await (await connection.execute("select 1")).fetchone() == (1,)


async def test_copy_goes_both_ways(server: Server, items: None) -> None:
    async with await pg.connect(server.url) as connection, connection.cursor() as cursor:
        async with cursor.copy("copy items from stdin") as copy:
            for number in range(20_000):
                await copy.write_row((number,))
        async with cursor.copy("copy items to stdout (format binary)") as copy:
            copy.set_types(["int4"])
            assert sum([row[0] async for row in copy.rows()]) == sum(range(20_000))


async def test_pipeline_gives_results_in_order(server: Server) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        async with connection.pipeline():
            cursors = [await connection.execute("select %s::int", (i,)) for i in range(100)]
            async with connection.transaction():
                await connection.execute("select 1")
        assert [await cursor.fetchone() for cursor in cursors] == [(i,) for i in range(100)]


async def test_pipeline_with_much_data_in_both_directions_does_not_lock_up(
    server: Server,
) -> None:
    text = "x" * 1_000_000
    with trio.fail_after(20):
        async with (
            await pg.connect(server.url, autocommit=True) as connection,
            connection.pipeline(),
        ):
            cursors = [await connection.execute("select %s", (text,)) for _ in range(20)]
            assert [await cursor.fetchone() for cursor in cursors] == [(text,)] * 20


async def test_two_phase_transaction_is_committed_later(server: Server, items: None) -> None:
    connection = await pg.connect(server.url)
    await connection.tpc_begin("later")
    await connection.execute("insert into items values (1)")
    await connection.tpc_prepare()
    await connection.close()
    async with await pg.connect(server.url) as connection:
        (xid,) = await connection.tpc_recover()
        assert xid.gtrid == "later"
        await connection.tpc_commit(xid)
    assert server.execute("select id from items") == [(1,)]


async def test_nested_block_is_rolled_back_alone(server: Server, items: None) -> None:
    async with (
        await pg.connect(server.url, autocommit=True) as connection,
        connection.transaction(),
    ):

        async def fail() -> None:
            async with connection.transaction():
                await connection.execute("insert into items values (2)")
                raise ZeroDivisionError

        await connection.execute("insert into items values (1)")
        with pytest.raises(ZeroDivisionError):
            await fail()
        async with connection.transaction():
            await connection.execute("insert into items values (3)")
    assert server.execute("select id from items order by id") == [(1,), (3,)]


async def test_rollback_error_ends_the_block_that_it_names(server: Server, items: None) -> None:
    async with (
        await pg.connect(server.url, autocommit=True) as connection,
        connection.transaction() as outer,
    ):
        await connection.execute("insert into items values (1)")
        async with connection.transaction():
            raise psycopg.Rollback(outer)
    assert server.execute("select id from items") == []


async def test_block_that_hides_a_failure_is_not_taken_for_committed(
    server: Server, items: None
) -> None:
    async with await pg.connect(server.url) as connection:

        async def hide() -> None:
            async with connection.transaction():
                await connection.execute("insert into items values (1)")
                with pytest.raises(errors.DivisionByZero):
                    await connection.execute("select 1/0")

        with pytest.raises(errors.InFailedSqlTransaction, match="rolled back"):
            await hide()
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert server.execute("select id from items") == []


async def test_commit_that_rolls_back_says_so(server: Server, items: None) -> None:
    async with await pg.connect(server.url) as connection:
        await connection.execute("insert into items values (1)")
        with pytest.raises(errors.DivisionByZero):
            await connection.execute("select 1/0")
        with pytest.raises(errors.InFailedSqlTransaction, match="rolled back"):
            await connection.commit()


async def test_block_whose_connection_is_lost_is_not_taken_for_committed(server: Server) -> None:
    connection = await pg.connect(server.url, autocommit=True)

    async def hide() -> None:
        async with connection.transaction():
            with pytest.raises(errors.AdminShutdown):
                await connection.execute("select pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(psycopg.OperationalError, match="rolled back"):
        await hide()


async def test_connection_that_is_lost_during_commit_says_that_the_outcome_is_unknown(
    server: Server, items: None
) -> None:
    # The constraint is checked by COMMIT, which waits there for the other transaction.
    async with (
        await pg.connect(server.url) as other,
        await pg.connect(server.url) as connection,
        trio.open_nursery() as nursery,
    ):
        await other.execute("insert into items values (1)")
        await connection.execute("set constraints all deferred")
        await connection.execute("insert into items values (1)")

        async def kill() -> None:
            await server.until_running("COMMIT")
            await other.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))

        nursery.start_soon(kill)
        with pytest.raises(pg.CommitUnknown) as caught:
            await connection.commit()
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        await other.rollback()


async def test_transaction_that_was_idle_for_too_long_is_known_to_be_rolled_back(
    server: Server,
) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        await connection.execute("set idle_in_transaction_session_timeout = 50")

        async def idle() -> None:
            async with connection.transaction():
                await connection.execute("select 1")
                await trio.sleep(0.2)

        with pytest.raises(errors.IdleInTransactionSessionTimeout):
            await idle()


async def test_isolation_level_and_access_mode_hold_for_transactions(server: Server) -> None:
    async with await pg.connect(server.url) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        await connection.set_read_only(True)
        async with connection.transaction():
            shown = await connection.execute("show transaction_isolation")
            assert await shown.fetchone() == ("serializable",)
            with pytest.raises(errors.ReadOnlySqlTransaction):
                await connection.execute("create table never (id int)")
            raise psycopg.Rollback


async def test_two_tasks_take_turns_on_a_connection(server: Server) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        results: list[int] = []

        async def query(number: int) -> None:
            nonlocal results
            cursor = await connection.execute("select %s::int, pg_sleep(0.01)", (number,))
            results += [row[0] for row in await cursor.fetchall()]

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(query, number)
        assert sorted(results) == list(range(5))


async def test_query_in_the_middle_of_a_copy_of_the_same_task_is_an_error(
    server: Server, items: None
) -> None:
    connection = await pg.connect(server.url, autocommit=True)
    async with connection, connection.cursor() as cursor:
        with pytest.raises(psycopg.ProgrammingError, match="another connection"):
            async with cursor.copy("copy items from stdin"):
                await connection.execute("select 1")


async def test_connection_that_is_closed_says_so(server: Server) -> None:
    connection = await pg.connect(server.url)
    await connection.close()
    await connection.close()
    with pytest.raises(psycopg.OperationalError, match="closed"):
        await connection.execute("select 1")


async def test_closing_wakes_whoever_waits_for_the_connection(server: Server) -> None:
    connection = await pg.connect(server.url, autocommit=True)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def sleep() -> None:
                with pytest.raises(psycopg.Error):
                    await connection.execute("select pg_sleep(60) /* closing */")

            nursery.start_soon(sleep)
            await server.until_running("closing")
            await connection.close()
    assert not server.running("closing")


async def test_wait_with_a_timeout_gives_up(server: Server) -> None:
    async with await pg.connect(server.url, autocommit=True) as connection:
        cursor = connection.cursor()
        with pytest.raises(trio.TooSlowError):
            await connection.wait(cursor._execute_gen("select pg_sleep(60)"), timeout=0.05)
        assert await (await connection.execute("select 1")).fetchone() == (1,)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no other way there")
async def test_select_takes_the_place_of_poll(server: Server, items: None) -> None:
    from trio_services.pg import _wait

    with patch.object(_wait, "look_at", _wait.select_socket):
        async with await pg.connect(server.url) as connection, connection.cursor() as cursor:
            await cursor.executemany("insert into items values (%s)", [(i,) for i in range(50)])
            await cursor.execute("select count(*) from items")
            assert await cursor.fetchone() == (50,)


async def test_other_tasks_run_during_a_long_copy(server: Server, items: None) -> None:
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with (
        await pg.connect(server.url) as connection,
        connection.cursor() as cursor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch)
        async with cursor.copy("copy items from stdin") as copy:
            turns = 0
            for number in range(100_000):  # less than what is sent without being asked for room
                await copy.write_row((number,))
            assert turns >= 3
        nursery.cancel_scope.cancel()

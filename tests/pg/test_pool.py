"""The pool: what it lends, when it waits, what it takes back, and that it loses nothing."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import trio
from psycopg import errors
from psycopg.pq import TransactionStatus
from trio.testing import wait_all_tasks_blocked

from trio_services import Child, Supervisor, open_supervisor, pg
from trio_services.lifecycle import HealthStatus
from trio_services.pg._stock import AnyConnection

from .server import Server

IDLE = TransactionStatus.IDLE


async def at_rest(pool: pg.Pool) -> None:
    """Return when no connection is lent or being brought to order."""
    with trio.fail_after(10):  # noqa: ASYNC912
        while pool.statistics().pool_available < pool.statistics().pool_size:  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_connection_is_lent_and_what_was_done_is_committed(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url) as pool:
        async with pool.connection() as connection:
            await connection.execute("insert into items values (1)")
        assert server.execute("select id from items") == [(1,)]


async def test_error_in_the_block_rolls_back_and_the_connection_is_lent_again(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:

        async def fail() -> None:
            async with pool.connection() as connection:
                await connection.execute("insert into items values (1)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with pool.connection() as connection:
            cursor = await connection.execute("select id from items")
            assert await cursor.fetchall() == []
        assert pool.statistics().connections_num == 1


async def test_connection_that_was_used_last_is_lent_first(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=3) as pool:
        await pool.wait()
        pids: set[int] = set()
        for _ in range(6):
            async with pool.connection() as connection:
                pids.add(connection.info.backend_pid)
        assert len(pids) == 1


async def test_requests_wait_in_line(server: Server) -> None:
    order: list[int] = []
    async with (
        pg.open_pool(server.url, max_size=1) as pool,
        trio.open_nursery() as nursery,
        pool.connection(),
    ):

        async def use(number: int) -> None:
            async with pool.connection():
                order.append(number)

        for number in range(6):
            nursery.start_soon(use, number)
            await wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4, 5]


async def test_pool_grows_to_its_maximum(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=1, max_size=3) as pool:

        async def use() -> None:
            async with pool.connection() as connection:
                await connection.execute("select pg_sleep(0.05)")

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(use)
        statistics = pool.statistics()
    assert statistics.pool_size == 3
    assert statistics.connections_num == 3
    assert statistics.requests_num == 6
    assert statistics.requests_queued >= 3


async def test_request_times_out_and_says_why(server: Server) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool, pool.connection():
        with pytest.raises(pg.PoolTimeout, match=r"within 0\.05 s; all are in use: raise max_size"):
            await pool.getconn(0.05)
        assert pool.statistics().requests_errors == 1
        assert pool.statistics().requests_waiting == 0


async def test_too_many_that_wait_are_turned_away(server: Server) -> None:
    async with (
        pg.open_pool(server.url, max_size=1, max_waiting=1) as pool,
        trio.open_nursery() as nursery,
        pool.connection(),
    ):

        async def wait() -> None:
            async with pool.connection():
                pass

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with pytest.raises(pg.TooManyRequests, match="1 wait for a connection"):
            await pool.getconn()


async def test_pool_that_is_not_open_lends_nothing(server: Server) -> None:
    pool = pg.open_pool(server.url)
    with pytest.raises(pg.PoolClosed, match="pool is not open"):
        await pool.getconn()
    async with pool:
        pass
    with pytest.raises(pg.PoolClosed):
        await pool.getconn()


async def test_pool_can_be_opened_again_but_not_twice_at_once(server: Server) -> None:
    pool = pg.open_pool(server.url)
    for _ in range(2):
        async with pool, pool.connection() as connection:
            await connection.execute("select 1")
            with pytest.raises(RuntimeError, match="open already"):
                await pool.__aenter__()


async def test_block_that_hides_the_loss_of_its_connection_is_told(server: Server) -> None:
    async def hide(pool: pg.Pool) -> None:
        async with pool.connection() as connection:
            with suppress(psycopg.Error):
                await connection.execute("select pg_terminate_backend(pg_backend_pid())")

    async with pg.open_pool(server.url) as pool:
        with pytest.raises(psycopg.OperationalError, match="closed"):
            await hide(pool)


async def test_closing_tells_those_that_wait(server: Server) -> None:
    told: list[Exception] = []

    async def wait(pool: pg.Pool) -> None:
        try:
            await pool.getconn()
        except pg.PoolClosed as error:
            told.append(error)

    async with trio.open_nursery() as nursery:
        async with pg.open_pool(server.url, max_size=1) as pool:
            connection = await pool.getconn()
            nursery.start_soon(wait, pool)  # noqa: ASYNC111 -- and sees that it closes
            await wait_all_tasks_blocked(0.05)
        pool.putconn(connection)
        assert connection.closed
    assert len(told) == 1


async def test_close_waits_for_those_that_are_lent(server: Server) -> None:
    async with pg.open_pool(server.url) as pool, trio.open_nursery() as nursery:
        done = False

        async def use(task_status: trio.TaskStatus[None]) -> None:
            nonlocal done
            async with pool.connection() as connection:
                task_status.started()
                await connection.execute("select pg_sleep(0.1)")
                done = True

        await nursery.start(use)
        await pool.close()
        assert done
        with pytest.raises(pg.PoolClosed):
            await pool.getconn()


async def test_nothing_is_left_after_the_pool(server: Server) -> None:
    before = server.connections()
    async with pg.open_pool(server.url, min_size=4) as pool:
        await pool.wait()
        async with pool.reserved.connection() as connection:
            await connection.execute("select 1")
        assert server.connections() == before + 5
    with trio.fail_after(5):  # noqa: ASYNC912
        while server.connections() != before:  # noqa: ASYNC110 -- of another process
            await trio.sleep(0.01)


async def test_error_in_the_block_of_the_pool_comes_out_as_itself(server: Server) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pg.open_pool(server.url):
            raise ZeroDivisionError


async def test_transaction_that_was_left_open_is_rolled_back_by_the_pool(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:
        connection = await pool.getconn()
        await connection.execute("insert into items values (1)")
        pool.putconn(connection)
        async with pool.connection() as connection:
            assert connection.info.transaction_status == IDLE
        assert server.execute("select id from items") == []


async def test_connection_cannot_be_given_back_twice_or_to_another(server: Server) -> None:
    async with pg.open_pool(server.url) as pool, pg.open_pool(server.url) as other:
        connection = await pool.getconn()
        with pytest.raises(ValueError, match="not lent"):
            other.putconn(connection)
        pool.putconn(connection)
        with pytest.raises(ValueError, match="not lent"):
            pool.putconn(connection)


async def test_modes_that_a_borrower_has_changed_are_changed_back(server: Server) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:
        async with pool.connection() as connection:
            await connection.set_autocommit(True)
            await connection.set_read_only(True)
        async with pool.connection() as connection:
            assert not connection.autocommit
            assert connection.read_only is None
        assert pool.statistics().connections_num == 1


async def test_connection_is_configured_when_new_and_reset_when_given_back(
    server: Server,
) -> None:
    async def configure(connection: AnyConnection) -> None:
        await connection.execute("set application_name = 'configured'")
        await connection.commit()

    async def reset(connection: AnyConnection) -> None:
        await connection.execute("set statement_timeout = 0")
        await connection.commit()

    async with pg.open_pool(server.url, max_size=1, configure=configure, reset=reset) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                shown = await connection.execute("show application_name")
                assert await shown.fetchone() == ("configured",)
                shown = await connection.execute("show statement_timeout")
                assert await shown.fetchone() == ("0",)
                await connection.execute("set statement_timeout = 5000")
        assert pool.statistics().connections_num == 1


async def test_configure_that_leaves_a_transaction_open_is_told(server: Server) -> None:
    async def configure(connection: AnyConnection) -> None:
        await connection.execute("select 1")

    async with pg.open_pool(server.url, configure=configure) as pool:
        with pytest.raises(pg.PoolTimeout, match="left the connection in a transaction"):
            await pool.getconn(0.2)


async def test_connection_that_does_not_pass_the_check_is_replaced(server: Server) -> None:
    seen: list[AnyConnection] = []

    async def check(connection: AnyConnection) -> None:
        seen.append(connection)
        if len(seen) == 1:
            raise psycopg.OperationalError("not this one")
        await connection.execute("select 1")

    async with (
        pg.open_pool(server.url, max_size=1, check=check) as pool,
        pool.connection() as connection,
    ):
        assert connection is seen[1]
        assert seen[0].closed


async def test_connection_is_replaced_after_its_lifetime(server: Server) -> None:
    async with pg.open_pool(server.url, max_size=1, max_lifetime=0.05) as pool:
        async with pool.connection() as connection:
            first = connection.info.backend_pid
            await trio.sleep(0.06)
        async with pool.connection() as connection:
            assert connection.info.backend_pid != first


async def test_idle_connections_over_the_minimum_are_closed(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=1, max_size=4, max_idle=0.1) as pool:
        connections = [await pool.getconn() for _ in range(4)]
        for connection in connections:
            pool.putconn(connection)
        assert pool.statistics().pool_size == 4
        with trio.fail_after(5):  # noqa: ASYNC912
            while pool.statistics().pool_size > 1:  # noqa: ASYNC110 -- in time
                await trio.sleep(0.01)


async def test_drained_pool_has_new_connections(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=2) as pool:
        await pool.wait()
        lent = await pool.getconn()
        pool.drain()
        pool.putconn(lent)
        assert lent.closed
        await pool.wait()
        assert pool.statistics().connections_num == 4


async def test_pool_is_resized(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=1, max_size=1) as pool:
        pool.resize(3, 5)
        await pool.wait()
        connections = [await pool.getconn() for _ in range(5)]
        pool.resize(1, 2)
        for connection in connections:
            pool.putconn(connection)
        assert pool.statistics().pool_size == 2


async def test_close_of_a_connection_gives_it_back_if_the_pool_wants_that(
    server: Server,
) -> None:
    async with pg.open_pool(server.url, max_size=1, close_returns=True) as pool:
        async with pool.connection() as connection:
            await connection.close()
            assert not connection.closed
        assert pool.statistics().pool_available == 1


async def test_connection_may_be_said_by_functions(server: Server) -> None:
    async def conninfo() -> str:
        await trio.lowlevel.checkpoint()
        return server.url

    def kwargs() -> dict[str, Any]:
        return {"autocommit": True}

    async with (
        pg.open_pool(conninfo, kwargs=kwargs) as pool,
        pool.connection() as connection,
    ):
        assert connection.autocommit


async def test_reserved_connection_is_there_when_all_others_are_in_use(server: Server) -> None:
    async with (
        pg.open_pool(server.url, max_size=1) as pool,
        pool.connection(),
        pool.reserved.connection(timeout=5) as connection,
    ):
        await connection.execute("select 1")


async def test_statistics_are_counted_from_zero_after_a_pop(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        async with pool.connection() as connection:
            await connection.execute("select pg_sleep(0.01)")
        stats = pool.pop_stats()
        assert stats["requests_num"] == 1
        assert stats["connections_num"] == 1
        assert stats["usage_ms"] >= 10
        assert pool.get_stats()["requests_num"] == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"min_size": -1}, "min_size"),
        ({"min_size": 2, "max_size": 1}, "max_size"),
        ({"min_size": 0, "max_size": 0}, "max_size"),
        ({"timeout": 0}, "timeout"),
        ({"max_idle": -1}, "max_idle"),
    ],
)
def test_wrong_sizes_and_times_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pg.open_pool("", **wrong)


async def test_pool_is_a_service_that_is_ready_with_its_connections(server: Server) -> None:
    pool = pg.open_pool(server.url, min_size=2, name="db")
    used: list[int] = []

    async def use() -> None:
        used.append(pool.statistics().pool_available)
        async with pool.connection() as connection:
            await connection.execute("select 1")
        await trio.sleep_forever()

    tree = Supervisor("app", [pool, Child(use, after=["db"])])
    async with open_supervisor(tree):
        await wait_all_tasks_blocked(0.05)
    assert used == [2]
    with pytest.raises(pg.PoolClosed):
        await pool.getconn()


async def test_service_that_is_restarted_lends_again_to_those_that_have_it(
    server: Server,
) -> None:
    pool = pg.open_pool(server.url, name="db")
    async with open_supervisor(Supervisor("app", [pool])) as tree:
        lent = await pool.getconn()
        await tree.restart("db")
        pool.putconn(lent)
        assert lent.closed
        async with pool.connection() as connection:
            await connection.execute("select 1")


async def test_pool_says_how_well_it_is(server: Server) -> None:
    pool = pg.open_pool(server.url, min_size=2)
    assert (await pool.check()).status == HealthStatus.UNHEALTHY
    async with pool:
        await pool.wait()
        assert (await pool.check()).status == HealthStatus.HEALTHY
        assert pool.statistics().pool_available == 2
    async with pg.open_pool(f"{server.url} password=x dbname=nowhere") as pool:
        with pytest.raises(pg.PoolTimeout, match="nowhere"):
            await pool.wait(0.3)
        health = await pool.check()
        assert health.status == HealthStatus.UNHEALTHY
        assert "nowhere" in health.reason


async def test_check_replaces_connections_that_do_not_answer(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=2) as pool:
        await pool.wait()
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        await pool.check()
        await pool.wait()
        assert pool.statistics().connections_lost == 2


async def test_connection_of_a_server_that_takes_no_writes_any_more_is_replaced(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url, min_size=2) as pool:
        await pool.wait()
        connection = await pool.getconn()
        await connection.execute("set transaction read only")
        with pytest.raises(errors.ReadOnlySqlTransaction):
            await connection.execute("insert into items values (1)")
        pool.putconn(connection)
        assert connection.closed
        await pool.wait()
        assert pool.statistics().connections_num == 4


async def test_connection_that_was_to_read_only_is_kept(server: Server, items: None) -> None:
    async with pg.open_pool(server.url, max_size=1) as pool:
        with pytest.raises(errors.ReadOnlySqlTransaction):
            async with pool.transaction(read_only=True) as connection:
                await connection.execute("insert into items values (1)")
        async with pool.connection():
            pass
        assert pool.statistics().connections_num == 1


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(4, 24))]
)
async def test_storm_of_cancellations_loses_no_connection(
    seed: int, server: Server, items: None
) -> None:
    draw = random.Random(seed)
    committed: set[int] = set()

    async def query(connection: AnyConnection, number: int) -> None:
        await connection.execute("select pg_sleep(0.002) /* storm */")

    async def insert(connection: AnyConnection, number: int) -> None:
        await connection.execute("insert into items values (%s) /* storm */", (number,))

    async def copy(connection: AnyConnection, number: int) -> None:
        async with (
            connection.cursor() as cursor,
            cursor.copy("copy (select generate_series(1, 20000) /* storm */) to stdout") as out,
        ):
            while await out.read():
                pass

    async def stream(connection: AnyConnection, number: int) -> None:
        async with connection.stream("select generate_series(1, 500) /* storm */") as rows:
            async for _ in rows:
                await trio.lowlevel.checkpoint()

    async def pipeline(connection: AnyConnection, number: int) -> None:
        async with connection.pipeline():
            for _ in range(5):
                await connection.execute("select 1 /* storm */")
            async with connection.transaction():
                await connection.execute("select pg_sleep(0.001) /* storm */")

    async def nested(connection: AnyConnection, number: int) -> None:
        async with connection.transaction():
            await connection.execute("select 1 /* storm */")
            with suppress(ZeroDivisionError):
                async with connection.transaction():
                    raise ZeroDivisionError

    uses = (query, insert, copy, stream, pipeline, nested)

    async def work(pool: pg.Pool, worker: int) -> None:
        for turn in range(12):
            number = 1000 * worker + turn
            use = draw.choice(uses)
            with trio.move_on_after(draw.random() * draw.choice((0.002, 0.01, 0.03))):
                async with pool.connection() as connection:
                    await use(connection, number)
                if use is insert:
                    committed.add(number)

    async with pg.open_pool(server.url, min_size=1, max_size=4) as pool:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for worker in range(10):
                    nursery.start_soon(work, pool, worker)
            await at_rest(pool)
        assert not server.running("storm")
        connections = [await pool.getconn(2) for _ in range(4)]
        assert all(one.info.transaction_status == IDLE for one in connections)
        for one in connections:
            pool.putconn(one)
        assert {row[0] for row in server.execute("select id from items")} == committed

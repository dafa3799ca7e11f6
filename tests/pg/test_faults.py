"""Faults of the database, each with a real server: the pool is well again within 10 s."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio

from trio_services import pg
from trio_services.lifecycle import HealthStatus

from .proxy import open_proxy
from .server import Server


async def use(pool: pg.Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("select 1")


async def recover(pool: pg.Pool, within: float = 10.0) -> None:
    """Use it until that succeeds."""
    with trio.fail_after(within):
        while True:
            try:
                await use(pool)
            except (psycopg.OperationalError, pg.PoolTimeout):
                await trio.sleep(0.02)
            else:
                return


@asynccontextmanager
async def responsive() -> AsyncGenerator[None]:
    """See that other tasks are never kept from running for long."""
    lags: list[float] = []

    async def watch() -> None:
        while True:
            due = trio.current_time() + 0.01
            await trio.sleep_until(due)
            lags.append(trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()
    lags.sort()
    # The machine itself may be late now and then.
    assert lags[int(len(lags) * 0.9)] < 0.1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_server_is_restarted(how: signal.Signals, server: Server) -> None:
    async with pg.open_pool(server.tcp, min_size=3) as pool, responsive():
        await pool.wait()

        async def stop() -> None:
            async with pool.connection() as connection:
                await trio.to_thread.run_sync(server.stop, how)
                await connection.execute("select 1")

        with pytest.raises(psycopg.OperationalError):
            await stop()
        with pytest.raises(pg.PoolTimeout, match="cannot connect"):
            await pool.getconn(0.2)
        assert (await pool.check()).status == HealthStatus.UNHEALTHY
        await trio.to_thread.run_sync(server.start)
        await recover(pool)
        await pool.wait(10)
        assert (await pool.check()).status == HealthStatus.HEALTHY


async def test_idle_connections_are_not_lent_after_a_quick_restart(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=3) as pool:
        await pool.wait()
        await trio.to_thread.run_sync(server.stop)
        await trio.to_thread.run_sync(server.start)
        for _ in range(3):
            await use(pool)


async def test_backend_is_terminated_in_the_middle_of_a_transaction(
    server: Server, items: None
) -> None:
    async with pg.open_pool(server.url, min_size=1, max_size=2) as pool:

        async def insert() -> None:
            async with pool.connection() as connection:
                await connection.execute("insert into items values (1)")
                pid = connection.info.backend_pid
                await trio.to_thread.run_sync(
                    server.execute, f"select pg_terminate_backend({pid}, 5000)"
                )
                await connection.execute("insert into items values (2)")

        with pytest.raises(psycopg.OperationalError):
            await insert()
        await use(pool)
        assert server.execute("select id from items") == []
        assert pool.statistics().returns_bad == 1


async def test_link_is_frozen_and_comes_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._drive.CLEAN_UP", 0.3)
    async with (
        open_proxy(server.port) as proxy,
        pg.open_pool(proxy.url(), max_size=2, kwargs={"connect_timeout": 2}) as pool,
        responsive(),
    ):
        await use(pool)
        proxy.freeze()
        for _ in range(2):
            with trio.move_on_after(0.1) as scope:
                await use(pool)
            assert scope.cancelled_caught
        with pytest.raises(pg.PoolTimeout):
            await pool.getconn(3)
        proxy.thaw()
        await recover(pool)


async def test_frozen_link_is_noticed_by_a_check(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._drive.CLEAN_UP", 0.2)
    monkeypatch.setattr("trio_services.pg._stock.CLEAN_UP", 0.2)
    async with open_proxy(server.port) as proxy, pg.open_pool(proxy.url(), min_size=2) as pool:
        await pool.wait()
        proxy.freeze()
        with trio.fail_after(5):
            await pool.check()
        assert pool.statistics().pool_available == 0
        proxy.thaw()
        await recover(pool)


async def test_wrong_password_is_not_tried_in_a_tight_loop(server: Server) -> None:
    server.execute("drop role if exists locked; create role locked login password 'right'")
    url = f"host=127.0.0.1 port={server.port} user=locked dbname=postgres password="
    password = "wrong"
    async with pg.open_pool(lambda: url + password, min_size=3) as pool, responsive():
        with pytest.raises(pg.PoolTimeout, match="password authentication failed"):
            await pool.getconn(1.0)
        assert pool.statistics().connections_num <= 8
        assert pool.statistics().pool_size == 1  # which is the one attempt that is being made
        password = "right"
        await recover(pool)


async def test_too_many_connections_leave_the_pool_with_those_it_has(server: Server) -> None:
    server.execute("drop role if exists crowd; create role crowd login connection limit 2")
    url = f"host={server.folder} port={server.port} user=crowd dbname=postgres"
    async with pg.open_pool(url, max_size=4) as pool, responsive():
        first, second = await pool.getconn(), await pool.getconn()
        with pytest.raises(pg.PoolTimeout, match="too many connections"):
            await pool.getconn(1.0)
        assert pool.statistics().connections_num <= 10
        assert (await pool.check()).status == HealthStatus.DEGRADED
        pool.putconn(second)
        await use(pool)
        server.execute("alter role crowd connection limit 5")
        third = await pool.getconn()
        pool.putconn(first)
        pool.putconn(third)


async def test_long_outage_is_told_once(server: Server) -> None:
    told: list[pg.Pool] = []
    url = f"host={server.folder} port=1 user=postgres"
    async with pg.open_pool(url, reconnect_timeout=0.2, reconnect_failed=told.append) as pool:
        await trio.sleep(2.0)
        assert told == [pool]


async def test_each_address_of_a_server_is_tried(server: Server) -> None:
    url = f"host=127.0.0.1,127.0.0.1 port=1,{server.port} user=postgres dbname=postgres"
    async with await pg.connect(url) as connection:
        await connection.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="All failures were"):
        await pg.connect("host=127.0.0.1,127.0.0.1 port=1,2 user=postgres")


async def test_host_that_has_to_be_looked_up_is_found(server: Server) -> None:
    async with await pg.connect(
        f"host=localhost port={server.port} user=postgres dbname=postgres"
    ) as connection:
        await connection.execute("select 1")


async def test_server_that_does_not_answer_is_given_up_in_time(server: Server) -> None:
    async with open_proxy(server.port) as proxy:
        proxy.freeze()
        began = trio.current_time()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            await pg.connect(proxy.url(), connect_timeout=2)
        assert 1.9 < trio.current_time() - began < 4
        with trio.move_on_after(0.05) as scope:
            await pg.connect(proxy.url())
        assert scope.cancelled_caught

"""Notifications: of one connection, and of the one that all listeners of a pool share."""

from __future__ import annotations

from contextlib import aclosing

import psycopg
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_services import pg
from trio_services.pg import _listen

from .awkward import cancelled_at
from .proxy import open_proxy
from .server import Server


async def listening(server: Server) -> pg.Connection[tuple[object, ...]]:
    connection = await pg.connect(server.url, autocommit=True)
    await connection.execute("listen news")
    return connection


async def test_connection_gives_notifications_as_they_come(server: Server) -> None:
    async with await listening(server) as connection:
        server.execute("select pg_notify('news', i::text) from generate_series(1, 3) i")
        async with aclosing(connection.notifies(stop_after=3)) as notifies:
            assert [notify.payload async for notify in notifies] == ["1", "2", "3"]


async def test_nothing_is_lost_that_came_with_another_result_or_was_not_read(
    server: Server,
) -> None:
    async with await listening(server) as connection:
        await connection.execute("select pg_notify('news', '1'), pg_notify('news', '2')")
        async with aclosing(connection.notifies()) as notifies:
            async for notify in notifies:
                assert notify.payload == "1"
                break
        await connection.execute("select pg_notify('news', '3')")
        async with aclosing(connection.notifies(timeout=0.05)) as notifies:
            assert [notify.payload async for notify in notifies] == ["2", "3"]


async def test_nothing_is_lost_by_a_cancellation(server: Server) -> None:
    async with await listening(server) as connection:
        got: list[str] = []

        async def take() -> None:
            async with aclosing(connection.notifies()) as notifies:
                async for notify in notifies:
                    got.append(notify.payload)
                    await trio.lowlevel.checkpoint()

        for step in range(30):
            server.execute(f"notify news, '{step}'")
            await cancelled_at(step % 8, take)
        await cancelled_at(1000, take)
        assert got == [str(step) for step in range(30)]


async def test_what_has_come_is_given_even_without_any_time_to_wait(server: Server) -> None:
    async with await listening(server) as connection:
        server.execute("notify news, 'there'")
        await trio.sleep(0.05)
        for expected in (["there"], []):
            async with aclosing(connection.notifies(timeout=0)) as notifies:
                assert [notify.payload async for notify in notifies] == expected


async def test_handlers_are_called_as_well(server: Server) -> None:
    async with await listening(server) as connection:
        handled: list[psycopg.Notify] = []
        connection.add_notify_handler(handled.append)
        server.execute("notify news, 'both'")
        with pytest.warns(RuntimeWarning, match="use one of the two"):
            async with aclosing(connection.notifies(stop_after=1)) as notifies:
                assert [notify.payload async for notify in notifies] == ["both"]
        assert [notify.payload for notify in handled] == ["both"]


async def test_query_of_the_same_task_between_notifications_is_an_error(server: Server) -> None:
    async with await listening(server) as connection:
        server.execute("notify news")
        async with aclosing(connection.notifies()) as notifies:
            async for _ in notifies:
                with pytest.raises(psycopg.ProgrammingError, match="another connection"):
                    await connection.execute("select 1")
                break


async def test_notifications_end_when_the_connection_is_closed_and_fail_when_it_is_lost(
    server: Server,
) -> None:
    async def take(connection: pg.Connection[tuple[object, ...]]) -> None:
        async with aclosing(connection.notifies()) as notifies:
            async for _ in notifies:
                pass

    connection = await listening(server)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, connection)
            await wait_all_tasks_blocked()
            await connection.close()
    connection = await listening(server)
    server.execute(f"select pg_terminate_backend({connection.info.backend_pid})")
    with pytest.raises(psycopg.OperationalError), trio.fail_after(5):
        await take(connection)


async def test_listeners_of_a_pool_share_a_connection(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=0) as pool:
        before = server.connections()
        async with (
            pg.listen(pool, "a") as first,
            pg.listen(pool, "b", "a") as second,
            pg.listen(pool, "Odd name; --") as third,
        ):
            assert server.connections() == before + 1
            server.execute(
                "select pg_notify('a', '1'), pg_notify('b', '2'), pg_notify('Odd name; --', '3')"
            )
            with trio.fail_after(5):
                assert (await first.__anext__()) == psycopg.Notify(
                    "a", "1", _pid(await _two(second))
                )
                assert isinstance(await third.__anext__(), psycopg.Notify)
        with trio.fail_after(5):  # noqa: ASYNC912
            while server.connections() > before:  # noqa: ASYNC110 -- of another process
                await trio.sleep(0.01)


async def _two(notifications: pg.Notifications) -> psycopg.Notify:
    first, second = await notifications.__anext__(), await notifications.__anext__()
    assert isinstance(first, psycopg.Notify)
    assert isinstance(second, psycopg.Notify)
    assert (first.payload, second.payload) == ("1", "2")
    return first


def _pid(notify: psycopg.Notify) -> int:
    return notify.pid


async def test_listener_is_told_of_the_gap_when_the_connection_was_lost(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=0) as pool, pg.listen(pool, "a") as lines:
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%'"
        )
        with trio.fail_after(5):
            assert await lines.__anext__() == pg.Gap("reconnected")
        server.execute("notify a, 'again'")
        with trio.fail_after(5):
            notify = await lines.__anext__()
        assert isinstance(notify, psycopg.Notify)
        assert notify.payload == "again"


async def test_listener_outlives_a_restart_of_the_server(server: Server) -> None:
    async with pg.open_pool(server.url, min_size=0) as pool, pg.listen(pool, "a") as lines:
        await trio.to_thread.run_sync(server.stop)
        await trio.to_thread.run_sync(server.start)
        with trio.fail_after(10):
            assert await lines.__anext__() == pg.Gap("reconnected")


async def test_frozen_link_is_noticed_when_nothing_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listen, "_SILENCE", 0.1)
    for file in ("_drive", "_stock"):
        monkeypatch.setattr(f"trio_services.pg.{file}.CLEAN_UP", 0.2)
    kwargs = {"connect_timeout": 2}
    async with (
        open_proxy(server.port) as proxy,
        pg.open_pool(proxy.url(), min_size=0, kwargs=kwargs) as pool,
        pg.listen(pool, "a") as lines,
    ):
        await trio.sleep(0.3)
        proxy.freeze()
        await trio.sleep(0.6)
        proxy.thaw()
        with trio.fail_after(10):
            assert await lines.__anext__() == pg.Gap("reconnected")


async def test_listener_that_does_not_read_is_told_of_the_gap(server: Server) -> None:
    async with (
        pg.open_pool(server.url, min_size=0) as pool,
        pg.listen(pool, "a", capacity=10) as lines,
    ):
        server.execute("select pg_notify('a', i::text) from generate_series(1, 11) i")
        await trio.sleep(0.1)
        with trio.fail_after(5):
            assert await lines.__anext__() == pg.Gap("overflow")


async def test_closing_the_pool_tells_its_listeners(server: Server) -> None:
    told = trio.Event()

    async def take(pool: pg.Pool) -> None:
        async with pg.listen(pool, "a") as lines:
            with pytest.raises(pg.PoolClosed):
                await lines.__anext__()
        told.set()

    async with trio.open_nursery() as nursery:
        async with pg.open_pool(server.url) as pool:
            nursery.start_soon(take, pool)  # noqa: ASYNC111 -- and sees that it closes
            await trio.sleep(0.1)
        with trio.fail_after(5):
            await told.wait()


async def test_listening_needs_a_pool_that_is_open_and_a_channel(server: Server) -> None:
    pool = pg.open_pool(server.url)
    with pytest.raises(pg.PoolClosed):
        async with pg.listen(pool, "a"):
            pass
    with pytest.raises(ValueError, match="needs a channel"):
        async with pg.listen(pool):
            pass


async def test_listeners_that_come_and_go_at_any_moment_leave_the_others_alone(
    server: Server,
) -> None:
    async with pg.open_pool(server.url, min_size=0) as pool, pg.listen(pool, "everyone") as lines:

        async def visit() -> None:
            async with pg.listen(pool, "visitors", "everyone") as some:
                await some.__anext__()

        for step in range(12):
            await cancelled_at(step, visit)
            server.execute(f"notify everyone, '{step}'")
        with trio.fail_after(5):
            got = [await lines.__anext__() for _ in range(12)]
        assert [one.payload for one in got if isinstance(one, psycopg.Notify)] == [
            str(step) for step in range(12)
        ]

"""Leadership: one at a time, each with a greater epoch, and nothing written by one that was."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from trio_services import pg

from .proxy import Proxy, open_proxy
from .server import Server


@pytest.fixture(autouse=True)
def _afresh(server: Server) -> None:
    server.execute("drop table if exists trio_services_leader")


async def test_leader_has_an_epoch_that_grows_with_each_term(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        for epoch in (1, 2, 3):
            async with pg.leadership(pool, "nightly") as term:
                assert term.epoch == epoch
                assert not term.lost.is_set()
        async with pg.leadership(pool, "another") as term:
            assert term.epoch == 1


async def test_contenders_lead_one_at_a_time_and_hand_over_without_waiting(
    server: Server,
) -> None:
    leading = 0
    epochs: list[int] = []

    async def contend() -> None:
        nonlocal leading
        async with pg.open_pool(server.url) as pool, pg.leadership(pool, "nightly") as term:
            leading += 1
            assert leading == 1
            epochs.append(term.epoch)
            await trio.sleep(0.05)
            leading -= 1

    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(contend)
    assert epochs == [1, 2, 3, 4]


async def test_cancelled_leader_gives_up_at_once(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        # Several times, since the tasks of a leader are cancelled in any order.
        for turn in range(10):
            with trio.CancelScope() as scope:
                async with pg.leadership(pool, "nightly", lease=60) as term:
                    assert term.epoch == turn + 1
                    scope.cancel()
                    await trio.sleep_forever()
            assert scope.cancelled_caught


async def test_lease_is_renewed_as_long_as_the_leader_lives(server: Server) -> None:
    async with pg.open_pool(server.url) as pool, pg.leadership(pool, "nightly", lease=1) as term:
        await trio.sleep(2.5)
        async with pool.transaction() as connection:
            await term.fence(connection)


async def test_leader_that_has_died_is_replaced_after_its_lease(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        async with pg.leadership(pool, "nightly"):
            pass
        server.execute(
            "update trio_services_leader set expires_at = clock_timestamp() + interval '1 s'"
        )
        began = trio.current_time()
        async with pg.leadership(pool, "nightly") as term:
            assert 0.9 < trio.current_time() - began < 4
            assert term.epoch == 2


async def test_leader_whose_link_is_cut_stops_before_another_begins(server: Server) -> None:
    lost_at = began_at = 0.0

    async def cut_off(url: str, task_status: trio.TaskStatus[pg.Term]) -> None:
        with pytest.raises(pg.LeadershipLost, match="term 1 of nightly is over"):
            await lead(url, task_status)

    async def lead(url: str, task_status: trio.TaskStatus[pg.Term]) -> None:
        nonlocal lost_at
        kwargs = {"connect_timeout": 2}
        async with (
            pg.open_pool(url, min_size=0, kwargs=kwargs) as pool,
            pg.leadership(pool, "nightly", lease=2) as term,
        ):
            task_status.started(term)
            try:
                await trio.sleep_forever()
            finally:
                lost_at = trio.current_time()

    async with (
        open_proxy(server.port) as proxy,
        pg.open_pool(server.url) as pool,
        trio.open_nursery() as nursery,
    ):
        old: pg.Term = await nursery.start(cut_off, proxy.url())
        proxy.freeze()
        with trio.fail_after(10):
            async with pg.leadership(pool, "nightly", lease=2) as term:
                began_at = trio.current_time()
                assert old.lost.is_set()
                assert term.epoch == 2
                with pytest.raises(pg.LeadershipLost):
                    async with pool.transaction() as connection:
                        await old.fence(connection)
        proxy.thaw()
    assert 0 < lost_at < began_at


async def test_leader_that_was_replaced_finds_out_when_it_renews(server: Server) -> None:
    async def lead(pool: pg.Pool) -> None:
        async with pg.leadership(pool, "nightly", lease=2):
            server.execute("update trio_services_leader set epoch = epoch + 1")
            await trio.sleep_forever()

    async with pg.open_pool(server.url) as pool:
        with pytest.raises(pg.LeadershipLost), trio.fail_after(5):
            await lead(pool)


async def test_nobody_begins_to_lead_while_a_fenced_transaction_lasts(server: Server) -> None:
    order: list[str] = []

    async with pg.open_pool(server.url) as pool, pg.open_pool(server.url) as other:

        async def contend() -> None:
            async with pg.leadership(other, "nightly"):
                order.append("the other leads")

        async with (
            trio.open_nursery() as nursery,
            pg.leadership(pool, "nightly") as term,
            pool.transaction() as connection,
        ):
            await term.fence(connection)
            # As if this leader were frozen:
            server.execute("update trio_services_leader set expires_at = clock_timestamp()")
            nursery.start_soon(contend)
            await trio.sleep(1.2)
            order.append("committed")
    assert order == ["committed", "the other leads"]


async def test_link_that_is_cut_in_a_fenced_transaction_does_not_hold_off_others_for_long(
    server: Server,
) -> None:
    async def write(url: str, task_status: trio.TaskStatus[None]) -> None:
        async with (
            pg.open_pool(url, min_size=0, kwargs={"connect_timeout": 2}) as pool,
            pg.leadership(pool, "nightly", lease=1) as term,
            pool.transaction() as connection,
        ):
            await term.fence(connection)
            task_status.started()
            await trio.sleep_forever()

    async def cut_off(url: str, task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(pg.LeadershipLost):
            await write(url, task_status)

    async with (
        open_proxy(server.port) as proxy,
        pg.open_pool(server.url) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(cut_off, proxy.url())
        proxy.freeze()
        with trio.fail_after(5):
            async with pg.leadership(pool, "nightly", lease=1) as term:
                assert term.epoch == 2
        proxy.thaw()


@pytest.mark.parametrize("last", [b"SET epoch = l.epoch + 1", b"SET expires_at"])
async def test_link_that_is_cut_before_an_answer_comes_leaves_nothing_locked(
    server: Server, last: bytes
) -> None:
    async def lead(pool: pg.Pool) -> None:
        with suppress(pg.LeadershipLost):
            async with pg.leadership(pool, "nightly", lease=1):
                await trio.sleep_forever()

    async with (
        open_proxy(server.port) as proxy,
        pg.open_pool(proxy.url()) as frozen,
        pg.open_pool(server.url) as pool,
        trio.open_nursery() as nursery,
    ):
        proxy.last = last
        nursery.start_soon(lead, frozen)
        with trio.fail_after(5):
            while proxy.open.is_set():  # noqa: ASYNC110 -- by what comes through
                await trio.sleep(0.01)
            async with pg.leadership(pool, "nightly", lease=1):
                pass
        nursery.cancel_scope.cancel()


async def test_renewal_is_not_in_the_way_of_a_fenced_transaction(server: Server) -> None:
    async with pg.open_pool(server.url) as pool, pg.leadership(pool, "nightly", lease=1) as term:
        async with pool.transaction() as connection:
            await term.fence(connection)
            for _ in range(3):
                await connection.execute("select pg_sleep(0.5)")
        assert not term.lost.is_set()


async def test_error_in_the_block_of_a_leader_comes_out_as_itself(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pg.leadership(pool, "nightly"):
                raise ZeroDivisionError


async def test_lease_that_is_too_short_is_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="at least 1 s"):
        async with pg.leadership(pg.open_pool(server.url), "nightly", lease=0.5):
            pass


@pytest.mark.soak
async def test_no_write_with_a_stale_epoch_is_accepted_when_links_are_cut(server: Server) -> None:
    server.execute("drop table if exists writes; create table writes (id bigserial, epoch bigint)")
    took: list[float] = []

    leader: Proxy | None = None

    async def contend(proxy: Proxy) -> None:
        nonlocal leader
        kwargs = {"connect_timeout": 2}
        async with pg.open_pool(proxy.url(), kwargs=kwargs, timeout=2) as pool:
            while True:  # noqa: ASYNC913
                try:
                    async with pg.leadership(pool, "nightly", lease=2) as term:
                        leader = proxy
                        while True:
                            async with pool.transaction(timeout=1) as connection:
                                await term.fence(connection)
                                await connection.execute(
                                    "insert into writes (epoch) values (%s)", (term.epoch,)
                                )
                            await trio.sleep(0.01)
                except (pg.LeadershipLost, pg.PoolTimeout, pg.CommitUnknown):
                    pass
                except Exception:
                    await trio.sleep(0.1)

    def newest() -> int:
        return int(server.execute("select coalesce(max(epoch), 0) from writes")[0][0])

    async with (
        open_proxy(server.port) as first,
        open_proxy(server.port) as second,
        open_proxy(server.port) as third,
        trio.open_nursery() as nursery,
    ):
        for proxy in (first, second, third):
            nursery.start_soon(contend, proxy)
        for _ in range(20):
            await trio.sleep(1)
            assert leader is not None
            cut = leader
            epoch = newest()
            began = trio.current_time()
            cut.freeze()
            with trio.fail_after(15):  # noqa: ASYNC912
                while newest() == epoch:  # noqa: ASYNC110 -- of other processes
                    await trio.sleep(0.05)
            took.append(trio.current_time() - began)
            cut.thaw()
        nursery.cancel_scope.cancel()
    rows = server.execute("select epoch from writes order by id")
    epochs = [row[0] for row in rows]
    assert len(set(epochs)) > 20
    assert epochs == sorted(epochs)
    assert max(took) <= 15

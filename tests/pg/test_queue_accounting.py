"""Durable queues: every job has one end, whatever becomes of it and whenever it is cancelled."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from trio_services import Backoff, Discard, Retry, RetryLater, pg
from trio_services.queues import Outcome

from .awkward import cancelled_at
from .queueing import at_work, empty_tables, rows, until
from .server import Server


@pytest.fixture(autouse=True)
def _tables(server: Server) -> None:
    empty_tables(server)


FATES = st.sampled_from(["done", "discard", "fail", "later", "fail once"])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fates=st.lists(FATES, max_size=30), count=st.integers(1, 7))
def test_every_claim_has_one_end(server: Server, fates: list[str], count: int) -> None:
    trio.run(_check_accounts, server, fates, count)


async def _check_accounts(server: Server, fates: list[str], count: int) -> None:
    server.execute("truncate trio_services.ready, trio_services.dead")
    tried = Counter[int]()

    async def handle(item: list[int | str]) -> None:
        await trio.lowlevel.checkpoint()
        number, fate = item
        assert isinstance(number, int)
        tried[number] += 1
        if fate == "discard":
            raise Discard
        if fate == "fail" or (fate == "fail once" and tried[number] == 1):
            raise ValueError(fate)
        if fate == "later" and tried[number] == 1:
            raise RetryLater

    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[list[int | str]](pool, "fates", attempts=2)
        queue.retry = Retry(2, Backoff(initial=0))
        await queue.put_many([[number, fate] for number, fate in enumerate(fates)])
        async with at_work(queue, handle, count=count):
            await until(lambda: set(rows(server)) <= {"dead", "lease"})
        books = queue.statistics()
    fate = Counter(fates)
    assert books.done == fate["done"] + fate["later"] + fate["fail once"]
    assert books.discarded == fate["discard"]
    assert books.dead == fate["fail"] == rows(server).get("dead", 0)
    assert books.returned == fate["fail"] + fate["later"] + fate["fail once"] == books.retried
    ends = books.done + books.discarded + books.dead + books.returned + books.released
    assert books.claimed == ends + books.lost
    assert (books.waiting, books.in_hand, books.stale) == (0, 0, 0)


async def test_put_that_is_cancelled_has_put_everything_or_nothing(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers")
        put = 0
        for step in range(200):
            if not await cancelled_at(step, partial(queue.put, step)):
                put += 1
                if put == 3:
                    break
        await until(lambda: pool.statistics().pool_available == pool.statistics().pool_size)
        # A put that raised Cancelled is not there.
        assert rows(server)["ready"] == put == 3


async def test_take_that_is_cancelled_has_taken_nothing(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers")
        await queue.put_many(range(20))
        for step in range(30):
            await cancelled_at(step, partial(_take_and_work, queue))
        await until(lambda: not rows(server).get("running"), within=3)
        await until(lambda: not rows(server).get("lease"), within=3)
        assert rows(server).get("ready", 0) + queue.statistics().done == 20


async def _take_and_work(queue: pg.Queue[int]) -> None:
    job = await queue.take()
    try:
        await trio.lowlevel.checkpoint()
    except BaseException:
        queue.release(job)
        raise
    queue.settle(job, Outcome.DONE)


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05, 0.2])
async def test_pool_that_is_closed_at_any_moment_leaves_no_job_behind(
    server: Server, wait: float
) -> None:
    async def handle(item: int) -> None:
        await trio.sleep(0.001)

    pool = pg.open_pool(server.url)
    queue = pg.Queue[int](pool, "numbers")
    async with pool:
        await queue.put_many(range(300))
        async with at_work(queue, handle, count=5):
            await trio.sleep(wait)
    assert set(rows(server)) <= {"ready", "lease"}
    assert rows(server).get("ready", 0) + queue.statistics().done == 300

"""Durable queues: what is put is handled, and said to be what it has become."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio

from trio_services import Backoff, Discard, QueueClosed, Retry, RetryLater, ServicesError, pg
from trio_services.lifecycle import events
from trio_services.queues import Outcome

from .queueing import at_work, empty_tables, rows, until
from .server import Server

QUICK = Backoff(initial=0.01, factor=1, jitter=0)


@attrs.frozen
class Email:
    to: str
    at: datetime


@pytest.fixture(autouse=True)
def _tables(server: Server) -> None:
    empty_tables(server)


@pytest.fixture
async def pool(server: Server) -> AsyncGenerator[pg.Pool]:
    async with pg.open_pool(server.url) as pool:
        yield pool


async def test_item_is_handled_and_leaves_nothing_behind(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[Email](pool, "emails")
    email = Email("you", datetime.now(UTC))
    handled: list[Email] = []

    async def handle(item: Email) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    assert await queue.put(email)
    assert rows(server) == {"ready": 1}
    async with at_work(queue, handle):
        await until(lambda: bool(handled))
    await until(lambda: not rows(server))
    assert handled == [email]
    assert str(queue.statistics()) == "1 claimed = 1 done"


async def test_item_that_is_put_while_workers_wait_is_handled_at_once(pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers")
    handled: list[int] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    async with at_work(queue, handle, count=3):
        await trio.sleep(0.3)
        await queue.put(1)
        await until(lambda: handled == [1], within=1)


async def test_item_is_there_if_the_transaction_is_committed_that_it_was_put_in(
    server: Server, pool: pg.Pool, items: None
) -> None:
    queue = pg.Queue[int](pool, "numbers")
    async with pool.transaction() as connection:
        await connection.execute("insert into items values (1)")
        await queue.put(1, connection=connection)
        assert rows(server) == {}
    assert rows(server) == {"ready": 1}

    async def fail() -> None:
        async with pool.transaction() as connection:
            await connection.execute("insert into items values (2)")
            await queue.put(2, connection=connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert rows(server) == {"ready": 1}
    assert server.execute("select id from items") == [(1,)]


async def test_many_items_are_put_and_handled_each_once(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers")
    handled: list[int] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    assert await queue.put_many(range(3000)) == 3000
    async with at_work(queue, handle, count=20):
        await until(lambda: len(handled) == 3000)
    await until(lambda: not rows(server))
    assert sorted(handled) == list(range(3000))


async def test_items_with_a_greater_priority_come_first(pool: pg.Pool) -> None:
    queue = pg.Queue[str](pool, "words")
    handled: list[str] = []

    async def handle(item: str) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    for item, priority in (("b", 0), ("d", -100), ("a", 5), ("c", 0)):
        await queue.put(item, priority=priority)
    async with at_work(queue, handle):
        await until(lambda: len(handled) == 4)
    assert handled == ["a", "b", "c", "d"]


async def test_item_waits_until_it_is_due(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[str](pool, "words")
    handled: dict[str, float] = {}
    began = trio.current_time()

    async def handle(item: str) -> None:
        await trio.lowlevel.checkpoint()
        handled[item] = trio.current_time() - began

    async with at_work(queue, handle):
        await queue.put("later", run_at=datetime.now(UTC) + timedelta(seconds=0.8))
        await queue.put("soon", delay=0.4)
        await queue.put("now")
        assert rows(server).get("scheduled") == 2
        await until(lambda: len(handled) == 3)
    assert handled["now"] < 0.3
    assert 0.4 <= handled["soon"] < 0.7
    assert 0.75 <= handled["later"] < 1.2


async def test_one_item_with_a_unique_key_is_there_at_a_time(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers")
    handled: list[int] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    assert await queue.put(1, unique="one") is not None
    assert await queue.put(2, unique="one") is None
    assert await queue.put(3, unique="one", delay=1) is None
    async with at_work(queue, handle):
        await until(lambda: handled == [1])
        await until(lambda: not rows(server).get("unique_job"))
        assert await queue.put(4, unique="one") is not None
        await until(lambda: handled == [1, 4])


async def test_failing_item_is_tried_again_and_dead_after_its_attempts(
    server: Server, pool: pg.Pool
) -> None:
    queue = pg.Queue[int](pool, "numbers", attempts=3)
    queue.retry = Retry(3, QUICK)
    tried = 0
    dead: list[tuple[int, str]] = []

    async def handle(item: int) -> None:
        nonlocal tried
        await trio.lowlevel.checkpoint()
        tried += 1
        raise ValueError(f"attempt {tried}")

    async def bury(item: int, error: Exception) -> None:
        await trio.lowlevel.checkpoint()
        dead.append((item, str(error)))

    await queue.put(7, unique="seven")
    async with at_work(queue, handle, on_dead=bury) as watched:
        await until(lambda: rows(server).get("dead") == 1)
        assert [event.attempt for event in watched.of(events.JobRetrying)] == [1, 1]
        assert len(watched.of(events.JobDead)) == 1
    await until(lambda: rows(server) == {"dead": 1})
    [(payload, attempt, errors)] = server.execute(
        "select payload, attempt, errors from trio_services.dead"
    )
    assert (payload, attempt) == (7, 3)
    assert [error["message"] for error in errors] == ["attempt 1", "attempt 2", "attempt 3"]
    assert dead == [(7, "attempt 3")]


async def test_retry_of_the_workers_has_precedence(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers", attempts=3)

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError

    await queue.put(7)
    async with at_work(queue, handle, retry=Retry(1)):
        await until(lambda: rows(server).get("dead") == 1)
    assert queue.statistics().retried == 0


async def test_item_that_asks_for_later_is_no_failure(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers", attempts=2)
    tried = 0

    async def handle(item: int) -> None:
        nonlocal tried
        await trio.lowlevel.checkpoint()
        tried += 1
        if tried < 5:
            raise RetryLater(0.01)

    await queue.put(1)
    async with at_work(queue, handle):
        await until(lambda: tried == 5)
    await until(lambda: not rows(server))
    assert str(queue.statistics()) == "5 claimed = 1 done + 4 returned"


async def test_discarded_item_is_gone(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers")

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        raise Discard("no need")

    await queue.put(1)
    async with at_work(queue, handle):
        await until(lambda: queue.statistics().discarded == 1)
    await until(lambda: not rows(server))


async def test_undecodable_item_is_parked_after_its_attempts(server: Server, pool: pg.Pool) -> None:
    queue = pg.Queue[Email](pool, "emails", attempts=2)
    handled: list[Email] = []

    async def handle(item: Email) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    deep = "[" * 5000 + "]" * 5000
    for payload in ('{"to": 1}', '"text"', deep):
        server.execute(
            "insert into trio_services.ready (queue, rank, version, payload)"
            f" values ('emails', 0, 1, '{payload}')"
        )
    server.execute(
        "insert into trio_services.ready (queue, rank, version, payload)"
        " values ('emails', 0, 9, '{}')"
    )
    await queue.put(Email("you", datetime.now(UTC)))
    async with at_work(queue, handle):
        await until(lambda: len(handled) == 1)
        await until(lambda: rows(server).get("dead") == 4)
    attempts = server.execute("select distinct attempt from trio_services.dead")
    assert attempts == [(2,)]


async def test_older_payload_is_upgraded(pool: pg.Pool) -> None:
    handled: list[Any] = []

    async def handle(item: dict[str, str]) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    def upgrade(value: Any, version: int) -> Any:
        return {"to": value, "was": version}

    await pg.Queue[str](pool, "emails").put("you")
    queue = pg.Queue[dict[str, Any]](pool, "emails", version=2, upgrade=upgrade)
    async with at_work(queue, handle):
        await until(lambda: handled == [{"to": "you", "was": 1}])


async def test_at_a_stop_what_is_not_begun_is_released_with_its_attempt_given_back(
    server: Server, pool: pg.Pool
) -> None:
    queue = pg.Queue[int](pool, "numbers")
    slow = trio.Event()
    begun = 0

    async def handle(item: int) -> None:
        nonlocal begun
        if item >= 500:
            begun += 1
            if begun == 5:
                slow.set()
            await trio.sleep_forever()

    await queue.put_many(range(1000))
    async with at_work(queue, handle, count=5, stop_within=0.3):
        await slow.wait()
    await until(lambda: rows(server).get("ready") == 500, within=1)
    assert server.execute("select distinct attempt from trio_services.ready") == [(0,)]
    books = queue.statistics()
    assert (books.done, books.returned, books.in_hand, books.waiting) == (500, 5, 0, 0)


async def test_jobs_claimed_ahead_are_released_when_the_jobs_have_become_slow(
    server: Server, pool: pg.Pool
) -> None:
    queue = pg.Queue[int](pool, "numbers")

    async def handle(item: int) -> None:
        if item >= 500:
            await trio.sleep_forever()

    await queue.put_many(range(1000))
    async with at_work(queue, handle, count=5, stop_within=0.1):
        await until(lambda: queue.statistics().done == 500)
        await until(lambda: rows(server) == {"ready": 495, "running": 5, "lease": 1}, within=2)


async def test_closed_queue_ends_its_workers_when_nothing_is_ready(
    server: Server, pool: pg.Pool
) -> None:
    queue = pg.Queue[int](pool, "numbers")
    handled: list[int] = []

    async def handle(item: int) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(item)

    await queue.put_many(range(500))
    queue.close()
    with pytest.raises(QueueClosed):
        await queue.put(1)
    async with at_work(queue, handle, count=3) as watched:
        await until(lambda: len(watched.of(events.WorkEnded)) == 1)
    await until(lambda: not rows(server))
    assert len(handled) == 500


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_word_about_a_job_that_is_under_another_lease_changes_nothing(
    server: Server, pool: pg.Pool, outcome: Outcome
) -> None:
    queue = pg.Queue[int](pool, "numbers")
    await queue.put(1)
    job = await queue.take()
    # As if the lease had expired unnoticed, and another process had claimed the job:
    server.execute("update trio_services.running set lease = lease + 1")
    queue.settle(job, outcome)
    await until(lambda: queue.statistics().stale == 1)
    assert rows(server)["running"] == 1
    assert not {"ready", "scheduled", "dead"} & rows(server).keys()


async def test_depth_counts_what_is_in_the_database(pool: pg.Pool) -> None:
    queue = pg.Queue[int](pool, "numbers")
    await queue.put_many([1, 2, 3], priority=4)
    await queue.put(4, delay=60)
    assert await queue.depth() == pg.Depth(ready=3, scheduled=1, running=0, dead=0)


async def test_database_without_the_tables_is_told_to_the_workers(server: Server) -> None:
    server.execute("drop schema if exists trio_services cascade")

    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers")
        with pytest.raises(ServicesError, match=r"numbers cannot be worked on.*lease"):
            await queue.take()

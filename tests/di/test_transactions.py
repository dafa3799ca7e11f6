"""A job that fails or is cancelled leaves nothing behind in the database; real ones, in files."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from trio_services.di import JOB, Container

Handler = Callable[..., Awaitable[object]]


@attrs.frozen(eq=False)
class Database:
    path: Path

    def rows(self) -> list[str]:
        """What others see, over a connection of their own."""
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute("select name from orders order by name")]
        finally:
            connection.close()


class Transaction:
    """A connection with a transaction open, used in threads as in a real program."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, statement: str, *values: object) -> None:
        await trio.to_thread.run_sync(self._connection.execute, statement, values)

    async def insert(self, name: str) -> None:
        await self.execute("insert into orders values (?)", name)


@asynccontextmanager
async def transaction(database: Database) -> AsyncGenerator[Transaction]:
    connect = partial(
        sqlite3.connect, database.path, isolation_level=None, check_same_thread=False, timeout=1.0
    )
    connection = await trio.to_thread.run_sync(connect)
    try:
        opened = Transaction(connection)
        await opened.execute("begin immediate")
        try:
            yield opened
        except BaseException:
            await opened.execute("rollback")  # noqa: ASYNC102
            raise
        await opened.execute("commit")
    finally:
        connection.close()


class Outbox:
    """Something of the job that is made with its transaction, and writes at the end."""

    def __init__(self) -> None:
        self.fails = False


@asynccontextmanager
async def outbox(transaction: Transaction) -> AsyncGenerator[Outbox]:
    yield (made := Outbox())
    await transaction.insert("sent")
    if made.fails:
        raise ConnectionError("mail server")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path / "orders.db")
    connection = sqlite3.connect(database.path)
    connection.execute("create table orders (name text primary key)")
    connection.commit()
    connection.close()
    return database


def container_of(database: Database, dispose_within: float = 5.0) -> Container:
    container = Container(dispose_within=dispose_within)
    container.provide_value(database)
    container.provide(transaction, scope=JOB)
    container.provide(outbox, scope=JOB)
    return container


@asynccontextmanager
async def bound(database: Database, handler: Handler) -> AsyncGenerator[Handler]:
    async with container_of(database).open() as host, host.open_service() as service:
        yield await service.bind(handler, 1)


async def test_job_that_succeeds_commits(database: Database) -> None:
    async def handle(name: str, transaction: Transaction) -> None:
        await transaction.insert(name)
        assert database.rows() == []

    async with bound(database, handle) as job:
        await job("a")
        assert database.rows() == ["a"]


async def test_job_that_fails_rolls_back_and_the_next_one_commits(database: Database) -> None:
    async def handle(name: str, transaction: Transaction) -> None:
        await transaction.insert(name)
        if name == "bad":
            raise ValueError(name)

    async with bound(database, handle) as job:
        with pytest.raises(ValueError, match="bad"):
            await job("bad")
        assert database.rows() == []
        await job("good")
        assert database.rows() == ["good"]


async def test_job_that_is_cancelled_rolls_back(database: Database) -> None:
    async def handle(name: str, transaction: Transaction) -> None:
        await transaction.insert(name)
        await trio.sleep_forever()

    async with bound(database, handle) as job:
        with trio.move_on_after(0.1) as scope:
            await job("a")
        assert scope.cancelled_caught
        assert database.rows() == []


async def test_job_that_is_cancelled_while_it_commits_has_committed(database: Database) -> None:
    commits = trio.Event()

    async def handle(name: str, transaction: Transaction) -> None:
        await transaction.insert(name)
        execute = transaction.execute

        async def slow(statement: str, *values: object) -> None:
            commits.set()
            await trio.sleep(0.1)
            await execute(statement, *values)

        vars(transaction)["execute"] = slow

    async with bound(database, handle) as job, trio.open_nursery() as nursery:
        nursery.start_soon(job, "a")
        await commits.wait()
        nursery.cancel_scope.cancel()
    assert database.rows() == ["a"]


async def test_job_whose_other_objects_fail_at_their_end_rolls_back(database: Database) -> None:
    async def handle(name: str, transaction: Transaction, outbox: Outbox) -> None:
        await transaction.insert(name)
        outbox.fails = name == "bad"

    async with bound(database, handle) as job:
        with pytest.raises(ConnectionError, match="mail server"):
            await job("bad")
        assert database.rows() == []
        await job("good")
        assert database.rows() == ["good", "sent"]


async def test_commit_that_fails_fails_the_job(database: Database) -> None:
    async def handle(name: str, transaction: Transaction) -> None:
        await transaction.execute("pragma defer_foreign_keys = on")
        await transaction.insert(name)
        await transaction.execute("rollback")  # so that there is nothing to commit

    async with bound(database, handle) as job:
        with pytest.raises(sqlite3.OperationalError, match="no transaction is active"):
            await job("a")
    assert database.rows() == []


async def test_jobs_at_once_have_transactions_of_their_own(database: Database) -> None:
    async def handle(name: str, transaction: Transaction) -> None:
        await transaction.insert(name)
        if name.startswith("bad"):
            raise ValueError(name)

    async def try_to(job: Handler, name: str) -> None:
        try:
            await job(name)
        except ValueError:
            assert name.startswith("bad")

    async with bound(database, handle) as job, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(try_to, job, f"{'bad' if number % 2 else 'good'} {number}")
    assert database.rows() == [f"good {number}" for number in (0, 2, 4, 6, 8)]

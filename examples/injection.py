"""Transfers between accounts: each gets a transaction of its own by the type of a parameter."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from sqlite3 import Connection

import trio

from trio_services import JOB, Container, Service, current_service, run


class Transaction:
    """What one transfer does, all of it or nothing."""

    def __init__(self, database: Connection) -> None:
        self._database = database

    def add(self, name: str, euros: int) -> None:
        """Change what is on an account; it cannot be less than nothing."""
        change = "update accounts set euros = euros + ? where name = ?"
        self._database.execute(change, (euros, name))


@contextmanager
def open_database() -> Generator[Connection]:
    """Open the database of all."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("create table accounts (name primary key, euros check (euros >= 0))")
    database.execute("insert into accounts values ('ann', 100), ('bob', 0)")
    try:
        yield database
    finally:
        database.close()
        print("the database is closed")


@contextmanager
def begin(database: Connection) -> Generator[Transaction]:
    """Begin a transaction, and commit it if all goes well."""
    database.execute("begin")
    try:
        yield Transaction(database)
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")


async def transfer(euros: int, transaction: Transaction) -> None:
    """Move money from Ann to Bob."""
    transaction.add("bob", euros)
    await trio.sleep(0.1)
    transaction.add("ann", -euros)


class Bank(Service):
    """Make the transfers of the day."""

    def __init__(self, database: Connection) -> None:
        self._database = database

    async def run(self) -> None:
        """Make one after the other."""
        make_transfer = await current_service().bind(transfer, 1)
        for euros in (70, 50, 20):
            try:
                await make_transfer(euros)
            except sqlite3.IntegrityError as error:
                print(f"{euros} euros: {error}")
            print(dict(self._database.execute("select * from accounts")))


container = Container()
container.provide(open_database)
container.provide(begin, scope=JOB)

if __name__ == "__main__":
    run(Bank, container=container)

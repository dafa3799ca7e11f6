"""The ledger: every order once, and which files are finished. SQLite, in a worker thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from .orders import File, Malformed, Order

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL, currency TEXT NOT NULL,
    placed_on TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (name TEXT, digest TEXT, PRIMARY KEY (name, digest));
"""


@attrs.frozen
class Totals:
    """What the ledger holds; `cents` by currency."""

    orders: int
    files: int
    cents: dict[str, int]


@attrs.frozen
class Ledger:
    """A ledger in a file. Each call is one transaction, which is done or not done.

    Cancellation: not while a transaction runs, which takes milliseconds.
    """

    path: Path

    async def prepare(self) -> None:
        """Make the file if there is none; before anything else is done with it."""

        def prepare() -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                database.execute("PRAGMA journal_mode = wal")  # the file remembers it
                database.executescript(_SCHEMA)

        await trio.to_thread.run_sync(prepare)

    async def add(self, order: Order) -> None:
        """Enter an order; entering the same again changes nothing.

        Raises:
            Malformed: another order is in the ledger under its id.
            sqlite3.OperationalError: the file is busy, or cannot be written.
        """

        def add(database: sqlite3.Connection) -> None:
            values = (*attrs.astuple(order)[:4], order.placed_on.isoformat())
            entered = database.execute(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", values
            )
            if not entered.rowcount:
                there = database.execute("SELECT * FROM orders WHERE id = ?", (order.id,))
                if there.fetchone() != values:
                    raise Malformed(f"another order has the id {order.id}")

        await self._transact(add)

    async def is_finished(self, file: File) -> bool:
        """Whether every row of a file has been settled before."""

        def look(database: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM files WHERE name = ? AND digest = ?"
            return database.execute(query, (file.name, file.digest)).fetchone() is not None

        return await self._transact(look)

    async def finish(self, file: File) -> None:
        """Every row of a file has been settled."""

        def finish(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT INTO files VALUES (?, ?) ON CONFLICT DO NOTHING", (file.name, file.digest)
            )

        await self._transact(finish)

    async def totals(self) -> Totals:
        """What is in the ledger now."""

        def add_up(database: sqlite3.Connection) -> Totals:
            rows = database.execute(
                "SELECT currency, count(*), sum(cents) FROM orders GROUP BY 1 ORDER BY 1"
            ).fetchall()
            (files,) = database.execute("SELECT count(*) FROM files").fetchone()
            return Totals(
                orders=sum(count for _, count, _ in rows),
                files=files,
                cents={currency: cents for currency, _, cents in rows},
            )

        return await self._transact(add_up)

    async def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transact() -> T:
            with self._open() as database, database:
                return work(database)

        return await trio.to_thread.run_sync(transact)

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection, None, None]:
        with closing(sqlite3.connect(self.path, timeout=2.0)) as database:
            database.execute("PRAGMA synchronous = normal")
            yield database

"""Blocks that borrow a connection from a pool, and transactions that are tried again."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Literal

from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from ..lifecycle import leaves_of
from ..resilience import Backoff
from ._block import Transaction
from ._stock import AnyConnection

if TYPE_CHECKING:
    from ._pool import Pool

Isolation = Literal["read committed", "repeatable read", "serializable"]
"""How far transactions are kept apart; in the words of PostgreSQL."""

# Two that were in each other's way are not to meet again.
BACKOFF = Backoff(initial=0.01, factor=2, cap=1.0, jitter=1.0)


class Loan:
    """A block that borrows a connection; see `Pool.connection`."""

    __slots__ = ("_connection", "_pool", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    async def __aenter__(self) -> AnyConnection:
        self._connection = await self._pool.getconn(self._timeout)
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self._connection
        if connection._lender is not self._pool:
            return  # it was given back by its `close()`
        try:
            idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
            if exc is None and not idle and not connection._closed:
                await connection.commit()  # noqa: ASYNC102 -- before it is sent, or bounded
        finally:
            self._pool.putconn(connection)


class PoolTransaction:
    """A transaction on a connection that is borrowed for it; see `Pool.transaction`."""

    __slots__ = ("_begin", "_block", "_connection", "_pool", "_statement_timeout", "_timeout")

    def __init__(
        self, pool: Pool, begin: bytes, statement_timeout: float | None, timeout: float | None
    ) -> None:
        self._pool = pool
        self._begin = begin
        self._statement_timeout = statement_timeout
        self._timeout = timeout

    async def __aenter__(self) -> AnyConnection:
        connection = self._connection = await self._pool.getconn(self._timeout)
        self._block = Transaction(connection, begin=self._begin)
        try:
            await self._block.__aenter__()
            if self._statement_timeout is not None:
                await connection.execute(
                    sql.SQL("SET LOCAL statement_timeout = {}").format(
                        max(1, round(1000 * self._statement_timeout))
                    )
                )
        except BaseException:
            self._pool.putconn(connection)  # which brings it to order
            raise
        return connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            # Shielded where it has to be.
            return await self._block.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102
        finally:
            self._pool.putconn(self._connection)


def begin_statement(isolation: Isolation | None, read_only: bool | None) -> bytes:
    """The statement that begins a transaction; nothing where the connection's own will do."""
    if isolation is None and read_only is None:
        return b""
    words = ["BEGIN"]
    if isolation is not None:
        words += ["ISOLATION LEVEL", isolation.upper()]
    if read_only is not None:
        words.append("READ ONLY" if read_only else "READ WRITE")
    return " ".join(words).encode()


def is_conflict(error: Exception) -> bool:
    """Whether a transaction failed only because of others at the same time.

    Source: serialization_failure and deadlock_detected; see "Serialization Failure Handling" in
    PostgreSQL's manual.
    """
    conflicts = (errors.SerializationFailure, errors.DeadlockDetected)
    return all(isinstance(leaf, conflicts) for leaf in leaves_of(error))

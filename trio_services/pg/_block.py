"""What is entered and left, such as transactions: it ends well under cancellation."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import trio
from psycopg import AsyncPipeline, AsyncServerCursor, AsyncTransaction, OperationalError, errors
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

from ._drive import CLEAN_UP

if TYPE_CHECKING:
    from ._connection import Connection
    from ._wait import Steps

logger = logging.getLogger("psycopg")


class ServerCursor(AsyncServerCursor[Row]):
    """A cursor in the server, which is closed there even under cancellation."""

    __slots__ = ()

    async def close(self) -> None:
        """Close the cursor.

        Cancellation: shielded, for as long as `CLEAN_UP`.
        """
        with trio.move_on_after(CLEAN_UP, shield=True):
            await super().close()


class Pipeline(AsyncPipeline):
    """Pipeline mode, which is left even under cancellation."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Receive all results that are outstanding.

        Cancellation: cancels in the server what still runs there.
        """
        await self._leave(exc)  # noqa: ASYNC102 -- shielded where it has to be

    async def _leave(self, exc: BaseException | None) -> None:
        connection = cast("Connection[Any]", self._conn)
        try:
            async with self._lock:
                await connection._driver.ensure(self._exit_gen())
        except Exception as error:
            if exc is None:
                # Results that say "cancelled" were so because the task is.
                await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC120
                raise
            logger.warning("error ignored terminating %r: %s", self, error)
        finally:
            self._exit(exc)


class Transaction(AsyncTransaction):
    """A block that is a transaction, or inside of another one a savepoint.

    Args:
        connection: where.
        savepoint_name: of a savepoint; made up if there is none.
        force_rollback: whether it is rolled back in any case.
        begin: the statement that begins it, if it is a transaction.

    Raises:
        CommitUnknown: at its end, the connection was lost before the server has answered.
        psycopg.errors.InFailedSqlTransaction: at its end, a statement of it had failed, and the
            block has hidden that. It was rolled back.

    Cancellation: rolls back, for as long as `CLEAN_UP`; once COMMIT was sent, that is waited for.
    """

    status: AsyncTransaction.Status

    def __init__(
        self,
        connection: Connection[Any],
        savepoint_name: str | None = None,
        force_rollback: bool = False,
        begin: bytes = b"",
    ) -> None:
        super().__init__(connection, savepoint_name, force_rollback)
        self._begin = begin

    async def __aenter__(self) -> Self:
        """Begin it."""
        connection = self._own_connection()
        async with connection.lock:
            if self.status != self.Status.NOT_STARTED:
                raise TypeError("transaction blocks can be used only once")
            connection._begin = self._begin
            try:
                await connection.wait(self._enter_gen())
            except BaseException as error:
                await self._undo(error)  # noqa: ASYNC102 -- is shielded
                raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Commit it, or roll it back."""
        return await self._leave(exc)  # noqa: ASYNC102 -- shielded where it has to be

    async def _leave(self, exc: BaseException | None) -> bool:
        connection = self._own_connection()
        if connection.closed:
            self.status = self.Status.FAILED
            if exc is None:
                raise OperationalError("the connection was lost: the transaction is rolled back")
            return False
        async with connection.lock:
            if exc is not None or self.force_rollback:
                return await self._roll_back(exc)
            if self.pgconn.transaction_status == TransactionStatus.INERROR:
                failed = errors.InFailedSqlTransaction(
                    "the transaction was rolled back, since a statement of it had failed"
                )
                await self._roll_back(failed)
                raise failed
            try:
                if self._outer_transaction:
                    await connection._driver.conclude(self._commit_and_sync())
                else:
                    await connection.wait(self._exit_gen(None, None, None))
            except BaseException as error:
                await self._undo(error)  # noqa: ASYNC102 -- is shielded
                raise
        return False

    def _commit_and_sync(self) -> Steps[None]:
        yield from self._exit_gen(None, None, None)
        # In a pipeline the command is only queued so far, and the outcome not known.
        if self._conn._pipeline is not None:
            yield from self._conn._pipeline._sync_gen()

    async def _undo(self, error: BaseException) -> None:
        """Roll back what was begun, and not ended."""
        if self.status == self.Status.ACTIVE:
            if self._own_connection().closed:
                self.status = self.Status.FAILED
            else:
                await self._roll_back(error)

    async def _roll_back(self, error: BaseException | None) -> bool:
        gen = (
            self._exit_gen(type(error), error, None) if error else self._exit_gen(None, None, None)
        )
        try:
            return await self._own_connection()._driver.ensure(gen)
        except OperationalError as lost:  # and with it the transaction
            logger.warning("error ignored in rollback of %s: %s", self, lost)
            return False

    def _own_connection(self) -> Connection[Any]:
        return cast("Connection[Any]", self._conn)

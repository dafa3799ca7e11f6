"""psycopg's asynchronous connection, on Trio.

psycopg does all its work in generators, which `Connection.wait` drives; so cursors of all kinds,
COPY, prepared statements and two-phase commit are psycopg's own, unchanged. What is different is
what happens when Trio cancels: see `_drive`, and `_block` for what is entered and left.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast, overload

import trio
from psycopg import AsyncConnection, AsyncCursor, AsyncPipeline, AsyncServerCursor, Notify, errors
from psycopg.abc import AdaptContext, ConnDict, ConnParam, Params, Query
from psycopg.adapt import AdaptersMap
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import AsyncRowFactory, Row, TupleRow, tuple_row

from ._block import Pipeline, ServerCursor, Transaction
from ._cancel import cancel_query
from ._connecting import connection_parameters, open_pgconn
from ._drive import CLEAN_UP, Driver
from ._lock import Lock
from ._notifies import arrivals, keep_arrived
from ._wait import Steps

if TYPE_CHECKING:
    import asyncio

RV = TypeVar("RV")

_ACTIVE = TransactionStatus.ACTIVE
_INERROR = TransactionStatus.INERROR

_TUPLES = cast("AsyncRowFactory[Any]", tuple_row)

logger = logging.getLogger("psycopg")


class Lender(Protocol):
    """Where a connection was borrowed from."""

    def take_back(self, connection: Connection[Any]) -> bool:
        """Take it back instead of closing it; whether it wants that."""
        ...


class Connection(AsyncConnection[Row]):
    """A connection to PostgreSQL with the methods of `psycopg.AsyncConnection`, on Trio.

    `async with` commits at its end, or rolls back, and closes the connection.

    Cancellation: a cancelled query is cancelled in the server. One that raises `Cancelled` had no
    effect, and the connection is usable after it, or closed.
    """

    lock: asyncio.Lock
    server_cursor_factory: type[AsyncServerCursor[Row]]
    _pipeline: AsyncPipeline | None

    def __init__(
        self,
        pgconn: PGconn,
        row_factory: AsyncRowFactory[Row] = _TUPLES,
    ) -> None:
        super().__init__(pgconn, row_factory)
        self._turns = Lock()
        self.lock = cast("asyncio.Lock", self._turns)
        self.server_cursor_factory = cast("type[AsyncServerCursor[Row]]", ServerCursor)
        self._begin: bytes = b""
        self._lender: Lender | None = None
        self._stale = False  # the server has become one that takes no writes
        self._driver = Driver(pgconn)

    # -- opening and closing -----------------------------------------------------------

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to a server.

        Args:
            conninfo: a URL, or ``key=value`` words; see libpq's documentation.
            autocommit: whether each statement is a transaction of its own, unless it is in a
                `transaction()` block.
            prepare_threshold: how often a query is run before it is prepared; None: never.
            context: where adapters are taken from.
            row_factory: makes rows; see `psycopg.rows`.
            cursor_factory: makes cursors.
            kwargs: further parameters for libpq. Where nothing else is said, an address has 5 s to
                answer, and a connection that was cut is given up after about 10.

        Raises:
            psycopg.OperationalError: there is no connection.

        Cancellation: at any time; nothing is left.
        """
        pgconn = await open_pgconn(await cls._get_connection_params(conninfo, **kwargs))
        connection = cls(pgconn)
        connection._autocommit = bool(autocommit)
        if row_factory is not None:
            connection.row_factory = row_factory
        if cursor_factory is not None:
            connection.cursor_factory = cursor_factory
        if context is not None:
            connection._adapters = AdaptersMap(context.adapters)
        connection.prepare_threshold = prepare_threshold
        return connection

    @classmethod
    async def _get_connection_params(cls, conninfo: str, **kwargs: ConnParam) -> ConnDict:
        return connection_parameters(conninfo, **kwargs)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(exc)  # noqa: ASYNC102 -- shielded where it has to be

    async def _leave(self, exc: BaseException | None) -> None:
        try:
            if self.closed:
                pass
            elif exc is None:
                await self.commit()
            else:
                await self.rollback()
        except Exception as error:
            if exc is None:
                raise
            logger.warning("error ignored in rollback on %s: %s", self, error)
        finally:
            if self._lender is None:
                await self.close()  # noqa: ASYNC102 -- is not cancelled

    async def close(self) -> None:
        """Close the connection, or give it back to the pool if that wants it so.

        Cancellation: none. What runs in the server is cancelled there, if that does not take long.
        """
        if self.closed:
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif self._lender is None or not self._lender.take_back(self):
            self._closed = True
            if self.pgconn.transaction_status == _ACTIVE:
                await self._try_cancel()
            self._driver.close()

    @property
    def _modes(self) -> tuple[object, ...]:
        """What a borrower may have changed."""
        return self._autocommit, self._isolation_level, self._read_only, self._deferrable

    @_modes.setter
    def _modes(self, modes: tuple[Any, ...]) -> None:
        self._autocommit, self._isolation_level, self._read_only, self._deferrable = modes
        self._begin_statement = b""

    # -- driving generators ------------------------------------------------------------

    async def wait(self, gen: Steps[RV], interval: float = 0.0, timeout: float | None = None) -> RV:
        """Drive one of psycopg's generators to its end, and return what it returns.

        Args:
            gen: works on this connection.
            interval: has no meaning on Trio.
            timeout: seconds; like any cancellation it may come too late.

        Raises:
            trio.TooSlowError: the timeout has passed.

        Cancellation: as the class says.
        """
        if timeout is not None:
            with trio.fail_after(timeout):
                return await self.wait(gen)
        try:
            return await self._driver.run(gen, abort=self._tpc is None or not self._tpc[1])
        except errors.ReadOnlySqlTransaction:
            self._stale = not self._read_only and b"READ ONLY" not in self._begin
            raise

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to cancel what runs on this connection.

        Raises:
            psycopg.errors.CancellationTimeout: it was not told within `timeout` seconds.
        """
        if not self._should_cancel():
            return
        try:
            with trio.fail_after(timeout or math.inf):
                await cancel_query(self.pgconn)
        except trio.TooSlowError:
            raise errors.CancellationTimeout("cancellation timeout expired") from None

    async def _try_cancel(self, *, timeout: float = CLEAN_UP) -> None:
        self._turns.take_over()
        if not self.closed:
            with trio.move_on_after(timeout, shield=True), suppress(errors.Error):
                await cancel_query(self.pgconn)

    @asynccontextmanager
    async def stream(
        self,
        query: Query,
        params: Params | None = None,
        *,
        binary: bool | None = None,
        size: int = 1,
    ) -> AsyncGenerator[AsyncIterator[Row]]:
        """A block with the rows of a query as they come, which needs memory for few of them.

        ::

            async with connection.stream("select * from readings") as rows:
                async for row in rows:
                    ...

        Args:
            query: the query.
            params: its parameters.
            binary: whether values are sent as they are in the server, and not as text.
            size: how many rows are taken at a time; ≥ 1.

        Cancellation: at any time. A query that is left early is cancelled in the server.
        """
        async with self.cursor() as cursor:
            rows = cursor.stream(query, params, binary=binary, size=size)
            async with aclosing(cast("AsyncGenerator[Row]", rows)):
                yield rows

    # -- transactions ------------------------------------------------------------------

    async def commit(self) -> None:
        """Commit the transaction, if there is one.

        Raises:
            CommitUnknown: the connection was lost before the server has answered.
            psycopg.errors.InFailedSqlTransaction: a statement of it had failed, so that it was
                rolled back.

        Cancellation: before it is sent; after that it is waited for, for at most `CLEAN_UP`.
        """
        async with self.lock:
            failed = self.pgconn.transaction_status == _INERROR
            await self._driver.conclude(self._commit_gen())
        if failed:
            raise errors.InFailedSqlTransaction(
                "the transaction was rolled back, since a statement of it had failed"
            )

    async def rollback(self) -> None:
        """Roll the transaction back, if there is one.

        Cancellation: shielded, for as long as `CLEAN_UP`.
        """
        async with self.lock:
            await self._driver.ensure(self._rollback_gen())

    def transaction(  # type: ignore[override]
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AbstractAsyncContextManager[Transaction]:
        """A block that is a transaction, or inside of another one a savepoint.

        Args:
            savepoint_name: of a savepoint; made up if there is none.
            force_rollback: whether it is rolled back in any case.

        Raises:
            CommitUnknown: at its end, as `commit` does.

        Cancellation: rolls back, shielded, for as long as `CLEAN_UP`.
        """
        block = Transaction(self, savepoint_name, force_rollback)
        return block if self._pipeline is None else self._pipelined(block)

    @asynccontextmanager
    async def _pipelined(self, block: Transaction) -> AsyncGenerator[Transaction]:
        async with self.pipeline(), block, self.pipeline():
            yield block

    def _get_tx_start_command(self) -> bytes:
        return self._begin or super()._get_tx_start_command()

    # -- pipelines and notifications ---------------------------------------------------

    @asynccontextmanager
    async def pipeline(self) -> AsyncGenerator[Pipeline]:
        """A block in which commands are sent without waiting for the results of those before."""
        async with self.lock:
            self._check_connection_ok()
            pipeline = cast("Pipeline | None", self._pipeline)
            if pipeline is None:
                pipeline = self._pipeline = Pipeline(self)
        try:
            async with pipeline:
                yield pipeline
        finally:
            if pipeline.level == 0:
                self._pipeline = None

    @asynccontextmanager
    async def _pipeline_nolock(self) -> AsyncGenerator[Pipeline]:
        pipeline = self._pipeline = Pipeline(self, _no_lock=True)
        try:
            async with pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    async def notifies(  # noqa: ASYNC900 -- as in psycopg
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> AsyncGenerator[Notify]:
        """Notifications, as they come; use it with `contextlib.aclosing`.

        It ends when the connection is closed here. Meanwhile the connection cannot be used.

        Args:
            timeout: seconds after which it ends. Default: none.
            stop_after: ends after so many.

        Raises:
            psycopg.OperationalError: the connection was lost.

        Cancellation: at any time; nothing that has come is lost for the next who asks.
        """
        if self._notify_handlers:
            warnings.warn(
                "notifies() and notify handlers on one connection take each other's notifications:"
                " use one of the two",
                RuntimeWarning,
                stacklevel=2,
            )
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        left = math.inf if stop_after is None else stop_after
        async with self.lock:
            while True:
                if (
                    self._driver.alive
                ):  # which receives what is there, even if there is no time left
                    keep_arrived(self)
                while self._notifies_backlog and left > 0:
                    yield self._notifies_backlog.popleft()  # noqa: ASYNC119 -- of a lock
                    left -= 1
                if left <= 0:
                    return
                with trio.move_on_at(deadline) as scope:
                    try:
                        await self.wait(arrivals(self))
                    except errors.OperationalError:
                        if self._closed:
                            return
                        raise
                if scope.cancelled_caught:
                    return


@overload
async def connect(
    conninfo: str = ...,
    *,
    row_factory: AsyncRowFactory[Row],
    autocommit: bool = ...,
    prepare_threshold: int | None = ...,
    context: AdaptContext | None = ...,
    cursor_factory: type[AsyncCursor[Row]] | None = ...,
    **kwargs: ConnParam,
) -> Connection[Row]: ...


@overload
async def connect(
    conninfo: str = ...,
    *,
    row_factory: None = ...,
    autocommit: bool = ...,
    prepare_threshold: int | None = ...,
    context: AdaptContext | None = ...,
    cursor_factory: type[AsyncCursor[Any]] | None = ...,
    **kwargs: ConnParam,
) -> Connection[TupleRow]: ...


async def connect(conninfo: str = "", **kwargs: Any) -> Connection[Any]:
    """Connect to a server, as `Connection.connect` does."""
    return await Connection[Any].connect(conninfo, **kwargs)

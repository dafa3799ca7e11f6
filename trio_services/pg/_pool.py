"""A pool of connections, which outlives its server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, Unpack

import attrs
import outcome
import trio
from psycopg import Error

from ..errors import PoolClosed, PoolTimeout, TooManyRequests
from ..lifecycle import Health
from ..resilience import Retry
from ..services import Service
from ._connection import Connection
from ._listen import Switchboard
from ._statistics import Counters, PoolStatistics
from ._stock import AnyConnection, Arguments, Conninfo, Member, OnConnection, Stock, ping
from ._transaction import (
    BACKOFF,
    Isolation,
    Loan,
    PoolTransaction,
    begin_statement,
    is_conflict,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Pool(Service):
    """Lends connections to one server, opens them when they are needed, and replaces lost ones.

    It is a service, for a supervisor, and ready when `min_size` connections are open; or it is
    entered by ``async with``, and then it may be used at once. It can be opened again.

    Args:
        conninfo: a URL, or ``key=value`` words; or a function, also async, that gives it each time.
        kwargs: more for `Connection.connect`, such as ``{"autocommit": True}``; or a function.
        min_size: how many connections are kept open; ≥ 0.
        max_size: how many there may be; ≥ `min_size`, ≥ 1.
        timeout: seconds that a request waits for a connection; > 0.
        max_waiting: how many requests may wait; 0: any number.
        max_lifetime: seconds after which a connection is replaced; up to a tenth less, at random.
        max_idle: seconds after which one that was not used is closed, if there are more than
            `min_size`.
        reconnect_timeout: seconds without a connection after which `reconnect_failed` is called.
            Attempts go on all the same, at most 3 s apart.
        configure: called with each new connection.
        check: called with a connection before it is lent; it raises if it is not good.
        reset: called with a connection when it was given back.
        reconnect_failed: called with the pool, once in an outage; may be async.
        close_returns: whether `close()` gives a connection back that is lent.
        reserved: how many more connections there may be in `reserved`.
        name: in errors, and of the service.

    Attributes:
        reserved: a pool of its own for what must not wait for the others, such as the renewal of
            leases. Its connections are opened when they are first needed.
        switchboard: what listens for notifications; see `listen`.
    """

    min_size: int
    max_size: int

    def __init__(
        self,
        conninfo: Conninfo = "",
        *,
        kwargs: Arguments | None = None,
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 3600.0,
        max_idle: float = 600.0,
        reconnect_timeout: float = 300.0,
        configure: OnConnection | None = None,
        check: OnConnection | None = None,
        reset: OnConnection | None = None,
        reconnect_failed: Callable[[Pool], Awaitable[object] | None] | None = None,
        close_returns: bool = False,
        reserved: int = 1,
        name: str = "pool",
    ) -> None:
        self.min_size, self.max_size = _sizes(min_size, max_size)
        for key, value in (
            ("timeout", timeout),
            ("max_lifetime", max_lifetime),
            ("max_idle", max_idle),
            ("reconnect_timeout", reconnect_timeout),
        ):
            if not value > 0:
                raise ValueError(f"{key} of {name} must be greater than 0, not {value}")
        self.conninfo: Conninfo = conninfo
        self.kwargs: Arguments = {} if kwargs is None else kwargs
        self.timeout = timeout
        self.max_waiting = max_waiting
        self.max_lifetime = max_lifetime
        self.max_idle = max_idle
        self.reconnect_timeout = reconnect_timeout
        self.configure = configure
        self.reset = reset
        self.close_returns = close_returns
        self.name = name
        self._check = check
        self._reconnect_failed = reconnect_failed
        self._counters = Counters()
        self._stock: Stock | None = None
        self._closing = False
        self._waiting: dict[trio.lowlevel.Task, None] = {}  # in order
        self._changed: trio.Event | None = None  # made when somebody waits
        self._opened = AsyncExitStack()
        self.switchboard: Switchboard = Switchboard(self)
        self.reserved: Pool = self
        if reserved:
            self.reserved = Pool(
                conninfo,
                kwargs=kwargs,
                min_size=0,
                max_size=reserved,
                timeout=timeout,
                configure=configure,
                check=check,
                reset=reset,
                reserved=0,
                name=f"{name}.reserved",
            )

    def __repr__(self) -> str:
        return f"<Pool {self.name}>"

    # -- opening and closing -----------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._opened.enter_async_context(self._open())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What is awaited there has been cancelled.
        await self._opened.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be open until a stop; ready with `min_size` connections."""
        async with self._open():
            await self._filled()
            task_status.started()
            await trio.sleep_forever()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        if self._stock is not None:
            raise RuntimeError(f"{self.name} is open already")
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            stock = self._stock = Stock(self, nursery, lambda: self._counters)
            self._closing = False
            nursery.start_soon(stock.keep)
            stock.refill()
            try:
                if self.reserved is self:
                    yield
                else:
                    async with self.reserved._open():
                        yield
            except Exception as raised:  # noqa: BLE001 -- raised below, outside of the nursery
                error = raised
            finally:
                self._stock = None
                self._refuse()
                stock.close()
                nursery.cancel_scope.cancel()
        if error is not None:
            raise error

    async def close(self, timeout: float = 5.0) -> None:
        """Lend no more connections, and wait until those that are lent have come back.

        What is still lent then is closed when it comes back. The block, or the service, goes on.

        Args:
            timeout: seconds to wait at most; ≥ 0.
        """
        stock = self._lending()
        self._closing = True
        self._refuse()
        with trio.move_on_after(timeout):  # noqa: ASYNC912
            while stock.lent or stock.resting:
                await self._news()
        stock.close()
        await trio.lowlevel.checkpoint()

    def _refuse(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for task in waiting:
            trio.lowlevel.reschedule(task, outcome.Error(PoolClosed(self.name)))
        self._tell()

    async def wait(self, timeout: float = 30.0) -> None:
        """Return when `min_size` connections are open.

        Raises:
            PoolTimeout: that took longer than `timeout` seconds.
            PoolClosed: the pool is not open.
        """
        with trio.move_on_after(timeout):
            await self._filled()
            return
        raise self._timed_out(timeout)

    async def _filled(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._lending().alive < self.min_size:
            await self._news()

    async def _news(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # -- borrowing ---------------------------------------------------------------------

    def connection(
        self, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AnyConnection]:
        """A block that borrows a connection; at its end what was done in it is committed.

        Args:
            timeout: seconds to wait for a connection. Default: the pool's.

        Raises:
            PoolTimeout: no connection became free in time.
            TooManyRequests: too many wait already.
            PoolClosed: the pool is not open.
            CommitUnknown: at its end, the connection was lost before the server has answered.

        Cancellation: rolls back, without waiting for it.
        """
        return Loan(self, timeout)

    def transaction(
        self,
        *,
        isolation: Isolation | None = None,
        read_only: bool | None = None,
        statement_timeout: float | None = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[AnyConnection]:
        """A block that is a transaction, on a connection that is borrowed for it.

        ``connection.transaction()`` inside of it is a savepoint.

        Args:
            isolation: how far it is kept apart from others. Default: the connection's.
            read_only: whether it may only read. Default: the connection's.
            statement_timeout: seconds that each statement may take in the server; > 0.
            timeout: seconds to wait for a connection. Default: the pool's.

        Raises:
            PoolTimeout, TooManyRequests, PoolClosed: as `connection` does.
            CommitUnknown: at its end, the connection was lost before the server has answered.
            psycopg.errors.InFailedSqlTransaction: at its end, a statement had failed, and the block
                has hidden that. It was rolled back.

        Cancellation: rolls back. Once COMMIT was sent, it is waited for, for at most `CLEAN_UP`.
        """
        begin = begin_statement(isolation, read_only)
        return PoolTransaction(self, begin, statement_timeout, timeout)

    async def run_transaction(
        self,
        function: Callable[[AnyConnection, Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        isolation: Isolation | None = "serializable",
        read_only: bool | None = None,
        statement_timeout: float | None = None,
        timeout: float | None = None,
        retries: int = 10,
    ) -> T:
        """Call ``function(connection, *args)`` in a transaction, again if it conflicts with others.

        What it does besides the transaction is done again as well; so it had better do nothing.

        Args:
            function: what to do.
            args: its further arguments.
            isolation: how far it is kept apart from others; None: the connection's.
            read_only, statement_timeout, timeout: as for `transaction`.
            retries: how often it is called again; ≥ 0. Delays grow from about 10 ms to 1 s.

        Returns: what the function returned, when the transaction is committed.

        Raises: what `transaction` and the function raise; at the last attempt also
            `psycopg.errors.SerializationFailure` and `DeadlockDetected`.

        Cancellation: as for `transaction`, and between attempts.
        """

        async def attempt() -> T:
            async with self.transaction(
                isolation=isolation,
                read_only=read_only,
                statement_timeout=statement_timeout,
                timeout=timeout,
            ) as connection:
                return await function(connection, *args)

        return await Retry(retries + 1, BACKOFF, on=is_conflict).call(attempt)

    async def getconn(self, timeout: float | None = None) -> AnyConnection:
        """Borrow a connection, which is owed a `putconn`; see `connection`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        stock = self._lending()
        self._counters.requests_num += 1
        patience = self.timeout if timeout is None else timeout
        give_up_at: float | None = None
        while True:  # noqa: ASYNC913 -- it has checked
            connection = None if self._waiting else stock.take()
            if connection is None:
                if give_up_at is None:
                    give_up_at = trio.current_time() + patience
                connection = await self._wait_in_line(stock, give_up_at)
            if connection is None:
                self._counters.requests_errors += 1
                raise self._timed_out(patience)
            if self._check is not None and not await self._passes(self._check, connection):
                continue
            connection._lender = self
            return connection

    async def _wait_in_line(self, stock: Stock, give_up_at: float) -> AnyConnection | None:
        if self.max_waiting and len(self._waiting) >= self.max_waiting:
            self._counters.requests_errors += 1
            raise TooManyRequests(self.name, len(self._waiting))
        task = trio.lowlevel.current_task()
        began = trio.current_time()
        self._counters.requests_queued += 1
        self._waiting[task] = None
        stock.refill()

        def leave(_: object) -> trio.lowlevel.Abort:
            del self._waiting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            with trio.move_on_at(give_up_at):
                # Whoever has a connection puts it into this task's hands: there is no moment at
                # which a cancellation could lose it.
                lent: AnyConnection = await trio.lowlevel.wait_task_rescheduled(leave)
                return lent
            return None
        finally:
            self._counters.requests_wait += trio.current_time() - began

    async def _passes(self, check: OnConnection, connection: AnyConnection) -> bool:
        good = False
        try:
            await check(connection)
            good = True
        except Exception:  # noqa: BLE001 -- whatever it says, the next is tried
            connection._driver.close()
        finally:
            if not good:
                self._return(connection)
        return good

    def putconn(self, connection: AnyConnection) -> None:
        """Give a connection back; what is not committed is rolled back, by the pool.

        Raises:
            ValueError: it is not lent by this pool.
        """
        if connection._lender is not self:
            raise ValueError(f"{connection} is not lent by {self.name}")
        connection._lender = None
        self._return(connection)

    def _return(self, connection: AnyConnection) -> None:
        if self._stock is None or connection not in self._stock.lent:
            connection._driver.close()  # of a pool that was closed meanwhile
        else:
            self._stock.give_back(connection)
        self._tell()

    def take_back(self, connection: Connection[Any]) -> bool:
        """Take a connection that is being closed, if this pool wants that."""
        if self.close_returns:
            self.putconn(connection)
        return self.close_returns

    def offer(self, member: Member, now: float) -> None:
        """Hand a connection to whoever waits for one, or keep it."""
        stock = self._stock
        if stock is None or self._closing:
            member.connection._driver.close()
        elif self._waiting:
            task = next(iter(self._waiting))
            del self._waiting[task]
            trio.lowlevel.reschedule(task, outcome.Value(stock.lend(member, now)))
        else:
            member.idle_since = now
            stock.idle.append(member)
        self._tell()

    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiting)

    def _lending(self) -> Stock:
        if self._stock is None or self._closing:
            raise PoolClosed(self.name)
        return self._stock

    def _timed_out(self, seconds: float) -> PoolTimeout:
        error = None if self._stock is None else self._stock.last_error
        timed_out = PoolTimeout(self.name, seconds, "" if error is None else str(error).strip())
        timed_out.__cause__ = error
        return timed_out

    async def open_apart(self) -> AnyConnection:
        """Open a connection that is not counted among those of the pool; its opener closes it.

        Raises:
            PoolClosed: the pool is not open.
            psycopg.Error: it could not be opened.
        """
        return (await self._lending().open()).connection

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run something as long as the pool is open.

        Raises:
            PoolClosed: the pool is not open.
        """
        self._lending().nursery.start_soon(function)

    # -- looking after it --------------------------------------------------------------

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes; see the class. Connections that are too many close in time."""
        self.min_size, self.max_size = _sizes(min_size, max_size or self.max_size)
        if self._stock is not None:
            self._stock.refill()

    def drain(self) -> None:
        """Replace all connections, those that are lent when they come back."""
        self._lending().drain()

    async def check(self) -> Health:
        """Have the server answer on each idle connection, replace those that are no good, and say.

        Cancellation: at any time; the connections that were being asked are replaced.
        """
        await trio.lowlevel.checkpoint()
        stock = self._stock
        if stock is None:
            return Health.unhealthy(f"{self.name} is not open")
        idle, stock.idle = stock.idle, []
        stock.resting += len(idle)
        async with trio.open_nursery() as nursery:
            for member in idle:
                nursery.start_soon(self._probe, stock, member)
        if stock.failures and stock.last_error is not None:
            reason = f"{self.name} cannot connect: {str(stock.last_error).strip()}"
            return Health.degraded(reason) if stock.alive else Health.unhealthy(reason)
        return Health.healthy()

    async def _probe(self, stock: Stock, member: Member) -> None:
        good = False
        try:
            await ping(member.connection)
            good = True
        except Error:
            pass
        finally:
            stock.resting -= 1
            if good:
                self.offer(member, perf_counter())
            else:
                stock.lose(member)

    async def give_up(self) -> None:
        """Tell the one who wants to know that nobody could connect for a long time."""
        if self._reconnect_failed is not None:
            told = self._reconnect_failed(self)
            if told is not None:
                await told

    def statistics(self) -> PoolStatistics:
        """What it has, and has done."""
        stock = self._stock
        return self._counters.statistics(
            pool_min=self.min_size,
            pool_max=self.max_size,
            pool_size=0 if stock is None else stock.alive + stock.connecting,
            pool_available=0 if stock is None else len(stock.idle),
            requests_waiting=len(self._waiting),
        )

    def get_stats(self) -> dict[str, int]:
        """The same as psycopg's pool gives it."""
        return attrs.asdict(self.statistics())

    def pop_stats(self) -> dict[str, int]:
        """The same, and count from zero again."""
        stats = self.get_stats()
        self._counters = Counters()
        return stats


open_pool = Pool


def _sizes(min_size: int, max_size: int) -> tuple[int, int]:
    if min_size < 0:
        raise ValueError(f"min_size must be at least 0, not {min_size}")
    if max_size < max(min_size, 1):
        raise ValueError(f"max_size must be at least min_size, and 1, not {max_size}")
    return min_size, max_size

"""The connections of a pool: how many there are, and that they are fit to be lent.

Theory. Everything that changes the stock is synchronous, and happens between two checkpoints; so
there is no lock, and at each moment at which anybody can look::

    size = idle + lent + resting + connecting

where *resting* are those that were given back in the middle of something, and are being brought to
order by a task of the pool. Whoever gives a connection back does not wait for that, and cannot be
cancelled at it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from time import perf_counter
from typing import Any, Protocol, TypeVar, cast

import attrs
import trio
from psycopg import OperationalError, ProgrammingError
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from ..resilience import Backoff
from ._connection import Connection
from ._drive import CLEAN_UP
from ._statistics import Counters

T = TypeVar("T")

AnyConnection = Connection[TupleRow]
"""What a pool lends."""
Conninfo = str | Callable[[], str | Awaitable[str]]
"""Where to connect, or a function that says it."""
Arguments = Mapping[str, Any] | Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Further arguments of `Connection.connect`, or a function that gives them."""
OnConnection = Callable[[AnyConnection], Awaitable[object]]
"""Something to be done with a connection."""

_CONNECT_AT_ONCE = 3
_BACKOFF = Backoff(initial=0.1, factor=2, cap=3, jitter=0.25)
_IDLE = TransactionStatus.IDLE
_ACTIVE = TransactionStatus.ACTIVE


@attrs.define(eq=False)
class Member:
    """A connection of a pool; times are those of `perf_counter`, which costs the least."""

    connection: AnyConnection
    born: float
    expires: float
    modes: tuple[object, ...]  # as they were when it was made
    idle_since: float = 0.0
    lent_at: float = 0.0


class Policy(Protocol):
    """What a pool is like; see `Pool`."""

    conninfo: Conninfo
    kwargs: Arguments
    min_size: int
    max_size: int
    max_lifetime: float
    max_idle: float
    reconnect_timeout: float
    configure: OnConnection | None
    reset: OnConnection | None

    def waiting(self) -> int:
        """How many wait for a connection."""
        ...

    def offer(self, member: Member, now: float) -> None:
        """Take a connection that is fit to be lent."""
        ...

    async def give_up(self) -> None:
        """Nobody could connect for `reconnect_timeout`."""
        ...


class Stock:
    """The connections of a pool while it is open.

    Args:
        policy: the pool.
        nursery: where connections are opened and brought to order.
        counters: gives the present counters.
    """

    def __init__(
        self, policy: Policy, nursery: trio.Nursery, counters: Callable[[], Counters]
    ) -> None:
        self.idle: list[Member] = []  # the one that was used last is at the end
        self.lent: dict[AnyConnection, Member] = {}
        self.resting: int = 0
        self.connecting: int = 0
        self.failures: int = 0  # to connect, in a row
        self.last_error: Exception | None = None
        self._policy = policy
        self.nursery = nursery
        self._counters = counters
        self._closed = False
        self._drained_at = float("-inf")
        self._failing_since = 0.0
        self._gave_up = False

    @property
    def alive(self) -> int:
        """How many connections there are."""
        return len(self.idle) + len(self.lent) + self.resting

    # -- lending -----------------------------------------------------------------------

    def take(self) -> AnyConnection | None:
        """Lend one that is fit to be lent, if there is any.

        A server that was restarted has closed its connections, and that can be seen here.
        """
        now = perf_counter()
        while self.idle:
            member = self.idle.pop()
            if self._fit(member, now) and member.connection._driver.alive:
                return self.lend(member, now)
            self.lose(member)
        return None

    def lend(self, member: Member, now: float) -> AnyConnection:
        """Note that one is lent."""
        member.lent_at = now
        self.lent[member.connection] = member
        return member.connection

    def give_back(self, connection: AnyConnection) -> None:
        """Take one back, in whatever state it is.

        Raises:
            ValueError: it was not lent.
        """
        member = self.lent.pop(connection, None)
        if member is None:
            raise ValueError(f"{connection} is not lent by this pool")
        now = perf_counter()
        counters = self._counters()
        counters.usage += now - member.lent_at
        if self._closed or self.alive >= self._policy.max_size:
            connection._driver.close()
        elif connection.closed or not self._fit(member, now):
            counters.returns_bad += connection.closed
            self.lose(member)
        elif connection._stale:
            # The server takes no writes any more; neither do those it was connected with before.
            self.lose(member)
            self.drain()
        elif self._policy.reset is None and self._in_order(member):
            self._policy.offer(member, now)
        else:
            self.resting += 1
            self.nursery.start_soon(self._bring_to_order, member)

    def _fit(self, member: Member, now: float) -> bool:
        return member.expires > now and member.born > self._drained_at

    def _in_order(self, member: Member) -> bool:
        connection = member.connection
        return (
            connection.pgconn.transaction_status == _IDLE
            and connection._modes == member.modes
            and not connection.lock.locked()
            and not connection.pgconn.pipeline_status
        )

    async def _bring_to_order(self, member: Member) -> None:
        connection = member.connection
        try:
            with trio.move_on_after(CLEAN_UP):
                if connection.pgconn.transaction_status == _ACTIVE or connection.lock.locked():
                    await connection.close()  # somebody is still at it
                    return
                await connection.rollback()
                connection._modes = member.modes
                if self._policy.reset is not None:
                    await self._policy.reset(connection)
        except Exception:  # noqa: BLE001 -- whatever is wrong with it, it is replaced
            connection._driver.close()
        except BaseException:
            connection._driver.close()
            raise
        finally:
            self.resting -= 1
            if not connection.closed and self._in_order(member):
                self._policy.offer(member, perf_counter())
            else:
                self.lose(member)

    # -- getting rid of some -----------------------------------------------------------

    def lose(self, member: Member) -> None:
        """Close one, and have it replaced if it is needed."""
        self._counters().connections_lost += member.connection.broken
        member.connection._driver.close()
        self.refill()

    def drain(self) -> None:
        """Have all that were opened until now replaced, those that are lent when they come back."""
        self._drained_at = perf_counter()
        idle, self.idle = self.idle, []
        for member in idle:
            self.lose(member)

    def close(self) -> None:
        """Close those that are idle now, and the others when they come back."""
        self._closed = True
        idle, self.idle = self.idle, []
        for member in idle:
            member.connection._driver.close()

    async def keep(self) -> None:
        """Close idle connections that are not needed, too old, or closed by the server."""
        policy = self._policy
        while True:
            await trio.sleep(min(10.0, policy.max_idle / 4, policy.max_lifetime / 4))
            now = perf_counter()
            for member in tuple(self.idle):
                needless = (
                    self.alive > policy.min_size and now - member.idle_since >= policy.max_idle
                )
                if needless or not self._fit(member, now) or not member.connection._driver.alive:
                    self.idle.remove(member)
                    self.lose(member)

    # -- connecting --------------------------------------------------------------------

    def refill(self) -> None:
        """Begin to open as many connections as are needed.

        While the server cannot be reached, one attempt is made at a time.
        """
        at_once = 1 if self.failures else _CONNECT_AT_ONCE
        while not self._closed and self.connecting < min(self._missing(), at_once):
            self.connecting += 1
            self.nursery.start_soon(self._connect)

    def _missing(self) -> int:
        policy = self._policy
        alive = self.alive
        wanted = min(policy.waiting(), policy.max_size - alive)
        return max(wanted, policy.min_size - alive)

    async def _connect(self) -> None:
        member = None
        try:
            while member is None and not self._closed and self._missing() >= self.connecting:
                if self.failures:
                    await trio.sleep(_BACKOFF.delay(self.failures))
                try:
                    member = await self.open()
                except Exception as error:  # noqa: BLE001 -- also of `configure`; it is tried again
                    await self._failed(error)
                    if self.connecting > 1:
                        return
        finally:
            self.connecting -= 1
            if member is not None:
                self.failures = 0
                self.last_error = None
                self._gave_up = False
                self._policy.offer(member, perf_counter())
            self.refill()

    async def _failed(self, error: Exception) -> None:
        now = perf_counter()
        self._counters().connections_errors += 1
        self.last_error = error.with_traceback(None)
        self.failures += 1
        if self.failures == 1:
            self._failing_since = now
        elif now - self._failing_since >= self._policy.reconnect_timeout and not self._gave_up:
            self._gave_up = True
            await self._policy.give_up()

    async def open(self) -> Member:
        """Open a connection as the pool's policy says; it belongs to nobody yet."""
        policy = self._policy
        conninfo = await _given(policy.conninfo)
        kwargs = await _given(policy.kwargs)
        self._counters().connections_num += 1
        began = perf_counter()
        connection: AnyConnection = await Connection[TupleRow].connect(conninfo, **kwargs)
        now = perf_counter()
        self._counters().connections_time += now - began
        try:
            if policy.configure is not None:
                await policy.configure(connection)
            if connection.pgconn.transaction_status != _IDLE:
                raise ProgrammingError(
                    f"{policy.configure} left the connection in a transaction: commit it there"
                )
        except BaseException:
            connection._driver.close()
            raise
        # Spread, so that those which were opened together are not replaced together.
        lifetime = policy.max_lifetime * (1 - 0.1 * random.random())
        return Member(connection, now, now + lifetime, connection._modes)


async def _given(value: T | Callable[[], T | Awaitable[T]]) -> T:
    given: Any = value() if callable(value) else value
    return cast("T", await given if isawaitable(given) else given)


async def ping(connection: AnyConnection) -> None:
    """Have the server answer.

    Raises:
        psycopg.OperationalError: it does not, or not within `CLEAN_UP` seconds.
    """
    with trio.move_on_after(CLEAN_UP) as scope:
        await connection.wait(connection._exec_command(b"SELECT 1"))
    if scope.cancelled_caught:
        raise OperationalError(f"the server did not answer within {CLEAN_UP:g} s")

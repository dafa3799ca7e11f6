"""One leader among processes, each term with a number that fences off those before it.

Theory. The row of a leadership says who may lead: its `epoch`, and until when, by the clock of the
database. A contender that finds it expired or given up makes itself the leader, with the next
epoch, in one statement, and PostgreSQL sees to it that only one does. The leader renews the row.

*It stops before another begins.* The leader counts its lease from before it asked for it, on its
own clock, and the database from when it was asked; so the leader's ends first, however long the
answer was under way, and even if none comes. Then its block is cancelled, `_MARGIN` of the lease
before anybody else can lead.

*What it writes too late is fenced off.* A leader that was frozen does not know that it is none any
more. `Term.fence` locks the row in a transaction: it fails unless the term is still the present
one, and as long as that transaction lasts, no other can begin. The lock is one that a contender
waits for (KEY SHARE against UPDATE), and the leader's own renewal (NO KEY UPDATE) does not. If the
link is cut within the transaction, the server ends it when it was idle for the time of a lease.

There is no advisory lock: it would be freed when the server loses the connection, of which the
leader may not hear for a long time. Nor is there a transaction around what is said about the row: a
link that is cut within it would leave the row locked for as long as the server waits for its end.

Source: Gray and Cheriton, "Leases", SOSP 1989; Kleppmann, "How to do distributed locking", 2016
(fencing tokens).
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio
from psycopg import Error, errors

from ..errors import CommitUnknown, LeadershipLost, PoolTimeout, ServicesError
from ..resilience import Backoff
from ._stock import AnyConnection

if TYPE_CHECKING:
    from ._pool import Pool

_TABLE = """
CREATE TABLE IF NOT EXISTS trio_services_leader (
    name text PRIMARY KEY,
    epoch bigint NOT NULL,
    leader text NOT NULL,
    expires_at timestamptz NOT NULL
)
"""
_KNOW = """
INSERT INTO trio_services_leader (name, epoch, leader, expires_at)
VALUES (%(name)s, 0, '', '-infinity') ON CONFLICT DO NOTHING
"""
_TAKE = """
WITH free AS (
    SELECT name FROM trio_services_leader
    WHERE name = %(name)s AND expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED
)
UPDATE trio_services_leader AS l
SET epoch = l.epoch + 1, leader = %(leader)s,
    expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
FROM free WHERE l.name = free.name RETURNING l.epoch
"""
_RENEW = """
UPDATE trio_services_leader
SET expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE name = %(name)s AND epoch = %(epoch)s AND expires_at > clock_timestamp()
"""
_GIVE_UP = """
UPDATE trio_services_leader SET expires_at = clock_timestamp()
WHERE name = %(name)s AND epoch = %(epoch)s
"""
_FENCE = """
SELECT set_config('idle_in_transaction_session_timeout', %(lease)s, true)
FROM trio_services_leader
WHERE name = %(name)s AND epoch = %(epoch)s AND expires_at > clock_timestamp() FOR KEY SHARE
"""
_MARGIN = 0.1  # of the lease
_GIVE_UP_WITHIN = 2.0  # seconds; if it takes longer, the others wait for the end of the lease
_POLL = Backoff(initial=0.5, factor=1, jitter=0.5)


@attrs.define(eq=False)
class Term:
    """The time that one leads, in a `leadership` block.

    Attributes:
        name: of the leadership.
        epoch: the number of the term, greater than that of any before it: the fencing token.
        lease: seconds; see `leadership`.
        lost: set once it is over against the will of the leader, whose block is cancelled then.
    """

    name: str
    epoch: int
    lease: float
    lost: trio.Event = attrs.field(factory=trio.Event, repr=False)

    async def fence(self, connection: AnyConnection) -> None:
        """Make sure that a transaction is committed within this term, or not at all.

        Until the transaction ends nobody else can begin to lead, so it had better be short. The
        server ends it when it was idle for the time of a lease.

        Args:
            connection: at the beginning of a transaction.

        Raises:
            LeadershipLost: somebody else leads, or may.
        """
        lease = f"{self.lease * 1000:.0f}"  # in milliseconds
        parameters = {"name": self.name, "epoch": self.epoch, "lease": lease}
        cursor = await connection.execute(_FENCE, parameters)
        if await cursor.fetchone() is None:
            raise LeadershipLost(self.name, self.epoch)


@asynccontextmanager
async def leadership(pool: Pool, name: str, *, lease: float = 10.0) -> AsyncGenerator[Term]:
    """Wait until this one leads, and lead inside the block.

    ::

        async with pg.leadership(pool, "nightly") as term:
            async with pool.transaction() as connection:
                await term.fence(connection)
                ...

    Args:
        pool: where; its reserved connection is used, so that a busy pool costs nobody the lead.
        name: of the leadership; all who give the same contend for it.
        lease: seconds without a word to the database after which another may lead; ≥ 1. A leader
            that has died is replaced within that and half a second.

    Raises:
        LeadershipLost: the lease was not renewed in time. The block was cancelled before anybody
            else could lead.

    Cancellation: at any time; the leadership is given up, so that another can take it at once.
    """
    if not lease >= 1:
        raise ValueError(f"the lease of {name} must be at least 1 s, not {lease}")
    claim = _Claim(pool, name, lease)
    term, ends_at = await claim.take()
    error: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            scope.deadline = ends_at
            nursery.start_soon(_tell, term, scope)
            nursery.start_soon(claim.renew, term, scope)
            try:
                yield term
            except Exception as raised:  # noqa: BLE001 -- raised below, outside of the nursery
                error = raised
            finally:
                if trio.current_time() >= scope.deadline:
                    term.lost.set()
                scope.deadline = math.inf  # from here on it is not for the lease that it ends
                scope.cancel()
    finally:
        if not term.lost.is_set():
            with trio.move_on_after(_GIVE_UP_WITHIN, shield=True):
                await claim.give_up(term)
    if term.lost.is_set():
        raise LeadershipLost(name, term.epoch) from error
    if error is not None:
        raise error


async def _tell(term: Term, scope: trio.CancelScope) -> None:
    """Set `lost` at once, however long the block takes to be left."""
    try:
        await trio.sleep_forever()
    finally:
        if trio.current_time() >= scope.deadline:  # and not because it is cancelled from around
            term.lost.set()


class _Claim:
    """What is said to the database about a leadership."""

    def __init__(self, pool: Pool, name: str, lease: float) -> None:
        self._pool = pool
        self._lease = lease
        leader = f"{socket.gethostname()}/{os.getpid()}"
        self._parameters = {"name": name, "leader": leader, "lease": lease}
        self._name = name

    async def take(self) -> tuple[Term, float]:
        """Wait until this one leads; the term, and when its lease ends on Trio's clock."""
        while True:
            asked = trio.current_time()
            try:
                epoch = await self._ask_for()
            except errors.UndefinedTable:
                await self._make_table()
                continue
            except (Error, PoolTimeout, CommitUnknown):
                epoch = None  # the pool sees to the connection; a lease of ours would expire
            if epoch is not None:
                return Term(self._name, epoch, self._lease), self._ends_at(asked)
            await trio.sleep(_POLL.delay(1))

    async def _ask_for(self) -> int | None:
        async with self._connection() as connection:
            await connection.execute(_KNOW, self._parameters)
            row = await (await connection.execute(_TAKE, self._parameters)).fetchone()
        return None if row is None else row[0]

    async def _make_table(self) -> None:
        async with self._pool.reserved.transaction(timeout=self._lease) as connection:
            # Two that make it at the same time would be in each other's way.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('trio_services_leader'))"
            )
            await connection.execute(_TABLE)

    async def renew(self, term: Term, scope: trio.CancelScope) -> None:
        """Renew the lease, and with it the deadline of a scope, until that is over."""
        parameters = {**self._parameters, "epoch": term.epoch}
        while True:
            await trio.sleep(self._lease / 4)
            asked = trio.current_time()
            try:
                async with self._connection() as connection:
                    renewed = (await connection.execute(_RENEW, parameters)).rowcount
            except (Error, PoolTimeout, CommitUnknown):
                continue
            if not renewed:
                term.lost.set()
                scope.cancel()
                return
            if scope.deadline < math.inf:
                scope.deadline = self._ends_at(asked)

    async def give_up(self, term: Term) -> None:
        """Let another lead at once."""
        with suppress(Error, ServicesError):
            async with self._connection() as connection:
                await connection.execute(_GIVE_UP, {"name": term.name, "epoch": term.epoch})

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AnyConnection]:
        """A connection on which each statement is a transaction of its own."""
        async with self._pool.reserved.connection(timeout=self._lease) as connection:
            await connection.set_autocommit(True)
            yield connection

    def _ends_at(self, asked: float) -> float:
        return asked + self._lease * (1 - _MARGIN)

"""A process at work on a durable queue: its lease, and its conversation with the database.

Theory. One task talks to the database, over a connection of its own: while a round trip is under
way outcomes gather, and they travel with the next claim, in one transaction. So a queue that is
idle answers at once, and one that is busy makes batches by itself.

*What is claimed ahead.* As many jobs as there are workers who wait for one, and as many more as
were settled during the last round trip: that is what will be needed in the next. What nobody takes
within a moment is given back, for others to do: at a stop, and when jobs have become slow.

*The lease.* One row is renewed for all jobs in hand. It is counted from before it was asked for, on
this process's clock, and by the database from when it was asked; so it ends here first, and the
work that it covers is cancelled before anybody else can get it.

*What is not known.* If the connection is lost in the middle of an exchange, the same outcomes are
told again, which has no effect where they were heard. Jobs that were claimed by an exchange whose
answer was lost are found by a sweep, as those which nobody here knows.
"""

from __future__ import annotations

import math
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from psycopg import Error, errors

from ..errors import CommitUnknown, PoolClosed, PoolTimeout, TooManyRequests
from ..resilience import Backoff
from ._claims import Claims, Words
from ._drive import CLEAN_UP
from ._listen import listen
from ._stock import AnyConnection

if TYPE_CHECKING:
    from ._desk import Desk
    from ._pool import Pool

POLL = 5.0  # seconds: the net under notifications
_MARGIN = 0.1  # of the lease
_AHEAD = 200  # jobs that are claimed before there is a worker for them, at most
_PATIENCE = 0.1  # seconds that a job may wait for a worker here
_LINGER = 1.0  # seconds without work after which a lease is ended
_BACKOFF = Backoff(initial=0.1, factor=2, cap=3, jitter=0.25)
_LOST = (Error, PoolTimeout, TooManyRequests, CommitUnknown, OSError)


class Tenure:
    """One lease, from the first claim under it to the last word about what was claimed.

    Args:
        desk: the queue's side.
        pool: where the database is.
        claims: how to speak of the queue.

    Attributes:
        words: what the database has yet to be told.
        lost: whether the lease is over against its holder's will.
        holds: what is cancelled then.
        error: what was wrong with the last exchange, if anything was.
    """

    def __init__(self, desk: Desk[Any], pool: Pool, claims: Claims) -> None:
        self.words: Words = Words()
        self.lost: bool = False
        self.holds: set[trio.CancelScope] = set()
        self.error: Exception | None = None
        self._desk = desk
        self._pool = pool
        self._claims = claims
        self._number = 0
        self._connection: AnyConnection | None = None
        self._news = trio.Event()
        self._more = True  # whether there may be jobs that are ready
        self._settled = 0  # since the last claim
        self._sent: Words | None = None
        self._sweep_at = -math.inf
        self._reap_at = -math.inf
        self._idle_since = math.inf
        self._ends = trio.CancelScope()  # of the lease

    # -- for the desk ------------------------------------------------------------------

    def tell(self, settled: int = 0) -> None:
        """There are words to be told, or workers that want jobs."""
        self._settled += settled
        self._news.set()

    def look(self) -> None:
        """There may be jobs that are ready."""
        self._more = True
        self._news.set()

    def untold(self) -> list[int]:
        """The ids of the jobs that words wait about, also of those that are under way."""
        return self.words.ids() + ([] if self._sent is None else self._sent.ids())

    @property
    def exhausted(self) -> bool:
        """Whether nothing was ready when the database was last asked."""
        return not self._more

    # -- its life ----------------------------------------------------------------------

    async def run(self) -> None:
        """Work until nobody wants to, or until the lease is lost; it raises nothing but Cancelled.

        Cancellation: what is known is told and what is not begun is given back, for at most
        `CLEAN_UP` seconds.
        """
        error: Exception | None = None
        try:
            await self._begin()
            with self._ends:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard)
                    nursery.start_soon(self._listen)
                    nursery.start_soon(self._renew)
                    await self._converse()
                    nursery.cancel_scope.cancel()
        except* PoolClosed:
            pass  # as good as a cancellation, which comes next
        except* Exception as group:  # noqa: BLE001 -- told to the workers
            error = group.exceptions[0] if len(group.exceptions) == 1 else group
        finally:
            if self._number and not self.lost:
                with trio.move_on_after(CLEAN_UP, shield=True):
                    await self._say_goodbye()
            if self._connection is not None:
                with trio.move_on_after(CLEAN_UP, shield=True):
                    await self._connection.close()
            if not self.lost:
                self._desk.ended(self, error)

    async def _guard(self) -> None:
        """End what the lease covers as soon as it is not kept up any more, whatever else goes on.

        A query that is under way over a link that is cut takes its time to be cancelled.
        """
        try:
            await trio.sleep_forever()
        finally:
            for hold in tuple(self.holds):
                hold.cancel()
            if self.lost or trio.current_time() >= self._ends.deadline:
                self.lost = True
                self._desk.ended(self, None)

    async def _begin(self) -> None:
        worker = f"{socket.gethostname()}/{os.getpid()}"
        failures = 0
        while True:
            asked = trio.current_time()
            try:
                async with self._pool.reserved.transaction(timeout=self._desk.lease) as connection:
                    number = await self._claims.begin(connection, worker, self._desk.lease)
            except errors.UndefinedTable:
                raise
            except _LOST as error:
                self.error = error.with_traceback(None)
                failures += 1
            else:
                self._number, self._ends.deadline = number, self._ends_at(asked)
                return
            await trio.sleep(_BACKOFF.delay(failures))

    async def _listen(self) -> None:
        """Look again when the database says that there is something."""
        async with listen(self._pool, self._claims.channel, capacity=1) as notifications:
            async for _ in notifications:
                self._sweep_at = -math.inf  # it may be about what is due later
                self.look()

    async def _renew(self) -> None:
        while True:
            await trio.sleep(self._desk.lease / 3)
            asked = trio.current_time()
            try:
                async with self._pool.reserved.transaction(timeout=self._desk.lease) as connection:
                    good = await self._claims.renew(connection, self._number, self._desk.lease)
            except _LOST:
                continue  # there is time for another attempt, or the lease ends
            if not good:
                self.lost = True
                self._ends.cancel()
                return
            self._ends.deadline = self._ends_at(asked)

    def _ends_at(self, asked: float) -> float:
        return asked + self._desk.lease * (1 - _MARGIN)

    async def _say_goodbye(self) -> None:
        """Tell what is known, and give back what was not begun."""
        self._restore()
        self.words.back += self._desk.recall(self, math.inf)
        with suppress(*_LOST):
            if self._connection is None or self._connection.closed:
                self._connection = None
                return  # what is not told now others find out when the lease has expired
            if self.words:
                await self._exchange(self._connection, 0)
            await self._claims.end(self._connection, self._number)

    # -- talking -----------------------------------------------------------------------

    async def _converse(self) -> None:
        """Exchange words for jobs, over one connection after the other."""
        failures = 0
        while True:
            try:
                self._connection = await self._pool.open_apart()
                await self._connection.set_autocommit(True)
                self._sweep_at = -math.inf
                while not self._is_over():
                    await self._turn(self._connection)
                    failures = 0
            except errors.UndefinedTable:
                raise
            except _LOST as error:
                self.error = error.with_traceback(None)
                self._restore()
                failures += 1
            else:
                return
            if self._connection is not None:
                await self._connection.close()
            await trio.sleep(_BACKOFF.delay(failures))

    def _is_over(self) -> bool:
        now = trio.current_time()
        if self.words or not self._desk.is_idle(self):
            self._idle_since = math.inf
            return False
        self._idle_since = min(self._idle_since, now)
        return now - self._idle_since >= _LINGER

    async def _turn(self, connection: AnyConnection) -> None:
        now = trio.current_time()
        if now >= self._sweep_at:
            await self._sweep(connection, now)
        until = math.inf if self._desk.is_idle(self) else now - _PATIENCE
        self.words.back += self._desk.recall(self, until)
        wanted = self._desk.wanted(self) if self._more else 0
        if wanted:
            wanted += min(self._settled, _AHEAD)
        if self.words or wanted:
            await self._exchange(connection, wanted)
        else:
            await self._rest()

    async def _exchange(self, connection: AnyConnection, count: int) -> None:
        sent, self.words = self.words, Words()
        self._sent = sent
        self._settled = 0
        if count:
            self._more = False  # unless somebody says so meanwhile
        stale, rows = await self._claims.exchange(connection, self._number, sent, count)
        self._sent = None
        self.error = None
        self._desk.count_stale(stale)
        if count:
            self._more = self._more or len(rows) == count
            self._desk.receive(self, rows, count)

    def _restore(self) -> None:
        """Tell again what was not answered."""
        if self._sent is None:
            return
        sent, self._sent = self._sent, None
        words = self.words
        self.words = Words(
            sent.done + words.done,
            sent.back + words.back,
            sent.later + words.later,
            sent.dead + words.dead,
        )

    async def _sweep(self, connection: AnyConnection, now: float) -> None:
        self._sweep_at = now + POLL
        if now >= self._reap_at:
            self._reap_at = now + min(POLL, self._desk.lease / 3)
            await self._claims.reap(connection, self._desk.attempts)
        upcoming = await self._claims.sweep(connection, self._number, self._desk.known(self))
        self._more = True
        due = self._reap_at if upcoming is None else now + max(0.0, upcoming)
        self._sweep_at = min(self._sweep_at, due, self._reap_at)

    async def _rest(self) -> None:
        """Wait until there is something to say, or to look for."""
        self._news = trio.Event()
        wake_at = min(
            self._sweep_at, self._desk.waiting_since() + _PATIENCE, self._idle_since + _LINGER
        )
        with trio.move_on_at(wake_at):
            await self._news.wait()

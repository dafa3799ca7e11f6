"""Notifications of the server for any number of tasks, over one connection that is kept up.

PostgreSQL keeps no notification for one who is not connected. So whoever listens is told of each
gap, and has to look for what it may have missed; since it is told when the connection listens
again, nothing can slip between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol, Self

import attrs
import trio
from psycopg import Notify, sql

from ..errors import PoolClosed
from ..resilience import Backoff
from ._stock import AnyConnection, ping

if TYPE_CHECKING:
    from ._pool import Pool

_BACKOFF = Backoff(initial=0.1, factor=2, cap=3, jitter=0.25)
_SILENCE = (
    10.0  # seconds without a notification after which the server is asked whether it is there
)


@attrs.frozen
class Gap:
    """Notifications may have been lost here: look for what they would have told.

    `reason` is ``"reconnected"``, or ``"overflow"`` if they were not read fast enough.
    """

    reason: str


class Notifications:
    """An async iterator over notifications, and `Gap` where some may have been lost.

    Args:
        pool: the name of the pool.
        channels: which ones.
        capacity: how many may wait to be read.
    """

    def __init__(self, pool: str, channels: frozenset[str], capacity: int) -> None:
        self.channels: frozenset[str] = channels
        self._pool = pool
        self._capacity = capacity
        self._items: deque[Notify | Gap] = deque()
        self._news = trio.Event()
        self._listening = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notify | Gap:
        """The next one.

        Raises:
            PoolClosed: the pool was closed.

        Cancellation: at any time; nothing is lost by it.
        """
        await trio.lowlevel.checkpoint()
        while not self._items:
            await self._wait()
        return self._items.popleft()

    async def wait_listening(self) -> None:
        """Return when the server knows of it."""
        while not self._listening:
            await self._wait()

    async def _wait(self) -> None:
        if self._ended:
            raise PoolClosed(self._pool)
        self._news = trio.Event()
        await self._news.wait()

    def put(self, item: Notify | Gap) -> None:
        """Add one."""
        if len(self._items) >= self._capacity:
            self._items.clear()
            item = Gap("overflow")
        self._items.append(item)
        self._news.set()

    def begin(self) -> None:
        """The server knows of it, from now on or again."""
        if self._listening:
            self.put(Gap("reconnected"))
        self._listening = True
        self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._news.set()


class Source(Protocol):
    """Where the connection comes from."""

    async def open_apart(self) -> AnyConnection:
        """Open a connection that does not belong to those that are lent."""
        ...

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run something as long as the source is open."""
        ...


class Switchboard:
    """Listens on one connection for all, as long as anybody does.

    Args:
        source: the pool.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines: dict[Notifications, None] = {}
        self._waiting: trio.CancelScope | None = None
        self._running = False

    def add(self, line: Notifications) -> None:
        """Listen for one more."""
        if not self._running:
            self._source.start(self._run)
            self._running = True
        self._lines[line] = None
        self._changed()

    def remove(self, line: Notifications) -> None:
        """Listen for one less."""
        del self._lines[line]
        self._changed()

    def _changed(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def _run(self) -> None:
        failures = 0
        try:
            while self._lines:
                began = trio.current_time()
                try:
                    connection = await self._source.open_apart()
                    try:
                        await connection.set_autocommit(True)
                        await self._listen(connection)
                    finally:
                        connection._driver.close()
                except Exception:  # noqa: BLE001 -- also of `configure`; it is tried again
                    healthy = trio.current_time() - began > _BACKOFF.cap
                    failures = 1 if healthy else failures + 1
                    await trio.sleep(_BACKOFF.delay(failures))
        finally:
            self._running = False
            for line in self._lines:
                line.end()

    async def _listen(self, connection: AnyConnection) -> None:
        heard: frozenset[str] = frozenset()
        begun: set[Notifications] = set()
        while self._lines:
            wanted = frozenset[str]().union(*(line.channels for line in self._lines))
            for channel in sorted(wanted - heard):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            for channel in sorted(heard - wanted):
                await connection.execute(sql.SQL("UNLISTEN {}").format(sql.Identifier(channel)))
            heard = wanted
            for line in self._lines:
                if line not in begun and line.channels <= heard:
                    begun.add(line)
                    line.begin()
            if frozenset[str]().union(*(line.channels for line in self._lines)) == heard:
                await self._deliver(connection)

    async def _deliver(self, connection: AnyConnection) -> None:
        """Hand out what comes, until other channels are wanted."""
        with trio.CancelScope() as self._waiting:
            while True:
                async with aclosing(connection.notifies(timeout=_SILENCE)) as notifies:
                    async for notify in notifies:
                        for line in self._lines:
                            if notify.channel in line.channels:
                                line.put(notify)
                await ping(connection)
        self._waiting = None


@asynccontextmanager
async def listen(pool: Pool, *channels: str, capacity: int = 1000) -> AsyncGenerator[Notifications]:
    """A block that listens on channels; it begins when the server knows.

    All that listen on channels of one pool share a connection, besides those that the pool lends.
    When that is lost it is opened again, and each of them is given a `Gap`::

        async with pg.listen(pool, "orders") as notifications:
            await look_for_orders()
            async for notification in notifications:
                await look_for_orders()

    Args:
        pool: where to listen; open.
        channels: their names; ≥ 1.
        capacity: how many notifications may wait to be read; when there are more, they are replaced
            by a `Gap`. ≥ 1.

    Raises:
        PoolClosed: the pool is not open, or was closed.

    Cancellation: at any time.
    """
    if not channels or capacity < 1:
        raise ValueError("listen needs a channel, and a capacity of at least 1")
    line = Notifications(pool.name, frozenset(channels), capacity)
    pool.switchboard.add(line)
    try:
        await line.wait_listening()
        yield line
    finally:
        pool.switchboard.remove(line)

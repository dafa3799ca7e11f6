"""A queue in the database, for any number of processes."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ..errors import BadPayload, QueueClosed
from ._desk import Desk
from ._payload import Codec, Upgrade

if TYPE_CHECKING:
    from ._pool import Pool
    from ._stock import AnyConnection

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,47}")
_PRIORITIES = range(-100, 101)
_FAILURES_KEPT = 20


@attrs.frozen
class Depth:
    """How many jobs of a queue there are in the database."""

    ready: int
    scheduled: int
    running: int
    dead: int


class Queue(Desk[T]):
    """A queue in the database: items outlive processes, which share the work.

    An item is handled at least once. A process that handles it has a lease; if that ends, because
    the process has died or cannot reach the database, others get the item, and nothing that the
    process says of it later counts.

    ::

        emails = pg.Queue[Email](pool, "emails")
        await emails.put(email)
        Workers(emails, send, count=20)

    Args:
        pool: of the database, which has the framework's schema; see `migrate`. Open while items are
            put or taken.
        name: of the queue, the same for all that share it: a lower-case letter, and up to 47 more
            of those, digits, ``_``, ``.`` or ``-``.
        lease: seconds without a word from a process after which its jobs are others'; ≥ 1.
        attempts: how often a job is begun before it is dead, whether its handler fails or its
            process dies; ≥ 1. Of failing handlers, the `retry` of the workers decides if they have
            one.
        item: the type of the items. Default: what is in the brackets, or else plain JSON.
        version: of the payloads that are put; ≥ 1. Raise it when the type of the items changes.
        upgrade: ``upgrade(json, version)`` makes the JSON of an older version one of the present.

    Attributes:
        retry: what is done about failed jobs by workers that say nothing about it.
    """

    def __init__(
        self,
        pool: Pool,
        name: str,
        *,
        lease: float = 30.0,
        attempts: int = 5,
        item: Any = None,
        version: int = 1,
        upgrade: Upgrade | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name for a queue: it begins with a lower-case letter, and has up "
                "to 47 more of those, digits, '_', '.' and '-'"
            )
        if not 1 <= lease < math.inf:
            raise ValueError(f"the lease of queue {name} must be at least 1 s, not {lease}")
        if type(attempts) is not int or not 1 <= attempts <= 1000:
            raise ValueError(f"the attempts of queue {name} must be 1 … 1000, not {attempts}")
        super().__init__(pool, name, lease, attempts, item, Codec(name, version, upgrade))

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"

    # -- for producers -----------------------------------------------------------------

    async def put(
        self,
        item: T,
        *,
        connection: AnyConnection | None = None,
        run_at: datetime | None = None,
        delay: float | None = None,
        priority: int = 0,
        unique: str | None = None,
    ) -> int | None:
        """Put an item; when this returns it is there to stay.

        Args:
            item: what the handler gets; at most 1 MiB as JSON.
            connection: put it in the transaction that is under way there, with all else in it.
                Default: in one of its own.
            run_at: not before then, by the clock of the database; with a time zone.
            delay: or not before so many seconds have passed; ≥ 0.
            priority: those with a greater one are handled first; -100 … 100.
            unique: at most one item with this key is in the queue, waiting or being handled.

        Returns: the number of the job, or None if there is one with the same `unique`.

        Raises:
            BadPayload: the item, or what is said about it, cannot be put.
            QueueClosed: the queue was closed.
            CommitUnknown: the connection was lost meanwhile: it may be there or not. Give a
                `unique` key to be able to put it again.
            PoolTimeout, PoolClosed, psycopg.Error: it is not there.

        Cancellation: it is not there. Once COMMIT was sent, that is waited for.
        """
        self._check_open()
        job = self._describe(item, run_at, delay, priority, unique)
        async with self._connection(connection) as using:
            return await self._claims.put(using, job)

    async def put_many(
        self, items: Iterable[T], *, connection: AnyConnection | None = None, priority: int = 0
    ) -> int:
        """Put many items at once, all or none; see `put`.

        Returns: how many.
        """
        self._check_open()
        self._check_priority(priority)
        type_ = self._item_type()
        payloads = [self._codec.encode(item, type_) for item in items]
        async with self._connection(connection) as using:
            await self._claims.put_many(using, -priority, self._codec.version, payloads)
        return len(payloads)

    async def depth(self) -> Depth:
        """How many jobs there are in the database; it counts them, so ask now and then."""
        async with self._pool.connection() as connection:
            return Depth(*await self._claims.count(connection))

    @asynccontextmanager
    async def _connection(self, connection: AnyConnection | None) -> AsyncGenerator[AnyConnection]:
        if connection is not None:
            yield connection
            return
        async with self._pool.transaction() as own:
            yield own

    def _describe(
        self,
        item: T,
        run_at: datetime | None,
        delay: float | None,
        priority: int,
        unique: str | None,
    ) -> dict[str, Any]:
        self._check_priority(priority)
        if run_at is not None and delay is not None:
            raise BadPayload(self.name, "", "run_at and delay do not go together")
        if run_at is not None and run_at.tzinfo is None:
            raise BadPayload(self.name, "", f"run_at {run_at} has no time zone")
        if delay is not None and not 0 <= delay < 1e9:
            raise BadPayload(self.name, "", f"delay must be at least 0 s and finite, not {delay}")
        if unique is not None:
            self._codec.check_key(unique)
        return {
            "payload": self._codec.encode(item, self._item_type()),
            "version": self._codec.version,
            "rank": -priority,
            "unique": unique,
            "run_at": run_at,
            "delay": delay,
        }

    def _check_priority(self, priority: int) -> None:
        if type(priority) is not int or priority not in _PRIORITIES:
            raise BadPayload(self.name, "", f"priority must be -100 … 100, not {priority}")

    def _check_open(self) -> None:
        if self._closed:
            raise QueueClosed(self.name)

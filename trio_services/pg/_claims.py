"""What is said to the database about jobs: how they move from table to table.

Theory. A job is one row, and where it is says what it is: `scheduled`, `ready`, `running` or
`dead`; what is done is deleted. A claim moves rows from `ready` to `running`, under the number of
the claimer's lease, and everything that is said of them later names that number: so it has an
effect on the jobs that are the speaker's, and on no others. That is the fence, and the only one
that is needed, since the number of a lease is never used again.

A claim locks its lease against being deleted (KEY SHARE). Whoever finds a lease expired locks it
first, and looks for its jobs in a second statement, which sees all that was claimed before.

The rows to be claimed are found by the index in its order, and moved by their place in the table
(``ctid = ANY(ARRAY(…))``): no plan for that reads more than it has to, whatever is believed to be
in the tables.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import attrs

from ._stock import AnyConnection

_SCHEMA = "trio_services"
_JOB = "queue, rank, id, version, payload, unique_key, put_at"  # what never changes about it
_SWEPT = 1000  # rows at a time

_PUT = f"""
WITH put AS (
    INSERT INTO {_SCHEMA}.{{table}} (queue, rank, version, payload, unique_key{{column}})
    {{rows}} RETURNING id
)
SELECT id, pg_notify(%(channel)s, '') FROM put
"""
_VALUES = (
    "SELECT %(queue)s, %(rank)s::smallint, %(version)s::int, %(payload)s::json, %(unique)s::text"
)
_FREE = f"""
WITH free AS (
    INSERT INTO {_SCHEMA}.unique_job (queue, key) VALUES (%(queue)s, %(unique)s)
    ON CONFLICT DO NOTHING RETURNING key
), put AS ("""
_RUN_AT = """,
    coalesce(%(run_at)s::timestamptz, clock_timestamp() + make_interval(secs => %(delay)s::float8))
"""

_CLAIM = f"""
WITH mine AS MATERIALIZED (
    SELECT id FROM {_SCHEMA}.lease
    WHERE id = %(lease)s AND expires_at > clock_timestamp() FOR KEY SHARE
), first AS MATERIALIZED (
    SELECT ctid FROM {_SCHEMA}.ready
    WHERE queue = %(queue)s AND EXISTS (SELECT FROM mine)
    ORDER BY rank, id LIMIT %(count)s::int FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM {_SCHEMA}.ready WHERE ctid = ANY(ARRAY(SELECT ctid FROM first))
    RETURNING {_JOB}, attempt, errors
)
INSERT INTO {_SCHEMA}.running ({_JOB}, attempt, errors, lease)
SELECT {_JOB}, attempt + 1, errors, %(lease)s::bigint FROM taken
RETURNING rank, id, attempt, version, payload::text, errors::text
"""
_FREE_KEYS = f"""
    DELETE FROM {_SCHEMA}.unique_job WHERE queue = %(queue)s
    AND key = ANY(ARRAY(SELECT unique_key FROM ended WHERE unique_key IS NOT NULL))
"""
_DONE = f"""
WITH ended AS (
    DELETE FROM {_SCHEMA}.running WHERE lease = %(lease)s AND id = ANY(%(ids)s::bigint[])
    RETURNING unique_key
), freed AS ({_FREE_KEYS})
SELECT count(*) FROM ended
"""
_DEAD = f"""
WITH ended AS (
    DELETE FROM {_SCHEMA}.running WHERE lease = %(lease)s AND id = ANY(%(ids)s::bigint[])
    RETURNING {_JOB}, attempt
), freed AS ({_FREE_KEYS}), buried AS (
    INSERT INTO {_SCHEMA}.dead ({_JOB}, attempt, errors)
    SELECT {_JOB}, attempt, told.errors::json FROM ended
    JOIN unnest(%(ids)s::bigint[], %(errors)s::text[]) AS told (job, errors) ON told.job = id
)
SELECT count(*) FROM ended
"""
_LATER = f"""
WITH ended AS (
    DELETE FROM {_SCHEMA}.running WHERE lease = %(lease)s AND id = ANY(%(ids)s::bigint[])
    RETURNING {_JOB}, attempt
), put AS (
    INSERT INTO {_SCHEMA}.scheduled ({_JOB}, attempt, errors, run_at)
    SELECT {_JOB}, attempt - told.refund, told.errors::json,
        clock_timestamp() + make_interval(secs => told.delay)
    FROM ended JOIN unnest(%(ids)s::bigint[], %(delays)s::float8[], %(refunds)s::smallint[],
            %(errors)s::text[])
        AS told (job, delay, refund, errors) ON told.job = id
), news AS (SELECT pg_notify(%(channel)s, ''))
SELECT count(*) FROM ended, news
"""
_BACK = f"""
WITH ended AS (
    DELETE FROM {_SCHEMA}.running WHERE lease = %(lease)s AND {{which}}
    RETURNING {_JOB}, attempt, errors
), put AS (
    INSERT INTO {_SCHEMA}.ready ({_JOB}, attempt, errors)
    SELECT {_JOB}, attempt - 1, errors FROM ended RETURNING id
)
SELECT count(*), CASE WHEN count(*) > 0 THEN pg_notify(%(channel)s, '') END FROM put
"""
_PROMOTE = f"""
WITH due AS MATERIALIZED (
    SELECT ctid FROM {_SCHEMA}.scheduled
    WHERE queue = %(queue)s AND run_at <= clock_timestamp()
    ORDER BY run_at LIMIT {_SWEPT} FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM {_SCHEMA}.scheduled WHERE ctid = ANY(ARRAY(SELECT ctid FROM due))
    RETURNING {_JOB}, attempt, errors
), put AS (
    INSERT INTO {_SCHEMA}.ready ({_JOB}, attempt, errors)
    SELECT {_JOB}, attempt, errors FROM taken RETURNING id
)
SELECT CASE WHEN count(*) > 0 THEN pg_notify(%(channel)s, '') END FROM put
"""
_NEXT = f"""
SELECT extract(epoch FROM min(run_at) - clock_timestamp())::float8
FROM {_SCHEMA}.scheduled WHERE queue = %(queue)s
"""
_BEGIN = f"""
INSERT INTO {_SCHEMA}.lease (queue, worker, expires_at)
VALUES (%(queue)s, %(worker)s, clock_timestamp() + make_interval(secs => %(seconds)s))
RETURNING id
"""
_RENEW = f"""
UPDATE {_SCHEMA}.lease SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = %(lease)s AND expires_at > clock_timestamp()
"""
_END = f"""
DELETE FROM {_SCHEMA}.lease WHERE id = %(lease)s
AND NOT EXISTS (SELECT FROM {_SCHEMA}.running WHERE lease = %(lease)s)
"""
_EXPIRED = f"""
SELECT id FROM {_SCHEMA}.lease
WHERE queue = %(queue)s AND expires_at <= clock_timestamp() FOR UPDATE SKIP LOCKED
"""
_REAP = f"""
WITH ended AS (
    DELETE FROM {_SCHEMA}.running WHERE lease = ANY(%(leases)s::bigint[])
    RETURNING {_JOB}, attempt, errors
), back AS (
    INSERT INTO {_SCHEMA}.ready ({_JOB}, attempt, errors)
    SELECT {_JOB}, attempt, errors FROM ended WHERE attempt < %(attempts)s
), freed AS (
    DELETE FROM {_SCHEMA}.unique_job WHERE queue = %(queue)s AND key = ANY(ARRAY(
        SELECT unique_key FROM ended WHERE unique_key IS NOT NULL AND attempt >= %(attempts)s))
), buried AS (
    INSERT INTO {_SCHEMA}.dead ({_JOB}, attempt, errors)
    SELECT {_JOB}, attempt, errors FROM ended WHERE attempt >= %(attempts)s
)
SELECT pg_notify(%(channel)s, '')
"""
_FORGET = f"DELETE FROM {_SCHEMA}.lease WHERE id = ANY(%(leases)s::bigint[])"
_COUNT = f"""
SELECT
    (SELECT count(*) FROM {_SCHEMA}.ready WHERE queue = %(queue)s),
    (SELECT count(*) FROM {_SCHEMA}.scheduled WHERE queue = %(queue)s),
    (SELECT count(*) FROM {_SCHEMA}.running WHERE queue = %(queue)s),
    (SELECT count(*) FROM {_SCHEMA}.dead WHERE queue = %(queue)s)
"""


@attrs.frozen
class Row:
    """A job as it was claimed; `attempt` counts this claim."""

    rank: int
    id: int
    attempt: int
    version: int
    payload: str
    errors: str | None


@attrs.frozen
class Later:
    """A job is to be tried again after `delay` seconds; `refund` is 1 if this was no attempt."""

    id: int
    delay: float
    refund: int
    errors: str | None


@attrs.define
class Words:
    """What became of some jobs, and has yet to be told to the database.

    Attributes:
        done: their ids.
        back: of those that were not done, and are to be claimed anew.
        later: those to be tried again later.
        dead: id and failures of those that are dead.
    """

    done: list[int] = attrs.field(factory=list[int])
    back: list[int] = attrs.field(factory=list[int])
    later: list[Later] = attrs.field(factory=list[Later])
    dead: list[tuple[int, str | None]] = attrs.field(factory=list[tuple[int, "str | None"]])

    def ids(self) -> list[int]:
        """Of all of them."""
        later = [word.id for word in self.later]
        return [*self.done, *self.back, *later, *(id_ for id_, _ in self.dead)]

    def __len__(self) -> int:
        return len(self.done) + len(self.back) + len(self.later) + len(self.dead)


class Claims:
    """Speaks to the database about the jobs of one queue.

    Args:
        queue: its name.
    """

    def __init__(self, queue: str) -> None:
        self.channel: str = f"{_SCHEMA}.{queue}"
        self._names = {"queue": queue, "channel": self.channel}

    # -- putting -----------------------------------------------------------------------

    async def put(self, connection: AnyConnection, job: dict[str, Any]) -> int | None:
        """Put a job; its id, or None if there is one with its unique key."""
        later = job["run_at"] is not None or job["delay"] is not None
        rows = _VALUES + (_RUN_AT if later else "")
        query = _PUT
        if job["unique"] is not None:
            query = query.replace("WITH put AS (", _FREE)
            rows += " FROM free"
        query = query.format(
            table="scheduled" if later else "ready", column=", run_at" if later else "", rows=rows
        )
        row = await (await connection.execute(query.encode(), job | self._names)).fetchone()
        return None if row is None else row[0]

    async def put_many(
        self, connection: AnyConnection, rank: int, version: int, payloads: Collection[str]
    ) -> None:
        """Put many jobs at once."""
        columns = "queue, rank, version, payload"
        queue = self._names["queue"]
        async with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {_SCHEMA}.ready ({columns}) FROM STDIN".encode()) as copy,
        ):
            for payload in payloads:
                await copy.write_row((queue, rank, version, payload))
        await connection.execute("SELECT pg_notify(%(channel)s, '')", self._names)

    # -- leases ------------------------------------------------------------------------

    async def begin(self, connection: AnyConnection, worker: str, seconds: float) -> int:
        """Begin a lease; its number."""
        parameters = self._names | {"worker": worker, "seconds": seconds}
        row = await (await connection.execute(_BEGIN.encode(), parameters)).fetchone()
        return cast("tuple[int]", row)[0]

    async def renew(self, connection: AnyConnection, lease: int, seconds: float) -> bool:
        """Renew a lease; whether it was still good."""
        parameters = {"lease": lease, "seconds": seconds}
        return (await connection.execute(_RENEW.encode(), parameters)).rowcount == 1

    async def end(self, connection: AnyConnection, lease: int) -> None:
        """End a lease under which there are no more jobs."""
        await connection.execute(_END.encode(), {"lease": lease})

    async def reap(self, connection: AnyConnection, attempts: int) -> int:
        """Take the jobs of leases that have expired from their owners; how many leases."""
        async with connection.transaction():
            cursor = await connection.execute(_EXPIRED.encode(), self._names)
            leases = [row[0] for row in await cursor.fetchall()]
            if leases:
                parameters = self._names | {"leases": leases, "attempts": attempts}
                await connection.execute(_REAP.encode(), parameters)
                await connection.execute(_FORGET.encode(), parameters)
        return len(leases)

    # -- jobs --------------------------------------------------------------------------

    async def exchange(
        self, connection: AnyConnection, lease: int, words: Words, count: int
    ) -> tuple[int, list[Row]]:
        """Tell what became of jobs and claim others, in one round trip and one transaction.

        Args:
            connection: with autocommit.
            lease: whose jobs they are.
            words: about jobs.
            count: how many are to be claimed; ≥ 0.

        Returns: how many of the words were about jobs that are not under this lease any more; and
            the jobs that were claimed, in order.
        """
        mine = self._names | {"lease": lease}
        told: list[Any] = []
        claimed = None
        async with connection.pipeline():
            if words.done:
                told.append(await connection.execute(_DONE.encode(), mine | {"ids": words.done}))
            if words.back:
                query = _BACK.format(which="id = ANY(%(ids)s::bigint[])").encode()
                told.append(await connection.execute(query, mine | {"ids": words.back}))
            if words.later:
                parameters = {
                    "ids": [word.id for word in words.later],
                    "delays": [word.delay for word in words.later],
                    "refunds": [word.refund for word in words.later],
                    "errors": [word.errors for word in words.later],
                }
                told.append(await connection.execute(_LATER.encode(), mine | parameters))
            if words.dead:
                parameters = {
                    "ids": [id_ for id_, _ in words.dead],
                    "errors": [errors for _, errors in words.dead],
                }
                told.append(await connection.execute(_DEAD.encode(), mine | parameters))
            if count:
                claimed = await connection.execute(_CLAIM.encode(), mine | {"count": count})
        heard = [await cursor.fetchone() for cursor in told]
        stale = len(words) - sum(row[0] for row in heard if row is not None)
        rows = [] if claimed is None else [Row(*row) for row in await claimed.fetchall()]
        return stale, sorted(rows, key=lambda row: (row.rank, row.id))

    async def sweep(
        self, connection: AnyConnection, lease: int, known: Collection[int]
    ) -> float | None:
        """Make ready what is due, and what was claimed under a lease whose owner never heard of it.

        Returns: in how many seconds the next job is due, if there is one.
        """
        mine = self._names | {"lease": lease, "known": list(known)}
        async with connection.pipeline():
            query = _BACK.format(which="id <> ALL(%(known)s::bigint[])").encode()
            await connection.execute(query, mine)
            await connection.execute(_PROMOTE.encode(), mine)
            upcoming = await connection.execute(_NEXT.encode(), mine)
        row = await upcoming.fetchone()
        return None if row is None else row[0]

    async def count(self, connection: AnyConnection) -> tuple[int, int, int, int]:
        """How many jobs are ready, scheduled, running and dead."""
        row = await (await connection.execute(_COUNT.encode(), self._names)).fetchone()
        return cast("tuple[int, int, int, int]", row)

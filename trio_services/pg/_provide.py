"""What services and jobs get of a database by the types of their parameters."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..di import JOB, Container
from ._pool import Pool
from ._stock import AnyConnection


def provide(container: Container, pool: Pool) -> None:
    """Provide a pool as `Pool`, and to each job a transaction of its own as `AnyConnection`.

    ::

        async def enter(order: Order, connection: pg.AnyConnection) -> None:
            await connection.execute("INSERT INTO orders VALUES (%s)", [order.id])

    The transaction is committed when the attempt at the job has succeeded, and rolled back when it
    has failed or was cancelled. A commit that fails fails the attempt.

    Args:
        container: where.
        pool: which is open while jobs are done: a service that theirs come after, or a block around
            them. It is not opened or closed by the container.

    Raises:
        PlanError: something else provides these types.
    """
    container.provide_value(pool, Pool)
    container.provide(_transaction, scope=JOB)


def with_pool(container: Container, pool: Pool) -> Container:
    """A container like this one, with what `provide` provides where nothing else does."""

    def the_pool() -> Pool:
        return pool

    return container.with_default(the_pool).with_default(_transaction, scope=JOB)


@asynccontextmanager
async def _transaction(pool: Pool) -> AsyncGenerator[AnyConnection]:
    async with pool.transaction() as connection:
        yield connection

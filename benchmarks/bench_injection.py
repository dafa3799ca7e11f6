"""A job that gets three objects, a transaction among them, against doing it by hand and dishka."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from _pairs import compare
from dishka import Provider, Scope, make_async_container

from trio_services import JOB, Container

COUNT = 10_000
DISPOSE_WITHIN = 5.0


class Pool:
    """What all jobs share."""


class Transaction:
    """What each job has for itself, and ends."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool


class Orders:
    """What each job has for itself."""

    def __init__(self, transaction: Transaction, pool: Pool) -> None:
        self.transaction = transaction


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncGenerator[Transaction]:
    yield Transaction(pool)


async def opened(pool: Pool) -> AsyncGenerator[Transaction, None]:  # noqa: ASYNC900, ASYNC124
    yield Transaction(pool)


async def handle(number: int, transaction: Transaction, orders: Orders, pool: Pool) -> None:
    pass


async def handle_alone(number: int) -> None:
    pass


async def handle_shared(number: int, pool: Pool) -> None:
    pass


async def measured(job: Callable[[int], Awaitable[object]]) -> float:
    began = time.process_time()
    for number in range(COUNT):
        await job(number)
    return (time.process_time() - began) / COUNT * 1e6


async def injected(function: Callable[..., Awaitable[object]]) -> float:
    container = Container(dispose_within=DISPOSE_WITHIN)
    container.provide(Pool)
    container.provide(transaction, scope=JOB)
    container.provide(Orders, scope=JOB)
    async with container.open() as host, host.open_service() as service:
        return await measured(await service.bind(function, 1))


async def by_hand() -> float:
    """The same with what it promises: shielded from cancellation at its end, with a deadline."""
    pool = Pool()

    async def job(number: int) -> None:
        with trio.CancelScope() as guard:
            async with transaction(pool) as opened:
                try:
                    await handle(number, opened, Orders(opened, pool), pool)
                finally:
                    guard.deadline = trio.current_time() + DISPOSE_WITHIN
                    guard.shield = True

    return await measured(job)


async def nested() -> float:
    """The same without a shield: cancelled, a transaction could not even be rolled back."""
    pool = Pool()

    async def job(number: int) -> None:
        async with transaction(pool) as opened:
            await handle(number, opened, Orders(opened, pool), pool)

    return await measured(job)


async def dishka(*, lock_each: bool) -> float:
    """What it costs by itself; it would commit the transaction of a failed job.

    Args:
        lock_each: whether the scope of a job has a lock too, so that its tasks may ask at once.
    """
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Pool, scope=Scope.APP)
    provider.provide(opened)
    provider.provide(Orders)
    container = make_async_container(provider, lock_factory=trio.Lock)
    await container.get(Pool)

    async def job(number: int) -> None:
        async with container(lock_factory=trio.Lock if lock_each else None) as request:
            await handle(
                number,
                await request.get(Transaction),
                await request.get(Orders),
                await request.get(Pool),
            )

    return await measured(job)


async def nothing_around(function: Callable[..., Awaitable[object]], *shared: object) -> float:
    return await measured(lambda number: function(number, *shared))


def each(program: Callable[..., Awaitable[float]], *args: object, **options: object) -> float:
    """CPU microseconds for each job."""
    gc.collect()
    return trio.run(partial(program, *args, **options))


def figure(
    what: str, ours: Callable[[], float], reference: Callable[[], float], target: float
) -> None:
    compare(what, ours, reference, unit="CPU µs each", target=target)


job = partial(each, injected, handle)
figure(
    "three objects, against dishka with a lock", job, partial(each, dishka, lock_each=False), 1.6
)
figure(
    "three objects, against dishka with a lock in each scope",
    job,
    partial(each, dishka, lock_each=True),
    1.6,
)
figure("three objects, against the same by hand", job, partial(each, by_hand), 2.5)
figure("three objects, against the same by hand without a shield", job, partial(each, nested), 12.0)
figure(
    "nothing, against the function itself",
    partial(each, injected, handle_alone),
    partial(each, nothing_around, handle_alone),
    1.1,
)
figure(
    "a shared object, against passing it",
    partial(each, injected, handle_shared),
    partial(each, nothing_around, handle_shared, Pool()),
    1.5,
)

"""What jobs get: handlers of queues and calls of schedules, each in a scope of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from loguru import logger

from trio_services import (
    JOB,
    SERVICE,
    Batch,
    Child,
    Container,
    PlanError,
    Schedule,
    Supervisor,
    Workers,
    WorkQueue,
    serve,
)
from trio_services.resilience import Backoff, Retry
from trio_services.telemetry import Logger

if TYPE_CHECKING:
    from trio.testing import MockClock


class Ledger:
    """What was committed and what was rolled back."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.rolled_back: list[str] = []


class Cache:
    pass


class Transaction:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.written: list[int] = []


@asynccontextmanager
async def transaction(ledger: Ledger) -> AsyncGenerator[Transaction, None]:
    opened = Transaction(ledger)
    await trio.lowlevel.checkpoint()
    try:
        yield opened
    except BaseException as error:
        ledger.rolled_back.append(type(error).__name__)
        raise
    ledger.committed += opened.written


def container_with(ledger: Ledger) -> Container:
    container = Container()
    container.provide_value(ledger)
    container.provide(transaction, scope=JOB)
    return container


def closed(*items: int) -> WorkQueue[int]:
    queue = WorkQueue[int]("numbers")
    for item in items:
        queue.put_nowait(item)
    queue.close()
    return queue


async def test_each_job_has_a_transaction_of_its_own(autojump_clock: MockClock) -> None:
    ledger = Ledger()

    async def handle(item: int, opened: Transaction) -> None:
        opened.written.append(item)
        await trio.sleep(1)
        if item == 2:
            raise ValueError("rolls back")

    queue = closed(1, 2, 3)
    await serve(Workers(queue, handle, count=2), container=container_with(ledger))
    assert sorted(ledger.committed) == [1, 3]
    assert ledger.rolled_back == ["ValueError"]
    assert queue.statistics().dead == 1


async def test_each_attempt_has_a_transaction_of_its_own(autojump_clock: MockClock) -> None:
    ledger = Ledger()
    failing = [OSError(), OSError()]

    async def handle(item: int, opened: Transaction) -> None:
        opened.written.append(item)
        await trio.lowlevel.checkpoint()
        if failing:
            raise failing.pop()

    workers = Workers(closed(1), handle, retry=Retry(3, Backoff(1)))
    await serve(workers, container=container_with(ledger))
    assert ledger.committed == [1]
    assert ledger.rolled_back == ["OSError", "OSError"]


async def test_attempt_that_takes_too_long_rolls_back(autojump_clock: MockClock) -> None:
    ledger = Ledger()

    async def handle(item: int, opened: Transaction) -> None:
        opened.written.append(item)
        await trio.sleep(10)

    queue = closed(1)
    await serve(Workers(queue, handle, timeout=1), container=container_with(ledger))
    assert ledger.committed == []
    assert ledger.rolled_back == ["Cancelled"]
    assert queue.dead_letters()[0].failure.type == "TimedOut"


async def test_batches_fallbacks_and_dead_letters_get_what_they_ask_for(
    autojump_clock: MockClock,
) -> None:
    ledger = Ledger()
    fell_back: list[list[int]] = []

    async def handle(items: list[int], opened: Transaction) -> None:
        opened.written += items
        await trio.lowlevel.checkpoint()
        raise OSError

    async def fall_back(items: list[int], error: Exception, opened: Transaction) -> None:
        await trio.lowlevel.checkpoint()
        fell_back.append(items)
        raise ValueError

    async def bury(item: int, error: Exception, opened: Transaction) -> None:
        await trio.lowlevel.checkpoint()
        opened.written.append(-item)

    workers = Workers(
        closed(1, 2),
        handle,
        batch=Batch(2),
        fallback=fall_back,
        on_dead=bury,
    )
    await serve(workers, container=container_with(ledger))
    assert fell_back == [[1, 2]]
    assert ledger.committed == [-1, -2]


async def test_calls_of_a_schedule_get_what_they_ask_for(autojump_clock: MockClock) -> None:
    ledger = Ledger()
    done = trio.Event()

    async def report(opened: Transaction) -> None:
        await trio.lowlevel.checkpoint()
        opened.written.append(len(ledger.committed))
        if len(ledger.committed) == 3:
            done.set()

    async with trio.open_nursery() as nursery:

        async def main() -> None:
            await serve(Schedule(report, every=10.0), container=container_with(ledger))

        nursery.start_soon(main)
        await done.wait()
        nursery.cancel_scope.cancel()
    assert ledger.committed[:3] == [0, 1, 2]


async def test_objects_of_the_service_are_shared_by_its_jobs(autojump_clock: MockClock) -> None:
    seen: set[Cache] = set()

    async def handle(item: int, cache: Cache) -> None:
        await trio.lowlevel.checkpoint()
        seen.add(cache)

    container = Container()
    container.provide(Cache, scope=SERVICE)
    await serve(Workers(closed(*range(20)), handle, count=4), container=container)
    assert len(seen) == 1


async def test_what_a_handler_asks_for_in_vain_is_told_before_anything_starts() -> None:
    async def handle(item: int, opened: Transaction) -> None: ...

    async def report(opened: Transaction) -> None: ...

    tree = Supervisor(
        "app",
        [Child(Workers(closed(1), handle)), Child(Schedule(report, every=1.0), name="report")],
    )
    with pytest.raises(PlanError) as caught:
        await serve(tree, container=Container())
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all("no provider for Transaction (asked by " in line for line in lines)


async def test_services_and_jobs_get_the_logger_of_their_service(
    autojump_clock: MockClock,
) -> None:
    lines: list[str] = []

    async def handle(item: int, log: Logger) -> None:
        await trio.lowlevel.checkpoint()
        log.info(f"item {item}")

    number = logger.add(lines.append, format="{extra[service]}: {message}", level="INFO")
    try:
        tree = Supervisor("app", [Child(Workers(closed(1), handle), name="pool")])
        await serve(tree, container=Container())
    finally:
        logger.remove(number)
    assert "app/pool: item 1\n" in lines


async def test_logger_that_is_provided_comes_before_that_of_the_framework(
    autojump_clock: MockClock,
) -> None:
    seen: list[Logger] = []
    own = logger.bind(own=True)

    async def handle(item: int, log: Logger) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(log)

    container = Container()
    container.provide_value(own, as_type=Logger)
    await serve(Workers(closed(1), handle), container=container)
    assert seen == [own]

"""A shop: orders come in by a feed, are charged one by one, and are reported each night."""

from __future__ import annotations

from typing import Protocol

import attrs

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Discard,
    Retry,
    Schedule,
    Service,
    Supervisor,
    Workers,
    WorkQueue,
    every,
    graceful,
)


@attrs.frozen
class Order:
    """What somebody has bought."""

    number: int
    cents: int


class Feed(Protocol):
    """Where orders come from."""

    async def new(self) -> list[Order]:
        """Those that have come since it was last asked."""
        ...


class Bank(Protocol):
    """Who charges our customers."""

    async def charge(self, order: Order) -> None:
        """Charge one order.

        Raises:
            OSError: it cannot be reached.
        """
        ...


class Office(Protocol):
    """Who wants to know how the day was."""

    async def report(self) -> None:
        """Report."""
        ...


class Intake(Service):
    """Fetch new orders every minute."""

    def __init__(self, feed: Feed, orders: WorkQueue[Order]) -> None:
        self._feed = feed
        self._orders = orders

    async def run(self) -> None:
        """Fetch until a stop, and put away what was fetched."""
        async for _ in every(60.0):
            with graceful():
                for order in await self._feed.new():
                    await self._orders.put(order)


async def charge(order: Order, bank: Bank) -> None:
    """Charge one order."""
    if order.cents <= 0:
        raise Discard("nothing to pay")
    await bank.charge(order)


async def report(office: Office) -> None:
    """Report the day."""
    await office.report()


def shop(orders: WorkQueue[Order]) -> Supervisor:
    """The services of the shop."""
    return Supervisor(
        "shop",
        [
            Child(
                Workers(
                    orders,
                    charge,
                    count=4,
                    timeout=5.0,
                    retry=Retry(attempts=3, backoff=Backoff(initial=1.0, jitter=0), on=OSError),
                    drain=True,
                ),
                name="charge",
            ),
            Child(
                Intake,
                name="intake",
                after="charge",
                backoff=Backoff(initial=1.0, jitter=0),
                breaker=Breaker(failures=3, within=60.0, reset_after=300.0),
                critical=False,
            ),
            Child(Schedule(report, cron="30 2 * * *", timezone="Europe/Berlin"), name="report"),
        ],
    )

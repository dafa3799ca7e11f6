"""The tests of the shop, in virtual time and without a feed, a bank, or an office."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import attrs
import pytest
import trio
from shop import Bank, Feed, Office, Order, charge, shop
from trio.testing import MockClock

from trio_services import Container, Discard, WorkQueue, events, testing
from trio_services.lifecycle import State


@attrs.define
class World:
    """Doubles of all that the shop has to do with."""

    orders: WorkQueue[Order] = attrs.Factory(lambda: WorkQueue[Order]("orders", capacity=1000))
    feed_is_down: bool = False
    bank_fails: int = 0  # so many times
    bank_takes: float = 0.1
    new_orders: list[Order] = attrs.Factory(list[Order])
    charged: list[Order] = attrs.Factory(list[Order])
    reported: list[datetime] = attrs.Factory(list[datetime])
    wall: testing.Wall = attrs.Factory(lambda: testing.Wall(0.0))

    async def new(self) -> list[Order]:
        await trio.lowlevel.checkpoint()
        if self.feed_is_down:
            raise OSError("no feed")
        orders, self.new_orders = self.new_orders, []
        return orders

    async def charge(self, order: Order) -> None:
        await trio.sleep(self.bank_takes)
        if self.bank_fails:
            self.bank_fails -= 1
            raise OSError("no bank")
        self.charged.append(order)

    async def report(self) -> None:
        await trio.lowlevel.checkpoint()
        self.reported.append(self.wall.now())

    @asynccontextmanager
    async def open(
        self, at: datetime | None = None, faults: testing.Faults | None = None
    ) -> AsyncGenerator[testing.TestHost]:
        container = Container()
        for kind in (Feed, Bank, Office):
            container.provide_value(self, kind)
        container.provide_value(self.orders, WorkQueue[Order])
        tree = shop(self.orders)
        async with testing.host(tree, container=container, at=at, faults=faults) as app:
            self.wall = app.wall
            await app.ready()
            yield app


async def test_orders_that_come_in_are_charged(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(1, 500), Order(2, 700)])
    async with world.open():
        await trio.sleep(1.0)
        assert {order.number for order in world.charged} == {1, 2}


async def test_the_workers_are_there_before_orders_come_in(autojump_clock: MockClock) -> None:
    async with World().open() as app:
        ready = [event.service for event in app.events if isinstance(event, events.ServiceReady)]
        assert ready.index("shop/charge") < ready.index("shop/intake")


async def test_an_order_without_a_price_is_discarded(autojump_clock: MockClock) -> None:
    with pytest.raises(Discard):
        await charge(Order(1, 0), World())


async def test_a_bank_that_fails_is_asked_again(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(1, 500)], bank_fails=2)
    async with world.open():
        await trio.sleep(5.0)
    assert world.orders.statistics().done == 1
    assert world.orders.statistics().retried == 2


async def test_an_order_that_cannot_be_charged_is_a_dead_letter(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(1, 500)], bank_fails=3)
    async with world.open() as app:
        dead = await app.wait_for(events.JobDead)
    assert dead.attempts == 3
    assert [letter.item for letter in world.orders.dead_letters()] == [Order(1, 500)]


async def test_a_bank_that_hangs_is_cancelled_after_five_seconds(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(1, 500)], bank_takes=1000.0)
    async with world.open() as app:
        retrying = await app.wait_for(events.JobRetrying)
        assert retrying.failure.type == "TimedOut"
        assert retrying.at == 5.0
        world.bank_takes = 0.1
        await trio.sleep(5.0)
    assert world.charged == [Order(1, 500)]


async def test_a_feed_that_is_down_is_left_alone_and_the_rest_goes_on(
    autojump_clock: MockClock,
) -> None:
    world = World(feed_is_down=True)
    async with world.open() as app:
        await app.wait_for(events.BreakerOpened, service="intake")
        assert app.host.ready
        assert app.host.degraded()
        world.feed_is_down = False
        await app.wait_for(events.BreakerClosed, service="intake", within=1000.0)
        assert app.service("intake").state is State.RUNNING


async def test_a_stop_finishes_what_waits(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(number, 500) for number in range(40)])
    async with world.open() as app:
        await app.wait_for(events.ServiceReady, service="intake")
        await trio.sleep(0.15)
        assert len(world.charged) == 4
        await app.stop()
    assert len(world.charged) == 40
    stopped = await app.wait_for(events.ServiceStopped, service="shop")
    assert stopped.took < 1.0


async def test_a_stop_leaves_what_there_is_no_time_for(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(number, 500) for number in range(40)], bank_takes=4.0)
    async with world.open():
        await trio.sleep(1.0)
    books = world.orders.statistics()
    assert books.accepted == 40 == books.done + books.returned + books.left
    assert books.done == 8  # in the ten seconds that the workers have


async def test_reports_come_once_a_night_also_when_clocks_go_forward(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with world.open(at=datetime(2026, 3, 27, 12, tzinfo=UTC)):
        await trio.sleep(3 * 86400)
    assert [time.isoformat()[:16] for time in world.reported] == [
        "2026-03-28T01:30",
        "2026-03-29T01:00",  # there was no half past two that night
        "2026-03-30T00:30",
    ]


async def test_reports_come_once_a_night_also_when_clocks_go_back(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with world.open(at=datetime(2026, 10, 24, 12, tzinfo=UTC)):
        await trio.sleep(2 * 86400)
    assert [time.isoformat()[:16] for time in world.reported] == [
        "2026-10-25T00:30",
        "2026-10-26T01:30",
    ]


async def test_no_order_is_lost_when_the_workers_crash_now_and_then(
    autojump_clock: MockClock,
) -> None:
    faults = testing.Faults(seed=1)
    faults.crash("charge", probability=0.2, every=60.0)
    world = World()
    async with world.open(faults=faults) as app:
        for number in range(500):
            world.new_orders.append(Order(number, 500))
            await trio.sleep(10.0)
    crashes = [event for event in app.events if isinstance(event, events.ServiceFailed)]
    books = world.orders.statistics()
    assert crashes
    assert books.accepted >= 499
    assert books.accepted == books.done + books.dead + books.returned + books.left


async def test_a_rush_of_orders_is_worked_off_in_time(autojump_clock: MockClock) -> None:
    world = World(new_orders=[Order(number, 500) for number in range(2000)])
    async with world.open():
        await trio.sleep(50.2)  # four at a time, 0.1 s each
        assert len(world.charged) == 2000

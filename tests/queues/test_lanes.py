from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, cast

import attrs
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_services.queues import Workers, WorkQueue
from trio_services.supervision import Child, Supervisor, open_supervisor

from .working import ends, working

if TYPE_CHECKING:
    from collections.abc import Hashable


@attrs.frozen
class Order:
    customer: str
    number: int
    seconds: float = 1.0


def customer_of(order: Order) -> Hashable:
    return order.customer


def filled(*orders: Order) -> WorkQueue[Order]:
    queue = WorkQueue[Order]("orders", capacity=1000)
    for order in orders:
        queue.put_nowait(order)
    return queue


class Handler:
    """Remembers what began when, and that no two of one customer's were at work together."""

    def __init__(self) -> None:
        self.began: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.at_work: set[str] = set()

    async def __call__(self, order: Order) -> None:
        assert order.customer not in self.at_work
        self.at_work.add(order.customer)
        self.began[order.customer].append((trio.current_time(), order.number))
        try:
            await trio.sleep(order.seconds)
        finally:
            self.at_work.remove(order.customer)


async def test_items_of_one_key_come_in_order_and_others_beside_them(
    autojump_clock: MockClock,
) -> None:
    handler = Handler()
    queue = filled(Order("a", 1), Order("a", 2), Order("b", 3), Order("a", 4), Order("b", 5))
    async with working(Workers(queue, handler, count=3, key=customer_of)):
        await trio.sleep(10)
    assert handler.began == {"a": [(0, 1), (1, 2), (2, 4)], "b": [(0, 3), (1, 5)]}
    assert ends(queue.statistics()) == {"done": 5}


async def test_busy_key_does_not_draw_everything_out_of_the_queue(
    autojump_clock: MockClock,
) -> None:
    queue = filled(*[Order("a", n) for n in range(100)])
    async with working(Workers(queue, Handler(), count=2, key=customer_of)):
        await trio.sleep(0.5)
        assert queue.statistics().depth == 100 - 17  # one is at work, eight wait for each worker


async def test_what_waits_for_its_key_at_a_stop_is_left(autojump_clock: MockClock) -> None:
    queue = filled(*[Order("a", n) for n in range(5)], Order("b", 5))
    async with working(Workers(queue, Handler(), count=3, key=customer_of)):
        await trio.sleep(0.5)
        assert ends(queue.statistics()) == {"in_hand": 6}
    assert ends(queue.statistics()) == {"done": 2, "left": 4}


async def test_what_waits_for_its_key_stays_in_order_over_a_restart(
    autojump_clock: MockClock,
) -> None:
    handler = Handler()
    queue = filled(*[Order("a", n) for n in range(5)], Order("b", 5), Order("b", 6))
    async with working(
        Child(Workers(queue, handler, count=3, key=customer_of), name="pool")
    ) as watched:
        await trio.sleep(0.5)
        await watched.tree.restart("pool")
        await trio.sleep(20)
    assert [number for _, number in handler.began["a"]] == [0, 1, 2, 3, 4]
    assert [number for _, number in handler.began["b"]] == [5, 6]
    assert ends(queue.statistics()) == {"done": 7}


async def test_item_whose_key_cannot_be_told_is_dead(autojump_clock: MockClock) -> None:
    def key(order: Order) -> Hashable:
        if order.number == 1:
            raise KeyError("customer")
        return cast("Hashable", []) if order.number == 2 else order.customer

    handler = Handler()
    queue = filled(*[Order("a", n) for n in range(4)])
    async with working(Workers(queue, handler, key=key)):
        await trio.sleep(10)
    assert [number for _, number in handler.began["a"]] == [0, 3]
    assert ends(queue.statistics()) == {"done": 2, "dead": 2}
    assert [letter.failure.type for letter in queue.dead_letters()] == ["KeyError", "TypeError"]


async def test_workers_dismissed_in_the_middle_of_a_lane_leave_it_in_order(
    autojump_clock: MockClock,
) -> None:
    handler = Handler()
    queue = filled(*[Order("abc"[n % 3], n) for n in range(12)])
    async with working(
        Child(Workers(queue, handler, count=3, key=customer_of), name="pool")
    ) as watched:
        await trio.sleep(0.5)
        watched.tree.resize("pool", 1)
        await trio.sleep(100)
    for place, customer in enumerate("abc"):
        assert [number for _, number in handler.began[customer]] == list(range(place, 12, 3))
    assert ends(queue.statistics()) == {"done": 12}


orders = st.lists(
    st.builds(
        Order,
        customer=st.sampled_from("abc"),
        number=st.just(0),
        seconds=st.sampled_from([0, 0.5, 1, 2]),
    ),
    max_size=30,
)


@given(orders, st.integers(1, 4), st.lists(st.integers(0, 20), max_size=3), st.integers(0, 30))
def test_order_of_each_key_is_kept_whatever_happens(
    given_orders: list[Order], count: int, restarts: list[int], stop_at: int
) -> None:
    numbered = [attrs.evolve(order, number=n) for n, order in enumerate(given_orders)]
    queue = filled(*numbered)
    handler = Handler()

    async def main() -> None:
        child = Child(Workers(queue, handler, count=count, key=customer_of), name="pool")
        async with open_supervisor(Supervisor("app", [child])) as tree:
            async with trio.open_nursery() as nursery:
                for moment in restarts:

                    async def restart(moment: int = moment) -> None:
                        await trio.sleep(moment / 4)
                        await tree.restart("pool")

                    nursery.start_soon(restart)
            await trio.sleep(stop_at / 2)
            await wait_all_tasks_blocked()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    books = queue.statistics()
    assert books.accepted == len(numbered) == books.done + books.left
    for customer in "abc":
        began = [number for _, number in handler.began[customer]]
        assert began == [one.number for one in numbered if one.customer == customer][: len(began)]

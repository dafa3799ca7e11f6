from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_services.errors import BulkheadFull, ServicesError
from trio_services.resilience import Bulkhead, Compartment

if TYPE_CHECKING:
    from trio.testing import MockClock


class Work:
    """Takes ten seconds; knows how much of it was going on at once, and what has begun."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.begun: list[object] = []

    async def __call__(self, name: object = None) -> object:
        self.begun.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(10)
        finally:
            self.now -= 1
        return name


async def test_at_most_so_many_are_at_work(autojump_clock: MockClock) -> None:
    compartment, work = Compartment(Bulkhead(2, waiting=4)), Work()
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(compartment.call, work, number)
    assert (work.most, len(work.begun), trio.current_time()) == (2, 6, 30)


async def test_places_are_given_in_the_order_of_asking(autojump_clock: MockClock) -> None:
    compartment, work = Compartment(Bulkhead(1, waiting=4)), Work()
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(compartment.call, work, number)
            await wait_all_tasks_blocked()
    assert work.begun == [0, 1, 2, 3, 4]


async def test_one_too_many_is_refused_at_once(autojump_clock: MockClock) -> None:
    compartment, work = Compartment(Bulkhead(2, waiting=1)), Work()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(compartment.call, work, number)
            await wait_all_tasks_blocked()
        with pytest.raises(BulkheadFull, match="2 are at work and 1 wait") as caught:
            await compartment.call(work, "refused")
        assert trio.current_time() == 0
    assert isinstance(caught.value, ServicesError)
    assert (caught.value.limit, caught.value.waiting) == (2, 1)
    assert work.begun == [0, 1, 2]
    assert await compartment.call(work, "later") == "later"


async def test_nobody_waits_unless_that_is_wanted(autojump_clock: MockClock) -> None:
    compartment, work = Compartment(Bulkhead(1)), Work()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compartment.call, work)
        await wait_all_tasks_blocked()
        with pytest.raises(BulkheadFull):
            await compartment.call(work)


async def test_place_is_free_again_when_the_work_failed_or_was_cancelled(
    autojump_clock: MockClock,
) -> None:
    compartment = Compartment(Bulkhead(1))

    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise OSError

    with pytest.raises(OSError):
        await compartment.call(fails)
    with trio.move_on_after(1):
        await compartment.call(Work())
    assert await compartment.call(Work(), "done") == "done"


async def test_one_who_is_cancelled_while_waiting_takes_no_place(
    autojump_clock: MockClock,
) -> None:
    compartment, work = Compartment(Bulkhead(1, waiting=1)), Work()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compartment.call, work, 0)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await compartment.call(work, "cancelled")
        nursery.start_soon(compartment.call, work, 1)  # as there is room to wait again
    assert work.begun == [0, 1]
    assert trio.current_time() == 20


async def test_call_is_a_checkpoint() -> None:
    async def nothing() -> None:
        pass

    with assert_checkpoints():
        await Compartment(Bulkhead(1)).call(nothing)


def test_numbers_are_whole_and_sensible() -> None:
    with pytest.raises(ValueError, match="limit"):
        Bulkhead(0)
    with pytest.raises(ValueError, match="waiting"):
        Bulkhead(1, -1)
    with pytest.raises(TypeError, match="limit"):
        Bulkhead(1.5)  # type: ignore[arg-type]


def test_bulkhead_is_a_value() -> None:
    bulkhead = Bulkhead(3)
    assert bulkhead == Bulkhead(3, waiting=0)
    with pytest.raises(AttributeError):
        bulkhead.limit = 4  # type: ignore[misc]

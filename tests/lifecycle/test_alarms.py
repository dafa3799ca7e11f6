"""The one alarm clock of a tree: exact, prompt at stops, and forgetful of who does not wait."""

from __future__ import annotations

import gc
import random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_services import Child, Supervisor, current_service, every, graceful, open_supervisor
from trio_services.lifecycle import Alarms
from trio_services.lifecycle._alarms import Alarm


def alarms_alive() -> int:
    gc.collect()
    return sum(isinstance(one, Alarm) for one in gc.get_objects())


# -- by itself ---------------------------------------------------------------------------


async def test_each_rings_at_its_time_and_in_order(autojump_clock: MockClock) -> None:
    alarms = Alarms()
    woken: list[tuple[float, float]] = []

    async def sleep(when: float) -> None:
        await alarms.set(when).sleep()
        woken.append((when, trio.current_time()))

    times = [n * 0.5 for n in range(1, 200)]
    random.Random(4).shuffle(times)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        async with trio.open_nursery() as sleepers:
            for when in times:
                sleepers.start_soon(sleep, when)
        alarms.end()
    assert woken == [(when, when) for when in sorted(times)]


async def test_one_that_is_set_later_and_due_sooner_rings_first(autojump_clock: MockClock) -> None:
    alarms = Alarms()
    woken: list[float] = []

    async def sleep(when: float) -> None:
        await alarms.set(when).sleep()
        woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        async with trio.open_nursery() as sleepers:
            sleepers.start_soon(sleep, 1000)
            await trio.sleep(10)
            sleepers.start_soon(sleep, 20)
        alarms.end()
    assert woken == [20, 1000]


async def test_those_of_one_millisecond_ring_together(autojump_clock: MockClock) -> None:
    alarms = Alarms()
    woken: list[float] = []

    async def sleep(when: float) -> None:
        await alarms.set(when).sleep()
        woken.append(trio.current_time() - when)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        async with trio.open_nursery() as sleepers:
            for n in range(100):
                sleepers.start_soon(sleep, 1 + n / 10_000)
        alarms.end()
    assert len(woken) == 100
    assert min(woken) >= 0
    assert max(woken) <= 0.0011


async def test_memory_is_flat_however_often_long_sleeps_are_cancelled() -> None:
    alarms = Alarms()
    before = alarms_alive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        nursery.start_soon(alarms.set(trio.current_time() + 1e6).sleep)
        for _ in range(5000):
            with trio.CancelScope() as scope:
                scope.cancel()
                await alarms.set(trio.current_time() + 1e6).sleep()
        assert alarms_alive() - before < 200
        nursery.cancel_scope.cancel()
        alarms.end()


async def test_cancelled_in_the_moment_of_ringing_wakes_once(autojump_clock: MockClock) -> None:
    alarms = Alarms()
    ends: list[str] = []

    async def sleep(scope: trio.CancelScope) -> None:
        with scope:
            await alarms.set(10).sleep()
            ends.append("rang")
            await trio.lowlevel.checkpoint()
            ends.append("went on")

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        async with trio.open_nursery() as sleepers:
            sleepers.start_soon(sleep, scope)
            await trio.sleep(10)  # due in the same pass through the tasks
            scope.cancel()
        alarms.end()
    assert scope.cancelled_caught
    assert ends in ([], ["rang"])  # as the two are woken, in either order


async def test_whoever_still_sleeps_is_woken_at_the_end() -> None:
    alarms = Alarms()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        nursery.start_soon(alarms.set(trio.current_time() + 1e6).sleep)
        await wait_all_tasks_blocked()
        alarms.end()


# -- of a tree ---------------------------------------------------------------------------


class Ticking:
    """A service that remembers when it ticked."""

    def __init__(self, period: float, *, start: float = 0.0) -> None:
        self.period = period
        self.start = start
        self.ticks: list[float] = []

    async def __call__(self) -> None:
        async for _ in every(self.period, start=self.start):
            self.ticks.append(trio.current_time())


async def test_services_of_nested_supervisors_tick_exactly(autojump_clock: MockClock) -> None:
    services = [Ticking(period) for period in (1, 2.5, 0.25)]
    a, b, c = (Child(one, name=name) for one, name in zip(services, "abc", strict=True))
    tree = Supervisor("app", [a, Supervisor("in", [b, Supervisor("deep", [c])])])
    async with open_supervisor(tree):
        await trio.sleep(99.9)
    for one in services:
        count = len(one.ticks)
        assert one.ticks == [one.period * n for n in range(count)]
        assert count == int(99.9 / one.period) + 1


async def test_restarting_who_sleeps_long_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    before = alarms_alive()
    async with open_supervisor(
        Supervisor("app", [Child(Ticking(1e6, start=1e6), name="sleeper")])
    ) as tree:
        for _ in range(500):
            await wait_all_tasks_blocked()
            await tree.restart("sleeper")
        assert alarms_alive() - before < 200


async def test_one_that_stops_late_still_hears_its_alarms(autojump_clock: MockClock) -> None:
    slow: list[float] = []

    async def takes_its_time() -> None:
        with graceful():
            for _ in range(5):
                await current_service().wait_stop_requested()
                await trio.sleep(1)
                slow.append(trio.current_time())

    first, last = Ticking(1), Ticking(1)
    tree = Supervisor(
        "app",
        [
            Child(last, name="last"),
            Child(takes_its_time, name="slow", after=["last"]),
            Child(first, name="first", after=["slow"]),
        ],
    )
    async with open_supervisor(tree):
        await trio.sleep(2.5)
    assert slow == [3.5, 4.5, 5.5, 6.5, 7.5]
    assert first.ticks == [0, 1, 2]
    assert last.ticks == [0, 1, 2, 3, 4, 5, 6, 7]  # until those that come after it have stopped


async def test_stop_in_the_moment_of_a_tick_ends_the_loop(autojump_clock: MockClock) -> None:
    ticking = Ticking(1)
    async with open_supervisor(Supervisor("app", [Child(ticking, name="t")])):
        await trio.sleep(3)
    assert ticking.ticks in ([0, 1, 2], [0, 1, 2, 3])
    assert trio.current_time() == 3


async def test_every_works_outside_of_a_tree(autojump_clock: MockClock) -> None:
    ticking = Ticking(2)
    with trio.move_on_after(5):
        await ticking()
    assert ticking.ticks == [0, 2, 4]


@pytest.mark.parametrize("end", ["returns", "is stopped"])
async def test_task_that_a_service_leaves_to_others_goes_on_after_the_tree(
    end: str, autojump_clock: MockClock
) -> None:
    ticking = Ticking(4)

    async def service() -> None:
        outside.start_soon(ticking)
        await trio.sleep(1 if end == "returns" else 1000)

    with trio.move_on_after(50):
        async with (
            trio.open_nursery() as outside,
            open_supervisor(Supervisor("app", [Child(service, name="s", restart="never")])),
        ):
            await trio.sleep(10)
    assert ticking.ticks == ([4 * n for n in range(13)] if end == "returns" else [0, 4, 8])


def test_ticks_of_many_are_exact_however_they_fall() -> None:
    async def main() -> None:
        rng = random.Random(7)
        periods = [rng.choice([0.01, 0.05, 0.1, 1.0]) for _ in range(50)]
        services = [Ticking(period, start=rng.random()) for period in periods]
        children = [Child(run, name=f"s{n}") for n, run in enumerate(services)]
        async with open_supervisor(Supervisor("app", children)):
            await trio.sleep(20)
        for one in services:
            assert len(one.ticks) >= (20 - one.start) / one.period - 1
            for n, tick in enumerate(one.ticks):
                assert -1e-9 <= tick - one.start - n * one.period <= 0.0011

    trio.run(main, clock=MockClock(autojump_threshold=0))

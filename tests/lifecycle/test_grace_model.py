"""Random services with regions, time-outs and child tasks, and what a stop does to them.

What they really do is held against a model.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from trio_services.lifecycle import Bus, Lifetime, enter_service, graceful

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class Work:
    seconds: float


@attrs.frozen
class Region:
    body: tuple[Step, ...]


@attrs.frozen
class TimeOut:
    seconds: float
    body: tuple[Step, ...]


@attrs.frozen
class Tasks:
    children: tuple[tuple[Step, ...], ...]


Step = Work | Region | TimeOut | Tasks

works = st.builds(Work, st.integers(1, 5))
steps = st.recursive(
    works,
    lambda inner: st.one_of(
        st.builds(Region, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(TimeOut, st.integers(1, 9), st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(
            Tasks,
            st.lists(
                st.lists(inner, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3
            ).map(tuple),
        ),
    ),
    max_leaves=8,
)
programs = st.lists(steps, min_size=1, max_size=4)


def apart(program: Sequence[Step]) -> tuple[Step, ...]:
    """The same with no two times-out at the same moment, or at that of anything else.

    Each gets a binary fraction of its own; the halves and quarters are those of the stop.
    """
    fraction = 0.25

    def each(body: Sequence[Step]) -> tuple[Step, ...]:
        nonlocal fraction
        made: list[Step] = []
        for step in body:
            if isinstance(step, Region):
                made.append(Region(each(step.body)))
            elif isinstance(step, TimeOut):
                fraction /= 2
                made.append(TimeOut(step.seconds + fraction, each(step.body)))
            elif isinstance(step, Tasks):
                made.append(Tasks(tuple(each(child) for child in step.children)))
            else:
                made.append(step)
        return tuple(made)

    return each(program)


# -- what it does -----------------------------------------------------------------------


async def really(body: Sequence[Step], done: list[float]) -> None:
    for step in body:
        if isinstance(step, Work):
            await trio.sleep(step.seconds)
            done.append(trio.current_time())
        elif isinstance(step, Region):
            with graceful():
                await really(step.body, done)
        elif isinstance(step, Tasks):
            async with trio.open_nursery() as nursery:
                for child in step.children:
                    nursery.start_soon(really, child, done)
        else:
            with trio.move_on_after(step.seconds):
                await really(step.body, done)


def run_really(program: Sequence[Step], stop: float, within: float) -> tuple[list[float], float]:
    done: list[float] = []

    async def service(life: Lifetime) -> None:
        enter_service(life)
        with life.scope:
            await really(program, done)

    async def main() -> float:
        life = Lifetime("app/service", Bus())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service, life)
            await trio.sleep(stop)
            life.request_stop(within)
        return trio.current_time()

    end = trio.run(main, clock=MockClock(autojump_threshold=0))
    return done, end


# -- what it should do ------------------------------------------------------------------


class Stopped(Exception):
    """The service is left."""


@attrs.frozen
class Expired(Exception):
    """A time-out is over; the block which it is about is left."""

    place: int


@attrs.define
class Model:
    stop: float
    deadline: float
    now: float = 0.0
    done: list[float] = attrs.field(factory=list[float])
    around: list[float] = attrs.field(factory=list[float])  # the time-outs around, outermost first
    regions: list[int] = attrs.field(
        factory=list[int]
    )  # how many time-outs are around each of them

    def run(self, body: Sequence[Step]) -> None:
        for step in body:
            if isinstance(step, Work):
                self.work(step.seconds)
            elif isinstance(step, Region):
                self.regions.append(len(self.around))
                try:
                    self.run(step.body)
                finally:
                    self.regions.pop()
            elif isinstance(step, Tasks):
                self.all_of(step.children)
            else:
                place = len(self.around)
                self.around.append(self.now + step.seconds)
                try:
                    self.run(step.body)
                except Expired as expired:
                    if expired.place != place:
                        raise
                finally:
                    self.around.pop()

    def all_of(self, children: tuple[tuple[Step, ...], ...]) -> None:
        begun = self.now
        ended = [begun]
        left: list[Stopped | Expired] = []
        for child in children:
            self.now = begun
            try:
                self.run(child)
            except (Stopped, Expired) as reason:
                left.append(reason)
            ended.append(self.now)
        self.now = max(ended)
        if left:  # a stop outweighs a time-out
            raise min(left, key=lambda reason: isinstance(reason, Expired))

    def work(self, seconds: float) -> None:
        end = self.now + seconds
        over = min(self.around, default=math.inf)
        # Inside of a region only its deadline counts, outside of one the stop itself.
        stopped = self.deadline if self.regions else self.stop
        self.now = max(self.now, min(end, over, stopped))
        if stopped <= self.now:
            raise Stopped
        if over <= self.now:
            place = self.around.index(over)
            if self.now > self.stop and place < self.regions[0]:
                raise Stopped  # the time-out is outside of all regions, where the stop is seen
            raise Expired(place)
        self.done.append(self.now)


def run_model(program: Sequence[Step], stop: float, within: float) -> tuple[list[float], float]:
    model = Model(stop, stop + within)
    with suppress(Stopped):
        model.run(program)
    return sorted(model.done), max(model.now, stop)


@given(programs, st.integers(0, 20), st.integers(0, 20))
@settings(deadline=None)
def test_stop_does_to_any_service_what_the_model_says(
    program: list[Step], stop: int, within: int
) -> None:
    spread = apart(program)
    assert run_really(spread, stop + 0.5, within + 0.25) == run_model(
        spread, stop + 0.5, within + 0.25
    )

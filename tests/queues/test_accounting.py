"""Random producers, workers, closes and stops: at every step the books must add up.

The books are held against what the producers and the handlers saw themselves, since what a queue
derives from its own numbers always adds up.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import attrs
import trio
from hypothesis import given, settings, strategies as st
from trio.abc import Instrument
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_services.errors import QueueClosed, QueueFull
from trio_services.lifecycle import Bus, Lifetime, events
from trio_services.queues import Discard, Workers, WorkQueue, current_job
from trio_services.resilience import Backoff, Retry
from trio_services.supervision import Child, Supervisor, open_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

# Few different times, so that much happens in the same moment.
moments = st.integers(0, 12).map(lambda n: n / 4)

End = Literal["ok", "fail", "discard"]


@attrs.frozen
class Attempt:
    """What a handler does: it takes some time, or none at all, and ends somehow."""

    seconds: float | None
    end: End


@attrs.frozen
class Put:
    """What a producer does: it waits, and puts an item with these attempts ahead of it."""

    after: float
    how: Literal["put", "put_nowait", "put, cancelled after a while"]
    patience: float
    attempts: tuple[Attempt, ...]


@attrs.frozen
class Pool:
    count: int
    timeout: float | None
    attempts: int
    delay: float
    on_dead: Literal["none", "takes", "fails"]
    after_others: bool


@attrs.frozen
class Program:
    capacity: int
    rejects: bool
    producers: tuple[tuple[Put, ...], ...]
    pools: tuple[Pool, ...]
    close_at: float | None
    stop_at: float
    stop_within: float


def tuples(strategy: st.SearchStrategy[Put], most: int) -> st.SearchStrategy[tuple[Put, ...]]:
    return st.lists(strategy, min_size=1, max_size=most).map(tuple)


attempts = st.builds(Attempt, st.none() | moments, st.sampled_from(("ok", "ok", "fail", "discard")))
puts = st.builds(
    Put,
    after=st.just(0.0) | moments,
    how=st.sampled_from(("put", "put_nowait", "put, cancelled after a while")),
    patience=moments,
    attempts=st.lists(attempts, min_size=1, max_size=3).map(tuple),
)
pools = st.builds(
    Pool,
    count=st.integers(1, 3),
    timeout=st.none() | st.sampled_from((0.25, 1.0)),
    attempts=st.integers(1, 3),
    delay=st.just(0.0) | moments,
    on_dead=st.sampled_from(("none", "takes", "fails")),
    after_others=st.booleans(),
)
programs = st.builds(
    Program,
    capacity=st.integers(1, 3),
    rejects=st.booleans(),
    producers=st.lists(tuples(puts, 6), min_size=1, max_size=4).map(tuple),
    pools=st.lists(pools, min_size=1, max_size=2).map(tuple),
    close_at=st.none() | moments,
    stop_at=moments.map(lambda n: 2 * n),
    stop_within=moments,
)


@attrs.frozen(eq=False)
class Item:
    """What goes through the queue; a value of its own, however alike two may be."""

    attempts: tuple[Attempt, ...]


@attrs.define(eq=False)
class World(Instrument):
    """What producers and handlers saw, and the first thing in which the books differ from it."""

    program: Program
    queue: WorkQueue[Item] = attrs.field(init=False)
    lives: list[Lifetime] = attrs.field(factory=list[Lifetime])

    all_produced: trio.Event = attrs.field(factory=trio.Event)
    putting: int = 0
    accepted: list[Item] = attrs.field(factory=list[Item])
    refused: int = 0
    begun: list[Item] = attrs.field(factory=list[Item])
    at_work: set[Item] = attrs.field(factory=set[Item])  # in a handler or in on_dead
    delayed: set[Item] = attrs.field(factory=set[Item])  # between two attempts
    done: list[Item] = attrs.field(factory=list[Item])
    discarded: list[Item] = attrs.field(factory=list[Item])
    dead: list[Item] = attrs.field(factory=list[Item])
    retries: int = 0
    wrong: str | None = None

    def __attrs_post_init__(self) -> None:
        self.queue = WorkQueue(
            "items", self.program.capacity, "reject" if self.program.rejects else "wait"
        )

    # -- those who work ----------------------------------------------------------------

    async def produce_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for puts in self.program.producers:
                nursery.start_soon(self.produce, puts)
        self.all_produced.set()

    async def produce(self, puts: tuple[Put, ...]) -> None:
        for put in puts:
            await trio.sleep(put.after)
            item = Item(put.attempts)
            self.putting += 1
            try:
                if put.how == "put_nowait":
                    self.queue.put_nowait(item)
                elif put.how == "put":
                    await self.queue.put(item)
                else:
                    with trio.move_on_after(put.patience) as scope:
                        await self.queue.put(item)
                    if scope.cancelled_caught:
                        continue
                self.accepted.append(item)
            except (QueueFull, QueueClosed):
                self.refused += 1
            finally:
                self.putting -= 1

    async def handle(self, item: Item) -> None:
        job = current_job.get()
        assert job is not None
        if item in self.at_work:
            self.wrong = "an item is handled twice at the same time"
        if job.attempt == 1:
            self.begun.append(item)
        else:
            self.retries += 1
        self.delayed.discard(item)
        self.at_work.add(item)
        try:
            attempt = item.attempts[min(job.attempt, len(item.attempts)) - 1]
            if attempt.seconds is not None:
                await trio.sleep(attempt.seconds)
            if attempt.end == "fail":
                raise OSError("fails")
            if attempt.end == "discard":
                self.discarded.append(item)
                raise Discard
            self.done.append(item)
        finally:
            self.at_work.discard(item)

    async def take_dead(self, item: Item, error: Exception) -> None:
        self.at_work.add(item)
        try:
            await trio.sleep(0.5)
            self.dead.append(item)
        finally:
            self.at_work.discard(item)

    async def fail_to_take_dead(self, item: Item, error: Exception) -> None:
        self.at_work.add(item)
        try:
            await trio.lowlevel.checkpoint()
            raise OSError("disk full")
        finally:
            self.at_work.discard(item)

    def listen(self, event: events.Event) -> None:
        if isinstance(event, events.JobRetrying):
            job = current_job.get()
            assert job is not None
            assert isinstance(job.item, Item)
            self.delayed.add(job.item)

    # -- those who look ----------------------------------------------------------------

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # What an instrument raises is only logged, so that it must be remembered.
        if self.wrong is None:
            self.wrong = self.difference()

    def difference(self) -> str | None:
        """What cannot be, whatever runs next."""
        books = self.queue.statistics()
        ended = books.done + books.discarded + books.dead + books.returned + books.left
        all_workers = sum(pool.count for pool in self.program.pools)
        checks = {
            "accepted = depth + in_hand + ended": books.accepted
            == books.depth + books.in_hand + ended,
            "nothing is negative": min(attrs.astuple(books)) >= 0,
            # Idle workers are as good as room, until they have taken what they were woken for.
            "depth ≤ capacity + workers": books.depth <= books.capacity + all_workers,
            "blocked ≤ putting": books.blocked <= self.putting,
            "what producers were told was accepted": len(self.accepted)
            <= books.accepted
            <= len(self.accepted) + self.putting,
            # A handler's last step books the outcome too.
            "done": books.done == len(self.done),
            "discarded": books.discarded == len(self.discarded),
            "dead": books.dead == len(self.dead) + len(self.queue.dead_letters()),
            "what is at work is in hand": len(self.at_work) <= books.in_hand,
            "there are no more in hand than workers": books.in_hand <= all_workers,
            "oldest": (books.oldest > 0) <= (books.depth > 0),
        }
        return next((f"{name}: {books}" for name, holds in checks.items() if not holds), None)

    def difference_at_rest(self) -> str | None:
        """What cannot be when every task waits for something."""
        books = self.queue.statistics()
        in_hand = len(self.at_work)
        if not any(life.stop_requested for life in self.lives):
            in_hand += len(self.delayed)
        checks = {
            "accepted": books.accepted == len(self.accepted),
            "blocked": books.blocked == self.putting,
            "in_hand": books.in_hand == in_hand
            or (any(life.stop_requested for life in self.lives) and not self.all_stopped()),
        }
        return next((f"{name}: {books}" for name, holds in checks.items() if not holds), None)

    def all_stopped(self) -> bool:
        return all(life.stop_requested for life in self.lives)

    async def watch(self) -> None:
        while True:
            await wait_all_tasks_blocked()
            self.wrong = self.wrong or self.difference_at_rest()
            await trio.sleep(0.125)


def workers(world: World, number: int) -> Child:
    pool = world.program.pools[number]
    on_dead: dict[str, Callable[..., object] | None] = {
        "none": None,
        "takes": world.take_dead,
        "fails": world.fail_to_take_dead,
    }
    return Child(
        Workers(
            world.queue,
            world.handle,
            count=pool.count,
            timeout=pool.timeout,
            retry=Retry(pool.attempts, Backoff(initial=pool.delay, jitter=0)),
            on_dead=on_dead[pool.on_dead],  # type: ignore[arg-type]
        ),
        name=f"pool{number}",
        after=[f"pool{other}" for other in range(number)] if pool.after_others else (),
        stop_within=world.program.stop_within,
    )


async def live(world: World) -> None:
    program = world.program
    bus = Bus()
    with ExitStack() as stack:
        stack.enter_context(bus.listening(world.listen))
        async with trio.open_nursery() as outside:
            outside.start_soon(world.produce_all)
            outside.start_soon(world.watch)
            tree = Supervisor("app", [workers(world, n) for n in range(len(program.pools))])
            async with open_supervisor(tree, bus=bus) as running:
                world.lives += running.life.children.values()
                if program.close_at is not None and program.close_at <= program.stop_at:
                    await trio.sleep_until(program.close_at)
                    world.queue.close()
                await trio.sleep_until(program.stop_at)
            # No producer hangs on a queue that nobody will ever empty.
            with trio.fail_after(1000):
                await world.all_produced.wait()
            outside.cancel_scope.cancel()


@given(programs)
@settings(deadline=None)
def test_books_add_up_at_every_step_and_nothing_is_lost_or_doubled(program: Program) -> None:
    world = World(program)
    trio.run(live, world, clock=MockClock(autojump_threshold=0), instruments=[world])

    assert world.wrong is None
    books = world.queue.statistics()
    assert (books.depth, books.in_hand, books.blocked) == (0, 0, 0)
    assert books.accepted == len(world.accepted)
    assert books.done == len(world.done)
    assert books.discarded == len(world.discarded)
    assert books.dead == len(world.dead) + len(world.queue.dead_letters())
    assert books.retried == world.retries

    begun = set(world.begun)
    assert len(begun) == len(world.begun)
    assert begun <= set(world.accepted)
    assert books.left == len(world.accepted) - len(begun)
    dead = [*world.dead, *(letter.item for letter in world.queue.dead_letters())]
    ended = [*world.done, *world.discarded, *dead]
    assert len(set(ended)) == len(ended)
    assert set(ended) <= begun
    assert books.returned == len(begun) - len(ended)

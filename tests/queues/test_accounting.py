"""Random producers, pools, operators and stops: at every step the books must add up.

The books are held against what the producers and the handlers saw themselves, since what a queue
derives from its own numbers always adds up.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Literal

import attrs
import trio
from hypothesis import given, settings, strategies as st
from trio.abc import Instrument
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_services.errors import QueueClosed, QueueFull, ServicesError
from trio_services.lifecycle import Bus, Lifetime, events
from trio_services.queues import Batch, Discard, RetryLater, Workers, WorkQueue, current_job
from trio_services.resilience import Backoff, Breaker, Rate, Retry
from trio_services.supervision import Child, Supervisor, open_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_services.supervision import Tree

# Few different times, so that much happens in the same moment.
moments = st.integers(0, 12).map(lambda n: n / 4)

End = Literal["ok", "fail", "discard", "later"]
WhenFull = Literal["wait", "reject", "drop_oldest", "drop_newest"]
Callback = Literal["none", "takes", "fails"]


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
    key: int


@attrs.frozen
class Pool:
    count: int
    timeout: float | None
    attempts: int
    delay: float
    on_dead: Callback
    after_others: bool
    grouping: Batch | Literal["key"] | None = None
    breaker: bool = False
    rate: bool = False
    drain: bool = False
    fallback: Callback = "none"
    on_left: bool = False

    @property
    def plain(self) -> bool:
        """Whether what is in hand is in a handler, or waits for another attempt."""
        return self.grouping is None and not (self.breaker or self.rate or self.drain)


@attrs.frozen
class Action:
    """What an operator does."""

    at: float
    what: Literal["pause", "resume", "restart", "stop", "resize"]
    pool: int
    count: int


@attrs.frozen
class Program:
    capacity: int
    when_full: WhenFull
    producers: tuple[tuple[Put, ...], ...]
    pools: tuple[Pool, ...]
    actions: tuple[Action, ...]
    close_at: float | None
    stop_at: float
    stop_within: float

    @property
    def plain(self) -> bool:
        return not self.actions and all(pool.plain for pool in self.pools)

    @property
    def most_in_hand(self) -> int:
        """How many items workers may hold at the same time."""
        if self.plain:
            return sum(pool.count for pool in self.pools)
        # Dismissed workers finish what they have in hand, eight wait in lanes for each worker …
        most = sum(10 * pool.count for pool in self.pools)
        return most + sum(10 * action.count for action in self.actions)


def tuples(strategy: st.SearchStrategy[Put], most: int) -> st.SearchStrategy[tuple[Put, ...]]:
    return st.lists(strategy, min_size=1, max_size=most).map(tuple)


ends = st.sampled_from(("ok", "ok", "fail", "discard", "later"))
attempts = st.builds(Attempt, st.none() | moments, ends)
puts = st.builds(
    Put,
    after=st.just(0.0) | moments,
    how=st.sampled_from(("put", "put_nowait", "put, cancelled after a while")),
    patience=moments,
    attempts=st.lists(attempts, min_size=1, max_size=3).map(tuple),
    key=st.integers(0, 3),
)
callbacks = st.sampled_from(("none", "takes", "fails"))
plain_pools = {
    "count": st.integers(1, 3),
    "timeout": st.none() | st.sampled_from((0.25, 1.0)),
    "attempts": st.integers(1, 3),
    "delay": st.just(0.0) | moments,
    "on_dead": callbacks,
    "after_others": st.booleans(),
}
pools = st.builds(
    Pool,
    **plain_pools,
    grouping=st.none()
    | st.just("key")
    | st.builds(Batch, st.integers(1, 3), within=st.sampled_from((0.0, 0.5))),
    breaker=st.booleans(),
    rate=st.booleans(),
    drain=st.booleans(),
    fallback=callbacks,
    on_left=st.booleans(),
)
actions = st.builds(
    Action,
    at=moments,
    what=st.sampled_from(("pause", "resume", "restart", "stop", "resize")),
    pool=st.integers(0, 1),
    count=st.integers(1, 4),
)


def programs(pools: st.SearchStrategy[Pool], most_actions: int) -> st.SearchStrategy[Program]:
    return st.builds(
        Program,
        capacity=st.integers(1, 3),
        when_full=st.sampled_from(("wait", "reject", "drop_oldest", "drop_newest")),
        producers=st.lists(tuples(puts, 6), min_size=1, max_size=4).map(tuple),
        pools=st.lists(pools, min_size=1, max_size=2).map(tuple),
        actions=st.lists(actions, max_size=most_actions).map(tuple),
        close_at=st.none() | moments,
        stop_at=moments.map(lambda n: 2 * n),
        stop_within=moments,
    )


@attrs.frozen(eq=False)
class Item:
    """What goes through the queue; a value of its own, however alike two may be."""

    attempts: tuple[Attempt, ...]
    key: int


NO_KEY = 3


def key_of(item: Item) -> int:
    if item.key == NO_KEY:
        raise KeyError("it has none")
    return item.key


@attrs.define(eq=False)
class World(Instrument):
    """What producers and handlers saw, and the first thing in which the books differ from it."""

    program: Program
    queue: WorkQueue[Item] = attrs.field(init=False)
    lives: list[Lifetime] = attrs.field(factory=list[Lifetime])

    all_produced: trio.Event = attrs.field(factory=trio.Event)
    putting: int = 0
    accepted: list[Item] = attrs.field(factory=list[Item])  # as far as producers were told
    refused: int = 0
    begun: list[Item] = attrs.field(factory=list[Item])
    at_work: set[Item] = attrs.field(factory=set[Item])  # in a handler or a callback
    delayed: set[Item] = attrs.field(factory=set[Item])  # between two attempts
    done: list[Item] = attrs.field(factory=list[Item])
    discarded: list[Item] = attrs.field(factory=list[Item])
    dead: list[Item] = attrs.field(factory=list[Item])
    offered: list[Item] = attrs.field(factory=list[Item])
    retries: int = 0
    wrong: str | None = None

    def __attrs_post_init__(self) -> None:
        self.queue = WorkQueue("items", self.program.capacity, self.program.when_full)

    # -- those who work ----------------------------------------------------------------

    async def produce_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for puts in self.program.producers:
                nursery.start_soon(self.produce, puts)
        self.all_produced.set()

    async def produce(self, puts: tuple[Put, ...]) -> None:
        for put in puts:
            await trio.sleep(put.after)
            item = Item(put.attempts, put.key)
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

    async def handle(self, given: Item | list[Item]) -> None:
        job = current_job.get()
        assert job is not None
        items = given if isinstance(given, list) else [given]
        if self.at_work & set(items):
            self.wrong = "an item is handled twice at the same time"
        if job.attempt == 1:
            self.begun += items
        else:
            self.retries += 1
        self.delayed.difference_update(items)
        self.at_work.update(items)
        try:
            attempt = items[0].attempts[min(job.attempt, len(items[0].attempts)) - 1]
            if attempt.seconds is not None:
                await trio.sleep(attempt.seconds)
            if attempt.end == "fail":
                raise OSError("fails")
            if attempt.end == "later":
                self.delayed.update(items)
                raise RetryLater(0.25)
            if attempt.end == "discard":
                self.discarded += items
                raise Discard
            self.done += items
        finally:
            self.at_work.difference_update(items)

    async def take_dead(self, item: Item, error: Exception) -> None:
        self.at_work.add(item)
        try:
            await trio.sleep(0.5)
            self.dead.append(item)
        finally:
            self.at_work.discard(item)

    async def fall_back(self, given: Item | list[Item], error: Exception) -> None:
        items = given if isinstance(given, list) else [given]
        self.at_work.update(items)
        try:
            await trio.sleep(0.25)
            self.done += items
        finally:
            self.at_work.difference_update(items)

    async def fail(self, given: Item | list[Item], error: Exception) -> None:
        items = given if isinstance(given, list) else [given]
        self.at_work.update(items)
        try:
            await trio.lowlevel.checkpoint()
            raise OSError("disk full")
        finally:
            self.at_work.difference_update(items)

    async def keep(self, item: Item) -> None:
        self.offered.append(item)
        await trio.sleep(0.25)

    def listen(self, event: events.Event) -> None:
        if isinstance(event, events.JobRetrying):
            job = current_job.get()
            assert job is not None
            self.delayed.update(part.item for part in job.parts or (job,))

    # -- those who look ----------------------------------------------------------------

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        # What an instrument raises is only logged, so that it must be remembered.
        if self.wrong is None:
            self.wrong = self.difference()

    def difference(self) -> str | None:
        """What cannot be, whatever runs next."""
        books = self.queue.statistics()
        ended = books.done + books.discarded + books.dead + books.returned + books.left
        dead = len(self.dead) + len(self.queue.dead_letters())
        most_in_hand = self.program.most_in_hand
        # What was given up was accepted, or was never to be.
        taken_in = books.accepted + books.dropped
        checks = {
            "accepted = depth + in_hand + ended": books.accepted
            == books.depth + books.in_hand + ended,
            "nothing is negative": min(attrs.astuple(books)) >= 0,
            # Idle workers are as good as room, until they have taken what they were woken for,
            # and what they had not begun they may put back.
            "depth ≤ capacity + workers": books.depth <= books.capacity + most_in_hand,
            "blocked ≤ putting": books.blocked <= self.putting,
            "what producers were told was taken in": len(self.accepted)
            <= taken_in
            <= len(self.accepted) + self.putting,
            "only some queues drop": not books.dropped or "drop" in self.program.when_full,
            "only some queues block": not books.blocked or self.program.when_full == "wait",
            # A handler's last step books the outcome too; but a batch is dead letter by letter.
            "done": books.done == len(self.done),
            "discarded": books.discarded == len(self.discarded),
            "dead": books.dead <= dead <= books.dead + (0 if self.program.plain else books.in_hand),
            "what is at work is in hand": len(self.at_work) <= books.in_hand,
            "there are no more in hand than workers": books.in_hand <= most_in_hand,
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
            "accepted": books.accepted + books.dropped == len(self.accepted),
            "blocked": books.blocked == self.putting,
            "in_hand": not self.program.plain
            or books.in_hand == in_hand
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
    on_dead: dict[str, Callable[..., Any] | None] = {
        "none": None,
        "takes": world.take_dead,
        "fails": world.fail,
    }
    fallback: dict[str, Callable[..., Any] | None] = {
        "none": None,
        "takes": world.fall_back,
        "fails": world.fail,
    }
    return Child(
        Workers(
            world.queue,
            world.handle,
            count=pool.count,
            timeout=pool.timeout,
            retry=Retry(pool.attempts, Backoff(initial=pool.delay, jitter=0)),
            batch=pool.grouping if isinstance(pool.grouping, Batch) else None,
            key=key_of if pool.grouping == "key" else None,
            breaker=Breaker(failures=2, within=2, reset_after=0.5, cap=1, jitter=0)
            if pool.breaker
            else None,
            rate=Rate(2, per=0.5) if pool.rate else None,
            drain=pool.drain,
            fallback=fallback[pool.fallback],
            on_dead=on_dead[pool.on_dead],
            on_left=world.keep if pool.on_left else None,
        ),
        name=f"pool{number}",
        after=[f"pool{other}" for other in range(number)] if pool.after_others else (),
        stop_within=world.program.stop_within,
    )


async def operate(world: World, tree: Tree) -> None:
    for action in sorted(world.program.actions, key=lambda action: action.at):
        await trio.sleep_until(action.at)
        path = f"pool{action.pool % len(world.program.pools)}"
        match action.what:
            case "pause":
                world.queue.pause()
            case "resume":
                world.queue.resume()
            case "restart":
                await tree.restart(path)
            case "stop":
                await tree.stop(path)
            case "resize":
                with suppress(ServicesError):  # it has ended, or was stopped
                    tree.resize(path, action.count)


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
                async with trio.open_nursery() as operator:
                    operator.start_soon(operate, world, running)
                    if program.close_at is not None and program.close_at <= program.stop_at:
                        await trio.sleep_until(program.close_at)
                        world.queue.close()
                    await trio.sleep_until(program.stop_at)
                    operator.cancel_scope.cancel()  # who may wait for what waits for a stopped pool
            # No producer hangs on a queue that nobody will ever empty.
            with trio.fail_after(1000):
                await world.all_produced.wait()
            outside.cancel_scope.cancel()


def check(program: Program) -> None:
    world = World(program)
    trio.run(live, world, clock=MockClock(autojump_threshold=0), instruments=[world])

    assert world.wrong is None
    books = world.queue.statistics()
    assert (books.depth, books.in_hand, books.blocked) == (0, 0, 0)
    assert books.accepted + books.dropped == len(world.accepted)
    assert books.done == len(world.done)
    assert books.discarded == len(world.discarded)
    assert books.dead == len(world.dead) + len(world.queue.dead_letters())
    assert books.retried >= world.retries
    if program.plain:
        assert books.retried == world.retries

    begun = set(world.begun)
    assert len(begun) == len(world.begun)
    assert begun <= set(world.accepted)
    dead = [*world.dead, *(letter.item for letter in world.queue.dead_letters())]
    ended = [*world.done, *world.discarded, *dead]
    assert len(set(ended)) == len(ended)
    never_begun = set(ended) - begun
    assert never_begun <= {item for item in dead if item.key == NO_KEY}
    assert books.left == books.accepted - len(begun) - len(never_begun)
    assert books.returned == len(begun) - (len(ended) - len(never_begun))

    offered = set(world.offered)
    assert len(offered) == len(world.offered) <= books.left + books.returned
    assert offered <= set(world.accepted) - set(ended)


@given(programs(st.builds(Pool, **plain_pools), 0))
@settings(deadline=None)
def test_books_add_up_at_every_step_and_nothing_is_lost_or_doubled(program: Program) -> None:
    check(program)


@given(programs(pools, 4))
@settings(deadline=None)
def test_books_add_up_whatever_pools_are_asked_for_and_operators_do(program: Program) -> None:
    check(program)

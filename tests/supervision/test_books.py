"""A supervisor's books: what it has counted agrees, at every quiet moment, with what there is.

A supervisor does not look at all of its children to know whether one may start or has to stop: it
counts, up and down, at each event. A count that is off by one is seen by nobody until, much later,
a service never starts again, starts too soon, or holds up a stop. So random trees of services that
fail, return, and linger are talked to by a random operator, and are audited a few times a second.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Limit,
    RestartLimitExceeded,
    Service,
    ServicesError,
    StopFailed,
    StopOverdue,
    Supervisor,
    graceful,
)
from trio_services.lifecycle import State
from trio_services.resilience import BreakerState
from trio_services.supervision import Strategy
from trio_services.supervision._record import Then

from .harness import EVER_SO_OFTEN, Boom, Story, ending_within, lives_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_services.supervision import Tree
    from trio_services.supervision._supervision import Supervision

# How many examples is for the profile to say.
EXAMPLES = settings(deadline=None)

LONG = 200.0
"""Seconds: more than all services here can take, one after the other, for whatever they do."""


# -- the audit -------------------------------------------------------------------------


def audit(books: Supervision) -> None:
    """What is true of the books of a supervisor between any two decisions."""
    records = books.records
    going = not books.stopping and not books.life.stop_requested

    for record in records.values():
        state, after, before = record.state, record.dependencies, record.dependents or []

        # Both sides know of each other, once, and whoever is removed is known to nobody: a count
        # that is taken up by one of them is taken down by the other.
        assert len({*after}) == len(after)
        assert len({*before}) == len(before)
        for other in after:
            assert records.get(other.child.name) is other, (record, other)
            assert (other.dependents or []).count(record) == 1, (record, other)
        for other in before:
            assert records.get(other.child.name) is other, (record, other)
            assert record in other.dependencies, (record, other)
        # What it was written to come after it does come after.
        assert {*record.child.after} <= {other.child.name for other in after}, record

        # It starts when this comes down to zero: too high, and it never does; too low, too soon.
        closed = sum(not other.passed for other in after)
        assert record.waits_for == closed + len(record.held_by or ()), record
        # Nobody waits for nothing: what was counted down last has started it.
        assert state is not State.WAITING or record.waits_for or not going, record
        # A gate opens when all that keep it closed have told it so, and each of them will: one
        # that runs when it ends, one that backs off when it is due.
        for gate in (record.held_by or ()) if going else ():
            closing = [
                one for one in gate.members if one.opens is gate or gate in (one.awaited_by or ())
            ]
            assert gate.waits_on() == tuple([one.name for one in closing]), record
            assert gate.pending == len(closing) > 0, (record, closing)
            assert all(one.runs or one.state is State.BACKING_OFF for one in closing), closing

        # Those that come after it may start while it is ready, or when it will never be again;
        # else they would start without it, or wait for what does not come.
        if going and state in (State.WAITING, State.STARTING, State.BACKING_OFF):
            assert not record.passed, record
        if going and (record.retired or (state is State.RUNNING and not record.to_stop)):
            assert record.passed, record

        # It is told to stop when this comes down to zero: too high, and a stop waits for ever;
        # too low, and it is stopped under those that use it.
        assert record.busy_dependents == sum(other.busy for other in before), record
        # Whoever runs holds up all that it comes after, also through others that do not run,
        # unless it ignores its cancellation.
        assert record.released == (not record.runs or record.overdue), record
        assert record.busy == (not record.released or record.busy_dependents > 0), record
        # Who is to stop, and is used by nobody, has been told.
        if record.runs and record.to_stop and not record.busy_dependents:
            assert state is State.STOPPING, record

        # Each state that has to be left in time has a deadline, and no other: without one a
        # service that hangs is never noticed, and a spare one is taken for that of a later state.
        probe = record.circuit_in(BreakerState.HALF_OPEN) is not None
        timed = (
            state is State.BACKING_OFF
            or (state in (State.STARTING, State.STOPPING) and not record.overdue)
            or (state is State.RUNNING and probe)
        )
        assert (record.due < math.inf) == timed, (record, record.due)

        # Nothing is expected of one that has ended, unless it is kept for an operator; and whom he
        # has removed is on the books only until its end.
        assert state.ended or not record.retired, record
        assert record.retired or not state.ended or record.then is Then.STAY, record
        assert record.runs or record.then is not Then.LEAVE or not going, record

    # With `rest_for_one` each comes after the one before it, also when one between them has gone:
    # else a stop in order is none.
    if books.spec.strategy == "rest_for_one":
        for first, second in pairwise(records.values()):
            assert first in second.dependencies, (first, second)

    # A supervisor ends of itself when nothing is wanted any more, is ready when all have arrived,
    # and is done with its stop when none runs: each is counted, and none of them twice.
    assert books.wanted == sum(not record.retired for record in records.values())
    assert books._unarrived == sum(not record.arrived for record in records.values())
    assert books.running == sum(record.runs for record in records.values())
    assert books.deadlines._due == sum(record.due < math.inf for record in records.values())


def check_closed(books: Supervision) -> None:
    """What is true of the books of a supervisor that has ended."""
    audit(books)
    assert (books.wanted, books.running, books.deadlines._due) == (0, 0, 0)
    for record in books.records.values():
        assert record.state.ended, record
        assert (record.busy, record.released) == (False, True), record
        assert (record.task, record.readiness, record.awaited_by) == (None, None, None), record


def books_of(supervision: Supervision) -> Iterator[Supervision]:
    """A supervisor's books, and the last ones of each supervisor below it."""
    yield supervision
    for record in supervision.records.values():
        if record.supervision is not None:
            yield from books_of(record.supervision)


async def keep_auditing(tree: Tree) -> None:
    while True:
        await trio.testing.wait_all_tasks_blocked()
        if tree.life.attempt and not tree.life.state.ended:
            for books in books_of(tree._supervision):
                audit(books)
            tree.statistics()
        await trio.sleep(0.25)  # all that happens here happens at quarters of a second


# -- services that are anything but steady -----------------------------------------------


@attrs.frozen
class Run:
    """What one run of a service does.

    Args:
        ready: seconds until it says that it is; None: it fails before.
        lasts: seconds from then until it ends, unless it is stopped.
        drains: whether it finishes that at a stop.
        fails: whether it ends by failing; else it returns.
        lingers: seconds for which it cleans up, whatever is said to it.
        fails_late: whether it fails in that.
    """

    ready: float | None = 0.0
    lasts: float = math.inf
    drains: bool = False
    fails: bool = False
    lingers: float = 0.0
    fails_late: bool = False


@attrs.define(eq=False)
class Actor:
    """Makes a fresh service for each start, which does the next run; an idle one in the end."""

    script: Sequence[Run]
    made: int = 0

    def __call__(self) -> Unsteady:
        self.made += 1
        return Unsteady(self.script[self.made - 1] if self.made <= len(self.script) else Run())


class Unsteady(Service):
    def __init__(self, plan: Run) -> None:
        self.plan = plan

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        plan = self.plan
        if plan.ready is None:
            await trio.sleep(0.25)
            raise Boom("not ready")
        await trio.sleep(plan.ready)
        task_status.started()
        try:
            if plan.drains:
                with graceful():
                    await trio.sleep(plan.lasts)
            else:
                await trio.sleep(plan.lasts)
            if plan.fails:
                raise Boom("failed")
        finally:
            with trio.move_on_after(plan.lingers, shield=True):
                await trio.sleep_forever()
            if plan.fails_late:
                raise Boom("in the clean-up")


runs = st.builds(
    Run,
    ready=st.sampled_from([0.0, 0.0, 0.5, 1.0, None]),
    lasts=st.sampled_from([0.0, 1.0, 2.0, 5.0, math.inf]),
    drains=st.booleans(),
    fails=st.sampled_from([True, True, False]),
    lingers=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0]),
    fails_late=st.sampled_from([False] * 9 + [True]),
)

breakers = st.builds(
    Breaker,
    failures=st.integers(1, 2),
    reset_after=st.just(2),
    cap=st.just(6),
    healthy_after=st.sampled_from([0.0, 2.0]),
    give_up_after=st.sampled_from([None, 1, 2]),
    jitter=st.just(0),
)


@st.composite
def children(draw: st.DrawFn, name: str, before: Sequence[str], depth: int) -> Child:
    policy = Child(
        Actor([]),
        name=name,
        after=sorted(draw(st.sets(st.sampled_from(before), max_size=2))) if before else (),
        restart=draw(st.sampled_from(["always", "on_failure", "never"])),
        backoff=Backoff(initial=draw(st.sampled_from([0, 0, 1, 2])), cap=3, jitter=0),
        breaker=draw(st.none() | breakers),
        critical=draw(st.sampled_from([False] * 9 + [True])),
    )
    if depth and not draw(st.integers(0, 2)):
        # With time to spare, for what an operator starts below it.
        inner = draw(supervisors(name, depth - 1))
        return attrs.evolve(policy, service=inner, stop_within=LONG)
    return attrs.evolve(
        policy,
        service=Actor(draw(st.lists(runs, max_size=4))),
        start_within=draw(st.sampled_from([0.75, 5])),
        stop_within=draw(st.sampled_from([0, 1, 2])),
    )


STRATEGIES: list[Strategy] = ["one_for_one", "one_for_all", "rest_for_one"]


@st.composite
def supervisors(draw: st.DrawFn, name: str, depth: int) -> Supervisor:
    below: list[Child] = []
    for n in range(draw(st.integers(1, 4 if depth else 3))):
        below.append(draw(children(f"c{n}", [child.name for child in below], depth)))
    strategy = draw(st.sampled_from(STRATEGIES))
    limits = [Limit(0, per=5), Limit(2, per=5), EVER_SO_OFTEN]
    return Supervisor(
        name,
        below if strategy == "rest_for_one" else draw(st.permutations(below)),
        strategy=strategy,
        # The root is to last.
        max_restarts=draw(st.sampled_from(limits)) if name != "app" else EVER_SO_OFTEN,
    )


# -- an operator who does not know what he wants -----------------------------------------


@attrs.frozen
class Command:
    """A word to the tree; `patience`: seconds after which it is not waited for any more."""

    at: float
    word: str
    path: str
    patience: float
    child: Child | None = None

    async def say(self, tree: Tree) -> None:
        await trio.sleep(self.at)
        with trio.move_on_after(self.patience):
            try:
                await self._say(tree)
            except ServicesError:
                await trio.lowlevel.checkpoint()  # refused

    async def _say(self, tree: Tree) -> None:
        match self.word:
            case "start":
                assert self.child is not None
                await tree.start(self.child, under=self.path)
            case "stop":
                await tree.stop(self.path)
            case "restart":
                await tree.restart(self.path)
            case "remove":
                books, record = tree._find(self.path)
                await tree.remove(self.path)
                assert record not in books.records.values() or books.stopping
            case "trip":
                tree.trip(self.path)
            case _:
                tree.reset(self.path)


WORDS = ["stop", "restart", "restart", "remove", "start", "start", "trip", "reset"]


@st.composite
def commands(draw: st.DrawFn, tree: Supervisor) -> Command:
    word = draw(st.sampled_from(WORDS))
    known = [*paths(tree)]
    nested = [path for path in known if any(other.startswith(f"{path}/") for other in known)]
    started = ["new", *(f"{path}/new" for path in nested)]
    child = draw(children("new", ["c0", "c1"], 0)) if word == "start" else None
    return Command(
        at=draw(st.sampled_from([0.0, 0.25, 1.0, 2.0, 3.5, 7.0])),
        word=word,
        path=draw(st.sampled_from(["app", *nested] if child else [*known, *started])),
        patience=draw(st.sampled_from([0.0, 0.5, 3.0, math.inf])),
        child=child,
    )


def paths(tree: Supervisor, above: str = "") -> Iterator[str]:
    for child in tree.children:
        yield above + child.name
        if isinstance(child.service, Supervisor):
            yield from paths(child.service, f"{above}{child.name}/")


# -- the test --------------------------------------------------------------------------


@EXAMPLES
@given(
    data=st.data(),
    spec=supervisors("app", 1),
    until=st.sampled_from([1.0, 2.5, 6.0, 20.0]),
    how=st.sampled_from(["request", "cancel", "outside"]),
)
def test_books_are_right_at_all_times_and_closed_in_the_end(
    data: st.DataObject, spec: Supervisor, until: float, how: str
) -> None:
    orders = data.draw(st.lists(commands(spec), max_size=12))
    story = Story()

    async def run(scope: trio.CancelScope) -> None:
        with scope:
            try:
                async with story.open(spec, stop_within=10 * LONG) as tree:
                    await tree.wait_ended()
            except* (RestartLimitExceeded, StopFailed, StopOverdue):
                pass

    async def main() -> None:
        scope = trio.CancelScope()
        living = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as auditing:
            with trio.fail_after(LONG):  # also for the operator's words to be answered
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run, scope)
                    await trio.testing.wait_all_tasks_blocked()
                    tree = story.tree
                    assert tree is not None
                    auditing.start_soon(keep_auditing, tree)
                    for order in orders:
                        nursery.start_soon(order.say, tree)
                    await trio.sleep(until)
                    if how == "request":
                        tree.request_stop()
                    elif how == "cancel":
                        tree.cancel()
                    else:
                        scope.cancel()
            auditing.cancel_scope.cancel()
        assert trio.lowlevel.current_statistics().tasks_living == living
        assert [life for life in lives_of(tree.life) if not life.state.ended] == []
        for books in books_of(tree._supervision):
            check_closed(books)

    with ending_within(20):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

"""A supervisor at work: what follows when one of its children starts, is ready, or ends.

Theory. Each run of a child is a task of its own, and nothing but such runs takes tasks: a child
that waits, or is to be started again later, is only a record. All decisions are synchronous code
between two checkpoints, made when something happens to a child: it becomes ready (`became_ready`),
its run ends (`after_run`), or the deadline of its state has come (`reach`). So there are no locks,
and nothing waits that need not.

A child may start when nothing keeps it: its dependencies have passed, and the gates that hold it
are open that hold it together with others. A child is told to stop when all those that come after
it have ended. What is published is true already when it is told.

Where the program is embedded, Ctrl-C raises `KeyboardInterrupt` wherever it happens to be: in a
service that is a request to exit, and here it would leave the books wrong. So all of this is
protected from it, as Trio's own code is; the main task gets it instead, or a service that runs.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from contextvars import copy_context
from typing import TYPE_CHECKING

import trio

from ..lifecycle import (
    Alarms,
    Lifetime,
    State,
    enter_service,
    events,
    graceful,
    set_aside_cancellations,
)
from ..resilience import BreakerState, Circuit, Window
from ..services import Service, run_injected, start
from ._collection import collection_paused, next_steps
from ._deadlines import Deadlines
from ._endings import after_run
from ._outcome import Outcome
from ._record import Readiness, Record, Then
from ._stopping import begin_stop, cancel_all, report_overdue, tell_to_stop
from ._together import Gate

if TYPE_CHECKING:
    from ._child import Child
    from ._supervisor import Supervisor


class Supervision:
    """One run of a supervisor.

    Args:
        spec: the supervisor.
        life: its own lifetime, in the supervisor above it or at the root.
        open_ended: stay until told to stop, also when all children have ended.
        attendants: the names of children that only serve the others: they end with them, and no
            strategy restarts the two together.

    Attributes:
        records: its children by name, in the order in which they were written down.
        running: how many of them run.
        wanted: how many something is still expected of; attendants do not count.
        deadlines: those of the children in their present states.
        window: their restarts, as far as `max_restarts` limits them.
        stopping: whether it stops its children, or has stopped them.
        outcome: what there will be to raise.
    """

    def __init__(
        self,
        spec: Supervisor,
        life: Lifetime,
        *,
        open_ended: bool = False,
        attendants: Collection[str] = (),
    ) -> None:
        self.spec: Supervisor = spec
        self.life: Lifetime = life
        self.attendants: Collection[str] = attendants
        self.records: dict[str, Record] = {}
        self.running: int = 0
        self.deadlines: Deadlines = Deadlines(self.reach)
        self.window: Window = spec.max_restarts.window()
        self.stopping: bool = False
        self.outcome: Outcome = Outcome(life.name)
        self._open_ended = open_ended
        self._task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        self.cancelled = False
        with collection_paused(len(spec.children)):
            for child in spec.children:
                self.make_record(child)
        for name, after in spec.graph.items():
            if after:
                self.records[name].depend_on([self.records[other] for other in after])
        self._unarrived = len(self.records)
        self.wanted: int = len(self.records) - len(attendants)
        life.children = self.records

    def make_record(self, child: Child) -> Record:
        record = self.records[child.name] = Record(child, self.spec, self.life)
        if isinstance(child.service, Service):
            child.service.enlist(record, record.name)
        return record

    @trio.lowlevel.enable_ki_protection
    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the children until all have ended for good, or until a stop.

        Raises: see `Supervisor.run`.

        Cancellation: cancels every child at once, also in its graceful regions. A stop of this
        supervisor's own lifetime stops them in order instead.
        """
        self._task_status = task_status
        self._context = copy_context()
        try:
            # The children's stops are work that a stop of the supervisor has to let finish.
            with graceful():
                async with trio.open_nursery() as around:
                    around.start_soon(self.deadlines.run)
                    if self.life.parent is None:
                        self.life.alarms = alarms = Alarms()
                        around.start_soon(alarms.run)
                    try:
                        await self._run_children()
                    finally:
                        self.deadlines.end()
                        if self.life.alarms is not None:
                            self.life.alarms.end()
                            self.life.alarms = None
        finally:
            # Also when it was cancelled: what failed is not lost.
            self.outcome.raise_what_failed()

    async def _run_children(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._attend)
            with collection_paused(len(self.records)) as paused:
                for record in self.records.values():
                    self.start_if_free(record)
                if paused:
                    await next_steps()
            if not self.records:
                self._task_status.started()
            self._end_if_idle()

    # -- one run of a child ------------------------------------------------------------

    def start_if_free(self, record: Record) -> None:
        """Start a child that waits, and has nothing to wait for."""
        if record.waits_for or record.state is not State.WAITING:
            return
        if self.stopping or self.life.stop_requested:
            return
        record.begin()
        self.running += 1
        record.enter(State.STARTING)
        record.publish(events.ServiceStarting, record.attempt)
        # In the supervisor's own context, and not in that of the task by which it may start now.
        start_soon: Callable[..., None] = self._nursery.start_soon  # too generic to pass on typed
        self._context.run(start_soon, self._run_child, record, name=record.name)

    @trio.lowlevel.enable_ki_protection
    async def _run_child(self, record: Record) -> None:
        record.task = trio.lowlevel.current_task()
        enter_service(record)
        record.readiness = Readiness(record, self)
        if self.life.stop_requested:
            begin_stop(self)
        raised: BaseException | None = None
        try:
            with record.scope:
                if not record.stop_requested:
                    if record.injector is None:
                        running = start(record.child.service, record.readiness)
                    else:
                        running = run_injected(
                            record.child.service, record, record.injector, record.readiness
                        )
                    if not record.readiness:
                        self.deadlines.set(record, trio.current_time() + record.start_within)
                    await _interruptible(running)
        except BaseException as caught:  # noqa: ASYNC103 -- decided below
            if not trio.lowlevel.in_trio_task():
                raise  # the coroutine is thrown away, and nothing runs any more
            raised = caught
        cancelled, error = set_aside_cancellations(raised)
        # Out of the `except`, or the errors of those that it stops would be told as in this one's
        # handling. And without its traceback, which would keep it and this frame alive.
        del raised
        if trio.current_effective_deadline() > -math.inf:
            cancelled = None  # nothing around it is cancelled: the service had kept it
        if cancelled is not None:
            cancel_all(self)
        after_run(self, record, error)
        del error
        if cancelled is not None:
            raise cancelled

    def became_ready(self, record: Record, value: object) -> None:
        """A child said that it is ready."""
        if record.state is not State.STARTING:
            return  # it was told to stop meanwhile
        self.deadlines.clear(record)
        took = record.enter(State.RUNNING)
        record.readied += 1
        record.progressed_at = record.since
        if circuit := record.circuit_in(BreakerState.HALF_OPEN):
            self.deadlines.set(record, record.since + circuit.breaker.healthy_after)
        record.publish(events.ServiceReady, took, value)
        if record.runs and not record.stop_requested:  # who heard of it may have it stopped
            self._pass(record)

    def after_end(self, record: Record) -> None:
        """A child does not run, and will not by itself."""
        if self.stopping or record.then is Then.END:
            if not self.stopping:
                self._pass(record)
            self.retire(record)
        elif record.then is Then.AGAIN:
            self.wait_again(record)
        elif record.then is Then.STAY:
            self.arrive(record)
        else:
            self._forget(record)

    def wait_again(self, record: Record) -> None:
        """Let a child that had ended start as soon as it may."""
        record.then = Then.END
        record.close_way()
        if record.retired:
            record.retired = record.ending = False
            self.wanted += record.child.name not in self.attendants
        record.enter(State.WAITING)
        if circuit := record.circuit_in(BreakerState.OPEN):
            record.enter(State.BACKING_OFF)
            self.deadlines.set(record, circuit.due)
        self.start_if_free(record)

    def retire(self, record: Record) -> None:
        """Nothing is expected of a child any more."""
        if record.retired:
            return
        record.retired = record.ending = True
        record.end()
        self.wanted -= record.child.name not in self.attendants
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        """Stop when nothing more is expected of anybody, unless told to stay."""
        if self.wanted or self._open_ended or self.stopping:
            return
        if self._unarrived:  # those that attend to the others, and need not get ready now
            self._unarrived = 0
            self._task_status.started()
        begin_stop(self)

    def _forget(self, record: Record) -> None:
        """Strike a child that has ended off the books."""
        del self.records[record.child.name]
        record.bow_out()
        self._pass(record)
        self.retire(record)

    def reach(self, record: Record) -> None:
        """The deadline of a child's present state has come."""
        if record.state is State.BACKING_OFF:
            record.enter(State.WAITING)
            if circuit := record.circuit_in(BreakerState.OPEN):
                self.probe(record, circuit)
            self.unhold(record)
            self.start_if_free(record)
        elif record.state is State.RUNNING:
            if circuit := record.circuit_in(BreakerState.HALF_OPEN):
                self.close(record, circuit)  # the probe has been healthy for long enough
        elif record.readiness is not None and record.readiness.time_out():
            now = trio.current_time()
            within = 0.0
            if record.children:  # those that are ready have work in hand, and stop in order
                within = max(0.0, min(record.stop_within, self.life.deadline - now))
                record.request_stop(within)
            else:
                record.scope.cancel()
            self.deadlines.set(record, now + within + self.spec.overdue_after)
        else:
            report_overdue(self, record)

    # -- the breaker of one child ------------------------------------------------------

    def probe(self, record: Record, circuit: Circuit) -> None:
        """Let the next start decide whether an open breaker closes."""
        circuit.probe()
        record.publish(events.BreakerHalfOpened)

    def close(self, record: Record, circuit: Circuit) -> None:
        """A child is healthy again."""
        circuit.close()
        record.publish(events.BreakerClosed)

    # -- what concerns several ---------------------------------------------------------

    def _pass(self, record: Record) -> None:
        """Open the way for those that come after a child."""
        for dependent in record.open_way():
            self.start_if_free(dependent)
        self.arrive(record)

    def arrive(self, record: Record) -> None:
        """The supervisor's own readiness need not wait for a child any more."""
        if not record.arrived:
            record.arrived = True
            self._unarrived -= 1
            if not self._unarrived and not self.stopping:
                self._task_status.started()

    def unhold(self, record: Record) -> None:
        """A child that was to be waited for by those that restart with it need not be."""
        gate, record.opens = record.opens, None
        if gate is not None:
            self.count_down(gate)

    def count_down(self, gate: Gate) -> None:
        for record in gate.count_down():
            self.start_if_free(record)

    def release(self, record: Record) -> None:
        """Those that a child comes after need not stay for its sake."""
        for dependency in record.release():
            if dependency.to_stop:
                tell_to_stop(self, dependency)

    # -- stopping ----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _attend(self) -> None:
        """Stop the children when told to; cancel them when cancelled."""
        try:
            await self.life.wait_stop_requested()
            with collection_paused(self.running) as paused:
                begin_stop(self)
                if paused:
                    await next_steps()
            await trio.sleep_forever()
        finally:
            cancel_all(self)

    def finish(self) -> None:
        """Nobody is left: end what attends to the children."""
        self._nursery.cancel_scope.cancel()


@trio.lowlevel.disable_ki_protection
async def _interruptible(running: Awaitable[object]) -> None:
    """Let a service be interrupted by Ctrl-C, which the supervisor around it is not."""
    made = await running
    if made is not None and isinstance(made, Service):
        raise TypeError(f"{made!r} was made by an async function: a factory is a plain function")

"""A supervisor at work: one task for each child, and the books that they share.

Theory. Every child has a task of its own, which waits for its turn, runs the service, and decides
after each run whether and when to run it again. What concerns more than one child is synchronous
code between two checkpoints: a child that becomes ready opens the way for those after it
(`_pass`), one that has ended lets its dependencies stop (`_end`), and a supervisor that is told to
stop, or gives up, tells those first that nobody comes after (`begin_stop`). So there are no locks,
and nothing waits that need not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import trio

from ..errors import (
    Failure,
    RestartLimitExceeded,
    StartFailed,
    StartTimeout,
    StopFailed,
)
from ..lifecycle import (
    Lifetime,
    State,
    asks_for_exit,
    enter_service,
    events,
    graceful,
    set_aside_cancellations,
    summarize,
)
from ..services import Service, start
from ._child import Child
from ._overdue import OverdueWatch
from ._plan import stop_within
from ._record import Readiness, Record
from ._restarts import Repetitions, Window
from ._stack import stack_of

if TYPE_CHECKING:
    from ._supervisor import Supervisor

OVERDUE_AFTER = 1.0
"""Seconds past its deadline after which a service that is still there is reported."""

_FAILURES_TOLD = 6


class Supervision:
    """One run of a supervisor.

    Args:
        spec: the supervisor.
        life: its own lifetime, in the supervisor above it or at the root.
        open_ended: stay until told to stop, also when all children have ended.
        attendants: the names of children that only serve the others, and end with them.
    """

    def __init__(
        self,
        spec: Supervisor,
        life: Lifetime,
        *,
        open_ended: bool = False,
        attendants: Collection[str] = (),
    ) -> None:
        self._spec = spec
        self._life = life
        self._open_ended = open_ended
        self._task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        self._stopping = False
        self._window = Window(spec.max_restarts)
        self._failures: deque[Failure] = deque(maxlen=_FAILURES_TOLD)
        self._stop_failures: list[Failure] = []
        self._reason = ""  # why it gave up, if it did
        self._cause: BaseException | None = None
        self._overdue = OverdueWatch(self._name)
        self._records = {child.name: self._make_record(child) for child in spec.children}
        for record in self._records.values():
            for name in record.child.after:
                dependency = self._records[name]
                record.dependencies.append(dependency)
                dependency.dependents.append(record)
                dependency.live_dependents += 1
        self._unready = self._live = len(self._records)
        self._attendants = attendants
        self._wanted = self._live - len(attendants)  # live children that are no attendants
        life.children = {name: record.life for name, record in self._records.items()}

    def _make_record(self, child: Child) -> Record:
        life = Lifetime(
            f"{self._life.name}/{child.name}",
            self._life.bus,
            critical=child.critical,
            parent=self._life,
        )
        if isinstance(child.service, Service):
            child.service.enlist(life, life.name)
        repetitions = Repetitions(child.backoff or self._spec.backoff)
        return Record(child, life, repetitions, waits_for=len(child.after))

    @property
    def stopping(self) -> bool:
        """Whether it stops its children, or has stopped them."""
        return self._stopping

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the children until all have ended for good, or until a stop.

        Raises: see `Supervisor.run`.

        Cancellation: cancels every child at once, also in its graceful regions. A stop of this
        supervisor's own lifetime stops them in order instead.
        """
        self._task_status = task_status
        try:
            # The children's stops are work that a stop of the supervisor has to let finish.
            with graceful():
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._attend)
                    self._nursery.start_soon(self._overdue.run)
                    for record in self._records.values():
                        self._nursery.start_soon(self._run_child, record, name=record.life.name)
                    if not self._records:
                        task_status.started()
                    if not self._wanted and not self._open_ended:
                        self._begin_stop()
        finally:
            # Also when it was cancelled: what failed is not lost.
            self._raise_what_failed()

    # -- one child ---------------------------------------------------------------------

    async def _run_child(self, record: Record) -> None:
        life = record.life
        life.task = trio.lowlevel.current_task()
        enter_service(life)
        try:
            with life.scope:
                while record.waits_for:
                    record.turn = trio.Event()
                    await record.turn.wait()
                # A stop may come in the very moment in which a wait is over.
                while not (self._stopping or self._life.stop_requested or life.stop_requested):
                    delay = await self._run_once(record)
                    if delay is None:
                        return
                    life.enter(State.BACKING_OFF)
                    life.publish(events.ServiceRestarting(life.name, delay, life.attempt))
                    await trio.sleep(delay)
        finally:
            self._end(record)

    async def _run_once(self, record: Record) -> float | None:
        """One run of a child; returns the seconds until the next, or None: it was the last."""
        life = record.life
        life.attempt += 1
        life.enter(State.STARTING)
        life.publish(events.ServiceStarting(life.name, life.attempt))
        if life.stop_requested:
            return None
        readiness = record.readiness = Readiness(record, self._became_ready)
        try:
            running = start(record.child.service, readiness)
            if readiness:
                await running
            else:
                within = record.child.start_within or self._spec.start_within
                self._overdue.expect(record, trio.current_time() + within + OVERDUE_AFTER)
                with trio.move_on_after(within) as readiness.scope:
                    await running
                if readiness.scope.cancelled_caught:
                    raise StartTimeout(life.name, within)
                if not readiness and not life.stop_requested:
                    raise StartFailed(life.name, "returned before task_status.started()")
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as raised:  # noqa: BLE001 -- what it means is decided in one place
            return self._after_failure(record, raised)
        finally:
            record.readiness = None
        return self._after_return(record)

    def _after_return(self, record: Record) -> float | None:
        life = record.life
        if not life.stop_requested:
            life.publish(events.ServiceReturned(life.name, trio.current_time() - life.since))
        if life.stop_requested:
            return None
        if (record.child.restart or self._spec.restart) != "always":
            life.enter(State.DONE)
            return None
        return self._restart_delay(record)

    def _after_failure(self, record: Record, raised: BaseException) -> float | None:
        life = record.life
        cancelled, error = set_aside_cancellations(raised)
        if error is None:
            raise raised
        failure = life.failure = summarize(life.name, error)
        stopping = life.stop_requested or cancelled is not None
        if asks_for_exit(error):
            life.enter(State.FAILED)
            self._give_up(f"{life.name} raised {failure.type}", error)
        else:
            self._failures.append(failure)
            life.publish(events.ServiceFailed(life.name, failure, error, stopping))
            if stopping or life.stop_requested:  # or the one who heard of it told it to
                life.enter(State.FAILED)
                self._stop_failures.append(failure)
        if cancelled is not None:
            raise cancelled
        if life.state is State.FAILED:
            return None
        if (record.child.restart or self._spec.restart) == "never":
            life.enter(State.FAILED)
            if life.critical:
                self._give_up(f"{life.name} is critical and not restarted", error)
            return None
        return self._restart_delay(record, error)

    def _restart_delay(self, record: Record, error: BaseException | None = None) -> float | None:
        """Seconds until the next start; None: that would be one too many."""
        life = record.life
        now = trio.current_time()
        if not self._window.count(now):
            life.enter(State.FAILED)
            limit = self._spec.max_restarts
            self._give_up(f"more restarts than max_restarts allows ({limit})", error)
            return None
        return record.repetitions.next_delay(now - life.since if life.state is State.RUNNING else 0)

    # -- what concerns several ---------------------------------------------------------

    def _became_ready(self, record: Record, value: object) -> None:
        """A child said that it is ready."""
        life = record.life
        if life.state is not State.STARTING:
            return  # it was told to stop meanwhile
        took = trio.current_time() - life.since
        life.enter(State.RUNNING)
        life.progress()
        life.publish(events.ServiceReady(life.name, took, value))
        self._pass(record)

    def _pass(self, record: Record) -> None:
        """Open the way for those that come after a child."""
        if record.passed:
            return
        record.passed = True
        for dependent in record.dependents:
            dependent.waits_for -= 1
            if not dependent.waits_for and dependent.turn is not None:
                dependent.turn.set()
        self._unready -= 1
        if not self._unready and not self._stopping:
            self._task_status.started()

    def _end(self, record: Record) -> None:
        """A child has ended for good."""
        life = record.life
        if life.state in (State.DONE, State.FAILED):
            if not self._stopping:
                self._pass(record)
        else:
            if life.state in (State.STARTING, State.RUNNING):
                life.enter(State.STOPPING)  # it was cancelled before it was told to stop
                life.publish(events.ServiceStopping(life.name, 0.0))
            told = life.since
            was_entered = life.state is State.STOPPING
            life.enter(State.STOPPED)
            if was_entered:
                life.publish(events.ServiceStopped(life.name, trio.current_time() - told))
        life.task = None
        life.end()
        self._release(record)
        self._live -= 1
        self._wanted -= record.child.name not in self._attendants
        if not self._wanted and not self._open_ended:
            self._begin_stop()
        if not self._live and self._stopping:
            self._finish()

    def _release(self, record: Record) -> None:
        """Those that a child comes after need not stay for its sake."""
        if record.released:
            return
        record.released = True
        for dependency in record.dependencies:
            dependency.live_dependents -= 1
            if self._stopping and not dependency.live_dependents:
                self._tell_to_stop(dependency)

    # -- stopping ----------------------------------------------------------------------

    async def _attend(self) -> None:
        """Stop the children when told to; cancel them when cancelled."""
        try:
            await self._life.wait_stop_requested()
            self._begin_stop()
            await trio.sleep_forever()
        finally:
            self._cancel()

    def _give_up(self, reason: str, cause: BaseException | None) -> None:
        """Stop all children, and fail then; an exit that was asked for outweighs other reasons."""
        if self._reason and not (cause is not None and asks_for_exit(cause)):
            return
        self._reason, self._cause = reason, cause
        if cause is None or not asks_for_exit(cause):
            failures = tuple(self._failures)
            self._life.publish(events.SupervisorGaveUp(self._life.name, reason, failures))
        self._begin_stop()

    def _raise_what_failed(self) -> None:
        cause, self._cause = self._cause, None
        if cause is not None and asks_for_exit(cause):
            raise cause
        if self._reason:
            raise RestartLimitExceeded(
                self._life.name, self._reason, tuple(self._failures)
            ) from cause
        if self._stop_failures:
            raise StopFailed(self._life.name, tuple(self._stop_failures))

    def _begin_stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._life.publish(events.SupervisorStopping(self._life.name))
        for record in self._records.values():
            # Who is not running yet, or not now, need not wait for those after it.
            idle = record.life.state in (State.WAITING, State.BACKING_OFF)
            if idle or not record.live_dependents:
                self._tell_to_stop(record)
        if not self._live:
            self._finish()

    def _finish(self) -> None:
        """Nobody is left: end what attends to the children."""
        self._overdue.end()
        self._nursery.cancel_scope.cancel()

    def _tell_to_stop(self, record: Record) -> None:
        life = record.life
        if life.state.ended:
            return
        within = stop_within(record.child, self._spec.stop_within)
        within = max(0.0, min(within, self._life.deadline - trio.current_time()))
        if life.state in (State.STARTING, State.RUNNING):
            life.enter(State.STOPPING)
            life.publish(events.ServiceStopping(life.name, within))
        life.request_stop(within)
        self._overdue.expect(record, trio.current_time() + within + OVERDUE_AFTER)

    def _cancel(self) -> None:
        """Cancel every child that is still there, at once and all together."""
        self._stopping = True
        for record in self._records.values():
            if not record.life.state.ended:
                record.life.cancel()
                self._overdue.expect(record, trio.current_time() + OVERDUE_AFTER)
        if not self._live:
            self._finish()

    def _name(self, record: Record) -> None:
        """Publish an overdue child once, and go on without it.

        Of a supervisor, those below it that are at fault are published by itself.
        """
        life = record.life
        now = trio.current_time()
        scope = record.readiness.scope if record.readiness is not None else None
        # Not just past its deadline, which a start's expectation may meet by chance; sums of floats
        # are a hair off.
        ignores_stop = now - life.deadline > OVERDUE_AFTER * 0.999
        ignores_start_time_out = scope is not None and scope.cancel_called
        if life.state.ended or record.named or not (ignores_stop or ignores_start_time_out):
            return
        record.named = True
        self._release(record)
        if any(not below.state.ended for below in life.children.values()):
            return
        stack = stack_of(life.task) if life.task is not None else ""
        overdue = now - life.deadline if ignores_stop else OVERDUE_AFTER
        life.publish(events.ServiceOverdue(life.name, overdue, stack))

"""How the children of a supervisor are stopped, cancelled, and named if they ignore that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import StopOverdue
from ..lifecycle import State, events
from ._record import Record, Then
from ._stack import stack_of

if TYPE_CHECKING:
    from ._supervision import Supervision


def give_up(supervision: Supervision, reason: str, cause: BaseException | None) -> None:
    """Stop all children, and fail then."""
    if supervision.outcome.give_up(reason, cause):
        failures = tuple(supervision.outcome.failures)
        supervision.life.publish(events.SupervisorGaveUp, reason, failures)
    begin_stop(supervision)


def begin_stop(supervision: Supervision) -> None:
    """Stop all children, those first that nobody comes after; again, it changes nothing."""
    if supervision.stopping:
        return
    supervision.stopping = True
    supervision.life.publish(events.SupervisorStopping)
    running: list[Record] = []
    for record in supervision.records.values():
        if record.runs:
            record.to_stop = True
            running.append(record)
        else:
            if not record.state.ended:
                supervision.deadlines.clear(record)
                record.enter(State.STOPPED)
            supervision.retire(record)
    for record in running:
        if not record.busy_dependents:
            tell_to_stop(supervision, record)
    if not supervision.running:
        supervision.finish()


def tell_to_stop(supervision: Supervision, record: Record) -> None:
    """Give a child that runs its time to stop, or less when it was told already."""
    if not record.runs:
        return
    now = trio.current_time()
    within = max(0.0, min(record.stop_within, supervision.life.deadline - now))
    when = now + within + supervision.spec.overdue_after
    ignored = record.readiness is not None and record.readiness.timed_out
    if record.state is State.STOPPING or ignored:
        when = min(when, record.due)
    record.ending = supervision.stopping or record.then is Then.LEAVE
    if record.state is not State.STOPPING:
        was_ready = record.state is State.RUNNING
        ran = record.enter(State.STOPPING)
        if was_ready:
            record.was_ready_for(ran)
        record.publish(events.ServiceStopping, within)
    record.request_stop(within)
    if not record.overdue:
        supervision.deadlines.set(record, when)


def cancel_all(supervision: Supervision) -> None:
    """Cancel every child that is still there, at once and all together."""
    if supervision.cancelled:
        return
    supervision.cancelled = True
    begin_stop(supervision)
    for record in supervision.records.values():
        if record.runs:
            tell_to_stop(supervision, record)
            record.cancel()
            when = trio.current_time() + supervision.spec.overdue_after
            if when < record.due and not record.overdue:
                supervision.deadlines.set(record, when)


def report_overdue(supervision: Supervision, record: Record) -> None:
    """Publish a child that ignores its cancellation, and go on without it.

    Of a supervisor, those below it that are at fault are published by itsupervision.
    """
    record.overdue = True
    supervision.release(record)
    if any(not below.state.ended for below in record.children.values()):
        return
    overdue = max(trio.current_time() - record.deadline, supervision.spec.overdue_after)
    stack = stack_of(record.task) if record.task is not None else ""
    if supervision.stopping:
        supervision.outcome.overdue(StopOverdue(record.name, overdue, stack))
    record.publish(events.ServiceOverdue, overdue, stack)

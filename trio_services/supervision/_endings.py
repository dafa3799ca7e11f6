"""How a run of a child ends, and what follows: nothing, another start, or the end of all of them.

A return or a failure is published first, and whoever hears of it may have the child stopped, or
its supervisor; so that is asked again afterwards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ..lifecycle import State, asks_for_exit, events, summarize
from ..resilience import BreakerState
from ._record import Record, Then
from ._stopping import give_up, tell_to_stop
from ._together import take_down

if TYPE_CHECKING:
    from ._supervision import Supervision


def after_run(supervision: Supervision, record: Record, error: BaseException | None) -> None:
    """A run of a child has ended, by an error or without one."""
    ran = trio.current_time() - record.since if record.state is State.RUNNING else 0.0
    record.was_ready_for(ran)
    readiness, record.readiness, record.task = record.readiness, None, None
    gates, record.awaited_by = record.awaited_by, None
    supervision.running -= 1
    if error is None and readiness is not None and record.state is not State.STOPPING:
        error = readiness.error()
    delay = None
    if error is not None:
        delay = _after_failure(supervision, record, error)
    elif record.state is not State.STOPPING:
        delay = _after_return(supervision, record, ran)
    supervision.deadlines.clear(record)
    if delay is None and not record.state.ended:
        _stopped(record)
    supervision.release(record)
    if delay is not None:
        _restart(supervision, record, delay)
    else:
        supervision.after_end(record)
    for gate in gates or ():
        supervision.count_down(gate)
    if supervision.stopping and not supervision.running:
        supervision.finish()


def _after_return(supervision: Supervision, record: Record, ran: float) -> float | None:
    """A child returned by itself: seconds until it is started again, or None."""
    if circuit := record.circuit_in(BreakerState.HALF_OPEN):
        supervision.close(record, circuit)  # a probe that ends in good order was healthy
    record.publish(events.ServiceReturned, ran)
    if record.state is State.STOPPING:  # by who heard of it
        return None
    if record.restart != "always" or supervision.stopping:
        record.enter(State.DONE)
        return None
    delay = record.remember().after_return(trio.current_time(), supervision.window)
    if delay is None:
        _restarted_too_often(supervision, record, None)
    return delay


def _after_failure(supervision: Supervision, record: Record, error: BaseException) -> float | None:
    """A child failed: seconds until it is started again, or None."""
    failure = record.failure = summarize(record.name, error)
    if asks_for_exit(error):
        record.enter(State.FAILED)
        give_up(supervision, f"{record.name} raised {failure.type}", error)
        return None
    supervision.outcome.failures.append(failure)
    record.publish(events.ServiceFailed, failure, error, record.state is State.STOPPING)
    if record.state is State.STOPPING:  # perhaps by who heard of it
        record.enter(State.FAILED)
        if supervision.stopping:
            supervision.outcome.failed_at_stop(failure, error)
        return None
    if record.on_trial and not supervision.stopping:  # who began the change decides what follows
        record.enter(State.FAILED)
        record.then = Then.STAY
        return None
    if record.restart == "never" or not (record.child.retry_start or record.readied):
        _fail_for_good(record)
        if record.critical:
            give_up(supervision, f"{record.name} is critical and not restarted", error)
        return None
    if supervision.stopping:  # it was not told yet, because others need it until they have stopped
        _fail_for_good(record)
        return None
    restarts = record.remember()
    circuit = restarts.circuit
    opened = circuit.opened if circuit is not None else 0
    delay = restarts.after_failure(trio.current_time(), supervision.window)
    if circuit is None:
        if delay is None:
            _restarted_too_often(supervision, record, error)
    elif delay is None:
        _fail_for_good(record)
        record.publish(events.BreakerGaveUp, opened)
        if record.critical:
            give_up(supervision, f"{record.name} is critical, and its breaker gave up", error)
    return delay


def _fail_for_good(record: Record) -> None:
    record.enter(State.FAILED)
    record.then = Then.END  # also if it was about to be stopped, for another start


def _restarted_too_often(
    supervision: Supervision, record: Record, error: BaseException | None
) -> None:
    _fail_for_good(record)
    limit = supervision.spec.max_restarts
    give_up(supervision, f"more restarts than max_restarts allows ({limit})", error)


def _restart(supervision: Supervision, record: Record, delay: float) -> None:
    """Start a child again in `delay` seconds, with those that its strategy says."""
    record.enter(State.BACKING_OFF)
    record.close_way()
    if delay:
        supervision.deadlines.set(record, record.since + delay)
    take_down(supervision, record)
    if circuit := record.circuit_in(BreakerState.OPEN):
        record.publish(events.BreakerOpened, circuit.opened, delay)
        if not record.critical:
            supervision.arrive(record)  # the rest does without it
    record.publish(events.ServiceRestarting, delay, record.attempt)
    if not delay and record.due == math.inf:  # who heard of it may have tripped its breaker
        supervision.reach(record)


def _stopped(record: Record) -> None:
    """A child has ended because it was told to."""
    if record.state is not State.STOPPING:  # by itself
        record.enter(State.STOPPING)
        record.publish(events.ServiceStopping, 0.0)
    took = record.enter(State.STOPPED)
    record.publish(events.ServiceStopped, took)


def end(supervision: Supervision, record: Record, then: Then) -> None:
    """Stop a child if it runs, whoever comes after it, and do then what is said."""
    if supervision.records.get(record.child.name) is not record or record.then is Then.LEAVE:
        return  # it is removed, or about to be
    record.then = then
    if record.runs:
        record.close_way()
        tell_to_stop(supervision, record)
        return
    again = then is Then.AGAIN
    if record.state is State.BACKING_OFF:
        supervision.deadlines.clear(record)
        if again:
            supervision.reach(record)
            return
        supervision.unhold(record)
    elif again and (circuit := record.circuit_in(BreakerState.OPEN)):
        supervision.probe(record, circuit)
    if not record.state.ended:
        if again:
            return  # it waits already
        record.enter(State.STOPPED)
    supervision.after_end(record)

"""A change of several children of a running supervisor at once: all of it, or an error.

Theory. The children that the change removes or starts anew are stopped first, those that come after
others before them, as at a stop of the whole. Then, in one step, the graph is made the new one, and
what is new is started in its order. Each has one attempt, and has to go on for a while: before
that, it is no question of its policy whether a failure means another start, or the end of the
application. So a change that fails leaves children that are down, and can be undone by another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from ..errors import PlanError, ServicesError, StartFailed, UnknownService
from ..lifecycle import State
from ..services import Service
from ._child import Child
from ._endings import end
from ._injection import check_injection
from ._plan import check_budget
from ._record import Record, Then

if TYPE_CHECKING:
    from ._supervision import Supervision
    from ._supervisor import Supervisor


@attrs.frozen
class Change:
    """What is to become of some children.

    Args:
        start: children that are new, or that are started anew as these say.
        remove: the names of those that are stopped and forgotten.
        amend: children that go on as they run, and are started as these say the next time; what
            their policies say holds from now on.
        probation: seconds after which one that is started, and ready, is no longer on trial; ≥ 0.
            None: none is on trial at all.
    """

    start: Sequence[Child] = ()
    remove: Collection[str] = ()
    amend: Sequence[Child] = ()
    probation: float | None = 0.0


def changed_spec(supervision: Supervision, change: Change) -> Supervisor:
    """The supervisor as the change makes it.

    Raises:
        PlanError: it could not be run.
        UnknownService: there is none to remove or to amend.
    """
    spec = supervision.spec
    if spec.strategy != "one_for_one":
        raise PlanError(f"{spec.name} is {spec.strategy}, and cannot be changed while it runs")
    children = {name: record.child for name, record in supervision.records.items()}
    for name in (*change.remove, *(child.name for child in change.amend)):
        if name not in children:
            raise UnknownService(f"{spec.name} has no service {name!r}")
    for child in change.amend:
        if child.after != children[child.name].after:
            raise PlanError(f"{child.name} has to start anew to come after others")
    children |= {child.name: child for child in (*change.amend, *change.start)}
    kept = [child for name, child in children.items() if name not in change.remove]
    return attrs.evolve(spec, children=kept)


async def make_change(supervision: Supervision, change: Change, budget: float) -> None:
    """Make a change; see `Control.change`."""
    spec = changed_spec(supervision, change)
    check_budget(spec.name, spec.worst_stop, budget)
    if supervision.life.injector is not None:
        check_injection(supervision.life.injector, [child.service for child in change.start])
    _check_going_on(supervision)
    records = supervision.records
    names = [child.name for child in change.start]
    await _stop(supervision, [records[n] for n in (*change.remove, *names) if n in records])
    _check_going_on(supervision)
    started = _rewire(supervision, change)
    if not started:
        return
    try:
        within = spec.worst_start + spec.overdue_after
        await _start(supervision, started, within, change.probation or 0.0)
    finally:
        for record in started:
            record.on_trial = False


def _check_going_on(supervision: Supervision) -> None:
    if supervision.life.stop_requested or supervision.stopping:
        raise ServicesError(f"{supervision.life.name} is stopping, and cannot be changed")


async def _stop(supervision: Supervision, records: Sequence[Record]) -> None:
    """Stop some children, each when those of them have ended that come after it."""
    left = dict.fromkeys(records)
    while left:
        free = [one for one in left if not any(one in other.dependencies for other in left)]
        for record in free:
            end(supervision, record, Then.STAY)
        for record in free:
            while record.runs and supervision.records.get(record.child.name) is record:
                await record.wait_changed()
            del left[record]
    await trio.lowlevel.checkpoint()


def _rewire(supervision: Supervision, change: Change) -> list[Record]:
    """Make the graph the new one; those that are to be started. All of it in one step."""
    records = supervision.records
    started: list[Record] = []
    for child in change.start:
        if (record := records.get(child.name)) is None:
            record = supervision.make_record(child)
            record.arrived = True  # the supervisor's own readiness does not wait for it
            supervision.wanted += 1
        else:
            _become(record, child)
        record.on_trial = change.probation is not None
        started.append(record)
    for child in change.amend:
        _become(records[child.name], child)
    for name in change.remove:
        end(supervision, records[name], Then.LEAVE)
    for record in started:
        record.come_after([records[name] for name in record.child.after])
    return started


def _become(record: Record, child: Child) -> None:
    """Let a record be of another child from now on."""
    before, record.child = record.child, child
    record.critical = child.critical
    if (before.backoff, before.breaker) != (child.backoff, child.breaker):
        record.restarts = None  # its memory is of other rules
    if isinstance(child.service, Service):
        child.service.enlist(record, record.name)


async def _start(
    supervision: Supervision, started: Sequence[Record], within: float, probation: float
) -> None:
    """Start what is new, and return when all is ready and has proved itself.

    Raises:
        StartFailed: one is not, or has not; the others are left as they are.
    """
    readied = {record: record.readied for record in started}

    def is_ready(record: Record) -> bool:
        return record.readied > readied[record] or record.state is State.DONE

    for record in started:
        record.failure = None
        if record.state is State.WAITING:
            supervision.start_if_free(record)
        else:
            end(supervision, record, Then.AGAIN)
    one_failed = trio.Event()
    all_ready = trio.Event()

    async def watch(record: Record) -> None:
        while not _failed(record):
            if all(map(is_ready, started)):
                all_ready.set()
            await record.wait_changed()
        one_failed.set()
        all_ready.set()

    async with trio.open_nursery() as nursery:
        for record in started:
            nursery.start_soon(watch, record)
        with trio.move_on_after(within):
            await all_ready.wait()
        if all_ready.is_set():
            with trio.move_on_after(probation):
                await one_failed.wait()
        nursery.cancel_scope.cancel()
    failed = [record for record in started if _failed(record)]
    if at_fault := failed or [record for record in started if not is_ready(record)]:
        raise StartFailed(at_fault[0].name, _why(at_fault[0]))


def _failed(record: Record) -> bool:
    # One that is not on trial may be about to start once more.
    return record.failure is not None or (record.state.ended and record.state is not State.DONE)


def _why(record: Record) -> str:
    if record.failure is not None:
        return f"failed when it was started anew: {record.failure.type}: {record.failure.message}"
    if _failed(record):
        return "was stopped"
    waits = [one.name for one in record.dependencies if not one.passed]
    return f"waits for {' and '.join(waits)}" if waits else "was not ready in time"

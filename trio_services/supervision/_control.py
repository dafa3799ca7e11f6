"""What an operator, or the program itself, can say to a running tree."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import trio

from ..errors import PlanError, ServicesError, StartFailed, UnknownService
from ..lifecycle import Health, Lifetime, State, events
from ..queues import Pool
from ..resilience import BreakerState, Circuit
from ..services import AnyService
from ._change import Change, make_change
from ._child import Child
from ._endings import end
from ._injection import check_injection
from ._plan import check_budget, longest_path, problems_of, stop_within
from ._record import Record, Then
from ._statistics import ServiceStatistics, ask, take
from ._supervision import Supervision
from ._supervisor import as_child


class Control:
    """Looks at the services of a running tree, and starts and stops them one by one.

    A path is that of a service below the root, with or without the root's name: ``app/db`` or
    ``db``, ``app/reports/daily`` or ``reports/daily``.

    Args:
        supervision: of the root.
        stop_within: seconds that the stop of the whole tree may take.

    Attributes:
        life: the root's lifetime, with those of its children below it.
        stop_within: see above.
    """

    def __init__(self, supervision: Supervision, stop_within: float) -> None:
        self._supervision = supervision
        self.life: Lifetime = supervision.life
        self.stop_within: float = stop_within

    def statistics(self) -> ServiceStatistics:
        """What there is to know of all services now."""
        return take(self.life, trio.current_time())

    async def health(self, *, within: float = 5.0) -> Health:
        """How well all is: the worst of what the services and their supervisors say.

        Args:
            within: seconds that each service has to answer; ≥ 0.

        Cancellation: at once.
        """
        return await ask(self.life, within)

    @trio.lowlevel.enable_ki_protection
    async def start(self, child: Child | AnyService, *, under: str = "") -> None:
        """Take on one more service; return when it is ready, or has done its work.

        It is a child like any other from then on, until it is removed or the supervisor that it
        is under ends: if that is restarted, it begins with the children that it was written with.

        Args:
            child: what to start.
            under: the path of the supervisor. Default: the root.

        Raises:
            PlanError: it cannot be run with the others, or would take longer to stop than there
                is time.
            StartFailed: it has ended for good without having been ready, and is removed again.
            UnknownService: no supervisor with this path runs.

        Cancellation: it is removed again.
        """
        await trio.lowlevel.checkpoint()
        supervision = self._supervision_of(under) if under else self._supervision
        child = as_child(child)
        self._check(supervision, child)
        after = [supervision.records[name] for name in _after(supervision, child)]
        record = supervision.make_record(child)
        record.arrived = True  # the supervisor's own readiness does not wait for it
        record.depend_on(after)
        supervision.wanted += 1
        supervision.start_if_free(record)
        try:
            await self._wait_ready(record)
        except (trio.Cancelled, StartFailed):
            end(supervision, record, Then.LEAVE)
            raise

    @trio.lowlevel.enable_ki_protection
    async def stop(self, path: str) -> None:
        """Stop a service; return when it has ended. It stays down until it is restarted.

        Those that come after it are not stopped, but wait for it if they have to start again.

        Raises:
            UnknownService: there is none with this path.

        Cancellation: the stop goes on.
        """
        await trio.lowlevel.checkpoint()
        supervision, record = self._find(path)
        end(supervision, record, Then.STAY)
        await _wait_run_ended(record)

    @trio.lowlevel.enable_ki_protection
    async def restart(self, path: str) -> None:
        """Stop a service if it runs, and start it; return when it is ready.

        One that waits for its backoff, or an open breaker, starts at once. It does not count
        toward `max_restarts`.

        Raises:
            StartFailed: it has ended for good without having been ready.
            UnknownService: there is none with this path.

        Cancellation: the restart goes on.
        """
        await trio.lowlevel.checkpoint()
        supervision, record = self._find(path)
        if supervision.stopping:
            raise ServicesError(f"{supervision.life.name} is stopping, and cannot restart {path}")
        if record.then is Then.LEAVE:
            raise ServicesError(f"{record.name} is being removed, and cannot be restarted")
        readied = record.readied
        end(supervision, record, Then.AGAIN)
        await self._wait_ready(record, readied)

    @trio.lowlevel.enable_ki_protection
    async def remove(self, path: str) -> None:
        """Stop a service, and forget it; return when it has ended.

        Raises:
            PlanError: others come after it.
            UnknownService: there is none with this path.

        Cancellation: the removal goes on.
        """
        await trio.lowlevel.checkpoint()
        supervision, record = self._find(path)
        for other in record.dependents or ():
            if record.child.name in other.child.after:
                raise PlanError(
                    f"{record.name} cannot be removed: {other.name} comes after it; "
                    "remove that first"
                )
        end(supervision, record, Then.LEAVE)
        await _wait_run_ended(record)

    @trio.lowlevel.enable_ki_protection
    async def change(self, change: Change) -> None:
        """Add, remove, replace and amend children of the root, together; return when all is ready.

        What is to end is stopped first, those that come after others before them; then what is new
        is started. Each of these has one attempt. After an error they are down, or as the change
        says, until another change undoes it.

        Raises:
            PlanError: before anything is done, when the tree could not be run like that.
            ServicesError: the tree is stopping.
            StartFailed: something new has ended without having been ready, or waits in vain.
            UnknownService: before anything is done, when there is none to remove or to amend.

        Cancellation: what was begun goes on.
        """
        await make_change(self._supervision, change, self.stop_within)

    def resize(self, path: str, count: int) -> None:
        """Give a running pool of workers another number of them, until it is started again.

        Those that are too many finish what they have in hand.

        Raises:
            ServicesError: it is no pool of workers, or is not running.
            UnknownService: there is none with this path.
            ValueError: the number is not at least 1.
        """
        _, record = self._find(path)
        pool: Any = record.at_work
        running = record.state is State.RUNNING
        if not isinstance(pool, Pool) or not running or record.task is None:
            what = "has no workers" if running else f"is {record.state.replace('_', ' ')}"
            raise ServicesError(f"{record.name} {what}: there is nothing to resize")
        # In the pool's own context: more workers are tasks, and belong to it and not to the caller.
        record.task.context.copy().run(pool.resize, count)

    @trio.lowlevel.enable_ki_protection
    def trip(self, path: str) -> None:
        """Open the breaker of a service, as too many failures would; stop it if it runs.

        Those that are restarted together with it are not touched.

        Raises:
            ServicesError: it has no breaker.
            UnknownService: there is none with this path.
        """
        supervision, record = self._find(path)
        circuit = _circuit(record)
        if circuit.given_up:
            return  # it is open for ever
        now = trio.current_time()
        circuit.trip(now)
        record.publish(events.BreakerOpened, circuit.opened, circuit.due - now)
        if record.runs and record.state is not State.STOPPING:
            end(supervision, record, Then.AGAIN)
        elif record.state is State.WAITING:
            record.enter(State.BACKING_OFF)
        if record.state is State.BACKING_OFF:
            supervision.deadlines.set(record, circuit.due)

    @trio.lowlevel.enable_ki_protection
    def reset(self, path: str) -> None:
        """Close the breaker of a service; if that is what it waits for, it starts at once.

        One that its breaker has given up stays down; `restart` it.

        Raises:
            ServicesError: it has no breaker.
            UnknownService: there is none with this path.
        """
        supervision, record = self._find(path)
        circuit = _circuit(record)
        before = circuit.state
        if before is BreakerState.CLOSED:
            return
        supervision.close(record, circuit)
        if before is BreakerState.OPEN and record.state is State.BACKING_OFF:
            supervision.deadlines.clear(record)
            supervision.reach(record)
        elif before is BreakerState.HALF_OPEN and record.state is State.RUNNING:
            supervision.deadlines.clear(record)

    def _find(self, path: str) -> tuple[Supervision, Record]:
        """The record with a path, and the supervision that it belongs to."""
        names = path.split("/")
        if len(names) > 1 and names[0] == self.life.name:
            try:
                return _walk(self._supervision, names[1:])
            except UnknownService:
                if names[0] not in self._supervision.records:
                    raise
        return _walk(self._supervision, names)

    def _supervision_of(self, path: str) -> Supervision:
        if path == self.life.name:
            return self._supervision
        return _below(self._find(path)[1])

    def _check(self, supervision: Supervision, child: Child) -> None:
        """Refuse one more child that cannot be run together with those that are there."""
        life = supervision.life
        if life.stop_requested or supervision.stopping:
            raise ServicesError(f"{life.name} is stopping, and cannot start {child.name}")
        records = supervision.records
        if child.name in records:
            raise PlanError(f"{life.name} has a child named {child.name!r} already; give it name=")
        if problems := problems_of(life.name, child, records.keys()):
            raise PlanError("\n".join(problems))
        if life.injector is not None:
            check_injection(life.injector, [child.service])
        for name in child.after:
            if records[name].then is Then.LEAVE:
                raise PlanError(f"{life.name}/{child.name} comes after {name}, which is removed")
        # The longest way from the one more down to those that stop last.
        within = {child.name: stop_within(child, supervision.spec.stop_within)}
        graph: dict[str, list[str]] = {child.name: list(_after(supervision, child))}
        todo = [records[name] for name in graph[child.name]]
        while todo:
            record = todo.pop()
            if record.child.name not in graph:
                within[record.child.name] = record.stop_within
                graph[record.child.name] = [one.child.name for one in record.dependencies]
                todo += record.dependencies
        budget = life.stop_within if isinstance(life, Record) else self.stop_within
        check_budget(f"{life.name} with {child.name}", longest_path(within, graph), budget)

    async def _wait_ready(self, record: Record, readied: int = 0) -> None:
        """Return when a child has become ready once more than so many times, or has returned."""
        while record.readied == readied:
            if record.state is State.DONE:
                return
            if record.state.ended:
                why = "was stopped" if record.state is State.STOPPED else "failed for good"
                if record.failure is not None:
                    why += f" after {record.failure.type}: {record.failure.message}"
                raise StartFailed(record.name, f"{why} before it was ready")
            await record.wait_changed()


def _walk(supervision: Supervision, names: Sequence[str]) -> tuple[Supervision, Record]:
    *above, name = names
    for one in above:
        supervision = _below(_record(supervision, one))
    return supervision, _record(supervision, name)


def _record(supervision: Supervision, name: str) -> Record:
    try:
        return supervision.records[name]
    except KeyError:
        near = get_close_matches(name, supervision.records, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownService(f"{supervision.life.name} has no service {name!r}{hint}") from None


def _below(record: Record) -> Supervision:
    if record.supervision is not None and record.runs:
        return record.supervision
    what = "no supervisor" if record.runs else record.state.replace("_", " ")
    raise UnknownService(f"{record.name} is {what}: there are no services below it")


def _circuit(record: Record) -> Circuit:
    circuit = record.remember().circuit
    if circuit is None:
        raise ServicesError(f"{record.name} has no breaker; give its Child one")
    return circuit


async def _wait_run_ended(record: Record) -> None:
    attempt = record.attempt
    while record.runs and record.attempt == attempt:
        await record.wait_changed()


def _after(supervision: Supervision, child: Child) -> tuple[str, ...]:
    """The names of those that one more child would come after."""
    last: list[str] = []
    if supervision.spec.strategy == "rest_for_one" and supervision.records:
        last = [next(reversed(supervision.records))]
    return tuple(dict.fromkeys((*last, *child.after)))

"""What a supervisor knows of one child at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

import trio

from ..errors import ServicesError, StartFailed, StartTimeout
from ..lifecycle import Lifetime
from ..resilience import BreakerState, Circuit
from ._child import Child, Restart
from ._plan import start_within, stop_within
from ._restarts import Restarts

if TYPE_CHECKING:
    from ._supervision import Supervision
    from ._supervisor import Supervisor
    from ._together import Gate


class Then(Enum):
    """What follows the end of a child's present run, if that does not decide it itself."""

    END = "nothing: it has ended for good"
    AGAIN = "another start"
    STAY = "nothing, until an operator starts it again"
    LEAVE = "it is forgotten"


class Record(Lifetime):
    """A child while it is supervised.

    Attributes:
        child: what it was written down as; the supervisor's `spec` says what it leaves open.
        dependencies: the siblings that it comes after.
        dependents: those that come after it.
        waits_for: how many things keep it from starting: dependencies that are not ready, and
            gates that are closed.
        held_by: those gates.
        opens: the gate that opens no sooner than the next start of this one is due.
        awaited_by: the gates that wait for its end.
        passed: whether those after it may start: it is ready, or has done its part.
        arrived: whether it has passed once, so that its supervisor's own readiness does not wait
            for it.
        busy: whether it runs and is not overdue, or somebody who comes after it is busy.
        busy_dependents: how many of those that come right after it are.
        to_stop: whether it is to be told to stop as soon as there are none.
        then: what follows the end of its present run.
        retired: whether nothing is expected of it any more.
        on_trial: whether it is in the one attempt that a change gives it.
        released: whether it does not run, or is overdue.
        overdue: whether it was named as such in its present run.
        due: its deadline in its present state, in seconds on Trio's clock; infinite if none.
        readied: how often it became ready.
        readiness: of the present run.
        restarts: what is remembered of its endings, once there was one.
        supervision: for a supervisor that runs, its work.
    """

    __slots__ = (
        "arrived",
        "awaited_by",
        "busy",
        "busy_dependents",
        "child",
        "dependencies",
        "dependents",
        "due",
        "held_by",
        "on_trial",
        "opens",
        "overdue",
        "passed",
        "readied",
        "readiness",
        "released",
        "restarts",
        "retired",
        "spec",
        "supervision",
        "then",
        "to_stop",
        "waits_for",
    )

    def __init__(self, child: Child, spec: Supervisor, parent: Lifetime) -> None:
        super().__init__(
            f"{parent.name}/{child.name}", parent.bus, critical=child.critical, parent=parent
        )
        self.child: Child = child
        self.spec: Supervisor = spec
        self.dependencies: Sequence[Record] = ()
        self.dependents: list[Record] | None = None  # most have none
        self.waits_for: int = 0
        self.held_by: list[Gate] | None = None
        self.opens: Gate | None = None
        self.awaited_by: list[Gate] | None = None
        self.passed: bool = False
        self.arrived: bool = False
        self.busy: bool = False
        self.busy_dependents: int = 0
        self.to_stop: bool = False
        self.then: Then = Then.END
        self.retired: bool = False
        self.on_trial: bool = False
        self.released: bool = True
        self.overdue: bool = False
        self.due: float = math.inf
        self.readied: int = 0
        self.readiness: Readiness | None = None
        self.restarts: Restarts | None = None
        self.supervision: Supervision | None = None

    @property
    def runs(self) -> bool:
        """Whether it has a task."""
        return self.state.runs

    @property
    def restart(self) -> Restart:
        """Whether its end is followed by another start."""
        return self.child.restart or self.spec.restart

    @property
    def start_within(self) -> float:
        """Seconds that it may take to become ready."""
        return start_within(self.child, self.spec.start_within)

    @property
    def stop_within(self) -> float:
        """Seconds that it has at a stop."""
        return stop_within(self.child, self.spec.stop_within)

    @property
    def circuit(self) -> Circuit | None:
        """Its breaker at work, if it has one and has ever needed it."""
        return self.restarts.circuit if self.restarts is not None else None

    def circuit_in(self, state: BreakerState) -> Circuit | None:
        """Its breaker at work, if that is in a state."""
        circuit = self.circuit
        return circuit if circuit is not None and circuit.state is state else None

    def remember(self) -> Restarts:
        """What is remembered of its endings from now on."""
        if self.restarts is None:
            self.restarts = Restarts(
                self.child.backoff or self.spec.backoff, self.child.breaker or self.spec.breaker
            )
        return self.restarts

    def was_ready_for(self, seconds: float) -> None:
        """Its run has ended, or is about to, after it had been ready for so long."""
        if self.restarts is not None:
            self.restarts.ran(seconds)

    def depend_on(self, dependencies: Sequence[Record]) -> None:
        """Come after some more siblings."""
        self.dependencies = (*self.dependencies, *dependencies)
        for dependency in dependencies:
            if dependency.dependents is None:
                dependency.dependents = []
            dependency.dependents.append(self)
            self.waits_for += not dependency.passed
            if self.busy:
                dependency.busy_dependents += 1
                dependency._occupy()

    def come_after(self, dependencies: Sequence[Record]) -> None:
        """Come after these siblings, and no others; only while it does not run."""
        for dependency in self.dependencies:
            dependency.busy_dependents -= self.busy
            if dependency.dependents is not None:
                dependency.dependents.remove(self)
            self.waits_for -= not dependency.passed
        self.dependencies = ()
        self.depend_on(dependencies)

    def bow_out(self) -> None:
        """Those after it come after its own dependencies from now on."""
        for dependent in self.dependents or ():
            kept = [one for one in dependent.dependencies if one is not self]
            dependent.dependencies = kept
            dependent.depend_on([one for one in self.dependencies if one not in kept])
        for dependency in self.dependencies:
            dependency.busy_dependents -= self.busy
            if dependency.dependents is not None:
                dependency.dependents.remove(self)

    def begin(self) -> None:
        """A run begins."""
        self.renew()
        self.then, self.to_stop, self.overdue = Then.END, False, False
        self.released = False
        self._occupy()

    def _occupy(self) -> None:
        """Be busy, and so all that it comes after, directly or through others."""
        todo: list[Record] = [] if self.busy else [self]
        self.busy = True
        while todo:
            for dependency in todo.pop().dependencies:
                dependency.busy_dependents += 1
                if not dependency.busy:
                    dependency.busy = True
                    todo.append(dependency)

    def release(self) -> Sequence[Record]:
        """Not run any more, or be overdue; those after which nobody is busy for that reason."""
        freed: list[Record] = []
        todo: list[Record] = [] if self.released else [self]
        self.released = True
        while todo:
            one = todo.pop()
            if one.released and not one.busy_dependents:
                one.busy = False
                for dependency in one.dependencies:
                    dependency.busy_dependents -= 1
                    if not dependency.busy_dependents:
                        freed.append(dependency)
                        todo.append(dependency)
        return freed

    def open_way(self) -> Sequence[Record]:
        """Pass; those that may start for that reason."""
        if self.passed:
            return ()
        self.passed = True
        for dependent in self.dependents or ():
            dependent.waits_for -= 1
        return self.dependents or ()

    def close_way(self) -> None:
        """Whoever comes after it, and starts from now on, has to wait for it again."""
        if self.passed:
            self.passed = False
            for dependent in self.dependents or ():
                dependent.waits_for += 1

    def await_end(self, gate: Gate) -> None:
        """Let a gate not open before it has ended."""
        if self.awaited_by is None:
            self.awaited_by = []
        self.awaited_by.append(gate)


class Readiness:
    """The `task_status` of one run of a child.

    Attributes:
        timed_out: whether its time for becoming ready is over.
    """

    __slots__ = ("_ready", "_record", "_supervision", "timed_out")

    def __init__(self, record: Record, supervision: Supervision) -> None:
        self._record = record
        self._supervision = supervision
        self._ready = False
        self.timed_out: bool = False

    def __bool__(self) -> bool:
        return self._ready

    @trio.lowlevel.enable_ki_protection
    def started(self, value: object = None) -> None:
        """Say that the service is ready; `value` is published, and not kept."""
        if self._record.readiness is not self or self.timed_out:
            return  # of a run that has ended, or is about to
        if self._ready:
            raise RuntimeError(f"{self._record.name} called task_status.started() twice")
        self._ready = True
        self._supervision.became_ready(self._record, value)

    def time_out(self) -> bool:
        """Its time for becoming ready is over; whether that is news."""
        news = not self.timed_out and not self._ready
        self.timed_out = self.timed_out or news
        return news

    def error(self) -> ServicesError | None:
        """What is wrong with a run that ended without an error of its own, if anything is."""
        if self.timed_out:
            return StartTimeout(self._record.name, self._record.start_within)
        if not self._ready:
            return StartFailed(self._record.name, "returned before task_status.started()")
        return None

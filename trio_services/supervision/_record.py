"""What a supervisor knows of one child at run time."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import trio

from ..lifecycle import Lifetime
from ._child import Child
from ._restarts import Repetitions


@attrs.define(eq=False)
class Record:
    """What changes about one child while it is supervised."""

    child: Child
    life: Lifetime
    repetitions: Repetitions
    waits_for: int  # how many of those that it comes after have not been ready yet
    readiness: Readiness | None = None  # of the present run
    turn: trio.Event | None = None  # set when there are none left
    dependencies: list[Record] = attrs.Factory(list["Record"])
    dependents: list[Record] = attrs.Factory(list["Record"])
    live_dependents: int = 0
    passed: bool = False  # was ready once, or has ended: those after it may start
    released: bool = False  # has ended, or is overdue: those that it comes after may stop
    named: bool = False  # as overdue


class Readiness:
    """The `task_status` of one run of a child."""

    __slots__ = ("_became_ready", "_ready", "_record", "scope")

    def __init__(self, record: Record, became_ready: Callable[[Record, object], None]) -> None:
        self._record = record
        self._became_ready = became_ready
        self.scope: trio.CancelScope | None = None
        self._ready = False

    def __bool__(self) -> bool:
        return self._ready

    def started(self, value: object = None) -> None:
        """Say that the service is ready; `value` is published, and not kept."""
        if self._record.readiness is not self:
            return  # of a run that has ended
        if self._ready:
            raise RuntimeError(f"{self._record.life.name} called task_status.started() twice")
        self._ready = True
        if self.scope is not None:
            self.scope.deadline = math.inf
        self._became_ready(self._record, value)

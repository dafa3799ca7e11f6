"""Those that a strategy restarts together.

Theory. When a child is to be started again, its strategy says who goes down with it: all others
(`one_for_all`), or those after it in the list (`rest_for_one`). They are told to stop, those first
that nobody comes after, and a gate holds all of them, and their cause, until they have ended and
the cause is due. Groups may overlap: whoever is held by several gates waits for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..lifecycle import State
from ._record import Record, Then
from ._stopping import tell_to_stop

if TYPE_CHECKING:
    from ._supervision import Supervision


class Gate:
    """Keeps those that are restarted together from starting before all of them may.

    It opens when the one that caused the restart is due, and the others have ended.
    """

    __slots__ = ("_waits_on", "members", "pending")

    def __init__(self, members: Sequence[Record], pending: int) -> None:
        self.members: Sequence[Record] = members
        self.pending: int = pending
        self._waits_on: tuple[str, ...] | None = None
        for record in members:
            if record.held_by is None:
                record.held_by = []
            record.held_by.append(self)
            record.waits_for += 1

    def waits_on(self) -> tuple[str, ...]:
        """The paths of those that keep it closed."""
        if self._waits_on is None:  # all of its members ask
            self._waits_on = tuple(
                [
                    record.name
                    for record in self.members
                    if record.opens is self or self in (record.awaited_by or ())
                ]
            )
        return self._waits_on

    def count_down(self) -> Sequence[Record]:
        """One thing less to wait for; those that are let through by that."""
        self.pending -= 1
        self._waits_on = None
        if self.pending:
            return ()
        for record in self.members:
            if record.held_by is not None:
                record.held_by.remove(self)
                record.waits_for -= 1
        return self.members


def take_down(supervision: Supervision, cause: Record) -> None:
    """Stop those that are restarted together with a child, and hold them until it is due."""
    if supervision.spec.strategy == "one_for_one" or cause.child.name in supervision.attendants:
        return
    others = _restarted_with(supervision, cause)
    running = [other for other in others if other.runs]
    cause.opens = gate = Gate([cause, *others], pending=1 + len(running))
    for other in others:
        if other.runs:
            other.close_way()
            other.await_end(gate)
            other.to_stop = True
        if other.then is Then.END and other.restart != "never":
            if other.runs:
                other.then = Then.AGAIN
            elif other.state is State.DONE:
                supervision.wait_again(other)
    for other in running:
        if not other.busy_dependents:
            tell_to_stop(supervision, other)


def _restarted_with(supervision: Supervision, cause: Record) -> Sequence[Record]:
    others = list(supervision.records.values())
    if supervision.spec.strategy == "rest_for_one":
        del others[: others.index(cause) + 1]
    return [
        other
        for other in others
        if other is not cause and other.child.name not in supervision.attendants
    ]

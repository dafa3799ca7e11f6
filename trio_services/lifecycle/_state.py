"""The states of a supervised service, and which may follow which.

Theory: a child has one state from the moment its supervisor knows it. It waits for the services
it comes `after`, starts, and runs once it is ready. From there it leaves by one of three doors: it
returns, it fails, or it is told to stop. Its supervisor decides what a return or a failure means:
another start after a delay (`BACKING_OFF`) or an end (`DONE`, `FAILED`). Nothing follows an end but
at the word of somebody else: a sibling with which it is restarted, or an operator.

The table below is the whole truth; the supervisor cannot make a transition that is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """What a service is doing, as its supervisor sees it."""

    WAITING = "waiting"
    """Until it may start: for the services that it comes `after`, or is restarted with."""
    STARTING = "starting"
    """Entered, and not ready yet."""
    RUNNING = "running"
    """Ready."""
    BACKING_OFF = "backing_off"
    """Ended or failed; to be started again after a delay."""
    STOPPING = "stopping"
    """Told to stop, and finishing what it has in hand."""
    STOPPED = "stopped"
    """Ended because it was told to."""
    DONE = "done"
    """Returned, and not to be started again."""
    FAILED = "failed"
    """Failed, and not to be started again."""

    @property
    def runs(self) -> bool:
        """Whether it has a task."""
        return self in _RUN

    @property
    def ended(self) -> bool:
        """Whether it does not run, and will not by itself."""
        return self in _ENDED


TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.WAITING: frozenset({State.STARTING, State.BACKING_OFF, State.STOPPED}),
        State.STARTING: frozenset({State.RUNNING, State.BACKING_OFF, State.FAILED, State.STOPPING}),
        State.RUNNING: frozenset({State.BACKING_OFF, State.DONE, State.FAILED, State.STOPPING}),
        State.BACKING_OFF: frozenset({State.WAITING, State.STOPPED}),
        State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
        State.STOPPED: frozenset({State.WAITING}),
        State.DONE: frozenset({State.WAITING}),
        State.FAILED: frozenset({State.WAITING}),
    }
)

_RUN = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
_ENDED = frozenset({State.STOPPED, State.DONE, State.FAILED})

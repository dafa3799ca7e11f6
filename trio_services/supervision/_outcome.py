"""How the run of a supervisor ends: what it has to raise."""

from __future__ import annotations

from collections import deque

from ..errors import Failure, RestartLimitExceeded, StopFailed, StopOverdue
from ..lifecycle import asks_for_exit

_FAILURES_TOLD = 6


class Outcome:
    """What went wrong below a supervisor, as far as it has to be told above.

    Attributes:
        failures: the last ones, oldest first.
    """

    __slots__ = ("_cause", "_exits", "_name", "_overdue", "_reason", "_stop_failures", "failures")

    def __init__(self, name: str) -> None:
        self._name = name
        self._reason = ""  # why it gave up, if it did
        self._cause: BaseException | None = None
        self._exits = False  # whether that asks for an exit
        self._stop_failures: list[Failure] = []
        self._overdue: StopOverdue | None = None
        self.failures: deque[Failure] = deque(maxlen=_FAILURES_TOLD)

    def give_up(self, reason: str, cause: BaseException | None) -> bool:
        """Note the reason to give up; whether it is one to be told.

        The first counts, but for an exit that was asked for: that outweighs what is none.
        """
        exits = cause is not None and asks_for_exit(cause)
        if not self._reason or (exits and not self._exits):
            self._reason, self._cause, self._exits = reason, cause, exits
            return not exits
        return False

    def failed_at_stop(self, failure: Failure, error: BaseException) -> None:
        """A child failed while it was being stopped for good."""
        if isinstance(error, StopOverdue):  # of a supervisor; the one to blame is below it
            self.overdue(error)
        else:
            self._stop_failures.append(failure)

    def overdue(self, error: StopOverdue) -> None:
        """A child was overdue at the final stop; the first is told."""
        self._overdue = self._overdue or error

    def raise_what_failed(self) -> None:
        """Raise what there is to raise: the reason to give up, or else what the stop met with."""
        cause, self._cause = self._cause, None
        if cause is not None and self._exits:
            raise cause
        if self._reason:
            raise RestartLimitExceeded(self._name, self._reason, tuple(self.failures)) from cause
        if self._stop_failures:
            raise StopFailed(self._name, tuple(self._stop_failures))
        if self._overdue is not None:
            raise self._overdue

"""How long workers may go on without giving way to other tasks."""

from __future__ import annotations

from typing import Final

import trio

_SECONDS: Final = 0.004
_JOBS: Final = 500


class Turn:
    """What all workers of an event loop have, together, of one pass through its tasks.

    A queue that is never empty and handlers that never wait would keep the loop to themselves. So
    each worker asks before each job whether the time is over, and waits for the next pass if it is.
    The jobs are counted as well, because virtual time may stand still.
    """

    __slots__ = ("_began", "_jobs", "number")

    def __init__(self) -> None:
        self.number: int = 0
        self._began = trio.current_time()
        self._jobs = 0

    def over(self, now: float) -> bool:
        """Whether the next job has to wait for another pass; else it counts in this one."""
        self._jobs += 1
        return self._jobs > _JOBS or now - self._began > _SECONDS

    def came_back(self, number: int) -> None:
        """A worker was away since the turn of a number; the first to come back begins the next."""
        if number == self.number:
            self.number += 1
            self._began = trio.current_time()
            self._jobs = 0


_turn: trio.lowlevel.RunVar[Turn] = trio.lowlevel.RunVar("trio_services.turn")


def current_turn() -> Turn:
    """That of the running event loop."""
    try:
        return _turn.get()
    except LookupError:
        turn = Turn()
        _turn.set(turn)
        return turn

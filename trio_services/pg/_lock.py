"""One task at a time on a connection."""

from __future__ import annotations

from types import TracebackType

import trio
from psycopg import ProgrammingError

# A generator that was left is closed by Trio within so many turns of the event loop.
_TURNS_UNTIL_CLOSED = 5


class Lock:
    """A lock that costs next to nothing when it is free: it is taken without a checkpoint.

    psycopg checks for cancellation, and lets others run, when it waits for the server.
    """

    __slots__ = ("_line", "_owner")

    def __init__(self) -> None:
        self._owner: trio.lowlevel.Task | None = None
        self._line: dict[trio.lowlevel.Task, None] = {}  # those who wait, in order

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._owner is not None

    def take_over(self) -> None:
        """Whoever works on what the owner left, such as Trio's closer of generators, owns it."""
        if self._owner is not None:
            self._owner = trio.lowlevel.current_task()

    async def __aenter__(self) -> None:
        task = trio.lowlevel.current_task()
        if self._owner is None:
            self._owner = task
            return
        for _ in range(_TURNS_UNTIL_CLOSED):
            if self._owner is not task:
                break
            await trio.lowlevel.checkpoint()
        else:
            raise ProgrammingError(
                "this task is in the middle of a COPY, stream() or notifies() on this connection: "
                "leave that first (with `async with aclosing(...)`), or use another connection"
            )
        if not self.locked():
            self._owner = task
            return
        self._line[task] = None

        def leave(_: object) -> trio.lowlevel.Abort:
            del self._line[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner = next(iter(self._line), None)
        if self._owner is not None:
            del self._line[self._owner]
            trio.lowlevel.reschedule(self._owner)

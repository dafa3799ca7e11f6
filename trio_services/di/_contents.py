"""What a scope holds: the values that it was opened with, and what was entered in it.

Theory. What is provided by context managers is left as if the work stood inside of nested
`async with` blocks: the last that was entered is left first, and each sees, raised inside of it,
what the work or one further inside has raised. Two things differ. Nothing is swallowed: a
provider that forgets to raise again would make a success of a failed job. And all of it is
shielded from cancellation, up to a deadline; but after that each is left all the same.

For the shield, a cancel scope is opened before anything is entered, in the task that will leave
it, and becomes a shield only at the end. So providers may hold cancel scopes and nurseries of
their own: all are opened and closed in one task, the last one first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

import trio

from ..errors import DisposalTimeout, InjectionError
from ..lifecycle import set_aside_cancellations

T = TypeVar("T")

Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], Any]


class Contents:
    """What a scope holds, to be entered and left in one task.

    Args:
        values: the values that the scope was opened with, by type.
        within: seconds that leaving may take; ≥ 0.
    """

    __slots__ = ("_entered", "_guard", "_task", "_within", "values")

    def __init__(self, values: Mapping[type[object], object] | None, within: float) -> None:
        self.values: Mapping[type[object], object] = values or {}
        self._within = within
        self._guard = trio.CancelScope()
        self._entered: list[tuple[str, Leave, bool]] = []  # the last: whether it is async
        self._task: trio.lowlevel.Task | None = None

    @property
    def mine(self) -> bool:
        """Whether the calling task is the one that opened it."""
        return trio.lowlevel.current_task() is self._task

    def open(self, *, shield: bool = False) -> None:
        """Begin, in the task that will close it; `shield` it from the beginning."""
        self._task = trio.lowlevel.current_task()
        self._guard.shield = shield
        self._guard.__enter__()

    async def enter_async(self, name: str, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a context manager, to be left at the end."""
        value = await manager.__aenter__()
        self._entered.append((name, manager.__aexit__, True))
        return value

    def enter(self, name: str, manager: AbstractContextManager[T]) -> T:
        """Enter a context manager that is not async."""
        value = manager.__enter__()
        self._entered.append((name, manager.__exit__, False))
        return value

    def limit(self) -> None:
        """Whatever it is at, it has `within` seconds from now until it has to be closed."""
        self._guard.deadline = min(self._guard.deadline, trio.current_time() + self._within)

    async def close(self, error: BaseException | None) -> BaseException | None:
        """Leave all that was entered.

        Args:
            error: what the work has raised, if it has raised anything.

        Returns: what came out of it all, to be raised now; see `settle`.

        Cancellation: by nothing but the deadline.
        """
        guard = self._guard
        late: list[str] = []
        came_out = error
        if self._entered:
            self.limit()
            guard.shield = True
        while self._entered:
            name, leave, is_async = self._entered.pop()
            try:
                if came_out is None:
                    left = leave(None, None, None)
                else:
                    left = leave(type(came_out), came_out, came_out.__traceback__)
                if is_async:
                    await left
            except BaseException as raised:  # noqa: BLE001, ASYNC103 -- it comes out at the end
                if guard.cancel_called and set_aside_cancellations(raised)[1] is None:
                    late.append(name)
                elif raised is not came_out:
                    if raised.__context__ is None:
                        raised.__context__ = came_out
                    came_out = raised
        guard.__exit__(None, None, None)
        if late:
            overdue = DisposalTimeout(late, self._within)
            overdue.__context__ = came_out
            came_out = overdue
        return came_out


def settle(error: BaseException | None, came_out: BaseException | None) -> BaseException | None:
    """What has to be raised where scopes are left in the task that did the work.

    Args:
        error: what the work has raised.
        came_out: what became of that when the scope was closed.
    """
    if error is None:
        return came_out
    cancelled, _ = set_aside_cancellations(error)
    if cancelled is None:
        return came_out
    still, cause = set_aside_cancellations(came_out)
    if trio.current_effective_deadline() == -math.inf:  # what cancelled it is around the scope
        if still is None and came_out is not None:
            both = [cancelled, came_out]
            return BaseExceptionGroup("cancelled, and what followed at the disposal", both)
    elif still is not None:  # by a provider's own scope, which has been left
        return cause or InjectionError("what was provided has cancelled the work, without an error")
    return came_out

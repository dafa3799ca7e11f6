"""Cancellation at awkward moments: at the n-th time that a task is about to go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class _CancelAt(trio.abc.Instrument):
    def __init__(self, step: int, task: trio.lowlevel.Task, scope: trio.CancelScope) -> None:
        self._left = step
        self._task = task
        self._scope = scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancelled_at(step: int, function: Callable[[], Awaitable[object]]) -> bool:
    """Call a function and cancel it after so many steps of its task, 0 being before the first.

    If it makes no more steps, which the last query of some would take a minute for, it is cancelled
    after a while.

    Returns: whether it was cancelled, rather than ended before that.
    """
    with trio.move_on_after(0.06) as scope:
        if step == 0:
            scope.cancel()
        instrument = _CancelAt(step, trio.lowlevel.current_task(), scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await function()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught

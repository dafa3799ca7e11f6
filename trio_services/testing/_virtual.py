"""Virtual time: what has no place in it is refused, and a deadlock is found.

Theory. Trio's autojump clock goes on to the next deadline when every task waits. Two things go
wrong with it silently. A task that waits for a thread or a socket looks just like one that waits
for a time, so time-outs around it expire at once. And when there is no deadline left to go on to,
the run spins for ever. The first is seen after each step of a task, so that it does not depend on
how fast the outside world is; the second by a task that looks whenever all others wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from inspect import unwrap
from types import CodeType
from typing import Any

import trio
from trio.lowlevel import Task
from trio.testing import MockClock, wait_all_tasks_blocked

from ._errors import Deadlock, RealTimeUsed
from ._tasks import all_tasks, code_of, codes, is_frameworks, is_trios_own, where


def _code(function: Callable[..., Any]) -> CodeType:
    code: CodeType = unwrap(function).__code__
    return code


_REAL = {
    _code(trio.to_thread.run_sync): "a thread",
    _code(trio.lowlevel.wait_readable): "a socket or a pipe",
    _code(trio.lowlevel.wait_writable): "a socket or a pipe",
}


class Watch(trio.abc.Instrument):
    """Watches over a run in virtual time."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock
        self._steps = 0
        self._seen = trio.Event()
        self._error: RealTimeUsed | None = None

    def after_task_step(self, task: Task) -> None:
        """See what it waits on now."""
        if is_trios_own(task) or code_of(task) in _OWN:
            return
        self._steps += 1
        if self._error is not None:
            return
        for code in codes(task):
            if code in _REAL:
                self._error = RealTimeUsed(_REAL[code], where(task))
                self._seen.set()
                return

    async def refuse_real_time(self) -> None:
        """Wait for a task that waits for a thread, a socket, or a process.

        Raises:
            RealTimeUsed: there is one.

        Cancellation: at once.
        """
        await self._seen.wait()
        # From here on time is real, or what is to be cancelled now would be overdue at once.
        self._clock.autojump_threshold = math.inf
        self._clock.rate = 1.0
        if self._error is not None:
            raise self._error

    async def find_deadlock(self) -> None:
        """Look, whenever all tasks wait, whether any of them waits for a time.

        Raises:
            Deadlock: none does.

        Cancellation: at once.
        """
        # Others who wait for all tasks to be blocked are woken together with this one, and may move
        # only after it: so nobody waits for a time if nobody has moved from one time to the next.
        steps = -1
        while True:
            await wait_all_tasks_blocked()
            ahead = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if ahead < math.inf:
                steps = -1
                await trio.sleep(ahead)
            elif steps != self._steps:
                steps = self._steps
            elif not self._seen.is_set():
                idle = [task for task in all_tasks() if not task.child_nurseries]
                raise Deadlock([where(task) for task in idle if not is_frameworks(task)])


_OWN = {_code(Watch.refuse_real_time), _code(Watch.find_deadlock)}


@contextmanager
def watching() -> Generator[Watch | None, None, None]:
    """Watch over this run if its clock goes on by itself when all tasks wait."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock) or clock.autojump_threshold == math.inf:
        yield None
        return
    rate, threshold = clock.rate, clock.autojump_threshold
    watch = Watch(clock)
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)
        clock.rate, clock.autojump_threshold = rate, threshold

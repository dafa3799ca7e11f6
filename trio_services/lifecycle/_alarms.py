"""Many tasks that sleep, and one deadline of Trio's for all of them.

Theory. A cancel scope and a turn of the event loop for each of a thousand timers cost most of what
their ticks cost. Here the times wait in one heap, and one task rings for those that have come,
at most once in a millisecond: who is due within the same millisecond is woken in the same turn.
"""

from __future__ import annotations

import heapq
import math

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

_GRAIN = 0.001


class Alarm:
    """The sleep of one task."""

    __slots__ = ("_alarms", "_task")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._task: Task | None = None

    @property
    def is_set(self) -> bool:
        """Whether somebody sleeps."""
        return self._task is not None

    @enable_ki_protection
    async def sleep(self) -> None:
        """Sleep until it rings.

        Cancellation: wakes up at once.
        """
        self._task = trio.lowlevel.current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._task = None
            self._alarms.forget_one()
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def ring(self) -> bool:
        """Wake who sleeps; whether anybody did."""
        if self._task is None:
            return False
        trio.lowlevel.reschedule(self._task)
        self._task = None
        return True

    def ring_early(self) -> None:
        """Wake who sleeps before the time has come."""
        if self.ring():
            self._alarms.forget_one()


class Alarms:
    """The alarms of all services of a tree; rings while `run` does, and for all at its end."""

    __slots__ = ("_forgotten", "_heap", "_numbered", "_scope", "_sooner")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbered = 0  # so that alarms are never compared
        self._forgotten = 0  # which nobody waits for any more, and are in the heap
        self._sooner = trio.Event()
        # Without a deadline, since services may sleep until the last of them has stopped.
        self._scope = trio.CancelScope(shield=True)

    def set(self, when: float) -> Alarm:
        """One that will ring at a time, in seconds on Trio's clock."""
        alarm = Alarm(self)
        self._numbered += 1
        heapq.heappush(self._heap, (when, self._numbered, alarm))
        if self._heap[0][2] is alarm:
            self._sooner.set()
        return alarm

    def forget_one(self) -> None:
        """Somebody does not wait any more for an alarm that was set."""
        self._forgotten += 1
        if self._forgotten > 100 + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].is_set]
            heapq.heapify(self._heap)
            self._forgotten = 0

    def end(self) -> None:
        """Wake whoever still sleeps, and ring no more."""
        self._scope.cancel()
        for _, _, alarm in self._heap:
            alarm.ring()

    @enable_ki_protection
    async def run(self) -> None:
        """Ring until the end.

        Cancellation: by nothing but `end`.
        """
        rang_at = -math.inf
        with self._scope:
            while True:
                when = self._heap[0][0] if self._heap else math.inf
                if when > rang_at + _GRAIN:
                    with trio.move_on_at(when):
                        await self._sooner.wait()
                else:
                    await trio.sleep_until(rang_at + _GRAIN)
                if self._sooner.is_set():
                    self._sooner = trio.Event()
                now = trio.current_time()
                while self._heap and self._heap[0][0] <= now:
                    if not heapq.heappop(self._heap)[2].ring():
                        self._forgotten -= 1
                    rang_at = now

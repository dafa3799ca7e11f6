"""A watch over those that should have ended."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class OverdueWatch(Generic[T]):
    """Calls `report` with each of those that are expected to end, when the time for it has come.

    Who has ended meanwhile is reported as well: `report` knows best.
    """

    def __init__(self, report: Callable[[T], None]) -> None:
        self._report = report
        self._expected: list[tuple[float, int, T]] = []  # a heap of when, tie-breaker, who
        self._sooner = trio.Event()  # set when the head of the heap is another one
        # Without a deadline, because it watches over those that ignore theirs: `end` ends it.
        self._scope = trio.CancelScope(shield=True)

    def expect(self, who: T, when: float) -> None:
        """Somebody has to have ended at a time, in seconds on Trio's clock."""
        heapq.heappush(self._expected, (when, id(who), who))
        if self._expected[0][0] == when:
            self._sooner.set()

    def end(self) -> None:
        """Nobody is expected any more."""
        self._scope.cancel()

    async def run(self) -> None:
        """Watch until the end.

        Cancellation: by nothing but `end`.
        """
        with self._scope:
            while True:
                when = self._expected[0][0] if self._expected else math.inf
                with trio.move_on_at(when):
                    await self._sooner.wait()
                self._sooner = trio.Event()
                now = trio.current_time()
                while self._expected and self._expected[0][0] <= now:
                    _, _, who = heapq.heappop(self._expected)
                    self._report(who)

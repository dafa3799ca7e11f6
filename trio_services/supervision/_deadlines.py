"""One deadline for each record, and the task that keeps them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio

from ._record import Record


class Deadlines:
    """Calls `reached` with each record whose deadline has come.

    A record has at most one deadline, its `due`; what it means follows from the record's state.
    """

    def __init__(self, reached: Callable[[Record], None]) -> None:
        self._reached = reached
        # A heap of when, tie-breaker, who. An entry counts only while it is what the record is due
        # at: taking one out of the middle of a heap costs more than passing over it.
        self._heap: list[tuple[float, int, Record]] = []
        self._due = 0  # entries that count
        self._sooner = trio.Event()  # set when the head of the heap is another one
        # Without a deadline, because it watches over those that ignore theirs: `end` ends it.
        self._scope = trio.CancelScope(shield=True)

    def set(self, record: Record, when: float) -> None:
        """Let a record be due at a time, in seconds on Trio's clock, and no more when it was."""
        if when == math.inf:
            self.clear(record)
            return
        self._due += record.due == math.inf
        record.due = when
        if len(self._heap) > 2 * self._due + 100:
            self._heap = [entry for entry in self._heap if entry[2].due == entry[0]]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (when, id(record), record))
        if self._heap[0][2] is record:
            self._sooner.set()

    def clear(self, record: Record) -> None:
        """Let a record not be due any more."""
        self._due -= record.due != math.inf
        record.due = math.inf

    def end(self) -> None:
        """End the watch."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch until the end.

        Cancellation: by nothing but `end`.
        """
        with self._scope:
            while True:
                when = self._heap[0][0] if self._heap else math.inf
                with trio.move_on_at(when):
                    await self._sooner.wait()
                self._sooner = trio.Event()
                now = trio.current_time()
                while self._heap and self._heap[0][0] <= now:
                    when, _, record = heapq.heappop(self._heap)
                    if record.due == when:
                        self.clear(record)
                        self._reached(record)

"""What metrics are made of: what can be read at any time, and the little that must be counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import trio

from ..lifecycle import events
from ..queues import BOUNDS, HistogramStatistics, Queue, QueueStatistics
from ..supervision import ServiceStatistics

_BEAT = 0.25  # seconds between two looks at how late the event loop is


@attrs.frozen
class Readings:
    """An application at one moment.

    Attributes:
        now: that moment, on Trio's clock.
        services: the tree.
        queues: the books of queues that have them, by name.
        failures: how often each service has failed, by its path; only those that have.
        lag: how late the event loop was.
    """

    now: float
    services: ServiceStatistics
    queues: Mapping[str, QueueStatistics]
    failures: Mapping[str, int]
    lag: HistogramStatistics


class Meter:
    """Counts the failures of services, as a listener on their bus, and measures the event loop.

    Nothing is counted here for each job: queues and workers have counted all of that.
    """

    def __init__(self) -> None:
        self._failures = Counter[str]()
        self._lags = [0] * (len(BOUNDS) + 1)
        self._total_lag = 0.0

    def __call__(self, event: events.Event) -> None:
        """Take notice of one event."""
        if isinstance(event, events.ServiceFailed):
            self._failures[event.service] += 1

    async def measure_lag(self) -> None:
        """Measure, again and again, how late the event loop wakes a task.

        Cancellation: at any time.
        """
        while True:
            due = trio.current_time() + _BEAT
            await trio.sleep_until(due)
            lag = max(0.0, trio.current_time() - due)
            self._lags[bisect_left(BOUNDS, lag)] += 1
            self._total_lag += lag

    def read(self, services: ServiceStatistics, queues: Iterable[Queue[Any]]) -> Readings:
        """All that there is to tell now.

        Args:
            services: the tree.
            queues: of those with the same name, the first is told.
        """
        books: dict[str, QueueStatistics] = {}
        for queue in queues:
            if queue.name not in books and isinstance(found := queue.statistics(), QueueStatistics):
                books[queue.name] = found
        known = {one.name for one in services.walk()}
        for name in self._failures.keys() - known:  # of one that was removed
            del self._failures[name]
        return Readings(
            trio.current_time(),
            services,
            books,
            dict(self._failures),
            HistogramStatistics(tuple(self._lags), self._total_lag),
        )

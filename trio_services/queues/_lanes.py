"""Items of one key in order and one at a time, those of other keys beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import trio

from ._job import Job, Outcome
from ._source import Source

T = TypeVar("T")


class Lanes(Generic[T]):
    """A source of jobs in which those whose key is being worked on wait in a lane of their own.

    The worker whose job was settled gets the next one of its lane. So that a busy key cannot draw
    everything out of the queue behind it, nothing more is taken while too many wait in lanes.

    Args:
        source: where the jobs come from.
        key: what items have to share to be kept in order. A job whose key cannot be told is broken.
        capacity: how many jobs may wait in lanes; ≥ 1.
    """

    __slots__ = ("_capacity", "_key", "_lanes", "_moved", "_source", "_waiting")

    def __init__(self, source: Source[T], key: Callable[[T], Hashable], capacity: int) -> None:
        self._source = source
        self._key = key
        self._capacity = capacity
        # Of each key that is worked on, those that wait.
        self._lanes: dict[Hashable, deque[Job[T]]] = {}
        self._waiting = 0
        self._moved = trio.Event()

    def take_nowait(self) -> Job[T] | None:
        """The next job whose turn it is, or None if there is none now; see `Source`."""
        while self._waiting < self._capacity:
            job = self._source.take_nowait()
            if job is None or self._enters(job):
                return job
        return None

    async def take(self) -> Job[T]:
        """The next job whose turn it is, as soon as there is one; see `Source`."""
        while True:
            if self._waiting < self._capacity:
                job = await self._source.take()
                if self._enters(job):
                    return job
            else:
                await self._moved.wait()

    def settle(self, job: Job[T], outcome: Outcome) -> Job[T] | None:
        """Book the outcome of a job; the next one of its lane, which has to follow on it."""
        self._source.settle(job, outcome)
        lane = self._lanes[job.key]
        if not lane:
            del self._lanes[job.key]
            return None
        self._count(-1)
        return lane.popleft()

    def release(self, *jobs: Job[T]) -> None:
        """Put jobs back that were not begun, each with those that wait in its lane."""
        for job in reversed(jobs):
            lane = self._lanes.pop(job.key)
            self._count(-len(lane))
            self._source.release(job, *lane)

    def _enters(self, job: Job[T]) -> bool:
        """Whether it is a job's turn; if not, it waits in its lane."""
        try:
            job.key = self._key(job.item)
            lane = self._lanes.get(job.key)
        except Exception as error:  # noqa: BLE001 -- a job's failure is data
            job.key, job.broken, lane = job, error, None
        if lane is None:
            self._lanes[job.key] = deque()
            return True
        lane.append(job)
        self._count(1)
        return False

    def _count(self, more: int) -> None:
        self._waiting += more
        if more < 0:
            self._moved.set()
            self._moved = trio.Event()

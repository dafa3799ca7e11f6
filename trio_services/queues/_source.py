"""Where workers get their jobs from: what `Workers` asks of a queue."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from ..resilience import Retry
from ._job import DeadLetter, Job, Outcome

T = TypeVar("T")


class Source(Protocol[T]):
    """Gives jobs, and hears what became of them."""

    def take_nowait(self) -> Job[T] | None:
        """The next job, or None if there is none now; whoever takes it owes it a `settle`.

        Raises:
            trio.EndOfChannel: there will be none any more.
        """
        ...

    async def take(self) -> Job[T]:
        """The next job, as soon as there is one.

        Raises: see `take_nowait`.

        Cancellation: a take that is cancelled has not taken anything.
        """
        ...

    def settle(self, job: Job[T], outcome: Outcome, /) -> Job[T] | None:
        """Book the outcome of a job that was taken.

        Returns: the job that has to follow on it, if there is one; it is taken by that.
        """
        ...

    def release(self, *jobs: Job[T]) -> None:
        """Put jobs back to the head that were taken and not begun."""
        ...


class Queue(Source[T], Protocol):
    """A source of jobs that pools of workers share."""

    @property
    def name(self) -> str:
        """For statistics, logs and errors."""
        ...

    @property
    def retry(self) -> Retry | None:
        """What is done about failed jobs by workers that say nothing about it."""
        ...

    @property
    def lends(self) -> bool:
        """Whether its jobs can be lost to others, so that each needs a `hold`."""
        ...

    def hold(self, job: Job[Any], /) -> AbstractContextManager[object]:
        """A block around the work at a job, which is cancelled when the job is lost to others."""
        ...

    def postpone(self, job: Job[Any], delay: float, /) -> bool:
        """Whether a job is to be returned, and taken anew after a delay; or else it waits in hand.

        It has yet to be settled, as returned.
        """
        ...

    def close(self) -> None:
        """Accept no more items; workers end when those that wait are done. Idempotent."""
        ...

    def count_retry(self) -> None:
        """Book a further attempt."""
        ...

    def keep(self, letter: DeadLetter[T], /) -> None:
        """Remember a dead letter that nobody else takes."""
        ...

    def leave(self) -> Job[T] | None:
        """Book the item at the head as left; None when there is none."""
        ...

    def statistics(self) -> object:
        """Its books at this moment; as text, on one line."""
        ...

    def attach(self) -> None:
        """Some workers are to consume."""
        ...

    def detach(self) -> bool:
        """Some workers have ended for good; whether they were the last."""
        ...

"""One unit of work, and what may become of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Generic, TypeVar

import attrs

from ..errors import Failure

T = TypeVar("T")

_FAILURES_KEPT = 20


class Outcome(StrEnum):
    """What became of a job; every job has exactly one in the end."""

    DONE = "done"
    """Its handler returned."""
    DISCARDED = "discarded"
    """Its handler raised `Discard`: there was nothing to do."""
    DEAD = "dead"
    """It failed for good, and is a dead letter now."""
    RETURNED = "returned"
    """A stop interrupted it: it may have been done in part."""


class Discard(Exception):
    """Raised by a handler: nothing is to be done for this item, and that is no failure."""


class RetryLater(Exception):
    """Raised by a handler: not now, but in `delay` seconds (≥ 0); that is no failure either.

    It does not count as one of the attempts that a `Retry` allows.
    """

    def __init__(self, delay: float = 0.0, reason: str = "") -> None:
        if not 0 <= delay < math.inf:
            raise ValueError(f"delay must be at least 0 s and finite, not {delay}")
        super().__init__(delay, reason)
        self.delay: float = delay
        self.reason: str = reason


@attrs.define(eq=False)
class Job(Generic[T]):
    """An item on its way through a queue or a schedule.

    Args:
        source: the name of its queue or schedule.
        number: counts the jobs of the source from 1.
        item: what the handler gets.
        accepted_at: since when it waits, in seconds on Trio's clock; NaN if that is not known.
        attempt: how often the handler was entered for it.
        failed: how many of those attempts failed.
        failures: the last 20 of them, oldest first.
        if_interrupted: its outcome if it is interrupted now.
        parts: the jobs that a batch is made of; empty for a job of its own.
        key: what it shares with the jobs that it is kept in order with, if anything.
        broken: what was found to be wrong with it before it was begun, if anything was.
    """

    source: str
    number: int
    item: T
    accepted_at: float = math.nan
    attempt: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()
    if_interrupted: Outcome = Outcome.RETURNED
    parts: Sequence[Job[Any]] = ()
    key: Hashable = None
    broken: Exception | None = None

    @property
    def id(self) -> str:
        """A short name for logs: ``orders#17``."""
        return f"{self.source}#{self.number}"

    def remember(self, failure: Failure) -> None:
        """Add a failure to its history."""
        self.failures = (*self.failures, failure)[-_FAILURES_KEPT:]


@attrs.frozen
class DeadLetter(Generic[T]):
    """A job that failed for good.

    Args:
        source: the name of its queue or schedule.
        job: its id.
        item: what it was about.
        attempts: how often the handler was entered for it.
        failures: those of its last 20 attempts, oldest first.
    """

    source: str
    job: str
    item: T
    attempts: int
    failures: tuple[Failure, ...]

    @property
    def failure(self) -> Failure:
        """The last one, for which it was given up."""
        return self.failures[-1]


current_job: ContextVar[Job[Any] | None] = ContextVar("trio_services.current_job", default=None)
"""The job that the calling task works on; None outside of a handler."""

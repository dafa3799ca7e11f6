"""One unit of work, and what may become of it."""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Generic, TypeVar

import attrs

from ..errors import Failure

T = TypeVar("T")


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


@attrs.define(eq=False)
class Job(Generic[T]):
    """An item on its way through a queue or a schedule.

    Args:
        source: the name of its queue or schedule.
        number: counts the jobs of the source from 1.
        item: what the handler gets.
        attempt: how often the handler was entered for it.
        if_interrupted: its outcome if it is interrupted now.
    """

    source: str
    number: int
    item: T
    attempt: int = 0
    if_interrupted: Outcome = Outcome.RETURNED

    @property
    def id(self) -> str:
        """A short name for logs: ``orders#17``."""
        return f"{self.source}#{self.number}"


@attrs.frozen
class DeadLetter(Generic[T]):
    """A job that failed for good: its item, its last failure, and after how many attempts."""

    job: str
    item: T
    attempts: int
    failure: Failure


current_job: ContextVar[Job[Any] | None] = ContextVar("trio_services.current_job", default=None)
"""The job that the calling task works on; None outside of a handler."""

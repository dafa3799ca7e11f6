"""A job that was claimed, its failures as the database keeps them, and the books of all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TypeVar

import attrs
import trio

from ..errors import Failure
from ..queues import Job
from ._claims import Later
from ._tenure import Tenure

T = TypeVar("T")


@attrs.define(eq=False)
class Claimed(Job[T]):
    """A job that was claimed.

    Args:
        tenure: under which lease.
        tries: how often it was claimed in all.
        postponed: how it is to be tried again later, if it is.
    """

    tenure: Tenure = attrs.field(kw_only=True)
    tries: int = attrs.field(kw_only=True)
    postponed: Later | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class DurableStatistics:
    """What this process has done for a durable queue; numbers of jobs.

    Every claim has one end: ``claimed = waiting + in_hand + done + discarded + dead + returned +
    released + lost``.

    Attributes:
        waiting: claimed ahead, and not in a worker's hand yet.
        in_hand: with a worker.
        claimed: taken from the database.
        done: how many came to that; see `Outcome`.
        discarded: likewise.
        dead: likewise.
        returned: to be tried again: by a stop, after a failure, or because they asked for it.
        released: given back without having been begun.
        lost: not this process's any more before they were begun.
        stale: outcomes that came too late: somebody else had the job.
        retried: how many were put off to be tried again.
        error: why the database could not be talked to the last time; empty if it could.
    """

    waiting: int
    in_hand: int
    claimed: int
    done: int
    discarded: int
    dead: int
    returned: int
    released: int
    lost: int
    stale: int
    retried: int
    error: str

    def __str__(self) -> str:
        """The accounts on one line."""
        ends = ("done", "discarded", "dead", "returned", "released", "lost", "in_hand", "waiting")
        parts = [f"{n} {name}" for name in ends if (n := getattr(self, name)) or name == "done"]
        return f"{self.claimed} claimed = {' + '.join(parts)}".replace("in_hand", "in hand")


def tell(failures: Iterable[Failure]) -> str | None:
    """Failures as JSON, their times as those of the world."""
    here = time.time() - trio.current_time()
    told = [attrs.asdict(failure) | {"at": failure.at + here} for failure in failures]
    return json.dumps(told).replace("\\u0000", "") if told else None


def heard(told: str | None) -> tuple[Failure, ...]:
    """Failures from JSON, their times as those of Trio's clock."""
    if told is None:
        return ()
    here = time.time() - trio.current_time()
    try:
        return tuple(Failure(**(one | {"at": one["at"] - here})) for one in json.loads(told))
    except (TypeError, ValueError, KeyError):
        return ()  # written by another version; what became of the job matters more

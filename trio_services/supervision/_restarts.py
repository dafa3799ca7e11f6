"""When restarting is too much. Pure: times come in as arguments."""

from __future__ import annotations

import math
from collections import deque

import attrs
from attrs import validators

from ..resilience import Backoff


def _above_zero(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value}")


@attrs.frozen
class Limit:
    """At most `count` (≥ 0) of something within any `per` seconds (> 0)."""

    count: int = attrs.field(validator=[validators.instance_of(int), validators.ge(0)])
    per: float = attrs.field(validator=_above_zero)

    def __str__(self) -> str:
        return f"{self.count} in {self.per:g} s"


class Window:
    """The restarts of the last seconds, held against a limit.

    Source: the restart intensity of OTP supervisors (*MaxR* restarts within *MaxT* seconds).
    """

    __slots__ = ("_limit", "_times")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._times: deque[float] = deque()

    def count(self, now: float) -> bool:
        """Whether one more restart, now, is within the limit."""
        times = self._times
        while times and times[0] <= now - self._limit.per:
            times.popleft()
        times.append(now)
        return len(times) <= self._limit.count


class Repetitions:
    """The starts of one child in a row, for its backoff."""

    __slots__ = ("_backoff", "_count")

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._count = 0

    def next_delay(self, ran: float) -> float:
        """Seconds before the next start, after `ran` seconds of healthy running."""
        if ran >= self._backoff.reset_after:
            self._count = 0
        self._count += 1
        return self._backoff.delay(self._count)

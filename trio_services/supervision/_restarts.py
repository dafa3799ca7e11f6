"""Whether to start a service again, when, and when that is too much. Pure."""

from __future__ import annotations

import math

import attrs

from ..resilience import Backoff, Breaker, Circuit, Window


def _above_zero(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value}")


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"{attribute.name} must be a whole number of at least 0, not {value}")


@attrs.frozen
class Limit:
    """At most `count` (≥ 0) of something within any `per` seconds (> 0)."""

    count: int = attrs.field(validator=_count)
    per: float = attrs.field(validator=_above_zero)

    def __str__(self) -> str:
        return f"{self.count} in {self.per:g} s"

    def window(self) -> Window:
        """Counts what it limits; full with one too many."""
        return Window(self.count + 1, self.per)


class Restarts:
    """What is remembered of one child's endings, to decide what follows the next.

    What follows an ending takes the time in seconds, and the window that the restarts of all its
    siblings count in. It returns the seconds until the next start, or None when that would be one
    too many.

    Attributes:
        circuit: its circuit breaker, if it has one; then its failures do not count in the window.
    """

    __slots__ = ("_backoff", "_repetition", "circuit")

    def __init__(self, backoff: Backoff, breaker: Breaker | None) -> None:
        self._backoff = backoff
        self._repetition = 0
        self.circuit: Circuit | None = Circuit(breaker) if breaker is not None else None

    def ran(self, seconds: float) -> None:
        """It had been ready for so long when it ended, or was told to."""
        if seconds >= self._backoff.reset_after:
            self._repetition = 0

    def after_failure(self, now: float, window: Window) -> float | None:
        """It failed."""
        circuit = self.circuit
        if circuit is None:
            return None if window.add(now) else self._next_delay()
        if circuit.failed(now):
            return None if circuit.given_up else circuit.due - now
        return self._next_delay()

    def after_return(self, now: float, window: Window) -> float | None:
        """It returned, and is to be started again."""
        return None if window.add(now) else self._next_delay()

    def _next_delay(self) -> float:
        self._repetition += 1
        return self._backoff.delay(self._repetition)

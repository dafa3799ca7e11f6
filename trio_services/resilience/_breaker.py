"""The circuit breaker: leave alone what keeps failing, and look now and then. Pure.

Theory. A circuit is closed while all is well, and counts failures in a sliding window. Too many,
and it opens: nothing is tried for a while. Then it is half-open, and lets exactly one attempt
through, the probe. If that stays healthy for long enough the circuit closes, and forgets; if it
fails the circuit opens again, for twice as long, up to a cap.

==========  ========================  =========  =========================================
state       what happens              state      and
==========  ========================  =========  =========================================
CLOSED      the last failure too many OPEN       due after `reset_after`
CLOSED      tripped by hand           OPEN       the same
OPEN        due                       HALF_OPEN  one probe
OPEN        reset by hand             CLOSED
HALF_OPEN   the probe fails           OPEN       due after twice the last delay, or never
                                                 again after `give_up_after` openings
HALF_OPEN   tripped by hand           OPEN       due after the last delay again
HALF_OPEN   the probe does not come   OPEN       due at once
HALF_OPEN   the probe stays healthy   CLOSED     openings are counted from the start again
HALF_OPEN   reset by hand             CLOSED
==========  ========================  =========  =========================================

Source: Nygard, *Release It!*, 2007, "Circuit Breaker"; the growing delay is that of a `Backoff`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

import attrs
from attrs import validators

from ._backoff import Backoff
from ._window import Window


class BreakerState(StrEnum):
    """What a circuit breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """One probe."""


BREAKER_TRANSITIONS: Mapping[BreakerState, frozenset[BreakerState]] = MappingProxyType(
    {
        BreakerState.CLOSED: frozenset({BreakerState.OPEN}),
        BreakerState.OPEN: frozenset({BreakerState.HALF_OPEN, BreakerState.CLOSED}),
        BreakerState.HALF_OPEN: frozenset({BreakerState.OPEN, BreakerState.CLOSED}),
    }
)


def _above_zero(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value}")


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{attribute.name} must be a whole number of at least 1, not {value}")


@attrs.frozen
class Breaker:
    """When to leave alone what keeps failing, and when to look again.

    Args:
        failures: this many within `within` seconds open it; ≥ 1.
        within: seconds; > 0.
        reset_after: seconds that it is open before the first probe; > 0. Each time that a probe
            fails, twice as long.
        cap: but never longer than this many seconds; > 0.
        healthy_after: seconds that a probe has to stay healthy to close it; ≥ 0.
        give_up_after: when it has opened this often, the next failing probe is the last; ≥ 1.
            None: never.
        jitter: the share of each open time that is drawn at random, 0 … 1; 0 makes it exact.
    """

    failures: int = attrs.field(default=5, validator=_count)
    within: float = attrs.field(converter=float, default=60.0, validator=_above_zero)
    reset_after: float = attrs.field(converter=float, default=30.0, validator=_above_zero)
    cap: float = attrs.field(converter=float, default=600.0, validator=_above_zero)
    healthy_after: float = attrs.field(
        converter=float, default=10.0, validator=[validators.ge(0), validators.lt(math.inf)]
    )
    give_up_after: int | None = attrs.field(default=None, validator=validators.optional(_count))
    jitter: float = attrs.field(
        converter=float, default=0.1, validator=[validators.ge(0), validators.le(1)]
    )


class Circuit:
    """One breaker at work.

    Attributes:
        breaker: its policy.
        state: see the table above.
        opened: how often it has opened since it was last closed.
        due: when the probe may start, in the caller's seconds; infinite after the last one.
    """

    __slots__ = ("_delays", "_draw", "_failures", "breaker", "due", "opened", "state")

    def __init__(self, breaker: Breaker, draw: Callable[[], float] = random.random) -> None:
        self.breaker: Breaker = breaker
        self._delays = Backoff(breaker.reset_after, 2.0, breaker.cap, breaker.jitter)
        self._draw = draw
        self._failures = Window(breaker.failures, breaker.within)
        self.state: BreakerState = BreakerState.CLOSED
        self.opened: int = 0
        self.due: float = math.inf

    @property
    def given_up(self) -> bool:
        """Whether it is open for ever, unless it is reset by hand."""
        return self.state is BreakerState.OPEN and self.due == math.inf

    def failed(self, now: float) -> bool:
        """An attempt has failed; whether that opens the circuit.

        Failures of attempts that began before it opened change nothing while it is open.
        """
        if self.state is BreakerState.OPEN:
            return False
        if self.state is BreakerState.CLOSED and not self._failures.add(now):
            return False
        self._enter(BreakerState.OPEN)
        self.opened += 1
        last = self.breaker.give_up_after
        if last is not None and self.opened > last:
            self.due = math.inf
        else:
            self.due = now + self._delays.delay(self.opened, self._draw)
        return True

    def trip(self, now: float) -> None:
        """Open it by hand, or keep it open for as long again; given up, it stays that."""
        if self.given_up:
            return
        if self.state is not BreakerState.OPEN:
            self._enter(BreakerState.OPEN)
            self.opened = max(self.opened, 1)
        self.due = now + self._delays.delay(self.opened, self._draw)

    def probe(self) -> None:
        """The one attempt that decides begins."""
        self._enter(BreakerState.HALF_OPEN)

    def postpone(self, now: float) -> None:
        """The probe did not come to show anything: the next attempt is one instead."""
        self._enter(BreakerState.OPEN)
        self.due = now

    def close(self) -> None:
        """The probe is healthy, or the circuit is reset by hand: forget the failures."""
        if self.state is not BreakerState.CLOSED:
            self._enter(BreakerState.CLOSED)
        self.opened = 0
        self.due = math.inf
        self._failures.clear()

    def _enter(self, state: BreakerState) -> None:
        if state not in BREAKER_TRANSITIONS[self.state]:
            raise RuntimeError(f"a breaker cannot go from {self.state} to {state}")
        self.state = state

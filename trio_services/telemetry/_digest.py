"""Which events are worth an alert, and when to tell them. Pure: times come in as arguments.

Theory. An alert is about a condition: a kind of trouble of one service. Its first occurrence is
told after a moment, so that what one cause brings about comes together. Once it has been told,
further occurrences are counted, and told after a long time. When it is over, that is told once it
has been for a while, so that trouble which comes and goes is not told at each turn. There are
bounds to the conditions that wait to be told, and to those that are remembered: a storm costs no
memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import attrs

from ..errors import Failure
from ..lifecycle import events

AlertKind = Literal["breaker_opened", "restart_limit", "job_dead", "stop_overdue", "service_failed"]
"""What there can be an alert about."""

GATHER = 1.0
"""Seconds in which the consequences of one cause are waited for."""
REPEAT_AFTER = 300.0
"""Seconds after which trouble that goes on is told again."""
STEADY = 10.0
"""Seconds for which trouble has to be over for that to be told."""
CAPACITY = 500
"""Conditions that wait to be told at most, and that are remembered."""


@attrs.frozen
class Alert:
    """One condition.

    Args:
        kind: of trouble.
        service: whose.
        text: what happened the last time; of a failure its type and place, and not its message,
            in which there may be secrets.
        count: how often it happened since it was last told; 0 where only its end is told.
        recovered: whether it is over.
    """

    kind: AlertKind
    service: str
    text: str
    count: int
    recovered: bool

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        over = "recovered: " if self.recovered else ""
        return f"{over}{self.service}: {self.text}{times}"


_Key = tuple[AlertKind, str]


@attrs.define
class _Waiting:
    """A condition of which something has to be told when it is `due`."""

    text: str
    due: float
    count: int = 0
    recovered: bool = False


@attrs.define
class _Told:
    at: float
    text: str


class Digest:
    """What has to be told of the events that it heard; each method takes the present time.

    Args:
        on: the kinds that it heeds.
    """

    def __init__(self, on: Collection[AlertKind]) -> None:
        self._on = frozenset(on)
        self._waiting: dict[_Key, _Waiting] = {}
        self._told: dict[_Key, _Told] = {}
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def hear(self, event: events.Event, now: float) -> bool:
        """Take an event into account; whether `due` may be another one since."""
        if (trouble := _TROUBLE.get(type(event))) is not None:
            kind, describe = trouble
            return kind in self._on and self._begin((kind, event.service), describe(event), now)
        changed = False
        for kind in _ENDS.get(type(event), ()):
            if kind in self._on and self._end((kind, event.service), now):
                changed = True
        return changed

    @property
    def due(self) -> float:
        """When there is something to tell; infinite if there is nothing."""
        return min((one.due for one in self._waiting.values()), default=math.inf)

    def take(self, now: float, *, early: bool = False) -> list[Alert]:
        """What is to be told now, and is held to be told from now on.

        Args:
            now: the time.
            early: whether to take also what is due later, because there is no later.
        """
        keys = [key for key, one in self._waiting.items() if early or one.due <= now]
        return [self._take(key, now) for key in keys]

    def _take(self, key: _Key, now: float) -> Alert:
        one = self._waiting.pop(key)
        self._told.pop(key, None)
        if not one.recovered:
            self._told[key] = _Told(now, one.text)
            if len(self._told) > CAPACITY:  # of the oldest, the end will not be told
                del self._told[next(iter(self._told))]
        return Alert(*key, one.text, one.count, one.recovered)

    def _begin(self, key: _Key, text: str, now: float) -> bool:
        told = self._told.get(key)
        one = self._waiting.get(key)
        if one is None:
            if len(self._waiting) >= CAPACITY:
                self.dropped += 1
                return False
            one = self._waiting[key] = _Waiting(text, now + GATHER)
        elif one.count and not one.recovered:
            one.text = text
            one.count += 1
            return False
        if told is not None:
            one.due = max(now + GATHER, told.at + REPEAT_AFTER)
        one.text, one.recovered = text, False
        one.count += 1
        return True

    def _end(self, key: _Key, now: float) -> bool:
        told = self._told.get(key)
        one = self._waiting.get(key)
        if one is None:
            if told is None or len(self._waiting) >= CAPACITY:
                return False
            one = self._waiting[key] = _Waiting(told.text, now)
        one.recovered = True
        if told is not None:
            one.due = now + STEADY
        return told is not None


def _failure(failure: Failure) -> str:
    """What failed, without its message."""
    return f"{failure.type} at {failure.where}" if failure.where else failure.type


_TROUBLE: Mapping[type[events.Event], tuple[AlertKind, Callable[[Any], str]]] = {
    events.BreakerOpened: ("breaker_opened", lambda event: f"breaker open for {event.delay:.3g} s"),
    events.BreakerGaveUp: ("breaker_opened", lambda _: "breaker gave up: stays down"),
    events.SupervisorGaveUp: ("restart_limit", lambda event: f"gave up: {event.reason}"),
    events.JobDead: (
        "job_dead",
        lambda event: f"a job of {event.source} is dead: {_failure(event.failure)}",
    ),
    events.ServiceOverdue: (
        "stop_overdue",
        lambda event: f"still there {event.overdue:.3g} s past the deadline of its stop",
    ),
    events.ServiceFailed: ("service_failed", lambda event: f"failed: {_failure(event.failure)}"),
}
_ENDS: Mapping[type[events.Event], tuple[AlertKind, ...]] = {
    events.ServiceReady: ("service_failed", "restart_limit"),
    events.ServiceStopped: ("stop_overdue",),
    events.BreakerClosed: ("breaker_opened",),
}

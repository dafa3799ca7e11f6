"""How often something may happen: a token bucket. Pure: times come in as arguments.

Theory. A bucket holds `burst` tokens and begins full; each use takes one, and `count` flow in every
`per` seconds until it is full again. To be exact for ever it does not count in fractions of tokens,
which add up to errors, but from the last moment at which it was full: the n-th use since then is
due when n - `burst` tokens have flowed in.

Source: the generic cell rate algorithm of ITU-T I.371 decides the same.
"""

from __future__ import annotations

import math

import attrs
from attrs import validators


def _above_zero(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value}")


def _count(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{attribute.name} must be a whole number of at least 1, not {value}")


@attrs.frozen
class Rate:
    """At most so many in so many seconds.

    Args:
        count: how many in the long run; ≥ 1.
        per: in how many seconds; > 0.
        burst: how many at once after a pause; ≥ 1. With 1 they are evenly spaced. In any `per`
            seconds there are at most `burst` + `count`. Default: `count`.
    """

    count: int = attrs.field(validator=_count)
    per: float = attrs.field(converter=float, validator=_above_zero)
    burst: int | None = attrs.field(default=None, validator=validators.optional(_count))


class Bucket:
    """One rate at work; it begins full.

    Args:
        rate: its size and how fast it fills.
    """

    __slots__ = ("_burst", "_count", "_full_at", "_per", "_taken")

    def __init__(self, rate: Rate) -> None:
        self._count = rate.count
        self._per = rate.per
        self._burst = rate.burst or rate.count
        self._full_at = -math.inf  # the last time that it was known to be full
        self._taken = 0  # since then

    def due(self, now: float) -> float:
        """When the next token is there, in the caller's seconds; `now` if one is."""
        return max(now, self._flowed_in(self._taken + 1 - self._burst))

    def take(self, now: float) -> None:
        """Take one, at a time when one is there; not earlier than the last one was taken."""
        if now > self._flowed_in(self._taken):  # and not at that moment, which counts on exactly
            self._full_at = now
            self._taken = 0
        self._taken += 1

    def _flowed_in(self, tokens: int) -> float:
        """When so many have flowed in since it was full."""
        return self._full_at + tokens * self._per / self._count

"""How long to wait before the next attempt. Pure: no clock, no sleeping."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import attrs
from attrs import validators


def _finite(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{attribute.name} must be a finite number, not {value}")


@attrs.frozen
class Backoff:
    """Exponential, capped, jittered delays between attempts.

    Args:
        initial: seconds before the first repetition; ≥ 0. Zero repeats at once.
        factor: each delay is this many times the one before; ≥ 1.
        cap: no delay is longer than this many seconds; ≥ 0.
        jitter: the share of each delay that is drawn at random, 0 … 1. With 0 delays are exact;
            with 1 they are anywhere between nothing and the full delay.
        reset_after: seconds of healthy running after which a supervisor counts from the start
            again; ≥ 0.

    Source: exponential backoff with "full" (jitter=1) and "equal" (jitter=0.5) jitter as in
    Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015.
    """

    initial: float = attrs.field(
        converter=float, default=0.5, validator=[_finite, validators.ge(0)]
    )
    factor: float = attrs.field(converter=float, default=2.0, validator=[_finite, validators.ge(1)])
    cap: float = attrs.field(converter=float, default=60.0, validator=[_finite, validators.ge(0)])
    jitter: float = attrs.field(
        converter=float, default=0.25, validator=[validators.ge(0), validators.le(1)]
    )
    reset_after: float = attrs.field(converter=float, default=60.0, validator=validators.ge(0))

    def delay(self, repetition: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait before a repetition, the first being 1; between 0 and `cap`.

        `draw` gives uniform numbers in [0, 1); give a seeded one for reproducible delays.
        """
        if repetition < 1:
            raise ValueError(f"repetitions count from 1, not {repetition}")
        if not self.initial:
            return 0.0
        try:
            full = min(self.initial * self.factor ** (repetition - 1), self.cap)
        except OverflowError:  # of a power that is past any cap
            full = self.cap
        return full - full * self.jitter * draw() if self.jitter else full

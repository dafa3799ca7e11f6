"""Policies for work that may fail or take too long: frozen values, and what applies them."""

from ._backoff import Backoff as Backoff
from ._breaker import (
    BREAKER_TRANSITIONS as BREAKER_TRANSITIONS,
    Breaker as Breaker,
    BreakerState as BreakerState,
    Circuit as Circuit,
)
from ._fallback import Fallback as Fallback
from ._limits import (
    Bulkhead as Bulkhead,
    Compartment as Compartment,
    RateLimiter as RateLimiter,
    timeout as timeout,
)
from ._rate import Bucket as Bucket, Rate as Rate
from ._retry import Retry as Retry, Transient as Transient, is_transient as is_transient
from ._window import Window as Window

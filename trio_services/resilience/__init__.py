"""Policies for work that may fail or take too long: frozen values, and what applies them."""

from ._backoff import Backoff as Backoff
from ._breaker import (
    BREAKER_TRANSITIONS as BREAKER_TRANSITIONS,
    Breaker as Breaker,
    BreakerState as BreakerState,
    Circuit as Circuit,
)
from ._limits import timeout as timeout
from ._retry import Retry as Retry, Transient as Transient
from ._window import Window as Window

"""The life of a service: its states, the events it publishes, and graceful cancellation."""

from . import _events as events
from ._alarms import Alarms as Alarms
from ._bus import Bus as Bus, Listener as Listener, Subscription as Subscription
from ._failure import (
    asks_for_exit as asks_for_exit,
    leaves_of as leaves_of,
    set_aside_cancellations as set_aside_cancellations,
    single_errors_as_themselves as single_errors_as_themselves,
    summarize as summarize,
)
from ._grace import graceful as graceful
from ._health import Health as Health, HealthStatus as HealthStatus
from ._injection import (
    HostInjector as HostInjector,
    Injector as Injector,
    JobCall as JobCall,
    ServiceInjector as ServiceInjector,
)
from ._lifetime import (
    AtWork as AtWork,
    Lifetime as Lifetime,
    current_service as current_service,
    enter_service as enter_service,
    surrounding_service as surrounding_service,
)
from ._state import TRANSITIONS as TRANSITIONS, State as State

__all__ = [
    "TRANSITIONS",
    "Alarms",
    "AtWork",
    "Bus",
    "Health",
    "HealthStatus",
    "HostInjector",
    "Injector",
    "JobCall",
    "Lifetime",
    "Listener",
    "ServiceInjector",
    "State",
    "Subscription",
    "asks_for_exit",
    "current_service",
    "enter_service",
    "events",
    "graceful",
    "leaves_of",
    "set_aside_cancellations",
    "single_errors_as_themselves",
    "summarize",
    "surrounding_service",
]

"""Background services on Trio: supervised, stopped on time, accounted for.

The names that every program needs are here; all else lives in its room, like
`trio_services.resilience`. They are imported when first used, so that `import trio_services`
costs nothing, and a command line tool can show its help without starting up Trio.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .di import (
        HOST as HOST,
        JOB as JOB,
        SERVICE as SERVICE,
        Container as Container,
    )
    from .errors import (
        ConfigError as ConfigError,
        DisposalTimeout as DisposalTimeout,
        InjectionError as InjectionError,
        PlanError as PlanError,
        QueueClosed as QueueClosed,
        QueueFull as QueueFull,
        RestartLimitExceeded as RestartLimitExceeded,
        ServicesError as ServicesError,
        StartFailed as StartFailed,
        StartTimeout as StartTimeout,
        StopFailed as StopFailed,
        StopOverdue as StopOverdue,
        TimedOut as TimedOut,
        UnknownService as UnknownService,
    )
    from .host import (
        Host as Host,
        HostSettings as HostSettings,
        open_host as open_host,
        run as run,
        serve as serve,
    )
    from .lifecycle import (
        Health as Health,
        current_service as current_service,
        events as events,
        graceful as graceful,
    )
    from .queues import (
        Discard as Discard,
        Schedule as Schedule,
        Workers as Workers,
        WorkQueue as WorkQueue,
    )
    from .resilience import Backoff as Backoff, Breaker as Breaker, Retry as Retry
    from .services import Service as Service, service as service
    from .supervision import (
        Child as Child,
        Limit as Limit,
        Supervisor as Supervisor,
        open_supervisor as open_supervisor,
    )
    from .timers import Tick as Tick, every as every

__all__ = [
    "HOST",
    "JOB",
    "SERVICE",
    "Backoff",
    "Breaker",
    "Child",
    "ConfigError",
    "Container",
    "Discard",
    "DisposalTimeout",
    "Health",
    "Host",
    "HostSettings",
    "InjectionError",
    "Limit",
    "PlanError",
    "QueueClosed",
    "QueueFull",
    "RestartLimitExceeded",
    "Retry",
    "Schedule",
    "Service",
    "ServicesError",
    "StartFailed",
    "StartTimeout",
    "StopFailed",
    "StopOverdue",
    "Supervisor",
    "Tick",
    "TimedOut",
    "UnknownService",
    "WorkQueue",
    "Workers",
    "__version__",
    "current_service",
    "events",
    "every",
    "graceful",
    "open_host",
    "open_supervisor",
    "run",
    "serve",
    "service",
]

_ROOMS = {
    "di": ("HOST", "JOB", "SERVICE", "Container"),
    "errors": (
        "ConfigError",
        "DisposalTimeout",
        "InjectionError",
        "PlanError",
        "QueueClosed",
        "QueueFull",
        "RestartLimitExceeded",
        "ServicesError",
        "StartFailed",
        "StartTimeout",
        "StopFailed",
        "StopOverdue",
        "TimedOut",
        "UnknownService",
    ),
    "host": ("Host", "HostSettings", "open_host", "run", "serve"),
    "lifecycle": ("Health", "current_service", "events", "graceful"),
    "queues": ("Discard", "Schedule", "WorkQueue", "Workers"),
    "resilience": ("Backoff", "Breaker", "Retry"),
    "services": ("Service", "service"),
    "supervision": ("Child", "Limit", "Supervisor", "open_supervisor"),
    "timers": ("Tick", "every"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOM_OF})

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
        BreakerOpen as BreakerOpen,
        BulkheadFull as BulkheadFull,
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
        WorkerProcessDied as WorkerProcessDied,
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
        Batch as Batch,
        Discard as Discard,
        RetryLater as RetryLater,
        Schedule as Schedule,
        Workers as Workers,
        WorkQueue as WorkQueue,
    )
    from .resilience import (
        Backoff as Backoff,
        Breaker as Breaker,
        Rate as Rate,
        Retry as Retry,
    )
    from .secrets import Secret as Secret
    from .services import Service as Service, service as service
    from .supervision import (
        Child as Child,
        Limit as Limit,
        Supervisor as Supervisor,
        open_supervisor as open_supervisor,
    )
    from .timers import Tick as Tick, at as at, every as every

__all__ = [
    "HOST",
    "JOB",
    "SERVICE",
    "Backoff",
    "Batch",
    "Breaker",
    "BreakerOpen",
    "BulkheadFull",
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
    "Rate",
    "RestartLimitExceeded",
    "Retry",
    "RetryLater",
    "Schedule",
    "Secret",
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
    "WorkerProcessDied",
    "Workers",
    "__version__",
    "at",
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
        "BreakerOpen",
        "BulkheadFull",
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
        "WorkerProcessDied",
    ),
    "host": ("Host", "HostSettings", "open_host", "run", "serve"),
    "lifecycle": ("Health", "current_service", "events", "graceful"),
    "queues": ("Batch", "Discard", "RetryLater", "Schedule", "WorkQueue", "Workers"),
    "resilience": ("Backoff", "Breaker", "Rate", "Retry"),
    "secrets": ("Secret",),
    "services": ("Service", "service"),
    "supervision": ("Child", "Limit", "Supervisor", "open_supervisor"),
    "timers": ("Tick", "at", "every"),
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

"""Telemetry: reads events and statistics, and tells people and machines."""

from typing import TYPE_CHECKING

from ._alerts import (
    LAST_WORD_WITHIN as LAST_WORD_WITHIN,
    Alerts as Alerts,
    AlertStatistics as AlertStatistics,
    AlertTarget as AlertTarget,
    Watched as Watched,
    alerting as alerting,
)
from ._digest import AlertKind as AlertKind
from ._health import (
    HealthChecks as HealthChecks,
    HealthReport as HealthReport,
    ServiceHealth as ServiceHealth,
)
from ._logs import (
    LEVELS as LEVELS,
    EventLog as EventLog,
    Logger as Logger,
    LogSettings as LogSettings,
    configure_logs as configure_logs,
    log_critical as log_critical,
    service_logger as service_logger,
)
from ._meter import Meter as Meter, Readings as Readings
from ._sinks import check_alert_url as check_alert_url, open_sink as open_sink

if TYPE_CHECKING:
    from ._metrics import CONTENT_TYPE as CONTENT_TYPE, as_openmetrics as as_openmetrics
else:

    def __getattr__(name):
        # prometheus-client is slow to import: only a program that is scraped pays for it.
        if name in {"CONTENT_TYPE", "as_openmetrics"}:
            from . import _metrics

            return getattr(_metrics, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Telemetry: reads events and statistics, and tells people and machines."""

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

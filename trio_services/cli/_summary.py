"""What `check` says of a configuration in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict
from urllib.parse import urlsplit

from ..config import Application, Configuration, format_duration


class ServiceSummary(TypedDict):
    """One of `services`."""

    name: str
    use: str
    after: list[str]


class WorkersSummary(TypedDict):
    """One of `workers`."""

    name: str
    queue: str
    handler: str
    count: int
    after: list[str]


class ScheduleSummary(TypedDict):
    """One of `schedules`; `every` is in seconds, None where there is a `cron` instead."""

    name: str
    call: str
    every: float | None
    cron: str | None
    timezone: str | None
    after: list[str]


class QueueSummary(TypedDict):
    """One of `queues`."""

    name: str
    capacity: int
    when_full: str


class AlertSummary(TypedDict):
    """One of `alerts`, without its address, which is a secret."""

    name: str
    on: list[str]


class StopSummary(TypedDict):
    """How long a stop takes at worst, and how long it may take, in seconds."""

    worst: float
    within: float


class Summary(TypedDict):
    """The whole application."""

    ok: bool
    file: str
    name: str
    services: list[ServiceSummary]
    workers: list[WorkersSummary]
    schedules: list[ScheduleSummary]
    queues: list[QueueSummary]
    alerts: list[AlertSummary]
    admin: str | None
    database: str | None
    stop: StopSummary


def as_dict(configuration: Configuration, application: Application) -> Summary:
    """The summary as a program reads it."""
    tables = configuration.tables
    return Summary(
        ok=True,
        file=str(configuration.source),
        name=application.tree.name,
        services=[
            ServiceSummary(name=name, use=str(table.use), after=list(table.after))
            for name, table in tables.services.items()
        ],
        workers=[
            WorkersSummary(
                name=name,
                queue=table.queue,
                handler=str(table.handler),
                count=table.count,
                after=list(table.after),
            )
            for name, table in tables.workers.items()
        ],
        schedules=[
            ScheduleSummary(
                name=name,
                call=str(table.call),
                every=table.every,
                cron=table.cron,
                timezone=table.timezone,
                after=list(table.after),
            )
            for name, table in tables.schedules.items()
        ],
        queues=[
            QueueSummary(name=name, capacity=table.capacity, when_full=table.when_full)
            for name, table in tables.queues.items()
        ],
        alerts=[
            AlertSummary(name=name, on=list(table.on)) for name, table in tables.alerts.items()
        ],
        admin=application.admin,
        database=_database(application),
        stop=StopSummary(worst=application.worst_stop, within=application.stop_within),
    )


def as_text(summary: Summary) -> str:
    """The summary as people read it."""
    rows = list(_rows(summary))
    kinds = max(len(kind) for kind, _, _ in rows)
    names = max(len(name) for _, name, _ in rows)
    lines = [f"  {kind:<{kinds}}  {name:<{names}}  {text}" for kind, name, text in rows]
    return "\n".join([f"{summary['file']} is sound: {summary['name']}", *lines])


def _rows(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """What there is: of which kind, its name, and what it does."""
    for service in summary["services"]:
        yield "service", service["name"], service["use"] + _after(service["after"])
    for pool in summary["workers"]:
        text = f"{pool['handler']} on {pool['queue']}, {pool['count']} at a time"
        yield "workers", pool["name"], text + _after(pool["after"])
    for schedule in summary["schedules"]:
        text = f"{schedule['call']} {_times(schedule)}"
        yield "schedule", schedule["name"], text + _after(schedule["after"])
    for queue in summary["queues"]:
        full = _WHEN_FULL[queue["when_full"]]
        yield "queue", queue["name"], f"holds {queue['capacity']} items, then {full}"
    for alert in summary["alerts"]:
        yield "alerts", alert["name"], f"on {', '.join(alert['on'])}"
    if summary["database"] is not None:
        yield "database", "", summary["database"]
    if summary["admin"] is not None:
        yield "admin", "", summary["admin"]
    worst, within = summary["stop"]["worst"], summary["stop"]["within"]
    yield "stop", "", f"{format_duration(worst)} at worst, of {format_duration(within)}"


_WHEN_FULL = {
    "wait": "a put waits",
    "reject": "a put is rejected",
    "drop_oldest": "the oldest is dropped",
    "drop_newest": "what is put is dropped",
}


def _times(schedule: ScheduleSummary) -> str:
    if schedule["every"] is not None:
        return f"every {format_duration(schedule['every'])}"
    return f"at {schedule['cron']} {schedule['timezone'] or 'UTC'}"


def _database(application: Application) -> str | None:
    """Where the data is, without a user's name and password."""
    if application.database is None:
        return None
    if application.database.server is not None:
        return f"embedded in {application.database.server.path}"
    url = urlsplit(application.database.url)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def _after(names: list[str]) -> str:
    return f", after {' and '.join(names)}" if names else ""

"""What a configuration file may say: one frozen class for each table.

Each field's metadata holds its documentation, and the unit of its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NewType

import attrs
from attrs import field

from ..secrets import Secret
from ..telemetry import AlertKind
from ._constraints import (
    above_zero,
    at_least,
    at_most,
    is_alert_url,
    is_cron,
    is_database_url,
    is_filled,
    is_name,
    is_package,
    is_timezone,
)
from ._durations import Seconds
from ._policies import (
    BackoffTable,
    BatchTable,
    BreakerTable,
    LimitTable,
    RateTable,
    RetryTable,
    about,
)
from ._problems import KeyPath, Origins
from ._reference import CodeReference

RESERVED = frozenset({"admin", "alerts", "database", "host", "reload", "systemd"})

CHILDREN = ("services", "workers", "schedules")
"""The tables of what runs, whose names are one namespace."""
NAMED = ("alerts", "queues", *CHILDREN)
"""The tables that hold tables under names of their own."""

Level = Literal["trace", "debug", "info", "success", "warning", "error", "critical"]

Options = NewType("Options", Mapping[str, object])
"""A table whose keys only the code that asks for it knows."""


@attrs.frozen
class HostTable:
    """`[host]`: the application as a whole."""

    name: str = field(
        default="app",
        validator=is_name,
        metadata=about("What the application is called in logs and paths."),
    )
    stop_within: Seconds = field(
        default=30.0,
        validator=above_zero,
        metadata=about("A stop ends within this time, come what may.", "seconds"),
    )
    imports: tuple[str, ...] = field(
        default=(),
        validator=is_package,
        metadata=about("The only packages that this file may load code from."),
    )
    container: CodeReference | None = field(
        default=None,
        metadata=about('The Container of what code gets by type, as "package.module:name".'),
    )
    max_restarts: LimitTable = field(
        default=LimitTable(),
        metadata=about("How many restarts of services are too many."),
    )
    watch: bool = field(
        default=True,
        metadata=about("Whether a change of this file is applied by itself; SIGHUP applies it."),
    )


@attrs.frozen
class LogTable:
    """`[log]`."""

    level: Level = field(
        default="info", metadata=about("Messages below this level are not written.")
    )
    format: Literal["console", "json"] = field(
        default="console", metadata=about("Lines for people, or one JSON object a line.")
    )
    levels: Mapping[str, Level] = field(
        factory=dict[str, Level], metadata=about("Levels of single services, by their names.")
    )


@attrs.frozen
class AdminTable:
    """`[admin]`; without it there is no admin address."""

    bind: str = field(
        metadata=about('Where probes and scrapes are answered: "127.0.0.1:8765", "unix:run/admin".')
    )


@attrs.frozen
class DatabaseTable:
    """`[database]`; without it there is no database."""

    url: str | Secret = field(
        validator=is_database_url,
        metadata=about('Where it is: "embedded:DIRECTORY", or "postgresql://HOST/DATABASE".'),
    )
    migrations: str | None = field(
        default=None,
        metadata=about("The folder of numbered SQL files that are applied before all else."),
    )


@attrs.frozen
class AlertTable:
    """`[alerts.NAME]`: somebody who is told of troubles."""

    url: str | Secret = field(
        repr=False,
        validator=is_alert_url,
        metadata=about('Where to: a webhook, "https://HOST/PATH", or an address of Apprise.'),
    )
    on: tuple[AlertKind, ...] = field(
        validator=is_filled, metadata=about("The kinds of trouble to tell of.")
    )


@attrs.frozen
class QueueTable:
    """`[queues.NAME]`: a bounded queue in memory."""

    capacity: int = field(
        default=100,
        validator=at_least(1),
        metadata=about("How many items may wait.", "items"),
    )
    when_full: Literal["wait", "reject", "drop_oldest", "drop_newest"] = field(
        default="wait",
        metadata=about("What a put does then: wait for room, fail, or give up an item."),
    )


@attrs.frozen(kw_only=True)
class ChildTable:
    """What can be said of everything that runs; None leaves it to the framework."""

    after: tuple[str, ...] = field(
        default=(), metadata=about("What has to be ready before, and stops later.")
    )
    restart: Literal["always", "on_failure", "never"] | None = field(
        default=None, metadata=about("After which end it is started again.")
    )
    backoff: BackoffTable | None = field(
        default=None, metadata=about("The delays before restarts.")
    )
    breaker: BreakerTable | None = field(
        default=None, metadata=about("Leaves it alone for a while when it fails too often.")
    )
    start_within: Seconds | None = field(
        default=None,
        validator=above_zero,
        metadata=about("How long it may take to become ready.", "seconds"),
    )
    stop_within: Seconds | None = field(
        default=None,
        validator=at_least(0),
        metadata=about("How long it has, at a stop, for the work in hand.", "seconds"),
    )
    stale_after: Seconds | None = field(
        default=None,
        validator=above_zero,
        metadata=about("How long it may go without saying that it makes progress.", "seconds"),
    )
    critical: bool = field(
        default=True,
        metadata=about("Whether the host gives up when it has failed for good."),
    )
    retry_start: bool = field(
        default=True,
        metadata=about("Whether it is tried again when its first start fails."),
    )
    options: Options | None = field(
        default=None,
        repr=False,  # may hold what should not be in a log
        metadata=about("What its code asks for as `options`, checked against their class."),
    )


@attrs.frozen(kw_only=True)
class ServiceTable(ChildTable):
    """`[services.NAME]`."""

    use: CodeReference = field(
        metadata=about('The Service class or async function, as "package.module:name".')
    )
    leader_only: bool = field(
        default=False,
        metadata=about("Whether of all processes with this database only one runs it."),
    )


@attrs.frozen(kw_only=True)
class WorkersTable(ChildTable):
    """`[workers.NAME]`: a pool of workers that drains a queue."""

    queue: str = field(metadata=about("The queue that it takes items from."))
    handler: CodeReference = field(
        metadata=about('What is called with each item, as "package.module:name".')
    )
    count: int = field(
        default=1,
        validator=[at_least(1), at_most(10_000)],
        metadata=about("How many items are worked on at the same time.", "workers"),
    )
    timeout: Seconds | None = field(
        default=None,
        validator=above_zero,
        metadata=about("How long one attempt may take.", "seconds"),
    )
    retry: RetryTable | None = field(
        default=None, metadata=about("Whether and when a failed item is tried again.")
    )
    rate: RateTable | None = field(
        default=None, metadata=about("How often the handler is called at most.")
    )
    breaker: BreakerTable | None = field(
        default=None,
        metadata=about("Takes nothing for a while when attempts fail too often."),
    )
    batch: BatchTable | None = field(
        default=None, metadata=about("Hands over lists of items; not together with `key`.")
    )
    key: CodeReference | None = field(
        default=None,
        metadata=about("What is called with an item for what keeps it in order with others."),
    )
    isolation: Literal["task", "thread", "process"] = field(
        default="task",
        metadata=about("Where the handler runs; but for a task, it is no async function."),
    )
    fallback: CodeReference | None = field(
        default=None,
        metadata=about("What is called instead, with item and error, after the last attempt."),
    )
    on_dead: CodeReference | None = field(
        default=None,
        metadata=about("What is called with the item and the error of a job that failed for good."),
    )
    on_left: CodeReference | None = field(
        default=None,
        metadata=about("What is called with each item that is left at the last stop."),
    )
    drain: bool = field(
        default=False,
        metadata=about("Whether a stop finishes what waits too, as far as there is time."),
    )
    feeds: tuple[str, ...] = field(
        default=(),
        metadata=about("The queues that the handler fills, which are closed when this has ended."),
    )


@attrs.frozen(kw_only=True)
class ScheduleTable(ChildTable):
    """`[schedules.NAME]`: a call on a fixed grid of times, or at times of day."""

    call: CodeReference = field(metadata=about('What is called, as "package.module:name".'))
    every: Seconds | None = field(
        default=None,
        validator=above_zero,
        metadata=about("The time between two calls; either this or `cron`.", "seconds"),
    )
    cron: str | None = field(
        default=None,
        validator=is_cron,
        metadata=about("A cron expression, like `*/5 * * * *` or `@daily`."),
    )
    timezone: str | None = field(
        default=None,
        validator=is_timezone,
        metadata=about('By whose clocks, like "Europe/Berlin"; only with `cron`. Else UTC.'),
    )
    start: Seconds = field(
        default=0.0,
        validator=at_least(0),
        metadata=about("When the first call is; only with `every`.", "seconds"),
    )
    jitter: Seconds = field(
        default=0.0,
        validator=at_least(0),
        metadata=about("Each call is late by up to this much at random.", "seconds"),
    )
    overlap: Literal["skip", "queue", "parallel"] = field(
        default="skip",
        metadata=about("What becomes of a call that is due while another is being made."),
    )
    missed: Literal["once", "all", "skip"] = field(
        default="once",
        metadata=about("What becomes of times that passed while nothing could be done."),
    )
    timeout: Seconds | None = field(
        default=None,
        validator=above_zero,
        metadata=about("How long one attempt may take.", "seconds"),
    )
    retry: RetryTable | None = field(
        default=None, metadata=about("Whether and when a failed call is tried again.")
    )
    leader_only: bool = field(
        default=False,
        metadata=about("Whether of all processes with this database only one runs it."),
    )


AnyChildTable = ServiceTable | WorkersTable | ScheduleTable


@attrs.frozen
class Tables:
    """The whole file."""

    host: HostTable = field(default=HostTable(), metadata=about("The application as a whole."))
    log: LogTable = field(default=LogTable(), metadata=about("What is logged, and how."))
    admin: AdminTable | None = field(
        default=None, metadata=about("The address for probes; without it there is none.")
    )
    database: DatabaseTable | None = field(
        default=None, metadata=about("The database; without it there is none.")
    )
    alerts: Mapping[str, AlertTable] = field(
        factory=dict[str, AlertTable], metadata=about("Who is told of troubles, by name.")
    )
    queues: Mapping[str, QueueTable] = field(
        factory=dict[str, QueueTable], metadata=about("Queues, by name.")
    )
    services: Mapping[str, ServiceTable] = field(
        factory=dict[str, ServiceTable], metadata=about("Services, by name.")
    )
    workers: Mapping[str, WorkersTable] = field(
        factory=dict[str, WorkersTable], metadata=about("Pools of workers, by name.")
    )
    schedules: Mapping[str, ScheduleTable] = field(
        factory=dict[str, ScheduleTable], metadata=about("Periodic calls, by name.")
    )

    @property
    def children(self) -> Mapping[KeyPath, AnyChildTable]:
        """Everything that runs, by its key path, in the order of the file."""
        return {
            (group, name): table
            for group in CHILDREN
            for name, table in getattr(self, group).items()
        }


@attrs.frozen
class Configuration:
    """A configuration in which nothing is wrong that can be seen without its code.

    Args:
        source: the file that it was read from.
        tables: what it says, overrides included.
        origins: where each value came from.
        environment: the variables, in which there are secrets.
        text: the file.
        document: what is in it, with the overrides laid over.
    """

    source: Path
    tables: Tables
    origins: Origins
    environment: Mapping[str, str] = field(repr=False)
    text: str = field(repr=False)
    document: Mapping[str, object] = field(repr=False)

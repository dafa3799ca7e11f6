"""From a configuration to an application: its code is imported, its tree is made, nothing runs.

The steps, in order: the queues are made; the folder of the file is searched for code; the code of
each service, pool of workers and schedule is imported and gets what it asks for; the tree is made
of them, and its worst stop is held against the host's budget. What goes wrong is collected and
raised together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from cattrs import Converter

from ..errors import ConfigError
from ..queues import WorkQueue
from ..secrets import Secret
from ..services import AnyService
from ..supervision import Child, Limit, Supervisor, check_budget
from ..telemetry import LogSettings
from ._alerts import find_alerts
from ._application import Application, Part, worst_stop_of
from ._arguments import Supplies
from ._code import Importer
from ._collector import Collector
from ._database import NAME as DATABASE, Database, find_database
from ._injection import Injection
from ._maker import Maker, backoff_of, breaker_of, placeholder
from ._problems import KeyPath, MisfitError, Problem
from ._schema import AnyChildTable, Configuration, ScheduleTable, ServiceTable, Tables, WorkersTable
from ._secrets import Place, Secrets
from ._structure import strict_converter

if TYPE_CHECKING:
    from ..pg import Pool

_CODE: Mapping[type[AnyChildTable], str] = {
    ServiceTable: "use",
    WorkersTable: "handler",
    ScheduleTable: "call",
}
"""The key that names the code of a table."""


def build(configuration: Configuration, *, running: Application | None = None) -> Application:
    """Import the code that a configuration names, and make an application of it.

    Handlers that are classes are made here, once; services are made at each of their starts.

    Args:
        configuration: what to make.
        running: the application that it is to take the place of in this process. Its queues are
            kept, and its parts of which nothing has changed; no further code is imported.

    Raises:
        ConfigError: with everything that is wrong.
    """
    tables = configuration.tables
    folder = configuration.source.absolute().parent
    builder = _Builder(tables, folder, Secrets(folder, configuration.environment), running)
    database = find_database(configuration, f"application {tables.host.name}")
    if database is not None:
        database = builder.use(database)
    lines: list[str] = []
    alerts = None
    try:
        alerts = find_alerts(configuration)
    except ConfigError as error:
        lines += error.problems
    builder.inject()
    parts = {str(key[1]): builder.part(key, table) for key, table in tables.children.items()}
    if running is None and builder.injection is not None:
        builder.injection.parts = parts
    tree = builder.tree([part.child for part in parts.values()])
    lines += [
        configuration.origins.line(builder.secrets.redact(problem)) for problem in builder.problems
    ]
    if tree is None or lines:
        raise ConfigError(list(dict.fromkeys(lines)))  # a handler and its on_dead share options
    return Application(
        tree=tree,
        queues=builder.queues,
        stop_within=tables.host.stop_within,
        log=LogSettings(
            level=tables.log.level, format=tables.log.format, levels=dict(tables.log.levels)
        ),
        admin=tables.admin.bind if tables.admin else None,
        database=database,
        alerts=alerts,
        source=configuration.source,
        tables=tables,
        parts=parts,
        injection=builder.injection,
    )


def _after_database(child: Child) -> Child:
    """A child that starts when there is a database."""
    after = dict.fromkeys((*child.after, DATABASE))
    return attrs.evolve(child, after=tuple(after))


class _Builder:
    """Makes the parts of an application, and collects what is wrong with them."""

    def __init__(
        self, tables: Tables, folder: Path, secrets: Secrets, running: Application | None
    ) -> None:
        self.secrets = secrets
        self.host = tables.host
        self._tells = bool(tables.alerts)
        self.queues: dict[str, WorkQueue[Any]] = {
            name: WorkQueue(name, capacity=table.capacity, when_full=table.when_full)
            for name, table in tables.queues.items()
        }
        self._known: Mapping[str, Part] = {}
        self.injection: Injection | None = None
        self._container_is_sound = True  # else nobody knows who would ask for options
        if running is not None:
            self.injection = running.injection
            self._known = running.parts
            self.queues |= {n: q for n, q in running.queues.items() if n in self.queues}
        self._collector = Collector()
        self.problems = self._collector.problems
        self._has_database = tables.database is not None
        self._database: Database | None = None
        self._running = running
        self._importer = Importer(self.host.imports, closed=running is not None)
        self._importer.search_beside(folder)
        self._maker = Maker(self._importer, self.queues, self._collector)
        self._converter: Converter = strict_converter(folder, secrets)

    @property
    def _pool(self) -> Pool | None:
        return None if self._database is None else self._database.pool

    def use(self, database: Database) -> Database:
        """Make a database a part of the tree; of one that is used already nothing is looked at."""
        if self._running is not None and self._running.database is not None:
            self._database = self._running.database
            return self._database
        self._database = database
        with self._collector.collecting(DATABASE, "url"):
            database.verify()
        with self._collector.collecting(DATABASE, "migrations"):
            database.read_migrations()
        return database

    def inject(self) -> None:
        """Load the container, if the file names one, and see that it is sound by itself."""
        if self.host.container is None or self.injection is not None:
            return
        self._container_is_sound = False
        with self._collector.collecting("host", "container"):
            self.injection = Injection.of(
                self._importer.load(self.host.container), self.host.container, self._pool
            )
            self.injection.check()
            self._container_is_sound = True

    def tree(self, children: list[Child]) -> Supervisor | None:
        """The whole tree, if it can be run as written."""
        limit = Limit(self.host.max_restarts.count, per=self.host.max_restarts.per)
        with self._collector.collecting("host", "stop_within"):
            tree = Supervisor(self.host.name, self._with_database(children), max_restarts=limit)
            worst_stop = worst_stop_of(tree, self.injection, tells=self._tells)
            check_budget(tree.name, worst_stop, self.host.stop_within)
            return tree
        return None

    def _with_database(self, children: list[Child]) -> list[Child]:
        if not self._has_database:
            return children
        database = self._database
        first = Child(placeholder, name=DATABASE) if database is None else database.child
        return [first, *children]

    def part(self, key: KeyPath, table: AnyChildTable) -> Part:
        """What one table says; the part that runs already where that says the same."""
        known = self._known.get(str(key[1]))
        if known is not None and known.table == table and self._are_the_same(known.secrets):
            return known
        self.secrets.latest = {}
        supplies = Supplies(
            key,
            table.options,
            self.queues,
            self._converter,
            self._pool,
            injected=self.host.container is not None,
        )
        problems = len(self.problems)
        child = self._child(key, table, supplies)
        injected: Mapping[type[object], object] = {}
        with self._collector.collecting(*key, _CODE[type(table)]):
            if self.injection is not None:
                injected = self.injection.options(child.service, supplies)
                if self.injection.needs_pool(child.service):
                    child = _after_database(child)
        if len(self.problems) == problems and self._container_is_sound:
            self.problems += supplies.unasked()
        return Part(table, child, supplies.made, supplies.live, self.secrets.latest, injected)

    def _are_the_same(self, secrets: Mapping[Place, Secret]) -> bool:
        try:
            return all(self.secrets.read(place) == secret for place, secret in secrets.items())
        except MisfitError:  # which is told where it is needed
            return False

    def _child(self, key: KeyPath, table: AnyChildTable, supplies: Supplies) -> Child:
        """What is run, with a placeholder for code that cannot be used."""
        service = self._maker.service(table, supplies)
        if not isinstance(table, WorkersTable) and table.leader_only:
            service = self._in_leader(service, supplies)
        child = Child(
            service,
            name=str(key[1]),
            after=table.after,
            restart=table.restart,
            backoff=backoff_of(table.backoff),
            # That of a pool of workers is around its handler.
            breaker=None if isinstance(table, WorkersTable) else breaker_of(table.breaker),
            start_within=table.start_within,
            stop_within=table.stop_within,
            stale_after=table.stale_after,
            critical=table.critical,
            retry_start=table.retry_start,
        )
        return _after_database(child) if supplies.asked_for_pool else child

    def _in_leader(self, service: AnyService, supplies: Supplies) -> AnyService:
        """A service that runs only in one process of those with the same database."""
        if supplies.pool is None:
            remedy = "needs a database, in which processes agree; add a [database] table"
            self.problems.append(Problem((*supplies.key, "leader_only"), remedy))
            return service
        from ..pg import LeaderOnly

        supplies.asked_for_pool = True
        name = f"{self.host.name}.{supplies.key[1]}"
        return LeaderOnly(service, supplies.pool, name=name)

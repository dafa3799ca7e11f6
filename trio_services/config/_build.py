"""From a configuration to an application: its code is imported, its tree is made, nothing runs.

The steps, in order: the queues are made; the folder of the file is searched for code; the code of
each service, pool of workers and schedule is imported and gets what it asks for; the tree is made
of them, and its worst stop is held against the host's budget. What goes wrong is collected and
raised together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
from cattrs import Converter

from ..errors import ConfigError, EmbeddedUnavailable, PlanError, SchemaMismatch
from ..queues import Batch, Schedule, Workers, WorkQueue
from ..resilience import Backoff, Breaker, Rate, Retry
from ..secrets import Secret
from ..services import AnyService, Service
from ..supervision import Child, Limit, Supervisor, check_budget
from ..telemetry import LAST_WORD_WITHIN, LogSettings
from ._alerts import Companion, find_alerts
from ._arguments import Supplies
from ._code import (
    CodeError,
    Importer,
    check_async,
    check_call,
    check_plain,
    check_service,
    check_transient,
    told,
)
from ._database import NAME as DATABASE, Database, find_database
from ._injection import Injection, without_asks
from ._live import Live
from ._problems import KeyPath, MisfitError, Problem
from ._schema import (
    AnyChildTable,
    BackoffTable,
    BreakerTable,
    CodeReference,
    Configuration,
    RetryTable,
    ScheduleTable,
    ServiceTable,
    Tables,
    WorkersTable,
)
from ._secrets import Place, Secrets
from ._structure import StructureError, strict_converter

if TYPE_CHECKING:
    from ..di import Container
    from ..pg import Pool

_CODE: Mapping[type[AnyChildTable], str] = {
    ServiceTable: "use",
    WorkersTable: "handler",
    ScheduleTable: "call",
}
"""The key that names the code of a table."""

AsyncFunction = Callable[..., Awaitable[object]]


@attrs.frozen
class Part:
    """A service, pool of workers or schedule of an application.

    Args:
        table: what the configuration says of it.
        child: what is run.
        options: what its code gets as `options`; several where the table names several pieces of
            code that ask for them.
        live: for each of these, what holds them where they may change; else None.
        secrets: those among its options, by where they were.
        injected: its options by their classes, where something that it needs asks for these.
    """

    table: AnyChildTable
    child: Child
    options: Sequence[object] = attrs.field(repr=False)
    live: Sequence[Live[Any] | None] = attrs.field(repr=False)
    secrets: Mapping[Place, Secret]
    injected: Mapping[type[object], object] = attrs.field(repr=False)


@attrs.frozen
class Application:
    """What a configuration says, ready to be run, once.

    Args:
        tree: the services, pools of workers and schedules.
        queues: the queues between them, by name.
        stop_within: seconds in which a stop has ended.
        log: what is logged, and how.
        admin: where the admin server listens; None for nowhere.
        database: where the data is; None if there is none.
        alerts: the companion that tells others of troubles; None if there is none.
        source: the file that all this comes from.
        tables: what the configuration says.
        parts: the services, pools of workers and schedules, by name.
        injection: what gives code what it asks for by type; None if there is no container.
    """

    tree: Supervisor
    queues: Mapping[str, WorkQueue[Any]]
    stop_within: float
    log: LogSettings
    admin: str | None
    database: Database | None
    alerts: Companion | None
    source: Path
    tables: Tables = attrs.field(repr=False)
    parts: Mapping[str, Part] = attrs.field(repr=False)
    injection: Injection | None = attrs.field(repr=False)

    @property
    def container(self) -> Container | None:
        """What services and jobs get what they ask for by type from."""
        return None if self.injection is None else self.injection.container

    @property
    def worst_stop(self) -> float:
        """Seconds that a stop takes at worst."""
        dispose_within = 0.0 if self.container is None else self.container.dispose_within
        return self.tree.worst_stop + dispose_within


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
        self.problems: list[Problem] = []
        self._has_database = tables.database is not None
        self._database: Database | None = None
        self._running = running
        self._importer = Importer(self.host.imports, closed=running is not None)
        self._importer.search_beside(folder)
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
        with self._collecting(DATABASE, "url"):
            database.verify()
        with self._collecting(DATABASE, "migrations"):
            database.read_migrations()
        return database

    def inject(self) -> None:
        """Load the container, if the file names one, and see that it is sound by itself."""
        if self.host.container is None or self.injection is not None:
            return
        self._container_is_sound = False
        with self._collecting("host", "container"):
            self.injection = Injection.of(
                self._importer.load(self.host.container), self.host.container, self._pool
            )
            self.injection.check()
            self._container_is_sound = True

    def tree(self, children: list[Child]) -> Supervisor | None:
        """The whole tree, if it can be run as written."""
        limit = Limit(self.host.max_restarts.count, per=self.host.max_restarts.per)
        with self._collecting("host", "stop_within"):
            tree = Supervisor(self.host.name, self._with_database(children), max_restarts=limit)
            dispose = 0.0 if self.injection is None else self.injection.container.dispose_within
            last_word = LAST_WORD_WITHIN if self._tells else 0.0
            check_budget(tree.name, tree.worst_stop + dispose + last_word, self.host.stop_within)
            return tree
        return None

    def _with_database(self, children: list[Child]) -> list[Child]:
        if not self._has_database:
            return children
        database = self._database
        first = Child(_placeholder, name=DATABASE) if database is None else database.child
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
        with self._collecting(*key, _CODE[type(table)]):
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
        match table:
            case ServiceTable():
                service = self._service(table, supplies)
            case WorkersTable():
                service = self._workers(table, supplies)
            case ScheduleTable():
                service = self._schedule(table, supplies)
        if not isinstance(table, WorkersTable) and table.leader_only:
            service = self._in_leader(service, supplies)
        child = Child(
            service,
            name=str(key[1]),
            after=table.after,
            restart=table.restart,
            backoff=_backoff(table.backoff),
            # That of a pool of workers is around its handler.
            breaker=None if isinstance(table, WorkersTable) else _breaker(table.breaker),
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

    def _service(self, table: ServiceTable, supplies: Supplies) -> AnyService:
        with self._collecting(*supplies.key, "use"):
            code: Any = self._importer.load(table.use)
            check_service(code, table.use)
            if isinstance(code, Service):
                return code
            return _bound(code, supplies.arguments(code, table.use, "use"))
        return _placeholder

    def _workers(self, table: WorkersTable, supplies: Supplies) -> AnyService:
        return Workers(
            self.queues[table.queue],
            self._handler(table, supplies),
            count=table.count,
            timeout=table.timeout,
            retry=self._retry(table.retry, supplies),
            rate=None if table.rate is None else Rate(table.rate.count, per=table.rate.per),
            breaker=_breaker(table.breaker),
            batch=None
            if table.batch is None
            else Batch(table.batch.size, within=table.batch.within),
            key=self._key(table, supplies),
            isolation=table.isolation,
            fallback=self._callback("fallback", table.fallback, supplies, "item", "error"),
            on_dead=self._callback("on_dead", table.on_dead, supplies, "item", "error"),
            on_left=self._callback("on_left", table.on_left, supplies, "item"),
            drain=table.drain,
            feeds=[self.queues[name] for name in table.feeds],
        )

    def _schedule(self, table: ScheduleTable, supplies: Supplies) -> AnyService:
        call = self._function("call", table.call, supplies)
        retry = self._retry(table.retry, supplies)
        return Schedule(
            call,
            every=table.every,
            cron=table.cron,
            timezone=table.timezone,
            start=table.start,
            jitter=table.jitter,
            overlap=table.overlap,
            missed=table.missed,
            timeout=table.timeout,
            retry=retry,
        )

    def _handler(self, table: WorkersTable, supplies: Supplies) -> Callable[..., Any]:
        if table.isolation == "task":
            return self._function("handler", table.handler, supplies, "item")
        with self._collecting(*supplies.key, "handler"):
            code: Any = self._importer.load(table.handler)
            check_plain(code, table.handler, f'isolation = "{table.isolation}"')
            handler = self._made("handler", code, table.handler, supplies, "item", injected=False)
            if table.isolation == "process" and any(supplies.live):
                raise CodeError(
                    f"{table.handler} asks for Live options, and another process would not hear of "
                    "their changes; ask for the options themselves"
                )
            return handler
        return _plain_placeholder

    def _key(self, table: WorkersTable, supplies: Supplies) -> Callable[[Any], Any] | None:
        if table.key is None:
            return None
        with self._collecting(*supplies.key, "key"):
            code: Any = self._importer.load(table.key)
            check_plain(code, table.key, "key")
            check_call(code, table.key, "key", "item")
            return cast("Callable[[Any], Any]", code)
        return None

    def _callback(
        self, field: str, reference: CodeReference | None, supplies: Supplies, *gets: str
    ) -> AsyncFunction | None:
        return None if reference is None else self._function(field, reference, supplies, *gets)

    def _function(
        self, field: str, reference: CodeReference, supplies: Supplies, *gets: str
    ) -> AsyncFunction:
        """The async function that a table names, or an instance of a class that is one.

        Args:
            field: the key that names it.
            reference: its name.
            supplies: what its table has to give.
            gets: what it is called with.
        """
        with self._collecting(*supplies.key, field):
            code: Any = self._importer.load(reference)
            check_async(code, reference)
            return self._made(field, code, reference, supplies, *gets)
        return _placeholder

    def _made(
        self,
        field: str,
        code: Any,
        reference: CodeReference,
        supplies: Supplies,
        *gets: str,
        injected: bool = True,
    ) -> Callable[..., Any]:
        """A function with what its table has to give, or an instance of a class made with that.

        Args:
            field, reference, supplies, gets: see `_function`.
            code: what is called, or its class.
            injected: whether it is called where a container can give it more.

        Raises:
            CodeError, StructureError: it cannot be made, or called as it will be.
        """
        is_class = isinstance(code, type)
        arguments = supplies.arguments(
            code,
            reference,
            field,
            leading=0 if is_class else len(gets),
            injected=injected and not is_class,
        )
        function: Callable[..., Any]
        if isinstance(code, type):
            try:
                function = code(**arguments)
            except Exception as error:
                raise CodeError(f"making {reference} failed: {told(error)}") from error
        else:
            function = _bound(code, arguments)
        taken = without_asks(function, len(gets)) if supplies.injected and injected else function
        check_call(taken, reference, field, *gets)
        return function

    def _retry(self, table: RetryTable | None, supplies: Supplies) -> Retry | None:
        if table is None:
            return None
        transient: Any = Exception
        if table.on is not None:
            with self._collecting(*supplies.key, "retry", "on"):
                transient = self._importer.load(table.on)
                check_transient(transient, table.on)
                if not isinstance(transient, type):
                    check_call(transient, table.on, "on", "error")
        return Retry(table.attempts, Backoff(**attrs.asdict(table.backoff)), transient)

    @contextmanager
    def _collecting(self, *key: str | int) -> Generator[None]:
        """Go on after a problem with what a key names."""
        try:
            yield
        except CodeError as error:
            self.problems.append(Problem(key, str(error)))
        except PlanError as error:  # which tells each problem on a line of its own
            self.problems += [Problem(key, line) for line in str(error).splitlines()]
        except StructureError as error:
            self.problems += error.problems
        except EmbeddedUnavailable as error:
            self.problems.append(Problem(key, str(error)))
        except SchemaMismatch as error:
            self.problems += [Problem(key, line) for line in str(error).splitlines()]


async def _placeholder(*_: object) -> None:
    """Stands in the tree for code that cannot be used, so that the rest is checked too."""


def _plain_placeholder(*_: object) -> None:
    """The same for code that is not async."""


def _bound(code: Callable[..., Any], arguments: Mapping[str, object]) -> Callable[..., Any]:
    return partial(code, **arguments) if arguments else code


def _backoff(table: BackoffTable | None) -> Backoff | None:
    return None if table is None else Backoff(**attrs.asdict(table))


def _breaker(table: BreakerTable | None) -> Breaker | None:
    return None if table is None else Breaker(**attrs.asdict(table))

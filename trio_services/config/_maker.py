"""From what a table names to the service that it describes: its code, with what that asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, cast

import attrs

from ..queues import Batch, Schedule, Workers, WorkQueue
from ..resilience import Backoff, Breaker, Rate, Retry
from ..services import AnyService, Service
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
from ._collector import Collector
from ._injection import without_asks
from ._policies import BackoffTable, BreakerTable, RetryTable
from ._reference import CodeReference
from ._schema import AnyChildTable, ScheduleTable, ServiceTable, WorkersTable

AsyncFunction = Callable[..., Awaitable[object]]


class Maker:
    """Makes services, with placeholders for code that cannot be used.

    Args:
        importer: of their code.
        queues: those that there are, by name.
        collector: what is told of problems.
    """

    def __init__(
        self, importer: Importer, queues: Mapping[str, WorkQueue[Any]], collector: Collector
    ) -> None:
        self._importer = importer
        self._queues = queues
        self._collector = collector

    def service(self, table: AnyChildTable, supplies: Supplies) -> AnyService:
        """What a table describes.

        Args:
            table: which.
            supplies: what it has to give to its code.
        """
        match table:
            case ServiceTable():
                return self._service(table, supplies)
            case WorkersTable():
                return self._workers(table, supplies)
            case ScheduleTable():
                return self._schedule(table, supplies)

    def _service(self, table: ServiceTable, supplies: Supplies) -> AnyService:
        with self._collector.collecting(*supplies.key, "use"):
            code: Any = self._importer.load(table.use)
            check_service(code, table.use)
            if isinstance(code, Service):
                return code
            return _bound(code, supplies.arguments(code, table.use, "use"))
        return placeholder

    def _workers(self, table: WorkersTable, supplies: Supplies) -> AnyService:
        return Workers(
            self._queues[table.queue],
            self._handler(table, supplies),
            count=table.count,
            timeout=table.timeout,
            retry=self._retry(table.retry, supplies),
            rate=None if table.rate is None else Rate(table.rate.count, per=table.rate.per),
            breaker=breaker_of(table.breaker),
            batch=None
            if table.batch is None
            else Batch(table.batch.size, within=table.batch.within),
            key=self._key(table, supplies),
            isolation=table.isolation,
            fallback=self._callback("fallback", table.fallback, supplies, "item", "error"),
            on_dead=self._callback("on_dead", table.on_dead, supplies, "item", "error"),
            on_left=self._callback("on_left", table.on_left, supplies, "item"),
            drain=table.drain,
            feeds=[self._queues[name] for name in table.feeds],
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
        with self._collector.collecting(*supplies.key, "handler"):
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
        with self._collector.collecting(*supplies.key, "key"):
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
        with self._collector.collecting(*supplies.key, field):
            code: Any = self._importer.load(reference)
            check_async(code, reference)
            return self._made(field, code, reference, supplies, *gets)
        return placeholder

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
            with self._collector.collecting(*supplies.key, "retry", "on"):
                transient = self._importer.load(table.on)
                check_transient(transient, table.on)
                if not isinstance(transient, type):
                    check_call(transient, table.on, "on", "error")
        return Retry(table.attempts, Backoff(**attrs.asdict(table.backoff)), transient)


async def placeholder(*_: object) -> None:
    """Stands in the tree for code that cannot be used, so that the rest is checked too."""


def _plain_placeholder(*_: object) -> None:
    """The same for code that is not async."""


def _bound(code: Callable[..., Any], arguments: Mapping[str, object]) -> Callable[..., Any]:
    return partial(code, **arguments) if arguments else code


def backoff_of(table: BackoffTable | None) -> Backoff | None:
    return None if table is None else Backoff(**attrs.asdict(table))


def breaker_of(table: BreakerTable | None) -> Breaker | None:
    return None if table is None else Breaker(**attrs.asdict(table))

"""Every error that this package raises, in one tree.

::

    ServicesError
    ├── ConfigError              the configuration file, environment or arguments are wrong
    ├── PlanError                the tree of services cannot be run as written
    ├── StartFailed              a service did not become ready
    │   └── StartTimeout             … within its `start_within`
    ├── RestartLimitExceeded     a supervisor gave up on its children
    ├── StopFailed               services failed while they were being stopped
    ├── StopOverdue              a service ignored its cancellation, and ended long after it
    ├── UnknownService           there is no service with this path
    ├── InjectionError           what was asked for could not be provided, or not any more
    │   └── DisposalTimeout          … was not disposed of in time
    ├── TimedOut                 a piece of work took longer than its time-out
    ├── BulkheadFull             so many are at work, and so many wait, that no more may
    ├── BreakerOpen              a circuit breaker has given up
    ├── WorkerProcessDied        a worker process ended in the middle of a job
    ├── PoolTimeout              no connection to the database became free in time
    ├── PoolClosed               the pool of connections is not open
    ├── TooManyRequests          too many wait for a connection already
    ├── LeadershipLost           somebody else may lead now
    ├── CommitUnknown            whether a transaction was committed cannot be known
    ├── QueueFull                the queue has no room and does not wait for any
    ├── QueueClosed              the queue accepts no more items
    ├── BadPayload               an item cannot be put into a durable queue
    ├── EmbeddedUnavailable      the embedded database server cannot run, or has ended
    ├── SchemaMismatch           the database's schema is not one that this code can go on from
    └── MigrationFailed          a migration failed, and was rolled back

Data is on attributes; the message names the culprit and, where there is one, the remedy. Errors
are made of their data and tell their message by `str()`, so that they can be copied and pickled.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs


class ServicesError(Exception):
    """The root of every error of this package."""


class ConfigError(ServicesError):
    """The configuration is wrong; nothing was started.

    `problems` holds one line for each thing to mend: ``file:key: what is wrong``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems: tuple[str, ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class PlanError(ServicesError):
    """The tree of services cannot be run as written; nothing was started."""


class StartFailed(ServicesError):
    """A service ended before it said that it was ready."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(service, reason)
        self.service = service
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.service} {self.reason}"


class StartTimeout(StartFailed):
    """A service was not ready within its `start_within` seconds."""

    def __init__(self, service: str, start_within: float) -> None:
        super().__init__(
            service,
            f"was not ready within {start_within:g} s: "
            "call task_status.started(), or raise its start_within",
        )
        self.args: tuple[object, ...] = (service, start_within)
        self.start_within = start_within


@attrs.frozen
class Failure:
    """What is remembered of a failure: a summary, never the exception with its frames.

    `at` is seconds on Trio's clock; `where` is ``file:line in function``.
    """

    service: str
    type: str
    message: str
    where: str
    at: float

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        # Whatever the message holds, its further lines cannot be taken for lines of their own.
        message = self.message.replace("\n", "\n      ")
        return f"{self.service}: {self.type}: {message}{place}"


class RestartLimitExceeded(ServicesError):
    """A supervisor gave up: its children failed more often than it may restart them.

    Or one did that is critical, and not to be restarted; `reason` says which. `failures` are the
    last ones, oldest first; `str()` tells the story in a few lines.
    """

    def __init__(self, supervisor: str, reason: str, failures: Sequence[Failure]) -> None:
        super().__init__(supervisor, reason, failures)
        self.supervisor = supervisor
        self.reason = reason
        self.failures: tuple[Failure, ...] = tuple(failures)

    def __str__(self) -> str:
        return "\n".join([f"{self.supervisor} gave up: {self.reason}", *_story(self.failures)])


class StopFailed(ServicesError):
    """Services failed while they were being stopped; the others were stopped all the same."""

    def __init__(self, supervisor: str, failures: Sequence[Failure]) -> None:
        super().__init__(supervisor, failures)
        self.supervisor = supervisor
        self.failures: tuple[Failure, ...] = tuple(failures)

    def __str__(self) -> str:
        head = f"{self.supervisor} stopped, but {len(self.failures)} of its services failed at it:"
        return "\n".join([head, *_story(self.failures)])


class StopOverdue(ServicesError):
    """A service ignored its cancellation, and was still there long after its deadline.

    It has ended after all, or nobody could have raised this; `stack` shows where it stood.
    """

    def __init__(self, service: str, overdue: float, stack: str) -> None:
        super().__init__(service, overdue, stack)
        self.service = service
        self.overdue = overdue
        self.stack = stack

    def __str__(self) -> str:
        return (
            f"{self.service} ignored its cancellation: it was still there {self.overdue:g} s past "
            f"its deadline, at\n{self.stack}"
        )


class UnknownService(ServicesError, LookupError):
    """There is no service with this path, or not now."""


class InjectionError(ServicesError):
    """What was asked for could not be provided now; that nothing provides it is a `PlanError`."""


class DisposalTimeout(InjectionError):
    """What was provided was not disposed of within `within` seconds, and was cut off.

    `provided` names it, in the order of the attempts.
    """

    def __init__(self, provided: Sequence[str], within: float) -> None:
        super().__init__(provided, within)
        self.provided: tuple[str, ...] = tuple(provided)
        self.within = within

    def __str__(self) -> str:
        return (
            f"the disposal of {', '.join(self.provided)} was cut off: it was not done within "
            f"{self.within:g} s; make it faster, or raise the container's dispose_within"
        )


class TimedOut(ServicesError, TimeoutError):
    """A piece of work took longer than its time-out of `seconds` and was cancelled."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"not done within its time-out of {self.seconds:g} s"


class BulkheadFull(ServicesError):
    """As many are at work as may be, and as many wait; try again later."""

    def __init__(self, limit: int, waiting: int) -> None:
        super().__init__(limit, waiting)
        self.limit = limit
        self.waiting = waiting

    def __str__(self) -> str:
        return f"no place: {self.limit} are at work and {self.waiting} wait, as many as may"


class BreakerOpen(ServicesError):
    """The breaker around a handler opened `opened` times in a row, and then gave up."""

    def __init__(self, service: str, opened: int) -> None:
        super().__init__(service, opened)
        self.service = service
        self.opened = opened

    def __str__(self) -> str:
        times = "once" if self.opened == 1 else f"{self.opened} times in a row"
        return f"the breaker of {self.service} opened {times}, and its last probe failed too"


class WorkerProcessDied(ServicesError):
    """A worker process ended in the middle of a job; `status` is negative for a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        how = f"was killed by signal {-self.status}" if self.status < 0 else "ended by itself"
        return f"the worker process {how} in the middle of a job (status {self.status})"


class PoolTimeout(ServicesError, TimeoutError):
    """No connection of a pool became free within `seconds`.

    `reason` is why the last attempt to connect failed, if it did, and that error is the cause.
    """

    def __init__(self, pool: str, seconds: float, reason: str = "") -> None:
        super().__init__(pool, seconds, reason)
        self.pool = pool
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        why = (
            f"cannot connect: {self.reason}"
            if self.reason
            else "all are in use: raise max_size, or hold connections for less time"
        )
        return f"no connection of {self.pool} within {self.seconds:g} s; {why}"


class PoolClosed(ServicesError):
    """The pool is not open: it is used outside of its block, or its service does not run."""

    def __init__(self, pool: str) -> None:
        super().__init__(pool)
        self.pool = pool

    def __str__(self) -> str:
        return f"{self.pool} is not open: enter it, or come after the service that it is"


class TooManyRequests(ServicesError):
    """As many as `max_waiting` wait for a connection of the pool already."""

    def __init__(self, pool: str, waiting: int) -> None:
        super().__init__(pool, waiting)
        self.pool = pool
        self.waiting = waiting

    def __str__(self) -> str:
        return f"{self.waiting} wait for a connection of {self.pool} already"


class LeadershipLost(ServicesError):
    """The term with this `epoch` is over, against the will of the one who led."""

    def __init__(self, name: str, epoch: int) -> None:
        super().__init__(name, epoch)
        self.name = name
        self.epoch = epoch

    def __str__(self) -> str:
        return f"term {self.epoch} of {self.name} is over: contend for it again"


class CommitUnknown(ServicesError):
    """The connection was lost after COMMIT was sent, and before the server has answered.

    The transaction may have been committed or not: look, before it is tried again. The cause is
    what was wrong with the connection.
    """

    def __str__(self) -> str:
        return "the connection was lost during COMMIT: look whether the transaction was committed"


class QueueFull(ServicesError):
    """The queue has no room; wait with `put`, or slow the producer down."""

    def __init__(self, queue: str, capacity: float) -> None:
        super().__init__(queue, capacity)
        self.queue = queue
        self.capacity = capacity

    def __str__(self) -> str:
        return f"queue {self.queue} is full ({self.capacity:g} items waiting)"


class QueueClosed(ServicesError):
    """The queue was closed and accepts no more items."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue

    def __str__(self) -> str:
        return f"queue {self.queue} is closed: it accepts no more items"


class BadPayload(ServicesError, ValueError):
    """An item cannot be put into the durable queue `queue`; `where` in it, `reason` says why."""

    def __init__(self, queue: str, where: str, reason: str) -> None:
        super().__init__(queue, where, reason)
        self.queue = queue
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"queue {self.queue} does not take the item{place}: {self.reason}"


class EmbeddedUnavailable(ServicesError):
    """The embedded database server in `directory` cannot run, or has ended; `reason` says why."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(directory, reason)
        self.directory = directory
        self.reason = reason

    def __str__(self) -> str:
        return f"database in {self.directory}: {self.reason}"


class SchemaMismatch(ServicesError):
    """The database's schema is not one that this code can go on from; nothing was changed.

    `problems` holds one line for each file that does not fit.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems: tuple[str, ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class MigrationFailed(ServicesError):
    """A migration failed, and was rolled back; those before it are applied.

    `migration` is its file, `line` the line of it that failed, or 0 if that is not known.
    """

    def __init__(self, migration: str, line: int, reason: str) -> None:
        super().__init__(migration, line, reason)
        self.migration = migration
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        place = f"{self.migration}:{self.line}" if self.line else self.migration
        return f"{place}: {self.reason}"


def _story(failures: Sequence[Failure], shown: int = 6) -> list[str]:
    """The last failures as lines, each alike run folded into one with its count."""
    lines: list[tuple[str, int]] = []
    for failure in failures:
        text = str(failure)
        if lines and lines[-1][0] == text:
            lines[-1] = (text, lines[-1][1] + 1)
        else:
            lines.append((text, 1))
    return [
        f"  {text}" + (f" ({count} times)" if count > 1 else "") for text, count in lines[-shown:]
    ]

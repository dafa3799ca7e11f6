"""What happened, as frozen values: the only way in which facts flow upwards.

Low rooms publish these and never log, count or know who watches. `at` is Trio's clock in
seconds, so that virtual time is told truly; whoever writes an event down adds the wall clock.
"""

from __future__ import annotations

import attrs
import trio

from ..errors import Failure


@attrs.frozen
class Event:
    """Something happened to the service with this path, like ``inbox/watch``."""

    service: str
    at: float = attrs.field(factory=trio.current_time, kw_only=True)


@attrs.frozen
class ServiceStarting(Event):
    """A service is entered; `attempt` counts its starts from 1."""

    attempt: int


@attrs.frozen
class ServiceReady(Event):
    """A service said that it is ready, `took` seconds after it was entered.

    `value` is what it passed to `task_status.started()`, such as an address.
    """

    took: float
    value: object = None


@attrs.frozen
class ServiceReturned(Event):
    """A service returned by itself, after running for `ran` seconds."""

    ran: float


@attrs.frozen
class ServiceFailed(Event):
    """A service raised, or was not ready in time.

    `error` is for who wants its traceback now; keep `failure` instead, which holds no frames.
    """

    failure: Failure
    error: BaseException = attrs.field(repr=False, eq=False)
    stopping: bool = False


@attrs.frozen
class ServiceRestarting(Event):
    """A service that returned or failed will be started again in `delay` seconds."""

    delay: float
    restart: int


@attrs.frozen
class ServiceStopping(Event):
    """A service was told to stop, and has `within` seconds for what it has in hand."""

    within: float


@attrs.frozen
class ServiceStopped(Event):
    """A service that was told to stop has ended, `took` seconds after that."""

    took: float


@attrs.frozen
class ServiceOverdue(Event):
    """A service ignores its cancellation: it is still there `overdue` seconds past its deadline.

    `stack` shows where each of its tasks stands.
    """

    overdue: float
    stack: str = attrs.field(repr=False)


@attrs.frozen
class BreakerOpened(Event):
    """A service is left alone for `delay` seconds; `opened` counts how often in a row."""

    opened: int
    delay: float


@attrs.frozen
class BreakerHalfOpened(Event):
    """A service may be started once, to see whether it is healthy again."""


@attrs.frozen
class BreakerClosed(Event):
    """A service is healthy again, or its breaker was reset by hand."""


@attrs.frozen
class BreakerGaveUp(Event):
    """A service failed once more after its breaker had opened `opened` times: it stays down."""

    opened: int


@attrs.frozen
class SupervisorStopping(Event):
    """A supervisor stops its children: it was told to, gave up, or has no more use for them."""


@attrs.frozen
class SupervisorGaveUp(Event):
    """A supervisor stops its children and fails, because of these failures of theirs."""

    reason: str
    failures: tuple[Failure, ...]


@attrs.frozen
class JobRetrying(Event):
    """A job failed and will be tried again in `delay` seconds."""

    source: str
    job: str
    attempt: int
    failure: Failure
    delay: float


@attrs.frozen
class JobFellBack(Event):
    """A job failed for good after `attempts` attempts, and its fallback was done instead."""

    source: str
    job: str
    attempts: int
    failure: Failure


@attrs.frozen
class JobDead(Event):
    """A job failed for good after `attempts` attempts; `item` is what it was about."""

    source: str
    job: str
    attempts: int
    failure: Failure
    item: object = attrs.field(repr=False)
    error: Exception = attrs.field(repr=False, eq=False)


@attrs.frozen
class DeadLetterKept(Event):
    """An `on_dead` handler failed itself; its dead letter is kept in the queue's own list."""

    source: str
    job: str
    failure: Failure
    item: object = attrs.field(repr=False)
    error: BaseException = attrs.field(repr=False, eq=False)


@attrs.frozen
class WorkEnded(Event):
    """The last workers of a queue have ended; `accounts` say what became of its items."""

    source: str
    accounts: str


@attrs.frozen
class ConfigurationReloaded(Event):
    """A changed configuration is in force; names of those that came, went and were changed.

    Those `adjusted` ran on with other policies, numbers of workers or options.
    """

    added: tuple[str, ...] = attrs.field(kw_only=True)
    removed: tuple[str, ...] = attrs.field(kw_only=True)
    restarted: tuple[str, ...] = attrs.field(kw_only=True)
    adjusted: tuple[str, ...] = attrs.field(kw_only=True)


@attrs.frozen
class ConfigurationRejected(Event):
    """A changed configuration is wrong, and was not applied; a line for each problem."""

    problems: tuple[str, ...]


@attrs.frozen
class ConfigurationRolledBack(Event):
    """A service did not become ready with a changed configuration, and the previous one is back.

    `restored` says whether all is ready with that; if not, services are started again and again
    as their policies say.
    """

    reason: str
    restored: bool

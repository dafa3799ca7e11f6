"""Alerts: what people are told of who do not look. A service that hears events and sends notices.

It is in nobody's way: events are taken in without waiting, what waits to be sent is bounded, a
delivery has a few seconds, and what cannot be delivered is counted, logged and forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Protocol, get_args

import attrs
import trio
from attrs import validators

from ..lifecycle import Bus, current_service, events, graceful
from ..resilience import Backoff, Bucket, Rate
from ..secrets import Secret
from ..services import Service
from ..supervision import Child
from ._digest import Alert, AlertKind, Digest
from ._logs import service_logger
from ._sinks import Content, Sink, open_sink

DELIVERY_WITHIN = 5.0
"""Seconds that one attempt at a delivery may take."""
LAST_WORD_WITHIN = 2.0
"""Seconds that a stop waits at most for what has not been delivered yet."""

_RATE = Rate(6, per=60.0, burst=3)  # attempts at deliveries
_ATTEMPTS = 3
_BACKOFF = Backoff(initial=5.0, factor=4.0)
_SHOWN = 20  # alerts that a notice tells one by one


@attrs.frozen
class AlertTarget:
    """Whom to tell of what.

    Args:
        name: what it is called in logs and statistics.
        url: ``https://…`` or ``http://…`` for a webhook that takes JSON; any other one is for
            Apprise, which is in the extra ``alerts``.
        on: the kinds of trouble.

    Raises:
        ValueError: a kind is unknown, or there is none.
    """

    name: str
    url: Secret
    on: Collection[AlertKind] = attrs.field(
        validator=[
            validators.min_len(1),
            validators.deep_iterable(validators.in_(get_args(AlertKind))),
        ],
    )


@attrs.frozen
class AlertStatistics:
    """What became of the alerts for one target.

    Args:
        name: of the target.
        pending: conditions of which something has to be told.
        delivered: alerts that were delivered.
        dropped: alerts that were not: there was no room for them, or several attempts failed.
    """

    name: str
    pending: int
    delivered: int
    dropped: int


class Watched(Protocol):
    """What alerts are about: a `Host`."""

    @property
    def name(self) -> str:
        """Of the application."""
        ...

    @property
    def bus(self) -> Bus:
        """Where its events are published."""
        ...


def alerting(targets: Sequence[AlertTarget]) -> Callable[[Watched], Child]:
    """A companion of a host that tells others of its troubles.

    Args:
        targets: whom to tell.

    Raises:
        ValueError: an address is wrong; says of which target, and not the address.
    """
    sinks: list[tuple[AlertTarget, Sink]] = []
    for target in targets:
        try:
            sinks.append((target, open_sink(target.url)))
        except ValueError as error:
            raise ValueError(f"alerts {target.name}: {error}") from None

    def companion(host: Watched) -> Child:
        outlets = [_Outlet(host, target, sink) for target, sink in sinks]
        alerts = Alerts(host, outlets)
        return Child(alerts, name="alerts", stop_within=LAST_WORD_WITHIN, critical=False)

    return companion


class Alerts(Service):
    """Tell people of troubles."""

    def __init__(self, watched: Watched, outlets: Sequence[_Outlet]) -> None:
        self._watched = watched  # which has neither bus nor name yet
        self._outlets = outlets

    def statistics(self) -> tuple[AlertStatistics, ...]:
        """What became of the alerts, for each target."""
        return tuple(outlet.statistics() for outlet in self._outlets)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do so until a stop, and then for what is left, once.

        Cancellation: by a stop, after `LAST_WORD_WITHIN`; what was not delivered is dropped.
        """
        service = current_service()
        with graceful(), self._watched.bus.listening(self._hear):
            async with trio.open_nursery() as nursery:
                for outlet in self._outlets:
                    nursery.start_soon(outlet.run)
                task_status.started()
                await service.wait_stop_requested()
                for outlet in self._outlets:
                    outlet.close()

    def _hear(self, event: events.Event) -> None:
        for outlet in self._outlets:
            outlet.hear(event)


class _Outlet:
    """One target: what it has to be told, and the task that does."""

    def __init__(self, watched: Watched, target: AlertTarget, sink: Sink) -> None:
        self._watched = watched
        self._name = target.name
        self._sink = sink
        self._digest = Digest(target.on)
        self._bucket = Bucket(_RATE)
        self._news = trio.Event()
        self._closed = trio.Event()
        self._delivered = 0
        self._undelivered = 0

    def statistics(self) -> AlertStatistics:
        digest = self._digest
        return AlertStatistics(
            self._name, len(digest), self._delivered, digest.dropped + self._undelivered
        )

    def hear(self, event: events.Event) -> None:
        if self._digest.hear(event, trio.current_time()):
            self._news.set()

    def close(self) -> None:
        """Deliver what there is, once and at once, and end."""
        self._closed.set()
        self._news.set()

    async def run(self) -> None:
        while not self._closed.is_set():
            await self._wait_due()
            await self._send(self._digest.take(trio.current_time()))
        await self._send(self._digest.take(trio.current_time(), early=True))

    async def _wait_due(self) -> None:
        """Return when something may be delivered, or to end."""
        while not self._closed.is_set():
            self._news = trio.Event()
            due = self._digest.due
            if due < math.inf:
                due = self._bucket.due(due)
            with trio.move_on_at(due) as timer:
                await self._news.wait()
            if timer.cancelled_caught:
                return

    async def _send(self, alerts: Sequence[Alert]) -> None:
        """Deliver, in several attempts if need be, and keep the accounts."""
        if not alerts:
            return
        notice = _notice(self._watched.name, alerts, self.statistics().dropped)
        done = False
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                self._bucket.take(trio.current_time())
                if done := await self._deliver(notice):
                    break
                if self._closed.is_set() or attempt == _ATTEMPTS:
                    break
                with trio.move_on_after(_BACKOFF.delay(attempt)):
                    await self._closed.wait()
        finally:
            if done:
                self._delivered += len(alerts)
            else:
                self._undelivered += len(alerts)

    async def _deliver(self, notice: Content) -> bool:
        """Try once; whether it was delivered in time."""
        reason = f"not done within {DELIVERY_WITHIN:g} s"
        with trio.move_on_after(DELIVERY_WITHIN):  # noqa: ASYNC912 -- a sink is one
            try:
                await self._sink(notice)
            except Exception as error:  # noqa: BLE001 -- an error of whichever library
                reason = type(error).__name__  # whose message may tell the address
            else:
                return True
        service_logger().warning(f"alert not delivered to {self._name}: {reason}")
        return False


def _notice(application: str, alerts: Sequence[Alert], dropped: int) -> Content:
    """What is sent for some alerts: for people and for machines."""
    lines = [str(alert) for alert in alerts[:_SHOWN]]
    if more := len(alerts) - len(lines):
        lines.append(f"and {more} more")
    if dropped:
        lines.append(f"{dropped} alerts have been dropped since the start")
    over = all(alert.recovered for alert in alerts)
    troubles = "1 alert" if len(alerts) == 1 else f"{len(alerts)} alerts"
    return {
        "title": f"{application}: {'recovered' if over else troubles}",
        "text": "\n".join(lines),
        "application": application,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "alerts": [attrs.asdict(alert) for alert in alerts[:_SHOWN]],
        "more": more,
        "dropped": dropped,
    }

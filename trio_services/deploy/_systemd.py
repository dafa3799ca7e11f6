"""The application under systemd: when it is ready, how it is, and whether it gets on."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio

from ..host import Host
from ..lifecycle import HealthStatus, State, events
from ..services import Service
from ..supervision import Child
from ._notify import Notifier

NAME = "systemd"
_LOOK = 2.0  # seconds between two looks at the status
_SHORTEST = 0.01  # seconds between two meals of a watchdog, however impatient it is


def notifying(notifier: Notifier) -> Callable[[Host], Child]:
    """A companion of a host that tells systemd of its start, its stop and its health."""

    def companion(host: Host) -> Child:
        return Child(Systemd(host, notifier), name=NAME, stop_within=0, critical=False)

    return companion


@contextmanager
def telling_of_reload(notifier: Notifier, host: Host) -> Generator[None]:
    """Tell systemd that the configuration is being applied anew in this block."""
    if not _runs(host):  # to systemd, a start or a stop that reloads is something else
        yield
        return
    # By this time, systemd knows which of its requests is answered.
    now = str(time.monotonic_ns() // 1000)
    notifier.tell(RELOADING="1", MONOTONIC_USEC=now, STATUS="reloading")
    try:
        yield
    finally:
        if _runs(host):
            notifier.tell(READY="1", STATUS=_status(host))


class Systemd(Service):
    """Tell systemd when the application is ready, stops, and how it is meanwhile.

    The watchdog is fed at half of its time, as long as the event loop turns and no critical
    service that runs is stale, or says that it is unhealthy. Of one that its supervisor is
    starting again nothing is held against the process: to kill it would not help.
    """

    def __init__(self, host: Host, notifier: Notifier) -> None:
        self._host = host
        self._notifier = notifier
        self._told = ""
        self._gets_on = True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do so until a stop.

        Cancellation: at once.
        """
        with self._host.bus.listening(self._heed):
            self._tell_status()
            if _runs(self._host):  # it is started again
                self._notifier.tell(READY="1", STATUS=self._told)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_status)
                if self._notifier.watchdog is not None:
                    period = max(self._notifier.watchdog / 2, _SHORTEST)
                    nursery.start_soon(self._feed, period)
                    nursery.start_soon(self._examine, period)

    def _heed(self, event: events.Event) -> None:
        if event.service == self._host.name:
            if isinstance(event, events.ServiceReady):
                self._told = "ready"
                self._notifier.tell(READY="1", STATUS=self._told)
            elif isinstance(event, events.SupervisorStopping):
                self._told = "stopping"
                self._notifier.tell(STOPPING="1", STATUS=self._told)

    async def _keep_status(self) -> None:
        while True:
            self._notifier.remind()
            self._tell_status()
            await trio.sleep(_LOOK)

    async def _feed(self, period: float) -> None:
        while True:
            if self._gets_on:
                self._notifier.feed_watchdog()
            await trio.sleep(period)

    async def _examine(self, period: float) -> None:
        """Learn how the services are: apart, since one may take its time to answer."""
        while True:
            report = await self._host.health()
            self._gets_on = not _runs(self._host) or not any(
                one.critical
                and one.state is State.RUNNING
                and one.health.status is HealthStatus.UNHEALTHY
                for one in report.services
            )
            await trio.sleep(period)

    def _tell_status(self) -> None:
        status = _status(self._host)
        if status != self._told:
            self._told = status
            self._notifier.tell(STATUS=status)


def _runs(host: Host) -> bool:
    """Whether all services became ready, and no stop has begun."""
    return host.was_ready and not host.tree.life.stop_requested


def _status(host: Host) -> str:
    """What people read in `systemctl status`."""
    if host.tree.life.stop_requested:
        return "stopping"
    if unready := host.unready():
        return f"{'not ready' if host.was_ready else 'starting'}: {'; '.join(unready)}"
    if degraded := host.degraded():
        return f"degraded: {'; '.join(degraded)}"
    return "ready"

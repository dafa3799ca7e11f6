"""An application as a process of its own: signals, logs, exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio
from attrs import validators

from ..errors import InjectionError, PlanError, RestartLimitExceeded, StopFailed, StopOverdue
from ..lifecycle import events
from ..services import AnyService
from ..supervision import STOP_WITHIN
from ..telemetry import LogSettings, configure_logs, log_critical
from ._guard import Guard
from ._host import Companion, Host

if TYPE_CHECKING:
    from ..di import Container

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.frozen
class HostSettings:
    """How to run an application.

    Args:
        stop_within: seconds that a whole stop may take; ≥ 0.
        log: how `run` sets up the logs.
    """

    stop_within: float = attrs.field(default=STOP_WITHIN, validator=validators.ge(0))
    log: LogSettings = attrs.field(factory=LogSettings)


def run(
    tree: AnyService,
    *,
    config: HostSettings | None = None,
    companions: Sequence[Companion] = (),
    container: Container | None = None,
) -> int:
    """Run an application as this process: signals, logs, and an exit in time.

    SIGINT and SIGTERM stop the services in order; a second one cancels them at once, a third
    ends the process on the spot. When the services have not stopped 2 s after their budget, the
    process is ended with the stacks of all threads and the names of those to blame.

    Args:
        tree: a supervisor, or a single service.
        config: how to run it.
        companions: make services that need the host itself.
        container: what services and jobs get by the types of their parameters; see `Container`.

    Returns: 0, when all services ended or were stopped cleanly.

    Raises:
        SystemExit: with status 1 after a failure, 2 when the tree may need more time to stop than
            it has (what else is wrong with a tree is said when it is written down), 3 when a stop
            was overdue (without unwinding, 2 s after the budget), 130 or 143 after a second signal.
    """
    settings = config or HostSettings()
    configure_logs(settings.log)
    try:
        host = Host(tree, settings.stop_within, companions, container)
    except PlanError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- usage, before there is anything to log
        sys.exit(2)
    with Guard(host) as guard, _Signals(host, guard) as signals:
        status = trio.run(_main, host, guard, signals)
    status = signals.status or status
    if status:
        sys.exit(status)
    return 0


async def _main(host: Host, guard: Guard, signals: _Signals) -> int:
    """Run the host, and turn how it ended into an exit status."""

    failed_at_stop = overdue = False

    def watch(event: events.Event) -> None:
        nonlocal failed_at_stop, overdue
        if isinstance(event, events.SupervisorStopping) and event.service == host.name:
            guard.arm()  # whoever began the stop: a signal, a failure, or that all is done
        elif isinstance(event, events.ServiceOverdue):
            # Nothing in the process can end it, so the process has to end.
            overdue = True
            guard.arm()
            host.request_stop()
        elif isinstance(event, events.ServiceFailed) and event.stopping:
            failed_at_stop = True

    try:
        with host.bus.listening(watch):
            signals.attach(trio.lowlevel.current_trio_token())
            async with host.open(open_ended=False):
                await host.wait_ended()
    except SystemExit as request:
        if request.code is None or isinstance(request.code, int):
            return request.code or int(failed_at_stop)
        log_critical(str(request.code))  # as Python itself does with `sys.exit("message")`
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (RestartLimitExceeded, StopFailed, StopOverdue, InjectionError) as error:
        log_critical(str(error))
        return 3 if overdue else 1
    return 3 if overdue else 0


class _Signals:
    """The first SIGINT or SIGTERM stops, the second cancels, the third exits.

    Attributes:
        status: the exit status that a second signal asks for, or 0.
    """

    def __init__(self, host: Host, guard: Guard) -> None:
        self.status = 0
        self._host = host
        self._guard = guard
        self._count = 0
        self._token: trio.lowlevel.TrioToken | None = None
        self._previous: dict[
            signal.Signals, Callable[[int, FrameType | None], Any] | int | None
        ] = {}

    def attach(self, token: trio.lowlevel.TrioToken) -> None:
        """From here on the event loop turns; a signal that came before is acted on now."""
        self._token = token
        if self._count:
            self._act()

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Not through Trio's own receiver: the guard has to be armed even if the loop is blocked.
        self._count += 1
        if self._count == 1:
            self._guard.arm()
        elif self._count == 2:
            self.status = 128 + number
            self._guard.hurry(self.status)
        else:
            os._exit(128 + number)
        self._act()

    def _act(self) -> None:
        if self._token is not None:
            act = self._host.request_stop if self._count == 1 else self._host.cancel
            with suppress(trio.RunFinishedError):  # it has stopped already
                self._token.run_sync_soon(act)

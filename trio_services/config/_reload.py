"""Reload: a running application becomes what its configuration file says now, or stays as it is.

The steps, in order: the file is read and checked, and its application built, as at a start; what
has changed is planned; the tree is changed; and when all that is new has been ready for a while,
what can be adjusted in place is. What is wrong before the tree is changed changes nothing; a
service that does not become ready lets all of it be undone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import trio

from ..errors import ConfigError, PlanError, ServicesError, StartFailed
from ..host import Host
from ..lifecycle import current_service, events
from ..queues import WorkQueue
from ..services import Service
from ..supervision import Change, Child
from ..telemetry import configure_logs
from ._application import Application
from ._build import build
from ._changes import Plan, fixed, plan
from ._schema import Configuration
from ._watch import Look, Settling, Verdict, look_at

NAME = "reload"
_INTERVAL = 0.5  # seconds between looks at the file
_PROBATION = 1.0  # seconds in which what is new, and ready, must not fail
_TORN = (
    "it is only the beginning of the configuration that is in force, and may have been torn in "
    "writing; if it is meant, send SIGHUP"
)


Around = Callable[[Host], AbstractContextManager[object]]


def reloading(
    configuration: Configuration,
    application: Application,
    read: Callable[[], Configuration],
    around: Around = nullcontext,
) -> Callable[[Host], Child]:
    """A companion of a host that reloads its configuration on SIGHUP, and when the file changes.

    Args:
        configuration: what the application was built from.
        application: what the host runs.
        read: loads the configuration again.
        around: makes a block in which each reload is done, with the host.
    """

    def companion(host: Host) -> Child:
        # It stops after all others; until then it might wait for one of them.
        reloader = Reloader(host, configuration, application, read, around)
        return Child(reloader, name=NAME, stop_within=0)

    return companion


class Reloader(Service):
    """Apply the configuration file anew, on SIGHUP and when it changes."""

    def __init__(
        self,
        host: Host,
        configuration: Configuration,
        application: Application,
        read: Callable[[], Configuration],
        around: Around = nullcontext,
    ) -> None:
        self._host = host
        self._configuration = configuration
        self._application = application
        self._read = read
        self._around = around
        self._held: list[WorkQueue[Any]] = []
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do so until a stop.

        Cancellation: at once.
        """
        hung_up = _HangUps()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(hung_up.heed)
                if self._application.tables.host.watch:
                    await self._watch(hung_up, task_status)
                else:
                    task_status.started()
                    while True:
                        await hung_up.wait()
                        await self.reload()
        finally:
            self._let_go()

    async def reload(self) -> None:
        """Read the configuration file, and make the application what it says.

        Cancellation: what was begun goes on.
        """
        await trio.lowlevel.checkpoint()
        with self._around(self._host):
            await self._reload()

    async def _reload(self) -> None:
        try:
            configuration = self._read()
            problems = [*fixed(self._application.tables, configuration.tables)]
            if problems:
                raise ConfigError([configuration.origins.line(one) for one in problems])
            planned = plan(self._application, build(configuration, running=self._application))
        except ConfigError as error:
            self._reject(error.problems)
            return
        self._hold(planned.removed)
        self._inject(planned.became)
        try:
            await self._change(planned.change, probation=_PROBATION)
        except PlanError as error:
            self._inject(self._application)
            self._reject(str(error).splitlines())
        except StartFailed as error:
            if not self._stopping:
                await self._undo(planned, error)
        except ServicesError:
            if not self._stopping:
                raise
        else:
            self._adjust(planned)
            self._configuration, self._application = configuration, planned.became
            self._publish(
                events.ConfigurationReloaded(
                    self._host.name,
                    added=planned.added,
                    removed=planned.removed,
                    restarted=planned.restarted,
                    adjusted=planned.adjusted,
                )
            )

    @property
    def _stopping(self) -> bool:
        return self._host.tree.life.stop_requested

    async def _change(self, change: Change, *, probation: float | None) -> None:
        await self._host.change(attrs.evolve(change, probation=probation))

    async def _undo(self, planned: Plan, error: StartFailed) -> None:
        """Let the previous configuration come back."""
        restored = True
        self._inject(self._application)
        try:
            await self._change(planned.undo, probation=None)
        except StartFailed:
            restored = False  # what does not start is started again as its policy says
        self._publish(
            events.ConfigurationRolledBack(self._host.name, str(error), restored=restored)
        )

    def _inject(self, application: Application) -> None:
        """Have services that start from now on get the options of an application by their class."""
        if application.injection is not None:
            application.injection.parts = application.parts

    def _adjust(self, planned: Plan) -> None:
        """Change in place what can be."""
        if planned.log is not None:
            configure_logs(planned.log)
        for live, value in planned.live:
            live.replace(value)
        for name, count in planned.counts.items():
            try:
                self._host.tree.resize(name, count)
            except ServicesError:
                continue  # it does not run now, and has so many when it does

    def _reject(self, problems: Sequence[str]) -> None:
        self._publish(events.ConfigurationRejected(self._host.name, tuple(problems)))

    def _publish(self, event: events.Event) -> None:
        self._host.bus.publish(event)

    # -- queues that lose their last workers ------------------------------------------------

    def _hold(self, removed: Sequence[str]) -> None:
        """Keep the queues of workers open that are removed: others may put items, or come back."""
        for name in removed:
            table = self._application.tables.workers.get(name)
            if table is not None:
                queue = self._application.queues[table.queue]
                queue.attach()
                self._held.append(queue)

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for queue in held:
            if queue.detach():
                accounts = str(queue.statistics())
                name = current_service().name
                self._publish(events.WorkEnded(name, queue.name, accounts))

    # -- what asks for a reload -------------------------------------------------------------

    async def _watch(self, hung_up: _HangUps, task_status: trio.TaskStatus[None]) -> None:
        """Reload at each SIGHUP, and when the file has changed, or one with a secret."""
        settling = Settling(await self._look())
        task_status.started()
        while True:
            with trio.move_on_after(_INTERVAL) as timer:
                await hung_up.wait()
            seen = await self._look()
            if not timer.cancelled_caught:
                settling = Settling(seen)
                await self.reload()
                continue
            in_force = self._configuration.text.encode()
            verdict = settling.judge(seen, trio.current_time(), in_force)
            if verdict is Verdict.CHANGED:
                await self.reload()
            elif verdict is Verdict.TORN:
                self._reject([f"{self._configuration.source}: {_TORN}"])

    async def _look(self) -> Look:
        source = self._configuration.source
        folder = source.absolute().parent
        secrets = [place for part in self._application.parts.values() for place in part.secrets]
        files = dict.fromkeys(place.file for place in secrets if place.file)
        others = [folder / file for file in files]
        # In a thread, for a file system that hangs must not keep the application from its work.
        return await trio.to_thread.run_sync(
            look_at, source, others, limiter=self._limiter, abandon_on_cancel=True
        )


class _HangUps:
    """SIGHUP, where there is such a signal; several at once are one."""

    def __init__(self) -> None:
        self._came = trio.Event()

    async def wait(self) -> None:
        """Wait for the next one."""
        await self._came.wait()
        self._came = trio.Event()

    async def heed(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take them."""
        number = getattr(signal, "SIGHUP", None)
        if number is None:
            task_status.started()
            return
        with trio.open_signal_receiver(number) as signals:
            task_status.started()
            async for _ in signals:
                self._came.set()

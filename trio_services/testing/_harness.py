"""A whole application under test."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import trio

from ..errors import UnknownService
from ..host import Host
from ..lifecycle import events, single_errors_as_themselves
from ..services import AnyService
from ..supervision import STOP_WITHIN, Child, ServiceStatistics, Supervisor
from ..timers import wall_clock
from ._errors import LeftBehind, NotSeen
from ._faults import Faults
from ._leaks import Possessions, books_open, queues_of, tasks_left
from ._overrides import Overrides, with_services, with_values
from ._report import report
from ._virtual import watching
from ._wall import Wall

if TYPE_CHECKING:
    from ..di import Container

E = TypeVar("E", bound=events.Event)
Tree = AnyService | str | Path


class TestHost:
    """The handle of an application under test.

    Attributes:
        host: the running application, with all that can be asked of it and said to it.
        events: what has happened, in order.
        wall: the wall clock of its schedules.
    """

    __test__ = False  # for pytest, which takes a class of this name for a test

    def __init__(self, host: Host, wall: Wall) -> None:
        self.host: Host = host
        self.events: list[events.Event] = []
        self.wall: Wall = wall
        self._news = trio.Event()
        self._opened = trio.Event()
        self._ended = trio.Event()

    def __repr__(self) -> str:
        return f"<TestHost {self.host.name}>"

    async def ready(self) -> None:
        """Return when all services are ready, or have ended before.

        Cancellation: at any time.
        """
        await self._opened.wait()

    async def wait_for(
        self, kind: type[E], *, service: str | None = None, nth: int = 1, within: float = 30.0
    ) -> E:
        """The event of a kind, at once if it has come already.

        Args:
            kind: such as `events.ServiceFailed`.
            service: whose, by its path, with or without the name of the root. Default: anybody's.
            nth: which of those since the start; ≥ 1.
            within: seconds that it may take, on Trio's clock.

        Raises:
            NotSeen: it did not come in time, or cannot come any more.

        Cancellation: at any time.
        """
        await trio.lowlevel.checkpoint()
        path = None if service is None else self._path(service)
        until = trio.current_time() + within
        while True:
            seen = [
                event
                for event in self.events
                if isinstance(event, kind) and path in (None, event.service)
            ]
            if len(seen) >= nth:
                return seen[nth - 1]
            if self._ended.is_set() or trio.current_time() >= until:
                break
            with trio.move_on_at(until):
                await self._news.wait()
        whose = "" if path is None else f" of {path}"
        when = "before all had ended" if self._ended.is_set() else f"within {within:g} s"
        raise NotSeen(f"no {kind.__name__}{whose} number {nth} came {when}")

    def service(self, path: str) -> ServiceStatistics:
        """What there is to know of a service now.

        Args:
            path: with or without the name of the root.

        Raises:
            UnknownService: there is none with this path.
        """
        wanted = self._path(path)
        for one in self.host.tree.statistics().walk():
            if one.name == wanted:
                return one
        raise UnknownService(f"{self.host.name} has no service {path!r}")

    async def stop(self) -> None:
        """Stop all services in order, and return when they have ended.

        Cancellation: the stop goes on.
        """
        await self._opened.wait()
        self.host.request_stop()
        await self._ended.wait()

    async def wait_ended(self) -> None:
        """Return when every service has ended for good.

        Cancellation: at any time.
        """
        await self._ended.wait()

    def report(self) -> str:
        """The live tree, and the log of events."""
        return report(self.host, self.events)

    def _path(self, path: str) -> str:
        root = self.host.name
        return path if path == root or path.startswith(f"{root}/") else f"{root}/{path}"

    def _take(self, event: events.Event) -> None:
        self.events.append(event)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _run(self) -> None:
        """Run the application until all its services have ended, as a process would."""
        async with self.host.open(open_ended=False):
            self._opened.set()
            await self.host.wait_ended()
        self._ended.set()
        self._tell()


@asynccontextmanager
async def host(
    tree: Tree,
    *,
    overrides: Overrides | None = None,
    container: Container | None = None,
    faults: Faults | None = None,
    stop_within: float | None = None,
    at: datetime | None = None,
) -> AsyncGenerator[TestHost, None]:
    """Run an application inside this block as a process of its own would, and stop it at its end.

    ::

        async def test_sync_is_started_again(autojump_clock: Clock) -> None:
            async with testing.host(tree, overrides={Client: FakeClient()}) as app:
                await app.ready()
                await app.wait_for(events.ServiceFailed, service="sync")
                await app.wait_for(events.ServiceReady, service="sync", nth=2)

    Under Trio's autojump clock it runs in virtual time; see the guide. If the test fails, the live
    tree and the log of events are told with the error.

    Args:
        tree: a supervisor, a single service, or the path of a configuration file.
        overrides: test doubles: services by their paths, and objects or what makes them by the
            types that they are asked for as.
        container: what services and jobs get by the types of their parameters.
        faults: what happens to the services.
        stop_within: seconds that the whole stop may take. Default: what the configuration says,
            or 30.
        at: what the wall clock shows at the start. Default: the time that it is.

    Raises:
        LeftBehind: when all has ended, a task, a thread, a child process, a socket, or an item of
            a queue is left.
        Deadlock: in virtual time, every task waits and none for a time.
        RealTimeUsed: in virtual time, a task waits for the outside world.
        Exception: what an application raises that fails; the block is cancelled then.

    Cancellation: stops the services in order.
    """
    root, configured = _tree(tree)
    doubles = overrides or {}
    paths = {
        path: cast("AnyService", double)
        for path, double in doubles.items()
        if isinstance(path, str)
    }
    root = with_services(root, paths)
    container = with_values(
        container, {key: double for key, double in doubles.items() if not isinstance(key, str)}
    )
    queues = queues_of(root)
    if faults is not None:
        root = faults.inject(root)
    before = Possessions.taken()
    wall = Wall((time.time() if at is None else at.timestamp()) - trio.current_time())
    within = configured if stop_within is None else stop_within
    under_test = TestHost(Host(root, within, container=container), wall)
    bus = under_test.host.bus
    with _told(under_test), single_errors_as_themselves():
        with bus.listening(under_test._take), _wall_clock(wall), watching() as watch:
            async with trio.open_nursery() as nursery:
                if watch is not None:
                    nursery.start_soon(watch.find_deadlock)
                    nursery.start_soon(watch.refuse_real_time)
                nursery.start_soon(under_test._run)
                yield under_test
                await under_test.stop()
                nursery.cancel_scope.cancel()
        left = [*tasks_left(bus), *books_open(queues), *before.new()]
        if left:
            raise LeftBehind(root.name, left)


def _tree(given: Tree) -> tuple[Supervisor, float]:
    """The services to run, and how long they may take to stop."""
    if isinstance(given, str | Path):
        from ..config import build, load  # which few tests need

        application = build(load(Path(given)))
        return application.tree, application.stop_within
    tree = given if isinstance(given, Supervisor) else Supervisor("app", [Child(given)])
    return tree, STOP_WITHIN


@contextmanager
def _wall_clock(wall: Wall) -> Generator[None, None, None]:
    token = wall_clock.set(wall)
    try:
        yield
    finally:
        wall_clock.reset(token)


@contextmanager
def _told(under_test: TestHost) -> Generator[None, None, None]:
    """Tell how an application is, or was, with the error of its test."""
    try:
        yield
    except Exception as error:
        error.add_note(under_test.report())
        raise

"""One supervised service, from the moment it is known until it has ended for good."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol

import trio

from ..errors import Failure
from ._alarms import Alarm, Alarms
from ._bus import Bus
from ._events import Event
from ._injection import HostInjector, ServiceInjector
from ._state import TRANSITIONS, State

if TYPE_CHECKING:
    from ._grace import graceful

P = ParamSpec("P")


class AtWork(Protocol):
    """What a service lets others look at while it runs."""

    def statistics(self) -> object:
        """What there is to say of it at this moment."""
        ...


_NO_CHILDREN: Mapping[str, Lifetime] = MappingProxyType({})


class Lifetime:
    """One supervised service from the moment it is known until it has ended for good.

    Args:
        name: its path in the tree, like ``inbox/watch``.
        bus: where it publishes.
        critical: whether the application is not well without it.
        parent: that of its supervisor; None at the root.

    Attributes:
        state: what it is doing.
        since: when it came into that state, in seconds on Trio's clock.
        attempt: how often it was started.
        failure: its last failure, if it had any.
        stop_requested: whether the present run was told to stop.
        ending: whether it will not be started again.
        deadline: when its time for stopping ends, in seconds on Trio's clock; infinite before.
        progressed_at: when it last called `progress()`, in seconds on Trio's clock.
        check: asks the service that runs for its `Health`, if it says by itself how it is.
        at_work: what the service lets others look at and steer while it runs, if anything.
        alarms: at the root, those of all services.
        children: for a supervisor, the lifetimes below it by name.
        injector: what opens a scope for each run of a service, if there is a container.
        injected: the scope of the present run, if it has one.
    """

    __slots__ = (
        "_changed",
        "_endings",
        "_sleepers",
        "_stop_event",
        "alarms",
        "at_work",
        "attempt",
        "bus",
        "check",
        "children",
        "critical",
        "deadline",
        "ending",
        "failure",
        "injected",
        "injector",
        "name",
        "parent",
        "progressed_at",
        "regions",
        "scope",
        "since",
        "state",
        "stop_requested",
        "task",
    )

    def __init__(
        self, name: str, bus: Bus, *, critical: bool = True, parent: Lifetime | None = None
    ) -> None:
        self.name: str = name
        self.bus: Bus = bus
        self.critical: bool = critical
        self.parent: Lifetime | None = parent
        self.state: State = State.WAITING
        self.since: float = trio.current_time()
        self.progressed_at: float = self.since
        self.attempt: int = 0
        self.failure: Failure | None = None
        self.stop_requested: bool = False
        self.ending: bool = False
        self.deadline: float = math.inf
        self.check: Callable[[], Awaitable[object]] | None = None
        self.at_work: AtWork | None = None
        self.alarms: Alarms | None = None
        self.children: Mapping[str, Lifetime] = _NO_CHILDREN
        self.injector: HostInjector | None = parent.injector if parent is not None else None
        self.injected: ServiceInjector | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self.regions: dict[graceful, None] = {}  # in the order in which they were entered
        self.task: trio.lowlevel.Task | None = None
        self._endings: dict[str, dict[object, Callable[[], object]]] | None = None  # by service
        # These are made when somebody waits; few do.
        self._stop_event: trio.Event | None = None
        self._changed: trio.Event | None = None
        self._sleepers: set[Alarm] | None = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.state}>"

    # -- for the service ---------------------------------------------------------------

    def progress(self) -> None:
        """Say that the service is getting on with its work."""
        self.progressed_at = trio.current_time()

    async def wait_stop_requested(self) -> None:
        """Return once the service was told to stop.

        Cancellation: outside of a graceful region a stop cancels this as it does everything else.
        """
        if self._stop_event is None:
            self._stop_event = trio.Event()
            if self.stop_requested:
                self._stop_event.set()
        await self._stop_event.wait()

    async def sleep_until(self, when: float) -> bool:
        """Sleep, but not longer than until the service is told to stop.

        Args:
            when: seconds on Trio's clock; may have passed.

        Returns: whether the time came before a stop was requested.

        Cancellation: see `wait_stop_requested`.
        """
        root = self
        while root.parent is not None:
            root = root.parent
        slept = False
        while not self.stop_requested and trio.current_time() < when:
            slept = True
            alarms = root.alarms
            if alarms is not None:
                await self._sleep(alarms.set(when))
                continue
            # It does not run in a tree, or has left a task behind that lives longer than that.
            with trio.move_on_at(when):
                await self.wait_stop_requested()
        if not slept:
            await trio.lowlevel.checkpoint()
        return not self.stop_requested

    async def _sleep(self, alarm: Alarm) -> None:
        if self._sleepers is None:
            self._sleepers = set()
        self._sleepers.add(alarm)
        try:
            await alarm.sleep()
        finally:
            self._sleepers.remove(alarm)

    def publish(
        self, kind: Callable[Concatenate[str, P], Event], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Tell who listens of an event of this kind about it."""
        if self.bus.heard:
            self.bus.publish(kind(self.name, *args, **kwargs))

    async def bind(
        self, function: Callable[..., Awaitable[object]], given: int
    ) -> Callable[..., Awaitable[object]]:
        """What to call for each job instead of a function that may ask for more than the job.

        To be called once, in the service's own task and before there are jobs. A function that
        asks for nothing more is itself returned, and costs nothing.

        Args:
            function: an async function.
            given: how many positional arguments it is called with.

        Raises:
            PlanError: something that it asks for is not provided.
            Exception: something that all jobs need could not be made.

        Cancellation: at any time.
        """
        if self.injected is not None:
            return await self.injected.bind(function, given)
        await trio.lowlevel.checkpoint()
        return function

    def at_end(self, name: str, key: object, call: Callable[[], object]) -> bool:
        """Have something called once when a service cannot be started any more.

        Args:
            name: the service's path; this one's, or that of one below it that is not running yet.
            key: of calls with the same key for the same service, only the first is made.
            call: must not raise.

        Returns: whether it was new.
        """
        topmost = self._topmost()
        if topmost._endings is None:
            topmost._endings = {}
        calls = topmost._endings.setdefault(name, {})
        if key in calls:
            return False
        calls[key] = call
        return True

    @property
    def ends_for_good(self) -> bool:
        """Whether neither it will be started again nor, with it, a supervisor that it is below."""
        return self.ending and self._topmost().ending

    def _topmost(self) -> Lifetime:
        """That of the supervisor just below the root: with it, this one may be started again."""
        life = self
        while life.parent is not None and life.parent.parent is not None:
            life = life.parent
        return life

    # -- for its supervisor ------------------------------------------------------------

    def enter(self, state: State) -> float:
        """Go to another state, which must be one that may follow.

        Returns: how many seconds it was in the one before.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.name} cannot go from {self.state} to {state}")
        before = self.since
        self.state = state
        self.since = trio.current_time()
        if self._changed is not None:
            self._changed.set()
            self._changed = None
        return self.since - before

    async def wait_changed(self) -> None:
        """Return when it has come into another state."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def renew(self) -> None:
        """Begin a run, of which nothing is known yet."""
        self.attempt += 1
        if self.attempt == 1:
            return  # all is new already
        self.scope = trio.CancelScope()
        self.check = None
        self.at_work = None
        self.stop_requested = False
        self.deadline = math.inf
        self._stop_event = None

    def end(self) -> None:
        """This run of its supervisor will not start it again."""
        topmost = self._topmost()
        if topmost._endings is None:
            return
        if topmost is self:
            ended = list(topmost._endings.values())
            topmost._endings = None
        elif topmost.ending:
            ended = [topmost._endings.pop(self.name, {})]
        else:
            ended = []
        for calls in ended:
            for call in calls.values():
                call()

    def request_stop(self, within: float) -> None:
        """Cancel the service, but for its busy graceful regions, which have `within` seconds.

        Asking again can only bring the deadline nearer.
        """
        self.deadline = min(self.deadline, trio.current_time() + within)
        self.stop_requested = True
        for region in self.regions:  # outer ones first: what they shield needs no shield
            region.protect(self.deadline)
        if self._stop_event is not None:
            self._stop_event.set()
        for alarm in self._sleepers or ():
            alarm.ring_early()
        self.scope.cancel()

    def cancel(self) -> None:
        """Cancel the service at once, its graceful regions included."""
        self.request_stop(0)
        for region in self.regions:
            region.cancel()


_current: ContextVar[Lifetime] = ContextVar("trio_services.current_service")


def current_service() -> Lifetime:
    """The handle of the service in which the calling task runs.

    Raises:
        RuntimeError: the task does not belong to a supervised service.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError("this task does not run in a supervised service") from None


def surrounding_service() -> Lifetime | None:
    """The service in which the calling task runs, if it runs in one."""
    return _current.get(None)


def enter_service(lifetime: Lifetime) -> None:
    """Make this task, and those that it will start, belong to a service."""
    _current.set(lifetime)

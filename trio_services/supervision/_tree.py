"""A whole tree inside somebody else's program: its root, and how the two stop each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

import trio

from ..lifecycle import (
    Bus,
    HostInjector,
    Lifetime,
    State,
    enter_service,
    events,
    graceful,
    single_errors_as_themselves,
    summarize,
    surrounding_service,
)
from ._control import Control
from ._plan import check_budget
from ._supervision import Supervision
from ._supervisor import Supervisor

STOP_WITHIN = 30.0


class Tree(Control):
    """A running tree of services.

    Attributes:
        bus: where the events of all its services are published.
        was_ready: whether all services became ready, whatever happened since.
    """

    def __init__(
        self,
        spec: Supervisor,
        stop_within: float,
        bus: Bus,
        *,
        open_ended: bool,
        attendants: Collection[str] = (),
        injector: HostInjector | None = None,
    ) -> None:
        check_budget(spec.name, spec.worst_stop, stop_within)
        life = Lifetime(spec.name, bus)
        life.injector = injector  # as all below it have it
        super().__init__(
            Supervision(spec, life, open_ended=open_ended, attendants=attendants), stop_within
        )
        self.bus = bus
        self.was_ready = False
        self._surrounding = surrounding_service()
        self._settled = trio.Event()  # ready, or ended
        self._ended = trio.Event()
        self._watch = trio.CancelScope()

    @property
    def ready(self) -> bool:
        """Whether all services became ready, and no stop was requested since."""
        return self.life.state is State.RUNNING and not self._supervision.stopping

    @trio.lowlevel.enable_ki_protection
    def request_stop(self) -> None:
        """Stop all services in order; asking again changes nothing."""
        life = self.life
        if life.state is State.WAITING:
            life.enter(State.STOPPED)  # before it was even started
        elif life.state in (State.STARTING, State.RUNNING):
            within = self.stop_within
            if self._surrounding is not None:  # whose own time for stopping may end sooner
                left = self._surrounding.deadline - trio.current_time()
                within = max(0.0, min(within, left))
            life.enter(State.STOPPING)
            life.publish(events.ServiceStopping, within)
            life.request_stop(within)

    @trio.lowlevel.enable_ki_protection
    def cancel(self) -> None:
        """Cancel all services at once, also where they are in graceful regions."""
        self.request_stop()
        self.life.cancel()

    async def wait_ended(self) -> None:
        """Return when every service has ended for good."""
        await self._ended.wait()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Run it inside this block; see `open_supervisor`."""
        with single_errors_as_themselves():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed)
                nursery.start_soon(self._run, name=self.life.name)
                await self._settled.wait()
                try:
                    yield
                finally:
                    self.request_stop()

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        life = self.life
        if life.state.ended:
            self._settle()
            await trio.lowlevel.checkpoint()
            return
        life.renew()
        life.enter(State.STARTING)
        life.publish(events.ServiceStarting, life.attempt)
        try:
            # Shielded, because a cancellation from around the tree has to come in as a stop, by
            # `_heed`; a region of the service around it, if there is one, to obey its deadline.
            with graceful() as region, life.scope:
                region.isolate(self.cancel)
                enter_service(life)
                await self._supervision.run(task_status=_RootStatus(self))
        except trio.Cancelled:
            raise
        except BaseException as error:
            life.enter(State.FAILED)
            life.failure = summarize(life.name, error)
            raise
        finally:
            if life.state is State.STOPPING:
                took = life.enter(State.STOPPED)
                life.publish(events.ServiceStopped, took)
            elif not life.state.ended:
                life.enter(State.DONE)
            self._settle()

    def _settle(self) -> None:
        if self.life.state is not State.FAILED:
            self._settled.set()  # else the block is cancelled, and must not be entered
        self._ended.set()
        self._watch.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _heed(self) -> None:
        """Make a stop of a cancellation from around the tree."""
        with self._watch:
            try:
                await trio.sleep_forever()
            finally:
                self.request_stop()


class _RootStatus:
    """The `task_status` of the root."""

    __slots__ = ("_tree",)

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def started(self, value: object = None) -> None:
        """All children are ready."""
        life = self._tree.life
        if life.state is not State.STARTING:
            return  # it was told to stop meanwhile
        took = life.enter(State.RUNNING)
        self._tree.was_ready = True
        life.publish(events.ServiceReady, took)
        self._tree._settled.set()


@asynccontextmanager
async def open_supervisor(
    tree: Supervisor, *, stop_within: float = STOP_WITHIN, bus: Bus | None = None
) -> AsyncGenerator[Tree, None]:
    """Run a tree of services inside this block: ready on entry, stopped on exit.

    ::

        async with open_supervisor(Supervisor("app", [Heartbeat()])) as tree:
            ...

    Args:
        tree: what to run.
        stop_within: seconds that the whole stop may take; ≥ what the tree needs at worst.
        bus: where its events go. Default: one of its own, `tree.bus`.

    Raises:
        PlanError: before anything is started, when the tree may need more time to stop.
        RestartLimitExceeded: it gave up; the block is cancelled then.
        StopFailed: services failed while they were stopped.
        StopOverdue: a service ended long after its deadline.

    Cancellation: of the block, or of anything around it, stops the tree in order; the block ends
    when that is done, within `stop_within` seconds.
    """
    opened = Tree(tree, stop_within, bus or Bus(), open_ended=True)
    async with opened.open():
        yield opened

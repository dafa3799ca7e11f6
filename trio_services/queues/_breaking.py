"""A circuit breaker around a handler: while it is open no job is begun."""

from __future__ import annotations

import math

import trio

from ..errors import BreakerOpen
from ..lifecycle import Lifetime, events
from ..resilience import Breaker, BreakerState, Circuit


class HandlerBreaker:
    """The breaker of one handler at work.

    While it is open, workers take nothing from their queue. When it is due, the first that has a
    job to begin is let through as the probe; what becomes of that decides, and nothing else does.

    Args:
        breaker: its policy; a probe that does not fail closes it at once, so that `healthy_after`
            plays no part.
        service: in whose name its changes are published.
    """

    __slots__ = ("_changed", "_circuit", "_prober", "_service")

    def __init__(self, breaker: Breaker, service: Lifetime) -> None:
        self._circuit = Circuit(breaker)
        self._service = service
        self._prober: object | None = None
        self._changed = trio.Event()

    @property
    def state(self) -> BreakerState:
        """What it lets through."""
        return self._circuit.state

    @property
    def lets_nobody_through(self) -> bool:
        """Whether no worker that has a job could begin it now."""
        circuit = self._circuit
        if circuit.state is BreakerState.CLOSED:
            return False
        return circuit.state is BreakerState.HALF_OPEN or trio.current_time() < circuit.due

    def admits(self, who: object) -> bool:
        """Whether a worker that has a job may begin it now; if the breaker is due, as its probe."""
        circuit = self._circuit
        if circuit.state is BreakerState.CLOSED or self._prober is who:
            return True
        if self.lets_nobody_through:
            return False
        self._prober = who
        circuit.probe()
        self._service.publish(events.BreakerHalfOpened)
        return True

    async def wait_due(self) -> None:
        """Return when some worker may begin a job.

        Raises:
            BreakerOpen: it has given up.

        Cancellation: at any time.
        """
        circuit = self._circuit
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.lets_nobody_through:
            if circuit.given_up:
                raise BreakerOpen(self._service.name, circuit.opened - 1)
            is_open = circuit.state is BreakerState.OPEN
            with trio.move_on_at(circuit.due if is_open else math.inf):
                await self._changed.wait()

    async def wait_admitted(self, who: object) -> None:
        """Return when a worker that has a job may begin it; see `wait_due`."""
        while not self.admits(who):
            await self.wait_due()

    def succeeded(self, who: object) -> None:
        """A worker's job has shown nothing to be wrong."""
        if self._prober is who and self._circuit.state is BreakerState.HALF_OPEN:
            self._circuit.close()
            self._change()
            self._service.publish(events.BreakerClosed)

    def failed(self, who: object) -> None:
        """A worker's attempt has failed in a way that tells something about what it needs."""
        circuit = self._circuit
        if circuit.state is BreakerState.HALF_OPEN and self._prober is not who:
            return  # it began before the breaker opened
        opened = circuit.opened
        now = trio.current_time()
        if circuit.failed(now):
            self._change()
            if circuit.given_up:
                self._service.publish(events.BreakerGaveUp, opened)
            else:
                self._service.publish(events.BreakerOpened, circuit.opened, circuit.due - now)

    def leave(self, who: object) -> None:
        """A worker ends, or begins nothing; should it have been to probe, another will."""
        if self._prober is who and self._circuit.state is BreakerState.HALF_OPEN:
            self._circuit.postpone(trio.current_time())
            self._change()

    def _change(self) -> None:
        self._prober = None
        self._changed.set()
        self._changed = trio.Event()

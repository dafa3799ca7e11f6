"""Graceful cancellation: a stop that lets the unit of work in hand finish, up to a deadline.

Theory. A stop has to cancel a service everywhere *but* inside the units of work which it marked
with `graceful()`. Trio has no cancel scope that only some code is shielded from, so a region
shields itself at the moment of the stop and not before: until then it is an ordinary part of its
surroundings, whose time-outs apply to it. At a stop, `Lifetime.request_stop` first turns every
region that is busy into a shielded scope with the stop's deadline, and then cancels the scope
around the service. What is outside of a region sees that at once; what is inside sees its
deadline, or nothing if it finishes before.

Source: the discussion of graceful shutdown in python-trio/trio#147.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

from ._lifetime import Lifetime, surrounding_service


class graceful:  # noqa: N801 -- reads as an adverb: `with graceful():`
    """Mark a unit of work that a stop lets finish within the service's `stop_within`.

    ::

        async for message in mailbox:
            with graceful():
                await store(message)

    Entered after the deadline, it is cancelled at its first checkpoint. Regions nest, and work in
    any task of the service; all obey the one deadline. Outside of a supervised service there is
    nothing to be protected from, and it does nothing.

    A loop ends at what it awaits between its regions. One that awaits nothing there goes on with
    new units of work until the deadline.

    Cancellation: by everything around it until the service is told to stop; from then on by the
    service's deadline, and by time-outs around it that end sooner.
    """

    __slots__ = ("_busy", "_cancel_inside", "_lifetime", "_protected", "scope")

    def __init__(self) -> None:
        self.scope: trio.CancelScope = trio.CancelScope()
        self._lifetime: Lifetime | None = None
        self._busy = True
        self._protected = False
        self._cancel_inside: Callable[[], object] | None = None

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Self:
        self.scope.__enter__()
        self._lifetime = surrounding_service()
        if self._lifetime is not None:
            self._lifetime.regions[self] = None
            if self._lifetime.stop_requested:
                self.protect(self._lifetime.deadline)
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._lifetime is not None:
            self._lifetime.regions.pop(self, None)
        # Unshielded, the scope lets a cancellation by the deadline pass on to the scope of the
        # service; else it would catch it, and the code after the region would go on as if the
        # unit of work were done.
        self.scope.shield = False
        return bool(self.scope.__exit__(exc_type, exc, traceback))

    @trio.lowlevel.enable_ki_protection
    def suspend(self) -> None:
        """From here on there is nothing in hand: a stop cancels at once, as it does outside."""
        self._busy = False
        if self._protected:
            self._protected = self.scope.shield = False

    @trio.lowlevel.enable_ki_protection
    def resume(self) -> None:
        """From here on a unit of work is in hand again."""
        self._busy = True
        if self._lifetime is not None and self._lifetime.stop_requested:
            self.protect(self._lifetime.deadline)

    def isolate(self, cancel: Callable[[], object]) -> None:
        """Shield it now, for what hears of cancellations around it in another way.

        Args:
            cancel: cancels what is inside, which may shield itself.
        """
        self._cancel_inside = cancel
        self._protected = self.scope.shield = True

    def protect(self, deadline: float) -> None:
        """A stop has begun: shield a busy region from all but its deadline."""
        if self._busy and not self._protected:
            nearest = self._nearest_time_out()
            if nearest is None:
                return  # in a region that is protected, or in shielded clean-up
            deadline = min(deadline, nearest)
            self._protected = self.scope.shield = True
        if self._protected:
            self.scope.deadline = min(deadline, self.scope.deadline)
            if self.scope.deadline <= trio.current_time():
                self.scope.cancel()  # Trio looks at deadlines only when it has nothing to run

    def cancel(self) -> None:
        """Cancel what is inside, if the region keeps the cancellation around it out."""
        if self._protected:
            self.scope.cancel()
            if self._cancel_inside is not None:
                self._cancel_inside()

    def _nearest_time_out(self) -> float | None:
        """The soonest deadline between the region and the service, which a shield would hide.

        None: the stop does not reach it, since there is a shield between the two already, or it
        is in a task outside of the service.
        """
        nearest = math.inf
        lifetime = self._lifetime
        # There is no public way to ask for the scopes around another one.
        status = self.scope._cancel_status
        while lifetime is not None and status is not None and (status := status.parent):
            scope = status._scope
            if scope is lifetime.scope:
                return nearest
            if scope.shield:
                return None
            # Once the service is cancelled, its nurseries' own scopes are, for no other reason.
            if scope.cancel_called and not lifetime.scope.cancel_called:
                nearest = -math.inf
            nearest = min(nearest, scope.deadline)
        return None

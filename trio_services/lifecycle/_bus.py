"""The one channel of facts: events go in, and everybody who listens sees them in order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self, cast

import trio

from ._events import Event

Listener = Callable[[Event], None]


class Bus:
    """Publish events to listeners, synchronously and in order.

    A listener is called in the task of whom the event is about, so it must be quick and must not
    raise. The error of one that does goes to `sys.unraisablehook`: watching an application never
    harms it.
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def publish(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 -- reported, as from any callback
                # The type of its argument cannot be made from Python; hooks only read attributes.
                report = cast("Any", sys.unraisablehook)
                report(
                    SimpleNamespace(
                        exc_type=type(error),
                        exc_value=error,
                        exc_traceback=error.__traceback__,
                        err_msg=f"Listener failed at {event!r}",
                        object=listener,
                    )
                )

    @contextmanager
    def listening(self, listener: Listener) -> Generator[None, None, None]:
        """Call `listener` with every event that is published inside the block."""
        # A new list each time, because a listener may be added or removed by another one.
        self._listeners = [*self._listeners, listener]
        try:
            yield
        finally:
            self._listeners = [one for one in self._listeners if one is not listener]

    @contextmanager
    def subscribe(self, capacity: int = 1000) -> Generator[Subscription, None, None]:
        """An async iterator over the events that are published inside the block.

        Args:
            capacity: how many events may wait to be read; when there are more, the newest are
                dropped and counted. ≥ 1.
        """
        subscription = Subscription(capacity)
        take = subscription.take  # one object, so that it is found again at the end
        with self.listening(take), subscription:
            yield subscription


class Subscription:
    """The events published since it was opened, in order; `dropped` counts those that were lost."""

    def __init__(self, capacity: int) -> None:
        self.dropped = 0
        self._send, self._receive = trio.open_memory_channel[Event](capacity)

    def take(self, event: Event) -> None:
        """Keep an event for the reader, or count it as dropped."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._receive.receive()

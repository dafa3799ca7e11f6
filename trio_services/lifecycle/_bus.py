"""The one channel of facts: events go in, and everybody who listens sees them in order."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Self

import trio

from ._events import Event

Listener = Callable[[Event], None]


class Bus:
    """Publish events to listeners, synchronously and in order.

    A listener is called in the task of whom the event is about, so it must be quick and must not
    raise. The error of one that does is shown by `sys.excepthook`: watching an application never
    harms it. An event that a listener publishes comes after the one that it answers.
    """

    __slots__ = ("_listeners", "_pending", "_publishing")

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self._pending: deque[Event] = deque()
        self._publishing = False

    @property
    def heard(self) -> bool:
        """Whether anybody listens; if not, events need not be made."""
        return bool(self._listeners)

    def publish(self, event: Event) -> None:
        """Tell every listener."""
        self._pending.append(event)
        if self._publishing:
            return
        self._publishing = True
        try:
            while self._pending:
                event = self._pending.popleft()
                for listener in self._listeners:
                    self._tell(listener, event)
        finally:
            self._publishing = False

    def _tell(self, listener: Listener, event: Event) -> None:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 -- shown
            with suppress(Exception):  # whatever that raises, there is nobody left to tell
                error.add_note(f"raised by the listener {listener!r} at {event!r}")
            with suppress(Exception):
                sys.excepthook(type(error), error, error.__traceback__)

    @contextmanager
    def listening(self, listener: Listener) -> Generator[None, None, None]:
        """Call `listener` with every event that is published inside the block."""
        # New tuples, because a listener may be added or removed while they are being told.
        self._listeners = (*self._listeners, listener)
        try:
            yield
        finally:
            place = self._listeners.index(listener)
            self._listeners = self._listeners[:place] + self._listeners[place + 1 :]

    @contextmanager
    def subscribe(self, capacity: int = 1000) -> Generator[Subscription, None, None]:
        """An async iterator over the events that are published inside the block.

        Args:
            capacity: how many events may wait to be read; when there are more, the newest are
                dropped and counted. ≥ 1.
        """
        if capacity < 1:
            raise ValueError(f"the capacity of a subscription must be at least 1, not {capacity}")
        subscription = Subscription(capacity)
        with self.listening(subscription.take), subscription:
            yield subscription


class Subscription:
    """The events published since it was opened, in order; `dropped` counts those that were lost."""

    def __init__(self, capacity: int) -> None:
        self.dropped: int = 0
        self._send, self._receive = trio.open_memory_channel[Event](capacity)

    def take(self, event: Event) -> None:
        """Keep an event for the reader, or count it as dropped."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1
        except trio.ClosedResourceError:
            pass  # by another listener, at this very event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self._receive.receive()

"""Trees under test: what happened in them, and services that behave as a test needs."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from trio_services import Backoff, Child, Limit, Supervisor, current_service, graceful
from trio_services.lifecycle import Bus, Lifetime, events
from trio_services.supervision import Tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
    from types import FrameType

    from trio_services.lifecycle import State

E = TypeVar("E", bound=events.Event)

AT_ONCE = Backoff(initial=0, cap=0, jitter=0)
EVER_SO_OFTEN = Limit(1_000_000, per=1.0)


class Boom(Exception):
    """What services fail with here."""


class Stuck(BaseException):
    """A test did not end; raised out of whatever spins or waits."""


class Story:
    """What happened in a tree, in order: its events, and what its services noted."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.events: list[events.Event] = []
        self.notes: list[tuple[float, str]] = []
        self.tree: Tree | None = None

    @asynccontextmanager
    async def open(self, tree: Supervisor, stop_within: float = 30.0) -> AsyncGenerator[Tree]:
        """As `open_supervisor` does, but listen from before the start until after the end."""
        self.tree = Tree(tree, stop_within, self.bus, open_ended=True)
        with self.bus.listening(self.events.append):
            async with self.tree.open():
                yield self.tree

    def note(self, text: str) -> None:
        self.notes.append((trio.current_time(), text))

    @property
    def noted(self) -> list[str]:
        """The notes without their times."""
        return [text for _, text in self.notes]

    def at(self, text: str) -> float:
        """When something was noted for the first time."""
        return next(when for when, noted in self.notes if noted == text)

    def of(self, kind: type[E], service: str | None = None) -> list[E]:
        """The events of a kind, of all services or of one."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and service in (None, event.service)
        ]

    def times(self, kind: type[events.Event], service: str) -> list[float]:
        """When the events of a kind happened to a service."""
        return [event.at for event in self.of(kind, service)]

    def order(self, kind: type[events.Event]) -> list[str]:
        """To which services, in order, the events of a kind happened; without the root."""
        return [name for event in self.of(kind) if "/" in (name := event.service)]

    def sequence(self, service: str) -> list[str]:
        """What happened to one service; what its supervision does beside that is left out."""
        return [
            type(event).__name__
            for event in self.events
            if event.service == service and not isinstance(event, events.SupervisorStopping)
        ]


def state_of(life: Lifetime) -> State:
    """Its state now; a call, so that a type checker does not take it for a constant."""
    return life.state


def lives_of(life: Lifetime) -> Iterator[Lifetime]:
    """A lifetime, and all below it."""
    yield life
    for child in life.children.values():
        yield from lives_of(child)


@contextmanager
def ending_within(seconds: float) -> Generator[None]:
    """Raise `Stuck` when the block takes longer, in real time, whatever it is doing."""

    def stuck(number: int, frame: FrameType | None) -> None:
        raise Stuck(f"not done within {seconds:g} s of real time")

    before = signal.signal(signal.SIGALRM, stuck)
    # Again and again, because a service may take the first for a failure of its own.
    signal.setitimer(signal.ITIMER_REAL, seconds, 3.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def idle() -> None:
    """Ready at once, stops at once."""
    await trio.sleep_forever()


class AtOnce:
    """Something to await that never waits: it returns or raises without a checkpoint."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def __await__(self) -> Generator[None]:
        if self.error is not None:
            raise self.error
        yield from ()


async def broken() -> None:
    """Fails at once."""
    await AtOnce(Boom("broken"))


async def never_ready(*, task_status: trio.TaskStatus[None]) -> None:
    """Does not say that it is ready."""
    await trio.sleep_forever()


def ready_after(
    seconds: float, name: str, story: Story | None = None
) -> Callable[..., Awaitable[None]]:
    """A service that takes its time to get ready, and notes its start and end."""

    async def service(*, task_status: trio.TaskStatus[None]) -> None:
        if story is not None:
            story.note(f"{name} entered")
        try:
            await trio.sleep(seconds)
            task_status.started()
            await trio.sleep_forever()
        finally:
            if story is not None:
                story.note(f"{name} left")

    service.__name__ = name
    return service


def fails_after(
    *seconds: float, error: BaseException | None = None
) -> Callable[[], Awaitable[None]]:
    """Ready at once; fails after so many seconds, another number at each start, then idles."""
    left = iter(seconds)

    async def service() -> None:
        await trio.sleep(next(left, trio.current_time() + 1e9))
        raise error or Boom("broken")

    return service


def finishing(seconds: float, story: Story, name: str) -> Callable[[], Awaitable[None]]:
    """Has a unit of work in hand that ends `seconds` after its stop began, if it may."""

    async def service() -> None:
        with graceful():
            try:
                await current_service().wait_stop_requested()
                await trio.sleep(seconds)
                story.note(f"{name} finished")
            finally:
                story.note(f"{name} left")

    service.__name__ = name
    return service


def using_all(name: str) -> Callable[[], Awaitable[None]]:
    """Has a unit of work in hand that takes for ever."""

    async def service() -> None:
        with graceful():
            await trio.sleep_forever()

    service.__name__ = name
    return service


def fragile(service: object, **policy: object) -> Child:
    """A child that is never started again."""
    return Child(service, restart="never", **policy)  # type: ignore[arg-type]

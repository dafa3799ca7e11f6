"""Services of queues at work under a supervisor, and what they publish."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs

from trio_services.lifecycle import Bus, events
from trio_services.supervision import Child, Supervisor, open_supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_services.queues import QueueStatistics
    from trio_services.services import Service
    from trio_services.supervision import Tree

E = TypeVar("E", bound=events.Event)


@attrs.frozen
class Watched:
    """A tree at work, and the events that it has published."""

    tree: Tree
    seen: list[events.Event]

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.seen if isinstance(event, kind)]


@asynccontextmanager
async def working(
    *services: Child | Service, stop_within: float = 10.0
) -> AsyncGenerator[Watched, None]:
    """Run services inside the block; stop them at its end."""
    bus = Bus()
    seen: list[events.Event] = []
    with bus.listening(seen.append):
        tree = Supervisor("app", services, stop_within=stop_within)
        async with open_supervisor(tree, bus=bus) as opened:
            yield Watched(opened, seen)


def ends(books: QueueStatistics) -> dict[str, int]:
    """What became of the items, without the zeros."""
    names = ("depth", "in_hand", "done", "discarded", "dead", "returned", "left")
    return {name: count for name in names if (count := getattr(books, name))}
